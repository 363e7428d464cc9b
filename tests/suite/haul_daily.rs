//! `haul` in the hands of somebody who uses it every day: what goes wrong is one sentence about the
//! right thing, and what is wanted often is one command.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use crate::common::site::{Site, against_each_server};
use crate::common::tools::{Done, finish, run, run_with, start};
use crate::common::users::Users;

const SOME_FAILED: i32 = 1;
const USAGE: i32 = 2;
const NO_SUCH_FILE: i32 = 6;
const LOCAL_FILE: i32 = 7;

against_each_server!(
    a_tree_without_a_place_to_be_is_one_error,
    directories_go_with_all_that_is_in_them,
    parents_are_made_too,
);

fn script(site: &Site, lines: &str) -> Done {
    run_with(&mut site.command(&[]), lines.as_bytes())
}

fn tree(site: &Site) {
    fs::create_dir_all(site.local("tree/deep/er")).unwrap();
    for name in ["tree/a", "tree/b", "tree/deep/c", "tree/deep/er/.d"] {
        fs::write(site.local(name), name).unwrap();
    }
}

fn a_tree_without_a_place_to_be_is_one_error(site: &Site) {
    tree(site);
    for words in [
        ["upload", "-r", "tree", "/pub/none/copy"],
        ["sync", "--delete", "tree", ":/pub/none/copy"],
        ["upload", "-r", "tree", "/pub/none/copy/"],
    ] {
        let args: Vec<&dyn AsRef<OsStr>> = words.iter().map(|word| word as _).collect();
        let done = site.haul(&args).expect(SOME_FAILED);
        let said: Vec<&str> = done.stderr.lines().collect();
        assert_eq!(said.len(), 2, "{done:?}");
        assert!(
            said[0].contains("make the directory /pub/none/copy"),
            "{done:?}"
        );
        assert!(said[1].contains("4 files were not sent"), "{done:?}");
    }
    assert!(!site.remote("none").exists());
}

#[test]
fn programs_are_told_of_each_file_without_a_place() {
    Site::hauld(|site| {
        tree(site);
        let done = site.haul(&[&"upload", &"--json", &"-r", &"tree", &"/pub/none/copy"]);
        let said = done.expect(SOME_FAILED).stdout_text();
        let lines = said.lines().map(|line| serde_json::from_str(line).unwrap());
        let objects: Vec<serde_json::Value> = lines.collect();
        let of = |action| objects.iter().filter(move |it| it["action"] == action);
        assert_eq!(
            (of("mkdir").count(), of("upload").count()),
            (1, 4),
            "{said}"
        );
        assert!(objects.iter().all(|it| it["result"] == "failed"), "{said}");
    });
}

/// The directory cannot be seen, but files can be put into it.
#[test]
fn a_directory_that_nobody_may_list_takes_files_all_the_same() {
    let users = Users::new(&[("anna", "s3cret", &["--permissions", "write"])]);
    let server = users.server();
    fs::create_dir_all(server.path("pub/tree/deep/er")).unwrap();
    let site = Site::new(server.addr(), server.path("pub"), ());
    tree(&site);
    let args: &[&dyn AsRef<OsStr>] = &[&"upload", &"-r", &"tree", &"/pub/"];
    let mut haul = site.command(args);
    let url = format!("anna:s3cret@{}", site.addr);
    run(haul.args(["--server", &url])).expect(SOME_FAILED);
    for name in ["tree/a", "tree/deep/er/.d"] {
        assert_eq!(fs::read_to_string(site.remote(name)).unwrap(), name);
    }
}

fn directories_go_with_all_that_is_in_them(site: &Site) {
    tree(site);
    for name in ["one", "two"] {
        let to = format!("/pub/{name}");
        site.haul(&[&"upload", &"-r", &"tree", &to]).ok();
    }
    fs::write(site.remote("kept"), "kept").unwrap();
    symlink("../../kept", site.remote("one/deep/link")).unwrap();
    fs::create_dir_all(site.remote("kept too/deep")).unwrap();
    fs::write(site.remote("kept too/deep/f"), "kept").unwrap();
    symlink("../../kept too", site.remote("one/deep/to dir")).unwrap();
    let refused = site.haul(&[&"rm", &"/pub/two"]);
    assert_ne!(refused.code, 0, "without -r");
    site.haul(&[&"rm", &"-r", &"/pub/one", &"/pub/two/deep/"])
        .ok();
    assert!(!site.remote("one").exists() && !site.remote("two/deep").exists());
    assert!(site.remote("two/a").exists() && site.remote("kept").exists());
    assert!(site.remote("kept too/deep/f").exists());
    site.haul(&[&"rm", &"-r", &"/pub/two/a"]).ok();
    assert!(!site.remote("two/a").exists());
    site.haul(&[&"rm", &"-r", &"/pub/none"])
        .expect(NO_SUCH_FILE);
    for all in ["/", ".", "/pub/two/..", "//"] {
        let done = site.haul(&[&"rm", &"-r", &all]).expect(USAGE);
        assert!(done.stderr.contains("own name"), "{done:?}");
    }
    assert!(site.remote("two/b").exists());
}

