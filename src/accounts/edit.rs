//! The users file, changed by `hauld user`. What is not changed stays as somebody wrote it, comments
//! included; what the server would refuse is not written.
//!
//! The new file is complete and on the disk before it replaces the old one, so a server that
//! reloads sees one or the other. It has mode 0600 and the owner of the old one. Where the old one
//! was closed to others but open to its group (0640: root's file, read by a server with another
//! user), the group may go on reading it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{FlockOperation, Gid, Mode, Uid, fchmod, fchown, flock};
use toml_edit::{Array, DocumentMut, Item, Table, TableLike, Value};

use super::Permissions;
use super::field::{Home, Name, Network};
use super::password::{Hash, random};
use super::users::{Users, UsersError};
use crate::fingerprint::Fingerprint;
use crate::text::Bytes;

const HEAD: &str = "\
# The users of hauld. `hauld user` changes this file, and so may you: what it does not change stays
# as it is. `hauld --users` reads it at start, and again on SIGHUP.

";

/// What is to change about a user; `None`: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// The home.
    pub home: Option<Home>,
    /// What the user may do.
    pub permissions: Option<Permissions>,
    /// What the home may hold.
    pub quota_bytes: Option<Limit>,
    /// How many files it may hold.
    pub quota_files: Option<Limit>,
    /// For all sessions together.
    pub rate_bytes_per_s: Option<Limit>,
    /// For each session.
    pub session_rate_bytes_per_s: Option<Limit>,
    /// Where the user may log in from; empty: anywhere.
    pub networks: Option<Vec<Network>>,
    /// What stands for the password; empty: nothing.
    pub certificates: Option<Vec<Fingerprint>>,
    /// Whether nobody gets in under this name.
    pub locked: Option<bool>,
}

/// A limit that can be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// There is none.
    None,
    /// That much.
    Of(u64),
}

/// `none`, or a size as [`Bytes`] reads it.
impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Limit, String> {
        match text {
            "none" => Ok(Limit::None),
            text => text.parse().map(|Bytes(n)| Limit::Of(n)),
        }
    }
}

/// A users file that is being changed. While this lives, nobody else changes it in this way.
#[derive(Debug)]
pub struct UsersFile {
    /// As it was given: messages show it.
    path: PathBuf,
    /// Where the name is a symbolic link, the file behind it is replaced.
    real: PathBuf,
    document: DocumentMut,
    /// Of the file before; `None`: there was none.
    before: Option<fs::Metadata>,
    /// Locked. The file itself cannot be: it is replaced.
    directory: File,
}

impl UsersFile {
    /// Reads the file, once nobody else is changing it.
    ///
    /// # Errors
    /// It is not there or cannot be read, or the server would refuse it.
    pub fn open(path: &Path) -> Result<UsersFile, UsersError> {
        UsersFile::read(path, false)
    }

    /// As [`UsersFile::open`], but a file that is not there has no users yet.
    ///
    /// # Errors
    /// It cannot be read, or the server would refuse it.
    pub fn open_or_new(path: &Path) -> Result<UsersFile, UsersError> {
        UsersFile::read(path, true)
    }

