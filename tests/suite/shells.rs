//! Completions and manual pages, as a shell and a reader of manuals get them.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use crate::common::tools::run;
use crate::common::users::Users;

const HAUL: &str = env!("CARGO_BIN_EXE_haul");
const HAULD: &str = env!("CARGO_BIN_EXE_hauld");

/// What bash offers behind `words`, the last of which has begun.
fn offered(program: &str, words: &[&str]) -> Vec<String> {
    let name = program.rsplit('/').next().unwrap();
    let script = r#"
        source <("$1" completions bash) || exit 1
        name=$2; shift 2
        COMP_WORDS=("$name" "$@"); COMP_CWORD=$#
        function=$(complete -p "$name" | sed 's/.*-F \([^ ]*\).*/\1/')
        "$function" "$name" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let done = run(Command::new("bash")
        .args(["-c", script, "bash", program, name])
        .args(words));
    assert_eq!((done.code, &done.stderr[..]), (0, ""), "{words:?}");
    let lines = done.stdout_text();
    lines.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_values() {
    assert_eq!(offered(HAUL, &["upl"]), ["upload"]);
    assert_eq!(offered(HAUL, &["sync", "--dry"]), ["--dry-run"]);
    assert_eq!(offered(HAUL, &["--tls", "req"]), ["required"]);
    assert_eq!(offered(HAULD, &["--durab"]), ["--durability"]);
    assert_eq!(offered(HAULD, &["user", "pass"]), ["passwd"]);
}

#[test]
fn zsh_and_fish_get_scripts_of_their_own() {
    for program in [HAUL, HAULD] {
        let script = |shell| run(Command::new(program).args(["completions", shell])).stdout_text();
        assert!(script("zsh").starts_with("#compdef haul"));
        assert!(script("fish").contains("complete -c haul"));
        let done = run(Command::new(program).args(["completions", "csh"]));
        assert_eq!(done.code, 2);
        assert!(done.stderr.contains("bash, zsh, fish"), "{}", done.stderr);
    }
}

/// `hauld unit > FILE` on a full disk used to leave a part of the unit, and to end with 0.
#[test]
fn what_cannot_be_written_is_an_error() {
    let users = Users::new(&[("anna", "secret", &[])]);
    let users = users.path();
    let users = users.to_str().unwrap();
    for words in [
        &["unit"][..],
        &["unit", "--socket"],
        &["--print-config"],
        &["user", "list", "--users", users],
        &["completions", "bash"],
        &["man"],
    ] {
        let to = |path: &str| {
            let script = format!("\"$@\" {path}");
            let mut command = Command::new("sh");
            command.args(["-c", &script, "sh", HAULD]).args(words);
            run(&mut command)
        };
        let done = to(">/dev/full");
        let said = "hauld: cannot write: No space left on device\n";
        assert_eq!((done.code, &done.stderr[..]), (2, said), "{words:?}");
        assert_eq!(to("| true").stderr, "", "{words:?}");
    }
}

/// What cannot be broken, as an address or a command to copy, may be longer.
#[test]
fn help_fits_the_terminal() {
    let help = |program: &str, words: &[&str]| {
        let mut command = Command::new(program);
        let done = run(command.args(words).arg("--help").env("COLUMNS", "80"));
        assert_eq!((done.code, &done.stderr[..]), (0, ""), "{words:?}");
        let text = done.stdout_text();
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{words:?}: {line}");
        }
        text
    };
    for command in [
        "upload", "download", "sync", "ls", "rm", "mv", "stat", "bench", "man",
    ] {
        help(HAUL, &[command]);
    }
    assert!(help(HAUL, &[]).contains("\n  tar c src | haul upload - src.tar\n"));
    for command in ["check", "unit", "user", "man"] {
        help(HAULD, &[command]);
    }
    assert!(help(HAULD, &["user", "set"]).contains("<NAME>  Who"));
    let whole = help(HAULD, &[]);
    let asked = run(Command::new(HAULD).arg("help").env("COLUMNS", "80"));
    assert_eq!(asked.ok().stdout_text(), whole);
}

#[test]
fn pages_show_values_and_examples() {
    let dir = TempDir::new().unwrap();
    for program in [HAUL, HAULD] {
        run(Command::new(program).arg("man").arg(dir.path())).ok();
    }
    let page = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let has = |name: &str, text: &str| {
        let page = page(name);
        assert!(page.contains(text), "{name} has no {text}:\n{page}");
    };
    has(
        "haul-upload.1",
        ".SH SYNOPSIS\nhaul upload [OPTIONS] <LOCAL>...\n.SH ",
    );
    has("haul-mv.1", "haul mv [OPTIONS] <FROM>... <TO>\n");
    has("hauld.1", "hauld [OPTIONS] [DIR]\n.br\nhauld <COMMAND>\n");
    has("haul.1", "\n.nf\n  haul upload a.txt ");
    has(
        "haul.1",
        "src.tar\n  haul download notes.txt \\- | less\n.fi\n",
    );
    assert!(!page("haul.1").contains("EXTRA"));
}

#[test]
fn each_command_has_its_page() {
    let dir = TempDir::new().unwrap();
    for (program, pages) in [
        (
            HAUL,
            ["haul.1", "haul-upload.1", "haul-sync.1", "haul-bench.1"],
        ),
        (
            HAULD,
            ["hauld.1", "hauld-check.1", "hauld-unit.1", "hauld-user.1"],
        ),
    ] {
        let done = run(Command::new(program).arg("man").arg(dir.path()));
        assert_eq!((done.code, &done.stderr[..]), (0, ""));
        for page in pages {
            let text = fs::read_to_string(dir.path().join(page)).unwrap();
            assert!(text.contains(".SH SYNOPSIS"), "{page}");
        }
        let first = run(Command::new(program).arg("man")).stdout_text();
        let page = fs::read_to_string(dir.path().join(pages[0])).unwrap();
        assert_eq!(first, page);
        let file = dir.path().join(pages[0]);
        let done = run(Command::new(program).arg("man").arg(&file));
        assert!(
            done.code != 0 && done.stderr.contains("cannot write"),
            "{}",
            done.stderr
        );
    }
}
