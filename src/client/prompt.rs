//! `haul` without a command: commands line by line, from a person or from a script.
//!
//! It adds words, questions and the working directory to [`Command`]; what a command does is
//! decided there. On a terminal it greets and prompts; in a script it prints nothing of its own.

use std::ffi::OsString;
use std::io::{self, BufRead, IsTerminal, Write, stdin, stdout};
use std::os::unix::ffi::OsStringExt;

use clap::Parser;

use super::commands::report;
use super::error::{Error, Exit, shown};
use super::local::path_of;
use super::show::print;
use super::{Client, Command};

/// The longest line that is read.
const LINE_BYTES_MAX: usize = 64 * 1024;

const HELP: &str = "\
upload [FILE... [REMOTE]]     send files; asks for the name without one (also: put)
download [FILE... [LOCAL]]    bring files; --force replaces local ones (also: get)
                              both with -r: directories with all that is in them
sync DIR :DIR, sync :DIR DIR  make the second like the first; : marks the remote one
ls [-l] [DIR]                 list a directory
tree [DIR]                    list everything below a directory
cd [DIR], pwd                 change, show the remote directory
mkdir DIR...                  make directories
rm FILE..., rm -d DIR...      remove files, empty directories
mv FROM TO                    rename
stat PATH..., hash FILE...    show type, size and time, or digests
help, quit                    this text, the end
Words are in any case; names with spaces stand in quotes; *, ? and [a-z] stand for many names.";

/// One line, parsed like a command line.
#[derive(Parser)]
#[command(no_binary_name = true, disable_help_subcommand = true, name = "")]
struct Typed {
    #[command(subcommand)]
    command: Command,
}

/// What behind a line comes next.
enum Next {
    Line(Exit),
    End,
}

/// Runs the prompt until `quit` or the end of the input.
///
/// On a terminal the exit code is 0; a script gets that of its only error, or
/// [`Exit::SomeFailed`].
pub fn run(client: &mut Client) -> Exit {
    client.is_prompt = true;
    let is_terminal = stdin().is_terminal();
    if let Err(error) = client.ready() {
        report(&error);
        return error.exit;
    }
    if is_terminal && !client.is_quiet() {
        let hello = format!("connected to {}", client.description());
        // Whether anybody reads it shows at the first prompt.
        let _ = print(format_args!("{hello}; help shows the commands"));
    }
    let mut total = Exit::Done;
    loop {
        let typed = match line(is_terminal, "haul> ") {
            Ok(Some(typed)) => typed,
            Ok(None) => break,
            Err(error) => {
                report(&error);
                total = both(total, error.exit);
                match error.exit {
                    Exit::Usage => continue,
                    _ => break,
                }
            }
        };
        match one(client, &typed, is_terminal) {
            Ok(Next::End) => break,
            Ok(Next::Line(Exit::Done)) => {}
            Ok(Next::Line(exit)) => total = both(total, exit),
            Err(error) => {
                report(&error);
                total = both(total, error.exit);
            }
        }
    }
    client.quit();
    match is_terminal {
        true => Exit::Done,
        false => total,
    }
}

fn both(before: Exit, now: Exit) -> Exit {
    match before {
        Exit::Done => now,
        _ => Exit::SomeFailed,
    }
}

