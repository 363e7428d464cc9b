//! `haul` against `hauld`, and against vsftpd and pure-ftpd, which know none of haul's own verbs.
//! The same tests for all three, in clear and inside TLS.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::content::{ODD_NAMES, SIZES, assert_file, assert_same, bytes};
use crate::common::server::Server;
use crate::common::site::{Site, against_each_server};
use crate::common::tools::{run, run_with};

/// The exit codes of haul.
const USAGE: i32 = 2;
const CANNOT_CONNECT: i32 = 3;
const NO_SUCH_FILE: i32 = 6;
const LOCAL_FILE: i32 = 7;

against_each_server!(
    every_size_goes_up_and_down,
    several_files_go_in_one_call,
    odd_names_go_up_and_down,
    standard_input_and_output_are_files_too,
    listings_and_trees_show_what_is_there,
    directories_are_made_moved_and_removed,
    what_is_missing_has_its_exit_code,
    local_files_are_not_overwritten_without_force,
    uploads_replace,
    the_prompt_takes_commands,
);

fn every_size_goes_up_and_down(site: &Site) {
    for size in SIZES {
        let content = bytes(size as u64, size);
        let file = site.local("file");
        fs::write(&file, &content).unwrap();
        let name = format!("/pub/size-{size}");
        site.haul(&[&"upload", &file, &name]).ok();
        assert_file(&site.remote(&format!("size-{size}")), &content);
        let copy = site.local(&format!("copy-{size}"));
        site.haul(&[&"download", &name, &copy]).ok();
        assert_file(&copy, &content);
    }
}

fn several_files_go_in_one_call(site: &Site) {
    let names: Vec<String> = (0..20).map(|i| format!("file {i}")).collect();
    let content = |name: &str| bytes(name.len() as u64, 10_000);
    for name in &names {
        fs::write(site.local(name), content(name)).unwrap();
    }
    let mut upload: Vec<&dyn AsRef<OsStr>> = vec![&"upload"];
    names.iter().for_each(|name| upload.push(name));
    upload.push(&"/pub");
    site.haul(&upload).ok();
    names
        .iter()
        .for_each(|name| assert_file(&site.remote(name), &content(name)));

    let into = site.local("into");
    fs::create_dir(&into).unwrap();
    let remote: Vec<String> = names.iter().map(|name| format!("/pub/{name}")).collect();
    let mut download: Vec<&dyn AsRef<OsStr>> = vec![&"download"];
    remote.iter().for_each(|name| download.push(name));
    download.push(&into);
    site.haul(&download).ok();
    names
        .iter()
        .for_each(|name| assert_file(&into.join(name), &content(name)));
    assert_eq!(
        entries(&into).len(),
        names.len(),
        "no temporary file is left"
    );

    // One that fails does not keep the others from coming.
    let into = site.local("some");
    fs::create_dir(&into).unwrap();
    let done = site.haul(&[&"download", &remote[0], &"/pub/nothing", &remote[1], &into]);
    assert_ne!(done.code, 0);
    assert_file(&into.join(&names[0]), &content(&names[0]));
    assert_file(&into.join(&names[1]), &content(&names[1]));
    assert_eq!(entries(&into).len(), 2);
}

fn odd_names_go_up_and_down(site: &Site) {
    // As globs they would mean something else, and at the beginning of an argument too.
    let plain = |name: &&&str| !name.contains(['*', '?', '[', '\\', '{']) && name.trim() == **name;
    let names: Vec<&[u8]> = ODD_NAMES
        .iter()
        .filter(plain)
        .map(|name| name.as_bytes())
        .collect();
    let long = [b'n'; 200];
    let more = [&long[..], b"caf\xe9"];
    let more = &more[..1 + usize::from(site.keeps_bytes)];
    let into = site.local("into");
    fs::create_dir(&into).unwrap();
    for name in names.into_iter().chain(more.iter().copied()) {
        let content = [b"content of ", name].concat();
        let file = site.local.path().join(OsStr::from_bytes(name));
        fs::write(&file, &content).unwrap();
        let remote = [b"/pub/", name].concat();
        let remote = OsStr::from_bytes(&remote);
        site.haul(&[&"upload", &file, &remote]).ok();
        assert_file(&site.public.join(OsStr::from_bytes(name)), &content);
        site.haul(&[&"download", &remote, &into]).ok();
        assert_file(&into.join(OsStr::from_bytes(name)), &content);
    }
}

fn standard_input_and_output_are_files_too(site: &Site) {
    for size in [0, 1000, 3 << 20] {
        let content = bytes(size as u64, size);
        let mut upload = site.command(&[&"upload", &"-", &"/pub/piped"]);
        run_with(&mut upload, &content).ok();
        assert_file(&site.remote("piped"), &content);
        let done = site.haul(&[&"download", &"/pub/piped", &"-"]).ok();
        assert_same(&done.stdout, &content, "standard output");
    }
}

