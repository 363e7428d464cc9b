//! Whole sessions as values: what the server says, and what comes of it. Each is fed whole and byte
//! by byte.

use super::*;

fn manner() -> Manner {
    Manner {
        user: b"anna".to_vec(),
        password: b"hush".to_vec(),
        content: vec![b'x'; 64 * 1024],
        ..Manner::default()
    }
}

/// A session that is logged in.
fn open(manner: Manner) -> Dialogue {
    let mut dialogue = Dialogue::new(Rc::new(manner));
    dialogue.opened(&mut Vec::new());
    let steps = heard(&mut dialogue, "220 hello\r\n331 and?\r\n230 in\r\n");
    assert_eq!(steps, [Step::Ready]);
    said_by(&mut dialogue);
    dialogue
}

/// Feeds it all at time 7.
fn heard(dialogue: &mut Dialogue, text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    dialogue.receive(text.as_bytes(), 7, &mut steps).unwrap();
    steps
}

fn bytewise(dialogue: &mut Dialogue, text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for byte in text.as_bytes() {
        dialogue.receive(&[*byte], 7, &mut steps).unwrap();
    }
    steps
}

/// What it has to say; of long bodies only the length.
fn said_by(dialogue: &mut Dialogue) -> String {
    let mut all = String::new();
    loop {
        let n = match dialogue.outbox.next() {
            None => return all,
            Some(crate::bench::outbox::Next::Bytes(bytes)) => {
                all.push_str(&String::from_utf8_lossy(bytes));
                bytes.len() as u64
            }
            Some(crate::bench::outbox::Next::Content { left, .. }) => {
                all.push_str(&format!("<{left}>"));
                left
            }
        };
        dialogue.outbox.sent(n);
    }
}

fn done(kind: Kind, began: u64, first: Option<u64>) -> Step {
    Step::Done(Done {
        kind,
        began,
        first,
        ended: 7,
    })
}

#[test]
fn the_login_goes_step_by_step() {
    let mut dialogue = Dialogue::new(Rc::new(Manner {
        is_secure: true,
        is_binary: true,
        asks_features: true,
        ..manner()
    }));
    dialogue.opened(&mut Vec::new());
    let mut check = |said: &str, steps: &[Step], next: &str| {
        assert_eq!(heard(&mut dialogue, said), steps, "{said}");
        assert_eq!(said_by(&mut dialogue), next, "{said}");
    };
    check("120 wait\r\n220-dear\r\n220 guest\r\n", &[], "AUTH TLS\r\n");
    check("234 go\r\n", &[Step::Secure], "");
    assert_eq!(dialogue.outstanding(), 0);
    dialogue.secured();
    let mut check = |said: &str, steps: &[Step], next: &str| {
        assert_eq!(heard(&mut dialogue, said), steps, "{said}");
        assert_eq!(said_by(&mut dialogue), next, "{said}");
    };
    check("", &[], "PBSZ 0\r\n");
    check("200 ok\r\n", &[], "PROT P\r\n");
    check("200 ok\r\n", &[], "USER anna\r\n");
    check("331 password\r\n", &[], "PASS hush\r\n");
    check("230 in\r\n", &[], "TYPE I\r\n");
    check("200 ok\r\n", &[], "FEAT\r\n");
    check(
        "211-Features:\r\n DOWNLOAD\r\n UPLOAD modify;\r\n211 End\r\n",
        &[Step::Ready],
        "",
    );
    assert!(dialogue.features.download && dialogue.features.upload.is_some());
    assert_eq!(dialogue.greeting, "guest");
}

#[test]
fn implicit_tls_comes_before_the_greeting() {
    let mut dialogue = Dialogue::new(Rc::new(Manner {
        is_secure: true,
        is_implicit: true,
        ..manner()
    }));
    let mut steps = Vec::new();
    dialogue.opened(&mut steps);
    assert_eq!(steps, [Step::Secure]);
    dialogue.secured();
    assert_eq!(said_by(&mut dialogue), "");
    heard(&mut dialogue, "220 hello\r\n200 ok\r\n200 ok\r\n");
    assert_eq!(said_by(&mut dialogue), "PBSZ 0\r\nPROT P\r\nUSER anna\r\n");
}

#[test]
fn a_refused_login_ends_the_session() {
    let mut dialogue = Dialogue::new(Rc::new(manner()));
    dialogue.opened(&mut Vec::new());
    let mut steps = Vec::new();
    let replies = b"220 hello\r\n331 and?\r\n530 no\r\n";
    let failure = dialogue.receive(replies, 7, &mut steps).unwrap_err();
    assert_eq!(failure, Failure::new("530 to PASS", "530 no"));
}

