//! What comes in: from the socket to the staged file, by copying, splicing or decrypting.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags};
use sha2::Digest;

use super::{Io, QUANTUM_BYTES, Tools, at_most};
use crate::server::tls::{Read, Tls};
use crate::session::{Outcome, Receive};

/// The pipe of splice. It is empty between two calls, or it is replaced: otherwise one upload would
/// get another's bytes.
#[derive(Debug)]
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    pub(super) fn new() -> io::Result<Pipe> {
        let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
        let (read, write) = rustix::pipe::pipe_with(flags)?;
        // Where the user's pipes are limited the default size stays, which is slower but right.
        let _ = rustix::pipe::fcntl_setpipe_size(&write, QUANTUM_BYTES);
        Ok(Pipe { read, write })
    }
}

/// A file that ends without close_notify was cut off: with TLS that can be told.
pub(super) fn decrypt_in(
    into: &mut Receive,
    tls: &mut Tls,
    socket: BorrowedFd,
    tools: &mut Tools,
    most: usize,
) -> Io {
    let mut scratch = std::mem::take(&mut tools.scratch);
    scratch.clear();
    let io = match tls.read(socket, &mut scratch, &mut tools.tls, most) {
        Read::Moved(read) => match write_in(into, &scratch, &mut Vec::new()) {
            Ok(()) => Io::Decrypted {
                read,
                bytes: scratch.len(),
            },
            Err(error) => Io::Ended(Outcome::Failed(error)),
        },
        Read::Blocked => Io::Blocked,
        Read::Ended => Io::Ended(end_of_stream(into)),
        Read::Refused => Io::Ended(Outcome::NotProtected),
        Read::Cut | Read::Broken => Io::Ended(Outcome::Broken),
    };
    tools.scratch = scratch;
    io
}

pub(super) fn copy_in(
    into: &mut Receive,
    socket: BorrowedFd,
    tools: &mut Tools,
    budget: usize,
) -> Io {
    let most = at_most(into.bytes, budget.min(QUANTUM_BYTES));
    match receive(socket, &mut tools.chunk[..most]) {
        Io::Moved(0) => Io::Ended(end_of_stream(into)),
        Io::Moved(n) => match write_in(into, &tools.chunk[..n], &mut tools.scratch) {
            Ok(()) => Io::Moved(n),
            Err(error) => Io::Ended(Outcome::Failed(error)),
        },
        io => io,
    }
}

pub(super) fn splice_in(
    into: &mut Receive,
    socket: BorrowedFd,
    tools: &mut Tools,
    budget: usize,
) -> Io {
    let most = at_most(into.bytes, budget);
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    let n = loop {
        match rustix::pipe::splice(socket, None, &tools.pipe.write, None, most, flags) {
            Ok(n @ 1..) => break n,
            Err(Errno::INTR) => {}
            // Splicing stops before a byte of urgent data for good, and then says that there is
            // nothing, or even that this is the end. Reading goes on behind it.
            Ok(0) | Err(Errno::AGAIN) => return copy_in(into, socket, tools, budget),
            Err(_) => return Io::Ended(Outcome::Broken),
        }
    };
    if let Some(left) = &mut into.bytes {
        *left -= n as u64;
    }
    let room = into.upload.make_room(into.at + n as u64);
    let file = room.and_then(|()| into.upload.file());
    match file.and_then(|file| empty_into(&tools.pipe.read, file, into.at, n)) {
        Ok(()) => {
            into.at += n as u64;
            Io::Moved(n)
        }
        Err(error) => match Pipe::new() {
            Ok(pipe) => {
                tools.pipe = pipe;
                Io::Ended(Outcome::Failed(error))
            }
            // Without another pipe this one must be emptied.
            Err(_) => {
                while rustix::io::read(&tools.pipe.read, &mut [0u8; 4096]).is_ok_and(|n| n > 0) {}
                Io::Ended(Outcome::Failed(error))
            }
        },
    }
}

fn empty_into(pipe: &OwnedFd, file: &File, at: u64, bytes: usize) -> io::Result<()> {
    let (mut at, mut left) = (at, bytes);
    while left > 0 {
        match rustix::pipe::splice(pipe, None, file, Some(&mut at), left, SpliceFlags::MOVE) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => left -= n,
            Err(Errno::INTR) => {}
            // A file system that cannot be spliced into.
            Err(Errno::INVAL) => {
                let mut chunk = [0u8; 4096];
                let most = left.min(chunk.len());
                let n = rustix::io::read(pipe, &mut chunk[..most])?;
                file.write_all_at(&chunk[..n], at)?;
                at += n as u64;
                left -= n;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

pub(super) fn discard(left: &mut u64, socket: BorrowedFd, tools: &mut Tools, budget: usize) -> Io {
    let most = at_most(Some(*left), budget.min(QUANTUM_BYTES));
    match receive(socket, &mut tools.chunk[..most]) {
        Io::Moved(0) => Io::Ended(Outcome::Broken),
        Io::Moved(n) => {
            *left -= n as u64;
            Io::Moved(n)
        }
        io => io,
    }
}

fn receive(socket: BorrowedFd, into: &mut [u8]) -> Io {
    loop {
        return match rustix::io::read(socket, &mut *into) {
            Ok(n) => Io::Moved(n),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => Io::Blocked,
            Err(_) => Io::Ended(Outcome::Broken),
        };
    }
}

/// The end of the stream: of a data connection it is the end of the file, of the control connection
/// a body that was cut off.
fn end_of_stream(receive: &mut Receive) -> Outcome {
    if receive.bytes.is_some() {
        return Outcome::Broken;
    }
    let mut rest = Vec::new();
    if let Some(ascii) = &mut receive.ascii {
        ascii.finish(&mut rest);
    }
    match receive.write(&rest) {
        Ok(()) => Outcome::Complete,
        Err(error) => Outcome::Failed(error),
    }
}

pub(super) fn write_in(
    into: &mut Receive,
    bytes: &[u8],
    translated: &mut Vec<u8>,
) -> io::Result<()> {
    if let Some(left) = &mut into.bytes {
        *left -= bytes.len() as u64;
    }
    if let Some(digest) = &mut into.digest {
        digest.update(bytes);
    }
    let bytes = match &mut into.ascii {
        Some(ascii) => {
            translated.clear();
            ascii.translate(bytes, translated);
            &translated[..]
        }
        None => bytes,
    };
    into.write(bytes)
}
