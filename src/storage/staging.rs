//! Uploads: a file is written where nobody sees it and appears whole, under its name, in one step.
//!
//! The bytes are written by whoever holds the [`Upload`]; a small file is made when all of them are
//! there. That they are on the disk before they have their name, and the name before anybody is told, is
//! seen to in [`super::commit`].

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::DecInt;

use super::held::{HELD_BYTES_MAX, Held};
use super::ledger::amount_of;
use super::made::Made;
use super::partials::{Partial, Withdrawn, lock};
use super::path::{RESERVED_PREFIX, VirtualPath};
use super::quota::Amount;
use super::room::Room;
use super::root::{
    Root, keep_if_large, only_modified, permissions, rename_new, stat_in, stat_open,
};
use super::unwritten::Unwritten;
use crate::proto::facts::{Kind, Meta};

/// A hidden name is random in 64 bits: a second one is needed only if somebody else made the first.
const NAME_ATTEMPTS: usize = 8;

/// Of a file that has not all its bytes yet.
const OWNER_ONLY: Mode = Mode::RUSR.union(Mode::WUSR);

/// A file on its way: nobody but its owner can read it, and unless it is published or a partial it is
/// gone when this is dropped. It is locked before it has a hidden name, see [`super::partials`].
#[derive(Debug)]
pub struct Upload {
    /// `None`: it is small so far, and all that has arrived is in `held`.
    staged: Option<Arc<Staged>>,
    held: Held,
    pub(super) dir: Arc<OwnedFd>,
    pub(super) name: Vec<u8>,
    path: VirtualPath,
    pub(super) root: Root,
    pub(super) room: Box<Room>,
    /// The name in `dir` that the file has meanwhile: that of a partial, or any where the file system
    /// knows no file without a name or a small file replaces another.
    pub(super) hidden: Option<Vec<u8>>,
    replaces: Option<Meta>,
    /// `None`: it belongs to nobody who could continue it.
    pub(super) partial: Option<Partial>,
    /// `None`: what arrived is whole for sure, or not whole yet.
    pub(super) withdrawn: Option<Withdrawn>,
}

/// The file itself, which may still be written back when its upload is over.
#[derive(Debug)]
pub(super) struct Staged {
    file: File,
    /// Which came first: the file system tells a descriptor only of errors since it was opened.
    opened: u64,
    /// An early write-back found that the disk does not take the file. The system says so once:
    /// whoever asks again is told that all is well.
    spoiled: AtomicBool,
    unwritten: Unwritten,
}

/// How a file is to appear.
#[derive(Debug, Clone, Copy)]
pub struct Publish {
    /// Permission bits, 0o777 at most; the umask does not apply.
    pub mode: u32,
    /// Time of last modification; `None`: of the last write.
    pub modify_s: Option<i64>,
    /// Whether what has the name gives way. Otherwise EEXIST.
    pub replace: bool,
}

impl Upload {
    /// Begins a file that will be at `path`. What could not be replaced is refused at once: a
    /// directory with EISDIR, anything but a file or link with ENXIO.
    pub fn create(root: &Root, path: &VirtualPath) -> io::Result<Upload> {
        let (dir, name) = root.parent_lately(path, Errno::ISDIR)?;
        Upload::create_in(root, path, dir, name, None)
    }

    /// As [`Upload::create`], of a file that will be `name` in `dir`.
    pub(super) fn create_in(
        root: &Root,
        path: &VirtualPath,
        dir: Arc<OwnedFd>,
        name: &[u8],
        partial: Option<Partial>,
    ) -> io::Result<Upload> {
        let mut upload = Upload::of(root, path, dir, name, partial)?;
        // What cannot be made here is refused before any of it is sent. Whoever may override
        // permissions finds that out by doing it.
        if !root.lately().may_make(&upload.dir) {
            upload.staged()?;
        }
        Ok(upload)
    }

    /// The staged file, which is made now unless it was before.
    pub(super) fn staged(&mut self) -> io::Result<Arc<Staged>> {
        self.make(true, OWNER_ONLY)
    }

