//! A download that is not whole yet: a temporary file beside the name that it will get.
//!
//! Where it is known beforehand which version of the remote file is coming, the temporary name says
//! so, and a large one that broke off stays: the next attempt finds it by that name and goes on.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, FlockOperation, flock, renameat, symlinkat};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::proto::upload::hex;

use super::dir::Dir;
use super::error::{Error, Exit};
use super::interrupt;

/// The longest name that file systems take.
const NAME_BYTES_MAX: usize = 255;
/// What marks a temporary name.
const MARK: &str = ".haul-part-";
/// Less than this is sooner sent again than asked about.
pub const KEPT_BYTES_MIN: u64 = 1 << 20;

/// Which version of which remote file is coming.
#[derive(Debug, Clone, Copy)]
pub struct Version<'a> {
    /// Server and path.
    pub of: (&'a str, &'a [u8]),
    /// Its length.
    pub bytes: u64,
    /// Its time of last modification.
    pub modify_s: i64,
}

/// Dropped without [`Incoming::publish`], it leaves nothing, nor does it when a signal ends the
/// program; but a large one whose version is known stays.
pub struct Incoming {
    dir: Dir,
    file: File,
    temporary: OsString,
    name: OsString,
    replaces: bool,
    is_kept: bool,
    is_published: bool,
    /// So many bytes were there already.
    pub begins_at: u64,
}

/// Whether something that is there is in the way of a download that will be `name`. With
/// `replaces` it may take the place of a regular file or a link.
///
/// # Errors
/// It is in the way, or the directory cannot be read.
pub fn check_free(dir: &Dir, name: &OsStr, replaces: bool) -> Result<(), Error> {
    let Some(stat) = dir.stat(name).map_err(|e| Error::local(&e))? else {
        return Ok(());
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Err(Error::new(
            Exit::Local,
            "a directory of that name is in the way",
        )),
        _ if !replaces => Err(taken()),
        FileType::RegularFile | FileType::Symlink => Ok(()),
        _ => Err(Error::new(
            Exit::Local,
            "it is a device or a pipe; write to standard output (-) and redirect it",
        )),
    }
}

impl Incoming {
    /// Begins a file that will be `name`, or goes on with what there is of this version of it.
    ///
    /// # Errors
    /// The name is taken, the directory cannot be written, or somebody else is at it.
    pub fn create(
        dir: &Dir,
        name: &OsStr,
        replaces: bool,
        version: Option<Version>,
    ) -> Result<Incoming, Error> {
        check_free(dir, name, replaces)?;
        let is_kept = version.is_some_and(|version| version.bytes >= KEPT_BYTES_MIN);
        let (temporary, file) = match version {
            Some(version) => continued(dir, name, version, is_kept)?,
            None => fresh(dir, name)?,
        };
        let mut incoming = Incoming {
            dir: dir.clone(),
            file,
            temporary,
            name: name.to_owned(),
            replaces,
            is_kept,
            is_published: false,
            begins_at: 0,
        };
        if let Some(version) = version {
            let there = incoming.file.metadata().map_err(|e| Error::local(&e))?;
            if is_kept && there.len() <= version.bytes {
                incoming.begins_at = there.len();
                let end = incoming.file.seek(SeekFrom::End(0));
                end.map_err(|e| Error::local(&e))?;
            } else if there.len() > 0 {
                incoming.start_over()?;
            }
        }
        Ok(incoming)
    }

    /// What is there is of no use.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn start_over(&mut self) -> Result<(), Error> {
        let mut cut = || {
            self.file.set_len(0)?;
            self.file.rewind()
        };
        cut().map_err(|e: io::Error| Error::local(&e))?;
        self.begins_at = 0;
        Ok(())
    }

    /// What has come is not what was wanted: nothing of it stays.
    pub fn discard(&mut self) {
        self.is_kept = false;
    }

    /// The file from its beginning, for whoever compares. Only reading behind it makes sense.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn content(&mut self) -> Result<&mut impl Read, Error> {
        self.file.rewind().map_err(|e| Error::local(&e))?;
        Ok(&mut self.file)
    }

    /// Gives the file its time, its permissions (those of the file it replaces, or the usual ones,
    /// if not said) and its name, in this order.
    ///
    /// # Errors
    /// Somebody else has taken the name, or the file system refuses.
    pub fn publish(mut self, modify_s: Option<i64>, mode: Option<u32>) -> Result<(), Error> {
        let finish = |this: &Incoming| -> io::Result<()> {
            let mode = match mode {
                Some(mode) => mode & 0o777,
                None => {
                    let old = this.dir.stat(&this.name)?.filter(|stat| {
                        this.replaces
                            && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
                    });
                    old.map_or(0o666 & !umask(), |stat| stat.st_mode & 0o777)
                }
            };
            this.file
                .set_permissions(fs::Permissions::from_mode(mode))?;
            if let Some(time) = modify_s.and_then(moment) {
                this.file.set_modified(time)?;
            }
            match this.replaces {
                true => Ok(renameat(&this.dir, &this.temporary, &this.dir, &this.name)?),
                false => rename_to_free(&this.dir, &this.temporary, &this.name),
            }
        };
        match finish(&self) {
            Ok(()) => {
                self.is_published = true;
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                self.discard();
                Err(taken())
            }
            Err(e) => Err(Error::local(&e)),
        }
    }
}

