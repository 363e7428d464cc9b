//! Many commands on one connection without waiting for each answer.
//!
//! Replies come in the order of the commands, exactly one each, so what is owed is a queue. The two
//! rules that keep both sides from blocking each other: replies are read while something is being
//! sent, and so little is owed that the server never has to stop reading for it.
//!
//! Servers that know UPLOAD read ahead; others are given one command at a time by the same code.
//! What the commands are for is not known here.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::proto::line::first_number;

use super::connection::{Connection, timed_out};
use super::error::{Error, Exit};
use super::progress::Progress;
use super::reply::Reply;
use super::transfer::{body, modification};

/// Unanswered commands at most: hauld holds the replies to so many before it stops reading.
const UNANSWERED_MAX: usize = 512;
/// Bytes of command lines on their way while bodies come back: they fit into the server's socket, so
/// a server that is blocked by a body never blocks the lines behind it.
const LINES_BYTES_MAX: usize = 32 * 1024;
/// Bytes collected before they are sent.
const BATCH_BYTES: usize = 256 * 1024;
/// How long a write may block before replies are looked for again.
const WATCH_EVERY: Duration = Duration::from_millis(200);
/// A body that nobody wants is read to its end if it is not longer; otherwise the connection is
/// given up for it.
const UNWANTED_BYTES_MAX: u64 = 1 << 20;

/// How many commands may be unanswered.
fn window(c: &Connection) -> usize {
    match c.features.upload.is_some() {
        true => UNANSWERED_MAX,
        false => 1,
    }
}

/// Appends the bytes of the next command, with a body if it has one, to what is to be sent, and says
/// what it is for. `None`: there are no more.
pub type Next<'a, T> = dyn FnMut(&mut Connection, &mut Vec<u8>) -> Option<T> + 'a;

