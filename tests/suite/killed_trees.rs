//! A client or a server that is killed in the middle of a tree, and the client run again until it
//! ends with 0: both sides are the same then, and nothing was sent twice that had arrived.
//!
//! All bytes go through a relay that counts them; the moment of death is a number of bytes.
//! `HAUL_KILLS=200 cargo test --test suite killed_trees` does more rounds; `HAUL_SEED` chooses others.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;

use crate::common::content::{MIB, bytes};
use crate::common::control::Control;
use crate::common::server::{Launch, Server};
use crate::common::site::Site;
use crate::common::{PATIENCE, until, wait_for};

const ROUNDS: u64 = 12;
const KILLS_OF_A_ROUND: u64 = 3;
/// What a file costs beside its content: its line, its reply, its entry in the listing.
const LINES_OF_A_FILE_BYTES: u64 = 400;
/// Where nobody listens.
const NOBODY: &str = "127.0.0.1:1";
const SMALL: u64 = 250;
const LARGE: u64 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// Passes bytes on, until so many have gone one way.
struct Relay {
    addr: SocketAddr,
    state: Arc<State>,
}

struct State {
    upstream: Mutex<SocketAddr>,
    counted: Way,
    passed: AtomicU64,
    passed_max: AtomicU64,
    /// Connections of earlier runs pass nothing and count nothing.
    run: AtomicU64,
    /// The last run that has passed all it may.
    stopped_run: AtomicU64,
}

impl Relay {
    fn new(upstream: SocketAddr, counted: Way) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(State {
            upstream: Mutex::new(upstream),
            counted,
            passed: AtomicU64::new(0),
            passed_max: AtomicU64::new(u64::MAX),
            run: AtomicU64::new(1),
            stopped_run: AtomicU64::new(0),
        });
        let shared = state.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (run, upstream) = (shared.run.load(SeqCst), *shared.upstream.lock().unwrap());
                let Ok(server) = TcpStream::connect(upstream) else {
                    continue;
                };
                for (way, from, to) in [(Way::Up, &client, &server), (Way::Down, &server, &client)]
                {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let state = shared.clone();
                    thread::spawn(move || state.pass(run, way, from, to));
                }
            }
        });
        Relay { addr, state }
    }

    /// Begins a run: nothing has passed yet, and no more than this will.
    fn allow(&self, bytes: u64) {
        self.state.run.fetch_add(1, SeqCst);
        self.state.passed.store(0, SeqCst);
        self.state.passed_max.store(bytes, SeqCst);
    }
}

impl State {
    fn is_stopped(&self) -> bool {
        self.stopped_run.load(SeqCst) == self.run.load(SeqCst)
    }

    fn pass(&self, run: u64, way: Way, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            if self.run.load(SeqCst) != run {
                break;
            }
            let mut pass = n as u64;
            if way == self.counted {
                let max = self.passed_max.load(SeqCst);
                let before = self.passed.fetch_add(pass, SeqCst);
                if before + pass > max {
                    self.stopped_run.store(run, SeqCst);
                    pass = max.saturating_sub(before);
                }
            }
            if to.write_all(&buffer[..pass as usize]).is_err() {
                break;
            }
            // Whoever is to be killed is, before anybody learns that nothing follows.
            until(PATIENCE, || !self.is_stopped());
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn number(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(default, |text| text.parse().expect(name))
}

fn make(root: &Path, random: &mut Random) {
    for n in 0..SMALL + LARGE {
        let path = match n < SMALL {
            true => root.join(format!("d{}/e{}/{n}", n % 5, n % 3)),
            false => root.join(format!("large{n}")),
        };
        let length = match n < SMALL {
            true => random.below(12_000) as usize,
            false => 3 * MIB + n as usize,
        };
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes(n, length)).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000 + n);
        let file = fs::File::options().append(true).open(&path).unwrap();
        file.set_modified(time).unwrap();
    }
}

/// All files below a directory: content and time.
fn files(root: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten() {
            let entry = entry.unwrap();
            let (path, meta) = (entry.path(), entry.metadata().unwrap());
            if meta.is_dir() {
                pending.push(path);
                continue;
            }
            let name = path.strip_prefix(root).unwrap().to_owned();
            found.insert(name, (fs::read(&path).unwrap(), meta.modified().unwrap()));
        }
    }
    found
}

