//! Transfers over a data connection: arranging it (PASV, EPSV, PORT, EPRT), saying how (TYPE, MODE,
//! STRU, REST, ALLO), and using it (RETR, STOR, APPE, STOU, LIST, NLST, MLSD, ABOR, STAT).

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;
use sha2::Digest;

use super::job::{Ended, Job, Outcome, Receive, Send, Transfer, Via};
use super::login::Login;
use super::security::refuse_clear_data;
use super::text::{Source, Style, Text};
use super::{Action, Answer, Handled, Later, Session, Task, Turn, Wait, Who};
use crate::accounts::Permission;
use crate::proto::addr::{self, BadAddress};
use crate::proto::ascii::{FromWire, ToWire};
use crate::proto::facts::Kind;
use crate::proto::line::number;
use crate::proto::reply::{IntoText, Reply};
use crate::proto::upload::IMMEDIATE_BYTES_MAX;
use crate::storage::path::{VirtualPath, has_wildcards};
use crate::storage::staging::{self, Publish, Upload};
use crate::storage::walk::Listing;

/// A transfer that is under way.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) via: Via,
    pub(super) what: What,
    /// ABOR asked for its end and waits for its own reply.
    pub(super) aborting: bool,
}

/// What becomes of a transfer when it ends.
#[derive(Debug)]
pub(super) enum What {
    /// 226.
    Send,
    /// The staged file is published, if its digest is the stated one; then the reply.
    Store {
        publish: Publish,
        sha256: Option<[u8; 32]>,
    },
    /// 226 over a data connection; the last line of the reply on the control connection.
    Text(EndOfText),
    /// This refusal, which waited for the body to pass.
    Discard(Reply),
}

/// How a listing ends that is itself a reply.
#[derive(Debug)]
pub(super) enum EndOfText {
    /// It is none.
    Data,
    /// `250 41 entries, 2 left out.`
    Tree,
    /// `213 End.`
    Status,
}

impl Running {
    pub(super) fn in_band(&self) -> bool {
        self.via == Via::Control
    }
}

// How ---------------------------------------------------------------------------------------------

pub(super) fn r#type(login: &mut Login, turn: &mut Turn) -> Handled {
    login.ascii = match turn.argument.to_ascii_uppercase().as_slice() {
        b"A" | b"A N" => true,
        b"I" | b"L 8" | b"L8" => false,
        other if b"AEIL".contains(&other[0]) => {
            return Err(Reply::new(504, "There are TYPE A, TYPE I and TYPE L 8."));
        }
        _ => return Err(Reply::new(501, "There are TYPE A, TYPE I and TYPE L 8.")),
    };
    Ok(Reply::new(
        200,
        if login.ascii {
            "TYPE is A."
        } else {
            "TYPE is I."
        },
    )
    .into())
}

pub(super) fn mode(_: &mut Login, turn: &mut Turn) -> Handled {
    only(turn, b'S', b"BCZ", "There is MODE S.")
}

pub(super) fn stru(_: &mut Login, turn: &mut Turn) -> Handled {
    only(turn, b'F', b"RP", "There is STRU F.")
}

fn only(turn: &Turn, built: u8, known: &[u8], text: &'static str) -> Handled {
    match turn.argument {
        [letter] if letter.eq_ignore_ascii_case(&built) => Ok(Reply::new(200, "Done.").into()),
        [letter] if known.contains(&letter.to_ascii_uppercase()) => Err(Reply::new(504, text)),
        _ => Err(Reply::new(501, text)),
    }
}

/// `ALLO n`, or `ALLO n R m` with a record size that means nothing here.
pub(super) fn allo(login: &mut Login, turn: &mut Turn) -> Handled {
    let digits = turn
        .argument
        .split(|&b| b == b' ')
        .next()
        .unwrap_or_default();
    let Some(bytes) = number(digits) else {
        return Err(Reply::new(501, "It is written ALLO bytes."));
    };
    if login.home.free_bytes(&login.cwd)? < bytes {
        return Err(Reply::new(452, "There is not that much space."));
    }
    Ok(Reply::new(202, "There is space.").into())
}

pub(super) fn rest(login: &mut Login, turn: &mut Turn) -> Handled {
    login.restart = 0;
    let Some(offset) = number(turn.argument) else {
        return Err(Reply::new(
            501,
            "It is written REST offset, in plain digits.",
        ));
    };
    login.restart = offset;
    Ok(Reply::new(350, format!("The next transfer begins at {offset}.")).into())
}

