//! Who proved a password a moment ago, so that the next session of the same client need not pay
//! for Argon2 again. Clients that open eight connections, or one per file, log in over and over.
//!
//! # Why this does not weaken the hash
//!
//! What is kept is HMAC-SHA-256 over (user, hash in the users file, password) under a key that the
//! process made from the system's random bytes and never shows or stores.
//!
//! - *Guessing over the network*: an entry is made only after a full check succeeded, and only the
//!   very password that succeeded finds it. A wrong password pays the full price each time and
//!   learns nothing, since the digest is made and compared, in constant time, for every attempt,
//!   with or without an entry and whether or not there is such a user. The quick answer tells who
//!   gives the right password that it is right, which the answer itself says too. Where the answer
//!   must not say so (locked account, locked address, forbidden network), the caller does not ask.
//! - *A stolen users file* does not help: there is no key in it, and nothing of this is on disk.
//! - *A stolen copy of the process's memory* would, for these few minutes, allow guessing at the
//!   price of HMAC. But in the same memory are the passwords themselves, as they come in over the
//!   connections of the same minutes.
//! - *Changes hold at once*: the hash in the users file is part of the digest, so a new password
//!   ends the old entry; a reload ends all of them. An entry's time counts from the full check and
//!   is not prolonged by use.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::password::{Hash, Password, random};

/// How long a full check counts: long enough for the connections of one transfer job.
const KEPT: Duration = Duration::from_secs(5 * 60);
/// One entry per user at most, some 150 bytes each.
const ENTRIES_MAX: usize = 4096;

type Digest = [u8; 32];

/// The recent successes.
pub struct Recent {
    /// As long as a block of SHA-256, so that HMAC takes it as it is.
    key: Zeroizing<[u8; 64]>,
    entries: HashMap<String, Entry>,
}

struct Entry {
    digest: Digest,
    until: Instant,
}

impl Recent {
    /// None yet, under a new key.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn new() -> io::Result<Recent> {
        Ok(Recent {
            key: Zeroizing::new(random()?),
            entries: HashMap::new(),
        })
    }

    /// Notes that a full check of `password` against `hash`, the hash of `user`, succeeded.
    pub fn remember(&mut self, user: &str, hash: &Hash, password: &Password, now: Instant) {
        if self.entries.len() >= ENTRIES_MAX && !self.entries.contains_key(user) {
            self.make_room(now);
        }
        let entry = Entry {
            digest: self.digest(user, hash, password),
            until: now + KEPT,
        };
        self.entries.insert(user.to_string(), entry);
    }

    /// Forgets everybody.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Whether such a check succeeded in the last minutes.
    pub fn knows(&self, user: &str, hash: &Hash, password: &Password, now: Instant) -> bool {
        let entry = self.entries.get(user).filter(|entry| now < entry.until);
        let kept = entry.map_or([0; 32], |entry| entry.digest);
        let same = self.digest(user, hash, password).ct_eq(&kept);
        bool::from(same) && entry.is_some()
    }

    /// Called when there are [`ENTRIES_MAX`], behind a check that took ten thousand times longer.
    fn make_room(&mut self, now: Instant) {
        self.entries.retain(|_, entry| now < entry.until);
        if self.entries.len() >= ENTRIES_MAX {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.until);
            if let Some(user) = oldest.map(|(user, _)| user.clone()) {
                self.entries.remove(&user);
            }
        }
    }

    /// Lengths go in before contents, so that no two triples are written alike.
    fn digest(&self, user: &str, hash: &Hash, password: &Password) -> Digest {
        let mut mac = Hmac::<Sha256>::new(&(*self.key).into());
        for part in [user.as_bytes(), hash.as_str().as_bytes(), password.reveal()] {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

/// The key and the digests stay out of messages.
impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recent({} users)", self.entries.len())
    }
}

#[cfg(test)]
mod tests {
    use super::super::password::tests::{CHEAP, password};
    use super::*;

    fn hash(text: &str) -> Hash {
        Hash::new(&password(text), CHEAP).unwrap()
    }

    #[test]
    fn only_the_same_user_hash_and_password_are_known() {
        let (mut recent, now) = (Recent::new().unwrap(), Instant::now());
        let (old, new) = (hash("secret"), hash("secret"));
        let right = password("secret");
        assert!(!recent.knows("anna", &old, &right, now));
        recent.remember("anna", &old, &right, now);
        assert!(recent.knows("anna", &old, &right, now));
        assert!(!recent.knows("anna", &old, &password("secreT"), now));
        assert!(!recent.knows("anna", &old, &password(""), now));
        assert!(!recent.knows("bert", &old, &right, now));
        assert!(
            !recent.knows("anna", &new, &right, now),
            "the users file has a new hash of the same password"
        );
        recent.clear();
        assert!(!recent.knows("anna", &old, &right, now));
    }

    #[test]
    fn parts_cannot_be_shifted_into_each_other() {
        let (mut recent, now) = (Recent::new().unwrap(), Instant::now());
        let hash = hash("x");
        recent.remember("anna", &hash, &password("b"), now);
        let digest = recent.entries["anna"].digest;
        assert_ne!(recent.digest("ann", &hash, &password("ab")), digest);
        let shifted = format!("{}b", hash.as_str());
        assert_ne!(recent.digest("anna", &hash, &password(&shifted)), digest);
    }

    #[test]
    fn it_is_forgotten_in_time_and_use_does_not_prolong_it() {
        let (mut recent, start) = (Recent::new().unwrap(), Instant::now());
        let (hash, right) = (hash("secret"), password("secret"));
        recent.remember("anna", &hash, &right, start);
        let almost = start + KEPT - Duration::from_secs(1);
        assert!(recent.knows("anna", &hash, &right, almost));
        assert!(!recent.knows("anna", &hash, &right, start + KEPT));
    }

    #[test]
    fn another_process_has_another_key() {
        let (one, two) = (Recent::new().unwrap(), Recent::new().unwrap());
        let (hash, right) = (hash("secret"), password("secret"));
        assert_ne!(
            one.digest("anna", &hash, &right),
            two.digest("anna", &hash, &right)
        );
    }

    #[test]
    fn the_number_is_bounded_and_the_oldest_goes_first() {
        let (mut recent, start) = (Recent::new().unwrap(), Instant::now());
        let (hash, right) = (hash("secret"), password("secret"));
        for n in 0..=ENTRIES_MAX {
            let now = start + Duration::from_millis(n as u64);
            recent.remember(&n.to_string(), &hash, &right, now);
        }
        assert_eq!(recent.entries.len(), ENTRIES_MAX);
        assert!(!recent.knows("0", &hash, &right, start));
        assert!(recent.knows("1", &hash, &right, start));
        // Those whose time is over go together.
        recent.remember("late", &hash, &right, start + 2 * KEPT);
        assert_eq!(recent.entries.len(), 1);
    }

    #[test]
    fn debug_tells_no_secret() {
        let recent = Recent::new().unwrap();
        assert_eq!(format!("{recent:?}"), "Recent(0 users)");
    }
}
