//! The system calls of a server, as strace tells them, and faults that strace puts into them.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::server::{Launch, Server};
use super::{PATIENCE, until, wait_for};

/// What is told of: everything that has to do with uploads, replies and faults.
const CALLS: &str = "trace=openat,write,pwrite64,splice,fsync,fdatasync,syncfs,linkat,renameat,\
                     renameat2,sendto,openat2,fadvise64";

/// Becomes what it is given where `$0` is what the system says of its memory. Nobody else sees that.
const WITH_VMSTAT: &str = r#"
    mount --make-rprivate / && mount --bind "$0" /proc/vmstat || exit 2
    exec "$@"
"#;

/// A server whose system calls are written down.
pub struct Traced {
    pub server: Server,
    file: PathBuf,
    _dir: TempDir,
}

/// One system call. Calls of other threads may have been made between its begin and its end.
#[derive(Debug, Clone)]
pub struct Call {
    /// The thread that made it; the first is the process, and the reactor.
    pub thread: u32,
    pub begin: usize,
    pub end: usize,
    pub name: String,
    pub args: String,
    /// -1 is an error.
    pub result: i64,
}

impl Traced {
    /// Starts a server. Each of `faults` is an expression as strace takes them behind `inject=`; it
    /// counts the calls of each thread for itself.
    pub fn start(options: &[&str], faults: &[&str]) -> Traced {
        Traced::watching(CALLS, options, faults)
    }

    /// The same, where other calls are to be told of.
    pub fn watching(calls: &str, options: &[&str], faults: &[&str]) -> Traced {
        Traced::through(&[], calls, options, faults)
    }

    /// The same, where the system tells the server that `dirty` pages wait to be written to disks, and that
    /// from `background` on it writes them without being asked to.
    pub fn with_much_to_write(
        (dirty, background): (u64, u64),
        options: &[&str],
        faults: &[&str],
    ) -> Traced {
        let vmstat = format!(
            "nr_dirty {dirty}\nnr_writeback 0\nnr_dirty_background_threshold {background}\n"
        );
        let told = tempfile::NamedTempFile::new().expect("making a file");
        fs::write(told.path(), vmstat).expect("writing");
        let told = told.path().to_str().expect("a text");
        let through = ["unshare", "--mount", "sh", "-c", WITH_VMSTAT, told];
        Traced::through(&through, CALLS, options, faults)
    }

    fn through(through: &[&str], calls: &str, options: &[&str], faults: &[&str]) -> Traced {
        let dir = tempfile::tempdir().expect("making a directory");
        let file = dir.path().join("trace");
        let mut words = through.to_vec();
        words.extend(["strace", "-D", "-f", "-y", "-s", "4096", "-o"]);
        words.extend([file.to_str().expect("a text"), "-e", calls]);
        let faults: Vec<_> = faults.iter().map(|it| format!("inject={it}")).collect();
        words.extend(faults.iter().flat_map(|it| ["-e", it.as_str()]));
        let server = Server::launch(&Launch {
            through: &words,
            options,
            ..Launch::default()
        });
        Traced {
            server,
            file,
            _dir: dir,
        }
    }

    /// Whether there is such a text in what has been told so far.
    pub fn is_told(&self, text: &str) -> bool {
        fs::read_to_string(&self.file).is_ok_and(|it| it.contains(text))
    }

    /// Ends the server; all its calls.
    pub fn calls(mut self) -> Vec<Call> {
        assert_eq!(self.server.stop(), 0);
        // strace writes the last line when it has seen the end.
        let whole = wait_for(Duration::from_secs(10), || {
            let text = fs::read_to_string(&self.file).ok()?;
            let pid = self.server.pid();
            let last =
                |line: &str| line.starts_with(&pid.to_string()) && line.contains("+++ exited");
            text.lines().any(last).then_some(text)
        });
        parse(&whole.expect("strace tells of the end"))
    }
}

/// strace at work on a server that runs.
pub struct Strace {
    strace: Child,
    server: u32,
}

impl Strace {
    pub fn attach(server: &Server, options: &[&str]) -> Strace {
        let mut command = Command::new("strace");
        command
            .args(["-f", "-p", &server.pid().to_string()])
            .args(options);
        let child = command.stderr(Stdio::null()).spawn();
        let strace = Strace {
            strace: child.expect("tests/run installs strace"),
            server: server.pid(),
        };
        let is_traced = |status: &str| !status.contains("TracerPid:\t0");
        assert!(
            until(PATIENCE, || strace.threads_are(is_traced)),
            "strace attaches"
        );
        strace
    }

