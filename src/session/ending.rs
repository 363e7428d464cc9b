//! How transfers end: ABOR, and what the client is told when one is over.

use std::net::SocketAddr;

use sha2::Digest;

use super::due::Due;
use super::job::{Ended, Job, Outcome, Transfer, Via};
use super::record::Record;
use super::transfers::{EndOfText, Running, What};
use super::{Action, Answer, Context, Handled, Session, Turn, Wait, Who};
use crate::proto::addr;
use crate::proto::reply::Reply;
use crate::proto::upload::IMMEDIATE_BYTES_MAX;
use crate::storage::root::LARGE_BYTES;
use crate::storage::staging::Upload;

pub(super) fn abor(session: &mut Session, turn: &mut Turn) -> Handled {
    match &mut session.wait {
        Wait::Transfer(running) if !running.in_band() => {
            if running.aborting {
                return Err(Reply::new(226, "That is under way."));
            }
            running.aborting = true;
            turn.out.push(Action::CutTransfer);
            Ok(Answer::Cut)
        }
        _ => Ok(Reply::new(226, "There is nothing to abort.").into()),
    }
}

impl Session {
    pub(super) fn listening(&mut self, address: Option<SocketAddr>, out: &mut Vec<Action>) {
        let Wait::Listening { extended } = self.wait else {
            debug_assert!(false, "nobody asked for a port");
            return;
        };
        self.wait = Wait::Command;
        let reply = match (address, extended) {
            (None, _) => Reply::new(425, "No port is free now; try again."),
            (Some(address), true) => Reply::new(229, addr::epsv_text(address.port())),
            (Some(SocketAddr::V4(address)), false) => Reply::new(227, addr::pasv_text(address)),
            (Some(SocketAddr::V6(_)), false) => Reply::new(425, "PASV is for IPv4; use EPSV."),
        };
        if let (Who::Known(login), 227 | 229) = (&mut self.who, reply.code) {
            login.data = Some(Via::Passive);
        }
        out.push(Action::Reply(reply));
    }

    pub(super) fn transfer_ended(&mut self, ended: Ended, cx: &Context, out: &mut Vec<Action>) {
        let running = match std::mem::replace(&mut self.wait, Wait::Command) {
            Wait::Transfer(running) => *running,
            _ => {
                debug_assert!(false, "a transfer ended that nobody began");
                return;
            }
        };
        let Running {
            since,
            via,
            what,
            aborting,
        } = running;
        match &what {
            What::Send | What::Text(_) => self.totals.bytes_sent += ended.bytes,
            What::Store { .. } | What::Discard(_) => self.totals.bytes_received += ended.bytes,
        }
        let level = match ended.outcome {
            Outcome::Failed(_) => log::Level::Warn,
            _ => log::Level::Debug,
        };
        let (peer, bytes, outcome) = (self.peer, ended.bytes, &ended.outcome);
        log::log!(
            level,
            "a transfer of {peer} ended after {bytes} bytes: {outcome}"
        );
        let mut record = Record::of(&ended.job, ended.bytes, since);
        let complete = matches!(ended.outcome, Outcome::Complete);
        if !complete || matches!(what, What::Send) {
            self.log_transfer(record.take(), complete, cx);
        }
        let reply = match (ended.outcome, what) {
            (Outcome::Complete, What::Store { publish, sha256 }) => {
                match self.stored(ended.job, ended.bytes, sha256, via, out) {
                    Err(reply) => {
                        self.log_transfer(record, false, cx);
                        reply
                    }
                    Ok((upload, reply)) => {
                        self.due.push(Due::Commit {
                            path: upload.path().clone(),
                            reply,
                            aborting,
                            record,
                        });
                        return out.push(Action::Commit(Box::new(upload), publish));
                    }
                }
            }
            (Outcome::Complete, What::Discard(reply)) => reply,
            (Outcome::Complete, What::Send) => {
                self.totals.files_sent += 1;
                Reply::new(226, format!("{} bytes sent.", ended.bytes))
            }
            (Outcome::Complete, What::Text(end)) => end_of_text(&end, &ended.job),
            (outcome, what) if via == Via::Control => {
                return self.broke_off_in_band(outcome, what, ended.job, out);
            }
            (outcome, _) => {
                match outcome {
                    Outcome::Failed(_) => discard(ended.job, out),
                    _ => break_off(ended.job, out),
                }
                broke_off(outcome)
            }
        };
        self.say(reply, out);
        if aborting {
            self.say(Reply::new(226, "The transfer has ended."), out);
        }
    }

