//! Python's ftplib, by the script `ftplib_client.py`: a section of it for each test.

use std::process::Command;

use crate::common::server::{Server, four_questions};
use crate::common::tools::run;

#[track_caller]
fn section(name: &str, listen: &str) {
    let server = Server::start_at(listen, &[]);
    let baseline = server.baseline();
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/suite/real_clients/ftplib_client.py"
    );
    let (host, port) = (
        server.addr().ip().to_string(),
        server.addr().port().to_string(),
    );
    run(Command::new("python3").args(["-B", script, &host, &port, name])).ok();
    four_questions(&server, baseline);
}

#[test]
fn binary() {
    section("binary", "127.0.0.1:0");
}

#[test]
fn restart() {
    section("restart", "127.0.0.1:0");
}

#[test]
fn ascii() {
    section("ascii", "127.0.0.1:0");
}

#[test]
fn listings() {
    section("listings", "127.0.0.1:0");
}

#[test]
fn names() {
    section("names", "127.0.0.1:0");
}

#[test]
fn changes() {
    section("changes", "127.0.0.1:0");
}

#[test]
fn abort() {
    section("abort", "127.0.0.1:0");
}

#[test]
fn active() {
    section("active", "127.0.0.1:0");
}

#[test]
fn over_ipv6() {
    section("binary", "[::1]:0");
    section("active", "[::1]:0");
}

#[test]
fn refusals() {
    section("refusals", "127.0.0.1:0");
}
