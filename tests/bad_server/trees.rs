//! Trees and series of files (L06, L07, L11 to L13, L17).

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use crate::client::*;
use crate::talk::*;
use crate::{OWN_VERBS, PATIENCE};

const EVIL: &[&str] = &["../x", "/etc/x", "a/../../x", "..", ".", "", "a//b", "d/.."];

/// A tree with names that lead out, and what of it came.
fn tree_of(talk: &mut Talk, entries: &[String]) {
    talk.answer("MLST d", "250-x\r\n type=dir; /d\r\n250 end");
    talk.expect("TREE d");
    talk.say("250-Tree of /d");
    entries
        .iter()
        .for_each(|entry| talk.say(&format!(" {entry}")));
    talk.say(&format!("250 {} entries.", entries.len()));
}

#[test]
fn l06_names_of_a_tree_never_leave_the_target() {
    let outer = dir();
    let target = outer.path().join("target");
    fs::create_dir(&target).unwrap();
    let (outcome, heard) = play(&target, &["download", "-r", "d"], |talk| {
        talk.login(&[OWN_VERBS, &["MLST type*;size*;"]].concat());
        let evil = EVIL.iter().map(|name| format!("type=file;size=1; {name}"));
        let mut entries: Vec<String> = evil.collect();
        entries.push("type=file;size=1; good".into());
        tree_of(talk, &entries);
        talk.answer("DOWNLOAD d/good", "150 1 bytes follow.");
        talk.say_bytes(b"x226 sent\r\n");
        talk.rest();
    });
    outcome.check(1, "skipped ../x");
    assert_eq!(
        outcome.err.matches("skipped ").count(),
        EVIL.len(),
        "{}",
        outcome.err
    );
    assert_eq!(
        heard
            .iter()
            .filter(|line| line.starts_with("DOWNLOAD"))
            .count(),
        1
    );
    assert_eq!(names(outer.path()), ["target"]);
    assert_eq!(names(&target), ["d"]);
    assert_eq!(names(&target.join("d")), ["good"]);
}

/// A server without verbs of its own, all of whose directories hold these lines.
fn with_lines(talk: &mut Talk, features: &[&str], lines: &[Vec<u8>]) {
    talk.login(features);
    let mut data = None;
    loop {
        let line = talk.hear();
        match line.split(' ').next().unwrap_or_default() {
            "" => return,
            "EPSV" => {
                let listener = listener();
                let port = listener.local_addr().unwrap().port();
                talk.say(&format!("229 Extended (|||{port}|)"));
                data = Some(listener);
            }
            "MLST" => talk.say("250-x\r\n type=dir; /d\r\n250 end"),
            "PWD" => talk.say("257 \"/\""),
            "CWD" | "TYPE" => talk.say("200 yes"),
            verb @ ("LIST" | "MLSD" | "RETR") => {
                let mut data = accept(&data.take().expect("EPSV comes first"));
                talk.say("150 here");
                let body = match verb {
                    "RETR" => b"x".to_vec(),
                    _ => lines.concat(),
                };
                data.write_all(&body).unwrap();
                drop(data);
                talk.say("226 done");
            }
            "QUIT" => talk.say("221 bye"),
            _ => talk.say("500 what?"),
        }
    }
}

#[test]
fn l06_names_of_listings_never_leave_the_target() {
    let long = "l".repeat(300);
    // Whatever they mean elsewhere, here they are names like others.
    let fine = ["C:\\x", "CON", "\\\\x", "cut", "good"];
    let listed = ["../x", "/etc/x", "a/b", "..", "", "nul\0x", "cut\nshort"];
    let listed = [&listed[..], &["C:\\x", "\\\\x", "CON", "good", &long]].concat();
    for (features, before) in [
        (&["MLST type*;size*;"][..], "type=file;size=1; "),
        (&[], "-rw-r--r-- 1 ftp ftp 1 Jan 31 12:00 "),
    ] {
        let outer = dir();
        let target = outer.path().join("target");
        fs::create_dir(&target).unwrap();
        let line = |name: &&str| format!("{before}{name}\r\n").into_bytes();
        let mut lines: Vec<Vec<u8>> = listed.iter().map(line).collect();
        // No way up, nor round and round.
        for name in ["..", ".", "../up", "/"] {
            let is_dir = before
                .replace("type=file", "type=dir")
                .replace("-rw-", "drw-");
            lines.push(format!("{is_dir}{name}\r\n").into_bytes());
        }
        let arguments = ["download", "-r", "--jobs", "1", "d"];
        let (outcome, heard) = play(&target, &arguments, move |talk| {
            with_lines(talk, features, &lines);
        });
        outcome.check(1, "skipped ./../x");
        assert!(!outcome.err.contains("left out 0"), "{}", outcome.err);
        for skipped in [".//etc/x", "./a/b", "nul", "./../up"] {
            let says = format!("skipped {skipped}");
            assert!(outcome.err.contains(&says), "{says}: {}", outcome.err);
        }
        let looked = heard
            .iter()
            .filter(|it| it.starts_with("LIST") || it.starts_with("MLSD"));
        assert_eq!(looked.count(), 1, "{heard:?}");
        assert_eq!(names(outer.path()), ["target"]);
        assert_eq!(names(&target), ["d"]);
        assert_eq!(names(&target.join("d")), fine);
    }
}

