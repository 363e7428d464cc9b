//! Lines that wait behind a transfer over a data connection, and those that do not have to.

use super::verbs::{self, Run};
use super::{Action, Context, Session};
use crate::proto::line::{self, Split};

impl Session {
    /// Takes the first line that waited. Only a mark moves: to close the gap behind each of thousands
    /// of lines would cost the square of their number.
    pub(super) fn next_queued(&mut self) -> Option<Vec<u8>> {
        let waiting = &self.queued[self.queued_at..];
        let Split::Line { len, used } = line::split(waiting, 0) else {
            return None;
        };
        let line = waiting[..len].to_vec();
        self.queued_at += used;
        if self.queued_at == self.queued.len() {
            self.queued = Vec::new();
            self.queued_at = 0;
        }
        Some(line)
    }

    /// While a data connection is in use, ABOR, STAT and NOOP are answered and lines are queued;
    /// an UPLOAD ends the reading, since its body is no lines.
    pub(super) fn receive_while_busy(
        &mut self,
        bytes: &[u8],
        cx: &Context,
        out: &mut Vec<Action>,
    ) -> Option<usize> {
        let (len, used) = match line::split(bytes, self.searched) {
            Split::Line { len, used } => (len, used),
            Split::Partial => {
                self.searched = bytes.len();
                return None;
            }
            // It ends the session, but the transfer before it still gets its reply.
            Split::TooLong => return None,
        };
        let clean = line::strip_telnet(&bytes[..len]);
        let (verb, argument) = line::verb_and_argument(&clean);
        let row = verbs::find(verb);
        let unqueueable = row.is_some_and(|row| matches!(row.run, Run::Unchecked(_)));
        if row.is_some_and(|row| {
            row.while_busy && (argument.is_none_or(<[u8]>::is_empty) || row.name != "STAT")
        }) {
            self.searched = 0;
            self.command(&bytes[..len], bytes.len() > used, cx, out);
            return Some(used);
        }
        self.queued.drain(..self.queued_at);
        self.queued_at = 0;
        if unqueueable || self.queued.len() + used > cx.config.limits.queued_bytes_max {
            return None;
        }
        self.searched = 0;
        self.quit_queued |= row.is_some_and(|row| row.name == "QUIT");
        self.queued.extend_from_slice(&bytes[..used]);
        Some(used)
    }
}
