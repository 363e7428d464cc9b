//! From a [`Config`] to a server that has its listeners open, or to one sentence why not.

use std::collections::HashMap;
use std::hash::RandomState;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use mio::net::TcpListener;
use mio::{Interest, Poll, Registry, Token, Waker};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook_mio::v1_0::Signals;
use slab::Slab;

use super::accept::Listener;
use super::activation::Inherited;
use super::background::Background;
use super::buffers::Buffers;
use super::commits::Commits;
use super::counts::Counts;
use super::dirty::{DirtyMemory, VMSTAT};
use super::lingering::Lingering;
use super::passive::Passive;
use super::passwords::Passwords;
use super::pump::Tools;
use super::rate::Rates;
use super::reading::Readers;
use super::ready::Ready;
use super::strangers::Strangers;
use super::sweeper::Sweeper;
use super::timers::Timers;
use super::uploads::Uploads;
use super::{
    Certificate, LISTENERS, ONE_TIME_USER, PASSIVE, Random, SIGNAL, Server, Shared, Stopping, WAKE,
    World, conn, listen, tls, walls,
};
use crate::accounts::Anonymous;
use crate::accounts::password::{Cost, Hash, Password};
use crate::accounts::users::{User, Users};
use crate::config::{Config, TlsFiles, TlsLevel, is_public};
use crate::storage::quota::Amount;
use crate::storage::root::Root;
use crate::text::plain;

/// Connections that the kernel accepts for us while we are busy.
pub(super) const BACKLOG: i32 = 4096;
/// Connections that have been sent to the end and wait for their client's, where there are enough
/// descriptors.
const LINGERING_MAX: usize = 256;
/// What of all uploads may wait to be written, at most. A disk that writes 10 MB/s needs 27 s for it, and
/// clients give up after 30.
const UNWRITTEN_BYTES_MAX: u64 = 256 << 20;
/// The staged file and its directory.
const DESCRIPTORS_OF_COMMIT: usize = 2;
/// Descriptors that are no session's: standard streams, poll, wakers, pipe, root, log.
const OTHER_DESCRIPTORS: u64 = 32;

/// Why a server could not start: one sentence that says what to do.
#[derive(Debug)]
pub struct StartError(String);

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

pub(super) fn cannot(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> StartError {
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
        StartError(format!("cannot {what}: {}{hint}", plain(&error)))
    }
}

/// Reads a certificate as a server would, and tries whether it can be used.
///
/// # Errors
/// One sentence.
pub fn examine(files: &TlsFiles) -> Result<Certificate, String> {
    tls::Setup::examine(files)
}

/// Whether clients could ask for the users file.
pub fn serves_users(config: &Config) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    let users = config.users.as_deref().and_then(real);
    users
        .zip(real(&config.dir))
        .is_some_and(|(users, dir)| users.starts_with(dir))
}

