//! How a run goes on: sessions are opened, opened again and given up; opening becomes warming up,
//! measuring, finishing and closing.

use std::sync::atomic::Ordering;

use super::{
    CLOSING_NS, DRAIN_NS, Engine, Length, Moment, OPENING_MAX, REFUSALS_MAX, Session, Stage, TRIES,
};
use crate::bench::dialogue::Failure;
use crate::bench::link::Link;
use crate::bench::schedule::Schedule;

impl Engine<'_> {
    /// What only time brings: sessions to open, to open again, or to give up.
    pub(super) fn look_around(&mut self, now: u64) -> Result<(), Failure> {
        self.ran.was_interrupted |= self.ground.interrupted.load(Ordering::Relaxed);
        if self.ran.was_interrupted && !matches!(self.stage, Stage::Closing { .. }) {
            self.finish_measuring(now);
            self.close_sessions(now);
        }
        if self.stage == Stage::Opening {
            self.open_sessions(now);
        }
        while let Some(&index) = self.retries.front() {
            if self.sessions[index].retry_at.is_some_and(|at| at > now) {
                break;
            }
            self.retries.pop_front();
            self.sessions[index].retry_at = None;
            match self.stage {
                Stage::Opening if self.sessions[index].tries >= TRIES => {
                    return Err(self.cannot_open());
                }
                Stage::Opening => self.connect(index),
                Stage::Warming { .. } | Stage::Measuring { .. } if self.terms.logins_only => {
                    self.free_slot(index);
                    self.assign(index);
                    self.settle();
                }
                Stage::Warming { .. } | Stage::Measuring { .. } => self.connect(index),
                _ => {}
            }
        }
        for index in 0..self.sessions.len() {
            let link = &self.sessions[index].link;
            let waits =
                !link.is_closed() && (!link.dialogue.is_open() || link.dialogue.outstanding() > 0);
            if waits && now.saturating_sub(link.active) > self.ground.timeout_ns {
                let waited = link.dialogue.waits_for();
                let failure = Failure::new(
                    "time-out",
                    format!(
                        "nothing came for {} s while waiting for {waited}",
                        self.ground.timeout_ns / 1_000_000_000
                    ),
                );
                self.with(index, |link, _, out| link.lose(failure, out));
                self.settle();
            }
        }
        self.measure.tick(now);
        (self.watch)(Moment::Tick(self.open), self.measure);
        Ok(())
    }

    fn cannot_open(&self) -> Failure {
        let worst = self
            .measure
            .errors
            .iter()
            .max_by_key(|(_, errors)| errors.count);
        match worst {
            None => Failure::new("no session", "the sessions cannot be opened"),
            Some((class, errors)) => {
                let example = &errors.example;
                // The class of a failed system call is all there is to say.
                let why = match class.ends_with(example.as_str()) {
                    true => class.clone(),
                    false => format!("{class}: {example}"),
                };
                let text = match self.open {
                    0 => format!("no session can be opened: {why}"),
                    open => format!(
                        "{open} of {} sessions can be opened; the others: {why}",
                        self.sessions.len()
                    ),
                };
                Failure::new(class.clone(), text)
            }
        }
    }

    /// Nothing is to be measured where everything is refused, and a server is not to be bothered with it.
    fn check_refusals(&self) -> Result<(), Failure> {
        // Each session gets its try.
        let most = REFUSALS_MAX.max(2 * (self.terms.sessions * self.terms.in_flight) as u64);
        match self.refused {
            Some(refused) if refused >= most && self.terms.length != Length::Work => {
                let errors = self
                    .measure
                    .errors
                    .values()
                    .max_by_key(|errors| errors.count);
                let example = errors.map_or("nothing is known", |errors| &errors.example);
                let text = format!("all of {refused} operations were refused: {example}");
                Err(Failure::new("refused", text))
            }
            _ => Ok(()),
        }
    }

    fn open_sessions(&mut self, now: u64) {
        let all = self.sessions.len();
        if self.terms.logins_only {
            self.next_to_open = all;
            return;
        }
        let allowed = match self.terms.ramp_ns {
            0 => all,
            ramp => (all as u128 * u128::from(now - self.began) / u128::from(ramp)) as usize + 1,
        };
        while self.next_to_open < allowed.min(all) && self.opening < OPENING_MAX {
            let index = self.next_to_open;
            self.next_to_open += 1;
            self.opening += 1;
            self.connect(index);
        }
    }

    fn connect(&mut self, index: usize) {
        self.with(index, Link::connect);
        self.settle();
    }

    /// From one stage to the next.
    pub(super) fn proceed(&mut self, now: u64) -> Result<(), Failure> {
        self.check_refusals()?;
        match self.stage {
            Stage::Opening => {
                let all = self.sessions.len();
                if self.open < all && !self.terms.logins_only {
                    // As soon as there is room, not only when time is looked at.
                    if self.next_to_open < all && self.opening < OPENING_MAX / 2 {
                        self.open_sessions(now);
                    }
                    return Ok(());
                }
                (self.watch)(Moment::Open, self.measure);
                self.stage = Stage::Warming {
                    until: now + self.terms.warm_up_ns,
                };
                if let Some(per_second) = self.terms.per_second {
                    self.schedule = Some(Schedule::new(per_second, now));
                    if self.terms.logins_only {
                        self.free_slots = (0..all).collect();
                    }
                    return Ok(());
                }
                for index in 0..all {
                    self.assign(index);
                    self.settle();
                }
            }
            Stage::Warming { until } if now >= until => {
                (self.watch)(Moment::Begin, self.measure);
                let now = self.ground.clock.now();
                self.measure.begin(now);
                self.stage = Stage::Measuring {
                    until: match self.terms.length {
                        Length::Time(ns) => now + ns,
                        Length::Operations(_) | Length::Work => u64::MAX,
                    },
                };
            }
            Stage::Measuring { until } => {
                let is_over = match self.terms.length {
                    Length::Time(_) => now >= until,
                    Length::Operations(n) => {
                        self.measure.operations + self.measure.error_count() >= n
                    }
                    Length::Work => self.work_is_over && self.is_quiet(),
                };
                if is_over {
                    self.finish_measuring(now);
                    self.stage = Stage::Draining {
                        until: now + DRAIN_NS.min(self.ground.timeout_ns),
                    };
                }
            }
            Stage::Draining { until } if now >= until || self.is_quiet() => {
                self.close_sessions(now);
            }
            Stage::Closing { until } if now >= until || self.is_closed() => {
                self.stage = Stage::Over;
            }
            _ => {}
        }
        Ok(())
    }

    fn is_closed(&self) -> bool {
        self.sessions.iter().all(|session| session.link.is_closed())
    }

    fn is_quiet(&self) -> bool {
        let is_quiet =
            |session: &Session| session.login.is_none() && session.link.dialogue.outstanding() == 0;
        self.retries.is_empty() && self.sessions.iter().all(is_quiet)
    }

    fn finish_measuring(&mut self, now: u64) {
        if self.measure.is_on() {
            self.ran.measured_ns = self.measure.end(now);
            self.ran.waiting = self.backlog.len() as u64;
            self.ran.open = self.open;
            (self.watch)(Moment::End, self.measure);
        }
        self.schedule = None;
    }

    fn close_sessions(&mut self, now: u64) {
        self.stage = Stage::Closing {
            until: now + CLOSING_NS,
        };
        for index in 0..self.sessions.len() {
            let session = &mut self.sessions[index];
            session.login = None;
            // Whoever is in the middle of something is cut off: goodbye would come behind it.
            if session.link.dialogue.is_open() && session.link.dialogue.outstanding() == 0 {
                session.link.leave();
                self.with(index, Link::send);
            } else {
                session.link.close();
            }
            self.settle();
        }
    }
}
