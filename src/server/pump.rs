//! Moving the bytes of one transfer, a bounded amount per call.
//!
//! The way of moving is chosen in one place, [`Pump::step`], from the job and the wire; whose the bytes are, and
//! what is said when they have moved, is not known here.

mod receiving;
mod warm;

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::net::sockopt::set_tcp_cork;

use super::buffers::{CROWDED_BYTES, Held};
use super::tls::{self, Read, Tls, WRITE_BYTES};
use crate::session::{Job, Outcome, Receive, Send};
use receiving::{Pipe, copy_in, decrypt_in, discard, splice_in, write_in};
use warm::Warm;
pub use warm::{Blind, read_small};

/// Bytes that one connection may move per turn of the reactor, so that a fast transfer does not
/// make others wait: about 20 us of sendfile, or 100 us of receiving.
pub const QUANTUM_BYTES: usize = 256 * 1024;
/// Files up to this size are copied, so that they share a segment with what follows them.
const ONE_SEGMENT_BYTES: u64 = 16 * 1024;

/// From here on a file is sent corked: only full segments leave before its end. Otherwise each turn
/// ends with one that is not, and the client is woken twice as often.
const CORK_FROM_BYTES: u64 = 1 << 20;

/// Below this, what an upload has sent is read and written; from here on it is spliced, which saves
/// a copy but costs two more calls to begin with.
const SPLICE_FROM_BYTES: u64 = 64 * 1024;

/// A chunk of a file on its way through memory (TYPE A).
const CHUNK_BYTES: usize = 64 * 1024;

/// What a batch of a listing takes off the budget beside its text: its entries are looked up one by
/// one, which takes longer than sending them.
const BATCH_COST: usize = QUANTUM_BYTES / 4;

/// What a part of a TLS handshake takes off the budget: a signature and a key exchange take as long as
/// sending so much.
const HANDSHAKE_COST: usize = QUANTUM_BYTES / 4;

/// What is read at a time of a handshake, of a client that may not move anything yet.
const HANDSHAKE_BYTES: usize = 2048;

/// What all transfers share: only one of them runs at a time.
#[derive(Debug)]
pub struct Tools {
    /// What is read of a socket or file before it goes on. It keeps its length, since to zero it
    /// for each small upload would cost more than the upload.
    pub chunk: Box<[u8]>,
    /// What was decrypted.
    pub scratch: Vec<u8>,
    /// Ciphertext on its way.
    pub tls: tls::Buffers,
    /// Who sends makes only a little at a time when others hold much.
    pub held: Held,
    /// Where it cannot be known what is in memory.
    pub blind: Option<Blind>,
    pipe: Pipe,
}

impl Tools {
    /// The buffers and the pipe.
    ///
    /// # Errors
    /// As pipe(2): too many open files.
    pub fn new() -> io::Result<Tools> {
        Ok(Tools {
            chunk: vec![0; QUANTUM_BYTES].into(),
            scratch: Vec::new(),
            tls: tls::Buffers::default(),
            held: Held::default(),
            blind: None,
            pipe: Pipe::new()?,
        })
    }
}

/// A socket, and what protects it.
#[derive(Debug)]
pub struct Wire<'a> {
    /// The socket.
    pub socket: BorrowedFd<'a>,
    /// TLS, where there is any.
    pub tls: Option<&'a mut Tls>,
}

/// What came of one call.
#[derive(Debug)]
pub enum Step {
    /// The budget is used up; there is more.
    More,
    /// The socket is not ready; it will tell.
    Blocked,
    /// What is to be sent next is not in memory.
    Cold,
    /// What may move for now has moved.
    Limited,
    /// It is over.
    Done(Outcome),
}

/// One transfer.
#[derive(Debug)]
pub struct Pump {
    job: Job,
    /// Text that has not been sent, from `held_at` on.
    held: Vec<u8>,
    held_at: usize,
    ended: bool,
    /// The file system cannot send from this file by itself.
    copies: bool,
    corked: bool,
    warm: Warm,
    moved: u64,
    fills: u64,
}

