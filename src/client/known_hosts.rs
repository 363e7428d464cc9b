//! The certificates that somebody has decided to trust, one line per host and port:
//! `example.org:21 AA:BB:...`. Lines that begin with `#` and empty ones are left alone.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::fingerprint::Fingerprint;
use crate::text::plain;

/// The file.
#[derive(Debug, Clone)]
pub struct KnownHosts {
    path: PathBuf,
}

/// What the file says about a host.
#[derive(Debug, PartialEq, Eq)]
pub enum Remembered {
    /// Nothing.
    Nothing,
    /// It had another certificate; this line says so.
    Another(usize),
    /// It is known by this certificate.
    This,
}

impl KnownHosts {
    /// The file at `path`, which need not be there.
    pub fn new(path: PathBuf) -> KnownHosts {
        KnownHosts { path }
    }

    /// The user's own: `haul/known_hosts` below `$XDG_CONFIG_HOME` or `~/.config`. `None` without a
    /// home.
    pub fn of_user() -> Option<KnownHosts> {
        super::bookmarks::config_file("known_hosts").map(KnownHosts::new)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether `host` is known by `certificate`.
    ///
    /// # Errors
    /// The file cannot be read, or not what it says about the host.
    pub fn find(&self, host: &str, certificate: Fingerprint) -> Result<Remembered, String> {
        let mut found = Remembered::Nothing;
        for (line, remembered) in self.lines_of(host)? {
            let remembered: Fingerprint = remembered.parse().map_err(|_| {
                let path = self.path.display();
                format!("line {line} of {path} is about this server, but holds no fingerprint: remove it")
            })?;
            if remembered == certificate {
                return Ok(Remembered::This);
            }
            if found == Remembered::Nothing {
                found = Remembered::Another(line);
            }
        }
        Ok(found)
    }

    /// The first line about `host`, whatever it says.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn line_of(&self, host: &str) -> Result<Option<usize>, String> {
        let lines = self.lines_of(host)?;
        Ok(lines.first().map(|(line, _)| *line))
    }

    /// The lines about `host`: their numbers, and what they say its certificate is.
    fn lines_of(&self, host: &str) -> Result<Vec<(usize, String)>, String> {
        let bytes = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.map_err(|error| {
                format!("cannot read {}: {}", self.path.display(), plain(&error))
            })?,
        };
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().enumerate().filter_map(|(at, line)| {
            let (name, certificate) = line.trim().split_once(char::is_whitespace)?;
            let is_host = name.eq_ignore_ascii_case(host);
            is_host.then(|| (at + 1, certificate.trim().to_owned()))
        });
        Ok(lines.collect())
    }

    /// Adds a line, and the file if it is not there yet.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn remember(&self, host: &str, certificate: Fingerprint) -> io::Result<()> {
        if let Some(dir) = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let ends_within_a_line = match fs::read(&self.path) {
            Ok(bytes) => bytes.last().is_some_and(|&last| last != b'\n'),
            Err(_) => false,
        };
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.path)?;
        let begin = if ends_within_a_line { "\n" } else { "" };
        let host = host.to_ascii_lowercase();
        // In one call, so that two programs at once do not mix their lines.
        file.write_all(format!("{begin}{host} {certificate}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_remembered_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let known = KnownHosts::new(dir.path().join("a/b/known_hosts"));
        let (one, other) = (Fingerprint::of(b"one"), Fingerprint::of(b"other"));
        assert_eq!(known.find("h:21", one), Ok(Remembered::Nothing));
        known.remember("H:21", one).unwrap();
        known.remember("[::1]:990", other).unwrap();
        assert_eq!(known.find("h:21", one), Ok(Remembered::This));
        assert_eq!(known.find("h:21", other), Ok(Remembered::Another(1)));
        assert_eq!(known.find("h:2121", one), Ok(Remembered::Nothing));
        assert_eq!(known.find("[::1]:990", other), Ok(Remembered::This));
        assert_eq!(known.line_of("[::1]:990"), Ok(Some(2)));
        let mode = fs::metadata(known.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_file_may_be_edited() {
        let dir = tempfile::tempdir().unwrap();
        let known = KnownHosts::new(dir.path().join("known_hosts"));
        let (one, other) = (Fingerprint::of(b"one"), Fingerprint::of(b"other"));
        let text = format!("# mine\n\nh:21\t{other}\r\nbad:21 nonsense\nh:21 {one}");
        fs::write(known.path(), text).unwrap();
        assert_eq!(known.find("h:21", one), Ok(Remembered::This));
        assert_eq!(known.find("h:21", other), Ok(Remembered::This));
        let third = Fingerprint::of(b"third");
        assert_eq!(known.find("h:21", third), Ok(Remembered::Another(3)));
        assert!(known.find("bad:21", one).unwrap_err().contains("line 4"));
        known.remember("new:21", third).unwrap();
        assert_eq!(known.find("new:21", third), Ok(Remembered::This));
        assert_eq!(known.find("h:21", one), Ok(Remembered::This));
    }
}
