//! Whole trees with `haul`: up, down, and one made like the other, against hauld and against
//! servers that know none of haul's own verbs.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::common::content::{MIB, ODD_NAMES, bytes};
use crate::common::server::Server;
use crate::common::site::{Site, against_each_server};
use crate::common::tools::run;
use crate::common::{PATIENCE, until};

against_each_server!(
    a_tree_goes_up_and_comes_down,
    sync_moves_what_has_changed_and_nothing_else,
    one_failure_does_not_keep_the_others_from_coming,
    what_no_line_can_carry_stays_and_the_others_go,
    digests_are_compared,
);

/// A time that no clock shows, the same second in both trees.
const MADE_S: u64 = 1_600_000_000;

fn put(root: &Path, path: impl AsRef<Path>, content: &[u8], made_s: u64) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(made_s);
    let file = fs::File::options().append(true).open(&path).unwrap();
    file.set_modified(time).unwrap();
}

/// Many small files, a large one, deep and empty directories, odd names.
fn make(site: &Site, files: usize) {
    let root = &site.local("tree");
    for n in 0..files {
        let size = [0, 1, 100, 4096, 20_000][n % 5];
        put(
            root,
            format!("many/{}/{n}", n % 7),
            &bytes(n as u64, size),
            MADE_S + n as u64,
        );
    }
    put(root, "large", &bytes(1, 3 * MIB + 5), MADE_S);
    let deep: String = (0..40).map(|n| format!("level {n}/")).collect();
    put(root, format!("{deep}bottom"), b"deep", MADE_S);
    fs::create_dir_all(root.join("empty/also empty")).unwrap();
    let plain = |name: &&&str| !name.contains(['*', '?', '[', '\\', '{']) && name.trim() == **name;
    for name in ODD_NAMES.iter().filter(plain) {
        put(root, format!("odd/{name}"), name.as_bytes(), MADE_S);
    }
    for name in ["from -> to", "-> x", "50% off"] {
        put(root, format!("odd/{name}"), name.as_bytes(), MADE_S);
    }
    if site.keeps_bytes {
        put(root, OsStr::from_bytes(b"odd/caf\xe9"), b"latin", MADE_S);
    }
    fs::set_permissions(root.join("large"), fs::Permissions::from_mode(0o755)).unwrap();
    let closed = fs::Permissions::from_mode(0o700);
    fs::set_permissions(root.join("level 0/level 1"), closed).unwrap();
    age(root);
}

/// Gives every directory a time that no clock shows and that no other has.
fn age(root: &Path) {
    let mut dirs = vec![root.to_path_buf()];
    let mut at = 0;
    while let Some(dir) = dirs.get(at).cloned() {
        let entries = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap());
        dirs.extend(
            entries
                .filter(|e| e.file_type().unwrap().is_dir())
                .map(|e| e.path()),
        );
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(MADE_S - 1_000 - at as u64);
        fs::File::open(&dir).unwrap().set_modified(time).unwrap();
        at += 1;
    }
}

/// Everything below a directory: contents, and what is wanted beside them.
fn seen<T>(root: &Path, more: impl Fn(&fs::Metadata) -> T) -> BTreeMap<Vec<u8>, (Vec<u8>, T)> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            let (path, meta) = (entry.path(), entry.metadata().unwrap());
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
            let content = match meta.is_dir() {
                true => b"a directory".to_vec(),
                false => fs::read(&path).unwrap(),
            };
            found.insert(name.to_vec(), (content, more(&meta)));
            if meta.is_dir() {
                pending.push(path);
            }
        }
    }
    found
}

#[track_caller]
fn assert_equal<T: PartialEq + std::fmt::Debug>(
    a: &Path,
    b: &Path,
    more: impl Fn(&fs::Metadata) -> T,
) {
    let (a, b) = (seen(a, &more), seen(b, &more));
    type Tree<T> = BTreeMap<Vec<u8>, (Vec<u8>, T)>;
    let lacks = |this: &Tree<T>, other: &Tree<T>| -> Vec<String> {
        let missing = other.keys().filter(|name| !this.contains_key(*name));
        let name = |name: &Vec<u8>| String::from_utf8_lossy(name).into_owned();
        missing.map(name).collect()
    };
    let neither: [Vec<String>; 2] = [vec![], vec![]];
    assert_eq!([lacks(&a, &b), lacks(&b, &a)], neither, "what each lacks");
    for (name, one) in &a {
        let other = &b[name];
        let name = String::from_utf8_lossy(name);
        assert!(one.0 == other.0, "{name} has another content");
        assert_eq!(one.1, other.1, "{name}");
    }
}

