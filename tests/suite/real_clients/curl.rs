//! curl: every size, every odd name, and the options that change which verbs it sends.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use crate::common::content::{Blocks, MIB, ODD_NAMES, SIZES, assert_file, assert_same, bytes};
use crate::common::server::{Server, four_questions};
use crate::common::tools::{Done, curl, curl_command, finish, run_with, start};

fn url(server: &Server, path: &str) -> String {
    format!("ftp://{}/{path}", server.addr())
}

/// Every byte but letters and digits as %xx, so that curl's own ideas of a URL play no part.
fn escape(name: &[u8]) -> String {
    let escape = |&byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => (byte as char).to_string(),
        _ => format!("%{byte:02x}"),
    };
    name.iter().map(escape).collect()
}

fn upload(server: &Server, path: &str, content: &[u8], options: &[&str]) -> Done {
    let mut args = vec!["-T", "-"];
    let url = url(server, path);
    args.extend(options);
    args.push(&url);
    run_with(&mut curl_command(&args), content)
}

fn download(server: &Server, path: &str, options: &[&str]) -> Done {
    let url = url(server, path);
    curl(&[options, &[&url]].concat())
}

#[test]
fn every_size_goes_up_and_down() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let local = tempfile::tempdir().unwrap();
    for size in SIZES {
        let name = format!("size-{size}");
        let content = bytes(size as u64, size);
        let file = local.path().join(&name);
        fs::write(&file, &content).unwrap();
        curl(&[OsStr::new("-T"), file.as_ref(), url(&server, "").as_ref()]).ok();
        assert_file(&server.path(&name), &content);

        let copy = local.path().join("copy");
        curl(&[
            OsStr::new("-o"),
            copy.as_ref(),
            url(&server, &name).as_ref(),
        ])
        .ok();
        if size == 0 {
            // curl does not always make a file for an empty download.
            assert_eq!(fs::read(&copy).unwrap_or_default(), b"");
        } else {
            assert_file(&copy, &content);
        }
        let _ = fs::remove_file(copy);
    }
    four_questions(&server, baseline);
}

#[test]
fn one_gib_goes_up_and_down() {
    const COUNT: usize = 1024;
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let url = url(&server, "gib");

    let mut command = curl_command(&["-T", "-", &url]);
    let mut up = start(command.stdin(Stdio::piped()));
    let mut stdin = up.stdin.take().unwrap();
    let mut blocks = Blocks::new(7);
    for _ in 0..COUNT {
        stdin
            .write_all(blocks.next())
            .expect("curl reads its input");
    }
    drop(stdin);
    let (status, errors) = finish(up, &command);
    assert!(status.success(), "upload: {status} {errors}");
    assert_eq!(
        fs::metadata(server.path("gib")).unwrap().len(),
        (COUNT * MIB) as u64
    );

    let mut command = curl_command(&[&url]);
    let mut down = start(command.stdout(Stdio::piped()));
    let mut stdout = down.stdout.take().unwrap();
    let (mut blocks, mut got) = (Blocks::new(7), vec![0; MIB]);
    for i in 0..COUNT {
        stdout
            .read_exact(&mut got)
            .unwrap_or_else(|e| panic!("block {i} of {COUNT}: {e}"));
        assert_same(&got, blocks.next(), &format!("block {i}"));
    }
    assert_eq!(
        stdout.read(&mut got).unwrap(),
        0,
        "nothing comes behind the file"
    );
    let (status, errors) = finish(down, &command);
    assert!(status.success(), "download: {status} {errors}");
    four_questions(&server, baseline);
}

#[test]
fn odd_names_come_and_go_byte_by_byte() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let long = [b'n'; 255];
    // curl does not double an FF (Telnet), so two of them would be one.
    let not_utf8: [&[u8]; 3] = [b"\xff\xfe", b"caf\xe9", b"\xc3\x28 \xf0\x9f\x9a"];
    let names = ODD_NAMES.iter().map(|name| name.as_bytes());
    for name in names.chain(not_utf8).chain([long.as_slice()]) {
        let content = [b"content of ", name].concat();
        let path = escape(name);
        upload(&server, &path, &content, &[]).ok();
        assert_file(&server.path("").join(OsStr::from_bytes(name)), &content);
        assert_same(&download(&server, &path, &[]).ok().stdout, &content, &path);

        let listed = download(&server, "", &["--list-only"]).ok().stdout;
        let mut lines = listed
            .split(|&byte| byte == b'\n')
            .map(|line| line.trim_suffix_cr());
        // On the wire a byte FF in a name is doubled.
        let wire: Vec<u8> = name
            .iter()
            .flat_map(|&b| vec![b; 1 + usize::from(b == 255)])
            .collect();
        let there = lines.any(|line| line == name || line == wire);
        assert!(there, "{path} in {}", listed.escape_ascii());
    }
    let too_long = "n".repeat(256);
    upload(&server, &too_long, b"x", &[]).expect(25);
    four_questions(&server, baseline);
}

trait TrimCr {
    fn trim_suffix_cr(&self) -> &[u8];
}

