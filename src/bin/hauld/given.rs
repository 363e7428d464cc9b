//! What was said to `hauld`: on the command line, and in the file that `--config` names. The command
//! line wins.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Arg, ArgAction, ArgMatches, Command};
use haul::text::plain;
use toml::{Spanned, Value};

use super::options::{Kind, Place, ROWS, Row, Settings, row};

const CONFIG: &str = "config";
/// More than any real file has; it bounds what a wrong `--config` can make the server read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What was said of one row.
struct Said {
    row: &'static Row,
    origin: Origin,
    texts: Vec<String>,
}

#[derive(Clone)]
enum Origin {
    CommandLine,
    File(Arc<Path>, usize),
}

/// Everything that was said.
pub struct Given {
    said: Vec<Said>,
    config: Option<PathBuf>,
}

/// Adds the options to a command.
pub fn with_options(command: Command) -> Command {
    let config = Arg::new(CONFIG)
        .long(CONFIG)
        .value_name("FILE")
        .help("Read options from a TOML file, where each has the same name; what is said here wins")
        .value_parser(clap::value_parser!(PathBuf));
    let rows = ROWS.iter().filter(|row| row.place != Place::File);
    rows.map(argument).fold(command.arg(config), Command::arg)
}

fn argument(row: &Row) -> Arg {
    let help = match row.default {
        Some(default) if row.place == Place::Both => format!("{} [default: {default}]", row.help),
        _ => row.help.to_string(),
    };
    let argument = Arg::new(row.name).value_name(row.value).help(help);
    // Names of files are bytes, but the file can only say text; so only text is taken here too.
    match (row.place, row.kind) {
        (Place::Word, _) => argument,
        (_, Kind::List) => argument.long(row.name).action(ArgAction::Append),
        _ => argument.long(row.name),
    }
}

impl Given {
    /// Collects it, and reads the file.
    ///
    /// # Errors
    /// A sentence: the file cannot be read, or something in it is wrong.
    pub fn collect(matches: &ArgMatches) -> Result<Given, String> {
        let said_here = |row: &'static Row| {
            let texts = matches.get_many::<String>(row.name).into_iter().flatten();
            let texts: Vec<String> = texts.cloned().collect();
            let origin = Origin::CommandLine;
            (!texts.is_empty()).then_some(Said { row, origin, texts })
        };
        let options = ROWS.iter().filter(|row| row.place != Place::File);
        let mut said: Vec<Said> = options.filter_map(said_here).collect();
        let config = matches.get_one::<PathBuf>(CONFIG).cloned();
        if let Some(path) = &config {
            let wrong = |why: String| format!("{}: {why}", path.display());
            let in_file = in_text(&read(path).map_err(wrong)?, path).map_err(wrong)?;
            let new = in_file
                .into_iter()
                .filter(|it| said.iter().all(|other| other.row.name != it.row.name));
            let new: Vec<Said> = new.collect();
            said.extend(new);
        }
        Ok(Given { said, config })
    }

    /// The values.
    ///
    /// # Errors
    /// A sentence: what is no value, and where it was said.
    pub fn settings(&self) -> Result<Settings, String> {
        let mut settings = Settings::default();
        for Said { row, origin, texts } in &self.said {
            for text in texts {
                (row.set)(&mut settings, text).map_err(|why| refusal(row, origin, text, &why))?;
            }
        }
        Ok(settings)
    }

    /// The configuration file, if there is one.
    pub fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// As a configuration file that says the same: what was said, and all other keys as comments.
    pub fn as_file(&self) -> String {
        let mut out = String::from(
            "# The configuration of hauld, for --config. Times are seconds, or \"90s\", \"5m\", \
             \"1h\";\n# sizes are bytes, or \"10MiB\". Options on the command line win.\n",
        );
        for row in ROWS {
            let said = self.said.iter().find(|said| said.row.name == row.name);
            out += &format!("\n# {}\n", row.help);
            out += &match (said, row.default) {
                (Some(said), _) => format!("{} = {}\n", row.name, literal(row, &said.lasting())),
                (None, Some(default)) => {
                    format!("#{} = {}\n", row.name, literal(row, &[default.to_string()]))
                }
                (None, None) => format!("#{} = \"{}\"\n", row.name, row.value),
            };
        }
        out
    }

    /// The options as words of a command line that says the same wherever it is run, but for those
    /// in `except` and for the directory.
    pub fn as_words(&self, except: &[&str]) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(path) = &self.config {
            words.extend([format!("--{CONFIG}"), absolute(&path.to_string_lossy())]);
        }
        for said in &self.said {
            let here = matches!(said.origin, Origin::CommandLine) && said.row.place == Place::Both;
            if here && !except.contains(&said.row.name) {
                let option = format!("--{}", said.row.name);
                words.extend(
                    said.lasting()
                        .into_iter()
                        .flat_map(|text| [option.clone(), text]),
                );
            }
        }
        words
    }
}