/// What one read or write of a socket gave.
enum Io {
    Moved(usize),
    /// So many bytes of the socket, which may have completed no record, or several.
    Decrypted {
        read: usize,
        bytes: usize,
    },
    Blocked,
    Cold,
    Ended(Outcome),
}

impl Pump {
    /// A transfer that has not begun.
    pub fn new(job: Job) -> Pump {
        Pump {
            job,
            held: Vec::new(),
            held_at: 0,
            ended: false,
            copies: false,
            corked: false,
            warm: Warm::default(),
            moved: 0,
            fills: 0,
        }
    }

    /// Whether it takes bytes from the client.
    pub fn is_receiving(&self) -> bool {
        matches!(self.job, Job::Receive(_) | Job::Discard(_))
    }

    /// The file that comes in, if one does.
    pub fn receive(&self) -> Option<&Receive> {
        match &self.job {
            Job::Receive(receive) => Some(receive),
            Job::Send(_) | Job::Discard(_) | Job::Text(_) => None,
        }
    }

    /// The same, to be told something.
    pub fn receive_mut(&mut self) -> Option<&mut Receive> {
        match &mut self.job {
            Job::Receive(receive) => Some(receive),
            Job::Send(_) | Job::Discard(_) | Job::Text(_) => None,
        }
    }

    /// The file that goes out, if one does.
    pub fn send(&self) -> Option<&Send> {
        match &self.job {
            Job::Send(send) => Some(send),
            Job::Receive(_) | Job::Discard(_) | Job::Text(_) => None,
        }
    }

    /// This part of the file that goes out has been read into memory.
    pub fn was_read_in(&mut self, part: Range<u64>, was_awaited: bool) {
        if let Job::Send(send) = &self.job {
            self.warm.was_read_in(send.at, part, was_awaited);
        }
    }

    /// Bytes that went over the wire so far.
    pub fn moved(&self) -> u64 {
        self.moved
    }

    /// What was done so far, in bytes and pieces: whether a turn was of any use.
    pub fn progress(&self) -> (u64, u64) {
        (self.moved, self.fills)
    }

    /// What it holds of text that has not been sent.
    pub fn held_bytes(&self) -> usize {
        self.held.capacity()
    }

    /// Gives the job back.
    pub fn into_job(self) -> Job {
        self.job
    }

    /// Whether it is not its end that comes next.
    fn has_bytes_to_move(&self) -> bool {
        match &self.job {
            Job::Send(send) => send.bytes > 0 || self.held_at < self.held.len(),
            Job::Text(_) => self.held_at < self.held.len(),
            Job::Receive(receive) => receive.bytes != Some(0),
            Job::Discard(left) => *left > 0,
        }
    }

