//! When which home tree with a quota is counted: one at a time and a piece at a time, in the
//! background. After the first count differences are kept, and a count once a day finds what others
//! than hauld have changed.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::storage::ledger::{Allotment, Count};
use crate::storage::root::Root;

const AGAIN_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// After a count that was not exact but is all there is, and after one that failed.
const AGAIN_SOON_AFTER: Duration = Duration::from_secs(60);
/// A count that nobody waits for rests between two pieces, for so many times what a piece took.
const REST_TIMES: u32 = 3;
const REST_MAX: Duration = Duration::from_secs(1);

/// What is counted, and what will be.
#[derive(Debug)]
pub struct Counts {
    served: Arc<Root>,
    /// Nobody has counted these yet, and uploads are refused until it is done.
    uncounted: VecDeque<Arc<Allotment>>,
    again: Vec<(Instant, Weak<Allotment>)>,
    piece: Piece,
}

#[derive(Debug)]
enum Piece {
    None,
    /// One of this tree is in the background since then.
    Counted(Instant, Arc<Allotment>),
    /// The next one waits until then.
    Resting(Instant, Box<Count>),
}

impl Counts {
    /// Nothing is to be counted yet.
    pub fn new(served: Arc<Root>) -> Counts {
        Counts {
            served,
            uncounted: VecDeque::new(),
            again: Vec::new(),
            piece: Piece::None,
        }
    }

    /// Trees that have a quota now and had none before.
    pub fn add(&mut self, uncounted: Vec<Arc<Allotment>>) {
        self.uncounted.extend(uncounted);
    }

    /// The piece to be counted now, if it is time for one.
    pub fn piece(&mut self, now: Instant) -> Option<Box<Count>> {
        let count = match std::mem::replace(&mut self.piece, Piece::None) {
            Piece::Resting(until, count) if until <= now => Some(count),
            Piece::None => self.begin(now),
            waiting => {
                self.piece = waiting;
                None
            }
        }?;
        self.piece = Piece::Counted(now, count.allotment().clone());
        Some(count)
    }

    fn begin(&mut self, now: Instant) -> Option<Box<Count>> {
        loop {
            let next = match self.uncounted.pop_front() {
                Some(next) => next,
                None => {
                    let due = self.again.iter().position(|(at, _)| *at <= now)?;
                    match self.again.swap_remove(due).1.upgrade() {
                        Some(next) => next,
                        // It has no quota any more.
                        None => continue,
                    }
                }
            };
            match Count::begin(next.clone(), self.served.clone()) {
                Ok(count) => return Some(Box::new(count)),
                Err(error) => self.failed(&next, &error, now),
            }
        }
    }

    /// A piece was counted; whether there is more.
    pub fn counted(&mut self, count: Box<Count>, more: io::Result<bool>, now: Instant) {
        let Piece::Counted(since, allotment) = std::mem::replace(&mut self.piece, Piece::None)
        else {
            debug_assert!(false, "nothing is being counted");
            return;
        };
        match more {
            Ok(true) => {
                let known = allotment.usage().used.is_some();
                let rest = if known {
                    (now - since).saturating_mul(REST_TIMES).min(REST_MAX)
                } else {
                    Duration::ZERO
                };
                self.piece = Piece::Resting(now + rest, count);
            }
            Ok(false) => {
                let first = allotment.usage().used.is_none();
                let exact = count.finish();
                let after = match first && !exact {
                    true => AGAIN_SOON_AFTER,
                    false => AGAIN_AFTER,
                };
                if let Some(used) = allotment.usage().used {
                    let (place, bytes, files) = (allotment.place(), used.bytes, used.files);
                    log::info!("counted: {bytes} bytes, {files} files and directories in {place}");
                }
                self.again.push((now + after, Arc::downgrade(&allotment)));
            }
            Err(error) => self.failed(&allotment, &error, now),
        }
    }

    /// A piece is gone, and the count with it.
    pub fn lost(&mut self, now: Instant) {
        if let Piece::Counted(_, allotment) = std::mem::replace(&mut self.piece, Piece::None) {
            self.failed(&allotment, &io::Error::other("the work panicked"), now);
        }
    }

    fn failed(&mut self, allotment: &Arc<Allotment>, error: &io::Error, now: Instant) {
        log::error!(
            "{} cannot be counted for its quota: {error}",
            allotment.place()
        );
        self.again
            .push((now + AGAIN_SOON_AFTER, Arc::downgrade(allotment)));
    }

