//! Quotas of homes and what is left of the disk, over sockets.

use std::io::Write;
use std::net::TcpStream;

use rustix::process::Signal;

use crate::common::content::{KIB, bytes};
use crate::common::control::Control;
use crate::common::server::{Launch, Server, four_questions};
use crate::common::users::{Users, logged_in};
use crate::common::{PATIENCE, until, wait_for};

const QUOTA: usize = 1000 * KIB;
const MOST: usize = QUOTA * 7 / 10;

/// Anna has `/anna` and 1000 KiB; Ben `/anna/ben` and half of that, within hers.
fn users() -> Users {
    let quota = QUOTA.to_string();
    let half = (QUOTA / 2).to_string();
    Users::new(&[
        (
            "anna",
            "secret",
            &[
                "--home",
                "/anna",
                "--quota-bytes",
                &quota,
                "--quota-files",
                "20",
            ],
        ),
        (
            "ben",
            "other",
            &["--home", "/anna/ben", "--quota-bytes", &half],
        ),
    ])
}

/// Becomes hauld where the homes are there before it begins, and what else is asked for.
fn server_with(users: &Users, furnish: &str) -> Server {
    let script = format!("for dir; do :; done; mkdir -p \"$dir/anna/ben\"; {furnish} exec \"$@\"");
    let path = users.path();
    let path = path.to_str().expect("a path");
    Server::launch(&Launch {
        through: &["sh", "-c", &script, "sh"],
        options: &["--users", path, "--anonymous", "write"],
        ..Launch::default()
    })
}

fn server(users: &Users) -> Server {
    server_with(users, "")
}

fn anna(server: &Server) -> Control {
    let mut session = logged_in(server, "anna", "secret");
    used(&mut session);
    session
}

/// What SITE QUOTA says once everything is counted: bytes and files.
fn used(session: &mut Control) -> (usize, usize) {
    let counted = wait_for(PATIENCE, || {
        let reply = session.command("SITE QUOTA");
        (reply.code == 200).then_some(reply.text)
    });
    let text = counted.expect("the home is counted");
    let numbers: Vec<usize> = text
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|word| word.parse().ok())
        .collect();
    match text.contains(" files") && text.matches(" of ").count() == 2 {
        true => (numbers[0], numbers[2]),
        false => (numbers[0], *numbers.last().expect("numbers")),
    }
}

#[track_caller]
fn settles(session: &mut Control, bytes: usize, files: usize) {
    let mut last = (0, 0);
    let settled = until(PATIENCE, || {
        last = used(session);
        last == (bytes, files)
    });
    assert!(settled, "{last:?} instead of {:?}", (bytes, files));
}

/// A verb that stores over a data connection. Who is refused on the way is hung up on.
fn put(session: &mut Control, verb: &str, name: &str, content: &[u8]) -> u16 {
    let mut data = session.epsv();
    let first = session.command(&format!("{verb} {name}"));
    if first.code != 150 {
        return first.code;
    }
    let _ = data.write_all(content);
    drop(data);
    session.reply().code
}

/// STOR whose content is not there yet.
fn begin_stor(session: &mut Control, name: &str) -> TcpStream {
    let data = session.epsv();
    let reply = session.command(&format!("STOR {name}"));
    assert_eq!(reply.code, 150, "{reply:?}");
    data
}

#[test]
fn f16_of_two_uploads_that_fit_only_alone_one_succeeds() {
    let users = users();
    let server = server(&users);
    let baseline = server.baseline();
    let (mut one, mut two) = (anna(&server), anna(&server));
    let content = bytes(16, MOST);
    // Known sizes: the second is refused before its first byte.
    assert_eq!(one.command(&format!("UPLOAD {MOST} a")).code, 150);
    let refused = two.command(&format!("UPLOAD {MOST} b"));
    assert_eq!(refused.code, 552);
    assert!(refused.text.contains(&QUOTA.to_string()), "{refused:?}");
    assert!(
        refused.text.contains(&(QUOTA - MOST).to_string()),
        "{refused:?}"
    );
    // Immediate: exactly the body is thrown away.
    two.send(format!("UPLOAD {MOST}+ b\r\n").as_bytes());
    two.send(&content);
    two.send(b"NOOP\r\n");
    assert_eq!((two.reply().code, two.reply().code), (552, 200));
    one.send(&content);
    assert_eq!(one.reply().code, 226);
    settles(&mut one, MOST, 2);
    // Unknown sizes: both begin, and none passes the limit.
    assert_eq!(one.command("DELE a").code, 250);
    let (mut first, mut second) = (begin_stor(&mut one, "a"), begin_stor(&mut two, "b"));
    let (half, rest) = content.split_at(MOST / 2);
    for part in [half, rest] {
        for data in [&mut first, &mut second] {
            // Who is refused is hung up on.
            let _ = data.write_all(part);
        }
    }
    drop((first, second));
    let mut ends = [one.reply().code, two.reply().code];
    ends.sort_unstable();
    assert_eq!(ends, [226, 552]);
    settles(&mut one, MOST, 2);
    one.quit();
    two.quit();
    four_questions(&server, baseline);
}

