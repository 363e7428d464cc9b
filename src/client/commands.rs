//! What a user can ask for, on the command line and at the prompt alike.
//!
//! The short ones are carried out here; `upload`, `download` and `sync` have pages of their own.

use std::ffi::OsString;
use std::io::{Write, stderr};

use clap::Subcommand;

use super::download::Download;
use super::error::{Error, Exit, shown};
use super::local::{bytes_of, joined, last_component, path_of};
use super::server::{one_line, percent_decoded};
use super::sync::{ONE_SERVER, Synchronize, url};
use super::upload::{Upload, split_target};
use super::{Client, glob, interrupt, listing, remote, removal, show};

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Send files to the server
    #[command(visible_alias = "put")]
    Upload(Upload),
    /// Bring files from the server
    #[command(visible_alias = "get")]
    Download(Download),
    /// Make one directory like another, in either direction: haul sync photos :/photos
    Sync(Synchronize),
    /// List directories
    Ls {
        /// One line per entry with type, size and time (UTC)
        #[arg(short)]
        long: bool,
        /// For habit: names that begin with a dot are listed anyway
        #[arg(short)]
        all: bool,
        /// The directories, or files; the working directory if left out
        #[arg(value_name = "PATH")]
        paths: Vec<OsString>,
    },
    /// List everything below a directory, one path per line; links are not followed
    Tree {
        /// The directory; the working directory if left out
        path: Option<OsString>,
    },
    /// Make directories
    Mkdir {
        /// Those above them too, and none that is there already
        #[arg(short)]
        parents: bool,
        /// Their names
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<OsString>,
    },
    /// Remove files, with -d empty directories, with -r directories with all that is in them
    Rm {
        /// Remove empty directories instead of files
        #[arg(short)]
        directories: bool,
        /// Remove directories with all that is in them; links are removed, not followed
        #[arg(short, conflicts_with = "directories")]
        recursive: bool,
        /// What is not there is no error
        #[arg(short)]
        force: bool,
        /// What to remove
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<OsString>,
    },
    /// Rename or move files and directories on the server; a file that has the new name is replaced
    Mv {
        /// The present names
        #[arg(required = true)]
        from: Vec<OsString>,
        /// The new name, or a directory to move into
        to: OsString,
    },
    /// Show type, size, time and permissions
    Stat {
        /// Of what
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<OsString>,
    },
    /// Show digests that the server computes: SHA-256, or the best that it has
    Hash {
        /// Of which files
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<OsString>,
    },
}

impl Command {
    /// Does it, and says what went wrong. The exit code is that of the only thing that was asked
    /// for, or [`Exit::SomeFailed`].
    pub fn run(&mut self, client: &mut Client) -> Exit {
        self.names_fit(client)
            .and_then(|()| self.carried_out(client))
            .unwrap_or_else(|error| {
                report(&error);
                error.exit
            })
    }

    /// Remote names may be URLs, all of one server: they become paths on it, and it is returned.
    ///
    /// # Errors
    /// They are of several servers, or only some are URLs.
    pub fn take_server(&mut self) -> Result<Option<String>, Error> {
        let mut server: Option<String> = None;
        let mut has_others = false;
        for name in self.remote_names() {
            let Some((of, path)) = url(name) else {
                has_others = true;
                continue;
            };
            if server.as_deref().is_some_and(|server| server != of) {
                return Err(Error::usage("all URLs must be of the same server"));
            }
            server = Some(of.to_owned());
            let path = percent_decoded(path)?;
            *name = match path.is_empty() {
                true => OsString::from("."),
                false => path_of(&path).into_os_string(),
            };
        }
        match has_others && server.is_some() {
            true => Err(Error::usage(
                "either all remote names are URLs, or none is: --server says it for all",
            )),
            false => Ok(server),
        }
    }

    /// Those that name something on the server, but for those of `sync`.
    fn remote_names(&mut self) -> Vec<&mut OsString> {
        match self {
            Command::Upload(Upload { names, target, .. }) => match target {
                Some(target) => vec![target],
                None => names.iter_mut().skip(1).next_back().into_iter().collect(),
            },
            Command::Download(Download { names, target, .. }) => {
                let (sources, _) = split_target(names, target.is_some());
                let n = sources.len();
                names[..n].iter_mut().collect()
            }
            Command::Tree { path } => path.iter_mut().collect(),
            Command::Ls { paths, .. }
            | Command::Mkdir { paths, .. }
            | Command::Rm { paths, .. }
            | Command::Stat { paths }
            | Command::Hash { paths } => paths.iter_mut().collect(),
            Command::Mv { from, to } => from.iter_mut().chain([to]).collect(),
            // It looks at its names itself.
            Command::Sync(_) => Vec::new(),
        }
    }

