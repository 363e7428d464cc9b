//! What might hold up the one thread that serves everybody, or make it forget somebody: time that
//! has passed without it, calls that take long, results that nobody waits for, calls that fail for no
//! reason.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use socket2::SockRef;

use crate::common::content::{KIB, MIB, assert_file, assert_same, bytes};
use crate::common::control::Control;
use crate::common::secure::{Pair, Secure, finish};
use crate::common::server::{Server, four_questions};
use crate::common::trace::{Call, Strace, Traced};
use crate::common::{heavy, settled, until};

/// Has the server find all that fits into the socket's buffers at once.
fn while_stopped(server: &Server, send: impl FnOnce() + Send) {
    server.signal(Signal::STOP);
    thread::scope(|scope| {
        let sending = scope.spawn(send);
        until(Duration::from_millis(300), || sending.is_finished());
        server.signal(Signal::CONT);
    });
}

#[test]
fn e05_all_that_arrived_inside_tls_is_processed_without_another_event() {
    let pair = Pair::new();
    let options = pair.options();
    let server = Server::start(&options.iter().map(String::as_str).collect::<Vec<_>>());
    let baseline = server.baseline();
    let content = bytes(5, MIB);
    let mut session = Secure::login(server.addr(), pair.client());

    // In band, and behind it commands.
    let series = [
        b"UPLOAD 1048576+ f\r\n",
        &content[..],
        &b"NOOP\r\n".repeat(100),
    ]
    .concat();
    while_stopped(&server, || session.send(&series));
    assert_eq!(session.reply().0, 226);
    for _ in 0..100 {
        assert_eq!(session.reply().0, 200);
    }
    assert_file(&server.path("f"), &content);

    // Over a data connection, with its end.
    let mut data = session.data("STOR g").expect("TLS");
    while_stopped(&server, || {
        data.write_all(&content).expect("sending");
        finish(data);
    });
    assert_eq!(session.reply().0, 226);
    assert_file(&server.path("g"), &content);
    drop(session);
    four_questions(&server, baseline);
}

#[test]
fn e07_a_thousand_deadlines_and_results_at_once_keep_nobody_waiting() {
    let _heavy = heavy();
    let server = Server::start(&["--login-timeout", "2", "--max-sessions", "2000"]);
    let baseline = server.baseline();
    fs::write(server.path("f"), bytes(7, 100 * KIB)).expect("writing");
    let mut asks: Vec<Control> = (0..64).map(|_| Control::login(server.addr())).collect();
    // As many strangers as may be there; their time is over while nothing runs.
    let mut strangers: Vec<Control> = (0..500).map(|_| Control::connect(server.addr())).collect();
    for session in &mut asks {
        session.send(&b"HASH f\r\nUPLOAD 1+ g\r\nx".repeat(8));
    }
    server.signal(Signal::STOP);
    thread::sleep(Duration::from_secs(3));
    let mut other = asks.pop().expect("a session");
    other.send(b"NOOP\r\n");
    server.signal(Signal::CONT);
    for session in &mut strangers {
        assert_eq!(session.reply().code, 421);
        session.expect_eof();
    }
    asks.push(other);
    for session in &mut asks {
        for _ in 0..8 {
            assert_eq!(session.reply().code, 213);
            assert_eq!(session.reply().code, 226);
        }
    }
    assert_eq!(asks.pop().expect("a session").reply().code, 200);
    drop((asks, strangers));
    assert!(
        server.cpu_in_a_second() < Duration::from_millis(200),
        "a storm"
    );
    four_questions(&server, baseline);
}

