//! A transfer and its connection: how the connection comes about, when bytes move, how it ends.

use std::io;
use std::mem;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Token};

use super::committing::Written;
use super::grace::Grace;
use super::reading::Reading;
use super::{Conn, protected};
#[cfg(test)]
use crate::server::guarded::tests::{self as bugs, Bug};
use crate::server::pump::{self, Pump, Step, Wire};
use crate::server::tls::Tls;
use crate::server::{Id, Shared, Socket, listen};
use crate::session::{Ended, Input, Job, Outcome, Send, Task, Transfer, Via};
use crate::storage::partials::{Key, NAMED_FROM_BYTES};

/// Files up to this size are read into the output, so that a pipelined series leaves in few calls.
const SMALL_FILE_BYTES: u64 = 64 * 1024;

/// How often it is written down how much of a large upload has arrived: behind so many bytes, or so
/// much time.
const RECORD_BYTES: u64 = 256 << 20;
const RECORD_TIME: Duration = Duration::from_secs(10);

/// What is still taken from the kernel of an upload whose session has ended.
const LAST_BYTES: usize = 4 << 20;

/// A transfer and its connection.
#[derive(Debug)]
pub(super) struct Moving {
    pub(super) pump: Pump,
    pub(super) data: Data,
    /// The data connection is inside TLS.
    pub(super) tls: Option<Box<Tls>>,
    /// Until when the data connection must be there.
    pub(super) wait_until: Instant,
    pub(super) handshake_until: Option<Instant>,
    pub(super) written: Written,
    pub(super) reading: Reading,
    /// What is received, as others know it.
    pub(super) upload: Option<Key>,
    pub(super) moved_at: Instant,
    pub(super) grace: Grace,
    recorded: u64,
    record_at: Instant,
}

#[derive(Debug)]
pub(super) enum Data {
    Control,
    Awaited,
    Connecting(TcpStream),
    /// It was refused.
    Failed,
    Open {
        stream: TcpStream,
        ready: bool,
        registered: bool,
    },
}

/// A data connection whose transfer has not begun.
#[derive(Debug)]
pub(super) struct Early {
    pub(super) stream: TcpStream,
    /// Some clients say nothing more on the control connection until their hello is answered here.
    pub(super) tls: Option<Box<Tls>>,
    pub(super) ready: bool,
    pub(super) registered: bool,
}

impl Conn {
    /// An event of a data connection that is being made: it is there, or it failed, or neither yet.
    pub(super) fn finish_connecting(&mut self) {
        let Some(moving) = &mut self.moving else {
            return;
        };
        let (made, failed) = match &moving.data {
            Data::Connecting(stream) => match (stream.take_error(), stream.peer_addr()) {
                (Ok(None), Ok(_)) => (true, false),
                (Ok(None), Err(error)) => (false, error.kind() != io::ErrorKind::NotConnected),
                _ => (false, true),
            },
            _ => (false, false),
        };
        if failed {
            moving.data = Data::Failed;
        } else if made
            && let Data::Connecting(stream) = mem::replace(&mut moving.data, Data::Failed)
        {
            moving.data = Data::Open {
                stream,
                ready: true,
                registered: true,
            };
        }
    }

    /// A data connection came to this session's slot.
    pub(in crate::server) fn data_arrived(&mut self, stream: TcpStream, shared: &mut Shared) {
        match &mut self.moving {
            Some(moving) if matches!(moving.data, Data::Awaited) => {
                moving.data = Data::Open {
                    stream,
                    ready: true,
                    registered: false,
                };
            }
            _ if self.listens => {
                let tls = self.protect(self.session.protects_data());
                self.early = Some(Early {
                    stream,
                    tls: tls.unwrap_or_default(),
                    ready: true,
                    registered: false,
                });
                self.greet_early(shared);
            }
            // It came too late: its transfer is over.
            _ => {}
        }
    }

    /// Moves bytes of the transfer, if there is one that can move. True: something changed.
    pub(super) fn move_bytes(&mut self, shared: &mut Shared, budget: &mut usize) -> bool {
        let Some(mut moving) = self.moving.take() else {
            return false;
        };
        let before = *budget;
        moving.written.is_awaited = moving.waits_for_disk(shared);
        let step = match &moving.data {
            _ if moving.written.is_awaited || moving.reading.is_awaited => Step::Blocked,
            _ if moving.grace.is_due(shared.now, self.ended) => Step::Done(Outcome::Complete),
            _ if moving.grace.is_awaited() => Step::Blocked,
            Data::Failed => Step::Done(Outcome::NoConnection),
            Data::Awaited | Data::Connecting(_) => Step::Blocked,
            Data::Open { ready: false, .. } => Step::Blocked,
            Data::Open { .. } | Data::Control => self.step_paced(&mut moving, shared, budget),
        };
        let step = match step {
            Step::Cold => self.await_reading(&mut moving, shared),
            step => step,
        };
        self.read_ahead(&mut moving, shared);
        self.write_back(&mut moving, shared);
        if *budget != before {
            moving.moved_at = shared.now;
        }
        let may_be_killed = matches!(step, Step::Done(Outcome::Complete))
            && moving.ends_with_its_connection()
            && moving.grace.awaits(shared.now, self.ended);
        self.moving = Some(moving);
        match step {
            _ if may_be_killed => *budget != before,
            Step::More | Step::Blocked | Step::Cold | Step::Limited => {
                self.record_arrived(shared);
                *budget != before
            }
            Step::Done(outcome) => {
                self.end_transfer(outcome, shared);
                true
            }
        }
    }

