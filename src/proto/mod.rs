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
//! ```
//!
//! UPLOAD takes facts between the number and the space, spelt as in MLST (RFC 3659 section 7):
//! `UPLOAD 4096+;modify=20260131120000;unix.mode=0644;sha256=<64 hex digits>; a/b`. They hold for
//! the file from the moment it is visible. See [`upload`] for the exact grammar and for what
//! happens when it is broken: a byte of a body is never read as a command.
//!
//! The fourth verb, PARTIAL, continues an interrupted upload; it is not built yet and answers 502.

pub mod addr;
pub mod ascii;
pub mod facts;
pub mod line;
pub mod list;
pub mod reply;
pub mod time;
pub mod upload;
