use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;

use super::*;

const NEW: Publish = Publish {
    mode: 0o644,
    modify_s: None,
    replace: false,
};
const OVER: Publish = Publish {
    replace: true,
    ..NEW
};

fn at(text: &str) -> VirtualPath {
    VirtualPath::root().join(text.as_bytes())
}

fn names(dir: &tempfile::TempDir) -> Vec<String> {
    let entries = fs::read_dir(dir.path()).unwrap();
    let mut names: Vec<_> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[track_caller]
fn refused<T>(result: io::Result<T>, errno: Errno) {
    let code = result.err().and_then(|e| e.raw_os_error());
    assert_eq!(code, Some(errno.raw_os_error()));
}

/// Runs `test` with a file without a name, with one that has a hidden name, and with one that is made
/// only at the end.
fn each(test: impl Fn(&tempfile::TempDir, &Root, &dyn Fn(&str) -> io::Result<Upload>)) {
    for made in [Some(true), Some(false), None] {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let stage = |path: &str| {
            let mut upload = Upload::create(&root, &at(path))?;
            upload.write(b"new content", 0)?;
            if let Some(nameless) = made {
                upload.make(nameless, OWNER_ONLY)?;
                assert_eq!(upload.hidden.is_none(), nameless);
            }
            Ok(upload)
        };
        test(&dir, &root, &stage);
        let left: Vec<_> = names(&dir)
            .into_iter()
            .filter(|n| n.starts_with(".haul-"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn nothing_is_seen_before_the_one_step() {
    each(|dir, _, stage| {
        let mut upload = stage("f").unwrap();
        assert_eq!(upload.replaces(), None);
        let hidden = usize::from(upload.hidden.is_some());
        assert_eq!(names(dir).len(), hidden);
        assert_eq!(
            upload.file().unwrap().metadata().unwrap().mode() & 0o7777,
            0o600
        );
        let how = Publish {
            mode: 0o7640,
            modify_s: Some(1_000_000_000),
            replace: false,
        };
        upload.publish(&how).unwrap();
        assert_eq!(names(dir), ["f"]);
        let meta = fs::metadata(dir.path().join("f")).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o640, 1_000_000_000));
        assert_eq!((meta.len(), meta.nlink()), (11, 1));
    });
}

#[test]
fn what_is_not_on_the_disk_is_counted_until_it_is_or_is_gone() {
    each(|_, root, stage| {
        let (mut one, mut two) = (stage("one").unwrap(), stage("two").unwrap());
        one.file().unwrap();
        two.file().unwrap();
        one.make_room(100).unwrap();
        one.make_room(300).unwrap();
        two.make_room(50).unwrap();
        assert_eq!(root.unwritten_bytes(), 350);
        let order = one.write_back().unwrap();
        one.make_room(310).unwrap();
        order.run().unwrap();
        one.make_room(320).unwrap();
        assert_eq!(
            root.unwritten_bytes(),
            60,
            "what came before it was carried out is there"
        );
        let order = one.write_back().unwrap();
        drop(one);
        assert_eq!(root.unwritten_bytes(), 60, "it is held by the order");
        drop(order);
        two.publish(&NEW).unwrap();
        assert_eq!(root.unwritten_bytes(), 0);
    });
}

#[test]
fn a_small_file_is_made_at_the_end_and_hidden_only_if_it_replaces_another() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path()).unwrap();
    let begin = |content: &[u8]| {
        let mut upload = Upload::create(&root, &at("f")).unwrap();
        upload.make_room(content.len() as u64).unwrap();
        upload.write(content, 0).unwrap();
        upload
    };
    for (content, hides) in [(&b"first"[..], false), (b"second", true)] {
        let mut upload = begin(content);
        assert!(upload.staged.is_none());
        let staged = upload.dress(&OVER).unwrap();
        assert_eq!(upload.hidden.is_some(), hides);
        upload.appear(&staged, &OVER).unwrap();
        assert_eq!(fs::read(dir.path().join("f")).unwrap(), content);
        assert_eq!(names(&dir), ["f"]);
    }
    drop(begin(b"third"));
    let mut large = begin(&[7; 5000]);
    large.make_room(105_000).unwrap();
    large.write(&[8; 100_000], 5000).unwrap();
    assert!(large.staged.is_some() && large.hidden.is_none());
    assert_eq!(root.unwritten_bytes(), 105_000);
    large.publish(&OVER).unwrap();
    let whole = [&[7; 5000][..], &[8; 100_000]].concat();
    assert!(fs::read(dir.path().join("f")).unwrap() == whole);
    assert_eq!(names(&dir), ["f"]);
}

#[test]
fn what_is_dropped_was_never_there() {
    each(|dir, _, stage| {
        fs::write(dir.path().join("f"), b"old").unwrap();
        drop(stage("f").unwrap());
        drop(stage("new").unwrap());
        assert_eq!(names(dir), ["f"]);
        assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"old");
    });
}

