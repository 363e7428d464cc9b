use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use super::*;
use crate::storage::staging::Publish;

const OVER: Publish = Publish {
    mode: 0o644,
    modify_s: None,
    replace: true,
};

struct Nest {
    dir: tempfile::TempDir,
    root: Arc<Root>,
    owner: Owner,
}

fn nest() -> Nest {
    let dir = tempfile::tempdir().unwrap();
    let root = Arc::new(Root::open(dir.path()).unwrap());
    let owner = Owner::user(b"me");
    Nest { dir, root, owner }
}

fn at(text: &str) -> VirtualPath {
    VirtualPath::root().join(text.as_bytes())
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

impl Nest {
    fn begin(&self, path: &str, interrupted: Interrupted) -> Upload {
        let upload = Upload::create_for(&self.root, &at(path), &self.owner, interrupted);
        let mut upload = upload.unwrap();
        upload.replace_partial().unwrap();
        upload
    }

    /// An upload of which `content` has arrived, and then no more.
    fn break_off(&self, path: &str, content: &[u8]) -> Option<Kept> {
        let mut upload = self.begin(path, Interrupted::Kept);
        upload.write(content, 0).unwrap();
        upload.keep(content.len() as u64).unwrap()
    }

    fn find(&self, path: &str) -> Found {
        self.find_of(path, &self.owner)
    }

    fn find_of(&self, path: &str, owner: &Owner) -> Found {
        Place::of(&self.root, &at(path), owner)
            .unwrap()
            .find()
            .unwrap()
    }

    fn bytes(&self, path: &str) -> Option<u64> {
        match self.find(path) {
            Found::Retained(retained) => Some(retained.bytes()),
            Found::Nothing => None,
            Found::Busy => panic!("it is busy"),
        }
    }

    fn retained(&self, path: &str) -> Retained {
        match self.find(path) {
            Found::Retained(retained) => retained,
            other => panic!("{other:?}"),
        }
    }

    fn resume(&self, path: &str, bytes: u64) -> Upload {
        self.resume_as(path, bytes, Interrupted::Kept)
    }

    fn resume_as(&self, path: &str, bytes: u64, interrupted: Interrupted) -> Upload {
        let retained = self.retained(path);
        let upload = retained.resume(&self.root, &at(path), bytes, interrupted);
        let mut upload = upload.unwrap();
        upload.replace_partial().unwrap();
        upload
    }

    fn sweep(&self, cutoff_s: i64) -> Index {
        let mut index = Index::default();
        let mut sweep = Sweep::new(&self.root).unwrap();
        while sweep.step(&mut index, cutoff_s).unwrap() {}
        index
    }
}

#[test]
fn a_hidden_name_has_a_fixed_length_and_tells_whose_it_is() {
    let (me, you) = (Owner::user(b"me"), Owner::user(b"you"));
    let name = |owner: &Owner, name: &[u8]| PartialName::new(owner, name);
    let long = name(&me, &[b'n'; 255]);
    assert_eq!(long.as_bytes().len(), name(&me, b"n").as_bytes().len());
    assert_ne!(name(&me, b"n"), name(&you, b"n"));
    assert_eq!(long.owner_digits(), name(&me, b"n").owner_digits());
    assert_eq!(PartialName::parse(long.as_bytes()), Some(long));
    for other in [&b".haul-p"[..], b".haul-0123456789abcdef", b"f"] {
        assert_eq!(PartialName::parse(other), None);
    }
    let v4: IpAddr = "192.0.2.1".parse().unwrap();
    let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
    assert_eq!(Owner::stranger(v4), Owner::stranger(mapped));
    assert_ne!(Owner::stranger(v4), Owner::user(b"192.0.2.1"));
}

#[test]
fn what_arrived_is_continued_and_published() {
    let nest = nest();
    fs::write(nest.dir.path().join("f"), b"old").unwrap();
    assert!(nest.bytes("f").is_none());
    let kept = nest.break_off("f", b"12345").unwrap();
    assert_eq!(kept.bytes, 5);
    assert_eq!(fs::read(nest.dir.path().join("f")).unwrap(), b"old");
    assert_eq!(nest.bytes("f"), Some(5));
    let mut upload = nest.resume("f", 5);
    upload.write(b"678", 5).unwrap();
    assert!(matches!(nest.find("f"), Found::Busy));
    upload.publish(&OVER).unwrap();
    let file = nest.dir.path().join("f");
    assert_eq!(fs::read(&file).unwrap(), b"12345678");
    assert_eq!(names(nest.dir.path()), ["f"]);
    let published = File::open(file).unwrap();
    assert_eq!(
        read_xattr(&published, RECORD),
        None,
        "a record stays behind"
    );
}

#[test]
fn going_back_cuts_off_what_is_beyond() {
    let nest = nest();
    nest.break_off("f", b"12345").unwrap();
    let mut upload = nest.resume("f", 2);
    upload.write(b"xy", 2).unwrap();
    // Until it is recorded, what was written is not known to be on the disk.
    drop(upload.record(4));
    drop(upload);
    assert_eq!(nest.bytes("f"), Some(2));
    let mut upload = nest.resume("f", 2);
    upload.write(b"xyz", 2).unwrap();
    upload.record(4).unwrap().run();
    drop(upload);
    assert_eq!(nest.bytes("f"), Some(4));
    nest.resume("f", 4).publish(&OVER).unwrap();
    assert_eq!(fs::read(nest.dir.path().join("f")).unwrap(), b"12xy");
}

#[test]
fn it_is_kept_but_for_one_byte_and_never_less_than_it_was() {
    let nest = nest();
    let mut upload = nest.begin("f", Interrupted::KeptButOneByte);
    upload.write(b"12345", 0).unwrap();
    assert_eq!(upload.keep(5).unwrap().unwrap().bytes, 4);
    assert_eq!(nest.bytes("f"), Some(4));
    for (arrived, expected) in [(4, 4), (5, 4), (6, 5)] {
        let upload = nest.resume_as("f", 4, Interrupted::KeptButOneByte);
        assert_eq!(upload.keep(arrived).unwrap().unwrap().bytes, expected);
        nest.resume("f", 4).keep(4).unwrap();
    }
    for content in [&b""[..], b"1"] {
        let mut upload = nest.begin("g", Interrupted::KeptButOneByte);
        upload.write(content, 0).unwrap();
        assert!(upload.keep(content.len() as u64).unwrap().is_none());
    }
    assert!(nest.bytes("g").is_none());
    assert_eq!(names(nest.dir.path()).len(), 1);
}

#[test]
fn nothing_is_kept_of_what_is_not_to_be_kept() {
    let nest = nest();
    let mut upload = nest.begin("f", Interrupted::Dropped);
    upload.write(b"12345", 0).unwrap();
    assert!(upload.keep(5).unwrap().is_none());
    let mut upload = nest.begin("f", Interrupted::Kept);
    assert!(upload.take_partial_name());
    upload.forget_partial();
    assert!(upload.keep(5).unwrap().is_none());
    assert!(names(nest.dir.path()).is_empty());
}

#[test]
fn a_hidden_name_under_which_nothing_could_be_continued_goes() {
    let nest = nest();
    for (interrupted, arrived) in [
        (Interrupted::Kept, 0),
        (Interrupted::KeptButOneByte, 0),
        (Interrupted::KeptButOneByte, 1),
    ] {
        let mut upload = nest.begin("f", interrupted);
        assert!(upload.take_partial_name());
        upload.write(&b"x"[..arrived], 0).unwrap();
        assert!(upload.keep(arrived as u64).unwrap().is_none());
        assert!(names(nest.dir.path()).is_empty(), "{interrupted:?}");
    }
}

#[test]
fn a_new_upload_replaces_the_partial_from_the_beginning() {
    let nest = nest();
    nest.break_off("f", b"first").unwrap();
    let upload = nest.begin("f", Interrupted::Kept);
    assert!(nest.bytes("f").is_none());
    drop(upload);
    assert!(names(nest.dir.path()).is_empty());
}

#[test]
fn a_running_upload_with_its_name_is_nobody_elses() {
    let nest = nest();
    let mut first = nest.begin("f", Interrupted::Kept);
    assert!(first.take_partial_name());
    first.write(b"first", 0).unwrap();
    // Another session, or another server, begins the same.
    let mut second = nest.begin("f", Interrupted::Kept);
    assert!(!second.take_partial_name());
    second.write(b"second", 0).unwrap();
    assert!(second.keep(6).unwrap().is_none());
    first.publish(&OVER).unwrap();
    assert_eq!(fs::read(nest.dir.path().join("f")).unwrap(), b"first");
    assert_eq!(names(nest.dir.path()), ["f"]);
}

#[test]
fn who_holds_a_partial_for_a_moment_costs_nobody_his_own() {
    let nest = nest();
    let mut upload = nest.begin("f", Interrupted::Kept);
    nest.break_off("f", b"other").unwrap();
    let mut held = Some(nest.retained("f"));
    assert!(upload.record(0).is_none());
    upload.write(b"mine", 0).unwrap();
    let again = || held.take().is_some();
    assert!(upload.keep_as_soon(4, again).unwrap().is_some());
    let mut content = String::new();
    let mut file = nest.retained("f").into_file().unwrap();
    file.read_to_string(&mut content).unwrap();
    assert_eq!(content, "mine");
    assert_eq!(names(nest.dir.path()).len(), 1);
}

#[test]
fn what_is_not_recorded_is_not_offered() {
    let nest = nest();
    let mut upload = nest.begin("f", Interrupted::Kept);
    assert!(upload.take_partial_name());
    upload.write(b"12345", 0).unwrap();
    drop(upload);
    assert_eq!(names(nest.dir.path()).len(), 1);
    assert!(nest.bytes("f").is_none());
    assert!(nest.sweep(0).is_empty());
    assert!(
        names(nest.dir.path()).is_empty(),
        "a partial of nothing is left"
    );
}

#[test]
fn another_owner_learns_nothing() {
    let nest = nest();
    nest.break_off("f", b"12345").unwrap();
    let other = Owner::stranger("192.0.2.1".parse().unwrap());
    assert!(matches!(nest.find_of("f", &other), Found::Nothing));
    let place = Place::of(&nest.root, &at("f"), &other).unwrap();
    assert!(matches!(place.remove(), Removed::Not));
    assert_eq!(nest.bytes("f"), Some(5));
}

#[test]
fn names_of_255_bytes_are_continued() {
    let nest = nest();
    let long = "n".repeat(255);
    nest.break_off(&long, b"12345").unwrap();
    nest.resume(&long, 5).publish(&OVER).unwrap();
    assert_eq!(names(nest.dir.path()), [long]);
}

#[test]
fn c09_the_sweep_takes_what_is_old_and_what_is_nobodys() {
    let nest = nest();
    fs::create_dir_all(nest.dir.path().join("a/b")).unwrap();
    for path in ["old", "a/old", "a/b/new"] {
        nest.break_off(path, b"12345").unwrap();
    }
    let long_ago = 1_000_000_000;
    for path in ["old", "a/old"] {
        let file = nest.retained(path).into_file().unwrap();
        rustix::fs::futimens(&file, &crate::storage::root::only_modified(long_ago)).unwrap();
    }
    // What a process that died was about to publish, and what one that lives is.
    let dead = nest.dir.path().join("a/.haul-0123456789abcdef");
    fs::write(dead, b"x").unwrap();
    let alive = nest.dir.path().join("a/.haul-00000000000000ff");
    let held = File::create(&alive).unwrap();
    assert!(lock(&held).unwrap());
    let mut running = nest.begin("running", Interrupted::Kept);
    assert!(running.take_partial_name());
    // Nobody knows what these are.
    let other = nest.dir.path().join(".haul-other");
    fs::write(&other, b"x").unwrap();
    fs::write(nest.dir.path().join("f"), b"x").unwrap();

    let index = nest.sweep(long_ago + 1);
    assert_eq!(index.len(), 1);
    assert_eq!(nest.bytes("a/b/new"), Some(5));
    assert_eq!(
        names(&nest.dir.path().join("a")).len(),
        2,
        "b and what is alive"
    );
    assert!(alive.exists() && other.exists());
    running.publish(&OVER).unwrap();
    drop(held);
    let mut left = names(nest.dir.path());
    left.sort();
    assert_eq!(left, [".haul-other", "a", "f", "running"]);
}

#[test]
fn an_owner_has_64_partials_and_the_oldest_go() {
    let nest = nest();
    let mut index = Index::default();
    let add = |index: &mut Index, name: &str, modify_s: i64| {
        let kept = nest.break_off(name, b"12345").unwrap();
        index.kept(&nest.root, &kept, modify_s);
    };
    for n in 0..70 {
        add(&mut index, &format!("f{n}"), n);
    }
    // One that was published counts no more.
    nest.resume("f20", 5).publish(&OVER).unwrap();
    add(&mut index, "f70", 70);
    assert_eq!(index.len(), 64);
    for n in 0..71 {
        let expected = (n > 5 && n != 20).then_some(5);
        assert_eq!(nest.bytes(&format!("f{n}")), expected, "{n}");
    }
    index.expire(&nest.root, 71);
    assert!(index.is_empty());
}

#[test]
fn a_directory_with_nothing_but_partials_is_cleared() {
    let nest = nest();
    let dir = nest.dir.path().join("d");
    fs::create_dir(&dir).unwrap();
    nest.break_off("d/f", b"12345").unwrap();
    fs::write(dir.join("seen"), b"x").unwrap();
    clear_dir(&nest.root, &at("d")).unwrap();
    assert_eq!(nest.bytes("d/f"), Some(5), "it is not empty in any case");
    fs::remove_file(dir.join("seen")).unwrap();
    let mut running = nest.resume("d/f", 5);
    nest.break_off("d/g", b"1").unwrap();
    clear_dir(&nest.root, &at("d")).unwrap();
    assert_eq!(names(&dir).len(), 1, "the one that is being written");
    running.forget_partial();
    drop(running);
    nest.root.remove_dir(&at("d")).unwrap();
}

#[test]
fn a_digest_is_remembered_until_the_file_changes() {
    let nest = nest();
    nest.break_off("f", b"12345").unwrap();
    let mut file = nest.retained("f").into_file().unwrap();
    let (old, new) = ("ab".repeat(32), "cd".repeat(32));
    let digest = |file: &File, bytes: u64, computed: &String| {
        digest_remembered(file, bytes, || Ok(computed.clone())).unwrap()
    };
    assert_eq!(digest(&file, 5, &old), old);
    assert_eq!(digest(&file, 5, &new), old);
    assert_eq!(digest(&file, 4, &new), new);
    assert_eq!(digest(&file, 5, &old), old);
    file.write_all(b"x").unwrap();
    assert_eq!(digest(&file, 5, &new), new);
    // What is written meanwhile has another digest.
    let written = digest_remembered(&file, 4, || {
        (&file).write_all(b"yz")?;
        Ok(old.clone())
    });
    assert_eq!(written.unwrap(), old);
    assert_eq!(digest(&file, 4, &new), new);
    let failed = digest_remembered(&file, 3, || Err(io::ErrorKind::Interrupted.into()));
    failed.unwrap_err();
    assert_eq!(digest(&file, 3, &new), new);
}

#[test]
fn a_partial_that_another_has_replaced_takes_nothing_along_when_it_is_forgotten() {
    let nest = nest();
    let mut older = nest.begin("f", Interrupted::Kept);
    let mut newer = nest.begin("f", Interrupted::Kept);
    older.write(b"older", 0).unwrap();
    newer.write(b"newer!", 0).unwrap();
    let older = older.keep(5).unwrap().unwrap();
    let newer = newer.keep(6).unwrap().unwrap();
    assert!(matches!(older.forget(), Removed::Not));
    assert_eq!(names(nest.dir.path()).len(), 1);
    assert!(matches!(newer.forget(), Removed::Gone(None)));
    assert_eq!(names(nest.dir.path()), Vec::<String>::new());
}

#[test]
fn what_is_outdated_takes_no_name_from_what_is_wanted() {
    let nest = nest();
    let mut older = nest.begin("f", Interrupted::Kept);
    older.write(b"older", 0).unwrap();
    older.keeping().unwrap().outdate();
    let newer = nest.break_off("f", b"newer!").unwrap();
    assert!(older.keep(5).unwrap().is_none());
    assert_eq!(nest.bytes("f"), Some(newer.bytes));
    let mut named = nest.begin("g", Interrupted::Kept);
    assert!(named.take_partial_name());
    named.write(b"x", 0).unwrap();
    named.keeping().unwrap().outdate();
    assert!(named.keep(1).unwrap().is_none());
    assert_eq!(names(nest.dir.path()).len(), 1);
}
