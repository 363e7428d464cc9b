//! `download`: names on the command line become a plan. The rules of `cp` for targets live here.

use std::ffi::OsString;
use std::io::{IsTerminal, Write, stdout};
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::fs::symlinkat;

use crate::proto::facts::Kind;

use super::dir::Dir;
use super::error::{Error, Exit, shown};
use super::filter::{Filter, Patterns};
use super::incoming::{self, parent_of};
use super::local::{bytes_of, joined, last_component, path_of};
use super::options::Options;
use super::plan::{Item, Plan};
use super::report::{Deed, Report};
use super::upload::split_target;
use super::work::{Way, Work, retried};
use super::{Client, glob, listing, scan, stamp, transfer};

/// Arguments of `download`.
#[derive(Debug, Args)]
pub struct Download {
    /// Remote files and, behind them, the local target as with cp; `-` is standard output. With one
    /// argument the copy has the same last component
    #[arg(required = true, value_name = "REMOTE")]
    pub names: Vec<OsString>,
    /// The local directory to download into; then all arguments are remote files
    #[arg(short, value_name = "DIR")]
    pub target: Option<PathBuf>,
    /// Bring directories with all that is below them; links that lead out of them are skipped
    #[arg(short, long)]
    recursive: bool,
    /// Bring what links in directories point to
    #[arg(long)]
    copy_links: bool,
    /// Replace local files that exist
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    patterns: Patterns,
    #[command(flatten)]
    options: Options,
}

impl Download {
    /// Does it.
    ///
    /// # Errors
    /// Nothing was brought, or the only file failed.
    pub fn run(&self, client: &mut Client) -> Result<Exit, Error> {
        let (sources, last) = split_target(&self.names, self.target.is_some());
        let sources = &glob::remote(client, sources)?[..];
        let target = self.target.as_deref().or(last.map(Path::new));
        if self.target.is_none() && target.is_some_and(|t| t.as_os_str() == "-") {
            return self.to_standard_output(client, sources);
        }
        let into = self.directory(sources, target)?;
        let filter = Filter::new(&self.patterns)?;
        let report = self
            .options
            .report(client.is_quiet(), self.recursive || sources.len() > 1);
        if let ([remote], false) = (sources, self.recursive) {
            // What fails without the server is found without it.
            let remote = bytes_of(remote);
            let path = destination(remote, into, target);
            let to = path.as_ref().ok().map(|path| bytes_of(path.as_os_str()));
            let deed = Deed {
                to,
                ..Deed::new("download", remote)
            };
            let check = || {
                let (dir, name) = parent_of(path.as_ref().map_err(Error::again)?)?;
                let free = incoming::check_free(&dir, &name, self.force);
                match free {
                    Err(error) if dir.is_dir(&name) => {
                        Err(error.hint("if it is one on the server too, -r brings it"))
                    }
                    free => free,
                }
            };
            if let Err(error) = check() {
                report.expect(1, 0);
                report.failed(deed, error);
                return report.finish("downloaded");
            }
        }
        client.ready()?;
        let (base, shown_base) = match (into, target) {
            (None, Some(path)) => {
                let parent = path.parent().unwrap_or(Path::new(""));
                (parent, bytes_of(parent.as_os_str()))
            }
            (into, _) => {
                let into = into.unwrap_or(Path::new(""));
                (into, bytes_of(into.as_os_str()))
            }
        };
        let mut plan = Plan::default();
        let mut failed = Vec::new();
        for remote in sources.iter().map(|source| bytes_of(source)) {
            let planned = self.plan(client, remote, into, target, &filter, &report, &mut plan);
            if let Err(error) = planned {
                if !client.is_connected() {
                    return Err(about(error, remote));
                }
                failed.push((remote, error));
            }
        }
        report.expect((plan.files.len() + failed.len()) as u64, plan.bytes());
        for (from, error) in failed {
            report.failed(Deed::new("download", from), error);
        }
        let target = Dir::open(base)
            .map_err(|e| e.about(format_args!("cannot download into {}", shown(shown_base))))?;
        let way = Way::Down {
            target: target.clone(),
            shown: shown_base.to_vec(),
            replaces: self.force,
        };
        carry_out(client, &mut plan, way, &self.options, &report)?;
        stamp::here(&plan, &target, shown_base, &report);
        report.finish("downloaded")
    }