    /// If it is made now, then with this mode, and if it may be `nameless`, as a file without a name, where
    /// there are such files.
    fn make(&mut self, nameless: bool, mode: Mode) -> io::Result<Arc<Staged>> {
        if let Some(staged) = &self.staged {
            return Ok(staged.clone());
        }
        let without_name = if nameless {
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            rustix::fs::openat(&self.dir, c".", flags, mode)
        } else {
            Err(Errno::OPNOTSUPP)
        };
        let (file, hidden) = match without_name {
            Ok(file) => (file, None),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => {
                let create = |hidden: &[u8]| create_locked(&self.dir, hidden, mode);
                let ((file, meta), name) = with_hidden_name(create)?;
                (file, Some((name, meta)))
            }
            // So ext4 says that the directory is gone.
            Err(Errno::PERM) if stat_open(&self.dir).is_ok_and(|dir| dir.links == 0) => {
                return Err(Errno::NOENT.into());
            }
            Err(error) => return Err(error.into()),
        };
        let file = File::from(file);
        let hidden = hidden.map(|(name, meta)| {
            self.room.hide((meta.dev, meta.ino));
            name
        });
        if let Err(error) = file.write_all_at(self.held.bytes(), 0) {
            if let Some(name) = hidden {
                let _ = rustix::fs::unlinkat(&self.dir, name, AtFlags::empty());
            }
            return Err(error);
        }
        self.hidden = hidden;
        let staged = Staged::new(file, &self.root);
        // What is written next is counted with it.
        staged.unwritten.add(self.room.end());
        self.held.let_go();
        Ok(self.staged.insert(staged).clone())
    }

    /// Goes on behind the first `from` bytes of a locked file that has the name of `partial`, and will
    /// be at `path`. What there is of it counts as replaced by this upload.
    pub(super) fn resume(
        root: &Root,
        path: &VirtualPath,
        file: File,
        from: u64,
        partial: Partial,
    ) -> io::Result<Upload> {
        let (dir, name) = root.parent(path, Errno::ISDIR)?;
        let hidden = partial.name().to_vec();
        let mut upload = Upload::of(root, path, dir, name, Some(partial))?;
        upload.room.share(from)?;
        upload.staged = Some(Staged::new(file, root));
        upload.hidden = Some(hidden);
        Ok(upload)
    }

    fn of(
        root: &Root,
        path: &VirtualPath,
        dir: Arc<OwnedFd>,
        name: &[u8],
        partial: Option<Partial>,
    ) -> io::Result<Upload> {
        let replaces = replaced(&dir, name)?;
        let before = partial.as_ref().and_then(Partial::before);
        let old = replaces.as_ref().map_or(Amount::NOTHING, amount_of);
        let both = before.map_or(Some(old), |it| old.plus(it.amount));
        let claims = root.claim(&dir, Amount::NAME, both.unwrap_or(Amount::MAX))?;
        let mut room = Box::new(Room::new(root.ledger().clone(), claims));
        room.will_free(before.map_or(0, |it| it.disk_bytes));
        Ok(Upload {
            staged: None,
            held: Held::new(root.ledger().clone()),
            dir,
            name: name.to_vec(),
            path: path.clone(),
            root: root.clone(),
            room,
            hidden: None,
            replaces,
            partial,
            withdrawn: None,
        })
    }

    /// It will have `bytes` bytes: room is kept for them in the quotas, and there must be space.
    ///
    /// # Errors
    /// There is none; or as open(2), since the file is made now if it will not be small.
    pub fn announce(&mut self, bytes: u64) -> io::Result<()> {
        self.room.announce(&self.dir, bytes)?;
        if bytes > HELD_BYTES_MAX as u64 {
            self.staged()?;
        }
        Ok(())
    }

    /// It begins with `bytes` that it shares with the file it replaces.
    pub fn count_shared(&mut self, bytes: u64) -> io::Result<()> {
        self.room.share(bytes)
    }

    /// To be called before the file is written up to `end`.
    pub fn make_room(&mut self, end: u64) -> io::Result<()> {
        let written = self.room.end();
        self.room.make(&self.dir, end)?;
        if let Some(staged) = &self.staged {
            staged.unwritten.add(end.saturating_sub(written));
        }
        Ok(())
    }

    /// Writes `bytes` to the file from `at` on, for which there must be room.
    ///
    /// # Errors
    /// As open(2), if it is made now, and as pwrite(2).
    pub fn write(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        if self.staged.is_none() && self.held.take(bytes, at) {
            return Ok(());
        }
        self.file()?.write_all_at(bytes, at)
    }

    /// Up to here it has been written.
    pub fn end(&self) -> u64 {
        self.room.end()
    }

    /// The staged file, to be written and read, with all that was written so far.
    ///
    /// # Errors
    /// As open(2), if it is made now.
    pub fn file(&mut self) -> io::Result<&File> {
        self.staged()?;
        let staged = self.staged.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok(&staged.file)
    }

    /// The file or link that had the name when this began.
    pub fn replaces(&self) -> Option<&Meta> {
        self.replaces.as_ref()
    }

    /// Where it will be.
    pub fn path(&self) -> &VirtualPath {
        &self.path
    }

    /// The file that [`Upload::publish`] will replace, kept as [`Root::keep_if_large`] does.
    pub fn keep_replaced_if_large(&self) -> Option<OwnedFd> {
        self.replaces
            .and_then(|_| keep_if_large(&self.dir, &self.name))
    }

