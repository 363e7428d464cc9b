//! Clients that vanish, and clients that send what TLS allows and nobody needs (T09, T10, T12).

use std::fs;
use std::io::{Read, Write};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::unbuffered::{ConnectionState, EncodeTlsData, UnbufferedStatus};
use rustls::{ClientConfig, ClientConnection};

use super::secure;
use crate::common::bytewise::{reset, rest_of};
use crate::common::content::{MIB, assert_file, bytes};
use crate::common::control::Control;
use crate::common::secure::{Secure, is_over};
use crate::common::server::{Server, four_questions};
use crate::common::tools::run;
use crate::common::{PATIENCE, heavy, until, wait_for};

/// Nothing is left to do for the server, and so it does nothing.
#[track_caller]
fn is_quiet(server: &Server) {
    let quiet = until(PATIENCE, || {
        server.cpu_in_a_second() < Duration::from_millis(100)
    });
    assert!(quiet, "it goes on working");
}

fn hello(config: &ClientConfig) -> Vec<u8> {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut connection = ClientConnection::new(Arc::new(config.clone()), name).expect("a client");
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).expect("a hello");
    bytes
}

fn behind_auth(server: &Server) -> Control {
    let mut session = Control::connect(server.addr());
    assert_eq!(session.command("AUTH TLS").code, 234);
    session
}

/// What the kernel does when a client is killed: FIN, or RST where something was unread.
#[test]
fn t09_clients_that_vanish_leave_nothing() {
    const PHASES: usize = 6;
    let (server, pair) = secure(&[]);
    let baseline = server.baseline();
    fs::write(server.path("big"), bytes(1, 8 * MIB)).expect("writing");
    for n in 0..100 {
        fs::write(server.path(&format!("{n:0200}")), "").expect("writing");
    }
    let memory_kib = server.rss_kib();
    for i in 0..2 * PHASES * 15 {
        let resets = (i / PHASES).is_multiple_of(2);
        if i % PHASES == 0 {
            let session = behind_auth(&server);
            let hello = hello(&pair.client());
            let mut socket = session.stream();
            socket
                .write_all(&hello[..hello.len() - i % 7])
                .expect("sending");
            if resets {
                reset(socket);
            }
            continue;
        }
        let mut session = Secure::login(server.addr(), pair.client());
        let mut data = None;
        match i % PHASES {
            1 => data = session.data("RETR big").ok(),
            2 => {
                let mut stream = session.data("STOR f").expect("TLS");
                stream.write_all(&[1; 100_000]).expect("sending");
                data = Some(stream);
            }
            3 => data = session.data("LIST").ok(),
            4 => session.send(b"DOWNLOAD big\r\n"),
            _ => {}
        }
        if resets {
            reset(&session.stream.sock);
            if let Some(data) = &data {
                reset(&data.sock);
            }
        }
    }
    assert!(!server.path("f").exists());
    four_questions(&server, baseline);
    is_quiet(&server);
    let grown = server.rss_kib().saturating_sub(memory_kib);
    assert!(grown < 4096, "{grown} KiB more");
}

#[test]
fn t09_curl_is_killed_in_the_middle() {
    let (server, pair) = secure(&["--session-rate", "256KiB"]);
    let baseline = server.baseline();
    let local = tempfile::tempdir().expect("making a directory");
    let file = local.path().join("f");
    fs::write(&file, bytes(2, MIB)).expect("writing");
    fs::copy(&file, server.path("g")).expect("copying");
    for upload in [true, false] {
        let port = server.addr().port();
        let mut command = Command::new("curl");
        command
            .args(["-sS", "--ssl-reqd", "--cacert"])
            .arg(pair.cert());
        if upload {
            command.arg("-T").arg(&file);
        }
        let name = if upload { "f" } else { "g" };
        command.arg(format!("ftp://localhost:{port}/{name}"));
        let log = if upload { "STOR" } else { "RETR" };
        let child = command.stdout(std::process::Stdio::null()).spawn();
        let mut child = child.expect("starting curl");
        // A file is open: it is in the middle of it.
        let moving = wait_for(PATIENCE, || {
            let fds = fs::read_dir(format!("/proc/{}/fd", server.pid())).ok()?;
            let mut paths = fds.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
            paths.find(|path| path.parent() == Some(server.root()))
        });
        assert!(moving.is_some(), "{log}: {}", server.log());
        child.kill().expect("killing curl");
        child.wait().expect("it is dead");
        four_questions(&server, baseline);
    }
    assert!(!server.path("f").exists());
    is_quiet(&server);
}

