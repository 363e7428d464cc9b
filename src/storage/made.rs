//! Directories whose own name may not be on the disk yet: making one promises nothing, but an upload
//! into it does, and a file that nobody finds because its directory is gone is not stored.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};

use super::commit::Sync;
use super::root::stat_open;

/// Directories that are kept in mind, one by one: a few MiB at most. Beyond it the whole file system is
/// synced instead, once.
const DIRECTORIES_MAX: usize = 50_000;

/// Directories that this process has made and whose parents it has not synced since.
#[derive(Debug, Default)]
pub struct Made(Mutex<Known>);

/// Device and inode.
type Identity = (u64, u64);

#[derive(Debug, Default)]
struct Known {
    /// With the number of its making: another one may get the inode while the parent of the first
    /// is being synced.
    directories: HashMap<Identity, u64>,
    count: u64,
    /// Devices with more of them than were kept in mind.
    lost: HashSet<u64>,
}

impl Made {
    /// A directory was made.
    pub fn add(&self, directory: Identity) {
        let mut known = self.known();
        known.count += 1;
        let count = known.count;
        if known.directories.len() >= DIRECTORIES_MAX {
            known
                .directories
                .retain(|(device, _), _| *device != directory.0);
            known.lost.insert(directory.0);
        } else {
            known.directories.insert(directory, count);
        }
    }

    /// Brings the names in `dir` to the disk, and those of the directories above it that are new.
    pub(super) fn sync(
        &self,
        dir: &Arc<OwnedFd>,
        sync: &mut dyn FnMut(Sync) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut at = stat_open(dir)?;
        if self.known().lost.contains(&at.dev) {
            let before = self.known().count;
            sync(Sync::FileSystemOf(dir))?;
            let mut known = self.known();
            // What was made meanwhile may have come too late.
            if known.count == before {
                known.lost.remove(&at.dev);
            }
            return Ok(());
        }
        sync(Sync::Directory(dir))?;
        let mut above = dir.clone();
        loop {
            let identity = (at.dev, at.ino);
            let Some(number) = self.known().directories.get(&identity).copied() else {
                return Ok(());
            };
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            above = Arc::new(rustix::fs::openat(&above, c"..", flags, Mode::empty())?);
            sync(Sync::Directory(&above))?;
            let mut known = self.known();
            if known.directories.get(&identity) == Some(&number) {
                known.directories.remove(&identity);
            }
            drop(known);
            at = stat_open(&above)?;
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
