//! The parts by themselves, and a whole server on loopback: `cargo bench`, or `cargo bench -- NAME`.
//!
//! These find out what a change did to one part. How fast the server is on the whole, and what it
//! costs, is for `haul bench`.

use std::fs;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use haul::config::Config;
use haul::proto::facts::{Facts, Meta, Perms, parse_entry, write_facts};
use haul::proto::reply::{Parser, Reply};
use haul::proto::{addr, line, upload};
use haul::session::{Action, Context, Session};
use haul::storage::path::VirtualPath;
use haul::storage::root::Root;
use haul::storage::walk::{Listing, Want};
use tempfile::TempDir;

fn main() {
    divan::main();
}

#[divan::bench_group]
mod proto {
    use super::*;

    const COMMANDS: &[u8] = b"USER anonymous\r\nPASS x\r\nEPSV\r\nRETR a/b c.txt\r\nNOOP\r\n";

    #[divan::bench]
    fn split_five_commands(bencher: Bencher) {
        bencher.counter(ItemsCount::new(5u32)).bench(|| {
            let mut rest = black_box(COMMANDS);
            while let line::Split::Line { len, used } = line::split(rest, 0) {
                black_box(line::verb_and_argument(&rest[..len]));
                rest = &rest[used..];
            }
        });
    }

    #[divan::bench]
    fn virtual_path() -> VirtualPath {
        VirtualPath::root().join(black_box(b"photos/2026/../2025/a long name.jpg"))
    }

    #[divan::bench]
    fn parse_eprt() -> Option<SocketAddr> {
        addr::parse_eprt(black_box(b"|1|132.235.1.2|6275|")).ok()
    }

    #[divan::bench]
    fn parse_upload(bencher: Bencher) {
        let head = b"4096+;modify=20260131120000;unix.mode=0644; a/b";
        bencher.bench(|| match upload::parse(black_box(head)) {
            upload::Head::Immediate { facts, .. } => upload::parse_facts(facts),
            _ => None,
        });
    }

    #[divan::bench]
    fn encode_reply(bencher: Bencher) {
        let mut out = Vec::with_capacity(64);
        bencher.bench_local(|| {
            out.clear();
            Reply::new(226, "4096 bytes sent.").encode(&mut out);
            black_box(&out).len()
        });
    }

    #[divan::bench]
    fn parse_reply(bencher: Bencher) {
        bencher.bench(|| {
            let mut parser = Parser::default();
            let _ = black_box(parser.line(black_box(b"226 4096 bytes sent.")));
        });
    }

    #[divan::bench]
    fn parse_entry_of_mlsd(bencher: Bencher) {
        let entry = b"type=file;size=4096;modify=20260131120000;perm=adfrw;unix.mode=0644; a name";
        bencher.bench(|| parse_entry(black_box(entry)).is_some());
    }
}

fn context<'a>(config: &'a Config, home: &'a Arc<Root>, now: Instant) -> Context<'a> {
    Context {
        config,
        home,
        now,
        wall_s: 0,
        random: 0,
        commits_full: false,
    }
}

/// A session as a value, logged in, with a home of its own.
struct Talk {
    _dir: TempDir,
    config: Config,
    home: Arc<Root>,
    session: Session,
    out: Vec<Action>,
    now: Instant,
}

impl Talk {
    fn new() -> Talk {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("f"), [b'x'; 4096]).expect("a file");
        let home = Arc::new(Root::open(dir.path()).expect("its root"));
        let (config, now, mut out) = (Config::default(), Instant::now(), Vec::new());
        let cx = context(&config, &home, now);
        let session = Session::new(SocketAddr::from(([127, 0, 0, 1], 4000)), &cx, &mut out);
        let mut talk = Talk {
            _dir: dir,
            config,
            home,
            session,
            out,
            now,
        };
        talk.say(b"USER anonymous\r\n");
        talk.say(b"PASS x\r\n");
        assert!(talk.session.is_logged_in());
        talk
    }

    fn say(&mut self, line: &[u8]) -> usize {
        self.out.clear();
        let cx = context(&self.config, &self.home, self.now);
        self.session.receive(line, &cx, &mut self.out);
        assert!(!self.out.is_empty());
        self.out.len()
    }
}

#[divan::bench_group]
mod session {
    use super::*;

    #[divan::bench(args = ["NOOP", "PWD", "SIZE f", "MLST f", "FEAT", "CWD /"])]
    fn command(bencher: Bencher, line: &str) {
        let mut talk = Talk::new();
        let line = format!("{line}\r\n").into_bytes();
        bencher.bench_local(|| talk.say(&line));
    }

    #[divan::bench]
    fn login(bencher: Bencher) {
        bencher.with_inputs(Talk::new).bench_local_refs(|talk| {
            let cx = context(&talk.config, &talk.home, talk.now);
            talk.out.clear();
            let peer = SocketAddr::from(([127, 0, 0, 1], 4000));
            talk.session = Session::new(peer, &cx, &mut talk.out);
            talk.say(b"USER anonymous\r\n") + talk.say(b"PASS x\r\n")
        });
    }
}

#[divan::bench_group(sample_count = 50)]
mod listing {
    use super::*;

    const ENTRIES: usize = 10_000;

