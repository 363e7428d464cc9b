//! The control connection: lines out, replies in, login and FEAT.
//!
//! Every wait has a deadline and every length a limit, whatever the server does. It knows nothing
//! of files; bodies on the control connection are moved by `transfer`, which asks here for the
//! bytes that were already read.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::proto::line::LINE_BYTES_MAX;
use crate::proto::reply::{NotAReply, Parser, Part, unquoted};
use crate::text::plain;

use super::error::{Error, Exit, shown};
use super::held::Held;
use super::keep::Keeps;
use super::reply::{Features, Line, Reply};
use super::server::{Secret, Server, one_line};
use super::stream::Stream;
use super::{Settings, auth, connect, tls};

/// The longest reply line, its end included.
const REPLY_LINE_BYTES_MAX: usize = 8192;
/// The longest reply, with what its lines cost to be held; TREE is read line by line and has no limit.
const REPLY_BYTES_MAX: usize = 1 << 20;
/// Bytes read at a time: replies of a pipelined series come together, with small files in between.
const READ_BYTES: usize = 64 * 1024;
/// How long a reply may take that should be there already: one behind a reset.
const SALVAGE_TIME: Duration = Duration::from_secs(2);

/// A control connection that is logged in.
pub struct Connection {
    stream: Stream,
    /// What its data connections share with it, inside TLS.
    tls: Option<tls::Session>,
    peer: SocketAddr,
    timeout: Duration,
    verbose: bool,
    held: Held,
    parser: Parser,
    cwd: Option<Vec<u8>>,
    /// What the server can do.
    pub features: Features,
    /// TYPE I was set.
    pub is_binary: bool,
    /// The server does not know EPSV.
    pub epsv_refused: bool,
    /// PROT P was set.
    pub protects_data: bool,
    /// Listings tell permission bits.
    pub has_modes: bool,
    /// LIST can show hidden names; `None`: not known yet.
    pub lists_all: Option<bool>,
    /// The digest that HASH gives was chosen.
    pub has_hash: bool,
    /// How it keeps times and permissions, as far as that was tried.
    pub keeps: Keeps,
    lost: bool,
}

impl Connection {
    /// Connects, waits for the greeting, and begins TLS as far as `settings` want it.
    ///
    /// # Errors
    /// [`Exit::Trust`] if it is for TLS, otherwise [`Exit::CannotConnect`], whatever the reason.
    pub fn open(server: &Server, settings: &Settings) -> Result<Connection, Error> {
        let connect = || {
            let timeout = settings.timeout;
            let stream = connect::to_host(&server.host, server.port, timeout)?;
            let mut connection = Connection::over(stream, timeout, settings.verbose)?;
            if server.implicit_tls {
                connection.begin_tls(tls::Session::new(server, &settings.trust)?)?;
            }
            let greeting = connection.read_reply()?;
            // 120: the server asks for patience; the greeting follows (RFC 959 section 5.4).
            let greeting = match greeting.code {
                120 => connection.read_reply()?,
                _ => greeting,
            };
            greeting.success()?;
            if !server.implicit_tls {
                auth::ask_for_tls(&mut connection, server, settings)?;
            }
            Ok(connection)
        };
        connect().map_err(|error: Error| {
            let exit = match error.exit {
                Exit::Trust | Exit::Usage => error.exit,
                _ => Exit::CannotConnect,
            };
            let error = error.about(format_args!("cannot connect to {server}"));
            error.exit(exit)
        })
    }

    fn over(stream: TcpStream, timeout: Duration, verbose: bool) -> Result<Connection, Error> {
        let prepare = || {
            stream.set_nodelay(true)?;
            stream.set_write_timeout(Some(timeout))?;
            stream.peer_addr()
        };
        let peer = prepare().map_err(|e| Error::broken(plain(&e)))?;
        Ok(Connection {
            stream: Stream::new(stream),
            tls: None,
            peer,
            timeout,
            verbose,
            held: Held::default(),
            parser: Parser::default(),
            cwd: None,
            features: Features::default(),
            is_binary: false,
            epsv_refused: false,
            protects_data: false,
            has_modes: false,
            lists_all: None,
            has_hash: false,
            keeps: Keeps::default(),
            lost: false,
        })
    }

