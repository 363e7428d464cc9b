//! `haul` without a command, on a pseudo terminal.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;

use crate::common::PATIENCE;
use crate::common::server::Server;
use crate::common::tools::run;

/// Serves a file that never ends, says so through the FIFO, and takes what comes on the next
/// connection.
fn fake(listener: &TcpListener, begun: &std::path::Path) -> Vec<String> {
    let mut heard = Vec::new();
    for connection in 0..2 {
        let (mut stream, _) = listener.accept().expect("a client");
        stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        let mut lines = BufReader::new(stream.try_clone().expect("a second handle")).lines();
        let mut say = |reply: &str| write!(stream, "{reply}\r\n");
        say("220 ready").expect("the greeting");
        while let Some(Ok(line)) = lines.next() {
            let verb = line.split(' ').next().unwrap_or_default();
            let reply = match verb {
                "USER" => "230 in",
                "FEAT" => "211-these\r\n DOWNLOAD\r\n UPLOAD\r\n SIZE\r\n211 end",
                "CWD" | "TYPE" => "250 yes",
                "PWD" => "257 \"/sub\"",
                "MKD" => "257 made",
                "QUIT" => "221 bye",
                "SIZE" => "213 1000000",
                "DOWNLOAD" => "150 1000000 bytes follow",
                _ => "502 no",
            };
            heard.push(format!("{connection} {line}"));
            say(reply).expect("a reply");
            if verb == "DOWNLOAD" {
                say(&"x".repeat(1000)).expect("the beginning of the file");
                fs::write(begun, b"begun").expect("telling");
            }
        }
    }
    heard
}

#[test]
fn the_prompt_completes_remembers_and_survives_ctrl_c() {
    let server = Server::start(&[]);
    fs::create_dir(server.path("photos")).expect("a directory");
    fs::write(server.path("photos/summer trip.txt"), "trip").expect("a file");
    let (home, dir) = (tempfile::tempdir(), tempfile::tempdir());
    let (home, dir) = (home.expect("a directory"), dir.expect("a directory"));
    fs::write(dir.path().join("local file.txt"), "local").expect("a file");
    let begun = dir.path().join("begun");
    run(Command::new("mkfifo").arg(&begun)).ok();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let fake = std::thread::spawn(move || fake(&listener, &begun));
    let mut command = Command::new("python3");
    command
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/suite/prompt.py"
        ))
        .arg(env!("CARGO_BIN_EXE_haul"))
        .arg(server.addr().to_string())
        .args([home.path(), dir.path()])
        .arg(address.to_string());
    run(&mut command).ok();
    let heard = fake.join().expect("the fake server");
    for line in [
        "0 CWD sub",
        "0 DOWNLOAD endless",
        "1 CWD /sub",
        "1 EPSV",
        "1 MKD here",
        "1 QUIT",
    ] {
        assert!(heard.iter().any(|it| it == line), "{line}: {heard:#?}");
    }
    assert!(server.path("local file.txt").is_file());
    assert!(dir.path().join("summer trip.txt").is_file());
}
