//! What a shell's user has around `haul`: patterns, digests, `.netrc` and bookmarks.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::common::site::{Site, against_each_server};
use crate::common::tools::{Done, run};
use crate::common::users::Users;

const TRUST: i32 = 4;
const LOGIN_REFUSED: i32 = 5;
const NO_SUCH_FILE: i32 = 6;

against_each_server!(patterns_stand_for_names_on_the_server);

fn patterns_stand_for_names_on_the_server(site: &Site) {
    for name in ["a.jpg", "b.jpg", "c.txt", "[odd].jpg"] {
        fs::write(site.local(name), name).unwrap();
        site.haul(&[&"upload", &name, &"/pub"]).ok();
    }
    let into = site.local("into");
    fs::create_dir(&into).unwrap();
    site.haul(&[&"download", &"/pub/*.jpg", &"into"]).ok();
    let names = |dir| {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&into), ["[odd].jpg", "a.jpg", "b.jpg"]);
    assert_eq!(fs::read_to_string(into.join("a.jpg")).unwrap(), "a.jpg");
    // A name that is there is no pattern, whatever else it would match.
    site.haul(&[&"download", &"--force", &"/pub/[odd].jpg", &"one"])
        .ok();
    assert_eq!(fs::read_to_string(site.local("one")).unwrap(), "[odd].jpg");
    let listed = site.haul(&[&"ls", &"/p*/?.*"]).ok().stdout_text();
    assert_eq!(listed, "/pub/a.jpg\n/pub/b.jpg\n/pub/c.txt\n");
    site.haul(&[&"rm", &"/pub/?.jpg"]).ok();
    assert_eq!(names(&site.public), ["[odd].jpg", "c.txt"]);
    for words in [
        ["rm", "/pub/*.png"],
        ["download", "/none/*"],
        ["stat", "*/x"],
    ] {
        let done = site.haul(&[&words[0], &words[1]]);
        let said = format!("nothing matches {}", words[1]);
        assert_eq!(
            (done.code, done.stderr.contains(&said)),
            (NO_SUCH_FILE, true),
            "{done:?}"
        );
    }
}

#[test]
fn a_directory_is_downloaded_with_r() {
    Site::hauld(|site| {
        let done = site.haul(&[&"download", &"/pub"]).expect(NO_SUCH_FILE);
        assert!(done.stderr.contains("-r brings it"), "{}", done.stderr);
        site.haul(&[&"download", &"-r", &"/pub"]).ok();
        assert!(site.local("pub").is_dir());
    });
}

#[test]
fn patterns_at_the_prompt_stand_for_local_names_too() {
    Site::hauld(|site| {
        for name in ["a.jpg", "b.jpg", "c.txt"] {
            fs::write(site.local(name), name).unwrap();
        }
        let script = b"ls /pub\nput *.png\n";
        crate::common::tools::run_with(&mut site.command(&[]), b"put *.jpg /pub/\n").ok();
        let done = crate::common::tools::run_with(&mut site.command(&[]), script);
        assert_eq!(
            done.stdout_text().lines().collect::<Vec<_>>(),
            ["a.jpg", "b.jpg"]
        );
        assert!(done.stderr.contains("nothing matches *.png"), "{done:?}");
        assert_eq!(done.code, NO_SUCH_FILE);
    });
}

#[test]
fn digests_are_those_of_sha256sum() {
    Site::hauld(|site| {
        fs::write(site.local("f"), "haul").unwrap();
        site.haul(&[&"upload", &"f"]).ok();
        let theirs = run(Command::new("sha256sum").arg("f").current_dir(&site.local));
        assert_eq!(site.haul(&[&"hash", &"f"]).ok().stdout, theirs.stdout);
        let done = site.haul(&[&"hash", &"none"]);
        assert_eq!(done.code, NO_SUCH_FILE, "{done:?}");
    });
    Site::vsftpd(|site| {
        let done = site.haul(&[&"hash", &"f"]);
        assert!(done.stderr.contains("no digests"), "{done:?}");
    });
}

/// `ls` as somebody, with a home where `files` are.
fn ls_with(files: &[(&str, &str)], server: &str) -> Done {
    let home = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = home.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let mode = if name.contains("open") { 0o644 } else { 0o600 };
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
    let mut haul = Command::new(env!("CARGO_BIN_EXE_haul"));
    haul.env_remove("HAUL_SERVER").env_remove("HAUL_PASSWORD");
    haul.env_remove("XDG_CONFIG_HOME").env_remove("NETRC");
    haul.env("HOME", home.path()).current_dir(home.path());
    if files.iter().any(|(name, _)| *name == "open") {
        haul.env("NETRC", "open");
    }
    run(haul.args(["--verbose", "--server", server, "ls"]))
}

#[test]
fn a_login_can_be_in_netrc() {
    let users = Users::new(&[("anna", "s3cret", &[])]);
    let server = users.server();
    fs::write(server.path("here"), "").unwrap();
    let address = server.addr().to_string();
    let entry = "machine 127.0.0.1 login anna password s3cret\n";
    let who = |done: Done| {
        let done = done.ok();
        assert!(!done.stderr.contains("s3cret"), "{done:?}");
        let mut users = done
            .stderr
            .lines()
            .filter_map(|line| line.split_once("USER "));
        users.next().unwrap().1.to_owned()
    };
    assert_eq!(who(ls_with(&[(".netrc", entry)], &address)), "anna");
    let named = format!("anna@{address}");
    assert_eq!(who(ls_with(&[(".netrc", entry)], &named)), "anna");
    // Somebody else, and another machine.
    let otto = ls_with(&[(".netrc", entry)], &format!("otto:x@{address}"));
    assert_eq!(otto.code, LOGIN_REFUSED, "{otto:?}");
    let other = entry.replace("127.0.0.1", "example.org");
    assert_eq!(who(ls_with(&[(".netrc", &other)], &address)), "anonymous");
    // What the URL says goes first.
    let wrong = entry.replace("s3cret", "wrong");
    let url = format!("anna:s3cret@{address}");
    assert_eq!(who(ls_with(&[(".netrc", &wrong)], &url)), "anna");
    // Others can read it.
    let done = ls_with(&[("open", entry)], &address);
    assert_eq!(done.code, TRUST, "{done:?}");
    assert!(done.stderr.contains("chmod 600 open") && !done.stderr.contains("s3cret"));
}

#[test]
fn a_bookmark_is_a_server_and_a_directory() {
    Site::hauld(|site| {
        fs::write(site.remote("here"), "").unwrap();
        let text = format!(
            "[bookmark.box]\nserver = \"{}\"\ndirectory = \"/pub\"\n[bookmark.gone]\nserver = \"{}\"\ndirectory = \"/gone\"\n",
            site.addr, site.addr
        );
        let config = (".config/haul/config.toml", text.as_str());
        assert_eq!(ls_with(&[config], "box").ok().stdout, b"here\n");
        let done = ls_with(&[config], "gone");
        assert_eq!(done.code, NO_SUCH_FILE, "{done:?}");
        assert!(done.stderr.contains("cannot change to /gone"), "{done:?}");
        let bad = (config.0, "[bookmark.box]\nserver = 1\n");
        let done = ls_with(&[bad], "box");
        assert!(done.code == 2 && done.stderr.contains("line 2"), "{done:?}");
    });
}
