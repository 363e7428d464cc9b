//! `haul` against servers that lie, stall and babble. The names carry the ids of the checks they are.

mod client;
mod talk;

mod addresses;
mod ancient;
mod command_line;
mod downloads;
mod listings;
mod local_files;
mod names;
mod replies;
mod sessions;
mod silence;
mod tls;
mod trees;
mod uploads;

use std::time::Duration;

/// Whatever a test waits for, it does not wait longer.
const PATIENCE: Duration = Duration::from_secs(20);
const OWN_VERBS: &[&str] = &["DOWNLOAD", "TREE", "UPLOAD modify;unix.mode;sha256;"];
