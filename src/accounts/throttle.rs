//! Who has failed to log in too often. It counts and says "locked" or "not locked", and knows
//! neither passwords nor answers.
//!
//! - [`PAIR_FAILURES`] failures of one address with one name lock that pair.
//! - [`ADDRESS_FAILURES`] failures of one address, whatever the names, lock the address.
//! - A name alone is never locked: a stranger could lock its owner out.
//! - An IPv6 address counts as its /64: a subscriber has at least that many.
//! - Failures are counted from the first one on, and forgotten [`WINDOW`] after it; a lock holds
//!   for [`LOCK`] and is not prolonged by trying. So a program with an old password that retries
//!   for ever is locked out most of the time, and its owner gets in soon after it is stopped.
//!
//! # Memory
//!
//! Counts are kept in two generations of at most `RECORDS_MAX` records, some 100 bytes each. When
//! the younger is full, or older than any count and lock, it becomes the older one, and what
//! was in that is forgotten; what is touched moves to the younger one. So a record goes early only
//! when `RECORDS_MAX` others were touched since. Whoever can bring that about has thousands of
//! addresses to guess from, and paid for a full password check with each: the locks that he
//! pushes out were not what held him back.

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::field::{NAME_BYTES_MAX, masked};

/// Failures after which an address is locked for one name. A person mistypes two or three times.
pub const PAIR_FAILURES: u32 = 5;
/// Failures after which an address is locked altogether. Many people may share one.
pub const ADDRESS_FAILURES: u32 = 50;
/// How long a failure counts, from the first one on.
pub const WINDOW: Duration = Duration::from_secs(15 * 60);
/// How long a lock holds.
pub const LOCK: Duration = Duration::from_secs(15 * 60);
/// Records per generation, of pairs and of addresses each.
const RECORDS_MAX: usize = 16 * 1024;

/// What a failure has locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locked {
    /// The address, for that name.
    Pair,
    /// The address, whatever the name.
    Address,
}

/// The counts.
#[derive(Debug)]
pub struct Throttle {
    pairs: Counts<(IpAddr, Box<[u8]>)>,
    addresses: Counts<IpAddr>,
}

impl Throttle {
    /// Nobody has failed yet.
    pub fn new(now: Instant) -> Throttle {
        Throttle {
            pairs: Counts::new(PAIR_FAILURES, now),
            addresses: Counts::new(ADDRESS_FAILURES, now),
        }
    }

    /// Notes a wrong password or an unknown name. Right passwords that are refused for another
    /// reason are no failures. Tells what is locked from now on and was not before.
    pub fn failed(&mut self, address: IpAddr, name: &[u8], now: Instant) -> Option<Locked> {
        let address = counted(address);
        // An address that is locked cannot fill the table of pairs.
        let pair =
            !self.addresses.locked(&address, now) && self.pairs.add((address, short(name)), now);
        match (self.addresses.add(address, now), pair) {
            (true, _) => Some(Locked::Address),
            (_, true) => Some(Locked::Pair),
            _ => None,
        }
    }

    /// Notes that the user of that name came in from there: the pair's failures were typing errors.
    /// The address keeps its count, or whoever has an account could go on guessing others.
    /// False: there were none.
    pub fn succeeded(&mut self, address: IpAddr, name: &[u8]) -> bool {
        self.pairs.forget(&(counted(address), short(name)))
    }

    /// Whether an attempt from `address` with that name is refused, whatever the password.
    pub fn locked(&self, address: IpAddr, name: &[u8], now: Instant) -> bool {
        let address = counted(address);
        self.addresses.locked(&address, now) || self.pairs.locked(&(address, short(name)), now)
    }
}

fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        v6 @ IpAddr::V6(_) => masked(v6, 64),
    }
}

/// All names that are too long for a user count as one, and cost no more than a user's.
pub(super) fn short(name: &[u8]) -> Box<[u8]> {
    name.get(..=NAME_BYTES_MAX).unwrap_or(name).into()
}

/// Failures by key.
#[derive(Debug)]
struct Counts<K> {
    most: u32,
    young: HashMap<K, Count>,
    old: HashMap<K, Count>,
    /// When `young` was empty.
    since: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    failures: u32,
    first: Instant,
    locked_until: Option<Instant>,
}

