//! F07 to F09, F12: names of any bytes, and those that must not be.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::common::bytewise::{command, fetch, line, on_path, store};
use crate::common::control::Control;
use crate::common::server::{Server, four_questions};

fn local(server: &Server, name: &[u8]) -> PathBuf {
    server.root().join(OsStr::from_bytes(name))
}

/// In a reply, an FF of a name is doubled.
fn undoubled(bytes: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        out.push(byte);
        rest = match tail.first() {
            Some(0xff) if byte == 0xff => &tail[1..],
            _ => tail,
        };
    }
    out
}

/// Each way to store, see, read and remove a file, with its name as it is.
#[track_caller]
fn round_trip(session: &mut Control, server: &Server, name: &[u8]) {
    let shown = name.escape_ascii().to_string();
    assert_eq!(store(session, "STOR", name, name).code, 226, "{shown}");
    assert_eq!(
        fs::read(local(server, name)).expect("stored"),
        name,
        "{shown}"
    );
    let (listed, _) = fetch(session, "MLSD", b"");
    let mut entries = listed.split(|&b| b == b'\n');
    let entry = entries.find(|entry| {
        let entry = entry.strip_suffix(b"\r").unwrap_or(entry);
        let space = entry.iter().position(|&b| b == b' ');
        space.is_some_and(|at| &entry[at + 1..] == name)
    });
    assert!(entry.is_some(), "MLSD has {shown}");
    let nlst = [name, b"\r\n"].concat();
    let (names, _) = fetch(session, "NLST", b"");
    assert!(
        names.windows(nlst.len()).any(|part| part == nlst),
        "NLST has {shown}"
    );
    let facts = on_path(session, "MLST", name);
    assert_eq!(facts.code, 250, "{shown}");
    assert!(
        undoubled(&facts.lines[1]).ends_with(&[b" /", name].concat()),
        "{shown}"
    );
    let tree = command(session, b"TREE");
    let has = |line: &Vec<u8>| undoubled(line).ends_with(&[b" ", name].concat());
    assert!(tree.lines.iter().any(has), "TREE has {shown}");
    assert_eq!(fetch(session, "RETR", name).0, name, "{shown}");
    assert_eq!(on_path(session, "SIZE", name).text, name.len().to_string());
    assert_eq!(on_path(session, "RNFR", name).code, 350, "{shown}");
    assert_eq!(command(session, b"RNTO elsewhere").code, 250);
    assert_eq!(command(session, b"RNFR elsewhere").code, 350);
    assert_eq!(on_path(session, "RNTO", name).code, 250, "{shown}");
    assert_eq!(on_path(session, "DELE", name).code, 250, "{shown}");
    assert!(!local(server, name).exists(), "{shown}");

    let mut upload = line(&format!("UPLOAD {}+", name.len()), name);
    upload.extend_from_slice(b"\r\n");
    upload.extend_from_slice(name);
    session.send(&upload);
    assert_eq!(session.reply().code, 226, "{shown}");
    assert_eq!(on_path(session, "DELE", name).code, 250, "{shown}");

    assert_eq!(on_path(session, "MKD", name).code, 257, "{shown}");
    assert_eq!(on_path(session, "CWD", name).code, 250, "{shown}");
    let told = command(session, b"PWD").lines.concat();
    let doubled: Vec<u8> = name
        .iter()
        .flat_map(|&b| if b == b'"' { vec![b, b] } else { vec![b] })
        .collect();
    let quoted = [b"257 \"/", doubled.as_slice(), b"\""].concat();
    assert!(
        undoubled(&told).starts_with(&quoted),
        "PWD of {shown}: {}",
        told.escape_ascii()
    );
    assert_eq!(command(session, b"CWD /").code, 250);
    assert_eq!(on_path(session, "RMD", name).code, 250, "{shown}");
}

