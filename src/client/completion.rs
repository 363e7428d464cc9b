//! What Tab offers at the prompt: commands, options, and names here and on the server.
//!
//! Only the directory that is being completed is listed. What cannot be asked is not offered;
//! nothing is said about it.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use clap::CommandFactory;
use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

use crate::proto::facts::Kind;

use super::error::shown;
use super::local::is_plain_name;
use super::prompt::Typed;
use super::{Client, listing};

/// How long a listing is believed.
const FRESH_TIME: Duration = Duration::from_secs(10);
/// Nobody waits longer for Tab.
const PATIENCE: Duration = Duration::from_secs(5);
/// Nobody reads more.
const NAMES_MAX: usize = 10_000;

/// Commands that are not those of the command line.
const OWN_WORDS: [&str; 8] = ["cd", "get", "help", "lcd", "lpwd", "put", "pwd", "quit"];

/// What is being typed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A command with its words.
    Command,
    /// A name of this machine and nothing else.
    LocalName,
    /// A name on the server and nothing else.
    RemoteName,
}

/// A directory's names, and which of them are directories.
type Names = Vec<(String, bool)>;

/// Completes over the client's connection, while nothing else uses it.
pub struct Completion<'a> {
    client: &'a RefCell<&'a mut Client>,
    /// What the next line is.
    pub subject: Cell<Subject>,
    listed: RefCell<Option<(String, Instant, Names)>>,
}

impl<'a> Completion<'a> {
    /// Nothing is asked yet.
    pub fn new(client: &'a RefCell<&'a mut Client>) -> Completion<'a> {
        Completion {
            client,
            subject: Cell::new(Subject::Command),
            listed: RefCell::new(None),
        }
    }

    /// What was listed may have changed.
    pub fn forget(&self) {
        self.listed.replace(None);
    }

    fn names(&self, is_remote: bool, path: &str) -> Names {
        let (dir, begun) = path.split_at(path.rfind('/').map_or(0, |at| at + 1));
        let all = match is_remote {
            true => self.remote(dir),
            false => local(dir),
        };
        let fits = |name: &str| {
            name.starts_with(begun) && (!name.starts_with('.') || begun.starts_with('.'))
        };
        let mut names: Names = all.into_iter().filter(|(name, _)| fits(name)).collect();
        names.sort();
        for (name, _) in &mut names {
            name.insert_str(0, dir);
        }
        names
    }

    fn remote(&self, dir: &str) -> Names {
        if let Some((of, at, names)) = &*self.listed.borrow()
            && of == dir
            && at.elapsed() < FRESH_TIME
        {
            return names.clone();
        }
        let Ok(mut client) = self.client.try_borrow_mut() else {
            return Names::new();
        };
        let Some(c) = client.present(PATIENCE) else {
            return Names::new();
        };
        let mut names = Names::new();
        let before = c.set_timeout(PATIENCE.min(c.timeout()));
        let path = Some(dir.as_bytes()).filter(|dir| !dir.is_empty());
        let done = listing::list(c, path, &mut |entry| {
            if names.len() < NAMES_MAX && is_plain_name(&entry.name) {
                // A link may lead to one; then a slash is typed by hand.
                names.extend(readable(&entry.name, entry.kind == Some(Kind::Dir)));
            }
            Ok(())
        });
        c.set_timeout(before);
        if done.is_err() {
            return Names::new();
        }
        self.listed
            .replace(Some((dir.to_owned(), Instant::now(), names.clone())));
        names
    }

    /// What may stand for the last of these words.
    fn offers(&self, before: &[String], begun: &str) -> Names {
        let Some(command) = before.first().map(|word| word.to_lowercase()) else {
            return commands(&begun.to_lowercase());
        };
        let command = match &*command {
            "put" => "upload",
            "get" => "download",
            other => other,
        };
        if begun.starts_with('-') {
            return options(command, begun);
        }
        match command {
            "upload" | "download" => {
                let is_remote = command == "download";
                let mut names = self.names(is_remote, begun);
                // The last word is the target, on the other side.
                if names.is_empty() && before.len() > 1 {
                    names = self.names(!is_remote, begun);
                }
                names
            }
            "sync" => match begun.strip_prefix(':') {
                Some(path) => {
                    let names = self.names(true, path).into_iter();
                    names.map(|(name, is)| (format!(":{name}"), is)).collect()
                }
                None => self.names(false, begun),
            },
            "lcd" => self.names(false, begun),
            "help" | "quit" | "pwd" | "lpwd" => Names::new(),
            "cd" | "tree" | "mkdir" => {
                let mut names = self.names(true, begun);
                names.retain(|(_, is_dir)| *is_dir);
                names
            }
            _ => self.names(true, begun),
        }
    }
}

fn commands(begun: &str) -> Names {
    let command = Typed::command();
    let known = command.get_subcommands().map(|command| command.get_name());
    let mut names: Names = known
        .chain(OWN_WORDS)
        .filter(|name| name.starts_with(begun))
        .map(|name| (name.to_owned(), false))
        .collect();
    names.sort();
    names
}

