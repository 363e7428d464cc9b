//! What the user can say about transfers, whatever is transferred.

use clap::Args;

use crate::text::Bytes;

use super::report::{Report, Style};

/// Options of `upload`, `download` and `sync`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Connections at the same time for large files; for all files where the server knows no UPLOAD
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub jobs: u16,
    /// Compare digests of both sides after each transfer
    #[arg(long)]
    pub verify: bool,
    /// Move at most so many bytes a second in all, as in 500KiB or 10MiB
    #[arg(long, value_name = "BYTES")]
    pub limit_rate: Option<Bytes>,
    /// Write a JSON object for each file to standard output
    #[arg(long)]
    pub json: bool,
}

impl Options {
    /// A report in the style that is wanted. `is_many`: a line for each file would be too much on a
    /// terminal.
    pub fn report(&self, is_quiet: bool, is_many: bool) -> Report {
        use std::io::IsTerminal;
        let style = match (self.json, is_quiet) {
            (true, _) => Style::Json,
            (_, true) => Style::Quiet,
            _ if is_many && std::io::stderr().is_terminal() => Style::Totals,
            _ => Style::Lines,
        };
        Report::new(style, self.limit_rate.map(|rate| rate.0))
    }
}
