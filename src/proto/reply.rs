//! Replies (RFC 959 sections 4.2 and 5.4): encoded by the server, parsed by the client.
//!
//! [`Reply::encode`] is the only code that writes the CRLF of a reply, and it sanitises: whatever a
//! name contains, it cannot begin a new line. What a code means is known elsewhere.

use std::borrow::Cow;

/// Text of a reply. Most are fixed.
pub type Text = Cow<'static, [u8]>;

/// One reply: a code and one line, or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    first: Text,
    more: Option<Box<More>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct More {
    middle: Vec<Text>,
    last: Text,
}

/// Makes the text of a reply from what a handler has at hand.
pub trait IntoText {
    /// The bytes.
    fn into_text(self) -> Text;
}

impl IntoText for &'static str {
    fn into_text(self) -> Text {
        Cow::Borrowed(self.as_bytes())
    }
}

impl IntoText for String {
    fn into_text(self) -> Text {
        Cow::Owned(self.into_bytes())
    }
}

impl IntoText for Vec<u8> {
    fn into_text(self) -> Text {
        Cow::Owned(self)
    }
}

impl Reply {
    /// A reply of one line.
    pub fn new(code: u16, text: impl IntoText) -> Reply {
        debug_assert!((100..700).contains(&code));
        Reply {
            code,
            first: text.into_text(),
            more: None,
        }
    }

    /// A reply of several lines. `middle` lines stand behind exactly one space, as FEAT and MLST
    /// want it (RFC 2389 section 3.2, RFC 3659 section 7.2).
    pub fn lines(code: u16, first: impl IntoText, middle: Vec<Text>, last: impl IntoText) -> Reply {
        let more = Some(Box::new(More {
            middle,
            last: last.into_text(),
        }));
        Reply {
            code,
            first: first.into_text(),
            more,
        }
    }

    /// Whether it is a preliminary (1xx) reply; each command gets exactly one that is not.
    pub fn is_preliminary(&self) -> bool {
        self.code < 200
    }

    /// Appends the reply as it goes on the wire.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match &self.more {
            None => line(out, self.code, b' ', &self.first),
            Some(more) => {
                line(out, self.code, b'-', &self.first);
                for text in &more.middle {
                    out.push(b' ');
                    sanitised(out, text);
                    out.extend_from_slice(b"\r\n");
                }
                line(out, self.code, b' ', &more.last);
            }
        }
    }
}

fn line(out: &mut Vec<u8>, code: u16, separator: u8, text: &[u8]) {
    let digit = |n: u16| b'0' + (n % 10) as u8;
    out.extend_from_slice(&[digit(code / 100), digit(code / 10), digit(code), separator]);
    sanitised(out, text);
    out.extend_from_slice(b"\r\n");
}

/// Appends `text` with control bytes replaced by `?` and FF doubled (Telnet, RFC 854).
pub fn sanitised(out: &mut Vec<u8>, text: &[u8]) {
    if text.iter().all(|&b| b >= 0x20 && b != 0x7f && b != 0xff) {
        out.extend_from_slice(text);
        return;
    }
    for &byte in text {
        match byte {
            0..0x20 | 0x7f => out.push(b'?'),
            0xff => out.extend_from_slice(&[0xff, 0xff]),
            _ => out.push(byte),
        }
    }
}

