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

/// What no configuration of hauld needs.
const SANDBOX: &str = "\
PrivateDevices=yes
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
NoNewPrivileges=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service landlock_create_ruleset landlock_add_rule landlock_restrict_self
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
";

/// `hauld.service`. Whatever hauld does not need is taken from it, once more by systemd.
pub fn service(given: &Given, config: &Config, program: &Path) -> String {
    let run_as = config.run_as.as_ref().map_or(USER, |it| it.name.as_str());
    let (user, group) = match run_as.split_once(':') {
        Some((user, group)) => (user, format!("Group={group}\n")),
        None => (run_as, String::new()),
    };
    let dir = std::path::absolute(&config.dir).unwrap_or_else(|_| config.dir.clone());
    let mut words = vec![program.display().to_string()];
    words.extend(given.as_words(&["run-as"]));
    words.push(dir.display().to_string());
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    // The parent tells its workers itself.
    let kill_mode = match config.workers {
        1 => "",
        _ => "KillMode=mixed\n",
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
         {files}\
         {capabilities}\
         {SANDBOX}\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        start = words.join(" "),
        descriptors = config.limits.sessions_max * 3 + 256,
        stop_s = config.limits.drain_timeout.as_secs() + 15,
        files = files(config, &dir),
        capabilities = capabilities(config),
    )
}

/// What may be written, and what is hidden; not what would hide the files in use.
fn files(config: &Config, dir: &Path) -> String {
    let log = config.transfer_log.as_ref();
    let log = log.and_then(|log| std::path::absolute(log).ok());
    let written = [Some(dir), log.as_deref().and_then(Path::parent)];
    let written = written.into_iter().flatten();
    let written: Vec<String> = written
        .map(|dir| quoted(&dir.display().to_string()))
        .collect();
    let mut text = format!(
        "ReadWritePaths={}\nProtectSystem=strict\n",
        written.join(" ")
    );
    let tls = config.tls.files.iter();
    let tls = tls.flat_map(|tls| [tls.certificate.as_path(), tls.key.as_path()]);
    let users = config.users.as_deref();
    let used: Vec<&Path> = tls.chain(users).chain([dir]).collect();
    for (line, places) in [
        ("ProtectHome=yes\n", &["/home", "/root", "/run/user"][..]),
        ("PrivateTmp=yes\n", &["/tmp", "/var/tmp"]),
    ] {
        let is_used = |place: &&str| used.iter().any(|path| path.starts_with(place));
        if !places.iter().any(is_used) {
            text += line;
        }
    }
    text
}

fn capabilities(config: &Config) -> String {
    let mut all = config.listen.iter().chain(&config.tls.implicit);
    let needed = match all.any(|address| address.port() < 1024) {
        true => "CAP_NET_BIND_SERVICE",
        false => "",
    };
    format!("CapabilityBoundingSet={needed}\nAmbientCapabilities={needed}\n")
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
