//! How far it is: bars on a terminal, on standard error, and nowhere else; and the rate limit,
//! since whatever is counted here can be slowed down here.

use std::io::{IsTerminal, stderr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Bytes moved at a time.
pub const CHUNK_BYTES: usize = 256 * 1024;
/// With a limit, chunks are so small that this many fit into a second.
const CHUNKS_PER_SECOND: u64 = 8;
/// What a bar shows of a name: half of a terminal.
const NAME_CHARS_MAX: usize = 40;
/// Files below this size are gone before a bar of their own could be read.
const BAR_BYTES_MIN: u64 = 4 << 20;

/// All transfers of one command.
pub struct Board {
    bars: Option<MultiProgress>,
    total: Mutex<Option<ProgressBar>>,
    limit: Option<Limit>,
}

/// Bytes a second, for all connections together.
struct Limit {
    rate: u64,
    /// When what was moved so far would have been through.
    through: Mutex<Instant>,
}

/// Shows how far one transfer is.
pub struct Progress {
    board: Arc<Board>,
    bar: Option<ProgressBar>,
}

impl Board {
    /// With bars if they are wanted and somebody would see them, and at most `rate` bytes a second.
    pub fn new(is_wanted: bool, rate: Option<u64>) -> Arc<Board> {
        let is_seen = is_wanted && stderr().is_terminal();
        Arc::new(Board {
            bars: is_seen.then(MultiProgress::new),
            total: Mutex::new(None),
            limit: rate.map(|rate| Limit {
                rate: rate.max(1),
                through: Mutex::new(Instant::now()),
            }),
        })
    }

    /// Whether somebody watches.
    pub fn is_seen(&self) -> bool {
        self.bars.is_some()
    }

    /// A line for all of several files.
    pub fn begin(&self, files: u64, bytes: u64) {
        let Some(bars) = &self.bars else { return };
        let bar = bars.add(ProgressBar::new(bytes));
        let template = "{msg} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(format!("0/{files} files"));
        *self.total.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar);
    }

    /// So many files of so many are done.
    pub fn files(&self, done: u64, of: u64) {
        let total = self.total.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = &*total {
            bar.set_message(format!("{done}/{of} files"));
        }
    }

    /// Nothing more moves.
    pub fn end(&self) {
        let mut total = self.total.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = total.take() {
            bar.finish_and_clear();
        }
    }

    /// Writes lines between the bars.
    pub fn between(&self, write: impl FnOnce()) {
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }

    /// A bar for `name`, which must be fit for a terminal; among several files only large ones have
    /// one of their own, and what has no name has none.
    pub fn file(self: &Arc<Board>, name: &str, bytes: u64) -> Progress {
        let total = self.total.lock().unwrap_or_else(PoisonError::into_inner);
        let has_bar = !name.is_empty() && (total.is_none() || bytes >= BAR_BYTES_MIN);
        let bar = self.bars.as_ref().filter(|_| has_bar).map(|bars| {
            let bar = bars.add(ProgressBar::no_length());
            let template = "{msg} {bytes} {binary_bytes_per_sec}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_message(fitted(name));
            bar
        });
        Progress {
            board: self.clone(),
            bar,
        }
    }
}

impl Progress {
    /// The length has become known.
    pub fn expect(&mut self, bytes: u64) {
        let Some(bar) = &self.bar else { return };
        let template = "{msg} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_length(bytes);
    }

    /// So much of it was there already.
    pub fn begin_at(&mut self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
            bar.reset_eta();
        }
    }

    /// Some more bytes were moved.
    pub fn advance(&mut self, bytes: usize) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes as u64);
        }
        if self.board.is_seen() {
            let total = &self.board.total;
            let total = total.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(bar) = &*total {
                bar.inc(bytes as u64);
            }
        }
        if let Some(limit) = &self.board.limit {
            limit.wait(bytes as u64);
        }
    }

    /// How much to move at a time.
    pub fn chunk_bytes(&self) -> usize {
        match &self.board.limit {
            None => CHUNK_BYTES,
            Some(limit) => usize::try_from(limit.rate / CHUNKS_PER_SECOND)
                .unwrap_or(CHUNK_BYTES)
                .clamp(1024, CHUNK_BYTES),
        }
    }
}

/// The end of a name that is too long, which is where files of one directory differ.
fn fitted(name: &str) -> String {
    let left_out = name.chars().count().saturating_sub(NAME_CHARS_MAX);
    match left_out {
        0 => name.to_owned(),
        _ => format!("…{}", name.chars().skip(left_out + 1).collect::<String>()),
    }
}

impl Limit {
    fn wait(&self, bytes: u64) {
        let now = Instant::now();
        let takes = Duration::from_nanos(
            u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(self.rate))
                .unwrap_or(u64::MAX),
        );
        let until = {
            let mut through = self.through.lock().unwrap_or_else(PoisonError::into_inner);
            *through = (*through).max(now) + takes;
            *through
        };
        std::thread::sleep(until.saturating_duration_since(now));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_has_room_for_more_than_a_name() {
        assert_eq!(fitted("a.txt"), "a.txt");
        assert_eq!(
            fitted(&"ü".repeat(NAME_CHARS_MAX)),
            "ü".repeat(NAME_CHARS_MAX)
        );
        let long = fitted(&format!("{}/a.txt", "ü".repeat(1000)));
        assert_eq!(long.chars().count(), NAME_CHARS_MAX);
        assert!(
            long.starts_with("…ü") && long.ends_with("ü/a.txt"),
            "{long}"
        );
    }
}
