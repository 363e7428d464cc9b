//! Files below one directory.
//!
//! What a client types becomes a [`path::VirtualPath`]; a [`root::Root`] resolves it, and the
//! kernel refuses to leave the directory. Nothing here knows who asks or what they may do, and
//! nothing names a socket, a thread or the clock. Names of [`path::RESERVED_PREFIX`] are hidden
//! from listings here; refusing to reach them is up to whoever reads the client's path.
//!
//! Errors are those of the kernel and carry its number.

pub mod commit;
pub mod copying;
mod held;
mod lately;
pub mod ledger;
pub mod made;
pub mod partials;
pub mod path;
pub mod quota;
pub mod room;
pub mod root;
pub mod staging;
mod unwritten;
pub mod walk;

#[cfg(test)]
mod tests;
