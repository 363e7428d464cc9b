//! The other side of a dialogue: a session without sockets, or a server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use socket2::SockRef;

use crate::shell::{PASSIVE_PORT, REFUSED_PORT, Shell};

/// Nothing that a dialogue waits for takes long.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a dialogue does to the other side.
pub trait Peer {
    fn send(&mut self, bytes: &[u8]);
    fn finish(&mut self);
    /// One line, without its end.
    fn line(&mut self) -> Result<Vec<u8>, String>;
    fn raw(&mut self, bytes: usize) -> Result<Vec<u8>, String>;
    fn closed(&mut self) -> Result<(), String>;
    /// Gets ready for an active data connection: its port as PORT and as EPRT write it.
    fn listen(&mut self) -> (String, String);
    fn refused_port(&mut self) -> String;
    /// Where the next data connection goes; `None`: it comes from the server.
    fn data_way(&mut self, port: Option<u16>);
    fn data_send(&mut self, bytes: &[u8]) -> Result<(), String>;
    fn data_finish(&mut self);
    fn data_reset(&mut self) -> Result<(), String>;
    /// All that comes, to the end.
    fn data_read(&mut self) -> Result<Vec<u8>, String>;
}

fn port_text(port: u16) -> (String, String) {
    let [high, low] = port.to_be_bytes();
    (format!("127,0,0,1,{high},{low}"), port.to_string())
}

/// A session without sockets.
pub struct WithoutSockets {
    shell: Shell,
    bytewise: bool,
    read: usize,
}

impl WithoutSockets {
    /// Segments arrive whole.
    pub fn whole(shell: Shell) -> WithoutSockets {
        WithoutSockets {
            shell,
            bytewise: false,
            read: 0,
        }
    }

    /// Every byte arrives alone.
    pub fn bytewise(shell: Shell) -> WithoutSockets {
        WithoutSockets {
            bytewise: true,
            ..WithoutSockets::whole(shell)
        }
    }
}

impl Peer for WithoutSockets {
    fn send(&mut self, bytes: &[u8]) {
        let pieces = if self.bytewise { 1 } else { bytes.len().max(1) };
        for piece in bytes.chunks(pieces) {
            self.shell.arrive(piece);
            self.shell.settle();
        }
    }

    fn finish(&mut self) {
        self.shell.finish();
        self.shell.settle();
    }

    fn line(&mut self) -> Result<Vec<u8>, String> {
        let rest = &self.shell.sent[self.read..];
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else {
            return Err(format!("no line, but \"{}\"", rest.escape_ascii()));
        };
        self.read += end + 2;
        Ok(rest[..end].to_vec())
    }

    fn raw(&mut self, bytes: usize) -> Result<Vec<u8>, String> {
        let rest = &self.shell.sent[self.read..];
        let found = rest[..bytes.min(rest.len())].to_vec();
        self.read += found.len();
        Ok(found)
    }

    fn closed(&mut self) -> Result<(), String> {
        let rest = &self.shell.sent[self.read..];
        if !rest.is_empty() {
            return Err(format!("there is more: \"{}\"", rest.escape_ascii()));
        }
        match self.shell.closed {
            true => Ok(()),
            false => Err("the connection is open".to_string()),
        }
    }

    fn listen(&mut self) -> (String, String) {
        port_text(PASSIVE_PORT + 1)
    }

    fn refused_port(&mut self) -> String {
        REFUSED_PORT.to_string()
    }

    fn data_way(&mut self, port: Option<u16>) {
        assert!(port.is_none_or(|port| port == PASSIVE_PORT), "{port:?}");
    }

    fn data_send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.shell.data().incoming.extend_from_slice(bytes);
        self.shell.settle();
        Ok(())
    }

    fn data_finish(&mut self) {
        self.shell.data().finished = true;
        self.shell.settle();
    }

    fn data_reset(&mut self) -> Result<(), String> {
        self.shell.data().reset = true;
        self.shell.settle();
        Ok(())
    }

    fn data_read(&mut self) -> Result<Vec<u8>, String> {
        if self.shell.moving.is_some() {
            self.shell.data().reads = true;
            self.shell.settle();
        }
        match self.shell.ended_data.take() {
            Some(data) => Ok(data.outgoing),
            None => Err("the data connection is not closed".to_string()),
        }
    }
}

