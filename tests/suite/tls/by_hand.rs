//! What clients send that are broken, rude or hostile, and the verbs that carry their data themselves.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::secure;
use crate::common::content::{MIB, SIZES, assert_file, assert_same, bytes};
use crate::common::control::Control;
use crate::common::secure::{Secure, begin_tls, finish, is_over};
use crate::common::server::four_questions;
use crate::common::{PATIENCE, wait_for};

#[test]
fn bodies_on_the_control_connection_are_inside_tls_too() {
    let (server, pair) = secure(&[]);
    let baseline = server.baseline();
    let mut session = Secure::login(server.addr(), pair.client());
    for size in SIZES {
        let content = bytes(size as u64, size);
        assert_eq!(session.upload("f", &content), 226);
        assert_file(&server.path("f"), &content);
        assert_same(&session.download("f"), &content, "DOWNLOAD");
    }
    // A series without waiting, with commands behind each body.
    let mut series = Vec::new();
    for i in 0..200_u64 {
        let content = bytes(i, 997);
        series.extend_from_slice(format!("UPLOAD 997+ s{i}\r\n").as_bytes());
        series.extend_from_slice(&content);
        series.extend_from_slice(b"NOOP\r\n");
    }
    session.send(&series);
    for i in 0..200_u64 {
        assert_eq!((session.reply().0, session.reply().0), (226, 200));
        assert_file(&server.path(&format!("s{i}")), &bytes(i, 997));
    }
    session.send(b"TREE\r\n");
    assert_eq!(session.reply().0, 250);
    assert_eq!(session.command("QUIT").0, 221);
    session.expect_end();
    drop(session);
    four_questions(&server, baseline);
}

#[test]
fn t01_what_is_injected_behind_auth_is_no_command() {
    let (server, _pair) = secure(&[]);
    let baseline = server.baseline();
    let mut session = Control::connect(server.addr());
    session.send(b"AUTH TLS\r\nUSER anonymous\r\nPASS b\r\n");
    assert_eq!(session.reply().code, 234);
    session.expect_eof();
    assert!(!server.log().contains("from 127.0.0.1:0"));
    four_questions(&server, baseline);
}

