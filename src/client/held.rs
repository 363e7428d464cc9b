//! What was read and not used yet: a buffer with a cursor, so that taking a short line out of a
//! long read moves nothing.

/// Bytes in the order in which they came.
#[derive(Debug, Default)]
pub struct Held {
    bytes: Vec<u8>,
    from: usize,
}

impl Held {
    /// Whether all that was read is used.
    pub fn is_empty(&self) -> bool {
        self.from == self.bytes.len()
    }

    /// What is there.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.from..]
    }

    /// The first `n` bytes are used.
    pub fn consume(&mut self, n: usize) {
        self.from = (self.from + n).min(self.bytes.len());
        if self.is_empty() {
            self.bytes.clear();
            self.from = 0;
        }
    }

    /// Appends what `read` brings into a window of `max` bytes.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn fill<E>(
        &mut self,
        max: usize,
        read: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        self.bytes.drain(..self.from);
        self.from = 0;
        let end = self.bytes.len();
        self.bytes.resize(end + max, 0);
        let filled = read(&mut self.bytes[end..]);
        let n = filled.as_ref().copied().unwrap_or(0).min(max);
        self.bytes.truncate(end + n);
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_goes_out_in_order() {
        let mut held = Held::default();
        let put = |held: &mut Held, text: &[u8]| {
            held.fill(8, |window| {
                window[..text.len()].copy_from_slice(text);
                Ok::<_, ()>(text.len())
            })
        };
        assert!(held.is_empty());
        assert_eq!(put(&mut held, b"abcd"), Ok(4));
        held.consume(3);
        assert_eq!(put(&mut held, b"ef"), Ok(2));
        assert_eq!(held.as_slice(), b"def");
        assert_eq!(held.fill(8, |_| Err(())), Err(()));
        assert_eq!(held.as_slice(), b"def");
        held.consume(9);
        assert!(held.is_empty());
    }
}
