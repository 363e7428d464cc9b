//! Two lanes that bring uploads to the disk. Each has two threads: one brings the bytes there, another
//! gives the files their names and brings those there, while the first has the next batch. What is
//! waiting when the first becomes free is its next batch, which shares what is expensive: so nobody
//! waits for a batch to fill, and the busier the disk the larger the batches.
//!
//! Large files have a lane of their own: a small one does not wait behind gigabytes. What a session
//! orders is done in its order, which is why its uploads do not change lanes while one is under way.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use mio::Waker;

use super::dirty::DirtyMemory;
use super::{Id, guarded};
use crate::config::Durability;
use crate::storage::commit::{self, Committed, Stored};
use crate::storage::partials::Keeping;
use crate::storage::staging::{Publish, Upload, WriteBack};

/// Uploads that share a batch. The first waits for the last of them, a few milliseconds; and of hundreds
/// some should be on their way while others wait for the disk.
const BATCH_MAX: usize = 64;

/// From here on an upload is large: writing it out takes longer than whatever a batch shares.
const LARGE_BYTES: u64 = 4 << 20;

/// Syncing a file system waits for whatever else is to be written to it. With more than this, somewhere
/// on the machine, it is not tried: it might take seconds.
const CALM_BYTES: u64 = 256 << 20;

/// Which threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Uploads that are committed in batches.
    Small,
    /// Uploads of [`LARGE_BYTES`] and more, one by one.
    Large,
}

impl Lane {
    /// Where an upload belongs.
    pub fn of(upload: &Upload) -> Lane {
        match upload.end() >= LARGE_BYTES {
            true => Lane::Large,
            false => Lane::Small,
        }
    }
}

#[derive(Debug)]
enum Order {
    Commit(Client, Box<Upload>, Publish),
    WriteBack(Id, u64, WriteBack),
}

/// Who waits for an upload.
#[derive(Debug)]
struct Client {
    id: Id,
    /// Who wants to continue it waits too.
    keeping: Option<Keeping>,
}

/// What came of an order.
#[derive(Debug)]
pub enum Answer {
    /// An upload is in its place, or gone.
    Committed {
        /// What the order was given.
        keeping: Option<Keeping>,
        /// Which.
        committed: Committed,
    },
    /// A part of an upload that goes on is on the disk, or the disk does not take it.
    WrittenBack {
        /// What the order was given.
        number: u64,
        /// EIO, mostly.
        result: io::Result<()>,
    },
}

/// The threads and the way to them.
#[derive(Debug)]
pub struct Commits {
    small: Sender<Order>,
    large: Sender<Order>,
    results: Receiver<Vec<(Id, Answer)>>,
    heard: std::vec::IntoIter<(Id, Answer)>,
    under_way: usize,
    under_way_max: usize,
}

