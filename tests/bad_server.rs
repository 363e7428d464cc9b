//! `haul` against servers that lie, stall and babble. Each server is a script on a thread; the
//! names carry the ids of the checks they are.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Whatever a test waits for, it does not wait longer.
const PATIENCE: Duration = Duration::from_secs(20);
const OWN_VERBS: &[&str] = &["DOWNLOAD", "TREE", "UPLOAD modify;unix.mode;sha256;"];

// -- the scripted server

/// One client's control connection, from the server's side.
struct Talk {
    control: BufReader<TcpStream>,
    heard: Vec<String>,
}

impl Talk {
    fn say(&mut self, text: &str) {
        self.say_bytes(format!("{text}\r\n").as_bytes());
    }

    /// A client that has given up may not be listening any more.
    fn say_bytes(&mut self, bytes: &[u8]) -> bool {
        self.control.get_mut().write_all(bytes).is_ok()
    }

    /// The next line; empty at the end.
    fn hear(&mut self) -> String {
        let mut line = Vec::new();
        let _ = self.control.read_until(b'\n', &mut line);
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if !line.is_empty() {
            self.heard.push(line.clone());
        }
        line
    }

    #[track_caller]
    fn expect(&mut self, beginning: &str) -> String {
        let line = self.hear();
        assert!(line.starts_with(beginning), "{line:?} is not {beginning:?}");
        line
    }

    #[track_caller]
    fn answer(&mut self, beginning: &str, reply: &str) {
        self.expect(beginning);
        self.say(reply);
    }

    fn login(&mut self, features: &[&str]) {
        self.say("220 ready");
        self.answer("USER anonymous", "331 password");
        self.answer("PASS ", "230 welcome");
        let lines: String = features.iter().map(|f| format!(" {f}\r\n")).collect();
        self.answer("FEAT", &format!("211-Features:\r\n{lines}211 End"));
    }

    /// Answers EPSV and gives the listener that the client is sent to.
    fn epsv(&mut self) -> TcpListener {
        let listener = listener();
        let port = listener.local_addr().unwrap().port();
        self.answer("EPSV", &format!("229 Extended (|||{port}|)"));
        listener
    }

    /// Everything up to the point where the client asks for `file` by RETR.
    fn retr(&mut self, features: &[&str], size: Option<&str>) -> TcpStream {
        self.login(features);
        self.answer("TYPE I", "200 binary");
        if let Some(size) = size {
            self.answer("SIZE file", &format!("213 {size}"));
        }
        let data = self.epsv();
        let data = accept(&data);
        self.expect("RETR file");
        data
    }

    fn body(&mut self, bytes: usize) -> Vec<u8> {
        let mut body = vec![0; bytes];
        self.control.read_exact(&mut body).unwrap();
        body
    }

    /// Hears what the client still sends before it closes, and says goodbye to it.
    fn rest(&mut self) {
        loop {
            match self.hear().as_str() {
                "" => return,
                "QUIT" => self.say("221 bye"),
                _ => {}
            }
        }
    }
}

/// A client that does not come must fail the test, not hang it.
fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_write_timeout(Some(PATIENCE)).unwrap();
                return stream;
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                assert!(Instant::now() < deadline, "the client did not connect");
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(e) => panic!("{e}"),
        }
    }
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

struct Fake {
    address: SocketAddr,
    thread: JoinHandle<Vec<String>>,
}

/// Serves one connection as `script` wants it.
fn serve(script: impl FnOnce(&mut Talk) + Send + 'static) -> Fake {
    let listener = listener();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let stream = accept(&listener);
        let mut talk = Talk {
            control: BufReader::new(stream),
            heard: Vec::new(),
        };
        script(&mut talk);
        talk.heard
    });
    Fake { address, thread }
}

// -- the client

struct Outcome {
    code: i32,
    out: Vec<u8>,
    err: String,
    took: Duration,
}

impl Outcome {
    #[track_caller]
    fn check(&self, code: i32, says: &str) {
        assert_eq!(self.code, code, "{}", self.err);
        assert!(self.err.contains(says), "{:?} lacks {says:?}", self.err);
    }
}

fn haul_command(address: SocketAddr, dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_haul"));
    command
        .current_dir(dir)
        .env("HAUL_SERVER", address.to_string())
        .env_remove("HAUL_PASSWORD")
        .args(["--timeout", "5"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn finish(mut command: Command, input: &[u8]) -> Outcome {
    let begin = Instant::now();
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().unwrap();
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input).unwrap();
    }
    let id = child.id();
    let (done, watched) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        let wait = watched.recv_timeout(PATIENCE * 2);
        if wait == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = Command::new("kill").arg(id.to_string()).status();
        }
    });
    let output = child.wait_with_output().unwrap();
    drop(done);
    watchdog.join().unwrap();
    Outcome {
        code: output.status.code().unwrap_or(-1),
        out: output.stdout,
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: begin.elapsed(),
    }
}

fn haul(address: SocketAddr, dir: &Path, arguments: &[&str]) -> Outcome {
    let mut command = haul_command(address, dir);
    command.args(arguments);
    finish(command, b"")
}

/// Runs `haul` against the script, and gives what the server heard as well.
fn play(
    dir: &Path,
    arguments: &[&str],
    script: impl FnOnce(&mut Talk) + Send + 'static,
) -> (Outcome, Vec<String>) {
    let fake = serve(script);
    let outcome = haul(fake.address, dir, arguments);
    (outcome, fake.thread.join().unwrap())
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// An incompressible-looking body.
fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 7 + at / 251) as u8).collect()
}

// -- L01: where data connections go

