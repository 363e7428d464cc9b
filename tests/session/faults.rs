//! What does not happen in a dialogue with a healthy server: ports, disks and connections that fail,
//! clients over IPv6, and a server that makes no connections.

use std::io;

use haul::accounts::Anonymous;
use haul::config::Config;
use haul::session::Outcome;
use rustix::io::Errno;

use crate::shell::{Client, Shell, client};

fn error(errno: Errno) -> io::Error {
    errno.into()
}

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        self.shell.arrive(bytes);
        while self.shell.take_command().is_some() {}
    }

    fn upload(&mut self, path: &str, content: &str) {
        let line = format!("UPLOAD {}+ {path}\r\n{content}", content.len());
        self.shell.arrive(line.as_bytes());
        self.shell.settle();
        assert_eq!(self.codes(), [226]);
    }

    fn fail(&mut self, errno: Errno) -> Vec<u16> {
        self.shell.answer_failure(error(errno));
        self.codes()
    }
}

#[test]
fn no_port_is_free() {
    let mut client = client();
    client.log_in();
    for verb in ["EPSV", "PASV"] {
        client.send(format!("{verb}\r\nPWD\r\n").as_bytes());
        assert_eq!(client.fail(Errno::AGAIN), [425]);
        client.shell.settle();
        assert_eq!(client.codes(), [257]);
        assert_eq!(client.command("LIST"), [425]);
    }
}

#[test]
fn publishing_fails() {
    for (errno, code) in [
        (Errno::NOSPC, 452),
        (Errno::DQUOT, 552),
        (Errno::IO, 451),
        (Errno::NOENT, 550),
        (Errno::ISDIR, 550),
    ] {
        let mut client = client();
        client.log_in();
        client.send(b"UPLOAD 5+ f\r\n12345PWD\r\n");
        while client.shell.pump(usize::MAX) {}
        assert_eq!(client.codes(), [0_u16; 0]);
        client.shell.fail_commit(error(errno));
        assert_eq!(client.codes(), [code]);
        client.shell.settle();
        assert_eq!(client.codes(), [257]);
        assert!(client.names().is_empty());
        assert_eq!(client.shell.session.totals().files_stored, 0);
    }
}

#[test]
fn a_digest_or_a_copy_fails() {
    let mut client = client();
    client.log_in();
    client.upload("f", "12345");
    client.send(b"HASH f\r\n");
    assert_eq!(client.fail(Errno::IO), [451]);
    client.command("EPSV");
    client.send(b"APPE f\r\n");
    client.shell.answer();
    assert_eq!(client.fail(Errno::NOSPC), [452]);
    assert_eq!(client.names(), ["f"]);
}

/// As any refusal without a 150: nothing has used it.
#[test]
fn a_copy_that_fails_leaves_the_arranged_connection_for_the_next_transfer() {
    for (next, codes) in [("RETR f", &[150, 226][..]), ("REIN", &[220])] {
        let mut client = client();
        client.log_in();
        client.upload("f", "12345");
        client.command("EPSV");
        client.shell.data().reads = true;
        client.send(b"APPE f\r\n");
        client.shell.answer();
        assert_eq!(client.fail(Errno::NOSPC), [452]);
        assert_eq!(client.command(next), codes, "{next}");
        assert!(client.shell.data.is_none(), "{next}: it is over");
    }
}

#[test]
fn a_copy_uses_up_the_arranged_connection() {
    let mut client = client();
    client.log_in();
    client.upload("f", "12345");
    client.command("EPSV");
    client.shell.data().incoming.extend(b"678");
    client.shell.data().finished = true;
    assert_eq!(client.command("APPE f"), [150, 226]);
    assert_eq!(client.command("RETR f"), [425]);
    let content = std::fs::read(client.dir.path().join("f")).unwrap();
    assert_eq!(content, b"12345678");
}

#[test]
fn writing_a_small_rest_fails_behind_its_bytes() {
    let mut client = client();
    client.log_in();
    for form in ["5", "5+"] {
        client.send(format!("UPLOAD {form} f\r\n").as_bytes());
        client.codes();
        client
            .shell
            .end_transfer(Outcome::Failed(error(Errno::NOSPC)));
        assert_eq!(client.codes(), [0_u16; 0]);
        client.shell.arrive(b"NOOP\nPWD\r\n");
        client.shell.settle();
        assert_eq!(client.codes(), [452, 257], "{form}");
    }
    assert!(client.names().is_empty());
}

#[test]
fn writing_fails_with_more_to_come_than_is_thrown_away() {
    let mut client = client();
    client.log_in();
    client.send(b"UPLOAD 1048577 f\r\n");
    assert_eq!(client.codes(), [150]);
    client
        .shell
        .end_transfer(Outcome::Failed(error(Errno::NOSPC)));
    assert_eq!(client.codes(), [452]);
    assert!(client.shell.closed);
    assert!(client.names().is_empty());
}

#[test]
fn an_upload_in_band_stalls() {
    for line in [
        "UPLOAD 5 f\r\n123",
        "UPLOAD 5+ f\r\n",
        "UPLOAD 5+ absent/f\r\n",
    ] {
        let mut client = client();
        client.log_in();
        client.shell.arrive(line.as_bytes());
        client.shell.settle();
        client.codes();
        client.shell.end_transfer(Outcome::Stalled);
        assert_eq!(client.codes(), [426], "{line}");
        assert!(client.shell.closed);
        // What arrived is kept.
        let kept = usize::from(line.ends_with("123"));
        assert_eq!(client.names().len(), kept, "{line}");
    }
}

