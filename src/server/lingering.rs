//! Data connections that have been sent to the end: shut down for writing, they wait for the
//! client's end, so that a byte from it does not reset what is still on its way.
//!
//! They are not registered for events. Each newcomer has an older one looked at, which by then has
//! almost always been closed by its client.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use rustix::io::Errno;

const PATIENCE: Duration = Duration::from_secs(2);
/// What a client may still send before it is cut off.
const READ_BYTES: usize = 16 * 1024;

/// The connections, oldest first.
#[derive(Debug)]
pub struct Lingering {
    held: VecDeque<(Instant, TcpStream)>,
    held_max: usize,
}

impl Lingering {
    /// Holds up to `held_max` connections. They are descriptors that no session has: clients that
    /// are refused and stay must not take those that sessions need.
    pub fn new(held_max: usize) -> Lingering {
        Lingering {
            held: VecDeque::new(),
            held_max,
        }
    }

    /// Adds a connection that was shut down for writing.
    pub fn add(&mut self, stream: TcpStream, now: Instant) {
        self.held.push_back((now + PATIENCE, stream));
        if self.held.len() > self.held_max {
            self.held.pop_front();
        }
        if self.held.len() > 1 {
            self.look_at_oldest(now);
        }
    }

    /// When [`Lingering::expire`] has something to do.
    pub fn next(&self) -> Option<Instant> {
        self.held.front().map(|(until, _)| *until)
    }

    /// Closes those whose time is over.
    pub fn expire(&mut self, now: Instant) {
        while self.next().is_some_and(|until| until <= now) {
            self.held.pop_front();
        }
    }

    /// Closes those whose client has closed, whatever their time: descriptors are short.
    pub fn hurry(&mut self, now: Instant) {
        for _ in 0..self.held.len() {
            self.look_at_oldest(now);
        }
    }

    fn look_at_oldest(&mut self, now: Instant) {
        let Some((until, stream)) = self.held.pop_front() else {
            return;
        };
        let mut bytes = [0u8; READ_BYTES];
        let open = matches!(
            rustix::io::read(&stream, &mut bytes),
            Ok(1..) | Err(Errno::AGAIN | Errno::INTR)
        );
        if open && until > now {
            self.held.push_back((until, stream));
        }
    }
}
