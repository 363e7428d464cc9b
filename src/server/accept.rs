//! Who gets in: control connections at the listeners, data connections at the passive ports.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr};
use std::time::Duration;

use mio::Interest;
use mio::net::{TcpListener, TcpStream};
use rustix::io::Errno;

use super::conn::Conn;
use super::passive::Pair;
use super::siblings::Siblings;
use super::{Id, Server, Shared, Socket, guarded, queue};
use crate::session::Session;

/// Connections accepted per turn, so that a flood of them leaves time for those who are there.
const ACCEPTS_PER_TURN: usize = 64;
/// When descriptors have run out, accepting is tried again after this: edge-triggered events do not
/// announce a connection twice.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// Where clients arrive.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) bind: IpAddr,
    /// TLS begins at once.
    pub(super) implicit_tls: bool,
    pub(super) ready: bool,
}

impl Server {
    pub(super) fn accept(&mut self) {
        for n in 0..self.listeners.len() {
            for _ in 0..ACCEPTS_PER_TURN {
                if !self.listeners[n].ready {
                    break;
                }
                match self.listeners[n].socket.accept() {
                    Ok((stream, peer)) => self.admit(stream, peer, n),
                    Err(error) => match accept_failed(&error) {
                        AcceptFailed::Nobody => self.listeners[n].ready = false,
                        AcceptFailed::Resources => return self.retry_accept(&error),
                        AcceptFailed::One => {}
                    },
                }
            }
        }
    }

    /// The connections stay in the backlog, and no event will tell of them again.
    pub(super) fn retry_accept(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.short, true) {
            log::warn!("cannot accept for now: {error}");
        }
        self.accept_retry = Some(self.shared.now + ACCEPT_RETRY);
        self.shared.lingering.hurry(self.shared.now);
    }

    fn admit(&mut self, mut stream: TcpStream, peer: SocketAddr, listener: usize) {
        let Listener {
            bind, implicit_tls, ..
        } = self.listeners[listener];
        let address = counted(peer.ip());
        let count = address.map_or(0, |address| {
            let elsewhere = self.siblings.as_ref().map_or(0, |it| it.of(address));
            self.per_address.get(&address).map_or(0, |n| *n) + elsewhere
        });
        let elsewhere = self.siblings.as_ref().map_or(0, Siblings::sessions);
        let limits = &self.shared.world.config.limits;
        if self.conns.len() >= self.sessions_max
            || self.conns.len() + elsewhere >= limits.sessions_max
            || count >= limits.sessions_per_address_max
        {
            // Who expects TLS understands no line in clear.
            if !implicit_tls {
                refuse(stream, &mut self.shared);
            }
            return;
        }
        self.make_room();
        let entry = self.conns.vacant_entry();
        self.generation += 1;
        let id = Id {
            key: entry.key(),
            generation: self.generation,
        };
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        let token = Socket::Control.token(id.key);
        if let Err(error) = self.shared.registry.register(&mut stream, token, interest) {
            log::warn!("cannot watch a connection from {peer}: {error}");
            return;
        }
        let world = self.shared.world.clone();
        let mut actions = self.shared.take_actions();
        let begin = match implicit_tls {
            true => Session::protected,
            false => Session::new,
        };
        let session = begin(peer, &self.shared.context(&world), &mut actions);
        let conn = entry.insert(Conn::new(id, stream, bind, session));
        guarded::with(conn, &mut self.shared, |conn, shared| {
            if implicit_tls {
                conn.start_tls(shared);
            }
            conn.perform(actions, &world, shared);
        });
        conn.stranger = Some(self.strangers.add(id));
        self.short = false;
        queue(&mut self.ready, conn);
        if let Some(address) = address {
            *self.per_address.entry(address).or_default() += 1;
            if let Some(siblings) = &mut self.siblings {
                siblings.changed(address);
            }
        }
    }

    /// Ends the connection that has waited longest for its login, if there are too many.
    fn make_room(&mut self) {
        let max = self.shared.world.config.limits.before_login_max;
        let Some(id) = self.strangers.one_too_many(max) else {
            return;
        };
        if let Some(place) = self.conn(id).and_then(|conn| conn.stranger.take()) {
            self.strangers.remove(place);
        }
        self.with(id, Conn::displace);
    }

    pub(super) fn accept_data(&mut self) {
        let mut left = ACCEPTS_PER_TURN;
        while let Some(place) = self.passive_ready.pop() {
            loop {
                if left == 0 {
                    self.passive_ready.push(place);
                    break;
                }
                left -= 1;
                match self.shared.passive.ports()[place].listener.accept() {
                    Ok((stream, peer)) => self.hand_over(place, stream, peer),
                    Err(error) => match accept_failed(&error) {
                        AcceptFailed::Nobody => {
                            self.shared.passive.ports()[place].ready = false;
                            break;
                        }
                        AcceptFailed::One => {}
                        AcceptFailed::Resources => {
                            self.passive_ready.push(place);
                            return self.retry_accept(&error);
                        }
                    },
                }
            }
            if left == 0 {
                break;
            }
        }
    }

    /// A stranger's connection is closed; its owner goes on waiting.
    fn hand_over(&mut self, place: usize, stream: TcpStream, peer: SocketAddr) {
        let client = peer.ip().to_canonical();
        match self.shared.passive.claim(place, client) {
            Some(id) => {
                self.with(id, |conn, shared| conn.data_arrived(stream, shared));
                let bind = self.shared.passive.ports()[place].bind();
                self.retry_waiting((bind, client));
            }
            None => log::debug!("a data connection from {peer} that nobody waits for"),
        }
    }

    /// Has those look again for a slot who wait for the same ones, as long as there are any.
    pub(super) fn retry_waiting(&mut self, pair: Pair) {
        while let Some(id) = self.shared.passive.first_waiting(pair) {
            if let Some(conn) = self.conns.get_mut(id.key).filter(|conn| conn.id == id) {
                match guarded::with(conn, &mut self.shared, Conn::retry_listening) {
                    Some(false) => return,
                    Some(true) | None => queue(&mut self.ready, conn),
                }
            }
            self.shared.passive.forget_first(pair);
        }
    }
}

