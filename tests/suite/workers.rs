//! `hauld --workers`: several processes at one address, and a parent that watches them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use crate::common::content::{MIB, bytes};
use crate::common::control::Control;
use crate::common::network::in_a_network;
use crate::common::server::{Launch, Server};
use crate::common::tools::{run, run_with};
use crate::common::users::{Users, logged_in, password};
use crate::common::{PATIENCE, until, wait_for};

/// The children of a process.
fn children(parent: u32) -> Vec<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let list = fs::read_to_string(path).unwrap_or_default();
    list.split_whitespace()
        .map(|pid| pid.parse().expect("a number"))
        .collect()
}

/// Its workers, as soon as there are so many.
#[track_caller]
fn workers(server: &Server, count: usize) -> Vec<u32> {
    let pids = wait_for(PATIENCE, || {
        let pids = children(server.pid());
        (pids.len() == count).then_some(pids)
    });
    pids.unwrap_or_else(|| panic!("{count} workers; {}", server.log()))
}

fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process");
    kill_process(pid, signal).expect("sending a signal");
}

/// Which process has the other end of a connection.
fn worker_of(session: &Control) -> u32 {
    let near = session.stream().local_addr().expect("an address");
    let far = session.stream().peer_addr().expect("an address");
    let done = run(Command::new("ss")
        .args(["-Htnp", "src"])
        .arg(far.to_string()))
    .ok();
    let text = done.stdout_text();
    let line = text.lines().find(|line| line.contains(&near.to_string()));
    let line = line.unwrap_or_else(|| panic!("no connection of {near} in {text}"));
    let pid = line.split("pid=").nth(1).expect("a process");
    pid.split(',')
        .next()
        .expect("a number")
        .parse()
        .expect("a number")
}

/// A session with each of two workers.
fn one_each(server: SocketAddr) -> (Control, Control) {
    let first = Control::login(server);
    let of_first = worker_of(&first);
    let second = wait_for(PATIENCE, || {
        let session = Control::login(server);
        (worker_of(&session) != of_first).then_some(session)
    });
    (first, second.expect("the kernel uses both workers"))
}

/// On a terminal that stops whoever writes to it from the background.
const ON_A_TERMINAL: &str = r#"
import os, pty, signal, sys, termios
out = os.dup(1)
child, terminal = pty.fork()
if child == 0:
    flags = termios.tcgetattr(2)
    flags[3] |= termios.TOSTOP
    termios.tcsetattr(2, termios.TCSANOW, flags)
    os.dup2(out, 1)
    os.execv(sys.argv[1], sys.argv[1:])
signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
try:
    while said := os.read(terminal, 65536):
        os.write(2, said)
except OSError:
    pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;

#[test]
fn workers_may_log_to_a_terminal_that_stops_what_is_in_the_background() {
    let mut server = Server::launch(&Launch {
        through: &["python3", "-c", ON_A_TERMINAL],
        options: &["--workers", "2"],
        ..Launch::default()
    });
    for n in 0..8 {
        let mut session = Control::login(server.addr());
        assert_eq!(session.upload(&format!("file {n}"), b"content").code, 226);
        session.quit();
    }
    assert_eq!(server.stop(), 0);
}

#[test]
fn sessions_are_spread_and_all_of_them_work() {
    let options = ["--workers", "3", "--tls", "optional"];
    let mut server = Server::start(&options);
    let pids = workers(&server, 3);
    let names: Vec<String> = pids
        .iter()
        .map(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).expect("running"))
        .collect();
    assert_eq!(names, ["hauld\n"; 3]);
    let mut used: Vec<u32> = Vec::new();
    for n in 0..30 {
        let mut session = Control::login(server.addr());
        used.push(worker_of(&session));
        let (name, content) = (format!("file {n}"), bytes(n, 10_000));
        assert_eq!(session.stor(&name, &content).code, 226);
        assert_eq!(session.fetch(&format!("RETR {name}")).0, content);
        assert_eq!(session.upload(&name, &content).code, 226);
        let last = format!("file {}", n.saturating_sub(1));
        assert_eq!(session.download(&last).0.len(), 10_000);
        session.quit();
    }
    used.sort_unstable();
    used.dedup();
    assert_eq!(used.len(), 3, "the kernel uses all workers");
    // One certificate, and data connections that resume their session.
    for n in 0..10 {
        let url = format!("ftp://{}/", server.addr());
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--ssl-reqd", "-k", &url, "-T"]);
        curl.arg(server.path(&format!("file {n}")));
        run(&mut curl).ok();
    }
    let log = server.log();
    assert_eq!(log.matches("] serving ").count(), 1, "{log}");
    assert_eq!(server.stop(), 0);
    assert!(
        pids.iter()
            .all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    );
}

