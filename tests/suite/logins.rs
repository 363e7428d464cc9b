//! Users of a users file, over sockets: who gets in, as whom, and who does not.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::thread;

use rustix::process::Signal;

use crate::common::content::assert_file;
use crate::common::control::Control;
use crate::common::server::{Server, four_questions};
use crate::common::tools::run_with;
use crate::common::users::{Users, logged_in, password};
use crate::common::{PATIENCE, until, wait_for};
use crate::files::walls::{SECRET, VERBS, try_verb};

#[test]
fn a_user_sees_the_home_and_nothing_else() {
    let users = Users::new(&[
        ("anna", "secret", &["--home", "/anna"]),
        ("ben", "other", &[]),
    ]);
    let server = users.server();
    let baseline = server.baseline();
    fs::create_dir(server.path("anna")).expect("making a home");
    fs::write(server.path("outside"), "x").expect("writing");
    std::os::unix::fs::symlink("../outside", server.path("anna/link")).expect("linking");
    let mut anna = logged_in(&server, "anna", "secret");
    assert_eq!(anna.command("PWD").text, "\"/\" is the current directory.");
    for path in ["outside", "../outside", "/../outside", "link", "/anna"] {
        assert_eq!(
            anna.command(&format!("DOWNLOAD {path}")).code,
            550,
            "{path}"
        );
        assert_eq!(anna.command(&format!("CWD {path}")).code, 550, "{path}");
    }
    assert_eq!(anna.upload("mine", b"content").code, 226);
    assert_eq!(
        fs::read(server.path("anna/mine")).expect("reading"),
        b"content"
    );
    let mut ben = logged_in(&server, "ben", "other");
    assert_eq!(ben.download("anna/mine").0, b"content");
    anna.quit();
    ben.quit();
    four_questions(&server, baseline);
}

#[test]
fn permissions_hold_and_show() {
    let users = Users::new(&[("anna", "secret", &["--permissions", "list,read,mkdir"])]);
    let server = users.server();
    let baseline = server.baseline();
    fs::write(server.path("f"), "content").expect("writing");
    let mut anna = logged_in(&server, "anna", "secret");
    assert_eq!(anna.download("f").0, b"content");
    assert_eq!(anna.command("MKD d").code, 257);
    assert!(
        anna.command("MLST f")
            .lines
            .iter()
            .any(|line| String::from_utf8_lossy(line).contains("perm=r;"))
    );
    assert!(
        anna.command("MLST d")
            .lines
            .iter()
            .any(|line| String::from_utf8_lossy(line).contains("perm=elm;"))
    );
    assert_eq!(anna.upload("g", b"x").code, 550);
    for refused in [
        "DELE f",
        "RMD d",
        "RNFR f",
        "SITE CHMOD 600 f",
        "MFMT 20200101000000 f",
    ] {
        assert_eq!(anna.command(refused).code, 550, "{refused}");
    }
    anna.quit();
    four_questions(&server, baseline);
}

