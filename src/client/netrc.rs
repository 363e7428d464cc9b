//! Logins from `~/.netrc`, as ftp(1) and curl(1) know it: `machine HOST login NAME password WORD
//! account WORD`, `default` for all other hosts; words may stand in double quotes, where a
//! backslash keeps the next character.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::{Error, Exit, shown};
use super::local::bytes_of;
use super::server::{Secret, one_line};

/// A longer file is something else.
const BYTES_MAX: u64 = 1 << 20;

/// What the file says about one host.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// Who to be.
    pub user: Option<Vec<u8>>,
    /// With which password.
    pub password: Option<Secret>,
    /// For which account, where an old server asks for one.
    pub account: Option<Secret>,
}

/// The user's file: `$NETRC`, or `.netrc` in the home directory.
pub fn of_user() -> Option<PathBuf> {
    let named = std::env::var_os("NETRC").filter(|path| !path.is_empty());
    named.map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        home.filter(|path| path.is_absolute())
            .map(|home| home.join(".netrc"))
    })
}

/// What `path` says about `host`, and about `user` where one is named. A file that is not there says
/// nothing.
///
/// # Errors
/// It cannot be read, or it holds the password and others can read it.
pub fn look_up(path: &Path, host: &str, user: Option<&[u8]>) -> Result<Option<Login>, Error> {
    let name = shown(bytes_of(path.as_os_str()));
    let failed = |error: &std::io::Error| Error::local(error).about(&name);
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|error| failed(&error))?,
    };
    let mode = file.metadata().map_err(|error| failed(&error))?.mode();
    let mut text = Vec::new();
    let read = file.take(BYTES_MAX).read_to_end(&mut text);
    read.map_err(|error| failed(&error))?;
    let login = find(&text, host, user)?;
    let holds_secret = login
        .as_ref()
        .is_some_and(|login| login.password.is_some() || login.account.is_some());
    if holds_secret && mode & 0o077 != 0 {
        return Err(Error::new(
            Exit::Trust,
            format!("{name} holds a password and others can read it; chmod 600 {name}"),
        ));
    }
    Ok(login)
}

/// The first entry that fits.
fn find(text: &[u8], host: &str, user: Option<&[u8]>) -> Result<Option<Login>, Error> {
    let text = [b"\n", text].concat();
    let mut words = Words(&text);
    let mut login: Option<Login> = None;
    let fits = |login: &Login| match (user, &login.user) {
        (Some(wanted), Some(there)) => wanted == there,
        _ => true,
    };
    while let Some(word) = words.next() {
        match word.as_slice() {
            b"machine" | b"default" => {
                if let Some(found) = login.take().filter(fits) {
                    return Ok(Some(found));
                }
                let is_it = word == b"default"
                    || words
                        .next()
                        .is_some_and(|name| name.eq_ignore_ascii_case(host.as_bytes()));
                login = is_it.then(Login::default);
            }
            b"login" => {
                let name = words.next();
                if let Some(login) = &mut login {
                    name.iter()
                        .try_for_each(|it| one_line("a login in .netrc", it))?;
                    login.user = name;
                }
            }
            b"password" => {
                let secret = words.next();
                if let Some(login) = &mut login {
                    login.password = secret.map(Secret::new).transpose()?;
                }
            }
            b"account" => {
                let secret = words.next();
                if let Some(login) = &mut login {
                    login.account = secret.map(Secret::new).transpose()?;
                }
            }
            b"macdef" => words.skip_macro(),
            _ => {}
        }
    }
    Ok(login.filter(fits))
}

struct Words<'a>(&'a [u8]);

impl Words<'_> {
    /// The next word. A line whose first word begins with `#` has none.
    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let start = self.0.iter().position(|b| !b.is_ascii_whitespace())?;
            let (space, rest) = self.0.split_at(start);
            self.0 = rest;
            if rest[0] != b'#' || !space.contains(&b'\n') {
                break;
            }
            self.0 = &rest[memchr::memchr(b'\n', rest)?..];
        }
        let quoted = self.0[0] == b'"';
        let mut rest = self.0[usize::from(quoted)..].iter();
        let mut word = Vec::new();
        while let Some(&byte) = rest.as_slice().first() {
            if !quoted && byte.is_ascii_whitespace() {
                break;
            }
            rest.next();
            match byte {
                b'"' if quoted => break,
                b'\\' if quoted => word.extend(rest.next()),
                byte => word.push(byte),
            }
        }
        self.0 = rest.as_slice();
        Some(word)
    }

    /// A macro ends with an empty line.
    fn skip_macro(&mut self) {
        let end = memchr::memmem::find(self.0, b"\n\n");
        self.0 = end.map_or(&[], |end| &self.0[end..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"# machine a.org login nobody\n\
        machine a.org login anna password s3cret\n\
        machine b.org\n\tlogin \"b b\"\n\tpassword \"quo\\\"te\" account x\n\
        macdef init\nmachine m.org login wrong\n\n\
        machine a.org login otto password #1\n\
        default login anonymous password me@home\n";

    #[track_caller]
    fn check(host: &str, user: Option<&str>, expected: Option<(&str, &str)>) {
        let found = find(TEXT, host, user.map(str::as_bytes)).unwrap();
        let secret = |word: &str| Secret::new(word.into()).unwrap();
        let expected = expected.map(|(user, password)| Login {
            user: Some(user.into()),
            password: Some(secret(password)),
            account: (host == "b.org").then(|| secret("x")),
        });
        assert_eq!(found, expected, "{host} {user:?}");
    }

    #[test]
    fn the_first_entry_that_fits() {
        check("a.org", None, Some(("anna", "s3cret")));
        check("A.ORG", Some("otto"), Some(("otto", "#1")));
        check("b.org", None, Some(("b b", "quo\"te")));
        check("m.org", None, Some(("anonymous", "me@home")));
        check("a.org", Some("hans"), None);
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let text = b"machine h login \"a\nb\" password x";
        assert_eq!(find(text, "h", None).unwrap_err().exit, Exit::Usage);
        assert_eq!(find(b"machine", "h", None).unwrap(), None);
        assert_eq!(find(b"", "h", None).unwrap(), None);
    }

    #[test]
    fn others_must_not_read_a_password() {
        use std::fs;
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("netrc");
        assert_eq!(look_up(&path, "a.org", None).unwrap(), None);
        fs::write(&path, TEXT).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = look_up(&path, "a.org", None).unwrap_err();
        assert_eq!(error.exit, Exit::Trust);
        assert!(!error.to_string().contains("s3cret"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(look_up(&path, "a.org", None).unwrap().is_some());
    }
}
