//! One configuration for everything. Every limit has its unit in its name and its reason beside it.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::accounts::Anonymous;
use crate::accounts::password::Password;

/// What a server does and how much of it.
#[derive(Debug, Clone)]
pub struct Config {
    /// Addresses of the control connection.
    pub listen: Vec<SocketAddr>,
    /// The directory that is served.
    pub dir: PathBuf,
    /// Who may log in with a password; `None`: nobody.
    pub users: Option<PathBuf>,
    /// The password of the user `haul`, for as long as this process lives, where there is no users
    /// file and strangers can reach a listener.
    pub one_time_password: Option<Password>,
    /// What sessions without an account may do.
    pub anonymous: Anonymous,
    /// Ports of passive data connections; `None`: the kernel chooses [`Limits::passive_ports_chosen`].
    pub passive_ports: Option<RangeInclusive<u16>>,
    /// The address that PASV tells, where it is not the one that the client reached.
    pub passive_address: Option<IpAddr>,
    /// Whether PORT and EPRT are served.
    pub active: bool,
    /// TLS.
    pub tls: Tls,
    /// Permission bits that new files and directories do not get.
    pub umask: u32,
    /// What is on the disk when an upload is answered with 226.
    pub durability: Durability,
    /// Where each transfer of a file is a line; it belongs to the log, the server only leaves it in
    /// reach.
    pub transfer_log: Option<PathBuf>,
    /// Who the process becomes, once its ports are open.
    pub run_as: Option<RunAs>,
    /// Whether the process puts all other files out of its own reach, where the kernel can.
    pub landlock: bool,
    /// Processes that serve.
    pub workers: usize,
    /// How much of everything.
    pub limits: Limits,
}

/// Whether sessions use TLS, and what for.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Whether they may or must.
    pub level: TlsLevel,
    /// Anonymous sessions need not, where they must: what they see is public.
    pub anonymous_exempt: bool,
    /// The files of the certificate; `None`: it is a self-signed one.
    pub files: Option<TlsFiles>,
    /// Addresses where TLS begins at once, without AUTH.
    pub implicit: Vec<SocketAddr>,
    /// A data connection must resume the TLS session of its control connection, which shows that it
    /// comes from the same client.
    pub reuse_required: bool,
}

/// Whether sessions use TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsLevel {
    /// There is none.
    #[default]
    Off,
    /// Who wants to.
    Optional,
    /// Nobody logs in and no file moves without it.
    Required,
}

/// A certificate and its key, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// What is on the disk when an upload is answered with 226.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The file and its name.
    #[default]
    Full,
    /// The file. After a crash of the machine, the name may still have its old content.
    Data,
    /// Nothing for sure: it is where the system puts it, and the system writes it when it likes.
    None,
}

/// A user of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAs {
    /// As it was given.
    pub name: String,
    /// The user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its other groups.
    pub groups: Vec<u32>,
}

