//! The client's side: what it says, what it must hear, and what follows for the files.

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use haul::proto::line::{strip_telnet, verb_and_argument};
use haul::proto::reply::{Parser, Part, Reply};
use haul::session::Via;
use haul::storage::partials::{Found, Owner, Place};
use haul::storage::path::VirtualPath;
use haul::storage::root::Root;

use super::disk::{CANARY, Disk};
use super::random::Random;
use crate::shell::{Moving, Shell, Taken};

const FILES: [&str; 6] = ["/a", "/b", "/c", "/d/a", "/d/b", "/absent/x"];
const DIRS: [&str; 3] = ["/d", "/e", "/d/e"];

/// PROTOCOL.md part 3: REST is kept across these, and it is itself one.
const KEEP_REST: [&str; 11] = [
    "TYPE", "MODE", "STRU", "PASV", "EPSV", "PORT", "EPRT", "ALLO", "NOOP", "REST", "P@SW",
];

/// These are never refused.
const ALWAYS: [&str; 7] = ["NOOP", "ABOR", "SYST", "FEAT", "HELP", "QUIT", "REIN"];

/// What the success of a command means.
#[derive(Debug, Clone)]
enum Effect {
    Nothing,
    LogIn,
    Enter(String),
    Type(bool),
    Rest(usize),
    RenameFrom(String),
    Rename(String, String),
    /// The path, and whether there is a partial of it.
    Remove(String, bool),
    MakeDir(String),
    RemoveDir(String),
    /// The path, what stays of the old file, and what comes in band.
    Store(String, Vec<u8>, Option<Vec<u8>>),
    StoreUnique,
    /// It must not succeed.
    Never,
    /// What must have been sent.
    Fetch(Vec<u8>),
}

/// A command that has been taken and not finally answered.
#[derive(Debug)]
struct Owed {
    verb: String,
    effect: Effect,
    preliminary: bool,
    /// An UPLOAD whose body waits for the 150.
    waits: bool,
    /// Where its bytes begin in what went out.
    begin: usize,
    ascii: bool,
}

/// Uploads that were taken while others were being committed are counted like a verb.
const OVERLAPPING: &str = "an upload behind a commit";

/// How often each verb was answered with which first digit, over all seeds.
#[derive(Debug, Default)]
pub struct Met(BTreeMap<(String, u16), u64>);

impl Met {
    pub fn add(&mut self, other: Met) {
        for (key, times) in other.0 {
            *self.0.entry(key).or_default() += times;
        }
    }

    /// A simulation that never gets anywhere proves nothing.
    pub fn check(&self) {
        for (verb, digit) in [
            ("STOR", 2),
            ("STOR", 4),
            ("STOR", 5),
            ("APPE", 2),
            ("STOU", 2),
            ("RETR", 2),
            ("RETR", 4),
            ("UPLOAD", 2),
            ("UPLOAD", 4),
            ("UPLOAD", 5),
            ("DOWNLOAD", 2),
            ("DOWNLOAD", 5),
            ("LIST", 2),
            ("MLSD", 4),
            ("TREE", 2),
            ("RNTO", 2),
            ("DELE", 2),
            ("HASH", 2),
            ("HASH", 4),
            ("going on", 2),
            ("PARTIAL", 2),
            ("PARTIAL", 4),
            ("PARTIAL", 5),
            ("ABOR", 2),
            ("EPSV", 4),
            ("XYZZY", 5),
            ("QUIT", 2),
            (OVERLAPPING, 2),
        ] {
            let times = self.0.get(&(verb.to_string(), digit)).copied();
            assert!(times.unwrap_or(0) >= 10, "{verb} {digit}xx: {times:?}");
        }
    }
}

pub struct Client {
    /// What is still to be sent.
    pub outbox: VecDeque<u8>,
    pub disk: Disk,
    home: Arc<Root>,
    /// What would have been stored by the uploads of each path that failed since the last that did
    /// not.
    broken: BTreeMap<String, Vec<Vec<u8>>>,
    /// What the last data connection carried to the client.
    pub last_download: Vec<u8>,
    pub met: Met,
    /// Lines that were sent, in order, and have not been taken.
    lines: VecDeque<Vec<u8>>,
    /// Bodies of uploads, in order, until their line is taken.
    bodies: VecDeque<Vec<u8>>,
    /// A body that waits for its 150.
    held_back: Option<Vec<u8>>,
    /// Lines that the session holds behind a transfer.
    queue: VecDeque<Vec<u8>>,
    owed: VecDeque<Owed>,
    finals: usize,
    finished: bool,
    /// Its directory, without a slash at the end.
    dir: String,
    ascii: bool,
    restart: usize,
    rename_from: Option<String>,
    /// What goes over the data connection of the running upload.
    data: Vec<u8>,
    contents: u64,
}

