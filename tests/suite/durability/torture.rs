//! Torture: the system calls that the server makes in a scenario are counted, and the scenario runs
//! again with each of them failing, once and from then on.
//!
//! The seam is the system call, where strace can make one fail without a line in the server that
//! knows of it. It counts the calls of each thread for itself, so "the third pwrite64" is the third of
//! every thread that makes so many. One server has to survive it all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::Shutdown;

use crate::common::content::{KIB, bytes};
use crate::common::either::{Data, Either};
use crate::common::server::{Server, four_questions};
use crate::common::trace::Strace;

/// These do not fail, or not like that: memory, locks, clocks; the write to an eventfd and the log,
/// which the server does with nothing else. (A call that strace makes fail just when it
/// detaches says ENOSYS, and of epoll_wait that is the end.)
const LEFT_OUT: [&str; 21] = [
    "futex",
    "write",
    "mmap",
    "munmap",
    "mprotect",
    "mremap",
    "madvise",
    "brk",
    "restart_syscall",
    "rt_sigprocmask",
    "rt_sigaction",
    "rt_sigreturn",
    "sched_yield",
    "clock_gettime",
    "clock_nanosleep",
    "getrandom",
    "close",
    "exit",
    "sigaltstack",
    "gettid",
    "epoll_wait",
];

/// How a call fails, where not with EIO.
const ERRORS: [(&str, &str); 20] = [
    ("epoll_ctl", "ENOMEM"),
    ("accept4", "ECONNABORTED"),
    ("sendto", "EPIPE"),
    ("sendmsg", "EPIPE"),
    ("writev", "EPIPE"),
    ("read", "ECONNRESET"),
    ("recvfrom", "ECONNRESET"),
    ("openat", "EMFILE"),
    ("openat2", "EMFILE"),
    ("dup", "EMFILE"),
    ("fcntl", "EMFILE"),
    ("pipe2", "EMFILE"),
    ("linkat", "ENOSPC"),
    ("mkdirat", "ENOSPC"),
    ("fallocate", "ENOSPC"),
    ("fsetxattr", "ENOSPC"),
    ("setxattr", "ENOSPC"),
    ("setsockopt", "ENOPROTOOPT"),
    ("getpeername", "ENOTCONN"),
    ("shutdown", "ENOTCONN"),
];

fn error_of(call: &str) -> &'static str {
    let found = ERRORS.iter().find(|it| it.0 == call);
    found.map_or("EIO", |it| it.1)
}

/// What a name may hold; `None`: it is not there.
type May = Vec<Option<Vec<u8>>>;

/// A directory of its own for each time a scenario runs, and what must be in it afterwards.
struct Play<'a> {
    server: &'a Server,
    dir: String,
    may: BTreeMap<&'static str, May>,
}

type Done = io::Result<()>;
type Scenario = fn(&mut Play) -> Done;

