//! Everything that can be said to `hauld`, as a table: one row per option and per key of the
//! configuration file. Help, the file, what `--print-config` prints and the README derive from it.
//!
//! A row that is an option has the same name in the file. A limit that is only in the file has its
//! unit in its name. Both are set by the same function from the same text.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use haul::accounts::Anonymous;
use haul::accounts::field::Bytes;
use haul::accounts::password::Password;
use haul::config::{self, Config, Tls, TlsFiles, TlsLevel};
use haul::text::duration;
use log::LevelFilter;

use crate::identity;

/// What is served where nothing is said.
pub const DEFAULT_DIR: &str = "haul-data";

/// One thing that can be said.
pub struct Row {
    /// As an option, behind two hyphens, and in the file.
    pub name: &'static str,
    /// Where it can be said.
    pub place: Place,
    /// How it is written.
    pub kind: Kind,
    /// What the help shows for the value.
    pub value: &'static str,
    /// What it is where it is not said; `None`: that depends, and the help says on what.
    pub default: Option<&'static str>,
    /// A sentence without its full stop.
    pub help: &'static str,
    /// Takes one value; a sentence says why it is none.
    pub set: fn(&mut Settings, &str) -> Result<(), String>,
}

/// Where something can be said.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the command line and in the file.
    Both,
    /// On the command line as the word that is no option, and in the file.
    Word,
    /// In the file.
    File,
}

/// How a value is written in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// Text, or a list of texts. On the command line it may be given several times.
    List,
    /// A number.
    Count,
    /// A number of seconds, or text as `90s`, `5m`, `1h`.
    Time,
    /// A number of bytes, or text as `10MiB`.
    Size,
}

/// What was said, before what follows from it.
#[derive(Debug, Clone)]
pub struct Settings {
    config: Config,
    listen: Vec<SocketAddr>,
    anonymous: Option<Anonymous>,
    tls: Option<TlsLevel>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    /// How much to log.
    pub log_level: LevelFilter,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            config: Config::default(),
            listen: Vec::new(),
            anonymous: None,
            tls: None,
            tls_cert: None,
            tls_key: None,
            log_level: LevelFilter::Info,
        }
    }
}

use Kind::{Count, List, Size, Text, Time};
use Place::{Both, File, Word};

