//! What is kept of an interrupted upload, so that it can be continued.
//!
//! A partial lies in the directory of its target under a hidden name of fixed length, which is made
//! of its owner and the name of the target: so 255-byte names work, nobody finds another's, and a
//! session finds its own without a search.
//!
//! # What it is worth
//!
//! It never holds bytes that were not received, not even after power loss. How much of it is known
//! to be on the disk is recorded in an extended attribute, always after an fsync of so much; what is
//! beyond that is not offered, and a partial without a record is none. Where a file system has no
//! user attributes nothing is kept: an upload then begins afresh, which is slower but never wrong.
//!
//! # Whose it is
//!
//! Every staged file is locked (`flock`) by who writes it, from before it has a hidden name. Only who holds
//! the lock of the file that has a hidden name may remove that name, rename it or write to it; so
//! sessions, and servers that share a directory, do no harm to each other, and a name whose file
//! nobody has locked is left behind by a process that died.

mod keeping;
mod sweep;
mod withdrawal;

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::path::{RESERVED_PREFIX, VirtualPath};
use super::quota::Amount;
use super::root::{LARGE_BYTES, Root, stat_in, stat_open};
use super::staging::Upload;
use crate::proto::facts::Kind;
use crate::proto::upload::hex;
pub use keeping::{Keeping, Kept, Record};
pub use sweep::{Index, Sweep, clear_dir, remove_older};
pub use withdrawal::Withdrawal;
pub(super) use withdrawal::Withdrawn;

/// From here on an upload has its hidden name while it runs, so that it outlives a killed server.
pub const NAMED_FROM_BYTES: u64 = 64 << 20;

/// The record: how many bytes are known to be on the disk, in decimal digits.
const RECORD: &str = "user.haul.received";
/// The digest of a partial: bytes, time of last modification, digits.
const DIGEST: &str = "user.haul.sha256";
const XATTR_BYTES_MAX: usize = 160;

const MARK: &[u8] = b"p";
const OWNER_DIGITS: usize = 16;
const NAME_BYTES: usize = RESERVED_PREFIX.len() + MARK.len() + OWNER_DIGITS + 32;

/// Who may continue an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner([u8; 32]);

impl Owner {
    /// Who logged in under this name.
    pub fn user(name: &[u8]) -> Owner {
        Owner::of(b"user ", name)
    }

    /// Whoever has this address and no name.
    pub fn stranger(address: IpAddr) -> Owner {
        Owner::of(b"address ", address.to_canonical().to_string().as_bytes())
    }

    fn of(kind: &[u8], name: &[u8]) -> Owner {
        Owner(
            Sha256::new()
                .chain_update(kind)
                .chain_update(name)
                .finalize()
                .into(),
        )
    }
}

/// The hidden name of a partial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PartialName([u8; NAME_BYTES]);

impl PartialName {
    fn new(owner: &Owner, name: &[u8]) -> PartialName {
        let both = Sha256::new()
            .chain_update(owner.0)
            .chain_update(name)
            .finalize();
        let digits = hex(&owner.0[..OWNER_DIGITS / 2]) + &hex(&both[..16]);
        let text = [RESERVED_PREFIX, MARK, digits.as_bytes()];
        let mut bytes = [0; NAME_BYTES];
        bytes.copy_from_slice(&text.concat());
        PartialName(bytes)
    }

    /// `None`: that is no name of a partial.
    pub(super) fn parse(name: &[u8]) -> Option<PartialName> {
        let bytes: [u8; NAME_BYTES] = name.try_into().ok()?;
        let digits = bytes.strip_prefix(RESERVED_PREFIX)?.strip_prefix(MARK)?;
        digits
            .iter()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            .then_some(PartialName(bytes))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The part that all partials of one owner share.
    pub(super) fn owner_digits(&self) -> &[u8] {
        &self.0[RESERVED_PREFIX.len() + MARK.len()..][..OWNER_DIGITS]
    }
}

/// One owner's partial of one file, whether there is one or not: the same for all paths that lead
/// to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    dev: u64,
    ino: u64,
    name: PartialName,
}

impl Key {
    /// Device and inode of its directory.
    pub(super) fn dir(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }
}

/// Where a partial is, if there is one.
#[derive(Debug, Clone)]
pub struct Place {
    root: Root,
    dir: Arc<OwnedFd>,
    key: Key,
}

/// What is at a [`Place`].
#[derive(Debug)]
pub enum Found {
    /// Nothing that could be continued.
    Nothing,
    /// An upload that is still running.
    Busy,
    /// A partial. It is locked as long as this lives.
    Retained(Retained),
}

/// A partial that nobody writes.
#[derive(Debug)]
pub struct Retained {
    place: Place,
    file: File,
    bytes: u64,
}

impl Place {
    /// Of the upload of `owner` to `path`.
    ///
    /// # Errors
    /// There is no directory that could hold `path`.
    pub fn of(root: &Root, path: &VirtualPath, owner: &Owner) -> io::Result<Place> {
        let (dir, name) = root.parent(path, Errno::ISDIR)?;
        Ok(Place::in_dir(root, dir, name, owner)?)
    }

