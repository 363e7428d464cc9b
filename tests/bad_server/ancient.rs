//! Servers older than FEAT, with nothing but RFC 959: everything works with what they have.

mod server;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::client::*;
use server::{Ancient, Style};

/// Someone who has an account there, and what is read of it.
struct User {
    server: Ancient,
    home: tempfile::TempDir,
}

impl User {
    fn of(style: Style) -> User {
        let home = dir();
        let netrc = home.path().join(".netrc");
        let login = "machine 127.0.0.1 login anna password s3cret account b1ll\n";
        fs::write(&netrc, login).unwrap();
        fs::set_permissions(&netrc, fs::Permissions::from_mode(0o600)).unwrap();
        User {
            server: Ancient::start(style),
            home,
        }
    }

    fn haul(&self, arguments: &[&str]) -> Outcome {
        haul(self.server.addr, self.home.path(), arguments)
    }

    #[track_caller]
    fn says(&self, arguments: &[&str]) -> String {
        let outcome = self.haul(arguments);
        outcome.check(0, "");
        String::from_utf8(outcome.out).unwrap()
    }

    fn here(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join(name)
    }

    fn there(&self, name: &str) -> std::path::PathBuf {
        self.server.root.path().join(name)
    }
}

/// So many days ago.
fn put(path: &Path, content: &[u8], days: u64) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    let time = SystemTime::now() - Duration::from_secs(days * 86_400);
    let file = fs::File::options().append(true).open(path).unwrap();
    file.set_modified(time).unwrap();
}

fn make(root: &Path, style: Style) {
    for n in 0..12 {
        put(
            &root.join(format!("many/{n}")),
            &content(n * 1000),
            10 + n as u64,
        );
    }
    put(&root.join("large"), &content(3_000_000), 1000);
    // Behind <DIR> nobody can count spaces.
    let arrow = match style {
        Style::Unix => " -> c",
        Style::Dos => "b -> c",
    };
    put(&root.join(format!("a b/{arrow}/d e")), b"arrow", 400);
    put(&root.join("a b/.hidden"), b"dot", 3);
    put(&root.join("a b/-rf"), b"dash", 3);
    put(&root.join("a b/50% \"off\""), b"quotes", 3);
    put(&root.join("a b/caf\u{e9}"), b"letters", 3);
    fs::create_dir_all(root.join("empty/also empty")).unwrap();
}

/// What is below a directory: contents, directories without any.
fn seen(root: &Path) -> Vec<(String, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for name in names(&dir) {
            let path = dir.join(&name);
            let content = (!path.is_dir()).then(|| fs::read(&path).unwrap());
            if content.is_none() {
                pending.push(path.clone());
            }
            let relative = path.strip_prefix(root).unwrap();
            found.push((relative.to_str().unwrap().to_owned(), content));
        }
    }
    found.sort();
    found
}

#[track_caller]
fn assert_equal(a: &Path, b: &Path) {
    let (a, b) = (seen(a), seen(b));
    let paths = |tree: &[(String, _)]| tree.iter().map(|it| it.0.clone()).collect::<Vec<_>>();
    assert_eq!(paths(&a), paths(&b));
    for (one, other) in a.iter().zip(&b) {
        assert!(one == other, "{} has another content", one.0);
    }
}