    /// One step of a transfer whose connection is there.
    pub(super) fn step(
        &mut self,
        moving: &mut Moving,
        shared: &mut Shared,
        budget: &mut usize,
        allowed: &mut usize,
    ) -> Step {
        #[cfg(test)]
        assert!(!bugs::has(self, Bug::PanicsMoving), "asked for");
        match &mut moving.data {
            Data::Failed | Data::Awaited | Data::Connecting(_) => Step::Blocked,
            Data::Open {
                stream,
                ready,
                registered,
            } => {
                let mut wire = Wire {
                    socket: stream.as_fd(),
                    tls: moving.tls.as_deref_mut(),
                };
                let step = protected::step(&mut moving.pump, &mut wire, shared, budget, allowed);
                if let Some(until) = moving.handshake_until {
                    let limit = shared.world.config.limits.tls_handshake_timeout;
                    let handshaking = moving.tls.as_ref().is_some_and(|tls| tls.is_handshaking());
                    moving.handshake_until = handshaking.then(|| until.min(shared.now + limit));
                    if !handshaking {
                        protected::established(stream, &moving.pump, moving.tls.as_deref());
                    }
                }
                if matches!(step, Step::Blocked) {
                    *ready = false;
                    if !*registered {
                        *registered = true;
                        match register(shared, stream, self.id) {
                            Ok(()) => Step::Blocked,
                            Err(error) => Step::Done(Outcome::Failed(error)),
                        }
                    } else {
                        Step::Blocked
                    }
                } else {
                    step
                }
            }
            Data::Control if moving.pump.is_receiving() => {
                self.receive_in_band(&mut moving.pump, shared, budget, allowed)
            }
            Data::Control => self.send_in_band(&mut moving.pump, shared, budget, allowed),
        }
    }

    /// Gives a body what of it has been read already.
    pub(super) fn feed(
        &mut self,
        pump: &mut Pump,
        shared: &mut Shared,
        budget: &mut usize,
        allowed: &mut usize,
    ) -> Option<Outcome> {
        let unread = &self.unread[self.unread_at..];
        let unread = &unread[..unread.len().min(*allowed)];
        let (used, outcome) = pump.feed(unread, &mut shared.tools);
        self.unread_at += used;
        *budget = budget.saturating_sub(used);
        *allowed -= used;
        outcome
    }

    fn receive_in_band(
        &mut self,
        pump: &mut Pump,
        shared: &mut Shared,
        budget: &mut usize,
        allowed: &mut usize,
    ) -> Step {
        if self.tls.is_some() {
            return self.receive_decrypted(pump, shared, budget, allowed);
        }
        if let Some(outcome) = self.feed(pump, shared, budget, allowed) {
            return Step::Done(outcome);
        }
        if *allowed == 0 {
            return Step::Limited;
        }
        // The end may have been read already, behind a part of the body.
        if self.ended {
            return Step::Done(Outcome::Broken);
        }
        if !self.readable {
            return Step::Blocked;
        }
        let mut wire = Wire {
            socket: self.control.as_fd(),
            tls: None,
        };
        let step = pump.step(&mut wire, &mut shared.tools, budget, allowed);
        if matches!(step, Step::Blocked) {
            self.readable = false;
        }
        step
    }

    fn send_in_band(
        &mut self,
        pump: &mut Pump,
        shared: &mut Shared,
        budget: &mut usize,
        allowed: &mut usize,
    ) -> Step {
        self.flush_with(true, shared);
        if self.dead || !self.is_flushed() || !self.writable {
            return Step::Blocked;
        }
        let mut wire = Wire {
            socket: self.control.as_fd(),
            tls: self.tls.as_deref_mut(),
        };
        let step = pump.step(&mut wire, &mut shared.tools, budget, allowed);
        if matches!(step, Step::Blocked) {
            self.writable = false;
        }
        step
    }

