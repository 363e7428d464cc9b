//! Two trees, and what makes the second like the first. Values only: nothing here looks at a file or
//! asks a server.

use std::collections::{HashMap, HashSet};

use crate::proto::facts::Kind;

use super::scan::{Entry, Found};

/// How well times can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// The remote side's times came from lines for people: to the minute, or to the day.
    pub are_rough: bool,
    /// The remote side keeps the times that it is told. If not, what is newer there is the same.
    pub are_kept: bool,
    /// The second tree is the remote one.
    pub is_upload: bool,
}

/// What is to be done, by places in the two lists.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Directories and files that are missing, files and links that differ; in the order of the
    /// first.
    pub copy: Vec<usize>,
    /// Files of the same length on both sides: first and second. What `copy` says of them is by
    /// their times.
    pub alike: Vec<(usize, usize)>,
    /// What is in the way, of another kind; in an order in which it can be removed.
    pub clear: Vec<usize>,
    /// What is in the way and stays, since nothing is to be removed: places in the first.
    pub blocked: Vec<usize>,
    /// What the first does not have, in an order in which it can be removed.
    pub remove: Vec<usize>,
    /// What the first does not have as far as one can see, in directories that nobody sees whole.
    pub kept: Vec<usize>,
}

/// Compares by length and time. Links and other things of the first that are not copied protect
/// what has their name in the second.
pub fn compare(from: &Found, to: &Found, times: Times, deletes: bool) -> Changes {
    let there: HashMap<&[u8], usize> = places(to);
    let here: HashMap<&[u8], usize> = places(from);
    let mut changes = Changes::default();
    let mut cleared: Vec<&[u8]> = Vec::new();
    for (at, entry) in from.entries.iter().enumerate() {
        let other = there.get(&*entry.path).copied();
        let kinds = other.map(|other| (entry.kind, to.entries[other].kind));
        match (kinds, other) {
            (Some((Kind::Dir, Kind::Dir) | (Kind::Other, _)), _) => {}
            (None, _) => changes.copy.push(at),
            (Some((Kind::File, Kind::File)), Some(other)) => {
                let second = &to.entries[other];
                let is_long = entry.bytes.is_some() && entry.bytes == second.bytes;
                if is_long {
                    changes.alike.push((at, other));
                }
                if !is_long || !is_same_time(entry, second, times) {
                    changes.copy.push(at);
                }
            }
            (Some((Kind::Dir, _) | (_, Kind::Dir)), Some(_)) => match deletes {
                true if entry.kind != Kind::Link || !times.is_upload => {
                    cleared.push(&entry.path);
                    changes.copy.push(at);
                }
                _ => changes.blocked.push(at),
            },
            // A link is replaced as a file is.
            _ => changes.copy.push(at),
        }
    }
    let is_cleared = |path: &[u8]| {
        let above = memchr::memchr_iter(b'/', path).map(|at| &path[..at]);
        above.chain([path]).any(|path| cleared.contains(&path))
    };
    for (at, entry) in to.entries.iter().enumerate().rev() {
        if !cleared.is_empty() && is_cleared(&entry.path) {
            changes.clear.push(at);
        } else if deletes && !here.contains_key(&*entry.path) {
            match from.is_sure_about(&entry.path) {
                true => changes.remove.push(at),
                false => changes.kept.push(at),
            }
        }
    }
    changes
}

/// Directories on both sides whose time is another, or will be when the changes are made; each
/// before what is in it.
pub fn restamped<'a>(
    from: &'a Found,
    to: &Found,
    changes: &Changes,
    times: Times,
) -> Vec<&'a Entry> {
    if times.is_upload && !times.are_kept {
        return Vec::new();
    }
    let copied = changes.copy.iter().map(|&at| &*from.entries[at].path);
    let cleared = changes.clear.iter().chain(&changes.remove);
    let removed = cleared.map(|&at| &*to.entries[at].path);
    let touched: HashSet<&[u8]> = copied.chain(removed).map(above).collect();
    let there = places(to);
    let is_wanted = |entry: &&Entry| {
        let other = match entry.path.is_empty() {
            true => to.top.as_ref(),
            false => there.get(&*entry.path).map(|&at| &to.entries[at]),
        };
        let is_touched = touched.contains(&*entry.path);
        match other {
            Some(other) if entry.kind == Kind::Dir && other.kind == Kind::Dir => {
                is_touched || !is_same_time(entry, other, times)
            }
            // What is not there is made with its time, but for the directory that was named.
            _ => entry.path.is_empty(),
        }
    };
    let of_both = from.top.iter().chain(&from.entries).filter(is_wanted);
    of_both.collect()
}

/// The directory that a name is in.
fn above(path: &[u8]) -> &[u8] {
    let end = memchr::memrchr(b'/', path).unwrap_or(0);
    &path[..end]
}

fn places(found: &Found) -> HashMap<&[u8], usize> {
    let entries = found.entries.iter().enumerate();
    entries.map(|(at, entry)| (&*entry.path, at)).collect()
}

