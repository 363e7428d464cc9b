//! The server as a process, and plain sessions by hand: what every other test builds on.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Shutdown};

use crate::common::PATIENCE;
use crate::common::content::{assert_file, assert_same, bytes};
use crate::common::control::Control;
use crate::common::server::{Server, four_questions};
use crate::common::until;

#[test]
fn the_server_starts_serves_and_stops() {
    let mut server = Server::start(&["--log-level", "debug"]);
    assert!(server.addr().ip().is_loopback() && server.addr().port() != 0);
    Control::login(server.addr()).quit();
    assert_eq!(server.stop(), 0);
    assert!(
        !server.log().is_empty(),
        "start and sessions are logged, on standard error"
    );
}

#[test]
fn sessions_leave_nothing_behind() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let before_kib = server.rss_kib();
    for _ in 0..200 {
        let mut session = Control::login(server.addr());
        assert_eq!(session.stor("f", b"content").code, 226);
        drop(session);
    }
    four_questions(&server, baseline);
    let grown_kib = server.rss_kib().saturating_sub(before_kib);
    assert!(
        grown_kib < 8 << 10,
        "200 sessions that ended cost {grown_kib} KiB"
    );
}

#[test]
fn each_way_to_move_a_file_moves_the_same_bytes() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let content = bytes(1, 100_000);
    let mut session = Control::login(server.addr());

    assert_eq!(session.stor("stored", &content).code, 226);
    assert_file(&server.path("stored"), &content);
    assert_eq!(session.upload("uploaded", &content).code, 226);
    assert_file(&server.path("uploaded"), &content);

    let (got, end) = session.fetch("RETR uploaded");
    assert_same(&got, &content, "RETR");
    assert_eq!(end.code, 226);
    let (got, end) = session.download("stored");
    assert_same(&got, &content, "DOWNLOAD");
    assert_eq!(end.code, 226);

    let mut data = session.pasv();
    assert_eq!(session.command("STOR passive").code, 150);
    data.write_all(&content).expect("sending");
    data.shutdown(Shutdown::Write).expect("ending the file");
    assert_eq!(session.reply().code, 226);
    assert_file(&server.path("passive"), &content);

    session.quit();
    four_questions(&server, baseline);
}

#[test]
fn a_session_from_another_address_moves_files_too() {
    let server = Server::start(&[]);
    let other = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let mut session = Control::open_from(other, server.addr())
        .greeted()
        .logged_in();
    assert_eq!(session.stor("f", b"from elsewhere").code, 226);
    assert_eq!(session.fetch("RETR f").0, b"from elsewhere");
    session.quit();
}

#[test]
fn what_ends_half_way_is_not_published() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let descriptors_of_a_session = {
        let mut session = Control::login(server.addr());
        session.send(b"UPLOAD 1000 half\r\n");
        assert_eq!(session.reply().code, 150);
        session.send(&[b'x'; 400]);
        server.descriptors()
    };
    assert!(
        descriptors_of_a_session > baseline,
        "a session is at least one descriptor"
    );
    four_questions(&server, baseline);
    assert!(!server.path("half").exists());
}

#[test]
fn bytes_behind_quit_do_not_cost_the_last_reply() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let mut session = Control::login(server.addr());
    session.send(&[b"QUIT\r\n".as_slice(), &b"NOOP\r\n".repeat(8000)].concat());
    assert_eq!(session.reply().code, 221);
    session.expect_eof();
    four_questions(&server, baseline);
}

#[test]
fn a_reset_ends_the_session_only() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let session = Control::login(server.addr());
    let socket = socket2::SockRef::from(session.stream());
    socket
        .set_linger(Some(std::time::Duration::ZERO))
        .expect("closing will reset");
    drop(session);
    four_questions(&server, baseline);
}

#[test]
fn a_directory_that_cannot_be_served_is_one_sentence_and_nothing_half_started() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    fs::write(&file, "not a directory").expect("writing");
    for path in [file, dir.path().join("absent")] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hauld"));
        let done = crate::common::tools::run(command.args(["--listen", "127.0.0.1:0"]).arg(&path));
        let done = done.expect(2);
        assert_eq!(done.stdout_text(), "", "nothing half started");
        assert_eq!(done.stderr.trim().lines().count(), 1, "{}", done.stderr);
        assert!(
            done.stderr.contains(&*path.to_string_lossy()),
            "{}",
            done.stderr
        );
        assert!(!path.is_dir());
    }
}

#[test]
fn the_default_directory_is_made() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hauld"));
    command
        .args(["--listen", "127.0.0.1:0"])
        .current_dir(dir.path());
    command.stdout(std::process::Stdio::null());
    let mut process = crate::common::tools::start(&mut command);
    let made = until(PATIENCE, || dir.path().join("haul-data").is_dir());
    process.kill().expect("ending hauld");
    process.wait().expect("ending hauld");
    assert!(made, "haul-data is made");
}
