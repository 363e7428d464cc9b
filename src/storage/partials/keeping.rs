//! What a running upload does for the partial that it becomes if it breaks off: it takes the hidden
//! name, writes down how much has arrived, and is left where it is.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FlockOperation};
use rustix::io::Errno;

use super::super::path::VirtualPath;
use super::super::quota::Amount;
use super::super::root::{LARGE_BYTES, Root, rename_new, stat_open};
use super::super::staging::Upload;
use super::{
    Before, DIGEST, Interrupted, Key, Opened, Owner, Partial, Place, RECORD, Removed, Yields, open,
    record, recorded, remove, set_record,
};

/// Whoever looks whether a partial can be continued, or removes it, has it locked for some
/// microseconds, and whoever writes it for long. What has just broken off waits for the first and not
/// for the second: all these attempts, each of which waits for the lock, take a few milliseconds.
const NAME_ATTEMPTS: usize = 50;

/// How much of an upload has arrived, to be put on the disk and recorded.
#[derive(Debug)]
pub struct Record {
    file: OwnedFd,
    bytes: u64,
    _recording: Arc<()>,
}

impl Record {
    /// Does it. An error is nobody's: this file is a descriptor of its own, so whoever publishes the
    /// upload meets the error of the disk again.
    pub fn run(self) {
        if let Err(error) = record(&self.file, self.bytes) {
            log::debug!("how much of an upload has arrived cannot be recorded: {error}");
        }
    }
}

/// One upload, to those who know when what is kept of it is of no use any more.
#[derive(Debug, Clone)]
pub struct Keeping(Arc<(Key, AtomicBool)>);

impl Keeping {
    pub(super) fn new(key: Key) -> Keeping {
        Keeping(Arc::new((key, AtomicBool::new(false))))
    }

    pub(super) fn name(&self) -> &[u8] {
        self.0.0.name.as_bytes()
    }

    /// Whose partial of what.
    pub fn key(&self) -> Key {
        self.0.0
    }

    /// Another upload has begun since, or what there was is removed: nothing of it is wanted.
    pub fn outdate(&self) {
        self.0.1.store(true, Ordering::Release);
    }

    /// Whether that was said.
    pub fn is_outdated(&self) -> bool {
        self.0.1.load(Ordering::Acquire)
    }

    /// Whether both are of the same upload.
    pub fn is_of(&self, other: &Keeping) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A partial that has come to be.
#[derive(Debug)]
pub struct Kept {
    /// Where.
    pub place: Place,
    /// How much there is.
    pub bytes: u64,
    /// Of which upload.
    pub keeping: Keeping,
    ino: u64,
}

impl Kept {
    /// Removes it, unless it is being written or another partial has taken its place.
    pub fn forget(self) -> Removed {
        let Place { root, dir, key } = &self.place;
        remove(root, dir, key.name.as_bytes(), Some(self.ino))
    }
}

impl Upload {
    /// As [`Upload::create`], of an upload of `owner` of which this is kept if it breaks off. A partial
    /// that is there counts as replaced by it.
    pub fn create_for(
        root: &Root,
        path: &VirtualPath,
        owner: &Owner,
        interrupted: Interrupted,
    ) -> io::Result<Upload> {
        let (dir, name) = root.parent_lately(path, Errno::ISDIR)?;
        let Place { key, .. } = Place::in_dir(root, dir.clone(), name, owner)?;
        let before = match open(&dir, key.name.as_bytes())? {
            Opened::Ours(file) => Some(Before::goes(file)?),
            Opened::Nothing | Opened::Locked => None,
        };
        let partial = Partial {
            before,
            ..Partial::new(key, interrupted)
        };
        Upload::create_in(root, path, dir, name, Some(partial))
    }

