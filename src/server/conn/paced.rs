//! How fast the transfers of a connection may be: they stop when what may move for now has moved, and
//! go on when they are woken. What is not read meanwhile stays in the kernel, which slows the client
//! down.

use std::time::Instant;

use super::Conn;
use super::moving::Moving;
use crate::server::Shared;
use crate::server::pump::Step;

impl Conn {
    /// The rates that hold for a transfer that begins: they follow from who is logged in. What a
    /// session has moved counts for its next transfer too.
    pub(super) fn set_pace(&mut self, shared: &Shared) {
        let everyone = shared.world.config.limits.session_rate_bytes_per_s;
        let user = self.session.user();
        let session = user.and_then(|user| user.session_rate_bytes_per_s);
        let session = everyone.into_iter().chain(session).min();
        let user = user.and_then(|user| Some((user.name.clone(), user.rate_bytes_per_s?)));
        match &mut self.pace {
            Some(pace) if pace.is_for(session, user.as_ref()) => {}
            pace => *pace = shared.rates.pace(session, user).map(Box::new),
        }
    }

    /// Steps until the budget is used up, or the connection is not ready, or nothing more may move
    /// for now.
    pub(super) fn step_paced(
        &mut self,
        moving: &mut Moving,
        shared: &mut Shared,
        budget: &mut usize,
    ) -> Step {
        loop {
            // A handshake moves nothing, and its deadline does not wait.
            let handshaking = moving.tls.as_ref().is_some_and(|tls| tls.is_handshaking());
            let (mut allowed, paced) = match &mut self.pace {
                None => (usize::MAX, false),
                Some(_) if handshaking => (0, false),
                Some(pace) => match pace.allowed(&mut shared.rates, shared.now) {
                    Some(bytes) => (usize::try_from(bytes).unwrap_or(usize::MAX), true),
                    None => return Step::Limited,
                },
            };
            if paced {
                self.keep_waiting_no_more(shared.now);
            }
            let before = allowed;
            let step = self.step(moving, shared, budget, &mut allowed);
            if let Some(pace) = &mut self.pace
                && paced
            {
                pace.moved((before - allowed) as u64);
            }
            match step {
                Step::Limited => {}
                Step::More => return step,
                Step::Blocked | Step::Cold | Step::Done(_) => {
                    self.rest(shared);
                    return step;
                }
            }
        }
    }

    /// The time in which it was kept waiting does not count as time in which it moved too little.
    fn keep_waiting_no_more(&mut self, now: Instant) {
        let waited = self.pace.as_mut().and_then(|pace| pace.waited(now));
        if let (Some(stall), Some(waited)) = (&mut self.stall, waited) {
            stall.until += waited;
        }
    }

    /// It moves nothing for now: what it was allowed is for others.
    pub(super) fn rest(&mut self, shared: &mut Shared) {
        if let Some(pace) = &mut self.pace {
            pace.rest(&mut shared.rates);
        }
        self.keep_waiting_no_more(shared.now);
    }

    pub(super) fn is_kept_waiting(&self) -> bool {
        self.pace.as_ref().is_some_and(|pace| pace.waits())
    }

    /// When it wants to go on, if that is new.
    pub fn wake(&mut self) -> Option<Instant> {
        let grace = self.moving.as_mut().and_then(|moving| moving.grace.wake());
        grace.or_else(|| self.pace.as_mut().and_then(|pace| pace.wake()))
    }
}
