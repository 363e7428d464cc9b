//! Which server, and as whom: the value of `--server`.
//!
//! It knows no socket; names are resolved when the connection is made.

use std::fmt;
use std::net::Ipv6Addr;

use super::error::Error;

/// What `ftp://host` and a bare host mean.
const FTP_PORT: u16 = 21;
/// What `ftps://host` means.
const FTPS_PORT: u16 = 990;

/// Where to connect and who to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// TLS begins at once, without being asked for.
    pub implicit_tls: bool,
    /// `None`: anonymous.
    pub user: Option<Vec<u8>>,
    /// As it stood in the URL.
    pub password: Option<Secret>,
}

/// A password; its Debug form says nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Secret {
    /// Takes a password, unless it cannot be carried on a command line of the protocol.
    ///
    /// # Errors
    /// It contains CR, LF or NUL.
    pub fn new(bytes: Vec<u8>) -> Result<Secret, Error> {
        one_line("the password", &bytes)?;
        Ok(Secret(bytes))
    }

    /// The password itself.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl Default for Server {
    /// Where `hauld` listens unless it is told otherwise.
    fn default() -> Server {
        Server {
            host: "127.0.0.1".to_owned(),
            port: 8080,
            implicit_tls: false,
            user: None,
            password: None,
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Server {
    /// Reads `[ftp://|ftps://][user[:password]@]host[:port]`. User and password may be
    /// percent-encoded.
    ///
    /// # Errors
    /// A usage error that says what is wrong; it never shows a password.
    pub fn parse(text: &str) -> Result<Server, Error> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("ftp", text));
        let (implicit_tls, port) = match scheme.to_ascii_lowercase().as_str() {
            "ftp" => (false, FTP_PORT),
            "ftps" => (true, FTPS_PORT),
            _ => {
                return Err(Error::usage(
                    "--server: the URL must begin with ftp:// or ftps://",
                ));
            }
        };
        let (login, address) = match rest.rsplit_once('@') {
            Some((login, address)) => (Some(login), address),
            None => (None, rest),
        };
        let address = address.strip_suffix('/').unwrap_or(address);
        let (host, port) = host_and_port(address, port)?;
        let mut server = Server {
            host,
            port,
            implicit_tls,
            user: None,
            password: None,
        };
        if let Some(login) = login {
            let (user, password) = match login.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (login, None),
            };
            let user = percent_decoded(user)?;
            one_line("the user name", &user)?;
            server.user = Some(user).filter(|user| !user.is_empty());
            server.password = password
                .map(|p| percent_decoded(p).and_then(Secret::new))
                .transpose()?;
        }
        Ok(server)
    }
}

fn host_and_port(address: &str, default: u16) -> Result<(String, u16), Error> {
    let bad = |why: &str| Err(Error::usage(format!("--server: {why}")));
    if address.contains('/') {
        return bad(
            "a path does not belong here; write it behind the command, and in a bookmark as its \
             directory",
        );
    }
    if address.parse::<Ipv6Addr>().is_ok() {
        return Ok((address.to_owned(), default));
    }
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, port)) => match port.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None => return bad("only :port may stand behind the bracket"),
            },
            None => return bad("the bracket is not closed"),
        },
        None => match address.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    if host.is_empty() || host.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return bad("there is no host in it");
    }
    match port.map(str::parse::<u16>) {
        None => Ok((host.to_owned(), default)),
        Some(Ok(port)) if port != 0 => Ok((host.to_owned(), port)),
        Some(_) => bad("the port must be a number from 1 to 65535"),
    }
}

/// `%20` and the like.
///
/// # Errors
/// A percent sign that is none of these.
pub fn percent_decoded(text: &str) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |at: usize| tail.get(at).and_then(|&b| char::from(b).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else {
            return Err(Error::usage(
                "a % in a URL must be followed by two hex digits (write %25 for a percent sign)",
            ));
        };
        out.push((high << 4 | low) as u8);
        rest = &tail[2..];
    }
    Ok(out)
}

/// Refuses what would become more than one line on the wire. Nothing was sent when this is checked.
///
/// # Errors
/// `bytes` contain CR, LF or NUL.
pub fn one_line(what: &str, bytes: &[u8]) -> Result<(), Error> {
    if memchr::memchr3(b'\r', b'\n', 0, bytes).is_some() {
        return Err(Error::usage(format!(
            "{what} contains a line break or a NUL byte, which FTP cannot carry; nothing was sent"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, host: &str, port: u16, user: Option<&[u8]>, password: Option<&[u8]>) {
        let server = Server::parse(text).unwrap();
        assert_eq!((server.host.as_str(), server.port), (host, port), "{text}");
        assert_eq!(server.user.as_deref(), user, "{text}");
        assert_eq!(
            server.password.as_ref().map(Secret::reveal),
            password,
            "{text}"
        );
    }

    #[test]
    fn forms() {
        check("example.org", "example.org", 21, None, None);
        check("example.org:2121", "example.org", 2121, None, None);
        check("ftp://example.org/", "example.org", 21, None, None);
        check("FTP://me@example.org", "example.org", 21, Some(b"me"), None);
        check("me:s:e%40c@h:99", "h", 99, Some(b"me"), Some(b"s:e@c"));
        check("a@b:c@h", "h", 21, Some(b"a@b"), Some(b"c"));
        check("ftps://example.org", "example.org", 990, None, None);
        check("FTPS://me@h:99/", "h", 99, Some(b"me"), None);
        check("ftps://::1", "::1", 990, None, None);
        check("[::1]:2121", "::1", 2121, None, None);
        check("[::1]", "::1", 21, None, None);
        check("::1", "::1", 21, None, None);
        check("me:%ff@h", "h", 21, Some(b"me"), Some(b"\xff"));
    }

    #[test]
    fn only_ftps_begins_with_tls() {
        let implicit = |text| Server::parse(text).unwrap().implicit_tls;
        assert!(implicit("ftps://h:21") && implicit("FTPS://h"));
        assert!(!implicit("ftp://h:990") && !implicit("h:990"));
    }

    #[test]
    fn l09_what_cannot_be_one_line_is_refused() {
        for bad in [
            "a%0d%0aQUIT@h",
            "a%00@h",
            "a:b%0a@h",
            "h:0",
            "h:65536",
            "h:",
            "",
            "ftp://",
            "http://h",
            "ftps://",
            "h/path",
            "[::1",
            "[::1]x",
            "a:%zz@h",
            "a:%4@h",
            "ho\nst",
        ] {
            let error = Server::parse(bad).unwrap_err();
            assert_eq!(error.exit, super::super::error::Exit::Usage, "{bad}");
        }
    }

    #[test]
    fn the_password_is_in_no_debug_output() {
        let server = Server::parse("me:hush@h").unwrap();
        assert!(!format!("{server:?}").contains("hush"));
        assert_eq!(server.to_string(), "h:21");
    }
}
