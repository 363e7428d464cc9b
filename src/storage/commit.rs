//! What makes an upload a promise: its bytes are on the disk before it has its name, and the name is
//! on the disk before anybody is told.
//!
//! Uploads that are ready at the same time share what is expensive: one call brings all their bytes to
//! the disk, and one each directory. Yet each upload is told for itself whether it succeeded. After an
//! error of a shared call each file is synced by itself, once; never twice, since the system
//! reports a lost write once and then forgets it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::fd::OwnedFd;
use rustix::fs::{Advice, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::made::Made;
use super::partials::Kept;
use super::staging::{Publish, Staged, Upload};

/// What is to reach the disk.
#[derive(Debug, Clone, Copy)]
pub enum Sync<'a> {
    /// This may begin; it is waited for later.
    Soon(&'a File),
    /// This file.
    File(&'a File),
    /// Everything on the file system of this file, and of others that were opened after it.
    FileSystem(&'a File),
    /// The names in this directory.
    Directory(&'a OwnedFd),
    /// Everything on the file system of this directory.
    FileSystemOf(&'a OwnedFd),
}

/// What came of one upload.
#[derive(Debug)]
pub struct Committed {
    /// It is there, and stays.
    pub result: io::Result<()>,
    /// A large file that it replaced: freeing its blocks takes long, where this is closed.
    pub replaced: Option<OwnedFd>,
    /// It was withdrawn in time, and this is what there is of it.
    pub kept: Option<Box<Kept>>,
}

impl From<io::Error> for Committed {
    fn from(error: io::Error) -> Committed {
        Committed {
            result: Err(error),
            replaced: None,
            kept: None,
        }
    }
}

/// An upload that has not failed.
#[derive(Debug)]
struct Ready {
    upload: Upload,
    staged: Arc<Staged>,
    how: Publish,
    /// Device and inode of its directory.
    dir: (u64, u64),
}

/// Uploads whose bytes are on the disk.
#[derive(Debug)]
pub struct Stored(Vec<io::Result<Ready>>);

/// Uploads that have their names, which may not be on the disk yet.
#[derive(Debug)]
pub struct Named(Vec<(Option<Ready>, Committed)>);

/// Brings uploads to the disk: `together`, by syncing their file system, which waits for everybody's
/// bytes, or each file by itself. Those that fail are gone.
pub fn store(batch: Vec<(Upload, Publish)>, together: bool) -> Stored {
    store_with(batch, together, &mut now)
}

fn store_with(
    batch: Vec<(Upload, Publish)>,
    together: bool,
    sync: &mut dyn FnMut(Sync) -> io::Result<()>,
) -> Stored {
    // A file that failed is dropped at once: what it holds of the disk is free again.
    let mut batch = prepare(batch);
    sync_files(&mut batch, together, sync);
    Stored(batch)
}

impl Stored {
    /// Gives the uploads their names, in this order.
    pub fn name(self) -> Named {
        let named = self
            .0
            .into_iter()
            .map(|ready| ready.map_or_else(|error| (None, error.into()), appear));
        Named(named.collect())
    }
}

impl Named {
    /// Brings the names to the disk.
    pub fn settle(self) -> Vec<Committed> {
        self.settle_with(&mut now)
    }

    fn settle_with(mut self, sync: &mut dyn FnMut(Sync) -> io::Result<()>) -> Vec<Committed> {
        sync_names(&mut self.0, sync);
        self.as_they_are()
    }

    /// Leaves it to the system when the names reach the disk.
    pub fn as_they_are(self) -> Vec<Committed> {
        self.0.into_iter().map(|(_, committed)| committed).collect()
    }
}

fn prepare(batch: Vec<(Upload, Publish)>) -> Vec<io::Result<Ready>> {
    let ready = |(mut upload, how): (Upload, Publish)| {
        Ok(Ready {
            staged: upload.dress(&how)?,
            dir: upload.dir_identity()?,
            upload,
            how,
        })
    };
    batch.into_iter().map(ready).collect()
}

fn appear(mut ready: Ready) -> (Option<Ready>, Committed) {
    if ready.upload.is_withdrawn() {
        let mut committed = Committed::from(io::Error::from(Errno::CANCELED));
        committed.kept = ready.upload.keep_after_all().map(Box::new);
        return (None, committed);
    }
    let replaced = ready.upload.keep_replaced_if_large();
    match ready.upload.appear(&ready.staged, &ready.how) {
        Ok(()) => {
            let committed = Committed {
                result: Ok(()),
                replaced,
                kept: None,
            };
            (Some(ready), committed)
        }
        Err(error) => (None, error.into()),
    }
}

fn sync_files(
    batch: &mut [io::Result<Ready>],
    together: bool,
    sync: &mut dyn FnMut(Sync) -> io::Result<()>,
) {
    let mut devices: HashMap<u64, Vec<&mut io::Result<Ready>>> = HashMap::new();
    for ready in batch {
        if let Ok(Ready { dir, .. }) = ready {
            devices.entry(dir.0).or_default().push(ready);
        }
    }
    for uploads in devices.values_mut() {
        if uploads.len() > 1 && together && sync_together(uploads, sync).is_ok() {
            continue;
        }
        if uploads.len() > 1 {
            for ready in uploads.iter().filter_map(|it| it.as_ref().ok()) {
                // Only the start is made here, of what follows; whether it succeeds is seen there.
                let _ = sync(Sync::Soon(ready.staged.file()));
            }
        }
        for upload in uploads {
            if let Ok(ready) = upload
                && let Err(error) = sync(Sync::File(ready.staged.file()))
            {
                **upload = Err(error);
            }
        }
    }
}

/// Asks through the file that was opened first: the others may have been opened after an error.
fn sync_together(
    uploads: &[&mut io::Result<Ready>],
    sync: &mut dyn FnMut(Sync) -> io::Result<()>,
) -> io::Result<()> {
    let opened = uploads.iter().filter_map(|it| it.as_ref().ok());
    match opened.min_by_key(|ready| ready.staged.opened()) {
        Some(first) => sync(Sync::FileSystem(first.staged.file())),
        None => Ok(()),
    }
}

/// After an error nobody knows which of the names will still be there tomorrow, so none is promised.
fn sync_names(
    committed: &mut [(Option<Ready>, Committed)],
    sync: &mut dyn FnMut(Sync) -> io::Result<()>,
) {
    let mut synced: HashMap<(u64, u64), bool> = HashMap::new();
    for (ready, committed) in committed {
        let Some(Ready { upload, dir, .. }) = ready else {
            continue;
        };
        let mut sync_dir = || upload.made().sync(upload.dir(), sync).is_ok();
        if !*synced.entry(*dir).or_insert_with(&mut sync_dir) {
            committed.result = Err(Errno::IO.into());
        }
    }
}

/// The directories of something that was renamed.
#[derive(Debug)]
pub struct Renamed {
    pub(super) from: Arc<OwnedFd>,
    pub(super) to: Arc<OwnedFd>,
    pub(super) made: Arc<Made>,
}

impl Renamed {
    /// Brings both names to the disk: the new one, and that the old one is gone.
    ///
    /// # Errors
    /// EIO: nobody knows which of the names will still be there tomorrow.
    pub fn sync(&self) -> io::Result<()> {
        let sync = |dir| self.made.sync(dir, &mut now);
        let both = sync(&self.to).and_then(|()| match Arc::ptr_eq(&self.from, &self.to) {
            true => Ok(()),
            false => sync(&self.from),
        });
        both.map_err(|_| Errno::IO.into())
    }
}

/// An interrupted call has told nothing, so it may be made again.
fn now(what: Sync) -> io::Result<()> {
    Ok(match what {
        // The only way without unsafe code to have write-back begin and not wait for it.
        Sync::Soon(file) => rustix::fs::fadvise(file, 0, None, Advice::DontNeed),
        Sync::File(file) => retry_on_intr(|| rustix::fs::fsync(file)),
        Sync::FileSystem(file) => retry_on_intr(|| rustix::fs::syncfs(file)),
        Sync::Directory(dir) => match open(dir) {
            Ok(dir) => retry_on_intr(|| rustix::fs::fsync(&dir)),
            Err(Errno::ACCESS) => sync_unreadable(dir),
            Err(error) => Err(error),
        },
        Sync::FileSystemOf(dir) => match open(dir) {
            Ok(dir) => retry_on_intr(|| rustix::fs::syncfs(&dir)),
            Err(Errno::ACCESS) => sync_unreadable(dir),
            Err(error) => Err(error),
        },
    }?)
}

/// What stands for the place, for clients, is no descriptor that could be synced.
fn open(dir: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, c".", flags, Mode::empty())
}

/// A directory that may be written but not read cannot be opened to be synced; but a file in it can.
fn sync_unreadable(dir: &OwnedFd) -> Result<(), Errno> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, c".", flags, Mode::RUSR | Mode::WUSR)?;
    retry_on_intr(|| rustix::fs::syncfs(&file))
}

#[cfg(test)]
mod tests;
