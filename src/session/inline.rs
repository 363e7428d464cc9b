//! The verbs that carry their data on the control connection: UPLOAD, DOWNLOAD, TREE. What they
//! mean is written at [`crate::proto`].

use std::fs::File;

use sha2::{Digest, Sha256};

use super::files::{dispose_of, path_of};
use super::job::{Job, Receive, Transfer, Via};
use super::login::Login;
use super::partials::{self, Asked, Begun, Continuing, NotYet};
use super::text::{Source, Style, Text};
use super::transfers::{EndOfText, What, mode_of, part_of};
use super::{Action, Answer, Handled, Pending, Session, Task, Turn, Who};
use crate::accounts::Permission;
use crate::proto::reply::Reply;
use crate::proto::upload::{self, Head, IMMEDIATE_BYTES_MAX};
use crate::storage::partials::NAMED_FROM_BYTES;
use crate::storage::staging::Publish;
use crate::storage::walk::Tree;

/// Over the control connection.
pub(super) fn in_band(job: Job, what: What) -> Handled {
    let (via, protect) = (Via::Control, false);
    Ok(Answer::Transfer(Transfer { job, via, protect }, what))
}

pub(super) fn download(login: &mut Login, turn: &mut Turn) -> Handled {
    let path = login.path(turn.argument)?;
    let (file, meta) = login.home.open_file(&path)?;
    let send = part_of(&path, file, &meta, login.restart, false)?;
    log::debug!("{} DOWNLOAD {}", login.peer, path);
    turn.out.push(Action::Reply(Reply::new(
        150,
        format!("{} bytes follow.", send.bytes),
    )));
    in_band(Job::Send(send), What::Send)
}

pub(super) fn tree(login: &mut Login, turn: &mut Turn) -> Handled {
    let path = path_of(&login.cwd, turn.argument)?;
    let source = Source::Tree(Tree::new(login.home.clone(), &path)?);
    let title = [b"Tree of ", path.as_bytes()].concat();
    let style = Style::facts(turn.preferences.facts, login.permissions);
    let text = Text::in_reply(250, &title, source, style);
    in_band(Job::Text(Box::new(text)), What::Text(EndOfText::Tree))
}

/// The number is looked at before anything else, and every refusal of an immediate upload first
/// throws its body away: no byte of it may become a command.
pub(super) fn upload(session: &mut Session, turn: &mut Turn) -> Handled {
    let (bytes, facts, path, immediate) = match upload::parse(turn.argument) {
        Head::Waiting { bytes, facts, path } => (bytes, facts, path, false),
        Head::Immediate { bytes, facts, path } => (bytes, facts, path, true),
        Head::Malformed => {
            return refuse_waiting(turn, Reply::new(501, "It is written UPLOAD bytes path."));
        }
        Head::Lost => {
            let text = format!("UPLOAD with + takes up to {IMMEDIATE_BYTES_MAX} bytes.");
            return Ok(Answer::Close(Reply::new(501, text)));
        }
    };
    let Who::Known(login) = &mut session.who else {
        if immediate {
            return Ok(Answer::Close(super::not_logged_in()));
        }
        return refuse_waiting(turn, super::not_logged_in());
    };
    match stage(login, turn, bytes, facts, path) {
        Ok(staged) => {
            let reply = Reply::new(150, format!("send {bytes} bytes."));
            take_body(turn, staged, (!immediate).then_some(reply))
        }
        Err(NotYet::Refused(reply)) if immediate => {
            in_band(Job::Discard(bytes), What::Discard(reply))
        }
        Err(NotYet::Refused(reply)) => refuse_waiting(turn, reply),
        Err(NotYet::Asking) => NotYet::Asking.answer(),
    }
}

/// Where an upload is to go whose body follows its line at once.
pub(super) fn immediate_path(argument: &[u8]) -> Option<&[u8]> {
    match upload::parse(argument) {
        Head::Immediate { path, .. } => Some(path.unwrap_or_default()),
        Head::Waiting { .. } | Head::Malformed | Head::Lost => None,
    }
}

/// An upload whose body comes next.
struct Staged {
    receive: Receive,
    what: What,
    /// The stated digest is that of the whole file, and a part of it is here already.
    to_hash: Option<File>,
}

fn take_body(turn: &mut Turn, staged: Staged, reply: Option<Reply>) -> Handled {
    let Staged {
        receive,
        what,
        to_hash,
    } = staged;
    let bytes = receive.at;
    let job = Job::Receive(Box::new(receive));
    let Some(file) = to_hash else {
        turn.out.extend(reply.map(Action::Reply));
        return in_band(job, what);
    };
    let (via, protect) = (Via::Control, false);
    turn.out.push(Action::Run(Task::Hash { file, bytes }));
    let transfer = Transfer { job, via, protect };
    let continuing = Continuing {
        reply,
        transfer,
        what,
    };
    Ok(Pending::Continue(continuing).into())
}

/// A client that did not wait for 150 has sent its body already: what follows is no command.
fn refuse_waiting(turn: &Turn, reply: Reply) -> Handled {
    if turn.more_behind {
        return Ok(Answer::Close(reply));
    }
    Err(reply)
}

fn stage(
    login: &mut Login,
    turn: &mut Turn,
    bytes: u64,
    facts: &[u8],
    path: Option<&[u8]>,
) -> Result<Staged, NotYet> {
    let Some(path) = path.filter(|path| !path.is_empty()) else {
        return Err(Reply::new(501, "It is written UPLOAD bytes path.").into());
    };
    if turn.argument.contains(&0) {
        return Err(Reply::new(501, "There is a NUL byte in the line.").into());
    }
    let Some(facts) = upload::parse_facts(facts) else {
        let text = "There are the facts modify, unix.mode and sha256.";
        return Err(Reply::new(501, text).into());
    };
    login.check(Permission::Write)?;
    let path = login.new_path(path)?;
    let mut begun = partials::stage(login, turn, &path, Asked::Upload)?;
    begun.upload.announce(begun.at + bytes)?;
    let Begun { mut upload, at, .. } = begun;
    let to_hash = match at > 0 && facts.sha256.is_some() {
        true => Some(upload.file()?.try_clone()?),
        false => None,
    };
    dispose_of(upload.replace_partial()?, turn);
    if at + bytes > NAMED_FROM_BYTES {
        upload.take_partial_name();
    }
    log::debug!("{} UPLOAD {}", login.peer, path);
    let publish = Publish {
        mode: facts.mode.unwrap_or_else(|| mode_of(&upload, login.umask)),
        modify_s: facts.modify_s,
        replace: true,
    };
    let digest = facts.sha256.map(|_| Sha256::new());
    let receive = Receive {
        upload,
        at,
        bytes: Some(bytes),
        ascii: None,
        digest,
    };
    let what = What::Store {
        publish,
        sha256: facts.sha256,
    };
    Ok(Staged {
        receive,
        what,
        to_hash,
    })
}
