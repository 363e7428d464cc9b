//! Rates in simulated time: sessions that want to move as much as they may, woken when they ask for
//! it, late by up to some milliseconds.

use super::*;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const MS: Duration = Duration::from_millis(1);

struct Session {
    pace: Pace,
    wake: Instant,
    /// When how much moved.
    moved: Vec<(Instant, u64)>,
    /// The most that its peer takes in one millisecond.
    takes: u64,
}

struct World {
    rates: Rates,
    sessions: Vec<Session>,
    start: Instant,
    wakes: u64,
}

impl World {
    fn new(bytes_per_s: Option<u64>) -> World {
        World {
            rates: Rates::new(bytes_per_s),
            sessions: Vec::new(),
            start: Instant::now(),
            wakes: 0,
        }
    }

    fn add(&mut self, bytes_per_s: Option<u64>, user: Option<(&str, u64)>) -> &mut Session {
        let user = user.map(|(name, rate)| (name.parse().unwrap(), rate));
        self.sessions.push(Session {
            pace: self.rates.pace(bytes_per_s, user).expect("a limit"),
            wake: self.start,
            moved: Vec::new(),
            takes: u64::MAX,
        });
        self.sessions.last_mut().unwrap()
    }

    /// Everybody moves what is allowed, for so long; whoever is woken is woken `late`.
    fn run(&mut self, time: Duration, late: Duration) {
        let mut now = self.start;
        while now < self.start + time {
            for session in &mut self.sessions {
                if session.wake > now {
                    continue;
                }
                self.wakes += 1;
                let mut takes = session.takes;
                while let Some(allowed) = session.pace.allowed(&mut self.rates, now) {
                    let bytes = allowed.min(takes);
                    takes -= bytes;
                    session.pace.moved(bytes);
                    session.moved.push((now, bytes));
                    if takes == 0 {
                        session.pace.rest(&mut self.rates);
                        break;
                    }
                }
                session.wake = session.pace.wake().map_or(now + MS, |at| at + late);
            }
            now += MS;
        }
    }

    fn moved(&self, session: usize) -> u64 {
        self.sessions[session].moved.iter().map(|(_, n)| n).sum()
    }

    fn all_moved(&self) -> u64 {
        (0..self.sessions.len()).map(|n| self.moved(n)).sum()
    }

    /// The most and the least that moved in any tenth of a second, from the second one on.
    fn extremes(&self, time: Duration) -> (u64, u64) {
        let all = self.sessions.iter().flat_map(|session| &session.moved);
        let mut per_ms = vec![0; time.as_millis() as usize];
        for (at, bytes) in all {
            per_ms[(*at - self.start).as_millis() as usize] += bytes;
        }
        let windows = per_ms[100..].windows(100).map(|ms| ms.iter().sum::<u64>());
        (windows.clone().max().unwrap(), windows.min().unwrap())
    }
}

fn assert_exact(moved: u64, bytes_per_s: u64, time: Duration) {
    let expected = bytes_per_s as f64 * time.as_secs_f64();
    let error = (moved as f64 - expected) / expected;
    assert!(error.abs() < 0.05, "{moved} instead of {expected}: {error}");
}

const TEN_S: Duration = Duration::from_secs(10);

#[test]
fn a_session_is_within_five_percent_over_ten_seconds_and_smooth_over_a_tenth() {
    for rate in [100, 1000, 10 * KIB, 300 * KIB, MIB, 100 * MIB, 4096 * MIB] {
        for late in [Duration::ZERO, 3 * MS, 30 * MS] {
            let mut world = World::new(None);
            world.add(Some(rate), None);
            world.run(TEN_S, late);
            assert_exact(world.all_moved(), rate, TEN_S);
            let (most, least) = world.extremes(TEN_S);
            let share = rate / 10;
            assert!(most <= 2 * share, "{most} in a tenth of a second of {rate}");
            assert!(
                least >= share / 4,
                "{least} in a tenth of a second of {rate}"
            );
        }
    }
}

#[test]
fn nobody_is_woken_more_often_than_every_ten_milliseconds() {
    let mut world = World::new(None);
    world.add(Some(4096 * MIB), None);
    world.run(TEN_S, Duration::ZERO);
    assert!(world.wakes <= 1001, "{}", world.wakes);
}

