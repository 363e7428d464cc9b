//! The table of verbs: everything that can be said about one without running it.
//!
//! FEAT, HELP, the checks before a handler runs (501, 530, 550) and the table in the README derive
//! from it. A new verb is one row here, one function, one dialogue.

use super::login::{self, Login};
use super::{
    Handled, Session, Turn, ending, files, inline, listings, partials, security, site, transfers,
};
use crate::accounts::Permission;

/// One verb.
pub struct Verb {
    /// In capitals.
    pub name: &'static str,
    /// Whether it takes an argument.
    pub argument: Argument,
    /// Who may run it, and how.
    pub(super) run: Run,
    /// Answered while a data connection is in use; everything else waits.
    pub while_busy: bool,
    /// REST before it stays in force for the next transfer.
    pub keeps_prefix: bool,
    /// RNFR before it stays in force for the next command.
    pub keeps_rename: bool,
    /// It shows that somebody is there who wants something: NOOP alone does not keep a session.
    pub is_deed: bool,
    /// Its line in FEAT.
    pub feature: Feature,
    /// How it is written, for HELP.
    pub help: &'static str,
}

/// Whether a verb takes an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Argument {
    /// None; one that is there is ignored.
    None,
    /// It may.
    Optional,
    /// 501 without one.
    Required,
}

/// Who may run a verb, and how.
pub(super) enum Run {
    /// Also before login.
    Anytime(fn(&mut Session, &mut Turn) -> Handled),
    /// After login, with a permission.
    LoggedIn(Permission, fn(&mut Login, &mut Turn) -> Handled),
    /// It looks at its line before anything is checked, since a body follows.
    Unchecked(fn(&mut Session, &mut Turn) -> Handled),
    /// Known, not built: 502.
    NotBuilt,
}

