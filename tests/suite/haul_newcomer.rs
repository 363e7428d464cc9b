//! What somebody tries who has not read everything: it works as `cp`, `mv` and `rm` do, or the one
//! sentence says what does.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::common::content::{MIB, assert_file, bytes};
use crate::common::site::{Site, against_each_server};
use crate::common::tools::{Done, finish, start};
use crate::common::{PATIENCE, wait_for};

const USAGE: i32 = 2;
const NO_SUCH_FILE: i32 = 6;
const LOCAL_FILE: i32 = 7;
const FULL: i32 = 10;

against_each_server!(
    several_are_moved_into_a_directory,
    files_without_a_directory_to_be_in_are_one_error,
    what_is_gone_already_is_removed_with_f,
);

fn haul(site: &Site, words: &[&str]) -> Done {
    let words: Vec<&dyn AsRef<OsStr>> = words.iter().map(|word| word as _).collect();
    site.haul(&words)
}

fn put(site: &Site, names: &[&str]) {
    for name in names {
        fs::write(site.local(name), name).unwrap();
        haul(site, &["upload", name, &format!("/pub/{name}")]).ok();
    }
}

fn several_are_moved_into_a_directory(site: &Site) {
    put(site, &["a.jpg", "b.jpg", "c.txt", "d"]);
    haul(site, &["mkdir", "/pub/old"]).ok();
    for to in ["/pub/none", "/pub/none/", "/pub/d"] {
        let done = haul(site, &["mv", "/pub/*.jpg", to]).expect(NO_SUCH_FILE);
        assert!(
            done.stderr.contains("make it with: haul mkdir /pub/"),
            "{done:?}"
        );
    }
    haul(site, &["mv", "/pub/*.jpg", "/pub/old"]).ok();
    haul(site, &["mv", "/pub/c.txt", "/pub/d", "/pub/old/"]).ok();
    for name in ["a.jpg", "b.jpg", "c.txt", "d"] {
        assert_eq!(
            fs::read_to_string(site.remote("old").join(name)).unwrap(),
            name
        );
        assert!(!site.remote(name).exists());
    }
    let done = haul(site, &["mv", "/pub/old/d", "/pub/none/d", "/pub"]).expect(1);
    assert!(done.stderr.contains("cannot move /pub/none/d"), "{done:?}");
    assert!(site.remote("d").exists());
    haul(site, &["mv", "/pub/d"]).expect(USAGE);
}

fn files_without_a_directory_to_be_in_are_one_error(site: &Site) {
    for name in ["a.jpg", "b.jpg"] {
        fs::write(site.local(name), name).unwrap();
    }
    for words in [
        &["upload", "a.jpg", "b.jpg", "/pub/photos/"][..],
        &["upload", "a.jpg", "b.jpg", "/pub/photos"],
        &["upload", "-t", "/pub/photos", "a.jpg", "b.jpg"],
    ] {
        let done = haul(site, words).expect(NO_SUCH_FILE);
        assert_eq!(done.stderr.lines().count(), 1, "{words:?}: {done:?}");
        let hint = "make it with: haul mkdir /pub/photos\n";
        assert!(done.stderr.ends_with(hint), "{words:?}: {done:?}");
    }
    haul(site, &["mkdir", "/pub/photos"]).ok();
    haul(site, &["upload", "a.jpg", "b.jpg", "/pub/photos/"]).ok();
    assert!(site.remote("photos/b.jpg").exists());
}

fn what_is_gone_already_is_removed_with_f(site: &Site) {
    put(site, &["a", "b"]);
    haul(site, &["rm", "/pub/none"]).expect(NO_SUCH_FILE);
    haul(site, &["rm", "-f", "/pub/none"]).ok();
    haul(site, &["rm", "-f", "/pub/a", "/pub/none", "/pub/*.none"]).ok();
    haul(site, &["rm", "-rf", "/pub/b", "/pub/none"]).ok();
    haul(site, &["mkdir", "/pub/dir"]).ok();
    assert_ne!(haul(site, &["rm", "-f", "/pub/dir"]).code, 0, "it is there");
    haul(site, &["rm", "-rf", "/pub/dir"]).ok();
    assert_eq!(fs::read_dir(&site.public).unwrap().count(), 0);
}

#[test]
fn one_file_without_a_directory_to_be_in_is_told_how_to_make_it() {
    Site::hauld(|site| {
        fs::write(site.local("a"), "a").unwrap();
        let done = haul(site, &["upload", "a", "/pub/photos/"]).expect(NO_SUCH_FILE);
        assert!(done.stderr.contains("haul mkdir /pub/photos\n"), "{done:?}");
    });
}

#[test]
fn a_directory_is_told_from_a_file() {
    Site::hauld(|site| {
        fs::create_dir(site.remote("src")).unwrap();
        fs::create_dir(site.local("src")).unwrap();
        let done = haul(site, &["rm", "/pub/src"]).expect(NO_SUCH_FILE);
        assert!(done.stderr.contains("-r removes it with all"), "{done:?}");
        let done = haul(site, &["download", "/pub/src"]).expect(LOCAL_FILE);
        assert!(done.stderr.contains("-r brings it"), "{done:?}");
        haul(site, &["download", "-r", "/pub/src"]).ok();
    });
}