    /// There is room for it: the partial that was there before goes, or what is beyond the place where
    /// it is continued, since nothing of that may be mixed with what comes. To be called before
    /// anything is written. What was large is handed over, see [`Place::remove`].
    pub fn replace_partial(&mut self) -> io::Result<Option<OwnedFd>> {
        let Some(partial) = &mut self.partial else {
            return Ok(None);
        };
        let (key, from) = (partial.keeping.key(), partial.from);
        let Some(Before { amount, how, .. }) = partial.before.take() else {
            return Ok(None);
        };
        let name = key.name.as_bytes();
        match how {
            Yields::Goes(file) => {
                let (root, dir) = (&self.root, &self.dir);
                let remove = || Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?);
                self.room.free(root, dir, name, remove)?;
                Ok((amount.bytes >= LARGE_BYTES).then(|| file.into()))
            }
            Yields::Cut { recorded } => {
                let staged = self.staged()?;
                let meta = stat_open(staged.file())?;
                self.room.hide((meta.dev, meta.ino));
                self.room.free(&self.root, &self.dir, name, || {
                    if from < recorded {
                        set_record(staged.file(), from)?;
                    }
                    staged.file().set_len(from)
                })?;
                if let Some(partial) = &mut self.partial {
                    partial.is_counted = false;
                }
                Ok(None)
            }
        }
    }

    /// What others who want to continue it know it by.
    pub fn key(&self) -> Option<Key> {
        self.partial.as_ref().map(|partial| partial.keeping.key())
    }

    /// What says whether anything of it is still wanted.
    pub fn keeping(&self) -> Option<Keeping> {
        self.partial.as_ref().map(|partial| partial.keeping.clone())
    }

    fn is_outdated(&self) -> bool {
        let partial = self.partial.as_ref();
        partial.is_some_and(|partial| partial.keeping.is_outdated())
    }

    /// Nothing is kept of it from here on: it is complete, or of no use.
    pub fn forget_partial(&mut self) {
        if let Some(partial) = &mut self.partial {
            partial.interrupted = Interrupted::Dropped;
        }
        if let Some(withdrawn) = &mut self.withdrawn {
            withdrawn.interrupted = Interrupted::Dropped;
        }
    }

    /// Whether it is left where it is, as a killed server leaves it, when it is dropped: it can be
    /// continued from its last record.
    pub(in crate::storage) fn stays_as_partial(&self) -> bool {
        let partial = self.partial.as_ref();
        partial.is_some_and(|partial| partial.interrupted != Interrupted::Dropped)
            && self.has_partial_name()
    }

    /// Whether it has its hidden name already.
    pub(in crate::storage) fn has_partial_name(&self) -> bool {
        let name = self.partial.as_ref().map(Partial::name);
        name.is_some() && self.hidden.as_deref() == name
    }

    /// Gives the file its hidden name while it is being written. If that name belongs to another
    /// upload that is running, it goes without.
    pub fn take_partial_name(&mut self) -> bool {
        if self.has_partial_name() {
            return true;
        }
        let Some(partial) = &self.partial else {
            return false;
        };
        if !partial.may_be_named {
            return false;
        }
        let is_named = self.become_partial(|| false);
        if let Some(partial) = &mut self.partial {
            partial.may_be_named = is_named;
        }
        is_named
    }

    /// Gives the file its hidden name. If something has that name and cannot be removed, `again` says
    /// whether to try once more.
    fn become_partial(&mut self, again: impl FnMut() -> bool) -> bool {
        let partial = self.partial.as_ref();
        let Some(partial) = partial.filter(|it| it.interrupted != Interrupted::Dropped) else {
            return false;
        };
        let name = partial.name().to_vec();
        if self.has_partial_name() {
            return true;
        }
        let Ok(staged) = self.staged() else {
            return false;
        };
        if self.become_named(staged.file(), &name, again).is_err() {
            return false;
        }
        self.hidden = Some(name);
        if let Ok(meta) = stat_open(staged.file()) {
            self.room.hide((meta.dev, meta.ino));
        }
        true
    }

    fn become_named(
        &self,
        file: &File,
        name: &[u8],
        mut again: impl FnMut() -> bool,
    ) -> Result<(), Errno> {
        let step = || match &self.hidden {
            None => self.link_hidden(file, name),
            Some(hidden) => rename_new(&self.dir, hidden, &self.dir, name),
        };
        loop {
            match step() {
                Err(Errno::EXIST) => {}
                done => return done,
            }
            // Somebody who is gone may have left it there.
            match remove(&self.root, &self.dir, name, None) {
                Removed::Gone(_) => return step(),
                Removed::Not if again() => {}
                Removed::Not => return Err(Errno::EXIST),
            }
        }
    }

