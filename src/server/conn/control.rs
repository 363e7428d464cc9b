//! The control connection: commands in, replies out, and its end.

use std::mem;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use super::{Conn, INPUT_BYTES, OUTPUT_BYTES, protected};
use crate::proto::line::LINE_BYTES_MAX;
use crate::server::Shared;
use crate::server::buffers::CROWDED_BYTES;
use crate::server::pump;
use crate::session::Input;

/// What one command takes off the budget beside the bytes it moves.
const COMMAND_COST: usize = 512;
/// Commands stop after this, whatever is left of the budget: making a directory may take a thousand
/// times as long as NOOP, and nobody knows before.
const COMMANDS_TIME: Duration = Duration::from_micros(250);
/// A closed connection is read from for so long, and so much, so that the last reply is not lost to
/// the reset that unread input causes.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 * 1024;

/// The last reply has been given.
#[derive(Debug)]
pub(super) struct Closing {
    pub(super) until: Option<Instant>,
    pub(super) drained: usize,
}

impl Conn {
    /// Takes commands until there are no more, or a transfer begins. True: something changed.
    pub(super) fn take_commands(
        &mut self,
        shared: &mut Shared,
        budget: &mut usize,
        begin: Instant,
    ) -> bool {
        let mut changed = false;
        let output_max = shared.output_bytes_max();
        let held_max = output_max.min(shared.world.config.limits.replies_bytes_max);
        while !self.dead && self.closing.is_none() && *budget > 0 {
            if self.held() >= output_max || (self.held() >= held_max && !self.writable) {
                self.flush(shared);
                if self.held() >= held_max {
                    break;
                }
            }
            // What a line is answered with may depend on whether anything has arrived behind it.
            let last = self.unread.len() - self.unread_at <= LINE_BYTES_MAX;
            if last && self.readable && self.wants_input(shared) {
                changed |= self.read(shared, budget);
                if self.dead || self.closing.is_some() {
                    break;
                }
            }
            let world = shared.world.clone();
            let mut actions = shared.take_actions();
            let (unread, held) = (&self.unread[self.unread_at..], self.held());
            let used = self
                .session
                .receive(unread, &shared.context(&world), &mut actions);
            self.perform(actions, &world, shared);
            match used {
                Some(used) => {
                    self.unread_at += used;
                    let answered = self.held().saturating_sub(held);
                    *budget = budget.saturating_sub(COMMAND_COST + used + answered);
                    if begin.elapsed() >= COMMANDS_TIME {
                        *budget = 0;
                    }
                    changed = true;
                    if self.moving.is_some() {
                        break;
                    }
                }
                None => {
                    let full = self.unread.len() - self.unread_at >= INPUT_BYTES;
                    if !self.wants_input(shared) || !self.readable || full {
                        break;
                    }
                    if !self.read(shared, budget) {
                        break;
                    }
                    changed = true;
                }
            }
        }
        changed
    }

    fn wants_input(&self, shared: &Shared) -> bool {
        let holds_enough =
            shared.tools.held.is_crowded() && self.session.queued_bytes() >= CROWDED_BYTES;
        !holds_enough && self.session.wants_input(&shared.world.config)
    }

    /// Takes what the client said before the data connection of its upload ended; events may not have
    /// told of it yet.
    pub(super) fn hear_out(&mut self, shared: &mut Shared) {
        if self.unread.len() - self.unread_at < INPUT_BYTES {
            self.read(shared, &mut 0);
        }
        let world = shared.world.clone();
        let held_max = world.config.limits.replies_bytes_max;
        while !self.dead && !self.session.is_aborting() && self.held() < held_max {
            let mut actions = shared.take_actions();
            let unread = &self.unread[self.unread_at..];
            let used = self
                .session
                .receive(unread, &shared.context(&world), &mut actions);
            self.perform(actions, &world, shared);
            match used {
                Some(used) => self.unread_at += used,
                None => return,
            }
        }
    }

    /// Reads what the client sent; what that cost beside it is taken off the budget. False: there was
    /// nothing.
    pub(super) fn read(&mut self, shared: &mut Shared, budget: &mut usize) -> bool {
        if self.ended {
            return false;
        }
        let wanted = match shared.tools.held.is_crowded() {
            true => self.unread.len() - self.unread_at + CROWDED_BYTES,
            false => INPUT_BYTES,
        };
        if self.unread.capacity() < wanted {
            let larger = match shared.tools.held.is_crowded() {
                true => Vec::with_capacity(wanted),
                false => shared.inputs.take(),
            };
            let small = mem::replace(&mut self.unread, larger);
            self.unread.extend_from_slice(&small[self.unread_at..]);
            self.unread_at = 0;
        } else if self.unread_at > 0 {
            self.unread.drain(..self.unread_at);
            self.unread_at = 0;
        }
        if self.tls.is_some() {
            return self.read_decrypted(shared, budget);
        }
        let room = self.unread.capacity() - self.unread.len();
        match rustix::io::read(&self.control, spare_capacity(&mut self.unread)) {
            Ok(0) => {
                self.readable = false;
                self.control_ended(shared);
                true
            }
            // A short read has emptied the socket: what comes later is announced by an event.
            Ok(n) => {
                self.readable = n == room || self.reads_to_the_end;
                true
            }
            Err(Errno::AGAIN) => {
                self.readable = false;
                false
            }
            Err(Errno::INTR) => true,
            Err(_) => {
                self.dead = true;
                false
            }
        }
    }