impl TrimCr for [u8] {
    fn trim_suffix_cr(&self) -> &[u8] {
        self.strip_suffix(b"\r").unwrap_or(self)
    }
}

#[test]
fn downloads_resume_and_ranges_are_exact() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let content = bytes(3, 300_000);
    fs::write(server.path("f"), &content).unwrap();
    let local = tempfile::tempdir().unwrap();
    let part = local.path().join("part");
    for have in [1, 65_536, 299_999, 300_000] {
        fs::write(&part, &content[..have]).unwrap();
        let resume = ["-C", "-", "-o"].map(OsStr::new);
        let url = OsString::from(url(&server, "f"));
        curl(&[&resume[..], &[part.as_ref(), &url]].concat()).ok();
        assert_file(&part, &content);
    }
    for (range, expected) in [
        ("0-0", 0..1),
        ("10-19", 10..20),
        ("65535-65536", 65_535..65_537),
        ("299990-", 299_990..300_000),
        ("-5", 299_995..300_000),
    ] {
        let got = download(&server, "f", &["-r", range]).ok().stdout;
        assert_same(&got, &content[expected], range);
    }
    // A REST past the end shows at RETR: 36 is "bad download resume".
    download(&server, "f", &["-C", "300001"]).expect(36);
    four_questions(&server, baseline);
}

#[test]
fn uploads_resume_and_append() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let content = bytes(4, 200_000);
    let local = tempfile::tempdir().unwrap();
    let file = local.path().join("f");
    fs::write(&file, &content).unwrap();
    for have in [0, 1, 100_000, 199_999, 200_000] {
        fs::write(server.path("f"), &content[..have]).unwrap();
        let resume = ["-C", "-", "-T"].map(OsStr::new);
        let url = OsString::from(url(&server, "f"));
        curl(&[&resume[..], &[file.as_ref(), &url]].concat()).ok();
        assert_file(&server.path("f"), &content);
    }
    upload(&server, "a", b"one ", &["--append"]).ok();
    upload(&server, "a", b"two", &["--append"]).ok();
    assert_file(&server.path("a"), b"one two");
    four_questions(&server, baseline);
}

#[test]
fn every_way_to_make_a_data_connection_works() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let content = bytes(5, 100_000);
    let passive_only_pasv: &[&str] = &["--disable-epsv"];
    let active_eprt: &[&str] = &["-P", "127.0.0.1"];
    let active_port: &[&str] = &["-P", "127.0.0.1", "--disable-eprt"];
    for (i, options) in [&[], passive_only_pasv, active_eprt, active_port]
        .into_iter()
        .enumerate()
    {
        let name = format!("f{i}");
        upload(&server, &name, &content, options).ok();
        assert_file(&server.path(&name), &content);
        let got = download(&server, &name, options).ok().stdout;
        assert_same(&got, &content, &format!("{options:?}"));
        let listed = download(&server, "", options).ok().stdout_text();
        assert!(listed.contains(&name), "{options:?}: {listed}");
    }
    four_questions(&server, baseline);
}

#[test]
fn ipv6_works_passive_and_active() {
    let server = Server::start_at("[::1]:0", &[]);
    let baseline = server.baseline();
    let content = bytes(6, 100_000);
    for (name, options) in [("passive", vec![]), ("active", vec!["-P", "::1"])] {
        upload(&server, name, &content, &options).ok();
        assert_file(&server.path(name), &content);
        assert_same(
            &download(&server, name, &options).ok().stdout,
            &content,
            name,
        );
    }
    four_questions(&server, baseline);
}

#[test]
fn many_files_go_over_one_session_and_over_many() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let local = tempfile::tempdir().unwrap();
    let content = |i: usize| bytes(i as u64, i * 997);
    for i in 0..40 {
        fs::write(local.path().join(format!("f{i}")), content(i)).unwrap();
    }
    let all = format!("{}/f[0-39]", local.path().display());
    let done = curl(&["-v", "-T", &all, &url(&server, "")]).ok();
    assert_eq!(
        done.stderr.matches("< 230").count(),
        1,
        "one login for all of them"
    );
    for i in 0..40 {
        assert_file(&server.path(&format!("f{i}")), &content(i));
    }

    for parallel in [&[][..], &["--parallel"][..]] {
        let copies = tempfile::tempdir().unwrap();
        let to = format!("{}/#1", copies.path().display());
        let from = url(&server, "f[0-39]");
        curl(&[parallel, &["-o", &to, &from]].concat()).ok();
        for i in 1..40 {
            assert_file(&copies.path().join(i.to_string()), &content(i));
        }
    }
    four_questions(&server, baseline);
}

