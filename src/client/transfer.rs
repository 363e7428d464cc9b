//! Moving one file: by UPLOAD and DOWNLOAD where the server has them, otherwise by STOR and RETR.
//!
//! The way is chosen in one place for each direction. Nothing here knows where bytes come from or
//! go to on this machine; lengths that the server states are checked against what arrived.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use crate::proto::line::{first_number, number};
use crate::proto::time;
use crate::proto::upload::{IMMEDIATE_BYTES_MAX, UploadFacts, first_word};
use crate::text::plain;

use super::connection::Connection;
use super::data::{self, Sent};
use super::error::{Error, Exit};
use super::keep;
use super::local::spooled;
use super::progress::{CHUNK_BYTES, Progress};
use super::reply::Reply;
use super::stream::Stream;

/// What a download brought, beside the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Downloaded {
    /// How many bytes.
    pub bytes: u64,
    /// Last modification, seconds since 1970, if the server says it.
    pub modify_s: Option<i64>,
}

/// The rest of a file of which something is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    /// How much is there.
    pub from: u64,
    /// How long all of it is.
    pub of: u64,
}

impl Rest {
    /// Whether a transfer that brings `bytes` more makes it whole.
    fn check(self, bytes: u64) -> Result<(), Error> {
        match self.from.checked_add(bytes) == Some(self.of) {
            true => Ok(()),
            false => Err(Error::new(
                Exit::Differ,
                format!(
                    "the file has changed on the server: {bytes} bytes would follow the {} that \
                     are there, and {} were expected in all; try again",
                    self.from, self.of
                ),
            )),
        }
    }
}

/// Brings the remote file `path`, or the rest of it, to `sink`.
///
/// # Errors
/// The server refuses, the transfer breaks or is short, or the sink fails. Nothing was written if
/// the rest has another length than it should.
pub fn download(
    c: &mut Connection,
    path: &[u8],
    rest: Option<Rest>,
    sink: &mut dyn Write,
    progress: &mut Progress,
) -> Result<Downloaded, Error> {
    match c.features.download {
        true => download_inline(c, path, rest, sink, progress),
        false => retrieve(c, path, rest, sink, progress),
    }
}

/// REST, as a line, and what the server must say to it.
fn rest_line(c: &Connection, rest: Option<Rest>) -> Result<Vec<u8>, Error> {
    match rest.filter(|rest| rest.from > 0) {
        Some(rest) => c.line("REST", Some(rest.from.to_string().as_bytes())),
        None => Ok(Vec::new()),
    }
}

/// The answer to REST, if it was sent.
fn rest_taken(c: &mut Connection, rest: Option<Rest>) -> Result<(), Error> {
    if rest.is_some_and(|rest| rest.from > 0) {
        let reply = c.read_reply()?;
        if reply.code != 350 {
            return Err(Error::refused(&reply));
        }
    }
    Ok(())
}

/// DOWNLOAD; the question for the time travels with it, so that it costs no round trip.
fn download_inline(
    c: &mut Connection,
    path: &[u8],
    rest: Option<Rest>,
    sink: &mut dyn Write,
    progress: &mut Progress,
) -> Result<Downloaded, Error> {
    let mut lines = Vec::new();
    if c.features.mdtm {
        lines = c.line("MDTM", Some(path))?;
    }
    lines.extend(rest_line(c, rest)?);
    lines.extend(c.line("DOWNLOAD", Some(path))?);
    c.send_raw(&lines)?;
    let modify_s = match c.features.mdtm {
        true => modification(&c.read_reply()?),
        false => None,
    };
    let rested = rest_taken(c, rest);
    if rested.is_err() {
        // The whole file would come.
        c.give_up();
    }
    rested?;
    let reply = go_ahead(c)?;
    let Some(bytes) = first_number(reply.text()) else {
        return Err(c.nonsense(&format!("no length for a DOWNLOAD ({reply})")));
    };
    if let Some(rest) = rest {
        rest.check(bytes).inspect_err(|_| c.give_up())?;
    }
    progress.expect(rest.map_or(bytes, |rest| rest.of));
    let moved = body(c, bytes, sink, progress);
    if moved.is_err() {
        // Whatever failed, the rest of the body is still on its way.
        c.give_up();
    }
    moved?;
    c.read_reply()?.success()?;
    Ok(Downloaded { bytes, modify_s })
}