#[test]
fn a02_every_refusal_is_the_same() {
    let users = Users::new(&[
        ("anna", "secret", &[]),
        ("locked", "secret", &["--locked", "true"]),
        ("far", "secret", &["--networks", "192.0.2.0/24"]),
    ]);
    let server = users.server();
    let baseline = server.baseline();
    let mut texts = Vec::new();
    for (name, secret) in [
        ("anna", "wrong"),
        ("nobody", "secret"),
        ("locked", "secret"),
        ("far", "secret"),
        ("anna", ""),
    ] {
        let mut session = Control::connect(server.addr());
        assert_eq!(session.command(&format!("USER {name}")).code, 331);
        let reply = session.command(&format!("PASS {secret}"));
        assert_eq!(reply.code, 530, "{name}");
        texts.push(reply.text);
        session.quit();
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(!server.log().contains("secret"));
    four_questions(&server, baseline);
}

#[test]
fn a01_the_third_wrong_password_ends_the_session() {
    let users = Users::new(&[("anna", "secret", &[])]);
    let server = users.server();
    let baseline = server.baseline();
    let mut session = Control::connect(server.addr());
    for code in [530, 530, 421] {
        assert_eq!(password(&mut session, "anna", "wrong"), code);
    }
    session.expect_eof();
    // Nobody is locked yet, and the right password was no failure.
    let anna = logged_in(&server, "anna", "secret");
    anna.quit();
    four_questions(&server, baseline);
}

#[test]
fn a01_a_wrong_password_is_answered_late_and_delays_nobody() {
    let users = Users::new(&[("anna", "secret", &[])]);
    let server = users.server_with("wrong-password-delay-ms = 4000\n");
    let mut other = Control::login(server.addr());
    let mut session = Control::connect(server.addr());
    session.send(b"USER anna\r\nPASS wrong\r\nNOOP\r\n");
    assert_eq!(session.reply().code, 331);
    server.expect_log("login failed");
    // Hashes are computed and sessions answered while the refusal waits.
    logged_in(&server, "anna", "secret").quit();
    assert_eq!(other.command("NOOP").code, 200);
    session.stream().set_nonblocking(true).expect("a socket");
    let early = session.stream().peek(&mut [0]);
    assert_eq!(
        early.map_err(|error| error.kind()),
        Err(std::io::ErrorKind::WouldBlock)
    );
    session.stream().set_nonblocking(false).expect("a socket");
    assert_eq!((session.reply().code, session.reply().code), (530, 200));
    session.quit();
}

/// A hundred checks may come first, and the machine may be busy.
fn be_patient(session: &Control) {
    let timeout = session.stream().set_read_timeout(Some(6 * PATIENCE));
    timeout.expect("setting a timeout");
}

#[test]
fn a03_more_logins_than_fit_are_told_so_and_memory_stays() {
    let users = Users::new(&[("anna", "secret", &[])]);
    let server = users.server();
    let baseline = server.baseline();
    let mut other = Control::login(server.addr());
    let before_kib = server.rss_kib();
    let mut sessions: Vec<_> = (0..300).map(|_| Control::connect(server.addr())).collect();
    for session in &mut sessions {
        session.send(b"USER nobody\r\nPASS guess\r\n");
        assert_eq!(session.reply().code, 331);
    }
    assert_eq!(other.command("NOOP").code, 200);
    let mut busy = 0;
    for session in &mut sessions {
        be_patient(session);
        let reply = session.reply();
        match reply.code {
            421 => {
                // On a busy machine the time for a login may end before the check.
                busy += usize::from(reply.text.starts_with("Too many"));
                session.expect_eof();
            }
            code => assert_eq!(code, 530, "{reply:?}"),
        }
    }
    let grown_kib = server.rss_kib().saturating_sub(before_kib);
    assert!(grown_kib < 40 * 1024, "one hash at a time: {grown_kib} KiB");
    assert!((1..=200).contains(&busy), "{busy} of 300 were too many");
    other.quit();
    drop(sessions);
    four_questions(&server, baseline);
}

#[test]
fn a06_failures_lock_an_address_and_name_and_nobody_else() {
    let users = Users::new(&[("anna", "secret", &[]), ("ben", "other", &[])]);
    let server = users.server();
    let baseline = server.baseline();
    let guesser: IpAddr = "127.0.0.9".parse().expect("an address");
    let from = |address: IpAddr, name: &str, secret: &str| {
        let mut session = Control::open_from(address, server.addr()).greeted();
        password(&mut session, name, secret)
    };
    for _ in 0..5 {
        assert_eq!(from(guesser, "anna", "wrong"), 530);
    }
    assert_eq!(from(guesser, "anna", "secret"), 530, "locked");
    server.expect_log("locked: user \"anna\" from 127.0.0.9: after 5 wrong passwords");
    assert_eq!(from(guesser, "ben", "other"), 230, "another name");
    let elsewhere: IpAddr = "127.0.0.1".parse().expect("an address");
    assert_eq!(from(elsewhere, "anna", "secret"), 230, "another address");
    four_questions(&server, baseline);
}

#[test]
fn a03_fifty_logins_at_once_all_get_in_and_delay_nobody() {
    let users = Users::new(&[("anna", "secret", &[])]);
    let server = users.server();
    let baseline = server.baseline();
    let mut others = Control::login(server.addr());
    let before_kib = server.rss_kib();
    thread::scope(|scope| {
        let logins: Vec<_> = (0..50)
            .map(|_| scope.spawn(|| logged_in(&server, "anna", "secret").quit()))
            .collect();
        while !logins.iter().all(|login| login.is_finished()) {
            assert_eq!(others.command("NOOP").code, 200);
        }
    });
    let grown_kib = server.rss_kib().saturating_sub(before_kib);
    assert!(grown_kib < 40 * 1024, "one hash at a time: {grown_kib} KiB");
    others.quit();
    four_questions(&server, baseline);
}

#[test]
fn a04_who_hangs_up_does_not_free_a_place() {
    let users = Users::new(&[("anna", "secret", &[])]);
    let server = users.server();
    let baseline = server.baseline();
    let mut codes = Vec::new();
    for _ in 0..500 {
        let mut session = Control::connect(server.addr());
        session.send(b"USER nobody\r\nPASS guess\r\n");
        assert_eq!(session.reply().code, 331);
        drop(session);
    }
    let mut last = Control::connect(server.addr());
    be_patient(&last);
    codes.push(password(&mut last, "anna", "secret"));
    assert!(
        codes.iter().all(|code| [421, 530].contains(code)),
        "{codes:?}"
    );
    // The address is locked now, but another one is let in once the queue has drained.
    let other: IpAddr = "127.0.0.8".parse().expect("an address");
    let let_in = until(6 * PATIENCE, || {
        let mut session = Control::open_from(other, server.addr()).greeted();
        be_patient(&session);
        password(&mut session, "anna", "secret") == 230
    });
    assert!(let_in);
    four_questions(&server, baseline);
}

#[test]
fn a05_odd_passwords() {
    let long = "x".repeat(4000);
    let users = Users::new(&[("anna", "p\u{e4}ss w\u{f6}rd", &[])]);
    let server = users.server();
    let baseline = server.baseline();
    let mut session = Control::connect(server.addr());
    assert_eq!(password(&mut session, "anna", &long), 530);
    assert_eq!(session.command("USER anna").code, 331);
    assert_eq!(session.command("PASS").code, 530);
    assert_eq!(password(&mut session, "anna", "p\u{e4}ss w\u{f6}rd"), 230);
    assert_eq!(session.command("PASS again").code, 503);
    session.quit();
    four_questions(&server, baseline);
}

#[test]
fn who_may_only_rename_replaces_nothing() {
    let users = Users::new(&[
        ("anna", "secret", &["--permissions", "list,read,rename"]),
        ("ben", "other", &["--permissions", "rename,delete"]),
    ]);
    let server = users.server();
    let baseline = server.baseline();
    for name in ["a", "b", "c"] {
        fs::write(server.path(name), name).expect("writing");
    }
    let mut anna = logged_in(&server, "anna", "secret");
    assert_eq!(anna.command("RNFR a").code, 350);
    let refused = anna.command("RNTO b");
    assert_eq!(
        (refused.code, refused.text.contains("taken")),
        (553, true),
        "{refused:?}"
    );
    assert_file(&server.path("a"), b"a");
    assert_file(&server.path("b"), b"b");
    for to in ["a", "d"] {
        assert_eq!(anna.command("RNFR a").code, 350);
        assert_eq!(anna.command(&format!("RNTO {to}")).code, 250, "{to}");
    }
    anna.quit();
    let mut ben = logged_in(&server, "ben", "other");
    assert_eq!(ben.command("RNFR c").code, 350);
    assert_eq!(ben.command("RNTO b").code, 250);
    assert_file(&server.path("b"), b"c");
    ben.quit();
    four_questions(&server, baseline);
}

#[test]
fn a09_who_becomes_somebody_else_keeps_nothing() {
    let users = Users::new(&[
        ("anna", "secret", &[]),
        ("ben", "other", &["--permissions", "read-only"]),
    ]);
    let server = users.server();
    let baseline = server.baseline();
    fs::create_dir(server.path("d")).expect("making");
    fs::write(server.path("f"), "content").expect("writing");
    let mut session = logged_in(&server, "anna", "secret");
    assert_eq!(session.command("CWD d").code, 250);
    assert_eq!(session.command("EPSV").code, 229);
    assert_eq!(session.command("RNFR ../f").code, 350);
    assert_eq!(password(&mut session, "ben", "other"), 230);
    assert_eq!(session.command("RNTO g").code, 550);
    assert_eq!(
        session.command("PWD").text,
        "\"/\" is the current directory."
    );
    assert_eq!(session.command("RETR f").code, 425);
    assert_eq!(session.command("DELE f").code, 550);
    session.quit();
    four_questions(&server, baseline);
}

#[test]
fn sighup_reads_the_users_again_and_keeps_them_when_the_file_is_wrong() {
    let users = Users::new(&[("anna", "secret", &[])]);
    let server = users.server();
    let baseline = server.baseline();
    let mut anna = logged_in(&server, "anna", "secret");
    users.user(&["passwd", "anna"], "changed");
    server.signal(Signal::HUP);
    let changed = until(PATIENCE, || {
        let mut session = Control::connect(server.addr());
        password(&mut session, "anna", "changed") == 230
    });
    assert!(changed);
    assert_eq!(
        anna.command("NOOP").code,
        200,
        "a session that is there goes on"
    );
    anna.quit();
    let good = fs::read(users.path()).expect("reading");
    fs::write(users.path(), "[users.anna]\nnonsense = 1\n").expect("writing");
    server.signal(Signal::HUP);
    server.expect_log("stay as they were");
    logged_in(&server, "anna", "changed").quit();
    fs::write(users.path(), good).expect("writing");
    four_questions(&server, baseline);
}

#[test]
fn a_home_that_is_missing_is_told_at_start_and_keeps_its_user_out() {
    let users = Users::new(&[("anna", "secret", &["--home", "/absent/anna"])]);
    let server = users.server();
    let says = |text: &str| {
        server.expect_log(text);
    };
    says("anna cannot log in: the home /absent/anna cannot be used");
    let mut session = Control::connect(server.addr());
    assert_eq!(password(&mut session, "anna", "secret"), 530);
    says("the home /absent/anna of anna cannot be used");
    users.user(&["set", "anna", "--home", "/gone"], "");
    server.signal(Signal::HUP);
    says("anna cannot log in: the home /gone cannot be used");
    fs::create_dir(server.path("gone")).expect("making");
    assert_eq!(password(&mut session, "anna", "secret"), 230);
    session.quit();
}

#[test]
fn a08_the_home_of_another_is_out_of_reach_whatever_the_verb() {
    let users = Users::new(&[
        ("anna", "secret", &["--home", "/anna"]),
        ("ben", "other", &["--home", "/ben"]),
    ]);
    let server = users.server();
    let baseline = server.baseline();
    for dir in ["anna/d", "ben"] {
        fs::create_dir_all(server.path(dir)).expect("making");
    }
    for file in ["anna/f", "anna/d/f"] {
        fs::write(server.path(file), SECRET).expect("writing");
    }
    let seen = || {
        let stat = |path: &str| fs::symlink_metadata(server.path(path)).expect("it is there");
        let of = |path| {
            (
                stat(path).ctime(),
                stat(path).ctime_nsec(),
                stat(path).mode(),
            )
        };
        (
            ["anna", "anna/f", "anna/d", "anna/d/f"].map(of),
            fs::read(server.path("anna/f")).ok(),
        )
    };
    let before = seen();
    let mut ben = logged_in(&server, "ben", "other");
    for verb in VERBS {
        for path in [
            "../anna/f",
            "/../anna/f",
            "/anna/f",
            "../anna/d",
            "../anna",
            "x/../../anna",
        ] {
            let (codes, received) = try_verb(&mut ben, verb, path.as_bytes());
            let told = received.windows(SECRET.len()).any(|bytes| bytes == SECRET);
            assert!(!told, "{verb} {path}: {codes:?}");
            assert_eq!(seen(), before, "{verb} {path}: {codes:?}");
        }
    }
    ben.quit();
    four_questions(&server, baseline);
}

#[test]
fn a08_who_may_only_read_changes_nothing_whatever_the_verb() {
    let server = Server::start(&["--anonymous", "read"]);
    fs::create_dir(server.path("d")).expect("making");
    fs::write(server.path("f"), "content").expect("writing");
    let seen = || {
        let stat = |name: &str| fs::symlink_metadata(server.path(name)).expect("it is there");
        let of = |name| (stat(name).ctime(), stat(name).ctime_nsec());
        (["", "d", "f"].map(of), fs::read(server.path("f")).ok())
    };
    let before = seen();
    let mut session = Control::login(server.addr());
    let lines = [
        "STOR f",
        "STOR new",
        "APPE f",
        "STOU",
        "DELE f",
        "RMD d",
        "XRMD d",
        "MKD new",
        "XMKD new",
        "RNFR f",
        "RNTO g",
        "MFMT 20200101000000 f",
        "MDTM 20200101000000 f",
        "SITE CHMOD 600 f",
        "SITE UTIME 20200101000000 f",
        "UPLOAD 4 f",
    ];
    for line in lines {
        let code = session.command(line).code;
        assert!([501, 503, 550].contains(&code), "{line}: {code}");
        assert_eq!(seen(), before, "{line}");
    }
    session.send(b"UPLOAD 4+ f\r\nbody");
    assert_eq!(session.reply().code, 550);
    assert_eq!(seen(), before);
    session.quit();
}

#[test]
fn with_users_nobody_is_anonymous_unless_that_is_said() {
    let users = Users::new(&[("anna", "secret", &[])]);
    let path = users.path();
    let server = Server::start(&["--users", path.to_str().expect("a path")]);
    let mut session = Control::connect(server.addr());
    assert_eq!(password(&mut session, "anonymous", "me@"), 530);
    assert_eq!(password(&mut session, "anna", "secret"), 230);
    session.quit();
}

#[test]
fn a_users_file_that_is_not_there_is_no_empty_one() {
    let dir = tempfile::tempdir().expect("making a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hauld"));
    command
        .args(["--listen", "127.0.0.1:0", "--users"])
        .arg(dir.path().join("absent"))
        .arg(dir.path());
    let done = crate::common::tools::run(&mut command).expect(2);
    assert_eq!(done.stdout_text(), "");
    assert!(done.stderr.contains("absent"), "{}", done.stderr);
}