const SCENARIOS: [(&str, Scenario); 12] = [
    ("a new file", |play| {
        let mut session = play.login()?;
        play.stor(&mut session, "STOR", "new", b"", &bytes(1, 3000))
    }),
    ("an old file replaced", |play| {
        let mut session = play.login()?;
        play.stor(&mut session, "STOR", "old", b"", &bytes(2, 70 * KIB))?;
        play.stor(&mut session, "STOR", "old", b"", b"")
    }),
    ("UPLOAD and its facts", |play| {
        let mut session = play.login()?;
        play.upload(
            &mut session,
            ";modify=20260131120000;unix.mode=0600",
            "old",
            b"",
            &bytes(3, 5000),
        )
    }),
    ("a series", |play| {
        let mut session = play.login()?;
        let contents = [
            ("old", bytes(4, 10)),
            ("new", bytes(5, 3000)),
            ("third", Vec::new()),
        ];
        let mut series = Vec::new();
        for (name, content) in &contents {
            play.tries(name, Some(content.clone()));
            let line = format!("UPLOAD {}+ {}/{name}\r\n", content.len(), play.dir);
            series.extend_from_slice(line.as_bytes());
            series.extend_from_slice(content);
        }
        session.send(&series)?;
        for (name, content) in contents {
            let reply = session.reply()?;
            play.told(name, &reply, "226", Some(content));
        }
        Ok(())
    }),
    ("an old file continued", |play| {
        let mut session = play.login()?;
        play.stor(&mut session, "APPE", "old", b"old content", &bytes(6, 3000))
    }),
    ("a part of an old file kept", |play| {
        let mut session = play.login()?;
        if play.command(&mut session, "REST 3")?.starts_with("350") {
            play.stor(&mut session, "STOR", "old", b"old", b"er")?;
        }
        Ok(())
    }),
    ("an upload that breaks off and goes on", |play| {
        let (content, mut other) = (bytes(7, 5000), play.login()?);
        play.tries("new", None);
        let first = other.command(&format!("UPLOAD 5000 {}/new", play.dir))?;
        if first.starts_with("150") {
            other.send(&content[..2000])?;
        }
        other.socket().shutdown(Shutdown::Write)?;
        while other.reply().is_ok() {}
        let mut session = play.login()?;
        let told = session.command(&format!("PARTIAL {}/new", play.dir))?;
        let length = told
            .strip_prefix("213 ")
            .and_then(|it| it.split(' ').next());
        let Some(length) = length.and_then(|it| it.parse::<usize>().ok()) else {
            return Ok(());
        };
        if play
            .command(&mut session, &format!("REST {length}"))?
            .starts_with("350")
        {
            let (kept, rest) = content.split_at(length);
            play.upload(&mut session, "", "new", kept, rest)?;
        }
        Ok(())
    }),
    ("downloads", |play| {
        let mut session = play.login()?;
        let name = format!("{}/old", play.dir);
        let got = session.fetch(&format!("RETR {name}"))?;
        play.compare("old", &got);
        let got = session.download(&name)?;
        play.compare("old", &got);
        let got = session.fetch(&format!("RETR {}/large", play.dir))?;
        play.compare("large", &got);
        Ok(())
    }),
    ("listings", |play| {
        let mut session = play.login()?;
        for verb in ["MLSD", "LIST", "NLST"] {
            session.fetch(&format!("{verb} {}", play.dir))?;
        }
        session.send(format!("TREE {}\r\n", play.dir).as_bytes())?;
        let mut reply = session.reply()?;
        while reply.starts_with("250-") || reply.starts_with(' ') {
            reply = session.reply()?;
        }
        Ok(())
    }),
    ("a rename", |play| {
        let mut session = play.login()?;
        let old = b"old content".to_vec();
        if play
            .command(&mut session, &format!("RNFR {}/old", play.dir))?
            .starts_with("350")
        {
            play.tries("old", None);
            play.tries("new", Some(old.clone()));
            let reply = session.command(&format!("RNTO {}/new", play.dir))?;
            play.told("old", &reply, "250", None);
            play.told("new", &reply, "250", Some(old));
        }
        Ok(())
    }),
    ("directories", |play| {
        let mut session = play.login()?;
        play.command(&mut session, &format!("MKD {}/d", play.dir))?;
        play.stor(&mut session, "STOR", "d/new", b"", b"x")?;
        play.tries("d/new", None);
        let reply = session.command(&format!("DELE {}/d/new", play.dir))?;
        play.told("d/new", &reply, "250", None);
        play.command(&mut session, &format!("RMD {}/d", play.dir))?;
        Ok(())
    }),
    ("questions", |play| {
        let mut session = play.login()?;
        for verb in [
            "HASH",
            "SIZE",
            "MDTM",
            "MFMT 20260131120000",
            "SITE CHMOD 600",
            "AVBL",
        ] {
            let reply = session.command(&format!("{verb} {}/old", play.dir))?;
            assert!(
                reply.as_bytes()[..3].iter().all(u8::is_ascii_digit),
                "{reply}"
            );
        }
        Ok(())
    }),
];

impl Play<'_> {
    fn login(&self) -> io::Result<Either> {
        Either::login(self.server.addr(), None)
    }

    fn command(&self, session: &mut Either, line: &str) -> io::Result<String> {
        session.command(line)
    }

    /// From now on the name may hold that too.
    fn tries(&mut self, name: &'static str, content: Option<Vec<u8>>) {
        let may = self.may.entry(name).or_insert_with(|| vec![None]);
        may.push(content);
    }

    /// From now on it must, if that was the answer.
    fn told(&mut self, name: &'static str, reply: &str, success: &str, content: Option<Vec<u8>>) {
        if reply.starts_with(success) {
            self.may.insert(name, vec![content]);
        }
    }

    fn stor(
        &mut self,
        session: &mut Either,
        verb: &str,
        name: &'static str,
        kept: &[u8],
        sent: &[u8],
    ) -> Done {
        let content = [kept, sent].concat();
        self.tries(name, Some(content.clone()));
        let mut data = session.data(&format!("{verb} {}/{name}", self.dir))?;
        if matches!(data, Data::Refused(_)) {
            return Ok(());
        }
        // It may be closed by now; the reply says so.
        let _ = data.send(sent);
        data.finish()?;
        let reply = session.reply()?;
        self.told(name, &reply, "226", Some(content));
        Ok(())
    }

    fn upload(
        &mut self,
        session: &mut Either,
        facts: &str,
        name: &'static str,
        kept: &[u8],
        sent: &[u8],
    ) -> Done {
        let content = [kept, sent].concat();
        self.tries(name, Some(content.clone()));
        let first =
            session.command(&format!("UPLOAD {}{facts} {}/{name}", sent.len(), self.dir))?;
        if first.starts_with("150") {
            session.send(sent)?;
            let reply = session.reply()?;
            self.told(name, &reply, "226", Some(content));
        }
        Ok(())
    }

    fn compare(&self, name: &str, got: &(Vec<u8>, String)) {
        if got.1.starts_with("226") {
            let may = &self.may[name];
            assert!(
                may.contains(&Some(got.0.clone())),
                "{name}: {} bytes",
                got.0.len()
            );
        }
    }

    fn check(&self) -> Result<(), String> {
        for (name, may) in &self.may {
            let found = fs::read(self.server.path(&self.dir).join(name)).ok();
            if !may.contains(&found) {
                let may: Vec<_> = may.iter().map(|it| it.as_ref().map(Vec::len)).collect();
                let found = found.map(|it| it.len());
                return Err(format!("{name} holds {found:?} bytes, and may {may:?}"));
            }
        }
        Ok(())
    }
}

