//! One dialogue file: what it is made of, and how it is played to a peer.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use haul::accounts::Anonymous;
use haul::config::{Config, Limits, Tls, TlsLevel};
use haul::proto::time;
use haul::storage::ledger::Count;
use haul::storage::path::VirtualPath;
use haul::storage::quota::Amount;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, UTIME_OMIT};

use super::pattern::{self, Names};
use super::peer::Peer;
use crate::shell::Shell;

/// A line that says something.
struct Line {
    number: usize,
    key: String,
    text: String,
}

pub struct Script {
    path: PathBuf,
    anonymous: String,
    pub bytewise: bool,
    pub tls: TlsLevel,
    pub quota: Option<Amount>,
    uncounted: bool,
    furniture: Vec<Line>,
    steps: Vec<Line>,
}

const FURNITURE: [&str; 7] = ["file", "sparse", "dir", "link", "fifo", "mode", "time"];

impl Script {
    pub fn read(path: &Path) -> Script {
        let mut script = Script {
            path: path.to_path_buf(),
            anonymous: "write".to_string(),
            bytewise: true,
            tls: TlsLevel::Off,
            quota: None,
            uncounted: false,
            furniture: Vec::new(),
            steps: Vec::new(),
        };
        let content = fs::read_to_string(path).unwrap();
        for (at, line) in content.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, text) = line.split_once(' ').unwrap_or((line, ""));
            match key {
                "anonymous" => script.anonymous = text.to_string(),
                "tls" => {
                    script.tls = match text {
                        "optional" => TlsLevel::Optional,
                        "required" => TlsLevel::Required,
                        other => panic!("{}: there is no TLS level {other}", path.display()),
                    }
                }
                "quota" => {
                    let (bytes, files) = text.split_once(' ').unwrap();
                    script.quota = Some(Amount {
                        bytes: bytes.parse().unwrap(),
                        files: files.parse().unwrap(),
                    });
                }
                "uncounted" => script.uncounted = true,
                "not" => script.bytewise = text != "bytewise",
                _ => {
                    let line = Line {
                        number: at + 1,
                        key: key.to_string(),
                        text: text.to_string(),
                    };
                    match FURNITURE.contains(&key) {
                        true => script.furniture.push(line),
                        false => script.steps.push(line),
                    }
                }
            }
        }
        script
    }

    pub fn level(&self) -> &str {
        &self.anonymous
    }

    pub fn shell(&self, dir: &Path) -> Shell {
        let anonymous = match self.anonymous.as_str() {
            "none" => Anonymous::None,
            "read" => Anonymous::Read,
            "write" => Anonymous::Write,
            other => panic!("{}: there is no level {other}", self.path.display()),
        };
        let config = Config {
            anonymous,
            tls: Tls {
                level: self.tls,
                ..Tls::default()
            },
            limits: Limits {
                wrong_password_delay: Duration::ZERO,
                ..Limits::default()
            },
            ..Config::default()
        };
        let shell = Shell::new(dir, config);
        let quota = self.quota.map(|quota| (VirtualPath::root(), quota));
        for uncounted in shell.home.set_quotas(quota) {
            if !self.uncounted {
                let mut count = Count::begin(uncounted, shell.home.clone()).unwrap();
                while count.step().unwrap() {}
                count.finish();
            }
        }
        shell
    }

    /// Makes the files that the dialogue begins with.
    pub fn furnish(&self, dir: &Path) {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        for Line { key, text, .. } in &self.furniture {
            let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
            let name = pattern::bytes(name, &Names::new());
            let path = dir.join(OsStr::from_bytes(&name));
            let set_mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode));
            match key.as_str() {
                "file" => {
                    let content = rest.strip_prefix("= ").unwrap_or_default();
                    fs::write(&path, pattern::bytes(content, &Names::new())).unwrap();
                    set_mode(0o644).unwrap();
                }
                "sparse" => {
                    let file = fs::File::create(&path).unwrap();
                    file.set_len(rest.parse().unwrap()).unwrap();
                }
                "dir" => {
                    fs::create_dir(&path).unwrap();
                    set_mode(0o755).unwrap();
                }
                "link" => symlink(rest.strip_prefix("-> ").unwrap(), &path).unwrap(),
                "fifo" => rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap(),
                "mode" => set_mode(u32::from_str_radix(rest, 8).unwrap()).unwrap(),
                _ => set_time(&path, rest),
            }
        }
    }

    /// Plays the dialogue. The error says where it went wrong.
    pub fn run(&self, peer: &mut dyn Peer, dir: &Path) -> Result<(), String> {
        let mut names = Names::new();
        let (port, eport) = peer.listen();
        names.insert("port".to_string(), port.into_bytes());
        names.insert("eport".to_string(), eport.into_bytes());
        names.insert("refused".to_string(), peer.refused_port().into_bytes());
        let mut play = Play { peer, names, dir };
        let mut at = 0;
        play.expect_line("220 *").map_err(|e| self.at(0, &e))?;
        while at < self.steps.len() {
            let first = &self.steps[at];
            let together = self.steps[at..]
                .iter()
                .take_while(|step| belongs_to(&step.key, &first.key))
                .count();
            let block = &self.steps[at..at + together.max(1)];
            for (steps, result) in play.block(block) {
                result.map_err(|error| self.at(steps, &error))?;
            }
            at += block.len();
        }
        if self
            .steps
            .iter()
            .all(|step| step.key != "S." && step.key != "C.")
        {
            play.peer.send(b"NOOP\r\n");
            play.expect_line("200 *")
                .map_err(|error| self.at(usize::MAX, &format!("at the end, {error}")))?;
        }
        Ok(())
    }

    fn at(&self, line: usize, error: &str) -> String {
        let name = self.path.file_name().unwrap().to_string_lossy();
        let said = self.steps.iter().find(|step| step.number == line);
        match said {
            Some(step) => format!("{name}:{line}: {} {}\n    {error}", step.key, step.text),
            None => format!("{name}: {error}"),
        }
    }
}

