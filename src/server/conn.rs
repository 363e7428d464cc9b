//! One client: a session and its sockets. Carries out what the session asks for and tells it what
//! happened.
//!
//! It never names a verb and never looks at a line. Work on it stops when its sockets would block
//! (an event will come) or when its budget is used up (then it asks for another turn). There is no
//! third way to stop.

mod protected;

use std::io;
use std::mem;
use std::net::{IpAddr, Shutdown};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Token};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use super::background::Ticket;
use super::pump::{self, Pump, QUANTUM_BYTES, Step, Wire};
use super::tls::{self, Tls};
use super::{Id, Shared, Socket, World, listen};
use crate::proto::line::LINE_BYTES_MAX;
use crate::session::{
    Action, Ended, Input, Job, Outcome, PasswordAnswer, Send, Session, Task, Transfer, Via,
};

/// What is read of commands and bodies at a time, and the most that is held unread.
pub const INPUT_BYTES: usize = 64 * 1024;
/// Files up to this size are read into the output, so that a pipelined series leaves in few calls.
const SMALL_FILE_BYTES: u64 = 64 * 1024;
/// Output is sent when this much has come together.
pub const OUTPUT_BYTES: usize = 256 * 1024;
/// What one command takes off the budget beside the bytes it moves.
const COMMAND_COST: usize = 512;
/// Commands stop after this, whatever is left of the budget: making a directory may take a thousand
/// times as long as NOOP, and nobody knows before.
const COMMANDS_TIME: Duration = Duration::from_micros(250);
/// A closed connection is read from for so long, and so much, so that the last reply is not lost to
/// the reset that unread input causes.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 * 1024;
/// Turns that a connection may ask for without having done anything, before it is taken for a bug.
const FRUITLESS_TURNS_MAX: u32 = 1000;

/// What happens to a connection after its turn.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// An event or a deadline will come.
    Wait,
    /// There is more to do.
    Again,
    /// It has ended.
    Dead,
}

/// One client.
#[derive(Debug)]
pub struct Conn {
    /// Its place and generation.
    pub id: Id,
    /// It is in the queue of this or the next turn.
    pub queued: bool,
    /// When the timers will look at it.
    pub timer_at: Option<Instant>,
    session: Session,
    control: TcpStream,
    /// The control connection is inside TLS.
    tls: Option<Box<Tls>>,
    /// What its data connections have in common with it.
    secure: Option<tls::Session>,
    handshake_until: Option<Instant>,
    bind: IpAddr,
    readable: bool,
    writable: bool,
    /// A short read does not mean that all was read: an event has announced the end, which takes
    /// another read, or urgent data, before which the kernel stops.
    reads_to_the_end: bool,
    ended: bool,
    dead: bool,
    unread: Vec<u8>,
    unread_at: usize,
    output: Vec<u8>,
    output_at: usize,
    moving: Option<Box<Moving>>,
    /// A data connection that came before its transfer.
    early: Option<Early>,
    /// A passive data connection was made ready and has not been used for a transfer.
    listens: bool,
    slot: Option<usize>,
    listening_until: Option<Instant>,
    ticket: Option<Ticket>,
    closing: Option<Closing>,
    flushed: u64,
    stall: Option<Stall>,
    fruitless: u32,
}

/// A transfer and its connection.
#[derive(Debug)]
struct Moving {
    pump: Pump,
    data: Data,
    /// The data connection is inside TLS.
    tls: Option<Box<Tls>>,
    /// Until when the data connection must be there.
    wait_until: Instant,
    handshake_until: Option<Instant>,
}

#[derive(Debug)]
enum Data {
    Control,
    Awaited,
    Connecting(TcpStream),
    /// It was refused.
    Failed,
    Open {
        stream: TcpStream,
        ready: bool,
        registered: bool,
    },
}

#[derive(Debug)]
struct Closing {
    until: Option<Instant>,
    drained: usize,
}

/// A data connection whose transfer has not begun.
#[derive(Debug)]
struct Early {
    stream: TcpStream,
    /// Some clients say nothing more on the control connection until their hello is answered here.
    tls: Option<Box<Tls>>,
    ready: bool,
    registered: bool,
}

