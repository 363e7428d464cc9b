//! The wire format: pure functions over bytes, shared by server and client.
//!
//! Nothing here knows a socket, a file, a clock or a session. Everything takes bytes and gives
//! bytes or small values; a parser never panics on any input.
//!
//! # The verbs of haul
//!
//! Beside standard FTP (RFC 959, 2389, 2428, 3659), `hauld` announces in FEAT four verbs that carry
//! their data on the control connection itself. One port, one connection, no round trip per file,
//! and the length is stated, so a short transfer cannot pass for a whole one. Bytes always travel
//! unchanged, whatever TYPE says.
//!
//! ```text
//! C: DOWNLOAD <path>                     REST before it moves the beginning
//! S: 150 <n> bytes follow.
//! S: <exactly n bytes>
//! S: 226 <n> bytes sent.
//!
//! C: UPLOAD <n> <path>                   the waiting form: any size
//! S: 150 send <n> bytes.                 or one 4xx/5xx, and the client sends nothing
//! C: <exactly n bytes>
//! S: 226 <n> bytes stored.
//!
//! C: UPLOAD <n>+ <path>                  the immediate form: n up to 1 MiB, no waiting
//! C: <exactly n bytes>
//! S: 226 <n> bytes stored.               or one 4xx/5xx after all n bytes were read
//!
//! C: TREE [<path>]
//! S: 250-Tree of <absolute path>
//! S:  <facts> <relative path>            a line per entry, a directory before what is in it
//! S: 250 <count> entries.                or "250 41 entries, 2 left out."
//!
//! C: PARTIAL <path>                      what is there of an upload that broke off
//! S: 213 <n> <sha256 of those n bytes>   or 550
//! ```
//!
//! UPLOAD takes facts between the number and the space, spelt as in MLST (RFC 3659 section 7):
//! `UPLOAD 4096+;modify=20260131120000;unix.mode=0644;sha256=<64 hex digits>; a/b`. They hold for
//! the file from the moment it is visible. See [`upload`] for the exact grammar and for what
//! happens when it is broken: a byte of a body is never read as a command.
//!
//! # Interrupted uploads
//!
//! What arrived is kept as a partial, which belongs to a user (an anonymous one: to the address) and
//! a path. A client that has the same first n bytes sends `REST <n>` and `UPLOAD <rest> <path>`; n
//! has to be exactly the length of the partial, otherwise 554. A stated `sha256` is that of the
//! whole file. SIZE gives the length where nothing is published, and DELE removes it. While another
//! session of the owner still writes it the answer is 450, unless that session has been silent for
//! 5 s: then it is ended, and what it leaves is taken over.
//!
//! | | no partial | a partial of p bytes |
//! |---|---|---|
//! | nothing published | STOR; with REST above 0: 554. APPE creates | REST up to p and STOR go on behind so much of it; above 554. APPE goes on |
//! | published, s bytes | REST up to s and STOR keep so much of the old file; above 554. APPE keeps all of it | REST p and STOR go on; other REST above 0: 554. APPE: 550 |
//!
//! STOR and UPLOAD without REST replace the partial. Nothing is kept of what was put behind a part of
//! a published file, nor in TYPE A; and of STOR and APPE one byte less than arrived, so that a
//! client that believes it has sent everything still has something to send, and learns the outcome.

pub mod addr;
pub mod ascii;
pub mod facts;
pub mod line;
pub mod list;
pub mod reply;
pub mod time;
pub mod upload;
