//! F18, F19: what is logged, and which permission bits things get.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::common::bytewise::{command, on_path};
use crate::common::control::Control;
use crate::common::server::{Server, four_questions};
use crate::common::{PATIENCE, settled, until};

#[test]
fn f18_nobody_forges_a_line_of_the_log() {
    let mut server = Server::start(&["--log-level", "debug"]);
    let baseline = server.baseline();
    let hostile: [&[u8]; 5] = [
        b"x\rFAKE 230 Logged in",
        b"\x1b]0;pwn\x07",
        b"x\x00y",
        b"\xc2\x9b2Jx",
        b"x\" from 9.9.9.9",
    ];
    for name in hostile {
        let mut session = Control::connect(server.addr());
        on_path(&mut session, "USER", name);
        command(&mut session, b"PASS opensesame-1");
        session.quit();
    }
    let mut stranger = Control::connect(server.addr());
    for line in [
        "pass opensesame-2",
        "PAS opensesame-3",
        "USER",
        "PASSW opensesame-4",
    ] {
        stranger.command(line);
    }
    let mut session = Control::login(server.addr());
    session.command("PASS opensesame-5");
    fs::write(server.path("a\nFAKE login: user root\x1b[2J"), b"").expect("writing");
    for name in [&b"a\rFAKE"[..], b"\x1b]0;pwn\x07", b"\x7f", b"\xff\xfe"] {
        for verb in [
            "RETR", "DOWNLOAD", "DELE", "STOR", "MKD", "UPLOAD 1", "CLNT", "XYZZY",
        ] {
            on_path(&mut session, verb, name);
        }
    }
    session.quit();
    let ended = until(PATIENCE, || {
        let count = server
            .log()
            .lines()
            .filter(|l| l.contains("ended: "))
            .count();
        count >= 7
    });
    assert!(ended, "each session is logged: {}", server.log());
    four_questions(&server, baseline);
    assert_eq!(server.stop(), 0);
    let log = server.log();
    for (n, line) in log.lines().enumerate() {
        assert!(
            line.contains("[hauld] "),
            "line {n} is no line of ours: {line:?}"
        );
        assert!(!line.chars().any(char::is_control), "line {n}: {line:?}");
        let said = line.split("[hauld] ").nth(1).expect("checked");
        assert!(!said.starts_with("FAKE"), "{line}");
    }
    assert!(
        !log.contains("opensesame"),
        "a password is in the log:\n{log}"
    );
    let failed = log
        .lines()
        .filter(|line| line.contains("login failed"))
        .count();
    for shown in [
        r#""\x1b]0;pwn\x07""#,
        r#""\xc2\x9b2Jx""#,
        r#""x\x22 from 9.9.9.9""#,
    ] {
        assert!(
            log.contains(&format!("user {shown} from 127.0.0.1")),
            "{log}"
        );
    }
    assert!(failed >= hostile.len() - 1, "{failed} failures in\n{log}");
}

fn mode(server: &Server, name: &str) -> u32 {
    let meta = fs::metadata(server.path(name)).expect("it is there");
    meta.permissions().mode() & 0o7777
}

