//! TCP connections: the name of a server, its addresses, and the first that answers.
//!
//! A host with addresses of two kinds is often reached by one of them only, and the other swallows
//! what is sent to it. So attempts overlap, and the first that succeeds wins (RFC 8305). They run in
//! threads of their own, as the look-up of the name does, so Ctrl-C at the prompt ends the wait.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{
    set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl,
};

use super::connection::timed_out;
use super::error::Error;
use super::interrupt;
use crate::text::plain;

/// Time that an address has for itself before the next is tried beside it (RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// Addresses tried; a name server may list any number.
const ADDRESSES_MAX: usize = 16;
/// How often a wait looks whether it was interrupted.
const WATCH_EVERY: Duration = Duration::from_millis(100);
/// A control connection is silent while a file moves, and routers forget what is silent for long.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
const KEEPALIVE_TRIES: u32 = 4;

/// Connects to a host by name or address. All of it takes `timeout` at most.
///
/// # Errors
/// There is no such host, or none of its addresses answers: the first reason.
pub fn to_host(host: &str, port: u16, timeout: Duration) -> Result<TcpStream, Error> {
    let deadline = Instant::now() + timeout;
    let addresses = addresses(host, port, deadline)?;
    let any = race(&alternating(addresses), deadline);
    any.map_err(|error| match error {
        None => Error::broken("the name has no address"),
        Some(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            Error::broken("nothing listens there; check that the server runs, and host and port")
        }
        Some(e) if timed_out(&e) => unanswered(timeout),
        Some(e) => Error::broken(plain(&e)),
    })
}

/// Connects to one address.
///
/// # Errors
/// Those of connect(2); [`io::ErrorKind::TimedOut`]; [`io::ErrorKind::Interrupted`]: by Ctrl-C.
pub fn to(address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    race(&[address], Instant::now() + timeout)
        .map_err(|error| error.unwrap_or_else(|| io::ErrorKind::TimedOut.into()))
}

fn unanswered(timeout: Duration) -> Error {
    Error::broken(format!("no answer for {} s (--timeout)", timeout.as_secs()))
}

fn addresses(host: &str, port: u16, deadline: Instant) -> Result<Vec<SocketAddr>, Error> {
    let (sender, receiver) = channel();
    let name = host.to_owned();
    spawn(sender, move || {
        (name.as_str(), port)
            .to_socket_addrs()
            .map(Iterator::collect)
    });
    match next(&receiver, deadline) {
        Ok(found) => {
            found.map_err(|_| Error::broken("there is no such host; check the name in --server"))
        }
        Err(e) if timed_out(&e) => Err(Error::broken("no name server answers (--timeout)")),
        Err(e) => Err(Error::broken(plain(&e))),
    }
}

/// The kinds of addresses in turns, beginning with the one that the system prefers.
fn alternating(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<SocketAddr>, Vec<SocketAddr>) =
        addresses.into_iter().partition(|a| a.is_ipv6() == is_v6);
    let mut turns = Vec::new();
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    while turns.len() < ADDRESSES_MAX {
        match (first.next(), second.next()) {
            (None, None) => break,
            (a, b) => turns.extend(a.into_iter().chain(b)),
        }
    }
    turns.truncate(ADDRESSES_MAX);
    turns
}

/// The first connection that is made; or why the first attempt failed.
fn race(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, Option<io::Error>> {
    let (sender, receiver) = channel();
    let mut waiting = addresses.iter().copied();
    let mut pending = 0;
    let mut first_error = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if let Some(address) = waiting.next() {
            pending += 1;
            let left = left.max(Duration::from_millis(1));
            // Whoever comes second finds nobody, and is closed.
            spawn(sender.clone(), move || {
                TcpStream::connect_timeout(&address, left)
            });
        }
        if pending == 0 {
            return Err(first_error);
        }
        let until = match waiting.len() {
            0 => deadline,
            _ => deadline.min(Instant::now() + HEAD_START),
        };
        match next(&receiver, until) {
            Ok(Ok(stream)) => {
                keep_alive(&stream).map_err(Some)?;
                return Ok(stream);
            }
            Ok(Err(error)) => {
                pending -= 1;
                first_error.get_or_insert(error);
            }
            Err(e) if timed_out(&e) && Instant::now() < deadline => {}
            Err(e) => return Err(Some(e)),
        }
    }
}

/// Does something in a thread, whether anybody still wants it or not.
fn spawn<T: Send + 'static>(
    sender: Sender<io::Result<T>>,
    act: impl FnOnce() -> io::Result<T> + Send + 'static,
) {
    let refusal = sender.clone();
    let spawned = thread::Builder::new().spawn(move || {
        let _ = sender.send(act());
    });
    if let Err(error) = spawned {
        let _ = refusal.send(Err(error));
    }
}

/// The next outcome, unless time passes or Ctrl-C ends the wait.
fn next<T>(receiver: &Receiver<T>, until: Instant) -> io::Result<T> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match receiver.recv_timeout(left.min(WATCH_EVERY)) {
            Ok(outcome) => return Ok(outcome),
            Err(_) if interrupt::is_set() => return Err(io::ErrorKind::Interrupted.into()),
            Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    set_socket_keepalive(stream, true)?;
    set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    set_tcp_keepintvl(stream, KEEPALIVE_EVERY)?;
    Ok(set_tcp_keepcnt(stream, KEEPALIVE_TRIES)?)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rustix::net::sockopt::{socket_keepalive, tcp_keepidle};

    use super::*;

    fn v(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// An address where nothing is ever answered: the queue of a listener that nobody empties.
    fn silent() -> (TcpListener, Vec<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let short = Duration::from_millis(300);
        let mut queued = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, short) {
            queued.push(stream);
        }
        (listener, queued)
    }

    #[test]
    fn an_address_that_swallows_everything_does_not_keep_the_next_from_being_tried() {
        let (silent, _queued) = silent();
        let good = TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        let addresses = [&silent, &good].map(|listener| listener.local_addr().unwrap());
        let in_time = || Instant::now() + Duration::from_secs(20);
        let stream = race(&addresses, in_time()).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), addresses[1]);
        assert!(socket_keepalive(&stream).unwrap());
        assert_eq!(tcp_keepidle(&stream).unwrap(), KEEPALIVE_IDLE);
        race(&[closed.unwrap(), addresses[1]], in_time()).unwrap();
        let soon = Instant::now() + Duration::from_millis(50);
        let error = race(&addresses[..1], soon).unwrap_err().unwrap();
        assert!(timed_out(&error), "{error}");
    }

    #[test]
    fn the_first_reason_is_told() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let second = Duration::from_secs(1);
        let error = to_host("127.0.0.1", address.port(), second).unwrap_err();
        assert!(error.to_string().contains("nothing listens"), "{error}");
        assert!(race(&[], Instant::now() + second).unwrap_err().is_none());
        let error = to_host("no-such-host.invalid", 1, Duration::from_secs(20)).unwrap_err();
        assert!(error.to_string().contains("host"), "{error}");
    }

    #[test]
    fn kinds_of_addresses_take_turns() {
        let [a, b, c] = ["[::1]:1", "[::2]:1", "[::3]:1"].map(v);
        let [d, e] = ["127.0.0.1:1", "127.0.0.2:1"].map(v);
        assert_eq!(alternating(vec![a, b, c, d, e]), [a, d, b, e, c]);
        assert_eq!(alternating(vec![d, e, a]), [d, a, e]);
        assert_eq!(alternating(vec![]), []);
        assert_eq!(alternating(vec![a; 40]).len(), ADDRESSES_MAX);
    }
}
