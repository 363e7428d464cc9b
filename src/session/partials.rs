//! Interrupted uploads: what a client asks of them (PARTIAL), and where an upload begins that may
//! continue one. The rules are written at [`crate::proto`].

use std::fs::File;
use std::io;

use rustix::io::Errno;
use sha2::Sha256;

use super::files::{DigestOf, dispose_of};
use super::job::{Job, Transfer};
use super::login::Login;
use super::transfers::What;
use super::{Action, Algorithm, Answer, Context, Handled, Pending, Session, Task, Turn, Wait};
use crate::proto::reply::Reply;
use crate::storage::partials::{Found, Interrupted, Place, Removed, Retained};
use crate::storage::path::VirtualPath;
use crate::storage::staging::Upload;

/// A command that waits until nobody else writes the partial it is about.
#[derive(Debug)]
pub(super) struct Reaching {
    line: Vec<u8>,
    more_behind: bool,
}

/// An upload with a stated digest that waits for the digest of what it continues.
#[derive(Debug)]
pub(super) struct Continuing {
    /// `None`: the body comes without waiting for one.
    pub(super) reply: Option<Reply>,
    pub(super) transfer: Transfer,
    pub(super) what: What,
}

/// Where an upload begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beginning {
    /// At the first byte.
    Afresh,
    /// Behind so many bytes of the published file.
    Behind(u64),
    /// Behind so many bytes of the partial.
    Continued(u64),
}

/// REST and STOR: what is published and what is partial, in bytes, where there is any.
fn stor_begins(
    restart: u64,
    published: Option<u64>,
    partial: Option<u64>,
) -> Result<Beginning, Reply> {
    match (restart, published, partial) {
        (0, ..) => Ok(Beginning::Afresh),
        (at, None, Some(partial)) if at <= partial => Ok(Beginning::Continued(at)),
        (at, Some(_), Some(partial)) if at == partial => Ok(Beginning::Continued(at)),
        (_, _, Some(partial)) => Err(Reply::new(
            554,
            format!(
                "{partial} bytes of an interrupted upload wait; continue there, or without REST."
            ),
        )),
        (at, Some(published), None) if at <= published => Ok(Beginning::Behind(at)),
        (_, Some(published), None) => {
            Err(Reply::new(554, format!("The file has {published} bytes.")))
        }
        (_, None, None) => Err(nothing_to_continue()),
    }
}

fn appe_begins(published: Option<u64>, partial: Option<u64>) -> Result<Beginning, Reply> {
    match (published, partial) {
        (None, Some(partial)) => Ok(Beginning::Continued(partial)),
        (Some(_), Some(_)) => Err(an_upload_waits()),
        (None | Some(0), None) => Ok(Beginning::Afresh),
        (Some(published), None) => Ok(Beginning::Behind(published)),
    }
}

/// The length of both parts together is known, so the place where they meet has to be exact.
fn upload_begins(restart: u64, partial: Option<u64>) -> Result<Beginning, Reply> {
    match (restart, partial) {
        (0, _) => Ok(Beginning::Afresh),
        (at, Some(partial)) if at == partial => Ok(Beginning::Continued(at)),
        _ => Err(nothing_to_continue()),
    }
}

fn nothing_to_continue() -> Reply {
    Reply::new(554, "There is nothing to continue from there.")
}

fn an_upload_waits() -> Reply {
    Reply::new(
        550,
        "An interrupted upload of that name waits; continue it by REST and STOR, or send all of it.",
    )
}

fn busy() -> Reply {
    Reply::new(450, "It is being uploaded now; try again later.")
}

/// Why there is no partial to go on with.
pub(super) enum NotYet {
    /// The shell has been asked whether somebody else writes it.
    Asking,
    /// There is none to be had.
    Refused(Reply),
}

impl NotYet {
    pub(super) fn answer(self) -> Handled {
        match self {
            NotYet::Asking => Ok(Answer::Reach),
            NotYet::Refused(reply) => Err(reply),
        }
    }
}

impl From<Reply> for NotYet {
    fn from(reply: Reply) -> NotYet {
        NotYet::Refused(reply)
    }
}

impl From<io::Error> for NotYet {
    fn from(error: io::Error) -> NotYet {
        NotYet::Refused(error.into())
    }
}

/// The first time a command comes here it asks whether another session writes that partial, and is
/// run again with the answer.
fn reach(login: &Login, turn: &mut Turn, path: &VirtualPath) -> Result<Place, NotYet> {
    let place = Place::of(&login.home, path, &login.owner)?;
    match turn.reached {
        None => {
            turn.out.push(Action::Reach(place.key()));
            Err(NotYet::Asking)
        }
        Some(false) => Err(busy().into()),
        Some(true) => Ok(place),
    }
}

