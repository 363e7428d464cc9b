//! The I/O shell: sockets, readiness and time. One thread serves all clients.
//!
//! It knows sessions as values that want bytes and say what to do; it never names a verb.
//!
//! # A turn
//!
//! Always in this order: poll; read the clock, once; note what the events say; let each connection
//! that has something to do have its turn, those left over from the last turn included; background
//! results; deadlines; bury the dead. Slab keys are freed only at the end, so that no event of a
//! batch reaches a stranger; jobs, timers and slots carry a generation beside the key, so that a
//! late answer finds nobody rather than somebody else.

mod accept;
pub mod activation;
mod answers;
mod background;
mod buffers;
mod commits;
mod conn;
mod counts;
mod dirty;
mod guarded;
mod lingering;
mod listen;
mod passive;
mod passwords;
mod pump;
mod rate;
mod reading;
mod ready;
pub mod shared;
mod siblings;
mod start;
mod strangers;
mod sweeper;
mod timers;
mod tls;
mod uploads;
pub mod walls;

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::{Events, Poll, Registry, Token};
use signal_hook::consts::{SIGHUP, SIGXFSZ};
use signal_hook_mio::v1_0::Signals;
use slab::Slab;

use crate::config::Config;
use crate::fingerprint::Fingerprint;
use crate::session::{Action, Context, Input};
use crate::storage::root::Root;
use accept::{Listener, counted};
use background::Background;
use buffers::{Buffers, CROWDED_BYTES};
use commits::Commits;
use conn::{Conn, Next};
use counts::Counts;
use dirty::DirtyMemory;
use lingering::Lingering;
use passive::Passive;
use passwords::Passwords;
use pump::Tools;
use rate::Rates;
use reading::Readers;
use ready::{Ready, queue, queue_again};
use siblings::Siblings;
pub use start::{StartError, examine, raise_descriptor_limit, serves_users, several_rule};
use start::{load_users, warn_of_missing_homes};
use strangers::Strangers;
use sweeper::Sweeper;
use timers::Timers;
pub use tls::Certificate;
use uploads::Uploads;

const EVENTS_PER_TURN: usize = 1024;
/// When a passive port becomes free because its time is over, no event tells.
const WAITING_RETRY: Duration = Duration::from_millis(250);
/// Looking at the clock so long after what was waited for is no accident of scheduling.
const LATE: Duration = Duration::from_millis(500);
/// After the drain, what is left of the sessions may still read its last reply.
const LAST_REPLIES: Duration = Duration::from_secs(2);

/// Who may log in where there is no users file and strangers can reach a listener.
pub const ONE_TIME_USER: &str = "haul";

/// A connection's place in the slab, and which of the connections that had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    key: usize,
    generation: u64,
}

/// Which socket of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Socket {
    Control,
    Data,
}

impl Socket {
    fn token(self, key: usize) -> Token {
        Token(key << 1 | usize::from(self == Socket::Data))
    }
}

/// Whose an event is.
enum Whose {
    Client(usize, Socket),
    Listener(usize),
    Passive(usize),
    Wake,
    Signal,
    Siblings,
}

/// Tokens from here on are not of clients: listeners, then passive ports, from their own bases.
const LISTENERS: usize = 1 << 60;
const PASSIVE: usize = 1 << 61;
const WAKE: Token = Token(usize::MAX - 1);
const SIGNAL: Token = Token(usize::MAX - 2);
const SIBLINGS: Token = Token(usize::MAX - 3);

impl From<Token> for Whose {
    fn from(token: Token) -> Whose {
        match token {
            WAKE => Whose::Wake,
            SIGNAL => Whose::Signal,
            SIBLINGS => Whose::Siblings,
            Token(n) if n >= PASSIVE => Whose::Passive(n - PASSIVE),
            Token(n) if n >= LISTENERS => Whose::Listener(n - LISTENERS),
            Token(n) if n & 1 == 1 => Whose::Client(n >> 1, Socket::Data),
            Token(n) => Whose::Client(n >> 1, Socket::Control),
        }
    }
}

/// What all sessions share and none changes.
#[derive(Debug)]
struct World {
    config: Config,
    home: Arc<Root>,
}

/// Numbers that a client cannot guess: a keyed hash of a counter.
#[derive(Debug)]
struct Random {
    key: RandomState,
    count: u64,
}

impl Random {
    fn next(&mut self) -> u64 {
        self.count += 1;
        let mut hasher = self.key.build_hasher();
        hasher.write_u64(self.count);
        hasher.finish()
    }
}