#[test]
fn l01_the_address_in_a_227_is_ignored() {
    let dir = dir();
    let (outcome, _) = play(dir.path(), &["download", "file"], |talk| {
        talk.login(&[]);
        talk.answer("TYPE I", "200 binary");
        talk.answer("EPSV", "500 what?");
        let data = listener();
        let port = data.local_addr().unwrap().port();
        let (high, low) = (port >> 8, port & 255);
        talk.answer("PASV", &format!("227 Passive (203,0,113,7,{high},{low})."));
        let mut data = accept(&data);
        talk.answer("RETR file", "150 here");
        data.write_all(b"content").unwrap();
        drop(data);
        talk.say("226 done");
        talk.rest();
    });
    outcome.check(0, "");
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"content");
}

#[test]
fn l01_impossible_addresses_are_errors() {
    let cases: &[(&str, &str)] = &[
        ("229 (|||22|)", ""),
        ("229 (|1|203.0.113.7|6446|)", ""),
        ("229 nothing", ""),
        ("500 no", "227 (127,0,0,1,0,22)"),
        ("500 no", "227 (1,2,3,4,5,6,7)"),
        ("500 no", "227 (1,2,3,4,5)"),
        ("500 no", "227 (256,0,0,1,99,99)"),
        ("500 no", "502 no"),
    ];
    for &(epsv, pasv) in cases {
        let dir = dir();
        let (outcome, heard) = play(dir.path(), &["download", "file"], move |talk| {
            talk.login(&[]);
            talk.answer("TYPE I", "200 binary");
            talk.answer("EPSV", epsv);
            if !pasv.is_empty() {
                talk.answer("PASV", pasv);
            }
            talk.answer("QUIT", "221 bye");
        });
        assert!(
            [6, 8].contains(&outcome.code),
            "{epsv} {pasv}: {}",
            outcome.err
        );
        assert_eq!(heard.last().map(String::as_str), Some("QUIT"));
        assert!(names(dir.path()).is_empty());
    }
}

// -- L02: replies that are none

#[test]
fn l02_babble_instead_of_a_greeting() {
    for babble in [
        "2\r\n",
        "22\r\n",
        "999 x\r\n",
        "hello\r\n",
        "220x\r\n",
        "220 a\0b\r\n",
        "\r\n",
        "HTTP/1.1 400 Bad Request\r\n\r\n",
    ] {
        let (outcome, heard) = play(dir().path(), &["ls"], move |talk| {
            talk.say_bytes(babble.as_bytes());
            talk.rest();
        });
        outcome.check(3, "cannot connect");
        assert!(heard.is_empty(), "{babble:?}: {heard:?}");
    }
}

#[test]
fn l02_an_endless_line_is_cut_short() {
    let (outcome, _) = play(dir().path(), &["ls"], |talk| {
        let chunk = [b'2'; 4096];
        let taken = (0..16_384).take_while(|_| talk.say_bytes(&chunk)).count();
        assert!(taken < 16_384, "the client took 64 MiB of one line");
    });
    outcome.check(3, "never ends");
}

#[test]
fn l02_an_endless_reply_is_cut_short() {
    let (outcome, _) = play(dir().path(), &["ls"], |talk| {
        talk.say("220-welcome");
        let line = b" and more\r\n".repeat(1000);
        let taken = (0..2000).take_while(|_| talk.say_bytes(&line)).count();
        assert!(taken < 2000, "the client took two million lines");
    });
    outcome.check(3, "never ends");
}

