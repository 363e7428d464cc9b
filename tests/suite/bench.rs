//! `haul bench` against `hauld` and against other servers: every scenario, in clear and inside TLS,
//! with its own verbs and over data connections. What it measures is not looked at, only that it does
//! what was asked for, says so, and leaves nothing behind.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::common::peers::Peer;
use crate::common::secure::Pair;
use crate::common::server::{Server, four_questions};
use crate::common::tools::{Done, finish, run, start};
use crate::common::{PATIENCE, wait_for};

const USAGE: i32 = 2;
const CANNOT_CONNECT: i32 = 3;
const TRUST: i32 = 4;
const LOGIN_REFUSED: i32 = 5;
const NOT_FOUND: i32 = 6;
const BROKEN: i32 = 8;

/// A bench of a few operations that begins at once.
fn command(server: Option<SocketAddr>, args: &[&str]) -> Command {
    let mut haul = Command::new(env!("CARGO_BIN_EXE_haul"));
    haul.env_remove("HAUL_SERVER").env_remove("HAUL_PASSWORD");
    if let Some(server) = server {
        haul.args(["--server", &server.to_string()]);
    }
    haul.arg("bench").args(args);
    haul
}

const SHORT: [&str; 6] = ["--warm-up", "0", "--runs", "2", "--connections", "1,4"];

/// Runs it with few operations, and reads what it wrote.
fn bench(server: SocketAddr, args: &[&str]) -> Value {
    let dir = tempfile::tempdir().expect("a directory");
    let json = dir.path().join("report.json");
    let mut haul = command(Some(server), args);
    haul.args(SHORT)
        .args(["--requests", "40", "--json"])
        .arg(&json);
    run(&mut haul).ok();
    let text = fs::read(&json).expect("a report");
    serde_json::from_slice(&text).expect("JSON")
}

/// Each number of connections was measured twice, without errors.
#[track_caller]
fn assert_complete(report: &Value, kinds: &[&str]) {
    assert_eq!(report["loads"].as_array().unwrap().len(), 2);
    for load in report["loads"].as_array().unwrap() {
        let runs = load["runs"].as_array().unwrap();
        assert_eq!(runs.len(), 2);
        for run in runs {
            assert_eq!(run["errors"].as_object().unwrap().len(), 0, "{run}");
            assert!(run["operations"].as_u64().unwrap() >= 40, "{run}");
            for kind in kinds {
                assert!(run["by_kind"][kind].as_u64().unwrap() > 0, "{run}");
                let complete = |row: &&Value| row["phase"] == "complete" && row["kind"] == *kind;
                let rows = run["phases"].as_array().unwrap();
                let row = rows.iter().find(complete).expect("its latencies");
                let us = |name: &str| row[name].as_f64().unwrap();
                assert!(us("p50_us") > 0.0 && us("p50_us") <= us("p99_us"), "{row}");
                assert!(us("p99_us") <= us("p999_us") && us("p999_us") <= us("max_us") * 1.001);
            }
        }
    }
}

const SCENARIOS: [(&str, &[&str]); 6] = [
    ("download", &["download"]),
    ("upload", &["upload"]),
    ("small", &["download", "upload"]),
    ("noop", &["noop"]),
    ("login", &["login"]),
    ("list", &["list"]),
];

/// Every scenario with files of every interesting size: within one read, above what is joined with
/// its command, and above what UPLOAD takes without waiting.
fn every_scenario(server: &Server, more: &[&str]) {
    let baseline = server.baseline();
    for (scenario, kinds) in SCENARIOS {
        let moves_files = ["download", "upload"].contains(&scenario);
        let sizes: &[&str] = if moves_files {
            &["1000", "200KiB", "3MiB"]
        } else {
            &["5000"]
        };
        for size in sizes {
            let mut args = vec![scenario, "--file-size", size, "--entries", "70"];
            args.extend(more);
            let report = bench(server.addr(), &args);
            assert_complete(&report, kinds);
            assert_eq!(
                report["tls"].is_string(),
                args.contains(&"--tls"),
                "{report}"
            );
        }
    }
    let left: Vec<_> = fs::read_dir(server.root()).unwrap().collect();
    assert_eq!(left.len(), 0, "{left:?}");
    four_questions(server, baseline);
}

#[test]
fn every_scenario_with_own_verbs() {
    every_scenario(&Server::start(&[]), &["--verbs", "own"]);
}

#[test]
fn every_scenario_over_data_connections() {
    every_scenario(&Server::start(&[]), &["--verbs", "standard"]);
}

fn secure_server(pair: &Pair) -> Server {
    let options = pair.options();
    let words: Vec<&str> = options.iter().map(String::as_str).collect();
    Server::start(&words)
}

