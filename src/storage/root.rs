//! One directory that cannot be left.
//!
//! Every path is resolved by the kernel from a descriptor of that directory, with
//! `RESOLVE_BENEATH`: a link is followed as long as it stays inside, whatever other processes
//! rename meanwhile. What changes names then works on one component of a descriptor so obtained,
//! where no link can come in between.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Statx, StatxFlags, Timespec,
    Timestamps, UTIME_OMIT,
};
use rustix::io::Errno;
use rustix::path::DecInt;

use super::commit::Renamed;
use super::lately::Lately;
use super::ledger::Ledger;
use super::made::Made;
use super::path::VirtualPath;
use super::quota::Amount;
use crate::proto::facts::{Kind, Meta};

const PLACE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
const INSIDE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// The kernel gives EAGAIN when a rename anywhere on the machine kept it from proving that a `..`
/// in a link stays inside. Again and again it does so only under attack.
const RESOLVE_ATTEMPTS: usize = 16;

/// A directory and everything below it. To be opened in the process that uses it, since it holds
/// the directory of that process's own descriptors.
#[derive(Debug, Clone)]
pub struct Root {
    dir: Arc<OwnedFd>,
    /// `/proc/self/fd`: the only way without privileges to give a mode or times to what an `O_PATH`
    /// descriptor stands for and, before Linux 6.10, a name to a file without one.
    descriptors: Arc<OwnedFd>,
    made: Arc<Made>,
    lately: Arc<Lately>,
    /// Where this is, seen from the directory that is served.
    place: Arc<VirtualPath>,
    ledger: Arc<Ledger>,
}

impl Root {
    /// Opens `path`, which must be a directory.
    pub fn open(path: &Path) -> io::Result<Root> {
        let flags = PLACE | OFlags::DIRECTORY;
        let open = |path: &Path| rustix::fs::openat(CWD, path, flags, Mode::empty());
        let dir = open(path)?;
        let descriptors = open(Path::new("/proc/self/fd"))?;
        let name = DecInt::from_fd(&dir);
        let served = rustix::fs::readlinkat(&descriptors, name.as_c_str(), Vec::new())?;
        Ok(Root {
            dir: Arc::new(dir),
            descriptors: Arc::new(descriptors),
            made: Arc::default(),
            lately: Arc::default(),
            place: Arc::new(VirtualPath::root()),
            ledger: Arc::new(Ledger::new(served.into_bytes())),
        })
    }

    /// The directory at `path` as a root of its own.
    ///
    /// # Errors
    /// There is no directory that can be reached.
    pub fn below(&self, path: &VirtualPath) -> io::Result<Root> {
        let dir = self.resolve(path, PLACE | OFlags::DIRECTORY)?;
        let place = self.place_of(&dir);
        let place = place.unwrap_or_else(|| self.place.join(path.relative()));
        Ok(Root {
            dir: Arc::new(dir),
            place: Arc::new(place),
            ..self.clone()
        })
    }

    /// What `path` stands for, through links that stay inside.
    pub fn stat(&self, path: &VirtualPath) -> io::Result<Meta> {
        Ok(stat_open(self.resolve(path, PLACE)?)?)
    }

    /// What `path` itself is: a link is not followed.
    pub fn lstat(&self, path: &VirtualPath) -> io::Result<Meta> {
        match path.split() {
            Some((b".", name)) => Ok(stat_in(&self.dir, name)?),
            _ => Ok(stat_open(self.resolve(path, PLACE | OFlags::NOFOLLOW)?)?),
        }
    }

    /// Where a link points. EINVAL if it is none.
    pub fn read_link(&self, path: &VirtualPath) -> io::Result<Vec<u8>> {
        let (dir, name) = self.parent(path, Errno::INVAL)?;
        Ok(rustix::fs::readlinkat(&dir, name, Vec::new())?.into_bytes())
    }

