//! Files of this machine: downloads under a temporary name until they are whole, and the names that
//! copies get.
//!
//! A name from a server never leads out of the directory that the user chose: only a single, plain
//! component is taken from it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::proto::upload::UploadFacts;

use super::error::{Error, Exit};
use super::interrupt;

/// The longest name that file systems take.
const NAME_BYTES_MAX: usize = 255;

/// The last component of a path, if it can be the name of a copy.
pub fn last_component(path: &[u8]) -> Option<&[u8]> {
    let end = path.iter().rposition(|&b| b != b'/')? + 1;
    let name = path[..end].rsplit(|&b| b == b'/').next()?;
    is_plain_name(name).then_some(name)
}

/// Whether `name` is one component that stays in its directory.
pub fn is_plain_name(name: &[u8]) -> bool {
    !name.is_empty() && name != b"." && name != b".." && memchr::memchr2(b'/', 0, name).is_none()
}

/// `dir/name`, for the remote side.
pub fn joined(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = dir.to_vec();
    if !path.is_empty() && !path.ends_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// Bytes as a path of this machine.
pub fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

/// A path's bytes.
pub fn bytes_of(path: &OsStr) -> &[u8] {
    path.as_bytes()
}

/// What an upload reads.
pub struct Source {
    /// Open at its beginning.
    pub file: File,
    /// There are at least so many bytes. 0 says nothing: pipes, devices and the files of /proc.
    pub bytes_min: u64,
    /// What the copy should keep.
    pub facts: UploadFacts,
}

/// Looks whether [`source`] will do, without disturbing a pipe: whoever writes into one dies when
/// its only reader goes away.
///
/// # Errors
/// As [`source`].
pub fn check_source(path: &Path) -> Result<(), Error> {
    let meta = fs::metadata(path).map_err(|e| Error::local(&e))?;
    match meta.is_file() {
        true => source(path).map(drop),
        false => no_directory(&meta),
    }
}

fn no_directory(meta: &fs::Metadata) -> Result<(), Error> {
    match meta.is_dir() {
        true => Err(Error::usage(
            "it is a directory, and uploading directories is not built yet; name the files in it",
        )),
        false => Ok(()),
    }
}

/// Opens a file to be uploaded.
///
/// # Errors
/// It cannot be read, or is a directory.
pub fn source(path: &Path) -> Result<Source, Error> {
    let open = || {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        Ok((file, meta))
    };
    let (file, meta) = open().map_err(|e: io::Error| Error::local(&e))?;
    no_directory(&meta)?;
    if !meta.is_file() {
        return Ok(Source {
            file,
            bytes_min: 0,
            facts: UploadFacts::default(),
        });
    }
    let modified = meta.modified().ok();
    let facts = UploadFacts {
        modify_s: modified
            .and_then(|t| t.duration_since(UNIX_EPOCH).ok())
            .and_then(|d| i64::try_from(d.as_secs()).ok()),
        mode: Some(meta.permissions().mode() & 0o777),
        sha256: None,
    };
    Ok(Source {
        file,
        bytes_min: meta.len(),
        facts,
    })
}

/// A download that is not whole yet. Dropped without [`Incoming::publish`], it leaves nothing, nor
/// does it when a signal ends the program.
pub struct Incoming {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    replaces: bool,
}

impl Incoming {
    /// Begins a file that will be `path`; with `replaces` it may take the place of a regular file.
    ///
    /// # Errors
    /// The name is taken, or the directory cannot be written.
    pub fn create(path: &Path, replaces: bool) -> Result<Incoming, Error> {
        match fs::symlink_metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::local(&e)),
            Ok(meta) if meta.is_dir() => {
                return Err(Error::new(
                    Exit::Local,
                    "a directory of that name is in the way",
                ));
            }
            Ok(_) if !replaces => return Err(taken()),
            Ok(meta) if meta.is_file() || meta.is_symlink() => {}
            Ok(_) => {
                return Err(Error::new(
                    Exit::Local,
                    "it is a device or a pipe; write to standard output (-) and redirect it",
                ));
            }
        }
        let name = path.file_name().unwrap_or_default().as_bytes();
        loop {
            let temporary = path.with_file_name(temporary_name(name));
            // create_new is O_CREAT|O_EXCL, which follows no link either.
            let open = || {
                let mut options = OpenOptions::new();
                options.write(true).create_new(true).mode(0o600);
                options.open(&temporary)
            };
            match interrupt::create(&temporary, open) {
                Ok(file) => {
                    return Ok(Incoming {
                        file,
                        temporary,
                        path: path.to_owned(),
                        replaces,
                    });
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => {
                    return Err(Error::local(&e).about("cannot create a file there"));
                }
            }
        }
    }

    /// Gives the file its time, its permissions and its name, in this order.
    ///
    /// # Errors
    /// Somebody else has taken the name, or the file system refuses.
    pub fn publish(self, modify_s: Option<i64>) -> Result<(), Error> {
        let old = fs::symlink_metadata(&self.path).ok();
        let mode = match old.filter(|meta| self.replaces && meta.is_file()) {
            Some(meta) => meta.permissions().mode() & 0o777,
            None => 0o666 & !umask(),
        };
        let finish = || -> io::Result<()> {
            self.file
                .set_permissions(fs::Permissions::from_mode(mode))?;
            if let Some(time) = modify_s.and_then(moment) {
                self.file.set_modified(time)?;
            }
            match self.replaces {
                true => fs::rename(&self.temporary, &self.path),
                false => rename_to_free(&self.temporary, &self.path),
            }
        };
        match finish() {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(taken()),
            Err(e) => Err(Error::local(&e)),
        }
    }
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
        // Behind a rename there is nothing of that name any more.
        interrupt::remove(&self.temporary);
    }
}

