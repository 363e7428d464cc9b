//! Names and directories: CWD, CDUP, PWD, MKD, RMD, DELE, RNFR, RNTO, SIZE, MDTM, MFMT, MLST, AVBL,
//! HASH and its older forms. Nothing here needs a data connection.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::login::Login;
use super::partials::{remove_partial, size_of_partial};
use super::{Action, Algorithm, Handled, Pending, Task, Turn};
use crate::accounts::Permission;
use crate::config::Durability;
use crate::proto::facts::{Kind, write_facts};
use crate::proto::reply::{IntoText, Reply, quoted};
use crate::proto::time::{parse_14, text_14};
use crate::storage::partials::{Place, Removed, clear_dir};
use crate::storage::path::VirtualPath;

/// What a path argument means, seen from `cwd`, if clients can reach it.
pub(super) fn path_of(cwd: &VirtualPath, argument: &[u8]) -> Result<VirtualPath, Reply> {
    let path = cwd.join(argument);
    if path.is_reserved() {
        return Err(Reply::new(
            553,
            "Names that begin with .haul- are the server's own.",
        ));
    }
    Ok(path)
}

impl Login {
    /// A path at which something may be created.
    pub(super) fn new_path(&self, argument: &[u8]) -> Result<VirtualPath, Reply> {
        let path = self.path(argument)?;
        if path.is_root() {
            return Err(Reply::new(553, "That is the root directory."));
        }
        if path.has_control_bytes() {
            return Err(Reply::new(553, "Control bytes are not allowed in names."));
        }
        if path.is_too_long() {
            return Err(Reply::new(553, "The path is too long."));
        }
        Ok(path)
    }
}

pub(super) fn cwd(login: &mut Login, turn: &mut Turn) -> Handled {
    let path = login.path(turn.argument)?;
    if login.home.stat(&path)?.kind != Kind::Dir {
        return Err(Reply::new(550, "Not a directory."));
    }
    login.cwd = path;
    Ok(Reply::new(250, "Done.").into())
}

pub(super) fn cdup(login: &mut Login, _: &mut Turn) -> Handled {
    login.cwd = login.cwd.join(b"..");
    Ok(Reply::new(250, "Done.").into())
}

pub(super) fn pwd(login: &mut Login, _: &mut Turn) -> Handled {
    let mut text = quoted(login.cwd.as_bytes());
    text.extend_from_slice(b" is the current directory.");
    Ok(Reply::new(257, text).into())
}

pub(super) fn mkd(login: &mut Login, turn: &mut Turn) -> Handled {
    let path = login.new_path(turn.argument)?;
    login.home.create_dir(&path, 0o777 & !login.umask)?;
    let mut text = quoted(path.as_bytes());
    text.extend_from_slice(b" was made.");
    Ok(Reply::new(257, text).into())
}

pub(super) fn rmd(login: &mut Login, turn: &mut Turn) -> Handled {
    let path = login.path(turn.argument)?;
    match login.home.remove_dir(&path) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOTEMPTY) => {
            // Nobody can see what may be in it.
            for large in clear_dir(&login.home, &path)? {
                dispose_of(Some(large), turn);
            }
            login.home.remove_dir(&path)?;
        }
        done => done?,
    }
    Ok(Reply::new(250, "Removed.").into())
}

/// Freeing the blocks of a large file takes long, but only once nobody has it open; so the last
/// descriptor of one is closed elsewhere.
pub(super) fn dispose_of(kept: Option<OwnedFd>, turn: &mut Turn) {
    if let Some(file) = kept {
        turn.out.push(Action::Run(Task::Dispose(file)));
    }
}

pub(super) fn dele(login: &mut Login, turn: &mut Turn) -> Handled {
    let path = login.path(turn.argument)?;
    let kept = login.home.keep_if_large(&path);
    match login.home.remove_file(&path) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => {
            return remove_partial(login, turn, &path);
        }
        done => done?,
    }
    dispose_of(kept, turn);
    if let Ok(place) = Place::of(&login.home, &path, &login.owner) {
        if let Removed::Gone(large) = place.remove() {
            dispose_of(large, turn);
        }
        turn.out.push(Action::Outdate(place.key()));
    }
    Ok(Reply::new(250, "Removed.").into())
}

pub(super) fn rnfr(login: &mut Login, turn: &mut Turn) -> Handled {
    let path = login.path(turn.argument)?;
    login.home.lstat(&path)?;
    login.rename_from = Some(path);
    Ok(Reply::new(350, "Send RNTO with the new name.").into())
}

pub(super) fn rnto(login: &mut Login, turn: &mut Turn) -> Handled {
    let Some(from) = login.rename_from.take() else {
        return Err(Reply::new(503, "Send RNFR first."));
    };
    let to = login.new_path(turn.argument)?;
    let kept = login.home.keep_if_large(&to);
    // What it replaces is gone, as behind STOR or DELE.
    let may_replace = [Permission::Write, Permission::Delete]
        .into_iter()
        .any(|it| login.permissions.allow(it));
    match login.home.rename(&from, &to, may_replace) {
        Ok(renamed) => {
            dispose_of(kept, turn);
            let reply = Reply::new(250, "Renamed.");
            if turn.cx.config.durability != Durability::Full {
                return Ok(reply.into());
            }
            turn.out.push(Action::Run(Task::SyncNames(renamed)));
            Ok(Pending::Names(reply).into())
        }
        Err(error) => Err(match Errno::from_io_error(&error) {
            Some(Errno::XDEV) => Reply::new(553, "That is on another file system."),
            Some(Errno::ISDIR) => Reply::new(553, "The new name is a directory."),
            Some(Errno::EXIST) => {
                Reply::new(553, "The new name is taken, and is not to be replaced.")
            }
            Some(Errno::INVAL) => Reply::new(553, "A directory cannot be moved into itself."),
            _ => error.into(),
        }),
    }
}