impl Count {
    /// Whether it means anything any more.
    fn holds(&self, now: Instant) -> bool {
        now < self.locked_until.unwrap_or(self.first + WINDOW)
    }
}

impl<K: Hash + Eq> Counts<K> {
    fn new(most: u32, now: Instant) -> Counts<K> {
        Counts {
            most,
            young: HashMap::new(),
            old: HashMap::new(),
            since: now,
        }
    }

    /// True: this has locked it.
    fn add(&mut self, key: K, now: Instant) -> bool {
        if self.young.len() >= RECORDS_MAX || now >= self.since + WINDOW.max(LOCK) {
            self.old = mem::take(&mut self.young);
            self.since = now;
        }
        let known = self.young.remove(&key).or_else(|| self.old.remove(&key));
        let mut count = known.filter(|count| count.holds(now)).unwrap_or(Count {
            failures: 0,
            first: now,
            locked_until: None,
        });
        count.failures = count.failures.saturating_add(1);
        let locks = count.failures >= self.most && count.locked_until.is_none();
        if locks {
            count.locked_until = Some(now + LOCK);
        }
        self.young.insert(key, count);
        locks
    }

    fn forget(&mut self, key: &K) -> bool {
        let (young, old) = (self.young.remove(key), self.old.remove(key));
        young.is_some() || old.is_some()
    }

    fn locked(&self, key: &K, now: Instant) -> bool {
        let count = self.young.get(key).or_else(|| self.old.get(key));
        count.is_some_and(|count| count.locked_until.is_some_and(|until| now < until))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn fail(throttle: &mut Throttle, from: &str, name: &str, times: u32, now: Instant) {
        for _ in 0..times {
            throttle.failed(address(from), name.as_bytes(), now);
        }
    }

    #[test]
    fn five_failures_lock_the_pair_and_nobody_else() {
        let now = Instant::now();
        let mut throttle = Throttle::new(now);
        fail(&mut throttle, "192.0.2.1", "anna", 4, now);
        assert!(!throttle.locked(address("192.0.2.1"), b"anna", now));
        fail(&mut throttle, "192.0.2.1", "anna", 1, now);
        assert!(throttle.locked(address("192.0.2.1"), b"anna", now));
        assert!(throttle.locked(address("::ffff:192.0.2.1"), b"anna", now));
        assert!(!throttle.locked(address("192.0.2.1"), b"ben", now));
        assert!(!throttle.locked(address("192.0.2.2"), b"anna", now));
    }

    #[test]
    fn what_a_failure_locks_is_told_once() {
        let now = Instant::now();
        let mut throttle = Throttle::new(now);
        let here = address("192.0.2.1");
        let mut told = Vec::new();
        for n in 1..=60 {
            let name = if n <= 6 {
                "anna".to_owned()
            } else {
                format!("user{n}")
            };
            let locked = throttle.failed(here, name.as_bytes(), now);
            told.extend(locked.map(|locked| (n, locked)));
        }
        assert_eq!(told, [(5, Locked::Pair), (50, Locked::Address)]);
    }

    #[test]
    fn a_lock_ends_and_trying_does_not_prolong_it() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        fail(&mut throttle, "192.0.2.1", "anna", 5, start);
        for minute in 0..15 {
            fail(
                &mut throttle,
                "192.0.2.1",
                "anna",
                1,
                start + minute * 60 * SECOND,
            );
        }
        let here = address("192.0.2.1");
        assert!(throttle.locked(here, b"anna", start + LOCK - SECOND));
        assert!(!throttle.locked(here, b"anna", start + LOCK));
        // Counting begins anew.
        fail(&mut throttle, "192.0.2.1", "anna", 4, start + LOCK);
        assert!(!throttle.locked(here, b"anna", start + LOCK));
        fail(&mut throttle, "192.0.2.1", "anna", 1, start + LOCK);
        assert!(throttle.locked(here, b"anna", start + LOCK));
    }

