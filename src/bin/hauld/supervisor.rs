//! `--workers`: a parent that serves nobody and workers that each are a whole server.
//!
//! The parent opens the listening sockets and starts itself again, once for each worker. What the
//! workers tell each other goes through it. It keeps the rights that it was started with, so that a
//! worker can be started again; workers give them up as a single server does.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use haul::accounts::password::Password;
use haul::accounts::throttle::LOCK;
use haul::config::Config;
use haul::server::activation::Inherited;
use haul::server::shared::Addresses;
use haul::workers::{Channel, Down, News, Place, Up, VARIABLE};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// How long a worker that died is waited with, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Who lived for so long did not die of its start.
const LIVED: Duration = Duration::from_secs(60);
/// While a worker is away for longer, the kernel gives no connections to its sockets.
const PAUSE_WITH_SOCKETS: Duration = Duration::from_secs(1);
/// How long the last lines of a worker are waited for.
const LAST_LINES: Duration = Duration::from_secs(1);
/// How long workers may take to stop at once.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How often those are asked again who did not read.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// Attempts at passwords that are told to a worker that starts.
const ATTEMPTS_MAX: usize = 4096;

/// What happens to the parent.
enum Event {
    Signal(i32),
    /// A worker, and the how manieth of its place.
    Said(usize, u64, Up),
    Ended(usize, u64),
}

/// The place of one worker, and who has it.
struct Worker {
    generation: u64,
    running: Option<(Child, Channel)>,
    sockets: Vec<Inherited>,
    since: Instant,
    pause: Duration,
    /// When the next one is started.
    start_at: Option<Instant>,
    serves: bool,
    /// It was told too much at once, and has missed something.
    missed: bool,
}

struct Parent {
    addresses: Addresses,
    one_time_password: Option<Password>,
    workers: Vec<Worker>,
    attempts: VecDeque<(Instant, News)>,
    events: Receiver<Event>,
    sender: Sender<Event>,
    stopping: bool,
    /// Whoever is left then is killed.
    kill_at: Option<Instant>,
}

/// What a worker starts with.
pub struct Joined {
    /// To the parent.
    pub channel: Channel,
    /// Who it is.
    pub place: Place,
    /// Where it listens.
    pub sockets: Vec<Inherited>,
}

