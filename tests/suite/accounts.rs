//! `hauld user` as people and scripts call it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::common::tools::{Done, run, run_with, start};
use crate::common::until;

const FILE: &str = "haul-users.toml";

/// A directory in which `hauld` is called.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().expect("making a directory"))
    }

    fn hauld(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hauld"));
        command.args(args).current_dir(self.0.path());
        command
    }

    /// `hauld user ARGS` with `input` on its standard input.
    fn user(&self, args: &[&str], input: &[u8]) -> Done {
        let args = [&["user"], args].concat();
        run_with(&mut self.hauld(&args), input)
    }

    fn file(&self) -> PathBuf {
        self.0.path().join(FILE)
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).expect("reading the users file")
    }

    fn list(&self) -> String {
        self.user(&["list"], b"").ok().stdout_text()
    }
}

#[test]
fn users_are_added_shown_changed_and_removed() {
    let place = Place::new();
    let options = [
        "--home",
        "/anna",
        "--quota-bytes",
        "10GiB",
        "--rate",
        "20MiB",
    ];
    place
        .user(&[&["add", "anna"], &options[..]].concat(), b"secret\n")
        .ok();
    place
        .user(&["add", "ben", "--permissions", "read-only"], b"other")
        .ok();
    assert_eq!(fs::metadata(place.file()).unwrap().mode() & 0o7777, 0o600);
    let text = place.text();
    assert!(
        text.contains("password = \"$argon2id$v=19$m=19456,t=2,p=1$"),
        "{text}"
    );
    assert!(!text.contains("secret"), "{text}");
    let table = "\
NAME  HOME   PERMISSIONS  LIMITS
anna  /anna  all          10GiB, 20MiB/s
ben   /      read-only
";
    assert_eq!(place.list(), table);

    let changes = [
        "--quota-bytes",
        "none",
        "--quota-files",
        "5",
        "--networks",
        "::1,10.0.0.0/8",
    ];
    place
        .user(&[&["set", "anna"], &changes[..]].concat(), b"")
        .ok();
    place
        .user(
            &[
                "set",
                "ben",
                "--locked",
                "true",
                "--permissions",
                "list,write",
            ],
            b"",
        )
        .ok();
    let table = "\
NAME  HOME   PERMISSIONS  LIMITS
anna  /anna  all          5 files, 20MiB/s, from ::1 10.0.0.0/8
ben   /      list,write   locked
";
    assert_eq!(place.list(), table);

    let before = place.text();
    place.user(&["passwd", "anna"], b"new secret\r\n").ok();
    let after = place.text();
    let differ = before.lines().zip(after.lines()).filter(|(a, b)| a != b);
    assert_eq!(differ.count(), 1, "only the hash");

    place.user(&["remove", "anna"], b"").ok();
    let names = "NAME  HOME  PERMISSIONS  LIMITS\nben   /     list,write   locked\n";
    assert_eq!(place.list(), names);
}

