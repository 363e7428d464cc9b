//! A server of the time before FEAT: RFC 959 and nothing behind it, on a directory of this machine.
//!
//! PASV, TYPE, RETR, STOR, LIST, CWD, PWD, MKD, RMD, DELE and renaming; one transfer after the other.
//! It is not careful: only tests that mean well talk to it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::SystemTime;

use time::OffsetDateTime;

use crate::talk::*;

/// How it writes its listings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// As `ls -l` does, which LIST takes for options as well.
    Unix,
    /// As MS-DOS does; what stands behind LIST is a name.
    Dos,
}

/// It serves until the test ends, each connection on its own thread.
pub struct Ancient {
    pub addr: SocketAddr,
    pub root: tempfile::TempDir,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Ancient {
    pub fn start(style: Style) -> Ancient {
        let listener = listener();
        let (addr, root) = (listener.local_addr().unwrap(), tempfile::tempdir().unwrap());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (path, all_heard) = (root.path().to_owned(), heard.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut session = Session {
                    style,
                    root: path.clone(),
                    cwd: PathBuf::from("/"),
                    passive: None,
                    from: None,
                    heard: all_heard.clone(),
                };
                thread::spawn(move || session.run(stream));
            }
        });
        Ancient { addr, root, heard }
    }

    /// The commands so far, of all sessions.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

struct Session {
    style: Style,
    root: PathBuf,
    cwd: PathBuf,
    passive: Option<TcpListener>,
    from: Option<PathBuf>,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Session {
    fn run(&mut self, stream: TcpStream) {
        let mut talk = Talk::new(stream);
        talk.hears_auth = true;
        talk.say("220 This is an old machine");
        loop {
            let line = talk.hear();
            if line.is_empty() {
                return;
            }
            self.heard.lock().unwrap().push(line.clone());
            let (verb, argument) = line.split_once(' ').unwrap_or((&line, ""));
            let reply = match verb {
                "USER" => "331 Password, please".to_owned(),
                "PASS" => "332 Account, please".to_owned(),
                "ACCT" => "230 Come in".to_owned(),
                "TYPE" if argument == "I" => "200 Image it is".to_owned(),
                "PWD" => format!("257 \"{}\"", self.cwd.display()),
                "QUIT" => {
                    talk.say("221 Goodbye");
                    return;
                }
                "PASV" => self.passive(),
                "LIST" | "RETR" | "STOR" => match self.transfer(&mut talk, verb, argument) {
                    Ok(()) => "226 Done".to_owned(),
                    Err(e) => format!("550 {e}"),
                },
                _ => match self.on_disk(verb, argument) {
                    Some(Ok(reply)) => reply.to_owned(),
                    Some(Err(e)) => format!("550 {e}"),
                    None => "500 Never heard of it".to_owned(),
                },
            };
            talk.say(&reply);
        }
    }

    fn passive(&mut self) -> String {
        let listener = listener();
        let port = listener.local_addr().unwrap().port();
        self.passive = Some(listener);
        format!(
            "227 Entering Passive Mode (127,0,0,1,{},{})",
            port >> 8,
            port & 0xff
        )
    }

    /// What needs no data connection; `None`: it knows no such verb.
    fn on_disk(&mut self, verb: &str, argument: &str) -> Option<io::Result<&'static str>> {
        let path = self.path(argument);
        let done = match verb {
            "CWD" | "CDUP" => {
                let to = match verb {
                    "CDUP" => self.cwd.parent().unwrap_or(Path::new("/")).to_owned(),
                    _ => self.cwd.join(argument),
                };
                fs::read_dir(self.inside(&to)).map(|_| {
                    self.cwd = to;
                    "250 You are there"
                })
            }
            "MKD" => fs::create_dir(path).map(|()| "257 Made"),
            "RMD" => fs::remove_dir(path).map(|()| "250 Gone"),
            "DELE" => fs::remove_file(path).map(|()| "250 Gone"),
            "RNFR" => {
                self.from = Some(path);
                Ok("350 To what?")
            }
            "RNTO" => {
                let from = self.from.take().unwrap_or_default();
                fs::rename(from, path).map(|()| "250 Renamed")
            }
            "NOOP" => Ok("200 Yes"),
            _ => return None,
        };
        Some(done)
    }

