//! Which home trees have a quota, and what they hold: shared by all [`Root`]s below one directory.
//!
//! A change counts for every tree with a quota that it is in. Which these are is asked of the kernel
//! (the path of an open directory), so that links in the path that the client gave make no
//! difference, and homes within homes none either.
//!
//! # What is replaced is known for sure
//!
//! Between a look at what has a name and its removal or replacement, somebody else could give the
//! name to something else, and then the wrong size would be taken off. So whoever changes names in
//! a tree with a quota holds one lock meanwhile. Nothing else takes that lock: an upload that
//! begins or grows does not wait for a rename that waits for the disk.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::path::DecInt;

use super::path::VirtualPath;
use super::quota::{Amount, Full, Quota, Reservation};
use super::room::Space;
use super::root::{Root, stat_in};
use super::walk::{Tree, Want};
use crate::proto::facts::{Kind, Meta};

/// What a directory that is moved into another home may hold, and all below it: it is counted while
/// everybody waits.
const MOVED_ENTRIES_MAX: u64 = 2_000;

/// All quotas, and the promises of space.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The path of the directory that is served.
    served: Vec<u8>,
    /// By the path of the tree, as seen from the directory that is served.
    allotments: Mutex<HashMap<VirtualPath, Arc<Allotment>>>,
    /// Held by whoever changes names where there is a quota.
    names: Mutex<()>,
    /// Files of uploads that are under way and have a hidden name: device and inode.
    hidden: Mutex<HashSet<(u64, u64)>>,
    pub(super) space: Space,
    /// Bytes of all uploads that may not be on the disk yet.
    pub(super) unwritten: AtomicU64,
    /// Bytes of all uploads that are in memory, see [`super::held`].
    pub(super) held: AtomicU64,
}

/// What one home tree may hold, and what it does.
#[derive(Debug)]
pub struct Allotment {
    place: VirtualPath,
    quota: Mutex<Quota>,
}

/// How much of an allotment is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// What is there and what is on its way; `None`: it has not been counted yet.
    pub used: Option<Amount>,
    /// What there may be.
    pub limit: Amount,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in it is never left half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Full {
    pub(super) fn into_error(self) -> io::Error {
        io::Error::other(self)
    }
}

impl Allotment {
    /// Where the tree is, as seen from the directory that is served.
    pub fn place(&self) -> &VirtualPath {
        &self.place
    }

    /// A count of the tree begins.
    pub fn counting(&self) {
        lock(&self.quota).counting();
    }

    /// See [`Quota::counted`].
    pub fn counted(&self, found: Amount) -> bool {
        lock(&self.quota).counted(found)
    }

    /// What is there and what there may be.
    pub fn usage(&self) -> Usage {
        let quota = lock(&self.quota);
        Usage {
            used: quota.is_known().then(|| quota.total()),
            limit: quota.limit(),
        }
    }

    fn free(&self) -> Amount {
        lock(&self.quota).free()
    }
}

impl Ledger {
    /// Without a quota; `served` is the path of the directory that is served.
    pub(super) fn new(served: Vec<u8>) -> Ledger {
        Ledger {
            served,
            ..Ledger::default()
        }
    }

    fn is_empty(&self) -> bool {
        lock(&self.allotments).is_empty()
    }

    /// Those of the trees that `place` is in, or is.
    fn around(&self, place: &VirtualPath) -> Vec<Arc<Allotment>> {
        let allotments = lock(&self.allotments);
        let mut path = place.clone();
        let mut found = Vec::new();
        loop {
            found.extend(allotments.get(&path).cloned());
            if path.is_root() {
                return found;
            }
            path = path.join(b"..");
        }
    }

    /// Whether an upload is writing this hidden file, for which room is kept already.
    pub fn is_under_way(&self, meta: &Meta) -> bool {
        lock(&self.hidden).contains(&(meta.dev, meta.ino))
    }

    /// What an entry of a tree adds to it: where an upload writes, its room counts already.
    fn amount_in_tree(&self, path: &[u8], meta: &Meta) -> Amount {
        let name = path.rsplit(|b| *b == b'/').next();
        let is_hidden = name.is_some_and(super::path::is_reserved_name);
        match is_hidden && self.is_under_way(meta) {
            true => Amount::NOTHING,
            false => amount_of(meta),
        }
    }

    pub(super) fn hide(&self, file: (u64, u64)) {
        lock(&self.hidden).insert(file);
    }

