//! The shared passive listeners: opened once, so that EPSV and PASV cost no system call.
//!
//! What is given away is a slot, a pair of (port, client address). A connection to the port from
//! that address belongs to the slot's owner; from any other address it is a stranger's. What the
//! protocol says about that is known elsewhere.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::time::{Duration, Instant};

use mio::net::TcpListener;

use super::{Id, listen};

const BACKLOG: i32 = 128;

/// The listeners and who waits at them.
#[derive(Debug)]
pub struct Passive {
    ports: Vec<Port>,
    /// Which of them listen at an address.
    places: HashMap<IpAddr, Range<usize>>,
    slots: HashMap<(usize, IpAddr), Slot>,
    waiting: HashMap<Pair, VecDeque<Id>>,
    sweep_at_slots: usize,
    keeps: Duration,
    rests: Duration,
}

/// Where a control connection came to, and from where: these share the slots, so if there is none for
/// one of them, there is none for the next.
pub type Pair = (IpAddr, IpAddr);

/// One listener.
#[derive(Debug)]
pub struct Port {
    /// The socket.
    pub listener: TcpListener,
    /// A connection may be waiting.
    pub ready: bool,
    bind: IpAddr,
    port: u16,
}

#[derive(Debug)]
struct Slot {
    owner: Id,
    /// After this it is abandoned, and after a rest free.
    until: Instant,
}

impl Port {
    /// The address that it listens at.
    pub fn bind(&self) -> IpAddr {
        self.bind
    }
}

impl Passive {
    /// Opens listeners on each of the addresses: those of `range`, or `chosen` ports that the kernel
    /// chooses. A slot is kept for `keeps`, and rests for `rests` when it was not used.
    ///
    /// # Errors
    /// No port of the range, or none at all, can be had at an address.
    pub fn open(
        addresses: &[IpAddr],
        range: Option<&RangeInclusive<u16>>,
        chosen: usize,
        keeps: Duration,
        rests: Duration,
    ) -> io::Result<Passive> {
        let (mut ports, mut places) = (Vec::new(), HashMap::new());
        // A port of the range on `0.0.0.0` would be in the way of the same on `[::]`.
        let v6_only = range.is_some() && addresses.iter().any(IpAddr::is_ipv4);
        for &bind in addresses {
            let before = ports.len();
            let wanted: Vec<u16> = match range {
                Some(range) => range.clone().collect(),
                None => vec![0; chosen.max(1)],
            };
            let mut failure = None;
            for port in wanted {
                match listen::tcp(SocketAddr::new(bind, port), BACKLOG, v6_only) {
                    Ok(listener) => {
                        let port = listener.local_addr()?.port();
                        ports.push(Port {
                            listener,
                            ready: false,
                            bind,
                            port,
                        });
                    }
                    Err(error) => failure = Some(error),
                }
            }
            if let Some(error) = failure {
                if ports.len() == before {
                    return Err(error);
                }
                log::warn!("some passive ports on {bind} are not to be had: {error}");
            }
            places.insert(bind, before..ports.len());
        }
        let slots = HashMap::new();
        Ok(Passive {
            ports,
            places,
            slots,
            waiting: HashMap::new(),
            sweep_at_slots: 1024,
            keeps,
            rests,
        })
    }

    /// The listeners, in the order of their tokens.
    pub fn ports(&mut self) -> &mut [Port] {
        &mut self.ports
    }

    /// Gives `owner`, whose control connection came to `bind` from `client`, a slot: the one that it
    /// had, or any free one, beginning at a random place. Returns the listener's place and its port.
    pub fn reserve(
        &mut self,
        owner: Id,
        bind: IpAddr,
        client: IpAddr,
        had: Option<usize>,
        now: Instant,
        random: u64,
    ) -> Option<(usize, u16)> {
        let until = now + self.keeps;
        if let Some(place) = had
            && let Some(slot) = self.slots.get_mut(&(place, client))
            && slot.owner == owner
        {
            slot.until = until;
            return Some((place, self.ports[place].port));
        }
        let places = self.places.get(&bind).filter(|it| !it.is_empty())?;
        let count = places.len();
        let offset = (random % count as u64) as usize;
        let place = (0..count)
            .map(|n| places.start + (offset + n) % count)
            .find(|&place| {
                let slot = self.slots.get(&(place, client));
                slot.is_none_or(|slot| slot.until + self.rests <= now)
            })?;
        self.slots.insert((place, client), Slot { owner, until });
        if self.slots.len() >= self.sweep_at_slots {
            self.slots.retain(|_, slot| slot.until + self.rests > now);
            self.sweep_at_slots = (self.slots.len() * 2).max(1024);
        }
        Some((place, self.ports[place].port))
    }

    /// `id` found no slot, and is told when it is its turn to look again.
    pub fn wait(&mut self, pair: Pair, id: Id) {
        self.waiting.entry(pair).or_default().push_back(id);
    }

    /// Whether somebody waits for a slot.
    pub fn is_awaited(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Those who wait, each pair once.
    pub fn pairs(&self) -> Vec<Pair> {
        self.waiting.keys().copied().collect()
    }

    /// Who has waited longest.
    pub fn first_waiting(&self, pair: Pair) -> Option<Id> {
        self.waiting.get(&pair)?.front().copied()
    }

    /// That one waits no more.
    pub fn forget_first(&mut self, pair: Pair) {
        let Some(waiting) = self.waiting.get_mut(&pair) else {
            return;
        };
        waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(&pair);
        }
    }