#[test]
fn every_scenario_with_own_verbs_inside_tls() {
    let pair = Pair::new();
    every_scenario(
        &secure_server(&pair),
        &["--verbs", "own", "--tls", "required"],
    );
}

#[test]
fn every_scenario_over_data_connections_inside_tls() {
    let pair = Pair::new();
    every_scenario(
        &secure_server(&pair),
        &["--verbs", "standard", "--tls", "required"],
    );
}

#[test]
fn many_operations_are_under_way_at_once() {
    let server = Server::start(&[]);
    for (scenario, kinds) in [("small", &["download", "upload"][..]), ("noop", &["noop"])] {
        let report = bench(server.addr(), &[scenario, "--in-flight", "50"]);
        assert_complete(&report, kinds);
    }
}

#[test]
fn a_mix_keeps_its_weights() {
    let server = Server::start(&[]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mix");
    fs::write(
        &file,
        "noop 6 # most\ndownload 2 2000\nupload 1 100KiB\nlist 1\nlogin 1\n",
    )
    .unwrap();
    let report = bench(server.addr(), &["mix", file.to_str().unwrap()]);
    assert_complete(&report, &["noop", "download", "upload", "list", "login"]);
    let by_kind = &report["loads"][0]["runs"][0]["by_kind"];
    let count = |kind: &str| by_kind[kind].as_u64().unwrap();
    assert!(
        count("noop") > count("download") && count("download") > count("list"),
        "{by_kind}"
    );
}

#[test]
fn idle_sessions_are_held_and_their_memory_is_told() {
    let server = Server::start(&[]);
    let pid = server.pid().to_string();
    let args = [
        "idle",
        "-c",
        "200",
        "--duration",
        "1",
        "--runs",
        "1",
        "--pid",
        &pid,
    ];
    let done = run(&mut command(Some(server.addr()), &args)).ok();
    let text = done.stdout_text();
    assert!(text.contains("server KiB/session"), "{text}");
    assert!(text.contains("login"), "{text}");
}

#[test]
fn latency_at_a_fixed_rate_counts_from_when_an_operation_was_due() {
    let server = Server::start(&[]);
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("a.json");
    let args = [
        "noop",
        "-c",
        "2",
        "--rate",
        "2000",
        "--requests",
        "300",
        "--runs",
        "1",
    ];
    let mut haul = command(Some(server.addr()), &args);
    run(haul.arg("--json").arg(&json)).ok();
    let report: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let run = &report["loads"][0]["runs"][0];
    let rate = run["operations"].as_f64().unwrap() / run["seconds"].as_f64().unwrap();
    assert!(
        rate < 2500.0,
        "it does not run ahead of its schedule: {rate}"
    );
}

#[test]
fn the_server_is_started_watched_and_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    let hauld = env!("CARGO_BIN_EXE_hauld");
    let spawn = format!("{hauld} --listen 127.0.0.1:0 {}", root.display());
    let json = dir.path().join("a.json");
    let html = dir.path().join("a.html");
    let args = [
        "download",
        "--file-size",
        "1MiB",
        "--requests",
        "200",
        "--syscalls",
    ];
    let mut haul = command(None, &args);
    haul.args(SHORT).args(["--spawn", &spawn]);
    haul.arg("--json").arg(&json).arg("--html").arg(&html);
    let done = run(&mut haul).ok();
    let text = done.stdout_text();
    assert!(text.contains("server CPU us/operation"), "{text}");
    assert!(
        text.contains("system calls of the server per operation"),
        "{text}\n{}",
        done.stderr
    );
    assert_eq!(
        fs::read_dir(&root).unwrap().count(),
        0,
        "the files are gone"
    );

    let report: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let address: SocketAddr = report["server"].as_str().unwrap().parse().unwrap();
    let gone = wait_for(PATIENCE, || std::net::TcpStream::connect(address).err());
    assert!(gone.is_some(), "the server is stopped");

    let page = fs::read_to_string(&html).unwrap();
    assert!(page.matches("<svg").count() >= 4 && page.ends_with("</html>\n"));
    assert!(
        !page.contains("<script") && !page.contains("http"),
        "it needs nothing else"
    );

    let compare = [
        OsStr::new("bench"),
        "--compare".as_ref(),
        json.as_ref(),
        json.as_ref(),
    ];
    let done = run(Command::new(env!("CARGO_BIN_EXE_haul")).args(compare)).ok();
    let text = done.stdout_text();
    assert!(
        text.contains("operations/s") && text.contains("within the spread"),
        "{text}"
    );
}

/// Directories of the bench that are there.
fn temporaries(server: &Server) -> Vec<String> {
    let names = fs::read_dir(server.root()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| name.starts_with("haul-bench-"))
        .collect()
}

