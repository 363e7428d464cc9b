//! A session inside TLS by hand, and the certificates of the servers.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use tempfile::TempDir;

use super::control::{Control, connect};

pub type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A certificate for localhost and its key, in files.
pub struct Pair {
    dir: TempDir,
}

impl Pair {
    pub fn new() -> Pair {
        let pair = Pair {
            dir: tempfile::tempdir().expect("making a directory"),
        };
        pair.renew();
        pair
    }

    /// Puts another certificate in its place.
    pub fn renew(&self) {
        let names = ["localhost".to_string(), "127.0.0.1".to_string()];
        let made = rcgen::generate_simple_self_signed(names).expect("making a certificate");
        std::fs::write(self.cert(), made.cert.pem()).expect("writing");
        std::fs::write(self.key(), made.signing_key.serialize_pem()).expect("writing");
    }

    pub fn cert(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.dir.path().join("key.pem")
    }

    /// As hauld prints it.
    pub fn fingerprint(&self) -> String {
        let cert = CertificateDer::from_pem_file(self.cert()).expect("a certificate");
        haul::fingerprint::Fingerprint::of(&cert).to_string()
    }

    /// The options of a server that uses it.
    pub fn options(&self) -> Vec<String> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let words = ["--tls-cert".into(), text(self.cert()), "--tls-key".into()];
        words.into_iter().chain([text(self.key())]).collect()
    }

    /// A client that trusts exactly this certificate.
    pub fn client(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let cert = CertificateDer::from_pem_file(self.cert()).expect("a certificate");
        roots.add(cert).expect("a certificate");
        ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }
}

/// A control connection inside TLS.
pub struct Secure {
    pub stream: Stream,
    config: Arc<ClientConfig>,
    input: Vec<u8>,
}

/// A client's side of TLS on a socket, its handshake done.
pub fn begin_tls(config: &Arc<ClientConfig>, socket: TcpStream) -> std::io::Result<Stream> {
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(config.clone(), name).map_err(std::io::Error::other)?;
    let mut stream = Stream::new(connection, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

impl Secure {
    /// AUTH TLS and the handshake.
    pub fn connect(server: SocketAddr, config: ClientConfig) -> Secure {
        let mut clear = Control::connect(server);
        assert_eq!(clear.command("AUTH TLS").code, 234);
        let socket = clear.stream().try_clone().expect("another handle");
        Secure::over(socket, Arc::new(config))
    }

    pub fn over(socket: TcpStream, config: Arc<ClientConfig>) -> Secure {
        Secure {
            stream: begin_tls(&config, socket).expect("a handshake"),
            config,
            input: Vec::new(),
        }
    }

    /// As `connect`, then a login, PBSZ and PROT P.
    pub fn login(server: SocketAddr, config: ClientConfig) -> Secure {
        Secure::connect(server, config).logged_in()
    }

    pub fn logged_in(mut self) -> Secure {
        let lines = ["USER anonymous", "PASS x", "PBSZ 0", "PROT P"];
        for (line, code) in lines.into_iter().zip([331, 230, 200, 200]) {
            let (got, text) = self.command(line);
            assert_eq!(got, code, "{line}: {text}");
        }
        self
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sending");
    }

    pub fn command(&mut self, line: &str) -> (u16, String) {
        self.send(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    /// The code and the last line.
    pub fn reply(&mut self) -> (u16, String) {
        loop {
            let line = self.line();
            if line.as_bytes().get(3) == Some(&b' ') && !line.starts_with(' ') {
                return (line[..3].parse().expect("a code"), line[4..].to_string());
            }
        }
    }

    fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.input.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.input.drain(..=at).collect();
                return String::from_utf8_lossy(&line).trim_end().to_string();
            }
            let n = self.receive();
            assert!(n > 0, "the server closed instead of replying");
        }
    }

    fn receive(&mut self) -> usize {
        let mut chunk = [0; 16 << 10];
        let n = self.stream.read(&mut chunk).expect("reading");
        self.input.extend_from_slice(&chunk[..n]);
        n
    }

    pub fn read_exact(&mut self, n: usize) -> Vec<u8> {
        while self.input.len() < n {
            assert!(self.receive() > 0, "the stream ended early");
        }
        self.input.drain(..n).collect()
    }

    /// Nothing more comes, and it ends with close_notify.
    pub fn expect_end(&mut self) {
        assert_eq!(self.receive(), 0, "{}", self.input.escape_ascii());
    }

    /// EPSV and its port, connected.
    pub fn epsv(&mut self) -> TcpStream {
        let (code, text) = self.command("EPSV");
        assert_eq!(code, 229, "{text}");
        let port = text
            .split("(|||")
            .nth(1)
            .and_then(|rest| rest.split('|').next());
        let port = port.and_then(|port| port.parse().ok()).expect("a port");
        let server = self.stream.sock.peer_addr().expect("connected").ip();
        connect(None, SocketAddr::new(server, port))
    }

    /// A data connection inside TLS, for a verb that was answered with 150.
    pub fn data(&mut self, line: &str) -> std::io::Result<Stream> {
        let config = self.config.clone();
        self.data_with(line, &config)
    }

    pub fn data_with(&mut self, line: &str, config: &Arc<ClientConfig>) -> std::io::Result<Stream> {
        let socket = self.epsv();
        let (code, text) = self.command(line);
        assert_eq!(code, 150, "{line}: {text}");
        begin_tls(config, socket)
    }

    /// RETR or a listing: what came and the last reply.
    pub fn fetch(&mut self, line: &str) -> (Vec<u8>, u16) {
        let mut data = self.data(line).expect("TLS on the data connection");
        let mut got = Vec::new();
        data.read_to_end(&mut got)
            .expect("an end with close_notify");
        (got, self.reply().0)
    }

    pub fn stor(&mut self, name: &str, content: &[u8]) -> u16 {
        let mut data = self.data(&format!("STOR {name}")).expect("TLS");
        data.write_all(content).expect("sending");
        finish(data);
        self.reply().0
    }

    pub fn upload(&mut self, name: &str, content: &[u8]) -> u16 {
        let (code, text) = self.command(&format!("UPLOAD {} {name}", content.len()));
        assert_eq!(code, 150, "{text}");
        self.send(content);
        self.reply().0
    }

    pub fn download(&mut self, name: &str) -> Vec<u8> {
        let (code, text) = self.command(&format!("DOWNLOAD {name}"));
        assert_eq!(code, 150, "{text}");
        let n = text
            .split(' ')
            .next()
            .and_then(|n| n.parse().ok())
            .expect("a length");
        let content = self.read_exact(n);
        assert_eq!(self.reply().0, 226);
        content
    }
}

/// close_notify, and the end.
pub fn finish(mut data: Stream) {
    data.conn.send_close_notify();
    data.flush().expect("sending close_notify");
}

pub fn is_resumed(stream: &Stream) -> bool {
    stream.conn.handshake_kind() == Some(HandshakeKind::Resumed)
}

/// The peer ended, in order or by a reset, and said nothing but perhaps an alert.
pub fn is_over(mut socket: &TcpStream) -> bool {
    let mut chunk = [0; 4096];
    loop {
        match socket.read(&mut chunk) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset,
        }
    }
}
