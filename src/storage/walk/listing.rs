//! One directory, batch by batch.

use std::io;
use std::mem::MaybeUninit;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::RawDir;
use rustix::io::Errno;

use super::Want;
use crate::proto::facts::{Kind, Meta};
use crate::storage::path::{has_control_bytes, is_reserved_name};
use crate::storage::root::{kind_of, stat_in};

/// Holds about 250 entries; it is on the stack.
pub(super) const BATCH_BYTES: usize = 8 << 10;
const BRIEF_BATCH_BYTES: usize = 1 << 10;

pub(super) fn batch_bytes(brief: bool) -> usize {
    if brief {
        BRIEF_BATCH_BYTES
    } else {
        BATCH_BYTES
    }
}

/// One directory.
#[derive(Debug)]
pub struct Listing {
    dir: OwnedFd,
    left_out: u64,
    target: Vec<u8>,
}

impl Listing {
    /// Lists `dir` from where it stands.
    pub fn new(dir: OwnedFd) -> Listing {
        Listing {
            dir,
            left_out: 0,
            target: Vec::new(),
        }
    }

    /// Gives some entries to `each`: name, what it is, and where it points. False at the end.
    #[expect(
        clippy::type_complexity,
        reason = "an alias would hide what an entry is made of"
    )]
    pub fn batch(
        &mut self,
        want: Want,
        each: &mut dyn FnMut(&[u8], &Meta, Option<&[u8]>),
    ) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); BATCH_BYTES];
        let (dir, left_out) = (self.dir.as_fd(), &mut self.left_out);
        Ok(read_batch(
            dir,
            &mut buffer[..batch_bytes(want.brief)],
            want,
            left_out,
            &mut self.target,
            each,
        )?)
    }

    /// How many entries are missing so far.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}

/// Reads what one `getdents` gives. False if that is nothing.
#[expect(
    clippy::type_complexity,
    reason = "an alias would hide what an entry is made of"
)]
pub(super) fn read_batch(
    dir: BorrowedFd<'_>,
    buffer: &mut [MaybeUninit<u8>],
    want: Want,
    left_out: &mut u64,
    target: &mut Vec<u8>,
    each: &mut dyn FnMut(&[u8], &Meta, Option<&[u8]>),
) -> Result<bool, Errno> {
    let mut entries = RawDir::new(dir, buffer);
    loop {
        let entry = match entries.next() {
            // ENOENT: the directory was removed meanwhile, so there is nothing more in it.
            None | Some(Err(Errno::NOENT)) => return Ok(false),
            Some(entry) => entry?,
        };
        let name = entry.file_name();
        let bytes = name.to_bytes();
        if matches!(bytes, b"." | b"..") || (is_reserved_name(bytes) && !want.all) {
            // Neither is anybody's entry.
        } else if has_control_bytes(bytes) && !want.all {
            *left_out += 1;
        } else {
            let kind = kind_of(entry.file_type());
            // Not every file system says the kind; then it looks like none of the usual ones.
            let found = if want.stat || kind == Kind::Other {
                stat_in(dir, name)
            } else {
                Ok(Meta::of_kind(kind))
            };
            let found = found.and_then(|meta| {
                let points = want.target && meta.kind == Kind::Link;
                if points {
                    let reuse = std::mem::take(target);
                    *target = rustix::fs::readlinkat(dir, name, reuse)?.into_bytes();
                }
                Ok((meta, points))
            });
            match found {
                Ok((meta, points)) => each(bytes, &meta, points.then_some(target.as_slice())),
                Err(error) if concerns_one_entry(error) => *left_out += 1,
                Err(error) => return Err(error),
            }
        }
        if entries.is_buffer_empty() {
            return Ok(true);
        }
    }
}

