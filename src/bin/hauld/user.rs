//! `hauld user`: the users file from the command line.

use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, Subcommand};
use haul::accounts::Permissions;
use haul::accounts::edit::{Changes, Limit, UsersFile};
use haul::accounts::field::{Home, Name, Network};
use haul::accounts::password::{Cost, Hash, Password};
use haul::accounts::users::{User, Users};
use haul::fingerprint::Fingerprint;
use haul::shell;
use haul::storage::quota::Amount;
use haul::text::Bytes;

/// Passwords are longer than this only by mistake: a file was piped in.
const PASSWORD_BYTES_MAX: u64 = 1024;

#[derive(Args)]
#[command(max_term_width = 100)]
pub struct Arguments {
    /// The users file, as it is given to `hauld --users`
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        default_value = "haul-users.toml"
    )]
    users: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Add a user. The password is asked for, or is the first line of standard input; the file is
    /// made if it is not there
    Add {
        /// The name, as clients give it
        name: Name,
        #[command(flatten)]
        about: About,
    },
    /// Give a user another password. It is asked for, or is the first line of standard input
    Passwd {
        /// Whose
        name: Name,
    },
    /// Change what a user may do
    Set {
        /// Who
        name: Name,
        #[command(flatten)]
        about: About,
    },
    /// Remove a user. Files stay
    Remove {
        /// Who
        name: Name,
    },
    /// Show all users
    List,
}

/// What is said of a user besides the password.
#[derive(Args)]
struct About {
    /// What the user sees as /, below the directory that is served; it must be there
    #[arg(long, value_name = "PATH")]
    home: Option<Home>,
    /// all, read-only, or some of list,read,write,append,delete,rename,mkdir,chmod
    #[arg(long, value_name = "WORDS")]
    permissions: Option<Permissions>,
    /// What the home may hold, as 10GiB; or none
    #[arg(long, value_name = "SIZE")]
    quota_bytes: Option<Limit>,
    /// How many files the home may hold; or none
    #[arg(long, value_name = "N", value_parser = count)]
    quota_files: Option<Limit>,
    /// For all sessions of the user together, per second, as 20MiB; or none
    #[arg(long, value_name = "SIZE")]
    rate: Option<Limit>,
    /// For each session of the user, per second; or none
    #[arg(long, value_name = "SIZE")]
    session_rate: Option<Limit>,
    /// Where the user may log in from, as 192.0.2.0/24 or ::1, with commas between several; or any
    #[arg(long, value_name = "NETWORKS", value_parser = networks)]
    networks: Option<Networks>,
    /// Client certificates that stand for the password, as SHA-256 fingerprints with commas between
    /// several; or none
    #[arg(long, value_name = "FINGERPRINTS", value_parser = certificates)]
    certificates: Option<Certificates>,
    /// Whether the user is kept out
    #[arg(long, value_name = "true|false")]
    locked: Option<bool>,
}

#[derive(Clone)]
struct Networks(Vec<Network>);

#[derive(Clone)]
struct Certificates(Vec<Fingerprint>);

impl From<About> for Changes {
    fn from(about: About) -> Changes {
        Changes {
            home: about.home,
            permissions: about.permissions,
            quota_bytes: about.quota_bytes,
            quota_files: about.quota_files,
            rate_bytes_per_s: about.rate,
            session_rate_bytes_per_s: about.session_rate,
            networks: about.networks.map(|Networks(networks)| networks),
            certificates: about.certificates.map(|Certificates(list)| list),
            locked: about.locked,
        }
    }
}

/// Does what was asked. What it did is said on standard error, where `list` is not mixed with it.
pub fn run(arguments: Arguments) -> Result<(), String> {
    let path = &arguments.users;
    let shown = path.display();
    match arguments.command {
        Command::Add { name, about } => {
            // Whoever types a password should not hear afterwards that it was in vain.
            if path.exists() && load(path)?.find(name.as_str().as_bytes()).is_some() {
                return Err(format!(
                    "users file {shown}: there is a user {name} already; `hauld user passwd` and \
                     `hauld user set` change users"
                ));
            }
            let hash = hash_for(&name)?;
            let mut file = UsersFile::open_or_new(path).map_err(text)?;
            file.add(&name, &hash, &about.into()).map_err(text)?;
            file.save().map_err(text)?;
            eprintln!("added {name} to {shown}; a running hauld takes it on SIGHUP");
        }
        Command::Passwd { name } => {
            if load(path)?.find(name.as_str().as_bytes()).is_none() {
                return Err(format!("users file {shown}: there is no user {name}"));
            }
            let hash = hash_for(&name)?;
            let mut file = UsersFile::open(path).map_err(text)?;
            file.set_password(&name, &hash).map_err(text)?;
            file.save().map_err(text)?;
            eprintln!("{name} has another password; a running hauld takes it on SIGHUP");
        }
        Command::Set { name, about } => {
            let changes = Changes::from(about);
            if changes == Changes::default() {
                return Err(
                    "say what to change; `hauld user set --help` shows what there is".into(),
                );
            }
            let mut file = UsersFile::open(path).map_err(text)?;
            file.change(&name, &changes).map_err(text)?;
            file.save().map_err(text)?;
            eprintln!("changed {name}; a running hauld takes it on SIGHUP");
        }
        Command::Remove { name } => {
            let mut file = UsersFile::open(path).map_err(text)?;
            file.remove(&name).map_err(text)?;
            file.save().map_err(text)?;
            eprintln!("removed {name}; a running hauld takes it on SIGHUP");
        }
        Command::List => {
            let users = load(path)?;
            for warning in users.warnings() {
                eprintln!("hauld: {warning}");
            }
            crate::written(shell::print(table(&users).as_bytes()))?;
        }
    }
    Ok(())
}