    /// Who says QUIT, or anything else that has not been looked at, has not been killed.
    pub(super) fn control_ended(&mut self, shared: &mut Shared) {
        self.ended = true;
        if self.unread.len() == self.unread_at {
            self.withdraw();
        }
        self.tell(Input::ControlEnded, shared);
    }

    pub(super) fn held(&self) -> usize {
        self.output.len() - self.output_at
    }

    pub(super) fn flush(&mut self, shared: &mut Shared) {
        self.flush_with(false, shared);
    }

    pub(super) fn flush_with(&mut self, more: bool, shared: &mut Shared) {
        if self.is_flushed() || !self.writable || self.dead {
            return;
        }
        if self.tls.is_some() {
            return self.flush_encrypted(shared);
        }
        let before = self.output_at;
        match pump::flush(&self.control, &self.output, &mut self.output_at, more) {
            Ok(true) => {
                self.flushed += (self.output_at - before) as u64;
                self.output_at = 0;
                self.output.clear();
                shared.outputs.give(mem::take(&mut self.output));
            }
            Ok(false) => {
                self.flushed += (self.output_at - before) as u64;
                self.writable = false;
            }
            Err(_) => self.dead = true,
        }
    }

    /// Gives large buffers back; what is left in them is kept in just the space it needs.
    pub(super) fn settle(&mut self, shared: &mut Shared) {
        if self.unread_at == self.unread.len() {
            self.unread.clear();
            self.unread_at = 0;
            shared.inputs.give(mem::take(&mut self.unread));
        } else if self.unread.capacity() >= INPUT_BYTES {
            let rest = self.unread[self.unread_at..].to_vec();
            self.unread_at = 0;
            shared.inputs.give(mem::replace(&mut self.unread, rest));
        }
        let is_wasteful = match shared.tools.held.is_crowded() {
            true => self.output.capacity() > self.held() + CROWDED_BYTES,
            false => self.output.capacity() > OUTPUT_BYTES && self.held() < OUTPUT_BYTES / 2,
        };
        if is_wasteful {
            let rest = self.output[self.output_at..].to_vec();
            self.output_at = 0;
            shared.outputs.give(mem::replace(&mut self.output, rest));
        }
        self.count_held(shared);
    }

    fn count_held(&mut self, shared: &mut Shared) {
        let moving = self.moving.as_ref();
        let holds = self.unread.capacity()
            + self.output.capacity()
            + self.session.queued_bytes()
            + moving.map_or(0, |moving| moving.pump.held_bytes());
        shared.tools.held.change(self.holds, holds);
        self.holds = holds;
    }

    /// Others need its place: it gets a last reply, and [`Conn::let_go`] does the rest.
    pub(in crate::server) fn displace(&mut self, shared: &mut Shared) {
        self.tell(Input::Displaced, shared);
        self.flush(shared);
        if self.is_flushed() {
            protected::say_goodbye(&mut self.tls, &self.control, shared);
        }
        self.displaced = true;
        self.dead = true;
    }

    /// The end of a connection whose key is free. A last reply that was just sent is not to be lost.
    pub(in crate::server) fn let_go(mut self, shared: &mut Shared) {
        shared.tools.held.change(self.holds, 0);
        if self.displaced
            && shared.registry.deregister(&mut self.control).is_ok()
            && self.control.shutdown(Shutdown::Write).is_ok()
        {
            shared.lingering.add(self.control, shared.now);
        }
    }

    /// After the last reply: no more output, and what still comes in is thrown away for a while.
    pub(super) fn linger(&mut self, shared: &mut Shared) {
        let Some(closing) = &mut self.closing else {
            return;
        };
        if self.dead || !self.output.is_empty() {
            return;
        }
        if closing.until.is_none() && !protected::say_goodbye(&mut self.tls, &self.control, shared)
        {
            self.writable = false;
            return;
        }
        if closing.until.is_none() {
            closing.until = Some(shared.now + LINGER);
            if self.control.shutdown(Shutdown::Write).is_err() {
                self.dead = true;
            }
        }
        self.dead |= self.ended;
        while self.readable && !self.dead {
            match rustix::io::read(&self.control, &mut shared.tools.chunk[..]) {
                Ok(0) => self.dead = true,
                Ok(n) => closing.drained += n,
                Err(Errno::AGAIN) => self.readable = false,
                Err(Errno::INTR) => {}
                Err(_) => self.dead = true,
            }
            self.dead |= closing.drained > LINGER_BYTES;
        }
    }
}