fn retained(
    login: &Login,
    turn: &mut Turn,
    path: &VirtualPath,
) -> Result<Option<Retained>, NotYet> {
    match reach(login, turn, path)?.find()? {
        Found::Nothing => Ok(None),
        Found::Busy => Err(busy().into()),
        Found::Retained(retained) => Ok(Some(retained)),
    }
}

impl Session {
    /// The command has to wait for the shell's answer to [`Action::Reach`].
    pub(super) fn wait_to_reach(&mut self, line: &[u8], more_behind: bool) {
        let line = line.to_vec();
        self.wait = Wait::Reach(Box::new(Reaching { line, more_behind }));
    }

    /// Runs the command that had to wait, with the answer.
    pub(super) fn reached(
        &mut self,
        free: bool,
        more_behind: bool,
        cx: &Context,
        out: &mut Vec<Action>,
    ) {
        let Wait::Reach(reaching) = std::mem::replace(&mut self.wait, Wait::Command) else {
            debug_assert!(false, "nobody asked who writes a partial");
            return;
        };
        let more_behind = more_behind || reaching.more_behind;
        self.run_line(&reaching.line, more_behind, Some(free), cx, out);
    }

    /// What is continued has been read: its digest goes on with what comes.
    pub(super) fn go_on(
        &mut self,
        continuing: Continuing,
        done: io::Result<Box<Sha256>>,
        out: &mut Vec<Action>,
    ) {
        let Continuing {
            reply,
            mut transfer,
            what,
        } = continuing;
        let Job::Receive(receive) = &mut transfer.job else {
            debug_assert!(false, "only what is received is continued");
            return;
        };
        let (transfer, what) = match done {
            Ok(digest) => {
                receive.digest = Some(*digest);
                if let Some(reply) = reply {
                    out.push(Action::Reply(reply));
                }
                (transfer, what)
            }
            // The body is on its way, and no byte of it may become a command.
            Err(error) if reply.is_none() => {
                let job = Job::Discard(receive.bytes.unwrap_or(0));
                (Transfer { job, ..transfer }, What::Discard(error.into()))
            }
            Err(error) => return self.hang_up(error.into(), out),
        };
        self.transfer(transfer, what, out);
    }
}

/// `PARTIAL path`: `213 n digest`.
pub(super) fn partial(login: &mut Login, turn: &mut Turn) -> Handled {
    let path = login.path(turn.argument)?;
    let retained = match retained(login, turn, &path) {
        Ok(Some(retained)) => retained,
        Ok(None) => return Err(Reply::new(550, "There is nothing to continue.")),
        Err(not_yet) => return not_yet.answer(),
    };
    let bytes = retained.bytes();
    let file = retained.into_file()?;
    turn.out
        .push(Action::Run(Task::PartialDigest { file, bytes }));
    let of = DigestOf {
        path: Vec::new(),
        bytes,
        algorithm: Algorithm::Sha256,
    };
    let reply = |of: &DigestOf, hex: &str| Reply::new(213, format!("{} {hex}", of.bytes));
    Ok(Pending::Digest { reply, of }.into())
}

/// The size of what is not published and can be continued.
pub(super) fn size_of_partial(login: &Login, turn: &mut Turn, path: &VirtualPath) -> Handled {
    match retained(login, turn, path) {
        Ok(Some(retained)) => Ok(Reply::new(213, retained.bytes().to_string()).into()),
        Ok(None) => Err(io::Error::from(Errno::NOENT).into()),
        Err(not_yet) => not_yet.answer(),
    }
}

/// Removes a partial of which nothing is published.
pub(super) fn remove_partial(login: &Login, turn: &mut Turn, path: &VirtualPath) -> Handled {
    let place = match reach(login, turn, path) {
        Ok(place) => place,
        Err(not_yet) => return not_yet.answer(),
    };
    match place.remove() {
        Removed::Gone(large) => {
            dispose_of(large, turn);
            Ok(Reply::new(250, "What there was of an upload is removed.").into())
        }
        Removed::Not => Err(io::Error::from(Errno::NOENT).into()),
    }
}

/// An upload that has been begun: where its bytes go from now on.
pub(super) struct Begun {
    pub(super) upload: Upload,
    pub(super) at: u64,
    /// The file that is to be copied first, up to `at`.
    pub(super) copy: Option<File>,
}

/// How an upload is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// STOR, behind REST or not.
    Stor,
    /// APPE.
    Appe,
    /// UPLOAD, behind REST or not.
    Upload,
}

