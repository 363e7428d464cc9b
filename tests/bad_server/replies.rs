//! Replies that are none (L02), or more than they seem (L08, L10).

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use crate::OWN_VERBS;
use crate::client::*;
use crate::listings::list;
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

/// Runs `haul ls` with so little room for data that a reply that is held would end it.
fn ls_in_little_room(script: impl FnOnce(&mut Talk) + Send + 'static) -> Outcome {
    let fake = serve(script);
    let dir = dir();
    let mut command = haul_command(fake.address, dir.path());
    command.arg("ls");
    let mut limited = std::process::Command::new("sh");
    limited
        .args(["-c", "ulimit -d 8192 && exec \"$0\" \"$@\""])
        .arg(command.get_program())
        .args(command.get_args())
        .envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))))
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let outcome = finish(limited, b"");
    fake.thread.join().unwrap();
    outcome
}

#[test]
fn l02_an_endless_line_is_cut_short() {
    let outcome = ls_in_little_room(|talk| {
        let chunk = [b'2'; 4096];
        let taken = (0..16_384).take_while(|_| talk.say_bytes(&chunk)).count();
        assert!(taken < 16_384, "the client took 64 MiB of one line");
    });
    outcome.check(3, "never ends");
}

#[test]
fn l02_an_endless_reply_is_cut_short() {
    let outcome = ls_in_little_room(|talk| {
        talk.say("220-welcome");
        let line = b" and more\r\n".repeat(1000);
        let taken = (0..2000).take_while(|_| talk.say_bytes(&line)).count();
        assert!(taken < 2000, "the client took two million lines");
    });
    outcome.check(3, "never ends");
    // Few lines, each as long as one may be: 1 MiB, and what is on its way.
    let outcome = ls_in_little_room(|talk| {
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

/// As it must not appear, and as it must.
const HOSTILE: &str = "\x1b[2J\x1b]0;t\x07 \u{202e}b";
const ESCAPED: &str = "\\u{1b}[2J\\u{1b}]0;t\\u{7} \\u{202e}b";

#[track_caller]
fn check_screen(outcome: &Outcome, code: i32, says: &str) {
    outcome.check(code, says);
    for bad in ["\x1b[2J", "\x1b]0", "\x07", "\u{202e}"] {
        assert!(!outcome.err.contains(bad), "{bad:?} in {:?}", outcome.err);
    }
}

#[test]
fn l08_a_banner_and_a_bar_are_escaped_on_a_terminal() {
    let dir = dir();
    let fake = serve(|talk| {
        talk.say(&format!("220 {HOSTILE}"));
        talk.answer("USER anonymous", "230 in");
        let features = OWN_VERBS.join("\r\n ");
        talk.answer("FEAT", &format!("211-these\r\n {features}\r\n211 end"));
        talk.answer("TYPE I", "200 binary");
        talk.answer("SIZE ", "213 1000000");
        talk.answer("MDTM ", "213 20240101000000");
        talk.expect("DOWNLOAD ");
        talk.say_bytes(b"150 1000000 bytes follow.\r\n");
        talk.say_bytes(&vec![b'x'; 1_000_000]);
        talk.say("226 sent");
        talk.answer("QUIT", "221 bye");
    });
    let mut command = haul_command(fake.address, dir.path());
    command.args(["--verbose", "download", HOSTILE, "copy"]);
    let outcome = finish_on_terminal(command);
    check_screen(&outcome, 0, &format!("< 220 {ESCAPED}"));
    // The bar is as wide as the terminal; only the name and the numbers are looked for.
    let bar = outcome.err.split('\r').find(|part| part.contains("KiB/"));
    let bar = bar.unwrap_or_else(|| panic!("no bar: {}", outcome.err));
    assert!(bar.contains(ESCAPED), "{bar}");
    assert_eq!(
        std::fs::read(dir.path().join("copy")).unwrap().len(),
        1_000_000
    );
    fake.thread.join().unwrap();
}

#[test]
fn l08_listed_names_are_escaped_on_a_terminal_and_none_has_100_kb() {
    let ls = |name: &str| {
        let line = format!("type=file;size=1; {name}\r\n").into_bytes();
        let fake = serve(|talk| {
            talk.login(&["MLST type*;size*;"]);
            list(talk, "MLSD", std::iter::once(line));
            talk.rest();
        });
        let dir = dir();
        let mut command = haul_command(fake.address, dir.path());
        command.arg("ls");
        let outcome = finish_on_terminal(command);
        fake.thread.join().unwrap();
        outcome
    };
    check_screen(&ls(HOSTILE), 0, ESCAPED);
    check_screen(&ls(&"x".repeat(100_000)), 8, "never ends");
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