impl Client {
    pub fn new(disk: Disk, home: Arc<Root>) -> Client {
        Client {
            outbox: VecDeque::new(),
            disk,
            home,
            broken: BTreeMap::new(),
            last_download: Vec::new(),
            met: Met::default(),
            lines: VecDeque::new(),
            bodies: VecDeque::new(),
            held_back: None,
            queue: VecDeque::new(),
            owed: VecDeque::new(),
            // The greeting.
            finals: 1,
            finished: false,
            dir: String::new(),
            ascii: false,
            restart: 0,
            rename_from: None,
            data: Vec::new(),
            contents: 0,
        }
    }

    // What it says -------------------------------------------------------------------------------

    pub fn log_in(&mut self) {
        self.line(b"USER anonymous");
        self.line(b"PASS x");
    }

    fn line(&mut self, line: &[u8]) -> Vec<u8> {
        let whole = [line, b"\r\n"].concat();
        self.outbox.extend(&whole);
        self.lines.push_back(whole.clone());
        whole
    }

    /// Bytes that never came before, and that look like commands.
    fn body(&mut self, random: &mut Random) -> Vec<u8> {
        self.contents += 1;
        let length = match random.below(4) {
            0 => 0,
            1 => random.index(10),
            _ => random.index(3000),
        };
        let text = format!("{} x\nDELE {CANARY}\r\nQUIT\r\n\u{ff}\r", self.contents);
        text.bytes().cycle().take(length).collect()
    }

    /// What it will send over the data connection that it just made.
    pub fn new_content(&mut self, random: &mut Random) -> Vec<u8> {
        self.data = self.body(random);
        self.data.clone()
    }

    /// Puts another command into the outbox, unless it has to wait.
    pub fn say_something(&mut self, random: &mut Random) -> Option<Vec<u8>> {
        if self.finished || self.held_back.is_some() || self.outbox.len() > 4000 {
            return None;
        }
        let file = *random.pick(&FILES);
        let dir = *random.pick(&DIRS);
        let text = match random.below(76) {
            0..8 => return Some(self.upload(random, file)),
            8..12 => format!("DOWNLOAD {file}"),
            12..19 => "EPSV".to_string(),
            19 => "PASV".to_string(),
            20..24 => format!("STOR {file}"),
            24..26 => format!("APPE {file}"),
            26 => "STOU".to_string(),
            27..29 => format!("RETR {file}"),
            29 => "LIST".to_string(),
            30 => format!("MLSD {dir}"),
            31 => format!("NLST {dir}/*"),
            32..35 => "ABOR".to_string(),
            35..37 => "NOOP".to_string(),
            37 => "STAT".to_string(),
            38 => format!("STAT {dir}"),
            39 => "TREE".to_string(),
            40 => format!("REST {}", random.below(30)),
            41 => {
                let partial = self.partial(file).map_or(0, |partial| partial.len());
                format!("REST {}", random.index(partial + 1).max(partial / 2))
            }
            42 => "TYPE A".to_string(),
            43 => "TYPE I".to_string(),
            44 => format!("RNFR {file}"),
            45 => {
                self.line(format!("RNFR {file}").as_bytes());
                format!("RNTO {}", random.pick(&FILES))
            }
            46..48 => format!("RNTO {file}"),
            48 => format!("DELE {file}"),
            49 => format!("MKD {dir}"),
            50 => format!("RMD {dir}"),
            51 => format!("HASH {file}"),
            52 => format!("SIZE {file}"),
            53 => "PORT 127,0,0,1,90,0".to_string(),
            54 => "PWD".to_string(),
            55 => {
                (*random.pick(&["SYST", "FEAT", "HELP", "EPSV 2", "OPTS MLST type;"])).to_string()
            }
            56 => match random.below(10) {
                0 => "QUIT".to_string(),
                1 => "REIN".to_string(),
                2 => "XYZZY".to_string(),
                3 => return Some(self.hostile(random)),
                _ => {
                    self.line(b"USER anonymous");
                    "PASS x".to_string()
                }
            },
            57 => return Some(self.garbage(random)),
            58 => format!("CWD {dir}"),
            59 => format!("PARTIAL {file}"),
            _ => {
                // All that a client says to go on.
                let at = self.partial(file).map_or(0, |partial| partial.len());
                let mut said = self.line(format!("PARTIAL {file}").as_bytes());
                said.extend(self.line(format!("REST {at}").as_bytes()));
                match random.below(2) {
                    0 => said.extend(self.upload(random, file)),
                    _ => {
                        said.extend(self.line(b"EPSV"));
                        said.extend(self.line(format!("STOR {file}").as_bytes()));
                    }
                }
                return Some(said);
            }
        };
        Some(self.line(text.as_bytes()))
    }

