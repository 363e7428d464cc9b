//! Deadlines, lazily corrected: activity writes a field of its connection and touches nothing here.
//! An entry that expires is looked at by its owner and put back if its deadline has moved.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::Id;

/// Deadlines are seconds and minutes; rounded up to this, those of many sessions share a wake-up.
const TICK: Duration = Duration::from_millis(64);

/// When to look at which connection.
#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Instant, Id)>>,
    /// Those that no deadline is meant by: who waits for them goes on then, and not a tick later.
    wakes: BinaryHeap<Reverse<(Instant, Id)>>,
}

impl Timers {
    /// Have `id` looked at when `at` has come.
    pub fn schedule(&mut self, at: Instant, id: Id) {
        self.heap.push(Reverse((at, id)));
    }

    /// Have `id` go on at `at`.
    pub fn wake(&mut self, at: Instant, id: Id) {
        self.wakes.push(Reverse((at, id)));
    }

    /// When to look next: up to a tick after the first deadline.
    pub fn next(&self) -> Option<Instant> {
        let deadline = self.heap.peek().map(|Reverse((at, _))| *at + TICK);
        let wake = self.wakes.peek().map(|Reverse((at, _))| *at);
        deadline.into_iter().chain(wake).min()
    }

    /// Takes one that goes on now.
    pub fn woken(&mut self, now: Instant) -> Option<Id> {
        if self.wakes.peek().is_none_or(|Reverse((at, _))| *at > now) {
            return None;
        }
        self.wakes.pop().map(|Reverse((_, id))| id)
    }

    /// Takes one entry that has expired.
    pub fn pop(&mut self, now: Instant) -> Option<(Instant, Id)> {
        if self.heap.peek().is_none_or(|Reverse((at, _))| *at > now) {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn entries_come_in_order_and_not_early() {
        let start = Instant::now();
        let id = |key| Id { key, generation: 0 };
        let mut timers = Timers::default();
        for ms in [30, 10, 20] {
            timers.schedule(start + Duration::from_millis(ms), id(ms as usize));
        }
        assert_eq!(
            timers.next(),
            Some(start + Duration::from_millis(10) + TICK)
        );
        assert_eq!(timers.pop(start), None);
        let late = start + Duration::from_millis(25);
        let keys: Vec<_> = std::iter::from_fn(|| timers.pop(late))
            .map(|e| e.1.key)
            .collect();
        assert_eq!(keys, [10, 20]);
        assert_eq!(timers.pop(late), None);
    }

    #[test]
    fn who_is_to_be_woken_is_woken_in_time() {
        let start = Instant::now();
        let id = |key| Id { key, generation: 0 };
        let mut timers = Timers::default();
        timers.schedule(start, id(1));
        let at = start + TICK / 2;
        timers.wake(at, id(2));
        assert_eq!(timers.next(), Some(at));
        assert_eq!(timers.woken(start), None);
        assert_eq!(timers.woken(at), Some(id(2)));
        assert_eq!(timers.woken(at), None);
        assert_eq!(timers.next(), Some(start + TICK));
    }
}