    /// The local directory that all go into, if there is one.
    fn directory<'a>(
        &self,
        sources: &[OsString],
        target: Option<&'a Path>,
    ) -> Result<Option<&'a Path>, Error> {
        let Some(path) = target else {
            return Ok(Some(Path::new("")));
        };
        let must_be = self.target.is_some()
            || bytes_of(path.as_os_str()).ends_with(b"/")
            || sources.len() > 1;
        match path.is_dir() {
            true => Ok(Some(path)),
            false if must_be => Err(Error::new(
                Exit::Local,
                format!(
                    "{} is no directory of this machine; make it first",
                    shown(bytes_of(path.as_os_str()))
                ),
            )),
            false => Ok(None),
        }
    }

    /// Adds what one argument stands for.
    #[allow(
        clippy::too_many_arguments,
        reason = "one call, and each is another thing"
    )]
    fn plan(
        &self,
        client: &mut Client,
        remote: &[u8],
        into: Option<&Path>,
        target: Option<&Path>,
        filter: &Filter,
        report: &Report,
        plan: &mut Plan,
    ) -> Result<(), Error> {
        let top = match self.recursive {
            true => {
                let c = client.ready()?;
                listing::tell_modes(c)?;
                listing::directory(c, remote)?
            }
            false => None,
        };
        let is_tree = top.is_some();
        let name = match (into, target) {
            (None, Some(path)) => {
                let name = path.file_name().map(bytes_of);
                name.ok_or_else(|| Error::usage("the target has no name"))?
            }
            _ => match (last_component(remote), is_tree) {
                (Some(name), _) => name,
                // `download -r . photos`: what is in it goes there.
                (None, true) => b"",
                (None, false) => return Err(Error::usage("its last component is no file name")),
            },
        };
        let pair = plan.pair(name.to_vec(), remote.to_vec());
        if !is_tree {
            plan.files.push(Item {
                pair,
                path: Box::default(),
                bytes: 0,
                modify_s: None,
                mode: None,
                is_sized: false,
            });
            return Ok(());
        }
        let found = retried(client, report, |c| {
            scan::remote(c, remote, top.clone(), filter, report)
        })?;
        plan.add_top(pair, found.top);
        for entry in found.entries {
            add(plan, pair, entry, self.copy_links, report);
        }
        Ok(())
    }

    fn to_standard_output(&self, client: &mut Client, sources: &[OsString]) -> Result<Exit, Error> {
        client.ready()?;
        let shows = !client.is_quiet() && !stdout().is_terminal();
        let report = self.options.report(!shows, false);
        report.expect(sources.len() as u64, 0);
        for source in sources {
            let remote = bytes_of(source);
            let mut bring = || {
                let mut out = stdout().lock();
                let mut progress = report.board.file(&shown(remote), 0);
                let c = client.ready()?;
                transfer::download(c, remote, None, &mut out, &mut progress)?;
                out.flush().map_err(|e| Error::local(&e))
            };
            if let Err(error) = bring() {
                report.failed(Deed::new("download", remote), error);
            }
        }
        report.finish("downloaded")
    }
}

