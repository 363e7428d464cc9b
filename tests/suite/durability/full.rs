//! A disk that fills up while many upload, and is emptied again.

use std::fs;
use std::path::PathBuf;
use std::thread;

use crate::common::content::{KIB, bytes};
use crate::common::control::Control;
use crate::common::server::{Launch, Server, four_questions};

/// Becomes hauld where `full` of the served directory, its last argument, is a small file system.
/// Nobody else sees that.
const WITH_SMALL_DISK: &str = r#"
    for dir; do :; done
    mount --make-rprivate / || exit 2
    mkdir -p "$dir/full" || exit 2
    mount -t tmpfs -o size=256k,mode=755 full "$dir/full" || exit 2
    exec "$@"
"#;

/// As the server sees it.
fn seen(server: &Server) -> PathBuf {
    let root = server.root().strip_prefix("/").expect("absolute");
    PathBuf::from(format!("/proc/{}/root", server.pid()))
        .join(root)
        .join("full")
}

#[test]
fn c12_a_disk_that_fills_up_costs_those_it_has_no_room_for() {
    let server = Server::launch(&Launch {
        through: &["unshare", "--mount", "sh", "-c", WITH_SMALL_DISK, "sh"],
        ..Launch::default()
    });
    let baseline = server.baseline();
    let store = |n: u64| {
        let mut control = Control::login(server.addr());
        let content = bytes(n, 40 * KIB);
        let code = match n % 3 {
            0 => {
                let line = format!("UPLOAD {}+ full/{n}\r\n", content.len());
                control.send(line.as_bytes());
                control.send(&content);
                control.reply().code
            }
            1 => control.upload(&format!("full/{n}"), &content).code,
            _ => {
                let mut data = control.epsv();
                match control.command(&format!("STOR full/{n}")).code {
                    150 => {
                        let _ = std::io::Write::write_all(&mut data, &content);
                        drop(data);
                        control.reply().code
                    }
                    refused => refused,
                }
            }
        };
        assert_eq!(control.command("NOOP").code, 200);
        control.quit();
        code
    };
    let codes: Vec<(u64, u16)> = thread::scope(|scope| {
        let store = &store;
        let all: Vec<_> = (0..20)
            .map(|n| scope.spawn(move || (n, store(n))))
            .collect();
        all.into_iter()
            .map(|it| it.join().expect("a session"))
            .collect()
    });
    for &(n, code) in &codes {
        let found = fs::read(seen(&server).join(n.to_string())).ok();
        match code {
            226 => assert!(found.is_some_and(|it| it == bytes(n, 40 * KIB)), "{n}"),
            452 => assert_eq!(found, None, "{n}"),
            code => panic!("{n}: {code}"),
        }
    }
    assert!(
        codes.iter().any(|it| it.1 == 452),
        "room for six: {codes:?}"
    );
    let mut control = Control::login(server.addr());
    for (n, _) in codes.iter().filter(|it| it.1 == 226) {
        assert_eq!(control.command(&format!("DELE full/{n}")).code, 250);
    }
    control.quit();
    for n in 100..104 {
        assert_eq!(store(n), 226, "there is room again");
    }
    four_questions(&server, baseline);
}