/// `hauld`, and a client of it.
pub struct OverSockets {
    server: Child,
    control: BufReader<TcpStream>,
    /// Where active connections arrive.
    listener: TcpListener,
    passive: Option<SocketAddr>,
    data: Option<TcpStream>,
}

impl OverSockets {
    pub fn start(anonymous: &str, dir: &Path) -> OverSockets {
        let mut server = Command::new(env!("CARGO_BIN_EXE_hauld"))
            .args(["--listen", "127.0.0.1:0", "--anonymous", anonymous])
            .args(["--log-level", "error"])
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first_line = String::new();
        let stdout = server.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut first_line).unwrap();
        let address = first_line.trim_end().strip_prefix("listening on ");
        let address: SocketAddr = address.and_then(|text| text.parse().ok()).unwrap();
        let control = TcpStream::connect(address).unwrap();
        control.set_read_timeout(Some(PATIENCE)).unwrap();
        control.set_write_timeout(Some(PATIENCE)).unwrap();
        control.set_nodelay(true).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        // On Linux this is also how long accept waits.
        let patience = Some(PATIENCE);
        SockRef::from(&listener).set_read_timeout(patience).unwrap();
        OverSockets {
            server,
            control: BufReader::new(control),
            listener,
            passive: None,
            data: None,
        }
    }

    fn data(&mut self) -> Result<&mut TcpStream, String> {
        if self.data.is_none() {
            let stream = match self.passive.take() {
                Some(address) => TcpStream::connect(address),
                None => self.listener.accept().map(|(stream, _)| stream),
            };
            let stream = stream.map_err(|error| format!("no data connection: {error}"))?;
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            self.data = Some(stream);
        }
        Ok(self.data.as_mut().unwrap())
    }
}

impl Drop for OverSockets {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Peer for OverSockets {
    fn send(&mut self, bytes: &[u8]) {
        // A server that closes meanwhile is seen when its replies are read.
        let _ = self.control.get_mut().write_all(bytes);
    }

    fn finish(&mut self) {
        self.control.get_mut().shutdown(Shutdown::Write).unwrap();
    }

    fn line(&mut self) -> Result<Vec<u8>, String> {
        let mut line = Vec::new();
        let read = self.control.read_until(b'\n', &mut line);
        read.map_err(|error| format!("no line: {error}"))?;
        match line.strip_suffix(b"\r\n") {
            Some(content) => Ok(content.to_vec()),
            None => Err(format!("the end behind \"{}\"", line.escape_ascii())),
        }
    }

    fn raw(&mut self, bytes: usize) -> Result<Vec<u8>, String> {
        let mut found = vec![0; bytes];
        let read = self.control.read_exact(&mut found);
        read.map(|()| found).map_err(|error| error.to_string())
    }

    fn closed(&mut self) -> Result<(), String> {
        let mut rest = Vec::new();
        let read = self.control.read_to_end(&mut rest);
        read.map_err(|error| format!("not closed in order: {error}"))?;
        match rest.is_empty() {
            true => Ok(()),
            false => Err(format!("there is more: \"{}\"", rest.escape_ascii())),
        }
    }

    fn listen(&mut self) -> (String, String) {
        port_text(self.listener.local_addr().unwrap().port())
    }

    fn refused_port(&mut self) -> String {
        let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        gone.local_addr().unwrap().port().to_string()
    }

    fn data_way(&mut self, port: Option<u16>) {
        self.data = None;
        self.passive = port.map(|port| (Ipv4Addr::LOCALHOST, port).into());
    }

    fn data_send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let sent = self.data()?.write_all(bytes);
        sent.map_err(|error| error.to_string())
    }

    fn data_finish(&mut self) {
        self.data = None;
    }

    fn data_reset(&mut self) -> Result<(), String> {
        let stream = self.data()?;
        SockRef::from(&*stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        self.data = None;
        Ok(())
    }

    fn data_read(&mut self) -> Result<Vec<u8>, String> {
        let mut found = Vec::new();
        let read = self.data()?.read_to_end(&mut found);
        self.data = None;
        read.map(|_| found).map_err(|error| error.to_string())
    }
}