impl Commits {
    /// Starts the threads. No more than `under_way_max` commits should be under way.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(
        durability: Durability,
        under_way_max: usize,
        waker: &Arc<Waker>,
    ) -> io::Result<Commits> {
        let (done, results) = mpsc::channel();
        let waker = waker.clone();
        let answers = Answers { done, waker };
        let start = |name: &str, batch_max| {
            let (sender, stored) = mpsc::channel();
            let names = Names {
                stored,
                answers: answers.clone(),
                settle: durability == Durability::Full,
            };
            spawn(format!("{name}-names"), move || names.run())?;
            let (orders, received) = mpsc::channel();
            let store = Store {
                orders: received,
                stored: sender,
                answers: answers.clone(),
                batch_max,
                dirty: DirtyMemory::new(),
                costs: Costs::default(),
            };
            spawn(name.to_string(), move || store.run())?;
            Ok::<_, io::Error>(orders)
        };
        Ok(Commits {
            small: start("small", BATCH_MAX)?,
            large: start("large", 1)?,
            results,
            heard: Vec::new().into_iter(),
            under_way: 0,
            under_way_max,
        })
    }

    /// Has an upload published. An answer with `keeping` comes for sure.
    ///
    /// # Errors
    /// The thread has ended, so the upload is gone.
    pub fn commit(
        &mut self,
        id: Id,
        keeping: Option<Keeping>,
        lane: Lane,
        upload: Box<Upload>,
        how: Publish,
    ) -> Result<(), io::Error> {
        self.send(lane, Order::Commit(Client { id, keeping }, upload, how))?;
        self.under_way += 1;
        Ok(())
    }

    /// Has a part of an upload brought to the disk. An answer with `number` comes for sure.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn write_back(&self, id: Id, number: u64, part: WriteBack) -> io::Result<()> {
        self.send(Lane::Large, Order::WriteBack(id, number, part))
    }

    fn send(&self, lane: Lane, order: Order) -> io::Result<()> {
        let sender = match lane {
            Lane::Small => &self.small,
            Lane::Large => &self.large,
        };
        sender.send(order).map_err(|_| {
            log::error!("a thread for commits has ended");
            io::ErrorKind::BrokenPipe.into()
        })
    }

    /// The next answer, if there is one.
    pub fn answer(&mut self) -> Option<(Id, Answer)> {
        let answer = loop {
            match self.heard.next() {
                Some(answer) => break answer,
                None => self.heard = self.results.try_recv().ok()?.into_iter(),
            }
        };
        if let Answer::Committed { .. } = answer.1 {
            self.under_way -= 1;
        }
        Some(answer)
    }

    /// Whether there should be no more of them for now.
    pub fn is_full(&self) -> bool {
        self.under_way >= self.under_way_max
    }

    /// Whether none is under way.
    pub fn is_idle(&self) -> bool {
        self.under_way == 0
    }
}

/// Uploads and who waits for them; `None`: something has gone wrong with all of them.
type Batch = (Vec<Client>, Option<Stored>);

/// Brings the bytes of uploads to the disk.
struct Store {
    orders: Receiver<Order>,
    stored: Sender<Batch>,
    answers: Answers,
    batch_max: usize,
    dirty: DirtyMemory,
    costs: Costs,
}

/// Gives uploads their names.
struct Names {
    stored: Receiver<Batch>,
    answers: Answers,
    /// Brings them to the disk, too.
    settle: bool,
}

/// The way back to the reactor.
#[derive(Clone)]
struct Answers {
    done: Sender<Vec<(Id, Answer)>>,
    waker: Arc<Waker>,
}

/// Nobody is left to answer.
struct Gone;

/// How long the two ways of syncing a batch took lately, in seconds. Which is faster depends on what
/// others write, and no system call tells.
#[derive(Debug)]
struct Costs {
    /// A batch together: much the same for few files and for many.
    together_s: f64,
    /// One file by itself.
    alone_s: f64,
}

/// What a file by itself is taken to cost before one was tried: were it nothing, the second batch would
/// be the one that tries it, and hundreds of files might each wait for a commit of the journal.
const ALONE_S: f64 = 0.002;

impl Default for Costs {
    fn default() -> Costs {
        Costs {
            together_s: 0.0,
            alone_s: ALONE_S,
        }
    }
}

impl Costs {
    fn favour_together(&self, files: usize) -> bool {
        self.together_s <= self.alone_s * files as f64
    }

    fn note(&mut self, together: bool, files: usize, took: Duration) {
        let towards = |old: f64, new: f64| old + (new - old) * 0.25;
        if together {
            self.together_s = towards(self.together_s, took.as_secs_f64());
            return;
        }
        self.alone_s = towards(self.alone_s, took.as_secs_f64() / files as f64);
        if files > 1 {
            // What was slow is tried again, later the slower it was.
            self.together_s *= 0.9;
        }
    }
}

impl Store {
    fn run(mut self) {
        while let Ok(first) = self.orders.recv() {
            if self.serve(first).is_err() {
                return;
            }
        }
    }

