//! Transfers over a data connection: arranging it (PASV, EPSV, PORT, EPRT), saying how (TYPE, MODE,
//! STRU, REST, ALLO), and using it for files (RETR, STOR, APPE, STOU).

use std::net::SocketAddr;
use std::time::Instant;

use super::files::dispose_of;
use super::job::{Job, Receive, Send, Transfer, Via};
use super::login::Login;
use super::partials::{self, Asked, Begun};
use super::security::refuse_clear_data;
use super::{Action, Answer, Handled, Pending, Task, Turn, Wait};
use crate::proto::addr::{self, BadAddress};
use crate::proto::ascii::{FromWire, ToWire};
use crate::proto::facts::{Kind, Meta};
use crate::proto::line::number;
use crate::proto::reply::{IntoText, Reply};
use crate::storage::path::VirtualPath;
use crate::storage::staging::{Publish, Upload};

/// A transfer that is under way.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) since: Instant,
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
    Ok(Answer::Later(Wait::Listening { extended: false }))
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
    Ok(Answer::Later(Wait::Listening { extended: true }))
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
    address.port() >= 1024 && peer.ip().to_canonical() == address.ip().to_canonical()
}

impl Login {
    /// The arranged connection, which stays arranged until [`begin`].
    pub(super) fn arranged(&self, turn: &Turn) -> Result<Via, Reply> {
        refuse_clear_data(self, turn)?;
        self.data
            .ok_or_else(|| Reply::new(425, "Send EPSV, PASV, PORT or EPRT first."))
    }
}

/// 150, then the transfer.
pub(super) fn begin(
    login: &mut Login,
    turn: &mut Turn,
    preliminary: Reply,
    job: Job,
    what: What,
) -> Handled {
    let via = login.arranged(turn)?;
    let protect = turn.security.protects_data();
    login.data = None;
    turn.out.push(Action::Reply(preliminary));
    Ok(Answer::Transfer(Transfer { job, via, protect }, what))
}

// Files -------------------------------------------------------------------------------------------

pub(super) fn retr(login: &mut Login, turn: &mut Turn) -> Handled {
    login.arranged(turn)?;
    let path = login.path(turn.argument)?;
    let (file, meta) = login.home.open_file(&path)?;
    let send = part_of(&path, file, &meta, login.restart, login.ascii)?;
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
    path: &VirtualPath,
    file: std::fs::File,
    meta: &Meta,
    offset: u64,
    ascii: bool,
) -> Result<Send, Reply> {
    if ascii && offset > 0 {
        return Err(Reply::new(554, "REST is for TYPE I."));
    }
    let Some(bytes) = meta.size.checked_sub(offset) else {
        return Err(Reply::new(
            554,
            format!("The file has {} bytes.", meta.size),
        ));
    };
    Ok(Send {
        path: path.clone(),
        file,
        device: meta.dev,
        at: offset,
        bytes,
        ascii: ascii.then(ToWire::default),
    })
}

pub(super) fn stor(login: &mut Login, turn: &mut Turn) -> Handled {
    store(login, turn, Asked::Stor, "Send the file.")
}

pub(super) fn appe(login: &mut Login, turn: &mut Turn) -> Handled {
    store(login, turn, Asked::Appe, "Send what is to be appended.")
}

pub(super) fn stou(login: &mut Login, turn: &mut Turn) -> Handled {
    let name = format!("haul-{:016x}", turn.cx.random);
    let path = login.new_path(name.as_bytes())?;
    login.arranged(turn)?;
    let begun = Begun {
        upload: Upload::create(&login.home, &path)?,
        at: 0,
        copy: None,
    };
    let reply = Reply::new(150, format!("FILE: {name}"));
    receive(login, turn, begun, false, reply)
}

fn store(login: &mut Login, turn: &mut Turn, asked: Asked, text: &'static str) -> Handled {
    login.arranged(turn)?;
    let path = login.new_path(turn.argument)?;
    let begun = match partials::stage(login, turn, &path, asked) {
        Ok(begun) => begun,
        Err(not_yet) => return not_yet.answer(),
    };
    log::debug!("{} stores {}", login.peer, path);
    receive(login, turn, begun, true, Reply::new(150, text))
}

/// The bytes of a staged file come over the data connection, once what stays of an old file has been
/// copied.
fn receive(
    login: &mut Login,
    turn: &mut Turn,
    begun: Begun,
    replace: bool,
    preliminary: Reply,
) -> Handled {
    let Begun {
        mut upload,
        at,
        copy,
    } = begun;
    let publish = Publish {
        mode: mode_of(&upload, login.umask),
        modify_s: None,
        replace,
    };
    let what = What::Store {
        publish,
        sha256: None,
    };
    let to = match copy {
        Some(_) => Some(upload.file()?.try_clone()?),
        None => None,
    };
    let free_bytes = match copy {
        Some(_) => login.home.free_disk_bytes(upload.path())?,
        None => 0,
    };
    if copy.is_some() {
        upload.count_shared(at)?;
    }
    // Where there is no room for a single byte, it is better said at once.
    upload.make_room(at + 1)?;
    dispose_of(upload.replace_partial()?, turn);
    let job = Job::Receive(Box::new(Receive {
        upload,
        at,
        bytes: None,
        ascii: login.ascii.then(FromWire::default),
        digest: None,
    }));
    let (Some(from), Some(to)) = (copy, to) else {
        return begin(login, turn, preliminary, job, what);
    };
    let via = login.arranged(turn)?;
    turn.out.push(Action::Run(Task::Copy {
        from,
        to,
        bytes: at,
        copy_bytes_max: turn.cx.config.limits.copy_bytes_max,
        free_bytes,
    }));
    let protect = turn.security.protects_data();
    let transfer = Transfer { job, via, protect };
    let copy = Pending::Copy {
        reply: preliminary,
        transfer,
        what,
    };
    Ok(copy.into())
}

/// A file that is replaced passes its permission bits on, as if it had been written into.
pub(super) fn mode_of(upload: &Upload, umask: u32) -> u32 {
    match upload.replaces() {
        Some(old) if old.kind == Kind::File => old.mode & 0o777,
        _ => 0o666 & !umask,
    }
}