fn nothing(_: &fs::Metadata) {}

/// Times of files; many servers do not keep those of directories.
fn times(meta: &fs::Metadata) -> i64 {
    if meta.is_dir() { 0 } else { meta.mtime() }
}

fn times_and_modes(meta: &fs::Metadata) -> (i64, u32) {
    (meta.mtime(), meta.mode() & 0o777)
}

/// The same for a whole tree, its uppermost directory included.
#[track_caller]
fn assert_all_equal(a: &Path, b: &Path) {
    assert_equal(a, b, times_and_modes);
    let [a, b] = [a, b].map(|dir| times_and_modes(&fs::metadata(dir).unwrap()));
    assert_eq!(a, b, "the directory itself");
}

fn is_hauld(site: &Site) -> bool {
    let verbs = run(&mut site.command(&[&"--verbose", &"ls", &"/"]))
        .ok()
        .stderr;
    verbs.contains("UPLOAD")
}

fn a_tree_goes_up_and_comes_down(site: &Site) {
    let own = is_hauld(site);
    let files = if own { 10_000 } else { 300 };
    make(site, files);
    site.haul(&[&"--quiet", &"upload", &"-r", &"tree", &"/pub"])
        .ok();
    match own {
        true => assert_all_equal(&site.local("tree"), &site.remote("tree")),
        false => assert_equal(&site.local("tree"), &site.remote("tree"), nothing),
    }
    site.haul(&[&"--quiet", &"download", &"-r", &"/pub/tree", &"back"])
        .ok();
    assert_equal(&site.remote("tree"), &site.local("back"), times);
    if own {
        assert_all_equal(&site.local("tree"), &site.local("back"));
    }
    // Once more: nothing is overwritten unasked, and everything is when it is asked.
    let again: &[&dyn AsRef<OsStr>] = &[&"--quiet", &"download", &"-r", &"/pub/tree/odd", &"back"];
    site.haul(again).expect(1);
    fs::write(site.local("back/odd/-rf"), "mine").unwrap();
    let first: &[&dyn AsRef<OsStr>] = &[&"--quiet", &"download", &"--force"];
    let force = [first, &again[2..]].concat();
    site.haul(&force).ok();
    assert_equal(&site.remote("tree"), &site.local("back"), times);
}

fn moved(text: &str, verb: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| line.starts_with(verb));
    let mut lines: Vec<String> = lines
        .map(|line| {
            line.split(" (")
                .next()
                .unwrap()
                .split(" to ")
                .next()
                .unwrap()
                .to_owned()
        })
        .collect();
    lines.sort();
    lines
}

