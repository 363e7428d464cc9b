//! `haul`: how it comes to trust a server, and what it does not tell one that it does not trust.

use std::ffi::OsStr;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use super::secure;
use crate::common::content::{SIZES, assert_file, bytes};
use crate::common::secure::Pair;
use crate::common::server::Server;
use crate::common::tools::{Done, run, run_with};
use crate::common::{PATIENCE, wait_for};

const TRUST: i32 = 4;

/// haul with a home of its own.
fn command(program: &str, home: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_remove("HAUL_SERVER")
        .env_remove("XDG_CONFIG_HOME")
        .env("HOME", home)
        .current_dir(home);
    command
}

fn haul<S: AsRef<OsStr>>(home: &Path, args: &[S]) -> Done {
    run(command(env!("CARGO_BIN_EXE_haul"), home).args(args))
}

/// haul on a terminal at which somebody types `answer`; all it says comes on standard output.
fn haul_on_a_terminal(home: &Path, answer: &str, args: &[&str]) -> Done {
    const SPAWN: &str = "import os, pty, sys; \
        sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let mut python = command("python3", home);
    python.args(["-c", SPAWN, env!("CARGO_BIN_EXE_haul")]);
    run_with(python.args(args), answer.as_bytes())
}

fn known_hosts(home: &Path) -> String {
    fs::read_to_string(home.join(".config/haul/known_hosts")).unwrap_or_default()
}

#[test]
fn every_size_goes_both_ways_on_the_one_connection() {
    let (server, pair) = secure(&["--tls", "required"]);
    let home = tempfile::tempdir().unwrap();
    let (address, cert) = (server.addr().to_string(), pair.cert());
    let trust = ["--server", &address, "--ca-file", cert.to_str().unwrap()];
    let (file, copy) = (home.path().join("f"), home.path().join("copy"));
    for size in SIZES {
        let content = bytes(size as u64, size);
        fs::write(&file, &content).unwrap();
        haul(home.path(), &[&trust[..], &["upload", "f"]].concat()).ok();
        assert_file(&server.path("f"), &content);
        let down = ["--verbose", "download", "--force", "f", "copy"];
        let done = haul(home.path(), &[&trust[..], &down].concat()).ok();
        assert_file(&copy, &content);
        assert!(!done.stderr.contains("> EPSV"), "{}", done.stderr);
    }
    haul(home.path(), &[&trust[..], &["tree"]].concat()).ok();
    assert_eq!(known_hosts(home.path()), "", "--ca-file remembers nothing");
}

#[test]
fn a_certificate_is_trusted_once_somebody_at_a_terminal_says_so() {
    let (server, pair) = secure(&[]);
    fs::write(server.path("here"), "x").unwrap();
    let home = tempfile::tempdir().unwrap();
    let address = server.addr().to_string();
    let ls = ["--server", &address, "ls"];
    let fingerprint = pair.fingerprint();

    // Nobody there to be asked.
    let done = haul(home.path(), &ls).expect(TRUST);
    assert!(
        done.stderr
            .contains(&format!("--fingerprint {fingerprint}"))
    );
    assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);

    for no in ["no\n", "y\n", "\n", "AB:CD\n"] {
        let said = haul_on_a_terminal(home.path(), no, &ls)
            .expect(TRUST)
            .stdout_text();
        assert!(said.contains(&fingerprint) && said.contains("not trusted; nothing was sent"));
        assert_eq!(known_hosts(home.path()), "");
    }
    assert!(!server.log().contains("login:"));

    let said = haul_on_a_terminal(home.path(), "yes\n", &ls)
        .ok()
        .stdout_text();
    assert!(said.contains("here"), "{said}");
    assert_eq!(
        known_hosts(home.path()),
        format!("{address} {fingerprint}\n")
    );
    let done = haul(home.path(), &ls).ok();
    assert_eq!(done.stdout_text(), "here\n");

    // The fingerprint itself is an answer too, and the file can be elsewhere.
    let elsewhere = [&["--known-hosts", "other"], &ls[..]].concat();
    let answer = format!("{}\n", fingerprint.to_lowercase());
    haul_on_a_terminal(home.path(), &answer, &elsewhere).ok();
    haul(home.path(), &elsewhere).ok();
}

#[test]
fn a_changed_certificate_is_an_error_until_its_line_is_removed() {
    let (server, pair) = secure(&[]);
    let home = tempfile::tempdir().unwrap();
    let address = server.addr().to_string();
    let ls = ["--server", &address, "ls"];
    haul_on_a_terminal(home.path(), "yes\n", &ls).ok();

    pair.renew();
    let new = pair.fingerprint();
    let pid = Pid::from_raw(server.pid() as i32).expect("running");
    kill_process(pid, Signal::HUP).expect("sending SIGHUP");
    server.expect_log(&new);

    let before = known_hosts(home.path());
    for done in [
        haul(home.path(), &ls).expect(TRUST).stderr,
        haul_on_a_terminal(home.path(), "yes\n", &ls)
            .expect(TRUST)
            .stdout_text(),
    ] {
        assert!(
            done.contains("remove line 1 of ") && done.contains(&new),
            "{done}"
        );
    }
    assert_eq!(known_hosts(home.path()), before);
    fs::remove_file(home.path().join(".config/haul/known_hosts")).unwrap();
    haul_on_a_terminal(home.path(), "yes\n", &ls).ok();
    assert!(known_hosts(home.path()).contains(&new));
}

