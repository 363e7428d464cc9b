//! In which order things reach the disk, seen from the system calls: the bytes, the name, the
//! directory, the reply.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::common::content::{MIB, bytes};
use crate::common::control::Control;
use crate::common::trace::{Call, Traced, parse};
use crate::common::{PATIENCE, wait_for};

/// What has been shown of one upload so far.
#[derive(Debug, Default, Clone)]
struct File {
    /// The last write to it ended here.
    written: usize,
    /// A sync of all that was written ended here.
    synced: Option<usize>,
}

impl File {
    /// All that was written is on the disk, if it was not there already.
    fn reached(&mut self, at: usize) {
        self.synced.get_or_insert(at);
    }
}

/// Follows the calls, and finds for every name when it appeared, when its directory was synced
/// behind that, and whether its bytes were on the disk before.
struct Shown {
    /// When the directory of a name was on the disk.
    durable: HashMap<String, usize>,
    /// Names that appeared before their bytes were on the disk.
    early: Vec<String>,
    synced_dirs: Vec<(String, usize, usize)>,
}

impl Shown {
    /// A directory was synced, and with it the names in it that had `appeared` before that.
    fn synced_dir(&mut self, path: &str, call: &Call, appeared: &[(String, String, usize)]) {
        let synced = (path.to_string(), call.begin, call.end);
        self.synced_dirs.push(synced);
        for (dir, name, at) in appeared {
            if dir == path && *at < call.begin {
                let name = format!("{dir}/{name}");
                self.durable.entry(name).or_insert(call.end);
            }
        }
    }
}

fn follow(calls: &[Call]) -> Shown {
    let mut files: HashMap<i64, File> = HashMap::new();
    let mut hidden: HashMap<String, bool> = HashMap::new();
    // Files that have had a hidden name from the start.
    let mut named: HashMap<String, i64> = HashMap::new();
    let mut appeared: Vec<(String, String, usize)> = Vec::new();
    let mut shown = Shown {
        durable: HashMap::new(),
        early: Vec::new(),
        synced_dirs: Vec::new(),
    };
    // A file is a new one from the end of its opening on: when that began, another thread may still
    // have had the number for another.
    let mut calls: Vec<&Call> = calls.iter().filter(|call| call.result >= 0).collect();
    calls.sort_by_key(|call| match call.is("openat") {
        true => call.end,
        false => call.begin,
    });
    for call in calls {
        match call.name.as_str() {
            "openat" if call.args.contains("O_TMPFILE") => {
                files.insert(call.result, File::default());
            }
            "openat" if call.args.contains("O_EXCL") => {
                files.insert(call.result, File::default());
                named.insert(quoted(&call.args)[0].to_string(), call.result);
            }
            "write" | "pwrite64" | "splice" => {
                let written = if call.is("splice") { 2 } else { 0 };
                if let Some((fd, _)) = call.descriptor(written)
                    && let Some(file) = files.get_mut(&fd)
                {
                    (file.written, file.synced) = (call.end, None);
                }
            }
            "fsync" => {
                let Some((fd, path)) = call.descriptor(0) else {
                    continue;
                };
                let is_file = path.contains('#') || path.contains(".haul-");
                match files.get_mut(&fd).filter(|_| is_file) {
                    Some(file) if file.written < call.begin => file.reached(call.end),
                    Some(_) => {}
                    None => shown.synced_dir(path, call, &appeared),
                }
            }
            "syncfs" => {
                for file in files.values_mut().filter(|file| file.written < call.begin) {
                    file.reached(call.end);
                }
            }
            "linkat" | "renameat" => {
                let (Some((_, dir)), quoted) = (call.descriptor(2), quoted(&call.args)) else {
                    continue;
                };
                let (from, to) = (quoted[0], quoted[1].to_string());
                let links = call.is("linkat");
                let fd = match (links, from) {
                    (true, "") => call.descriptor(0).map(|(fd, _)| fd),
                    (true, _) => Some(from.parse().expect("a descriptor's number")),
                    (false, _) => named.get(from).copied(),
                };
                let synced = match fd {
                    Some(fd) => files[&fd].synced.is_some_and(|at| at < call.begin),
                    None => hidden.get(from).copied().unwrap_or(false),
                };
                if links && to.starts_with(".haul-") {
                    hidden.insert(to, synced);
                    continue;
                }
                if !synced {
                    shown.early.push(to.clone());
                }
                appeared.push((dir.to_string(), to, call.end));
            }
            _ => {}
        }
    }
    shown
}