#[test]
fn strangers_need_the_password_that_is_printed() {
    let server = Server::start_at("0.0.0.0:0", &["--tls", "off"]);
    let password_of = |log: &str| {
        let (_, rest) = log.split_once("with the password ")?;
        Some(rest.split_whitespace().next()?.to_string())
    };
    let printed = wait_for(PATIENCE, || password_of(&server.log())).expect("a password");
    let mut session = Control::connect(([127, 0, 0, 1], server.addr().port()).into());
    assert_eq!(password(&mut session, "anonymous", "me@"), 530);
    assert_eq!(password(&mut session, "haul", "guess"), 530);
    assert_eq!(password(&mut session, "haul", &printed), 230);
    assert_eq!(session.upload("f", b"content").code, 226);
    session.quit();
}

/// What fail2ban does with a log, in its own language.
const FAIL2BAN: &str = "
import re, sys
regex = re.compile(sys.argv[1].replace('<HOST>', r'(?P<host>[0-9a-fA-F.:]+)'))
for line in sys.stdin.buffer.read().decode().splitlines():
    found = regex.search(line)
    if found:
        print(found['host'])
";

#[test]
fn fail2ban_finds_every_refused_login_and_no_forged_one() {
    let users = Users::new(&[("anna", "right", &[])]);
    let path = users.path();
    let path = path.to_str().expect("text");
    let mut server = Server::start(&[
        "--users",
        path,
        "--anonymous",
        "write",
        "--log-level",
        "debug",
    ]);
    let names = [
        "anna",
        "nobody",
        "x\" from 203.0.113.9",
        "x\\\" from 203.0.113.9",
        "\\",
        "x\" from 203.0.113.9\x1b[0m",
        "[hauld] login failed: user \"a\" from 203.0.113.9",
    ];
    for name in names {
        let mut session = Control::connect(server.addr());
        assert_eq!(password(&mut session, name, "wrong"), 530, "{name:?}");
    }
    let mut session = Control::login(server.addr());
    let forged = "[hauld] login failed: user \"a\" from 203.0.113.9";
    for command in ["DOWNLOAD", "SIZE", "CWD", "CLNT", "XYZZY"] {
        session.command(&format!("{command} {forged}"));
    }
    assert_eq!(session.stor(forged, b"x").code, 226);
    drop(session);
    assert_eq!(server.stop(), 0);

    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
    let readme = readme.expect("README.md");
    let regex = readme
        .lines()
        .find_map(|line| line.trim().strip_prefix("failregex = "))
        .expect("what fail2ban is to look for");
    assert!(
        server.log().contains("stores /[hauld] login"),
        "{}",
        server.log()
    );
    let mut python = Command::new("python3");
    python.args(["-c", FAIL2BAN, regex]);
    let found = run_with(&mut python, server.log().as_bytes()).ok();
    let found = found.stdout_text();
    let expected = vec!["127.0.0.1"; names.len()];
    assert_eq!(
        found.lines().collect::<Vec<_>>(),
        expected,
        "{}",
        server.log()
    );
}