#[test]
fn t10_floods_end_or_do_no_harm() {
    let (server, pair) = secure(&[]);
    let baseline = server.baseline();
    let memory_kib = server.rss_kib();
    let record = |kind: u8, content: &[u8]| {
        let len = (content.len() as u16).to_be_bytes();
        [&[kind, 3, 3][..], &len, content].concat()
    };
    let hello = hello(&pair.client());
    let endless = record(0x16, &[&[1, 0xff, 0xff, 0xff][..], &[0; 0x3ffc]].concat());
    let floods: [(&str, &[u8], Vec<u8>); 6] = [
        ("handshake messages without an end", &[], endless),
        ("empty handshake records", &[], record(0x16, &[])),
        ("warnings", &[], record(0x15, &[1, 100])),
        ("a goodbye behind the hello", &hello, record(0x15, &[1, 0])),
        (
            "changes of cipher behind the hello",
            &hello,
            record(0x14, &[1]),
        ),
        ("empty data behind the hello", &hello, record(0x17, &[])),
    ];
    for (what, first, flood) in floods {
        let session = behind_auth(&server);
        let mut socket = session.stream();
        socket.write_all(first).expect("sending");
        let many = flood.repeat((2 * MIB / flood.len()).min(100_000));
        // It may be closed before all of it was sent.
        let _ = socket.write_all(&many);
        rest_of(socket);
        assert_eq!(
            Control::login(server.addr()).command("NOOP").code,
            200,
            "{what}"
        );
    }
    // Key updates: as many as a connection may have.
    let mut rude = Secure::login(server.addr(), pair.client());
    for _ in 0..100_000 {
        if rude.stream.conn.refresh_traffic_keys().is_err() || rude.stream.flush().is_err() {
            break;
        }
    }
    assert!(is_over(&rude.stream.sock), "nobody needs that many keys");
    drop(rude);
    is_quiet(&server);
    let grown = server.rss_kib().saturating_sub(memory_kib);
    assert!(grown < 4096, "{grown} KiB more");
    four_questions(&server, baseline);
}

/// A client that says how its records are cut.
struct Cutting {
    connection: UnbufferedClientConnection,
    session: Control,
    incoming: Vec<u8>,
}

impl Cutting {
    fn new(server: &Server, config: ClientConfig) -> Cutting {
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = UnbufferedClientConnection::new(Arc::new(config), name);
        let mut cutting = Cutting {
            connection: connection.expect("a client"),
            session: behind_auth(server),
            incoming: Vec::new(),
        };
        cutting.records(&[]);
        cutting
    }

    fn encoded(data: &mut EncodeTlsData<'_, rustls::client::ClientConnectionData>) -> Vec<u8> {
        let mut buffer = vec![0; 32 << 10];
        let n = data.encode(&mut buffer).expect("room");
        buffer.truncate(n);
        buffer
    }

