//! A connection inside TLS: what is read and sent goes through it, nothing else changes.

use std::mem;
use std::os::fd::AsFd;

use mio::net::TcpStream;

use super::Conn;
use super::control::Closing;
use super::moving::{Early, register};
use crate::server::Shared;
use crate::server::pump::{Pump, Step, Wire};
use crate::server::tls::{Read, Tls};
use crate::session::Outcome;

/// What a read of the control connection takes off the budget beside what it gave: a client may send
/// records with nothing in them.
const READ_COST: usize = 1024;

impl Conn {
    /// TLS begins behind what is held to be sent.
    pub(in crate::server) fn start_tls(&mut self, shared: &mut Shared) {
        self.flush(shared);
        let mut before = mem::take(&mut self.output);
        before.drain(..mem::take(&mut self.output_at));
        let session = shared.tls.as_ref().map(|setup| setup.session());
        let begun = session.and_then(|session| {
            let session = session.ok()?;
            let tls = session.control(before).ok()?;
            Some((session, tls))
        });
        let Some((session, tls)) = begun else {
            log::error!("{} cannot begin TLS", self.session.peer());
            self.dead = true;
            return;
        };
        self.secure = Some(session);
        self.tls = Some(Box::new(tls));
        let limit = shared.world.config.limits.tls_handshake_timeout;
        self.handshake_until = Some(shared.now + limit);
    }

    /// TLS for a data connection that has one.
    pub(super) fn protect(&self, protect: bool) -> Result<Option<Box<Tls>>, Outcome> {
        if !protect {
            return Ok(None);
        }
        let tls = self.secure.as_ref().map(|secure| secure.data());
        match tls {
            Some(Ok(tls)) => Ok(Some(Box::new(tls))),
            _ => Err(Outcome::NotProtected),
        }
    }

    /// TLS for the transfer that uses the early connection.
    pub(super) fn protect_early(&mut self, protect: bool) -> Result<Option<Box<Tls>>, Outcome> {
        let begun = self.early.as_mut().and_then(|early| early.tls.take());
        match begun {
            Some(tls) if protect => Ok(Some(tls)),
            // The client began TLS, and then said that there is none.
            Some(tls) if tls.has_greeted() => {
                self.early = None;
                Err(Outcome::Broken)
            }
            _ => self.protect(protect),
        }
    }

    /// Answers a hello on a data connection whose transfer has not begun.
    pub(super) fn greet_early(&mut self, shared: &mut Shared) {
        let Some(Early {
            stream,
            tls: Some(tls),
            ready,
            registered,
        }) = &mut self.early
        else {
            return;
        };
        if !mem::take(ready) {
            return;
        }
        // How it failed, if it did, the transfer will find out.
        let read = tls.greet(stream.as_fd(), &mut shared.tools.tls);
        if read == Read::Blocked && !*registered {
            *registered = register(shared, stream, self.id).is_ok();
        }
    }

    /// False: there was nothing.
    pub(super) fn read_decrypted(&mut self, shared: &mut Shared, budget: &mut usize) -> bool {
        let Some(tls) = &mut self.tls else {
            return false;
        };
        let before = self.unread.len();
        let socket = self.control.as_fd();
        let read = tls.read(socket, &mut self.unread, &mut shared.tools.tls, usize::MAX);
        if self.handshake_until.is_some() && !tls.is_handshaking() {
            self.handshake_until = None;
            log::debug!("{} uses {}", self.session.peer(), tls.agreed());
        }
        match read {
            Read::Moved(n) => {
                // What it gave takes its share where it is used.
                let gave = self.unread.len() - before;
                *budget = budget.saturating_sub(READ_COST + n.saturating_sub(gave));
                true
            }
            Read::Blocked => {
                self.readable = false;
                false
            }
            // Cut off or not: commands say themselves where they end.
            Read::Ended | Read::Cut => {
                self.readable = false;
                self.control_ended(shared);
                true
            }
            // The alert that says why must not be lost to a reset.
            Read::Refused => {
                log::info!("{} failed to begin TLS", self.session.peer());
                self.handshake_until = None;
                self.output = Vec::new();
                self.output_at = 0;
                self.closing = Some(Closing {
                    until: None,
                    drained: 0,
                });
                false
            }
            Read::Broken => {
                self.dead = true;
                false
            }
        }
    }