    fn transfer(&mut self, talk: &mut Talk, verb: &str, argument: &str) -> io::Result<()> {
        let no_pasv = || io::Error::other("PASV comes first");
        let listener = self.passive.take().ok_or_else(no_pasv)?;
        let path = self.path(argument);
        let (mut content, mut file) = (Vec::new(), None);
        match verb {
            "LIST" => content = self.listing(argument)?,
            "RETR" => drop(File::open(&path)?.read_to_end(&mut content)?),
            _ => file = Some(File::create(&path)?),
        }
        let mut data = accept(&listener);
        talk.say("150 Here it comes");
        match file {
            Some(mut file) => io::copy(&mut data, &mut file).map(drop),
            None => data.write_all(&content),
        }
    }

    fn listing(&self, argument: &str) -> io::Result<Vec<u8>> {
        let is_unix = self.style == Style::Unix;
        let (shows_all, name) = match argument.strip_prefix("-a") {
            Some(name) if is_unix => (true, name.trim_start()),
            _ => (false, argument),
        };
        let mut text = match is_unix {
            true => String::from("total 7\r\n"),
            false => String::new(),
        };
        let dir = self.path(name);
        if shows_all {
            text += &self.line(&fs::metadata(&dir)?, ".");
            text += &self.line(&fs::metadata(&dir)?, "..");
        }
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let name = entry.file_name().into_string().unwrap();
            if shows_all || !is_unix || !name.starts_with('.') {
                text += &self.line(&entry.metadata()?, &name);
            }
        }
        Ok(text.into_bytes())
    }

    fn line(&self, meta: &fs::Metadata, name: &str) -> String {
        let t = OffsetDateTime::from_unix_timestamp(meta.mtime()).unwrap();
        let (year, day, hour, minute) = (t.year(), t.day(), t.hour(), t.minute());
        let month = &t.month().to_string()[..3];
        let when = match self.style {
            Style::Dos => {
                let (month, half) = (u8::from(t.month()), if hour < 12 { "AM" } else { "PM" });
                let (year, hour) = (year % 100, (hour + 11) % 12 + 1);
                format!("{month:02}-{day:02}-{year:02}  {hour:02}:{minute:02}{half}")
            }
            Style::Unix if is_old(meta) => format!("{month} {day:>2}  {year}"),
            Style::Unix => format!("{month} {day:>2} {hour:02}:{minute:02}"),
        };
        match (self.style, meta.is_dir()) {
            (Style::Dos, true) => format!("{when}       <DIR>          {name}\r\n"),
            (Style::Dos, false) => format!("{when} {:>20} {name}\r\n", meta.len()),
            (Style::Unix, is_dir) => {
                let mode = meta.permissions().mode();
                let bits: String = (0..9)
                    .map(|at| match mode >> (8 - at) & 1 {
                        1 => ['r', 'w', 'x'][at % 3],
                        _ => '-',
                    })
                    .collect();
                let kind = if is_dir { 'd' } else { '-' };
                format!(
                    "{kind}{bits}   1 staff    wheel  {:>9} {when} {name}\r\n",
                    meta.len()
                )
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.inside(&self.cwd.join(name))
    }

    fn inside(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// `ls` shows the year instead of the hour then.
fn is_old(meta: &fs::Metadata) -> bool {
    const HALF_A_YEAR_S: u64 = 182 * 86_400;
    let age = SystemTime::now().duration_since(meta.modified().unwrap());
    age.is_ok_and(|age| age.as_secs() > HALF_A_YEAR_S)
}
