//! Sessions of every kind for as long as one likes: they come, log in, move files, abort, vanish; in
//! clear and inside TLS. Every file is compared with what was stored. Then memory, descriptors and
//! staged files have to be back where they were.
//!
//! `HAUL_SOAK_S=3600 cargo test --test suite soak -- --nocapture` takes an hour.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use socket2::SockRef;

use crate::common::content::{KIB, MIB, bytes};
use crate::common::either::{Data, Either};
use crate::common::secure::Pair;
use crate::common::server::{Server, four_questions};
use crate::common::{PATIENCE, wait_for};

const SECONDS: u64 = 20;
const WORKERS: u64 = 8;
/// The names of each that are stored at once, and the one that is continued.
const NAMES: u64 = 5;
const CONTINUED: u64 = NAMES;
/// What the allocator may keep of memory that was used once.
const MEMORY_SLACK_KIB: usize = 6 * KIB;

struct Worker {
    server: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    dir: String,
    random: u64,
    /// What each name holds; not there: nobody knows.
    files: HashMap<String, Vec<u8>>,
    /// Sessions whose client is gone without a word, and until when.
    vanished: Vec<(Instant, Either, Option<Data>)>,
    sessions: u64,
    compared: u64,
    continued: u64,
}

impl Worker {
    fn below(&mut self, end: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % end
    }

    fn content(&mut self) -> Vec<u8> {
        let length = match self.below(20) {
            0 => 0,
            1 => 9 * MIB + self.below(1000) as usize,
            2..5 => self.below(MIB as u64) as usize,
            _ => self.below(20 * KIB as u64) as usize,
        };
        bytes(self.random, length)
    }

    fn name(&mut self) -> String {
        let n = self.below(NAMES);
        format!("{}/{n}", self.dir)
    }

    /// One session after the other until then.
    fn work(&mut self, until: Instant) {
        while Instant::now() < until {
            self.sessions += 1;
            let tls = self.tls.clone().filter(|_| self.below(2) == 0);
            let mut session = Either::login(self.server, tls).expect("a login");
            session.command(&format!("MKD {}", self.dir)).expect("MKD");
            for _ in 0..self.below(6) {
                let what = self.below(13);
                let done = self.act(&mut session, what);
                done.unwrap_or_else(|error| panic!("{what} in {}: {error}", self.dir));
            }
            self.end(session);
            let now = Instant::now();
            self.vanished.retain(|it| it.0 > now);
        }
        self.vanished.clear();
    }

    fn stored(&mut self, name: String, content: Vec<u8>, reply: &str) {
        assert!(reply.starts_with("226"), "{name}: {reply}");
        self.files.insert(name, content);
    }

    fn compare(&mut self, name: &str, got: &(Vec<u8>, String)) {
        let Some(content) = self.files.get(name) else {
            return;
        };
        assert!(got.1.starts_with("226"), "{name}: {}", got.1);
        assert!(got.0 == *content, "{name} is not what was stored");
        self.compared += 1;
    }

    fn act(&mut self, session: &mut Either, what: u64) -> io::Result<()> {
        let name = self.name();
        match what {
            0..2 => {
                let content = self.content();
                session.store(&format!("STOR {name}"), &content)?;
                let reply = session.reply()?;
                self.stored(name, content, &reply);
            }
            2 => {
                let content = self.content();
                let first = session.command(&format!("UPLOAD {} {name}", content.len()))?;
                assert!(first.starts_with("150"), "{first}");
                session.send(&content)?;
                let reply = session.reply()?;
                self.stored(name, content, &reply);
            }
            3 => self.upload_series(session)?,
            4 => self.append(session, name)?,
            5 => {
                let got = session.fetch(&format!("RETR {name}"))?;
                self.compare(&name, &got);
            }
            6 => {
                let got = session.download(&name)?;
                self.compare(&name, &got);
            }
            7 => {
                let verb = ["MLSD", "LIST", "NLST"][self.below(3) as usize];
                let (_, reply) = session.fetch(&format!("{verb} {}", self.dir))?;
                assert!(reply.starts_with("226"), "{reply}");
            }
            8 => {
                session.send(format!("TREE {}\r\nHASH {name}\r\nSTAT\r\n", self.dir).as_bytes())?;
                while !session.reply()?.starts_with("250 ") {}
                let hash = session.reply()?;
                let known = self.files.contains_key(&name);
                assert!(hash.starts_with("213") || !known, "{hash}");
                while !session.reply()?.starts_with("211 ") {}
            }
            9 => {
                session.command(&format!("DELE {name}"))?;
                self.files.remove(&name);
            }
            10 => {
                // Cut in the middle.
                if let Data::Refused(reply) = session.data(&format!("RETR {name}"))? {
                    assert!(reply.starts_with("550"), "{reply}");
                    return Ok(());
                }
                session.command("ABOR")?;
                session.reply()?;
            }
            11 => self.continue_one(session)?,
            _ => {
                for line in ["NOOP", "XYZZY", "CWD /absent", "REST x", "SIZE /absent"] {
                    session.command(line)?;
                }
            }
        }
        Ok(())
    }

