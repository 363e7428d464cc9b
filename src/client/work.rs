//! Carrying out a plan: small files one behind the other on one connection, large ones on several,
//! and again what a broken connection has left undone.
//!
//! Where the server knows UPLOAD and DOWNLOAD, the first connection moves all small files without
//! waiting for answers; elsewhere every file takes its round trips, and all connections share them.
//! The files that are still to be moved are one queue; whoever loses a connection puts back what it
//! had. An upload without an answer may have been stored: it is looked at before it is sent again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::proto::upload::IMMEDIATE_BYTES_MAX;

use super::Client;
use super::connection::Connection;
use super::dir::Dir;
use super::error::{Error, Exit};
use super::options::Options;
use super::plan::{Item, Plan};
use super::remains::Remains;
use super::report::{Deed, Report};
use super::{fetch, interrupt, send};

/// The longest pause before another attempt.
const PAUSE_S_MAX: u64 = 30;
/// So many files are worth another connection where each takes its round trips.
const FILES_PER_CONNECTION: usize = 4;

/// Where files go.
pub enum Way {
    /// To the server.
    Up {
        /// Names that are taken there stay as they are.
        no_clobber: bool,
        /// Links below a pair are followed.
        follows: bool,
    },
    /// To this machine.
    Down {
        /// What all local names of the plan are relative to.
        target: Dir,
        /// How messages write it.
        shown: Vec<u8>,
        /// Files that are there are replaced.
        replaces: bool,
    },
}

/// A plan that is being carried out.
pub struct Work<'a> {
    /// What is to be moved.
    pub plan: &'a Plan,
    /// Where to.
    pub way: Way,
    /// How.
    pub options: &'a Options,
    /// Who is told.
    pub report: &'a Report,
    /// The server, for messages and temporary names.
    pub server: String,
    /// What earlier downloads have left.
    pub remains: Remains,
    retries: u32,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    small: VecDeque<u32>,
    large: VecDeque<u32>,
    /// How often each was in the middle of being moved when a connection broke.
    attempts: HashMap<u32, u32>,
    /// Uploads that were sent and not answered.
    doubtful: HashSet<u32>,
    /// How many bytes of an upload earlier attempts may have sent.
    sent: HashMap<u32, u64>,
    /// Nothing more can be moved.
    stop: Option<Error>,
}

