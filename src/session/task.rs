//! Work that takes long, as a value: a session asks for it, the shell runs it somewhere off its
//! loop, and the session gets the result. No task knows where it runs.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use md5::Md5;
use sha2::{Digest, Sha256, Sha512};

use crate::proto::upload::hex;
use crate::storage::commit::Renamed;
use crate::storage::copying;
use crate::storage::ledger::Count;
use crate::storage::partials::{self, Keeping, Kept, Record};
use crate::storage::room::NoSpace;
use crate::storage::staging::Upload;

/// Digests that HASH and its older forms know, in FEAT's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// The default.
    Sha256,
    /// SHA-512.
    Sha512,
    /// CRC-32 as in zlib (IEEE 802.3).
    Crc32,
    /// MD5: no defence against an attacker.
    Md5,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Algorithm; 4] = [
        Algorithm::Sha256,
        Algorithm::Sha512,
        Algorithm::Crc32,
        Algorithm::Md5,
    ];

    /// The name that HASH and FEAT use.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "SHA-256",
            Algorithm::Sha512 => "SHA-512",
            Algorithm::Crc32 => "CRC32",
            Algorithm::Md5 => "MD5",
        }
    }
}

/// A piece of work.
#[derive(Debug)]
pub enum Task {
    /// The digest of the first `bytes` bytes of a file.
    Digest {
        /// What to read.
        file: File,
        /// How much of it.
        bytes: u64,
        /// Which digest.
        algorithm: Algorithm,
    },
    /// The SHA-256 of a partial, which is remembered with it.
    PartialDigest {
        /// The partial.
        file: File,
        /// How much of it.
        bytes: u64,
    },
    /// The state of SHA-256 behind the first `bytes` bytes of a file.
    Hash {
        /// What to read.
        file: File,
        /// How much of it.
        bytes: u64,
    },
    /// Copies the first `bytes` bytes of one file to another.
    Copy {
        /// The file that stays.
        from: File,
        /// The staged file.
        to: File,
        /// How much.
        bytes: u64,
        /// More than this only where the file system can share blocks.
        copy_bytes_max: u64,
        /// Nor more than there is space for.
        free_bytes: u64,
    },
    /// Brings the names of something that was renamed to the disk.
    SyncNames(Renamed),
    /// Counts a piece of a home tree that has a quota.
    Count(Box<Count>),
    /// Keeps what arrived of an upload that broke off, if it is to be kept.
    Keep {
        /// The upload.
        upload: Box<Upload>,
        /// Position behind what arrived.
        at: u64,
    },
    /// Writes down how much of a running upload has arrived.
    Record(Record),
    /// Removes a partial that is of no use any more.
    Forget(Kept),
    /// Closes the last descriptor of a removed file: freeing the blocks of a large one takes long.
    Dispose(OwnedFd),
}

/// What came of a task.
#[derive(Debug)]
pub enum Done {
    /// The digest in hex digits.
    Digest(String),
    /// The state of a digest.
    Hashed(Box<Sha256>),
    /// The piece is counted, and whether there is more.
    Counted(Box<Count>, io::Result<bool>),
    /// An upload that broke off is dealt with.
    Kept {
        /// Which.
        keeping: Option<Keeping>,
        /// What there is of it now.
        kept: Option<Kept>,
    },
    /// A partial is gone.
    Forgotten(Keeping),
    /// A count was lost with the piece that was being counted.
    CountLost,
    /// Nothing to tell.
    Nothing,
}

impl Task {
    /// Does the work; it stops early, with an error, when `cancelled` becomes true.
    ///
    /// # Errors
    /// As the file calls that it makes.
    pub fn run(self, cancelled: &AtomicBool) -> io::Result<Done> {
        match self {
            Task::Digest {
                file,
                bytes,
                algorithm,
            } => digest(&file, bytes, algorithm, cancelled).map(Done::Digest),
            Task::PartialDigest { file, bytes } => {
                digest_of_partial(&file, bytes, cancelled).map(Done::Digest)
            }
            Task::Hash { file, bytes } => {
                let state = state_of::<Sha256>(|each| read_all(&file, bytes, cancelled, each));
                Ok(Done::Hashed(Box::new(state?)))
            }
            Task::Copy {
                from,
                to,
                bytes,
                copy_bytes_max,
                free_bytes,
            } => {
                let most = copy_bytes_max.min(free_bytes);
                match copying::copy(&from, &to, bytes, most, cancelled) {
                    Err(error) if bytes <= copy_bytes_max && copying::is_too_large(&error) => {
                        Err(io::Error::other(NoSpace))
                    }
                    done => done.map(|()| Done::Nothing),
                }
            }
            Task::SyncNames(renamed) => renamed.sync().map(|()| Done::Nothing),
            Task::Count(mut count) => {
                let more = count.step();
                Ok(Done::Counted(count, more))
            }
            Task::Keep { upload, at } => {
                let keeping = upload.keeping();
                let kept = upload.keep_or_lose(at);
                Ok(Done::Kept { keeping, kept })
            }
            Task::Record(record) => {
                record.run();
                Ok(Done::Nothing)
            }
            Task::Forget(kept) => {
                let keeping = kept.keeping.clone();
                kept.forget();
                Ok(Done::Forgotten(keeping))
            }
            Task::Dispose(descriptor) => {
                drop(descriptor);
                Ok(Done::Nothing)
            }
        }
    }