    /// When there will be a piece to be counted.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        match &self.piece {
            Piece::Counted(..) => None,
            Piece::Resting(until, _) => Some(*until),
            Piece::None if !self.uncounted.is_empty() => Some(now),
            Piece::None => self.again.iter().map(|(at, _)| *at).min(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::path::VirtualPath;
    use crate::storage::quota::Amount;

    const SECOND: Duration = Duration::from_secs(1);

    fn served(files: usize) -> (tempfile::TempDir, Arc<Root>, Counts) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        for n in 0..files {
            std::fs::write(dir.path().join(format!("a/{n}")), b"12345").unwrap();
        }
        let root = Arc::new(Root::open(dir.path()).unwrap());
        let mut counts = Counts::new(root.clone());
        let home = VirtualPath::root().join(b"a");
        counts.add(root.set_quotas([(home, Amount::MAX)]));
        (dir, root, counts)
    }

    /// Does what is to be done at `now`; how many pieces that was.
    fn run(counts: &mut Counts, now: Instant, took: Duration) -> usize {
        let mut pieces = 0;
        while let Some(mut piece) = counts.piece(now) {
            assert_eq!(counts.next(now), None);
            let more = piece.step();
            counts.counted(piece, more, now + took);
            pieces += 1;
        }
        pieces
    }

    fn used(root: &Root) -> Option<Amount> {
        let home = VirtualPath::root().join(b"a");
        root.below(&home).unwrap().usage().unwrap().used
    }

    #[test]
    fn a_first_count_does_not_rest_and_a_daily_one_does() {
        let (dir, root, mut counts) = served(6_000);
        let now = Instant::now();
        assert_eq!((used(&root), counts.next(now)), (None, Some(now)));
        assert_eq!(run(&mut counts, now, Duration::ZERO), 2);
        let all = Amount {
            bytes: 30_000,
            files: 6_000,
        };
        assert_eq!(used(&root), Some(all));
        std::fs::write(dir.path().join("a/more"), b"1").unwrap();
        let day = now + AGAIN_AFTER;
        assert_eq!(counts.next(now), Some(day));
        assert_eq!(run(&mut counts, day - SECOND, SECOND), 0);
        assert_eq!(run(&mut counts, day, SECOND / 10), 1);
        assert_eq!(counts.next(day), Some(day + SECOND / 10 * (REST_TIMES + 1)));
        assert_eq!(run(&mut counts, day + SECOND, SECOND), 1);
        assert_eq!(used(&root).unwrap().bytes, 30_001);
    }

    #[test]
    fn a_count_that_is_lost_begins_again_after_a_while() {
        let (_dir, root, mut counts) = served(1);
        let now = Instant::now();
        drop(counts.piece(now).unwrap());
        counts.lost(now);
        assert_eq!(counts.next(now), Some(now + AGAIN_SOON_AFTER));
        assert_eq!(run(&mut counts, now + AGAIN_SOON_AFTER, Duration::ZERO), 1);
        assert_eq!(used(&root).map(|it| it.files), Some(1));
    }

    #[test]
    fn a_quota_that_is_gone_is_not_counted_again() {
        let (_dir, root, mut counts) = served(1);
        let now = Instant::now();
        assert_eq!(run(&mut counts, now, Duration::ZERO), 1);
        root.set_quotas([]);
        assert_eq!(run(&mut counts, now + AGAIN_AFTER, Duration::ZERO), 0);
        assert_eq!(counts.next(now), None);
    }

    #[test]
    fn a_home_that_is_not_there_holds_nothing_and_one_that_is_no_directory_is_tried_again() {
        let (dir, root, mut counts) = served(1);
        let now = Instant::now();
        assert_eq!(run(&mut counts, now, Duration::ZERO), 1);
        let home = |name: &[u8]| VirtualPath::root().join(name);
        let of = |name: &[u8]| (home(name), Amount::MAX);
        counts.add(root.set_quotas([of(b"absent"), of(b"a/0")]));
        assert_eq!(run(&mut counts, now, Duration::ZERO), 1);
        std::fs::remove_file(dir.path().join("a/0")).unwrap();
        std::fs::create_dir(dir.path().join("a/0")).unwrap();
        assert_eq!(run(&mut counts, now + AGAIN_SOON_AFTER, Duration::ZERO), 1);
    }
}
