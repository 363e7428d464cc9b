//! The users file, read and checked.
//!
//! ```toml
//! [users.anna]
//! password = "$argon2id$v=19$m=19456,t=2,p=1$..."   # hauld user passwd anna
//! home = "/anna"                      # below the directory that is served; default: /
//! permissions = ["list", "read"]      # and write, append, delete, rename, mkdir, chmod; or "all",
//!                                     # "read-only"; default: "all"
//! quota_bytes = "10GiB"               # what her home may hold; default: no limit
//! quota_files = 100000
//! rate_bytes_per_s = "20MiB"          # all her sessions together; default: no limit
//! session_rate_bytes_per_s = "5MiB"   # each of them
//! networks = ["192.0.2.0/24", "::1"]  # where she may log in from; default: anywhere
//! certificates = ["3A:0F:..."]        # SHA-256 of client certificates that stand for the password
//! locked = false                      # true: she may not log in
//! ```
//!
//! A file with anything wrong in it is refused as a whole, with the line: a server that starts, or
//! goes on after a reload, has found every value in it possible. No message shows a hash.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::Permissions;
use super::field::{Home, Name, Network};
use super::password::{Cost, Hash};
use crate::fingerprint::Fingerprint;
use crate::storage::path::VirtualPath;
use crate::storage::quota::Amount;
use crate::text::Bytes;

/// More than any real file has; it bounds what a wrong `--users` can make the server read.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Somebody who may log in, perhaps.
#[derive(Debug, Clone)]
pub struct User {
    /// The name, as USER gives it.
    pub name: Name,
    /// What the password is checked against.
    pub hash: Arc<Hash>,
    /// What the user sees as `/`.
    pub home: VirtualPath,
    /// What the user may do.
    pub permissions: Permissions,
    /// What the home may hold; `u64::MAX` for no limit.
    pub quota: Amount,
    /// For all sessions of the user together.
    pub rate_bytes_per_s: Option<u64>,
    /// For each session of the user.
    pub session_rate_bytes_per_s: Option<u64>,
    /// Where the user may log in from; empty: anywhere.
    pub networks: Vec<Network>,
    /// Who proves to have the key of one of these needs no password. What else a certificate says,
    /// and until when, does not matter: it was put here by hand, and is taken away by hand.
    pub certificates: Vec<Fingerprint>,
    /// Nobody gets in under this name.
    pub locked: bool,
}

impl User {
    /// A user without limits.
    pub fn new(name: Name, hash: Hash) -> User {
        User {
            name,
            hash: Arc::new(hash),
            home: VirtualPath::root(),
            permissions: Permissions::ALL,
            quota: Amount::MAX,
            rate_bytes_per_s: None,
            session_rate_bytes_per_s: None,
            networks: Vec::new(),
            certificates: Vec::new(),
            locked: false,
        }
    }

    /// Whether the right password is enough, coming from `address`.
    pub fn may_come_from(&self, address: IpAddr) -> bool {
        let here = |network: &Network| network.contains(address);
        !self.locked && (self.networks.is_empty() || self.networks.iter().any(here))
    }
}

/// All users.
#[derive(Debug, Clone)]
pub struct Users {
    by_name: HashMap<Name, Arc<User>>,
    decoy: Arc<Hash>,
    warnings: Vec<String>,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    users: BTreeMap<Name, WrittenUser>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenUser {
    password: Hash,
    home: Option<Home>,
    permissions: Option<Permissions>,
    quota_bytes: Option<Bytes>,
    quota_files: Option<u64>,
    rate_bytes_per_s: Option<Rate>,
    session_rate_bytes_per_s: Option<Rate>,
    networks: Option<Networks>,
    #[serde(default)]
    certificates: Vec<Fingerprint>,
    #[serde(default)]
    locked: bool,
}

#[derive(Deserialize)]
#[serde(try_from = "Bytes")]
struct Rate(u64);

impl TryFrom<Bytes> for Rate {
    type Error = &'static str;

    fn try_from(rate: Bytes) -> Result<Rate, &'static str> {
        match rate.0 {
            0 => Err("a rate of 0 would let nothing through; leave it out for no limit"),
            rate => Ok(Rate(rate)),
        }
    }
}

#[derive(Deserialize)]
#[serde(try_from = "Vec<Network>")]
struct Networks(Vec<Network>);

impl TryFrom<Vec<Network>> for Networks {
    type Error = &'static str;

    fn try_from(networks: Vec<Network>) -> Result<Networks, &'static str> {
        match networks.is_empty() {
            true => {
                Err("an empty list of networks lets nobody in; leave it out, or say locked = true")
            }
            false => Ok(Networks(networks)),
        }
    }
}

impl Users {
    /// Reads the text of a users file.
    ///
    /// # Errors
    /// The first thing that is wrong, and its line.
    pub fn parse(text: &str) -> Result<Users, UsersError> {
        let written: Written =
            toml::from_str(text).map_err(|error| UsersError::in_text(text, &error))?;
        let users = written.users.into_iter().map(|(name, user)| User {
            home: user.home.map_or(VirtualPath::root(), |home| home.0),
            permissions: user.permissions.unwrap_or(Permissions::ALL),
            quota: Amount {
                bytes: user.quota_bytes.map_or(u64::MAX, |bytes| bytes.0),
                files: user.quota_files.unwrap_or(u64::MAX),
            },
            rate_bytes_per_s: user.rate_bytes_per_s.map(|rate| rate.0),
            session_rate_bytes_per_s: user.session_rate_bytes_per_s.map(|rate| rate.0),
            networks: user.networks.map_or(Vec::new(), |networks| networks.0),
            certificates: user.certificates,
            locked: user.locked,
            ..User::new(name, user.password)
        });
        Users::of(users.collect())
    }