    /// Uploads that do not wait for each other's replies.
    fn upload_series(&mut self, session: &mut Either) -> io::Result<()> {
        let mut series = Vec::new();
        let mut all = Vec::new();
        for _ in 0..20 {
            let length = self.below(3000) as usize;
            let (name, content) = (self.name(), bytes(self.random, length));
            series.extend_from_slice(format!("UPLOAD {length}+ {name}\r\n").as_bytes());
            series.extend_from_slice(&content);
            all.push((name, content));
        }
        session.send(&series)?;
        for (name, content) in all {
            let reply = session.reply()?;
            self.stored(name, content, &reply);
        }
        Ok(())
    }

    fn append(&mut self, session: &mut Either, name: String) -> io::Result<()> {
        let length = self.below(5000) as usize;
        let more = bytes(self.random, length);
        let mut data = session.data(&format!("APPE {name}"))?;
        if let Data::Refused(reply) = data {
            // What broke off waits to be continued, or is still being sent.
            assert!(
                reply.starts_with("550") || reply.starts_with("450"),
                "{reply}"
            );
            return Ok(());
        }
        data.send(&more)?;
        data.finish()?;
        let reply = session.reply()?;
        assert!(reply.starts_with("226"), "{reply}");
        // Where nothing is known, it may have continued something.
        if let Some(content) = self.files.get_mut(&name) {
            content.extend(more);
        }
        Ok(())
    }

    /// An upload that breaks off in another session, and goes on in this one.
    fn continue_one(&mut self, session: &mut Either) -> io::Result<()> {
        let name = format!("{}/{CONTINUED}", self.dir);
        let length = 2000 + self.below(MIB as u64) as usize;
        let content = bytes(self.random, length);
        let sent = 1 + self.below(content.len() as u64 - 1) as usize;
        let mut other = Either::login(self.server, None)?;
        let first = other.command(&format!("UPLOAD {} {name}", content.len()))?;
        assert!(first.starts_with("150"), "{first}");
        other.send(&content[..sent])?;
        other.socket().shutdown(Shutdown::Write)?;
        while other.reply().is_ok() {}
        drop(other);
        let told = session.command(&format!("PARTIAL {name}"))?;
        let length = told
            .strip_prefix("213 ")
            .and_then(|it| it.split(' ').next());
        let length: usize = length
            .and_then(|it| it.parse().ok())
            .unwrap_or_else(|| panic!("{told}"));
        assert_eq!(length, sent);
        session.command(&format!("REST {sent}"))?;
        let rest = &content[sent..];
        let first = session.command(&format!("UPLOAD {} {name}", rest.len()))?;
        assert!(first.starts_with("150"), "{first}");
        session.send(rest)?;
        let reply = session.reply()?;
        self.stored(name, content, &reply);
        self.continued += 1;
        Ok(())
    }

    fn end(&mut self, mut session: Either) {
        let until = Instant::now() + Duration::from_secs(4);
        match self.below(8) {
            0..3 => {
                let _ = session.command("QUIT");
            }
            3 => drop(session),
            4 => {
                let socket = SockRef::from(session.socket());
                let _ = socket.set_linger(Some(Duration::ZERO));
            }
            5 => {
                // In the middle of an upload; the file stays what it was.
                let name = self.name();
                let _ = session.command(&format!("UPLOAD 100000 {name}"));
                let _ = session.send(&[b'x'; 5000]);
            }
            6 => {
                let name = self.name();
                let _ = session.command(&format!("UPLOAD 100000 {name}"));
                let _ = session.send(&[b'x'; 5000]);
                self.vanished.push((until, session, None));
            }
            _ => {
                let name = self.name();
                if let Ok(mut data) = session.data(&format!("STOR {name}")) {
                    if !matches!(data, Data::Refused(_)) {
                        let _ = data.send(&[b'y'; 5000]);
                    }
                    self.vanished.push((until, session, Some(data)));
                }
            }
        }
    }
}

