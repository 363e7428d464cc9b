//! From what was typed to values that are possible.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use haul::text::Bytes;

pub(super) fn put<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

pub(super) fn put_some<T>(place: &mut Option<T>, value: Result<T, String>) -> Result<(), String> {
    put(place, value.map(Some))
}

pub(super) fn push<T>(list: &mut Vec<T>, value: Result<T, String>) -> Result<(), String> {
    list.push(value?);
    Ok(())
}

pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("a path is not empty".to_string()),
        text => Ok(PathBuf::from(text)),
    }
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "an address is 192.0.2.1:21, 0.0.0.0:21 or [::]:21".to_string())
}

pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        format!("possible values: {}", words.join(", "))
    })
}

/// `40000-40063`, or one port.
pub(super) fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |digits: &str| {
        let port = digits.parse().ok().filter(|&port: &u16| port >= 1024);
        port.ok_or_else(|| "ports go from 1024 to 65535, as in 40000-40063".to_string())
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(format!(
            "the range ends before it begins; did you mean {last}-{first}?"
        ));
    }
    if last - first >= 4096 {
        return Err("each port is a listening socket: at most 4096, please".to_string());
    }
    Ok(first..=last)
}

/// PASV can only tell an IPv4 address, so of those that a name has, one is taken.
pub(super) fn host(text: &str) -> Result<IpAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    // What is only digits and dots is a mistyped address.
    if !text.trim_end_matches('.').split('.').all(label)
        || !text.bytes().any(|b| b.is_ascii_alphabetic())
    {
        return Err("this is neither an address nor the name of a host".to_string());
    }
    let found = (text, 0)
        .to_socket_addrs()
        .map_err(|_| "there is no address for that name; write the address".to_string())?;
    let found: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    let first = found.iter().find(|ip| ip.is_ipv4());
    first
        .copied()
        .ok_or_else(|| "that name has no IPv4 address, and PASV can tell no other".to_string())
}

pub(super) fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=1_000_000_000) => Ok(n),
        Ok(0) => Err("a number, and at least 1: with 0 nobody would get in".to_string()),
        _ => Err("a number, from 1 to 1000000000".to_string()),
    }
}

pub(super) fn hours(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(n @ 1..=87_600) => Ok(Duration::from_secs(n * 60 * 60)),
        _ => Err("a number of hours, from 1 to 87600".to_string()),
    }
}

pub(super) fn ports(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=4096) => Ok(n),
        _ => Err("a number of ports, from 1 to 4096".to_string()),
    }
}

pub(super) fn up_to_255(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(n @ 1..) => Ok(n),
        _ => Err("a number, from 1 to 255".to_string()),
    }
}

pub(super) fn size(text: &str) -> Result<u64, String> {
    match text.parse()? {
        Bytes(0) => Err("a size of 0 would let nothing through".to_string()),
        Bytes(n) => Ok(n),
    }
}

pub(super) fn size_or_none(text: &str) -> Result<u64, String> {
    text.parse().map(|Bytes(n)| n)
}

pub(super) fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(n @ 0..=60_000) => Ok(Duration::from_millis(n)),
        _ => Err("a number of milliseconds, at most 60000".to_string()),
    }
}

/// One line must fit, and one session does not get all memory.
pub(super) fn held(text: &str) -> Result<usize, String> {
    match size(text)? {
        n @ 8192..=67_108_864 => Ok(n as usize),
        _ => Err("from 8KiB to 64MiB".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_its_ipv4_address() {
        assert_eq!(host("localhost"), Ok(IpAddr::from([127, 0, 0, 1])));
        assert_eq!(host("2001:db8::1"), Ok("2001:db8::1".parse().unwrap()));
    }
}