/// Whether strangers may reach a listener at this address.
pub fn is_public(address: &SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

impl TlsLevel {
    /// What is safe where nothing was said: nobody's password crosses a network in clear.
    pub fn by_default(listen: &[SocketAddr], has_certificate: bool) -> TlsLevel {
        if listen.iter().any(is_public) {
            TlsLevel::Required
        } else if has_certificate {
            TlsLevel::Optional
        } else {
            TlsLevel::Off
        }
    }
}

/// The limits, with their defaults in [`Limits::default`].
#[derive(Debug, Clone)]
pub struct Limits {
    /// Sessions in all; more are refused with 421.
    pub sessions_max: usize,
    /// Sessions per address (IPv6: per /64). Loopback has no such limit.
    pub sessions_per_address_max: usize,
    /// Connections that have not logged in; when there are more, the oldest of them goes.
    pub before_login_max: usize,
    /// Wrong passwords in one session; the last of them closes the connection.
    pub wrong_passwords_max: u8,
    /// How long the answer to a wrong password waits. Nobody else does.
    pub wrong_password_delay: Duration,
    /// From the connection to the login.
    pub login_timeout: Duration,
    /// A TLS handshake, on control and data connections: it is two round trips and less than a
    /// millisecond of work, so ten seconds forgive a bad network and no idler.
    pub tls_handshake_timeout: Duration,
    /// Without a command, while nothing is transferred or owed.
    pub idle_timeout: Duration,
    /// How long NOOP alone keeps a session.
    pub noop_keeps: Duration,
    /// From 150 to the data connection.
    pub data_wait: Duration,
    /// How long PASV and EPSV wait for a free port of theirs.
    pub passive_wait: Duration,
    /// How long a port that was given away but not used keeps waiting for a late connection.
    pub passive_rest: Duration,
    /// A transfer that moves less than [`Limits::stall_bytes`] in this time has stalled.
    pub stall_timeout: Duration,
    /// See [`Limits::stall_timeout`].
    pub stall_bytes: u64,
    /// How long running transfers may go on after SIGTERM.
    pub drain_timeout: Duration,
    /// Unknown verbs before login; the last of them closes the connection.
    pub unknown_verbs_max: u8,
    /// Lines held while a transfer runs; then reading stops.
    pub queued_bytes_max: usize,
    /// Replies held while the client does not read; then reading stops.
    pub replies_bytes_max: usize,
    /// Shared passive ports where the kernel chooses them.
    pub passive_ports_chosen: usize,
    /// REST or APPE onto a file copies what stays; more than this only where the file system can
    /// share blocks.
    pub copy_bytes_max: u64,
    /// An upload that has not moved for so long gives way to the same user who wants to continue it.
    pub takeover_after: Duration,
    /// How long what arrived of an interrupted upload is kept to be continued.
    pub partial_keep: Duration,
    /// Free bytes on the disk that no upload uses up; `None`: the smaller of 1 GiB and 1 % of it.
    pub min_free_bytes: Option<u64>,
    /// What all sessions together move per second; `None`: as much as they can.
    pub rate_bytes_per_s: Option<u64>,
    /// What each session moves per second; `None`: as much as it can.
    pub session_rate_bytes_per_s: Option<u64>,
    /// Uploads of one session that are received but not yet on the disk; then it is read no further.
    pub commits_per_session_max: usize,
    /// The same of all sessions: each holds a descriptor, or two.
    pub commits_max: usize,
    /// What of one upload may wait to be written to the disk; then it is read no further.
    pub unwritten_bytes_max: u64,
    /// Background threads for digests and copies.
    pub background_threads: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            sessions_max: 10_000,
            sessions_per_address_max: 64,
            before_login_max: 512,
            wrong_passwords_max: 3,
            wrong_password_delay: Duration::from_secs(1),
            login_timeout: Duration::from_secs(30),
            tls_handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(15 * 60),
            noop_keeps: Duration::from_secs(60 * 60),
            data_wait: Duration::from_secs(30),
            passive_wait: Duration::from_secs(5),
            passive_rest: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(60),
            stall_bytes: 16 * 1024,
            drain_timeout: Duration::from_secs(30),
            unknown_verbs_max: 3,
            queued_bytes_max: 64 * 1024,
            replies_bytes_max: 64 * 1024,
            passive_ports_chosen: 64,
            copy_bytes_max: 256 << 20,
            takeover_after: Duration::from_secs(5),
            partial_keep: Duration::from_secs(24 * 60 * 60),
            min_free_bytes: None,
            rate_bytes_per_s: None,
            session_rate_bytes_per_s: None,
            // Three batches of a session's uploads may be under way, of at most 64 each. With 64 in all, a
            // series of small files took 1.4 to 3.4 times as many syncfs.
            commits_per_session_max: 256,
            commits_max: 1024,
            unwritten_bytes_max: 64 << 20,
            background_threads: 2,
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
            dir: PathBuf::from("haul-data"),
            users: None,
            one_time_password: None,
            anonymous: Anonymous::Write,
            passive_ports: None,
            passive_address: None,
            active: true,
            tls: Tls::default(),
            umask: 0o022,
            durability: Durability::default(),
            transfer_log: None,
            run_as: None,
            landlock: true,
            workers: 1,
            limits: Limits::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_strangers_reach_requires_tls() {
        let level = |addresses: &[&str], has_certificate| {
            let addresses: Vec<_> = addresses.iter().map(|it| it.parse().unwrap()).collect();
            TlsLevel::by_default(&addresses, has_certificate)
        };
        assert_eq!(level(&["127.0.0.1:1", "[::1]:1"], false), TlsLevel::Off);
        assert_eq!(level(&["[::ffff:127.0.0.2]:1"], false), TlsLevel::Off);
        assert_eq!(level(&["127.0.0.1:1"], true), TlsLevel::Optional);
        for public in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1"] {
            assert_eq!(level(&["127.0.0.1:1", public], false), TlsLevel::Required);
        }
    }
}
