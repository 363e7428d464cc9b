//! Uploads that are refused (L12), or whose source changes.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::client::*;
use crate::talk::*;
use crate::{OWN_VERBS, until};

const BIG: usize = 64 << 20;

fn sparse(dir: &Path, bytes: usize) {
    let file = fs::File::create(dir.join("big")).unwrap();
    file.set_len(bytes as u64).unwrap();
}

#[test]
fn l12_no_byte_of_a_body_before_the_go_ahead() {
    for reply in ["", "550 no", "552 quota", "226 stored"] {
        let dir = dir();
        sparse(dir.path(), BIG);
        let arguments = ["--timeout", "1", "upload", "big"];
        let (outcome, heard) = play(dir.path(), &arguments, move |talk| {
            talk.login(OWN_VERBS);
            talk.expect(&format!("UPLOAD {BIG};modify="));
            if !reply.is_empty() {
                talk.say(reply);
            }
            let mut rest = Vec::new();
            talk.control.read_to_end(&mut rest).unwrap();
            assert!(
                rest.is_empty() || rest == b"QUIT\r\n",
                "{} bytes",
                rest.len()
            );
        });
        let (code, says) = match reply {
            "" => (8, "did not answer"),
            "550 no" => (6, "550 no"),
            "552 quota" => (10, "552 quota"),
            _ => (8, "a final reply before the transfer"),
        };
        outcome.check(code, says);
        assert!(heard.last().unwrap().ends_with(" big"), "{heard:?}");
    }
}

#[test]
fn l12_an_early_refusal_stops_the_sending_and_is_reported() {
    let dir = dir();
    sparse(dir.path(), BIG);
    let (outcome, _) = play(dir.path(), &["upload", "big"], |talk| {
        talk.login(OWN_VERBS);
        talk.answer("UPLOAD", "150 send");
        talk.body(1000);
        talk.say("452 no space left");
        // Nothing more is read until the client has closed its side.
        let mut rest = Vec::new();
        let _ = talk.control.read_to_end(&mut rest);
        assert!(rest.len() < BIG - 1000, "the client sent everything");
    });
    outcome.check(10, "452 no space left");
}

#[test]
fn l12_a_refusal_behind_a_reset_is_reported() {
    let dir = dir();
    sparse(dir.path(), BIG);
    let (outcome, _) = play(dir.path(), &["upload", "big"], |talk| {
        talk.login(OWN_VERBS);
        talk.answer("UPLOAD", "150 send");
        talk.body(100_000);
        talk.say("451 disk failure");
        // Closing with unread bytes resets the connection.
    });
    outcome.check(8, "");
    assert!(
        !outcome.err.to_lowercase().contains("broken pipe"),
        "{}",
        outcome.err
    );
}

#[test]
fn l12_a_second_go_ahead_is_no_success() {
    let dir = dir();
    fs::write(dir.path().join("a"), "12345").unwrap();
    let (outcome, _) = play(dir.path(), &["upload", "a"], |talk| {
        talk.login(OWN_VERBS);
        talk.expect("UPLOAD 5+;modify=");
        assert_eq!(talk.body(5), b"12345");
        talk.say("150 go on\r\n150 go on");
        talk.rest();
    });
    outcome.check(8, "second go-ahead");
}

#[test]
fn l12_a_refused_small_upload_keeps_the_connection() {
    let dir = dir();
    fs::write(dir.path().join("a"), "12345").unwrap();
    fs::write(dir.path().join("b"), content(1 << 20)).unwrap();
    let (outcome, heard) = play(dir.path(), &["upload", "a", "b", "d/"], |talk| {
        talk.login(OWN_VERBS);
        talk.lets_into("d/");
        talk.expect("UPLOAD 5+;modify=");
        talk.body(5);
        talk.say("553 bad name");
        talk.expect("UPLOAD 1048576+;modify=");
        assert_eq!(talk.body(1 << 20), content(1 << 20));
        talk.say("226 1048576 bytes stored.");
        talk.answer("QUIT", "221 bye");
    });
    outcome.check(1, "553 bad name");
    assert_eq!(outcome.out, b"uploaded b to d/b (1048576 bytes)\n");
    assert_eq!(heard.last().map(String::as_str), Some("QUIT"));
}