/// Stages an upload where it is to begin. What there was of it before is to be replaced as soon as
/// nothing can be refused any more ([`Upload::replace_partial`]).
pub(super) fn stage(
    login: &Login,
    turn: &mut Turn,
    path: &VirtualPath,
    asked: Asked,
) -> Result<Begun, NotYet> {
    let restart = login.restart;
    if restart == 0 && asked != Asked::Appe {
        return Ok(begin_afresh(login, path, asked)?);
    }
    if login.ascii && asked == Asked::Stor {
        return Err(Reply::new(554, "REST is for TYPE I.").into());
    }
    let retained = retained(login, turn, path)?;
    let partial = retained.as_ref().map(Retained::bytes);
    if login.ascii && asked == Asked::Appe && partial.is_some() {
        return Err(an_upload_waits().into());
    }
    let published = published(login, path)?;
    let size = published.as_ref().map(|(_, size)| *size);
    let beginning = match asked {
        Asked::Stor => stor_begins(restart, size, partial)?,
        Asked::Appe => appe_begins(size, partial)?,
        Asked::Upload => upload_begins(restart, partial)?,
    };
    match (beginning, published, retained) {
        (Beginning::Behind(at), Some((old, _)), _) => {
            let (home, owner) = (&login.home, &login.owner);
            let upload = Upload::create_for(home, path, owner, Interrupted::Dropped)?;
            let copy = Some(old);
            Ok(Begun { upload, at, copy })
        }
        (Beginning::Continued(at), _, Some(retained)) => {
            let interrupted = interrupted(login, asked);
            let upload = retained.resume(&login.home, path, at, interrupted)?;
            let copy = None;
            Ok(Begun { upload, at, copy })
        }
        _ => Ok(begin_afresh(login, path, asked)?),
    }
}

fn begin_afresh(login: &Login, path: &VirtualPath, asked: Asked) -> Result<Begun, Reply> {
    let interrupted = interrupted(login, asked);
    let upload = Upload::create_for(&login.home, path, &login.owner, interrupted)?;
    Ok(Begun {
        upload,
        at: 0,
        copy: None,
    })
}

/// UPLOAD says how long it is and never translates; STOR and APPE do neither.
fn interrupted(login: &Login, asked: Asked) -> Interrupted {
    match asked {
        Asked::Upload => Interrupted::Kept,
        Asked::Stor | Asked::Appe if login.ascii => Interrupted::Dropped,
        Asked::Stor | Asked::Appe => Interrupted::KeptButOneByte,
    }
}

/// What has the name now, and its size.
fn published(login: &Login, path: &VirtualPath) -> Result<Option<(File, u64)>, Reply> {
    match login.home.open_file(path) {
        Ok((file, meta)) => Ok(Some((file, meta.size))),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table, cell by cell.
    #[test]
    fn where_an_upload_begins() {
        use Beginning::{Afresh, Behind, Continued};
        let code = |result: Result<Beginning, Reply>| result.map_err(|reply| reply.code);
        let cases = [
            // REST, published, partial; STOR, UPLOAD
            (0, None, None, Ok(Afresh), Ok(Afresh)),
            (1, None, None, Err(554), Err(554)),
            (0, None, Some(5), Ok(Afresh), Ok(Afresh)),
            (5, None, Some(5), Ok(Continued(5)), Ok(Continued(5))),
            (4, None, Some(5), Ok(Continued(4)), Err(554)),
            (6, None, Some(5), Err(554), Err(554)),
            (0, Some(9), None, Ok(Afresh), Ok(Afresh)),
            (1, Some(9), None, Ok(Behind(1)), Err(554)),
            (9, Some(9), None, Ok(Behind(9)), Err(554)),
            (10, Some(9), None, Err(554), Err(554)),
            (0, Some(9), Some(5), Ok(Afresh), Ok(Afresh)),
            (5, Some(9), Some(5), Ok(Continued(5)), Ok(Continued(5))),
            (4, Some(9), Some(5), Err(554), Err(554)),
            (6, Some(9), Some(5), Err(554), Err(554)),
            (9, Some(9), Some(5), Err(554), Err(554)),
        ];
        for (restart, published, partial, stor, upload) in cases {
            let case = format!("REST {restart}, {published:?}, {partial:?}");
            assert_eq!(
                code(stor_begins(restart, published, partial)),
                stor,
                "{case}"
            );
            assert_eq!(code(upload_begins(restart, partial)), upload, "{case}");
        }
        for (published, partial, appe) in [
            (None, None, Ok(Afresh)),
            (Some(0), None, Ok(Afresh)),
            (Some(9), None, Ok(Behind(9))),
            (None, Some(5), Ok(Continued(5))),
            (Some(9), Some(5), Err(550)),
            (Some(0), Some(5), Err(550)),
        ] {
            let case = format!("{published:?}, {partial:?}");
            assert_eq!(code(appe_begins(published, partial)), appe, "{case}");
        }
    }
}
