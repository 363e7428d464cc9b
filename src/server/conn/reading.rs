//! A transfer whose file is not in memory: it is read in elsewhere, and the transfer waits or, where
//! the reading is ahead of it, does not.

use super::Conn;
use super::moving::Moving;
use crate::server::Shared;
use crate::server::pump::Step;
use crate::server::reading::{Answer, Ticket};
use crate::session::{Outcome, Send};

/// Read in at a time: large enough for a disk, small enough that all transfers together keep little
/// memory from others.
const READ_IN_BYTES: u64 = 1 << 20;
/// When less than this is read in and not sent, the next part is ordered.
const AHEAD_BYTES: u64 = READ_IN_BYTES;

/// What is read in for one transfer.
#[derive(Debug, Default)]
pub(super) struct Reading {
    under_way: Option<Order>,
    /// Nothing can be sent before it is done.
    pub(super) is_awaited: bool,
    /// How far the file was read in, once a part of it was not in memory.
    until: u64,
}

#[derive(Debug)]
struct Order {
    number: u64,
    from: u64,
    until: u64,
    _ticket: Ticket,
}

impl Conn {
    /// What comes next is not in memory.
    pub(super) fn await_reading(&mut self, moving: &mut Moving, shared: &Shared) -> Step {
        let Some(send) = moving.pump.send() else {
            return Step::Blocked;
        };
        moving.reading.is_awaited = true;
        if moving.reading.under_way.is_none() {
            match self.order_reading(send, send.at, shared) {
                Ok(order) => moving.reading.under_way = Some(order),
                Err(error) => return Step::Done(Outcome::Failed(error)),
            }
        }
        Step::Blocked
    }

    /// Where one part of a file was not in memory the next will not be either: its reading goes ahead.
    pub(super) fn read_ahead(&mut self, moving: &mut Moving, shared: &Shared) {
        let reading = &mut moving.reading;
        if reading.until == 0 || reading.under_way.is_some() {
            return;
        }
        let Some(send) = moving.pump.send() else {
            return;
        };
        let from = reading.until.max(send.at);
        if from - send.at < AHEAD_BYTES && from < send.at + send.bytes {
            // Without it, it will be awaited.
            reading.under_way = self.order_reading(send, from, shared).ok();
        }
    }

    fn order_reading(&mut self, send: &Send, from: u64, shared: &Shared) -> std::io::Result<Order> {
        let bytes = READ_IN_BYTES.min(send.at + send.bytes - from);
        let file = send.file.try_clone()?;
        self.read_ins += 1;
        let number = self.read_ins;
        Ok(Order {
            number,
            from,
            until: from + bytes,
            _ticket: shared.readers.order(self.id, number, file, from, bytes),
        })
    }

    /// Something that this connection wanted in memory is there.
    pub(in crate::server) fn hear_reading(&mut self, answer: Answer, shared: &mut Shared) {
        let Some(moving) = &mut self.moving else {
            return;
        };
        let reading = &mut moving.reading;
        // That of the transfer before this one is of no interest any more.
        let Some(order) = reading.under_way.take_if(|it| it.number == answer.number) else {
            return;
        };
        let was_awaited = std::mem::take(&mut reading.is_awaited);
        match answer.result {
            Ok(()) => {
                reading.until = order.until;
                moving
                    .pump
                    .was_read_in(order.from..order.until, was_awaited);
            }
            Err(error) if was_awaited => self.end_transfer(Outcome::Failed(error), shared),
            // What comes before it can be sent, and then it will be awaited.
            Err(_) => reading.until = 0,
        }
    }
}
