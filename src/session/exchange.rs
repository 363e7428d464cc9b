//! What goes into a session and what comes out of it: the vocabulary between it and the shell.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::{Done, Ended, Task, Transfer};
use crate::accounts::password::Password;
use crate::accounts::users::User;
use crate::config::Config;
use crate::proto::reply::Reply;
use crate::storage::partials::Key;
use crate::storage::root::Root;
use crate::storage::staging::{Publish, Upload};

/// What is the same for all sessions, and the time.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Limits and policies.
    pub config: &'a Config,
    /// What anonymous sessions see as `/`.
    pub home: &'a Arc<Root>,
    /// For deadlines.
    pub now: Instant,
    /// For listings: seconds since 1970.
    pub wall_s: i64,
    /// So many uploads are being committed that each session waits for its own.
    pub commits_full: bool,
    /// Different each time; nobody outside can tell the next one.
    pub random: u64,
}

/// What happened, besides bytes on the control connection.
#[derive(Debug)]
pub enum Input {
    /// The answer to [`Action::CheckPassword`].
    PasswordChecked(PasswordAnswer),
    /// The answer to [`Action::Listen`]: where the client should connect. `None`: no port is free.
    Listening(Option<SocketAddr>),
    /// The answer to [`Action::Transfer`].
    TransferEnded(Ended),
    /// The answer to the first [`Action::Commit`] that has none yet.
    Committed(std::io::Result<()>),
    /// The answer to [`Action::Reach`].
    Reached {
        /// Nobody writes that partial, or not any more.
        free: bool,
        /// Bytes have arrived behind the command meanwhile.
        more_behind: bool,
    },
    /// The answer to [`Action::Run`], unless [`Task::is_unattended`].
    TaskDone(std::io::Result<Done>),
    /// The client sends no more (FIN). What it sent before is still answered.
    ControlEnded,
    /// [`super::Session::deadline`] has passed.
    TimedOut,
    /// Others want to log in, and this session has had the longest time to.
    Displaced,
    /// The server is stopping: end as soon as nothing is owed.
    ShuttingDown,
}

/// What came of a password.
#[derive(Debug)]
pub enum PasswordAnswer {
    /// It is right.
    Right {
        /// Whose it is.
        user: Arc<User>,
        /// What that user sees as `/`.
        home: Arc<Root>,
    },
    /// It is wrong, or nobody of that name gets in.
    Wrong,
    /// Too many passwords are being checked.
    Busy,
}

/// What the shell is to do. In order, strictly.
#[derive(Debug)]
pub enum Action {
    /// Send a reply.
    Reply(Reply),
    /// Find out who that is. Answered by [`Input::PasswordChecked`].
    CheckPassword {
        /// As USER gave it.
        name: Vec<u8>,
        /// As PASS gave it.
        password: Password,
    },
    /// Make ready for a passive data connection, or stay so. Answered by [`Input::Listening`].
    Listen,
    /// Forget about any data connection that was made ready.
    Unlisten,
    /// Move bytes. Answered by [`Input::TransferEnded`].
    Transfer(Box<Transfer>),
    /// End the running transfer, which is then answered as usual.
    CutTransfer,
    /// Bring a staged file to the disk and give it its name, behind those before it. Answered by
    /// [`Input::Committed`]; meanwhile there may be more of them.
    Commit(Box<Upload>, Publish),
    /// Find out whether another session writes this partial. One that has been silent for a while is
    /// ended, for it has lost its client, and what it leaves is waited for. Answered by
    /// [`Input::Reached`].
    Reach(Key),
    /// What there was of this partial is removed: nothing that is being kept of it is wanted.
    Outdate(Key),
    /// Do work that takes long. Answered by [`Input::TaskDone`].
    Run(Task),
    /// The client begins TLS behind what was said so far: from here on everything travels inside it.
    StartTls,
    /// Send what there is to send, then end the connection. Nothing follows.
    Close,
}

/// Bytes and files of one session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Commands.
    pub commands: u64,
    /// Files sent completely.
    pub files_sent: u64,
    /// Bytes sent, listings included.
    pub bytes_sent: u64,
    /// Files stored.
    pub files_stored: u64,
    /// Bytes received.
    pub bytes_received: u64,
}
