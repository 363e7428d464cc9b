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

mod background;
mod buffers;
mod conn;
mod lingering;
mod listen;
mod passive;
mod passwords;
mod pump;
mod timers;
mod tls;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook_mio::v1_0::Signals;
use slab::Slab;

use crate::accounts::password::{Cost, Hash, Password};
use crate::accounts::quota::Amount;
use crate::accounts::users::{User, Users};
use crate::config::{Config, TlsLevel};
use crate::session::{Action, Context, Input, Session};
use crate::storage::root::Root;
use background::Background;
use buffers::Buffers;
use conn::{Conn, Next};
use lingering::Lingering;
use passive::Passive;
use passwords::Passwords;
use pump::Tools;
use timers::Timers;

/// Connections that the kernel accepts for us while we are busy.
const BACKLOG: i32 = 4096;
/// Connections accepted per turn, so that a flood of them leaves time for those who are there.
const ACCEPTS_PER_TURN: usize = 64;
const EVENTS_PER_TURN: usize = 1024;
/// When descriptors have run out, accepting is tried again after this: edge-triggered events do not
/// announce a connection twice.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);
/// When a passive port becomes free because its time is over, no event tells.
const WAITING_RETRY: Duration = Duration::from_millis(250);
/// After the drain, what is left of the sessions may still read its last reply.
const LAST_REPLIES: Duration = Duration::from_secs(2);
/// Connections that have been sent to the end and wait for their client's, where there are enough
/// descriptors.
const LINGERING_MAX: usize = 256;
/// Descriptors that are no session's: standard streams, poll, wakers, pipe, root, log.
const OTHER_DESCRIPTORS: u64 = 32;

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
}

/// Tokens from here on are not of clients: listeners, then passive ports, from their own bases.
const LISTENERS: usize = 1 << 60;
const PASSIVE: usize = 1 << 61;
const WAKE: Token = Token(usize::MAX - 1);
const SIGNAL: Token = Token(usize::MAX - 2);

