//! Times and permissions of what was stored on servers that do not take them with the upload: MFMT
//! or the form of MDTM that sets the time, and SITE CHMOD.
//!
//! Directories get theirs in every case, when all below them is done.
//!
//! A server may refuse all of it; the content is what was asked for, so nothing here is an error but
//! a broken connection. What was refused once is not tried again on the same connection.

use std::cell::Cell;
use std::collections::VecDeque;

use crate::proto::time::text_14;
use crate::proto::upload::UploadFacts;

use super::connection::Connection;
use super::error::Error;
use super::pipeline;
use super::reply::Reply;

/// What was found out about one server.
#[derive(Debug, Default, Clone, Copy)]
pub struct Keeps {
    no_times: bool,
    /// SITE CHMOD works; `None`: not known yet.
    modes: Option<bool>,
}

/// Gives the remote file `path` its time and its permissions.
///
/// # Errors
/// The connection broke.
pub fn time_and_mode(c: &mut Connection, path: &[u8], facts: UploadFacts) -> Result<(), Error> {
    if let Some(mode) = facts.mode {
        mode_of(c, path, mode)?;
    }
    // The time comes last: on some systems permissions change it.
    if let (Some(seconds), Some(verb)) = (facts.modify_s, time_verb(c)) {
        let reply = c.command(&time_command(verb, seconds), Some(path))?;
        c.keeps.no_times = !reply.is_success();
    }
    Ok(())
}

/// Gives directories their times and permissions, without waiting for each.
///
/// # Errors
/// The connection broke.
pub fn of_dirs(c: &mut Connection, dirs: &[(Vec<u8>, UploadFacts)]) -> Result<(), Error> {
    let takes_modes = dirs.iter().any(|(_, facts)| facts.mode.is_some()) && takes_modes(c)?;
    let time_verb = time_verb(c);
    let mut commands = dirs.iter().flat_map(|(path, facts)| {
        let mode = facts.mode.filter(|_| takes_modes).map(mode_command);
        let seconds = facts.modify_s;
        let time = seconds.and_then(|s| time_verb.map(|verb| time_command(verb, s)));
        [(0, mode), (1, time)].map(|(which, command)| (which, command, path))
    });
    // Some servers do it for files only. Then each would cost a round trip for nothing.
    let outcomes: [Cell<Option<bool>>; 2] = Default::default();
    let mut next = |c: &mut Connection, out: &mut Vec<u8>| {
        loop {
            let (which, command, path) = commands.next()?;
            let is_hopeless = outcomes[which].get() == Some(false);
            let Some(command) = command.filter(|_| !is_hopeless) else {
                continue;
            };
            // A name that cannot be sent was not made either.
            if let Ok(line) = c.line(&command, Some(path)) {
                out.extend_from_slice(&line);
                return Some(which);
            }
        }
    };
    let mut answered = |which: usize, reply: Reply| {
        let so_far = outcomes[which].get().unwrap_or(false);
        outcomes[which].set(Some(so_far || reply.is_success()));
    };
    pipeline::commands(c, &mut VecDeque::new(), &mut next, &mut answered)
}

/// What sets a time on this server.
fn time_verb(c: &Connection) -> Option<&'static str> {
    match (c.keeps.no_times, c.features.mfmt, c.features.mdtm) {
        (true, _, _) => None,
        (_, true, _) => Some("MFMT"),
        (_, _, true) => Some("MDTM"),
        _ => None,
    }
}

fn time_command(verb: &str, seconds: i64) -> String {
    format!("{verb} {}", String::from_utf8_lossy(&text_14(seconds)))
}

fn mode_command(mode: u32) -> String {
    format!("SITE CHMOD {mode:04o}")
}

fn takes_modes(c: &mut Connection) -> Result<bool, Error> {
    if c.keeps.modes.is_none() {
        let help = c.command("SITE", Some(b"HELP"))?;
        let has_chmod = |line: &Vec<u8>| {
            let words = line.split(|b| !b.is_ascii_alphanumeric());
            words.into_iter().any(|w| w.eq_ignore_ascii_case(b"CHMOD"))
        };
        c.keeps.modes = Some(help.is_success() && help.lines.iter().any(has_chmod));
    }
    Ok(c.keeps.modes == Some(true))
}

fn mode_of(c: &mut Connection, path: &[u8], mode: u32) -> Result<(), Error> {
    if takes_modes(c)? {
        let reply = c.command(&mode_command(mode), Some(path))?;
        c.keeps.modes = Some(reply.is_success());
    }
    Ok(())
}