    /// Opens a regular file for reading. A directory is EISDIR, anything else ENXIO, at once: a
    /// FIFO is opened without waiting for its writer.
    pub fn open_file(&self, path: &VirtualPath) -> io::Result<(File, Meta)> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = self.resolve(path, flags)?;
        let meta = stat_open(&file)?;
        match meta.kind {
            Kind::File => Ok((File::from(file), meta)),
            Kind::Dir => Err(Errno::ISDIR.into()),
            Kind::Link | Kind::Other => Err(Errno::NXIO.into()),
        }
    }

    /// Keeps the regular file that has the name `path`, if freeing its blocks would take long: they
    /// are freed where this descriptor is closed, and not where the name is removed or replaced.
    pub fn keep_if_large(&self, path: &VirtualPath) -> Option<OwnedFd> {
        let (dir, name) = self.parent(path, Errno::ISDIR).ok()?;
        keep_if_large(&dir, name)
    }

    /// Opens a directory for reading. ENOTDIR if it is none.
    pub fn open_dir(&self, path: &VirtualPath) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(self.resolve(path, flags)?)
    }

    /// Makes a directory with the permission bits of `mode`, less the umask of the process.
    pub fn create_dir(&self, path: &VirtualPath, mode: u32) -> io::Result<()> {
        let (dir, name) = self.parent(path, Errno::EXIST)?;
        let room = self.claim(&dir, Amount::NAME, Amount::NOTHING)?;
        self.change(&dir, name, Amount::NAME, room, || {
            Ok(rustix::fs::mkdirat(&dir, name, permissions(mode))?)
        })?;
        if let Ok(meta) = stat_in(&dir, name) {
            self.made.add((meta.dev, meta.ino));
        }
        Ok(())
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, path: &VirtualPath) -> io::Result<()> {
        let (dir, name) = self.parent(path, Errno::BUSY)?;
        self.change(&dir, name, Amount::NOTHING, Vec::new(), || {
            Ok(rustix::fs::unlinkat(&dir, name, AtFlags::REMOVEDIR)?)
        })?;
        self.lately.forget();
        Ok(())
    }

    /// Removes anything but a directory (EISDIR). Of a link, the link itself.
    pub fn remove_file(&self, path: &VirtualPath) -> io::Result<()> {
        let (dir, name) = self.parent(path, Errno::ISDIR)?;
        self.change(&dir, name, Amount::NOTHING, Vec::new(), || {
            Ok(rustix::fs::unlinkat(&dir, name, AtFlags::empty())?)
        })?;
        // It may have been a link to a directory.
        self.lately.forget();
        Ok(())
    }

    /// Moves `from` to `to`; a file or link there is replaced if that is meant (`replace`), and EEXIST
    /// otherwise. A directory there is EISDIR, even an empty one, which `rename(2)` would let another
    /// directory replace.
    pub fn rename(
        &self,
        from: &VirtualPath,
        to: &VirtualPath,
        replace: bool,
    ) -> io::Result<Renamed> {
        let (from_dir, from_name) = self.parent(from, Errno::BUSY)?;
        let (to_dir, to_name) = self.parent(to, Errno::ISDIR)?;
        let act = || match rename_new(&from_dir, from_name, &to_dir, to_name) {
            Err(Errno::EXIST) if from == to => Ok(()),
            // EINVAL: this file system cannot be told to replace nothing.
            Err(Errno::EXIST | Errno::INVAL) => {
                match stat_in(&to_dir, to_name) {
                    Ok(there) if there.kind == Kind::Dir => return Err(Errno::ISDIR.into()),
                    Ok(_) if !replace => return Err(Errno::EXIST.into()),
                    _ => {}
                }
                Ok(rustix::fs::renameat(
                    &from_dir, from_name, &to_dir, to_name,
                )?)
            }
            done => Ok(done?),
        };
        self.change_name((&from_dir, from_name), (&to_dir, to_name), act)?;
        self.lately.forget();
        Ok(Renamed {
            from: from_dir,
            to: to_dir,
            made: self.made.clone(),
        })
    }

    /// Sets the permission bits of a file or directory, never those beyond 0o777. Those of the root
    /// stay (EPERM): without them nobody could come in to set them back.
    pub fn set_mode(&self, path: &VirtualPath, mode: u32) -> io::Result<()> {
        if path.is_root() {
            return Err(Errno::PERM.into());
        }
        let place = self.file_or_dir(path)?;
        let name = DecInt::from_fd(&place);
        let (mode, flags) = (permissions(mode), AtFlags::empty());
        rustix::fs::chmodat(&self.descriptors, name.as_c_str(), mode, flags)?;
        self.lately.forget();
        Ok(())
    }

    /// Sets the time of last modification of a file or directory, and no other time.
    pub fn set_modified(&self, path: &VirtualPath, modify_s: i64) -> io::Result<()> {
        let place = self.file_or_dir(path)?;
        let name = DecInt::from_fd(&place);
        let (times, flags) = (only_modified(modify_s), AtFlags::empty());
        Ok(rustix::fs::utimensat(
            &self.descriptors,
            name.as_c_str(),
            &times,
            flags,
        )?)
    }

    /// Bytes that can still be written to the directory at `path` or, if there is none, to that
    /// which would hold `path`: what the disk, the promises made to others and the quotas leave.
    pub fn free_bytes(&self, path: &VirtualPath) -> io::Result<u64> {
        let dir = self.dir_of(path)?;
        let (free, _) = self.ledger.space.free(&dir, 0, 0)?;
        Ok(free.min(self.allotted_bytes(&dir)))
    }

    /// The same, whatever the quotas leave.
    pub fn free_disk_bytes(&self, path: &VirtualPath) -> io::Result<u64> {
        let dir = self.dir_of(path)?;
        Ok(self.ledger.space.free(&dir, 0, 0)?.0)
    }

    fn dir_of(&self, path: &VirtualPath) -> Result<Arc<OwnedFd>, Errno> {
        match self.resolve(path, PLACE | OFlags::DIRECTORY) {
            Ok(dir) => Ok(Arc::new(dir)),
            Err(_) => Ok(self.parent(path, Errno::NOENT)?.0),
        }
    }

    /// Bytes on each file system that no upload uses up; `None`: the default.
    pub fn keep_free(&self, bytes: Option<u64>) {
        self.ledger.space.keep_free(bytes);
    }

    /// Bytes of all uploads under way that may not be on the disk yet.
    pub fn unwritten_bytes(&self) -> u64 {
        self.ledger.unwritten.load(Ordering::Relaxed)
    }

    /// What is known about the tree that this is a part of.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Where this is, seen from the directory that is served.
    pub fn place(&self) -> &VirtualPath {
        &self.place
    }

    pub(super) fn made(&self) -> &Arc<Made> {
        &self.made
    }

    pub(super) fn descriptors(&self) -> &Arc<OwnedFd> {
        &self.descriptors
    }

    /// The directory that holds `path`, and its name there; `at_root` for the root, which has none.
    pub(super) fn parent<'p>(
        &self,
        path: &'p VirtualPath,
        at_root: Errno,
    ) -> Result<(Arc<OwnedFd>, &'p [u8]), Errno> {
        match path.split() {
            None => Err(at_root),
            Some((b".", name)) => Ok((self.dir.clone(), name)),
            Some((parent, name)) => {
                let flags = PLACE | OFlags::DIRECTORY;
                Ok((
                    Arc::new(open_inside(&self.dir, parent, flags, INSIDE)?),
                    name,
                ))
            }
        }
    }

    /// The same for a file that is to be made: the directory is looked up once in a turn.
    pub(super) fn parent_lately<'p>(
        &self,
        path: &'p VirtualPath,
        at_root: Errno,
    ) -> Result<(Arc<OwnedFd>, &'p [u8]), Errno> {
        let (parent, name) = path.split().ok_or(at_root)?;
        let open = || Ok(self.parent(path, at_root)?.0);
        Ok((self.lately.dir(&self.dir, parent, open)?, name))
    }

    /// A turn of the reactor begins: what is looked up from now on may be remembered.
    pub fn begin_turn(&self) {
        self.lately.begin_turn();
    }

    /// It has ended, and is forgotten.
    pub fn end_turn(&self) {
        self.lately.end_turn();
    }

    pub(super) fn lately(&self) -> &Lately {
        &self.lately
    }

    fn resolve(&self, path: &VirtualPath, flags: OFlags) -> Result<OwnedFd, Errno> {
        open_inside(&self.dir, path.relative(), flags, INSIDE)
    }

    fn file_or_dir(&self, path: &VirtualPath) -> Result<OwnedFd, Errno> {
        let place = self.resolve(path, PLACE)?;
        match stat_open(&place)?.kind {
            Kind::File | Kind::Dir => Ok(place),
            Kind::Link | Kind::Other => Err(Errno::NXIO),
        }
    }
}

