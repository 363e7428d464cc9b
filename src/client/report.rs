//! What became of each file, told as it happens: lines for people, JSON objects for programs,
//! errors on standard error, and the exit code of all of it.

use std::io::{BufWriter, Stdout, Write, stderr, stdout};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::json;

use crate::proto::upload::hex;

use super::error::{Error, Exit, shown};
use super::progress::Board;

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Errors only.
    Quiet,
    /// A line for each file.
    Lines,
    /// A line for all of several files: bars show the rest.
    Totals,
    /// A JSON object for each file.
    Json,
}

/// Something that was done to one name.
#[derive(Debug, Clone, Copy)]
pub struct Deed<'a> {
    /// `upload`, `download`, `delete` and so on.
    pub verb: &'a str,
    /// What.
    pub from: &'a [u8],
    /// Its new name, if it has one.
    pub to: Option<&'a [u8]>,
    /// How much, if it is a file.
    pub bytes: Option<u64>,
}

impl<'a> Deed<'a> {
    /// A deed without another name, to something that is no file.
    pub fn new(verb: &'a str, from: &'a [u8]) -> Deed<'a> {
        Deed {
            verb,
            from,
            to: None,
            bytes: None,
        }
    }
}

/// What is told of a deed.
#[derive(Clone, Copy)]
enum Outcome<'a> {
    Done,
    /// It is not done, only told (`--dry-run`).
    Planned,
    Failed(&'a Error),
}

/// One command's deeds and failures. Several threads may tell.
pub struct Report {
    style: Style,
    /// The bars.
    pub board: Arc<Board>,
    begun: Instant,
    state: Mutex<State>,
}

struct State {
    out: BufWriter<Stdout>,
    out_error: Option<Error>,
    asked: u64,
    files: u64,
    bytes: u64,
    deletions: u64,
    dirs: u64,
    links: u64,
    failed: u64,
    first: Option<Error>,
}