fn sync_moves_what_has_changed_and_nothing_else(site: &Site) {
    let tree = site.local("tree");
    let own = is_hauld(site);
    // Where directories keep their times, a sync leaves none behind, whatever it has done in them.
    let alike = |tree: &Path, remote: &Path, back: &Path| {
        assert_equal(tree, remote, nothing);
        assert_equal(remote, back, times);
        if own {
            assert_equal(tree, remote, |meta| meta.mtime());
            assert_equal(remote, back, |meta| meta.mtime());
        }
    };
    make(site, 40);
    let up: &[&dyn AsRef<OsStr>] = &[&"sync", &"--delete", &"tree", &":/pub/copy"];
    let down: &[&dyn AsRef<OsStr>] = &[&"sync", &"--delete", &":/pub/copy", &"back"];
    let dry = [&up[..1], &[&"--dry-run"], &up[1..]].concat();
    let said = site.haul(&dry).ok().stdout_text();
    let large = format!(
        "would upload tree/large to /pub/copy/large ({} bytes)\n",
        3 * MIB + 5
    );
    let dirs = "would make /pub/copy\nwould make /pub/copy/empty\n";
    assert!(said.contains(&large) && said.contains(dirs), "{said}");
    assert!(!site.remote("copy").exists());
    for direction in [up, down] {
        let said = site.haul(direction).ok().stdout_text();
        assert!(said.contains("large"), "{said}");
        let again = site.haul(direction).ok().stdout_text();
        assert_eq!(again, "", "the second run moves nothing");
    }
    alike(&tree, &site.remote("copy"), &site.local("back"));

    // Changed without another length, made longer, gone, renamed, a file that was a directory.
    put(&tree, "many/1/1", b"X", MADE_S + 5_000_000);
    put(
        &tree,
        "many/2/2",
        b"longer by far than a hundred bytes? no, but another length",
        MADE_S,
    );
    fs::remove_file(tree.join("many/3/3")).unwrap();
    fs::remove_dir_all(tree.join("odd")).unwrap();
    fs::rename(tree.join("large"), tree.join("renamed")).unwrap();
    fs::remove_dir_all(tree.join("empty")).unwrap();
    put(&tree, "empty", b"a file now", MADE_S);
    age(&tree);
    let said = site.haul(up).ok().stdout_text();
    let expected = ["empty", "many/1/1", "many/2/2", "renamed"];
    let expected = expected.map(|name| format!("uploaded tree/{name}"));
    assert_eq!(moved(&said, "uploaded"), expected, "{said}");
    let said = site.haul(down).ok().stdout_text();
    let expected = ["empty", "many/1/1", "many/2/2", "renamed"];
    let expected = expected.map(|name| format!("downloaded /pub/copy/{name}"));
    assert_eq!(moved(&said, "downloaded"), expected, "{said}");
    alike(&tree, &site.remote("copy"), &site.local("back"));
    assert_eq!(site.haul(up).ok().stdout_text(), "");
    assert_eq!(site.haul(down).ok().stdout_text(), "");

    // What is left out is neither sent nor removed.
    put(&tree, "many/0/x.tmp", b"x", MADE_S);
    fs::remove_file(tree.join("many/1/1")).unwrap();
    fs::write(site.remote("copy/kept.tmp"), "kept").unwrap();
    let filtered = [&up[..1], &[&"--exclude", &"*.tmp"], &up[1..]].concat();
    let said = site.haul(&filtered).ok().stdout_text();
    assert_eq!(said, "deleted /pub/copy/many/1/1\n");
    assert!(site.remote("copy/kept.tmp").exists());
    assert!(!site.remote("copy/many/0/x.tmp").exists());
}

fn one_failure_does_not_keep_the_others_from_coming(site: &Site) {
    for n in 0..20 {
        put(&site.local("tree"), format!("{n}"), &[n; 10], MADE_S);
    }
    fs::create_dir_all(site.remote("tree/7")).unwrap();
    run(std::process::Command::new("chmod")
        .arg("-R")
        .arg("777")
        .arg(site.remote("tree")))
    .ok();
    let done = site.haul(&[&"upload", &"-r", &"tree", &"/pub"]).expect(1);
    assert!(
        done.stderr.contains("cannot upload tree/7"),
        "{}",
        done.stderr
    );
    assert_eq!(moved(&done.stdout_text(), "uploaded").len(), 19);
    fs::write(site.local("3"), "mine").unwrap();
    let names: Vec<String> = (0..20)
        .filter(|n| *n != 7)
        .map(|n| format!("/pub/tree/{n}"))
        .collect();
    let mut args: Vec<&dyn AsRef<OsStr>> = vec![&"download", &"-t", &".", &"/pub/tree/none"];
    args.extend(names.iter().map(|name| name as &dyn AsRef<OsStr>));
    let done = site.haul(&args).expect(1);
    for part in ["/pub/tree/none", "/pub/tree/3 to ./3: a local file"] {
        assert!(done.stderr.contains(part), "{part} in {}", done.stderr);
    }
    assert_eq!(fs::read(site.local("3")).unwrap(), b"mine");
    for n in (0..20).filter(|n| ![3, 7].contains(n)) {
        assert_eq!(fs::read(site.local(&n.to_string())).unwrap(), [n; 10]);
    }
}

fn what_no_line_can_carry_stays_and_the_others_go(site: &Site) {
    let tree = site.local("tree");
    put(&tree, "a\nDELE b", b"x", MADE_S);
    put(&tree, "d\n/x", b"x", MADE_S);
    put(&tree, "b", b"y", MADE_S);
    let copy: &[&dyn AsRef<OsStr>] = &[&"upload", &"-r", &"tree", &"/pub"];
    for args in [copy, &[&"sync", &"--delete", &"tree", &":/pub/tree"]] {
        let done = site.haul(args).expect(1);
        assert!(done.stderr.contains("DELE b"), "{}", done.stderr);
        let there = seen(&site.remote("tree"), nothing);
        assert_eq!(there.keys().collect::<Vec<_>>(), [b"b"]);
    }
}

