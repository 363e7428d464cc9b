//! TLS on one connection, as the client, with rustls' unbuffered interface: records are decrypted
//! where they were read, and nobody copies what is thrown away anyway.

mod tickets;
mod trust;

use rustls::client::UnbufferedClientConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};

use super::dialogue::Failure;
use crate::client::trust::refusal;
use crate::sealing::TooSmall;
pub use trust::{Identity, Trust};

/// Plaintext encrypted at a time: eight full records.
pub const WRITE_BYTES: usize = 8 * RECORD_BYTES;
const RECORD_BYTES: usize = 16 * 1024;
/// What a peer may have sent without completing a record or a handshake message.
pub const HELD_BYTES_MAX: usize = 96 * 1024;

/// One connection. Bytes of the socket go in and out; no socket is here.
pub struct Tls {
    connection: UnbufferedClientConnection,
    /// The beginning of a record.
    held: Vec<u8>,
    /// Ciphertext that waits to be sent, from `sent` on.
    outgoing: Vec<u8>,
    sent: usize,
    has_ended: bool,
    said_goodbye: bool,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Begins: the hello waits to be sent.
    ///
    /// # Errors
    /// rustls does not want to.
    pub fn new(connection: UnbufferedClientConnection) -> Result<Tls, Failure> {
        let mut tls = Tls {
            connection,
            held: Vec::new(),
            outgoing: Vec::new(),
            sent: 0,
            has_ended: false,
            said_goodbye: false,
        };
        tls.process(&mut [], &mut |_| Ok(()))?;
        Ok(tls)
    }

    /// Whether the handshake is not over.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether the peer has ended the stream in order.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// What was agreed on, for people.
    pub fn agreed(&self) -> String {
        let version = self.connection.protocol_version();
        let suite = self.connection.negotiated_cipher_suite();
        format!(
            "{} {}",
            version.and_then(|version| version.as_str()).unwrap_or("?"),
            suite
                .and_then(|suite| suite.suite().as_str())
                .unwrap_or("?"),
        )
    }

    /// Puts what is left of the last bytes in front of the next ones. Returns how many they are.
    pub fn restore(&self, buffer: &mut [u8]) -> usize {
        let held = self.held.len().min(buffer.len());
        buffer[..held].copy_from_slice(&self.held[..held]);
        held
    }

    /// Takes ciphertext, with what [`Tls::restore`] gave in front, and gives `plain` what is in it.
    ///
    /// # Errors
    /// It is no TLS, or what `plain` says.
    pub fn receive(
        &mut self,
        bytes: &mut [u8],
        plain: &mut impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let used = self.process(bytes, plain)?;
        self.held.clear();
        self.held.extend_from_slice(&bytes[used..]);
        match self.held.len() {
            0..=HELD_BYTES_MAX => Ok(()),
            _ => Err(Failure::new("TLS", "a record that never ends")),
        }
    }

    fn process(
        &mut self,
        bytes: &mut [u8],
        plain: &mut impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<usize, Failure> {
        let broken = |error: rustls::Error| {
            let said = refusal(&error).unwrap_or_else(|| error.to_string());
            Failure::new("TLS", said)
        };
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.connection.process_tls_records(&mut bytes[used..]);
            let mut starved = false;
            match state.map_err(broken)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(broken)?;
                        discard += record.discard;
                        plain(record.payload)?;
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    append(&mut self.outgoing, 4096, |out| data.encode(out))?;
                }
                // Everything leaves in order, so encoded is as good as sent.
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed | ConnectionState::Closed => {
                    starved = self.has_ended;
                    self.has_ended = true;
                }
                _ => starved = true,
            }
            used += discard;
            if starved {
                return Ok(used);
            }
        }
    }

    /// Encrypts `plain` behind what waits to be sent.
    ///
    /// # Errors
    /// The connection is over, or not yet there.
    pub fn encrypt(&mut self, plain: &[u8]) -> Result<(), Failure> {
        self.write(Some(plain))
    }

    /// Says that nothing more comes (close_notify).
    pub fn end(&mut self) {
        if !self.said_goodbye {
            self.said_goodbye = true;
            // If it cannot be said, the peer is gone.
            let _ = self.write(None);
        }
    }

    fn write(&mut self, plain: Option<&[u8]>) -> Result<(), Failure> {
        loop {
            let UnbufferedStatus { discard, state } =
                self.connection.process_tls_records(&mut self.held);
            let mut done = false;
            match state.map_err(|error| Failure::new("TLS", error.to_string()))? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    done = true;
                    match plain {
                        Some(plain) => {
                            let records = plain.len().div_ceil(RECORD_BYTES);
                            let room = plain.len() + 64 * records;
                            append(&mut self.outgoing, room, |out| traffic.encrypt(plain, out))?;
                        }
                        None => {
                            append(&mut self.outgoing, 64, |out| {
                                traffic.queue_close_notify(out)
                            })?;
                        }
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    append(&mut self.outgoing, 4096, |out| data.encode(out))?;
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                _ => return Err(Failure::new("TLS", "the server has ended TLS")),
            }
            self.held.drain(..discard);
            if done {
                return Ok(());
            }
        }
    }

    /// Ciphertext that waits to be sent.
    pub fn outgoing(&self) -> &[u8] {
        &self.outgoing[self.sent..]
    }

    /// So much of [`Tls::outgoing`] has left.
    pub fn sent(&mut self, n: usize) {
        self.sent += n;
        if self.sent >= self.outgoing.len() {
            self.sent = 0;
            self.outgoing.clear();
            // What a login needs is kept, what a bulk transfer needed is not, per session.
            self.outgoing.shrink_to(2 * WRITE_BYTES);
        }
    }
}

/// Has `put` write behind the end of `buffer`, with as much room as it wants.
fn append<E: TooSmall>(
    buffer: &mut Vec<u8>,
    mut room: usize,
    mut put: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), Failure> {
    let end = buffer.len();
    loop {
        buffer.resize(end + room, 0);
        match put(&mut buffer[end..]) {
            Ok(n) => {
                buffer.truncate(end + n);
                return Ok(());
            }
            Err(error) => match error.required() {
                Some(bytes) if bytes > room => room = bytes,
                _ => return Err(Failure::new("TLS", "nothing more can be encrypted")),
            },
        }
    }
}