/// What a connection needs of the server while it has its turn.
#[derive(Debug)]
struct Shared {
    world: Rc<World>,
    registry: Registry,
    passive: Passive,
    background: Background,
    commits: Commits,
    readers: Readers,
    uploads: Uploads,
    sweeper: Sweeper,
    /// `None`: there is no TLS.
    tls: Option<tls::Setup>,
    /// Where there are users.
    passwords: Option<Passwords>,
    rates: Rates,
    dirty: DirtyMemory,
    /// What of all uploads together may wait to be written to the disk; with more, each waits until what it
    /// has sent is there.
    unwritten_bytes_max: u64,
    lingering: Lingering,
    /// For what was read and not yet used.
    inputs: Buffers,
    /// For what is not yet sent.
    outputs: Buffers,
    tools: Tools,
    random: Random,
    actions: Vec<Action>,
    now: Instant,
    wall_s: i64,
}

impl Shared {
    fn context<'a>(&mut self, world: &'a World) -> Context<'a> {
        Context {
            config: &world.config,
            home: &world.home,
            now: self.now,
            wall_s: self.wall_s,
            random: self.random.next(),
            commits_full: self.commits.is_full(),
        }
    }

    /// Whether more of all uploads waits to be written to the disk than should.
    fn is_disk_behind(&self) -> bool {
        self.world.home.unwritten_bytes() >= self.unwritten_bytes_max
    }

    /// What a connection may hold of output.
    fn output_bytes_max(&self) -> usize {
        match self.tools.held.is_crowded() {
            true => CROWDED_BYTES,
            false => conn::OUTPUT_BYTES,
        }
    }

    /// An empty list for a session to write into; one is kept.
    fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    fn give_actions(&mut self, actions: Vec<Action>) {
        self.actions = actions;
    }
}

/// How far the end has come.
#[derive(Debug, Clone, Copy)]
enum Stopping {
    No,
    /// Transfers may end until then.
    Draining(Instant),
    /// Last replies may be read until then.
    Ending(Instant),
    Now,
}

/// A server that has its listeners open.
pub struct Server {
    poll: Poll,
    signals: Signals,
    listeners: Vec<Listener>,
    conns: Slab<Conn>,
    generation: u64,
    sessions_max: usize,
    per_address: HashMap<IpAddr, usize>,
    strangers: Strangers,
    timers: Timers,
    ready: Ready,
    passive_ready: Vec<usize>,
    accept_retry: Option<Instant>,
    /// When those who wait for a passive port look again, if nobody tells them before.
    waiting_retry: Instant,
    /// Descriptors have run out, and that has been logged.
    short: bool,
    dead: Vec<usize>,
    counts: Counts,
    stopping: Stopping,
    /// `None`: this is the only worker.
    siblings: Option<Siblings>,
    shared: Shared,
}

impl Server {
    /// The addresses at which clients are accepted, with the ports that port 0 became, and whether
    /// TLS begins there at once.
    ///
    /// # Errors
    /// As getsockname(2).
    pub fn addresses(&self) -> io::Result<Vec<(SocketAddr, bool)>> {
        self.listeners
            .iter()
            .map(|listener| Ok((listener.socket.local_addr()?, listener.implicit_tls)))
            .collect()
    }