fn names_and_single_files(style: Style) {
    let user = User::of(style);
    put(&user.here("note"), b"one", 5);
    user.says(&["upload", "note"]);
    user.says(&["mkdir", "d"]);
    user.says(&["upload", "note", "d/-l"]);
    assert_eq!(fs::read(user.there("d/-l")).unwrap(), b"one");
    assert_eq!(user.says(&["ls"]), "d/\nnote\n");
    assert_eq!(user.says(&["ls", "d"]), "-l\n");
    user.says(&["mv", "d/-l", "d/moved"]);
    user.says(&["download", "d/moved"]);
    assert_eq!(fs::read(user.here("moved")).unwrap(), b"one");
    assert!(
        user.says(&["stat", "d/moved"])
            .starts_with("d/moved: file, 3 bytes, modified")
    );
    user.says(&["rm", "d/moved"]);
    user.says(&["rm", "-d", "d"]);
    assert_eq!(names(user.server.root.path()), ["note"]);
    // Nothing of that name, and no name for what was there before.
    user.haul(&["download", "none"]).check(6, "none");
    assert!(!user.here("none").exists());
    user.haul(&["ls", "none"]).check(6, "none");
    put(&user.here("moved"), b"mine", 5);
    user.haul(&["download", "note", "moved"])
        .check(7, "a local file");
    assert_eq!(fs::read(user.here("moved")).unwrap(), b"mine");
}

fn trees(style: Style) {
    let user = User::of(style);
    make(&user.here("tree"), style);
    user.says(&["upload", "-r", "tree", "/up"]);
    assert_equal(&user.here("tree"), &user.there("up"));
    user.says(&["download", "-r", "/up", "back"]);
    assert_equal(&user.here("tree"), &user.here("back"));
}

fn syncs(style: Style) {
    let user = User::of(style);
    make(&user.here("tree"), style);
    let up = ["sync", "--delete", "tree", ":/copy"];
    let down = ["sync", "--delete", ":/copy", "back"];
    for direction in [up, down] {
        assert!(user.says(&direction).contains("large"));
        assert_eq!(user.says(&direction), "", "the second run moves nothing");
    }
    assert_equal(&user.here("tree"), &user.there("copy"));
    assert_equal(&user.here("tree"), &user.here("back"));
    put(&user.here("tree/many/3"), b"another length", 5);
    fs::remove_file(user.here("tree/many/4")).unwrap();
    fs::remove_dir_all(user.here("tree/empty")).unwrap();
    fs::rename(user.here("tree/large"), user.here("tree/larger")).unwrap();
    for direction in [up, down] {
        let said = user.says(&direction);
        let moved = said.lines().filter(|line| line.contains("loaded "));
        assert_eq!(moved.count(), 2, "{said}");
        assert_eq!(user.says(&direction), "");
    }
    assert_equal(&user.here("tree"), &user.there("copy"));
    assert_equal(&user.here("tree"), &user.here("back"));
}

#[test]
fn names_and_single_files_with_unix_listings() {
    names_and_single_files(Style::Unix);
}

#[test]
fn names_and_single_files_with_dos_listings() {
    names_and_single_files(Style::Dos);
}

#[test]
fn trees_with_unix_listings() {
    trees(Style::Unix);
}

#[test]
fn trees_with_dos_listings() {
    trees(Style::Dos);
}

#[test]
fn syncs_with_unix_listings() {
    syncs(Style::Unix);
}

#[test]
fn syncs_with_dos_listings() {
    syncs(Style::Dos);
}

#[test]
fn verbose_shows_the_dialogue_without_secrets() {
    let user = User::of(Style::Unix);
    put(&user.there("f"), b"x", 5);
    let outcome = user.haul(&["--verbose", "download", "f"]);
    outcome.check(0, "");
    for line in [
        "< 220 This is an old machine",
        "> USER anna",
        "> PASS ***",
        "> ACCT ***",
        "> PASV",
        "> RETR f",
    ] {
        let shown = outcome.err.lines().any(|it| it == line);
        assert!(shown, "{line:?} is not in {}", outcome.err);
    }
    let heard = user.server.heard();
    for secret in ["PASS s3cret", "ACCT b1ll"] {
        assert!(heard.iter().any(|line| line == secret), "{heard:?}");
        let word = &secret[5..];
        assert!(!outcome.err.contains(word), "{}", outcome.err);
    }
}

#[test]
fn an_account_that_is_not_known_is_asked_for_in_a_sentence() {
    let user = User::of(Style::Unix);
    fs::remove_file(user.here(".netrc")).unwrap();
    user.haul(&["ls"]).check(5, "account WORD");
}