#[test]
fn downloads_in_a_row_share_what_comes() {
    let replies = "150 3 bytes follow.\r\nabc226 done\r\n150 0 bytes\r\n226 done\r\n";
    for feed in [heard, bytewise] {
        let mut dialogue = open(Manner {
            own_verbs: true,
            ..manner()
        });
        dialogue.begin(Operation::Download(b"a".to_vec()), 1);
        dialogue.begin(Operation::Download(b"b".to_vec()), 2);
        assert_eq!(said_by(&mut dialogue), "DOWNLOAD a\r\nDOWNLOAD b\r\n");
        assert_eq!(dialogue.outstanding(), 2);
        let steps = feed(&mut dialogue, replies);
        let expected = [
            done(Kind::Download, 1, Some(7)),
            done(Kind::Download, 2, None),
        ];
        assert_eq!(steps, expected);
        assert_eq!(dialogue.outstanding(), 0);
    }
}

#[test]
fn a_body_that_looks_like_replies_is_none() {
    let mut dialogue = open(Manner {
        own_verbs: true,
        ..manner()
    });
    dialogue.begin(Operation::Download(b"a".to_vec()), 1);
    assert_eq!(heard(&mut dialogue, "150 12 follow\r\n226 "), []);
    assert_eq!(dialogue.body_left(), 8);
    dialogue.discarded(8, 7);
    let steps = heard(&mut dialogue, "226 done\r\n");
    assert_eq!(steps, [done(Kind::Download, 1, Some(7))]);
}

#[test]
fn uploads_are_immediate_up_to_a_mebibyte_and_wait_above() {
    let mut dialogue = open(Manner {
        own_verbs: true,
        ..manner()
    });
    dialogue.begin(Operation::Upload(b"a".to_vec(), 3), 1);
    dialogue.begin(Operation::Upload(b"b".to_vec(), 1 << 20), 2);
    assert_eq!(
        said_by(&mut dialogue),
        "UPLOAD 3+ a\r\nxxxUPLOAD 1048576+ b\r\n<1048576>"
    );
    let steps = heard(&mut dialogue, "226 stored\r\n552 full\r\n");
    let refused = Step::Refused(Failure::new("552 to upload", "552 full"));
    assert_eq!(steps, [done(Kind::Upload, 1, None), refused]);

    dialogue.begin(Operation::Upload(b"c".to_vec(), 2 << 20), 3);
    assert_eq!(said_by(&mut dialogue), "UPLOAD 2097152 c\r\n");
    assert_eq!(heard(&mut dialogue, "150 send\r\n"), []);
    assert_eq!(said_by(&mut dialogue), "<2097152>");
    let steps = heard(&mut dialogue, "226 stored\r\n");
    assert_eq!(steps, [done(Kind::Upload, 3, Some(7))]);

    // Cut short while the body is on its way: where the stream stands nobody knows.
    dialogue.begin(Operation::Upload(b"d".to_vec(), 2 << 20), 4);
    heard(&mut dialogue, "150 send\r\n");
    assert!(
        dialogue
            .receive(b"452 full\r\n", 7, &mut Vec::new())
            .is_err()
    );
}

#[test]
fn nothing_is_said_behind_an_upload_that_waits() {
    let mut dialogue = open(Manner {
        own_verbs: true,
        ..manner()
    });
    dialogue.begin(Operation::Noop, 1);
    dialogue.begin(Operation::Upload(b"a".to_vec(), 2 << 20), 2);
    dialogue.begin(Operation::Noop, 3);
    assert_eq!(said_by(&mut dialogue), "NOOP\r\n");
    assert_eq!(dialogue.outstanding(), 3);
    assert_eq!(
        heard(&mut dialogue, "200 ok\r\n"),
        [done(Kind::Noop, 1, None)]
    );
    assert_eq!(said_by(&mut dialogue), "UPLOAD 2097152 a\r\n");
    let refused = Step::Refused(Failure::new("550 to upload", "550 no"));
    assert_eq!(heard(&mut dialogue, "550 no\r\n"), [refused]);
    assert_eq!(said_by(&mut dialogue), "NOOP\r\n");
    assert_eq!(
        heard(&mut dialogue, "200 ok\r\n"),
        [done(Kind::Noop, 3, None)]
    );
    assert_eq!(dialogue.outstanding(), 0);
}