impl Said {
    /// The texts as they mean the same in another directory.
    fn lasting(&self) -> Vec<String> {
        let texts = self.texts.iter();
        match self.row.kind {
            Kind::Path => texts.map(|text| absolute(text)).collect(),
            _ => texts.cloned().collect(),
        }
    }
}

fn refusal(row: &Row, origin: &Origin, text: &str, why: &str) -> String {
    let text = haul::logging::escaped(text);
    match origin {
        Origin::CommandLine if row.place == Place::Word => {
            format!("invalid value '{text}' for '[{}]': {why}", row.value)
        }
        Origin::CommandLine => format!(
            "invalid value '{text}' for '--{} <{}>': {why}",
            row.name, row.value
        ),
        Origin::File(path, line) => {
            format!("{}: line {line}: {}: {why}", path.display(), row.name)
        }
    }
}

fn literal(row: &Row, texts: &[String]) -> String {
    let quoted = |text: &String| toml_edit::Value::from(text.as_str()).to_string();
    match (row.kind, texts) {
        (Kind::List, texts) => {
            let quoted: Vec<String> = texts.iter().map(quoted).collect();
            format!("[{}]", quoted.join(", "))
        }
        (Kind::Text | Kind::Path, [text, ..]) => quoted(text),
        (_, [text, ..]) => match text.parse::<u64>() {
            Ok(number) => number.to_string(),
            Err(_) => quoted(text),
        },
        (_, []) => String::new(),
    }
}

fn read(path: &Path) -> Result<String, String> {
    let cannot =
        |error: std::io::Error| format!("the configuration cannot be read: {}", plain(&error));
    let file = File::open(path).map_err(cannot)?;
    if !file.metadata().map_err(cannot)?.is_file() {
        return Err("this is no file".to_string());
    }
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(cannot)?;
    match text.len() as u64 > FILE_BYTES_MAX {
        true => Err("it is over 1 MiB".to_string()),
        false => Ok(text),
    }
}

/// Every mistake with its line, the first one first.
fn in_text(text: &str, path: &Path) -> Result<Vec<Said>, String> {
    let line = |at: usize| 1 + text[..at.min(text.len())].matches('\n').count();
    let keys: BTreeMap<Spanned<String>, Spanned<Value>> =
        toml::from_str(text).map_err(|error| {
            let message = error.message().replace(char::is_control, " ");
            match error.span() {
                Some(span) => format!("line {}: {message}", line(span.start)),
                None => message,
            }
        })?;
    let mut keys: Vec<_> = keys.into_iter().collect();
    keys.sort_by_key(|(key, _)| key.span().start);
    let path: Arc<Path> = path.into();
    let said = |(key, value): (Spanned<String>, Spanned<Value>)| {
        let line = line(key.span().start);
        let name = key.into_inner();
        let row = row(&name).ok_or_else(|| format!("line {line}: {}", unknown(&name)))?;
        let texts = texts(row.kind, value.into_inner());
        let mut texts = texts.map_err(|why| format!("line {line}: {name}: {why}"))?;
        if row.kind == Kind::Path {
            texts
                .iter_mut()
                .for_each(|text| *text = beside(&path, text));
        }
        let origin = Origin::File(path.clone(), line);
        Ok(Said { row, origin, texts })
    };
    keys.into_iter().map(said).collect()
}

/// A file named in a file is looked for beside it, wherever hauld is started.
fn beside(file: &Path, text: &str) -> String {
    let dir = file.parent().unwrap_or(Path::new(""));
    match text {
        "" => String::new(),
        text => dir.join(text).to_string_lossy().into_owned(),
    }
}

/// The same file, wherever one is.
fn absolute(text: &str) -> String {
    let path = std::path::absolute(text);
    path.map_or(text.to_string(), |path| path.to_string_lossy().into_owned())
}

fn unknown(name: &str) -> String {
    let name = haul::logging::escaped(name);
    let hyphened = name.replace('_', "-");
    match row(&hyphened) {
        Some(_) => format!("there is no key {name}; did you mean {hyphened}?"),
        None => format!("there is no key {name}; `hauld --print-config` shows all"),
    }
}

