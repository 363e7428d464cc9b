//! One session with its sockets: carries out what its dialogue says and tells it what came of that.
//!
//! It never waits. A turn goes as far as the sockets let it, or to the end of its budget.

use std::net::SocketAddr;
use std::rc::Rc;

use mio::{Registry, Token};

use super::channel::{Channel, DISCARD_BYTES, Read, Scratch, Sent};
use super::content::Content;
use super::dialogue::{Dialogue, Done, Failure, Manner, Step};
use super::measure::Clock;
use super::outbox::Outbox;
use super::tls::{Identity, Trust};

/// Reads in one turn of one connection.
const TURN_READS: u32 = 16;
/// Less than this is read together with the replies around it: a call costs more than a copy.
const DISCARD_BYTES_MIN: u64 = 128 * 1024;

/// What all links share in a turn.
pub struct Surroundings<'a> {
    /// Where events come from.
    pub registry: &'a Registry,
    /// Memory for what comes in.
    pub scratch: &'a mut Scratch,
    /// What goes out.
    pub content: &'a Content,
    /// The time.
    pub clock: &'a Clock,
    /// Where the server is.
    pub server: SocketAddr,
    /// How to begin TLS, if at all.
    pub trust: Option<&'a Trust>,
}

/// What came of a turn.
#[derive(Debug)]
pub enum Happening {
    /// The connection was there after so many nanoseconds.
    Connected(u64),
    /// TLS took so many.
    Secured(u64),
    /// The login took so many, from the connection or the end of the TLS handshake on; the
    /// session began to connect then.
    Ready {
        /// Nanoseconds.
        login: u64,
        /// When it began to connect.
        began: u64,
    },
    /// An operation is done.
    Done(Done),
    /// An operation was refused.
    Refused(Failure),
    /// The session is over, and with it what was under way.
    Lost(Failure),
    /// The session is over as it should be.
    Left,
}

/// A session and its sockets.
#[derive(Debug)]
pub struct Link {
    /// The protocol's side of it.
    pub dialogue: Dialogue,
    /// Mio tokens: this one for the control connection, the next for data.
    token: Token,
    control: Option<Channel>,
    identity: Option<Identity>,
    data: Option<Data>,
    state: State,
    /// When it began to connect, and when the phase did that is under way.
    began: u64,
    phase_began: u64,
    steps: Vec<Step>,
    /// When it last did something.
    pub active: u64,
    /// Bytes of files and listings since they were last asked for.
    moved: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Connecting,
    Securing,
    /// From the greeting on.
    Talking,
    Leaving,
}

#[derive(Debug)]
struct Data {
    channel: Channel,
    job: Job,
    outbox: Outbox,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    /// The server has not said 150.
    Waiting,
    Receiving,
    Sending,
    Over,
}

impl Link {
    /// A session that is not connected. Its tokens are `2 * index` and the one behind.
    pub fn new(index: usize, manner: Rc<Manner>) -> Link {
        Link {
            dialogue: Dialogue::new(manner),
            token: Token(2 * index),
            control: None,
            identity: None,
            data: None,
            state: State::Closed,
            began: 0,
            phase_began: 0,
            steps: Vec::new(),
            active: 0,
            moved: 0,
        }
    }

    /// Whether there is no connection.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Bytes moved since this was last asked.
    pub fn take_moved(&mut self) -> u64 {
        std::mem::take(&mut self.moved)
    }

    /// What the TLS connections agreed on.
    pub fn agreed(&self) -> Option<String> {
        let tls = self.control.as_ref().and_then(Channel::tls);
        tls.map(super::tls::Tls::agreed)
    }

    /// The peer has ended its side of the control connection, or of data.
    pub fn half_closed(&mut self, is_data: bool) {
        let channel = match is_data {
            false => self.control.as_mut(),
            true => self.data.as_mut().map(|data| &mut data.channel),
        };
        if let Some(channel) = channel {
            channel.half_closed();
        }
    }

    /// Begins to connect.
    pub fn connect(&mut self, cx: &mut Surroundings, out: &mut Vec<Happening>) {
        let now = cx.clock.now();
        self.close();
        self.began = now;
        self.phase_began = now;
        self.active = now;
        self.state = State::Connecting;
        let connected = Channel::connect(cx.server).and_then(|mut channel| {
            channel.send_at_once()?;
            channel.register(cx.registry, self.token)?;
            Ok(channel)
        });
        match connected {
            Ok(channel) => self.control = Some(channel),
            Err(failure) => self.lose(failure, out),
        }
    }

    /// Says goodbye; the end comes by events.
    pub fn leave(&mut self) {
        if self.state == State::Talking {
            self.state = State::Leaving;
            self.dialogue.quit();
        }
    }

