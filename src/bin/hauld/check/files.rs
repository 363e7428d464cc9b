//! Certificate, users and the directory that is served.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use haul::accounts::Anonymous;
use haul::accounts::users::Users;
use haul::config::{Config, TlsLevel};
use haul::server;
use haul::storage::path::VirtualPath;
use haul::storage::root::Root;
use haul::text::plain;
use rustix::fs::{Access, Mode, OFlags};
use rustix::io::Errno;

use super::Findings;
use crate::options::DEFAULT_DIR;
use crate::served::{self, Use};

const DAY_S: i64 = 24 * 60 * 60;
/// Whoever renews certificates by themselves has done it by then.
const RENEWED_BEFORE_DAYS: i64 = 30;

pub fn certificate(config: &Config, public: bool, found: &mut Findings) {
    let Some(files) = &config.tls.files else {
        match config.tls.level {
            TlsLevel::Off => found.ok("TLS", "there is none"),
            _ if public => found.warning(
                "certificate",
                "a self-signed one is made: clients have to be told to trust it",
            ),
            _ => found.ok("certificate", "a self-signed one is made, or there already"),
        }
        return;
    };
    let about = format!("certificate {}", files.certificate.display());
    let seen = match server::examine(files) {
        Ok(seen) => seen,
        // It names the file itself, which may be the key.
        Err(why) => return found.error("TLS", why),
    };
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_s = since.map_or(0, |since| since.as_secs() as i64);
    let days = (seen.until_s - now_s).div_euclid(DAY_S);
    match seen.names.as_slice() {
        [] => found.warning(&about, "it names no host, so that clients refuse it"),
        names => found.ok(&about, format_args!("it is for {}", names.join(", "))),
    }
    match days {
        _ if seen.from_s > now_s => {
            found.error(&about, "it does not hold yet; is the clock right?");
        }
        ..0 => found.error(&about, "it has expired"),
        0..RENEWED_BEFORE_DAYS => {
            found.warning(&about, format_args!("it expires in {days} days: renew it"));
        }
        _ => found.ok(&about, format_args!("it holds for {days} days more")),
    }
    match () {
        () if !seen.in_order => found.warning(
            &about,
            "the chain is not in order: the server's own certificate comes first, and then the \
             one that signed it",
        ),
        () if seen.self_signed => found.warning(
            &about,
            "it is self-signed: clients have to be told to trust it",
        ),
        () if seen.length == 1 => found.warning(
            &about,
            "it is alone: unless a root signed it, the intermediate certificates belong behind it",
        ),
        () => found.ok(&about, format_args!("a chain of {}", seen.length)),
    }
    if let Ok(metadata) = fs::metadata(&files.key)
        && metadata.permissions().mode() & 0o007 != 0
    {
        let about = format!("key {}", files.key.display());
        found.warning(about, "anybody on this machine may read it: chmod 600");
    }
}

pub fn users(config: &Config, found: &mut Findings) -> Option<Users> {
    let Some(path) = &config.users else {
        match (&config.one_time_password, config.anonymous) {
            (Some(_), _) => found.warning(
                "users",
                "there is no users file: a password is made at each start, for one user",
            ),
            (None, Anonymous::None) => found.error("users", "nobody can log in: give --users"),
            (None, _) => found.ok("users", "everybody is anonymous"),
        }
        return None;
    };
    let about = format!("users file {}", path.display());
    if server::serves_users(config) {
        found.error(
            &about,
            "it is below the directory that is served: move it out",
        );
    }
    let users = match Users::load(path) {
        Ok(users) => users,
        Err(why) => {
            found.error("users", why);
            return None;
        }
    };
    for warning in users.warnings() {
        found.warning(&about, warning);
    }
    if let Err(why) = server::several_rule(&users, config.workers) {
        found.error(&about, why);
    }
    match (users.len(), config.anonymous) {
        (0, Anonymous::None) => {
            found.warning(&about, "there is nobody in it, so nobody can log in")
        }
        (1, _) => found.ok(&about, "1 user"),
        (n, _) => found.ok(&about, format_args!("{n} users")),
    }
    Some(users)
}

