//! `haul`: moves files to and from any FTP server, and at their best to and from `hauld`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use haul::bench;
use haul::client::bookmarks::{self, Bookmark};
use haul::client::known_hosts::KnownHosts;
use haul::client::netrc;
use haul::client::server::{Secret, one_line};
use haul::client::tls::Level;
use haul::client::trust::Trust;
use haul::client::{Client, Command, Error, Exit, Server, Settings, commands, prompt};
use haul::fingerprint::Fingerprint;
use haul::shell::{self, Shell};
use haul::text::duration;

/// Move files to and from an FTP server.
///
/// Without a command it shows a prompt, or reads commands from standard input.
#[derive(Parser)]
#[command(version, after_help = AFTER_HELP, args_override_self = true, max_term_width = 100)]
#[command(next_help_heading = "Connection")]
struct Arguments {
    /// The server: [ftp://|ftps://][user[:password]@]host[:port]; port 21, or 990 with ftps://
    #[arg(long, global = true, value_name = "SERVER")]
    server: Option<String>,

    /// Give up when the network is silent for this long: seconds, or 90s, 5m, 1h
    #[arg(long, global = true, default_value = "30", value_name = "TIME", value_parser = duration)]
    timeout: Duration,

    /// Show the dialogue with the server on standard error, without passwords
    #[arg(long, global = true)]
    verbose: bool,

    /// Print errors only
    #[arg(long, global = true)]
    quiet: bool,

    /// Whether to use TLS with ftp://; with ftps:// always
    #[arg(long, global = true, value_name = "LEVEL", default_value = "auto")]
    tls: Level,

    /// Trust only what the certificates in this file have signed
    #[arg(long, global = true, value_name = "PEM")]
    ca_file: Option<PathBuf>,

    /// Trust only the certificate with this SHA-256 fingerprint, whoever signed it
    #[arg(long, global = true, value_name = "SHA256", conflicts_with = "ca_file")]
    fingerprint: Option<Fingerprint>,

    /// Where trusted certificates are remembered [default: ~/.config/haul/known_hosts]
    #[arg(long, global = true, value_name = "FILE")]
    known_hosts: Option<PathBuf>,

    /// Try a transfer again so often when the connection breaks, with growing waits
    #[arg(long, global = true, value_name = "N", default_value_t = 3)]
    retries: u32,

    /// Allow a password to be sent in clear to another machine
    #[arg(long, global = true)]
    insecure_plaintext: bool,

    #[command(subcommand)]
    command: Option<Task>,
}

/// What can be asked for on the command line. At the prompt there are only the client's commands.
#[derive(clap::Subcommand)]
enum Task {
    #[command(flatten)]
    Client(Command),
    Bench(Box<bench::Arguments>),
    /// Print what a shell needs to complete commands and options
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the manual page, or write it and those of the commands into a directory
    Man {
        /// Where to write haul.1, haul-upload.1 and so on
        dir: Option<PathBuf>,
    },
}

const AFTER_HELP: &str = "\
The server is 127.0.0.1:8080 unless --server or HAUL_SERVER says otherwise; both may be the name of a \
bookmark in ~/.config/haul/config.toml. The password is taken from the server's URL, from HAUL_PASSWORD, \
from ~/.netrc (or $NETRC), or asked for; without a user, the login is anonymous.

Examples:
  haul upload a.txt                     to 127.0.0.1:8080, under the same name
  haul --server me@example.org upload *.jpg photos/
  haul download reports/june.pdf .
  haul download ftp://ftp.example.org/pub/file
  haul sync --delete photos :/photos    make the second like the first
  tar c src | haul upload - src.tar
  haul download notes.txt - | less

Exit codes: 0 done; 1 some files failed; 2 usage; 3 cannot connect; 4 TLS or trust; 5 login refused; \
6 no such file or no permission; 7 local file error or name taken; 8 broken or stalled transfer; \
9 the two sides differ; 10 server full or disk full.";

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    let exit = run(&mut arguments).unwrap_or_else(|error| {
        commands::report(&error);
        error.exit
    });
    exit.into()
}

fn run(arguments: &mut Arguments) -> Result<Exit, Error> {
    if let Some(Task::Bench(bench)) = &arguments.command {
        return Ok(bench::run(bench, &context(arguments)?));
    }
    match &mut arguments.command {
        Some(Task::Completions { shell }) => {
            return written(shell::print(&shell::completions(
                *shell,
                Arguments::command(),
            )));
        }
        Some(Task::Man { dir }) => {
            return written(shell::man(Arguments::command(), dir.as_deref()));
        }
        Some(Task::Client(command)) => {
            if let Some(server) = command.take_server()? {
                arguments.server = Some(server);
            }
        }
        Some(Task::Bench(_)) | None => {}
    }
    let mut client = client(arguments)?;
    let exit = match &mut arguments.command {
        Some(Task::Client(command)) => command.run(&mut client),
        _ => prompt::run(&mut client),
    };
    client.quit();
    Ok(exit)
}

