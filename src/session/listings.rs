//! Listings over a data connection (LIST, NLST, MLSD), and STAT, which is answered where it is asked.

use rustix::io::Errno;

use super::job::Job;
use super::login::Login;
use super::text::{Source, Style, Text};
use super::transfers::{EndOfText, What, begin};
use super::{Handled, Session, Turn, Wait, Who, inline};
use crate::accounts::Permission;
use crate::proto::facts::Kind;
use crate::proto::reply::{IntoText, Reply};
use crate::storage::path::{VirtualPath, has_wildcards};
use crate::storage::walk::Listing;

pub(super) fn list(login: &mut Login, turn: &mut Turn) -> Handled {
    let style = Style::Lines {
        now_s: turn.cx.wall_s,
    };
    listing(login, turn, style, Prefix::None)
}

pub(super) fn nlst(login: &mut Login, turn: &mut Turn) -> Handled {
    listing(login, turn, Style::Names, Prefix::Argument)
}

pub(super) fn mlsd(login: &mut Login, turn: &mut Turn) -> Handled {
    login.arranged(turn)?;
    let dir = match login.home.open_dir(&login.path(turn.argument)?) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOTDIR) => {
            return Err(Reply::new(501, "Not a directory; MLST is for files."));
        }
        dir => dir?,
    };
    let listing = Listing::new(dir);
    let source = Source::Directory {
        listing,
        pattern: None,
        prefix: Vec::new(),
    };
    let style = Style::facts(turn.preferences.facts, login.permissions);
    send_text(login, turn, Text::new(source, style))
}

fn listing(login: &mut Login, turn: &mut Turn, style: Style, prefix: Prefix) -> Handled {
    login.arranged(turn)?;
    let argument = without_options(login, turn);
    let source = source(login, argument, prefix)?;
    send_text(login, turn, Text::new(source, style))
}

fn send_text(login: &mut Login, turn: &mut Turn, text: Text) -> Handled {
    let what = What::Text(EndOfText::Data);
    begin(
        login,
        turn,
        Reply::new(150, "Here it comes."),
        Job::Text(Box::new(text)),
        what,
    )
}

const OPTION_WORDS_MAX: usize = 8;

/// `-la dir` is `dir`, unless something is called `-la dir`. Each word costs a look at the disk, so
/// that only as many are taken for options as anybody needs.
fn without_options<'a>(login: &Login, turn: &Turn<'a>) -> &'a [u8] {
    let mut rest = turn.argument;
    for _ in 0..OPTION_WORDS_MAX {
        if rest.first() != Some(&b'-') || login.home.lstat(&login.cwd.join(rest)).is_ok() {
            break;
        }
        rest = match memchr::memchr(b' ', rest) {
            Some(space) => &rest[space + 1..],
            None => b"",
        };
    }
    rest
}

/// What stands before the names of a listing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Prefix {
    None,
    /// The directory part of the argument (NLST).
    Argument,
}

/// How a path is shown in a listing: as it was written, unless that has bytes that must not go out.
/// `None`: nothing that can be shown means it.
fn shown(argument: &[u8], path: &VirtualPath) -> Option<Vec<u8>> {
    if !argument.iter().any(u8::is_ascii_control) {
        return Some(argument.to_vec());
    }
    (!path.has_control_bytes()).then(|| path.as_bytes().to_vec())
}

fn source(login: &Login, argument: &[u8], prefix: Prefix) -> Result<Source, Reply> {
    let path = login.path(argument)?;
    let home = &login.home;
    let error = match home.stat(&path).or_else(|_| home.lstat(&path)) {
        Ok(meta) if meta.kind == Kind::Dir => {
            let Some(prefix) = shown_prefix(argument, &path, prefix) else {
                return Ok(Source::Nothing);
            };
            let listing = Listing::new(home.open_dir(&path)?);
            return Ok(Source::Directory {
                listing,
                pattern: None,
                prefix,
            });
        }
        Ok(_) => {
            let meta = home.lstat(&path)?;
            let target = match meta.kind {
                Kind::Link => home.read_link(&path).ok(),
                _ => None,
            };
            return Ok(match shown(argument, &path) {
                Some(name) => Source::One { name, meta, target },
                None => Source::Nothing,
            });
        }
        Err(error) => error,
    };
    let (dir, name) = match memchr::memrchr(b'/', argument) {
        Some(slash) => argument.split_at(slash + 1),
        None => (&b""[..], argument),
    };
    if !has_wildcards(name) {
        return Err(error.into());
    }
    let dir_path = login.path(dir)?;
    let listing = Listing::new(home.open_dir(&dir_path)?);
    let Some(prefix) = shown_prefix(dir, &dir_path, prefix) else {
        return Ok(Source::Nothing);
    };
    Ok(Source::Directory {
        listing,
        pattern: Some(name.to_vec()),
        prefix,
    })
}

/// What stands before each name of the directory; none if that cannot be shown.
fn shown_prefix(argument: &[u8], path: &VirtualPath, prefix: Prefix) -> Option<Vec<u8>> {
    if prefix != Prefix::Argument || argument.is_empty() {
        return Some(Vec::new());
    }
    let mut before = shown(argument, path)?;
    if before.last() != Some(&b'/') {
        before.push(b'/');
    }
    Some(before)
}

pub(super) fn stat(session: &mut Session, turn: &mut Turn) -> Handled {
    if turn.argument.is_empty() {
        return Ok(status(session).into());
    }
    let Who::Known(login) = &mut session.who else {
        return Err(super::not_logged_in());
    };
    login.check(Permission::List)?;
    let argument = without_options(login, turn);
    let source = source(login, argument, Prefix::None)?;
    let title = [b"Status of ", login.path(argument)?.as_bytes()].concat();
    let style = Style::Lines {
        now_s: turn.cx.wall_s,
    };
    let text = Text::in_reply(213, &title, source, style);
    inline::in_band(Job::Text(Box::new(text)), What::Text(EndOfText::Status))
}

fn status(session: &Session) -> Reply {
    let who = match &session.who {
        Who::Stranger { .. } => "Not logged in".into_text(),
        Who::Known(login) => {
            let letter = if login.ascii { "A" } else { "I" };
            format!("Logged in, TYPE {letter}, STRU F, MODE S").into_text()
        }
    };
    let transfer = match &session.wait {
        Wait::Transfer(running) => match running.what {
            What::Store { .. } | What::Discard(_) => "A file is being received",
            What::Send => "A file is being sent",
            What::Text(_) => "A listing is being sent",
        },
        _ => "No transfer is under way",
    };
    let peer = format!("Connected from {}", session.peer).into_text();
    Reply::lines(
        211,
        "Status of haul:",
        vec![peer, who, transfer.into_text()],
        "End",
    )
}
