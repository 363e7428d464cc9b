//! Listings that are more than memory holds.

use std::io::Write;

use crate::client::*;
use crate::talk::*;

/// Answers a LIST or MLSD of `path` with these lines.
pub fn list(talk: &mut Talk, command: &str, lines: impl Iterator<Item = Vec<u8>>) {
    let data = talk.epsv();
    let mut data = std::io::BufWriter::new(accept(&data));
    talk.answer(command, "150 here");
    for line in lines {
        if data.write_all(&line).is_err() {
            break;
        }
    }
    drop(data);
    talk.say("226 done");
}

#[test]
fn a_listing_that_is_too_long_to_be_sorted_is_not_held() {
    let outcome = |entries: u32, bytes: usize| {
        let (outcome, _) = play(dir().path(), &["ls"], move |talk| {
            talk.login(&["MLST type*;"]);
            let line = |at| format!("type=file; {at:05}{}\r\n", "x".repeat(bytes - 5));
            list(
                talk,
                "MLSD",
                (0..entries).rev().map(|at| line(at).into_bytes()),
            );
            talk.answer("QUIT", "221 bye");
        });
        outcome.check(0, "");
        assert_eq!(outcome.out.len(), entries as usize * (bytes + 1));
        outcome.out
    };
    assert!(outcome(1000, 60_000).starts_with(b"00000x"), "sorted");
    assert!(outcome(1200, 60_000).starts_with(b"01199x"), "as it came");
}

#[test]
fn a_tree_with_more_directories_than_memory_ends() {
    let (outcome, _) = play(dir().path(), &["tree"], |talk| {
        talk.login(&["MLST type*;"]);
        let line = |at| format!("type=dir; {at:05}{}\r\n", "x".repeat(3900)).into_bytes();
        list(talk, "MLSD", (0..20_000).map(line));
        talk.answer("QUIT", "221 bye");
    });
    outcome.check(8, "too many directories");
}
