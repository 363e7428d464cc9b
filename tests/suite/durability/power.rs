//! Power cuts: what was not synced is lost, and what was answered with 226 is there all the same.
//!
//! The server writes to an ext4 of its own, in a file. What that file holds at a moment is what a disk
//! holds when the power fails: pages that the file system has not written yet are not in it. The file
//! lies on an XFS, which copies it as it is at one moment (a reflink), while the uploads go on.
//! Then the copy is mounted, which replays its journal, and a new server goes on with it.
//!
//! `HAUL_CUTS=200 cargo test --test suite c02_` cuts the power two hundred times; `HAUL_SEED` chooses
//! other moments.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread;

use rustix::process::Signal;
use tempfile::TempDir;

use super::killed::{Known, Ledger, Moments, Version, content, number, upload};
use crate::common::control::Control;
use crate::common::secure::Pair;
use crate::common::server::{Launch, Server};
use crate::common::tools::run;

const CUTS: u64 = 12;

/// Where copies of files are cheap: an XFS that only this process and its children see. It goes when
/// its standard input ends.
const MAKE_NEST: &str = r#"
    set -e
    mount --make-rprivate /
    mkdir "$1/copies"
    truncate -s 400M "$1/xfs"
    mkfs.xfs -q -m reflink=1 "$1/xfs"
    mount -o loop "$1/xfs" "$1/copies"
    truncate -s 96M "$1/copies/disk-0"
    mkfs.ext4 -q -F "$1/copies/disk-0"
    echo ready
    exec cat
"#;

/// Becomes hauld where the directory above the served one, its last argument, is the file system
/// in the file that is named first.
const WITH_DISK: &str = r#"
    set -e
    disk=$1
    shift
    for dir; do :; done
    mount --make-rprivate /
    mount -o loop "$disk" "$(dirname "$dir")"
    mkdir -p "$dir"
    exec "$@"
"#;

struct Nest {
    dir: TempDir,
    keeper: Child,
    _stdin: ChildStdin,
}

impl Nest {
    fn new() -> Nest {
        let dir = tempfile::tempdir().expect("making a directory");
        let mut keeper = Command::new("unshare")
            .args(["--mount", "sh", "-c", MAKE_NEST, "sh"])
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is there");
        let stdin = keeper.stdin.take().expect("a pipe");
        let mut said = String::new();
        let stdout = keeper.stdout.take().expect("a pipe");
        let _ = BufReader::new(stdout).read_line(&mut said);
        assert_eq!(
            said, "ready\n",
            "power cuts need root, loop devices, mkfs.ext4 and mkfs.xfs (tests/run installs them)"
        );
        Nest {
            dir,
            keeper,
            _stdin: stdin,
        }
    }

    fn namespace(&self) -> String {
        format!("--mount=/proc/{}/ns/mnt", self.keeper.id())
    }

    fn disk(&self, n: u64) -> PathBuf {
        self.dir.path().join(format!("copies/disk-{n}"))
    }

    /// A server whose file system is in the file of that number.
    fn start(&self, disk: u64, options: &[&str]) -> Server {
        let (namespace, disk) = (self.namespace(), self.disk(disk));
        let disk = disk.to_str().expect("a text");
        let enter = ["nsenter", &namespace, "unshare", "--mount"];
        Server::launch(&Launch {
            through: &[&enter[..], &["sh", "-c", WITH_DISK, "sh", disk]].concat(),
            dir: Some(&self.dir.path().join("disk/served")),
            options,
            ..Launch::default()
        })
    }

    /// What the disk holds at one moment from now becomes the next one.
    fn cut(&self, disk: u64) {
        let mut command = Command::new("nsenter");
        command.arg(self.namespace());
        command.args(["cp", "--reflink=always"]);
        command.args([self.disk(disk), self.disk(disk + 1)]);
        run(&mut command).ok();
    }

    fn forget(&self, disk: u64) {
        let mut command = Command::new("nsenter");
        run(command
            .args([self.namespace().as_str(), "rm"])
            .arg(self.disk(disk)))
        .ok();
    }
}

