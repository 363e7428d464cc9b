//! Times and permissions of what was stored on servers that do not take them with the upload: MFMT
//! or the form of MDTM that sets the time, and SITE CHMOD.
//!
//! A server may refuse all of it; the content is what was asked for, so nothing here is an error but
//! a broken connection. What was refused once is not tried again on the same connection.

use crate::proto::time::text_14;
use crate::proto::upload::UploadFacts;

use super::connection::Connection;
use super::error::Error;

/// What was found out about one server.
#[derive(Debug, Default, Clone, Copy)]
pub struct Keeps {
    no_times: bool,
    /// SITE CHMOD works; `None`: not known yet.
    modes: Option<bool>,
}

/// Gives the remote file `path` its time and its permissions.
///
/// # Errors
/// The connection broke.
pub fn time_and_mode(c: &mut Connection, path: &[u8], facts: UploadFacts) -> Result<(), Error> {
    if let Some(mode) = facts.mode {
        mode_of(c, path, mode)?;
    }
    // The time comes last: on some systems permissions change it.
    if let Some(seconds) = facts.modify_s.filter(|_| !c.keeps.no_times) {
        let verb = match (c.features.mfmt, c.features.mdtm) {
            (true, _) => "MFMT",
            (_, true) => "MDTM",
            _ => return Ok(()),
        };
        let time = String::from_utf8_lossy(&text_14(seconds)).into_owned();
        let reply = c.command(&format!("{verb} {time}"), Some(path))?;
        c.keeps.no_times = !reply.is_success();
    }
    Ok(())
}

fn mode_of(c: &mut Connection, path: &[u8], mode: u32) -> Result<(), Error> {
    if c.keeps.modes.is_none() {
        let help = c.command("SITE", Some(b"HELP"))?;
        let has_chmod = |line: &Vec<u8>| {
            let words = line.split(|b| !b.is_ascii_alphanumeric());
            words.into_iter().any(|w| w.eq_ignore_ascii_case(b"CHMOD"))
        };
        c.keeps.modes = Some(help.is_success() && help.lines.iter().any(has_chmod));
    }
    if c.keeps.modes == Some(true) {
        let reply = c.command(&format!("SITE CHMOD {mode:04o}"), Some(path))?;
        c.keeps.modes = Some(reply.is_success());
    }
    Ok(())
}
