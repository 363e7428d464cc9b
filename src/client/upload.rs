//! `upload`: names on the command line become a plan. The rules of `cp` for targets live here.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::{Read, stdin};
use std::path::Path;

use clap::Args;

use crate::proto::facts::Kind;
use crate::proto::upload::UploadFacts;

use super::error::{Error, Exit, shown};
use super::filter::{Filter, Patterns};
use super::local::{self, bytes_of, joined, last_component, path_of};
use super::options::Options;
use super::plan::{Item, Plan, is_at_or_below};
use super::report::{Deed, Report};
use super::scan;
use super::server::one_line;
use super::work::{Way, Work, retried};
use super::{Client, glob, listing, remote, stamp, transfer};

/// Arguments of `upload`.
#[derive(Debug, Args)]
pub struct Upload {
    /// Local files and, behind them, the remote target as with cp; `-` is standard input. With one
    /// argument the copy has the same last component
    #[arg(required = true, value_name = "LOCAL")]
    pub names: Vec<OsString>,
    /// The remote directory to upload into; then all arguments are local files
    #[arg(short, value_name = "DIR")]
    pub target: Option<OsString>,
    /// Send directories with all that is below them; links are skipped
    #[arg(short, long)]
    recursive: bool,
    /// Send what links in directories point to
    #[arg(long)]
    copy_links: bool,
    /// Refuse to replace a remote file
    #[arg(long)]
    no_clobber: bool,
    #[command(flatten)]
    patterns: Patterns,
    #[command(flatten)]
    options: Options,
}

/// As with cp: the last of several names is the target, unless that is named otherwise.
pub fn split_target(names: &[OsString], is_named: bool) -> (&[OsString], Option<&OsString>) {
    match names.split_last() {
        Some((last, sources)) if !sources.is_empty() && !is_named => (sources, Some(last)),
        _ => (names, None),
    }
}

/// What one argument turns out to be.
enum SourceKind {
    /// Standard input, a pipe, a device: opened once and read to the end.
    Stream,
    File,
    Directory,
}

impl Upload {
    /// Does it.
    ///
    /// # Errors
    /// Nothing was sent, or the only file failed.
    pub fn run(&self, client: &mut Client) -> Result<Exit, Error> {
        let (sources, last) = split_target(&self.names, self.target.is_some());
        let sources = &glob::local(client, sources)?[..];
        let target = self.target.as_ref().or(last).map(|t| bytes_of(t));
        self.check(client, sources, target)?;
        let filter = Filter::new(&self.patterns)?;
        if let [source] = sources
            && let Err(error) = self.check_source(source)
        {
            let report = self.options.report(client.is_quiet(), false);
            report.expect(1, 0);
            report.failed(Deed::new("upload", bytes_of(source)), error);
            return report.finish("uploaded");
        }
        client.ready()?;
        let is_tree = |source| matches!(self.kind(source), Ok(SourceKind::Directory));
        let has_tree = sources.iter().any(is_tree);
        let into = self.directory(client, sources, target, has_tree)?;
        let report = self
            .options
            .report(client.is_quiet(), has_tree || sources.len() > 1);
        let mut plan = Plan::default();
        let mut streams = Vec::new();
        let mut failed = Vec::new();
        for source in sources {
            let from = bytes_of(source);
            match self.plan(source, into, target, &filter, &report, &mut plan) {
                Ok(None) => {}
                Ok(Some(remote)) => streams.push((from, remote)),
                Err(error) => failed.push((from, error)),
            }
        }
        let files = plan.files.len() + streams.len() + failed.len();
        report.expect(files as u64, plan.bytes());
        for (from, error) in failed {
            report.failed(Deed::new("upload", from), error);
        }
        for (from, remote) in streams {
            let sent = self.stream(client, from, &remote, &report);
            let deed = Deed {
                to: Some(&remote),
                bytes: sent.as_ref().ok().copied(),
                ..Deed::new("upload", from)
            };
            report.outcome(deed, sent.map(drop));
        }
        let way = Way::Up {
            no_clobber: self.no_clobber,
            follows: self.copy_links,
        };
        carry_out(client, &mut plan, way, &self.options, &report)?;
        stamp::there(client, &plan, &report)?;
        report.finish("uploaded")
    }