/// The texts that the command line would have.
fn texts(kind: Kind, value: Value) -> Result<Vec<String>, &'static str> {
    let expected = match kind {
        Kind::Text | Kind::Path => "write text in quotes",
        Kind::List => "write text in quotes, or a list of texts as [\"a\", \"b\"]",
        Kind::Count => "write a number, without quotes",
        Kind::Time => "write seconds, or text as \"90s\", \"5m\", \"1h\"",
        Kind::Size => "write bytes, or text as \"10MiB\"",
    };
    match (kind, value) {
        (Kind::Count, Value::String(_)) => Err(expected),
        (_, Value::String(text)) => Ok(vec![text]),
        (Kind::Count | Kind::Time | Kind::Size, Value::Integer(n)) => Ok(vec![n.to_string()]),
        (Kind::List, Value::Array(values)) if !values.is_empty() => {
            let text = |value| match value {
                Value::String(text) => Ok(text),
                _ => Err(expected),
            };
            values.into_iter().map(text).collect()
        }
        _ => Err(expected),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(words: &[&str]) -> Result<Given, String> {
        let command = with_options(Command::new("hauld")).no_binary_name(true);
        Given::collect(&command.try_get_matches_from(words).unwrap())
    }

    fn config_file(text: &str) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hauld.toml");
        std::fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap().to_string();
        (dir, path)
    }

    fn outcome(words: &[&str]) -> Result<String, String> {
        let settings = given(words)?.settings()?;
        Ok(format!("{settings:#?}"))
    }

    fn in_file(text: &str) -> Result<String, String> {
        let (_dir, path) = config_file(text);
        outcome(&["--config", &path])
    }

    #[test]
    fn the_file_says_what_the_command_line_says() {
        let words = [
            "--listen",
            "127.0.0.1:1",
            "--listen",
            "[::1]:2",
            "--users",
            "/etc/u.toml",
            "--max-sessions",
            "12",
            "--idle-timeout",
            "90",
            "--login-timeout",
            "2m",
            "--active",
            "off",
            "/somewhere",
        ];
        let text = "listen = [\"127.0.0.1:1\", \"[::1]:2\"]\nusers = \"/etc/u.toml\"\n\
                    max-sessions = 12\nidle-timeout = 90\nlogin-timeout = \"2m\"\nactive = \"off\"\n\
                    dir = \"/somewhere\"\n";
        let here = outcome(&words).unwrap();
        assert_eq!(in_file(text).unwrap(), here);
        // And so does what is printed.
        let printed = given(&words).unwrap().as_file();
        assert_eq!(in_file(&printed).unwrap(), here, "{printed}");
        let (_dir, path) = config_file(text);
        let printed = given(&["--config", &path]).unwrap().as_file();
        assert_eq!(in_file(&printed).unwrap(), here, "{printed}");
    }

    #[test]
    fn the_command_line_wins_and_does_not_add() {
        let (_dir, path) = config_file("listen = \"127.0.0.1:1\"\nmax-sessions = 12\n");
        let words = ["--listen", "127.0.0.1:2", "--config", &path];
        let expected = outcome(&["--listen", "127.0.0.1:2", "--max-sessions", "12"]);
        assert_eq!(outcome(&words), expected);
    }

    #[test]
    fn a_file_named_in_the_file_is_beside_it() {
        let (dir, path) = config_file("users = \"u.toml\"\ntls-key = \"/k.pem\"\n");
        let beside = dir.path().join("u.toml");
        let words = ["--users", beside.to_str().unwrap(), "--tls-key", "/k.pem"];
        assert_eq!(outcome(&["--config", &path]), outcome(&words));
    }

    #[test]
    fn all_keys_are_printed_and_uncommented_they_hold() {
        let printed = given(&[]).unwrap().as_file();
        let mut live = String::new();
        for row in ROWS {
            let line = format!("#{} = ", row.name);
            let line = printed.lines().find(|it| it.starts_with(&line));
            let line = line.unwrap_or_else(|| panic!("where is {}?", row.name));
            // A file named in the file is beside it.
            if row.default.is_some() && row.kind != Kind::Path {
                live += &format!("{}\n", &line[1..]);
            }
        }
        assert_eq!(in_file(&live).unwrap(), outcome(&[]).unwrap(), "{live}");
    }

    #[test]
    fn what_is_wrong_in_the_file_is_told_with_its_line() {
        for (text, line, says) in [
            ("\n\nno-such = 1\n", 3, "no key no-such"),
            ("max_sessions = 1\n", 1, "did you mean max-sessions?"),
            ("# a\nmax-sessions = \"12\"\n", 2, "without quotes"),
            ("max-sessions = 0\n", 1, "at least 1"),
            ("max-sessions = 1.5\n", 1, "write a number"),
            ("dir = 1\n", 1, "text in quotes"),
            ("listen = [1]\n", 1, "a list of texts"),
            ("listen = []\n", 1, "a list of texts"),
            ("listen = [\n\"127.0.0.1:1\",\n\"x\"]\n", 1, "an address is"),
            ("idle-timeout = \"1x\"\n", 1, "a time is"),
            ("idle-timeout = -1\n", 1, "a time is"),
            ("stall-bytes = \"1x\"\n", 1, "is no size"),
            ("active = true\n", 1, "text in quotes"),
            ("[limits]\nmax-sessions = 1\n", 1, "no key limits"),
            ("max-sessions = 1\nmax-sessions = 1\n", 2, "duplicate"),
            ("users = \"a\n", 1, "invalid"),
            ("a\u{1b} = 1\n", 1, ""),
        ] {
            let said = in_file(text).unwrap_err();
            assert!(said.contains(&format!("line {line}:")), "{text}: {said}");
            assert!(said.contains(says), "{text}: {said}");
            assert!(!said.contains('\u{1b}'), "{said:?}");
        }
        let said = outcome(&["--config", "/nowhere/hauld.toml"]).unwrap_err();
        assert!(said.contains("/nowhere/hauld.toml"), "{said}");
        assert!(outcome(&["--config", "/"]).unwrap_err().contains("no file"));
    }
}
