//! What earlier downloads have left beside the names that they were for, when these names have their
//! files: of another version, or from somewhere else, and of no use any more.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};

use super::dir::Dir;
use super::incoming::of_temporary;

/// The names of all remains by directory. Each directory is listed once, however many files it gets.
#[derive(Debug, Default)]
pub struct Remains(Mutex<HashMap<Vec<u8>, Vec<OsString>>>);

impl Remains {
    /// `name` in `dir`, which the plan calls `place`, has its file now. `is_again`: there may be more
    /// of it than when the directory was listed.
    pub fn clear(&self, dir: &Dir, place: &[u8], name: &OsStr, is_again: bool) {
        let left = match is_again {
            true => listed(dir),
            false => {
                let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                let all = known.entry(place.to_vec()).or_insert_with(|| listed(dir));
                all.iter().filter(|it| is_of(it, name)).cloned().collect()
            }
        };
        for it in left.iter().filter(|it| is_of(it, name)) {
            remove(dir, it);
        }
    }
}

/// Whether there is what an earlier attempt to download `name` has left.
pub fn has_remains(dir: &Dir, name: &OsStr) -> bool {
    listed(dir).iter().any(|it| is_of(it, name))
}

fn is_of(temporary: &OsStr, name: &OsStr) -> bool {
    of_temporary(temporary.as_bytes()) == Some(name.as_bytes())
}

/// What cannot be listed has none: this is about tidiness.
fn listed(dir: &Dir) -> Vec<OsString> {
    let mut names = dir.names().unwrap_or_default();
    names.retain(|name| of_temporary(name.as_bytes()).is_some());
    names
}

/// Unless another haul is at it, or somebody else has put it there.
fn remove(dir: &Dir, name: &OsStr) {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = openat(dir, name, flags, Mode::empty()).map(File::from) else {
        return;
    };
    let is_ours = file.metadata().is_ok_and(|meta| {
        meta.is_file() && meta.nlink() == 1 && meta.uid() == rustix::process::geteuid().as_raw()
    });
    if is_ours && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        let _ = dir.remove_file(name);
    }
}