#[test]
fn l12_a_server_without_upload_never_gets_a_body_on_the_control_connection() {
    let dir = dir();
    sparse(dir.path(), BIG);
    let (outcome, heard) = play(dir.path(), &["upload", "big"], |talk| {
        talk.login(&["SIZE"]);
        talk.answer("TYPE I", "200 binary");
        let data = talk.epsv();
        let mut data = accept(&data);
        talk.answer("STOR big", "150 send");
        data.read_exact(&mut [0; 1000]).unwrap();
        talk.say("452 no space left");
        talk.answer("QUIT", "221 bye");
    });
    outcome.check(10, "452 no space left");
    assert_eq!(heard.last().map(String::as_str), Some("QUIT"), "{heard:?}");
}

#[test]
fn l12_a_stored_file_of_another_size_is_an_error() {
    let dir = dir();
    fs::write(dir.path().join("a"), "12345").unwrap();
    let (outcome, _) = play(dir.path(), &["upload", "a"], |talk| {
        talk.login(&["SIZE"]);
        talk.answer("TYPE I", "200 binary");
        let data = talk.epsv();
        let mut data = accept(&data);
        talk.answer("STOR a", "150 send");
        data.read_to_end(&mut Vec::new()).unwrap();
        talk.say("226 fine");
        talk.answer("SIZE a", "213 4");
        talk.answer("QUIT", "221 bye");
    });
    outcome.check(8, "5 bytes were sent, but the server has 4");
}

#[test]
fn standard_input_without_a_second_connection_is_spooled() {
    let fake = serve(|talk| {
        talk.login(OWN_VERBS);
        talk.answer("TYPE I", "200 binary");
        talk.answer("EPSV", "500 no");
        talk.answer("PASV", "425 no ports");
        talk.expect(&format!("UPLOAD {} x", 2 << 20));
        talk.say("150 send");
        assert_eq!(talk.body(2 << 20), content(2 << 20));
        talk.say("226 stored");
        talk.answer("QUIT", "221 bye");
    });
    let mut command = haul_command(fake.address, dir().path());
    command.args(["upload", "-", "x"]).current_dir("/");
    finish(command, &content(2 << 20)).check(0, "");
    fake.thread.join().unwrap();
}

#[test]
fn a_named_pipe_is_opened_once() {
    let dir = dir();
    let pipe = dir.path().join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    // It opens the pipe when somebody opens it to read, and if that one is gone again, its write
    // fails.
    let writer = std::thread::spawn(move || fs::write(pipe, "12345"));
    let fake = serve(|talk| {
        // Whoever opens it sooner than it is needed may close it again.
        let is_opened = until(Duration::from_millis(300), || writer.is_finished());
        assert!(!is_opened, "the pipe was opened before the login");
        talk.login(OWN_VERBS);
        talk.expect("UPLOAD 5+ pipe");
        assert_eq!(talk.body(5), b"12345");
        talk.say("226 stored");
        talk.answer("QUIT", "221 bye");
        writer.join().unwrap().unwrap();
    });
    let outcome = haul(fake.address, dir.path(), &["upload", "pipe"]);
    outcome.check(0, "");
    fake.thread.join().unwrap();
}

#[test]
fn a_file_that_claims_to_be_empty_is_read() {
    let dir = dir();
    let expected = fs::read("/proc/self/mountinfo").unwrap();
    let bytes = expected.len();
    assert!(bytes > 0 && fs::metadata("/proc/self/mountinfo").unwrap().len() == 0);
    let link = dir.path().join("mounts");
    std::os::unix::fs::symlink("/proc/self/mountinfo", link).unwrap();
    let (outcome, _) = play(dir.path(), &["upload", "mounts"], move |talk| {
        talk.login(OWN_VERBS);
        talk.expect(&format!("UPLOAD {bytes}+;"));
        assert_eq!(talk.body(bytes), expected);
        talk.say("226 stored");
        talk.answer("QUIT", "221 bye");
    });
    outcome.check(0, "");
    let said = format!("uploaded mounts ({bytes} bytes)\n");
    assert_eq!(String::from_utf8_lossy(&outcome.out), said);
}