fn listings_and_trees_show_what_is_there(site: &Site) {
    fs::create_dir_all(site.remote("outer/inner")).unwrap();
    fs::write(site.remote("outer/a file"), bytes(1, 12_345)).unwrap();
    fs::write(site.remote("outer/inner/deep"), "x").unwrap();
    fs::write(site.remote("outer-"), "x").unwrap();

    let listed = site.haul(&[&"ls", &"/pub/outer"]).ok().stdout_text();
    assert!(
        listed.contains("a file") && listed.contains("inner"),
        "{listed}"
    );
    assert!(!listed.contains("deep"), "{listed}");
    assert_eq!(listed.lines().count(), 2, "{listed}");
    let top = site.haul(&[&"ls"]).ok().stdout_text();
    assert!(top.contains("pub"), "{top}");

    let tree = site.haul(&[&"tree", &"/pub"]).ok().stdout_text();
    assert_eq!(
        tree,
        "outer/\nouter/a file\nouter/inner/\nouter/inner/deep\nouter-\n"
    );

    let facts = site
        .haul(&[&"stat", &"/pub/outer/a file"])
        .ok()
        .stdout_text();
    assert!(facts.contains("12345"), "{facts}");
    site.haul(&[&"stat", &"/pub/outer"]).ok();
}

fn directories_are_made_moved_and_removed(site: &Site) {
    site.haul(&[&"mkdir", &"/pub/made here"]).ok();
    assert!(site.remote("made here").is_dir());
    site.haul(&[&"mv", &"/pub/made here", &"/pub/renamed"]).ok();
    assert!(site.remote("renamed").is_dir() && !site.remote("made here").exists());

    fs::write(site.local("f"), "content").unwrap();
    site.haul(&[&"upload", &"f", &"/pub/renamed/f"]).ok();
    site.haul(&[&"mv", &"/pub/renamed/f", &"/pub/renamed/g"])
        .ok();
    assert_file(&site.remote("renamed/g"), b"content");
    site.haul(&[&"rm", &"/pub/renamed/g"]).ok();
    assert_eq!(entries(&site.remote("renamed")), [] as [OsString; 0]);
}

fn what_is_missing_has_its_exit_code(site: &Site) {
    let done = site
        .haul(&[&"download", &"/pub/nothing"])
        .expect(NO_SUCH_FILE);
    assert!(
        done.stderr.contains("nothing"),
        "it says which: {}",
        done.stderr
    );
    assert_eq!(
        entries(site.local.path()),
        [] as [OsString; 0],
        "and leaves nothing"
    );
    fs::write(site.local("f"), "content").unwrap();
    site.haul(&[&"upload", &"f", &"/pub/no/such/dir/f"])
        .expect(NO_SUCH_FILE);
    site.haul(&[&"rm", &"/pub/nothing"]).expect(NO_SUCH_FILE);
    site.haul(&[&"mv", &"/pub/nothing", &"/pub/x"])
        .expect(NO_SUCH_FILE);
    site.haul(&[&"stat", &"/pub/nothing"]).expect(NO_SUCH_FILE);
    site.haul(&[&"upload", &"no such local file", &"/pub/x"])
        .expect(LOCAL_FILE);
    assert!(!site.remote("x").exists());
    site.haul(&[&"upload"]).expect(USAGE);
    site.haul(&[&"no-such-command"]).expect(USAGE);
}

fn local_files_are_not_overwritten_without_force(site: &Site) {
    fs::write(site.remote("f"), "theirs").unwrap();
    fs::write(site.local("f"), "mine").unwrap();
    for args in [&["download", "/pub/f"][..], &["download", "/pub/f", "f"]] {
        let args: Vec<&dyn AsRef<OsStr>> = args.iter().map(|arg| arg as _).collect();
        let done = site.haul(&args).expect(LOCAL_FILE);
        assert!(done.stderr.contains("/pub/f to f: a local"), "{done:?}");
        assert_file(&site.local("f"), b"mine");
    }
    site.haul(&[&"download", &"--force", &"/pub/f"]).ok();
    assert_file(&site.local("f"), b"theirs");
    assert_eq!(
        entries(site.local.path()),
        ["f"],
        "no temporary file is left"
    );
}

fn uploads_replace(site: &Site) {
    for content in ["first, and longer", "second"] {
        fs::write(site.local("f"), content).unwrap();
        site.haul(&[&"upload", &"f", &"/pub/f"]).ok();
        assert_file(&site.remote("f"), content.as_bytes());
    }
}

fn the_prompt_takes_commands(site: &Site) {
    let content = bytes(1, 5000);
    fs::write(site.local("mine"), &content).unwrap();
    fs::write(site.remote("theirs"), &content).unwrap();
    // The name on the same line, or asked for; the verbs in any case.
    let typed = "cd /pub\nUPLOAD mine\ndownload\ntheirs\nmkdir sub\nls\nquit\n";
    let done = run_with(&mut site.command(&[]), typed.as_bytes()).ok();
    assert_file(&site.remote("mine"), &content);
    assert_file(&site.local("theirs"), &content);
    assert!(site.remote("sub").is_dir());
    assert!(done.stdout_text().contains("sub"), "{}", done.stdout_text());
}

#[test]
fn nobody_listening_has_its_exit_code() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let site = Site::new(closed, PathBuf::new(), ());
    let done = site.haul(&[&"ls"]).expect(CANNOT_CONNECT);
    assert!(
        done.stderr.contains(&closed.to_string()),
        "it says where: {}",
        done.stderr
    );
}

#[test]
fn the_server_can_come_from_the_environment() {
    let server = Server::start(&[]);
    fs::write(server.path("here"), "x").unwrap();
    let mut haul = Command::new(env!("CARGO_BIN_EXE_haul"));
    let done = run(haul.arg("ls").env("HAUL_SERVER", server.addr().to_string())).ok();
    assert!(
        done.stdout_text().contains("here"),
        "{}",
        done.stdout_text()
    );
}

fn entries(directory: &Path) -> Vec<OsString> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect()
}
