//! A shell without sockets around a [`Session`]: it carries out the session's actions in order, over
//! a real directory, and keeps what would have gone over the wire.
//!
//! Nothing happens by itself. [`Shell::settle`] does all that can be done without another word of
//! the client; the finer steps are for tests that want answers to be late. Time stands still unless
//! a test moves [`Shell::now`].

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use haul::config::Config;
use haul::proto::reply::Reply;
use haul::session::{
    Action, Context, Ended, Input, Job, Outcome, PasswordAnswer, Receive, Session, Task, Transfer,
    Via,
};
use haul::storage::root::Root;
use haul::storage::staging::{Publish, Upload};
use rustix::io::Errno;
use sha2::Digest;

/// Where passive data connections go; nobody listens there.
pub const PASSIVE_PORT: u16 = 40000;
/// An active data connection to this port is refused.
pub const REFUSED_PORT: u16 = 50001;
/// The wall clock at the beginning: 2026-01-31 12:00:00 UTC.
pub const WALL_S: i64 = 1_769_860_800;

/// Something that the session asked and that has not been answered.
#[derive(Debug)]
pub enum Question {
    Password,
    Listen,
    Reach,
    Run(Task),
}

/// A data connection, from the server's side of the wire.
#[derive(Debug, Default)]
pub struct Data {
    /// What the client sent and nobody has taken yet.
    pub incoming: Vec<u8>,
    /// The client closed its side in order.
    pub finished: bool,
    /// The client reset the connection.
    pub reset: bool,
    /// The client reads; until then nothing can be sent.
    pub reads: bool,
    /// What the server sent.
    pub outgoing: Vec<u8>,
}

/// A transfer that is under way.
#[derive(Debug)]
pub struct Moving {
    pub job: Job,
    pub via: Via,
    moved: u64,
}

/// What one call of [`Shell::pump`] did.
enum Step {
    Blocked,
    Moved,
    Over(Outcome),
}

/// What one call of [`Session::receive`] did.
#[derive(Debug)]
pub struct Taken {
    /// The line that was used up, with its end; empty if a queued one was next.
    pub line: Vec<u8>,
    /// A transfer over a data connection was under way.
    pub busy: bool,
}

/// A session, its directory, and the ends of its connections.
pub struct Shell {
    pub session: Session,
    pub config: Config,
    pub home: Arc<Root>,
    pub now: Instant,
    /// What the wall clock shows; it may jump.
    pub wall_s: i64,
    /// What the client sent and the session has not used.
    pub unread: Vec<u8>,
    /// What went out on the control connection.
    pub sent: Vec<u8>,
    /// The replies among it that a test has not looked at yet.
    pub replies: Vec<Reply>,
    pub question: Option<Question>,
    /// Uploads that wait to be published.
    pub commits: VecDeque<(Upload, Publish)>,
    /// The server has as many of them as it can have.
    pub commits_full: bool,
    pub moving: Option<Moving>,
    pub cut: bool,
    finished: bool,
    /// The client's data connection.
    pub data: Option<Data>,
    /// The one before, whose transfer has ended.
    pub ended_data: Option<Data>,
    pub closed: bool,
    random: u64,
}

impl Shell {
    /// A client that has just connected from 127.0.0.1; the greeting is there.
    pub fn new(dir: &Path, config: Config) -> Shell {
        Shell::from(dir, config, "127.0.0.1:50000")
    }

    /// A client that has just connected from `peer`.
    pub fn from(dir: &Path, config: Config, peer: &str) -> Shell {
        Shell::sharing(Arc::new(Root::open(dir).unwrap()), config, peer)
    }

    /// One of several clients of one directory.
    pub fn sharing(home: Arc<Root>, config: Config, peer: &str) -> Shell {
        let now = Instant::now();
        let mut actions = Vec::new();
        let context = Context {
            config: &config,
            home: &home,
            now,
            wall_s: WALL_S,
            random: 0,
            commits_full: false,
        };
        let session = Session::new(peer.parse().unwrap(), &context, &mut actions);
        let mut shell = Shell {
            session,
            config,
            home,
            now,
            wall_s: WALL_S,
            unread: Vec::new(),
            sent: Vec::new(),
            replies: Vec::new(),
            question: None,
            commits: VecDeque::new(),
            commits_full: false,
            moving: None,
            cut: false,
            finished: false,
            data: None,
            ended_data: None,
            closed: false,
            random: 0,
        };
        shell.carry_out(actions);
        shell
    }

    // What the client does -----------------------------------------------------------------------

