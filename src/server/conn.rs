//! One client: a session and its sockets. Carries out what the session asks for and tells it what
//! happened.
//!
//! It never names a verb and never looks at a line. Work on it stops when its sockets would block
//! (an event will come) or when its budget is used up (then it asks for another turn). There is no
//! third way to stop.

mod committing;
mod control;
mod grace;
mod moving;
mod paced;
mod protected;
mod reading;

use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;

use super::background::Ticket;
use super::commits::Lane;
#[cfg(test)]
use super::guarded::tests::{self as bugs, Bug};
use super::pump::QUANTUM_BYTES;
use super::rate::Pace;
use super::strangers::Place;
use super::tls::{self, Tls};
use super::{Id, Shared, Socket, World};
use crate::session::{Action, Ended, Input, Outcome, PasswordAnswer, Session};
use crate::storage::partials::{Key, Withdrawal};
use control::Closing;
pub(super) use moving::dispose_of;
use moving::{Data, Early, Moving};

/// What is read of commands and bodies at a time, and the most that is held unread.
pub const INPUT_BYTES: usize = 64 * 1024;
/// Output is sent when this much has come together.
pub const OUTPUT_BYTES: usize = 256 * 1024;
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
    /// Where it stands among those that have not logged in.
    pub stranger: Option<Place>,
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
    displaced: bool,
    unread: Vec<u8>,
    unread_at: usize,
    output: Vec<u8>,
    output_at: usize,
    moving: Option<Box<Moving>>,
    /// How fast its transfers may be; `None`: as fast as they can.
    pace: Option<Box<Pace>>,
    /// The upload of the transfer that has just ended.
    left: Option<Box<Key>>,
    /// A data connection that came before its transfer.
    early: Option<Early>,
    /// A passive data connection was made ready and has not been used for a transfer.
    listens: bool,
    slot: Option<usize>,
    listening_until: Option<Instant>,
    ticket: Option<Ticket>,
    /// Uploads that are being committed, all by the same thread, so that they stay in order.
    committing: usize,
    /// For the one of them that is plain and not published yet, should its client turn out to be gone.
    withdrawal: Option<Withdrawal>,
    lane: Lane,
    /// Orders to write back so far; each has its number.
    write_backs: u64,
    /// The same, of what was to be read in.
    read_ins: u64,
    closing: Option<Closing>,
    flushed: u64,
    stall: Option<Stall>,
    fruitless: u32,
    /// What it was found to hold after its last turn, in bytes.
    holds: usize,
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
            stranger: None,
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
            displaced: false,
            unread: Vec::new(),
            unread_at: 0,
            output: Vec::new(),
            output_at: 0,
            moving: None,
            pace: None,
            left: None,
            early: None,
            listens: false,
            slot: None,
            listening_until: None,
            ticket: None,
            committing: 0,
            withdrawal: None,
            lane: Lane::Small,
            write_backs: 0,
            read_ins: 0,
            closing: None,
            flushed: 0,
            stall: None,
            fruitless: 0,
            holds: 0,
        }
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Whether it has a transfer.
    pub fn is_moving(&self) -> bool {
        self.moving.is_some()
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

    /// Tells the session something and does what it says.
    pub fn tell(&mut self, input: Input, shared: &mut Shared) {
        #[cfg(test)]
        assert!(!bugs::has(self, Bug::PanicsWhenTold), "asked for");
        if let Input::TaskDone(_) = input {
            self.ticket = None;
        }
        let mut actions = shared.take_actions();
        let world = shared.world.clone();
        self.hand_over(input, &world, shared, &mut actions);
        self.perform(actions, &world, shared);
    }

    /// The answer to [`Action::Reach`], when it was not there at once.
    pub fn tell_reached(&mut self, free: bool, shared: &mut Shared) {
        if self.readable && self.unread.len() - self.unread_at < INPUT_BYTES {
            self.read(shared, &mut 0);
        }
        let more_behind = self.unread_at < self.unread.len();
        self.tell(Input::Reached { free, more_behind }, shared);
    }

    /// Whether its transfer has not moved for so long.
    pub fn is_silent(&self, now: Instant, silence: Duration) -> bool {
        let silent = |at: Instant| now.saturating_duration_since(at) > silence;
        let moving = self.moving.as_ref();
        // Who is kept waiting, by its rate or by the disk, would say more; and where nothing moves all of
        // it has come: it is being committed.
        let is_silent = |it: &Moving| !it.written.is_awaited && silent(it.moved_at);
        !self.is_kept_waiting() && moving.is_some_and(|moving| is_silent(moving))
    }

    /// Its client has come back in another session: what it sent here is kept, and this one ends.
    pub fn give_way(&mut self) {
        log::info!(
            "{} is silent and its upload is continued elsewhere",
            self.session.peer()
        );
        self.dead = true;
    }

    /// Something in it went wrong: it ends with its turn, without another word.
    pub fn give_up(&mut self) {
        self.dead = true;
    }

    /// A slot may have become free. False: none has.
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
        self.record_arrived(shared);
        let stalled = self.stall.as_ref().is_some_and(|stall| stall.until <= now);
        if stalled && !self.is_kept_waiting() {
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
            // It undoes nothing that has arrived.
            Some(moving) if moving.grace.is_awaited() => {
                self.end_transfer(Outcome::Complete, shared);
            }
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
            self.moving.as_ref().and_then(|m| m.record_due()),
            self.handshake_until,
            self.listening_until,
            // Who is kept waiting has not stalled.
            self.stall
                .as_ref()
                .map(|stall| stall.until)
                .filter(|_| !self.is_kept_waiting()),
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
        #[cfg(test)]
        if bugs::has(self, Bug::Spins) {
            budget = 0;
        }
        self.greet_early(shared);
        let before = self.progress();
        while !self.dead && self.closing.is_none() && budget > 0 {
            let moved = self.move_bytes(shared, &mut budget);
            let took = self.take_commands(shared, &mut budget, begin);
            if !moved && !took {
                break;
            }
        }
        // The end follows the last reply at once, and leaves with it.
        self.flush_with(self.closing.is_some(), shared);
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
        // For a data connection that is awaited there is another deadline, and the disk has all the
        // time it wants.
        let waits = |m: &Moving| m.is_waiting() || m.waits_for_disk(shared) || m.reading.is_awaited;
        let moves = self.moving.as_ref().is_some_and(|m| !waits(m));
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
        if let Some(key) = self.left.take() {
            shared.uploads.end(*key, self.id);
        }
    }

    fn hand_over(
        &mut self,
        input: Input,
        world: &Rc<World>,
        shared: &mut Shared,
        actions: &mut Vec<Action>,
    ) {
        self.session.handle(input, &shared.context(world), actions);
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
                let certificate = self.tls.as_ref().and_then(|tls| tls.peer_certificate());
                let Some(passwords) = &mut shared.passwords else {
                    return Some(Input::PasswordChecked(PasswordAnswer::Wrong));
                };
                passwords
                    .begin(self.id, &name, password, certificate, address, shared.now)
                    .map(Input::PasswordChecked)
            }
            Action::Listen => {
                self.early = None;
                self.listens = true;
                let address = self.reserve(shared);
                if address.is_none() {
                    let wait = shared.world.config.limits.passive_wait;
                    self.listening_until = Some(shared.now + wait);
                    let pair = (self.bind, self.session.peer().ip());
                    shared.passive.wait(pair, self.id);
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
            // Also where its data has ended and only the notice of a killed client is still awaited:
            // whether ABOR was said before that end or behind it, nobody can tell.
            Action::CutTransfer => {
                // There is none while the session hears of its end.
                let moving = self.moving.take()?;
                self.rest(shared);
                let bytes = moving.pump.moved();
                self.flushed += moving.moved();
                self.left = moving.upload.map(Box::new);
                let ended = Ended {
                    job: moving.pump.into_job(),
                    outcome: Outcome::Cut,
                    bytes,
                };
                Some(Input::TransferEnded(ended))
            }
            Action::Commit(upload, how) => self.commit(upload, &how, shared),
            Action::Reach(key) => {
                let free = shared.uploads.reach(key, self.id);
                let more_behind = false;
                free.then_some(Input::Reached { free, more_behind })
            }
            Action::Outdate(key) => {
                shared.uploads.outdate(key);
                None
            }
            Action::Run(task) if task.is_unattended() => {
                self.order_unattended(task, shared);
                None
            }
            Action::Run(task) => {
                let owner = self.session.owner();
                self.ticket = Some(shared.background.order(self.id, owner, task));
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

    /// The last thing that happens to a connection.
    pub fn bury(&mut self, shared: &mut Shared) {
        self.withdraw();
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

#[cfg(all(test, target_pointer_width = "64"))]
mod tests {
    use super::*;

    /// Nearly all that a session costs that does nothing; who makes it larger does so ten thousand times.
    #[test]
    fn an_idle_connection_is_small() {
        let bytes = size_of::<Conn>();
        assert!(bytes <= 672, "{bytes}");
    }
}
