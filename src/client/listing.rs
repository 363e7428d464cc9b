//! What is on the server: MLSD, MLST and TREE where it has them, otherwise LIST, SIZE and CWD.
//!
//! Everything streams: entries are handed on as they come, with names that nobody has looked at:
//! which may be used is decided elsewhere.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::proto::facts::{Kind, Listed, parse_entry};
use crate::proto::line::number;
use crate::proto::list::parse_list_line;

use super::connection::Connection;
use super::data;
use super::error::{Error, Exit, shown};
use super::local::{is_plain_name, joined, last_component};
use super::reply::{Line, Reply};
use super::transfer::{self, drain, modification};

/// The only reply to MLST and SIZE that means that nothing of that name is there.
pub const NOTHING_THERE: u16 = 550;
/// The longest line of a listing.
const ENTRY_BYTES_MAX: usize = 64 * 1024;
/// Memory for the directories that a walk has still before it; a server that invents them ends here.
const PENDING_BYTES_MAX: usize = 64 << 20;
/// The longest path of a walk, which also bounds its depth.
const WALK_PATH_BYTES_MAX: usize = 4000;

/// Takes one entry after the other.
pub type Take<'a> = dyn FnMut(Listed) -> Result<(), Error> + 'a;

/// Lists a directory, or the working directory.
///
/// # Errors
/// The server refuses, the transfer breaks, or `take` fails.
pub fn list(c: &mut Connection, path: Option<&[u8]>, take: &mut Take) -> Result<(), Error> {
    if c.features.mlst {
        let now_s = now_s();
        return lines_of(c, "MLSD", path, &mut |line| match parse_entry(line)
            .or_else(|| parse_list_line(line, now_s))
        {
            Some(mut entry) if entry.kind.is_some() => {
                // pure-ftpd says "slink:" without a target.
                entry.target = entry.target.filter(|target| !target.is_empty());
                take(entry)
            }
            _ => Ok(()),
        });
    }
    // LIST takes options and patterns on many servers, so it gets no argument at all.
    let Some(path) = path else {
        return list_here(c, take);
    };
    let back = c.cwd()?;
    c.cd(path)?;
    let listed = list_here(c, take);
    if !c.is_lost() {
        c.cd(&back)?;
    }
    listed
}

/// The working directory by LIST. Many servers hide names with a dot in front unless they are asked
/// with `-a`; others take that for a name, and refuse or list nothing.
fn list_here(c: &mut Connection, take: &mut Take) -> Result<(), Error> {
    if c.lists_all != Some(false) {
        let (mut lines, mut shows_all) = (0, false);
        let listed = list_with(c, Some(b"-a"), &mut lines, &mut shows_all, take);
        match listed {
            Ok(()) if lines > 0 => {
                c.lists_all = shows_all.then_some(true).or(c.lists_all);
                return Ok(());
            }
            Err(error) if error.code.is_none() || c.is_lost() || lines > 0 => return Err(error),
            _ => c.lists_all = Some(false),
        }
    }
    list_with(c, None, &mut 0, &mut false, take)
}

/// LIST with these options. Whether the directory itself is in it tells whether hidden names are.
fn list_with(
    c: &mut Connection,
    options: Option<&[u8]>,
    lines: &mut u64,
    shows_all: &mut bool,
    take: &mut Take,
) -> Result<(), Error> {
    let now_s = now_s();
    lines_of(c, "LIST", options, &mut |line| {
        *lines += 1;
        let Some(entry) = parse_list_line(line, now_s) else {
            return Ok(());
        };
        match &*entry.name {
            b"." => *shows_all = true,
            b".." => {}
            _ => return take(entry),
        }
        Ok(())
    })
}

/// Asks for permission bits in what follows, where the server can tell them and does not unasked.
///
/// # Errors
/// The connection broke.
pub fn tell_modes(c: &mut Connection) -> Result<(), Error> {
    if c.features.mlst_modes && !c.has_modes {
        // Refusal is fine.
        c.command("OPTS", Some(b"MLST type;size;modify;unix.mode;"))?;
        c.has_modes = true;
    }
    Ok(())
}

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

/// Runs a listing verb and hands on the lines of its data connection.
fn lines_of(
    c: &mut Connection,
    verb: &str,
    path: Option<&[u8]>,
    take: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut data = data::open(c)?;
    c.send(verb, path)?;
    data::go_ahead(c, &mut data)?;
    let mut held: Vec<u8> = Vec::new();
    let fits = |line: &[u8]| match line.len() > ENTRY_BYTES_MAX {
        true => Err(Error::broken("a line of the listing never ends")),
        false => Ok(()),
    };
    let mut each_line = |held: &mut Vec<u8>| {
        let mut from = 0;
        while let Some(at) = memchr::memchr(b'\n', &held[from..]) {
            let line = &held[from..from + at];
            fits(line)?;
            take(line.strip_suffix(b"\r").unwrap_or(line))?;
            from += at + 1;
        }
        held.drain(..from);
        fits(held)
    };
    let mut drained = drain(c, &mut data, &mut |chunk| {
        held.extend_from_slice(chunk);
        each_line(&mut held)
    });
    if drained.is_ok() && !held.is_empty() {
        held.push(b'\n');
        drained = each_line(&mut held);
    }
    drop(data);
    match drained {
        Ok(()) => c.read_reply()?.success().map(|_| ()),
        Err(error) => {
            if error.code.is_none() && !c.is_lost() {
                let _ = c.read_reply();
            }
            Err(error)
        }
    }
}

