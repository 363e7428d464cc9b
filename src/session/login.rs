//! Coming and going: USER, PASS, REIN, QUIT, and what is answered without a login.

use std::mem;
use std::sync::Arc;
use std::time::Instant;

use super::files::path_of;
use super::security::{self, Security};
use super::verbs::{self, FEATURES_OF_NO_VERB, Feature, VERBS};
use super::{
    Action, Algorithm, Answer, Context, Handled, PasswordAnswer, Refusal, Session, Turn, Via, Wait,
    Who,
};
use crate::accounts::password::Password;
use crate::accounts::users::User;
use crate::accounts::{self, Permission, Permissions};
use crate::config::TlsLevel;
use crate::proto::facts::Facts;
use crate::proto::line::{Quoted, verb_and_argument};
use crate::proto::reply::{IntoText, Reply, Text};
use crate::storage::partials::Owner;
use crate::storage::path::VirtualPath;
use crate::storage::root::Root;

/// What exists only after login.
#[derive(Debug)]
pub(super) struct Login {
    /// `None`: nobody in particular.
    pub(super) user: Option<Arc<User>>,
    /// What the user sees as `/`.
    pub(super) home: Arc<Root>,
    pub(super) permissions: Permissions,
    /// Whose interrupted uploads may be continued here.
    pub(super) owner: Owner,
    pub(super) cwd: VirtualPath,
    pub(super) ascii: bool,
    pub(super) umask: u32,
    /// REST: where the next transfer begins.
    pub(super) restart: u64,
    /// RNFR, while RNTO may follow.
    pub(super) rename_from: Option<VirtualPath>,
    /// What PASV, EPSV, PORT or EPRT arranged for the next transfer.
    pub(super) data: Option<Via>,
    /// EPSV ALL: no other way of arranging it any more (RFC 2428 section 4).
    pub(super) epsv_all: bool,
    /// TLS is required of this user: no data in clear.
    pub(super) needs_protected_data: bool,
    /// SITE IDLE changes it; the session reads it back.
    pub(super) idle_timeout_s: Option<u64>,
    /// The address that data connections must have.
    pub(super) peer: std::net::SocketAddr,
}

impl Login {
    pub(super) fn check(&self, permission: Permission) -> Result<(), Reply> {
        if self.permissions.allow(permission) {
            return Ok(());
        }
        Err(Reply::new(550, "You have no permission for that."))
    }

    /// What a path argument means, if clients can reach it.
    pub(super) fn path(&self, argument: &[u8]) -> Result<VirtualPath, Reply> {
        path_of(&self.cwd, argument)
    }
}

pub(super) fn user(session: &mut Session, turn: &mut Turn) -> Handled {
    leave(session, turn);
    security::refuse_in_clear(turn, turn.argument)?;
    if let Who::Stranger { user, .. } = &mut session.who {
        *user = Some(turn.argument.to_vec());
    }
    Ok(Reply::new(331, "Send the password.").into())
}

/// Forgets who is logged in and all that belongs to it; a login that fails afterwards leaves nobody.
/// The time for a login begins only if there was one: a stranger gains nothing by saying USER again.
pub(super) fn leave(session: &mut Session, turn: &mut Turn) {
    match &mut session.who {
        Who::Stranger { user, .. } => *user = None,
        Who::Known(login) => {
            if login.data.is_some() {
                turn.out.push(Action::Unlisten);
            }
            session.who = Who::Stranger {
                user: None,
                unknown_verbs: 0,
                wrong_passwords: 0,
                since: turn.cx.now,
            };
        }
    }
}

pub(super) fn pass(session: &mut Session, turn: &mut Turn) -> Handled {
    let name = match &mut session.who {
        Who::Known(_) => return Err(Reply::new(503, "You are logged in already.")),
        Who::Stranger { user, .. } => mem::take(user),
    };
    security::refuse_in_clear(turn, name.as_deref().unwrap_or_default())?;
    let Some(name) = name else {
        return Err(Reply::new(503, "Send USER first."));
    };
    if accounts::is_anonymous(&name) {
        return match turn.cx.config.anonymous.permissions() {
            Some(permissions) => Ok(session
                .admit(&name, None, permissions, turn.cx.home.clone(), turn.cx)
                .into()),
            None => session.refuse(&name, turn.cx),
        };
    }
    let password = Password::new(turn.argument.to_vec());
    turn.out.push(Action::CheckPassword {
        name: name.clone(),
        password,
    });
    Ok(Answer::Later(Wait::Password { name }))
}