impl From<Token> for Whose {
    fn from(token: Token) -> Whose {
        match token {
            WAKE => Whose::Wake,
            SIGNAL => Whose::Signal,
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
    /// `None`: there is no TLS.
    tls: Option<tls::Setup>,
    /// Where there are users.
    passwords: Option<Passwords>,
    lingering: Lingering,
    /// For what was read and not yet used.
    inputs: Buffers,
    /// For what is not yet sent.
    outputs: Buffers,
    tools: Tools,
    random: Random,
    /// Connections that wait for a passive port, in the order in which they asked.
    waiting: VecDeque<Id>,
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

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    bind: IpAddr,
    /// TLS begins at once.
    implicit_tls: bool,
    ready: bool,
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
    timers: Timers,
    ready: VecDeque<Id>,
    passive_ready: Vec<usize>,
    accept_retry: Option<Instant>,
    /// Descriptors have run out, and that has been logged.
    short: bool,
    dead: Vec<usize>,
    stopping: Stopping,
    shared: Shared,
}

/// Why a server could not start: one sentence that says what to do.
#[derive(Debug)]
pub struct StartError(String);

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

fn cannot(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> StartError {
    move |error| {
        let errno = Errno::from_io_error(&error);
        let hint = match errno {
            Some(Errno::ADDRINUSE) => "; another program has it: stop that one or choose another",
            Some(Errno::ADDRNOTAVAIL) => "; that is no address of this machine",
            Some(Errno::ACCESS) => "; the user that runs hauld may not do that",
            Some(Errno::NOSYS) => "; hauld needs Linux 5.6 or later",
            Some(Errno::NOENT) => "; make it first, or name one that is there",
            _ => "",
        };
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        StartError(format!("cannot {what}: {text}{hint}"))
    }
}

impl Server {
    /// Opens the directory, the listeners and the passive ports. Nothing is served before
    /// [`Server::run`].
    ///
    /// # Errors
    /// A sentence for the person who started it; nothing is left half started.
    pub fn start(config: Config) -> Result<Server, StartError> {
        let dir = config.dir.display();
        let users = match (&config.users, &config.one_time_password) {
            (Some(path), _) => Some(load_users(path)?),
            (None, Some(password)) => Some(one_time_user(password).map_err(cannot("start"))?),
            (None, None) => None,
        };
        let home = Root::open(&config.dir).map_err(cannot(format!("serve {dir}")))?;
        let mut listeners = Vec::new();
        let all = || config.listen.iter().chain(&config.tls.implicit);
        for (n, &address) in all().enumerate() {
            let shares = |other: &SocketAddr| other.is_ipv4() && other.port() == address.port();
            let v6_only = address.port() != 0 && all().any(shares);
            let socket = listen::tcp(address, BACKLOG, v6_only)
                .map_err(cannot(format!("listen on {address}")))?;
            listeners.push(Listener {
                socket,
                bind: address.ip(),
                implicit_tls: n >= config.listen.len(),
                ready: false,
            });
        }
        let limits = &config.limits;
        let mut binds: Vec<IpAddr> = listeners.iter().map(|listener| listener.bind).collect();
        binds.sort_unstable();
        binds.dedup();
        let descriptors = raise_descriptor_limit(limits.sessions_max as u64 * 3 + 256);
        let chosen = limits
            .passive_ports_chosen
            .min(descriptors as usize / 8)
            .max(1);
        let passive = Passive::open(
            &binds,
            config.passive_ports.as_ref(),
            chosen,
            limits.data_wait,
            limits.passive_rest,
        )
        .map_err(cannot("open the passive ports"))?;
        // A server that cannot have its addresses makes no certificate.
        let tls = match config.tls.level {
            TlsLevel::Off => None,
            _ => Some(tls::Setup::new(&config.tls).map_err(StartError)?),
        };
        let io = |error: io::Error| cannot("start")(error);
        let poll = Poll::new().map_err(io)?;
        let registry = poll.registry().try_clone().map_err(io)?;
        let waker = Arc::new(Waker::new(&registry, WAKE).map_err(io)?);
        let background = Background::start(limits.background_threads, &waker).map_err(io)?;
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGXFSZ]).map_err(io)?;
        registry
            .register(&mut signals, SIGNAL, Interest::READABLE)
            .map_err(io)?;
        let home = Arc::new(home);
        let now = Instant::now();
        let passwords = users.map(|users| Passwords::start(users, &home, &waker, now));
        let mut shared = Shared {
            passwords: passwords.transpose().map_err(io)?,
            world: Rc::new(World { config, home }),
            registry,
            passive,
            background,
            tls,
            lingering: Lingering::new((descriptors as usize / 16).clamp(1, LINGERING_MAX)),
            inputs: Buffers::new(conn::INPUT_BYTES, 4 * conn::INPUT_BYTES),
            outputs: Buffers::new(conn::INPUT_BYTES, 2 * conn::OUTPUT_BYTES),
            tools: Tools::new().map_err(io)?,
            random: Random {
                key: RandomState::new(),
                count: 0,
            },
            waiting: VecDeque::new(),
            actions: Vec::new(),
            now: Instant::now(),
            wall_s: 0,
        };
        for (n, listener) in listeners.iter_mut().enumerate() {
            let token = Token(LISTENERS + n);
            shared
                .registry
                .register(&mut listener.socket, token, Interest::READABLE)
                .map_err(io)?;
        }
        for (n, port) in shared.passive.ports().iter_mut().enumerate() {
            let token = Token(PASSIVE + n);
            shared
                .registry
                .register(&mut port.listener, token, Interest::READABLE)
                .map_err(io)?;
        }
        let ports = shared.passive.ports().len() as u64;
        let sessions_max = sessions_that_fit(&shared.world.config, descriptors, ports);
        Ok(Server {
            poll,
            signals,
            listeners,
            conns: Slab::new(),
            generation: 0,
            sessions_max,
            per_address: HashMap::new(),
            timers: Timers::default(),
            ready: VecDeque::new(),
            passive_ready: Vec::new(),
            accept_retry: None,
            short: false,
            dead: Vec::new(),
            stopping: Stopping::No,
            shared,
        })
    }

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

    /// Serves until it is told to stop by a signal: SIGTERM or SIGINT let transfers end first, a
    /// second one does not.
    ///
    /// # Errors
    /// Polling failed; nothing can go on.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        loop {
            self.read_clocks();
            let timeout = self.timeout();
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => result?,
            }
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
            self.expire();
            self.bury();
            match self.stopping {
                Stopping::Now => return Ok(()),
                Stopping::No => {}
                _ if self.conns.is_empty() => return Ok(()),
                Stopping::Draining(until) if until <= self.shared.now => self.end_drain(),
                Stopping::Ending(until) if until <= self.shared.now => return Ok(()),
                _ => {}
            }
        }
    }

    fn read_clocks(&mut self) {
        self.shared.now = Instant::now();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        self.shared.wall_s = wall.map_or(0, |since| since.as_secs() as i64);
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
        let waiting = !self.shared.waiting.is_empty();
        [
            waiting.then(|| self.shared.now + WAITING_RETRY),
            self.timers.next(),
            self.shared.lingering.next(),
            self.accept_retry,
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
                (_, Stopping::No) => {
                    log::info!("stopping: {} sessions", self.conns.len());
                    let drain = self.shared.world.config.limits.drain_timeout;
                    self.stopping = Stopping::Draining(self.shared.now + drain);
                    self.listeners.clear();
                    self.tell_all(|conn, shared| conn.tell(Input::ShuttingDown, shared));
                }
                _ => {
                    log::info!(
                        "stopping at once: {} sessions are cut off",
                        self.conns.len()
                    );
                    self.stopping = Stopping::Now;
                }
            }
        }
    }

    /// SIGHUP. What is wrong leaves what was there in force.
    fn reload(&mut self) {
        let config = &self.shared.world.config;
        if let Some(setup) = &mut self.shared.tls
            && config.tls.files.is_some()
        {
            match setup.reload(&config.tls) {
                Ok(()) => log::info!("SIGHUP: new sessions get the new certificate"),
                Err(error) => log::error!("SIGHUP: the old certificate stays: {error}"),
            }
        }
        if let (Some(path), Some(passwords)) = (&config.users, &mut self.shared.passwords) {
            match load_users(path) {
                Ok(users) => {
                    log::info!("SIGHUP: {} users in {}", users.len(), path.display());
                    passwords.reload(users);
                }
                Err(error) => log::error!("SIGHUP: the users stay as they were: {error}"),
            }
        }
    }

    fn tell_all(&mut self, tell: impl Fn(&mut Conn, &mut Shared)) {
        for (_, conn) in &mut self.conns {
            tell(conn, &mut self.shared);
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

    fn accept(&mut self) {
        for n in 0..self.listeners.len() {
            for _ in 0..ACCEPTS_PER_TURN {
                if !self.listeners[n].ready {
                    break;
                }
                match self.listeners[n].socket.accept() {
                    Ok((stream, peer)) => self.admit(stream, peer, n),
                    Err(error) => match accept_failed(&error) {
                        AcceptFailed::Nobody => self.listeners[n].ready = false,
                        AcceptFailed::Resources => return self.retry_accept(&error),
                        AcceptFailed::One => {}
                    },
                }
            }
        }
    }

    /// The connections stay in the backlog, and no event will tell of them again.
    fn retry_accept(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.short, true) {
            log::warn!("cannot accept for now: {error}");
        }
        self.accept_retry = Some(self.shared.now + ACCEPT_RETRY);
        self.shared.lingering.hurry(self.shared.now);
    }

    fn admit(&mut self, mut stream: TcpStream, peer: SocketAddr, listener: usize) {
        let Listener {
            bind, implicit_tls, ..
        } = self.listeners[listener];
        let address = counted(peer.ip());
        let count = address.map_or(0, |address| {
            self.per_address.get(&address).map_or(0, |n| *n)
        });
        let limits = &self.shared.world.config.limits;
        if self.conns.len() >= self.sessions_max || count >= limits.sessions_per_address_max {
            // Who expects TLS understands no line in clear.
            if !implicit_tls {
                refuse(stream, &mut self.shared);
            }
            return;
        }
        let entry = self.conns.vacant_entry();
        self.generation += 1;
        let id = Id {
            key: entry.key(),
            generation: self.generation,
        };
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        let token = Socket::Control.token(id.key);
        if let Err(error) = self.shared.registry.register(&mut stream, token, interest) {
            log::warn!("cannot watch a connection from {peer}: {error}");
            return;
        }
        let world = self.shared.world.clone();
        let mut actions = self.shared.take_actions();
        let begin = match implicit_tls {
            true => Session::protected,
            false => Session::new,
        };
        let session = begin(peer, &self.shared.context(&world), &mut actions);
        let conn = entry.insert(Conn::new(id, stream, bind, session));
        if implicit_tls {
            conn.start_tls(&mut self.shared);
        }
        conn.perform(actions, &world, &mut self.shared);
        self.short = false;
        queue(&mut self.ready, conn);
        if let Some(address) = address {
            *self.per_address.entry(address).or_default() += 1;
        }
    }

    fn accept_data(&mut self) {
        let (mut changed, mut left) = (false, ACCEPTS_PER_TURN);
        while let Some(place) = self.passive_ready.pop() {
            loop {
                if left == 0 {
                    self.passive_ready.push(place);
                    break;
                }
                left -= 1;
                match self.shared.passive.ports()[place].listener.accept() {
                    Ok((stream, peer)) => {
                        changed = true;
                        self.hand_over(place, stream, peer);
                    }
                    Err(error) => match accept_failed(&error) {
                        AcceptFailed::Nobody => {
                            self.shared.passive.ports()[place].ready = false;
                            break;
                        }
                        AcceptFailed::One => {}
                        AcceptFailed::Resources => {
                            self.passive_ready.push(place);
                            return self.retry_accept(&error);
                        }
                    },
                }
            }
            if left == 0 {
                break;
            }
        }
        if changed {
            self.retry_waiting();
        }
    }

    /// A stranger's connection is closed; its owner goes on waiting.
    fn hand_over(&mut self, place: usize, stream: TcpStream, peer: SocketAddr) {
        let owner = self.shared.passive.claim(place, peer.ip().to_canonical());
        match owner.and_then(|id| self.conns.get_mut(id.key).filter(|conn| conn.id == id)) {
            Some(conn) => {
                conn.data_arrived(stream, &mut self.shared);
                queue(&mut self.ready, conn);
            }
            None => log::debug!("a data connection from {peer} that nobody waits for"),
        }
    }

    fn retry_waiting(&mut self) {
        for _ in 0..self.shared.waiting.len() {
            let Some(id) = self.shared.waiting.pop_front() else {
                return;
            };
            let Some(conn) = self.conns.get_mut(id.key).filter(|conn| conn.id == id) else {
                continue;
            };
            if conn.retry_listening(&mut self.shared) {
                queue(&mut self.ready, conn);
            } else {
                self.shared.waiting.push_back(id);
            }
        }
    }

    /// One turn for each connection that has something to do. Those that have more to do afterwards
    /// come again in the next.
    fn serve_ready(&mut self) {
        for _ in 0..self.ready.len() {
            let Some(id) = self.ready.pop_front() else {
                return;
            };
            self.serve(id);
        }
    }

    fn serve(&mut self, id: Id) {
        let Some(conn) = self.conns.get_mut(id.key).filter(|conn| conn.id == id) else {
            return;
        };
        conn.queued = false;
        match conn.advance(&mut self.shared) {
            Next::Wait => {}
            Next::Again => queue(&mut self.ready, conn),
            Next::Dead => {
                // Its key stays taken until the end of the turn; being queued keeps it from being
                // served again.
                conn.queued = true;
                return self.dead.push(id.key);
            }
        }
        if let Some(at) = conn.deadline(&self.shared.world)
            && conn.timer_at.is_none_or(|timer| at < timer)
        {
            conn.timer_at = Some(at);
            self.timers.schedule(at, id);
        }
    }

    fn hear_background(&mut self) {
        let now = self.shared.now;
        while let Some((id, answer)) = self.shared.passwords.as_mut().and_then(|p| p.answer(now)) {
            if let Some(conn) = self.conns.get_mut(id.key).filter(|conn| conn.id == id) {
                conn.tell(Input::PasswordChecked(answer), &mut self.shared);
                queue(&mut self.ready, conn);
            }
        }
        while let Some((id, done)) = self.shared.background.result() {
            if let Some(conn) = self.conns.get_mut(id.key).filter(|conn| conn.id == id) {
                conn.tell(Input::TaskDone(done), &mut self.shared);
                queue(&mut self.ready, conn);
            }
        }
    }

    fn expire(&mut self) {
        let now = self.shared.now;
        self.shared.lingering.expire(now);
        while let Some((at, id)) = self.timers.pop(now) {
            let Some(conn) = self.conns.get_mut(id.key).filter(|conn| conn.id == id) else {
                continue;
            };
            if conn.timer_at != Some(at) {
                continue;
            }
            conn.timer_at = None;
            match conn.deadline(&self.shared.world) {
                Some(deadline) if deadline <= now => {
                    conn.expire(&mut self.shared);
                    queue(&mut self.ready, conn);
                }
                Some(deadline) => {
                    conn.timer_at = Some(deadline);
                    self.timers.schedule(deadline, id);
                }
                None => {}
            }
        }
        if !self.shared.waiting.is_empty() {
            self.retry_waiting();
        }
    }

    fn bury(&mut self) {
        while let Some(key) = self.dead.pop() {
            let mut conn = self.conns.remove(key);
            conn.bury(&mut self.shared);
            if let Some(address) = counted(conn.session().peer().ip())
                && let Some(count) = self.per_address.get_mut(&address)
            {
                *count -= 1;
                if *count == 0 {
                    self.per_address.remove(&address);
                }
            }
            // A descriptor is free again.
            self.accept_retry = None;
        }
    }
}