/// What FEAT says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Nothing.
    None,
    /// The verb's name.
    Name,
    /// The verb's name and this.
    With(&'static str),
    /// The facts, with a star at each chosen one.
    Facts,
    /// The digests, with a star at the chosen one.
    Digests,
    /// Another line.
    Line(&'static str),
    /// Another line, where there is TLS.
    Tls(&'static str),
}

const fn row(name: &'static str, argument: Argument, run: Run, help: &'static str) -> Verb {
    Verb {
        name,
        argument,
        run,
        while_busy: false,
        keeps_prefix: false,
        keeps_rename: false,
        is_deed: true,
        feature: Feature::None,
        help,
    }
}

impl Verb {
    const fn busy(mut self) -> Verb {
        self.while_busy = true;
        self
    }

    const fn keeps(mut self) -> Verb {
        self.keeps_prefix = true;
        self
    }

    const fn feat(mut self, feature: Feature) -> Verb {
        self.feature = feature;
        self
    }
}

use Argument::{None as No, Optional, Required};
use Permission as P;
use Run::{Anytime, LoggedIn, NotBuilt, Unchecked};

/// All verbs, in alphabetical order.
#[rustfmt::skip]
pub static VERBS: &[Verb] = &[
    row("ABOR", No, Anytime(ending::abor), "ABOR").busy(),
    row("ACCT", Required, LoggedIn(P::None, login::acct), "ACCT account"),
    row("ALLO", Required, LoggedIn(P::None, transfers::allo), "ALLO bytes").keeps(),
    row("APPE", Required, LoggedIn(P::Append, transfers::appe), "APPE path"),
    row("AUTH", Required, Anytime(security::auth), "AUTH TLS").feat(Feature::Tls("AUTH TLS")),
    row("AVBL", Optional, LoggedIn(P::List, files::avbl), "AVBL [path]").feat(Feature::Name),
    row("CCC", No, Anytime(security::ccc), "CCC"),
    row("CDUP", No, LoggedIn(P::None, files::cdup), "CDUP"),
    row("CLNT", Optional, Anytime(login::clnt), "CLNT name").feat(Feature::Name),
    row("COMB", Optional, NotBuilt, "COMB"),
    row("CSID", Optional, Anytime(login::csid), "CSID Name=client;"),
    row("CWD", Required, LoggedIn(P::None, files::cwd), "CWD path"),
    row("DELE", Required, LoggedIn(P::Delete, files::dele), "DELE path"),
    row("DOWNLOAD", Required, LoggedIn(P::Read, inline::download), "DOWNLOAD path").feat(Feature::Name),
    row("EPRT", Optional, LoggedIn(P::None, transfers::eprt), "EPRT |1|address|port|").keeps().feat(Feature::Name),
    row("EPSV", Optional, LoggedIn(P::None, transfers::epsv), "EPSV [1|2|ALL]").keeps().feat(Feature::Name),
    row("FEAT", No, Anytime(login::feat), "FEAT"),
    row("HASH", Required, LoggedIn(P::Read, files::hash), "HASH path").feat(Feature::Digests),
    row("HELP", Optional, Anytime(login::help), "HELP [verb]"),
    row("LANG", Optional, NotBuilt, "LANG"),
    row("LIST", Optional, LoggedIn(P::List, listings::list), "LIST [path]"),
    row("MDTM", Required, LoggedIn(P::List, files::mdtm), "MDTM [YYYYMMDDHHMMSS] path").feat(Feature::Name),
    row("MFMT", Required, LoggedIn(P::Write, files::mfmt), "MFMT YYYYMMDDHHMMSS path").feat(Feature::Name),
    row("MKD", Required, LoggedIn(P::Mkdir, files::mkd), "MKD path"),
    row("MLSD", Optional, LoggedIn(P::List, listings::mlsd), "MLSD [path]"),
    row("MLST", Optional, LoggedIn(P::List, files::mlst), "MLST [path]").feat(Feature::Facts),
    row("MODE", Required, LoggedIn(P::None, transfers::mode), "MODE S").keeps(),
    row("NLST", Optional, LoggedIn(P::List, listings::nlst), "NLST [path]"),
    Verb { is_deed: false, ..row("NOOP", No, Anytime(login::noop), "NOOP").busy().keeps() },
    row("OPTS", Required, Anytime(login::opts), "OPTS UTF8|MLST|HASH [value]"),
    row("P@SW", No, LoggedIn(P::None, transfers::pasv), "P@SW").keeps(),
    row("PARTIAL", Required, LoggedIn(P::Write, partials::partial), "PARTIAL path").feat(Feature::Name),
    row("PASS", Optional, Anytime(login::pass), "PASS password"),
    row("PASV", No, LoggedIn(P::None, transfers::pasv), "PASV").keeps(),
    row("PBSZ", Required, Anytime(security::pbsz), "PBSZ 0").feat(Feature::Tls("PBSZ")),
    row("PORT", Optional, LoggedIn(P::None, transfers::port), "PORT h1,h2,h3,h4,p1,p2").keeps(),
    row("PROT", Required, Anytime(security::prot), "PROT C|P").feat(Feature::Tls("PROT")),
    row("PWD", No, LoggedIn(P::None, files::pwd), "PWD"),
    row("QUIT", No, Anytime(login::quit), "QUIT"),
    row("RANG", Optional, NotBuilt, "RANG"),
    row("REIN", No, Anytime(login::rein), "REIN"),
    row("REST", Required, LoggedIn(P::None, transfers::rest), "REST offset").keeps().feat(Feature::Line("REST STREAM")),
    row("RETR", Required, LoggedIn(P::Read, transfers::retr), "RETR path"),
    row("RMD", Required, LoggedIn(P::Delete, files::rmd), "RMD path"),
    Verb { keeps_rename: true, ..row("RNFR", Required, LoggedIn(P::Rename, files::rnfr), "RNFR path") },
    row("RNTO", Required, LoggedIn(P::Rename, files::rnto), "RNTO path"),
    row("SITE", Required, LoggedIn(P::None, site::site), "SITE HELP|CHMOD|UTIME|IDLE|UMASK|QUOTA"),
    row("SIZE", Required, LoggedIn(P::List, files::size), "SIZE path").feat(Feature::Name),
    row("SMNT", Optional, NotBuilt, "SMNT"),
    row("STAT", Optional, Anytime(listings::stat), "STAT [path]").busy(),
    row("STOR", Required, LoggedIn(P::Write, transfers::stor), "STOR path"),
    row("STOU", Optional, LoggedIn(P::Write, transfers::stou), "STOU"),
    row("STRU", Required, LoggedIn(P::None, transfers::stru), "STRU F").keeps(),
    row("SYST", No, Anytime(login::syst), "SYST"),
    row("TREE", Optional, LoggedIn(P::List, inline::tree), "TREE [path]").feat(Feature::Name),
    row("TYPE", Required, LoggedIn(P::None, transfers::r#type), "TYPE A|I").keeps(),
    row("UPLOAD", Required, Unchecked(inline::upload), "UPLOAD bytes[+][;facts] path").feat(Feature::With("modify;unix.mode;sha256;")),
    row("USER", Required, Anytime(login::user), "USER name"),
    row("XCRC", Required, LoggedIn(P::Read, files::xcrc), "XCRC path"),
    row("XCUP", No, LoggedIn(P::None, files::cdup), "XCUP"),
    row("XCWD", Required, LoggedIn(P::None, files::cwd), "XCWD path"),
    row("XMD5", Required, LoggedIn(P::Read, files::xmd5), "XMD5 path"),
    row("XMKD", Required, LoggedIn(P::Mkdir, files::mkd), "XMKD path"),
    row("XPWD", No, LoggedIn(P::None, files::pwd), "XPWD"),
    row("XRMD", Required, LoggedIn(P::Delete, files::rmd), "XRMD path"),
    row("XSHA256", Required, LoggedIn(P::Read, files::xsha256), "XSHA256 path"),
    row("XSHA512", Required, LoggedIn(P::Read, files::xsha512), "XSHA512 path"),
];

/// Lines of FEAT that belong to no verb: paths are as RFC 3659 section 6 has them, names are UTF-8
/// where their bytes are.
pub const FEATURES_OF_NO_VERB: [&str; 2] = ["TVFS", "UTF8"];

/// Finds a verb, written in any case.
pub fn find(name: &[u8]) -> Option<&'static Verb> {
    let mut upper = [0u8; NAME_BYTES_MAX];
    upper.get_mut(..name.len())?.copy_from_slice(name);
    upper.make_ascii_uppercase();
    let at = KEYS.binary_search(&u64::from_be_bytes(upper)).ok()?;
    // A NUL in the name is not what the key is filled up with.
    (VERBS[at].name.len() == name.len()).then(|| &VERBS[at])
}

const NAME_BYTES_MAX: usize = 8;

/// The names as numbers of the same order: every line is looked up, and a number is compared faster.
static KEYS: [u64; VERBS.len()] = {
    let (mut keys, mut at) = ([0; VERBS.len()], 0);
    while at < keys.len() {
        let (name, mut n) = (VERBS[at].name.as_bytes(), 0);
        let mut filled = [0; NAME_BYTES_MAX];
        while n < name.len() {
            filled[n] = name[n];
            n += 1;
        }
        keys[at] = u64::from_be_bytes(filled);
        at += 1;
    }
    keys
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_unique() {
        assert!(VERBS.windows(2).all(|pair| pair[0].name < pair[1].name));
    }

    #[test]
    fn verbs_are_found_in_any_case() {
        for verb in VERBS {
            assert_eq!(find(verb.name.as_bytes()).map(|v| v.name), Some(verb.name));
            let lower = verb.name.to_ascii_lowercase();
            assert_eq!(find(lower.as_bytes()).map(|v| v.name), Some(verb.name));
        }
        for unknown in [
            "",
            "XYZZY",
            "NOO",
            "NOOPS",
            "DOWNLOADS",
            "NO\u{d6}P",
            "NOOP\0",
        ] {
            assert!(find(unknown.as_bytes()).is_none(), "{unknown}");
        }
    }

    #[test]
    fn help_begins_with_the_name() {
        assert!(VERBS.iter().all(|verb| verb.help.starts_with(verb.name)));
    }
}