#[test]
fn a_transfer_is_done_when_its_reply_and_its_data_are_there() {
    for reply_first in [true, false] {
        let mut dialogue = open(manner());
        dialogue.begin(Operation::Download(b"a b".to_vec()), 1);
        assert_eq!(said_by(&mut dialogue), "EPSV\r\n");
        let steps = heard(&mut dialogue, "229 Passive (|||4000|)\r\n");
        assert_eq!(steps, [Step::Connect(4000)]);
        assert_eq!(said_by(&mut dialogue), "RETR a b\r\n");
        assert_eq!(
            heard(&mut dialogue, "150 here it comes\r\n"),
            [Step::Receive]
        );
        dialogue.data_began(5);
        let mut steps = Vec::new();
        if reply_first {
            steps.extend(heard(&mut dialogue, "226 done\r\n"));
            assert_eq!(steps, []);
        }
        dialogue.data_ended(7, &mut steps);
        if !reply_first {
            assert_eq!(steps, []);
            steps.extend(heard(&mut dialogue, "226 done\r\n"));
        }
        assert_eq!(steps, [Step::Drop, done(Kind::Download, 1, Some(5))]);
    }
}

#[test]
fn without_epsv_pasv_does_and_is_remembered() {
    let mut dialogue = open(manner());
    for round in 0..2 {
        dialogue.begin(Operation::Upload(b"a".to_vec(), 9), 1);
        if round == 0 {
            assert_eq!(said_by(&mut dialogue), "EPSV\r\n");
            assert_eq!(heard(&mut dialogue, "500 what?\r\n"), []);
        }
        assert_eq!(said_by(&mut dialogue), "PASV\r\n");
        // The address is the server's own business; only the port counts.
        let steps = heard(&mut dialogue, "227 Passive (10,0,0,1,16,1)\r\n");
        assert_eq!(steps, [Step::Connect(4097)]);
        assert_eq!(said_by(&mut dialogue), "STOR a\r\n");
        assert_eq!(heard(&mut dialogue, "150 send\r\n"), [Step::Send(9)]);
        let mut steps = Vec::new();
        dialogue.data_ended(6, &mut steps);
        steps.extend(heard(&mut dialogue, "226 done\r\n"));
        assert_eq!(steps, [Step::Drop, done(Kind::Upload, 1, Some(7))]);
    }
}

#[test]
fn a_refused_transfer_drops_its_connection_and_the_session_goes_on() {
    let mut dialogue = open(manner());
    dialogue.begin(Operation::List(b"d".to_vec()), 1);
    heard(&mut dialogue, "229 Passive (|||4000|)\r\n");
    assert_eq!(said_by(&mut dialogue), "EPSV\r\nLIST d\r\n");
    let steps = heard(&mut dialogue, "550 no\r\n");
    let refused = Step::Refused(Failure::new("550 to list", "550 no"));
    assert_eq!(steps, [Step::Drop, refused]);
    dialogue.begin(Operation::Noop, 2);
    assert_eq!(
        heard(&mut dialogue, "200 ok\r\n"),
        [done(Kind::Noop, 2, None)]
    );
}

#[test]
fn what_is_no_reply_or_unasked_for_ends_the_session() {
    for said in ["HTTP/1.1 400\r\n", "226 unasked\r\n", "421 bye\r\n"] {
        let mut dialogue = open(manner());
        let failure = dialogue.receive(said.as_bytes(), 7, &mut Vec::new());
        assert!(failure.is_err(), "{said}");
    }
    let mut dialogue = open(manner());
    let endless = vec![b'x'; LINE_BYTES_MAX + 1];
    assert!(dialogue.receive(&endless, 7, &mut Vec::new()).is_err());
    let mut dialogue = open(manner());
    dialogue.begin(Operation::Noop, 1);
    dialogue.quit();
    assert_eq!(dialogue.outstanding(), 1);
    dialogue.reset();
    assert_eq!((dialogue.outstanding(), dialogue.is_open()), (0, false));
}

#[test]
fn errands_are_one_command_and_one_reply_each() {
    let mut dialogue = open(manner());
    dialogue.begin(Operation::Make(b"d".to_vec()), 0);
    dialogue.begin(Operation::Delete(b"d/f".to_vec()), 0);
    dialogue.begin(Operation::RemoveDirectory(b"d".to_vec()), 0);
    assert_eq!(said_by(&mut dialogue), "MKD d\r\nDELE d/f\r\nRMD d\r\n");
    let steps = heard(&mut dialogue, "257 made\r\n250 ok\r\n250 ok\r\n");
    assert_eq!(steps.len(), 3);
    assert!(
        steps
            .iter()
            .all(|step| *step == done(Kind::Errand, 0, None))
    );
}