    /// The server's address; data connections go nowhere else.
    pub fn peer(&self) -> IpAddr {
        self.peer.ip().to_canonical()
    }

    /// What carries it, for a body on the control connection.
    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// TLS for its data connections; `None` if it is in clear itself.
    pub fn tls(&self) -> Option<&tls::Session> {
        self.tls.as_ref()
    }

    /// Puts everything that follows inside TLS.
    ///
    /// # Errors
    /// There is no TLS, or not with this server.
    pub fn begin_tls(&mut self, session: tls::Session) -> Result<(), Error> {
        if !self.held.is_empty() {
            // Whoever put them there wants them to be taken for the server's words inside TLS.
            self.give_up();
            return Err(Error::new(
                Exit::Trust,
                "bytes came in clear behind the server's answer to AUTH, as from somebody in \
                 between; nothing was sent",
            ));
        }
        let begun = session.begin(&mut self.stream, self.timeout);
        begun.map_err(|why| {
            self.give_up();
            tls::error(&why, self.timeout)
        })?;
        if self.verbose {
            note(format_args!(
                "* {}",
                self.stream.agreed().unwrap_or_default()
            ));
        }
        let socket = self.stream.socket();
        let set = socket.set_write_timeout(Some(self.timeout));
        set.map_err(|e| Error::broken(plain(&e)))?;
        self.tls = Some(session);
        Ok(())
    }

    /// The longest wait for anything.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Shows what was agreed on for a data connection, to whoever wants to see the dialogue.
    pub fn note_data(&self, data: &Stream) {
        if self.verbose {
            note(format_args!(
                "* data: {}",
                data.agreed().unwrap_or_default()
            ));
        }
    }

    /// Changes the longest wait, for what takes the server longer; gives the one before.
    pub fn set_timeout(&mut self, timeout: Duration) -> Duration {
        std::mem::replace(&mut self.timeout, timeout)
    }

    /// Marks the connection as unusable: the position in the stream is lost, or it is closed.
    pub fn give_up(&mut self) {
        self.lost = true;
        let _ = self.stream.socket().shutdown(std::net::Shutdown::Both);
    }

    /// Whether commands can no longer be sent.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Whether the server has said or done something since the last command: nothing is owed then,
    /// so it can only be a farewell.
    pub fn is_stale(&mut self) -> bool {
        self.lost || !self.held.is_empty() || self.has_input()
    }

    /// Logs in. `password` is asked for only when the server wants one, and `account` is sent only
    /// then.
    ///
    /// # Errors
    /// [`Exit::LoginRefused`], or a broken connection.
    pub fn login(
        &mut self,
        user: &[u8],
        password: impl FnOnce() -> Result<Vec<u8>, Error>,
        account: Option<&Secret>,
    ) -> Result<(), Error> {
        let refused = |reply: &Reply| {
            Error::refused(reply)
                .exit(Exit::LoginRefused)
                .about(format_args!("login as {} refused", shown(user)))
        };
        let mut reply = self.command("USER", Some(user))?;
        if reply.code == 331 {
            let password = password()?;
            reply = self.command("PASS", Some(&password))?;
        }
        if let (332, Some(account)) = (reply.code, account) {
            reply = self.command("ACCT", Some(account.reveal()))?;
        }
        match reply.code {
            230 | 202 => {}
            332 => {
                let hint = "it asks for an account; write it in ~/.netrc, behind the password: \
                            account WORD";
                return Err(refused(&reply).hint(hint));
            }
            _ if self.tls().is_none() && wants_tls(&reply) => {
                return Err(refused(&reply).hint("it wants TLS: leave out --tls off"));
            }
            _ if user == b"anonymous" => {
                return Err(refused(&reply).hint("it wants a user: --server USER@HOST"));
            }
            _ => return Err(refused(&reply).hint("check the user in --server and the password")),
        }
        let feat = self.command("FEAT", None)?;
        if feat.is_success() {
            self.features = Features::parse(&feat.lines);
        }
        if self.features.utf8 && self.features.upload.is_none() {
            // Old Windows servers read names in a code page until they are told. Refusal is fine.
            self.command("OPTS", Some(b"UTF8 ON"))?;
        }
        Ok(())
    }