#[test]
fn e10_a_server_that_was_stopped_ends_what_expired_and_goes_on_with_the_rest() {
    let server = Server::start(&["--idle-timeout", "2", "--stall-timeout", "2"]);
    let baseline = server.baseline();
    let content = bytes(10, 20 * MIB);
    fs::write(server.path("f"), &content).expect("writing");
    let mut idle = Control::login(server.addr());
    let mut asks = Control::login(server.addr());
    let mut downloads = Control::login(server.addr());
    let mut data = downloads.epsv();
    assert_eq!(downloads.command("RETR f").code, 150);
    let mut uploads = Control::login(server.addr());
    assert_eq!(uploads.command("UPLOAD 100000 g").code, 150);
    uploads.send(&content[..50_000]);
    server.signal(Signal::STOP);
    // The time itself is what this is about.
    thread::sleep(Duration::from_secs(4));
    asks.send(b"NOOP\r\n");
    uploads.send(&content[50_000..100_000]);
    server.signal(Signal::CONT);
    assert_eq!(idle.reply().code, 421);
    idle.expect_eof();
    // What came meanwhile counts, though its time was over when it was seen.
    assert_eq!(asks.reply().code, 200);
    assert_eq!(uploads.reply().code, 226);
    assert_file(&server.path("g"), &content[..100_000]);
    let mut got = Vec::new();
    data.read_to_end(&mut got).expect("reading");
    assert_same(&got, &content, "RETR");
    assert_eq!(downloads.reply().code, 226);
    drop((asks, uploads, downloads));
    assert!(
        server.cpu_in_a_second() < Duration::from_millis(100),
        "a storm"
    );
    four_questions(&server, baseline);
}

/// Stopped between the end of a poll and the look at the clock, it has not heard what comes meanwhile.
#[test]
fn e10_what_came_while_it_was_stopped_counts_wherever_it_was_stopped() {
    let server = Server::start(&["--idle-timeout", "2"]);
    let baseline = server.baseline();
    let mut idle = Control::login(server.addr());
    let mut asks = Control::login(server.addr());
    let mut other = Control::login(server.addr());
    settled(|| server.sleeps());
    let delay = "inject=epoll_wait:delay_exit=4000000:when=1";
    let strace = Strace::attach(
        &server,
        &["-o", "/dev/null", "-e", "trace=epoll_wait", "-e", delay],
    );
    other.send(b"NOOP\r\n");
    // Were it not stopped yet, this would be heard with the other.
    thread::sleep(Duration::from_millis(500));
    asks.send(b"NOOP\r\n");
    assert_eq!(idle.reply().code, 421);
    idle.expect_eof();
    assert_eq!(other.reply().code, 200);
    assert_eq!(asks.reply().code, 200);
    strace.detach();
    drop((asks, other));
    four_questions(&server, baseline);
}

/// As with some file systems (FUSE among them). The reply behind the file must not wait for more.
#[test]
fn a_file_that_the_system_cannot_send_leaves_no_cork() {
    let calls = "trace=sendfile,setsockopt";
    let traced = Traced::watching(calls, &[], &["sendfile:error=EINVAL:when=1"]);
    let content = bytes(11, 2 * MIB);
    fs::write(traced.server.path("f"), &content).expect("writing");
    let mut control = Control::login(traced.server.addr());
    assert_same(&control.download("f").0, &content, "DOWNLOAD");
    assert_eq!(control.command("NOOP").code, 200);
    control.quit();
    let calls = traced.calls();
    let corks = calls.iter().filter(|call| call.args.contains("TCP_CORK"));
    let corks: Vec<bool> = corks.map(|call| call.args.contains("[1]")).collect();
    assert_eq!(corks, [true, false]);
}

#[test]
fn c04_calls_that_are_interrupted_anywhere_are_made_again() {
    let faults = [
        ("accept4", "when=2+3"),
        ("epoll_wait", "when=3+3"),
        ("read", "when=2+3"),
        ("sendto", "when=2+3"),
        ("splice", "when=2+3"),
        ("sendfile", "when=1+3"),
        ("pread64", "when=1+3"),
        ("pwrite64", "when=1+3"),
        ("fsync", "when=1+2"),
        ("openat2", "when=1+2"),
        ("ftruncate", "when=1+2"),
    ];
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let trace = tempfile::NamedTempFile::new().expect("a file");
    let names: Vec<&str> = faults.iter().map(|it| it.0).collect();
    let faults: Vec<String> = faults
        .iter()
        .map(|(call, when)| format!("inject={call}:error=EINTR:{when}"))
        .collect();
    let only = format!("trace={}", names.join(","));
    let mut options = vec!["-o", trace.path().to_str().expect("a text"), "-e", &only];
    options.extend(faults.iter().flat_map(|it| ["-e", it.as_str()]));
    let strace = Strace::attach(&server, &options);
    for n in 0..4 {
        let mut session = Control::login(server.addr());
        let content = bytes(n, 3 * MIB);
        assert_eq!(session.stor("f", &content).code, 226);
        assert_file(&server.path("f"), &content);
        assert_eq!(session.upload("g", &content).code, 226);
        assert_file(&server.path("g"), &content);
        assert_same(&session.fetch("RETR f").0, &content, "RETR");
        assert_same(&session.download("g").0, &content, "DOWNLOAD");
        assert_eq!(session.fetch("NLST").1.code, 226);
        assert_eq!(session.command("NOOP").code, 200);
        session.quit();
    }
    strace.detach();
    let told = fs::read_to_string(trace.path()).expect("a trace");
    for call in names {
        let interrupted = |line: &str| line.contains(call) && line.contains("(INJECTED)");
        // How bytes are moved is up to the server.
        let moves = ["sendfile", "splice", "pread64", "pwrite64", "ftruncate"].contains(&call);
        assert!(moves || told.lines().any(interrupted), "{call}");
    }
    four_questions(&server, baseline);
}

