//! Large buffers that are lent to connections for as long as they have something in them, so that an
//! idle session has none.

/// Capacity of a fresh buffer.
pub const BUFFER_BYTES: usize = 64 * 1024;
/// Buffers that grew beyond this are not kept.
const KEPT_BYTES_MAX: usize = 512 * 1024;
/// How many are kept.
const KEPT_MAX: usize = 16;

/// Buffers nobody uses.
#[derive(Debug, Default)]
pub struct Buffers(Vec<Vec<u8>>);

impl Buffers {
    /// An empty buffer.
    pub fn take(&mut self) -> Vec<u8> {
        self.0
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
    }

    /// Takes a buffer back.
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        let kept = BUFFER_BYTES..=KEPT_BYTES_MAX;
        if kept.contains(&buffer.capacity()) && self.0.len() < KEPT_MAX {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}