/// Between the 150 and the last byte there is no reply: it would become a part of the file.
#[test]
fn what_goes_out_in_band_breaks_off_without_a_word() {
    for (command, before) in [("DOWNLOAD f", &[150][..]), ("TREE", &[]), ("STAT /", &[])] {
        for outcome in [
            Outcome::Stalled,
            Outcome::Broken,
            Outcome::Failed(io::ErrorKind::UnexpectedEof.into()),
            Outcome::Failed(error(Errno::IO)),
        ] {
            let mut client = client();
            client.log_in();
            client.upload("f", "12345");
            client.send(format!("{command}\r\nPWD\r\n").as_bytes());
            assert_eq!(client.codes(), before, "{command}");
            client.shell.end_transfer(outcome);
            assert_eq!(client.codes(), [0_u16; 0], "{command}");
            assert!(client.shell.closed);
        }
    }
}

#[test]
fn a_transfer_over_a_data_connection_fails_and_the_session_goes_on() {
    let failed = |errno| Outcome::Failed(error(errno));
    for (outcome, code) in [
        (Outcome::NoConnection, 425),
        (Outcome::Broken, 426),
        (Outcome::Stalled, 426),
        (failed(Errno::NOSPC), 452),
        (failed(Errno::DQUOT), 552),
        (failed(Errno::FBIG), 552),
        (failed(Errno::IO), 451),
    ] {
        let mut client = client();
        client.log_in();
        client.command("EPSV");
        client.send(b"STOR f\r\nPWD\r\n");
        assert_eq!(client.codes(), [150]);
        client.shell.end_transfer(outcome);
        client.shell.settle();
        assert_eq!(client.codes(), [code, 257]);
        assert!(client.names().is_empty());
    }
}

#[test]
fn a_server_that_makes_no_connections() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        active: false,
        anonymous: Anonymous::Write,
        ..Config::default()
    };
    let shell = Shell::new(dir.path(), config);
    let mut client = Client { shell, dir };
    client.log_in();
    assert_eq!(client.command("PORT 127,0,0,1,80,0"), [502]);
    assert_eq!(client.command("EPRT |1|127.0.0.1|20000|"), [502]);
    assert_eq!(client.command("EPSV"), [229]);
}

#[test]
fn ipv6_has_epsv_and_eprt_but_no_pasv() {
    let dir = tempfile::tempdir().unwrap();
    let shell = Shell::from(dir.path(), Config::default(), "[::1]:50000");
    let mut client = Client { shell, dir };
    client.log_in();
    for (command, code) in [
        ("PASV", 425),
        ("EPSV", 229),
        ("EPSV 2", 229),
        ("EPSV 1", 522),
        ("EPRT |2|::1|20000|", 200),
        ("EPRT |1|127.0.0.1|20000|", 522),
        ("EPRT |2|::2|20000|", 500),
        ("PORT 127,0,0,1,80,0", 522),
    ] {
        assert_eq!(client.command(command), [code], "{command}");
    }
}

#[test]
fn an_ipv4_client_of_an_ipv6_socket_is_an_ipv4_client() {
    let dir = tempfile::tempdir().unwrap();
    let shell = Shell::from(dir.path(), Config::default(), "[::ffff:127.0.0.1]:50000");
    let mut client = Client { shell, dir };
    client.log_in();
    assert_eq!(client.command("PASV"), [227]);
    assert_eq!(client.command("PORT 127,0,0,1,80,0"), [200]);
    assert_eq!(client.command("EPSV 1"), [229]);
}

impl Client {
    /// An upload that breaks off behind `content`.
    fn break_off(&mut self, path: &str, content: &str) {
        self.command("EPSV");
        self.send(format!("STOR {path}\r\n").as_bytes());
        self.shell.data().incoming.extend(content.as_bytes());
        self.shell.settle();
        self.shell.end_transfer(Outcome::Broken);
        assert_eq!(self.codes(), [150, 426]);
    }
}

#[test]
fn what_another_session_writes_is_not_continued() {
    for line in [
        "PARTIAL f",
        "SIZE f",
        "DELE f",
        "EPSV\r\nAPPE f",
        "REST 2\r\nUPLOAD 2 f",
        "REST 2\r\nUPLOAD 6+ f\r\nDELE f",
        "REST 2\r\nEPSV\r\nSTOR f",
    ] {
        let mut client = client();
        client.log_in();
        client.break_off("f", "123");
        client.send(format!("{line}\r\n").as_bytes());
        if line.contains("EPSV") {
            client.shell.answer();
            client.send(b"");
        }
        client.codes();
        assert!(client.shell.question.is_some(), "{line}");
        let mut codes = client.fail(Errno::AGAIN);
        // No byte of a body that is on its way becomes a command.
        client.shell.arrive(if line.contains("6+") {
            b"NOOP\r\n"
        } else {
            b""
        });
        client.shell.settle();
        codes.extend(client.codes());
        assert_eq!(codes[0], 450, "{line}");
        assert_eq!(client.command("PARTIAL f"), [213], "{line}");
    }
}