fn taken() -> Error {
    Error::new(
        Exit::Local,
        "a local file of that name exists already; --force replaces it",
    )
}

/// `.NAME.haul-part-1a2b3c4d`, shortened where NAME leaves no room for the rest.
fn temporary_name(name: &[u8]) -> OsString {
    let suffix = format!(".haul-part-{:08x}", RandomState::new().hash_one(0) as u32);
    let room = NAME_BYTES_MAX - 1 - suffix.len();
    let mut bytes = vec![b'.'];
    bytes.extend_from_slice(&name[..name.len().min(room)]);
    bytes.extend_from_slice(suffix.as_bytes());
    OsString::from_vec(bytes)
}

fn moment(seconds: i64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

fn umask() -> u32 {
    // It can only be read by setting it. No other thread makes files.
    let mask = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(mask);
    #[allow(clippy::useless_conversion, reason = "it is 16 bits on macOS")]
    u32::from(mask.bits())
}

/// Renames, unless the new name is taken, in one step.
fn rename_to_free(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            done => return Ok(done?),
        }
    }
    fs::hard_link(from, to)?;
    fs::remove_file(from)
}

/// Copies `source` to a file without a name and returns it, rewound, with its length.
///
/// # Errors
/// Reading or writing fails.
pub fn spooled(source: &mut dyn Read) -> Result<(File, u64), Error> {
    let mut spool = || {
        let path = std::env::temp_dir().join(temporary_name(b"stdin"));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        fs::remove_file(&path)?;
        let bytes = io::copy(source, &mut file)?;
        file.rewind()?;
        Ok((file, bytes))
    };
    spool().map_err(|e: io::Error| Error::local(&e).about("cannot spool standard input"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_copies() {
        let check = |path: &[u8], expected: Option<&[u8]>| {
            assert_eq!(last_component(path), expected, "{path:?}");
        };
        check(b"a", Some(b"a"));
        check(b"/x/a b", Some(b"a b"));
        check(b"x/a//", Some(b"a"));
        check(b"x/\xff", Some(b"\xff"));
        for bad in [&b""[..], b"/", b"..", b"x/..", b"x/.", b"a\0b"] {
            check(bad, None);
        }
        assert_eq!(joined(b"d", b"a"), b"d/a");
        assert_eq!(joined(b"d/", b"a"), b"d/a");
        assert_eq!(joined(b"", b"a"), b"a");
    }

    fn write(path: &Path, replaces: bool, content: &[u8]) -> Result<(), Error> {
        let mut incoming = Incoming::create(path, replaces)?;
        incoming.write_all(content).unwrap();
        incoming.publish(Some(1_769_860_800))
    }

    #[test]
    fn a_download_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut incoming = Incoming::create(&path, false).unwrap();
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
        let late = Incoming::create(&path, false).unwrap();
        fs::write(&path, "old").unwrap();
        assert_eq!(late.publish(None).unwrap_err().exit, Exit::Local);
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
        assert_eq!(
            Incoming::create(dir.path(), true).err().unwrap().exit,
            Exit::Local
        );
    }

    #[test]
    fn temporary_names_fit() {
        assert!(temporary_name(&[b'x'; 255]).len() <= NAME_BYTES_MAX);
        assert!(
            temporary_name(b"a")
                .as_bytes()
                .starts_with(b".a.haul-part-")
        );
    }

    #[test]
    fn sources() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(source(dir.path()).err().unwrap().exit, Exit::Usage);
        let missing = source(&dir.path().join("none"));
        assert_eq!(missing.err().unwrap().exit, Exit::Local);
        let path = dir.path().join("a");
        fs::write(&path, "12345").unwrap();
        let found = source(&path).ok().unwrap();
        assert_eq!(found.bytes_min, 5);
        assert!(found.facts.modify_s.is_some() && found.facts.mode.is_some());
        let (mut file, bytes) = spooled(&mut &b"abc"[..]).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), bytes), ("abc", 3));
    }
}
