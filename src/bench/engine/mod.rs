//! The loop: one thread, one mio poll, any number of sessions.
//!
//! A run opens its sessions, lets them work until the server is warm, measures, lets them finish
//! and says goodbye. Sockets are registered once, edge-triggered; work stops when a socket is not
//! ready (an event will come) or at its budget (then the session queues itself again).

mod stages;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use mio::{Events, Poll};

use crate::bench::alarm::Alarm;
use crate::bench::channel::Scratch;
use crate::bench::content::Content;
use crate::bench::dialogue::{Done, Failure, Manner};
use crate::bench::link::{Happening, Link, Surroundings};
use crate::bench::measure::{Clock, Measure, Phase};
use crate::bench::operation::{Kind, Operation};
use crate::bench::schedule::Schedule;
use crate::bench::tls::Trust;
use crate::bench::work::Work;

/// Connections that are being made at a time: fewer than any server's backlog.
const OPENING_MAX: usize = 64;
/// How often a session that cannot be opened is tried again, before a run has begun.
const TRIES: u32 = 3;
/// Before a lost session is opened again.
const RETRY_NS: u64 = 100_000_000;
/// How long operations that are under way may take when the time is over.
const DRAIN_NS: u64 = 10_000_000_000;
/// How long the server may take to close.
const CLOSING_NS: u64 = 3_000_000_000;
/// Time is looked at at least so often.
const TICK: Duration = Duration::from_millis(25);
const EVENTS_PER_TURN: usize = 1024;
/// So many operations that are refused, and none that is done, are enough to know.
const REFUSALS_MAX: u64 = 100;

/// What the sessions of all runs have in common.
#[derive(Debug)]
pub struct Ground {
    /// Where the server is.
    pub server: SocketAddr,
    /// TLS, if any.
    pub trust: Option<Trust>,
    /// What uploads consist of.
    pub content: Content,
    /// A session that says nothing for so long is stuck.
    pub timeout_ns: u64,
    /// Set by a signal.
    pub interrupted: Arc<AtomicBool>,
    /// Since the bench began.
    pub clock: Clock,
}

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Length {
    /// So many nanoseconds.
    Time(u64),
    /// So many operations.
    Operations(u64),
    /// Until there is nothing more to do.
    Work,
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Sessions.
    pub sessions: usize,
    /// Operations under way in each.
    pub in_flight: usize,
    /// Sessions connect as operations, not beforehand.
    pub logins_only: bool,
    /// Opening all sessions takes so long.
    pub ramp_ns: u64,
    /// Before measuring.
    pub warm_up_ns: u64,
    /// Measuring.
    pub length: Length,
    /// Operations begin at this rate instead of one behind the other.
    pub per_second: Option<f64>,
}

/// Moments at which somebody may want to look at the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// All sessions are open.
    Open,
    /// Measuring begins.
    Begin,
    /// It goes on, and so many sessions are open.
    Tick(usize),
    /// It ends.
    End,
}

/// What a run was, beside what was measured.
#[derive(Debug, Default)]
pub struct Ran {
    /// How long was measured, in nanoseconds.
    pub measured_ns: u64,
    /// How often an operation of an open loop began more than a millisecond late although a session
    /// was free: the generator's own fault.
    pub late: u64,
    /// Operations of an open loop for which no session was free when the run ended.
    pub waiting: u64,
    /// What TLS agreed on.
    pub agreed: Option<String>,
    /// What the server said first.
    pub greeting: String,
    /// What FEAT listed, where it was asked.
    pub features: crate::client::reply::Features,
    /// A signal ended it.
    pub was_interrupted: bool,
    /// Sessions that were open at the end.
    pub open: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Opening,
    Warming { until: u64 },
    Measuring { until: u64 },
    Draining { until: u64 },
    Closing { until: u64 },
    Over,
}

