//! Uploads that are refused for want of room: what there was of them before is as it was.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use haul::config::Config;
use haul::session::Outcome;
use haul::storage::ledger::Count;
use haul::storage::partials::{Found, Owner, Place};
use haul::storage::path::VirtualPath;
use haul::storage::quota::Amount;
use haul::storage::root::Root;
use tempfile::TempDir;

use crate::shell::Shell;

/// What there is of `f`.
const PARTIAL: &[u8] = &[b'x'; 100];

struct Nest {
    _dir: TempDir,
    home: Arc<Root>,
}

impl Nest {
    /// A home that may hold so much, with a partial.
    fn new(limit: Amount) -> Nest {
        let dir = tempfile::tempdir().unwrap();
        let home = Arc::new(Root::open(dir.path()).unwrap());
        for uncounted in home.set_quotas([(VirtualPath::root(), limit)]) {
            let mut count = Count::begin(uncounted, home.clone()).unwrap();
            while count.step().unwrap() {}
            count.finish();
        }
        let nest = Nest { _dir: dir, home };
        let mut shell = nest.shell();
        assert_eq!(say(&mut shell, "UPLOAD 1000 f"), [150]);
        shell.arrive(PARTIAL);
        shell.settle();
        shell.end_transfer(Outcome::Broken);
        assert_eq!(nest.partial().as_deref(), Some(PARTIAL));
        nest
    }

    fn shell(&self) -> Shell {
        let mut shell = Shell::sharing(self.home.clone(), Config::default(), "127.0.0.1:50000");
        say(&mut shell, "USER anonymous");
        assert_eq!(say(&mut shell, "PASS x"), [230]);
        shell
    }

    fn partial(&self) -> Option<Vec<u8>> {
        let owner = Owner::stranger([127, 0, 0, 1].into());
        let path = VirtualPath::root().join(b"f");
        let found = Place::of(&self.home, &path, &owner).unwrap().find();
        let Found::Retained(retained) = found.unwrap() else {
            return None;
        };
        let mut content = vec![0; usize::try_from(retained.bytes()).unwrap()];
        let file = retained.into_file().unwrap();
        file.read_exact_at(&mut content, 0).unwrap();
        Some(content)
    }

    fn used(&self) -> Amount {
        self.home.usage().unwrap().used.unwrap()
    }
}

fn say(shell: &mut Shell, line: &str) -> Vec<u16> {
    shell.replies.clear();
    shell.arrive(format!("{line}\r\n").as_bytes());
    shell.settle();
    shell.replies.drain(..).map(|reply| reply.code).collect()
}

const LIMIT: Amount = Amount {
    bytes: 1000,
    files: 1,
};

#[test]
fn what_is_too_large_for_the_quota_leaves_the_partial() {
    let nest = Nest::new(LIMIT);
    let before = nest.used();
    let mut shell = nest.shell();
    let body = "y".repeat(1001);
    for lines in ["UPLOAD 1001 f", &format!("UPLOAD 1001+ f\r\n{body}NOOP")] {
        assert_eq!(say(&mut shell, lines)[0], 552, "{lines:.14}");
        assert_eq!(nest.partial().as_deref(), Some(PARTIAL), "{lines:.14}");
        assert_eq!(nest.used(), before);
    }
    nest.home
        .set_quotas([(VirtualPath::root(), Amount::file(100))]);
    for lines in ["REST 100\r\nUPLOAD 1 f", "EPSV\r\nREST 100\r\nSTOR f"] {
        assert_eq!(say(&mut shell, lines).last(), Some(&552), "{lines}");
        assert_eq!(nest.partial().as_deref(), Some(PARTIAL), "{lines}");
        assert_eq!(nest.used(), before);
    }
}

#[test]
fn what_has_no_space_on_the_disk_leaves_the_partial() {
    let nest = Nest::new(LIMIT);
    let before = nest.used();
    nest.home.keep_free(Some(u64::MAX));
    let mut shell = nest.shell();
    for lines in [
        "UPLOAD 1 f",
        "EPSV\r\nSTOR f",
        "EPSV\r\nREST 50\r\nSTOR f",
        "EPSV\r\nREST 100\r\nSTOR f",
        "EPSV\r\nAPPE f",
        "REST 100\r\nUPLOAD 1 f",
    ] {
        assert_eq!(say(&mut shell, lines).last(), Some(&452), "{lines}");
        assert_eq!(nest.partial().as_deref(), Some(PARTIAL), "{lines}");
        assert_eq!(nest.used(), before);
    }
}

/// It counts as what is replaced: it goes as soon as there is room for what comes, and no earlier.
#[test]
fn the_partial_makes_room_for_what_replaces_it() {
    for lines in [
        "UPLOAD 1000 f",
        "EPSV\r\nSTOR f",
        "EPSV\r\nREST 50\r\nSTOR f",
    ] {
        let nest = Nest::new(LIMIT);
        let mut shell = nest.shell();
        assert_eq!(say(&mut shell, lines).last(), Some(&150), "{lines}");
        let running = nest.used();
        assert!(running.files == 1 && running.bytes <= 1000, "{running:?}");
        shell.data().incoming.extend([b'y'; 1000]);
        shell.arrive(&[b'y'; 1000]);
        assert!(shell.pump(900));
        shell.end_transfer(Outcome::Broken);
        let found = nest.partial().unwrap();
        let kept = if lines.contains("50") { 50 } else { 0 };
        assert_eq!(found.iter().filter(|&&it| it == b'x').count(), kept);
        assert_eq!(nest.used(), Amount::file(found.len() as u64));
    }
}
