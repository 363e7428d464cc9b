//! Files of this machine: what uploads read, and the names that copies get.
//!
//! A name from a server never leads out of the directory that the user chose: only plain components
//! are taken from it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rustix::fs::OFlags;

use crate::proto::upload::UploadFacts;

use super::error::Error;
use super::incoming::random_name;

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

/// The directory that the variable `base` names, or else `below` the home directory; `None`: neither
/// is known. A relative path counts as none, as the XDG base directory specification wants it.
pub fn user_dir(base: &str, below: &str) -> Option<PathBuf> {
    let of = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    of(base).or_else(|| Some(of("HOME")?.join(below)))
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

impl Source {
    /// Back to its beginning.
    ///
    /// # Errors
    /// It has none.
    pub fn rewind(&mut self) -> Result<(), Error> {
        self.file.rewind().map_err(|e| Error::local(&e))
    }
}

/// Looks whether [`source`] will do, without disturbing a pipe: whoever writes into one dies when
/// its only reader goes away.
///
/// # Errors
/// As [`source`].
pub fn check_source(path: &Path) -> Result<(), Error> {
    let meta = fs::metadata(path).map_err(|e| Error::local(&e))?;
    match meta.is_file() {
        true => source(path, true).map(drop),
        false => no_directory(&meta),
    }
}

fn no_directory(meta: &fs::Metadata) -> Result<(), Error> {
    match meta.is_dir() {
        true => Err(Error::usage(
            "it is a directory; -r sends it with all that is in it",
        )),
        false => Ok(()),
    }
}

/// Opens a file to be uploaded.
///
/// # Errors
/// It cannot be read, is a directory, or is a link that is not to be followed.
pub fn source(path: &Path, follows: bool) -> Result<Source, Error> {
    let open = || {
        let mut options = OpenOptions::new();
        if !follows {
            // Nor does it wait for whoever has the other end of a pipe that was a file before.
            options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
        }
        let file = options.read(true).open(path)?;
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

/// Copies `source` to a file without a name and returns it, rewound, with its length.
///
/// # Errors
/// Reading or writing fails.
pub fn spooled(source: &mut dyn Read) -> Result<(File, u64), Error> {
    let mut spool = || {
        let path = std::env::temp_dir().join(random_name(OsStr::new("stdin")));
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
    use crate::client::error::Exit;

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

    #[test]
    fn sources() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(source(dir.path(), true).err().unwrap().exit, Exit::Usage);
        let missing = source(&dir.path().join("none"), true);
        assert_eq!(missing.err().unwrap().exit, Exit::Local);
        let path = dir.path().join("a");
        fs::write(&path, "12345").unwrap();
        let found = source(&path, false).ok().unwrap();
        assert_eq!(found.bytes_min, 5);
        assert!(found.facts.modify_s.is_some() && found.facts.mode.is_some());
        let (mut file, bytes) = spooled(&mut &b"abc"[..]).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), bytes), ("abc", 3));
    }
}
