//! Data connections, always opened by the client: EPSV, or PASV where the server knows no EPSV.
//!
//! The address that a server names is never used: a data connection goes to the machine that the
//! control connection goes to, and not to a port of the system's services.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::proto::addr::{parse_epsv, parse_pasv};

use super::connection::{Connection, timed_out};
use super::error::{Error, plain};
use super::reply::Reply;

/// How long a write may block before the control connection is looked at again.
const WATCH_EVERY: Duration = Duration::from_millis(200);
/// Ports below this one belong to services of the system.
const DATA_PORT_MIN: u16 = 1024;

/// Asks for a data connection and makes it.
///
/// # Errors
/// The server refuses both verbs, names an impossible port, or the connection cannot be made.
pub fn open(c: &mut Connection) -> Result<TcpStream, Error> {
    let port = passive_port(c)?;
    if port < DATA_PORT_MIN {
        return Err(Error::broken(format!(
            "the server wants a data connection to port {port}, which is not for data"
        )));
    }
    let address = SocketAddr::new(c.peer(), port);
    let data = TcpStream::connect_timeout(&address, c.timeout())
        .and_then(|data| {
            data.set_read_timeout(Some(c.timeout()))?;
            Ok(data)
        })
        .map_err(|e| Error::broken(format!("no data connection to port {port}: {}", plain(&e))))?;
    Ok(data)
}

/// The same with TYPE I set before.
///
/// # Errors
/// As [`open`].
pub fn open_binary(c: &mut Connection) -> Result<TcpStream, Error> {
    c.binary()?;
    open(c)
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
pub fn receive(
    c: &mut Connection,
    mut data: &TcpStream,
    buffer: &mut [u8],
) -> Result<usize, Error> {
    loop {
        match data.read(buffer) {
            Ok(n) => return Ok(n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => {
                if c.has_input() {
                    let reply = c.read_reply()?;
                    if !reply.is_success() {
                        return Err(Error::refused(&reply));
                    }
                }
                c.give_up();
                return Err(match timed_out(&e) {
                    true => c.stalled("sent nothing"),
                    false => Error::broken(format!("the data connection broke: {}", plain(&e))),
                });
            }
        }
    }
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
pub fn send(c: &mut Connection, data: Option<&TcpStream>, bytes: &[u8]) -> Result<Sent, Error> {
    let timeout = c.timeout();
    let set_patience = |c: &Connection, patience| {
        data.unwrap_or(c.stream())
            .set_write_timeout(Some(patience))
            .map_err(|e| Error::broken(plain(&e)))
    };
    set_patience(c, WATCH_EVERY.min(timeout))?;
    let mut rest = bytes;
    let mut last_progress = Instant::now();
    while !rest.is_empty() {
        if c.has_input() {
            return Ok(Sent::Answered(c.read_reply()?));
        }
        let wrote = match data {
            Some(mut data) => data.write(rest),
            None => c.stream().write(rest),
        };
        match wrote {
            Ok(n) => {
                rest = rest.get(n..).unwrap_or_default();
                last_progress = Instant::now();
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if timed_out(&e) && last_progress.elapsed() < timeout => {}
            Err(e) => return Err(c.salvage(&e)),
        }
    }
    set_patience(c, timeout)?;
    Ok(Sent::All)
}
