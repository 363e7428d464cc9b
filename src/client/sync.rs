//! `sync`: makes one directory like another, in one direction.
//!
//! Both sides are listed first, the remote one in one round trip where the server knows TREE, and
//! both lists are held in memory, some hundred bytes for each name. Then only what differs is moved.
//! Nothing is removed but with `--delete`, and nothing at all in a directory of the source that was
//! not seen whole.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::proto::facts::Kind;

use super::compare::{Changes, Times, compare, restamped};
use super::connection::Connection;
use super::dir::Dir;
use super::error::{Error, Exit, shown};
use super::filter::{Filter, Patterns};
use super::local::{bytes_of, joined, last_component, path_of};
use super::options::Options;
use super::plan::{Plan, Stamp};
use super::report::{Deed, Report};
use super::scan::{self, Found};
use super::server::{one_line, percent_decoded};
use super::work::{Way, retried};
use super::{Client, digest, download, listing, local, remote, stamp, upload};

/// Arguments of `sync`.
#[derive(Debug, Args)]
pub struct Synchronize {
    /// The directory to take from; one of the two is remote: :PATH, or ftp://HOST/PATH
    source: OsString,
    /// The directory to make like it
    dest: OsString,
    /// Remove what the source does not have
    #[arg(long)]
    delete: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Compare contents by digest, not by length and time
    #[arg(long)]
    checksum: bool,
    /// Take what links point to
    #[arg(long)]
    copy_links: bool,
    #[command(flatten)]
    patterns: Patterns,
    #[command(flatten)]
    options: Options,
}

/// A URL at the prompt names another server, or may.
pub const ONE_SERVER: &str = "at the prompt there is one server, so no URL is taken: write the path \
                              on it, for sync with a colon in front";

/// Where a directory is.
enum Side {
    Here(PathBuf),
    There(Vec<u8>),
}

/// Splits `ftp://host/path` into server and path; `None`: it is no URL.
pub fn url(text: &OsStr) -> Option<(&str, &str)> {
    let text = text.to_str()?;
    let (scheme, rest) = text.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("ftp") && !scheme.eq_ignore_ascii_case("ftps") {
        return None;
    }
    let at = rest
        .find('/')
        .map_or(text.len(), |at| text.len() - rest.len() + at);
    Some((&text[..at], &text[at..]))
}

fn side(text: &OsStr) -> Result<Side, Error> {
    let bytes = bytes_of(text);
    if let Some((_, path)) = url(text) {
        let path = percent_decoded(path)?;
        one_line("the remote name", &path)?;
        return Ok(Side::There(path));
    }
    match bytes.strip_prefix(b":") {
        Some(path) => {
            one_line("the remote name", path)?;
            Ok(Side::There(path.to_vec()))
        }
        None => Ok(Side::Here(PathBuf::from(text))),
    }
}

impl Synchronize {
    /// The server, if one of the two sides is a URL.
    pub fn server(&self) -> Option<&str> {
        let url = url(&self.source).or(url(&self.dest));
        url.map(|(server, _)| server)
    }

    /// Does it.
    ///
    /// # Errors
    /// One of the sides cannot be read at all, or there is no connection.
    pub fn run(&self, client: &mut Client) -> Result<Exit, Error> {
        if client.is_prompt && self.server().is_some() {
            return Err(Error::usage(ONE_SERVER));
        }
        let filter = Filter::new(&self.patterns)?;
        match (side(&self.source)?, side(&self.dest)?) {
            (Side::Here(from), Side::There(to)) => self.up(client, &from, &to, &filter),
            (Side::There(from), Side::Here(to)) => self.down(client, &from, &to, &filter),
            _ => Err(Error::usage(
                "one of the two is remote and written :PATH, as in: haul sync photos :/photos",
            )),
        }
    }

