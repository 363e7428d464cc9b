//! The directory that uploads went to last, for as long as one turn of the reactor. Who sends a thousand
//! small files sends them to one place: to look it up, to ask what it is and whether files may be
//! made in it takes as long as to write one of them.
//!
//! Within a turn nobody can tell which of its commands was there first, so what other programs do to the
//! directories on the way counts from the next turn on. What this one does to them is told here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fd::OwnedFd;
use rustix::fs::{Access, AtFlags};
use rustix::io::Errno;

use super::root::stat_open;

/// Nothing between turns: a directory that is kept open cannot be unmounted.
#[derive(Debug, Default)]
pub(super) struct Lately(Mutex<Turn>);

#[derive(Debug, Default)]
struct Turn {
    is_under_way: bool,
    place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    base: Arc<OwnedFd>,
    path: Vec<u8>,
    dir: Arc<OwnedFd>,
    identity: (u64, u64),
    may_make: bool,
}

impl Lately {
    /// From now on what is looked up is kept.
    pub(super) fn begin_turn(&self) {
        self.turn().is_under_way = true;
    }

    /// Nothing is kept any more.
    pub(super) fn end_turn(&self) {
        *self.turn() = Turn::default();
    }

    /// A name was given, moved or taken away that a path may lead through, or a mode has changed.
    pub(super) fn forget(&self) {
        self.turn().place = None;
    }

    /// The directory at `path` below `base`, from `open` if it is another than the last.
    pub(super) fn dir(
        &self,
        base: &Arc<OwnedFd>,
        path: &[u8],
        open: impl FnOnce() -> Result<Arc<OwnedFd>, Errno>,
    ) -> Result<Arc<OwnedFd>, Errno> {
        let mut turn = self.turn();
        let is_it = |place: &&Place| Arc::ptr_eq(&place.base, base) && place.path == path;
        if let Some(place) = turn.place.as_ref().filter(is_it) {
            return Ok(place.dir.clone());
        }
        let dir = open()?;
        if turn.is_under_way {
            turn.place = Some(Place {
                base: base.clone(),
                path: path.to_vec(),
                identity: identity(&dir)?,
                may_make: may_make(&dir),
                dir: dir.clone(),
            });
        }
        Ok(dir)
    }

    /// Device and inode of a directory.
    pub(super) fn identity(&self, dir: &Arc<OwnedFd>) -> Result<(u64, u64), Errno> {
        match self.known(dir) {
            Some(known) => Ok(known.0),
            None => identity(dir),
        }
    }

    /// Whether files may be made in a directory, as far as its mode tells.
    pub(super) fn may_make(&self, dir: &Arc<OwnedFd>) -> bool {
        self.known(dir)
            .map_or_else(|| may_make(dir), |known| known.1)
    }

    fn known(&self, dir: &Arc<OwnedFd>) -> Option<((u64, u64), bool)> {
        let turn = self.turn();
        let place = turn.place.as_ref();
        let place = place.filter(|place| Arc::ptr_eq(&place.dir, dir));
        place.map(|place| (place.identity, place.may_make))
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn identity(dir: &OwnedFd) -> Result<(u64, u64), Errno> {
    stat_open(dir).map(|meta| (meta.dev, meta.ino))
}

fn may_make(dir: &OwnedFd) -> bool {
    let wanted = Access::WRITE_OK | Access::EXEC_OK;
    rustix::fs::accessat(dir, c".", wanted, AtFlags::empty()).is_ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::path::VirtualPath;
    use super::super::root::Root;
    use super::super::staging::{Publish, Upload};

    const NEW: Publish = Publish {
        mode: 0o644,
        modify_s: None,
        replace: true,
    };

    fn at(path: &str) -> VirtualPath {
        VirtualPath::root().join(path.as_bytes())
    }

    fn store(root: &Root, path: &str) -> bool {
        Upload::create(root, &at(path)).is_ok_and(|upload| upload.publish(&NEW).is_ok())
    }

    #[test]
    fn a_directory_is_looked_up_once_in_a_turn_and_again_in_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        root.begin_turn();
        assert!(store(&root, "d/1") && !store(&root, "e/1"));
        assert!(store(&root, "2"), "that is another directory");
        assert!(store(&root, "d/3"));
        fs::rename(dir.path().join("d"), dir.path().join("e")).unwrap();
        assert!(store(&root, "d/4"), "it might have come before the rename");
        assert!(dir.path().join("e/4").exists());
        root.end_turn();
        assert!(!store(&root, "d/5") && store(&root, "e/5"));
        // Nothing is kept between turns.
        fs::rename(dir.path().join("e"), dir.path().join("f")).unwrap();
        assert!(!store(&root, "e/6"));
    }

    #[test]
    fn what_this_program_does_to_directories_counts_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let below = root.below(&at("")).unwrap();
        root.begin_turn();
        root.create_dir(&at("d"), 0o755).unwrap();
        assert!(store(&root, "d/1") && store(&below, "d/2"));
        root.rename(&at("d"), &at("e"), true).unwrap();
        assert!(!store(&root, "d/3") && !store(&below, "d/3"));
        std::os::unix::fs::symlink("e", dir.path().join("l")).unwrap();
        assert!(store(&root, "l/4"));
        root.remove_file(&at("l")).unwrap();
        assert!(!store(&root, "l/5"));
        // An upload that takes the place of a link looks up another directory than that of the link.
        std::os::unix::fs::symlink("e", dir.path().join("l")).unwrap();
        assert!(store(&root, "l/5") && store(&root, "l") && !store(&root, "l/6"));
        root.create_dir(&at("g"), 0o755).unwrap();
        assert!(store(&root, "g/6"));
        root.remove_file(&at("g/6")).unwrap();
        assert!(store(&root, "g/7"));
        root.remove_file(&at("g/7")).unwrap();
        root.remove_dir(&at("g")).unwrap();
        assert!(!store(&root, "g/8"));
    }
}