/// What a link points to stays, also where the link is named itself.
#[test]
fn a_link_is_removed_and_not_followed() {
    Site::hauld(|site| {
        fs::create_dir(site.remote("kept")).unwrap();
        fs::write(site.remote("kept/f"), "kept").unwrap();
        for name in ["bare", "slash"] {
            symlink("kept", site.remote(name)).unwrap();
        }
        site.haul(&[&"rm", &"-r", &"/pub/bare", &"/pub/slash/"])
            .ok();
        assert!(site.remote("bare").symlink_metadata().is_err());
        assert!(site.remote("slash").symlink_metadata().is_err());
        assert!(site.remote("kept/f").exists());
    });
}

#[test]
fn what_cannot_be_removed_is_named() {
    let users = Users::new(&[("anna", "s3cret", &["--permissions", "list,read"])]);
    let server = users.server();
    fs::create_dir_all(server.path("pub/tree/deep")).unwrap();
    fs::write(server.path("pub/tree/deep/f"), "f").unwrap();
    let site = Site::new(server.addr(), server.path("pub"), ());
    let url = format!("ftp://anna:s3cret@{}/pub/tree", site.addr);
    let done = site.haul(&[&"rm", &"-r", &url]).expect(SOME_FAILED);
    let expected = "cannot remove /pub/tree: /pub/tree/deep/f: the server says: 550";
    assert!(done.stderr.contains(expected), "{done:?}");
    assert!(done.stderr.contains("3 names are left"), "{done:?}");
    assert!(!done.stderr.contains("s3cret"), "{done:?}");
}

fn parents_are_made_too(site: &Site) {
    site.haul(&[&"mkdir", &"-p", &"/pub/a/b/c"]).ok();
    site.haul(&[&"mkdir", &"-p", &"/pub/a/b/c/", &"/pub/a/d", &"/"])
        .ok();
    assert!(site.remote("a/b/c").is_dir() && site.remote("a/d").is_dir());
    fs::write(site.remote("file"), "").unwrap();
    let done = site.haul(&[&"mkdir", &"-p", &"/pub/file/b"]);
    assert_eq!(done.code, NO_SUCH_FILE, "{done:?}");
    assert!(done.stderr.contains("/pub/file: the server"), "{done:?}");
}

#[test]
fn whoever_stops_reading_is_told_nothing() {
    Site::hauld(|site| {
        fs::write(site.remote("large"), vec![0; 4 << 20]).unwrap();
        for n in 0..3000 {
            fs::write(site.remote(&format!("a name that is rather long {n}")), "").unwrap();
        }
        for words in [
            &["ls", "/pub"][..],
            &["tree", "/pub"],
            &["download", "/pub/large", "-"],
            &["stat", "/pub/large"],
        ] {
            let args: Vec<&dyn AsRef<OsStr>> = words.iter().map(|word| word as _).collect();
            let mut haul = site.command(&args);
            let mut child = start(haul.stdout(Stdio::piped()));
            drop(child.stdout.take());
            let (status, stderr) = finish(child, &haul);
            assert_eq!(
                (status.code(), &*stderr),
                (Some(LOCAL_FILE), ""),
                "{words:?}"
            );
        }
    });
}

