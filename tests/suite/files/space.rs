//! A disk without space, a file system of another kind, and limits of the process.

use std::fs;
use std::path::PathBuf;

use crate::common::bytewise::store;
use crate::common::content::{KIB, bytes};
use crate::common::control::Control;
use crate::common::server::{Launch, Server, four_questions};

/// Becomes hauld where `full` of the served directory, its last argument, is a small file system
/// and `proc` is /proc. Nobody else sees that.
const WITH_MOUNTS: &str = r#"
    for dir; do :; done
    mount --make-rprivate / || exit 2
    mkdir -p "$dir/full" "$dir/proc" || exit 2
    mount -t tmpfs -o size=64k,mode=755 full "$dir/full" || exit 2
    mount --bind /proc "$dir/proc" || exit 2
    exec "$@"
"#;

fn server_with_mounts() -> Server {
    Server::launch(&Launch {
        through: &["unshare", "--mount", "sh", "-c", WITH_MOUNTS, "sh"],
        ..Launch::default()
    })
}

/// A path as the server sees it.
fn seen(server: &Server, name: &str) -> PathBuf {
    let root = server.root().strip_prefix("/").expect("absolute");
    PathBuf::from(format!("/proc/{}/root", server.pid()))
        .join(root)
        .join(name)
}

#[track_caller]
fn holds_only(server: &Server, names: &[&str]) {
    let mut found: Vec<_> = fs::read_dir(seen(server, "full"))
        .expect("mounted")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("a text")
        })
        .collect();
    found.sort();
    assert_eq!(found, names, "nothing else, staged or not");
}

#[test]
fn f17_a_full_disk_costs_only_the_upload_that_found_it_full() {
    let server = server_with_mounts();
    let baseline = server.baseline();
    let mut session = Control::login(server.addr());
    let large = bytes(17, 100 * KIB);
    assert_eq!(session.upload("full/old", b"old content").code, 226);
    for name in ["full/new", "full/old"] {
        for verb in ["STOR", "APPE"] {
            let end = full_data(&mut session, verb, name, &large);
            assert!(end == 452 || end == 552, "{verb} {name}: {end}");
            holds_only(&server, &["old"]);
        }
        // In band the body is thrown away, and what follows is a command again.
        session.send(format!("UPLOAD {}+ {name}\r\n", large.len()).as_bytes());
        session.send(&large);
        session.send(b"NOOP\r\n");
        assert_eq!(session.reply().code, 452, "UPLOAD+ {name}");
        assert_eq!(session.reply().code, 200);
        let first = session.command(&format!("UPLOAD {} {name}", large.len()));
        if first.code == 150 {
            session.send(&large);
            assert_eq!(session.reply().code, 452, "UPLOAD {name}");
        } else {
            assert_eq!(first.code, 452, "{first:?}");
        }
        // More than could be thrown away: known before the first byte.
        let first = session.command(&format!("UPLOAD 2000000 {name}"));
        assert_eq!(first.code, 452, "{first:?}");
        let old = fs::read(seen(&server, "full/old")).expect("there");
        assert_eq!(old, b"old content");
        holds_only(&server, &["old"]);
    }
    assert_eq!(session.command("ALLO 2000000").code, 202);
    assert_eq!(session.command("CWD full").code, 250);
    assert_eq!(session.command("ALLO 2000000").code, 452);
    // There is space again at once.
    let small = &large[..40 * KIB];
    assert_eq!(session.stor("new", small).code, 226);
    assert_eq!(fs::read(seen(&server, "full/new")).expect("there"), small);
    assert_eq!(session.command("DELE new").code, 250);
    assert_eq!(session.upload("new", small).code, 226);
    holds_only(&server, &["new", "old"]);
    session.quit();
    four_questions(&server, baseline);
}

