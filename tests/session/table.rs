//! The table of verbs, its columns held against what sessions do and what PROTOCOL and README say.

use std::collections::BTreeSet;
use std::path::Path;

use haul::session::verbs::{Argument, FEATURES_OF_NO_VERB, Feature, VERBS, Verb};

use crate::shell::{Client, client};

/// What is answered without a login.
const ANYTIME: [&str; 16] = [
    "ABOR", "AUTH", "CCC", "CLNT", "CSID", "FEAT", "HELP", "NOOP", "OPTS", "PASS", "PBSZ", "PROT",
    "QUIT", "REIN", "SYST", "USER",
];

/// Arguments with which a verb does something; other verbs take a path, which is `f` here.
const ARGUMENTS: [(&str, &str); 24] = [
    ("ALLO", "5"),
    ("AUTH", "TLS"),
    ("CWD", "d"),
    ("EPRT", "|1|127.0.0.1|20000|"),
    ("HELP", "NOOP"),
    ("LIST", ""),
    ("MFMT", "20260131120000 f"),
    ("MKD", "new"),
    ("MLSD", ""),
    ("MODE", "S"),
    ("NLST", ""),
    ("OPTS", "UTF8 ON"),
    ("PBSZ", "0"),
    ("PORT", "127,0,0,1,80,0"),
    ("PROT", "P"),
    ("REST", "0"),
    ("SITE", "HELP"),
    ("STAT", ""),
    ("STRU", "F"),
    ("TREE", ""),
    ("TYPE", "I"),
    ("UPLOAD", "5 g"),
    ("XCWD", "d"),
    ("XMKD", "new"),
];

fn example(verb: &Verb) -> String {
    let known = ARGUMENTS.iter().find(|(name, _)| *name == verb.name);
    match (known, verb.argument) {
        (Some((name, "")), _) => name.to_string(),
        (Some((name, argument)), _) => format!("{name} {argument}"),
        (None, Argument::None) => verb.name.to_string(),
        (None, _) => format!("{} f", verb.name),
    }
}

fn furnished() -> Client {
    let mut client = client();
    std::fs::write(client.dir.path().join("f"), b"12345").unwrap();
    std::fs::create_dir(client.dir.path().join("d")).unwrap();
    client.shell.replies.clear();
    client
}

fn logged_in() -> Client {
    let mut client = furnished();
    client.log_in();
    client
}

/// The reply to an example of the verb: its first code, after login.
fn answer(verb: &Verb) -> u16 {
    logged_in().command(&example(verb))[0]
}

fn built() -> impl Iterator<Item = &'static Verb> {
    VERBS.iter().filter(|verb| answer(verb) != 502)
}

fn text_of(client: &Client, from: usize) -> String {
    String::from_utf8_lossy(&client.shell.sent[from..]).into_owned()
}

/// The lines of a reply of several, without the first and the last.
fn lines_of(command: &str) -> Vec<String> {
    let mut client = logged_in();
    let from = client.shell.sent.len();
    client.command(command);
    let text = text_of(&client, from);
    let middle = text.lines().filter_map(|line| line.strip_prefix(' '));
    middle.map(str::to_string).collect()
}

#[test]
fn verbs_that_need_a_login_say_530_without_one() {
    for verb in built() {
        let codes = furnished().command(&example(verb));
        let says_530 = codes == [530];
        let needs_login = !ANYTIME.contains(&verb.name) && verb.name != "STAT";
        if verb.name == "PASS" {
            assert_eq!(codes, [503]);
        } else {
            assert_eq!(says_530, needs_login, "{}: {codes:?}", example(verb));
        }
    }
}

#[test]
fn a_login_is_asked_for_before_an_argument_and_a_nul_is_seen_before_a_login() {
    for verb in built().filter(|verb| !ANYTIME.contains(&verb.name)) {
        if verb.argument == Argument::Required && verb.name != "UPLOAD" {
            assert_eq!(furnished().command(verb.name), [530], "{}", verb.name);
        }
        if verb.name != "UPLOAD" {
            let with_nul = format!("{} a\0b", verb.name);
            assert_eq!(furnished().command(&with_nul), [501], "{}", verb.name);
        }
    }
}

