//! A server that is killed again and again while many upload: every name holds its old or its complete
//! new content, and what was answered with 226 is there.
//!
//! `HAUL_KILLS=200 cargo test --test suite c01_` kills it two hundred times; `HAUL_SEED` chooses other
//! moments.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use rustls::ClientConfig;

use crate::common::content::bytes;
use crate::common::control::Control;
use crate::common::either::Either;
use crate::common::secure::Pair;
use crate::common::server::{Launch, Server};

const KILLS: u64 = 25;
const NAMES: u64 = 6;

/// A content: the pieces of which it was put together, each by its seed.
pub type Version = Vec<u64>;

pub fn content(version: &Version) -> Vec<u8> {
    let length = |seed: u64| match seed % 10 {
        0 => 0,
        1 => 300_000 + seed as usize % 1000,
        _ => (seed as usize * 7919) % 20_000,
    };
    version
        .iter()
        .flat_map(|&seed| bytes(seed, length(seed)))
        .collect()
}

/// What is known of a name.
#[derive(Debug, Default, Clone)]
pub struct Known {
    pub stored: Option<Version>,
    /// Sent, and not answered.
    pub tried: Option<Version>,
}

/// All names, and what was promised of them.
#[derive(Default)]
pub struct Ledger {
    pub names: Mutex<HashMap<String, Known>>,
    /// Everything that was ever sent, in order.
    pub begun: Mutex<Vec<(String, Version)>>,
    seeds: Mutex<u64>,
}

impl Ledger {
    fn seed(&self) -> u64 {
        let mut seeds = self.seeds.lock().unwrap();
        *seeds += 1;
        *seeds
    }

    /// Something is about to be stored; its content. `append`: behind what is there.
    fn begin(&self, name: &str, append: bool) -> Vec<u8> {
        let seed = self.seed();
        let known = self.names.lock().unwrap().get(name).cloned();
        let before = known.and_then(|it| it.stored).filter(|_| append);
        let version: Version = before.into_iter().flatten().chain([seed]).collect();
        self.tries(name, version);
        content(&vec![seed])
    }

    fn tries(&self, name: &str, version: Version) {
        let mut names = self.names.lock().unwrap();
        let mut begun = self.begun.lock().unwrap();
        begun.push((name.to_string(), version.clone()));
        names.entry(name.to_string()).or_default().tried = Some(version);
    }

    fn stored(&self, name: &str) {
        let mut names = self.names.lock().unwrap();
        let known = names.get_mut(name).expect("begun");
        known.stored = known.tried.take();
    }

    /// Compares with the directory; what is found is what is stored from now on.
    fn check(&self, dir: &Path, kill: u64) -> (usize, usize) {
        let (mut promised, mut lucky) = (0, 0);
        for (name, known) in self.names.lock().unwrap().iter_mut() {
            let found = fs::read(dir.join(name)).ok();
            let is = |version: &Option<Version>| found == version.as_ref().map(content);
            if is(&known.stored) {
                promised += usize::from(known.stored.is_some());
            } else {
                assert!(
                    known.tried.is_some() && is(&known.tried),
                    "kill {kill}: {name} holds {:?} bytes, neither {:?} nor {:?}",
                    found.map(|it| it.len()),
                    known.stored,
                    known.tried
                );
                known.stored = known.tried.take();
                lucky += 1;
            }
            known.tried = None;
        }
        (promised, lucky)
    }
}

/// The last reply of an upload: 226.
fn told(session: &mut Either, ledger: &Ledger, name: &str) -> io::Result<()> {
    let reply = session.reply()?;
    assert!(reply.starts_with("226"), "{name}: {reply}");
    ledger.stored(name);
    Ok(())
}

/// Uploads in its own way until the server is gone.
pub fn upload(ledger: &Ledger, server: SocketAddr, way: u64, tls: Option<Arc<ClientConfig>>) {
    let run = || -> io::Result<()> {
        let mut session = Either::login(server, tls)?;
        loop {
            let seed = ledger.seed();
            let name = format!("{way}-{}", seed % NAMES);
            match way % 4 {
                0 => {
                    let append = seed % 4 == 3;
                    let content = ledger.begin(&name, append);
                    let verb = if append { "APPE" } else { "STOR" };
                    session.store(&format!("{verb} {name}"), &content)?;
                    told(&mut session, ledger, &name)?;
                }
                1 => {
                    let content = ledger.begin(&name, false);
                    let first = session.command(&format!("UPLOAD {} {name}", content.len()))?;
                    assert!(first.starts_with("150"), "{first}");
                    session.send(&content)?;
                    told(&mut session, ledger, &name)?;
                }
                2 => {
                    let names: Vec<_> = (0..NAMES).map(|n| format!("{way}-{n}")).collect();
                    let mut series = Vec::new();
                    for name in &names {
                        let content = ledger.begin(name, false);
                        let line = format!("UPLOAD {}+ {name}\r\n", content.len());
                        series.extend_from_slice(line.as_bytes());
                        series.extend_from_slice(&content);
                    }
                    session.send(&series)?;
                    for name in &names {
                        told(&mut session, ledger, name)?;
                    }
                }
                _ => {
                    // The name is known when nothing of it has been sent.
                    let content = content(&vec![seed]);
                    let first = session.store("STOU", &content)?;
                    let name = first.strip_prefix("150 FILE: ").expect("a name");
                    ledger.tries(name, vec![seed]);
                    told(&mut session, ledger, name)?;
                }
            }
        }
    };
    // The only way out is that the server was killed.
    let _ = run();
}

/// What an environment variable says, if it says something.
pub fn number(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(default, |text| text.parse().expect("a number"))
}

/// Random moments between 20 and 220 ms from now; `HAUL_SEED` chooses others.
pub struct Moments(u64);

impl Moments {
    pub fn new() -> Moments {
        Moments(number("HAUL_SEED", 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Duration::from_micros(20_000 + self.0 % 200_000)
    }
}

#[test]
fn c01_a_server_that_is_killed_leaves_old_or_new_files_and_keeps_what_it_promised() {
    let kills = number("HAUL_KILLS", KILLS);
    let mut moments = Moments::new();
    let dir = tempfile::tempdir().expect("making a directory");
    let (ledger, pair) = (Ledger::default(), Pair::new());
    let options = pair.options();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let (mut promised, mut lucky) = (0, 0);
    for kill in 0..=kills {
        let mut server = Server::launch(&Launch {
            dir: Some(dir.path()),
            options: &options,
            ..Launch::default()
        });
        let found = ledger.check(dir.path(), kill);
        promised += found.0;
        lucky += found.1;
        let (listing, _) = Control::login(server.addr()).fetch("NLST");
        assert!(
            !listing.windows(6).any(|it| it == b".haul-"),
            "nothing staged is seen"
        );
        if kill == kills {
            break;
        }
        thread::scope(|scope| {
            for way in 0..8 {
                let tls = (way >= 4).then(|| Arc::new(pair.client()));
                let (ledger, addr) = (&ledger, server.addr());
                scope.spawn(move || upload(ledger, addr, way, tls));
            }
            thread::sleep(moments.next());
            server.signal(Signal::KILL);
            server.gone();
        });
    }
    println!(
        "{kills} kills: {promised} times a promise was looked at, {lucky} times more was there"
    );
    assert!(
        promised as u64 >= kills,
        "{promised} promises prove nothing"
    );
}