#[test]
fn l02_a_reply_that_is_never_finished_times_out() {
    let (outcome, _) = play(dir().path(), &["--timeout", "1", "ls"], |talk| {
        talk.say("220-welcome");
        // Something comes all the time, but never the end.
        while talk.say_bytes(b" wait\r\n") {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    outcome.check(3, "did not answer");
    assert!(outcome.took < Duration::from_secs(10), "{:?}", outcome.took);
}

#[test]
fn l02_a_tree_of_any_length_is_read() {
    let (outcome, _) = play(dir().path(), &["tree"], |talk| {
        talk.login(OWN_VERBS);
        talk.answer("TREE", "250-Tree of /");
        for at in 0..20_000 {
            talk.say(&format!(" type=file;size=1; f{at}"));
        }
        talk.say("250 20001 entries, 1 left out.");
        talk.answer("QUIT", "221 bye");
    });
    outcome.check(1, "1 entries are missing");
    assert_eq!(outcome.out.iter().filter(|&&b| b == b'\n').count(), 20_000);
}

#[test]
fn l08_control_bytes_of_the_server_are_escaped() {
    let (outcome, _) = play(dir().path(), &["rm", "a"], |talk| {
        talk.login(&[]);
        talk.answer("DELE a", "550 \x1b[2Jno\x07 such \u{202e}file");
        talk.answer("QUIT", "221 bye");
    });
    outcome.check(6, "\\u{1b}[2Jno\\u{7} such \\u{202e}file");
}

// -- L09: names that would be several lines

#[test]
fn l09_nothing_is_sent_for_a_name_with_a_line_break() {
    let dir = dir();
    fs::write(dir.path().join("ok"), "x").unwrap();
    fs::write(dir.path().join("a\nQUIT"), "x").unwrap();
    let cases: &[&[&str]] = &[
        &["ls", "a\r\nDELE b"],
        &["tree", "a\n"],
        &["mkdir", "a\rb"],
        &["mkdir", "fine", "a\nb"],
        &["rm", "a\n"],
        &["mv", "a", "b\nc"],
        &["stat", "\n"],
        &["download", "a\nb"],
        &["upload", "ok", "b\nc"],
        &["upload", "-t", "d\n", "ok"],
        &["upload", "a\nQUIT"],
        &["--server", "ftp://a%0d%0aDELE%20x@127.0.0.1:1", "ls"],
        &["--server", "ftp://a:b%0a@127.0.0.1:1", "ls"],
        &["--server", "ftp://a%00@127.0.0.1:1", "ls"],
    ];
    let listener = listener();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    for case in cases {
        let outcome = haul(address, dir.path(), case);
        outcome.check(2, "nothing was sent");
        assert!(listener.accept().is_err(), "{case:?} connected");
    }
    let mut command = haul_command(address, dir.path());
    command.env("HAUL_PASSWORD", "a\r\nDELE x").arg("ls");
    finish(command, b"").check(2, "HAUL_PASSWORD");
    assert!(listener.accept().is_err());
}

// -- L10: what PWD says

#[test]
fn l10_a_working_directory_is_read_safely_or_not_at_all() {
    for (reply, code, says) in [
        ("257 \"unclosed", 8, "cannot read the reply to PWD"),
        ("257 /x", 8, "cannot read the reply to PWD"),
        ("257 \"/x\rSTOR evil\"", 8, "cannot read the reply to PWD"),
        ("257 \"/a\"b", 0, ""),
    ] {
        let (outcome, heard) = play(dir().path(), &["ls", "sub"], move |talk| {
            talk.login(&[]);
            talk.answer("PWD", reply);
            if code == 0 {
                talk.answer("CWD sub", "250 there");
                let data = talk.epsv();
                drop(accept(&data));
                talk.answer("LIST", "150 here");
                talk.say("226 done");
                talk.answer("CWD /a", "250 back");
            }
            talk.answer("QUIT", "221 bye");
        });
        outcome.check(code, says);
        assert!(heard.iter().all(|line| !line.contains("evil")), "{heard:?}");
    }
}

// -- listings that are more than memory holds

/// Answers a LIST or MLSD of `path` with these lines.
fn list(talk: &mut Talk, command: &str, lines: impl Iterator<Item = Vec<u8>>) {
    let data = talk.epsv();
    let mut data = std::io::BufWriter::new(accept(&data));
    talk.answer(command, "150 here");
    for line in lines {
        if data.write_all(&line).is_err() {
            break;
        }
    }
    drop(data);
    talk.say("226 done");
}

#[test]
fn a_listing_that_is_too_long_to_be_sorted_is_not_held() {
    let outcome = |entries: u32, bytes: usize| {
        let (outcome, _) = play(dir().path(), &["ls"], move |talk| {
            talk.login(&["MLST type*;"]);
            let line = |at| format!("type=file; {at:05}{}\r\n", "x".repeat(bytes - 5));
            list(
                talk,
                "MLSD",
                (0..entries).rev().map(|at| line(at).into_bytes()),
            );
            talk.answer("QUIT", "221 bye");
        });
        outcome.check(0, "");
        assert_eq!(outcome.out.len(), entries as usize * (bytes + 1));
        outcome.out
    };
    assert!(outcome(1000, 60_000).starts_with(b"00000x"), "sorted");
    assert!(outcome(1200, 60_000).starts_with(b"01199x"), "as it came");
}

#[test]
fn a_tree_with_more_directories_than_memory_ends() {
    let (outcome, _) = play(dir().path(), &["tree"], |talk| {
        talk.login(&["MLST type*;"]);
        let line = |at| format!("type=dir; {at:05}{}\r\n", "x".repeat(3900)).into_bytes();
        list(talk, "MLSD", (0..20_000).map(line));
        talk.answer("QUIT", "221 bye");
    });
    outcome.check(8, "too many directories");
}

// -- L11: downloads that are not whole

/// RETR with the given promises, bytes and last words; the file must not appear unless `code` is 0.
#[track_caller]
fn retr(
    size: Option<&'static str>,
    go_ahead: &'static str,
    bytes: &'static [u8],
    last: &'static str,
    code: i32,
    says: &str,
) {
    let dir = dir();
    fs::write(dir.path().join("file"), "old").unwrap();
    let features: &[&str] = if size.is_some() { &["SIZE"] } else { &[] };
    let (outcome, _) = play(dir.path(), &["download", "--force", "file"], move |talk| {
        let mut data = talk.retr(features, size);
        talk.say(go_ahead);
        data.write_all(bytes).unwrap();
        drop(data);
        talk.say(last);
        talk.rest();
    });
    outcome.check(code, says);
    let expected = if code == 0 { bytes } else { b"old" };
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), expected);
    assert_eq!(names(dir.path()), ["file"], "no temporary file is left");
}

#[test]
fn l11_lengths_must_agree() {
    let short = "after 5 of 100 bytes";
    retr(
        None,
        "150 Opening (100 bytes).",
        b"12345",
        "226 done",
        8,
        short,
    );
    retr(Some("100"), "150 Opening", b"12345", "226 done", 8, short);
    retr(
        Some("3"),
        "150 Opening",
        b"12345",
        "226 done",
        8,
        "more than the 3 bytes",
    );
    retr(
        None,
        "150 Opening (100 bytes).",
        b"12345",
        "426 cut",
        8,
        "426 cut",
    );
    retr(None, "150 Opening (5 bytes).", b"12345", "226 done", 0, "");
    retr(Some("5"), "150 Opening", b"12345", "226 done", 0, "");
    retr(None, "150 Opening", b"12345", "226 done", 0, "");
}

#[test]
fn l11_what_was_not_announced_is_not_taken() {
    let dir = dir();
    let (outcome, _) = play(dir.path(), &["download", "file"], |talk| {
        let mut data = talk.retr(&["SIZE"], Some("100"));
        talk.say("150 Opening");
        let chunk = vec![0; 1 << 20];
        let taken = (0..1000).take_while(|_| data.write_all(&chunk).is_ok());
        assert!(taken.count() < 100, "the client took 100 MiB");
        talk.say("426 you closed it");
        talk.answer("QUIT", "221 bye");
    });
    outcome.check(8, "more than the 100 bytes");
    assert!(names(dir.path()).is_empty());
}

#[test]
fn l11_the_last_word_counts_even_when_all_bytes_came() {
    retr(
        Some("5"),
        "150 Opening",
        b"12345",
        "426 broken",
        8,
        "426 broken",
    );
    retr(
        Some("5"),
        "150 Opening",
        b"12345",
        "451 disk",
        8,
        "451 disk",
    );
    retr(
        Some("5"),
        "150 Opening",
        b"12345",
        "150 again",
        8,
        "150 again",
    );
}

#[test]
fn l11_a_226_may_come_before_the_data_ends() {
    for (bytes, code) in [(&b"1234567890"[..], 0), (b"12345", 8)] {
        let dir = dir();
        let (outcome, _) = play(dir.path(), &["download", "file"], move |talk| {
            let mut data = talk.retr(&["SIZE"], Some("10"));
            talk.say("150 Opening\r\n226 done");
            data.write_all(bytes).unwrap();
            drop(data);
            talk.rest();
        });
        outcome.check(code, "");
        let expected: &[&str] = if code == 0 { &["file"] } else { &[] };
        assert_eq!(names(dir.path()), expected);
    }
}

#[test]
fn l11_a_download_on_the_control_connection_that_breaks_off() {
    let dir = dir();
    let (outcome, _) = play(dir.path(), &["download", "file"], |talk| {
        talk.login(OWN_VERBS);
        talk.answer("DOWNLOAD file", "150 100 bytes follow.");
        talk.say_bytes(b"12345");
    });
    outcome.check(8, "after 5 of 100 bytes");
    assert!(names(dir.path()).is_empty());
    for go_ahead in ["150 many bytes", "150", "226 0 bytes sent."] {
        let (outcome, _) = play(dir.path(), &["download", "file"], move |talk| {
            talk.login(OWN_VERBS);
            talk.answer("DOWNLOAD file", go_ahead);
            talk.rest();
        });
        outcome.check(8, "");
        assert!(names(dir.path()).is_empty());
    }
}

// -- L12: uploads that are refused

const BIG: usize = 64 << 20;

fn sparse(dir: &Path, bytes: usize) {
    let file = fs::File::create(dir.join("big")).unwrap();
    file.set_len(bytes as u64).unwrap();
}

#[test]
fn l12_no_byte_of_a_body_before_the_go_ahead() {
    for reply in ["", "550 no", "552 quota", "226 stored"] {
        let dir = dir();
        sparse(dir.path(), BIG);
        let arguments = ["--timeout", "1", "upload", "big"];
        let (outcome, heard) = play(dir.path(), &arguments, move |talk| {
            talk.login(OWN_VERBS);
            talk.expect(&format!("UPLOAD {BIG};modify="));
            if !reply.is_empty() {
                talk.say(reply);
            }
            let mut rest = Vec::new();
            talk.control.read_to_end(&mut rest).unwrap();
            assert!(
                rest.is_empty() || rest == b"QUIT\r\n",
                "{} bytes",
                rest.len()
            );
        });
        let (code, says) = match reply {
            "" => (8, "did not answer"),
            "550 no" => (6, "550 no"),
            "552 quota" => (10, "552 quota"),
            _ => (8, "a final reply before the transfer"),
        };
        outcome.check(code, says);
        assert!(heard.last().unwrap().ends_with(" big"), "{heard:?}");
    }
}

#[test]
fn l12_an_early_refusal_stops_the_sending_and_is_reported() {
    let dir = dir();
    sparse(dir.path(), BIG);
    let (outcome, _) = play(dir.path(), &["upload", "big"], |talk| {
        talk.login(OWN_VERBS);
        talk.answer("UPLOAD", "150 send");
        talk.body(1000);
        talk.say("452 no space left");
        // Nothing more is read until the client has closed its side.
        let mut rest = Vec::new();
        let _ = talk.control.read_to_end(&mut rest);
        assert!(rest.len() < BIG - 1000, "the client sent everything");
    });
    outcome.check(10, "452 no space left");
}

#[test]
fn l12_a_refusal_behind_a_reset_is_reported() {
    let dir = dir();
    sparse(dir.path(), BIG);
    let (outcome, _) = play(dir.path(), &["upload", "big"], |talk| {
        talk.login(OWN_VERBS);
        talk.answer("UPLOAD", "150 send");
        talk.body(100_000);
        talk.say("451 disk failure");
        // Closing with unread bytes resets the connection.
    });
    outcome.check(8, "");
    assert!(
        !outcome.err.to_lowercase().contains("broken pipe"),
        "{}",
        outcome.err
    );
}

#[test]
fn l12_a_second_go_ahead_is_no_success() {
    let dir = dir();
    fs::write(dir.path().join("a"), "12345").unwrap();
    let (outcome, _) = play(dir.path(), &["upload", "a"], |talk| {
        talk.login(OWN_VERBS);
        talk.expect("UPLOAD 5+;modify=");
        assert_eq!(talk.body(5), b"12345");
        talk.say("150 go on\r\n150 go on");
        talk.rest();
    });
    outcome.check(8, "second go-ahead");
}

#[test]
fn l12_a_refused_small_upload_keeps_the_connection() {
    let dir = dir();
    fs::write(dir.path().join("a"), "12345").unwrap();
    fs::write(dir.path().join("b"), content(1 << 20)).unwrap();
    let (outcome, heard) = play(dir.path(), &["upload", "a", "b", "d/"], |talk| {
        talk.login(OWN_VERBS);
        talk.expect("UPLOAD 5+;modify=");
        talk.body(5);
        talk.say("553 bad name");
        talk.expect("UPLOAD 1048576+;modify=");
        assert_eq!(talk.body(1 << 20), content(1 << 20));
        talk.say("226 1048576 bytes stored.");
        talk.answer("QUIT", "221 bye");
    });
    outcome.check(1, "553 bad name");
    assert_eq!(outcome.out, b"uploaded b to d/b (1048576 bytes)\n");
    assert_eq!(heard.last().map(String::as_str), Some("QUIT"));
}

#[test]
fn l12_a_server_without_upload_never_gets_a_body_on_the_control_connection() {
    let dir = dir();
    sparse(dir.path(), BIG);
    let (outcome, heard) = play(dir.path(), &["upload", "big"], |talk| {
        talk.login(&["SIZE"]);
        talk.answer("TYPE I", "200 binary");
        let data = talk.epsv();
        let mut data = accept(&data);
        talk.answer("STOR big", "150 send");
        data.read_exact(&mut [0; 1000]).unwrap();
        talk.say("452 no space left");
        talk.answer("QUIT", "221 bye");
    });
    outcome.check(10, "452 no space left");
    assert_eq!(heard.last().map(String::as_str), Some("QUIT"), "{heard:?}");
}

#[test]
fn l12_a_stored_file_of_another_size_is_an_error() {
    let dir = dir();
    fs::write(dir.path().join("a"), "12345").unwrap();
    let (outcome, _) = play(dir.path(), &["upload", "a"], |talk| {
        talk.login(&["SIZE"]);
        talk.answer("TYPE I", "200 binary");
        let data = talk.epsv();
        let mut data = accept(&data);
        talk.answer("STOR a", "150 send");
        data.read_to_end(&mut Vec::new()).unwrap();
        talk.say("226 fine");
        talk.answer("SIZE a", "213 4");
        talk.answer("QUIT", "221 bye");
    });
    outcome.check(8, "5 bytes were sent, but the server has 4");
}

#[test]
fn standard_input_without_a_second_connection_is_spooled() {
    let fake = serve(|talk| {
        talk.login(OWN_VERBS);
        talk.answer("TYPE I", "200 binary");
        talk.answer("EPSV", "500 no");
        talk.answer("PASV", "425 no ports");
        talk.expect(&format!("UPLOAD {} x", 2 << 20));
        talk.say("150 send");
        assert_eq!(talk.body(2 << 20), content(2 << 20));
        talk.say("226 stored");
        talk.answer("QUIT", "221 bye");
    });
    let mut command = haul_command(fake.address, dir().path());
    command.args(["upload", "-", "x"]).current_dir("/");
    finish(command, &content(2 << 20)).check(0, "");
    fake.thread.join().unwrap();
}

#[test]
fn a_named_pipe_is_opened_once() {
    let dir = dir();
    let pipe = dir.path().join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let fake = serve(|talk| {
        // Time for the writer, which begins as soon as somebody opens the pipe.
        std::thread::sleep(Duration::from_millis(300));
        talk.login(OWN_VERBS);
        talk.expect("UPLOAD 5+ pipe");
        assert_eq!(talk.body(5), b"12345");
        talk.say("226 stored");
        talk.answer("QUIT", "221 bye");
    });
    // A writer that opened the pipe for a reader who is gone again would be killed by its write.
    let mut writer = Command::new("sh");
    writer.args(["-c", "printf 12345 >pipe"]);
    let mut writer = writer.current_dir(dir.path()).spawn().unwrap();
    let outcome = haul(fake.address, dir.path(), &["upload", "pipe"]);
    outcome.check(0, "");
    assert!(writer.wait().unwrap().success());
    fake.thread.join().unwrap();
}

#[test]
fn a_file_that_claims_to_be_empty_is_read() {
    let dir = dir();
    let expected = fs::read("/proc/self/mountinfo").unwrap();
    let bytes = expected.len();
    assert!(bytes > 0 && fs::metadata("/proc/self/mountinfo").unwrap().len() == 0);
    let link = dir.path().join("mounts");
    std::os::unix::fs::symlink("/proc/self/mountinfo", link).unwrap();
    let (outcome, _) = play(dir.path(), &["upload", "mounts"], move |talk| {
        talk.login(OWN_VERBS);
        talk.expect(&format!("UPLOAD {bytes}+;"));
        assert_eq!(talk.body(bytes), expected);
        talk.say("226 stored");
        talk.answer("QUIT", "221 bye");
    });
    outcome.check(0, "");
    let said = format!("uploaded mounts ({bytes} bytes)\n");
    assert_eq!(String::from_utf8_lossy(&outcome.out), said);
}

/// Uploads `big` of `bytes` bytes, whose length becomes another one where the script calls for it.
#[track_caller]
fn upload_of_what_changes(
    bytes: usize,
    says: &str,
    script: impl FnOnce(&mut Talk, &dyn Fn(u64)) + Send + 'static,
) {
    let dir = dir();
    sparse(dir.path(), bytes);
    let path = dir.path().join("big");
    let arguments = ["upload", "--no-clobber", "big"];
    let (outcome, _) = play(dir.path(), &arguments, move |talk| {
        let becomes = |bytes| {
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(bytes).unwrap();
        };
        script(talk, &becomes);
        talk.rest();
    });
    outcome.check(if says.is_empty() { 0 } else { 7 }, says);
}

#[test]
fn a_file_that_changes_while_it_is_sent_is_not_called_done() {
    const OWN: &[&str] = &["MLST type*;", "UPLOAD"];
    upload_of_what_changes(5, "became shorter", |talk, becomes| {
        talk.login(OWN);
        talk.expect("MLST big");
        becomes(4);
        talk.say("550 no");
    });
    upload_of_what_changes(5, "", |talk, becomes| {
        talk.login(OWN);
        talk.expect("MLST big");
        becomes(6);
        talk.say("550 no");
        talk.expect("UPLOAD 6+ big");
        talk.body(6);
        talk.say("226 stored");
    });
    upload_of_what_changes(BIG, "became shorter", |talk, becomes| {
        talk.login(OWN);
        talk.answer("MLST big", "550 no");
        talk.expect("UPLOAD");
        becomes(4);
        talk.say("150 send");
    });
    upload_of_what_changes(2 << 20, "grew", |talk, becomes| {
        talk.login(OWN);
        talk.answer("MLST big", "550 no");
        talk.expect("UPLOAD 2097152 big");
        becomes(4 << 20);
        talk.say("150 send");
        talk.body(2 << 20);
        talk.say("226 stored");
    });
    upload_of_what_changes(5, "became shorter", |talk, becomes| {
        talk.login(&["MLST type*;"]);
        talk.answer("MLST big", "550 no");
        talk.answer("TYPE I", "200 binary");
        let data = talk.epsv();
        let mut data = accept(&data);
        talk.expect("STOR big");
        becomes(4);
        talk.say("150 send");
        let end = data.read_to_end(&mut Vec::new());
        assert!(end.is_err(), "an orderly end means a whole file");
        talk.say("426 cut");
    });
}

#[test]
fn no_clobber_sends_nothing_unless_the_name_is_free_for_sure() {
    const MLST: &[&str] = &["MLST type*;", "UPLOAD"];
    const THERE: &[&str] = &["250-Here\r\n type=file;size=1; a\r\n250 End"];
    for (features, answers, code, says) in [
        (MLST, &["550 no such file"][..], 0, ""),
        (MLST, THERE, 7, "exists already"),
        (
            MLST,
            &["450 busy"],
            6,
            "450 busy; so --no-clobber sends nothing",
        ),
        (MLST, &["451 disk"], 8, "451 disk"),
        (MLST, &["501 what"], 6, "501 what"),
        (MLST, &["530 log in"], 5, "530 log in"),
        (&["UPLOAD"], &[], 6, "neither MLST nor SIZE"),
        (
            &["UPLOAD", "SIZE"],
            &["200 binary", "213 5", "213 x"],
            7,
            "exists already",
        ),
        (
            &["UPLOAD", "SIZE"],
            &["200 binary", "550 no", "257 \"/\"", "550 no"],
            0,
            "",
        ),
        (
            &["UPLOAD", "SIZE"],
            &["200 binary", "550 no", "257 \"/\"", "250 there", "250 back"],
            7,
            "exists already",
        ),
        (
            &["UPLOAD", "SIZE"],
            &["200 binary", "450 busy", "257 \"/\"", "550 no"],
            6,
            "450 busy",
        ),
    ] {
        let dir = dir();
        fs::write(dir.path().join("a"), "12345").unwrap();
        let (outcome, _) = play(dir.path(), &["upload", "--no-clobber", "a"], move |talk| {
            talk.login(features);
            for answer in answers {
                talk.answer("", answer);
            }
            if code == 0 {
                talk.expect("UPLOAD 5+ a");
                talk.body(5);
                talk.say("226 stored");
            }
            talk.answer("QUIT", "221 bye");
        });
        outcome.check(code, says);
    }
}

// -- L14: servers that fall silent

#[test]
fn l14_silence_in_each_state_has_an_end() {
    type Script = fn(&mut Talk);
    let cases: &[(&str, i32, Script)] = &[
        ("greeting", 3, |_| {}),
        ("user", 8, |talk| talk.say("220 ready")),
        ("type", 8, |talk| talk.login(&[])),
        ("epsv", 8, |talk| {
            talk.login(&[]);
            talk.answer("TYPE I", "200 binary");
        }),
        ("download", 8, |talk| {
            talk.login(OWN_VERBS);
            talk.answer("DOWNLOAD file", "150 10 bytes follow.");
            talk.say_bytes(b"12345");
        }),
        ("last word", 8, |talk| {
            drop(talk.retr(&[], None));
            talk.say("150 here");
        }),
    ];
    for (state, code, script) in cases {
        let dir = dir();
        let script = *script;
        let (outcome, _) = play(
            dir.path(),
            &["--timeout", "1", "download", "file"],
            move |talk| {
                script(talk);
                talk.rest();
            },
        );
        outcome.check(*code, "for 1 s (--timeout)");
        assert!(
            outcome.took < Duration::from_secs(10),
            "{state}: {:?}",
            outcome.took
        );
        assert!(names(dir.path()).is_empty(), "{state}");
    }
}

#[test]
fn l14_a_silent_data_connection_has_an_end() {
    let dir = dir();
    let (outcome, _) = play(
        dir.path(),
        &["--timeout", "1", "download", "file"],
        |talk| {
            let mut data = talk.retr(&["SIZE"], Some("10"));
            talk.say("150 here");
            data.write_all(b"12345").unwrap();
            talk.rest();
        },
    );
    outcome.check(8, "sent nothing for 1 s");
    assert!(names(dir.path()).is_empty());
}

// -- L16: local files

#[test]
fn l16_a_local_file_is_never_overwritten_unasked() {
    let dir = dir();
    fs::write(dir.path().join("file"), "old").unwrap();
    fs::create_dir_all(dir.path().join("sub/file")).unwrap();
    let listener = listener();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    for (case, says) in [
        (&["download", "x/file"][..], "--force"),
        (&["download", "x", "file"], "--force"),
        (&["download", "file", "sub"], "a directory of that name"),
        (
            &["download", "--force", "file", "sub/"],
            "a directory of that name",
        ),
        (&["download", "a", "b", "file"], "no directory"),
        (&["download", "a", "none/"], "no directory"),
        (&["download", "a", "none/a"], "cannot create a file there"),
        (&["download", "a", "/dev/null"], "--force"),
        (&["download", "--force", "a", "/dev/null"], "device"),
        (&["upload", "none"], "No such file"),
    ] {
        haul(address, dir.path(), case).check(7, says);
        assert!(listener.accept().is_err(), "{case:?} connected");
    }
    haul(address, dir.path(), &["upload", "sub"]).check(2, "directories is not built yet");
    haul(address, dir.path(), &["download", "x/.."]).check(2, "no file name");
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"old");
    assert_eq!(names(dir.path()), ["file", "sub"]);
}

