//! Fuzz targets, one for each kind of text that a stranger sends. `HAUL_FUZZ` names one.
//!
//! `tests/fuzz/run` builds this with coverage and runs it. A target knows nothing of sockets; beside
//! "no panic" it asserts what must hold for any input.
#![no_main]

mod parsers;
mod session;
#[allow(dead_code, reason = "the tests of the session use more of it")]
#[path = "../../session/shell.rs"]
mod shell;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("HAUL_FUZZ").expect("HAUL_FUZZ names a target");
    match name.as_str() {
        "line" => parsers::line,
        "reply" => parsers::reply,
        "facts" => parsers::facts,
        "path" => parsers::path,
        "upload" => parsers::upload,
        "address" => parsers::address,
        "users" => parsers::users,
        "session" => session::session,
        _ => panic!("there is no target {name}"),
    }
});

fuzz_target!(|input: &[u8]| TARGET(input));