    pub(super) fn show(&self, file: (u64, u64)) {
        lock(&self.hidden).remove(&file);
    }
}

/// Room in one tree that is kept for a change; it is given back unless the change is settled.
#[derive(Debug)]
pub(super) struct Claim {
    allotment: Arc<Allotment>,
    reservation: Option<Reservation>,
}

impl Claim {
    fn new(allotment: Arc<Allotment>, new: Amount, old: Amount) -> Result<Claim, Full> {
        let reservation = lock(&allotment.quota).reserve(new, old)?;
        Ok(Claim {
            allotment,
            reservation: Some(reservation),
        })
    }

    /// Makes it one for `bytes`, or leaves it as it is.
    pub(super) fn grow(&mut self, bytes: u64) -> Result<(), Full> {
        match &mut self.reservation {
            Some(reservation) => lock(&self.allotment.quota).grow(reservation, bytes),
            None => Ok(()),
        }
    }

    fn restate(&mut self, new: Amount, old: Amount) -> Result<(), Full> {
        match &mut self.reservation {
            Some(reservation) => lock(&self.allotment.quota).restate(reservation, new, old),
            None => Ok(()),
        }
    }

    fn settle(mut self) {
        if let Some(reservation) = self.reservation.take() {
            lock(&self.allotment.quota).settle(reservation);
        }
    }

    fn gave_way(&mut self, gone: Amount) {
        if let Some(reservation) = &mut self.reservation {
            lock(&self.allotment.quota).gave_way(reservation, gone);
        }
    }

    pub(super) fn free_bytes(&self) -> u64 {
        self.allotment.free().bytes
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(reservation) = self.reservation.take() {
            lock(&self.allotment.quota).release(reservation);
        }
    }
}

/// Room in all these trees for `new` in the place of `old`. What of it was held is used.
fn restated(
    allotments: Vec<Arc<Allotment>>,
    mut held: Vec<Claim>,
    new: Amount,
    old: Amount,
) -> io::Result<Vec<Claim>> {
    let claims = allotments.into_iter().map(|allotment| {
        let mine = |claim: &Claim| Arc::ptr_eq(&claim.allotment, &allotment);
        let mut claim = match held.iter().position(mine) {
            Some(at) => held.swap_remove(at),
            // There was no quota when the upload began.
            None => Claim::new(allotment, Amount::NOTHING, Amount::NOTHING)?,
        };
        claim.restate(new, old)?;
        Ok(claim)
    });
    claims.collect::<Result<_, _>>().map_err(Full::into_error)
}

/// What something with a name counts for, without what is in it.
pub(super) fn amount_of(meta: &Meta) -> Amount {
    match meta.kind {
        Kind::File => Amount::file(meta.size),
        Kind::Dir | Kind::Link | Kind::Other => Amount::NAME,
    }
}

/// What `name` in `dir` counts for, if there is anything.
fn amount_at(dir: &OwnedFd, name: &[u8]) -> Amount {
    stat_in(dir, name).map_or(Amount::NOTHING, |meta| amount_of(&meta))
}

impl Root {
    /// Sets the quotas of all trees, anew. Returns those that nobody has counted yet.
    pub fn set_quotas(
        &self,
        quotas: impl IntoIterator<Item = (VirtualPath, Amount)>,
    ) -> Vec<Arc<Allotment>> {
        let mut limits: HashMap<VirtualPath, Amount> = HashMap::new();
        for (home, limit) in quotas {
            // A home that is not there yet, or is reached through a link.
            let place = self.below(&home).map_or(home, |home| home.place().clone());
            let one = limits.entry(place).or_insert(Amount::MAX);
            *one = one.min(limit);
        }
        let mut allotments = lock(&self.ledger().allotments);
        allotments.retain(|place, _| limits.contains_key(place));
        let mut uncounted = Vec::new();
        for (place, limit) in limits {
            if let Some(there) = allotments.get(&place) {
                lock(&there.quota).limit_to(limit);
                continue;
            }
            let new = Arc::new(Allotment {
                place: place.clone(),
                quota: Mutex::new(Quota::uncounted(limit)),
            });
            uncounted.push(new.clone());
            allotments.insert(place, new);
        }
        uncounted
    }

    /// How much is used of what this tree may hold, if there is a limit.
    pub fn usage(&self) -> Option<Usage> {
        let allotments = lock(&self.ledger().allotments);
        allotments.get(self.place()).map(|it| it.usage())
    }

