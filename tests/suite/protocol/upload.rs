//! UPLOAD: where its body ends, no matter what.

use std::fs;
use std::io;
use std::net::Shutdown;

use super::codes_of;
use crate::common::content::{MIB, assert_file, bytes};
use crate::common::control::Control;
use crate::common::server::{Server, four_questions};

/// 30 bytes that would do harm as commands.
const BODY: &str = "DELE victim\r\nDELE victim\r\nNOOP";

/// A server with a file that must survive.
fn server_with_victim(options: &[&str]) -> (Server, usize) {
    let server = Server::start(options);
    let baseline = server.baseline();
    fs::write(server.path("victim"), "alive").expect("writing");
    (server, baseline)
}

#[track_caller]
fn unharmed(server: &Server, baseline: usize) {
    assert_file(&server.path("victim"), b"alive");
    four_questions(server, baseline);
}

#[test]
fn p07_no_byte_of_a_refused_immediate_body_is_a_command() {
    let (server, baseline) = server_with_victim(&[]);
    assert_eq!(BODY.len(), 30);
    fs::create_dir(server.path("directory")).expect("making a directory");
    let mut session = Control::login(server.addr());
    for (line, code) in [
        ("UPLOAD 30+ /forbidden/x", 550),
        ("UPLOAD 30+ ", 501),
        ("UPLOAD 30+", 501),
        ("UPLOAD 30+ /", 553),
        ("UPLOAD 30+ victim/x", 550),
        ("UPLOAD 30+ directory", 550),
        ("UPLOAD 30+ .haul-x", 553),
        ("UPLOAD 30+ a\x1bb", 553),
        ("UPLOAD 30+ a\0b", 501),
        ("UPLOAD 30+\0 a", 501),
        ("UPLOAD 30+;colour=red; x", 501),
        ("UPLOAD 30+;modify=yesterday; x", 501),
        ("UPLOAD 30+;sha256=00; x", 501),
        (&format!("upload 30+ {}", "x".repeat(300)), 553),
    ] {
        if line.contains("+\0") {
            // A first word that is not a number and a plus: the position is lost.
            let mut session = Control::login(server.addr());
            session.send(format!("{line}\r\n{BODY}PWD\r\n").as_bytes());
            assert_eq!(session.reply().code, code, "{line:?}");
            session.expect_eof();
            continue;
        }
        session.send(format!("{line}\r\n{BODY}PWD\r\n").as_bytes());
        let reply = session.reply();
        assert_eq!(reply.code, code, "{line:?}: {reply:?}");
        assert_eq!(session.reply().code, 257, "{line:?}: the next command");
    }
    // The same, byte by byte and in two pieces.
    let whole = format!("UPLOAD 30+ /forbidden/x\r\n{BODY}PWD\r\n");
    for byte in whole.as_bytes() {
        session.send(&[*byte]);
    }
    assert_eq!(session.reply().code, 550);
    assert_eq!(session.reply().code, 257);
    session.quit();
    unharmed(&server, baseline);
}

#[test]
fn p07_a_reader_s_bodies_are_no_commands_either() {
    let server = Server::start(&["--anonymous", "read"]);
    let baseline = server.descriptors();
    fs::write(server.path("victim"), "alive").expect("writing");
    let mut session = Control::login(server.addr());
    session.send(format!("UPLOAD 30+ x\r\n{BODY}PWD\r\n").as_bytes());
    assert_eq!(session.reply().code, 550);
    assert_eq!(session.reply().code, 257);
    session.send(format!("UPLOAD 30 x\r\n{BODY}\r\nPWD\r\n").as_bytes());
    assert_eq!(session.reply().code, 550);
    session.expect_eof();
    unharmed(&server, baseline);
}

#[test]
fn p07_the_largest_refused_immediate_body_is_discarded() {
    let (server, baseline) = server_with_victim(&[]);
    let mut session = Control::login(server.addr());
    let body = "DELE victim\r\n".repeat(MIB / 13 + 1);
    session.send(format!("UPLOAD {MIB}+ /forbidden/x\r\n").as_bytes());
    session.send(&body.as_bytes()[..MIB]);
    session.send(b"PWD\r\n");
    assert_eq!(session.reply().code, 550);
    assert_eq!(session.reply().code, 257);
    session.quit();
    unharmed(&server, baseline);
}

