//! Rates: how many bytes per second may move, for one session, for all sessions of a user, for all
//! sessions of the server.
//!
//! Pure values: `now` is an argument, sockets and timers are not known here. Who is not limited has
//! no [`Pace`] and is asked nothing.
//!
//! A bucket is the time from which on the next byte may move. Who wants to move bytes reserves a
//! grant of them, which moves that time on, and waits until his own has come. So sessions that wait
//! for the same bucket take their turns in the order in which they asked, all with grants of the
//! same size, and nobody has to deal out anything when a second is over.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::accounts::field::Name;

/// A bucket that nobody drew from for a while lets this much time's bytes through at once: who is
/// woken late loses nothing. With a grant, which is up to as much, no tenth of a second has more
/// than twice its share.
const SAVED_UP: Duration = Duration::from_millis(50);
/// Whoever waits in turn for a bucket that many share may wait for long; meanwhile the narrower ones
/// save up this much, and the next grant is as much larger. Otherwise a session with a limit of its
/// own would get less of a shared one than those without.
const SAVED_UP_IN_TURN: Duration = Duration::from_secs(1);
/// Grants for one second, unless they are at their largest.
const GRANTS_PER_S: u64 = 20;
/// The largest grant: with many sessions in a shared bucket, none waits for long.
const GRANT_BYTES_MAX: u64 = 64 * 1024;
/// Nobody is woken sooner than this, but for more bytes then: a fast session would otherwise be
/// woken for each grant.
const NAP: Duration = Duration::from_millis(10);

/// Bytes per second, all told.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// `None`: nothing has moved yet.
    free_at: Option<Instant>,
}

impl Bucket {
    /// From when on the next byte may move, for somebody who may have saved up so much time.
    fn next(&self, saved_up: Duration, now: Instant) -> Instant {
        let earliest = now.checked_sub(saved_up).unwrap_or(now);
        self.free_at.map_or(now, |at| at.max(earliest))
    }

    /// How much to reserve at a time.
    fn grant(&self, bytes_per_s: u64, saved_up: Duration, now: Instant) -> u64 {
        let behind = now.saturating_duration_since(self.next(saved_up, now));
        let bytes = u128::from(bytes_per_s) * behind.as_nanos() / 1_000_000_000;
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        bytes.max(bytes_per_s / GRANTS_PER_S).max(1)
    }

    /// Takes `bytes`, and says from when on they may move.
    fn reserve(
        &mut self,
        bytes: u64,
        bytes_per_s: u64,
        saved_up: Duration,
        now: Instant,
    ) -> Instant {
        let from = self.next(saved_up, now);
        self.free_at = from.checked_add(time_of(bytes, bytes_per_s));
        from
    }

    /// Puts back what was reserved and did not move.
    fn give_back(&mut self, bytes: u64, bytes_per_s: u64) {
        let earlier = |at: Instant| at.checked_sub(time_of(bytes, bytes_per_s));
        self.free_at = self.free_at.and_then(earlier);
    }
}

