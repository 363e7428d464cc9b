//! What an operation costs, in system calls of the reactor: a number that does not depend on how
//! fast or how busy the machine is. Who makes something dearer sees it here; who makes it cheaper
//! writes the new number down.
//!
//! Each client below sends what belongs to an operation before the server can need it, so that the
//! server never asks in vain. How often it waits for events is left out: two that come close together
//! are one wait or two.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::path::Path;
use std::time::Duration;

use crate::common::content::bytes;
use crate::common::control::Control;
use crate::common::server::Server;
use crate::common::trace::{Strace, parse};
use crate::common::{PATIENCE, settled, until};

const OPERATIONS: usize = 40;
const FILE_BYTES: usize = 4096;
/// Whether 150 and 226 are one send or two depends on time.
const REPLIES: [&str; 1] = ["sendto"];
/// Not counted: waits; that other threads are told, which is one call for several; and what the
/// standard library of a debug build asks before it closes.
const NOT_COUNTED: [&str; 3] = ["epoll_wait", "futex", "fcntl"];

/// Calls of the reactor per operation, and those of all other threads.
struct Cost {
    reactor: BTreeMap<String, f64>,
    others: BTreeMap<String, f64>,
}

/// Watches the server while `OPERATIONS` of something are done.
fn cost(server: &Server, operations: impl FnOnce()) -> Cost {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let strace = Strace::attach(server, &["-o", file.path().to_str().expect("a text")]);
    operations();
    strace.detach();
    let told = fs::read_to_string(file.path()).expect("a trace");
    let (mut reactor, mut others) = (BTreeMap::new(), BTreeMap::new());
    for call in parse(&told) {
        let calls = match call.thread == server.pid() {
            true => &mut reactor,
            false => &mut others,
        };
        *calls.entry(call.name).or_insert(0.0) += 1.0 / OPERATIONS as f64;
    }
    Cost { reactor, others }
}

impl Cost {
    /// All calls of the reactor but those that depend on time.
    fn check(&self, expected: f64, but: &[&str]) {
        let counts = |name: &str| !NOT_COUNTED.contains(&name) && !but.contains(&name);
        let calls: f64 = self
            .reactor
            .iter()
            .filter(|(name, _)| counts(name))
            .map(|(_, calls)| calls)
            .sum();
        assert!(
            (calls - expected).abs() <= 0.3 + expected / 50.0,
            "{calls:.2} calls an operation, and not {expected}: {:.2?}",
            self.reactor
        );
    }

    fn of(&self, names: &[&str]) -> f64 {
        let of = |calls: &BTreeMap<String, f64>| -> f64 {
            names.iter().filter_map(|name| calls.get(*name)).sum()
        };
        of(&self.reactor) + of(&self.others)
    }
}

fn make_files(dir: &Path, count: usize) {
    for n in 0..count {
        fs::write(dir.join(format!("f{n}")), bytes(n as u64, FILE_BYTES)).expect("writing");
    }
}

/// STOR of a file that has been sent when it is asked for.
fn stor_what_is_there(session: &mut Control, n: usize) {
    let mut data = session.epsv();
    data.write_all(&bytes(n as u64, FILE_BYTES))
        .expect("sending");
    data.shutdown(Shutdown::Write).expect("the end");
    assert_eq!(session.command(&format!("STOR s{n}")).code, 150);
    assert_eq!(session.reply().code, 226);
}

#[test]
fn a_login() {
    let server = Server::start(&[]);
    let cost = cost(&server, || {
        for _ in 0..OPERATIONS {
            Control::login(server.addr()).quit();
        }
    });
    cost.check(LOGIN, &[]);
}

#[test]
fn a_noop() {
    let server = Server::start(&[]);
    let mut session = Control::login(server.addr());
    let cost = cost(&server, || {
        for _ in 0..OPERATIONS {
            assert_eq!(session.command("NOOP").code, 200);
        }
    });
    cost.check(NOOP, &[]);
}

#[test]
fn a_small_file_over_a_data_connection() {
    let server = Server::start(&["--durability", "none"]);
    make_files(server.root(), OPERATIONS);
    let mut session = Control::login(server.addr());
    assert_eq!(session.command("TYPE I").code, 200);
    let sent = cost(&server, || {
        for n in 0..OPERATIONS {
            let mut data = session.epsv();
            assert_eq!(session.command(&format!("RETR f{n}")).code, 150);
            let mut got = Vec::new();
            data.read_to_end(&mut got).expect("reading");
            assert_eq!(got.len(), FILE_BYTES);
            drop(data);
            assert_eq!(session.reply().code, 226);
        }
    });
    sent.check(RETR, &REPLIES);
    let stored = cost(&server, || {
        for n in 0..OPERATIONS {
            stor_what_is_there(&mut session, n);
        }
    });
    stored.check(STOR, &REPLIES);
}

