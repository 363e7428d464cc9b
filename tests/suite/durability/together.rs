//! Commits that take their time, and who waits for them: those who asked, and nobody else.

use std::fs;
use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::Signal;

use crate::common::content::{KIB, MIB, bytes};
use crate::common::control::Control;
use crate::common::server::{Server, four_questions};
use crate::common::trace::Traced;
use crate::common::{PATIENCE, until, wait_for};

/// The first sync of each kind takes three seconds, in each thread.
const SLOW: &[&str] = &["fsync,syncfs:delay_enter=3000000:when=1"];

/// Whether nothing has come to it.
fn has_heard_nothing(control: &Control) -> bool {
    let stream = control.stream();
    stream.set_nonblocking(true).expect("setting");
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false).expect("setting");
    matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

fn immediate(name: &str, content: &[u8]) -> Vec<u8> {
    let line = format!("UPLOAD {}+ {name}\r\n", content.len());
    [line.as_bytes(), content].concat()
}

#[test]
fn c03_a_slow_disk_keeps_nobody_waiting_but_who_uploads() {
    let traced = Traced::start(&[], SLOW);
    let (mut slow, mut other) = (
        Control::login(traced.server.addr()),
        Control::login(traced.server.addr()),
    );
    // Uploads go on behind the first; what else was sent waits its turn.
    let series = [
        immediate("a", b"1"),
        immediate("b", b"22"),
        immediate("absent/c", b"333"),
        immediate("d", b"4444"),
        b"SIZE d\r\nNOOP\r\n".to_vec(),
    ];
    slow.send(&series.concat());
    for _ in 0..20 {
        assert_eq!(other.command("NOOP").code, 200);
        assert_eq!(other.command("MLST /").code, 250);
    }
    assert!(has_heard_nothing(&slow), "the disk has not even begun");
    assert!(
        !traced.server.path("a").exists(),
        "no name before the bytes are on the disk"
    );
    let codes: Vec<u16> = (0..6).map(|_| slow.reply().code).collect();
    assert_eq!(codes, [226, 226, 550, 226, 213, 200]);
    slow.quit();
    other.quit();
    four_questions(&traced.server, traced.server.descriptors());
}

#[test]
fn quit_and_half_close_wait_for_what_is_owed() {
    let traced = Traced::start(&[], SLOW);
    let (mut one, mut two) = (
        Control::login(traced.server.addr()),
        Control::login(traced.server.addr()),
    );
    one.send(&[immediate("a", b"1"), b"QUIT\r\n".to_vec()].concat());
    two.send(&immediate("b", b"2"));
    two.stream()
        .shutdown(Shutdown::Write)
        .expect("shutting down");
    assert_eq!((one.reply().code, one.reply().code), (226, 221));
    one.expect_eof();
    assert_eq!(two.reply().code, 226);
    two.expect_eof();
}

#[test]
fn c08_a_server_that_stops_answers_what_is_being_committed() {
    let mut traced = Traced::start(&[], SLOW);
    let mut control = Control::login(traced.server.addr());
    let mut other = Control::login(traced.server.addr());
    control.send(&immediate("a", b"1"));
    assert_eq!(other.command("NOOP").code, 200);
    traced.server.signal(Signal::TERM);
    assert_eq!(other.reply().code, 421);
    other.expect_eof();
    assert_eq!(control.reply().code, 226);
    assert_eq!(control.reply().code, 421);
    control.expect_eof();
    assert_eq!(traced.server.exit_code(), 0);
    assert_eq!(fs::read(traced.server.path("a")).expect("there"), b"1");
}

#[test]
fn e12_a_session_that_ends_gets_no_answer_and_its_upload_is_there() {
    let traced = Traced::start(&[], SLOW);
    let mut gone = Control::login(traced.server.addr());
    gone.send(&immediate("a", b"1"));
    let mut other = Control::login(traced.server.addr());
    assert_eq!(other.command("NOOP").code, 200);
    crate::common::bytewise::reset(gone.stream());
    drop(gone);
    // Whoever gets its place hears nothing of it.
    let mut next = Control::login(traced.server.addr());
    for _ in 0..5 {
        assert_eq!(next.command("PWD").code, 257);
    }
    let there = until(PATIENCE, || traced.server.path("a").exists());
    assert!(there, "it was whole, so it is stored");
    for _ in 0..5 {
        assert_eq!(next.command("PWD").code, 257);
    }
    next.quit();
    other.quit();
    four_questions(&traced.server, traced.server.descriptors());
}

