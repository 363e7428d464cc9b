//! A directory of this machine by its descriptor. Below it only names of one component are used and
//! no link is followed, so that nothing that a server or a neighbour puts there leads out.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, fchmod, fstat,
    futimens, mkdirat, openat, statat, unlinkat,
};
use rustix::io::Errno;

use super::error::{Error, Exit, shown};
use super::local::is_plain_name;

/// An open directory. Cloning it costs no descriptor.
#[derive(Debug, Clone)]
pub struct Dir {
    fd: Arc<OwnedFd>,
}

const OPEN: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

impl Dir {
    /// The directory that the user named; links in that name are the user's own.
    ///
    /// # Errors
    /// It is not there, or is no directory.
    pub fn open(path: &Path) -> Result<Dir, Error> {
        let path = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        };
        let fd = openat(CWD, path, OPEN, Mode::empty());
        let fd = fd.map_err(|e| Error::local(&e.into()))?;
        Ok(Dir { fd: Arc::new(fd) })
    }

    /// Opens the directory `relative`, component by component.
    ///
    /// # Errors
    /// A component is missing, no directory, or a link.
    pub fn below(&self, relative: &[u8]) -> Result<Dir, Error> {
        self.descend(relative, false)
    }

    /// The same, making what is missing.
    ///
    /// # Errors
    /// As [`Dir::below`], or it cannot be made.
    pub fn made_below(&self, relative: &[u8]) -> Result<Dir, Error> {
        self.descend(relative, true)
    }

    fn descend(&self, relative: &[u8], makes: bool) -> Result<Dir, Error> {
        let mut dir = self.clone();
        for name in relative.split(|&b| b == b'/').filter(|n| !n.is_empty()) {
            if !is_plain_name(name) {
                return Err(Error::new(Exit::Local, "its name leads out of the target"));
            }
            let open = |dir: &Dir| {
                let flags = OPEN | OFlags::NOFOLLOW;
                openat(&*dir.fd, OsStr::from_bytes(name), flags, Mode::empty())
            };
            let opened = match open(&dir) {
                Err(Errno::NOENT) if makes => {
                    match mkdirat(
                        &*dir.fd,
                        OsStr::from_bytes(name),
                        Mode::from_raw_mode(0o777),
                    ) {
                        Ok(()) | Err(Errno::EXIST) => open(&dir),
                        Err(e) => Err(e),
                    }
                }
                opened => opened,
            };
            let fd = opened.map_err(|e| match e {
                Errno::NOTDIR | Errno::LOOP => Error::new(
                    Exit::Local,
                    format!(
                        "{} is in the way: it is a file or a link, and no directory",
                        shown(name)
                    ),
                ),
                e => Error::local(&e.into()),
            })?;
            dir = Dir { fd: Arc::new(fd) };
        }
        Ok(dir)
    }

    /// What is there under `name`, links not followed.
    ///
    /// # Errors
    /// Those of the system, but not that nothing is there.
    pub fn stat(&self, name: &OsStr) -> io::Result<Option<Stat>> {
        match statat(&*self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Whether a directory has that name.
    pub fn is_dir(&self, name: &OsStr) -> bool {
        let there = self.stat(name).ok().flatten();
        there.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    /// Opens a file for a temporary name: made if it is missing, never through a link, and without
    /// waiting for whoever has the other end if it is a pipe.
    ///
    /// # Errors
    /// Those of the system.
    pub fn open_file(&self, name: &OsStr, is_new: bool) -> io::Result<File> {
        let mut flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if is_new {
            flags |= OFlags::EXCL;
        }
        let fd = openat(&*self.fd, name, flags, Mode::from_raw_mode(0o600))?;
        Ok(File::from(fd))
    }

    /// Removes a file.
    ///
    /// # Errors
    /// Those of the system.
    pub fn remove_file(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&*self.fd, name, AtFlags::empty())?)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// Those of the system.
    pub fn remove_dir(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&*self.fd, name, AtFlags::REMOVEDIR)?)
    }

    /// Gives the directory itself its permission bits and its time of last modification.
    ///
    /// # Errors
    /// Those of the system.
    pub fn stamp(&self, modify_s: Option<i64>, mode: Option<u32>) -> io::Result<()> {
        if let Some(mode) = mode {
            // What a directory hands down (set-group-ID, sticky) is not the server's to say.
            let kept = fstat(&*self.fd)?.st_mode & 0o7000;
            fchmod(&*self.fd, Mode::from_raw_mode(kept | mode & 0o777))?;
        }
        if let Some(tv_sec) = modify_s {
            let moment = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
            let times = Timestamps {
                last_access: moment(0, UTIME_OMIT),
                last_modification: moment(tv_sec, 0),
            };
            futimens(&*self.fd, &times)?;
        }
        Ok(())
    }

    /// The names in it, but for `.` and `..`.
    ///
    /// # Errors
    /// Those of the system.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&*self.fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if is_plain_name(name) {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        Ok(names)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn l07_no_component_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let (outside, inside) = (dir.path().join("outside"), dir.path().join("inside"));
        fs::create_dir(&outside).unwrap();
        fs::create_dir(&inside).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        fs::write(inside.join("file"), "x").unwrap();
        let root = Dir::open(&inside).unwrap();
        for bad in [
            &b"link"[..],
            b"link/x",
            b"..",
            b"a/../../outside",
            b"file",
            b"file/x",
        ] {
            assert_eq!(
                root.made_below(bad).unwrap_err().exit,
                Exit::Local,
                "{bad:?}"
            );
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert!(root.below(b"new/dir").is_err());
        root.made_below(b"new/dir").unwrap();
        assert!(inside.join("new/dir").is_dir());
        assert!(root.open_file(OsStr::new("link"), false).is_err());
    }
}
