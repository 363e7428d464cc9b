//! `hauld check`: what would go wrong is said, and nothing else.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::common::secure::Pair;
use crate::common::server::{Launch, Server};
use crate::common::tools::run;

/// The lines, and whether all is well.
fn check(options: &[&str]) -> (String, i32) {
    let hauld = env!("CARGO_BIN_EXE_hauld");
    let done = run(Command::new(hauld).arg("check").args(options));
    assert_eq!(done.stderr, "", "{options:?}");
    let lines = done.stdout_text();
    for line in lines.lines() {
        let level = line.split_whitespace().next();
        let known = matches!(level, Some("ok" | "warning" | "error"));
        assert!(known && line.contains(": "), "{line}");
    }
    let bad = lines.lines().any(|line| line.starts_with("error"));
    assert_eq!(done.code, i32::from(bad), "{lines}");
    (lines, done.code)
}

#[track_caller]
fn says(options: &[&str], level: &str, text: &str) {
    let (lines, _) = check(options);
    let found = lines
        .lines()
        .any(|line| line.starts_with(level) && line.contains(text));
    assert!(found, "{options:?} does not say {level} {text}:\n{lines}");
}

fn dir() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[test]
fn a_good_configuration_is_all_ok_and_makes_nothing() {
    let (pair, dir) = (Pair::new(), dir());
    let options = [
        "--max-sessions",
        "100",
        "--listen",
        "127.0.0.1:0",
        text(dir.path()),
    ];
    let (lines, code) = check(&options);
    assert_eq!(code, 0, "{lines}");
    let fine = |line: &str| line.starts_with("ok ") || line.contains(" landlock: ");
    assert!(lines.lines().all(fine), "{lines}");
    assert_eq!(fs::read_dir(dir.path()).expect("listing").count(), 0);
    let with_tls = pair.options();
    let with_tls: Vec<&str> = with_tls.iter().map(String::as_str).collect();
    says(
        &[&with_tls[..], &options].concat(),
        "ok",
        "localhost, 127.0.0.1",
    );
}

#[test]
fn options_and_addresses() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let taken = taken.local_addr().expect("bound").to_string();
    let (port, served) = (taken.rsplit(':').next().expect("a port"), dir());
    let served = text(served.path());
    let public = ["--listen", "0.0.0.0:0", "--run-as", "root", served];
    let with = |more: &[&'static str]| [&public[..], more].concat();
    says(&["--max-sessions", "0"], "error", "at least 1");
    says(&["--tls-cert", "x"], "error", "--tls-key");
    says(&["--config", "/nowhere"], "error", "/nowhere");
    says(&["--listen", &taken, served], "error", "another program");
    says(
        &["--listen", "192.0.2.1:0"],
        "error",
        "no address of this machine",
    );
    says(
        &["--listen", "0.0.0.0:0"],
        "error",
        "root does not serve strangers",
    );
    says(&public, "warning", "no firewall can let just them in");
    says(&public, "warning", "a password is made at each start");
    says(&public, "warning", "clients have to be told to trust it");
    says(&with(&["--tls", "optional"]), "warning", "in clear");
    says(
        &with(&["--passive-address", "10.0.0.1"]),
        "warning",
        "means nothing",
    );
    says(
        &with(&["--passive-address", "::1"]),
        "error",
        "PASV can tell no IPv6",
    );
    says(
        &with(&["--passive-ports", "2000-2003"]),
        "warning",
        "at most 4 data",
    );
    says(
        &["--passive-ports", "40000-40063"],
        "warning",
        "outgoing connections",
    );
    let range = ["--listen", "127.0.0.1:0", "--passive-ports", port, served];
    says(&range, "error", "all of them are taken");
    says(
        &["--anonymous", "none", served],
        "error",
        "nobody can log in",
    );
}

#[test]
fn certificates() {
    let pair = Pair::new();
    let (cert, key) = (pair.cert(), pair.key());
    let options = ["--tls-cert", text(&cert), "--tls-key", text(&key)];
    let write = |names: &[&str], days: i64| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_string()).collect();
        let mut params = rcgen::CertificateParams::new(names).expect("names");
        let now = time::OffsetDateTime::now_utc();
        params.not_before = now - time::Duration::days(100);
        // Half a day more, so that the number of days is the same all day.
        params.not_after = now + time::Duration::hours(days * 24 + 12);
        let new = rcgen::KeyPair::generate().expect("a key");
        let made = params.self_signed(&new).expect("a certificate");
        fs::write(&cert, made.pem()).expect("writing");
        fs::write(&key, new.serialize_pem()).expect("writing");
    };
    write(&["files.example.org"], 90);
    says(&options, "ok", "holds for 90 days");
    says(&options, "ok", "it is for files.example.org");
    says(&options, "warning", "self-signed");
    write(&[], 29);
    says(&options, "warning", "expires in 29 days");
    says(&options, "warning", "names no host");
    write(&["files.example.org"], -2);
    says(&options, "error", "it has expired");

    // A server says so too, and serves: what nobody can reach cannot be repaired from afar.
    let server = Server::start(&options);
    server.expect_log("has expired");

    let other = Pair::new();
    let other_key = ["--tls-cert", text(&cert), "--tls-key", text(&other.key())].map(String::from);
    let other_key: Vec<&str> = other_key.iter().map(String::as_str).collect();
    says(
        &other_key,
        "error",
        "the key is not that of the certificate",
    );
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("chmod");
    says(&options, "warning", "anybody on this machine may read it");
    fs::remove_file(&key).expect("removing");
    says(&options, "error", "cannot read");
}

