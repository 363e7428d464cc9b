//! One connection, in clear or inside TLS: bytes out, bytes in, with the waits of its socket.
//!
//! Whether to trust the other side is not decided here, nor which of a session's two connections this
//! is.

mod sealed;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustls::client::UnbufferedClientConnection;

use super::interrupt;
use sealed::{End, Tls};

/// A socket, perhaps with TLS on it.
pub struct Stream {
    socket: Arc<TcpStream>,
    tls: Option<Box<Tls>>,
}

/// Why there is no TLS.
#[derive(Debug)]
pub enum NoTls {
    /// One of the two sides refuses, or the server does not speak it.
    Refused(rustls::Error),
    /// The connection broke.
    Broken(io::Error),
    /// It took too long.
    Stalled,
}

impl Stream {
    /// A connection in clear.
    pub fn new(socket: TcpStream) -> Stream {
        let socket = Arc::new(socket);
        interrupt::add(&socket);
        Stream { socket, tls: None }
    }

    /// The socket, for its timeouts.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// What was agreed on, for people; `None` in clear.
    pub fn agreed(&self) -> Option<String> {
        let connection = self.tls.as_ref()?.connection();
        let version = match connection.protocol_version()? {
            rustls::ProtocolVersion::TLSv1_3 => "TLS 1.3",
            rustls::ProtocolVersion::TLSv1_2 => "TLS 1.2",
            _ => "TLS",
        };
        let resumed = match connection.handshake_kind()? {
            rustls::HandshakeKind::Resumed => ", resumed",
            _ => "",
        };
        let suite = connection.negotiated_cipher_suite()?.suite();
        Some(format!("{version} {}{resumed}", suite.as_str()?))
    }

    /// Puts all that follows inside TLS.
    ///
    /// # Errors
    /// There is no TLS, and the connection is of no use any more.
    pub fn begin_tls(
        &mut self,
        connection: UnbufferedClientConnection,
        deadline: Instant,
    ) -> Result<(), NoTls> {
        let mut tls = Tls::new(connection);
        let stalled_or = |error: io::Error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => NoTls::Stalled,
            _ => NoTls::Broken(error),
        };
        loop {
            let processed = tls.process();
            if let Err(error) = processed {
                // The alert that tells the server why.
                let _ = self.socket.set_write_timeout(Some(Duration::from_secs(1)));
                let _ = tls.send(&self.socket);
                return Err(NoTls::Refused(error));
            }
            if !tls.connection().is_handshaking() && tls.is_flushed() {
                break;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Some(left).filter(|left| !left.is_zero());
            let left = left.ok_or(NoTls::Stalled)?;
            let set = self.socket.set_read_timeout(Some(left));
            set.and_then(|()| self.socket.set_write_timeout(Some(left)))
                .map_err(NoTls::Broken)?;
            let moved = match tls.is_flushed() {
                false => tls.send(&self.socket),
                true => tls.fill(&self.socket).and_then(|()| match tls.end() {
                    Some(_) => Err(ErrorKind::UnexpectedEof.into()),
                    None => Ok(()),
                }),
            };
            match moved {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                moved => moved.map_err(stalled_or)?,
            }
        }
        self.tls = Some(Box::new(tls));
        Ok(())
    }

    /// Reads once; 0 is the end. The end of TLS without close_notify is an error
    /// ([`ErrorKind::UnexpectedEof`]): something may be missing.
    ///
    /// # Errors
    /// Those of the socket; [`ErrorKind::Interrupted`] also when what came holds no content.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return (&*self.socket).read(buffer);
        };
        if tls.is_drained() && tls.end().is_none() {
            tls.fill(&self.socket)?;
            let processed = tls.process();
            // New keys are answered, and what cannot be decrypted.
            let _ = tls.send(&self.socket);
            processed.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        }
        match (tls.take(buffer), tls.end()) {
            (0, Some(End::Ordered)) => Ok(0),
            (0, Some(End::Cut)) => Err(ErrorKind::UnexpectedEof.into()),
            // Tickets, say. Whoever waits has a deadline to look at.
            (0, None) => Err(ErrorKind::Interrupted.into()),
            (n, _) => Ok(n),
        }
    }

    /// Takes some of `rest`, and sends some of what it has taken.
    ///
    /// # Errors
    /// Those of the socket; then nothing was sent, but some may have been taken.
    pub fn push(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            let n = (&*self.socket).write(rest)?;
            *rest = &rest[n..];
            return Ok(());
        };
        if tls.is_flushed() {
            let n = tls.encrypt(rest)?;
            *rest = &rest[n..];
        }
        tls.send(&self.socket)
    }

    /// Whether nothing that was taken waits to be sent.
    pub fn is_flushed(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| tls.is_flushed())
    }

    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn send_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() || !self.is_flushed() {
            match self.push(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                pushed => pushed?,
            }
        }
        Ok(())
    }

    /// Whether content, or the end of the connection, has arrived. It never waits.
    pub fn has_input(&mut self) -> bool {
        let Some(tls) = &mut self.tls else {
            return is_readable(&self.socket);
        };
        while tls.is_drained() && tls.end().is_none() {
            if !is_readable(&self.socket) {
                return false;
            }
            let filled = tls.fill(&self.socket);
            match filled {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Ok(()) if tls.process().is_ok() => {}
                _ => return true,
            }
        }
        true
    }

    /// Says that nothing more is sent: close_notify inside TLS, and the end of the stream.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn finish(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.say_goodbye()?;
        }
        self.send_all(b"")?;
        self.socket.shutdown(Shutdown::Write)
    }
}

fn is_readable(socket: &TcpStream) -> bool {
    // Not by making the socket non-blocking: that would hold for whoever shares it as well, and for
    // good if the way back failed.
    let mut byte = [0];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let peeked = recv(socket, &mut byte, flags);
    !matches!(peeked, Err(Errno::WOULDBLOCK | Errno::INTR))
}
