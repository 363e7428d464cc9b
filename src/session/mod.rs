//! One control connection as a state machine.
//!
//! Bytes and facts go in, an ordered list of [`Action`]s comes out. A session owns no socket,
//! starts no thread and reads no clock (`now` is an argument), so a whole dialogue is a unit test.
//! It does make short file calls itself, through [`crate::storage::root::Root`]; what takes long it asks for.
//!
//! # Driving it
//!
//! Two methods take input. [`Session::receive`] takes what came over the control connection, at
//! most one command per call, and says how much it used. [`Session::handle`] takes everything else.
//! Both append to a list of actions, which must be carried out in order before the next call.
//! Some actions are questions: [`Action::CheckPassword`], [`Action::Listen`], [`Action::Transfer`],
//! [`Action::Reach`] and [`Action::Run`] (but for [`Task::is_unattended`]) are answered by exactly
//! one [`Input`] each, and until then the session takes no further command but ABOR,
//! STAT and NOOP during a transfer over a data connection.
//! [`Action::Commit`] is answered too, one after the other; until then uploads go on.
//!
//! Three methods ask: [`Session::deadline`], [`Session::wants_input`] and [`Session::totals`].

mod due;
mod ending;
mod exchange;
mod files;
mod inline;
mod job;
mod listings;
mod login;
mod partials;
mod queue;
mod record;
mod refusal;
mod security;
mod site;
mod task;
#[cfg(test)]
mod tests;
mod text;
mod transfers;
pub mod verbs;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use exchange::{Action, Context, Input, PasswordAnswer, Totals};
pub use job::{Ended, Job, Outcome, Receive, Send, Transfer, Via};
pub use task::{Algorithm, Done, Task};
pub use text::Text;

use crate::accounts::users::User;
use crate::config::Config;
use crate::proto::facts::Facts;
use crate::proto::line::{self, Split};
use crate::proto::reply::Reply;
use crate::storage::partials::Owner;
use due::{Due, Dues};
use login::Login;
use partials::{Continuing, Reaching};
use security::Security;
use transfers::{Running, What};
use verbs::{Argument, Run, Verb};

/// What HASH and MLST go by; OPTS may change it before login too.
#[derive(Debug, Clone, Copy)]
struct Preferences {
    facts: Facts,
    hash: Algorithm,
}

/// Who is at the other end.
#[derive(Debug)]
enum Who {
    Stranger {
        user: Option<Vec<u8>>,
        unknown_verbs: u8,
        wrong_passwords: u8,
        /// A login that ended is followed by the time for another one.
        since: Instant,
    },
    Known(Box<Login>),
}

/// What a wrong password is answered with.
#[derive(Debug)]
struct Refusal {
    until: Instant,
    reply: Reply,
    last: bool,
}

/// What the session waits for.
#[derive(Debug)]
enum Wait {
    /// The next command.
    Command,
    /// Whether the password is right.
    Password { name: Vec<u8> },
    /// The time at which a wrong password is answered.
    Refusal(Box<Refusal>),
    /// A passive port, for EPSV or PASV.
    Listening { extended: bool },
    /// A digest, a copy, or names that go to the disk.
    Task(Box<Pending>),
    /// Whether another session writes a partial.
    Reach(Box<Reaching>),
    /// The end of a transfer.
    Transfer(Box<Running>),
    /// What is owed; behind it the connection ends.
    Ending,
    /// Nothing more.
    Closed,
}

/// What goes on when a task is done.
#[derive(Debug)]
enum Pending {
    Names(Reply),
    Digest {
        reply: fn(&files::DigestOf, &str) -> Reply,
        of: files::DigestOf,
    },
    Copy {
        reply: Reply,
        transfer: Transfer,
        what: What,
    },
    Continue(Continuing),
}

impl From<Pending> for Answer {
    fn from(pending: Pending) -> Answer {
        Answer::Later(Wait::Task(Box::new(pending)))
    }
}