#[test]
fn c06_connections_that_fail_while_they_are_accepted_cost_nobody_else() {
    for error in [
        "ECONNABORTED",
        "EPROTO",
        "ENETDOWN",
        "EMFILE",
        "ENOMEM",
        "ENOBUFS",
    ] {
        let fault = format!("accept4:error={error}:when=1..5");
        let traced = Traced::watching("trace=accept4", &[], &[&fault]);
        // Nobody else comes who would be another event.
        let mut session = Control::login(traced.server.addr());
        let mut data = session.epsv();
        assert_eq!(session.command("NLST").code, 150, "{error}");
        let mut got = Vec::new();
        data.read_to_end(&mut got).expect("reading");
        assert_eq!(session.reply().code, 226, "{error}");
        session.quit();
        let failed = traced.calls().iter().filter(|it| it.result < 0).count();
        assert!(failed >= 5, "{error}: {failed}");
    }
}

/// Bytes that are not yet sent are thrown away, and the other side learns of it.
fn reset(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    socket
        .set_linger(Some(Duration::ZERO))
        .expect("closing will reset");
}

#[test]
fn c10_results_that_nobody_waits_for_any_more_leave_no_descriptor() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    fs::write(server.path("f"), bytes(10, 300 * KIB)).expect("writing");
    // Slow enough that who asked is gone by then.
    let slow = ["fsync", "syncfs", "pread64", "linkat"];
    let faults: Vec<String> = slow
        .iter()
        .map(|it| format!("inject={it}:delay_enter=5000"))
        .collect();
    let mut options = vec!["-o", "/dev/null", "-e", "trace=fsync,syncfs,pread64,linkat"];
    options.extend(faults.iter().flat_map(|it| ["-e", it.as_str()]));
    let strace = Strace::attach(&server, &options);
    thread::scope(|scope| {
        for thread in 0..4 {
            let server = &server;
            scope.spawn(move || {
                for n in 0..250 {
                    let mut session = Control::login(server.addr());
                    let line = match n % 4 {
                        0 => format!("UPLOAD 5+ g{thread}\r\n12345"),
                        1 => "HASH f\r\n".to_string(),
                        2 => format!(
                            "UPLOAD 5+ h{thread}\r\n12345RNFR h{thread}\r\nRNTO i{thread}\r\n"
                        ),
                        _ => format!("UPLOAD 9 k{thread}\r\n"),
                    };
                    session.send(line.as_bytes());
                    if n % 4 == 3 {
                        assert_eq!(session.reply().code, 150);
                        session.send(b"1234");
                    }
                    // It vanishes when its command has arrived, or not quite.
                    thread::sleep(Duration::from_micros(700 * (n % 7)));
                    reset(session.stream());
                }
            });
        }
    });
    strace.detach();
    four_questions(&server, baseline);
    for thread in 0..4 {
        let found = fs::read(server.path(&format!("g{thread}")));
        assert!(found.is_ok_and(|it| it == b"12345"), "g{thread}");
        assert!(!server.path(&format!("k{thread}")).exists());
    }
}

/// How often the reactor made which call.
fn of_reactor(calls: &[Call]) -> BTreeMap<&str, usize> {
    let reactor = calls.iter().map(|it| it.thread).min();
    let mut counts = BTreeMap::new();
    for call in calls.iter().filter(|it| Some(it.thread) == reactor) {
        *counts.entry(call.name.as_str()).or_default() += 1;
    }
    counts
}

