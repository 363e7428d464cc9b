//! What a user can ask for, on the command line and at the prompt alike.
//!
//! The rules of `cp` for targets live here; how bytes move does not.

use std::ffi::OsString;
use std::io::{IsTerminal, Write, stderr, stdin, stdout};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::proto::upload::UploadFacts;

use super::error::{Error, Exit, shown};
use super::local::{self, Incoming, bytes_of, joined, last_component, path_of};
use super::progress::Progress;
use super::server::one_line;
use super::show::{self, print};
use super::{Client, listing, transfer};

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Send files to the server
    Upload(Upload),
    /// Bring files from the server
    Download(Download),
    /// List a directory
    Ls {
        /// One line per entry with type, size and time (UTC)
        #[arg(short)]
        long: bool,
        /// The directory; the working directory if left out
        path: Option<OsString>,
    },
    /// List everything below a directory, one path per line; links are not followed
    Tree {
        /// The directory; the working directory if left out
        path: Option<OsString>,
    },
    /// Make directories
    Mkdir {
        /// Their names
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<OsString>,
    },
    /// Remove files, or empty directories with -d
    Rm {
        /// Remove empty directories instead of files
        #[arg(short)]
        directories: bool,
        /// What to remove
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<OsString>,
    },
    /// Rename or move a file or directory on the server
    Mv {
        /// The present name
        from: OsString,
        /// The new name, or a directory
        to: OsString,
    },
    /// Show type, size, time and permissions
    Stat {
        /// Of what
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<OsString>,
    },
}

/// Arguments of `upload`.
#[derive(Debug, Args)]
pub struct Upload {
    /// Local files and, behind them, the remote target as with cp; `-` is standard input. With one
    /// argument the copy has the same last component
    #[arg(required = true, value_names = ["LOCAL", "REMOTE"])]
    names: Vec<OsString>,
    /// The remote directory to upload into; then all arguments are local files
    #[arg(short, value_name = "DIR")]
    target: Option<OsString>,
    /// Refuse to replace a remote file
    #[arg(long)]
    no_clobber: bool,
}

/// Arguments of `download`.
#[derive(Debug, Args)]
pub struct Download {
    /// Remote files and, behind them, the local target as with cp; `-` is standard output. With one
    /// argument the copy has the same last component
    #[arg(required = true, value_names = ["REMOTE", "LOCAL"])]
    names: Vec<OsString>,
    /// The local directory to download into; then all arguments are remote files
    #[arg(short, value_name = "DIR")]
    target: Option<PathBuf>,
    /// Replace local files that exist
    #[arg(long)]
    force: bool,
}

impl Command {
    /// Does it, and says what went wrong. The exit code is that of the only thing that was asked
    /// for, or [`Exit::SomeFailed`].
    pub fn run(&self, client: &mut Client) -> Exit {
        self.names_fit()
            .and_then(|()| self.carried_out(client))
            .unwrap_or_else(|error| {
                report(&error);
                error.exit
            })
    }

    /// Nothing is sent, not even a login, for a name that cannot be.
    fn names_fit(&self) -> Result<(), Error> {
        let remote: Vec<&OsString> = match self {
            Command::Upload(Upload { names, target, .. }) => {
                let (_, last) = split_target(names, target.is_some());
                last.into_iter().chain(target).collect()
            }
            Command::Download(Download { names, target, .. }) => {
                split_target(names, target.is_some()).0.iter().collect()
            }
            Command::Ls { path, .. } | Command::Tree { path } => path.iter().collect(),
            Command::Mkdir { paths } | Command::Rm { paths, .. } | Command::Stat { paths } => {
                paths.iter().collect()
            }
            Command::Mv { from, to } => vec![from, to],
        };
        for name in remote {
            if name.is_empty() {
                return Err(Error::usage("a remote name is empty"));
            }
            let bytes = bytes_of(name);
            one_line(&format!("the remote name \"{}\"", shown(bytes)), bytes)?;
        }
        Ok(())
    }

