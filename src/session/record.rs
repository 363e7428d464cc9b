//! A transfer of a file as the transfer log tells it: one line of JSON when it is over.

use std::fmt::Write as _;
use std::time::Instant;

use super::job::Job;
use super::{Context, Session, Who};
use crate::logging::TRANSFERS;
use crate::proto::time;
use crate::storage::path::VirtualPath;

/// What is known of a transfer before it is known how it ends.
#[derive(Debug)]
pub(super) struct Record {
    path: VirtualPath,
    stores: bool,
    bytes: u64,
    since: Instant,
}

impl Record {
    /// Of a file that moved `bytes`; nothing of listings, nor where there is no transfer log.
    pub(super) fn of(job: &Job, bytes: u64, since: Instant) -> Option<Record> {
        let (path, stores) = match job {
            Job::Send(send) => (&send.path, false),
            Job::Receive(receive) => (receive.upload.path(), true),
            Job::Discard(_) | Job::Text(_) => return None,
        };
        log::log_enabled!(target: TRANSFERS, log::Level::Error).then(|| Record {
            path: path.clone(),
            stores,
            bytes,
            since,
        })
    }
}

impl Session {
    /// Writes the line. `complete`: the client was told so.
    pub(super) fn log_transfer(&self, record: Option<Record>, complete: bool, cx: &Context) {
        let (Some(record), Who::Known(login)) = (record, &self.who) else {
            return;
        };
        let user = login
            .user
            .as_ref()
            .map_or("anonymous", |user| user.name.as_str());
        let day = time::text_14(cx.wall_s);
        let digits = |from: usize, to: usize| String::from_utf8_lossy(&day[from..to]).into_owned();
        log::error!(
            target: TRANSFERS,
            "{{\"time\":\"{}-{}-{}T{}:{}:{}Z\",\"address\":\"{}\",\"user\":{},\"transfer\":\"{}\",\
             \"path\":{},\"bytes\":{},\"seconds\":{:.3},\"complete\":{complete}}}",
            digits(0, 4),
            digits(4, 6),
            digits(6, 8),
            digits(8, 10),
            digits(10, 12),
            digits(12, 14),
            self.peer.ip(),
            quoted(user),
            if record.stores { "upload" } else { "download" },
            quoted(&record.path.to_string()),
            record.bytes,
            cx.now.saturating_duration_since(record.since).as_secs_f64(),
        );
    }
}

/// As JSON writes text.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            // Writing to a String does not fail.
            c if c.is_control() => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_and_no_control_character_is_left() {
        assert_eq!(quoted("a b/\u{e9}"), "\"a b/\u{e9}\"");
        assert_eq!(
            quoted("\"\\\n\u{9b}\u{7f}"),
            "\"\\\"\\\\\\u000a\\u009b\\u007f\""
        );
    }
}
