//! Golden conversations: each file of `tests/dialogues` is one behaviour, and runs three times,
//! against a session without sockets that gets whole segments, against one that gets them byte by
//! byte, and over sockets against `hauld`.
//!
//! # The files
//!
//! Lines that are empty or begin with `#` say nothing. First come lines about the server and what is
//! in its directory:
//!
//! ```text
//! anonymous LEVEL                none, read or write (as without the line) tls LEVEL              
//! off (as without the line), optional or required; only without sockets,
//!                                where what goes through TLS comes out of it unchanged
//! quota BYTES FILES              of all that is there; only without sockets
//! uncounted                      which nobody has counted yet
//! not bytewise                   what is shown depends on which bytes arrive together
//! file PATH = TEXT               a file
//! sparse PATH BYTES              a file of so many zero bytes
//! dir PATH                       a directory
//! link PATH -> TARGET            a symbolic link
//! fifo PATH                      a FIFO
//! mode PATH OCTAL                permission bits
//! time PATH YYYYMMDDHHMMSS       time of last modification
//! ```
//!
//! Then the conversation, behind the greeting:
//!
//! ```text
//! C: TEXT          the client sends a line; lines that follow each other leave in one segment
//! C> TEXT          the client sends bytes, in the same segment if a C line is next to it
//! C.               the client sends no more
//! S: PATTERN       the server sends this line
//! S~ PATTERN       the same, in any order among the S~ lines that follow each other
//! S< TEXT          the server sends exactly these bytes
//! S.               the server closes the connection, in order and behind nothing else
//! DATA: PATTERN    the client reads its data connection: this line (DATA~ in any order)
//! DATA< TEXT       the same: exactly these bytes
//! DATA+ TEXT       the client sends on its data connection, which stays open, and does not read
//! DATA> TEXT       the client sends and closes its data connection
//! DATA!            the client resets its data connection
//! FILE PATH = TEXT, MODE PATH OCTAL, TIME PATH 14DIGITS, ABSENT PATH
//!                  what is on the disk now
//! LOGIN            USER and PASS of an anonymous session, and their replies
//! EPSV             EPSV and its reply
//! ```
//!
//! Data connections are made when the first DATA line wants one, to where the last `{epsv}` or
//! `{pasv}` of a reply said. In texts `\r`, `\n`, `\t`, `\\`, `\{`, `\*` and `\xNN` stand for bytes,
//! and `{TEXT*N}` for so many times TEXT. In patterns `*` stands for anything, and `{name}` keeps
//! what stands in its place for later texts. `{port}`, `{eport}` and `{refused}` stand in texts for
//! a port of the client in the form of PORT, the same as a number, and one on which it does not
//! listen.
//!
//! Unless the connection is closed, every conversation ends with a NOOP and its reply, which shows
//! that nothing else was waiting.

mod pattern;
mod peer;
mod script;

use std::path::Path;

use haul::config::TlsLevel;
use peer::{OverSockets, Peer, WithoutSockets};
use script::Script;

fn all() -> Vec<Script> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let mut paths: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let only = std::env::var("HAUL_DIALOGUE").unwrap_or_default();
    paths.retain(|path| path.to_string_lossy().contains(&only));
    assert!(!paths.is_empty(), "there are no dialogues");
    paths.iter().map(|path| Script::read(path)).collect()
}

fn run_all(connect: impl Fn(&Script, &Path) -> Option<Box<dyn Peer>>) {
    let mut failures = Vec::new();
    for script in all() {
        let dir = tempfile::tempdir().unwrap();
        script.furnish(dir.path());
        let Some(mut peer) = connect(&script, dir.path()) else {
            continue;
        };
        if let Err(failure) = script.run(peer.as_mut(), dir.path()) {
            failures.push(failure);
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn dialogues_of_whole_segments() {
    run_all(|script, dir| Some(Box::new(WithoutSockets::whole(script.shell(dir)))));
}

#[test]
fn dialogues_byte_by_byte() {
    run_all(|script, dir| {
        let peer = WithoutSockets::bytewise(script.shell(dir));
        script.bytewise.then(|| Box::new(peer) as Box<dyn Peer>)
    });
}

#[test]
fn dialogues_over_sockets() {
    run_all(|script, dir| {
        let start = || Box::new(OverSockets::start(script.level(), dir)) as Box<dyn Peer>;
        (script.tls == TlsLevel::Off && script.quota.is_none()).then(start)
    });
}