    /// Moves bytes between the job and the wire, and takes them off `budget`, the work that may be
    /// done, and off `allowed`, the bytes that the wire may carry. A handshake costs only work.
    pub fn step(
        &mut self,
        wire: &mut Wire,
        tools: &mut Tools,
        budget: &mut usize,
        allowed: &mut usize,
    ) -> Step {
        let socket = wire.socket;
        loop {
            if *budget == 0 {
                return Step::More;
            }
            if !self.is_receiving()
                && let Some(tls) = &mut wire.tls
                && let Some(step) = before_sending(tls, socket, tools, budget)
            {
                return step;
            }
            let handshaking = wire.tls.as_ref().is_some_and(|tls| tls.is_handshaking());
            if *allowed == 0 && !handshaking && self.has_bytes_to_move() {
                return Step::Limited;
            }
            let most = (*budget).min(*allowed);
            let moved = match (&mut self.job, &mut wire.tls) {
                (Job::Send(send), _) if send.bytes == 0 && self.held.is_empty() => {
                    if self.corked {
                        self.corked = cork(socket, false);
                    }
                    return Step::Done(Outcome::Complete);
                }
                (Job::Send(send), Some(tls)) if send.ascii.is_none() => {
                    send_encrypted(send, tls, socket, tools, &mut self.warm, *allowed)
                }
                (Job::Send(send), None) if send.ascii.is_none() && !self.copies => {
                    let (warm, corked) = (&mut self.warm, &mut self.corked);
                    let is_first = self.moved == 0;
                    match send_plain(send, socket, tools, warm, corked, most, is_first) {
                        Io::Ended(Outcome::Failed(error)) if cannot_sendfile(&error) => {
                            self.copies = true;
                            // What is copied ends like any text.
                            self.corked = self.corked && cork(socket, false);
                            Io::Moved(0)
                        }
                        io => io,
                    }
                }
                (Job::Send(_) | Job::Text(_), _) => {
                    self.fill_and_send(wire, tools, budget, *allowed)
                }
                (Job::Receive(receive), Some(tls)) => {
                    // Behind its end stands what it is for.
                    let handshake = if handshaking { HANDSHAKE_BYTES } else { 0 };
                    let most = (*allowed).max(handshake);
                    decrypt_in(receive, tls, socket, tools, most)
                }
                (Job::Receive(receive), None) => {
                    if receive.bytes == Some(0) {
                        return Step::Done(Outcome::Complete);
                    }
                    let splices = receive.ascii.is_none() && receive.digest.is_none();
                    if splices && self.moved >= SPLICE_FROM_BYTES {
                        splice_in(receive, socket, tools, most)
                    } else {
                        copy_in(receive, socket, tools, most)
                    }
                }
                (Job::Discard(0), _) => return Step::Done(Outcome::Complete),
                (Job::Discard(left), _) => discard(left, socket, tools, most),
            };
            match moved {
                Io::Moved(n) => {
                    self.moved += n as u64;
                    *budget = budget.saturating_sub(n);
                    *allowed = allowed.saturating_sub(n);
                }
                Io::Decrypted { read, bytes } => {
                    let handshake = if handshaking { HANDSHAKE_COST } else { 0 };
                    self.moved += bytes as u64;
                    *budget = budget.saturating_sub(read.max(bytes) + handshake);
                    *allowed = allowed.saturating_sub(read);
                }
                Io::Blocked => return Step::Blocked,
                Io::Cold => return Step::Cold,
                Io::Ended(outcome) => return Step::Done(outcome),
            }
        }
    }

    /// Sends what is held, of text or of what is copied, and makes more of it before.
    fn fill_and_send(
        &mut self,
        wire: &mut Wire,
        tools: &mut Tools,
        budget: &mut usize,
        allowed: usize,
    ) -> Io {
        match self.fill(tools, budget) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Io::Cold,
            Err(error) => return Io::Ended(Outcome::Failed(error)),
        }
        match (self.held_at < self.held.len(), self.ended) {
            (true, _) if allowed > 0 => self.send_held(wire, tools, allowed),
            (false, true) => Io::Ended(Outcome::Complete),
            _ => Io::Moved(0),
        }
    }

    /// Takes bytes of an in-band body that have been read already. Returns how many it used, and the
    /// outcome if that was all.
    pub fn feed(&mut self, bytes: &[u8], tools: &mut Tools) -> (usize, Option<Outcome>) {
        let left = match &self.job {
            Job::Receive(receive) => receive.bytes.unwrap_or(u64::MAX),
            Job::Discard(left) => *left,
            Job::Send(_) | Job::Text(_) => 0,
        };
        let used = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let stored = match &mut self.job {
            Job::Receive(receive) => write_in(receive, &bytes[..used], &mut tools.scratch),
            Job::Discard(left) => {
                *left -= used as u64;
                Ok(())
            }
            Job::Send(_) | Job::Text(_) => Ok(()),
        };
        self.moved += used as u64;
        let outcome = match stored {
            Ok(()) => (used as u64 == left).then_some(Outcome::Complete),
            Err(error) => Some(Outcome::Failed(error)),
        };
        (used, outcome)
    }

    /// Holds the next piece of what is sent from memory, where nothing is held. One batch of a
    /// listing may hold no entry that is wanted.
    fn fill(&mut self, tools: &mut Tools, budget: &mut usize) -> io::Result<()> {
        if self.held_at < self.held.len() || self.ended {
            return Ok(());
        }
        let is_crowded = tools.held.is_crowded();
        match is_crowded {
            true => self.held = Vec::new(),
            false => self.held.clear(),
        }
        self.held_at = 0;
        self.fills += 1;
        match &mut self.job {
            Job::Text(text) => {
                self.ended = !text.fill(&mut self.held, is_crowded)?;
                *budget = budget.saturating_sub(BATCH_COST);
            }
            Job::Send(send) => {
                read_chunk(send, tools, &mut self.warm, &mut self.held)?;
                self.ended = send.bytes == 0;
            }
            Job::Receive(_) | Job::Discard(_) => self.ended = true,
        }
        Ok(())
    }

    fn send_held(&mut self, wire: &mut Wire, tools: &mut Tools, most: usize) -> Io {
        let held = &self.held[self.held_at..];
        let held = &held[..held.len().min(most)];
        let io = match &mut wire.tls {
            Some(tls) => match tls.write(wire.socket, held, &mut tools.tls) {
                Ok(0) => Io::Blocked,
                Ok(n) => Io::Moved(n),
                Err(_) => Io::Ended(Outcome::Broken),
            },
            None => send(wire.socket, held, SendFlags::empty()),
        };
        if let Io::Moved(n) = io {
            self.held_at += n;
        }
        io
    }
}