/// A path in the form of a 257 reply: in quotes, each quote inside doubled (RFC 959 appendix II).
pub fn quoted(path: &[u8]) -> Vec<u8> {
    let mut out = vec![b'"'];
    for &byte in path {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
    out
}

/// Reads the path of a 257 reply: the text behind `257 `. `None` unless it begins with a quoted
/// string that is closed.
pub fn unquoted(text: &[u8]) -> Option<Vec<u8>> {
    let mut rest = text.strip_prefix(b"\"")?;
    let mut path = Vec::new();
    loop {
        let at = memchr::memchr(b'"', rest)?;
        path.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.strip_prefix(b"\"") {
            Some(tail) => {
                path.push(b'"');
                rest = tail;
            }
            None => return Some(path),
        }
    }
}

/// One line of a reply as a client sees it.
#[derive(Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// The first line of several, or one in the middle.
    Middle(&'a [u8]),
    /// The only line, or the last of several: the reply is complete.
    End(u16, &'a [u8]),
}

/// A line that is no reply line.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAReply;

/// Reads replies line by line, so that one of any length is read in bounded memory.
#[derive(Debug, Default)]
pub struct Parser {
    open: Option<u16>,
}

impl Parser {
    /// Takes the next line, without its CRLF. The text of a [`Part`] has no code; a middle line's
    /// leading space stays, since MLST and TREE use it.
    ///
    /// # Errors
    /// The first line of a reply does not begin with a code from 100 to 699 and a space or hyphen.
    pub fn line<'a>(&mut self, line: &'a [u8]) -> Result<Part<'a>, NotAReply> {
        let code = code(line);
        match self.open {
            None => {
                let code = code.ok_or(NotAReply)?;
                match line.get(3) {
                    None => Ok(Part::End(code, b"")),
                    Some(b' ') => Ok(Part::End(code, &line[4..])),
                    Some(b'-') => {
                        self.open = Some(code);
                        Ok(Part::Middle(&line[4..]))
                    }
                    Some(_) => Err(NotAReply),
                }
            }
            Some(open) => match (code, line.get(3)) {
                (Some(code), None | Some(b' ')) if code == open => {
                    self.open = None;
                    Ok(Part::End(code, line.get(4..).unwrap_or_default()))
                }
                (Some(code), Some(b'-')) if code == open => Ok(Part::Middle(&line[4..])),
                _ => Ok(Part::Middle(line)),
            },
        }
    }
}

fn code(line: &[u8]) -> Option<u16> {
    let digits = line.get(..3)?;
    let value = digits.iter().try_fold(0u16, |n, d| {
        d.is_ascii_digit().then(|| n * 10 + u16::from(d - b'0'))
    })?;
    (100..700).contains(&value).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(reply: &Reply) -> Vec<u8> {
        let mut out = Vec::new();
        reply.encode(&mut out);
        out
    }

    #[test]
    fn one_line_and_several() {
        assert_eq!(encoded(&Reply::new(226, "done.")), b"226 done.\r\n");
        let several = Reply::lines(211, "Features:", vec!["SIZE".into_text()], "End");
        assert_eq!(encoded(&several), b"211-Features:\r\n SIZE\r\n211 End\r\n");
    }

    #[test]
    fn a_name_cannot_forge_a_line() {
        let reply = Reply::new(257, b"\"/a\r\n226 ok\x1b\xff\"".to_vec());
        assert_eq!(encoded(&reply), b"257 \"/a??226 ok?\xff\xff\"\r\n");
    }

    #[test]
    fn quotes_are_doubled_and_read_back() {
        assert_eq!(quoted(b"/a\"b"), b"\"/a\"\"b\"");
        assert_eq!(
            unquoted(b"\"/a\"\"b\" is current").as_deref(),
            Some(&b"/a\"b"[..])
        );
        assert_eq!(unquoted(b"\"/a\"b\"").as_deref(), Some(&b"/a"[..]));
        assert_eq!(unquoted(b"\"unclosed"), None);
        assert_eq!(unquoted(b"/x"), None);
    }

    #[track_caller]
    fn check(lines: &[&str], expected: &[Result<Part, NotAReply>]) {
        let mut parser = Parser::default();
        for (line, expected) in lines.iter().zip(expected) {
            assert_eq!(&parser.line(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn replies_are_parsed_line_by_line() {
        use Part::*;
        check(&["220 hello"], &[Ok(End(220, b"hello"))]);
        check(&["220"], &[Ok(End(220, b""))]);
        check(
            &[
                "211-Features:",
                " SIZE",
                "200 not the end",
                "211 End",
                "200 next",
            ],
            &[
                Ok(Middle(b"Features:")),
                Ok(Middle(b" SIZE")),
                Ok(Middle(b"200 not the end")),
                Ok(End(211, b"End")),
                Ok(End(200, b"next")),
            ],
        );
        for bad in [
            "",
            "2",
            "22",
            "hello",
            "999 x",
            "099 x",
            "220x",
            "\u{662}20 x",
        ] {
            check(&[bad], &[Err(NotAReply)]);
        }
    }

    proptest! {
        #[test]
        fn the_parser_reads_what_encode_wrote(
            code in 100u16..600,
            text in proptest::collection::vec(0x20u8..0x7f, 0..40),
        ) {
            let out = encoded(&Reply::new(code, text.clone()));
            let line = out.strip_suffix(b"\r\n").unwrap();
            prop_assert_eq!(Parser::default().line(line), Ok(Part::End(code, &text)));
        }

        #[test]
        fn no_line_panics(lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..12), 0..8)) {
            let mut parser = Parser::default();
            for line in &lines { let _ = parser.line(line); unquoted(line); }
        }
    }
}