#[test]
fn p07_what_came_behind_a_refused_waiting_upload_is_no_command() {
    let (server, baseline) = server_with_victim(&[]);
    for line in [
        "UPLOAD 30 /forbidden/x",
        "UPLOAD 30 ",
        "UPLOAD 30",
        "UPLOAD 30;colour=red; x",
        "UPLOAD x y",
    ] {
        let mut session = Control::login(server.addr());
        session.send(format!("{line}\r\n{BODY}\r\nPWD\r\n").as_bytes());
        let reply = session.reply();
        assert!([550, 501].contains(&reply.code), "{line}: {reply:?}");
        session.expect_eof();
    }
    unharmed(&server, baseline);
}

#[test]
fn p07_what_came_behind_a_refused_waiting_upload_while_a_download_ran_is_no_command() {
    let (server, baseline) = server_with_victim(&[]);
    fs::File::create(server.path("large"))
        .and_then(|file| file.set_len(32 << 20))
        .expect("making a file");
    let mut session = Control::login(server.addr());
    session.send(b"DOWNLOAD large\r\nUPLOAD 30 /forbidden/x\r\n");
    assert_eq!(session.reply().code, 150);
    // The line has been read by now, and this has arrived long before the line's turn comes.
    session.send(BODY.as_bytes());
    session.send(b"\r\n");
    session.read_exact(32 << 20);
    assert_eq!(session.reply().code, 226);
    assert_eq!(session.reply().code, 550);
    session.expect_eof();
    unharmed(&server, baseline);
}

#[test]
fn p07_before_login_an_upload_is_the_end() {
    let (server, baseline) = server_with_victim(&[]);
    for line in ["UPLOAD 30+ x", "UPLOAD 30 x", "UPLOAD 30+ /forbidden/x"] {
        let mut session = Control::connect(server.addr());
        session.send(format!("{line}\r\n{BODY}\r\nNOOP\r\n").as_bytes());
        assert_eq!(session.reply().code, 530, "{line}");
        session.expect_eof();
    }
    unharmed(&server, baseline);
}

#[test]
fn p08_the_first_byte_behind_a_body_begins_a_command() {
    let (server, baseline) = server_with_victim(&[]);
    for n in [0usize, 1, 1000, 65_536, 200_000] {
        let content = bytes(n as u64, n);
        let mut session = Control::login(server.addr());
        assert_eq!(session.command(&format!("UPLOAD {n} waiting")).code, 150);
        session.send(&[&content[..], b"NOOP\r\nPWD\r\nNOOP\r\n"].concat());
        let replies = super::codes(&mut session, 4);
        assert_eq!(replies, [226, 200, 257, 200], "{n} bytes");
        assert_file(&server.path("waiting"), &content);

        let line = format!("UPLOAD {n}+ immediate\r\n");
        session.send(&[line.as_bytes(), &content, b"NOOP\r\nPWD\r\nNOOP\r\n"].concat());
        let replies = super::codes(&mut session, 4);
        assert_eq!(replies, [226, 200, 257, 200], "{n} bytes");
        assert_file(&server.path("immediate"), &content);
        session.quit();
    }
    four_questions(&server, baseline);
}

#[test]
fn p09_an_upload_that_is_closed_half_way_publishes_nothing() {
    let (server, baseline) = server_with_victim(&[]);
    for line in ["UPLOAD 1000 victim", "UPLOAD 1000 new", "UPLOAD 1000+ new"] {
        let mut session = Control::login(server.addr());
        session.send(format!("{line}\r\n").as_bytes());
        if !line.contains('+') {
            assert_eq!(session.reply().code, 150);
        }
        session.send(&[b'x'; 400]);
        drop(session);
    }
    four_questions(&server, baseline);
    assert_file(&server.path("victim"), b"alive");
    assert!(!server.path("new").exists());
}

#[test]
fn p09_the_end_that_came_before_the_body_was_asked_for_is_seen() {
    let (server, baseline) = server_with_victim(&[]);
    fs::File::create(server.path("large"))
        .and_then(|file| file.set_len(32 << 20))
        .expect("making a file");
    for line in [
        "UPLOAD 1000 new",
        "UPLOAD 1000+ new",
        "UPLOAD 1000+ /forbidden/x",
    ] {
        let mut session = Control::login(server.addr());
        let mut data = session.epsv();
        assert_eq!(session.command("RETR large").code, 150);
        // All of this, and the end, is read while the download goes on.
        session.send(format!("{line}\r\n").as_bytes());
        session.send(&[b'x'; 400]);
        session.stream().shutdown(Shutdown::Write).expect("ending");
        io::copy(&mut data, &mut io::sink()).expect("reading");
        assert_eq!(session.reply().code, 226);
        if !line.contains('+') {
            assert_eq!(session.reply().code, 150);
        }
        session.expect_eof();
    }
    four_questions(&server, baseline);
    assert!(!server.path("new").exists());
}

