//! Where certificates come from, and that a bad one is told and harms nobody.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};

use super::secure;
use crate::common::control::{Control, connect};
use crate::common::secure::{Pair, Secure, begin_tls};
use crate::common::server::{Server, four_questions};
use crate::common::tools::run;
use crate::common::{PATIENCE, until};

fn hang_up(server: &Server) {
    let pid = Pid::from_raw(server.pid() as i32).expect("running");
    kill_process(pid, Signal::HUP).expect("sending SIGHUP");
}

fn accepts(server: &Server, pair: &Pair) -> bool {
    let mut clear = Control::connect(server.addr());
    assert_eq!(clear.command("AUTH TLS").code, 234);
    let socket = clear.stream().try_clone().unwrap();
    begin_tls(&Arc::new(pair.client()), socket).is_ok()
}

#[test]
fn t13_a_new_certificate_is_for_new_sessions() {
    let (server, pair) = secure(&[]);
    let baseline = server.baseline();
    let mut running = Secure::login(server.addr(), pair.client());
    assert_eq!(running.stor("f", b"content"), 226);
    // Half of a transfer.
    let mut data = running.data("STOR g").unwrap();
    std::io::Write::write_all(&mut data, b"con").unwrap();

    pair.renew();
    hang_up(&server);
    assert!(until(PATIENCE, || accepts(&server, &pair)));
    std::io::Write::write_all(&mut data, b"tent").unwrap();
    crate::common::secure::finish(data);
    assert_eq!(running.reply().0, 226);
    // Full handshakes too: the session keeps the certificate that its client knows.
    for _ in 0..4 {
        assert_eq!(running.stor("g", b"content"), 226);
        assert_eq!(running.fetch("RETR g"), (b"content".to_vec(), 226));
    }

    // A key that is not the certificate's, a file that is none, none at all: the old pair stays.
    let other = Pair::new();
    let bad: [&dyn Fn(&Path); 3] = [
        &|key| fs::copy(other.key(), key).map(drop).unwrap(),
        &|key| fs::write(key, "no key").unwrap(),
        &|key| fs::remove_file(key).unwrap(),
    ];
    for (n, spoil) in bad.into_iter().enumerate() {
        spoil(&pair.key());
        hang_up(&server);
        let logged = || server.log().matches("the old certificate stays").count() > n;
        assert!(until(PATIENCE, logged));
        assert!(accepts(&server, &pair));
    }
    drop(running);
    four_questions(&server, baseline);
}

#[test]
fn a_certificate_that_cannot_be_used_is_one_sentence() {
    let (pair, other) = (Pair::new(), Pair::new());
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text");
    fs::write(&text, "no PEM").unwrap();
    let absent = dir.path().join("absent");
    for (cert, key) in [
        (pair.cert(), other.key()),
        (text.clone(), pair.key()),
        (pair.cert(), text),
        (absent.clone(), pair.key()),
        (pair.cert(), absent),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hauld"));
        command
            .args(["--listen", "127.0.0.1:0", "--tls-cert"])
            .arg(&cert);
        command.arg("--tls-key").arg(&key).arg(dir.path());
        let done = run(&mut command).expect(2);
        assert_eq!(done.stdout_text(), "");
        assert_eq!(done.stderr.trim().lines().count(), 1, "{}", done.stderr);
    }
}

/// A server whose state is in `state`; the lines of its standard output until they are two.
fn with_state(state: &Path, options: &[&str]) -> (std::process::Child, Vec<String>) {
    use std::io::{BufRead, BufReader};
    let mut command = Command::new(env!("CARGO_BIN_EXE_hauld"));
    command.args(["--listen", "127.0.0.1:0", "--implicit-tls", "127.0.0.1:0"]);
    command
        .args(options)
        .arg(state)
        .env("STATE_DIRECTORY", state.join("state"));
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut process = command.spawn().expect("starting hauld");
    let stdout = BufReader::new(process.stdout.take().unwrap());
    let lines = stdout.lines().take(2).map(Result::unwrap).collect();
    (process, lines)
}

#[test]
fn a_self_signed_certificate_is_made_once_and_implicit_tls_works() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let (mut process, lines) = with_state(dir.path(), &[]);
        assert!(lines[0].starts_with("listening on ") && !lines[0].contains("TLS"));
        let implicit = lines[1].strip_prefix("listening on ").unwrap();
        let implicit = implicit.strip_suffix(" (TLS)").unwrap().parse().unwrap();
        let pem = fs::read(dir.path().join("state/certificate.pem")).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        use rustls::pki_types::pem::PemObject;
        let cert = rustls::pki_types::CertificateDer::from_pem_slice(&pem).unwrap();
        roots.add(cert).unwrap();
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut session = Secure::over(connect(None, implicit), Arc::new(config));
        assert_eq!(session.reply().0, 220);
        // Data is protected without a word, as these clients expect.
        assert_eq!(session.command("USER anonymous").0, 331);
        assert_eq!(session.command("PASS x").0, 230);
        assert_eq!(session.stor("state/f", b"content"), 226);
        assert_eq!(session.fetch("RETR state/f"), (b"content".to_vec(), 226));
        assert_eq!(session.command("AUTH TLS").0, 503);
        assert_eq!(session.command("QUIT").0, 221);
        session.expect_end();
        process.kill().unwrap();
        process.wait().unwrap();
        seen.push(pem);
    }
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn strangers_must_use_tls_unless_the_server_was_opened_to_all() {
    let pair = Pair::new();
    let options = pair.options();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    for (more, anonymous_in_clear) in [
        (&[][..], false),
        (&["--anonymous", "read"], true),
        (&["--anonymous", "read", "--tls", "required"], false),
        (&["--anonymous", "read", "--tls", "optional"], true),
    ] {
        let server = Server::start_at("0.0.0.0:0", &[&options[..], more].concat());
        let mut clear = Control::connect(server.addr());
        let (user, other) = (clear.command("USER ftp"), clear.command("USER somebody"));
        assert_eq!(user.code == 331, anonymous_in_clear, "{more:?}: {user:?}");
        let named_in_clear = more.contains(&"optional");
        assert_eq!(other.code == 331, named_in_clear, "{more:?}: {other:?}");
        if anonymous_in_clear {
            let mut session = clear.logged_in();
            assert_eq!(session.fetch("LIST").1.code, 226);
        }
    }
}