    fn upload(&mut self, random: &mut Random, path: &str) -> Vec<u8> {
        let body = self.body(random);
        let immediate = random.chance(70);
        let plus = if immediate { "+" } else { "" };
        let facts = match random.below(8) {
            0 => ";modify=20260131120000;",
            1 => ";owner=x;",
            2 => ";unix.mode=0600",
            3 => &format!(";sha256={};", "0".repeat(64)),
            _ => "",
        };
        let path = match random.below(20) {
            0 => "",
            1 => " /\u{1}",
            2 => " /nul\0",
            3 => " /.haul-x",
            4 => " /d",
            _ => &format!(" {path}"),
        };
        let line = format!("UPLOAD {}{plus}{facts}{path}", body.len());
        let said = self.line(line.as_bytes());
        if immediate {
            self.outbox.extend(&body);
        } else {
            self.held_back = Some(body.clone());
        }
        self.bodies.push_back(body);
        said
    }

    /// One of the lines behind which the session ends.
    fn hostile(&mut self, random: &mut Random) -> Vec<u8> {
        let line = match random.below(5) {
            0 => b"GET / HTTP/1.1".to_vec(),
            1 => b"UPLOAD x+ /a".to_vec(),
            2 => b"UPLOAD 2097152+ /a".to_vec(),
            _ => vec![b'x'; 5000],
        };
        let said = self.line(&line);
        self.line(format!("DELE {CANARY}").as_bytes());
        said
    }

    fn garbage(&mut self, random: &mut Random) -> Vec<u8> {
        let mut line: Vec<u8> = (0..random.below(30))
            .map(|_| match random.below(3) {
                0 => 0xff,
                1 => *random.pick(b"UPLOAD +5\0\r"),
                _ => random.next() as u8,
            })
            .filter(|byte| *byte != b'\n')
            .collect();
        line.insert(0, b'\x1b');
        self.line(&line)
    }

    /// Takes up to `most` bytes out of the outbox.
    pub fn send(&mut self, most: usize) -> Vec<u8> {
        let length = most.min(self.outbox.len());
        self.outbox.drain(..length).collect()
    }

    /// It sends no more, and what it wanted to is lost.
    pub fn finish(&mut self) {
        self.finished = true;
        self.outbox.clear();
        self.held_back = None;
    }

    // What it sees the session take --------------------------------------------------------------

    pub fn queued_bytes(&self) -> usize {
        self.queue.iter().map(Vec::len).sum()
    }

    /// A line is about to be taken while uploads are being committed: only uploads overlap.
    pub fn overlaps(&mut self, taken: &Taken) {
        let clean = strip_telnet(line_of(&taken.line)).into_owned();
        let (verb, argument) = verb_and_argument(&clean);
        let word = argument.unwrap_or_default().split(|byte| *byte == b' ');
        let immediate = word.take(1).any(|word| word.contains(&b'+'));
        assert!(
            verb.eq_ignore_ascii_case(b"UPLOAD") && immediate,
            "taken before an upload was committed: {}",
            taken.line.escape_ascii()
        );
        let key = (OVERLAPPING.to_string(), 2);
        *self.met.0.entry(key).or_default() += 1;
    }

    /// The session took a line; the replies come right behind.
    pub fn taken(&mut self, taken: &Taken, shell: &Shell) {
        if taken.line.is_empty() {
            let line = self.queue.pop_front().expect("nothing was queued");
            return self.begin(&line, false);
        }
        let expected = self.lines.pop_front().expect("a body was read as a line");
        if taken.line != expected {
            assert!(shell.closed && expected.len() > 4096, "{:?}", taken.line);
        }
        let clean = strip_telnet(line_of(&taken.line)).into_owned();
        let (verb, argument) = verb_and_argument(&clean);
        let verb = verb.to_ascii_uppercase();
        let at_once = matches!(&verb[..], b"ABOR" | b"NOOP" | b"STAT") && argument.is_none();
        if !taken.busy || at_once {
            return self.begin(&taken.line, taken.busy);
        }
        assert!(shell.replies.is_empty(), "an answer during a transfer");
        assert_ne!(verb, b"UPLOAD");
        self.queue.push_back(taken.line.clone());
    }

