//! What a signal must not leave behind: the temporary files of downloads.
//!
//! A thread of its own waits for the signals that end a program. It removes the files and lets the
//! signal end the program as it would have done anyway, so the caller sees how it ended. What is kept
//! of large ones stays, and that is said.
//!
//! At the prompt Ctrl-C ends only what is running: its connections are shut down, which every wait
//! for them notices.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, IsTerminal, Write, stderr};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::dir::Dir;
use super::error::shown;

/// A temporary file.
struct Temporary {
    dir: Dir,
    name: OsString,
    /// What it will be, if it stays for another attempt.
    kept: Option<OsString>,
}

/// The temporary files there are: one per connection, so a list is short.
static TEMPORARY: Mutex<Vec<Temporary>> = Mutex::new(Vec::new());

fn temporary() -> MutexGuard<'static, Vec<Temporary>> {
    TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What Ctrl-C ends at the prompt.
struct Running {
    is_prompt: bool,
    is_running: bool,
    is_set: bool,
    sockets: Vec<Weak<TcpStream>>,
    /// Of which files something stays.
    kept: Vec<OsString>,
}

static RUNNING: Mutex<Running> = Mutex::new(Running {
    is_prompt: false,
    is_running: false,
    is_set: false,
    sockets: Vec::new(),
    kept: Vec::new(),
});
static CHANGED: Condvar = Condvar::new();
static WATCH: Once = Once::new();

fn running() -> MutexGuard<'static, Running> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on Ctrl-C ends the program only while no command runs.
pub fn spare_the_program() {
    running().is_prompt = true;
    WATCH.call_once(watch);
}

/// A command begins.
pub fn begin() {
    let mut running = running();
    running.is_running = true;
    running.kept.clear();
}

/// It is over. What to say if Ctrl-C ended it.
pub fn end() -> Option<String> {
    let mut running = running();
    running.is_running = false;
    let kept = std::mem::take(&mut running.kept);
    std::mem::take(&mut running.is_set).then(|| sentence(&kept))
}

/// What came of `name` stays for another attempt.
pub fn stays(name: &OsStr) {
    let mut running = running();
    if running.is_set {
        running.kept.push(name.to_owned());
    }
}

fn sentence(kept: &[OsString]) -> String {
    let goes_on = |of: &str| {
        format!("interrupted; what came of {of} is kept, and the same command goes on from there")
    };
    match kept {
        [] => "interrupted".to_owned(),
        [name] => goes_on(&shown(name.as_bytes())),
        names => goes_on(&format!("{} files", names.len())),
    }
}

/// Whether the running command is to end.
pub fn is_set() -> bool {
    running().is_set
}

/// Sleeps, unless the running command is to end.
pub fn pause(time: Duration) {
    let waited = CHANGED.wait_timeout_while(running(), time, |running| !running.is_set);
    drop(waited);
}

/// A connection that Ctrl-C shuts down, as long as it lasts.
pub fn add(socket: &Arc<TcpStream>) {
    let mut running = running();
    if !running.is_prompt {
        return;
    }
    if running.is_set {
        let _ = socket.shutdown(Shutdown::Both);
    }
    running.sockets.retain(|socket| socket.strong_count() > 0);
    running.sockets.push(Arc::downgrade(socket));
}

/// Whether a command ends instead of the program.
fn ends_a_command() -> bool {
    let mut running = running();
    if !running.is_prompt || !running.is_running {
        return false;
    }
    running.is_set = true;
    for socket in running.sockets.iter().filter_map(Weak::upgrade) {
        let _ = socket.shutdown(Shutdown::Both);
    }
    CHANGED.notify_all();
    true
}

/// Makes the file `name` by `open`, and removes it if a signal ends the program before [`forget`];
/// unless it is `kept`, for a file of that name, and not empty.
///
/// # Errors
/// Those of `open`.
pub fn create<T>(
    dir: &Dir,
    name: &OsStr,
    kept: Option<&OsStr>,
    open: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    WATCH.call_once(watch);
    // A signal waits for this lock, so there is no file that it would not know.
    let mut temporary = temporary();
    let file = open()?;
    temporary.push(Temporary {
        dir: dir.clone(),
        name: name.to_owned(),
        kept: kept.map(OsStr::to_owned),
    });
    Ok(file)
}

/// The file has its name by now, is removed, or is to stay.
pub fn forget(dir: &Dir, name: &OsStr) {
    let fd = dir.as_fd().as_raw_fd();
    temporary().retain(|it| it.dir.as_fd().as_raw_fd() != fd || it.name != name);
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
            if signal == SIGINT && ends_a_command() {
                continue;
            }
            let temporary = temporary();
            let mut kept = Vec::new();
            for it in &*temporary {
                let there = it.dir.stat(&it.name);
                let is_empty = there.is_ok_and(|stat| stat.is_some_and(|stat| stat.st_size == 0));
                match &it.kept {
                    Some(of) if !is_empty => kept.push(of.clone()),
                    _ => drop(it.dir.remove_file(&it.name)),
                }
            }
            // Behind the bars, and the ^C of a terminal.
            let gap = if stderr().is_terminal() { "\n" } else { "" };
            let _ = writeln!(stderr(), "{gap}haul: {}", sentence(&kept));
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