#[test]
fn a_taken_name_is_kept_or_replaced_as_asked() {
    each(|dir, _, stage| {
        let file = dir.path().join("f");
        let before = stage("f").unwrap();
        fs::write(&file, b"old").unwrap();
        let after = stage("f").unwrap();
        assert_eq!(after.replaces().map(|m| m.size), Some(3));
        refused(stage("f").unwrap().publish(&NEW), Errno::EXIST);
        refused(after.publish(&NEW), Errno::EXIST);
        assert_eq!(fs::read(&file).unwrap(), b"old");
        let reader = File::open(&file).unwrap();
        // The name was free when this one began and is taken now.
        before.publish(&OVER).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new content");
        assert_eq!(io::read_to_string(reader).unwrap(), "old");
        // And the other way round.
        let upload = stage("f").unwrap();
        fs::remove_file(&file).unwrap();
        upload.publish(&OVER).unwrap();
        assert_eq!(names(dir), ["f"]);
    });
}

#[test]
fn a_link_is_replaced_itself() {
    each(|dir, _, stage| {
        let outside = tempfile::tempdir().unwrap();
        let canary = outside.path().join("canary");
        fs::write(&canary, b"untouched").unwrap();
        for target in [
            canary.as_path(),
            outside.path(),
            "l".as_ref(),
            "gone".as_ref(),
        ] {
            symlink(target, dir.path().join("l")).unwrap();
            let upload = stage("l").unwrap();
            assert_eq!(upload.replaces().map(|m| m.kind), Some(Kind::Link));
            upload.publish(&OVER).unwrap();
            assert!(
                fs::symlink_metadata(dir.path().join("l"))
                    .unwrap()
                    .is_file()
            );
            fs::remove_file(dir.path().join("l")).unwrap();
        }
        assert_eq!(fs::read(&canary).unwrap(), b"untouched");
        assert_eq!(names(&outside), ["canary"]);
    });
}

#[test]
fn what_is_no_file_is_refused_before_and_after() {
    each(|dir, _, stage| {
        fs::create_dir(dir.path().join("d")).unwrap();
        let _socket = UnixListener::bind(dir.path().join("s")).unwrap();
        let fifo = dir.path().join("p");
        let (mode, kind) = (Mode::RUSR, rustix::fs::FileType::Fifo);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).unwrap();
        refused(stage("/"), Errno::ISDIR);
        refused(stage("d"), Errno::ISDIR);
        refused(stage("s"), Errno::NXIO);
        refused(stage("p"), Errno::NXIO);
        refused(stage("absent/f"), Errno::NOENT);
        refused(stage("p/f"), Errno::NOTDIR);
        refused(stage(&"n".repeat(256)), Errno::NAMETOOLONG);
        stage(&"n".repeat(255)).unwrap().publish(&NEW).unwrap();
        let upload = stage("later").unwrap();
        fs::create_dir(dir.path().join("later")).unwrap();
        refused(upload.publish(&OVER), Errno::ISDIR);
        assert!(dir.path().join("later").is_dir());
    });
}

#[test]
fn a_directory_that_is_gone_takes_its_uploads_with_it() {
    each(|dir, _, stage| {
        fs::create_dir(dir.path().join("d")).unwrap();
        let upload = stage("d/f").unwrap();
        fs::remove_dir_all(dir.path().join("d")).unwrap();
        refused(upload.publish(&NEW), Errno::NOENT);
    });
}