    fn in_dir(root: &Root, dir: Arc<OwnedFd>, name: &[u8], owner: &Owner) -> Result<Place, Errno> {
        let (dev, ino) = root.lately().identity(&dir)?;
        let key = Key {
            dev,
            ino,
            name: PartialName::new(owner, name),
        };
        let root = root.clone();
        Ok(Place { root, dir, key })
    }

    /// What the shell knows it by.
    pub fn key(&self) -> Key {
        self.key
    }

    /// What is there.
    ///
    /// # Errors
    /// It cannot be told.
    pub fn find(self) -> io::Result<Found> {
        let (file, recorded) = match open(&self.dir, self.key.name.as_bytes())? {
            Opened::Nothing => return Ok(Found::Nothing),
            Opened::Locked => return Ok(Found::Busy),
            Opened::Ours(file) => {
                let recorded = recorded(&file)?;
                (file, recorded)
            }
        };
        if recorded == 0 {
            return Ok(Found::Nothing);
        }
        Ok(Found::Retained(Retained {
            place: self,
            file,
            bytes: recorded,
        }))
    }

    /// Removes what is there, unless it is being written. What was large is handed over, to be closed
    /// where freeing its blocks stops nobody.
    pub fn remove(&self) -> Removed {
        remove(&self.root, &self.dir, self.key.name.as_bytes(), None)
    }
}

/// What came of removing a partial.
#[derive(Debug)]
pub enum Removed {
    /// There is none, or it is being written.
    Not,
    /// It is gone, and was large if there is a descriptor.
    Gone(Option<OwnedFd>),
}

/// `only`: unless it is another file than this one.
fn remove(root: &Root, dir: &OwnedFd, name: &[u8], only: Option<u64>) -> Removed {
    let Ok(Opened::Ours(file)) = open(dir, name) else {
        return Removed::Not;
    };
    let Ok(meta) = stat_open(&file) else {
        return Removed::Not;
    };
    if only.is_some_and(|ino| ino != meta.ino) || unlink(root, dir, name).is_err() {
        return Removed::Not;
    }
    Removed::Gone((meta.size >= LARGE_BYTES).then(|| file.into()))
}

/// Removes a name whose file is locked, and what it counts for.
fn unlink(root: &Root, dir: &OwnedFd, name: &[u8]) -> io::Result<()> {
    root.change(dir, name, Amount::NOTHING, Vec::new(), || {
        Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?)
    })
}

/// Who only looks at a partial, or has just kept it, has it locked for some microseconds; who writes it,
/// for long.
const LOCK_ATTEMPTS: u32 = 200;

enum Opened {
    Nothing,
    /// Somebody else has it.
    Locked,
    Ours(File),
}

/// Opens and locks the file that has a hidden name.
fn open(dir: &OwnedFd, name: &[u8]) -> Result<Opened, Errno> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(file) => file,
        // Not what a server has put there.
        Err(Errno::NOENT | Errno::ISDIR | Errno::LOOP | Errno::NXIO | Errno::ACCESS) => {
            return Ok(Opened::Nothing);
        }
        Err(error) => return Err(error),
    };
    let mut attempts = 1;
    while !lock(&file)? {
        if attempts == LOCK_ATTEMPTS {
            return Ok(Opened::Locked);
        }
        attempts += 1;
    }
    // Who had it until now may have published or removed it between the opening and the locking.
    let (ours, named) = (stat_open(&file)?, stat_in(dir, name));
    let same = named.is_ok_and(|named| (named.dev, named.ino) == (ours.dev, ours.ino));
    if ours.kind != Kind::File || !same {
        return Ok(Opened::Nothing);
    }
    Ok(Opened::Ours(file.into()))
}

/// Whether the file is this process's from now on. It is also where the file system knows no locks:
/// there two servers on one directory do not see each other.
pub(super) fn lock(file: impl AsFd) -> Result<bool, Errno> {
    loop {
        return match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) | Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(Errno::INTR) => continue,
            Err(error) => Err(error),
        };
    }
}

/// How much of a partial is known to be on the disk.
fn recorded(file: &File) -> Result<u64, Errno> {
    let size = stat_open(file)?.size;
    let recorded = read_xattr(file, RECORD).and_then(|text| text.parse().ok());
    Ok(size.min(recorded.unwrap_or(0)))
}

fn read_xattr(file: &File, name: &str) -> Option<String> {
    let mut value = [0; XATTR_BYTES_MAX];
    let len = rustix::fs::fgetxattr(file, name, &mut value).ok()?;
    String::from_utf8(value.get(..len)?.to_vec()).ok()
}

fn record(file: impl AsFd, bytes: u64) -> Result<(), Errno> {
    rustix::fs::fsync(&file)?;
    set_record(file, bytes)
}

fn set_record(file: impl AsFd, bytes: u64) -> Result<(), Errno> {
    let text = bytes.to_string();
    rustix::fs::fsetxattr(file, RECORD, text.as_bytes(), XattrFlags::empty())
}

