//! curl, lftp, Python and openssl.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use super::secure;
use crate::common::content::{SIZES, assert_file, assert_same, bytes};
use crate::common::server::{Server, four_questions};
use crate::common::tools::{curl, run, run_with};

const TLS_1_2: [&str; 3] = ["--tlsv1.2", "--tls-max", "1.2"];
const TLS_1_3: [&str; 1] = ["--tlsv1.3"];

fn url(server: &Server, path: &str) -> String {
    format!("ftp://127.0.0.1:{}/{path}", server.addr().port())
}

#[test]
fn curl_moves_every_size() {
    let (server, pair) = secure(&[]);
    let baseline = server.baseline();
    let local = tempfile::tempdir().unwrap();
    let cert = pair.cert();
    let trust = [
        OsStr::new("--ssl-reqd"),
        OsStr::new("--cacert"),
        cert.as_ref(),
    ];
    for version in [&TLS_1_3[..], &TLS_1_2] {
        let version: Vec<&OsStr> = version.iter().map(OsStr::new).collect();
        for control_only in [false, true] {
            let options = [&trust[..], &version].concat();
            let clear = [OsStr::new("--ftp-ssl-control")];
            let options = [&options, &clear[..usize::from(control_only)]].concat();
            for size in SIZES {
                let content = bytes(size as u64, size);
                let (file, copy) = (local.path().join("f"), local.path().join("copy"));
                fs::write(&file, &content).unwrap();
                let url = url(&server, "f");
                let up = [OsStr::new("-T"), file.as_ref(), url.as_ref()];
                curl(&[&options, &up[..]].concat()).ok();
                assert_file(&server.path("f"), &content);
                let down = [OsStr::new("-o"), copy.as_ref(), url.as_ref()];
                curl(&[&options, &down[..]].concat()).ok();
                assert_same(&fs::read(&copy).unwrap_or_default(), &content, "down");
                let _ = fs::remove_file(&copy);
            }
            let here = url(&server, "");
            let listed = curl(&[&options, &[OsStr::new(&here)][..]].concat()).ok();
            assert!(listed.stdout_text().contains(" f"), "{listed:?}");
        }
    }
    four_questions(&server, baseline);
}

#[test]
fn curl_loses_no_tail_in_a_hundred_uploads() {
    let (server, _pair) = secure(&["--tls", "required"]);
    let local = tempfile::tempdir().unwrap();
    for i in 0..100 {
        fs::write(
            local.path().join(format!("f{i}")),
            bytes(i, 40_000 + i as usize * 97),
        )
        .unwrap();
    }
    let all = format!("{}/f[0-99]", local.path().display());
    let done = curl(&[
        "-k",
        "-v",
        "--ssl-reqd",
        "--tlsv1.3",
        "-T",
        &all,
        &url(&server, ""),
    ])
    .ok();
    assert_eq!(done.stderr.matches("< 230").count(), 1, "one session");
    for i in 0..100 {
        let content = bytes(i, 40_000 + i as usize * 97);
        assert_file(&server.path(&format!("f{i}")), &content);
    }
    assert!(!server.log().contains(" 426"));
}

#[test]
fn lftp_mirrors_both_ways() {
    let (server, _pair) = secure(&["--tls", "required"]);
    let local = tempfile::tempdir().unwrap();
    let (from, back) = (local.path().join("from"), local.path().join("back"));
    fs::create_dir(&from).unwrap();
    for i in 0..100 {
        fs::write(from.join(format!("f{i}")), bytes(i, i as usize * 997)).unwrap();
    }
    let script = format!(
        "set net:max-retries 1; set ssl:verify-certificate no; set ftp:ssl-allow-anonymous yes; \
         set ftp:ssl-force yes; set ftp:ssl-protect-data yes; set ftp:ssl-protect-list yes; \
         open {}; mirror -R {} up; mirror up {}",
        server.addr(),
        from.display(),
        back.display()
    );
    run(Command::new("lftp").args(["--norc", "-c", &script])).ok();
    for i in 0..100 {
        let content = bytes(i, i as usize * 997);
        assert_file(&server.path(&format!("up/f{i}")), &content);
        assert_file(&back.join(format!("f{i}")), &content);
    }
}

