//! A few threads for what would block the reactor. Tasks go in, results come back through mio's
//! `Waker`. The threads know nothing of clients, sockets or the protocol.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use mio::Waker;

use super::Id;
use crate::session::{Done, Task};

/// The threads and the way to them.
#[derive(Debug)]
pub struct Background {
    tasks: Sender<Order>,
    results: Receiver<(Id, Done)>,
}

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

impl Background {
    /// Starts `threads` threads.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(threads: usize, waker: &Arc<Waker>) -> io::Result<Background> {
        let (tasks, orders) = mpsc::channel::<Order>();
        let (done, results) = mpsc::channel();
        let orders = Arc::new(Mutex::new(orders));
        for n in 0..threads.max(1) {
            let (orders, done, waker) = (orders.clone(), done.clone(), waker.clone());
            let work = move || {
                loop {
                    let next = orders.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(Order {
                        id,
                        task,
                        cancelled,
                    }) = next
                    else {
                        return;
                    };
                    let Some(task) = take(&task) else { continue };
                    let result = task.run(&cancelled);
                    if done.send((id, result)).is_err() || waker.wake().is_err() {
                        return;
                    }
                }
            };
            thread::Builder::new()
                .name(format!("background-{n}"))
                .spawn(work)?;
        }
        Ok(Background { tasks, results })
    }

    /// Has a task done for the connection `id`. The ticket must live until the result comes.
    pub fn order(&self, id: Id, task: Task) -> Ticket {
        let task = Arc::new(Mutex::new(Some(task)));
        let cancelled = Arc::new(AtomicBool::new(false));
        self.send(Order {
            id,
            task: task.clone(),
            cancelled: cancelled.clone(),
        });
        Ticket { task, cancelled }
    }

    /// Has a task done whose result nobody waits for.
    pub fn order_unattended(&self, task: Task) {
        let task = Arc::new(Mutex::new(Some(task)));
        let id = Id {
            key: usize::MAX,
            generation: u64::MAX,
        };
        self.send(Order {
            id,
            task,
            cancelled: Arc::default(),
        });
    }

    fn send(&self, order: Order) {
        if self.tasks.send(order).is_err() {
            log::error!("the background threads have ended");
        }
    }

    /// The next result, if there is one.
    pub fn result(&self) -> Option<(Id, Done)> {
        self.results.try_recv().ok()
    }
}
