//! F04 to F06: what is renamed, by clients or behind the server's back.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::walls::{SECRET, Walls, try_verb};
use crate::common::control::Control;
use crate::common::server::four_questions;

/// A process of this machine turns a directory into a link and back while it is used.
#[test]
fn f04_a_directory_that_turns_into_a_link_leads_nowhere() {
    let walls = Walls::new();
    let baseline = walls.server.baseline();
    let (dir, link) = (walls.server.path("d"), walls.server.path("e"));
    symlink("../outside", &link).expect("linking");
    let stop = AtomicBool::new(false);
    let verbs = [
        "STOR", "RETR", "DOWNLOAD", "UPLOAD+", "MKD", "RMD", "RNTO", "RNFR", "DELE",
    ];
    let verbs = [
        &verbs[..],
        &["LIST", "NLST", "APPE", "TREE", "HASH", "SITE CHMOD 777"],
    ]
    .concat();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, &dir, CWD, &link, RenameFlags::EXCHANGE).expect("exchanging");
            }
        });
        let clients: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut session = Control::login(walls.server.addr());
                    for round in 0..80 {
                        for verb in &verbs {
                            let path = ["d/f", "d/d/f", "d/new", "d"][round % 4];
                            let (codes, received) = race_verb(&mut session, verb, path);
                            let known = [200, 213, 226, 250, 257, 350, 450, 451, 550, 553];
                            assert!(codes.iter().all(|c| known.contains(c)), "{verb}: {codes:?}");
                            let leaks = received.windows(SECRET.len()).any(|p| p == SECRET);
                            assert!(!leaks, "{verb} {path}");
                        }
                    }
                    session.quit();
                })
            })
            .collect();
        let results: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        stop.store(true, Ordering::Relaxed);
        results
            .into_iter()
            .for_each(|result| result.expect("a client"));
    });
    walls.stand("the race");
    four_questions(&walls.server, baseline);
}

/// As [`try_verb`], where nothing can be expected of what is there.
fn race_verb(session: &mut Control, verb: &str, path: &str) -> (Vec<u16>, Vec<u8>) {
    match verb {
        "RNTO" => {
            let name = format!("/from-{:?}", std::thread::current().id());
            assert_eq!(session.upload(&name, b"x").code, 226);
            assert_eq!(session.command(&format!("RNFR {name}")).code, 350);
            let code = session.command(&format!("RNTO {path}")).code;
            session.command(&format!("DELE {name}"));
            (vec![code], Vec::new())
        }
        "RNFR" => {
            // The directory itself stays: without it there is no race.
            let from = session.command(&format!("RNFR {path}")).code;
            if from != 350 || path == "d" {
                return (vec![from], Vec::new());
            }
            let name = format!("/to-{:?}", std::thread::current().id());
            let code = session.command(&format!("RNTO {name}")).code;
            session.command(&format!("DELE {name}"));
            (vec![from, code], Vec::new())
        }
        "DELE" | "RMD" | "STOR" | "APPE" | "UPLOAD+" if path == "d" => (Vec::new(), Vec::new()),
        _ => try_verb(session, verb, path.as_bytes()),
    }
}

#[test]
fn f05_a_working_directory_that_is_moved_out_is_gone() {
    let walls = Walls::new();
    let baseline = walls.server.baseline();
    fs::create_dir(walls.server.path("here")).expect("making");
    fs::write(walls.server.path("here/f"), b"was inside").expect("writing");
    let mut session = Control::login(walls.server.addr());
    assert_eq!(session.command("CWD here").code, 250);
    assert_eq!(session.download("f").0, b"was inside");
    fs::rename(walls.server.path("here"), walls.outside.join("moved")).expect("moving");
    for verb in [
        "DOWNLOAD f",
        "SIZE f",
        "DELE f",
        "MKD new",
        "TREE",
        "MLST f",
        "STAT f",
    ] {
        assert_eq!(session.command(verb).code, 550, "{verb}");
    }
    for verb in ["RETR f", "MLSD", "LIST", "NLST"] {
        assert_eq!(session.fetch(verb).1.code, 550, "{verb}");
    }
    assert_eq!(session.upload("f", b"x").code, 550);
    assert_eq!(session.stor("f", b"x").code, 550);
    assert!(walls.outside.join("moved/f").exists());
    assert_eq!(session.command("CDUP").code, 250, "there is a way back");
    assert_eq!(session.command("PWD").text.split('"').nth(1), Some("/"));
    session.quit();
    four_questions(&walls.server, baseline);
}

#[test]
fn f06_renaming_replaces_files_and_links_and_nothing_else() {
    let walls = Walls::new();
    let baseline = walls.server.baseline();
    let mut session = Control::login(walls.server.addr());
    let rename = |session: &mut Control, from: &str, to: &str| {
        assert_eq!(session.command(&format!("RNFR {from}")).code, 350, "{from}");
        session.command(&format!("RNTO {to}")).code
    };
    for name in ["one", "two", "sub/three"] {
        assert_eq!(session.upload(name, name.as_bytes()).code, 226);
    }
    fs::create_dir_all(walls.server.path("full/below")).expect("making");
    symlink("../outside/f", walls.server.path("link")).expect("linking");

    assert_eq!(rename(&mut session, "one", "two"), 250, "onto a file");
    assert_eq!(session.download("two").0, b"one");
    assert_eq!(rename(&mut session, "two", "two"), 250, "onto itself");
    assert_eq!(
        rename(&mut session, "two", "./sub/../two"),
        250,
        "onto itself"
    );
    assert_eq!(session.download("two").0, b"one");
    for dir in ["d", "full", "/", "sub/..", "sub"] {
        assert_eq!(rename(&mut session, "two", dir), 553, "onto {dir}");
        assert_eq!(
            rename(&mut session, "full", dir),
            if dir == "full" { 250 } else { 553 }
        );
    }
    for below in ["full/new", "full/below/new"] {
        assert_eq!(rename(&mut session, "full", below), 553, "into itself");
    }
    assert_eq!(
        rename(&mut session, "full", "two"),
        550,
        "a directory onto a file"
    );
    assert_eq!(rename(&mut session, "two", "link"), 250, "onto a link");
    assert!(
        walls
            .server
            .path("link")
            .symlink_metadata()
            .expect("there")
            .is_file()
    );
    assert_eq!(session.download("link").0, b"one");
    symlink("../outside", walls.server.path("link-to-dir")).expect("linking");
    assert_eq!(rename(&mut session, "link", "link-to-dir"), 250);
    assert_eq!(rename(&mut session, "link-to-dir", "absent/x"), 550);
    assert_eq!(session.command("RNFR absent").code, 550);
    assert_eq!(session.command("RNFR link-to-dir").code, 350);
    assert_eq!(session.command("RNTO a\x1bb").code, 553);
    assert_eq!(session.command("RNTO x").code, 503, "RNFR is used up");
    walls.stand("renaming");
    session.quit();
    four_questions(&walls.server, baseline);
}