#[test]
fn the_commands_of_the_invitation_work_as_they_are() {
    let pair = Pair::new();
    let options = pair.options();
    for tls in [&["--tls", "required"][..], &["--tls", "off"]] {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let options = match tls[1] {
            "off" => tls.to_vec(),
            _ => [&options, tls].concat(),
        };
        let server = Server::start_at("0.0.0.0:0", &options);
        let home = tempfile::tempdir().unwrap();
        let line = |program: &str| {
            let line = wait_for(PATIENCE, || {
                let log = server.log();
                let begin = format!("  {program} ");
                let line = log.lines().find(|line| line.starts_with(&begin))?;
                log.contains("For users who stay")
                    .then(|| line.trim().to_owned())
            });
            line.expect("an invitation")
        };
        for program in ["haul", "curl"] {
            fs::write(home.path().join("f"), program).unwrap();
            let line = line(program).replace("FILE", "f");
            let bin = Path::new(env!("CARGO_BIN_EXE_haul")).parent().unwrap();
            let path = std::env::var("PATH").unwrap();
            let mut shell = command("sh", home.path());
            shell
                .args(["-c", &line])
                .env("PATH", format!("{}:{path}", bin.display()));
            run(&mut shell).ok();
            assert_file(&server.path("f"), program.as_bytes());
        }
    }
}

#[test]
fn no_password_leaves_this_machine_in_clear_unasked() {
    let server = Server::start_at("0.0.0.0:0", &["--tls", "off", "--anonymous", "write"]);
    let home = tempfile::tempdir().unwrap();
    // An address of this machine that is not loopback looks like that of another one.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket
        .connect("192.0.2.1:9")
        .expect("a machine with a network");
    let ip = socket.local_addr().unwrap().ip();
    let address = SocketAddr::new(ip, server.addr().port());
    let url = format!("ftp://ftp:secret@{address}");
    for (tls, why) in [
        ("auto", "offers no TLS"),
        ("off", "--tls off"),
        ("required", "offers no TLS"),
    ] {
        let done = haul(
            home.path(),
            &["--server", &url, "--tls", tls, "--verbose", "ls"],
        );
        let done = done.expect(TRUST);
        assert!(done.stderr.contains(why), "{}", done.stderr);
        assert!(!done.stderr.contains("> USER"), "{}", done.stderr);
    }
    haul(
        home.path(),
        &["--server", &url, "--insecure-plaintext", "ls"],
    )
    .ok();
    let anonymous = format!("ftp://{address}");
    haul(home.path(), &["--server", &anonymous, "ls"]).ok();
}

#[test]
fn ftps_begins_with_tls() {
    let pair = Pair::new();
    let options = pair.options();
    // One listener less to look for: the address that is printed first is the plain one.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let implicit = free.local_addr().unwrap().to_string();
    drop(free);
    let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
    options.extend(["--implicit-tls", &implicit, "--tls-reuse", "require"]);
    let server = Server::start(&options);
    let home = tempfile::tempdir().unwrap();
    let content = bytes(1, 3 << 20);
    let (url, cert) = (format!("ftps://{implicit}"), pair.cert());
    let trust = ["--server", &url, "--ca-file", cert.to_str().unwrap()];
    // By STOR, and a listing: both on data connections, which must be resumed here.
    let mut upload = command(env!("CARGO_BIN_EXE_haul"), home.path());
    run_with(upload.args(trust).args(["upload", "-", "f"]), &content).ok();
    assert_file(&server.path("f"), &content);
    let done = haul(home.path(), &[&trust[..], &["--verbose", "ls"]].concat()).ok();
    assert_eq!(done.stdout_text(), "f\n");
    assert!(done.stderr.contains(", resumed"), "{}", done.stderr);
    let plain = format!("ftps://{}", server.addr());
    let done = haul(home.path(), &["--server", &plain, "ls"]).expect(TRUST);
    assert!(
        done.stderr.contains("does not speak TLS"),
        "{}",
        done.stderr
    );
}

#[test]
fn a_server_with_the_certificate_of_an_authority_is_told_so() {
    let home = tempfile::tempdir().unwrap();
    let (cert, key) = (home.path().join("cert.pem"), home.path().join("key.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args(["-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"])
        .args([&key, Path::new("-out"), &cert])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let server = Server::start(&["--tls-cert", cert, "--tls-key", key]);
    let address = server.addr().to_string();
    let done = haul(
        home.path(),
        &["--server", &address, "--ca-file", cert, "ls"],
    );
    assert_eq!(done.code, TRUST, "{done:?}");
    assert!(
        done.stderr.contains("that of an authority (CA:TRUE)"),
        "{done:?}"
    );
    // And what it says next helps.
    let pin = done.stderr.split("--fingerprint ").nth(1).unwrap();
    let pin = pin.split(' ').next().unwrap();
    haul(
        home.path(),
        &["--server", &address, "--fingerprint", pin, "ls"],
    )
    .ok();
}
