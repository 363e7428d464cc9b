//! Disks that fail, seldom and for a moment: what is answered, what is left, and that the server
//! goes on.

use std::fs;

use crate::common::content::{MIB, bytes};
use crate::common::control::Control;
use crate::common::server::{Server, four_questions};
use crate::common::trace::{Strace, Traced};

/// What a name may hold afterwards.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Holds {
    Old,
    New,
}

/// One fault, and what an upload is answered that meets it.
struct Case {
    fault: &'static str,
    code: u16,
    holds: Holds,
}

const fn case(fault: &'static str, code: u16, holds: Holds) -> Case {
    Case { fault, code, holds }
}

/// Of the file; the directory is another thread's.
const ALL: [Case; 3] = [
    case("fsync:error=EIO:when=1", 451, Holds::Old),
    case("fsync:error=ENOSPC:when=1", 452, Holds::Old),
    case("fsync:error=EINTR:when=1", 226, Holds::New),
];

/// Of a name that nobody has.
const OF_NEW: [Case; 5] = [
    case("linkat:error=EIO:when=1", 451, Holds::Old),
    case("linkat:error=ENOSPC:when=1", 452, Holds::Old),
    case("linkat:error=EDQUOT:when=1", 552, Holds::Old),
    case("linkat:error=EROFS:when=1", 550, Holds::Old),
    case("fsync:error=EROFS:when=1", 550, Holds::Old),
];

/// Of a name that is taken.
const OF_OLD: [Case; 4] = [
    case("pwrite64:error=EDQUOT:when=1", 552, Holds::Old),
    case("renameat:error=EIO:when=1", 451, Holds::Old),
    case("renameat:error=ENOSPC:when=1", 452, Holds::Old),
    case("renameat:error=EROFS:when=1", 550, Holds::Old),
];

#[test]
fn c03_a_fault_of_a_commit_costs_that_upload_and_leaves_the_old_or_the_new_file() {
    for (old, cases) in [
        (false, &ALL[..]),
        (false, &OF_NEW),
        (true, &ALL),
        (true, &OF_OLD),
    ] {
        for case in cases {
            check(case, old, |control, content| {
                control.stor("f", content).code
            });
        }
    }
    check(&ALL[0], true, |control, content| {
        control.upload("f", content).code
    });
    check(&OF_OLD[2], true, |control, content| {
        control.send(format!("UPLOAD {}+ f\r\n", content.len()).as_bytes());
        control.send(content);
        control.reply().code
    });
}

#[track_caller]
fn check(case: &Case, old: bool, upload: impl Fn(&mut Control, &[u8]) -> u16) {
    let what = format!(
        "{} {}",
        case.fault,
        if old { "over an old file" } else { "" }
    );
    let traced = Traced::start(&[], &[case.fault]);
    let (path, new) = (traced.server.path("f"), bytes(3, 3000));
    if old {
        fs::write(&path, b"old").expect("writing");
    }
    let mut control = Control::login(traced.server.addr());
    assert_eq!(upload(&mut control, &new), case.code, "{what}");
    let found = fs::read(&path).ok();
    let expected = match case.holds {
        Holds::New => Some(new.clone()),
        Holds::Old => old.then(|| b"old".to_vec()),
    };
    assert!(found == expected, "{what}: what the name holds");
    // Nothing else is there, and all goes on.
    let names = fs::read_dir(traced.server.root()).expect("there").count();
    assert_eq!(names, usize::from(expected.is_some()), "{what}");
    // Each thread has its first call, so the name may meet the same fault once more.
    let goes_on = (0..2).any(|_| control.stor("f", &new).code == 226);
    assert!(goes_on, "{what}: and the next");
    assert_eq!(fs::read(&path).expect("there"), new, "{what}");
    control.quit();
    let calls = traced.calls();
    let failed = |call: &&crate::common::trace::Call| call.is("fsync") && call.result < 0;
    for call in calls.iter().filter(failed) {
        let again = calls.iter().any(|later| {
            later.begin > call.end && later.is("fsync") && later.descriptor(0) == call.descriptor(0)
        });
        // The same number and inode: an interrupted call has told nothing, every other one is final.
        let file = call
            .descriptor(0)
            .is_some_and(|(_, path)| path.contains('#') || path.contains("/.haul-"));
        assert!(
            !file || again == (case.code == 226),
            "{what}: a failed sync is not repeated"
        );
    }
}

#[test]
fn c03_a_name_that_does_not_reach_the_disk_is_no_226() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let mut control = Control::login(server.addr());
    let root = server.root().to_str().expect("a text");
    for content in [b"first", b"other"] {
        let fault = ["-e", "inject=fsync:error=EIO:when=1"];
        let only = ["-o", "/dev/null", "-P", root, "-e", "trace=fsync"];
        let strace = Strace::attach(&server, &[&only[..], &fault].concat());
        assert_eq!(control.stor("f", content).code, 451);
        assert_eq!(fs::read(server.path("f")).expect("there"), content);
        assert_eq!(control.stor("g", content).code, 226);
        strace.detach();
    }
    control.quit();
    four_questions(&server, baseline);
}

