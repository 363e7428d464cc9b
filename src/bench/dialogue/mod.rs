//! One FTP session as the client sees it: bytes and facts in, what to send and to do next out.
//!
//! It owns no socket and reads no clock (`now` is an argument, in nanoseconds), so a session of any
//! kind is a unit test. It knows nothing of TLS but when it begins.
//!
//! Facts go in by [`Dialogue::opened`], [`Dialogue::secured`], [`Dialogue::receive`],
//! [`Dialogue::discarded`], [`Dialogue::data_began`] and [`Dialogue::data_ended`]; work by
//! [`Dialogue::begin`]. What comes out are the [`Outbox`], to be sent as soon as it can be, and
//! [`Step`]s, to be carried out in order.

mod opening;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::rc::Rc;

use crate::client::error::shown;
use crate::client::reply::Features;
use crate::proto::addr::{parse_epsv, parse_pasv};
use crate::proto::line::first_number;
use crate::proto::reply::{Parser, Part};
use crate::proto::upload::{IMMEDIATE_BYTES_MAX, UploadFacts, first_word};

use super::operation::{Kind, Operation};
use super::outbox::Outbox;
use opening::Opening;

/// Longer is no reply of FTP.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// How all sessions of one bench speak.
#[derive(Debug, Default)]
pub struct Manner {
    /// USER.
    pub user: Vec<u8>,
    /// PASS.
    pub password: Vec<u8>,
    /// AUTH TLS first, and PROT P for data.
    pub is_secure: bool,
    /// TLS from the first byte on instead, as with ftps://.
    pub is_implicit: bool,
    /// TYPE I behind the login.
    pub is_binary: bool,
    /// FEAT behind the login.
    pub asks_features: bool,
    /// UPLOAD and DOWNLOAD instead of data connections.
    pub own_verbs: bool,
    /// MLSD instead of LIST.
    pub has_mlsd: bool,
    /// What small uploads consist of.
    pub content: Vec<u8>,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Begin TLS on the control connection, then say [`Dialogue::secured`].
    Secure,
    /// The login is done.
    Ready,
    /// Open a data connection to this port of the server.
    Connect(u16),
    /// Read the data connection to its end, then say [`Dialogue::data_ended`].
    Receive,
    /// Send so much on the data connection, end it in order, then say [`Dialogue::data_ended`].
    Send(u64),
    /// The data connection is not needed any more.
    Drop,
    /// Something was done.
    Done(Done),
    /// The server refused to do it; the session goes on.
    Refused(Failure),
}

/// An operation that was done, with its times in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// What it was.
    pub kind: Kind,
    /// When it began, or should have.
    pub began: u64,
    /// When the first byte of the file came, or of the permission to send it.
    pub first: Option<u64>,
    /// When its last reply was there.
    pub ended: u64,
}

/// What went wrong, by class, and in the words of who said it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The same for all of a kind.
    pub class: String,
    /// One of them.
    pub example: String,
}

impl Failure {
    /// A failure of a class, with an example.
    pub fn new(class: impl Into<String>, example: impl Into<String>) -> Failure {
        Failure {
            class: class.into(),
            example: example.into(),
        }
    }
}

/// A session. Its sockets are somewhere else.
#[derive(Debug)]
pub struct Dialogue {
    manner: Rc<Manner>,
    /// What is to be sent on the control connection.
    pub outbox: Outbox,
    /// What FEAT said, where it was asked.
    pub features: Features,
    /// What the server said first.
    pub greeting: String,
    parser: Parser,
    /// The beginning of a line.
    held: Vec<u8>,
    owed: VecDeque<Owed>,
    /// Behind one that has to be alone, or that one itself.
    later: VecDeque<(Operation, u64)>,
    /// Bytes of a file that come before the next reply.
    body_left: u64,
    epsv_refused: bool,
    is_open: bool,
}

