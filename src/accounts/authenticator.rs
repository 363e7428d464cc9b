//! Who gets in. A password comes in, and a user comes out or nobody does; why not, the client is
//! not told.
//!
//! # Driving it
//!
//! [`Authenticator::begin`] takes a name and a password. Either the same was proved a moment ago
//! ([`super::recent`]) and the user is known at once, or it returns a [`Check`]: pure work that
//! takes tens of milliseconds, for a thread where nobody waits. Its result goes to [`Authenticator::answer`],
//! also when the session that asked has gone meanwhile, or it would have guessed for free.
//!
//! # All refusals are one
//!
//! A wrong password, an unknown name, a locked user, a forbidden network and a locked address all
//! cost exactly one hash of Argon2 and come out as the same `None`:
//!
//! - Where there is no user, the password is checked against [`Users::decoy`], which costs what
//!   most hashes of the file cost. Nobody knows a password for it, and it would be no use to know
//!   one. A file whose hashes differ in cost is warned of when it is loaded.
//! - Where the answer is no whatever the password (locked, or from elsewhere), it is checked all
//!   the same, and [`super::recent`] is not asked: a quick answer there would tell a guesser that
//!   the password is right, and let him wait until the lock ends.
//! - Locks count again when the check is done: of a hundred guesses sent at once, those that end
//!   after the fifth failure are refused without regard to what they found.

use std::io;
use std::mem;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::password::{Hash, Password};
use super::recent::Recent;
use super::throttle::{ADDRESS_FAILURES, LOCK, Locked, PAIR_FAILURES, Throttle, short};
use super::users::{User, Users};
use crate::fingerprint::Fingerprint;

/// The users and what is remembered of their attempts.
#[derive(Debug)]
pub struct Authenticator {
    users: Users,
    recent: Recent,
    throttle: Throttle,
    /// `None`: nobody wants to know.
    outcomes: Option<Vec<Outcome>>,
}

/// What an attempt has changed in the counts of failures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Where from.
    pub address: IpAddr,
    /// With which name; cut where it is longer than any user's.
    pub name: Box<[u8]>,
    /// Whether the user got in.
    pub right: bool,
}

/// What [`Authenticator::begin`] found.
#[derive(Debug)]
pub enum Begun {
    /// The same user proved the same password a moment ago, or has a certificate.
    Known(Arc<User>),
    /// The password has to be checked.
    Check(Check),
}

/// A password check that is to be made, with all it needs.
#[derive(Debug)]
pub struct Check {
    attempt: Attempt,
    hash: Arc<Hash>,
}

/// A password check that was made.
#[derive(Debug)]
pub struct Checked {
    attempt: Attempt,
    hash: Arc<Hash>,
    right: io::Result<bool>,
}

#[derive(Debug)]
struct Attempt {
    name: Vec<u8>,
    password: Password,
    address: IpAddr,
}

impl Check {
    /// Does the work.
    pub fn run(self) -> Checked {
        let verify = AssertUnwindSafe(|| self.hash.verify(&self.attempt.password));
        // A panic costs this check, and not the thread that makes them all.
        let right = catch_unwind(verify)
            .unwrap_or_else(|_| Err(io::Error::other("the check of a password panicked")));
        Checked {
            right,
            attempt: self.attempt,
            hash: self.hash,
        }
    }

    /// The memory that [`Check::run`] takes while it runs.
    pub fn memory_bytes(&self) -> u64 {
        u64::from(self.hash.cost().memory_kib) << 10
    }
}

