//! F01 to F03: what is outside is neither read nor changed, whatever path is sent.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use crate::common::bytewise::{End, command, fetch, line, on_path, rest_of, store};
use crate::common::control::Control;
use crate::common::server::{Launch, Server, four_questions};

/// The content of every file outside. No reply and no data may contain it.
pub const SECRET: &[u8] = b"the-secret-outside";

type State = Vec<(PathBuf, u64, i64, u32, Vec<u8>)>;

/// `pub` is served. Around it lies what must stay as it is.
pub struct Walls {
    pub server: Server,
    pub outside: PathBuf,
    before: State,
}

impl Walls {
    pub fn new() -> Walls {
        let server = Server::launch(&Launch {
            below: "a/t/pub",
            ..Launch::default()
        });
        let outside = server.root().parent().expect("nested").to_owned();
        for dir in ["pub_secret/d", "outside/d", "d", "pub/sub", "pub/d"] {
            fs::create_dir_all(outside.join(dir)).expect("making");
        }
        for file in ["pub_secret/f", "outside/f", "outside/d/f", "x", "d/f", "f"] {
            fs::write(outside.join(file), SECRET).expect("writing");
        }
        fs::write(outside.join("../x"), SECRET).expect("writing");
        let mut walls = Walls {
            server,
            outside,
            before: Vec::new(),
        };
        walls.before = walls.state();
        walls
    }

    /// Everything around the served directory; not that directory's own times.
    fn state(&self) -> State {
        let mut found = Vec::new();
        let mut todo = vec![self.outside.parent().expect("nested").to_owned()];
        while let Some(path) = todo.pop() {
            let meta = fs::symlink_metadata(&path).expect("it is there");
            let mut content = Vec::new();
            if path == self.server.root() {
                continue;
            } else if meta.is_dir() {
                let entries = fs::read_dir(&path).expect("a directory");
                todo.extend(entries.map(|entry| entry.expect("an entry").path()));
            } else if meta.is_file() {
                content = fs::read(&path).expect("a file");
            }
            let changed = meta.ctime() * 1_000_000_000 + meta.ctime_nsec();
            found.push((path, meta.ino(), changed, meta.mode(), content));
        }
        found.sort();
        found
    }

    #[track_caller]
    pub fn stand(&self, after: &str) {
        assert!(self.state() == self.before, "outside changed after {after}");
    }
}

/// What each verb does with a path. The codes that came, and all that was received.
pub fn try_verb(session: &mut Control, verb: &str, path: &[u8]) -> (Vec<u16>, Vec<u8>) {
    let reply = |reply: crate::common::control::Reply| (vec![reply.code], reply.lines.concat());
    match verb {
        "RETR" | "LIST" | "LIST -la" | "NLST" | "MLSD" => {
            let (mut received, end) = fetch(session, verb, path);
            received.extend(end.lines.concat());
            (vec![end.code], received)
        }
        "STOR" | "APPE" => reply(store(session, verb, path, b"from a client")),
        "REST+STOR" => {
            assert_eq!(session.command("REST 3").code, 350);
            reply(store(session, "STOR", path, b"from a client"))
        }
        "UPLOAD+" => {
            let mut bytes = line("UPLOAD 4+", path);
            bytes.extend_from_slice(b"\r\nbody");
            session.send(&bytes);
            reply(session.reply())
        }
        "UPLOAD" => {
            let first = on_path(
                session,
                "UPLOAD 4;unix.mode=0600;modify=20000101000000;",
                path,
            );
            if first.code != 150 {
                return reply(first);
            }
            session.send(b"body");
            reply(session.reply())
        }
        "DOWNLOAD" => {
            let first = on_path(session, verb, path);
            if first.code != 150 {
                return reply(first);
            }
            let n: usize = first.text.split(' ').next().unwrap().parse().unwrap();
            let received = session.read_exact(n);
            (vec![session.reply().code], received)
        }
        // Renaming to it, and what was renamed back again.
        "RNTO" => {
            assert_eq!(store(session, "STOR", b"/to-be-renamed", b"x").code, 226);
            assert_eq!(session.command("RNFR /to-be-renamed").code, 350);
            let got = reply(on_path(session, verb, path));
            session.command("DELE /to-be-renamed");
            got
        }
        "RNFR" => {
            let from = on_path(session, verb, path);
            if from.code != 350 {
                return reply(from);
            }
            let to = session.command("RNTO /renamed");
            if to.code == 250 {
                session.command("RNFR /renamed");
                on_path(session, "RNTO", path);
            }
            (vec![from.code, to.code], Vec::new())
        }
        "SITE UTIME long" => {
            let times = b" 20000101000000 20000101000000 20000101000000 UTC";
            reply(on_path(session, "SITE UTIME", &[path, times].concat()))
        }
        _ => reply(on_path(session, verb, path)),
    }
}

