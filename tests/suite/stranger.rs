//! A stranger's view: what somebody who has not logged in can make a server do, hold, write or say.

use std::fs;
use std::path::Path;

use haul::session::verbs::VERBS;

use crate::common::bytewise::rest_of;
use crate::common::control::Control;
use crate::common::server::{Launch, Server, four_questions};
use crate::common::users::Users;
use crate::common::{PATIENCE, until, wait_for};

const FILE: &str = "canary-file";
const USER: &str = "canary-user";
const PASSWORD: &str = "canary-password";

/// What a stranger may say: every verb in several forms, and what is no verb at all.
fn sayings() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for verb in VERBS {
        let name = verb.name;
        for argument in [
            String::new(),
            format!(" {FILE}"),
            format!(" {USER}"),
            " ../../../etc/passwd".to_string(),
            " *".to_string(),
            format!(" {}", "x".repeat(4000)),
            " 127,0,0,1,200,1".to_string(),
            " |1|127.0.0.1|50000|".to_string(),
            " 18446744073709551616".to_string(),
            " \x1b]0;x\x07%s%n\u{202e}".to_string(),
        ] {
            all.push(format!("{name}{argument}\r\n").into_bytes());
        }
    }
    all.extend([
        format!("USER {USER}\r\nPASS wrong\r\n").into_bytes(),
        b"USER nobody-at-all\r\nPASS wrong\r\n".to_vec(),
        format!("UPLOAD 5 {FILE}\r\nhello").into_bytes(),
        format!("UPLOAD 5+ {FILE}\r\nhello").into_bytes(),
        format!("UPLOAD 1048576+ {FILE}\r\nhello").into_bytes(),
        b"EPSV\r\nSTOR f\r\n".to_vec(),
        b"RNFR canary-file\r\nRNTO g\r\n".to_vec(),
        vec![0; 5000],
        vec![0xff; 5000],
        b"\r\n".repeat(1000),
        b"\xff\xf4\xff\xf2ABOR\r\n".to_vec(),
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(),
        b"USER x\rlogin: user \"root\" from 1.2.3.4\r\nPASS y\r\n".to_vec(),
    ]);
    all
}

/// Says one thing, and closes its side; everything that comes back.
fn told(server: &Server, saying: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let session = Control::open(server.addr());
    let mut stream = session.stream();
    // Who is closed meanwhile has been told so.
    let _ = stream.write_all(saying);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    rest_of(stream).0
}

fn furnished(users: &Users, through: &[&str]) -> Server {
    let users = users.path();
    let server = Server::launch(&Launch {
        through,
        options: &[
            "--users",
            users.to_str().expect("a path"),
            "--log-level",
            "debug",
        ],
        ..Launch::default()
    });
    fs::write(server.path(FILE), "canary-content").expect("writing");
    server
}

fn users() -> Users {
    Users::new(&[(USER, PASSWORD, &[])])
}