fn digests_are_compared(site: &Site) {
    if !is_hauld(site) {
        return;
    }
    let tree = site.local("tree");
    put(&tree, "a", b"one", MADE_S);
    put(&tree, "b", &bytes(7, 2 * MIB), MADE_S);
    site.haul(&[&"upload", &"--verify", &"-r", &"tree", &"/pub"])
        .ok();
    site.haul(&[&"download", &"--verify", &"-r", &"/pub/tree", &"back"])
        .ok();
    assert_equal(&tree, &site.local("back"), times_and_modes);
    // Another content with the same length and time.
    put(&tree, "a", b"two", MADE_S);
    let sync: &[&dyn AsRef<OsStr>] = &[&"sync", &"tree", &":/pub/tree"];
    assert_eq!(site.haul(sync).ok().stdout_text(), "");
    let checksum = [sync, &[&"--checksum"]].concat();
    let said = site.haul(&checksum).ok().stdout_text();
    assert_eq!(moved(&said, "uploaded"), ["uploaded tree/a"]);
    assert_eq!(site.haul(&checksum).ok().stdout_text(), "");
    assert_eq!(fs::read(site.remote("tree/a")).unwrap(), b"two");
}

fn with_hauld() -> (Server, Site) {
    let server = Server::start(&[]);
    fs::create_dir(server.path("pub")).unwrap();
    let site = Site::new(server.addr(), server.path("pub"), ());
    (server, site)
}

/// Starts a command and kills it as soon as `is_time`.
fn killed(site: &Site, args: &[&dyn AsRef<OsStr>], is_time: impl Fn() -> bool) {
    let mut command = site.command(args);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let came = until(PATIENCE, is_time);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(
        came && status.code().is_none(),
        "it ended too soon: {status}"
    );
}

#[test]
fn two_gib_go_up_and_come_down() {
    const BYTES: u64 = (2 << 30) + 4097;
    let server = Server::start(&["--durability", "none"]);
    let site = Site::new(server.addr(), server.root().to_path_buf(), ());
    let file = fs::File::create(site.local("huge")).unwrap();
    file.set_len(BYTES).unwrap();
    // Sparse but for the places where counters wrap.
    let marks = [0, (1 << 31) - 5, (1 << 31) + 2000, BYTES - 64].map(|at| (at, bytes(at, 64)));
    for (at, mark) in &marks {
        file.write_all_at(mark, *at).unwrap();
    }
    site.haul(&[&"--quiet", &"upload", &"huge"]).ok();
    let is_right = |path: &Path| {
        let copy = fs::File::open(path).unwrap();
        assert_eq!(copy.metadata().unwrap().len(), BYTES);
        for (at, mark) in &marks {
            let mut found = vec![0; mark.len()];
            copy.read_exact_at(&mut found, *at).unwrap();
            assert_eq!(&found, mark, "at {at}");
        }
    };
    is_right(&site.remote("huge"));
    let mut cat = site.command(&[&"--quiet", &"download", &"huge", &"-"]);
    let mut child = cat.stdout(Stdio::piped()).spawn().unwrap();
    let sum = |from: &mut dyn Read| {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; MIB];
        loop {
            match from.read(&mut buffer).unwrap() {
                0 => break hasher.finalize(),
                n => hasher.update(&buffer[..n]),
            }
        }
    };
    let came = sum(&mut child.stdout.take().unwrap());
    assert!(child.wait().unwrap().success());
    assert!(came == sum(&mut fs::File::open(site.local("huge")).unwrap()));
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir).map_or(0, Iterator::count)
}

