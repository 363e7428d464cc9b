//! `haul` without a command: commands line by line, from a person or from a script.
//!
//! It adds words, questions and the working directory to [`Command`]; what a command does is
//! decided there. On a terminal it greets and prompts; in a script it prints nothing of its own.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{Write, stderr};
use std::os::unix::ffi::OsStringExt;

use clap::Parser;

use super::commands::report;
use super::completion::Subject;
use super::error::{Error, Exit, shown};
use super::interrupt;
use super::lines::Lines;
use super::local::{bytes_of, path_of};
use super::show::print;
use super::{Client, Command};

const HELP: &str = "\
upload [FILE... [REMOTE]]     send files; asks for a name without one (or: put)
download [FILE... [LOCAL]]    bring files; --force replaces local ones (or: get)
                              both with -r: directories with all that is in them
sync DIR :DIR, sync :DIR DIR  make the second like the first; : means remote
ls [-l] [DIR...]              list directories
tree [DIR]                    list everything below a directory
cd [DIR], pwd                 change, show the remote directory
lcd [DIR], lpwd               change, show the directory of this machine
mkdir DIR...                  make directories; -p: those above them too
rm FILE..., rm -d DIR...      remove files, empty directories; rm -r DIR: with
                              all that is in them; -f: if they are there
mv FROM TO, mv FROM... DIR    rename, move; a file that has the name is replaced
stat PATH..., hash FILE...    show type, size and time, or digests
help, quit                    this text, the end
Words are in any case; names with spaces stand in quotes; *, ? and [a-z] stand
for many names; # begins a comment. Tab completes; Ctrl-C ends what is running,
Ctrl-D the program.";

/// One line, parsed like a command line.
#[derive(Parser)]
#[command(no_binary_name = true, disable_help_subcommand = true, name = "")]
pub struct Typed {
    #[command(subcommand)]
    command: Command,
}

/// What behind a line comes next.
enum Next {
    Line(Exit),
    /// The directory that was to be changed to is not there.
    Lost(Error),
    End,
}

/// Runs the prompt until `quit` or the end of the input.
///
/// On a terminal the exit code is 0; a script gets that of its only error, or
/// [`Exit::SomeFailed`].
pub fn run(client: &mut Client) -> Exit {
    client.is_prompt = true;
    let shared = RefCell::new(client);
    let (exit, is_terminal) = match Lines::new(&shared) {
        Ok(mut lines) => (all(&shared, &mut lines), lines.is_terminal()),
        Err(error) => {
            report(&error);
            return error.exit;
        }
    };
    shared.borrow_mut().quit();
    match (exit, is_terminal) {
        (Ok(_), true) => Exit::Done,
        (Ok(exit) | Err(exit), _) => exit,
    }
}