impl Drop for Nest {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// The directory as the server sees it.
fn seen(server: &Server) -> PathBuf {
    let root = server.root().strip_prefix("/").expect("absolute");
    PathBuf::from(format!("/proc/{}/root", server.pid())).join(root)
}

/// What each name may hold: what it held before the cut, and all that was sent until after it.
struct May {
    before: HashMap<String, Known>,
    begun: Vec<(String, Version)>,
}

impl May {
    /// The names that have lost what was promised; and how many promises there were.
    fn check(&self, ledger: &Ledger, dir: &Path) -> (Vec<String>, usize) {
        let (mut lost, mut promised) = (Vec::new(), 0);
        let mut names = ledger.names.lock().unwrap();
        for (name, known) in names.iter_mut() {
            let before = self.before.get(name).cloned().unwrap_or_default();
            let found = fs::read(dir.join(name)).ok();
            let begun = self.begun.iter().filter(|it| it.0 == *name).map(|it| &it.1);
            let may = before.stored.iter().chain(&before.tried).chain(begun);
            let held = may
                .into_iter()
                .find(|it| found.as_ref() == Some(&content(it)));
            promised += usize::from(before.stored.is_some());
            let is_as_promised = match (&held, &found) {
                (Some(_), _) => true,
                // It was not there before.
                (None, None) => before.stored.is_none(),
                (None, Some(_)) => false,
            };
            if !is_as_promised {
                lost.push(format!("{name}: {:?} bytes", found.map(|it| it.len())));
            }
            *known = Known {
                stored: held.cloned(),
                tried: None,
            };
        }
        (lost, promised)
    }
}

/// Cuts the power again and again, until something is lost or so many times.
fn cut_power(cuts: u64, options: &[&str]) -> (Vec<String>, usize) {
    let (nest, ledger, pair) = (Nest::new(), Ledger::default(), Pair::new());
    let mut moments = Moments::new();
    let tls = pair.options();
    let options: Vec<&str> = tls
        .iter()
        .map(String::as_str)
        .chain(options.iter().copied())
        .collect();
    let mut promised = 0;
    let mut server = nest.start(0, &options);
    for cut in 0..cuts {
        let may = thread::scope(|scope| {
            for way in 0..8 {
                let tls = (way >= 4).then(|| Arc::new(pair.client()));
                let (ledger, addr) = (&ledger, server.addr());
                scope.spawn(move || upload(ledger, addr, way, tls));
            }
            thread::sleep(moments.next());
            let begun = ledger.begun.lock().unwrap().len();
            let before = ledger.names.lock().unwrap().clone();
            nest.cut(cut);
            let begun = ledger.begun.lock().unwrap()[begun..].to_vec();
            server.signal(Signal::KILL);
            server.gone();
            May { before, begun }
        });
        server = nest.start(cut + 1, &options);
        nest.forget(cut);
        let (lost, looked_at) = may.check(&ledger, &seen(&server));
        promised += looked_at;
        if !lost.is_empty() {
            return (lost, promised);
        }
        let mut session = Control::login(server.addr());
        let (listing, _) = session.fetch("NLST");
        assert!(
            !listing.windows(6).any(|it| it == b".haul-"),
            "nothing staged is seen"
        );
        // Each STOU makes another file; those that have outlived a cut make room for more.
        let made = may.before.keys().filter(|name| name.starts_with("haul-"));
        for name in made {
            if ledger.names.lock().unwrap().remove(name).is_some() {
                session.command(&format!("DELE {name}"));
            }
        }
    }
    (Vec::new(), promised)
}

#[test]
fn c02_when_the_power_fails_what_was_answered_with_226_is_there() {
    let cuts = number("HAUL_CUTS", CUTS);
    let (lost, promised) = cut_power(cuts, &[]);
    assert!(lost.is_empty(), "lost or mixed: {lost:?}");
    println!("{cuts} power cuts: {promised} promises were looked at");
    assert!(promised as u64 >= cuts, "{promised} promises prove nothing");
}

/// If nothing were lost without syncing, these cuts would prove nothing.
#[test]
fn c02_without_durability_a_power_cut_costs_files() {
    let (lost, _) = cut_power(CUTS, &["--durability", "none"]);
    assert!(!lost.is_empty(), "nothing was lost");
}
