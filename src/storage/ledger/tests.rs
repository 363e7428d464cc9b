use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::storage::partials::{Found, Interrupted, Owner, Place};
use crate::storage::staging::{Publish, Upload};

const OVER: Publish = Publish {
    mode: 0o644,
    modify_s: None,
    replace: true,
};

/// A served directory in which `/a`, `/a/b` and `/c` are homes.
struct Nest {
    dir: tempfile::TempDir,
    served: Arc<Root>,
}

const HOMES: [&str; 3] = ["a", "a/b", "c"];

fn at(text: &str) -> VirtualPath {
    VirtualPath::root().join(text.as_bytes())
}

fn amount(bytes: u64, files: u64) -> Amount {
    Amount { bytes, files }
}

/// What a walk by other means finds.
fn truth(dir: &Path) -> Amount {
    let mut found = Amount::NOTHING;
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.path().symlink_metadata().unwrap();
        let below = match meta.is_dir() {
            true => truth(&entry.path()),
            false => Amount::NOTHING,
        };
        let bytes = if meta.is_file() { meta.len() } else { 0 };
        found = found.plus(below).unwrap();
        found = found.plus(Amount::file(bytes)).unwrap();
    }
    found
}

fn count(served: &Arc<Root>, allotment: Arc<Allotment>) -> bool {
    let mut count = Count::begin(allotment, served.clone()).unwrap();
    while count.step().unwrap() {}
    count.finish()
}

impl Nest {
    fn new(limits: [Amount; 3]) -> Nest {
        let dir = tempfile::tempdir().unwrap();
        for home in HOMES {
            fs::create_dir(dir.path().join(home)).unwrap();
        }
        let served = Arc::new(Root::open(dir.path()).unwrap());
        let nest = Nest { dir, served };
        for uncounted in nest.limit(limits) {
            assert!(count(&nest.served, uncounted));
        }
        nest
    }

    fn limit(&self, limits: [Amount; 3]) -> Vec<Arc<Allotment>> {
        self.served
            .set_quotas(HOMES.map(at).into_iter().zip(limits))
    }

    fn used(&self) -> [Amount; 3] {
        HOMES.map(|home| {
            let home = self.served.below(&at(home)).unwrap();
            home.usage().unwrap().used.unwrap()
        })
    }

    fn truth(&self) -> [Amount; 3] {
        HOMES.map(|home| truth(&self.dir.path().join(home)))
    }

    /// Some bytes of an upload that goes on.
    fn begin(&self, path: &str, bytes: u64) -> io::Result<Upload> {
        let mut upload = Upload::create(&self.served, &at(path))?;
        write(&mut upload, bytes)?;
        Ok(upload)
    }

    /// The same of one that is kept if it breaks off, and replaces what was kept before.
    fn begin_for(&self, owner: &Owner, path: &str, bytes: u64) -> io::Result<Upload> {
        let mut upload = Upload::create_for(&self.served, &at(path), owner, Interrupted::Kept)?;
        upload.make_room(bytes)?;
        upload.replace_partial()?;
        if bytes > 0 {
            upload.write(b"x", bytes - 1)?;
        }
        Ok(upload)
    }

    fn put(&self, path: &str, bytes: u64) -> io::Result<()> {
        self.begin(path, bytes)?.publish(&OVER)
    }
}

fn write(upload: &mut Upload, bytes: u64) -> io::Result<()> {
    let end = upload.file()?.metadata()?.len() + bytes;
    upload.make_room(end)?;
    upload.write(b"x", end - 1)
}

#[track_caller]
fn full<T>(result: io::Result<T>) -> Full {
    let error = result.err().expect("it is full");
    *error.get_ref().unwrap().downcast_ref::<Full>().unwrap()
}

#[test]
fn a_byte_counts_for_every_home_that_it_is_in() {
    let nest = Nest::new([amount(100, 10), amount(60, 10), amount(5, 10)]);
    nest.put("a/b/f", 40).unwrap();
    assert_eq!(nest.used(), [amount(40, 2), amount(40, 1), amount(0, 0)]);
    assert_eq!(
        full(nest.put("a/b/g", 21)),
        Full::Bytes {
            limit: 60,
            free: 20
        }
    );
    nest.put("a/g", 60).unwrap();
    assert_eq!(
        full(nest.put("a/b/h", 1)),
        Full::Bytes {
            limit: 100,
            free: 0
        }
    );
    assert_eq!(nest.used(), [amount(100, 3), amount(40, 1), amount(0, 0)]);
    // Where no home is, nothing counts.
    nest.put("f", 1000).unwrap();
    assert_eq!(nest.used(), nest.truth());
}

