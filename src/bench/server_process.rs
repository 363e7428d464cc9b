//! The server as a process on this machine: started and stopped, or only looked at. What it costs is
//! read from `/proc`, with its children, those that have ended too.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::error::shown;

/// What hauld makes and serves unless it is told what to serve.
const DEFAULT_DIR: &str = "haul-data";
/// How long a server may take to start, and to stop.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that can be looked at. One that was started ends with the value.
#[derive(Debug)]
pub struct ServerProcess {
    pids: Vec<i32>,
    child: Option<Child>,
    /// Not there before, and made by hauld where it was told of no directory to serve.
    made: Option<&'static Path>,
}

/// What it has used up, from its beginning.
#[derive(Debug, Clone, Copy, Default)]
pub struct Used {
    /// Processor time in seconds, in hundredths usually.
    pub cpu_s: f64,
    /// Proportional set size.
    pub memory_bytes: Option<u64>,
    /// What it read from disks.
    pub disk_bytes: Option<u64>,
}

impl ServerProcess {
    /// One that runs already, or several that belong together.
    ///
    /// # Errors
    /// There is none of one of these numbers.
    pub fn of(pids: &[i32]) -> Result<ServerProcess, String> {
        match pids.iter().find(|pid| stat(**pid).is_none()) {
            None => Ok(ServerProcess {
                pids: pids.to_vec(),
                child: None,
                made: None,
            }),
            Some(pid) => Err(format!(
                "--pid {pid}: there is no such process on this machine"
            )),
        }
    }

    /// Starts one by a shell command, and waits until it says `listening on ADDRESS`, as hauld
    /// does; or, where `address` is known, until that takes connections.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn spawn(
        command: &str,
        address: Option<SocketAddr>,
    ) -> Result<(ServerProcess, SocketAddr), String> {
        let made = Some(Path::new(DEFAULT_DIR)).filter(|dir| dir.symlink_metadata().is_err());
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!("exec {command}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for the bench, which has files to remove with the server's help.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("--spawn: sh does not start: {error}"))?;
        let stdout = child.stdout.take();
        let last_words = child.stderr.take().map(last_words);
        let mut server = ServerProcess {
            pids: vec![child.id().cast_signed()],
            child: Some(child),
            made,
        };
        let lines = stdout.map(first_words);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let status = server.child.as_mut().map(Child::try_wait);
            if let Some(Ok(Some(status))) = status {
                let words = last_words
                    .and_then(|words| words.join().ok())
                    .unwrap_or_default();
                let words = match words.as_str() {
                    "" => "it said nothing",
                    words => words,
                };
                return Err(format!(
                    "--spawn: the server ended at once ({status}): {words}"
                ));
            }
            match (address, &lines) {
                (Some(address), _) => {
                    if std::net::TcpStream::connect_timeout(&address, PATIENCE).is_ok() {
                        return Ok((server, address));
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                (None, Some(lines)) => {
                    if let Ok(address) = lines.recv_timeout(Duration::from_millis(50)) {
                        return Ok((server, address));
                    }
                }
                (None, None) => break,
            }
        }
        Err(match address {
            Some(address) => format!("--spawn: nobody takes connections at {address}"),
            None => "--spawn: the server does not print \"listening on ADDRESS:PORT\" to its \
                     standard output; say where it listens with --server"
                .to_owned(),
        })
    }

    /// What it has used up.
    pub fn used(&self) -> Used {
        let ticks_per_s = rustix::param::clock_ticks_per_second() as f64;
        let mut used = Used::default();
        for pid in self.family() {
            let Some(stat) = stat(pid) else { continue };
            used.cpu_s += stat.ticks as f64 / ticks_per_s;
            let add = |to: &mut Option<u64>, more: Option<u64>| {
                if let Some(more) = more {
                    *to = Some(to.unwrap_or(0) + more);
                }
            };
            let pss = field(&format!("/proc/{pid}/smaps_rollup"), "Pss:");
            add(&mut used.memory_bytes, pss.map(|kib| kib * 1024));
            let read = field(&format!("/proc/{pid}/io"), "read_bytes:");
            add(&mut used.disk_bytes, read);
        }
        used
    }

    /// It and all its descendants that live.
    pub fn family(&self) -> Vec<i32> {
        let mut family = self.pids.clone();
        let all: Vec<(i32, i32)> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|pid| Some((pid, stat(pid)?.parent)))
            .collect();
        let mut at = 0;
        while let Some(&parent) = family.get(at) {
            let is_new = |pid: &i32| !family.contains(pid);
            let children = all.iter().filter(|(_, its)| *its == parent);
            let new: Vec<i32> = children.map(|(pid, _)| *pid).filter(is_new).collect();
            family.extend(new);
            at += 1;
        }
        family
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        if let Some(pid) = Pid::from_raw(self.pids[0]) {
            let _ = kill_process(pid, Signal::TERM);
        }
        end(child);
        if let Some(dir) = self.made {
            // If something is in it, it stays.
            let _ = fs::remove_dir(dir);
        }
    }
}

fn end(child: &mut Child) {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Reads on for as long as the server prints, so that it never waits for us.
fn first_words(stdout: std::process::ChildStdout) -> mpsc::Receiver<SocketAddr> {
    let (found, address) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            let address = line.strip_prefix("listening on ");
            if let Some(Ok(address)) = address.map(|it| it.trim().parse()) {
                let _ = found.send(address);
            }
        }
    });
    address
}

/// What it says about itself would cover the table; only the end of it is kept, for when it is the
/// end.
fn last_words(mut stderr: ChildStderr) -> JoinHandle<String> {
    const KEPT_BYTES: usize = 2048;
    std::thread::spawn(move || {
        let (mut kept, mut chunk) = (Vec::new(), [0; 4096]);
        while let Ok(n @ 1..) = stderr.read(&mut chunk) {
            kept.extend_from_slice(&chunk[..n]);
            let surplus = kept.len().saturating_sub(KEPT_BYTES);
            kept.drain(..surplus);
        }
        shown(kept.trim_ascii())
    })
}

struct Stat {
    parent: i32,
    ticks: u64,
}

/// The name in parentheses may contain anything, parentheses too (proc(5)).
fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        // utime, stime, and those of children that have ended.
        ticks: (11..15).map(number).sum::<Option<u64>>()?,
    })
}

/// The number behind a name in a file of `/proc`.
pub fn field(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_an_odd_name() {
        let text = "42 (a) b (c) S 7 42 42 0 -1 4194304 100 200 0 0 11 22 33 44 20 0 1 0 5 6 7";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.parent, stat.ticks), (7, 11 + 22 + 33 + 44));
        assert!(parse_stat("42 (x) S 1").is_none());
        assert!(parse_stat("").is_none());
    }

    #[test]
    fn this_process_is_found_with_its_children() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pids = [std::process::id(), child.id()].map(u32::cast_signed);
        let me = ServerProcess::of(&pids).unwrap();
        let family = me.family();
        child.kill().unwrap();
        child.wait().unwrap();
        let count = |pid| family.iter().filter(|it| **it == pid).count();
        assert_eq!(pids.map(count), [1, 1], "{family:?}");
        assert!(me.used().memory_bytes.is_some_and(|bytes| bytes > 100_000));
        assert!(ServerProcess::of(&[pids[0], i32::MAX]).is_err());
    }
}
