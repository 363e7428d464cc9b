//! A few threads for what would block the reactor. Tasks go in, results come back through mio's
//! `Waker`. The threads know nothing of clients, sockets or the protocol.
//!
//! One of them does nothing that takes as long as a client likes: however many digests of large files
//! are wanted, a copy or a rename waits for none of them.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use mio::Waker;

use super::Id;
use crate::session::{Done, Task};

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
    closed: bool,
}

#[derive(Debug)]
struct Order {
    id: Id,
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
                None if endless_too => queues.endless.pop_front(),
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
                    let Some(task) = take(&order.task) else {
                        continue;
                    };
                    let result = run(task, &order.cancelled);
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

    /// Has a task done for the connection `id`, which gets a result in any case. The ticket must
    /// live until then.
    pub fn order(&self, id: Id, task: Task) -> Ticket {
        let endless = task.is_endless();
        let task = Arc::new(Mutex::new(Some(task)));
        let cancelled = Arc::new(AtomicBool::new(false));
        let ticket = Ticket {
            task: task.clone(),
            cancelled: cancelled.clone(),
        };
        let order = Order {
            id,
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
    let done = catch_unwind(AssertUnwindSafe(|| task.run(cancelled)));
    done.unwrap_or_else(|panic| Err(panicked("a background task", &*panic)))
}

/// What becomes of work that panicked.
pub fn panicked(what: &str, panic: &(dyn Any + Send)) -> io::Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("no text");
    log::error!("{what} panicked, which is a bug: {text}");
    io::Error::other("the work panicked")
}
