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

use std::time::{Duration, Instant};

/// Whatever a test waits for, it does not wait longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until something is so, for as long as `patience`. False: it did not come true.
fn until(patience: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !is_so() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

const OWN_VERBS: &[&str] = &["DOWNLOAD", "TREE", "UPLOAD modify;unix.mode;sha256;"];
