//! What the reactor must not lose, mix up or wait for.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit, setrlimit};
use socket2::SockRef;

use crate::common::content::{KIB, MIB, assert_file, assert_same, bytes};
use crate::common::control::Control;
use crate::common::server::{Server, four_questions};
use crate::common::{PATIENCE, until};
use haul::config::Limits;

/// Waits until the server has closed all sessions, and only then lets the client read.
#[track_caller]
fn until_all_are_closed(server: &Server, baseline: usize) {
    let closed = until(PATIENCE, || server.descriptors() <= baseline);
    assert!(closed, "the server does not close");
}

#[test]
fn e01_a_late_reader_gets_the_last_reply() {
    let server = Server::start(&["--idle-timeout", "1"]);
    let baseline = server.baseline();

    let mut quits = Control::login(server.addr());
    quits.send(b"QUIT\r\n");
    quits.send(&b"NOOP\r\n".repeat(50 * KIB / 6));
    let mut too_long = Control::login(server.addr());
    too_long.send(&[b'x'; 100 * KIB]);
    let mut http = Control::login(server.addr());
    http.send(&b"GET / HTTP/1.1\r\n".repeat(50 * KIB / 16));
    let idle = Control::login(server.addr());

    until_all_are_closed(&server, baseline);
    for (mut session, code) in [(quits, 221), (too_long, 500), (http, 500), (idle, 421)] {
        assert_eq!(session.reply().code, code);
        session.expect_eof();
    }
    four_questions(&server, baseline);
}

#[test]
fn e02_all_of_a_download_arrives_before_the_end() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let content = bytes(2, 2 * MIB);
    fs::write(server.path("f"), &content).expect("writing");
    for last in ["QUIT", "GET / HTTP/1.1", "UPLOAD 30 /forbidden/x"] {
        let mut session = Control::login(server.addr());
        let lines = format!("DOWNLOAD f\r\n{last}\r\n");
        session.send(&[lines.as_bytes(), &b"NOOP\r\n".repeat(50 * KIB / 6)].concat());
        assert_eq!(session.reply().code, 150);
        assert_same(&session.read_exact(content.len()), &content, "DOWNLOAD");
        assert_eq!(session.reply().code, 226);
        let code = session.reply().code;
        assert!([221, 500, 550].contains(&code), "{last}: {code}");
        session.expect_eof();
    }
    four_questions(&server, baseline);
}

/// How a session of the stress test ends.
fn end(mut session: Control, how: usize) {
    match how % 5 {
        0 => session.quit(),
        1 => drop(session),
        2 => {
            let socket = SockRef::from(session.stream());
            let reset = socket.set_linger(Some(Duration::ZERO));
            reset.expect("closing will reset");
        }
        3 => {
            // In the middle of an upload.
            session.send(b"UPLOAD 100000 never\r\n");
            assert_eq!(session.reply().code, 150);
            session.send(&[b'?'; 50_000]);
        }
        _ => {
            // In the middle of a download over a data connection, cut by ABOR.
            let data = session.epsv();
            session.send(b"RETR large\r\nABOR\r\nQUIT\r\n");
            assert_eq!(session.reply().code, 150);
            assert_eq!(session.reply().code, 426);
            assert_eq!(session.reply().code, 226);
            assert_eq!(session.reply().code, 221);
            drop(data);
        }
    }
}

#[test]
fn e03_keys_and_descriptors_are_reused_without_a_byte_reaching_a_stranger() {
    const THREADS: usize = 8;
    const SESSIONS: usize = 40;
    let server = Server::start(&[]);
    let baseline = server.baseline();
    fs::File::create(server.path("large"))
        .and_then(|file| file.set_len(32 << 20))
        .expect("making a file");
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let server = &server;
            scope.spawn(move || {
                for n in 0..SESSIONS {
                    let mut session = Control::login(server.addr());
                    let seed = (thread * SESSIONS + n) as u64;
                    let name = format!("of-{thread}");
                    let content = bytes(seed, 1 + (seed as usize * 7919) % 200_000);
                    let stored = if n % 2 == 0 {
                        session.upload(&name, &content)
                    } else {
                        session.stor(&name, &content)
                    };
                    assert_eq!(stored.code, 226, "{stored:?}");
                    let (got, last) = if n % 3 == 0 {
                        session.download(&name)
                    } else {
                        session.fetch(&format!("RETR {name}"))
                    };
                    assert_eq!(last.code, 226, "{last:?}");
                    assert_same(&got, &content, &name);
                    let pwd = session.command(&format!("CWD /{name}"));
                    assert_eq!(pwd.code, 550, "{pwd:?}");
                    end(session, n + thread);
                }
            });
        }
    });
    assert!(!server.path("never").exists());
    four_questions(&server, baseline);
}

