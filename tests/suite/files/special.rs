//! F10, F11: what is no regular file, and directories that are large, deep, unreadable or gone.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::time::Instant;

use rustix::fs::{CWD, FileType, Mode, OFlags};

use crate::common::PATIENCE;
use crate::common::bytewise::{rest_of, store};
use crate::common::control::Control;
use crate::common::server::{Launch, Server, four_questions};

#[test]
fn f10_what_is_no_file_is_refused_at_once() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    rustix::fs::mkfifoat(CWD, server.path("fifo"), Mode::from_raw_mode(0o666)).expect("a FIFO");
    let _socket = UnixListener::bind(server.path("socket")).expect("a socket");
    let mut names = vec!["fifo", "socket"];
    let (kind, mode) = (FileType::CharacterDevice, Mode::from_raw_mode(0o666));
    let zero = rustix::fs::makedev(1, 5);
    // Not everybody may make one.
    if rustix::fs::mknodat(CWD, server.path("zero"), kind, mode, zero).is_ok() {
        names.push("zero");
    }
    let mut other = Control::login(server.addr());
    let mut session = Control::login(server.addr());
    for name in names {
        let begin = Instant::now();
        for verb in ["RETR", "LIST", "MLSD"] {
            let (got, end) = session.fetch(&format!("{verb} {name}"));
            let expected = match verb {
                "RETR" => 550,
                "LIST" => 226,
                _ => 501,
            };
            assert_eq!(end.code, expected, "{verb} {name}");
            assert!(got.is_empty() || verb == "LIST");
            assert_eq!(other.command("NOOP").code, 200);
        }
        for verb in ["STOR", "APPE"] {
            let code = store(&mut session, verb, name.as_bytes(), b"x").code;
            assert_eq!(code, 550, "{verb} {name}");
        }
        for verb in [
            "DOWNLOAD",
            "SIZE",
            "HASH",
            "XCRC",
            "UPLOAD 4",
            "MFMT 20200101000000",
            "SITE CHMOD 777",
            "CWD",
            "TREE",
        ] {
            let reply = session.command(&format!("{verb} {name}"));
            assert_eq!(reply.code, 550, "{verb} {name}: {reply:?}");
        }
        session.send(format!("UPLOAD 4+ {name}\r\nNOOP").as_bytes());
        assert_eq!(session.reply().code, 550);
        assert!(begin.elapsed() < PATIENCE, "at once");
        assert_eq!(
            session.command(&format!("DELE {name}")).code,
            250,
            "but it can go"
        );
    }
    session.quit();
    other.quit();
    four_questions(&server, baseline);
}

#[test]
fn f11_a_directory_that_goes_while_it_is_listed() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    for verb in ["MLSD d", "LIST d", "NLST d", "TREE d", "STAT d"] {
        fs::create_dir(server.path("d")).expect("making");
        fs::write(server.path("f"), b"").expect("writing");
        for n in 0..20_000 {
            // More than the sockets hold; a second name is cheaper than a file.
            let name = format!("d/{n}{}", "x".repeat(240));
            fs::hard_link(server.path("f"), server.path(&name)).expect("linking");
        }
        let mut session = Control::login(server.addr());
        let mut some = [0; 1000];
        if verb.starts_with("TREE") || verb.starts_with("STAT") {
            session.send(format!("{verb}\r\nNOOP\r\n").as_bytes());
            fs::remove_dir_all(server.path("d")).expect("removing");
            let end = session.reply();
            assert!(
                matches!(end.code, 213 | 212 | 250 | 550),
                "{verb}: {}",
                end.code
            );
            assert_eq!(session.reply().code, 200);
        } else {
            let data = session.epsv();
            assert_eq!(session.command(verb).code, 150);
            (&mut &data).read_exact(&mut some).expect("the beginning");
            fs::remove_dir_all(server.path("d")).expect("removing");
            let (received, _) = rest_of(&data);
            assert!(
                received.is_empty() || received.ends_with(b"\r\n"),
                "whole lines"
            );
            let end = session.reply();
            assert!(end.code == 226 || end.code == 451, "{verb}: {end:?}");
        }
        assert_eq!(session.command("NOOP").code, 200);
        session.quit();
    }
    four_questions(&server, baseline);
}