/// Reads exactly `bytes` bytes of the control connection.
///
/// # Errors
/// The connection broke, or the sink fails ([`Exit::Local`], [`Exit::Full`]).
pub fn body(
    c: &mut Connection,
    bytes: u64,
    sink: &mut dyn Write,
    progress: &mut Progress,
) -> Result<(), Error> {
    let mut left = bytes;
    let held = c.take_held(left);
    sink.write_all(&held).map_err(|e| Error::local(&e))?;
    left -= held.len() as u64;
    progress.advance(held.len());
    if left == 0 {
        return Ok(());
    }
    let timeout = c.timeout();
    let wait = c.stream().socket().set_read_timeout(Some(timeout));
    wait.map_err(|e| Error::broken(plain(&e)))?;
    let mut deadline = Instant::now() + timeout;
    let chunk_bytes = progress.chunk_bytes();
    let mut buffer = vec![0; chunk_bytes.min(usize::try_from(left).unwrap_or(chunk_bytes))];
    while left > 0 {
        let window = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = match c.stream().read(&mut buffer[..window]) {
            // The length was stated, so it does not matter in what manner it ends.
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(0),
            read => read,
        };
        let n = match read {
            Ok(0) => {
                return Err(Error::broken(format!(
                    "the connection ended after {} of {bytes} bytes",
                    bytes - left
                )));
            }
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::Interrupted && Instant::now() < deadline => continue,
            Err(e) if data::is_wait(&e) => return Err(c.stalled("sent nothing")),
            Err(e) => {
                return Err(Error::broken(format!(
                    "the connection broke: {}",
                    plain(&e)
                )));
            }
        };
        sink.write_all(&buffer[..n]).map_err(|e| Error::local(&e))?;
        left -= n as u64;
        progress.advance(n);
        deadline = Instant::now() + timeout;
    }
    Ok(())
}

/// RETR over a data connection.
fn retrieve(
    c: &mut Connection,
    path: &[u8],
    rest: Option<Rest>,
    sink: &mut dyn Write,
    progress: &mut Progress,
) -> Result<Downloaded, Error> {
    c.binary()?;
    let size = match c.features.size {
        true => size_of(&c.command("SIZE", Some(path))?),
        false => None,
    };
    let modify_s = match c.features.mdtm {
        true => modification(&c.command("MDTM", Some(path))?),
        false => None,
    };
    let from = rest.map_or(0, |rest| rest.from);
    if let (Some(rest), Some(size)) = (rest, size) {
        rest.check(size.saturating_sub(from))?;
    }
    let mut data = data::open(c)?;
    let line = rest_line(c, rest)?;
    c.send_raw(&line)?;
    rest_taken(c, rest)?;
    c.send("RETR", Some(path))?;
    let reply = data::go_ahead(c, &mut data)?;
    // Some servers write the length of all of it there, whatever REST said.
    let announced = match rest {
        Some(rest) => Some(rest.of - rest.from.min(rest.of)),
        None => length_in_150(reply.text()).or(size),
    };
    if let Some(bytes) = announced {
        progress.expect(from + bytes);
    }
    let mut bytes = 0u64;
    let moved = drain(c, &mut data, &mut |chunk| {
        bytes += chunk.len() as u64;
        if let Some(announced) = announced.filter(|&announced| announced < bytes) {
            return Err(Error::broken(format!(
                "the server sends more than the {announced} bytes it announced"
            )));
        }
        progress.advance(chunk.len());
        sink.write_all(chunk).map_err(|e| Error::local(&e))
    });
    drop(data);
    match (moved, announced) {
        (Err(error), _) => {
            if error.code.is_none() && !c.is_lost() {
                // The sink failed, or it was enough: the server's 426 for the cut transfer is still
                // to come.
                let _ = c.read_reply();
            }
            Err(error)
        }
        (Ok(()), Some(announced)) if announced != bytes => {
            let said = c.read_reply()?.success();
            said.and(Err(Error::broken(format!(
                "the transfer ended after {bytes} of {announced} bytes"
            ))))
        }
        (Ok(()), _) => {
            c.read_reply()?.success()?;
            Ok(Downloaded { bytes, modify_s })
        }
    }
}

/// Reads a data connection to its end, and says that it is.
///
/// # Errors
/// It breaks, or `take` fails.
pub fn drain(
    c: &mut Connection,
    data: &mut Stream,
    take: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match data::receive(c, data, &mut buffer)? {
            0 => {
                // Some servers wait for it; if it cannot be said, nothing is lost.
                let _ = data.finish();
                return Ok(());
            }
            n => take(&buffer[..n])?,
        }
    }
}

/// The 1xx reply before a body.
///
/// # Errors
/// A refusal, or a success where nothing was moved yet.
pub fn go_ahead(c: &mut Connection) -> Result<Reply, Error> {
    let reply = c.read_reply()?;
    match reply.code {
        100..200 => Ok(reply),
        200..300 => Err(c.nonsense(&format!("a final reply before the transfer ({reply})"))),
        _ => Err(Error::refused(&reply)),
    }
}

