//! What is to be moved: a list of files with their names on both sides, and the directories that
//! they need. It is in memory as a whole, some hundred bytes a file, so that totals are known.

use std::collections::HashSet;

use crate::proto::facts::Kind;

use super::local::joined;
use super::scan::Entry;

/// Names that belong together on the two sides; items are at them or below them.
#[derive(Debug, Clone)]
pub struct Pair {
    /// For an upload a path; for a download relative to its target directory.
    pub local: Vec<u8>,
    /// On the server.
    pub remote: Vec<u8>,
}

/// One file.
#[derive(Debug, Clone)]
pub struct Item {
    /// Which pair.
    pub pair: u32,
    /// Below it; empty: the pair itself.
    pub path: Box<[u8]>,
    /// Its length, as far as it is known.
    pub bytes: u64,
    /// Last modification, if it is known.
    pub modify_s: Option<i64>,
    /// Permission bits, if they are to be kept.
    pub mode: Option<u32>,
    /// Its length is known.
    pub is_sized: bool,
}

/// What a directory gets when everything below it is done: what is made or removed in a directory
/// changes its time.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// Which pair.
    pub pair: u32,
    /// Below it; empty: the pair itself.
    pub path: Box<[u8]>,
    /// Last modification, if it is known.
    pub modify_s: Option<i64>,
    /// Permission bits, if they are to be kept.
    pub mode: Option<u32>,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Plan {
    /// Names on both sides.
    pub pairs: Vec<Pair>,
    /// Directories to be made, each before what is in it.
    pub dirs: Vec<(u32, Box<[u8]>)>,
    /// Directories that get their times, each before what is in it.
    pub stamps: Vec<Stamp>,
    /// Files to be moved.
    pub files: Vec<Item>,
    /// Links to be made, and where they point.
    pub links: Vec<Link>,
}

/// A link to be made: the number of its pair, its name and where it points.
pub type Link = (u32, Box<[u8]>, Box<[u8]>);

impl Plan {
    /// Adds a pair.
    pub fn pair(&mut self, local: Vec<u8>, remote: Vec<u8>) -> u32 {
        self.pairs.push(Pair { local, remote });
        u32::try_from(self.pairs.len() - 1).unwrap_or(u32::MAX)
    }

    /// Adds the directory that a pair is, of which `found` is known.
    pub fn add_top(&mut self, pair: u32, found: Option<Entry>) {
        match found {
            Some(entry) => self.add(pair, entry, true),
            None => self.dirs.push((pair, Box::default())),
        }
    }

    /// Adds one entry of a tree below a pair.
    pub fn add(&mut self, pair: u32, entry: Entry, follows: bool) {
        match (entry.kind, entry.target) {
            (Kind::Dir, _) => {
                self.stamps.push(Stamp {
                    pair,
                    path: entry.path.clone(),
                    modify_s: entry.modify_s,
                    mode: entry.mode,
                });
                self.dirs.push((pair, entry.path));
            }
            (Kind::Link, Some(target)) if !follows => self.links.push((pair, entry.path, target)),
            _ => self.files.push(Item {
                pair,
                path: entry.path,
                bytes: entry
                    .bytes
                    .filter(|_| entry.kind == Kind::File)
                    .unwrap_or(0),
                modify_s: entry.modify_s.filter(|_| entry.kind == Kind::File),
                mode: entry.mode.filter(|_| entry.kind == Kind::File),
                is_sized: entry.kind == Kind::File && entry.bytes.is_some(),
            }),
        }
    }

    /// The local name of what is at `path` below a pair.
    pub fn local(&self, pair: u32, path: &[u8]) -> Vec<u8> {
        below(&self.pairs[pair as usize].local, path)
    }

    /// The remote name of the same.
    pub fn remote(&self, pair: u32, path: &[u8]) -> Vec<u8> {
        below(&self.pairs[pair as usize].remote, path)
    }

    /// Takes out what is at or below these remote directories, which are written without a slash
    /// at the end, and returns the files of it.
    pub fn give_up(&mut self, dirs: &HashSet<Vec<u8>>) -> Vec<Item> {
        let pairs = &self.pairs;
        let is_lost = |pair: u32, path: &[u8]| {
            let whole = below(&pairs[pair as usize].remote, path);
            is_at_or_below(&whole, dirs)
        };
        self.stamps
            .retain(|stamp| !is_lost(stamp.pair, &stamp.path));
        let lost = |item: &mut Item| is_lost(item.pair, &item.path);
        self.files.extract_if(.., lost).collect()
    }

    /// Bytes in all.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|item| item.bytes).sum()
    }

    /// The same name twice on the target side would make two transfers race for it; the later one
    /// is taken out and given to `twice`.
    pub fn each_once(&mut self, is_upload: bool, mut twice: impl FnMut(&Item)) {
        if self.pairs.len() < 2 {
            let mut seen = HashSet::new();
            self.files.retain(|item| {
                let is_new = seen.insert(item.path.clone());
                if !is_new {
                    twice(item);
                }
                is_new
            });
            return;
        }
        let mut seen = HashSet::new();
        let pairs = std::mem::take(&mut self.pairs);
        self.files.retain(|item| {
            let pair = &pairs[item.pair as usize];
            let side = if is_upload { &pair.remote } else { &pair.local };
            let is_new = seen.insert(below(side, &item.path));
            if !is_new {
                twice(item);
            }
            is_new
        });
        self.pairs = pairs;
    }
}

/// Whether a path is one of `dirs`, or below one.
pub fn is_at_or_below(path: &[u8], dirs: &HashSet<Vec<u8>>) -> bool {
    let mut ends = memchr::memchr_iter(b'/', path).chain([path.len()]);
    ends.any(|end| dirs.contains(&path[..end]))
}

fn below(base: &[u8], path: &[u8]) -> Vec<u8> {
    match path.is_empty() {
        true => base.to_vec(),
        false => joined(base, path),
    }
}
