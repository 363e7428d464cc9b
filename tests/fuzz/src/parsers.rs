//! The parsers of `proto`, of paths and of the users file.

use std::net::SocketAddr;

use haul::accounts::users::Users;
use haul::client::listing::entry_in;
use haul::client::reply::{Features, Reply as Answer};
use haul::proto::ascii::{FromWire, ToWire};
use haul::proto::facts::{Facts, Kind, Meta, Perms, parse_entry, parse_octal, write_facts};
use haul::proto::line::{Quoted, Split, is_http, number, split, strip_telnet, verb_and_argument};
use haul::proto::list::parse_list_line;
use haul::proto::reply::{Parser, Part, Reply, quoted, unquoted};
use haul::proto::upload::{Head, IMMEDIATE_BYTES_MAX, first_word, parse_facts};
use haul::proto::{addr, time, upload as upload_line};
use haul::storage::path::{RESERVED_PREFIX, VirtualPath, has_wildcards, matches};

/// The lines in what arrives in pieces, and whether a line was too long.
fn lines<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, bool) {
    let (mut held, mut searched, mut found) = (Vec::new(), 0, Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        loop {
            match split(&held, searched) {
                Split::Line { len, used } => {
                    assert!(len < used && used <= held.len());
                    found.push(held[..len].to_vec());
                    held.drain(..used);
                    searched = 0;
                }
                Split::Partial => {
                    searched = held.len();
                    break;
                }
                Split::TooLong => return (found, true),
            }
        }
    }
    (found, false)
}

pub fn line(input: &[u8]) {
    let whole = lines(std::iter::once(input));
    let (bytewise, too_long) = lines(input.chunks(1));
    assert_eq!(whole.0, bytewise);
    assert_eq!(whole.1, too_long);
    for line in &bytewise {
        let clean = strip_telnet(line);
        assert!(clean.len() <= line.len() && !clean.contains(&b'\n'));
        let (verb, argument) = verb_and_argument(&clean);
        let again = argument.map_or(verb.to_vec(), |it| [verb, b" ", it].concat());
        assert_eq!(again, *clean);
        let _ = is_http(&clean);
        if let Some(n) = number(verb) {
            let digits = std::str::from_utf8(verb).unwrap();
            assert_eq!(digits.parse::<u64>(), Ok(n));
        }
        let shown = Quoted(&clean).to_string();
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
        assert!(!shown[1..shown.len() - 1].contains('"'), "{shown:?}");
    }
    translations(input);
}

/// What is translated does not depend on how it is cut.
fn translations(input: &[u8]) {
    let cut = input.first().map_or(1, |&byte| usize::from(byte) % 7 + 1);
    let to_wire = |size: usize| {
        let (mut state, mut out) = (ToWire::default(), Vec::new());
        input
            .chunks(size)
            .for_each(|it| state.translate(it, &mut out));
        out
    };
    let from_wire = |size: usize| {
        let (mut state, mut out) = (FromWire::default(), Vec::new());
        input
            .chunks(size)
            .for_each(|it| state.translate(it, &mut out));
        state.finish(&mut out);
        out
    };
    let size = input.len().max(1);
    assert_eq!(to_wire(size), to_wire(cut));
    assert_eq!(from_wire(size), from_wire(cut));
}

pub fn reply(input: &[u8]) {
    let mut parser = Parser::default();
    for line in input.split(|&byte| byte == b'\n') {
        if let Ok(Part::End(code, text)) = parser.line(line) {
            assert!((100..700).contains(&code) && text.len() < line.len());
        }
        let _ = unquoted(line);
    }
    // What the client makes of it, and shows.
    let lines: Vec<Vec<u8>> = input.split(|&it| it == b'\n').map(<[u8]>::to_vec).collect();
    let features = Features::parse(&lines);
    assert!(features.digests.len() <= lines.len());
    let answer = Answer { code: 250, lines };
    let _ = entry_in(&answer);
    assert!(!answer.to_string().chars().any(char::is_control));
    // Whatever a name is, it forges no line, and a path is read back as it was written.
    let mut out = Vec::new();
    Reply::new(257, quoted(input)).encode(&mut out);
    assert_eq!(out.iter().position(|&it| it == b'\n'), Some(out.len() - 1));
    let line = out.strip_suffix(b"\r\n").expect("CRLF");
    assert!(!line.iter().any(u8::is_ascii_control));
    let Ok(Part::End(257, text)) = Parser::default().line(line) else {
        panic!("what was written is not read: {}", line.escape_ascii());
    };
    if !input.iter().any(|it| it.is_ascii_control() || *it == 0xff) {
        assert_eq!(unquoted(text).as_deref(), Some(input));
    }
}