#[test]
fn t03_a_handshake_that_does_not_come_ends() {
    let (server, pair) = secure(&[]);
    let baseline = server.baseline();
    let begun = |bytes: &[u8]| {
        let mut session = Control::connect(server.addr());
        assert_eq!(session.command("AUTH TLS").code, 234);
        session.send(bytes);
        session
    };
    // Garbage and plain text are over at once; silence has ten seconds, and so has one byte.
    for garbage in [&b"NOOP\r\n"[..], &[0xff; 600], b"GET / HTTP/1.1\r\n\r\n"] {
        assert!(is_over(begun(garbage).stream()), "{garbage:?}");
    }
    let half_closed = begun(b"");
    half_closed.stream().shutdown(Shutdown::Write).unwrap();
    assert!(is_over(half_closed.stream()));
    let start = Instant::now();
    let silent = [begun(b""), begun(b"\x16")];
    let mut live = Secure::login(server.addr(), pair.client());
    for session in &silent {
        let socket = session.stream();
        socket.set_read_timeout(Some(2 * PATIENCE)).unwrap();
        assert!(is_over(socket));
    }
    assert!(
        start.elapsed() > Duration::from_secs(9),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(live.command("NOOP").0, 200, "others are not disturbed");
    drop((silent, half_closed, live));
    four_questions(&server, baseline);
}

#[test]
fn t06_only_ftp_is_spoken() {
    let (server, pair) = secure(&[]);
    for (offered, welcome) in [
        (&[][..], true),
        (&[&b"ftp"[..]], true),
        (&[&b"h2"[..], b"ftp"], true),
        (&[&b"h2"[..], b"http/1.1"], false),
    ] {
        let mut config = pair.client();
        config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        let mut clear = Control::connect(server.addr());
        assert_eq!(clear.command("AUTH TLS").code, 234);
        let socket = clear.stream().try_clone().unwrap();
        let result = begin_tls(&Arc::new(config), socket);
        match result {
            Ok(_) => assert!(welcome, "{offered:?}"),
            Err(error) => {
                assert!(!welcome, "{offered:?}: {error}");
                let alert = error.to_string();
                assert!(alert.contains("NoApplicationProtocol"), "{alert}");
            }
        }
    }
}

#[test]
fn t07_who_must_use_tls_is_not_listened_to_without() {
    let (server, pair) = secure(&["--tls", "required"]);
    let mut clear = Control::connect(server.addr());
    assert_eq!(clear.command("USER anonymous").code, 530);
    assert_eq!(clear.command("PASS secret").code, 530);
    assert!(!server.log().contains("login"), "{}", server.log());
    clear.quit();
    let mut session = Secure::login(server.addr(), pair.client());
    assert_eq!(session.stor("f", b"content"), 226);
    assert_eq!(session.command("PROT C").0, 200);
    drop(session.epsv());
    assert_eq!(session.command("LIST").0, 521);
}

#[test]
fn t08_an_upload_without_close_notify_is_cut_off() {
    let (server, pair) = secure(&[]);
    let baseline = server.baseline();
    let (old, new) = (bytes(1, 1000), bytes(2, MIB));
    let mut session = Secure::login(server.addr(), pair.client());
    assert_eq!(session.stor("f", &old), 226);
    let mut data = session.data("STOR f").unwrap();
    data.write_all(&new).unwrap();
    data.sock.shutdown(Shutdown::Write).unwrap();
    assert_eq!(session.reply().0, 426);
    assert_file(&server.path("f"), &old);
    drop(data);
    assert_eq!(session.stor("f", &new), 226);
    assert_file(&server.path("f"), &new);
    drop(session);
    four_questions(&server, baseline);
}

#[test]
fn a_data_connection_that_does_not_begin_tls_is_522() {
    let (server, pair) = secure(&[]);
    let baseline = server.baseline();
    let mut session = Secure::login(server.addr(), pair.client());
    for line in ["STOR f", "LIST"] {
        let mut plain = session.epsv();
        assert_eq!(session.command(line).0, 150);
        plain
            .write_all(b"plain text, and not a little of it")
            .unwrap();
        assert_eq!(session.reply().0, 522, "{line}");
        assert!(is_over(&plain));
    }
    // Before the verb: the hello is answered early, and what is none fails early.
    let mut plain = session.epsv();
    plain.write_all(b"plain text").unwrap();
    assert!(is_over(&plain) || session.command("NOOP").0 == 200);
    assert_eq!(session.command("STOR f").0, 150);
    assert_eq!(session.reply().0, 522);
    assert!(!server.path("f").exists());
    assert_eq!(session.stor("f", b"content"), 226);
    drop(session);
    four_questions(&server, baseline);
}

#[test]
fn a_hello_is_answered_before_the_transfer() {
    let (server, pair) = secure(&[]);
    let mut session = Secure::login(server.addr(), pair.client());
    assert_eq!(session.stor("f", b"content"), 226);
    let config = Arc::new(pair.client());
    for line in ["RETR f", "STOR g"] {
        let socket = session.epsv();
        let mut data = begin_tls(&config, socket).expect("an answer to the hello");
        assert_eq!(session.command(line).0, 150);
        if line == "RETR f" {
            let mut got = Vec::new();
            data.read_to_end(&mut got).unwrap();
            assert_eq!(got, b"content");
        } else {
            data.write_all(b"new").unwrap();
            finish(data);
        }
        assert_eq!(session.reply().0, 226);
    }
    assert_file(&server.path("g"), b"new");
    // Who begins TLS and then says that there is none gets neither.
    let socket = session.epsv();
    let _data = begin_tls(&config, socket).unwrap();
    assert_eq!(session.command("PROT C").0, 200);
    assert_eq!(session.command("RETR f").0, 150);
    assert_eq!(session.reply().0, 426);
}

#[test]
fn t14_bytes_one_by_one_are_the_same_bytes() {
    let (server, pair) = secure(&[]);
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (near, far) = (proxy.local_addr().unwrap(), server.addr());
    std::thread::spawn(move || {
        let (client, _) = proxy.accept().unwrap();
        let server = std::net::TcpStream::connect(far).unwrap();
        server.set_nodelay(true).unwrap();
        client.set_nodelay(true).unwrap();
        let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
        std::thread::spawn(move || one_by_one(back.0, back.1));
        one_by_one(client, server);
    });
    let mut session = Secure::login(near, pair.client());
    let content = bytes(9, 20_000);
    assert_eq!(session.upload("f", &content), 226);
    assert_file(&server.path("f"), &content);
    assert_same(&session.download("f"), &content, "DOWNLOAD");
    assert_eq!(session.command("QUIT").0, 221);
    session.expect_end();
}

fn one_by_one(mut from: std::net::TcpStream, mut to: std::net::TcpStream) {
    let mut chunk = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut chunk) {
        for byte in &chunk[..n] {
            if to.write_all(std::slice::from_ref(byte)).is_err() {
                return;
            }
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[test]
fn an_idle_session_holds_little() {
    let (server, pair) = secure(&[]);
    let config = pair.client();
    drop(Secure::login(server.addr(), config.clone()));
    let before = server.rss_kib();
    let sessions: Vec<_> = (0..400)
        .map(|_| Secure::login(server.addr(), config.clone()))
        .collect();
    let grown = wait_for(PATIENCE, || Some(server.rss_kib() - before)).unwrap();
    let each = grown as f64 / sessions.len() as f64;
    eprintln!("{each:.1} KiB for each of {} idle sessions", sessions.len());
    assert!(each < 20.0, "{each:.1} KiB for each idle session");
}