/// Reads the users file, and refuses what would be promised in it and not kept.
fn load_users(path: &Path) -> Result<Users, StartError> {
    let users = Users::load(path).map_err(|error| StartError(error.to_string()))?;
    for user in users.sorted() {
        let limited = user.quota != Amount::MAX
            || user.rate_bytes_per_s.is_some()
            || user.session_rate_bytes_per_s.is_some();
        if limited {
            return Err(StartError(format!(
                "{}: {} has a quota or a rate, which this version does not keep yet; take it out",
                path.display(),
                user.name
            )));
        }
    }
    for warning in users.warnings() {
        log::warn!("{warning}");
    }
    Ok(users)
}

/// The user `haul`, who holds until the process ends.
fn one_time_user(password: &Password) -> io::Result<Users> {
    let name = ONE_TIME_USER.parse().map_err(io::Error::other)?;
    let hash = Hash::new(password, Cost::DEFAULT)?;
    Users::of(vec![User::new(name, hash)]).map_err(io::Error::other)
}

/// Puts a connection into the queue once.
fn queue(ready: &mut VecDeque<Id>, conn: &mut Conn) {
    if !conn.queued {
        conn.queued = true;
        ready.push_back(conn.id);
    }
}

/// What sessions of an address are counted under: an IPv6 client has a /64 to itself. Loopback is
/// not counted.
fn counted(address: IpAddr) -> Option<IpAddr> {
    match address.to_canonical() {
        address if address.is_loopback() => None,
        IpAddr::V4(address) => Some(address.into()),
        IpAddr::V6(address) => Some(Ipv6Addr::from(u128::from(address) >> 64 << 64).into()),
    }
}

