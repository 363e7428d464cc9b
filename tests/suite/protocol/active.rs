//! PORT and EPRT: where the server may be sent.

use std::net::TcpListener;

use super::{STRANGER, codes_of};
use crate::common::control::Control;
use crate::common::server::{Server, four_questions};

const NOT_HERS: &[u16] = &[500, 501];

#[test]
fn p01_data_goes_to_nobody_else() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let victim = TcpListener::bind((STRANGER, 0)).expect("a listener of a stranger");
    victim.set_nonblocking(true).expect("not waiting");
    let port = victim.local_addr().expect("bound").port();
    let [high, low] = port.to_be_bytes();

    let mut session = Control::login(server.addr());
    for line in [
        "PORT 10,0,0,1,4,1".to_string(),
        "EPRT |1|10.0.0.1|2000|".to_string(),
        format!("PORT 127,0,0,2,{high},{low}"),
        format!("EPRT |1|127.0.0.2|{port}|"),
        format!("EPRT |1|0.0.0.0|{port}|"),
        "EPRT |1|255.255.255.255|2000|".to_string(),
    ] {
        let reply = session.command(&line);
        assert!(NOT_HERS.contains(&reply.code), "{line}: {reply:?}");
        assert_eq!(session.command("LIST").code, 425, "behind {line}");
    }
    for line in ["EPRT |2|::1|2000|", "EPRT |2|::ffff:127.0.0.1|2000|"] {
        assert_eq!(session.command(line).code, 522, "{line}");
        assert_eq!(session.command("LIST").code, 425, "behind {line}");
    }
    let error = victim.accept().expect_err("nobody came");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    session.quit();
    four_questions(&server, baseline);
}

#[test]
fn p02_data_goes_to_no_privileged_port() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let mut session = Control::login(server.addr());
    for port in [0u16, 21, 25, 1023] {
        let [high, low] = port.to_be_bytes();
        let line = format!("PORT 127,0,0,1,{high},{low}");
        assert_eq!(session.command(&line).code, 500, "{line}");
        let line = format!("EPRT |1|127.0.0.1|{port}|");
        assert_eq!(session.command(&line).code, 500, "{line}");
        assert_eq!(session.command("LIST").code, 425);
    }
    session.quit();
    four_questions(&server, baseline);
}

#[test]
fn p03_a_malformed_address_clears_what_was_arranged() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let digits = format!("PORT {}", "1".repeat(300));
    let mut session = Control::login(server.addr());
    for line in [
        "PORT 1,2,3",
        "PORT 256,0,0,1,4,1",
        "PORT -1,0,0,1,4,1",
        "PORT 127,0,0,1,4,1,",
        "PORT 127,0,0,1,,1",
        "PORT 127.0.0.1,4,1",
        &digits,
        "EPRT |1|127.0.0.1|99999|",
        "EPRT |1|127.0.0.1|-2000|",
        "EPRT |1|127.0.0.1|2000",
        "EPRT ||||",
        "EPRT ||||||||||",
        "EPRT |",
        "EPRT \u{e9}1\u{e9}127.0.0.1\u{e9}2000\u{e9}",
    ] {
        for arranged in ["PASV", "EPSV", "PORT 127,0,0,1,200,200"] {
            let [arranged_code, code, list] = codes_of(&mut session, &[arranged, line, "LIST"])[..]
            else {
                unreachable!("three lines")
            };
            assert!([200, 227, 229].contains(&arranged_code), "{arranged}");
            assert_eq!((code, list), (501, 425), "{line} behind {arranged}");
        }
    }
    session.quit();
    four_questions(&server, baseline);
}
