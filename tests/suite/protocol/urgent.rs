//! Urgent data (RFC 959 section 4.1.3 has ABOR sent with it; a client may send anything with it).

use std::io::Write;
use std::net::{Shutdown, TcpStream};

use socket2::SockRef;

use crate::common::content::{assert_file, bytes};
use crate::common::control::Control;
use crate::common::server::{Server, four_questions};

/// Sends `bytes`; the last of each of the first `pieces` is urgent.
fn send_urgently(stream: &mut TcpStream, bytes: &[u8], pieces: &[usize]) {
    let mut rest = bytes;
    for &piece in pieces {
        let (now, later) = rest.split_at(piece);
        stream.write_all(&now[..piece - 1]).expect("sending");
        let sent = SockRef::from(&*stream).send_out_of_band(&now[piece - 1..]);
        assert_eq!(sent.expect("sending"), 1);
        rest = later;
    }
    stream.write_all(rest).expect("sending");
}

/// Where the urgent bytes are: early, while it is copied; late, while it is spliced; at the very end.
const PIECES: [&[usize]; 6] = [
    &[1],
    &[1000],
    &[200_000],
    &[70_000, 100_000, 1],
    &[299_999],
    &[300_000],
];

#[test]
fn p14_urgent_data_in_an_upload_is_a_byte_like_any_other() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let content = bytes(14, 300_000);
    let mut session = Control::login(server.addr());
    for pieces in PIECES {
        let mut data = session.epsv();
        assert_eq!(session.command("STOR stored").code, 150);
        send_urgently(&mut data, &content, pieces);
        data.shutdown(Shutdown::Write).expect("ending");
        let stored = session.reply();
        assert_eq!(stored.code, 226, "{pieces:?}: {stored:?}");
        assert_file(&server.path("stored"), &content);

        // Nothing comes behind it that could wake anybody up.
        assert_eq!(session.command("UPLOAD 300000 uploaded").code, 150);
        let mut control = session.stream().try_clone().expect("a second handle");
        send_urgently(&mut control, &content, pieces);
        assert_eq!(session.reply().code, 226, "{pieces:?}");
        assert_file(&server.path("uploaded"), &content);
    }
    session.quit();
    four_questions(&server, baseline);
}

#[test]
fn p14_urgent_data_in_a_refused_body_is_discarded_with_it() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let content = bytes(15, 300_000);
    let mut session = Control::login(server.addr());
    for pieces in PIECES {
        session.send(b"UPLOAD 300000+ /forbidden/x\r\n");
        let mut control = session.stream().try_clone().expect("a second handle");
        send_urgently(&mut control, &content, pieces);
        assert_eq!(session.reply().code, 550, "{pieces:?}");
        assert_eq!(session.command("NOOP").code, 200, "{pieces:?}");
    }
    session.quit();
    four_questions(&server, baseline);
}
