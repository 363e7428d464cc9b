//! Rates over sockets. That they are exact and smooth is shown in simulated time; here, that every
//! way of moving bytes keeps to them, and who does not have to.
//!
//! No test fails because the machine is slow: what is asserted is that it took long enough.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::content::{KIB, MIB, assert_file, assert_same, bytes};
use crate::common::control::Control;
use crate::common::secure::{Pair, Secure};
use crate::common::server::{Server, four_questions};
use crate::common::users::{Users, logged_in};
use crate::common::{PATIENCE, settled, until};

/// What a bucket lets through at once, in the time that it takes otherwise: what was saved up, and
/// one grant.
const AHEAD: Duration = Duration::from_millis(100);

/// Runs something that moves `size` bytes, and says whether it could take less than its time.
#[track_caller]
fn takes_its_time<T>(size: usize, bytes_per_s: usize, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    let least = Duration::from_secs_f64(size as f64 / bytes_per_s as f64) - AHEAD;
    let took = start.elapsed();
    assert!(took >= least, "{size} bytes in {took:?}, not {least:?}");
    result
}

#[test]
fn every_way_to_move_bytes_keeps_to_the_rate() {
    const RATE: usize = MIB;
    let server = Server::start(&["--session-rate", "1MiB"]);
    let baseline = server.baseline();
    let content = bytes(1, 400 * KIB);
    fs::write(server.path("f"), &content).expect("writing");
    let mut session = Control::login(server.addr());
    let size = content.len();
    takes_its_time(size, RATE, || {
        assert_same(&session.download("f").0, &content, "DOWNLOAD");
    });
    takes_its_time(size, RATE, || {
        assert_same(&session.fetch("RETR f").0, &content, "RETR");
    });
    takes_its_time(size, RATE, || {
        assert_eq!(session.upload("g", &content).code, 226);
    });
    takes_its_time(size, RATE, || {
        assert_eq!(session.stor("h", &content).code, 226);
    });
    assert_file(&server.path("g"), &content);
    assert_file(&server.path("h"), &content);
    // A body that nobody wants moves too, and so do many that are small.
    takes_its_time(size, RATE, || {
        session.send(format!("UPLOAD {size}+ absent/f\r\n").as_bytes());
        session.send(&content);
        assert_eq!(session.reply().code, 550);
    });
    fs::write(server.path("small"), &content[..40 * KIB]).expect("writing");
    takes_its_time(size, RATE, || {
        session.send("DOWNLOAD small\r\n".repeat(10).as_bytes());
        for _ in 0..10 {
            assert_eq!(session.reply().code, 150);
            assert_same(&session.read_exact(40 * KIB), &content[..40 * KIB], "small");
            assert_eq!(session.reply().code, 226);
        }
    });
    session.quit();
    four_questions(&server, baseline);
}

#[test]
fn listings_keep_to_the_rate_and_nobody_else_waits_for_them() {
    const RATE: usize = 64 * KIB;
    let server = Server::start(&["--session-rate", "64KiB"]);
    let baseline = server.baseline();
    for n in 0..400 {
        fs::write(server.path(&format!("{n}-{}", "x".repeat(100))), "").expect("writing");
    }
    let mut session = Control::login(server.addr());
    for verb in ["MLSD", "LIST", "NLST"] {
        // Each name has over a hundred bytes.
        takes_its_time(40_000, RATE, || {
            let (listing, reply) = session.fetch(verb);
            assert!(listing.len() > 40_000 && reply.code == 226, "{verb}");
        });
    }
    // While one listing is under way, another session is answered.
    session.send(b"TREE\r\n");
    let mut other = Control::login(server.addr());
    assert_eq!(other.command("NOOP").code, 200);
    other.quit();
    takes_its_time(10 * KIB, RATE, || assert_eq!(session.reply().code, 250));
    session.quit();
    four_questions(&server, baseline);
}

#[test]
fn tls_keeps_to_the_rate() {
    const RATE: usize = MIB;
    let pair = Pair::new();
    let mut options = pair.options();
    options.extend(["--session-rate".into(), "1MiB".into()]);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let server = Server::start(&options);
    let baseline = server.baseline();
    let content = bytes(2, 400 * KIB);
    fs::write(server.path("f"), &content).expect("writing");
    let mut session = Secure::login(server.addr(), pair.client());
    let size = content.len();
    takes_its_time(size, RATE, || {
        assert_same(&session.download("f"), &content, "DOWNLOAD");
    });
    takes_its_time(size, RATE, || {
        assert_same(&session.fetch("RETR f").0, &content, "RETR");
    });
    takes_its_time(size, RATE, || {
        assert_eq!(session.upload("g", &content), 226)
    });
    takes_its_time(size, RATE, || assert_eq!(session.stor("h", &content), 226));
    assert_file(&server.path("g"), &content);
    assert_file(&server.path("h"), &content);
    // Less than a record at a time.
    session.command("QUIT");
    drop(session);
    four_questions(&server, baseline);
    drop(server);
    let mut slow = options.clone();
    *slow.last_mut().expect("options") = "20KiB";
    let server = Server::start(&slow);
    let mut session = Secure::login(server.addr(), pair.client());
    let part = &content[..30 * KIB];
    takes_its_time(part.len(), 20 * KIB, || {
        assert_eq!(session.stor("h", part), 226);
    });
    takes_its_time(part.len(), 20 * KIB, || {
        assert_same(&session.fetch("RETR h").0, part, "RETR");
    });
}