/// What the server knows about one path; `None`: nothing is there.
///
/// # Errors
/// The server does not say (only 550 means that nothing is there), or the connection broke.
pub fn stat(c: &mut Connection, path: &[u8]) -> Result<Option<Listed>, Error> {
    if c.features.mlst {
        let reply = c.command("MLST", Some(path))?;
        if reply.code == NOTHING_THERE {
            return Ok(None);
        }
        let reply = reply.success()?;
        let Some(mut entry) = entry_in(&reply) else {
            return Err(Error::broken(format!(
                "cannot read the reply to MLST: {reply}"
            )));
        };
        entry.name = path.to_vec();
        entry.target = entry.target.map(|target| c.name_in_reply(&target));
        return Ok(Some(entry));
    }
    let mut entry = Listed {
        kind: Some(Kind::File),
        ..Listed::new(path)
    };
    c.binary()?;
    let reply = c.command("SIZE", Some(path))?;
    entry.size = transfer::size_of(&reply);
    if entry.size.is_some() {
        entry.modify_s = modification(&c.command("MDTM", Some(path))?);
        return Ok(Some(entry));
    }
    if enters(c, path)? {
        entry.kind = Some(Kind::Dir);
        return Ok(Some(entry));
    }
    match reply.code {
        NOTHING_THERE => Ok(None),
        // It knows no SIZE at all.
        500 | 502 => stat_by_list(c, path, &reply),
        _ => Err(Error::refused(&reply)),
    }
}

/// What the directory above says about a path that cannot be asked for by itself.
fn stat_by_list(c: &mut Connection, path: &[u8], refusal: &Reply) -> Result<Option<Listed>, Error> {
    let name = last_component(path).ok_or_else(|| Error::refused(refusal))?;
    let end = memchr::memmem::rfind(path, name).unwrap_or(0);
    let above = match path[..end].iter().rposition(|&b| b != b'/') {
        Some(last) => Some(&path[..=last]),
        None => path.get(..end.min(1)).filter(|root| !root.is_empty()),
    };
    let mut found = None;
    let listed = list(c, above, &mut |entry| {
        if entry.name == name {
            found = Some(entry);
        }
        Ok(())
    });
    match listed {
        Ok(()) => {}
        Err(error) if error.code == Some(NOTHING_THERE) && !c.is_lost() => return Ok(None),
        Err(error) => return Err(error),
    }
    if found.is_none() && name.starts_with(b".") && c.lists_all != Some(true) {
        // It may be there and not be shown.
        return Err(Error::refused(refusal));
    }
    Ok(found.map(|entry| Listed {
        name: path.to_vec(),
        ..entry
    }))
}

/// The entry in a successful reply to MLST.
pub fn entry_in(reply: &Reply) -> Option<Listed> {
    let middle = reply.lines.get(1).filter(|_| reply.lines.len() >= 3)?;
    let mut entry = parse_entry(middle.strip_prefix(b" ").unwrap_or(middle))?;
    // "The directory itself" (cdir) is what a stat of "." or of the working directory gives.
    entry.kind = entry.kind.or(Some(Kind::Dir));
    Some(entry)
}