#[test]
fn users_and_directories() {
    let (nest, served) = (dir(), dir());
    let (users, root) = (nest.path().join("users.toml"), served.path());
    let hauld = || Command::new(env!("CARGO_BIN_EXE_hauld"));
    let add = [
        "user",
        "add",
        "anna",
        "--home",
        "/anna",
        "--users",
        text(&users),
    ];
    crate::common::tools::run_with(hauld().args(add), b"secret word").ok();
    let options = ["--users", text(&users), text(root)];
    says(&options, "ok", "1 user");
    says(&options, "warning", "the home /anna cannot be used");
    fs::create_dir(root.join("anna")).expect("a home");
    assert!(!check(&options).0.contains("anna"), "{}", check(&options).0);

    // As another user than root: what is read again has to be readable, and the directory writable.
    let nobody = [&options[..], &["--run-as", "nobody"]].concat();
    says(&nobody, "ok", "this can become nobody");
    says(&nobody, "warning", "cannot be read again on SIGHUP");
    says(
        &nobody,
        "warning",
        "no file can be stored: Permission denied",
    );
    chown(root, Some(65534), None).expect("these tests run as root");
    chown(&users, Some(65534), None).expect("these tests run as root");
    says(&nobody, "ok", "files can be stored");
    says(&nobody, "ok", "it can be read again");
    fs::set_permissions(root, fs::Permissions::from_mode(0o777)).expect("chmod");
    says(&options, "warning", "anybody on this machine may change it");

    let inside = root.join("users.toml");
    fs::copy(&users, &inside).expect("copying");
    let options = ["--users", text(&inside), text(root)];
    says(&options, "error", "below the directory that is served");
    fs::write(&inside, "[users.anna]\npassword = 1\n").expect("writing");
    says(&options, "error", "line 2");
    says(&[text(&root.join("absent"))], "error", "No such file");
    says(&[text(&inside)], "error", "Not a directory");
}

/// It used to be served, with a warning, and to refuse everything.
#[test]
fn a_directory_that_may_not_be_entered_is_not_served() {
    let served = dir();
    let options = [
        "--run-as",
        "nobody",
        "--listen",
        "127.0.0.1:0",
        text(served.path()),
    ];
    fs::set_permissions(served.path(), fs::Permissions::from_mode(0o700)).expect("chmod");
    says(&options, "error", "it cannot be entered");
    for more in [&[][..], &["--workers", "2"], &["--landlock", "off"]] {
        let mut hauld = Command::new(env!("CARGO_BIN_EXE_hauld"));
        let done = run(hauld.args(more).args(options)).expect(2);
        assert_eq!(done.stdout_text(), "", "{more:?}");
        let says = "nobody, the user of --run-as, may not enter it";
        assert!(done.stderr.contains(says), "{more:?}: {}", done.stderr);
    }
    // Homes in it may be open to that user.
    fs::set_permissions(served.path(), fs::Permissions::from_mode(0o711)).expect("chmod");
    says(&options, "warning", "only what clients know by name");
    let server = Server::launch(&Launch {
        dir: Some(served.path()),
        options: &["--run-as", "nobody"],
        ..Launch::default()
    });
    server.expect_log("cannot be listed, so clients have to know the names in it");
}

#[test]
fn a_users_file_that_clients_could_ask_for_is_warned_about_at_start() {
    let nest = dir();
    fs::create_dir(nest.path().join("served")).expect("a directory");
    let users = nest.path().join("served/users.toml");
    fs::write(&users, "").expect("writing");
    let link = nest.path().join("link");
    std::os::unix::fs::symlink(&users, &link).expect("a link");
    let mut hauld = Command::new(env!("CARGO_BIN_EXE_hauld"));
    hauld.args(["--listen", "127.0.0.1:0", "--users", text(&link)]);
    let mut hauld = hauld
        .arg(nest.path().join("served"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starting hauld");
    let log = BufReader::new(hauld.stderr.take().expect("a pipe"));
    let warned = log
        .lines()
        .map_while(Result::ok)
        .take_while(|line| !line.contains("] serving "))
        .any(|line| line.contains("below the directory that is served"));
    hauld.kill().expect("ending hauld");
    hauld.wait().expect("ending hauld");
    assert!(warned);
}

#[test]
fn open_files() {
    let served = dir();
    for (limit, level, text) in [
        ("--nofile=1000:1000", "error", "too few for 1000 sessions"),
        ("--nofile=2000:2000", "warning", "not when all transfer"),
        ("--nofile=4000:4000", "ok", "are allowed"),
    ] {
        // Root may raise the limit, unless it has not got that right.
        let mut command = Command::new("prlimit");
        command.args([limit, "setpriv", "--bounding-set=-sys_resource"]);
        command.args([env!("CARGO_BIN_EXE_hauld"), "check", "--max-sessions=1000"]);
        let done = run(command.arg(served.path()));
        let found = done.stdout_text();
        let found = found.lines().find(|line| line.contains(" open files: "));
        let found = found.unwrap_or_else(|| panic!("{done:?}"));
        assert!(found.starts_with(level) && found.contains(text), "{found}");
    }
}