    /// Sends one command and reads its one reply.
    ///
    /// # Errors
    /// The connection broke, or the server says that it closes it (421).
    pub fn command(&mut self, verb: &str, argument: Option<&[u8]>) -> Result<Reply, Error> {
        self.send(verb, argument)?;
        self.read_reply()
    }

    /// Sends one command.
    ///
    /// # Errors
    /// The argument cannot be sent, or the connection broke.
    pub fn send(&mut self, verb: &str, argument: Option<&[u8]>) -> Result<(), Error> {
        let line = self.line(verb, argument)?;
        self.send_raw(&line)
    }

    /// One command line as it goes on the wire.
    ///
    /// # Errors
    /// The argument has a line break, or the line is longer than servers read.
    pub fn line(&self, verb: &str, argument: Option<&[u8]>) -> Result<Vec<u8>, Error> {
        let mut line = verb.as_bytes().to_vec();
        if let Some(argument) = argument {
            one_line("an argument", argument)?;
            line.push(b' ');
            for &byte in argument {
                line.push(byte);
                // Telnet (RFC 854): hauld reads FF FF as one FF. vsftpd and others do not.
                if byte == 0xff && self.features.upload.is_some() {
                    line.push(0xff);
                }
            }
        }
        if self.verbose {
            match verb {
                "PASS" | "ACCT" => note(format_args!("> {verb} ***")),
                _ => note(format_args!("> {}", shown(&line))),
            }
        }
        line.extend_from_slice(b"\r\n");
        if line.len() > LINE_BYTES_MAX {
            return Err(Error::usage("the name is too long to be sent"));
        }
        Ok(line)
    }

