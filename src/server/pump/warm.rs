//! Whether what is sent next is in memory. What is not would make the reactor wait for a disk: it is
//! read in elsewhere first.

use std::io::{self, IoSliceMut};
use std::mem;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::buffer::spare_capacity;
use rustix::io::{Errno, ReadWriteFlags};

use super::{QUANTUM_BYTES, Tools};
use crate::session::Send;

const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;

/// A file system that does not say what is in memory, the last that was met.
#[derive(Debug, Clone, Copy)]
pub struct Blind {
    device: u64,
    /// It has nothing but memory.
    is_memory: bool,
}

impl Blind {
    fn of(send: &Send) -> Blind {
        let fs = rustix::fs::fstatfs(&send.file);
        Blind {
            device: send.device,
            is_memory: fs.is_ok_and(|fs| [TMPFS, RAMFS].contains(&(fs.f_type as u64))),
        }
    }
}

/// How far the file of one transfer is known to be in memory.
#[derive(Debug, Default)]
pub(super) struct Warm {
    until: u64,
    asked: bool,
    /// Only what was read in is known to be there.
    is_blind: bool,
}

enum There {
    Yes,
    No,
    Unknown,
}

impl Warm {
    /// Whether the next `bytes` bytes can be sent without waiting for a disk. Asking for their last
    /// one is enough, since files are read in from the front; before the first time the front itself
    /// is asked for too.
    pub(super) fn covers(&mut self, send: &Send, bytes: usize, blind: &mut Option<Blind>) -> bool {
        let end = send.at + bytes as u64;
        if end <= self.until || bytes == 0 {
            return true;
        }
        if self.is_blind {
            return false;
        }
        let known = blind.filter(|blind| blind.device == send.device);
        let first = !mem::replace(&mut self.asked, true);
        let there = match known {
            Some(_) => There::Unknown,
            None if first => match is_there(send, send.at) {
                There::Yes => is_there(send, end - 1),
                other => other,
            },
            None => is_there(send, end - 1),
        };
        match there {
            There::Yes => self.until = end,
            There::No => {}
            There::Unknown => self.cannot_ask(send, blind),
        }
        end <= self.until
    }

    /// Reads without waiting for a disk.
    ///
    /// # Errors
    /// `WouldBlock`: it has to be read in first.
    pub(super) fn read(
        &mut self,
        send: &Send,
        into: &mut [u8],
        blind: &mut Option<Blind>,
    ) -> io::Result<usize> {
        let known = blind.is_some_and(|blind| blind.device == send.device);
        if !self.is_blind && !known {
            match read_if_there(send, send.at, into) {
                Err(Errno::AGAIN) => {}
                Err(Errno::OPNOTSUPP) => self.cannot_ask(send, blind),
                read => return Ok(read?),
            }
        } else if !self.is_blind {
            self.cannot_ask(send, blind);
        }
        let there = self.until.saturating_sub(send.at);
        let there = usize::try_from(there).unwrap_or(usize::MAX);
        if there == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let most = into.len().min(there);
        send.file.read_at(&mut into[..most], send.at)
    }

    /// A part of the file was read in. What was just waited for is taken to be there without asking
    /// again: were it always gone again, the transfer would never go on.
    pub(super) fn was_read_in(&mut self, at: u64, part: Range<u64>, was_awaited: bool) {
        if part.start > at.max(self.until) {
            return;
        }
        let next = match (self.is_blind, was_awaited) {
            (true, _) => part.end,
            (false, true) => part.end.min(at + QUANTUM_BYTES as u64),
            (false, false) => return,
        };
        self.until = self.until.max(next);
    }

    fn cannot_ask(&mut self, send: &Send, blind: &mut Option<Blind>) {
        let known = blind.filter(|blind| blind.device == send.device);
        let known = *blind.insert(known.unwrap_or_else(|| Blind::of(send)));
        match known.is_memory {
            true => self.until = u64::MAX,
            false => self.is_blind = true,
        }
    }
}

/// Appends all of a small file that is in memory to `out`. `Ok(false)`: it is not. Where that cannot be
/// known it is read all the same: to have each small file read in elsewhere would take longer than
/// most disks.
///
/// # Errors
/// As pread(2); the file is shorter than it was.
pub fn read_small(send: &Send, tools: &mut Tools, out: &mut Vec<u8>) -> io::Result<bool> {
    let known = tools.blind.is_some_and(|it| it.device == send.device);
    if !known {
        let whole = &mut tools.chunk[..send.bytes as usize];
        match read_if_there(send, send.at, whole) {
            Ok(n) if n == whole.len() => {
                out.extend_from_slice(whole);
                return Ok(true);
            }
            // What is missing is not there, or the file has become shorter: whoever waits will see.
            Ok(1..) | Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::OPNOTSUPP) => tools.blind = Some(Blind::of(send)),
            // The plain way tells.
            Ok(0) | Err(_) => {}
        }
    }
    let from = out.len();
    let read = read_exact(send, out);
    if read.is_err() {
        out.truncate(from);
    }
    read.map(|()| true)
}