#[test]
fn l16_a_full_disk_says_so() {
    let fake = serve(|talk| {
        talk.login(OWN_VERBS);
        talk.answer("DOWNLOAD file", "150 5 bytes follow.");
        talk.say_bytes(b"12345226 5 bytes sent.\r\n");
        talk.rest();
    });
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut command = haul_command(fake.address, dir().path());
    command
        .args(["download", "file", "-"])
        .stdout(full)
        .current_dir("/");
    finish(command, b"").check(10, "no space left on this machine");
    fake.thread.join().unwrap();
}

/// Sends `signal` to a download in the middle of its body, and gives its end.
fn interrupted(signal: &str, shell: &str) -> std::process::ExitStatus {
    let dir = dir();
    fs::write(dir.path().join("file"), "old").unwrap();
    let (arrived, middle) = std::sync::mpsc::channel();
    let (go_on, resumed) = std::sync::mpsc::channel::<()>();
    let fake = serve(move |talk| {
        talk.login(OWN_VERBS);
        talk.answer("DOWNLOAD file", "150 10 bytes follow.");
        talk.say_bytes(b"12345");
        arrived.send(()).unwrap();
        // A client that does not end for the signal gets the rest.
        let _ = resumed.recv_timeout(Duration::from_secs(1));
        talk.say_bytes(b"67890226 10 bytes sent.\r\n");
        talk.rest();
    });
    let mut command = Command::new("sh");
    let script = format!("{shell} exec \"$@\"");
    command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_haul")]);
    command.args(["--server", &fake.address.to_string()]);
    command.args(["download", "--force", "file"]);
    command.current_dir(dir.path()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    middle.recv_timeout(PATIENCE).unwrap();
    assert_eq!(
        names(dir.path()).len(),
        2,
        "the old file and a temporary one"
    );
    let kill = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    let status = child.wait().unwrap();
    drop(go_on);
    fake.thread.join().unwrap();
    let expected: &[u8] = if status.success() {
        b"1234567890"
    } else {
        b"old"
    };
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), expected);
    assert_eq!(names(dir.path()), ["file"], "{signal}");
    status
}