/// What it has in use that is its own.
fn memory_kib(server: &Server) -> usize {
    let path = format!("/proc/{}/status", server.pid());
    let status = fs::read_to_string(path).expect("running");
    let line = status.lines().find_map(|it| it.strip_prefix("RssAnon:"));
    let text = line.expect("RssAnon").trim().trim_end_matches(" kB");
    text.parse().expect("a number of KiB")
}

/// The names that only hauld uses, anywhere.
fn hidden(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("reading").flatten();
    let of = |entry: fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        match entry.file_type().is_ok_and(|it| it.is_dir()) {
            true => hidden(&entry.path()),
            false => Vec::from_iter(name.starts_with(".haul-").then_some(name)),
        }
    };
    entries.flat_map(of).collect()
}

/// Lets all of them work, and then waits until their sessions are gone.
fn work(server: &Server, workers: &mut [Worker], time: Duration, baseline: usize) {
    let until = Instant::now() + time;
    thread::scope(|scope| {
        for worker in workers {
            scope.spawn(move || worker.work(until));
        }
    });
    four_questions(server, baseline);
}

#[test]
fn soak_sessions_of_every_kind_leave_nothing_behind() {
    let given = std::env::var("HAUL_SOAK_S").ok();
    let seconds = given.map_or(SECONDS, |it| it.parse().expect("a number"));
    let pair = Pair::new();
    let mut options = pair.options();
    options.extend(["--stall-timeout", "2", "--idle-timeout", "20"].map(String::from));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let server = Server::start(&options);
    let config = Arc::new(pair.client());
    let mut workers: Vec<Worker> = (0..WORKERS)
        .map(|n| Worker {
            server: server.addr(),
            tls: Some(config.clone()),
            dir: format!("/w{n}"),
            random: (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            files: HashMap::new(),
            vanished: Vec::new(),
            sessions: 0,
            compared: 0,
            continued: 0,
        })
        .collect();
    let baseline = server.baseline();
    // What is made on first use is there after the first part.
    let part = Duration::from_secs((seconds / 4).min(60));
    let begin = Instant::now();
    work(&server, &mut workers, part, baseline);
    let memory = memory_kib(&server);
    let end = begin + Duration::from_secs(seconds);
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        work(&server, &mut workers, left.min(part), baseline);
        println!(
            "{} s: {} KiB",
            begin.elapsed().as_secs(),
            memory_kib(&server)
        );
    }
    let least = wait_for(PATIENCE, || {
        let now = memory_kib(&server);
        (now <= memory + MEMORY_SLACK_KIB).then_some(now)
    });
    let now = memory_kib(&server);
    assert!(least.is_some(), "memory was {memory} KiB and is {now} KiB");
    assert!(
        server.cpu_in_a_second() < Duration::from_millis(100),
        "nobody is there"
    );

    // Nobody is there, so all that is kept can be removed by its owner.
    let mut session = Either::login(server.addr(), None).expect("a login");
    for worker in &mut workers {
        for n in 0..=CONTINUED {
            let name = format!("{}/{n}", worker.dir);
            let got = session.fetch(&format!("RETR {name}")).expect("RETR");
            worker.compare(&name, &got);
            session.command(&format!("DELE {name}")).expect("DELE");
        }
        let gone = session
            .command(&format!("RMD {}", worker.dir))
            .expect("RMD");
        assert!(gone.starts_with("250"), "{}: {gone}", worker.dir);
    }
    assert_eq!(hidden(server.root()), [""; 0]);
    assert_eq!(fs::read_dir(server.root()).expect("reading").count(), 0);
    let sum = |of: fn(&Worker) -> u64| workers.iter().map(of).sum::<u64>();
    let (sessions, compared) = (sum(|it| it.sessions), sum(|it| it.compared));
    println!(
        "{seconds} s: {sessions} sessions, {compared} files compared, {} uploads continued; memory \
         {memory} KiB, then {now} KiB",
        sum(|it| it.continued)
    );
    assert!(compared > seconds, "{compared} comparisons prove nothing");
}
