//! What uploads consist of: one stretch of bytes in memory that everybody sends.
//!
//! In clear it goes out of a file in memory by sendfile, which copies nothing on this side; with TLS
//! it is encrypted from where it lies.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{MemfdFlags, memfd_create};

/// Larger than the caches of processors: a server that receives reads it from memory, as it would from
/// a network card.
const BYTES_MAX: u64 = 64 << 20;
const BYTES_MIN: u64 = 64 << 10;

/// The bytes, repeated for longer uploads.
#[derive(Debug)]
pub struct Content {
    bytes: Vec<u8>,
    file: File,
    length: u64,
}

impl Content {
    /// For uploads of up to `longest` bytes. `is_secure`: all of it is needed as memory too.
    ///
    /// # Errors
    /// No memory for it.
    pub fn new(longest: u64, is_secure: bool) -> io::Result<Content> {
        let length = longest.clamp(BYTES_MIN, BYTES_MAX).next_multiple_of(4096);
        let mut file = File::from(memfd_create("haul-bench", MemfdFlags::CLOEXEC)?);
        let mut bytes = vec![0; length as usize];
        fill(&mut bytes);
        file.write_all(&bytes)?;
        if !is_secure {
            bytes.truncate(BYTES_MIN as usize);
            bytes.shrink_to_fit();
        }
        Ok(Content {
            bytes,
            file,
            length,
        })
    }

    /// The beginning of a short body.
    pub fn beginning(&self) -> &[u8] {
        &self.bytes[..BYTES_MIN as usize]
    }

    /// Where a body goes on: a place in the content, and how much there is from there.
    pub fn place(&self, from: u64) -> (u64, u64) {
        let at = from % self.length;
        (at, self.length - at)
    }

    /// The same as memory.
    pub fn bytes(&self, from: u64) -> &[u8] {
        &self.bytes[(from % self.bytes.len() as u64) as usize..]
    }

    /// The file to send from.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Bytes that nothing compresses (xorshift64).
fn fill(bytes: &mut [u8]) {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    for chunk in bytes.chunks_mut(8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        chunk.copy_from_slice(&x.to_le_bytes()[..chunk.len()]);
    }
}