fn is_same_time(first: &Entry, second: &Entry, times: Times) -> bool {
    let (local, remote) = match times.is_upload {
        true => (first.modify_s, second.modify_s),
        false => (second.modify_s, first.modify_s),
    };
    let (Some(local), Some(remote)) = (local, remote) else {
        return false;
    };
    let grain_s = match times.are_rough {
        true if remote % 86_400 == 0 => 86_400,
        true => 60,
        false => 1,
    };
    let is_equal = (remote..remote + grain_s).contains(&local);
    is_equal || times.is_upload && !times.are_kept && remote > local
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(entries: &[(&str, Kind, u64, i64)]) -> Found {
        let entry = |&(path, kind, bytes, modify_s): &(&str, Kind, u64, i64)| Entry {
            path: path.as_bytes().into(),
            kind,
            bytes: Some(bytes),
            modify_s: Some(modify_s),
            mode: None,
            target: None,
        };
        Found {
            entries: entries.iter().map(entry).collect(),
            ..Found::default()
        }
    }

    const EXACT: Times = Times {
        are_rough: false,
        are_kept: true,
        is_upload: true,
    };

    #[test]
    fn what_changed_is_copied_and_what_is_gone_is_removed() {
        use Kind::{Dir, File};
        let from = found(&[
            ("d", Dir, 0, 0),
            ("d/same", File, 1, 1),
            ("d/longer", File, 2, 1),
            ("d/newer", File, 1, 2),
            ("new", File, 1, 1),
        ]);
        let to = found(&[
            ("d", Dir, 0, 9),
            ("d/same", File, 1, 1),
            ("d/longer", File, 1, 1),
            ("d/newer", File, 1, 1),
            ("old", Dir, 0, 0),
            ("old/x", File, 1, 1),
        ]);
        let changes = compare(&from, &to, EXACT, true);
        assert_eq!(changes.copy, [2, 3, 4]);
        assert_eq!(changes.alike, [(1, 1), (3, 3)]);
        assert_eq!(changes.remove, [5, 4]);
        assert!(compare(&from, &to, EXACT, false).remove.is_empty());
        assert!(compare(&from, &from, EXACT, true).copy.is_empty());
    }

    #[test]
    fn directories_get_their_times_again_when_they_were_changed_or_are_about_to_be() {
        use Kind::{Dir, File};
        let mut from = found(&[
            ("a", Dir, 0, 5),
            ("a/new", File, 1, 1),
            ("b", Dir, 0, 5),
            ("b/deep", Dir, 0, 5),
            ("c", Dir, 0, 6),
            ("d", Dir, 0, 5),
            ("e", Dir, 0, 5),
        ]);
        let mut to = found(&[
            ("a", Dir, 0, 5),
            ("b", Dir, 0, 5),
            ("b/deep", Dir, 0, 5),
            ("b/deep/old", File, 1, 1),
            ("c", Dir, 0, 5),
            ("d", Dir, 0, 5),
        ]);
        let named = |from: &Found, to: &Found, times, deletes| {
            let changes = compare(from, to, times, deletes);
            let dirs = restamped(from, to, &changes, times);
            let name = |entry: &&Entry| String::from_utf8(entry.path.to_vec()).unwrap();
            dirs.iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(named(&from, &to, EXACT, true), ["a", "b/deep", "c"]);
        assert_eq!(named(&from, &to, EXACT, false), ["a", "c"]);
        let top = found(&[("", Dir, 0, 5)]).entries.pop();
        from.top = top.clone();
        assert_eq!(named(&from, &Found::default(), EXACT, true), [""]);
        to.top = top;
        assert_eq!(
            named(&from, &to, EXACT, false),
            ["", "a", "c"],
            "e is new in it"
        );
        assert!(named(&to, &to, EXACT, true).is_empty());
        let keeps_none = Times {
            are_kept: false,
            ..EXACT
        };
        assert!(named(&from, &to, keeps_none, true).is_empty());
    }

    #[test]
    fn nothing_is_removed_where_not_everything_is_seen() {
        use Kind::{Dir, File};
        let mut from = found(&[("a", Dir, 0, 0), ("b", Dir, 0, 0)]);
        let to = found(&[
            ("a", Dir, 0, 0),
            ("a/x", File, 1, 1),
            ("b", Dir, 0, 0),
            ("b/x", File, 1, 1),
        ]);
        from.incomplete.insert((*b"a").into());
        let changes = compare(&from, &to, EXACT, true);
        assert_eq!((changes.remove, changes.kept), (vec![3], vec![1]));
        from.is_incomplete = true;
        assert!(compare(&from, &to, EXACT, true).remove.is_empty());
    }

    #[test]
    fn other_kinds_are_in_the_way() {
        use Kind::{Dir, File, Link};
        let from = found(&[("a", File, 1, 1), ("b", Dir, 0, 0), ("c", Link, 0, 0)]);
        let to = found(&[
            ("a", Dir, 0, 0),
            ("a/x", File, 1, 1),
            ("b", File, 1, 1),
            ("c", File, 1, 1),
        ]);
        let changes = compare(&from, &to, EXACT, false);
        assert_eq!(changes.blocked, [0, 1]);
        assert!(changes.clear.is_empty());
        let changes = compare(&from, &to, EXACT, true);
        assert_eq!(
            (changes.copy, changes.clear),
            (vec![0, 1, 2], vec![2, 1, 0])
        );
        assert!(changes.remove.is_empty());
    }

    #[test]
    fn times_are_as_good_as_the_server_tells_them() {
        let check = |local, remote, are_rough, are_kept, is_upload, expected| {
            let (from, to) = match is_upload {
                true => (local, remote),
                false => (remote, local),
            };
            let times = Times {
                are_rough,
                are_kept,
                is_upload,
            };
            let file = |modify_s| found(&[("a", Kind::File, 1, modify_s)]);
            let same = compare(&file(from), &file(to), times, false)
                .copy
                .is_empty();
            assert_eq!(same, expected, "{local} {remote} {times:?}");
        };
        let noon = 1_769_860_800;
        check(noon + 59, noon, true, true, true, true);
        check(noon + 60, noon, true, true, true, false);
        check(noon - 1, noon, true, true, false, false);
        check(86_400 * 9 + 5, 86_400 * 9, true, true, false, true);
        check(noon, noon + 100, false, false, true, true);
        check(noon, noon + 100, false, true, true, false);
        check(noon, noon + 100, false, false, false, false);
        check(noon, noon - 100, false, false, true, false);
    }
}