    /// The body of an upload, as far as it has been decrypted; what follows it is commands.
    pub(super) fn receive_decrypted(
        &mut self,
        pump: &mut Pump,
        shared: &mut Shared,
        budget: &mut usize,
        allowed: &mut usize,
    ) -> Step {
        loop {
            if let Some(outcome) = self.feed(pump, shared, budget, allowed) {
                return Step::Done(outcome);
            }
            if *budget == 0 {
                return Step::More;
            }
            if *allowed == 0 {
                return Step::Limited;
            }
            if self.ended {
                return Step::Done(Outcome::Broken);
            }
            let may_read = self.readable && !self.dead && self.closing.is_none();
            if !may_read || !self.read(shared, budget) {
                return Step::Blocked;
            }
        }
    }

    pub(super) fn flush_encrypted(&mut self, shared: &mut Shared) {
        let Some(tls) = &mut self.tls else {
            return;
        };
        let (socket, buffers) = (self.control.as_fd(), &mut shared.tools.tls);
        if tls.is_handshaking() && !tls.has_failed() {
            match tls.flush(socket, buffers) {
                Ok(flushed) => self.writable &= flushed,
                Err(_) => self.dead = true,
            }
            return;
        }
        while self.output_at < self.output.len() {
            match tls.write(socket, &self.output[self.output_at..], buffers) {
                Ok(0) => {
                    self.writable = false;
                    return;
                }
                Ok(n) => self.output_at += n,
                Err(_) => {
                    self.dead = true;
                    return;
                }
            }
        }
        match tls.flush(socket, buffers) {
            Ok(flushed) => self.writable &= flushed,
            Err(_) => self.dead = true,
        }
        self.output_at = 0;
        self.output.clear();
        shared.outputs.give(mem::take(&mut self.output));
    }

    /// Whether all that was to be sent has left.
    pub(super) fn is_flushed(&self) -> bool {
        self.output.is_empty() && self.tls.as_ref().is_none_or(|tls| !tls.has_outgoing())
    }
}

/// As [`Pump::step`]; at the end of a data connection inside TLS comes close_notify, and it is not over
/// before that has left.
pub(super) fn step(
    pump: &mut Pump,
    wire: &mut Wire,
    shared: &mut Shared,
    budget: &mut usize,
    allowed: &mut usize,
) -> Step {
    let step = pump.step(wire, &mut shared.tools, budget, allowed);
    let (Step::Done(Outcome::Complete), Some(tls)) = (&step, &mut wire.tls) else {
        return step;
    };
    tls.end(&mut shared.tools.tls);
    match tls.flush(wire.socket, &mut shared.tools.tls) {
        Ok(true) => step,
        // What a client that has sent everything gets to hear of it does not matter.
        _ if pump.is_receiving() => step,
        Ok(false) => Step::Blocked,
        Err(_) => Step::Done(Outcome::Broken),
    }
}

/// The handshake of a data connection is over.
pub(super) fn established(stream: &TcpStream, pump: &Pump, tls: Option<&Tls>) {
    if let Some(tls) = tls {
        log::debug!("a data connection uses {}", tls.agreed());
    }
    // A client's close_notify waits in its kernel until what went before it is acknowledged, and by
    // now the kernel on this side would take 40 ms for that.
    if pump.is_receiving() {
        let _ = rustix::net::sockopt::set_tcp_quickack(stream, true);
    }
}

/// close_notify on the control connection. False: it has not left yet.
pub(super) fn say_goodbye(
    tls: &mut Option<Box<Tls>>,
    control: &TcpStream,
    shared: &mut Shared,
) -> bool {
    let Some(tls) = tls else {
        return true;
    };
    let buffers = &mut shared.tools.tls;
    tls.end(buffers);
    // An error is found again by the shutdown that follows.
    tls.flush(control.as_fd(), buffers).unwrap_or(true)
}