#[test]
fn a_worker_that_dies_takes_only_its_own_sessions_along() {
    let server = Server::start(&["--workers", "2"]);
    let pids = workers(&server, 2);
    let (mut first, mut second) = one_each(server.addr());
    let dead = worker_of(&first);
    send(dead, Signal::KILL);
    first.expect_eof();
    assert_eq!(second.command("NOOP").code, 200);
    let again = wait_for(PATIENCE, || {
        let pids = children(server.pid());
        (pids.len() == 2 && !pids.contains(&dead)).then_some(pids)
    });
    let again = again.expect("another is started");
    assert!(pids.iter().any(|pid| again.contains(pid)));
    let mut used: Vec<u32> = Vec::new();
    let both = until(PATIENCE, || {
        let session = Control::login(server.addr());
        used.push(worker_of(&session));
        again.iter().all(|pid| used.contains(pid))
    });
    assert!(both, "both serve");
    assert_eq!(second.upload("x", b"x").code, 226);
    // One that is asked to end does so in order, and there is another.
    let asked = worker_of(&second);
    send(asked, Signal::TERM);
    assert_eq!(second.reply().code, 421);
    second.expect_eof();
    let pids = until(PATIENCE, || {
        let pids = children(server.pid());
        pids.len() == 2 && !pids.contains(&asked)
    });
    assert!(pids, "another is started");
    for _ in 0..10 {
        Control::login(server.addr()).quit();
    }
}

#[test]
fn a_worker_that_cannot_start_is_tried_again_in_growing_pauses() {
    let users = Users::new(&[("anna", "secret", &[])]);
    let server = users.server_with("workers = 2\n");
    let pids = workers(&server, 2);
    let good = fs::read(users.path()).expect("reading");
    fs::write(users.path(), "nonsense").expect("writing");
    send(pids[0], Signal::KILL);
    let told = until(PATIENCE, || {
        let log = server.log();
        let pauses = [
            "in 100 ms",
            "in 200 ms",
            "in 400 ms",
            "in 800 ms",
            "in 1600 ms",
        ];
        pauses.iter().all(|pause| log.contains(pause))
    });
    assert!(told, "{}", server.log());
    // Meanwhile the other one has everybody.
    for _ in 0..20 {
        Control::login(server.addr()).quit();
    }
    fs::write(users.path(), good).expect("writing");
    server.expect_log("serves again");
}

#[test]
fn nothing_is_left_of_workers_whose_parent_is_killed() {
    let mut server = Server::start(&["--workers", "2"]);
    let pids = workers(&server, 2);
    let mut session = Control::login(server.addr());
    server.signal(Signal::KILL);
    server.gone();
    assert_eq!(session.reply().code, 421);
    session.expect_eof();
    let gone = until(PATIENCE, || {
        let mut paths = pids.iter().map(|pid| format!("/proc/{pid}/exe"));
        paths.all(|path| fs::read_link(path).is_err())
    });
    assert!(gone, "the workers end");
}

#[test]
fn signals_are_passed_on() {
    let users = Users::new(&[("anna", "secret", &[])]);
    let mut server = users.server_with("workers = 3\n");
    users.user(&["add", "ben"], "other");
    server.signal(Signal::HUP);
    let all = until(PATIENCE, || {
        server.log().matches("SIGHUP: 2 users").count() == 3
    });
    assert!(all, "{}", server.log());
    for _ in 0..10 {
        logged_in(&server, "ben", "other").quit();
    }
    let mut session = logged_in(&server, "anna", "secret");
    let content = bytes(1, MIB);
    assert_eq!(session.command(&format!("UPLOAD {MIB} late")).code, 150);
    session.send(&content[..1000]);
    server.signal(Signal::TERM);
    let stopping = until(PATIENCE, || server.log().matches("stopping: ").count() == 3);
    assert!(stopping, "{}", server.log());
    session.send(&content[1000..]);
    assert_eq!(session.reply().code, 226);
    assert_eq!(session.reply().code, 421);
    assert_eq!(server.exit_code(), 0);
    assert!(fs::read(server.path("late")).expect("reading") == content);
}

