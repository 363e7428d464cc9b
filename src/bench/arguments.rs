//! The command line of `haul bench`, and what it means.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::client::error::Error;
use crate::client::server::one_line;
use crate::text::{Bytes, duration};

use super::mix::Mix;
use super::operation::Kind;

/// More sessions than a machine has ports and descriptors for.
const CONNECTIONS_MAX: usize = 1_000_000;
const MIB: u64 = 1 << 20;
/// All uploads together take no more on the server than this, unless --file-size says so.
const UPLOADS_BYTES_MAX: u64 = 1 << 30;
/// Files to download are as many as fit into this.
const FILES_BYTES_MAX: u64 = 64 * MIB;
const FILES_MAX: u64 = 1000;

/// Measure a file-transfer server under load
///
/// It connects, lets the sessions work, and prints throughput and latencies. Any FTP server will do:
/// with EPSV or PASV, or with UPLOAD and DOWNLOAD where the server has them. What a scenario needs
/// is made on the server in a new directory haul-bench-*, and removed afterwards. Everything travels
/// in clear, unless --tls required or ftps:// says otherwise; then any certificate will do, unless
/// --ca-file or --fingerprint says which.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// What the sessions do
    #[arg(value_enum, required_unless_present = "compare")]
    pub scenario: Option<Scenario>,

    /// For `mix`: a file with lines of `KIND WEIGHT [BYTES]`; kinds are download, upload, noop, list
    /// and login
    #[arg(value_name = "FILE")]
    pub mix: Vec<PathBuf>,

    /// Sessions at a time; several numbers are measured one after the other: 1,10,100,1000
    #[arg(
        long,
        short,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "16"
    )]
    #[arg(value_parser = connections)]
    pub connections: Vec<usize>,

    /// How long each run measures
    #[arg(long, value_name = "TIME", default_value = "5", value_parser = duration)]
    pub duration: Duration,

    /// Measure so many operations instead
    #[arg(long, value_name = "N", conflicts_with = "duration")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,

    /// Runs, of which the median is shown; those of several --connections take turns
    #[arg(long, value_name = "N", default_value = "3")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,

    /// How long the sessions work before each run measures; 0 for not at all
    #[arg(long, value_name = "TIME", default_value = "1", value_parser = duration_or_none)]
    pub warm_up: Duration,

    /// Begin so many operations per second, however long they take, and count their latency from
    /// when they should have begun
    #[arg(long, value_name = "PER SECOND", value_parser = rate)]
    pub rate: Option<f64>,

    /// Take so long to open all sessions
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = duration_or_none)]
    pub ramp: Duration,

    /// Operations under way in one session without waiting (UPLOAD, DOWNLOAD and NOOP). Answers come in
    /// order: a download behind an upload is answered with it, and takes as long
    #[arg(long, value_name = "N", default_value = "1")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub in_flight: u16,

    /// How large files are: 4096, 64KiB, 1GiB. Unless given 64 MiB (less for many uploads), and 4 KiB
    /// in the scenario `small`
    #[arg(long, value_name = "BYTES")]
    pub file_size: Option<Bytes>,

    /// How many files there are to download, and how many names to upload to: later uploads replace
    /// earlier ones, which servers have to do too
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub files: Option<u64>,

    /// Entries of the directory to list
    #[arg(long, value_name = "N", default_value = "1000")]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    pub entries: u64,

    /// Which verbs move files
    #[arg(long, value_enum, default_value = "auto")]
    pub verbs: Verbs,

    /// Where on the server to make the directory; unless given, where a login arrives
    #[arg(long, value_name = "DIR", value_parser = remote)]
    pub within: Option<String>,

    /// Download this file, or list this directory, and make nothing: for servers that cannot be
    /// written to
    #[arg(long, value_name = "PATH", value_parser = remote)]
    pub path: Option<String>,

    /// The server's process, on this machine: shows what it costs. Numbers behind it are more of
    /// them, as `--pid $(pidof hauld)` gives them; their children count anyway
    #[arg(long, value_name = "PID")]
    pub pid: Option<i32>,

    /// Start the server with this command, and stop it afterwards. It prints `listening on ADDRESS`,
    /// or --server says where it is
    #[arg(long, value_name = "COMMAND", conflicts_with = "pid")]
    pub spawn: Option<String>,

    /// Count the server's system calls, with strace, in a run of its own
    #[arg(long)]
    pub syscalls: bool,

    /// Write everything into a file, for --compare and other programs
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write a page with plots
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,

    /// Show how the figures of two files from --json differ, and do nothing else
    #[arg(long, num_args = 2, value_names = ["A", "B"], exclusive = true)]
    pub compare: Option<Vec<PathBuf>>,
}

const AFTER_HELP: &str = "\
Examples:
  haul bench download --spawn 'taskset -c 0 hauld --listen 127.0.0.1:0'
  haul bench small --in-flight 100 -c 1,32 --pid $(pidof hauld)
  haul --server ftp.example.org bench download --path pub/file -c 10
  haul bench noop -c 1000 --rate 20000 --json a.json --html a.html
  haul bench --compare a.json b.json

