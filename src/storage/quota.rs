//! How much a home tree may hold: the arithmetic, without files.
//!
//! One [`Quota`] belongs to a home and is shared by all sessions that have it. Whatever is about to
//! grow the tree reserves first, and holds a [`Reservation`] until it is known what came of it:
//!
//! | what happens | calls |
//! |---|---|
//! | an upload of a known size begins | [`Quota::reserve`] new, instead of old |
//! | more arrives than was announced (STOR) | [`Quota::grow`] |
//! | it is about to be published, or kept as a partial | [`Quota::restate`], and only if that is `Ok` |
//! | that has been done | [`Quota::settle`] |
//! | a part of what it replaces goes before it is there | [`Quota::gave_way`] |
//! | it is thrown away | [`Quota::release`] |
//! | a file goes away | [`Quota::removed`] |
//! | a file is there in any case | [`Quota::added`] |
//! | a directory gets another name | [`Quota::moved`] |
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

    /// Nothing.
    pub const NOTHING: Amount = Amount { bytes: 0, files: 0 };

    /// A directory, or a link: something with a name.
    pub const NAME: Amount = Amount { bytes: 0, files: 1 };

    /// One file.
    pub fn file(bytes: u64) -> Amount {
        Amount { bytes, files: 1 }
    }

    /// `None`: there cannot be that much anywhere.
    pub(super) fn plus(self, other: Amount) -> Option<Amount> {
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

    /// The smaller one of each.
    pub fn min(self, other: Amount) -> Amount {
        Amount {
            bytes: self.bytes.min(other.bytes),
            files: self.files.min(other.files),
        }
    }

    /// Whether going from `self` to `next` is no growth, or stays within `limit`: for each of the
    /// two for itself.
    fn may_become(self, next: Amount, limit: Amount) -> Result<(), Full> {
        if next.bytes > self.bytes && next.bytes > limit.bytes {
            let free = limit.bytes.saturating_sub(self.bytes);
            let limit = limit.bytes;
            return Err(Full::Bytes { limit, free });
        }
        if next.files > self.files && next.files > limit.files {
            let limit = limit.files;
            return Err(Full::Files { limit });
        }
        Ok(())
    }
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// What is there has not been counted yet.
    Counting,
    /// It would be too many bytes.
    Bytes {
        /// What the tree may hold.
        limit: u64,
        /// What is left of that.
        free: u64,
    },
    /// It would be too many files and directories.
    Files {
        /// What the tree may hold.
        limit: u64,
    },
    /// A directory holds more than is counted for another tree at once.
    Parts {
        /// Files and directories that may be in it.
        limit: u64,
    },
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Full::Counting => f.write_str("Your files are being counted; try again in a moment."),
            Full::Bytes { limit, free } => {
                write!(f, "{free} bytes are left of your quota of {limit}.")
            }
            Full::Files { limit } => {
                write!(f, "Your quota is {limit} files and directories.")
            }
            Full::Parts { limit } => {
                write!(
                    f,
                    "From one quota to another go directories of {limit} entries at most; move parts."
                )
            }
        }
    }
}

impl std::error::Error for Full {}

/// Room that is kept for one upload. It must come back by [`Quota::settle`] or
/// [`Quota::release`]: dropping it would keep the room for ever.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "it must be settled or released"]
pub struct Reservation {
    /// What it was made for, and has grown to.
    new: Amount,
    old: Amount,
}

impl Reservation {
    fn room(&self) -> Amount {
        self.new.minus(self.old)
    }
}

/// What happened since [`Quota::counting`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Since {
    added: Amount,
    removed: Amount,
    moved: bool,
}

/// What one home tree may hold, and what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    limit: Amount,
    used: Amount,
    reserved: Amount,
    since: Since,
    /// Whether what is there was ever counted.
    known: bool,
}

impl Quota {
    /// For a tree that has not been counted: until it is, nothing may be added.
    pub fn uncounted(limit: Amount) -> Quota {
        Quota {
            limit,
            used: Amount::NOTHING,
            reserved: Amount::NOTHING,
            since: Since::default(),
            known: false,
        }
    }