    /// What is to be told if a bug makes it panic, where others than its session wait for its end.
    pub fn when_lost(&self) -> Option<Done> {
        match self {
            Task::Keep { upload, .. } => {
                let keeping = upload.keeping();
                Some(Done::Kept {
                    keeping,
                    kept: None,
                })
            }
            Task::Forget(kept) => Some(Done::Forgotten(kept.keeping.clone())),
            Task::Count(_) => Some(Done::CountLost),
            Task::Digest { .. } | Task::PartialDigest { .. } | Task::Hash { .. } => None,
            Task::Copy { .. } | Task::SyncNames(_) | Task::Record(_) | Task::Dispose(_) => None,
        }
    }

    /// Whether it takes as long as its client wants: reading a file of any size.
    pub fn is_endless(&self) -> bool {
        matches!(
            self,
            Task::Digest { .. } | Task::PartialDigest { .. } | Task::Hash { .. }
        )
    }

    /// Whether no session waits for what comes of it.
    pub fn is_unattended(&self) -> bool {
        match self {
            Task::Digest { .. } | Task::PartialDigest { .. } | Task::Hash { .. } => false,
            Task::Copy { .. } | Task::SyncNames(_) => false,
            Task::Keep { .. } | Task::Record(_) | Task::Forget(_) => true,
            Task::Count(_) | Task::Dispose(_) => true,
        }
    }
}

fn digest(
    file: &File,
    bytes: u64,
    algorithm: Algorithm,
    cancelled: &AtomicBool,
) -> io::Result<String> {
    let read = |each: &mut dyn FnMut(&[u8])| read_all(file, bytes, cancelled, each);
    match algorithm {
        Algorithm::Sha256 => with::<Sha256>(read),
        Algorithm::Sha512 => with::<Sha512>(read),
        Algorithm::Md5 => with::<Md5>(read),
        Algorithm::Crc32 => {
            let mut hasher = crc32fast::Hasher::new();
            read(&mut |chunk| hasher.update(chunk))?;
            Ok(format!("{:08X}", hasher.finalize()))
        }
    }
}

fn with<D: Digest>(read: impl Fn(&mut dyn FnMut(&[u8])) -> io::Result<()>) -> io::Result<String> {
    Ok(hex(&state_of::<D>(read)?.finalize()))
}

fn state_of<D: Digest>(read: impl Fn(&mut dyn FnMut(&[u8])) -> io::Result<()>) -> io::Result<D> {
    let mut hasher = D::new();
    read(&mut |chunk| hasher.update(chunk))?;
    Ok(hasher)
}

fn digest_of_partial(file: &File, bytes: u64, cancelled: &AtomicBool) -> io::Result<String> {
    let compute = || digest(file, bytes, Algorithm::Sha256, cancelled);
    partials::digest_remembered(file, bytes, compute)
}

fn read_all(
    file: &File,
    bytes: u64,
    cancelled: &AtomicBool,
    each: &mut dyn FnMut(&[u8]),
) -> io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    let mut at = 0;
    while at < bytes {
        if cancelled.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let want = buffer
            .len()
            .min(usize::try_from(bytes - at).unwrap_or(usize::MAX));
        match file.read_at(&mut buffer[..want], at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                each(&buffer[..n]);
                at += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(content: &[u8], bytes: u64, algorithm: Algorithm) -> io::Result<String> {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&path, content).unwrap();
        let file = File::open(&path).unwrap();
        match (Task::Digest {
            file,
            bytes,
            algorithm,
        })
        .run(&AtomicBool::new(false))?
        {
            Done::Digest(hex) => Ok(hex),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn known_digests() {
        assert_eq!(
            run(b"abc", 3, Algorithm::Md5).unwrap(),
            "900150983cd24fb0d6963f7d28e17f72"
        );
        assert_eq!(run(b"abc", 3, Algorithm::Crc32).unwrap(), "352441C2");
        assert_eq!(
            run(b"abcd", 3, Algorithm::Sha256).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(
            run(b"abc", 3, Algorithm::Sha512)
                .unwrap()
                .starts_with("ddaf35a193617aba")
        );
    }

    #[test]
    fn a_file_that_became_shorter_is_an_error() {
        let error = run(b"abc", 4, Algorithm::Sha256).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_cancelled_task_stops() {
        let file = tempfile::tempfile().unwrap();
        let task = Task::Digest {
            file,
            bytes: 1,
            algorithm: Algorithm::Sha256,
        };
        let error = task.run(&AtomicBool::new(true)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    }
}