    /// The owner waits for its connection until then. False: it was too late, and somebody else has
    /// the slot.
    pub fn renew(&mut self, owner: Id, place: usize, client: IpAddr, until: Instant) -> bool {
        match self.slots.get_mut(&(place, client)) {
            Some(slot) if slot.owner == owner => {
                slot.until = slot.until.max(until);
                true
            }
            _ => false,
        }
    }

    /// Whose connection from `client` at the listener `place` is; the slot is free again.
    pub fn claim(&mut self, place: usize, client: IpAddr) -> Option<Id> {
        self.slots.remove(&(place, client)).map(|slot| slot.owner)
    }

    /// The owner is gone: what it had not used rests for a while.
    pub fn abandon(&mut self, owner: Id, place: usize, client: IpAddr, now: Instant) {
        if let Some(slot) = self.slots.get_mut(&(place, client))
            && slot.owner == owner
        {
            slot.until = slot.until.min(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const SECONDS: fn(u64) -> Duration = Duration::from_secs;

    fn passive(ports: usize) -> Passive {
        Passive::open(&[HOME], None, ports, SECONDS(30), SECONDS(10)).unwrap()
    }

    fn id(key: usize) -> Id {
        Id { key, generation: 1 }
    }

    #[test]
    fn a_session_keeps_its_port() {
        let (mut passive, now) = (passive(8), Instant::now());
        let first = passive.reserve(id(1), HOME, HOME, None, now, 3).unwrap();
        for random in 0..100 {
            let again = passive.reserve(id(1), HOME, HOME, Some(first.0), now, random);
            assert_eq!(again, Some(first));
        }
        assert_eq!(passive.slots.len(), 1);
    }

    #[test]
    fn who_waits_for_the_same_slots_waits_in_line() {
        let mut passive = passive(1);
        let (here, there) = ((HOME, HOME), (HOME, "127.0.0.2".parse().unwrap()));
        for (pair, key) in [(here, 1), (there, 2), (here, 3)] {
            passive.wait(pair, id(key));
        }
        assert_eq!(passive.pairs().len(), 2);
        assert_eq!(passive.first_waiting(here), Some(id(1)));
        passive.forget_first(here);
        assert_eq!(passive.first_waiting(here), Some(id(3)));
        passive.forget_first(here);
        passive.forget_first(here);
        assert_eq!(passive.first_waiting(here), None);
        assert_eq!(passive.first_waiting(there), Some(id(2)));
        passive.forget_first(there);
        assert!(!passive.is_awaited());
    }

    #[test]
    fn slots_of_one_address_run_out_and_come_back() {
        let (mut passive, now) = (passive(2), Instant::now());
        let other: IpAddr = "127.0.0.2".parse().unwrap();
        for key in 0..2 {
            assert!(passive.reserve(id(key), HOME, HOME, None, now, 0).is_some());
        }
        assert_eq!(passive.reserve(id(2), HOME, HOME, None, now, 0), None);
        assert!(passive.reserve(id(3), HOME, other, None, now, 0).is_some());
        // Abandoned, then resting, then free.
        assert_eq!(
            passive.reserve(id(2), HOME, HOME, None, now + SECONDS(39), 0),
            None
        );
        assert!(
            passive
                .reserve(id(2), HOME, HOME, None, now + SECONDS(40), 0)
                .is_some()
        );
    }

    #[test]
    fn a_connection_finds_its_owner_once() {
        let (mut passive, now) = (passive(1), Instant::now());
        let (place, _) = passive.reserve(id(1), HOME, HOME, None, now, 0).unwrap();
        assert_eq!(passive.claim(place, "127.0.0.2".parse().unwrap()), None);
        assert_eq!(passive.claim(place, HOME), Some(id(1)));
        assert_eq!(passive.claim(place, HOME), None);
        assert!(passive.reserve(id(2), HOME, HOME, None, now, 0).is_some());
    }

    #[test]
    fn a_slot_that_is_waited_at_is_nobody_elses() {
        let (mut passive, now) = (passive(1), Instant::now());
        let (place, _) = passive.reserve(id(1), HOME, HOME, None, now, 0).unwrap();
        let late = now + SECONDS(29);
        assert!(passive.renew(id(1), place, HOME, late + SECONDS(30)));
        assert_eq!(
            passive.reserve(id(2), HOME, HOME, None, now + SECONDS(45), 0),
            None
        );
        assert!(
            passive
                .reserve(id(2), HOME, HOME, None, now + SECONDS(69), 0)
                .is_some()
        );
        assert!(
            !passive.renew(id(1), place, HOME, now + SECONDS(100)),
            "it is another's"
        );
    }

    #[test]
    fn an_abandoned_slot_rests() {
        let (mut passive, now) = (passive(1), Instant::now());
        let (place, _) = passive.reserve(id(1), HOME, HOME, None, now, 0).unwrap();
        passive.abandon(id(1), place, HOME, now);
        assert_eq!(
            passive.reserve(id(2), HOME, HOME, None, now + SECONDS(9), 0),
            None
        );
        assert!(
            passive
                .reserve(id(2), HOME, HOME, None, now + SECONDS(10), 0)
                .is_some()
        );
    }

    #[test]
    fn slots_of_many_addresses_do_not_pile_up() {
        let (mut passive, now) = (passive(1), Instant::now());
        for n in 0..100_000u32 {
            let client = IpAddr::from(std::net::Ipv4Addr::from(n));
            let at = now + Duration::from_millis(u64::from(n) * 100);
            assert!(passive.reserve(id(1), HOME, client, None, at, 0).is_some());
        }
        assert!(passive.slots.len() < 2048, "{}", passive.slots.len());
    }
}
