//! The promises of the whole module: nothing outside is reached, nothing waits, names are bytes.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;

use super::path::VirtualPath;
use super::root::Root;
use super::staging::{Publish, Upload};
use super::walk::Tree;

const OVER: Publish = Publish {
    mode: 0o644,
    modify_s: Some(1),
    replace: true,
};

fn at(text: impl AsRef<[u8]>) -> VirtualPath {
    VirtualPath::root().join(text.as_ref())
}

#[track_caller]
fn refused<T>(result: io::Result<T>, errno: Errno) {
    let code = result.err().and_then(|e| e.raw_os_error());
    assert_eq!(code, Some(errno.raw_os_error()));
}

fn put(root: &Root, path: &VirtualPath) -> io::Result<()> {
    Upload::create(root, path)?.publish(&OVER)
}

/// `pub` is served; beside it lies what must stay as it is. Two levels further up is still
/// nobody else's, so that even a failing test does no harm.
struct Walls {
    _nest: tempfile::TempDir,
    dir: PathBuf,
    root: Root,
    before: Vec<(PathBuf, u64, i64, u32, Vec<u8>)>,
}

impl Walls {
    fn new() -> Walls {
        let nest = tempfile::tempdir().unwrap();
        let dir = nest.path().join("a/b");
        let real = |name: &str| dir.join(name);
        for name in ["pub/sub", "pub/own", "pub_secret/d", "outside/d"] {
            fs::create_dir_all(real(name)).unwrap();
        }
        for name in ["pub/sub/f", "pub/own/f", "pub_secret/f", "outside/f"] {
            fs::write(real(name), name).unwrap();
        }
        let links = [
            (real("outside"), "absolute"),
            ("../outside".into(), "up"),
            ("../../..".into(), "far_up"),
            ("../pub_secret".into(), "sibling"),
            (real("outside/f"), "file"),
            ("../outside/new".into(), "dangling"),
            ("loop".into(), "loop"),
            ("/proc/self/root".into(), "magic"),
            ("/proc/self/cwd".into(), "cwd"),
            ("up".into(), "chain"),
            ("sub/../../outside".into(), "around"),
            (real("pub/sub"), "absolute_but_inside"),
        ];
        for (target, name) in &links {
            symlink(target, real("pub").join(name)).unwrap();
        }
        symlink("sub", real("pub/in")).unwrap();
        let root = Root::open(&real("pub")).unwrap();
        let mut walls = Walls {
            _nest: nest,
            dir,
            root,
            before: Vec::new(),
        };
        walls.before = walls.outside();
        walls
    }

    fn leaving(&self) -> Vec<Vec<u8>> {
        let entries = fs::read_dir(self.dir.join("pub")).unwrap();
        let links = entries
            .map(Result::unwrap)
            .filter(|e| e.file_type().unwrap().is_symlink());
        links
            .map(|e| e.file_name().as_bytes().to_vec())
            .filter(|name| name != b"in")
            .collect()
    }

    fn outside(&self) -> Vec<(PathBuf, u64, i64, u32, Vec<u8>)> {
        let mut found = Vec::new();
        let mut to_do = vec![self.dir.join("pub_secret"), self.dir.join("outside")];
        while let Some(path) = to_do.pop() {
            let meta = fs::symlink_metadata(&path).unwrap();
            let mut content = Vec::new();
            if meta.is_dir() {
                to_do.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            } else {
                content = fs::read(&path).unwrap();
            }
            let changed = meta.ctime() * 1_000_000_000 + meta.ctime_nsec();
            found.push((path, meta.ino(), changed, meta.mode(), content));
        }
        found.sort();
        found
    }
}

impl Drop for Walls {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.before, self.outside());
        }
    }
}

