//! Who may do what. Today that is one kind of user, the anonymous one, at one of three levels.
//!
//! Nothing here knows a verb, a file or a socket.

pub mod password;
pub mod recent;

use crate::proto::facts::Perms;

/// What an operation needs. The bits of [`Permissions`] are these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Being logged in is enough.
    None = 0,
    /// See names, sizes and times.
    List = 1,
    /// Read the content of files.
    Read = 1 << 1,
    /// Store files, replace them, set their times.
    Write = 1 << 2,
    /// Append to a file.
    Append = 1 << 3,
    /// Remove files and directories.
    Delete = 1 << 4,
    /// Rename files and directories.
    Rename = 1 << 5,
    /// Make directories.
    Mkdir = 1 << 6,
    /// Change permission bits.
    Chmod = 1 << 7,
}

/// A set of permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permissions(u8);

impl Permissions {
    /// Listing and reading.
    pub const READ: Permissions = Permissions(Permission::List as u8 | Permission::Read as u8);
    /// Everything.
    pub const ALL: Permissions = Permissions(u8::MAX);

    /// Whether `permission` is in the set.
    pub fn allow(self, permission: Permission) -> bool {
        self.0 & permission as u8 == permission as u8
    }

    /// The letters of the `perm` fact: what this user may do (RFC 3659 section 7.5.5).
    pub fn letters(self) -> Perms {
        use Permission::*;
        let letters = |table: &[(char, Permission)]| {
            table
                .iter()
                .filter(|(_, p)| self.allow(*p))
                .map(|(letter, _)| *letter)
                .collect()
        };
        Perms {
            file: letters(&[
                ('a', Append),
                ('d', Delete),
                ('f', Rename),
                ('r', Read),
                ('w', Write),
            ]),
            dir: letters(&[
                ('c', Write),
                ('d', Delete),
                ('e', None),
                ('f', Rename),
                ('l', List),
                ('m', Mkdir),
                ('p', Delete),
            ]),
        }
    }
}

/// What anonymous sessions may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anonymous {
    /// There are none.
    None,
    /// List and read.
    Read,
    /// Everything.
    Write,
}

impl Anonymous {
    /// The permissions of an anonymous session; `None`: it is not let in.
    pub fn permissions(self) -> Option<Permissions> {
        match self {
            Anonymous::None => None,
            Anonymous::Read => Some(Permissions::READ),
            Anonymous::Write => Some(Permissions::ALL),
        }
    }
}

/// Whether a user name means an anonymous session (RFC 1635).
pub fn is_anonymous(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"anonymous") || name.eq_ignore_ascii_case(b"ftp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_no_letter_that_changes_anything() {
        let perms = Permissions::READ.letters();
        assert_eq!((perms.file.as_str(), perms.dir.as_str()), ("r", "el"));
        let perms = Permissions::ALL.letters();
        assert_eq!(
            (perms.file.as_str(), perms.dir.as_str()),
            ("adfrw", "cdeflmp")
        );
    }

    #[test]
    fn levels() {
        assert_eq!(Anonymous::None.permissions(), None);
        assert!(!Permissions::READ.allow(Permission::Write));
        assert!(Permissions::READ.allow(Permission::None));
        assert!(is_anonymous(b"FTP") && is_anonymous(b"anonymous") && !is_anonymous(b"root"));
    }
}
