//! `haul` and a server to use it with: hauld or another, in clear and inside TLS.

use std::any::Any;
use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::peers::Peer;
use super::secure::Pair;
use super::server::{Server, four_questions};
use super::tools::{Done, run};

/// A server, a directory on it to write in (`/pub`), and a local one to work in.
pub struct Site {
    pub addr: SocketAddr,
    pub public: PathBuf,
    pub local: TempDir,
    /// Names that are no UTF-8 stay as they are; otherwise the server changes them without a word.
    pub keeps_bytes: bool,
    /// What else the client has to be told.
    options: Vec<String>,
    _server: Box<dyn Any>,
}

impl Site {
    pub fn new(addr: SocketAddr, public: PathBuf, server: impl Any) -> Site {
        let local = tempfile::tempdir().expect("a directory to work in");
        Site {
            addr,
            public,
            local,
            keeps_bytes: true,
            options: Vec::new(),
            _server: Box::new(server),
        }
    }

    /// The client is to use TLS, and to trust this certificate alone.
    pub fn with_tls(mut self, pair: &Pair) -> Site {
        let words = ["--tls", "required", "--fingerprint", &pair.fingerprint()];
        self.options = words.map(String::from).to_vec();
        self
    }

    pub fn hauld(test: impl Fn(&Site)) {
        let server = Server::start(&[]);
        let baseline = server.baseline();
        let public = server.path("pub");
        fs::create_dir(&public).unwrap();
        test(&Site::new(server.addr(), public, ()));
        four_questions(&server, baseline);
    }

    pub fn vsftpd(test: impl Fn(&Site)) {
        let server = Peer::vsftpd();
        test(&Site::new(server.addr(), server.public(), server));
    }

    pub fn pure_ftpd(test: impl Fn(&Site)) {
        let server = Peer::pure_ftpd();
        test(&Site::new(server.addr(), server.public(), server));
    }

    pub fn hauld_tls(test: impl Fn(&Site)) {
        let pair = Pair::new();
        let options = [pair.options(), vec!["--tls".into(), "required".into()]].concat();
        let server = Server::start(&options.iter().map(String::as_str).collect::<Vec<_>>());
        let public = server.path("pub");
        fs::create_dir(&public).unwrap();
        test(&Site::new(server.addr(), public, ()).with_tls(&pair));
        assert!(!server.log().contains("panic"), "{}", server.log());
    }

    pub fn vsftpd_tls(test: impl Fn(&Site)) {
        let pair = Pair::new();
        let server = Peer::vsftpd_tls(&pair);
        test(&Site::new(server.addr(), server.public(), server).with_tls(&pair));
    }

    pub fn pure_ftpd_tls(test: impl Fn(&Site)) {
        let pair = Pair::new();
        let server = Peer::pure_ftpd_tls(&pair);
        test(&Site::new(server.addr(), server.public(), server).with_tls(&pair));
    }

    pub fn proftpd(test: impl Fn(&Site)) {
        let server = Peer::proftpd();
        test(&Site::new(server.addr(), server.public(), server));
    }

    pub fn proftpd_tls(test: impl Fn(&Site)) {
        let pair = Pair::new();
        let server = Peer::proftpd_tls(&pair);
        test(&Site::new(server.addr(), server.public(), server).with_tls(&pair));
    }

    fn of_pyftpdlib(server: Peer) -> Site {
        Site {
            keeps_bytes: false,
            ..Site::new(server.addr(), server.public(), server)
        }
    }

    pub fn pyftpdlib(test: impl Fn(&Site)) {
        test(&Site::of_pyftpdlib(Peer::pyftpdlib()));
    }

    pub fn pyftpdlib_tls(test: impl Fn(&Site)) {
        let pair = Pair::new();
        test(&Site::of_pyftpdlib(Peer::pyftpdlib_tls(&pair)).with_tls(&pair));
    }

    /// A local path, for the command line.
    pub fn local(&self, name: &str) -> PathBuf {
        self.local.path().join(name)
    }

    /// A file on the server, seen on the disk.
    pub fn remote(&self, name: &str) -> PathBuf {
        self.public.join(name)
    }

    pub fn command(&self, args: &[&dyn AsRef<OsStr>]) -> Command {
        let mut haul = Command::new(env!("CARGO_BIN_EXE_haul"));
        haul.env_remove("HAUL_SERVER")
            .env_remove("XDG_CONFIG_HOME")
            .env("HOME", self.local.path());
        haul.current_dir(self.local.path())
            .args(["--server", &self.addr.to_string()])
            .args(&self.options);
        haul.args(args.iter().map(|arg| arg.as_ref()));
        haul
    }

    pub fn haul(&self, args: &[&dyn AsRef<OsStr>]) -> Done {
        run(&mut self.command(args))
    }
}

/// Each of these functions is a test against each of the servers.
macro_rules! against_each_server {
    ($($test:ident),* $(,)?) => {
        mod with_hauld { $(#[test] fn $test() { $crate::common::site::Site::hauld(super::$test) })* }
        mod with_vsftpd { $(#[test] fn $test() { $crate::common::site::Site::vsftpd(super::$test) })* }
        mod with_pure_ftpd { $(#[test] fn $test() { $crate::common::site::Site::pure_ftpd(super::$test) })* }
        mod with_hauld_tls { $(#[test] fn $test() { $crate::common::site::Site::hauld_tls(super::$test) })* }
        mod with_vsftpd_tls { $(#[test] fn $test() { $crate::common::site::Site::vsftpd_tls(super::$test) })* }
        mod with_pure_ftpd_tls { $(#[test] fn $test() { $crate::common::site::Site::pure_ftpd_tls(super::$test) })* }
        mod with_proftpd { $(#[test] fn $test() { $crate::common::site::Site::proftpd(super::$test) })* }
        mod with_pyftpdlib { $(#[test] fn $test() { $crate::common::site::Site::pyftpdlib(super::$test) })* }
        mod with_proftpd_tls { $(#[test] fn $test() { $crate::common::site::Site::proftpd_tls(super::$test) })* }
        mod with_pyftpdlib_tls { $(#[test] fn $test() { $crate::common::site::Site::pyftpdlib_tls(super::$test) })* }
    };
}

pub(crate) use against_each_server;