    /// What brings the bytes that have been written so far to the disk, somewhere else than here.
    /// `None`: they are so few that they are still in memory, or descriptors have run out.
    pub fn write_back(&self) -> Option<WriteBack> {
        let staged = self.staged.clone()?;
        let file = self.open_again(&staged).ok()?;
        Some(WriteBack { file, staged })
    }

    /// Another descriptor of the file. Each is told for itself, and once, that the disk did not take
    /// what was written: whoever publishes must hear of it as well.
    pub(super) fn open_again(&self, staged: &Staged) -> Result<OwnedFd, Errno> {
        let name = DecInt::from_fd(&staged.file);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::openat(
            self.root.descriptors(),
            name.as_c_str(),
            flags,
            Mode::empty(),
        )
    }

    /// Gives the file its mode, its time and, in one step, its name. Whoever looks sees what was
    /// there before or the whole new file. A link that has the name is itself replaced. After an
    /// error what was there before still is. Nothing of it is on the disk for sure.
    pub fn publish(mut self, how: &Publish) -> io::Result<()> {
        let staged = self.dress(how)?;
        self.appear(&staged, how)
    }

    /// Gives the file, which is made if it is not there yet, its mode and time.
    pub(super) fn dress(&mut self, how: &Publish) -> io::Result<Arc<Staged>> {
        // What is made only now and replaces another has a hidden name until then: to give one to a file
        // without a name, which that moment takes, would cost a quarter of the whole upload.
        let mode = permissions(how.mode);
        let staged = self.make(self.replaces.is_none(), mode)?;
        self.strip_records(&staged.file);
        if staged.spoiled.load(Ordering::Acquire) {
            return Err(Errno::IO.into());
        }
        // The umask or an ACL of the directory may have taken something from it; to look costs a quarter
        // of saying it again.
        if stat_open(&staged.file)?.mode != mode.bits() {
            rustix::fs::fchmod(&staged.file, mode)?;
        }
        if let Some(modify_s) = how.modify_s {
            rustix::fs::futimens(&staged.file, &only_modified(modify_s))?;
        }
        Ok(staged)
    }

    /// Gives the file its name.
    pub(super) fn appear(&mut self, staged: &Staged, how: &Publish) -> io::Result<()> {
        let room = self.room.take_claims();
        let (root, dir, name) = (self.root.clone(), self.dir.clone(), self.name.clone());
        let file = &staged.file;
        let new = || Ok(amount_of(&stat_open(file)?));
        let step = || Ok(self.take_name(file, how.replace)?);
        root.change_measured(&dir, &name, new, room, step)
    }

    fn take_name(&mut self, file: &File, replace: bool) -> Result<(), Errno> {
        let was_taken = replace && self.replaces.is_some();
        if !was_taken {
            match self.take_new_name(file) {
                Err(Errno::EXIST) if replace => {}
                done => return done,
            }
        }
        self.take_over_name(file)
    }

    pub(super) fn dir(&self) -> &Arc<OwnedFd> {
        &self.dir
    }

    /// Device and inode of its directory.
    pub(super) fn dir_identity(&self) -> Result<(u64, u64), Errno> {
        match &self.partial {
            Some(partial) => Ok(partial.dir()),
            None => stat_open(&self.dir).map(|meta| (meta.dev, meta.ino)),
        }
    }

    pub(super) fn made(&self) -> &Made {
        self.root.made()
    }

    fn take_new_name(&mut self, file: &File) -> Result<(), Errno> {
        let Some(hidden) = &self.hidden else {
            return self.link(file, &self.name);
        };
        match rename_new(&self.dir, hidden, &self.dir, &self.name) {
            // This file system cannot be told to replace nothing, but a second name never does;
            // the hidden one goes when this is dropped.
            Err(Errno::INVAL) => {
                let (dir, flags) = (&self.dir, AtFlags::empty());
                rustix::fs::linkat(dir, hidden.as_slice(), dir, self.name.as_slice(), flags)
            }
            Err(error) => Err(error),
            Ok(()) => {
                self.hidden = None;
                Ok(())
            }
        }
    }

    /// A file without a name cannot replace one: it needs a hidden name for that moment.
    fn take_over_name(&mut self, file: &File) -> Result<(), Errno> {
        let hidden = match self.hidden.take() {
            Some(hidden) => hidden,
            None => with_hidden_name(|hidden| self.link_hidden(file, hidden))?.1,
        };
        let renamed = rustix::fs::renameat(
            &self.dir,
            hidden.as_slice(),
            &self.dir,
            self.name.as_slice(),
        );
        if renamed.is_err() {
            self.hidden = Some(hidden);
        }
        renamed
    }