/// `reuse`: each data connection resumes the control session, as FileZilla and others do it.
const PYTHON: &str = r#"
import ftplib, io, ssl, sys
port, reuse, rounds = int(sys.argv[1]), sys.argv[2] == 'reuse', int(sys.argv[3])
class Client(ftplib.FTP_TLS):
    def ntransfercmd(self, cmd, rest=None):
        conn, size = ftplib.FTP.ntransfercmd(self, cmd, rest)
        if self._prot_p:
            session = self.sock.session if reuse else None
            conn = self.context.wrap_socket(conn, server_hostname=self.host, session=session)
            assert conn.session_reused == reuse, conn.session_reused
        return conn, size
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
if len(sys.argv) > 4:
    context.maximum_version = ssl.TLSVersion.TLSv1_2
ftp = Client(context=context)
ftp.connect('127.0.0.1', port, timeout=20)
ftp.login()
ftp.prot_p()
for i in range(rounds):
    content = bytes([i & 255, i >> 8]) * (i * 17)
    assert ftp.storbinary('STOR p', io.BytesIO(content)).startswith('226')
    got = io.BytesIO()
    assert ftp.retrbinary('RETR p', got.write).startswith('226')
    assert got.getvalue() == content, i
    assert [facts['size'] for name, facts in ftp.mlsd() if name == 'p'] == [str(len(content))]
ftp.prot_c()
reuse = False
ftp.retrbinary('RETR p', got.write)
ftp.quit()
"#;

fn python(server: &Server, args: &[&str]) {
    let mut command = Command::new("python3");
    command
        .args(["-", &server.addr().port().to_string()])
        .args(args);
    run_with(&mut command, PYTHON.as_bytes()).ok();
}

#[test]
fn t12_python_makes_three_hundred_data_connections_in_one_session() {
    let (server, _pair) = secure(&[]);
    let baseline = server.baseline();
    python(&server, &["full", "100"]);
    python(&server, &["reuse", "100"]);
    python(&server, &["reuse", "100", "1.2"]);
    four_questions(&server, baseline);
}

#[test]
fn t12_a_ticket_is_good_as_often_as_it_comes_also_where_it_has_to() {
    let (server, _pair) = secure(&["--tls-reuse", "require"]);
    python(&server, &["reuse", "100"]);
}

fn s_client(server: &Server) -> Command {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-starttls", "ftp", "-crlf", "-connect"]);
    command.arg(server.addr().to_string());
    command
}

fn openssl(server: &Server, args: &[&str], input: &[u8]) -> String {
    let done = run_with(s_client(server).args(args), input);
    done.stdout_text() + &done.stderr
}

#[test]
fn openssl_speaks_both_versions_and_resumes() {
    let (server, _pair) = secure(&[]);
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("session");
    let session = session.to_str().unwrap();
    for (option, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let mut command = s_client(&server);
        command.args([option, "-ign_eof", "-sess_out", session]);
        // The ticket of TLS 1.3 comes behind the handshake: the session must last until then.
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starting openssl");
        child
            .stdin
            .take()
            .unwrap()
            .write_all(b"SYST\nQUIT\n")
            .unwrap();
        let said = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains(name) && said.contains("215 UNIX"), "{said}");
        // Another control connection is another session: the ticket is taken for none.
        let said = openssl(
            &server,
            &[option, "-ign_eof", "-sess_in", session],
            b"QUIT\n",
        );
        assert!(said.contains("New, TLS") && said.contains("221 "), "{said}");
    }
}

#[test]
fn t05_what_is_too_old_is_refused() {
    let (server, _pair) = secure(&[]);
    let baseline = server.baseline();
    let old = ["-tls1", "-tls1_1"].map(|version| vec![version, "-cipher", "ALL@SECLEVEL=0"]);
    let weak = [
        "AES128-SHA",
        "ECDHE-ECDSA-AES128-SHA256",
        "AES128-GCM-SHA256",
    ];
    let weak = weak.map(|cipher| vec!["-tls1_2", "-cipher", cipher]);
    for options in old.iter().chain(&weak) {
        let said = openssl(&server, options, b"SYST\n");
        assert!(said.contains("alert"), "{options:?}: {said}");
        assert!(!said.contains("215 UNIX"), "{options:?}: {said}");
    }
    // R asks for another handshake.
    let said = openssl(&server, &["-tls1_2"], b"R\n");
    assert!(!said.contains("RENEGOTIATING\ndepth"), "{said}");
    four_questions(&server, baseline);
}