/// A final reply that is owed.
#[derive(Debug)]
struct Owed {
    what: What,
    operation: Operation,
    began: u64,
    first: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Opening(Opening),
    /// One final reply and nothing else.
    Simple,
    /// EPSV or PASV, for the transfer behind it.
    Passive,
    /// RETR, STOR, MLSD or LIST, over a data connection.
    Transfer {
        replied: bool,
        moved: bool,
    },
    Download,
    UploadWaiting,
    Quit,
}

impl Dialogue {
    /// A session that is not connected.
    pub fn new(manner: Rc<Manner>) -> Dialogue {
        Dialogue {
            manner,
            outbox: Outbox::default(),
            features: Features::default(),
            greeting: String::new(),
            parser: Parser::default(),
            held: Vec::new(),
            owed: VecDeque::new(),
            later: VecDeque::new(),
            body_left: 0,
            epsv_refused: false,
            is_open: false,
        }
    }

    /// The session is over, or begins anew.
    pub fn reset(&mut self) {
        self.outbox.clear();
        self.parser = Parser::default();
        self.held.clear();
        self.owed.clear();
        self.later.clear();
        self.body_left = 0;
        self.is_open = false;
    }

    /// Operations that have begun and are not done.
    pub fn outstanding(&self) -> usize {
        let is_operation = |owed: &&Owed| !matches!(owed.what, What::Opening(_) | What::Quit);
        match self.is_open {
            // Behind the login there is nothing else but a last QUIT.
            true => self.owed.len() + self.later.len() - usize::from(self.is_quitting()),
            false => self.owed.iter().filter(is_operation).count(),
        }
    }

    /// Whether the login is done.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// What is being waited for, for people.
    pub fn waits_for(&self) -> String {
        match self.owed.front() {
            None => "nothing".to_owned(),
            Some(owed) => match owed.what {
                What::Opening(opening) => format!("the reply to {}", opening.name()),
                What::Quit => "the end".to_owned(),
                What::Passive => "the reply to EPSV or PASV".to_owned(),
                _ => format!("the end of {}", owed.operation.kind().name()),
            },
        }
    }

    fn is_quitting(&self) -> bool {
        matches!(self.owed.back(), Some(owed) if owed.what == What::Quit)
    }

    /// Says goodbye; the server closes.
    pub fn quit(&mut self) {
        if !self.is_quitting() {
            self.outbox.bytes().extend_from_slice(b"QUIT\r\n");
            self.owe(What::Quit, Operation::Noop, 0);
        }
    }

    /// Begins an operation, at once or as soon as it can be. `began` is when it should have.
    pub fn begin(&mut self, operation: Operation, began: u64) {
        self.later.push_back((operation, began));
        self.begin_more();
    }

    /// Begins what can be begun: nothing may be said behind an UPLOAD that waits to be let in, and
    /// there is one data connection at a time.
    fn begin_more(&mut self) {
        while let Some((operation, _)) = self.later.front() {
            let is_behind_one = matches!(
                self.owed.back().map(|owed| owed.what),
                Some(What::UploadWaiting | What::Passive | What::Transfer { .. })
            );
            if is_behind_one || !self.owed.is_empty() && self.is_alone(operation) {
                return;
            }
            if let Some((operation, began)) = self.later.pop_front() {
                self.start(operation, began);
            }
        }
    }

    fn is_alone(&self, operation: &Operation) -> bool {
        match operation {
            Operation::Upload(_, bytes) => !self.manner.own_verbs || *bytes > IMMEDIATE_BYTES_MAX,
            Operation::Download(_) => !self.manner.own_verbs,
            Operation::List(_) => true,
            _ => false,
        }
    }

