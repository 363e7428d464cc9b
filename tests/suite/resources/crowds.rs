//! Many at once: a thousand clients that move files, ten thousand that do nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use haul::config::Limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::common::content::{assert_same, bytes};
use crate::common::control::Control;
use crate::common::server::{Server, four_questions};
use crate::common::{PATIENCE, heavy};

/// What a session may cost while it does nothing, beside what the kernel holds for its socket.
const IDLE_SESSION_BYTES_MAX: usize = 3 << 10;

/// An address of this machine for the n-th client, so that neither ports nor slots of one run out.
fn address(net: u8, n: usize, clients_per_address: usize) -> IpAddr {
    let host = n / clients_per_address;
    IpAddr::V4(Ipv4Addr::new(
        127,
        net,
        (host / 250) as u8,
        (host % 250) as u8 + 1,
    ))
}

/// All the descriptors that this process may have.
fn raise_descriptor_limit(needed: u64) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, most).expect("raising the limit of open files");
    let allowed = maximum.unwrap_or(u64::MAX);
    assert!(
        allowed >= needed,
        "this test needs {needed} open files; `ulimit -Hn` says {allowed}"
    );
}

fn only_one_thread_serves(server: &Server) {
    let threads = server.threads();
    let background = Limits::default().background_threads;
    // One that serves, four for commits, four that read in, one that sweeps, one for the log.
    assert!(
        threads.len() <= 1 + background + 4 + 4 + 1 + 1,
        "{threads:?}"
    );
}

#[test]
fn a_thousand_clients_at_once_get_every_byte_right_from_one_thread() {
    const CLIENTS: usize = 1000;
    let _alone = heavy();
    raise_descriptor_limit(4 * CLIENTS as u64);
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let together = Barrier::new(CLIENTS);
    let done = AtomicUsize::new(0);
    thread::scope(|scope| {
        for n in 0..CLIENTS {
            let (server, together, done) = (&server, &together, &done);
            let client = move || {
                let from = address(3, n, 50);
                let mut session = Control::open_from(from, server.addr())
                    .greeted()
                    .logged_in();
                let content = bytes(n as u64 + 1, 20_000 + n * 97);
                together.wait();
                assert_eq!(session.stor(&format!("s{n}"), &content).code, 226);
                let (got, end) = session.fetch(&format!("RETR s{n}"));
                assert_same(&got, &content, "RETR");
                assert_eq!(end.code, 226);
                // All the others are still there.
                together.wait();
                let content = bytes(n as u64 + 5000, 20_000 + n * 97);
                assert_eq!(session.upload(&format!("u{n}"), &content).code, 226);
                let (got, end) = session.download(&format!("u{n}"));
                assert_same(&got, &content, "DOWNLOAD");
                assert_eq!(end.code, 226);
                together.wait();
                session.quit();
                done.fetch_add(1, Ordering::Relaxed);
            };
            // A thread that panics leaves the others at the barrier: better to end the test.
            let watched = move || {
                if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(client)) {
                    let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                    eprintln!("client {n} failed: {text}");
                    std::process::abort();
                }
            };
            thread::Builder::new()
                .stack_size(256 << 10)
                .spawn_scoped(scope, watched)
                .expect("a thread");
        }
        only_one_thread_serves(&server);
    });
    assert_eq!(done.load(Ordering::Relaxed), CLIENTS);
    only_one_thread_serves(&server);
    for n in (0..CLIENTS).step_by(97) {
        let stored = std::fs::read(server.path(&format!("s{n}"))).expect("stored");
        assert_same(
            &stored,
            &bytes(n as u64 + 1, 20_000 + n * 97),
            "on the disk",
        );
    }
    four_questions(&server, baseline);
}

#[test]
fn r16_ten_thousand_idle_sessions_cost_little_and_noop_still_answers() {
    const SESSIONS: usize = 10_000;
    let _alone = heavy();
    raise_descriptor_limit(SESSIONS as u64 + 2000);
    let server = Server::start(&["--max-sessions", "11000", "--log-level", "warn"]);
    let baseline = server.baseline();
    let before_kib = server.rss_kib();
    let mut sessions: Vec<Control> = (0..SESSIONS)
        .map(|n| {
            Control::open_from(address(2, n, 100), server.addr())
                .greeted()
                .logged_in()
        })
        .collect();
    let held = server.descriptors() - baseline;
    assert!(
        held.abs_diff(SESSIONS) < 10,
        "one descriptor each, not {held} for {SESSIONS}"
    );
    let each = (server.rss_kib() - before_kib) * 1024 / SESSIONS;
    println!("memory per idle session: {each} bytes");
    assert!(each < IDLE_SESSION_BYTES_MAX, "{each} bytes per session");

    let mut another = Control::login(server.addr());
    assert_eq!(another.command("NOOP").code, 200);
    assert_eq!(another.stor("f", b"content").code, 226);
    assert_eq!(another.fetch("RETR f").0, b"content");
    another.quit();
    for session in sessions.iter_mut().step_by(100) {
        assert_eq!(session.command("NOOP").code, 200);
    }
    let cpu = server.cpu_in_a_second();
    assert!(
        cpu < Duration::from_millis(200),
        "{cpu:?} in a second of doing nothing"
    );
    // They may all say something at the same moment.
    for session in &mut sessions {
        session.send(b"NOOP\r\n");
    }
    for session in &mut sessions {
        assert_eq!(session.reply().code, 200);
    }
    drop(sessions);
    four_questions(&server, baseline);
}

