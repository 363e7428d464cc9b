//! TLS on one socket (RFC 4217, RFC 8446), with rustls' unbuffered interface: records are decrypted
//! where they were read and encrypted into the buffer that is sent. Both buffers are lent; a
//! connection that waits for nothing holds none.
//!
//! Whose bytes these are, and over which of a client's sockets they travel, is not known here.

mod certificate;
mod clients;
mod examine;
mod setup;
mod tickets;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::SendFlags;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{Error, HandshakeKind, ServerConfig};

use crate::fingerprint::Fingerprint;
use crate::sealing::TooSmall;

pub use examine::Certificate;
pub use setup::{Session, Setup};
use tickets::Withholdable;

/// Ciphertext read at a time: four full records.
const READ_BYTES: usize = 64 * 1024;
/// What a peer may have sent without completing a record or a handshake message, of which rustls
/// takes up to 64 KiB; the first part of a record may stand behind that.
const HELD_BYTES_MAX: usize = 96 * 1024;
/// Plaintext encrypted at a time: eight full records.
pub const WRITE_BYTES: usize = 8 * RECORD_BYTES;
const RECORD_BYTES: usize = 16 * 1024;
/// What a record takes beside its content, at most: header, nonce, type and tag.
const RECORD_OVERHEAD_BYTES: usize = 64;
const OUTGOING_BYTES: usize = WRITE_BYTES + 16 * RECORD_OVERHEAD_BYTES;
/// Unused outgoing buffers that are kept.
const SPARE_MAX: usize = 8;

/// The buffers that all connections share.
#[derive(Debug, Default)]
pub struct Buffers {
    incoming: Vec<u8>,
    spare: Spare,
}

/// Buffers for ciphertext that leaves. Their length is their capacity, so that none is zeroed twice.
#[derive(Debug, Default)]
struct Spare(Vec<Vec<u8>>);

impl Spare {
    fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_else(|| vec![0; OUTGOING_BYTES])
    }

    fn give(&mut self, buffer: Vec<u8>) {
        if buffer.len() == OUTGOING_BYTES && self.0.len() < SPARE_MAX {
            self.0.push(buffer);
        }
    }
}

/// One TLS connection, as the server.
pub struct Tls {
    connection: UnbufferedServerConnection,
    /// The beginning of a record or of a handshake message.
    incoming: Vec<u8>,
    outgoing: Outgoing,
    must_resume: bool,
    /// Those of a data connection, until the handshake is over.
    tickets: Option<Arc<Withholdable>>,
    end: Option<End>,
    said_goodbye: bool,
}

/// Ciphertext that waits to be sent: `buffer[from..to]`.
#[derive(Default)]
struct Outgoing {
    buffer: Vec<u8>,
    from: usize,
    to: usize,
    left: u64,
}

/// How the peer's side ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It said that it sends no more (close_notify): what came was all there was.
    Ordered,
    /// The stream ended without that: something may be missing.
    Cut,
    Broken,
    /// There was never a connection, or not the one that it had to be.
    Refused,
}

/// What a read gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes were read; more or fewer, perhaps none, were appended.
    Moved(usize),
    /// The socket is not ready.
    Blocked,
    /// The peer has ended the stream in order (close_notify).
    Ended,
    /// The stream has ended without that: something may be missing.
    Cut,
    /// The connection is broken.
    Broken,
    /// The handshake failed, or did not resume a session where it had to.
    Refused,
}