    /// What clients can recognise its certificate by, if it has TLS.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        let tls = self.shared.tls.as_ref();
        tls.and_then(tls::Setup::fingerprint)
    }

    /// Serves until it is told to stop by a signal: SIGTERM or SIGINT let transfers end first, a
    /// second one does not.
    ///
    /// # Errors
    /// Polling failed; nothing can go on.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        loop {
            self.read_clocks();
            let (asked, timeout) = (self.shared.now, self.timeout());
            self.shared.world.home.end_turn();
            match self.poll.poll(&mut events, timeout) {
                // What has happened meanwhile comes before what has expired.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            self.shared.world.home.begin_turn();
            self.read_clocks();
            for event in &events {
                self.note(event);
            }
            if self.accept_retry.is_none_or(|at| at <= self.shared.now) {
                self.accept_retry = None;
                self.accept_data();
                self.accept();
            }
            self.serve_ready();
            self.hear_background();
            // Behind the poll this was stopped for a while: what has come meanwhile is not known yet, and
            // may be what was waited for.
            let is_late = timeout.is_some_and(|it| self.shared.now > asked + it + LATE);
            if !is_late {
                self.expire();
            }
            self.bury();
            self.settle_takeovers();
            self.tell_siblings();
            match self.stopping {
                Stopping::Now => return Ok(()),
                Stopping::No => {}
                _ if self.is_idle() => return Ok(()),
                Stopping::Draining(until) if until <= self.shared.now => self.end_drain(),
                Stopping::Ending(until) if until <= self.shared.now => return Ok(()),
                _ => {}
            }
        }
    }

    /// Whether nothing is left to be done for anybody.
    fn is_idle(&self) -> bool {
        let shared = &self.shared;
        self.conns.is_empty() && shared.commits.is_idle() && !shared.uploads.is_keeping()
    }

    fn read_clocks(&mut self) {
        self.shared.now = Instant::now();
        self.shared.wall_s = wall_s();
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.ready.is_empty()
            || (self.accept_retry.is_none()
                && (!self.passive_ready.is_empty() || self.listeners.iter().any(|l| l.ready)))
        {
            return Some(Duration::ZERO);
        }
        let stop = match self.stopping {
            Stopping::Draining(until) | Stopping::Ending(until) => Some(until),
            Stopping::No | Stopping::Now => None,
        };
        [
            self.shared
                .passive
                .is_awaited()
                .then_some(self.waiting_retry),
            self.timers.next(),
            self.shared.lingering.next(),
            self.accept_retry,
            self.counts.next(self.shared.now),
            self.siblings
                .as_ref()
                .and_then(|siblings| siblings.due(self.conns.len())),
            stop,
        ]
        .into_iter()
        .flatten()
        .min()
        .map(|at| at.saturating_duration_since(self.shared.now))
    }

    fn note(&mut self, event: &mio::event::Event) {
        match Whose::from(event.token()) {
            Whose::Client(key, socket) => {
                if let Some(conn) = self.conns.get_mut(key) {
                    conn.event(socket, event);
                    queue(&mut self.ready, conn);
                }
            }
            Whose::Listener(n) => {
                if let Some(listener) = self.listeners.get_mut(n) {
                    listener.ready = true;
                }
            }
            Whose::Passive(n) => {
                if let Some(port) = self.shared.passive.ports().get_mut(n)
                    && !port.ready
                {
                    port.ready = true;
                    self.passive_ready.push(n);
                }
            }
            Whose::Wake => {}
            Whose::Signal => self.take_signals(),
            Whose::Siblings => self.hear_siblings(),
        }
    }

    fn take_signals(&mut self) {
        let signals: Vec<i32> = self.signals.pending().collect();
        for signal in signals {
            match (signal, self.stopping) {
                // A file would become larger than this process may make one. Unless it is caught it
                // kills; so the upload fails with EFBIG, and that is all.
                (SIGXFSZ, _) => {}
                (SIGHUP, _) => self.reload(),
                (_, Stopping::No) => self.drain(),
                _ => self.stop_now(),
            }
        }
    }

    /// Lets transfers end, once.
    fn drain(&mut self) {
        if !matches!(self.stopping, Stopping::No) {
            return;
        }
        log::info!("stopping: {} sessions", self.conns.len());
        let drain = self.shared.world.config.limits.drain_timeout;
        self.stopping = Stopping::Draining(self.shared.now + drain);
        self.listeners.clear();
        if let Some(siblings) = &self.siblings {
            siblings.leave();
        }
        self.tell_all(|conn, shared| conn.tell(Input::ShuttingDown, shared));
    }

    fn stop_now(&mut self) {
        log::info!(
            "stopping at once: {} sessions are cut off",
            self.conns.len()
        );
        self.stopping = Stopping::Now;
    }

    /// SIGHUP. What is wrong leaves what was there in force.
    fn reload(&mut self) {
        let config = &self.shared.world.config;
        if let (Some(path), Some(passwords)) = (&config.users, &mut self.shared.passwords) {
            match load_users(path, config.workers) {
                Ok(users) => {
                    log::info!("SIGHUP: {} users in {}", users.len(), path.display());
                    let home = &self.shared.world.home;
                    warn_of_missing_homes(&users, home);
                    self.counts.add(home.set_quotas(users.quotas()));
                    passwords.reload(users);
                    self.shared.rates.forget_idle(self.shared.now);
                }
                Err(error) => log::error!("SIGHUP: the users stay as they were: {error}"),
            }
        }
        if let Some(setup) = &mut self.shared.tls {
            let passwords = self.shared.passwords.as_ref();
            match setup.reload(
                &config.tls,
                passwords.is_some_and(Passwords::know_certificates),
            ) {
                Ok(()) => log::info!("SIGHUP: new sessions get this certificate"),
                Err(error) => log::error!("SIGHUP: the old certificate stays: {error}"),
            }
        }
    }

    fn conn(&mut self, id: Id) -> Option<&mut Conn> {
        self.conns.get_mut(id.key).filter(|conn| conn.id == id)
    }

    /// Does something with a connection, if it is still there; what that leaves to be done has its
    /// turn.
    fn with(&mut self, id: Id, work: impl FnOnce(&mut Conn, &mut Shared)) {
        if let Some(conn) = self.conns.get_mut(id.key).filter(|conn| conn.id == id) {
            guarded::with(conn, &mut self.shared, work);
            queue(&mut self.ready, conn);
        }
    }

    fn tell_all(&mut self, tell: impl Fn(&mut Conn, &mut Shared)) {
        for (_, conn) in &mut self.conns {
            guarded::with(conn, &mut self.shared, &tell);
            queue(&mut self.ready, conn);
        }
    }

    fn end_drain(&mut self) {
        log::info!(
            "the time for transfers to end is over: {} sessions",
            self.conns.len()
        );
        self.stopping = Stopping::Ending(self.shared.now + LAST_REPLIES);
        self.tell_all(|conn, shared| conn.cut(shared));
    }

    fn serve(&mut self, id: Id) {
        let Some(conn) = self.conns.get_mut(id.key).filter(|conn| conn.id == id) else {
            return;
        };
        conn.queued = false;
        match guarded::with(conn, &mut self.shared, Conn::advance) {
            Some(Next::Wait) => {}
            Some(Next::Again) => queue_again(&mut self.ready, conn),
            Some(Next::Dead) | None => {
                // Its key stays taken until the end of the turn; being queued keeps it from being
                // served again.
                conn.queued = true;
                return self.dead.push(id.key);
            }
        }
        match (conn.stranger, conn.session().is_logged_in()) {
            (Some(place), true) => {
                self.strangers.remove(place);
                conn.stranger = None;
            }
            (None, false) => conn.stranger = Some(self.strangers.add(id)),
            _ => {}
        }
        if let Some(at) = conn.wake() {
            self.timers.wake(at, id);
        }
        if let Some(at) = conn.deadline(&self.shared.world)
            && conn.timer_at.is_none_or(|timer| at < timer)
        {
            conn.timer_at = Some(at);
            self.timers.schedule(at, id);
        }
    }

    fn expire(&mut self) {
        let now = self.shared.now;
        self.shared.lingering.expire(now);
        while let Some(id) = self.timers.woken(now) {
            self.with(id, |_, _| {});
        }
        let world = self.shared.world.clone();
        while let Some((at, id)) = self.timers.pop(now) {
            let Some(conn) = self.conn(id).filter(|conn| conn.timer_at == Some(at)) else {
                continue;
            };
            conn.timer_at = conn.deadline(&world);
            match conn.timer_at {
                Some(deadline) if deadline <= now => {
                    conn.timer_at = None;
                    self.with(id, Conn::expire);
                }
                Some(deadline) => self.timers.schedule(deadline, id),
                None => {}
            }
        }
        // Slots become free by and by, too, when they have rested.
        if self.shared.passive.is_awaited() && self.waiting_retry <= now {
            self.waiting_retry = now + WAITING_RETRY;
            for pair in self.shared.passive.pairs() {
                self.retry_waiting(pair);
            }
        }
    }

    fn bury(&mut self) {
        while let Some(key) = self.dead.pop() {
            let mut conn = self.conns.remove(key);
            guarded::with(&mut conn, &mut self.shared, Conn::bury);
            if let Some(place) = conn.stranger {
                self.strangers.remove(place);
            }
            if let Some(address) = counted(conn.session().peer().ip())
                && let Some(count) = self.per_address.get_mut(&address)
            {
                *count -= 1;
                if *count == 0 {
                    self.per_address.remove(&address);
                }
                if let Some(siblings) = &mut self.siblings {
                    siblings.changed(address);
                }
            }
            conn.let_go(&mut self.shared);
            // A descriptor is free again.
            self.accept_retry = None;
        }
    }
}

/// Seconds since 1970.
fn wall_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as i64)
}
