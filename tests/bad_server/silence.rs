//! Servers that fall silent (L14).

use std::io::Write;
use std::time::Duration;

use crate::OWN_VERBS;
use crate::client::*;
use crate::talk::*;

#[test]
fn l14_silence_in_each_state_has_an_end() {
    type Script = fn(&mut Talk);
    let cases: &[(&str, i32, Script)] = &[
        ("greeting", 3, |_| {}),
        ("user", 8, |talk| talk.say("220 ready")),
        ("type", 8, |talk| talk.login(&[])),
        ("epsv", 8, |talk| {
            talk.login(&[]);
            talk.answer("TYPE I", "200 binary");
        }),
        ("download", 8, |talk| {
            talk.login(OWN_VERBS);
            talk.answer("DOWNLOAD file", "150 10 bytes follow.");
            talk.say_bytes(b"12345");
        }),
        ("last word", 8, |talk| {
            drop(talk.retr(&[], None));
            talk.say("150 here");
        }),
    ];
    for (state, code, script) in cases {
        let dir = dir();
        let script = *script;
        let (outcome, _) = play(
            dir.path(),
            &["--timeout", "1", "download", "file"],
            move |talk| {
                script(talk);
                talk.rest();
            },
        );
        outcome.check(*code, "for 1 s (--timeout)");
        assert!(
            outcome.took < Duration::from_secs(10),
            "{state}: {:?}",
            outcome.took
        );
        assert!(names(dir.path()).is_empty(), "{state}");
    }
}

#[test]
fn l14_a_silent_data_connection_has_an_end() {
    let dir = dir();
    let (outcome, _) = play(
        dir.path(),
        &["--timeout", "1", "download", "file"],
        |talk| {
            let mut data = talk.retr(&["SIZE"], Some("10"));
            talk.say("150 here");
            data.write_all(b"12345").unwrap();
            talk.rest();
        },
    );
    outcome.check(8, "sent nothing for 1 s");
    assert!(names(dir.path()).is_empty());
}