    fn read(path: &Path, new: bool) -> Result<UsersFile, UsersError> {
        let failed = |error: io::Error| UsersError::reading(error).of_file(path);
        let missing = |error: &io::Error| new && error.kind() == io::ErrorKind::NotFound;
        let real = match fs::canonicalize(path) {
            Ok(real) => real,
            Err(error) if missing(&error) => path.to_owned(),
            Err(error) => return Err(UsersError::reading(error).of_file(path)),
        };
        let directory = match real.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let directory = File::open(directory).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                UsersError::new("its directory is not there; make it first").of_file(path)
            }
            _ => failed(error),
        })?;
        flock(&directory, FlockOperation::LockExclusive).map_err(|e| failed(e.into()))?;
        let (text, before) = match fs::metadata(&real) {
            Ok(metadata) => {
                Users::load(path)?;
                (fs::read_to_string(&real).map_err(failed)?, Some(metadata))
            }
            Err(error) if missing(&error) => (String::new(), None),
            Err(error) => return Err(failed(error)),
        };
        let document = text.parse::<DocumentMut>();
        Ok(UsersFile {
            document: document.map_err(|error| failed(io::Error::other(error)))?,
            path: path.to_owned(),
            real,
            before,
            directory,
        })
    }

    /// Adds a user. Home and permissions are written even where they are what they would be
    /// anyway: whoever reads the file should see them.
    ///
    /// # Errors
    /// There is one of that name.
    pub fn add(&mut self, name: &Name, hash: &Hash, about: &Changes) -> Result<(), UsersError> {
        if self
            .users()
            .is_some_and(|users| users.contains_key(name.as_str()))
        {
            let message = format!("there is a user {name} already");
            return Err(UsersError::new(message).of_file(&self.path));
        }
        let first = self.document.is_empty();
        let users = self.document.entry("users").or_insert_with(|| {
            let mut users = Table::new();
            users.set_implicit(true);
            Item::Table(users)
        });
        let mut user = Table::new();
        let new = self.before.is_none() && first;
        user.decor_mut().set_prefix(if new {
            HEAD
        } else if first {
            ""
        } else {
            "\n"
        });
        put(&mut user, "password", Some(hash.as_str().into()));
        put(&mut user, "home", Some("/".into()));
        put(&mut user, "permissions", Some("all".into()));
        write_changes(&mut user, about);
        let user = match users {
            Item::Table(_) => Item::Table(user),
            _ => Item::Value(user.into_inline_table().into()),
        };
        if let Some(users) = users.as_table_like_mut() {
            users.insert(name.as_str(), user);
        }
        Ok(())
    }

    /// Gives a user another password.
    ///
    /// # Errors
    /// There is no such user.
    pub fn set_password(&mut self, name: &Name, hash: &Hash) -> Result<(), UsersError> {
        put(self.user(name)?, "password", Some(hash.as_str().into()));
        Ok(())
    }

    /// Changes what else is said of a user.
    ///
    /// # Errors
    /// There is no such user.
    pub fn change(&mut self, name: &Name, changes: &Changes) -> Result<(), UsersError> {
        write_changes(self.user(name)?, changes);
        Ok(())
    }

    /// Removes a user, and the comment right above.
    ///
    /// # Errors
    /// There is no such user.
    pub fn remove(&mut self, name: &Name) -> Result<(), UsersError> {
        self.user(name)?;
        let users = self
            .document
            .get_mut("users")
            .and_then(Item::as_table_like_mut);
        let removed = users.and_then(|users| users.remove(name.as_str()));
        if let Some(Item::Table(user)) = removed {
            self.keep_comments_above(&user);
        }
        Ok(())
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// The server would refuse what it would say now, or it cannot be written.
    pub fn save(self) -> Result<(), UsersError> {
        let text = self.document.to_string();
        Users::parse(&text).map_err(|error| error.of_file(&self.path))?;
        let failed = |error: io::Error| {
            UsersError::new(format!("it cannot be written: {error}")).of_file(&self.path)
        };
        let random = random().map_err(failed)?;
        let mut name = std::ffi::OsString::from(".");
        name.push(self.real.file_name().unwrap_or_default());
        name.push(format!(".{:016x}", u64::from_le_bytes(random)));
        let staged = self.real.with_file_name(name);
        let written = self
            .write(&staged, &text)
            .and_then(|()| fs::rename(&staged, &self.real));
        if let Err(error) = written {
            // It may not even be there; what matters is the first error.
            let _ = fs::remove_file(&staged);
            return Err(failed(error));
        }
        self.directory.sync_all().map_err(failed)
    }

    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        let (mut mode, metadata) = (0o600, file.metadata()?);
        if let Some(before) = &self.before {
            let owner = (before.uid() != metadata.uid()).then(|| Uid::from_raw(before.uid()));
            let group = (before.gid() != metadata.gid()).then(|| Gid::from_raw(before.gid()));
            if owner.is_some() || group.is_some() {
                fchown(file.as_fd(), owner, group)?;
            }
            if before.mode() & 0o007 == 0 {
                mode |= before.mode() & 0o040;
            }
        }
        // The umask may have taken bits away.
        fchmod(file.as_fd(), Mode::from_raw_mode(mode))?;
        file.sync_all()
    }

    fn users(&self) -> Option<&dyn TableLike> {
        self.document.get("users").and_then(Item::as_table_like)
    }

    fn user(&mut self, name: &Name) -> Result<&mut dyn TableLike, UsersError> {
        let users = self
            .document
            .get_mut("users")
            .and_then(Item::as_table_like_mut);
        let user = users.and_then(|users| users.get_mut(name.as_str()));
        user.and_then(Item::as_table_like_mut)
            .ok_or_else(|| UsersError::new(format!("there is no user {name}")).of_file(&self.path))
    }

    /// A comment that a blank line separates from a user is not about that user: it goes to
    /// whatever comes next in the file.
    fn keep_comments_above(&mut self, removed: &Table) {
        let above = removed.decor().prefix().and_then(|prefix| prefix.as_str());
        let Some((others, _)) = above.and_then(|text| text.rsplit_once("\n\n")) else {
            return;
        };
        if !others.contains('#') {
            return;
        }
        let kept = format!("{others}\n\n");
        let users = self.document.get_mut("users").and_then(Item::as_table_mut);
        let tables = users.into_iter().flat_map(|users| users.iter_mut());
        let next = tables
            .filter_map(|(_, user)| user.as_table_mut())
            .filter(|user| user.position() > removed.position())
            .min_by_key(|user| user.position());
        match next {
            Some(next) => {
                let its_own = next.decor().prefix().and_then(|prefix| prefix.as_str());
                let its_own = its_own.unwrap_or_default().trim_start_matches('\n');
                let prefix = format!("{kept}{its_own}");
                next.decor_mut().set_prefix(prefix);
            }
            None => {
                let end = self.document.trailing().as_str().unwrap_or_default();
                let end = format!("{kept}{end}");
                self.document.set_trailing(end);
            }
        }
    }
}

