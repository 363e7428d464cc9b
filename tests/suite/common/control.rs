//! A session by hand: raw bytes out, replies in, and what a test must see exactly (the order of the
//! replies, the end of the stream, who resets) is not hidden by a client library.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use super::PATIENCE;

/// One reply, with all its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub code: u16,
    /// The last line, behind the code.
    pub text: String,
    /// Every line as it came, without its CRLF.
    pub lines: Vec<Vec<u8>>,
}

/// A control connection. Everything on it ends within [`PATIENCE`].
pub struct Control {
    stream: TcpStream,
    /// Received and not yet looked at.
    input: Vec<u8>,
}

impl Control {
    /// Connects, and reads nothing yet.
    pub fn open(server: SocketAddr) -> Control {
        Control {
            stream: connect(None, server),
            input: Vec::new(),
        }
    }

    /// Connects from another address of this machine (127.0.0.2, say), and reads nothing yet.
    pub fn open_from(source: IpAddr, server: SocketAddr) -> Control {
        Control {
            stream: connect(Some(source), server),
            input: Vec::new(),
        }
    }

    /// Connects and waits for the greeting.
    pub fn connect(server: SocketAddr) -> Control {
        Control::open(server).greeted()
    }

    /// Connects and logs in as anonymous.
    pub fn login(server: SocketAddr) -> Control {
        Control::connect(server).logged_in()
    }

    pub fn greeted(mut self) -> Control {
        let greeting = self.reply();
        assert_eq!(greeting.code, 220, "{greeting:?}");
        self
    }

    pub fn logged_in(mut self) -> Control {
        let asked = self.command("USER anonymous");
        assert_eq!(asked.code, 331, "{asked:?}");
        let welcome = self.command("PASS tests@haul");
        assert_eq!(welcome.code, 230, "{welcome:?}");
        self
    }