    /// Waits until the server has nothing to do: were a call made to fail when strace leaves, it would be
    /// no call at all (ENOSYS).
    pub fn detach(mut self) {
        let sleeps = |status: &str| status.contains("State:\tS");
        assert!(
            until(PATIENCE, || self.threads_are(sleeps)),
            "the server rests"
        );
        kill_process(Pid::from_child(&self.strace), Signal::TERM).expect("strace runs");
        self.strace.wait().expect("waiting");
    }

    fn threads_are(&self, so: impl Fn(&str) -> bool) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.server));
        let is_so = |task: fs::DirEntry| {
            let status = fs::read_to_string(task.path().join("status"));
            status.is_ok_and(|status| so(&status))
        };
        tasks.is_ok_and(|tasks| tasks.flatten().all(is_so))
    }
}

/// Reads `PID name(args) = result` lines, also those in two halves.
pub fn parse(text: &str) -> Vec<Call> {
    let (mut calls, mut halves): (Vec<Call>, HashMap<&str, usize>) = (Vec::new(), HashMap::new());
    for (at, line) in text.lines().enumerate() {
        let Some((pid, rest)) = line.split_once(' ') else {
            continue;
        };
        let rest = rest.trim_start();
        if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some(call) = halves.remove(pid).map(|n| &mut calls[n]) else {
                continue;
            };
            let more = resumed.split_once(" resumed>").map_or("", |(_, more)| more);
            call.end = at;
            call.finish(more);
            continue;
        }
        let Some((name, rest)) = rest.split_once('(') else {
            continue;
        };
        let mut call = Call {
            thread: pid.parse().unwrap_or(0),
            begin: at,
            end: usize::MAX,
            name: name.to_string(),
            args: String::new(),
            result: -1,
        };
        match rest.strip_suffix(" <unfinished ...>") {
            Some(args) => {
                call.args = args.to_string();
                halves.insert(pid, calls.len());
            }
            None => {
                call.end = at;
                call.finish(rest);
            }
        }
        calls.push(call);
    }
    calls
}

impl Call {
    fn finish(&mut self, rest: &str) {
        let (args, result) = rest.rsplit_once(") ").unwrap_or((rest, ""));
        self.args.push_str(args);
        let digits = result.trim_start().trim_start_matches("= ");
        let end = digits.find(|c: char| !c.is_ascii_digit() && c != '-');
        let digits = &digits[..end.unwrap_or(digits.len())];
        self.result = digits.parse().unwrap_or(-1);
    }

    pub fn is(&self, name: &str) -> bool {
        self.name == name
    }

    /// The descriptor and its path, of an argument like `12</a/b>`.
    pub fn descriptor(&self, argument: usize) -> Option<(i64, &str)> {
        let argument = self.args.split(", ").nth(argument)?;
        let (number, path) = argument.split_once('<')?;
        let path = path.strip_suffix("(deleted)").unwrap_or(path);
        Some((number.parse().ok()?, path.strip_suffix('>')?))
    }
}

#[test]
fn calls_in_one_line_and_in_two() {
    let calls = parse(
        "7 fsync(12</d/#5 (deleted)>) = 0\n\
         7 linkat(5</proc/7/fd>, \"12\", 9</d>, \"f\", AT_SYMLINK_FOLLOW <unfinished ...>\n\
         8 sendto(4<socket:[3]>, \"226 x\\r\\n\", 7, MSG_NOSIGNAL, NULL, 0) = 7\n\
         7 <... linkat resumed>) = -1 EDQUOT (Disk quota exceeded) (INJECTED)\n\
         8 +++ exited with 0 +++\n",
    );
    let shape: Vec<_> = calls
        .iter()
        .map(|it| (it.begin, it.end, it.result))
        .collect();
    assert_eq!(shape, [(0, 0, 0), (1, 3, -1), (2, 2, 7)]);
    assert_eq!(calls[0].descriptor(0), Some((12, "/d/#5 (deleted)")));
    assert_eq!(calls[1].descriptor(2), Some((9, "/d")));
    assert!(calls[2].is("sendto") && calls[2].args.contains("226 x"));
}