/// What has to happen before more can be encrypted: the handshake, and what was encrypted before has
/// to leave. `None`: it has.
fn before_sending(
    tls: &mut Tls,
    socket: BorrowedFd,
    tools: &mut Tools,
    budget: &mut usize,
) -> Option<Step> {
    while tls.is_handshaking() {
        if *budget == 0 {
            return Some(Step::More);
        }
        tools.scratch.clear();
        // What a client sends on a connection that is the server's to send on is nothing.
        match tls.read(socket, &mut tools.scratch, &mut tools.tls, usize::MAX) {
            Read::Moved(_) => *budget -= HANDSHAKE_COST.min(*budget),
            Read::Blocked => return Some(Step::Blocked),
            _ => return Some(Step::Done(Outcome::NotProtected)),
        }
    }
    if tls.has_failed() {
        return Some(Step::Done(Outcome::NotProtected));
    }
    match tls.flush(socket, &mut tools.tls) {
        Ok(true) => None,
        Ok(false) => Some(Step::Blocked),
        Err(_) => Some(Step::Done(Outcome::Broken)),
    }
}

/// Nothing of before waits, so all of it is taken.
fn send_encrypted(
    send: &mut Send,
    tls: &mut Tls,
    socket: BorrowedFd,
    tools: &mut Tools,
    warm: &mut Warm,
    most: usize,
) -> Io {
    let most = at_most(Some(send.bytes), most.min(WRITE_BYTES));
    let n = match warm.read(send, &mut tools.chunk[..most], &mut tools.blind) {
        Ok(0) => return Io::Ended(Outcome::Failed(io::ErrorKind::UnexpectedEof.into())),
        Ok(n) => n,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Io::Moved(0),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Io::Cold,
        Err(error) => return Io::Ended(Outcome::Failed(error)),
    };
    match tls.write(socket, &tools.chunk[..n], &mut tools.tls) {
        Ok(n) => {
            send.at += n as u64;
            send.bytes -= n as u64;
            Io::Moved(n)
        }
        Err(_) => Io::Ended(Outcome::Broken),
    }
}

/// Some file systems (FUSE among them) cannot; then bytes are copied.
fn cannot_sendfile(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)
    )
}

/// Sends all of a small file, which waits in the kernel for what follows at once, the end of the
/// connection or a reply, and leaves with it: to copy it costs less than a segment of its own.
fn send_with_end(file: &mut Send, socket: BorrowedFd, tools: &mut Tools, warm: &mut Warm) -> Io {
    let want = at_most(Some(file.bytes), tools.chunk.len());
    let chunk = &mut tools.chunk[..want];
    let n = match warm.read(file, chunk, &mut tools.blind) {
        Ok(0) => return Io::Ended(Outcome::Failed(io::ErrorKind::UnexpectedEof.into())),
        Ok(n) => n,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Io::Moved(0),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Io::Cold,
        Err(error) => return Io::Ended(Outcome::Failed(error)),
    };
    let io = send(socket, &chunk[..n], SendFlags::MORE);
    if let Io::Moved(n) = io {
        file.at += n as u64;
        file.bytes -= n as u64;
    }
    io
}