#[test]
fn p10_an_upload_that_stalls_is_ended_and_publishes_nothing() {
    let (server, baseline) = server_with_victim(&["--stall-timeout", "2"]);
    let mut waiting = Control::login(server.addr());
    assert_eq!(waiting.command("UPLOAD 1000 victim").code, 150);
    waiting.send(&[b'x'; 400]);
    let mut immediate = Control::login(server.addr());
    immediate.send(b"UPLOAD 1000+ new\r\n");
    immediate.send(&[b'x'; 400]);
    let mut refused = Control::login(server.addr());
    refused.send(b"UPLOAD 1000+ /forbidden/x\r\n");
    refused.send(&[b'x'; 400]);
    for mut session in [waiting, immediate, refused] {
        let reply = session.reply();
        assert!([421, 426].contains(&reply.code), "{reply:?}");
        session.expect_eof();
    }
    four_questions(&server, baseline);
    assert_file(&server.path("victim"), b"alive");
    assert!(!server.path("new").exists());
}

#[test]
fn p11_numbers_that_are_none_cost_nothing() {
    let (server, baseline) = server_with_victim(&[]);
    let before_kib = server.rss_kib();
    let zeros = "0".repeat(400);
    for number in [
        "-1",
        "0x10",
        "1e3",
        "1.0",
        "9223372036854775808",
        "18446744073709551616",
        "123456789012345678901234567890",
        "",
        &zeros,
        "\u{663}",
    ] {
        let mut session = Control::login(server.addr());
        let lines = [&*format!("UPLOAD {number} x")];
        assert_eq!(codes_of(&mut session, &lines), [501], "{number:?}");
        session.quit();
    }
    for word in [
        "+5",
        "x+",
        "+",
        "5++",
        "5+5",
        "-1+",
        "2097152+",
        "1048577+",
        "99999999999999999999+",
        &format!("{zeros}+"),
    ] {
        let mut session = Control::login(server.addr());
        session.send(format!("UPLOAD {word} x\r\n{BODY}\r\nNOOP\r\n").as_bytes());
        assert_eq!(session.reply().code, 501, "{word:?}");
        session.expect_eof();
    }
    let grown_kib = server.rss_kib().saturating_sub(before_kib);
    assert!(grown_kib < 2 << 10, "it cost {grown_kib} KiB");
    four_questions(&server, baseline);
    assert_file(&server.path("victim"), b"alive");
    assert!(!server.path("x").exists());
}

#[test]
fn p11_a_size_that_fits_on_no_disk_is_refused_before_the_first_byte() {
    let (server, baseline) = server_with_victim(&[]);
    let mut session = Control::login(server.addr());
    let reply = session.command("UPLOAD 9223372036854775807 x");
    assert_eq!(reply.code, 452, "{reply:?}");
    session.quit();
    four_questions(&server, baseline);
}

/// What a command does to a directory holds for those behind it, also where one segment brings them all.
#[test]
fn uploads_of_one_segment_see_what_was_done_to_their_directory_between_them() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let mut session = Control::login(server.addr());
    session.send(
        b"MKD d\r\nUPLOAD 1+ d/1\r\n1UPLOAD 1+ d/2\r\n2RNFR d\r\nRNTO e\r\nUPLOAD 1+ d/3\r\n3UPLOAD 1+ e/4\r\n4\
          DELE e/1\r\nDELE e/2\r\nDELE e/4\r\nRMD e\r\nUPLOAD 1+ e/5\r\n5NOOP\r\n",
    );
    let codes: Vec<u16> = (0..13).map(|_| session.reply().code).collect();
    assert_eq!(
        codes,
        [
            257, 226, 226, 350, 250, 550, 226, 250, 250, 250, 250, 550, 200
        ]
    );
    session.quit();
    four_questions(&server, baseline);
}
