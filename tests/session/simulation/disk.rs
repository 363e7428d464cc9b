//! What the directory must hold: the old or the new content of every file, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::Path;

/// A file that every body and every piece of garbage tries to remove.
pub const CANARY: &str = "/canary";

/// Paths as clients write them, with their contents; and directories.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Disk {
    pub files: BTreeMap<String, Vec<u8>>,
    pub dirs: BTreeSet<String>,
}

impl Disk {
    pub fn furnish(dir: &Path) -> Disk {
        let mut disk = Disk::default();
        fs::create_dir(dir.join("d")).unwrap();
        disk.dirs.insert("/d".to_string());
        let contents: [(&str, &[u8]); 3] = [
            (CANARY, b"alive"),
            ("/a", b"first\r\nsecond\nthird\r"),
            ("/d/a", b""),
        ];
        for (path, content) in contents {
            fs::write(dir.join(&path[1..]), content).unwrap();
            disk.files.insert(path.to_string(), content.to_vec());
        }
        disk
    }

    pub fn check(&self, dir: &Path) {
        let mut found = Disk::default();
        read(dir, "", &mut found);
        assert!(
            found.files.contains_key(CANARY),
            "a body was read as commands"
        );
        assert_eq!(*self, found, "expected, and found");
    }
}

fn read(dir: &Path, prefix: &str, found: &mut Disk) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with(".haul-") {
            continue;
        }
        let path = format!("{prefix}/{name}");
        if entry.file_type().unwrap().is_dir() {
            read(&entry.path(), &path, found);
            found.dirs.insert(path);
        } else {
            found.files.insert(path, fs::read(entry.path()).unwrap());
        }
    }
}

/// Names that only the server uses, at any depth, but for those of partials.
pub fn staged(dir: &Path) -> Vec<OsString> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(".haul-p") {
            continue;
        }
        if name.to_string_lossy().starts_with(".haul-") {
            names.push(name);
        } else if entry.file_type().unwrap().is_dir() {
            names.extend(staged(&entry.path()));
        }
    }
    names
}
