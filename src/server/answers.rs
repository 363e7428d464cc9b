//! What others have done for connections: the threads, and connections for each other.

use super::commits::Answer;
use super::conn::dispose_of;
use super::{Id, Server};
use crate::session::{Done, Input, Task};
use crate::storage::partials::{Keeping, Kept};

impl Server {
    pub(super) fn hear_background(&mut self) {
        let now = self.shared.now;
        while let Some((id, answer)) = self.shared.passwords.as_mut().and_then(|p| p.answer(now)) {
            self.tell(id, Input::PasswordChecked(answer));
        }
        while let Some((id, mut answer)) = self.shared.commits.answer() {
            if let Answer::Committed { keeping, committed } = &mut answer {
                self.kept(keeping.take(), committed.kept.take().map(|kept| *kept));
            }
            match answer {
                Answer::Committed { committed, .. } if self.conn(id).is_none() => {
                    dispose_of(committed.replaced, &self.shared);
                }
                answer => self.with(id, |conn, shared| conn.hear(answer, shared)),
            }
        }
        while let Some(answer) = self.shared.readers.answer() {
            self.with(answer.id, |conn, shared| conn.hear_reading(answer, shared));
        }
        while let Some((id, done)) = self.shared.background.result() {
            match done {
                Ok(Done::Counted(count, more)) => self.counts.counted(count, more, now),
                Ok(Done::CountLost) => self.counts.lost(now),
                Ok(Done::Kept { keeping, kept }) => self.kept(keeping, kept),
                Ok(Done::Forgotten(keeping)) => self.shared.uploads.gone(&keeping),
                done => self.tell(id, Input::TaskDone(done)),
            }
        }
        if let Some(piece) = self.counts.piece(now) {
            let task = Task::Count(piece);
            self.shared.background.order_unattended(task);
        }
    }

    fn tell(&mut self, id: Id, input: Input) {
        self.with(id, |conn, shared| conn.tell(input, shared));
    }

    /// What there was of an upload that broke off is where it belongs.
    fn kept(&mut self, keeping: Option<Keeping>, kept: Option<Kept>) {
        let uploads = &mut self.shared.uploads;
        let has_to_go = keeping.as_ref().is_some_and(|it| uploads.kept(it));
        match (kept, keeping) {
            (Some(kept), _) if has_to_go => {
                let task = Task::Forget(kept);
                self.shared.background.order_unattended(task);
            }
            (Some(kept), _) => self.shared.sweeper.kept(kept),
            (None, Some(keeping)) if has_to_go => {
                self.shared.uploads.gone(&keeping);
            }
            (None, _) => {}
        }
    }

    /// Whoever asked for a partial that another session writes gets an answer: at once if that
    /// session is alive; if it has lost its client, behind its end.
    pub(super) fn settle_takeovers(&mut self) {
        let now = self.shared.now;
        let silence = self.shared.world.config.limits.takeover_after;
        while let Some((asker, writer, key)) = self.shared.uploads.next_asked() {
            match self.conn(writer) {
                Some(conn) if !conn.is_silent(now, silence) => {
                    self.tell_reached(asker, false);
                    continue;
                }
                Some(_) => self.with(writer, |conn, _| conn.give_way()),
                // It panicked, and had no time to say that it writes no more.
                None => self.shared.uploads.end(key, writer),
            }
            self.shared.uploads.wait(key, asker);
        }
        while let Some(id) = self.shared.uploads.next_freed() {
            self.tell_reached(id, true);
        }
    }

    fn tell_reached(&mut self, id: Id, free: bool) {
        self.with(id, |conn, shared| conn.tell_reached(free, shared));
    }
}
