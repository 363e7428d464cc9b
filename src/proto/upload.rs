//! The line of UPLOAD: how many bytes follow, and whether they come without waiting.
//!
//! A body must never be read as commands, so this is parsed before anything else about the line is
//! looked at (login, permission, path, even NUL), and it says when the position in the stream
//! cannot be known any more.
//!
//! ```text
//! UPLOAD <first word> <path>
//! first word = digits ["+"] *( ";" fact "=" value ) [";"]
//! ```
//!
//! - `digits` is at most 19 digits and at most 2^63-1; with `+` (the immediate form) at most
//!   [`IMMEDIATE_BYTES_MAX`].
//! - A `+` in a number that is anything but `digits+`, or over that limit, is [`Head::Lost`]: 501,
//!   and the connection closes.
//! - Facts are `modify` (14 digits, UTC), `unix.mode` (octal, permission bits) and `sha256`
//!   (64 hex digits). Any other fact or value refuses the upload with 501, behind its body.

use super::{facts::parse_octal, line::number, time};

/// The largest body of the immediate form. It is what a refusal reads and discards.
pub const IMMEDIATE_BYTES_MAX: u64 = 1 << 20;

/// What the first word of an UPLOAD says about the bytes behind the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head<'a> {
    /// The client waits for 150 before it sends `bytes`.
    Waiting {
        /// Length of the body.
        bytes: u64,
        /// The facts, unparsed.
        facts: &'a [u8],
        /// The path; `None`: there is none.
        path: Option<&'a [u8]>,
    },
    /// `bytes` follow at once, whatever the server thinks of the rest of the line.
    Immediate {
        /// Length of the body.
        bytes: u64,
        /// The facts, unparsed.
        facts: &'a [u8],
        /// The path; `None`: there is none.
        path: Option<&'a [u8]>,
    },
    /// No number, but no body either, as far as one can tell: 501.
    Malformed,
    /// A body of unknown length follows: 501 and close.
    Lost,
}

/// Reads the argument of UPLOAD.
pub fn parse(argument: &[u8]) -> Head<'_> {
    let space = memchr::memchr(b' ', argument);
    let (word, path) = match space {
        Some(at) => (&argument[..at], Some(&argument[at + 1..])),
        None => (argument, None),
    };
    let (count, facts) = match memchr::memchr(b';', word) {
        Some(at) => (&word[..at], &word[at + 1..]),
        None => (word, &b""[..]),
    };
    // A leading plus sign is a malformed number of the waiting form to a person, but a client that
    // writes one may as well mean to send at once.
    match count.strip_suffix(b"+") {
        Some(digits) => match number(digits) {
            Some(bytes) if bytes <= IMMEDIATE_BYTES_MAX => Head::Immediate { bytes, facts, path },
            _ => Head::Lost,
        },
        None if word.contains(&b'+') => Head::Lost,
        // `UPLOAD  13+ f`: the first word is empty, and the body comes all the same.
        None if number(count).is_none() && argument.contains(&b'+') => Head::Lost,
        None => match number(count) {
            Some(bytes) => Head::Waiting { bytes, facts, path },
            None => Head::Malformed,
        },
    }
}

/// What an upload wants of the file beside its content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UploadFacts {
    /// Time of last modification, seconds since 1970.
    pub modify_s: Option<i64>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// The digest that the content must have.
    pub sha256: Option<[u8; 32]>,
}

/// Reads the facts of an UPLOAD, names in any case. `None`: one of them is unknown or impossible.
pub fn parse_facts(text: &[u8]) -> Option<UploadFacts> {
    let mut facts = UploadFacts::default();
    for fact in text.split(|&b| b == b';').filter(|fact| !fact.is_empty()) {
        let equals = memchr::memchr(b'=', fact)?;
        let (name, value) = (fact[..equals].to_ascii_lowercase(), &fact[equals + 1..]);
        match name.as_slice() {
            b"modify" => facts.modify_s = Some(time::parse_14(value)?),
            b"unix.mode" => facts.mode = Some(parse_octal(value)? & 0o777),
            b"sha256" => facts.sha256 = Some(parse_digest(value)?),
            _ => return None,
        }
    }
    Some(facts)
}

/// 64 hex digits in any case.
pub fn parse_digest(hex: &[u8]) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if hex.len() != 64 {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
        let nibble = |digit: u8| char::from(digit).to_digit(16);
        *byte = (nibble(pair[0])? << 4 | nibble(pair[1])?) as u8;
    }
    Some(digest)
}

/// `bytes` in lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
            }
            text
        })
}

