//! Uploads: a file is written where nobody sees it and appears whole, under its name, in one step.
//!
//! The bytes are written by whoever holds the [`Upload`]. That they are on the disk before they have
//! their name, and the name before anybody is told, is seen to in [`super::commit`].

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::DecInt;

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

/// A file on its way: nobody but its owner can read it, and unless it is published or a partial it is
/// gone when this is dropped. It is locked before it has a hidden name, see [`super::partials`].
#[derive(Debug)]
pub struct Upload {
    staged: Arc<Staged>,
    pub(super) dir: Arc<OwnedFd>,
    pub(super) name: Vec<u8>,
    path: VirtualPath,
    pub(super) root: Root,
    pub(super) room: Box<Room>,
    /// Which came first: the file system tells a descriptor only of errors since it was opened.
    begun: u64,
    /// The name in `dir` that the file has meanwhile: that of a partial, or any where the file
    /// system knows no file without a name.
    pub(super) hidden: Option<Vec<u8>>,
    replaces: Option<Meta>,
    /// `None`: it belongs to nobody who could continue it.
    pub(super) partial: Option<Partial>,
    /// `None`: what arrived is whole for sure, or not whole yet.
    pub(super) withdrawn: Option<Withdrawn>,
}

#[derive(Debug)]
struct Staged {
    file: File,
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
        Upload::stage(root, path, |_| true)
    }

    /// The same for a small file that arrives at once. If it replaces another, it has a hidden name until
    /// then: to give one to a file without a name, which that moment takes, would cost a quarter of the
    /// whole upload.
    pub fn create_in_passing(root: &Root, path: &VirtualPath) -> io::Result<Upload> {
        Upload::stage(root, path, |replaces| !replaces)
    }

    fn stage(
        root: &Root,
        path: &VirtualPath,
        nameless: impl FnOnce(bool) -> bool,
    ) -> io::Result<Upload> {
        let (dir, name) = root.parent(path, Errno::ISDIR)?;
        let replaces = replaced(&dir, name)?;
        let old = replaces.as_ref().map_or(Amount::NOTHING, amount_of);
        let room = root.claim(&dir, Amount::NAME, old)?;
        let without_name = if nameless(replaces.is_some()) {
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            rustix::fs::openat(&dir, c".", flags, Mode::RUSR | Mode::WUSR)
        } else {
            Err(Errno::OPNOTSUPP)
        };
        let (file, hidden) = match without_name {
            Ok(file) => (file, None),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => {
                let ((file, meta), name) = with_hidden_name(|hidden| create_locked(&dir, hidden))?;
                (file, Some((name, meta)))
            }
            Err(error) => return Err(error.into()),
        };
        let file = File::from(file);
        let mut room = Box::new(Room::new(root.ledger().clone(), room));
        let hidden = hidden.map(|(name, meta)| {
            room.hide((meta.dev, meta.ino));
            name
        });
        Ok(Upload::of(root, path, dir, file, room, hidden, replaces))
    }

    /// Goes on behind the first `from` bytes of a locked file that has the name of `partial`, and will
    /// be at `path`. What there is of it counts from now on as a part of this upload.
    pub(super) fn resume(
        root: &Root,
        path: &VirtualPath,
        file: File,
        from: u64,
        partial: Partial,
        cut: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<Upload> {
        let (dir, name) = root.parent(path, Errno::ISDIR)?;
        let replaces = replaced(&dir, name)?;
        let old = replaces.as_ref().map_or(Amount::NOTHING, amount_of);
        let mut room = Box::new(Room::new(root.ledger().clone(), Vec::new()));
        let meta = stat_open(&file)?;
        room.hide((meta.dev, meta.ino));
        // What counted for the partial is given back, so it is cut while that is still to be seen.
        root.change(&dir, partial.name(), Amount::NOTHING, Vec::new(), || {
            cut(&file)
        })?;
        let claims = root.claim(&dir, Amount::NAME, old).and_then(|claims| {
            room.claim(claims);
            room.share(from)
        });
        if let Err(error) = claims {
            // It stays a partial.
            root.is_there(&dir, Amount::file(from));
            return Err(error);
        }
        let hidden = Some(partial.name().to_vec());
        let mut upload = Upload::of(root, path, dir, file, room, hidden, replaces);
        upload.partial = Some(partial);
        Ok(upload)
    }

    fn of(
        root: &Root,
        path: &VirtualPath,
        dir: Arc<OwnedFd>,
        file: File,
        room: Box<Room>,
        hidden: Option<Vec<u8>>,
        replaces: Option<Meta>,
    ) -> Upload {
        static BEGUN: AtomicU64 = AtomicU64::new(0);
        let name = path.split().map_or(&b"."[..], |(_, name)| name);
        Upload {
            staged: Arc::new(Staged {
                file,
                spoiled: AtomicBool::new(false),
                unwritten: Unwritten::new(root.ledger().clone()),
            }),
            dir,
            name: name.to_vec(),
            path: path.clone(),
            root: root.clone(),
            room,
            begun: BEGUN.fetch_add(1, Ordering::Relaxed),
            hidden,
            replaces,
            partial: None,
            withdrawn: None,
        }
    }

    /// It will have `bytes` bytes: room is kept for them in the quotas, and there must be space.
    pub fn announce(&mut self, bytes: u64) -> io::Result<()> {
        self.room.announce(&self.staged.file, bytes)
    }

    /// It begins with `bytes` that it shares with the file it replaces.
    pub fn count_shared(&mut self, bytes: u64) -> io::Result<()> {
        self.room.share(bytes)
    }

    /// To be called before the file is written up to `end`.
    pub fn make_room(&mut self, end: u64) -> io::Result<()> {
        let written = self.room.end();
        self.room.make(&self.staged.file, end)?;
        self.staged.unwritten.add(end.saturating_sub(written));
        Ok(())
    }

    /// Up to here it has been written.
    pub fn end(&self) -> u64 {
        self.room.end()
    }

    /// The staged file, to be written and read.
    pub fn file(&self) -> &File {
        &self.staged.file
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
    pub fn write_back(&self) -> WriteBack {
        WriteBack(self.staged.clone())
    }

    /// Gives the file its mode, its time and, in one step, its name. Whoever looks sees what was
    /// there before or the whole new file. A link that has the name is itself replaced. After an
    /// error what was there before still is. Nothing of it is on the disk for sure.
    pub fn publish(mut self, how: &Publish) -> io::Result<()> {
        self.dress(how)?;
        self.appear(how)
    }

    /// Gives the file its mode and time.
    pub(super) fn dress(&self, how: &Publish) -> io::Result<()> {
        self.strip_records();
        if self.staged.spoiled.load(Ordering::Acquire) {
            return Err(Errno::IO.into());
        }
        rustix::fs::fchmod(self.file(), permissions(how.mode))?;
        if let Some(modify_s) = how.modify_s {
            rustix::fs::futimens(self.file(), &only_modified(modify_s))?;
        }
        Ok(())
    }

    /// Gives the file its name.
    pub(super) fn appear(&mut self, how: &Publish) -> io::Result<()> {
        let room = self.room.take_claims();
        let (root, dir, name) = (self.root.clone(), self.dir.clone(), self.name.clone());
        let staged = self.staged.clone();
        let new = || Ok(amount_of(&stat_open(&staged.file)?));
        root.change_measured(&dir, &name, new, room, || Ok(self.take_name(how.replace)?))
    }

    fn take_name(&mut self, replace: bool) -> Result<(), Errno> {
        let was_taken = replace && self.replaces.is_some();
        if !was_taken {
            match self.take_new_name() {
                Err(Errno::EXIST) if replace => {}
                done => return done,
            }
        }
        self.take_over_name()
    }

    pub(super) fn dir(&self) -> &Arc<OwnedFd> {
        &self.dir
    }

    pub(super) fn made(&self) -> &Made {
        self.root.made()
    }

    #[cfg(test)]
    pub(super) fn spoil(&self) {
        self.staged.spoiled.store(true, Ordering::Release);
    }

    pub(super) fn begun(&self) -> u64 {
        self.begun
    }

    fn take_new_name(&mut self) -> Result<(), Errno> {
        let Some(hidden) = &self.hidden else {
            return self.link(&self.name);
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
    fn take_over_name(&mut self) -> Result<(), Errno> {
        let hidden = match self.hidden.take() {
            Some(hidden) => hidden,
            None => with_hidden_name(|hidden| self.link_hidden(hidden))?.1,
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

    pub(super) fn link_hidden(&self, name: &[u8]) -> Result<(), Errno> {
        // Nobody else could have it yet.
        lock(self.file())?;
        self.link(name)
    }

    fn link(&self, name: &[u8]) -> Result<(), Errno> {
        let file = DecInt::from_fd(self.file());
        let flags = AtFlags::SYMLINK_FOLLOW;
        let descriptors = self.root.descriptors();
        rustix::fs::linkat(descriptors, file.as_c_str(), &self.dir, name, flags)
    }
}

/// An early write-back of an upload that goes on meanwhile.
#[derive(Debug)]
pub struct WriteBack(Arc<Staged>);

impl WriteBack {
    /// Waits until the disk has what was written so far.
    ///
    /// # Errors
    /// The disk does not take it. Then the upload cannot be published any more either.
    pub fn run(self) -> io::Result<()> {
        let Staged {
            file,
            spoiled,
            unwritten,
        } = &*self.0;
        let bytes = unwritten.bytes();
        let result = rustix::io::retry_on_intr(|| rustix::fs::fdatasync(file));
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
fn create_locked(dir: &OwnedFd, name: &[u8]) -> Result<(OwnedFd, Meta), Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?;
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
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    const NEW: Publish = Publish {
        mode: 0o644,
        modify_s: None,
        replace: false,
    };
    const OVER: Publish = Publish {
        replace: true,
        ..NEW
    };

    fn at(text: &str) -> VirtualPath {
        VirtualPath::root().join(text.as_bytes())
    }

    fn names(dir: &tempfile::TempDir) -> Vec<String> {
        let entries = fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[track_caller]
    fn refused<T>(result: io::Result<T>, errno: Errno) {
        let code = result.err().and_then(|e| e.raw_os_error());
        assert_eq!(code, Some(errno.raw_os_error()));
    }

    /// Runs `test` once with a file without a name and once with a hidden name.
    fn both(test: impl Fn(&tempfile::TempDir, &Root, &dyn Fn(&str) -> io::Result<Upload>)) {
        for nameless in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let root = Root::open(dir.path()).unwrap();
            let stage = |path: &str| {
                let upload = Upload::stage(&root, &at(path), |_| nameless)?;
                assert_eq!(upload.hidden.is_none(), nameless);
                upload.file().write_all(b"new content")?;
                Ok(upload)
            };
            test(&dir, &root, &stage);
            let left: Vec<_> = names(&dir)
                .into_iter()
                .filter(|n| n.starts_with(".haul-"))
                .collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }

    #[test]
    fn nothing_is_seen_before_the_one_step() {
        both(|dir, _, stage| {
            let upload = stage("f").unwrap();
            assert_eq!(upload.replaces(), None);
            let hidden = usize::from(upload.hidden.is_some());
            assert_eq!(names(dir).len(), hidden);
            assert_eq!(upload.file().metadata().unwrap().mode() & 0o7777, 0o600);
            let how = Publish {
                mode: 0o7640,
                modify_s: Some(1_000_000_000),
                replace: false,
            };
            upload.publish(&how).unwrap();
            assert_eq!(names(dir), ["f"]);
            let meta = fs::metadata(dir.path().join("f")).unwrap();
            assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o640, 1_000_000_000));
            assert_eq!((meta.len(), meta.nlink()), (11, 1));
        });
    }

    #[test]
    fn what_is_not_on_the_disk_is_counted_until_it_is_or_is_gone() {
        both(|_, root, stage| {
            let (mut one, mut two) = (stage("one").unwrap(), stage("two").unwrap());
            one.make_room(100).unwrap();
            one.make_room(300).unwrap();
            two.make_room(50).unwrap();
            assert_eq!(root.unwritten_bytes(), 350);
            let order = one.write_back();
            one.make_room(310).unwrap();
            order.run().unwrap();
            one.make_room(320).unwrap();
            assert_eq!(
                root.unwritten_bytes(),
                60,
                "what came before it was carried out is there"
            );
            let order = one.write_back();
            drop(one);
            assert_eq!(root.unwritten_bytes(), 60, "it is held by the order");
            drop(order);
            two.publish(&NEW).unwrap();
            assert_eq!(root.unwritten_bytes(), 0);
        });
    }

    #[test]
    fn in_passing_only_what_replaces_something_has_a_hidden_name() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let store = |hides: bool| {
            let upload = Upload::create_in_passing(&root, &at("f")).unwrap();
            assert_eq!(upload.hidden.is_some(), hides);
            upload.publish(&OVER).unwrap();
            assert_eq!(names(&dir), ["f"]);
        };
        store(false);
        store(true);
        drop(Upload::create_in_passing(&root, &at("f")).unwrap());
        assert_eq!(names(&dir), ["f"]);
    }

    #[test]
    fn what_is_dropped_was_never_there() {
        both(|dir, _, stage| {
            fs::write(dir.path().join("f"), b"old").unwrap();
            drop(stage("f").unwrap());
            drop(stage("new").unwrap());
            assert_eq!(names(dir), ["f"]);
            assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"old");
        });
    }

    #[test]
    fn a_taken_name_is_kept_or_replaced_as_asked() {
        both(|dir, _, stage| {
            let file = dir.path().join("f");
            let before = stage("f").unwrap();
            fs::write(&file, b"old").unwrap();
            let after = stage("f").unwrap();
            assert_eq!(after.replaces().map(|m| m.size), Some(3));
            refused(stage("f").unwrap().publish(&NEW), Errno::EXIST);
            refused(after.publish(&NEW), Errno::EXIST);
            assert_eq!(fs::read(&file).unwrap(), b"old");
            let reader = File::open(&file).unwrap();
            // The name was free when this one began and is taken now.
            before.publish(&OVER).unwrap();
            assert_eq!(fs::read(&file).unwrap(), b"new content");
            assert_eq!(io::read_to_string(reader).unwrap(), "old");
            // And the other way round.
            let upload = stage("f").unwrap();
            fs::remove_file(&file).unwrap();
            upload.publish(&OVER).unwrap();
            assert_eq!(names(dir), ["f"]);
        });
    }

    #[test]
    fn a_link_is_replaced_itself() {
        both(|dir, _, stage| {
            let outside = tempfile::tempdir().unwrap();
            let canary = outside.path().join("canary");
            fs::write(&canary, b"untouched").unwrap();
            for target in [
                canary.as_path(),
                outside.path(),
                "l".as_ref(),
                "gone".as_ref(),
            ] {
                symlink(target, dir.path().join("l")).unwrap();
                let upload = stage("l").unwrap();
                assert_eq!(upload.replaces().map(|m| m.kind), Some(Kind::Link));
                upload.publish(&OVER).unwrap();
                assert!(
                    fs::symlink_metadata(dir.path().join("l"))
                        .unwrap()
                        .is_file()
                );
                fs::remove_file(dir.path().join("l")).unwrap();
            }
            assert_eq!(fs::read(&canary).unwrap(), b"untouched");
            assert_eq!(names(&outside), ["canary"]);
        });
    }

    #[test]
    fn what_is_no_file_is_refused_before_and_after() {
        both(|dir, _, stage| {
            fs::create_dir(dir.path().join("d")).unwrap();
            let _socket = UnixListener::bind(dir.path().join("s")).unwrap();
            let fifo = dir.path().join("p");
            let (mode, kind) = (Mode::RUSR, rustix::fs::FileType::Fifo);
            rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).unwrap();
            refused(stage("/"), Errno::ISDIR);
            refused(stage("d"), Errno::ISDIR);
            refused(stage("s"), Errno::NXIO);
            refused(stage("p"), Errno::NXIO);
            refused(stage("absent/f"), Errno::NOENT);
            refused(stage("p/f"), Errno::NOTDIR);
            refused(stage(&"n".repeat(256)), Errno::NAMETOOLONG);
            stage(&"n".repeat(255)).unwrap().publish(&NEW).unwrap();
            let upload = stage("later").unwrap();
            fs::create_dir(dir.path().join("later")).unwrap();
            refused(upload.publish(&OVER), Errno::ISDIR);
            assert!(dir.path().join("later").is_dir());
        });
    }

    #[test]
    fn a_directory_that_is_gone_takes_its_uploads_with_it() {
        both(|dir, _, stage| {
            fs::create_dir(dir.path().join("d")).unwrap();
            let upload = stage("d/f").unwrap();
            fs::remove_dir_all(dir.path().join("d")).unwrap();
            refused(upload.publish(&NEW), Errno::NOENT);
        });
    }
}
