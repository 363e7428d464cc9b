//! lftp: whole trees there and back, with MLSD and with LIST, and its ways to continue.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::common::content::{ODD_NAMES, assert_file, assert_same, bytes};
use crate::common::server::{Server, four_questions};
use crate::common::tools::{Done, run};

/// With this setting, names need not be UTF-8.
const NAMES_ARE_BYTES: &str = "set ftp:use-utf8 no; set ftp:use-feat no";

/// Runs lftp commands in `local`, one after the other; the first that fails ends it.
fn lftp(server: &Server, local: &Path, commands: &[&str]) -> Done {
    let home = tempfile::tempdir().unwrap();
    let settings = [
        "set cmd:fail-exit yes",
        "set net:max-retries 2",
        "set net:timeout 10",
        "set net:reconnect-interval-base 1",
        "set ftp:ssl-allow no",
        "set xfer:clobber yes",
        "set cmd:move-background no",
        "set mirror:parallel-transfer-count 2",
    ];
    let script = [&settings[..], commands].concat().join("\n");
    let mut command = Command::new("lftp");
    command
        .env("LC_ALL", "C.UTF-8")
        .env("HOME", home.path())
        .env("LFTP_HOME", home.path());
    command
        .env_remove("ftp_proxy")
        .env_remove("FTP_PROXY")
        .env("TZ", "UTC");
    let connect = format!("open ftp://{}/", server.addr());
    run(command
        .current_dir(local)
        .args(["--norc", "-c"])
        .arg(format!("{connect}\n{script}")))
}

/// A path relative to the root of a tree: the content of a file, `None` for a directory.
type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;

fn read_tree(root: &Path) -> Tree {
    let (mut tree, mut todo) = (Tree::new(), vec![root.to_owned()]);
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let relative = entry.path().strip_prefix(root).unwrap().to_owned();
            let content = if entry.file_type().unwrap().is_dir() {
                todo.push(entry.path());
                None
            } else {
                Some(fs::read(entry.path()).unwrap())
            };
            tree.insert(relative, content);
        }
    }
    tree
}

#[track_caller]
fn assert_same_tree(got: &Tree, expected: &Tree) {
    let only_in = |one: &Tree, other: &Tree| {
        one.keys()
            .filter(|path| !other.contains_key(*path))
            .cloned()
            .collect::<Vec<_>>()
    };
    let (missing, added) = (only_in(expected, got), only_in(got, expected));
    assert!(
        missing.is_empty() && added.is_empty(),
        "missing: {missing:?}, added: {added:?}"
    );
    for (path, content) in expected {
        let (got, content) = (got[path].as_deref(), content.as_deref());
        assert_eq!(
            got.is_some(),
            content.is_some(),
            "a file stays a file: {}",
            path.display()
        );
        let (got, content) = (got.unwrap_or_default(), content.unwrap_or_default());
        assert_same(got, content, &path.display().to_string());
    }
}

/// 2021-03-04 05:06:07 UTC: long enough ago for LIST to show no time of day.
fn long_ago() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_614_834_367)
}

fn make_tree(root: &Path, settings: &[&str]) -> Tree {
    let names = ODD_NAMES
        .iter()
        .filter(|name| name.trim() == **name)
        .map(|name| name.as_bytes());
    let not_utf8 = settings
        .contains(&NAMES_ARE_BYTES)
        .then_some(b"caf\xe9".as_slice());
    for (i, name) in names.chain(not_utf8).enumerate() {
        let name = OsStr::from_bytes(name);
        let directory = root.join("odd names").join(name);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(name), bytes(i as u64, i * 1000)).unwrap();
    }
    fs::create_dir_all(root.join("empty/within")).unwrap();
    fs::create_dir_all(root.join("many")).unwrap();
    for i in 0..100 {
        let path = root.join("many").join(format!("file {i}"));
        fs::write(&path, bytes(i, 100)).unwrap();
        fs::File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(long_ago())
            .unwrap();
    }
    fs::write(root.join("big"), bytes(99, 3 << 20)).unwrap();
    read_tree(root)
}

