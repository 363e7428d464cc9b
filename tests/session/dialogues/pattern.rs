//! Texts and patterns of dialogue files: escapes, repetitions, wildcards and names.

use std::collections::HashMap;

/// What `{name}` stands for.
pub type Names = HashMap<String, Vec<u8>>;

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Bytes(Vec<u8>),
    Star,
    Name(String),
}

fn pieces(text: &str) -> Vec<Piece> {
    let mut found = Vec::new();
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let special = match c {
            '*' => Some((Piece::Star, 1)),
            '{' => {
                let end = rest.find('}').unwrap_or_else(|| panic!("no }} in {text}"));
                Some((braces(&rest[1..end]), end + 1))
            }
            _ => None,
        };
        match special {
            Some((Piece::Bytes(repeated), length)) => {
                bytes.extend(repeated);
                rest = &rest[length..];
            }
            Some((piece, length)) => {
                found.push(Piece::Bytes(std::mem::take(&mut bytes)));
                found.push(piece);
                rest = &rest[length..];
            }
            None => {
                let length = plain(rest, &mut bytes);
                rest = &rest[length..];
            }
        }
    }
    found.push(Piece::Bytes(bytes));
    found
}

/// `{TEXT*N}` or `{name}`.
fn braces(inside: &str) -> Piece {
    let Some((text, times)) = inside.rsplit_once('*') else {
        return Piece::Name(inside.to_string());
    };
    let mut once = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let length = plain(rest, &mut once);
        rest = &rest[length..];
    }
    Piece::Bytes(once.repeat(times.parse().unwrap()))
}

/// Reads one character or escape, and says how long it was.
fn plain(text: &str, out: &mut Vec<u8>) -> usize {
    let mut chars = text.chars();
    let first = chars.next().unwrap();
    if first != '\\' {
        out.extend(first.to_string().bytes());
        return first.len_utf8();
    }
    let byte = match chars.next() {
        Some('r') => b'\r',
        Some('n') => b'\n',
        Some('t') => b'\t',
        Some(c @ ('\\' | '{' | '*')) => c as u8,
        Some('x') => {
            out.push(u8::from_str_radix(&text[2..4], 16).unwrap());
            return 4;
        }
        other => panic!("there is no escape {other:?}"),
    };
    out.push(byte);
    2
}

/// The bytes of a text, in which names are known.
pub fn bytes(text: &str, names: &Names) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in pieces(text) {
        match piece {
            Piece::Bytes(bytes) => out.extend(bytes),
            Piece::Star => out.push(b'*'),
            Piece::Name(name) => {
                let known = names.get(&name);
                out.extend(known.unwrap_or_else(|| panic!("nothing is called {{{name}}} yet")));
            }
        }
    }
    out
}

/// Whether `line` fits; then the names in the pattern are set.
pub fn fits(pattern: &str, line: &[u8], names: &mut Names) -> bool {
    let mut found = Vec::new();
    if !match_from(&pieces(pattern), line, &mut found) {
        return false;
    }
    names.extend(found);
    true
}

fn match_from(pieces: &[Piece], line: &[u8], found: &mut Vec<(String, Vec<u8>)>) -> bool {
    let Some((piece, rest)) = pieces.split_first() else {
        return line.is_empty();
    };
    if let Piece::Bytes(bytes) = piece {
        return line
            .strip_prefix(bytes.as_slice())
            .is_some_and(|tail| match_from(rest, tail, found));
    }
    for end in 0..=line.len() {
        let before = found.len();
        if let Piece::Name(name) = piece {
            if end == 0 {
                continue;
            }
            found.push((name.clone(), line[..end].to_vec()));
        }
        if match_from(rest, &line[end..], found) {
            return true;
        }
        found.truncate(before);
    }
    false
}

#[test]
fn patterns() {
    let mut names = Names::new();
    assert!(fits("229 * (|||{epsv}|)", b"229 x (|||123|)", &mut names));
    assert_eq!(names["epsv"], b"123");
    assert!(fits(r"a\*{x*3}\x00", b"a*xxx\0", &mut names));
    assert!(!fits("a*b", b"abc", &mut names));
    assert!(fits("226 *", b"226 ", &mut names));
    assert_eq!(bytes("{\\r\\n*2}|{epsv}", &names), b"\r\n\r\n|123");
}
