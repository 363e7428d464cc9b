//! The other workers of `hauld --workers`, as far as they matter to this one: their sessions count
//! against the limits here, and who guesses passwords there is locked here as well.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::Server;
use super::passwords::Passwords;
use crate::fingerprint::Fingerprint;
use crate::workers::{ADDRESSES_PER_MESSAGE, Attempt, Channel, Down, News, Up};

/// Between two messages about sessions: a storm of logins is told in pieces.
const TELL_EVERY: Duration = Duration::from_millis(5);
/// The same while the parent does not read, which may be stopped: an event says when it has begun to,
/// but nothing says when whatever else was in the way is gone.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// Addresses whose numbers have changed and were not told; more are not remembered one by one.
const CHANGED_MAX: usize = 16 * 1024;

/// What is known of the others, and what they were told.
#[derive(Debug)]
pub(super) struct Siblings {
    channel: Channel,
    others: HashMap<usize, Other>,
    changed: HashSet<IpAddr>,
    /// Everything is to be told anew.
    all: bool,
    sessions_told: usize,
    told_at: Instant,
    pause: Duration,
    /// Those that were not told yet.
    attempts: VecDeque<Attempt>,
}

#[derive(Debug, Default)]
struct Other {
    sessions: usize,
    of: HashMap<IpAddr, usize>,
}

impl Siblings {
    /// The others are asked for through `channel`.
    ///
    /// # Errors
    /// It cannot be watched, or the parent is gone.
    pub(super) fn new(
        channel: Channel,
        fingerprint: Option<Fingerprint>,
        registry: &Registry,
        token: Token,
        now: Instant,
    ) -> io::Result<Siblings> {
        let socket = channel.as_fd().as_raw_fd();
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut SourceFd(&socket), token, interest)?;
        channel.send(&Up::Ready(fingerprint.map(|it| it.to_string())), None)?;
        Ok(Siblings {
            channel,
            others: HashMap::new(),
            changed: HashSet::new(),
            all: false,
            sessions_told: 0,
            told_at: now,
            pause: TELL_EVERY,
            attempts: VecDeque::new(),
        })
    }

    /// Sessions that the others have.
    pub(super) fn sessions(&self) -> usize {
        self.others.values().map(|other| other.sessions).sum()
    }

    /// Those of one address, as it is counted.
    pub(super) fn of(&self, address: IpAddr) -> usize {
        let of = self.others.values().filter_map(|it| it.of.get(&address));
        of.sum()
    }

    /// The number of an address has changed here.
    pub(super) fn changed(&mut self, address: IpAddr) {
        match self.changed.len() {
            CHANGED_MAX => self.all = true,
            _ => {
                self.changed.insert(address);
            }
        }
    }

    /// This one accepts nobody any more.
    pub(super) fn leave(&self) {
        if let Err(error) = self.channel.send(&Up::Leaving, None) {
            log::warn!("the parent of this worker does not hear that it ends: {error}");
        }
    }

    /// When there is something to be told that has to wait.
    pub(super) fn due(&self, sessions: usize) -> Option<Instant> {
        let has_news = self.all || sessions != self.sessions_told || !self.changed.is_empty();
        has_news.then_some(self.told_at + self.pause)
    }

    /// Tells what has changed, unless that was done a moment ago.
    fn tell(
        &mut self,
        sessions: usize,
        per_address: &HashMap<IpAddr, usize>,
        attempts: Vec<Attempt>,
        now: Instant,
    ) {
        // Those first: a guesser is faster than a crowd.
        self.attempts.extend(attempts);
        while let Some(attempt) = self.attempts.front() {
            let news = News::Attempt(attempt.clone());
            if self.channel.send(&Up::News(news), None).is_err() {
                // The parent does not read fast enough; when there is room again, an event tells.
                // The oldest matter least.
                let excess = self.attempts.len().saturating_sub(ADDRESSES_PER_MESSAGE);
                self.attempts.drain(..excess);
                self.told_at = now;
                self.pause = RETRY_EVERY;
                return;
            }
            self.attempts.pop_front();
        }
        if self.due(sessions).is_none_or(|due| now < due) {
            return;
        }
        self.told_at = now;
        let of: Vec<(IpAddr, usize)> = match self.all {
            true => per_address.iter().map(|(at, n)| (*at, *n)).collect(),
            false => {
                let number = |at: &IpAddr| (*at, per_address.get(at).copied().unwrap_or(0));
                self.changed.iter().map(number).collect()
            }
        };
        let mut pieces = of.chunks(ADDRESSES_PER_MESSAGE);
        let mut piece = Some(pieces.next().unwrap_or_default());
        let mut anew = self.all;
        while let Some(of) = piece {
            let of = of.to_vec();
            let all = sessions;
            let news = News::Sessions { anew, all, of };
            if self.channel.send(&Up::News(news), None).is_err() {
                // Part of it may have been told; all of it will be.
                self.all = true;
                self.pause = RETRY_EVERY;
                return;
            }
            anew = false;
            piece = pieces.next();
        }
        self.all = false;
        self.pause = TELL_EVERY;
        self.changed.clear();
        self.sessions_told = sessions;
    }

    /// The parent has read or said something.
    fn parent_goes_on(&mut self) {
        self.pause = TELL_EVERY;
    }

    fn heard(&mut self, from: usize, news: News) -> Option<Attempt> {
        match news {
            News::Attempt(attempt) => Some(attempt),
            News::Sessions { anew, all, of } => {
                let other = self.others.entry(from).or_default();
                if anew {
                    other.of.clear();
                }
                other.sessions = all;
                for (address, n) in of {
                    match n {
                        0 => other.of.remove(&address),
                        n => other.of.insert(address, n),
                    };
                }
                None
            }
        }
    }
}

