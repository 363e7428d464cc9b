//! R14: clients that read slowly, or not at all, or are gone.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::common::bytewise::{End, reset, rest_of};
use crate::common::content::{MIB, assert_same, bytes};
use crate::common::control::Control;
use crate::common::server::{Server, four_questions};
use crate::common::{PATIENCE, settled, until};

/// More than the kernel holds for two sockets.
const LARGE: usize = 32 * MIB;

fn server_with_a_large_file() -> (Server, Vec<u8>) {
    let server = Server::start(&["--stall-timeout", "1"]);
    let content = bytes(14, LARGE);
    std::fs::write(server.path("large"), &content).expect("writing");
    (server, content)
}

#[test]
fn r14_who_does_not_read_a_download_gets_426() {
    let (server, content) = server_with_a_large_file();
    let baseline = server.baseline();
    let before_kib = server.rss_kib();
    let begin = Instant::now();
    let mut stopped = Control::login(server.addr());
    let data = stopped.epsv();
    assert_eq!(stopped.command("RETR large").code, 150);

    // At this rate it would take weeks.
    let mut slow = Control::login(server.addr());
    let mut slow_data = slow.epsv();
    assert_eq!(slow.command("RETR large").code, 150);
    for expected in &content[..8] {
        let mut byte = [0];
        slow_data.read_exact(&mut byte).expect("receiving");
        assert_eq!(byte[0], *expected);
        // Meanwhile its control connection, and everybody else's, works.
        assert_eq!(slow.command("NOOP").code, 200);
        std::thread::sleep(Duration::from_millis(50));
    }
    let grown_kib = server.rss_kib().saturating_sub(before_kib);
    assert!(grown_kib < 1024, "{grown_kib} KiB of the file are held");
    for (session, data) in [(&mut stopped, &data), (&mut slow, &slow_data)] {
        assert_eq!(session.reply().code, 426);
        assert_eq!(session.command("NOOP").code, 200, "and the session goes on");
        let (received, _) = rest_of(data);
        assert!(received.len() < LARGE);
    }
    assert!(begin.elapsed() >= Duration::from_secs(1));
    stopped.quit();
    slow.quit();
    four_questions(&server, baseline);
}

/// A reply would be taken for the content.
#[test]
fn r14_who_does_not_read_in_band_is_closed_without_a_reply() {
    let (server, content) = server_with_a_large_file();
    for n in 0..3000 {
        std::fs::write(
            server.path(&format!("entry-{n:04}{}", "x".repeat(200))),
            b"",
        )
        .expect("writing");
    }
    let baseline = server.baseline();
    let before_kib = server.rss_kib();
    let mut downloads = Control::login(server.addr());
    let first = downloads.command("DOWNLOAD large");
    assert_eq!(first.code, 150);
    // Many small answers pile up as well as one large one.
    let mut lists = Control::login(server.addr());
    lists.send(&b"TREE\r\n".repeat(100));
    let mut other = Control::login(server.addr());
    let ended = until(PATIENCE, || {
        assert_eq!(other.command("NOOP").code, 200);
        server.descriptors() <= baseline + 1
    });
    assert!(ended, "the stall timeout ends both");
    let grown_kib = server.rss_kib().saturating_sub(before_kib);
    assert!(grown_kib < 2048, "{grown_kib} KiB are held");

    let mut received = downloads.take_held();
    received.extend(rest_of(downloads.stream()).0);
    assert!(received.len() < LARGE, "it was cut");
    assert_same(
        &received,
        &content[..received.len()],
        "nothing but the file",
    );
    let (received, _) = rest_of(lists.stream());
    assert!(
        !received
            .windows(5)
            .any(|w| w == b"\r\n421" || w == b"\r\n426")
    );
    other.quit();
    four_questions(&server, baseline);
}

/// An upload of which nothing comes any more.
#[test]
fn r14_an_upload_that_stops_is_ended_and_nothing_published() {
    let server = Server::start(&["--stall-timeout", "1"]);
    let baseline = server.baseline();
    let mut stores = Control::login(server.addr());
    let mut data = stores.epsv();
    assert_eq!(stores.command("STOR stored").code, 150);
    data.write_all(&[b'x'; 1000]).expect("sending");
    let mut uploads = Control::login(server.addr());
    assert_eq!(uploads.command("UPLOAD 100000 uploaded").code, 150);
    uploads.send(&[b'x'; 1000]);
    let mut immediate = Control::login(server.addr());
    immediate.send(b"UPLOAD 1000+ /absent/refused\r\n");
    immediate.send(&[b'x'; 400]);

    assert_eq!(stores.reply().code, 426);
    assert_eq!(stores.command("NOOP").code, 200);
    for session in [&mut uploads, &mut immediate] {
        let end = session.reply();
        assert!(end.code == 426 || end.code == 421, "{end:?}");
        session.expect_eof();
    }
    for name in ["stored", "uploaded"] {
        assert!(!server.path(name).exists(), "{name} is published");
    }
    stores.quit();
    four_questions(&server, baseline);
}