    fn up(
        &self,
        client: &mut Client,
        from: &Path,
        to: &[u8],
        filter: &Filter,
    ) -> Result<Exit, Error> {
        is_directory(from)?;
        client.ready()?;
        let report = self.options.report(client.is_quiet(), true);
        let here = scan::local(from, filter, self.copy_links, &report);
        let there = retried(client, &report, |c| self.listed(c, to, filter, &report))?;
        let times = self.times(client.ready()?, true);
        let is_new = there.is_none();
        let there = there.unwrap_or_default();
        let mut changes = compare(&here, &there, times, self.delete);
        let mut plan = Plan::default();
        let pair = plan.pair(bytes_of(from.as_os_str()).to_vec(), to.to_vec());
        if self.checksum {
            let path = |at: usize| joined(bytes_of(from.as_os_str()), &here.entries[at].path);
            self.by_digest(
                client,
                &here,
                &path,
                (&there, to),
                true,
                &mut changes,
                &report,
            )?;
        }
        if is_new && !to.is_empty() {
            plan.dirs.push((pair, Box::default()));
        }
        plan.stamps = stamps(pair, &here, &there, &changes, times);
        for &at in &changes.copy {
            let entry = &here.entries[at];
            match entry.kind {
                Kind::Link | Kind::Other => upload::skip(&report, from, entry),
                _ => plan.add(pair, entry.clone(), true),
            }
        }
        self.tell_blocked(&changes, &here, &there, &report);
        let clear = names(&there, &changes.clear, to);
        let gone = names(&there, &changes.remove, to);
        if self.dry_run {
            tell(&plan, true, b"", &clear, &gone, &report);
            return report.finish("would upload");
        }
        report.expect(plan.files.len() as u64, plan.bytes());
        self.remove_there(client, &clear, &report)?;
        let way = Way::Up {
            no_clobber: false,
            follows: self.copy_links,
        };
        upload::carry_out(client, &mut plan, way, &self.options, &report)?;
        self.remove_there(client, &gone, &report)?;
        stamp::there(client, &plan, &report)?;
        report.finish("uploaded")
    }

    fn down(
        &self,
        client: &mut Client,
        from: &[u8],
        to: &Path,
        filter: &Filter,
    ) -> Result<Exit, Error> {
        let is_new = fs::symlink_metadata(to).is_err();
        if !is_new {
            is_directory(to)?;
        }
        client.ready()?;
        let report = self.options.report(client.is_quiet(), true);
        let there = retried(client, &report, |c| self.listed(c, from, filter, &report))?;
        let about = || format!("cannot read {}", shown(from));
        let there = there.ok_or_else(|| {
            Error::new(Exit::NotFound, "there is no such directory on the server").about(about())
        })?;
        let here = match is_new {
            true => Found::default(),
            false => scan::local(to, filter, false, &report),
        };
        let times = self.times(client.ready()?, false);
        let mut changes = compare(&there, &here, times, self.delete);
        let shown_to = bytes_of(to.as_os_str());
        if self.checksum {
            let path = |at: usize| joined(shown_to, &here.entries[at].path);
            self.by_digest(
                client,
                &here,
                &path,
                (&there, from),
                false,
                &mut changes,
                &report,
            )?;
        }
        let mut plan = Plan::default();
        let pair = plan.pair(Vec::new(), from.to_vec());
        plan.stamps = stamps(pair, &there, &here, &changes, times);
        for &at in &changes.copy {
            let entry = there.entries[at].clone();
            download::add(&mut plan, pair, entry, self.copy_links, &report);
        }
        self.tell_blocked(&changes, &there, &here, &report);
        let clear = names(&here, &changes.clear, b"");
        let gone = names(&here, &changes.remove, b"");
        if self.dry_run {
            if is_new {
                plan.dirs.insert(0, (pair, Box::default()));
            }
            tell(&plan, false, shown_to, &clear, &gone, &report);
            return report.finish("would download");
        }
        if is_new {
            let made = fs::create_dir(to);
            made.map_err(|e| {
                Error::local(&e).about(format_args!("cannot make {}", shown(shown_to)))
            })?;
            report.done(Deed::new("mkdir", shown_to));
        }
        let target = Dir::open(to)?;
        report.expect(plan.files.len() as u64, plan.bytes());
        remove_here(&target, shown_to, &clear, &report);
        let way = Way::Down {
            target: target.clone(),
            shown: shown_to.to_vec(),
            replaces: true,
        };
        download::carry_out(client, &mut plan, way, &self.options, &report)?;
        remove_here(&target, shown_to, &gone, &report);
        stamp::here(&plan, &target, shown_to, &report);
        report.finish("downloaded")
    }

