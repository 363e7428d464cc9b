//! `hauld`, the server: arguments, a configuration, a server, run. The only place that exits.

mod user;

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use haul::accounts::Anonymous;
use haul::accounts::password::Password;
use haul::config::{self, Config, Limits, Tls, TlsFiles, TlsLevel};
use haul::server::{ONE_TIME_USER, Server};
use haul::text::duration;
use log::LevelFilter;

/// Serve a directory over FTP, and over the verbs of haul.
#[derive(Parser)]
#[command(
    name = "hauld",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The directory to serve; ./haul-data is made if it is not there
    #[arg(value_name = "DIR", default_value = DEFAULT_DIR)]
    dir: PathBuf,
    /// Where to listen; may be given several times [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Vec<SocketAddr>,
    /// Who may log in: a file that `hauld user` writes; SIGHUP reads it again
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,
    /// What sessions without an account may do [default: write; none with --users or
    /// where strangers can reach a listener]
    #[arg(long, value_name = "LEVEL")]
    anonymous: Option<Level>,
    /// Whether sessions use TLS [default: required if a listener is not loopback, optional with
    /// --tls-cert, otherwise off]
    #[arg(long, value_name = "LEVEL")]
    tls: Option<Security>,
    /// The certificate and its chain, read again on SIGHUP [default: a self-signed one is made and kept]
    #[arg(long, value_name = "PEM", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of the certificate
    #[arg(long, value_name = "PEM", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Where to listen for clients that begin with TLS, without AUTH; may be given several times
    #[arg(long, value_name = "ADDR:PORT")]
    implicit_tls: Vec<SocketAddr>,
    /// Whether data connections must resume the TLS session of their control connection
    #[arg(long, value_name = "WHEN", default_value = "accept")]
    tls_reuse: Reuse,
    /// Ports for passive data connections [default: 64 that the kernel chooses]
    #[arg(long, value_name = "A-B", value_parser = port_range)]
    passive_ports: Option<RangeInclusive<u16>>,
    /// The address that PASV tells, behind NAT [default: the one the client reached]
    #[arg(long, value_name = "IP")]
    passive_address: Option<IpAddr>,
    /// Whether the server makes data connections itself (PORT, EPRT)
    #[arg(long, value_name = "on|off", default_value = "on")]
    active: Switch,
    /// Sessions at the same time
    #[arg(long, value_name = "N", value_parser = at_least_one, default_value_t = Limits::default().sessions_max)]
    max_sessions: usize,
    /// Sessions of one address (IPv6: of one /64), loopback excepted
    #[arg(long, value_name = "N", value_parser = at_least_one, default_value_t = Limits::default().sessions_per_address_max)]
    max_per_address: usize,
    /// Time from the connection to the login
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s")]
    login_timeout: Duration,
    /// Time without a command
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "15m")]
    idle_timeout: Duration,
    /// Time in which a transfer must move 16 KiB
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    stall_timeout: Duration,
    /// How much to log on standard error: off, error, warn, info, debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: LevelFilter,
}

#[derive(Subcommand)]
enum Command {
    /// Change the users file that --users names (a directory called user is served as ./user)
    User(user::Arguments),
}

const DEFAULT_DIR: &str = "haul-data";

#[derive(Clone, Copy, ValueEnum)]
enum Level {
    None,
    Read,
    Write,
}

#[derive(Clone, Copy, ValueEnum)]
enum Security {
    Off,
    Optional,
    Required,
}

#[derive(Clone, Copy, ValueEnum)]
enum Reuse {
    Accept,
    Require,
}

