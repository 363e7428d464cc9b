//! Random sessions: commands and garbage in random pieces, bodies that look like commands, data
//! connections that come late, break or never come, answers that are late or bad news, a clock that
//! jumps, and ends at any point.
//!
//! A model of the client knows what it sent and what it may be answered; a model of the directory
//! holds what every file must contain. Both are looked at after every step. A seed replays a
//! failure: `HAUL_SEED=n cargo test --test session simulation -- --nocapture` shows each step.

mod client;
pub mod disk;
pub mod random;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use haul::accounts::Anonymous;
use haul::config::{Config, Limits};
use haul::session::{Input, Outcome, Task, Via};
use rustix::io::Errno;

use crate::shell::{Data, Question, Shell};
use client::Client;
use disk::Disk;
use random::Random;

const SEEDS: u64 = 4000;
const STEPS: usize = 250;

/// Small, so that it is met: lines held behind a transfer.
const QUEUED_BYTES_MAX: usize = 300;
/// And uploads that are being committed.
const COMMITS_MAX: usize = 4;

#[test]
fn random_sessions_keep_their_promises() {
    if let Ok(seed) = std::env::var("HAUL_SEED") {
        return Simulation::new(seed.parse().unwrap(), true).run();
    }
    let mut met = client::Met::default();
    for seed in 0..SEEDS {
        let run = || {
            let mut simulation = Simulation::new(seed, false);
            simulation.run();
            simulation.client.met
        };
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(found) => met.add(found),
            Err(_) => panic!("HAUL_SEED={seed} replays this"),
        }
    }
    met.check();
}

/// What breaks off is synced, which is quickest where there is no disk; but interrupted uploads need
/// a file system with attributes.
pub fn quick_dir() -> tempfile::TempDir {
    let flags = rustix::fs::XattrFlags::empty();
    let has_attributes = |dir: &tempfile::TempDir| {
        rustix::fs::setxattr(dir.path(), "user.haul.test", b"", flags).is_ok()
    };
    let in_memory = tempfile::tempdir_in("/dev/shm").ok();
    in_memory
        .filter(has_attributes)
        .unwrap_or_else(|| tempfile::tempdir().unwrap())
}

struct Simulation {
    random: Random,
    dir: tempfile::TempDir,
    shell: Shell,
    client: Client,
    shows: bool,
    heard: bool,
    steps: u64,
}

impl Simulation {
    fn new(seed: u64, shows: bool) -> Simulation {
        let mut random = Random::new(seed);
        let dir = quick_dir();
        let config = Config {
            anonymous: match random.below(20) {
                0 => Anonymous::None,
                1 => Anonymous::Read,
                _ => Anonymous::Write,
            },
            limits: Limits {
                queued_bytes_max: QUEUED_BYTES_MAX,
                commits_per_session_max: COMMITS_MAX,
                wrong_password_delay: Duration::ZERO,
                ..Limits::default()
            },
            ..Config::default()
        };
        let disk = Disk::furnish(dir.path());
        let mut shell = Shell::new(dir.path(), config);
        shell.replies.clear();
        Simulation {
            random,
            dir,
            client: Client::new(disk, shell.home.clone()),
            shell,
            shows,
            heard: false,
            steps: 0,
        }
    }

    fn run(&mut self) {
        if self.random.chance(90) {
            self.client.log_in();
        }
        for _ in 0..STEPS {
            self.step();
            self.check();
            if self.shell.closed {
                break;
            }
        }
        self.drain();
        self.client.check_stream(&self.shell);
        self.client.disk.check(self.dir.path());
        // What was staged goes with the session.
        let Simulation { shell, .. } = self;
        shell.moving = None;
        shell.question = None;
        // These would still be published, and nobody would hear of it.
        shell.commits.clear();
        let staged = disk::staged(self.dir.path());
        assert!(staged.is_empty(), "staged files are left: {staged:?}");
    }

