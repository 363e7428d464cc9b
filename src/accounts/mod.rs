//! Who may do what: anonymous sessions at one of three levels, and the users of a file.
//!
//! | module | what it is |
//! |---|---|
//! | [`users`] | the users file, read and checked |
//! | [`field`] | what the values in it can be |
//! | [`edit`] | the users file, changed by `hauld user` |
//! | [`password`] | passwords and their Argon2id hashes |
//! | [`authenticator`] | who gets in: what is checked, counted and answered |
//! | [`throttle`] | how often who has failed |
//! | [`recent`] | who proved a password a moment ago |
//!
//! Nothing here knows a verb, a socket or a thread, and none of it reads the clock. The users file
//! is the only file that is touched.

pub mod authenticator;
pub mod edit;
pub mod field;
pub mod password;
pub mod recent;
pub mod throttle;
pub mod users;

use std::fmt;
use std::ops::BitOr;
use std::str::FromStr;

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
    /// Rename files and directories; to replace one needs Write or Delete as well.
    Rename = 1 << 5,
    /// Make directories.
    Mkdir = 1 << 6,
    /// Change permission bits.
    Chmod = 1 << 7,
}

/// What the permissions are called in a users file and on a command line.
const WORDS: [(&str, Permission); 8] = [
    ("list", Permission::List),
    ("read", Permission::Read),
    ("write", Permission::Write),
    ("append", Permission::Append),
    ("delete", Permission::Delete),
    ("rename", Permission::Rename),
    ("mkdir", Permission::Mkdir),
    ("chmod", Permission::Chmod),
];

/// Words that stand for several.
const SETS: [(&str, Permissions); 2] =
    [("all", Permissions::ALL), ("read-only", Permissions::READ)];

/// A set of permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permissions(u8);

impl BitOr for Permissions {
    type Output = Permissions;

    fn bitor(self, other: Permissions) -> Permissions {
        Permissions(self.0 | other.0)
    }
}

/// `all`, `read-only`, or words with commas between them.
impl FromStr for Permissions {
    type Err = String;

    fn from_str(text: &str) -> Result<Permissions, String> {
        text.split(',').try_fold(Permissions::NONE, |all, word| {
            Ok(all | Permissions::of_word(word.trim())?)
        })
    }
}

/// As [`FromStr`] reads it; `none` for the empty set.
impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((word, _)) = SETS.iter().find(|(_, set)| set == self) {
            return f.write_str(word);
        }
        let words: Vec<&str> = self.words().collect();
        f.write_str(if words.is_empty() { "none" } else { "" })?;
        f.write_str(&words.join(","))
    }
}

impl Permissions {
    /// Nothing but being logged in.
    pub const NONE: Permissions = Permissions(0);
    /// Listing and reading.
    pub const READ: Permissions = Permissions(Permission::List as u8 | Permission::Read as u8);
    /// Everything.
    pub const ALL: Permissions = Permissions(u8::MAX);

    /// Whether `permission` is in the set.
    pub fn allow(self, permission: Permission) -> bool {
        self.0 & permission as u8 == permission as u8
    }

    /// The words of a users file for what is in the set.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        let mine = move |(word, permission)| self.allow(permission).then_some(word);
        WORDS.into_iter().filter_map(mine)
    }

    /// What one word of a users file allows.
    fn of_word(word: &str) -> Result<Permissions, String> {
        let one = WORDS.iter().find(|(name, _)| *name == word);
        let set = SETS.iter().find(|(name, _)| *name == word);
        let found = one.map(|(_, p)| Permissions(*p as u8));
        found.or(set.map(|(_, set)| *set)).ok_or_else(|| {
            let known: Vec<&str> = WORDS.iter().map(|(name, _)| *name).collect();
            format!(
                "{word:?} is no permission; there are {}, and read-only and all for several",
                known.join(", ")
            )
        })
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
    fn words_and_sets_of_permissions() {
        for (text, shown) in [
            ("all", "all"),
            ("list,read", "read-only"),
            ("read-only, write", "list,read,write"),
            ("write,read,read", "read,write"),
            ("list,read,write,append,delete,rename,mkdir,chmod", "all"),
        ] {
            let permissions: Permissions = text.parse().unwrap();
            assert_eq!(permissions.to_string(), shown);
            assert_eq!(shown.parse(), Ok(permissions));
        }
        assert_eq!(Permissions::NONE.to_string(), "none");
        for text in ["", "reads", "Read", "list;read", "admin", "none"] {
            let said = text.parse::<Permissions>().unwrap_err();
            assert!(
                said.contains("is no permission; there are list, read,"),
                "{said}"
            );
        }
    }

    #[test]
    fn levels() {
        assert_eq!(Anonymous::None.permissions(), None);
        assert!(!Permissions::READ.allow(Permission::Write));
        assert!(Permissions::READ.allow(Permission::None));
        assert!(is_anonymous(b"FTP") && is_anonymous(b"anonymous") && !is_anonymous(b"root"));
    }
}