/// What sessions of an address are counted under: an IPv6 client has a /64 to itself. Loopback is
/// not counted.
pub(super) fn counted(address: IpAddr) -> Option<IpAddr> {
    match address.to_canonical() {
        address if address.is_loopback() => None,
        IpAddr::V4(address) => Some(address.into()),
        IpAddr::V6(address) => Some(Ipv6Addr::from(u128::from(address) >> 64 << 64).into()),
    }
}

fn refuse(mut stream: TcpStream, shared: &mut Shared) {
    // Its buffer is empty, so this does not block; if the client is gone, nothing is lost.
    if stream
        .write_all(b"421 Too many sessions; try again later.\r\n")
        .is_ok()
        && stream.shutdown(Shutdown::Write).is_ok()
    {
        shared.lingering.add(stream, shared.now);
    }
}

enum AcceptFailed {
    /// The backlog is empty.
    Nobody,
    /// That connection failed; the next may be fine.
    One,
    /// Descriptors or memory are short.
    Resources,
}

fn accept_failed(error: &io::Error) -> AcceptFailed {
    match Errno::from_io_error(error) {
        Some(Errno::AGAIN) => AcceptFailed::Nobody,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => AcceptFailed::Resources,
        Some(
            Errno::CONNABORTED
            | Errno::PROTO
            | Errno::INTR
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::HOSTUNREACH
            | Errno::HOSTDOWN
            | Errno::PERM
            | Errno::NOPROTOOPT
            | Errno::OPNOTSUPP,
        ) => AcceptFailed::One,
        _ => AcceptFailed::Resources,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_client_counts_as_its_network_and_loopback_not_at_all() {
        let count = |address: &str| counted(address.parse().unwrap()).map(|it| it.to_string());
        let some = |address: &str| Some(address.to_string());
        assert_eq!(count("192.0.2.1"), some("192.0.2.1"));
        assert_eq!(count("::ffff:192.0.2.1"), some("192.0.2.1"));
        assert_eq!(count("2001:db8:1:2:3:4:5:6"), some("2001:db8:1:2::"));
        assert_eq!(count("2001:db8:1:2:ffff::"), count("2001:db8:1:2::1"));
        for loopback in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(count(loopback), None, "{loopback}");
        }
    }
}
