//! `rm`: a file, an empty directory, or, with `-r`, a directory on the server with all that is in it.
//!
//! What is to be removed is listed first, then removed from below. A link is removed and not
//! followed: every name is tried as a file before it is taken for a directory.

use std::collections::HashSet;

use crate::proto::facts::Kind;

use super::Client;
use super::error::{Error, Exit, shown};
use super::filter::{Filter, Patterns};
use super::local::{joined, last_component};
use super::plan::is_at_or_below;
use super::report::{Report, Style};
use super::work::retried;
use super::{listing, remote, scan};

/// Removes a file, or a link.
///
/// # Errors
/// The server refuses.
pub fn file(client: &mut Client, path: &[u8]) -> Result<(), Error> {
    let c = client.ready()?;
    let Err(refused) = c.command("DELE", Some(path))?.success() else {
        return Ok(());
    };
    // One question that changes nothing.
    let is_dir = refused.code == Some(listing::NOTHING_THERE)
        && c.features.mlst
        && matches!(listing::directory(c, path), Ok(Some(_)));
    Err(match is_dir {
        true => Error::new(
            refused.exit,
            "it is a directory; -r removes it with all that is in it, -d if it is empty",
        ),
        false => refused,
    })
}

/// Removes an empty directory.
///
/// # Errors
/// The server refuses.
pub fn directory(client: &mut Client, path: &[u8]) -> Result<(), Error> {
    let reply = client.ready()?.command("RMD", Some(path))?;
    reply.success().map(drop)
}

/// Nothing of that name is as good as removed.
///
/// # Errors
/// There is something, so `error` stands; or the connection broke.
pub fn unless_gone(client: &mut Client, path: &[u8], error: Error) -> Result<(), Error> {
    let may_be_gone = error.code == Some(listing::NOTHING_THERE) && client.is_connected();
    match may_be_gone && listing::stat(client.ready()?, path)?.is_none() {
        true => Ok(()),
        false => Err(error),
    }
}

/// Removes what has the name `path`, a directory with all that is in it.
///
/// # Errors
/// There is nothing of that name, or something of it could not be removed; what could is gone.
pub fn all(client: &mut Client, path: &[u8]) -> Result<(), Error> {
    // Behind a slash a link is what it points to.
    let end = path.iter().rposition(|&b| b != b'/').map_or(0, |at| at + 1);
    let path = &path[..end];
    if last_component(path).is_none() {
        return Err(Error::usage(
            "-r wants the directory's own name, and never removes all of a server",
        ));
    }
    let c = client.ready()?;
    let refused = match c.command("DELE", Some(path))?.success() {
        Ok(_) => return Ok(()),
        Err(refused) => refused,
    };
    if !listing::is_dir(c, path)? {
        return Err(refused);
    }
    let report = Report::new(Style::Quiet, None);
    let filter = Filter::new(&Patterns::default())?;
    let found = retried(client, &report, |c| {
        scan::remote(c, path, None, &filter, &report)
    })?;
    let mut names: Vec<(Vec<u8>, bool)> = found
        .entries
        .iter()
        .map(|entry| (joined(path, &entry.path), entry.kind == Kind::Dir))
        .collect();
    if !client.ready()?.features.tree {
        spare_what_links_lead_to(client, &mut names, &report)?;
    }
    names.reverse();
    names.push((path.to_vec(), true));
    let mut told = HashSet::new();
    let mut first = None;
    let mut failed = 0u64;
    retried(client, &report, |c| {
        remote::remove(c, &names, &mut |at, removed| {
            if let (true, Err(error)) = (told.insert(at), removed) {
                failed += 1;
                let name = &names[at].0;
                first.get_or_insert_with(|| error.about(shown(name)));
            }
        })
    })?;
    match first {
        None => Ok(()),
        // Each directory above what stays is not empty: that is no news.
        Some(error) if failed > 1 => Err(error
            .hint(format_args!("{failed} names are left in all"))
            .exit(Exit::SomeFailed)),
        Some(error) => Err(error),
    }
}

/// Many servers list a link to a directory as a directory. Deleted as a file the link goes and a
/// directory stays; what was listed behind a link is taken out of `names`.
fn spare_what_links_lead_to(
    client: &mut Client,
    names: &mut Vec<(Vec<u8>, bool)>,
    report: &Report,
) -> Result<(), Error> {
    let dirs = names.iter().filter(|(_, is_dir)| *is_dir);
    let dirs: Vec<Vec<u8>> = dirs.map(|(path, _)| path.clone()).collect();
    let mut links = HashSet::new();
    // One after the other, from above: what is behind a link is not even tried.
    for dir in dirs {
        if is_at_or_below(&dir, &links) {
            continue;
        }
        let reply = retried(client, report, |c| c.command("DELE", Some(&dir)))?;
        if reply.is_success() {
            links.insert(dir);
        }
    }
    names.retain(|(path, _)| !is_at_or_below(path, &links));
    Ok(())
}
