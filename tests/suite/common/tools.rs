//! Other people's programs, run to their end.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use super::wait_for;

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
    /// The command, for messages.
    command: String,
}

impl Done {
    #[track_caller]
    pub fn ok(self) -> Done {
        self.expect(0)
    }

    #[track_caller]
    pub fn expect(self, code: i32) -> Done {
        if self.code != code {
            panic!(
                "{}\nended with {} instead of {code}\nstdout: {}\nstderr: {}",
                self.command,
                self.code,
                self.stdout_text(),
                self.stderr
            );
        }
        self
    }

    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Runs a command to its end, without input.
pub fn run(command: &mut Command) -> Done {
    run_with(command, b"")
}

/// Runs a command to its end. It gets `input` on its standard input and two minutes.
pub fn run_with(command: &mut Command, input: &[u8]) -> Done {
    let mut child = start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    let mut stdout = child.stdout.take().expect("stdout is a pipe");
    thread::scope(|scope| {
        // A program that ends early leaves its input unread: its exit code tells, not this error.
        scope.spawn(move || stdin.write_all(input));
        let output = scope.spawn(move || {
            let mut output = Vec::new();
            stdout
                .read_to_end(&mut output)
                .expect("reading standard output");
            output
        });
        let (status, stderr) = finish(child, command);
        Done {
            code: status.code().unwrap_or(-1),
            stdout: output.join().expect("reading standard output"),
            stderr,
            command: format!("{command:?}"),
        }
    })
}

/// Starts a command whose standard error is a pipe; says how to get it if it is not there.
pub fn start(command: &mut Command) -> Child {
    let child = command.stderr(Stdio::piped()).spawn();
    child.unwrap_or_else(|e| {
        let program = command.get_program().to_string_lossy();
        panic!("{program} does not start ({e}): tests/run installs what the tests need")
    })
}

/// Waits two minutes at most; then the program is killed and the test fails.
pub fn finish(mut child: Child, command: &Command) -> (ExitStatus, String) {
    let mut stderr = child.stderr.take().expect("stderr is a pipe");
    let errors = thread::spawn(move || {
        let mut text = Vec::new();
        stderr
            .read_to_end(&mut text)
            .expect("reading standard error");
        String::from_utf8_lossy(&text).into_owned()
    });
    let ended = wait_for(Duration::from_secs(120), || {
        child.try_wait().expect("waiting")
    });
    let _ = child.kill();
    let _ = child.wait();
    let errors = errors.join().expect("reading standard error");
    match ended {
        Some(status) => (status, errors),
        None => panic!("{command:?} hangs\nstderr: {errors}"),
    }
}

/// A command for curl that knows no configuration file and no proxy.
pub fn curl_command<S: AsRef<OsStr>>(args: &[S]) -> Command {
    let mut command = Command::new("curl");
    command
        .args(["-q", "-sS", "--noproxy", "*", "--max-time", "100"])
        .args(args);
    command
}

pub fn curl<S: AsRef<OsStr>>(args: &[S]) -> Done {
    run(&mut curl_command(args))
}
