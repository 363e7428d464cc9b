//! A tree, iterative, in memory that its depth bounds and its width does not.

use std::io;
use std::mem::MaybeUninit;
use std::sync::Arc;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Access, AtFlags, OFlags, ResolveFlags, SeekFrom};
use rustix::io::Errno;

use super::Want;
use super::listing::{BATCH_BYTES, batch_bytes, concerns_one_entry, read_batch};
use crate::proto::facts::{Kind, Meta};
use crate::storage::path::{PATH_BYTES_MAX, VirtualPath};
use crate::storage::root::{Root, open_inside, stat_open};

/// Deep down the batches are brief, since each level remembers what is left of its own.
const DEEP_FROM_LEVEL: usize = 64;

/// Descriptors that one tree holds: that of its base and those of the last levels. The levels
/// between are closed and opened again on the way back.
const OPEN_MAX: usize = 16;

/// A directory and all below it; links are entries and lead nowhere. Each directory comes before
/// what is in it.
///
/// All entries of a batch are given out before any of its directories is entered; the names of
/// these wait in one stack for all levels.
#[derive(Debug)]
pub struct Tree {
    base: OwnedFd,
    /// What the path of the base and a slash add to that of an entry.
    base_path_bytes: usize,
    /// The directory that the last of `levels` stands for, relative to the base.
    path: Vec<u8>,
    levels: Vec<Level>,
    /// Directories to be entered, each name behind a NUL, which no name contains.
    waiting: Vec<u8>,
    left_out: u64,
    target: Vec<u8>,
}

#[derive(Debug)]
struct Level {
    dir: Reading,
    path_bytes: usize,
    /// Where this level's part of `Tree::waiting` begins.
    waiting_from: usize,
}

#[derive(Debug)]
enum Reading {
    Open(OwnedFd),
    /// Closed meanwhile. Whether what has the path is still the same directory, in which the
    /// position means something, device and inode tell.
    Closed {
        position: u64,
        dev: u64,
        ino: u64,
    },
}

/// One entry of a tree.
#[derive(Debug, Clone, Copy)]
pub struct TreeEntry<'a> {
    /// Relative to where the tree began.
    pub path: &'a [u8],
    /// What it is.
    pub meta: &'a Meta,
    /// Where a link points, if that was wanted.
    pub target: Option<&'a [u8]>,
    /// A directory whose entries are left out.
    pub incomplete: bool,
}

impl Tree {
    /// The tree below `path`, which must be a directory and is not itself an entry.
    pub fn new(root: Arc<Root>, path: &VirtualPath) -> io::Result<Tree> {
        let base_path_bytes = if path.is_root() {
            0
        } else {
            path.as_bytes().len()
        };
        Tree::below(root.open_dir(path)?, base_path_bytes)
    }