/// One run of a scenario, with what strace is told; what went wrong.
fn play(
    server: &Server,
    number: usize,
    scenario: Scenario,
    options: &[&str],
) -> Result<(), String> {
    let dir = format!("r{number}");
    let path = server.path(&dir);
    fs::create_dir(&path).expect("making a directory");
    let old: [(&str, Vec<u8>); 2] = [
        ("old", b"old content".to_vec()),
        ("large", bytes(9, 300 * KIB)),
    ];
    let mut play = Play {
        server,
        dir,
        may: BTreeMap::new(),
    };
    for (name, content) in old {
        fs::write(path.join(name), &content).expect("writing");
        play.may.insert(name, vec![Some(content)]);
    }
    let strace = Strace::attach(server, options);
    let done = scenario(&mut play);
    strace.detach();
    let answered = match done {
        Err(error) if hangs(&error) => Err("no answer came".to_string()),
        _ => Ok(()),
    };
    let result = answered.and_then(|()| play.check()).and_then(|()| {
        let noop = play.login().and_then(|mut session| session.command("NOOP"));
        match noop {
            Ok(reply) if reply.starts_with("200") => Ok(()),
            other => Err(format!("afterwards: {other:?}")),
        }
    });
    fs::remove_dir_all(path).expect("removing");
    result
}

fn hangs(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// How often each call is made, by the thread that makes it most.
fn count(trace: &str) -> BTreeMap<String, usize> {
    let mut calls: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for line in trace.lines() {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        if let Some((name, _)) = rest.trim_start().split_once('(')
            && name
                .bytes()
                .all(|it| it.is_ascii_alphanumeric() || it == b'_')
        {
            *calls.entry((thread, name)).or_default() += 1;
        }
    }
    let mut most = BTreeMap::new();
    for ((_, name), times) in calls {
        let known: &mut usize = most.entry(name.to_string()).or_default();
        *known = times.max(*known);
    }
    most.retain(|name, _| !LEFT_OUT.contains(&name.as_str()));
    most
}

#[test]
fn c07_every_call_fails_once_and_from_then_on() {
    // So that nobody waits long for what does not come.
    let (server, dir) = Server::configured("data-wait-s = 2\nstall-timeout = 2\n", &[]);
    let baseline = server.baseline();
    let trace = dir.path().join("trace");
    let trace_path = trace.to_str().expect("a text");
    let mut number_of_run = 0;
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    for (what, scenario) in SCENARIOS {
        number_of_run += 1;
        play(&server, number_of_run, scenario, &["-o", trace_path]).expect(what);
        for (call, times) in count(&fs::read_to_string(&trace).expect("a trace")) {
            for n in 1..=times {
                for once in [true, false] {
                    // Who never gets in has nothing to say about it.
                    if once || call != "accept4" {
                        all.push((what, scenario, call.clone(), n, once));
                    }
                }
            }
            seen.insert(call);
        }
    }
    let (mut wrong, mut met) = (Vec::new(), 0);
    for (what, scenario, call, n, once) in &all {
        let error = error_of(call);
        let when = if *once {
            format!("{n}")
        } else {
            format!("{n}+")
        };
        let inject = format!("inject={call}:error={error}:when={when}");
        let only = format!("trace={call}");
        let options = ["-o", trace_path, "-e", &only, "-e", &inject];
        number_of_run += 1;
        if let Err(why) = play(&server, number_of_run, *scenario, &options) {
            wrong.push(format!("{what}, {inject}: {why}"));
        }
        let told = fs::read_to_string(&trace).expect("a trace");
        met += usize::from(told.contains("INJECTED"));
    }
    println!("{met} of {} failures were met, of {seen:?}", all.len());
    // A thread may make a call less where it is quicker.
    assert!(met * 10 > all.len() * 9, "{met} of {} were met", all.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    four_questions(&server, baseline);
}
