//! One connection, in clear or inside TLS: bytes out, bytes in, with the waits of its socket.
//!
//! TLS is rustls' unbuffered interface: records are decrypted where they were read and encrypted into
//! the buffer that is sent. Whether to trust the other side is not decided here, nor which of a
//! session's two connections this is.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustls::client::UnbufferedClientConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};

/// Ciphertext that is read at a time, together with the record or handshake message, of at most
/// 64 KiB, that has begun.
const INCOMING_BYTES: usize = 192 * 1024;
/// Plaintext encrypted at a time: eight full records.
const CHUNK_BYTES: usize = 128 * 1024;
/// Such a chunk encrypted.
const OUTGOING_BYTES: usize = CHUNK_BYTES + 1024;

/// A socket, perhaps with TLS on it.
pub struct Stream {
    socket: TcpStream,
    tls: Option<Box<Tls>>,
}

struct Tls {
    connection: UnbufferedClientConnection,
    incoming: Buffer,
    plain: Buffer,
    outgoing: Buffer,
    end: Option<End>,
}

/// Bytes on their way: those from `from` to `to`.
struct Buffer {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

/// How the other side ended.
#[derive(Clone, Copy)]
enum End {
    /// By close_notify: what came was all there was.
    Ordered,
    /// Without it.
    Cut,
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
        connection: UnbufferedClientConnection,
        deadline: Instant,
    ) -> Result<(), NoTls> {
        let mut tls = Tls {
            connection,
            incoming: Buffer::new(INCOMING_BYTES),
            plain: Buffer::new(INCOMING_BYTES),
            outgoing: Buffer::new(OUTGOING_BYTES),
            end: None,
        };
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
            if !tls.connection.is_handshaking() && tls.outgoing.is_empty() {
                break;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Some(left).filter(|left| !left.is_zero());
            let left = left.ok_or(NoTls::Stalled)?;
            let set = self.socket.set_read_timeout(Some(left));
            set.and_then(|()| self.socket.set_write_timeout(Some(left)))
                .map_err(NoTls::Broken)?;
            let moved = match tls.outgoing.is_empty() {
                false => tls.send(&self.socket),
                true => tls.fill(&self.socket).and_then(|()| match tls.end {
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
            return self.socket.read(buffer);
        };
        if tls.plain.is_empty() && tls.end.is_none() {
            tls.fill(&self.socket)?;
            let processed = tls.process();
            // New keys are answered, and what cannot be decrypted.
            let _ = tls.send(&self.socket);
            processed.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        }
        match (tls.plain.take(buffer), tls.end) {
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
            let n = self.socket.write(rest)?;
            *rest = &rest[n..];
            return Ok(());
        };
        if tls.outgoing.is_empty() {
            let (chunk, behind) = rest.split_at(rest.len().min(CHUNK_BYTES));
            tls.encrypt(Some(chunk))?;
            *rest = behind;
        }
        tls.send(&self.socket)
    }

    /// Whether nothing that was taken waits to be sent.
    pub fn is_flushed(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| tls.outgoing.is_empty())
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
        while tls.plain.is_empty() && tls.end.is_none() {
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
            tls.encrypt(None)?;
        }
        self.send_all(b"")?;
        self.socket.shutdown(Shutdown::Write)
    }
}

impl Tls {
    /// Reads ciphertext once.
    fn fill(&mut self, mut socket: &TcpStream) -> io::Result<()> {
        let room = self.incoming.room();
        if room.is_empty() {
            return Err(io::Error::other("a TLS message that never ends"));
        }
        match socket.read(room)? {
            0 => self.end = Some(End::Cut),
            n => self.incoming.to += n,
        }
        Ok(())
    }

    /// Decrypts all that was read and encodes what has to be answered. What stays in `incoming` is the
    /// beginning of something; rustls remembers places in it.
    fn process(&mut self) -> Result<(), rustls::Error> {
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.connection.process_tls_records(self.incoming.filled());
            let mut starved = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        self.plain.append(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    self.outgoing.encode(|out| data.encode(out))?;
                }
                // Everything leaves in order, so encoded is as good as sent.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.end = Some(End::Ordered),
                Ok(_) => starved = true,
                Err(error) => {
                    self.incoming.from += discard;
                    self.encode_alert();
                    return Err(error);
                }
            }
            self.incoming.from += discard;
            if starved {
                return Ok(());
            }
        }
    }

