//! What a session asks the shell to move, and what it hears back.
//!
//! The bytes themselves never pass through the session.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::SocketAddr;

use sha2::Sha256;

use super::task::Task;
use super::text::Text;
use crate::proto::ascii::{FromWire, ToWire};
use crate::storage::partials::Key;
use crate::storage::path::VirtualPath;
use crate::storage::staging::Upload;

/// A transfer: what is moved, over which connection.
#[derive(Debug)]
pub struct Transfer {
    /// What is moved.
    pub job: Job,
    /// Where.
    pub via: Via,
    /// A data connection is inside TLS. The control connection is what it is.
    pub protect: bool,
}

/// The connection of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// The control connection itself.
    Control,
    /// The data connection that the client makes to the port it was told.
    Passive,
    /// The data connection that the server makes.
    Active(SocketAddr),
}

/// What is moved.
#[derive(Debug)]
pub enum Job {
    /// A part of a file goes out.
    Send(Send),
    /// A staged file comes in.
    Receive(Box<Receive>),
    /// Bytes come in and are thrown away: the body of a refused upload. The number is what is left.
    Discard(u64),
    /// A listing goes out.
    Text(Box<Text>),
}

impl Job {
    /// What there is to do when it has broken off: an upload is kept, or goes where freeing its blocks
    /// stops nobody.
    pub fn break_off(self) -> Option<Task> {
        match self {
            Job::Receive(receive) => Some(Task::Keep {
                upload: Box::new(receive.upload),
                at: receive.at,
            }),
            Job::Send(_) | Job::Discard(_) | Job::Text(_) => None,
        }
    }

    /// What others know the upload by that it is a part of.
    pub fn key(&self) -> Option<Key> {
        match self {
            Job::Receive(receive) => receive.upload.key(),
            Job::Send(_) | Job::Discard(_) | Job::Text(_) => None,
        }
    }
}

/// A part of a file that goes out.
#[derive(Debug)]
pub struct Send {
    /// Where it was found.
    pub path: VirtualPath,
    /// The file as it was opened: later renames and replacements do not show.
    pub file: File,
    /// What it lies on, as its `st_dev`.
    pub device: u64,
    /// Position of the next byte.
    pub at: u64,
    /// Bytes still to be read from the file.
    pub bytes: u64,
    /// TYPE A: the translation.
    pub ascii: Option<ToWire>,
}

/// A staged file that comes in.
#[derive(Debug)]
pub struct Receive {
    /// The staged file.
    pub upload: Upload,
    /// Position of the next byte.
    pub at: u64,
    /// Bytes still to come; `None`: until the data connection ends.
    pub bytes: Option<u64>,
    /// TYPE A: the translation.
    pub ascii: Option<FromWire>,
    /// The digest so far, where the client stated one.
    pub digest: Option<Sha256>,
}

impl Receive {
    /// Writes the next bytes of the file, if there is room for them.
    ///
    /// # Errors
    /// There is none, or the disk failed.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.at + bytes.len() as u64;
        self.upload.make_room(end)?;
        self.upload.write(bytes, self.at)?;
        self.at = end;
        Ok(())
    }
}

/// A transfer that is over.
#[derive(Debug)]
pub struct Ended {
    /// What was moved, handed back.
    pub job: Job,
    /// How it ended.
    pub outcome: Outcome,
    /// Bytes that went over the wire.
    pub bytes: u64,
}

/// How a transfer ended. The peer's failures and ours stay apart: 426 is not 451.
#[derive(Debug)]
pub enum Outcome {
    /// All of it was moved.
    Complete,
    /// No data connection came in time, or none could be made: 425.
    NoConnection,
    /// TLS on the data connection did not come about, or not as it must: 522.
    NotProtected,
    /// The connection broke: 426.
    Broken,
    /// Nearly nothing moved for too long: 426.
    Stalled,
    /// The session asked for its end: 426.
    Cut,
    /// Reading or writing the file failed: 451, 452 or 552.
    Failed(io::Error),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Complete => "complete",
            Outcome::NoConnection => "no data connection was made",
            Outcome::NotProtected => "TLS on the data connection failed",
            Outcome::Broken => "the connection broke",
            Outcome::Stalled => "nearly nothing moved for too long",
            Outcome::Cut => "aborted",
            Outcome::Failed(error) => return error.fmt(f),
        })
    }
}