    fn directory() -> TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        for i in 0..ENTRIES {
            fs::write(dir.path().join(format!("file number {i}")), "").expect("a file");
        }
        dir
    }

    #[divan::bench]
    fn ten_thousand_entries_with_facts(bencher: Bencher) {
        let dir = directory();
        let root = Root::open(dir.path()).expect("its root");
        let perms = Perms::default();
        bencher.counter(ItemsCount::new(ENTRIES)).bench_local(|| {
            let open = root.open_dir(&VirtualPath::root()).expect("it is there");
            let mut listing = Listing::new(open);
            let (mut out, mut bytes) = (Vec::new(), 0);
            let want = Want {
                stat: true,
                target: false,
                all: false,
                brief: false,
            };
            let mut each = |name: &[u8], meta: &Meta, target: Option<&[u8]>| {
                out.clear();
                write_facts(&mut out, Facts::default(), meta, target, &perms, false);
                out.extend_from_slice(name);
                bytes += out.len();
            };
            while listing.batch(want, &mut each).expect("it can be read") {}
            bytes
        });
    }
}

/// `hauld` as a process, and one session with it.
struct Loopback {
    server: Child,
    control: BufReader<TcpStream>,
    line: Vec<u8>,
    _dir: TempDir,
}

impl Loopback {
    fn new(file_bytes: usize) -> Loopback {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("f"), vec![b'x'; file_bytes]).expect("a file");
        let mut server = Command::new(env!("CARGO_BIN_EXE_hauld"))
            .args(["--listen", "127.0.0.1:0"])
            .arg(dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("hauld starts");
        let mut said = String::new();
        let stdout = server.stdout.take().expect("a pipe");
        BufReader::new(stdout)
            .read_line(&mut said)
            .expect("it says where it listens");
        let address = said.trim().trim_start_matches("listening on ");
        let control = TcpStream::connect(address).expect("a connection");
        control.set_nodelay(true).expect("a socket option");
        let mut loopback = Loopback {
            server,
            control: BufReader::with_capacity(1 << 18, control),
            line: Vec::new(),
            _dir: dir,
        };
        loopback.reply();
        loopback.command(b"USER anonymous\r\n");
        loopback.command(b"PASS x\r\n");
        loopback
    }

    fn send(&mut self, bytes: &[u8]) {
        self.control.get_mut().write_all(bytes).expect("it listens");
    }

    fn reply(&mut self) -> &[u8] {
        self.line.clear();
        self.control
            .read_until(b'\n', &mut self.line)
            .expect("it answers");
        &self.line
    }

    fn command(&mut self, line: &[u8]) -> usize {
        self.send(line);
        self.reply().len()
    }

    fn body(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let there = self.control.fill_buf().expect("it sends").len().min(bytes);
            assert!(there > 0, "it ended early");
            self.control.consume(there);
            bytes -= there;
        }
    }

    fn download(&mut self, count: usize, bytes: usize) {
        self.send(&b"DOWNLOAD f\r\n".repeat(count));
        for _ in 0..count {
            assert!(self.reply().starts_with(b"150"));
            self.body(bytes);
            assert!(self.reply().starts_with(b"226"));
        }
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[divan::bench_group(sample_count = 50)]
mod server {
    use super::*;

    #[divan::bench]
    fn noop(bencher: Bencher) {
        let mut loopback = Loopback::new(0);
        bencher.bench_local(|| loopback.command(b"NOOP\r\n"));
    }

    #[divan::bench]
    fn hundred_small_downloads_pipelined(bencher: Bencher) {
        let mut loopback = Loopback::new(4096);
        let counter = ItemsCount::new(100u32);
        bencher
            .counter(counter)
            .bench_local(|| loopback.download(100, 4096));
    }

    #[divan::bench]
    fn download_of_16_mib(bencher: Bencher) {
        const BYTES: usize = 16 << 20;
        let mut loopback = Loopback::new(BYTES);
        let counter = BytesCount::new(BYTES);
        bencher
            .counter(counter)
            .bench_local(|| loopback.download(1, BYTES));
    }

    #[divan::bench]
    fn upload_of_1_mib(bencher: Bencher) {
        const BYTES: usize = 1 << 20;
        let mut loopback = Loopback::new(0);
        let mut bytes = format!("UPLOAD {BYTES}+ g\r\n").into_bytes();
        bytes.resize(bytes.len() + BYTES, b'x');
        bencher.counter(BytesCount::new(BYTES)).bench_local(|| {
            assert!(loopback.command(&bytes) > 0);
            assert!(loopback.line.starts_with(b"226"));
        });
    }

    #[divan::bench]
    fn session_from_connect_to_quit(bencher: Bencher) {
        let loopback = Loopback::new(0);
        let address = loopback.control.get_ref().peer_addr().expect("an address");
        bencher.bench_local(|| {
            let mut socket = TcpStream::connect(address).expect("a connection");
            socket
                .write_all(b"USER anonymous\r\nPASS x\r\nQUIT\r\n")
                .expect("it listens");
            let mut said = Vec::new();
            socket.read_to_end(&mut said).expect("it answers");
            assert!(said.ends_with(b"\r\n"));
            said.len()
        });
    }
}