    /// Bytes arrive on the control connection.
    pub fn arrive(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
    }

    /// The client sends no more.
    pub fn finish(&mut self) {
        self.finished = true;
        self.tell(Input::ControlEnded);
    }

    /// The client's data connection, which it makes now if there is none.
    pub fn data(&mut self) -> &mut Data {
        self.data.get_or_insert_default()
    }

    // What the server does -----------------------------------------------------------------------

    /// Tells the session something.
    pub fn tell(&mut self, input: Input) {
        let mut actions = Vec::new();
        let Shell {
            session,
            config,
            home,
            now,
            wall_s,
            random,
            commits_full,
            ..
        } = self;
        *random += 1;
        let context = Context {
            config,
            home,
            now: *now,
            wall_s: *wall_s,
            random: *random,
            commits_full: *commits_full,
        };
        session.handle(input, &context, &mut actions);
        self.carry_out(actions);
    }

    /// Lets the session take one command. `None`: it cannot now.
    pub fn take_command(&mut self) -> Option<Taken> {
        let busy = self.moving.as_ref().is_some_and(|m| m.via != Via::Control);
        let mut actions = Vec::new();
        self.random += 1;
        let context = Context {
            config: &self.config,
            home: &self.home,
            now: self.now,
            wall_s: self.wall_s,
            random: self.random,
            commits_full: self.commits_full,
        };
        let used = self.session.receive(&self.unread, &context, &mut actions);
        assert!(
            used.is_some() || actions.iter().all(|a| matches!(a, Action::Close)),
            "no command was taken, and yet: {actions:?}"
        );
        let line = used.map(|used| self.unread.drain(..used).collect());
        self.carry_out(actions);
        line.map(|line| Taken { line, busy })
    }

    /// Answers what the session asked, as a server does that has everything.
    pub fn answer(&mut self) {
        let input = match self.question.take() {
            None => return,
            Some(Question::Password) => Input::PasswordChecked(PasswordAnswer::Wrong),
            Some(Question::Listen) => Input::Listening(Some(self.passive_address())),
            Some(Question::Reach) => Input::Reached {
                free: true,
                more_behind: !self.unread.is_empty(),
            },
            Some(Question::Run(task)) => Input::TaskDone(task.run(&AtomicBool::new(false))),
        };
        self.tell(input);
    }

    /// Answers that it did not work.
    pub fn answer_failure(&mut self, error: io::Error) {
        let input = match self.question.take() {
            None => return,
            Some(Question::Password) => Input::PasswordChecked(PasswordAnswer::Busy),
            Some(Question::Listen) => Input::Listening(None),
            Some(Question::Reach) => Input::Reached {
                free: false,
                more_behind: !self.unread.is_empty(),
            },
            // What a rename says when its names cannot be brought to the disk.
            Some(Question::Run(Task::SyncNames(_))) => Input::TaskDone(Err(Errno::IO.into())),
            Some(Question::Run(_)) => Input::TaskDone(Err(error)),
        };
        self.tell(input);
    }

    /// Publishes the upload that has waited longest. False: there is none.
    pub fn commit(&mut self) -> bool {
        let Some((upload, how)) = self.commits.pop_front() else {
            return false;
        };
        self.tell(Input::Committed(upload.publish(&how)));
        true
    }

    /// Says that it could not be published.
    pub fn fail_commit(&mut self, error: io::Error) {
        if let Some((upload, _)) = self.commits.pop_front() {
            drop(upload);
            self.tell(Input::Committed(Err(error)));
        }
    }

    /// Moves up to `most` bytes of the transfer, if it has a connection. True: something changed.
    pub fn pump(&mut self, most: usize) -> bool {
        let Some(mut moving) = self.moving.take() else {
            return false;
        };
        let step = if std::mem::take(&mut self.cut) {
            Step::Over(Outcome::Cut)
        } else {
            let step = match moving.via {
                Via::Control if moving.is_receiving() => {
                    let nothing_comes = self.finished && self.unread.is_empty();
                    match moving.take_body(&mut self.unread, most) {
                        Ok(Step::Blocked) if nothing_comes => Ok(Step::Over(Outcome::Broken)),
                        step => step,
                    }
                }
                Via::Control => moving.produce(&mut self.sent, most),
                Via::Active(address) if address.port() == REFUSED_PORT => {
                    Ok(Step::Over(Outcome::NoConnection))
                }
                Via::Passive | Via::Active(_) => match &mut self.data {
                    None => Ok(Step::Blocked),
                    Some(data) => moving.use_connection(data, most),
                },
            };
            step.unwrap_or_else(|error| Step::Over(Outcome::Failed(error)))
        };
        let changed = !matches!(step, Step::Blocked);
        match step {
            Step::Over(outcome) => self.end(moving, outcome),
            Step::Moved | Step::Blocked => self.moving = Some(moving),
        }
        changed
    }

