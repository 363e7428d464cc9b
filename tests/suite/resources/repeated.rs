//! R12, R13, R19: the same thing thousands of times, and nothing that stays.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::common::bytewise::reset;
use crate::common::control::{Control, connect};
use crate::common::server::{Launch, Server, four_questions};
use crate::common::{PATIENCE, heavy, until};

/// What may stay for good: buffers that are kept for the next.
const KEPT_KIB: usize = 4 << 10;

#[track_caller]
fn is_quiet(server: &Server) {
    let cpu = server.cpu_in_a_second();
    assert!(
        cpu < Duration::from_millis(100),
        "{cpu:?} in a second of nothing"
    );
}

#[test]
fn r12_connections_that_come_and_go_leave_nothing() {
    let _alone = heavy();
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let before_kib = server.rss_kib();
    for n in 0..20_000u32 {
        // Each address has its own ports, of which closed connections keep one for a minute.
        let from = IpAddr::V4(Ipv4Addr::new(127, 1, (n / 1000) as u8, 1));
        let stream = connect(Some(from), server.addr());
        if n % 2 == 0 {
            reset(&stream);
        }
        if n % 3 == 0 {
            use std::io::Write;
            let _ = (&stream).write_all(b"USER anonymous\r\nPASS x\r\nEPSV\r\nNOO");
        }
    }
    let gone = until(PATIENCE, || server.descriptors() <= baseline);
    assert!(gone, "{} descriptors", server.descriptors());
    is_quiet(&server);
    let grown_kib = server.rss_kib().saturating_sub(before_kib);
    assert!(grown_kib < KEPT_KIB, "{grown_kib} KiB are kept");
    four_questions(&server, baseline);
}

/// Sends `round` many times, a few at once, and expects these codes for each.
fn rounds(session: &mut Control, count: usize, round: &str, codes: &[u16]) {
    const AT_ONCE: usize = 20;
    for _ in 0..count / AT_ONCE {
        session.send(round.repeat(AT_ONCE).as_bytes());
        for _ in 0..AT_ONCE {
            let got: Vec<u16> = codes.iter().map(|_| session.reply().code).collect();
            assert_eq!(got, codes, "{round}");
        }
    }
}

#[test]
fn r13_what_is_begun_and_dropped_again_leaves_nothing() {
    let _alone = heavy();
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let mut session = Control::login(server.addr());
    assert_eq!(session.upload("f", &[b'x'; 200_000]).code, 226);
    // Once to make what is made on first use.
    let mut before_kib = 0;
    for count in [100, 10_000] {
        before_kib = server.rss_kib();
        rounds(&mut session, count, "PASV\r\nABOR\r\n", &[227, 226]);
        rounds(
            &mut session,
            count,
            "EPSV\r\nRETR f\r\nABOR\r\n",
            &[229, 150, 426, 226],
        );
        rounds(
            &mut session,
            count,
            "EPSV\r\nSTOR g\r\nABOR\r\n",
            &[229, 150, 426, 226],
        );
        rounds(
            &mut session,
            count,
            "EPSV\r\nMLSD\r\nABOR\r\n",
            &[229, 150, 426, 226],
        );
        rounds(&mut session, count, "RNFR f\r\n", &[350]);
        rounds(&mut session, count, "REST 5\r\n", &[350]);
    }
    let grown_kib = server.rss_kib().saturating_sub(before_kib);
    assert!(grown_kib < 1024, "{grown_kib} KiB are kept");
    assert!(server.descriptors() <= baseline + 1);

    // The same with a data connection that is there, and has received something or not.
    for n in 0..300 {
        let data = session.epsv();
        assert_eq!(session.command("RETR f").code, 150);
        if n % 2 == 0 {
            let mut some = [0; 1000];
            std::io::Read::read_exact(&mut &data, &mut some).expect("receiving");
        }
        session.send(b"ABOR\r\n");
        let first = session.reply().code;
        assert!(first == 426 || first == 226, "{first}");
        assert_eq!(session.reply().code, 226);
    }
    assert_eq!(session.fetch("RETR f").0.len(), 200_000);
    assert_eq!(session.command("NOOP").code, 200, "no reply too many");
    session.quit();
    is_quiet(&server);
    four_questions(&server, baseline);
}

#[test]
fn r19_a_log_that_nobody_reads_stops_nothing() {
    const TRANSFERS: usize = 100_000;
    const AT_ONCE: usize = 500;
    let _alone = heavy();
    let mut server = Server::launch(&Launch {
        options: &["--log-level", "debug"],
        read_log: false,
        ..Launch::default()
    });
    let baseline = server.baseline();
    let mut session = Control::login(server.addr());
    assert_eq!(session.upload("f", b"four").code, 226);
    let line = b"DOWNLOAD f\r\n".repeat(AT_ONCE);
    let expected = b"150 4 bytes follow.\r\nfour226 4 bytes sent.\r\n";
    let before_kib = server.rss_kib();
    for _ in 0..TRANSFERS / AT_ONCE {
        session.send(&line);
        let got = session.read_exact(expected.len() * AT_ONCE);
        assert!(got.chunks(expected.len()).all(|chunk| chunk == expected));
    }
    assert_eq!(session.command("NOOP").code, 200);
    let grown_kib = server.rss_kib().saturating_sub(before_kib);
    assert!(
        grown_kib < KEPT_KIB,
        "{grown_kib} KiB for what is not written"
    );

    server.read_log();
    session.quit();
    // Each transfer had at least one line: either it is there or it was counted.
    let told = until(PATIENCE, || {
        let log = server.log();
        let written = log
            .lines()
            .filter(|line| line.contains(" DOWNLOAD f"))
            .count();
        let dropped: usize = log
            .lines()
            .filter_map(|line| {
                line.split_once(" log lines were dropped")?
                    .0
                    .rsplit(' ')
                    .next()
            })
            .filter_map(|count| count.parse::<usize>().ok())
            .sum();
        dropped > 0 && written + dropped >= TRANSFERS
    });
    assert!(told, "what was dropped is counted");
    four_questions(&server, baseline);
    assert_eq!(server.stop(), 0);
}

/// Who waits for its end need not be read to the end either.
#[test]
fn r19_a_server_whose_log_nobody_reads_can_be_stopped() {
    let mut server = Server::launch(&Launch {
        options: &["--log-level", "debug"],
        read_log: false,
        ..Launch::default()
    });
    let mut session = Control::login(server.addr());
    for _ in 0..100 {
        session.send(&b"SIZE f\r\n".repeat(100));
        session.send(&b"DOWNLOAD absent\r\n".repeat(100));
        for _ in 0..200 {
            assert_eq!(session.reply().code, 550);
        }
    }
    assert_eq!(session.upload("f", b"four").code, 226);
    for _ in 0..100 {
        session.send(&b"DOWNLOAD f\r\n".repeat(100));
        for _ in 0..100 {
            assert_eq!(session.reply().code, 150);
            assert_eq!(session.read_exact(4), b"four");
            assert_eq!(session.reply().code, 226);
        }
    }
    session.quit();
    assert_eq!(server.stop(), 0);
}
