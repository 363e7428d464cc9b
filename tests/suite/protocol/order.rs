//! Many commands at once, and commands in the wrong order.

use std::fs;
use std::io::Write;

use super::{codes, codes_of};
use crate::common::control::Control;
use crate::common::server::{Server, four_questions};

#[test]
fn p16_a_hundred_commands_in_one_segment_get_a_hundred_replies_in_order() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    fs::create_dir(server.path("a")).expect("making a directory");
    fs::create_dir(server.path("b")).expect("making a directory");
    let mut session = Control::login(server.addr());
    let mut sent = String::new();
    for n in 0..25 {
        let dir = ["/a", "/b"][n % 2];
        sent.push_str(&format!("CWD {dir}\r\nPWD\r\nPASV\r\nRNFR /{}\r\n", n));
    }
    session.send(sent.as_bytes());
    for n in 0..25 {
        let dir = ["\"/a\"", "\"/b\""][n % 2];
        assert_eq!(session.reply().code, 250);
        let pwd = session.reply();
        assert!(pwd.code == 257 && pwd.text.starts_with(dir), "{pwd:?}");
        assert_eq!(session.reply().code, 227);
        assert_eq!(session.reply().code, 550);
    }
    session.send(b"QUIT\r\n");
    assert_eq!(session.reply().code, 221);
    session.expect_eof();
    four_questions(&server, baseline);
}

#[test]
fn p16_thousands_of_commands_and_bodies_get_as_many_replies_in_order() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    fs::write(server.path("f"), "0123456789").expect("writing");
    let mut session = Control::login(server.addr());
    const ROUNDS: usize = 2000;
    let mut sender = session.stream().try_clone().expect("a second handle");
    let sending = std::thread::spawn(move || {
        let round = "NOOP\r\nUPLOAD 5+ u\r\nQUIT\nDOWNLOAD f\r\nSIZE absent\r\nPWD\r\n";
        let sent = round.repeat(ROUNDS);
        for piece in sent.as_bytes().chunks(7919) {
            sender.write_all(piece).expect("sending");
        }
    });
    for _ in 0..ROUNDS {
        assert_eq!(codes(&mut session, 3), [200, 226, 150]);
        assert_eq!(session.read_exact(10), b"0123456789");
        assert_eq!(codes(&mut session, 3), [226, 550, 257]);
    }
    sending.join().expect("sending");
    session.quit();
    four_questions(&server, baseline);
}

#[test]
fn p17_commands_out_of_order() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    fs::write(server.path("f"), "0123456789").expect("writing");
    fs::write(server.path("g"), "").expect("writing");

    let mut session = Control::connect(server.addr());
    assert_eq!(codes_of(&mut session, &["RETR f", "PASS x"]), [530, 503]);
    let twice = ["USER nobody", "USER anonymous", "PASS x", "PASS x"];
    assert_eq!(codes_of(&mut session, &twice), [331, 331, 230, 503]);

    assert_eq!(codes_of(&mut session, &["RNTO x"]), [503]);
    let broken = ["RNFR f", "NOOP", "RNTO x"];
    assert_eq!(codes_of(&mut session, &broken), [350, 200, 503]);
    assert_eq!(
        codes_of(&mut session, &["RNFR f", "RNTO x", "RNTO y"]),
        [350, 250, 503]
    );
    assert_eq!(codes_of(&mut session, &["RNFR x", "RNTO f"]), [350, 250]);

    let unarranged = ["STOR x", "RETR f", "LIST", "APPE f", "MLSD", "STOU"];
    assert_eq!(codes_of(&mut session, &unarranged), [425; 6]);
    assert!(!server.path("x").exists());

    // NOOP keeps the offset, another verb drops it, and a transfer uses it up.
    assert_eq!(
        codes_of(&mut session, &["REST 5", "NOOP", "TYPE I"]),
        [350, 200, 200]
    );
    assert_eq!(session.fetch("RETR f").0, b"56789");
    assert_eq!(session.fetch("RETR f").0, b"0123456789");
    assert_eq!(codes_of(&mut session, &["REST 5", "PWD"]), [350, 257]);
    assert_eq!(session.fetch("RETR f").0, b"0123456789");
    assert_eq!(codes_of(&mut session, &["REST 5", "RETR"]), [350, 501]);
    assert_eq!(session.download("f").0, b"0123456789");
    session.quit();
    four_questions(&server, baseline);
}

