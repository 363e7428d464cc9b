//! From the first reply of the server to the login: greeting, TLS, user and password, and what is
//! to hold for the session.

use super::{Dialogue, Failure, Features, Step, What, command, said};
use crate::bench::operation::Operation;

/// Whose reply is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    Greeting,
    Auth,
    Pbsz,
    Prot,
    User,
    Pass,
    Type,
    Feat,
}

impl Opening {
    pub(super) fn name(self) -> &'static str {
        match self {
            Opening::Greeting => "the connection",
            Opening::Auth => "AUTH",
            Opening::Pbsz => "PBSZ",
            Opening::Prot => "PROT",
            Opening::User => "USER",
            Opening::Pass => "PASS",
            Opening::Type => "TYPE",
            Opening::Feat => "FEAT",
        }
    }
}

impl Dialogue {
    /// The connection is there. The server speaks first, or TLS does.
    pub fn opened(&mut self, steps: &mut Vec<Step>) {
        self.reset();
        match self.manner.is_implicit {
            true => steps.push(Step::Secure),
            false => self.await_reply(Opening::Greeting),
        }
    }

    /// TLS is there.
    pub fn secured(&mut self) {
        match self.manner.is_implicit {
            true => self.await_reply(Opening::Greeting),
            false => self.ask(Opening::Pbsz, b"PBSZ 0\r\n"),
        }
    }

    /// One line of what FEAT says.
    pub(super) fn add_feature(&mut self, line: Vec<u8>) {
        let one = Features::parse(&[line]);
        let all = &mut self.features;
        all.upload = all.upload.or(one.upload);
        all.download |= one.download;
        all.mlst |= one.mlst;
    }

    pub(super) fn opening(
        &mut self,
        opening: Opening,
        code: u16,
        text: &[u8],
        steps: &mut Vec<Step>,
    ) -> Result<(), Failure> {
        if code < 200 {
            return Ok(());
        }
        // A server that lists no features has none.
        let may_fail = matches!(opening, Opening::Feat | Opening::Pbsz);
        if code >= 400 && !may_fail {
            let class = format!("{code} to {}", opening.name());
            return Err(Failure::new(class, format!("{code} {}", said(text))));
        }
        self.owed.pop_front();
        match opening {
            Opening::Greeting => {
                self.greeting = said(text);
                match (self.manner.is_secure, self.manner.is_implicit) {
                    (_, true) => self.ask(Opening::Pbsz, b"PBSZ 0\r\n"),
                    (true, false) => self.ask(Opening::Auth, b"AUTH TLS\r\n"),
                    (false, false) => self.user(),
                }
            }
            Opening::Auth => steps.push(Step::Secure),
            Opening::Pbsz => self.ask(Opening::Prot, b"PROT P\r\n"),
            Opening::Prot => self.user(),
            Opening::User if code >= 300 => {
                command(self.outbox.bytes(), "PASS", &self.manner.password);
                self.await_reply(Opening::Pass);
            }
            Opening::User | Opening::Pass if self.manner.is_binary => {
                self.ask(Opening::Type, b"TYPE I\r\n");
            }
            Opening::User | Opening::Pass | Opening::Type if self.manner.asks_features => {
                self.ask(Opening::Feat, b"FEAT\r\n");
            }
            Opening::User | Opening::Pass | Opening::Type | Opening::Feat => {
                self.is_open = true;
                steps.push(Step::Ready);
            }
        }
        Ok(())
    }

    fn user(&mut self) {
        command(self.outbox.bytes(), "USER", &self.manner.user);
        self.await_reply(Opening::User);
    }

    fn ask(&mut self, opening: Opening, line: &[u8]) {
        self.outbox.bytes().extend_from_slice(line);
        self.await_reply(opening);
    }

    fn await_reply(&mut self, opening: Opening) {
        self.owe(What::Opening(opening), Operation::Login, 0);
    }
}
