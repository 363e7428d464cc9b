//! Clients that vanish, and clients that send what TLS allows and nobody needs (T09, T10, T12).

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, ContentType, ProtocolVersion,
};

use super::secure;
use crate::common::bytewise::{reset, rest_of};
use crate::common::content::{MIB, assert_file, bytes};
use crate::common::control::Control;
use crate::common::secure::{Pair, Secure, is_over};
use crate::common::server::{Server, four_questions};
use crate::common::tools::run;
use crate::common::trace::{Call, Traced};
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

/// A client that cuts its records itself: rustls never sends one with nothing in it.
struct Cutting {
    socket: TcpStream,
    encrypter: Box<dyn MessageEncrypter>,
    sequence: u64,
}

impl Cutting {
    /// Its handshake is done.
    fn new(server: &Server, mut config: ClientConfig) -> Cutting {
        config.enable_secret_extraction = true;
        let (connection, socket) = Secure::connect(server.addr(), config).stream.into_parts();
        let suite = connection.negotiated_cipher_suite().expect("a suite");
        let suite = suite.tls13().expect("TLS 1.3");
        let secrets = connection.dangerous_extract_secrets().expect("secrets");
        let (sequence, secrets) = secrets.tx;
        let (key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv),
            _ => panic!("an unknown suite"),
        };
        Cutting {
            socket,
            encrypter: suite.aead_alg.encrypter(key, iv),
            sequence,
        }
    }

    /// A record of each.
    fn records(&mut self, contents: &[&[u8]]) -> Vec<u8> {
        let mut all = Vec::new();
        for content in contents {
            let plain = OutboundPlainMessage {
                typ: ContentType::ApplicationData,
                version: ProtocolVersion::TLSv1_3,
                payload: OutboundChunks::from(*content),
            };
            let sealed = self.encrypter.encrypt(plain, self.sequence);
            all.extend(sealed.expect("a record").encode());
            self.sequence += 1;
        }
        all
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
        if rude.socket.write_all(&flood).is_err() {
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

/// So many of them as TLS allows behind each byte of a line that is as long as a line may be: megabytes,
/// and nobody has logged in.
#[test]
fn t10_records_with_nothing_in_them_are_decrypted_a_few_at_a_time() {
    const IN_A_ROW: usize = 32;
    let pair = Pair::new();
    let options = pair.options();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let traced = Traced::watching("trace=epoll_wait,read", &options, &[]);
    let mut rude = Cutting::new(&traced.server, pair.client());
    let mut contents = [&b""[..]; IN_A_ROW + 1];
    contents[IN_A_ROW] = b"x";
    let flood: Vec<u8> = (0..4200).flat_map(|_| rude.records(&contents)).collect();
    rude.socket.write_all(&flood).expect("sending");
    rest_of(&rude.socket);
    let calls = traced.calls();
    let of_sockets = |call: &Call| {
        call.descriptor(0)
            .is_some_and(|(_, it)| it.contains("socket"))
    };
    let turns = calls.split(|call| call.is("epoll_wait"));
    let read = |turn: &[Call]| -> i64 {
        let reads = turn.iter().filter(|call| of_sockets(call));
        reads.map(|call| call.result.max(0)).sum()
    };
    let read: Vec<i64> = turns.map(read).filter(|bytes| *bytes > 0).collect();
    assert!(read.iter().sum::<i64>() > flood.len() as i64, "{read:?}");
    // Between two looks at all sockets a session may have several turns, each of a quarter of a MiB.
    assert!(read.iter().all(|bytes| *bytes < 2 * MIB as i64), "{read:?}");
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