fn mirrors_both_ways(settings: &[&str]) {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let local = tempfile::tempdir().unwrap();
    let tree = make_tree(&local.path().join("tree"), settings);

    lftp(
        &server,
        local.path(),
        &[settings, &["mirror -R tree there"]].concat(),
    )
    .ok();
    assert_same_tree(&read_tree(&server.path("there")), &tree);
    lftp(
        &server,
        local.path(),
        &[settings, &["mirror there back"]].concat(),
    )
    .ok();
    assert_same_tree(&read_tree(&local.path().join("back")), &tree);

    for copy in [
        server.path("there/many/file 7"),
        local.path().join("back/many/file 7"),
    ] {
        let time = fs::metadata(&copy).unwrap().modified().unwrap();
        let off = time
            .duration_since(long_ago())
            .unwrap_or_else(|e| e.duration());
        // LIST tells the day only, of a time this long ago.
        let day = Duration::from_secs(24 * 3600);
        let within = if settings.contains(&"set ftp:use-mlsd no") {
            day
        } else {
            Duration::ZERO
        };
        assert!(
            off <= within,
            "{}: the time is off by {off:?}",
            copy.display()
        );
    }

    // Nothing to do any more: names, sizes and times are what they were.
    let again = [settings, &["mirror -R --verbose=1 tree there"]].concat();
    let again = lftp(&server, local.path(), &again).ok();
    assert!(
        !again.stdout_text().contains("Transferring"),
        "{}",
        again.stdout_text()
    );

    // And away with all of it, one by one: lftp walks the tree itself.
    lftp(
        &server,
        local.path(),
        &[settings, &["rm -r there"]].concat(),
    )
    .ok();
    assert!(!server.path("there").exists());
    four_questions(&server, baseline);
}

#[test]
fn mirrors_both_ways_with_mlsd() {
    mirrors_both_ways(&["set ftp:use-mlsd yes"]);
}

#[test]
fn mirrors_both_ways_with_list() {
    mirrors_both_ways(&["set ftp:use-mlsd no"]);
}

#[test]
fn mirrors_both_ways_with_names_that_are_not_utf8() {
    mirrors_both_ways(&["set ftp:use-mlsd yes", NAMES_ARE_BYTES]);
    mirrors_both_ways(&["set ftp:use-mlsd no", NAMES_ARE_BYTES]);
}

#[test]
fn mirrors_both_ways_in_active_mode() {
    mirrors_both_ways(&["set ftp:passive-mode no", "set ftp:use-mlsd yes"]);
}

#[test]
fn puts_gets_and_continues() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let local = tempfile::tempdir().unwrap();
    let content = bytes(1, 1_000_000);
    let here = |name: &str| local.path().join(name);
    fs::write(here("f"), &content).unwrap();

    lftp(&server, local.path(), &["put f -o g", "get g -o h"]).ok();
    assert_file(&server.path("g"), &content);
    assert_file(&here("h"), &content);

    fs::write(server.path("up"), &content[..400_000]).unwrap();
    fs::write(here("down"), &content[..600_000]).unwrap();
    lftp(
        &server,
        local.path(),
        &["put -c f -o up", "get -c g -o down"],
    )
    .ok();
    assert_file(&server.path("up"), &content);
    assert_file(&here("down"), &content);

    // Four parts at once, each by REST and an ABOR or a closed connection at its end.
    lftp(&server, local.path(), &["pget -n 4 g -o parts"]).ok();
    assert_file(&here("parts"), &content);
    four_questions(&server, baseline);
}

#[test]
fn lists_renames_and_removes() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let local = tempfile::tempdir().unwrap();
    for name in ["a1", "a2", "b1"] {
        fs::write(server.path(name), name).unwrap();
    }
    let listed = lftp(&server, local.path(), &["cls -1 a*", "nlist"])
        .ok()
        .stdout_text();
    let names: Vec<&str> = listed.lines().collect();
    assert_eq!(names[..2], ["a1", "a2"]);
    assert!(names[2..].contains(&"b1"), "{listed}");

    let changes = [
        "mkdir -p d/e/f",
        "mv a1 d/e/moved",
        "rm a2",
        "chmod 600 b1",
        "rmdir d/e/f",
        "mget -O . b*",
        "cat d/e/moved",
    ];
    let printed = lftp(&server, local.path(), &changes).ok().stdout_text();
    assert!(printed.contains("a1"), "{printed}");
    assert_file(&server.path("d/e/moved"), b"a1");
    assert_file(&local.path().join("b1"), b"b1");
    assert!(!server.path("a2").exists() && !server.path("d/e/f").exists());

    let refused = lftp(&server, local.path(), &["get nothing"]).expect(1);
    assert!(refused.stderr.contains("550"), "{}", refused.stderr);
    four_questions(&server, baseline);
}
