//! The course of a bench: from the command line to the report.

mod errands;
mod setting;

use std::io::{Write, stderr, stdout};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::client::server::{Secret, Server};
use crate::client::{
    self,
    error::{Error, Exit},
};
use errands::no_session;

use crate::bench::arguments::{Arguments, Scenario, Verbs};
use crate::bench::dialogue::Manner;
use crate::bench::engine::{Engine, Ground, Length, Moment, Ran, Terms};
use crate::bench::live::Live;
use crate::bench::measure::{Measure, Phase};
use crate::bench::mix::Mix;
use crate::bench::operation::Kind;
use crate::bench::report::{Distribution, Load as LoadReport, Report, Run, quantiles};
use crate::bench::server_process::{ServerProcess, Used};
use crate::bench::syscalls::Counter;
use crate::bench::work::{Files, Load, Work};
use crate::bench::{compare, html, machine, report, table};

/// How long the run takes in which system calls are counted.
const SYSCALLS_TIME: Duration = Duration::from_secs(2);
/// A generator that is busier than this was what limited the result.
const BUSY_MAX: f64 = 0.95;
/// Runs that differ by more say little.
const SPREAD_PERCENT_MAX: f64 = 20.0;

/// What the program knows beside the bench's own arguments.
#[derive(Debug)]
pub struct Context {
    /// Where it was said.
    pub server: Option<Server>,
    /// The longest wait for a reply.
    pub timeout: Duration,
    /// Everything inside TLS.
    pub is_secure: bool,
    /// What was said about certificates.
    pub trust: Arc<client::trust::Trust>,
    /// Only errors, and the report.
    pub is_quiet: bool,
    /// A password may cross a network in clear.
    pub insecure_plaintext: bool,
    /// From the environment.
    pub password: Option<Secret>,
}

/// Does what the arguments say.
pub fn run(arguments: &Arguments, context: &Context) -> Exit {
    let done = match (&arguments.compare, arguments.scenario) {
        (Some(paths), _) => compared(paths),
        (None, Some(scenario)) => Bench::new(arguments, context, scenario).and_then(Bench::run),
        (None, None) => Err(Error::usage("say what the sessions are to do")),
    };
    done.unwrap_or_else(|error| {
        crate::client::commands::report(&error);
        error.exit
    })
}

fn compared(paths: &[std::path::PathBuf]) -> Result<Exit, Error> {
    let read = |path: &Path| compare::read(path).map_err(|said| Error::new(Exit::Local, said));
    if let [a, b] = paths {
        print(&compare::render(&read(a)?, &read(b)?))?;
    }
    Ok(Exit::Done)
}

/// A reader that has gone is no error of ours.
fn print(text: &str) -> Result<(), Error> {
    match stdout()
        .write_all(text.as_bytes())
        .and_then(|()| stdout().flush())
    {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::local(&error)),
        _ => Ok(()),
    }
}

struct Bench<'a> {
    arguments: &'a Arguments,
    is_quiet: bool,
    /// TLS from the first byte.
    is_implicit: bool,
    scenario: Scenario,
    ground: Ground,
    process: Option<ServerProcess>,
    user: Vec<u8>,
    password: Vec<u8>,
    mix: Mix,
    report: Report,
    interrupted: Arc<AtomicBool>,
}

impl<'a> Bench<'a> {
    fn run(mut self) -> Result<Exit, Error> {
        let has_standard_verbs = self.arguments.verbs != Verbs::Own;
        let asking = Rc::new(self.manner(false, true, true));
        let first = self.perform(&asking, Vec::new(), &mut Measure::default())?;
        self.report.greeting = first.greeting;
        self.report.tls = first.agreed;
        let features = first.features;
        let knows_own = features.download && features.upload.is_some();
        if !has_standard_verbs && !knows_own {
            return Err(Error::usage(
                "the server does not list UPLOAD and DOWNLOAD; use --verbs standard",
            ));
        }
        let own_verbs = knows_own && self.arguments.verbs != Verbs::Standard;
        let moves_files = self.mix.has(Kind::Download) || self.mix.has(Kind::Upload);
        if self.arguments.in_flight > 1 && moves_files && !own_verbs {
            return Err(Error::usage(
                "--in-flight needs UPLOAD and DOWNLOAD: over data connections a session moves one \
                 file at a time; use more --connections",
            ));
        }
        // Only what goes over data connections takes a second descriptor.
        let has_data_connections = self.mix.has(Kind::List) || moves_files && !own_verbs;
        machine::raise_descriptors(self.arguments.connections_most(), has_data_connections)
            .map_err(Error::usage)?;
        // TYPE I is part of what a session with data connections needs, and of no other.
        let mut manner = self.manner(own_verbs, moves_files && !own_verbs, false);
        manner.has_mlsd = features.mlst;
        let manner = Rc::new(manner);
        let mut load = self.load();
        self.describe(own_verbs, &load);

        let before = self.process.as_ref().map(ServerProcess::used);
        let result = self
            .prepare(&manner, &load)
            .and_then(|()| self.loads(&manner, &mut load, before));
        self.clean(&manner, &load);
        self.doubts();
        // What was measured before something went wrong holds all the same.
        if result.is_ok() || self.runs().next().is_some() {
            self.write()?;
        }
        if result? {
            return Err(Error::broken(
                "interrupted; the figures are of what was done by then",
            ));
        }
        let done: u64 = self.runs().map(|run| run.operations).sum();
        let failed = self.runs().any(|run| !run.errors.is_empty());
        Ok(match (failed, done) {
            (false, _) => Exit::Done,
            (true, 0) => Exit::Broken,
            (true, _) => Exit::SomeFailed,
        })
    }