#[test]
fn nothing_leads_through_a_link_that_leaves() {
    let walls = Walls::new();
    let root = &walls.root;
    let own = at("own/f");
    let leaving = walls.leaving();
    assert_eq!(leaving.len(), 12);
    for link in &leaving {
        for below in [&b"f"[..], b"d", b"new", b"d/new", b"outside/f"] {
            let through = at(link).join(below);
            let results = [
                root.stat(&through).map(drop),
                root.lstat(&through).map(drop),
                root.read_link(&through).map(drop),
                root.open_file(&through).map(drop),
                root.open_dir(&through).map(drop),
                root.create_dir(&through, 0o755),
                root.remove_dir(&through),
                root.remove_file(&through),
                root.rename(&through, &at("own/stolen"), true).map(drop),
                root.rename(&own, &through, true).map(drop),
                root.set_mode(&through, 0o755),
                root.set_modified(&through, 0),
                root.free_bytes(&through).map(drop),
                put(root, &through),
            ];
            for (nth, result) in results.into_iter().enumerate() {
                let code = result
                    .err()
                    .and_then(|e| e.raw_os_error())
                    .map(Errno::from_raw_os_error);
                assert!(
                    matches!(code, Some(Errno::XDEV | Errno::LOOP)),
                    "{nth} through {}: {code:?}",
                    String::from_utf8_lossy(through.as_bytes())
                );
            }
        }
    }
    assert!(root.stat(&own).is_ok());
}

#[test]
fn a_link_that_leaves_can_be_handled_but_not_followed() {
    let walls = Walls::new();
    let root = Arc::new(Root::open(&walls.dir.join("pub")).unwrap());
    for name in walls.leaving() {
        let link = at(&name);
        for result in [
            root.stat(&link).map(drop),
            root.open_file(&link).map(drop),
            root.open_dir(&link).map(drop),
            root.set_mode(&link, 0o755),
            root.set_modified(&link, 0),
            Tree::new(root.clone(), &link).map(drop),
        ] {
            let code = result
                .err()
                .and_then(|e| e.raw_os_error())
                .map(Errno::from_raw_os_error);
            assert!(
                matches!(code, Some(Errno::XDEV | Errno::LOOP)),
                "{name:?}: {code:?}"
            );
        }
    }
    for name in walls.leaving() {
        let link = at(&name);
        refused(root.create_dir(&link, 0o755), Errno::EXIST);
        refused(root.remove_dir(&link), Errno::NOTDIR);
        assert!(root.lstat(&link).is_ok() && root.read_link(&link).is_ok());
        root.rename(&link, &at("own/moved"), true).unwrap();
        root.rename(&at("own/moved"), &link, true).unwrap();
        put(&root, &link).unwrap();
        assert_eq!(root.stat(&link).unwrap().modify_s, 1);
        root.remove_file(&link).unwrap();
        refused(root.lstat(&link), Errno::NOENT);
    }
}

#[test]
fn a_link_that_stays_inside_is_followed() {
    let walls = Walls::new();
    let root = &walls.root;
    assert_eq!(
        root.stat(&at("in")).unwrap(),
        root.stat(&at("sub")).unwrap()
    );
    assert!(root.open_file(&at("in/f")).is_ok() && root.open_dir(&at("in")).is_ok());
    root.create_dir(&at("in/d"), 0o755).unwrap();
    root.rename(&at("in/d"), &at("sub/e"), true).unwrap();
    root.remove_dir(&at("in/e")).unwrap();
    put(root, &at("in/f")).unwrap();
    root.remove_file(&at("sub/f")).unwrap();
    refused(root.stat(&at("../pub_secret/f")), Errno::NOENT);
}

#[test]
fn a_directory_that_flips_to_a_link_lets_nothing_out() {
    let walls = Walls::new();
    let root = &walls.root;
    let real = |name: &str| walls.dir.join(name);
    symlink(real("outside"), real("pub/link")).unwrap();
    std::thread::scope(|scope| {
        let flips = scope.spawn(|| {
            let (d, link) = (real("pub/sub"), real("pub/link"));
            for _ in 0..50_000 {
                let (cwd, exchange) = (rustix::fs::CWD, rustix::fs::RenameFlags::EXCHANGE);
                rustix::fs::renameat_with(cwd, &d, cwd, &link, exchange).unwrap();
            }
        });
        let mut came_through = 0;
        while !flips.is_finished() {
            if let Ok((mut file, _)) = root.open_file(&at("sub/f")) {
                came_through += 1;
                assert_ne!(io::read_to_string(&mut file).unwrap(), "outside/f");
            }
            let _ = put(root, &at("sub/f"));
            let _ = root.create_dir(&at("sub/new"), 0o755);
            let _ = root.rename(&at("sub/new"), &at("sub/newer"), true);
            let _ = root.set_mode(&at("sub/f"), 0o600);
            let _ = root.remove_dir(&at("sub/newer"));
            let _ = root.remove_dir(&at("sub/d"));
        }
        assert!(came_through > 0);
    });
}

