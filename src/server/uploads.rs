//! Which session writes which partial, so that nobody continues what is still being written, and a
//! session that has lost its client gives way to one that came back.

use std::collections::HashMap;

use super::Id;
use crate::storage::partials::Key;

/// Uploads that are running, and those that have just broken off.
#[derive(Debug, Default)]
pub struct Uploads {
    all: HashMap<Key, Entry>,
    /// Who asked about a partial that a session writes, and who that is.
    asked: Vec<(Id, Id, Key)>,
    /// Who may go on.
    freed: Vec<Id>,
    keeping: usize,
}

#[derive(Debug, Default)]
struct Entry {
    /// The last session that began.
    writer: Option<Id>,
    /// Broken off, and on the way to the disk.
    keeping: usize,
    /// So many of them are of no use any more, since another upload has begun.
    outdated: usize,
    waiting: Vec<Id>,
}

impl Uploads {
    /// A session begins to write. Whoever wrote it before keeps nothing of what it has.
    pub fn begin(&mut self, key: Key, id: Id) {
        let entry = self.all.entry(key).or_default();
        entry.writer = Some(id);
        entry.outdated = entry.keeping;
    }

    /// A session writes no more, for whatever reason.
    pub fn end(&mut self, key: Key, id: Id) {
        if let Some(entry) = self.all.get_mut(&key)
            && entry.writer == Some(id)
        {
            entry.writer = None;
            self.settle(key);
        }
    }

    /// What a session wrote is being kept. False: another one has begun since, and nothing of it is
    /// wanted.
    pub fn keep(&mut self, key: Key, id: Id) -> bool {
        let entry = self.all.entry(key).or_default();
        entry.keeping += 1;
        self.keeping += 1;
        let is_wanted = entry.writer.is_none_or(|writer| writer == id);
        entry.outdated += usize::from(!is_wanted);
        is_wanted
    }

    /// It is kept, or gone. True: it has to go, and [`Uploads::gone`] is to be called when it has.
    /// Those that began first are taken to be done first.
    pub fn kept(&mut self, key: Key) -> bool {
        let Some(entry) = self.all.get_mut(&key) else {
            return false;
        };
        if entry.outdated > 0 {
            entry.outdated -= 1;
            return true;
        }
        self.gone(key);
        false
    }

    /// What had to go has gone.
    pub fn gone(&mut self, key: Key) {
        if let Some(entry) = self.all.get_mut(&key) {
            entry.keeping = entry.keeping.saturating_sub(1);
            self.keeping = self.keeping.saturating_sub(1);
            self.settle(key);
        }
    }

    /// Whether anything is on its way to the disk.
    pub fn is_keeping(&self) -> bool {
        self.keeping > 0
    }

    /// A session wants to continue it. True: it may at once.
    pub fn reach(&mut self, key: Key, id: Id) -> bool {
        let Some(entry) = self.all.get_mut(&key) else {
            return true;
        };
        match entry.writer {
            Some(writer) => self.asked.push((id, writer, key)),
            None => entry.waiting.push(id),
        }
        false
    }

    /// The next session that asked, who writes what it wants, and which that is.
    pub fn next_asked(&mut self) -> Option<(Id, Id, Key)> {
        self.asked.pop()
    }

    /// A session waits until what another writes has broken off and is kept.
    pub fn wait(&mut self, key: Key, id: Id) {
        match self.all.get_mut(&key) {
            Some(entry) => entry.waiting.push(id),
            None => self.freed.push(id),
        }
    }

    /// The next session that waits no more.
    pub fn next_freed(&mut self) -> Option<Id> {
        self.freed.pop()
    }

    fn settle(&mut self, key: Key) {
        let over = |entry: &Entry| entry.writer.is_none() && entry.keeping == 0;
        if self.all.get(&key).is_some_and(over)
            && let Some(entry) = self.all.remove(&key)
        {
            self.freed.extend(entry.waiting);
        }
    }
}