impl Retained {
    /// How much there is.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// To be read. From here on it is not locked any more: who continues it meanwhile changes
    /// nothing of what was there, and cuts it off only for a client that goes back.
    pub fn into_file(self) -> io::Result<File> {
        rustix::fs::flock(&self.file, FlockOperation::Unlock)?;
        Ok(self.file)
    }

    /// Goes on behind the first `bytes` bytes; what is beyond them is dropped by
    /// [`Upload::replace_partial`]. What could not be replaced is refused as [`Upload::create`] does.
    pub fn resume(
        self,
        root: &Root,
        path: &VirtualPath,
        bytes: u64,
        interrupted: Interrupted,
    ) -> io::Result<Upload> {
        let before = Before::cut(&self.file, bytes, self.bytes)?;
        let partial = Partial {
            from: bytes,
            // It is a partial until it is cut.
            is_counted: true,
            before: Some(before),
            ..Partial::new(self.place.key, interrupted)
        };
        Upload::resume(root, path, self.file, bytes, partial)
    }
}

/// What becomes of an upload that breaks off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupted {
    /// Nothing is kept.
    Dropped,
    /// What arrived is kept.
    Kept,
    /// What arrived is kept, but for the last byte: so a client that believes that it sent everything
    /// still has something to send, and learns the outcome.
    KeptButOneByte,
}

/// What a running upload is to its partial.
#[derive(Debug)]
pub(super) struct Partial {
    keeping: Keeping,
    interrupted: Interrupted,
    /// Where this upload began to write.
    from: u64,
    /// It has not been tried in vain to give it its name.
    may_be_named: bool,
    /// What there is counts as a file that is there, and not as an upload any more.
    is_counted: bool,
    /// Shared with the record that is being written.
    recording: Arc<()>,
    before: Option<Before>,
}

/// What there was before. It is locked, and stays as it is until there is room for what comes.
#[derive(Debug)]
pub(super) struct Before {
    /// What it counts for.
    pub(super) amount: Amount,
    /// What is free of the disk without it.
    pub(super) disk_bytes: u64,
    how: Yields,
}

/// How something yields to an upload.
#[derive(Debug)]
enum Yields {
    /// This file goes.
    Goes(File),
    /// It is continued, and so much of it may have been known to be on the disk.
    Cut { recorded: u64 },
}

impl Before {
    fn goes(file: File) -> io::Result<Before> {
        let (amount, disk_bytes) = measured(&file)?;
        let how = Yields::Goes(file);
        Ok(Before {
            amount,
            disk_bytes,
            how,
        })
    }

    fn cut(file: &File, at: u64, recorded: u64) -> io::Result<Before> {
        let (amount, disk_bytes) = measured(file)?;
        Ok(Before {
            amount,
            disk_bytes: disk_bytes.saturating_sub(at),
            how: Yields::Cut { recorded },
        })
    }
}

/// What a file counts for, and what it takes of the disk.
fn measured(file: &File) -> io::Result<(Amount, u64)> {
    let stat = rustix::fs::fstat(file)?;
    let number = |n: i64| u64::try_from(n).unwrap_or(0);
    let disk_bytes = number(stat.st_blocks).saturating_mul(512);
    Ok((Amount::file(number(stat.st_size)), disk_bytes))
}

impl Partial {
    fn new(key: Key, interrupted: Interrupted) -> Partial {
        Partial {
            keeping: Keeping::new(key),
            interrupted,
            from: 0,
            may_be_named: true,
            is_counted: false,
            recording: Arc::default(),
            before: None,
        }
    }

    /// Device and inode of its directory.
    pub(super) fn dir(&self) -> (u64, u64) {
        self.keeping.key().dir()
    }

    /// What there was of it and has not yielded yet.
    pub(super) fn before(&self) -> Option<&Before> {
        self.before.as_ref()
    }

    pub(super) fn name(&self) -> &[u8] {
        self.keeping.name()
    }
}

/// The digest of the first `bytes` bytes: the one that was remembered, if the file has not changed since,
/// or what `compute` says, which is remembered.
///
/// # Errors
/// Those of `compute`.
pub fn digest_remembered(
    file: &File,
    bytes: u64,
    compute: impl FnOnce() -> io::Result<String>,
) -> io::Result<String> {
    // Somebody may go on writing while it is computed: it is the digest of what there was before.
    let Some(state) = state(file, bytes) else {
        return compute();
    };
    if let Some(text) = read_xattr(file, DIGEST)
        && let Some(digits) = text.strip_prefix(&state)
        && digits.len() == 64
    {
        return Ok(digits.to_string());
    }
    let digits = compute()?;
    let text = state + &digits;
    // Where it cannot be remembered it is computed again.
    let _ = rustix::fs::fsetxattr(file, DIGEST, text.as_bytes(), XattrFlags::empty());
    Ok(digits)
}

/// What a digest belongs to: the attribute goes with the file, and this says in which state.
fn state(file: &File, bytes: u64) -> Option<String> {
    let now = rustix::fs::fstat(file).ok()?;
    Some(format!(
        "{bytes} {} {} {}.{:09} ",
        now.st_ino, now.st_size, now.st_mtime, now.st_mtime_nsec
    ))
}

#[cfg(test)]
mod tests;
