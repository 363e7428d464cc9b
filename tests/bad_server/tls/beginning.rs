//! AUTH and what servers make of it (L03, L04), and handshakes that come to nothing.

use std::fs;
use std::time::Duration;

use super::{Authority, Identity, TRUST, auth, known_hosts, login};
use crate::client::*;
use crate::talk::*;

#[test]
fn l03_bytes_behind_the_answer_to_auth_end_it() {
    for (injected, together) in [
        ("230 you are in", true),
        ("331 password", true),
        ("220 again", false),
    ] {
        let (outcome, heard) = play(dir().path(), &["ls"], move |talk| {
            talk.hears_auth = true;
            talk.say("220 ready");
            talk.expect("AUTH TLS");
            match together {
                true => talk.say(&format!("234 go on\r\n{injected}")),
                false => {
                    talk.say("234 go on");
                    talk.hear_something();
                    talk.say(injected);
                }
            }
            talk.rest();
        });
        outcome.check(TRUST, if together { "somebody in" } else { "TLS" });
        let clear: Vec<_> = heard.iter().filter(|line| line.is_ascii()).collect();
        assert!(!clear.iter().any(|line| line.contains("USER")), "{heard:?}");
    }
}

#[test]
fn l04_without_tls_nothing_goes_to_a_server_that_must_have_it() {
    let dir = dir();
    let authority = Authority::new().write(dir.path());
    let pin = Identity::self_signed().fingerprint();
    let wishes: [&[&str]; 3] = [
        &["--tls", "required"],
        &["--ca-file", &authority],
        &["--fingerprint", &pin],
    ];
    for wish in wishes {
        for (greeting, answer) in [
            ("220 ready", "500 what?"),
            ("220 ready", "502 not here"),
            ("220 ready", "530 log in first"),
            ("220 ready", "431 later"),
            ("220 ready", "230 you are in"),
            ("220 ready", "200 fine"),
            ("220 ready", "334 go on"),
            ("230 you are in already", "500 what?"),
            ("220 ready\r\n230 you are in already", "234 too late"),
        ] {
            let (outcome, heard) = play(dir.path(), &[wish, &["ls"]].concat(), move |talk| {
                talk.hears_auth = true;
                talk.say(greeting);
                talk.answer("AUTH TLS", answer);
                talk.rest();
            });
            outcome.check(TRUST, "offers no TLS");
            assert_eq!(heard[0], "AUTH TLS", "{greeting} {answer}");
            assert!(!heard.iter().any(|line| line.starts_with("USER")));
        }
        // These are no replies at all.
        for answer in ["633 secret", "421 no", "nonsense"] {
            let (outcome, heard) = play(dir.path(), &[wish, &["ls"]].concat(), move |talk| {
                talk.hears_auth = true;
                talk.say("220 ready");
                talk.answer("AUTH TLS", answer);
                talk.rest();
            });
            assert!([3, TRUST].contains(&outcome.code), "{}", outcome.err);
            assert_eq!(heard, ["AUTH TLS"]);
        }
    }
}

#[test]
fn l04_without_a_wish_a_refusal_is_taken_and_nonsense_is_not() {
    for (answer, code) in [
        ("500 what?", 0),
        ("431 later", 0),
        ("230 in", 3),
        ("334 x", 3),
    ] {
        let (outcome, heard) = play(dir().path(), &["rm", "a"], move |talk| {
            talk.hears_auth = true;
            talk.say("220 ready");
            talk.answer("AUTH TLS", answer);
            if code == 0 {
                talk.answer("USER", "230 in");
                talk.answer("FEAT", "500 what?");
                talk.answer("DELE a", "250 gone");
            }
            talk.rest();
        });
        outcome.check(code, "");
        assert_eq!(heard.iter().any(|line| line.starts_with("USER")), code == 0);
    }
}