fn time_of(bytes: u64, bytes_per_s: u64) -> Duration {
    let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(bytes_per_s.max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

/// The buckets that sessions share.
#[derive(Debug, Default)]
pub struct Rates {
    bytes_per_s: Option<u64>,
    all: Bucket,
    users: HashMap<Name, Bucket>,
}

/// Whose bucket it is.
#[derive(Clone, Copy)]
enum Scope {
    /// A session's, or a user's.
    Some,
    All,
}

/// How fast one session may go, and what it may move now.
#[derive(Debug)]
pub struct Pace {
    bytes_per_s: Option<u64>,
    user: Option<(Name, u64)>,
    own: Bucket,
    granted: u64,
    /// The grant may not be used before.
    from: Option<Instant>,
    waits_since: Option<Instant>,
    /// A time at which somebody has to look at it, and nobody knows that yet.
    wake: Option<Instant>,
}

impl Rates {
    /// For a server that moves so many bytes per second; `None`: as many as it can.
    pub fn new(bytes_per_s: Option<u64>) -> Rates {
        Rates {
            bytes_per_s,
            ..Rates::default()
        }
    }

    /// What the pace of a session is: its own bytes per second, and those of all sessions of its
    /// user. `None`: there is no limit at all.
    pub fn pace(&self, bytes_per_s: Option<u64>, user: Option<(Name, u64)>) -> Option<Pace> {
        if bytes_per_s.is_none() && user.is_none() && self.bytes_per_s.is_none() {
            return None;
        }
        Some(Pace {
            bytes_per_s,
            user,
            own: Bucket::default(),
            granted: 0,
            from: None,
            waits_since: None,
            wake: None,
        })
    }

    /// Forgets users of whom nothing waits: they may be none any more.
    pub fn forget_idle(&mut self, now: Instant) {
        let waits = |bucket: &Bucket| bucket.free_at.is_some_and(|at| at > now);
        self.users.retain(|_, bucket| waits(bucket));
    }

    /// Does something with each bucket of a pace and its rate, the widest last.
    fn each(&mut self, pace: &mut Pace, mut with: impl FnMut(&mut Bucket, u64, Scope)) {
        if let Some(rate) = pace.bytes_per_s {
            with(&mut pace.own, rate, Scope::Some);
        }
        if let Some((name, rate)) = &pace.user {
            if !self.users.contains_key(name) {
                self.users.insert(name.clone(), Bucket::default());
            }
            if let Some(bucket) = self.users.get_mut(name) {
                with(bucket, *rate, Scope::Some);
            }
        }
        if let Some(rate) = self.bytes_per_s {
            with(&mut self.all, rate, Scope::All);
        }
    }
}

impl Pace {
    /// Whether these are its limits.
    pub fn is_for(&self, bytes_per_s: Option<u64>, user: Option<&(Name, u64)>) -> bool {
        self.bytes_per_s == bytes_per_s && self.user.as_ref() == user
    }

    /// How many bytes may move now. `None`: none before [`Pace::wake`]. What moves is to be told by
    /// [`Pace::moved`].
    pub fn allowed(&mut self, rates: &mut Rates, now: Instant) -> Option<u64> {
        if self.granted == 0 {
            self.reserve(rates, now);
        }
        match self.from {
            Some(from) if from > now => {
                self.waits_since.get_or_insert(now);
                None
            }
            _ => Some(self.granted),
        }
    }

    fn reserve(&mut self, rates: &mut Rates, now: Instant) {
        let in_turn = self.from.is_some();
        let saved_up = |scope| match scope {
            Scope::Some if in_turn => SAVED_UP_IN_TURN,
            Scope::Some | Scope::All => SAVED_UP,
        };
        let mut bytes = GRANT_BYTES_MAX;
        rates.each(self, |bucket, rate, scope| {
            bytes = bytes.min(bucket.grant(rate, saved_up(scope), now));
        });
        let mut from = now;
        rates.each(self, |bucket, rate, scope| {
            from = from.max(bucket.reserve(bytes, rate, saved_up(scope), now));
        });
        self.granted = bytes;
        if from > now {
            let from = from.max(now + NAP);
            self.from = Some(from);
            self.wake = Some(from);
        } else {
            self.from = None;
        }
    }

    /// So many of the allowed bytes have moved.
    pub fn moved(&mut self, bytes: u64) {
        self.granted = self.granted.saturating_sub(bytes);
    }

    /// It cannot move more for now, for other reasons: what is left of its grant is for others.
    pub fn rest(&mut self, rates: &mut Rates) {
        let left = std::mem::take(&mut self.granted);
        if left > 0 {
            rates.each(self, |bucket, rate, _| bucket.give_back(left, rate));
        }
        self.from = None;
        self.wake = None;
    }

    /// How long it was kept waiting until `now`, if it was; told once.
    pub fn waited(&mut self, now: Instant) -> Option<Duration> {
        let since = self.waits_since.take()?;
        Some(now.saturating_duration_since(since))
    }

    /// Whether it is kept waiting.
    pub fn waits(&self) -> bool {
        self.waits_since.is_some()
    }

    /// When it has to be asked again; told once.
    pub fn wake(&mut self) -> Option<Instant> {
        self.wake.take()
    }
}

#[cfg(test)]
mod tests;
