//! Uploads that break off, and how they go on (P09, P21 to P25, C09).

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use haul::proto::upload::hex;
use sha2::{Digest, Sha256};
use socket2::SockRef;

use crate::common::content::{MIB, assert_file, bytes};
use crate::common::control::Control;
use crate::common::secure::Pair;
use crate::common::server::{Server, four_questions};
use crate::common::tools::{curl, curl_command, finish, start};
use crate::common::trace::{Strace, Traced};
use crate::common::{PATIENCE, until, wait_for};

fn sha256(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

/// Bytes that have no end, on a socket that is reset when it is closed.
fn reset(stream: &TcpStream) {
    SockRef::from(stream)
        .set_linger(Some(Duration::ZERO))
        .expect("setting linger");
}

/// An upload of which only the beginning arrives.
fn break_off(server: &Server, name: &str, bytes: usize, beginning: &[u8]) {
    let mut session = Control::login(server.addr());
    assert_eq!(session.command(&format!("UPLOAD {bytes} {name}")).code, 150);
    session.send(beginning);
    session.stream().shutdown(Shutdown::Write).expect("closing");
    session.expect_eof();
}

/// The names that only hauld uses, in the root.
fn hidden(server: &Server) -> Vec<PathBuf> {
    let entries = fs::read_dir(server.root()).expect("reading the root");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .filter(|path| path.to_string_lossy().contains("/.haul-"))
        .collect()
}

fn url(server: &Server, name: &str) -> String {
    format!("ftp://{}/{name}", server.addr())
}

#[test]
fn p09_an_upload_that_was_cut_off_is_offered_and_continued() {
    let server = Server::start(&[]);
    let content = bytes(1, 1000);
    break_off(&server, "f", 1000, &content[..400]);
    assert!(!server.path("f").exists());
    let mut session = Control::login(server.addr());
    let offered = session.command("PARTIAL f");
    assert_eq!(offered.code, 213);
    assert_eq!(offered.text, format!("400 {}", sha256(&content[..400])));
    assert_eq!(session.fetch("NLST").0, b"");
    assert_eq!(session.command("REST 399").code, 350);
    assert_eq!(session.command("UPLOAD 601 f").code, 554);
    assert_eq!(session.command("REST 400").code, 350);
    assert_eq!(session.upload("f", &content[400..]).code, 226);
    assert_file(&server.path("f"), &content);
    assert!(hidden(&server).is_empty());
}

/// No descriptor is left to read what is there of it.
#[test]
fn p09_the_body_of_what_cannot_go_on_is_no_command() {
    let server = Server::start(&[]);
    let content = bytes(2, 1000);
    break_off(&server, "f", 1000, &content[..400]);
    let mut session = Control::login(server.addr());
    assert_eq!(session.command("PARTIAL f").code, 213);
    let fault = ["-e", "trace=fcntl", "-e", "inject=fcntl:error=EMFILE"];
    let strace = Strace::attach(&server, &[&["-o", "/dev/null"][..], &fault].concat());
    assert_eq!(session.command("REST 400").code, 350);
    let digest = sha256(&content);
    session.send(format!("UPLOAD 6+;sha256={digest}; f\r\nNOOP\r\nSYST\r\n").as_bytes());
    assert_eq!(session.reply().code, 451);
    assert_eq!(session.reply().code, 215);
    strace.detach();
    assert_eq!(session.command("PARTIAL f").code, 213);
    assert_eq!(session.command("REST 400").code, 350);
    assert_eq!(session.upload("f", &content[400..]).code, 226);
    assert_file(&server.path("f"), &content);
}

/// A name that no verb reaches would count as a file until somebody sweeps.
#[test]
fn p09_what_cannot_be_continued_leaves_no_hidden_name() {
    let no_attributes = "fsetxattr:error=EOPNOTSUPP";
    for (faults, arrives) in [(&[][..], 0), (&[no_attributes][..], 500)] {
        let traced = Traced::watching("trace=fsetxattr", &[], faults);
        let server = &traced.server;
        let mut session = Control::login(server.addr());
        assert_eq!(session.command("UPLOAD 100000000 f").code, 150);
        assert_eq!(
            hidden(server).len(),
            1,
            "it has its name from the beginning"
        );
        session.send(&bytes(9, arrives));
        drop(session);
        let gone = until(PATIENCE, || hidden(server).is_empty());
        assert!(gone, "{arrives} bytes: {:?}", hidden(server));
        assert_eq!(Control::login(server.addr()).command("PARTIAL f").code, 550);
    }
}

#[test]
fn p22_all_arrived_and_the_client_never_heard_of_it() {
    let server = Server::start(&[]);
    let content = bytes(2, MIB);
    let local = tempfile::NamedTempFile::new().expect("a file");
    fs::write(local.path(), &content).expect("writing");
    let mut session = Control::login(server.addr());
    let mut data = session.epsv();
    assert_eq!(session.command("STOR f").code, 150);
    data.write_all(&content).expect("sending");
    reset(session.stream());
    drop(session);
    let mut session = Control::login(server.addr());
    let offered = wait_for(PATIENCE, || {
        let reply = session.command("SIZE f");
        (reply.code == 213).then_some(reply.text)
    });
    assert_eq!(offered, Some((MIB - 1).to_string()));
    drop(data);
    let path = local.path().to_str().expect("UTF-8");
    curl(&["-C", "-", "-T", path, &url(&server, "f")]).ok();
    assert_file(&server.path("f"), &content);
}

/// What README warns of: SIZE is that of the published file, and curl goes by it.
#[test]
fn a_published_file_that_is_as_large_hides_what_is_kept() {
    let server = Server::start(&[]);
    let content = bytes(6, 1000);
    let local = tempfile::NamedTempFile::new().expect("a file");
    fs::write(local.path(), &content).expect("writing");
    let path = local.path().to_str().expect("UTF-8");
    for (old, sends_nothing) in [(1000, true), (1001, true), (999, false)] {
        let old = bytes(7, old);
        fs::write(server.path("f"), &old).expect("writing");
        break_off(&server, "f", 1000, &content[..400]);
        let done = curl(&["-C", "-", "-T", path, &url(&server, "f")]);
        assert_eq!(done.code == 0, sends_nothing, "{done:?}");
        assert_file(&server.path("f"), &old);
        curl(&["-T", path, &url(&server, "f")]).ok();
        assert_file(&server.path("f"), &content);
    }
}

/// Waits until an upload of the server has so many bytes.
fn until_received(server: &Server, bytes: u64) {
    let received = || {
        let open = fs::read_dir(format!("/proc/{}/fd", server.pid())).ok()?;
        let staged = open.flatten().filter(|fd| {
            let target = fs::read_link(fd.path()).unwrap_or_default();
            let target = target.to_string_lossy();
            target.starts_with(server.root().to_str().expect("UTF-8")) && target.contains("/#")
        });
        let size = |fd: fs::DirEntry| fs::metadata(fd.path()).map_or(0, |it| it.len());
        staged.map(size).any(|it| it >= bytes).then_some(())
    };
    wait_for(PATIENCE, received).expect("some of it arrives");
}

#[test]
fn p23_a_killed_client_of_tls_leaves_what_it_sent() {
    let pair = Pair::new();
    let options = pair.options();
    let server = Server::start(&options.iter().map(String::as_str).collect::<Vec<_>>());
    fs::write(server.path("f"), "old").expect("writing");
    let local = tempfile::NamedTempFile::new().expect("a file");
    let content = bytes(3, 8 * MIB);
    fs::write(local.path(), &content).expect("writing");
    let path = local.path().to_str().expect("UTF-8");
    let target = url(&server, "f");
    let mut command = curl_command(&["--ssl-reqd", "--insecure", "--limit-rate", "1M"]);
    command.args(["-T", path, &target]);
    let child = start(&mut command);
    let pid = rustix::process::Pid::from_child(&child);
    // All of it takes eight seconds.
    until_received(&server, 300_000);
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killing");
    finish(child, &command);
    continues(&server, &content);
}

/// The upload of `content` over an old file that broke off is kept, and the rest makes it whole.
/// Gives how much was kept.
#[track_caller]
fn continues(server: &Server, content: &[u8]) -> usize {
    assert_file(&server.path("f"), b"old");
    let mut session = Control::login(server.addr());
    let offered = wait_for(PATIENCE, || {
        let reply = session.command("PARTIAL f");
        (reply.code == 213).then_some(reply.text)
    });
    let offered = offered.expect("a partial");
    let (count, digest) = offered.split_once(' ').expect("a digest");
    let count: usize = count.parse().expect("a number");
    assert_eq!(digest, sha256(&content[..count]));
    assert_eq!(session.command(&format!("REST {count}")).code, 350);
    assert_eq!(session.upload("f", &content[count..]).code, 226);
    assert_file(&server.path("f"), content);
    count
}

#[test]
fn p23_a_killed_client_leaves_the_old_file_and_what_it_sent() {
    let content = bytes(23, 8 * MIB);
    let local = tempfile::NamedTempFile::new().expect("a file");
    fs::write(local.path(), &content).expect("writing");
    let path = local.path().to_str().expect("UTF-8");
    for verb in ["STOR", "UPLOAD"] {
        let server = Server::start(&[]);
        fs::write(server.path("f"), "old").expect("writing");
        let mut command = match verb {
            "STOR" => curl_command(&["--limit-rate", "1M", "-T", path, &url(&server, "f")]),
            _ => {
                let mut haul = std::process::Command::new(env!("CARGO_BIN_EXE_haul"));
                let address = server.addr().to_string();
                haul.args([
                    "--server",
                    &address,
                    "upload",
                    "--limit-rate",
                    "1MiB",
                    path,
                    "f",
                ]);
                haul
            }
        };
        let child = start(&mut command);
        let pid = rustix::process::Pid::from_child(&child);
        // It has taken long enough for being killed in the middle.
        until_received(&server, 300_000);
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killing");
        finish(child, &command);
        let count = continues(&server, &content);
        assert!((250_000..content.len()).contains(&count), "{verb}: {count}");
    }
}

/// A killed client's kernel ends its connections one after the other, and the data connection may
/// be the first: a sixth of the clients that were killed used to leave what they had sent as a
/// whole file.
#[test]
fn p23_a_control_connection_that_ends_just_behind_the_data_ends_the_upload_too() {
    for reset_too in [false, true] {
        let traced = Traced::start(&[], &["fsync:delay_enter=300000:when=1"]);
        let server = &traced.server;
        fs::write(server.path("f"), "old").expect("writing");
        let content = bytes(24, 5000);
        let mut session = Control::login(server.addr());
        let mut data = session.epsv();
        assert_eq!(session.command("STOR f").code, 150);
        data.write_all(&content).expect("sending");
        drop(data);
        // All of it is there, and on its way to the disk.
        assert!(
            until(PATIENCE, || traced.is_told("fsync(")),
            "a commit begins"
        );
        if reset_too {
            reset(session.stream());
        }
        drop(session);
        let mut back = Control::login(server.addr());
        // Who asks now waits until it is decided what becomes of it.
        let offered = back.command("PARTIAL f");
        let kept = &content[..content.len() - 1];
        let expected = format!("{} {}", kept.len(), sha256(kept));
        assert_eq!((offered.code, offered.text), (213, expected));
        assert_file(&server.path("f"), b"old");
        assert_eq!(back.command(&format!("REST {}", kept.len())).code, 350);
        assert_eq!(back.upload("f", &content[kept.len()..]).code, 226);
        assert_file(&server.path("f"), &content);
        four_questions(server, server.descriptors());
    }
}

/// Two of one name share a batch: what is kept of the first is of no use any more and goes, but it
/// must not take along what is kept of the second, which has its place by then.
#[test]
fn p23_of_two_uploads_of_one_name_that_ended_behind_their_data_the_later_one_is_kept() {
    let traced = Traced::start(&[], &["fsync:delay_enter=300000:when=1"]);
    let server = &traced.server;
    let store = |name: &str, content: &[u8]| {
        let mut session = Control::login(server.addr());
        let mut data = session.epsv();
        assert_eq!(session.command(&format!("STOR {name}")).code, 150);
        data.write_all(content).expect("sending");
        data.shutdown(Shutdown::Write).expect("closing");
        // The server has seen the end, so this is on its way to the disk.
        assert_eq!(data.read(&mut [0]).expect("its end"), 0);
        session
    };
    let before_them = store("other", b"x");
    assert!(
        until(PATIENCE, || traced.is_told("fsync(")),
        "a commit begins"
    );
    let (older, newer) = (bytes(26, 5000), bytes(27, 3000));
    let sessions = [store("f", &older), store("f", &newer)];
    drop((sessions, before_them));
    let mut back = Control::login(server.addr());
    let offered = back.command("PARTIAL f");
    let kept = &newer[..newer.len() - 1];
    let expected = format!("{} {}", kept.len(), sha256(kept));
    assert_eq!((offered.code, offered.text), (213, expected));
    four_questions(server, server.descriptors());
}

/// Of the second there is nothing to keep, so it is done with while the disk has the first.
#[test]
fn p23_an_upload_that_was_begun_again_is_not_offered_though_it_is_kept_last() {
    let traced = Traced::start(&[], &["fsync:delay_enter=1500000:when=1"]);
    let server = &traced.server;
    break_off(server, "f", 1000, &bytes(28, 400));
    assert!(
        until(PATIENCE, || traced.is_told("fsync(")),
        "the first is being kept"
    );
    break_off(server, "f", 1000, b"");
    let mut back = Control::login(server.addr());
    assert_eq!(back.command("PARTIAL f").code, 550);
    assert!(hidden(server).is_empty());
    four_questions(server, server.descriptors());
}

/// Otherwise APPE would continue what was removed.
#[test]
fn p23_what_is_being_kept_goes_when_its_name_is_removed() {
    let traced = Traced::start(&[], &["fsync:delay_enter=1500000:when=1"]);
    let server = &traced.server;
    fs::write(server.path("f"), "old").expect("writing");
    break_off(server, "f", 1000, &bytes(30, 400));
    assert!(
        until(PATIENCE, || traced.is_told("fsync(")),
        "it is being kept"
    );
    let mut back = Control::login(server.addr());
    assert_eq!(back.command("DELE f").code, 250);
    // Who asks waits until nothing is being kept any more.
    assert_eq!(back.command("PARTIAL f").code, 550);
    assert_eq!(back.command("SIZE f").code, 550);
    assert!(hidden(server).is_empty());
    four_questions(server, server.descriptors());
}

/// Nor does anybody collect more of them than of others.
#[test]
fn p23_of_uploads_that_ended_behind_their_data_as_many_are_kept_as_of_any() {
    const KEPT_MAX: usize = 64;
    let traced = Traced::start(&[], &["fsync:delay_enter=3000000:when=1"]);
    let server = &traced.server;
    let begin = |n: usize| {
        let mut session = Control::login(server.addr());
        let mut data = session.epsv();
        assert_eq!(session.command(&format!("STOR f{n}")).code, 150);
        data.write_all(&bytes(n as u64, 100)).expect("sending");
        session
    };
    let first = begin(0);
    assert!(
        until(PATIENCE, || traced.is_told("fsync(")),
        "a commit begins"
    );
    // The others wait behind it.
    let others: Vec<_> = (1..=KEPT_MAX).map(begin).collect();
    drop((first, others));
    let last = Control::login(server.addr()).command(&format!("PARTIAL f{KEPT_MAX}"));
    assert_eq!(last.code, 213, "all are kept by now");
    let kept = || hidden(server).len();
    assert!(
        until(PATIENCE, || kept() == KEPT_MAX),
        "the oldest one goes"
    );
}

/// Who says goodbye has not been killed.
#[test]
fn p23_who_says_quit_behind_an_upload_need_not_wait_for_the_answer() {
    let traced = Traced::start(&[], &["fsync:delay_enter=300000:when=1"]);
    let content = bytes(25, 5000);
    let mut session = Control::login(traced.server.addr());
    let mut data = session.epsv();
    assert_eq!(session.command("STOR f").code, 150);
    data.write_all(&content).expect("sending");
    drop(data);
    assert!(
        until(PATIENCE, || traced.is_told("fsync(")),
        "a commit begins"
    );
    session.send(b"QUIT\r\n");
    session.stream().shutdown(Shutdown::Write).expect("ending");
    assert_eq!(session.reply().code, 226);
    assert_eq!(session.reply().code, 221);
    assert_file(&traced.server.path("f"), &content);
}

/// Clients that go by SIZE would put the end of one file behind another.
#[test]
fn p21_what_clients_continue_is_never_a_mixture() {
    let server = Server::start(&[]);
    let (old, new) = (bytes(20, MIB), bytes(21, MIB + 200_000));
    let local = tempfile::NamedTempFile::new().expect("a file");
    fs::write(local.path(), &new).expect("writing");
    let path = local.path().to_str().expect("UTF-8");
    let mixed = |server: &Server| {
        let found = fs::read(server.path("f")).expect("it is there");
        found != old && found != new
    };
    for client in ["curl", "lftp", "by hand"] {
        fs::write(server.path("f"), &old).expect("writing");
        break_off(&server, "f", new.len(), &new[..700_000]);
        match client {
            "curl" => {
                let done = curl(&["-C", "-", "-T", path, &url(&server, "f")]);
                assert_ne!(done.code, 0, "it takes this for done");
            }
            "lftp" => {
                let commands = format!("set net:max-retries 1; put -c {path} -o f; quit");
                let address = server.addr();
                let mut lftp = std::process::Command::new("lftp");
                lftp.args(["--norc", "-p", &address.port().to_string(), "-e", &commands]);
                crate::common::tools::run(lftp.arg(address.ip().to_string()));
            }
            _ => {
                let mut session = Control::login(server.addr());
                let _data = session.epsv();
                assert_eq!(session.command("APPE f").code, 550);
                assert_eq!(session.command("REST 1048576").code, 350);
                let _data = session.epsv();
                assert_eq!(session.command("STOR f").code, 554);
            }
        }
        assert!(!mixed(&server), "{client}");
    }
    // Whoever says where it goes on gets all of the new file.
    let mut session = Control::login(server.addr());
    assert_eq!(session.command("REST 700000").code, 350);
    let mut data = session.epsv();
    assert_eq!(session.command("STOR f").code, 150);
    data.write_all(&new[700_000..]).expect("sending");
    drop(data);
    assert_eq!(session.reply().code, 226);
    assert_file(&server.path("f"), &new);
}

#[test]
fn p24_a_session_that_lost_its_client_gives_way() {
    let server = Server::start(&[]);
    let content = bytes(4, 1000);
    let mut lost = Control::login(server.addr());
    assert_eq!(lost.command("UPLOAD 1000 f").code, 150);
    lost.send(&content[..400]);
    let mut back = Control::login(server.addr());
    let mut refusals = 0;
    let offered = wait_for(PATIENCE, || {
        let reply = back.command("PARTIAL f");
        if reply.code == 450 {
            refusals += 1;
            return None;
        }
        Some(reply)
    });
    assert!(refusals > 0, "it was not silent for long");
    let offered = offered.expect("an answer");
    assert_eq!(offered.text, format!("400 {}", sha256(&content[..400])));
    lost.expect_eof();
    assert_eq!(back.command("REST 400").code, 350);
    assert_eq!(back.upload("f", &content[400..]).code, 226);
    assert_file(&server.path("f"), &content);
}

/// The client would say more, but the disk is slow and the server does not listen.
#[test]
fn p24_a_session_that_waits_for_the_disk_does_not_give_way() {
    // Longer than the time behind which a session counts as silent.
    let traced = Traced::start(&[], &["fdatasync:delay_enter=7000000:when=1"]);
    let server = &traced.server;
    let content = bytes(28, 40 * MIB);
    let done = AtomicBool::new(false);
    let uploaded = std::thread::scope(|scope| {
        let upload = scope.spawn(|| {
            let mut session = Control::login(server.addr());
            let code = session.upload("f", &content).code;
            done.store(true, Ordering::Release);
            code
        });
        let mut other = Control::login(server.addr());
        while !done.load(Ordering::Acquire) && !upload.is_finished() {
            assert_ne!(other.command("PARTIAL f").code, 213);
        }
        upload.join()
    });
    assert_eq!(uploaded.expect("the session stays"), 226);
    assert!(traced.is_told("fdatasync("), "it waited for the disk");
    assert_file(&server.path("f"), &content);
}

#[test]
fn p25_another_address_learns_nothing() {
    let server = Server::start(&[]);
    break_off(&server, "f", 1000, &[b'x'; 400]);
    let other = Control::open_from([127, 0, 0, 2].into(), server.addr());
    let mut other = other.greeted().logged_in();
    assert_eq!(other.command("PARTIAL f").code, 550);
    assert_eq!(other.command("SIZE f").code, 550);
    assert_eq!(other.command("DELE f").code, 550);
    other.command("REST 400");
    let _data = other.epsv();
    assert_eq!(other.command("STOR f").code, 554);
    let mut owner = Control::login(server.addr());
    assert_eq!(owner.command("SIZE f").text, "400");
}

/// Two servers on one directory: what one of them is about to do, the other leaves alone.
#[test]
fn c09_a_second_server_leaves_alone_what_the_first_writes() {
    let server = Server::start(&[]);
    let size = 70 * MIB;
    let mut session = Control::login(server.addr());
    assert_eq!(session.command(&format!("UPLOAD {size} f")).code, 150);
    session.send(&vec![b'x'; size / 2]);
    let named = until(PATIENCE, || hidden(&server).len() == 1);
    assert!(named, "{:?}", hidden(&server));
    // The first has looked for such names when it began.
    let dead = server.path(".haul-0123456789abcdef");
    fs::write(&dead, "x").expect("writing");
    let root = server.root().to_str().expect("UTF-8");
    let config = tempfile::NamedTempFile::new().expect("a file");
    fs::write(config.path(), format!("dir = \"{root}\"\n")).expect("writing");
    let mut second = std::process::Command::new(env!("CARGO_BIN_EXE_hauld"))
        .args(["--listen", "127.0.0.1:0", "--config"])
        .arg(config.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("starting hauld");
    let swept = until(PATIENCE, || !dead.exists());
    assert!(swept, "what nobody writes is still there");
    session.send(&vec![b'x'; size / 2]);
    assert_eq!(session.reply().code, 226);
    second.kill().expect("killing");
    second.wait().expect("waiting");
    assert_eq!(
        fs::metadata(server.path("f")).expect("f").len(),
        size as u64
    );
    assert!(hidden(&server).is_empty());
}