#[test]
fn l15_a_killed_client_goes_on_where_it_was() {
    let (_server, site) = with_hauld();
    let tree = site.local("tree");
    for n in 0..400 {
        put(&tree, format!("d/{n}"), &bytes(n, 4096), MADE_S);
    }
    let slow: [&dyn AsRef<OsStr>; 3] = [&"sync", &"--limit-rate", &"400KiB"];
    let up = [&slow[..], &[&"tree", &":/pub/tree"]].concat();
    killed(&site, &up, || count(&site.remote("tree/d")) > 50);
    let there = count(&site.remote("tree/d"));
    assert!(there < 400, "{there}");
    let said = site
        .haul(&[&"sync", &"tree", &":/pub/tree"])
        .ok()
        .stdout_text();
    assert!(moved(&said, "uploaded").len() <= 400 - there + 1, "{said}");
    assert_equal(&tree, &site.remote("tree"), times);

    let down = [&slow[..], &[&":/pub/tree", &"back"]].concat();
    killed(&site, &down, || count(&site.local("back/d")) > 50);
    site.haul(&[&"sync", &"--delete", &":/pub/tree", &"back"])
        .ok();
    assert_equal(&tree, &site.local("back"), times);
}

#[test]
fn l15_a_large_download_goes_on_where_it_was() {
    let (_server, site) = with_hauld();
    put(&site.public, "large", &bytes(3, 8 * MIB), MADE_S);
    let part = || {
        let names = fs::read_dir(site.local.path()).unwrap();
        let name = |e: std::io::Result<fs::DirEntry>| e.unwrap();
        let part = names
            .map(name)
            .find(|e| e.file_name().as_bytes().starts_with(b".large.haul-part-"));
        part.map_or(0, |e| e.metadata().unwrap().len())
    };
    let slow: &[&dyn AsRef<OsStr>] = &[&"download", &"--limit-rate", &"2MiB", &"/pub/large"];
    // Which version it is must have been known from the beginning, as it is in a tree.
    let tree: &[&dyn AsRef<OsStr>] = &[&"sync", &"--limit-rate", &"2MiB", &":/pub", &"."];
    killed(&site, tree, || part() > 2 * MIB as u64);
    assert!(!site.local("large").exists());
    let there = part();
    killed(&site, slow, || part() > there + MIB as u64);
    let there = part();
    let done = site.haul(&[&"--verbose", &"download", &"/pub/large"]).ok();
    assert!(
        done.stderr.contains(&format!("> REST {there}")),
        "{}",
        done.stderr
    );
    assert!(
        done.stderr.contains("> HASH"),
        "the whole is compared: {}",
        done.stderr
    );
    assert!(fs::read(site.local("large")).unwrap() == bytes(3, 8 * MIB));
    assert_eq!(count(site.local.path()), 1, "no temporary file is left");

    // What has changed since then is no beginning of it.
    fs::remove_file(site.local("large")).unwrap();
    killed(&site, tree, || part() > 2 * MIB as u64);
    put(&site.public, "large", &bytes(4, 8 * MIB), MADE_S + 1);
    let done = site.haul(&[&"--verbose", &"download", &"/pub/large"]).ok();
    assert!(!done.stderr.contains("> REST"), "{}", done.stderr);
    assert!(fs::read(site.local("large")).unwrap() == bytes(4, 8 * MIB));
}

#[test]
fn l15_a_large_upload_goes_on_where_it_was() {
    let (server, site) = with_hauld();
    let content = bytes(5, 8 * MIB);
    put(site.local.path(), "large", &content, MADE_S);
    // What the server writes into has no name, but a descriptor.
    let staged = || {
        let fds = fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
        let sizes = fds.filter_map(|fd| fs::metadata(fd.ok()?.path()).ok());
        sizes
            .filter(fs::Metadata::is_file)
            .map(|meta| meta.len())
            .max()
    };
    let slow = [
        "--quiet",
        "upload",
        "--limit-rate",
        "2MiB",
        "large",
        "/pub/large",
    ];
    let slow: Vec<&dyn AsRef<OsStr>> = slow.iter().map(|word| word as _).collect();
    killed(&site, &slow, || {
        staged().is_some_and(|n| n > 2 * MIB as u64)
    });
    assert!(!site.remote("large").exists());
    let again: &[&dyn AsRef<OsStr>] = &[&"--verbose", &"upload", &"large", &"/pub/large"];
    let done = site.haul(again).ok();
    assert!(done.stderr.contains("> REST "), "{}", done.stderr);
    assert!(fs::read(site.remote("large")).unwrap() == content);

    // What has changed here since then is sent from its beginning.
    fs::remove_file(site.remote("large")).unwrap();
    killed(&site, &slow, || {
        staged().is_some_and(|n| n > 2 * MIB as u64)
    });
    let content = bytes(6, 8 * MIB);
    put(site.local.path(), "large", &content, MADE_S);
    let done = site.haul(again).ok();
    assert!(
        done.stderr.contains("> PARTIAL ") && !done.stderr.contains("> REST "),
        "{}",
        done.stderr
    );
    assert!(fs::read(site.remote("large")).unwrap() == content);
}