    /// Does what is ordered, and whatever else is there by then.
    fn serve(&mut self, first: Order) -> Result<(), Gone> {
        let mut next = Some(first);
        while let Some(order) = next.take().or_else(|| self.waiting()) {
            match order {
                Order::WriteBack(id, number, part) => {
                    let result = guarded::run("a write-back", || part.run()).and_then(|it| it);
                    let answer = (id, Answer::WrittenBack { number, result });
                    self.answers.send(vec![answer])?;
                }
                Order::Commit(client, upload, how) => {
                    let (mut clients, mut batch) = (vec![client], vec![(*upload, how)]);
                    while batch.len() < self.batch_max && next.is_none() {
                        match self.waiting() {
                            Some(Order::Commit(client, upload, how)) => {
                                clients.push(client);
                                batch.push((*upload, how));
                            }
                            Some(other) => next = Some(other),
                            None => break,
                        }
                    }
                    let stored = self.store(batch);
                    self.stored.send((clients, stored)).map_err(|_| Gone)?;
                }
            }
        }
        Ok(())
    }

    /// The next order, if there is one. Where the reactor has the same core and something to do, it has
    /// its turn first: it may bring some, and nobody waits for that.
    fn waiting(&self) -> Option<Order> {
        self.orders.try_recv().ok().or_else(|| {
            thread::yield_now();
            self.orders.try_recv().ok()
        })
    }

    /// Who cannot know takes it for much that there is to write.
    fn is_calm(&self) -> bool {
        self.dirty.look().is_some_and(|it| it.bytes < CALM_BYTES)
    }

    fn store(&mut self, batch: Vec<(Upload, Publish)>) -> Option<Stored> {
        let files = batch.len();
        let together = files > 1 && self.costs.favour_together(files) && self.is_calm();
        let begin = Instant::now();
        let stored = guard(|| commit::store(batch, together));
        self.costs.note(together, files, begin.elapsed());
        stored
    }
}

impl Names {
    fn run(self) {
        while let Ok((clients, stored)) = self.stored.recv() {
            let name = |stored: Stored| match self.settle {
                true => stored.name().settle(),
                false => stored.name().as_they_are(),
            };
            let committed = stored.and_then(|stored| guard(|| name(stored)));
            let committed = committed.unwrap_or_default();
            if self.answers.send(answers(clients, committed)).is_err() {
                return;
            }
        }
    }
}

impl Answers {
    fn send(&self, answers: Vec<(Id, Answer)>) -> Result<(), Gone> {
        self.done.send(answers).map_err(|_| Gone)?;
        self.waker.wake().map_err(|_| Gone)
    }
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name).spawn(run).map(drop)
}

fn guard<T>(work: impl FnOnce() -> T) -> Option<T> {
    guarded::run("a commit", work).ok()
}

/// Whatever happened, each of them is answered.
fn answers(clients: Vec<Client>, committed: Vec<Committed>) -> Vec<(Id, Answer)> {
    let mut committed = committed.into_iter();
    clients
        .into_iter()
        .map(|Client { id, keeping }| {
            let lost = || Committed::from(io::Error::other("it was not committed"));
            let committed = committed.next().unwrap_or_else(lost);
            (id, Answer::Committed { keeping, committed })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_takes_the_way_that_was_faster_lately() {
        let ms = Duration::from_millis;
        let mut costs = Costs::default();
        // The first batch has nothing to go by.
        assert!(costs.favour_together(2));
        // Nor is one that took a few milliseconds a reason to try what nobody knows on many files.
        costs.note(true, 50, ms(8));
        assert!(costs.favour_together(200));
        for _ in 0..20 {
            costs.note(false, 1, ms(2));
            costs.note(true, 50, ms(4));
        }
        assert!(costs.favour_together(3) && !costs.favour_together(1));
        // Somebody else begins to write gigabytes.
        costs.note(true, 50, ms(2000));
        assert!(!costs.favour_together(50));
        let mut alone = 0;
        while !costs.favour_together(50) {
            costs.note(false, 50, ms(100));
            alone += 1;
        }
        assert!((5..50).contains(&alone), "tried again after {alone}");
    }
}