    /// Sends bytes made by [`Connection::line`].
    ///
    /// # Errors
    /// The connection broke.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.lost {
            return Err(Error::broken("the connection to the server is closed"));
        }
        if let Err(error) = self.stream.send_all(bytes) {
            return Err(self.salvage(&error));
        }
        Ok(())
    }

    /// Writing failed. The reason may be a reply that says more than the system's error.
    pub fn salvage(&mut self, error: &io::Error) -> Error {
        let reply = self.read_reply_until(Instant::now() + SALVAGE_TIME.min(self.timeout));
        self.give_up();
        match reply {
            Ok(reply) if reply.code >= 400 => Error::refused(&reply),
            // The server closes with this reply (421).
            Err(said) if said.code.is_some() => said,
            _ if timed_out(error) => self.stalled("took no more data"),
            _ => Error::broken(format!("the connection broke: {}", plain(error))),
        }
    }

    /// The sentence for a server that did not do something in time.
    pub fn stalled(&self, what: &str) -> Error {
        Error::broken(format!(
            "the server {what} for {} s (--timeout)",
            self.timeout.as_secs()
        ))
    }

    /// Reads one reply, whole within the timeout.
    ///
    /// # Errors
    /// The connection broke, what came is no reply, or it is 421: the server closes.
    pub fn read_reply(&mut self) -> Result<Reply, Error> {
        self.read_reply_until(Instant::now() + self.timeout)
    }

    fn read_reply_until(&mut self, deadline: Instant) -> Result<Reply, Error> {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        loop {
            match self.read_part(deadline)? {
                Line::Middle(text) => {
                    bytes += text.len() + size_of::<Vec<u8>>();
                    if bytes > REPLY_BYTES_MAX {
                        return Err(self.nonsense("a reply that never ends"));
                    }
                    lines.push(text);
                }
                Line::End(code, text) => {
                    lines.push(text);
                    let reply = Reply { code, lines };
                    if code == 421 {
                        self.give_up();
                        return Err(Error::refused(&reply));
                    }
                    return Ok(reply);
                }
            }
        }
    }

    /// Reads the next line of a reply that may have any number of them.
    ///
    /// # Errors
    /// As [`Connection::read_reply`], except that 421 is left to the caller.
    pub fn read_line_of_reply(&mut self) -> Result<Line, Error> {
        self.read_part(Instant::now() + self.timeout)
    }

    fn read_part(&mut self, deadline: Instant) -> Result<Line, Error> {
        let line = self.read_line(deadline)?;
        if self.verbose {
            note(format_args!("< {}", shown(&line)));
        }
        match self.parser.line(&line) {
            Ok(Part::Middle(text)) => Ok(Line::Middle(text.to_vec())),
            Ok(Part::End(code, text)) => Ok(Line::End(code, text.to_vec())),
            Err(NotAReply) => Err(self.nonsense("something that is not an FTP reply")),
        }
    }

    fn read_line(&mut self, deadline: Instant) -> Result<Vec<u8>, Error> {
        let mut searched = 0;
        loop {
            let held = self.held.as_slice();
            if let Some(at) = memchr::memchr(b'\n', &held[searched..]) {
                let end = searched + at;
                let mut line = held[..end].to_vec();
                self.held.consume(end + 1);
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                if line.len() > REPLY_LINE_BYTES_MAX {
                    return Err(self.nonsense("a reply line that never ends"));
                }
                if memchr::memchr(0, &line).is_some() {
                    return Err(self.nonsense("a reply with a NUL byte"));
                }
                return Ok(line);
            }
            searched = held.len();
            if searched > REPLY_LINE_BYTES_MAX {
                return Err(self.nonsense("a reply line that never ends"));
            }
            self.fill(deadline)?;
        }
    }

    /// Reads once; afterwards there is at least one more byte in `held`.
    fn fill(&mut self, deadline: Instant) -> Result<(), Error> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.give_up();
                return Err(self.stalled("did not answer"));
            }
            let (stream, held) = (&mut self.stream, &mut self.held);
            let read = stream
                .socket()
                .set_read_timeout(Some(left))
                .and_then(|()| held.fill(READ_BYTES, |window| stream.read(window)));
            let read = match read {
                // Replies say themselves where they end.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
                read => read,
            };
            match read {
                Ok(0) => {
                    self.give_up();
                    return Err(Error::broken("the server closed the connection"));
                }
                Ok(_) => return Ok(()),
                Err(e) if timed_out(&e) || e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.give_up();
                    return Err(Error::broken(format!(
                        "the connection broke: {}",
                        plain(&e)
                    )));
                }
            }
        }
    }

    /// The server broke the protocol; nothing that follows can be understood.
    pub fn nonsense(&mut self, what: &str) -> Error {
        self.give_up();
        Error::broken(format!("the server sent {what}; is it an FTP server?"))
    }

    /// Takes up to `max` bytes that were read together with a reply: the beginning of a body.
    pub fn take_held(&mut self, max: u64) -> Vec<u8> {
        let held = self.held.as_slice();
        let n = held.len().min(usize::try_from(max).unwrap_or(usize::MAX));
        let taken = held[..n].to_vec();
        self.held.consume(n);
        taken
    }

    /// Sends some of `rest`; for whoever reads replies while it sends. It waits as long as
    /// [`Connection::set_patience`] says.
    ///
    /// # Errors
    /// Those of the socket; then nothing was sent, but some may have been taken.
    pub fn push(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        self.stream.push(rest)
    }

    /// Whether nothing that was pushed waits to be sent.
    pub fn is_flushed(&self) -> bool {
        self.stream.is_flushed()
    }

    /// How long a write may wait.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn set_patience(&mut self, patience: Duration) -> Result<(), Error> {
        let set = self.stream.socket().set_write_timeout(Some(patience));
        set.map_err(|e| Error::broken(plain(&e)))
    }

    /// Whether a reply, or the end of the connection, has arrived. It never waits.
    pub fn has_input(&mut self) -> bool {
        !self.held.is_empty() || self.stream.has_input()
    }

    /// A name out of a reply: hauld doubles FF there as Telnet wants it.
    pub fn name_in_reply(&self, name: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(name.len());
        let mut rest = name;
        while let Some((&byte, tail)) = rest.split_first() {
            out.push(byte);
            rest = match (byte, tail.first()) {
                (0xff, Some(0xff)) if self.features.upload.is_some() => &tail[1..],
                _ => tail,
            };
        }
        out
    }

    /// The working directory, as the server spells it.
    ///
    /// # Errors
    /// PWD failed, or its reply cannot be read. What is returned is fit to be sent back.
    pub fn cwd(&mut self) -> Result<Vec<u8>, Error> {
        if let Some(cwd) = &self.cwd {
            return Ok(cwd.clone());
        }
        let reply = self.command("PWD", None)?.success()?;
        let path = unquoted(reply.text())
            .map(|path| self.name_in_reply(&path))
            .filter(|path| !path.is_empty() && one_line("", path).is_ok())
            .ok_or_else(|| Error::broken(format!("cannot read the reply to PWD: {reply}")))?;
        self.cwd = Some(path.clone());
        Ok(path)
    }

    /// Changes the working directory.
    ///
    /// # Errors
    /// The server refuses.
    pub fn cd(&mut self, path: &[u8]) -> Result<(), Error> {
        let reply = match path {
            b".." => self.command("CDUP", None)?,
            path => self.command("CWD", Some(path))?,
        };
        self.cwd = None;
        reply.success().map(|_| ())
    }

    /// Sets TYPE I, once.
    ///
    /// # Errors
    /// The server refuses.
    pub fn binary(&mut self) -> Result<(), Error> {
        if !self.is_binary {
            self.command("TYPE", Some(b"I"))?.success()?;
            self.is_binary = true;
        }
        Ok(())
    }

    /// Says goodbye, without insisting on an answer.
    pub fn quit(mut self) {
        if !self.lost && self.send("QUIT", None).is_ok() {
            let _ = self.read_reply_until(Instant::now() + SALVAGE_TIME.min(self.timeout));
            let _ = self.stream.finish();
        }
    }
}

