//! `hauld`, the server: arguments, a configuration, a server, run. The only place that exits.

mod check;
mod given;
mod identity;
mod invitation;
mod options;
mod served;
mod supervisor;
mod unit;
mod user;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use given::Given;
use haul::accounts::password::Password;
use haul::config::Config;
use haul::fingerprint::Fingerprint;
use haul::server::{Server, activation};
use haul::shell::{self, Shell};
use haul::text::plain;
use options::{DEFAULT_DIR, Settings};
use served::Served;
use supervisor::Joined;

const PRINT_CONFIG: &str = "print-config";
const SHELL: &str = "shell";
const MAN_DIR: &str = "dir";

fn command() -> Command {
    let print = Arg::new(PRINT_CONFIG)
        .long(PRINT_CONFIG)
        .action(ArgAction::SetTrue)
        .help("Print a file for --config that says the same, with all there is to say, and stop");
    let user = user::Arguments::augment_args(Command::new("user"))
        .about("Change the users file that --users names (a directory called user is served as ./user)")
        .subcommand_required(true)
        .arg_required_else_help(true);
    let socket = Arg::new(unit::SOCKET)
        .long(unit::SOCKET)
        .action(ArgAction::SetTrue)
        .help("The unit with which systemd opens the ports");
    let unit = given::with_options(Command::new("unit"))
        .about("Print the systemd unit that runs hauld with these options")
        .arg(socket);
    let check = given::with_options(Command::new("check"))
        .about("Say what would go wrong with these options; the exit code is 1 if anything would");
    let completions = Command::new("completions")
        .about("Print what a shell needs to complete options")
        .arg(
            Arg::new(SHELL)
                .required(true)
                .value_parser(clap::value_parser!(Shell)),
        );
    let man = Command::new("man")
        .about("Print the manual page, or write it and those of the commands into a directory")
        .arg(Arg::new(MAN_DIR).value_parser(clap::value_parser!(PathBuf)));
    given::with_options(Command::new("hauld"))
        .about("Serve a directory over FTP, and over the verbs of haul")
        .version(env!("CARGO_PKG_VERSION"))
        .max_term_width(100)
        .args_conflicts_with_subcommands(true)
        .arg(print)
        .subcommand(user)
        .subcommand(unit)
        .subcommand(check)
        .subcommand(completions)
        .subcommand(man)
}

fn main() -> ExitCode {
    let matches = command().get_matches();
    let done = |result: Result<(), String>| result.map(|()| ExitCode::SUCCESS);
    let outcome = match matches.subcommand() {
        Some(("user", matches)) => {
            let arguments = user::Arguments::from_arg_matches(matches);
            done(user::run(arguments.unwrap_or_else(|error| error.exit())))
        }
        Some(("check", matches)) => return print_findings(matches),
        Some(("unit", matches)) => done(print_unit(matches)),
        Some(("completions", matches)) => match matches.get_one::<Shell>(SHELL) {
            Some(&shell) => done(written(shell::print(&shell::completions(shell, command())))),
            None => Err("which shell?".to_string()),
        },
        Some(("man", matches)) => done(written(shell::man(
            command(),
            matches.get_one::<PathBuf>(MAN_DIR).map(PathBuf::as_path),
        ))),
        _ => run(&matches),
    };
    log::logger().flush();
    match outcome {
        Ok(code) => code,
        Err(message) => {
            eprintln!("hauld: {message}");
            ExitCode::from(2)
        }
    }
}

fn written(result: std::io::Result<()>) -> Result<(), String> {
    result.map_err(|error| format!("cannot write: {}", plain(&error)))
}

