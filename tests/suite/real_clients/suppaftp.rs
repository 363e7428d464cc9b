//! The crate `suppaftp`, which parses replies more strictly than most.

use std::fs::File;
use std::io::{Cursor, Read};
use std::net::SocketAddr;
use std::time::Duration;

use suppaftp::list::ListParser;
use suppaftp::types::{FileType, Mode};
use suppaftp::{FtpError, FtpStream, Status};

use crate::common::PATIENCE;
use crate::common::content::{SIZES, assert_same, bytes};
use crate::common::server::{Server, four_questions};

fn login(server: SocketAddr) -> FtpStream {
    let mut ftp = FtpStream::connect_timeout(server, PATIENCE).expect("connecting");
    ftp.get_ref()
        .set_read_timeout(Some(PATIENCE))
        .expect("setting a timeout");
    ftp.login("anonymous", "tests@haul").expect("logging in");
    ftp.transfer_type(FileType::Binary).expect("TYPE I");
    ftp
}

#[track_caller]
fn refused<T>(outcome: Result<T, FtpError>, status: Status) {
    match outcome {
        Err(FtpError::UnexpectedResponse(response)) => assert_eq!(response.status, status),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("not refused"),
    }
}

fn moves_every_size(mode: Mode, listen: &str) {
    let server = Server::start_at(listen, &[]);
    let baseline = server.baseline();
    let mut ftp = login(server.addr());
    ftp.set_mode(mode);
    for size in SIZES {
        let content = bytes(size as u64, size);
        let sent = ftp.put_file("f", &mut Cursor::new(&content)).expect("STOR");
        assert_eq!(sent, size as u64);
        assert_eq!(ftp.size("f").expect("SIZE"), size);
        let got = ftp.retr_as_buffer("f").expect("RETR").into_inner();
        assert_same(&got, &content, &format!("{size} bytes"));
    }
    ftp.quit().expect("QUIT");
    four_questions(&server, baseline);
}

#[test]
fn moves_every_size_by_epsv() {
    moves_every_size(Mode::ExtendedPassive, "127.0.0.1:0");
}

#[test]
fn moves_every_size_by_pasv() {
    moves_every_size(Mode::Passive, "127.0.0.1:0");
}

#[test]
fn moves_every_size_actively() {
    moves_every_size(Mode::Active, "127.0.0.1:0");
}

#[test]
fn moves_every_size_over_ipv6() {
    moves_every_size(Mode::ExtendedPassive, "[::1]:0");
}

#[test]
fn lists_as_the_crate_parses() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let mut ftp = login(server.addr());
    ftp.mkdir("dir").expect("MKD");
    ftp.put_file("file with space", &mut Cursor::new(b"12345"))
        .expect("STOR");

    type Parse = fn(&str) -> Result<suppaftp::list::File, suppaftp::list::ParseError>;
    let by_list = (
        ftp.list(None).expect("LIST"),
        ListParser::parse_posix as Parse,
    );
    let by_mlsd = (
        ftp.mlsd(None).expect("MLSD"),
        ListParser::parse_mlsd as Parse,
    );
    for (lines, parse) in [by_list, by_mlsd] {
        let parsed = lines
            .iter()
            .map(|line| parse(line).unwrap_or_else(|e| panic!("{line}: {e}")));
        let mut entries: Vec<_> = parsed
            .filter(|entry| ![".", "..", "/"].contains(&entry.name()))
            .map(|entry| (entry.name().to_owned(), entry.is_directory(), entry.size()))
            .collect();
        entries.sort();
        assert_eq!(entries.len(), 2, "{lines:?}");
        assert_eq!((entries[0].0.as_str(), entries[0].1), ("dir", true));
        assert_eq!(entries[1], ("file with space".to_owned(), false, 5));
    }
    let mut names = ftp.nlst(None).expect("NLST");
    names.sort();
    assert_eq!(names, ["dir", "file with space"]);
    let facts = ftp.mlst(Some("file with space")).expect("MLST");
    assert_eq!(ListParser::parse_mlst(&facts).expect("facts").size(), 5);
    ftp.mdtm("file with space").expect("MDTM");
    assert!(ftp.feat().expect("FEAT").contains_key("UTF8"));
    ftp.opts("UTF8", Some("ON")).expect("OPTS");
    four_questions(&server, baseline + 1);
    ftp.quit().expect("QUIT");
    four_questions(&server, baseline);
}

#[test]
fn continues_appends_aborts_and_changes() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let mut ftp = login(server.addr());
    let content = bytes(1, 8 << 20);
    ftp.put_file("f", &mut Cursor::new(&content)).expect("STOR");

    ftp.resume_transfer(8_000_000).expect("REST");
    let rest = ftp.retr_as_buffer("f").expect("RETR").into_inner();
    assert_same(&rest, &content[8_000_000..], "the rest");

    ftp.append_file("f", &mut Cursor::new(b"tail"))
        .expect("APPE");
    assert_eq!(ftp.size("f").expect("SIZE"), content.len() + 4);

    // More than what the kernel holds, or there would be nothing left to abort.
    File::create(server.path("long"))
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    let mut transfer = ftp.retr_as_stream("long").expect("RETR");
    transfer.read_exact(&mut [0; 1000]).expect("the beginning");
    ftp.abort(transfer).expect("ABOR");
    ftp.noop().expect("NOOP behind ABOR");

    ftp.mkdir("d").expect("MKD");
    ftp.rename("f", "d/g").expect("RNFR, RNTO");
    ftp.cwd("d").expect("CWD");
    assert_eq!(ftp.pwd().expect("PWD"), "/d");
    ftp.rm("g").expect("DELE");
    ftp.cdup().expect("CDUP");
    ftp.rmdir("d").expect("RMD");
    refused(ftp.size("d/g"), Status::FileUnavailable);
    refused(ftp.retr_as_buffer("nothing"), Status::FileUnavailable);
    refused(
        ftp.put_file("no/such/f", &mut Cursor::new(b"x")),
        Status::FileUnavailable,
    );
    ftp.noop().expect("NOOP");
    ftp.quit().expect("QUIT");
    four_questions(&server, baseline);
}

#[test]
fn a_slow_reader_gets_every_byte() {
    let server = Server::start(&[]);
    let baseline = server.baseline();
    let mut ftp = login(server.addr());
    let content = bytes(2, 10 << 20);
    std::fs::write(server.path("f"), &content).unwrap();
    let got = ftp.retr("f", |reader| {
        let (mut got, mut chunk) = (Vec::new(), vec![0; 1 << 20]);
        loop {
            // Long enough for the server to fill what the kernel holds and be told to wait.
            std::thread::sleep(Duration::from_millis(2));
            match reader.read(&mut chunk).map_err(FtpError::ConnectionError)? {
                0 => return Ok(got),
                n => got.extend_from_slice(&chunk[..n]),
            }
        }
    });
    assert_same(&got.expect("RETR"), &content, "a slow download");
    ftp.quit().expect("QUIT");
    four_questions(&server, baseline);
}