#[test]
fn a_small_file_that_is_made_durable() {
    let server = Server::start(&[]);
    let mut session = Control::login(server.addr());
    assert_eq!(session.command("TYPE I").code, 200);
    let cost = cost(&server, || {
        for n in 0..OPERATIONS {
            stor_what_is_there(&mut session, n);
        }
    });
    cost.check(STOR_DURABLE, &REPLIES);
    // Nobody shares: the file and its directory.
    let syncs = cost.of(&["fsync", "fdatasync", "syncfs", "sync_file_range"]);
    assert!((1.9..=3.1).contains(&syncs), "{syncs} syncs a file");
}

fn upload_all(session: &mut Control) {
    for n in 0..OPERATIONS {
        session.send(format!("UPLOAD {FILE_BYTES}+ u{n}\r\n").as_bytes());
        session.send(&bytes(n as u64, FILE_BYTES));
    }
    for _ in 0..OPERATIONS {
        assert_eq!(session.reply().code, 226);
    }
}

#[test]
fn a_small_file_in_a_series() {
    let server = Server::start(&["--durability", "none"]);
    make_files(server.root(), OPERATIONS);
    let mut session = Control::login(server.addr());
    // How many of them share a read and a send depends on the time that they take.
    let together = ["read", "sendto", "brk"];
    let sent = cost(&server, || {
        let lines: String = (0..OPERATIONS)
            .map(|n| format!("DOWNLOAD f{n}\r\n"))
            .collect();
        session.send(lines.as_bytes());
        for _ in 0..OPERATIONS {
            assert_eq!(session.reply().code, 150);
            session.read_exact(FILE_BYTES);
            assert_eq!(session.reply().code, 226);
        }
    });
    sent.check(DOWNLOAD, &together);
    assert!(sent.of(&["read", "sendto"]) < 1.5, "{:?}", sent.reactor);
    for expected in [UPLOAD, UPLOAD_OVER] {
        let stored = cost(&server, || upload_all(&mut session));
        let firsts = stored.of(&["faccessat"]);
        stored.check(expected + firsts * OF_A_TURN, &together);
    }
}

#[test]
fn a_listing() {
    const ENTRIES: usize = 20;
    let server = Server::start(&[]);
    make_files(server.root(), ENTRIES);
    let mut session = Control::login(server.addr());
    let cost = cost(&server, || {
        for _ in 0..OPERATIONS {
            let (listed, reply) = session.fetch("MLSD");
            assert_eq!(reply.code, 226);
            assert!(listed.len() > ENTRIES * 20);
        }
    });
    cost.check(MLSD + ENTRIES as f64, &REPLIES);
}

#[test]
fn nothing_ticks_when_nothing_happens() {
    let server = Server::start(&[]);
    let sessions: Vec<_> = (0..20).map(|_| Control::login(server.addr())).collect();
    let file = tempfile::NamedTempFile::new().expect("a file");
    let strace = Strace::attach(&server, &["-o", file.path().to_str().expect("a text")]);
    let told = || fs::read_to_string(file.path()).expect("a trace");
    // To be watched interrupts a wait; the reactor goes back to it.
    let before = settled(told);
    let is_busy = until(Duration::from_secs(3), || told() != before);
    assert!(!is_busy, "somebody was at work: {}", told());
    // And strace would have told.
    drop(sessions);
    let woken = until(PATIENCE, || told() != before);
    assert!(woken, "the ends of the sessions are seen");
    strace.detach();
}

// Calls per operation -----------------------------------------------------------------------------

/// accept4 twice (the second finds nobody), epoll_ctl, 3 lines read, 4 replies sent, shutdown, close.
const LOGIN: f64 = 12.0;
/// Read, reply.
const NOOP: f64 = 2.0;
/// Two lines; accept4 twice; openat2, statx, pread64, shutdown, close;
/// and of the data connection before, which lingered: read, close.
const RETR: f64 = 11.0;
/// Two lines; accept4 twice; statx of the name and of the directory; faccessat; openat of what may be
/// kept; fstatfs; read, read of the end and of the control connection; openat of the staged file,
/// pwrite64, statx for its mode, linkat; close of both.
const STOR: f64 = 18.0;
/// All that is done to the file is others' work.
const STOR_DURABLE: f64 = 13.0;
/// openat2, statx, pread64, close.
const DOWNLOAD: f64 = 4.0;
/// As STOR, less what a data connection costs, and less `OF_A_TURN`.
const UPLOAD: f64 = 8.0;
/// The hidden file is opened, locked and looked at; it is renamed and not linked, and before that
/// it is looked whether what is replaced is large.
const UPLOAD_OVER: f64 = 11.0;
/// The directory is looked at, with faccessat and statx, for the first upload of a turn.
const OF_A_TURN: f64 = 2.0;
/// As RETR without its sends, with getdents64 twice, and one statx for each entry beside these.
const MLSD: f64 = 11.0;