/// The server may have answered and closed before everything was sent.
fn full_data(session: &mut Control, verb: &str, name: &str, content: &[u8]) -> u16 {
    let mut data = session.epsv();
    let first = session.command(&format!("{verb} {name}"));
    if first.code != 150 {
        return first.code;
    }
    let _ = std::io::Write::write_all(&mut data, content);
    drop(data);
    session.reply().code
}

#[test]
fn f06_nothing_is_renamed_to_another_file_system() {
    let server = server_with_mounts();
    let baseline = server.baseline();
    let mut session = Control::login(server.addr());
    assert_eq!(session.upload("f", b"content").code, 226);
    assert_eq!(session.command("MKD d").code, 257);
    for (from, to) in [("f", "full/f"), ("d", "full/d")] {
        assert_eq!(session.command(&format!("RNFR {from}")).code, 350);
        assert_eq!(session.command(&format!("RNTO {to}")).code, 553, "{from}");
    }
    holds_only(&server, &[]);
    assert_eq!(session.command("RNFR full").code, 350);
    assert_eq!(
        session.command("RNTO elsewhere").code,
        550,
        "a mount is in use"
    );
    assert_eq!(session.command("RMD full").code, 550);
    assert_eq!(session.download("f").0, b"content");
    session.quit();
    four_questions(&server, baseline);
}

/// Whoever serves /proc has asked for much; yet no link of it leads out and nothing hangs.
#[test]
fn f10_a_served_proc_leads_nowhere_and_hangs_nobody() {
    let server = server_with_mounts();
    let baseline = server.baseline();
    let mut other = Control::login(server.addr());
    let mut session = Control::login(server.addr());
    for path in [
        "proc/self/root/etc/passwd",
        "proc/self/cwd",
        "proc/self/exe",
        "proc/self/fd/0",
        "proc/1/root",
        "proc/kmsg",
        "proc/self/mem",
        "proc/self/environ",
        "proc/sysrq-trigger",
        "proc/sys/kernel/core_pattern",
    ] {
        let (got, end) = session.fetch(&format!("RETR {path}"));
        assert!(matches!(end.code, 226 | 550 | 451), "RETR {path}: {end:?}");
        assert_eq!(got, b"", "RETR {path}");
        for verb in ["SIZE", "MLST", "HASH", "TREE", "CWD"] {
            let code = session.command(&format!("{verb} {path}")).code;
            assert!(
                matches!(code, 213 | 250 | 550 | 553 | 451),
                "{verb} {path}: {code}"
            );
        }
        let code = session.command(&format!("UPLOAD 1 {path}")).code;
        assert!(code >= 450, "UPLOAD {path}: {code}");
        for verb in ["STOR", "APPE"] {
            let code = store(&mut session, verb, path.as_bytes(), b"x").code;
            assert!(code >= 450, "{verb} {path}: {code}");
        }
        assert_eq!(other.command("NOOP").code, 200);
    }
    session.quit();
    other.quit();
    four_questions(&server, baseline);
}

#[test]
fn f17_a_file_over_the_limit_of_the_process_is_552() {
    let server = Server::launch(&Launch {
        through: &["prlimit", "--fsize=65536"],
        ..Launch::default()
    });
    let baseline = server.baseline();
    let mut session = Control::login(server.addr());
    let large = bytes(17, 400 * KIB);
    assert_eq!(session.upload("old", b"old content").code, 226);
    for name in ["old", "new"] {
        for verb in ["STOR", "APPE"] {
            assert_eq!(
                full_data(&mut session, verb, name, &large),
                552,
                "{verb} {name}"
            );
        }
        session.send(format!("UPLOAD {}+ {name}\r\n", large.len()).as_bytes());
        session.send(&large);
        assert_eq!(session.reply().code, 552, "UPLOAD {name}");
    }
    assert_eq!(session.download("old").0, b"old content");
    assert_eq!(session.command("SIZE new").code, 550);
    assert_eq!(session.upload("new", &large[..60 * KIB]).code, 226);
    session.quit();
    four_questions(&server, baseline);
}