    fn begin(&mut self, line: &[u8], busy: bool) {
        let clean = strip_telnet(line_of(line)).into_owned();
        let (verb, argument) = verb_and_argument(&clean);
        let verb = String::from_utf8_lossy(verb).to_ascii_uppercase();
        let argument = String::from_utf8_lossy(argument.unwrap_or_default()).into_owned();
        let waits = verb == "UPLOAD" && !argument.contains('+');
        let effect = self.effect(&verb, argument);
        if !KEEP_REST.contains(&verb.as_str()) {
            self.restart = 0;
        }
        self.rename_from = None;
        let aborting = self.owed.iter().any(|owed| owed.verb == "ABOR");
        let owed = Owed {
            effect,
            preliminary: false,
            waits,
            begin: 0,
            ascii: self.ascii,
            verb,
        };
        // During a transfer NOOP and STAT are answered before it; ABOR behind it, but a second one
        // at once.
        if busy && (owed.verb != "ABOR" || aborting) {
            self.owed.push_front(owed);
        } else {
            self.owed.push_back(owed);
        }
    }

    fn effect(&mut self, verb: &str, path: String) -> Effect {
        let old = self.disk.files.get(&path).cloned();
        match verb {
            "PASS" => Effect::LogIn,
            "CWD" => Effect::Enter(path),
            "TYPE" => Effect::Type(path == "A"),
            "REST" => Effect::Rest(path.parse().unwrap()),
            "RNFR" => Effect::RenameFrom(path),
            "RNTO" => match self.rename_from.take() {
                Some(from) => Effect::Rename(from, path),
                None => Effect::Nothing,
            },
            "DELE" => {
                let partial = self.partial(&path).is_some();
                Effect::Remove(path, partial)
            }
            "MKD" => Effect::MakeDir(path),
            "RMD" => Effect::RemoveDir(path),
            "STOR" if self.restart == 0 => Effect::Store(path, Vec::new(), None),
            "STOR" => match (old, self.partial(&path)) {
                (old, Some(partial)) if self.may_go_on(&old, &partial) => {
                    let kept = partial[..self.restart].to_vec();
                    Effect::Store(path, kept, None)
                }
                (Some(mut old), None) if self.restart <= old.len() => {
                    old.truncate(self.restart);
                    Effect::Store(path, old, None)
                }
                _ => Effect::Never,
            },
            "APPE" => match (old, self.partial(&path)) {
                (None, Some(partial)) if !self.ascii => Effect::Store(path, partial, None),
                (_, Some(_)) => Effect::Never,
                (old, None) => Effect::Store(path, old.unwrap_or_default(), None),
            },
            "STOU" => Effect::StoreUnique,
            "UPLOAD" if !path.starts_with("x+") && !path.starts_with("2097152+") => {
                let body = self.bodies.pop_front().unwrap();
                let path = path
                    .split_once(' ')
                    .map_or(String::new(), |(_, path)| path.to_string());
                match self.partial(&path) {
                    _ if self.restart == 0 => Effect::Store(path, Vec::new(), Some(body)),
                    Some(partial) if partial.len() == self.restart => {
                        Effect::Store(path, partial, Some(body))
                    }
                    _ => Effect::Never,
                }
            }
            "RETR" | "DOWNLOAD" => {
                let content = old.unwrap_or_default();
                let content = content.get(self.restart..).unwrap_or_default().to_vec();
                Effect::Fetch(match self.ascii && verb == "RETR" {
                    true => to_wire(&content),
                    false => content,
                })
            }
            _ => Effect::Nothing,
        }
    }

    fn may_go_on(&self, published: &Option<Vec<u8>>, partial: &[u8]) -> bool {
        match published {
            _ if self.ascii => false,
            Some(_) => self.restart == partial.len(),
            None => self.restart <= partial.len(),
        }
    }