    #[test]
    fn failures_are_forgotten_in_time() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        for n in 0..40 {
            let now = start + n * WINDOW / 4;
            fail(&mut throttle, "192.0.2.1", "anna", 1, now);
            assert!(!throttle.locked(address("192.0.2.1"), b"anna", now), "{n}");
        }
    }

    #[test]
    fn fifty_failures_lock_the_address() {
        let now = Instant::now();
        let mut throttle = Throttle::new(now);
        for n in 0..49 {
            fail(&mut throttle, "192.0.2.1", &format!("user{n}"), 1, now);
        }
        assert!(!throttle.locked(address("192.0.2.1"), b"anna", now));
        fail(&mut throttle, "192.0.2.1", "user49", 1, now);
        assert!(throttle.locked(address("192.0.2.1"), b"anna", now));
        assert!(throttle.locked(address("192.0.2.1"), b"", now + LOCK - SECOND));
        assert!(!throttle.locked(address("192.0.2.1"), b"anna", now + LOCK));
        assert!(!throttle.locked(address("192.0.2.2"), b"user0", now));
    }

    #[test]
    fn a_name_alone_is_never_locked() {
        let now = Instant::now();
        let mut throttle = Throttle::new(now);
        for n in 0..10_000_u32 {
            let from = IpAddr::from(Ipv4Addr::from(0x0a00_0000 + n));
            for _ in 0..5 {
                throttle.failed(from, b"anna", now);
            }
        }
        assert!(!throttle.locked(address("192.0.2.1"), b"anna", now));
    }

    #[test]
    fn an_ipv6_address_counts_as_its_64() {
        let now = Instant::now();
        let mut throttle = Throttle::new(now);
        for n in 0..5 {
            fail(&mut throttle, &format!("2001:db8::{n}"), "anna", 1, now);
        }
        assert!(throttle.locked(address("2001:db8::ffff:1:2:3"), b"anna", now));
        assert!(!throttle.locked(address("2001:db8:0:1::1"), b"anna", now));
    }

    #[test]
    fn getting_in_clears_the_pair_but_not_the_address() {
        let now = Instant::now();
        let mut throttle = Throttle::new(now);
        let here = address("192.0.2.1");
        for _ in 0..12 {
            fail(&mut throttle, "192.0.2.1", "anna", 4, now);
            assert!(!throttle.locked(here, b"anna", now));
            throttle.succeeded(here, b"anna");
        }
        fail(&mut throttle, "192.0.2.1", "ben", 2, now);
        assert!(throttle.locked(here, b"anna", now), "50 in all");
    }

    #[test]
    fn a_peer_with_many_addresses_costs_a_bounded_amount_of_memory() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        fail(&mut throttle, "192.0.2.1", "anna", 5, start);
        let long = vec![b'x'; 4000];
        for n in 0..5 * RECORDS_MAX as u128 {
            let first = u128::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0));
            throttle.failed(Ipv6Addr::from(first + (n << 64)).into(), &long, start);
        }
        assert!(throttle.pairs.young.len() <= RECORDS_MAX);
        assert!(throttle.pairs.old.len() <= RECORDS_MAX);
        assert!(throttle.addresses.young.len() + throttle.addresses.old.len() <= 2 * RECORDS_MAX);
        let names = throttle.pairs.young.keys().map(|(_, name)| name.len());
        assert!(names.max() <= Some(NAME_BYTES_MAX + 1));
    }

    #[test]
    fn one_address_makes_few_records_and_pushes_nobody_out() {
        let now = Instant::now();
        let mut throttle = Throttle::new(now);
        fail(&mut throttle, "192.0.2.1", "anna", 5, now);
        for n in 0..200_000 {
            throttle.failed(address("192.0.2.2"), format!("{n}").as_bytes(), now);
        }
        assert!(throttle.pairs.young.len() <= 1 + ADDRESS_FAILURES as usize);
        assert!(throttle.locked(address("192.0.2.1"), b"anna", now));
    }

    #[test]
    fn a_lock_outlives_the_change_of_generations() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        let locked_at = start + LOCK - SECOND;
        fail(&mut throttle, "192.0.2.1", "anna", 5, locked_at);
        // These come right before and right after the generations change.
        fail(&mut throttle, "192.0.2.9", "ben", 1, start + LOCK);
        let almost = locked_at + LOCK - SECOND;
        fail(&mut throttle, "192.0.2.9", "ben", 1, almost);
        assert!(throttle.locked(address("192.0.2.1"), b"anna", almost));
        // Nothing is left when nobody failed for long enough.
        fail(&mut throttle, "192.0.2.9", "ben", 1, almost + 2 * LOCK);
        fail(&mut throttle, "192.0.2.9", "ben", 1, almost + 4 * LOCK);
        assert_eq!(throttle.pairs.young.len() + throttle.pairs.old.len(), 1);
    }
}
