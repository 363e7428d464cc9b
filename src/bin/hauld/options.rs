//! Everything that can be said to `hauld`, as a table: one row per option and per key of the
//! configuration file. Help, the file, what `--print-config` prints and the README derive from it.
//!
//! A row that is an option has the same name in the file. A limit that is only in the file has its
//! unit in its name. Both are set by the same function from the same text.

mod rows;
mod values;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use haul::accounts::Anonymous;
use haul::accounts::password::Password;
use haul::config::{self, Config, Tls, TlsFiles, TlsLevel};
use haul::server::activation::Inherited;
use log::LevelFilter;

pub use rows::ROWS;

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
    /// Text: the name of a file, beginning in the file at the directory of the file.
    Path,
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

/// The row of that name.
pub fn row(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}

impl Settings {
    /// The directory, as it was written.
    pub fn dir(&self) -> &Path {
        &self.config.dir
    }

    /// Sockets are there already; what was said comes on top.
    pub fn inherit(&mut self, sockets: &[Inherited]) {
        for socket in sockets {
            let (address, implicit) = (socket.address, &mut self.config.tls.implicit);
            if implicit.contains(&address) || self.listen.contains(&address) {
                continue;
            }
            match socket.implicit_tls {
                true => implicit.push(address),
                false => self.listen.push(address),
            }
        }
    }

    /// What follows from what was said.
    ///
    /// # Errors
    /// A sentence: what was said contradicts itself, or there are no random numbers.
    pub fn into_config(self) -> Result<Config, String> {
        several(&self.config)?;
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

/// Several workers keep no count together of bytes that come and go.
fn several(config: &Config) -> Result<(), String> {
    let workers = config.workers;
    if workers == 1 {
        return Ok(());
    }
    if config.limits.rate_bytes_per_s.is_some() {
        return Err(
            "--rate holds for one worker: leave it out, or --workers; what one session \
             moves can be limited with --session-rate"
                .to_string(),
        );
    }
    match &config.passive_ports {
        Some(ports) if ports.len() < workers => Err(format!(
            "--passive-ports gives {} ports for {workers} workers, and each needs at least one",
            ports.len()
        )),
        _ => Ok(()),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Kind::{Count, List, Path, Size, Text, Time};
    use super::Place::{Both, File, Word};
    use super::*;

    fn one_more(row: &Row) -> Settings {
        let text = match row.kind {
            Count => "7",
            Time => "77s",
            Size => "77KiB",
            Text | Path | List => unreachable!(),
        };
        let mut settings = Settings::default();
        (row.set)(&mut settings, text).unwrap_or_else(|why| panic!("{}: {why}", row.name));
        settings
    }

    fn fields(settings: &Settings) -> Vec<String> {
        let text = format!("{:#?}", settings.config.limits);
        text.lines().map(String::from).collect()
    }

    #[test]
    fn every_limit_has_a_key() {
        let before = Settings::default();
        let mut set = BTreeSet::new();
        let numbers = ROWS
            .iter()
            .filter(|row| !matches!(row.kind, Text | Path | List));
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
                assert!(set.contains(name), "{name} is a limit: has it a key?");
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
                Text | Path | List => true,
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
            ("workers", "0", "at least 1"),
            ("workers", "65", "64"),
            ("wrong-password-delay-ms", "60001", "60000"),
            ("wrong-password-delay-ms", "1s", "milliseconds"),
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

    /// As the README shows them.
    fn table() -> String {
        let mut table = String::from("| option or key | default | |\n|---|---|---|\n");
        for row in ROWS {
            let name = match row.place {
                Both => format!("--{} {}", row.name, row.value.replace('|', "\\|")),
                Word => format!("{} (`{}` in the file)", row.value, row.name),
                File => row.name.to_string(),
            };
            let (name, note) = match row.place {
                Word => ("DIR".to_string(), name.trim_start_matches("DIR")),
                _ => (name, ""),
            };
            let help = row.help.split(" [default: ").collect::<Vec<_>>();
            let default = row.default.map(String::from);
            let default = default.or(help.get(1).map(|it| it.trim_end_matches(']').to_string()));
            let default = default.unwrap_or_default();
            table += &format!("| `{name}`{note} | {default} | {} |\n", help[0]);
        }
        table
    }

    #[test]
    fn the_table_in_the_readme_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
        let readme = std::fs::read_to_string(path).unwrap();
        let behind = readme.split_once("<!-- options -->\n").unwrap().1;
        let found = behind.split_once("<!-- /options -->").unwrap().0;
        assert!(
            found == table(),
            "the table in README.md is to be:\n{}",
            table()
        );
    }
}
