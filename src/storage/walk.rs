//! Directories and trees, a bounded number of entries per call and in bounded memory, in the order
//! in which the file system has them.
//!
//! Hidden names are skipped; names with control bytes, and what vanished or may not be read, are
//! left out and counted.

mod listing;
mod tree;

pub use listing::Listing;
pub use tree::{Tree, TreeEntry};

/// What is wanted of each entry beyond its name and kind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Want {
    /// All of [`Meta`](crate::proto::facts::Meta), which is a system call per entry; otherwise only the kind is set.
    pub stat: bool,
    /// Where links point.
    pub target: bool,
    /// Entries that are nobody's as well: hidden ones and those whose names no line can carry.
    pub all: bool,
    /// Some thirty entries in a batch, not some 250.
    pub brief: bool,
}

impl Want {
    /// What counts towards a quota.
    pub const COUNT: Want = Want {
        stat: true,
        target: false,
        all: true,
        brief: false,
    };
}