fn about(error: Error, remote: &[u8]) -> Error {
    error.about(format_args!("cannot download {}", shown(remote)))
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

/// Adds one entry of a remote tree, unless it cannot be here.
pub fn add(plan: &mut Plan, pair: u32, entry: scan::Entry, follows: bool, report: &Report) {
    let path = || shown(&plan.remote(pair, &entry.path));
    match (entry.kind, &entry.target) {
        (Kind::Other, _) => report.mention(format_args!("skipped {}: it is no file", path())),
        (Kind::Link, None) if !follows => report.mention(format_args!(
            "skipped the link {}: the server does not say where it points",
            path()
        )),
        (Kind::Link, Some(target)) if !follows && !stays_inside(&entry.path, target) => {
            report.mention(format_args!(
                "skipped the link {}: it leads out, to {}",
                path(),
                shown(target)
            ));
        }
        _ => plan.add(pair, entry, follows),
    }
}

/// Whether a link at `path` points below the directory that `path` is relative to. Only leading `..`
/// count: behind a name that is a link itself they would lead from somewhere else.
fn stays_inside(path: &[u8], target: &[u8]) -> bool {
    if target.is_empty() || target.starts_with(b"/") {
        return false;
    }
    let mut above = path.iter().filter(|&&b| b == b'/').count();
    let mut is_down = false;
    for part in target.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if is_down || above == 0 => return false,
            b".." => above -= 1,
            _ => is_down = true,
        }
    }
    true
}

/// Makes the local directories of a plan, brings its files, and makes its links.
///
/// # Errors
/// No connection, or the target is not there.
pub fn carry_out(
    client: &mut Client,
    plan: &mut Plan,
    way: Way,
    options: &Options,
    report: &Report,
) -> Result<(), Error> {
    let (target, shown_base, replaces) = match &way {
        Way::Down {
            target,
            shown,
            replaces,
        } => (target.clone(), shown.clone(), *replaces),
        Way::Up { .. } => return Err(Error::usage("it is no download")),
    };
    let mut twice = Vec::new();
    plan.each_once(false, |item| twice.push(item.clone()));
    for item in twice {
        let name = plan.remote(item.pair, &item.path);
        let error = Error::new(Exit::Local, "two files would get the same name");
        report.failed(Deed::new("download", &name), error);
    }
    for (pair, path) in &plan.dirs {
        let local = plan.local(*pair, path);
        let shown_path = joined(&shown_base, &local);
        if target.below(&local).is_ok() {
            continue;
        }
        let made = target.made_below(&local).map(drop);
        report.outcome(Deed::new("mkdir", &shown_path), made);
    }
    if !plan.files.is_empty() {
        Work::new(plan, way, options, report, client).run(client)?;
    }
    for (pair, path, to) in &plan.links {
        let local = plan.local(*pair, path);
        let shown_path = joined(&shown_base, &local);
        let deed = Deed {
            to: Some(to),
            ..Deed::new("link", &shown_path)
        };
        match link(&target, &local, to, replaces) {
            Ok(true) => report.done(deed),
            Ok(false) => {}
            Err(error) => report.failed(deed, error),
        }
    }
    Ok(())
}

/// Makes one link; false: it was there.
fn link(target: &Dir, local: &[u8], to: &[u8], replaces: bool) -> Result<bool, Error> {
    let name = last_component(local).ok_or_else(|| Error::usage("it has no name"))?;
    let dir = target.made_below(&local[..local.len() - name.len()])?;
    let (name, to) = (path_of(name).into_os_string(), path_of(to));
    let there = rustix::fs::readlinkat(&dir, &name, Vec::new()).ok();
    if there.is_some_and(|there| there.as_bytes() == bytes_of(to.as_os_str())) {
        return Ok(false);
    }
    incoming::check_free(&dir, &name, replaces)?;
    let made = match replaces {
        true => incoming::put_link(&dir, &name, &to),
        false => symlinkat(&to, &dir, &name).map_err(Into::into),
    };
    made.map(|()| true).map_err(|e| Error::local(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l06_links_stay_inside() {
        let check = |path: &str, target: &str, expected| {
            let stays = stays_inside(path.as_bytes(), target.as_bytes());
            assert_eq!(stays, expected, "{path} -> {target}");
        };
        check("l", "a", true);
        check("d/l", "../a", true);
        check("d/l", "./a/b", true);
        check("d/l", "..", true);
        check("l", "..", false);
        check("l", "/etc/passwd", false);
        check("d/l", "../../a", false);
        check("a/b/l", "x/../y", false);
        check("l", "", false);
    }
}