/// The reply that ends a transfer.
fn outcome(c: &mut Connection, reply: Reply) -> Result<(), Error> {
    if reply.is_preliminary() {
        return Err(c.nonsense(&format!("a second go-ahead ({reply})")));
    }
    reply.success().map(|_| ())
}

/// The n of `... (n bytes).` at the end of a 150.
fn length_in_150(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii_end();
    let text = text.strip_suffix(b".").unwrap_or(text);
    let text = text.strip_suffix(b" bytes)")?;
    let digits = text.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let (before, digits) = text.split_at(text.len() - digits);
    before.ends_with(b"(").then(|| number(digits)).flatten()
}

/// The time in a reply to MDTM.
pub fn modification(reply: &Reply) -> Option<i64> {
    (reply.code == 213).then(|| time::parse_14(reply.text().trim_ascii()))?
}

/// The number in a reply to SIZE.
pub fn size_of(reply: &Reply) -> Option<u64> {
    (reply.code == 213).then(|| number(reply.text().trim_ascii()))?
}

/// Sends what comes from `source` as `path`; `facts` hold for it as far as the server takes them.
/// There must be at least `bytes_min` bytes; what is longer than a message is sent with that length
/// if it is known (not 0). With `from` the server has so much already, and `source` is the rest.
/// Returns the number of bytes sent.
///
/// # Errors
/// The server refuses, the transfer breaks, or the source fails or has another length.
pub fn upload(
    c: &mut Connection,
    path: &[u8],
    from: u64,
    source: &mut dyn Read,
    bytes_min: u64,
    facts: UploadFacts,
    progress: &mut Progress,
) -> Result<u64, Error> {
    if bytes_min > 0 {
        progress.expect(from + bytes_min);
    }
    let has_upload = c.features.upload.is_some();
    if has_upload && (bytes_min > IMMEDIATE_BYTES_MAX || from > 0) {
        upload_waiting(c, path, from, source, bytes_min, facts, progress)?;
        return Ok(bytes_min);
    }
    let mut head = Vec::new();
    if has_upload {
        let read = source.take(IMMEDIATE_BYTES_MAX + 1).read_to_end(&mut head);
        read.map_err(|e| Error::local(&e))?;
        let bytes = head.len() as u64;
        if bytes < bytes_min {
            return Err(shrunk());
        }
        if bytes <= IMMEDIATE_BYTES_MAX {
            upload_immediate(c, path, &head, facts, progress)?;
            return Ok(bytes);
        }
    }
    let mut whole = head.as_slice().chain(source);
    let data = match data::open_binary(c) {
        Err(_) if has_upload && !c.is_lost() => {
            let (mut spool, bytes) = spooled(&mut whole)?;
            upload_waiting(c, path, 0, &mut spool, bytes, facts, progress)?;
            return Ok(bytes);
        }
        opened => opened?,
    };
    let sent = store(c, data, path, from, &mut whole, bytes_min, progress)?;
    let said = match c.features.size {
        true => size_of(&c.command("SIZE", Some(path))?),
        false => None,
    };
    let whole_bytes = from + sent;
    if let Some(there) = said.filter(|&there| there != whole_bytes) {
        return Err(Error::broken(format!(
            "{whole_bytes} bytes were sent, but the server has {there}"
        )));
    }
    keep::time_and_mode(c, path, facts)?;
    Ok(sent)
}

/// What is sent must not become less than what was announced.
pub fn shrunk() -> Error {
    Error::new(
        Exit::Local,
        "the file became shorter while it was being sent",
    )
}

/// The first word and the path of an UPLOAD, with the facts that this server takes.
///
/// # Errors
/// The path cannot be sent.
pub fn upload_line(
    c: &Connection,
    path: &[u8],
    bytes: u64,
    immediate: bool,
    facts: UploadFacts,
) -> Result<Vec<u8>, Error> {
    let takes = c.features.upload.unwrap_or_default();
    let facts = UploadFacts {
        modify_s: facts.modify_s.filter(|_| takes.modify),
        mode: facts.mode.filter(|_| takes.mode),
        sha256: facts.sha256.filter(|_| takes.sha256),
    };
    c.line(
        &format!("UPLOAD {}", first_word(bytes, immediate, &facts)),
        Some(path),
    )
}

fn upload_immediate(
    c: &mut Connection,
    path: &[u8],
    content: &[u8],
    facts: UploadFacts,
    progress: &mut Progress,
) -> Result<(), Error> {
    let mut message = upload_line(c, path, content.len() as u64, true, facts)?;
    message.extend_from_slice(content);
    let reply = match data::send(c, None, &message)? {
        Sent::All => c.read_reply()?,
        Sent::Answered(reply) => {
            c.give_up();
            return Err(early(c, &reply));
        }
    };
    progress.advance(content.len());
    outcome(c, reply)
}

