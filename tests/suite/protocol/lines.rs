//! Lines that are no commands, and commands in odd clothes.

use std::fs;

use socket2::SockRef;

use super::{codes, codes_of};
use crate::common::content::assert_file;
use crate::common::control::Control;
use crate::common::server::{Server, four_questions};

#[test]
fn p12_http_gets_one_reply_and_nothing_is_executed() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    fs::write(server.path("victim"), "alive").expect("writing");
    let body = "USER anonymous\r\nPASS x\r\nDELE victim\r\nNOOP\r\n";
    for request in [
        "GET /secret HTTP/1.1\r\nHost: x\r\n\r\n".to_string(),
        format!("POST /secret HTTP/1.1\r\nHost: x\r\n\r\n{body}"),
        format!("PUT /secret HTTP/1.1\r\n\r\n{body}"),
        format!("HEAD /secret HTTP/1.0\r\n\r\n{body}"),
        format!("OPTIONS /secret HTTP/1.1\r\n\r\n{body}"),
        format!("CONNECT secret:443 HTTP/1.1\r\n\r\n{body}"),
        format!("get /secret HTTP/1.1\n\n{body}"),
        format!("Host: secret\r\n{body}"),
    ] {
        for logged_in in [false, true] {
            let mut session = Control::connect(server.addr());
            if logged_in {
                session = session.logged_in();
            }
            session.send(request.as_bytes());
            let reply = session.reply();
            assert!(
                (400..600).contains(&reply.code),
                "{request:?} gets {reply:?}"
            );
            assert!(!reply.text.contains("secret"), "{reply:?}");
            session.expect_eof();
        }
    }
    assert_file(&server.path("victim"), b"alive");
    four_questions(&server, baseline);
}

#[test]
fn p13_unknown_verbs_before_login_end_the_session() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let mut session = Control::connect(server.addr());
    session.send(b"XYZZY <script>alert(1)</script>\r\n".repeat(4).as_slice());
    for code in [500, 500, 421] {
        let reply = session.reply();
        assert_eq!(reply.code, code, "{reply:?}");
        let text = String::from_utf8_lossy(&reply.lines[0]);
        assert!(!text.contains("script") && !text.contains("XYZZY"));
    }
    session.expect_eof();

    let mut session = Control::login(server.addr());
    let codes = codes_of(&mut session, &["XYZZY <script>"; 10]);
    assert_eq!(codes, [500; 10], "after login they are only unknown");
    session.quit();
    four_questions(&server, baseline);
}

/// A session in whose middle a large file is being sent and not read.
fn in_the_middle_of_retr(server: &Server) -> (Control, std::net::TcpStream) {
    fs::File::create(server.path("large"))
        .and_then(|file| file.set_len(64 << 20))
        .expect("making a file");
    let mut session = Control::login(server.addr());
    let data = session.epsv();
    assert_eq!(session.command("RETR large").code, 150);
    (session, data)
}

#[test]
fn p14_telnet_interrupts_do_not_hide_abor() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let (mut session, data) = in_the_middle_of_retr(&server);
    session.send(b"\xff\xf4\xff\xf2ABOR\r\nPWD\r\nNOOP\r\n");
    assert_eq!(codes(&mut session, 4), [426, 226, 257, 200]);
    drop(data);
    session.send(b"\xff\xf4\xff\xf2ABOR\r\nPWD\r\n");
    let idle = codes(&mut session, 2);
    assert!(idle == [226, 257] || idle == [225, 257], "{idle:?}");
    session.quit();
    four_questions(&server, baseline);
}

#[test]
fn p14_abor_as_urgent_data_stays_in_line() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    // As RFC 959 has it, and as clients are known to do it: which byte is urgent differs.
    let ways: [&[(&[u8], bool)]; 4] = [
        &[
            (b"\xff\xf4", false),
            (b"\xff", true),
            (b"\xf2ABOR\r\n", false),
        ],
        &[(b"\xff\xf4\xff", true), (b"\xf2ABOR\r\n", false)],
        &[(b"\xff\xf4\xff\xf2ABOR\r\n", true)],
        &[(b"\xff\xf4\xff\xf2", true), (b"ABOR\r\n", false)],
    ];
    for way in ways {
        let send = |session: &mut Control| {
            for (bytes, urgent) in way {
                if *urgent {
                    let sent = SockRef::from(session.stream()).send_out_of_band(bytes);
                    assert_eq!(sent.expect("sending"), bytes.len());
                } else {
                    session.send(bytes);
                }
            }
            session.send(b"PWD\r\n");
        };
        let (mut session, data) = in_the_middle_of_retr(&server);
        send(&mut session);
        assert_eq!(codes(&mut session, 3), [426, 226, 257], "{way:?}");
        drop(data);
        send(&mut session);
        assert_eq!(codes(&mut session, 2), [226, 257], "{way:?} when idle");
        session.quit();
    }
    four_questions(&server, baseline);
}

#[test]
fn p14_telnet_bytes_anywhere_cost_one_reply_per_line() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let mut session = Control::login(server.addr());
    let (mut sent, mut random) = (Vec::new(), 14u64);
    for _ in 0..200 {
        let mut line = b"NOOP".to_vec();
        for _ in 0..3 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let at = (random >> 33) as usize % (line.len() + 1);
            let code = [0xf4, 0xf2, 0xff, 0xfb, 0xf1, b'X'][(random >> 40) as usize % 6];
            line.splice(at..at, [0xff, code]);
        }
        sent.extend_from_slice(&line);
        sent.extend_from_slice(b"\r\n");
    }
    sent.extend_from_slice(b"PWD\r\n");
    session.send(&sent);
    for code in codes(&mut session, 200) {
        assert!([200, 500, 501].contains(&code), "{code}");
    }
    assert_eq!(session.reply().code, 257);
    session.quit();
    four_questions(&server, baseline);
}

#[test]
fn p15_odd_lines() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let lines: [(&[u8], &[u16]); 14] = [
        (b"\n", &[500]),
        (b"\r\n", &[500]),
        (b"\r\r\n", &[500]),
        (b" \r\n", &[500]),
        (b" NOOP\r\n", &[500]),
        (b"\0\r\n", &[500, 501]),
        (b"NOOP\0X\r\n", &[500, 501]),
        (b"NO\xc3\x96P\r\n", &[500]),
        (b"\x80\x81\r\n", &[500]),
        (b"\xff\r\n", &[500]),
        (b"noop\r\n", &[200]),
        (b"nOoP\r\n", &[200]),
        (b"NOOP\n", &[200]),
        (b"NOOP and more\r\n", &[200]),
    ];
    let mut session = Control::login(server.addr());
    for (line, expected) in lines {
        session.send(line);
        let code = session.reply().code;
        assert!(expected.contains(&code), "{}: {code}", line.escape_ascii());
        assert_eq!(session.command("PWD").code, 257);
    }
    // All of them at once, and then byte by byte.
    let all: Vec<u8> = lines.iter().flat_map(|(line, _)| line.to_vec()).collect();
    for pieces in [all.len(), 1] {
        for piece in all.chunks(pieces) {
            session.send(piece);
        }
        for (line, expected) in lines {
            let code = session.reply().code;
            assert!(expected.contains(&code), "{}: {code}", line.escape_ascii());
        }
    }
    // A CR alone ends no line.
    session.send(b"NOOP\rPWD\r\n");
    assert_eq!(session.reply().code, 500);
    session.quit();
    four_questions(&server, baseline);
}