#[test]
fn what_is_on_its_way_counts_until_it_is_given_up() {
    let nest = Nest::new([amount(100, 10), Amount::MAX, Amount::MAX]);
    let mut one = nest.begin("a/f", 40).unwrap();
    write(&mut one, 30).unwrap();
    // Some is kept for what comes next, but never all that is left.
    let left = full(nest.begin("a/b/g", 31));
    assert!(
        matches!(left, Full::Bytes { free: 20..=30, .. }),
        "{left:?}"
    );
    full(write(&mut one, 31));
    drop(one);
    assert_eq!(nest.used(), nest.truth());
    let mut announced = Upload::create(&nest.served, &at("a/f")).unwrap();
    announced.announce(100).unwrap();
    full(nest.put("a/g", 1));
    drop(announced);
    nest.put("a/g", 100).unwrap();
    assert_eq!(nest.used(), nest.truth());
}

#[test]
fn f16_a_file_can_be_replaced_by_one_as_large() {
    let nest = Nest::new([amount(100, 2), Amount::MAX, Amount::MAX]);
    for bytes in [70, 70, 100, 30, 1] {
        nest.put("a/f", bytes).unwrap();
        assert_eq!(nest.used()[0], amount(bytes, 2));
    }
    full(nest.put("a/f", 101));
    // Two at once: both replace what is there, and then the second replaces the first.
    let (one, two) = (nest.begin("a/f", 90).unwrap(), nest.begin("a/f", 10));
    one.publish(&OVER).unwrap();
    assert_eq!(
        nest.used()[0].bytes,
        99,
        "what it replaces cannot be known before"
    );
    two.unwrap().publish(&OVER).unwrap();
    assert_eq!(nest.used(), nest.truth());
}

#[test]
fn what_a_link_leads_to_counts_where_it_is() {
    let nest = Nest::new([Amount::MAX; 3]);
    symlink("a/b", nest.dir.path().join("l")).unwrap();
    nest.put("l/f", 7).unwrap();
    let linked = nest.served.below(&at("l")).unwrap();
    assert_eq!(linked.usage().unwrap().used, Some(amount(7, 1)));
    linked.remove_file(&at("f")).unwrap();
    nest.served.create_dir(&at("l/d"), 0o755).unwrap();
    assert_eq!(nest.used(), nest.truth());
}

#[test]
fn names_that_come_and_go_and_move() {
    let nest = Nest::new([amount(100, 6), amount(100, 3), amount(50, 3)]);
    let served = &nest.served;
    served.create_dir(&at("a/d"), 0o755).unwrap();
    nest.put("a/d/f", 30).unwrap();
    nest.put("c/f", 50).unwrap();
    full(served.rename(&at("a/d/f"), &at("c/g"), true));
    served.rename(&at("a/d/f"), &at("a/b/f"), true).unwrap();
    assert_eq!(nest.used(), nest.truth());
    served.rename(&at("a/b/f"), &at("c/f"), true).unwrap();
    assert_eq!(nest.used(), nest.truth(), "it replaced one of 50");
    assert_eq!(nest.used()[2], amount(30, 1));
    nest.put("a/d/f", 20).unwrap();
    served.rename(&at("a/d"), &at("c/d"), true).unwrap();
    assert_eq!(nest.used(), nest.truth(), "with all that is in it");
    served.rename(&at("c/d"), &at("c/e"), true).unwrap();
    full(served.create_dir(&at("c/more"), 0o755));
    assert!(served.remove_dir(&at("c/e")).is_err());
    served.remove_file(&at("c/e/f")).unwrap();
    served.remove_dir(&at("c/e")).unwrap();
    assert!(served.create_dir(&at("a/b"), 0o755).is_err());
    assert!(served.rename(&at("a/absent"), &at("c/x"), true).is_err());
    fs::hard_link(nest.dir.path().join("c/f"), nest.dir.path().join("c/l")).unwrap();
    for allotment in served.ledger().around(&at("c")) {
        assert!(count(served, allotment));
    }
    served.rename(&at("c/f"), &at("c/l"), true).unwrap();
    served.remove_file(&at("c/l")).unwrap();
    assert_eq!(nest.used(), nest.truth());
}

#[test]
fn too_much_is_not_counted_while_everybody_waits() {
    let nest = Nest::new([Amount::MAX; 3]);
    let real = nest.dir.path();
    fs::create_dir(real.join("d")).unwrap();
    for n in 0..=MOVED_ENTRIES_MAX {
        fs::write(real.join(format!("d/{n}")), b"").unwrap();
    }
    let refused = full(nest.served.rename(&at("d"), &at("a/d"), true));
    assert_eq!(refused, Full::Parts { limit: 2_000 });
    assert!(refused.to_string().contains("2000 entries"), "{refused}");
    nest.served.rename(&at("d"), &at("e"), true).unwrap();
}

