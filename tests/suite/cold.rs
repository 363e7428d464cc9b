//! Files that are not in memory: reading them takes as long as the disk likes, and nobody else waits
//! for that.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::Advice;

use crate::common::content::{KIB, MIB, assert_same, bytes};
use crate::common::control::Control;
use crate::common::secure::{Pair, Secure};
use crate::common::server::{Server, four_questions};
use crate::common::trace::{Call, Strace, Traced};
use crate::common::{PATIENCE, wait_for};

const CALLS: &str = "trace=pread64,preadv2,sendfile";
/// Of every read: far longer than what else a session does.
const DELAY_US: u32 = 100_000;

/// Writes a file of which nothing stays in memory.
fn write_cold(path: &Path, content: &[u8]) {
    fs::write(path, content).expect("writing");
    let file = File::open(path).expect("opening");
    file.sync_all().expect("syncing");
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).expect("advising");
}

fn reactor(calls: &[Call]) -> u32 {
    let reactor = calls.iter().map(|it| it.thread).min();
    reactor.expect("a call")
}

/// What the reactor asks of a disk it asks in such a way that it need not wait.
fn assert_reads_elsewhere(calls: &[Call]) {
    let reactor = reactor(calls);
    // The program's own libraries are read in the same way, and what the system tells.
    let is_other = |it: &Call| {
        let at = it.descriptor(0);
        at.is_some_and(|(_, path)| path.contains(".so") || path.starts_with("/proc/"))
    };
    let reads = |it: &&Call| it.is("pread64") && !is_other(it);
    let elsewhere = calls.iter().filter(reads).filter(|it| it.thread != reactor);
    assert!(
        elsewhere.count() > 0,
        "nothing was read elsewhere: is the temporary directory in memory?"
    );
    let here = calls.iter().filter(reads).find(|it| it.thread == reactor);
    assert!(here.is_none(), "{here:?}");
}

#[test]
fn nobody_waits_for_the_cold_file_of_another() {
    let delayed = format!("pread64:delay_enter={DELAY_US}");
    let traced = Traced::watching(CALLS, &[], &[&delayed]);
    let server = &traced.server;
    let baseline = server.baseline();
    let content = bytes(1, 3 * MIB);
    write_cold(&server.path("f"), &content);
    write_cold(&server.path("g"), &content);
    let small = bytes(2, 4 * KIB);
    for n in 0..4 {
        write_cold(&server.path(&format!("s{n}")), &small);
    }
    let ended = AtomicBool::new(false);
    let asked = thread::scope(|scope| {
        let downloads = [
            scope.spawn(|| {
                let mut session = Control::login(server.addr());
                assert_same(&session.fetch("RETR f").0, &content, "RETR");
                session.quit();
            }),
            scope.spawn(|| {
                let mut session = Control::login(server.addr());
                assert_same(&session.download("g").0, &content, "DOWNLOAD");
                for n in 0..4 {
                    assert_same(&session.download(&format!("s{n}")).0, &small, "small");
                }
                session.quit();
            }),
        ];
        let asks = scope.spawn(|| {
            let mut session = Control::login(server.addr());
            let mut asked = 0;
            while !ended.load(Ordering::Relaxed) {
                assert_eq!(session.command("NOOP").code, 200);
                asked += 1;
            }
            session.quit();
            asked
        });
        for download in downloads {
            download.join().expect("a download");
        }
        ended.store(true, Ordering::Relaxed);
        asks.join().expect("questions")
    });
    four_questions(server, baseline);
    let calls = traced.calls();
    assert_reads_elsewhere(&calls);
    // At least so many for every read, had they to wait for it.
    let reads = calls.iter().filter(|it| it.is("pread64")).count();
    assert!(asked > 2 * reads, "{asked} questions during {reads} reads");
}

#[test]
fn cold_files_inside_tls_and_in_type_a_are_read_elsewhere_too() {
    let pair = Pair::new();
    let options = pair.options();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let traced = Traced::watching(CALLS, &options, &[]);
    let server = &traced.server;
    let content = bytes(3, 2 * MIB);
    write_cold(&server.path("f"), &content);
    let text = b"line\r\n".repeat(100_000);
    let stored = b"line\n".repeat(100_000);
    write_cold(&server.path("t"), &stored);
    let mut session = Secure::login(server.addr(), pair.client());
    let mut data = session.data("RETR f").expect("TLS");
    let mut got = Vec::new();
    data.read_to_end(&mut got).expect("reading");
    assert_same(&got, &content, "RETR inside TLS");
    assert_eq!(session.reply().0, 226);
    drop(session);
    let mut session = Control::login(server.addr());
    assert_eq!(session.command("TYPE A").code, 200);
    assert_same(&session.fetch("RETR t").0, &text, "TYPE A");
    session.quit();
    assert_reads_elsewhere(&traced.calls());
}

#[test]
fn a_session_that_ends_while_its_file_is_read_in_leaves_nothing() {
    let traced = Traced::watching(CALLS, &[], &["pread64:delay_enter=50000"]);
    let server = &traced.server;
    let baseline = server.baseline();
    let content = bytes(4, 2 * MIB);
    for n in 0..6 {
        let (f, g) = (format!("f{n}"), format!("g{n}"));
        write_cold(&server.path(&f), &content);
        write_cold(&server.path(&g), &content);
        let mut session = Control::login(server.addr());
        let mut data = session.epsv();
        assert_eq!(session.command(&format!("RETR {f}")).code, 150);
        match n % 3 {
            // It goes, or breaks off and asks for something else while the answer is on its way.
            0 => drop(session),
            1 => {
                session.send(b"ABOR\r\n");
                assert_eq!(session.reply().code, 426);
                assert_eq!(session.reply().code, 226);
                assert_same(&session.download(&g).0, &content, "DOWNLOAD");
            }
            _ => {
                let mut got = Vec::new();
                data.read_to_end(&mut got).expect("reading");
                assert_same(&got, &content, "RETR");
                assert_eq!(session.reply().code, 226);
            }
        }
    }
    four_questions(server, baseline);
}

#[test]
fn a_disk_that_fails_fails_that_transfer() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let fault = ["-o", "/dev/null", "-e", "inject=pread64:error=EIO"];
    let strace = Strace::attach(&server, &fault);
    let mut session = Control::login(server.addr());
    // On a busy machine something may hold the file in memory in spite of all advice.
    let got = wait_for(PATIENCE, || {
        write_cold(&server.path("f"), &bytes(5, 2 * MIB));
        let mut data = session.epsv();
        assert_eq!(session.command("RETR f").code, 150);
        let mut got = Vec::new();
        data.read_to_end(&mut got).expect("an end");
        let reply = session.reply();
        assert!([226, 451].contains(&reply.code), "{reply:?}");
        (reply.code == 451).then_some(got)
    });
    assert!(got.expect("a failure").len() < 2 * MIB);
    session.quit();
    strace.detach();
    four_questions(&server, baseline);
}
