//! AUTH, PBSZ, PROT and CCC (RFC 4217): what of a session travels inside TLS.
//!
//! TLS itself is not known here: the shell is asked to begin it, and everything after that is bytes
//! as before.

use super::login::leave;
use super::{Answer, Context, Handled, Login, Session, Turn};
use crate::accounts;
use crate::config::TlsLevel;
use crate::proto::reply::Reply;

/// How far the client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Security {
    /// The control connection is readable for everybody on the way.
    Clear,
    /// It is inside TLS.
    Protected {
        /// PBSZ was sent, so PROT may follow.
        sized: bool,
        /// PROT P: data connections are inside TLS too.
        data: bool,
    },
}

impl Security {
    /// Of a connection that began with TLS. By custom its data connections are protected until the
    /// client says something else.
    pub(super) const IMPLICIT: Security = Security::Protected {
        sized: true,
        data: true,
    };

    /// Just behind AUTH.
    const EXPLICIT: Security = Security::Protected {
        sized: false,
        data: false,
    };

    /// Whether data connections are to be inside TLS.
    pub(super) fn protects_data(self) -> bool {
        matches!(self, Security::Protected { data: true, .. })
    }
}

/// RFC 4217 section 4. What came before it in clear may have come from anybody: it is forgotten.
pub(super) fn auth(session: &mut Session, turn: &mut Turn) -> Handled {
    match turn.argument.to_ascii_uppercase().as_slice() {
        b"TLS" | b"TLS-C" | b"SSL" => {}
        _ => return Err(Reply::new(504, "There is AUTH TLS.")),
    }
    if *turn.security != Security::Clear {
        return Err(Reply::new(503, "TLS is on already."));
    }
    if turn.cx.config.tls.level == TlsLevel::Off {
        return Err(Reply::new(534, "This server has no TLS."));
    }
    let reply = Reply::new(234, "Begin TLS now.");
    if turn.more_behind {
        // Injected in front of the handshake, they would be taken for the client's.
        log::warn!("{} sent bytes behind AUTH", session.peer);
        return Ok(Answer::Close(reply));
    }
    leave(session, turn);
    *turn.security = Security::EXPLICIT;
    Ok(Answer::Tls(reply))
}

/// A number that means nothing with TLS, but without it no PROT (RFC 4217 section 9).
pub(super) fn pbsz(_: &mut Session, turn: &mut Turn) -> Handled {
    let Security::Protected { sized, .. } = turn.security else {
        return Err(Reply::new(503, "Send AUTH TLS first."));
    };
    if !turn.argument.iter().all(u8::is_ascii_digit) {
        return Err(Reply::new(501, "It is written PBSZ 0."));
    }
    *sized = true;
    Ok(Reply::new(200, "PBSZ=0").into())
}

pub(super) fn prot(_: &mut Session, turn: &mut Turn) -> Handled {
    let Security::Protected { sized, data } = turn.security else {
        return Err(Reply::new(503, "Send AUTH TLS and PBSZ 0 first."));
    };
    if !*sized {
        return Err(Reply::new(503, "Send PBSZ 0 first."));
    }
    *data = match turn.argument.to_ascii_uppercase().as_slice() {
        b"C" => false,
        b"P" => true,
        b"E" | b"S" => return Err(Reply::new(536, "There are PROT C and PROT P.")),
        [_] => return Err(Reply::new(504, "There are PROT C and PROT P.")),
        _ => return Err(Reply::new(501, "It is written PROT C or PROT P.")),
    };
    let text = match data {
        true => "Data connections are protected.",
        false => "Data connections are in clear.",
    };
    Ok(Reply::new(200, text).into())
}

pub(super) fn ccc(_: &mut Session, _: &mut Turn) -> Handled {
    Err(Reply::new(533, "What is protected stays protected."))
}

/// Whether `user` has to use TLS.
pub(super) fn is_required(cx: &Context, user: &[u8]) -> bool {
    let tls = &cx.config.tls;
    let exempt = tls.anonymous_exempt && accounts::is_anonymous(user);
    tls.level == TlsLevel::Required && !exempt
}

/// No name and no password of somebody who has to use TLS is looked at in clear.
pub(super) fn refuse_in_clear(turn: &Turn, user: &[u8]) -> Result<(), Reply> {
    if *turn.security == Security::Clear && is_required(turn.cx, user) {
        return Err(Reply::new(530, "Send AUTH TLS first."));
    }
    Ok(())
}

/// 521 for data that must not travel in clear.
pub(super) fn refuse_clear_data(login: &Login, turn: &Turn) -> Result<(), Reply> {
    if login.needs_protected_data && !turn.security.protects_data() {
        return Err(Reply::new(521, "Send PBSZ 0 and PROT P first."));
    }
    Ok(())
}