    /// Ends the transfer.
    pub fn end_transfer(&mut self, outcome: Outcome) {
        if let Some(moving) = self.moving.take() {
            self.cut = false;
            self.end(moving, outcome);
        }
    }

    /// Does all that can be done.
    pub fn settle(&mut self) {
        loop {
            let took = self.take_command().is_some();
            let asked = self.question.is_some();
            self.answer();
            let moved = self.pump(usize::MAX);
            let committed = !took && !moved && self.commit();
            if self.closed || !(took || asked || moved || committed) {
                return;
            }
        }
    }

    fn passive_address(&self) -> SocketAddr {
        let ip = match self.session.peer().is_ipv4() {
            true => Ipv4Addr::LOCALHOST.into(),
            false => Ipv6Addr::LOCALHOST.into(),
        };
        SocketAddr::new(ip, PASSIVE_PORT)
    }

    fn end(&mut self, moving: Moving, outcome: Outcome) {
        if moving.via != Via::Control {
            self.ended_data = Some(self.data.take().unwrap_or_default());
        }
        self.tell(Input::TransferEnded(Ended {
            job: moving.job,
            outcome,
            bytes: moving.moved,
        }));
    }

    /// Strictly in order; nothing may stand behind a question or the end.
    fn carry_out(&mut self, actions: Vec<Action>) {
        let mut last_word = None;
        for action in actions {
            assert!(!self.closed, "{action:?} behind the end");
            assert!(last_word.is_none(), "{action:?} behind {last_word:?}");
            match action {
                Action::Reply(reply) => {
                    reply.encode(&mut self.sent);
                    self.replies.push(reply);
                }
                Action::CheckPassword { .. } => {
                    last_word = Some("CheckPassword");
                    self.ask(Question::Password);
                }
                Action::Listen => {
                    self.data = None;
                    last_word = Some("Listen");
                    self.ask(Question::Listen);
                }
                Action::Unlisten => self.data = None,
                Action::Transfer(transfer) => {
                    last_word = Some("Transfer");
                    self.begin(*transfer);
                }
                Action::CutTransfer => {
                    assert!(self.moving.is_some(), "there is nothing to cut");
                    self.cut = true;
                }
                Action::Commit(upload, how) => self.commits.push_back((*upload, how)),
                Action::Reach(_) => {
                    last_word = Some("Reach");
                    self.ask(Question::Reach);
                }
                // What is unattended is done at once: nothing is being kept.
                Action::Outdate(_) => {}
                Action::Run(task) if task.is_unattended() => {
                    task.run(&AtomicBool::new(false)).unwrap();
                }
                Action::Run(task) => {
                    last_word = Some("Run");
                    self.ask(Question::Run(task));
                }
                // What goes through TLS comes out of it unchanged.
                Action::StartTls => {}
                Action::Close => {
                    self.closed = true;
                    self.moving = None;
                    self.question = None;
                    self.data = None;
                    assert!(self.commits.is_empty(), "the end, before what is owed");
                }
            }
        }
    }

    fn ask(&mut self, question: Question) {
        assert!(
            self.question.is_none(),
            "a second question before an answer"
        );
        assert!(self.moving.is_none(), "a question during a transfer");
        self.question = Some(question);
    }

    fn begin(&mut self, transfer: Transfer) {
        let Transfer { job, via, .. } = transfer;
        assert!(self.moving.is_none(), "a second transfer beside one");
        assert!(self.question.is_none(), "a transfer before an answer");
        self.moving = Some(Moving { job, via, moved: 0 });
    }
}

/// A client with a directory of its own.
pub struct Client {
    pub shell: Shell,
    pub dir: tempfile::TempDir,
}

/// A client of a server with the default configuration; the greeting is read.
pub fn client() -> Client {
    let dir = tempfile::tempdir().unwrap();
    let mut shell = Shell::new(dir.path(), Config::default());
    shell.replies.clear();
    Client { shell, dir }
}

impl Client {
    /// Sends a line; the codes of what comes back.
    pub fn command(&mut self, line: &str) -> Vec<u16> {
        self.shell.replies.clear();
        self.shell.arrive(format!("{line}\r\n").as_bytes());
        self.shell.settle();
        self.codes()
    }