impl<'a> Work<'a> {
    /// Nothing is moved yet.
    pub fn new(
        plan: &'a Plan,
        way: Way,
        options: &'a Options,
        report: &'a Report,
        client: &Client,
    ) -> Work<'a> {
        Work {
            plan,
            way,
            options,
            report,
            server: client.server().to_string(),
            remains: Remains::default(),
            retries: client.retries(),
            queue: Mutex::default(),
        }
    }

    /// Moves everything. What becomes of each file is told; what could not be tried at all is told
    /// as one sentence.
    ///
    /// # Errors
    /// No connection at all.
    pub fn run(self, client: &mut Client) -> Result<(), Error> {
        let c = client.ready()?;
        let is_own = self.is_own(c);
        {
            let mut queue = self.queue();
            for (at, item) in self.plan.files.iter().enumerate() {
                let at = u32::try_from(at).unwrap_or(u32::MAX);
                match item.bytes > IMMEDIATE_BYTES_MAX {
                    true => queue.large.push_back(at),
                    false => queue.small.push_back(at),
                }
            }
        }
        let helpers = self.helpers(is_own);
        let ended = std::thread::scope(|scope| {
            for _ in 0..helpers {
                let mut sibling = client.sibling();
                let work = &self;
                let serve = move || {
                    // What it leaves is still in the queue; the first connection says what is wrong.
                    let _ = work.serve(&mut sibling, false);
                    sibling.quit();
                };
                // Without a thread there is one connection less.
                let _ = std::thread::Builder::new().spawn_scoped(scope, serve);
            }
            self.serve(client, true)
        });
        // Helpers may have put something back when the first connection had nothing left to do.
        let has_left = {
            let queue = self.queue();
            !queue.small.is_empty() || !queue.large.is_empty()
        };
        let ended = match has_left {
            true => ended.and_then(|()| self.serve(client, true)),
            false => ended,
        };
        let mut queue = self.queue();
        let left = queue.small.len() + queue.large.len();
        let error = queue.stop.take().or(ended.err());
        if let Some(error) = error {
            let only = queue.small.front().or(queue.large.front()).copied();
            match (left, only) {
                (0, _) => {}
                (1, Some(at)) => {
                    drop(queue);
                    self.failed(at, error);
                }
                (left, _) => self
                    .report
                    .wrong(error.hint(format_args!("{left} files were not moved"))),
            }
        }
        Ok(())
    }

    fn helpers(&self, is_own: bool) -> usize {
        let queue = self.queue();
        let useful = match is_own {
            true => (queue.large.len() + usize::from(!queue.small.is_empty())).saturating_sub(1),
            false => (queue.large.len() + queue.small.len() / FILES_PER_CONNECTION).max(1) - 1,
        };
        useful.min(usize::from(self.options.jobs) - 1)
    }

    fn is_own(&self, c: &Connection) -> bool {
        match self.way {
            Way::Up { .. } => c.features.upload.is_some(),
            Way::Down { .. } => c.features.download,
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One connection's share, with as many connections as that takes.
    fn serve(&self, client: &mut Client, is_first: bool) -> Result<(), Error> {
        let mut retry = Retry::new(self.retries);
        loop {
            let settled = self.report.settled();
            let was_connected = client.is_connected();
            let passed = client.ready().and_then(|c| self.pass(c, is_first));
            let Err(error) = passed else { return Ok(()) };
            if self.queue().stop.is_some() {
                return Ok(());
            }
            // The server wants fewer connections, or none for this user.
            if !is_first && !was_connected && !client.is_connected() {
                return Err(error);
            }
            retry.again(error, self.report.settled() > settled, client, self.report)?;
        }
    }

    /// Moves files until there are none, or the connection is lost.
    fn pass(&self, c: &mut Connection, is_first: bool) -> Result<(), Error> {
        let is_own = self.is_own(c);
        if is_own && is_first {
            match self.way {
                Way::Up { .. } => send::small(self, c)?,
                Way::Down { .. } => fetch::small(self, c)?,
            }
        }
        while let Some(at) = self.next_single(is_own) {
            let moved = match self.way {
                Way::Up { .. } => send::single(self, c, at),
                Way::Down { .. } => fetch::single(self, c, at),
            };
            match moved {
                Ok(()) => {}
                Err(error) if error.exit == Exit::Broken => {
                    self.put_back([at], &error);
                    return Err(error);
                }
                Err(error) => self.failed(at, error),
            }
        }
        Ok(())
    }

    fn next_single(&self, is_own: bool) -> Option<u32> {
        let mut queue = self.queue();
        if queue.stop.is_some() {
            return None;
        }
        let large = queue.large.pop_front();
        match is_own {
            true => large,
            false => large.or_else(|| queue.small.pop_front()),
        }
    }

    /// The next file for the one connection that moves the small ones.
    pub fn next_small(&self) -> Option<u32> {
        let mut queue = self.queue();
        match queue.stop {
            Some(_) => None,
            None => queue.small.pop_front(),
        }
    }

    /// It has turned out to be large.
    pub fn is_large(&self, at: u32) {
        self.queue().large.push_back(at);
    }

    /// Files that were in the middle of being moved, the first of them first.
    pub fn put_back(&self, items: impl IntoIterator<Item = u32>, why: &Error) {
        let mut failed = Vec::new();
        {
            let mut queue = self.queue();
            let mut back = Vec::new();
            for (n, at) in items.into_iter().enumerate() {
                // Those behind the first have done nothing wrong.
                let attempts = queue.attempts.entry(at).or_default();
                *attempts += u32::from(n == 0);
                if *attempts > self.retries {
                    failed.push(at);
                } else {
                    back.push(at);
                }
            }
            for at in back.into_iter().rev() {
                match self.item(at).bytes > IMMEDIATE_BYTES_MAX {
                    true => queue.large.push_front(at),
                    false => queue.small.push_front(at),
                }
            }
        }
        for at in failed {
            self.failed(at, why.again());
        }
    }

    /// These uploads may have been stored.
    pub fn doubt(&self, items: impl IntoIterator<Item = u32>) {
        self.queue().doubtful.extend(items);
    }

    /// The uploads that may have been stored, out of the queue.
    pub fn doubtful(&self) -> Vec<u32> {
        let mut queue = self.queue();
        let doubtful: HashSet<u32> = queue.doubtful.drain().collect();
        queue.small.retain(|at| !doubtful.contains(at));
        let mut doubtful: Vec<u32> = doubtful.into_iter().collect();
        doubtful.sort_unstable();
        doubtful
    }

    /// Back into the queue, to be sent.
    pub fn send_again(&self, at: u32) {
        self.queue().small.push_front(at);
    }

    /// How many bytes of it an earlier attempt may have sent.
    pub fn sent(&self, at: u32) -> u64 {
        self.queue().sent.get(&at).copied().unwrap_or(0)
    }

    /// An attempt begins that may send so many bytes.
    pub fn note_sent(&self, at: u32, bytes: u64) {
        self.queue().sent.insert(at, bytes);
    }

    /// Whether this is not the first attempt.
    pub fn is_again(&self, at: u32) -> bool {
        self.queue().attempts.contains_key(&at)
    }

    /// One file of the plan.
    pub fn item(&self, at: u32) -> &'a Item {
        &self.plan.files[at as usize]
    }

    /// Its name on this machine, for messages.
    pub fn local(&self, at: u32) -> Vec<u8> {
        let item = self.item(at);
        let path = self.plan.local(item.pair, &item.path);
        match &self.way {
            Way::Down { shown, .. } => super::local::joined(shown, &path),
            Way::Up { .. } => path,
        }
    }

    /// Its name on the server.
    pub fn remote(&self, at: u32) -> Vec<u8> {
        let item = self.item(at);
        self.plan.remote(item.pair, &item.path)
    }

    /// It was moved.
    pub fn done(&self, at: u32, bytes: u64) {
        self.told(at, Some(bytes), |deed| self.report.done(deed));
    }

    /// It was not, and will not be.
    pub fn failed(&self, at: u32, error: Error) {
        if error.exit == Exit::Full && error.code.is_none() {
            // The disk here is full; the next file would find it so, too.
            let stop = Error::new(Exit::Full, "no space left on this machine");
            self.queue().stop.get_or_insert(stop);
        }
        self.told(at, None, |deed| self.report.failed(deed, error));
    }

    fn told(&self, at: u32, bytes: Option<u64>, tell: impl FnOnce(Deed)) {
        let (local, remote) = (self.local(at), self.remote(at));
        let (verb, from, to) = match self.way {
            Way::Up { .. } => ("upload", &local, &remote),
            Way::Down { .. } => ("download", &remote, &local),
        };
        tell(Deed {
            verb,
            from,
            to: Some(to),
            bytes,
        });
    }
}

