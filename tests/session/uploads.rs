//! Uploads of several sessions to the same few names of one home with a quota, in random steps:
//! every verb, interrupted at any byte or not at all, continued, replaced, appended to, committed
//! late or not at all.
//!
//! A shadow model knows what each name must hold, and what may be kept of each upload that broke off.
//! Both are compared with the directory after every step. `HAUL_SEED=n cargo test --test session
//! uploads -- --nocapture` replays a failure and shows each step.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use haul::config::{Config, Limits};
use haul::session::{Input, Job, Outcome, Via};
use haul::storage::ledger::Count;
use haul::storage::partials::{Found, Owner, Place};
use haul::storage::path::VirtualPath;
use haul::storage::quota::Amount;
use haul::storage::root::Root;
use rustix::io::Errno;
use tempfile::TempDir;

use crate::shell::{Question, Shell};
use crate::simulation::disk::staged;
use crate::simulation::quick_dir;
use crate::simulation::random::Random;

const SEEDS: u64 = 400;
const STEPS: usize = 250;
const SESSIONS: usize = 3;
const NAMES: [&str; 3] = ["/a", "/b", "/d/a"];
const QUOTA: Amount = Amount {
    bytes: 9000,
    files: 20,
};

/// What a reply is to.
#[derive(Debug)]
enum Said {
    Other,
    Remove(&'static str),
    Upload(Attempt),
}

/// One upload, from its line to its last reply.
#[derive(Debug)]
struct Attempt {
    name: &'static str,
    verb: &'static str,
    restart: usize,
    /// What may stand before its bytes: what was there at any moment until they began to come.
    bases: Vec<Vec<u8>>,
    content: Vec<u8>,
    /// What of it has been sent.
    sent: usize,
    /// Where it breaks off.
    cut: Option<usize>,
    began: bool,
}

impl Attempt {
    fn may_be(&self, length: usize) -> impl Iterator<Item = Vec<u8>> {
        self.bases
            .iter()
            .map(move |base| [base, &self.content[..length]].concat())
    }
}

struct Peer {
    shell: Shell,
    said: VecDeque<Said>,
}

struct Simulation {
    random: Random,
    dir: TempDir,
    home: Arc<Root>,
    config: Config,
    peers: Vec<Peer>,
    published: BTreeMap<&'static str, Option<Vec<u8>>>,
    /// All that was ever sent to a name, behind what it may have continued.
    tried: BTreeMap<&'static str, Vec<Vec<u8>>>,
    contents: u8,
    shows: bool,
    met: Met,
}

/// How often what happened, over all seeds.
type Met = BTreeMap<String, u64>;

#[test]
fn uploads_of_several_sessions_to_one_name_are_whole_or_not_there() {
    if let Ok(seed) = std::env::var("HAUL_SEED") {
        let mut simulation = Simulation::new(seed.parse().unwrap(), true);
        return simulation.run();
    }
    let mut met = Met::new();
    for seed in 0..SEEDS {
        let run = || {
            let mut simulation = Simulation::new(seed, false);
            simulation.run();
            simulation.met
        };
        let Ok(found) = catch_unwind(AssertUnwindSafe(run)) else {
            panic!("HAUL_SEED={seed} replays this");
        };
        for (what, times) in found {
            *met.entry(what).or_default() += times;
        }
    }
    println!("{met:?}");
    for what in [
        "STOR 226",
        "STOR 426",
        "STOR 451",
        "STOR 552",
        "STOR 554",
        "STOR continued",
        "APPE 226",
        "APPE 550",
        "APPE continued",
        "UPLOAD 226",
        "UPLOAD 450",
        "UPLOAD 554",
        "UPLOAD 552",
        "UPLOAD continued",
        "replaced",
        "removed",
        "at once",
        "closed",
    ] {
        let times = met.get(what).copied();
        assert!(times.unwrap_or(0) >= 5, "{what}: {times:?}");
    }
}

impl Simulation {
    fn new(seed: u64, shows: bool) -> Simulation {
        let dir = quick_dir();
        fs::create_dir(dir.path().join("d")).unwrap();
        let config = Config {
            limits: Limits {
                commits_per_session_max: 4,
                ..Limits::default()
            },
            ..Config::default()
        };
        let home = Arc::new(Root::open(dir.path()).unwrap());
        for uncounted in home.set_quotas([(VirtualPath::root(), QUOTA)]) {
            let mut count = Count::begin(uncounted, home.clone()).unwrap();
            while count.step().unwrap() {}
            count.finish();
        }
        let mut simulation = Simulation {
            random: Random::new(seed),
            dir,
            home,
            config,
            peers: Vec::new(),
            published: NAMES.map(|name| (name, None)).into(),
            tried: BTreeMap::new(),
            contents: 0,
            shows,
            met: Met::new(),
        };
        for _ in 0..SESSIONS {
            let peer = simulation.peer();
            simulation.peers.push(peer);
        }
        simulation
    }

