//! Listening sockets that were opened before this process: by systemd, from a `.socket` unit, or by
//! the parent of several workers.

use std::env;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};

use listenfd::ListenFd;

/// The `FileDescriptorName=` of a socket where TLS begins at once.
pub const IMPLICIT_TLS: &str = "implicit-tls";

/// A listening socket that was passed on.
#[derive(Debug)]
pub struct Inherited {
    pub(super) socket: TcpListener,
    /// Where it listens.
    pub address: SocketAddr,
    /// It was named for clients that begin with TLS.
    pub implicit_tls: bool,
}

impl Inherited {
    /// A listening socket whoever it comes from.
    ///
    /// # Errors
    /// As getsockname(2).
    pub fn new(socket: TcpListener, implicit_tls: bool) -> io::Result<Inherited> {
        Ok(Inherited {
            address: socket.local_addr()?,
            socket,
            implicit_tls,
        })
    }
}

impl AsFd for Inherited {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The sockets that `LISTEN_FDS` and `LISTEN_PID` tell of, with their names in `LISTEN_FDNAMES`.
///
/// # Errors
/// One of them is something else than a TCP listener.
pub fn inherited() -> io::Result<Vec<Inherited>> {
    let mut descriptors = ListenFd::from_env();
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut sockets = Vec::new();
    for n in 0..descriptors.len() {
        let name = names.next().unwrap_or_default();
        if let Some(socket) = descriptors.take_tcp_listener(n)? {
            sockets.push(Inherited::new(socket, name == IMPLICIT_TLS)?);
        }
    }
    Ok(sockets)
}