/// A name that nobody has, made anew.
fn fresh(dir: &Dir, name: &OsStr) -> Result<(OsString, File), Error> {
    loop {
        let temporary = random_name(name);
        match interrupt::create(dir, &temporary, None, || dir.open_file(&temporary, true)) {
            Ok(file) => {
                // Without the lock it would pass for what nobody wants any more.
                let locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
                if locked != Err(Errno::WOULDBLOCK) && is_there(dir, &temporary, &file)? {
                    return Ok((temporary, file));
                }
                interrupt::forget(dir, &temporary);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Error::local(&e).about("cannot create a file there")),
        }
    }
}

/// A temporary name that nobody can guess.
pub fn random_name(name: &OsStr) -> OsString {
    let tag = format!("{:016x}", RandomState::new().hash_one(0));
    temporary_name(name.as_bytes(), &tag)
}

/// Makes a link to `to` in one step, in the place of whatever file has the name.
///
/// # Errors
/// As of symlink and rename; what had the name still has it.
pub fn put_link(dir: &Dir, name: &OsStr, to: &Path) -> io::Result<()> {
    let temporary = random_name(name);
    symlinkat(to, dir, &temporary)?;
    Ok(renameat(dir, &temporary, dir, name).inspect_err(|_| {
        let _ = dir.remove_file(&temporary);
    })?)
}

/// The name of that version, with what an earlier attempt has left.
fn continued(
    dir: &Dir,
    name: &OsStr,
    version: Version,
    is_kept: bool,
) -> Result<(OsString, File), Error> {
    let mut digest = Sha256::new();
    digest.update(version.of.0);
    digest.update([0]);
    digest.update(version.of.1);
    digest.update([0]);
    digest.update(version.bytes.to_le_bytes());
    digest.update(version.modify_s.to_le_bytes());
    let temporary = temporary_name(name.as_bytes(), &hex(&digest.finalize()[..8]));
    let open = || dir.open_file(&temporary, false);
    loop {
        let kept = is_kept.then_some(name);
        let opened = interrupt::create(dir, &temporary, kept, open);
        let file = opened.map_err(|e| Error::local(&e).about("cannot create a file there"))?;
        let meta = file.metadata().map_err(|e| Error::local(&e))?;
        if !meta.is_file() || meta.nlink() > 1 || meta.uid() != rustix::process::geteuid().as_raw()
        {
            // Planted by somebody. One with a name that nobody can guess will do.
            interrupt::forget(dir, &temporary);
            return fresh(dir, name);
        }
        // Any other error is that of a file system without locks: then as before there were any.
        if flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            interrupt::forget(dir, &temporary);
            return Err(Error::new(
                Exit::Local,
                "another haul is downloading it at this moment",
            ));
        }
        if is_there(dir, &temporary, &file)? {
            return Ok((temporary, file));
        }
        // Whoever had the lock has given the file its name in between.
        interrupt::forget(dir, &temporary);
    }
}

/// Whether the file still has that name.
fn is_there(dir: &Dir, name: &OsStr, file: &File) -> Result<bool, Error> {
    let ask = || {
        let there = dir.stat(name)?;
        let ino = file.metadata()?.ino();
        Ok(there.is_some_and(|stat| stat.st_ino == ino))
    };
    ask().map_err(|e: io::Error| Error::local(&e))
}