The generator is one thread. Give it a core of its own: taskset -c 1 haul bench ...";

/// What the sessions do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Fetch files, one behind the other
    Download,
    /// Store files
    Upload,
    /// Fetch and store many small files, in turn
    Small,
    /// Connect and log in, again and again
    Login,
    /// Log in and do nothing
    Idle,
    /// The smallest command
    Noop,
    /// List a directory
    List,
    /// What a file says
    Mix,
}

/// Which verbs move files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Verbs {
    /// Own ones where the server lists them
    Auto,
    /// UPLOAD and DOWNLOAD
    Own,
    /// RETR and STOR over data connections
    Standard,
}

impl Scenario {
    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Download => "download",
            Scenario::Upload => "upload",
            Scenario::Small => "small",
            Scenario::Login => "login",
            Scenario::Idle => "idle",
            Scenario::Noop => "noop",
            Scenario::List => "list",
            Scenario::Mix => "mix",
        }
    }
}

impl Arguments {
    /// What the sessions do, in which proportion.
    ///
    /// # Errors
    /// The file of a mix is missing or wrong.
    pub fn work(&self, scenario: Scenario) -> Result<Mix, Error> {
        let kinds: &[Kind] = match scenario {
            Scenario::Download => &[Kind::Download],
            Scenario::Upload => &[Kind::Upload],
            Scenario::Small => &[Kind::Download, Kind::Upload],
            Scenario::Login => &[Kind::Login],
            Scenario::Idle => &[],
            Scenario::Noop => &[Kind::Noop],
            Scenario::List => &[Kind::List],
            Scenario::Mix => {
                let [path] = self.files_of_mix() else {
                    return Err(Error::usage(
                        "mix needs one file with lines of KIND WEIGHT: haul bench mix FILE",
                    ));
                };
                let text = std::fs::read_to_string(path).map_err(|error| {
                    Error::local(&error).about(format_args!("cannot read {}", path.display()))
                })?;
                let mix = Mix::parse(&text);
                return mix.map_err(|said| Error::usage(format!("{}, {said}", path.display())));
            }
        };
        match self.files_of_mix() {
            [] => Ok(Mix::of(kinds)),
            [path, ..] => Err(Error::usage(format!(
                "only mix takes a file, and {} is one more argument than {} has",
                path.display(),
                scenario.name()
            ))),
        }
    }

    /// The words behind the scenario, but for the numbers at their end that belong to --pid.
    fn files_of_mix(&self) -> &[PathBuf] {
        let are_pids = self
            .mix
            .iter()
            .rev()
            .take_while(|word| as_pid(word).is_some());
        match self.pid {
            Some(_) => &self.mix[..self.mix.len() - are_pids.count()],
            None => &self.mix,
        }
    }

    /// The server's processes.
    pub fn pids(&self) -> Vec<i32> {
        let more = &self.mix[self.files_of_mix().len()..];
        let more = more.iter().filter_map(|word| as_pid(word));
        self.pid.into_iter().chain(more).collect()
    }

    /// The greatest number of sessions that there will be at a time.
    pub fn connections_most(&self) -> usize {
        self.connections.iter().copied().max().unwrap_or(1)
    }

    /// How large files are.
    pub fn file_bytes(&self, scenario: Scenario, mix: &Mix) -> u64 {
        let at_once = self.connections_most() as u64 * u64::from(self.in_flight);
        match self.file_size {
            Some(Bytes(bytes)) => bytes,
            None if scenario == Scenario::Small => 4096,
            None if mix.has(Kind::Upload) => {
                let fits = UPLOADS_BYTES_MAX / at_once.max(1);
                let power = 1 << fits.max(1).ilog2();
                u64::clamp(power, 64 << 10, 64 * MIB)
            }
            None => 64 * MIB,
        }
    }

    /// How many files there are.
    pub fn file_count(&self, file_bytes: u64) -> u64 {
        let fits = (FILES_BYTES_MAX / file_bytes.max(1)).clamp(1, FILES_MAX);
        self.files.unwrap_or(fits)
    }
}

fn connections(text: &str) -> Result<usize, String> {
    let number = text.trim().parse().ok();
    number
        .filter(|n| (1..=CONNECTIONS_MAX).contains(n))
        .ok_or_else(|| {
            format!("connections are a number from 1 to {CONNECTIONS_MAX}, or several: 1,10,100")
        })
}

fn as_pid(word: &Path) -> Option<i32> {
    word.to_str()?.parse().ok()
}

fn duration_or_none(text: &str) -> Result<Duration, String> {
    match text {
        "0" | "0s" => Ok(Duration::ZERO),
        _ => duration(text),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: Option<f64> = text.parse().ok();
    rate.filter(|rate| (0.001..=1e7).contains(rate))
        .ok_or_else(|| "a rate is operations per second, from 0.001 to 10000000".to_owned())
}

fn remote(text: &str) -> Result<String, String> {
    one_line("the name", text.as_bytes()).map_err(|error| error.to_string())?;
    match text {
        "" => Err("the name is empty".to_owned()),
        _ => Ok(text.to_owned()),
    }
}
