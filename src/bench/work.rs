//! What the sessions of a run are given to do, and under which names it lies on the server.

use std::collections::VecDeque;

use super::mix::{Mix, Turns};
use super::operation::{Kind, Operation};

/// Where operations come from.
pub trait Work {
    /// The next thing that a session does; `None` if there is nothing for it.
    fn next(&mut self, session: usize) -> Option<Operation>;
}

/// A list of things to do, once.
#[derive(Debug)]
pub struct Errands(VecDeque<Operation>);

impl Errands {
    /// In this order.
    pub fn new(operations: Vec<Operation>) -> Errands {
        Errands(operations.into())
    }
}

impl Work for Errands {
    fn next(&mut self, _: usize) -> Option<Operation> {
        self.0.pop_front()
    }
}

/// The files of a load, and how many of them.
#[derive(Debug, Clone)]
pub struct Files {
    /// Made by the bench, and removed; names below it belong to it.
    pub directory: Vec<u8>,
    /// Given by the user: nothing is made for what is read then.
    pub path: Option<Vec<u8>>,
    /// How large a file is, unless its share says otherwise.
    pub bytes: u64,
    /// How many there are to download, and to upload to.
    pub count: u64,
    /// Entries of a directory to list.
    pub entries: u64,
}

/// A mix, without end.
#[derive(Debug)]
pub struct Load {
    mix: Mix,
    files: Files,
    turns: Turns,
    downloads: u64,
    /// Per session, how many uploads it has begun.
    uploads: Vec<u64>,
    /// Names per session and share that uploads go to, in turn.
    names_per_session: u64,
}

impl Load {
    /// For up to so many sessions with so many operations under way in each.
    pub fn new(mix: Mix, files: Files, sessions: usize, in_flight: usize) -> Load {
        let share = files.count.div_ceil(sessions.max(1) as u64);
        Load {
            turns: Turns::new(&mix),
            mix,
            files,
            downloads: 0,
            uploads: vec![0; sessions],
            // Two of one name at a time would be a test of something else.
            names_per_session: share.max(in_flight as u64),
        }
    }

    /// Whether files have to be made before, or come into being.
    pub fn needs_directory(&self) -> bool {
        let reads = self.mix.has(Kind::Download) || self.mix.has(Kind::List);
        self.mix.has(Kind::Upload) || reads && self.files.path.is_none()
    }

    /// Where on the server everything is.
    pub fn directory(&self) -> &[u8] {
        &self.files.directory
    }

    /// What has to be done before.
    pub fn preparations(&self) -> Vec<Operation> {
        let mut errands = Vec::new();
        if !self.needs_directory() {
            return errands;
        }
        errands.push(Operation::Make(self.files.directory.clone()));
        if self.files.path.is_some() {
            return errands;
        }
        for (at, share) in self.mix.shares.iter().enumerate() {
            match share.kind {
                Kind::Download => {
                    let bytes = share.file_bytes.unwrap_or(self.files.bytes);
                    let upload = |n| Operation::Upload(self.download_name(at, n), bytes);
                    errands.extend((0..self.files.count).map(upload));
                }
                Kind::List => {
                    errands.push(Operation::Make(self.list_name(at)));
                    let upload = |n| Operation::Upload(self.entry_name(at, n), 0);
                    errands.extend((0..self.files.entries).map(upload));
                }
                _ => {}
            }
        }
        errands
    }

    /// What has to be done afterwards. Names that were never made are among it.
    pub fn removals(&self) -> Vec<Operation> {
        let mut errands = Vec::new();
        if !self.needs_directory() {
            return errands;
        }
        for (at, share) in self.mix.shares.iter().enumerate() {
            match share.kind {
                Kind::Upload => {
                    for (session, begun) in self.uploads.iter().enumerate() {
                        let names = self.names_per_session.min(*begun);
                        let delete = |n| Operation::Delete(self.upload_name(at, session, n));
                        errands.extend((0..names).map(delete));
                    }
                }
                Kind::Download if self.files.path.is_none() => {
                    let delete = |n| Operation::Delete(self.download_name(at, n));
                    errands.extend((0..self.files.count).map(delete));
                }
                Kind::List if self.files.path.is_none() => {
                    let delete = |n| Operation::Delete(self.entry_name(at, n));
                    errands.extend((0..self.files.entries).map(delete));
                    errands.push(Operation::RemoveDirectory(self.list_name(at)));
                }
                _ => {}
            }
        }
        errands.push(Operation::RemoveDirectory(self.files.directory.clone()));
        errands
    }