impl Report {
    /// Nothing was done yet. Bars are shown where lines are.
    pub fn new(style: Style, rate: Option<u64>) -> Report {
        let board = Board::new(matches!(style, Style::Lines | Style::Totals), rate);
        Report {
            style,
            board,
            begun: Instant::now(),
            state: Mutex::new(State {
                out: BufWriter::new(stdout()),
                out_error: None,
                asked: 0,
                files: 0,
                bytes: 0,
                deletions: 0,
                dirs: 0,
                links: 0,
                failed: 0,
                first: None,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many files are to be moved.
    pub fn expect(&self, files: u64, bytes: u64) {
        self.state().asked += files;
        if files > 1 {
            self.board.begin(files, bytes);
        }
    }

    /// How many files are done or have failed; it grows while there is progress.
    pub fn settled(&self) -> u64 {
        let state = self.state();
        state.files + state.failed
    }

    /// Something was done.
    pub fn done(&self, deed: Deed) {
        self.told(deed, Outcome::Done);
    }

    /// Something would be done, were it not for `--dry-run`.
    pub fn planned(&self, deed: Deed) {
        self.told(deed, Outcome::Planned);
    }

    fn told(&self, deed: Deed, outcome: Outcome) {
        let is_planned = matches!(outcome, Outcome::Planned);
        let mut state = self.state();
        match deed.verb {
            "delete" => state.deletions += 1,
            "mkdir" => state.dirs += 1,
            "link" => state.links += 1,
            _ => {
                state.files += 1;
                state.bytes += deed.bytes.unwrap_or(0);
            }
        }
        if deed.bytes.is_some() {
            let (done, asked) = (state.files + state.failed, state.asked);
            if asked > 1 {
                self.board.files(done, asked);
            }
        }
        match self.style {
            Style::Lines => self
                .board
                .between(|| state.line(line_of(&deed, is_planned).as_bytes())),
            Style::Json => state.line(json_of(&deed, outcome).as_bytes()),
            // Bars tell; what is not a transfer has none, and what would be done has none either.
            Style::Totals if is_planned || (deed.bytes.is_none() && deed.verb != "mkdir") => {
                self.board
                    .between(|| state.line(line_of(&deed, is_planned).as_bytes()));
                state.flush();
            }
            Style::Quiet | Style::Totals => {}
        }
    }

    /// Something was done, or was not.
    pub fn outcome(&self, deed: Deed, outcome: Result<(), Error>) {
        match outcome {
            Ok(()) => self.done(deed),
            Err(error) => self.failed(deed, error),
        }
    }

    /// Something was not done.
    pub fn failed(&self, deed: Deed, error: Error) {
        let mut state = self.state();
        state.failed += 1;
        if self.style == Style::Json {
            let line = json_of(&deed, Outcome::Failed(&error));
            state.line(line.as_bytes());
        }
        let what = match deed.verb {
            "mkdir" => "make the directory",
            "link" => "make the link",
            verb => verb,
        };
        let error = error.about(format_args!("cannot {what} {}", names_of(&deed)));
        self.complain(&mut state, error);
    }

    /// Something was not even tried; only programs are told of each.
    pub fn left_out(&self, deed: Deed, why: &str) {
        let mut state = self.state();
        state.failed += 1;
        if self.style == Style::Json {
            let error = Error::new(Exit::SomeFailed, why);
            state.line(json_of(&deed, Outcome::Failed(&error)).as_bytes());
        }
    }

    /// Something is not as it should be, and the exit code says so.
    pub fn wrong(&self, error: Error) {
        let mut state = self.state();
        state.failed += 1;
        self.complain(&mut state, error);
    }

    fn complain(&self, state: &mut State, error: Error) {
        if state.asked == 1 && state.failed == 1 && state.files == 0 {
            // The only one: it is the command's own error.
            state.first = Some(error);
            return;
        }
        for error in state.first.take().iter().chain([&error]) {
            if !error.is_unheard {
                self.note(error);
            }
        }
    }

    /// A sentence that changes nothing.
    pub fn note(&self, text: impl std::fmt::Display) {
        self.board.between(|| {
            let _ = writeln!(stderr(), "haul: {text}");
        });
    }

    /// A sentence for people who want to see more than errors.
    pub fn mention(&self, text: impl std::fmt::Display) {
        if self.style != Style::Quiet {
            self.note(text);
        }
    }

    /// What to say of all of it.
    ///
    /// # Errors
    /// The only thing that was asked for failed, or standard output is closed.
    pub fn finish(self, verb: &str) -> Result<Exit, Error> {
        self.board.end();
        let mut state = self
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        // The only thing that was asked for and failed is told as an error.
        if self.style == Style::Totals && state.first.is_none() {
            let time = match verb.starts_with("would ") {
                true => String::new(),
                false => format!(" in {:.1} s", self.begun.elapsed().as_secs_f64()),
            };
            let line = match state.totals() {
                Some(totals) => format!("{verb}: {totals}{time}"),
                None => "nothing to do".to_owned(),
            };
            state.line(line.as_bytes());
        }
        state.flush();
        if let Some(error) = state.first.or(state.out_error) {
            return Err(error);
        }
        Ok(match state.failed {
            0 => Exit::Done,
            _ => Exit::SomeFailed,
        })
    }
}

impl State {
    /// `15 files, 4096 bytes, 2 deletions, 1 failure`; `None`: nothing of all that.
    fn totals(&self) -> Option<String> {
        let others = [
            (self.dirs, "directory", "directories"),
            (self.links, "link", "links"),
            (self.deletions, "deletion", "deletions"),
            (self.failed, "failure", "failures"),
        ];
        let count = |n: u64, one: &str, many: &str| match n {
            1 => format!("1 {one}"),
            n => format!("{n} {many}"),
        };
        if self.files == 0 && others.iter().all(|(n, ..)| *n == 0) {
            return None;
        }
        let mut parts = vec![
            count(self.files, "file", "files"),
            count(self.bytes, "byte", "bytes"),
        ];
        let others = others.into_iter().filter(|(n, ..)| *n > 0);
        parts.extend(others.map(|(n, one, many)| count(n, one, many)));
        Some(parts.join(", "))
    }

    fn line(&mut self, text: &[u8]) {
        let mut write = || {
            self.out.write_all(text)?;
            self.out.write_all(b"\n")?;
            match self.asked {
                // Few files take their time; whoever waits wants to see each.
                ..100 => self.out.flush(),
                _ => Ok(()),
            }
        };
        if let Err(e) = write() {
            self.out_error.get_or_insert(Error::output(&e));
        }
    }

    fn flush(&mut self) {
        if let Err(e) = self.out.flush() {
            self.out_error.get_or_insert(Error::output(&e));
        }
    }
}

/// `uploaded a.txt to b.txt (4096 bytes)`, with the copy's name where it is another.
fn line_of(deed: &Deed, is_planned: bool) -> String {
    let done = match (deed.verb, is_planned) {
        ("upload", false) => "uploaded",
        ("upload", true) => "would upload",
        ("download", false) => "downloaded",
        ("download", true) => "would download",
        ("delete", false) => "deleted",
        ("delete", true) => "would delete",
        ("mkdir", false) => "made",
        ("mkdir", true) => "would make",
        ("link", false) => "linked",
        ("link", true) => "would link",
        (other, _) => other,
    };
    let mut line = format!("{done} {}", names_of(deed));
    if let Some(bytes) = deed.bytes {
        line.push_str(&format!(" ({bytes} bytes)"));
    }
    line
}

/// `a.txt to b.txt`, or one name where the copy has the same.
fn names_of(deed: &Deed) -> String {
    match deed.to.filter(|to| *to != deed.from) {
        Some(to) => format!("{} to {}", shown(deed.from), shown(to)),
        None => shown(deed.from),
    }
}

/// Names that are not UTF-8 are given in hex digits as well.
fn json_of(deed: &Deed, outcome: Outcome) -> String {
    let mut object = json!({
        "action": deed.verb,
        "name": String::from_utf8_lossy(deed.from),
        "result": match outcome {
            Outcome::Done => "done",
            Outcome::Planned => "would",
            Outcome::Failed(_) => "failed",
        },
    });
    if std::str::from_utf8(deed.from).is_err() {
        object["name_hex"] = json!(hex(deed.from));
    }
    if let Some(to) = deed.to {
        object["to"] = json!(String::from_utf8_lossy(to));
    }
    if let Some(bytes) = deed.bytes {
        object["bytes"] = json!(bytes);
    }
    if let Outcome::Failed(error) = outcome {
        object["error"] = json!(error.to_string());
        object["exit"] = json!(error.exit as u8);
    }
    object.to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn lines_and_objects() {
        let deed = Deed {
            verb: "upload",
            from: b"a\xff",
            to: Some(b"b"),
            bytes: Some(3),
        };
        assert_eq!(line_of(&deed, false), "uploaded a\\xff to b (3 bytes)");
        let error = Error::usage("no");
        let failed = json_of(&deed, Outcome::Failed(&error));
        let object: Value = serde_json::from_str(&failed).unwrap();
        let expected = json!({
            "action": "upload", "name": "a\u{fffd}", "name_hex": "61ff", "to": "b",
            "result": "failed", "error": "no", "exit": 2, "bytes": 3,
        });
        assert_eq!(object, expected);
    }

    #[test]
    fn what_is_planned_has_the_words_of_what_is_done() {
        let deed = Deed::new("mkdir", b"d");
        for (outcome, result) in [(Outcome::Done, "done"), (Outcome::Planned, "would")] {
            let object: Value = serde_json::from_str(&json_of(&deed, outcome)).unwrap();
            let expected = json!({"action": "mkdir", "name": "d", "result": result});
            assert_eq!(object, expected);
        }
        assert_eq!(line_of(&deed, true), "would make d");
    }

    #[test]
    fn totals_count_everything() {
        let report = Report::new(Style::Totals, None);
        let totals = || report.state().totals();
        assert_eq!(totals(), None);
        report.expect(3, 0);
        let file = |bytes| Deed {
            bytes: Some(bytes),
            ..Deed::new("upload", b"f")
        };
        report.done(file(1));
        assert_eq!(totals().as_deref(), Some("1 file, 1 byte"));
        report.done(file(9));
        report.done(Deed::new("delete", b"x"));
        report.done(Deed::new("mkdir", b"d"));
        report.left_out(Deed::new("upload", b"g"), "no");
        let expected = "2 files, 10 bytes, 1 directory, 1 deletion, 1 failure";
        assert_eq!(totals().as_deref(), Some(expected));
    }

    #[test]
    fn the_only_failure_is_the_command_s_own() {
        let deed = Deed::new("upload", b"a");
        let report = Report::new(Style::Quiet, None);
        report.expect(1, 0);
        report.failed(deed, Error::broken("x"));
        let error = report.finish("upload").unwrap_err();
        assert_eq!(error.exit, Exit::Broken);
        assert_eq!(error.to_string(), "cannot upload a: x");
        let report = Report::new(Style::Quiet, None);
        report.expect(2, 0);
        report.failed(deed, Error::broken("x"));
        assert_eq!(report.finish("upload").ok(), Some(Exit::SomeFailed));
        let report = Report::new(Style::Quiet, None);
        report.expect(1, 0);
        let to = Some(&b"d/a"[..]);
        report.failed(Deed { to, ..deed }, Error::broken("x"));
        let error = report.finish("upload").unwrap_err();
        assert_eq!(error.to_string(), "cannot upload a to d/a: x");
    }
}