/// What SIGHUP reads, as the user that hauld will be by then.
pub fn readable_again(config: &Config, file: Option<PathBuf>, found: &mut Findings) {
    let certificate = config.tls.files.iter();
    let files = certificate.flat_map(|tls| [&tls.certificate, &tls.key]);
    for path in files.chain(&config.users).chain(&file) {
        match File::open(path) {
            Ok(_) => found.ok(path.display(), "it can be read again"),
            Err(_) if !path.exists() && config.run_as.is_none() => {}
            Err(error) => found.warning(
                path.display(),
                format_args!("it cannot be read again on SIGHUP: {}", plain(&error)),
            ),
        }
    }
}

/// The log of transfers, which is begun anew when it was moved away.
pub fn transfer_log(config: &Config, found: &mut Findings) {
    let Some(log) = &config.transfer_log else {
        return;
    };
    let about = format!("transfer log {}", log.display());
    let dir = match log.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    let writes = |path: &Path| rustix::fs::access(path, Access::WRITE_OK);
    let own = if log.exists() {
        writes(log)
    } else {
        writes(dir)
    };
    match (own, writes(dir)) {
        (Ok(()), Ok(())) => found.ok(about, "it can be written"),
        (Ok(()), Err(_)) => found.warning(
            about,
            "its directory cannot be written: once moved away, it is not begun anew",
        ),
        (Err(error), _) if config.run_as.is_none() => found.error(about, plain(&error.into())),
        (Err(_), _) => found.warning(
            about,
            "the user of --run-as cannot open it: once moved away, it is not begun anew",
        ),
    }
}

/// The directory that is served, opened as a server opens it: before it becomes somebody else, so
/// that nobody else needs a way to it.
pub struct Served {
    about: String,
    root: Root,
    dir: OwnedFd,
}

pub fn root(config: &Config, found: &mut Findings) -> Option<Served> {
    let dir = &config.dir;
    let about = format!("directory {}", dir.display());
    if dir == Path::new(DEFAULT_DIR) && !dir.exists() {
        found.ok(about, "it is made at start");
        return None;
    }
    match (Root::open(dir), served::place(dir)) {
        (Ok(root), Ok(dir)) => Some(Served { about, root, dir }),
        (Err(error), _) | (_, Err(error)) => {
            found.error(about, plain(&error));
            None
        }
    }
}

impl Served {
    /// Does there what a server does, as whoever this is by now.
    pub fn try_out(&self, found: &mut Findings) {
        let about = &self.about;
        match self.root.open_dir(&VirtualPath::root()) {
            Ok(_) => {}
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOSYS) => {
                return found.error(about, "hauld needs Linux 5.6 or later (openat2)");
            }
            Err(_) => match served::use_of(&self.dir) {
                Use::All => {}
                Use::NamesOnly(error) => {
                    let why = plain(&error);
                    found.warning(
                        about,
                        format_args!("it cannot be listed, only what clients know by name: {why}"),
                    );
                }
                Use::Nothing(error) => {
                    let why = plain(&error);
                    found.error(about, format_args!("it cannot be entered: {why}"));
                }
            },
        }
        let nameless = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.dir, ".", nameless, Mode::RUSR | Mode::WUSR) {
            Ok(_) => found.ok(about, "files can be stored"),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => found.ok(
                about,
                "its file system has no files without a name: uploads have a hidden one until they \
                 are whole",
            ),
            Err(error) => {
                let why = plain(&error.into());
                found.warning(about, format_args!("no file can be stored: {why}"));
            }
        }
        let open_to_all = |mode: u32| mode & 0o1002 == 0o002;
        if rustix::fs::fstat(&self.dir).is_ok_and(|stat| open_to_all(stat.st_mode)) {
            found.warning(about, "anybody on this machine may change it");
        }
    }

    pub fn homes(&self, users: Option<&Users>, found: &mut Findings) {
        for user in users.map(Users::sorted).unwrap_or_default() {
            if let Err(error) = self.root.below(&user.home) {
                found.warning(
                    format_args!("user {}", user.name),
                    format_args!("the home {} cannot be used: {}", user.home, plain(&error)),
                );
            }
        }
    }
}
