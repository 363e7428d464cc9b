//! Addresses at which several workers listen, each with a socket of its own: the kernel gives every
//! new connection to one of them (SO_REUSEPORT).

use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::activation::Inherited;
use super::start::{BACKLOG, StartError, cannot};
use crate::config::Config;

/// Where the workers listen.
#[derive(Debug)]
pub struct Addresses {
    all: Vec<Address>,
}

#[derive(Debug)]
struct Address {
    at: SocketAddr,
    implicit_tls: bool,
    v6_only: bool,
}

impl Addresses {
    /// Those of a configuration, where nobody else listens. Port 0 becomes one that is free.
    ///
    /// # Errors
    /// A sentence for the person who started it.
    pub fn choose(config: &Config) -> Result<Addresses, StartError> {
        let plain = config.listen.iter().map(|at| (at, false));
        let implicit = config.tls.implicit.iter().map(|at| (at, true));
        let named: Vec<(&SocketAddr, bool)> = plain.chain(implicit).collect();
        let mut all = Vec::new();
        for &(&at, implicit_tls) in &named {
            let shares =
                |(other, _): &(&SocketAddr, bool)| other.is_ipv4() && other.port() == at.port();
            let v6_only = at.port() != 0 && named.iter().any(shares);
            // With SO_REUSEPORT the socket of a server that is there already would be no hindrance,
            // so the address is tried without it.
            let tried = bound(at, v6_only, false).and_then(|socket| socket.local_addr());
            let at = tried.map_err(cannot(format!("listen on {at}")))?;
            let at = at.as_socket().unwrap_or(named[all.len()].0.to_owned());
            all.push(Address {
                at,
                implicit_tls,
                v6_only,
            });
        }
        Ok(Addresses { all })
    }

    /// A listening socket at each, for one worker.
    ///
    /// # Errors
    /// A sentence.
    pub fn open(&self) -> Result<Vec<Inherited>, StartError> {
        let open = |it: &Address| {
            let listening = bound(it.at, it.v6_only, true).and_then(|socket| {
                socket.listen(BACKLOG)?;
                Inherited::new(TcpListener::from(socket), it.implicit_tls)
            });
            listening.map_err(cannot(format!("listen on {}", it.at)))
        };
        self.all.iter().map(open).collect()
    }

    /// The addresses, and whether TLS begins there at once.
    pub fn iter(&self) -> impl Iterator<Item = (SocketAddr, bool)> {
        self.all.iter().map(|it| (it.at, it.implicit_tls))
    }
}

fn bound(at: SocketAddr, v6_only: bool, shares: bool) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shares)?;
    if at.is_ipv6() {
        socket.set_only_v6(v6_only)?;
    }
    socket.bind(&at.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_several_workers_share_an_address_and_nobody_else_does() {
        let config = Config {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            ..Config::default()
        };
        let addresses = Addresses::choose(&config).unwrap();
        let one = addresses.open().unwrap();
        let two = addresses.open().unwrap();
        assert_eq!(one[0].address, two[0].address);
        assert_ne!(one[0].address.port(), 0);
        let config = Config {
            listen: vec![one[0].address],
            ..config
        };
        let error = Addresses::choose(&config).unwrap_err().to_string();
        assert!(error.contains("another program has it"), "{error}");
        drop((one, two));
        Addresses::choose(&config).unwrap();
    }
}