    fn carried_out(&self, client: &mut Client) -> Result<Exit, Error> {
        match self {
            Command::Upload(arguments) => upload(client, arguments),
            Command::Download(arguments) => download(client, arguments),
            Command::Ls { long, path } => show::ls(client, *long, path.as_deref().map(bytes_of)),
            Command::Tree { path } => show::tree(client, path.as_deref().map(bytes_of)),
            Command::Mkdir { paths } => {
                each(client, "make the directory", paths, |client, path| {
                    client.ready()?.command("MKD", Some(path))?.success()?;
                    Ok(())
                })
            }
            Command::Rm { directories, paths } => {
                let verb = if *directories { "RMD" } else { "DELE" };
                each(client, "remove", paths, |client, path| {
                    client.ready()?.command(verb, Some(path))?.success()?;
                    Ok(())
                })
            }
            Command::Mv { from, to } => rename(client, bytes_of(from), bytes_of(to)),
            Command::Stat { paths } => each(client, "stat", paths, show::stat),
        }
    }
}

/// One sentence on standard error, if anybody reads it.
pub fn report(error: &Error) {
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

/// As with cp: the last of several names is the target, unless that is named otherwise.
fn split_target(names: &[OsString], is_named: bool) -> (&[OsString], Option<&OsString>) {
    match names.split_last() {
        Some((last, sources)) if !sources.is_empty() && !is_named => (sources, Some(last)),
        _ => (names, None),
    }
}

fn upload(client: &mut Client, arguments: &Upload) -> Result<Exit, Error> {
    let (sources, last) = split_target(&arguments.names, arguments.target.is_some());
    let target = arguments.target.as_ref().or(last).map(|t| bytes_of(t));
    if client.is_prompt && sources.iter().any(|s| s == "-") {
        return Err(Error::usage(
            "at the prompt, standard input carries the commands",
        ));
    }
    if sources.iter().filter(|s| *s == "-").count() > 1 {
        return Err(Error::usage("standard input (-) can be uploaded once"));
    }
    // A name that cannot be sent must be found before anything is, if it is all there is to do.
    if let [source] = sources {
        let name = last_component(bytes_of(source)).unwrap_or_default();
        if target.is_none() {
            one_line(&format!("the name \"{}\"", shown(name)), name)?;
        }
        if source == "-" && target.is_none_or(|t| t.ends_with(b"/")) {
            return Err(Error::usage(
                "standard input needs a remote name: upload - NAME",
            ));
        }
        if source != "-" {
            let source = Path::new(source);
            local::check_source(source).map_err(|e| {
                e.about(format_args!(
                    "cannot upload {}",
                    shown(bytes_of(source.as_os_str()))
                ))
            })?;
        }
    }
    let into = match target {
        // Standard input has no name to go under in a directory.
        Some(_) if sources.iter().all(|s| s == "-") && arguments.target.is_none() => None,
        None => None,
        Some(dir) if arguments.target.is_some() || dir.ends_with(b"/") => Some(dir),
        Some(dir) => {
            let is_dir = listing::is_dir(client.ready()?, dir)?;
            if !is_dir && sources.len() > 1 {
                return Err(Error::new(
                    Exit::NotFound,
                    format!(
                        "{} is no directory on the server, but several files were named; \
                         make it with: haul mkdir {0}",
                        shown(dir)
                    ),
                ));
            }
            is_dir.then_some(dir)
        }
    };
    each(client, "upload", sources, |client, local| {
        let remote = match (into, target) {
            (None, Some(name)) => name.to_vec(),
            (dir, _) if local == b"-" => {
                let dir = shown(dir.unwrap_or_default());
                return Err(Error::usage(format!(
                    "standard input has no name for the copy in {dir}; name it: upload - DIR/NAME"
                )));
            }
            (dir, _) => {
                let name = last_component(local)
                    .ok_or_else(|| Error::usage("its last component is no file name"))?;
                joined(dir.unwrap_or_default(), name)
            }
        };
        upload_one(client, local, &remote, arguments.no_clobber)
    })
}

fn upload_one(
    client: &mut Client,
    local: &[u8],
    remote: &[u8],
    no_clobber: bool,
) -> Result<(), Error> {
    one_line("the remote name", remote)?;
    let source = match local {
        b"-" => None,
        path => Some(local::source(&path_of(path))?),
    };
    let quiet = client.is_quiet();
    let c = client.ready()?;
    if no_clobber {
        let exists =
            listing::exists(c, remote).map_err(|e| e.hint("so --no-clobber sends nothing"));
        if exists? {
            return Err(Error::new(
                Exit::Local,
                "a remote file of that name exists already (--no-clobber)",
            ));
        }
    }
    let shown_name = shown(local);
    let mut progress = Progress::new(&shown_name, !quiet);
    let bytes = match source {
        Some(mut source) => transfer::upload(
            c,
            remote,
            &mut source.file,
            source.bytes_min,
            source.facts,
            &mut progress,
        )?,
        None => transfer::upload(
            c,
            remote,
            &mut stdin().lock(),
            0,
            UploadFacts::default(),
            &mut progress,
        )?,
    };
    drop(progress);
    if quiet {
        return Ok(());
    }
    print(finished("uploaded", local, remote, bytes))
}

/// `uploaded a.txt (4096 bytes)`, with the copy's name where it is another.
fn finished(done: &str, from: &[u8], to: &[u8], bytes: u64) -> String {
    match from == to {
        true => format!("{done} {} ({bytes} bytes)", shown(from)),
        false => format!("{done} {} to {} ({bytes} bytes)", shown(from), shown(to)),
    }
}

fn download(client: &mut Client, arguments: &Download) -> Result<Exit, Error> {
    let (sources, last) = split_target(&arguments.names, arguments.target.is_some());
    let target = arguments.target.as_deref().or(last.map(Path::new));
    if arguments.target.is_none() && target.is_some_and(|t| t.as_os_str() == "-") {
        return each(client, "download", sources, |client, remote| {
            let quiet = client.is_quiet();
            let mut progress = Progress::new(&shown(remote), !quiet && !stdout().is_terminal());
            let mut out = stdout().lock();
            transfer::download(client.ready()?, remote, &mut out, &mut progress)?;
            out.flush().map_err(|e| Error::local(&e))
        });
    }
    let into = match target {
        None => Some(Path::new("")),
        Some(path) => {
            let must_be = arguments.target.is_some()
                || bytes_of(path.as_os_str()).ends_with(b"/")
                || sources.len() > 1;
            match path.is_dir() {
                true => Some(path),
                false if must_be => {
                    return Err(Error::new(
                        Exit::Local,
                        format!(
                            "{} is no directory of this machine; make it first",
                            shown(bytes_of(path.as_os_str()))
                        ),
                    ));
                }
                false => None,
            }
        }
    };
    if let [remote] = sources {
        // What fails without the server is found without it.
        let check = || {
            let path = destination(bytes_of(remote), into, target)?;
            Incoming::create(&path, arguments.force).map(drop)
        };
        check()
            .map_err(|e| e.about(format_args!("cannot download {}", shown(bytes_of(remote)))))?;
    }
    each(client, "download", sources, |client, remote| {
        let path = destination(remote, into, target)?;
        download_one(client, remote, &path, arguments.force)
    })
}

/// Where the copy of `remote` goes.
fn destination(
    remote: &[u8],
    into: Option<&Path>,
    target: Option<&Path>,
) -> Result<PathBuf, Error> {
    match (into, target) {
        (None, Some(path)) => Ok(path.to_owned()),
        (dir, _) => {
            let name = last_component(remote)
                .ok_or_else(|| Error::usage("its last component is no file name"))?;
            Ok(dir.unwrap_or(Path::new("")).join(path_of(name)))
        }
    }
}

fn download_one(client: &mut Client, remote: &[u8], path: &Path, force: bool) -> Result<(), Error> {
    let quiet = client.is_quiet();
    let c = client.ready()?;
    let mut incoming = Incoming::create(path, force)?;
    let mut progress = Progress::new(&shown(remote), !quiet);
    let done = transfer::download(c, remote, &mut incoming, &mut progress)?;
    drop(progress);
    incoming.publish(done.modify_s)?;
    if quiet {
        return Ok(());
    }
    print(finished(
        "downloaded",
        remote,
        bytes_of(path.as_os_str()),
        done.bytes,
    ))
}

fn rename(client: &mut Client, from: &[u8], to: &[u8]) -> Result<Exit, Error> {
    let c = client.ready()?;
    let what = format!("cannot rename {} to {}", shown(from), shown(to));
    let mut go = || {
        let into = to.ends_with(b"/") || listing::is_dir(c, to)?;
        let to = match (into, last_component(from)) {
            (true, Some(name)) => joined(to, name),
            _ => to.to_vec(),
        };
        let reply = c.command("RNFR", Some(from))?;
        if reply.code != 350 {
            return Err(Error::refused(&reply));
        }
        c.command("RNTO", Some(&to))?.success()?;
        Ok(Exit::Done)
    };
    go().map_err(|e: Error| e.about(what))
}
