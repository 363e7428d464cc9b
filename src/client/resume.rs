//! One large file, going on where an earlier attempt broke off, and never mixing two versions.
//!
//! An upload goes on where hauld (PARTIAL) or a digest of what is there proves that it is the
//! beginning of the same file; without digests only where this very program has put it there. A
//! download goes on from a temporary file whose name says which version it is; where the server
//! knows digests the whole is compared at the end.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Seek, SeekFrom};

use crate::proto::line::number;
use crate::proto::upload::UploadFacts;

use super::connection::Connection;
use super::digest::{self, Algorithm};
use super::dir::Dir;
use super::error::{Error, Exit};
use super::incoming::{Incoming, Version};
use super::local::Source;
use super::progress::Progress;
use super::transfer::{self, Rest, size_of};

/// Sends a large file, and returns its length. `sent_before` is how much of the same file this
/// program may have sent to this name in an attempt that broke off.
///
/// # Errors
/// As [`transfer::upload`].
pub fn upload(
    c: &mut Connection,
    path: &[u8],
    source: &mut Source,
    sent_before: u64,
    progress: &mut Progress,
) -> Result<u64, Error> {
    let bytes = source.bytes_min;
    let from = match source.bytes_min {
        0 => 0,
        _ if c.features.upload.is_some() => own_partial(c, path, &mut source.file, bytes)?,
        _ => stored(c, path, &mut source.file, bytes, sent_before)?,
    };
    let sought = source.file.seek(SeekFrom::Start(from));
    sought.map_err(|e| Error::local(&e))?;
    progress.begin_at(from);
    let facts = UploadFacts {
        sha256: None,
        ..source.facts
    };
    let sent = transfer::upload(
        c,
        path,
        from,
        &mut source.file,
        bytes - from,
        facts,
        progress,
    );
    let sent = match sent {
        // It has changed its mind about what is there.
        Err(error) if from > 0 && error.code == Some(554) && !c.is_lost() => {
            let sought = source.file.rewind();
            sought.map_err(|e| Error::local(&e))?;
            progress.begin_at(0);
            return transfer::upload(c, path, 0, &mut source.file, bytes, facts, progress);
        }
        sent => sent?,
    };
    Ok(from + sent)
}

/// What hauld keeps of an upload that broke off, if it is the beginning of `file`.
fn own_partial(c: &mut Connection, path: &[u8], file: &mut File, bytes: u64) -> Result<u64, Error> {
    if !c.features.partial {
        return Ok(0);
    }
    let reply = digest::slow_command(c, "PARTIAL", path, bytes)?;
    let mut words = reply.text().split(|&b| b == b' ');
    let (count, digest) = (words.next().and_then(number), words.next());
    let (213, Some(n), Some(theirs)) = (reply.code, count, digest) else {
        return Ok(0);
    };
    if n == 0 || n >= bytes {
        return Ok(0);
    }
    let mine = digest::of_local(Algorithm::Sha256, file, n)?;
    Ok(match theirs.eq_ignore_ascii_case(mine.as_bytes()) {
        true => n,
        false => 0,
    })
}

/// What there is under that name on another server, if it is the beginning of `file`.
fn stored(
    c: &mut Connection,
    path: &[u8],
    file: &mut File,
    bytes: u64,
    sent_before: u64,
) -> Result<u64, Error> {
    if !c.features.rest || !c.features.size {
        return Ok(0);
    }
    c.binary()?;
    let there = size_of(&c.command("SIZE", Some(path))?).unwrap_or(0);
    if there == 0 || there >= bytes {
        return Ok(0);
    }
    let Some(asking) = digest::asking(c)? else {
        return Ok(if there <= sent_before { there } else { 0 });
    };
    let Some(theirs) = digest::of_one(c, asking, path, there)? else {
        return Ok(0);
    };
    let mine = digest::of_local(asking.algorithm, file, there)?;
    Ok(if mine == theirs { there } else { 0 })
}

/// Brings a large file of which the version is known, and gives it its name. Returns its length.
///
/// # Errors
/// As [`transfer::download`]; [`Exit::Differ`] if what came is not what the server has.
pub fn download(
    c: &mut Connection,
    version: Version,
    (dir, name): (&Dir, &OsStr),
    (replaces, mode): (bool, Option<u32>),
    verifies: bool,
    progress: &mut Progress,
) -> Result<u64, Error> {
    let path = version.of.1;
    let mut incoming = Incoming::create(dir, name, replaces, Some(version))?;
    let can_rest = c.features.rest || c.features.download;
    if incoming.begins_at > 0 && !can_rest {
        incoming.start_over()?;
    }
    let from = incoming.begins_at;
    progress.begin_at(from);
    let rest = Rest {
        from,
        of: version.bytes,
    };
    if from < version.bytes {
        let done = transfer::download(c, path, Some(rest), &mut incoming, progress);
        if let Err(error) = done {
            // What was refused, or has another length now, is no beginning of anything.
            if error.exit == Exit::Differ || error.code.is_some_and(|code| code >= 500) {
                incoming.discard();
            }
            return Err(error);
        }
    }
    if from > 0 || verifies {
        let compared = digest::confirm(c, path, incoming.content()?, version.bytes);
        if matches!(&compared, Err(error) if error.exit == Exit::Differ) {
            incoming.discard();
        }
        if !compared? && verifies {
            return Err(digest::no_digest());
        }
    }
    incoming.publish(Some(version.modify_s), mode)?;
    Ok(version.bytes)
}