    fn show(&self, what: impl FnOnce() -> String) {
        if self.shows {
            println!("{}", what());
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..25 => {
                if let Some(said) = self.client.say_something(&mut self.random) {
                    self.show(|| format!("client: \"{}\"", said.escape_ascii()));
                }
            }
            25..55 => self.deliver(),
            55..70 => self.take_commands(),
            70..76 => self.answer(),
            76..80 => self.commit(),
            80..96 => self.transfer(),
            96..99 => self.jump(),
            _ => self.end_somehow(),
        }
    }

    fn deliver(&mut self) {
        let waiting = self.client.outbox.len();
        let most = match self.random.below(4) {
            0 => waiting,
            1 => 1,
            _ => self.random.index(waiting + 1),
        };
        let piece = self.client.send(most);
        self.shell.arrive(&piece);
        self.take_commands();
    }

    fn take_commands(&mut self) {
        for _ in 0..self.random.below(6) {
            let wanted = self.shell.session.wants_input(&self.shell.config);
            let behind_commits = !self.shell.commits.is_empty();
            let Some(taken) = self.shell.take_command() else {
                break;
            };
            assert!(wanted, "a command was taken by a session that wants none");
            if behind_commits {
                assert!(!self.shell.commits_full, "it should wait for its own");
                self.client.overlaps(&taken);
            }
            self.show(|| format!("taken: \"{}\"", taken.line.escape_ascii()));
            self.client.taken(&taken, &self.shell);
            assert!(self.client.queued_bytes() <= QUEUED_BYTES_MAX);
            self.hear();
        }
    }

    fn hear(&mut self) {
        for reply in std::mem::take(&mut self.shell.replies) {
            self.show(|| format!("reply: {reply:?}"));
            self.client.hear(&reply, &self.shell);
            self.heard = true;
        }
        if let Some(ended) = self.shell.ended_data.take() {
            self.client.last_download = ended.outgoing;
        }
    }

    fn commit(&mut self) {
        self.shell.commits_full = self.random.chance(20);
        if self.random.chance(85) {
            self.show(|| "commit".to_string());
            self.shell.commit();
        } else {
            let errno = *self.random.pick(&[Errno::IO, Errno::NOSPC, Errno::DQUOT]);
            self.show(|| format!("a commit fails: {errno}"));
            self.shell.fail_commit(errno.into());
        }
        self.told();
    }

    fn answer(&mut self) {
        if self.shell.question.is_none() {
            return;
        }
        if self.random.chance(85) {
            self.show(|| "answer".to_string());
            self.shell.answer();
        } else {
            let errno = *self.random.pick(&[Errno::IO, Errno::NOSPC, Errno::NOENT]);
            self.show(|| format!("bad news: {errno}"));
            self.shell.answer_failure(errno.into());
        }
        self.told();
    }

    /// The end of a data connection is seen before the reply that speaks of it.
    fn told(&mut self) {
        if let Some(ended) = self.shell.ended_data.take() {
            self.client.last_download = ended.outgoing;
        }
        self.hear();
    }

    fn transfer(&mut self) {
        let Some(moving) = &self.shell.moving else {
            return;
        };
        if moving.via != Via::Control {
            self.use_data_connection();
        }
        if self.random.chance(4) {
            let outcome = match self.random.below(5) {
                0 if self.in_band() => Outcome::Broken,
                0 => Outcome::NoConnection,
                1 => Outcome::Stalled,
                2 => Outcome::Broken,
                3 => Outcome::Failed(Errno::NOSPC.into()),
                _ => Outcome::Failed(Errno::IO.into()),
            };
            self.show(|| format!("the transfer ends: {outcome:?}"));
            self.shell.end_transfer(outcome);
        } else {
            let most = match self.random.below(3) {
                0 => 1 + self.random.index(20),
                _ => 1 + self.random.index(5000),
            };
            self.show(|| format!("up to {most} bytes move"));
            self.shell.pump(most);
        }
        self.told();
    }