// Over which connection ---------------------------------------------------------------------------

pub(super) fn pasv(login: &mut Login, turn: &mut Turn) -> Handled {
    refuse_after_epsv_all(login)?;
    if login.peer.is_ipv6() {
        return Err(Reply::new(425, "PASV is for IPv4; use EPSV."));
    }
    login.data = None;
    turn.out.push(Action::Listen);
    Ok(Answer::Later(Later::Listening { extended: false }))
}

/// RFC 2428 section 3.
pub(super) fn epsv(login: &mut Login, turn: &mut Turn) -> Handled {
    let v4 = login.peer.is_ipv4();
    match turn.argument.to_ascii_uppercase().as_slice() {
        b"ALL" => {
            login.epsv_all = true;
            return Ok(Reply::new(200, "Only EPSV from now on.").into());
        }
        b"" => {}
        b"1" if v4 => {}
        b"2" if !v4 => {}
        digits if number(digits).is_some() => return Err(wrong_family(v4)),
        _ => {
            return Err(Reply::new(
                501,
                "There are EPSV, EPSV 1, EPSV 2 and EPSV ALL.",
            ));
        }
    }
    turn.out.push(Action::Listen);
    Ok(Answer::Later(Later::Listening { extended: true }))
}

fn wrong_family(v4: bool) -> Reply {
    Reply::new(
        522,
        if v4 {
            "Use protocol (1)."
        } else {
            "Use protocol (2)."
        },
    )
}

fn refuse_after_epsv_all(login: &Login) -> Result<(), Reply> {
    if login.epsv_all {
        return Err(Reply::new(501, "Only EPSV is left after EPSV ALL."));
    }
    Ok(())
}

pub(super) fn port(login: &mut Login, turn: &mut Turn) -> Handled {
    active(login, turn, |argument| {
        addr::parse_port(argument).map(SocketAddr::V4)
    })
}

pub(super) fn eprt(login: &mut Login, turn: &mut Turn) -> Handled {
    active(login, turn, addr::parse_eprt)
}

fn active(
    login: &mut Login,
    turn: &mut Turn,
    parse: fn(&[u8]) -> Result<SocketAddr, BadAddress>,
) -> Handled {
    refuse_after_epsv_all(login)?;
    if login.data.take() == Some(Via::Passive) {
        turn.out.push(Action::Unlisten);
    }
    if !turn.cx.config.active {
        return Err(Reply::new(
            502,
            "This server makes no data connections; use EPSV or PASV.",
        ));
    }
    let v4 = login.peer.is_ipv4();
    let address = parse(turn.argument).map_err(|bad| match bad {
        BadAddress::Syntax => Reply::new(501, "That is no address."),
        BadAddress::Family => wrong_family(v4),
    })?;
    if address.is_ipv4() != v4 {
        return Err(wrong_family(v4));
    }
    if !may_connect(login.peer, address) {
        return Err(Reply::new(
            500,
            "Data goes only to your own address, and to ports from 1024.",
        ));
    }
    login.data = Some(Via::Active(address));
    Ok(Reply::new(200, "Done.").into())
}

/// The one rule about the other end of a data connection: it is the client's own address, and not
/// a port on which a service might take the data for commands (RFC 2577).
fn may_connect(peer: SocketAddr, address: SocketAddr) -> bool {
    address.port() >= 1024 && is_from(peer, address)
}

/// Whether a data connection from `address` belongs to the client at `peer`.
pub fn is_from(peer: SocketAddr, address: SocketAddr) -> bool {
    peer.ip().to_canonical() == address.ip().to_canonical()
}

impl Login {
    /// The arranged connection, which stays arranged until [`begin`].
    fn arranged(&self, turn: &Turn) -> Result<Via, Reply> {
        refuse_clear_data(self, turn)?;
        self.data
            .ok_or_else(|| Reply::new(425, "Send EPSV, PASV, PORT or EPRT first."))
    }
}

/// 150, then the transfer.
fn begin(login: &mut Login, turn: &mut Turn, preliminary: Reply, job: Job, what: What) -> Handled {
    let via = login.arranged(turn)?;
    let protect = turn.security.protects_data();
    login.data = None;
    turn.out.push(Action::Reply(preliminary));
    turn.out
        .push(Action::Transfer(Box::new(Transfer { job, via, protect })));
    Ok(Answer::Later(Later::Transfer { via, what }))
}

// Files -------------------------------------------------------------------------------------------