/// A disk that takes its time is met by the reactor only where a name is looked up or changed, and
/// that so many times for a command. Everything that waits for bytes is done elsewhere.
#[test]
fn e14_what_asks_the_disk_on_the_reactor_is_named_and_bounded() {
    const NAMES: [&str; 10] = [
        "openat2",
        "statx",
        "fstat",
        "unlinkat",
        "mkdirat",
        "renameat2",
        "fchmodat",
        "utimensat",
        "getdents64",
        "fstatfs",
    ];
    const ELSEWHERE: [&str; 6] = [
        "fsync",
        "fdatasync",
        "syncfs",
        "linkat",
        "renameat",
        "copy_file_range",
    ];
    let watched = format!("trace={},{}", NAMES.join(","), ELSEWHERE.join(","));
    for (command, most) in [
        ("SIZE d/f", 4),
        ("MDTM d/f", 4),
        ("MLST d/f", 6),
        ("CWD d", 4),
        ("MKD d/e", 6),
        ("RMD d/e", 6),
        ("MFMT 20260131120000 d/f", 6),
        ("SITE CHMOD 600 d/f", 6),
        ("RNFR d/f", 4),
        ("RNTO d/f", 12),
        ("HASH d/f", 6),
        ("UPLOAD 5+ d/f\r\n12345", 16),
        ("DELE d/f", 10),
    ] {
        let traced = Traced::watching(&watched, &[], &[]);
        fs::create_dir(traced.server.path("d")).expect("making a directory");
        fs::write(traced.server.path("d/f"), "x").expect("writing");
        if command == "RMD d/e" {
            fs::create_dir(traced.server.path("d/e")).expect("making a directory");
        }
        let mut session = Control::login(traced.server.addr());
        if command.starts_with("RNTO") {
            assert_eq!(session.command("RNFR d/f").code, 350);
        }
        let reply = match command.split_once("\r\n") {
            None => session.command(command),
            Some((line, body)) => {
                session.send(format!("{line}\r\n{body}").as_bytes());
                session.reply()
            }
        };
        assert!(reply.code < 400, "{command}: {reply:?}");
        session.quit();
        let calls = traced.calls();
        let made = of_reactor(&calls);
        for call in ELSEWHERE {
            let by_reactor = made.get(call).copied().unwrap_or(0);
            assert_eq!(by_reactor, 0, "{command}: {call} on the reactor");
        }
        let sum: usize = made.values().sum();
        assert!(sum > 0 && sum <= most, "{command}: {made:?}");
    }
}

/// However many move bytes, after a fraction of a millisecond of that it is looked whether somebody
/// asks something.
#[test]
fn many_transfers_do_not_come_between_a_question_and_its_answer() {
    const DOWNLOADS: usize = 16;
    let traced = Traced::watching(
        "trace=epoll_wait,sendfile",
        &[],
        &["sendfile:delay_enter=3000"],
    );
    let server = &traced.server;
    let content = bytes(11, 8 * MIB);
    fs::write(server.path("f"), &content).expect("writing");
    // One begins behind the other: the first bytes move in the turn in which they were asked for.
    let downloads = (0..DOWNLOADS).map(|_| {
        let mut session = Control::login(server.addr());
        let data = session.epsv();
        assert_eq!(session.command("RETR f").code, 150);
        (session, data)
    });
    let downloads: Vec<_> = downloads.collect();
    thread::scope(|scope| {
        for (mut session, mut data) in downloads {
            let content = &content;
            scope.spawn(move || {
                let mut got = Vec::new();
                data.read_to_end(&mut got).expect("reading");
                assert_same(&got, content, "RETR");
                assert_eq!(session.reply().code, 226);
                session.quit();
            });
        }
        let mut session = Control::login(server.addr());
        for _ in 0..10 {
            assert_eq!(session.command("NOOP").code, 200);
        }
        session.quit();
    });
    let calls = traced.calls();
    let turns = calls.split(|it| it.is("epoll_wait"));
    let most = turns.map(<[Call]>::len).max().expect("a turn");
    // One transfer may take several in its turn.
    assert!(most > 0 && most < DOWNLOADS / 2, "{most} in one turn");
}