    fn runs(&self) -> impl Iterator<Item = &Run> {
        self.report.loads.iter().flat_map(|load| &load.runs)
    }

    fn manner(&self, own_verbs: bool, is_binary: bool, asks_features: bool) -> Manner {
        Manner {
            user: self.user.clone(),
            password: self.password.clone(),
            is_secure: self.ground.trust.is_some(),
            is_implicit: self.is_implicit,
            is_binary,
            asks_features,
            own_verbs,
            has_mlsd: false,
            content: self.ground.content.beginning().to_vec(),
        }
    }

    fn load(&self) -> Load {
        let arguments = self.arguments;
        let bytes = arguments.file_bytes(self.scenario, &self.mix);
        let mut name = [0; 4];
        // Two benches on one server need two names; the process number alone would nearly do.
        let _ = getrandom::fill(&mut name);
        let id = u32::from_ne_bytes(name);
        let directory = format!("haul-bench-{}-{id:08x}", std::process::id());
        let directory = match &arguments.within {
            Some(within) => format!("{}/{directory}", within.trim_end_matches('/')),
            None => directory,
        };
        let files = Files {
            directory: directory.into_bytes(),
            path: arguments
                .path
                .as_ref()
                .map(|path| path.clone().into_bytes()),
            bytes,
            count: arguments.file_count(bytes),
            entries: arguments.entries,
        };
        let (most, in_flight) = (arguments.connections_most(), arguments.in_flight.into());
        Load::new(self.mix.clone(), files, most, in_flight)
    }

    fn describe(&mut self, own_verbs: bool, load: &Load) {
        let arguments = self.arguments;
        let mut settings = Vec::new();
        let mut set = |name: &str, value: String| settings.push((name.to_owned(), value));
        set("greeting", self.report.greeting.clone());
        if self.mix.has(Kind::Download) || self.mix.has(Kind::Upload) {
            let verbs = match own_verbs {
                true => "DOWNLOAD and UPLOAD",
                false => "RETR and STOR over EPSV or PASV",
            };
            set("verbs", verbs.to_owned());
            match &arguments.path {
                Some(path) => set("file", path.clone()),
                None => {
                    let bytes = arguments.file_bytes(self.scenario, &self.mix);
                    let count = arguments.file_count(bytes);
                    set("files", format!("{count} of {}", crate::text::Bytes(bytes)));
                }
            }
        }
        if self.mix.has(Kind::List) {
            match &arguments.path {
                Some(path) => set("directory", path.clone()),
                None => set("directory", format!("{} entries", arguments.entries)),
            }
        }
        set("in flight", arguments.in_flight.to_string());
        if let Some(rate) = arguments.rate {
            set(
                "rate",
                format!("{rate} operations/s, latency from when they were due"),
            );
        }
        let length = match arguments.requests {
            Some(n) => format!("{n} operations"),
            None => format!("{} s", arguments.duration.as_secs()),
        };
        let warm_up = arguments.warm_up.as_secs();
        let runs = arguments.runs;
        set(
            "runs",
            format!("{runs} of {length}, each after {warm_up} s of warming up"),
        );
        self.report.settings = settings;
        let ip = self.ground.server.ip();
        if !self.is_quiet && !ip.to_canonical().is_loopback() {
            let note = format!(
                "haul: up to {} connections to {} at a time, {runs} times {length} each{}\n",
                arguments.connections_most(),
                self.report.server,
                match load.needs_directory() {
                    true => "; its files are removed afterwards",
                    false => "",
                }
            );
            let _ = stderr().write_all(note.as_bytes());
        }
    }

