//! Large buffers that are lent to connections for as long as they have something in them, so that an
//! idle session has none; and how much all connections hold.

/// When all connections together hold more than this of input and output,
const ALL_HELD_BYTES: usize = 64 << 20;
/// each takes and makes only so much of it at a time: how many connections there are and whether they
/// read is for clients to decide, and how much memory that takes is not.
pub const CROWDED_BYTES: usize = 4096;

/// What all connections together hold of input and output, in bytes.
#[derive(Debug, Default)]
pub struct Held(usize);

impl Held {
    /// One of them holds `after` now and held `before` until now.
    pub fn change(&mut self, before: usize, after: usize) {
        self.0 = (self.0 + after).saturating_sub(before);
    }

    /// Whether it is so much that each has to do with less.
    pub fn is_crowded(&self) -> bool {
        self.0 > ALL_HELD_BYTES
    }
}

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