#[test]
fn f07_names_are_bytes() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let mut session = Control::login(server.addr());
    let longest = [b'n'; 255];
    let names: [&[u8]; 24] = [
        &longest,
        b"\xff\xfe not UTF-8 \x80",
        b"\xff\xff\xff",
        b"\xff\xf4\xff\xf2",
        b" leading",
        b"trailing ",
        b"trailing.",
        b"...",
        b"-rf",
        b"-",
        b"|cmd",
        b"~root",
        b"*",
        b"?",
        b"[a-z]{b,c}",
        b"a%0Ab",
        b"a%00b",
        b"\"quoted\"\"",
        b"back\\slash",
        b"facts; type=dir; x",
        b"226 Done.",
        "emoji \u{1f680}".as_bytes(),
        "nfc \u{e9}".as_bytes(),
        "nfd e\u{301}".as_bytes(),
    ];
    for name in names {
        round_trip(&mut session, &server, name);
    }
    session.quit();
    four_questions(&server, baseline);
}

/// Every byte there is, in the middle of a name and at its end.
#[test]
fn f07_every_byte_round_trips_or_is_refused() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let mut session = Control::login(server.addr());
    for byte in 0..=255u8 {
        let name = [b"a", [byte].as_slice(), b"b", &[byte]].concat();
        match byte {
            // The end of the line, and of a component: nothing to refuse.
            b'\n' | b'/' => {}
            0..0x20 | 0x7f => {
                let expected = if byte == 0 { 501 } else { 553 };
                // A CR at the end belongs to the line's end.
                let name = &name[..3];
                assert_eq!(
                    on_path(&mut session, "MKD", name).code,
                    expected,
                    "{byte:#x}"
                );
                assert_eq!(
                    store(&mut session, "STOR", name, b"x").code,
                    expected,
                    "{byte:#x}"
                );
                assert_eq!(on_path(&mut session, "UPLOAD 1", name).code, expected);
                assert_eq!(store(&mut session, "STOR", b"f", b"x").code, 226);
                assert_eq!(command(&mut session, b"RNFR f").code, 350);
                assert_eq!(
                    on_path(&mut session, "RNTO", name).code,
                    expected,
                    "{byte:#x}"
                );
            }
            _ => round_trip(&mut session, &server, &name),
        }
    }
    let left: Vec<_> = fs::read_dir(server.root()).expect("there").collect();
    assert_eq!(left.len(), 1, "{left:?}");
    session.quit();
    four_questions(&server, baseline);
}

#[test]
fn f07_names_and_paths_that_are_too_long() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let mut session = Control::login(server.addr());
    let name = [b'n'; 256];
    assert_eq!(store(&mut session, "STOR", &name, b"x").code, 553);
    assert_eq!(on_path(&mut session, "UPLOAD 1", &name).code, 553);
    assert_eq!(on_path(&mut session, "MKD", &name).code, 553);
    assert_eq!(on_path(&mut session, "SIZE", &name).code, 553);
    // A line has 4,096 bytes, so a path that is longer needs several.
    let part = "p".repeat(250);
    let mut depth = 0;
    loop {
        assert!(depth < 20, "no path is too long");
        let made = session.command(&format!("MKD {part}")).code;
        if made != 257 {
            assert_eq!(made, 553, "at {depth} levels");
            break;
        }
        assert_eq!(session.command(&format!("CWD {part}")).code, 250);
        depth += 1;
    }
    assert!(depth >= 15, "{depth} levels");
    // Short names near the limit: 4,095 bytes are a path, 4,096 are none.
    let here = depth * 251;
    for length in 4090..=4098 {
        let short = vec![b's'; length - here - 1];
        let stored = store(&mut session, "STOR", &short, b"x").code;
        assert!(stored == 226 || stored == 553, "{length}: {stored}");
        if stored == 226 {
            // What can be stored can be read and removed.
            assert_eq!(fetch(&mut session, "RETR", &short).0, b"x", "{length}");
            assert_eq!(on_path(&mut session, "DELE", &short).code, 250, "{length}");
        }
    }
    let absolute = format!("/{}", "a/".repeat(2044));
    assert_eq!(session.command(&format!("CWD {absolute}")).code, 550);
    assert_eq!(session.command("CWD /").code, 250);
    session.quit();
    four_questions(&server, baseline);
}