impl Authenticator {
    /// For these users, of whom nobody has tried to log in yet.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn new(users: Users, now: Instant) -> io::Result<Authenticator> {
        Ok(Authenticator {
            users,
            recent: Recent::new()?,
            throttle: Throttle::new(now),
            outcomes: None,
        })
    }

    /// From now on outcomes are noted for another authenticator: [`Authenticator::outcomes`] takes them out.
    pub fn note_outcomes(&mut self) {
        self.outcomes = Some(Vec::new());
    }

    /// What has come of attempts since the last call.
    pub fn outcomes(&mut self) -> Vec<Outcome> {
        self.outcomes.as_mut().map(mem::take).unwrap_or_default()
    }

    /// Counts what has come of an attempt at another authenticator.
    pub fn happened(&mut self, outcome: &Outcome, now: Instant) {
        let Outcome {
            address,
            name,
            right,
        } = outcome;
        match right {
            true => {
                self.throttle.succeeded(*address, name);
            }
            // The other one has told it.
            false => drop(self.throttle.failed(*address, name, now)),
        }
    }

    fn failed(&mut self, address: IpAddr, name: &[u8], now: Instant) {
        let minutes = LOCK.as_secs() / 60;
        let shown = String::from_utf8_lossy(name);
        match self.throttle.failed(address, name, now) {
            Some(Locked::Pair) => log::warn!(
                "locked: user {shown:?} from {address}: after {PAIR_FAILURES} wrong passwords not \
                 even the right one is taken there for {minutes} minutes"
            ),
            Some(Locked::Address) => log::warn!(
                "locked: all users from {address}: after {ADDRESS_FAILURES} wrong passwords no \
                 password is taken there for {minutes} minutes"
            ),
            None => {}
        }
        self.note(address, name, false);
    }

    fn succeeded(&mut self, address: IpAddr, name: &[u8]) {
        if self.throttle.succeeded(address, name) {
            self.note(address, name, true);
        }
    }

    fn note(&mut self, address: IpAddr, name: &[u8], right: bool) {
        if let Some(outcomes) = &mut self.outcomes {
            outcomes.push(Outcome {
                address,
                name: short(name),
                right,
            });
        }
    }

    /// Somebody says who he is. `address` is where he comes from; `certificate` is the one whose
    /// key he has shown to have.
    pub fn begin(
        &mut self,
        name: &[u8],
        password: Password,
        certificate: Option<Fingerprint>,
        address: IpAddr,
        now: Instant,
    ) -> Begun {
        let user = self.users.find(name);
        // Keys are not guessed, so guesses at the password do not lock them out.
        if let (Some(user), Some(certificate)) = (user, certificate)
            && user.certificates.contains(&certificate)
            && user.may_come_from(address)
        {
            return Begun::Known(user.clone());
        }
        let hash = user.map_or(self.users.decoy().clone(), |user| user.hash.clone());
        // Asked for every attempt, so that no name answers sooner or later than another.
        let shown = str::from_utf8(name).unwrap_or_default();
        let known = self.recent.knows(shown, &hash, &password, now);
        let open = !self.throttle.locked(address, name, now);
        if let Some(user) = user
            && known
            && open
            && user.may_come_from(address)
        {
            let user = user.clone();
            self.succeeded(address, name);
            return Begun::Known(user);
        }
        let attempt = Attempt {
            name: name.to_vec(),
            password,
            address,
        };
        Begun::Check(Check { attempt, hash })
    }

    /// Who gets in after a check.
    ///
    /// # Errors
    /// The check could not be made. The client hears the same as for a wrong password, but it was
    /// none: nothing is counted.
    pub fn answer(&mut self, checked: Checked, now: Instant) -> io::Result<Option<Arc<User>>> {
        let Checked {
            attempt,
            hash,
            right,
        } = checked;
        let right = right?;
        // The users may have been reloaded meanwhile: whoever has another hash now is a stranger.
        let current = self.users.find(&attempt.name);
        let user = current.filter(|user| right && user.hash == hash).cloned();
        let Some(user) = user else {
            if !right {
                self.failed(attempt.address, &attempt.name, now);
            }
            return Ok(None);
        };
        let locked = self.throttle.locked(attempt.address, &attempt.name, now);
        if locked || !user.may_come_from(attempt.address) {
            return Ok(None);
        }
        self.succeeded(attempt.address, &attempt.name);
        let name = user.name.as_str();
        self.recent.remember(name, &hash, &attempt.password, now);
        Ok(Some(user))
    }

    /// Takes other users from now on, and returns those before. Locks stay; nobody is known from a
    /// moment ago.
    pub fn reload(&mut self, users: Users) -> Users {
        self.recent.clear();
        mem::replace(&mut self.users, users)
    }

    /// The users.
    pub fn users(&self) -> &Users {
        &self.users
    }
}

#[cfg(test)]
mod tests;
