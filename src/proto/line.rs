//! Command lines: bounded framing, Telnet codes, verb and argument (RFC 959 sections 3.1 and 5.3).
//!
//! It knows nothing of what a verb means.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// The longest line that is accepted, its CRLF included, in bytes. A path has at most 4,096 bytes
/// on Linux; answering a longer line and going on would run its tail as a command.
pub const LINE_BYTES_MAX: usize = 4096;

/// What [`split`] finds at the beginning of the bytes.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Split {
    /// `len` bytes of content, and `used` bytes with the line's end.
    Line {
        /// Bytes of the line without CR and LF.
        len: usize,
        /// Bytes of the line with its end.
        used: usize,
    },
    /// No end yet.
    Partial,
    /// No end within [`LINE_BYTES_MAX`]: the position in the stream is lost.
    TooLong,
}

/// Finds the first line of `bytes`; the first `searched` bytes are known to hold no LF, so that a
/// line which comes byte by byte is not searched from its beginning each time. LF alone ends a
/// line too.
pub fn split(bytes: &[u8], searched: usize) -> Split {
    let window = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let from = searched.min(window.len());
    match memchr::memchr(b'\n', &window[from..]) {
        Some(at) => {
            let end = from + at;
            let cr = end > 0 && window[end - 1] == b'\r';
            Split::Line {
                len: end - usize::from(cr),
                used: end + 1,
            }
        }
        None if bytes.len() >= LINE_BYTES_MAX => Split::TooLong,
        None => Split::Partial,
    }
}

/// Removes Telnet codes: FF FF is one FF, FF F4 (interrupt) and FF F2 (data mark) vanish, any other
/// FF is an ordinary byte. Telnet options are never negotiated (RFC 1123 section 4.1.2.12).
pub fn strip_telnet(line: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(0xff, line).is_none() {
        return Cow::Borrowed(line);
    }
    let mut clean = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail.first()) {
            (0xff, Some(0xff)) => {
                clean.push(0xff);
                rest = &tail[1..];
            }
            (0xff, Some(0xf4 | 0xf2)) => rest = &tail[1..],
            _ => clean.push(byte),
        }
    }
    Cow::Owned(clean)
}

/// Splits a line into its verb and, behind exactly one space, its argument. Further spaces belong
/// to the argument; `VERB ` has an empty one.
pub fn verb_and_argument(line: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b' ', line) {
        Some(at) => (&line[..at], Some(&line[at + 1..])),
        None => (line, None),
    }
}

const HTTP_METHODS: [&[u8]; 8] = [
    b"GET", b"POST", b"PUT", b"HEAD", b"CONNECT", b"PATCH", b"DELETE", b"TRACE",
];

/// Whether a line is what an HTTP client sends: a browser that was tricked into talking to this
/// port must not get its body executed (ALPACA, CVE-2021-3618 and older cross-protocol attacks).
pub fn is_http(line: &[u8]) -> bool {
    let (verb, argument) = verb_and_argument(line);
    let target = argument.unwrap_or_default();
    let is = |name: &&[u8]| verb.eq_ignore_ascii_case(name);
    if is(&b"OPTIONS".as_slice()) {
        return target.contains(&b'/') || target.starts_with(b"*");
    }
    let host = b"HOST:";
    HTTP_METHODS.iter().any(is)
        || (verb.len() >= host.len() && verb[..host.len()].eq_ignore_ascii_case(host))
}

/// Whether a line is the header with which a proxy tells whom it speaks for. There is no proxy that
/// is trusted, so whoever sends it only claims to be somebody else.
pub fn is_proxy_header(line: &[u8]) -> bool {
    line.starts_with(b"PROXY ")
}

/// The number that a text begins with, before its first space.
pub fn first_number(text: &[u8]) -> Option<u64> {
    text.split(|&b| b == b' ').next().and_then(number)
}

/// A number as the protocol writes it: plain decimal digits, at most 19 of them, at most 2^63-1.
pub fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits
        .iter()
        .fold(0u64, |n, d| n * 10 + u64::from(d - b'0'));
    (value <= i64::MAX as u64).then_some(value)
}

