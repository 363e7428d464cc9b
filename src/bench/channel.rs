//! One connection: a socket that does not block, in clear or inside TLS. Bytes that nobody wants are
//! discarded in the kernel.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::sockopt::{set_tcp_nodelay, socket_error};
use rustix::net::{RecvFlags, SendFlags, Shutdown, getpeername, recv, send, shutdown};
use socket2::{Domain, Protocol, Socket, Type};

use super::content::Content;
use super::dialogue::Failure;
use super::outbox::{Next, Outbox};
use super::tls::{HELD_BYTES_MAX, Tls, WRITE_BYTES};

/// Read at a time, where it has to be looked at.
const READ_BYTES: usize = 256 * 1024;
/// Discarded at a time.
pub const DISCARD_BYTES: usize = 1 << 20;
/// Sent of a body per turn, for others to have theirs.
const TURN_BYTES: u64 = 4 << 20;

/// Memory that all connections share.
#[derive(Debug)]
pub struct Scratch(Vec<u8>);

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch(vec![0; DISCARD_BYTES.max(READ_BYTES + HELD_BYTES_MAX)])
    }
}

/// What a read gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Something; there may be more.
    More,
    /// Something or nothing; an event tells when there is more.
    Drained,
    /// The stream is over: inside TLS the peer has said so, or the connection has ended.
    End,
}

/// What sending led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Everything has left.
    All,
    /// The socket is full; an event tells when it is not.
    Blocked,
    /// Enough for a turn.
    More,
}

/// A connection.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    tls: Option<Box<Tls>>,
    is_connected: bool,
    is_registered: bool,
    /// The peer has ended its side: only the end of the stream says that all was read.
    is_half_closed: bool,
}

