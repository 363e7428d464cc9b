//! Which data connections resume which session, and which are given tickets.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;

use super::secure;
use crate::common::content::{assert_same, bytes};
use crate::common::secure::{Secure, begin_tls, finish, is_resumed};
use crate::common::server::four_questions;

fn without_tickets(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

#[test]
fn t11_data_connections_resume_their_own_session() {
    let (server, pair) = secure(&[]);
    let baseline = server.baseline();
    let mut session = Secure::login(server.addr(), pair.client());
    assert_eq!(session.stor("f", b"content"), 226);
    let mut data = session.data("RETR f").unwrap();
    assert!(
        is_resumed(&data),
        "the second ticket of the control connection"
    );
    data.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(session.reply().0, 226);
    // It brought a ticket of its own, and that of an upload brings none.
    let data = session.data("STOR g").unwrap();
    assert!(is_resumed(&data));
    finish(data);
    assert_eq!(session.reply().0, 226);
    let data = session.data("STOR g").unwrap();
    assert!(!is_resumed(&data), "an upload gives no ticket");
    finish(data);
    assert_eq!(session.reply().0, 226);
    // A full handshake and a ticket of another session are fine all the same.
    let full = without_tickets(pair.client());
    let foreign = Arc::new(pair.client());
    let other = Secure::login(server.addr(), ClientConfig::clone(&foreign));
    for config in [&full, &foreign] {
        let mut data = session.data_with("RETR f", config).unwrap();
        assert!(!is_resumed(&data));
        data.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(session.reply().0, 226);
    }
    drop((session, other));
    four_questions(&server, baseline);
}

#[test]
fn t11_under_require_only_the_own_session_counts() {
    let (server, pair) = secure(&["--tls-reuse", "require"]);
    let baseline = server.baseline();
    let mut session = Secure::login(server.addr(), pair.client());
    assert_eq!(session.stor("f", b"content"), 226);
    assert_eq!(session.command("REIN").0, 220);
    let mut session = session.logged_in();
    assert_eq!(session.fetch("RETR f"), (b"content".to_vec(), 226));

    let full = without_tickets(pair.client());
    let foreign = Arc::new(pair.client());
    let mut other = Secure::login(server.addr(), ClientConfig::clone(&foreign));
    assert_eq!(other.command("NOOP").0, 200);
    for config in [&full, &foreign] {
        for line in ["RETR f", "STOR g"] {
            let socket = session.epsv();
            assert_eq!(session.command(line).0, 150);
            // With TLS 1.3 the client is through before the server has made up its mind.
            if let Ok(mut data) = begin_tls(config, socket) {
                let _ = data.write_all(b"x");
                let mut got = Vec::new();
                let _ = data.read_to_end(&mut got);
                assert_eq!(got, b"");
            }
            assert_eq!(session.reply().0, 522, "{line}");
        }
    }
    assert!(!server.path("g").exists());
    drop((session, other));
    four_questions(&server, baseline);
}

#[test]
fn t12_three_hundred_data_connections_of_a_client_that_uses_tickets_once() {
    let (server, pair) = secure(&[]);
    let baseline = server.baseline();
    let mut session = Secure::login(server.addr(), pair.client());
    for i in 0..100 {
        let content = bytes(i, i as usize * 331);
        assert_eq!(session.stor("f", &content), 226);
        let (got, code) = session.fetch("RETR f");
        assert_same(&got, &content, "RETR");
        assert_eq!(code, 226);
        assert_eq!(session.fetch("LIST").1, 226);
    }
    drop(session);
    four_questions(&server, baseline);
}