/// Freeing the blocks of a smaller file is done at once.
pub const LARGE_BYTES: u64 = 16 << 20;

pub(super) fn keep_if_large(dir: impl AsFd, name: &[u8]) -> Option<OwnedFd> {
    let is_large = |meta: Meta| meta.kind == Kind::File && meta.size >= LARGE_BYTES;
    if !stat_in(&dir, name).is_ok_and(is_large) {
        return None;
    }
    let place = rustix::fs::openat(&dir, name, PLACE | OFlags::NOFOLLOW, Mode::empty()).ok()?;
    stat_open(&place).is_ok_and(is_large).then_some(place)
}

/// Opens what is at `path` below `dir`, or nothing.
pub(super) fn open_inside(
    dir: impl AsFd,
    path: &[u8],
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let mut attempts = 1;
    loop {
        match rustix::fs::openat2(&dir, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if attempts < RESOLVE_ATTEMPTS => attempts += 1,
            result => return result,
        }
    }
}

/// Renames unless the new name is taken (EEXIST).
pub(super) fn rename_new(
    from_dir: impl AsFd,
    from: &[u8],
    to_dir: impl AsFd,
    to: &[u8],
) -> Result<(), Errno> {
    rustix::fs::renameat_with(from_dir, from, to_dir, to, RenameFlags::NOREPLACE)
}