pub(super) fn retr(login: &mut Login, turn: &mut Turn) -> Handled {
    login.arranged(turn)?;
    let path = login.path(turn.argument)?;
    let (file, meta) = login.home.open_file(&path)?;
    let send = part_of(file, meta.size, login.restart, login.ascii)?;
    let text = match login.ascii {
        true => "Opening data connection.".into_text(),
        false => format!("Opening data connection ({} bytes).", send.bytes).into_text(),
    };
    log::debug!("{} RETR {}", login.peer, path);
    begin(
        login,
        turn,
        Reply::new(150, text.into_owned()),
        Job::Send(send),
        What::Send,
    )
}

/// What REST leaves of a file.
pub(super) fn part_of(
    file: std::fs::File,
    size: u64,
    offset: u64,
    ascii: bool,
) -> Result<Send, Reply> {
    if ascii && offset > 0 {
        return Err(Reply::new(554, "REST is for TYPE I."));
    }
    let Some(bytes) = size.checked_sub(offset) else {
        return Err(Reply::new(554, format!("The file has {size} bytes.")));
    };
    Ok(Send {
        file,
        at: offset,
        bytes,
        ascii: ascii.then(ToWire::default),
    })
}

pub(super) fn stor(login: &mut Login, turn: &mut Turn) -> Handled {
    login.arranged(turn)?;
    let path = login.new_path(turn.argument)?;
    let keep = match login.restart {
        0 => None,
        _ if login.ascii => return Err(Reply::new(554, "REST is for TYPE I.")),
        offset => match login.home.open_file(&path) {
            Ok((old, meta)) if meta.size >= offset => Some((old, offset)),
            Ok((_, meta)) => {
                return Err(Reply::new(
                    554,
                    format!("The file has {} bytes.", meta.size),
                ));
            }
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => {
                return Err(Reply::new(554, "There is nothing to continue."));
            }
            Err(error) => return Err(error.into()),
        },
    };
    store(
        login,
        turn,
        &path,
        keep,
        true,
        Reply::new(150, "Send the file."),
    )
}

pub(super) fn appe(login: &mut Login, turn: &mut Turn) -> Handled {
    login.arranged(turn)?;
    let path = login.new_path(turn.argument)?;
    let keep = match login.home.open_file(&path) {
        Ok((_, meta)) if meta.size == 0 => None,
        Ok((old, meta)) => Some((old, meta.size)),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => None,
        Err(error) => return Err(error.into()),
    };
    store(
        login,
        turn,
        &path,
        keep,
        true,
        Reply::new(150, "Send what is to be appended."),
    )
}

pub(super) fn stou(login: &mut Login, turn: &mut Turn) -> Handled {
    login.arranged(turn)?;
    let name = format!("haul-{:016x}", turn.cx.random);
    let path = login.new_path(name.as_bytes())?;
    store(
        login,
        turn,
        &path,
        None,
        false,
        Reply::new(150, format!("FILE: {name}")),
    )
}

/// Stages a file and, if something of the old one stays, copies that first.
fn store(
    login: &mut Login,
    turn: &mut Turn,
    path: &VirtualPath,
    keep: Option<(std::fs::File, u64)>,
    replace: bool,
    preliminary: Reply,
) -> Handled {
    let upload = Upload::create(&login.home, path)?;
    let publish = Publish {
        mode: mode_of(&upload, login.umask),
        modify_s: None,
        replace,
    };
    let what = What::Store {
        publish,
        sha256: None,
    };
    let at = keep.as_ref().map_or(0, |(_, bytes)| *bytes);
    let ascii = login.ascii.then(FromWire::default);
    log::debug!("{} stores {}", login.peer, path);
    let Some((from, bytes)) = keep else {
        let receive = Receive {
            upload,
            at,
            bytes: None,
            ascii,
            digest: None,
        };
        return begin(
            login,
            turn,
            preliminary,
            Job::Receive(Box::new(receive)),
            what,
        );
    };
    let to = upload.file().try_clone()?;
    let receive = Receive {
        upload,
        at,
        bytes: None,
        ascii,
        digest: None,
    };
    let job = Job::Receive(Box::new(receive));
    if staging::share(&from, &to, bytes) {
        return begin(login, turn, preliminary, job, what);
    }
    if bytes > turn.cx.config.limits.copy_bytes_max {
        return Err(Reply::new(
            452,
            "The file system cannot share blocks, and this file is too large to be copied.",
        ));
    }
    let via = login.arranged(turn)?;
    login.data = None;
    turn.out.push(Action::Run(Task::Copy { from, to, bytes }));
    let protect = turn.security.protects_data();
    let transfer = Transfer { job, via, protect };
    Ok(Answer::Later(Later::Copy {
        reply: preliminary,
        transfer,
        what,
    }))
}

