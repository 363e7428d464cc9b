//! vsftpd, pure-ftpd, ProFTPD and pyftpdlib, started as they are but for their configuration.
//!
//! All serve a directory in which anonymous sessions may write below `/pub`, without a change to
//! this machine's users: vsftpd by `anon_root`, pure-ftpd by a helper that knows one user, whatever
//! name and password come, ProFTPD by users of its own. But for pyftpdlib they start as root only.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::secure::Pair;
use super::{PATIENCE, wait_for};

const PYFTPDLIB: &str = "
import sys
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler, TLS_FTPHandler
from pyftpdlib.servers import FTPServer
host, port, root, *pair = sys.argv[1:]
handler = FTPHandler
if pair:
    handler = TLS_FTPHandler
    handler.certfile, handler.keyfile = pair
handler.authorizer = DummyAuthorizer()
handler.authorizer.add_anonymous(root, perm='elradfmwMT')
FTPServer((host, int(port)), handler).serve_forever()
";

/// A server of somebody else. It ends with the value.
pub struct Peer {
    processes: Vec<Child>,
    addr: SocketAddr,
    dir: TempDir,
}

impl Peer {
    pub fn vsftpd() -> Peer {
        Peer::vsftpd_with("")
    }

    /// It offers TLS, and wants data connections to resume the session of the control connection.
    pub fn vsftpd_tls(pair: &Pair) -> Peer {
        Peer::vsftpd_with(&format!(
            "ssl_enable=YES\nallow_anon_ssl=YES\nforce_local_logins_ssl=NO\n\
             force_local_data_ssl=NO\nrequire_ssl_reuse=YES\nssl_ciphers=HIGH\n\
             strict_ssl_read_eof=YES\nrsa_cert_file={}\nrsa_private_key_file={}\n",
            pair.cert().display(),
            pair.key().display()
        ))
    }

    fn vsftpd_with(more: &str) -> Peer {
        Peer::start("vsFTPd", |addr, dir| {
            let root = dir.join("root");
            let empty = dir.join("empty");
            fs::create_dir(&empty).expect("making a directory");
            let config = format!(
                "listen=YES\nlisten_address={}\nlisten_port={}\nbackground=NO\n\
                 anonymous_enable=YES\nlocal_enable=NO\nanon_root={}\nftp_username=daemon\n\
                 write_enable=YES\nanon_upload_enable=YES\nanon_mkdir_write_enable=YES\n\
                 anon_other_write_enable=YES\nanon_umask=022\nanon_world_readable_only=NO\n\
                 nopriv_user=nobody\nsecure_chroot_dir={}\nxferlog_enable=NO\ntcp_wrappers=NO\n\
                 seccomp_sandbox=NO\nisolate=NO\nisolate_network=NO\n{more}",
                addr.ip(),
                addr.port(),
                root.display(),
                empty.display()
            );
            let file = dir.join("vsftpd.conf");
            fs::write(&file, config).expect("writing the configuration");
            let mut vsftpd = Command::new(program("vsftpd"));
            vsftpd.arg(file);
            vec![vsftpd]
        })
    }

    pub fn pure_ftpd() -> Peer {
        Peer::pure_ftpd_with(&[])
    }

    /// It offers TLS.
    pub fn pure_ftpd_tls(pair: &Pair) -> Peer {
        let files = format!("{},{}", pair.cert().display(), pair.key().display());
        Peer::pure_ftpd_with(&["-Y", "1", "-2", &files])
    }

    fn pure_ftpd_with(more: &[&str]) -> Peer {
        Peer::start("Pure-FTPd", |addr, dir| {
            let socket = dir.join("accounts.sock");
            let accounts = dir.join("accounts");
            let root = dir.join("root");
            let script = format!(
                "#!/bin/sh\nprintf 'auth_ok:1\\nuid:65534\\ngid:65534\\ndir:{}/./\\nend\\n'\n",
                root.display()
            );
            fs::write(&accounts, script).expect("writing the script");
            permit(&accounts, 0o755);
            let mut authd = Command::new(program("pure-authd"));
            authd.arg("-s").arg(&socket).arg("-r").arg(accounts);
            let mut ftpd = Command::new(program("pure-ftpd"));
            ftpd.args(["-S", &format!("{},{}", addr.ip(), addr.port())])
                .args(["-4", "-E", "-H", "-c", "200", "-f", "none", "-u", "1", "-g"])
                .arg(dir.join("pid"))
                .arg("-l")
                .arg(format!("extauth:{}", socket.display()))
                .args(more);
            vec![authd, ftpd]
        })
    }

    pub fn proftpd() -> Peer {
        Peer::proftpd_with("")
    }

    /// It offers TLS, and wants data connections to resume the session of the control connection.
    pub fn proftpd_tls(pair: &Pair) -> Peer {
        Peer::proftpd_with(&format!(
            "LoadModule mod_tls.c\nTLSEngine on\nTLSRequired off\nTLSLog none\n\
             TLSECCertificateFile {}\nTLSECCertificateKeyFile {}\n",
            pair.cert().display(),
            pair.key().display()
        ))
    }