impl Server {
    /// Serves as one of several workers from now on: `channel` leads to their parent.
    ///
    /// # Errors
    /// The channel cannot be used.
    pub fn join(&mut self, channel: Channel) -> io::Result<()> {
        let fingerprint = self.fingerprint();
        let (registry, now) = (&self.shared.registry, self.shared.now);
        let siblings = Siblings::new(channel, fingerprint, registry, super::SIBLINGS, now)?;
        self.siblings = Some(siblings);
        if let Some(passwords) = &mut self.shared.passwords {
            passwords.note_attempts();
        }
        Ok(())
    }

    pub(super) fn tell_siblings(&mut self) {
        if let Some(siblings) = &mut self.siblings {
            let passwords = self.shared.passwords.as_mut();
            let attempts = passwords.map(Passwords::attempts).unwrap_or_default();
            let sessions = self.conns.len();
            siblings.tell(sessions, &self.per_address, attempts, self.shared.now);
        }
    }

    pub(super) fn hear_siblings(&mut self) {
        if let Some(siblings) = &mut self.siblings {
            siblings.parent_goes_on();
        }
        while let Some(siblings) = &mut self.siblings {
            let message = match siblings.channel.receive(false) {
                Ok(message) => message,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    log::error!("the parent of this worker cannot be understood: {error}");
                    None
                }
            };
            match message.map(|(message, _)| message) {
                None => {
                    log::error!("the parent of this worker is gone");
                    self.siblings = None;
                    self.drain();
                }
                Some(Down::From(worker, news)) => {
                    if let Some(attempt) = siblings.heard(worker, news)
                        && let Some(passwords) = &mut self.shared.passwords
                    {
                        passwords.attempted(attempt, self.shared.now);
                    }
                }
                Some(Down::Gone(worker)) => {
                    siblings.others.remove(&worker);
                }
                Some(Down::Forget) => siblings.others.clear(),
                Some(Down::Tell) => siblings.all = true,
                Some(Down::Reload) => self.reload(),
                Some(Down::Stop) => self.drain(),
                Some(Down::StopNow) => self.stop_now(),
                Some(Down::Listener { .. } | Down::Begin(_)) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mio::Poll;

    use super::*;

    fn siblings() -> (Siblings, Channel, Poll) {
        let (ours, theirs) = Channel::pair().unwrap();
        let poll = Poll::new().unwrap();
        let now = Instant::now();
        let siblings =
            Siblings::new(Channel::new(theirs), None, poll.registry(), Token(0), now).unwrap();
        assert_eq!(said(&ours), [Up::Ready(None)]);
        (siblings, ours, poll)
    }

    fn said(parent: &Channel) -> Vec<Up> {
        let mut all = Vec::new();
        while let Ok(Some((message, _))) = parent.receive(false) {
            all.push(message);
        }
        all
    }

    fn sessions(anew: bool, all: usize, of: &[(IpAddr, usize)]) -> Up {
        let of = of.to_vec();
        Up::News(News::Sessions { anew, all, of })
    }

    #[test]
    fn what_changes_is_told_in_pieces_and_anew_when_somebody_asks() {
        let (mut siblings, parent, _poll) = siblings();
        let at: IpAddr = "192.0.2.1".parse().unwrap();
        let mut per_address = HashMap::from([(at, 2)]);
        let mut now = siblings.told_at + TELL_EVERY;
        siblings.changed(at);
        siblings.tell(2, &per_address, Vec::new(), now);
        assert_eq!(said(&parent), [sessions(false, 2, &[(at, 2)])]);
        siblings.tell(2, &per_address, Vec::new(), now + TELL_EVERY);
        assert_eq!(said(&parent), []);
        per_address.clear();
        siblings.changed(at);
        siblings.tell(0, &per_address, Vec::new(), now);
        assert_eq!(said(&parent), [], "it was told a moment ago");
        assert_eq!(siblings.due(0), Some(now + TELL_EVERY));
        now += TELL_EVERY;
        siblings.tell(0, &per_address, Vec::new(), now);
        assert_eq!(said(&parent), [sessions(false, 0, &[(at, 0)])]);
        assert_eq!(siblings.due(0), None);
        siblings.all = true;
        siblings.tell(0, &per_address, Vec::new(), now + TELL_EVERY);
        assert_eq!(said(&parent), [sessions(true, 0, &[])]);
    }

    #[test]
    fn the_sessions_of_the_others_are_counted_until_they_are_gone() {
        let (mut siblings, _parent, _poll) = siblings();
        let at: IpAddr = "192.0.2.1".parse().unwrap();
        let news = |anew, all, of: &[(IpAddr, usize)]| News::Sessions {
            anew,
            all,
            of: of.to_vec(),
        };
        assert!(siblings.heard(1, news(false, 5, &[(at, 3)])).is_none());
        siblings.heard(2, news(false, 4, &[(at, 4)]));
        assert_eq!((siblings.sessions(), siblings.of(at)), (9, 7));
        siblings.heard(1, news(false, 2, &[(at, 0)]));
        assert_eq!((siblings.sessions(), siblings.of(at)), (6, 4));
        siblings.heard(2, news(true, 1, &[]));
        assert_eq!((siblings.sessions(), siblings.of(at)), (3, 0));
        siblings.others.remove(&1);
        assert_eq!(siblings.sessions(), 1);
    }

    #[test]
    fn a_parent_that_does_not_read_hears_everything_later() {
        let (mut siblings, parent, _poll) = siblings();
        let at: IpAddr = "192.0.2.1".parse().unwrap();
        let per_address = HashMap::from([(at, 1)]);
        let mut now = siblings.told_at;
        while !siblings.all {
            now += TELL_EVERY;
            siblings.changed(at);
            siblings.tell(1, &per_address, Vec::new(), now);
        }
        let attempt = |right| Attempt {
            address: at,
            name: b"anna".to_vec(),
            right,
        };
        now += TELL_EVERY;
        siblings.tell(1, &per_address, vec![attempt(false); 5000], now);
        assert_eq!(siblings.attempts.len(), ADDRESSES_PER_MESSAGE);
        assert_eq!(siblings.due(1), Some(now + RETRY_EVERY), "no busy loop");
        assert!(!said(&parent).is_empty());
        siblings.parent_goes_on();
        siblings.attempts.truncate(1);
        now += TELL_EVERY;
        siblings.tell(1, &per_address, vec![attempt(true)], now);
        let attempts = [false, true].map(|right| Up::News(News::Attempt(attempt(right))));
        let everything = [&attempts[..], &[sessions(true, 1, &[(at, 1)])]].concat();
        assert_eq!(said(&parent), everything);
    }
}