#[derive(Clone, Copy, ValueEnum)]
enum Switch {
    On,
    Off,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    let outcome = match arguments.command.take() {
        Some(Command::User(arguments)) => user::run(arguments),
        None => run(arguments),
    };
    log::logger().flush();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("hauld: {message}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: Arguments) -> Result<(), String> {
    // Behind an option, clap takes the word for the directory.
    if arguments.dir.as_os_str() == "user" {
        return Err("to serve a directory called user, write ./user; \
                    `hauld user` takes no other options before it"
            .into());
    }
    haul::logging::start(arguments.log_level).map_err(|error| error.to_string())?;
    // Files and directories are made with the permission bits that the session says.
    rustix::process::umask(rustix::fs::Mode::empty());
    let config = configuration(arguments)?;
    let (dir, password) = (config.dir.clone(), config.one_time_password.clone());
    let server = Server::start(config).map_err(|error| error.to_string())?;
    let addresses = server.addresses().map_err(|error| error.to_string())?;
    let mut out = std::io::stdout().lock();
    for &(address, implicit_tls) in &addresses {
        let mark = if implicit_tls { " (TLS)" } else { "" };
        // Whoever started it may not care to read this.
        let _ = writeln!(out, "listening on {address}{mark}").and_then(|()| out.flush());
        log::info!("serving {} on {address}", dir.display());
    }
    drop(out);
    if let (Some(password), Some((address, _))) = (password, addresses.first()) {
        invite(*address, &password);
    }
    server
        .run()
        .map_err(|error| format!("polling failed: {error}"))?;
    log::info!("stopped");
    Ok(())
}

/// Strangers can reach this server and there is no users file: says how to log in all the same. It
/// goes to the terminal, not into the log.
fn invite(address: SocketAddr, password: &Password) {
    let host = match address.ip() {
        ip if ip.is_unspecified() => "HOST".to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
        ip => ip.to_string(),
    };
    let (port, password) = (address.port(), String::from_utf8_lossy(password.reveal()));
    eprintln!(
        "There is no users file, so for as long as this server runs there is one user:\n\
         \x20 {ONE_TIME_USER}, with the password {password}\n\
         \x20 curl --ssl-reqd -k -T FILE ftp://{ONE_TIME_USER}:{password}@{host}:{port}/\n\
         For users who stay: hauld user add NAME, then --users haul-users.toml. For anybody: --anonymous read."
    );
}

fn configuration(arguments: Arguments) -> Result<Config, String> {
    let dir = arguments.dir;
    if dir.as_os_str() == DEFAULT_DIR && !dir.exists() {
        std::fs::create_dir(&dir)
            .map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
        rustix::fs::chmod(&dir, rustix::fs::Mode::from_raw_mode(0o755))
            .map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
    }
    let mut reachable = arguments.listen.iter().chain(&arguments.implicit_tls);
    let strangers = reachable.any(config::is_public);
    let invited = strangers && arguments.users.is_none() && arguments.anonymous.is_none();
    let one_time_password = invited.then(Password::random).transpose();
    let one_time_password =
        one_time_password.map_err(|error| format!("cannot make a password: {error}"))?;
    let anonymous = match arguments.anonymous {
        Some(Level::None) => Anonymous::None,
        None if arguments.users.is_some() || strangers => Anonymous::None,
        Some(Level::Read) => Anonymous::Read,
        Some(Level::Write) | None => Anonymous::Write,
    };
    let limits = Limits {
        sessions_max: arguments.max_sessions,
        sessions_per_address_max: arguments.max_per_address,
        login_timeout: arguments.login_timeout,
        idle_timeout: arguments.idle_timeout,
        stall_timeout: arguments.stall_timeout,
        ..Limits::default()
    };
    let mut listen = arguments.listen;
    if listen.is_empty() && arguments.implicit_tls.is_empty() {
        listen = Config::default().listen;
    }
    let files = arguments.tls_cert.zip(arguments.tls_key);
    let files = files.map(|(certificate, key)| TlsFiles { certificate, key });
    let tls = tls(
        arguments.tls,
        &listen,
        arguments.anonymous.is_some(),
        Tls {
            files,
            implicit: arguments.implicit_tls,
            reuse_required: matches!(arguments.tls_reuse, Reuse::Require),
            ..Tls::default()
        },
    )?;
    Ok(Config {
        listen,
        tls,
        dir,
        users: arguments.users,
        one_time_password,
        anonymous,
        passive_ports: arguments.passive_ports,
        passive_address: arguments.passive_address,
        active: matches!(arguments.active, Switch::On),
        limits,
        ..Config::default()
    })
}

/// What was said about TLS, and where nothing was, what is safe.
fn tls(
    said: Option<Security>,
    listen: &[SocketAddr],
    anonymous_given: bool,
    tls: Tls,
) -> Result<Tls, String> {
    let level = match said {
        Some(Security::Off) if !tls.implicit.is_empty() => {
            return Err("--implicit-tls needs TLS, which --tls off switches off".to_string());
        }
        Some(Security::Off) => TlsLevel::Off,
        Some(Security::Optional) => TlsLevel::Optional,
        Some(Security::Required) => TlsLevel::Required,
        None => {
            let all = [listen, &tls.implicit].concat();
            TlsLevel::by_default(&all, !tls.implicit.is_empty() || tls.files.is_some())
        }
    };
    Ok(Tls {
        level,
        anonymous_exempt: said.is_none() && anonymous_given,
        ..tls
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

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..) => Ok(n),
        _ => Err("a number, and at least 1: with 0 nobody would get in".to_string()),
    }
}