#[test]
fn l16_a_signal_leaves_no_temporary_file() {
    use std::os::unix::process::ExitStatusExt;
    for (signal, number) in [("-HUP", 1), ("-INT", 2), ("-TERM", 15)] {
        assert_eq!(interrupted(signal, "").signal(), Some(number));
    }
}

#[test]
fn l16_a_signal_that_is_ignored_remains_so() {
    assert!(interrupted("-INT", "trap '' INT;").success());
}

// -- L17: a server that says goodbye

#[test]
fn l17_a_421_at_any_point_is_one_clean_error() {
    type Script = fn(&mut Talk);
    let cases: &[(i32, Script)] = &[
        (3, |talk| talk.say("421 too many")),
        (8, |talk| {
            talk.say("220 ready");
            talk.answer("USER", "421 too many");
        }),
        (8, |talk| {
            talk.login(&[]);
            talk.answer("TYPE I", "421 too many");
        }),
        (8, |talk| {
            drop(talk.retr(&[], None));
            talk.say("421 too many");
        }),
    ];
    for (code, script) in cases {
        let script = *script;
        let (outcome, _) = play(dir().path(), &["download", "file"], move |talk| {
            script(talk);
            talk.rest();
        });
        outcome.check(*code, "421 too many");
        assert_eq!(outcome.err.lines().count(), 1, "{}", outcome.err);
    }
}

