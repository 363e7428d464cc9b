//! Who may be there: connections that do not log in, and too many from one place (R02, R04, R10,
//! R11, A07).

use std::fs;
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::common::bytewise::rest_of;
use crate::common::content::{KIB, assert_file, assert_same, bytes};
use crate::common::control::Control;
use crate::common::network::in_a_network;
use crate::common::server::{Server, four_questions};
use crate::common::{PATIENCE, heavy, settled};

fn address(n: u32) -> IpAddr {
    IpAddr::from(Ipv4Addr::from(0x7f00_0100 + n))
}

#[test]
fn r02_lines_that_are_not_finished_cost_what_they_hold_and_end_with_the_time_for_a_login() {
    const SESSIONS: usize = 200;
    let _alone = heavy();
    let server = Server::start(&["--login-timeout", "3s"]);
    let baseline = server.baseline();
    let before_kib = server.rss_kib();
    let sessions: Vec<Control> = (0..SESSIONS as u32)
        .map(|n| {
            let mut session = Control::open_from(address(n), server.addr()).greeted();
            session.send(&[b'a'; 4095]);
            session
        })
        .collect();
    let mut other = Control::login(server.addr());
    assert_eq!(other.command("NOOP").code, 200);
    let grown_kib = server.rss_kib().saturating_sub(before_kib);
    assert!(grown_kib < SESSIONS * (4 + 16), "{grown_kib} KiB");
    for mut session in sessions {
        assert_eq!(session.reply().code, 421);
        session.expect_eof();
    }
    assert_eq!(other.command("NOOP").code, 200);
    other.quit();
    four_questions(&server, baseline);
}