#[test]
fn e04_half_closed_sessions_get_what_they_asked_for() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let content = bytes(4, 8 * MIB);
    fs::write(server.path("f"), &content).expect("writing");

    // As `printf 'NOOP\r\nQUIT\r\n' | nc` does it: everything is sent before the greeting is read.
    for (sent, expected) in [
        ("NOOP\r\nQUIT\r\n", &[220, 200, 221][..]),
        ("NOOP\r\nNOOP\r\n", &[220, 200, 200]),
        ("NOOP\r\nQUI", &[220, 200]),
        ("", &[220]),
        (
            "USER ftp\r\nPASS x\r\nEPSV\r\nHASH f\r\nQUIT\r\n",
            &[220, 331, 230, 229, 213, 221],
        ),
    ] {
        let mut session = Control::open(server.addr());
        session.send(sent.as_bytes());
        session.stream().shutdown(Shutdown::Write).expect("ending");
        for &code in expected {
            assert_eq!(session.reply().code, code, "{sent:?}");
        }
        session.expect_eof();
    }

    // In the middle of RETR.
    for behind in ["", "QUIT\r\n"] {
        let mut session = Control::login(server.addr());
        let mut data = session.epsv();
        assert_eq!(session.command("RETR f").code, 150);
        session.send(behind.as_bytes());
        session.stream().shutdown(Shutdown::Write).expect("ending");
        let mut got = Vec::new();
        data.read_to_end(&mut got).expect("reading");
        assert_same(&got, &content, "RETR");
        assert_eq!(session.reply().code, 226);
        if !behind.is_empty() {
            assert_eq!(session.reply().code, 221);
        }
        session.expect_eof();
    }

    // In the middle of DOWNLOAD.
    let mut session = Control::login(server.addr());
    session.send(b"DOWNLOAD f\r\nNOOP\r\n");
    session.stream().shutdown(Shutdown::Write).expect("ending");
    assert_eq!(session.reply().code, 150);
    assert_same(&session.read_exact(content.len()), &content, "DOWNLOAD");
    assert_eq!(session.reply().code, 226);
    assert_eq!(session.reply().code, 200);
    session.expect_eof();

    // STOR ends by FIN, also half-closed; and with QUIT and FIN behind it.
    let mut session = Control::login(server.addr());
    let mut data = session.epsv();
    assert_eq!(session.command("STOR g").code, 150);
    data.write_all(&content).expect("sending");
    data.shutdown(Shutdown::Write).expect("ending");
    assert_eq!(session.reply().code, 226);
    assert_file(&server.path("g"), &content);
    let mut data = session.epsv();
    assert_eq!(session.command("STOR g").code, 150);
    session.send(b"QUIT\r\n");
    session.stream().shutdown(Shutdown::Write).expect("ending");
    data.write_all(&content[..100]).expect("sending");
    drop(data);
    assert_eq!(session.reply().code, 226);
    assert_eq!(session.reply().code, 221);
    session.expect_eof();
    assert_file(&server.path("g"), &content[..100]);
    four_questions(&server, baseline);
}

/// Has the server find all of it at once: it is stopped while the client sends.
fn send_while_stopped(server: &Server, session: &mut Control, sent: &[u8]) {
    let mut sender = session.stream().try_clone().expect("a second handle");
    server.signal(Signal::STOP);
    thread::scope(|scope| {
        let sending = scope.spawn(move || sender.write_all(sent).expect("sending"));
        // As much as the buffers take arrives; the rest comes when there is room.
        until(Duration::from_millis(300), || sending.is_finished());
        server.signal(Signal::CONT);
    });
}

