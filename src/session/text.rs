//! Listings as a stream: LIST, NLST, MLSD, TREE and STAT with a path.
//!
//! Entries come from the storage a batch at a time and leave as lines; however large the directory,
//! what is held is one batch.

use std::borrow::Cow;
use std::io;

use crate::accounts::Permissions;
use crate::proto::facts::{self, Facts, Meta, Perms};
use crate::proto::reply;
use crate::storage::path;
use crate::storage::walk::{Listing, Tree, Want};

/// A listing that is being sent.
#[derive(Debug)]
pub struct Text {
    head: Vec<u8>,
    source: Source,
    style: Style,
    in_reply: bool,
    entries: u64,
    left_out: u64,
}

/// Where the entries come from.
#[derive(Debug)]
pub enum Source {
    /// Nothing matches.
    Nothing,
    /// One entry.
    One {
        /// As it is shown.
        name: Vec<u8>,
        /// What it is.
        meta: Meta,
        /// Where it points.
        target: Option<Vec<u8>>,
    },
    /// A directory.
    Directory {
        /// Its entries.
        listing: Listing,
        /// Only names that match.
        pattern: Option<Vec<u8>>,
        /// What stands before each name, with its slash (NLST).
        prefix: Vec<u8>,
    },
    /// A whole tree.
    Tree(Tree),
}

/// How an entry is written.
#[derive(Debug)]
pub enum Style {
    /// The name alone.
    Names,
    /// As `ls -l`; `now` decides between time and year.
    Lines {
        /// Seconds since 1970.
        now_s: i64,
    },
    /// Facts, a space and the name.
    Facts {
        /// Which.
        facts: Facts,
        /// What the `perm` fact says.
        perms: Perms,
    },
}

impl Style {
    /// Facts as this session chose them.
    pub fn facts(facts: Facts, permissions: Permissions) -> Style {
        Style::Facts {
            facts,
            perms: permissions.letters(),
        }
    }

    fn want(&self) -> Want {
        match self {
            Style::Names => Want::default(),
            Style::Lines { .. } => Want {
                stat: true,
                target: true,
                ..Want::default()
            },
            Style::Facts { facts, .. } => Want {
                stat: facts.need_stat(),
                target: true,
                ..Want::default()
            },
        }
    }

    fn write(
        &self,
        out: &mut Vec<u8>,
        name: &[u8],
        meta: &Meta,
        target: Option<&[u8]>,
        incomplete: bool,
    ) {
        match self {
            Style::Names => {
                out.extend_from_slice(name);
                out.extend_from_slice(b"\r\n");
            }
            Style::Lines { now_s } => facts::write_list_line(out, meta, name, target, *now_s),
            Style::Facts { facts, perms } => {
                facts::write_facts(out, *facts, meta, target, perms, incomplete);
                out.push(b' ');
                out.extend_from_slice(name);
                out.extend_from_slice(b"\r\n");
            }
        }
    }
}

/// In a reply, an FF stands for itself only when it is doubled (Telnet).
fn doubled(bytes: &[u8]) -> Cow<'_, [u8]> {
    if !bytes.contains(&0xff) {
        return Cow::Borrowed(bytes);
    }
    let twice = |&byte: &u8| std::iter::repeat_n(byte, 1 + usize::from(byte == 0xff));
    Cow::Owned(bytes.iter().flat_map(twice).collect())
}

impl Text {
    /// A listing for a data connection.
    pub fn new(source: Source, style: Style) -> Text {
        Text {
            head: Vec::new(),
            source,
            style,
            in_reply: false,
            entries: 0,
            left_out: 0,
        }
    }

    /// A listing inside a reply of several lines, of which the first is `code-title`. Its entries
    /// stand behind one space, and an FF of a name is doubled.
    pub fn in_reply(code: u16, title: &[u8], source: Source, style: Style) -> Text {
        let mut head = format!("{code}-").into_bytes();
        reply::sanitised(&mut head, title);
        head.extend_from_slice(b"\r\n");
        Text {
            head,
            in_reply: true,
            ..Text::new(source, style)
        }
    }

    /// Appends the lines of the next batch, which is a small one if it is to be `brief`. False: that was
    /// the last one.
    ///
    /// # Errors
    /// Reading the directory failed.
    pub fn fill(&mut self, out: &mut Vec<u8>, brief: bool) -> io::Result<bool> {
        out.append(&mut self.head);
        let Text {
            source,
            style,
            in_reply,
            entries,
            left_out,
            ..
        } = self;
        let in_reply = *in_reply;
        let want = Want {
            brief,
            ..style.want()
        };
        let mut line = |name: &[u8], meta: &Meta, target: Option<&[u8]>, incomplete: bool| {
            *entries += 1;
            if in_reply {
                out.push(b' ');
                let (name, target) = (doubled(name), target.map(doubled));
                return style.write(out, &name, meta, target.as_deref(), incomplete);
            }
            style.write(out, name, meta, target, incomplete);
        };
        match source {
            Source::Nothing => Ok(false),
            Source::One { name, meta, target } => {
                line(name, meta, target.as_deref(), false);
                Ok(false)
            }
            Source::Directory {
                listing,
                pattern,
                prefix,
            } => {
                let mut full = prefix.clone();
                let more = listing.batch(want, &mut |name, meta, target| {
                    if pattern
                        .as_ref()
                        .is_some_and(|pattern| !path::matches(pattern, name))
                    {
                        return;
                    }
                    full.truncate(prefix.len());
                    full.extend_from_slice(name);
                    line(&full, meta, target, false);
                })?;
                *left_out = listing.left_out();
                Ok(more)
            }
            Source::Tree(tree) => {
                let more = tree.batch(want, &mut |entry| {
                    line(entry.path, entry.meta, entry.target, entry.incomplete);
                })?;
                *left_out = tree.left_out();
                Ok(more)
            }
        }
    }

    /// Entries written so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Entries that could not be written so far.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}