/// All of them, in the order of the help.
pub const ROWS: &[Row] = &[
    Row {
        name: "dir",
        place: Word,
        kind: Text,
        value: "DIR",
        default: Some(DEFAULT_DIR),
        help: "The directory to serve; ./haul-data is made if it is not there",
        set: |it, text| put(&mut it.config.dir, path(text)),
    },
    Row {
        name: "listen",
        place: Both,
        kind: List,
        value: "ADDR:PORT",
        default: None,
        help: "Where to listen; may be given several times [default: 127.0.0.1:8080]",
        set: |it, text| push(&mut it.listen, address(text)),
    },
    Row {
        name: "users",
        place: Both,
        kind: Text,
        value: "FILE",
        default: None,
        help: "Who may log in: a file that `hauld user` writes; SIGHUP reads it again",
        set: |it, text| put_some(&mut it.config.users, path(text)),
    },
    Row {
        name: "anonymous",
        place: Both,
        kind: Text,
        value: "none|read|write",
        default: None,
        help: "What sessions without an account may do [default: write; none with --users or \
               where strangers can reach a listener]",
        set: |it, text| {
            let levels = [
                ("none", Anonymous::None),
                ("read", Anonymous::Read),
                ("write", Anonymous::Write),
            ];
            put_some(&mut it.anonymous, word(text, &levels))
        },
    },
    Row {
        name: "tls",
        place: Both,
        kind: Text,
        value: "off|optional|required",
        default: None,
        help: "Whether sessions use TLS [default: required if a listener is not loopback, \
               optional with --tls-cert, otherwise off]",
        set: |it, text| {
            let levels = [
                ("off", TlsLevel::Off),
                ("optional", TlsLevel::Optional),
                ("required", TlsLevel::Required),
            ];
            put_some(&mut it.tls, word(text, &levels))
        },
    },
    Row {
        name: "tls-cert",
        place: Both,
        kind: Text,
        value: "PEM",
        default: None,
        help: "The certificate and its chain, read again on SIGHUP [default: a self-signed one \
               is made and kept]",
        set: |it, text| put_some(&mut it.tls_cert, path(text)),
    },
    Row {
        name: "tls-key",
        place: Both,
        kind: Text,
        value: "PEM",
        default: None,
        help: "The key of the certificate",
        set: |it, text| put_some(&mut it.tls_key, path(text)),
    },
    Row {
        name: "implicit-tls",
        place: Both,
        kind: List,
        value: "ADDR:PORT",
        default: None,
        help: "Where to listen for clients that begin with TLS, without AUTH; may be given \
               several times",
        set: |it, text| push(&mut it.config.tls.implicit, address(text)),
    },
    Row {
        name: "tls-reuse",
        place: Both,
        kind: Text,
        value: "accept|require",
        default: Some("accept"),
        help: "Whether data connections must resume the TLS session of their control connection",
        set: |it, text| {
            let answers = [("accept", false), ("require", true)];
            put(&mut it.config.tls.reuse_required, word(text, &answers))
        },
    },
    Row {
        name: "passive-ports",
        place: Both,
        kind: Text,
        value: "A-B",
        default: None,
        help: "Ports for passive data connections, best below 32768 [default: 64 that the kernel \
               chooses]",
        set: |it, text| put_some(&mut it.config.passive_ports, port_range(text)),
    },
    Row {
        name: "passive-address",
        place: Both,
        kind: Text,
        value: "IP|HOST",
        default: None,
        help: "The address that PASV tells, behind NAT; a name is looked up once, at start \
               [default: the one the client reached]",
        set: |it, text| put_some(&mut it.config.passive_address, host(text)),
    },
    Row {
        name: "active",
        place: Both,
        kind: Text,
        value: "on|off",
        default: Some("on"),
        help: "Whether the server makes data connections itself (PORT, EPRT)",
        set: |it, text| {
            put(
                &mut it.config.active,
                word(text, &[("on", true), ("off", false)]),
            )
        },
    },
    Row {
        name: "max-sessions",
        place: Both,
        kind: Count,
        value: "N",
        default: Some("10000"),
        help: "Sessions at the same time",
        set: |it, text| put(&mut it.config.limits.sessions_max, count(text)),
    },
    Row {
        name: "max-per-address",
        place: Both,
        kind: Count,
        value: "N",
        default: Some("64"),
        help: "Sessions of one address (IPv6: of one /64), loopback excepted",
        set: |it, text| put(&mut it.config.limits.sessions_per_address_max, count(text)),
    },
    Row {
        name: "login-timeout",
        place: Both,
        kind: Time,
        value: "TIME",
        default: Some("30s"),
        help: "Time from the connection to the login",
        set: |it, text| put(&mut it.config.limits.login_timeout, duration(text)),
    },
    Row {
        name: "idle-timeout",
        place: Both,
        kind: Time,
        value: "TIME",
        default: Some("15m"),
        help: "Time without a command",
        set: |it, text| put(&mut it.config.limits.idle_timeout, duration(text)),
    },
    Row {
        name: "stall-timeout",
        place: Both,
        kind: Time,
        value: "TIME",
        default: Some("60s"),
        help: "Time in which a transfer must move 16 KiB",
        set: |it, text| put(&mut it.config.limits.stall_timeout, duration(text)),
    },
    Row {
        name: "background-threads",
        place: Both,
        kind: Count,
        value: "N",
        default: Some("2"),
        help: "Threads for digests and copies",
        set: |it, text| {
            let threads = count(text).and_then(|n| match n {
                1..=256 => Ok(n),
                _ => Err("at most 256 threads, please".to_string()),
            });
            put(&mut it.config.limits.background_threads, threads)
        },
    },
    Row {
        name: "run-as",
        place: Both,
        kind: Text,
        value: "USER[:GROUP]",
        default: None,
        help: "Who to become, when started as root, once the ports are open",
        set: |it, text| put_some(&mut it.config.run_as, identity::run_as(text)),
    },
    Row {
        name: "landlock",
        place: Both,
        kind: Text,
        value: "auto|off",
        default: Some("auto"),
        help: "Whether hauld puts all other files out of its own reach, where the kernel can",
        set: |it, text| {
            let answers = [("auto", true), ("off", false)];
            put(&mut it.config.landlock, word(text, &answers))
        },
    },
    Row {
        name: "log-level",
        place: Both,
        kind: Text,
        value: "LEVEL",
        default: Some("info"),
        help: "How much to log on standard error: off, error, warn, info, debug",
        set: |it, text| {
            let level = text.parse();
            let level = level.map_err(|_| "write off, error, warn, info or debug".to_string());
            put(&mut it.log_level, level)
        },
    },
    Row {
        name: "tls-handshake-timeout-s",
        place: File,
        kind: Time,
        value: "TIME",
        default: Some("10s"),
        help: "Time for a TLS handshake",
        set: |it, text| put(&mut it.config.limits.tls_handshake_timeout, duration(text)),
    },
    Row {
        name: "noop-keeps-s",
        place: File,
        kind: Time,
        value: "TIME",
        default: Some("1h"),
        help: "How long NOOP alone keeps a session",
        set: |it, text| put(&mut it.config.limits.noop_keeps, duration(text)),
    },
    Row {
        name: "data-wait-s",
        place: File,
        kind: Time,
        value: "TIME",
        default: Some("30s"),
        help: "How long a transfer waits for its data connection",
        set: |it, text| put(&mut it.config.limits.data_wait, duration(text)),
    },
    Row {
        name: "passive-wait-s",
        place: File,
        kind: Time,
        value: "TIME",
        default: Some("5s"),
        help: "How long PASV and EPSV wait for a free port",
        set: |it, text| put(&mut it.config.limits.passive_wait, duration(text)),
    },
    Row {
        name: "passive-rest-s",
        place: File,
        kind: Time,
        value: "TIME",
        default: Some("10s"),
        help: "How long a passive port that was given away and not used rests",
        set: |it, text| put(&mut it.config.limits.passive_rest, duration(text)),
    },
    Row {
        name: "passive-chosen-ports",
        place: File,
        kind: Count,
        value: "N",
        default: Some("64"),
        help: "Passive ports, where the kernel chooses them",
        set: |it, text| put(&mut it.config.limits.passive_ports_chosen, ports(text)),
    },
    Row {
        name: "stall-bytes",
        place: File,
        kind: Size,
        value: "SIZE",
        default: Some("16KiB"),
        help: "What a transfer must move in the time of stall-timeout",
        set: |it, text| put(&mut it.config.limits.stall_bytes, size(text)),
    },
    Row {
        name: "drain-timeout-s",
        place: File,
        kind: Time,
        value: "TIME",
        default: Some("30s"),
        help: "How long transfers may go on after SIGTERM",
        set: |it, text| put(&mut it.config.limits.drain_timeout, duration(text)),
    },
    Row {
        name: "unknown-verbs",
        place: File,
        kind: Count,
        value: "N",
        default: Some("3"),
        help: "Unknown verbs before the login; the last of them closes the connection",
        set: |it, text| put(&mut it.config.limits.unknown_verbs_max, up_to_255(text)),
    },
    Row {
        name: "queued-bytes",
        place: File,
        kind: Size,
        value: "SIZE",
        default: Some("64KiB"),
        help: "Commands held for a session while its transfer runs",
        set: |it, text| put(&mut it.config.limits.queued_bytes_max, held(text)),
    },
    Row {
        name: "replies-bytes",
        place: File,
        kind: Size,
        value: "SIZE",
        default: Some("64KiB"),
        help: "Replies held for a session that does not read them",
        set: |it, text| put(&mut it.config.limits.replies_bytes_max, held(text)),
    },
    Row {
        name: "copy-bytes",
        place: File,
        kind: Size,
        value: "SIZE",
        default: Some("256MiB"),
        help: "What REST and APPE copy of a file at most, where the file system cannot share it",
        set: |it, text| put(&mut it.config.limits.copy_bytes_max, size(text)),
    },
    Row {
        name: "umask",
        place: File,
        kind: Text,
        value: "OCTAL",
        default: Some("022"),
        help: "Permission bits that new files and directories do not get",
        set: |it, text| {
            let mask = u32::from_str_radix(text, 8).ok();
            let mask = mask.filter(|mask| *mask <= 0o777 && !text.starts_with('+'));
            let mask = mask.ok_or_else(|| "write it in octal, as \"022\"".to_string());
            put(&mut it.config.umask, mask)
        },
    },
];

