//! The client, run to its end.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::PATIENCE;
use crate::talk::{Talk, serve};

pub struct Outcome {
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
    pub took: Duration,
}

impl Outcome {
    #[track_caller]
    pub fn check(&self, code: i32, says: &str) {
        assert_eq!(self.code, code, "{}", self.err);
        assert!(self.err.contains(says), "{:?} lacks {says:?}", self.err);
    }
}

pub fn haul_command(address: SocketAddr, dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_haul"));
    command
        .current_dir(dir)
        .env("HAUL_SERVER", address.to_string())
        .env_remove("HAUL_PASSWORD")
        .env_remove("XDG_CONFIG_HOME")
        .env("HOME", dir)
        .args(["--timeout", "5", "--retries", "0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

pub fn finish(mut command: Command, input: &[u8]) -> Outcome {
    let begin = Instant::now();
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().unwrap();
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input).unwrap();
    }
    let id = child.id();
    let (done, watched) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        let wait = watched.recv_timeout(PATIENCE * 2);
        if wait == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = Command::new("kill").arg(id.to_string()).status();
        }
    });
    let output = child.wait_with_output().unwrap();
    drop(done);
    watchdog.join().unwrap();
    Outcome {
        code: output.status.code().unwrap_or(-1),
        out: output.stdout,
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: begin.elapsed(),
    }
}

/// As [`finish`], with standard output and error on a terminal of 80 columns; `out` is all that
/// appeared there.
pub fn finish_on_terminal(mut command: Command) -> Outcome {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let screen = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    let size = Winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&screen, size).unwrap();
    command.stdout(screen.try_clone().unwrap()).stderr(screen);
    let reader = std::thread::spawn(move || {
        let mut seen = Vec::new();
        // It ends with EIO when the last program has closed the terminal.
        let _ = File::from(master).read_to_end(&mut seen);
        seen
    });
    let outcome = finish(command, b"");
    let out = reader.join().unwrap();
    let err = String::from_utf8_lossy(&out).into_owned();
    Outcome {
        out,
        err,
        ..outcome
    }
}

pub fn haul(address: SocketAddr, dir: &Path, arguments: &[&str]) -> Outcome {
    let mut command = haul_command(address, dir);
    command.args(arguments);
    finish(command, b"")
}

/// Runs `haul` against the script, and gives what the server heard as well.
pub fn play(
    dir: &Path,
    arguments: &[&str],
    script: impl FnOnce(&mut Talk) + Send + 'static,
) -> (Outcome, Vec<String>) {
    let fake = serve(script);
    let outcome = haul(fake.address, dir, arguments);
    (outcome, fake.thread.join().unwrap())
}

pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

pub fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// An incompressible-looking body.
pub fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 7 + at / 251) as u8).collect()
}