#[test]
fn stat_says_what_its_help_promises() {
    Site::hauld(|site| {
        put(site, &["a"]);
        haul(site, &["stat", "/pub/a"]).ok();
        let said = haul(site, &["stat", "/pub/a"]).ok().stdout_text();
        assert!(
            said.starts_with("/pub/a: file, 1 bytes, modified "),
            "{said}"
        );
        assert!(said.contains(", mode 0"), "{said}");
    });
}

#[test]
fn a_full_disk_has_one_exit_code() {
    Site::hauld(|site| {
        for words in [&["ls", "/"][..], &["man"], &["completions", "bash"]] {
            let words: Vec<&dyn AsRef<OsStr>> = words.iter().map(|word| word as _).collect();
            let mut haul = site.command(&words);
            let full = fs::OpenOptions::new()
                .write(true)
                .open("/dev/full")
                .unwrap();
            let child = start(haul.stdout(Stdio::from(full)));
            let (status, said) = finish(child, &haul);
            assert_eq!(status.code(), Some(FULL), "{said}");
            assert!(
                said.ends_with(": no space left on this machine\n"),
                "{said}"
            );
        }
    });
}

#[test]
fn a_dry_run_has_the_words_of_the_real_one() {
    Site::hauld(|site| {
        fs::create_dir_all(site.local("tree/d")).unwrap();
        fs::write(site.local("tree/d/f"), "f").unwrap();
        fs::create_dir(site.remote("copy")).unwrap();
        fs::write(site.remote("copy/old"), "").unwrap();
        let told = |words: &[&str]| {
            let said = haul(site, &[&["sync", "--json", "--delete"], words].concat()).ok();
            let lines = said.stdout_text();
            let line = |line: &str| -> serde_json::Value { serde_json::from_str(line).unwrap() };
            let mut told: Vec<_> = lines.lines().map(line).collect();
            told.sort_by_key(|it| format!("{} {}", it["action"], it["name"]));
            told
        };
        for (from, to) in [("tree", ":/pub/copy"), (":/pub/copy", "back")] {
            let mut planned = told(&["--dry-run", from, to]);
            for it in &mut planned {
                assert_eq!(it["result"], "would");
                it["result"] = "done".into();
            }
            let done = told(&[from, to]);
            assert_eq!(planned, done);
            assert!(done.iter().any(|it| it["action"] == "mkdir"), "{done:?}");
        }
    });
}

/// Names beside a copy that belong to it.
fn parts(site: &Site) -> Vec<fs::DirEntry> {
    let entries = fs::read_dir(site.local.path()).unwrap().flatten();
    let is_part = |it: &fs::DirEntry| it.file_name().to_string_lossy().contains(".haul-part-");
    entries.filter(is_part).collect()
}

/// Ctrl-C in the middle of a download.
fn interrupted(site: &Site) -> String {
    let mut haul = site.command(&[&"download", &"--limit-rate", &"1MiB", &"/pub/f"]);
    let child = start(haul.stdin(Stdio::null()).stdout(Stdio::null()));
    let pid = Pid::from_child(&child);
    let begun = || {
        let is_begun = |it: &fs::DirEntry| it.metadata().is_ok_and(|meta| meta.len() > 0);
        parts(site).iter().any(is_begun).then_some(())
    };
    wait_for(PATIENCE, begun).expect("some of it comes");
    kill_process(pid, Signal::INT).unwrap();
    let (status, said) = finish(child, &haul);
    assert_eq!(status.signal(), Some(Signal::INT.as_raw()), "{said}");
    said
}

#[test]
fn what_ctrl_c_leaves_is_said_and_goes_when_the_file_is_there() {
    Site::hauld(|site| {
        let (old, new) = (bytes(1, 16 * MIB), bytes(2, 16 * MIB + 1));
        fs::write(site.remote("f"), &old).unwrap();
        let said = interrupted(site);
        let expected = "haul: interrupted; what came of f is kept, and the same command goes on";
        assert!(said.contains(expected), "{said}");
        assert_eq!(parts(site).len(), 1);
        // The same file goes on with it.
        haul(site, &["download", "/pub/f"]).ok();
        assert_file(&site.local("f"), &old);
        assert_eq!(parts(site).len(), 0);
        fs::remove_file(site.local("f")).unwrap();

        // Another does not, whether it is large or small.
        for new in [&new[..], b"small"] {
            fs::write(site.remote("f"), &old).unwrap();
            interrupted(site);
            fs::write(site.remote("f"), new).unwrap();
            haul(site, &["download", "/pub/f"]).ok();
            assert_file(&site.local("f"), new);
            assert_eq!(parts(site).len(), 0);
            fs::remove_file(site.local("f")).unwrap();
        }
    });
}
