//! Addresses and ports.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener};

use haul::config::{Config, is_public};

use super::Findings;

/// A range that is smaller is easily used up by one address.
const PORTS_FEW: usize = 16;

pub fn addresses(config: &Config, found: &mut Findings) {
    for address in config.listen.iter().chain(&config.tls.implicit) {
        let about = format!("address {address}");
        match TcpListener::bind(address) {
            Ok(_) if is_public(address) => found.ok(about, "it is free, and strangers reach it"),
            Ok(_) => found.ok(about, "it is free"),
            Err(error) => found.error(about, why_not(address, &error)),
        }
    }
}

fn why_not(address: &SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => {
            "another program has it (a hauld that runs already?): `ss -ltnp` shows which".into()
        }
        ErrorKind::AddrNotAvailable => {
            "that is no address of this machine: `ip address` shows them".into()
        }
        ErrorKind::PermissionDenied if address.port() < 1024 => {
            "ports below 1024 are root's: start as root with --run-as, or with CAP_NET_BIND_SERVICE \
             or a socket unit of systemd (`hauld unit`)"
                .into()
        }
        _ => error.to_string(),
    }
}

pub fn passive(config: &Config, public: bool, found: &mut Findings) {
    let about = "passive ports";
    match &config.passive_ports {
        None if public => found.warning(
            about,
            "the kernel chooses them anywhere, so no firewall can let just them in: give \
             --passive-ports",
        ),
        None => found.ok(about, "the kernel chooses them"),
        Some(range) => {
            let (first, last) = (*range.start(), *range.end());
            let ip = config.listen.iter().chain(&config.tls.implicit).next();
            let ip = ip.map_or(IpAddr::from([127, 0, 0, 1]), SocketAddr::ip);
            let taken = |port: &u16| TcpListener::bind((ip, *port)).is_err();
            let taken = range.clone().filter(taken).count();
            match taken {
                0 => found.ok(about, format_args!("{} are free", range.len())),
                n if n == range.len() => found.error(about, "all of them are taken"),
                n => found.warning(about, format_args!("{n} of {} are taken", range.len())),
            }
            if range.len() < PORTS_FEW {
                found.warning(
                    about,
                    format_args!(
                        "the clients of one address have at most {} data connections that wait \
                         at once",
                        range.len()
                    ),
                );
            }
            if let Some((lowest, highest)) = outgoing_ports()
                && first <= highest
                && last >= lowest
            {
                found.warning(
                    about,
                    format_args!(
                        "the kernel gives {lowest}-{highest} to outgoing connections, so that some \
                         may be taken at start: a range below {lowest} is better"
                    ),
                );
            }
        }
    }
    published(config, public, found);
}

fn outgoing_ports() -> Option<(u16, u16)> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut words = text.split_whitespace().map(str::parse);
    Some((words.next()?.ok()?, words.next()?.ok()?))
}

/// What PASV tells, when strangers are to reach it.
fn published(config: &Config, public: bool, found: &mut Findings) {
    let about = "passive address";
    match config.passive_address {
        Some(IpAddr::V6(address)) => found.error(
            about,
            format_args!("PASV can tell no IPv6 address, as {address} is one; EPSV needs none"),
        ),
        Some(IpAddr::V4(address)) if address.is_unspecified() || address.is_multicast() => {
            found.error(about, format_args!("nobody can connect to {address}"));
        }
        Some(IpAddr::V4(address)) if public && (address.is_private() || address.is_loopback()) => {
            found.warning(
                about,
                format_args!("{address} means nothing on the internet: give the public address"),
            );
        }
        Some(address) => found.ok(about, address),
        None => {
            let behind_nat = |address: &&SocketAddr| match address.ip().to_canonical() {
                IpAddr::V4(ip) => ip.is_private(),
                IpAddr::V6(_) => false,
            };
            let mut all = config.listen.iter().chain(&config.tls.implicit);
            match all.find(behind_nat) {
                Some(address) => found.warning(
                    about,
                    format_args!(
                        "{} is a private address: clients from elsewhere need --passive-address",
                        address.ip()
                    ),
                ),
                None => found.ok(about, "the one that the client reached"),
            }
        }
    }
}