/// Whether this process was started by such a parent.
pub fn is_worker() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Hears from the parent what to do.
///
/// # Errors
/// A sentence: there is no parent.
pub fn join() -> Result<Joined, String> {
    // Not "exe", as it was started: ps, pgrep and killall know programs by this name. Without it they
    // do not, and nothing else is wrong.
    let _ = rustix::thread::set_name(c"hauld");
    let alone = |error: io::Error| {
        format!("{VARIABLE} is set, which is for workers that hauld starts: unset it ({error})")
    };
    let stdin = io::stdin().as_fd().try_clone_to_owned();
    let channel = Channel::new(stdin.map_err(alone)?);
    let mut sockets = Vec::new();
    loop {
        match channel.receive(true).map_err(alone)? {
            Some((Down::Listener { implicit_tls }, Some(socket))) => {
                let socket = Inherited::new(TcpListener::from(socket), implicit_tls);
                sockets.push(socket.map_err(alone)?);
            }
            Some((Down::Begin(place), _)) => {
                return Ok(Joined {
                    channel,
                    place,
                    sockets,
                });
            }
            Some(_) => {}
            None => return Err(alone(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

/// Its part of what all workers have together.
pub fn share(config: &mut Config, place: &Place, sockets: &[Inherited]) {
    let at = |implicit: bool| -> Vec<SocketAddr> {
        let of_kind = sockets.iter().filter(|it| it.implicit_tls == implicit);
        of_kind.map(|it| it.address).collect()
    };
    config.listen = at(false);
    config.tls.implicit = at(true);
    if let Some(password) = &place.one_time_password {
        config.one_time_password = Some(Password::new(password.clone()));
    }
    if let Some(ports) = &mut config.passive_ports {
        let (first, n) = (usize::from(*ports.start()), ports.len());
        let edge = |index: usize| first + n * index / place.of;
        // None is above what the range ended with.
        let port = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        *ports = port(edge(place.index))..=port(edge(place.index + 1) - 1);
    }
    let limits = &mut config.limits;
    limits.passive_ports_chosen = limits.passive_ports_chosen.div_ceil(place.of);
    limits.before_login_max = limits.before_login_max.div_ceil(place.of);
}

/// Starts the workers, and again those that die, until a signal says to stop. `said` is called when
/// all serve, with the addresses and what the certificate is recognised by.
///
/// # Errors
/// A sentence. A worker that could not start has told why itself; then the exit code is that of an
/// error.
pub fn run(
    config: &Config,
    said: impl FnOnce(&[(SocketAddr, bool)], Option<String>),
) -> Result<ExitCode, String> {
    let addresses = Addresses::choose(config).map_err(|error| error.to_string())?;
    let (sender, events) = channel();
    let failed = |error: io::Error| format!("cannot start: {error}");
    watch_signals(sender.clone()).map_err(failed)?;
    let mut workers = Vec::new();
    for _ in 0..config.workers {
        workers.push(Worker {
            generation: 0,
            running: None,
            sockets: addresses.open().map_err(|error| error.to_string())?,
            since: Instant::now(),
            pause: PAUSE_MIN,
            start_at: None,
            serves: false,
            missed: false,
        });
    }
    let mut parent = Parent {
        addresses,
        one_time_password: config.one_time_password.clone(),
        workers,
        attempts: VecDeque::new(),
        events,
        sender,
        stopping: false,
        kill_at: None,
    };
    let Some(fingerprint) = parent.start_all().map_err(failed)? else {
        return Ok(match parent.stopping {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(2),
        });
    };
    let addresses: Vec<_> = parent.addresses.iter().collect();
    said(&addresses, fingerprint);
    parent.serve();
    Ok(ExitCode::SUCCESS)
}

/// Writes what a worker logs, line by line: lines of several do not mix, and a worker, which is in the
/// background, is not stopped by a terminal with `stty tostop`. What comes back ends with the log.
fn pass_on(log: ChildStderr) -> io::Result<Receiver<()>> {
    let (end, ended) = channel();
    let pass_on = move || {
        let _end: Sender<()> = end;
        let (mut log, mut line) = (BufReader::new(log), Vec::new());
        while log.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            // Where nobody can read them, workers go on without.
            let _ = io::stderr().write_all(&line);
            line.clear();
        }
    };
    thread::Builder::new().name("log".into()).spawn(pass_on)?;
    Ok(ended)
}

fn watch_signals(sender: Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let watch = move || {
        for signal in signals.forever() {
            if sender.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(watch)?;
    Ok(())
}

impl Parent {
    /// One after the other: the first makes what is made once. `None`: one of them could not start,
    /// or a signal came; then none is left.
    fn start_all(&mut self) -> io::Result<Option<Option<String>>> {
        let mut fingerprint = None;
        for index in 0..self.workers.len() {
            if let Err(error) = self.start(index) {
                self.end_all();
                return Err(error);
            }
            loop {
                match self.events.recv().map_err(io::Error::other)? {
                    Event::Said(_, _, Up::Ready(it)) => {
                        self.serves(index);
                        fingerprint = fingerprint.or(it);
                        break;
                    }
                    Event::Signal(SIGHUP) => {}
                    Event::Signal(_) => {
                        self.stopping = true;
                        self.end_all();
                        return Ok(None);
                    }
                    Event::Ended(..) => {
                        self.end_all();
                        return Ok(None);
                    }
                    Event::Said(from, _, said) => self.heard(from, said),
                }
            }
        }
        Ok(Some(fingerprint))
    }

    fn end_all(&mut self) {
        for worker in &mut self.workers {
            if let Some((mut child, channel)) = worker.running.take() {
                drop(channel);
                // It may be gone already.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }

    fn start(&mut self, index: usize) -> io::Result<()> {
        let of = self.workers.len();
        let worker = &mut self.workers[index];
        if worker.sockets.is_empty() {
            worker.sockets = self.addresses.open().map_err(io::Error::other)?;
        }
        worker.generation += 1;
        worker.since = Instant::now();
        let (channel, theirs) = Channel::pair()?;
        for socket in &worker.sockets {
            let implicit_tls = socket.implicit_tls;
            channel.send(&Down::Listener { implicit_tls }, Some(socket.as_fd()))?;
        }
        let password = self.one_time_password.as_ref();
        let place = Place {
            index,
            of,
            one_time_password: password.map(|it| it.reveal().to_vec()),
        };
        channel.send(&Down::Begin(place), None)?;
        let words: Vec<OsString> = std::env::args_os().collect();
        let name = words.first().cloned().unwrap_or("hauld".into());
        // This very program, also when its file was replaced meanwhile.
        let mut child = Command::new("/proc/self/exe")
            .arg0(name)
            .args(words.get(1..).unwrap_or_default())
            .env(VARIABLE, index.to_string())
            .stdin(Stdio::from(theirs))
            .stderr(Stdio::piped())
            // Ctrl-C is for the parent, which passes it on.
            .process_group(0)
            .spawn()?;
        let (reader, sender, generation) =
            (channel.try_clone()?, self.sender.clone(), worker.generation);
        let log = child.stderr.take().map(pass_on).transpose()?;
        worker.running = Some((child, channel));
        let read = move || {
            let ended = loop {
                match reader.receive(true) {
                    Ok(Some((said, _))) => {
                        if sender.send(Event::Said(index, generation, said)).is_err() {
                            return;
                        }
                    }
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            if let Err(error) = ended {
                log::error!("worker {index} cannot be understood: {error}");
            }
            if let Some(log) = log {
                // Unless nobody reads it, which is no reason to wait.
                let _ = log.recv_timeout(LAST_LINES);
            }
            // If nobody hears it, the parent is about to end.
            let _ = sender.send(Event::Ended(index, generation));
        };
        thread::Builder::new()
            .name(format!("worker {index}"))
            .spawn(read)?;
        Ok(())
    }

    fn serve(&mut self) {
        while !self.stopping || self.workers.iter().any(|it| it.running.is_some()) {
            let now = Instant::now();
            let missed = self.workers.iter().any(|worker| worker.missed);
            let starts = self.workers.iter().filter_map(|worker| worker.start_at);
            let retry = missed.then_some(now + RETRY_EVERY);
            let next = starts.chain(retry).chain(self.kill_at).min();
            let event = match next {
                None => self
                    .events
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => self.events.recv_timeout(at.saturating_duration_since(now)),
            };
            match event {
                Ok(event) => self.happened(event),
                Err(RecvTimeoutError::Timeout) => {}
                // Not while this has a sender itself.
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.due();
        }
        log::info!("stopped");
    }

    fn happened(&mut self, event: Event) {
        match event {
            Event::Signal(SIGHUP) => self.tell_all(None, &Down::Reload),
            Event::Signal(_) if !self.stopping => {
                self.stopping = true;
                for worker in &mut self.workers {
                    worker.start_at = None;
                    worker.sockets.clear();
                }
                self.tell_all(None, &Down::Stop);
            }
            Event::Signal(_) => {
                self.kill_at.get_or_insert(Instant::now() + LAST_WORDS);
                self.tell_all(None, &Down::StopNow);
            }
            Event::Said(index, generation, said) => {
                if self.workers[index].generation == generation {
                    self.heard(index, said);
                }
            }
            Event::Ended(index, generation) => {
                if self.workers[index].generation == generation {
                    self.ended(index);
                }
            }
        }
    }

    fn heard(&mut self, index: usize, said: Up) {
        match said {
            Up::Ready(_) => {
                log::info!("worker {index} serves again");
                self.serves(index);
            }
            // What the kernel would give it, the others take.
            Up::Leaving => self.workers[index].sockets.clear(),
            Up::News(news) => {
                if let News::Attempt(_) = &news {
                    self.attempts.push_back((Instant::now(), news.clone()));
                    let excess = self.attempts.len().saturating_sub(ATTEMPTS_MAX);
                    self.attempts.drain(..excess);
                }
                self.tell_all(Some(index), &Down::From(index, news));
            }
        }
    }

    /// Tells a worker what it was not there to hear of the others.
    fn serves(&mut self, index: usize) {
        self.workers[index].serves = true;
        self.tell_all(Some(index), &Down::Tell);
        let now = Instant::now();
        self.attempts.retain(|(at, _)| *at + LOCK > now);
        for (_, news) in &self.attempts {
            tell(
                &mut self.workers[index],
                &Down::From(usize::MAX, news.clone()),
            );
        }
    }

    fn ended(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        let Some((mut child, _)) = worker.running.take() else {
            return;
        };
        worker.serves = false;
        worker.missed = false;
        // It has closed its end, so it is at its end; unless it is broken.
        let _ = child.kill();
        let how = match child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        self.tell_all(None, &Down::Gone(index));
        let worker = &mut self.workers[index];
        if self.stopping {
            return;
        }
        if worker.since.elapsed() >= LIVED {
            worker.pause = PAUSE_MIN;
        }
        let pause = worker.pause;
        worker.pause = (pause * 2).min(PAUSE_MAX);
        if pause > PAUSE_WITH_SOCKETS {
            worker.sockets.clear();
        }
        worker.start_at = Some(Instant::now() + pause);
        let ms = pause.as_millis();
        log::error!("worker {index} has ended ({how}); another is started in {ms} ms");
    }

    fn due(&mut self) {
        let now = Instant::now();
        for index in 0..self.workers.len() {
            let worker = &mut self.workers[index];
            if worker.start_at.is_some_and(|at| at <= now) {
                worker.start_at = None;
                if let Err(error) = self.start(index) {
                    log::error!("cannot start worker {index}: {error}");
                    let worker = &mut self.workers[index];
                    worker.start_at = Some(now + PAUSE_MAX);
                }
            }
            let worker = &mut self.workers[index];
            if worker.missed {
                // It hears everything again; what it heard the first time does no harm.
                worker.missed = false;
                tell(worker, &Down::Forget);
                tell(worker, &Down::Reload);
                if self.stopping {
                    tell(worker, &Down::Stop);
                }
                if !worker.missed {
                    self.serves(index);
                }
            }
        }
        if self.kill_at.is_some_and(|at| at <= now) {
            for (child, _) in self.workers.iter_mut().filter_map(|it| it.running.as_mut()) {
                let _ = child.kill();
            }
            self.kill_at = None;
        }
    }

    fn tell_all(&mut self, but: Option<usize>, what: &Down) {
        for (index, worker) in self.workers.iter_mut().enumerate() {
            if Some(index) != but && (worker.serves || !matches!(what, Down::From(..) | Down::Tell))
            {
                tell(worker, what);
            }
        }
    }
}

fn tell(worker: &mut Worker, what: &Down) {
    let Some((_, channel)) = &worker.running else {
        return;
    };
    match channel.send(what, None) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => worker.missed = true,
        // It is at its end, which is heard of otherwise.
        Ok(()) | Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_passive_port_belongs_to_one_worker() {
        for (range, of) in [(100..=109, 3), (65534..=65535, 2), (7..=7, 1), (1..=64, 64)] {
            let mut all = Vec::new();
            for index in 0..of {
                let mut config = Config {
                    passive_ports: Some(range.clone()),
                    ..Config::default()
                };
                let place = Place {
                    index,
                    of,
                    one_time_password: None,
                };
                share(&mut config, &place, &[]);
                all.extend(config.passive_ports.unwrap());
            }
            assert_eq!(all, range.collect::<Vec<u16>>());
        }
    }
}