#[test]
fn a_login_that_is_refused_has_its_own_exit_code() {
    let fake = serve(|talk| {
        talk.say("220 ready");
        talk.answer("USER me", "331 password");
        talk.answer("PASS hush", "530 no");
        talk.rest();
    });
    let server = format!("ftp://me:hush@{}", fake.address);
    let arguments = ["--verbose", "--server", &server, "ls"];
    let outcome = haul(fake.address, dir().path(), &arguments);
    outcome.check(5, "530 no");
    assert!(!outcome.err.contains("hush"), "{}", outcome.err);
    fake.thread.join().unwrap();
}

#[test]
fn names_are_bytes() {
    let dir = dir();
    let name = OsStr::from_bytes(b"a\xff\xfe \"b");
    fs::write(dir.path().join(name), "x").unwrap();
    let fake = serve(|talk| {
        talk.login(OWN_VERBS);
        let mut line = Vec::new();
        talk.control.read_until(b'\n', &mut line).unwrap();
        assert!(line.starts_with(b"UPLOAD 1+;"), "{line:?}");
        assert!(
            line.ends_with(b" a\xff\xff\xfe \"b\r\n"),
            "FF is doubled: {line:?}"
        );
        talk.body(1);
        talk.say("226 stored");
        talk.answer("QUIT", "221 bye");
    });
    let mut command = haul_command(fake.address, dir.path());
    command.arg("upload").arg(name);
    let outcome = finish(command, b"");
    outcome.check(0, "");
    assert_eq!(outcome.out, b"uploaded a\\xff\\xfe \"b (1 bytes)\n");
    fake.thread.join().unwrap();
}