#[test]
fn guesses_at_a_password_count_for_all_workers() {
    let users = Users::new(&[("anna", "secret", &[])]);
    let server = users.server_with("workers = 3\n");
    let guess = |secret| password(&mut Control::connect(server.addr()), "anna", secret);
    for _ in 0..5 {
        assert_eq!(guess("wrong"), 530);
    }
    // A worker that was not there hears of it.
    let dead = workers(&server, 3)[0];
    send(dead, Signal::KILL);
    server.expect_log("serves again");
    for _ in 0..20 {
        assert_eq!(guess("secret"), 530, "it is locked everywhere");
    }
}

#[test]
fn sessions_count_for_all_workers() {
    let server = Server::start(&["--workers", "3", "--max-sessions", "6"]);
    let mut sessions: Vec<Control> = Vec::new();
    let full = until(PATIENCE, || {
        let mut next = Control::open(server.addr());
        match next.reply().code {
            220 => sessions.push(next.logged_in()),
            code => assert_eq!(code, 421),
        }
        sessions.len() >= 6
    });
    assert!(full, "six get in");
    let refused = until(PATIENCE, || {
        Control::open(server.addr()).reply().code == 421
    });
    assert!(refused, "more do not");
    sessions.pop().expect("a session").quit();
    let room = until(PATIENCE, || {
        Control::open(server.addr()).reply().code == 220
    });
    assert!(room, "a place that was given up is for the next");
}

#[test]
fn one_name_is_uploaded_by_all_workers_at_once_and_stays_whole() {
    let server = Server::start(&["--workers", "2"]);
    let addr = server.addr();
    let versions: Vec<Vec<u8>> = (0..4).map(|n| bytes(n, 300_000 + n as usize)).collect();
    thread::scope(|scope| {
        for version in &versions {
            scope.spawn(move || {
                for round in 0..10 {
                    let mut session = Control::login(addr);
                    let reply = match round % 2 {
                        0 => session.stor("name", version),
                        _ => session.upload("name", version),
                    };
                    assert_eq!(reply.code, 226, "{reply:?}");
                    session.quit();
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..40 {
                let (content, reply) = Control::login(addr).download("name");
                assert!(
                    reply.code == 550 || versions.contains(&content),
                    "{reply:?}"
                );
            }
        });
    });
    assert!(versions.contains(&fs::read(server.path("name")).expect("reading")));
}

#[test]
fn what_workers_cannot_keep_together_is_refused_at_the_start() {
    let dir = tempfile::tempdir().expect("making a directory");
    let hauld = |options: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hauld"));
        command.args(["--listen", "127.0.0.1:0", "--workers", "2"]);
        command.args(options).arg(dir.path());
        run(&mut command).expect(2).stderr
    };
    let said = hauld(&["--rate", "1MiB"]);
    assert!(said.contains("--session-rate"), "{said}");
    let said = hauld(&["--passive-ports", "50000-50000"]);
    assert!(said.contains("1 ports for 2 workers"), "{said}");
    let users = Users::new(&[("anna", "secret", &["--quota-bytes", "1MiB"])]);
    let path = users.path();
    let said = hauld(&["--users", path.to_str().expect("text")]);
    assert!(said.contains("anna has a quota"), "{said}");
    assert_eq!(said.matches("hauld: ").count(), 1, "{said}");
    let taken = Server::launch(&Launch {
        options: &["--workers", "2"],
        ..Launch::default()
    });
    let address = taken.addr().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hauld"));
    command
        .args(["--listen", &address, "--workers", "2"])
        .arg(dir.path());
    let said = run(&mut command).expect(2).stderr;
    assert!(said.contains("another program has it"), "{said}");
    let mut worker = Command::new(env!("CARGO_BIN_EXE_hauld"));
    worker.env("HAULD_WORKER", "0").arg(dir.path());
    let said = run_with(&mut worker, b"").expect(2).stderr;
    assert!(said.contains("unset it"), "{said}");
}

/// Loopback is not counted, so this is in a network of its own.
#[test]
fn one_address_gets_its_share_of_all_workers_together() {
    in_a_network(
        r#"
server, port = start("--anonymous", "read", "--run-as", "root", "--workers", "3",
                     "--max-per-address", "9")
try:
    here = []
    for _ in range(30):
        session = client(port, "192.0.2.2")
        if session[1].readline()[:3] == b"220":
            here.append(session)
        time.sleep(0.02)                                    # the word among the workers
    assert 9 <= len(here) <= 11, len(here)
    assert client(port, "192.0.2.3")[1].readline()[:3] == b"220"
    print("done")
finally:
    server.terminate()
    server.wait()
"#,
    );
}
