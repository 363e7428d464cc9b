//! Data connections inside TLS: with the same server (L05), resumed, and whole (L11).

use std::fs;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use rustls::{HandshakeKind, ServerConfig};

use super::{Authority, Identity, TRUST, login};
use crate::client::*;
use crate::talk::*;

/// Everything up to the 150 for `command`; what a data connection needs goes before it.
fn until_150(talk: &mut Talk, server: &Arc<ServerConfig>, command: &str) -> std::net::TcpStream {
    login(talk, server, &[]);
    first_150(talk, command)
}

fn first_150(talk: &mut Talk, command: &str) -> std::net::TcpStream {
    if command != "LIST" {
        talk.answer("TYPE I", "200 binary");
    }
    talk.answer("PBSZ 0", "200 fine");
    talk.answer("PROT P", "200 fine");
    next_150(talk, command)
}

fn next_150(talk: &mut Talk, command: &str) -> std::net::TcpStream {
    let data = accept(&talk.epsv());
    talk.answer(command, "150 here");
    data
}

#[test]
fn l05_a_data_connection_with_another_certificate_moves_nothing() {
    let dir = dir();
    let authority = Authority::new();
    let file = authority.write(dir.path());
    fs::write(dir.path().join("secret"), "secret").unwrap();
    for (other, pinned) in [
        (authority.good(), false),
        (authority.good(), true),
        (Identity::self_signed(), false),
        (Identity::self_signed(), true),
    ] {
        for upload in [false, true] {
            let (control, data) = (authority.good(), other.server());
            let (pin, control) = (control.fingerprint(), control.server());
            let words = match pinned {
                true => ["--fingerprint", &pin],
                false => ["--ca-file", &file],
            };
            // Of more than a message, and without a length, it goes by STOR.
            let (verb, command) = match upload {
                true => ("STOR secret", ["upload", "secret"]),
                false => ("RETR file", ["download", "file"]),
            };
            let (outcome, _) = play(dir.path(), &[words, command].concat(), move |talk| {
                let socket = until_150(talk, &control, verb);
                let mut got = Vec::new();
                if let Ok(mut data) = protect(socket, &data) {
                    let _ = data.write_all(b"poison");
                    let _ = data.read_to_end(&mut got);
                }
                assert!(got.is_empty(), "{got:?}");
                talk.say("226 done");
                talk.rest();
            });
            outcome.check(TRUST, "another certificate than the control connection");
            assert!(!dir.path().join("file").exists());
        }
    }
}