    fn start(&mut self, operation: Operation, began: u64) {
        let out = self.outbox.bytes();
        let what = match &operation {
            Operation::Noop | Operation::Login => {
                out.extend_from_slice(b"NOOP\r\n");
                What::Simple
            }
            Operation::Make(path) => command(out, "MKD", path),
            Operation::Delete(path) => command(out, "DELE", path),
            Operation::RemoveDirectory(path) => command(out, "RMD", path),
            Operation::Download(path) if self.manner.own_verbs => {
                command(out, "DOWNLOAD", path);
                What::Download
            }
            Operation::Upload(path, bytes) if self.manner.own_verbs => {
                let is_immediate = *bytes <= IMMEDIATE_BYTES_MAX;
                let word = first_word(*bytes, is_immediate, &UploadFacts::default());
                out.extend_from_slice(b"UPLOAD ");
                command(out, &word, path);
                if is_immediate {
                    self.outbox.body(*bytes, &self.manner.content);
                    What::Simple
                } else {
                    What::UploadWaiting
                }
            }
            Operation::Download(_) | Operation::Upload(..) | Operation::List(_) => {
                let verb: &[u8] = match self.epsv_refused {
                    false => b"EPSV\r\n",
                    true => b"PASV\r\n",
                };
                out.extend_from_slice(verb);
                What::Passive
            }
        };
        self.owe(what, operation, began);
    }

    fn owe(&mut self, what: What, operation: Operation, began: u64) {
        self.owed.push_back(Owed {
            what,
            operation,
            began,
            first: None,
        });
    }

    /// Bytes of a file that come next on the control connection and need not be looked at.
    pub fn body_left(&self) -> u64 {
        self.body_left
    }

    /// So many of [`Dialogue::body_left`] have come and are gone.
    pub fn discarded(&mut self, n: u64, now: u64) {
        self.body_left -= n.min(self.body_left);
        self.begun(now);
    }

    /// The first byte is there, of a file or of the permission to send it.
    fn begun(&mut self, now: u64) {
        if let Some(owed) = self.owed.front_mut() {
            owed.first.get_or_insert(now);
        }
    }

    /// The first bytes came on the data connection.
    pub fn data_began(&mut self, now: u64) {
        self.begun(now);
    }

    /// The data connection has ended in order.
    pub fn data_ended(&mut self, now: u64, steps: &mut Vec<Step>) {
        if let Some(Owed {
            what: What::Transfer { moved, .. },
            ..
        }) = self.owed.front_mut()
        {
            *moved = true;
            self.transferred(now, steps);
        }
    }

    /// A transfer is done when its reply is there and its data connection has ended.
    fn transferred(&mut self, now: u64, steps: &mut Vec<Step>) {
        let both = What::Transfer {
            replied: true,
            moved: true,
        };
        if self.owed.front().is_some_and(|owed| owed.what == both) {
            steps.push(Step::Drop);
            self.done(now, steps);
        }
    }

    fn done(&mut self, now: u64, steps: &mut Vec<Step>) {
        if let Some(owed) = self.owed.pop_front() {
            steps.push(Step::Done(Done {
                kind: owed.operation.kind(),
                began: owed.began,
                first: owed.first,
                ended: now,
            }));
        }
        self.begin_more();
    }

    /// Takes what came on the control connection, in pieces of any size. Returns how many of the bytes
    /// were of files.
    ///
    /// # Errors
    /// The session cannot go on.
    pub fn receive(
        &mut self,
        mut bytes: &[u8],
        now: u64,
        steps: &mut Vec<Step>,
    ) -> Result<u64, Failure> {
        let mut of_files = 0;
        loop {
            if self.body_left > 0 {
                let n = self.body_left.min(bytes.len() as u64);
                if n > 0 {
                    self.discarded(n, now);
                }
                of_files += n;
                bytes = &bytes[n as usize..];
            }
            let Some(end) = memchr::memchr(b'\n', bytes) else {
                break;
            };
            let line = &bytes[..end];
            bytes = &bytes[end + 1..];
            if self.held.is_empty() {
                self.line(line, now, steps)?;
            } else {
                let mut held = std::mem::take(&mut self.held);
                held.extend_from_slice(line);
                self.line(&held, now, steps)?;
            }
        }
        self.held.extend_from_slice(bytes);
        if self.held.len() > LINE_BYTES_MAX {
            return Err(Failure::new("no FTP", "a reply line that never ends"));
        }
        Ok(of_files)
    }