fn written(result: std::io::Result<()>) -> Result<Exit, Error> {
    match result {
        Ok(()) => Ok(Exit::Done),
        Err(error) => Err(Error::local(&error).about("cannot write")),
    }
}

fn client(arguments: &Arguments) -> Result<Client, Error> {
    let (server, directory) = server(arguments)?;
    let mut server = server.unwrap_or_default();
    tls_makes_sense(arguments, &server)?;
    let (password, account) = login(&mut server)?;
    let known = arguments.known_hosts.clone().map(KnownHosts::new);
    let settings = Settings {
        timeout: arguments.timeout,
        verbose: arguments.verbose,
        quiet: arguments.quiet,
        tls: arguments.tls,
        trust: Arc::new(trust(arguments, known.or_else(KnownHosts::of_user))?),
        retries: arguments.retries,
        insecure_plaintext: arguments.insecure_plaintext,
        password,
        account,
    };
    let mut client = Client::new(server, settings);
    if let Some(directory) = directory {
        client.remember_directory(directory.into_bytes());
    }
    Ok(client)
}

fn context(arguments: &Arguments) -> Result<bench::Context, Error> {
    let (mut server, _) = server(arguments)?;
    let named = server.clone().unwrap_or_default();
    tls_makes_sense(arguments, &named)?;
    let password = match &mut server {
        Some(server) => login(server)?.0,
        None => password()?,
    };
    Ok(bench::Context {
        server,
        timeout: arguments.timeout,
        is_quiet: arguments.quiet,
        is_secure: arguments.tls == Level::Required || named.implicit_tls,
        trust: Arc::new(trust(arguments, None)?),
        insecure_plaintext: arguments.insecure_plaintext,
        password,
    })
}

/// The server that was named, if any, and where to go on it.
fn server(arguments: &Arguments) -> Result<(Option<Server>, Option<String>), Error> {
    let environment;
    let in_the_path = match &arguments.command {
        Some(Task::Client(Command::Sync(sync))) => sync.server(),
        _ => None,
    };
    let text = match in_the_path.or(arguments.server.as_deref()) {
        Some(text) => text,
        None => match std::env::var_os("HAUL_SERVER").filter(|s| !s.is_empty()) {
            Some(text) => {
                environment = text;
                environment.to_str().ok_or_else(|| {
                    Error::usage("HAUL_SERVER is not UTF-8; write other bytes of a user as %FF")
                })?
            }
            None => return Ok((None, None)),
        },
    };
    let bookmark = match bookmarks::config_file("config.toml") {
        Some(path) => bookmarks::find(&path, text)?,
        None => None,
    };
    match bookmark {
        None => Ok((Some(Server::parse(text)?), None)),
        Some(Bookmark { server, directory }) => {
            if let Some(directory) = &directory {
                one_line("the directory of the bookmark", directory.as_bytes())?;
            }
            Ok((Some(Server::parse(&server)?), directory))
        }
    }
}

/// The password from the environment, or else from `.netrc`, which may also know who to be and for
/// which account. A password in the URL goes before both.
fn login(server: &mut Server) -> Result<(Option<Secret>, Option<Secret>), Error> {
    let given = password()?;
    if given.is_some() || server.password.is_some() {
        return Ok((given, None));
    }
    let Some(path) = netrc::of_user() else {
        return Ok((None, None));
    };
    let Some(login) = netrc::look_up(&path, &server.host, server.user.as_deref())? else {
        return Ok((None, None));
    };
    // That is who one is without a user, and its password is none.
    let is_anonymous = |user: &Vec<u8>| user == b"anonymous" || user == b"ftp";
    if login.user.as_ref().is_some_and(is_anonymous) {
        return Ok((None, None));
    }
    if server.user.is_none() {
        server.user = login.user;
    }
    Ok((login.password, login.account))
}

fn tls_makes_sense(arguments: &Arguments, server: &Server) -> Result<(), Error> {
    let explicit = arguments.ca_file.is_some() || arguments.fingerprint.is_some();
    match arguments.tls == Level::Off && (explicit || server.implicit_tls) {
        true => Err(Error::usage(
            "--tls off does not go with ftps://, --ca-file or --fingerprint",
        )),
        false => Ok(()),
    }
}

fn trust(arguments: &Arguments, known: Option<KnownHosts>) -> Result<Trust, Error> {
    Trust::new(arguments.fingerprint, arguments.ca_file.as_deref(), known)
}

fn password() -> Result<Option<Secret>, Error> {
    use std::os::unix::ffi::OsStringExt;
    std::env::var_os("HAUL_PASSWORD")
        .map(|password| Secret::new(password.into_vec()))
        .transpose()
        .map_err(|error| Error::new(Exit::Usage, format!("HAUL_PASSWORD: {error}")))
}