/// R06: listings of a very large directory leave time for others, and are not held in memory.
#[test]
fn r06_large_listings_leave_time_for_others() {
    const FILES: usize = 100_000;
    const LISTINGS: usize = 20;
    let _alone = heavy();
    let server = Server::start(&[]);
    std::fs::create_dir(server.path("large")).expect("making");
    let mut first = String::new();
    for n in 0..FILES {
        let name = server.path(&format!("large/{n:06}"));
        // A second name is cheaper than a file; a file has only so many.
        if n % 20_000 == 0 {
            first = format!("large/{n:06}");
            std::fs::write(name, b"").expect("writing");
        } else {
            std::fs::hard_link(server.path(&first), name).expect("linking");
        }
    }
    let baseline = server.baseline();
    let before_kib = server.rss_kib();
    let listing = AtomicUsize::new(LISTINGS);
    let (answered, peak_kib) = thread::scope(|scope| {
        for n in 0..LISTINGS {
            let (server, listing) = (&server, &listing);
            scope.spawn(move || {
                let mut session = Control::login(server.addr());
                let verb = ["LIST", "MLSD", "NLST", "NLST"][n % 4];
                let (listed, end) = session.fetch(&format!("{verb} large"));
                listing.fetch_sub(1, Ordering::Relaxed);
                assert_eq!(end.code, 226);
                let lines = listed.iter().filter(|&&b| b == b'\n').count();
                // MLSD may list the directory itself and its parent too.
                assert!((FILES..=FILES + 2).contains(&lines), "{lines} lines");
                session.quit();
            });
        }
        let mut other = Control::login(server.addr());
        let (mut answered, mut peak_kib) = (0, 0);
        while listing.load(Ordering::Relaxed) > 0 {
            assert_eq!(other.command("NOOP").code, 200);
            answered += 1;
            peak_kib = peak_kib.max(server.rss_kib());
        }
        other.quit();
        (answered, peak_kib)
    });
    assert!(answered >= 20, "{answered} answers during all listings");
    let each_kib = peak_kib.saturating_sub(before_kib) / LISTINGS;
    assert!(each_kib < 1024, "{each_kib} KiB per listing");

    let mut session = Control::login(server.addr());
    let tree = session.command("TREE large");
    assert_eq!(tree.code, 250);
    assert_eq!(tree.lines.len(), FILES + 2);
    session.quit();
    four_questions(&server, baseline);
}

/// R15: so do commands that take long: each of these makes a file and renames it over another.
#[test]
fn r15_commands_that_take_long_leave_time_for_others() {
    const UPLOADS: usize = 10_000;
    let _alone = heavy();
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let uploading = AtomicBool::new(true);
    let answered = thread::scope(|scope| {
        scope.spawn(|| {
            let mut session = Control::login(server.addr());
            for _ in 0..UPLOADS / 1000 {
                session.send(&b"UPLOAD 0+ f\r\n".repeat(1000));
                for _ in 0..1000 {
                    assert_eq!(session.reply().code, 226);
                }
            }
            uploading.store(false, Ordering::Relaxed);
            session.quit();
        });
        let mut other = Control::login(server.addr());
        let mut answered = 0;
        while uploading.load(Ordering::Relaxed) {
            assert_eq!(other.command("NOOP").code, 200);
            answered += 1;
        }
        other.quit();
        answered
    });
    // By what they send and receive alone, hundreds of these would fit into one turn.
    assert!(answered > UPLOADS / 150, "{answered} turns for others");
    four_questions(&server, baseline);
}

/// R15: a transfer that could take all the time leaves some for everybody else, and they for it.
#[test]
fn r15_a_fast_download_and_many_questions_share_the_server() {
    let _alone = heavy();
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let large = std::fs::File::create(server.path("large")).expect("creating");
    large.set_len(8 << 30).expect("a sparse file");
    let asked_enough = AtomicBool::new(false);
    thread::scope(|scope| {
        for verb in ["RETR", "DOWNLOAD"] {
            let (server, asked_enough) = (&server, &asked_enough);
            scope.spawn(move || {
                let mut session = Control::login(server.addr());
                let data = session.epsv();
                session.send(format!("{verb} large\r\n").as_bytes());
                assert_eq!(session.reply().code, 150);
                let stream = if verb == "RETR" {
                    &data
                } else {
                    session.stream()
                };
                let (mut received, mut chunk) = (0u64, vec![0; 1 << 20]);
                while !asked_enough.load(Ordering::Relaxed) {
                    let n = std::io::Read::read(&mut &*stream, &mut chunk).expect("receiving");
                    assert!(n > 0, "the file is long enough for this test");
                    received += n as u64;
                }
                assert!(received > 1 << 20, "{received} bytes meanwhile");
            });
        }
        let mut sessions: Vec<Control> = (0..50).map(|_| Control::login(server.addr())).collect();
        for _ in 0..15 {
            for session in &mut sessions {
                session.send(b"NOOP\r\n");
            }
            for session in &mut sessions {
                assert_eq!(session.reply().code, 200, "within {PATIENCE:?}");
            }
        }
        asked_enough.store(true, Ordering::Relaxed);
    });
    four_questions(&server, baseline);
}