#[test]
fn f19_new_things_have_usual_modes_and_never_set_id_bits() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let mut session = Control::login(server.addr());
    assert_eq!(session.stor("stored", b"x").code, 226);
    assert_eq!(session.upload("uploaded", b"x").code, 226);
    assert_eq!(session.command("MKD dir").code, 257);
    assert_eq!(mode(&server, "stored"), 0o644);
    assert_eq!(mode(&server, "uploaded"), 0o644);
    assert_eq!(mode(&server, "dir"), 0o755);
    for (asked, expected) in [("4777", 0o777), ("7777", 0o777), ("6644", 0o644), ("0", 0)] {
        for name in ["stored", "dir"] {
            let reply = session.command(&format!("SITE CHMOD {asked} {name}"));
            assert!(reply.code == 200 || reply.code == 501, "{reply:?}");
            if reply.code == 200 {
                assert_eq!(mode(&server, name), expected, "{asked} {name}");
            }
        }
    }
    session.command("SITE CHMOD 640 stored");
    for wrong in ["888", "abc", "-1", "0x1ff", "99999999999", "", "644"] {
        let line = format!("SITE CHMOD {wrong} stored");
        let line = if wrong == "644" {
            "SITE CHMOD 644"
        } else {
            &line
        };
        assert_eq!(session.command(line).code, 501, "{line}");
    }
    assert_eq!(mode(&server, "stored"), 0o640);
    assert_eq!(
        session.command("SITE CHMOD 700 /").code,
        550,
        "the root stays open"
    );

    // A file that is replaced passes its bits on, but none of those that are dangerous.
    for before in [0o4755, 0o2755, 0o6777] {
        let permissions = fs::Permissions::from_mode(before);
        fs::set_permissions(server.path("stored"), permissions).expect("chmod");
        assert_eq!(session.stor("stored", b"new").code, 226);
        assert_eq!(mode(&server, "stored"), before & 0o777);
    }
    for (umask, file, dir) in [("077", 0o600, 0o700), ("000", 0o666, 0o777), ("777", 0, 0)] {
        assert_eq!(session.command(&format!("SITE UMASK {umask}")).code, 200);
        assert_eq!(session.stor(&format!("f{umask}"), b"x").code, 226);
        assert_eq!(session.command(&format!("MKD d{umask}")).code, 257);
        assert_eq!(mode(&server, &format!("f{umask}")), file);
        assert_eq!(mode(&server, &format!("d{umask}")), dir);
    }
    for wrong in ["1000", "7777", "8", "-1", "abc"] {
        assert_eq!(session.command(&format!("SITE UMASK {wrong}")).code, 501);
    }
    for (fact, expected) in [("4777", 0o777), ("7640", 0o640), ("0600", 0o600)] {
        session.send(format!("UPLOAD 1+;unix.mode={fact}; with-{fact}\r\nx").as_bytes());
        let code = session.reply().code;
        assert!(code == 226 || code == 501, "{code}");
        if code == 226 {
            assert_eq!(mode(&server, &format!("with-{fact}")), expected);
        }
    }
    session.quit();
    four_questions(&server, baseline);
}

/// Nobody else may look into what is not there yet.
#[test]
fn f19_what_is_being_uploaded_is_its_owner_s_alone() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let mut session = Control::login(server.addr());
    assert_eq!(session.command("UPLOAD 200000;unix.mode=0777; f").code, 150);
    session.send(&[1; 100_000]);
    let staged = || -> Vec<u32> {
        let open = fs::read_dir(format!("/proc/{}/fd", server.pid()));
        let modes = open.expect("running").flatten().filter_map(|fd| {
            let target = fs::read_link(fd.path()).unwrap_or_default();
            let is_staged = target.starts_with(server.root()) && target != server.root();
            let mode = fs::metadata(fd.path()).ok()?.mode() & 0o7777;
            is_staged.then_some(mode)
        });
        modes.collect()
    };
    settled(|| !staged().is_empty());
    assert_eq!(staged(), [0o600], "the staged file");
    session.send(&[2; 100_000]);
    assert_eq!(session.reply().code, 226);
    assert_eq!(mode(&server, "f"), 0o777);
    session.quit();
    four_questions(&server, baseline);
}

#[test]
fn f19_times_of_every_age_are_taken_or_refused() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let mut session = Control::login(server.addr());
    assert_eq!(session.upload("f", b"x").code, 226);
    for time in [
        "19700101000000",
        "19991231235960",
        "20380119031408",
        "22000229000000",
    ] {
        let reply = session.command(&format!("MFMT {time} f"));
        assert!(reply.code == 213 || reply.code == 501, "{time}: {reply:?}");
    }
    for time in ["19010101000000", "00010101000000", "99991231235959"] {
        let reply = session.command(&format!("MFMT {time} f"));
        assert!(
            matches!(reply.code, 213 | 501 | 550 | 553),
            "{time}: {reply:?}"
        );
        assert_eq!(session.command("MDTM f").code, 213);
        let (listed, end) = session.fetch("LIST f");
        assert_eq!(end.code, 226);
        assert_eq!(listed.iter().filter(|&&b| b == b'\n').count(), 1);
    }
    for wrong in [
        "20260230000000",
        "20261301000000",
        "2026",
        "abcdefghijklmn",
        "-0260101000000",
    ] {
        assert_eq!(
            session.command(&format!("MFMT {wrong} f")).code,
            501,
            "{wrong}"
        );
    }
    assert_eq!(session.command("MFMT 20260131120000 f").code, 213);
    assert_eq!(session.command("MDTM f").text, "20260131120000");
    assert_eq!(
        fs::metadata(server.path("f")).expect("there").mtime(),
        1_769_860_800
    );
    for line in ["MDTM 20000101000000 f", "SITE UTIME 20000101000000 f"] {
        assert_eq!(session.command(line).code, 213, "{line}");
        assert_eq!(session.command("MDTM f").text, "20000101000000", "{line}");
        session.command("MFMT 20260131120000 f");
    }
    session.quit();
    four_questions(&server, baseline);
}
