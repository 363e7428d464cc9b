//! A session in clear or inside TLS, for tests in which both do the same and the server may be gone
//! at any moment.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::ClientConfig;

use super::PATIENCE;
use super::secure::{Stream, begin_tls};

trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

/// A session of one of the two kinds. Whatever goes wrong is an error: the other side may be gone.
pub struct Either {
    wire: Box<dyn Duplex>,
    socket: TcpStream,
    input: Vec<u8>,
    server: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Either {
    pub fn login(server: SocketAddr, tls: Option<Arc<ClientConfig>>) -> io::Result<Either> {
        let stream = connect(server)?;
        let mut session = Either {
            wire: Box::new(stream.try_clone()?),
            socket: stream.try_clone()?,
            input: Vec::new(),
            server,
            tls: None,
        };
        session.reply()?;
        if let Some(config) = tls {
            session.command("AUTH TLS")?;
            session.wire = Box::new(begin_tls(&config, stream)?);
            session.tls = Some(config);
            session.command("PBSZ 0")?;
            session.command("PROT P")?;
        }
        session.command("USER anonymous")?;
        session.command("PASS x")?;
        Ok(session)
    }

    pub fn reply(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_string());
            }
            let mut chunk = [0; 4096];
            match self.wire.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => self.input.extend_from_slice(&chunk[..n]),
            }
        }
    }

    pub fn command(&mut self, line: &str) -> io::Result<String> {
        self.send(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.write_all(bytes)?;
        self.wire.flush()
    }

    /// The socket of the control connection.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// EPSV, a connection to there, and a verb that is answered with 150: what carries the data.
    pub fn data(&mut self, line: &str) -> io::Result<Data> {
        let told = self.command("EPSV")?;
        let port = told
            .split("(|||")
            .nth(1)
            .and_then(|it| it.split('|').next());
        let port: u16 = port.and_then(|it| it.parse().ok()).expect("a port");
        let socket = connect(SocketAddr::new(self.server.ip(), port))?;
        let first = self.command(line)?;
        if !first.starts_with("150") {
            return Ok(Data::Refused(first));
        }
        Ok(match &self.tls {
            None => Data::Clear(first, socket),
            Some(config) => Data::Sealed(first, Box::new(begin_tls(config, socket)?)),
        })
    }

    /// Sends a file over a data connection; the reply with which that began.
    pub fn store(&mut self, line: &str, content: &[u8]) -> io::Result<String> {
        let mut data = self.data(line)?;
        data.send(content)?;
        data.finish()
    }

    /// A verb whose answer comes over a data connection: that, and the last reply.
    pub fn fetch(&mut self, line: &str) -> io::Result<(Vec<u8>, String)> {
        let mut got = Vec::new();
        match self.data(line)? {
            Data::Refused(reply) => return Ok((got, reply)),
            Data::Clear(_, mut socket) => socket.read_to_end(&mut got)?,
            Data::Sealed(_, mut stream) => stream.read_to_end(&mut got)?,
        };
        Ok((got, self.reply()?))
    }

    /// DOWNLOAD: what came, and the last reply.
    pub fn download(&mut self, name: &str) -> io::Result<(Vec<u8>, String)> {
        let first = self.command(&format!("DOWNLOAD {name}"))?;
        let length = first
            .strip_prefix("150 ")
            .and_then(|it| it.split(' ').next());
        let Some(length) = length else {
            return Ok((Vec::new(), first));
        };
        let length: usize = length.parse().expect("a length");
        let mut chunk = vec![0; 64 << 10];
        while self.input.len() < length {
            match self.wire.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => self.input.extend_from_slice(&chunk[..n]),
            }
        }
        let content = self.input.drain(..length).collect();
        Ok((content, self.reply()?))
    }
}

/// A data connection, and the 150 before it.
pub enum Data {
    Refused(String),
    Clear(String, TcpStream),
    Sealed(String, Box<Stream>),
}

impl Data {
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Data::Refused(reply) => panic!("refused: {reply}"),
            Data::Clear(_, socket) => socket.write_all(bytes),
            Data::Sealed(_, stream) => stream.write_all(bytes),
        }
    }

    /// Ends it in order. The reply with which it began.
    pub fn finish(self) -> io::Result<String> {
        match self {
            Data::Refused(reply) | Data::Clear(reply, _) => Ok(reply),
            Data::Sealed(reply, mut stream) => {
                stream.conn.send_close_notify();
                stream.flush()?;
                Ok(reply)
            }
        }
    }
}