#[test]
fn what_cannot_be_done_is_one_sentence_and_exit_code_2() {
    let place = Place::new();
    let refused = |args: &[&str], input: &[u8], why: &str| {
        let done = place.user(args, input).expect(2);
        assert!(done.stderr.contains(why), "{args:?}: {}", done.stderr);
        done.stderr
    };
    refused(
        &["list"],
        b"",
        "there is no such file; `hauld user add` makes one",
    );
    refused(&["passwd", "anna"], b"x", "there is no such file");
    let nowhere = place.0.path().join("none/users.toml");
    let nowhere = nowhere.to_str().expect("UTF-8");
    refused(
        &["add", "anna", "--users", nowhere],
        b"x",
        "its directory is not there",
    );
    refused(&["add", "anna"], b"", "an empty password is none");
    refused(&["add", "anna"], b"\n", "an empty password is none");
    refused(&["add", "anna"], b"a\0b\n", "FTP cannot carry");
    refused(&["add", "anna"], &[b'x'; 5000], "at most 1024 bytes");
    refused(&["add", "FTP"], b"x", "means an anonymous session");
    refused(&["add", "anna", "--home", "../x"], b"x", "a home has no ..");
    refused(
        &["add", "anna", "--permissions", "lots"],
        b"x",
        "is no permission",
    );
    refused(
        &["add", "anna", "--networks", "10.0.0.1/8"],
        b"x",
        "did you mean 10.0.0.0/8?",
    );
    refused(
        &["add", "anna", "--quota-files", "many"],
        b"x",
        "write a number, or none",
    );
    refused(&["add", "anna", "--rate", "0"], b"x", "a rate of 0");
    assert!(!place.file().exists(), "nothing was written");

    place.user(&["add", "anna"], b"secret\n").ok();
    let said = refused(
        &["add", "anna"],
        b"secret\n",
        "there is a user anna already",
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    refused(&["remove", "ben"], b"", "there is no user ben");
    refused(&["set", "anna"], b"", "say what to change");
    refused(
        &["set", "ben", "--locked", "true"],
        b"",
        "there is no user ben",
    );
    refused(&["passwd", "ben"], b"x", "there is no user ben");

    fs::write(place.file(), "[users.anna]\nqouta = 1\n").unwrap();
    let said = refused(
        &["list"],
        b"",
        "haul-users.toml: line 2: unknown field `qouta`",
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    refused(&["add", "ben"], b"x", "line 2");
}

#[test]
fn the_users_file_can_be_named_in_both_places() {
    let place = Place::new();
    place.user(&["--users", "a.toml", "add", "anna"], b"x").ok();
    place.user(&["add", "ben", "--users", "a.toml"], b"x").ok();
    let table = place.user(&["list", "--users", "a.toml"], b"").ok();
    assert_eq!(table.stdout_text().lines().count(), 3);
    assert!(!place.file().exists());
}

#[test]
fn changes_at_the_same_time_are_all_made() {
    let place = Place::new();
    place.user(&["add", "first"], b"x").ok();
    thread::scope(|scope| {
        for n in 0..8 {
            let place = &place;
            scope.spawn(move || place.user(&["add", &format!("user{n}")], b"x").ok());
        }
    });
    assert_eq!(place.list().lines().count(), 1 + 9);
    let left = fs::read_dir(place.0.path()).unwrap().count();
    assert_eq!(left, 1, "only the users file");
}

/// On a terminal the password is asked for twice and not shown.
#[test]
fn on_a_terminal_the_password_is_asked_for_twice() {
    const TERMINAL: &str = r#"
import os, pty, sys, termios, time
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:4] + ["anna"])
said, answers = b"", [answer.encode() + b"\n" for answer in sys.argv[4:]]
while True:
    try:
        chunk = os.read(fd, 4096)
    except OSError:
        break
    if not chunk:
        break
    said += chunk
    if answers and said.endswith(b"anna: "):
        while termios.tcgetattr(fd)[3] & termios.ECHO:
            time.sleep(0.005)
        os.write(fd, answers.pop(0))
        said += b"<typed>"
sys.stdout.buffer.write(said)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;
    let place = Place::new();
    let on_terminal = |verb: &str, typed: [&str; 2]| {
        let mut python = Command::new("python3");
        python.args(["-c", TERMINAL, env!("CARGO_BIN_EXE_hauld"), "user", verb]);
        run(python.args(typed).current_dir(place.0.path()))
    };
    let said = on_terminal("add", ["secret", "secret"]).ok().stdout_text();
    assert!(said.contains("New password for anna: <typed>"), "{said}");
    assert!(said.contains("The same again for anna: <typed>"), "{said}");
    assert!(
        said.contains("added anna") && !said.contains("secret"),
        "{said}"
    );
    let before = place.text();
    let said = on_terminal("passwd", ["secret", "Secret"])
        .expect(2)
        .stdout_text();
    assert!(said.contains("the two passwords differ"), "{said}");
    assert_eq!(place.text(), before);
}

/// `user` is a word of the command line; a directory of that name is written another way. `help` alone
/// is help.
#[test]
fn a_directory_called_user_is_served_as_dot_user() {
    let place = Place::new();
    for name in ["user", "help"] {
        fs::create_dir(place.0.path().join(name)).unwrap();
    }
    for dir in ["./user", "./help", "help"] {
        let mut command = place.hauld(&["--listen", "127.0.0.1:0", dir]);
        let mut server = start(command.stdin(Stdio::null()).stdout(Stdio::null()));
        let mut stderr = server.stderr.take().expect("stderr is a pipe");
        let told = thread::spawn(move || {
            let (mut said, mut chunk) = (String::new(), [0; 4096]);
            while !said.contains(&format!("serving {dir} on")) {
                match std::io::Read::read(&mut stderr, &mut chunk) {
                    Ok(n @ 1..) => said += &String::from_utf8_lossy(&chunk[..n]),
                    _ => return Err(said),
                }
            }
            Ok(())
        });
        let end = until(Duration::from_secs(10), || told.is_finished());
        let _ = server.kill();
        let _ = server.wait();
        assert!(end, "{dir} is not served in time");
        assert_eq!(told.join().expect("reading"), Ok(()));
    }
    let said = run(&mut place.hauld(&["user"])).expect(2).stderr;
    assert!(said.contains("Usage: hauld user"), "{said}");
    let said = run(&mut place.hauld(&["--listen", "127.0.0.1:0", "user"]))
        .expect(2)
        .stderr;
    assert!(said.contains("write ./user"), "{said}");
}