fn refuse(mut stream: TcpStream, shared: &mut Shared) {
    // Its buffer is empty, so this does not block; if the client is gone, nothing is lost.
    if stream
        .write_all(b"421 Too many sessions; try again later.\r\n")
        .is_ok()
        && stream.shutdown(Shutdown::Write).is_ok()
    {
        shared.lingering.add(stream, shared.now);
    }
}

enum AcceptFailed {
    /// The backlog is empty.
    Nobody,
    /// That connection failed; the next may be fine.
    One,
    /// Descriptors or memory are short.
    Resources,
}

fn accept_failed(error: &io::Error) -> AcceptFailed {
    match Errno::from_io_error(error) {
        Some(Errno::AGAIN) => AcceptFailed::Nobody,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => AcceptFailed::Resources,
        Some(
            Errno::CONNABORTED
            | Errno::PROTO
            | Errno::INTR
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::HOSTUNREACH
            | Errno::HOSTDOWN
            | Errno::PERM
            | Errno::NOPROTOOPT
            | Errno::OPNOTSUPP,
        ) => AcceptFailed::One,
        _ => AcceptFailed::Resources,
    }
}

/// Raises the limit of open files as far as is useful and allowed, and returns it.
fn raise_descriptor_limit(useful: u64) -> u64 {
    let Rlimit { current, maximum } = rustix::process::getrlimit(Resource::Nofile);
    let current = current.unwrap_or(u64::MAX);
    if current >= useful {
        return current;
    }
    let want = |maximum| Rlimit {
        current: Some(useful),
        maximum,
    };
    let allowed = maximum.unwrap_or(u64::MAX);
    if allowed >= useful && rustix::process::setrlimit(Resource::Nofile, want(maximum)).is_ok() {
        return useful;
    }
    if rustix::process::setrlimit(Resource::Nofile, want(Some(useful))).is_ok() {
        return useful;
    }
    let most = Rlimit {
        current: Some(allowed),
        maximum,
    };
    if rustix::process::setrlimit(Resource::Nofile, most).is_ok() {
        allowed
    } else {
        current
    }
}

/// Every session needs a descriptor, and those that transfer need two more; what is kept back for
/// that is an eighth, at least.
fn sessions_that_fit(config: &Config, descriptors: u64, ports: u64) -> usize {
    let others =
        OTHER_DESCRIPTORS + ports + (config.listen.len() + config.tls.implicit.len()) as u64;
    let free = descriptors.saturating_sub(others);
    let fit = (free - free / 8).max(1) as usize;
    if fit < config.limits.sessions_max {
        log::warn!("with {descriptors} open files there is room for {fit} sessions");
    }
    config.limits.sessions_max.min(fit)
}
