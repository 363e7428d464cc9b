//! R08, R09: no descriptors and no ports left, and then some again.

use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::common::bytewise::{reset, rest_of};
use crate::common::control::{Control, connect};
use crate::common::server::{Launch, Server, four_questions};
use crate::common::{PATIENCE, until};

/// Far below what a busy loop takes, and above what a busy machine makes of rounding.
const CPU_OF_WAITING: Duration = Duration::from_millis(200);

/// Connections that are refused, or accepted, or wait: nobody reads from them.
fn many(server: &Server, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| connect(None, server.addr())).collect()
}

/// A new connection is served although no event told of the old ones that waited.
fn is_served(server: &Server) -> bool {
    until(PATIENCE, || {
        let mut session = Control::open(server.addr());
        session.reply().code == 220 && session.command("NOOP").code == 200
    })
}

#[test]
fn r08_with_few_descriptors_the_surplus_is_refused() {
    // A root that may raise its limits would take as many as it likes.
    let server = Server::launch(&Launch {
        through: &[
            "setpriv",
            "--bounding-set=-sys_resource",
            "--inh-caps=-sys_resource",
            "prlimit",
            "--nofile=64",
        ],
        ..Launch::default()
    });
    let baseline = server.baseline();
    let mut session = Control::login(server.addr());
    let crowd = many(&server, 200);
    assert_eq!(session.command("NOOP").code, 200, "who is in stays in");
    let cpu = server.cpu_in_a_second();
    assert!(cpu < CPU_OF_WAITING, "{cpu:?} in a second of being full");
    assert_eq!(session.stor("f", b"content").code, 226, "and can work");
    drop(crowd);
    assert!(is_served(&server), "after the others have gone");
    session.quit();
    four_questions(&server, baseline);
}

/// The limit is lower than the server was told at its start, so that accept itself fails.
#[test]
fn r08_connections_that_wait_for_descriptors_are_not_forgotten() {
    for resets in [false, true] {
        let server = Server::start(&[]);
        let baseline = server.baseline();
        let few = baseline as u64 + 20;
        let limit = Rlimit {
            current: Some(few),
            maximum: Some(few),
        };
        let pid = Pid::from_raw(server.pid() as i32);
        prlimit(pid, Resource::Nofile, limit).expect("lowering its limit");
        let mut session = Control::login(server.addr());
        let crowd = many(&server, 200);
        let full = until(PATIENCE, || server.descriptors() as u64 >= few);
        assert!(full, "{} of {few}", server.descriptors());
        let cpu = server.cpu_in_a_second();
        assert!(cpu < CPU_OF_WAITING, "{cpu:?} in a second of being full");
        assert_eq!(session.command("NOOP").code, 200, "who is in stays in");
        // What needs a descriptor is refused for now, and not for good.
        let refused = session.upload("f", b"x").code;
        assert_eq!(refused, 451, "no descriptor for a file");
        if resets {
            crowd.iter().for_each(reset);
        }
        drop(crowd);
        assert!(is_served(&server), "after the others have gone");
        assert_eq!(session.upload("f", b"x").code, 226);
        session.quit();
        four_questions(&server, baseline);
    }
}

#[test]
fn r08_more_sessions_than_allowed_are_told_so() {
    let server = Server::start(&["--max-sessions", "10"]);
    let baseline = server.baseline();
    let mut sessions: Vec<Control> = (0..10).map(|_| Control::login(server.addr())).collect();
    for _ in 0..300 {
        let mut surplus = Control::open(server.addr());
        assert_eq!(surplus.reply().code, 421);
        surplus.expect_eof();
    }
    for session in &mut sessions {
        assert_eq!(session.command("NOOP").code, 200);
    }
    drop(sessions);
    assert!(is_served(&server));
    four_questions(&server, baseline);
}

/// `count` ports in a row that nobody has, below those that the kernel gives away.
fn free_ports(count: u16) -> u16 {
    let start = 10_000 + (std::process::id() % 200) as u16 * 100;
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok();
    (start..start + 2000)
        .step_by(usize::from(count))
        .find(|&first| (first..first + count).all(|port| free(&port)))
        .expect("free ports in a row")
}

#[test]
fn r09_passive_ports_of_one_address_run_out_for_it_alone() {
    let first = free_ports(10);
    let range = format!("{first}-{}", first + 9);
    let server = Server::start(&["--passive-ports", &range]);
    let baseline = server.baseline();
    let mut sessions: Vec<Control> = (0..50).map(|_| Control::login(server.addr())).collect();
    for session in &mut sessions {
        session.send(b"PASV\r\n");
    }
    // The others are not touched by it.
    for n in 2..12 {
        let address = IpAddr::V4(Ipv4Addr::new(127, 0, 0, n));
        let mut other = Control::open_from(address, server.addr())
            .greeted()
            .logged_in();
        assert_eq!(other.stor(&format!("of-{n}"), b"content").code, 226);
        other.quit();
    }
    let codes: Vec<u16> = sessions.iter_mut().map(|s| s.reply().code).collect();
    let with_a_port = codes.iter().filter(|&&code| code == 227).count();
    let without = codes.iter().filter(|&&code| code == 425).count();
    assert_eq!((with_a_port, without), (10, 40), "{codes:?}");

    // The ports that are held serve their sessions, and then those that wait.
    let (mut with, mut waiting): (Vec<_>, Vec<_>) = sessions
        .into_iter()
        .zip(codes)
        .partition(|(_, code)| *code == 227);
    for ((holder, _), (next, _)) in with.iter_mut().zip(&mut waiting) {
        next.send(b"EPSV\r\n");
        assert_eq!(holder.stor("again", b"content").code, 226);
        assert_eq!(next.reply().code, 229, "the port that came free");
        assert_eq!(
            next.command("NOOP").code,
            200,
            "the control connection is intact"
        );
        assert_eq!(next.stor("again", b"content").code, 226);
    }
    with.into_iter().for_each(|(session, _)| session.quit());
    waiting.into_iter().for_each(|(session, _)| session.quit());
    four_questions(&server, baseline);
}

/// The slot of a session that went away rests, and then it is there again without anybody asking.
#[test]
fn r09_an_abandoned_port_comes_back_to_who_waits() {
    let first = free_ports(1);
    let (server, _config) = Server::configured(
        "passive-rest-s = 5\npassive-wait-s = 3\n",
        &["--passive-ports", &first.to_string()],
    );
    let baseline = server.baseline();
    let mut early = Control::login(server.addr());
    assert_eq!(early.command("EPSV").code, 229);
    early.quit();
    let mut next = Control::login(server.addr());
    let codes: Vec<u16> = (0..2).map(|_| next.command("EPSV").code).collect();
    assert_eq!(codes, [425, 229]);
    assert_eq!(next.stor("f", b"content").code, 226);
    next.quit();
    four_questions(&server, baseline);
}

/// A connection that comes after its session has ended must not become somebody else's.
#[test]
fn r09_a_late_connection_reaches_nobody() {
    let first = free_ports(1);
    let server = Server::start(&["--passive-ports", &first.to_string()]);
    let baseline = server.baseline();
    let mut early = Control::login(server.addr());
    assert_eq!(early.command("EPSV").code, 229);
    early.quit();
    let mut next = Control::login(server.addr());
    next.send(b"EPSV\r\n");
    let late = connect(None, (Ipv4Addr::LOCALHOST, first).into());
    let (got, _) = rest_of(&late);
    assert_eq!(got, b"", "a stranger's connection is closed");
    let reply = next.reply();
    assert!(reply.code == 229 || reply.code == 425, "{reply:?}");
    next.quit();
    four_questions(&server, baseline);
}
