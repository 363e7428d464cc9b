//! What the values in a users file can be. Each is parsed once, here, from what the file or a
//! command line says, into a type that cannot be wrong; what is refused is refused in words that
//! end the sentence "line 7: ...".

use std::borrow::Borrow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, de};

use super::password::Hash;
use super::{Permissions, is_anonymous};
use crate::fingerprint::Fingerprint;
use crate::storage::path::VirtualPath;
use crate::text::Bytes;

/// Longer names are nobody's.
pub const NAME_BYTES_MAX: usize = 64;

/// The name of a user.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// So that a map by name can be asked with text.
impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Name, String> {
        if text.is_empty() {
            return Err("a user name is not empty".into());
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(format!("a user name has at most {NAME_BYTES_MAX} bytes"));
        }
        if text.chars().any(char::is_control) {
            return Err("a user name has no control characters".into());
        }
        if text.trim() != text {
            return Err("a user name does not begin or end with a space".into());
        }
        if is_anonymous(text.as_bytes()) {
            return Err(format!(
                "{text} means an anonymous session; it is no user name"
            ));
        }
        Ok(Name(text.to_string()))
    }
}

/// What a user sees as `/`, below the directory that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home(pub VirtualPath);

impl FromStr for Home {
    type Err = String;

    fn from_str(text: &str) -> Result<Home, String> {
        if text.is_empty() {
            return Err("a home is not empty; / is the whole directory that is served".into());
        }
        if text.split('/').any(|component| component == "..") {
            return Err("a home has no .. in it".into());
        }
        let path = VirtualPath::root().join(text.as_bytes());
        if path.has_control_bytes() || path.is_reserved() {
            return Err(
                "a home has no control characters, and no name that begins with .haul-".into(),
            );
        }
        Ok(Home(path))
    }
}

/// Addresses that have a prefix in common: `192.0.2.0/24`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether `address` is in it. An IPv4 address in IPv6 clothes is an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        masked(address.to_canonical(), self.prefix) == self.first
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.prefix) {
            (IpAddr::V4(_), 32) | (IpAddr::V6(_), 128) => write!(f, "{}", self.first),
            (first, prefix) => write!(f, "{first}/{prefix}"),
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let wrong = || format!("{text:?} is no network; write 192.0.2.0/24, 2001:db8::/32 or ::1");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        if address != address.to_canonical() {
            return Err(format!(
                "{text:?} is an IPv4 address in IPv6 notation; write it as IPv4"
            ));
        }
        let all = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|p| *p <= all)
                .ok_or_else(wrong)?,
            None => all,
        };
        let first = masked(address, prefix);
        if first != address {
            return Err(format!(
                "{text:?} has bits behind its prefix; did you mean {first}/{prefix}?"
            ));
        }
        Ok(Network { first, prefix })
    }
}

/// The first `prefix` bits, the others 0.
pub(super) fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(a) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix));
            Ipv4Addr::from(u32::from(a) & mask.unwrap_or(0)).into()
        }
        IpAddr::V6(a) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix));
            Ipv6Addr::from(u128::from(a) & mask.unwrap_or(0)).into()
        }
    }
}

macro_rules! from_text {
    ($($type:ty),*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(D::Error::custom)
            }
        }
    )*};
}
from_text!(Name, Home, Network, Fingerprint);

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Hash::parse(&text).map_err(|why| D::Error::custom(format!("the password hash {why}")))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Size;
        impl Visitor<'_> for Size {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a number of bytes, or text as \"10GiB\"")
            }

            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Bytes, E> {
                let bytes = u64::try_from(n);
                bytes
                    .map(Bytes)
                    .map_err(|_| E::custom("a size is not negative"))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
                text.parse().map_err(E::custom)
            }
        }
        d.deserialize_any(Size)
    }
}

impl<'de> Deserialize<'de> for Permissions {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = Permissions;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list of permissions, as [\"list\", \"read\"]")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Permissions, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut words: A) -> Result<Permissions, A::Error> {
                let mut all = Permissions::NONE;
                while let Some(word) = words.next_element::<String>()? {
                    all = all | Permissions::of_word(&word).map_err(A::Error::custom)?;
                }
                Ok(all)
            }
        }
        d.deserialize_any(Words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said<T: FromStr<Err = String> + fmt::Debug>(text: &str) -> String {
        text.parse::<T>().unwrap_err()
    }

    #[test]
    fn names() {
        let longest = "x".repeat(64);
        for name in [
            "anna",
            "Анна",
            "a b",
            "a@example.org",
            "root",
            longest.as_str(),
        ] {
            assert_eq!(name.parse::<Name>().unwrap().as_str(), name);
        }
        for (name, why) in [
            ("", "not empty"),
            (&*"x".repeat(65), "64 bytes"),
            (&*"я".repeat(33), "64 bytes"),
            ("a\nb", "control"),
            ("a\0", "control"),
            ("a\u{9b}31m", "control"),
            (" a", "space"),
            ("a ", "space"),
            ("FTP", "anonymous session"),
            ("Anonymous", "anonymous session"),
        ] {
            assert!(said::<Name>(name).contains(why), "{name:?}");
        }
    }

    #[test]
    fn homes() {
        for (text, path) in [("/", "/"), ("anna", "/anna"), ("/a//b/./c/", "/a/b/c")] {
            let home: Home = text.parse().unwrap();
            assert_eq!(home.0.as_bytes(), path.as_bytes());
        }
        for text in [
            "",
            "..",
            "/a/../b",
            "a/..",
            "/a\nb",
            "/.haul-x",
            "/a/.HAUL-x",
        ] {
            assert!(text.parse::<Home>().is_err(), "{text:?}");
        }
        assert!("/a/..b/c..".parse::<Home>().is_ok());
    }

    #[test]
    fn networks() {
        let inside = |network: &str, address: &str| {
            let network: Network = network.parse().unwrap();
            network.contains(address.parse().unwrap())
        };
        assert!(inside("192.0.2.0/24", "192.0.2.255") && !inside("192.0.2.0/24", "192.0.3.0"));
        assert!(inside("192.0.2.0/24", "::ffff:192.0.2.7"));
        assert!(inside("192.0.2.7", "192.0.2.7") && !inside("192.0.2.7", "192.0.2.6"));
        assert!(inside("::1", "::1") && !inside("::1", "::2") && !inside("::1", "0.0.0.1"));
        assert!(inside("2001:db8::/32", "2001:db8:1::9") && !inside("2001:db8::/32", "2001:db9::"));
        assert!(inside("0.0.0.0/0", "1.2.3.4") && !inside("0.0.0.0/0", "::1"));
        assert!(inside("::/0", "2001:db8::1") && !inside("::/0", "1.2.3.4"));
        for text in ["192.0.2.0/24", "192.0.2.7", "::1", "::/0"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        let said = said::<Network>;
        assert!(said("192.0.2.7/24").contains("did you mean 192.0.2.0/24?"));
        assert!(said("::ffff:192.0.2.0").contains("as IPv4"));
        for text in [
            "",
            "/",
            "192.0.2.0/33",
            "::/129",
            "192.0.2/24",
            "host",
            "::1/",
            "::1/-1",
        ] {
            assert!(said(text).contains("is no network"), "{text:?}");
        }
    }
}
