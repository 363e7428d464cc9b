//! Certificates of clients that stand for a password.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::common::secure::Pair;
use crate::common::server::{Launch, Server, four_questions};
use crate::common::tools::{Done, curl, run, run_with};
use crate::common::{PATIENCE, until};

fn fingerprint(pair: &Pair) -> String {
    let mut openssl = Command::new("openssl");
    openssl
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(pair.cert());
    let shown = run(&mut openssl).ok().stdout_text();
    shown.split('=').nth(1).expect("=").trim().to_string()
}

fn hauld_user(args: &[&str]) -> Done {
    let mut hauld = Command::new(env!("CARGO_BIN_EXE_hauld"));
    hauld.arg("user").args(args);
    run_with(&mut hauld, b"secret\n")
}

/// What curl's exit code is, as `user`, with a certificate or without.
fn fetched(server: &Server, user: &str, pair: Option<&Pair>, version: &str) -> (i32, Vec<u8>) {
    let url = format!("ftp://{}/f", server.addr());
    let mut args: Vec<String> = ["-k", "--ssl-reqd", "--tls-max", version, "-u", user, &url]
        .map(String::from)
        .into();
    if let Some(pair) = pair {
        let path = |path: std::path::PathBuf| path.to_str().expect("a path").to_string();
        let of_certificate = ["--cert".into(), path(pair.cert())];
        args.extend(
            of_certificate
                .into_iter()
                .chain(["--key".into(), path(pair.key())]),
        );
    }
    let done = curl(&args);
    (done.code, done.stdout)
}

#[test]
fn a_certificate_stands_for_the_password_of_its_user() {
    const WELCOME: i32 = 0;
    const LOGIN_DENIED: i32 = 67;
    let (of_server, annas, strange) = (Pair::new(), Pair::new(), Pair::new());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("users.toml");
    let users = file.to_str().unwrap();
    hauld_user(&["add", "ben", "--users", users]).ok();
    let spelt = fingerprint(&annas).replace(':', "").to_lowercase();
    hauld_user(&["add", "anna", "--certificates", &spelt, "--users", users]).ok();
    let listed = hauld_user(&["list", "--users", users]).ok().stdout_text();
    assert!(listed.contains("1 certificate"), "{listed}");

    let options = of_server.options();
    let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
    options.extend(["--users", users, "--anonymous", "write"]);
    let server = Server::start(&options);
    let baseline = server.baseline();
    fs::write(server.path("f"), b"content").unwrap();
    let content = (WELCOME, b"content".to_vec());
    let denied = (LOGIN_DENIED, Vec::new());
    for version in ["1.3", "1.2"] {
        assert_eq!(fetched(&server, "anna:any", Some(&annas), version), content);
        assert_eq!(
            fetched(&server, "anna:any", Some(&strange), version),
            denied
        );
        assert_eq!(fetched(&server, "anna:any", None, version), denied);
        assert_eq!(fetched(&server, "ben:any", Some(&annas), version), denied);
        assert_eq!(
            fetched(&server, "ben:secret", Some(&annas), version),
            content
        );
        assert_eq!(
            fetched(&server, "anonymous:", Some(&annas), version),
            content
        );
    }

    // Taken away, it is nothing any more.
    hauld_user(&["set", "anna", "--certificates", "none", "--users", users]).ok();
    server.signal(Signal::HUP);
    let gone = until(PATIENCE, || {
        fetched(&server, "anna:any", Some(&annas), "1.3") == denied
    });
    assert!(gone);
    four_questions(&server, baseline);
}

/// The files of a certificate that hauld made are behind Landlock when SIGHUP comes.
#[test]
fn a_certificate_that_hauld_made_stays_and_clients_are_asked_for_theirs_all_the_same() {
    let annas = Pair::new();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("users/users.toml");
    fs::create_dir(file.parent().unwrap()).unwrap();
    let users = file.to_str().unwrap();
    hauld_user(&["add", "ben", "--users", users]).ok();
    let state = format!("STATE_DIRECTORY={}/state", dir.path().display());
    let server = Server::launch(&Launch {
        through: &["env", &state],
        options: &["--tls", "required", "--users", users],
        ..Launch::default()
    });
    fs::write(server.path("f"), b"content").unwrap();
    let is_welcome = || fetched(&server, "anna:any", Some(&annas), "1.3") == (0, b"content".into());
    assert!(!is_welcome());
    let spelt = fingerprint(&annas);
    hauld_user(&["add", "anna", "--certificates", &spelt, "--users", users]).ok();
    server.signal(Signal::HUP);
    assert!(until(PATIENCE, is_welcome), "{}", server.log());
    assert!(!server.log().contains("ERROR"), "{}", server.log());
}
