//! Replies that are owed while uploads are being committed. Uploads overlap; replies do not change
//! their order, and nothing but an upload overtakes the wait for one.

use std::collections::VecDeque;
use std::io;

use super::inline;
use super::record::Record;
use super::verbs::{self, Run};
use super::{Action, Context, Session, Wait, Who};
use crate::proto::line::{self, Split};
use crate::proto::reply::Reply;
use crate::storage::path::VirtualPath;

/// A reply that is owed.
#[derive(Debug)]
pub(super) enum Due {
    /// Of an upload that is being committed: the reply if it succeeds, and whether ABOR waits for its
    /// own behind it.
    Commit {
        path: VirtualPath,
        reply: Reply,
        aborting: bool,
        record: Option<Record>,
    },
    /// Of what ended behind one.
    Known(Reply),
    /// The end of the connection, behind a last word.
    End(Option<Reply>),
}

/// The queue of a session that has had a burst of uploads is not kept.
const KEPT_MAX: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Dues(VecDeque<Due>);

impl Dues {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn push(&mut self, due: Due) {
        self.0.push_back(due);
    }

    fn pop(&mut self) -> Option<Due> {
        let due = self.0.pop_front();
        if self.0.is_empty() && self.0.capacity() > KEPT_MAX {
            self.0 = VecDeque::new();
        }
        due
    }

    fn commits(&self, path: &VirtualPath) -> bool {
        let same = |due: &Due| matches!(due, Due::Commit { path: other, .. } if other == path);
        self.0.iter().any(same)
    }
}

impl Session {
    /// Replies, behind whatever is owed.
    pub(super) fn say(&mut self, reply: Reply, out: &mut Vec<Action>) {
        match self.due.is_empty() {
            true => out.push(Action::Reply(reply)),
            false => self.due.push(Due::Known(reply)),
        }
    }

    /// While uploads are being committed only another one is taken, if its bytes come right behind
    /// its line; and none of the same name, which takes on the mode of the one before it.
    pub(super) fn receive_behind_commits(
        &mut self,
        bytes: &[u8],
        cx: &Context,
        out: &mut Vec<Action>,
    ) -> Option<usize> {
        let full = cx.commits_full || self.due.len() >= cx.config.limits.commits_per_session_max;
        if full || !self.queued.is_empty() {
            return None;
        }
        match line::split(bytes, self.searched) {
            Split::Line { len, used } if self.may_overlap(&bytes[..len]) => {
                self.searched = 0;
                self.command(&bytes[..len], bytes.len() > used, cx, out);
                Some(used)
            }
            Split::Partial => {
                self.searched = bytes.len();
                None
            }
            Split::Line { .. } | Split::TooLong => None,
        }
    }

    fn may_overlap(&self, raw: &[u8]) -> bool {
        let clean = line::strip_telnet(raw);
        let (verb, argument) = line::verb_and_argument(&clean);
        let Who::Known(login) = &self.who else {
            return false;
        };
        let carries_body =
            matches!(verbs::find(verb), Some(row) if matches!(row.run, Run::Unchecked(_)));
        carries_body
            && inline::immediate_path(argument.unwrap_or_default())
                .is_some_and(|path| !self.due.commits(&login.cwd.join(path)))
    }

    /// The answer to the first commit that is owed one: they come in order.
    pub(super) fn committed(
        &mut self,
        result: io::Result<()>,
        cx: &Context,
        out: &mut Vec<Action>,
    ) {
        let Some(Due::Commit {
            reply,
            aborting,
            record,
            ..
        }) = self.due.pop()
        else {
            debug_assert!(false, "nobody waits for a commit");
            return;
        };
        self.log_transfer(record, result.is_ok(), cx);
        let reply = match result {
            Ok(()) => {
                self.totals.files_stored += 1;
                reply
            }
            Err(error) => error.into(),
        };
        out.push(Action::Reply(reply));
        if aborting {
            out.push(Action::Reply(Reply::new(
                226,
                "The transfer was complete already.",
            )));
        }
        while !matches!(self.due.0.front(), None | Some(Due::Commit { .. })) {
            match self.due.pop() {
                Some(Due::Known(reply)) => out.push(Action::Reply(reply)),
                Some(Due::End(last_word)) => {
                    out.extend(last_word.map(Action::Reply));
                    self.wait = Wait::Closed;
                    return out.push(Action::Close);
                }
                Some(Due::Commit { .. }) | None => return,
            }
        }
    }
}
