//! A server that is a script on a thread.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::PATIENCE;

/// One client's control connection, from the server's side.
pub struct Talk {
    pub control: BufReader<Wire>,
    pub heard: Vec<String>,
    /// AUTH is for the script to hear. Otherwise it is refused, and that is not in the script.
    pub hears_auth: bool,
}

impl Talk {
    pub fn new(stream: TcpStream) -> Talk {
        Talk {
            control: BufReader::new(Wire::Clear(stream)),
            heard: Vec::new(),
            hears_auth: false,
        }
    }

    /// The server's side of a handshake, behind what was said so far. False: the client does not want
    /// it.
    pub fn begin_tls(&mut self, config: &Arc<ServerConfig>) -> bool {
        assert!(self.control.buffer().is_empty(), "bytes in front of TLS");
        let Wire::Clear(socket) = self.control.get_ref() else {
            panic!("TLS is on already");
        };
        let secure = protect(socket.try_clone().unwrap(), config);
        let is_on = secure.is_ok();
        if let Ok(stream) = secure {
            self.control = BufReader::new(Wire::Tls(Box::new(stream)));
        }
        is_on
    }

    pub fn say(&mut self, text: &str) {
        self.say_bytes(format!("{text}\r\n").as_bytes());
    }

    /// A client that has given up may not be listening any more.
    pub fn say_bytes(&mut self, bytes: &[u8]) -> bool {
        self.control.get_mut().write_all(bytes).is_ok()
    }

    /// The next line; empty at the end.
    pub fn hear(&mut self) -> String {
        let mut line = Vec::new();
        let _ = self.control.read_until(b'\n', &mut line);
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if line == "AUTH TLS" && !self.hears_auth {
            self.say("502 no TLS here");
            return self.hear();
        }
        if !line.is_empty() {
            self.heard.push(line.clone());
        }
        line
    }

    /// Waits for the first bytes of what is no line, a TLS hello for example.
    pub fn hear_something(&mut self) {
        assert!(!self.control.fill_buf().unwrap().is_empty(), "the end");
    }

    /// The client waits for so long, and neither says anything nor gives up.
    #[track_caller]
    pub fn hear_nothing(&mut self, time: Duration) {
        let Wire::Clear(socket) = self.control.get_ref() else {
            panic!("inside TLS it cannot be told");
        };
        socket.set_read_timeout(Some(time)).unwrap();
        let came = socket.peek(&mut [0]);
        assert!(came.is_err(), "it did not wait: {came:?}");
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }

    #[track_caller]
    pub fn expect(&mut self, beginning: &str) -> String {
        let line = self.hear();
        assert!(line.starts_with(beginning), "{line:?} is not {beginning:?}");
        line
    }

    #[track_caller]
    pub fn answer(&mut self, beginning: &str, reply: &str) {
        self.expect(beginning);
        self.say(reply);
    }

    /// There is a directory of that name, as servers say it that know no MLST.
    #[track_caller]
    pub fn lets_into(&mut self, dir: &str) {
        self.answer("PWD", "257 \"/\"");
        self.answer(&format!("CWD {dir}"), "250 there");
        self.answer("CWD /", "250 and back");
    }

    pub fn login(&mut self, features: &[&str]) {
        self.say("220 ready");
        self.answer("USER anonymous", "331 password");
        self.answer("PASS ", "230 welcome");
        let lines: String = features.iter().map(|f| format!(" {f}\r\n")).collect();
        self.answer("FEAT", &format!("211-Features:\r\n{lines}211 End"));
    }

    /// Answers EPSV and gives the listener that the client is sent to.
    pub fn epsv(&mut self) -> TcpListener {
        let listener = listener();
        let port = listener.local_addr().unwrap().port();
        self.answer("EPSV", &format!("229 Extended (|||{port}|)"));
        listener
    }

    /// Everything up to the point where the client asks for `file` by RETR.
    pub fn retr(&mut self, features: &[&str], size: Option<&str>) -> TcpStream {
        self.login(features);
        self.answer("TYPE I", "200 binary");
        if let Some(size) = size {
            self.answer("SIZE file", &format!("213 {size}"));
        }
        let data = self.epsv();
        let data = accept(&data);
        self.expect("RETR file");
        data
    }

    pub fn body(&mut self, bytes: usize) -> Vec<u8> {
        let mut body = vec![0; bytes];
        self.control.read_exact(&mut body).unwrap();
        body
    }

    /// Hears what the client still sends before it closes, and says goodbye to it.
    pub fn rest(&mut self) {
        loop {
            match self.hear().as_str() {
                "" => return,
                "QUIT" => self.say("221 bye"),
                _ => {}
            }
        }
    }
}

/// The server's side of a handshake.
pub fn protect(socket: TcpStream, config: &Arc<ServerConfig>) -> std::io::Result<Secure> {
    let connection = ServerConnection::new(config.clone()).unwrap();
    let mut stream = Secure::new(connection, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

pub type Secure = StreamOwned<ServerConnection, TcpStream>;

/// What a control connection is carried by, from the server's side.
pub enum Wire {
    Clear(TcpStream),
    Tls(Box<Secure>),
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Wire::Clear(stream) => stream.read(buffer),
            Wire::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Wire::Clear(stream) => stream.write(bytes),
            Wire::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Wire::Clear(stream) => stream.flush(),
            Wire::Tls(stream) => stream.flush(),
        }
    }
}

/// A client that does not come must fail the test, not hang it.
pub fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_write_timeout(Some(PATIENCE)).unwrap();
                return stream;
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                assert!(Instant::now() < deadline, "the client did not connect");
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(e) => panic!("{e}"),
        }
    }
}

pub fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

pub struct Fake {
    pub address: SocketAddr,
    pub thread: JoinHandle<Vec<String>>,
}

/// Serves one connection as `script` wants it.
pub fn serve(script: impl FnOnce(&mut Talk) + Send + 'static) -> Fake {
    let listener = listener();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let stream = accept(&listener);
        let mut talk = Talk::new(stream);
        script(&mut talk);
        talk.heard
    });
    Fake { address, thread }
}