impl Server {
    /// Opens the directory, the listeners and the passive ports. Nothing is served before
    /// [`Server::run`]. Of the addresses to listen at, those of `inherited` sockets are open already.
    ///
    /// # Errors
    /// A sentence for the person who started it; nothing is left half started.
    pub fn start(config: Config, inherited: Vec<Inherited>) -> Result<Server, StartError> {
        walls::root_rule(&config).map_err(StartError)?;
        let dir = config.dir.display();
        let users = users_of(&config)?;
        warn_if_open_to_all(&config);
        if serves_users(&config) {
            log::warn!("the users file is below the directory that is served: move it out");
        }
        let home = Root::open(&config.dir).map_err(cannot(format!("serve {dir}")))?;
        let home = Arc::new(home);
        if let Some(users) = &users {
            warn_of_missing_homes(users, &home);
        }
        let mut listeners = open_listeners(&config, inherited)?;
        let limits = &config.limits;
        let descriptors = raise_descriptor_limit(
            (limits.sessions_max * 3 + limits.commits_max * DESCRIPTORS_OF_COMMIT) as u64 + 256,
        );
        let passive = open_passive(&config, &listeners, descriptors)
            .map_err(cannot("open the passive ports"))?;
        // A server that cannot have its addresses makes no certificate.
        let tls = match config.tls.level {
            TlsLevel::Off => None,
            _ => {
                let ask = users.as_ref().is_some_and(Users::know_certificates);
                Some(tls::Setup::new(&config.tls, ask).map_err(StartError)?)
            }
        };
        walls::put_up(&config).map_err(StartError)?;
        let io = |error: io::Error| cannot("start")(error);
        let poll = Poll::new().map_err(io)?;
        let registry = poll.registry().try_clone().map_err(io)?;
        let waker = Arc::new(Waker::new(&registry, WAKE).map_err(io)?);
        let background = Background::start(limits.background_threads, &waker).map_err(io)?;
        let commits_max = limits.commits_max.min(descriptors as usize / 8).max(1);
        let commits = Commits::start(config.durability, commits_max, &waker).map_err(io)?;
        let readers = Readers::start(&waker).map_err(io)?;
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGXFSZ]).map_err(io)?;
        registry
            .register(&mut signals, SIGNAL, Interest::READABLE)
            .map_err(io)?;
        home.keep_free(limits.min_free_bytes);
        let mut counts = Counts::new(home.clone());
        if let Some(users) = &users {
            counts.add(home.set_quotas(users.quotas()));
        }
        let sweeper = Sweeper::start(&home, limits.partial_keep).map_err(io)?;
        let dirty = DirtyMemory::new();
        let now = Instant::now();
        let passwords = users.map(|users| Passwords::start(users, &home, &waker, now));
        let rates = Rates::new(config.limits.rate_bytes_per_s);
        let mut shared = Shared {
            passwords: passwords.transpose().map_err(io)?,
            world: Rc::new(World { config, home }),
            registry,
            passive,
            background,
            commits,
            readers,
            rates,
            unwritten_bytes_max: unwritten_bytes_max(&dirty),
            dirty,
            uploads: Uploads::default(),
            sweeper,
            tls,
            lingering: Lingering::new((descriptors as usize / 16).clamp(1, LINGERING_MAX)),
            inputs: Buffers::new(conn::INPUT_BYTES, 4 * conn::INPUT_BYTES),
            outputs: Buffers::new(conn::INPUT_BYTES, 2 * conn::OUTPUT_BYTES),
            tools: Tools::new().map_err(io)?,
            random: Random {
                key: RandomState::new(),
                count: 0,
            },
            actions: Vec::new(),
            now: Instant::now(),
            wall_s: 0,
        };
        let sockets = listeners.iter_mut().map(|listener| &mut listener.socket);
        register_all(&shared.registry, sockets, LISTENERS).map_err(io)?;
        let ports = shared.passive.ports();
        let sockets = ports.iter_mut().map(|port| &mut port.listener);
        register_all(&shared.registry, sockets, PASSIVE).map_err(io)?;
        let ports = ports.len() as u64;
        let sessions_max = sessions_that_fit(&shared.world.config, descriptors, ports);
        Ok(Server {
            poll,
            signals,
            listeners,
            conns: Slab::new(),
            generation: 0,
            sessions_max,
            per_address: HashMap::new(),
            strangers: Strangers::default(),
            timers: Timers::default(),
            ready: Ready::default(),
            passive_ready: Vec::new(),
            accept_retry: None,
            waiting_retry: Instant::now(),
            short: false,
            dead: Vec::new(),
            counts,
            stopping: Stopping::No,
            siblings: None,
            shared,
        })
    }
}

/// A quarter of what the system lets wait before it writes without being asked to: far from where it
/// would make the reactor wait for the disk.
fn unwritten_bytes_max(dirty: &DirtyMemory) -> u64 {
    match dirty.look() {
        Some(dirty) => UNWRITTEN_BYTES_MAX.min(dirty.background_bytes / 4),
        None => {
            log::warn!(
                "each upload is synced by itself: how much waits to be written is not known, since \
                 {VMSTAT} cannot be read"
            );
            UNWRITTEN_BYTES_MAX / 4
        }
    }
}

/// Registers `sockets` under the tokens from `first` on.
fn register_all<'a>(
    registry: &Registry,
    sockets: impl Iterator<Item = &'a mut TcpListener>,
    first: usize,
) -> io::Result<()> {
    for (n, socket) in sockets.enumerate() {
        registry.register(socket, Token(first + n), Interest::READABLE)?;
    }
    Ok(())
}