#[test]
fn f16_replacing_and_appending_need_the_difference() {
    let users = users();
    let server = server(&users);
    let mut session = anna(&server);
    let content = bytes(16, MOST);
    for _ in 0..3 {
        assert_eq!(session.upload("f", &content).code, 226);
        assert_eq!(put(&mut session, "STOR", "f", &content), 226);
    }
    settles(&mut session, MOST, 2);
    let (fits, too_much) = (&content[..QUOTA - MOST], &content[..QUOTA - MOST + 1]);
    assert_eq!(put(&mut session, "APPE", "f", too_much), 552);
    settles(&mut session, MOST, 2);
    assert_eq!(put(&mut session, "APPE", "f", fits), 226);
    settles(&mut session, QUOTA, 2);
    assert_eq!(put(&mut session, "APPE", "f", b"x"), 552);
    assert_eq!(session.command(&format!("REST {QUOTA}")).code, 350);
    assert_eq!(put(&mut session, "STOR", "f", b"x"), 552);
    assert_eq!(session.command("REST 10").code, 350);
    assert_eq!(put(&mut session, "STOR", "f", b"x"), 226);
    settles(&mut session, 11, 2);
    let answers = |session: &mut Control, line: &str| session.command(line);
    let left = QUOTA - 11;
    assert_eq!(answers(&mut session, "AVBL").text, left.to_string());
    assert_eq!(answers(&mut session, &format!("ALLO {left}")).code, 202);
    assert_eq!(
        answers(&mut session, &format!("ALLO {}", left + 1)).code,
        452
    );
    session.quit();
}

#[test]
fn f16_what_is_given_up_is_free_again() {
    let users = users();
    let server = server(&users);
    let baseline = server.baseline();
    let mut session = anna(&server);
    for n in 0..30 {
        let mut other = logged_in(&server, "anna", "secret");
        let data = match n % 3 {
            // ABOR.
            0 => {
                let mut data = begin_stor(&mut other, "f");
                data.write_all(&bytes(16, MOST)).expect("sending");
                other.send(b"ABOR\r\n");
                assert!(matches!(other.reply().code, 426 | 226));
                other.reply();
                Some(data)
            }
            // The session dies in the middle of a body.
            1 => {
                assert_eq!(other.command(&format!("UPLOAD {MOST} f")).code, 150);
                other.send(&bytes(16, MOST / 2));
                None
            }
            // And before its data connection does.
            _ => {
                let mut data = begin_stor(&mut other, "f");
                data.write_all(&bytes(16, MOST / 2)).expect("sending");
                Some(data)
            }
        };
        drop(other);
        drop(data);
        // What arrived is kept, to be continued, and counts until it is removed.
        let removed = until(PATIENCE, || session.command("DELE f").code == 250);
        assert!(removed, "something is kept");
        settles(&mut session, 0, 1);
    }
    assert_eq!(session.upload("f", &bytes(16, QUOTA)).code, 226);
    assert_eq!(session.upload("g", b"x").code, 552);
    assert_eq!(session.command("DELE f").code, 250);
    assert_eq!(session.upload("g", &bytes(16, QUOTA)).code, 226);
    session.quit();
    four_questions(&server, baseline);
}

#[test]
fn f16_files_and_directories_are_counted_too() {
    let users = users();
    let server = server(&users);
    let mut session = anna(&server);
    for n in 0..18 {
        assert_eq!(session.upload(&format!("f{n}"), b"").code, 226, "{n}");
    }
    assert_eq!(session.command("MKD d").code, 257);
    settles(&mut session, 0, 20);
    assert_eq!(session.command("MKD e").code, 552);
    assert_eq!(session.upload("f18", b"").code, 552);
    assert_eq!(put(&mut session, "STOR", "f18", b""), 552);
    assert_eq!(session.upload("f17", b"x").code, 226);
    assert_eq!(session.command("RNFR f17").code, 350);
    assert_eq!(session.command("RNTO f16").code, 250);
    assert_eq!(session.command("RMD d").code, 250);
    settles(&mut session, 1, 18);
    session.quit();
}