struct Round {
    way: Way,
    server: Option<Server>,
    baseline: usize,
    relay: Relay,
    site: Site,
    dir: tempfile::TempDir,
}

impl Round {
    fn new(way: Way, random: &mut Random) -> Round {
        let dir = tempfile::tempdir().unwrap();
        let public = dir.path().join("pub");
        fs::create_dir(&public).unwrap();
        let server = Round::server(dir.path());
        let relay = Relay::new(server.addr(), way);
        let site = Site::new(relay.addr, public, ());
        let round = Round {
            way,
            baseline: server.baseline(),
            server: Some(server),
            relay,
            site,
            dir,
        };
        make(&round.source(), random);
        round
    }

    fn server(dir: &Path) -> Server {
        Server::launch(&Launch {
            dir: Some(dir),
            ..Launch::default()
        })
    }

    fn source(&self) -> PathBuf {
        match self.way {
            Way::Up => self.site.local("tree"),
            Way::Down => self.site.remote("tree"),
        }
    }

    fn target(&self) -> PathBuf {
        match self.way {
            Way::Up => self.site.remote("tree"),
            Way::Down => self.site.local("tree"),
        }
    }

    /// The files that have not arrived yet, and how much of each is missing.
    fn missing(&self) -> BTreeMap<PathBuf, u64> {
        let (source, target) = (files(&self.source()), files(&self.target()));
        let missing = source
            .iter()
            .filter(|(path, it)| target.get(*path) != Some(it));
        missing
            .map(|(path, (content, _))| (path.clone(), content.len() as u64 - self.kept(path)))
            .collect()
    }

    /// The files that the last run says it has moved, as far as it could say that.
    fn moved(&self) -> Vec<PathBuf> {
        let said = fs::read_to_string(self.said()).unwrap();
        let lines = said
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let moved = lines.filter(|it: &serde_json::Value| it["bytes"].is_u64());
        let path = |it: serde_json::Value| it["name"].as_str().unwrap().to_owned();
        moved
            .map(|it| path(it).split_once("tree/").unwrap().1.into())
            .collect()
    }

    fn said(&self) -> PathBuf {
        self.dir.path().join("said")
    }

    /// How much of a large file is there, though it has no name yet.
    fn kept(&self, path: &Path) -> u64 {
        let name = path.file_name().unwrap().to_str().unwrap();
        if !name.starts_with("large") {
            return 0;
        }
        if self.way == Way::Down {
            let beginning = format!(".{name}.haul-part-");
            let names = fs::read_dir(self.target()).into_iter().flatten().flatten();
            let part = names
                .filter(|it| it.file_name().to_str().unwrap().starts_with(&beginning))
                .map(|it| it.metadata().unwrap().len());
            return part.sum();
        }
        let mut session = Control::login(self.server.as_ref().unwrap().addr());
        let reply = session.command(&format!("PARTIAL /pub/tree/{name}"));
        match reply.code {
            213 => reply.text.split(' ').next().unwrap().parse().unwrap(),
            _ => 0,
        }
    }

    fn start(&self, args: &[&dyn AsRef<OsStr>]) -> Child {
        let mut command = self.site.command(&[&"--retries", &"0"]);
        command.args(args.iter().map(|arg| arg.as_ref()));
        command.arg("--json").stderr(Stdio::null());
        command.stdout(fs::File::create(self.said()).unwrap());
        command.spawn().unwrap()
    }

