//! A session over a real directory. The input is what a client sends and, in single bytes behind
//! [`ESCAPE`], what else happens: what a data connection carries, answers that come now or are bad
//! news, commits that fail, a clock that jumps, ends.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use haul::config::Config;
use haul::proto::reply::{Parser, Part};
use haul::session::{Input, Outcome, Via};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::shell::{Shell, Taken};

const ESCAPE: u8 = 0x01;
/// What one input may cost.
const STEPS_MAX: usize = 600;

pub fn session(input: &[u8]) {
    let nest = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    fs::write(nest.path().join("outside"), "outside").unwrap();
    let dir = nest.path().join("root");
    fs::create_dir_all(dir.join("d")).unwrap();
    fs::write(dir.join("a"), "first\r\nsecond\n").unwrap();
    let mut config = Config::default();
    config.limits.queued_bytes_max = 300;
    config.limits.commits_per_session_max = 4;
    config.limits.wrong_password_delay = Duration::ZERO;
    let mut run = Run {
        shell: Shell::new(&dir, config),
        commands: 0,
    };
    run.play(input);
    run.drain();
    run.check_replies();
    run.check_disk(&nest);
}

struct Run {
    shell: Shell,
    /// That were taken and have to be answered.
    commands: usize,
}

impl Run {
    fn play(&mut self, input: &[u8]) {
        let pieces = input.split(|&byte| byte == ESCAPE);
        for (n, piece) in pieces.take(STEPS_MAX).enumerate() {
            if self.shell.closed {
                return;
            }
            match (n, piece.split_first()) {
                (0, _) => self.send(piece),
                (_, Some((&what, rest))) => {
                    self.happen(what, rest);
                }
                (_, None) => {
                    self.take();
                }
            }
            self.check();
        }
    }

    fn happen(&mut self, what: u8, rest: &[u8]) {
        let shell = &mut self.shell;
        match what {
            b'd' => shell.data().incoming.extend_from_slice(rest),
            b'f' => shell.data().finished = true,
            b'r' => shell.data().reset = true,
            b'o' => shell.data().reads = true,
            b'p' => {
                shell.pump(rest.len() + 1);
            }
            b'a' => shell.answer(),
            b'b' => shell.answer_failure(Errno::IO.into()),
            b'c' => {
                shell.commit();
            }
            b'e' => shell.fail_commit(Errno::NOSPC.into()),
            b'n' => shell.commits_full = !rest.is_empty(),
            b'j' => {
                shell.now += Duration::from_secs(rest.len() as u64 * 100);
                let deadline = shell.session.deadline(&shell.config);
                if deadline.is_some_and(|at| at <= shell.now) {
                    shell.tell(Input::TimedOut);
                }
            }
            b's' => shell.tell(Input::ShuttingDown),
            b'z' => shell.finish(),
            b'x' => shell.end_transfer(match (rest.len() % 3, shell.moving.as_ref()) {
                (0, _) => Outcome::Stalled,
                (1, Some(moving)) if moving.via != Via::Control => Outcome::NoConnection,
                (1, _) => Outcome::Broken,
                _ => Outcome::Failed(Errno::NOSPC.into()),
            }),
            _ => self.send(rest),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.shell.arrive(bytes);
        self.take();
    }

    /// Whether there was anything to take.
    fn take(&mut self) -> bool {
        let mut took = false;
        while !self.shell.closed {
            let Some(Taken { line, .. }) = self.shell.take_command() else {
                break;
            };
            // An empty line is what a held one leaves; those were counted when they came.
            self.commands += usize::from(!line.is_empty());
            took = true;
        }
        took
    }

    fn check(&self) {
        let Shell {
            session, config, ..
        } = &self.shell;
        assert!(self.shell.commits.len() <= config.limits.commits_per_session_max);
        if self.shell.closed {
            assert!(session.is_closed());
        }
        let busy = self.shell.moving.is_some() || !self.shell.commits.is_empty();
        if self.shell.closed || (busy && session.is_logged_in()) {
            assert_eq!(session.deadline(config), None);
        }
    }

    /// Everything is answered, and what still moves ends.
    fn drain(&mut self) {
        for _ in 0..STEPS_MAX {
            if self.shell.closed {
                return;
            }
            let mut moved = self.take() || self.shell.question.is_some();
            self.shell.answer();
            moved |= self.shell.moving.is_some();
            while self.shell.pump(usize::MAX) {}
            self.shell.end_transfer(Outcome::Stalled);
            moved |= self.shell.commit();
            if !moved {
                return;
            }
            self.check();
        }
    }

    /// What went out is replies from its first byte to its last, with the bytes that they announce,
    /// and never more final ones than there were commands; as many where the session goes on.
    fn check_replies(&self) {
        let (mut parser, mut finals) = (Parser::default(), 0);
        let mut rest = self.shell.sent.as_slice();
        while !rest.is_empty() {
            let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else {
                assert!(self.shell.closed, "a line without its end");
                break;
            };
            let line = &rest[..end];
            assert!(!line.iter().any(|it| matches!(it, b'\r' | b'\n' | 0)));
            rest = &rest[end + 2..];
            if let Part::End(code, text) = parser.line(line).expect("a reply") {
                finals += usize::from(code >= 200);
                if let (150, Some(bytes)) = (code, text.strip_suffix(b" bytes follow.")) {
                    let bytes: usize = std::str::from_utf8(bytes).unwrap().parse().unwrap();
                    assert!(bytes <= rest.len() || self.shell.closed, "too short");
                    rest = rest.get(bytes..).unwrap_or_default();
                }
            }
        }
        // The greeting is one, and so is a goodbye that nobody asked for.
        let asked = self.commands + 1;
        let closed = self.shell.closed;
        let sent = self.shell.sent.escape_ascii();
        assert!(
            finals <= asked + usize::from(closed),
            "{finals} of {asked}: {sent}"
        );
        assert!(finals == asked || closed, "{finals} of {asked}: {sent}");
    }

    fn check_disk(mut self, nest: &TempDir) {
        self.shell.moving = None;
        self.shell.question = None;
        self.shell.commits.clear();
        let outside = fs::read_dir(nest.path()).unwrap().count();
        assert_eq!(outside, 2, "something appeared outside");
        assert_eq!(fs::read(nest.path().join("outside")).unwrap(), b"outside");
        check_dir(&nest.path().join("root"));
    }
}

/// Nothing staged is left, no name has control bytes, and nothing is huge.
fn check_dir(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        assert!(!name.iter().any(u8::is_ascii_control), "{name:?}");
        let staged = name.starts_with(b".haul-") && !name.starts_with(b".haul-p");
        assert!(!staged, "{} is left", name.escape_ascii());
        let metadata = entry.metadata().unwrap();
        assert_eq!(metadata.mode() & 0o6000, 0, "set-id bits");
        if metadata.is_dir() {
            // Its owner may have taken the permission to look.
            if metadata.mode() & 0o500 == 0o500 {
                check_dir(&entry.path());
            }
        } else {
            assert!(metadata.len() < 1 << 20, "nobody sent so much");
        }
    }
}
