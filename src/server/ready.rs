//! Whose turn it is. Who only talks comes before those who move bytes or have more to say than fits into
//! a turn, and these have so much time until it is looked again whether somebody talks.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::conn::Conn;
use super::{Id, Server};

/// What an answer may have to wait for, however many are busy. Between two such times stands a look
/// at all sockets, which costs a few microseconds.
const BUSY_TIME: Duration = Duration::from_micros(200);

/// Connections that have something to do, each once.
#[derive(Debug, Default)]
pub(super) struct Ready {
    talking: VecDeque<Id>,
    busy: VecDeque<Id>,
}

impl Ready {
    pub(super) fn is_empty(&self) -> bool {
        self.talking.is_empty() && self.busy.is_empty()
    }
}

impl Server {
    /// One turn for each connection that only talks, and then for those that are busy, one after the other
    /// and round again, as many as time allows.
    pub(super) fn serve_ready(&mut self) {
        let begin = Instant::now();
        for _ in 0..self.ready.talking.len() {
            if let Some(id) = self.ready.talking.pop_front() {
                self.serve(id);
            }
        }
        if self.ready.busy.is_empty() {
            return;
        }
        // However much is talked, half of the time is theirs.
        let talked = begin.elapsed();
        let until = begin + talked + talked.max(BUSY_TIME);
        while let Some(id) = self.ready.busy.pop_front() {
            self.serve(id);
            if Instant::now() >= until {
                return;
            }
        }
    }
}

/// Puts a connection into its queue once.
pub(super) fn queue(ready: &mut Ready, conn: &mut Conn) {
    match conn.is_moving() {
        true => put(&mut ready.busy, conn),
        false => put(&mut ready.talking, conn),
    }
}

/// The same of a connection that has just used up a turn.
pub(super) fn queue_again(ready: &mut Ready, conn: &mut Conn) {
    put(&mut ready.busy, conn);
}

fn put(queue: &mut VecDeque<Id>, conn: &mut Conn) {
    if !conn.queued {
        conn.queued = true;
        queue.push_back(conn.id);
    }
}
