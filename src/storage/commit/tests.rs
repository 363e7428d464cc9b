use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::*;
use crate::storage::path::VirtualPath;
use crate::storage::root::Root;
use crate::storage::root::stat_open;

const HOW: Publish = Publish {
    mode: 0o640,
    modify_s: Some(1_000_000_000),
    replace: true,
};

/// How a batch is brought to the disk.
#[derive(Debug, Clone, Copy)]
struct Way {
    /// The names too, not only the files.
    names: bool,
    together: bool,
}

const ALL: Way = Way {
    names: true,
    together: true,
};

fn commit_with(
    batch: Vec<(Upload, Publish)>,
    way: Way,
    sync: &mut dyn FnMut(Sync) -> io::Result<()>,
) -> Vec<Committed> {
    let named = store_with(batch, way.together, sync).name();
    match way.names {
        true => named.settle_with(sync),
        false => named.as_they_are(),
    }
}

fn commit(batch: Vec<(Upload, Publish)>, way: Way) -> Vec<Committed> {
    commit_with(batch, way, &mut now)
}

/// A directory with `old` in each of `taken`, and what was done to it in order.
struct Place {
    dir: tempfile::TempDir,
    root: Root,
    deeds: Vec<String>,
}

fn at(text: &str) -> VirtualPath {
    VirtualPath::root().join(text.as_bytes())
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        fs::write(dir.path().join("taken"), b"old").unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        Place {
            dir,
            root,
            deeds: Vec::new(),
        }
    }

    fn stage(&self, path: &str) -> (Upload, Publish) {
        let mut upload = Upload::create(&self.root, &at(path)).unwrap();
        upload.write(b"new", 0).unwrap();
        (upload, HOW)
    }

    /// Commits uploads to `paths`. `fails` says what does not reach the disk; each sync is noted with
    /// the names that can be seen at that moment.
    fn commit(
        &mut self,
        paths: &[&str],
        way: Way,
        fails: impl Fn(&Sync) -> Option<Errno>,
    ) -> Vec<Option<i32>> {
        let mut batch: Vec<_> = paths.iter().map(|path| self.stage(path)).collect();
        let made = batch.iter_mut().map(|(it, _)| inode(it.file().unwrap()));
        let inodes: Vec<_> = made.collect();
        let (root, deeds) = (self.dir.path(), &mut self.deeds);
        let committed = commit_with(batch, way, &mut |what| {
            let which =
                |file: &File| paths[inodes.iter().position(|it| *it == inode(file)).unwrap()];
            let deed = match &what {
                Sync::Soon(file) => format!("soon {}", which(file)),
                Sync::File(file) => format!("file {}", which(file)),
                Sync::FileSystem(file) => format!("all by {}", which(file)),
                Sync::Directory(dir) => format!("dir {}", name(root, dir)),
                Sync::FileSystemOf(dir) => format!("all of {}", name(root, dir)),
            };
            let seen = paths.iter().filter(|path| is_new(&root.join(path)));
            let seen: Vec<_> = seen.copied().collect();
            deeds.push(format!("{deed} [{}]", seen.join(" ")));
            match fails(&what) {
                Some(errno) => Err(errno.into()),
                None => now(what),
            }
        });
        let code = |it: Committed| it.result.err().and_then(|error| error.raw_os_error());
        committed.into_iter().map(code).collect()
    }

    /// The directory `path` does not reach the disk, with an error that says nothing about uploads.
    fn refuses(&self, path: &str) -> impl Fn(&Sync) -> Option<Errno> + use<> {
        let ino = fs::metadata(self.dir.path().join(path)).unwrap().ino();
        move |what| match what {
            Sync::Directory(dir) if stat_open(dir).unwrap().ino == ino => Some(Errno::NOSPC),
            _ => None,
        }
    }

    #[track_caller]
    fn check(&mut self, deeds: &[&str]) {
        assert_eq!(std::mem::take(&mut self.deeds), deeds);
    }

    #[track_caller]
    fn holds(&self, path: &str, content: Option<&str>) {
        let found = fs::read_to_string(self.dir.path().join(path)).ok();
        assert_eq!(found.as_deref(), content, "{path}");
    }

    /// Nothing staged is left.
    #[track_caller]
    fn has(&self, names: &[&str]) {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut found: Vec<_> = entries.map(name).collect();
        found.sort();
        assert_eq!(found, names);
    }
}