/// One control connection.
#[derive(Debug)]
pub struct Session {
    peer: SocketAddr,
    opened: Instant,
    last_command: Instant,
    last_deed: Instant,
    who: Who,
    wait: Wait,
    /// What waits for uploads that are being committed.
    due: Dues,
    preferences: Preferences,
    security: Security,
    /// Lines that wait behind a transfer, from `queued_at` on.
    queued: Vec<u8>,
    queued_at: usize,
    searched: usize,
    /// QUIT waits behind a transfer: the end of the control connection is no surprise.
    quit_queued: bool,
    control_ended: bool,
    shutting_down: bool,
    totals: Totals,
}

/// What a handler makes of a command: exactly one final reply, now or later.
enum Answer {
    Now(Reply),
    Later(Wait),
    /// Behind the end of this transfer.
    Transfer(Transfer, What),
    /// Behind the end of the transfer that is running (ABOR).
    Cut,
    /// The same line once more, when the shell has said who else is at it.
    Reach,
    /// TLS begins behind this reply.
    Tls(Reply),
    /// The connection closes behind this reply.
    Close(Reply),
}

type Handled = Result<Answer, Reply>;

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Answer {
        Answer::Now(reply)
    }
}

/// A line, and how it came.
struct Line<'a> {
    clean: &'a [u8],
    argument: &'a [u8],
    more_behind: bool,
    reached: Option<bool>,
}

/// What a handler gets besides the session or the login.
struct Turn<'a> {
    cx: &'a Context<'a>,
    out: &'a mut Vec<Action>,
    argument: &'a [u8],
    preferences: &'a mut Preferences,
    security: &'a mut Security,
    /// Bytes have arrived behind the line.
    more_behind: bool,
    /// The answer to [`Action::Reach`], if the line has been here before.
    reached: Option<bool>,
}

impl Session {
    /// A connection from `peer`; the greeting is the first action.
    pub fn new(peer: SocketAddr, cx: &Context, out: &mut Vec<Action>) -> Session {
        out.push(Action::Reply(Reply::new(220, "haul ready.")));
        Session {
            peer: SocketAddr::new(peer.ip().to_canonical(), peer.port()),
            opened: cx.now,
            last_command: cx.now,
            last_deed: cx.now,
            who: Who::Stranger {
                user: None,
                unknown_verbs: 0,
                wrong_passwords: 0,
                since: cx.now,
            },
            wait: Wait::Command,
            due: Dues::default(),
            preferences: Preferences {
                facts: Facts::default(),
                hash: Algorithm::Sha256,
            },
            security: Security::Clear,
            queued: Vec::new(),
            queued_at: 0,
            searched: 0,
            quit_queued: false,
            control_ended: false,
            shutting_down: false,
            totals: Totals::default(),
        }
    }

    /// As [`Session::new`], of a connection that began with TLS.
    pub fn protected(peer: SocketAddr, cx: &Context, out: &mut Vec<Action>) -> Session {
        Session {
            security: Security::IMPLICIT,
            ..Session::new(peer, cx, out)
        }
    }

    /// Takes at most one command from `bytes`, which begin where the last call left off. Returns how
    /// many bytes it used; `None`: nothing can be done before more bytes or an [`Input`] come.
    /// `Some(0)` is possible: a line that had waited behind a transfer was next.
    pub fn receive(&mut self, bytes: &[u8], cx: &Context, out: &mut Vec<Action>) -> Option<usize> {
        match self.wait {
            Wait::Command if self.due.is_empty() => {}
            Wait::Command => return self.receive_behind_commits(bytes, cx, out),
            Wait::Transfer(ref running) if !running.in_band() => {
                return self.receive_while_busy(bytes, cx, out);
            }
            _ => return None,
        }
        if let Some(line) = self.next_queued() {
            let more_behind = !self.queued.is_empty() || !bytes.is_empty();
            self.command(&line, more_behind, cx, out);
            return Some(0);
        }
        match line::split(bytes, self.searched) {
            Split::Line { len, used } => {
                self.searched = 0;
                self.command(&bytes[..len], bytes.len() > used, cx, out);
                Some(used)
            }
            Split::Partial if self.control_ended => {
                self.close(out);
                None
            }
            Split::Partial => {
                self.searched = bytes.len();
                None
            }
            Split::TooLong => {
                self.hang_up(Reply::new(500, "The line is too long."), out);
                Some(bytes.len())
            }
        }
    }