    /// What the quotas leave for the directory, in bytes.
    pub(super) fn allotted_bytes(&self, dir: &OwnedFd) -> u64 {
        let around = self.allotments(dir);
        let free = around.iter().map(|allotment| allotment.free().bytes);
        free.min().unwrap_or(u64::MAX)
    }

    /// Where an open directory is, as seen from the directory that is served.
    pub(super) fn place_of(&self, dir: &OwnedFd) -> Option<VirtualPath> {
        let name = DecInt::from_fd(dir);
        let path = rustix::fs::readlinkat(self.descriptors(), name.as_c_str(), Vec::new()).ok()?;
        let path = path.into_bytes();
        let served = &self.ledger().served[..];
        let below = path.strip_prefix(served)?;
        match below.first() {
            None | Some(b'/') => Some(VirtualPath::root().join(below)),
            // The directory that is served is the root of everything.
            Some(_) if served == b"/" => Some(VirtualPath::root().join(below)),
            Some(_) => None,
        }
    }

    /// The quotas that changes in an open directory count for. Where it cannot be told, those of
    /// this tree.
    fn allotments(&self, dir: &OwnedFd) -> Vec<Arc<Allotment>> {
        if self.ledger().is_empty() {
            return Vec::new();
        }
        let place = self.place_of(dir);
        self.ledger().around(place.as_ref().unwrap_or(self.place()))
    }

    /// Keeps room for `new` in the place of `old`.
    pub(super) fn claim(&self, dir: &OwnedFd, new: Amount, old: Amount) -> io::Result<Vec<Claim>> {
        let all = self.allotments(dir).into_iter();
        let claims = all.map(|allotment| Claim::new(allotment, new, old));
        claims.collect::<Result<_, _>>().map_err(Full::into_error)
    }

    /// Does what gives `name` to something that counts for `new`, or takes it away. `held` is the
    /// room that was kept for it.
    pub(super) fn change<T>(
        &self,
        dir: &OwnedFd,
        name: &[u8],
        new: Amount,
        held: Vec<Claim>,
        act: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        self.change_measured(dir, name, || Ok(new), held, act)
    }

    /// The same of something that is only measured where there are quotas.
    pub(super) fn change_measured<T>(
        &self,
        dir: &OwnedFd,
        name: &[u8],
        new: impl FnOnce() -> io::Result<Amount>,
        held: Vec<Claim>,
        act: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let allotments = self.allotments(dir);
        if allotments.is_empty() {
            return act();
        }
        let _names = lock(&self.ledger().names);
        let (new, old) = (new()?, amount_at(dir, name));
        let claims = restated(allotments, held, new, old)?;
        let done = act()?;
        claims.into_iter().for_each(Claim::settle);
        Ok(done)
    }

    /// Does what takes `name` away, or all that it counts for. `held` is room that was kept for what
    /// replaces it, and goes on.
    pub(super) fn give_way(
        &self,
        dir: &OwnedFd,
        name: &[u8],
        held: &mut [Claim],
        act: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let allotments = self.allotments(dir);
        if allotments.is_empty() {
            return act();
        }
        let _names = lock(&self.ledger().names);
        let gone = amount_at(dir, name);
        act()?;
        for one in allotments {
            let mut held = held.iter_mut();
            match held.find(|claim| Arc::ptr_eq(&claim.allotment, &one)) {
                Some(claim) => claim.gave_way(gone),
                None => lock(&one.quota).removed(gone),
            }
        }
        Ok(())
    }

    /// What an upload has written in `dir` stays under its hidden name, and counts from now on. `held` is
    /// the room that was kept for it.
    pub(super) fn stays(&self, dir: &OwnedFd, new: Amount, held: Vec<Claim>) -> io::Result<()> {
        let claims = restated(self.allotments(dir), held, new, Amount::NOTHING)?;
        claims.into_iter().for_each(Claim::settle);
        Ok(())
    }

    /// Something is in `dir`, whether there is room for it or not.
    pub(super) fn is_there(&self, dir: &OwnedFd, amount: Amount) {
        for allotment in self.allotments(dir) {
            lock(&allotment.quota).added(amount);
        }
    }

