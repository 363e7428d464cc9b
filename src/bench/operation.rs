//! What a session is asked to do, one thing at a time.

use serde::{Deserialize, Serialize};

/// What is measured under one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A file from the server.
    Download,
    /// A file to the server.
    Upload,
    /// The smallest command there is.
    Noop,
    /// A directory.
    List,
    /// A new connection up to its login.
    Login,
    /// What is done before and after, and never measured.
    Errand,
}

impl Kind {
    /// All that are measured.
    pub const MEASURED: [Kind; 5] = [
        Kind::Download,
        Kind::Upload,
        Kind::Noop,
        Kind::List,
        Kind::Login,
    ];

    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Download => "download",
            Kind::Upload => "upload",
            Kind::Noop => "noop",
            Kind::List => "list",
            Kind::Login => "login",
            Kind::Errand => "errand",
        }
    }

    /// Whether bytes of files or listings move.
    pub fn moves_bytes(self) -> bool {
        matches!(self, Kind::Download | Kind::Upload | Kind::List)
    }
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Fetch a file and throw it away.
    Download(Vec<u8>),
    /// Store so many bytes under a name.
    Upload(Vec<u8>, u64),
    /// NOOP.
    Noop,
    /// List a directory.
    List(Vec<u8>),
    /// Leave if there is a session, connect and log in.
    Login,
    /// Make a directory.
    Make(Vec<u8>),
    /// Remove a file.
    Delete(Vec<u8>),
    /// Remove an empty directory.
    RemoveDirectory(Vec<u8>),
}

impl Operation {
    /// What it counts as. An errand's upload counts as one all the same: it is never measured.
    pub fn kind(&self) -> Kind {
        match self {
            Operation::Download(_) => Kind::Download,
            Operation::Upload(..) => Kind::Upload,
            Operation::Noop => Kind::Noop,
            Operation::List(_) => Kind::List,
            Operation::Login => Kind::Login,
            Operation::Make(_) | Operation::Delete(_) | Operation::RemoveDirectory(_) => {
                Kind::Errand
            }
        }
    }
}