    /// Takes anything that is not a command.
    pub fn handle(&mut self, input: Input, cx: &Context, out: &mut Vec<Action>) {
        if self.is_closed() {
            return;
        }
        match input {
            Input::PasswordChecked(answer) => self.password_checked(answer, cx, out),
            Input::Listening(address) => self.listening(address, out),
            Input::TransferEnded(ended) => self.transfer_ended(ended, cx, out),
            Input::Committed(result) => self.committed(result, cx, out),
            Input::Reached { free, more_behind } => self.reached(free, more_behind, cx, out),
            Input::TaskDone(done) => self.task_done(done, out),
            Input::ControlEnded => self.control_ended = true,
            Input::TimedOut if self.refuses_at(cx.now) => self.refuse_now(out),
            Input::TimedOut => {
                let text = match self.who {
                    Who::Stranger { .. } => "Login took too long.",
                    Who::Known(_) => "Idle for too long.",
                };
                self.hang_up(Reply::new(421, text), out);
            }
            Input::Displaced => {
                let text = "Too many are here who do not log in; try again.";
                self.hang_up(Reply::new(421, text), out);
            }
            Input::ShuttingDown => self.shutting_down = true,
        }
        if matches!(self.wait, Wait::Command) {
            // What has ended may have taken longer than NOOP alone keeps a session.
            self.last_command = cx.now;
            self.last_deed = cx.now;
            if self.shutting_down && self.due.is_empty() {
                self.hang_up(Reply::new(421, "The server is stopping."), out);
            }
        }
    }

    fn command(&mut self, raw: &[u8], more_behind: bool, cx: &Context, out: &mut Vec<Action>) {
        self.totals.commands += 1;
        let clean = line::strip_telnet(raw);
        if line::is_http(&clean) || line::is_proxy_header(&clean) {
            return self.hang_up(Reply::new(500, "This is an FTP server."), out);
        }
        self.last_command = cx.now;
        self.run_line(&clean, more_behind, None, cx, out);
    }

    fn run_line(
        &mut self,
        clean: &[u8],
        more_behind: bool,
        reached: Option<bool>,
        cx: &Context,
        out: &mut Vec<Action>,
    ) {
        let (name, argument) = line::verb_and_argument(clean);
        let verb = verbs::find(name);
        if verb.is_none_or(|verb| verb.is_deed) {
            self.last_deed = self.last_command;
        }
        let line = Line {
            clean,
            argument: argument.unwrap_or_default(),
            more_behind,
            reached,
        };
        let handled = match verb {
            _ if clean.is_empty() => Err(Reply::new(500, "An empty line is no command.")),
            None => self.unknown(cx),
            Some(verb) => self.run(verb, &line, cx, out),
        };
        if let Ok(Answer::Reach) = handled {
            return self.wait_to_reach(clean, more_behind);
        }
        if let Who::Known(login) = &mut self.who {
            if verb.is_none_or(|verb| !verb.keeps_prefix) {
                login.restart = 0;
            }
            if handled.is_err() || verb.is_none_or(|verb| !verb.keeps_rename) {
                login.rename_from = None;
            }
        }
        self.answer(handled, out);
    }