#[test]
fn e06_what_exceeds_the_budget_of_a_turn_is_finished_without_another_event() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let content = bytes(6, 64 * KIB);

    // Bodies, 1 MiB of them, then nothing.
    let mut session = Control::login(server.addr());
    let mut sent = Vec::new();
    for n in 0..16 {
        sent.extend_from_slice(format!("UPLOAD {}+ f{n}\r\n", content.len()).as_bytes());
        sent.extend_from_slice(&content);
    }
    send_while_stopped(&server, &mut session, &sent);
    for n in 0..16 {
        assert_eq!(session.reply().code, 226);
        assert_file(&server.path(&format!("f{n}")), &content);
    }

    // Commands, 512 KiB of them, while the replies are read.
    const COMMANDS: usize = 512 * KIB / 6;
    let reading = session.stream().try_clone().expect("a second handle");
    let replies = thread::spawn(move || count_lines(reading, COMMANDS));
    send_while_stopped(&server, &mut session, &b"NOOP\r\n".repeat(COMMANDS));
    assert_eq!(replies.join().expect("reading"), COMMANDS);

    // The end of a large upload, the socket full and closed.
    let large = bytes(7, MIB);
    let data = session.epsv();
    assert_eq!(session.command("STOR large").code, 150);
    server.signal(Signal::STOP);
    let mut sender = data;
    let sending = thread::spawn({
        let large = large.clone();
        move || sender.write_all(&large).expect("sending")
    });
    until(Duration::from_millis(300), || sending.is_finished());
    server.signal(Signal::CONT);
    sending.join().expect("sending");
    assert_eq!(session.reply().code, 226);
    assert_file(&server.path("large"), &large);
    session.quit();
    four_questions(&server, baseline);
}

/// Reads until so many lines have come.
fn count_lines(mut stream: TcpStream, most: usize) -> usize {
    let (mut lines, mut chunk) = (0, vec![0; 64 * KIB]);
    while lines < most {
        match stream.read(&mut chunk).expect("reading") {
            0 => break,
            n => lines += chunk[..n].iter().filter(|&&byte| byte == b'\n').count(),
        }
    }
    lines
}

#[test]
fn e09_thousands_who_come_at_once_are_served_or_told_to_go() {
    // As many descriptors as that are needed on this side too.
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("raising the limit of open files");
    let text = fs::read_to_string("/proc/sys/net/core/somaxconn").expect("reading");
    let most: usize = text.trim().parse().expect("a number");
    let count = most.min(3000);

    let server = Server::start(&[]);
    let baseline = server.baseline();
    // Nobody accepts: they all have to find room in the backlog.
    server.signal(Signal::STOP);
    let waiting: Vec<Control> = (0..count).map(|_| Control::open(server.addr())).collect();
    server.signal(Signal::CONT);
    let mut served: Vec<Control> = waiting.into_iter().map(Control::greeted).collect();
    for session in &mut served {
        session.send(b"NOOP\r\n");
    }
    // So many strangers may be there at a time; for those who came later, the first had to go.
    let stay = Limits::default().before_login_max.min(count);
    let codes: Vec<u16> = served.iter_mut().map(|it| it.reply().code).collect();
    let here = codes.iter().filter(|code| **code == 200).count();
    let gone = codes.iter().filter(|code| **code == 421).count();
    assert!(here >= stay && here + gone == count, "{here} + {gone}");
    drop(served);
    four_questions(&server, baseline);
}

#[test]
fn who_asks_for_little_does_not_wait_for_those_who_ask_for_much() {
    const GREEDY: usize = 100;
    let server = Server::start(&[]);
    fs::write(server.path("file"), b"content").expect("a file");
    let mut modest = Control::login(server.addr());
    let mut greedy: Vec<Control> = (0..GREEDY).map(|_| Control::login(server.addr())).collect();
    let much = ["MLST file\r\n".repeat(1500), "QUIT\r\n".into()].concat();
    for session in &mut greedy {
        session.send(much.as_bytes());
    }
    for _ in 0..200 {
        assert_eq!(modest.command("NOOP").code, 200);
    }
    // Had each NOOP waited for a turn of all others, they would have had 200 turns.
    let done = |session: &&Control| {
        let stream = session.stream();
        stream.set_nonblocking(true).expect("a mode");
        let mut reads = std::iter::repeat_with(|| (&*stream).read(&mut [0; 65536]));
        matches!(reads.find(|read| !matches!(read, Ok(1..))), Some(Ok(0)))
    };
    let done = greedy.iter().filter(done).count();
    assert!(done < GREEDY / 2, "{done} of {GREEDY} have got all of it");
}