/// The row of that name.
pub fn row(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}

impl Settings {
    /// The directory, as it was written.
    pub fn dir(&self) -> &Path {
        &self.config.dir
    }

    /// What follows from what was said.
    ///
    /// # Errors
    /// A sentence: what was said contradicts itself, or there are no random numbers.
    pub fn into_config(self) -> Result<Config, String> {
        let mut listen = self.listen;
        if listen.is_empty() && self.config.tls.implicit.is_empty() {
            listen = Config::default().listen;
        }
        let mut reachable = listen.iter().chain(&self.config.tls.implicit);
        let strangers = reachable.any(config::is_public);
        let has_users = self.config.users.is_some();
        let one_time_password = if strangers && !has_users && self.anonymous.is_none() {
            let password = Password::random();
            Some(password.map_err(|error| format!("cannot make a password: {error}"))?)
        } else {
            None
        };
        let safe = match has_users || strangers {
            true => Anonymous::None,
            false => Anonymous::Write,
        };
        let files = match (self.tls_cert, self.tls_key) {
            (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
            (None, None) => None,
            (Some(_), None) => return Err("--tls-cert needs --tls-key beside it".to_string()),
            (None, Some(_)) => return Err("--tls-key needs --tls-cert beside it".to_string()),
        };
        let anonymous_exempt = self.tls.is_none() && self.anonymous.is_some();
        let tls = Tls {
            files,
            anonymous_exempt,
            ..self.config.tls
        };
        Ok(Config {
            tls: with_level(self.tls, &listen, tls)?,
            listen,
            one_time_password,
            anonymous: self.anonymous.unwrap_or(safe),
            ..self.config
        })
    }
}

/// What was said about TLS, and where nothing was, what is safe.
fn with_level(said: Option<TlsLevel>, listen: &[SocketAddr], tls: Tls) -> Result<Tls, String> {
    let level = match said {
        Some(TlsLevel::Off) if !tls.implicit.is_empty() => {
            return Err("--implicit-tls needs TLS, which --tls off switches off".to_string());
        }
        Some(level) => level,
        None => {
            let all = [listen, &tls.implicit].concat();
            TlsLevel::by_default(&all, !tls.implicit.is_empty() || tls.files.is_some())
        }
    };
    Ok(Tls { level, ..tls })
}

fn put<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

fn put_some<T>(place: &mut Option<T>, value: Result<T, String>) -> Result<(), String> {
    put(place, value.map(Some))
}

fn push<T>(list: &mut Vec<T>, value: Result<T, String>) -> Result<(), String> {
    list.push(value?);
    Ok(())
}

fn path(text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("a path is not empty".to_string()),
        text => Ok(PathBuf::from(text)),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "an address is 192.0.2.1:21, 0.0.0.0:21 or [::]:21".to_string())
}

fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        format!("possible values: {}", words.join(", "))
    })
}

/// `40000-40063`, or one port.
fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |digits: &str| {
        let port = digits.parse().ok().filter(|&port: &u16| port >= 1024);
        port.ok_or_else(|| "ports go from 1024 to 65535, as in 40000-40063".to_string())
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(format!(
            "the range ends before it begins; did you mean {last}-{first}?"
        ));
    }
    if last - first >= 4096 {
        return Err("each port is a listening socket: at most 4096, please".to_string());
    }
    Ok(first..=last)
}

/// PASV can only tell an IPv4 address, so of those that a name has, one is taken.
fn host(text: &str) -> Result<IpAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    // What is only digits and dots is a mistyped address.
    if !text.trim_end_matches('.').split('.').all(label)
        || !text.bytes().any(|b| b.is_ascii_alphabetic())
    {
        return Err("this is neither an address nor the name of a host".to_string());
    }
    let found = (text, 0)
        .to_socket_addrs()
        .map_err(|_| "there is no address for that name; write the address".to_string())?;
    let found: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    let first = found.iter().find(|ip| ip.is_ipv4());
    first
        .copied()
        .ok_or_else(|| "that name has no IPv4 address, and PASV can tell no other".to_string())
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=1_000_000_000) => Ok(n),
        Ok(0) => Err("a number, and at least 1: with 0 nobody would get in".to_string()),
        _ => Err("a number, from 1 to 1000000000".to_string()),
    }
}

fn ports(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=4096) => Ok(n),
        _ => Err("a number of ports, from 1 to 4096".to_string()),
    }
}

fn up_to_255(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(n @ 1..) => Ok(n),
        _ => Err("a number, from 1 to 255".to_string()),
    }
}

fn size(text: &str) -> Result<u64, String> {
    match text.parse()? {
        Bytes(0) => Err("a size of 0 would let nothing through".to_string()),
        Bytes(n) => Ok(n),
    }
}

