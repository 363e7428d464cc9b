//! A thread that knows the partials below the root and lets them go when they are old.
//!
//! It walks over everything when the server starts, and once a day, slowly. In between it hears of
//! what the sessions leave behind.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::{guarded, wall_s};
use crate::storage::partials::{Index, Kept, Sweep};
use crate::storage::root::Root;

const WALK_AGAIN: Duration = Duration::from_secs(24 * 60 * 60);
/// How often it is looked for what has become old.
const EXPIRE_AGAIN: Duration = Duration::from_secs(60);
/// A walk rests so long for each piece of work of the same length, and at least so long.
const REST_SHARE: u32 = 4;
const REST_MIN: Duration = Duration::from_millis(1);

/// The way to the thread.
#[derive(Debug)]
pub struct Sweeper {
    kept: Sender<Kept>,
}

impl Sweeper {
    /// Starts it.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(root: &Arc<Root>, partial_keep: Duration) -> io::Result<Sweeper> {
        let (kept, receiver) = mpsc::channel();
        let mut work = Work {
            root: root.clone(),
            index: Index::default(),
            partial_keep,
            receiver,
        };
        thread::Builder::new()
            .name("sweeper".into())
            .spawn(move || {
                // What panicked once would do so again at once.
                while guarded::run("the sweeper", || work.go_on())
                    .unwrap_or_else(|_| work.hear(WALK_AGAIN))
                {}
            })?;
        Ok(Sweeper { kept })
    }

    /// An upload broke off and this is what there is of it.
    pub fn kept(&self, kept: Kept) {
        if self.kept.send(kept).is_err() {
            log::error!("the thread for partials has ended");
        }
    }
}

struct Work {
    root: Arc<Root>,
    index: Index,
    partial_keep: Duration,
    receiver: Receiver<Kept>,
}

impl Work {
    /// A walk, and a day. False: the server has ended.
    fn go_on(&mut self) -> bool {
        let begin = Instant::now();
        self.walk();
        while begin.elapsed() < WALK_AGAIN {
            if !self.hear(EXPIRE_AGAIN.min(self.partial_keep)) {
                return false;
            }
            self.index.expire(&self.root, self.cutoff_s());
        }
        true
    }

    fn cutoff_s(&self) -> i64 {
        let keep_s = i64::try_from(self.partial_keep.as_secs()).unwrap_or(i64::MAX);
        wall_s().saturating_sub(keep_s)
    }

    /// Takes what there is to hear, for so long. False: the server has ended.
    fn hear(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.receiver.recv_timeout(left) {
                Ok(kept) => self.index.kept(&self.root, &kept, wall_s()),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    fn walk(&mut self) {
        let walked = Sweep::new(&self.root).and_then(|mut sweep| {
            loop {
                let begin = Instant::now();
                let cutoff_s = self.cutoff_s();
                if !sweep.step(&mut self.index, cutoff_s)? {
                    return Ok(());
                }
                let rest = (begin.elapsed() * REST_SHARE).max(REST_MIN);
                if !self.hear(rest) {
                    return Ok(());
                }
            }
        });
        if let Err(error) = walked {
            log::warn!("not everything could be searched for old partials: {error}");
        }
    }
}