#[test]
fn the_sessions_of_a_user_share_the_rate_and_others_have_their_own() {
    const RATE: usize = 512 * KIB;
    let users = Users::new(&[
        ("anna", "secret", &["--rate", "512KiB"]),
        ("ben", "other", &["--session-rate", "512KiB"]),
    ]);
    let server = users.server();
    let baseline = server.baseline();
    let content = bytes(3, 256 * KIB);
    fs::write(server.path("f"), &content).expect("writing");
    let together = |name: &'static str, secret: &'static str| {
        let sessions: Vec<_> = (0..2).map(|_| logged_in(&server, name, secret)).collect();
        let content = content.clone();
        let threads = sessions.into_iter().map(|mut session| {
            let content = content.clone();
            thread::spawn(move || {
                assert_same(&session.fetch("RETR f").0, &content, "RETR");
                session.quit();
            })
        });
        let threads: Vec<_> = threads.collect();
        threads
            .into_iter()
            .for_each(|it| it.join().expect("a session"));
    };
    // Two of anna's take the time of both, two of ben's that of one.
    takes_its_time(2 * content.len(), RATE, || together("anna", "secret"));
    takes_its_time(content.len(), RATE, || together("ben", "other"));
    four_questions(&server, baseline);
}

#[test]
fn all_sessions_together_keep_to_the_rate_of_the_server() {
    const RATE: usize = MIB;
    let server = Server::start(&["--rate", "1MiB"]);
    let baseline = server.baseline();
    let content = bytes(4, 128 * KIB);
    fs::write(server.path("f"), &content).expect("writing");
    takes_its_time(8 * content.len(), RATE, || {
        thread::scope(|scope| {
            for n in 0..8 {
                let (server, content) = (&server, &content);
                scope.spawn(move || {
                    let mut session = Control::login(server.addr());
                    if n % 2 == 0 {
                        assert_same(&session.download("f").0, content, "DOWNLOAD");
                    } else {
                        assert_eq!(session.stor(&format!("g{n}"), content).code, 226);
                    }
                    session.quit();
                });
            }
        });
    });
    four_questions(&server, baseline);
}

#[test]
fn a_transfer_that_is_kept_waiting_has_not_stalled() {
    let server = Server::start(&["--session-rate", "4KiB", "--stall-timeout", "1s"]);
    let baseline = server.baseline();
    let content = bytes(5, 12 * KIB);
    fs::write(server.path("f"), &content).expect("writing");
    let mut session = Control::login(server.addr());
    takes_its_time(content.len(), 4 * KIB, || {
        let (got, reply) = session.fetch("RETR f");
        assert_same(&got, &content, "RETR");
        assert_eq!(reply.code, 226);
    });
    takes_its_time(content.len(), 4 * KIB, || {
        assert_eq!(session.stor("g", &content).code, 226);
    });
    // One whose client does nothing has, limited or not.
    let data = session.epsv();
    assert_eq!(session.command("STOR h").code, 150);
    assert_eq!(session.reply().code, 426);
    drop(data);
    session.quit();
    four_questions(&server, baseline);
}

#[test]
fn what_may_not_move_yet_stays_with_the_client() {
    let server = Server::start(&["--session-rate", "10KiB"]);
    let baseline = server.baseline();
    let memory = server.rss_kib();
    let mut session = Control::login(server.addr());
    let mut data = session.epsv();
    assert_eq!(session.command("STOR f").code, 150);
    // The kernels between take some megabytes, and then nobody takes more.
    data.set_write_timeout(Some(Duration::from_millis(500)))
        .expect("setting a timeout");
    let chunk = bytes(6, MIB);
    let mut sent = 0;
    let full = loop {
        match data.write(&chunk) {
            Ok(n) => sent += n,
            Err(error) => break error,
        }
        assert!(sent < 64 * MIB, "the server takes everything at once");
    };
    assert!(matches!(
        full.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut
    ));
    let grown = server.rss_kib().saturating_sub(memory);
    assert!(grown < 2048, "{grown} KiB more");
    // ABOR is heard all the same.
    session.send(b"ABOR\r\n");
    assert_eq!((session.reply().code, session.reply().code), (426, 226));
    session.quit();
    four_questions(&server, baseline);
}

#[test]
fn who_is_not_limited_or_moves_nothing_wakes_nobody() {
    let users = Users::new(&[("anna", "secret", &["--session-rate", "100KiB"])]);
    let server = users.server();
    let baseline = server.baseline();
    fs::write(server.path("f"), bytes(7, 8 * MIB)).expect("writing");
    let mut anna = logged_in(&server, "anna", "secret");
    assert_eq!(anna.upload("g", b"content").code, 226);
    // One waits for its client to read, one for a client to send; neither for the time.
    let mut free = Control::login(server.addr());
    let mut unread = free.epsv();
    assert_eq!(free.command("RETR f").code, 150);
    let unsent = anna.epsv();
    assert_eq!(anna.command("STOR h").code, 150);
    let before = settled(|| server.sleeps());
    let woken = || server.sleeps() - before;
    let is_busy = until(Duration::from_secs(1), || woken() >= 8);
    assert!(!is_busy, "woken {} times within a second", woken());
    let mut rest = Vec::new();
    unread.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    unread.read_to_end(&mut rest).expect("the rest");
    assert_eq!((rest.len(), free.reply().code), (8 * MIB, 226));
    drop(unsent);
    assert_eq!(anna.reply().code, 226);
    anna.quit();
    free.quit();
    four_questions(&server, baseline);
}