/// No listing and no reply carries a raw control byte, but for its line ends.
#[track_caller]
fn is_clean(bytes: &[u8], what: &str) {
    let mut rest = bytes.to_vec();
    rest.retain(|&b| b != b'\r' && b != b'\n');
    assert!(
        !rest.iter().any(|&b| b < 0x20 || b == 0x7f),
        "{what}: {}",
        bytes.escape_ascii()
    );
    for line in bytes.split_inclusive(|&b| b == b'\n') {
        let line = line.strip_suffix(b"\r\n").unwrap_or(line);
        assert!(!line.contains(&b'\r'), "{what}: {}", line.escape_ascii());
    }
}

#[test]
fn f08_names_with_control_bytes_are_in_no_listing() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let bad: [&[u8]; 7] = [
        b"a\nb",
        b"\x1b[2J",
        b"a\rb",
        b"\x7f",
        b"\x01",
        b"a\r\n213 End",
        b"tab\t",
    ];
    for name in bad {
        fs::write(local(&server, name), b"").expect("writing");
    }
    fs::write(server.path("good"), b"").expect("writing");
    fs::create_dir(local(&server, b"dir\x1b")).expect("making");
    fs::write(local(&server, b"dir\x1b/inside"), b"").expect("writing");
    symlink(
        OsStr::from_bytes(b"to\r\n213 End\x1b\xff"),
        server.path("link"),
    )
    .expect("linking");
    let mut session = Control::login(server.addr());
    for verb in ["MLSD", "LIST", "NLST", "NLST *"] {
        let (listed, end) = session.fetch(verb);
        assert_eq!(end.code, 226);
        is_clean(&listed, verb);
        assert_eq!(listed.iter().filter(|&&b| b == b'\n').count(), 2, "{verb}");
    }
    let status = session.command("STAT /");
    assert_eq!(status.lines.len(), 4, "{status:?}");
    is_clean(&status.lines.concat(), "STAT");
    let tree = session.command("TREE");
    assert_eq!(tree.text, "2 entries, 8 left out.");
    // A path that goes through such a name is shown as it is sent, but not raw.
    for argument in [
        &b"x\x1b[2J/../good"[..],
        b"x\r/../",
        b"x\x1b/..",
        b"\x07/../*",
    ] {
        for verb in ["LIST", "NLST", "MLSD"] {
            let (listed, end) = fetch(&mut session, verb, argument);
            assert!(matches!(end.code, 226 | 501 | 550), "{end:?}");
            is_clean(&listed, verb);
            is_clean(&end.lines.concat(), verb);
        }
        for verb in [
            "STAT",
            "MLST",
            "TREE",
            "SIZE",
            "HASH",
            "CWD",
            "MFMT 20200101000000",
        ] {
            let reply = on_path(&mut session, verb, argument);
            for line in &reply.lines {
                assert!(!line.contains(&b'\r'), "{verb}: {}", line.escape_ascii());
                is_clean(line, verb);
            }
        }
        is_clean(&command(&mut session, b"PWD").lines.concat(), "PWD");
        assert_eq!(command(&mut session, b"CWD /").code, 250);
    }
    session.quit();
    for name in bad {
        fs::remove_file(local(&server, name)).expect("untouched");
    }
    four_questions(&server, baseline);
}