/// Sends some of a file as it is: all of a small one with its end, of others what is in memory.
fn send_plain(
    file: &mut Send,
    socket: BorrowedFd,
    tools: &mut Tools,
    warm: &mut Warm,
    corked: &mut bool,
    most: usize,
    is_first: bool,
) -> Io {
    let most = at_most(Some(file.bytes), most);
    if is_first && file.bytes <= ONE_SEGMENT_BYTES && file.bytes <= most as u64 {
        return send_with_end(file, socket, tools, warm);
    }
    if !warm.covers(file, most, &mut tools.blind) {
        return Io::Cold;
    }
    if !*corked && file.bytes >= CORK_FROM_BYTES {
        *corked = cork(socket, true);
    }
    send_file(file, socket, most)
}

/// Whether the socket is corked now. One that cannot be sends the same bytes.
fn cork(socket: BorrowedFd, on: bool) -> bool {
    set_tcp_cork(socket, on).is_ok() && on
}

fn send_file(send: &mut Send, socket: BorrowedFd, want: usize) -> Io {
    let mut at = send.at;
    loop {
        return match rustix::fs::sendfile(socket, &send.file, Some(&mut at), want) {
            Ok(0) => Io::Ended(Outcome::Failed(io::ErrorKind::UnexpectedEof.into())),
            Ok(n) => {
                send.at = at;
                send.bytes -= n as u64;
                Io::Moved(n)
            }
            Err(Errno::INTR) => continue,
            Err(error) => failed(error),
        };
    }
}

/// An error of a call that touches both a socket and a file: whose is it?
fn failed(error: Errno) -> Io {
    match error {
        Errno::AGAIN => Io::Blocked,
        Errno::PIPE | Errno::CONNRESET | Errno::CONNABORTED | Errno::TIMEDOUT => {
            Io::Ended(Outcome::Broken)
        }
        Errno::NOTCONN | Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::NETDOWN => {
            Io::Ended(Outcome::Broken)
        }
        error => Io::Ended(Outcome::Failed(error.into())),
    }
}

fn send(socket: BorrowedFd, bytes: &[u8], flags: SendFlags) -> Io {
    loop {
        return match rustix::net::send(socket, bytes, SendFlags::NOSIGNAL | flags) {
            Ok(n) => Io::Moved(n),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => Io::Blocked,
            Err(_) => Io::Ended(Outcome::Broken),
        };
    }
}

fn at_most(left: Option<u64>, budget: usize) -> usize {
    budget.min(left.map_or(usize::MAX, |left| {
        usize::try_from(left).unwrap_or(usize::MAX)
    }))
}

fn read_chunk(
    send: &mut Send,
    tools: &mut Tools,
    warm: &mut Warm,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    let chunk_bytes = match tools.held.is_crowded() {
        true => CROWDED_BYTES,
        false => CHUNK_BYTES,
    };
    let chunk = &mut tools.chunk;
    let most = at_most(Some(send.bytes), chunk_bytes);
    if most == 0 {
        return Ok(());
    }
    let n = match warm.read(send, &mut chunk[..most], &mut tools.blind) {
        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(n) => n,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
        Err(error) => return Err(error),
    };
    send.at += n as u64;
    send.bytes -= n as u64;
    match &mut send.ascii {
        Some(ascii) => ascii.translate(&chunk[..n], out),
        None => out.extend_from_slice(&chunk[..n]),
    }
    Ok(())
}

/// Sends what there is of `bytes` from `at` on. `more`: something follows at once, so a segment that
/// is not full may wait for it. `Ok(false)`: the socket is full.
///
/// # Errors
/// The connection is broken.
pub fn flush(socket: impl AsFd, bytes: &[u8], at: &mut usize, more: bool) -> io::Result<bool> {
    let flags = if more {
        SendFlags::MORE
    } else {
        SendFlags::empty()
    };
    while *at < bytes.len() {
        match send(socket.as_fd(), &bytes[*at..], flags) {
            Io::Moved(n) => *at += n,
            Io::Blocked => return Ok(false),
            Io::Decrypted { .. } | Io::Cold | Io::Ended(_) => {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
    }
    Ok(true)
}
