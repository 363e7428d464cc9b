//! A bug in what serves one connection ends that one, and not all of them.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::Shared;
use super::background::panicked;
use super::conn::{Conn, Next};
use super::pump::Tools;

/// Its turn. After a panic the connection is over, and nobody looks into what it leaves: the buffers
/// and the pipe, in which there may be bytes of its files, are made anew.
pub(super) fn advance(conn: &mut Conn, shared: &mut Shared) -> Next {
    let turn = catch_unwind(AssertUnwindSafe(|| {
        #[cfg(test)]
        tests::misbehave(conn);
        conn.advance(shared)
    }));
    turn.unwrap_or_else(|panic| {
        panicked("a session", &*panic);
        match Tools::new() {
            Ok(tools) => shared.tools = tools,
            Err(_) => resume_unwind(panic),
        }
        Next::Dead
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashMap;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::sync::{Mutex, mpsc};
    use std::thread;
    use std::time::Duration;

    use super::super::Server;
    use super::*;
    use crate::config::Config;

    #[derive(Clone, Copy, PartialEq)]
    enum Bug {
        Panics,
        Spins,
    }

    /// What goes wrong with the connections from these ports.
    static BUGS: Mutex<Option<HashMap<u16, Bug>>> = Mutex::new(None);

    fn has(port: u16, bug: Bug) -> bool {
        let bugs = BUGS.lock().unwrap();
        bugs.as_ref().is_some_and(|it| it.get(&port) == Some(&bug))
    }

    pub(super) fn misbehave(conn: &Conn) {
        let port = conn.session().peer().port();
        assert!(!has(port, Bug::Panics), "a bug that was asked for");
    }

    /// Whether it always has something to do and never does it.
    pub(in crate::server) fn spins(conn: &Conn) -> bool {
        has(conn.session().peer().port(), Bug::Spins)
    }

    struct Client(BufReader<TcpStream>);

    impl Client {
        fn login(server: SocketAddr) -> Client {
            let stream = TcpStream::connect(server).unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            let mut client = Client(BufReader::new(stream));
            assert_eq!(client.code(), 220);
            assert_eq!(client.command("USER anonymous\r\n"), 331);
            assert_eq!(client.command("PASS x\r\n"), 230);
            client
        }

        fn code(&mut self) -> u16 {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            line[..3].parse().unwrap()
        }

        fn command(&mut self, bytes: &str) -> u16 {
            self.0.get_mut().write_all(bytes.as_bytes()).unwrap();
            self.code()
        }

        fn has(&self, bug: Bug) {
            let port = self.0.get_ref().local_addr().unwrap().port();
            let mut bugs = BUGS.lock().unwrap();
            bugs.get_or_insert_default().insert(port, bug);
        }

        /// It ends without another word.
        fn is_over(&mut self) -> bool {
            let mut rest = Vec::new();
            let _ = self.0.read_to_end(&mut rest);
            rest.is_empty()
        }
    }

    fn serve() -> (SocketAddr, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            dir: dir.path().to_path_buf(),
            landlock: false,
            ..Config::default()
        };
        let (told, address) = mpsc::channel();
        // It goes on until the tests end.
        thread::spawn(move || {
            let server = Server::start(config, Vec::new()).unwrap();
            told.send(server.addresses().unwrap()[0].0).unwrap();
            server.run()
        });
        (address.recv().unwrap(), dir)
    }

    #[track_caller]
    fn ends_alone(bug: Bug) {
        let (server, dir) = serve();
        let mut other = Client::login(server);
        assert_eq!(other.command("UPLOAD 6 of-another\r\n"), 150);
        other.0.get_mut().write_all(b"abc").unwrap();
        let mut broken = Client::login(server);
        assert_eq!(broken.command("UPLOAD 6 broken\r\n"), 150);
        broken.has(bug);
        broken.0.get_mut().write_all(b"xyz").unwrap();
        assert!(broken.is_over());
        assert_eq!(other.command("def"), 226);
        let content = std::fs::read(dir.path().join("of-another")).unwrap();
        assert_eq!(content, b"abcdef");
        assert!(!dir.path().join("broken").exists());
        assert_eq!(Client::login(server).command("NOOP\r\n"), 200);
        assert_eq!(other.command("NOOP\r\n"), 200);
    }

    #[test]
    fn e11_a_session_that_panics_ends_alone() {
        ends_alone(Bug::Panics);
    }

    #[test]
    fn e08_a_session_that_spins_is_ended_and_others_live() {
        ends_alone(Bug::Spins);
    }
}