#[test]
fn a_number_is_of_another_file_from_the_end_of_its_opening_on() {
    let calls = parse(
        "7 openat(9</d>, \".\", O_RDWR|O_TMPFILE, 0600) = 12</d/#1 (deleted)>\n\
         7 pwrite64(12</d/#1 (deleted)>, \"x\", 1, 0) = 1\n\
         8 fsync(12</d/#1 (deleted)>) = 0\n\
         7 openat(9</d>, \".\", O_RDWR|O_TMPFILE, 0600 <unfinished ...>\n\
         8 linkat(5</proc/7/fd>, \"12\", 9</d>, \"f\", AT_SYMLINK_FOLLOW) = 0\n\
         7 <... openat resumed>) = 12</d/#2 (deleted)>\n\
         8 linkat(5</proc/7/fd>, \"12\", 9</d>, \"g\", AT_SYMLINK_FOLLOW) = 0\n",
    );
    assert_eq!(follow(&calls).early, ["g"]);
}

fn quoted(args: &str) -> Vec<&str> {
    args.split('"').skip(1).step_by(2).collect()
}

/// When each reply with one of these texts began to be sent.
fn replies(calls: &[Call], text: &str) -> Vec<usize> {
    let sends = calls.iter().filter(|call| call.is("sendto"));
    sends
        .flat_map(|call| call.args.matches(text).map(move |_| call.begin))
        .collect()
}

/// A content whose length is in the reply, so that the reply tells which file it is about.
fn content(n: usize) -> Vec<u8> {
    bytes(n as u64, 1000 + n)
}

fn reply_of(n: usize) -> String {
    format!("226 {} bytes stored", 1000 + n)
}

/// The served directory as the system writes it.
fn root_of(traced: &Traced) -> String {
    let root = traced.server.root().to_str().expect("a text");
    root.trim_end_matches('/').to_string()
}

fn upload_all(control: &mut Control, dir: &str) -> Vec<(String, usize)> {
    let mut names = Vec::new();
    for round in 0..2 {
        assert_eq!(
            control
                .stor(&format!("{dir}stor"), &content(10 + round))
                .code,
            226
        );
        names.push(("stor".to_string(), 10 + round));
        assert_eq!(
            control
                .upload(&format!("{dir}upload"), &content(20 + round))
                .code,
            226
        );
        names.push(("upload".to_string(), 20 + round));
        let mut series = Vec::new();
        for n in 0..30 {
            let number = 100 * (round + 1) + n;
            let content = content(number);
            let line = format!("UPLOAD {}+ {dir}series{n}\r\n", content.len());
            series.extend_from_slice(line.as_bytes());
            series.extend_from_slice(&content);
            names.push((format!("series{n}"), number));
        }
        control.send(&series);
        for _ in 0..30 {
            assert_eq!(control.reply().code, 226);
        }
    }
    names
}

#[test]
fn c02_for_every_226_the_bytes_then_the_name_then_the_directory_were_on_the_disk() {
    let traced = Traced::start(&[], &[]);
    let root = root_of(&traced);
    let mut control = Control::login(traced.server.addr());
    let names = upload_all(&mut control, "");
    control.quit();
    let calls = traced.calls();
    let shown = follow(&calls);
    assert!(
        shown.early.is_empty(),
        "before their bytes: {:?}",
        shown.early
    );
    for (name, number) in names {
        let sent = replies(&calls, &reply_of(number));
        assert_eq!(sent.len(), 1, "{name}: {sent:?}");
        let durable = shown.durable.get(&format!("{root}/{name}"));
        assert!(
            durable.is_some_and(|at| *at < sent[0]),
            "{name}: {durable:?}, {sent:?}"
        );
    }
}

#[test]
fn a_large_upload_is_written_back_early_and_all_of_it_before_its_name() {
    let traced = Traced::start(&[], &[]);
    let root = root_of(&traced);
    let mut control = Control::login(traced.server.addr());
    let large = bytes(1, 40 * MIB);
    assert_eq!(control.stor("large", &large).code, 226);
    control.quit();
    let calls = traced.calls();
    let shown = follow(&calls);
    assert!(shown.early.is_empty());
    assert!(shown.durable.contains_key(&format!("{root}/large")));
    // On a slow disk the first one may last until all has come in.
    let mut early = calls
        .iter()
        .filter(|it| it.is("fdatasync") && it.result == 0);
    assert!(early.next().is_some(), "while it came in");
}

#[test]
fn many_uploads_are_written_back_before_they_fill_the_memory() {
    // 64 MiB, of which a quarter may wait.
    let traced = Traced::with_much_to_write((0, 16 * 1024), &[], &[]);
    let content: Vec<_> = (0..4).map(|n| bytes(n, 7 * MIB)).collect();
    let mut sessions: Vec<_> = content
        .iter()
        .enumerate()
        .map(|(n, content)| {
            let mut control = Control::login(traced.server.addr());
            let line = format!("UPLOAD {} f{n}", content.len());
            assert_eq!(control.command(&line).code, 150);
            control.send(&content[..5 * MIB]);
            control
        })
        .collect();
    // None of them alone has sent enough to be worth it.
    wait_for(PATIENCE, || traced.is_told("fdatasync(").then_some(())).expect("written back");
    for (n, (control, content)) in sessions.iter_mut().zip(&content).enumerate() {
        control.send(&content[5 * MIB..]);
        assert_eq!(control.reply().code, 226);
        let stored = std::fs::read(traced.server.path(&format!("f{n}"))).expect("stored");
        assert!(stored == *content);
    }
}

