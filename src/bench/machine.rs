//! What this machine gives the generator, and what of it runs short.

use std::fs;
use std::net::IpAddr;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Descriptors beside those of sessions.
const SPARE_DESCRIPTORS: u64 = 64;

/// Makes room for the descriptors of so many sessions.
///
/// # Errors
/// The limit cannot be raised so far, and how it can.
pub fn raise_descriptors(sessions: usize, data_connections: bool) -> Result<(), String> {
    let each = 1 + u64::from(data_connections);
    let needed = sessions as u64 * each + SPARE_DESCRIPTORS;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let most = limit.maximum.unwrap_or(u64::MAX);
    let raised = Rlimit {
        current: Some(needed.min(most)),
        maximum: limit.maximum,
    };
    let failed = setrlimit(Resource::Nofile, raised).is_err();
    match failed || needed > most {
        true => Err(format!(
            "{sessions} connections need {needed} descriptors, and {most} are allowed; raise the \
             limit (ulimit -Hn {needed}, as root) or take fewer --connections"
        )),
        false => Ok(()),
    }
}

/// What to expect of so many connections to one address.
pub fn warnings(sessions: usize, server: IpAddr) -> Vec<String> {
    let mut warnings = Vec::new();
    let ports = read("/proc/sys/net/ipv4/ip_local_port_range");
    let mut range = ports
        .split_whitespace()
        .filter_map(|word| word.parse::<usize>().ok());
    if let (Some(low), Some(high)) = (range.next(), range.next()) {
        let ports = high.saturating_sub(low) + 1;
        if sessions * 10 > ports * 9 {
            warnings.push(format!(
                "{sessions} connections to one address, and this machine has {ports} local ports \
                 for them; sysctl net.ipv4.ip_local_port_range=\"1024 65535\" makes more"
            ));
        }
    }
    let congestion = read("/proc/sys/net/ipv4/tcp_congestion_control");
    if server.is_loopback() && congestion.trim() == "bbr" {
        warnings.push(
            "TCP congestion control is bbr, which paces even loopback and costs several times the \
             processor time; sysctl net.ipv4.tcp_congestion_control=cubic shows the server"
                .to_owned(),
        );
    }
    warnings
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Processor time that this process has used, in seconds.
pub fn own_cpu_s() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

/// What it is, for the report.
pub fn description() -> String {
    let kernel = read("/proc/sys/kernel/osrelease");
    let model = read("/proc/cpuinfo");
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{count} x {model}, Linux {}", kernel.trim())
}