/// What a session stages is written by the server's one thread: no more of it than can be written out.
#[test]
fn an_upload_that_the_disk_does_not_keep_up_with_waits() {
    let delay = "fdatasync:delay_enter=5000000:when=1";
    // What all uploads together may have is not what stops this one.
    let traced = Traced::with_much_to_write((0, 1 << 20), &[], &[delay]);
    let mut control = Control::login(traced.server.addr());
    let mut data = control.epsv();
    assert_eq!(control.command("STOR large").code, 150);
    let sender = thread::spawn(move || {
        let block = bytes(1, MIB);
        for _ in 0..160 {
            data.write_all(&block).expect("sending");
        }
    });
    let staged = || -> Option<u64> {
        let fds = fs::read_dir(format!("/proc/{}/fd", traced.server.pid())).ok()?;
        fds.flatten().find_map(|fd| {
            let name = fs::read_link(fd.path()).ok()?;
            let is_staged = name.to_string_lossy().contains("/#");
            is_staged
                .then(|| fs::metadata(fd.path()).ok())?
                .map(|meta| meta.len())
        })
    };
    // No piece of it has been seen to be written fast.
    let limit = 16 * MIB as u64;
    let reached = wait_for(PATIENCE, || staged().filter(|bytes| *bytes >= limit));
    let mut other = Control::login(traced.server.addr());
    assert_eq!(
        other.stor("small", b"x").code,
        226,
        "a small file waits for no large one"
    );
    let then = staged();
    assert!(
        reached.is_some() && then.is_some_and(|bytes| bytes < limit + 2 * MIB as u64),
        "{then:?}"
    );
    sender.join().expect("all is taken in the end");
    assert_eq!(control.reply().code, 226);
    assert_eq!(
        fs::metadata(traced.server.path("large"))
            .expect("there")
            .len(),
        160 * MIB as u64
    );
    control.quit();
    other.quit();
}

#[test]
fn f21_who_reads_while_two_store_gets_one_whole_version() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let versions: Vec<Vec<u8>> = (0..3).map(|n| bytes(n, 300 * KIB + n as usize)).collect();
    fs::write(server.path("f"), &versions[0]).expect("writing");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = [1, 2]
            .into_iter()
            .map(|n| {
                let (server, content) = (&server, &versions[n]);
                scope.spawn(move || {
                    let mut control = Control::login(server.addr());
                    for round in 0..15 {
                        let code = match round % 2 {
                            0 => control.stor("f", content).code,
                            _ => control.upload("f", content).code,
                        };
                        assert_eq!(code, 226);
                    }
                    control.quit();
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            let (mut control, mut seen) = (Control::login(server.addr()), [0; 3]);
            while !done.load(Ordering::Relaxed) {
                let (found, end) = control.fetch("RETR f");
                assert_eq!(end.code, 226);
                let which = versions.iter().position(|version| *version == found);
                seen[which.expect("one of the versions, whole")] += 1;
            }
            control.quit();
            seen
        });
        for writer in writers {
            writer.join().expect("storing");
        }
        done.store(true, Ordering::Relaxed);
        reader.join().expect("reading");
    });
    let left = fs::read(server.path("f")).expect("there");
    assert!(versions[1..].contains(&left));
    four_questions(&server, baseline);
}

/// The last one of a series is the one that stays.
#[test]
fn a_pipelined_series_of_one_name_ends_with_the_last() {
    let server = Server::start(&[]);
    let mut control = Control::login(server.addr());
    let series: Vec<Vec<u8>> = (0..200)
        .map(|n: u32| immediate("f", n.to_string().as_bytes()))
        .collect();
    control.send(&series.concat());
    for _ in 0..200 {
        assert_eq!(control.reply().code, 226);
    }
    assert_eq!(fs::read(server.path("f")).expect("there"), b"199");
    // And it takes on the mode of the one before, as if it had been written into.
    let first = b"UPLOAD 1+;unix.mode=0600; g\r\n1".to_vec();
    control.send(&[first, immediate("g", b"2")].concat());
    assert_eq!((control.reply().code, control.reply().code), (226, 226));
    let mode =
        std::os::unix::fs::MetadataExt::mode(&fs::metadata(server.path("g")).expect("there"));
    assert_eq!(mode & 0o777, 0o600);
    control.quit();
}

/// Far more than may be under way, of one session and of all.
#[test]
fn more_uploads_at_once_than_are_committed_at_once() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    thread::scope(|scope| {
        for session in 0..8 {
            let server = &server;
            scope.spawn(move || {
                let mut control = Control::login(server.addr());
                let series: Vec<Vec<u8>> = (0..300)
                    .map(|n: u32| immediate(&format!("{session}-{n}"), &bytes(n.into(), 700)))
                    .collect();
                control.send(&series.concat());
                for _ in 0..300 {
                    assert_eq!(control.reply().code, 226);
                }
                control.quit();
            });
        }
    });
    assert_eq!(fs::read_dir(server.root()).expect("there").count(), 2400);
    assert_eq!(
        fs::read(server.path("7-299")).expect("there"),
        bytes(299, 700)
    );
    four_questions(&server, baseline);
}
