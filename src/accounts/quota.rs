//! How much a home tree may hold: the arithmetic, without files.

/// Bytes and files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// Bytes.
    pub bytes: u64,
    /// Files.
    pub files: u64,
}

impl Amount {
    /// More than there can be: no limit.
    pub const MAX: Amount = Amount {
        bytes: u64::MAX,
        files: u64::MAX,
    };
}