/// A window in which something has to move.
#[derive(Debug)]
struct Stall {
    until: Instant,
    moved_before: u64,
}

impl Conn {
    /// A connection that was just accepted at an address bound to `bind`; greets at once.
    pub fn new(id: Id, control: TcpStream, bind: IpAddr, session: Session) -> Conn {
        Conn {
            id,
            queued: false,
            timer_at: None,
            session,
            control,
            tls: None,
            secure: None,
            handshake_until: None,
            bind,
            readable: false,
            writable: true,
            reads_to_the_end: false,
            ended: false,
            dead: false,
            unread: Vec::new(),
            unread_at: 0,
            output: Vec::new(),
            output_at: 0,
            moving: None,
            early: None,
            listens: false,
            slot: None,
            listening_until: None,
            ticket: None,
            closing: None,
            flushed: 0,
            stall: None,
            fruitless: 0,
        }
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    // What happened ------------------------------------------------------------------------------

    /// An event of one of its sockets.
    pub fn event(&mut self, socket: Socket, event: &mio::event::Event) {
        match socket {
            Socket::Control => {
                self.readable |=
                    event.is_readable() || event.is_read_closed() || event.is_priority();
                self.reads_to_the_end |= event.is_read_closed() || event.is_priority();
                self.writable |= event.is_writable();
                // Reset, or closed in both directions: nobody is left to answer to.
                self.dead |=
                    event.is_error() || (event.is_read_closed() && event.is_write_closed());
            }
            Socket::Data => {
                if let Some(early) = &mut self.early {
                    early.ready = true;
                }
                if let Some(moving) = &mut self.moving
                    && let Data::Open { ready, .. } = &mut moving.data
                {
                    *ready = true;
                }
                self.finish_connecting();
            }
        }
    }

    /// An event of a data connection that is being made: it is there, or it failed, or neither yet.
    fn finish_connecting(&mut self) {
        let Some(moving) = &mut self.moving else {
            return;
        };
        let (made, failed) = match &moving.data {
            Data::Connecting(stream) => match (stream.take_error(), stream.peer_addr()) {
                (Ok(None), Ok(_)) => (true, false),
                (Ok(None), Err(error)) => (false, error.kind() != io::ErrorKind::NotConnected),
                _ => (false, true),
            },
            _ => (false, false),
        };
        if failed {
            moving.data = Data::Failed;
        } else if made
            && let Data::Connecting(stream) = mem::replace(&mut moving.data, Data::Failed)
        {
            moving.data = Data::Open {
                stream,
                ready: true,
                registered: true,
            };
        }
    }

    /// A data connection came to this session's slot.
    pub fn data_arrived(&mut self, stream: TcpStream, shared: &mut Shared) {
        match &mut self.moving {
            Some(moving) if matches!(moving.data, Data::Awaited) => {
                moving.data = Data::Open {
                    stream,
                    ready: true,
                    registered: false,
                };
            }
            _ if self.listens => {
                let tls = self.protect(self.session.protects_data());
                self.early = Some(Early {
                    stream,
                    tls: tls.unwrap_or_default(),
                    ready: true,
                    registered: false,
                });
                self.greet_early(shared);
            }
            // It came too late: its transfer is over.
            _ => {}
        }
    }

    /// Tells the session something and does what it says.
    pub fn tell(&mut self, input: Input, shared: &mut Shared) {
        if let Input::TaskDone(_) = input {
            self.ticket = None;
        }
        let mut actions = shared.take_actions();
        let world = shared.world.clone();
        self.hand_over(input, &world, shared, &mut actions);
        self.perform(actions, &world, shared);
    }

    /// A slot may have become free.
    pub fn retry_listening(&mut self, shared: &mut Shared) -> bool {
        if self.listening_until.is_none() {
            return true;
        }
        let Some(address) = self.reserve(shared) else {
            return false;
        };
        self.listening_until = None;
        self.tell(Input::Listening(Some(address)), shared);
        true
    }

    /// The time has come that [`Conn::deadline`] gave.
    pub fn expire(&mut self, shared: &mut Shared) {
        let now = shared.now;
        if self
            .closing
            .as_ref()
            .is_some_and(|c| c.until.is_some_and(|until| until <= now))
        {
            self.dead = true;
            return;
        }
        if self.handshake_until.is_some_and(|until| until <= now) {
            log::info!("{} takes too long for TLS", self.session.peer());
            self.dead = true;
            return;
        }
        if self.listening_until.is_some_and(|until| until <= now) {
            self.listening_until = None;
            self.tell(Input::Listening(None), shared);
        }
        if self
            .moving
            .as_ref()
            .is_some_and(|m| m.is_waiting() && m.wait_until <= now)
        {
            self.end_transfer(Outcome::NoConnection, shared);
        }
        if self
            .moving
            .as_ref()
            .is_some_and(|m| m.handshake_until.is_some_and(|until| until <= now))
        {
            self.end_transfer(Outcome::NotProtected, shared);
        }
        if self.stall.as_ref().is_some_and(|stall| stall.until <= now) {
            let moved = self.moved();
            let limits = &shared.world.config.limits;
            let before = self.stall.take().map_or(0, |stall| stall.moved_before);
            if moved - before < limits.stall_bytes {
                if self.moving.as_ref().is_some_and(|m| !m.is_waiting()) {
                    self.end_transfer(Outcome::Stalled, shared);
                } else {
                    log::info!("{} does not read its replies", self.session.peer());
                    self.dead = true;
                }
            }
        }
        let config = &shared.world.config;
        if self.session.deadline(config).is_some_and(|at| at <= now) {
            self.tell(Input::TimedOut, shared);
        }
    }

    /// Ends a transfer over a data connection; one over the control connection cannot be ended but
    /// by closing.
    pub fn cut(&mut self, shared: &mut Shared) {
        match &self.moving {
            Some(moving) if matches!(moving.data, Data::Control) => self.dead = true,
            Some(_) => self.end_transfer(Outcome::Cut, shared),
            None => {}
        }
    }

    /// When it wants [`Conn::expire`].
    pub fn deadline(&self, world: &World) -> Option<Instant> {
        let waiting = self
            .moving
            .as_ref()
            .filter(|m| m.is_waiting())
            .map(|m| m.wait_until);
        [
            self.session.deadline(&world.config),
            waiting,
            self.moving.as_ref().and_then(|m| m.handshake_until),
            self.handshake_until,
            self.listening_until,
            self.stall.as_ref().map(|stall| stall.until),
            self.closing.as_ref().and_then(|closing| closing.until),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    // A turn -------------------------------------------------------------------------------------

    /// Does what can be done, up to its budget.
    pub fn advance(&mut self, shared: &mut Shared) -> Next {
        let mut budget = QUANTUM_BYTES;
        let begin = Instant::now();
        self.greet_early(shared);
        let before = self.progress();
        while !self.dead && self.closing.is_none() && budget > 0 {
            let moved = self.move_bytes(shared, &mut budget);
            let took = self.take_commands(shared, &mut budget, begin);
            if !moved && !took {
                break;
            }
        }
        self.flush(shared);
        if self.closing.is_some() {
            self.linger(shared);
        }
        self.settle(shared);
        if self.dead {
            return Next::Dead;
        }
        self.watch_for_stall(shared);
        if budget > 0 || self.closing.is_some() {
            self.fruitless = 0;
            return Next::Wait;
        }
        let fruitful = before != self.progress();
        self.fruitless = if fruitful { 0 } else { self.fruitless + 1 };
        if self.fruitless > FRUITLESS_TURNS_MAX {
            log::error!("{} makes no progress and is ended", self.session.peer());
            return Next::Dead;
        }
        Next::Again
    }

    fn progress(&self) -> (u64, u64, Option<(u64, u64)>) {
        let pump = self.moving.as_ref().map(|moving| moving.pump.progress());
        (self.flushed, self.session.totals().commands, pump)
    }

    fn moved(&self) -> u64 {
        let control = self.tls.as_ref().map_or(0, |tls| tls.left());
        let moving = self.moving.as_ref().map_or(0, |moving| moving.moved());
        self.flushed + control + moving
    }

    fn watch_for_stall(&mut self, shared: &Shared) {
        // For a data connection that is awaited there is another deadline.
        let moves = self.moving.as_ref().is_some_and(|m| !m.is_waiting());
        if !moves && self.is_flushed() {
            self.stall = None;
        } else if self.stall.is_none() {
            let until = shared.now + shared.world.config.limits.stall_timeout;
            self.stall = Some(Stall {
                until,
                moved_before: self.moved(),
            });
        }
    }

    /// Moves bytes of the transfer, if there is one that can move. True: something changed.
    fn move_bytes(&mut self, shared: &mut Shared, budget: &mut usize) -> bool {
        let Some(mut moving) = self.moving.take() else {
            return false;
        };
        let before = *budget;
        let step = match &mut moving.data {
            Data::Failed => Step::Done(Outcome::NoConnection),
            Data::Awaited | Data::Connecting(_) => Step::Blocked,
            Data::Open { ready: false, .. } => Step::Blocked,
            Data::Open {
                stream,
                ready,
                registered,
            } => {
                let mut wire = Wire {
                    socket: stream.as_fd(),
                    tls: moving.tls.as_deref_mut(),
                };
                let step = protected::step(&mut moving.pump, &mut wire, shared, budget);
                if let Some(until) = moving.handshake_until {
                    let limit = shared.world.config.limits.tls_handshake_timeout;
                    let handshaking = moving.tls.as_ref().is_some_and(|tls| tls.is_handshaking());
                    moving.handshake_until = handshaking.then(|| until.min(shared.now + limit));
                    if !handshaking {
                        protected::established(stream, &moving.pump, moving.tls.as_deref());
                    }
                }
                if matches!(step, Step::Blocked) {
                    *ready = false;
                    if !*registered {
                        *registered = true;
                        match register(shared, stream, self.id) {
                            Ok(()) => Step::Blocked,
                            Err(error) => Step::Done(Outcome::Failed(error)),
                        }
                    } else {
                        Step::Blocked
                    }
                } else {
                    step
                }
            }
            Data::Control if moving.pump.is_receiving() => {
                self.receive_in_band(&mut moving.pump, shared, budget)
            }
            Data::Control => self.send_in_band(&mut moving.pump, shared, budget),
        };
        self.moving = Some(moving);
        match step {
            Step::More | Step::Blocked => *budget != before,
            Step::Done(outcome) => {
                self.end_transfer(outcome, shared);
                true
            }
        }
    }

    fn receive_in_band(
        &mut self,
        pump: &mut Pump,
        shared: &mut Shared,
        budget: &mut usize,
    ) -> Step {
        if self.tls.is_some() {
            return self.receive_decrypted(pump, shared, budget);
        }
        let (used, outcome) = pump.feed(&self.unread[self.unread_at..], &mut shared.tools);
        self.unread_at += used;
        *budget -= used.min(*budget);
        if let Some(outcome) = outcome {
            return Step::Done(outcome);
        }
        // The end may have been read already, behind a part of the body.
        if self.ended {
            return Step::Done(Outcome::Broken);
        }
        if !self.readable {
            return Step::Blocked;
        }
        let mut wire = Wire {
            socket: self.control.as_fd(),
            tls: None,
        };
        let step = pump.step(&mut wire, &mut shared.tools, budget);
        if matches!(step, Step::Blocked) {
            self.readable = false;
        }
        step
    }

    fn send_in_band(&mut self, pump: &mut Pump, shared: &mut Shared, budget: &mut usize) -> Step {
        self.flush_with(true, shared);
        if self.dead || !self.is_flushed() || !self.writable {
            return Step::Blocked;
        }
        let mut wire = Wire {
            socket: self.control.as_fd(),
            tls: self.tls.as_deref_mut(),
        };
        let step = pump.step(&mut wire, &mut shared.tools, budget);
        if matches!(step, Step::Blocked) {
            self.writable = false;
        }
        step
    }

    fn end_transfer(&mut self, mut outcome: Outcome, shared: &mut Shared) {
        let Some(moving) = self.moving.take() else {
            return;
        };
        let moved = moving.moved();
        let Moving {
            pump, data, tls, ..
        } = *moving;
        let complete = matches!(outcome, Outcome::Complete);
        match data {
            Data::Open { stream, .. } if complete && !pump.is_receiving() => {
                match stream.shutdown(Shutdown::Write) {
                    Ok(()) => shared.lingering.add(stream, shared.now),
                    // It was reset: what was sent last did not arrive.
                    Err(_) => outcome = Outcome::Broken,
                }
            }
            // Whether the client is still there decides whether a plain upload is whole, and its
            // control connection may have ended before the event of that came.
            Data::Open { stream, .. } if complete => {
                // The client may wait for our end, but it has no say any more.
                if tls.is_some() && stream.shutdown(Shutdown::Write).is_ok() {
                    shared.lingering.add(stream, shared.now);
                }
                if self.unread.len() - self.unread_at < INPUT_BYTES {
                    self.read(shared);
                }
                if self.dead {
                    return drop_job(pump.into_job(), shared);
                }
            }
            _ => {}
        }
        self.flushed += moved;
        let bytes = pump.moved();
        self.tell(
            Input::TransferEnded(Ended {
                job: pump.into_job(),
                outcome,
                bytes,
            }),
            shared,
        );
    }

    /// Ends a transfer that nobody asks about any more.
    fn drop_transfer(&mut self, shared: &Shared) {
        if let Some(moving) = self.moving.take() {
            // What has moved stays moved: whether replies are read is judged by the difference.
            self.flushed += moving.pump.moved();
            drop_job(moving.pump.into_job(), shared);
        }
    }

    /// Takes commands until there are no more, or a transfer begins. True: something changed.
    fn take_commands(&mut self, shared: &mut Shared, budget: &mut usize, begin: Instant) -> bool {
        let mut changed = false;
        let held_max = shared.world.config.limits.replies_bytes_max;
        while !self.dead && self.closing.is_none() && *budget > 0 {
            if self.held() >= OUTPUT_BYTES || (self.held() >= held_max && !self.writable) {
                self.flush(shared);
                if self.held() >= held_max {
                    break;
                }
            }
            // What a line is answered with may depend on whether anything has arrived behind it.
            let last = self.unread.len() - self.unread_at <= LINE_BYTES_MAX;
            if last && self.readable && self.session.wants_input() {
                changed |= self.read(shared);
                if self.dead || self.closing.is_some() {
                    break;
                }
            }
            let world = shared.world.clone();
            let mut actions = shared.take_actions();
            let (unread, held) = (&self.unread[self.unread_at..], self.held());
            let used = self
                .session
                .receive(unread, &shared.context(&world), &mut actions);
            self.perform(actions, &world, shared);
            match used {
                Some(used) => {
                    self.unread_at += used;
                    let answered = self.held().saturating_sub(held);
                    *budget = budget.saturating_sub(COMMAND_COST + used + answered);
                    if begin.elapsed() >= COMMANDS_TIME {
                        *budget = 0;
                    }
                    changed = true;
                    if self.moving.is_some() {
                        break;
                    }
                }
                None => {
                    let full = self.unread.len() - self.unread_at >= INPUT_BYTES;
                    if !self.session.wants_input() || !self.readable || full {
                        break;
                    }
                    if !self.read(shared) {
                        break;
                    }
                    changed = true;
                }
            }
        }
        changed
    }

    /// Reads what the client sent. False: there was nothing.
    fn read(&mut self, shared: &mut Shared) -> bool {
        if self.ended {
            return false;
        }
        if self.unread.capacity() < INPUT_BYTES {
            let small = mem::replace(&mut self.unread, shared.inputs.take());
            self.unread.extend_from_slice(&small[self.unread_at..]);
            self.unread_at = 0;
        } else if self.unread_at > 0 {
            self.unread.drain(..self.unread_at);
            self.unread_at = 0;
        }
        if self.tls.is_some() {
            return self.read_decrypted(shared);
        }
        let room = self.unread.capacity() - self.unread.len();
        match rustix::io::read(&self.control, spare_capacity(&mut self.unread)) {
            Ok(0) => {
                self.readable = false;
                self.ended = true;
                self.tell(Input::ControlEnded, shared);
                true
            }
            // A short read has emptied the socket: what comes later is announced by an event.
            Ok(n) => {
                self.readable = n == room || self.reads_to_the_end;
                true
            }
            Err(Errno::AGAIN) => {
                self.readable = false;
                false
            }
            Err(Errno::INTR) => true,
            Err(_) => {
                self.dead = true;
                false
            }
        }
    }

    fn held(&self) -> usize {
        self.output.len() - self.output_at
    }

    fn flush(&mut self, shared: &mut Shared) {
        self.flush_with(false, shared);
    }

    fn flush_with(&mut self, more: bool, shared: &mut Shared) {
        if self.is_flushed() || !self.writable || self.dead {
            return;
        }
        if self.tls.is_some() {
            return self.flush_encrypted(shared);
        }
        let before = self.output_at;
        match pump::flush(&self.control, &self.output, &mut self.output_at, more) {
            Ok(true) => {
                self.flushed += (self.output_at - before) as u64;
                self.output_at = 0;
                self.output.clear();
                shared.outputs.give(mem::take(&mut self.output));
            }
            Ok(false) => {
                self.flushed += (self.output_at - before) as u64;
                self.writable = false;
            }
            Err(_) => self.dead = true,
        }
    }

    /// Gives large buffers back; what is left in them is kept in just the space it needs.
    fn settle(&mut self, shared: &mut Shared) {
        if self.unread_at == self.unread.len() {
            self.unread.clear();
            self.unread_at = 0;
            shared.inputs.give(mem::take(&mut self.unread));
        } else if self.unread.capacity() >= INPUT_BYTES {
            let rest = self.unread[self.unread_at..].to_vec();
            self.unread_at = 0;
            shared.inputs.give(mem::replace(&mut self.unread, rest));
        }
        if self.output.capacity() > OUTPUT_BYTES && self.held() < OUTPUT_BYTES / 2 {
            let rest = self.output[self.output_at..].to_vec();
            self.output_at = 0;
            shared.outputs.give(mem::replace(&mut self.output, rest));
        }
    }

    /// After the last reply: no more output, and what still comes in is thrown away for a while.
    fn linger(&mut self, shared: &mut Shared) {
        let Some(closing) = &mut self.closing else {
            return;
        };
        if self.dead || !self.output.is_empty() {
            return;
        }
        if closing.until.is_none() && !protected::say_goodbye(&mut self.tls, &self.control, shared)
        {
            self.writable = false;
            return;
        }
        if closing.until.is_none() {
            closing.until = Some(shared.now + LINGER);
            if self.control.shutdown(Shutdown::Write).is_err() {
                self.dead = true;
            }
        }
        self.dead |= self.ended;
        while self.readable && !self.dead {
            let scratch = &mut shared.tools.scratch;
            scratch.resize(INPUT_BYTES, 0);
            match rustix::io::read(&self.control, &mut scratch[..]) {
                Ok(0) => self.dead = true,
                Ok(n) => closing.drained += n,
                Err(Errno::AGAIN) => self.readable = false,
                Err(Errno::INTR) => {}
                Err(_) => self.dead = true,
            }
            self.dead |= closing.drained > LINGER_BYTES;
        }
    }

    // What the session asks for ------------------------------------------------------------------

    /// Carries out actions in order. The answer to one becomes the session's next input; it is
    /// always the last of its list that asks.
    pub fn perform(&mut self, mut actions: Vec<Action>, world: &Rc<World>, shared: &mut Shared) {
        while !actions.is_empty() {
            let mut answer = None;
            for action in actions.drain(..) {
                debug_assert!(answer.is_none(), "an action stands behind a question");
                answer = self.act(action, shared);
            }
            if let Some(input) = answer {
                self.hand_over(input, world, shared, &mut actions);
            }
        }
        shared.give_actions(actions);
    }

    fn hand_over(
        &mut self,
        input: Input,
        world: &Rc<World>,
        shared: &mut Shared,
        actions: &mut Vec<Action>,
    ) {
        let kept = match &input {
            Input::TransferEnded(ended) => ended.job.keep_if_large(),
            _ => None,
        };
        self.session.handle(input, &shared.context(world), actions);
        dispose_of(kept, shared);
    }

    fn act(&mut self, action: Action, shared: &mut Shared) -> Option<Input> {
        match action {
            Action::Reply(reply) => {
                if self.output.capacity() == 0 {
                    self.output = shared.outputs.take();
                }
                reply.encode(&mut self.output);
                None
            }
            Action::CheckPassword { name, password } => {
                let address = self.session.peer().ip();
                let Some(passwords) = &mut shared.passwords else {
                    return Some(Input::PasswordChecked(PasswordAnswer::Wrong));
                };
                passwords
                    .knock(self.id, &name, password, address, shared.now)
                    .map(Input::PasswordChecked)
            }
            Action::Listen => {
                self.early = None;
                self.listens = true;
                let address = self.reserve(shared);
                if address.is_none() {
                    let wait = shared.world.config.limits.passive_wait;
                    self.listening_until = Some(shared.now + wait);
                    shared.waiting.push_back(self.id);
                    return None;
                }
                Some(Input::Listening(address))
            }
            Action::Unlisten => {
                self.early = None;
                self.listens = false;
                None
            }
            Action::Transfer(transfer) => self.begin(*transfer, shared),
            Action::CutTransfer => {
                let moving = self.moving.take()?;
                let bytes = moving.pump.moved();
                self.flushed += moving.moved();
                let ended = Ended {
                    job: moving.pump.into_job(),
                    outcome: Outcome::Cut,
                    bytes,
                };
                Some(Input::TransferEnded(ended))
            }
            Action::Commit(upload, how) => {
                let replaced = upload.keep_replaced_if_large();
                let result = upload.publish(&how);
                dispose_of(replaced, shared);
                Some(Input::Committed(result))
            }
            Action::Run(task @ Task::Dispose(_)) => {
                shared.background.order_unattended(task);
                None
            }
            Action::Run(task) => {
                self.ticket = Some(shared.background.order(self.id, task));
                None
            }
            Action::StartTls => {
                self.start_tls(shared);
                None
            }
            Action::Close => {
                self.drop_transfer(shared);
                self.early = None;
                self.closing = Some(Closing {
                    until: None,
                    drained: 0,
                });
                None
            }
        }
    }

    /// The address that the client is told to connect to.
    fn reserve(&mut self, shared: &mut Shared) -> Option<std::net::SocketAddr> {
        let random = shared.random.next();
        let client = self.session.peer().ip();
        let (place, port) = shared
            .passive
            .reserve(self.id, self.bind, client, self.slot, shared.now, random)?;
        self.slot = Some(place);
        let told = match shared.world.config.passive_address {
            Some(address) => address,
            None if self.bind.is_unspecified() => self.control.local_addr().ok()?.ip(),
            None => self.bind,
        };
        Some((told.to_canonical(), port).into())
    }

    fn begin(&mut self, transfer: Transfer, shared: &mut Shared) -> Option<Input> {
        let Transfer { job, via, protect } = transfer;
        let protection = match (&via, &self.early) {
            (Via::Passive, Some(_)) => self.protect_early(protect),
            (Via::Passive | Via::Active(_), _) => self.protect(protect),
            (Via::Control, _) => Ok(None),
        };
        let mut tls = match protection {
            Ok(tls) => tls,
            Err(outcome) => {
                return Some(Input::TransferEnded(Ended {
                    job,
                    outcome,
                    bytes: 0,
                }));
            }
        };
        let data = match (via, job) {
            (Via::Control, Job::Send(send)) if self.is_small(&send) => {
                return Some(self.send_small(send));
            }
            (Via::Control, job) => (Data::Control, job),
            (Via::Passive, job) => match self.take_early() {
                Some(early) => (
                    Data::Open {
                        stream: early.stream,
                        ready: true,
                        registered: early.registered,
                    },
                    job,
                ),
                None if self.renew_slot(shared) => (Data::Awaited, job),
                None => (Data::Failed, job),
            },
            (Via::Active(address), job) => match self.connect(address, shared) {
                Ok(stream) => (Data::Connecting(stream), job),
                Err(error) => {
                    log::info!("cannot connect to {address}: {error}");
                    let outcome = Outcome::NoConnection;
                    return Some(Input::TransferEnded(Ended {
                        job,
                        outcome,
                        bytes: 0,
                    }));
                }
            },
        };
        let wait_until = shared.now + shared.world.config.limits.data_wait;
        let pump = Pump::new(data.1);
        if let Some(tls) = &mut tls
            && pump.is_receiving()
        {
            tls.withhold_tickets();
        }
        self.moving = Some(Box::new(Moving {
            pump,
            data: data.0,
            // From the first byte on it is shorter.
            handshake_until: tls
                .is_some()
                .then(|| wait_until + shared.world.config.limits.tls_handshake_timeout),
            tls,
            wait_until,
        }));
        None
    }

    /// The client may connect for a while from now on, at the port it was told; unless it took so
    /// long that somebody else was told the same one.
    fn renew_slot(&self, shared: &mut Shared) -> bool {
        let until = shared.now + shared.world.config.limits.data_wait;
        let client = self.session.peer().ip();
        self.slot
            .is_some_and(|place| shared.passive.renew(self.id, place, client, until))
    }

    /// The connection that came before its transfer. From here on another one is for nothing.
    fn take_early(&mut self) -> Option<Early> {
        self.listens = false;
        self.early.take()
    }

    fn connect(&self, to: std::net::SocketAddr, shared: &Shared) -> io::Result<TcpStream> {
        let mut stream = listen::connect(self.control.local_addr()?.ip(), to)?;
        register(shared, &mut stream, self.id)?;
        Ok(stream)
    }

    fn is_small(&self, send: &Send) -> bool {
        send.bytes <= SMALL_FILE_BYTES && send.ascii.is_none() && self.held() < OUTPUT_BYTES
    }

    fn send_small(&mut self, mut send: Send) -> Input {
        let (from, bytes) = (self.output.len(), send.bytes);
        self.output.resize(from + bytes as usize, 0);
        let outcome = match send.file.read_exact_at(&mut self.output[from..], send.at) {
            Ok(()) => Outcome::Complete,
            Err(error) => {
                self.output.truncate(from);
                Outcome::Failed(error)
            }
        };
        send.bytes = 0;
        Input::TransferEnded(Ended {
            job: Job::Send(send),
            outcome,
            bytes,
        })
    }

    /// The last thing that happens to a connection.
    pub fn bury(&mut self, shared: &mut Shared) {
        self.drop_transfer(shared);
        if let Some(place) = self.slot {
            let client = self.session.peer().ip();
            shared.passive.abandon(self.id, place, client, shared.now);
        }
        let totals = self.session.totals();
        log::info!(
            "ended: {} after {:.1} s, {} commands, {} files ({} bytes) sent, {} files ({} bytes) stored",
            self.session.peer(),
            (shared.now - self.session.opened()).as_secs_f64(),
            totals.commands,
            totals.files_sent,
            totals.bytes_sent,
            totals.files_stored,
            totals.bytes_received,
        );
    }
}

impl Moving {
    fn is_waiting(&self) -> bool {
        matches!(self.data, Data::Awaited | Data::Connecting(_))
    }

    fn moved(&self) -> u64 {
        self.pump.moved() + self.tls.as_ref().map_or(0, |tls| tls.left())
    }
}

/// Has a file closed where it stops nobody that its blocks are freed.
fn dispose_of(kept: Option<OwnedFd>, shared: &Shared) {
    if let Some(file) = kept {
        shared.background.order_unattended(Task::Dispose(file));
    }
}

fn drop_job(job: Job, shared: &Shared) {
    let kept = job.keep_if_large();
    drop(job);
    dispose_of(kept, shared);
}

fn register(shared: &Shared, stream: &mut TcpStream, id: Id) -> io::Result<()> {
    let token: Token = Socket::Data.token(id.key);
    shared
        .registry
        .register(stream, token, Interest::READABLE | Interest::WRITABLE)
}
