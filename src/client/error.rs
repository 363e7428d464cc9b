//! What can go wrong, as one sentence and one exit code.
//!
//! What the server refused and what failed on this machine stay apart to the end: they have
//! different exit codes and different remedies.

use std::fmt;
use std::io;

use super::reply::Reply;
use crate::text::plain;

/// The exit codes of `haul`; this is the only list of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything was done.
    Done = 0,
    /// Some of several files failed; the others are done.
    SomeFailed = 1,
    /// The command line or a name in it makes no sense.
    Usage = 2,
    /// No server there, or it does not greet.
    CannotConnect = 3,
    /// A secret would have to be trusted to a connection that does not deserve it.
    Trust = 4,
    /// The server refused the user or the password.
    LoginRefused = 5,
    /// The server says: no such file, or no permission.
    NotFound = 6,
    /// A file of this machine could not be read or written, or the copy's name is taken, here or
    /// there.
    Local = 7,
    /// A transfer broke off or stalled, or the server broke the protocol.
    Broken = 8,
    /// The two sides differ.
    Differ = 9,
    /// No space left, there or here.
    Full = 10,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit as u8)
    }
}

/// One sentence for the user, and the exit code that belongs to it.
#[derive(Debug)]
pub struct Error {
    /// How the program ends if this was all it was asked for.
    pub exit: Exit,
    /// The code of the reply, if the server said it.
    pub code: Option<u16>,
    /// Whoever read what was printed has stopped (`haul ls | head`): nobody wants to hear of it.
    pub is_unheard: bool,
    text: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

impl Error {
    /// An error with its exit code.
    pub fn new(exit: Exit, text: impl Into<String>) -> Error {
        Error {
            exit,
            code: None,
            is_unheard: false,
            text: text.into(),
        }
    }

    /// The transfer broke, or the server broke the protocol.
    pub fn broken(text: impl Into<String>) -> Error {
        Error::new(Exit::Broken, text)
    }

    /// A mistake in what the user wrote.
    pub fn usage(text: impl Into<String>) -> Error {
        Error::new(Exit::Usage, text)
    }

    /// A file of this machine, or its standard input or output.
    pub fn local(error: &io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::new(Exit::Full, "no space left on this machine")
            }
            io::ErrorKind::BrokenPipe => Error {
                is_unheard: true,
                ..Error::new(Exit::Local, plain(error))
            },
            _ => Error::new(Exit::Local, plain(error)),
        }
    }

    /// Standard output is closed or full.
    pub fn output(error: &io::Error) -> Error {
        Error::local(error).about("standard output")
    }

    /// A reply that is not the one hoped for, in the server's own words. A permanent refusal is
    /// about the file; a temporary one is about the transfer.
    pub fn refused(reply: &Reply) -> Error {
        let exit = match reply.code {
            452 | 552 => Exit::Full,
            530 => Exit::LoginRefused,
            450 => Exit::NotFound,
            500..=599 => Exit::NotFound,
            _ => Exit::Broken,
        };
        Error {
            exit,
            code: Some(reply.code),
            is_unheard: false,
            text: format!("the server says: {reply}"),
        }
    }

    /// The same error once more, for another file that it concerns.
    #[must_use]
    pub fn again(&self) -> Error {
        Error {
            exit: self.exit,
            code: self.code,
            is_unheard: self.is_unheard,
            text: self.text.clone(),
        }
    }

    /// The same with what was being tried in front of it.
    #[must_use]
    pub fn about(mut self, what: impl fmt::Display) -> Error {
        self.text = format!("{what}: {}", self.text);
        self
    }

    /// The same with what to do next behind it.
    #[must_use]
    pub fn hint(mut self, next: impl fmt::Display) -> Error {
        let text = self.text.strip_suffix('.').unwrap_or(&self.text);
        self.text = format!("{text}; {next}");
        self
    }

    /// The same with another exit code.
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Error {
        self.exit = exit;
        self
    }
}

/// Bytes from a server or a file name, fit for a terminal: control characters, bytes that are not
/// UTF-8 and characters that reorder text are escaped.
pub fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || reorders(c) {
                text.extend(c.escape_unicode());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Marks that change the direction of the text behind them, and separators that begin a line.
fn reorders(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_raw() {
        assert_eq!(shown("a ü 😀.txt".as_bytes()), "a ü 😀.txt");
        assert_eq!(shown(b"\x1b[2Jx\r\x07"), "\\u{1b}[2Jx\\u{d}\\u{7}");
        assert_eq!(shown("a\u{202e}b".as_bytes()), "a\\u{202e}b");
        assert_eq!(shown(b"\xff\xfea"), "\\xff\\xfea");
        assert_eq!(shown("\u{9b}2J".as_bytes()), "\\u{9b}2J");
    }

    #[test]
    fn a_hint_belongs_to_the_sentence() {
        let refused = Error::refused(&Reply::of(550, "No such file."));
        let text = refused.hint("look for it with: haul ls").to_string();
        assert_eq!(
            text,
            "the server says: 550 No such file; look for it with: haul ls"
        );
    }

    #[test]
    fn replies_become_exit_codes() {
        let exit = |code| Error::refused(&Reply::of(code, "x")).exit;
        assert_eq!(exit(550), Exit::NotFound);
        assert_eq!(exit(452), Exit::Full);
        assert_eq!(exit(552), Exit::Full);
        assert_eq!(exit(530), Exit::LoginRefused);
        assert_eq!(exit(426), Exit::Broken);
        assert_eq!(exit(421), Exit::Broken);
    }
}