    fn in_band(&self) -> bool {
        let moving = self.shell.moving.as_ref();
        moving.is_some_and(|moving| moving.via == Via::Control)
    }

    fn use_data_connection(&mut self) {
        let random = &mut self.random;
        match &mut self.shell.data {
            None if random.chance(60) => {
                let content = self.client.new_content(random);
                self.shell.data = Some(Data {
                    incoming: content,
                    reads: random.chance(80),
                    ..Data::default()
                });
            }
            None => {}
            Some(data) => match random.below(10) {
                0 => data.reset = true,
                1..5 => data.finished = true,
                5..9 => data.reads = true,
                _ => {}
            },
        }
    }

    /// The clock goes on, or back; now and then a deadline that has passed is told late. The wall
    /// clock jumps by a day, which no deadline notices.
    fn jump(&mut self) {
        let before = self.shell.session.deadline(&self.shell.config);
        self.shell.wall_s += *self.random.pick(&[-86_400, 0, 86_400]);
        assert_eq!(self.shell.session.deadline(&self.shell.config), before);
        let seconds = *self.random.pick(&[1, 29, 31, 600, 901, 4000]);
        let time = Duration::from_secs(seconds);
        if self.random.chance(20) {
            self.shell.now -= time;
        } else {
            self.shell.now += time;
        }
        self.show(|| "the clock jumps".to_string());
        let deadline = self.shell.session.deadline(&self.shell.config);
        if deadline.is_some_and(|at| at <= self.shell.now) && self.random.chance(70) {
            self.shell.tell(Input::TimedOut);
            assert!(self.shell.closed && self.shell.commits.is_empty());
            self.hear();
        }
    }

    fn end_somehow(&mut self) {
        match self.random.below(4) {
            0 => {
                self.show(|| "the server stops".to_string());
                self.shell.tell(Input::ShuttingDown);
            }
            1 => {
                self.show(|| "the client sends no more".to_string());
                self.client.finish();
                self.shell.finish();
            }
            _ => {}
        }
        self.hear();
    }

    /// Everything arrives and everything is answered.
    fn drain(&mut self) {
        for _ in 0..10_000 {
            if self.shell.closed {
                break;
            }
            let piece = self.client.send(usize::MAX);
            self.shell.arrive(&piece);
            self.take_commands();
            self.shell.answer();
            self.told();
            self.shell.commit();
            self.told();
            if self.shell.moving.is_some() {
                if !self.in_band() {
                    self.use_data_connection();
                }
                self.shell.pump(usize::MAX);
                self.told();
                if self.client.is_stuck(&self.shell) {
                    self.shell.end_transfer(Outcome::Stalled);
                    self.told();
                }
            }
            self.check();
            let still = self.shell.unread.is_empty() && self.shell.moving.is_none();
            if still && self.client.is_quiet(&self.shell) {
                break;
            }
        }
        if !self.shell.closed {
            self.client.check_all_answered();
        }
    }

    fn check(&mut self) {
        // Only what is answered can have changed a file; what changes one without a word is found a
        // little later.
        self.steps += 1;
        if matches!(self.shell.question, Some(Question::Run(Task::SyncNames(_)))) {
            // Renamed, and not told yet.
        } else if std::mem::take(&mut self.heard) || self.steps.is_multiple_of(32) {
            self.client.disk.check(self.dir.path());
            if !self.shell.closed {
                self.client.check_partials();
            }
        }
        let shell = &self.shell;
        assert!(shell.commits.len() <= COMMITS_MAX);
        if shell.closed {
            assert!(shell.session.is_closed());
            assert_eq!(shell.session.deadline(&shell.config), None);
            return;
        }
        if shell.moving.is_none() && shell.question.is_none() && shell.commits.is_empty() {
            self.client.check_nothing_is_owed();
        } else if shell.session.is_logged_in() {
            assert_eq!(shell.session.deadline(&shell.config), None);
        }
    }
}