#[test]
fn c03_a_batch_of_which_the_sync_fails_is_synced_file_by_file() {
    let faults = [
        "syncfs:error=EIO:when=1+",
        "fsync:delay_enter=500000:when=1",
    ];
    let traced = Traced::start(&[], &faults);
    let mut control = Control::login(traced.server.addr());
    // While the first is being synced the others come together.
    let mut series = Vec::new();
    for n in 0..8 {
        series.extend_from_slice(format!("UPLOAD 5+ f{n}\r\n1234{n}").as_bytes());
    }
    control.send(&series);
    for n in 0..8 {
        assert_eq!(control.reply().code, 226, "f{n}");
        let found = fs::read_to_string(traced.server.path(&format!("f{n}")));
        assert_eq!(found.expect("there"), format!("1234{n}"));
    }
    control.quit();
    let calls = traced.calls();
    let files = calls
        .iter()
        .filter(|it| it.is("fsync") && it.args.contains('#'));
    assert_eq!(files.count(), 8, "each once");
}

#[test]
fn c03_a_write_that_fails_costs_that_upload() {
    for (error, code) in [("EIO", 451), ("ENOSPC", 452), ("EDQUOT", 552)] {
        for when in [1, 2] {
            let fault = format!("pwrite64:error={error}:when={when}");
            let traced = Traced::start(&[], &[&fault]);
            let mut control = Control::login(traced.server.addr());
            fs::write(traced.server.path("f"), b"old").expect("writing");
            let content = bytes(7, 3000);
            let mut codes = Vec::new();
            for _ in 0..3 {
                codes.push(control.stor("f", &content).code);
                let found = fs::read(traced.server.path("f")).expect("there");
                let is_new = found == content;
                assert!(
                    is_new || (found == b"old" && !codes.contains(&226)),
                    "{fault}"
                );
            }
            assert_eq!(
                codes.iter().filter(|it| **it == code).count(),
                1,
                "{fault}: {codes:?}"
            );
            assert_eq!(
                codes.iter().filter(|it| **it == 226).count(),
                2,
                "{fault}: {codes:?}"
            );
            four_questions(&traced.server, traced.server.descriptors());
        }
    }
}

#[test]
fn c04_interrupted_calls_are_made_again() {
    let faults = [
        "pwrite64:error=EINTR:when=1+3",
        "fsync:error=EINTR:when=1+2",
        "fdatasync:error=EINTR:when=1+2",
        "openat2:error=EINTR:when=1+2",
    ];
    let traced = Traced::start(&[], &faults);
    fs::create_dir(traced.server.path("d")).expect("making a directory");
    let mut control = Control::login(traced.server.addr());
    for (n, size) in [0, 1, 3000, 20 * MIB].into_iter().enumerate() {
        let content = bytes(n as u64, size);
        assert_eq!(control.stor("d/f", &content).code, 226);
        assert!(fs::read(traced.server.path("d/f")).expect("there") == content);
    }
    control.quit();
}

#[test]
fn c03_an_early_write_back_that_fails_costs_the_upload_however_far_it_has_come() {
    let traced = Traced::start(&[], &["fdatasync:error=EIO:when=1"]);
    fs::write(traced.server.path("f"), b"old").expect("writing");
    let mut control = Control::login(traced.server.addr());
    let large = bytes(5, 12 * MIB);
    assert_eq!(store(&mut control, "f", &large), 451);
    assert_eq!(fs::read(traced.server.path("f")).expect("there"), b"old");
    assert_eq!(store(&mut control, "f", &large), 226);
    assert!(fs::read(traced.server.path("f")).expect("there") == large);
    control.quit();
}

/// The server may have answered and closed before everything was sent.
fn store(control: &mut Control, name: &str, content: &[u8]) -> u16 {
    let mut data = control.epsv();
    assert_eq!(control.command(&format!("STOR {name}")).code, 150);
    let _ = std::io::Write::write_all(&mut data, content);
    drop(data);
    control.reply().code
}

#[test]
fn c05_without_descriptors_an_upload_is_451_and_the_next_is_not() {
    for errno in ["EMFILE", "ENFILE"] {
        let fault = format!("openat2:error={errno}:when=1");
        let traced = Traced::start(&[], &[&fault]);
        fs::create_dir(traced.server.path("d")).expect("making a directory");
        let mut control = Control::login(traced.server.addr());
        assert_eq!(control.stor("d/f", b"x").code, 451);
        assert_eq!(control.stor("d/f", b"x").code, 226);
        control.quit();
    }
}

#[test]
fn a_rename_whose_directory_fails_is_451_and_has_happened() {
    let traced = Traced::start(&[], &["fsync:error=EIO:when=1"]);
    fs::write(traced.server.path("f"), b"x").expect("writing");
    let mut control = Control::login(traced.server.addr());
    assert_eq!(control.command("RNFR f").code, 350);
    assert_eq!(control.command("RNTO g").code, 451);
    assert_eq!(fs::read(traced.server.path("g")).expect("there"), b"x");
    assert_eq!(control.command("NOOP").code, 200);
    control.quit();
}