#[test]
fn the_targets_of_links_are_bytes() {
    const LINK: &[u8] = b" type=OS.unix=slink:t\xff\xffx; a\xff\xffb\r\n";
    let (outcome, _) = play(dir().path(), &["tree"], |talk| {
        talk.login(OWN_VERBS);
        talk.answer("TREE", "250-Tree of /");
        talk.say_bytes(LINK);
        talk.say("250 1 entries.");
        talk.answer("QUIT", "221 bye");
    });
    assert_eq!(outcome.out, b"a\xffb -> t\xffx\n");
    let (outcome, _) = play(dir().path(), &["stat", "a"], |talk| {
        talk.login(&["MLST type*;", "UPLOAD"]);
        talk.answer("MLST", "250-Here");
        talk.say_bytes(LINK);
        talk.say("250 End");
        talk.answer("QUIT", "221 bye");
    });
    assert_eq!(outcome.out, b"a: link to t\\xffx\n");
}

#[test]
fn a_script_of_commands_goes_on_behind_errors_and_a_lost_connection() {
    let dir = dir();
    fs::write(dir.path().join("a"), "12345").unwrap();
    let listener = listener();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let next = || Talk {
            control: BufReader::new(accept(&listener)),
            heard: Vec::new(),
        };
        let mut talk = next();
        talk.login(OWN_VERBS);
        talk.answer("DOWNLOAD none", "550 no such file");
        talk.answer("CWD sub", "250 there");
        talk.answer("PWD", "257 \"/sub\"");
        talk.expect("MKD x");
        drop(talk);
        let mut talk = next();
        talk.login(OWN_VERBS);
        talk.answer("CWD /sub", "250 there");
        talk.expect("UPLOAD 5+;modify=");
        talk.body(5);
        talk.say("226 stored");
        talk.answer("QUIT", "221 bye");
    });
    let script = b"DOWNLOAD none\ncd sub\nmkdir x\nUpload\na\nquit\n";
    let outcome = finish(haul_command(address, dir.path()), script);
    outcome.check(1, "550 no such file");
    outcome.check(1, "the server closed the connection");
    assert_eq!(
        outcome.out, b"uploaded a (5 bytes)\n",
        "no prompt is printed"
    );
    server.join().unwrap();
}