/// Every verb that takes a path, each in all its forms.
pub const VERBS: [&str; 38] = [
    "CWD",
    "XCWD",
    "RETR",
    "STOR",
    "APPE",
    "REST+STOR",
    "UPLOAD",
    "UPLOAD+",
    "DOWNLOAD",
    "TREE",
    "MKD",
    "XMKD",
    "RMD",
    "XRMD",
    "RNTO",
    "RNFR",
    "SIZE",
    "MDTM",
    "MDTM 20000101000000",
    "MFMT 20000101000000",
    "MLST",
    "MLSD",
    "LIST",
    "LIST -la",
    "NLST",
    "STAT",
    "STAT -a",
    "AVBL",
    "HASH",
    "XCRC",
    "XMD5",
    "XSHA256",
    "XSHA512",
    "SITE CHMOD 777",
    "SITE UTIME 20000101000000",
    "SITE UTIME long",
    "ALLO",
    "DELE",
];

/// Refused for good, for now, or done: but in time, and with the connection as it was.
#[track_caller]
fn is_an_answer(codes: &[u16], verb: &str, path: &[u8]) {
    for code in codes {
        assert!(
            [
                200, 202, 211, 212, 213, 226, 250, 257, 350, 450, 501, 550, 553, 554
            ]
            .contains(code),
            "{verb} {}: {code}",
            path.escape_ascii()
        );
    }
}

#[test]
fn f01_no_path_leads_above_the_root() {
    let walls = Walls::new();
    let baseline = walls.server.baseline();
    let far_up = "../".repeat(1000);
    let far_up_to_x = format!("{}x", "../".repeat(1300));
    let paths: [&[u8]; 22] = [
        b"../x",
        b"/../x",
        b"a/../../x",
        b"..\\x",
        b"....//x",
        b"%2e%2e/x",
        b".",
        b"..",
        b"",
        b"/",
        b"//",
        b"/..",
        b"/../..",
        b"../outside/f",
        b"../../t/outside/f",
        b"../pub_secret/f",
        b"..\xffx",
        b"\xc0\xae\xc0\xae/x",
        b"~/x",
        b"..;/x",
        far_up.as_bytes(),
        far_up_to_x.as_bytes(),
    ];
    for cwd in ["/", "/sub"] {
        let mut session = Control::login(walls.server.addr());
        for verb in VERBS {
            for path in paths {
                assert_eq!(session.command(&format!("CWD {cwd}")).code, 250);
                let (codes, received) = try_verb(&mut session, verb, path);
                is_an_answer(&codes, verb, path);
                let leaks = received.windows(SECRET.len()).any(|part| part == SECRET);
                assert!(!leaks, "{verb} {}", path.escape_ascii());
                for dir in ["sub", "d"] {
                    let _ = fs::create_dir(walls.server.path(dir));
                }
            }
            walls.stand(verb);
        }
        assert_eq!(session.command("NOOP").code, 200, "no reply too many");
        session.quit();
    }
    assert!(walls.server.root().is_dir());
    // More than a line holds.
    let mut session = Control::login(walls.server.addr());
    session.send(format!("CWD {}\r\n", "../".repeat(5000)).as_bytes());
    assert_eq!(session.reply().code, 500);
    walls.stand("a path that is too long");
    four_questions(&walls.server, baseline);
}

#[test]
fn f02_a_sibling_with_the_same_beginning_is_outside() {
    let walls = Walls::new();
    let baseline = walls.server.baseline();
    let mut session = Control::login(walls.server.addr());
    for path in [
        "../pub_secret/f",
        "/../pub_secret/f",
        "_secret/f",
        "../pub/../pub_secret/f",
    ] {
        assert_eq!(session.fetch(&format!("RETR {path}")).1.code, 550);
        assert_eq!(session.command(&format!("DOWNLOAD {path}")).code, 550);
    }
    session.quit();
    walls.stand("f02");
    four_questions(&walls.server, baseline);
}

