//! The load generator behind `haul bench`: any number of sessions with any FTP server, on one thread.
//!
//! In reading order:
//!
//! - [`arguments`] is the command line, and [`course`] what follows from it, from the first connection
//!   to the report.
//! - [`operation`], [`mix`], [`work`] and [`schedule`] say what the sessions do and when.
//! - [`dialogue`] is one session as a value, and [`outbox`] what it has to say; [`tls`], [`content`],
//!   [`channel`] and [`link`] are the same with sockets.
//! - [`engine`] is the loop around all of them, woken by [`alarm`].
//! - [`measure`] writes down what happens; [`report`] computes the figures that [`table`], [`html`]
//!   with [`svg`], and [`compare`] show; [`live`] shows that something happens at all.
//! - [`server_process`] and [`syscalls`] look at the server if it runs here, [`machine`] at what this
//!   side needs.
//!
//! Times are nanoseconds since the bench began, as [`measure::Clock`] counts them, where nothing else
//! is said.
//!
//! It has to cost less than the server, or it would measure itself. So downloads are discarded in the
//! kernel, uploads leave a file in memory by `sendfile`, small ones share a send, sockets are
//! registered once, and what belongs to one session is a few hundred bytes. It says when it was the
//! bottleneck all the same. What it is good for stands on four habits: warm up, run several times,
//! take turns, show the spread.

pub mod alarm;
pub mod arguments;
pub mod channel;
pub mod compare;
pub mod content;
pub mod course;
pub mod dialogue;
pub mod engine;
pub mod html;
pub mod link;
pub mod live;
pub mod machine;
pub mod measure;
pub mod mix;
pub mod operation;
pub mod outbox;
pub mod report;
pub mod schedule;
pub mod server_process;
pub mod svg;
pub mod syscalls;
pub mod table;
pub mod tls;
pub mod work;

pub use arguments::Arguments;
pub use course::{Context, run};
