//! Replies that are none (L02), or more than they seem (L08, L10).

use std::io::Write;
use std::time::Duration;

use crate::OWN_VERBS;
use crate::client::*;
use crate::talk::*;

#[test]
fn l02_babble_instead_of_a_greeting() {
    for babble in [
        "2\r\n",
        "22\r\n",
        "999 x\r\n",
        "hello\r\n",
        "220x\r\n",
        "220 a\0b\r\n",
        "\r\n",
        "HTTP/1.1 400 Bad Request\r\n\r\n",
    ] {
        let (outcome, heard) = play(dir().path(), &["ls"], move |talk| {
            talk.say_bytes(babble.as_bytes());
            talk.rest();
        });
        outcome.check(3, "cannot connect");
        assert!(heard.is_empty(), "{babble:?}: {heard:?}");
    }
}

#[test]
fn l02_an_endless_line_is_cut_short() {
    let (outcome, _) = play(dir().path(), &["ls"], |talk| {
        let chunk = [b'2'; 4096];
        let taken = (0..16_384).take_while(|_| talk.say_bytes(&chunk)).count();
        assert!(taken < 16_384, "the client took 64 MiB of one line");
    });
    outcome.check(3, "never ends");
}

#[test]
fn l02_an_endless_reply_is_cut_short() {
    let (outcome, _) = play(dir().path(), &["ls"], |talk| {
        talk.say("220-welcome");
        let line = b" and more\r\n".repeat(1000);
        let taken = (0..2000).take_while(|_| talk.say_bytes(&line)).count();
        assert!(taken < 2000, "the client took two million lines");
    });
    outcome.check(3, "never ends");
    // Few lines, each as long as one may be: 1 MiB, and what is on its way.
    let (outcome, _) = play(dir().path(), &["ls"], |talk| {
        talk.say("220-welcome");
        let line = [" ", &"x".repeat(8000), "\r\n"].concat();
        let taken = (0..5000).take_while(|_| talk.say_bytes(line.as_bytes()));
        assert!(taken.count() < 5000, "the client took 40 MB");
    });
    outcome.check(3, "never ends");
}

#[test]
fn l02_a_reply_that_is_never_finished_times_out() {
    let (outcome, _) = play(dir().path(), &["--timeout", "1", "ls"], |talk| {
        talk.say("220-welcome");
        // Something comes all the time, but never the end.
        while talk.say_bytes(b" wait\r\n") {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    outcome.check(3, "did not answer");
    assert!(outcome.took < Duration::from_secs(10), "{:?}", outcome.took);
}

#[test]
fn l02_a_tree_of_any_length_is_read() {
    let (outcome, _) = play(dir().path(), &["tree"], |talk| {
        talk.login(OWN_VERBS);
        talk.answer("TREE", "250-Tree of /");
        for at in 0..20_000 {
            talk.say(&format!(" type=file;size=1; f{at}"));
        }
        talk.say("250 20001 entries, 1 left out.");
        talk.answer("QUIT", "221 bye");
    });
    outcome.check(1, "1 entries are missing");
    assert_eq!(outcome.out.iter().filter(|&&b| b == b'\n').count(), 20_000);
}

#[test]
fn l08_control_bytes_of_the_server_are_escaped() {
    let (outcome, _) = play(dir().path(), &["rm", "a"], |talk| {
        talk.login(&[]);
        talk.answer("DELE a", "550 \x1b[2Jno\x07 such \u{202e}file");
        talk.answer("QUIT", "221 bye");
    });
    outcome.check(6, "\\u{1b}[2Jno\\u{7} such \\u{202e}file");
}

#[test]
fn l10_a_working_directory_is_read_safely_or_not_at_all() {
    for (reply, code, says) in [
        ("257 \"unclosed", 8, "cannot read the reply to PWD"),
        ("257 /x", 8, "cannot read the reply to PWD"),
        ("257 \"/x\rSTOR evil\"", 8, "cannot read the reply to PWD"),
        ("257 \"/a\"b", 0, ""),
    ] {
        let (outcome, heard) = play(dir().path(), &["ls", "sub"], move |talk| {
            talk.login(&[]);
            talk.answer("PWD", reply);
            if code == 0 {
                talk.answer("CWD sub", "250 there");
                let data = talk.epsv();
                accept(&data).write_all(b"total 0\r\n").unwrap();
                talk.answer("LIST", "150 here");
                talk.say("226 done");
                talk.answer("CWD /a", "250 back");
            }
            talk.answer("QUIT", "221 bye");
        });
        outcome.check(code, says);
        assert!(heard.iter().all(|line| !line.contains("evil")), "{heard:?}");
    }
}