    /// What went wrong is for the server to know too. Behind the last of what rustls has to say it
    /// would look at the rest again and take offence once more.
    fn encode_alert(&mut self) {
        while self.connection.wants_write() {
            match self
                .connection
                .process_tls_records(self.incoming.filled())
                .state
            {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    if self.outgoing.encode(|out| data.encode(out)).is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    /// `None`: close_notify.
    fn encrypt(&mut self, plain: Option<&[u8]>) -> io::Result<()> {
        if plain.is_some_and(<[u8]>::is_empty) {
            return Ok(());
        }
        let broken = |error: rustls::Error| io::Error::new(ErrorKind::InvalidData, error);
        self.process().map_err(broken)?;
        let state = self
            .connection
            .process_tls_records(self.incoming.filled())
            .state;
        let Ok(ConnectionState::WriteTraffic(mut traffic)) = state else {
            return Err(ErrorKind::BrokenPipe.into());
        };
        let sealed = self.outgoing.encode(|out| match plain {
            Some(plain) => traffic.encrypt(plain, out),
            None => traffic.queue_close_notify(out),
        });
        sealed.map_err(broken)
    }

    /// Sends ciphertext once, if there is any.
    fn send(&mut self, mut socket: &TcpStream) -> io::Result<()> {
        let waiting = self.outgoing.filled();
        if waiting.is_empty() {
            return Ok(());
        }
        match socket.write(waiting)? {
            0 => Err(ErrorKind::WriteZero.into()),
            n => {
                self.outgoing.from += n;
                Ok(())
            }
        }
    }
}

/// Why something was not put into a buffer: it takes so much.
trait TooSmall {
    fn required(&self) -> Option<usize>;
}

impl TooSmall for EncodeError {
    fn required(&self) -> Option<usize> {
        match self {
            EncodeError::InsufficientSize(size) => Some(size.required_size),
            EncodeError::AlreadyEncoded => None,
        }
    }
}

impl TooSmall for EncryptError {
    fn required(&self) -> Option<usize> {
        match self {
            EncryptError::InsufficientSize(size) => Some(size.required_size),
            EncryptError::EncryptExhausted => None,
        }
    }
}

impl Buffer {
    fn new(bytes: usize) -> Buffer {
        Buffer {
            bytes: vec![0; bytes],
            from: 0,
            to: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.from == self.to
    }

    fn filled(&mut self) -> &mut [u8] {
        &mut self.bytes[self.from..self.to]
    }

    /// What is free behind the content, which moves to the beginning.
    fn room(&mut self) -> &mut [u8] {
        if self.from > 0 {
            self.bytes.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
        }
        &mut self.bytes[self.to..]
    }

    fn append(&mut self, content: &[u8]) {
        if self.room().len() < content.len() {
            self.bytes.resize(self.to + content.len(), 0);
        }
        self.room()[..content.len()].copy_from_slice(content);
        self.to += content.len();
    }

    fn take(&mut self, into: &mut [u8]) -> usize {
        let n = into.len().min(self.to - self.from);
        into[..n].copy_from_slice(&self.filled()[..n]);
        self.from += n;
        n
    }

    /// Has `put` write behind the content, with as much room as it wants.
    fn encode<E: TooSmall>(
        &mut self,
        mut put: impl FnMut(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), rustls::Error> {
        loop {
            match put(self.room()) {
                Ok(n) => {
                    self.to += n;
                    return Ok(());
                }
                Err(error) => match error.required() {
                    Some(bytes) => self.bytes.resize(self.to + bytes, 0),
                    None => return Err(rustls::Error::EncryptError),
                },
            }
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