    /// Does what moves `from` to `to`. Within one tree that needs no room; from one to another it
    /// does.
    pub(super) fn change_name(
        &self,
        (from_dir, from): (&OwnedFd, &[u8]),
        (to_dir, to): (&OwnedFd, &[u8]),
        act: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let (leaves, enters) = (self.allotments(from_dir), self.allotments(to_dir));
        if leaves.is_empty() && enters.is_empty() {
            return act();
        }
        let _names = lock(&self.ledger().names);
        let meta = stat_in(from_dir, from)?;
        let stays = |all: &[Arc<Allotment>], one: &Arc<Allotment>| {
            all.iter().any(|other| Arc::ptr_eq(one, other))
        };
        let across = !leaves.iter().all(|one| stays(&enters, one))
            || !enters.iter().all(|one| stays(&leaves, one));
        let moved = match meta.kind {
            Kind::Dir if across => self.all_of(from_dir, from)?,
            _ => amount_of(&meta),
        };
        let replaced = match stat_in(to_dir, to) {
            // Two names of one file: rename(2) does nothing.
            Ok(there) if (there.dev, there.ino) == (meta.dev, meta.ino) => return act(),
            Ok(there) => amount_of(&there),
            Err(_) => Amount::NOTHING,
        };
        let both = moved.plus(replaced).unwrap_or(Amount::MAX);
        let mut claims = Vec::new();
        for one in &enters {
            // To a tree in which it stays, it comes and goes: a count that is going on may meet it
            // twice or not at all.
            let old = if stays(&leaves, one) { both } else { replaced };
            claims.push(Claim::new(one.clone(), moved, old).map_err(Full::into_error)?);
        }
        act()?;
        claims.into_iter().for_each(Claim::settle);
        for one in leaves {
            let mut quota = lock(&one.quota);
            if !stays(&enters, &one) {
                quota.removed(moved);
            } else if meta.kind == Kind::Dir {
                quota.moved();
            }
        }
        Ok(())
    }

    /// A directory and all that is in it.
    fn all_of(&self, dir: &OwnedFd, name: &[u8]) -> io::Result<Amount> {
        let mut tree = Tree::at(dir, name)?;
        let mut all = Amount::NAME;
        let mut entries = 0;
        while tree.batch(Want::COUNT, &mut |entry| {
            entries += 1;
            let amount = self.ledger().amount_in_tree(entry.path, entry.meta);
            all = all.plus(amount).unwrap_or(Amount::MAX);
        })? {
            if entries > MOVED_ENTRIES_MAX {
                let limit = MOVED_ENTRIES_MAX;
                return Err(Full::Parts { limit }.into_error());
            }
        }
        Ok(all)
    }
}

/// A count of one tree that is going on, a piece at a time.
#[derive(Debug)]
pub struct Count {
    allotment: Arc<Allotment>,
    served: Arc<Root>,
    /// `None`: there is no such tree now.
    tree: Option<Tree>,
    found: Amount,
}

impl Count {
    /// Begins to count; `served` is the directory that is served.
    ///
    /// # Errors
    /// The tree cannot be read.
    pub fn begin(allotment: Arc<Allotment>, served: Arc<Root>) -> io::Result<Count> {
        allotment.counting();
        let tree = match Tree::new(served.clone(), &allotment.place) {
            Ok(tree) => Some(tree),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => None,
            Err(error) => return Err(error),
        };
        Ok(Count {
            allotment,
            served,
            tree,
            found: Amount::NOTHING,
        })
    }

    /// Counts some thousand entries. False at the end.
    ///
    /// # Errors
    /// The tree cannot be read.
    pub fn step(&mut self) -> io::Result<bool> {
        let Some(tree) = &mut self.tree else {
            return Ok(false);
        };
        let (found, ledger) = (&mut self.found, self.served.ledger());
        let mut entries = 0;
        while entries < STEP_ENTRIES {
            // A batch may be without entries.
            entries += 10;
            let more = tree.batch(Want::COUNT, &mut |entry| {
                entries += 1;
                let amount = ledger.amount_in_tree(entry.path, entry.meta);
                *found = found.plus(amount).unwrap_or(Amount::MAX);
            })?;
            if !more {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What is counted.
    pub fn allotment(&self) -> &Arc<Allotment> {
        &self.allotment
    }

    /// The whole tree was counted. Returns whether the count is exact.
    pub fn finish(self) -> bool {
        self.allotment.counted(self.found)
    }
}

/// Some 10 ms of work where the tree is in memory.
const STEP_ENTRIES: u64 = 5_000;

#[cfg(test)]
mod tests;
