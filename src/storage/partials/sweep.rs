//! Partials grow old, and processes die: what lies below a directory and is nobody's any more goes.
//!
//! Who calls says what time it is and how fast to go; nothing here waits.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use rustix::fd::OwnedFd;
use rustix::io::Errno;

use super::{Kept, Opened, PartialName, Removed, open, recorded, remove, unlink};
use crate::proto::facts::Kind;
use crate::storage::path::{VirtualPath, is_reserved_name};
use crate::storage::root::{Root, stat_open};
use crate::storage::staging::is_moment_name;
use crate::storage::walk::{Listing, Tree, Want};

/// Partials that one owner may have. Each is a file that nobody sees.
const PER_OWNER_MAX: usize = 64;

const ALL: Want = Want {
    stat: false,
    target: false,
    all: true,
    brief: false,
};

/// All partials below a root that are known, by owner. What it says may be out of date: the disk
/// decides.
#[derive(Debug, Default)]
pub struct Index {
    owners: HashMap<Vec<u8>, Vec<(i64, VirtualPath)>>,
}

impl Index {
    /// A partial has come to be at `path`, or has grown. If its owner has too many now, the oldest
    /// go.
    pub fn add(&mut self, root: &Root, path: VirtualPath, modify_s: i64) {
        let Some(name) = partial_name(&path) else {
            return;
        };
        let all = self.owners.entry(name.owner_digits().to_vec()).or_default();
        all.retain(|(_, known)| *known != path);
        all.push((modify_s, path));
        if all.len() <= PER_OWNER_MAX {
            return;
        }
        // Most of what is known has long been continued and published.
        all.retain(|(_, path)| root.lstat(path).is_ok());
        all.sort_by_key(|(modify_s, _)| *modify_s);
        let surplus = all.len().saturating_sub(PER_OWNER_MAX);
        for (_, path) in all.drain(..surplus) {
            log::debug!("too many partials: {path} goes");
            remove_older(root, &path, i64::MAX);
        }
    }

    /// As [`Index::add`], of what has just been kept.
    pub fn kept(&mut self, root: &Root, kept: &Kept, now_s: i64) {
        match root.place_of(&kept.place.dir) {
            Some(dir) => self.add(root, dir.join(kept.place.key.name.as_bytes()), now_s),
            None => log::debug!("a partial is not below the root any more"),
        }
    }

    /// Removes what was last written before `cutoff_s`.
    pub fn expire(&mut self, root: &Root, cutoff_s: i64) {
        for all in self.owners.values_mut() {
            all.retain(|(modify_s, path)| {
                let is_old = *modify_s < cutoff_s;
                if is_old {
                    remove_older(root, path, cutoff_s);
                }
                !is_old
            });
        }
        self.owners.retain(|_, all| !all.is_empty());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.owners.values().map(Vec::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn partial_name(path: &VirtualPath) -> Option<PartialName> {
    path.split().and_then(|(_, name)| PartialName::parse(name))
}

/// A walk over all that is below a root.
#[derive(Debug)]
pub struct Sweep {
    root: Arc<Root>,
    tree: Tree,
}

impl Sweep {
    /// Begins one.
    ///
    /// # Errors
    /// The root cannot be read.
    pub fn new(root: &Arc<Root>) -> io::Result<Sweep> {
        Ok(Sweep {
            root: root.clone(),
            tree: Tree::new(root.clone(), &VirtualPath::root())?,
        })
    }

    /// Looks at a few hundred entries at most. Partials that were last written before `cutoff_s` go,
    /// and so does what a process that died was about to publish; the other partials are put into
    /// the index. False at the end.
    ///
    /// # Errors
    /// The tree cannot be read any further.
    pub fn step(&mut self, index: &mut Index, cutoff_s: i64) -> io::Result<bool> {
        let mut hidden = Vec::new();
        let more = self.tree.batch(ALL, &mut |entry| {
            let name = entry.path.rsplit(|&b| b == b'/').next();
            if entry.meta.kind == Kind::File && name.is_some_and(is_reserved_name) {
                hidden.push(VirtualPath::root().join(entry.path));
            }
        })?;
        for path in hidden {
            let Some((_, name)) = path.split() else {
                continue;
            };
            if is_moment_name(name) {
                remove_older(&self.root, &path, i64::MAX);
            } else if PartialName::parse(name).is_some()
                && let Some(modify_s) = remove_older(&self.root, &path, cutoff_s)
            {
                index.add(&self.root, path, modify_s);
            }
        }
        Ok(more)
    }
}

/// Removes the hidden file at `path` if it was last written before `cutoff_s`, or holds nothing that
/// is known to be on the disk; but never one that a living process has. Gives the time of one that
/// stays and may be continued.
pub fn remove_older(root: &Root, path: &VirtualPath, cutoff_s: i64) -> Option<i64> {
    let (dir, name) = root.parent(path, Errno::ISDIR).ok()?;
    let Ok(Opened::Ours(file)) = open(&dir, name) else {
        return None;
    };
    let modify_s = stat_open(&file).ok()?.modify_s;
    if modify_s >= cutoff_s && recorded(&file).is_ok_and(|bytes| bytes > 0) {
        return Some(modify_s);
    }
    if let Err(error) = unlink(root, &dir, name) {
        log::warn!("{path} is left over and cannot be removed: {error}");
    }
    None
}

/// Removes what hidden files of nobody are in a directory, if there is nothing else in it. Whether the
/// directory is empty now, the next attempt to remove it tells. Gives those that were large, to be
/// closed where freeing their blocks stops nobody.
pub fn clear_dir(root: &Root, path: &VirtualPath) -> io::Result<Vec<OwnedFd>> {
    let mut listing = Listing::new(root.open_dir(path)?);
    let (mut hidden, mut others) = (Vec::new(), false);
    while !others
        && listing.batch(ALL, &mut |name, meta, _| {
            others |= !is_reserved_name(name) || meta.kind != Kind::File;
            hidden.push(path.join(name));
        })?
    {}
    let mut large = Vec::new();
    if others {
        return Ok(large);
    }
    for path in &hidden {
        if let Ok((dir, name)) = root.parent(path, Errno::ISDIR)
            && let Removed::Gone(kept) = remove(root, &dir, name, None)
        {
            large.extend(kept);
        }
    }
    Ok(large)
}
