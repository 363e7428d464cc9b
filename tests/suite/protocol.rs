//! What somebody who breaks the rules of the protocol gets, and what it must not cost anybody else.

mod active;
mod lines;
mod order;
mod passive;
mod transfers;
mod upload;
mod urgent;

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, TcpStream};

use crate::common::control::Control;

/// Another address of this machine.
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// The codes of the next replies.
#[track_caller]
fn codes(session: &mut Control, count: usize) -> Vec<u16> {
    (0..count).map(|_| session.reply().code).collect()
}

/// Sends lines at once and takes as many replies as there are lines; a NOOP behind them shows that
/// there were no more.
#[track_caller]
fn codes_of(session: &mut Control, lines: &[&str]) -> Vec<u16> {
    let mut sent = lines.join("\r\n");
    sent.push_str("\r\n");
    session.send(sent.as_bytes());
    let codes = codes(session, lines.len());
    assert_eq!(session.command("NOOP").code, 200, "one reply per command");
    codes
}

/// The port that EPSV or PASV was answered with.
#[track_caller]
fn port_of(session: &mut Control, command: &str) -> u16 {
    let reply = session.command(command);
    let numbers: Vec<u16> = reply.text.split(['(', ')']).nth(1).map_or(vec![], |inner| {
        let numbers = inner.split([',', '|']);
        numbers.filter_map(|number| number.parse().ok()).collect()
    });
    match (reply.code, &numbers[..]) {
        (229, &[port]) => port,
        (227, &[.., high, low]) => high << 8 | low,
        _ => panic!("{command}: {reply:?}"),
    }
}

/// It is closed or reset, and brought nothing.
#[track_caller]
fn expect_no_bytes(mut stream: TcpStream) {
    match stream.read(&mut [0; 100]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("{other:?} instead of the end"),
    }
}