/// What `name` in `dir` is, a link not followed.
pub(super) fn stat_in<P: rustix::path::Arg>(dir: impl AsFd, name: P) -> Result<Meta, Errno> {
    stat(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT)
}

/// What an open descriptor stands for.
pub(super) fn stat_open(file: impl AsFd) -> Result<Meta, Errno> {
    stat(file, c"", AtFlags::EMPTY_PATH)
}

fn stat<P: rustix::path::Arg>(dir: impl AsFd, name: P, flags: AtFlags) -> Result<Meta, Errno> {
    // What is not in Meta is not asked for: times of access can cost a network file system a round
    // trip.
    let mask = StatxFlags::TYPE
        | StatxFlags::MODE
        | StatxFlags::NLINK
        | StatxFlags::MTIME
        | StatxFlags::INO
        | StatxFlags::SIZE;
    rustix::fs::statx(dir, name, flags, mask).map(|found| meta_of(&found))
}

fn meta_of(found: &Statx) -> Meta {
    let mode = u32::from(found.stx_mode);
    Meta {
        kind: kind_of(FileType::from_raw_mode(mode)),
        size: found.stx_size,
        modify_s: found.stx_mtime.tv_sec,
        mode: mode & 0o7777,
        links: u64::from(found.stx_nlink),
        dev: rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor),
        ino: found.stx_ino,
    }
}

pub(super) fn kind_of(file_type: FileType) -> Kind {
    match file_type {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Link,
        _ => Kind::Other,
    }
}