    fn below(&self, name: String) -> Vec<u8> {
        [&self.files.directory, name.as_bytes()].join(&b'/')
    }

    fn download_name(&self, share: usize, n: u64) -> Vec<u8> {
        match &self.files.path {
            Some(path) => path.clone(),
            None => self.below(format!("d{share}-{n}")),
        }
    }

    fn upload_name(&self, share: usize, session: usize, n: u64) -> Vec<u8> {
        self.below(format!("u{share}-{session}-{n}"))
    }

    fn list_name(&self, share: usize) -> Vec<u8> {
        match &self.files.path {
            Some(path) => path.clone(),
            None => self.below(format!("l{share}")),
        }
    }

    fn entry_name(&self, share: usize, n: u64) -> Vec<u8> {
        self.below(format!("l{share}/entry-{n}"))
    }
}

impl Work for Load {
    fn next(&mut self, session: usize) -> Option<Operation> {
        if self.mix.shares.is_empty() {
            return None;
        }
        let at = self.turns.take();
        let share = &self.mix.shares[at];
        Some(match share.kind {
            Kind::Noop | Kind::Errand => Operation::Noop,
            Kind::Login => Operation::Login,
            Kind::List => Operation::List(self.list_name(at)),
            Kind::Download => {
                let n = self.downloads % self.files.count;
                self.downloads += 1;
                Operation::Download(self.download_name(at, n))
            }
            Kind::Upload => {
                let bytes = share.file_bytes.unwrap_or(self.files.bytes);
                let begun = &mut self.uploads[session];
                let n = *begun % self.names_per_session;
                *begun += 1;
                Operation::Upload(self.upload_name(at, session, n), bytes)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn load(text: &str, path: Option<&[u8]>) -> Load {
        let files = Files {
            directory: b"tmp".to_vec(),
            path: path.map(<[u8]>::to_vec),
            bytes: 10,
            count: 3,
            entries: 2,
        };
        Load::new(Mix::parse(text).unwrap(), files, 4, 2)
    }

    #[test]
    fn everything_that_was_made_is_removed_and_the_directory_last() {
        let mut load = load("download 1\nupload 2\nlist 1", None);
        let mut made = BTreeSet::new();
        let mut make = |operation: Operation| match operation {
            Operation::Make(path) | Operation::Upload(path, _) => {
                made.insert(path);
            }
            _ => {}
        };
        load.preparations().into_iter().for_each(&mut make);
        for i in 0..100 {
            make(load.next(i % 4).unwrap());
        }
        for operation in load.removals() {
            match operation {
                Operation::Delete(path) => assert!(made.remove(&path), "{path:?}"),
                Operation::RemoveDirectory(path) => {
                    let inside = |it: &&Vec<u8>| it.starts_with(&path) && **it != path;
                    assert_eq!(made.iter().find(inside), None);
                    assert!(made.remove(&path));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(made, BTreeSet::new());
    }

    #[test]
    fn sessions_never_share_a_name_and_one_has_enough_for_what_is_in_flight() {
        let mut load = load("upload 1", None);
        let mut names: Vec<Vec<Operation>> = Vec::new();
        for session in 0..4 {
            names.push((0..2).filter_map(|_| load.next(session)).collect());
        }
        for (at, mine) in names.iter().enumerate() {
            assert_ne!(mine[0], mine[1]);
            for others in &names[..at] {
                assert!(mine.iter().all(|name| !others.contains(name)));
            }
        }
    }

    #[test]
    fn with_a_path_of_the_user_nothing_is_made() {
        let mut load = load("download 1", Some(b"/there"));
        assert_eq!(load.preparations(), []);
        assert_eq!(load.removals(), []);
        assert_eq!(load.next(0), Some(Operation::Download(b"/there".to_vec())));
    }
}