fn write_changes(user: &mut dyn TableLike, changes: &Changes) {
    if let Some(Home(home)) = &changes.home {
        put(user, "home", Some(home.to_string().into()));
    }
    if let Some(permissions) = changes.permissions {
        put(user, "permissions", Some(written(permissions)));
    }
    let sizes = [
        ("quota_bytes", changes.quota_bytes),
        ("rate_bytes_per_s", changes.rate_bytes_per_s),
        ("session_rate_bytes_per_s", changes.session_rate_bytes_per_s),
    ];
    for (key, limit) in sizes {
        match limit {
            None => {}
            Some(Limit::None) => put(user, key, None),
            Some(Limit::Of(bytes)) => put(user, key, Some(Bytes(bytes).to_string().into())),
        }
    }
    match changes.quota_files {
        None => {}
        Some(Limit::None) => put(user, "quota_files", None),
        // TOML has no numbers above.
        Some(Limit::Of(files)) => {
            let files = i64::try_from(files).unwrap_or(i64::MAX);
            put(user, "quota_files", Some(files.into()));
        }
    }
    let lists: [(&str, Option<Array>); 2] = [
        ("networks", changes.networks.as_deref().map(written_list)),
        (
            "certificates",
            changes.certificates.as_deref().map(written_list),
        ),
    ];
    for (key, list) in lists {
        if let Some(list) = list {
            put(user, key, (!list.is_empty()).then(|| list.into()));
        }
    }
    if let Some(locked) = changes.locked {
        put(user, "locked", locked.then(|| true.into()));
    }
}

fn written(permissions: Permissions) -> Value {
    match permissions {
        Permissions::ALL | Permissions::READ => permissions.to_string().into(),
        some => some.words().collect::<Array>().into(),
    }
}

fn written_list<T: ToString>(list: &[T]) -> Array {
    list.iter().map(T::to_string).collect()
}

/// Sets or removes one key; the comment behind it stays.
fn put(user: &mut dyn TableLike, key: &str, value: Option<Value>) {
    let Some(mut value) = value else {
        user.remove(key);
        return;
    };
    match user.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => {
            user.insert(key, Item::Value(value));
        }
    }
}

#[cfg(test)]
mod tests;
