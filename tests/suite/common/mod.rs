//! What the tests share: servers under test, raw sessions, other people's programs, file contents.

pub mod bytewise;
pub mod content;
pub mod control;
pub mod either;
pub mod network;
pub mod peers;
pub mod secure;
pub mod server;
pub mod site;
pub mod tools;
pub mod trace;
pub mod users;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long anything may take before it counts as hung. Generous, since the machine may be busy:
/// no test waits for it to pass.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Asks again and again until the answer is `Some`, for as long as `patience`.
pub fn wait_for<T>(patience: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until something is so, for as long as `patience`. False: it did not come true.
pub fn until(patience: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    wait_for(patience, || is_so().then_some(())).is_some()
}

/// Asks until two answers in a row, a tenth of a second apart, are the same: what was begun is done.
pub fn settled<T: PartialEq>(mut ask: impl FnMut() -> T) -> T {
    let deadline = Instant::now() + PATIENCE;
    let mut before = ask();
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let now = ask();
        if now == before {
            return now;
        }
        assert!(Instant::now() < deadline, "it changes all the time");
        before = now;
    }
}

/// Held by tests that need thousands of sockets, or all of the machine: one at a time.
pub fn heavy() -> MutexGuard<'static, ()> {
    static HEAVY: Mutex<()> = Mutex::new(());
    HEAVY.lock().unwrap_or_else(PoisonError::into_inner)
}