    /// What there is of an upload that broke off: nothing but what was sent.
    fn partial(&self, path: &str) -> Option<Vec<u8>> {
        let owner = Owner::stranger([127, 0, 0, 1].into());
        let path_there = VirtualPath::root().join(path.as_bytes());
        let found = Place::of(&self.home, &path_there, &owner).and_then(Place::find);
        let Ok(Found::Retained(retained)) = found else {
            return None;
        };
        let mut content = vec![0; usize::try_from(retained.bytes()).unwrap()];
        let file = retained.into_file().unwrap();
        file.read_exact_at(&mut content, 0).unwrap();
        assert!(!content.is_empty(), "a partial of nothing");
        // The reply that says so may wait behind that of another upload.
        if self.owed.is_empty() {
            let sent = self.broken.get(path);
            let sent = sent.unwrap_or_else(|| panic!("nothing of {path} broke off"));
            let was_sent = sent.iter().any(|sent| sent.starts_with(&content));
            assert!(was_sent, "{path} was never sent like that");
        }
        Some(content)
    }

    // What it hears ------------------------------------------------------------------------------

    pub fn hear(&mut self, reply: &Reply, shell: &Shell) {
        if reply.is_preliminary() {
            return self.hear_preliminary(reply, shell);
        }
        self.finals += 1;
        let Some(owed) = self.owed.pop_front() else {
            assert!(reply.code == 421 && shell.closed, "nobody asked: {reply:?}");
            return;
        };
        let Owed { verb, .. } = &owed;
        let key = (verb.clone(), reply.code / 100);
        *self.met.0.entry(key).or_default() += 1;
        assert!(fits(verb, reply.code), "{reply:?} to {verb}");
        if owed.waits && !owed.preliminary {
            self.held_back = None;
        }
        // A rename that is not on the disk for sure has happened all the same.
        if reply.code < 400 || (owed.verb == "RNTO" && reply.code == 451) {
            self.succeed(owed, shell);
        } else if let Effect::Store(path, mut content, body) = owed.effect {
            content.extend(body.unwrap_or_else(|| self.data.clone()));
            self.broken.entry(path).or_default().push(content);
        }
    }

    fn hear_preliminary(&mut self, reply: &Reply, shell: &Shell) {
        let owed = self.owed.front_mut().expect("a 150 that nobody asked for");
        assert!(!owed.preliminary, "a second 150 to {}", owed.verb);
        owed.preliminary = true;
        owed.begin = shell.sent.len();
        let transfers = [
            "STOR", "APPE", "STOU", "RETR", "LIST", "NLST", "MLSD", "UPLOAD", "DOWNLOAD",
        ];
        assert!(
            transfers.contains(&owed.verb.as_str()),
            "150 to {}",
            owed.verb
        );
        if owed.verb == "STOU" {
            let mut line = Vec::new();
            reply.encode(&mut line);
            let line = String::from_utf8(line).unwrap();
            let name = line.trim_end().strip_prefix("150 FILE: ").unwrap();
            owed.effect = Effect::Store(format!("{}/{name}", self.dir), Vec::new(), None);
        }
        if owed.verb == "UPLOAD"
            && let Some(body) = self.held_back.take()
        {
            self.outbox.extend(body);
        }
    }

    fn succeed(&mut self, owed: Owed, shell: &Shell) {
        let Owed {
            verb,
            effect,
            begin,
            ascii,
            ..
        } = owed;
        let files = &mut self.disk.files;
        match effect {
            Effect::Nothing | Effect::StoreUnique => {}
            Effect::Never => panic!("{verb} has succeeded"),
            Effect::LogIn => {
                self.ascii = false;
                self.dir = String::new();
            }
            Effect::Enter(dir) => self.dir = dir,
            Effect::Type(ascii) => self.ascii = ascii,
            Effect::Rest(offset) => self.restart = offset,
            Effect::RenameFrom(path) => self.rename_from = Some(path),
            Effect::Rename(from, to) => {
                let content = files.remove(&from).unwrap();
                files.insert(to, content);
            }
            Effect::Remove(path, partial) => {
                assert!(files.remove(&path).is_some() || partial, "{path}");
            }
            Effect::MakeDir(path) => assert!(self.disk.dirs.insert(path)),
            Effect::RemoveDir(path) => assert!(self.disk.dirs.remove(&path)),
            Effect::Store(path, mut content, body) => {
                if self.broken.remove(&path).is_some() && !content.is_empty() {
                    *self.met.0.entry(("going on".to_string(), 2)).or_default() += 1;
                }
                content.extend(match body {
                    Some(body) => body,
                    None if ascii => from_wire(&self.data),
                    None => self.data.clone(),
                });
                files.insert(path, content);
            }
            Effect::Fetch(expected) if verb == "RETR" => {
                assert_eq!(self.last_download, expected);
            }
            Effect::Fetch(expected) => {
                assert_eq!(shell.sent[begin..][..expected.len()], expected);
            }
        }
    }

