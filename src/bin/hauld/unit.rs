//! `hauld unit`: the files with which systemd runs hauld as it was told on the command line.

use std::fmt::Write as _;
use std::path::Path;

use haul::config::Config;
use haul::server::activation::IMPLICIT_TLS;

use super::given::Given;

/// The option that asks for the socket unit.
pub const SOCKET: &str = "socket";
/// A user that need not be there: who reads the unit is told.
const USER: &str = "haul";

/// `hauld.service`. Whatever hauld does not need is taken from it, once more by systemd.
pub fn service(given: &Given, config: &Config, program: &Path) -> String {
    let all = || config.listen.iter().chain(&config.tls.implicit);
    let low_ports = all().any(|address| address.port() < 1024);
    let capabilities = if low_ports {
        "CAP_NET_BIND_SERVICE"
    } else {
        ""
    };
    let (user, group) = match &config.run_as {
        Some(run_as) => match run_as.name.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (run_as.name.as_str(), None),
        },
        None => (USER, None),
    };
    let group = group.map_or(String::new(), |group| format!("Group={group}\n"));
    let mut words = vec![program.display().to_string()];
    let dir = std::path::absolute(&config.dir).unwrap_or_else(|_| config.dir.clone());
    words.extend(given.as_words(&["run-as"]));
    words.push(dir.display().to_string());
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    let files = config.tls.files.iter();
    let files = files.flat_map(|tls| [&tls.certificate, &tls.key]);
    let used: Vec<_> = files.chain(&config.users).chain([&dir]).collect();
    let below = |places: &[&str]| {
        let is = |path: &&std::path::PathBuf| places.iter().any(|place| path.starts_with(place));
        used.iter().any(is)
    };
    let log = config
        .transfer_log
        .as_ref()
        .and_then(|log| std::path::absolute(log).ok());
    let log = log.as_deref().and_then(Path::parent);
    let written = [Some(dir.as_path()), log].into_iter().flatten();
    let written: Vec<String> = written
        .map(|dir| quoted(&dir.display().to_string()))
        .collect();
    // The parent tells its workers itself.
    let kill_mode = match config.workers {
        1 => "",
        _ => "KillMode=mixed\n",
    };
    // What would hide the files in use is left out.
    let home = if below(&["/home", "/root", "/run/user"]) {
        ""
    } else {
        "ProtectHome=yes\n"
    };
    let tmp = if below(&["/tmp", "/var/tmp"]) {
        ""
    } else {
        "PrivateTmp=yes\n"
    };
    format!(
        "# /etc/systemd/system/hauld.service, as `hauld unit` prints it. The user is made by\n\
         # `useradd --system {user}`, and owns what is served: `chown {user}: DIR`.\n\
         [Unit]\n\
         Description=hauld, a file-transfer server\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         \n\
         [Service]\n\
         Type=exec\n\
         ExecStart={start}\n\
         ExecReload=/bin/kill -HUP $MAINPID\n\
         Restart=on-failure\n\
         User={user}\n\
         {group}\
         {kill_mode}\
         StateDirectory=hauld\n\
         LimitNOFILE={descriptors}\n\
         TimeoutStopSec={stop_s}\n\
         \n\
         ReadWritePaths={dir}\n\
         ProtectSystem=strict\n\
         {home}{tmp}\
         PrivateDevices=yes\n\
         ProtectProc=invisible\n\
         ProtectClock=yes\n\
         ProtectHostname=yes\n\
         ProtectKernelTunables=yes\n\
         ProtectKernelModules=yes\n\
         ProtectKernelLogs=yes\n\
         ProtectControlGroups=yes\n\
         NoNewPrivileges=yes\n\
         CapabilityBoundingSet={capabilities}\n\
         AmbientCapabilities={capabilities}\n\
         RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX\n\
         RestrictNamespaces=yes\n\
         RestrictRealtime=yes\n\
         RestrictSUIDSGID=yes\n\
         LockPersonality=yes\n\
         MemoryDenyWriteExecute=yes\n\
         RemoveIPC=yes\n\
         SystemCallArchitectures=native\n\
         SystemCallFilter=@system-service landlock_create_ruleset landlock_add_rule \
         landlock_restrict_self\n\
         SystemCallFilter=~@privileged\n\
         SystemCallErrorNumber=EPERM\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        start = words.join(" "),
        dir = written.join(" "),
        descriptors = config.limits.sessions_max * 3 + 256,
        stop_s = config.limits.drain_timeout.as_secs() + 15,
    )
}

/// `hauld.socket`, with which systemd opens the ports: hauld then needs no right to low ones.
pub fn socket(config: &Config) -> Result<String, String> {
    if config.workers > 1 {
        return Err("workers need sockets of their own: leave out --workers, or --socket".into());
    }
    let (name, addresses) = match (&*config.listen, &*config.tls.implicit) {
        (plain, []) => ("hauld", plain),
        ([], implicit) => (IMPLICIT_TLS, implicit),
        _ => {
            return Err(format!(
                "all sockets of one unit have one name, and {IMPLICIT_TLS} is the name of those \
                 where TLS begins at once: print one unit for --listen and one for --implicit-tls"
            ));
        }
    };
    let mut out = format!(
        "# /etc/systemd/system/hauld.socket, as `hauld unit --socket` prints it.\n\
         [Unit]\n\
         Description=The ports of hauld\n\
         \n\
         [Socket]\n\
         FileDescriptorName={name}\n\
         Service=hauld.service\n\
         Backlog=4096\n\
         BindIPv6Only=ipv6-only\n"
    );
    for address in addresses {
        // Writing to a String does not fail.
        let _ = writeln!(out, "ListenStream={address}");
    }
    out += "\n[Install]\nWantedBy=sockets.target\n";
    Ok(out)
}

/// A word of `ExecStart=`, where `%` and `$` would be replaced.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=,+[]".contains(c);
    let escaped = word
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('%', "%%")
        .replace('$', "$$");
    match word.chars().all(plain) && !word.is_empty() {
        true => escaped,
        false => format!("\"{escaped}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_would_replace_is_kept() {
        for (word, expected) in [
            ("--listen", "--listen"),
            ("[::]:21", "[::]:21"),
            ("/a b", "\"/a b\""),
            ("100%", "\"100%%\""),
            ("$HOME\\\"", "\"$$HOME\\\\\\\"\""),
            ("", "\"\""),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
