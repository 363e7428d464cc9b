//! File contents that can be made again to compare with, and comparing them with little output.

use std::fs;
use std::path::Path;

pub const KIB: usize = 1 << 10;
pub const MIB: usize = 1 << 20;

/// The sizes at which buffers, blocks and counters tend to be wrong.
pub const SIZES: [usize; 9] = [
    0,
    1,
    KIB - 1,
    KIB,
    KIB + 1,
    64 * KIB - 1,
    64 * KIB,
    64 * KIB + 1,
    10 * MIB,
];

/// Names that quoting, globbing, globally unique "safe" character sets or text encodings break on.
pub const ODD_NAMES: [&str; 16] = [
    "with space",
    " leading and trailing ",
    "quote\"double",
    "quote'single",
    "back\\slash",
    "semi;colon=equals",
    "percent%41",
    "hash#question?",
    "star*[x]{a,b}",
    "-rf",
    "~root",
    "$HOME `id`",
    "dots..and.",
    ".hidden",
    "emoji \u{1f680} \u{1f469}\u{200d}\u{1f52c}",
    "nfd e\u{301} nfc \u{e9}",
];

/// Bytes that do not repeat and do not compress, a different sequence for each seed.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A long content, block by block: each 1 MiB, all different, none made twice.
pub struct Blocks {
    block: Vec<u8>,
    made: u64,
}

impl Blocks {
    pub fn new(seed: u64) -> Blocks {
        Blocks {
            block: bytes(seed, MIB),
            made: 0,
        }
    }

    /// The number of the block stands in each of its pages, so that swapped ones are noticed.
    pub fn next(&mut self) -> &[u8] {
        for page in self.block.chunks_exact_mut(4 * KIB) {
            page[..8].copy_from_slice(&self.made.to_le_bytes());
        }
        self.made += 1;
        &self.block
    }
}

/// Like `assert_eq!`, for contents that are too long to print.
#[track_caller]
pub fn assert_same(got: &[u8], expected: &[u8], what: &str) {
    if got == expected {
        return;
    }
    let at = got.iter().zip(expected).take_while(|(a, b)| a == b).count();
    let near = |bytes: &[u8]| {
        let end = bytes.len().min(at + 16);
        bytes[at.min(end)..end].escape_ascii().to_string()
    };
    panic!(
        "{what}: got {} bytes, expected {}; they differ from {at} on: got \"{}\", expected \"{}\"",
        got.len(),
        expected.len(),
        near(got),
        near(expected)
    );
}

#[track_caller]
pub fn assert_file(path: &Path, expected: &[u8]) {
    let got = fs::read(path).unwrap_or_else(|e| panic!("reading {}: {e}", path.display()));
    assert_same(&got, expected, &path.display().to_string());
}
