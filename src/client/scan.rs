//! What is below a directory, here or there, as one kind of entry.
//!
//! Here it is read directory by directory, without recursion and with the names of one directory in
//! memory; there it is [`super::listing::tree`]. What cannot be seen is told, so that
//! nobody takes it for missing.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::proto::facts::{Kind, Listed};

use super::connection::Connection;
use super::error::{Error, Exit, shown};
use super::filter::Filter;
use super::listing;
use super::local::{is_plain_name, joined, path_of};
use super::report::Report;

/// Memory for what a server lists; a server that invents names ends here.
const LISTED_BYTES_MAX: usize = 2 << 30;

/// One name below a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the directory, plain components only.
    pub path: Box<[u8]>,
    /// What it is.
    pub kind: Kind,
    /// Its length; `None`: the server does not say.
    pub bytes: Option<u64>,
    /// Last modification, seconds since 1970.
    pub modify_s: Option<i64>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Where a link points, if it is known.
    pub target: Option<Box<[u8]>>,
}

/// What was found below a directory, each directory before what is in it.
#[derive(Debug, Default)]
pub struct Found {
    /// The directory itself, with an empty path; `None`: nothing is known of it.
    pub top: Option<Entry>,
    /// All that is in it.
    pub entries: Vec<Entry>,
    /// Directories of which something was not seen.
    pub incomplete: HashSet<Box<[u8]>>,
    /// Something was not seen, and nobody knows where.
    pub is_incomplete: bool,
    /// Names with a dot in front may be there unseen.
    pub hides_dots: bool,
}

impl Found {
    /// Whether what is missing in it is missing for sure, as far as `path` goes.
    pub fn is_sure_about(&self, path: &[u8]) -> bool {
        if self.is_incomplete || self.incomplete.contains(&b""[..]) {
            return false;
        }
        if self.hides_dots
            && path
                .split(|&b| b == b'/')
                .any(|name| name.starts_with(b"."))
        {
            return false;
        }
        let above = memchr::memchr_iter(b'/', path).map(|at| &path[..at]);
        self.incomplete.is_empty() || !above.chain([path]).any(|dir| self.incomplete.contains(dir))
    }
}

/// Reads a local tree. Links are left out unless they are followed; what cannot be read is told as
/// wrong, and what is no file, as an aside.
pub fn local(root: &Path, filter: &Filter, follows: bool, report: &Report) -> Found {
    let mut found = Found::default();
    let mut pending: Vec<Box<[u8]>> = vec![Box::default()];
    let mut seen = HashSet::new();
    let whole = |path: &[u8]| match path.is_empty() {
        true => root.to_owned(),
        false => root.join(path_of(path)),
    };
    if let Ok(meta) = fs::metadata(root) {
        seen.insert((meta.dev(), meta.ino()));
        found.top = Some(entry_of(Box::default(), &meta));
    }
    let shown_path = |path: &[u8]| shown(whole(path).as_os_str().as_bytes());
    while let Some(dir) = pending.pop() {
        let names = fs::read_dir(whole(&dir)).and_then(|entries| {
            let names = entries.map(|e| e.map(|e| e.file_name()));
            names.collect::<Result<Vec<_>, _>>()
        });
        let mut names = match names {
            Ok(names) => names,
            Err(e) => {
                let what = format!("cannot read the directory {}", shown_path(&dir));
                report.wrong(Error::local(&e).about(what));
                found.incomplete.insert(dir);
                continue;
            }
        };
        names.sort_unstable();
        let first = pending.len();
        for name in names {
            let path = joined(&dir, name.as_bytes()).into_boxed_slice();
            let looked = fs::symlink_metadata(whole(&path)).and_then(|meta| {
                match meta.is_symlink() && follows {
                    true => fs::metadata(whole(&path)),
                    false => Ok(meta),
                }
            });
            let meta = match looked {
                Ok(meta) => meta,
                Err(e) => {
                    if filter.takes(&path, false) {
                        let what = format!("cannot look at {}", shown_path(&path));
                        report.wrong(Error::local(&e).about(what));
                        found.incomplete.insert(path);
                    }
                    continue;
                }
            };
            if !filter.takes(&path, meta.is_dir()) {
                continue;
            }
            if meta.is_dir() {
                if follows && !seen.insert((meta.dev(), meta.ino())) {
                    let path = shown_path(&path);
                    report.mention(format_args!(
                        "skipped {path}: it was there already (a link)"
                    ));
                    continue;
                }
                pending.push(path.clone());
            }
            found.entries.push(entry_of(path, &meta));
        }
        // What was found first is looked into first.
        pending[first..].reverse();
    }
    found
}

