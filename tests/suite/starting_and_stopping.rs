//! Signals, and what keeps a server from starting.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;

use rustix::process::Signal;

use crate::common::content::{MIB, assert_file, assert_same, bytes};
use crate::common::control::Control;
use crate::common::secure::{Pair, begin_tls};
use crate::common::server::{Launch, Server};
use crate::common::tools::run;
use crate::common::{PATIENCE, wait_for};

#[test]
fn sigterm_ends_idle_sessions_at_once_and_lets_transfers_end() {
    let mut server = Server::start(&[]);
    let content = bytes(1, 16 * MIB);
    fs::write(server.path("f"), &content).expect("writing");
    let mut stranger = Control::connect(server.addr());
    let mut idle = Control::login(server.addr());
    let mut downloads = Control::login(server.addr());
    let mut data = downloads.epsv();
    assert_eq!(downloads.command("RETR f").code, 150);
    let mut uploads = Control::login(server.addr());
    assert_eq!(uploads.command("UPLOAD 1000000 u").code, 150);
    uploads.send(&content[..400_000]);

    server.signal(Signal::TERM);
    for session in [&mut stranger, &mut idle] {
        assert_eq!(session.reply().code, 421);
        session.expect_eof();
    }
    let mut got = Vec::new();
    data.read_to_end(&mut got).expect("reading");
    assert_same(&got, &content, "RETR");
    uploads.send(&content[400_000..1_000_000]);
    for session in [&mut downloads, &mut uploads] {
        assert_eq!(session.reply().code, 226);
        assert_eq!(session.reply().code, 421);
        session.expect_eof();
    }
    assert_eq!(server.exit_code(), 0);
    assert_file(&server.path("u"), &content[..1_000_000]);
    assert_eq!(fs::read_dir(server.root()).expect("listing").count(), 2);
    assert!(!server.log().contains("panic"), "{}", server.log());
}

#[test]
fn a_second_signal_ends_everything_at_once() {
    for signals in [
        [Signal::TERM, Signal::TERM],
        [Signal::INT, Signal::INT],
        [Signal::INT, Signal::TERM],
    ] {
        let mut server = Server::start(&[]);
        let mut idle = Control::login(server.addr());
        let mut uploads = Control::login(server.addr());
        assert_eq!(uploads.command("UPLOAD 1000000 u").code, 150);
        uploads.send(&[b'x'; 400_000]);
        server.signal(signals[0]);
        // So the first has been taken before the second comes.
        assert_eq!(idle.reply().code, 421);
        server.signal(signals[1]);
        assert_eq!(server.exit_code(), 0, "{signals:?}");
        assert_eq!(fs::read_dir(server.root()).expect("listing").count(), 0);
        assert!(!server.log().contains("panic"), "{}", server.log());
    }
}

#[test]
fn a_stopping_server_takes_nobody_in() {
    let mut server = Server::start(&[]);
    let mut uploads = Control::login(server.addr());
    assert_eq!(uploads.command("UPLOAD 10 u").code, 150);
    let mut idle = Control::login(server.addr());
    server.signal(Signal::INT);
    assert_eq!(idle.reply().code, 421);
    assert!(std::net::TcpStream::connect(server.addr()).is_err());
    uploads.send(b"0123456789");
    assert_eq!(uploads.reply().code, 226);
    assert_eq!(server.exit_code(), 0);
    assert_file(&server.path("u"), b"0123456789");
}

#[test]
fn what_cannot_be_started_is_one_sentence_and_code_2() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let taken = taken.local_addr().expect("bound").to_string();
    let dir = tempfile::tempdir().expect("a directory");
    for (options, says) in [
        (&["--listen", &*taken][..], "another program"),
        (
            &["--listen", "192.0.2.1:0", "--run-as", "root"],
            "no address of this machine",
        ),
        (&["--listen", "0.0.0.0:0"], "--run-as"),
        (
            &["--listen", "[::1]:0", "--implicit-tls", "[::]:0"],
            "--run-as",
        ),
        (&["--run-as", "no-such-user"], "no user no-such-user"),
        (&["--listen", "nonsense"], "nonsense"),
        (&["--listen", "127.0.0.1"], "127.0.0.1"),
        (&["--listen", "127.0.0.1:65536"], "65536"),
        (&["--passive-ports", "40063-40000"], "40000-40063"),
        (&["--passive-ports", "80-90"], "1024"),
        (&["--passive-ports", "40000-70000"], "65535"),
        (&["--passive-ports", "2000-60000"], "4096"),
        (&["--passive-ports", "x"], "1024 to 65535"),
        (&["--idle-timeout", "0"], "a time is"),
        (&["--idle-timeout", "1x"], "a time is"),
        (&["--passive-address", "300.0.0.1"], "300.0.0.1"),
        (&["--tls-cert", "x"], "--tls-key"),
        (&["--transfer-log", "/nowhere/log"], "/nowhere/log"),
        (&["--landlock", "perhaps"], "auto, off"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hauld"));
        if options[0] != "--listen" {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let done = run(command.args(options).arg(dir.path())).expect(2);
        assert_eq!(done.stdout_text(), "", "{options:?}: nothing half started");
        assert!(done.stderr.contains(says), "{options:?}: {}", done.stderr);
        let first = done.stderr.split("\n\n").next().unwrap_or_default();
        assert_eq!(first.trim().lines().count(), 1, "{}", done.stderr);
        assert!(first.starts_with("hauld: "), "{}", done.stderr);
    }
}

#[test]
fn a_configuration_file_says_what_options_say_and_options_win() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("hauld.toml");
    let config = config.to_str().expect("text");
    fs::write(
        config,
        "listen = \"192.0.2.1:0\"\nanonymous = \"read\"\nmax-sessions = 1\n",
    )
    .expect("writing");
    let server = Server::start(&["--config", config]);
    let mut first = Control::login(server.addr());
    assert_eq!(first.command("MKD d").code, 550);
    assert_eq!(Control::open(server.addr()).reply().code, 421);
    first.quit();

    fs::write(config, "max-sessions = 5\n\nidle-timeout = \"x\"\n").expect("writing");
    let refused = run(Command::new(env!("CARGO_BIN_EXE_hauld")).args(["--config", config]));
    let refused = refused.expect(2);
    let line = format!("{config}: line 3: idle-timeout: a time is");
    assert!(refused.stderr.contains(&line), "{}", refused.stderr);
    assert_eq!(refused.stderr.trim().lines().count(), 1);
}