    /// What fails without the server is found without it.
    fn check(
        &self,
        client: &Client,
        sources: &[OsString],
        target: Option<&[u8]>,
    ) -> Result<(), Error> {
        if client.is_prompt && sources.iter().any(|s| s == "-") {
            return Err(Error::usage(
                "at the prompt, standard input carries the commands",
            ));
        }
        if sources.iter().filter(|s| *s == "-").count() > 1 {
            return Err(Error::usage("standard input (-) can be uploaded once"));
        }
        // A name that cannot be sent must be found before anything is, if it is all there is to do.
        let [source] = sources else { return Ok(()) };
        let name = last_component(bytes_of(source)).unwrap_or_default();
        if target.is_none() {
            one_line(&format!("the name \"{}\"", shown(name)), name)?;
        }
        if source == "-" && target.is_none_or(|t| t.ends_with(b"/")) {
            return Err(Error::usage(
                "standard input needs a remote name: upload - NAME",
            ));
        }
        Ok(())
    }

    fn check_source(&self, source: &OsString) -> Result<(), Error> {
        let path = Path::new(source);
        match source == "-" || (self.recursive && path.is_dir()) {
            true => Ok(()),
            false => local::check_source(path),
        }
    }

    fn kind(&self, source: &OsString) -> Result<SourceKind, Error> {
        if source == "-" {
            return Ok(SourceKind::Stream);
        }
        let path = Path::new(source);
        let meta = fs::metadata(path).map_err(|e| Error::local(&e))?;
        match (meta.is_dir(), meta.is_file()) {
            (true, _) if self.recursive => Ok(SourceKind::Directory),
            (true, _) => local::check_source(path).map(|()| SourceKind::Directory),
            (_, true) => Ok(SourceKind::File),
            _ => Ok(SourceKind::Stream),
        }
    }

    /// The remote directory that all go into, if there is one.
    fn directory<'a>(
        &self,
        client: &mut Client,
        sources: &[OsString],
        target: Option<&'a [u8]>,
        has_tree: bool,
    ) -> Result<Option<&'a [u8]>, Error> {
        match target {
            // Standard input has no name to go under in a directory.
            Some(_) if sources.iter().all(|s| s == "-") && self.target.is_none() => Ok(None),
            None => Ok(None),
            Some(dir) if self.target.is_some() || dir.ends_with(b"/") => {
                let c = client.ready()?;
                // That a tree has no place to be is found out when its directory is made; and one
                // file is sent sooner than three questions are asked.
                if has_tree || sources.len() == 1 && !c.features.mlst {
                    return Ok(Some(dir));
                }
                // Whoever may not look at it may be let into it all the same.
                match listing::is_dir(c, dir)? || c.features.mlst && listing::enters(c, dir)? {
                    true => Ok(Some(dir)),
                    false => Err(listing::no_directory(dir)),
                }
            }
            Some(dir) => {
                let is_dir = listing::is_dir(client.ready()?, dir)?;
                if !is_dir && sources.len() > 1 {
                    return Err(listing::no_directory(dir));
                }
                Ok(is_dir.then_some(dir))
            }
        }
    }

    fn remote_name(
        &self,
        local: &[u8],
        kind: &SourceKind,
        into: Option<&[u8]>,
        target: Option<&[u8]>,
    ) -> Result<Vec<u8>, Error> {
        match (into, target) {
            (None, Some(name)) => Ok(name.to_vec()),
            (dir, _) if local == b"-" => {
                let dir = shown(dir.unwrap_or_default());
                Err(Error::usage(format!(
                    "standard input has no name for the copy in {dir}; name it: upload - DIR/NAME"
                )))
            }
            (dir, _) => {
                let dir = dir.unwrap_or_default();
                match (last_component(local), kind) {
                    (Some(name), _) => Ok(joined(dir, name)),
                    // `upload -r . photos`: what is in it goes there.
                    (None, SourceKind::Directory) => Ok(dir.to_vec()),
                    (None, _) => Err(Error::usage("its last component is no file name")),
                }
            }
        }
    }

    /// Adds what one argument stands for; a stream is in no plan: its remote name is returned.
    fn plan(
        &self,
        source: &OsString,
        into: Option<&[u8]>,
        target: Option<&[u8]>,
        filter: &Filter,
        report: &Report,
        plan: &mut Plan,
    ) -> Result<Option<Vec<u8>>, Error> {
        let kind = self.kind(source)?;
        let local = bytes_of(source);
        let remote = self.remote_name(local, &kind, into, target)?;
        match kind {
            SourceKind::Stream => return Ok(Some(remote)),
            SourceKind::File => {
                let pair = plan.pair(local.to_vec(), remote);
                plan.files.push(Item {
                    pair,
                    path: Box::default(),
                    bytes: fs::metadata(source).map_or(0, |meta| meta.len()),
                    modify_s: None,
                    mode: None,
                    is_sized: true,
                });
            }
            SourceKind::Directory => {
                let has_name = !remote.is_empty();
                let pair = plan.pair(local.to_vec(), remote);
                let root = Path::new(source);
                let found = scan::local(root, filter, self.copy_links, report);
                if has_name {
                    plan.add_top(pair, found.top);
                }
                for entry in found.entries {
                    match entry.kind {
                        Kind::Link | Kind::Other => skip(report, root, &entry),
                        _ => plan.add(pair, entry, true),
                    }
                }
            }
        }
        Ok(None)
    }

    fn stream(
        &self,
        client: &mut Client,
        from: &[u8],
        remote: &[u8],
        report: &Report,
    ) -> Result<u64, Error> {
        one_line("the remote name", remote)?;
        let mut source: Box<dyn Read> = match from {
            b"-" => Box::new(stdin().lock()),
            path => Box::new(local::source(&path_of(path), true)?.file),
        };
        let c = client.ready()?;
        if self.no_clobber {
            listing::check_free(c, remote)?;
        }
        let facts = UploadFacts::default();
        let mut progress = report.board.file(&shown(from), 0);
        transfer::upload(c, remote, 0, &mut source, 0, facts, &mut progress)
    }
}