    /// The remote side; `None`: there is nothing of that name.
    fn listed(
        &self,
        c: &mut Connection,
        path: &[u8],
        filter: &Filter,
        report: &Report,
    ) -> Result<Option<Found>, Error> {
        listing::tell_modes(c)?;
        let itself = if path.is_empty() { b"." } else { path };
        let top = match c.features.mlst.then(|| listing::directory(c, itself)) {
            Some(Err(error)) if c.is_lost() => return Err(error),
            // Its own time is not kept then; whether it can be read is found out below.
            top => top.and_then(Result::ok).flatten(),
        };
        match scan::remote(c, path, top, filter, report) {
            Err(error) if error.code.is_some() && !c.is_lost() && !path.is_empty() => {
                match listing::stat(c, path)? {
                    None => Ok(None),
                    Some(_) => Err(error.about(format_args!("cannot list {}", shown(path)))),
                }
            }
            listed => listed.map(Some),
        }
    }

    fn times(&self, c: &Connection, is_upload: bool) -> Times {
        let features = &c.features;
        Times {
            are_rough: !features.mlst && !features.tree,
            are_kept: features.mfmt || features.upload.is_some_and(|takes| takes.modify),
            is_upload,
        }
    }

    /// `--checksum`: of files of the same length, those are copied that have another digest.
    #[allow(clippy::too_many_arguments, reason = "two trees, and where they are")]
    fn by_digest(
        &self,
        client: &mut Client,
        here: &Found,
        local: &dyn Fn(usize) -> Vec<u8>,
        (there, base): (&Found, &[u8]),
        is_upload: bool,
        changes: &mut Changes,
        report: &Report,
    ) -> Result<(), Error> {
        let pairs: Vec<(usize, usize)> = match is_upload {
            true => changes.alike.clone(),
            false => changes.alike.iter().map(|&(from, to)| (to, from)).collect(),
        };
        let bytes_max = pairs
            .iter()
            .filter_map(|&(at, _)| here.entries[at].bytes)
            .max();
        let path = |&(_, at): &(usize, usize)| joined(base, &there.entries[at].path);
        let paths: Vec<Vec<u8>> = pairs.iter().map(path).collect();
        let (asking, theirs) = retried(client, report, |c| {
            let Some(asking) = digest::asking(c)? else {
                return Err(Error::new(
                    Exit::Differ,
                    "this server knows no digests, so --checksum cannot compare; leave it out to \
                     compare by length and time",
                ));
            };
            let digests = digest::of_remote(c, asking, &paths, bytes_max.unwrap_or(0))?;
            Ok((asking, digests))
        })?;
        let mut same = HashSet::new();
        let mut other = Vec::new();
        for (&(mine, their), theirs) in pairs.iter().zip(theirs) {
            let bytes = here.entries[mine].bytes.unwrap_or(0);
            let digest = local::source(&path_of(&local(mine)), self.copy_links)
                .and_then(|mut s| digest::of_local(asking.algorithm, &mut s.file, bytes));
            let from = if is_upload { mine } else { their };
            match digest.is_ok_and(|digest| theirs == Some(digest)) {
                true => {
                    same.insert(from);
                }
                false => other.push(from),
            }
        }
        changes.copy.retain(|at| !same.contains(at));
        changes.copy.extend(other);
        changes.copy.sort_unstable();
        changes.copy.dedup();
        Ok(())
    }

    /// What was not done, and why.
    fn tell_blocked(&self, changes: &Changes, from: &Found, to: &Found, report: &Report) {
        for &at in &changes.blocked {
            let path = shown(&from.entries[at].path);
            report.wrong(Error::new(
                Exit::SomeFailed,
                format!(
                    "left out {path}: a file and a directory have that name; --delete removes what \
                     is in the way"
                ),
            ));
        }
        if let Some(&at) = changes.kept.first() {
            let path = shown(&to.entries[at].path);
            let n = changes.kept.len();
            report.wrong(Error::new(
                Exit::SomeFailed,
                format!(
                    "{n} entries were not removed ({path} is one): the source could not be read \
                     completely there, so they may be in it"
                ),
            ));
        }
    }

    fn remove_there(
        &self,
        client: &mut Client,
        names: &[(Vec<u8>, bool)],
        report: &Report,
    ) -> Result<(), Error> {
        if names.is_empty() {
            return Ok(());
        }
        let mut told = HashSet::new();
        retried(client, report, |c| {
            remote::remove(c, names, &mut |at, removed| {
                if told.insert(at) {
                    report.outcome(Deed::new("delete", &names[at].0), removed);
                }
            })
        })
    }
}