/// Every line; no server at the beginning is an error whoever types.
fn all(client: &RefCell<&mut Client>, lines: &mut Lines) -> Result<Exit, Exit> {
    if lines.is_terminal() {
        interrupt::spare_the_program();
    }
    if let Err(error) = client.borrow_mut().ready().map(drop) {
        report(&error);
        return Err(error.exit);
    }
    if lines.is_terminal() && !client.borrow().is_quiet() {
        let hello = format!("connected to {}", client.borrow().description());
        // Whether anybody reads it shows at the first prompt.
        let _ = print(format_args!("{hello}; help shows the commands"));
    }
    let mut total = Exit::Done;
    loop {
        let typed = match lines.next("haul> ", Subject::Command) {
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
        let done = one(client, lines, &typed);
        match done {
            Ok(Next::End) => break,
            Ok(Next::Line(Exit::Done)) => {}
            Ok(Next::Line(exit)) => total = both(total, exit),
            Ok(Next::Lost(error)) if !lines.is_terminal() => {
                let why = "the script ends here: what follows is meant for another directory";
                let error = error.hint(why);
                report(&error);
                total = both(total, error.exit);
                break;
            }
            Ok(Next::Lost(error)) => report(&error),
            Err(error) => {
                report(&error);
                total = both(total, error.exit);
            }
        }
    }
    Ok(total)
}

/// Runs a command that Ctrl-C ends.
fn interruptible<T>(client: &mut Client, act: impl FnOnce(&mut Client) -> T) -> T {
    interrupt::begin();
    let done = act(client);
    if let Some(what) = interrupt::end() {
        let _ = writeln!(stderr(), "haul: {what}");
        client.abandon();
    }
    done
}

fn both(before: Exit, now: Exit) -> Exit {
    match before {
        Exit::Done => now,
        _ => Exit::SomeFailed,
    }
}

/// Carries out one line.
fn one(shared: &RefCell<&mut Client>, lines: &mut Lines, typed: &[u8]) -> Result<Next, Error> {
    let done = Ok(Next::Line(Exit::Done));
    if typed.trim_ascii_start().starts_with(b"#") {
        return done;
    }
    let mut words = words(typed)?;
    let Some(first) = words.first_mut() else {
        return done;
    };
    first.make_ascii_lowercase();
    match first.as_slice() {
        b"quit" | b"exit" | b"bye" => return Ok(Next::End),
        b"help" | b"?" => return print(HELP).and(done),
        b"pwd" => {
            let mut client = shared.borrow_mut();
            let directory = interruptible(&mut client, |client| client.ready()?.cwd())?;
            return print(shown(&directory)).and(done);
        }
        b"cd" => {
            let mut client = shared.borrow_mut();
            let moved = interruptible(&mut client, |client| cd(client, &words[1..]));
            return moved.map_or_else(|error| Ok(Next::Lost(error)), |()| done);
        }
        b"lcd" => return lcd(&words[1..]).map_or_else(|e| Ok(Next::Lost(e)), |()| done),
        b"lpwd" => {
            let here = std::env::current_dir().map_err(|e| Error::local(&e))?;
            return print(shown(bytes_of(here.as_os_str()))).and(done);
        }
        b"put" | b"upload" => {
            *first = b"upload".to_vec();
            if has_name(&words) {
                join_file_name(&mut words, typed);
            } else if let Some(next) = ask_for_name(&mut words, lines, Subject::LocalName)? {
                return Ok(next);
            }
        }
        b"get" | b"download" => {
            *first = b"download".to_vec();
            if !has_name(&words)
                && let Some(next) = ask_for_name(&mut words, lines, Subject::RemoteName)?
            {
                return Ok(next);
            }
        }
        _ => {}
    }
    match Typed::try_parse_from(words.into_iter().map(OsString::from_vec)) {
        Ok(mut typed) => {
            let mut client = shared.borrow_mut();
            let exit = interruptible(&mut client, |client| typed.command.run(client));
            Ok(Next::Line(exit))
        }
        Err(error) if error.use_stderr() => {
            // What is wrong is the first paragraph: names that are missing have lines of their own.
            let text = error.to_string();
            let lines = text.lines().map(str::trim);
            let lines: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
            let what = lines.join(" ");
            Err(Error::usage(format!(
                "{}; help shows the commands",
                shown(what.trim_start_matches("error: ").as_bytes())
            )))
        }
        Err(help) => print(help).and(done),
    }
}

/// Whether anything but long options stands behind the command, or nothing is to be moved.
fn has_name(words: &[Vec<u8>]) -> bool {
    let is_enough = |word: &Vec<u8>| !word.starts_with(b"--") || word == b"--help";
    words[1..].iter().any(is_enough)
}

/// Asks for the file name of a transfer that was typed without one. `Some`: nothing is to be moved.
fn ask_for_name(
    words: &mut Vec<Vec<u8>>,
    lines: &mut Lines,
    subject: Subject,
) -> Result<Option<Next>, Error> {
    match lines.next("File name: ", subject)? {
        None if lines.is_terminal() => Ok(Some(Next::End)),
        None => Err(Error::usage(
            "the input ends where a file name was to come; nothing was moved",
        )),
        Some(name) if name.trim_ascii().is_empty() => Ok(Some(Next::Line(Exit::Done))),
        Some(name) => {
            words.extend([b"--".to_vec(), name.trim_ascii().to_vec()]);
            Ok(None)
        }
    }
}

/// Several words that are together the name of a local file can only be meant as one.
fn join_file_name(words: &mut Vec<Vec<u8>>, typed: &[u8]) {
    let whole = typed.trim_ascii();
    let at = memchr::memchr2(b' ', b'\t', whole).unwrap_or(whole.len());
    let rest = whole[at..].trim_ascii();
    if words.len() > 2 && path_of(rest).is_file() {
        words.truncate(1);
        words.extend([b"--".to_vec(), rest.to_vec()]);
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

fn lcd(words: &[Vec<u8>]) -> Result<(), Error> {
    let path = match words {
        [] => std::env::var_os("HOME").unwrap_or_default().into(),
        [path] => path_of(path),
        _ => {
            return Err(Error::usage(
                "lcd takes one directory; quote a name with spaces",
            ));
        }
    };
    let what = || format!("cannot change to {}", shown(bytes_of(path.as_os_str())));
    std::env::set_current_dir(&path).map_err(|e| Error::local(&e).about(what()))
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
    fn the_help_fits_a_terminal() {
        for line in HELP.lines() {
            assert!(line.len() <= 80, "{line}");
        }
    }

    #[test]
    fn several_errors_are_some() {
        assert_eq!(both(Exit::Done, Exit::NotFound), Exit::NotFound);
        assert_eq!(both(Exit::NotFound, Exit::Local), Exit::SomeFailed);
    }
}
