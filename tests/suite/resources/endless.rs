//! R01, R03, R05, R07: lines, replies, sessions and patterns without end.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::common::bytewise::{End, rest_of, send_until_blocked};
use crate::common::content::MIB;
use crate::common::control::{Control, connect};
use crate::common::server::{Server, four_questions};
use crate::common::{PATIENCE, until};

const LINE_BYTES_MAX: usize = 4096;

#[test]
fn r01_a_line_without_an_end_is_refused_at_the_cap() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let before_kib = server.rss_kib();
    for logged_in in [false, true] {
        for _ in 0..8 {
            let mut session = Control::connect(server.addr());
            if logged_in {
                session = session.logged_in();
            }
            // What the server does not take ends in a reset, which is no matter.
            let mut stream = session.stream();
            let _ = stream.write_all(&vec![b'a'; MIB]);
            assert_eq!(session.reply().code, 500);
            let (more, _) = rest_of(session.stream());
            assert_eq!(more, b"", "one reply");
        }
    }
    let grown_kib = server.rss_kib().saturating_sub(before_kib);
    assert!(grown_kib < 1024, "16 endless lines cost {grown_kib} KiB");
    four_questions(&server, baseline);
}

#[test]
fn r01_the_tail_of_a_long_line_is_no_command() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let long = |len: usize| vec![b'a'; len];
    for line in [
        long(LINE_BYTES_MAX + 1),
        [long(LINE_BYTES_MAX), b"\r\n".to_vec()].concat(),
        [long(LINE_BYTES_MAX), b"\r\nUSER x\r\nNOOP\r\n".to_vec()].concat(),
        [long(LINE_BYTES_MAX - 1), b"\r\nNOOP\r\n".to_vec()].concat(),
        [long(3 * LINE_BYTES_MAX), b"\r\nNOOP\r\n".to_vec()].concat(),
    ] {
        for whole in [true, false] {
            let mut session = Control::connect(server.addr());
            for piece in line.chunks(if whole { line.len() } else { 1000 }) {
                let mut stream = session.stream();
                let _ = stream.write_all(piece);
            }
            assert_eq!(session.reply().code, 500);
            session.expect_eof();
        }
    }
    // The longest line there may be is an unknown verb like any other.
    let mut session = Control::connect(server.addr());
    session.send(&[long(LINE_BYTES_MAX - 2), b"\r\nNOOP\r\n".to_vec()].concat());
    assert_eq!(session.reply().code, 500);
    assert_eq!(session.reply().code, 200);
    session.quit();
    four_questions(&server, baseline);
}

/// A million commands whose replies nobody reads: the server stops reading, and in the end gives
/// up.
#[test]
fn r03_replies_that_nobody_reads_are_bounded() {
    let server = Server::start(&["--stall-timeout", "1"]);
    let baseline = server.baseline();
    let before_kib = server.rss_kib();
    let greedy: Vec<Control> = (0..4)
        .map(|n| {
            let session = Control::login(server.addr());
            // Replies of the session, or files that go through the same buffer.
            let line: &[u8] = if n % 2 == 0 { b"HELP\r\n" } else { b"FEAT\r\n" };
            let sent = send_until_blocked(session.stream(), &line.repeat(10_000), 64 * MIB);
            assert!(sent < 64 * MIB, "the server read all of {sent} bytes");
            session
        })
        .collect();
    let grown_kib = server.rss_kib().saturating_sub(before_kib);
    assert!(
        grown_kib < 4 * 1024,
        "4 sessions that read nothing cost {grown_kib} KiB"
    );
    let mut other = Control::login(server.addr());
    assert_eq!(other.command("NOOP").code, 200);
    other.quit();
    for session in greedy {
        // They are closed without being read from; what was sent before may be read or not.
        let gone = until(PATIENCE, || {
            let mut stream = session.stream();
            stream.write_all(b"NOOP\r\n").is_err()
        });
        assert!(gone, "closed by the stall timeout");
    }
    four_questions(&server, baseline);
}

#[test]
fn r05_an_idle_session_ends_and_one_that_does_something_stays() {
    let server = Server::start(&["--idle-timeout", "2"]);
    let baseline = server.baseline();
    let begin = Instant::now();
    let mut idle = Control::login(server.addr());
    let mut asks = Control::login(server.addr());
    let mut stores = Control::login(server.addr());
    let mut data = stores.epsv();
    assert_eq!(stores.command("STOR slow").code, 150);
    let mut uploads = Control::login(server.addr());
    assert_eq!(uploads.command("UPLOAD 7 slow-in-band").code, 150);
    for _ in 0..7 {
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(asks.command("NOOP").code, 200);
        data.write_all(b"x").expect("sending");
        uploads.send(b"y");
    }
    assert_eq!(uploads.reply().code, 226, "a body is no idleness");
    drop(data);
    assert_eq!(stores.reply().code, 226, "a transfer is no idleness");
    assert_eq!(stores.command("NOOP").code, 200, "the clock begins again");

    let end = idle.reply();
    assert_eq!(end.code, 421, "{end:?}");
    idle.expect_eof();
    assert!(begin.elapsed() >= Duration::from_secs(2));
    // Those that were alive end in the same way once they are not.
    for mut session in [asks, stores, uploads] {
        assert_eq!(session.reply().code, 421);
        session.expect_eof();
    }
    four_questions(&server, baseline);
}

