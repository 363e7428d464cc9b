//! Uploads on their way to the disk: publishing them when they are whole, and writing large ones back
//! while they are still coming in.

use std::mem;
use std::time::{Duration, Instant};

use super::Conn;
use super::moving::{Moving, dispose_of};
use crate::config::Durability;
use crate::server::Shared;
use crate::server::commits::{Answer, Lane};
use crate::session::{Input, Outcome};
use crate::storage::staging::{Publish, Upload};

/// An upload is written back in pieces of this size, so that its end finds little left to be written.
const WRITE_BACK_BYTES: u64 = 8 << 20;
/// The same where the disk is behind.
const WRITE_BACK_BEHIND_BYTES: u64 = 256 << 10;

/// What may wait of an upload on a slow disk, and until it is known how fast it is: everybody's small
/// uploads wait for it too, since file systems write them in one order.
const UNWRITTEN_SLOW_BYTES: u64 = 16 << 20;
/// A disk is slow that takes longer for a piece.
const SLOW: Duration = Duration::from_millis(250);

/// How far an upload has come to the disk before it is whole.
#[derive(Debug, Default)]
pub(super) struct Written {
    bytes: u64,
    is_fast: bool,
    ordered: Option<Ordered>,
    /// Nothing more is received before what was ordered is done.
    pub(super) is_awaited: bool,
}

/// What is being written.
#[derive(Debug)]
struct Ordered {
    number: u64,
    /// How far it will be then.
    until: u64,
    at: Instant,
}

impl Written {
    fn waiting(&self, moved: u64) -> u64 {
        moved - self.bytes
    }

    /// Order `number` was carried out. False: it was one of the upload before this one.
    fn hear(&mut self, number: u64, now: Instant) -> bool {
        let Some(ordered) = self.ordered.take_if(|it| it.number == number) else {
            return false;
        };
        self.bytes = ordered.until;
        self.is_fast = now.saturating_duration_since(ordered.at) < SLOW;
        true
    }
}

impl Moving {
    /// So much waits to be written that no more should come.
    pub(super) fn waits_for_disk(&self, shared: &Shared) -> bool {
        let max = shared.world.config.limits.unwritten_bytes_max;
        let max = match self.written.is_fast {
            true => max,
            false => max.min(UNWRITTEN_SLOW_BYTES),
        };
        let is_much = || self.written.waiting(self.pump.moved()) >= max;
        self.written.ordered.is_some() && (shared.is_disk_behind() || is_much())
    }
}

impl Conn {
    /// Has a whole upload published. Where nothing is promised, that is done at once: it takes less
    /// than asking somebody else to.
    pub(super) fn commit(
        &mut self,
        mut upload: Box<Upload>,
        how: &Publish,
        shared: &mut Shared,
    ) -> Option<Input> {
        if shared.world.config.durability == Durability::None {
            let replaced = upload.keep_replaced_if_large();
            let result = upload.publish(how);
            dispose_of(replaced, shared);
            return Some(Input::Committed(result));
        }
        self.withdrawal = upload.withdrawal();
        if self.committing == 0 {
            self.lane = Lane::of(&upload);
        }
        // Should it be withdrawn, whoever wants to continue it waits until what is kept can be found.
        let keeping = self.withdrawal.as_ref().and(upload.keeping());
        if let Some(keeping) = &keeping
            && !shared.uploads.keep(keeping, self.id)
        {
            upload.forget_partial();
        }
        let (commits, lane) = (&mut shared.commits, self.lane);
        let Err(error) = commits.commit(self.id, keeping.clone(), lane, upload, *how) else {
            self.committing += 1;
            return None;
        };
        if let Some(keeping) = keeping {
            shared.uploads.gone(&keeping);
        }
        // Answers come in order, and those before this one will not come any more.
        self.dead |= self.committing > 0;
        (!self.dead).then_some(Input::Committed(Err(error)))
    }

    /// The client is gone without QUIT, so the upload was not whole, whatever it looked like.
    pub(in crate::server) fn withdraw(&mut self) {
        if let Some(withdrawal) = self.withdrawal.take() {
            withdrawal.withdraw();
        }
    }

    /// Has what came of an upload so far written back, if it is enough to be worth it.
    pub(super) fn write_back(&mut self, moving: &mut Moving, shared: &mut Shared) {
        let Some(upload) = moving.pump.receive().map(|it| &it.upload) else {
            return;
        };
        let moved = moving.pump.moved();
        let written = &mut moving.written;
        let enough = match shared.is_disk_behind() {
            true => WRITE_BACK_BEHIND_BYTES,
            false => WRITE_BACK_BYTES,
        };
        if written.ordered.is_some() || written.waiting(moved) < enough {
            return;
        }
        // Where nothing is promised it is left to the system, as long as that has little to write.
        let is_promised = shared.world.config.durability != Durability::None;
        if !is_promised && !shared.dirty.is_much(shared.now) {
            return;
        }
        let Some(part) = upload.write_back() else {
            return;
        };
        self.write_backs += 1;
        let number = self.write_backs;
        if shared.commits.write_back(self.id, number, part).is_ok() {
            written.ordered = Some(Ordered {
                number,
                until: moved,
                at: shared.now,
            });
        }
    }

    /// Something of what this connection ordered is done.
    pub(in crate::server) fn hear(&mut self, answer: Answer, shared: &mut Shared) {
        match answer {
            Answer::Committed { committed, .. } => {
                self.committing -= 1;
                self.withdrawal = None;
                dispose_of(committed.replaced, shared);
                self.tell(Input::Committed(committed.result), shared);
            }
            Answer::WrittenBack { number, result } => {
                let Some(moving) = &mut self.moving else {
                    return;
                };
                if !moving.written.hear(number, shared.now) {
                    return;
                }
                // Until now its client could not be heard, so it was not silent.
                if mem::take(&mut moving.written.is_awaited) {
                    moving.moved_at = shared.now;
                }
                if let Err(error) = result {
                    self.end_transfer(Outcome::Failed(error), shared);
                }
            }
        }
    }
}
