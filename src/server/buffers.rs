//! Large buffers that are lent to connections for as long as they have something in them, so that an
//! idle session has none.

/// How many unused buffers are kept.
const KEPT_MAX: usize = 16;

/// Unused buffers of one kind.
#[derive(Debug)]
pub struct Buffers {
    spare: Vec<Vec<u8>>,
    capacity: usize,
    kept_capacity_max: usize,
}

impl Buffers {
    /// Fresh buffers hold `capacity` bytes; one that grew beyond `kept_capacity_max` is not kept.
    pub fn new(capacity: usize, kept_capacity_max: usize) -> Buffers {
        Buffers {
            spare: Vec::new(),
            capacity,
            kept_capacity_max,
        }
    }

    /// An empty buffer.
    pub fn take(&mut self) -> Vec<u8> {
        self.spare
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(self.capacity))
    }

    /// Takes a buffer back; one that is not of this kind is freed.
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        let kept = self.capacity..=self.kept_capacity_max;
        if kept.contains(&buffer.capacity()) && self.spare.len() < KEPT_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}