/// Each may hold some hundred KiB, but not all of them.
#[test]
fn sessions_that_do_not_read_hold_little_together_and_others_are_served() {
    const SESSIONS: usize = 900;
    const TOGETHER_KIB: usize = 64 << 10;
    let _alone = heavy();
    let server = Server::start(&[]);
    let content = bytes(8, 60 * KIB);
    fs::write(server.path("f"), &content).expect("writing");
    fs::create_dir(server.path("d")).expect("making a directory");
    let names: Vec<String> = (0..300).map(|n| format!("entry {n}")).collect();
    for name in &names {
        fs::write(server.path("d").join(name), b"").expect("writing");
    }
    let baseline = server.baseline();
    let mut other = Control::login(server.addr());
    let before_kib = server.rss_kib();
    let sessions: Vec<Control> = (0..SESSIONS)
        .map(|_| {
            let session = Control::login(server.addr());
            let stream = session.stream();
            stream.set_nonblocking(true).expect("not blocking");
            session
        })
        .collect();
    let lines = b"HELP\r\nDOWNLOAD f\r\nTREE d\r\nSTAT d\r\n".repeat(500);
    let mut sent = [0; SESSIONS];
    settled(|| {
        for (session, sent) in sessions.iter().zip(&mut sent) {
            loop {
                match session.stream().write(&lines[*sent % lines.len()..]) {
                    Ok(bytes) => *sent += bytes,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        sent
    });
    let grown_kib = server.rss_kib().saturating_sub(before_kib);
    assert!(
        grown_kib > TOGETHER_KIB / 2,
        "{grown_kib} KiB: they hold too little to show anything"
    );
    assert!(grown_kib < TOGETHER_KIB + SESSIONS * 32, "{grown_kib} KiB");
    assert_same(&other.download("f").0, &content, "DOWNLOAD");
    assert_same(&other.fetch("RETR f").0, &content, "RETR");
    assert_eq!(other.upload("g", &content).code, 226);
    assert_file(&server.path("g"), &content);
    let (list, _) = other.fetch("NLST d");
    assert_eq!(
        list.iter().filter(|&&byte| byte == b'\n').count(),
        names.len()
    );
    drop(sessions);
    other.quit();
    four_questions(&server, baseline);
}

#[test]
fn r04_who_sends_byte_by_byte_gets_no_more_time_and_nobody_waits_for_them() {
    const SESSIONS: usize = 300;
    let _alone = heavy();
    let server = Server::start(&["--login-timeout", "2s"]);
    let baseline = server.baseline();
    let mut other = Control::login(server.addr());
    let slow: Vec<Control> = (0..SESSIONS as u32)
        .map(|n| Control::open_from(address(n), server.addr()).greeted())
        .collect();
    // A byte for each, again and again, until the server has closed all of them.
    let mut line = b"USER ".iter().chain([&b'a'].into_iter().cycle());
    let mut open: Vec<usize> = (0..SESSIONS).collect();
    let deadline = std::time::Instant::now() + PATIENCE;
    while !open.is_empty() {
        assert!(
            std::time::Instant::now() < deadline,
            "{} are there",
            open.len()
        );
        let byte = *line.next().expect("endless");
        open.retain(|&n| {
            let mut socket = slow[n].stream();
            socket.write_all(&[byte]).is_ok()
        });
        assert_eq!(other.command("NOOP").code, 200);
        std::thread::sleep(Duration::from_millis(100));
    }
    for session in &slow {
        let (got, _) = rest_of(session.stream());
        assert!(got.is_empty() || got.starts_with(b"421 "), "{got:?}");
    }
    other.quit();
    drop(slow);
    four_questions(&server, baseline);
}

#[test]
fn r11_the_oldest_that_has_not_logged_in_makes_room() {
    let (server, _config) = Server::configured("before-login-sessions = 20\n", &[]);
    let baseline = server.baseline();
    let mut inside: Vec<Control> = (0..3)
        .map(|n| {
            Control::open_from(address(n), server.addr())
                .greeted()
                .logged_in()
        })
        .collect();
    let idle = |n: u32| Control::open_from(address(100 + n), server.addr()).greeted();
    let mut idlers: Vec<Control> = (0..20).map(idle).collect();
    // One more, and another one: the oldest go, with a word and in order.
    inside.push(Control::login(server.addr()));
    let mut oldest = idlers.remove(0);
    assert_eq!(oldest.reply().code, 421);
    oldest.expect_eof();
    // Its login has made room, so that the next is not one too many.
    let next = idle(50);
    assert_eq!(idlers[0].command("NOOP").code, 200);
    idlers.push(next);
    // However many come, whoever logs in gets in.
    for n in 0..200 {
        idlers.push(idle(200 + n));
        if n % 50 == 0 {
            inside.push(Control::login(server.addr()));
        }
    }
    for session in &mut inside {
        assert_eq!(session.command("NOOP").code, 200);
    }
    let (gone, last) = idlers.split_at_mut(200);
    for session in gone {
        assert_eq!(session.reply().code, 421);
        session.expect_eof();
    }
    for session in last {
        assert_eq!(session.command("NOOP").code, 200);
    }
    // Whose login has ended counts again, as the youngest.
    let mut again = inside.remove(0);
    assert_eq!(again.command("REIN").code, 220);
    drop(idle(500));
    assert_eq!(again.command("NOOP").code, 200);
    drop((inside, idlers, again));
    four_questions(&server, baseline);
}

#[test]
fn a07_who_claims_to_speak_for_somebody_else_is_closed() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    for header in [
        &b"PROXY TCP4 192.0.2.1 192.0.2.2 1 21\r\n"[..],
        b"PROXY UNKNOWN\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\0\x01\0\x15",
    ] {
        let mut session = Control::connect(server.addr());
        session.send(&[header, b"USER anonymous\r\nPASS x\r\nNOOP\r\n"].concat());
        let (got, _) = rest_of(session.stream());
        let got = String::from_utf8_lossy(&got).into_owned();
        for code in ["331", "230", "200"] {
            assert!(!got.contains(code), "{header:?}: {got}");
        }
    }
    assert!(!server.log().contains("192.0.2.1"), "{}", server.log());
    four_questions(&server, baseline);
}

/// Loopback is not counted, so this is in a network of its own, where others have addresses too.
#[test]
fn r10_one_address_gets_its_share_and_another_one_gets_in() {
    in_a_network(ONE_ADDRESS);
}

const ONE_ADDRESS: &str = r#"
users = os.path.join(root, "users.toml")
subprocess.run([hauld, "user", "add", "anna", "--users", users], input=b"secret", check=True)
for path in [root, users]:
    os.chown(path, 65534, 65534)
server, port = start("--users", users, "--run-as", "nobody", "--max-per-address", "40")
try:
    def ask(session, line):
        session[0].sendall(line + b"\r\n")
        return session[1].readline()[:3]

    here = [client(port, "192.0.2.2") for _ in range(45)]
    said = [session[1].readline()[:3] for session in here]
    assert said == [b"220"] * 40 + [b"421"] * 5, said
    assert all(session[1].read() == b"" for session in here[40:]), "the surplus is closed"
    other = client(port, "192.0.2.3")
    assert other[1].readline()[:3] == b"220"
    assert ask(other, b"USER anna") == b"331" and ask(other, b"PASS secret") == b"230"
    # A place that is given up is for the next.
    assert ask(here[0], b"QUIT") == b"221" and here[0][1].read() == b""
    for half in here[0]:
        half.close()
    for attempt in range(1000):
        again = client(port, "192.0.2.2")
        if again[1].readline()[:3] == b"220":
            break
        time.sleep(0.01)
    else:
        raise AssertionError("the place stays taken")
    # The queue for passwords is shared too: whoever fills his part of it, even by hanging up at
    # once, leaves room for others.
    for session in here[1:40] + [again]:
        session[0].sendall(b"USER anna\r\nPASS wrong\r\n")
    busy = 0
    for session in here[1:40] + [again]:
        assert session[1].readline()[:3] == b"331"
    third = client(port, "192.0.2.3")
    assert third[1].readline()[:3] == b"220"
    assert ask(third, b"USER anna") == b"331" and ask(third, b"PASS secret") == b"230"
    told = [session[1].readline()[:3] for session in here[1:40] + [again]]
    assert set(told) <= {b"421", b"530"}, told
    assert b"421" in told, told
finally:
    server.kill()
    server.wait()
print("done")
"#;