/// In each state a client can be in, it goes: by a reset, in order, or half.
#[test]
fn r14_clients_that_vanish_leave_nothing() {
    let (server, _) = server_with_a_large_file();
    std::fs::create_dir(server.path("d")).expect("making");
    for n in 0..2000 {
        std::fs::write(server.path(&format!("d/{n}")), b"").expect("writing");
    }
    let baseline = server.baseline();
    let states: [&[u8]; 12] = [
        b"",
        b"NOO",
        b"EPSV\r\n",
        b"EPSV\r\nRETR large\r\n",
        b"EPSV\r\nSTOR vanished\r\n",
        b"EPSV\r\nMLSD d\r\nNOOP\r\nQUIT\r\n",
        b"DOWNLOAD large\r\n",
        b"UPLOAD 1000 vanished\r\n",
        b"UPLOAD 1000+ vanished\r\nsome",
        b"UPLOAD 1000+ /absent/vanished\r\nsome",
        b"TREE\r\nTREE\r\nTREE\r\n",
        b"HASH large\r\nHASH large\r\nXMD5 large\r\n",
    ];
    for state in states {
        for how in [0, 1, 2] {
            let mut session = Control::login(server.addr());
            session.send(state);
            let wants_data = state.starts_with(b"EPSV");
            let data = wants_data.then(|| {
                let reply = session.reply();
                let port = reply.text.split('|').nth(3).expect("a port");
                session.data_connection(port.parse().expect("a port"))
            });
            if let Some(data) = &data {
                let _ = (&mut &*data).write_all(b"some");
            }
            match how {
                0 => reset(session.stream()),
                1 => {}
                _ => {
                    let half = session.stream().shutdown(std::net::Shutdown::Write);
                    half.expect("ending one direction");
                }
            }
            drop(session);
            drop(data);
        }
    }
    four_questions(&server, baseline);
    assert!(!server.path("vanished").exists());
    let cpu = server.cpu_in_a_second();
    assert!(
        cpu < Duration::from_millis(200),
        "{cpu:?} in a second of nothing"
    );
}

/// Unlike a killed client's, the end of this one is in order; it only came late.
#[test]
fn r14_a_client_that_reads_late_gets_everything() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let content = bytes(2, 3 * MIB);
    std::fs::write(server.path("f"), &content).expect("writing");
    let mut session = Control::login(server.addr());
    session.send(&b"DOWNLOAD f\r\n".repeat(3));
    session.send(b"QUIT\r\n");
    session
        .stream()
        .shutdown(std::net::Shutdown::Write)
        .expect("half");
    // The server fills all buffers first.
    settled(|| server.sleeps());
    for _ in 0..3 {
        assert_eq!(session.reply().code, 150);
        assert_same(&session.read_exact(content.len()), &content, "late");
        assert_eq!(session.reply().code, 226);
    }
    assert_eq!(session.reply().code, 221);
    let (more, end) = rest_of(session.stream());
    assert_eq!((more.as_slice(), end), (&b""[..], End::Ordered));
    four_questions(&server, baseline);
}

/// Digests that take for ever keep every thread for them busy; those that wait behind them end with
/// their clients.
#[test]
fn r17_digests_of_clients_that_are_gone_hold_no_file() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let endless = std::fs::File::create(server.path("endless")).expect("making");
    endless.set_len(1 << 42).expect("a sparse file");
    let mut busy: Vec<Control> = (0..2).map(|_| Control::login(server.addr())).collect();
    for session in &mut busy {
        session.send(b"HASH endless\r\n");
    }
    for _ in 0..50 {
        let mut gone = Control::login(server.addr());
        gone.send(b"HASH endless\r\n");
        socket2::SockRef::from(gone.stream())
            .set_linger(Some(Duration::ZERO))
            .expect("resetting");
    }
    // Two that are busy have a connection and a file each.
    let few = until(PATIENCE, || server.descriptors() <= baseline + 8);
    assert!(few, "{} descriptors", server.descriptors());
    for session in &busy {
        socket2::SockRef::from(session.stream())
            .set_linger(Some(Duration::ZERO))
            .expect("resetting");
    }
    drop(busy);
    four_questions(&server, baseline);
}
