//! `hauld check`: what would go wrong, said before it does. It opens what a server would open, and
//! becomes who that would become; nothing is made and nobody is served.

mod files;
mod ports;

use std::fmt::Display;

use haul::config::{Config, TlsLevel, is_public};
use haul::server::{self, walls};

use crate::given::Given;
use crate::options::Settings;

/// What was found, printed line by line.
pub struct Findings {
    errors: usize,
    lines: Vec<String>,
}

impl Findings {
    fn say(&mut self, level: &str, about: impl Display, what: impl Display) {
        let line = haul::logging::escaped(&format!("{level:<8} {about}: {what}"));
        self.lines.push(line);
    }

    fn ok(&mut self, about: impl Display, what: impl Display) {
        self.say("ok", about, what);
    }

    fn warning(&mut self, about: impl Display, what: impl Display) {
        self.say("warning", about, what);
    }

    fn error(&mut self, about: impl Display, what: impl Display) {
        self.errors += 1;
        self.say("error", about, what);
    }

    /// The lines.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Whether a server would start and work.
    pub fn good(&self) -> bool {
        self.errors == 0
    }
}

/// Looks at everything.
pub fn run(given: Result<Given, String>) -> Findings {
    let mut found = Findings {
        errors: 0,
        lines: Vec::new(),
    };
    let given = given.and_then(|given| {
        let config = Settings::into_config(given.settings()?)?;
        Ok((given.config().map(Into::into), config))
    });
    match given {
        Err(why) => found.error("options", why),
        Ok((file, config)) => {
            found.ok("options", "they can be understood and agree");
            check(&config, file, &mut found);
        }
    }
    found
}

fn check(config: &Config, file: Option<std::path::PathBuf>, found: &mut Findings) {
    let all = || config.listen.iter().chain(&config.tls.implicit);
    let public = all().any(is_public);
    if let Err(why) = walls::root_rule(config) {
        found.error("identity", why);
    }
    ports::addresses(config, found);
    ports::passive(config, public, found);
    if public && config.tls.level != TlsLevel::Required && !config.tls.anonymous_exempt {
        found.warning("TLS", "passwords and files may cross the network in clear");
    }
    descriptors(config, found);
    files::certificate(config, public, found);
    let users = files::users(config, found);
    let served = files::root(config, found);
    // Root is given up after the ports are open, and so it is here: the rest is as that user.
    if let Some(user) = &config.run_as {
        match walls::become_user(user) {
            Ok(()) => found.ok("run-as", format_args!("this can become {}", user.name)),
            Err(why) => found.error("run-as", why),
        }
    }
    files::readable_again(config, file, found);
    files::transfer_log(config, found);
    if let Some(served) = served {
        served.try_out(found);
        served.homes(users.as_ref(), found);
    }
    match config.landlock.then(|| walls::confine(config)) {
        Some(Ok(())) => found.ok("landlock", "other files can be put out of reach"),
        Some(Err(why)) => found.warning("landlock", why),
        None => found.warning("landlock", "it is switched off"),
    }
}

fn descriptors(config: &Config, found: &mut Findings) {
    let sessions = config.limits.sessions_max as u64;
    // A session that transfers has a control connection, a data connection and a file.
    let (idle, busy) = (sessions + 256, sessions * 3 + 256);
    match server::raise_descriptor_limit(busy) {
        limit if limit >= busy => found.ok("open files", format_args!("{limit} are allowed")),
        limit if limit >= idle => found.warning(
            "open files",
            format_args!(
                "{limit} are allowed: enough for {sessions} sessions, but not when all transfer \
                 (ulimit -Hn, or LimitNOFILE={busy})"
            ),
        ),
        limit => found.error(
            "open files",
            format_args!(
                "{limit} are allowed, too few for {sessions} sessions: raise it to {busy} (ulimit \
                 -Hn, or LimitNOFILE={busy}), or lower --max-sessions"
            ),
        ),
    }
}