pub(super) fn permissions(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o777)
}

pub(super) fn only_modified(modify_s: i64) -> Timestamps {
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    Timestamps {
        last_access: time(0, UTIME_OMIT),
        last_modification: time(modify_s, 0),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    struct Place {
        dir: tempfile::TempDir,
        root: Root,
    }

    fn place() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        Place { dir, root }
    }

    fn at(text: impl AsRef<[u8]>) -> VirtualPath {
        VirtualPath::root().join(text.as_ref())
    }

    #[track_caller]
    fn refused<T>(result: io::Result<T>, errno: Errno) {
        let code = result.err().and_then(|e| e.raw_os_error());
        assert_eq!(code, Some(errno.raw_os_error()));
    }

    #[test]
    fn stat_says_what_std_says() {
        let Place { dir, root } = place();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/f"), b"12345").unwrap();
        symlink("d/f", dir.path().join("l")).unwrap();
        for name in ["d", "d/f", "l", "."] {
            let std = fs::symlink_metadata(dir.path().join(name)).unwrap();
            let ours = root.lstat(&at(name)).unwrap();
            let mode = std.mode() & 0o7777;
            assert_eq!(
                (
                    ours.size,
                    ours.modify_s,
                    ours.mode,
                    ours.links,
                    ours.dev,
                    ours.ino
                ),
                (
                    std.size(),
                    std.mtime(),
                    mode,
                    std.nlink(),
                    std.dev(),
                    std.ino()
                ),
                "{name}"
            );
        }
        assert_eq!(root.lstat(&at("l")).unwrap().kind, Kind::Link);
        assert_eq!(
            root.stat(&at("l")).unwrap(),
            root.lstat(&at("d/f")).unwrap()
        );
        assert_eq!(
            root.open_file(&at("l")).unwrap().1,
            root.stat(&at("d/f")).unwrap()
        );
        assert_eq!(root.read_link(&at("l")).unwrap(), b"d/f");
        refused(root.read_link(&at("d/f")), Errno::INVAL);
        refused(root.open_dir(&at("d/f")), Errno::NOTDIR);
        refused(root.open_file(&at("d")), Errno::ISDIR);
        refused(root.stat(&at("absent/f")), Errno::NOENT);
        refused(root.stat(&at("d/f/x")), Errno::NOTDIR);
    }

    #[test]
    fn the_root_itself_stays() {
        let Place { dir: _dir, root } = place();
        let top = at("/");
        refused(root.create_dir(&top, 0o755), Errno::EXIST);
        refused(root.remove_dir(&top), Errno::BUSY);
        refused(root.remove_file(&top), Errno::ISDIR);
        refused(root.rename(&top, &at("a"), true), Errno::BUSY);
        refused(root.set_mode(&top, 0), Errno::PERM);
        refused(root.open_file(&top), Errno::ISDIR);
        refused(root.read_link(&top), Errno::INVAL);
        root.create_dir(&at("a"), 0o755).unwrap();
        refused(root.rename(&at("a"), &top, true), Errno::ISDIR);
        assert_eq!(root.stat(&top).unwrap().kind, Kind::Dir);
        root.set_modified(&top, 5).unwrap();
        assert_eq!(root.stat(&top).unwrap().modify_s, 5);
        root.open_dir(&top).unwrap();
    }

    #[test]
    fn rename_replaces_files_and_links_but_no_directory() {
        let Place { dir, root } = place();
        let real = |name: &str| dir.path().join(name);
        for name in ["d", "e", "full"] {
            fs::create_dir(real(name)).unwrap();
        }
        for name in ["f", "g", "full/x"] {
            fs::write(real(name), name).unwrap();
        }
        symlink("g", real("l")).unwrap();
        symlink("d", real("to_d")).unwrap();
        root.rename(&at("f"), &at("f"), true).unwrap();
        root.rename(&at("d"), &at("d"), true).unwrap();
        refused(root.rename(&at("f"), &at("d"), true), Errno::ISDIR);
        refused(root.rename(&at("d"), &at("e"), true), Errno::ISDIR);
        refused(root.rename(&at("d"), &at("full"), true), Errno::ISDIR);
        refused(root.rename(&at("f"), &at("l"), false), Errno::EXIST);
        root.rename(&at("f"), &at("f"), false).unwrap();
        refused(root.rename(&at("d"), &at("f"), true), Errno::NOTDIR);
        refused(root.rename(&at("d"), &at("d/below"), true), Errno::INVAL);
        refused(root.rename(&at("absent"), &at("f"), true), Errno::NOENT);
        refused(
            root.rename(&at("absent"), &at("absent"), true),
            Errno::NOENT,
        );
        root.rename(&at("f"), &at("l"), true).unwrap();
        assert_eq!(fs::read(real("l")).unwrap(), b"f");
        assert_eq!(fs::read(real("g")).unwrap(), b"g");
        root.rename(&at("l"), &at("to_d"), true).unwrap();
        assert!(fs::symlink_metadata(real("to_d")).unwrap().is_file());
        root.rename(&at("g"), &at("full/x"), true).unwrap();
        assert_eq!(fs::read(real("full/x")).unwrap(), b"g");
        root.rename(&at("full"), &at("d/moved"), true).unwrap();
        assert_eq!(fs::read(real("d/moved/x")).unwrap(), b"g");
    }

    #[test]
    fn removing_keeps_to_its_kind() {
        let Place { dir, root } = place();
        fs::create_dir_all(dir.path().join("d/sub")).unwrap();
        fs::write(dir.path().join("f"), b"").unwrap();
        symlink("d", dir.path().join("l")).unwrap();
        refused(root.remove_file(&at("d")), Errno::ISDIR);
        refused(root.remove_dir(&at("f")), Errno::NOTDIR);
        refused(root.remove_dir(&at("l")), Errno::NOTDIR);
        refused(root.remove_dir(&at("d")), Errno::NOTEMPTY);
        root.remove_file(&at("l")).unwrap();
        root.remove_file(&at("f")).unwrap();
        root.remove_dir(&at("d/sub")).unwrap();
        root.remove_dir(&at("d")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn modes_and_times() {
        let Place { dir, root } = place();
        let file = dir.path().join("f");
        fs::write(&file, b"").unwrap();
        symlink("f", dir.path().join("l")).unwrap();
        let read_at = fs::metadata(&file).unwrap().accessed().unwrap();
        root.set_mode(&at("l"), 0o7640).unwrap();
        for modify_s in [0, -1, 1_769_860_800, 7_258_118_400] {
            root.set_modified(&at("l"), modify_s).unwrap();
            let meta = fs::metadata(&file).unwrap();
            assert_eq!((meta.mtime(), meta.mtime_nsec()), (modify_s, 0));
            assert_eq!(meta.accessed().unwrap(), read_at);
            assert_eq!(meta.permissions().mode() & 0o7777, 0o640);
        }
        root.create_dir(&at("d"), 0o7700).unwrap();
        assert_eq!(root.stat(&at("d")).unwrap().mode, 0o700);
        root.set_mode(&at("d"), 0o711).unwrap();
        assert_eq!(root.stat(&at("d")).unwrap().mode, 0o711);
        refused(root.create_dir(&at("f"), 0o755), Errno::EXIST);
    }

    #[test]
    fn free_space_of_a_directory_or_of_where_the_file_would_go() {
        let Place { dir, root } = place();
        let space = rustix::fs::statvfs(dir.path()).unwrap();
        let total = space.f_blocks * space.f_frsize;
        for name in ["/", "new"] {
            let free = root.free_bytes(&at(name)).unwrap();
            assert!(free > 0 && free < total, "{name}: {free}");
        }
        refused(root.free_bytes(&at("absent/new")), Errno::NOENT);
    }
}
