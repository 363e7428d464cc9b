//! Room for one upload: in the quotas of the trees it is in, and on the disk.
//!
//! # Space
//!
//! An upload that begins is promised space, and what is promised to others is taken for used. An
//! announcement alone must take no disk from anybody, so a promise goes no further ahead of the data
//! than 64 MiB, or as much as has arrived already, and never takes more than a quarter of what is
//! free. What is kept free (`--min-free`) is nobody's.
//!
//! The file system is asked when a promise is made and again for each 64 MiB at most (1 MiB, at
//! first, where the size is not known): one `fstatvfs`, a microsecond or two. Blocks are not
//! reserved, so what other programs write can still make an upload fail half way. `fallocate` of 64
//! MiB would take 60 us on ext4 (3.6 ms at worst, of a dozen), but on tmpfs, which fills in the memory
//! at once, 80 ms in which nobody is served.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fd::{AsFd, OwnedFd};

use super::ledger::{Claim, Ledger};
use super::quota::Full;
use super::root::Root;

/// How far ahead of its data an upload of a known size is promised space.
const AHEAD_BYTES: u64 = 64 << 20;
/// The same, where the size is not known and nothing has arrived.
const AHEAD_OF_UNKNOWN_BYTES: u64 = 1 << 20;

/// What is kept free by default: the smaller of this and one percent.
const MIN_FREE_BYTES: u64 = 1 << 30;

/// There is not so much space on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoSpace;

impl fmt::Display for NoSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("There is not that much space.")
    }
}

impl std::error::Error for NoSpace {}

/// What is promised on each file system.
#[derive(Debug, Default)]
pub(super) struct Space(Mutex<Promises>);

#[derive(Debug, Default)]
struct Promises {
    /// By the number of the file system.
    bytes: HashMap<u64, u64>,
    min_free_bytes: Option<u64>,
}

/// What one upload was promised and has not been seen to write.
#[derive(Debug, Default)]
struct Promise {
    file_system: u64,
    bytes: u64,
    /// What its upload makes free before it writes anything.
    freed: u64,
}

impl Space {
    fn promises(&self) -> std::sync::MutexGuard<'_, Promises> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that no upload uses up; `None`: the default.
    pub(super) fn keep_free(&self, bytes: Option<u64>) {
        self.promises().min_free_bytes = bytes;
    }

    /// What can be promised on the file system of `on` to who was promised `mine` already and will
    /// make `freed` bytes free, and its number.
    pub(super) fn free(&self, on: impl AsFd, mine: u64, freed: u64) -> io::Result<(u64, u64)> {
        let found = rustix::fs::fstatvfs(on)?;
        let promises = self.promises();
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        let kept = promises.min_free_bytes;
        let kept = kept.unwrap_or(MIN_FREE_BYTES.min(bytes(found.f_blocks) / 100));
        let promised = promises.bytes.get(&found.f_fsid).copied().unwrap_or(0);
        let promised = promised.saturating_sub(mine);
        let free = bytes(found.f_bavail).saturating_add(freed);
        Ok((
            free.saturating_sub(kept).saturating_sub(promised),
            found.f_fsid,
        ))
    }

    /// Makes a promise another one: `needed` bytes, and up to `wanted` where there is plenty, if
    /// there is space for `whole`. Returns how much it is.
    fn promise(
        &self,
        on: impl AsFd,
        promise: &mut Promise,
        needed: u64,
        wanted: u64,
        whole: u64,
    ) -> io::Result<u64> {
        let (free, file_system) = self.free(on, promise.bytes, promise.freed)?;
        let Some(rest) = free.checked_sub(needed.max(whole)) else {
            return Err(io::Error::other(NoSpace));
        };
        self.give_back(promise);
        let bytes = wanted.clamp(needed, needed.saturating_add(rest / 4));
        *self.promises().bytes.entry(file_system).or_default() += bytes;
        (promise.file_system, promise.bytes) = (file_system, bytes);
        Ok(bytes)
    }

    fn give_back(&self, promise: &mut Promise) {
        let bytes = mem::take(&mut promise.bytes);
        if bytes == 0 {
            return;
        }
        let mut promises = self.promises();
        if let Some(all) = promises.bytes.get_mut(&promise.file_system) {
            *all -= bytes;
            if *all == 0 {
                promises.bytes.remove(&promise.file_system);
            }
        }
    }
}

/// Room for one upload. Dropped, it is given back.
#[derive(Debug)]
pub(super) struct Room {
    ledger: Arc<Ledger>,
    claims: Vec<Claim>,
    promise: Promise,
    /// Up to here the file may be written without asking again.
    covered: u64,
    /// Up to here it has been written, or is about to be.
    end: u64,
    expected: Option<u64>,
    hidden: Option<(u64, u64)>,
}

impl Room {
    pub(super) fn new(ledger: Arc<Ledger>, claims: Vec<Claim>) -> Room {
        Room {
            ledger,
            claims,
            promise: Promise::default(),
            covered: 0,
            end: 0,
            expected: None,
            hidden: None,
        }
    }

    /// Before anything is written, so many bytes of the disk become free.
    pub(super) fn will_free(&mut self, bytes: u64) {
        self.promise.freed = bytes;
    }

    /// Does that: `act` takes away what has the name, or all that it counts for.
    pub(super) fn free(
        &mut self,
        root: &Root,
        dir: &OwnedFd,
        name: &[u8],
        act: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        root.give_way(dir, name, &mut self.claims, act)?;
        self.promise.freed = 0;
        Ok(())
    }