    /// Reads a users file.
    ///
    /// # Errors
    /// It cannot be read, anybody may write it, or [`Users::parse`] refuses it.
    pub fn load(path: &Path) -> Result<Users, UsersError> {
        let load = || {
            let file = File::open(path).map_err(UsersError::reading)?;
            let metadata = file.metadata().map_err(UsersError::reading)?;
            let mode = metadata.permissions().mode();
            if !metadata.is_file() {
                return Err(UsersError::new("this is no file"));
            }
            if mode & 0o002 != 0 {
                return Err(UsersError::new(
                    "anybody may write it, and so make users; chmod 600 ends that",
                ));
            }
            let mut bytes = Vec::new();
            let mut limited = file.take(FILE_BYTES_MAX + 1);
            limited
                .read_to_end(&mut bytes)
                .map_err(UsersError::reading)?;
            if bytes.len() as u64 > FILE_BYTES_MAX {
                return Err(UsersError::new("it is over 64 MiB"));
            }
            let text = str::from_utf8(&bytes).map_err(|error| UsersError {
                line: Some(line_of(&bytes, error.valid_up_to())),
                ..UsersError::new("this is not UTF-8")
            })?;
            let mut users = Users::parse(text)?;
            if mode & 0o004 != 0 {
                users.warnings.push(format!(
                    "anybody on this machine may read {}, and try passwords against its hashes; \
                     chmod 600 ends that",
                    path.display()
                ));
            }
            Ok(users)
        };
        load().map_err(|error: UsersError| error.of_file(path))
    }

    /// Users that were made in another way; of two with the same name, the last.
    ///
    /// # Errors
    /// Never, while [`Hash::parse`] keeps its promise about the cost.
    pub fn of(users: Vec<User>) -> Result<Users, UsersError> {
        let mut costs: HashMap<Cost, usize> = HashMap::new();
        for user in &users {
            *costs.entry(user.hash.cost()).or_default() += 1;
        }
        let of_most = |(cost, n): (&Cost, &usize)| (*n, cost.memory_kib, cost.passes, cost.lanes);
        let most = costs.iter().max_by_key(|(cost, n)| of_most((cost, n)));
        let decoy = Hash::decoy(most.map_or(Cost::DEFAULT, |(cost, _)| *cost));
        let mut warnings = Vec::new();
        if costs.len() > 1 {
            warnings.push(
                "the hashes of the users differ in cost, so that the time of a refusal tells some \
                 of the names; `hauld user passwd` makes new ones"
                    .to_string(),
            );
        }
        let named = |user: User| (user.name.clone(), Arc::new(user));
        Ok(Users {
            by_name: users.into_iter().map(named).collect(),
            decoy: Arc::new(decoy.map_err(UsersError::new)?),
            warnings,
        })
    }

    /// The user of that name. Names are compared byte by byte.
    pub fn find(&self, name: &[u8]) -> Option<&Arc<User>> {
        self.by_name.get(str::from_utf8(name).ok()?)
    }

    /// What is checked where there is no user: a hash of no password, at the cost that most hashes
    /// of the file have.
    pub fn decoy(&self) -> &Arc<Hash> {
        &self.decoy
    }

    /// All of them, by name.
    pub fn sorted(&self) -> Vec<&Arc<User>> {
        let mut users: Vec<_> = self.by_name.values().collect();
        users.sort_by(|a, b| a.name.cmp(&b.name));
        users
    }

    /// The homes that have a limit. It holds for all who have the same home; where they have
    /// different ones, the smallest does.
    pub fn quotas(&self) -> impl Iterator<Item = (VirtualPath, Amount)> {
        let limited = self
            .by_name
            .values()
            .filter(|user| user.quota != Amount::MAX);
        limited.map(|user| (user.home.clone(), user.quota))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether nobody can log in.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Whether anybody may come with a certificate.
    pub fn know_certificates(&self) -> bool {
        let has = |user: &Arc<User>| !user.certificates.is_empty();
        self.by_name.values().any(has)
    }

    /// What is not wrong but not good either, in sentences for the log.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// Why a users file is refused, in one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsersError {
    path: Option<PathBuf>,
    line: Option<usize>,
    message: String,
}

impl UsersError {
    pub(super) fn new(message: impl Into<String>) -> UsersError {
        UsersError {
            path: None,
            line: None,
            message: message.into(),
        }
    }

    pub(super) fn reading(error: io::Error) -> UsersError {
        match error.kind() {
            io::ErrorKind::NotFound => {
                UsersError::new("there is no such file; `hauld user add` makes one")
            }
            _ => UsersError::new(error.to_string()),
        }
    }

    /// The parser's own display would show the line, and so perhaps a hash.
    fn in_text(text: &str, error: &toml::de::Error) -> UsersError {
        let line = error
            .span()
            .map(|span| line_of(text.as_bytes(), span.start));
        UsersError {
            line,
            ..UsersError::new(error.message().replace(char::is_control, " "))
        }
    }

    pub(super) fn of_file(self, path: &Path) -> UsersError {
        UsersError {
            path: Some(path.to_owned()),
            ..self
        }
    }

    /// Which line is meant, from 1.
    pub fn line(&self) -> Option<usize> {
        self.line
    }
}

fn line_of(text: &[u8], at: usize) -> usize {
    let before = &text[..at.min(text.len())];
    before.iter().filter(|&&byte| byte == b'\n').count() + 1
}

impl fmt::Display for UsersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "users file {}: ", path.display())?;
        }
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for UsersError {}

#[cfg(test)]
mod tests;