    fn run(
        &mut self,
        verb: &'static Verb,
        line: &Line,
        cx: &Context,
        out: &mut Vec<Action>,
    ) -> Handled {
        let (mut preferences, mut security) = (self.preferences, self.security);
        let Line {
            clean, argument, ..
        } = *line;
        let mut turn = Turn {
            cx,
            out,
            argument,
            preferences: &mut preferences,
            security: &mut security,
            more_behind: line.more_behind,
            reached: line.reached,
        };
        if let Run::Unchecked(handler) = verb.run {
            return handler(self, &mut turn);
        }
        if clean.contains(&0) {
            return Err(Reply::new(501, "There is a NUL byte in the line."));
        }
        if let (Run::LoggedIn(..), Who::Stranger { .. }) = (&verb.run, &self.who) {
            return Err(not_logged_in());
        }
        if verb.argument == Argument::Required && argument.is_empty() {
            return Err(Reply::new(501, format!("It is written {}.", verb.help)));
        }
        let handled = match (&verb.run, &mut self.who) {
            (Run::LoggedIn(permission, handler), Who::Known(login)) => login
                .check(*permission)
                .and_then(|()| handler(login, &mut turn)),
            (Run::Anytime(handler) | Run::Unchecked(handler), _) => handler(self, &mut turn),
            (Run::NotBuilt, _) => Err(Reply::new(502, format!("{} is not built.", verb.name))),
            (Run::LoggedIn(..), Who::Stranger { .. }) => Err(not_logged_in()),
        };
        self.preferences = preferences;
        self.security = security;
        handled
    }

    fn unknown(&mut self, cx: &Context) -> Handled {
        if let Who::Stranger { unknown_verbs, .. } = &mut self.who {
            *unknown_verbs += 1;
            if *unknown_verbs >= cx.config.limits.unknown_verbs_max {
                let reply = Reply::new(421, "Too many unknown commands.");
                return Ok(Answer::Close(reply));
            }
        }
        Err(Reply::new(500, "Unknown command."))
    }

    fn answer(&mut self, handled: Handled, out: &mut Vec<Action>) {
        match handled {
            Ok(Answer::Now(reply)) | Err(reply) => self.say(reply, out),
            Ok(Answer::Later(wait)) => self.wait = wait,
            Ok(Answer::Transfer(transfer, what)) => self.transfer(transfer, what, out),
            Ok(Answer::Cut | Answer::Reach) => {}
            Ok(Answer::Close(reply)) => self.hang_up(reply, out),
            Ok(Answer::Tls(reply)) => out.extend([Action::Reply(reply), Action::StartTls]),
        }
    }

    fn transfer(&mut self, transfer: Transfer, what: What, out: &mut Vec<Action>) {
        self.wait = Wait::Transfer(Box::new(Running {
            since: self.last_command,
            via: transfer.via,
            what,
            aborting: false,
        }));
        out.push(Action::Transfer(Box::new(transfer)));
    }

    fn task_done(&mut self, done: io::Result<Done>, out: &mut Vec<Action>) {
        let Wait::Task(pending) = std::mem::replace(&mut self.wait, Wait::Command) else {
            debug_assert!(false, "a task was done that nobody waits for");
            return;
        };
        let reply = match (*pending, done) {
            (Pending::Continue(continuing), Ok(Done::Hashed(digest))) => {
                return self.go_on(continuing, Ok(digest), out);
            }
            (Pending::Continue(continuing), Err(error)) => {
                return self.go_on(continuing, Err(error), out);
            }
            (_, Err(error)) => error.into(),
            (Pending::Digest { reply, of }, Ok(Done::Digest(hex))) => reply(&of, &hex),
            (Pending::Names(reply), Ok(Done::Nothing)) => reply,
            (
                Pending::Copy {
                    reply,
                    transfer,
                    what,
                },
                Ok(Done::Nothing),
            ) => {
                if let Who::Known(login) = &mut self.who {
                    login.data = None;
                }
                out.push(Action::Reply(reply));
                return self.transfer(transfer, what, out);
            }
            (pending, done) => {
                debug_assert!(false, "{done:?} is no answer to {pending:?}");
                Reply::new(451, "Local error.")
            }
        };
        out.push(Action::Reply(reply));
    }

