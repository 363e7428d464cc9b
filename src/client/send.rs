//! Uploads of a plan: the small ones in a row, any other by itself.

use std::collections::VecDeque;
use std::io::Read;

use sha2::{Digest, Sha256};

use crate::proto::upload::{IMMEDIATE_BYTES_MAX, UploadFacts};

use super::connection::Connection;
use super::error::{Error, shown};
use super::local::{self, Source, path_of};
use super::server::one_line;
use super::work::{Way, Work};
use super::{digest, listing, pipeline, resume, transfer};

/// All small files, without waiting for answers.
///
/// # Errors
/// The connection broke; what was not answered is in the queue again.
pub fn small(work: &Work, c: &mut Connection) -> Result<(), Error> {
    for at in work.doubtful() {
        match is_stored(work, c, at) {
            Ok(Some(bytes)) => work.done(at, bytes),
            Ok(None) => work.send_again(at),
            Err(error) => {
                work.send_again(at);
                work.doubt([at]);
                return Err(error);
            }
        }
    }
    leave_taken(work, c)?;
    let mut progress = work.report.board.file("", 0);
    let mut owed = VecDeque::new();
    let mut next = |c: &mut Connection, out: &mut Vec<u8>| {
        loop {
            let at = work.next_small()?;
            match message(work, c, at, out) {
                Ok(Some(bytes)) => {
                    progress.advance(usize::try_from(bytes).unwrap_or(0));
                    return Some((at, bytes));
                }
                Ok(None) => work.is_large(at),
                Err(error) => work.failed(at, error),
            }
        }
    };
    let mut answered = |(at, bytes): (u32, u64), reply: super::reply::Reply| {
        match reply.success() {
            Ok(_) => work.done(at, bytes),
            // The file's own words: a digest that is not the one that was sent along.
            Err(error) => work.failed(at, error),
        }
    };
    let sent = pipeline::commands(c, &mut owed, &mut next, &mut answered);
    if let Err(error) = sent {
        let left: Vec<u32> = owed.into_iter().map(|(at, _)| at).collect();
        work.put_back(left.iter().copied(), &error);
        work.doubt(left);
        return Err(error);
    }
    Ok(())
}

/// `--no-clobber`: takes the files out of the queue whose names are not free. It is asked before
/// anything is sent without waiting.
fn leave_taken(work: &Work, c: &mut Connection) -> Result<(), Error> {
    if replaces(work) {
        return Ok(());
    }
    let asked: Vec<u32> = std::iter::from_fn(|| work.next_small()).collect();
    let mut free = Vec::new();
    let mut lost = None;
    for at in asked {
        if lost.is_some() {
            free.push(at);
            continue;
        }
        match check_free(work, c, at) {
            Ok(()) => free.push(at),
            Err(error) if c.is_lost() => {
                free.push(at);
                lost = Some(error);
            }
            Err(error) => work.failed(at, error),
        }
    }
    for at in free.into_iter().rev() {
        work.send_again(at);
    }
    lost.map_or(Ok(()), Err)
}

/// Appends the line and the content of one file and returns its length; `None`: it is too long for
/// that. Nothing is appended otherwise.
fn message(work: &Work, c: &Connection, at: u32, out: &mut Vec<u8>) -> Result<Option<u64>, Error> {
    let remote = work.remote(at);
    one_line("the remote name", &remote)?;
    let source = open(work, at)?;
    if source.bytes_min > IMMEDIATE_BYTES_MAX {
        return Ok(None);
    }
    let mut content = Vec::with_capacity(usize::try_from(source.bytes_min).unwrap_or(0) + 1);
    let mut limited = (&source.file).take(IMMEDIATE_BYTES_MAX + 1);
    let read = limited.read_to_end(&mut content);
    read.map_err(|e| Error::local(&e))?;
    let bytes = content.len() as u64;
    if bytes > IMMEDIATE_BYTES_MAX {
        return Ok(None);
    }
    if bytes < source.bytes_min {
        return Err(transfer::shrunk());
    }
    let facts = UploadFacts {
        sha256: work.options.verify.then(|| Sha256::digest(&content).into()),
        ..source.facts
    };
    if work.options.verify && !c.features.upload.is_some_and(|takes| takes.sha256) {
        return Err(digest::no_digest());
    }
    let line = transfer::upload_line(c, &remote, bytes, true, facts)?;
    out.extend_from_slice(&line);
    out.extend_from_slice(&content);
    Ok(Some(bytes))
}

/// Opens what is to be sent. In a tree nothing is followed that was no link when it was found.
fn open(work: &Work, at: u32) -> Result<Source, Error> {
    let item = work.item(at);
    let path = work.plan.local(item.pair, &item.path);
    let follows = matches!(work.way, Way::Up { follows: true, .. });
    local::source(&path_of(&path), follows || item.path.is_empty())
}

/// `--no-clobber`: whether the remote name is free. What an attempt before has put there is not in
/// the way.
fn check_free(work: &Work, c: &mut Connection, at: u32) -> Result<(), Error> {
    match replaces(work) || work.is_again(at) {
        true => Ok(()),
        false => listing::check_free(c, &work.remote(at)),
    }
}

fn replaces(work: &Work) -> bool {
    !matches!(
        work.way,
        Way::Up {
            no_clobber: true,
            ..
        }
    )
}

/// Whether an upload that was not answered is there all the same, with its length and its time.
fn is_stored(work: &Work, c: &mut Connection, at: u32) -> Result<Option<u64>, Error> {
    let takes_time = c.features.upload.is_some_and(|takes| takes.modify);
    let Ok(source) = open(work, at) else {
        return Ok(None);
    };
    let there = match listing::stat(c, &work.remote(at)) {
        Ok(there) => there,
        Err(error) if c.is_lost() => return Err(error),
        Err(_) => None,
    };
    Ok(there.and_then(|there| {
        let is_same = takes_time
            && there.size == Some(source.bytes_min)
            && there.modify_s.is_some()
            && there.modify_s == source.facts.modify_s;
        is_same.then_some(source.bytes_min)
    }))
}

/// One file of any size.
///
/// # Errors
/// It was not stored.
pub fn single(work: &Work, c: &mut Connection, at: u32) -> Result<(), Error> {
    let remote = work.remote(at);
    one_line("the remote name", &remote)?;
    let mut source = open(work, at)?;
    check_free(work, c, at)?;
    if c.features.upload.is_none() && work.item(at).path.is_empty() {
        // Permissions cost round trips there, and belong to trees.
        source.facts.mode = None;
    }
    let mut progress = work
        .report
        .board
        .file(&shown(&work.local(at)), source.bytes_min);
    let (before, bytes) = (work.sent(at), source.bytes_min);
    work.note_sent(at, bytes);
    let sent = if work.is_again(at) || bytes > IMMEDIATE_BYTES_MAX {
        resume::upload(c, &remote, &mut source, before, &mut progress)?
    } else {
        let (file, facts) = (&mut source.file, source.facts);
        transfer::upload(c, &remote, 0, file, bytes, facts, &mut progress)?
    };
    if work.options.verify {
        source.rewind()?;
        digest::verify(c, &remote, &mut source.file, sent)?;
    }
    work.done(at, sent);
    Ok(())
}