/// 2,000 directories, one in the other. The last ones can be reached, seen and removed.
#[test]
fn f11_a_deep_tree_is_walked_to_its_end() {
    const DEPTH: usize = 2000;
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = rustix::fs::open(server.root(), flags, Mode::empty()).expect("there");
    for _ in 0..DEPTH {
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).expect("making");
        at = rustix::fs::openat(&at, "d", flags, Mode::empty()).expect("there");
    }
    let before_kib = server.rss_kib();
    let mut session = Control::login(server.addr());
    let tree = session.command("TREE");
    assert_eq!(tree.code, 250);
    assert_eq!(tree.text, format!("{DEPTH} entries."));
    let deepest = tree.lines[tree.lines.len() - 2].clone();
    assert!(deepest.ends_with("/d".repeat(DEPTH - 1).as_bytes()));
    let grown_kib = server.rss_kib().saturating_sub(before_kib);
    assert!(grown_kib < 4096, "{grown_kib} KiB for a deep tree");

    let path = vec!["d"; DEPTH].join("/");
    assert_eq!(session.command(&format!("CWD {path}")).code, 250);
    assert_eq!(session.upload("f", b"deep").code, 226);
    assert_eq!(session.download("f").0, b"deep");
    assert_eq!(session.command("TREE").lines.len(), 3);
    assert_eq!(
        session.command("TREE /").text,
        format!("{} entries.", DEPTH + 1)
    );
    assert_eq!(session.command("DELE f").code, 250);
    // Also what was too deep for std to remove with few descriptors.
    for left in (1..=DEPTH).rev() {
        let path = vec!["d"; left].join("/");
        assert_eq!(session.command(&format!("RMD /{path}")).code, 250);
    }
    session.quit();
    four_questions(&server, baseline);
}

/// Even root cannot read everything, once it has given up that right.
#[test]
fn f11_what_cannot_be_read_is_left_out_and_counted() {
    let caps = "-dac_override,-dac_read_search";
    let bounding = format!("--bounding-set={caps}");
    let inherited = format!("--inh-caps={caps}");
    let server = Server::launch(&Launch {
        through: &["setpriv", &bounding, &inherited],
        ..Launch::default()
    });
    let baseline = server.baseline();
    fs::create_dir_all(server.path("closed/inside")).expect("making");
    fs::write(server.path("closed/inside/f"), b"x").expect("writing");
    fs::write(server.path("secret"), b"x").expect("writing");
    fs::write(server.path("open"), b"x").expect("writing");
    for name in ["closed", "secret"] {
        rustix::fs::chmod(server.path(name), Mode::empty()).expect("closing");
    }
    let mut session = Control::login(server.addr());
    let (listed, end) = session.fetch("NLST");
    assert_eq!(end.code, 226);
    assert_eq!(listed.iter().filter(|&&b| b == b'\n').count(), 3);
    let tree = session.command("TREE");
    assert_eq!(tree.text, "3 entries, 1 left out.");
    let closed = tree.lines.iter().find(|line| line.ends_with(b" closed"));
    let closed = String::from_utf8_lossy(closed.expect("it is an entry")).into_owned();
    assert!(closed.contains("x.incomplete=1;"), "{closed}");
    for path in ["secret", "closed/inside/f"] {
        assert_eq!(session.fetch(&format!("RETR {path}")).1.code, 550);
        assert_eq!(session.command(&format!("DOWNLOAD {path}")).code, 550);
    }
    for verb in ["MLSD closed", "LIST closed"] {
        assert_eq!(session.fetch(verb).1.code, 550, "{verb}");
    }
    assert_eq!(session.upload("closed/new", b"x").code, 550);
    assert_eq!(session.command("MKD closed/new").code, 550);
    session.quit();
    for name in ["closed", "secret"] {
        rustix::fs::chmod(server.path(name), Mode::RWXU).expect("opening");
    }
    four_questions(&server, baseline);
}
