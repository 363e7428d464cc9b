//! Everything that is known before the first connection: what is asked for makes sense, the server
//! is there, the files can be written.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use signal_hook::consts::{SIGINT, SIGTERM};

use super::{Bench, Context, nanoseconds};
use crate::bench::arguments::{Arguments, Scenario, Verbs};
use crate::bench::content::Content;
use crate::bench::engine::Ground;
use crate::bench::machine;
use crate::bench::measure::Clock;
use crate::bench::mix::Mix;
use crate::bench::operation::Kind;
use crate::bench::report::{FORMAT, Report};
use crate::bench::server_process::ServerProcess;
use crate::bench::syscalls::Counter;
use crate::bench::tls::Trust;
use crate::client::error::{Error, Exit};
use crate::client::server::Server;
use crate::text::plain;

impl<'a> Bench<'a> {
    /// # Errors
    /// What is wrong, before anything has been sent.
    pub(super) fn new(
        arguments: &'a Arguments,
        context: &Context,
        scenario: Scenario,
    ) -> Result<Bench<'a>, Error> {
        let mix = arguments.work(scenario)?;
        check(arguments, &mix)?;
        if arguments.syscalls {
            Counter::check().map_err(Error::usage)?;
        }
        for path in arguments.json.iter().chain(&arguments.html) {
            writable(path)?;
        }
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // Without it a signal ends the bench at once, and its files stay.
            let _ = signal_hook::flag::register(signal, Arc::clone(&interrupted));
        }
        let (process, address, server) = find(arguments, context)?;
        let trust = match context.is_secure {
            false => None,
            true => {
                let moves_bytes = mix.shares.iter().any(|share| share.kind.moves_bytes());
                let resumes = arguments.verbs != Verbs::Own && moves_bytes;
                Some(Trust::new(&server, &context.trust, resumes)?)
            }
        };
        let password = password(context, &server, address)?;
        let file_bytes = arguments.file_bytes(scenario, &mix);
        let uploads = mix.has(Kind::Upload) || mix.has(Kind::Download) && arguments.path.is_none();
        let shares = mix.shares.iter().filter_map(|share| share.file_bytes);
        let longest = shares.chain([file_bytes]).max().unwrap_or(0);
        let content = Content::new(if uploads { longest } else { 0 }, context.is_secure)
            .map_err(|error| Error::local(&error).about("memory for uploads"))?;
        let report = Report {
            format: FORMAT,
            haul: env!("CARGO_PKG_VERSION").to_owned(),
            began_s: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            scenario: scenario.name().to_owned(),
            server: server.to_string(),
            greeting: String::new(),
            tls: None,
            machine: machine::description(),
            settings: Vec::new(),
            loads: Vec::new(),
            warnings: machine::warnings(arguments.connections_most(), address.ip()),
        };
        Ok(Bench {
            arguments,
            is_quiet: context.is_quiet,
            is_implicit: server.implicit_tls,
            scenario,
            ground: Ground {
                server: address,
                trust,
                content,
                timeout_ns: nanoseconds(context.timeout),
                interrupted: Arc::clone(&interrupted),
                clock: Clock::default(),
            },
            process,
            user: server.user.clone().unwrap_or_else(|| b"anonymous".to_vec()),
            password,
            mix,
            report,
            interrupted,
        })
    }
}

/// What logs in, if it may go to `address`.
fn password(context: &Context, server: &Server, address: SocketAddr) -> Result<Vec<u8>, Error> {
    if server.user.is_none() {
        return Ok(b"haul@".to_vec());
    }
    let is_checked = context.is_secure && context.trust.is_explicit();
    let is_far = !address.ip().to_canonical().is_loopback();
    if is_far && !is_checked && !context.insecure_plaintext {
        return Err(Error::new(
            Exit::Trust,
            "a password is not sent to another machine unless it is known to be the right one; \
             give --tls required with --ca-file or --fingerprint, or --insecure-plaintext to \
             send it all the same",
        ));
    }
    let secret = server.password.as_ref().or(context.password.as_ref());
    match secret {
        Some(secret) => Ok(secret.reveal().to_vec()),
        None => Err(Error::usage(
            "the user needs a password; set HAUL_PASSWORD or write it in --server",
        )),
    }
}

/// What cannot be asked for at once.
fn check(arguments: &Arguments, mix: &Mix) -> Result<(), Error> {
    let one_at_a_time = mix.has(Kind::List) || mix.has(Kind::Login);
    if arguments.in_flight > 1 && one_at_a_time {
        return Err(Error::usage(
            "--in-flight is for download, upload, small and noop",
        ));
    }
    if arguments.path.is_some() && mix.has(Kind::Download) && mix.has(Kind::List) {
        return Err(Error::usage(
            "--path names a file or a directory, and this mix wants both",
        ));
    }
    if arguments.path.is_some() && !mix.has(Kind::Download) && !mix.has(Kind::List) {
        return Err(Error::usage(
            "--path is for what is downloaded or listed; --within for uploads",
        ));
    }
    if arguments.syscalls && arguments.pid.is_none() && arguments.spawn.is_none() {
        return Err(Error::usage(
            "--syscalls needs the server's process: --pid or --spawn",
        ));
    }
    if mix.shares.is_empty() && (arguments.requests.is_some() || arguments.rate.is_some()) {
        return Err(Error::usage(
            "idle sessions do nothing that --requests or --rate could count",
        ));
    }
    Ok(())
}

/// The server's process, address and name.
fn find(
    arguments: &Arguments,
    context: &Context,
) -> Result<(Option<ServerProcess>, SocketAddr, Server), Error> {
    let usage = |said: String| Error::new(Exit::CannotConnect, said);
    if let (Some(command), None) = (&arguments.spawn, &context.server) {
        let (process, address) = ServerProcess::spawn(command, None).map_err(usage)?;
        let server = Server {
            host: address.ip().to_string(),
            port: address.port(),
            ..Server::default()
        };
        return Ok((Some(process), address, server));
    }
    let server = context.server.clone().unwrap_or_default();
    let addresses: Vec<SocketAddr> = (server.host.as_str(), server.port)
        .to_socket_addrs()
        .map(Iterator::collect)
        .unwrap_or_default();
    let listens = |address: &&SocketAddr| {
        std::net::TcpStream::connect_timeout(address, context.timeout).is_ok()
    };
    // A name may have several addresses, and nobody need listen on the first.
    let address = match addresses[..] {
        [] => None,
        [only] => Some(only),
        [first, ..] => Some(addresses.iter().find(listens).copied().unwrap_or(first)),
    };
    let address =
        address.ok_or_else(|| usage(format!("{server} is not known: no address has this name")))?;
    let pids = arguments.pids();
    let process = match (&arguments.spawn, &pids[..]) {
        (Some(command), _) => {
            let (process, _) = ServerProcess::spawn(command, Some(address)).map_err(usage)?;
            Some(process)
        }
        (None, []) => None,
        (None, pids) => Some(ServerProcess::of(pids).map_err(Error::usage)?),
    };
    Ok((process, address, server))
}

/// Finds out before an hour of measuring, not after it.
fn writable(path: &Path) -> Result<(), Error> {
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map(drop)
        .map_err(|error| {
            Error::new(
                Exit::Local,
                format!("{}: {}", path.display(), plain(&error)),
            )
        })
}
