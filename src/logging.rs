//! The log of the server: one line per event on standard error, which may be a pipe that nobody
//! reads. So a thread of its own writes, behind a bounded queue; when that is full, lines are
//! dropped and counted. What a client sent cannot forge a line: control bytes are escaped here.

use std::fmt::Write as _;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use log::{Level, LevelFilter, Log, Record};
use simple_logger::SimpleLogger;

use crate::text::plain;

/// Lines with this target go to the transfer log.
pub const TRANSFERS: &str = "haul::transfers";
/// Lines that wait to be written.
const QUEUE_LINES: usize = 4096;

struct Queue {
    level: LevelFilter,
    transfers: bool,
    lines: SyncSender<Message>,
}

#[derive(Debug)]
enum Message {
    Line(Level, String),
    Transfer(String),
    Flush(SyncSender<()>),
}

static DROPPED: AtomicU64 = AtomicU64::new(0);

/// A log that keeps its lines until [`Waiting::start`].
#[derive(Debug)]
pub struct Waiting {
    name: String,
    level: LevelFilter,
    transfers: Option<Transfers>,
    queue: Receiver<Message>,
}

/// Makes this the log of the process. It has no thread yet: a process gives up its rights before it
/// has threads that could keep them, and has something to say about that.
///
/// Lines bear the name of the process. Transfers are written to the file `transfers`.
///
/// # Errors
/// A sentence: that file cannot be written, or there is a log already.
pub fn prepare(
    name: String,
    level: LevelFilter,
    transfers: Option<&Path>,
) -> Result<Waiting, String> {
    let transfers = transfers.map(Transfers::open).transpose()?;
    let (lines, queue) = sync_channel(QUEUE_LINES);
    let log = Queue {
        level,
        transfers: transfers.is_some(),
        lines,
    };
    log::set_boxed_logger(Box::new(log)).map_err(|error| error.to_string())?;
    // Transfers are of the highest level, so that they come through whatever else does.
    let least = match transfers {
        Some(_) => LevelFilter::Error,
        None => LevelFilter::Off,
    };
    log::set_max_level(level.max(least));
    Ok(Waiting {
        name,
        level,
        transfers,
        queue,
    })
}

impl Waiting {
    /// From now on lines are written.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(self) -> io::Result<()> {
        let Waiting {
            name,
            level,
            mut transfers,
            queue,
        } = self;
        let writer = SimpleLogger::new().with_level(level).with_utc_timestamps();
        thread::Builder::new()
            .name("log".into())
            .spawn(move || write_lines(&name, &writer, transfers.as_mut(), &queue))?;
        Ok(())
    }
}

fn write_lines(
    name: &str,
    writer: &SimpleLogger,
    mut transfers: Option<&mut Transfers>,
    queue: &Receiver<Message>,
) {
    let write = |level, line: &str| {
        let line = || {
            let mut record = Record::builder();
            let args = format_args!("{line}");
            writer.log(&record.level(level).target(name).args(args).build());
        };
        // It panics when nobody reads standard error any more; the transfer log goes on.
        let _ = catch_unwind(AssertUnwindSafe(line));
    };
    while let Ok(message) = queue.recv() {
        match message {
            Message::Line(level, line) => write(level, &line),
            Message::Transfer(line) => {
                if let Some(Err(why)) = transfers.as_mut().map(|it| it.write(&line)) {
                    write(Level::Error, &why);
                }
            }
            Message::Flush(done) => drop(done),
        }
        match DROPPED.swap(0, Ordering::Relaxed) {
            0 => {}
            dropped => write(Level::Warn, &format!("{dropped} log lines were dropped")),
        }
    }
}

/// The file that transfers are written to.
#[derive(Debug)]
struct Transfers {
    path: PathBuf,
    file: File,
}

impl Transfers {
    fn open(path: &Path) -> Result<Transfers, String> {
        let options = || {
            OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o640)
                .open(path)
        };
        let file = options().map_err(|error| cannot_write(path, &error))?;
        let path = path.to_path_buf();
        Ok(Transfers { path, file })
    }

    /// A log that was moved away is begun anew. Where that is not possible, the old one is
    /// continued.
    fn write(&mut self, line: &str) -> Result<(), String> {
        let here = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let (named, open) = (fs::metadata(&self.path), self.file.metadata());
        let moved = named.map(here).ok() != open.map(here).ok();
        let begun = match moved {
            true => Transfers::open(&self.path).map(|new| *self = new),
            false => Ok(()),
        };
        let written = self.file.write_all(format!("{line}\n").as_bytes());
        written.map_err(|error| cannot_write(&self.path, &error))?;
        begun
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> String {
    let (path, error) = (path.display(), plain(error));
    format!("cannot write the transfer log {path}: {error}")
}

impl Log for Queue {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        match metadata.target() == TRANSFERS {
            true => self.transfers,
            false => metadata.level() <= self.level,
        }
    }

    fn log(&self, record: &Record) {
        // What the libraries below us trace is not about the server.
        if !self.enabled(record.metadata()) || !record.target().starts_with("haul") {
            return;
        }
        let line = escaped(&record.args().to_string());
        let message = match record.target() == TRANSFERS {
            true => Message::Transfer(line),
            false => Message::Line(record.level(), line),
        };
        if let Err(TrySendError::Full(_)) = self.lines.try_send(message) {
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
