//! A few threads for what would block the reactor. Tasks go in, results come back through mio's
//! `Waker`. The threads know nothing of clients, sockets or the protocol.
//!
//! One of them does nothing that takes as long as a client likes: however many digests of large files
//! are wanted, a copy or a rename waits for none of them. Nor does a user wait for all that another
//! one wants: those who want digests take turns, and nobody has more than two made at a time.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use mio::Waker;

use super::{Id, guarded};
use crate::session::{Done, Task};
use crate::storage::partials::Owner;

/// What takes as long as a client likes, of one user at a time.
const ENDLESS_PER_OWNER_MAX: usize = 2;

/// The threads and the way to them.
#[derive(Debug)]
pub struct Background {
    orders: Arc<Orders>,
    results: Receiver<(Id, io::Result<Done>)>,
}

/// What waits for a thread.
#[derive(Debug, Default)]
struct Orders {
    queues: Mutex<Queues>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queues {
    endless: VecDeque<Order>,
    others: VecDeque<Order>,
    /// Who has how many endless tasks running.
    running: HashMap<Owner, usize>,
    /// Whose endless task began last.
    last: Option<Owner>,
    closed: bool,
}

impl Queues {
    /// The next order of somebody who may have one run, but rather not of the same one again.
    fn next_endless(&mut self) -> Option<Order> {
        let running = &self.running;
        let may = |order: &&Order| {
            let owner = order.owner.as_ref();
            let running = owner.and_then(|owner| running.get(owner));
            running.is_none_or(|&running| running < ENDLESS_PER_OWNER_MAX)
        };
        let mut found = self.endless.iter().enumerate();
        let mut found = found.by_ref().filter(|(_, order)| may(order));
        let (first, order) = found.next()?;
        let at = match order.owner == self.last {
            true => found.find(|(_, order)| order.owner != self.last),
            false => None,
        };
        let order = self.endless.remove(at.map_or(first, |(at, _)| at))?;
        self.last = order.owner;
        if let Some(owner) = order.owner {
            *self.running.entry(owner).or_default() += 1;
        }
        Some(order)
    }

    fn ended(&mut self, owner: Owner) {
        if let Some(running) = self.running.get_mut(&owner) {
            *running -= 1;
            if *running == 0 {
                self.running.remove(&owner);
            }
        }
    }
}

#[derive(Debug)]
struct Order {
    id: Id,
    /// Whose endless task it is.
    owner: Option<Owner>,
    task: Waiting,
    cancelled: Arc<AtomicBool>,
}

/// A task until a thread takes it, or nobody wants it any more: it may hold a file open.
type Waiting = Arc<Mutex<Option<Task>>>;

fn take(task: &Waiting) -> Option<Task> {
    task.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Held by the connection that ordered a task; dropping it cancels the task.
#[derive(Debug)]
pub struct Ticket {
    task: Waiting,
    cancelled: Arc<AtomicBool>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
        // Behind tasks that take hours, the files of clients that are gone would add up.
        take(&self.task);
    }
}

impl Orders {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self, order: Order, endless: bool) {
        let mut queues = self.queues();
        match endless {
            true => queues.endless.push_back(order),
            false => queues.others.push_back(order),
        }
        // Not every thread takes every order.
        self.changed.notify_all();
    }

    /// Waits for an order; `None`: there will be no more.
    fn take(&self, endless_too: bool) -> Option<Order> {
        let mut queues = self.queues();
        loop {
            let order = match queues.others.pop_front() {
                None if endless_too => queues.next_endless(),
                order => order,
            };
            if order.is_some() {
                return order;
            }
            if queues.closed {
                return None;
            }
            let woken = self.changed.wait(queues);
            queues = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn ended(&self, owner: Option<Owner>) {
        if let Some(owner) = owner {
            self.queues().ended(owner);
            self.changed.notify_all();
        }
    }
}

impl Background {
    /// Starts `threads` threads, but at least two.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(threads: usize, waker: &Arc<Waker>) -> io::Result<Background> {
        let orders = Arc::<Orders>::default();
        let (done, results) = mpsc::channel();
        for n in 0..threads.max(2) {
            let (orders, done, waker) = (orders.clone(), done.clone(), waker.clone());
            let work = move || {
                while let Some(order) = orders.take(n > 0) {
                    let task = take(&order.task);
                    let result = task.map(|task| run(task, &order.cancelled));
                    orders.ended(order.owner);
                    let Some(result) = result else {
                        continue;
                    };
                    if done.send((order.id, result)).is_err() || waker.wake().is_err() {
                        return;
                    }
                }
            };
            thread::Builder::new()
                .name(format!("background-{n}"))
                .spawn(work)?;
        }
        Ok(Background { orders, results })
    }

    /// Has a task done for the connection `id` and its user, which gets a result in any case. The
    /// ticket must live until then.
    pub fn order(&self, id: Id, owner: Option<Owner>, task: Task) -> Ticket {
        let endless = task.is_endless();
        let task = Arc::new(Mutex::new(Some(task)));
        let cancelled = Arc::new(AtomicBool::new(false));
        let ticket = Ticket {
            task: task.clone(),
            cancelled: cancelled.clone(),
        };
        let order = Order {
            id,
            owner: owner.filter(|_| endless),
            task,
            cancelled,
        };
        self.orders.give(order, endless);
        ticket
    }

    /// Has a task done whose result nobody waits for.
    pub fn order_unattended(&self, task: Task) {
        let endless = task.is_endless();
        let order = Order {
            id: Id {
                key: usize::MAX,
                generation: u64::MAX,
            },
            owner: None,
            task: Arc::new(Mutex::new(Some(task))),
            cancelled: Arc::default(),
        };
        self.orders.give(order, endless);
    }

    /// The next result, if there is one.
    pub fn result(&self) -> Option<(Id, io::Result<Done>)> {
        self.results.try_recv().ok()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.orders.queues().closed = true;
        self.orders.changed.notify_all();
    }
}

/// A panic costs the task, not the thread, and not the session that waits for the result.
fn run(task: Task, cancelled: &AtomicBool) -> io::Result<Done> {
    let lost = task.when_lost();
    let done = guarded::run("a background task", || task.run(cancelled));
    done.unwrap_or_else(|error| lost.ok_or(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_take_turns_and_none_has_more_than_two_running() {
        let owner = |name: &str| Some(Owner::user(name.as_bytes()));
        let mut queues = Queues::default();
        let names = ["ann", "ann", "ann", "ann", "bob", "cleo"];
        for (key, name) in names.into_iter().enumerate() {
            queues.endless.push_back(Order {
                id: Id { key, generation: 0 },
                owner: owner(name),
                task: Waiting::default(),
                cancelled: Arc::default(),
            });
        }
        let mut next = || queues.next_endless().map(|order| names[order.id.key]);
        assert_eq!(
            [next(), next(), next()],
            [Some("ann"), Some("bob"), Some("ann")]
        );
        assert_eq!([next(), next()], [Some("cleo"), None]);
        queues.ended(owner("bob").unwrap());
        assert!(queues.next_endless().is_none());
        queues.ended(owner("ann").unwrap());
        assert_eq!(queues.next_endless().unwrap().owner, owner("ann"));
        assert!(queues.next_endless().is_none());
        for name in ["ann", "ann", "cleo"] {
            queues.ended(owner(name).unwrap());
        }
        assert!(queues.running.is_empty());
        assert_eq!(queues.next_endless().unwrap().id.key, 3);
    }
}