fn options(command: &str, begun: &str) -> Names {
    let typed = Typed::command();
    let Some(command) = typed.find_subcommand(command) else {
        return Names::new();
    };
    let all = command.get_arguments().filter_map(|it| it.get_long());
    all.map(|long| (format!("--{long}"), false))
        .filter(|(option, _)| option.starts_with(begun))
        .collect()
}

fn local(dir: &str) -> Names {
    let dir = if dir.is_empty() { "." } else { dir };
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Names::new();
    };
    let entries = entries.flatten().take(NAMES_MAX).filter_map(|entry| {
        use std::os::unix::ffi::OsStrExt;
        readable(entry.file_name().as_bytes(), entry.path().is_dir())
    });
    entries.collect()
}

/// A name that can be typed.
fn readable(name: &[u8], is_dir: bool) -> Option<(String, bool)> {
    let text = std::str::from_utf8(name).ok()?;
    (shown(name) == text).then(|| (text.to_owned(), is_dir))
}

/// The words before the last one, where that begins, and what it says; quotes and backslashes are
/// read as in a whole line.
fn last_word(line: &str) -> (Vec<String>, usize, String) {
    let mut words = Vec::new();
    let mut word: Option<(usize, String)> = None;
    let mut quote = None;
    let mut chars = line.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert((at, String::new()));
            }
            (None | Some('"'), '\\') => {
                let escaped = chars.next().map(|(_, c)| c);
                let (_, word) = word.get_or_insert((at, String::new()));
                word.extend(escaped);
            }
            (None, ' ' | '\t') => words.extend(word.take().map(|(_, word)| word)),
            (_, c) => word.get_or_insert((at, String::new())).1.push(c),
        }
    }
    let (begin, last) = word.unwrap_or((line.len(), String::new()));
    (words, begin, last)
}

/// A name as it is typed; in quotes if it began with them.
fn typed(name: &str, is_dir: bool, is_quoted: bool) -> String {
    let mut text = String::new();
    text.extend(is_quoted.then_some('"'));
    for c in name.chars() {
        let is_special = match is_quoted {
            true => matches!(c, '"' | '\\'),
            false => matches!(c, ' ' | '\t' | '"' | '\'' | '\\'),
        };
        text.extend(is_special.then_some('\\'));
        text.push(c);
    }
    match is_dir {
        true => text.push('/'),
        false => text.push_str(if is_quoted { "\" " } else { " " }),
    }
    text
}

impl Completer for Completion<'_> {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let line = &line[..pos];
        let subject = self.subject.get();
        if subject == Subject::Command {
            let (words, begin, last) = last_word(line);
            let is_quoted = line[begin..].starts_with(['"', '\'']);
            let write = |name: &str, is_dir| typed(name, is_dir, is_quoted);
            return Ok((begin, pairs(self.offers(&words, &last), &write)));
        }
        let begin = line.len() - line.trim_start().len();
        let names = self.names(subject == Subject::RemoteName, &line[begin..]);
        // The line is the name, whatever is in it.
        let write = |name: &str, is_dir| match is_dir {
            true => format!("{name}/"),
            false => name.to_owned(),
        };
        Ok((begin, pairs(names, &write)))
    }
}

fn pairs(names: Names, write: &dyn Fn(&str, bool) -> String) -> Vec<Pair> {
    let pair = |(name, is_dir): (String, bool)| {
        let last = name.rsplit('/').next().unwrap_or(&name);
        Pair {
            display: format!("{last}{}", if is_dir { "/" } else { "" }),
            replacement: write(&name, is_dir),
        }
    };
    names.into_iter().map(pair).collect()
}

impl Hinter for Completion<'_> {
    type Hint = String;
}
impl Highlighter for Completion<'_> {}
impl Validator for Completion<'_> {}
impl Helper for Completion<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_is_found_and_written_again() {
        let check = |line: &str, before: &[&str], begin: usize, last: &str| {
            let (words, at, word) = last_word(line);
            assert_eq!(words, before, "{line}");
            assert_eq!((at, &*word), (begin, last), "{line}");
        };
        check("", &[], 0, "");
        check("ge", &[], 0, "ge");
        check("get ", &["get"], 4, "");
        check(r"get a\ b", &["get"], 4, "a b");
        check(r#"get x "a b"#, &["get", "x"], 6, "a b");
        check(r"get a\", &["get"], 4, "a");
        for (name, is_quoted) in [("a b'c\"d\\e", false), ("a b'c\"d\\e", true)] {
            let text = typed(name, false, is_quoted);
            assert_eq!(last_word(&text).0, [name], "{text}");
        }
        assert_eq!(typed("a b", true, false), r"a\ b/");
    }

    #[test]
    fn commands_and_options_are_those_there_are() {
        let names = |names: Names| -> Vec<String> { names.into_iter().map(|n| n.0).collect() };
        assert_eq!(names(commands("dow")), ["download"]);
        assert_eq!(names(commands("p")), ["put", "pwd"]);
        assert_eq!(names(options("upload", "--no-cl")), ["--no-clobber"]);
    }
}
