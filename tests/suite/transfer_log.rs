//! The log of transfers: one line for each file, whatever became of it.

use std::fs;
use std::path::Path;

use crate::common::control::Control;
use crate::common::server::{Launch, Server};
use crate::common::{PATIENCE, until};

/// The lines, once there are `count` of them.
fn lines(log: &Path, count: usize) -> Vec<String> {
    let read = || fs::read_to_string(log).unwrap_or_default();
    let enough = || read().lines().count() >= count;
    assert!(until(PATIENCE, enough), "{}", read());
    let lines: Vec<String> = read().lines().map(String::from).collect();
    assert_eq!(lines.len(), count, "{lines:?}");
    lines
}

#[test]
fn each_transfer_is_one_line_and_a_moved_log_is_begun_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("transfers.log");
    let path = log.to_str().expect("text");
    let mut server = Server::start(&["--transfer-log", path, "--log-level", "off"]);
    let mut session = Control::login(server.addr());
    let odd = "a \"b\\ \u{e9}";
    assert_eq!(session.upload("u", b"content").code, 226);
    assert_eq!(session.stor(odd, b"other").code, 226);
    assert_eq!(session.fetch("RETR u").1.code, 226);
    assert_eq!(session.fetch("NLST").1.code, 226);
    let wrong = "0".repeat(64);
    assert_eq!(
        session.command(&format!("UPLOAD 3;sha256={wrong} w")).code,
        150
    );
    session.send(b"abc");
    assert_eq!(session.reply().code, 451);
    assert!(session.command("RETR absent").code >= 400);
    session.send(b"DOWNLOAD u\r\n");
    let written = lines(&log, 4 + 1);
    for (line, says) in written.iter().zip([
        "\"transfer\":\"upload\",\"path\":\"/u\",\"bytes\":7,",
        "\"transfer\":\"upload\",\"path\":\"/a \\\"b\\\\ \u{e9}\",\"bytes\":5,",
        "\"transfer\":\"download\",\"path\":\"/u\",\"bytes\":7,",
        "\"transfer\":\"upload\",\"path\":\"/w\",\"bytes\":3,",
        "\"transfer\":\"download\",\"path\":\"/u\",\"bytes\":7,",
    ]) {
        assert!(line.contains(says), "{line} has no {says}");
        assert!(line.starts_with("{\"time\":\"20"), "{line}");
        assert!(line.contains("Z\",\"address\":\"127.0.0.1\",\"user\":\"anonymous\","));
        let complete = !line.contains("/w");
        assert!(
            line.ends_with(&format!("\"complete\":{complete}}}")),
            "{line}"
        );
    }

    let moved = dir.path().join("transfers.log.1");
    fs::rename(&log, &moved).expect("moving");
    let mut session = Control::login(server.addr());
    assert_eq!(session.upload("u2", b"content").code, 226);
    assert!(lines(&log, 1)[0].contains("\"/u2\""));
    lines(&moved, 5);
    drop(session);
    assert_eq!(server.stop(), 0);
    assert_eq!(server.log(), "", "it is another log");
}

#[test]
fn a_transfer_that_breaks_off_is_a_line_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("transfers.log");
    let path = log.to_str().expect("text");
    let server = Server::start(&["--transfer-log", path]);
    fs::write(server.path("f"), vec![0; 64 << 20]).expect("writing");
    let mut session = Control::login(server.addr());
    let data = session.epsv();
    assert_eq!(session.command("RETR f").code, 150);
    drop(data);
    assert_eq!(session.reply().code, 426);
    let line = &lines(&log, 1)[0];
    assert!(
        line.contains("\"path\":\"/f\"") && line.ends_with("\"complete\":false}"),
        "{line}"
    );
}

#[test]
fn transfers_are_logged_also_when_nobody_reads_standard_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("transfers.log");
    let server = Server::launch(&Launch {
        through: &["bash", "-c", r#"exec "$0" "$@" 2> >(exec true)"#],
        options: &["--transfer-log", log.to_str().expect("text")],
        ..Launch::default()
    });
    let mut session = Control::login(server.addr());
    for n in 1..=3 {
        assert_eq!(session.upload("name", b"content").code, 226);
        lines(&log, n);
    }
}
