//! What a signal must not leave behind: the temporary file of a download.
//!
//! A thread of its own waits for the signals that end a program. It removes the file and lets the
//! signal end the program as it would have done anyway, so the caller sees how it ended.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// The one temporary file there is.
static TEMPORARY: Mutex<Option<PathBuf>> = Mutex::new(None);

fn temporary() -> MutexGuard<'static, Option<PathBuf>> {
    TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the file `path` by `open`, and removes it if a signal ends the program before [`remove`].
///
/// # Errors
/// Those of `open`.
pub fn create(path: &Path, open: impl FnOnce() -> io::Result<File>) -> io::Result<File> {
    static WATCH: Once = Once::new();
    WATCH.call_once(watch);
    // A signal waits for this lock, so there is no file that it would not know.
    let mut temporary = temporary();
    let file = open()?;
    *temporary = Some(path.to_owned());
    Ok(file)
}

/// Removes a temporary file, or forgets it if it has its name by now.
pub fn remove(path: &Path) {
    let mut temporary = temporary();
    let _ = fs::remove_file(path);
    if temporary.as_deref() == Some(path) {
        *temporary = None;
    }
}

/// Without it (no thread, no signals) a download still works.
fn watch() {
    let ignored = ignored();
    let wanted = [SIGHUP, SIGINT, SIGTERM].map(|signal| (signal, ignored >> (signal - 1) & 1));
    let wanted = wanted.iter().filter(|(_, is_ignored)| *is_ignored == 0);
    let Ok(mut signals) = Signals::new(wanted.map(|(signal, _)| signal)) else {
        return;
    };
    let wait = move || {
        for signal in signals.forever() {
            let temporary = temporary();
            if let Some(path) = &*temporary {
                let _ = fs::remove_file(path);
            }
            // The lock is held to the end: nothing is made any more.
            let _ = emulate_default_handler(signal);
        }
    };
    let _ = std::thread::Builder::new().spawn(wait);
}

/// The signals that whoever started this wants ignored (nohup, a job in the background), which they
/// must remain. One bit each; nothing where the system does not say.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0)
}