impl Session {
    fn admit(
        &mut self,
        name: &[u8],
        user: Option<Arc<User>>,
        permissions: Permissions,
        home: Arc<Root>,
        cx: &Context,
    ) -> Reply {
        log::info!("login: user {} from {}", Quoted(name), self.peer);
        self.who = Who::Known(Box::new(Login {
            user,
            home,
            permissions,
            owner: if accounts::is_anonymous(name) {
                Owner::stranger(self.peer.ip())
            } else {
                Owner::user(name)
            },
            cwd: VirtualPath::root(),
            ascii: false,
            umask: cx.config.umask,
            restart: 0,
            rename_from: None,
            data: None,
            epsv_all: false,
            needs_protected_data: security::is_required(cx, name),
            idle_timeout_s: None,
            peer: self.peer,
        }));
        Reply::new(230, "Logged in.")
    }

    /// The one refusal, whatever the reason. Its line in the log is what fail2ban reads. The answer
    /// comes the later, the more there were in this session: nobody else waits for it.
    fn refuse(&mut self, name: &[u8], cx: &Context) -> Handled {
        log::warn!(
            "login failed: user {} from {}",
            Quoted(name),
            self.peer.ip()
        );
        let limits = &cx.config.limits;
        let Who::Stranger {
            wrong_passwords, ..
        } = &mut self.who
        else {
            return Err(Reply::new(530, "Login incorrect."));
        };
        *wrong_passwords = wrong_passwords.saturating_add(1);
        let last = *wrong_passwords >= limits.wrong_passwords_max;
        let reply = match last {
            true => Reply::new(421, "Login incorrect, and too often."),
            false => Reply::new(530, "Login incorrect."),
        };
        let delay = limits.wrong_password_delay * u32::from(*wrong_passwords);
        match (delay.is_zero(), last) {
            (true, true) => Ok(Answer::Close(reply)),
            (true, false) => Err(reply),
            (false, last) => {
                let until = cx.now + delay;
                let refusal = Refusal { until, reply, last };
                Ok(Answer::Later(Wait::Refusal(Box::new(refusal))))
            }
        }
    }

    pub(super) fn refuses_at(&self, now: Instant) -> bool {
        matches!(&self.wait, Wait::Refusal(refusal) if refusal.until <= now)
    }

    /// The time has come to answer a wrong password.
    pub(super) fn refuse_now(&mut self, out: &mut Vec<Action>) {
        match mem::replace(&mut self.wait, Wait::Command) {
            Wait::Refusal(refusal) if refusal.last => self.hang_up(refusal.reply, out),
            Wait::Refusal(refusal) => self.say(refusal.reply, out),
            other => self.wait = other,
        }
    }

    pub(super) fn password_checked(
        &mut self,
        answer: PasswordAnswer,
        cx: &Context,
        out: &mut Vec<Action>,
    ) {
        let Wait::Password { name } = mem::replace(&mut self.wait, Wait::Command) else {
            debug_assert!(false, "nobody asked about a password");
            return;
        };
        let handled = match answer {
            PasswordAnswer::Right { user, home } => {
                let permissions = user.permissions;
                Ok(self.admit(&name, Some(user), permissions, home, cx).into())
            }
            PasswordAnswer::Wrong => self.refuse(&name, cx),
            PasswordAnswer::Busy => {
                let reply = Reply::new(421, "Too many are logging in; try again later.");
                Ok(Answer::Close(reply))
            }
        };
        self.answer(handled, out);
    }
}

pub(super) fn acct(_: &mut Login, _: &mut Turn) -> Handled {
    Ok(Reply::new(202, "No account is needed.").into())
}

pub(super) fn rein(session: &mut Session, turn: &mut Turn) -> Handled {
    leave(session, turn);
    if let Security::Protected { data, .. } = turn.security {
        *data = false;
    }
    *turn.preferences = super::Preferences {
        facts: Facts::default(),
        hash: Algorithm::Sha256,
    };
    Ok(Reply::new(220, "haul ready.").into())
}

pub(super) fn quit(_: &mut Session, _: &mut Turn) -> Handled {
    Ok(Answer::Close(Reply::new(221, "Goodbye.")))
}

pub(super) fn noop(_: &mut Session, _: &mut Turn) -> Handled {
    Ok(Reply::new(200, "Here.").into())
}