#[test]
fn a_data_connection_in_clear_moves_nothing() {
    let dir = dir();
    let identity = Identity::self_signed();
    let (pin, server) = (identity.fingerprint(), identity.server());
    let words = ["--fingerprint", &pin, "download", "file"];
    let (outcome, _) = play(dir.path(), &words, move |talk| {
        let mut data = until_150(talk, &server, "RETR file");
        let _ = data.write_all(b"content in clear");
        drop(data);
        talk.say("226 done");
        talk.rest();
    });
    outcome.check(TRUST, "not inside TLS");
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_server_that_protects_no_data_is_refused() {
    let dir = dir();
    let identity = Identity::self_signed();
    let (pin, server) = (identity.fingerprint(), identity.server());
    let words = ["--fingerprint", &pin, "download", "file"];
    let (outcome, heard) = play(dir.path(), &words, move |talk| {
        login(talk, &server, &[]);
        talk.answer("TYPE I", "200 binary");
        talk.answer("PBSZ 0", "200 fine");
        talk.answer("PROT P", "536 not here");
        talk.rest();
    });
    outcome.check(
        TRUST,
        "does not protect data connections (it says: 536 not here)",
    );
    assert_eq!(heard.last().map(String::as_str), Some("QUIT"));
}

#[test]
fn l11_without_close_notify_a_download_is_not_whole() {
    for (verb, command) in [("RETR file", &["download", "file"][..]), ("LIST", &["ls"])] {
        for tls13 in [true, false] {
            for says_goodbye in [true, false] {
                let dir = dir();
                let identity = Identity::self_signed();
                let (pin, server) = (identity.fingerprint(), identity.server_with(tls13));
                let words = [&["--fingerprint", &pin], command].concat();
                let (outcome, _) = play(dir.path(), &words, move |talk| {
                    let mut data = protect(until_150(talk, &server, verb), &server).unwrap();
                    data.write_all(b"content").unwrap();
                    if says_goodbye {
                        data.conn.send_close_notify();
                        data.flush().unwrap();
                    }
                    drop(data);
                    talk.say("226 done");
                    talk.rest();
                });
                match says_goodbye {
                    true => outcome.check(0, ""),
                    false => outcome.check(8, "without close_notify"),
                }
                let whole = says_goodbye && verb != "LIST";
                assert_eq!(!names(dir.path()).is_empty(), whole);
            }
        }
    }
}

/// The server sends tickets on each connection, also on those on which the client never reads.
#[test]
fn uploads_say_where_they_end_and_resume_the_session() {
    for tls13 in [true, false] {
        let dir = dir();
        let identity = Identity::self_signed();
        let (pin, server) = (identity.fingerprint(), identity.server_with(tls13));
        let files: Vec<String> = (0..10).map(|n| format!("f{n}")).collect();
        for (n, file) in files.iter().enumerate() {
            fs::write(dir.path().join(file), content(n * 50_000)).unwrap();
        }
        let mut words = vec!["--fingerprint", &pin, "upload", "-t", "d"];
        words.extend(files.iter().map(String::as_str));
        let count = files.len();
        let (outcome, _) = play(dir.path(), &words, move |talk| {
            for n in 0..count {
                let verb = format!("STOR d/f{n}");
                let socket = match n {
                    0 => {
                        login(talk, &server, &[]);
                        talk.lets_into("d");
                        first_150(talk, &verb)
                    }
                    _ => next_150(talk, &verb),
                };
                let mut data = protect(socket, &server).unwrap();
                let mut got = Vec::new();
                // An end without close_notify would be an error.
                data.read_to_end(&mut got).unwrap();
                assert_eq!(got, content(n * 50_000));
                let kind = data.conn.handshake_kind();
                assert_eq!(kind, Some(HandshakeKind::Resumed), "{n} {tls13}");
                drop(data);
                talk.say("226 done");
            }
            talk.answer("QUIT", "221 bye");
        });
        outcome.check(0, "");
    }
}

#[test]
fn the_server_says_why_it_wants_no_tls_on_a_data_connection() {
    let identity = Identity::self_signed();
    let (pin, server) = (identity.fingerprint(), identity.server());
    let words = ["--fingerprint", &pin, "download", "file"];
    let (outcome, _) = play(dir().path(), &words, move |talk| {
        drop(until_150(talk, &server, "RETR file"));
        talk.say("522 this must be the session of the control connection");
        talk.rest();
    });
    outcome.check(6, "522 this must be the session");
}

#[test]
fn l14_a_silent_handshake_on_a_data_connection_has_an_end() {
    let identity = Identity::self_signed();
    let (pin, server) = (identity.fingerprint(), identity.server());
    let words = ["--timeout", "1", "--fingerprint", &pin, "download", "file"];
    let (outcome, _) = play(dir().path(), &words, move |talk| {
        let _data = until_150(talk, &server, "RETR file");
        talk.rest();
    });
    outcome.check(8, "did not begin TLS for 1 s (--timeout)");
    assert!(outcome.took < Duration::from_secs(10), "{:?}", outcome.took);
}

#[test]
fn l12_an_early_refusal_inside_tls_stops_the_sending() {
    let dir = dir();
    fs::write(dir.path().join("big"), content(8 << 20)).unwrap();
    let identity = Identity::self_signed();
    let (pin, server) = (identity.fingerprint(), identity.server());
    let words = ["--fingerprint", &pin, "upload", "big"];
    let (outcome, _) = play(dir.path(), &words, move |talk| {
        login(talk, &server, &["UPLOAD"]);
        talk.answer("UPLOAD ", "150 send");
        talk.body(100_000);
        talk.say("452 no space");
        talk.rest();
    });
    outcome.check(10, "452 no space");
}
