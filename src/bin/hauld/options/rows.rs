//! The rows, in the order of the help.

use haul::accounts::Anonymous;
use haul::config::{Durability, TlsLevel};
use haul::text::duration;

use super::Kind::{Count, List, Path, Size, Text, Time};
use super::Place::{Both, File, Word};
use super::values::{
    address, count, held, host, hours, milliseconds, path, port_range, ports, push, put, put_some,
    size, size_or_none, up_to_255, word,
};
use super::{DEFAULT_DIR, Row};
use crate::identity;

/// All of them.
pub const ROWS: &[Row] = &[
    Row {
        name: "dir",
        place: Word,
        kind: Path,
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
        kind: Path,
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
        kind: Path,
        value: "PEM",
        default: None,
        help: "The certificate and its chain, read again on SIGHUP [default: a self-signed one \
               is made and kept]",
        set: |it, text| put_some(&mut it.tls_cert, path(text)),
    },
    Row {
        name: "tls-key",
        place: Both,
        kind: Path,
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
        name: "durability",
        place: Both,
        kind: Text,
        value: "full|data|none",
        default: Some("full"),
        help: "What is on the disk when an upload is answered with 226: the file and its name, the \
               file, nothing",
        set: |it, text| {
            let promises = [
                ("full", Durability::Full),
                ("data", Durability::Data),
                ("none", Durability::None),
            ];
            put(&mut it.config.durability, word(text, &promises))
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
        name: "partial-hours",
        place: Both,
        kind: Count,
        value: "N",
        default: Some("24"),
        help: "How long what arrived of an interrupted upload is kept to be continued",
        set: |it, text| put(&mut it.config.limits.partial_keep, hours(text)),
    },
    Row {
        name: "min-free",
        place: Both,
        kind: Size,
        value: "SIZE",
        default: None,
        help: "Space on the disk that no upload uses up [default: the smaller of 1GiB and 1 % of it]",
        set: |it, text| put_some(&mut it.config.limits.min_free_bytes, size_or_none(text)),
    },
    Row {
        name: "rate",
        place: Both,
        kind: Size,
        value: "SIZE",
        default: None,
        help: "What all sessions together move in a second, both ways; 10MiB, say [default: as \
               much as they can]",
        set: |it, text| put_some(&mut it.config.limits.rate_bytes_per_s, size(text)),
    },
    Row {
        name: "session-rate",
        place: Both,
        kind: Size,
        value: "SIZE",
        default: None,
        help: "What each session moves in a second; a user of the users file may have less \
               [default: as much as it can]",
        set: |it, text| put_some(&mut it.config.limits.session_rate_bytes_per_s, size(text)),
    },
    Row {
        name: "workers",
        place: Both,
        kind: Count,
        value: "N",
        default: Some("1"),
        help: "Processes that serve, for machines whose one core is not enough; without quotas, and \
               without rates but those of a session",
        set: |it, text| {
            let workers = count(text).and_then(|n| match n {
                1..=64 => Ok(n),
                _ => Err("at most 64 workers, please".to_string()),
            });
            put(&mut it.config.workers, workers)
        },
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
        name: "transfer-log",
        place: Both,
        kind: Path,
        value: "FILE",
        default: None,
        help: "Where each transfer of a file becomes a line of JSON; a file that was moved away is \
               begun anew",
        set: |it, text| put_some(&mut it.config.transfer_log, path(text)),
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
        name: "takeover-after-s",
        place: File,
        kind: Time,
        value: "TIME",
        default: Some("5s"),
        help: "How long an upload is silent before another session of its user may continue it",
        set: |it, text| put(&mut it.config.limits.takeover_after, duration(text)),
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
        name: "before-login-sessions",
        place: File,
        kind: Count,
        value: "N",
        default: Some("512"),
        help: "Connections that have not logged in; one more, and the oldest of them goes",
        set: |it, text| put(&mut it.config.limits.before_login_max, count(text)),
    },
    Row {
        name: "wrong-passwords",
        place: File,
        kind: Count,
        value: "N",
        default: Some("3"),
        help: "Wrong passwords in one session; the last of them closes the connection",
        set: |it, text| put(&mut it.config.limits.wrong_passwords_max, up_to_255(text)),
    },
    Row {
        name: "wrong-password-delay-ms",
        place: File,
        kind: Count,
        value: "N",
        default: Some("1000"),
        help: "Milliseconds until the first wrong password is answered; the second takes twice as \
               long, and so on",
        set: |it, text| {
            put(
                &mut it.config.limits.wrong_password_delay,
                milliseconds(text),
            )
        },
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
