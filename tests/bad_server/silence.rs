//! Servers that fall silent (L14).

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::OWN_VERBS;
use crate::client::*;
use crate::talk::*;

#[test]
fn l14_silence_in_each_state_has_an_end() {
    type Script = fn(&mut Talk);
    let cases: &[(&str, i32, Script)] = &[
        ("greeting", 3, |_| {}),
        ("user", 8, |talk| talk.say("220 ready")),
        ("type", 8, |talk| talk.login(&[])),
        ("epsv", 8, |talk| {
            talk.login(&[]);
            talk.answer("TYPE I", "200 binary");
        }),
        ("download", 8, |talk| {
            talk.login(OWN_VERBS);
            talk.answer("DOWNLOAD file", "150 10 bytes follow.");
            talk.say_bytes(b"12345");
        }),
        ("last word", 8, |talk| {
            drop(talk.retr(&[], None));
            talk.say("150 here");
        }),
    ];
    for (state, code, script) in cases {
        let dir = dir();
        let script = *script;
        let (outcome, _) = play(
            dir.path(),
            &["--timeout", "1", "download", "file"],
            move |talk| {
                script(talk);
                talk.rest();
            },
        );
        outcome.check(*code, "for 1 s (--timeout)");
        assert!(
            outcome.took < Duration::from_secs(10),
            "{state}: {:?}",
            outcome.took
        );
        assert!(names(dir.path()).is_empty(), "{state}");
    }
}

#[test]
fn l14_a_silent_data_connection_has_an_end() {
    let dir = dir();
    let (outcome, _) = play(
        dir.path(),
        &["--timeout", "1", "download", "file"],
        |talk| {
            let mut data = talk.retr(&["SIZE"], Some("10"));
            talk.say("150 here");
            data.write_all(b"12345").unwrap();
            talk.rest();
        },
    );
    outcome.check(8, "sent nothing for 1 s");
    assert!(names(dir.path()).is_empty());
}

/// Where nothing is ever answered: the queue of a listener that nobody empties.
fn silent() -> (TcpListener, Vec<TcpStream>) {
    let listener = listener();
    let address = listener.local_addr().unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        queued.push(stream);
    }
    (listener, queued)
}

#[test]
fn l14_a_connect_that_is_not_answered_has_an_end() {
    let (listener, _queued) = silent();
    let address = listener.local_addr().unwrap();
    let outcome = haul(address, dir().path(), &["--timeout", "1", "ls"]);
    outcome.check(3, "1 s");
    assert!(outcome.took < Duration::from_secs(10), "{:?}", outcome.took);
}

#[test]
fn l14_a_data_connection_that_is_not_answered_has_an_end() {
    let dir = dir();
    let arguments = ["--timeout", "1", "download", "file"];
    let (outcome, _) = play(dir.path(), &arguments, |talk| {
        let (listener, _queued) = silent();
        let port = listener.local_addr().unwrap().port();
        talk.login(&[]);
        talk.answer("TYPE I", "200 binary");
        talk.answer("EPSV", &format!("229 Extended (|||{port}|)"));
        talk.rest();
    });
    outcome.check(8, "no data connection to port");
    assert!(outcome.took < Duration::from_secs(10), "{:?}", outcome.took);
    assert!(names(dir.path()).is_empty());
}

#[test]
fn l14_an_upload_that_is_not_taken_has_an_end() {
    type Script = fn(&mut Talk);
    let cases: &[(&str, Script)] = &[
        ("did not answer", |_| {}),
        ("took no more data", |talk| talk.say("150 send")),
    ];
    for (says, script) in cases {
        let (dir, script) = (dir(), *script);
        let file = std::fs::File::create(dir.path().join("big")).unwrap();
        file.set_len(64 << 20).unwrap();
        let listener = listener();
        let address = listener.local_addr().unwrap();
        let (over, is_over) = std::sync::mpsc::channel::<()>();
        let server = std::thread::spawn(move || {
            let mut talk = Talk::new(accept(&listener));
            talk.login(OWN_VERBS);
            talk.expect("UPLOAD 67108864;");
            script(&mut talk);
            // Nobody reads until the client has gone.
            let _ = is_over.recv();
        });
        let outcome = haul(address, dir.path(), &["--timeout", "1", "upload", "big"]);
        outcome.check(8, says);
        assert!(outcome.took < Duration::from_secs(10), "{says}");
        drop(over);
        server.join().unwrap();
    }
}
