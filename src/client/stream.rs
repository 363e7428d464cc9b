//! One connection, in clear or inside TLS: bytes out, bytes in, with the waits of its socket.
//!
//! Whether to trust the other side is not decided here, nor which of a session's two connections
//! this is.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustls::ClientConnection;

/// Ciphertext read at a time: four full records.
const INCOMING_BYTES: usize = 64 * 1024;
/// Plaintext encrypted at a time: sixteen full records.
const OUTGOING_BYTES: usize = 256 * 1024;

/// A socket, perhaps with TLS on it.
pub struct Stream {
    socket: TcpStream,
    tls: Option<Box<Tls>>,
}

struct Tls {
    connection: ClientConnection,
    /// Ciphertext that was read and is not decrypted yet: `incoming[from..to]`. rustls itself reads
    /// 4 KiB at a time, which would cost four times the system calls.
    incoming: Vec<u8>,
    from: usize,
    to: usize,
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
        Stream { socket, tls: None }
    }

    /// The socket, for its timeouts.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// What was agreed on, for people; `None` in clear.
    pub fn agreed(&self) -> Option<String> {
        let connection = &self.tls.as_ref()?.connection;
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
        mut connection: ClientConnection,
        deadline: Instant,
    ) -> Result<(), NoTls> {
        connection.set_buffer_limit(Some(OUTGOING_BYTES));
        let mut tls = Tls {
            connection,
            incoming: vec![0; INCOMING_BYTES],
            from: 0,
            to: 0,
        };
        let stalled_or = |error: io::Error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => NoTls::Stalled,
            _ => NoTls::Broken(error),
        };
        while tls.connection.is_handshaking() || tls.connection.wants_write() {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Some(left).filter(|left| !left.is_zero());
            let left = left.ok_or(NoTls::Stalled)?;
            let set = self.socket.set_read_timeout(Some(left));
            set.and_then(|()| self.socket.set_write_timeout(Some(left)))
                .map_err(NoTls::Broken)?;
            let moved = match tls.connection.wants_write() {
                true => tls.send(&self.socket),
                false => tls.fill(&self.socket).and_then(|()| match tls.to {
                    0 => Err(ErrorKind::UnexpectedEof.into()),
                    _ => Ok(()),
                }),
            };
            match moved {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                moved => moved.map_err(stalled_or)?,
            }
            if let Err(error) = tls.decrypt() {
                // The alert that tells the server why.
                let _ = self.socket.set_write_timeout(Some(Duration::from_secs(1)));
                let _ = tls.send(&self.socket);
                return Err(NoTls::Refused(error));
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
            return self.socket.read(buffer);
        };
        match tls.connection.reader().read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            read => return read,
        }
        if tls.from == tls.to {
            tls.fill(&self.socket)?;
        }
        let received = tls.receive();
        if tls.connection.wants_write() {
            // New keys are answered, and what cannot be decrypted.
            let _ = tls.send(&self.socket);
        }
        received?;
        match tls.connection.reader().read(buffer) {
            // Tickets, say. Whoever waits has a deadline to look at.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Err(ErrorKind::Interrupted.into())
            }
            read => read,
        }
    }

    /// Takes some of `rest`, and sends some of what it has taken.
    ///
    /// # Errors
    /// Those of the socket; then nothing was sent, but some may have been taken.
    pub fn push(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            let n = self.socket.write(rest)?;
            *rest = &rest[n..];
            return Ok(());
        };
        if !tls.connection.wants_write() {
            let n = tls.connection.writer().write(rest)?;
            *rest = &rest[n..];
        }
        tls.send(&self.socket)
    }

    /// Whether nothing that was taken waits to be sent.
    pub fn is_flushed(&self) -> bool {
        self.tls
            .as_ref()
            .is_none_or(|tls| !tls.connection.wants_write())
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
        loop {
            let Some(tls) = &mut self.tls else {
                return is_readable(&self.socket);
            };
            match tls.connection.process_new_packets() {
                Ok(state) if state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed() => {}
                _ => return true,
            }
            if tls.from == tls.to {
                if !is_readable(&self.socket) {
                    return false;
                }
                match tls.fill(&self.socket) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Ok(()) if tls.to > 0 => {}
                    _ => return true,
                }
            }
            if tls.receive().is_err() {
                return true;
            }
        }
    }

    /// Says that nothing more is sent: close_notify inside TLS, and the end of the stream.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn finish(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.connection.send_close_notify();
        }
        self.send_all(b"")?;
        self.socket.shutdown(Shutdown::Write)
    }
}

impl Tls {
    /// Reads ciphertext once; nothing came (`to` is 0) at its end.
    fn fill(&mut self, mut socket: &TcpStream) -> io::Result<()> {
        (self.from, self.to) = (0, 0);
        self.to = socket.read(&mut self.incoming)?;
        if self.to == 0 {
            self.connection.read_tls(&mut io::empty())?;
        }
        Ok(())
    }

    /// Decrypts some of what was read.
    fn receive(&mut self) -> io::Result<()> {
        self.take()?;
        match self.connection.process_new_packets() {
            Ok(_) => Ok(()),
            Err(error) => Err(io::Error::new(ErrorKind::InvalidData, error)),
        }
    }

    fn take(&mut self) -> io::Result<()> {
        let mut waiting = &self.incoming[self.from..self.to];
        if !waiting.is_empty() {
            self.from += self.connection.read_tls(&mut waiting)?;
        }
        Ok(())
    }

    /// All that was read, for as long as the handshake goes on.
    fn decrypt(&mut self) -> Result<(), rustls::Error> {
        loop {
            self.connection.process_new_packets()?;
            if self.from == self.to || !self.connection.is_handshaking() {
                return Ok(());
            }
            if let Err(error) = self.take() {
                return Err(rustls::Error::General(error.to_string()));
            }
        }
    }

    /// Sends ciphertext once.
    fn send(&mut self, mut socket: &TcpStream) -> io::Result<()> {
        match self.connection.write_tls(&mut socket)? {
            0 if self.connection.wants_write() => Err(ErrorKind::WriteZero.into()),
            _ => Ok(()),
        }
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
