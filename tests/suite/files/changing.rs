//! F20: files that somebody else changes while they are sent.

use std::fs::{self, File};
use std::io::Read;

use crate::common::bytewise::{End, rest_of};
use crate::common::content::{MIB, assert_same, bytes};
use crate::common::control::Control;
use crate::common::server::{Server, four_questions};

/// More than the sockets hold: the server has to wait for the client.
const LARGE: usize = 32 * MIB;

struct Sending {
    server: Server,
    baseline: usize,
    content: Vec<u8>,
    session: Control,
}

fn sending() -> Sending {
    let server = Server::start(&[]);
    let content = bytes(20, LARGE);
    fs::write(server.path("f"), &content).expect("writing");
    let baseline = server.baseline();
    let session = Control::login(server.addr());
    Sending {
        server,
        baseline,
        content,
        session,
    }
}

/// What a file system keeps of a year that it does not know is its affair; what is told is what it
/// kept.
#[test]
fn the_time_that_is_told_when_it_is_set_is_the_one_that_the_file_has() {
    let server = Server::start(&[]);
    fs::write(server.path("f"), "x").expect("writing");
    let mut session = Control::login(server.addr());
    for time in ["00010101000000", "19010101000000", "99991231235959"] {
        let set = session.command(&format!("MFMT {time} f"));
        let now = session.command("MDTM f");
        assert_eq!((set.code, now.code), (213, 213));
        assert_eq!(set.text, format!("Modify={}; f", now.text), "{time}");
    }
}

fn replaced(server: &Server) {
    fs::write(server.path("new"), b"another file").expect("writing");
    fs::rename(server.path("new"), server.path("f")).expect("renaming");
}

#[test]
fn f20_a_file_that_is_replaced_or_deleted_is_sent_as_it_was_opened() {
    type Change = fn(&Server);
    let changes: [Change; 2] = [replaced, |server| {
        fs::remove_file(server.path("f")).expect("removing");
    }];
    for change in changes {
        for verb in ["RETR", "DOWNLOAD"] {
            let Sending {
                server,
                baseline,
                content,
                mut session,
            } = sending();
            if verb == "RETR" {
                let mut data = session.epsv();
                assert_eq!(session.command("RETR f").code, 150);
                let mut received = vec![0; 1000];
                data.read_exact(&mut received).expect("the beginning");
                change(&server);
                received.extend(rest_of(&data).0);
                assert_same(&received, &content, "RETR");
            } else {
                assert_eq!(session.command("DOWNLOAD f").code, 150);
                let mut received = session.read_exact(1000);
                change(&server);
                received.extend(session.read_exact(LARGE - 1000));
                assert_same(&received, &content, "DOWNLOAD");
            }
            assert_eq!(session.reply().code, 226);
            session.quit();
            four_questions(&server, baseline);
        }
    }
}

#[test]
fn f20_a_file_that_becomes_shorter_is_no_complete_one() {
    let Sending {
        server,
        baseline,
        content,
        mut session,
    } = sending();
    let mut data = session.epsv();
    assert_eq!(session.command("RETR f").code, 150);
    let mut received = vec![0; 1000];
    data.read_exact(&mut received).expect("the beginning");
    let file = File::options()
        .write(true)
        .open(server.path("f"))
        .expect("there");
    file.set_len(LARGE as u64 - 1).expect("truncating");
    received.extend(rest_of(&data).0);
    let end = session.reply();
    assert!(end.code == 451 || end.code == 426, "{end:?}");
    assert_same(&received, &content[..LARGE - 1], "what there was");
    assert_eq!(session.command("NOOP").code, 200);

    // In band the announced number cannot be kept: nothing but closing is left, and no padding.
    file.set_len(LARGE as u64).expect("extending");
    let first = session.command("DOWNLOAD f");
    assert_eq!(first.code, 150);
    let mut received = session.read_exact(1000);
    file.set_len(LARGE as u64 / 2).expect("truncating");
    received.extend(session.take_held());
    received.extend(rest_of(session.stream()).0);
    assert!(received.len() < LARGE, "{} bytes", received.len());
    assert_same(
        &received,
        &content[..received.len()],
        "nothing but the file",
    );
    four_questions(&server, baseline);
}

/// What is announced is sent, also when there is more by then.
#[test]
fn f20_a_file_that_grows_is_sent_as_announced() {
    let Sending {
        server,
        baseline,
        content,
        mut session,
    } = sending();
    assert_eq!(session.command("DOWNLOAD f").code, 150);
    let mut received = session.read_exact(1000);
    let file = File::options()
        .write(true)
        .open(server.path("f"))
        .expect("there");
    file.set_len(2 * LARGE as u64).expect("extending");
    received.extend(session.read_exact(LARGE - 1000));
    assert_same(&received, &content, "DOWNLOAD");
    assert_eq!(session.reply().code, 226);
    session.quit();
    four_questions(&server, baseline);
}

/// Small files leave together with their replies; between two of them nothing may slip.
#[test]
fn f20_small_files_that_change_all_the_time_keep_their_announcements() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    fs::write(server.path("f"), b"").expect("writing");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = File::options()
                .write(true)
                .open(server.path("f"))
                .expect("there");
            let mut length = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                length = (length + 7919) % 60_000;
                file.set_len(length).expect("changing the length");
            }
        });
        let (mut whole, mut cut) = (0, 0);
        for _ in 0..40 {
            let mut session = Control::login(server.addr());
            session.send(&b"DOWNLOAD f\r\n".repeat(50));
            session.send(b"QUIT\r\n");
            let mut received = session.take_held();
            let (more, end) = rest_of(session.stream());
            assert_eq!(end, End::Ordered);
            received.extend(more);
            // Whatever was announced came, or the connection ended there.
            let mut rest = received.as_slice();
            while let Some(text) = rest.strip_prefix(b"150 ") {
                let space = text.iter().position(|&b| b == b' ').expect("a number");
                let n: usize = std::str::from_utf8(&text[..space])
                    .unwrap()
                    .parse()
                    .unwrap();
                let line_end = text.iter().position(|&b| b == b'\n').expect("a line");
                let body = &text[line_end + 1..];
                let Some(after) = body.get(n..) else {
                    rest = &[];
                    break;
                };
                assert!(body[..n].iter().all(|&b| b == 0), "only what the file has");
                if after.is_empty() {
                    rest = after;
                    break;
                }
                let told = format!("226 {n} bytes sent.\r\n");
                rest = after
                    .strip_prefix(told.as_bytes())
                    .expect("226 behind the body");
                whole += 1;
            }
            match rest {
                b"" => cut += 1,
                rest => assert!(rest.starts_with(b"221 "), "{}", rest.escape_ascii()),
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        println!("{whole} whole, {cut} connections ended");
    });
    four_questions(&server, baseline);
}