    /// Drops everything.
    pub fn close(&mut self) {
        self.control = None;
        self.data = None;
        self.identity = None;
        self.state = State::Closed;
        self.steps.clear();
        self.dialogue.reset();
    }

    /// Ends the session because of a failure.
    pub fn lose(&mut self, failure: Failure, out: &mut Vec<Happening>) {
        self.close();
        out.push(Happening::Lost(failure));
    }

    /// Goes as far as it can. `reads_control`: the control connection may have something to read; all
    /// else is tried in any case. True: there is more to do, without an event.
    pub fn turn(
        &mut self,
        reads_control: bool,
        cx: &mut Surroundings,
        out: &mut Vec<Happening>,
    ) -> bool {
        if self.state == State::Closed {
            return false;
        }
        self.advance(reads_control, cx, out)
            .unwrap_or_else(|failure| {
                self.lose(failure, out);
                false
            })
    }

    /// Sends what has just been begun. True: there is more to do, without an event.
    pub fn send(&mut self, cx: &mut Surroundings, out: &mut Vec<Happening>) -> bool {
        self.active = cx.clock.now();
        self.send_control(cx).unwrap_or_else(|failure| {
            self.lose(failure, out);
            false
        })
    }

    fn advance(
        &mut self,
        reads_control: bool,
        cx: &mut Surroundings,
        out: &mut Vec<Happening>,
    ) -> Result<bool, Failure> {
        let mut more = false;
        if self.state == State::Connecting {
            let Some(control) = &mut self.control else {
                return Ok(false);
            };
            if !control.is_connected()? {
                return Ok(false);
            }
            let now = cx.clock.now();
            out.push(Happening::Connected(now - self.began));
            self.phase_began = now;
            self.state = State::Talking;
            self.dialogue.opened(&mut self.steps);
            self.carry_out(cx, out)?;
        }
        if reads_control {
            more |= self.read_control(cx, out)?;
            if self.state == State::Closed {
                return Ok(false);
            }
            self.carry_out(cx, out)?;
        }
        // Before the data connection is looked at: what is said here makes it move.
        more |= self.send_control(cx)?;
        more |= self.move_data(cx)?;
        self.carry_out(cx, out)?;
        Ok(more)
    }

    fn send_control(&mut self, cx: &mut Surroundings) -> Result<bool, Failure> {
        let Some(control) = &mut self.control else {
            return Ok(false);
        };
        if self.state == State::Securing {
            control.flush()?;
            return Ok(false);
        }
        let sent = control.send(&mut self.dialogue.outbox, cx.content, &mut self.moved)?;
        Ok(sent == Sent::More)
    }

    fn read_control(
        &mut self,
        cx: &mut Surroundings,
        out: &mut Vec<Happening>,
    ) -> Result<bool, Failure> {
        for _ in 0..TURN_READS {
            let Some(control) = &mut self.control else {
                return Ok(false);
            };
            let body = self.dialogue.body_left();
            let state = if body >= DISCARD_BYTES_MIN && control.tls().is_none() {
                let (n, state) = control.discard(cx.scratch, body)?;
                if n > 0 {
                    self.active = cx.clock.now();
                    self.moved += n;
                    self.dialogue.discarded(n, self.active);
                }
                state
            } else {
                let (dialogue, steps) = (&mut self.dialogue, &mut self.steps);
                let (clock, active) = (cx.clock, &mut self.active);
                let mut moved = 0;
                let state = control.read(cx.scratch, |bytes| {
                    *active = clock.now();
                    moved += dialogue.receive(bytes, *active, steps)?;
                    Ok(())
                });
                self.moved += moved;
                state?
            };
            if self.state == State::Securing && !control.is_handshaking() {
                let now = cx.clock.now();
                out.push(Happening::Secured(now - self.phase_began));
                self.phase_began = now;
                self.state = State::Talking;
                self.dialogue.secured();
            }
            match state {
                Read::Drained => return Ok(false),
                Read::End if self.state == State::Leaving => {
                    self.close();
                    out.push(Happening::Left);
                    return Ok(false);
                }
                Read::End => {
                    // The last words may say why.
                    self.carry_out(cx, out)?;
                    let waited = self.dialogue.waits_for();
                    return Err(Failure::new(
                        "the server closed the connection",
                        format!("while waiting for {waited}"),
                    ));
                }
                Read::More if !self.steps.is_empty() => return Ok(true),
                Read::More => {}
            }
        }
        Ok(true)
    }