/// Whether the server lets the session into `path`. The working directory is the same afterwards.
///
/// # Errors
/// The connection broke.
pub fn enters(c: &mut Connection, path: &[u8]) -> Result<bool, Error> {
    let back = c.cwd()?;
    match c.cd(path) {
        Ok(()) => c.cd(&back).map(|()| true),
        Err(error) if error.code.is_some() && !c.is_lost() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether `path` is a directory.
///
/// # Errors
/// The server does not say, or the connection broke.
pub fn is_dir(c: &mut Connection, path: &[u8]) -> Result<bool, Error> {
    directory(c, path).map(|dir| dir.is_some())
}

/// What the server knows about the directory `path`; `None`: it is none.
///
/// # Errors
/// The server does not say, or the connection broke.
pub fn directory(c: &mut Connection, path: &[u8]) -> Result<Option<Listed>, Error> {
    if c.features.mlst {
        let there = stat(c, path)?;
        return Ok(there.filter(|entry| entry.kind == Some(Kind::Dir)));
    }
    let dir = enters(c, path)?.then(|| Listed {
        kind: Some(Kind::Dir),
        ..Listed::new(path)
    });
    Ok(dir)
}

/// What was to be moved into `dir` has no place there.
pub fn no_directory(dir: &[u8]) -> Error {
    let bare = dir
        .iter()
        .rposition(|&b| b != b'/')
        .map_or(dir, |at| &dir[..=at]);
    Error::new(
        Exit::NotFound,
        format!(
            "{} is no directory on the server; make it with: haul mkdir {}",
            shown(dir),
            shown(bare)
        ),
    )
}

/// `--no-clobber`: whether nothing has the name `path`.
///
/// # Errors
/// Something has it, the server does not say for sure, or the connection broke.
pub fn check_free(c: &mut Connection, path: &[u8]) -> Result<(), Error> {
    let there = match c.features.mlst || c.features.size {
        true => stat(c, path),
        false => Err(Error::new(
            Exit::NotFound,
            "this server cannot say whether a name is taken (it has neither MLST nor SIZE)",
        )),
    };
    match there.map_err(|e| e.hint("so --no-clobber sends nothing"))? {
        None => Ok(()),
        Some(_) => Err(Error::new(
            Exit::Local,
            "a remote file of that name exists already (--no-clobber)",
        )),
    }
}

/// What a walk did not show.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// So many entries, somewhere.
    pub left_out: u64,
    /// Directories that the server did not list.
    pub dirs: Vec<Vec<u8>>,
}

/// Everything below a directory, each directory before what is in it; names are paths relative to
/// it. Links are not followed.
///
/// # Errors
/// The server refuses, the transfer breaks, or `take` fails.
pub fn tree(c: &mut Connection, path: Option<&[u8]>, take: &mut Take) -> Result<Missed, Error> {
    match c.features.tree {
        true => tree_inline(c, path, take),
        false => walk(c, path, take),
    }
}

fn tree_inline(c: &mut Connection, path: Option<&[u8]>, take: &mut Take) -> Result<Missed, Error> {
    c.send("TREE", path)?;
    let mut is_first = true;
    loop {
        match c.read_line_of_reply()? {
            Line::Middle(_) if is_first => is_first = false,
            Line::Middle(line) => {
                let entry = parse_entry(line.strip_prefix(b" ").unwrap_or(&line));
                if let Some(mut entry) = entry {
                    entry.name = c.name_in_reply(&entry.name);
                    entry.target = entry.target.map(|target| c.name_in_reply(&target));
                    // Nobody wants the rest, and it may be long.
                    take(entry).inspect_err(|_| c.give_up())?;
                }
            }
            Line::End(code, text) => {
                let reply = Reply {
                    code,
                    lines: vec![text],
                };
                if code == 421 {
                    c.give_up();
                }
                return Ok(Missed {
                    left_out: left_out(reply.success()?.text()),
                    dirs: Vec::new(),
                });
            }
        }
    }
}

/// The 2 of `41 entries, 2 left out.`
fn left_out(text: &[u8]) -> u64 {
    let words: Vec<&[u8]> = text.split(|&b| b == b' ').collect();
    words
        .windows(2)
        .find(|pair| pair[1] == b"left")
        .and_then(|pair| number(pair[0]))
        .unwrap_or(0)
}

/// Directory by directory; nothing that is no plain name is looked into.
fn walk(c: &mut Connection, path: Option<&[u8]>, take: &mut Take) -> Result<Missed, Error> {
    let memory_of = |path: &Vec<u8>| size_of::<Vec<u8>>() + path.len();
    let mut pending: Vec<Vec<u8>> = vec![Vec::new()];
    let mut pending_bytes = memory_of(&pending[0]);
    let mut missed = Missed::default();
    while let Some(relative) = pending.pop() {
        pending_bytes -= memory_of(&relative);
        let whole = match path {
            Some(path) => joined(path, &relative),
            None => relative.clone(),
        };
        let mut local_failure = false;
        let listed = list(
            c,
            Some(&whole).filter(|p| !p.is_empty()).map(|p| &**p),
            &mut |mut entry| {
                let is_plain = is_plain_name(&entry.name);
                if !is_plain && entry.name.contains(&b'/') {
                    // A path where a name should be. Joined it could pass for one that was walked.
                    entry.name.splice(..0, *b"./");
                }
                entry.name = joined(&relative, &entry.name);
                if entry.kind == Some(Kind::Dir) && is_plain {
                    pending_bytes += memory_of(&entry.name);
                    if entry.name.len() > WALK_PATH_BYTES_MAX {
                        return Err(Error::broken("the tree of this server never ends"));
                    }
                    if pending_bytes > PENDING_BYTES_MAX {
                        return Err(Error::broken(
                            "this tree has too many directories to remember, more than 64 MiB \
                             of names; list its parts",
                        ));
                    }
                    pending.push(entry.name.clone());
                }
                take(entry).inspect_err(|_| local_failure = true)
            },
        );
        match listed {
            Ok(()) => {}
            Err(e)
                if e.code.is_some() && !c.is_lost() && !local_failure && !relative.is_empty() =>
            {
                missed.dirs.push(relative);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(missed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_tree() {
        assert_eq!(left_out(b"41 entries."), 0);
        assert_eq!(left_out(b"41 entries, 2 left out."), 2);
        assert_eq!(left_out(b"left out"), 0);
    }
}