#[test]
fn the_rest_of_a_line_that_is_too_long_is_no_command() {
    let fake = serve(|talk| {
        talk.login(&[]);
        talk.answer("DELE last", "250 gone");
        talk.answer("QUIT", "221 bye");
    });
    // 64 KiB end right before a word that is a command.
    let mut script = b"rm  ".to_vec();
    script.extend_from_slice(&b"rm ".repeat((64 * 1024 - 4) / 3));
    script.extend_from_slice(b"rm a\nrm last\n");
    let outcome = finish(haul_command(fake.address, dir().path()), &script);
    outcome.check(2, "too long");
    assert_eq!(outcome.err.lines().count(), 1, "{}", outcome.err);
    fake.thread.join().unwrap();
}

// -- the command line

/// Lists nothing, at the address that the arguments must lead to.
fn served(arguments: impl FnOnce(SocketAddr) -> Vec<String>) -> Outcome {
    let fake = serve(|talk| {
        talk.login(&["MLST type*;"]);
        list(talk, "MLSD", std::iter::empty());
        talk.answer("QUIT", "221 bye");
    });
    let nobody = listener().local_addr().unwrap();
    let mut command = haul_command(nobody, dir().path());
    command.current_dir("/").args(arguments(fake.address));
    let outcome = finish(command, b"");
    if outcome.code == 0 {
        fake.thread.join().unwrap();
    }
    outcome
}

#[test]
fn options_stand_before_and_behind_the_command() {
    let words = |text: String| -> Vec<String> { text.split(' ').map(String::from).collect() };
    for form in [
        "--server A ls",
        "ls --server A",
        "--server 127.0.0.1:1 ls --server A",
        "ls --server 127.0.0.1:1 --server A",
        "ls / --server A --timeout 3s --insecure-plaintext",
    ] {
        let outcome = served(|a| words(form.replace('A', &a.to_string())));
        outcome.check(0, "");
    }
    for form in [
        "--timeout 1 ls",
        "ls --timeout 1",
        "--timeout 9 ls --timeout 1",
    ] {
        let (outcome, _) = play(
            dir().path(),
            &words(form.into()).iter().map(|s| &**s).collect::<Vec<_>>(),
            |talk| talk.rest(),
        );
        outcome.check(3, "for 1 s (--timeout)");
    }
}

#[test]
fn a_server_in_the_environment_that_is_no_text_is_an_error() {
    let mut command = haul_command(listener().local_addr().unwrap(), dir().path());
    let server = OsStr::from_bytes(b"\xff@127.0.0.1:1");
    command
        .env("HAUL_SERVER", server)
        .current_dir("/")
        .arg("ls");
    finish(command, b"").check(2, "HAUL_SERVER is not UTF-8");
}

#[test]
fn output_that_nobody_reads_is_an_error_and_no_panic() {
    for script in [&b"help\n"[..], b"pwd\n", b"ls --help\n", b"nonsense\n"] {
        let fake = serve(|talk| {
            talk.login(&[]);
            if talk.hear() == "PWD" {
                talk.say("257 \"/\"");
                talk.answer("QUIT", "221 bye");
            }
        });
        let closed = || Stdio::from(std::io::pipe().unwrap().1);
        let mut command = haul_command(fake.address, dir().path());
        command.current_dir("/").stdout(closed());
        if script == b"nonsense\n" {
            command.stderr(closed());
            finish(command, script).check(2, "");
        } else {
            finish(command, script).check(7, "haul: standard output: Broken pipe");
        }
        fake.thread.join().unwrap();
    }
}