#[test]
fn each_ftp_method_finds_its_way() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    for method in ["multicwd", "nocwd", "singlecwd"] {
        let path = format!("{method}/deep/er/f");
        if method != "multicwd" {
            // curl makes a directory when it cannot enter it: none here, or only the last.
            fs::create_dir_all(server.path(&format!("{method}/deep"))).unwrap();
        }
        if method == "nocwd" {
            fs::create_dir(server.path("nocwd/deep/er")).unwrap();
        }
        let options = ["--ftp-method", method, "--ftp-create-dirs"];
        upload(&server, &path, method.as_bytes(), &options).ok();
        assert_file(&server.path(&path), method.as_bytes());
        let got = download(&server, &path, &options).ok().stdout;
        assert_same(&got, method.as_bytes(), method);
        // An absolute path, as curl writes it.
        let got = download(&server, &format!("%2f{path}"), &options)
            .ok()
            .stdout;
        assert_same(&got, method.as_bytes(), method);
        let listed = download(&server, &format!("{method}/deep/"), &options)
            .ok()
            .stdout_text();
        assert!(
            listed.starts_with('d') && listed.trim_end().ends_with(" er"),
            "{listed:?}"
        );
    }
    four_questions(&server, baseline);
}

#[test]
fn quoted_commands_run_before_and_after() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    fs::write(server.path("old"), "content").unwrap();
    fs::write(server.path("gone"), "content").unwrap();
    let commands = [
        "MKD made",
        "RNFR old",
        "RNTO made/new",
        "DELE gone",
        "SITE CHMOD 600 made/new",
        "MFMT 20200102030405 made/new",
        "MKD removed",
        "RMD removed",
    ];
    let quoted: Vec<&str> = commands
        .iter()
        .flat_map(|command| ["-Q", command])
        .collect();
    let got = download(
        &server,
        "made/new",
        &[&quoted[..], &["-Q", "-NOOP"]].concat(),
    );
    assert_same(&got.ok().stdout, b"content", "the renamed file");
    assert!(!server.path("old").exists() && !server.path("gone").exists());
    assert!(!server.path("removed").exists());
    // A refused command ends it: 21 is "quote error".
    download(&server, "made/new", &["-Q", "DELE nothing"]).expect(21);
    four_questions(&server, baseline);
}

#[test]
fn size_and_time_of_a_file_are_told() {
    let server = Server::start(&[]);
    fs::write(server.path("f"), bytes(8, 12_345)).unwrap();
    // 2020-01-02 03:04:05 UTC
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_934_245);
    fs::File::options()
        .write(true)
        .open(server.path("f"))
        .unwrap()
        .set_modified(time)
        .unwrap();

    let head = download(&server, "f", &["-I"]).ok().stdout_text();
    assert!(head.contains("Content-Length: 12345"), "{head}");
    assert!(
        head.contains("Last-Modified: Thu, 02 Jan 2020 03:04:05 GMT"),
        "{head}"
    );

    let local = tempfile::tempdir().unwrap();
    let copy = local.path().join("f");
    let keep_time = [OsStr::new("-R"), OsStr::new("-o"), copy.as_ref()];
    curl(&[&keep_time[..], &[url(&server, "f").as_ref()]].concat()).ok();
    assert_eq!(fs::metadata(&copy).unwrap().modified().unwrap(), time);

    let newer = download(&server, "f", &["-z", "1 Jan 2021"]).ok();
    assert_same(&newer.stdout, b"", "a file that is older than asked for");
}

#[test]
fn ascii_transfers_carry_crlf() {
    let server = Server::start(&[]);
    fs::write(server.path("text"), "one\ntwo\n").unwrap();
    // Depending on its build, curl turns CRLF back into LF.
    let got = download(&server, "text;type=a", &[]).ok().stdout_text();
    assert_eq!(got.replace('\r', ""), "one\ntwo\n");
    upload(&server, "stored;type=a", b"one\ntwo\n", &["--crlf"]).ok();
    assert_file(&server.path("stored"), b"one\ntwo\n");
}

#[test]
fn refusals_are_what_curl_understands() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    fs::create_dir(server.path("dir")).unwrap();
    const ACCESS_DENIED: i32 = 9;
    const UPLOAD_REFUSED: i32 = 25;
    const NO_SUCH_FILE: i32 = 78;
    download(&server, "nothing", &[]).expect(NO_SUCH_FILE);
    download(&server, "dir", &[]).expect(NO_SUCH_FILE);
    download(&server, "no/such/dir/f", &[]).expect(ACCESS_DENIED);
    upload(&server, "no/such/dir/f", b"x", &[]).expect(ACCESS_DENIED);
    upload(&server, "dir", b"x", &[]).expect(UPLOAD_REFUSED);
    assert!(fs::read_dir(server.path("dir")).unwrap().next().is_none());
    four_questions(&server, baseline);
}

#[test]
fn who_may_only_read_cannot_write() {
    let server = Server::start(&["--anonymous", "read"]);
    fs::write(server.path("f"), "content").unwrap();
    assert_same(
        &download(&server, "f", &[]).ok().stdout,
        b"content",
        "reading",
    );
    const UPLOAD_REFUSED: i32 = 25;
    upload(&server, "new", b"x", &[]).expect(UPLOAD_REFUSED);
    upload(&server, "f", b"x", &[]).expect(UPLOAD_REFUSED);
    assert_eq!(entries(server.root()), ["f"]);
    assert_file(&server.path("f"), b"content");

    let nobody = Server::start(&["--anonymous", "none"]);
    const LOGIN_DENIED: i32 = 67;
    download(&nobody, "", &[]).expect(LOGIN_DENIED);
}

fn entries(directory: &Path) -> Vec<OsString> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect()
}
