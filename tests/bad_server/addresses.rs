//! Where data connections go (L01).

use std::fs;
use std::io::Write;

use crate::client::*;
use crate::talk::*;

#[test]
fn l01_the_address_in_a_227_is_ignored() {
    let dir = dir();
    let (outcome, _) = play(dir.path(), &["download", "file"], |talk| {
        talk.login(&[]);
        talk.answer("TYPE I", "200 binary");
        talk.answer("EPSV", "500 what?");
        let data = listener();
        let port = data.local_addr().unwrap().port();
        let (high, low) = (port >> 8, port & 255);
        talk.answer("PASV", &format!("227 Passive (203,0,113,7,{high},{low})."));
        let mut data = accept(&data);
        talk.answer("RETR file", "150 here");
        data.write_all(b"content").unwrap();
        drop(data);
        talk.say("226 done");
        talk.rest();
    });
    outcome.check(0, "");
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"content");
}

#[test]
fn l01_impossible_addresses_are_errors() {
    let cases: &[(&str, &str)] = &[
        ("229 (|||22|)", ""),
        ("229 (|1|203.0.113.7|6446|)", ""),
        ("229 nothing", ""),
        ("500 no", "227 (127,0,0,1,0,22)"),
        ("500 no", "227 (1,2,3,4,5,6,7)"),
        ("500 no", "227 (1,2,3,4,5)"),
        ("500 no", "227 (256,0,0,1,99,99)"),
        ("500 no", "502 no"),
    ];
    for &(epsv, pasv) in cases {
        let dir = dir();
        let (outcome, heard) = play(dir.path(), &["download", "file"], move |talk| {
            talk.login(&[]);
            talk.answer("TYPE I", "200 binary");
            talk.answer("EPSV", epsv);
            if !pasv.is_empty() {
                talk.answer("PASV", pasv);
            }
            talk.answer("QUIT", "221 bye");
        });
        assert!(
            [6, 8].contains(&outcome.code),
            "{epsv} {pasv}: {}",
            outcome.err
        );
        assert_eq!(heard.last().map(String::as_str), Some("QUIT"));
        assert!(names(dir.path()).is_empty());
    }
}