/// Those that lead out, and those that lead nowhere.
fn links(walls: &Walls) -> Vec<(PathBuf, &'static str)> {
    let real = |name: &str| walls.outside.join(name);
    vec![
        ("/etc".into(), "absolute"),
        ("/etc/passwd".into(), "file"),
        ("../..".into(), "up"),
        ("..".into(), "parent"),
        ("../outside".into(), "beside"),
        (real("outside"), "absolute-beside"),
        (real("outside/f"), "absolute-file"),
        ("../outside/new".into(), "dangling-outside"),
        ("loop".into(), "loop"),
        ("/proc/self/root".into(), "magic"),
        ("/proc/self/cwd".into(), "magic-cwd"),
        ("/proc/self/fd/0".into(), "magic-descriptor"),
        ("beside".into(), "chain"),
        ("sub/../../outside".into(), "around"),
        (real("pub/sub"), "absolute-but-inside"),
    ]
}

fn make_links(links: &[(PathBuf, &str)], root: &Path) {
    for (target, name) in links {
        if fs::read_link(root.join(name)).is_ok_and(|there| there == *target) {
            continue;
        }
        // What a verb made of the link itself, inside.
        let _ = fs::remove_file(root.join(name));
        let _ = fs::remove_dir(root.join(name));
        symlink(target, root.join(name)).expect("linking");
    }
}

#[test]
fn f03_links_lead_nowhere_but_inside() {
    let walls = Walls::new();
    let links = links(&walls);
    symlink("sub", walls.server.path("in")).expect("linking");
    make_links(&links, walls.server.root());
    let baseline = walls.server.baseline();
    let mut session = Control::login(walls.server.addr());
    for verb in VERBS {
        for (_, link) in &links {
            for path in [
                link.to_string(),
                format!("{link}/f"),
                format!("{link}/d/f"),
                format!("{link}/new"),
                format!("{link}/"),
                format!("{link}/."),
                format!("in/../{link}/passwd"),
            ] {
                // Of the link itself, one that replaces or removes it takes hold.
                let (codes, received) = try_verb(&mut session, verb, path.as_bytes());
                is_an_answer(&codes, verb, path.as_bytes());
                let leaks = received.windows(SECRET.len()).any(|part| part == SECRET)
                    || received.windows(5).any(|part| part == b"root:");
                assert!(!leaks, "{verb} {path}");
                let entered =
                    matches!(verb, "CWD" | "XCWD" | "TREE" | "MLSD" | "RETR" | "DOWNLOAD");
                assert!(!entered || codes[0] >= 500, "{verb} {path}: {codes:?}");
                make_links(&links, walls.server.root());
            }
        }
        walls.stand(verb);
    }
    // The one that stays inside works.
    assert_eq!(session.stor("in/f", b"inside").code, 226);
    assert_eq!(
        fs::read(walls.server.path("sub/f")).expect("stored"),
        b"inside"
    );
    assert_eq!(session.download("in/f").0, b"inside");
    assert_eq!(session.command("CWD in").code, 250);
    assert_eq!(session.command("SIZE f").code, 213);
    assert_eq!(session.command("CWD /").code, 250);

    // Listings show the links themselves; DELE removes them and not what they point to.
    let (listed, _) = session.fetch("MLSD");
    let text = String::from_utf8_lossy(&listed).into_owned();
    for (_, link) in &links {
        let entry = text
            .lines()
            .find(|entry| entry.ends_with(&format!(" {link}")));
        assert!(
            entry.is_some_and(|e| e.contains("OS.unix=s")),
            "{link}: {entry:?}"
        );
        assert_eq!(session.command(&format!("DELE {link}")).code, 250);
    }
    assert_eq!(session.command("DELE in").code, 250);
    assert!(walls.server.path("sub/f").exists());
    walls.stand("DELE of links");
    session.quit();
    four_questions(&walls.server, baseline);
}

/// The first words of a session that pipelines everything it can think of.
#[test]
fn f01_pipelined_walks_stay_inside_too() {
    let walls = Walls::new();
    let baseline = walls.server.baseline();
    let mut session = Control::login(walls.server.addr());
    let lines = b"CWD ..\r\nCDUP\r\nXCUP\r\nDELE x\r\nRMD outside/d\r\nMKD ../outside/new\r\n\
        RNFR ../x\r\nRNTO y\r\nSITE CHMOD 777 ../x\r\nMFMT 20000101000000 ../x\r\nPWD\r\n";
    session.send(lines);
    let codes: Vec<u16> = (0..11).map(|_| session.reply().code).collect();
    assert_eq!(
        codes,
        [250, 250, 250, 550, 550, 550, 550, 503, 550, 550, 257]
    );
    assert_eq!(command(&mut session, b"QUIT").code, 221);
    assert_eq!(rest_of(session.stream()).1, End::Ordered);
    walls.stand("pipelined walks");
    four_questions(&walls.server, baseline);
}
