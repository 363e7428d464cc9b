//! Which session writes which partial, so that nobody continues what is still being written, and a
//! session that has lost its client gives way to one that came back.

use std::collections::HashMap;

use super::Id;
use crate::storage::partials::{Keeping, Key};

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
    /// Those that began before and still write: nothing of theirs is wanted any more, however long they
    /// take to end.
    overtaken: Vec<Id>,
    /// Broken off, and on the way to the disk, or from there if it is outdated.
    keeping: Vec<Keeping>,
    waiting: Vec<Id>,
}

impl Uploads {
    /// A session begins to write. Whoever wrote it before keeps nothing of what it has.
    pub fn begin(&mut self, key: Key, id: Id) {
        let entry = self.all.entry(key).or_default();
        let before = entry.writer.replace(id).filter(|&before| before != id);
        entry.overtaken.extend(before);
        entry.keeping.iter().for_each(Keeping::outdate);
    }

    /// What there was is removed: nothing is wanted of what is being kept.
    pub fn outdate(&mut self, key: Key) {
        if let Some(entry) = self.all.get(&key) {
            entry.keeping.iter().for_each(Keeping::outdate);
        }
    }

    /// A session writes no more, for whatever reason.
    pub fn end(&mut self, key: Key, id: Id) {
        if let Some(entry) = self.all.get_mut(&key) {
            entry.overtaken.retain(|&it| it != id);
            entry.writer = entry.writer.filter(|&it| it != id);
            self.settle(key);
        }
    }

    /// What a session wrote is being kept. False: another one has begun since, and nothing of it is
    /// wanted.
    pub fn keep(&mut self, keeping: &Keeping, id: Id) -> bool {
        let entry = self.all.entry(keeping.key()).or_default();
        let is_last = entry.writer.is_none_or(|writer| writer == id);
        let is_wanted = is_last && !entry.overtaken.contains(&id);
        if !is_wanted {
            keeping.outdate();
        }
        entry.keeping.push(keeping.clone());
        self.keeping += 1;
        is_wanted
    }

    /// It is kept, or gone. True: it has to go, and [`Uploads::gone`] is to be called when it has.
    /// Those that began later may be done first.
    pub fn kept(&mut self, keeping: &Keeping) -> bool {
        if keeping.is_outdated() {
            return true;
        }
        self.gone(keeping);
        false
    }

    /// What had to go has gone.
    pub fn gone(&mut self, keeping: &Keeping) {
        let key = keeping.key();
        if let Some(entry) = self.all.get_mut(&key)
            && let Some(at) = entry.keeping.iter().position(|it| it.is_of(keeping))
        {
            entry.keeping.swap_remove(at);
            self.keeping -= 1;
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
            None if entry.is_free() => return true,
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
            Some(entry) if !entry.is_free() => entry.waiting.push(id),
            _ => self.freed.push(id),
        }
    }

    /// The next session that waits no more.
    pub fn next_freed(&mut self) -> Option<Id> {
        self.freed.pop()
    }

    fn settle(&mut self, key: Key) {
        let Some(entry) = self.all.get_mut(&key).filter(|entry| entry.is_free()) else {
            return;
        };
        self.freed.append(&mut entry.waiting);
        if entry.overtaken.is_empty() {
            self.all.remove(&key);
        }
    }
}

impl Entry {
    /// Whether nobody writes what is wanted, and none of that is on its way to the disk.
    fn is_free(&self) -> bool {
        self.writer.is_none() && self.keeping.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::partials::{Interrupted, Owner};
    use crate::storage::path::VirtualPath;
    use crate::storage::root::Root;
    use crate::storage::staging::Upload;

    const ID: Id = Id {
        key: 1,
        generation: 1,
    };

    /// What is told of uploads of one name, each of which has begun and broken off.
    fn kept<const N: usize>(uploads: &mut Uploads) -> [Keeping; N] {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let path = VirtualPath::root().join(b"f");
        std::array::from_fn(|_| {
            let owner = Owner::user(b"me");
            let upload = Upload::create_for(&root, &path, &owner, Interrupted::Kept).unwrap();
            let keeping = upload.keeping().unwrap();
            uploads.begin(keeping.key(), ID);
            assert!(uploads.keep(&keeping, ID));
            uploads.end(keeping.key(), ID);
            keeping
        })
    }

    #[test]
    fn the_last_that_began_is_wanted_whichever_is_kept_first() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
            let mut uploads = Uploads::default();
            let all: [Keeping; 3] = kept(&mut uploads);
            for at in order {
                assert!(!uploads.reach(all[at].key(), ID), "something is being kept");
                let has_to_go = uploads.kept(&all[at]);
                assert_eq!(has_to_go, at != 2, "{at} of {order:?}");
                if has_to_go {
                    uploads.gone(&all[at]);
                }
            }
            assert!(uploads.reach(all[0].key(), ID) && !uploads.is_keeping());
        }
    }

    #[test]
    fn who_was_overtaken_keeps_nothing_however_late_it_ends() {
        let other = Id { key: 2, ..ID };
        let mut uploads = Uploads::default();
        let [slow] = kept(&mut uploads);
        uploads.kept(&slow);
        uploads.begin(slow.key(), other);
        let [new] = kept(&mut uploads);
        assert!(!uploads.kept(&new));
        // What the new one left may be continued while the other still writes, and is not replaced by it.
        assert!(uploads.reach(new.key(), ID));
        assert!(!uploads.keep(&slow, other));
        uploads.end(slow.key(), other);
        assert!(uploads.kept(&slow), "it has to go");
        uploads.gone(&slow);
        assert!(uploads.all.is_empty());
        // The next one of the same session is wanted again.
        uploads.begin(slow.key(), other);
        uploads.begin(slow.key(), ID);
        uploads.end(slow.key(), other);
        uploads.begin(slow.key(), other);
        uploads.end(slow.key(), ID);
        let [last] = kept(&mut uploads);
        assert!(!uploads.kept(&last));
        uploads.end(slow.key(), other);
        assert!(uploads.all.is_empty());
    }

    #[test]
    fn what_is_on_its_way_out_takes_nothing_along_that_began_later() {
        let mut uploads = Uploads::default();
        let [first] = kept(&mut uploads);
        uploads.begin(first.key(), ID);
        assert!(uploads.kept(&first));
        // Another one, while the first is being removed.
        let [second] = kept(&mut uploads);
        assert!(!uploads.kept(&second));
        uploads.gone(&first);
        assert!(!uploads.is_keeping());
    }

    #[test]
    fn nothing_is_wanted_of_what_was_removed() {
        let mut uploads = Uploads::default();
        let [before, after] = kept(&mut uploads);
        assert!(before.is_outdated() && !after.is_outdated());
        uploads.outdate(after.key());
        assert!(uploads.kept(&after) && uploads.kept(&before));
        uploads.gone(&after);
        uploads.gone(&before);
        assert!(!uploads.is_keeping());
    }
}