fn warn_if_open_to_all(config: &Config) {
    let may = match config.anonymous {
        Anonymous::None => return,
        Anonymous::Read => "read",
        Anonymous::Write => "read and write",
    };
    if config
        .listen
        .iter()
        .chain(&config.tls.implicit)
        .any(is_public)
    {
        log::warn!("strangers may {may} everything without a password, as --anonymous says");
    }
}

fn open_listeners(
    config: &Config,
    mut inherited: Vec<Inherited>,
) -> Result<Vec<Listener>, StartError> {
    let all = || config.listen.iter().chain(&config.tls.implicit);
    let open = |(n, &address): (usize, &SocketAddr)| {
        let shares = |other: &SocketAddr| other.is_ipv4() && other.port() == address.port();
        let v6_only = address.port() != 0 && all().any(shares);
        let there = inherited.iter().position(|it| it.address == address);
        let socket = match there {
            Some(place) => listen::adopt(inherited.swap_remove(place).socket, BACKLOG),
            None => listen::tcp(address, BACKLOG, v6_only),
        };
        Ok(Listener {
            socket: socket.map_err(cannot(format!("listen on {address}")))?,
            bind: address.ip(),
            implicit_tls: n >= config.listen.len(),
            ready: false,
        })
    };
    all().enumerate().map(open).collect()
}

/// The passive ports of each address that is listened at; of `descriptors` they take an eighth at
/// most.
fn open_passive(config: &Config, listeners: &[Listener], descriptors: u64) -> io::Result<Passive> {
    let limits = &config.limits;
    let mut binds: Vec<IpAddr> = listeners.iter().map(|listener| listener.bind).collect();
    binds.sort_unstable();
    binds.dedup();
    let chosen = limits
        .passive_ports_chosen
        .min(descriptors as usize / 8)
        .max(1);
    Passive::open(
        &binds,
        config.passive_ports.as_ref(),
        chosen,
        limits.data_wait,
        limits.passive_rest,
    )
}

/// Who may log in with a password; `None`: nobody.
fn users_of(config: &Config) -> Result<Option<Users>, StartError> {
    match (&config.users, &config.one_time_password) {
        (Some(path), _) => load_users(path, config.workers).map(Some),
        (None, Some(password)) => {
            let users = one_time_user(password).map_err(cannot("start"))?;
            Ok(Some(users))
        }
        (None, None) => Ok(None),
    }
}

/// Whether the users can be served by so many workers.
///
/// # Errors
/// A sentence: what belongs to all sessions of a user is counted by one worker only.
pub fn several_rule(users: &Users, workers: usize) -> Result<(), String> {
    let counts = |user: &&Arc<User>| user.quota != Amount::MAX || user.rate_bytes_per_s.is_some();
    match users.sorted().into_iter().find(counts) {
        Some(user) if workers > 1 => Err(format!(
            "{} has a quota or a rate, which {workers} workers cannot keep together: leave out \
             --workers, or take the limit away with hauld user set",
            user.name
        )),
        _ => Ok(()),
    }
}

/// Reads the users file, and says in the log what is not good about it.
pub(super) fn load_users(path: &Path, workers: usize) -> Result<Users, StartError> {
    let users = Users::load(path).map_err(|error| StartError(error.to_string()))?;
    several_rule(&users, workers).map_err(StartError)?;
    for warning in users.warnings() {
        log::warn!("{warning}");
    }
    Ok(users)
}

/// Whoever has no home will not get in; the time to hear of it is now.
pub(super) fn warn_of_missing_homes(users: &Users, root: &Root) {
    for user in users.sorted() {
        if !user.home.is_root()
            && let Err(error) = root.below(&user.home)
        {
            log::warn!(
                "{} cannot log in: the home {} cannot be used: {}",
                user.name,
                user.home,
                plain(&error)
            );
        }
    }
}

/// The user `haul`, who holds until the process ends.
fn one_time_user(password: &Password) -> io::Result<Users> {
    let name = ONE_TIME_USER.parse().map_err(io::Error::other)?;
    let hash = Hash::new(password, Cost::DEFAULT)?;
    Users::of(vec![User::new(name, hash)]).map_err(io::Error::other)
}

/// Raises the limit of open files as far as is useful and allowed, and returns it.
pub fn raise_descriptor_limit(useful: u64) -> u64 {
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