#[test]
fn l07_a_link_and_then_a_directory_of_its_name_lead_nowhere() {
    let outer = dir();
    let target = outer.path().join("target");
    fs::create_dir_all(target.join("d")).unwrap();
    // Planted here, and by the server.
    symlink(outer.path(), target.join("d/planted")).unwrap();
    let (outcome, _) = play(&target, &["download", "-r", "d", "."], |talk| {
        talk.login(&[OWN_VERBS, &["MLST type*;size*;"]].concat());
        let entries = [
            "type=OS.unix=slink:../..; twice",
            "type=OS.unix=slink:..; up",
            "type=dir; twice",
            "type=file;size=1; twice/a",
            "type=file;size=1; planted/a",
            "type=file;size=1; same",
            "type=file;size=1; same",
        ];
        tree_of(talk, &entries.map(String::from));
        // Only what has a place is asked for.
        for _ in 0..2 {
            let line = talk.expect("DOWNLOAD d/");
            assert!(
                line.ends_with("/twice/a") || line.ends_with("/same"),
                "{line}"
            );
            talk.say_bytes(b"150 1 bytes follow.\r\nx226 sent\r\n");
        }
        talk.rest();
    });
    outcome.check(1, "planted is in the way");
    assert_eq!(names(outer.path()), ["target"]);
    assert!(target.join("d/twice/a").is_file());
    assert!(
        fs::symlink_metadata(target.join("d/twice"))
            .unwrap()
            .is_dir()
    );
}

#[test]
fn l07_a_pipe_of_that_name_is_not_opened() {
    let dir = dir();
    let pipe = std::process::Command::new("mkfifo")
        .arg(dir.path().join("a"))
        .status();
    assert!(pipe.unwrap().success());
    let (outcome, _) = play(
        dir.path(),
        &["download", "--force", "a", "b", "."],
        |talk| {
            talk.login(OWN_VERBS);
            talk.expect("DOWNLOAD b");
            talk.say_bytes(b"150 1 bytes follow.\r\nx226 sent\r\n");
            talk.rest();
        },
    );
    outcome.check(1, "a device or a pipe");
    assert_eq!(names(dir.path()), ["a", "b"]);
}

#[test]
fn l11_what_breaks_off_in_a_series_leaves_the_rest_whole() {
    let dir = dir();
    let (outcome, _) = play(dir.path(), &["download", "a", "b", "c", "."], |talk| {
        talk.login(OWN_VERBS);
        talk.expect("DOWNLOAD a");
        talk.expect("DOWNLOAD b");
        talk.expect("DOWNLOAD c");
        talk.say_bytes(b"150 3 bytes follow.\r\nabc226 sent\r\n150 9 bytes follow.\r\nabc");
    });
    outcome.check(
        1,
        "cannot download b to ./b: the connection ended after 3 of 9 bytes",
    );
    assert_eq!(names(dir.path()), ["a"]);
    assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"abc");
}

#[test]
fn l12_a_refusal_in_a_series_is_one_file_s() {
    let dir = dir();
    for name in ["a", "b", "c"] {
        fs::write(dir.path().join(name), name).unwrap();
    }
    let (outcome, _) = play(dir.path(), &["upload", "-t", "x", "a", "b", "c"], |talk| {
        talk.login(OWN_VERBS);
        talk.lets_into("x");
        for (name, answer) in [("a", "226 stored"), ("b", "452 full"), ("c", "226 stored")] {
            let line = talk.expect("UPLOAD 1+;");
            assert!(line.ends_with(&format!(" x/{name}")), "{line}");
            assert_eq!(talk.body(1), name.as_bytes());
            talk.say(answer);
        }
        talk.rest();
    });
    outcome.check(1, "cannot upload b to x/b: the server says: 452 full");
    let said = String::from_utf8_lossy(&outcome.out).into_owned();
    assert_eq!(said.matches("uploaded").count(), 2, "{said}");
}

