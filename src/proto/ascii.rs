//! TYPE A: newline translation, chunk by chunk (RFC 959 section 3.1.1.1).
//!
//! On the wire a line ends with CRLF, in a file with LF. Each direction remembers whether the last
//! byte of the chunk before was a CR; nothing else is kept.

use memchr::memchr;

/// File to wire: LF becomes CRLF. A CRLF that is in the file stays as it is.
#[derive(Debug, Default)]
pub struct ToWire {
    after_cr: bool,
}

impl ToWire {
    /// Appends the translation of `chunk` to `out`, which grows by at most twice its length.
    pub fn translate(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let mut rest = chunk;
        while let Some(at) = memchr(b'\n', rest) {
            out.extend_from_slice(&rest[..at]);
            let cr_before = if at > 0 {
                rest[at - 1] == b'\r'
            } else {
                self.after_cr
            };
            out.extend_from_slice(if cr_before { b"\n" } else { b"\r\n" });
            rest = &rest[at + 1..];
            self.after_cr = false;
        }
        out.extend_from_slice(rest);
        if let Some(&last) = rest.last() {
            self.after_cr = last == b'\r';
        }
    }
}

/// Wire to file: CRLF becomes LF. A CR without LF stays.
#[derive(Debug, Default)]
pub struct FromWire {
    held_cr: bool,
}

impl FromWire {
    /// Appends the translation of `chunk` to `out`, which grows by at most its length and one.
    pub fn translate(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let mut rest = chunk;
        if self.held_cr && !rest.is_empty() {
            self.held_cr = false;
            if rest[0] != b'\n' {
                out.push(b'\r');
            }
        }
        while let Some(at) = memchr(b'\r', rest) {
            out.extend_from_slice(&rest[..at]);
            rest = &rest[at + 1..];
            match rest.first() {
                None => self.held_cr = true,
                Some(b'\n') => {}
                Some(_) => out.push(b'\r'),
            }
        }
        out.extend_from_slice(rest);
    }

    /// The end of the data: a CR that was held back is the last byte.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.held_cr) {
            out.push(b'\r');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn to_wire(chunks: &[&[u8]]) -> Vec<u8> {
        let (mut state, mut out) = (ToWire::default(), Vec::new());
        chunks
            .iter()
            .for_each(|chunk| state.translate(chunk, &mut out));
        out
    }

    fn from_wire(chunks: &[&[u8]]) -> Vec<u8> {
        let (mut state, mut out) = (FromWire::default(), Vec::new());
        chunks
            .iter()
            .for_each(|chunk| state.translate(chunk, &mut out));
        state.finish(&mut out);
        out
    }

    #[test]
    fn newlines() {
        assert_eq!(to_wire(&[b"a\nb\n\n"]), b"a\r\nb\r\n\r\n");
        assert_eq!(to_wire(&[b"a\r\nb"]), b"a\r\nb");
        assert_eq!(to_wire(&[b"a\r", b"\nb"]), b"a\r\nb");
        assert_eq!(from_wire(&[b"a\r\nb\r\n"]), b"a\nb\n");
        assert_eq!(from_wire(&[b"a\r", b"\nb\r"]), b"a\nb\r");
        assert_eq!(from_wire(&[b"a\r", b"", b"b\r\r\n"]), b"a\rb\r\n");
        assert_eq!(from_wire(&[b"\n"]), b"\n");
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), any::<u8>()], 0..60)
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(text in text(), cut in 0usize..60) {
            let cut = cut.min(text.len());
            let halves = [&text[..cut], &text[cut..]];
            prop_assert_eq!(to_wire(&halves), to_wire(&[&text]));
            prop_assert_eq!(from_wire(&halves), from_wire(&[&text]));
        }

        #[test]
        fn text_without_cr_survives(text in text()) {
            let text: Vec<u8> = text.into_iter().filter(|&b| b != b'\r').collect();
            prop_assert_eq!(from_wire(&[&to_wire(&[&text])]), text);
        }
    }
}