    fn peer(&self) -> Peer {
        let (home, config) = (self.home.clone(), self.config.clone());
        let mut shell = Shell::sharing(home, config, "127.0.0.1:50000");
        shell.arrive(b"USER anonymous\r\nPASS x\r\n");
        shell.settle();
        shell.replies.clear();
        Peer {
            shell,
            said: VecDeque::new(),
        }
    }

    fn met(&mut self, what: impl Into<String>) {
        *self.met.entry(what.into()).or_default() += 1;
    }

    fn show(&self, what: impl FnOnce() -> String) {
        if self.shows {
            println!("{}", what());
        }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            let n = self.random.index(SESSIONS);
            self.step(n);
            self.check();
        }
        for n in 0..SESSIONS {
            self.finish(n);
            self.check();
        }
        self.peers.clear();
        let left = staged(self.dir.path());
        assert!(left.is_empty(), "staged files are left: {left:?}");
        self.check_quota();
    }

    fn step(&mut self, n: usize) {
        self.note_bases();
        match self.random.below(10) {
            0..2 => self.say(n),
            2..4 => self.begins_or_leaves_all(n, |it| {
                it.peers[n].shell.take_command();
            }),
            4..8 => self.go_on(n),
            8 => self.begins_or_leaves_all(n, |it| it.answer(n)),
            _ => self.commit(n),
        }
        self.hear(n);
    }

    /// Does what may run a command. If that is refused, what there was of uploads is as it was.
    fn begins_or_leaves_all(&mut self, n: usize, run: impl FnOnce(&mut Simulation)) {
        let partials = |it: &Simulation| NAMES.map(|name| it.partial(name));
        let before = partials(self);
        run(self);
        let Peer { shell, said } = &self.peers[n];
        let moving = shell.moving.as_ref().map(|it| &it.job);
        let has_begun = matches!(moving, Some(Job::Receive(_)));
        let removes = said.iter().any(|it| matches!(it, Said::Remove(_)));
        if !has_begun && !removes {
            assert!(partials(self) == before, "a refusal changed a partial");
        }
    }

    /// What is there now is what an upload that has not begun may keep.
    fn note_bases(&mut self) {
        let now: BTreeMap<&str, _> = NAMES.map(|name| (name, self.partial(name))).into();
        for peer in &mut self.peers {
            for said in &mut peer.said {
                let Said::Upload(attempt) = said else {
                    continue;
                };
                if attempt.began {
                    continue;
                }
                let published = self.published[attempt.name].as_ref();
                let upload = attempt.verb == "UPLOAD";
                let kept = match (attempt.verb, attempt.restart) {
                    ("APPE", _) => vec![
                        Some(published.cloned().unwrap_or_default()),
                        now[attempt.name].clone(),
                    ],
                    (_, 0) => vec![Some(Vec::new())],
                    (_, at) => [now[attempt.name].as_ref(), published.filter(|_| !upload)]
                        .map(|it| it.and_then(|it| it.get(..at)).map(<[u8]>::to_vec))
                        .into(),
                };
                for base in kept.into_iter().flatten() {
                    if !attempt.bases.contains(&base) {
                        attempt.bases.push(base);
                    }
                }
            }
        }
    }