/// Says that a link, a pipe or a device of a local tree is not sent.
pub fn skip(report: &Report, root: &Path, entry: &scan::Entry) {
    let path = root.join(path_of(&entry.path));
    let path = shown(bytes_of(path.as_os_str()));
    match entry.kind {
        Kind::Link => report.mention(format_args!(
            "skipped the link {path}; --copy-links sends what it points to"
        )),
        _ => report.mention(format_args!("skipped {path}: it is no file")),
    }
}

/// Makes the remote directories of a plan and sends its files.
///
/// # Errors
/// No connection.
pub fn carry_out(
    client: &mut Client,
    plan: &mut Plan,
    way: Way,
    options: &Options,
    report: &Report,
) -> Result<(), Error> {
    make_directories(client, plan, report)?;
    if plan.files.is_empty() {
        return Ok(());
    }
    Work::new(plan, way, options, report, client).run(client)
}

/// Makes the remote directories of a plan. One that cannot be made and is not there is one error,
/// not one for each name below it, and takes them out of the plan.
fn make_directories(client: &mut Client, plan: &mut Plan, report: &Report) -> Result<(), Error> {
    if plan.dirs.is_empty() {
        return Ok(());
    }
    let dirs: Vec<Vec<u8>> = plan
        .dirs
        .iter()
        .map(|(pair, path)| plan.remote(*pair, path))
        .collect();
    let mut refused = Vec::new();
    retried(client, report, |c| {
        refused.clear();
        remote::make(c, &dirs, &mut |at, made| match made {
            Ok(()) => report.done(Deed::new("mkdir", &dirs[at])),
            Err(error) => refused.push((at, error)),
        })
    })?;
    let mut missing = HashSet::new();
    for (at, error) in refused {
        let dir = &dirs[at];
        let end = dir.iter().rposition(|&b| b != b'/').map_or(0, |at| at + 1);
        let bare = &dir[..end];
        if is_at_or_below(bare, &missing) {
            continue;
        }
        // A directory that nobody may list can be there all the same.
        let is_there = retried(client, report, |c| match listing::enters(c, &dirs[at]) {
            Err(error) if c.is_lost() => Err(error),
            // A name that cannot be sent, say.
            entered => Ok(entered.unwrap_or(false)),
        })?;
        if !is_there {
            missing.insert(bare.to_vec());
        }
        report.failed(Deed::new("mkdir", &dirs[at]), error);
    }
    let lost = plan.give_up(&missing);
    for item in &lost {
        let (from, to) = (
            plan.local(item.pair, &item.path),
            plan.remote(item.pair, &item.path),
        );
        let deed = Deed {
            to: Some(&to),
            ..Deed::new("upload", &from)
        };
        report.left_out(deed, "its directory could not be made");
    }
    if lost.len() > 1 {
        report.note(format_args!(
            "{} files were not sent: their directories could not be made",
            lost.len()
        ));
    }
    Ok(())
}
