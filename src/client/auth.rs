//! AUTH, PBSZ and PROT (RFC 4217): what of a session travels inside TLS.

use super::connection::Connection;
use super::error::{Error, Exit};
use super::server::Server;
use super::tls::{Level, Session};
use super::{Settings, reply::Reply};

/// Begins TLS on a connection that began in clear, where the server has it and the user does not
/// say otherwise. FEAT is not asked first: what it says in clear may come from anybody, and it costs
/// more than the refusal.
///
/// # Errors
/// The server has no TLS where it must have it, or it cannot be trusted.
pub fn ask_for_tls(c: &mut Connection, server: &Server, settings: &Settings) -> Result<(), Error> {
    if settings.tls == Level::Off {
        return Ok(());
    }
    let reply = c.command("AUTH", Some(b"TLS"))?;
    if reply.code == 234 {
        return c.begin_tls(Session::new(server, &settings.trust)?);
    }
    if settings.tls == Level::Required || settings.trust.is_explicit() {
        return Err(none(&reply, "which you asked for"));
    }
    if let Some(line) = settings.trust.had_tls(&server.to_string())? {
        let but =
            format!("but it had before: somebody may be in between; if it is right, remove {line}");
        return Err(none(&reply, &but));
    }
    match reply.code {
        400..600 => Ok(()),
        _ => Err(c.nonsense(&format!("no answer to AUTH ({reply})"))),
    }
}

fn none(reply: &Reply, but: &str) -> Error {
    let text = format!("the server offers no TLS (it says: {reply}), {but}");
    Error::new(Exit::Trust, text)
}

/// Has the server protect data connections if the control connection is, once. Verbs that need none
/// do not pay for it.
///
/// # Errors
/// The server does not do it.
pub fn protect_data(c: &mut Connection) -> Result<(), Error> {
    if c.tls().is_none() || c.protects_data {
        return Ok(());
    }
    // A number that means nothing with TLS, but without it no PROT. Some servers that began with TLS
    // do not know it, and then PROT decides.
    c.command("PBSZ", Some(b"0"))?;
    let reply = c.command("PROT", Some(b"P"))?;
    if !reply.is_success() {
        let text = format!("the server does not protect data connections (it says: {reply})");
        return Err(Error::new(Exit::Trust, text));
    }
    c.protects_data = true;
    Ok(())
}