    /// All bytes of an upload are there. Is it whole?
    fn stored(
        &mut self,
        job: Job,
        bytes: u64,
        sha256: Option<[u8; 32]>,
        via: Via,
        out: &mut Vec<Action>,
    ) -> Result<(Upload, Reply), Reply> {
        let Job::Receive(mut receive) = job else {
            return Err(Reply::new(451, "Local error."));
        };
        // A killed client's kernel ends its data connection in order too; but then the control
        // connection has ended as well, without QUIT.
        if via != Via::Control && self.control_ended && !self.quit_queued {
            break_off(Job::Receive(receive), out);
            return Err(Reply::new(
                426,
                "The control connection ended during the upload.",
            ));
        }
        // Or it ends any moment now.
        match via {
            Via::Control => receive.upload.forget_partial(),
            _ if self.quit_queued => receive.upload.forget_partial(),
            _ => receive.upload.complete_if_client_stays(),
        }
        if let Some(stated) = sha256 {
            let found = receive.digest.take().map(|digest| digest.finalize());
            if found.is_none_or(|found| found[..] != stated) {
                discard(Job::Receive(receive), out);
                return Err(Reply::new(
                    451,
                    "The content does not have the stated SHA-256.",
                ));
            }
        }
        Ok((
            receive.upload,
            Reply::new(226, format!("{bytes} bytes stored.")),
        ))
    }

    /// In band, a reply during a body would become a part of it, and a body that was not sent
    /// cannot be told from commands.
    fn broke_off_in_band(&mut self, outcome: Outcome, what: What, job: Job, out: &mut Vec<Action>) {
        match (outcome, what, job) {
            (Outcome::Failed(error), What::Store { .. }, Job::Receive(receive)) => {
                let left = receive.bytes.unwrap_or(0);
                let reply = Reply::from(error);
                discard(Job::Receive(receive), out);
                if left > IMMEDIATE_BYTES_MAX {
                    return self.hang_up(reply, out);
                }
                let (job, via, protect) = (Job::Discard(left), Via::Control, false);
                let what = What::Discard(reply);
                self.transfer(Transfer { job, via, protect }, what, out);
            }
            (Outcome::Stalled, What::Store { .. } | What::Discard(_), job) => {
                break_off(job, out);
                self.hang_up(Reply::new(426, "The upload stalled."), out);
            }
            (_, _, job) => {
                break_off(job, out);
                self.close(out);
            }
        }
    }
}

/// What arrived is kept.
fn break_off(job: Job, out: &mut Vec<Action>) {
    out.extend(job.break_off().map(Action::Run));
}

/// What arrived is of no use, or there is no room for it. A file that is not large goes at once: so
/// its room is free before the client hears of it and tries a smaller one.
fn discard(mut job: Job, out: &mut Vec<Action>) {
    if let Job::Receive(receive) = &mut job {
        receive.upload.forget_partial();
        if receive.at < LARGE_BYTES {
            return;
        }
    }
    break_off(job, out);
}

fn end_of_text(end: &EndOfText, job: &Job) -> Reply {
    let Job::Text(text) = job else {
        return Reply::new(451, "Local error.");
    };
    match (end, text.entries(), text.left_out()) {
        (EndOfText::Data, entries, _) => Reply::new(226, format!("{entries} entries.")),
        (EndOfText::Status, ..) => Reply::new(213, "End."),
        (EndOfText::Tree, entries, 0) => Reply::new(250, format!("{entries} entries.")),
        (EndOfText::Tree, entries, left_out) => {
            Reply::new(250, format!("{entries} entries, {left_out} left out."))
        }
    }
}

fn broke_off(outcome: Outcome) -> Reply {
    match outcome {
        Outcome::NoConnection => Reply::new(425, "No data connection was made."),
        Outcome::NotProtected => Reply::new(522, "TLS on the data connection failed."),
        Outcome::Stalled => Reply::new(426, "The data connection stalled."),
        Outcome::Cut => Reply::new(426, "The transfer was aborted."),
        Outcome::Broken | Outcome::Complete => Reply::new(426, "The data connection broke."),
        Outcome::Failed(error) => error.into(),
    }
}