fn entry_of(path: Box<[u8]>, meta: &Metadata) -> Entry {
    Entry {
        path,
        kind: kind_of(meta),
        bytes: Some(meta.len()),
        modify_s: Some(meta.mtime()),
        mode: Some(meta.permissions().mode() & 0o777),
        target: None,
    }
}

fn kind_of(meta: &Metadata) -> Kind {
    match meta.file_type() {
        it if it.is_dir() => Kind::Dir,
        it if it.is_file() => Kind::File,
        it if it.is_symlink() => Kind::Link,
        _ => Kind::Other,
    }
}

fn entry(path: Box<[u8]>, listed: Listed) -> Entry {
    Entry {
        path,
        kind: listed.kind.unwrap_or(Kind::Other),
        bytes: listed.size,
        modify_s: listed.modify_s,
        mode: listed.mode,
        target: listed.target.map(Into::into),
    }
}

/// Asks for a remote tree; `top` is what is known of the directory itself. A name that could lead
/// somewhere else is told as wrong.
///
/// # Errors
/// The server refuses, or the connection broke.
pub fn remote(
    c: &mut Connection,
    path: &[u8],
    top: Option<Listed>,
    filter: &Filter,
    report: &Report,
) -> Result<Found, Error> {
    let mut found = Found {
        top: top.map(|top| entry(Box::default(), top)),
        ..Found::default()
    };
    let mut bytes = 0;
    let mut names_bad = 0;
    listing::tell_modes(c)?;
    let path = Some(path).filter(|path| !path.is_empty());
    let missed = listing::tree(c, path, &mut |mut listed| {
        let name = std::mem::take(&mut listed.name);
        if !name.split(|&b| b == b'/').all(is_plain_name) || name.contains(&b'\n') {
            names_bad += 1;
            report.wrong(Error::new(
                Exit::Local,
                format!(
                    "skipped {}: such a name could lead out of the directory",
                    shown(&name)
                ),
            ));
            return Ok(());
        }
        if listed.incomplete {
            found.incomplete.insert(name.clone().into());
        }
        if !filter.takes_whole(&name, listed.kind == Some(Kind::Dir)) {
            return Ok(());
        }
        bytes += size_of::<Entry>() + name.len();
        if bytes > LISTED_BYTES_MAX {
            return Err(Error::broken(
                "this tree is too large to remember, more than 2 GiB of names; take its parts",
            ));
        }
        found.entries.push(entry(name.into(), listed));
        Ok(())
    })?;
    found.hides_dots = !c.features.tree && !c.features.mlst && c.lists_all != Some(true);
    let told = found.incomplete.len() as u64;
    found
        .incomplete
        .extend(missed.dirs.into_iter().map(Into::into));
    // Each directory that is marked accounts for one at least: more may be missing anywhere.
    found.is_incomplete = names_bad > 0 || missed.left_out > told;
    let n = missed.left_out.max(found.incomplete.len() as u64);
    // Names that were not taken have been told one by one.
    if n > 0 {
        report.wrong(Error::new(
            Exit::SomeFailed,
            format!(
                "the server left out {n} entries: it cannot read them, or their names cannot be sent"
            ),
        ));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_seen_is_not_missing() {
        let mut found = Found::default();
        assert!(found.is_sure_about(b"a/b"));
        found.incomplete.insert((*b"a").into());
        assert!(!found.is_sure_about(b"a/b") && !found.is_sure_about(b"a"));
        assert!(found.is_sure_about(b"ab") && found.is_sure_about(b"b/a"));
        found.hides_dots = true;
        assert!(!found.is_sure_about(b"b/.x") && found.is_sure_about(b"b/x"));
        found.is_incomplete = true;
        assert!(!found.is_sure_about(b"b"));
    }
}
