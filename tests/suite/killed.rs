//! Client and server are killed at any moment while a tree is synchronized, and run again: in the end
//! both trees are equal, and no file that was whole before a run was moved in it.
//!
//! `HAUL_KILL_ROUNDS=200 cargo test --test suite killed` kills them so often; a few times otherwise.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use crate::common::content::{KIB, MIB, bytes};
use crate::common::server::{Launch, Server};
use crate::common::{PATIENCE, heavy, wait_for};

const ROUNDS: u64 = 8;
const SMALL_FILES: u64 = 1200;
const MADE_S: u64 = 1_600_000_000;
/// A round is killed before it can be over.
const LIVES_MS: u64 = 250;

fn make(tree: &Path) {
    let put = |name: &str, content: &[u8], n: u64| {
        let path = tree.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        let time = UNIX_EPOCH + Duration::from_secs(MADE_S + n);
        let file = fs::File::options().append(true).open(&path).unwrap();
        file.set_modified(time).unwrap();
    };
    for n in 0..SMALL_FILES {
        let content = bytes(n, 1 + (n as usize * 37) % (8 * KIB));
        put(&format!("d{}/{n}", n % 9), &content, n);
    }
    for n in 0..3 {
        put(&format!("large{n}"), &bytes(n, 5 * MIB + n as usize), n);
    }
}

/// The files of `source` that `copy` has whole, with their times.
fn whole(source: &Path, copy: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut dirs = vec![source.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let name = path.strip_prefix(source).unwrap();
            let other = copy.join(name);
            let mtime = |path: &Path| fs::metadata(path).map(|meta| meta.mtime()).ok();
            if mtime(&path) == mtime(&other) {
                let same = fs::read(&path).unwrap() == fs::read(&other).unwrap();
                assert!(same, "{} has another content", other.display());
                found.insert(name.to_str().unwrap().to_owned());
            }
        }
    }
    found
}

/// The files that a server's log of transfers names, relative to `/copy`.
fn moved(log: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let path = |line: &str| {
        let (_, rest) = line.split_once("\"path\":\"/copy/")?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    text.lines().filter_map(path).collect()
}

fn start(listen: &str, root: &Path, log: &Path) -> Server {
    Server::launch(&Launch {
        listen,
        dir: Some(root),
        options: &["--transfer-log", log.to_str().unwrap()],
        ..Launch::default()
    })
}

fn killed_again_and_again(direction: &[&str], seed: u64) {
    let _heavy = heavy();
    let nest = tempfile::tempdir().unwrap();
    let [root, log] = ["root", "transfers.log"].map(|name| nest.path().join(name));
    let (source, target) = match direction[0] {
        "tree" => (nest.path().join("tree"), root.join("copy")),
        _ => (root.join("copy"), nest.path().join("tree")),
    };
    make(&source);
    fs::create_dir_all(&root).unwrap();
    let rounds = std::env::var("HAUL_KILL_ROUNDS").ok();
    let rounds = rounds.map_or(ROUNDS, |text| text.parse().expect("HAUL_KILL_ROUNDS"));
    let mut listen = "127.0.0.1:0".to_owned();
    let mut random = seed;
    for round in 0.. {
        let before = whole(&source, &target);
        let _ = fs::remove_file(&log);
        let mut server = start(&listen, &root, &log);
        listen = server.addr().to_string();
        let mut haul = Command::new(env!("CARGO_BIN_EXE_haul"));
        haul.current_dir(nest.path()).env("HOME", nest.path());
        haul.args(["--server", &listen, "--quiet", "--retries", "0", "sync"]);
        haul.args(direction);
        if round < rounds {
            haul.args(["--limit-rate", "20MiB"]);
        }
        let mut client = haul.stderr(Stdio::null()).spawn().unwrap();
        if round < rounds {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let ms = (random >> 33) % LIVES_MS;
            thread::sleep(Duration::from_millis(ms));
            match random >> 63 {
                0 => client.kill().unwrap(),
                _ => server.signal(Signal::KILL),
            }
        }
        let status = wait_for(PATIENCE, || client.try_wait().unwrap()).expect("the client ends");
        // It ends in order, and with it what it has still to write.
        match random >> 63 {
            1 if round < rounds => server.gone(),
            _ => assert_eq!(server.stop(), 0),
        }
        let again: Vec<String> = moved(&log).intersection(&before).cloned().collect();
        assert!(
            again.is_empty(),
            "round {round} of seed {seed} moved again: {again:?}"
        );
        if round >= rounds {
            assert!(status.success(), "{status}");
            break;
        }
    }
    let all = SMALL_FILES as usize + 3;
    assert_eq!(whole(&source, &target).len(), all);
    assert_eq!(whole(&target, &source).len(), all, "nothing else is there");
}

fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_nanos() as u64
}

#[test]
fn an_upload_of_a_tree_survives_kills_and_sends_nothing_twice() {
    killed_again_and_again(&["tree", ":/copy"], seed());
}

#[test]
fn a_download_of_a_tree_survives_kills_and_fetches_nothing_twice() {
    killed_again_and_again(&[":/copy", "tree"], seed());
}