/// A file that is replaced passes its permission bits on, as if it had been written into.
pub(super) fn mode_of(upload: &Upload, umask: u32) -> u32 {
    match upload.replaces() {
        Some(old) if old.kind == Kind::File => old.mode & 0o777,
        _ => 0o666 & !umask,
    }
}

// Listings ----------------------------------------------------------------------------------------

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
            let mut before = Vec::new();
            if prefix == Prefix::Argument && !argument.is_empty() {
                let Some(shown) = shown(argument, &path) else {
                    return Ok(Source::Nothing);
                };
                before = shown;
                if before.last() != Some(&b'/') {
                    before.push(b'/');
                }
            }
            let listing = Listing::new(home.open_dir(&path)?);
            return Ok(Source::Directory {
                listing,
                pattern: None,
                prefix: before,
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
    let mut before = Vec::new();
    if prefix == Prefix::Argument && !dir.is_empty() {
        let Some(shown) = shown(dir, &dir_path) else {
            return Ok(Source::Nothing);
        };
        before = shown;
        if before.last() != Some(&b'/') {
            before.push(b'/');
        }
    }
    Ok(Source::Directory {
        listing,
        pattern: Some(name.to_vec()),
        prefix: before,
    })
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
    let (job, via, protect) = (Job::Text(Box::new(text)), Via::Control, false);
    turn.out
        .push(Action::Transfer(Box::new(Transfer { job, via, protect })));
    Ok(Answer::Later(Later::Transfer {
        via,
        what: What::Text(EndOfText::Status),
    }))
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

// The end of a transfer ---------------------------------------------------------------------------

pub(super) fn abor(session: &mut Session, turn: &mut Turn) -> Handled {
    match &mut session.wait {
        Wait::Transfer(running) if !running.in_band() => {
            if running.aborting {
                return Err(Reply::new(226, "That is under way."));
            }
            running.aborting = true;
            turn.out.push(Action::CutTransfer);
            Ok(Answer::Later(Later::Cut))
        }
        _ => Ok(Reply::new(226, "There is nothing to abort.").into()),
    }
}

impl Session {
    pub(super) fn listening(&mut self, address: Option<SocketAddr>, out: &mut Vec<Action>) {
        let Wait::Listening { extended } = self.wait else {
            debug_assert!(false, "nobody asked for a port");
            return;
        };
        self.wait = Wait::Command;
        let reply = match (address, extended) {
            (None, _) => Reply::new(425, "No port is free now; try again."),
            (Some(address), true) => Reply::new(229, addr::epsv_text(address.port())),
            (Some(SocketAddr::V4(address)), false) => Reply::new(227, addr::pasv_text(address)),
            (Some(SocketAddr::V6(_)), false) => Reply::new(425, "PASV is for IPv4; use EPSV."),
        };
        if let (Who::Known(login), 227 | 229) = (&mut self.who, reply.code) {
            login.data = Some(Via::Passive);
        }
        out.push(Action::Reply(reply));
    }

    pub(super) fn transfer_ended(&mut self, ended: Ended, out: &mut Vec<Action>) {
        let running = match std::mem::replace(&mut self.wait, Wait::Command) {
            Wait::Transfer(running) => *running,
            _ => {
                debug_assert!(false, "a transfer ended that nobody began");
                return;
            }
        };
        let Running {
            via,
            what,
            aborting,
        } = running;
        match &what {
            What::Send | What::Text(_) => self.totals.bytes_sent += ended.bytes,
            What::Store { .. } | What::Discard(_) => self.totals.bytes_received += ended.bytes,
        }
        log::debug!(
            "{} {:?} after {} bytes",
            self.peer,
            ended.outcome,
            ended.bytes
        );
        let reply = match (ended.outcome, what) {
            (Outcome::Complete, What::Store { publish, sha256 }) => {
                match self.stored(ended.job, ended.bytes, sha256, via) {
                    Err(reply) => reply,
                    Ok((upload, reply)) => {
                        self.wait = Wait::Commit(reply, aborting);
                        return out.push(Action::Commit(upload, publish));
                    }
                }
            }
            (Outcome::Complete, What::Discard(reply)) => reply,
            (Outcome::Complete, What::Send) => {
                self.totals.files_sent += 1;
                Reply::new(226, format!("{} bytes sent.", ended.bytes))
            }
            (Outcome::Complete, What::Text(end)) => end_of_text(&end, &ended.job),
            (outcome, what) if via == Via::Control => {
                return self.broke_off_in_band(outcome, what, ended.job, ended.bytes, out);
            }
            (outcome, _) => broke_off(outcome),
        };
        out.push(Action::Reply(reply));
        if aborting {
            out.push(Action::Reply(Reply::new(226, "The transfer has ended.")));
        }
    }

    /// All bytes of an upload are there. Is it whole?
    fn stored(
        &mut self,
        job: Job,
        bytes: u64,
        sha256: Option<[u8; 32]>,
        via: Via,
    ) -> Result<(Upload, Reply), Reply> {
        let Job::Receive(receive) = job else {
            return Err(Reply::new(451, "Local error."));
        };
        // A killed client's kernel ends its data connection in order too; but then the control
        // connection has ended as well, without QUIT.
        if via != Via::Control && self.control_ended && !self.quit_queued {
            return Err(Reply::new(
                426,
                "The control connection ended during the upload.",
            ));
        }
        if let Some(stated) = sha256 {
            let found = receive.digest.map(|digest| digest.finalize());
            if found.is_none_or(|found| found[..] != stated) {
                return Err(Reply::new(
                    451,
                    "The content does not have the stated SHA-256.",
                ));
            }
        }
        Ok((
            receive.upload,
            Reply::new(226, format!("{bytes} bytes stored.")),
        ))
    }

    /// In band, a reply during a body would become a part of it, and a body that was not sent
    /// cannot be told from commands.
    fn broke_off_in_band(
        &mut self,
        outcome: Outcome,
        what: What,
        job: Job,
        bytes: u64,
        out: &mut Vec<Action>,
    ) {
        match (outcome, what, job) {
            (Outcome::Failed(error), What::Store { .. }, Job::Receive(receive)) => {
                let left = receive.bytes.unwrap_or(0);
                let reply = Reply::from(error);
                if left > IMMEDIATE_BYTES_MAX {
                    return self.hang_up(reply, out);
                }
                let (job, via, protect) = (Job::Discard(left), Via::Control, false);
                out.push(Action::Transfer(Box::new(Transfer { job, via, protect })));
                let what = What::Discard(reply);
                self.answer(Ok(Answer::Later(Later::Transfer { via, what })), out);
            }
            (Outcome::Stalled, What::Store { .. } | What::Discard(_), _) => {
                self.hang_up(Reply::new(426, "The upload stalled."), out);
            }
            (outcome, ..) => {
                log::warn!(
                    "{} a transfer broke off after {bytes} bytes: {outcome:?}",
                    self.peer
                );
                self.close(out);
            }
        }
    }

    pub(super) fn committed(&mut self, result: io::Result<()>, out: &mut Vec<Action>) {
        let Wait::Commit(reply, aborting) = std::mem::replace(&mut self.wait, Wait::Command) else {
            debug_assert!(false, "nobody waits for a commit");
            return;
        };
        let reply = match result {
            Ok(()) => {
                self.totals.files_stored += 1;
                reply
            }
            Err(error) => error.into(),
        };
        out.push(Action::Reply(reply));
        if aborting {
            out.push(Action::Reply(Reply::new(
                226,
                "The transfer was complete already.",
            )));
        }
    }
}

fn end_of_text(end: &EndOfText, job: &Job) -> Reply {
    let Job::Text(text) = job else {
        return Reply::new(451, "Local error.");
    };
    match (end, text.entries(), text.left_out()) {
        (EndOfText::Data, entries, _) => Reply::new(226, format!("{entries} entries.")),
        (EndOfText::Status, ..) => Reply::new(213, "End."),
        (EndOfText::Tree, entries, 0) => Reply::new(250, format!("{entries} entries.")),
        (EndOfText::Tree, entries, left_out) => {
            Reply::new(250, format!("{entries} entries, {left_out} left out."))
        }
    }
}

fn broke_off(outcome: Outcome) -> Reply {
    match outcome {
        Outcome::NoConnection => Reply::new(425, "No data connection was made."),
        Outcome::NotProtected => Reply::new(522, "TLS on the data connection failed."),
        Outcome::Stalled => Reply::new(426, "The data connection stalled."),
        Outcome::Cut => Reply::new(426, "The transfer was aborted."),
        Outcome::Broken | Outcome::Complete => Reply::new(426, "The data connection broke."),
        Outcome::Failed(error) => error.into(),
    }
}