fn inode(file: &File) -> u64 {
    file.metadata().unwrap().ino()
}

fn is_new(path: &Path) -> bool {
    fs::read(path).is_ok_and(|content| content == b"new")
}

fn name(root: &Path, dir: &OwnedFd) -> String {
    let ino = stat_open(dir).unwrap().ino;
    let all = ["", "d", "made", "made/deeper", "made/deeper/deepest"];
    let found = all.iter().find(|name| {
        let meta = fs::metadata(root.join(name));
        meta.is_ok_and(|meta| meta.ino() == ino)
    });
    format!("/{}", found.unwrap())
}

const FINE: fn(&Sync) -> Option<Errno> = |_| None;

fn errno(errno: Errno) -> Option<i32> {
    Some(errno.raw_os_error())
}

#[test]
fn one_file_is_synced_then_named_then_its_directory_is_synced() {
    let mut place = Place::new();
    for path in ["f", "taken"] {
        assert_eq!(place.commit(&[path], ALL, FINE), [None]);
        place.check(&[&format!("file {path} []"), &format!("dir / [{path}]")]);
        place.holds(path, Some("new"));
        let meta = fs::metadata(place.dir.path().join(path)).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o640, 1_000_000_000));
    }
    place.has(&["d", "f", "taken"]);
}

#[test]
fn a_batch_shares_one_sync_and_one_of_each_directory() {
    let mut place = Place::new();
    let paths = ["a", "d/b", "taken", "d/e"];
    assert_eq!(place.commit(&paths, ALL, FINE), [None; 4]);
    let all = "[a d/b taken d/e]";
    place.check(&[
        "all by a []",
        &format!("dir / {all}"),
        &format!("dir /d {all}"),
    ]);
}

#[test]
fn where_it_is_cheaper_each_file_is_synced() {
    let mut place = Place::new();
    let way = Way {
        together: false,
        ..ALL
    };
    assert_eq!(place.commit(&["a", "b"], way, FINE), [None; 2]);
    place.check(&[
        "soon a []",
        "soon b []",
        "file a []",
        "file b []",
        "dir / [a b]",
    ]);
}

#[test]
fn without_names_only_the_files_are_synced() {
    let mut place = Place::new();
    let way = Way {
        names: false,
        ..ALL
    };
    assert_eq!(place.commit(&["a"], way, FINE), [None]);
    place.check(&["file a []"]);
}

/// Two of one name: the later one stays.
#[test]
fn a_batch_keeps_its_order() {
    let place = Place::new();
    let mut batch = vec![place.stage("f"), place.stage("f"), place.stage("f")];
    for (n, (upload, _)) in batch.iter_mut().enumerate() {
        upload.write(n.to_string().as_bytes(), 3).unwrap();
    }
    let committed = commit(batch, ALL);
    assert!(committed.iter().all(|it| it.result.is_ok()));
    place.holds("f", Some("new2"));
}

#[test]
fn c03_a_file_that_fails_is_gone_and_costs_no_other() {
    for together in [true, false] {
        let mut place = Place::new();
        let way = Way { together, ..ALL };
        let paths = ["a", "taken", "c"];
        let victim = std::cell::Cell::new(0);
        let found = place.commit(&paths, way, |what| match what {
            Sync::FileSystem(_) => Some(Errno::IO),
            Sync::File(_) => {
                victim.set(victim.get() + 1);
                (victim.get() == 2).then_some(Errno::IO)
            }
            _ => None,
        });
        assert_eq!(found, [None, errno(Errno::IO), None]);
        // Each by itself, and once.
        let mut expected = vec!["soon a []", "soon taken []", "soon c []"];
        expected.extend(["file a []", "file taken []", "file c []", "dir / [a c]"]);
        if together {
            expected.insert(0, "all by a []");
        }
        place.check(&expected);
        place.holds("taken", Some("old"));
        place.has(&["a", "c", "d", "taken"]);
    }
}