/// Bytes that a client sent, as they stand in a log: in quotes, and what is not printable, or could
/// be taken for the end of the quotes, as `\xNN`.
#[derive(Debug, Clone, Copy)]
pub struct Quoted<'a>(pub &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let as_hex = |f: &mut fmt::Formatter<'_>, bytes: &[u8]| {
            bytes.iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
        };
        f.write_char('"')?;
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() || matches!(c, '"' | '\\') {
                    as_hex(f, c.encode_utf8(&mut [0; 4]).as_bytes())?;
                } else {
                    f.write_char(c)?;
                }
            }
            as_hex(f, chunk.invalid())?;
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a reader that gets `pieces` one after the other makes of them.
    fn lines(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Split) {
        let (mut held, mut searched, mut found) = (Vec::new(), 0, Vec::new());
        let mut last = Split::Partial;
        for piece in pieces {
            held.extend_from_slice(piece);
            loop {
                last = split(&held, searched);
                match last {
                    Split::Line { len, used } => {
                        found.push(held[..len].to_vec());
                        held.drain(..used);
                        searched = 0;
                    }
                    Split::Partial => {
                        searched = held.len();
                        break;
                    }
                    Split::TooLong => return (found, last),
                }
            }
        }
        (found, last)
    }

    #[track_caller]
    fn check(input: &[u8], expected: &[&[u8]]) {
        let whole = lines(&[input]);
        assert_eq!(whole.0, expected, "whole");
        let bytewise: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(lines(&bytewise), whole, "byte by byte");
        let tail = [input, b"NEXT\r\n"].concat();
        let mut with_tail: Vec<Vec<u8>> = expected.iter().map(|l| l.to_vec()).collect();
        if input.ends_with(b"\n") || input.is_empty() {
            with_tail.push(b"NEXT".to_vec());
            assert_eq!(lines(&[&tail]).0, with_tail, "with a tail");
        }
    }

    #[test]
    fn lines_end_with_crlf_or_lf() {
        check(b"", &[]);
        check(b"NOOP\r\n", &[b"NOOP"]);
        check(b"NOOP\n", &[b"NOOP"]);
        check(b"\n\r\n \r\n", &[b"", b"", b" "]);
        check(b"A\rB\r\n", &[b"A\rB"]);
        check(b"A\r\r\n", &[b"A\r"]);
        check(b"USER a\r\nPASS b\r\n", &[b"USER a", b"PASS b"]);
        check(b"half", &[]);
        check(b"\r", &[]);
    }

    #[test]
    fn the_limit_counts_the_end_of_the_line() {
        let fits = [vec![b'x'; LINE_BYTES_MAX - 2], b"\r\n".to_vec()].concat();
        assert_eq!(
            split(&fits, 0),
            Split::Line {
                len: LINE_BYTES_MAX - 2,
                used: LINE_BYTES_MAX
            }
        );
        let long = [vec![b'x'; LINE_BYTES_MAX], b"\r\n".to_vec()].concat();
        assert_eq!(split(&long, 0), Split::TooLong);
        assert_eq!(split(&long[..LINE_BYTES_MAX - 1], 0), Split::Partial);
        assert_eq!(split(&long[..LINE_BYTES_MAX], 0), Split::TooLong);
    }

    #[test]
    fn telnet_codes_are_stripped() {
        let check = |line: &[u8], clean: &[u8]| assert_eq!(&*strip_telnet(line), clean);
        check(b"NOOP", b"NOOP");
        check(b"\xff\xf4\xff\xf2ABOR", b"ABOR");
        check(b"a\xff\xffb", b"a\xffb");
        check(b"a\xff", b"a\xff");
        check(b"a\xff\xfbb", b"a\xff\xfbb");
        check(b"\xff\xff\xf4", b"\xff\xf4");
    }

    #[test]
    fn verbs_and_arguments() {
        assert_eq!(verb_and_argument(b"NOOP"), (&b"NOOP"[..], None));
        assert_eq!(verb_and_argument(b"CWD "), (&b"CWD"[..], Some(&b""[..])));
        assert_eq!(
            verb_and_argument(b"CWD  a b "),
            (&b"CWD"[..], Some(&b" a b "[..]))
        );
    }

    #[test]
    fn http_is_recognised_and_ftp_is_not() {
        for line in [
            "GET / HTTP/1.1",
            "post /x HTTP/1.1",
            "OPTIONS * HTTP/1.1",
            "Host: a",
        ] {
            assert!(is_http(line.as_bytes()), "{line}");
        }
        for line in ["OPTS UTF8 ON", "HELP", "NOOP", "RETR GET", "", "OPTIONS"] {
            assert!(!is_http(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn numbers_are_plain_digits() {
        assert_eq!(number(b"0"), Some(0));
        assert_eq!(number(b"0000000000000000007"), Some(7));
        assert_eq!(number(b"9223372036854775807"), Some(i64::MAX as u64));
        for bad in [
            "",
            "-1",
            "+1",
            " 1",
            "1 ",
            "0x10",
            "1e3",
            "9223372036854775808",
            "\u{664}",
        ] {
            assert_eq!(number(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(number(&[b'0'; 400]), None);
    }

    proptest! {
        #[test]
        fn splitting_anywhere_gives_the_same_lines(
            input in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), any::<u8>()], 0..200),
            cut in 0usize..200,
        ) {
            let cut = cut.min(input.len());
            prop_assert_eq!(lines(&[&input[..cut], &input[cut..]]).0, lines(&[&input]).0);
            strip_telnet(&input);
            is_http(&input);
        }
    }

    #[test]
    fn what_a_client_sent_is_quoted_so_that_the_end_is_clear() {
        let check = |bytes: &[u8], shown: &str| assert_eq!(Quoted(bytes).to_string(), shown);
        check(b"anna", "\"anna\"");
        check("\u{e4}nna".as_bytes(), "\"\u{e4}nna\"");
        check(b"x\r\nFAKE 230", "\"x\\x0d\\x0aFAKE 230\"");
        check(b"\x1b]0;pwn\x07", "\"\\x1b]0;pwn\\x07\"");
        check(b"x\" from 192.0.2.1", "\"x\\x22 from 192.0.2.1\"");
        check(b"a\\x22", "\"a\\x5cx22\"");
        check(b"\xff\xc2\x9b\xe4", "\"\\xff\\xc2\\x9b\\xe4\"");
        check(b"", "\"\"");
    }
}