#[test]
fn f16_a_home_within_a_home() {
    let users = users();
    let server = server(&users);
    let mut ben = logged_in(&server, "ben", "other");
    let mut anna = anna(&server);
    used(&mut ben);
    assert_eq!(anna.upload("f", &bytes(1, MOST)).code, 226);
    // Ben may hold more, but Anna may not.
    assert_eq!(ben.upload("g", &bytes(1, QUOTA - MOST + 1)).code, 552);
    assert_eq!(ben.upload("g", &bytes(1, QUOTA - MOST)).code, 226);
    settles(&mut anna, QUOTA, 3);
    settles(&mut ben, QUOTA - MOST, 1);
    assert_eq!(anna.command("DELE ben/g").code, 250);
    settles(&mut ben, 0, 0);
    assert_eq!(anna.command("DELE f").code, 250);
    assert_eq!(anna.upload("ben/f", &bytes(1, QUOTA / 2 + 1)).code, 552);
    // The anonymous sees all of it, and counts for whom it belongs to.
    let mut stranger = Control::login(server.addr());
    assert_eq!(stranger.command("SITE QUOTA").text, "There is no quota.");
    assert_eq!(stranger.upload("f", &bytes(1, MOST)).code, 226);
    assert_eq!(stranger.command("RNFR f").code, 350);
    assert_eq!(stranger.command("RNTO anna/ben/f").code, 552);
    assert_eq!(stranger.command("RNFR f").code, 350);
    assert_eq!(stranger.command("RNTO anna/f").code, 250);
    settles(&mut anna, MOST, 2);
    for session in [ben, anna, stranger] {
        session.quit();
    }
}

#[test]
fn f16_a_restart_and_a_reload_lose_nothing() {
    let users = users();
    let first = server(&users);
    let mut session = anna(&first);
    assert_eq!(session.upload("f", &bytes(1, MOST)).code, 226);
    users.user(&["set", "anna", "--quota-bytes", "10"], "");
    first.signal(Signal::HUP);
    let refused = until(PATIENCE, || {
        let text = session.command("SITE QUOTA").text;
        text.contains(" of 10 bytes")
    });
    assert!(
        refused,
        "the reload lowers the limit of those who are there"
    );
    assert_eq!(session.upload("g", b"x").code, 552);
    settles(&mut session, MOST, 2);
    users.user(
        &[
            "set",
            "anna",
            "--quota-bytes",
            "none",
            "--quota-files",
            "none",
        ],
        "",
    );
    first.signal(Signal::HUP);
    let free = until(PATIENCE, || {
        session.command("SITE QUOTA").text == "There is no quota."
    });
    assert!(free, "the reload takes the limit away");
    users.user(&["set", "anna", "--quota-bytes", &QUOTA.to_string()], "");
    first.signal(Signal::HUP);
    let limited = until(PATIENCE, || {
        session.command("SITE QUOTA").text.contains(" of ")
    });
    assert!(
        limited,
        "the reload gives a limit, and what is there is counted"
    );
    settles(&mut session, MOST, 2);
    session.quit();
}

#[test]
fn f16_a_server_that_begins_counts_what_it_finds() {
    let users = users();
    let server = server_with(&users, "head -c 700000 /dev/zero > \"$dir/anna/ben/f\";");
    let mut session = anna(&server);
    settles(&mut session, 700_000, 2);
    assert_eq!(
        session.upload("g", &bytes(1, QUOTA - 700_000 + 1)).code,
        552
    );
    assert_eq!(session.upload("g", &bytes(1, QUOTA - 700_000)).code, 226);
    let mut ben = logged_in(&server, "ben", "other");
    settles(&mut ben, 700_000, 1);
    assert_eq!(
        ben.upload("f", &bytes(1, 600_000)).code,
        226,
        "over, but smaller"
    );
    assert_eq!(ben.upload("f", &bytes(1, 600_001)).code, 552);
    for session in [session, ben] {
        session.quit();
    }
}

/// Becomes hauld where the served directory, its last argument, is a file system of 8 MiB.
const SMALL: &str = r#"
    for dir; do :; done
    mount --make-rprivate / || exit 2
    mount -t tmpfs -o size=8m,mode=755 small "$dir" || exit 2
    exec "$@"
"#;

fn small_disk(options: &[&str]) -> Server {
    Server::launch(&Launch {
        through: &["unshare", "--mount", "sh", "-c", SMALL, "sh"],
        options,
        ..Launch::default()
    })
}

