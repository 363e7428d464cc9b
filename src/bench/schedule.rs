//! When operations begin that do not wait for each other: at a rate, come what may.
//!
//! The schedule goes on while the server is slow, and the latency of an operation counts from the
//! moment at which it should have begun. A generator that waits for a slow server before it asks
//! again leaves out just the waiting that clients would have seen (coordinated omission).

/// Arrivals at equal distances.
#[derive(Debug)]
pub struct Schedule {
    began: u64,
    per_second: f64,
    arrived: u64,
}

impl Schedule {
    /// From `now` on.
    pub fn new(per_second: f64, now: u64) -> Schedule {
        Schedule {
            began: now,
            per_second,
            arrived: 0,
        }
    }

    /// When the next one is due. Computed from the beginning, so that no error adds up.
    pub fn next(&self) -> u64 {
        self.began + (self.arrived as f64 * 1e9 / self.per_second) as u64
    }

    /// The next one if it is due by `now`, with the time when it was.
    pub fn arrive(&mut self, now: u64) -> Option<u64> {
        let due = self.next();
        (due <= now).then(|| {
            self.arrived += 1;
            due
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(schedule: &mut Schedule, now: u64) -> Vec<u64> {
        std::iter::from_fn(|| schedule.arrive(now)).collect()
    }

    #[test]
    fn arrivals_keep_their_times_however_late_they_are_asked_for() {
        let mut schedule = Schedule::new(1000.0, 5);
        assert!(arrivals(&mut schedule, 4).is_empty());
        assert_eq!(arrivals(&mut schedule, 5), [5]);
        // A second of silence: all of it is made up, at the times that were missed.
        let late = arrivals(&mut schedule, 1_000_000_004);
        assert_eq!(late.len(), 999);
        assert_eq!((late[0], late[998]), (1_000_005, 999_000_005));
        assert_eq!(schedule.next(), 1_000_000_005);
    }

    #[test]
    fn a_rate_that_divides_nothing_is_kept_in_the_long_run() {
        let mut schedule = Schedule::new(3.0, 0);
        let count = arrivals(&mut schedule, 10_000_000_000).len();
        assert_eq!(count, 31, "one at each end");
    }
}