#[test]
fn limits_change_under_those_who_are_there() {
    let nest = Nest::new([amount(100, 9), Amount::MAX, Amount::MAX]);
    nest.put("a/f", 90).unwrap();
    let running = nest.begin("a/g", 10).unwrap();
    assert!(
        nest.limit([amount(50, 9), Amount::MAX, Amount::MAX])
            .is_empty()
    );
    assert_eq!(full(nest.put("a/h", 1)), Full::Bytes { limit: 50, free: 0 });
    running.publish(&OVER).unwrap();
    nest.served.set_quotas([]);
    let unlimited = nest.begin("a/h", 1000).unwrap();
    let uncounted = nest.limit([amount(2000, 9), Amount::MAX, Amount::MAX]);
    assert_eq!(full(nest.put("a/i", 1)), Full::Counting);
    nest.served.remove_file(&at("a/g")).unwrap();
    unlimited.publish(&OVER).unwrap();
    for allotment in uncounted {
        count(&nest.served, allotment);
    }
    assert_eq!(nest.used(), nest.truth());
}

#[test]
fn what_is_kept_counts_though_its_quota_came_later() {
    let nest = Nest::new([Amount::MAX; 3]);
    let owner = Owner::user(b"anna");
    nest.served.set_quotas([]);
    let begin = |path: &str| nest.begin_for(&owner, path, 100).unwrap();
    let (fits, left, too_much) = (begin("a/fits"), begin("a/left"), begin("a/b/f"));
    for allotment in nest.limit([amount(150, 9), amount(50, 9), Amount::MAX]) {
        assert!(count(&nest.served, allotment));
    }
    assert!(fits.keep(100).unwrap().is_some());
    assert_eq!(nest.used()[0], amount(100, 2));
    full(too_much.keep(100));
    assert_eq!(nest.used(), nest.truth());
    // What is there counts, room or not.
    let mut left = left;
    assert!(left.take_partial_name());
    drop(left);
    assert_eq!(nest.used()[0], amount(200, 3));
    assert_eq!(nest.used(), nest.truth());
}

#[test]
fn a_partial_that_may_not_be_continued_counts_as_before() {
    let nest = Nest::new([amount(100, 9), Amount::MAX, Amount::MAX]);
    let owner = Owner::user(b"anna");
    nest.begin_for(&owner, "a/f", 60).unwrap().keep(60).unwrap();
    nest.put("a/g", 30).unwrap();
    nest.limit([amount(10, 1), Amount::MAX, Amount::MAX]);
    let before = nest.used();
    assert_eq!(before, nest.truth());
    for from in [60, 20] {
        let place = Place::of(&nest.served, &at("a/f"), &owner).unwrap();
        let Found::Retained(retained) = place.find().unwrap() else {
            panic!("there is no partial");
        };
        let resumed = retained.resume(&nest.served, &at("a/f"), from, Interrupted::Kept);
        full(resumed.unwrap().make_room(61));
        assert_eq!((nest.used(), nest.truth()), (before, before));
    }
    full(nest.begin_for(&owner, "a/f", 61));
    assert_eq!((nest.used(), nest.truth()), (before, before));
}

#[test]
fn a_partial_gives_its_room_to_what_replaces_it() {
    let nest = Nest::new([amount(100, 3), amount(0, 0), Amount::MAX]);
    let owner = Owner::user(b"anna");
    nest.put("a/f", 30).unwrap();
    for (announced, arrived) in [(70, 40), (100, 70), (100, 0)] {
        let mut upload = nest.begin_for(&owner, "a/f", arrived).unwrap();
        upload.announce(announced).unwrap();
        // The directory b, and the new file in the place of the old one: the partial counts no more.
        assert_eq!(nest.used()[0], amount(announced, 2));
        assert_eq!(upload.keep(arrived).unwrap().is_some(), arrived > 0);
        assert_eq!(nest.used(), nest.truth());
    }
}

#[test]
fn a_staged_file_with_a_hidden_name_is_not_counted_beside_its_room() {
    let nest = Nest::new([Amount::MAX; 3]);
    let real = nest.dir.path();
    fs::write(real.join("a/.haul-left-behind"), b"1234").unwrap();
    fs::write(real.join("a/.haul-under-way"), b"123").unwrap();
    let meta = nest.served.lstat(&at("a/.haul-under-way")).unwrap();
    let claims = nest.served.claim(
        &nest
            .served
            .below(&at("a"))
            .unwrap()
            .open_dir(&at("/"))
            .unwrap(),
        Amount::file(3),
        Amount::NOTHING,
    );
    let mut room = crate::storage::room::Room::new(nest.served.ledger().clone(), claims.unwrap());
    room.hide((meta.dev, meta.ino));
    let again = || {
        for allotment in nest.served.ledger().around(&at("a")) {
            assert!(count(&nest.served, allotment));
        }
        nest.used()[0]
    };
    assert_eq!(again(), amount(7, 3), "with the directory b");
    drop(room);
    assert_eq!(again(), amount(7, 3));
}