    pub(super) fn end_transfer(&mut self, mut outcome: Outcome, shared: &mut Shared) {
        let Some(moving) = self.moving.take() else {
            return;
        };
        self.rest(shared);
        let moved = moving.moved();
        let Moving {
            pump,
            data,
            tls,
            upload,
            ..
        } = *moving;
        let complete = matches!(outcome, Outcome::Complete);
        match data {
            Data::Open { stream, .. } if complete && !pump.is_receiving() => {
                match stream.shutdown(Shutdown::Write) {
                    Ok(()) => shared.lingering.add(stream, shared.now),
                    // It was reset: what was sent last did not arrive.
                    Err(_) => outcome = Outcome::Broken,
                }
            }
            // Whether the client is still there decides whether a plain upload is whole, and its
            // control connection may have ended before the event of that came.
            Data::Open { stream, .. } if complete => {
                // The client may wait for our end, but it has no say any more.
                if tls.is_some() && stream.shutdown(Shutdown::Write).is_ok() {
                    shared.lingering.add(stream, shared.now);
                }
                self.hear_out(shared);
                if self.dead {
                    self.break_off(pump.into_job(), shared);
                    return self.leave(upload, shared);
                }
                // Who aborts closes its data connection too, and that looks like the end of the file.
                if self.session.is_aborting() {
                    outcome = Outcome::Cut;
                }
            }
            _ => {}
        }
        self.flushed += moved;
        self.left = upload.map(Box::new);
        let bytes = pump.moved();
        self.tell(
            Input::TransferEnded(Ended {
                job: pump.into_job(),
                outcome,
                bytes,
            }),
            shared,
        );
    }

    /// Ends a transfer that nobody asks about any more.
    pub(super) fn drop_transfer(&mut self, shared: &mut Shared) {
        if let Some(mut moving) = self.moving.take() {
            // What has arrived need not be sent again.
            if matches!(moving.data, Data::Open { .. }) && moving.pump.is_receiving() {
                let (mut budget, mut allowed) = (LAST_BYTES, LAST_BYTES);
                self.step(&mut moving, shared, &mut budget, &mut allowed);
            }
            self.rest(shared);
            // What has moved stays moved: whether replies are read is judged by the difference.
            self.flushed += moving.moved();
            self.break_off(moving.pump.into_job(), shared);
            self.leave(moving.upload, shared);
        }
    }

    /// Nobody is left to be told about a job: what arrived of an upload is kept.
    fn break_off(&self, job: Job, shared: &mut Shared) {
        if let Some(task) = job.break_off() {
            self.order_unattended(task, shared);
        }
    }

    fn leave(&self, upload: Option<Key>, shared: &mut Shared) {
        if let Some(key) = upload {
            shared.uploads.end(key, self.id);
        }
    }

    /// Has something done whose outcome is not told to the session.
    pub(super) fn order_unattended(&self, mut task: Task, shared: &mut Shared) {
        if let Task::Keep { upload, .. } = &mut task
            && let Some(keeping) = upload.keeping()
            && !shared.uploads.keep(&keeping, self.id)
        {
            upload.forget_partial();
        }
        shared.background.order_unattended(task);
    }

    /// Has written down from time to time how much of a large upload has arrived.
    pub(super) fn record_arrived(&mut self, shared: &Shared) {
        if let Some(moving) = &mut self.moving
            && let Some(receive) = moving.pump.receive_mut()
            && receive.at >= NAMED_FROM_BYTES
            && (receive.at - moving.recorded >= RECORD_BYTES || moving.record_at <= shared.now)
        {
            moving.record_at = shared.now + RECORD_TIME;
            if let Some(record) = receive.upload.record(receive.at) {
                moving.recorded = receive.at;
                shared.background.order_unattended(Task::Record(record));
            }
        }
    }

    /// The address that the client is told to connect to.
    pub(super) fn reserve(&mut self, shared: &mut Shared) -> Option<SocketAddr> {
        let random = shared.random.next();
        let client = self.session.peer().ip();
        let (place, port) = shared
            .passive
            .reserve(self.id, self.bind, client, self.slot, shared.now, random)?;
        self.slot = Some(place);
        let told = match shared.world.config.passive_address {
            Some(address) => address,
            None if self.bind.is_unspecified() => self.control.local_addr().ok()?.ip(),
            None => self.bind,
        };
        Some((told.to_canonical(), port).into())
    }