#[test]
fn verbs_that_need_an_argument_say_501_without_one() {
    for verb in VERBS
        .iter()
        .filter(|verb| verb.argument == Argument::Required)
    {
        for line in [verb.name.to_string(), format!("{} ", verb.name)] {
            let mut client = logged_in();
            assert_eq!(client.command(&line), [501], "{line:?}");
            assert_eq!(client.command("NOOP"), [200], "{line:?}");
        }
    }
}

#[test]
fn verbs_without_an_argument_ignore_one() {
    for verb in built().filter(|verb| verb.argument == Argument::None) {
        let plain = logged_in().command(verb.name);
        let with_argument = logged_in().command(&format!("{} x", verb.name));
        assert_eq!(plain, with_argument, "{}", verb.name);
    }
}

#[test]
fn every_verb_answers_in_any_case() {
    for verb in VERBS {
        let example = example(verb);
        let upper = logged_in().command(&example);
        let (name, rest) = example.split_at(verb.name.len());
        let lower = logged_in().command(&format!("{}{rest}", name.to_lowercase()));
        assert_eq!(upper, lower, "{}", verb.name);
        assert!(!upper.is_empty() || verb.name == "UPLOAD", "{}", verb.name);
    }
}

#[test]
fn feat_lists_what_works_and_only_that() {
    let listed = lines_of("FEAT");
    let mut sorted = listed.clone();
    sorted.sort();
    assert_eq!(listed, sorted);
    let mut names: BTreeSet<&str> = listed
        .iter()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(names.len(), listed.len(), "{listed:?}");
    for name in FEATURES_OF_NO_VERB {
        assert!(names.remove(name), "{name}");
    }
    for verb in VERBS {
        let code = answer(verb);
        let works = code != 500 && code != 502;
        assert_eq!(
            names.remove(verb.name),
            !matches!(verb.feature, Feature::None | Feature::Tls(_)) && works
        );
        assert!(
            works || verb.feature == Feature::None,
            "{}: {code}",
            verb.name
        );
    }
    assert!(names.is_empty(), "no verbs: {names:?}");
}

#[test]
fn help_names_every_verb_that_works() {
    let named = lines_of("HELP").join(" ");
    let names: Vec<&str> = built().map(|verb| verb.name).collect();
    assert_eq!(named, names.join(" "));
    for verb in VERBS {
        let mut client = logged_in();
        let from = client.shell.sent.len();
        client.command(&format!("HELP {}", verb.name));
        assert_eq!(text_of(&client, from), format!("214 {}\r\n", verb.help));
    }
}

/// RFC 3659 leaves open what keeps REST; clients send these between it and the transfer.
#[test]
fn what_keeps_rest_and_what_is_answered_during_a_transfer() {
    let names = |column: fn(&Verb) -> bool| -> Vec<&str> {
        let verbs = VERBS.iter().filter(|verb| column(verb));
        verbs.map(|verb| verb.name).collect()
    };
    assert_eq!(
        names(|verb| verb.keeps_prefix),
        [
            "ALLO", "EPRT", "EPSV", "MODE", "NOOP", "P@SW", "PASV", "PORT", "REST", "STRU", "TYPE"
        ]
    );
    assert_eq!(names(|verb| verb.while_busy), ["ABOR", "NOOP", "STAT"]);
}

/// The table in the README is the table of verbs: names and how they are written, but for those
/// that are not built.
#[test]
fn the_readme_lists_the_verbs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let Ok(readme) = std::fs::read_to_string(path) else {
        return;
    };
    let (begin, end) = ("<!-- verbs -->", "<!-- /verbs -->");
    let between = readme
        .split_once(begin)
        .and_then(|(_, rest)| rest.split_once(end));
    let Some((between, _)) = between else {
        panic!("README.md needs the lines {begin} and {end} around its table of verbs");
    };
    let rows: Vec<&str> = between
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    // In a table of Markdown a bar has to be escaped, in code too.
    let escaped = |text: &str| text.replace('|', "\\|");
    let expected: Vec<String> = built()
        .map(|verb| format!("| `{}` | `{}` |", verb.name, escaped(verb.help)))
        .collect();
    assert!(
        rows == expected,
        "the table in README.md is to be:\n{}",
        expected.join("\n")
    );
}
