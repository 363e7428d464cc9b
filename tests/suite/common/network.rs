//! A network of its own, for what does not count for loopback: the addresses 192.0.2.1 to 192.0.2.3
//! and nobody else.

use std::process::Command;

use super::tools::run_with;

/// Runs a Python script there, behind [`HEAD`]. It must end by printing "done".
#[track_caller]
pub fn in_a_network(script: &str) {
    let dir = tempfile::tempdir().expect("making a directory");
    let mut command = Command::new("unshare");
    command.args(["--net", "python3", "-"]);
    command.arg(env!("CARGO_BIN_EXE_hauld")).arg(dir.path());
    let done = run_with(&mut command, [HEAD, script].concat().as_bytes()).ok();
    assert_eq!(done.stdout_text(), "done\n", "{}", done.stderr);
}

const HEAD: &str = r#"
import fcntl, os, socket, struct, subprocess, sys, time

hauld, root = sys.argv[1:]

def interface(name, request, data):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, request, struct.pack("16s16s8x", name, data))

interface(b"lo", 0x8914, struct.pack("=H14x", 0x49))        # SIOCSIFFLAGS: up, running, loopback
for n in 1, 2, 3:
    sockaddr = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(f"192.0.2.{n}"))
    interface(b"lo:%d" % n, 0x8916, sockaddr)               # SIOCSIFADDR

def start(*options):
    command = [hauld, "--listen", "192.0.2.1:0", "--tls", "off", *options, root]
    server = subprocess.Popen(command, stdout=subprocess.PIPE)
    return server, int(server.stdout.readline().rsplit(b":", 1)[1])

def client(port, source):
    s = socket.create_connection(("192.0.2.1", port), 10, (source, 0))
    s.settimeout(60)                                        # 32 passwords may be checked before
    return s, s.makefile("rb")
"#;