#[test]
fn nothing_is_removed_where_the_server_has_left_something_out() {
    let (_server, site) = with_hauld();
    put(&site.public, "d/a", b"a", MADE_S);
    put(&site.public, "d/with\nbreak", b"left out", MADE_S);
    put(&site.local("back"), "d/mine", b"kept", MADE_S);
    let sync: &[&dyn AsRef<OsStr>] = &[&"sync", &"--delete", &":/pub", &"back"];
    let done = site.haul(sync).expect(1);
    assert!(done.stderr.contains("were not removed"), "{}", done.stderr);
    assert!(site.local("back/d/mine").exists() && site.local("back/d/a").exists());
    fs::remove_file(site.remote("d/with\nbreak")).unwrap();
    site.haul(sync).ok();
    assert!(!site.local("back/d/mine").exists());
}

#[test]
fn links_stay_inside_or_are_skipped() {
    use std::os::unix::fs::symlink;
    let (_server, site) = with_hauld();
    put(&site.public, "t/file", b"x", MADE_S);
    symlink("file", site.remote("t/inside")).unwrap();
    symlink("../../outside", site.remote("t/out")).unwrap();
    let done = site.haul(&[&"download", &"-r", &"/pub/t", &"back"]).ok();
    assert!(
        done.stderr.contains("skipped the link /pub/t/out"),
        "{}",
        done.stderr
    );
    assert_eq!(
        fs::read_link(site.local("back/inside")).unwrap(),
        Path::new("file")
    );
    assert!(fs::symlink_metadata(site.local("back/out")).is_err());
    // A link takes the place of a file only when told to, and leaves nothing beside it.
    put(&site.local("t"), "inside", b"mine", MADE_S);
    let again: &[&dyn AsRef<OsStr>] = &[&"download", &"-r", &"/pub/t", &"."];
    let done = site.haul(again).expect(1);
    let why = "--force replaces it";
    assert!(done.stderr.contains(why), "{}", done.stderr);
    assert_eq!(fs::read(site.local("t/inside")).unwrap(), b"mine");
    site.haul(&[again, &[&"--force"]].concat()).ok();
    assert_eq!(
        fs::read_link(site.local("t/inside")).unwrap(),
        Path::new("file")
    );
    assert_eq!(fs::read_dir(site.local("t")).unwrap().count(), 2);

    symlink("loop", site.local("back/loop")).unwrap();
    symlink("..", site.local("back/up")).unwrap();
    let done = site.haul(&[&"upload", &"-r", &"back", &"/pub/up"]).ok();
    assert!(
        done.stderr.contains("skipped the link back/inside"),
        "{}",
        done.stderr
    );
    assert_eq!(count(&site.remote("up")), 1);
    put(&site.local("src"), "d/file", b"x", MADE_S);
    symlink("d", site.local("src/link")).unwrap();
    symlink("d/file", site.local("src/to file")).unwrap();
    site.haul(&[&"upload", &"-r", &"--copy-links", &"src", &"/pub/followed"])
        .ok();
    assert_eq!(fs::read(site.remote("followed/to file")).unwrap(), b"x");
}

#[test]
fn programs_are_told_in_json() {
    let (_server, site) = with_hauld();
    put(site.local.path(), "a\"b", b"xyz", MADE_S);
    let done = site
        .haul(&[&"upload", &"--json", &"a\"b", &"none", &"/pub/"])
        .expect(1);
    let said = done.stdout_text();
    let lines = said
        .lines()
        .map(|line| serde_json::from_str(line).expect(line));
    let objects: Vec<serde_json::Value> = lines.collect();
    let ok = serde_json::json!({
        "action": "upload", "name": "a\"b", "to": "/pub/a\"b", "result": "done", "bytes": 3,
    });
    assert!(objects.contains(&ok), "{said}");
    let failed = objects.iter().find(|object| object["name"] == "none");
    assert!(
        failed.is_some_and(|object| object["result"] == "failed" && object["exit"] == 7),
        "{said}"
    );
}
