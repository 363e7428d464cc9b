//! The beginnings of uploads, held in memory. A small file is made only where it is committed: to make
//! it where it arrives would have the reactor wait for the file system's journal, which whoever syncs
//! other files has under way for much of the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ledger::Ledger;

/// Of one upload. A larger one is written as it arrives.
pub(super) const HELD_BYTES_MAX: usize = 16 * 1024;

/// Of all uploads together. With more of them, files are made where they arrive.
const ALL_HELD_BYTES_MAX: u64 = 16 << 20;

/// What has arrived of one upload, counted with that of all others until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    ledger: Arc<Ledger>,
    bytes: Vec<u8>,
}

impl Held {
    pub(super) fn new(ledger: Arc<Ledger>) -> Held {
        let bytes = Vec::new();
        Held { ledger, bytes }
    }

    /// Takes the bytes of the file from `at` on. False: they do not follow what is held, or that would be
    /// too much, and nothing has changed.
    pub(super) fn take(&mut self, bytes: &[u8], at: u64) -> bool {
        if at != self.bytes.len() as u64 || self.bytes.len() + bytes.len() > HELD_BYTES_MAX {
            return false;
        }
        let (all, more) = (&self.ledger.held, bytes.len() as u64);
        if all.fetch_add(more, Ordering::Relaxed) + more > ALL_HELD_BYTES_MAX {
            all.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.bytes.extend_from_slice(bytes);
        true
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What was held is in its file.
    pub(super) fn let_go(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let all: &AtomicU64 = &self.ledger.held;
        all.fetch_sub(bytes.len() as u64, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.let_go();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_follows_itself_and_is_bounded() {
        let ledger = Arc::new(Ledger::default());
        let mut held = Held::new(ledger.clone());
        assert!(held.take(b"one", 0) && held.take(b"two", 3));
        assert!(!held.take(b"one", 0) && !held.take(b"two", 7));
        assert_eq!(held.bytes(), b"onetwo");
        assert!(!held.take(&[7; HELD_BYTES_MAX - 5], 6));
        assert!(held.take(&[7; HELD_BYTES_MAX - 6], 6));
        let count = || ledger.held.load(Ordering::Relaxed);
        assert_eq!(count(), HELD_BYTES_MAX as u64);
        held.let_go();
        assert_eq!(count(), 0);

        let mut all = Vec::new();
        while count() < ALL_HELD_BYTES_MAX {
            let mut one = Held::new(ledger.clone());
            assert!(one.take(&[7; HELD_BYTES_MAX], 0));
            all.push(one);
        }
        let mut one_more = Held::new(ledger.clone());
        assert!(!one_more.take(b"x", 0));
        all.pop();
        assert!(one_more.take(b"x", 0));
        drop((all, one_more));
        assert_eq!(count(), 0);
    }
}
