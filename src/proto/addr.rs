//! Addresses of data connections: PORT and PASV (RFC 959), EPRT and EPSV (RFC 2428).
//!
//! Which addresses are allowed is decided elsewhere.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

/// Why an address was not understood.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum BadAddress {
    /// 501.
    Syntax,
    /// A family that EPRT does not know here: 522.
    Family,
}

/// Reads the argument of PORT, `h1,h2,h3,h4,p1,p2`: six decimal numbers up to 255.
///
/// # Errors
/// [`BadAddress::Syntax`] for anything else.
pub fn parse_port(text: &[u8]) -> Result<SocketAddrV4, BadAddress> {
    let mut bytes = [0u8; 6];
    let mut parts = text.split(|&b| b == b',');
    for byte in &mut bytes {
        *byte = parts.next().and_then(octet).ok_or(BadAddress::Syntax)?;
    }
    let [a, b, c, d, high, low] = bytes;
    match parts.next() {
        Some(_) => Err(BadAddress::Syntax),
        None => Ok(SocketAddrV4::new(
            Ipv4Addr::new(a, b, c, d),
            u16::from_be_bytes([high, low]),
        )),
    }
}

fn octet(digits: &[u8]) -> Option<u8> {
    if digits.is_empty() || digits.len() > 3 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Reads the argument of EPRT, `|1|132.235.1.2|6275|`, with any delimiter from 33 to 126
/// (RFC 2428 section 2).
///
/// # Errors
/// Syntax, or a protocol number other than 1 and 2 or one that the address is not of.
pub fn parse_eprt(text: &[u8]) -> Result<SocketAddr, BadAddress> {
    let text = std::str::from_utf8(text).map_err(|_| BadAddress::Syntax)?;
    let delimiter = text.chars().next().filter(|c| ('!'..='~').contains(c));
    let delimiter = delimiter.ok_or(BadAddress::Syntax)?;
    let mut fields = text[1..].split(delimiter);
    let mut field = || fields.next().ok_or(BadAddress::Syntax);
    let (family, address, port, rest) = (field()?, field()?, field()?, field()?);
    if !rest.is_empty() || fields.next().is_some() {
        return Err(BadAddress::Syntax);
    }
    if !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BadAddress::Syntax);
    }
    let port: u16 = port.parse().map_err(|_| BadAddress::Syntax)?;
    let address: IpAddr = match family {
        "1" | "2" => address.parse().map_err(|_| BadAddress::Syntax)?,
        _ if family.bytes().all(|b| b.is_ascii_digit()) && !family.is_empty() => {
            return Err(BadAddress::Family);
        }
        _ => return Err(BadAddress::Syntax),
    };
    match (family, address) {
        ("1", IpAddr::V4(_)) | ("2", IpAddr::V6(_)) => Ok(SocketAddr::new(address, port)),
        _ => Err(BadAddress::Syntax),
    }
}

/// The text of a 227 reply.
pub fn pasv_text(address: SocketAddrV4) -> String {
    let [a, b, c, d] = address.ip().octets();
    let [high, low] = address.port().to_be_bytes();
    format!("Entering Passive Mode ({a},{b},{c},{d},{high},{low}).")
}

/// The text of a 229 reply: without a full stop and with no parenthesis before the one that counts.
pub fn epsv_text(port: u16) -> String {
    format!("Entering Extended Passive Mode (|||{port}|)")
}

/// Reads the text of a 227 reply. The parentheses are optional: some servers leave them out, so the
/// first digit begins the address.
pub fn parse_pasv(text: &[u8]) -> Option<SocketAddrV4> {
    let begin = text.iter().position(u8::is_ascii_digit)?;
    let rest = &text[begin..];
    let end = rest
        .iter()
        .position(|b| !b.is_ascii_digit() && *b != b',')
        .unwrap_or(rest.len());
    parse_port(&rest[..end]).ok()
}