/// Whether two steps that follow each other are one.
fn belongs_to(key: &str, first: &str) -> bool {
    match first {
        "C:" | "C>" => matches!(key, "C:" | "C>"),
        "S~" | "DATA~" => key == first,
        "DATA:" | "DATA<" => matches!(key, "DATA:" | "DATA<"),
        _ => false,
    }
}

fn set_time(path: &Path, text: &str) {
    let tv_sec = time::parse_14(text.as_bytes()).unwrap();
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec { tv_sec, tv_nsec: 0 },
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// A dialogue that is being played.
struct Play<'a> {
    peer: &'a mut dyn Peer,
    names: Names,
    dir: &'a Path,
}

impl Play<'_> {
    /// Plays steps that are one; each result comes with the line that it belongs to.
    fn block(&mut self, block: &[Line]) -> Vec<(usize, Result<(), String>)> {
        let first = &block[0];
        let whole = |result| vec![(first.number, result)];
        match first.key.as_str() {
            "C:" | "C>" => {
                let mut segment = Vec::new();
                for step in block {
                    segment.extend(pattern::bytes(&step.text, &self.names));
                    if step.text.starts_with("PORT ") || step.text.starts_with("EPRT ") {
                        self.peer.data_way(None);
                    }
                    if step.key == "C:" {
                        segment.extend(b"\r\n");
                    }
                }
                self.peer.send(&segment);
                Vec::new()
            }
            "S~" => whole(self.control_set(block)),
            "DATA~" => whole(self.data_set(block)),
            "DATA:" | "DATA<" => self.data_in_order(block),
            _ => whole(self.step(first)),
        }
    }

    fn step(&mut self, step: &Line) -> Result<(), String> {
        let text = &step.text;
        match step.key.as_str() {
            "S:" => self.expect_line(text),
            "S<" => {
                let expected = pattern::bytes(text, &self.names);
                same(&expected, &self.peer.raw(expected.len())?)
            }
            "S." => self.peer.closed(),
            "C." => {
                self.peer.finish();
                Ok(())
            }
            "DATA+" => self.peer.data_send(&pattern::bytes(text, &self.names)),
            "DATA>" => {
                self.peer.data_send(&pattern::bytes(text, &self.names))?;
                self.peer.data_finish();
                Ok(())
            }
            "DATA!" => self.peer.data_reset(),
            "LOGIN" => {
                self.command("USER anonymous", "331 *")?;
                self.command("PASS guest@example.org", "230 *")
            }
            "EPSV" => self.command("EPSV", "229 *(|||{epsv}|)"),
            _ => self.on_disk(step),
        }
    }

    fn command(&mut self, command: &str, reply: &str) -> Result<(), String> {
        self.peer.send(format!("{command}\r\n").as_bytes());
        self.expect_line(reply)
    }

    fn expect_line(&mut self, pattern: &str) -> Result<(), String> {
        let line = self.peer.line()?;
        if !pattern::fits(pattern, &line, &mut self.names) {
            return Err(format!(
                "expected: {pattern}\n    got:      {}",
                show(&line)
            ));
        }
        let name = |name| String::from_utf8(self.names[name].clone()).unwrap();
        if pattern.contains("{epsv}") {
            self.peer.data_way(Some(name("epsv").parse().unwrap()));
        }
        if pattern.contains("{pasv}") {
            let numbers = name("pasv");
            let parts: Vec<u16> = numbers.split(',').map(|n| n.parse().unwrap()).collect();
            self.peer.data_way(Some(parts[4] * 256 + parts[5]));
        }
        Ok(())
    }

    fn control_set(&mut self, block: &[Line]) -> Result<(), String> {
        let lines = block.iter().map(|_| self.peer.line());
        let lines = lines.collect::<Result<Vec<_>, _>>()?;
        self.same_set(block, lines)
    }

    fn data_set(&mut self, block: &[Line]) -> Result<(), String> {
        let content = self.peer.data_read()?;
        let lines = content.split_inclusive(|&b| b == b'\n');
        let lines = lines.map(|line| line.strip_suffix(b"\r\n").unwrap_or(line).to_vec());
        self.same_set(block, lines.collect())
    }

    fn same_set(&mut self, block: &[Line], mut lines: Vec<Vec<u8>>) -> Result<(), String> {
        for step in block {
            let names = &mut self.names;
            match lines
                .iter()
                .position(|line| pattern::fits(&step.text, line, names))
            {
                Some(at) => drop(lines.remove(at)),
                None => {
                    let rest: Vec<String> = lines.iter().map(|line| show(line)).collect();
                    return Err(format!(
                        "no line is {}; left are:\n        {}",
                        step.text,
                        rest.join("\n        ")
                    ));
                }
            }
        }
        match lines.first() {
            None => Ok(()),
            Some(line) => Err(format!("there is also the line {}", show(line))),
        }
    }

    fn data_in_order(&mut self, block: &[Line]) -> Vec<(usize, Result<(), String>)> {
        let content = match self.peer.data_read() {
            Ok(content) => content,
            Err(error) => return vec![(block[0].number, Err(error))],
        };
        let mut rest = content.as_slice();
        let mut results = Vec::new();
        for step in block {
            let result = if step.key == "DATA:" {
                let end = rest
                    .iter()
                    .position(|&b| b == b'\n')
                    .map_or(rest.len(), |at| at + 1);
                let (line, tail) = rest.split_at(end);
                rest = tail;
                let line = line.strip_suffix(b"\r\n").unwrap_or(line);
                match pattern::fits(&step.text, line, &mut self.names) {
                    true => Ok(()),
                    false => Err(format!("got: {}", show(line))),
                }
            } else {
                let expected = pattern::bytes(&step.text, &self.names);
                let (got, tail) = rest.split_at(expected.len().min(rest.len()));
                rest = tail;
                same(&expected, got)
            };
            results.push((step.number, result));
        }
        if !rest.is_empty() {
            let error = format!("there is more: {}", show(rest));
            results.push((block[block.len() - 1].number, Err(error)));
        }
        results
    }

    fn on_disk(&self, step: &Line) -> Result<(), String> {
        let (name, rest) = step.text.split_once(' ').unwrap_or((&step.text, ""));
        let path = self
            .dir
            .join(OsStr::from_bytes(&pattern::bytes(name, &self.names)));
        let found = fs::symlink_metadata(&path);
        if step.key == "ABSENT" {
            return found.map_or(Ok(()), |found| Err(format!("there is {found:?}")));
        }
        let found = found.map_err(|error| error.to_string())?;
        match step.key.as_str() {
            "FILE" => {
                let text = rest.strip_prefix("= ").unwrap_or_default();
                same(
                    &pattern::bytes(text, &self.names),
                    &fs::read(&path).unwrap(),
                )
            }
            "MODE" => same(
                rest.as_bytes(),
                format!("{:04o}", found.permissions().mode() & 0o7777).as_bytes(),
            ),
            "TIME" => {
                let modified = found.modified().unwrap();
                let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap();
                same(rest.as_bytes(), &time::text_14(since.as_secs() as i64))
            }
            other => Err(format!("there is no step {other}")),
        }
    }
}

fn same(expected: &[u8], got: &[u8]) -> Result<(), String> {
    if expected == got {
        return Ok(());
    }
    Err(format!(
        "expected: {}\n    got:      {}",
        show(expected),
        show(got)
    ))
}

fn show(bytes: &[u8]) -> String {
    const MOST: usize = 300;
    let more = if bytes.len() > MOST { "..." } else { "" };
    let shown = bytes[..bytes.len().min(MOST)].escape_ascii();
    format!("\"{shown}\"{more} ({} bytes)", bytes.len())
}
