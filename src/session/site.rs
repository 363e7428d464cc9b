//! SITE: CHMOD, UTIME, UMASK, IDLE, QUOTA and HELP.

use std::io;

use super::files::{set_modified, time_and_path};
use super::login::Login;
use super::{Handled, Turn};
use crate::accounts::Permission;
use crate::proto::facts::parse_octal;
use crate::proto::line::{number, verb_and_argument};
use crate::proto::reply::{IntoText, Reply};
use crate::proto::time::parse_14;
use crate::storage::ledger::Usage;
use crate::storage::quota::Full;

const HELP: [&str; 6] = [
    "SITE CHMOD mode path",
    "SITE UTIME YYYYMMDDHHMMSS path",
    "SITE UMASK [mode]",
    "SITE IDLE [seconds]",
    "SITE QUOTA",
    "SITE HELP",
];

pub(super) fn site(login: &mut Login, turn: &mut Turn) -> Handled {
    let (name, argument) = verb_and_argument(turn.argument);
    let argument = argument.unwrap_or_default();
    match name.to_ascii_uppercase().as_slice() {
        b"CHMOD" => chmod(login, argument),
        b"UTIME" => utime(login, argument),
        b"UMASK" => umask(login, argument),
        b"IDLE" => idle(login, turn, argument),
        b"QUOTA" => quota(login),
        b"HELP" => {
            let lines = HELP.map(IntoText::into_text).to_vec();
            Ok(Reply::lines(214, "There are:", lines, "End").into())
        }
        _ => Err(Reply::new(504, "SITE HELP lists what there is.")),
    }
}

/// Set-id and sticky bits are never set.
fn chmod(login: &mut Login, argument: &[u8]) -> Handled {
    login.check(Permission::Chmod)?;
    let (mode, path) = verb_and_argument(argument);
    let (Some(mode), Some(path)) = (parse_octal(mode), path.filter(|path| !path.is_empty())) else {
        return Err(Reply::new(
            501,
            "It is written SITE CHMOD mode path, the mode in octal.",
        ));
    };
    login.home.set_mode(&login.path(path)?, mode & 0o777)?;
    Ok(Reply::new(200, "Done.").into())
}

/// Two forms: `time path`, and `path atime mtime ctime UTC`, of which the second time counts.
fn utime(login: &mut Login, argument: &[u8]) -> Handled {
    login.check(Permission::Write)?;
    let long = long_utime(argument);
    match long.or_else(|| time_and_path(argument)) {
        Some((modify_s, path)) => set_modified(login, modify_s, path),
        None => Err(Reply::new(
            501,
            "It is written SITE UTIME YYYYMMDDHHMMSS path, in UTC.",
        )),
    }
}

fn long_utime(argument: &[u8]) -> Option<(i64, &[u8])> {
    let mut words = argument.rsplitn(5, |&b| b == b' ');
    let zone = words.next()?;
    let (_, modify, _) = (words.next()?, words.next()?, words.next()?);
    let path = words.next().filter(|path| !path.is_empty())?;
    Some((
        parse_14(modify).filter(|_| zone.eq_ignore_ascii_case(b"UTC"))?,
        path,
    ))
}

fn umask(login: &mut Login, argument: &[u8]) -> Handled {
    if !argument.is_empty() {
        let Some(umask) = parse_octal(argument).filter(|umask| *umask <= 0o777) else {
            return Err(Reply::new(501, "It is written SITE UMASK mode, in octal."));
        };
        login.umask = umask;
    }
    Ok(Reply::new(200, format!("The umask is {:03o}.", login.umask)).into())
}

fn idle(login: &mut Login, turn: &mut Turn, argument: &[u8]) -> Handled {
    let longest = turn.cx.config.limits.idle_timeout.as_secs();
    if !argument.is_empty() {
        let Some(seconds) = number(argument).filter(|s| (1..=longest).contains(s)) else {
            return Err(Reply::new(501, format!("It takes 1 to {longest} seconds.")));
        };
        login.idle_timeout_s = Some(seconds);
    }
    let seconds = login.idle_timeout_s.unwrap_or(longest);
    Ok(Reply::new(200, format!("The idle time is {seconds} s.")).into())
}

/// What is used of what the home may hold, uploads that are under way included.
fn quota(login: &mut Login) -> Handled {
    let Some(Usage { used, limit }) = login.home.usage() else {
        return Ok(Reply::new(200, "There is no quota.").into());
    };
    let used = used.ok_or(Full::Counting).map_err(io::Error::other)?;
    let of = |limit: u64| match limit {
        u64::MAX => String::new(),
        limit => format!(" of {limit}"),
    };
    let text = format!(
        "{}{} bytes, {}{} files and directories.",
        used.bytes,
        of(limit.bytes),
        used.files,
        of(limit.files)
    );
    Ok(Reply::new(200, text).into())
}
