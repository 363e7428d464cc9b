//! The log of the server: one line per event on standard error, which may be a pipe that nobody
//! reads. So a thread of its own writes, behind a bounded queue; when that is full, lines are
//! dropped and counted. What a client sent cannot forge a line: control bytes are escaped here.

use std::fmt::Write;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use log::{Level, LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;

/// Lines that wait to be written.
const QUEUE_LINES: usize = 4096;

struct Queue {
    level: LevelFilter,
    lines: SyncSender<Message>,
}

#[derive(Debug)]
enum Message {
    Line(Level, String),
    Flush(SyncSender<()>),
}

static DROPPED: AtomicU64 = AtomicU64::new(0);

/// A log that keeps its lines until [`Waiting::start`].
#[derive(Debug)]
pub struct Waiting {
    level: LevelFilter,
    queue: Receiver<Message>,
}

/// Makes this the log of the process. It has no thread yet: a process gives up its rights before it
/// has threads that could keep them, and has something to say about that.
///
/// # Errors
/// There is a log already.
pub fn prepare(level: LevelFilter) -> io::Result<Waiting> {
    let (lines, queue) = sync_channel(QUEUE_LINES);
    let log = Queue { level, lines };
    log::set_boxed_logger(Box::new(log)).map_err(io::Error::other)?;
    log::set_max_level(level);
    Ok(Waiting { level, queue })
}

impl Waiting {
    /// From now on lines are written.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(self) -> io::Result<()> {
        let Waiting { level, queue } = self;
        let writer = SimpleLogger::new().with_level(level).with_utc_timestamps();
        thread::Builder::new()
            .name("log".into())
            .spawn(move || write_lines(&writer, &queue))?;
        Ok(())
    }
}

fn write_lines(writer: &SimpleLogger, queue: &Receiver<Message>) {
    let write = |level, line: &str| {
        let mut record = Record::builder();
        writer.log(
            &record
                .level(level)
                .target("hauld")
                .args(format_args!("{line}"))
                .build(),
        );
    };
    while let Ok(message) = queue.recv() {
        match message {
            Message::Line(level, line) => write(level, &line),
            Message::Flush(done) => drop(done),
        }
        match DROPPED.swap(0, Ordering::Relaxed) {
            0 => {}
            dropped => write(Level::Warn, &format!("{dropped} log lines were dropped")),
        }
    }
}

impl Log for Queue {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= self.level
    }

    fn log(&self, record: &Record) {
        // What the libraries below us trace is not about the server.
        if !self.enabled(record.metadata()) || !record.target().starts_with("haul") {
            return;
        }
        let line = escaped(&record.args().to_string());
        if let Err(TrySendError::Full(_)) = self.lines.try_send(Message::Line(record.level(), line))
        {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits a moment for what is queued, for the end of the process.
    fn flush(&self) {
        let (done, wait) = sync_channel(0);
        if self.lines.try_send(Message::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(std::time::Duration::from_secs(1));
        }
    }
}

/// `text` with control characters as `\xNN`.
pub fn escaped(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_string();
    }
    text.chars()
        .fold(String::with_capacity(text.len() + 16), |mut line, c| {
            if c.is_control() {
                let _ = write!(line, "\\x{:02x}", u32::from(c));
            } else {
                line.push(c);
            }
            line
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_forge_a_line() {
        assert_eq!(escaped("plain \u{e9}"), "plain \u{e9}");
        assert_eq!(
            escaped("a\r\nFAKE\x1b]0;x\x07"),
            "a\\x0d\\x0aFAKE\\x1b]0;x\\x07"
        );
        assert_eq!(escaped("\u{9b}"), "\\x9b");
    }
}