#[test]
fn f09_names_of_staged_files_are_out_of_reach() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    fs::write(server.path(".haul-0123456789abcdef"), b"staged").expect("writing");
    fs::create_dir(server.path(".haul-dir")).expect("making");
    let mut session = Control::login(server.addr());
    for name in [
        ".haul-0123456789abcdef",
        ".HAUL-0123456789abcdef",
        ".Haul-new",
        ".haul-",
        "sub/.haul-x",
        ".haul-dir/f",
        ".haul-dir/..",
    ] {
        // The last one is the root again, since paths are normalised before anybody looks.
        let codes = if name.ends_with("..") {
            250..=553
        } else {
            550..=553
        };
        for verb in [
            "DELE", "RNFR", "SIZE", "MLST", "DOWNLOAD", "MKD", "RMD", "CWD", "UPLOAD 1",
        ] {
            let code = session.command(&format!("{verb} {name}")).code;
            assert!(codes.contains(&code), "{verb} {name}: {code}");
        }
        assert_eq!(session.command("CWD /").code, 250);
        let code = session.stor(name, b"x").code;
        assert!((550..=553).contains(&code), "STOR {name}: {code}");
        assert_eq!(session.upload("mine", b"x").code, 226);
        assert_eq!(session.command("RNFR mine").code, 350);
        let code = session.command(&format!("RNTO {name}")).code;
        assert!((550..=553).contains(&code), "RNTO {name}: {code}");
    }
    for verb in ["LIST", "NLST", "MLSD", "NLST .h*", "NLST *", "LIST -a"] {
        let (listed, _) = session.fetch(verb);
        let text = String::from_utf8_lossy(&listed).to_lowercase();
        assert!(!text.contains(".haul-"), "{verb}: {text}");
    }
    for verb in ["STAT /", "TREE"] {
        let text = session.command(verb).lines.concat();
        let text = String::from_utf8_lossy(&text).to_lowercase();
        assert!(!text.contains(".haul-"), "{verb}: {text}");
    }
    session.quit();
    assert_eq!(
        fs::read(server.path(".haul-0123456789abcdef")).expect("there"),
        b"staged"
    );
    fs::remove_file(server.path(".haul-0123456789abcdef")).expect("removing");
    fs::remove_dir(server.path(".haul-dir")).expect("removing");
    four_questions(&server, baseline);
}

#[test]
fn f12_long_links_and_facts_are_whole_lines() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let lengths = [1, 1003, 1004, 1005, 1023, 1024, 1025, 2048, 4094, 4095];
    for length in lengths {
        let target = "t/".repeat(length / 2) + &"t".repeat(length % 2);
        symlink(target, server.path(&format!("link-{length}"))).expect("linking");
    }
    let long_name = "n".repeat(255);
    symlink("t".repeat(4095), server.path(&long_name)).expect("linking");
    let mut session = Control::login(server.addr());
    let (listed, end) = session.fetch("MLSD");
    assert_eq!(end.code, 226);
    let (lines, _) = session.fetch("LIST");
    for (length, name) in lengths
        .iter()
        .map(|length| (*length, format!("link-{length}")))
        .chain([(4095, long_name.clone())])
    {
        let entry = listed
            .split(|&b| b == b'\n')
            .find(|entry| entry.ends_with(format!(" {name}\r").as_bytes()))
            .unwrap_or_else(|| panic!("no {name} in MLSD"));
        let entry = String::from_utf8_lossy(entry);
        let target = entry
            .split("type=OS.unix=slink:")
            .nth(1)
            .and_then(|rest| rest.split(';').next());
        assert_eq!(target.map(str::len), Some(length), "{name}");
        let line = lines
            .split(|&b| b == b'\n')
            .find(|line| {
                line.windows(name.len() + 4).any(|p| {
                    p == format!(" {name} ->").as_bytes()
                        || p.starts_with(format!(" {name} ->").as_bytes())
                })
            })
            .unwrap_or_else(|| panic!("no {name} in LIST"));
        assert!(line.len() > length + name.len() + 50, "{name} in LIST");
        let facts = session.command(&format!("MLST {name}"));
        assert!(facts.lines[1].len() > length, "{name} in MLST");
    }
    let tree = session.command("TREE");
    assert_eq!(tree.lines.len(), lengths.len() + 3);

    // Where a link points is bytes as well: doubled in a reply, and raw in data.
    let target = b"to\xff\xf4\xff\xffend";
    symlink(OsStr::from_bytes(target), server.path("bytes")).expect("linking");
    let has = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|p| p == part);
    let (fact, arrow) = (
        [b"slink:", &target[..]].concat(),
        [b" -> ", &target[..]].concat(),
    );
    assert!(has(&session.fetch("MLSD").0, &fact), "MLSD");
    assert!(has(&session.fetch("LIST").0, &arrow), "LIST");
    assert!(has(&session.fetch("LIST bytes").0, &arrow), "LIST of it");
    for (line, part) in [
        ("TREE", &fact),
        ("MLST bytes", &fact),
        ("STAT /", &arrow),
        ("STAT bytes", &arrow),
    ] {
        let reply = session.command(line);
        assert!(
            reply.lines.iter().any(|line| has(&undoubled(line), part)),
            "{line}"
        );
    }
    session.quit();
    four_questions(&server, baseline);
}