#[test]
fn l12_a_refusal_in_the_middle_of_a_body_ends_the_connection() {
    let dir = dir();
    // More than fits between the two: it cannot all be sent before the refusal is seen.
    let names: Vec<String> = (0..40).map(|n| format!("f{n}")).collect();
    for name in &names {
        fs::write(dir.path().join(name), content(1 << 20)).unwrap();
    }
    let mut arguments = vec!["upload", "-t", "x"];
    arguments.extend(names.iter().map(String::as_str));
    let (over, is_over) = channel::<()>();
    let fake = serve(move |talk| {
        talk.login(OWN_VERBS);
        talk.lets_into("x");
        talk.expect("UPLOAD 1048576+;");
        talk.say("552 quota exceeded");
        // The end of the sender ends this, and the rest of the body is never read.
        assert_eq!(
            is_over.recv_timeout(PATIENCE),
            Err(RecvTimeoutError::Disconnected)
        );
    });
    let outcome = haul(fake.address, dir.path(), &arguments);
    drop(over);
    let heard = fake.thread.join().unwrap();
    outcome.check(1, "552 quota exceeded");
    let uploads = heard
        .iter()
        .filter(|line| line.starts_with("UPLOAD"))
        .count();
    assert_eq!(uploads, 1);
}

#[test]
fn l17_a_421_in_a_series_is_one_clean_error() {
    let dir = dir();
    let (outcome, _) = play(dir.path(), &["download", "a", "b", "c", "."], |talk| {
        talk.login(OWN_VERBS);
        talk.expect("DOWNLOAD a");
        talk.say_bytes(b"150 1 bytes follow.\r\nx226 sent\r\n421 shutting down\r\n");
        talk.rest();
    });
    outcome.check(1, "421 shutting down");
    assert_eq!(outcome.err.lines().count(), 2, "{}", outcome.err);
    assert_eq!(names(dir.path()), ["a"]);
}

#[test]
fn l17_an_upload_without_an_answer_is_looked_at_before_it_is_sent_again() {
    let dir = dir();
    for name in ["a", "b"] {
        fs::write(dir.path().join(name), name).unwrap();
    }
    let listener = listener();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let features = [OWN_VERBS, &["MLST type*;size*;modify*;"]].concat();
        let mut talk = Talk::new(accept(&listener));
        talk.login(&features);
        talk.answer("MLST x", "250-x\r\n type=dir; /x\r\n250 end");
        let line = talk.expect("UPLOAD 1+;modify=");
        let time = line.split(['=', ';']).nth(2).unwrap().to_owned();
        talk.body(1);
        talk.expect("UPLOAD 1+;");
        talk.body(1);
        drop(talk);
        let mut talk = Talk::new(accept(&listener));
        talk.login(&features);
        let entry = format!("250-x\r\n type=file;size=1;modify={time}; x/a\r\n250 end");
        talk.answer("MLST x/a", &entry);
        talk.answer("MLST x/b", "550 nothing");
        let line = talk.expect("UPLOAD 1+;");
        assert!(line.ends_with(" x/b"), "{line}");
        talk.body(1);
        talk.say("226 stored");
        talk.rest();
    });
    let arguments = ["--retries", "1", "upload", "-t", "x", "a", "b"];
    let outcome = haul(address, dir.path(), &arguments);
    outcome.check(0, "trying again in 1 s");
    thread.join().unwrap();
}

/// The digest of a large partial takes the server longer than --timeout.
#[test]
fn l13_a_server_may_take_its_time_for_the_digest_of_a_partial() {
    let dir = dir();
    let file = fs::File::create(dir.path().join("big")).unwrap();
    file.set_len(100 << 20).unwrap();
    let arguments = ["--timeout", "1", "upload", "big"];
    let (outcome, _) = play(dir.path(), &arguments, |talk| {
        talk.login(&[OWN_VERBS, &["PARTIAL"]].concat());
        talk.expect("PARTIAL big");
        talk.hear_nothing(Duration::from_secs(2));
        talk.say("550 nothing");
        talk.answer("UPLOAD 104857600;", "552 quota exceeded");
        talk.rest();
    });
    outcome.check(10, "552 quota exceeded");
}

#[test]
fn l13_an_upload_goes_on_only_where_its_beginning_is_proven() {
    let dir = dir();
    let whole = content(2 << 20);
    fs::write(dir.path().join("big"), &whole).unwrap();
    let features = [OWN_VERBS, &["PARTIAL"]].concat();
    // The digest of the first 1 MiB, and one of something else.
    let digest = |bytes: &[u8]| {
        let file = dir.path().join("sum");
        fs::write(&file, bytes).unwrap();
        let sum = std::process::Command::new("sha256sum")
            .arg(&file)
            .output()
            .unwrap();
        String::from_utf8(sum.stdout[..64].to_vec()).unwrap()
    };
    let half = 1 << 20;
    for (says, from) in [(digest(&whole[..half]), half), (digest(b"other"), 0)] {
        let (features, expected) = (features.clone(), whole[from..].to_vec());
        let (outcome, _) = play(dir.path(), &["upload", "big"], move |talk| {
            talk.login(&features);
            talk.answer("PARTIAL big", &format!("213 {half} {says}"));
            if from > 0 {
                talk.answer(&format!("REST {from}"), "350 go on");
            }
            talk.answer(&format!("UPLOAD {};", expected.len()), "150 send it");
            assert!(talk.body(expected.len()) == expected);
            talk.say("226 stored");
            talk.rest();
        });
        outcome.check(0, "");
    }
}
