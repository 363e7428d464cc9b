//! What a download does to the files of this machine (L16).

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::client::*;
use crate::talk::*;
use crate::{OWN_VERBS, PATIENCE, until};

#[test]
fn l16_a_local_file_is_never_overwritten_unasked() {
    let dir = dir();
    fs::write(dir.path().join("file"), "old").unwrap();
    fs::create_dir_all(dir.path().join("sub/file")).unwrap();
    let listener = listener();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    for (case, says) in [
        (&["download", "x/file"][..], "--force"),
        (&["download", "x", "file"], "--force"),
        (&["download", "file", "sub"], "a directory of that name"),
        (
            &["download", "--force", "file", "sub/"],
            "a directory of that name",
        ),
        (&["download", "a", "b", "file"], "no directory"),
        (&["download", "a", "none/"], "no directory"),
        (&["download", "a", "none/a"], "cannot create a file there"),
        (&["download", "a", "/dev/null"], "--force"),
        (&["download", "--force", "a", "/dev/null"], "device"),
        (&["upload", "none"], "No such file"),
    ] {
        haul(address, dir.path(), case).check(7, says);
        assert!(listener.accept().is_err(), "{case:?} connected");
    }
    for case in [["upload", "--json", "none"], ["download", "--json", "file"]] {
        let outcome = haul(address, dir.path(), &case);
        outcome.check(7, "");
        let told: serde_json::Value = serde_json::from_slice(&outcome.out).unwrap();
        assert_eq!(
            (&told["result"], &told["exit"]),
            (&"failed".into(), &7.into())
        );
    }
    haul(address, dir.path(), &["upload", "sub"]).check(2, "-r sends it with all that is in it");
    haul(address, dir.path(), &["download", "x/.."]).check(2, "no file name");
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"old");
    assert_eq!(names(dir.path()), ["file", "sub"]);
}

#[test]
fn l16_a_directory_that_cannot_be_written_says_so() {
    // Not even root can write there.
    let arguments = ["download", "file", "/proc/file"];
    let (outcome, _) = play(dir().path(), &arguments, |talk| {
        talk.login(OWN_VERBS);
        talk.answer("DOWNLOAD file", "150 5 bytes follow.");
        talk.say_bytes(b"12345226 5 bytes sent.\r\n");
        talk.rest();
    });
    outcome.check(7, "cannot create a file there");
}

#[test]
fn l16_a_full_disk_says_so() {
    let fake = serve(|talk| {
        talk.login(OWN_VERBS);
        talk.answer("DOWNLOAD file", "150 5 bytes follow.");
        talk.say_bytes(b"12345226 5 bytes sent.\r\n");
        talk.rest();
    });
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut command = haul_command(fake.address, dir().path());
    command
        .args(["download", "file", "-"])
        .stdout(full)
        .current_dir("/");
    finish(command, b"").check(10, "no space left on this machine");
    fake.thread.join().unwrap();
}

/// Sends `signal` to a download in the middle of its body, and gives its end.
fn interrupted(signal: &str, shell: &str) -> std::process::ExitStatus {
    let dir = dir();
    fs::write(dir.path().join("file"), "old").unwrap();
    let (arrived, middle) = std::sync::mpsc::channel();
    let (go_on, resumed) = std::sync::mpsc::channel::<()>();
    let fake = serve(move |talk| {
        talk.login(OWN_VERBS);
        talk.answer("DOWNLOAD file", "150 10 bytes follow.");
        talk.say_bytes(b"12345");
        arrived.send(()).unwrap();
        // A client that does not end for the signal gets the rest.
        let _ = resumed.recv_timeout(Duration::from_secs(1));
        talk.say_bytes(b"67890226 10 bytes sent.\r\n");
        talk.rest();
    });
    // Whoever started the tests in the background may have wanted some of them ignored.
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP,INT,TERM", "sh"]);
    let script = format!("{shell} exec \"$@\"");
    command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_haul")]);
    command.args(["--server", &fake.address.to_string()]);
    command.args(["download", "--force", "file"]);
    command.current_dir(dir.path()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    middle.recv_timeout(PATIENCE).unwrap();
    assert!(
        until(PATIENCE, || names(dir.path()).len() == 2),
        "there is no temporary file"
    );
    let kill = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    let status = child.wait().unwrap();
    drop(go_on);
    fake.thread.join().unwrap();
    let expected: &[u8] = if status.success() {
        b"1234567890"
    } else {
        b"old"
    };
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), expected);
    assert_eq!(names(dir.path()), ["file"], "{signal}");
    status
}

#[test]
fn l16_a_signal_leaves_no_temporary_file() {
    use std::os::unix::process::ExitStatusExt;
    for (signal, number) in [("-HUP", 1), ("-INT", 2), ("-TERM", 15)] {
        assert_eq!(interrupted(signal, "").signal(), Some(number));
    }
}

#[test]
fn l16_a_signal_that_is_ignored_remains_so() {
    assert!(interrupted("-INT", "trap '' INT;").success());
}