const MIB: usize = 1024 * KIB;

/// Bytes that can still be uploaded.
fn available(session: &mut Control) -> usize {
    let reply = session.command("AVBL");
    reply.text.parse().unwrap_or_else(|_| panic!("{reply:?}"))
}

#[test]
fn r18_announcements_alone_take_no_disk_from_anybody() {
    let server = small_disk(&[]);
    let baseline = server.baseline();
    let mut session = Control::login(server.addr());
    let free = available(&mut session);
    assert!(free > 7 * MIB, "{free}");
    let mut silent: Vec<Control> = (0..10).map(|_| Control::login(server.addr())).collect();
    for (n, other) in silent.iter_mut().enumerate() {
        // What cannot be is refused before the first byte; what could be is believed, a little.
        assert_eq!(
            other.command(&format!("UPLOAD 900000000000 f{n}")).code,
            452
        );
        let reply = other.command(&format!("UPLOAD {} f{n}", 300 * KIB));
        assert_eq!(reply.code, 150, "{n}: {reply:?}");
    }
    assert!(available(&mut session) > MIB);
    assert_eq!(session.upload("mine", &bytes(18, 500 * KIB)).code, 226);
    assert_eq!(
        put(&mut session, "STOR", "mine too", &bytes(18, 500 * KIB)),
        226
    );
    drop(silent);
    let back = until(PATIENCE, || {
        available(&mut session) >= free - 1000 * KIB - 8 * KIB
    });
    assert!(back, "the promises come back");
    session.quit();
    four_questions(&server, baseline);
}

#[test]
fn f17_what_is_kept_free_is_never_used_up() {
    let server = small_disk(&["--min-free", "3MiB"]);
    let baseline = server.baseline();
    let mut session = Control::login(server.addr());
    let free = available(&mut session);
    assert!((4 * MIB..5 * MIB + 1).contains(&free), "{free}");
    let large = bytes(17, 6 * MIB);
    assert_eq!(put(&mut session, "STOR", "f", &large), 452);
    for n in 5..=6 {
        let refused = session.command(&format!("UPLOAD {} f", n * MIB + 1));
        assert_eq!(refused.code, 452, "{n}");
    }
    assert_eq!(session.upload("f", &large[..4 * MIB]).code, 226);
    // The old one stays until the new one is whole, so both need space.
    assert_eq!(put(&mut session, "STOR", "f", &large[..2 * MIB]), 452);
    assert_eq!(session.command(&format!("UPLOAD {} f", 2 * MIB)).code, 452);
    assert_eq!(put(&mut session, "APPE", "f", &large[..2 * MIB]), 452);
    let (kept, _) = session.download("f");
    assert!(kept == large[..4 * MIB]);
    assert_eq!(session.command("DELE f").code, 250);
    assert_eq!(put(&mut session, "STOR", "f", &large[..4 * MIB]), 226);
    session.quit();
    four_questions(&server, baseline);
}

#[test]
fn c12_a_disk_that_fills_up_during_many_uploads_is_fine_when_there_is_space_again() {
    let server = small_disk(&["--min-free", "1MiB"]);
    let baseline = server.baseline();
    let mut sessions: Vec<Control> = (0..20).map(|_| Control::login(server.addr())).collect();
    let content = bytes(12, MIB);
    let mut uploads: Vec<TcpStream> = sessions
        .iter_mut()
        .enumerate()
        .map(|(n, session)| begin_stor(session, &format!("f{n}")))
        .collect();
    for part in content.chunks(128 * KIB) {
        for data in &mut uploads {
            let _ = data.write_all(part);
        }
    }
    drop(uploads);
    let ends: Vec<u16> = sessions.iter_mut().map(|it| it.reply().code).collect();
    assert!(
        ends.iter().all(|code| matches!(code, 226 | 452)),
        "{ends:?}"
    );
    assert!(ends.contains(&452), "{ends:?}");
    for (n, (session, end)) in sessions.iter_mut().zip(ends).enumerate() {
        let name = format!("f{n}");
        if end == 226 {
            assert!(session.download(&name).0 == content, "{name}");
            assert_eq!(session.command(&format!("DELE {name}")).code, 250);
        } else {
            assert_eq!(session.command(&format!("SIZE {name}")).code, 550);
        }
    }
    for (n, session) in sessions.iter_mut().enumerate() {
        assert_eq!(
            put(session, "STOR", &format!("f{n}"), &content[..100 * KIB]),
            226
        );
    }
    for session in sessions {
        session.quit();
    }
    four_questions(&server, baseline);
}