    /// What has to be written down so that the first `at` bytes outlive this process. `None`: that
    /// cannot be, or what was to be written down before is not yet.
    pub fn record(&mut self, at: u64) -> Option<Record> {
        if !self.take_partial_name() {
            return None;
        }
        let staged = self.staged().ok()?;
        let recording = &self.partial.as_ref()?.recording;
        if Arc::strong_count(recording) > 1 {
            return None;
        }
        let _recording = recording.clone();
        Some(Record {
            file: self.open_again(&staged).ok()?,
            bytes: self.bytes_to_keep(at),
            _recording,
        })
    }

    fn bytes_to_keep(&self, at: u64) -> u64 {
        match &self.partial {
            Some(partial) => match partial.interrupted {
                Interrupted::Dropped => 0,
                Interrupted::Kept => at,
                Interrupted::KeptButOneByte => partial.from.max(at.saturating_sub(1)),
            },
            None => 0,
        }
    }

    /// It broke off behind byte `at`: puts what is to be kept on the disk, and then under its hidden
    /// name. Takes long.
    ///
    /// # Errors
    /// It could not be kept, and is gone.
    pub fn keep(self, at: u64) -> io::Result<Option<Kept>> {
        let mut attempts = 1..NAME_ATTEMPTS;
        self.keep_as_soon(at, || attempts.next().is_some())
    }

    pub(super) fn keep_as_soon(
        mut self,
        at: u64,
        again: impl FnMut() -> bool,
    ) -> io::Result<Option<Kept>> {
        let bytes = self.bytes_to_keep(at);
        if bytes == 0 || self.is_outdated() {
            // It may have its hidden name already.
            self.forget_partial();
            return Ok(None);
        }
        let staged = self.staged()?;
        let cut = staged.file().set_len(bytes);
        if let Err(error) = cut.and_then(|()| Ok(record(staged.file(), bytes)?)) {
            if recorded(staged.file()).unwrap_or(0) == 0 {
                self.forget_partial();
            }
            return Err(error);
        }
        // That may have taken long enough for another upload to begin, or to be kept under that name.
        if self.is_outdated() {
            self.forget_partial();
        }
        if !self.become_partial(again) {
            return Ok(None);
        }
        self.settle(bytes)?;
        let ino = stat_open(staged.file())?.ino;
        Ok(self.partial.as_ref().map(|partial| Kept {
            place: Place {
                root: self.root.clone(),
                dir: self.dir.clone(),
                key: partial.keeping.key(),
            },
            bytes,
            keeping: partial.keeping.clone(),
            ino,
        }))
    }

    /// As [`Upload::keep`], where nobody is left to tell of an error.
    pub fn keep_or_lose(self, at: u64) -> Option<Kept> {
        self.keep(at).unwrap_or_else(|error| {
            log::warn!("what arrived of an interrupted upload is lost: {error}");
            None
        })
    }

    /// What there is counts from now on as a file that is there. Without room for it, it goes.
    fn settle(&mut self, bytes: u64) -> io::Result<()> {
        let room = self.room.take_claims();
        let settled = self.root.stays(&self.dir, Amount::file(bytes), room);
        match (&settled, &mut self.partial) {
            (Ok(()), Some(partial)) => partial.is_counted = true,
            _ => self.forget_partial(),
        }
        settled
    }

    /// Lets go of it where it is. Too much or not, it is there.
    pub(in crate::storage) fn leave_partial(&mut self) {
        // It has a name, so it is there.
        let Ok(staged) = self.staged() else {
            return;
        };
        if self.partial.as_ref().is_some_and(|it| !it.is_counted) {
            let bytes = stat_open(staged.file()).map_or(0, |meta| meta.size);
            self.root.is_there(&self.dir, Amount::file(bytes));
            drop(self.room.take_claims());
        }
        // Whoever writes it back meanwhile has the same lock.
        let _ = rustix::fs::flock(staged.file(), FlockOperation::Unlock);
    }

    /// What was recorded of it says nothing about a file that is published.
    pub(in crate::storage) fn strip_records(&self, file: &File) {
        if self.has_partial_name() {
            for name in [RECORD, DIGEST] {
                let _ = rustix::fs::fremovexattr(file, name);
            }
        }
    }
}