#[test]
fn p17_who_logs_in_again_is_somebody_new() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    fs::create_dir(server.path("d")).expect("making a directory");
    fs::write(server.path("f"), "0123456789").expect("writing");
    for again in ["USER anonymous", "REIN"] {
        let mut session = Control::login(server.addr());
        let state = ["CWD d", "RNFR /f", "EPSV", "REST 5", again];
        let left = codes_of(&mut session, &state)[4];
        assert!([220, 331].contains(&left), "{again}: {left}");
        let strangers = ["PWD", "RNTO /x", "RETR /f"];
        assert_eq!(codes_of(&mut session, &strangers), [530; 3], "{again}");
        session = session.logged_in();
        assert!(session.command("PWD").text.starts_with("\"/\""));
        let state = ["RNTO /x", "RETR /f"];
        assert_eq!(codes_of(&mut session, &state), [503, 425], "{again}");
        assert_eq!(session.fetch("RETR f").0, b"0123456789");
        session.quit();
    }
    four_questions(&server, baseline);
}

#[test]
fn p17_who_logs_in_again_late_has_the_whole_time_for_it() {
    let server = Server::start(&["--login-timeout", "1"]);
    let baseline = server.baseline();
    let mut stays = Control::connect(server.addr());
    let mut sessions = ["USER anonymous", "REIN"].map(|again| {
        let session = Control::login(server.addr());
        (session, again)
    });
    // The time for a login is over for all of them, but only this one did not use it.
    assert_eq!(stays.reply().code, 421);
    stays.expect_eof();
    for (session, again) in &mut sessions {
        let code = session.command(again).code;
        assert!([220, 331].contains(&code), "{again}: {code}");
        // Gives the deadlines a turn.
        drop(Control::connect(server.addr()));
        assert_eq!(session.command("USER anonymous").code, 331, "{again}");
        assert_eq!(session.command("PASS x").code, 230, "{again}");
    }
    for (session, _) in sessions {
        session.quit();
    }
    four_questions(&server, baseline);
}

#[test]
fn p17_who_becomes_a_stranger_again_does_not_stay_one() {
    let server = Server::start(&["--login-timeout", "1"]);
    let baseline = server.baseline();
    let mut session = Control::login(server.addr());
    assert_eq!(session.command("USER anonymous").code, 331);
    assert_eq!(session.command("USER anonymous").code, 331);
    assert_eq!(session.reply().code, 421);
    session.expect_eof();
    four_questions(&server, baseline);
}

#[test]
fn p20_types_structures_and_modes() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let mut session = Control::login(server.addr());
    for (line, expected) in [
        ("TYPE A", &[200][..]),
        ("TYPE I", &[200]),
        ("type i", &[200]),
        ("TYPE E", &[504]),
        ("TYPE L 8", &[200, 504]),
        ("TYPE I N", &[504]),
        ("TYPE A X", &[504]),
        ("TYPE X", &[501, 504]),
        ("TYPE", &[501]),
        ("TYPE ", &[501]),
        ("TYPE  ", &[501, 504]),
        ("STRU F", &[200]),
        ("STRU R", &[504]),
        ("STRU", &[501]),
        ("MODE S", &[200]),
        ("MODE B", &[504]),
        ("MODE", &[501]),
    ] {
        let code = codes_of(&mut session, &[line])[0];
        assert!(expected.contains(&code), "{line}: {code}");
    }
    // A refused type leaves the one before.
    assert_eq!(session.stor("f", b"a\nb").code, 226);
    assert_eq!(codes_of(&mut session, &["TYPE A", "TYPE E"]), [200, 504]);
    assert_eq!(session.fetch("RETR f").0, b"a\r\nb");
    session.quit();
    four_questions(&server, baseline);
}