#[test]
fn a_server_that_had_tls_before_must_have_it_still() {
    let dir = dir();
    let known = known_hosts(dir.path());
    let fake = serve(|talk| {
        talk.hears_auth = true;
        talk.say("220 ready");
        talk.answer("AUTH TLS", "502 not any more");
        talk.rest();
    });
    let fingerprint = Identity::self_signed().fingerprint();
    fs::write(&known, format!("# mine\n{} {fingerprint}\n", fake.address)).unwrap();
    let known = known.to_string_lossy().into_owned();
    let outcome = haul(fake.address, dir.path(), &["--known-hosts", &known, "ls"]);
    outcome.check(TRUST, &format!("line 2 of {known}"));
    assert_eq!(fake.thread.join().unwrap(), ["AUTH TLS"]);
}

#[test]
fn tls_off_asks_for_none() {
    let (outcome, heard) = play(dir().path(), &["--tls", "off", "rm", "a"], |talk| {
        talk.hears_auth = true;
        talk.say("220 ready");
        talk.answer("USER", "230 in");
        talk.answer("FEAT", "500 what?");
        talk.answer("DELE a", "250 gone");
        talk.rest();
    });
    outcome.check(0, "");
    assert_eq!(heard[0], "USER anonymous");
}

#[test]
fn l14_a_silent_handshake_has_an_end() {
    for implicit in [false, true] {
        let fake = serve(move |talk| {
            if !implicit {
                auth(talk);
            }
            talk.rest();
        });
        let scheme = if implicit { "ftps" } else { "ftp" };
        let server = format!("{scheme}://{}", fake.address);
        let words = ["--server", &server, "--timeout", "1", "ls"];
        let outcome = haul(fake.address, dir().path(), &words);
        outcome.check(3, "did not begin TLS for 1 s (--timeout)");
        assert!(outcome.took < Duration::from_secs(10), "{:?}", outcome.took);
        fake.thread.join().unwrap();
    }
}

#[test]
fn what_is_no_tls_is_told() {
    for (said, says) in [
        ("220 ready\r\n", "does not speak TLS; ftps://"),
        ("\x15\x03\x03\x00\x02\x02\x28", "no common way to encrypt"),
        ("\x15\x03\x03\x00\x02\x02\x78", "TLS, but not FTP"),
        ("", "ended while TLS was to begin"),
    ] {
        let fake = serve(move |talk| {
            talk.say_bytes(said.as_bytes());
            if said.is_empty() {
                talk.hear_something();
            } else {
                talk.rest();
            }
        });
        let server = format!("ftps://{}", fake.address);
        let outcome = haul(fake.address, dir().path(), &["--server", &server, "ls"]);
        outcome.check(TRUST, says);
        assert_eq!(outcome.err.lines().count(), 1, "{}", outcome.err);
        fake.thread.join().unwrap();
    }
}

#[test]
fn options_that_contradict_each_other_are_errors() {
    let dir = dir();
    let authority = Authority::new().write(dir.path());
    let pin = Identity::self_signed().fingerprint();
    let address = listener().local_addr().unwrap();
    for (words, says) in [
        (
            &["--tls", "off", "--server", "ftps://h", "ls"][..],
            "--tls off",
        ),
        (&["--tls", "off", "--fingerprint", &pin, "ls"], "--tls off"),
        (
            &["--tls", "off", "--ca-file", &authority, "ls"],
            "--tls off",
        ),
        (&["--fingerprint", "AB:CD", "ls"], "64 hexadecimal digits"),
        (&["--ca-file", "absent", "ls"], "--ca-file absent"),
        (&["--ca-file", "/dev/null", "ls"], "no certificate in it"),
        (
            &["--tls", "required", "--server", "ftp://a b", "ls"],
            "no host",
        ),
    ] {
        haul(address, dir.path(), words).check(2, says);
    }
}

#[test]
fn a_goodbye_inside_tls_is_one_clean_error() {
    let identity = Identity::self_signed();
    let (pin, server) = (identity.fingerprint(), identity.server());
    let (outcome, _) = play(
        dir().path(),
        &["--fingerprint", &pin, "rm", "a"],
        move |talk| {
            login(talk, &server, &[]);
            talk.answer("DELE a", "421 too many");
            talk.rest();
        },
    );
    outcome.check(8, "421 too many");
    assert_eq!(outcome.err.lines().count(), 1, "{}", outcome.err);
}
