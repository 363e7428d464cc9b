//! One line on a terminal that says how it is going; nothing where nobody looks.

use std::io::{IsTerminal, Write, stderr};

use super::measure::Measure;
use super::table::number;

/// Faster than this nobody reads.
const INTERVAL_NS: u64 = 200_000_000;

/// The line.
#[derive(Debug)]
pub struct Live {
    is_shown: bool,
    next: u64,
    last: (u64, u64, u64),
}

impl Live {
    /// Not shown yet.
    pub fn new(is_quiet: bool) -> Live {
        Live {
            is_shown: !is_quiet && stderr().is_terminal(),
            next: 0,
            last: (0, 0, 0),
        }
    }

    /// Time passes in a run that is described by `what`.
    pub fn tick(&mut self, what: &str, open: usize, measure: &Measure, now: u64) {
        if !self.is_shown || now < self.next {
            return;
        }
        self.next = now + INTERVAL_NS;
        let (then, operations, bytes) = self.last;
        self.last = (now, measure.operations, measure.bytes);
        let seconds = (now - then) as f64 / 1e9;
        let rate = |after: u64, before: u64| after.saturating_sub(before) as f64 / seconds;
        let state = match measure.is_on() {
            false => "not measuring".to_owned(),
            true => format!(
                "{}/s, {} MiB/s",
                number(rate(measure.operations, operations)),
                number(rate(measure.bytes, bytes) / f64::from(1 << 20)),
            ),
        };
        let errors = match measure.error_count() {
            0 => String::new(),
            n => format!(", {n} errors"),
        };
        self.say(&format!("{what}: {open} open, {state}{errors}"));
    }

    /// Puts a text in the place of the line.
    pub fn say(&self, what: &str) {
        if self.is_shown {
            let _ = write!(stderr(), "\r\x1b[K{what}");
            let _ = stderr().flush();
        }
    }

    /// The line is gone, and something else can be printed.
    pub fn clear(&self) {
        self.say("");
    }
}