    /// For a tree that holds `used`.
    pub fn new(limit: Amount, used: Amount) -> Quota {
        Quota {
            used,
            known: true,
            ..Quota::uncounted(limit)
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

    /// Makes a reservation one for `bytes`, if it is for less, and leaves it as it is otherwise.
    ///
    /// # Errors
    /// There is not that much.
    pub fn grow(&mut self, reservation: &mut Reservation, bytes: u64) -> Result<(), Full> {
        let new = reservation.new.max(Amount { bytes, files: 0 });
        self.make_room(reservation.room(), new.minus(reservation.old))?;
        reservation.new = new;
        Ok(())
    }

    /// Makes it a reservation for what is really found now: the old file may have been removed or
    /// replaced meanwhile, and less may have arrived than was announced. To be called before the
    /// file gets its name.
    ///
    /// # Errors
    /// It does not fit any more, and must not be published.
    pub fn restate(
        &mut self,
        reservation: &mut Reservation,
        new: Amount,
        old: Amount,
    ) -> Result<(), Full> {
        let given_back = reservation.room();
        if self.known {
            self.make_room(given_back, new.minus(old))?;
        } else {
            let reserved = self.reserved.minus(given_back).plus(new.minus(old));
            self.reserved = reserved.ok_or(self.no_more())?;
        }
        *reservation = Reservation { new, old };
        Ok(())
    }

    /// The upload is done: what was reserved for is there, and what it replaces is not any more.
    pub fn settle(&mut self, reservation: Reservation) {
        let Reservation { new, old } = reservation;
        self.release(reservation);
        self.exchanged(new, old);
    }

    /// Something is gone already that the reservation was to replace, among other things. All in all
    /// that is no growth, so there is always room for it.
    pub fn gave_way(&mut self, reservation: &mut Reservation, gone: Amount) {
        let before = reservation.room();
        reservation.old = reservation.old.minus(gone);
        let reserved = self.reserved.minus(before).plus(reservation.room());
        self.reserved = reserved.unwrap_or(Amount::MAX);
        self.removed(gone);
    }

    /// The upload came to nothing.
    pub fn release(&mut self, reservation: Reservation) {
        self.reserved = self.reserved.minus(reservation.room());
    }

    /// Something was removed.
    pub fn removed(&mut self, amount: Amount) {
        self.exchanged(Amount::NOTHING, amount);
    }

    /// Something is there, whether there is room for it or not.
    pub fn added(&mut self, amount: Amount) {
        self.exchanged(amount, Amount::NOTHING);
    }

    /// `new` is there, and `old` is not any more.
    fn exchanged(&mut self, new: Amount, old: Amount) {
        let most = |sum: Option<Amount>| sum.unwrap_or(Amount::MAX);
        self.used = most(self.used.minus(old).plus(new));
        self.since.added = most(self.since.added.plus(new));
        self.since.removed = most(self.since.removed.plus(old));
    }

    /// A directory was renamed, perhaps out of the sight of a count that is going on.
    pub fn moved(&mut self) {
        self.since.moved = true;
    }

    /// Another limit, from a reload.
    pub fn limit_to(&mut self, limit: Amount) {
        self.limit = limit;
    }

    /// A count of the tree begins.
    pub fn counting(&mut self) {
        self.since = Since::default();
    }

    /// The count is done. Returns whether it is exact.
    ///
    /// Where the tree was changed meanwhile, a count may have met what was added since or not, and
    /// what was removed as well. But it met all that was there all the time; so the tree holds at
    /// most what was found and all that was added, and at least what was found less all that was
    /// removed. Within these bounds the differences are believed, which know about each change;
    /// what lies beyond was changed by others than us. A first count has no differences to
    /// believe, and the tree is taken for the larger. When a directory was renamed, any amount may
    /// have been missed or met twice: then the count says nothing, unless it is the first.
    pub fn counted(&mut self, found: Amount) -> bool {
        let Since {
            added,
            removed,
            moved,
        } = self.since;
        let (least, most) = (found.minus(removed), found.plus(added));
        let most = most.unwrap_or(Amount::MAX);
        self.used = match self.known {
            true if moved => self.used,
            true => self.used.max(least).min(most),
            false => most,
        };
        self.known = true;
        added == Amount::NOTHING && removed == Amount::NOTHING && !moved
    }

    /// Whether it was ever counted.
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// What it may hold.
    pub fn limit(&self) -> Amount {
        self.limit
    }

    /// What is there and what is reserved.
    pub fn total(&self) -> Amount {
        self.used.plus(self.reserved).unwrap_or(Amount::MAX)
    }

    /// What is still free, for ALLO, AVBL and the like.
    pub fn free(&self) -> Amount {
        self.limit.minus(self.total())
    }

    fn no_more(&self) -> Full {
        Full::Bytes {
            limit: self.limit.bytes,
            free: self.free().bytes,
        }
    }

    fn make_room(&mut self, given_back: Amount, wanted: Amount) -> Result<(), Full> {
        // What makes nothing larger is right whatever is there.
        if !self.known && wanted != Amount::NOTHING {
            return Err(Full::Counting);
        }
        let reserved = self.reserved.minus(given_back).plus(wanted);
        let reserved = reserved.ok_or(self.no_more())?;
        let next = self.used.plus(reserved).ok_or(self.no_more())?;
        self.total().may_become(next, self.limit)?;
        self.reserved = reserved;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