#[test]
fn a_signal_ends_it_and_its_files_are_removed() {
    let server = Server::start(&[]);
    let args = ["small", "--duration", "60", "--warm-up", "0"];
    let mut command = command(Some(server.addr()), &args);
    let child = start(command.stdout(Stdio::null()));
    let uploads = || {
        let dir = temporaries(&server).pop()?;
        let names = fs::read_dir(server.path(&dir)).ok()?;
        let mut names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.find(|name| name.starts_with('u'))
    };
    wait_for(PATIENCE, uploads).expect("it uploads");
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::INT).unwrap();
    let (_, stderr) = finish(child, &command);
    assert!(stderr.contains("interrupted"), "{stderr}");
    assert_eq!(temporaries(&server), Vec::<String>::new());
}

/// What DOWNLOAD and UPLOAD move takes no data connection, and so no descriptor for one.
#[test]
fn only_data_connections_take_a_second_descriptor() {
    let server = Server::start(&[]);
    let limited = |verbs: &str| {
        let mut limited = Command::new("prlimit");
        limited.args(["--nofile=200", env!("CARGO_BIN_EXE_haul"), "--server"]);
        limited.arg(server.addr().to_string());
        limited.args(["bench", "download", "--verbs", verbs, "-c", "100"]);
        limited.args(["--files", "1", "--file-size", "10"]);
        limited.args(["--warm-up", "0", "--runs", "1", "--requests", "100"]);
        run(&mut limited)
    };
    limited("own").ok();
    limited("auto").ok();
    let refused = limited("standard").expect(USAGE);
    let said = "100 connections need 264 descriptors, and 200 are allowed";
    assert!(refused.stderr.contains(said), "{}", refused.stderr);
}

/// An hour of measuring is not lost because the last number of connections was too much.
#[test]
fn what_was_measured_before_the_server_was_full_is_shown() {
    let server = Server::start(&["--max-sessions", "4"]);
    let args = ["noop", "-c", "1,9", "--warm-up", "0", "--runs", "1"];
    let mut haul = command(Some(server.addr()), &args);
    let done = run(haul.args(["--requests", "10"])).expect(BROKEN);
    assert!(done.stderr.contains("of 9 sessions"), "{}", done.stderr);
    let text = done.stdout_text();
    assert!(text.contains("\n1 "), "{text}");
}

#[test]
fn a_run_in_which_nothing_ended_says_so() {
    let server = Server::start(&[]);
    let large = fs::File::create(server.path("large")).expect("creating");
    large.set_len(1 << 42).expect("extending");
    let args = ["download", "--path", "large", "-c", "1", "--warm-up", "0"];
    let mut haul = command(Some(server.addr()), &args);
    haul.args(["--runs", "1", "--duration", "1", "--timeout", "1"]);
    let done = run(&mut haul).ok();
    let said = "with 1 connection no operation ended";
    let text = done.stdout_text();
    assert!(text.contains(said), "{text}");
}

#[test]
fn what_a_read_only_server_has_can_be_used() {
    let nest = TempDir::new().unwrap();
    fs::create_dir(nest.path().join("dir")).unwrap();
    fs::write(nest.path().join("dir/file"), vec![1; 100_000]).unwrap();
    let hauld = env!("CARGO_BIN_EXE_hauld");
    let spawn = format!(
        "{hauld} --listen 127.0.0.1:0 --anonymous read {}",
        nest.path().display()
    );
    let bench = |args: &[&str]| {
        let mut haul = command(None, args);
        haul.args(SHORT)
            .args(["--requests", "20", "--spawn", &spawn]);
        run(&mut haul)
    };
    let done = bench(&["download"]).expect(NOT_FOUND);
    assert!(done.stderr.contains("--path"), "{}", done.stderr);
    bench(&["download", "--path", "dir/file"]).ok();
    bench(&["list", "--path", "dir"]).ok();
    let done = bench(&["download", "--path", "nothing"]);
    assert_ne!(done.code, 0);
    assert!(
        done.stdout_text().contains("550 to download"),
        "{}",
        done.stdout_text()
    );
}

/// It used to go on for as long as it was to measure, hundreds of thousands of times.
#[test]
fn where_everything_is_refused_it_ends() {
    let server = Server::start(&[]);
    for (scenario, connections) in [("download", "1"), ("download", "3"), ("list", "1")] {
        let args = [
            scenario,
            "--path",
            "none",
            "-c",
            connections,
            "--duration",
            "1h",
        ];
        let done = run(&mut command(Some(server.addr()), &args)).expect(BROKEN);
        assert!(
            done.stderr.contains("operations were refused: 550"),
            "{done:?}"
        );
    }
}