/// What the loop knows of a session.
struct Session {
    link: Link,
    /// A login that is under way, and when it should have begun.
    login: Option<u64>,
    tries: u32,
    retry_at: Option<u64>,
    is_queued: bool,
}

/// A run that is under way.
pub struct Engine<'a> {
    ground: &'a Ground,
    terms: Terms,
    work: &'a mut dyn Work,
    measure: &'a mut Measure,
    watch: &'a mut dyn FnMut(Moment, &Measure),
    poll: Poll,
    alarm: Option<Alarm>,
    scratch: Scratch,
    sessions: Vec<Session>,
    /// Sessions with something to do and no event to come.
    queue: VecDeque<usize>,
    /// Sessions to be opened again.
    retries: VecDeque<usize>,
    /// Open loop: a session for each operation that it could take, and when those were due that have
    /// no slot yet.
    free_slots: VecDeque<usize>,
    backlog: VecDeque<u64>,
    schedule: Option<Schedule>,
    stage: Stage,
    began: u64,
    next_to_open: usize,
    opening: usize,
    open: usize,
    /// Operations that were refused before the first that was done; `None`: there was one.
    refused: Option<u64>,
    work_is_over: bool,
    out: Vec<Happening>,
    /// With the session that it happened to.
    happened: Vec<(usize, Happening)>,
    ran: Ran,
}

impl<'a> Engine<'a> {
    /// Does it all.
    ///
    /// # Errors
    /// The sessions cannot be opened, or the system does not let us wait for them.
    pub fn run(
        ground: &'a Ground,
        manner: &Rc<Manner>,
        terms: Terms,
        work: &'a mut dyn Work,
        measure: &'a mut Measure,
        watch: &'a mut dyn FnMut(Moment, &Measure),
    ) -> Result<Ran, Failure> {
        let poll = Poll::new().map_err(|error| system(&error))?;
        let alarm = match terms.per_second {
            None => None,
            Some(_) => Some(Alarm::new(poll.registry()).map_err(|error| system(&error))?),
        };
        let session = |index: usize| Session {
            link: Link::new(index, Rc::clone(manner)),
            login: None,
            tries: 0,
            retry_at: None,
            is_queued: false,
        };
        let mut engine = Engine {
            ground,
            terms,
            work,
            measure,
            watch,
            poll,
            alarm,
            scratch: Scratch::default(),
            sessions: (0..terms.sessions).map(session).collect(),
            queue: VecDeque::new(),
            retries: VecDeque::new(),
            free_slots: VecDeque::new(),
            backlog: VecDeque::new(),
            schedule: None,
            stage: Stage::Opening,
            began: ground.clock.now(),
            next_to_open: 0,
            opening: 0,
            open: 0,
            refused: Some(0),
            work_is_over: false,
            out: Vec::new(),
            happened: Vec::new(),
            ran: Ran::default(),
        };
        engine.turns()?;
        Ok(engine.ran)
    }