/// Uploads `big` of `bytes` bytes, whose length becomes another one where the script calls for it.
#[track_caller]
fn upload_of_what_changes(
    bytes: usize,
    says: &str,
    script: impl FnOnce(&mut Talk, &dyn Fn(u64)) + Send + 'static,
) {
    let dir = dir();
    sparse(dir.path(), bytes);
    let path = dir.path().join("big");
    let arguments = ["upload", "--no-clobber", "big"];
    let (outcome, _) = play(dir.path(), &arguments, move |talk| {
        let becomes = |bytes| {
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(bytes).unwrap();
        };
        script(talk, &becomes);
        talk.rest();
    });
    outcome.check(if says.is_empty() { 0 } else { 7 }, says);
}

#[test]
fn a_file_that_changes_while_it_is_sent_is_not_called_done() {
    const OWN: &[&str] = &["MLST type*;", "UPLOAD"];
    // Before it is opened, it may become what it likes.
    upload_of_what_changes(5, "", |talk, becomes| {
        talk.login(OWN);
        talk.expect("MLST big");
        becomes(4);
        talk.say("550 no");
        talk.expect("UPLOAD 4+ big");
        talk.body(4);
        talk.say("226 stored");
    });
    upload_of_what_changes(5, "", |talk, becomes| {
        talk.login(OWN);
        talk.expect("MLST big");
        becomes(6);
        talk.say("550 no");
        talk.expect("UPLOAD 6+ big");
        talk.body(6);
        talk.say("226 stored");
    });
    upload_of_what_changes(BIG, "became shorter", |talk, becomes| {
        talk.login(OWN);
        talk.answer("MLST big", "550 no");
        talk.expect("UPLOAD");
        becomes(4);
        talk.say("150 send");
    });
    upload_of_what_changes(2 << 20, "grew", |talk, becomes| {
        talk.login(OWN);
        talk.answer("MLST big", "550 no");
        talk.expect("UPLOAD 2097152 big");
        becomes(4 << 20);
        talk.say("150 send");
        talk.body(2 << 20);
        talk.say("226 stored");
    });
    upload_of_what_changes(5, "became shorter", |talk, becomes| {
        talk.login(&["MLST type*;"]);
        talk.answer("MLST big", "550 no");
        talk.answer("TYPE I", "200 binary");
        let data = talk.epsv();
        let mut data = accept(&data);
        talk.expect("STOR big");
        becomes(4);
        talk.say("150 send");
        let end = data.read_to_end(&mut Vec::new());
        assert!(end.is_err(), "an orderly end means a whole file");
        talk.say("426 cut");
    });
}

#[test]
fn no_clobber_sends_nothing_unless_the_name_is_free_for_sure() {
    const MLST: &[&str] = &["MLST type*;", "UPLOAD"];
    const THERE: &[&str] = &["250-Here\r\n type=file;size=1; a\r\n250 End"];
    for (features, answers, code, says) in [
        (MLST, &["550 no such file"][..], 0, ""),
        (MLST, THERE, 7, "exists already"),
        (
            MLST,
            &["450 busy"],
            6,
            "450 busy; so --no-clobber sends nothing",
        ),
        (MLST, &["451 disk"], 8, "451 disk"),
        (MLST, &["501 what"], 6, "501 what"),
        (MLST, &["530 log in"], 5, "530 log in"),
        (&["UPLOAD"], &[], 6, "neither MLST nor SIZE"),
        (
            &["UPLOAD", "SIZE"],
            &["200 binary", "213 5", "213 x"],
            7,
            "exists already",
        ),
        (
            &["UPLOAD", "SIZE"],
            &["200 binary", "550 no", "257 \"/\"", "550 no"],
            0,
            "",
        ),
        (
            &["UPLOAD", "SIZE"],
            &["200 binary", "550 no", "257 \"/\"", "250 there", "250 back"],
            7,
            "exists already",
        ),
        (
            &["UPLOAD", "SIZE"],
            &["200 binary", "450 busy", "257 \"/\"", "550 no"],
            6,
            "450 busy",
        ),
    ] {
        let dir = dir();
        fs::write(dir.path().join("a"), "12345").unwrap();
        let (outcome, _) = play(dir.path(), &["upload", "--no-clobber", "a"], move |talk| {
            talk.login(features);
            for answer in answers {
                talk.answer("", answer);
            }
            if code == 0 {
                talk.expect("UPLOAD 5+ a");
                talk.body(5);
                talk.say("226 stored");
            }
            talk.answer("QUIT", "221 bye");
        });
        outcome.check(code, says);
    }
}
