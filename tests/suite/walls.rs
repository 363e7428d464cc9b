//! What the process cannot do, even when it is made to: reach other files, and be root again.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::common::control::Control;
use crate::common::secure::{Pair, Secure};
use crate::common::server::{Server, four_questions};
use crate::common::{PATIENCE, until};

const NOBODY: u32 = 65534;

/// A users file behind a link, as it can be anywhere.
fn linked(text: &str) -> (TempDir, TempDir, String) {
    let (here, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let link = here.path().join("users.toml");
    fs::write(elsewhere.path().join("first.toml"), text).unwrap();
    symlink(elsewhere.path().join("first.toml"), &link).unwrap();
    let link = link.to_str().unwrap().to_string();
    (here, elsewhere, link)
}

fn lead_to(link: &str, target: &Path) {
    fs::remove_file(link).unwrap();
    symlink(target, link).unwrap();
}

/// The one way from outside to make the process open what no client can name: a link in the place
/// of a file that it reads again. Root may read every file, but behind Landlock it cannot.
#[test]
fn landlock_keeps_the_process_from_all_other_files() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("other.toml"), "").unwrap();
    for walled in [true, false] {
        let (_here, elsewhere, link) = linked("");
        let switch = if walled { "auto" } else { "off" };
        let server = Server::start(&["--users", &link, "--landlock", switch]);
        server.expect_log("Landlock");
        let in_force = server.log().contains("Landlock: nothing outside");
        if walled && !in_force {
            println!("this kernel has no Landlock that can be used; the log says so:");
            println!("{}", server.log());
            assert!(server.log().contains("there is no second wall"));
        }
        assert!(walled || !in_force);

        // Where the link led at start is known.
        fs::write(elsewhere.path().join("second.toml"), "").unwrap();
        lead_to(&link, &elsewhere.path().join("second.toml"));
        server.signal(Signal::HUP);
        server.expect_log("SIGHUP: 0 users");
        lead_to(&link, &outside.path().join("other.toml"));
        server.signal(Signal::HUP);
        if in_force {
            server.expect_log("SIGHUP: the users stay as they were");
            assert!(
                server.log().contains("ermission denied"),
                "{}",
                server.log()
            );
        } else {
            let both = || server.log().matches("SIGHUP: 0 users").count() == 2;
            assert!(until(PATIENCE, both), "{}", server.log());
        }
    }
}

#[test]
fn behind_landlock_everything_that_clients_do_works() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    symlink("nowhere", server.path("link")).unwrap();
    let mut session = Control::login(server.addr());
    for command in ["MKD a", "MKD b", "MKD a/deep"] {
        assert_eq!(session.command(command).code, 257, "{command}");
    }
    assert_eq!(session.upload("a/deep/f", b"content").code, 226);
    assert_eq!(session.stor("a/deep/f", b"other content").code, 226);
    for (from, to) in [
        ("a/deep/f", "b/f"),
        ("a/deep", "b/deep"),
        ("link", "b/link"),
    ] {
        assert_eq!(session.command(&format!("RNFR {from}")).code, 350);
        assert_eq!(
            session.command(&format!("RNTO {to}")).code,
            250,
            "{from} {to}"
        );
    }
    assert_eq!(session.fetch("RETR b/f").0, b"other content");
    assert_eq!(session.command("DELE b/link").code, 250);
    assert_eq!(session.command("RMD b/deep").code, 250);
    session.quit();
    four_questions(&server, baseline);
}

#[test]
fn a_certificate_behind_links_can_be_renewed_behind_landlock() {
    let (archive, live) = (Pair::new(), tempfile::tempdir().unwrap());
    let (cert, key) = (live.path().join("c.pem"), live.path().join("k.pem"));
    symlink(archive.cert(), &cert).unwrap();
    symlink(archive.key(), &key).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_string();
    let options = ["--tls-cert", &text(&cert), "--tls-key", &text(&key)];
    let server = Server::start(&options);
    archive.renew();
    let renamed = |path: &Path| {
        let new = path.with_extension("2.pem");
        fs::rename(path, &new).unwrap();
        new
    };
    lead_to(&text(&cert), &renamed(&archive.cert()));
    lead_to(&text(&key), &renamed(&archive.key()));
    server.signal(Signal::HUP);
    server.expect_log("new sessions get this certificate");
    fs::copy(archive.cert().with_extension("2.pem"), archive.cert()).unwrap();
    let mut session = Secure::login(server.addr(), archive.client());
    assert_eq!(session.stor("f", b"content"), 226);
}

/// The fields of every thread's status.
fn of_all_threads(server: &Server, field: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let status = tasks
        .flatten()
        .map(|task| fs::read_to_string(task.path().join("status")));
    let value = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let words: Vec<_> = line.unwrap().split_whitespace().collect();
        words.join(" ")
    };
    status.map(|status| value(status.unwrap())).collect()
}

#[test]
fn root_is_given_up_by_all_threads_and_for_good() {
    let (_here, elsewhere, users) = linked("");
    let for_root = fs::Permissions::from_mode(0o600);
    fs::set_permissions(elsewhere.path().join("first.toml"), for_root).unwrap();
    let server = Server::start(&[
        "--run-as",
        "nobody",
        "--users",
        &users,
        "--anonymous",
        "write",
    ]);
    server.expect_log("this runs as nobody (uid 65534");
    let ids = format!("{NOBODY} {NOBODY} {NOBODY} {NOBODY}");
    for (field, value) in [
        ("Uid:", &*ids),
        ("Gid:", &ids),
        ("Groups:", &NOBODY.to_string()),
        ("CapEff:", "0000000000000000"),
        ("CapPrm:", "0000000000000000"),
        ("CapInh:", "0000000000000000"),
        ("CapAmb:", "0000000000000000"),
        ("NoNewPrivs:", "1"),
    ] {
        let values = of_all_threads(&server, field);
        assert!(values.len() >= 4, "{values:?}");
        assert!(values.iter().all(|it| it == value), "{field} {values:?}");
    }
    // The directory is root's.
    let mut session = Control::login(server.addr());
    assert_eq!(session.command("MKD d").code, 550);
    chown(server.root(), Some(NOBODY), None).unwrap();
    assert_eq!(session.upload("f", b"content").code, 226);
    assert_eq!(fs::metadata(server.path("f")).unwrap().uid(), NOBODY);
    // What only root may read was read at start, and is out of reach now.
    server.signal(Signal::HUP);
    server.expect_log("the users stay as they were");
}

#[test]
fn root_on_loopback_is_warned_about() {
    let server = Server::start(&[]);
    server.expect_log("this runs as root; --run-as");
    let server = Server::start(&["--run-as", "root"]);
    server.expect_log("this runs as root, as --run-as says");
    assert_eq!(of_all_threads(&server, "NoNewPrivs:")[0], "1");
}