    fn say(&self, what: &str) {
        Live::new(self.is_quiet).say(what);
    }

    /// All runs of all numbers of connections, in turns. True: a signal ended them.
    fn loads(
        &mut self,
        manner: &Rc<Manner>,
        load: &mut Load,
        before: Option<Used>,
    ) -> Result<bool, Error> {
        let arguments = self.arguments;
        self.report.loads = arguments
            .connections
            .iter()
            .map(|&connections| LoadReport {
                connections,
                runs: Vec::new(),
                distributions: Vec::new(),
                syscalls: None,
            })
            .collect();
        let mut all: Vec<Measure> = Vec::new();
        all.resize_with(arguments.connections.len(), Measure::default);
        for number in 0..arguments.runs {
            for (at, &connections) in arguments.connections.iter().enumerate() {
                let what = format!(
                    "{}, run {} of {}",
                    report::connections(connections),
                    number + 1,
                    arguments.runs
                );
                let terms = self.terms(connections);
                let mut measure = Measure::default();
                let run = match self.measured(&what, manner, terms, load, &mut measure, before) {
                    Ok(run) => run,
                    Err(error) => {
                        self.distributions(&all);
                        return Err(error);
                    }
                };
                let was_interrupted = self.interrupted.load(Ordering::Relaxed);
                if run.seconds > 0.0 {
                    self.report.loads[at].runs.push(run);
                }
                for (key, histogram) in measure.latencies {
                    let merged = all[at].latencies.entry(key);
                    let merged = merged.or_insert_with(crate::bench::measure::histogram);
                    // Both have the same digits, so it always fits.
                    let _ = merged.add(&histogram);
                }
                if was_interrupted {
                    self.distributions(&all);
                    return Ok(true);
                }
            }
        }
        self.distributions(&all);
        if arguments.syscalls {
            for at in 0..arguments.connections.len() {
                self.count_syscalls(at, manner, load)?;
            }
        }
        Ok(self.interrupted.load(Ordering::Relaxed))
    }

    fn distributions(&mut self, all: &[Measure]) {
        for (load, measure) in self.report.loads.iter_mut().zip(all) {
            let complete = measure.latencies.iter();
            let complete = complete.filter(|((phase, _), _)| *phase == Phase::Complete);
            load.distributions = complete
                .map(|((_, kind), histogram)| Distribution {
                    kind: *kind,
                    quantiles: quantiles(histogram),
                })
                .collect();
        }
    }

    fn terms(&self, sessions: usize) -> Terms {
        let arguments = self.arguments;
        let logins_only = self
            .mix
            .shares
            .iter()
            .all(|share| share.kind == Kind::Login);
        Terms {
            sessions,
            in_flight: arguments.in_flight.into(),
            logins_only: logins_only && !self.mix.shares.is_empty(),
            ramp_ns: nanoseconds(arguments.ramp),
            warm_up_ns: nanoseconds(arguments.warm_up),
            length: match arguments.requests {
                Some(n) => Length::Operations(n),
                None => Length::Time(nanoseconds(arguments.duration)),
            },
            per_second: arguments.rate,
        }
    }

    fn measured(
        &mut self,
        what: &str,
        manner: &Rc<Manner>,
        terms: Terms,
        load: &mut dyn Work,
        measure: &mut Measure,
        before: Option<Used>,
    ) -> Result<Run, Error> {
        let process = self.process.as_ref();
        let mut live = Live::new(self.is_quiet);
        let mut own = (0.0, 0.0);
        let (mut begun, mut ended) = (None, None);
        let mut memory = None;
        let clock = &self.ground.clock;
        let mut watch = |moment, measure: &Measure| match moment {
            Moment::Open if !terms.logins_only => {
                memory = process.and_then(|it| it.used().memory_bytes);
            }
            Moment::Open => {}
            Moment::Begin => {
                begun = process.map(ServerProcess::used);
                own.0 = machine::own_cpu_s();
            }
            Moment::Tick(open) => live.tick(what, open, measure, clock.now()),
            Moment::End => {
                own.1 = machine::own_cpu_s();
                ended = process.map(ServerProcess::used);
            }
        };
        let ran = Engine::run(&self.ground, manner, terms, load, measure, &mut watch);
        live.clear();
        let ran = ran.map_err(|failure| no_session(&failure))?;
        let mut run = Run::new(measure, ran.measured_ns as f64 / 1e9);
        run.generator_cpu_s = own.1 - own.0;
        if let (Some(begun), Some(ended)) = (begun, ended) {
            run.server_cpu_s = Some(ended.cpu_s - begun.cpu_s);
            let disk = ended
                .disk_bytes
                .unwrap_or(0)
                .saturating_sub(begun.disk_bytes.unwrap_or(0));
            if disk * 100 > run.bytes && disk > 1 << 20 {
                self.doubt(format!(
                    "the server read {} MiB from a disk while it was measured: its files were not \
                     in memory",
                    disk >> 20
                ));
            }
        }
        if let (Some(now), Some(Some(before))) = (memory, before.map(|it| it.memory_bytes)) {
            run.server_memory_bytes = Some(now as f64 - before as f64);
        }
        self.doubt_run(what, terms.sessions, &ran, run.operations);
        Ok(run)
    }