/// Reads the text of a 229 reply; the port is not 0.
pub fn parse_epsv(text: &[u8]) -> Option<u16> {
    let begin = memchr::memchr(b'(', text)? + 1;
    let end = begin + memchr::memchr(b')', &text[begin..])?;
    let inner = &text[begin..end];
    let (&delimiter, rest) = inner.split_first()?;
    let rest = rest
        .strip_prefix(&[delimiter, delimiter])?
        .strip_suffix(&[delimiter])?;
    if rest.is_empty() || rest.len() > 5 || !rest.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(rest)
        .ok()?
        .parse()
        .ok()
        .filter(|&port: &u16| port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn port_takes_six_octets() {
        assert_eq!(
            parse_port(b"127,0,0,1,4,1"),
            Ok("127.0.0.1:1025".parse().unwrap())
        );
        let long = [b'1'; 300];
        let bad: [&[u8]; 9] = [
            b"",
            b"1,2,3",
            b"256,0,0,1,4,1",
            b"-1,0,0,1,4,1",
            b"1,2,3,4,5,6,7",
            b"1,2,3,4,5,",
            b" 1,2,3,4,5,6",
            b"1,2,3,4,5,6 ",
            &long,
        ];
        for text in bad {
            assert_eq!(parse_port(text), Err(BadAddress::Syntax), "{text:?}");
        }
    }

    #[test]
    fn eprt_takes_any_delimiter() {
        let v4 = Ok("127.0.0.1:2000".parse().unwrap());
        assert_eq!(parse_eprt(b"|1|127.0.0.1|2000|"), v4);
        assert_eq!(parse_eprt(b"!1!127.0.0.1!2000!"), v4);
        assert_eq!(
            parse_eprt(b"|2|::1|2000|"),
            Ok("[::1]:2000".parse().unwrap())
        );
        assert_eq!(parse_eprt(b"|3|127.0.0.1|2000|"), Err(BadAddress::Family));
        let bad = [
            "",
            "|",
            "||||",
            "|||",
            "|1|127.0.0.1|99999|",
            "|1|127.0.0.1|2000",
            "|1|::1|2000|",
            "|2|127.0.0.1|2000|",
            "|1|127.0.0.1|+200|",
            "|1|127.0.0.1||",
            " 1 127.0.0.1 2000 ",
            "|x|127.0.0.1|2000|",
            "|1|127.0.0.1|2000|x",
            "\u{7f}1\u{7f}127.0.0.1\u{7f}2000\u{7f}",
        ];
        for text in bad {
            assert_eq!(
                parse_eprt(text.as_bytes()),
                Err(BadAddress::Syntax),
                "{text:?}"
            );
        }
    }

    #[test]
    fn passive_replies() {
        let address = "192.0.2.1:6446".parse().unwrap();
        assert_eq!(
            pasv_text(address),
            "Entering Passive Mode (192,0,2,1,25,46)."
        );
        assert_eq!(parse_pasv(pasv_text(address).as_bytes()), Some(address));
        assert_eq!(parse_pasv(b"Entering 192,0,2,1,25,46"), Some(address));
        assert_eq!(parse_pasv(b"(1,2,3,4,5,6,7)"), None);
        assert_eq!(parse_pasv(b"no digits"), None);
        assert_eq!(parse_epsv(epsv_text(6446).as_bytes()), Some(6446));
        for bad in [
            "",
            "(|||x|)",
            "(|||0|)",
            "(||6446|)",
            "(|||6446)",
            "(|1|::1|6446|)",
            "()",
        ] {
            assert_eq!(parse_epsv(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_address_survives(ip in any::<u32>(), port in 1u16..) {
            let address = SocketAddrV4::new(Ipv4Addr::from(ip), port);
            prop_assert_eq!(parse_pasv(pasv_text(address).as_bytes()), Some(address));
            prop_assert_eq!(parse_epsv(epsv_text(port).as_bytes()), Some(port));
        }

        #[test]
        fn no_text_panics(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = (parse_port(&text), parse_eprt(&text), parse_pasv(&text), parse_epsv(&text));
        }
    }
}