#[test]
fn several_processes_are_watched_together() {
    let server = Server::start(&["--workers", "2"]);
    let pids = server.pid().to_string();
    let own = std::process::id().to_string();
    let words = ["noop", "--requests", "20", "--pid", &pids, &own];
    let done = run(&mut command(Some(server.addr()), &words)).ok();
    assert!(done.stdout_text().contains("server CPU"), "{done:?}");
    let words = ["noop", "--pid", &pids, "2147483647"];
    let done = run(&mut command(Some(server.addr()), &words)).expect(USAGE);
    assert!(done.stderr.contains("--pid 2147483647"), "{done:?}");
}

#[test]
fn a_directory_that_was_made_for_it_goes_with_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let spawn = format!("{} --listen 127.0.0.1:0", env!("CARGO_BIN_EXE_hauld"));
    let bench = || {
        let mut haul = command(None, &["small", "--requests", "20", "--spawn", &spawn]);
        run(haul.args(SHORT).current_dir(dir.path())).ok()
    };
    bench();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    fs::create_dir(dir.path().join("haul-data")).unwrap();
    bench();
    assert!(dir.path().join("haul-data").exists(), "it was there before");
}

#[test]
fn mistakes_are_told_in_a_sentence() {
    let server = Server::start(&[]);
    let addr = server.addr();
    let says = |args: &[&str], code: i32, part: &str| {
        let done: Done = run(&mut command(Some(addr), args)).expect(code);
        assert!(done.stderr.contains(part), "{args:?}: {}", done.stderr);
    };
    says(&[], USAGE, "<SCENARIO>");
    says(&["idle", "--rate", "5"], USAGE, "idle sessions do nothing");
    says(&["login", "--in-flight", "2"], USAGE, "--in-flight is for");
    says(&["mix"], USAGE, "KIND WEIGHT");
    says(&["noop", "file"], USAGE, "only mix takes a file");
    says(&["noop", "-c", "0"], USAGE, "from 1 to");
    says(&["noop", "--syscalls"], USAGE, "--pid or --spawn");
    says(&["noop", "--path", "x"], USAGE, "--path is for");
    says(
        &["small", "--in-flight", "9", "--verbs", "standard"],
        USAGE,
        "--connections",
    );
    says(&["noop", "--pid", "2147483647"], USAGE, "no such process");
    says(&["noop", "--tls", "required"], TRUST, "534 to AUTH");
    says(
        &["noop", "--ca-file", "/nothing"],
        USAGE,
        "/nothing: No such file",
    );
    says(
        &["noop", "--compare", "a", "b"],
        USAGE,
        "cannot be used with",
    );

    let done = run(&mut command(None, &["noop", "--spawn", "true"])).expect(CANNOT_CONNECT);
    assert!(
        done.stderr.ends_with("(exit status: 0): it said nothing\n"),
        "{}",
        done.stderr
    );
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let done = run(&mut command(Some(nobody), &["noop"])).expect(CANNOT_CONNECT);
    assert!(done.stderr.contains("refused"), "{}", done.stderr);

    let user = format!("anna:wrong@{addr}");
    let mut haul = Command::new(env!("CARGO_BIN_EXE_haul"));
    haul.args(["--server", &user, "bench", "noop"]);
    let done = run(&mut haul).expect(LOGIN_REFUSED);
    assert!(done.stderr.contains("530"), "{}", done.stderr);
}

fn another_server(addr: SocketAddr) {
    for (scenario, kinds) in SCENARIOS {
        let args = [
            scenario,
            "--file-size",
            "20000",
            "--entries",
            "30",
            "--within",
            "pub",
        ];
        let report = bench(addr, &args);
        assert_complete(&report, kinds);
    }
}

#[test]
fn vsftpd_is_measured_too() {
    let server = Peer::vsftpd();
    another_server(server.addr());
    assert_eq!(fs::read_dir(server.public()).unwrap().count(), 0);
}

#[test]
fn pure_ftpd_is_measured_too() {
    let server = Peer::pure_ftpd();
    another_server(server.addr());
    assert_eq!(fs::read_dir(server.public()).unwrap().count(), 0);
}

/// ProFTPD says 226 to a RETR once the client has closed the data connection too.
#[test]
fn proftpd_is_measured_too() {
    let server = Peer::proftpd();
    another_server(server.addr());
    assert_eq!(fs::read_dir(server.public()).unwrap().count(), 0);
}

#[test]
fn pyftpdlib_is_measured_too() {
    let server = Peer::pyftpdlib();
    another_server(server.addr());
    assert_eq!(fs::read_dir(server.public()).unwrap().count(), 0);
}
