//! Listening sockets, with the options that mio does not set. Linux hands most of them down to the
//! accepted connections, so they cost nothing per connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

/// A peer that does not answer at all is given up after this.
const PEER_SILENT: Duration = Duration::from_secs(120);

/// A listening socket at `address`. `v6_only`: it leaves IPv4 to another socket; without it, `[::]`
/// takes both.
///
/// # Errors
/// As bind(2) and listen(2): the address is in use, or not of this machine.
pub fn tcp(address: SocketAddr, backlog: i32, v6_only: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Without it, a restarted server would wait for the last connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(v6_only)?;
    }
    socket.bind(&address.into())?;
    ready(socket, backlog)
}

/// A socket that somebody else has bound.
///
/// # Errors
/// As listen(2).
pub fn adopt(socket: std::net::TcpListener, backlog: i32) -> io::Result<TcpListener> {
    ready(socket.into(), backlog)
}

fn ready(socket: Socket, backlog: i32) -> io::Result<TcpListener> {
    socket.set_tcp_nodelay(true)?;
    // An interrupt sent as urgent data (RFC 959 section 4.1.3) stays in its place in the stream.
    socket.set_out_of_band_inline(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(PEER_SILENT / 2)
            .with_interval(PEER_SILENT / 8),
    )?;
    socket.set_tcp_user_timeout(Some(PEER_SILENT))?;
    socket.set_nonblocking(true)?;
    socket.listen(backlog)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Begins a data connection to `to` from the address `from`, at which the client reached us.
///
/// # Errors
/// As connect(2), but that it is not there yet is none.
pub fn connect(from: std::net::IpAddr, to: SocketAddr) -> io::Result<mio::net::TcpStream> {
    let from = if to.is_ipv4() {
        from.to_canonical()
    } else {
        from
    };
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    match socket.connect(&to.into()) {
        Ok(()) => {}
        Err(error)
            if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(mio::net::TcpStream::from_std(socket.into()))
}
