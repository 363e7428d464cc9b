//! Servers that refuse a login or say goodbye (L17), and clients that go on.

use std::fs;

use crate::OWN_VERBS;
use crate::client::*;
use crate::talk::*;

#[test]
fn l17_a_421_at_any_point_is_one_clean_error() {
    type Script = fn(&mut Talk);
    let cases: &[(i32, Script)] = &[
        (3, |talk| talk.say("421 too many")),
        (8, |talk| {
            talk.say("220 ready");
            talk.answer("USER", "421 too many");
        }),
        (8, |talk| {
            talk.login(&[]);
            talk.answer("TYPE I", "421 too many");
        }),
        (8, |talk| {
            drop(talk.retr(&[], None));
            talk.say("421 too many");
        }),
    ];
    for (code, script) in cases {
        let script = *script;
        let (outcome, _) = play(dir().path(), &["download", "file"], move |talk| {
            script(talk);
            talk.rest();
        });
        outcome.check(*code, "421 too many");
        assert_eq!(outcome.err.lines().count(), 1, "{}", outcome.err);
    }
}

#[test]
fn a_login_that_is_refused_has_its_own_exit_code() {
    let fake = serve(|talk| {
        talk.say("220 ready");
        talk.answer("USER me", "331 password");
        talk.answer("PASS hush", "530 no");
        talk.rest();
    });
    let server = format!("ftp://me:hush@{}", fake.address);
    let arguments = ["--verbose", "--server", &server, "ls"];
    let outcome = haul(fake.address, dir().path(), &arguments);
    outcome.check(5, "530 no");
    assert!(!outcome.err.contains("hush"), "{}", outcome.err);
    fake.thread.join().unwrap();
}

#[test]
fn a_server_without_anonymous_users_wants_one() {
    let (outcome, _) = play(dir().path(), &["ls"], |talk| {
        talk.say("220 ready");
        talk.answer("USER anonymous", "530 No anonymous users.");
        talk.rest();
    });
    outcome.check(
        5,
        "530 No anonymous users; it wants a user: --server USER@HOST",
    );
}

#[test]
fn a_script_that_ends_before_a_file_name_is_wrong() {
    let fake = serve(|talk| {
        talk.login(OWN_VERBS);
        talk.answer("QUIT", "221 bye");
    });
    let outcome = finish(haul_command(fake.address, dir().path()), b"upload\n");
    outcome.check(2, "the input ends where a file name was to come");
    fake.thread.join().unwrap();
}

#[test]
fn a_script_of_commands_goes_on_behind_errors_and_a_lost_connection() {
    let dir = dir();
    fs::write(dir.path().join("a"), "12345").unwrap();
    let listener = listener();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let next = || Talk::new(accept(&listener));
        let mut talk = next();
        talk.login(OWN_VERBS);
        talk.answer("DOWNLOAD none", "550 no such file");
        talk.answer("CWD sub", "250 there");
        talk.answer("PWD", "257 \"/sub\"");
        talk.expect("MKD x");
        drop(talk);
        let mut talk = next();
        talk.login(OWN_VERBS);
        talk.answer("CWD /sub", "250 there");
        talk.expect("UPLOAD 5+;modify=");
        talk.body(5);
        talk.say("226 stored");
        talk.answer("QUIT", "221 bye");
    });
    let script = b"# It's a comment.\nDOWNLOAD none\ncd sub\nmkdir x\nUpload\na\nquit\n";
    let outcome = finish(haul_command(address, dir.path()), script);
    outcome.check(1, "550 no such file");
    outcome.check(1, "the server closed the connection");
    assert_eq!(
        outcome.out, b"uploaded a (5 bytes)\n",
        "no prompt is printed"
    );
    server.join().unwrap();
}

#[test]
fn the_rest_of_a_line_that_is_too_long_is_no_command() {
    let fake = serve(|talk| {
        talk.login(&[]);
        talk.answer("DELE last", "250 gone");
        talk.answer("QUIT", "221 bye");
    });
    // 64 KiB end right before a word that is a command.
    let mut script = b"rm  ".to_vec();
    script.extend_from_slice(&b"rm ".repeat((64 * 1024 - 4) / 3));
    script.extend_from_slice(b"rm a\nrm last\n");
    let outcome = finish(haul_command(fake.address, dir().path()), &script);
    outcome.check(2, "too long");
    assert_eq!(outcome.err.lines().count(), 1, "{}", outcome.err);
    fake.thread.join().unwrap();
}
