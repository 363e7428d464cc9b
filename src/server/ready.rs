//! Whose turn it is. Who only talks comes before those who move bytes, and these have so much time until
//! it is looked again whether somebody talks.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::conn::Conn;
use super::{Id, Server};

/// What an answer may have to wait for, however many transfers run. Between two such times stands a look
/// at all sockets, which costs a few microseconds.
const MOVING_TIME: Duration = Duration::from_micros(200);

/// Connections that have something to do, each once.
#[derive(Debug, Default)]
pub(super) struct Ready {
    talking: VecDeque<Id>,
    moving: VecDeque<Id>,
}

impl Ready {
    pub(super) fn is_empty(&self) -> bool {
        self.talking.is_empty() && self.moving.is_empty()
    }
}

impl Server {
    /// One turn for each connection that only talks, and then for those that move bytes, as many as
    /// time allows. Those that have more to do afterwards, or had none, come in the next.
    pub(super) fn serve_ready(&mut self) {
        let begin = Instant::now();
        for _ in 0..self.ready.talking.len() {
            if let Some(id) = self.ready.talking.pop_front() {
                self.serve(id);
            }
        }
        if self.ready.moving.is_empty() {
            return;
        }
        // However much is talked, half of the time is theirs.
        let talked = begin.elapsed();
        let until = begin + talked + talked.max(MOVING_TIME);
        for _ in 0..self.ready.moving.len() {
            if let Some(id) = self.ready.moving.pop_front() {
                self.serve(id);
            }
            if Instant::now() >= until {
                return;
            }
        }
    }
}

/// Puts a connection into its queue once.
pub(super) fn queue(ready: &mut Ready, conn: &mut Conn) {
    if !conn.queued {
        conn.queued = true;
        match conn.is_moving() {
            true => ready.moving.push_back(conn.id),
            false => ready.talking.push_back(conn.id),
        }
    }
}