    fn content(&mut self) -> Vec<u8> {
        self.contents = self.contents.wrapping_add(1);
        let length = match self.random.below(4) {
            0 => self.random.index(4),
            _ => self.random.index(4000),
        };
        // No two begin alike.
        let tag = [self.contents, b'\r', b'\n'];
        tag.iter().copied().cycle().take(length).collect()
    }

    /// Another command, where it need not wait for what was said before.
    fn say(&mut self, n: usize) {
        let is_upload = |said: &Said| matches!(said, Said::Upload(it) if it.verb == "UPLOAD" && it.sent == it.content.len());
        let peer = &self.peers[n];
        let (quiet, series) = (peer.said.is_empty(), peer.said.iter().all(is_upload));
        let name = *self.random.pick(&NAMES);
        let partial = self.partial(name).map_or(0, |it| it.len());
        let what = self.random.below(12);
        let goes_on_a_series = series && what < 4 && self.peers[n].shell.unread.is_empty();
        if !(quiet || goes_on_a_series) {
            return;
        }
        let content = self.content();
        let cut = self
            .random
            .chance(45)
            .then(|| self.random.index(content.len() + 1));
        let restart = match self.random.below(5) {
            _ if !quiet => 0,
            0 => self.random.index(3000),
            1..4 => partial,
            _ => 0,
        };
        let mut lines = String::new();
        let mut said = Vec::new();
        let attempt = |verb: &'static str, sent: usize| {
            Said::Upload(Attempt {
                name,
                verb,
                restart: if verb == "APPE" { 0 } else { restart },
                bases: Vec::new(),
                content: content.clone(),
                sent,
                cut: if sent == content.len() && sent > 0 {
                    None
                } else {
                    cut
                },
                began: false,
            })
        };
        let mut body: &[u8] = b"";
        match what {
            0..4 => {
                if restart > 0 {
                    lines.push_str(&format!("REST {restart}\r\n"));
                    said.push(Said::Other);
                }
                lines.push_str(&format!("UPLOAD {}+ {name}\r\n", content.len()));
                body = &content;
                said.push(attempt("UPLOAD", content.len()));
            }
            4..6 => {
                if restart > 0 {
                    lines.push_str(&format!("REST {restart}\r\n"));
                    said.push(Said::Other);
                }
                lines.push_str(&format!("UPLOAD {} {name}\r\n", content.len()));
                said.push(attempt("UPLOAD", 0));
            }
            6..9 => {
                lines.push_str("EPSV\r\n");
                said.push(Said::Other);
                if restart > 0 {
                    lines.push_str(&format!("REST {restart}\r\n"));
                    said.push(Said::Other);
                }
                lines.push_str(&format!("STOR {name}\r\n"));
                said.push(attempt("STOR", 0));
            }
            9 => {
                lines.push_str(&format!("EPSV\r\nAPPE {name}\r\n"));
                said.extend([Said::Other, attempt("APPE", 0)]);
            }
            10 => {
                lines.push_str(&format!("PARTIAL {name}\r\nSIZE {name}\r\n"));
                said.extend([Said::Other, Said::Other]);
            }
            _ => {
                lines.push_str(&format!("DELE {name}\r\n"));
                said.push(Said::Remove(name));
            }
        }
        let bytes = [lines.as_bytes(), body].concat();
        self.show(|| {
            format!(
                "{n} says: \"{}\" and {} bytes",
                lines.escape_debug(),
                body.len()
            )
        });
        let peer = &mut self.peers[n];
        peer.shell.arrive(&bytes);
        peer.said.extend(said);
    }

    /// Some of the body comes and is written; or it breaks off.
    fn go_on(&mut self, n: usize) {
        let most = 1 + self.random.index(1500);
        let ends = self.random.below(3);
        let peer = &mut self.peers[n];
        let Some(moving) = &peer.shell.moving else {
            return;
        };
        let (in_band, discards) = (
            moving.via == Via::Control,
            matches!(moving.job, Job::Discard(_)),
        );
        let attempt = peer.said.iter_mut().find_map(|said| match said {
            Said::Upload(it) if !it.began || it.sent < it.content.len() || it.cut.is_some() => {
                Some(it)
            }
            _ => None,
        });
        let Some(attempt) = attempt else {
            peer.shell.pump(most);
            return;
        };
        attempt.began |= !discards;
        let end = match attempt.cut {
            Some(cut) if !discards => cut.max(attempt.sent),
            _ => attempt.content.len(),
        };
        let chunk = attempt.content[attempt.sent..end.min(attempt.sent + most)].to_vec();
        attempt.sent += chunk.len();
        let (breaks_off, whole) = (
            attempt.cut.is_some() && attempt.sent == end && !discards,
            attempt.sent == attempt.content.len(),
        );
        if in_band {
            peer.shell.arrive(&chunk);
        } else {
            let data = peer.shell.data();
            data.incoming.extend_from_slice(&chunk);
            data.finished = whole && !breaks_off;
        }
        if !breaks_off {
            peer.shell.pump(most);
            return;
        }
        attempt.cut = None;
        while peer.shell.moving.is_some() && peer.shell.pump(usize::MAX) {}
        let outcome = match ends {
            0 => Outcome::Stalled,
            1 => Outcome::Broken,
            _ => Outcome::Failed(Errno::IO.into()),
        };
        self.show(|| format!("{n} breaks off: {outcome:?}"));
        self.peers[n].shell.end_transfer(outcome);
    }

    fn answer(&mut self, n: usize) {
        let fails = self.random.chance(8);
        let free = self.is_free(n);
        let shell = &mut self.peers[n].shell;
        match (&shell.question, fails) {
            (None, _) => {}
            (Some(Question::Reach), _) => {
                shell.question = None;
                let more_behind = !shell.unread.is_empty();
                shell.tell(Input::Reached { free, more_behind });
            }
            (Some(_), true) => shell.answer_failure(Errno::IO.into()),
            (Some(_), false) => shell.answer(),
        }
    }

    /// Whether nobody else writes what this session asks about.
    fn is_free(&self, n: usize) -> bool {
        let asked = self.peers[n].said.iter().find_map(|said| match said {
            Said::Upload(it) => Some(it.name),
            Said::Remove(name) => Some(*name),
            Said::Other => None,
        });
        let writes = |peer: &Peer| {
            let moving = match peer.shell.moving.as_ref().map(|it| &it.job) {
                Some(Job::Receive(receive)) => Some(receive.upload.path()),
                _ => None,
            };
            let commits = peer.shell.commits.iter().map(|(upload, _)| upload.path());
            commits
                .chain(moving)
                .any(|path| asked.is_none_or(|it| path.as_bytes() == it.as_bytes()))
        };
        let others = self.peers.iter().enumerate().filter(|(at, _)| *at != n);
        !others.into_iter().any(|(_, peer)| writes(peer))
    }

    fn commit(&mut self, n: usize) {
        let fails = self.random.chance(15);
        let at_once = self
            .peers
            .iter()
            .filter(|it| !it.shell.commits.is_empty())
            .count()
            > 1;
        if at_once {
            self.met("at once");
        }
        let shell = &mut self.peers[n].shell;
        match fails {
            true => shell.fail_commit(Errno::IO.into()),
            false => {
                shell.commit();
            }
        }
    }

    fn hear(&mut self, n: usize) {
        for reply in std::mem::take(&mut self.peers[n].shell.replies) {
            self.show(|| format!("{n} hears: {reply:?}"));
            if reply.is_preliminary() {
                continue;
            }
            match self.peers[n].said.pop_front() {
                Some(Said::Upload(attempt)) => self.ended(attempt, reply.code),
                Some(Said::Remove(name)) if reply.code == 250 => {
                    self.published.insert(name, None);
                    self.met("removed");
                }
                Some(_) => {}
                None => panic!("nobody asked: {reply:?}"),
            }
        }
        if self.peers[n].shell.closed {
            for said in std::mem::take(&mut self.peers[n].said) {
                if let Said::Upload(attempt) = said {
                    self.tried
                        .entry(attempt.name)
                        .or_default()
                        .extend(attempt.may_be(attempt.sent));
                }
            }
            self.peers[n] = self.peer();
            self.met("closed");
        }
    }

    fn ended(&mut self, attempt: Attempt, code: u16) {
        let Attempt { name, verb, .. } = attempt;
        self.met(format!("{verb} {code}"));
        let tried = self.tried.entry(name).or_default();
        tried.extend(attempt.may_be(attempt.sent));
        if code != 226 {
            return;
        }
        let found = fs::read(self.dir.path().join(&name[1..])).expect("it was stored");
        let length = attempt.content.len();
        let is_right = attempt.may_be(length).any(|it| it == found);
        assert!(is_right, "{name} is a mixture of {} bytes", found.len());
        if found.len() > length {
            self.met(format!("{verb} continued"));
        }
        if self.published.insert(name, Some(found)).flatten().is_some() {
            self.met("replaced");
        }
    }

    /// Everything is said, answered and committed.
    fn finish(&mut self, n: usize) {
        for _ in 0..10_000 {
            if self.peers[n].said.is_empty() {
                return;
            }
            self.note_bases();
            self.peers[n].shell.take_command();
            self.go_on(n);
            self.answer(n);
            self.commit(n);
            self.hear(n);
        }
        panic!("never answered: {:?}", self.peers[n].said);
    }

    fn partial(&self, name: &str) -> Option<Vec<u8>> {
        let owner = Owner::stranger([127, 0, 0, 1].into());
        let path = VirtualPath::root().join(name.as_bytes());
        let found = Place::of(&self.home, &path, &owner).and_then(Place::find);
        let Ok(Found::Retained(retained)) = found else {
            return None;
        };
        let mut content = vec![0; usize::try_from(retained.bytes()).unwrap()];
        retained
            .into_file()
            .unwrap()
            .read_exact_at(&mut content, 0)
            .unwrap();
        Some(content)
    }

    fn check(&self) {
        let mut there = 0;
        for (name, expected) in &self.published {
            let found = fs::read(self.dir.path().join(&name[1..])).ok();
            let length = |it: &Option<Vec<u8>>| it.as_ref().map(Vec::len);
            assert!(
                found == *expected,
                "{name} holds {:?} instead of {:?}",
                length(&found),
                length(expected)
            );
            there += found.map_or(0, |it| it.len() as u64);
            let Some(partial) = self.partial(name) else {
                continue;
            };
            there += partial.len() as u64;
            let under_way =
                self.peers
                    .iter()
                    .flat_map(|it| &it.said)
                    .filter_map(|said| match said {
                        Said::Upload(it) if it.name == *name => Some(it),
                        _ => None,
                    });
            let mut sent = under_way.flat_map(|it| it.may_be(it.sent));
            let tried = self.tried.get(name).into_iter().flatten();
            let was_sent = tried.into_iter().any(|it| it.starts_with(&partial))
                || sent.any(|it| it.starts_with(&partial));
            assert!(
                was_sent,
                "{name}: {} bytes that were never sent like that are kept",
                partial.len()
            );
        }
        assert!(there <= QUOTA.bytes, "{there} bytes");
        let used = self.home.usage().and_then(|it| it.used).expect("counted");
        assert!(
            used.bytes <= QUOTA.bytes && used.bytes >= there,
            "{used:?} of {there}"
        );
    }

    /// Nothing is under way, so what is counted is what is there.
    fn check_quota(&self) {
        let used = self.home.usage().and_then(|it| it.used).expect("counted");
        let published = self.published.values().flatten().map(Vec::len);
        let kept = NAMES
            .iter()
            .filter_map(|name| self.partial(name))
            .map(|it| it.len());
        assert_eq!(used.bytes, published.chain(kept).sum::<usize>() as u64);
    }
}