fn run(matches: &ArgMatches) -> Result<ExitCode, String> {
    let given = Given::collect(matches)?;
    let mut settings = given.settings()?;
    // Behind an option, clap takes the word for the directory.
    if let Some(name) = settings.dir().to_str()
        && command().find_subcommand(name).is_some()
    {
        return Err(format!(
            "to serve a directory called {name}, write ./{name}; `hauld {name}` takes no options \
             before it"
        ));
    }
    if matches.get_flag(PRINT_CONFIG) {
        written(shell::print(given.as_file().as_bytes()))?;
        return Ok(ExitCode::SUCCESS);
    }
    // Files and directories are made with the permission bits that the session says.
    rustix::process::umask(rustix::fs::Mode::empty());
    let level = settings.log_level;
    if supervisor::is_worker() {
        return work(settings);
    }
    let inherited = activation::inherited()
        .map_err(|error| format!("a socket that was passed on is no TCP listener: {error}"))?;
    settings.inherit(&inherited);
    let config = settings.into_config()?;
    let log = haul::logging::prepare("hauld".into(), level, config.transfer_log.as_deref())?;
    make_default(&config)?;
    let (dir, password) = (config.dir.clone(), config.one_time_password.clone());
    if config.workers > 1 {
        if !inherited.is_empty() {
            return Err(
                "workers need sockets of their own, and these were passed on by somebody else: \
                 leave out --workers, or the socket unit"
                    .to_string(),
            );
        }
        log.start().map_err(|error| error.to_string())?;
        return supervisor::run(&config, |addresses, fingerprint| {
            announce(&dir, addresses);
            let fingerprint = fingerprint.and_then(|it| it.parse().ok());
            invite(password.as_ref(), addresses, fingerprint);
        });
    }
    let served = Served::of(&config);
    let server = Server::start(config, inherited);
    log.start().map_err(|error| error.to_string())?;
    let server = server.map_err(|error| error.to_string())?;
    served.check()?;
    let addresses = server.addresses().map_err(|error| error.to_string())?;
    announce(&dir, &addresses);
    invite(password.as_ref(), &addresses, server.fingerprint());
    serve(server)
}

/// One of several workers.
fn work(settings: Settings) -> Result<ExitCode, String> {
    let level = settings.log_level;
    let Joined {
        channel,
        place,
        sockets,
    } = supervisor::join()?;
    let mut config = settings.into_config()?;
    supervisor::share(&mut config, &place, &sockets);
    let name = format!("hauld/{}", place.index);
    let log = haul::logging::prepare(name, level, config.transfer_log.as_deref())?;
    let served = Served::of(&config);
    let server = Server::start(config, sockets);
    log.start().map_err(|error| error.to_string())?;
    let mut server = server.map_err(|error| error.to_string())?;
    served.check()?;
    server
        .join(channel)
        .map_err(|error| format!("the parent of this worker is gone: {error}"))?;
    serve(server)
}

fn serve(server: Server) -> Result<ExitCode, String> {
    server
        .run()
        .map_err(|error| format!("polling failed: {error}"))?;
    log::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

fn announce(dir: &Path, addresses: &[(SocketAddr, bool)]) {
    let mut out = std::io::stdout().lock();
    for &(address, implicit_tls) in addresses {
        let mark = if implicit_tls { " (TLS)" } else { "" };
        // Whoever started it may not care to read this.
        let _ = writeln!(out, "listening on {address}{mark}").and_then(|()| out.flush());
        log::info!("serving {} on {address}", dir.display());
    }
}

fn invite(
    password: Option<&Password>,
    addresses: &[(SocketAddr, bool)],
    fingerprint: Option<Fingerprint>,
) {
    if let (Some(password), Some(&(address, implicit))) = (password, addresses.first()) {
        // To the terminal: the log is no place for it.
        eprintln!(
            "{}",
            invitation::text(address, implicit, fingerprint, password)
        );
    }
}

fn print_findings(matches: &ArgMatches) -> ExitCode {
    let findings = check::run(Given::collect(matches));
    let mut out = std::io::stdout().lock();
    for line in findings.lines() {
        // The exit code tells whoever does not read them.
        let _ = writeln!(out, "{line}");
    }
    ExitCode::from(u8::from(!findings.good()))
}

fn print_unit(matches: &ArgMatches) -> Result<(), String> {
    let given = Given::collect(matches)?;
    let settings = given.settings()?;
    let config = settings.into_config()?;
    let unit = if matches.get_flag(unit::SOCKET) {
        unit::socket(&config)?
    } else {
        let program = std::env::current_exe()
            .map_err(|error| format!("where hauld is installed is unknown: {error}"))?;
        unit::service(&given, &config, &program)
    };
    written(shell::print(unit.as_bytes()))
}

/// Whoever only tries it out need not make a directory first.
fn make_default(config: &Config) -> Result<(), String> {
    let dir = &config.dir;
    if dir != Path::new(DEFAULT_DIR) || dir.exists() {
        return Ok(());
    }
    let cannot = |error: std::io::Error| format!("cannot make {}: {error}", dir.display());
    std::fs::create_dir(dir).map_err(cannot)?;
    let mode = rustix::fs::Mode::from_raw_mode(0o755);
    rustix::fs::chmod(dir, mode).map_err(|error| cannot(error.into()))?;
    if let Some(user) = &config.run_as {
        std::os::unix::fs::chown(dir, Some(user.uid), Some(user.gid)).map_err(cannot)?;
    }
    Ok(())
}