    /// Nothing is sent, not even a login, for a name that cannot be.
    fn names_fit(&mut self, client: &Client) -> Result<(), Error> {
        for name in self.remote_names() {
            if name.is_empty() {
                return Err(Error::usage("a remote name is empty"));
            }
            if client.is_prompt && url(name).is_some() {
                return Err(Error::usage(ONE_SERVER));
            }
            let bytes = bytes_of(name);
            one_line(&format!("the remote name \"{}\"", shown(bytes)), bytes)?;
        }
        Ok(())
    }

    fn carried_out(&self, client: &mut Client) -> Result<Exit, Error> {
        match self {
            Command::Upload(upload) => upload.run(client),
            Command::Download(download) => download.run(client),
            Command::Sync(sync) => sync.run(client),
            Command::Ls { long, paths, .. } => {
                let paths = glob::remote(client, paths)?;
                show::ls_all(client, *long, &paths)
            }
            Command::Tree { path } => show::tree(client, path.as_deref().map(bytes_of)),
            Command::Mkdir { parents, paths } => {
                each(client, "make the directory", paths, |client, path| {
                    if *parents {
                        return remote::make_with_parents(client.ready()?, path);
                    }
                    client.ready()?.command("MKD", Some(path))?.success()?;
                    Ok(())
                })
            }
            Command::Rm {
                directories,
                recursive,
                force,
                paths,
            } => {
                let paths = match force {
                    true => glob::remote_if_any(client, paths)?,
                    false => glob::remote(client, paths)?,
                };
                each(client, "remove", &paths, |client, path| {
                    let removed = match (*recursive, *directories) {
                        (true, _) => removal::all(client, path),
                        (_, true) => removal::directory(client, path),
                        _ => removal::file(client, path),
                    };
                    match removed {
                        Err(error) if *force => removal::unless_gone(client, path, error),
                        removed => removed,
                    }
                })
            }
            Command::Mv { from, to } => {
                let from = glob::remote(client, from)?;
                rename(client, &from, bytes_of(to))
            }
            Command::Stat { paths } => {
                let paths = glob::remote(client, paths)?;
                each(client, "stat", &paths, show::stat)
            }
            Command::Hash { paths } => {
                let paths = glob::remote(client, paths)?;
                each(client, "hash", &paths, show::hash)
            }
        }
    }
}

/// One sentence on standard error, if anybody reads it.
pub fn report(error: &Error) {
    // That Ctrl-C broke it is what the prompt says.
    let is_interrupted = interrupt::is_set() && error.exit == Exit::Broken;
    if is_interrupted || error.is_unheard {
        return;
    }
    let _ = writeln!(stderr(), "haul: {error}");
}

/// Does something with each path and goes on behind a failure, unless the server is gone for good.
fn each<T: AsRef<std::ffi::OsStr>>(
    client: &mut Client,
    what: &str,
    items: &[T],
    mut act: impl FnMut(&mut Client, &[u8]) -> Result<(), Error>,
) -> Result<Exit, Error> {
    client.ready()?;
    let mut exit = Exit::Done;
    for item in items {
        let name = bytes_of(item.as_ref());
        let Err(error) = act(client, name) else {
            continue;
        };
        let no_server = matches!(
            error.exit,
            Exit::CannotConnect | Exit::LoginRefused | Exit::Trust
        ) && !client.is_connected();
        let error = error.about(format_args!("cannot {what} {}", shown(name)));
        if items.len() == 1 {
            return Err(error);
        }
        report(&error);
        exit = Exit::SomeFailed;
        if no_server {
            break;
        }
    }
    Ok(exit)
}

fn rename(client: &mut Client, from: &[OsString], to: &[u8]) -> Result<Exit, Error> {
    let is_dir = listing::is_dir(client.ready()?, to)?;
    if !is_dir && (from.len() > 1 || to.ends_with(b"/")) {
        return Err(listing::no_directory(to));
    }
    let rename = |client: &mut Client, from: &[u8]| {
        let to = match (is_dir, last_component(from)) {
            (true, Some(name)) => joined(to, name),
            _ => to.to_vec(),
        };
        let c = client.ready()?;
        let reply = c.command("RNFR", Some(from))?;
        if reply.code != 350 {
            return Err(Error::refused(&reply));
        }
        c.command("RNTO", Some(&to))?.success().map(drop)
    };
    if let [from] = from {
        let from = bytes_of(from);
        let what = format!("cannot rename {} to {}", shown(from), shown(to));
        return rename(client, from)
            .map(|()| Exit::Done)
            .map_err(|error| error.about(what));
    }
    each(client, "move", from, rename)
}