#[test]
fn what_is_no_file_neither_opens_nor_waits() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path()).unwrap();
    let fifo: &Path = &dir.path().join("fifo");
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, fifo, FileType::Fifo, mode, 0).unwrap();
    let _socket = UnixListener::bind(dir.path().join("socket")).unwrap();
    for name in ["fifo", "socket"] {
        refused(root.open_file(&at(name)), Errno::NXIO);
        refused(put(&root, &at(name)), Errno::NXIO);
        refused(root.open_dir(&at(name)), Errno::NOTDIR);
        refused(root.set_mode(&at(name), 0o755), Errno::NXIO);
        assert_eq!(
            root.stat(&at(name)).unwrap().kind,
            crate::proto::facts::Kind::Other
        );
        root.rename(&at(name), &at("moved"), true).unwrap();
        root.remove_file(&at("moved")).unwrap();
    }
}

#[test]
fn a_directory_that_leaves_takes_its_path_with_it() {
    let walls = Walls::new();
    let away = walls.dir.join("away");
    fs::rename(walls.dir.join("pub/own"), &away).unwrap();
    refused(walls.root.open_file(&at("own/f")), Errno::NOENT);
}

#[test]
fn names_are_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path()).unwrap();
    let longest = [b'n'; 255];
    for name in [
        &longest[..],
        b"\xff\xfe",
        b" leading",
        b"-rf",
        b"*",
        b"~root",
        b"end. ",
    ] {
        root.create_dir(&at(name), 0o755).unwrap();
        let on_disk = dir.path().join(OsStr::from_bytes(name));
        assert!(on_disk.is_dir(), "{name:?}");
        root.rename(&at(name), &at(b"x"), true).unwrap();
        root.rename(&at(b"x"), &at(name), true).unwrap();
        root.remove_dir(&at(name)).unwrap();
        put(&root, &at(name)).unwrap();
        assert!(on_disk.is_file(), "{name:?}");
        root.remove_file(&at(name)).unwrap();
    }
    refused(root.create_dir(&at([b'n'; 256]), 0o755), Errno::NAMETOOLONG);
    refused(root.stat(&at(b"d/".repeat(2100))), Errno::NAMETOOLONG);
    refused(root.create_dir(&at(b"a\0b"), 0o755), Errno::INVAL);
}

/// Whether anybody waits for the blocks of a large file is decided by who closes it last.
#[test]
fn only_large_files_are_kept_while_they_go() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path()).unwrap();
    let make = |name: &str, bytes: u64| {
        let file = fs::File::create(dir.path().join(name)).unwrap();
        file.set_len(bytes).unwrap();
    };
    make("small", 1);
    make("large", 1 << 30);
    fs::create_dir(dir.path().join("dir")).unwrap();
    symlink("large", dir.path().join("link")).unwrap();
    for name in ["small", "dir", "link", "absent", "/"] {
        assert!(root.keep_if_large(&at(name)).is_none(), "{name}");
    }
    let kept = root.keep_if_large(&at("large")).unwrap();
    let upload = Upload::create(&root, &at("large")).unwrap();
    let replaced = upload.keep_replaced_if_large();
    upload.publish(&OVER).unwrap();
    // What was replaced is without a name, and still there.
    for descriptor in [kept, replaced.unwrap()] {
        let meta = rustix::fs::fstat(&descriptor).unwrap();
        assert_eq!((meta.st_nlink, meta.st_size), (0, 1 << 30));
    }
    let small = Upload::create(&root, &at("small")).unwrap();
    assert!(small.keep_replaced_if_large().is_none());
}