impl Channel {
    /// Begins to connect.
    ///
    /// # Errors
    /// No socket, no port, or nobody there.
    pub fn connect(address: SocketAddr) -> Result<Channel, Failure> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM.nonblocking(),
            Some(Protocol::TCP),
        )
        .map_err(|error| failure("no socket", &error))?;
        let is_connected = match socket.connect(&address.into()) {
            Ok(()) => true,
            Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => false,
            Err(error) => return Err(failure("connect", &error)),
        };
        Ok(Channel {
            socket: socket.into(),
            tls: None,
            is_connected,
            is_registered: false,
            is_half_closed: false,
        })
    }

    /// Short commands leave at once, even behind others that were not acknowledged.
    ///
    /// # Errors
    /// The socket is none any more.
    pub fn send_at_once(&self) -> Result<(), Failure> {
        set_tcp_nodelay(&self.socket, true).map_err(|error| failure("no socket", &error.into()))
    }

    /// Asks for events, once.
    ///
    /// # Errors
    /// The system has no room for it.
    pub fn register(&mut self, registry: &Registry, token: Token) -> Result<(), Failure> {
        if self.is_registered {
            return Ok(());
        }
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry
            .register(&mut SourceFd(&self.socket.as_raw_fd()), token, interest)
            .map_err(|error| failure("no events", &error))?;
        self.is_registered = true;
        Ok(())
    }

    /// The peer has sent all that it will.
    pub fn half_closed(&mut self) {
        self.is_half_closed = true;
    }

    /// Whether the connection stands by now. Only who wants to know when it did has to ask: before
    /// that, nothing can be read and nothing sent.
    ///
    /// # Errors
    /// It never will.
    pub fn is_connected(&mut self) -> Result<bool, Failure> {
        if !self.is_connected {
            self.is_connected = getpeername(&self.socket).is_ok_and(|address| address.is_some());
        }
        if !self.is_connected {
            match socket_error(&self.socket) {
                Ok(Ok(())) => {}
                Ok(Err(error)) | Err(error) => return Err(failure("connect", &error.into())),
            }
        }
        Ok(self.is_connected)
    }

    /// Everything from here on is inside TLS.
    pub fn secure(&mut self, tls: Tls) {
        self.tls = Some(Box::new(tls));
    }

    /// TLS, if there is any.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_deref()
    }

    /// Whether a handshake is under way.
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Reads once, and gives `plain` what came.
    ///
    /// # Errors
    /// The connection broke, or what `plain` says.
    pub fn read(
        &mut self,
        scratch: &mut Scratch,
        mut plain: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<Read, Failure> {
        let held = match &self.tls {
            Some(tls) => tls.restore(&mut scratch.0),
            None => 0,
        };
        let buffer = &mut scratch.0[held..held + READ_BYTES];
        let n = match receive(&self.socket, buffer, RecvFlags::empty())? {
            Some(n) => n,
            None => return Ok(Read::Drained),
        };
        if n == 0 {
            return Ok(Read::End);
        }
        match &mut self.tls {
            None => plain(&buffer[..n])?,
            Some(tls) => {
                tls.receive(&mut scratch.0[..held + n], &mut plain)?;
                if tls.has_ended() {
                    return Ok(Read::End);
                }
            }
        }
        Ok(self.state_behind(n < READ_BYTES))
    }

    /// Throws up to `most` bytes away without looking at them; not for TLS. Returns how many.
    ///
    /// # Errors
    /// The connection broke.
    pub fn discard(&mut self, scratch: &mut Scratch, most: u64) -> Result<(u64, Read), Failure> {
        let wanted = most.min(DISCARD_BYTES as u64) as usize;
        let buffer = &mut scratch.0[..wanted];
        match receive(&self.socket, buffer, RecvFlags::TRUNC)? {
            None => Ok((0, Read::Drained)),
            Some(0) => Ok((0, Read::End)),
            Some(n) => Ok((n as u64, self.state_behind(n < wanted))),
        }
    }

    /// A short read has emptied the socket, unless the end comes behind it.
    fn state_behind(&self, was_short: bool) -> Read {
        match was_short && self.is_registered && !self.is_half_closed {
            true => Read::Drained,
            false => Read::More,
        }
    }

    /// Sends what it can. `count` gets the bytes that left of bodies.
    ///
    /// # Errors
    /// The connection broke.
    pub fn send(
        &mut self,
        outbox: &mut Outbox,
        content: &Content,
        count: &mut u64,
    ) -> Result<Sent, Failure> {
        let mut turn = TURN_BYTES;
        loop {
            if !self.flush()? {
                return Ok(Sent::Blocked);
            }
            let Some(next) = outbox.next() else {
                return Ok(Sent::All);
            };
            if turn == 0 {
                return Ok(Sent::More);
            }
            let (sent, is_body) = match (&mut self.tls, next) {
                (None, Next::Bytes(bytes)) => (self.send_bytes(bytes)?, false),
                (None, Next::Content { from, left }) => {
                    (self.send_content(content, from, left.min(turn))?, true)
                }
                (Some(tls), Next::Bytes(bytes)) => {
                    let chunk = &bytes[..bytes.len().min(WRITE_BYTES)];
                    tls.encrypt(chunk)?;
                    (Some(chunk.len() as u64), false)
                }
                (Some(tls), Next::Content { from, left }) => {
                    let bytes = content.bytes(from);
                    let n = (bytes.len() as u64).min(left).min(WRITE_BYTES as u64);
                    tls.encrypt(&bytes[..n as usize])?;
                    (Some(n), true)
                }
            };
            let Some(n) = sent else {
                return Ok(Sent::Blocked);
            };
            outbox.sent(n);
            if is_body {
                *count += n;
                turn = turn.saturating_sub(n);
            }
        }
    }

    /// Sends the ciphertext that waits. False: the socket is full.
    ///
    /// # Errors
    /// The connection broke.
    pub fn flush(&mut self) -> Result<bool, Failure> {
        let Some(tls) = &mut self.tls else {
            return Ok(true);
        };
        while !tls.outgoing().is_empty() {
            match send(&self.socket, tls.outgoing(), SendFlags::NOSIGNAL) {
                Ok(n) => tls.sent(n),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(failure("broken connection", &error.into())),
            }
        }
        Ok(true)
    }

    fn send_bytes(&self, bytes: &[u8]) -> Result<Option<u64>, Failure> {
        retried(|| send(&self.socket, bytes, SendFlags::NOSIGNAL))
    }

    fn send_content(
        &self,
        content: &Content,
        from: u64,
        most: u64,
    ) -> Result<Option<u64>, Failure> {
        let (mut at, there) = content.place(from);
        let n = most.min(there) as usize;
        retried(|| sendfile(&self.socket, content.file(), Some(&mut at), n))
    }

    /// Says that nothing more is sent. False: not yet, the socket is full.
    ///
    /// # Errors
    /// The connection broke.
    pub fn end(&mut self) -> Result<bool, Failure> {
        if let Some(tls) = &mut self.tls {
            tls.end();
        }
        if !self.flush()? {
            return Ok(false);
        }
        // A peer that has gone already is found out by reading.
        let _ = shutdown(self.socket.as_fd(), Shutdown::Write);
        Ok(true)
    }
}

/// `None`: not now.
fn receive(
    socket: &OwnedFd,
    buffer: &mut [u8],
    flags: RecvFlags,
) -> Result<Option<usize>, Failure> {
    let length = buffer.len();
    let received = retried(|| recv(socket, &mut *buffer, flags).map(|(_, n)| n))?;
    Ok(received.map(|n| (n as usize).min(length)))
}

fn retried(mut call: impl FnMut() -> Result<usize, Errno>) -> Result<Option<u64>, Failure> {
    loop {
        match call() {
            Ok(n) => return Ok(Some(n as u64)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(failure("broken connection", &error.into())),
        }
    }
}

fn failure(class: &str, error: &std::io::Error) -> Failure {
    let text = crate::text::plain(error);
    Failure::new(format!("{class}: {text}"), text)
}
