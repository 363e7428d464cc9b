//! How much the whole machine has to write to its disks.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// Where the system says so.
pub const VMSTAT: &str = "/proc/vmstat";

/// More than the system tells in any version.
const VMSTAT_BYTES_MAX: usize = 16 * 1024;

/// How long an answer holds: to ask takes some 30 us.
const HOLDS: Duration = Duration::from_millis(100);

/// What there was to write when it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dirty {
    /// What is in memory and not on a disk.
    pub bytes: u64,
    /// From here on the system writes without being asked to (vm.dirty_background_ratio). From one and a
    /// half times as much on, as a rule, whoever writes is made to wait.
    pub background_bytes: u64,
}

/// The place to ask at.
#[derive(Debug)]
pub struct DirtyMemory {
    file: Option<File>,
    /// Until when it is much, or not, without asking again.
    is_much: Option<(Instant, bool)>,
}

impl DirtyMemory {
    /// Opens it; where that fails, nothing is ever known.
    pub fn new() -> DirtyMemory {
        DirtyMemory {
            file: File::open(VMSTAT).ok(),
            is_much: None,
        }
    }

    /// What there is now, if it can be known.
    pub fn look(&self) -> Option<Dirty> {
        let mut text = [0; VMSTAT_BYTES_MAX];
        let n = self.file.as_ref()?.read_at(&mut text, 0).ok()?;
        dirty(&text[..n], rustix::param::page_size() as u64)
    }

    /// Whether the system writes without being asked to. Who cannot know takes it for much.
    pub fn is_much(&mut self, now: Instant) -> bool {
        match self.is_much {
            Some((until, is_much)) if now < until => is_much,
            _ => {
                let is_much = self.look().is_none_or(|it| it.bytes > it.background_bytes);
                self.is_much = Some((now + HOLDS, is_much));
                is_much
            }
        }
    }
}

fn dirty(vmstat: &[u8], page_bytes: u64) -> Option<Dirty> {
    let text = std::str::from_utf8(vmstat).ok()?;
    let bytes = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let pages: u64 = lines.find(|(it, _)| *it == name)?.1.parse().ok()?;
        Some(pages.saturating_mul(page_bytes))
    };
    Some(Dirty {
        bytes: bytes("nr_dirty")?.saturating_add(bytes("nr_writeback")?),
        background_bytes: bytes("nr_dirty_background_threshold")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_written_is_read() {
        let text = b"nr_free_pages 77\nnr_dirty 3\nnr_writeback 2\nnr_writeback_temp 9\n\
                     nr_dirty_threshold 40\nnr_dirty_background_threshold 20\n";
        let found = Dirty {
            bytes: 5 * 4096,
            background_bytes: 20 * 4096,
        };
        assert_eq!(dirty(text, 4096), Some(found));
        assert_eq!(dirty(b"nr_dirty 3\nnr_writeback 2\n", 4096), None);
        assert_eq!(
            dirty(
                b"nr_dirty x\nnr_writeback 2\nnr_dirty_background_threshold 1",
                1
            ),
            None
        );
        assert_eq!(dirty(b"", 4096), None);
    }

    #[test]
    fn the_system_says_it() {
        let mut memory = DirtyMemory::new();
        assert!(memory.look().is_some_and(|it| it.background_bytes > 0));
        let now = Instant::now();
        let is_much = memory.is_much(now);
        memory.file = None;
        assert_eq!(memory.is_much(now), is_much);
        assert!(memory.is_much(now + HOLDS), "nobody knows");
    }
}