#[test]
fn a_stranger_is_told_nothing_and_leaves_nothing() {
    let users = users();
    let server = furnished(&users, &[]);
    let descriptors = server.descriptors();
    // What one password check takes stays with its thread.
    told(&server, format!("USER {USER}\r\nPASS wrong\r\n").as_bytes());
    let memory_kib = server.rss_kib();
    let (mut said, mut heard) = (0, 0);
    for saying in sayings() {
        let answer = told(&server, &saying);
        said += saying.len();
        heard += answer.len();
        let text = String::from_utf8_lossy(&answer);
        for secret in [
            FILE,
            USER,
            PASSWORD,
            "canary-content",
            env!("CARGO_PKG_VERSION"),
            "/tmp",
            "root",
        ] {
            let shown = saying.escape_ascii().to_string();
            assert!(
                !text.contains(secret),
                "{secret} behind {shown:.200}: {text}"
            );
        }
        // Greeting, refusals, help: nothing that needs a login.
        let code = |line: &str| line.get(..3).and_then(|digits| digits.parse::<u16>().ok());
        for line in text.lines() {
            let Some(code) = code(line) else { continue };
            let harmless = [200, 202, 211, 214, 215, 220, 221, 226, 331, 421].contains(&code);
            assert!(harmless || code >= 500, "{line}");
        }
    }
    println!("{heard} bytes of answers to {said} bytes");
    assert!(heard < 10 * said, "{heard} bytes of answers to {said}");
    let grown = server.rss_kib().saturating_sub(memory_kib);
    assert!(grown < 2048, "{grown} KiB more");
    let gone = until(PATIENCE, || server.descriptors() <= descriptors);
    assert!(gone, "{} descriptors", server.descriptors());
    let names: Vec<_> = fs::read_dir(server.root())
        .expect("reading")
        .flatten()
        .collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn a_stranger_writes_only_lines_that_say_whose_they_are() {
    let users = users();
    let mut server = furnished(&users, &[]);
    let all = sayings();
    for saying in &all {
        told(&server, saying);
    }
    let ended = |server: &Server| server.log().matches("] ended: ").count();
    let all_ended = until(PATIENCE, || ended(&server) >= all.len());
    assert!(all_ended, "{} of {} have ended", ended(&server), all.len());
    server.stop();
    let log = server.log();
    for line in log.lines() {
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(line.len() < 5 * 4096, "{line:.200}");
        let (_, said) = line
            .split_once("[hauld] ")
            .unwrap_or_else(|| panic!("{line:?}"));
        assert!(!said.starts_with("login: "), "{line}");
    }
    assert!(log.contains(r#"user "x\x0dlogin: user \x22root\x22 from 1.2.3.4" from 127.0.0.1"#));
    assert!(
        !log.contains("hello") && !log.contains("wrong"),
        "what they sent is not shown"
    );
    let lines = log.lines().count();
    assert!(
        lines < 3 * all.len(),
        "{lines} lines for {} strangers",
        all.len()
    );
}

/// Existing and unknown users hear the same at every step, and neither is told from a locked one.
#[test]
fn a_stranger_cannot_tell_who_is_there() {
    let users = users();
    let server = users.server();
    let answers = |name: &str| {
        let dialogue = format!(
            "USER {name}\r\nACCT x\r\nPASS wrong\r\nPASS\r\nUSER {name}\r\nPASS {name}\r\n"
        );
        told(&server, dialogue.as_bytes())
            .escape_ascii()
            .to_string()
    };
    let known = answers(USER);
    for name in ["nobody-at-al", "CANARY-USER", "root", "haul"] {
        assert_eq!(answers(name), known, "{name}");
    }
}

/// From the start to the end of a stranger's session, no system call names a file.
#[test]
fn a_stranger_causes_no_file_system_call() {
    let users = users();
    let dir = tempfile::tempdir().expect("making a directory");
    let trace = dir.path().join("trace");
    let trace_text = trace.to_str().expect("a path");
    // strace goes into the background, so that the process of the test is hauld itself.
    let server = furnished(
        &users,
        &[
            "strace",
            "-D",
            "-f",
            "-qq",
            "-e",
            "trace=%file,ftruncate,fchmod,getdents64",
            "-e",
            "signal=none",
            "-o",
            trace_text,
        ],
    );
    // One of those who are let in is seen, so that the others could be.
    let mut session = Control::connect(server.addr());
    assert_eq!(session.command(&format!("USER {USER}")).code, 331);
    assert_eq!(session.command(&format!("PASS {PASSWORD}")).code, 230);
    assert_eq!(session.command(&format!("SIZE {FILE}")).code, 213);
    session.quit();
    let seen = until(PATIENCE, || {
        lines(&trace).iter().any(|line| line.contains(FILE))
    });
    assert!(seen, "{:?}", lines(&trace));
    let before = lines(&trace).len();
    for saying in sayings() {
        told(&server, &saying);
    }
    // The same again: what strangers did would stand before it.
    let mut session = Control::connect(server.addr());
    assert_eq!(session.command(&format!("USER {USER}")).code, 331);
    assert_eq!(session.command(&format!("PASS {PASSWORD}")).code, 230);
    assert_eq!(session.command("SIZE the-last").code, 550);
    let seen = wait_for(PATIENCE, || {
        lines(&trace)
            .iter()
            .position(|line| line.contains("the-last"))
    });
    let at = seen.unwrap_or_else(|| panic!("{:?}", lines(&trace)));
    assert_eq!(at, before, "{:?}", &lines(&trace)[before..=at]);
    session.quit();
}

fn lines(trace: &Path) -> Vec<String> {
    let text = fs::read(trace).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().map(str::to_string).collect()
}

/// What a stranger holds while he is there: one descriptor, and no port.
#[test]
fn a_stranger_holds_one_descriptor() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    for verb in VERBS
        .iter()
        .filter(|verb| !["QUIT", "AUTH"].contains(&verb.name))
    {
        let mut session = Control::connect(server.addr());
        session.send(format!("{} 1\r\n", verb.name).as_bytes());
        session.reply();
        assert_eq!(server.descriptors(), baseline + 1, "{}", verb.name);
        drop(session);
        let gone = until(PATIENCE, || server.descriptors() == baseline);
        assert!(gone, "{}", verb.name);
    }
    four_questions(&server, baseline);
}
