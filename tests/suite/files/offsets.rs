//! F13 to F15: REST, with numbers of every kind.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::common::content::{assert_file, assert_same, bytes};
use crate::common::control::Control;
use crate::common::server::{Server, four_questions};

#[test]
fn f13_what_is_no_number_is_no_offset() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let mut session = Control::login(server.addr());
    assert_eq!(session.upload("f", b"0123456789").code, 226);
    let many = "1".repeat(40);
    for wrong in [
        "-1",
        "+1",
        " 1",
        "1 2",
        "1 ",
        "0x1",
        "1e3",
        "1.0",
        "",
        "abc",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "\u{661}",
        many.as_str(),
    ] {
        assert_eq!(
            session.command(&format!("REST {wrong}")).code,
            501,
            "REST {wrong}"
        );
        let (got, end) = session.fetch("RETR f");
        assert_eq!((got.as_slice(), end.code), (&b"0123456789"[..], 226));
    }
    // A number that is only too large is the transfer's matter, and of the next one alone.
    for large in ["11", "8796093022208", "9223372036854775807"] {
        for verb in ["RETR f", "DOWNLOAD f"] {
            assert_eq!(session.command(&format!("REST {large}")).code, 350);
            let (got, end) = match verb {
                "RETR f" => session.fetch(verb),
                _ => session.download("f"),
            };
            assert_eq!(
                (got.as_slice(), end.code),
                (&b""[..], 554),
                "REST {large}, {verb}"
            );
            assert_eq!(session.fetch("RETR f").0, b"0123456789", "the one after");
        }
    }
    session.quit();
    four_questions(&server, baseline);
}

#[test]
fn f14_no_offset_makes_a_sparse_file() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let old = bytes(14, 5000);
    let mut session = Control::login(server.addr());
    assert_eq!(session.upload("old", &old).code, 226);
    for offset in ["100", "5001", "8796093022208", "9223372036854775807"] {
        for name in ["new", "old"] {
            if name == "old" && offset == "100" {
                continue;
            }
            session.command(&format!("REST {offset}"));
            assert_eq!(
                session.stor(name, b"tail").code,
                554,
                "REST {offset}, STOR {name}"
            );
            session.command(&format!("REST {offset}"));
            assert_eq!(session.command(&format!("UPLOAD 4 {name}")).code, 554);
            session.command(&format!("REST {offset}"));
            session.send(format!("UPLOAD 4+ {name}\r\nNOOP").as_bytes());
            assert_eq!(session.reply().code, 554, "and its body is no command");
            assert_file(&server.path("old"), &old);
            assert!(!server.path("new").exists());
        }
        // APPE goes to the end, wherever that is.
        session.command(&format!("REST {offset}"));
        let mut data = session.epsv();
        assert_eq!(session.command("APPE appended").code, 150);
        std::io::Write::write_all(&mut data, b"tail").expect("sending");
        drop(data);
        assert_eq!(session.reply().code, 226);
        let meta = fs::metadata(server.path("appended")).expect("there");
        assert!(meta.size() <= 16 && meta.blocks() <= 16, "{meta:?}");
    }
    assert_file(&server.path("appended"), &b"tail".repeat(4));
    // What is allowed: the old content up to there, then the new.
    for offset in [100usize, 4999, 5000] {
        session.command(&format!("REST {offset}"));
        assert_eq!(session.stor("old", b"tail").code, 226);
        assert_file(&server.path("old"), &[&old[..offset], b"tail"].concat());
        assert_eq!(session.upload("old", &old).code, 226);
    }
    // What a broken one leaves is the old file.
    session.command("REST 100");
    let data = session.epsv();
    assert_eq!(session.command("STOR old").code, 150);
    crate::common::bytewise::reset(&data);
    drop(data);
    assert_eq!(session.reply().code, 426);
    assert_file(&server.path("old"), &old);
    session.quit();
    four_questions(&server, baseline);
}

#[test]
fn f15_a_download_from_an_offset_is_the_right_end() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let mut session = Control::login(server.addr());
    // Below and above what is sent from memory.
    for size in [1usize, 1000, 65_537, 300_000] {
        let content = bytes(size as u64, size);
        assert_eq!(session.upload("f", &content).code, 226);
        for offset in [0, 1, size - 1, size, size + 1] {
            for verb in ["RETR", "DOWNLOAD"] {
                session.command("TYPE I");
                assert_eq!(session.command(&format!("REST {offset}")).code, 350);
                let (got, end) = match verb {
                    "RETR" => session.fetch("RETR f"),
                    _ => session.download("f"),
                };
                let expected = content.get(offset..);
                assert_eq!(end.code, if expected.is_some() { 226 } else { 554 });
                assert_same(&got, expected.unwrap_or_default(), "the rest of it");
            }
            // In ASCII, positions of the file are none of the transfer.
            session.command("TYPE A");
            assert_eq!(session.command(&format!("REST {offset}")).code, 350);
            let (_, end) = session.fetch("RETR f");
            assert_eq!(end.code, if offset == 0 { 226 } else { 554 });
            session.command(&format!("REST {offset}"));
            let stored = session.stor("ascii", b"a\r\nb").code;
            assert_eq!(stored, if offset == 0 { 226 } else { 554 });
            session.command("TYPE I");
        }
    }
    assert_file(&server.path("ascii"), b"a\nb");
    session.quit();
    four_questions(&server, baseline);
}