/// `--dry-run`: what would be told, with `base` in front of the local names of a download.
fn tell(
    plan: &Plan,
    is_upload: bool,
    base: &[u8],
    clear: &[(Vec<u8>, bool)],
    gone: &[(Vec<u8>, bool)],
    report: &Report,
) {
    let delete = |names: &[(Vec<u8>, bool)]| {
        for (name, _) in names {
            let name = if is_upload {
                name.clone()
            } else {
                joined(base, name)
            };
            report.planned(Deed::new("delete", &name));
        }
    };
    let sides = |pair, path: &[u8]| {
        let (here, there) = (plan.local(pair, path), plan.remote(pair, path));
        match (is_upload, here.is_empty()) {
            (true, _) => (here, there),
            (false, true) => (there, base.to_vec()),
            (false, false) => (there, joined(base, &here)),
        }
    };
    delete(clear);
    for (pair, path) in &plan.dirs {
        report.planned(Deed::new("mkdir", &sides(*pair, path).1));
    }
    for item in &plan.files {
        let (from, to) = sides(item.pair, &item.path);
        let verb = if is_upload { "upload" } else { "download" };
        report.planned(Deed {
            to: Some(&to),
            bytes: item.is_sized.then_some(item.bytes),
            ..Deed::new(verb, &from)
        });
    }
    for (pair, path, target) in &plan.links {
        report.planned(Deed {
            to: Some(target),
            ..Deed::new("link", &sides(*pair, path).1)
        });
    }
    delete(gone);
}

/// Directories that are on both sides and get the time of the first. Their permissions stay.
fn stamps(pair: u32, from: &Found, to: &Found, changes: &Changes, times: Times) -> Vec<Stamp> {
    let stamp = |entry: &scan::Entry| Stamp {
        pair,
        path: entry.path.clone(),
        modify_s: entry.modify_s,
        mode: None,
    };
    restamped(from, to, changes, times)
        .into_iter()
        .map(stamp)
        .collect()
}

/// Names to be removed, and whether they are directories.
fn names(found: &Found, places: &[usize], base: &[u8]) -> Vec<(Vec<u8>, bool)> {
    let entries = places.iter().map(|&at| &found.entries[at]);
    entries
        .map(|entry| (joined(base, &entry.path), entry.kind == Kind::Dir))
        .collect()
}

fn is_directory(path: &Path) -> Result<(), Error> {
    let about = || format!("cannot sync {}", shown(bytes_of(path.as_os_str())));
    let meta = fs::metadata(path).map_err(|e| Error::local(&e).about(about()))?;
    match meta.is_dir() {
        true => Ok(()),
        false => Err(Error::new(Exit::Local, "it is no directory").about(about())),
    }
}

fn remove_here(target: &Dir, shown_to: &[u8], names: &[(Vec<u8>, bool)], report: &Report) {
    for (path, is_dir) in names {
        let remove = || {
            let name = last_component(path).ok_or_else(|| Error::usage("it has no name"))?;
            let dir = target.below(&path[..path.len() - name.len()])?;
            let name = path_of(name);
            let removed = match is_dir {
                true => dir.remove_dir(name.as_os_str()),
                false => dir.remove_file(name.as_os_str()),
            };
            removed.map_err(|e| Error::local(&e))
        };
        report.outcome(Deed::new("delete", &joined(shown_to, path)), remove());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides() {
        let there = |text: &str| match side(OsStr::new(text)) {
            Ok(Side::There(path)) => Some(String::from_utf8(path).unwrap()),
            _ => None,
        };
        assert_eq!(there(":/a b").as_deref(), Some("/a b"));
        assert_eq!(there(":").as_deref(), Some(""));
        assert_eq!(there("ftp://me@host:2121/a%20b").as_deref(), Some("/a b"));
        assert_eq!(there("ftp://host").as_deref(), Some(""));
        assert_eq!(there("./:a"), None);
        assert_eq!(there("http://host/a"), None);
        let url = url(OsStr::new("ftps://me@host:2121/a"));
        assert_eq!(url, Some(("ftps://me@host:2121", "/a")));
    }
}