#[test]
fn without_durability_a_large_upload_is_written_back_only_where_much_waits() {
    for (dirty, is_written_back) in [(100, true), (1, false)] {
        let traced = Traced::with_much_to_write((dirty, 10), &["--durability", "none"], &[]);
        let mut control = Control::login(traced.server.addr());
        assert_eq!(control.stor("large", &bytes(1, 40 * MIB)).code, 226);
        control.quit();
        let told = traced.calls().iter().any(|call| call.is("fdatasync"));
        assert_eq!(told, is_written_back, "{dirty} pages wait");
    }
}

#[test]
fn directories_above_that_are_new_are_synced_before_the_reply() {
    let traced = Traced::start(&[], &[]);
    let root = root_of(&traced);
    let mut control = Control::login(traced.server.addr());
    for dir in ["a", "a/b"] {
        assert_eq!(control.command(&format!("MKD {dir}")).code, 257);
    }
    assert_eq!(control.upload("a/b/first", &content(1)).code, 226);
    assert_eq!(control.upload("a/b/second", &content(2)).code, 226);
    control.quit();
    let calls = traced.calls();
    let shown = follow(&calls);
    let first = replies(&calls, &reply_of(1))[0];
    let before: Vec<_> = shown
        .synced_dirs
        .iter()
        .filter(|(_, _, end)| *end < first)
        .collect();
    let dirs: HashSet<&str> = before.iter().map(|(dir, ..)| dir.as_str()).collect();
    let (a, b) = (format!("{root}/a"), format!("{root}/a/b"));
    assert_eq!(dirs, HashSet::from([root.as_str(), &a, &b]));
    // For the second there is nothing above that is new.
    let later = shown.synced_dirs.len() - before.len();
    assert_eq!(later, 1, "{:?}", shown.synced_dirs);
}

#[test]
fn a_rename_syncs_both_directories_before_its_reply() {
    let traced = Traced::start(&[], &[]);
    let root = root_of(&traced);
    for dir in ["from", "to"] {
        std::fs::create_dir(traced.server.path(dir)).expect("making a directory");
    }
    let mut control = Control::login(traced.server.addr());
    assert_eq!(control.upload("from/f", b"x").code, 226);
    assert_eq!(control.command("RNFR from/f").code, 350);
    assert_eq!(control.command("RNTO to/f").code, 250);
    control.quit();
    let calls = traced.calls();
    let shown = follow(&calls);
    let renamed = calls
        .iter()
        .find(|it| it.is("renameat2") && it.result == 0)
        .expect("renamed")
        .end;
    let told = replies(&calls, "250 Renamed")[0];
    for dir in ["from", "to"] {
        let dir = Path::new(&root).join(dir);
        let synced = |(path, begin, end): &(String, usize, usize)| {
            Path::new(path) == dir && *begin > renamed && *end < told
        };
        assert!(
            shown.synced_dirs.iter().any(synced),
            "{dir:?}: {:?}",
            shown.synced_dirs
        );
    }
}

#[test]
fn durability_data_syncs_files_and_no_directory_and_none_syncs_nothing() {
    for (promise, files) in [("data", true), ("none", false)] {
        let traced = Traced::start(&["--durability", promise], &[]);
        let mut control = Control::login(traced.server.addr());
        upload_all(&mut control, "");
        assert_eq!(control.command("RNFR stor").code, 350);
        assert_eq!(control.command("RNTO renamed").code, 250);
        control.quit();
        let calls = traced.calls();
        let shown = follow(&calls);
        assert_eq!(
            shown.early.is_empty(),
            files,
            "{promise}: {:?}",
            shown.early
        );
        assert_eq!(shown.synced_dirs, [], "{promise}");
        let syncs = calls.iter().filter(|it| it.name.contains("sync"));
        assert_eq!(syncs.count() > 0, files, "{promise}");
    }
}

#[test]
fn how_much_the_machine_has_to_write_can_be_asked_behind_both_walls() {
    let traced = Traced::start(&[], &[]);
    let fds = std::fs::read_dir(format!("/proc/{}/fd", traced.server.pid())).expect("running");
    let opened = fds
        .flatten()
        .filter_map(|it| std::fs::read_link(it.path()).ok());
    assert!(
        opened
            .into_iter()
            .any(|path| path == Path::new("/proc/vmstat"))
    );
}
