//! Users of a users file, and how they log in.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::control::Control;
use super::server::Server;
use super::tools::run_with;

/// A users file that `hauld user` writes.
pub struct Users(TempDir);

impl Users {
    pub fn new(users: &[(&str, &str, &[&str])]) -> Users {
        let file = Users(tempfile::tempdir().expect("making a directory"));
        for (name, password, options) in users {
            file.user(&[&["add", name], *options].concat(), password);
        }
        file
    }

    pub fn path(&self) -> PathBuf {
        self.0.path().join("users.toml")
    }

    pub fn user(&self, args: &[&str], input: &str) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hauld"));
        command
            .arg("user")
            .args(args)
            .arg("--users")
            .arg(self.path());
        run_with(&mut command, input.as_bytes()).ok();
    }

    /// Anonymous sessions too, for the questions at the end. A wrong password is answered soon.
    pub fn server(&self) -> Server {
        self.server_with("")
    }

    /// With more lines of configuration.
    pub fn server_with(&self, more: &str) -> Server {
        let delay = match more.contains("wrong-password-delay-ms") {
            true => "",
            false => "wrong-password-delay-ms = 1\n",
        };
        let users = self.path();
        let users = users.to_str().expect("a path");
        let lines = format!("users = \"{users}\"\nanonymous = \"write\"\n{delay}{more}");
        let config = self.0.path().join("hauld.toml");
        std::fs::write(&config, lines).expect("writing");
        Server::start(&["--config", config.to_str().expect("a path")])
    }
}

pub fn password(session: &mut Control, name: &str, password: &str) -> u16 {
    assert_eq!(session.command(&format!("USER {name}")).code, 331);
    session.command(&format!("PASS {password}")).code
}

pub fn logged_in(server: &Server, name: &str, secret: &str) -> Control {
    let mut session = Control::connect(server.addr());
    assert_eq!(password(&mut session, name, secret), 230);
    session
}