    /// The staged file has a hidden name: whoever counts the tree must not count it again.
    pub(super) fn hide(&mut self, file: (u64, u64)) {
        self.ledger.hide(file);
        if let Some(before) = self.hidden.replace(file)
            && before != file
        {
            self.ledger.show(before);
        }
    }

    /// The file will have `bytes` bytes: room is kept for all of them in the quotas, and there must
    /// be space for them.
    pub(super) fn announce(&mut self, on: impl AsFd, bytes: u64) -> io::Result<()> {
        for claim in &mut self.claims {
            claim.grow(bytes).map_err(Full::into_error)?;
        }
        self.expected = Some(bytes);
        // What is there already takes no more space.
        self.extend(on, 0, bytes.saturating_sub(self.end))
    }

    /// The file begins with `bytes` that it shares with another, for which no space is needed.
    pub(super) fn share(&mut self, bytes: u64) -> io::Result<()> {
        for claim in &mut self.claims {
            claim.grow(bytes).map_err(Full::into_error)?;
        }
        self.end = bytes;
        self.covered = bytes;
        Ok(())
    }

    /// Sees to it that the file may be written up to `end`.
    #[inline]
    pub(super) fn make(&mut self, on: impl AsFd, end: u64) -> io::Result<()> {
        if end > self.covered {
            self.extend(on, end, 0)?;
        }
        self.end = end;
        Ok(())
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    fn extend(&mut self, on: impl AsFd, end: u64, whole: u64) -> io::Result<()> {
        let written = self.end;
        let needed = end.saturating_sub(written);
        let wanted = match self.expected {
            Some(bytes) => written.max(AHEAD_BYTES).min(bytes.saturating_sub(written)),
            None => written.clamp(AHEAD_OF_UNKNOWN_BYTES, AHEAD_BYTES),
        };
        let mut ahead = wanted.max(needed);
        if self.expected.is_none() {
            for claim in &self.claims {
                let most = needed.saturating_add(claim.free_bytes() / 4);
                ahead = ahead.min(most);
            }
        }
        let (space, promise) = (&self.ledger.space, &mut self.promise);
        let ahead = space.promise(on, promise, needed, ahead, whole)?;
        // What was promised further ahead of the data is looked at again before it is used.
        let mut covered = written.saturating_add(ahead.min(AHEAD_BYTES).max(needed));
        for claim in &mut self.claims {
            if claim.grow(covered).is_err() {
                // There is not so much left that some can be kept for later.
                covered = end;
                claim.grow(end).map_err(Full::into_error)?;
            }
        }
        self.covered = covered;
        Ok(())
    }

    /// The room in quotas, which is no more this one's to give back.
    pub(super) fn take_claims(&mut self) -> Vec<Claim> {
        mem::take(&mut self.claims)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.ledger.space.give_back(&mut self.promise);
        if let Some(file) = self.hidden.take() {
            self.ledger.show(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::storage::path::VirtualPath;
    use crate::storage::root::Root;

    struct Nest {
        dir: tempfile::TempDir,
        root: Root,
    }

    fn nest() -> Nest {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        Nest { dir, root }
    }

    impl Nest {
        fn room(&self) -> (Room, File) {
            let file = tempfile::tempfile_in(self.dir.path()).unwrap();
            (Room::new(self.root.ledger().clone(), Vec::new()), file)
        }

        fn promised(&self) -> u64 {
            self.root.ledger().space.promises().bytes.values().sum()
        }
    }

    #[test]
    fn an_announcement_is_promised_a_little_and_what_arrives_as_much_again() {
        let nest = nest();
        let (mut room, file) = nest.room();
        room.announce(&file, 1000 << 20).unwrap();
        assert_eq!(nest.promised(), AHEAD_BYTES);
        room.make(&file, 1).unwrap();
        for mib in 1..=1000_u64 {
            room.make(&file, mib << 20).unwrap();
            let left = (1000 - mib) << 20;
            let written = mib << 20;
            let most = AHEAD_BYTES.max(written).min(left + AHEAD_BYTES) + AHEAD_BYTES;
            assert!(nest.promised() <= most, "{mib}: {}", nest.promised());
        }
        drop(room);
        assert_eq!(nest.promised(), 0);
    }

    #[test]
    fn small_files_are_promised_what_they_say() {
        let nest = nest();
        let (mut one, file) = nest.room();
        one.announce(&file, 4096).unwrap();
        let (mut two, other) = nest.room();
        two.announce(&other, 0).unwrap();
        assert_eq!(nest.promised(), 4096);
        one.make(&file, 4096).unwrap();
        assert_eq!(nest.promised(), 4096);
        let (mut unknown, file) = nest.room();
        unknown.make(&file, 1).unwrap();
        assert_eq!(nest.promised(), 4096 + AHEAD_OF_UNKNOWN_BYTES);
        drop((one, two, unknown));
        assert_eq!(nest.promised(), 0);
    }

    #[test]
    fn what_is_kept_free_is_promised_to_nobody() {
        let nest = nest();
        let free = |nest: &Nest| nest.root.free_bytes(&VirtualPath::root()).unwrap();
        assert!(free(&nest) > 0);
        nest.root.keep_free(Some(u64::MAX));
        assert_eq!(free(&nest), 0);
        let (mut room, file) = nest.room();
        let refused = |result: io::Result<()>| {
            let error = result.unwrap_err();
            assert!(error.get_ref().unwrap().is::<NoSpace>());
        };
        refused(room.announce(&file, 1));
        refused(room.make(&file, 1));
        room.announce(&file, 0).unwrap();
        assert_eq!(nest.promised(), 0);
    }
}