    /// Runs the client and kills it, or the server, when so many bytes have passed. True: it ended
    /// with 0 before.
    fn run(&mut self, args: &[&dyn AsRef<OsStr>], bytes: u64, kills_server: bool) -> bool {
        self.relay.allow(bytes);
        let mut child = self.start(args);
        let state = self.relay.state.clone();
        let ended = wait_for(PATIENCE * 3, || {
            let status = child.try_wait().unwrap();
            let is_over = status.is_some() || state.is_stopped();
            is_over.then_some(status)
        });
        if let Some(Some(status)) = ended {
            assert_eq!(status.code(), Some(0), "{:?}", self.way);
            return true;
        }
        assert!(ended.is_some(), "the client hangs");
        if kills_server {
            let mut server = self.server.take().unwrap();
            server.signal(Signal::KILL);
            server.gone();
            *state.upstream.lock().unwrap() = NOBODY.parse().unwrap();
        } else {
            child.kill().unwrap();
        }
        state.run.fetch_add(1, SeqCst);
        let status = wait_for(PATIENCE * 3, || child.try_wait().unwrap());
        let status = status.expect("the client ends when the server is gone");
        assert_ne!(status.code(), Some(0), "it takes this for done");
        if self.server.is_none() {
            let next = Round::server(self.dir.path());
            *state.upstream.lock().unwrap() = next.addr();
            self.server = Some(next);
        }
        let server = self.server.as_ref().unwrap();
        let baseline = self.baseline;
        let quiet = until(PATIENCE, || server.descriptors() <= baseline);
        assert!(quiet, "sessions are left");
        false
    }

    fn check(&self) {
        let (source, target) = (files(&self.source()), files(&self.target()));
        let names = |tree: &BTreeMap<PathBuf, _>| tree.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&source), names(&target));
        for (path, it) in &source {
            assert!(target[path] == *it, "{} differs", path.display());
        }
    }
}

#[test]
fn a_sync_is_run_again_until_it_is_done_and_sends_nothing_twice() {
    let mut random = Random(number("HAUL_SEED", 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut killed = 0;
    for at in 0..number("HAUL_KILLS", ROUNDS).div_ceil(2) {
        let way = if at % 2 == 0 { Way::Up } else { Way::Down };
        let mut round = Round::new(way, &mut random);
        let args: &[&dyn AsRef<OsStr>] = match way {
            Way::Up => &[&"sync", &"tree", &":/pub/tree"],
            Way::Down => &[&"sync", &":/pub/tree", &"tree"],
        };
        let overhead = (SMALL + LARGE) * LINES_OF_A_FILE_BYTES;
        for kill in 0..=KILLS_OF_A_ROUND {
            let files = round.missing();
            let missing: u64 = files.values().sum();
            let is_last = kill == KILLS_OF_A_ROUND;
            let until = match is_last {
                true => u64::MAX,
                false => random.below(missing + overhead / 4),
            };
            let is_done = round.run(args, until, (at + kill) % 2 == 1);
            killed += u64::from(!is_done);
            let passed = round.relay.state.passed.load(SeqCst);
            let moved = round.moved();
            assert!(!is_done || moved.len() == files.len(), "{moved:?}");
            let again = moved.iter().find(|it| !files.contains_key(*it));
            assert_eq!(again, None, "{way:?} round {at}: it was there");
            assert!(
                !is_done || passed <= missing + overhead,
                "{way:?} round {at}: {passed} bytes passed, and {missing} were missing"
            );
            if is_done {
                break;
            }
        }
        round.check();
        assert!(round.run(args, u64::MAX, false));
        let passed = round.relay.state.passed.load(SeqCst);
        assert!(passed <= overhead, "{passed} bytes for nothing");
        round.check();
    }
    assert!(killed > 0, "nobody was killed");
}

#[test]
fn copies_of_trees_are_run_again_until_they_are_done() {
    let mut random = Random(number("HAUL_SEED", 2).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut killed = 0;
    for at in 0..number("HAUL_KILLS", ROUNDS).div_ceil(2) {
        let way = if at % 2 == 0 { Way::Up } else { Way::Down };
        let mut round = Round::new(way, &mut random);
        let args: &[&dyn AsRef<OsStr>] = match way {
            Way::Up => &[&"upload", &"-r", &"tree", &"/pub/"],
            Way::Down => &[&"download", &"-r", &"--force", &"/pub/tree", &"."],
        };
        let all = round.missing().values().sum();
        for kill in 0..=KILLS_OF_A_ROUND {
            let until = match kill == KILLS_OF_A_ROUND {
                true => u64::MAX,
                false => random.below(all),
            };
            if round.run(args, until, (at + kill) % 2 == 1) {
                break;
            }
            killed += 1;
        }
        round.check();
    }
    assert!(killed > 0, "nobody was killed");
}
