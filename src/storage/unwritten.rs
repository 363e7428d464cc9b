//! How much of all uploads may not be on the disk yet.
//!
//! What is written to a file stays in memory for a while. Of more than a share of the memory the system
//! makes whoever writes wait for the disk, and the one who writes here serves everybody: so it is
//! counted, and those who have sent it wait before that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ledger::Ledger;

/// Bytes of one upload, counted with those of all others until this is dropped.
#[derive(Debug)]
pub(super) struct Unwritten {
    ledger: Arc<Ledger>,
    bytes: AtomicU64,
}

impl Unwritten {
    pub(super) fn new(ledger: Arc<Ledger>) -> Unwritten {
        Unwritten {
            ledger,
            bytes: AtomicU64::new(0),
        }
    }

    /// So much more was written.
    pub(super) fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.ledger.unwritten.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// So much of it is on the disk.
    pub(super) fn take_off(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.ledger.unwritten.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Unwritten {
    fn drop(&mut self) {
        self.take_off(self.bytes());
    }
}
