//! Names that would be several lines (L09), and names that are no text.

use std::ffi::OsStr;
use std::fs;
use std::io::BufRead;
use std::os::unix::ffi::OsStrExt;

use crate::OWN_VERBS;
use crate::client::*;
use crate::talk::*;

#[test]
fn l09_nothing_is_sent_for_a_name_with_a_line_break() {
    let dir = dir();
    fs::write(dir.path().join("ok"), "x").unwrap();
    fs::write(dir.path().join("a\nQUIT"), "x").unwrap();
    let cases: &[&[&str]] = &[
        &["ls", "a\r\nDELE b"],
        &["tree", "a\n"],
        &["mkdir", "a\rb"],
        &["mkdir", "fine", "a\nb"],
        &["rm", "a\n"],
        &["mv", "a", "b\nc"],
        &["stat", "\n"],
        &["download", "a\nb"],
        &["upload", "ok", "b\nc"],
        &["upload", "-t", "d\n", "ok"],
        &["upload", "a\nQUIT"],
        &["--server", "ftp://a%0d%0aDELE%20x@127.0.0.1:1", "ls"],
        &["--server", "ftp://a:b%0a@127.0.0.1:1", "ls"],
        &["--server", "ftp://a%00@127.0.0.1:1", "ls"],
    ];
    let listener = listener();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    for case in cases {
        let outcome = haul(address, dir.path(), case);
        outcome.check(2, "nothing was sent");
        assert!(listener.accept().is_err(), "{case:?} connected");
    }
    let mut command = haul_command(address, dir.path());
    command.env("HAUL_PASSWORD", "a\r\nDELE x").arg("ls");
    finish(command, b"").check(2, "HAUL_PASSWORD");
    assert!(listener.accept().is_err());
}

#[test]
fn names_are_bytes() {
    let dir = dir();
    let name = OsStr::from_bytes(b"a\xff\xfe \"b");
    fs::write(dir.path().join(name), "x").unwrap();
    let fake = serve(|talk| {
        talk.login(OWN_VERBS);
        let mut line = Vec::new();
        talk.control.read_until(b'\n', &mut line).unwrap();
        assert!(line.starts_with(b"UPLOAD 1+;"), "{line:?}");
        assert!(
            line.ends_with(b" a\xff\xff\xfe \"b\r\n"),
            "FF is doubled: {line:?}"
        );
        talk.body(1);
        talk.say("226 stored");
        talk.answer("QUIT", "221 bye");
    });
    let mut command = haul_command(fake.address, dir.path());
    command.arg("upload").arg(name);
    let outcome = finish(command, b"");
    outcome.check(0, "");
    assert_eq!(outcome.out, b"uploaded a\\xff\\xfe \"b (1 bytes)\n");
    fake.thread.join().unwrap();
}

#[test]
fn the_targets_of_links_are_bytes() {
    const LINK: &[u8] = b" type=OS.unix=slink:t\xff\xffx; a\xff\xffb\r\n";
    let (outcome, _) = play(dir().path(), &["tree"], |talk| {
        talk.login(OWN_VERBS);
        talk.answer("TREE", "250-Tree of /");
        talk.say_bytes(LINK);
        talk.say("250 1 entries.");
        talk.answer("QUIT", "221 bye");
    });
    assert_eq!(outcome.out, b"a\xffb -> t\xffx\n");
    let (outcome, _) = play(dir().path(), &["stat", "a"], |talk| {
        talk.login(&["MLST type*;", "UPLOAD"]);
        talk.answer("MLST", "250-Here");
        talk.say_bytes(LINK);
        talk.say("250 End");
        talk.answer("QUIT", "221 bye");
    });
    assert_eq!(outcome.out, b"a: link to t\\xffx\n");
}
