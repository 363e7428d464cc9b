//! A few threads that read parts of files into memory before they are sent, so that the reactor waits
//! for no disk. They know nothing of clients, sockets or the protocol.
//!
//! They do nothing else: a disk that hangs keeps no digest, copy or commit on another disk waiting.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use mio::Waker;
use rustix::fs::Advice;

use super::Id;

/// So that one slow file does not keep all others waiting.
const THREADS: usize = 4;
/// What comes behind a part is asked for together with it, so that the disk has work until the next order.
const BEHIND_BYTES: u64 = 2 << 20;
/// Between two pieces it is looked whether somebody still waits.
const PIECE_BYTES: usize = 256 * 1024;

/// The threads and the way to them.
#[derive(Debug)]
pub struct Readers {
    orders: Sender<Order>,
    answers: Receiver<Answer>,
}

/// A part of a file is in memory, or cannot be read.
#[derive(Debug)]
pub struct Answer {
    /// Who ordered it.
    pub id: Id,
    /// Which of its orders this is.
    pub number: u64,
    /// What came of it.
    pub result: io::Result<()>,
}

/// Held by the connection that ordered; dropping it cancels the order.
#[derive(Debug)]
pub struct Ticket(Arc<Part>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
        // Behind a disk that hangs, the files of clients that are gone would add up.
        self.0.take();
    }
}

#[derive(Debug)]
struct Order {
    id: Id,
    number: u64,
    part: Arc<Part>,
}

#[derive(Debug)]
struct Part {
    file: Mutex<Option<File>>,
    at: u64,
    bytes: u64,
    cancelled: AtomicBool,
}

impl Readers {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(waker: &Arc<Waker>) -> io::Result<Readers> {
        let (orders, waiting) = mpsc::channel::<Order>();
        let waiting = Arc::new(Mutex::new(waiting));
        let (answer, answers) = mpsc::channel();
        for n in 0..THREADS {
            let (waiting, answer, waker) = (waiting.clone(), answer.clone(), waker.clone());
            let work = move || {
                let mut piece = vec![0; PIECE_BYTES];
                loop {
                    let order = waiting
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .recv();
                    let Ok(Order { id, number, part }) = order else {
                        return;
                    };
                    let result = part.read(&mut piece);
                    let told = answer.send(Answer { id, number, result });
                    if told.is_err() || waker.wake().is_err() {
                        return;
                    }
                }
            };
            thread::Builder::new()
                .name(format!("reading-{n}"))
                .spawn(work)?;
        }
        Ok(Readers { orders, answers })
    }

    /// Has `bytes` bytes of a file from `at` on read for the connection `id`, which gets an answer in
    /// any case. The ticket must live until then.
    pub fn order(&self, id: Id, number: u64, file: File, at: u64, bytes: u64) -> Ticket {
        let part = Arc::new(Part {
            file: Mutex::new(Some(file)),
            at,
            bytes,
            cancelled: AtomicBool::new(false),
        });
        let ticket = Ticket(part.clone());
        // The threads live as long as the way to them.
        let _ = self.orders.send(Order { id, number, part });
        ticket
    }

    /// The next answer, if there is one.
    pub fn answer(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}

impl Part {
    fn take(&self) -> Option<File> {
        self.file
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// The end of the file is no error here: whoever sends it finds out.
    fn read(&self, piece: &mut [u8]) -> io::Result<()> {
        let Some(file) = self.take() else {
            return Err(io::ErrorKind::Interrupted.into());
        };
        // All of it at once, where the file system takes advice.
        let bytes = NonZeroU64::new(self.bytes + BEHIND_BYTES);
        let _ = rustix::fs::fadvise(&file, self.at, bytes, Advice::WillNeed);
        let mut done = 0;
        while done < self.bytes && !self.cancelled.load(Ordering::Relaxed) {
            let left = usize::try_from(self.bytes - done).unwrap_or(usize::MAX);
            let most = piece.len().min(left);
            match file.read_at(&mut piece[..most], self.at + done) {
                Ok(0) => break,
                Ok(n) => done += n as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: File, at: u64, bytes: u64) -> io::Result<()> {
        let part = Part {
            file: Mutex::new(Some(file)),
            at,
            bytes,
            cancelled: AtomicBool::new(false),
        };
        part.read(&mut [0; 1000])
    }

    #[test]
    fn what_is_read_in_may_end_early_but_not_fail() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 5000], 0).unwrap();
        read(file.try_clone().unwrap(), 0, 5000).unwrap();
        read(file.try_clone().unwrap(), 4000, 5000).unwrap();
        read(file, 9000, 1).unwrap();
        let directory = File::open("/").unwrap();
        read(directory, 0, 1).unwrap_err();
    }

    #[test]
    fn a_dropped_ticket_closes_the_file_that_nobody_has_begun_to_read() {
        let part = Arc::new(Part {
            file: Mutex::new(Some(tempfile::tempfile().unwrap())),
            at: 0,
            bytes: 1,
            cancelled: AtomicBool::new(false),
        });
        drop(Ticket(part.clone()));
        assert!(part.take().is_none());
        part.read(&mut [0; 10]).unwrap_err();
    }
}
