//! What `hauld --workers` says between its processes: the parent, which serves nobody, and the
//! workers, each a whole server.
//!
//! Between the parent and each worker there is one socket. The parent hands down the listening
//! sockets and what it was told to do; a worker tells how many sessions it has and which passwords
//! were wrong, and the parent passes that on to the others. So a limit holds for all workers
//! together, but for what arrives while the word is on its way.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Set for a worker; its standard input is the socket to the parent.
pub const VARIABLE: &str = "HAULD_WORKER";
/// The longest message.
const MESSAGE_BYTES_MAX: usize = 128 * 1024;
/// Addresses in one message: each takes at most some 60 bytes.
pub const ADDRESSES_PER_MESSAGE: usize = 1000;

/// To a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Down {
    /// A listening socket comes with it. `implicit_tls`: TLS begins there at once.
    Listener {
        /// As it says.
        implicit_tls: bool,
    },
    /// All listeners were handed down: begin.
    Begin(Place),
    /// Another worker has something to tell.
    From(usize, News),
    /// That worker is gone, and its sessions with it.
    Gone(usize),
    /// Something was not heard: forget what the others had told.
    Forget,
    /// Tell everything about yourself: somebody has not heard it.
    Tell,
    /// SIGHUP.
    Reload,
    /// Let transfers end, and then stop.
    Stop,
    /// Stop at once.
    StopNow,
}

/// Who a worker is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// From 0 on.
    pub index: usize,
    /// How many there are.
    pub of: usize,
    /// The password of the only user, where there is no users file.
    pub one_time_password: Option<Vec<u8>>,
}

/// To the parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Up {
    /// It serves. What its certificate is recognised by, as text.
    Ready(Option<String>),
    /// For the other workers.
    News(News),
    /// It accepts no connections any more, and will be gone when its sessions are.
    Leaving,
}

/// What a worker tells the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// How many sessions it has.
    Sessions {
        /// Forget what it has told before.
        anew: bool,
        /// All of them.
        all: usize,
        /// Those of the addresses where the number has changed, as they are counted.
        of: Vec<(IpAddr, usize)>,
    },
    /// Somebody gave a password.
    Attempt(Attempt),
}

/// A password was given, and it was right or wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Where from.
    pub address: IpAddr,
    /// With which name, cut where no user's name is as long.
    pub name: Vec<u8>,
    /// Whether it was right.
    pub right: bool,
}

/// One end of the socket between the parent and a worker. Messages come whole and in order.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

impl Channel {
    /// Two ends.
    ///
    /// # Errors
    /// As socketpair(2).
    pub fn pair() -> io::Result<(Channel, OwnedFd)> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Channel { socket: ours }, theirs))
    }

    /// The end that somebody else has made.
    pub fn new(socket: OwnedFd) -> Channel {
        Channel { socket }
    }

    /// Another handle to the same end.
    ///
    /// # Errors
    /// Descriptors have run out.
    pub fn try_clone(&self) -> io::Result<Channel> {
        let socket = self.socket.try_clone()?;
        Ok(Channel { socket })
    }

    /// Sends a message, with a descriptor if there is one. It never waits.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`]: the other end has too much unread; or it is gone.
    pub fn send(&self, message: &impl Serialize, with: Option<BorrowedFd>) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let with: Vec<BorrowedFd> = with.into_iter().collect();
        if !with.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&with));
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut ancillary, flags)?;
        Ok(())
    }

    /// Receives a message, and the descriptor that came with it. `None`: the other end is gone.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`]: there is none, and `waits` is not set; or what came is no
    /// message.
    pub fn receive<T: DeserializeOwned>(
        &self,
        waits: bool,
    ) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = match waits {
            true => RecvFlags::CMSG_CLOEXEC,
            false => RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
        };
        let received = loop {
            let parts = &mut [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.socket, parts, &mut ancillary, flags) {
                Err(Errno::INTR) => {}
                // Whoever died without reading everything.
                Err(Errno::CONNRESET) => return Ok(None),
                received => break received?,
            }
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        let mut with = None;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                with = descriptors.last().or(with);
            }
        }
        Ok(Some((
            serde_json::from_slice(&bytes[..received.bytes])?,
            with,
        )))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_descriptors_come_whole_and_in_order() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel::new(theirs);
        let file = tempfile::tempfile().unwrap();
        let listener = Down::Listener { implicit_tls: true };
        ours.send(&listener, Some(file.as_fd())).unwrap();
        let address: IpAddr = "2001:db8:1:2::".parse().unwrap();
        let longest = "ffff:ffff:ffff:ffff::".parse().unwrap();
        let news = News::Sessions {
            anew: true,
            all: usize::MAX,
            of: vec![(longest, usize::MAX); ADDRESSES_PER_MESSAGE],
        };
        ours.send(&Down::From(1, news.clone()), None).unwrap();
        let (first, with) = theirs.receive::<Down>(true).unwrap().unwrap();
        assert!(first == listener && with.is_some());
        let (second, with) = theirs.receive::<Down>(true).unwrap().unwrap();
        assert!(second == Down::From(1, news) && with.is_none());
        let nothing = theirs.receive::<Down>(false).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        let attempt = News::Attempt(Attempt {
            address,
            name: b"\xff\0\"".to_vec(),
            right: false,
        });
        theirs.send(&Up::News(attempt.clone()), None).unwrap();
        drop(theirs);
        let (last, _) = ours.receive::<Up>(true).unwrap().unwrap();
        assert_eq!(last, Up::News(attempt));
        assert!(ours.receive::<Up>(true).unwrap().is_none());
        assert!(ours.send(&Down::Stop, None).is_err());
    }

    #[test]
    fn nobody_waits_for_who_does_not_read() {
        let (ours, _theirs) = Channel::pair().unwrap();
        let error = loop {
            if let Err(error) = ours.send(&Down::Tell, None) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