/// Attempts after a broken connection, with growing waits.
pub struct Retry {
    left: u32,
    most: u32,
    pause_s: u64,
    first: Option<Error>,
}

impl Retry {
    /// So many in a row.
    pub fn new(most: u32) -> Retry {
        Retry {
            left: most,
            most,
            pause_s: 1,
            first: None,
        }
    }

    /// Waits for another attempt.
    ///
    /// # Errors
    /// There is none: the error is nothing that time heals, or it was the last. It is what went wrong
    /// first.
    pub fn again(
        &mut self,
        error: Error,
        had_progress: bool,
        client: &mut Client,
        report: &Report,
    ) -> Result<(), Error> {
        if had_progress {
            *self = Retry::new(self.most);
        }
        let heals =
            matches!(error.exit, Exit::Broken | Exit::CannotConnect) && !interrupt::is_set();
        let said = error.to_string();
        if !heals {
            return Err(error);
        }
        let first = self.first.take().unwrap_or(error);
        if self.left == 0 {
            return Err(match self.most {
                0 => first,
                most => first.hint(format_args!("and {most} more attempts failed")),
            });
        }
        self.first = Some(first);
        self.left -= 1;
        client.hang_up();
        let pause_s = self.pause_s;
        report.mention(format_args!("{said}; trying again in {pause_s} s"));
        interrupt::pause(Duration::from_secs(pause_s));
        self.pause_s = (pause_s * 2).min(PAUSE_S_MAX);
        Ok(())
    }
}

/// Does something that may be done twice, again after a broken connection.
///
/// # Errors
/// The last attempt failed, or it is nothing that another would heal.
pub fn retried<T>(
    client: &mut Client,
    report: &Report,
    mut act: impl FnMut(&mut Connection) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut retry = Retry::new(client.retries());
    loop {
        match client.ready().and_then(&mut act) {
            Ok(done) => return Ok(done),
            Err(error) if error.exit == Exit::CannotConnect && retry.first.is_none() => {
                return Err(error);
            }
            Err(error) => retry.again(error, false, client, report)?,
        }
    }
}
