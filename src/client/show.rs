//! Listings for people and programs: `ls`, `tree`, `stat` and `hash` on standard output.
//!
//! On a terminal names are escaped; into a pipe or a file they go byte for byte.

use std::cmp::Ordering;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{BufWriter, IsTerminal, Write, stdout};

use crate::proto::facts::{Kind, Listed};
use crate::proto::time::text_14;

use super::commands::report;
use super::error::{Error, Exit, shown};
use super::local::{bytes_of, is_plain_name};
use super::{Client, digest, listing};

/// Listings up to this many bytes of memory are sorted; longer ones come as the server sends them.
const SORTED_BYTES_MAX: usize = 64 << 20;

/// Standard output, or a sentence about it.
///
/// # Errors
/// It is closed or full.
pub fn print(text: impl Display) -> Result<(), Error> {
    writeln!(stdout(), "{text}").map_err(|e| Error::output(&e))
}

/// A name for standard output: escaped for a person, exact for a program.
fn printable(name: &[u8]) -> Vec<u8> {
    match stdout().is_terminal() {
        true => shown(name).into_bytes(),
        false => name.to_vec(),
    }
}

/// `ls` of the working directory, or of each path; several have their names in front.
///
/// # Errors
/// The server refuses, or standard output is closed.
pub fn ls_all(client: &mut Client, long: bool, paths: &[OsString]) -> Result<Exit, Error> {
    match paths {
        [] => ls(client, long, None),
        [path] => ls(client, long, Some(bytes_of(path))),
        paths => {
            let mut exit = Exit::Done;
            for (at, path) in paths.iter().map(|path| bytes_of(path)).enumerate() {
                // A file's own line says its name.
                if listing::is_dir(client.ready()?, path)? {
                    let gap = if at > 0 { "\n" } else { "" };
                    print(format_args!("{gap}{}:", shown(path)))?;
                }
                match ls(client, long, Some(path)) {
                    Err(error) if error.code.is_some() && client.is_connected() => {
                        report(&error);
                        exit = Exit::SomeFailed;
                    }
                    listed => drop(listed?),
                }
            }
            Ok(exit)
        }
    }
}

fn ls(client: &mut Client, long: bool, path: Option<&[u8]>) -> Result<Exit, Error> {
    let what = || format!("cannot list {}", path.map_or("the directory".into(), shown));
    let c = client.ready()?;
    let mut out = BufWriter::new(stdout().lock());
    let mut sorted = Sorted::new(|entry: &Listed| {
        let mut line = match long {
            true => long_form(entry).into_bytes(),
            false => Vec::new(),
        };
        line.extend(printable(&entry.name));
        match (entry.kind, &entry.target) {
            (Some(Kind::Dir), _) => line.push(b'/'),
            (_, Some(target)) if long => {
                line.extend_from_slice(b" -> ");
                line.extend(printable(target));
            }
            _ => {}
        }
        line.push(b'\n');
        out.write_all(&line).map_err(|e| Error::output(&e))
    });
    let listed = listing::list(c, path, &mut |entry| {
        if !is_plain_name(&entry.name) {
            return Ok(());
        }
        sorted.take(entry)
    });
    if let Err(error) = listed {
        // A file: its own line is what was asked for.
        let file = match path {
            Some(path) if error.code.is_some() && !c.is_lost() => listing::stat(c, path)?,
            _ => None,
        };
        match file.filter(|entry| entry.kind != Some(Kind::Dir)) {
            Some(entry) => sorted.take(entry)?,
            None => return Err(error.about(what())),
        }
    }
    sorted.finish(|a, b| a.name.cmp(&b.name))?;
    out.flush().map_err(|e| Error::output(&e))?;
    Ok(Exit::Done)
}

/// `-rw-r--r--         4096  2026-01-31 12:00:00  `; what the server does not say is left blank.
fn long_form(entry: &Listed) -> String {
    let letter = match entry.kind {
        Some(Kind::Dir) => 'd',
        Some(Kind::Link) => 'l',
        Some(Kind::File) => '-',
        Some(Kind::Other) | None => '?',
    };
    let size = entry.size.map_or(String::new(), |size| size.to_string());
    let time = entry.modify_s.map_or(String::new(), calendar_text);
    format!("{letter} {size:>14}  {time:<19}  ")
}

/// `2026-01-31 12:00:00`, in UTC.
pub fn calendar_text(seconds: i64) -> String {
    let digits = text_14(seconds);
    let mut text = String::with_capacity(19);
    for (at, &digit) in digits.iter().enumerate() {
        match at {
            4 | 6 => text.push('-'),
            8 => text.push(' '),
            10 | 12 => text.push(':'),
            _ => {}
        }
        text.push(char::from(digit));
    }
    text
}

