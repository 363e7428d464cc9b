//! The progress bar: on a terminal, on standard error, and nowhere else.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressStyle};

/// Shows how far one transfer is.
pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// A bar for `name`, which must be fit for a terminal; nothing where nobody would see it.
    pub fn new(name: &str, is_wanted: bool) -> Progress {
        if !is_wanted || !stderr().is_terminal() {
            return Progress { bar: None };
        }
        let bar = ProgressBar::no_length();
        let template = "{msg} {bytes} {binary_bytes_per_sec}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(name.to_owned());
        Progress { bar: Some(bar) }
    }

    /// The length has become known.
    pub fn expect(&mut self, bytes: u64) {
        let Some(bar) = &self.bar else { return };
        let template = "{msg} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_length(bytes);
    }

    /// Some more bytes were moved.
    pub fn advance(&mut self, bytes: usize) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes as u64);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
