//! What [`Control`] does with texts, with names that are any bytes, and with connections that end
//! in any way.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::control::{Control, Reply};

/// Sends one line as it is and reads one reply.
pub fn command(session: &mut Control, line: &[u8]) -> Reply {
    session.send(line);
    session.send(b"\r\n");
    session.reply()
}

/// Sends a verb and a path whose FF bytes are doubled, as they must be on a Telnet connection.
pub fn on_path(session: &mut Control, verb: &str, path: &[u8]) -> Reply {
    command(session, &line(verb, path))
}

/// A line of a verb and a path.
pub fn line(verb: &str, path: &[u8]) -> Vec<u8> {
    let mut line = verb.as_bytes().to_vec();
    line.push(b' ');
    for &byte in path {
        line.push(byte);
        if byte == 0xff {
            line.push(byte);
        }
    }
    line
}

/// A verb that sends on a data connection: what came, and the last reply.
pub fn fetch(session: &mut Control, verb: &str, path: &[u8]) -> (Vec<u8>, Reply) {
    let data = session.epsv();
    let first = on_path(session, verb, path);
    if first.code != 150 {
        return (Vec::new(), first);
    }
    let (received, end) = rest_of(&data);
    assert_eq!(end, End::Ordered, "of the data connection");
    (received, session.reply())
}

/// STOR, APPE over a data connection: the last reply.
pub fn store(session: &mut Control, verb: &str, path: &[u8], content: &[u8]) -> Reply {
    let mut data = session.epsv();
    let first = on_path(session, verb, path);
    if first.code != 150 {
        return first;
    }
    data.write_all(content).expect("sending the content");
    drop(data);
    session.reply()
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Ordered,
    Reset,
}

/// Everything that still comes, and how it ends.
pub fn rest_of(mut stream: &TcpStream) -> (Vec<u8>, End) {
    let (mut all, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return (all, End::Ordered),
            Ok(n) => all.extend_from_slice(&chunk[..n]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => return (all, End::Reset),
            Err(e) => panic!("behind {} bytes: {e}", all.len()),
        }
    }
}

/// Sends until nothing can be sent for a while, `limit` is reached, or the connection ends. Says
/// how much went out.
pub fn send_until_blocked(mut stream: &TcpStream, bytes: &[u8], limit: usize) -> usize {
    let before = stream.write_timeout().expect("a socket");
    stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .expect("setting a timeout");
    let mut sent = 0;
    while sent < limit {
        match stream.write(&bytes[sent % bytes.len()..]) {
            Ok(n) => sent += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    stream.set_write_timeout(before).expect("setting a timeout");
    sent
}

/// Closes so that the peer gets a reset.
pub fn reset(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    socket
        .set_linger(Some(Duration::ZERO))
        .expect("closing will reset");
}