pub fn facts(input: &[u8]) {
    for line in input.split(|&byte| byte == b'\n') {
        if let Some(listed) = parse_entry(line) {
            assert!(line.ends_with(&listed.name));
            assert!(listed.mode.is_none_or(|mode| mode <= 0o7777));
        }
        for now_s in [0, 1_769_860_800] {
            if let Some(listed) = parse_list_line(line, now_s) {
                assert!(listed.name.len() < line.len());
            }
        }
        if let Some(seconds) = time::parse_14(line) {
            // A leap second is the one before it, and parts of one are left out.
            let whole = line.split(|&it| it == b'.').next().unwrap_or_default();
            assert!(whole.ends_with(b"60") || time::text_14(seconds) == whole);
        }
        let _ = parse_octal(line);
    }
    let chosen = Facts::parse(input);
    assert_eq!(Facts::parse(chosen.chosen().as_bytes()), chosen);
    round_trip(input);
}

/// An entry that is written comes back as it was.
fn round_trip(input: &[u8]) {
    let Some((head, name)) = input.split_at_checked(16) else {
        return;
    };
    let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
    let kind = [Kind::File, Kind::Dir, Kind::Link][usize::from(head[0]) % 3];
    let meta = Meta {
        size: word(0) >> 1,
        modify_s: i64::try_from(word(8) % 250_000_000_000).unwrap(),
        mode: u32::from(head[1]) << 4 & 0o7777,
        ..Meta::of_kind(kind)
    };
    let facts = Facts::parse(b"type;size;modify;perm;unique;unix.mode;");
    let target = (kind == Kind::Link).then_some(name);
    let mut line = Vec::new();
    write_facts(&mut line, facts, &meta, target, &Perms::default(), false);
    assert!(!line.iter().any(|it| it.is_ascii_control() || *it == b' '));
    line.push(b' ');
    line.extend_from_slice(name);
    let listed = parse_entry(&line).expect("an entry");
    assert_eq!((listed.name.as_slice(), listed.kind), (name, Some(kind)));
    assert_eq!(listed.modify_s, Some(meta.modify_s));
    assert_eq!(listed.mode, Some(meta.mode));
    assert!(listed.size == Some(meta.size) || kind != Kind::File);
    assert!(listed.target.is_none_or(|it| it == name));
}

pub fn path(input: &[u8]) {
    let (mut here, mut rest) = (VirtualPath::root(), input);
    loop {
        let end = rest.iter().position(|&byte| byte == b'\n');
        let argument = &rest[..end.unwrap_or(rest.len())];
        here = here.join(argument);
        check_path(&here);
        let Some(end) = end else { break };
        let (pattern, name) = (argument, &rest[end + 1..]);
        if pattern.len().saturating_mul(name.len()) < 10_000 {
            assert_eq!(matches(pattern, name), slowly_matches(pattern, name));
            assert!(has_wildcards(pattern) || matches(pattern, name) == (pattern == name));
        }
        rest = name;
    }
}