fn upload_waiting(
    c: &mut Connection,
    path: &[u8],
    from: u64,
    source: &mut dyn Read,
    bytes: u64,
    facts: UploadFacts,
    progress: &mut Progress,
) -> Result<(), Error> {
    let line = upload_line(c, path, bytes, false, facts)?;
    rest(c, from)?;
    c.send_raw(&line)?;
    go_ahead(c)?;
    let mut buffer = vec![0; progress.chunk_bytes()];
    let mut left = bytes;
    while left > 0 {
        let window = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let n = match read_some(source, &mut buffer[..window]) {
            Ok(0) => {
                c.give_up();
                return Err(shrunk());
            }
            Ok(n) => n,
            Err(error) => {
                c.give_up();
                return Err(error);
            }
        };
        if let Sent::Answered(reply) = data::send(c, None, &buffer[..n])? {
            c.give_up();
            return Err(early(c, &reply));
        }
        left -= n as u64;
        progress.advance(n);
    }
    let reply = c.read_reply()?;
    outcome(c, reply)?;
    match read_some(source, &mut buffer[..1])? {
        0 => Ok(()),
        _ => Err(Error::new(
            Exit::Local,
            format!("it grew while it was being sent; the copy has its first {bytes} bytes"),
        )),
    }
}

/// The next upload continues what is there.
fn rest(c: &mut Connection, from: u64) -> Result<(), Error> {
    if from == 0 {
        return Ok(());
    }
    let reply = c.command("REST", Some(from.to_string().as_bytes()))?;
    match reply.code {
        350 => Ok(()),
        _ => Err(Error::refused(&reply)),
    }
}

/// STOR over a data connection. Returns the number of bytes.
fn store(
    c: &mut Connection,
    mut data: Stream,
    path: &[u8],
    from: u64,
    source: &mut dyn Read,
    bytes_min: u64,
    progress: &mut Progress,
) -> Result<u64, Error> {
    rest(c, from)?;
    c.send("STOR", Some(path))?;
    data::go_ahead(c, &mut data)?;
    let mut buffer = vec![0; progress.chunk_bytes()];
    let mut bytes = 0u64;
    loop {
        let read = match read_some(source, &mut buffer) {
            Ok(0) if bytes < bytes_min => Err(shrunk()),
            read => read,
        };
        let n = match read {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) => {
                // To a server an orderly end means a complete file, so this must not be one.
                let _ = socket2::SockRef::from(data.socket()).set_linger(Some(Duration::ZERO));
                drop(data);
                let _ = c.read_reply();
                return Err(error);
            }
        };
        if let Sent::Answered(reply) = data::send(c, Some(&mut data), &buffer[..n])? {
            return Err(early(c, &reply));
        }
        bytes += n as u64;
        progress.advance(n);
    }
    if let Err(error) = data.finish() {
        return Err(c.salvage(&error));
    }
    let reply = c.read_reply()?;
    // For the tickets that the server may have sent on it.
    data.has_input();
    drop(data);
    outcome(c, reply)?;
    Ok(bytes)
}

/// A final reply before all bytes were sent.
fn early(c: &mut Connection, reply: &Reply) -> Error {
    match reply.code {
        400.. => Error::refused(reply),
        _ => c.nonsense(&format!("a reply before all bytes were sent ({reply})")),
    }
}

fn read_some(source: &mut dyn Read, buffer: &mut [u8]) -> Result<usize, Error> {
    loop {
        match source.read(buffer) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            read => return read.map_err(|e| Error::local(&e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_only_where_servers_write_them() {
        let check = |text: &str, expected| {
            assert_eq!(length_in_150(text.as_bytes()), expected, "{text}");
        };
        check("Opening data connection (4096 bytes).", Some(4096));
        check(
            "Opening BINARY mode data connection for a (0 bytes)",
            Some(0),
        );
        check("4.0 kbytes to download", None);
        check("Opening for a (5 bytes).txt", None);
        check("Opening (x5 bytes).", None);
        check("Opening ( bytes).", None);
        check("5 bytes)", None);
        check("", None);
    }

    #[test]
    fn sizes_and_times() {
        assert_eq!(size_of(&Reply::of(213, "17 ")), Some(17));
        assert_eq!(size_of(&Reply::of(213, "-1")), None);
        assert_eq!(size_of(&Reply::of(550, "17")), None);
        let noon = Reply::of(213, "20260131120000");
        assert_eq!(modification(&noon), Some(1_769_860_800));
        assert_eq!(modification(&Reply::of(213, "x")), None);
    }
}