    fn turns(&mut self) -> Result<(), Failure> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        let mut next_look = 0;
        while self.stage != Stage::Over {
            let now = self.ground.clock.now();
            if now >= next_look {
                next_look = now + TICK.as_nanos() as u64;
                self.look_around(now)?;
            }
            self.proceed(now)?;
            self.arrive(now);
            let wait = match self.queue.is_empty() {
                true => TICK,
                false => Duration::ZERO,
            };
            match self.poll.poll(&mut events, Some(wait)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(system(&error)),
            }
            for event in &events {
                let token = event.token();
                if token == Alarm::TOKEN {
                    continue;
                }
                let (index, is_data) = (token.0 / 2, token.0 % 2 == 1);
                let has_ended = event.is_read_closed() || event.is_error();
                if has_ended {
                    self.sessions[index].link.half_closed(is_data);
                }
                self.turn(index, !is_data && (event.is_readable() || has_ended));
            }
            for _ in 0..self.queue.len() {
                if let Some(index) = self.queue.pop_front() {
                    self.sessions[index].is_queued = false;
                    self.turn(index, true);
                }
            }
        }
        Ok(())
    }

    /// A turn of one session, and of all that follows from it.
    fn turn(&mut self, index: usize, reads_control: bool) {
        let more = self.with(index, |link, cx, out| link.turn(reads_control, cx, out));
        self.settle();
        if more {
            self.queue(index);
        }
    }

    fn with<T>(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut Link, &mut Surroundings, &mut Vec<Happening>) -> T,
    ) -> T {
        let mut cx = Surroundings {
            registry: self.poll.registry(),
            scratch: &mut self.scratch,
            content: &self.ground.content,
            clock: &self.ground.clock,
            server: self.ground.server,
            trust: self.ground.trust.as_ref(),
        };
        let result = act(&mut self.sessions[index].link, &mut cx, &mut self.out);
        let happened = self.out.drain(..).map(|happening| (index, happening));
        self.happened.extend(happened);
        self.measure.moved(self.sessions[index].link.take_moved());
        result
    }

    fn queue(&mut self, index: usize) {
        if !self.sessions[index].is_queued {
            self.sessions[index].is_queued = true;
            self.queue.push_back(index);
        }
    }

    /// Takes note of what has happened, and gives out new work, until nothing more happens.
    fn settle(&mut self) {
        while !self.happened.is_empty() {
            let mut happened = std::mem::take(&mut self.happened);
            let mut indexes: Vec<usize> = happened.iter().map(|(index, _)| *index).collect();
            indexes.dedup();
            for (index, happening) in happened.drain(..) {
                self.note(index, happening);
            }
            // Work is given out behind all of it: what is begun together is sent together.
            indexes.into_iter().for_each(|index| self.assign(index));
            if self.happened.is_empty() {
                self.happened = happened;
            }
        }
    }

    fn note(&mut self, index: usize, happening: Happening) {
        match happening {
            Happening::Connected(ns) => self.phase(Phase::Connect, ns),
            Happening::Secured(ns) => self.phase(Phase::Tls, ns),
            Happening::Ready { login, began } => {
                self.phase(Phase::Login, login);
                self.opened(index);
                let session = &mut self.sessions[index];
                if let Some(due) = session.login.take() {
                    self.done(
                        index,
                        Done {
                            kind: Kind::Login,
                            began: if self.schedule.is_some() { due } else { began },
                            first: None,
                            ended: self.ground.clock.now(),
                        },
                    );
                } else {
                    let slots = match self.terms.per_second {
                        Some(_) => self.terms.in_flight,
                        None => 0,
                    };
                    self.free_slots.extend(std::iter::repeat_n(index, slots));
                }
            }
            Happening::Done(done) => self.done(index, done),
            Happening::Refused(failure) => {
                self.measure.failed(failure);
                self.refused = self.refused.map(|refused| refused + 1);
                self.free_slot(index);
            }
            Happening::Left => {
                self.open = self.open.saturating_sub(1);
                if self.sessions[index].login.is_some() {
                    self.with(index, Link::connect);
                }
            }
            Happening::Lost(failure) => self.lost(index, failure),
        }
    }

    /// Connections are made before the measuring begins, or all the time: both count.
    fn phase(&mut self, phase: Phase, nanoseconds: u64) {
        if self.measure.is_on() || !self.terms.logins_only {
            self.measure.phase(phase, nanoseconds);
        }
    }

    fn opened(&mut self, index: usize) {
        self.open += 1;
        if self.sessions[index].login.is_none() {
            self.opening = self.opening.saturating_sub(1);
        }
        self.sessions[index].tries = 0;
        let link = &mut self.sessions[index].link;
        if self.ran.greeting.is_empty() {
            self.ran.greeting = link.dialogue.greeting.clone();
            self.ran.features = link.dialogue.features.clone();
            self.ran.agreed = link.agreed();
        }
    }

    fn done(&mut self, index: usize, done: Done) {
        self.refused = None;
        self.measure.done(&done);
        self.free_slot(index);
    }

    /// Open loop: a slot of the session is free again.
    fn free_slot(&mut self, index: usize) {
        if self.schedule.is_some() {
            self.free_slots.push_back(index);
        }
    }

    fn lost(&mut self, index: usize, failure: Failure) {
        if matches!(self.stage, Stage::Closing { .. } | Stage::Over) {
            return;
        }
        self.measure.failed(failure);
        self.free_slots.retain(|slot| *slot != index);
        let session = &mut self.sessions[index];
        session.tries += 1;
        session.login = None;
        session.retry_at = Some(self.ground.clock.now() + RETRY_NS);
        self.retries.push_back(index);
        let is_open = |session: &&Session| session.link.dialogue.is_open();
        self.open = self.sessions.iter().filter(is_open).count();
    }

    /// Gives a session what it can take.
    fn assign(&mut self, index: usize) {
        if !matches!(self.stage, Stage::Warming { .. } | Stage::Measuring { .. }) {
            return;
        }
        if self.terms.per_second.is_some() {
            return self.assign_backlog();
        }
        if self.work_is_over {
            return;
        }
        let most = self.terms.in_flight;
        let session = &self.sessions[index];
        let ready = match self.terms.logins_only {
            true => session.login.is_none() && session.retry_at.is_none(),
            false => session.link.dialogue.is_open() && session.login.is_none(),
        };
        // Refilled by halves, so that several commands share a packet.
        if !ready || session.link.dialogue.outstanding() > most / 2 {
            return;
        }
        let mut begun = false;
        while self.sessions[index].link.dialogue.outstanding() < most {
            let Some(operation) = self.work.next(index) else {
                self.work_is_over = self.terms.length == Length::Work;
                break;
            };
            begun = true;
            let now = self.ground.clock.now();
            if self.begin(index, operation, now) {
                return;
            }
        }
        if begun {
            self.send(index);
        }
    }

    /// True: nothing more can be begun in this session now.
    fn begin(&mut self, index: usize, operation: Operation, due: u64) -> bool {
        if operation != Operation::Login {
            self.sessions[index].link.dialogue.begin(operation, due);
            return false;
        }
        self.sessions[index].login = Some(due);
        match self.sessions[index].link.is_closed() {
            true => self.with(index, Link::connect),
            false => {
                self.sessions[index].link.leave();
                self.send(index);
            }
        }
        true
    }

    fn send(&mut self, index: usize) {
        if self.with(index, Link::send) {
            self.queue(index);
        }
    }

    /// Open loop: operations that are due get slots that are free.
    fn assign_backlog(&mut self) {
        while let (Some(&due), Some(&index)) = (self.backlog.front(), self.free_slots.front()) {
            let Some(operation) = self.work.next(index) else {
                return;
            };
            self.backlog.pop_front();
            self.free_slots.pop_front();
            self.begin(index, operation, due);
            self.send(index);
        }
    }

    fn arrive(&mut self, now: u64) {
        let Some(schedule) = &mut self.schedule else {
            return;
        };
        let mut arrived = false;
        while let Some(due) = schedule.arrive(now) {
            arrived = true;
            // Nobody waited for anything: this thread came too late.
            if now - due > 1_000_000 && self.backlog.is_empty() && !self.free_slots.is_empty() {
                self.ran.late += 1;
            }
            self.backlog.push_back(due);
        }
        if arrived {
            self.assign_backlog();
            self.settle();
        }
        if let (Some(alarm), Some(schedule)) = (&mut self.alarm, &self.schedule) {
            alarm.set(schedule.next().saturating_sub(self.ground.clock.now()));
        }
    }
}

fn system(error: &io::Error) -> Failure {
    Failure::new("the system", crate::text::plain(error))
}