#[test]
fn any_remote_name_can_be_a_url() {
    Site::hauld(|site| {
        let url = |path: &str| format!("ftp://{}{path}", site.addr);
        let haul = |args: &[&str]| {
            let args: Vec<&dyn AsRef<OsStr>> = args.iter().map(|arg| arg as _).collect();
            let mut haul = site.command(&args);
            // That there is another server must not matter.
            run(haul.args(["--server", "127.0.0.1:1"]))
        };
        fs::write(site.local("f"), "f").unwrap();
        haul(&["upload", "f", &url("/pub/a%20b")]).ok();
        haul(&["upload", "-t", &url("/pub"), "f"]).ok();
        assert_eq!(haul(&["ls", &url("/pub")]).ok().stdout, b"a b\nf\n");
        assert_eq!(haul(&["ls", &url("")]).ok().stdout, b"pub/\n");
        haul(&["download", &url("/pub/a%20b"), "copy"]).ok();
        assert_eq!(fs::read_to_string(site.local("copy")).unwrap(), "f");
        haul(&["mv", &url("/pub/f"), &url("/pub/g")]).ok();
        haul(&["rm", &url("/pub/g")]).ok();
        assert!(!site.remote("g").exists() && site.remote("a b").exists());
        for (other, says) in [("/pub/x", "none is"), ("ftp://other/x", "same server")] {
            let done = haul(&["mv", &url("/pub/a%20b"), other]).expect(USAGE);
            assert!(done.stderr.contains(says), "{done:?}");
        }
    });
}

/// The one that is connected is not the one that was named.
#[test]
fn the_prompt_takes_no_url_for_its_own_server() {
    Site::hauld(|site| {
        fs::create_dir(site.local("mine")).unwrap();
        fs::write(site.remote("f"), "theirs").unwrap();
        let lines =
            "sync --delete mine ftp://elsewhere.invalid/pub\nrm ftp://elsewhere.invalid/pub/f\n";
        let done = script(site, lines).expect(SOME_FAILED);
        assert_eq!(
            done.stderr.matches("no URL is taken").count(),
            2,
            "{done:?}"
        );
        assert!(site.remote("f").exists());
    });
}

#[test]
fn a_script_ends_where_its_directory_is_not_there() {
    Site::hauld(|site| {
        fs::write(site.local("f"), "mine").unwrap();
        fs::write(site.remote("f"), "theirs").unwrap();
        for lost in ["cd none", "lcd none"] {
            let lines = format!("ls none\ncd pub\n{lost}\nrm f\n");
            let done = script(site, &lines).expect(SOME_FAILED);
            assert!(done.stderr.contains("the script ends here"), "{done:?}");
        }
        assert!(site.remote("f").exists());
        script(site, "cd none\n").expect(NO_SUCH_FILE);
        script(site, "ls none\nrm pub/f\n").expect(NO_SUCH_FILE);
        assert!(!site.remote("f").exists(), "other errors do not end it");
    });
}

#[test]
fn the_prompt_says_what_is_missing() {
    Site::hauld(|site| {
        let done = script(site, "rm\nput --help\nget --help\nls -la pub\n").expect(USAGE);
        let expected = "not provided: <PATH>...; help shows the commands\n";
        assert!(done.stderr.ends_with(expected), "{done:?}");
        let said = done.stdout_text();
        for usage in ["Usage: upload", "Usage: download"] {
            assert!(said.contains(usage), "{said}");
        }
    });
}

#[test]
fn several_directories_are_listed() {
    Site::hauld(|site| {
        for name in ["a", "b"] {
            fs::create_dir(site.remote(name)).unwrap();
            fs::write(site.remote(name).join(".f"), "").unwrap();
        }
        let done = site.haul(&[&"ls", &"-a", &"pub/a", &"pub/none", &"pub/b"]);
        let done = done.expect(SOME_FAILED);
        assert_eq!(done.stdout, b"pub/a:\n.f\n\npub/b:\n.f\n");
        assert!(done.stderr.contains("cannot list pub/none"), "{done:?}");
    });
}

#[test]
fn a_target_that_is_not_there_is_named() {
    Site::hauld(|site| {
        fs::create_dir(site.remote("tree")).unwrap();
        let done = site.haul(&[&"download", &"-r", &"/pub/tree", &"none/copy"]);
        let done = done.expect(LOCAL_FILE);
        assert!(
            done.stderr.contains("cannot download into none:"),
            "{done:?}"
        );
    });
}

#[test]
fn a_login_without_tls_is_told_from_one_without_a_user() {
    let pair = crate::common::secure::Pair::new();
    let options = [pair.options(), vec!["--tls".into(), "required".into()]].concat();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let server = crate::common::server::Server::start(&options);
    let site = Site::new(server.addr(), server.path("pub"), ());
    let done = site.haul(&[&"--tls", &"off", &"ls"]).expect(5);
    assert!(done.stderr.contains("leave out --tls off"), "{done:?}");
    assert!(!done.stderr.contains("a user"), "{done:?}");
}
