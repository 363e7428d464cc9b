//! TLS between two buffers, by rustls' unbuffered interface: what was read is decrypted where it lies,
//! what is to leave is encrypted behind what waits already. rustls' own buffers would read 4 KiB at a
//! time and allocate every record.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use rustls::client::UnbufferedClientConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};

use crate::sealing::TooSmall;

/// Ciphertext that is read at a time, together with the record or handshake message, of at most
/// 64 KiB, that has begun.
const INCOMING_BYTES: usize = 192 * 1024;
/// Plaintext encrypted at a time: eight full records.
const CHUNK_BYTES: usize = 128 * 1024;
/// Such a chunk encrypted.
const OUTGOING_BYTES: usize = CHUNK_BYTES + 1024;

/// One TLS connection, as the client.
pub struct Tls {
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
pub enum End {
    /// By close_notify: what came was all there was.
    Ordered,
    /// Without it.
    Cut,
}

impl Tls {
    /// Nothing was said yet.
    pub fn new(connection: UnbufferedClientConnection) -> Tls {
        Tls {
            connection,
            incoming: Buffer::new(INCOMING_BYTES),
            plain: Buffer::new(INCOMING_BYTES),
            outgoing: Buffer::new(OUTGOING_BYTES),
            end: None,
        }
    }

    /// What was agreed on.
    pub fn connection(&self) -> &UnbufferedClientConnection {
        &self.connection
    }

    /// How the other side ended, if it has.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Whether nothing is decrypted that was not taken.
    pub fn is_drained(&self) -> bool {
        self.plain.is_empty()
    }

    /// Whether nothing is encrypted that has not left.
    pub fn is_flushed(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Takes what was decrypted, as much as there is room for.
    pub fn take(&mut self, into: &mut [u8]) -> usize {
        self.plain.take(into)
    }

    /// Reads ciphertext once.
    pub fn fill(&mut self, mut socket: &TcpStream) -> io::Result<()> {
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
    pub fn process(&mut self) -> Result<(), rustls::Error> {
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

    /// Encrypts some of `plain`, and says how much.
    pub fn encrypt(&mut self, plain: &[u8]) -> io::Result<usize> {
        let chunk = &plain[..plain.len().min(CHUNK_BYTES)];
        if !chunk.is_empty() {
            self.seal(Some(chunk))?;
        }
        Ok(chunk.len())
    }

    /// Says that nothing more is sent: close_notify.
    pub fn say_goodbye(&mut self) -> io::Result<()> {
        self.seal(None)
    }

    /// `None`: close_notify.
    fn seal(&mut self, plain: Option<&[u8]>) -> io::Result<()> {
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
    pub fn send(&mut self, mut socket: &TcpStream) -> io::Result<()> {
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