    /// The socket itself, for resets, half-closes and urgent data.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sending");
    }

    /// Sends one line and reads one reply.
    pub fn command(&mut self, line: &str) -> Reply {
        self.send(line.as_bytes());
        self.send(b"\r\n");
        self.reply()
    }

    pub fn reply(&mut self) -> Reply {
        let mut lines = vec![self.line()];
        let first = lines[0].clone();
        let code = first
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let code: u16 = code
            .and_then(|digits| digits.parse().ok())
            .unwrap_or_else(|| panic!("not a reply: {}", first.escape_ascii()));
        if first.get(3) == Some(&b'-') {
            let last = [&first[..3], b" "].concat();
            while !lines.last().is_some_and(|line| line.starts_with(&last)) {
                lines.push(self.line());
            }
        }
        let text = lines
            .last()
            .and_then(|line| line.get(4..))
            .unwrap_or_default();
        Reply {
            code,
            text: String::from_utf8_lossy(text).into_owned(),
            lines,
        }
    }

    /// What has been read and not yet looked at, for who goes on with the socket itself.
    pub fn take_held(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.input)
    }

    pub fn read_exact(&mut self, n: usize) -> Vec<u8> {
        while self.input.len() < n {
            let before = self.input.len();
            assert!(
                self.receive() > 0,
                "the stream ended {} bytes early",
                n - before
            );
        }
        self.input.drain(..n).collect()
    }

    /// Nothing more comes, and it ends in order: a reset would have cost somebody the last reply.
    #[track_caller]
    pub fn expect_eof(&mut self) {
        while self.receive() > 0 {}
        assert!(self.input.is_empty(), "before the end came {}", self.held());
    }

    /// QUIT, its reply, and the end.
    #[track_caller]
    pub fn quit(mut self) {
        assert_eq!(self.command("QUIT").code, 221);
        self.expect_eof();
    }

    /// EPSV, and the data connection it offers.
    pub fn epsv(&mut self) -> TcpStream {
        let reply = self.command("EPSV");
        assert_eq!(reply.code, 229, "{reply:?}");
        let port = reply
            .text
            .split("(|||")
            .nth(1)
            .and_then(|rest| rest.split("|)").next());
        let port = port.and_then(|port| port.parse().ok());
        self.data_connection(port.unwrap_or_else(|| panic!("no port in {reply:?}")))
    }

    /// PASV, and the data connection it offers.
    pub fn pasv(&mut self) -> TcpStream {
        let reply = self.command("PASV");
        assert_eq!(reply.code, 227, "{reply:?}");
        let inner = reply.text.split(['(', ')']).nth(1).unwrap_or_default();
        let numbers: Vec<u8> = inner.split(',').filter_map(|n| n.parse().ok()).collect();
        let &[a, b, c, d, high, low] = &numbers[..] else {
            panic!("no address in {reply:?}")
        };
        let server = self.stream.peer_addr().expect("connected").ip();
        assert_eq!(
            server,
            IpAddr::from([a, b, c, d]),
            "the address the client reached"
        );
        self.data_connection(u16::from_be_bytes([high, low]))
    }

    /// A data connection to the server's `port`, from the address this session comes from.
    pub fn data_connection(&self, port: u16) -> TcpStream {
        let source = self.stream.local_addr().expect("connected").ip();
        let server = self.stream.peer_addr().expect("connected").ip();
        connect(Some(source), SocketAddr::new(server, port))
    }

    /// A verb that sends on a data connection (RETR, LIST, MLSD): what came, and the last reply.
    pub fn fetch(&mut self, line: &str) -> (Vec<u8>, Reply) {
        let mut data = self.epsv();
        let first = self.command(line);
        if first.code != 150 {
            return (Vec::new(), first);
        }
        let mut received = Vec::new();
        data.read_to_end(&mut received)
            .expect("reading the data connection to its end");
        (received, self.reply())
    }

    /// STOR over a data connection: the last reply.
    pub fn stor(&mut self, name: &str, content: &[u8]) -> Reply {
        let mut data = self.epsv();
        let first = self.command(&format!("STOR {name}"));
        if first.code != 150 {
            return first;
        }
        data.write_all(content).expect("sending the content");
        drop(data);
        self.reply()
    }

    /// UPLOAD in the waiting form: the last reply.
    pub fn upload(&mut self, name: &str, content: &[u8]) -> Reply {
        let first = self.command(&format!("UPLOAD {} {name}", content.len()));
        if first.code != 150 {
            return first;
        }
        self.send(content);
        self.reply()
    }

    /// DOWNLOAD: what came, and the last reply.
    pub fn download(&mut self, name: &str) -> (Vec<u8>, Reply) {
        let first = self.command(&format!("DOWNLOAD {name}"));
        if first.code != 150 {
            return (Vec::new(), first);
        }
        let n = first.text.split(' ').next().and_then(|n| n.parse().ok());
        let content = self.read_exact(n.unwrap_or_else(|| panic!("no length in {first:?}")));
        (content, self.reply())
    }

    fn line(&mut self) -> Vec<u8> {
        let mut from = 0;
        loop {
            if let Some(at) = self.input[from..].iter().position(|&byte| byte == b'\n') {
                let mut line: Vec<u8> = self.input.drain(..=from + at).collect();
                assert!(
                    line.ends_with(b"\r\n"),
                    "no CR before the LF: {}",
                    line.escape_ascii()
                );
                line.truncate(line.len() - 2);
                return line;
            }
            from = self.input.len();
            if self.receive() == 0 {
                let so_far = self.input.escape_ascii();
                panic!("the server closed instead of replying; so far \"{so_far}\"");
            }
        }
    }

    /// The beginning of what was received and not yet looked at, for messages.
    fn held(&self) -> String {
        let shown = &self.input[..self.input.len().min(500)];
        let more = self.input.len() - shown.len();
        format!("\"{}\" and {more} bytes more", shown.escape_ascii())
    }

    /// Reads once into the input; 0 is the end.
    #[track_caller]
    fn receive(&mut self) -> usize {
        let mut chunk = [0; 16 << 10];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(n) => {
                    self.input.extend_from_slice(&chunk[..n]);
                    return n;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    panic!("nothing came for {PATIENCE:?}; held: {}", self.held())
                }
                Err(e) => panic!("reading: {e}; held: {}", self.held()),
            }
        }
    }
}

/// Connects within [`PATIENCE`], from `source` if one is given.
pub fn connect(source: Option<IpAddr>, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
    if let Some(source) = source {
        let bound = socket.bind(&SocketAddr::new(source, 0).into());
        bound.unwrap_or_else(|e| panic!("binding to {source}: {e}"));
    }
    let connected = socket.connect_timeout(&to.into(), PATIENCE);
    connected.unwrap_or_else(|e| panic!("connecting to {to}: {e}"));
    socket
        .set_read_timeout(Some(PATIENCE))
        .expect("setting a timeout");
    socket
        .set_write_timeout(Some(PATIENCE))
        .expect("setting a timeout");
    socket.set_tcp_nodelay(true).expect("switching Nagle off");
    socket.into()
}