pub(super) fn size(login: &mut Login, turn: &mut Turn) -> Handled {
    if login.ascii {
        return Err(Reply::new(
            550,
            "The size in TYPE A is not known; use TYPE I.",
        ));
    }
    let path = login.path(turn.argument)?;
    let meta = match login.home.stat(&path) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => {
            return size_of_partial(login, turn, &path);
        }
        found => found?,
    };
    match meta.kind {
        Kind::File => Ok(Reply::new(213, meta.size.to_string()).into()),
        Kind::Dir => Err(io::Error::from(Errno::ISDIR).into()),
        Kind::Link | Kind::Other => Err(io::Error::from(Errno::NXIO).into()),
    }
}

/// MDTM with a time before the path sets it, unless a file is called just that.
pub(super) fn mdtm(login: &mut Login, turn: &mut Turn) -> Handled {
    let whole = login.path(turn.argument)?;
    match login.home.stat(&whole) {
        Ok(meta) => Ok(Reply::new(213, text_14(meta.modify_s)).into()),
        Err(error) => match time_and_path(turn.argument) {
            Some((modify_s, path)) => {
                login.check(Permission::Write)?;
                set_modified(login, modify_s, path)
            }
            None => Err(error.into()),
        },
    }
}

pub(super) fn mfmt(login: &mut Login, turn: &mut Turn) -> Handled {
    match time_and_path(turn.argument) {
        Some((modify_s, path)) => set_modified(login, modify_s, path),
        None => Err(Reply::new(
            501,
            "It is written MFMT YYYYMMDDHHMMSS path, in UTC.",
        )),
    }
}

/// `20260131120000 a/b`.
pub(super) fn time_and_path(argument: &[u8]) -> Option<(i64, &[u8])> {
    let space = memchr::memchr(b' ', argument)?;
    let path = &argument[space + 1..];
    if path.is_empty() {
        return None;
    }
    Some((parse_14(&argument[..space])?, path))
}

pub(super) fn set_modified(login: &Login, modify_s: i64, path: &[u8]) -> Handled {
    let whole = login.path(path)?;
    login.home.set_modified(&whole, modify_s)?;
    // No file system keeps every year that can be written.
    let kept_s = login.home.stat(&whole)?.modify_s;
    let mut text = b"Modify=".to_vec();
    text.extend_from_slice(&text_14(kept_s));
    text.extend_from_slice(b"; ");
    text.extend_from_slice(path);
    Ok(Reply::new(213, text).into())
}

pub(super) fn mlst(login: &mut Login, turn: &mut Turn) -> Handled {
    let path = login.path(turn.argument)?;
    let meta = login.home.lstat(&path)?;
    let target = match meta.kind {
        Kind::Link => login.home.read_link(&path).ok(),
        _ => None,
    };
    let mut line = Vec::new();
    let perms = login.permissions.letters();
    write_facts(
        &mut line,
        turn.preferences.facts,
        &meta,
        target.as_deref(),
        &perms,
        false,
    );
    line.push(b' ');
    line.extend_from_slice(path.as_bytes());
    let title = [b"Listing ", path.as_bytes()].concat();
    Ok(Reply::lines(250, title, vec![line.into_text()], "End").into())
}

pub(super) fn avbl(login: &mut Login, turn: &mut Turn) -> Handled {
    let free = login.home.free_bytes(&login.path(turn.argument)?)?;
    Ok(Reply::new(213, free.to_string()).into())
}

/// What the reply to a digest verb says beside the digest.
#[derive(Debug)]
pub(super) struct DigestOf {
    pub(super) path: Vec<u8>,
    pub(super) bytes: u64,
    pub(super) algorithm: Algorithm,
}

fn digest(
    login: &mut Login,
    turn: &mut Turn,
    algorithm: Algorithm,
    reply: fn(&DigestOf, &str) -> Reply,
) -> Handled {
    let (file, meta) = login.home.open_file(&login.path(turn.argument)?)?;
    turn.out.push(Action::Run(Task::Digest {
        file,
        bytes: meta.size,
        algorithm,
    }));
    let of = DigestOf {
        path: turn.argument.to_vec(),
        bytes: meta.size,
        algorithm,
    };
    Ok(Pending::Digest { reply, of }.into())
}

/// draft-bryan-ftp-hash section 3.
pub(super) fn hash(login: &mut Login, turn: &mut Turn) -> Handled {
    digest(login, turn, turn.preferences.hash, |of, hex| {
        let last = of.bytes.saturating_sub(1);
        let mut text = format!("{} 0-{last} {hex} ", of.algorithm.name()).into_bytes();
        text.extend_from_slice(&of.path);
        Reply::new(213, text)
    })
}

fn bare(_: &DigestOf, hex: &str) -> Reply {
    Reply::new(250, hex.to_string())
}

pub(super) fn xcrc(login: &mut Login, turn: &mut Turn) -> Handled {
    digest(login, turn, Algorithm::Crc32, bare)
}

pub(super) fn xmd5(login: &mut Login, turn: &mut Turn) -> Handled {
    digest(login, turn, Algorithm::Md5, bare)
}

pub(super) fn xsha256(login: &mut Login, turn: &mut Turn) -> Handled {
    digest(login, turn, Algorithm::Sha256, bare)
}

pub(super) fn xsha512(login: &mut Login, turn: &mut Turn) -> Handled {
    digest(login, turn, Algorithm::Sha512, bare)
}