    fn carry_out(
        &mut self,
        cx: &mut Surroundings,
        out: &mut Vec<Happening>,
    ) -> Result<(), Failure> {
        if self.steps.is_empty() {
            return Ok(());
        }
        let mut steps = std::mem::take(&mut self.steps);
        for step in steps.drain(..) {
            match step {
                Step::Secure => {
                    let identity = cx.trust.map(Trust::identity);
                    let (Some(identity), Some(control)) = (identity, &mut self.control) else {
                        return Err(Failure::new("TLS", "it was not asked for"));
                    };
                    self.phase_began = cx.clock.now();
                    control.secure(identity.connect()?);
                    self.identity = Some(identity);
                    self.state = State::Securing;
                    control.flush()?;
                }
                Step::Ready => out.push(Happening::Ready {
                    login: cx.clock.now() - self.phase_began,
                    began: self.began,
                }),
                Step::Connect(port) => {
                    let address = SocketAddr::new(cx.server.ip(), port);
                    self.data = Some(Data {
                        channel: Channel::connect(address)?,
                        job: Job::Waiting,
                        outbox: Outbox::default(),
                    });
                }
                Step::Receive => self.data_job(Job::Receiving)?,
                Step::Send(bytes) => {
                    self.data_job(Job::Sending)?;
                    if let Some(data) = &mut self.data {
                        data.outbox.body(bytes, cx.content.beginning());
                    }
                }
                Step::Drop => self.data = None,
                Step::Done(done) => out.push(Happening::Done(done)),
                Step::Refused(failure) => out.push(Happening::Refused(failure)),
            }
        }
        // Carrying out makes no steps, so the empty list goes back for its memory.
        self.steps = steps;
        Ok(())
    }

    fn data_job(&mut self, job: Job) -> Result<(), Failure> {
        let Some(data) = &mut self.data else {
            return Err(Failure::new("no FTP", "150 without a data connection"));
        };
        data.job = job;
        if let Some(identity) = &self.identity {
            data.channel.secure(identity.connect()?);
        }
        Ok(())
    }

    /// True: there is more to do, without an event.
    fn move_data(&mut self, cx: &mut Surroundings) -> Result<bool, Failure> {
        let Some(data) = &mut self.data else {
            return Ok(false);
        };
        let token = data_token(self.token);
        match data.job {
            Job::Waiting | Job::Over => Ok(false),
            Job::Receiving => self.receive_data(cx),
            Job::Sending => {
                if data.channel.tls().is_some() {
                    // The handshake, and tickets behind it.
                    let state = data.channel.read(cx.scratch, |_| Ok(()))?;
                    if state == Read::End {
                        return Err(Failure::new(
                            "TLS",
                            "the server ended an upload's connection",
                        ));
                    }
                    if data.channel.is_handshaking() {
                        data.channel.flush()?;
                        data.channel.register(cx.registry, token)?;
                        return Ok(state == Read::More);
                    }
                }
                self.active = cx.clock.now();
                match data
                    .channel
                    .send(&mut data.outbox, cx.content, &mut self.moved)?
                {
                    Sent::More => Ok(true),
                    Sent::Blocked => {
                        data.channel.register(cx.registry, token)?;
                        Ok(false)
                    }
                    Sent::All => {
                        if !data.channel.end()? {
                            data.channel.register(cx.registry, token)?;
                            return Ok(false);
                        }
                        data.job = Job::Over;
                        self.dialogue.data_ended(cx.clock.now(), &mut self.steps);
                        Ok(false)
                    }
                }
            }
        }
    }

    fn receive_data(&mut self, cx: &mut Surroundings) -> Result<bool, Failure> {
        let Some(data) = &mut self.data else {
            return Ok(false);
        };
        let token = data_token(self.token);
        data.channel.flush()?;
        for _ in 0..TURN_READS {
            let (n, state) = match data.channel.tls() {
                None => data.channel.discard(cx.scratch, DISCARD_BYTES as u64)?,
                Some(_) => {
                    let mut n = 0;
                    let state = data.channel.read(cx.scratch, |bytes| {
                        n += bytes.len() as u64;
                        Ok(())
                    })?;
                    data.channel.flush()?;
                    (n, state)
                }
            };
            if n > 0 {
                self.moved += n;
                self.active = cx.clock.now();
                self.dialogue.data_began(self.active);
            }
            match state {
                Read::More => {}
                Read::Drained => {
                    data.channel.register(cx.registry, token)?;
                    return Ok(false);
                }
                Read::End => {
                    // Some servers (ProFTPD) say 226 only when this side has closed too.
                    match data.channel.tls().is_none() || data.channel.end()? {
                        true => self.data = None,
                        false => data.job = Job::Over,
                    }
                    self.dialogue.data_ended(cx.clock.now(), &mut self.steps);
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// That of the data connection that belongs to the control connection with the token `control`.
fn data_token(control: Token) -> Token {
    Token(control.0 + 1)
}
