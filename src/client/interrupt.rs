//! What a signal must not leave behind: the temporary files of downloads.
//!
//! A thread of its own waits for the signals that end a program. It removes the files and lets the
//! signal end the program as it would have done anyway, so the caller sees how it ended.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::dir::Dir;

/// The temporary files there are: one per connection, so a list is short.
static TEMPORARY: Mutex<Vec<(Dir, OsString)>> = Mutex::new(Vec::new());

fn temporary() -> MutexGuard<'static, Vec<(Dir, OsString)>> {
    TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the file `name` by `open`, and removes it if a signal ends the program before [`forget`].
///
/// # Errors
/// Those of `open`.
pub fn create<T>(dir: &Dir, name: &OsStr, open: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    static WATCH: Once = Once::new();
    WATCH.call_once(watch);
    // A signal waits for this lock, so there is no file that it would not know.
    let mut temporary = temporary();
    let file = open()?;
    temporary.push((dir.clone(), name.to_owned()));
    Ok(file)
}

/// The file has its name by now, is removed, or is to stay.
pub fn forget(dir: &Dir, name: &OsStr) {
    let fd = dir.as_fd().as_raw_fd();
    temporary().retain(|(of, it)| of.as_fd().as_raw_fd() != fd || it != name);
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
            for (dir, name) in &*temporary {
                let _ = dir.remove_file(name);
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