/// Writes the first word of an UPLOAD, as a client sends it.
pub fn first_word(bytes: u64, immediate: bool, facts: &UploadFacts) -> String {
    let mut word = bytes.to_string();
    if immediate {
        word.push('+');
    }
    let mut fact = |name: &str, value: String| {
        let separator = if word.ends_with(';') { "" } else { ";" };
        word.push_str(&format!("{separator}{name}={value};"));
    };
    if let Some(seconds) = facts.modify_s {
        fact(
            "modify",
            String::from_utf8_lossy(&time::text_14(seconds)).into_owned(),
        );
    }
    if let Some(mode) = facts.mode {
        fact("unix.mode", format!("{mode:04o}"));
    }
    if let Some(digest) = facts.sha256 {
        fact("sha256", hex(&digest));
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_forms() {
        assert_eq!(
            parse(b"4096 a b"),
            Head::Waiting {
                bytes: 4096,
                facts: b"",
                path: Some(b"a b")
            }
        );
        assert_eq!(
            parse(b"4096+;modify=20260131120000;unix.mode=0644; a/b"),
            Head::Immediate {
                bytes: 4096,
                facts: b"modify=20260131120000;unix.mode=0644;",
                path: Some(b"a/b")
            }
        );
        assert_eq!(
            parse(b"5+"),
            Head::Immediate {
                bytes: 5,
                facts: b"",
                path: None
            }
        );
        assert_eq!(
            parse(b"1048576+ a"),
            Head::Immediate {
                bytes: 1_048_576,
                facts: b"",
                path: Some(b"a")
            }
        );
        assert_eq!(
            parse(b"9223372036854775807 a"),
            Head::Waiting {
                bytes: i64::MAX as u64,
                facts: b"",
                path: Some(b"a")
            }
        );
    }

    #[test]
    fn a_plus_that_cannot_be_counted_loses_the_position() {
        let bad = [
            "x+ a",
            "+ a",
            "99999999999999999999+ a",
            "2097152+ a",
            "1048577+ a",
            "5++ a",
            "+5 a",
            "5+5 a",
            "5+x;modify=1; a",
            "-1+ a",
            " 13+ a",
            "x 13+ a",
        ];
        for text in bad {
            assert_eq!(parse(text.as_bytes()), Head::Lost, "{text}");
        }
        let zeros = format!("{}+ a", "0".repeat(400));
        assert_eq!(parse(zeros.as_bytes()), Head::Lost);
    }

    #[test]
    fn other_bad_numbers_are_only_malformed() {
        let zeros = format!("{} a", "0".repeat(400));
        let bad = [
            "-1 a",
            "0x10 a",
            "1e3 a",
            "9223372036854775808 a",
            "",
            " a",
            "file",
            &zeros,
            "5x a",
        ];
        for text in bad {
            assert_eq!(parse(text.as_bytes()), Head::Malformed, "{text}");
        }
    }

    #[test]
    fn facts() {
        let digest = "ab".repeat(32);
        let text = format!("Modify=20260131120000;UNIX.mode=4755;sha256={digest};");
        let facts = parse_facts(text.as_bytes()).unwrap();
        assert_eq!(facts.modify_s, Some(1_769_860_800));
        assert_eq!(facts.mode, Some(0o755), "set-id bits are never set");
        assert_eq!(facts.sha256, Some([0xab; 32]));
        assert_eq!(parse_facts(b""), Some(UploadFacts::default()));
        for bad in [
            "colour=red;",
            "modify=x;",
            "unix.mode=9;",
            "sha256=ab;",
            "modify",
        ] {
            assert_eq!(parse_facts(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_the_client_writes_is_read(
            bytes in 0u64..=IMMEDIATE_BYTES_MAX, immediate: bool, modify in proptest::option::of(0i64..4_000_000_000),
            mode in proptest::option::of(0u32..0o1000), digest: Option<[u8; 32]>,
        ) {
            let wanted = UploadFacts { modify_s: modify, mode, sha256: digest };
            let line = format!("{} p", first_word(bytes, immediate, &wanted));
            let (n, facts, form) = match parse(line.as_bytes()) {
                Head::Waiting { bytes, facts, .. } => (bytes, facts, false),
                Head::Immediate { bytes, facts, .. } => (bytes, facts, true),
                other => panic!("{other:?}"),
            };
            prop_assert_eq!((n, form, parse_facts(facts)), (bytes, immediate, Some(wanted)));
        }

        #[test]
        fn no_argument_panics(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = (parse(&text), parse_facts(&text));
        }
    }
}