/// Reads one line, without its end; `None` at the end of the input.
fn line(is_terminal: bool, question: &str) -> Result<Option<Vec<u8>>, Error> {
    if is_terminal {
        let mut out = stdout();
        write!(out, "{question}")
            .and_then(|()| out.flush())
            .map_err(|e| Error::local(&e).about("standard output"))?;
    }
    let typed = line_of(&mut stdin().lock())?;
    if typed.is_none() && is_terminal {
        let _ = writeln!(stdout());
    }
    Ok(typed)
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

/// Carries out one line.
fn one(client: &mut Client, typed: &[u8], is_terminal: bool) -> Result<Next, Error> {
    let mut words = words(typed)?;
    let Some(first) = words.first_mut() else {
        return Ok(Next::Line(Exit::Done));
    };
    first.make_ascii_lowercase();
    let done = Ok(Next::Line(Exit::Done));
    match first.as_slice() {
        b"quit" | b"exit" | b"bye" => return Ok(Next::End),
        b"help" | b"?" => {
            return print(HELP).and(done);
        }
        b"pwd" => {
            let directory = client.ready()?.cwd()?;
            return print(shown(&directory)).and(done);
        }
        b"cd" => return cd(client, &words[1..]).and(done),
        b"put" => *first = b"upload".to_vec(),
        b"get" => *first = b"download".to_vec(),
        _ => {}
    }
    let is_upload = words[0] == b"upload";
    if is_upload || words[0] == b"download" {
        if words[1..].iter().all(|word| word.starts_with(b"--")) {
            match line(is_terminal, "File name: ")? {
                None => return Ok(Next::End),
                Some(name) if name.trim_ascii().is_empty() => return done,
                Some(name) => words.extend([b"--".to_vec(), name.trim_ascii().to_vec()]),
            }
        } else if is_upload {
            // A file with spaces in its name that is there can only be meant as one.
            let whole = typed.trim_ascii();
            let at = memchr::memchr2(b' ', b'\t', whole).unwrap_or(whole.len());
            let rest = whole[at..].trim_ascii();
            if words.len() > 2 && path_of(rest).is_file() {
                words.truncate(1);
                words.extend([b"--".to_vec(), rest.to_vec()]);
            }
        }
    }
    let arguments = words.into_iter().map(OsString::from_vec);
    match Typed::try_parse_from(arguments) {
        Ok(typed) => Ok(Next::Line(typed.command.run(client))),
        Err(error) => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            if error.use_stderr() {
                Err(Error::usage(format!(
                    "{}; help shows the commands",
                    shown(first.trim_start_matches("error: ").as_bytes())
                )))
            } else {
                print(text).and(done)
            }
        }
    }
}

fn cd(client: &mut Client, words: &[Vec<u8>]) -> Result<(), Error> {
    let path: &[u8] = match words {
        [] => b"/",
        [path] => path,
        _ => {
            return Err(Error::usage(
                "cd takes one directory; quote a name with spaces",
            ));
        }
    };
    let c = client.ready()?;
    c.cd(path)
        .map_err(|e| e.about(format_args!("cannot change to {}", shown(path))))?;
    let now = c.cwd()?;
    client.remember_directory(now);
    Ok(())
}

/// Splits a line into words: at blanks, with `"`, `'` and a backslash as in a shell.
fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        match (quote, byte) {
            (Some(open), byte) if byte == open => quote = None,
            (None, b'"' | b'\'') => {
                quote = Some(byte);
                word.get_or_insert_default();
            }
            (None | Some(b'"'), b'\\') => {
                let escaped = bytes.next().ok_or_else(unfinished)?;
                word.get_or_insert_default().push(escaped);
            }
            (None, b' ' | b'\t') => words.extend(word.take()),
            (_, byte) => word.get_or_insert_default().push(byte),
        }
    }
    if quote.is_some() {
        return Err(unfinished());
    }
    words.extend(word);
    Ok(words)
}

fn unfinished() -> Error {
    Error::usage("a quote or a backslash is not finished")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &[&str]) {
        let split = words(line.as_bytes()).unwrap();
        let split: Vec<&str> = split
            .iter()
            .map(|w| std::str::from_utf8(w).unwrap())
            .collect();
        assert_eq!(split, expected, "{line}");
    }

    #[test]
    fn lines_are_split_as_in_a_shell() {
        check("", &[]);
        check("  ls  ", &["ls"]);
        check("UPLOAD a\tb", &["UPLOAD", "a", "b"]);
        check(r#"get "a b" 'c "d'"#, &["get", "a b", "c \"d"]);
        check(r#"get a\ b "c\"d" '\'"#, &["get", "a b", "c\"d", "\\"]);
        check(r#"get "" x"y z""#, &["get", "", "xy z"]);
        for bad in ["get \"a", "get 'a", "get a\\"] {
            assert!(words(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn lines_are_parsed_as_commands() {
        let parse = |line: &[&str]| Typed::try_parse_from(line).map(|typed| typed.command);
        assert!(matches!(
            parse(&["ls", "-l", "x"]),
            Ok(Command::Ls { long: true, .. })
        ));
        assert!(matches!(
            parse(&["upload", "--", "-x"]),
            Ok(Command::Upload(_))
        ));
        assert!(parse(&["nonsense"]).is_err());
        assert!(parse(&["mkdir"]).is_err());
    }

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
    fn several_errors_are_some() {
        assert_eq!(both(Exit::Done, Exit::NotFound), Exit::NotFound);
        assert_eq!(both(Exit::NotFound, Exit::Local), Exit::SomeFailed);
    }
}
