//! PASV and EPSV: who may come.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::{STRANGER, expect_no_bytes, port_of};
use crate::common::content::{MIB, assert_file, assert_same, bytes};
use crate::common::control::{Control, connect};
use crate::common::server::{Server, four_questions};

/// A stranger who connects to the port before its owner does.
fn stranger(server: &Server, port: u16) -> TcpStream {
    connect(Some(STRANGER), SocketAddr::new(server.addr().ip(), port))
}

/// What the transfer that waits for a connection to `port` sends.
#[track_caller]
fn expect_content(session: &mut Control, port: u16, expected: &str) {
    let mut got = String::new();
    let mut data = session.data_connection(port);
    data.read_to_string(&mut got).expect("reading");
    assert_eq!(got, expected);
    assert_eq!(session.reply().code, 226);
}

#[test]
fn p04_a_stranger_on_the_passive_port_is_dropped() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let content = bytes(4, MIB);
    fs::write(server.path("f"), &content).expect("writing");
    for command in ["PASV", "EPSV"] {
        let mut session = Control::login(server.addr());
        let port = port_of(&mut session, command);
        expect_no_bytes(stranger(&server, port));
        let mut data = session.data_connection(port);
        expect_no_bytes(stranger(&server, port));
        assert_eq!(session.command("RETR f").code, 150);
        let mut got = Vec::new();
        data.read_to_end(&mut got).expect("reading");
        assert_same(&got, &content, "RETR after a stranger came");
        assert_eq!(session.reply().code, 226);
        session.quit();
    }
    four_questions(&server, baseline);
}

#[test]
fn p04_a_stranger_does_not_end_the_wait_for_the_right_one() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    fs::write(server.path("f"), "content").expect("writing");
    let mut session = Control::login(server.addr());
    let port = port_of(&mut session, "EPSV");
    assert_eq!(session.command("RETR f").code, 150);
    for _ in 0..10 {
        expect_no_bytes(stranger(&server, port));
    }
    expect_content(&mut session, port, "content");
    session.quit();
    four_questions(&server, baseline);
}

#[test]
fn p05_what_a_stranger_sends_is_in_no_file() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    for command in ["PASV", "EPSV"] {
        let mut session = Control::login(server.addr());
        let port = port_of(&mut session, command);
        let mut before = stranger(&server, port);
        // It may have been closed already.
        let _ = before.write_all(b"stranger");
        assert_eq!(session.command("STOR f").code, 150);
        let mut behind = stranger(&server, port);
        let _ = behind.write_all(b"stranger");
        let mut data = session.data_connection(port);
        data.write_all(b"owner").expect("sending");
        drop(data);
        assert_eq!(session.reply().code, 226);
        assert_file(&server.path("f"), b"owner");
        expect_no_bytes(before);
        expect_no_bytes(behind);

        let port = port_of(&mut session, command);
        let mut before = stranger(&server, port);
        let _ = before.write_all(b"stranger");
        assert_eq!(session.command("NLST").code, 150);
        expect_content(&mut session, port, "f\r\n");
        expect_no_bytes(before);
        session.quit();
    }
    four_questions(&server, baseline);
}

#[test]
fn p06_a_thousand_passives_are_one_slot() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let mut session = Control::login(server.addr());
    let port = port_of(&mut session, "PASV");
    let (descriptors, before_kib) = (server.descriptors(), server.rss_kib());
    for command in ["PASV", "EPSV"] {
        for _ in 0..1000 {
            assert_eq!(port_of(&mut session, command), port, "{command}");
        }
        session.send(format!("{command}\r\n").repeat(1000).as_bytes());
        let first = session.reply();
        for _ in 1..1000 {
            assert_eq!(session.reply(), first);
        }
    }
    assert_eq!(server.descriptors(), descriptors);
    let grown_kib = server.rss_kib().saturating_sub(before_kib);
    assert!(grown_kib < 2 << 10, "it cost {grown_kib} KiB");
    // It is one slot and no other's: the others can have all the other ports.
    let mut others: Vec<Control> = (0..16).map(|_| Control::login(server.addr())).collect();
    for other in &mut others {
        assert_ne!(port_of(other, "EPSV"), port);
    }
    others.into_iter().for_each(Control::quit);
    session.quit();
    four_questions(&server, baseline);
}

#[test]
fn p06_a_new_passive_drops_the_connection_of_the_one_before() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let mut session = Control::login(server.addr());
    let abandoned = session.epsv();
    let mut data = session.epsv();
    expect_no_bytes(abandoned);
    assert_eq!(session.command("STOR f").code, 150);
    data.write_all(b"the second").expect("sending");
    drop(data);
    assert_eq!(session.reply().code, 226);
    assert_file(&server.path("f"), b"the second");
    session.quit();
    four_questions(&server, baseline);
}

#[test]
fn a_data_connection_that_is_awaited_does_not_stall() {
    let server = Server::start(&["--stall-timeout", "1"]);
    let baseline = server.baseline();
    fs::write(server.path("f"), "content").expect("writing");
    let mut stalls = Control::login(server.addr());
    let mut session = Control::login(server.addr());
    let port = port_of(&mut session, "EPSV");
    assert_eq!(session.command("RETR f").code, 150);
    // This one began later and is over: so the time would be over for the other too.
    assert_eq!(stalls.command("UPLOAD 10 g").code, 150);
    assert_eq!(stalls.reply().code, 426);
    assert_eq!(session.command("NOOP").code, 200);
    expect_content(&mut session, port, "content");
    session.quit();
    four_questions(&server, baseline);
}

#[test]
fn a_data_connection_that_comes_too_late_is_closed() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    fs::write(server.path("f"), "content").expect("writing");
    for over in ["ABOR", "PORT 1,2,3", "PORT 127,0,0,1,200,200"] {
        let mut session = Control::login(server.addr());
        let port = port_of(&mut session, "EPSV");
        if over == "ABOR" {
            assert_eq!(session.command("RETR f").code, 150);
            assert_eq!(session.command(over).code, 426);
            assert_eq!(session.reply().code, 226);
        } else {
            session.command(over);
        }
        expect_no_bytes(session.data_connection(port));
        assert_eq!(session.fetch("RETR f").0, b"content", "behind {over}");
        session.quit();
    }
    four_questions(&server, baseline);
}

#[test]
fn p19_after_epsv_all_there_is_only_epsv() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    fs::File::create(server.path("large"))
        .and_then(|file| file.set_len(64 << 20))
        .expect("making a file");
    let mut session = Control::login(server.addr());
    assert_eq!(session.command("EPSV ALL").code, 200);
    for _ in 0..2 {
        for line in [
            "PASV",
            "PORT 127,0,0,1,200,200",
            "EPRT |1|127.0.0.1|51400|",
            "P@SW",
        ] {
            let reply = session.command(line);
            assert!([501, 522].contains(&reply.code), "{line}: {reply:?}");
        }
        let data = session.epsv();
        assert_eq!(session.command("RETR large").code, 150);
        assert_eq!(session.command("ABOR").code, 426);
        assert_eq!(session.reply().code, 226);
        drop(data);
    }
    assert_eq!(session.stor("f", b"x").code, 226);
    session.quit();
    four_questions(&server, baseline);
}
