//! A bug in what serves one connection ends that one, and not all of them; one in what is done for it
//! elsewhere costs that work, and not the thread that does it.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::Shared;
use super::conn::Conn;
use super::pump::Tools;

/// Does something with a connection. `None`: it panicked, so the connection is over. What it leaves is
/// not looked into: the buffers and the pipe, in which there may be bytes of its files, are made anew.
pub(super) fn with<T>(
    conn: &mut Conn,
    shared: &mut Shared,
    work: impl FnOnce(&mut Conn, &mut Shared) -> T,
) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(|| work(conn, shared)));
    done.map_err(|panic| {
        panicked("a session", &*panic);
        conn.give_up();
        match Tools::new() {
            Ok(tools) => shared.tools = tools,
            Err(_) => resume_unwind(panic),
        }
    })
    .ok()
}

/// Does work that has a thread.
///
/// # Errors
/// It panicked.
pub(super) fn run<T>(what: &str, work: impl FnOnce() -> T) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        panicked(what, &*panic);
        io::Error::other("the work panicked")
    })
}

fn panicked(what: &str, panic: &(dyn Any + Send)) {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("no text");
    log::error!("{what} panicked, which is a bug: {text}");
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
    pub(in crate::server) enum Bug {
        PanicsMoving,
        PanicsWhenTold,
        Spins,
    }

    /// What goes wrong with the connections from these ports.
    static BUGS: Mutex<Option<HashMap<u16, Bug>>> = Mutex::new(None);

    pub(in crate::server) fn has(conn: &Conn, bug: Bug) -> bool {
        let port = conn.session().peer().port();
        let bugs = BUGS.lock().unwrap();
        bugs.as_ref().is_some_and(|it| it.get(&port) == Some(&bug))
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
    fn ends_alone(bug: Bug) -> (SocketAddr, tempfile::TempDir) {
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
        (server, dir)
    }

    #[test]
    fn e11_a_session_that_panics_ends_alone() {
        let (server, _dir) = ends_alone(Bug::PanicsMoving);
        // Nobody waits for the session that had begun to write it.
        let mut next = Client::login(server);
        assert_eq!(next.command("PARTIAL broken\r\n"), 550);
        assert_eq!(next.command("UPLOAD 3 broken\r\n"), 150);
        assert_eq!(next.command("xyz"), 226);
    }

    #[test]
    fn a_session_that_panics_when_it_is_told_something_ends_alone() {
        let (server, dir) = serve();
        std::fs::write(dir.path().join("file"), b"content").unwrap();
        let mut other = Client::login(server);
        let mut broken = Client::login(server);
        broken.has(Bug::PanicsWhenTold);
        broken.0.get_mut().write_all(b"HASH file\r\n").unwrap();
        assert!(broken.is_over());
        assert_eq!(other.command("HASH file\r\n"), 213);
    }

    #[test]
    fn e08_a_session_that_spins_is_ended_and_others_live() {
        ends_alone(Bug::Spins);
    }

    #[test]
    fn work_that_panics_is_an_error() {
        assert_eq!(run("a test", || 1).unwrap(), 1);
        let lost = run("a test", || panic!("a bug that was asked for"));
        assert_eq!(lost.unwrap_err().to_string(), "the work panicked");
    }
}
