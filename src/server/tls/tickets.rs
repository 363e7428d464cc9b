//! Session tickets that are good for one control session and its data connections.
//!
//! One key encrypts the tickets of all sessions and survives a new certificate, so that a client may
//! use the same ticket as often as it likes. What binds a ticket to its session is a random number
//! inside it: with another number it is no ticket, and a full handshake follows.

use std::sync::Arc;

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
}