/// Sets the size that files of the server may have: writing beyond it fails in the middle.
fn limit_file_size(server: &Server, bytes: u64) {
    let pid = Pid::from_raw(server.pid() as i32);
    let limit = Rlimit {
        current: Some(bytes),
        maximum: None,
    };
    prlimit(pid, Resource::Fsize, limit).expect("limiting the size of files");
}

#[test]
fn e13_an_upload_that_cannot_be_written_leaves_no_byte_to_the_next() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    limit_file_size(&server, 1_000_003);
    let foreign = vec![b'!'; 4 * MIB];
    let own = bytes(13, 900_000);
    for round in 0..4 {
        // Somebody is in the middle of an upload all the time.
        let mut other = Control::login(server.addr());
        let mut other_data = other.epsv();
        assert_eq!(other.command("STOR other").code, 150);
        other_data.write_all(&own[..500_000]).expect("sending");

        let mut session = Control::login(server.addr());
        let reply = if round % 2 == 0 {
            let mut data = session.epsv();
            assert_eq!(session.command("STOR f").code, 150);
            // It is cut off when its end is known.
            let _ = data.write_all(&foreign);
            drop(data);
            session.reply()
        } else {
            assert_eq!(session.command("UPLOAD 1800000 f").code, 150);
            session.send(&foreign[..1_800_000]);
            session.reply()
        };
        assert_eq!(reply.code, 552, "{reply:?}");
        assert!(!server.path("f").exists());

        other_data.write_all(&own[500_000..]).expect("sending");
        drop(other_data);
        assert_eq!(other.reply().code, 226);
        assert_file(&server.path("other"), &own);
        assert_eq!(session.stor("next", &own).code, 226);
        assert_file(&server.path("next"), &own);
        assert_eq!(session.upload("next", &own).code, 226);
        assert_file(&server.path("next"), &own);
        session.quit();
        other.quit();
    }
    four_questions(&server, baseline);
}

/// How many bytes of a connection the kernel holds on their way to `reader`: not yet read by it, or
/// not yet sent by the other end. (Both ends are on this machine.)
fn on_their_way(reader: &TcpStream) -> usize {
    let port = |address: std::io::Result<SocketAddr>| address.expect("connected").port();
    let (here, there) = (port(reader.local_addr()), port(reader.peer_addr()));
    let table = fs::read_to_string("/proc/net/tcp").expect("reading");
    let sockets = table.lines().skip(1).map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let hex = |text: &str| usize::from_str_radix(text, 16).expect("hex digits");
        let port = |address: &str| hex(&address[address.len() - 4..]) as u16;
        let (sending, receiving) = fields[4].split_once(':').expect("two queues");
        let ports = (port(fields[1]), port(fields[2]));
        (ports, hex(sending), hex(receiving))
    });
    sockets
        .map(|(ports, sending, receiving)| match ports {
            ports if ports == (here, there) => receiving,
            ports if ports == (there, here) => sending,
            _ => 0,
        })
        .sum()
}

#[test]
fn a_session_that_is_ended_in_a_transfer_and_reads_nothing_ends_alone() {
    let server = Server::start(&["--stall-timeout", "1"]);
    let baseline = server.baseline();
    let mut session = Control::login(server.addr());
    let mut data = session.epsv();
    assert_eq!(session.command("STOR f").code, 150);
    let content = bytes(1, 4 * MIB);

    // Replies that nobody reads, until the server holds some of them itself.
    const BATCH: usize = 2000;
    let reply = b"200 Here.\r\n".len();
    let mut expected = 0;
    loop {
        session.send(&b"NOOP\r\n".repeat(BATCH));
        expected += BATCH * reply;
        // What moves meanwhile keeps this from counting as stalled.
        data.write_all(&content[..32 * KIB]).expect("sending");
        let all = || on_their_way(session.stream()) >= expected;
        if !until(Duration::from_millis(300), all) {
            break;
        }
    }
    // The time in which something has to move begins again behind this, as somebody else's tells.
    data.write_all(&content).expect("sending");
    let mut stalls = Control::login(server.addr());
    assert_eq!(stalls.command("UPLOAD 10 g").code, 150);
    assert_eq!(stalls.reply().code, 426);
    session.send(&[b'x'; 5000]);
    until_all_are_closed(&server, baseline);
    assert!(!server.path("f").exists());
    four_questions(&server, baseline);
}
