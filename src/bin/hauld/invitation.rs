//! What a server says that strangers can reach and that has no users file: how to log in all the
//! same, in commands that can be copied.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use haul::accounts::password::Password;
use haul::fingerprint::Fingerprint;
use haul::server::ONE_TIME_USER;

/// The text for a listener. `implicit_tls`: TLS begins there at once; `fingerprint` is that of its
/// certificate, `None` without TLS.
pub fn text(
    address: SocketAddr,
    implicit_tls: bool,
    fingerprint: Option<Fingerprint>,
    password: &Password,
) -> String {
    let host = SocketAddr::new(reachable(address.ip()), address.port());
    let password = String::from_utf8_lossy(password.reveal());
    let login = format!("{ONE_TIME_USER}:{password}@{host}");
    let (haul, curl, scheme) = match fingerprint {
        None => ("--insecure-plaintext".to_string(), "", "ftp"),
        Some(fingerprint) => (
            format!("--fingerprint {fingerprint}"),
            " --ssl-reqd -k",
            if implicit_tls { "ftps" } else { "ftp" },
        ),
    };
    format!(
        "There is no users file, so for as long as this server runs there is one user:\n\
         \x20 {ONE_TIME_USER}, with the password {password}\n\
         \x20 haul --server {scheme}://{login} {haul} upload FILE\n\
         \x20 curl{curl} -T FILE {scheme}://{login}/\n\
         For users who stay: hauld user add NAME, then --users haul-users.toml. For anybody: --anonymous read."
    )
}

/// An address that others can type for one that stands for all: the one from which this machine would
/// reach the world. Nothing is sent to find out.
fn reachable(ip: IpAddr) -> IpAddr {
    if !ip.is_unspecified() {
        return ip;
    }
    let far = ["192.0.2.1:9", "[2001:db8::1]:9"];
    let from = |far| {
        let socket = UdpSocket::bind((ip, 0)).ok()?;
        socket.connect(far).ok()?;
        let from = socket.local_addr().ok()?.ip().to_canonical();
        (!from.is_unspecified()).then_some(from)
    };
    let loopback = if ip.is_ipv4() {
        [127, 0, 0, 1].into()
    } else {
        IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)
    };
    far.into_iter().find_map(from).unwrap_or(loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_fit_the_listener() {
        let password = Password::random().unwrap();
        let fingerprint = Fingerprint::of(b"certificate");
        let says = |address: &str, implicit, fingerprint, words: &[&str]| {
            let text = text(address.parse().unwrap(), implicit, fingerprint, &password);
            for word in words {
                assert!(text.contains(word), "{text} lacks {word}");
            }
        };
        let pin = format!("--fingerprint {fingerprint} upload FILE");
        says(
            "192.0.2.7:21",
            false,
            Some(fingerprint),
            &["@192.0.2.7:21", &pin, "--ssl-reqd -k -T"],
        );
        says(
            "[2001:db8::7]:99",
            true,
            Some(fingerprint),
            &["ftps://haul:", "@[2001:db8::7]:99/"],
        );
        says(
            "192.0.2.7:21",
            false,
            None,
            &["--insecure-plaintext upload", "curl -T FILE ftp://"],
        );
        for all in ["0.0.0.0:21", "[::]:21"] {
            let text = text(all.parse().unwrap(), false, None, &password);
            assert!(
                !text.contains("@0.0.0.0") && !text.contains("@[::]:"),
                "{text}"
            );
        }
    }
}