fn check_path(path: &VirtualPath) {
    let bytes = path.as_bytes();
    let (slash, inner) = bytes.split_first().expect("never empty");
    assert_eq!(*slash, b'/');
    let odd = |name: &[u8]| matches!(name, b"" | b"." | b"..");
    assert!(path.is_root() || !inner.split(|&it| it == b'/').any(odd));
    assert_eq!(VirtualPath::root().join(bytes), *path);
    assert_eq!(path.join(b"."), *path);
    assert_eq!(path.is_root(), path.split().is_none());
    if let Some((parent, name)) = path.split() {
        assert!(!name.contains(&b'/'));
        assert_eq!(VirtualPath::root().join(parent).join(name), *path);
        let lower = name.to_ascii_lowercase();
        assert!(path.is_reserved() || !lower.starts_with(RESERVED_PREFIX));
    }
}

/// The same by the book: whether each beginning of the pattern fits each beginning of the name.
fn slowly_matches(pattern: &[u8], name: &[u8]) -> bool {
    let mut fits = vec![false; name.len() + 1];
    fits[0] = true;
    for &byte in pattern {
        let mut next = vec![false; name.len() + 1];
        for at in 0..=name.len() {
            let before = at.checked_sub(1);
            next[at] = match byte {
                b'*' => fits[at] || before.is_some_and(|before| next[before]),
                b'?' => before.is_some_and(|before| fits[before]),
                byte => before.is_some_and(|before| fits[before] && name[before] == byte),
            };
        }
        fits = next;
    }
    fits[name.len()]
}

pub fn upload(input: &[u8]) {
    let (word, _) = verb_and_argument(input);
    match upload_line::parse(input) {
        Head::Immediate { bytes, facts, .. } => {
            assert!(bytes <= IMMEDIATE_BYTES_MAX);
            check_facts(bytes, true, facts);
        }
        // A plus sign that was overlooked would leave a body to be read as commands.
        Head::Waiting { bytes, facts, .. } => {
            assert!(!word.contains(&b'+'));
            check_facts(bytes, false, facts);
        }
        Head::Malformed => assert!(!word.contains(&b'+')),
        Head::Lost => assert!(input.contains(&b'+')),
    }
}

fn check_facts(bytes: u64, immediate: bool, facts: &[u8]) {
    let Some(known) = parse_facts(facts) else {
        return;
    };
    let word = first_word(bytes, immediate, &known);
    let again = upload_line::parse(word.as_bytes());
    let (Head::Immediate { facts, .. } | Head::Waiting { facts, .. }) = again else {
        panic!("{word} is not read");
    };
    assert_eq!(parse_facts(facts), Some(known), "{word}");
}

pub fn address(input: &[u8]) {
    if let Ok(found) = addr::parse_port(input) {
        let [a, b, c, d] = found.ip().octets();
        let [high, low] = found.port().to_be_bytes();
        let again = format!("{a},{b},{c},{d},{high},{low}");
        assert_eq!(addr::parse_port(again.as_bytes()), Ok(found));
        let told = addr::pasv_text(found);
        assert_eq!(addr::parse_pasv(told.as_bytes()), Some(found));
    }
    if let Ok(found) = addr::parse_eprt(input) {
        let family = if found.is_ipv4() { 1 } else { 2 };
        let again = format!("|{family}|{}|{}|", found.ip(), found.port());
        let read = addr::parse_eprt(again.as_bytes()).expect("an address");
        let bare = |it: SocketAddr| (it.ip(), it.port());
        assert_eq!(bare(read), bare(found));
    }
    if let Some(found) = addr::parse_epsv(input) {
        assert_eq!(
            addr::parse_epsv(addr::epsv_text(found).as_bytes()),
            Some(found)
        );
    }
    let _ = addr::parse_pasv(input);
}

pub fn users(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    match Users::parse(text) {
        Ok(users) => {
            for user in users.sorted() {
                let name = user.name.as_str();
                assert!(!name.is_empty() && !name.chars().any(char::is_control));
                let found = users.find(name.as_bytes()).expect("it is there");
                assert_eq!(found.name, user.name);
            }
        }
        Err(error) => {
            let said = error.to_string();
            assert!(!said.chars().any(char::is_control), "{said:?}");
        }
    }
}
