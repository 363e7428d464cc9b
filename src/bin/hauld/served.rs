//! The directory that is served, as whoever hauld is by the time that it serves it.
//!
//! It is opened before root is given up, as the server opens it, so that nobody else needs a way to
//! it; what it can be used for shows only afterwards.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use haul::config::Config;
use haul::text::plain;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, statat};

const PLACE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// What can be done with a directory.
#[derive(Debug)]
pub enum Use {
    /// It can be listed, and so on.
    All,
    /// It cannot be listed, but what clients know by name is reached: homes, say.
    NamesOnly(io::Error),
    /// Nothing in it is reached.
    Nothing(io::Error),
}

/// Opens the directory as a place.
///
/// # Errors
/// Those of the system.
pub fn place(dir: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, dir, PLACE, Mode::empty())?)
}

/// What this process can do with a directory that [`place`] has opened.
pub fn use_of(place: &OwnedFd) -> Use {
    let list = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Err(error) = openat(place, ".", list, Mode::empty()) else {
        return Use::All;
    };
    match statat(place, ".", AtFlags::empty()) {
        Ok(_) => Use::NamesOnly(error.into()),
        Err(_) => Use::Nothing(error.into()),
    }
}

/// The directory of a server that is about to start.
pub struct Served {
    dir: PathBuf,
    run_as: Option<String>,
    landlock: bool,
    place: io::Result<OwnedFd>,
}

impl Served {
    /// Opens it, with the rights that there are by now.
    pub fn of(config: &Config) -> Served {
        Served {
            dir: config.dir.clone(),
            run_as: config.run_as.as_ref().map(|user| user.name.clone()),
            landlock: config.landlock,
            place: place(&config.dir),
        }
    }

    /// Whether it can be served with the rights that are left.
    ///
    /// # Errors
    /// One sentence: no client would reach anything in it.
    pub fn check(&self) -> Result<(), String> {
        let dir = self.dir.display();
        let Ok(place) = &self.place else {
            // The server has opened it, or has said why not.
            return Ok(());
        };
        let seen = match use_of(place) {
            // Landlock lets through what it could find at start, as whoever this is.
            Use::NamesOnly(error) if self.landlock && self::place(&self.dir).is_err() => {
                Use::Nothing(error)
            }
            seen => seen,
        };
        match seen {
            Use::All => Ok(()),
            Use::NamesOnly(error) => {
                let why = plain(&error);
                log::warn!(
                    "{dir} cannot be listed, so clients have to know the names in it: {why}"
                );
                Ok(())
            }
            Use::Nothing(error) => {
                let who = match &self.run_as {
                    Some(user) => format!("{user}, the user of --run-as,"),
                    None => "the user that runs hauld".to_string(),
                };
                Err(format!(
                    "cannot serve {dir}: {}; {who} may not enter it: give it to that user (chown), \
                     or choose another of the two",
                    plain(&error)
                ))
            }
        }
    }
}