impl Write for Incoming {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let stays = self.is_kept && self.file.metadata().is_ok_and(|meta| meta.len() > 0);
        match (self.is_published, stays) {
            (true, _) => {}
            (false, true) => interrupt::stays(&self.name),
            (false, false) => drop(self.dir.remove_file(&self.temporary)),
        }
        interrupt::forget(&self.dir, &self.temporary);
    }
}

fn taken() -> Error {
    Error::new(
        Exit::Local,
        "a local file of that name exists already; --force replaces it",
    )
}

/// `.NAME.haul-part-0123456789abcdef`, shortened where NAME leaves no room for the rest.
fn temporary_name(name: &[u8], tag: &str) -> OsString {
    let room = NAME_BYTES_MAX - 1 - MARK.len() - tag.len();
    let mut bytes = vec![b'.'];
    bytes.extend_from_slice(&name[..name.len().min(room)]);
    bytes.extend_from_slice(MARK.as_bytes());
    bytes.extend_from_slice(tag.as_bytes());
    OsString::from_vec(bytes)
}

/// Whether a name looks like that of a temporary file of this program. Such files are not part of
/// any tree.
pub fn is_temporary(name: &[u8]) -> bool {
    of_temporary(name).is_some()
}

/// The name that such a file is to get, or the beginning of one that is too long.
pub fn of_temporary(name: &[u8]) -> Option<&[u8]> {
    let at = memchr::memmem::rfind(name, MARK.as_bytes())?;
    let tag = &name[at + MARK.len()..];
    let is_tag = tag.len() == 16 && tag.iter().all(u8::is_ascii_hexdigit);
    name[..at].strip_prefix(b".").filter(|_| is_tag)
}

fn moment(seconds: i64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

fn umask() -> u32 {
    // It can only be read by setting it, so it is done once: other threads make files.
    static UMASK: OnceLock<u32> = OnceLock::new();
    *UMASK.get_or_init(|| {
        let mask = rustix::process::umask(rustix::fs::Mode::empty());
        rustix::process::umask(mask);
        #[allow(clippy::useless_conversion, reason = "it is 16 bits on macOS")]
        u32::from(mask.bits())
    })
}

/// Renames, unless the new name is taken, in one step.
fn rename_to_free(dir: &Dir, from: &OsStr, to: &OsStr) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    {
        use rustix::fs::{RenameFlags, renameat_with};
        match renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            done => return Ok(done?),
        }
    }
    rustix::fs::linkat(dir, from, dir, to, AtFlags::empty())?;
    dir.remove_file(from)
}

