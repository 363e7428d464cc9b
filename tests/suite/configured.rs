//! Each limit of the configuration, at its end: what is in the file is in force.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::thread;

use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::common::content::MIB;
use crate::common::control::Control;
use crate::common::secure::Pair;
use crate::common::server::{Launch, Server};
use crate::common::{PATIENCE, until};

#[test]
fn times_without_a_login_a_command_or_a_handshake() {
    let (server, _dir) = Server::configured("login-timeout = 1\nidle-timeout = \"1s\"\n", &[]);
    let mut shy = Control::connect(server.addr());
    let mut idle = Control::login(server.addr());
    for session in [&mut shy, &mut idle] {
        assert_eq!(session.reply().code, 421);
        session.expect_eof();
    }

    let pair = Pair::new();
    let options = pair.options();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let (server, _dir) = Server::configured("tls-handshake-timeout-s = 1\n", &options);
    let mut silent = Control::connect(server.addr());
    assert_eq!(silent.command("AUTH TLS").code, 234);
    silent.expect_eof();
}

#[test]
fn noop_keeps_a_session_for_so_long_only() {
    let (server, _dir) = Server::configured("idle-timeout = 1\nnoop-keeps-s = \"2s\"\n", &[]);
    let mut session = Control::login(server.addr());
    let ended = until(PATIENCE, || session.command("NOOP").code == 421);
    assert!(ended);
}

#[test]
fn transfers_that_nobody_takes_or_that_are_too_slow() {
    let text = "data-wait-s = 1\nstall-timeout = 1\nstall-bytes = \"64MiB\"\n";
    let (server, _dir) = Server::configured(text, &[]);
    fs::write(server.path("f"), b"content").expect("writing");
    let mut session = Control::login(server.addr());
    assert_eq!(session.command("EPSV").code, 229);
    assert_eq!(session.command("RETR f").code, 150);
    assert_eq!(session.reply().code, 425);

    // Faster than what stalls where nothing else is said.
    assert_eq!(session.command("UPLOAD 900000000 u").code, 150);
    let mut body = session.stream().try_clone().expect("another handle");
    let piece = vec![b'x'; MIB / 16];
    let ended = until(PATIENCE, || body.write_all(&piece).is_err());
    assert!(ended, "a stalled upload is ended");
    assert!(!server.path("u").exists());
}

#[test]
fn unknown_verbs() {
    let (server, _dir) = Server::configured("unknown-verbs = 1\n", &[]);
    let mut stranger = Control::connect(server.addr());
    assert_eq!(stranger.command("XYZZY").code, 421);
    stranger.expect_eof();
}

#[test]
fn transfers_have_so_long_to_end() {
    let (mut server, _dir) = Server::configured("drain-timeout-s = 1\n", &[]);
    let mut session = Control::login(server.addr());
    assert_eq!(session.command("UPLOAD 100 u").code, 150);
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(), 0);
    assert!(!server.path("u").exists());
}

#[test]
fn the_umask() {
    use std::os::unix::fs::PermissionsExt;
    let (server, _dir) = Server::configured("umask = \"077\"\n", &[]);
    let mut session = Control::login(server.addr());
    assert_eq!(session.upload("u", b"content").code, 226);
    let mode = fs::metadata(server.path("u")).expect("it is there");
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
}

/// Loopback has no limit per address, so this needs a network of its own with other addresses.
const OTHER_NETWORK: &str = "
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    for name, address in ((b'lo', '198.51.100.1'), (b'lo:1', '198.51.100.2')):
        fcntl.ioctl(control, 0x8916, struct.pack('16sH2s4s8x', name, socket.AF_INET, b'',
                                                 socket.inet_aton(address)))
    fcntl.ioctl(control, 0x8914, struct.pack('16sH14x', b'lo', 0x41))
os.execv(sys.argv[1], sys.argv[1:])
";

#[test]
fn r10_one_address_has_so_many_sessions_and_others_get_in() {
    let server = Server::launch(&Launch {
        listen: "198.51.100.1:0",
        through: &["unshare", "--net", "python3", "-c", OTHER_NETWORK],
        options: &[
            "--max-per-address",
            "3",
            "--anonymous",
            "write",
            "--tls",
            "off",
            "--run-as",
            "root",
        ],
        ..Launch::default()
    });
    let network = fs::File::open(format!("/proc/{}/ns/net", server.pid())).expect("its network");
    let there = || {
        use std::os::fd::AsFd;
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("these tests run as root");
        let here = |last| IpAddr::from([198, 51, 100, last]);
        let login = |from: IpAddr| {
            Control::open_from(from, server.addr())
                .greeted()
                .logged_in()
        };
        let mut sessions: Vec<Control> = (0..3).map(|_| login(here(1))).collect();
        for _ in 0..5 {
            let mut refused = Control::open_from(here(1), server.addr());
            assert_eq!(refused.reply().code, 421);
            refused.expect_eof();
        }
        let mut other = login(here(2));
        assert_eq!(other.command("NOOP").code, 200);
        sessions.pop().expect("three").quit();
        let again = until(PATIENCE, || {
            let mut again = Control::open_from(here(1), server.addr());
            again.reply().code == 220
        });
        assert!(again, "a place that became free is given away");
    };
    thread::scope(|scope| scope.spawn(there).join()).expect("no limit was missed");
}

#[test]
fn a_server_that_is_open_to_all_says_so() {
    for (level, may) in [("read", "read"), ("write", "read and write")] {
        let options = ["--anonymous", level, "--run-as", "root"];
        let server = Server::start_at("0.0.0.0:0", &options);
        server.expect_log(&format!(
            "strangers may {may} everything without a password"
        ));
    }
    let server = Server::start_at("0.0.0.0:0", &["--run-as", "root"]);
    server.expect_log("] serving ");
    assert!(!server.log().contains("strangers may"), "{}", server.log());
}