/// Sends the commands that `next` gives and hands each one's reply to `answered`. What is still owed
/// when the connection breaks stays in `owed`, the oldest first.
///
/// # Errors
/// The connection broke, or the server said something that cannot be an answer.
pub fn commands<T>(
    c: &mut Connection,
    owed: &mut VecDeque<T>,
    next: &mut Next<T>,
    answered: &mut dyn FnMut(T, Reply),
) -> Result<(), Error> {
    let (window, timeout) = (window(c), c.timeout());
    let mut out = Vec::new();
    // Where in the stream each command that is owed ends: no reply may come before that.
    let mut ends = VecDeque::new();
    let mut sent = 0u64;
    let mut is_over = false;
    c.set_patience(WATCH_EVERY.min(timeout))?;
    loop {
        while !is_over && owed.len() < window && out.len() < BATCH_BYTES {
            match next(c, &mut out) {
                Some(it) => {
                    owed.push_back(it);
                    ends.push_back(sent + out.len() as u64);
                }
                None => is_over = true,
            }
        }
        if owed.is_empty() {
            return c.set_patience(timeout);
        }
        let mut rest = out.as_slice();
        let mut last_progress = Instant::now();
        while !rest.is_empty() || !c.is_flushed() {
            if c.has_input() {
                let sent = sent + (out.len() - rest.len()) as u64;
                take(c, owed, &mut ends, sent, answered)?;
                continue;
            }
            match c.push(&mut rest) {
                Ok(()) => last_progress = Instant::now(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if timed_out(&e) && last_progress.elapsed() < timeout => {}
                Err(e) => return Err(c.salvage(&e)),
            }
        }
        sent += out.len() as u64;
        out.clear();
        let mut must = is_over || owed.len() >= window;
        while !owed.is_empty() && (must || c.has_input()) {
            take(c, owed, &mut ends, sent, answered)?;
            must = false;
        }
    }
}

/// Sends one command for each path, `verb` by its place, and hands on the reply, or why its line
/// could not be sent.
///
/// # Errors
/// The connection broke.
pub fn each(
    c: &mut Connection,
    paths: &[Vec<u8>],
    verb: impl Fn(usize) -> &'static str,
    answer: &mut dyn FnMut(usize, Result<Reply, Error>),
) -> Result<(), Error> {
    let mut unsent = Vec::new();
    let mut places = 0..paths.len();
    let mut next = |c: &mut Connection, out: &mut Vec<u8>| {
        loop {
            let at = places.next()?;
            match c.line(verb(at), Some(&paths[at])) {
                Ok(line) => {
                    out.extend_from_slice(&line);
                    return Some(at);
                }
                Err(error) => unsent.push((at, error)),
            }
        }
    };
    let mut answered = |at, reply| answer(at, Ok(reply));
    let done = commands(c, &mut VecDeque::new(), &mut next, &mut answered);
    for (at, error) in unsent {
        answer(at, Err(error));
    }
    done
}

/// Reads the reply to the oldest command.
fn take<T>(
    c: &mut Connection,
    owed: &mut VecDeque<T>,
    ends: &mut VecDeque<u64>,
    sent: u64,
    answered: &mut dyn FnMut(T, Reply),
) -> Result<(), Error> {
    let reply = c.read_reply()?;
    if reply.is_preliminary() {
        return Err(c.nonsense(&format!("a second go-ahead ({reply})")));
    }
    let Some(&end) = ends.front() else {
        return Err(c.nonsense(&format!("a reply to nothing ({reply})")));
    };
    if end <= sent {
        ends.pop_front();
        if let Some(it) = owed.pop_front() {
            answered(it, reply);
        }
        return Ok(());
    }
    // What is sent behind a refusal in the middle of a body would be read as commands.
    c.give_up();
    if reply.is_success() {
        return Err(c.nonsense(&format!("a reply before all bytes were sent ({reply})")));
    }
    let error = Error::refused(&reply);
    if let Some(it) = owed.pop_front() {
        answered(it, reply);
    }
    Err(error)
}

/// A download to be asked for.
pub struct Wanted<T> {
    /// What it is for.
    pub it: T,
    /// MDTM stands before DOWNLOAD.
    pub asks_time: bool,
    /// HASH stands behind it.
    pub asks_digest: bool,
}

/// What the server said about a file beside its content.
pub struct Said {
    /// Last modification, if it was asked and is known.
    pub modify_s: Option<i64>,
    /// The answer to HASH, if it was asked.
    pub digest: Option<Reply>,
}

/// What becomes of the bodies of a series of downloads.
pub trait Bodies<T> {
    /// Where the bytes go.
    type Sink: Write;
    /// A body of so many bytes begins, last modified then if that was asked; an error means that
    /// nobody wants it.
    ///
    /// # Errors
    /// It cannot be stored.
    fn begin(
        &mut self,
        it: &T,
        bytes: u64,
        modify_s: Option<i64>,
    ) -> Result<(Self::Sink, Progress), Error>;
    /// It is whole.
    fn end(&mut self, it: T, sink: Self::Sink, bytes: u64, said: Said);
    /// It is not.
    fn failed(&mut self, it: T, error: Error);
}

/// The same for DOWNLOAD, with bodies. What breaks in the middle of a body stays in `owed` too.
///
/// # Errors
/// The connection broke, or had to be given up.
pub fn downloads<T>(
    c: &mut Connection,
    owed: &mut VecDeque<Wanted<T>>,
    next: &mut Next<Wanted<T>>,
    bodies: &mut impl Bodies<T>,
) -> Result<(), Error> {
    let mut out = Vec::new();
    let mut lengths = VecDeque::new();
    let mut lines_bytes = 0;
    let mut is_over = false;
    loop {
        let is_low = owed.len() <= UNANSWERED_MAX / 2 && lines_bytes <= LINES_BYTES_MAX / 2;
        while is_low
            && !is_over
            && owed.len() < UNANSWERED_MAX
            && (owed.is_empty() || lines_bytes < LINES_BYTES_MAX)
        {
            let before = out.len();
            match next(c, &mut out) {
                Some(wanted) => {
                    owed.push_back(wanted);
                    lengths.push_back(out.len() - before);
                    lines_bytes += out.len() - before;
                }
                None => is_over = true,
            }
        }
        if owed.is_empty() {
            return Ok(());
        }
        if !out.is_empty() {
            c.send_raw(&out)?;
            out.clear();
        }
        one(c, owed, bodies)?;
        lines_bytes -= lengths.pop_front().unwrap_or(0);
    }
}

/// Takes the answer to the oldest DOWNLOAD.
fn one<T>(
    c: &mut Connection,
    owed: &mut VecDeque<Wanted<T>>,
    bodies: &mut impl Bodies<T>,
) -> Result<(), Error> {
    let asks_time = owed.front().is_some_and(|wanted| wanted.asks_time);
    let asks_digest = owed.front().is_some_and(|wanted| wanted.asks_digest);
    let digest = |c: &mut Connection| match asks_digest {
        true => c.read_reply().map(Some),
        false => Ok(None),
    };
    let modify_s = match asks_time {
        true => modification(&c.read_reply()?),
        false => None,
    };
    let reply = c.read_reply()?;
    if reply.is_success() {
        return Err(c.nonsense(&format!("a final reply before the transfer ({reply})")));
    }
    if !reply.is_preliminary() {
        if let Some(wanted) = owed.pop_front() {
            bodies.failed(wanted.it, Error::refused(&reply));
        }
        return digest(c).map(|_| ());
    }
    let (Some(bytes), Some(wanted)) = (first_number(reply.text()), owed.front()) else {
        return Err(c.nonsense(&format!("no length for a DOWNLOAD ({reply})")));
    };
    let (mut sink, mut progress) = match bodies.begin(&wanted.it, bytes, modify_s) {
        Ok(begun) => begun,
        Err(error) => {
            if let Some(wanted) = owed.pop_front() {
                bodies.failed(wanted.it, error);
            }
            unwanted(c, bytes)?;
            return digest(c).map(|_| ());
        }
    };
    progress.expect(bytes);
    if let Err(error) = body(c, bytes, &mut sink, &mut progress) {
        // Whatever failed, the rest of the body is still on its way.
        c.give_up();
        drop(sink);
        if matches!(error.exit, Exit::Local | Exit::Full) {
            if let Some(wanted) = owed.pop_front() {
                bodies.failed(wanted.it, error);
            }
            return Err(given_up());
        }
        return Err(error);
    }
    let reply = c.read_reply()?;
    let digest = digest(c)?;
    if let Some(wanted) = owed.pop_front() {
        let said = Said { modify_s, digest };
        match reply.success() {
            Ok(_) => bodies.end(wanted.it, sink, bytes, said),
            Err(error) => bodies.failed(wanted.it, error),
        }
    }
    Ok(())
}

fn given_up() -> Error {
    Error::broken("the connection was given up in the middle of a file")
}

/// Reads a body to its end for nobody.
fn unwanted(c: &mut Connection, bytes: u64) -> Result<(), Error> {
    if bytes > UNWANTED_BYTES_MAX {
        c.give_up();
        return Err(given_up());
    }
    let mut nowhere = super::progress::Board::new(false, None).file("", 0);
    body(c, bytes, &mut io::sink(), &mut nowhere)?;
    c.read_reply().map(|_| ())
}
