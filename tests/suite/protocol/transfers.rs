//! What may come while a data connection is in use.

use std::fs;
use std::io::{Read, Write};

use super::{codes, port_of};
use crate::common::content::{MIB, assert_file, assert_same, bytes};
use crate::common::control::Control;
use crate::common::server::{Server, four_questions};

/// Lines that wait for the end of a transfer, and what they are answered with then.
const QUEUED: [(&str, &[u16]); 5] = [
    ("USER other\r\n", &[331]),
    ("REIN\r\n", &[220]),
    ("QUIT\r\n", &[221]),
    ("RETR f\r\n", &[425]),
    ("PWD\r\nEPSV\r\nNOPE\r\n", &[257, 229, 500]),
];

/// The end of the transfer, and the answers to what waited for it.
#[track_caller]
fn expect_all(mut session: Control, lines: &str, expected: &[u16]) {
    assert_eq!(session.reply().code, 226, "{lines:?}");
    assert_eq!(codes(&mut session, expected.len()), expected, "{lines:?}");
    match expected {
        [221] => session.expect_eof(),
        _ => session.quit(),
    }
}

#[test]
fn p18_what_is_sent_during_a_download_waits_and_does_no_harm() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let content = bytes(18, 16 * MIB);
    fs::write(server.path("f"), &content).expect("writing");
    for (lines, expected) in QUEUED {
        let mut session = Control::login(server.addr());
        let mut data = session.epsv();
        assert_eq!(session.command("RETR f").code, 150);
        session.send(lines.as_bytes());
        // Answered at once, although other lines wait before them.
        assert_eq!(session.command("STAT").code, 211, "{lines:?}");
        assert_eq!(session.command("NOOP").code, 200, "{lines:?}");
        let mut got = Vec::new();
        data.read_to_end(&mut got).expect("reading");
        assert_same(&got, &content, lines);
        expect_all(session, lines, expected);
    }
    four_questions(&server, baseline);
}

#[test]
fn p18_what_is_sent_during_an_upload_waits_and_does_no_harm() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let content = bytes(19, MIB);
    for (lines, expected) in QUEUED {
        let mut session = Control::login(server.addr());
        let mut data = session.epsv();
        assert_eq!(session.command("STOR f").code, 150);
        data.write_all(&content[..MIB / 2]).expect("sending");
        session.send(lines.as_bytes());
        assert_eq!(session.command("STAT").code, 211, "{lines:?}");
        data.write_all(&content[MIB / 2..]).expect("sending");
        drop(data);
        expect_all(session, lines, expected);
        assert_file(&server.path("f"), &content);
    }
    four_questions(&server, baseline);
}

#[test]
fn p18_abor_cuts_and_drops_nothing_that_waits() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    fs::write(server.path("f"), bytes(20, 64 * MIB)).expect("writing");
    let mut session = Control::login(server.addr());
    for verb in ["RETR f", "STOR g"] {
        let mut data = session.epsv();
        assert_eq!(session.command(verb).code, 150);
        session.send(b"PWD\r\nNOPE\r\nABOR\r\nNOOP\r\n");
        assert_eq!(codes(&mut session, 5), [426, 226, 257, 500, 200], "{verb}");
        // Whatever is still on its way, it ends.
        let _ = data.read_to_end(&mut Vec::new());
    }
    assert!(!server.path("g").exists());
    session.quit();
    four_questions(&server, baseline);
}

/// Whoever aborts closes its data connection too, and that looks like the end of the file: the server
/// used to look at that first, and every fourth time the half of a file was published.
#[test]
fn p18_abor_comes_before_the_end_of_the_data_that_follows_it() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let mut session = Control::login(server.addr());
    for (round, lines) in ["ABOR\r\n", "PWD\r\nABOR\r\n"]
        .iter()
        .cycle()
        .take(200)
        .enumerate()
    {
        let mut data = session.epsv();
        assert_eq!(session.command("STOR f").code, 150);
        data.write_all(&bytes(22, 5000)).expect("sending");
        session.send(lines.as_bytes());
        drop(data);
        let expected: &[u16] = match lines.starts_with("PWD") {
            true => &[426, 226, 257],
            false => &[426, 226],
        };
        assert_eq!(codes(&mut session, expected.len()), expected, "{round}");
        assert!(!server.path("f").exists(), "{round}");
    }
    session.quit();
    four_questions(&server, baseline);
}

#[test]
fn p18_a_storm_of_abors_gets_one_reply_each() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    fs::write(server.path("f"), bytes(21, 16 * MIB)).expect("writing");
    let mut session = Control::login(server.addr());
    for round in 0..20 {
        let data = (round % 2 == 0).then(|| session.epsv());
        if data.is_none() {
            port_of(&mut session, "EPSV");
        }
        session.send(b"RETR f\r\n");
        session.send(b"ABOR\r\n".repeat(50).as_slice());
        // 150, the 426 of RETR, and one 226 for each ABOR.
        let replies = codes(&mut session, 52);
        assert_eq!(replies[..2], [150, 426], "{replies:?}");
        assert!(replies[2..].iter().all(|&code| code == 226), "{replies:?}");
        assert_eq!(session.command("PWD").code, 257);
    }
    session.quit();
    four_questions(&server, baseline);
}