    pub fn log_in(&mut self) {
        self.command("USER anonymous");
        assert_eq!(self.command("PASS x"), [230]);
    }

    /// The codes of the replies since the last look.
    pub fn codes(&mut self) -> Vec<u16> {
        self.shell
            .replies
            .drain(..)
            .map(|reply| reply.code)
            .collect()
    }

    /// What is in the directory, staged files included.
    pub fn names(&self) -> Vec<OsString> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    }
}

impl Moving {
    pub fn is_receiving(&self) -> bool {
        matches!(self.job, Job::Receive(_) | Job::Discard(_))
    }

    fn take_body(&mut self, unread: &mut Vec<u8>, most: usize) -> io::Result<Step> {
        let left = match &self.job {
            Job::Receive(receive) => receive.bytes.unwrap(),
            Job::Discard(left) => *left,
            Job::Send(_) | Job::Text(_) => unreachable!(),
        };
        let taken = most.min(unread.len()).min(usize::try_from(left).unwrap());
        if taken == 0 && left > 0 {
            return Ok(Step::Blocked);
        }
        let body: Vec<u8> = unread.drain(..taken).collect();
        self.take_in(&body)?;
        Ok(match left == taken as u64 {
            true => Step::Over(Outcome::Complete),
            false => Step::Moved,
        })
    }

    fn use_connection(&mut self, data: &mut Data, most: usize) -> io::Result<Step> {
        if data.reset {
            return Ok(Step::Over(Outcome::Broken));
        }
        if self.is_receiving() {
            return self.take_until_end(data, most);
        }
        match data.reads {
            true => self.produce(&mut data.outgoing, most),
            false => Ok(Step::Blocked),
        }
    }

    fn take_until_end(&mut self, data: &mut Data, most: usize) -> io::Result<Step> {
        let taken = most.min(data.incoming.len());
        let bytes: Vec<u8> = data.incoming.drain(..taken).collect();
        self.take_in(&bytes)?;
        if !data.incoming.is_empty() || !data.finished {
            return Ok(if taken > 0 {
                Step::Moved
            } else {
                Step::Blocked
            });
        }
        if let Job::Receive(receive) = &mut self.job {
            let mut rest = Vec::new();
            if let Some(ascii) = &mut receive.ascii {
                ascii.finish(&mut rest);
            }
            receive.upload.write(&rest, receive.at)?;
        }
        Ok(Step::Over(Outcome::Complete))
    }

    fn take_in(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.moved += bytes.len() as u64;
        match &mut self.job {
            Job::Receive(receive) => write(receive, bytes),
            Job::Discard(left) => {
                *left -= bytes.len() as u64;
                Ok(())
            }
            Job::Send(_) | Job::Text(_) => unreachable!(),
        }
    }

    /// Appends what the next step of the transfer sends: of a file about `most` bytes, of a listing
    /// one batch.
    fn produce(&mut self, out: &mut Vec<u8>, most: usize) -> io::Result<Step> {
        let before = out.len();
        let more = match &mut self.job {
            Job::Text(text) => text.fill(out, most < 1024)?,
            Job::Send(send) => {
                let mut chunk = vec![0; most.min(usize::try_from(send.bytes).unwrap())];
                send.file.read_exact_at(&mut chunk, send.at)?;
                send.at += chunk.len() as u64;
                send.bytes -= chunk.len() as u64;
                match &mut send.ascii {
                    Some(ascii) => ascii.translate(&chunk, out),
                    None => out.extend_from_slice(&chunk),
                }
                send.bytes > 0
            }
            Job::Receive(_) | Job::Discard(_) => unreachable!(),
        };
        self.moved += (out.len() - before) as u64;
        Ok(match more {
            true => Step::Moved,
            false => Step::Over(Outcome::Complete),
        })
    }
}

fn write(receive: &mut Receive, bytes: &[u8]) -> io::Result<()> {
    if let Some(left) = &mut receive.bytes {
        *left -= bytes.len() as u64;
    }
    if let Some(digest) = &mut receive.digest {
        digest.update(bytes);
    }
    let mut translated = Vec::new();
    let bytes = match &mut receive.ascii {
        Some(ascii) => {
            ascii.translate(bytes, &mut translated);
            &translated
        }
        None => bytes,
    };
    receive.upload.make_room(receive.at + bytes.len() as u64)?;
    receive.upload.write(bytes, receive.at)?;
    receive.at += bytes.len() as u64;
    Ok(())
}