#[test]
fn the_configuration_that_is_printed_says_the_same() {
    let hauld = |words: &[&str]| {
        run(Command::new(env!("CARGO_BIN_EXE_hauld")).args(words))
            .ok()
            .stdout_text()
    };
    let words = ["--max-sessions", "5", "--listen", "127.0.0.1:0", "here"];
    let printed = hauld(&[&words[..], &["--print-config"]].concat());
    assert!(printed.contains("\nmax-sessions = 5\n"), "{printed}");
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("hauld.toml");
    fs::write(&config, &printed).expect("writing");
    let config = config.to_str().expect("text");
    assert_eq!(hauld(&["--config", config, "--print-config"]), printed);
}

/// Does what systemd does with a socket unit: opens ports, names them, and becomes hauld.
const ACTIVATE: &str = "
import os, socket, sys
sockets = [socket.create_server(('127.0.0.1', 0)) for _ in range(2)]
for place, opened in enumerate(sockets):
    os.dup2(os.dup(opened.fileno()), 60 + place)
    opened.close()
for place in range(2):
    os.dup2(60 + place, 3 + place)
    os.close(60 + place)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2', LISTEN_FDNAMES='hauld:implicit-tls')
os.execv(sys.argv[1], sys.argv[1:])
";

#[test]
fn sockets_that_systemd_opened_are_served() {
    let pair = Pair::new();
    let options = pair.options();
    let server = Server::launch(&Launch {
        through: &["python3", "-c", ACTIVATE],
        options: &options.iter().map(String::as_str).collect::<Vec<_>>(),
        ..Launch::default()
    });
    let addresses = || {
        let log = server.log();
        let lines = log.lines().filter(|line| line.contains("] serving "));
        let found: Vec<SocketAddr> = lines
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .collect();
        (found.len() == 3).then_some(found)
    };
    let addresses = wait_for(PATIENCE, addresses).expect("three addresses");
    for address in &addresses[..2] {
        let mut session = Control::login(*address);
        assert_eq!(session.upload("f", b"content").code, 226);
        session.quit();
    }
    let socket = crate::common::control::connect(None, addresses[2]);
    let client = Arc::new(pair.client());
    let mut stream = begin_tls(&client, socket).expect("TLS at once");
    let mut greeting = [0; 3];
    stream.read_exact(&mut greeting).expect("a greeting");
    assert_eq!(&greeting, b"220");
}

#[test]
fn the_unit_says_what_was_said() {
    let hauld = |words: &[&str]| {
        run(Command::new(env!("CARGO_BIN_EXE_hauld")).args(words))
            .ok()
            .stdout_text()
    };
    let listen = ["--listen", "127.0.0.1:21", "--listen", "[::1]:2121"];
    let unit = hauld(
        &[
            &["unit"],
            &listen[..],
            &["--run-as", "nobody:root", "/srv/a b"],
        ]
        .concat(),
    );
    let value = |key: &str| {
        let values = unit
            .lines()
            .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        values.collect::<Vec<_>>()
    };
    let (_, words) = value("ExecStart")[0].split_once(' ').expect("words");
    assert_eq!(
        words,
        "--listen 127.0.0.1:21 --listen [::1]:2121 \"/srv/a b\""
    );
    assert_eq!(value("User"), ["nobody"]);
    assert_eq!(value("Group"), ["root"]);
    assert_eq!(value("ReadWritePaths"), ["\"/srv/a b\""]);
    assert_eq!(value("AmbientCapabilities"), ["CAP_NET_BIND_SERVICE"]);
    let sections: Vec<&str> = unit.lines().filter(|line| line.starts_with('[')).collect();
    assert_eq!(sections, ["[Unit]", "[Service]", "[Install]"]);

    let unit = hauld(&[&["unit", "--socket"], &listen[..]].concat());
    assert!(unit.contains("\nListenStream=127.0.0.1:21\nListenStream=[::1]:2121\n"));
    assert!(unit.contains("\nFileDescriptorName=hauld\n"));
    let unit = hauld(&["unit", "--transfer-log", "/var/log/hauld/transfers", "/srv"]);
    assert!(
        unit.contains("\nReadWritePaths=/srv /var/log/hauld\n"),
        "{unit}"
    );
    let unit = hauld(&["unit", "--socket", "--implicit-tls", "127.0.0.1:990"]);
    assert!(unit.contains("\nFileDescriptorName=implicit-tls\n"));
}
