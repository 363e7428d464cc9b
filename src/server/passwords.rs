//! Password checks: a thread of their own, so that fifty logins at once delay nobody's NOOP and no
//! digest of a large file delays a login. The place in the queue belongs to the check, not to the
//! connection: who hangs up and comes again gets no second one before the first is done.
//!
//! Who gets in is decided in [`crate::accounts::authenticator`].

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Instant;

use mio::Waker;

use super::Id;
use super::accept::counted;
use crate::accounts::authenticator::{Authenticator, Begun, Check, Checked, Outcome};
use crate::accounts::password::Password;
use crate::accounts::users::{User, Users};
use crate::fingerprint::Fingerprint;
use crate::session::PasswordAnswer;
use crate::storage::path::VirtualPath;
use crate::storage::root::Root;
use crate::workers::Attempt;

/// Checks that wait; one takes some 20 ms, so that the last of them waits for about two seconds.
const WAITING_MAX: usize = 100;

/// Those of one address (IPv6: of one /64, as everywhere): it may fill its part of the queue, and
/// nobody else's. Loopback is not counted.
const WAITING_PER_ADDRESS_MAX: usize = 32;

/// Whose check it is.
#[derive(Debug, Clone, Copy)]
struct Requester {
    id: Id,
    /// What address it is counted under.
    address: Option<IpAddr>,
}

/// The authenticator, and the thread that does its work.
#[derive(Debug)]
pub struct Passwords {
    authenticator: Authenticator,
    root: Arc<Root>,
    /// Users with the same home share it, for as long as one of them is there.
    homes: HashMap<VirtualPath, Weak<Root>>,
    checks: Sender<(Requester, Check)>,
    done: Receiver<(Requester, Checked)>,
    waiting: usize,
    waiting_per_address: HashMap<IpAddr, usize>,
}

impl Passwords {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread, or no random bytes.
    pub fn start(
        users: Users,
        root: &Arc<Root>,
        waker: &Arc<Waker>,
        now: Instant,
    ) -> io::Result<Passwords> {
        let (checks, orders) = mpsc::channel::<(Requester, Check)>();
        let (results, done) = mpsc::channel();
        let waker = waker.clone();
        let work = move || {
            while let Ok((requester, check)) = orders.recv() {
                if results.send((requester, check.run())).is_err() || waker.wake().is_err() {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("passwords".into())
            .spawn(work)?;
        Ok(Passwords {
            authenticator: Authenticator::new(users, now)?,
            root: root.clone(),
            homes: HashMap::new(),
            checks,
            done,
            waiting: 0,
            waiting_per_address: HashMap::new(),
        })
    }

    /// Somebody at `address` gives a name and a password, and has perhaps shown to have the key of
    /// a certificate. `None`: the answer comes later.
    pub fn begin(
        &mut self,
        id: Id,
        name: &[u8],
        password: Password,
        certificate: Option<Fingerprint>,
        address: IpAddr,
        now: Instant,
    ) -> Option<PasswordAnswer> {
        let requester = Requester {
            id,
            address: counted(address),
        };
        let of_address = requester
            .address
            .and_then(|it| self.waiting_per_address.get(&it));
        let of_address = of_address.copied().unwrap_or(0);
        if self.waiting >= WAITING_MAX || of_address >= WAITING_PER_ADDRESS_MAX {
            return Some(PasswordAnswer::Busy);
        }
        match self
            .authenticator
            .begin(name, password, certificate, address, now)
        {
            Begun::Known(user) => Some(self.at_home(user)),
            Begun::Check(check) => {
                if self.checks.send((requester, check)).is_err() {
                    log::error!("the thread for passwords has ended");
                    return Some(PasswordAnswer::Busy);
                }
                self.waiting += 1;
                if let Some(address) = requester.address {
                    self.waiting_per_address.insert(address, of_address + 1);
                }
                None
            }
        }
    }

    /// The next answer that is ready, for whoever asked; it counts also if nobody is left there.
    pub fn answer(&mut self, now: Instant) -> Option<(Id, PasswordAnswer)> {
        let (Requester { id, address }, checked) = self.done.try_recv().ok()?;
        self.waiting -= 1;
        if let Some(address) = address
            && let Some(n) = self.waiting_per_address.get_mut(&address)
        {
            *n -= 1;
            if *n == 0 {
                self.waiting_per_address.remove(&address);
            }
        }
        let answer = match self.authenticator.answer(checked, now) {
            Ok(Some(user)) => self.at_home(user),
            Ok(None) => PasswordAnswer::Wrong,
            Err(error) => {
                log::error!("a password could not be checked: {error}");
                PasswordAnswer::Wrong
            }
        };
        Some((id, answer))
    }

    /// Takes other users from now on. Sessions that are there go on.
    pub fn reload(&mut self, users: Users) {
        self.authenticator.reload(users);
    }

    /// Whether anybody may come with a certificate.
    pub fn know_certificates(&self) -> bool {
        self.authenticator.users().know_certificates()
    }

    /// From now on [`Passwords::attempts`] has something to tell.
    pub fn note_attempts(&mut self) {
        self.authenticator.note_outcomes();
    }

    /// What other workers have to know of what has happened here since the last call.
    pub fn attempts(&mut self) -> Vec<Attempt> {
        let attempt = |it: Outcome| Attempt {
            address: it.address,
            name: it.name.into_vec(),
            right: it.right,
        };
        self.authenticator
            .outcomes()
            .into_iter()
            .map(attempt)
            .collect()
    }

    /// Something has happened at another worker.
    pub fn attempted(&mut self, attempt: Attempt, now: Instant) {
        let outcome = Outcome {
            address: attempt.address,
            name: attempt.name.into(),
            right: attempt.right,
        };
        self.authenticator.happened(&outcome, now);
    }

    fn at_home(&mut self, user: Arc<User>) -> PasswordAnswer {
        if user.home.is_root() {
            let home = self.root.clone();
            return PasswordAnswer::Right { user, home };
        }
        if let Some(home) = self.homes.get(&user.home).and_then(Weak::upgrade) {
            return PasswordAnswer::Right { user, home };
        }
        match self.root.below(&user.home) {
            Ok(home) => {
                let home = Arc::new(home);
                self.homes.retain(|_, home| home.strong_count() > 0);
                self.homes.insert(user.home.clone(), Arc::downgrade(&home));
                PasswordAnswer::Right { user, home }
            }
            Err(error) => {
                log::error!(
                    "the home {} of {} cannot be used: {error}",
                    user.home,
                    user.name
                );
                PasswordAnswer::Wrong
            }
        }
    }
}
