//! Session tickets that are good for one control session and its data connections.
//!
//! One key encrypts the tickets of all sessions and survives a new certificate, so that a client may
//! use the same ticket as often as it likes. What binds a ticket to its session is a random number
//! inside it: with another number it is no ticket, and a full handshake follows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::server::ProducesTickets;

pub const NONCE_BYTES: usize = 16;

/// Tickets of one control session.
#[derive(Debug)]
pub struct Bound {
    all: Arc<dyn ProducesTickets>,
    nonce: [u8; NONCE_BYTES],
}

impl Bound {
    /// `nonce` is random; nobody else has the same.
    pub fn new(all: Arc<dyn ProducesTickets>, nonce: [u8; NONCE_BYTES]) -> Bound {
        Bound { all, nonce }
    }
}

impl ProducesTickets for Bound {
    fn enabled(&self) -> bool {
        self.all.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.all.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.all.encrypt(&[&self.nonce, plain].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let plain = self.all.decrypt(cipher)?;
        plain.strip_prefix(&self.nonce).map(<[u8]>::to_vec)
    }
}

/// Tickets of one data connection. TLS 1.3 sends them when the handshake is over, and by then it is
/// known whether the client will read them: one that only sends never does, and what it has not read
/// when it closes turns the end of its file into a reset.
#[derive(Debug)]
pub struct Withholdable {
    tickets: Arc<dyn ProducesTickets>,
    withheld: AtomicBool,
}

impl Withholdable {
    pub fn new(tickets: Arc<dyn ProducesTickets>) -> Withholdable {
        Withholdable {
            tickets,
            withheld: AtomicBool::new(false),
        }
    }

    /// From now on none are sent.
    pub fn withhold(&self) {
        self.withheld.store(true, Ordering::Relaxed);
    }
}

impl ProducesTickets for Withholdable {
    fn enabled(&self) -> bool {
        self.tickets.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.tickets.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        match self.withheld.load(Ordering::Relaxed) {
            true => None,
            false => self.tickets.encrypt(plain),
        }
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.tickets.decrypt(cipher)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_for_its_session_as_often_as_it_comes() {
        let all = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
        let one = Bound::new(all.clone(), [1; NONCE_BYTES]);
        let other = Bound::new(all.clone(), [2; NONCE_BYTES]);
        let ticket = one.encrypt(b"secret").unwrap();
        for _ in 0..3 {
            assert_eq!(one.decrypt(&ticket).as_deref(), Some(&b"secret"[..]));
        }
        assert_eq!(other.decrypt(&ticket), None);
        assert_eq!(one.decrypt(b"short"), None);
        let unbound = all.encrypt(b"secret").unwrap();
        assert_eq!(one.decrypt(&unbound), None);
    }

    #[test]
    fn tickets_are_withheld_but_taken() {
        let all = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
        let tickets = Withholdable::new(all);
        let ticket = tickets.encrypt(b"secret").unwrap();
        tickets.withhold();
        assert_eq!(tickets.encrypt(b"secret"), None);
        assert!(tickets.decrypt(&ticket).is_some());
    }
}