/// Appends what is sent of a file, as many bytes as were announced, without clearing the space before.
fn read_exact(send: &Send, out: &mut Vec<u8>) -> io::Result<()> {
    let (from, bytes) = (out.len(), send.bytes as usize);
    out.reserve(bytes);
    while out.len() - from < bytes {
        let at = send.at + (out.len() - from) as u64;
        match rustix::io::pread(&send.file, spare_capacity(out), at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            // The file may have grown since its size was told.
            Ok(_) => out.truncate(from + bytes),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn read_if_there(send: &Send, at: u64, into: &mut [u8]) -> Result<usize, Errno> {
    loop {
        let mut into = [IoSliceMut::new(into)];
        match rustix::io::preadv2(&send.file, &mut into, at, ReadWriteFlags::NOWAIT) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// An error is none of this question's: the call that sends will tell.
fn is_there(send: &Send, at: u64) -> There {
    match read_if_there(send, at, &mut [0]) {
        Err(Errno::AGAIN) => There::No,
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => There::Unknown,
        _ => There::Yes,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    use rustix::fs::Advice;

    use super::*;
    use crate::storage::path::VirtualPath;

    const MIB: u64 = 1 << 20;

    fn sending(file: File) -> Send {
        Send {
            path: VirtualPath::root().join(b"f"),
            device: file.metadata().unwrap().dev(),
            file,
            at: 0,
            bytes: 4 * MIB,
            ascii: None,
        }
    }

    /// A file on a disk, of which nothing is in memory.
    fn cold() -> Send {
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.write_all(&vec![7; 4 << 20]).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        sending(file)
    }

    fn read(send: &Send, at: u64, bytes: usize) {
        send.file.read_exact_at(&mut vec![0; bytes], at).unwrap();
    }

    #[test]
    fn what_is_in_memory_is_asked_for_at_both_ends() {
        let (send, mut blind) = (cold(), None);
        let mut warm = Warm::default();
        let bytes = QUANTUM_BYTES;
        assert!(!warm.covers(&send, bytes, &mut blind));
        if blind.is_some() {
            // Not to be known here: only what was read in is there.
            warm.was_read_in(0, 0..MIB, true);
            assert!(warm.covers(&send, 1 << 20, &mut blind));
            assert!(!warm.covers(&send, (1 << 20) + 1, &mut blind));
            return;
        }
        // Its end alone is not enough.
        let send = cold();
        rustix::fs::fadvise(&send.file, 0, None, Advice::Random).unwrap();
        read(&send, QUANTUM_BYTES as u64 - 1, 1);
        assert!(!Warm::default().covers(&send, bytes, &mut blind));
        read(&send, 0, QUANTUM_BYTES);
        assert!(Warm::default().covers(&send, bytes, &mut blind));
    }

    #[test]
    fn what_was_waited_for_is_not_asked_for_again() {
        let (send, mut blind) = (cold(), None);
        let mut warm = Warm::default();
        // Of another part.
        warm.was_read_in(0, MIB..2 * MIB, true);
        assert_eq!(warm.until, 0);
        // Asked for too early.
        warm.was_read_in(0, 0..MIB, false);
        assert_eq!(warm.until, 0);
        warm.was_read_in(0, 0..MIB, true);
        assert_eq!(warm.until, QUANTUM_BYTES as u64);
        assert!(warm.covers(&send, QUANTUM_BYTES, &mut blind));
    }

    #[test]
    fn reading_stops_where_memory_ends() {
        let (send, mut blind) = (cold(), None);
        let mut warm = Warm::default();
        let mut into = vec![0; 4096];
        let cold = warm.read(&send, &mut into, &mut blind).unwrap_err();
        assert_eq!(cold.kind(), io::ErrorKind::WouldBlock);
        warm.was_read_in(0, 0..MIB, true);
        assert_eq!(warm.read(&send, &mut into, &mut blind).unwrap(), 4096);
        assert_eq!(into, [7; 4096]);
    }

    #[test]
    fn a_small_file_is_read_whole_or_not_at_all() {
        let mut send = cold();
        let mut tools = Tools::new().unwrap();
        let mut out = b"x".to_vec();
        send.bytes = 4096;
        let found = read_small(&send, &mut tools, &mut out).unwrap();
        assert_eq!(found, tools.blind.is_some(), "it is cold");
        read(&send, 0, 4096);
        out.truncate(1);
        assert!(read_small(&send, &mut tools, &mut out).unwrap());
        assert_eq!(out, [&b"x"[..], &[7; 4096]].concat());
        // It is shorter than it was.
        send.at = 4 * MIB - 1000;
        read(&send, send.at, 1000);
        let found = read_small(&send, &mut tools, &mut out);
        assert!(!found.is_ok_and(|whole| whole));
        assert_eq!(out.len(), 1 + 4096);
    }

    #[test]
    fn a_file_system_of_memory_is_asked_once() {
        let Ok(mut file) = tempfile::tempfile_in("/dev/shm") else {
            return;
        };
        file.write_all(&[7; 4096]).unwrap();
        let (send, mut blind) = (sending(file), None);
        assert!(Warm::default().covers(&send, 4096, &mut blind));
        assert!(blind.is_none_or(|it| it.is_memory && it.device == send.device));
    }
}