/// Entries on their way to `show`: in order, as long as all of them fit.
struct Sorted<F> {
    held: Vec<Listed>,
    bytes: usize,
    show: F,
}

impl<F: FnMut(&Listed) -> Result<(), Error>> Sorted<F> {
    fn new(show: F) -> Sorted<F> {
        Sorted {
            held: Vec::new(),
            bytes: 0,
            show,
        }
    }

    fn take(&mut self, entry: Listed) -> Result<(), Error> {
        let target = entry.target.as_ref().map_or(0, Vec::len);
        self.bytes += size_of::<Listed>() + entry.name.len() + target;
        if self.bytes <= SORTED_BYTES_MAX {
            self.held.push(entry);
            return Ok(());
        }
        for entry in self.held.drain(..) {
            (self.show)(&entry)?;
        }
        (self.show)(&entry)
    }

    fn finish(mut self, order: impl FnMut(&Listed, &Listed) -> Ordering) -> Result<(), Error> {
        self.held.sort_unstable_by(order);
        self.held.iter().try_for_each(self.show)
    }
}

/// The components of a path in a tree.
fn parts_of(entry: &Listed) -> impl Iterator<Item = &[u8]> {
    entry.name.split(|&b| b == b'/')
}

/// `tree`, each directory before what is in it.
///
/// # Errors
/// As [`ls_all`]; also if the server left something out.
pub fn tree(client: &mut Client, path: Option<&[u8]>) -> Result<Exit, Error> {
    let what = || format!("cannot list {}", path.map_or("the tree".into(), shown));
    let mut out = BufWriter::new(stdout().lock());
    let mut sorted = Sorted::new(|entry: &Listed| {
        let mut line = printable(&entry.name);
        if entry.kind == Some(Kind::Dir) {
            line.push(b'/');
        }
        if let Some(target) = &entry.target {
            line.extend_from_slice(b" -> ");
            line.extend(printable(target));
        }
        line.push(b'\n');
        out.write_all(&line).map_err(|e| Error::output(&e))
    });
    let missed = listing::tree(client.ready()?, path, &mut |entry| {
        if !parts_of(&entry).all(is_plain_name) {
            return Ok(());
        }
        sorted.take(entry)
    });
    sorted.finish(|a, b| parts_of(a).cmp(parts_of(b)))?;
    out.flush().map_err(|e| Error::output(&e))?;
    let missed = missed.map_err(|e| e.about(what()))?;
    match missed.left_out + missed.dirs.len() as u64 {
        0 => Ok(Exit::Done),
        n => Err(Error::new(
            Exit::SomeFailed,
            format!(
                "{n} entries are missing: the server cannot read them, or their names cannot be sent"
            ),
        )),
    }
}

/// `hash` of one file, as sha256sum writes it.
///
/// # Errors
/// The server knows no digests, or refuses.
pub fn hash(client: &mut Client, path: &[u8]) -> Result<(), Error> {
    let c = client.ready()?;
    let Some(asking) = digest::asking(c)? else {
        let text = "the server computes no digests (it has none of HASH, XSHA256, XMD5 and XCRC)";
        return Err(Error::new(Exit::NotFound, text));
    };
    let bytes = listing::stat(c, path)?.and_then(|entry| entry.size);
    let reply = digest::reply_of(c, asking, path, bytes.unwrap_or(0))?.success()?;
    let Some(digest) = digest::digest_in(&reply, asking) else {
        return Err(Error::broken(format!("there is no digest in it: {reply}")));
    };
    let mut line = format!("{digest}  ").into_bytes();
    line.extend(printable(path));
    line.push(b'\n');
    let written = stdout().write_all(&line);
    written.map_err(|e| Error::output(&e))
}

/// `stat` of one path.
///
/// # Errors
/// Nothing is there.
pub fn stat(client: &mut Client, path: &[u8]) -> Result<(), Error> {
    let c = client.ready()?;
    listing::tell_modes(c)?;
    let Some(entry) = listing::stat(c, path)? else {
        return Err(Error::new(Exit::NotFound, "no such file or directory"));
    };
    let mut text = format!("{}: ", shown(path));
    text.push_str(match entry.kind {
        Some(Kind::File) => "file",
        Some(Kind::Dir) => "directory",
        Some(Kind::Link) => "link",
        Some(Kind::Other) | None => "special",
    });
    if let Some(target) = &entry.target {
        text.push_str(&format!(" to {}", shown(target)));
    }
    if let Some(size) = entry.size.filter(|_| entry.kind != Some(Kind::Dir)) {
        text.push_str(&format!(", {size} bytes"));
    }
    if let Some(seconds) = entry.modify_s {
        text.push_str(&format!(", modified {} UTC", calendar_text(seconds)));
    }
    if let Some(mode) = entry.mode {
        text.push_str(&format!(", mode {mode:04o}"));
    }
    print(text)
}
