//! The client: a small blocking one, for any FTP server.
//!
//! In reading order:
//!
//! - [`error`]: what can go wrong, with the exit codes.
//! - [`server`] is an address, [`bookmarks`] and [`netrc`] are what the user has written down of
//!   servers, and [`connect`] is how one is reached.
//! - [`connection`] is the control connection, [`reply`] what comes back on it, [`data`] the second
//!   connection where it must be, and [`stream`] what both are, with [`held`] for what was read too
//!   soon.
//! - [`auth`]: when these go inside TLS, which is [`tls`]; [`trust`]: with which servers;
//!   [`known_hosts`]: what is remembered of them.
//! - [`transfer`] moves one file in either direction, [`resume`] a large one that broke off,
//!   [`pipeline`] many small ones; [`digest`] and [`keep`] are what is compared and kept of them.
//! - [`listing`] is directories there; [`local`] the files of this machine, [`dir`] and [`incoming`]
//!   where downloads go, [`interrupt`] what signals do to them, and [`remains`] what is left of those
//!   that broke off.
//! - [`glob`] is patterns in names; [`scan`], [`filter`] and [`compare`] are about whole trees.
//! - [`plan`] is what is to be moved, [`work`] with [`send`] and [`fetch`] who moves it; [`remote`]
//!   makes and removes directories there, [`removal`] with all that is in them, and [`stamp`] gives
//!   them their times.
//! - [`report`] is what is told of it, and [`progress`] the bars.
//! - [`commands`], [`upload`], [`download`] and [`sync`], with [`options`], are what the user can ask
//!   for, and [`show`] the listings for people.
//! - [`prompt`] is the same line by line, [`lines`] where these come from, and [`completion`] what Tab
//!   offers.
//!
//! It knows the wire format (`proto`) and nothing of how `hauld` works inside. It has no event
//! loop; threads are for parallel connections and attempts to connect, and one waits for signals:
//! each wait is a blocking call with a timeout. It believes a server nothing that it can check, and
//! it prints nothing of what a server says without escaping it.

pub mod auth;
pub mod bookmarks;
pub mod commands;
pub mod compare;
pub mod completion;
pub mod connect;
pub mod connection;
pub mod data;
pub mod digest;
pub mod dir;
pub mod download;
pub mod error;
pub mod fetch;
pub mod filter;
pub mod glob;
pub mod held;
pub mod incoming;
pub mod interrupt;
pub mod keep;
pub mod known_hosts;
pub mod lines;
pub mod listing;
pub mod local;
pub mod netrc;
pub mod options;
pub mod pipeline;
pub mod plan;
pub mod progress;
pub mod prompt;
pub mod remains;
pub mod remote;
pub mod removal;
pub mod reply;
pub mod report;
pub mod resume;
pub mod scan;
pub mod send;
pub mod server;
pub mod show;
pub mod stamp;
pub mod stream;
pub mod sync;
pub mod tls;
pub mod transfer;
pub mod trust;
pub mod upload;
pub mod work;

use std::io::{IsTerminal, Write, stderr};
use std::sync::Arc;
use std::time::Duration;

pub use commands::Command;
pub use error::{Error, Exit};
pub use server::Server;

use connection::Connection;
use error::shown;
use server::Secret;
use trust::Trust;

/// How the client behaves, whatever it is asked for.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The longest wait in every state of the network.
    pub timeout: Duration,
    /// Show the dialogue.
    pub verbose: bool,
    /// Only errors.
    pub quiet: bool,
    /// Whether to use TLS where the address does not say it.
    pub tls: tls::Level,
    /// Which certificates are good enough.
    pub trust: Arc<Trust>,
    /// How often in a row a transfer is tried again when the connection breaks.
    pub retries: u32,
    /// A password may cross a network in clear.
    pub insecure_plaintext: bool,
    /// From the environment; the URL's comes first.
    pub password: Option<Secret>,
    /// What ACCT gets, where an old server asks for it.
    pub account: Option<Secret>,
}

/// A server, and the connection to it while there is one. Connecting happens when it is needed.
pub struct Client {
    server: Server,
    settings: Settings,
    connection: Option<Connection>,
    /// Asked for once, kept for reconnecting.
    asked: Option<Secret>,
    /// The directory to return to behind a reconnection.
    directory: Option<Vec<u8>>,
    /// Standard input carries commands, so it cannot be a file.
    pub is_prompt: bool,
}

impl Client {
    /// Nothing is sent yet.
    pub fn new(server: Server, settings: Settings) -> Client {
        Client {
            server,
            settings,
            connection: None,
            asked: None,
            directory: None,
            is_prompt: false,
        }
    }

    /// Who is connected to what, for people.
    pub fn description(&self) -> String {
        let user = self.server.user.as_deref().unwrap_or(b"anonymous");
        format!("{} as {}", self.server, shown(user))
    }