    /// Finishes the handshake, and makes a record of each.
    fn records(&mut self, contents: &[&[u8]]) -> Vec<u8> {
        loop {
            let UnbufferedStatus { discard, state, .. } =
                self.connection.process_tls_records(&mut self.incoming);
            let mut socket = self.session.stream();
            match state.expect("TLS") {
                ConnectionState::EncodeTlsData(mut data) => {
                    let bytes = Cutting::encoded(&mut data);
                    socket.write_all(&bytes).expect("sending");
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::BlockedHandshake => {
                    let mut chunk = [0; 16 << 10];
                    self.incoming.drain(..discard);
                    let n = socket.read(&mut chunk).expect("an answer");
                    assert!(n > 0, "the server has closed");
                    self.incoming.extend_from_slice(&chunk[..n]);
                    continue;
                }
                ConnectionState::WriteTraffic(mut traffic) => {
                    let mut all = Vec::new();
                    for content in contents {
                        let mut buffer = [0; 4096];
                        let n = traffic.encrypt(content, &mut buffer).expect("room");
                        all.extend_from_slice(&buffer[..n]);
                    }
                    return all;
                }
                state => panic!("{state:?}"),
            }
            self.incoming.drain(..discard);
        }
    }
}

#[test]
fn t10_records_with_nothing_in_them_keep_nobody_waiting() {
    let (server, pair) = secure(&[]);
    let baseline = server.baseline();
    let mut rude = Cutting::new(&server, pair.client());
    let memory_kib = server.rss_kib();
    let empty = [&b""[..]; 1000];
    let mut other = Secure::login(server.addr(), pair.client());
    for _ in 0..100 {
        let flood = rude.records(&empty);
        // The server may have had enough of it.
        if rude.session.stream().write_all(&flood).is_err() {
            break;
        }
        assert_eq!(other.command("NOOP").0, 200);
    }
    let grown = server.rss_kib().saturating_sub(memory_kib);
    assert!(grown < 2048, "{grown} KiB more");
    drop((rude, other));
    is_quiet(&server);
    four_questions(&server, baseline);
}

/// lftp speaks TLS with GnuTLS. In one session: a hundred uploads, their downloads, and a listing
/// for each.
#[test]
fn t12_lftp_makes_three_hundred_data_connections_in_one_session() {
    let (server, pair) = secure(&["--log-level", "debug"]);
    let baseline = server.baseline();
    let local = tempfile::tempdir().expect("making a directory");
    let contents: Vec<Vec<u8>> = (0..100_u64).map(|n| bytes(n, 331 * n as usize)).collect();
    fs::create_dir(local.path().join("up")).expect("making");
    let mut script = format!(
        "set ssl:ca-file {}; set ftp:ssl-force true; set ftp:ssl-protect-data true; \
         set net:connection-limit 1; set cmd:parallel 1; set ftp:use-mlsd true; set cmd:fail-exit true; \
         open -u anonymous,x ftp://localhost:{}; ",
        pair.cert().display(),
        server.addr().port(),
    );
    for (n, content) in contents.iter().enumerate() {
        let path = local.path().join(format!("up/{n}"));
        fs::write(&path, content).expect("writing");
        let (up, down) = (path.display(), local.path().join(format!("{n}")));
        script += &format!(
            "put {up} -o {n}; recls {n}; get {n} -o {}; ",
            down.display()
        );
    }
    let before = server.log().len();
    let done = run(Command::new("lftp").arg("--norc").args(["-c", &script]));
    done.ok();
    for (n, content) in contents.iter().enumerate() {
        assert_file(&server.path(&n.to_string()), content);
        assert_file(&local.path().join(n.to_string()), content);
    }
    let log = server.log().split_off(before);
    let data = log.matches("a data connection uses TLS").count();
    assert!(data >= 300, "{data} data connections");
    assert_eq!(log.matches("login: ").count(), 1, "one session");
    four_questions(&server, baseline);
}

#[test]
fn t12_three_hundred_sessions_list_at_once() {
    let _alone = heavy();
    let (server, pair) = secure(&[]);
    let baseline = server.baseline();
    for n in 0..200 {
        fs::write(server.path(&format!("{n:0100}")), "").expect("writing");
    }
    let config = pair.client();
    let sessions: Vec<Secure> = (0..300)
        .map(|_| Secure::login(server.addr(), config.clone()))
        .collect();
    let lists = |mut session: Secure| {
        thread::spawn(move || {
            session
                .stream
                .sock
                .set_read_timeout(Some(6 * PATIENCE))
                .expect("a timeout");
            let (listing, code) = session.fetch("LIST");
            assert_eq!(
                (code, listing.split(|byte| *byte == b'\n').count()),
                (226, 201)
            );
        })
    };
    let threads: Vec<_> = sessions.into_iter().map(lists).collect();
    for thread in threads {
        thread.join().expect("a listing");
    }
    four_questions(&server, baseline);
}