/// The directory and the name of a path that the user wrote.
///
/// # Errors
/// The directory is not there, or the path ends in none.
pub fn parent_of(path: &Path) -> Result<(Dir, OsString), Error> {
    let name = path
        .file_name()
        .ok_or_else(|| Error::new(Exit::Local, "a directory of that name is in the way"))?;
    let dir = Dir::open(path.parent().unwrap_or(Path::new("")));
    let dir = dir.map_err(|e| e.about("cannot create a file there"))?;
    Ok((dir, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::remains::{Remains, has_remains};
    use super::*;

    fn create(path: &Path, replaces: bool) -> Result<Incoming, Error> {
        let (dir, name) = parent_of(path)?;
        Incoming::create(&dir, &name, replaces, None)
    }

    fn write(path: &Path, replaces: bool, content: &[u8]) -> Result<(), Error> {
        let mut incoming = create(path, replaces)?;
        incoming.write_all(content).unwrap();
        incoming.publish(Some(1_769_860_800), None)
    }

    #[test]
    fn a_download_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut incoming = create(&path, false).unwrap();
        incoming.write_all(b"half").unwrap();
        assert!(!path.exists());
        drop(incoming);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        write(&path, false, b"whole").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(Some(time), moment(1_769_860_800));
    }

    #[test]
    fn l16_nothing_is_overwritten_without_force() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let late = create(&path, false).unwrap();
        fs::write(&path, "old").unwrap();
        assert_eq!(late.publish(None, None).unwrap_err().exit, Exit::Local);
        assert_eq!(write(&path, false, b"new").unwrap_err().exit, Exit::Local);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        write(&path, true, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn l07_a_planted_link_is_replaced_and_not_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let (outside, path) = (dir.path().join("outside"), dir.path().join("a"));
        fs::write(&outside, "kept").unwrap();
        std::os::unix::fs::symlink(&outside, &path).unwrap();
        assert!(write(&path, false, b"new").is_err());
        write(&path, true, b"new").unwrap();
        assert_eq!(fs::read(&outside).unwrap(), b"kept");
        assert!(!fs::symlink_metadata(&path).unwrap().is_symlink());
        assert_eq!(create(dir.path(), true).err().unwrap().exit, Exit::Local);
    }

    const NEW: Version = Version {
        of: ("server", b"/a"),
        bytes: 2 * KEPT_BYTES_MIN,
        modify_s: 1_769_860_800,
    };

    #[test]
    fn a_large_one_goes_on_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (at, name) = parent_of(&dir.path().join("a")).unwrap();
        let create = |version| Incoming::create(&at, &name, false, Some(version));
        let mut first = create(NEW).unwrap();
        first.write_all(&[b'x'; 1000]).unwrap();
        let second = create(NEW).err().expect("it is locked");
        assert_eq!(second.exit, Exit::Local);
        drop(first);
        assert!(has_remains(&at, &name) && !has_remains(&at, OsStr::new("b")));
        // Another version is another file, and nothing small is kept.
        for (bytes, modify_s) in [(NEW.bytes + 1, 1_769_860_800), (NEW.bytes, 1), (9, 9)] {
            let of = NEW.of;
            let mut other = create(Version {
                of,
                bytes,
                modify_s,
            })
            .unwrap();
            assert_eq!(other.begins_at, 0);
            other.write_all(b"y").unwrap();
            other.discard();
        }
        let mut again = create(NEW).unwrap();
        assert_eq!(again.begins_at, 1000);
        again.write_all(b"end").unwrap();
        again.publish(None, Some(0o640)).unwrap();
        let content = fs::read(dir.path().join("a")).unwrap();
        assert_eq!(content, [&[b'x'; 1000][..], b"end"].concat());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn remains_go_unless_somebody_is_at_them() {
        let dir = tempfile::tempdir().unwrap();
        let (at, name) = parent_of(&dir.path().join("a")).unwrap();
        let (remains, place) = (Remains::default(), b"");
        let left = |name: &str, modify_s| {
            let version = Version { modify_s, ..NEW };
            let mut file = Incoming::create(&at, OsStr::new(name), false, Some(version)).unwrap();
            file.write_all(b"x").unwrap();
            file
        };
        drop(left("a", 1));
        drop(left("b", 1));
        let busy = left("a", 2);
        let fresh = create(&dir.path().join("a"), false).unwrap();
        std::os::unix::fs::symlink("outside", dir.path().join(".a.haul-part-0123456789abcdef"))
            .unwrap();
        let count = || fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(count(), 5);
        remains.clear(&at, place, &name, false);
        assert_eq!(count(), 4, "the one of another version");
        drop((busy, fresh));
        assert_eq!(count(), 3, "one stays");
        drop(left("a", 3));
        remains.clear(&at, place, &name, true);
        assert!(has_remains(&at, OsStr::new("b")));
        assert_eq!(count(), 2, "that of b, and what is no file");
    }

    #[test]
    fn l07_a_planted_temporary_file_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let (at, name) = parent_of(&dir.path().join("a")).unwrap();
        let first = Incoming::create(&at, &name, false, Some(NEW)).unwrap();
        let temporary = dir.path().join(&first.temporary);
        drop(first);
        let outside = dir.path().join("outside");
        fs::write(&outside, "kept").unwrap();
        std::os::unix::fs::symlink(&outside, &temporary).unwrap();
        assert!(Incoming::create(&at, &name, false, Some(NEW)).is_err());
        fs::remove_file(&temporary).unwrap();
        fs::hard_link(&outside, &temporary).unwrap();
        let mut other = Incoming::create(&at, &name, false, Some(NEW)).unwrap();
        other.write_all(b"new").unwrap();
        other.publish(None, None).unwrap();
        assert_eq!(fs::read(&outside).unwrap(), b"kept");
    }

    #[test]
    fn temporary_names_fit() {
        let tag = "0123456789abcdef";
        assert_eq!(temporary_name(&[b'x'; 255], tag).len(), NAME_BYTES_MAX);
        let name = temporary_name(b"a", tag);
        assert_eq!(name.as_bytes(), b".a.haul-part-0123456789abcdef");
        assert!(is_temporary(name.as_bytes()));
        for other in [
            "a",
            ".a.haul-part-",
            "a.haul-part-0123456789abcdef",
            ".a.haul-part-0123456789abcdeg",
        ] {
            assert!(!is_temporary(other.as_bytes()), "{other}");
        }
    }
}