pub(super) fn syst(_: &mut Session, _: &mut Turn) -> Handled {
    Ok(Reply::new(215, "UNIX Type: L8").into())
}

pub(super) fn clnt(_: &mut Session, _: &mut Turn) -> Handled {
    Ok(Reply::new(200, "Noted.").into())
}

/// Which version this is, with all that is known to be wrong with it, is nothing for strangers.
pub(super) fn csid(session: &mut Session, _: &mut Turn) -> Handled {
    let text = match session.is_logged_in() {
        true => format!("Name=haul; Version={};", env!("CARGO_PKG_VERSION")),
        false => "Name=haul;".to_string(),
    };
    Ok(Reply::new(200, text).into())
}

/// RFC 2389 section 3.
pub(super) fn feat(_: &mut Session, turn: &mut Turn) -> Handled {
    let mut lines: Vec<String> = FEATURES_OF_NO_VERB
        .iter()
        .map(ToString::to_string)
        .collect();
    for verb in VERBS {
        lines.extend(match verb.feature {
            Feature::None => None,
            Feature::Name => Some(verb.name.to_string()),
            Feature::Line(line) => Some(line.to_string()),
            Feature::Tls(line) => {
                let is_on = turn.cx.config.tls.level != TlsLevel::Off;
                is_on.then(|| line.to_string())
            }
            Feature::With(more) => Some(format!("{} {more}", verb.name)),
            Feature::Facts => Some(format!("MLST {}", turn.preferences.facts.all_starred())),
            Feature::Digests => Some(format!("HASH {}", digests(turn.preferences.hash))),
        });
    }
    lines.sort_unstable();
    let lines = lines.into_iter().map(IntoText::into_text).collect();
    Ok(Reply::lines(211, "Features:", lines, "End").into())
}

/// `SHA-256*;SHA-512`, the star at the chosen one.
fn digests(chosen: Algorithm) -> String {
    let name = |algorithm: &Algorithm| {
        let star = if *algorithm == chosen { "*" } else { "" };
        format!("{}{star}", algorithm.name())
    };
    Algorithm::ALL
        .iter()
        .map(name)
        .collect::<Vec<_>>()
        .join(";")
}

pub(super) fn help(_: &mut Session, turn: &mut Turn) -> Handled {
    if !turn.argument.is_empty() {
        return match verbs::find(turn.argument) {
            Some(verb) => Ok(Reply::new(214, verb.help).into()),
            None => Err(Reply::new(502, "Unknown command.")),
        };
    }
    let built = VERBS
        .iter()
        .filter(|verb| !matches!(verb.run, verbs::Run::NotBuilt));
    let names: Vec<&str> = built.map(|verb| verb.name).collect();
    let lines: Vec<Text> = names
        .chunks(10)
        .map(|line| line.join(" ").into_text())
        .collect();
    Ok(Reply::lines(
        214,
        "These commands are known:",
        lines,
        "HELP verb says how it is written.",
    )
    .into())
}

/// RFC 2389 section 4.
pub(super) fn opts(_: &mut Session, turn: &mut Turn) -> Handled {
    let (name, value) = verb_and_argument(turn.argument);
    let value = value.unwrap_or_default();
    match name.to_ascii_uppercase().as_slice() {
        b"UTF8" | b"UTF-8" if value.is_empty() || value.eq_ignore_ascii_case(b"ON") => {
            Ok(Reply::new(200, "Names are UTF-8.").into())
        }
        b"MLST" => {
            turn.preferences.facts = Facts::parse(value);
            let chosen = turn.preferences.facts.chosen();
            let space = if chosen.is_empty() { "" } else { " " };
            Ok(Reply::new(200, format!("MLST OPTS{space}{chosen}")).into())
        }
        b"HASH" => {
            if !value.is_empty() {
                let named = |a: &&Algorithm| value.eq_ignore_ascii_case(a.name().as_bytes());
                let Some(algorithm) = Algorithm::ALL.iter().find(named) else {
                    return Err(Reply::new(
                        501,
                        "That digest is not known; FEAT lists them.",
                    ));
                };
                turn.preferences.hash = *algorithm;
            }
            Ok(Reply::new(200, turn.preferences.hash.name()).into())
        }
        _ => Err(Reply::new(
            501,
            "There are OPTS UTF8 ON, OPTS MLST facts and OPTS HASH name.",
        )),
    }
}