/// One line must fit, and one session does not get all memory.
fn held(text: &str) -> Result<usize, String> {
    match size(text)? {
        n @ 8192..=67_108_864 => Ok(n as usize),
        _ => Err("from 8KiB to 64MiB".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn one_more(row: &Row) -> Settings {
        let text = match row.kind {
            Count => "7",
            Time => "77s",
            Size => "77KiB",
            Text | List => unreachable!(),
        };
        let mut settings = Settings::default();
        (row.set)(&mut settings, text).unwrap_or_else(|why| panic!("{}: {why}", row.name));
        settings
    }

    fn fields(settings: &Settings) -> Vec<String> {
        let text = format!("{:#?}", settings.config.limits);
        text.lines().map(String::from).collect()
    }

    /// Limits of features that are not built have no key yet.
    const NOT_YET: [&str; 7] = [
        "before_login_max",
        "wrong_passwords_max",
        "wrong_password_delay",
        "partial_keep",
        "min_free_bytes",
        "rate_bytes_per_s",
        "session_rate_bytes_per_s",
    ];

    #[test]
    fn every_limit_has_a_key() {
        let before = Settings::default();
        let mut set = BTreeSet::new();
        let numbers = ROWS.iter().filter(|row| !matches!(row.kind, Text | List));
        for row in numbers {
            let after = fields(&one_more(row));
            let differs = fields(&before).into_iter().zip(after);
            let name = differs.filter(|(a, b)| a != b).map(|(line, _)| line);
            set.extend(name.map(|line| line.trim().split(':').next().unwrap().to_string()));
        }
        for line in fields(&before) {
            let Some((name, _)) = line.trim().split_once(':') else {
                continue;
            };
            // What is within a value is deeper.
            if line.starts_with("    ") && !line.starts_with("     ") {
                let known = set.contains(name) != NOT_YET.contains(&name);
                assert!(known, "{name} is a limit: has it a key?");
            }
        }
    }

    #[test]
    fn the_defaults_that_are_told_are_those_that_hold() {
        let before = format!("{:?}", Settings::default());
        for row in ROWS {
            let mut settings = Settings::default();
            if let Some(text) = row.default {
                (row.set)(&mut settings, text).unwrap();
                assert_eq!(format!("{settings:?}"), before, "{}", row.name);
            } else {
                assert!(row.kind != Count, "{}", row.name);
            }
        }
    }

    #[test]
    fn names_have_their_units_and_are_given_once() {
        let names: BTreeSet<_> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
        for row in ROWS.iter().filter(|row| row.place == File) {
            let unit = match row.kind {
                Time => row.name.ends_with("-s"),
                Size => row.name.ends_with("-bytes"),
                Count => !row.name.ends_with("-s") && !row.name.ends_with("-bytes"),
                Text | List => true,
            };
            assert!(unit, "{}", row.name);
        }
    }

    #[test]
    fn what_is_impossible_is_refused_in_a_sentence() {
        for (name, text, says) in [
            ("listen", "host:21", "[::]:21"),
            ("anonymous", "all", "none, read, write"),
            ("passive-address", "300.0.0.1", "neither"),
            ("passive-address", "a..b", "neither"),
            ("passive-address", "no-such-host.invalid", "no address"),
            ("max-sessions", "0", "at least 1"),
            ("max-sessions", "-1", "a number"),
            ("max-sessions", "99999999999999999999", "a number"),
            ("background-threads", "257", "256"),
            ("stall-bytes", "0", "nothing through"),
            ("replies-bytes", "1", "8KiB"),
            ("replies-bytes", "1TiB", "64MiB"),
            ("unknown-verbs", "256", "255"),
            ("umask", "888", "octal"),
            ("umask", "1777", "octal"),
            ("dir", "", "not empty"),
            ("log-level", "loud", "debug"),
        ] {
            let mut settings = Settings::default();
            let said = (row(name).unwrap().set)(&mut settings, text).unwrap_err();
            assert!(said.contains(says), "{name} {text}: {said}");
        }
    }

    #[test]
    fn a_name_becomes_its_ipv4_address() {
        assert_eq!(host("localhost"), Ok(IpAddr::from([127, 0, 0, 1])));
        assert_eq!(host("2001:db8::1"), Ok("2001:db8::1".parse().unwrap()));
    }
}
