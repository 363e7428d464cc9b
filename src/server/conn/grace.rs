//! The time between the end of a plain upload's data and the notice that its client has been killed.
//!
//! A killed client's kernel ends its connections in order, the data connection first. What tells that
//! from a complete upload is the end of the control connection, which comes a moment later: most
//! often half a millisecond on one machine, and seldom more than five. So an upload that took long enough
//! for a kill to be likely waits for that moment; a short one does not, and whatever comes while it is
//! brought to the disk still counts (`storage::partials::Withdrawal`).

use std::time::{Duration, Instant};

use super::moving::{Data, Moving};

/// An upload waits no longer than this part of the time that it took,
const PART: u32 = 16;
/// nor than this;
const MOST: Duration = Duration::from_millis(10);
/// and for less than this, which is the precision of the reactor's timer, not at all.
const LEAST: Duration = Duration::from_millis(1);

/// The grace period: how long the notice may still come.
#[derive(Debug)]
pub(super) struct Grace {
    begun: Instant,
    until: Option<Instant>,
    wake: Option<Instant>,
}

impl Grace {
    /// Of a transfer that begins now.
    pub(super) fn begin(now: Instant) -> Grace {
        Grace {
            begun: now,
            until: None,
            wake: None,
        }
    }

    /// The data has ended; whether the notice is worth waiting for. `came`: it is there.
    pub(super) fn awaits(&mut self, now: Instant, came: bool) -> bool {
        let time = ((now - self.begun) / PART).min(MOST);
        if came || self.until.is_some() || time < LEAST {
            return false;
        }
        self.until = Some(now + time);
        self.wake = self.until;
        true
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.until.is_some()
    }

    /// There is nothing more to wait for.
    pub(super) fn is_due(&self, now: Instant, came: bool) -> bool {
        self.until.is_some_and(|until| came || until <= now)
    }

    /// When it is due, once.
    pub(super) fn wake(&mut self) -> Option<Instant> {
        self.wake.take()
    }
}

impl Moving {
    /// Whether nothing but the end of the data connection says that this is all.
    pub(super) fn ends_with_its_connection(&self) -> bool {
        self.tls.is_none() && matches!(self.data, Data::Open { .. }) && self.pump.is_receiving()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_took_long_waits_a_part_of_that_and_not_longer() {
        let begun = Instant::now();
        let ms = Duration::from_millis;
        for (took, waits) in [(0, 0), (15, 0), (32, 2), (160, 10), (60_000, 10)] {
            let mut grace = Grace::begin(begun);
            let now = begun + ms(took);
            assert_eq!(grace.awaits(now, false), waits > 0, "{took}");
            assert_eq!(grace.wake(), (waits > 0).then(|| now + ms(waits)), "{took}");
            assert_eq!(grace.wake(), None);
            assert!(waits == 0 || !grace.is_due(now, false));
            assert!(waits == 0 || grace.is_due(now, true));
            assert_eq!(grace.is_due(now + ms(waits), false), waits > 0, "{took}");
            assert!(!grace.awaits(now + ms(waits), false), "once");
        }
        assert!(
            !Grace::begin(begun).awaits(begun + ms(1000), true),
            "it came"
        );
    }
}
