//! System calls of the server, counted by strace in a run of its own: it makes every call many times
//! dearer, so nothing else is measured then.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::server_process::field;

/// How long strace may take to have all threads of a server.
const ATTACH_TIME_MAX: Duration = Duration::from_secs(5);

/// How many calls there were.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Syscalls {
    /// Operations done meanwhile.
    pub operations: u64,
    /// All calls.
    pub total: u64,
    /// By name, the most frequent first.
    pub by_name: Vec<(String, u64)>,
}

/// strace, attached to a server.
#[derive(Debug)]
pub struct Counter {
    strace: Child,
}

impl Counter {
    /// Whether there is a strace.
    ///
    /// # Errors
    /// What to do about it.
    pub fn check() -> Result<(), String> {
        let run = Command::new("strace")
            .arg("-V")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        match run {
            Ok(status) if status.success() => Ok(()),
            _ => Err(
                "--syscalls counts with strace, which is not here: install the package strace"
                    .to_owned(),
            ),
        }
    }

    /// Attaches to these processes and their threads, and waits until it has all of them.
    ///
    /// # Errors
    /// strace does not start. That it may not attach is said by [`Counter::detach`].
    pub fn attach(family: &[i32]) -> Result<Counter, String> {
        let mut command = Command::new("strace");
        command.args(["-c", "-f", "-q"]);
        for pid in family {
            command.args(["-p", &pid.to_string()]);
        }
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut strace = command
            .spawn()
            .map_err(|error| format!("strace: {error}"))?;
        let deadline = Instant::now() + ATTACH_TIME_MAX;
        while !family.iter().all(|&pid| is_traced(pid)) && Instant::now() < deadline {
            if !matches!(strace.try_wait(), Ok(None)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Counter { strace })
    }

    /// Lets go, and returns what was counted.
    ///
    /// # Errors
    /// strace could not count.
    pub fn detach(self, operations: u64) -> Result<Syscalls, String> {
        if let Some(pid) = Pid::from_raw(self.strace.id().cast_signed()) {
            let _ = kill_process(pid, Signal::INT);
        }
        let output = self.strace.wait_with_output();
        let text = output.map_err(|error| format!("strace: {error}"))?.stderr;
        let text = String::from_utf8_lossy(&text);
        let mut counted = parse(&text);
        if counted.by_name.is_empty() {
            let said = text.lines().next().unwrap_or("nothing");
            return Err(format!("strace could not count; it says: {said}"));
        }
        counted.operations = operations;
        Ok(counted)
    }
}

/// Whether somebody traces each thread of a process.
fn is_traced(pid: i32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    tasks.into_iter().flatten().flatten().all(|task| {
        let status = task.path().join("status");
        field(&status.to_string_lossy(), "TracerPid:") != Some(0)
    })
}

/// Reads the table of `strace -c`: percent, seconds, microseconds per call, calls, perhaps errors,
/// name.
fn parse(text: &str) -> Syscalls {
    let mut counted = Syscalls::default();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some(first), Some(calls), Some(name)) = (words.first(), words.get(3), words.last())
        else {
            continue;
        };
        if first.parse::<f64>().is_err() || *name == "total" {
            continue;
        }
        if let Ok(calls) = calls.parse() {
            counted.by_name.push(((*name).to_owned(), calls));
            counted.total += calls;
        }
    }
    counted
        .by_name
        .sort_by_key(|(_, calls)| std::cmp::Reverse(*calls));
    counted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_strace() {
        let text = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000600           3       200           sendto
 40.00    0.000400           1       300        10 recvfrom
------ ----------- ----------- --------- --------- ----------------
100.00    0.001000           2       500        10 total
";
        let counted = parse(text);
        assert_eq!(counted.total, 500);
        let names = [("recvfrom".to_owned(), 300), ("sendto".to_owned(), 200)];
        assert_eq!(counted.by_name, names);
        assert_eq!(
            parse("strace: attach: ptrace(PTRACE_SEIZE, 1): no"),
            Syscalls::default()
        );
    }
}