#[test]
fn r05_login_has_a_deadline_whatever_is_sent() {
    let server = Server::start(&["--login-timeout", "2"]);
    let baseline = server.baseline();
    let mut silent = Control::connect(server.addr());
    let mut asks = Control::connect(server.addr());
    let mut half_way = Control::connect(server.addr());
    assert_eq!(half_way.command("USER anonymous").code, 331);
    half_way.send(b"PASS never ends");
    let ended = until(PATIENCE, || {
        let code = asks.command("NOOP").code;
        assert!(code == 200 || code == 421, "{code}");
        code == 421
    });
    assert!(ended, "NOOP does not keep a stranger");
    for session in [&mut silent, &mut half_way] {
        assert_eq!(session.reply().code, 421);
        session.expect_eof();
    }
    let (more, end) = rest_of(asks.stream());
    assert_eq!((more.as_slice(), end), (&b""[..], End::Ordered));
    four_questions(&server, baseline);
}

/// The deadline of a login that comes after a logout counts from there.
#[test]
fn r05_logging_in_again_takes_its_time_from_there() {
    const LOGIN_TIME: Duration = Duration::from_secs(1);
    let server = Server::start(&["--login-timeout", "1"]);
    let baseline = server.baseline();
    for again in ["REIN", "USER anonymous"] {
        let mut session = Control::login(server.addr());
        std::thread::sleep(LOGIN_TIME);
        let begin = Instant::now();
        let reply = session.command(again);
        assert!(reply.code == 220 || reply.code == 331, "{reply:?}");
        assert_eq!(session.reply().code, 421);
        assert!(begin.elapsed() >= LOGIN_TIME, "too soon after {again}");
        session.expect_eof();
    }
    four_questions(&server, baseline);
}

#[test]
fn r07_patterns_take_linear_time_and_nothing_is_expanded() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    for n in 0..2000 {
        std::fs::write(server.path(&format!("{n:04}{}", "a".repeat(200))), b"").expect("writing");
    }
    std::fs::write(server.path(&"a".repeat(100)), b"").expect("writing");
    std::fs::create_dir_all(server.path("loop/x")).expect("making");
    for link in ["loop/loop", "loop/x/up"] {
        std::os::unix::fs::symlink(server.path("loop"), server.path(link)).expect("linking");
    }
    let mut session = Control::login(server.addr());
    for pattern in [
        "a*a*a*a*a*a*a*a*b".to_owned(),
        format!("{}b", "*a".repeat(1900)),
        format!("{}b", "*".repeat(3900)),
        format!("{}b", "?".repeat(3900)),
        format!("*{}b", "a".repeat(3900)),
    ] {
        let (names, end) = session.fetch(&format!("NLST {pattern}"));
        assert_eq!((names.as_slice(), end.code), (&b""[..], 226));
        let status = session.command(&format!("STAT {pattern}"));
        assert!(
            matches!(status.code, 212 | 213) && status.lines.len() == 2,
            "{status:?}"
        );
    }
    // A brace is a brace.
    let braces = "{a,b}".repeat(40);
    let (listed, refused) = session.fetch(&format!("LIST {braces}"));
    assert_eq!((listed.as_slice(), refused.code), (&b""[..], 550));
    std::fs::write(server.path(&braces), b"").expect("writing");
    let (listed, end) = session.fetch(&format!("LIST {braces}"));
    assert_eq!(end.code, 226);
    assert_eq!(listed.split(|&b| b == b'\n').count(), 2, "one line");
    // No option makes a listing recursive.
    let (listed, end) = session.fetch("LIST -R loop");
    assert_eq!(end.code, 226);
    let text = String::from_utf8_lossy(&listed);
    assert_eq!(text.lines().count(), 2, "{text}");
    // Words that look like options are not all looked for: at some point they are a name.
    let (names, end) = session.fetch("NLST -a -l -R -1 loop");
    assert_eq!((names.split(|&b| b == b'\n').count(), end.code), (3, 226));
    let words = "-a ".repeat(1300);
    let (_, end) = session.fetch(&format!("NLST {words}loop"));
    assert_eq!(end.code, 553, "that name is too long");
    session.quit();
    four_questions(&server, baseline);
}

/// A session that ends must not wait for what it announced.
#[test]
fn r03_a_session_that_only_announces_costs_nothing() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let before_kib = server.rss_kib();
    let mut sessions = Vec::new();
    for n in 0..50 {
        let mut session = Control::login(server.addr());
        let line = format!("UPLOAD 1000000 announced-{n}");
        assert_eq!(session.command(&line).code, 150);
        sessions.push(session);
    }
    let grown_kib = server.rss_kib().saturating_sub(before_kib);
    assert!(grown_kib < 1024, "50 announcements cost {grown_kib} KiB");
    drop(sessions);
    let _ = connect(None, server.addr());
    four_questions(&server, baseline);
}
