//! Data connections, always opened by the client: EPSV, or PASV where the server knows no EPSV.
//!
//! The address that a server names is never used: a data connection goes to the machine that the
//! control connection goes to, and not to a port of the system's services.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::proto::addr::{parse_epsv, parse_pasv};
use crate::text::plain;

use super::connection::{Connection, timed_out};
use super::error::{Error, Exit};
use super::reply::Reply;
use super::stream::{NoTls, Stream};
use super::{auth, connect, tls};

/// How long a write may block before the control connection is looked at again.
const WATCH_EVERY: Duration = Duration::from_millis(200);
/// Ports below this one belong to services of the system.
const DATA_PORT_MIN: u16 = 1024;

/// Asks for a data connection and makes it. It is to be used behind [`go_ahead`].
///
/// # Errors
/// The server refuses both verbs, names an impossible port, or the connection cannot be made.
pub fn open(c: &mut Connection) -> Result<Stream, Error> {
    auth::protect_data(c)?;
    let port = passive_port(c)?;
    if port < DATA_PORT_MIN {
        return Err(Error::broken(format!(
            "the server wants a data connection to port {port}, which is not for data"
        )));
    }
    let address = SocketAddr::new(c.peer(), port);
    let data = connect::to(address, c.timeout())
        .and_then(|data| {
            data.set_read_timeout(Some(c.timeout()))?;
            Ok(data)
        })
        .map_err(|e| Error::broken(format!("no data connection to port {port}: {}", plain(&e))))?;
    Ok(Stream::new(data))
}

/// The same with TYPE I set before.
///
/// # Errors
/// As [`open`].
pub fn open_binary(c: &mut Connection) -> Result<Stream, Error> {
    c.binary()?;
    open(c)
}

/// The 1xx reply before what moves over `data`. Inside TLS the handshake comes behind it, since
/// many servers do not begin it sooner.
///
/// # Errors
/// A refusal, a success where nothing was moved yet, or no TLS with the same server.
pub fn go_ahead(c: &mut Connection, data: &mut Stream) -> Result<Reply, Error> {
    let reply = super::transfer::go_ahead(c)?;
    let timeout = c.timeout();
    let Some(session) = c.tls() else {
        return Ok(reply);
    };
    match session.begin(data, timeout) {
        Ok(()) => {}
        // What the server says about it may be more than what can be seen from here.
        Err(NoTls::Broken(error)) => return Err(c.salvage(&error)),
        Err(why) => {
            c.give_up();
            return Err(match why {
                NoTls::Refused(rustls::Error::InvalidMessage(_)) => Error::new(
                    Exit::Trust,
                    "the data connection is not inside TLS, though the server agreed to that",
                ),
                why => tls::error(&why, timeout),
            });
        }
    }
    let set = data.socket().set_read_timeout(Some(timeout));
    set.map_err(|e| Error::broken(plain(&e)))?;
    c.note_data(data);
    Ok(reply)
}

fn passive_port(c: &mut Connection) -> Result<u16, Error> {
    if !c.epsv_refused {
        let reply = c.command("EPSV", None)?;
        match reply.code {
            229 => {
                return parse_epsv(reply.text()).ok_or_else(|| {
                    Error::broken(format!("cannot read the reply to EPSV: {reply}"))
                });
            }
            500..=599 => c.epsv_refused = true,
            _ => return Err(Error::refused(&reply)),
        }
    }
    let reply = c.command("PASV", None)?;
    match reply.code {
        227 => parse_pasv(reply.text())
            .map(|address| address.port())
            .ok_or_else(|| Error::broken(format!("cannot read the reply to PASV: {reply}"))),
        _ => Err(Error::refused(&reply)),
    }
}

/// Reads once from a data connection; 0 is its end.
///
/// # Errors
/// It broke or stalled. If the server has said why on the control connection, that is the error.
pub fn receive(c: &mut Connection, data: &mut Stream, buffer: &mut [u8]) -> Result<usize, Error> {
    let deadline = Instant::now() + c.timeout();
    loop {
        match data.read(buffer) {
            Ok(n) => return Ok(n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted && Instant::now() < deadline => {}
            // The server's reply says how it sees that, and it is still to come.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(Error::broken(
                    "the data connection ended without close_notify, so something may be missing",
                ));
            }
            Err(e) => {
                if c.has_input() {
                    let reply = c.read_reply()?;
                    if !reply.is_success() {
                        return Err(Error::refused(&reply));
                    }
                }
                c.give_up();
                return Err(match is_wait(&e) {
                    true => c.stalled("sent nothing"),
                    false => Error::broken(format!("the data connection broke: {}", plain(&e))),
                });
            }
        }
    }
}

/// Time passed, and nothing came that means anything.
pub fn is_wait(error: &io::Error) -> bool {
    timed_out(error) || error.kind() == io::ErrorKind::Interrupted
}

/// How sending ended.
#[derive(Debug)]
pub enum Sent {
    /// All bytes are with the system.
    All,
    /// The server has answered already; what is left was not sent.
    Answered(Reply),
}

/// Sends `bytes` over `data`, or over the control connection itself, and stops at a reply: a server
/// that has refused will not read the rest.
///
/// # Errors
/// The connection broke or stalled; what the server said about it is preferred.
pub fn send(
    c: &mut Connection,
    mut data: Option<&mut Stream>,
    bytes: &[u8],
) -> Result<Sent, Error> {
    let timeout = c.timeout();
    set_patience(c, &mut data, WATCH_EVERY.min(timeout))?;
    let mut rest = bytes;
    let mut last_progress = Instant::now();
    while !rest.is_empty() || !carrier(c, &mut data).is_flushed() {
        if c.has_input() {
            return Ok(Sent::Answered(c.read_reply()?));
        }
        match carrier(c, &mut data).push(&mut rest) {
            Ok(()) => last_progress = Instant::now(),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if timed_out(&e) && last_progress.elapsed() < timeout => {}
            Err(e) => return Err(c.salvage(&e)),
        }
    }
    set_patience(c, &mut data, timeout)?;
    Ok(Sent::All)
}

/// What carries a body: its own connection, or the control connection.
fn carrier<'a>(c: &'a mut Connection, data: &'a mut Option<&mut Stream>) -> &'a mut Stream {
    match data {
        Some(data) => data,
        None => c.stream(),
    }
}

fn set_patience(
    c: &mut Connection,
    data: &mut Option<&mut Stream>,
    patience: Duration,
) -> Result<(), Error> {
    let set = carrier(c, data).socket().set_write_timeout(Some(patience));
    set.map_err(|e| Error::broken(plain(&e)))
}
