//! What waits to be sent on one connection, in order: bytes that were made for it, and stretches of
//! content that everybody sends from the same memory.

use std::collections::VecDeque;

/// Bodies up to this size are copied behind their command: one send for many of them costs less
/// than one each.
const JOINED_BYTES_MAX: u64 = 32 * 1024;

/// In order of leaving.
#[derive(Debug, Default)]
pub struct Outbox {
    segments: VecDeque<Segment>,
    /// Of the first segment, already gone.
    gone: u64,
}

#[derive(Debug)]
enum Segment {
    Bytes(Vec<u8>),
    Content(u64),
}

/// What to send next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// This stretch of the content, from an offset.
    Content {
        /// Where in the body it begins.
        from: u64,
        /// How much of it is left.
        left: u64,
    },
}

impl Outbox {
    /// The bytes at the end, to append to.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        if !matches!(self.segments.back(), Some(Segment::Bytes(_))) {
            self.segments.push_back(Segment::Bytes(Vec::new()));
        }
        match self.segments.back_mut() {
            Some(Segment::Bytes(bytes)) => bytes,
            _ => unreachable!("it was just made"),
        }
    }

    /// So many bytes of `content`, again and again from its beginning.
    pub fn body(&mut self, length: u64, content: &[u8]) {
        match content.get(..length.min(JOINED_BYTES_MAX + 1) as usize) {
            Some(whole) if length <= JOINED_BYTES_MAX => self.bytes().extend_from_slice(whole),
            _ => {
                if self.is_empty() {
                    self.clear();
                }
                self.segments.push_back(Segment::Content(length));
            }
        }
    }

    /// What leaves next; nothing is left if `None`.
    pub fn next(&self) -> Option<Next<'_>> {
        let segment = self.segments.front()?;
        match segment {
            Segment::Bytes(bytes) if bytes.len() as u64 > self.gone => {
                Some(Next::Bytes(&bytes[self.gone as usize..]))
            }
            Segment::Content(length) if *length > self.gone => Some(Next::Content {
                from: self.gone,
                left: length - self.gone,
            }),
            _ => None,
        }
    }

    /// So much of [`Outbox::next`] has left.
    pub fn sent(&mut self, n: u64) {
        self.gone += n;
        let is_over = match self.segments.front_mut() {
            None => true,
            Some(Segment::Content(length)) => *length <= self.gone,
            Some(Segment::Bytes(bytes)) => bytes.len() as u64 <= self.gone,
        };
        if !is_over {
            return;
        }
        self.gone = 0;
        // The last buffer is kept for the next command.
        match (self.segments.len(), self.segments.front_mut()) {
            (1, Some(Segment::Bytes(bytes))) => bytes.clear(),
            _ => {
                self.segments.pop_front();
            }
        }
    }

    /// Whether everything has left.
    pub fn is_empty(&self) -> bool {
        self.next().is_none()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.segments.clear();
        self.gone = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_leaves_in_order() {
        let content = vec![7; 64 * 1024];
        let mut outbox = Outbox::default();
        outbox.bytes().extend_from_slice(b"A");
        outbox.body(3, &content);
        outbox.bytes().extend_from_slice(b"B");
        outbox.body(100_000, &content);
        outbox.bytes().extend_from_slice(b"C");
        assert_eq!(outbox.next(), Some(Next::Bytes(b"A\x07\x07\x07B")));
        outbox.sent(2);
        assert_eq!(outbox.next(), Some(Next::Bytes(b"\x07\x07B")));
        outbox.sent(3);
        let whole = Next::Content {
            from: 0,
            left: 100_000,
        };
        assert_eq!(outbox.next(), Some(whole));
        outbox.sent(99_999);
        let rest = Next::Content {
            from: 99_999,
            left: 1,
        };
        assert_eq!(outbox.next(), Some(rest));
        outbox.sent(1);
        assert_eq!(outbox.next(), Some(Next::Bytes(b"C")));
        outbox.sent(1);
        assert!(outbox.is_empty());
        outbox.bytes().extend_from_slice(b"D");
        assert_eq!(outbox.next(), Some(Next::Bytes(b"D")));
        outbox.sent(1);
        outbox.body(40_000, &content);
        assert!(!outbox.is_empty(), "content behind a buffer that is kept");
    }
}
