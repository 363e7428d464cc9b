//! haul moves files. `hauld` is a server that speaks FTP to every client there is, and four verbs of
//! its own to clients that know them; `haul` is such a client.
//!
//! This page is the map. In reading order:
//!
//! | module | what it is | what it refuses to know |
//! |---|---|---|
//! | [`proto`] | the wire format: pure functions over bytes, shared by both programs | sockets, files, clocks, sessions |
//! | [`session`] | one control connection as a state machine: bytes in, actions out | sockets, threads, clocks |
//! | [`session::verbs`] | the table of verbs, from which FEAT, HELP and the checks derive | what a verb does |
//! | [`storage`] | files below one directory that cannot be left | who asks, and how |
//! | [`accounts`] | who gets in, and who may do what | verbs, sockets, threads, the files that are served |
//! | [`server`] | the I/O shell: one mio reactor, a slab of connections, TLS, timers, background threads | verbs |
//! | [`workers`] | what several server processes tell each other | who they are |
//! | [`client`] | the blocking client behind `haul` | everything of the server |
//! | [`mod@bench`] | the load generator behind `haul bench`: any number of sessions on one thread | everything of the server |
//! | [`config`], [`logging`] | limits with their reasons; a log that cannot block | |
//! | [`text`], [`fingerprint`], [`shell`] | values on command lines, errors as people read them, completions and manual pages, for both programs | |
//!
//! `bin/hauld` turns arguments into a [`config::Config`] and runs a [`server::Server`], or a parent of
//! several that do; `bin/haul` turns arguments into calls of [`client`],
//! or of [`mod@bench`].
//!
//! # One command, from wire to wire
//!
//! An event says that a control connection is readable. The reactor gives that connection its turn:
//! it reads, and [`session::Session::receive`] takes one command of what was read. The session finds
//! the verb's row, checks what the row says, and runs its handler, which makes short file calls
//! through [`storage::root::Root`] and returns the one final reply, or says what that has to wait
//! for. What the session wants done comes out as a list of [`session::Action`]s; the connection
//! carries them out in order and tells the session what came of them. A file's bytes never pass
//! through the session: it hands over a [`session::Job`], and the connection's pump moves it a
//! bounded amount per turn.
//!
//! # What is absent
//!
//! Each line is a test (`tests/session/architecture.rs`).
//!
//! - No session, parser, storage or account code names mio, a socket, a thread or the clock.
//! - No session sees a mio token, and the server names no verb.
//! - No path that a client typed reaches the kernel but as a [`storage::path::VirtualPath`] below a
//!   root descriptor, and none of more than one component but through `openat2`.
//! - No reply is written but by [`proto::reply::Reply`], which lets no name forge a line.
//! - No byte of an upload's body is read as a command.
//! - No file is visible under its name before it is complete and on the disk.
//! - No buffer belongs to an idle session, and no buffer has a size that a client chose.
//! - No call on the reactor's thread waits for a client, a digest, a copy, a sync, or the bytes of a
//!   large file that is not in memory.
//! - No unsafe code.

pub mod accounts;
pub mod bench;
pub mod client;
pub mod config;
pub mod fingerprint;
pub mod logging;
pub mod proto;
mod sealing;
pub mod server;
pub mod session;
pub mod shell;
pub mod storage;
pub mod text;
pub mod workers;
