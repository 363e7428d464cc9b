//! `hauld` as a process, and what can be seen of it from outside.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::control::Control;
use super::{PATIENCE, wait_for};

/// How the names begin that hauld gives to what is not yet published.
const STAGED_PREFIX: &[u8] = b".haul-";

/// A `hauld` of one test, with a directory of its own. It ends with the value.
pub struct Server {
    process: Child,
    addr: SocketAddr,
    root: TempDir,
    log: Arc<Mutex<Vec<u8>>>,
    log_reader: JoinHandle<()>,
}

impl Server {
    pub fn start(options: &[&str]) -> Server {
        Server::start_at("127.0.0.1:0", options)
    }

    pub fn start_at(listen: &str, options: &[&str]) -> Server {
        let root = tempfile::tempdir().expect("making a directory to serve");
        let mut process = Command::new(env!("CARGO_BIN_EXE_hauld"))
            .args(["--listen", listen])
            .args(options)
            .arg(root.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starting hauld");

        let log = Arc::new(Mutex::new(Vec::new()));
        let mut stderr = process.stderr.take().expect("stderr is a pipe");
        let collected = Arc::clone(&log);
        let log_reader = thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = stderr.read(&mut chunk) {
                collected.lock().unwrap().extend_from_slice(&chunk[..n]);
            }
        });

        // All of standard output is read, so that a server that prints more cannot get stuck on it.
        let mut stdout = BufReader::new(process.stdout.take().expect("stdout is a pipe"));
        let (first_line, line) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            if stdout.read_line(&mut line).is_ok() {
                let _ = first_line.send(line);
            }
            let _ = std::io::copy(&mut stdout, &mut std::io::sink());
        });

        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut server = Server {
            process,
            addr: unknown,
            root,
            log,
            log_reader,
        };
        let line = line
            .recv_timeout(PATIENCE)
            .expect("hauld says where it listens");
        server.addr = line
            .strip_prefix("listening on ")
            .and_then(|rest| rest.strip_suffix('\n'))
            .and_then(|addr| addr.parse().ok())
            .unwrap_or_else(|| panic!("the first line of hauld is {line:?}"));
        server
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The directory that is served.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// A path below the root.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.log.lock().unwrap()).into_owned()
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The memory it has in use now.
    pub fn rss_kib(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("running");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("VmRSS");
        line.trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("VmRSS is a number of KiB")
    }

    /// How many descriptors it has open now.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("running")
            .count()
    }

    /// How many descriptors it has open when nobody is there, after a session that went through
    /// whatever is opened on first use: an upload, a download and a listing.
    pub fn baseline(&self) -> usize {
        let name = "baseline-of-descriptors";
        let mut session = Control::login(self.addr);
        assert_eq!(session.stor(name, b"x").code, 226);
        assert_eq!(session.fetch(&format!("RETR {name}")).0, b"x");
        session.fetch("NLST");
        assert_eq!(session.command(&format!("DELE {name}")).code, 250);
        session.quit();

        let (mut count, mut since) = (self.descriptors(), Instant::now());
        let settled = wait_for(PATIENCE, || {
            let now = self.descriptors();
            if now != count {
                (count, since) = (now, Instant::now());
            }
            (since.elapsed() >= Duration::from_millis(200)).then_some(count)
        });
        settled.expect("the number of descriptors settles")
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("sending a signal");
    }

    /// Asks it to end, and gives its exit code.
    pub fn stop(&mut self) -> i32 {
        self.signal(Signal::TERM);
        self.exit_code()
    }

    /// Waits for its end, which something else has caused.
    pub fn exit_code(&mut self) -> i32 {
        let status = wait_for(PATIENCE, || {
            self.process.try_wait().expect("waiting for hauld")
        })
        .expect("hauld ends");
        self.await_end_of_log();
        status
            .code()
            .unwrap_or_else(|| panic!("hauld was killed: {status}"))
    }

    /// The log is whole once the process, and whoever else may write to it, has ended.
    fn await_end_of_log(&self) {
        wait_for(Duration::from_secs(1), || {
            self.log_reader.is_finished().then_some(())
        });
    }

    /// The names of staged files anywhere below the root.
    fn staged(&self) -> Vec<PathBuf> {
        use std::os::unix::ffi::OsStrExt;
        let (mut found, mut todo) = (Vec::new(), vec![self.root().to_owned()]);
        while let Some(directory) = todo.pop() {
            // A directory may go away while tests run; what is gone holds no staged file.
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.file_name().as_bytes().starts_with(STAGED_PREFIX) {
                    found.push(entry.path());
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    todo.push(entry.path());
                }
            }
        }
        found
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.await_end_of_log();
        if thread::panicking() {
            let log = self.log();
            let end = log.lines().count().saturating_sub(40);
            eprintln!("--- the end of hauld's log:");
            log.lines().skip(end).for_each(|line| eprintln!("{line}"));
        }
    }
}

/// The questions at the end of every test that does something to a server: does a fresh session get
/// its NOOP, are the descriptors back at `baseline`, is no staged file left, did nothing panic?
#[track_caller]
pub fn four_questions(server: &Server, baseline: usize) {
    let mut session = Control::login(server.addr());
    assert_eq!(
        session.command("NOOP").code,
        200,
        "a fresh session gets its NOOP"
    );
    session.quit();

    if wait_for(PATIENCE, || {
        (server.descriptors() <= baseline).then_some(())
    })
    .is_none()
    {
        let names: Vec<_> = fs::read_dir(format!("/proc/{}/fd", server.pid()))
            .expect("running")
            .flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .collect();
        panic!(
            "{} descriptors instead of {baseline}: {names:?}",
            names.len()
        );
    }

    let mut staged = Vec::new();
    let none = wait_for(PATIENCE, || {
        staged = server.staged();
        staged.is_empty().then_some(())
    });
    assert!(none.is_some(), "staged files are left: {staged:?}");

    assert!(
        !server.log().contains("panic"),
        "something panicked:\n{}",
        server.log()
    );
}