    fn line(&mut self, line: &[u8], now: u64, steps: &mut Vec<Step>) -> Result<(), Failure> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let is_features =
            matches!(self.owed.front(), Some(owed) if owed.what == What::Opening(Opening::Feat));
        match self.parser.line(line) {
            Ok(Part::Middle(text)) => {
                if is_features {
                    let text = text.to_vec();
                    self.add_feature(text);
                }
                Ok(())
            }
            Ok(Part::End(code, text)) => self.reply(code, text, now, steps),
            Err(_) => Err(Failure::new("no FTP", said(line))),
        }
    }

    fn reply(
        &mut self,
        code: u16,
        text: &[u8],
        now: u64,
        steps: &mut Vec<Step>,
    ) -> Result<(), Failure> {
        let failure = |verb: &str| {
            let example = format!("{code} {}", said(text));
            Failure::new(format!("{code} to {verb}"), example)
        };
        let Some(owed) = self.owed.front_mut() else {
            return Err(failure("nothing"));
        };
        if code == 421 {
            return Err(failure(owed.operation.kind().name()));
        }
        let refused = code >= 400;
        match owed.what {
            What::Opening(opening) => return self.opening(opening, code, text, steps),
            What::Quit => {}
            What::Passive if refused && !self.epsv_refused && code >= 500 => {
                self.epsv_refused = true;
                self.outbox.bytes().extend_from_slice(b"PASV\r\n");
            }
            What::Transfer { replied: false, .. } if code < 200 => match owed.operation {
                Operation::Upload(_, bytes) => {
                    self.begun(now);
                    steps.push(Step::Send(bytes));
                }
                _ => steps.push(Step::Receive),
            },
            What::Download if code < 200 => {
                self.body_left = first_number(text).ok_or_else(|| failure("download"))?;
            }
            What::UploadWaiting if code < 200 => {
                if let Operation::Upload(_, bytes) = owed.operation {
                    self.outbox.body(bytes, &self.manner.content);
                }
                self.begun(now);
            }
            _ if code < 200 => {}
            _ if refused => {
                let failure = failure(owed.operation.kind().name());
                if matches!(owed.what, What::Transfer { .. }) {
                    steps.push(Step::Drop);
                }
                // Some of the body is on its way, and the server would take it for commands.
                if owed.what == What::UploadWaiting && owed.first.is_some() {
                    return Err(failure);
                }
                self.owed.pop_front();
                steps.push(Step::Refused(failure));
                self.begin_more();
            }
            What::Passive => {
                let port = self.transfer(text);
                let port = port.ok_or_else(|| failure("EPSV or PASV"))?;
                steps.push(Step::Connect(port));
            }
            What::Transfer { moved, .. } => {
                owed.what = What::Transfer {
                    replied: true,
                    moved,
                };
                self.transferred(now, steps);
            }
            What::Simple | What::Download | What::UploadWaiting => self.done(now, steps),
        }
        Ok(())
    }

    /// Asks for the transfer that the reply to EPSV or PASV was for, and returns the port of its data
    /// connection. `None`: there is none in it.
    fn transfer(&mut self, text: &[u8]) -> Option<u16> {
        let port = match self.epsv_refused {
            false => parse_epsv(text),
            true => parse_pasv(text).map(|address| address.port()),
        }?;
        let owed = self.owed.front_mut()?;
        let out = self.outbox.bytes();
        match &owed.operation {
            Operation::Upload(path, _) => command(out, "STOR", path),
            Operation::List(path) if self.manner.has_mlsd => command(out, "MLSD", path),
            Operation::List(path) => command(out, "LIST", path),
            Operation::Download(path) => command(out, "RETR", path),
            _ => return None,
        };
        owed.what = What::Transfer {
            replied: false,
            moved: false,
        };
        Some(port)
    }
}

/// One command with its path.
fn command(out: &mut Vec<u8>, verb: &str, path: &[u8]) -> What {
    out.extend_from_slice(verb.as_bytes());
    out.push(b' ');
    out.extend_from_slice(path);
    out.extend_from_slice(b"\r\n");
    What::Simple
}

/// What a server said, fit for a terminal and not longer than a line.
fn said(text: &[u8]) -> String {
    shown(text).chars().take(120).collect()
}