fn load(path: &Path) -> Result<Users, String> {
    Users::load(path).map_err(text)
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

/// Asks twice on a terminal; otherwise takes a line.
fn hash_for(name: &Name) -> Result<Hash, String> {
    let password = if io::stdin().is_terminal() {
        let ask = |question: String| {
            rpassword::prompt_password(question)
                .map(|typed| Password::new(typed.into_bytes()))
                .map_err(|error| format!("the password cannot be read: {error}"))
        };
        let password = ask(format!("New password for {name}: "))?;
        check(&password)?;
        let again = ask(format!("The same again for {name}: "))?;
        if password.reveal() != again.reveal() {
            return Err("the two passwords differ; nothing was changed".into());
        }
        password
    } else {
        let mut line = Vec::new();
        let mut input = io::stdin().lock().take(PASSWORD_BYTES_MAX + 2);
        let read = input.read_until(b'\n', &mut line);
        read.map_err(|error| format!("the password cannot be read: {error}"))?;
        if line.ends_with(b"\n") {
            line.pop();
            if line.ends_with(b"\r") {
                line.pop();
            }
        }
        let password = Password::new(line);
        check(&password)?;
        password
    };
    Hash::new(&password, Cost::DEFAULT)
        .map_err(|error| format!("the password cannot be hashed: {error}"))
}

/// What a client could not send is no password: FTP is made of lines, with Telnet codes in them.
fn check(password: &Password) -> Result<(), String> {
    let bytes = password.reveal();
    if bytes.is_empty() {
        return Err("an empty password is none; nothing was changed".into());
    }
    if bytes.len() as u64 > PASSWORD_BYTES_MAX {
        return Err(format!(
            "a password has at most {PASSWORD_BYTES_MAX} bytes; nothing was changed"
        ));
    }
    if bytes.iter().any(|b| b.is_ascii_control() || *b == 0xff) {
        return Err("FTP cannot carry the control bytes in it; nothing was changed".into());
    }
    Ok(())
}

fn table(users: &Users) -> String {
    let mut rows = vec![["NAME", "HOME", "PERMISSIONS", "LIMITS"].map(String::from)];
    rows.extend(users.sorted().iter().map(|user| {
        [
            user.name.to_string(),
            user.home.to_string(),
            user.permissions.to_string(),
            limits(user),
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths = [0, 1, 2].map(|column| width(column).unwrap_or(0));
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a String does not fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        line.push_str(&row[3]);
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn limits(user: &User) -> String {
    let mut limits = Vec::new();
    if user.locked {
        limits.push("locked".to_string());
    }
    if user.quota.bytes != Amount::MAX.bytes {
        limits.push(Bytes(user.quota.bytes).to_string());
    }
    if user.quota.files != Amount::MAX.files {
        limits.push(format!("{} files", user.quota.files));
    }
    if let Some(rate) = user.rate_bytes_per_s {
        limits.push(format!("{}/s", Bytes(rate)));
    }
    if let Some(rate) = user.session_rate_bytes_per_s {
        limits.push(format!("{}/s per session", Bytes(rate)));
    }
    if !user.networks.is_empty() {
        let networks: Vec<String> = user.networks.iter().map(Network::to_string).collect();
        limits.push(format!("from {}", networks.join(" ")));
    }
    match user.certificates.len() {
        0 => {}
        1 => limits.push("1 certificate".to_string()),
        n => limits.push(format!("{n} certificates")),
    }
    limits.join(", ")
}

fn count(text: &str) -> Result<Limit, String> {
    match text.parse() {
        _ if text == "none" => Ok(Limit::None),
        Ok(n) => Ok(Limit::Of(n)),
        Err(_) => Err("write a number, or none".to_string()),
    }
}

fn networks(text: &str) -> Result<Networks, String> {
    list(text, "any").map(Networks)
}

fn certificates(text: &str) -> Result<Certificates, String> {
    list(text, "none").map(Certificates)
}

/// What stands between commas; the word `nothing` for nothing.
fn list<T: FromStr>(text: &str, nothing: &str) -> Result<Vec<T>, T::Err> {
    if text == nothing {
        return Ok(Vec::new());
    }
    text.split(',').map(|part| part.trim().parse()).collect()
}
