//! Downloads that are not whole (L11).

use std::fs;
use std::io::Write;

use crate::OWN_VERBS;
use crate::client::*;

/// RETR with the given promises, bytes and last words; the file must not appear unless `code` is 0.
#[track_caller]
fn retr(
    size: Option<&'static str>,
    go_ahead: &'static str,
    bytes: &'static [u8],
    last: &'static str,
    code: i32,
    says: &str,
) {
    let dir = dir();
    fs::write(dir.path().join("file"), "old").unwrap();
    let features: &[&str] = if size.is_some() { &["SIZE"] } else { &[] };
    let (outcome, _) = play(dir.path(), &["download", "--force", "file"], move |talk| {
        let mut data = talk.retr(features, size);
        talk.say(go_ahead);
        data.write_all(bytes).unwrap();
        drop(data);
        talk.say(last);
        talk.rest();
    });
    outcome.check(code, says);
    let expected = if code == 0 { bytes } else { b"old" };
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), expected);
    assert_eq!(names(dir.path()), ["file"], "no temporary file is left");
}

#[test]
fn l11_lengths_must_agree() {
    let short = "after 5 of 100 bytes";
    retr(
        None,
        "150 Opening (100 bytes).",
        b"12345",
        "226 done",
        8,
        short,
    );
    retr(Some("100"), "150 Opening", b"12345", "226 done", 8, short);
    retr(
        Some("3"),
        "150 Opening",
        b"12345",
        "226 done",
        8,
        "more than the 3 bytes",
    );
    retr(
        None,
        "150 Opening (100 bytes).",
        b"12345",
        "426 cut",
        8,
        "426 cut",
    );
    retr(None, "150 Opening (5 bytes).", b"12345", "226 done", 0, "");
    retr(Some("5"), "150 Opening", b"12345", "226 done", 0, "");
    retr(None, "150 Opening", b"12345", "226 done", 0, "");
}

#[test]
fn l11_what_was_not_announced_is_not_taken() {
    let dir = dir();
    let (outcome, _) = play(dir.path(), &["download", "file"], |talk| {
        let mut data = talk.retr(&["SIZE"], Some("100"));
        talk.say("150 Opening");
        let chunk = vec![0; 1 << 20];
        let taken = (0..1000).take_while(|_| data.write_all(&chunk).is_ok());
        assert!(taken.count() < 100, "the client took 100 MiB");
        talk.say("426 you closed it");
        talk.answer("QUIT", "221 bye");
    });
    outcome.check(8, "more than the 100 bytes");
    assert!(names(dir.path()).is_empty());
}

#[test]
fn l11_the_last_word_counts_even_when_all_bytes_came() {
    retr(
        Some("5"),
        "150 Opening",
        b"12345",
        "426 broken",
        8,
        "426 broken",
    );
    retr(
        Some("5"),
        "150 Opening",
        b"12345",
        "451 disk",
        8,
        "451 disk",
    );
    retr(
        Some("5"),
        "150 Opening",
        b"12345",
        "150 again",
        8,
        "150 again",
    );
}

#[test]
fn l11_a_226_may_come_before_the_data_ends() {
    for (bytes, code) in [(&b"1234567890"[..], 0), (b"12345", 8)] {
        let dir = dir();
        let (outcome, _) = play(dir.path(), &["download", "file"], move |talk| {
            let mut data = talk.retr(&["SIZE"], Some("10"));
            talk.say("150 Opening\r\n226 done");
            data.write_all(bytes).unwrap();
            drop(data);
            talk.rest();
        });
        outcome.check(code, "");
        let expected: &[&str] = if code == 0 { &["file"] } else { &[] };
        assert_eq!(names(dir.path()), expected);
    }
}

#[test]
fn l11_a_download_on_the_control_connection_that_breaks_off() {
    let dir = dir();
    let (outcome, _) = play(dir.path(), &["download", "file"], |talk| {
        talk.login(OWN_VERBS);
        talk.answer("DOWNLOAD file", "150 100 bytes follow.");
        talk.say_bytes(b"12345");
    });
    outcome.check(8, "after 5 of 100 bytes");
    assert!(names(dir.path()).is_empty());
    for go_ahead in ["150 many bytes", "150", "226 0 bytes sent."] {
        let (outcome, _) = play(dir.path(), &["download", "file"], move |talk| {
            talk.login(OWN_VERBS);
            talk.answer("DOWNLOAD file", go_ahead);
            talk.rest();
        });
        outcome.check(8, "");
        assert!(names(dir.path()).is_empty());
    }
}