#[test]
fn c03_a_directory_that_fails_costs_every_upload_in_it() {
    let mut place = Place::new();
    let fails = place.refuses("");
    let found = place.commit(&["a", "d/b", "taken"], ALL, fails);
    assert_eq!(found, [errno(Errno::IO), None, errno(Errno::IO)]);
    // One attempt for the two of them; and what the name holds is whole.
    let all = "[a d/b taken]";
    place.check(&[
        "all by a []",
        &format!("dir / {all}"),
        &format!("dir /d {all}"),
    ]);
    place.has(&["a", "d", "taken"]);
}

#[test]
fn directories_made_since_are_synced_once_from_the_inside_out() {
    let mut place = Place::new();
    for path in ["made", "made/deeper", "made/deeper/deepest"] {
        place.root.create_dir(&at(path), 0o755).unwrap();
    }
    let path = "made/deeper/f";
    // What failed is tried again for the next upload: it promises something itself.
    let fails = place.refuses("made");
    assert_eq!(place.commit(&[path], ALL, fails), [errno(Errno::IO)]);
    let tried = ["file made/deeper/f []"];
    let dirs = [
        "dir /made/deeper [made/deeper/f]",
        "dir /made [made/deeper/f]",
    ];
    place.check(&[&tried[..], &dirs[..]].concat());
    assert_eq!(place.commit(&[path], ALL, FINE), [None]);
    let all = [
        "file made/deeper/f [made/deeper/f]",
        dirs[0],
        dirs[1],
        "dir / [made/deeper/f]",
    ];
    place.check(&all);
    // And then no more.
    assert_eq!(place.commit(&[path], ALL, FINE), [None]);
    place.check(&[all[0], all[1]]);
    assert_eq!(place.commit(&["made/deeper/deepest/f"], ALL, FINE), [None]);
    let seen = "[made/deeper/deepest/f]";
    let file = "file made/deeper/deepest/f []".to_string();
    let (inner, outer) = (
        format!("dir /made/deeper/deepest {seen}"),
        format!("dir /made/deeper {seen}"),
    );
    place.check(&[&file, &inner, &outer]);
}

#[test]
fn more_new_directories_than_are_kept_in_mind() {
    let mut place = Place::new();
    let dev = stat_open(place.stage("x").0.dir()).unwrap().dev;
    for ino in 0..60_000 {
        place.root.made().add((dev, 1 << 40 | ino));
    }
    let fails = |what: &Sync| matches!(what, Sync::FileSystemOf(_)).then_some(Errno::IO);
    assert_eq!(place.commit(&["f"], ALL, fails), [errno(Errno::IO)]);
    assert_eq!(place.commit(&["f"], ALL, FINE), [None]);
    assert_eq!(place.commit(&["f"], ALL, FINE), [None]);
    place.check(&[
        "file f []",
        "all of / [f]",
        "file f [f]",
        "all of / [f]",
        "file f [f]",
        "dir / [f]",
    ]);
}

#[test]
fn a_disk_that_refused_a_part_of_a_file_gets_no_second_chance() {
    let place = Place::new();
    let (mut upload, how) = place.stage("taken");
    let staged = upload.staged().unwrap();
    upload.write_back().unwrap().run().unwrap();
    staged.spoil();
    let found = commit(vec![(upload, how)], ALL);
    let error = found[0].result.as_ref().unwrap_err();
    assert_eq!(error.raw_os_error(), errno(Errno::IO));
    place.holds("taken", Some("old"));
}

#[test]
fn a_rename_syncs_both_directories() {
    let place = Place::new();
    place
        .root
        .rename(&at("taken"), &at("d/moved"), true)
        .unwrap()
        .sync()
        .unwrap();
    place.holds("d/moved", Some("old"));
    // Where one is gone meanwhile, its names are too.
    let renamed = place
        .root
        .rename(&at("d/moved"), &at("back"), true)
        .unwrap();
    fs::remove_dir(place.dir.path().join("d")).unwrap();
    let error = renamed.sync().err().and_then(|error| error.raw_os_error());
    assert!(error.is_none() || error == errno(Errno::IO));
}

/// As somebody else than root finds a directory for letters: nobody but its owner looks into it.
#[test]
fn a_directory_that_cannot_be_read_is_synced_too() {
    let place = Place::new();
    let dir = place.stage("d/f").0.dir().clone();
    sync_unreadable(&dir).unwrap();
    place.has(&["d", "taken"]);
}