/// Whether an entry is merely gone, or something else by now, or out of reach.
pub(super) fn concerns_one_entry(error: Errno) -> bool {
    matches!(
        error,
        Errno::NOENT
            | Errno::NOTDIR
            | Errno::LOOP
            | Errno::INVAL
            | Errno::XDEV
            | Errno::ACCESS
            | Errno::PERM
            | Errno::STALE
            | Errno::NOTCONN
            | Errno::NAMETOOLONG
    )
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::Path;

    use super::*;
    use crate::storage::path::VirtualPath;
    use crate::storage::root::Root;

    const KINDS: Want = Want {
        stat: false,
        target: false,
        all: false,
        brief: false,
    };
    const ALL: Want = Want {
        stat: true,
        target: true,
        all: false,
        brief: false,
    };

    type Found = BTreeMap<Vec<u8>, (Meta, Option<Vec<u8>>)>;

    fn list(dir: &Path, want: Want) -> (Found, usize, u64) {
        let root = Root::open(dir).unwrap();
        let mut listing = Listing::new(root.open_dir(&VirtualPath::root()).unwrap());
        let (mut found, mut batches) = (Found::new(), 0);
        while listing
            .batch(want, &mut |name, meta, target| {
                let entry = (*meta, target.map(<[u8]>::to_vec));
                assert_eq!(
                    found.insert(name.to_vec(), entry),
                    None,
                    "{name:?} came twice"
                );
            })
            .unwrap()
        {
            batches += 1;
        }
        (found, batches, listing.left_out())
    }

    #[test]
    fn many_entries_come_in_several_batches() {
        let dir = tempfile::tempdir().unwrap();
        let expected: BTreeSet<_> = (0..5000)
            .map(|n| format!("file {n}").into_bytes())
            .collect();
        let elsewhere = tempfile::NamedTempFile::new_in(dir.path().parent().unwrap()).unwrap();
        for name in &expected {
            let path = dir.path().join(OsStr::from_bytes(name));
            // A link is cheaper than a file.
            fs::hard_link(elsewhere.path(), path).unwrap();
        }
        let (found, batches, left_out) = list(dir.path(), KINDS);
        assert!(found.keys().eq(&expected));
        assert!(batches > 5, "{batches}");
        assert_eq!(left_out, 0);
    }

    #[test]
    fn entries_are_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let long = "x/".repeat(2000);
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("f"), b"123").unwrap();
        symlink(&long, dir.path().join("l")).unwrap();
        symlink("f", dir.path().join("m")).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        drop(socket);
        for want in [KINDS, ALL] {
            let (found, _, left_out) = list(dir.path(), want);
            let kinds: Vec<_> = found.values().map(|(meta, _)| meta.kind).collect();
            assert_eq!(
                kinds,
                [Kind::Dir, Kind::File, Kind::Link, Kind::Link, Kind::Other]
            );
            let target = |name: &[u8]| found[name].1.as_deref();
            assert_eq!(target(b"l"), want.target.then_some(long.as_bytes()));
            assert_eq!(target(b"m"), want.target.then_some(&b"f"[..]));
            assert_eq!(target(b"f"), None);
            assert_eq!(left_out, 0);
        }
        let std = fs::metadata(dir.path().join("f")).unwrap();
        let ours = list(dir.path(), ALL).0[&b"f"[..]].0;
        assert_eq!((ours.dev, ours.ino, ours.size), (std.dev(), std.ino(), 3));
    }

    #[test]
    fn hidden_names_do_not_count_and_control_bytes_do() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "a\nb",
            "\x1b[2J",
            "\x7f",
            ".haul-0123",
            ".HAUL-x",
            ".haul-\n",
            ".dot",
            " -rf *",
        ] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::create_dir(dir.path().join(OsStr::from_bytes(b"\xff"))).unwrap();
        let (found, _, left_out) = list(dir.path(), KINDS);
        assert!(found.keys().eq([&b" -rf *"[..], b".dot", b"\xff"]));
        assert_eq!(left_out, 3);
    }

    #[test]
    fn a_removed_directory_just_ends() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let mut listing = Listing::new(root.open_dir(&VirtualPath::root().join(b"d")).unwrap());
        fs::remove_dir(dir.path().join("d")).unwrap();
        assert!(
            !listing
                .batch(ALL, &mut |_, _, _| panic!("an entry"))
                .unwrap()
        );
    }
}