    fn proftpd_with(more: &str) -> Peer {
        Peer::start("ProFTPD", |addr, dir| {
            let program = program("proftpd");
            let usr = program.ancestors().nth(2).expect("usr/sbin/proftpd");
            let [users, groups] = ["users", "groups"].map(|name| dir.join(name));
            fs::write(&users, "ftp:*:65534:65534::/:/bin/false\n").expect("writing users");
            fs::write(&groups, "ftp:*:65534:\n").expect("writing groups");
            permit(&users, 0o600);
            permit(&groups, 0o600);
            let config = format!(
                "ModulePath {modules}\nServerType standalone\nServerName tests\n\
                 ServerIdent on ProFTPD\nDefaultAddress {ip}\nPort {port}\nSocketBindTight on\n\
                 UseIPv6 off\nUser nobody\nGroup nogroup\nPidFile {dir}/pid\n\
                 ScoreboardFile none\nDelayEngine off\nUseReverseDNS off\nWtmpLog off\n\
                 TransferLog none\nSystemLog {dir}/proftpd.log\nRequireValidShell off\n\
                 AuthOrder mod_auth_file.c\nAuthUserFile {users}\nAuthGroupFile {groups}\n\
                 Umask 022\nAllowOverwrite on\nAllowStoreRestart on\nAllowRetrieveRestart on\n\
                 {more}<Anonymous {dir}/root>\nUser ftp\nGroup ftp\nUserAlias anonymous ftp\n\
                 AnonRequirePassword off\n<Directory *>\n<Limit ALL>\nAllowAll\n</Limit>\n\
                 </Directory>\n</Anonymous>\n",
                modules = usr.join("lib/proftpd").display(),
                ip = addr.ip(),
                port = addr.port(),
                dir = dir.display(),
                users = users.display(),
                groups = groups.display(),
            );
            let file = dir.join("proftpd.conf");
            fs::write(&file, config).expect("writing the configuration");
            let mut proftpd = Command::new(program);
            proftpd.args(["-n", "-q", "-c"]).arg(file);
            vec![proftpd]
        })
    }

    pub fn pyftpdlib() -> Peer {
        Peer::pyftpdlib_with(&[])
    }

    /// It offers TLS.
    pub fn pyftpdlib_tls(pair: &Pair) -> Peer {
        Peer::pyftpdlib_with(&[&pair.cert(), &pair.key()])
    }

    fn pyftpdlib_with(pair: &[&Path]) -> Peer {
        Peer::start("pyftpdlib", |addr, dir| {
            // Not any Python on PATH: the package is that of the system's.
            let mut python = Command::new("/usr/bin/python3");
            python.args(["-c", PYFTPDLIB, &addr.ip().to_string()]);
            python.arg(addr.port().to_string()).arg(dir.join("root"));
            python.args(pair);
            vec![python]
        })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The directory that sessions see as `/pub` and may write in.
    pub fn public(&self) -> PathBuf {
        self.dir.path().join("root/pub")
    }

    /// Starts what `commands` gives for an address and a directory, the server last, and waits
    /// until one can log in. `name` is in the server's greeting.
    fn start(name: &str, commands: impl Fn(SocketAddr, &Path) -> Vec<Command>) -> Peer {
        // Between asking for a free port and using it somebody else can take it: then once more.
        let mut said = String::new();
        for _ in 0..5 {
            let dir = tempfile::tempdir().expect("making a directory to serve");
            // Servers drop their rights: then a directory that only its owner may enter is closed.
            permit(dir.path(), 0o755);
            let public = dir.path().join("root/pub");
            fs::create_dir_all(&public).expect("making a directory");
            permit(&public, 0o777);

            let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
            let addr = free.expect("a free port");
            let log = File::create(dir.path().join("log")).expect("making a log");
            let mut processes: Vec<Child> = Vec::new();
            for mut command in commands(addr, dir.path()) {
                let (out, err) = (log.try_clone().unwrap(), log.try_clone().unwrap());
                let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
                processes.push(child.unwrap_or_else(|e| panic!("{command:?}: {e}")));
            }
            let mut peer = Peer {
                processes,
                addr,
                dir,
            };
            match peer.await_login(name) {
                Ok(()) => return peer,
                Err(e) => said = e,
            }
        }
        panic!("{name} does not start (does it run as root?): {said}");
    }

    /// Err is what it said instead.
    fn await_login(&mut self, name: &str) -> Result<(), String> {
        let addr = self.addr;
        let server = self.processes.last_mut().expect("there is a server");
        let greeted = wait_for(PATIENCE, || {
            if let Ok(Some(status)) = server.try_wait() {
                return Some(Err(format!("it ended with {status}")));
            }
            let said = try_login(addr)?;
            if !said.contains(name) {
                return Some(Err(format!("another server answers: {said:?}")));
            }
            // pure-ftpd refuses everybody until its helper is up.
            said.contains("\n230 ").then_some(Ok(()))
        });
        greeted
            .unwrap_or_else(|| Err("nobody can log in".to_owned()))
            .map_err(|e| {
                let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                format!("{e}\n{log}")
            })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// What a server says to somebody who logs in and leaves.
fn try_login(addr: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&addr, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream
        .write_all(b"USER anonymous\r\nPASS tests@haul\r\nQUIT\r\n")
        .ok()?;
    let mut said = Vec::new();
    stream.read_to_end(&mut said).ok()?;
    Some(String::from_utf8_lossy(&said).into_owned())
}

/// Where tests/run unpacked a server, or where its package installs it.
fn program(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_hauld"))
        .ancestors()
        .nth(2)
        .expect("target/*/hauld");
    let places = [
        &target.join("peers/usr"),
        Path::new("/usr"),
        Path::new("/usr/local"),
    ];
    let found = places
        .iter()
        .map(|place| place.join("sbin").join(name))
        .find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is missing: tests/run unpacks it"))
}

fn permit(path: &Path, mode: u32) {
    let permissions = fs::Permissions::from_mode(mode);
    fs::set_permissions(path, permissions).expect("setting permissions");
}
