//! Where the prompt's lines come from: a terminal, with editing, history and completion, or a script.

use std::cell::RefCell;
use std::fs::DirBuilder;
use std::io::{self, BufRead, IsTerminal, stdin, stdout};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};

use super::Client;
use super::completion::{Completion, Subject};
use super::error::{Error, Exit};
use super::local::user_dir;

/// The longest line that is read.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
const HISTORY_LINES_MAX: usize = 1000;

/// One line after the other.
pub enum Lines<'a> {
    /// Standard input, without a word.
    Script,
    /// Somebody who types.
    Terminal(Box<Typist<'a>>),
}

/// The editor, and where what was typed is kept.
pub struct Typist<'a> {
    editor: Editor<Completion<'a>, FileHistory>,
    history: Option<PathBuf>,
}

impl<'a> Lines<'a> {
    /// Those of standard input.
    ///
    /// # Errors
    /// The terminal cannot be used.
    pub fn new(client: &'a RefCell<&'a mut Client>) -> Result<Lines<'a>, Error> {
        if !stdin().is_terminal() || !stdout().is_terminal() {
            return Ok(Lines::Script);
        }
        let config = Config::builder()
            .completion_type(CompletionType::List)
            .history_ignore_space(true)
            .max_history_size(HISTORY_LINES_MAX)
            .map_err(failed)?
            .build();
        let mut editor = Editor::with_config(config).map_err(failed)?;
        editor.set_helper(Some(Completion::new(client)));
        let history = history_file();
        if let Some(path) = &history {
            // There is none the first time.
            let _ = editor.load_history(path);
        }
        Ok(Lines::Terminal(Box::new(Typist { editor, history })))
    }

    /// Whether somebody types.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Lines::Terminal(_))
    }

    /// The next line, without its end; `None` at the end of the input. `subject` is what is asked
    /// for.
    ///
    /// # Errors
    /// A line is too long (a usage error), or there can be no more of them.
    pub fn next(&mut self, question: &str, subject: Subject) -> Result<Option<Vec<u8>>, Error> {
        match self {
            Lines::Script => line_of(&mut stdin().lock()),
            Lines::Terminal(typist) => typist.next(question, subject),
        }
    }
}

impl Typist<'_> {
    fn next(&mut self, question: &str, subject: Subject) -> Result<Option<Vec<u8>>, Error> {
        if let Some(completion) = self.editor.helper() {
            completion.subject.set(subject);
            completion.forget();
        }
        let line = match self.editor.readline(question) {
            Ok(line) => line,
            Err(ReadlineError::Eof) => return Ok(None),
            Err(ReadlineError::Interrupted) => return Ok(Some(Vec::new())),
            Err(error) => return Err(failed(error)),
        };
        if subject == Subject::Command && !line.trim().is_empty() && !may_hold_password(&line) {
            let added = self.editor.add_history_entry(&line).unwrap_or(false);
            if let Some(path) = self.history.as_ref().filter(|_| added) {
                // A history that cannot be kept is no reason to stop.
                let _ = self.editor.append_history(path);
            }
        }
        Ok(Some(line.into_bytes()))
    }
}

/// In a URL, as `sync` takes it.
fn may_hold_password(line: &str) -> bool {
    line.contains("://") && line.contains('@')
}

/// `haul/history` below `$XDG_STATE_HOME` or `~/.local/state`; its directory is made.
fn history_file() -> Option<PathBuf> {
    let dir = user_dir("XDG_STATE_HOME", ".local/state")?.join("haul");
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
    made.ok().map(|()| dir.join("history"))
}

fn failed(error: ReadlineError) -> Error {
    Error::new(Exit::Local, format!("the terminal cannot be used: {error}"))
}

/// A line that is too long is read to its end, since its rest is no command.
fn line_of(input: &mut dyn BufRead) -> Result<Option<Vec<u8>>, Error> {
    let mut typed = Vec::new();
    let mut bytes = 0;
    loop {
        let read = match input.fill_buf() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(|e| Error::local(&e).about("standard input"))?,
        };
        let end = memchr::memchr(b'\n', read);
        let part = &read[..end.unwrap_or(read.len())];
        bytes += part.len();
        if bytes <= LINE_BYTES_MAX {
            typed.extend_from_slice(part);
        }
        let is_over = end.is_some() || read.is_empty();
        let used = part.len() + usize::from(end.is_some());
        input.consume(used);
        if is_over {
            break if end.is_none() && bytes == 0 {
                Ok(None)
            } else if bytes > LINE_BYTES_MAX {
                Err(Error::usage(format!(
                    "a line of {bytes} bytes is too long, nothing of it was done; \
                     {LINE_BYTES_MAX} are possible"
                )))
            } else {
                let typed = typed.strip_suffix(b"\r").unwrap_or(&typed);
                Ok(Some(typed.to_vec()))
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_one_line() {
        let mut input = vec![b'x'; LINE_BYTES_MAX];
        input.extend_from_slice(b"\nls\r\n\n");
        input.extend(vec![b'y'; 3 * LINE_BYTES_MAX]);
        input.extend_from_slice(b" rm z\npwd");
        // Whatever arrives together.
        for size in [7, 8192, input.len()] {
            let mut lines = io::BufReader::with_capacity(size, &*input);
            let mut next = || line_of(&mut lines).map_err(|e| e.exit);
            assert_eq!(next(), Ok(Some(vec![b'x'; LINE_BYTES_MAX])));
            assert_eq!(next(), Ok(Some(b"ls".to_vec())));
            assert_eq!(next(), Ok(Some(Vec::new())));
            assert_eq!(next(), Err(Exit::Usage));
            assert_eq!(next(), Ok(Some(b"pwd".to_vec())));
            assert_eq!(next(), Ok(None));
        }
    }

    #[test]
    fn passwords_are_not_kept() {
        assert!(may_hold_password("sync a ftp://me:hush@h/a"));
        assert!(!may_hold_password("get a@b"));
    }
}
