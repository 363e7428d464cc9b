//! `hauld` as a process, and what can be seen of it from outside.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::control::Control;
use super::{PATIENCE, until, wait_for};

/// How the names begin that hauld gives to what is not yet published.
const STAGED_PREFIX: &[u8] = b".haul-";
/// The same, of what is kept of an upload that broke off.
const PARTIAL_PREFIX: &[u8] = b".haul-p";

/// A `hauld` of one test, with a directory of its own. It ends with the value.
pub struct Server {
    process: Child,
    addr: SocketAddr,
    _nest: TempDir,
    root: PathBuf,
    log: Arc<Mutex<Vec<u8>>>,
    unread_log: Option<ChildStderr>,
    log_reader: Option<JoinHandle<()>>,
}

/// How a server is started where it is not the usual way.
pub struct Launch<'a> {
    pub listen: &'a str,
    /// A program that becomes hauld, with its arguments: `prlimit`, say.
    pub through: &'a [&'a str],
    /// Where the served directory is within one that belongs to the test, so that the test owns
    /// what is around it too.
    pub below: &'a str,
    /// Another directory to serve, which outlives the server.
    pub dir: Option<&'a Path>,
    pub options: &'a [&'a str],
    /// Whether standard error is read from the beginning.
    pub read_log: bool,
}

impl Default for Launch<'_> {
    fn default() -> Self {
        Launch {
            listen: "127.0.0.1:0",
            through: &[],
            below: "",
            dir: None,
            options: &[],
            read_log: true,
        }
    }
}

impl Server {
    pub fn start(options: &[&str]) -> Server {
        Server::start_at("127.0.0.1:0", options)
    }

    /// One with a configuration file, which is there as long as its directory.
    pub fn configured(text: &str, options: &[&str]) -> (Server, TempDir) {
        let dir = tempfile::tempdir().expect("a directory");
        let config = dir.path().join("hauld.toml");
        fs::write(&config, text).expect("writing");
        let config = config.to_str().expect("text");
        let server = Server::start(&[&["--config", config], options].concat());
        (server, dir)
    }

    pub fn start_at(listen: &str, options: &[&str]) -> Server {
        Server::launch(&Launch {
            listen,
            options,
            ..Launch::default()
        })
    }

    pub fn launch(launch: &Launch) -> Server {
        let nest = tempfile::tempdir().expect("making a directory to serve");
        let root = match launch.dir {
            Some(dir) => dir.to_path_buf(),
            None => nest.path().join(launch.below),
        };
        fs::create_dir_all(&root).expect("making a directory to serve");
        // Root has to say so where it serves strangers; nobody else can say it.
        let strangers = !launch.listen.starts_with("127.");
        let is_said = launch.options.contains(&"--run-as");
        let root_may = strangers && !is_said && rustix::process::geteuid().is_root();
        let words = [launch.through, &[env!("CARGO_BIN_EXE_hauld")]].concat();
        let mut process = Command::new(words[0])
            .args(&words[1..])
            .args(["--listen", launch.listen])
            .args(launch.options)
            .args(
                root_may
                    .then_some(["--run-as", "root"])
                    .into_iter()
                    .flatten(),
            )
            .arg(&root)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starting hauld");

        let stderr = process.stderr.take().expect("stderr is a pipe");

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
            _nest: nest,
            root,
            log: Arc::default(),
            unread_log: Some(stderr),
            log_reader: None,
        };
        if launch.read_log {
            server.read_log();
        }
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
        &self.root
    }

    /// A path below the root.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Begins to read its standard error, where it was not read from the beginning.
    pub fn read_log(&mut self) {
        let Some(mut stderr) = self.unread_log.take() else {
            return;
        };
        let collected = Arc::clone(&self.log);
        self.log_reader = Some(thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = stderr.read(&mut chunk) {
                collected.lock().unwrap().extend_from_slice(&chunk[..n]);
            }
        }));
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.log.lock().unwrap()).into_owned()
    }

    /// Waits until it has logged a text.
    #[track_caller]
    pub fn expect_log(&self, text: &str) {
        let is_logged = until(PATIENCE, || self.log().contains(text));
        assert!(is_logged, "{text:?} is not in the log: {}", self.log());
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

    /// How often its threads have gone to sleep so far.
    pub fn sleeps(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("running");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|n| n.trim().parse().ok()).expect("a number")
    }

    /// The processor time it has used so far.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("running");
        // Behind the name, which is in parentheses: 11 fields, then utime and stime.
        let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|ticks| ticks.parse::<u64>().expect("ticks"))
            .sum();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }

    /// The processor time it uses in one second from now.
    pub fn cpu_in_a_second(&self) -> Duration {
        let before = self.cpu();
        thread::sleep(Duration::from_secs(1));
        self.cpu() - before
    }

    /// The names of its threads.
    pub fn threads(&self) -> Vec<String> {
        fs::read_dir(format!("/proc/{}/task", self.pid()))
            .expect("running")
            .flatten()
            .filter_map(|task| fs::read_to_string(task.path().join("comm")).ok())
            .map(|name| name.trim().to_owned())
            .collect()
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

    /// Waits until it has been killed.
    pub fn gone(&mut self) {
        self.process.wait().expect("waiting for hauld");
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
        until(Duration::from_secs(1), || {
            let reader = self.log_reader.as_ref();
            reader.is_none_or(JoinHandle::is_finished)
        });
    }

    /// The names of staged files anywhere below the root.
    fn staged(&self) -> Vec<PathBuf> {
        use std::os::unix::ffi::OsStrExt;
        let (mut found, mut todo) = (Vec::new(), vec![self.root().to_owned()]);
        while let Some(directory) = todo.pop() {
            // A directory may go away while tests run; what is gone holds no staged file.
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let name = name.as_bytes();
                if name.starts_with(STAGED_PREFIX) && !name.starts_with(PARTIAL_PREFIX) {
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

    if !until(PATIENCE, || server.descriptors() <= baseline) {
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
    let none = until(PATIENCE, || {
        staged = server.staged();
        staged.is_empty()
    });
    assert!(none, "staged files are left: {staged:?}");

    assert!(
        !server.log().contains("panic"),
        "something panicked:\n{}",
        server.log()
    );
}