/// A line of the dialogue on standard error, if anybody reads it.
fn note(line: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Whether an I/O error is only that time passed.
pub fn timed_out(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Whether a login is refused for want of encryption, as far as its words tell.
fn wants_tls(refusal: &Reply) -> bool {
    let words = [&b"tls"[..], b"ssl", b"encrypt"];
    let says = |line: &Vec<u8>| {
        let line = line.to_ascii_lowercase();
        words
            .iter()
            .any(|word| memchr::memmem::find(&line, word).is_some())
    };
    refusal.lines.iter().any(says)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::fs::{OFlags, fcntl_getfl};

    use super::*;

    #[test]
    fn looking_for_input_never_waits_and_changes_nothing() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let shared = near.try_clone().unwrap();
        let mut c = Connection::over(near, Duration::from_secs(5), false).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut was_nonblocking = false;
                while !done.load(Ordering::Relaxed) {
                    let flags = fcntl_getfl(&shared).unwrap();
                    was_nonblocking |= flags.contains(OFlags::NONBLOCK);
                }
                was_nonblocking
            });
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(200) {
                assert!(!c.has_input());
            }
            done.store(true, Ordering::Relaxed);
            assert!(!watch.join().unwrap());
        });
        far.write_all(b"2").unwrap();
        shared.peek(&mut [0]).unwrap();
        assert!(c.has_input() && c.has_input());
        assert_eq!(c.stream.read(&mut [0; 9]).unwrap(), 1);
        assert!(!c.has_input());
        drop(far);
        shared.peek(&mut [0]).unwrap();
        assert!(c.has_input(), "the end is something to be read");
    }
}