#[test]
fn a_shared_rate_is_shared_evenly_whoever_came_first() {
    for (rate, sessions) in [(MIB, 2), (10 * MIB, 100), (50 * KIB, 7)] {
        let mut world = World::new(Some(rate));
        for _ in 0..sessions {
            world.add(None, None);
        }
        world.run(TEN_S, 2 * MS);
        assert_exact(world.all_moved(), rate, TEN_S);
        let shares = (0..sessions).map(|n| world.moved(n));
        let (least, most) = (shares.clone().min().unwrap(), shares.max().unwrap());
        let grant = (rate / GRANTS_PER_S).min(GRANT_BYTES_MAX);
        assert!(
            most - least <= 2 * grant,
            "{least} to {most}, grants of {grant}"
        );
    }
}

#[test]
fn what_one_cannot_use_the_others_get() {
    let mut world = World::new(Some(MIB));
    world.add(None, None).takes = 10;
    world.add(None, None);
    // 10 bytes in each millisecond, and the rest.
    world.run(TEN_S, Duration::ZERO);
    assert_exact(world.all_moved(), MIB, TEN_S);
    assert!(world.moved(0) < 200_000 && world.moved(1) > 9 * MIB);
}

#[test]
fn all_limits_hold_at_once() {
    let mut world = World::new(Some(900 * KIB));
    world.add(None, Some(("anna", 300 * KIB)));
    world.add(Some(50 * KIB), Some(("anna", 300 * KIB)));
    world.add(Some(100 * KIB), Some(("ben", 500 * KIB)));
    world.add(None, None);
    world.run(TEN_S, MS);
    let kib_per_s = |n: usize| world.moved(n) / KIB / 10;
    assert!((47..53).contains(&kib_per_s(1)), "{}", kib_per_s(1));
    assert!((95..105).contains(&kib_per_s(2)), "{}", kib_per_s(2));
    assert!((285..315).contains(&(kib_per_s(0) + kib_per_s(1))));
    assert_exact(world.all_moved(), 900 * KIB, TEN_S);
}

#[test]
fn who_was_idle_has_saved_up_a_twentieth_of_a_second_and_no_more() {
    let start = Instant::now();
    let mut rates = Rates::new(None);
    let mut pace = rates.pace(Some(1000), None).unwrap();
    let mut burst = |now| {
        let mut bytes = 0;
        while let Some(allowed) = pace.allowed(&mut rates, now) {
            bytes += allowed;
            pace.moved(allowed);
        }
        pace.rest(&mut rates);
        bytes
    };
    assert_eq!(burst(start), 50);
    assert_eq!(burst(start + Duration::from_secs(3600)), 100);
}

#[test]
fn what_is_left_of_a_grant_is_put_back() {
    let now = Instant::now();
    let mut rates = Rates::new(Some(1000));
    let mut paces = [
        rates.pace(None, None).unwrap(),
        rates.pace(None, None).unwrap(),
    ];
    for _ in 0..1000 {
        assert_eq!(paces[0].allowed(&mut rates, now), Some(50));
        paces[0].rest(&mut rates);
    }
    assert_eq!(paces[1].allowed(&mut rates, now), Some(50));
    paces[1].moved(20);
    paces[1].rest(&mut rates);
    assert_eq!(paces[0].allowed(&mut rates, now), None);
    assert!(paces[0].waits());
    assert_eq!(paces[0].wake(), Some(now + 20 * MS));
    assert_eq!(paces[0].wake(), None, "it is told once");
    assert_eq!(paces[0].waited(now + 30 * MS), Some(30 * MS));
}

#[test]
fn without_a_limit_there_is_nothing_to_ask() {
    assert!(Rates::new(None).pace(None, None).is_none());
    assert!(Rates::new(Some(1)).pace(None, None).is_some());
}

#[test]
fn a_user_of_whom_nothing_waits_is_forgotten() {
    let now = Instant::now();
    let mut rates = Rates::new(None);
    let user = || Some(("anna".parse().unwrap(), 1000));
    let mut pace = rates.pace(None, user()).unwrap();
    assert!(pace.allowed(&mut rates, now).is_some());
    rates.forget_idle(now);
    assert_eq!(rates.users.len(), 1);
    rates.forget_idle(now + Duration::from_secs(1));
    assert_eq!(rates.users.len(), 0);
}