    /// One last reply, then the end.
    fn hang_up(&mut self, reply: Reply, out: &mut Vec<Action>) {
        self.end(Some(reply), out);
    }

    fn close(&mut self, out: &mut Vec<Action>) {
        self.end(None, out);
    }

    /// The end, behind what is owed.
    fn end(&mut self, last_word: Option<Reply>, out: &mut Vec<Action>) {
        if matches!(self.wait, Wait::Ending | Wait::Closed) {
            return;
        }
        self.queued = Vec::new();
        self.queued_at = 0;
        if !self.due.is_empty() {
            self.wait = Wait::Ending;
            return self.due.push(Due::End(last_word));
        }
        out.extend(last_word.map(Action::Reply));
        self.wait = Wait::Closed;
        out.push(Action::Close);
    }

    /// When the session wants [`Input::TimedOut`]: the login or idle deadline, or the time at which a
    /// wrong password is answered. The idle clock stands
    /// still while something is owed to the client.
    pub fn deadline(&self, config: &Config) -> Option<Instant> {
        match (&self.who, &self.wait) {
            (_, Wait::Closed) => None,
            (Who::Stranger { since, .. }, wait) => {
                let login = *since + config.limits.login_timeout;
                match wait {
                    Wait::Refusal(refusal) => Some(login.min(refusal.until)),
                    _ => Some(login),
                }
            }
            (Who::Known(login), Wait::Command) if self.due.is_empty() => {
                let idle_timeout = login.idle_timeout_s.map(Duration::from_secs);
                let idle_timeout = idle_timeout.unwrap_or(config.limits.idle_timeout);
                let idle = self.last_command + idle_timeout;
                let noop = self.last_deed + config.limits.noop_keeps.max(idle_timeout);
                Some(idle.min(noop))
            }
            _ => None,
        }
    }

    /// Whether more of the control connection should be read. Otherwise the rest stays in the kernel,
    /// where it slows the client down.
    pub fn wants_input(&self, config: &Config) -> bool {
        match &self.wait {
            Wait::Command => self.due.len() < config.limits.commits_per_session_max,
            Wait::Transfer(running) => !running.in_band(),
            _ => false,
        }
    }

    /// What it holds of lines that wait behind a transfer, in bytes.
    pub fn queued_bytes(&self) -> usize {
        self.queued.capacity()
    }

    /// Whether a data connection that is made now is inside TLS.
    pub fn protects_data(&self) -> bool {
        self.security.protects_data()
    }

    /// Whether ABOR was said of the transfer that is running.
    pub fn is_aborting(&self) -> bool {
        matches!(&self.wait, Wait::Transfer(running) if running.aborting)
    }

    /// Whether the session has ended: it takes no more input.
    pub fn is_closed(&self) -> bool {
        matches!(self.wait, Wait::Closed)
    }

    /// Whether somebody is logged in.
    pub fn is_logged_in(&self) -> bool {
        matches!(self.who, Who::Known(_))
    }

    /// The user who is logged in; `None` also for anonymous sessions.
    pub fn user(&self) -> Option<&Arc<User>> {
        match &self.who {
            Who::Known(login) => login.user.as_ref(),
            Who::Stranger { .. } => None,
        }
    }

    /// Whose partials this session continues; `None` before login.
    pub fn owner(&self) -> Option<Owner> {
        match &self.who {
            Who::Known(login) => Some(login.owner),
            Who::Stranger { .. } => None,
        }
    }

    /// Address of the client.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// When the connection was made.
    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// What went through this session so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }
}

fn not_logged_in() -> Reply {
    Reply::new(530, "Log in first, with USER and PASS.")
}
