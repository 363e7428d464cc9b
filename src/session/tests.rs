//! When a session ends because nothing happens, in a time that passes only here; and what it leaves to
//! others because it would take long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::storage::root::{LARGE_BYTES, Root};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

struct Talk {
    dir: tempfile::TempDir,
    config: Config,
    home: Arc<Root>,
    begin: Instant,
    now: Instant,
    session: Session,
    out: Vec<Action>,
}

impl Talk {
    fn new() -> Talk {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), b"content").unwrap();
        let (config, begin) = (Config::default(), Instant::now());
        let home = Arc::new(Root::open(dir.path()).unwrap());
        let mut out = Vec::new();
        let cx = Context {
            config: &config,
            home: &home,
            now: begin,
            wall_s: 0,
            commits_full: false,
            random: 0,
        };
        let session = Session::new("127.0.0.1:4000".parse().unwrap(), &cx, &mut out);
        Talk {
            dir,
            config,
            home,
            begin,
            now: begin,
            session,
            out,
        }
    }

    fn logged_in() -> Talk {
        let mut talk = Talk::new();
        talk.say("USER anonymous");
        assert_eq!(talk.say("PASS x"), [230]);
        talk
    }

    fn with<T>(&mut self, run: impl FnOnce(&mut Session, &Context, &mut Vec<Action>) -> T) -> T {
        let cx = Context {
            config: &self.config,
            home: &self.home,
            now: self.now,
            wall_s: 0,
            commits_full: false,
            random: 0,
        };
        run(&mut self.session, &cx, &mut self.out)
    }

    fn say(&mut self, line: &str) -> Vec<u16> {
        self.out.clear();
        let bytes = format!("{line}\r\n").into_bytes();
        self.with(|session, cx, out| session.receive(&bytes, cx, out));
        self.codes()
    }

    fn hear(&mut self, input: Input) -> Vec<u16> {
        self.out.clear();
        self.with(|session, cx, out| session.handle(input, cx, out));
        self.codes()
    }

    fn codes(&self) -> Vec<u16> {
        let code = |action: &Action| match action {
            Action::Reply(reply) => Some(reply.code),
            _ => None,
        };
        self.out.iter().filter_map(code).collect()
    }

    /// How long from now on nothing may happen.
    fn left(&self) -> Option<Duration> {
        let deadline = self.session.deadline(&self.config)?;
        Some(deadline.saturating_duration_since(self.now))
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}

#[test]
fn r05_noop_keeps_a_session_for_an_hour_and_no_longer() {
    let mut talk = Talk::logged_in();
    let idle = talk.config.limits.idle_timeout;
    assert_eq!(talk.left(), Some(idle));
    while talk.left().is_some_and(|left| left > idle / 2) {
        talk.pass(idle / 2);
        assert_eq!(talk.say("NOOP"), [200]);
        assert!(talk.now - talk.begin <= HOUR, "NOOP keeps it for ever");
    }
    assert_eq!(talk.now + talk.left().unwrap(), talk.begin + HOUR);
    talk.pass(idle / 2);
    assert_eq!(talk.hear(Input::TimedOut), [421]);
    assert!(talk.session.is_closed());
}

#[test]
fn r05_any_other_command_begins_the_hour_again() {
    let mut talk = Talk::logged_in();
    for _ in 0..20 {
        talk.pass(10 * MINUTE);
        assert!(talk.left().unwrap() > Duration::ZERO);
        assert_eq!(talk.say("NOOP"), [200]);
        assert_eq!(talk.say("PWD"), [257]);
    }
    assert_eq!(talk.left(), Some(talk.config.limits.idle_timeout));
}

#[test]
fn r05_a_transfer_of_hours_is_not_idle_and_leaves_a_session_behind() {
    let mut talk = Talk::logged_in();
    assert!(talk.say("EPSV").is_empty());
    assert_eq!(
        talk.hear(Input::Listening(Some("127.0.0.1:5000".parse().unwrap()))),
        [229]
    );
    assert_eq!(talk.say("RETR f"), [150]);
    let Some(Action::Transfer(transfer)) = talk.out.pop() else {
        panic!("no transfer: {:?}", talk.out)
    };
    assert_eq!(talk.left(), None, "the clock stands still");
    talk.pass(3 * HOUR);
    let ended = Ended {
        job: transfer.job,
        outcome: Outcome::Complete,
        bytes: 7,
    };
    assert_eq!(talk.hear(Input::TransferEnded(ended)), [226]);
    assert_eq!(talk.left(), Some(talk.config.limits.idle_timeout));
}

#[test]
fn r05_a_login_has_its_time_from_the_connection_or_the_logout_on() {
    let mut talk = Talk::new();
    let login = talk.config.limits.login_timeout;
    talk.pass(SECOND);
    talk.say("USER anonymous");
    talk.say("NOOP");
    talk.say("USER again");
    assert_eq!(talk.left(), Some(login - SECOND), "a stranger gets no more");
    talk.say("USER anonymous");
    talk.say("PASS x");
    for again in ["REIN", "USER somebody"] {
        talk.pass(5 * MINUTE);
        talk.say(again);
        assert_eq!(talk.left(), Some(login), "after {again}");
        talk.say("USER anonymous");
        assert_eq!(talk.say("PASS x"), [230]);
    }
}

#[test]
fn large_partials_that_go_with_their_directory_are_closed_elsewhere() {
    let mut talk = Talk::logged_in();
    let dir = talk.dir.path().join("d");
    std::fs::create_dir(&dir).unwrap();
    for (name, bytes) in [("one", LARGE_BYTES), ("two", LARGE_BYTES), ("small", 1)] {
        let file = std::fs::File::create(dir.join(format!(".haul-{name}"))).unwrap();
        file.set_len(bytes).unwrap();
    }
    assert_eq!(talk.say("RMD d"), [250]);
    let disposes = |action: &&Action| matches!(action, Action::Run(Task::Dispose(_)));
    assert_eq!(talk.out.iter().filter(disposes).count(), 2);
    assert!(!dir.exists());
}