    /// The tree below `name` in an open directory.
    pub(in crate::storage) fn at(dir: &OwnedFd, name: &[u8]) -> io::Result<Tree> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        Tree::below(open_inside(dir, name, flags, resolve)?, 0)
    }

    fn below(first: OwnedFd, base_path_bytes: usize) -> io::Result<Tree> {
        // The tree's links are never followed, but there may be one in the path to it: so all below
        // is opened from here and not from the root.
        let base = first.try_clone()?;
        Ok(Tree {
            base,
            base_path_bytes,
            path: Vec::new(),
            levels: vec![Level {
                dir: Reading::Open(first),
                path_bytes: 0,
                waiting_from: 0,
            }],
            waiting: Vec::new(),
            left_out: 0,
            target: Vec::new(),
        })
    }

    /// Enters at most one directory and gives some of its entries to `each`, perhaps none. False at
    /// the end.
    pub fn batch(&mut self, want: Want, each: &mut dyn FnMut(TreeEntry<'_>)) -> io::Result<bool> {
        let ready = match self.levels.last() {
            None => return Ok(false),
            Some(top) if self.waiting.len() > top.waiting_from => self.enter_next()?,
            Some(_) => self.reopen_last()?,
        };
        if ready && !self.read_last(want, each)? {
            self.leave();
        }
        Ok(!self.levels.is_empty())
    }

    /// How many entries are missing so far, where a directory that cannot be read counts as one.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Enters the directory that waits on top. False if that cannot be.
    fn enter_next(&mut self) -> Result<bool, Errno> {
        let Some(from) = memchr::memrchr(0, &self.waiting) else {
            return Ok(false);
        };
        let path_bytes = self.path.len();
        push_name(&mut self.path, &self.waiting[from + 1..]);
        self.waiting.truncate(from);
        let Some(dir) = self.open_path()? else {
            self.path.truncate(path_bytes);
            self.left_out += 1;
            return Ok(false);
        };
        if let Some(far) = self.levels.len().checked_sub(OPEN_MAX - 1) {
            self.levels[far].dir.close()?;
        }
        self.levels.push(Level {
            dir: Reading::Open(dir),
            path_bytes: self.path.len(),
            waiting_from: self.waiting.len(),
        });
        Ok(true)
    }

    /// Sees to it that the last level is open. False if it is not there any more: whatever was
    /// still to come of it counts as one.
    fn reopen_last(&mut self) -> Result<bool, Errno> {
        let Some(&Level {
            dir: Reading::Closed { position, dev, ino },
            ..
        }) = self.levels.last()
        else {
            return Ok(true);
        };
        if let Some(dir) = self.open_path()? {
            let now = stat_open(&dir)?;
            if (now.dev, now.ino) == (dev, ino) {
                rustix::fs::seek(&dir, SeekFrom::Start(position))?;
                if let Some(level) = self.levels.last_mut() {
                    level.dir = Reading::Open(dir);
                }
                return Ok(true);
            }
        }
        self.left_out += 1;
        self.leave();
        Ok(false)
    }

    /// Opens the directory at `path`; `None` if there is none or it may not be read.
    fn open_path(&self) -> Result<Option<OwnedFd>, Errno> {
        let path = if self.path.is_empty() {
            b"."
        } else {
            self.path.as_slice()
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match open_inside(&self.base, path, flags, resolve) {
            Ok(dir) => Ok(Some(dir)),
            Err(error) if concerns_one_entry(error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a batch of the last level. False at its end.
    fn read_last(
        &mut self,
        want: Want,
        each: &mut dyn FnMut(TreeEntry<'_>),
    ) -> Result<bool, Errno> {
        let brief = want.brief || self.levels.len() > DEEP_FROM_LEVEL;
        let Some(Level {
            dir: Reading::Open(dir),
            ..
        }) = self.levels.last()
        else {
            return Ok(false);
        };
        let mut buffer = [MaybeUninit::uninit(); BATCH_BYTES];
        let (path, waiting) = (&mut self.path, &mut self.waiting);
        let here = path.len();
        let mut missing = 0;
        let mut entry = |name: &[u8], meta: &Meta, target: Option<&[u8]>| {
            push_name(path, name);
            if self.base_path_bytes + path.len() > PATH_BYTES_MAX {
                missing += 1;
            } else {
                let incomplete = meta.kind == Kind::Dir && !may_enter(dir.as_fd(), name);
                each(TreeEntry {
                    path,
                    meta,
                    target,
                    incomplete,
                });
                if incomplete {
                    missing += 1;
                } else if meta.kind == Kind::Dir {
                    waiting.push(0);
                    waiting.extend_from_slice(name);
                }
            }
            path.truncate(here);
        };
        let more = read_batch(
            dir.as_fd(),
            &mut buffer[..batch_bytes(brief)],
            want,
            &mut self.left_out,
            &mut self.target,
            &mut entry,
        );
        self.left_out += missing;
        more
    }

    fn leave(&mut self) {
        self.levels.pop();
        self.path
            .truncate(self.levels.last().map_or(0, |above| above.path_bytes));
    }
}

impl Reading {
    fn close(&mut self) -> Result<(), Errno> {
        if let Reading::Open(dir) = self {
            let Meta { dev, ino, .. } = stat_open(&*dir)?;
            let position = rustix::fs::tell(&*dir)?;
            *self = Reading::Closed { position, dev, ino };
        }
        Ok(())
    }
}

fn push_name(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

fn may_enter(dir: BorrowedFd<'_>, name: &[u8]) -> bool {
    let flags = AtFlags::EACCESS | AtFlags::SYMLINK_NOFOLLOW;
    let asked = rustix::fs::accessat(dir, name, Access::READ_OK | Access::EXEC_OK, flags);
    // Any other error, such as that of a kernel before 5.8, which cannot be asked in this way, is no
    // answer: entering will tell.
    asked != Err(Errno::ACCESS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use rustix::fs::Mode;

    use super::*;

    const KINDS: Want = Want {
        stat: false,
        target: false,
        all: false,
        brief: false,
    };

    fn walk(dir: &Path, from: &[u8]) -> (BTreeMap<Vec<u8>, Kind>, u64) {
        let root = Arc::new(Root::open(dir).unwrap());
        let mut tree = Tree::new(root, &VirtualPath::root().join(from)).unwrap();
        let mut found = BTreeMap::new();
        let mut each = |entry: TreeEntry<'_>| {
            assert!(!entry.incomplete);
            if let Some(slash) = memchr::memrchr(b'/', entry.path) {
                assert_eq!(found.get(&entry.path[..slash]), Some(&Kind::Dir));
            }
            assert_eq!(found.insert(entry.path.to_vec(), entry.meta.kind), None);
        };
        while tree.batch(KINDS, &mut each).unwrap() {
            let open = |level: &&Level| matches!(level.dir, Reading::Open(_));
            assert!(tree.levels.iter().filter(open).count() < OPEN_MAX);
        }
        assert!(tree.waiting.is_empty() && tree.path.is_empty());
        (found, tree.left_out())
    }

    fn walk_by_std(dir: &Path, prefix: &[u8], found: &mut BTreeMap<Vec<u8>, Kind>) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let mut path = prefix.to_vec();
            push_name(&mut path, entry.file_name().as_bytes());
            let kind = entry.file_type().unwrap();
            let kind = match (kind.is_dir(), kind.is_symlink()) {
                (true, _) => Kind::Dir,
                (_, true) => Kind::Link,
                _ => Kind::File,
            };
            if kind == Kind::Dir {
                walk_by_std(&entry.path(), &path, found);
            }
            found.insert(path, kind);
        }
    }

    fn equals_std(dir: &Path) {
        let mut expected = BTreeMap::new();
        walk_by_std(dir, b"", &mut expected);
        let (found, left_out) = walk(dir, b"/");
        assert!(
            found == expected,
            "{} against {}",
            found.len(),
            expected.len()
        );
        assert_eq!(left_out, 0);
    }

    #[test]
    fn deep_and_wide() {
        let dir = tempfile::tempdir().unwrap();
        let mut deep = dir.path().to_path_buf();
        for level in 0..300 {
            fs::write(deep.join("f"), b"").unwrap();
            fs::create_dir(deep.join("e")).unwrap();
            deep.push(format!("{level}"));
            fs::create_dir(&deep).unwrap();
        }
        for n in 0..1000 {
            fs::create_dir(dir.path().join(format!("wide {n}"))).unwrap();
            fs::write(dir.path().join(format!("wide {n}/f")), b"").unwrap();
        }
        equals_std(dir.path());
    }

    /// Directories of several batches far above the bottom: each is closed with entries still to
    /// come and has to be taken up again where it was.
    #[test]
    fn closed_levels_go_on_where_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let mut deep = dir.path().to_path_buf();
        for level in 0..100 {
            for n in 0..(if level % 30 == 0 { 400 } else { 5 }) {
                fs::write(deep.join(format!("file {n}")), b"").unwrap();
            }
            deep.push("d");
            fs::create_dir(&deep).unwrap();
        }
        equals_std(dir.path());
    }

    #[test]
    fn links_are_entries_and_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/f"), b"").unwrap();
        for (target, name) in [
            ("..", "a/up"),
            (".", "a/b/self"),
            ("/etc", "a/etc"),
            ("a", "in"),
        ] {
            symlink(target, dir.path().join(name)).unwrap();
        }
        equals_std(dir.path());
        // Only the path to the tree may lead through one.
        let below: Vec<_> = walk(dir.path(), b"in").0.into_keys().collect();
        assert_eq!(below, [&b"b"[..], b"b/f", b"b/self", b"etc", b"up"]);
        let root = Arc::new(Root::open(dir.path()).unwrap());
        for from in [&b"a/etc"[..], b"a/b/f", b"absent"] {
            assert!(Tree::new(root.clone(), &VirtualPath::root().join(from)).is_err());
        }
    }

    #[test]
    fn unprintable_names_are_counted_with_all_below() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a\nb/c", ".haul-1/x", "d/\x07", "d/e"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let (found, left_out) = walk(dir.path(), b"/");
        assert!(found.keys().eq([&b"d"[..], b"d/e"]));
        assert_eq!(left_out, 2);
    }

    #[test]
    fn paths_nobody_could_open_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let name = "n".repeat(254);
        let mut at = rustix::fs::open(dir.path(), OFlags::PATH, Mode::empty()).unwrap();
        for _ in 0..18 {
            rustix::fs::mkdirat(&at, name.as_str(), Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, name.as_str(), OFlags::PATH, Mode::empty()).unwrap();
        }
        // 16 names and the 15 slashes between them are 4,079 bytes.
        let (found, left_out) = walk(dir.path(), b"/");
        assert_eq!((found.len(), left_out), (16, 1));
        let (found, left_out) = walk(dir.path(), name.as_bytes());
        assert_eq!((found.len(), left_out), (15, 1));
    }

    #[test]
    fn what_vanishes_or_turns_into_a_link_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["gone", "turned", "stays"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("f"), b"").unwrap();
        }
        let root = Arc::new(Root::open(dir.path()).unwrap());
        let mut tree = Tree::new(root, &VirtualPath::root()).unwrap();
        assert!(tree.batch(KINDS, &mut |_| {}).unwrap());
        fs::remove_dir_all(dir.path().join("gone")).unwrap();
        fs::remove_dir_all(dir.path().join("turned")).unwrap();
        symlink("stays", dir.path().join("turned")).unwrap();
        let mut paths = Vec::new();
        while tree
            .batch(KINDS, &mut |entry| paths.push(entry.path.to_vec()))
            .unwrap()
        {}
        assert_eq!(paths, [b"stays/f"]);
        assert_eq!(tree.left_out(), 2);
    }

    #[test]
    fn a_closed_level_that_was_replaced_is_not_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a").join("d/".repeat(40))).unwrap();
        let root = Arc::new(Root::open(dir.path()).unwrap());
        let mut tree = Tree::new(root, &VirtualPath::root()).unwrap();
        while tree.levels.len() < 40 {
            assert!(tree.batch(KINDS, &mut |_| {}).unwrap());
        }
        fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
        fs::create_dir_all(dir.path().join("a/other")).unwrap();
        let mut each = |entry: TreeEntry<'_>| assert!(!entry.path.ends_with(b"other"));
        while tree.batch(KINDS, &mut each).unwrap() {}
        assert!(tree.left_out() > 0);
    }
}
