//! Options, and output that nobody reads.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use crate::client::*;
use crate::listings::list;
use crate::talk::*;

/// Lists nothing, at the address that the arguments must lead to.
fn served(arguments: impl FnOnce(SocketAddr) -> Vec<String>) -> Outcome {
    let fake = serve(|talk| {
        talk.login(&["MLST type*;"]);
        list(talk, "MLSD", std::iter::empty());
        talk.answer("QUIT", "221 bye");
    });
    let nobody = listener().local_addr().unwrap();
    let mut command = haul_command(nobody, dir().path());
    command.current_dir("/").args(arguments(fake.address));
    let outcome = finish(command, b"");
    if outcome.code == 0 {
        fake.thread.join().unwrap();
    }
    outcome
}

#[test]
fn options_stand_before_and_behind_the_command() {
    let words = |text: String| -> Vec<String> { text.split(' ').map(String::from).collect() };
    for form in [
        "--server A ls",
        "ls --server A",
        "--server 127.0.0.1:1 ls --server A",
        "ls --server 127.0.0.1:1 --server A",
        "ls / --server A --timeout 3s --insecure-plaintext",
    ] {
        let outcome = served(|a| words(form.replace('A', &a.to_string())));
        outcome.check(0, "");
    }
    for form in [
        "--timeout 1 ls",
        "ls --timeout 1",
        "--timeout 9 ls --timeout 1",
    ] {
        let (outcome, _) = play(
            dir().path(),
            &words(form.into()).iter().map(|s| &**s).collect::<Vec<_>>(),
            |talk| talk.rest(),
        );
        outcome.check(3, "for 1 s (--timeout)");
    }
}

#[test]
fn a_server_in_the_environment_that_is_no_text_is_an_error() {
    let mut command = haul_command(listener().local_addr().unwrap(), dir().path());
    let server = OsStr::from_bytes(b"\xff@127.0.0.1:1");
    command
        .env("HAUL_SERVER", server)
        .current_dir("/")
        .arg("ls");
    finish(command, b"").check(2, "HAUL_SERVER is not UTF-8");
}

#[test]
fn output_that_nobody_reads_fails_without_a_word_and_no_panic() {
    for script in [&b"help\n"[..], b"pwd\n", b"ls --help\n", b"nonsense\n"] {
        let fake = serve(|talk| {
            talk.login(&[]);
            if talk.hear() == "PWD" {
                talk.say("257 \"/\"");
                talk.answer("QUIT", "221 bye");
            }
        });
        let closed = || Stdio::from(std::io::pipe().unwrap().1);
        let mut command = haul_command(fake.address, dir().path());
        command.current_dir("/").stdout(closed());
        if script == b"nonsense\n" {
            command.stderr(closed());
            finish(command, script).check(2, "");
        } else {
            let outcome = finish(command, script);
            outcome.check(7, "");
            assert_eq!(outcome.err, "");
        }
        fake.thread.join().unwrap();
    }
}