#[test]
fn what_is_under_way_in_a_directory_that_moves_counts_when_it_is_there() {
    for published in [true, false] {
        let nest = Nest::new([Amount::MAX; 3]);
        nest.served.create_dir(&at("a/d"), 0o755).unwrap();
        nest.put("a/d/g", 5).unwrap();
        let owner = Owner::user(b"anna");
        let mut upload = nest.begin_for(&owner, "a/d/f", 60).unwrap();
        assert!(upload.take_partial_name());
        let before = nest.used()[0];
        nest.served.rename(&at("a/d"), &at("c/d"), true).unwrap();
        // The directory and the whole file; the room of the upload stays where it is.
        let moved = amount(5, 2);
        assert_eq!(nest.used()[0].plus(moved), Some(before));
        assert_eq!(nest.used()[2], moved);
        match published {
            true => upload.publish(&OVER).unwrap(),
            false => assert!(upload.keep(60).unwrap().is_some()),
        }
        assert_eq!(nest.used(), nest.truth());
        assert_eq!(nest.used()[2], amount(65, 3));
    }
}

/// What sessions do.
#[derive(Debug, Clone)]
enum Deed {
    Begin(usize, u64),
    More(usize, u64),
    Publish(usize),
    GiveUp(usize),
    Remove(usize),
    Rename(usize, usize),
    Mkdir(usize),
    /// A count of one of the homes begins, goes on, or is done.
    Count(usize),
}

const PATHS: [&str; 8] = ["a/f", "a/d", "a/d/f", "a/b/f", "a/b/d", "c/f", "c/d", "f"];

fn deed() -> impl Strategy<Value = Deed> {
    let path = || 0..PATHS.len();
    prop_oneof![
        4 => (path(), 1..80_u64).prop_map(|(path, bytes)| Deed::Begin(path, bytes)),
        2 => (0..3_usize, 1..80_u64).prop_map(|(upload, bytes)| Deed::More(upload, bytes)),
        3 => (0..3_usize).prop_map(Deed::Publish),
        1 => (0..3_usize).prop_map(Deed::GiveUp),
        2 => path().prop_map(Deed::Remove),
        3 => (path(), path()).prop_map(|(from, to)| Deed::Rename(from, to)),
        2 => path().prop_map(Deed::Mkdir),
        2 => (0..3_usize).prop_map(Deed::Count),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_ledger_says_what_is_on_the_disk(deeds in prop::collection::vec(deed(), 0..50)) {
        let limits = [amount(150, 6), amount(100, 4), amount(120, 3)];
        let nest = Nest::new(limits);
        let mut uploads: Vec<Upload> = Vec::new();
        let mut counting: [Option<Count>; 3] = [None, None, None];
        for deed in deeds {
            match deed {
                Deed::Begin(path, bytes) => uploads.extend(nest.begin(PATHS[path], bytes)),
                Deed::More(upload, bytes) => {
                    if let Some(upload) = uploads.get_mut(upload) {
                        let _ = write(upload, bytes);
                    }
                }
                Deed::Publish(upload) if upload < uploads.len() => {
                    let _ = uploads.swap_remove(upload).publish(&OVER);
                }
                Deed::GiveUp(upload) if upload < uploads.len() => {
                    uploads.swap_remove(upload);
                }
                Deed::Remove(path) => {
                    let _ = nest.served.remove_file(&at(PATHS[path]));
                    let _ = nest.served.remove_dir(&at(PATHS[path]));
                }
                Deed::Rename(from, to) => {
                    let _ = nest.served.rename(&at(PATHS[from]), &at(PATHS[to]), true);
                }
                Deed::Mkdir(path) => {
                    let _ = nest.served.create_dir(&at(PATHS[path]), 0o755);
                }
                Deed::Count(home) => match counting[home].take() {
                    None => {
                        let allotment = nest.served.ledger().around(&at(HOMES[home])).remove(0);
                        counting[home] = Some(Count::begin(allotment, nest.served.clone()).unwrap());
                    }
                    Some(mut count) => match count.step().unwrap() {
                        true => counting[home] = Some(count),
                        false => {
                            count.finish();
                        }
                    },
                },
                Deed::Publish(_) | Deed::GiveUp(_) => {}
            }
            for ((used, truth), limit) in nest.used().into_iter().zip(nest.truth()).zip(limits) {
                prop_assert!(used.bytes <= limit.bytes && used.files <= limit.files);
                prop_assert!(truth.bytes <= used.bytes && truth.files <= used.files);
                if uploads.is_empty() {
                    prop_assert_eq!(used, truth);
                }
            }
        }
        drop(uploads);
        prop_assert_eq!(nest.used(), nest.truth());
    }
}