    // What must hold -----------------------------------------------------------------------------

    /// Nothing is under way: so every command that was taken has its final reply.
    pub fn check_nothing_is_owed(&self) {
        assert!(self.owed.is_empty(), "never answered: {:?}", self.owed);
    }

    pub fn is_quiet(&self, shell: &Shell) -> bool {
        let silent = self.outbox.is_empty() && self.queue.is_empty();
        silent && self.owed.is_empty() && shell.question.is_none() && shell.commits.is_empty()
    }

    /// The transfer waits for a body that the client does not send any more.
    pub fn is_stuck(&self, shell: &Shell) -> bool {
        let in_band = |moving: &Moving| moving.via == Via::Control;
        let waits = shell.moving.as_ref().is_some_and(in_band);
        waits && self.outbox.is_empty() && shell.unread.is_empty()
    }

    pub fn check_all_answered(&self) {
        self.check_nothing_is_owed();
        assert!(self.queue.is_empty(), "never taken: {:?}", self.queue);
        assert!(self.lines.is_empty() || self.finished, "{:?}", self.lines);
    }

    /// Whatever is kept was sent.
    pub fn check_partials(&self) {
        for path in FILES {
            self.partial(path);
        }
    }

    /// Reads all that went out as a client does, and counts.
    pub fn check_stream(&self, shell: &Shell) {
        let mut parser = Parser::default();
        let mut finals = 0;
        let mut rest = shell.sent.as_slice();
        while !rest.is_empty() {
            let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else {
                assert!(shell.closed, "a line without its end");
                break;
            };
            let line = &rest[..end];
            rest = &rest[end + 2..];
            if let Part::End(code, text) = parser.line(line).expect("a reply") {
                finals += usize::from(code >= 200);
                if let Some(bytes) = text.strip_suffix(b" bytes follow.") {
                    let bytes: usize = std::str::from_utf8(bytes).unwrap().parse().unwrap();
                    assert!(
                        bytes <= rest.len() || shell.closed,
                        "a file that is too short"
                    );
                    rest = rest.get(bytes..).unwrap_or_default();
                }
            }
        }
        assert_eq!(finals, self.finals, "final replies in the stream");
    }
}

fn line_of(whole: &[u8]) -> &[u8] {
    let line = whole.strip_suffix(b"\n").unwrap_or(whole);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Whether a final reply can be one to this verb. What succeeds has codes of its own, so replies in
/// the wrong order do not fit for long.
fn fits(verb: &str, code: u16) -> bool {
    let success: &[u16] = match verb {
        "USER" => &[331],
        "PASS" => &[230],
        "QUIT" => &[221],
        "REIN" => &[220],
        "NOOP" | "TYPE" | "PORT" | "OPTS" => &[200],
        "ABOR" | "STOR" | "APPE" | "STOU" | "RETR" | "LIST" | "NLST" | "MLSD" => &[226],
        "UPLOAD" | "DOWNLOAD" => &[226],
        "STAT" => &[211, 213],
        "SYST" => &[215],
        "FEAT" => &[211],
        "HELP" => &[214],
        "PWD" | "MKD" => &[257],
        "CWD" | "DELE" | "RMD" | "RNTO" | "TREE" => &[250],
        "RNFR" | "REST" => &[350],
        "EPSV" => &[229],
        "PASV" => &[227],
        "HASH" | "SIZE" | "PARTIAL" => &[213],
        _ => return matches!(code, 500 | 501 | 421),
    };
    success.contains(&code) || (code >= 400 && !ALWAYS.contains(&verb))
}

/// LF becomes CRLF, unless a CR stands before it.
fn to_wire(content: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for &byte in content {
        if byte == b'\n' && wire.last() != Some(&b'\r') {
            wire.push(b'\r');
        }
        wire.push(byte);
    }
    wire
}

/// CRLF becomes LF.
fn from_wire(wire: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    for &byte in wire {
        if byte == b'\n' && content.last() == Some(&b'\r') {
            content.pop();
        }
        content.push(byte);
    }
    content
}