impl From<End> for Read {
    fn from(end: End) -> Read {
        match end {
            End::Ordered => Read::Ended,
            End::Cut => Read::Cut,
            End::Broken => Read::Broken,
            End::Refused => Read::Refused,
        }
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("handshaking", &self.is_handshaking())
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// A connection that waits for the client's hello. `before` is what was said in clear and has
    /// not left yet; it leaves first. `must_resume`: a full handshake is refused.
    ///
    /// # Errors
    /// The configuration does not work with this interface.
    pub fn new(
        config: Arc<ServerConfig>,
        before: Vec<u8>,
        must_resume: bool,
    ) -> Result<Tls, Error> {
        Ok(Tls {
            connection: UnbufferedServerConnection::new(config)?,
            incoming: Vec::new(),
            outgoing: Outgoing {
                to: before.len(),
                buffer: before,
                ..Outgoing::default()
            },
            must_resume,
            tickets: None,
            end: None,
            said_goodbye: false,
        })
    }

    /// Answers the client's hello and takes nothing more: the handshake is not over before
    /// [`Tls::read`], and until then [`Tls::withhold_tickets`] is not too late.
    pub fn greet(&mut self, socket: BorrowedFd, buffers: &mut Buffers) -> Read {
        while !self.has_greeted() {
            match self.read(socket, &mut Vec::new(), buffers, usize::MAX) {
                Read::Moved(_) => {}
                read => return read,
            }
        }
        Read::Moved(0)
    }

    /// The client never reads what it is sent on this connection: it gets no tickets.
    pub fn withhold_tickets(&mut self) {
        if let Some(tickets) = self.tickets.take() {
            tickets.withhold();
        }
    }

    /// Reads once from the socket, up to `most` bytes, and appends what can be decrypted to `plain`.
    /// What has to be answered, during the handshake and after it, is answered.
    pub fn read(
        &mut self,
        socket: BorrowedFd,
        plain: &mut Vec<u8>,
        buffers: &mut Buffers,
        most: usize,
    ) -> Read {
        if let Some(end) = self.end {
            return end.into();
        }
        let was_handshaking = self.is_handshaking();
        let held = self.incoming.len();
        if held > HELD_BYTES_MAX {
            return self.ended(End::Broken);
        }
        let Buffers { incoming, spare } = buffers;
        incoming.resize(READ_BYTES + HELD_BYTES_MAX, 0);
        incoming[..held].copy_from_slice(&self.incoming);
        let n = loop {
            let room = &mut incoming[held..held + most.min(READ_BYTES)];
            match rustix::io::read(socket, room) {
                Ok(0) if was_handshaking => return self.ended(End::Refused),
                Ok(0) => return self.ended(End::Cut),
                Ok(n) => break n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Read::Blocked,
                Err(_) if was_handshaking => return self.ended(End::Refused),
                Err(_) => return self.ended(End::Broken),
            }
        };
        let bytes = &mut incoming[..held + n];
        let result = self.process(bytes, plain, spare);
        if self.outgoing.flush(socket, spare).is_err() {
            return self.ended(End::Broken);
        }
        match result {
            Ok(used) => self.incoming = bytes[used..].to_vec(),
            Err(error) => {
                log::info!("TLS: {error}");
                let end = if was_handshaking {
                    End::Refused
                } else {
                    End::Broken
                };
                return self.ended(end);
            }
        }
        // It is known from the hello on. To go on to the end would hand out a ticket, with which the
        // next connection would be let in.
        match self.connection.handshake_kind() {
            Some(HandshakeKind::Full) if self.must_resume => return self.ended(End::Refused),
            Some(HandshakeKind::FullWithHelloRetryRequest) if self.must_resume => {
                self.withhold_tickets();
                if !self.is_handshaking() {
                    return self.ended(End::Refused);
                }
            }
            _ => {}
        }
        Read::Moved(n)
    }

    fn ended(&mut self, end: End) -> Read {
        self.end = Some(end);
        self.incoming = Vec::new();
        end.into()
    }

    /// Decrypts what has come and encodes what must be answered. Returns how much of `bytes` is done
    /// with: the rest has to be there again when more comes, unchanged, since rustls remembers
    /// places in it.
    fn process(
        &mut self,
        bytes: &mut [u8],
        plain: &mut Vec<u8>,
        spare: &mut Spare,
    ) -> Result<usize, Error> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.connection.process_tls_records(&mut bytes[used..]);
            let mut starved = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    self.outgoing.encode(spare, |out| data.encode(out));
                }
                // Everything leaves in order, so encoded is as good as sent.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.end = Some(End::Ordered),
                Ok(_) => starved = true,
                Err(error) => {
                    self.encode_alert(&mut bytes[used + discard..], spare);
                    return Err(error);
                }
            }
            used += discard;
            if starved {
                return Ok(used);
            }
        }
    }

    /// What went wrong is for the peer to know too. Behind the last of what rustls has to say it would
    /// look at `rest` again and take offence once more.
    fn encode_alert(&mut self, rest: &mut [u8], spare: &mut Spare) {
        while self.connection.wants_write() {
            match self.connection.process_tls_records(rest).state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    self.outgoing.encode(spare, |out| data.encode(out));
                }
                _ => return,
            }
        }
    }

    /// Encrypts some of `plain`, up to [`WRITE_BYTES`], and sends it. Returns how much of `plain` was
    /// taken: none, while what was taken before has not left.
    ///
    /// # Errors
    /// The connection is broken, or there is none yet.
    pub fn write(
        &mut self,
        socket: BorrowedFd,
        plain: &[u8],
        buffers: &mut Buffers,
    ) -> io::Result<usize> {
        if !self.flush(socket, buffers)? {
            return Ok(0);
        }
        let chunk = &plain[..plain.len().min(WRITE_BYTES)];
        if !chunk.is_empty() {
            self.encrypt(Some(chunk), buffers)?;
            self.outgoing.flush(socket, &mut buffers.spare)?;
        }
        Ok(chunk.len())
    }

    /// Says that nothing more is sent (close_notify); [`Tls::flush`] sends it.
    pub fn end(&mut self, buffers: &mut Buffers) {
        if !self.said_goodbye && !self.is_handshaking() {
            self.said_goodbye = true;
            // If it cannot be said, the peer is gone.
            let _ = self.encrypt(None, buffers);
        }
    }

    /// `None`: close_notify.
    fn encrypt(&mut self, plain: Option<&[u8]>, buffers: &mut Buffers) -> io::Result<()> {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        if !matches!(self.end, None | Some(End::Ordered)) {
            return Err(broken());
        }
        loop {
            let UnbufferedStatus { discard, state } =
                self.connection.process_tls_records(&mut self.incoming);
            let mut done = false;
            match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    done = true;
                    let sealed = self.outgoing.encode(&mut buffers.spare, |out| match plain {
                        Some(plain) => traffic.encrypt(plain, out),
                        None => traffic.queue_close_notify(out),
                    });
                    if !sealed {
                        return Err(broken());
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    self.outgoing
                        .encode(&mut buffers.spare, |out| data.encode(out));
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                _ => {
                    self.end = Some(End::Broken);
                    return Err(broken());
                }
            }
            self.incoming.drain(..discard);
            if done {
                return Ok(());
            }
        }
    }

    /// Sends what is encrypted. `Ok(false)`: the socket is full.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn flush(&mut self, socket: BorrowedFd, buffers: &mut Buffers) -> io::Result<bool> {
        self.outgoing.flush(socket, &mut buffers.spare)
    }

    /// Whether the handshake is not over yet.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether anything has been answered.
    pub fn has_greeted(&self) -> bool {
        self.outgoing.left > 0 || self.has_outgoing()
    }

    /// Whether nothing can be sent any more.
    pub fn has_failed(&self) -> bool {
        !matches!(self.end, None | Some(End::Ordered))
    }

    /// Whether ciphertext waits to be sent.
    pub fn has_outgoing(&self) -> bool {
        self.outgoing.from < self.outgoing.to
    }

    /// Bytes of ciphertext that left.
    pub fn left(&self) -> u64 {
        self.outgoing.left
    }

    /// The certificate whose key the peer has shown to have.
    pub fn peer_certificate(&self) -> Option<Fingerprint> {
        if self.is_handshaking() {
            return None;
        }
        let chain = self.connection.peer_certificates()?;
        chain.first().map(|own| Fingerprint::of(own))
    }

    /// What was agreed on, for the log.
    pub fn agreed(&self) -> String {
        let version = self.connection.protocol_version();
        let suite = self.connection.negotiated_cipher_suite();
        let kind = match self.connection.handshake_kind() {
            Some(HandshakeKind::Resumed) => ", resumed",
            _ => "",
        };
        format!(
            "{} {}{kind}",
            version.and_then(|version| version.as_str()).unwrap_or("?"),
            suite
                .and_then(|suite| suite.suite().as_str())
                .unwrap_or("?"),
        )
    }
}

impl Outgoing {
    /// Has `put` write behind what waits, with as much room as it wants. False: it did not.
    fn encode<E: TooSmall>(
        &mut self,
        spare: &mut Spare,
        mut put: impl FnMut(&mut [u8]) -> Result<usize, E>,
    ) -> bool {
        if self.buffer.is_empty() {
            self.buffer = spare.take();
        }
        loop {
            match put(&mut self.buffer[self.to..]) {
                Ok(n) => {
                    self.to += n;
                    return true;
                }
                Err(error) => match error.required() {
                    Some(bytes) => self.buffer.resize(self.to + bytes, 0),
                    None => return false,
                },
            }
        }
    }

    fn flush(&mut self, socket: BorrowedFd, spare: &mut Spare) -> io::Result<bool> {
        while self.from < self.to {
            let waiting = &self.buffer[self.from..self.to];
            match rustix::net::send(socket, waiting, SendFlags::NOSIGNAL) {
                Ok(n) => {
                    self.from += n;
                    self.left += n as u64;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        self.from = 0;
        self.to = 0;
        if !self.buffer.is_empty() {
            spare.give(std::mem::take(&mut self.buffer));
        }
        Ok(true)
    }
}