    pub(super) fn link_hidden(&self, file: &File, name: &[u8]) -> Result<(), Errno> {
        // Nobody else could have it yet.
        lock(file)?;
        self.link(file, name)
    }

    fn link(&self, file: &File, name: &[u8]) -> Result<(), Errno> {
        // Whoever opened it may name it by its descriptor, since Linux 6.10, which saves a walk through
        // /proc. Before, that took a capability, and is answered with ENOENT without it.
        match rustix::fs::linkat(file, c"", &self.dir, name, AtFlags::EMPTY_PATH) {
            Err(Errno::NOENT) => {}
            done => return done,
        }
        let file = DecInt::from_fd(file);
        let flags = AtFlags::SYMLINK_FOLLOW;
        let descriptors = self.root.descriptors();
        rustix::fs::linkat(descriptors, file.as_c_str(), &self.dir, name, flags)
    }
}

impl Staged {
    fn new(file: File, root: &Root) -> Arc<Staged> {
        static OPENED: AtomicU64 = AtomicU64::new(0);
        Arc::new(Staged {
            file,
            opened: OPENED.fetch_add(1, Ordering::Relaxed),
            spoiled: AtomicBool::new(false),
            unwritten: Unwritten::new(root.ledger().clone()),
        })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn opened(&self) -> u64 {
        self.opened
    }

    #[cfg(test)]
    pub(super) fn spoil(&self) {
        self.spoiled.store(true, Ordering::Release);
    }
}

/// An early write-back of an upload that goes on meanwhile.
#[derive(Debug)]
pub struct WriteBack {
    file: OwnedFd,
    staged: Arc<Staged>,
}

impl WriteBack {
    /// Waits until the disk has what was written so far.
    ///
    /// # Errors
    /// The disk does not take it. Then the upload cannot be published any more either.
    pub fn run(self) -> io::Result<()> {
        let Staged {
            spoiled, unwritten, ..
        } = &*self.staged;
        let bytes = unwritten.bytes();
        let result = rustix::io::retry_on_intr(|| rustix::fs::fdatasync(&self.file));
        match result {
            Ok(()) => unwritten.take_off(bytes),
            Err(_) => spoiled.store(true, Ordering::Release),
        }
        Ok(result?)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.stays_as_partial() {
            self.leave_partial();
        } else if let Some(hidden) = &self.hidden {
            // Nobody is left to tell. A hidden file that stays is in no listing.
            let _ = rustix::fs::unlinkat(&self.dir, hidden.as_slice(), AtFlags::empty());
        }
    }
}

/// What has the name now, if a file can replace it.
fn replaced(dir: &OwnedFd, name: &[u8]) -> Result<Option<Meta>, Errno> {
    let replaces = match stat_in(dir, name) {
        Ok(meta) => Some(meta),
        Err(Errno::NOENT) => None,
        Err(error) => return Err(error),
    };
    match replaces.map(|meta| meta.kind) {
        Some(Kind::Dir) => Err(Errno::ISDIR),
        Some(Kind::Other) => Err(Errno::NXIO),
        Some(Kind::File | Kind::Link) | None => Ok(replaces),
    }
}

/// EEXIST also if a sweep has found the file before it was locked, and removed it.
fn create_locked(dir: &OwnedFd, name: &[u8], mode: Mode) -> Result<(OwnedFd, Meta), Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, mode)?;
    let locked = lock(&file)?;
    let meta = stat_open(&file)?;
    match locked && meta.links > 0 {
        true => Ok((file, meta)),
        false => Err(Errno::EXIST),
    }
}

/// How many digits follow the prefix in a hidden name that a file has for a moment, or has where
/// there is no other way.
const MOMENT_DIGITS: usize = 16;

pub(super) fn is_moment_name(name: &[u8]) -> bool {
    let digits = name.strip_prefix(RESERVED_PREFIX);
    digits.is_some_and(|it| it.len() == MOMENT_DIGITS && it.iter().all(u8::is_ascii_hexdigit))
}

fn with_hidden_name<T>(
    mut make: impl FnMut(&[u8]) -> Result<T, Errno>,
) -> Result<(T, Vec<u8>), Errno> {
    let mut attempts = 1;
    loop {
        // Each RandomState has keys of its own, so the hash of nothing is a random number.
        let random = RandomState::new().hash_one(());
        let name = [RESERVED_PREFIX, format!("{random:016x}").as_bytes()].concat();
        match make(&name) {
            Err(Errno::EXIST) if attempts < NAME_ATTEMPTS => attempts += 1,
            made => return Ok((made?, name)),
        }
    }
}

#[cfg(test)]
mod tests;