    pub(super) fn begin(&mut self, transfer: Transfer, shared: &mut Shared) -> Option<Input> {
        let Transfer { job, via, protect } = transfer;
        self.set_pace(shared);
        let protection = match (&via, &self.early) {
            (Via::Passive, Some(_)) => self.protect_early(protect),
            (Via::Passive | Via::Active(_), _) => self.protect(protect),
            (Via::Control, _) => Ok(None),
        };
        let not_begun = |job, outcome| {
            Some(Input::TransferEnded(Ended {
                job,
                outcome,
                bytes: 0,
            }))
        };
        let mut tls = match protection {
            Ok(tls) => tls,
            Err(outcome) => return not_begun(job, outcome),
        };
        let data = match (via, job) {
            (Via::Control, Job::Send(send)) if self.is_small(&send, shared) => {
                match self.send_small(send, shared) {
                    Ok(ended) => return Some(ended),
                    Err(send) => (Data::Control, Job::Send(send)),
                }
            }
            (Via::Control, job) => (Data::Control, job),
            (Via::Passive, job) => match self.take_early() {
                Some(early) => (
                    Data::Open {
                        stream: early.stream,
                        ready: true,
                        registered: early.registered,
                    },
                    job,
                ),
                None if self.renew_slot(shared) => (Data::Awaited, job),
                None => (Data::Failed, job),
            },
            (Via::Active(address), job) => match self.connect(address, shared) {
                Ok(stream) => (Data::Connecting(stream), job),
                Err(error) => {
                    log::info!("cannot connect to {address}: {error}");
                    return not_begun(job, Outcome::NoConnection);
                }
            },
        };
        let wait_until = shared.now + shared.world.config.limits.data_wait;
        let upload = data.1.key();
        if let Some(key) = upload {
            shared.uploads.begin(key, self.id);
        }
        let pump = Pump::new(data.1);
        if let Some(tls) = &mut tls
            && pump.is_receiving()
        {
            tls.withhold_tickets();
        }
        self.moving = Some(Box::new(Moving {
            pump,
            data: data.0,
            // From the first byte on it is shorter.
            handshake_until: tls
                .is_some()
                .then(|| wait_until + shared.world.config.limits.tls_handshake_timeout),
            tls,
            wait_until,
            written: Written::default(),
            reading: Reading::default(),
            upload,
            moved_at: shared.now,
            grace: Grace::begin(shared.now),
            recorded: 0,
            record_at: shared.now,
        }));
        None
    }

    /// The client may connect for a while from now on, at the port it was told; unless it took so
    /// long that somebody else was told the same one.
    fn renew_slot(&self, shared: &mut Shared) -> bool {
        let until = shared.now + shared.world.config.limits.data_wait;
        let client = self.session.peer().ip();
        self.slot
            .is_some_and(|place| shared.passive.renew(self.id, place, client, until))
    }

    /// The connection that came before its transfer. From here on another one is for nothing.
    fn take_early(&mut self) -> Option<Early> {
        self.listens = false;
        self.early.take()
    }

    fn connect(&self, to: SocketAddr, shared: &Shared) -> io::Result<TcpStream> {
        let mut stream = listen::connect(self.control.local_addr()?.ip(), to)?;
        register(shared, &mut stream, self.id)?;
        Ok(stream)
    }

    fn is_small(&self, send: &Send, shared: &Shared) -> bool {
        let max = shared.output_bytes_max();
        let fits = send.bytes <= SMALL_FILE_BYTES.min(max as u64) && self.held() < max;
        fits && send.ascii.is_none() && self.pace.is_none()
    }

    /// Reads a small file into the output. It comes back if it is not in memory.
    fn send_small(&mut self, mut send: Send, shared: &mut Shared) -> Result<Input, Send> {
        let bytes = send.bytes;
        let outcome = match pump::read_small(&send, &mut shared.tools, &mut self.output) {
            Ok(true) => Outcome::Complete,
            Ok(false) => return Err(send),
            Err(error) => Outcome::Failed(error),
        };
        send.bytes = 0;
        Ok(Input::TransferEnded(Ended {
            job: Job::Send(send),
            outcome,
            bytes,
        }))
    }
}

impl Moving {
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.data, Data::Awaited | Data::Connecting(_))
    }

    /// When the next record is to be made, if more has arrived since the last.
    pub(super) fn record_due(&self) -> Option<Instant> {
        let at = self.pump.receive()?.at;
        (at >= NAMED_FROM_BYTES && at > self.recorded).then_some(self.record_at)
    }

    pub(super) fn moved(&self) -> u64 {
        self.pump.moved() + self.tls.as_ref().map_or(0, |tls| tls.left())
    }
}

/// Has a file closed where it stops nobody that its blocks are freed.
pub(in crate::server) fn dispose_of(kept: Option<OwnedFd>, shared: &Shared) {
    if let Some(file) = kept {
        shared.background.order_unattended(Task::Dispose(file));
    }
}

pub(super) fn register(shared: &Shared, stream: &mut TcpStream, id: Id) -> io::Result<()> {
    let token: Token = Socket::Data.token(id.key);
    shared
        .registry
        .register(stream, token, Interest::READABLE | Interest::WRITABLE)
}
