//! What encrypts says when a buffer is too small, for both programs' use of rustls' unbuffered
//! connections.

use rustls::unbuffered::{EncodeError, EncryptError};

/// Why something was not put into a buffer: it takes so much.
pub trait TooSmall {
    /// Bytes that would do; `None`: no buffer would.
    fn required(&self) -> Option<usize>;
}

impl TooSmall for EncodeError {
    fn required(&self) -> Option<usize> {
        match self {
            EncodeError::InsufficientSize(size) => Some(size.required_size),
            EncodeError::AlreadyEncoded => None,
        }
    }
}

impl TooSmall for EncryptError {
    fn required(&self) -> Option<usize> {
        match self {
            EncryptError::InsufficientSize(size) => Some(size.required_size),
            EncryptError::EncryptExhausted => None,
        }
    }
}