    /// Whether to print more than errors.
    pub fn is_quiet(&self) -> bool {
        self.settings.quiet
    }

    /// How often in a row a transfer is tried again.
    pub fn retries(&self) -> u32 {
        self.settings.retries
    }

    /// The connection, logged in; made anew if it was lost.
    ///
    /// # Errors
    /// No connection, or no login.
    pub fn ready(&mut self) -> Result<&mut Connection, Error> {
        if interrupt::is_set() {
            return Err(Error::broken("interrupted"));
        }
        let was_connected = self.connection.is_some();
        let kept = self
            .connection
            .take()
            .and_then(|mut c| (!c.is_stale()).then_some(c));
        let connection = match kept {
            Some(connection) => connection,
            None => {
                if was_connected && !self.settings.quiet {
                    let note = "haul: the connection was lost; connecting again";
                    let _ = writeln!(stderr(), "{note}");
                }
                self.connect()?
            }
        };
        Ok(self.connection.insert(connection))
    }

    /// The connection if there is one and it can be used.
    pub fn is_connected(&self) -> bool {
        self.connection.as_ref().is_some_and(|c| !c.is_lost())
    }

    /// The connection, or another within `patience` where it was lost, for whoever has nothing to
    /// say or to ask about it.
    pub fn present(&mut self, patience: Duration) -> Option<&mut Connection> {
        let kept = self.connection.take();
        let connection = match kept.and_then(|mut c| (!c.is_stale()).then_some(c)) {
            Some(connection) => connection,
            None => {
                let settings = Settings {
                    timeout: patience.min(self.settings.timeout),
                    ..self.settings.clone()
                };
                let c = Connection::open(&self.server, &settings).ok()?;
                let mut c = self.entered(c).ok()?;
                c.set_timeout(self.settings.timeout);
                c
            }
        };
        Some(self.connection.insert(connection))
    }

    /// Drops the connection, whatever is under way on it.
    pub fn abandon(&mut self) {
        self.connection = None;
    }

    /// Another connection to the same server as the same user, not made yet.
    pub fn sibling(&self) -> Client {
        Client {
            server: self.server.clone(),
            settings: self.settings.clone(),
            connection: None,
            asked: self.asked.clone(),
            directory: self.directory.clone(),
            is_prompt: self.is_prompt,
        }
    }

    /// Lets go of a connection that broke; the next one is made without a word.
    pub fn hang_up(&mut self) {
        self.connection = self.connection.take().filter(|c| !c.is_lost());
    }

    /// The server, for messages.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Remembers the working directory for a reconnection.
    pub fn remember_directory(&mut self, path: Vec<u8>) {
        self.directory = Some(path);
    }

    /// Says goodbye.
    pub fn quit(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.quit();
        }
    }

    fn connect(&mut self) -> Result<Connection, Error> {
        let mut opened = Connection::open(&self.server, &self.settings);
        if opened.is_err() && self.settings.trust.reconsider(&self.server.to_string())? {
            opened = Connection::open(&self.server, &self.settings);
        }
        self.entered(opened?)
    }

    /// Logs in, and goes to where the last connection was.
    fn entered(&mut self, mut c: Connection) -> Result<Connection, Error> {
        match self.server.user.clone() {
            None => c.login(b"anonymous", || Ok(b"haul@".to_vec()), None)?,
            Some(user) => {
                let is_seen = c.tls().is_none() && !c.peer().is_loopback();
                if is_seen && !self.settings.insecure_plaintext {
                    return Err(Error::new(Exit::Trust, self.no_password_in_clear()));
                }
                let account = self.settings.account.clone();
                c.login(&user, || self.password(&user), account.as_ref())?;
            }
        }
        if let Some(directory) = &self.directory {
            c.cd(directory)
                .map_err(|e| e.about(format_args!("cannot change to {}", shown(directory))))?;
        }
        Ok(c)
    }

    fn no_password_in_clear(&self) -> String {
        let why = match self.settings.tls {
            tls::Level::Off => "--tls off was given",
            _ => "the server offers no TLS",
        };
        format!(
            "{why}, and a password is not sent in clear to another machine; --insecure-plaintext \
             sends it all the same"
        )
    }

    fn password(&mut self, user: &[u8]) -> Result<Vec<u8>, Error> {
        let known = [&self.server.password, &self.settings.password, &self.asked];
        if let Some(secret) = known.into_iter().flatten().next() {
            return Ok(secret.reveal().to_vec());
        }
        let none = || {
            Error::usage("the server wants a password; set HAUL_PASSWORD or write it in --server")
        };
        if !stderr().is_terminal() {
            return Err(none());
        }
        let question = format!("Password of {} on {}: ", shown(user), self.server);
        let typed = rpassword::prompt_password(question).map_err(|_| none())?;
        let secret = Secret::new(typed.into_bytes())?;
        Ok(self.asked.insert(secret).reveal().to_vec())
    }
}
