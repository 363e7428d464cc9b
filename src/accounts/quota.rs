//! How much a home tree may hold: the arithmetic, without files.
//!
//! One [`Quota`] belongs to a home and is shared by all sessions that have it. Whatever is about to
//! grow the tree reserves first, and holds a [`Reservation`] until it is known what came of it:
//!
//! | what happens | calls |
//! |---|---|
//! | an upload of a known size begins | [`Quota::reserve`] new, instead of old |
//! | more arrives than was announced (STOR) | [`Quota::grow`] |
//! | it is about to be published, or kept as a partial | [`Quota::settle`], and only if that is `Ok` |
//! | it is thrown away | [`Quota::release`] |
//! | a file goes away | [`Quota::removed`] |
//! | something gets another name | [`Quota::moved`] |
//! | the tree is counted, all the while in use | [`Quota::counting`], then [`Quota::counted`] |
//!
//! What is reserved counts like what is there, so that uploads at the same time cannot pass the
//! limit together. A replacement needs room for new minus old: while it runs, old and new are both
//! on the disk, but the limit is about what the tree will hold.
//!
//! # Never over
//!
//! No call that returns `Ok` brings what is there and reserved from below the limit to above it.
//! What is larger than the limit already, because the limit was lowered or somebody put files there
//! by other means, can be made smaller but not larger.

use std::fmt;

/// Bytes and files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// Bytes.
    pub bytes: u64,
    /// Files and, since each costs the disk as much as a small file, directories.
    pub files: u64,
}

impl Amount {
    /// More than there can be: no limit.
    pub const MAX: Amount = Amount {
        bytes: u64::MAX,
        files: u64::MAX,
    };

    /// One file.
    pub fn file(bytes: u64) -> Amount {
        Amount { bytes, files: 1 }
    }

    /// `None`: there cannot be that much anywhere.
    fn plus(self, other: Amount) -> Option<Amount> {
        Some(Amount {
            bytes: self.bytes.checked_add(other.bytes)?,
            files: self.files.checked_add(other.files)?,
        })
    }

    fn minus(self, other: Amount) -> Amount {
        Amount {
            bytes: self.bytes.saturating_sub(other.bytes),
            files: self.files.saturating_sub(other.files),
        }
    }

    fn max(self, other: Amount) -> Amount {
        Amount {
            bytes: self.bytes.max(other.bytes),
            files: self.files.max(other.files),
        }
    }

    /// Whether going from `self` to `next` is no growth, or stays within `limit`: for each of the
    /// two for itself.
    fn may_become(self, next: Amount, limit: Amount) -> bool {
        (next.bytes <= self.bytes || next.bytes <= limit.bytes)
            && (next.files <= self.files || next.files <= limit.files)
    }
}

/// The tree would hold more than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the quota is used up")
    }
}

impl std::error::Error for Full {}

/// Room that is kept for one upload. It must come back by [`Quota::settle`] or
/// [`Quota::release`]: dropping it would keep the room for ever.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "it must be settled or released"]
pub struct Reservation {
    new: Amount,
    old: Amount,
}

impl Reservation {
    fn room(&self) -> Amount {
        self.new.minus(self.old)
    }

    /// What it was made for, and has grown to.
    pub fn new_amount(&self) -> Amount {
        self.new
    }
}

/// What happened since [`Quota::counting`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Since {
    added: Amount,
    changed: bool,
    moved: bool,
}

/// What one home tree may hold, and what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    limit: Amount,
    used: Amount,
    reserved: Amount,
    since: Since,
}

impl Quota {
    /// For a tree that has been counted: it holds `used`.
    pub fn new(limit: Amount, used: Amount) -> Quota {
        Quota {
            limit,
            used,
            reserved: Amount::default(),
            since: Since::default(),
        }
    }

    /// Keeps room for `new` in the place of `old`, which stays until the upload is settled.
    ///
    /// # Errors
    /// There is not that much.
    pub fn reserve(&mut self, new: Amount, old: Amount) -> Result<Reservation, Full> {
        self.make_room(Amount::default(), new.minus(old))?;
        Ok(Reservation { new, old })
    }

    /// Makes a reservation larger by `bytes`, or leaves it as it is.
    ///
    /// # Errors
    /// There is not that much.
    pub fn grow(&mut self, reservation: &mut Reservation, bytes: u64) -> Result<(), Full> {
        let new = reservation
            .new
            .plus(Amount { bytes, files: 0 })
            .ok_or(Full)?;
        self.make_room(reservation.room(), new.minus(reservation.old))?;
        reservation.new = new;
        Ok(())
    }

    /// The upload is done: `new` is going to be there, and `old` not any more. Both are what is
    /// really found now, which may differ from what was reserved: the old file may have been
    /// removed or replaced meanwhile. To be called before the file gets its name.
    ///
    /// # Errors
    /// It does not fit any more, and must not be published. The room is given back.
    pub fn settle(
        &mut self,
        reservation: Reservation,
        new: Amount,
        old: Amount,
    ) -> Result<(), Full> {
        let before = self.total();
        self.release(reservation);
        let used = self.used.minus(old).plus(new).ok_or(Full)?;
        let next = used.plus(self.reserved).ok_or(Full)?;
        if !before.may_become(next, self.limit) {
            return Err(Full);
        }
        self.used = used;
        self.since.added = self.since.added.plus(new).unwrap_or(Amount::MAX);
        self.since.changed = true;
        Ok(())
    }

    /// The upload came to nothing.
    pub fn release(&mut self, reservation: Reservation) {
        self.reserved = self.reserved.minus(reservation.room());
    }

    /// Something was removed.
    pub fn removed(&mut self, amount: Amount) {
        self.used = self.used.minus(amount);
        self.since.changed = true;
    }

    /// Something was renamed, perhaps out of the sight of a count that is going on.
    pub fn moved(&mut self) {
        self.since.moved = true;
        self.since.changed = true;
    }

    /// Another limit, from a reload.
    pub fn limit_to(&mut self, limit: Amount) {
        self.limit = limit;
    }

    /// A count of the tree begins.
    pub fn counting(&mut self) {
        self.since = Since::default();
    }

    /// The count is done. Returns whether it is exact. Where the tree was changed meanwhile, what
    /// was added may have been counted or not, what was removed too, and what was renamed may have
    /// been missed: then the tree is taken for larger rather than smaller than it is, until the
    /// next count.
    pub fn counted(&mut self, found: Amount) -> bool {
        let Since {
            added,
            changed,
            moved,
        } = self.since;
        let most = found.plus(added).unwrap_or(Amount::MAX);
        self.used = if moved { most.max(self.used) } else { most };
        !changed
    }

    /// What is there and what is reserved.
    pub fn total(&self) -> Amount {
        self.used.plus(self.reserved).unwrap_or(Amount::MAX)
    }

    /// What is still free, for ALLO, AVBL and the like.
    pub fn free(&self) -> Amount {
        self.limit.minus(self.total())
    }

    fn make_room(&mut self, given_back: Amount, wanted: Amount) -> Result<(), Full> {
        let reserved = self.reserved.minus(given_back).plus(wanted).ok_or(Full)?;
        let next = self.used.plus(reserved).ok_or(Full)?;
        if !self.total().may_become(next, self.limit) {
            return Err(Full);
        }
        self.reserved = reserved;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