    /// What the course of a run gives reason to doubt.
    fn doubt_run(&mut self, what: &str, sessions: usize, ran: &Ran, operations: u64) {
        if ran.late * 1000 > operations {
            self.doubt(format!(
                "with {what}, {} operations began over a millisecond late: the generator could not \
                 keep up with --rate",
                ran.late
            ));
        }
        if ran.waiting > 0 && !ran.was_interrupted {
            self.doubt(format!(
                "with {what}, {} operations were still waiting for a session when the time was over: \
                 the server does not keep up with --rate, or --connections are too few",
                ran.waiting
            ));
        }
        if self.scenario == Scenario::Idle && ran.open < sessions && !ran.was_interrupted {
            self.doubt(format!(
                "with {what}, only {} were open at the end",
                ran.open
            ));
        }
    }

    fn count_syscalls(
        &mut self,
        at: usize,
        manner: &Rc<Manner>,
        load: &mut Load,
    ) -> Result<(), Error> {
        let Some(process) = &self.process else {
            return Ok(());
        };
        let mut terms = self.terms(self.report.loads[at].connections);
        if terms.length != Length::Work && self.arguments.requests.is_none() {
            terms.length = Length::Time(nanoseconds(SYSCALLS_TIME));
        }
        let mut measure = Measure::default();
        let mut counter = None;
        let mut counted = None;
        let mut watch = |moment, measure: &Measure| match moment {
            Moment::Begin => {
                counter = Some(Counter::attach(&process.family()));
            }
            Moment::End => {
                let counter = counter.take();
                counted = counter.map(|it| it.and_then(|it| it.detach(measure.operations)));
            }
            Moment::Open | Moment::Tick(_) => {}
        };
        Engine::run(&self.ground, manner, terms, load, &mut measure, &mut watch)
            .map_err(|failure| no_session(&failure))?;
        match counted {
            Some(Ok(counted)) => self.report.loads[at].syscalls = Some(counted),
            Some(Err(said)) => self.doubt(said),
            None => {}
        }
        Ok(())
    }

    fn doubt(&mut self, warning: String) {
        if !self.report.warnings.contains(&warning) {
            self.report.warnings.push(warning);
        }
    }

    /// What the figures themselves give reason to doubt.
    fn doubts(&mut self) {
        let mut doubts = Vec::new();
        for load in &self.report.loads {
            let connections = report::connections(load.connections);
            let busy = load
                .runs
                .iter()
                .map(Run::generator_busy)
                .fold(0.0, f64::max);
            if busy > BUSY_MAX {
                doubts.push(format!(
                    "the generator used {:.0} % of its core with {connections}: it was \
                     the bottleneck, and the server may be capable of more",
                    100.0 * busy
                ));
            }
            let ends_nothing = |run: &Run| run.operations == 0 && run.bytes > 0;
            if load.runs.iter().any(ends_nothing) {
                doubts.push(format!(
                    "with {connections} no operation ended while it was measured: smaller files \
                     (--file-size) or longer runs (--duration) have latencies too"
                ));
            }
            for (figure, spread) in load.spreads(Run::figures) {
                if figure.name == "operations/s" && spread.percent() > SPREAD_PERCENT_MAX {
                    doubts.push(format!(
                        "the runs with {connections} differ by {:.0} %: take more of \
                         them, or longer ones, or a quieter machine",
                        spread.percent()
                    ));
                }
            }
        }
        doubts.into_iter().for_each(|doubt| self.doubt(doubt));
    }

    fn write(&self) -> Result<(), Error> {
        print(&table::render(&self.report))?;
        let write = |path: &Path, text: String| {
            std::fs::write(path, text).map_err(|error| Error::local(&error).about(path.display()))
        };
        if let Some(path) = &self.arguments.json {
            let json = serde_json::to_string_pretty(&self.report)
                .map_err(|error| Error::new(Exit::Local, format!("JSON: {error}")))?;
            write(path, json + "\n")?;
        }
        if let Some(path) = &self.arguments.html {
            write(path, html::render(&self.report))?;
        }
        Ok(())
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
