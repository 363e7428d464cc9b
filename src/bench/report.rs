//! What was found, as it is kept in files and shown in tables. Figures are computed here and nowhere
//! else.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::measure::{Errors, Measure, Phase, Point};
use super::operation::Kind;
use super::syscalls::Syscalls;

/// Files get a new number when old readers would misread them.
pub const FORMAT: u32 = 1;
/// Memory per session is told from so many sessions on; with fewer it is all noise.
const SESSIONS_MIN: usize = 100;

/// A whole bench.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// Version of haul.
    pub haul: String,
    /// When it began, in seconds since 1970.
    pub began_s: u64,
    /// What was done.
    pub scenario: String,
    /// To whom.
    pub server: String,
    /// What it said first.
    pub greeting: String,
    /// What TLS agreed on.
    pub tls: Option<String>,
    /// Where the load came from.
    pub machine: String,
    /// How it was done: pairs of a name and a value.
    pub settings: Vec<(String, String)>,
    /// One per number of connections, in the order of the command line.
    pub loads: Vec<Load>,
    /// What makes the figures doubtful.
    pub warnings: Vec<String>,
}

/// All runs with one number of connections.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Load {
    /// Sessions.
    pub connections: usize,
    /// In the order of time.
    pub runs: Vec<Run>,
    /// Latency of all runs' operations together, per kind.
    pub distributions: Vec<Distribution>,
    /// Counted in a run of its own.
    pub syscalls: Option<Syscalls>,
}

/// One run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// How long was measured.
    pub seconds: f64,
    /// Done in that time.
    pub operations: u64,
    /// The same by kind.
    pub by_kind: BTreeMap<String, u64>,
    /// Moved in that time.
    pub bytes: u64,
    /// Processor time of the generator.
    pub generator_cpu_s: f64,
    /// Processor time of the server.
    pub server_cpu_s: Option<f64>,
    /// By which the server grew, from nobody to everybody connected.
    pub server_memory_bytes: Option<f64>,
    /// Latencies.
    pub phases: Vec<PhaseRow>,
    /// By class.
    pub errors: BTreeMap<String, Errors>,
    /// Over time.
    pub series: Vec<Point>,
}

/// Latencies of one phase.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PhaseRow {
    /// Which.
    pub phase: Phase,
    /// Of which operations.
    pub kind: Kind,
    /// How many.
    pub count: u64,
    /// Microseconds.
    pub p50_us: f64,
    /// Microseconds.
    pub p90_us: f64,
    /// Microseconds.
    pub p99_us: f64,
    /// Microseconds.
    pub p999_us: f64,
    /// Microseconds.
    pub max_us: f64,
}

/// How latencies are distributed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Distribution {
    /// Of which operations.
    pub kind: Kind,
    /// Pairs of a quantile and microseconds.
    pub quantiles: Vec<(f64, f64)>,
}

/// One figure of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// What it is, with its unit.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Whether more is better.
    pub more_is_better: bool,
}

/// A figure over several runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The one in the middle.
    pub median: f64,
    /// The least.
    pub low: f64,
    /// The most.
    pub high: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            1 => values[middle],
            _ => (values[middle - 1] + values[middle]) / 2.0,
        };
        Some(Spread { median, low, high })
    }

    /// How far the values are from the median at most, in percent of it.
    pub fn percent(&self) -> f64 {
        let farthest = (self.high - self.median).max(self.median - self.low);
        match self.median {
            0.0 => 0.0,
            median => 100.0 * farthest / median,
        }
    }
}

impl Run {
    /// From what was written down.
    pub fn new(measure: &Measure, seconds: f64) -> Run {
        let row = |(&(phase, kind), histogram): (&(Phase, Kind), &Histogram<u64>)| {
            let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
            PhaseRow {
                phase,
                kind,
                count: histogram.len(),
                p50_us: at(0.5),
                p90_us: at(0.9),
                p99_us: at(0.99),
                p999_us: at(0.999),
                max_us: histogram.max() as f64 / 1e3,
            }
        };
        let by_kind = measure.by_kind.iter();
        Run {
            seconds,
            operations: measure.operations,
            by_kind: by_kind
                .map(|(kind, n)| (kind.name().to_owned(), *n))
                .collect(),
            bytes: measure.bytes,
            generator_cpu_s: 0.0,
            server_cpu_s: None,
            server_memory_bytes: None,
            phases: measure.latencies.iter().map(row).collect(),
            errors: measure.errors.clone(),
            series: measure.series.clone(),
        }
    }

    /// What can be said about it in one number each, latencies aside.
    pub fn figures(&self, connections: usize) -> Vec<Figure> {
        const GIB: f64 = (1u64 << 30) as f64;
        let mut figures = Vec::new();
        let mut figure = |name: &str, value: f64, more_is_better| {
            figures.push(Figure {
                name: name.to_owned(),
                value,
                more_is_better,
            });
        };
        let (operations, bytes) = (self.operations as f64, self.bytes as f64);
        if self.operations > 0 {
            figure("operations/s", operations / self.seconds, true);
        }
        if self.bytes > 0 {
            figure("MiB/s", bytes / self.seconds / f64::from(1 << 20), true);
        }
        if let Some(cpu_s) = self.server_cpu_s {
            if self.bytes > 0 {
                figure("server CPU s/GiB", cpu_s / (bytes / GIB), false);
            }
            if self.operations > 0 {
                figure("server CPU us/operation", 1e6 * cpu_s / operations, false);
            }
            figure("server CPU %", 100.0 * cpu_s / self.seconds, false);
        }
        figure("generator CPU %", 100.0 * self.generator_busy(), false);
        if let Some(bytes) = self
            .server_memory_bytes
            .filter(|_| connections >= SESSIONS_MIN)
        {
            let each = bytes / connections as f64 / 1024.0;
            figure("server KiB/session", each, false);
        }
        figures
    }

    /// The share of one core that the generator used.
    pub fn generator_busy(&self) -> f64 {
        self.generator_cpu_s / self.seconds
    }

    /// All figures, latencies among them.
    pub fn all_figures(&self, connections: usize) -> Vec<Figure> {
        let mut figures = self.figures(connections);
        for row in &self.phases {
            for (name, value) in [("p50", row.p50_us), ("p99", row.p99_us)] {
                figures.push(Figure {
                    name: format!("{} {name} us", row.name()),
                    value,
                    more_is_better: false,
                });
            }
        }
        figures
    }
}

impl PhaseRow {
    /// The phase, and of what where that is not plain.
    pub fn name(&self) -> String {
        match (self.phase, self.kind) {
            (Phase::Complete | Phase::FirstByte, kind) => {
                format!("{}, {}", kind.name(), self.phase.name())
            }
            _ => self.phase.name().to_owned(),
        }
    }
}

impl Load {
    /// Each figure over all runs that have it, in the order of the first run.
    pub fn spreads(&self, of: impl Fn(&Run, usize) -> Vec<Figure>) -> Vec<(Figure, Spread)> {
        let all: Vec<Vec<Figure>> = self
            .runs
            .iter()
            .map(|run| of(run, self.connections))
            .collect();
        let Some(first) = all.first() else {
            return Vec::new();
        };
        let spread = |figure: &Figure| {
            let same = all.iter().flatten().filter(|it| it.name == figure.name);
            let spread = Spread::of(same.map(|it| it.value))?;
            Some((figure.clone(), spread))
        };
        first.iter().filter_map(spread).collect()
    }

    /// Each phase with the medians of its quantiles over all runs, and the greatest maximum.
    pub fn phases(&self) -> Vec<PhaseRow> {
        let mut rows: BTreeMap<(Phase, Kind), Vec<&PhaseRow>> = BTreeMap::new();
        for row in self.runs.iter().flat_map(|run| &run.phases) {
            rows.entry((row.phase, row.kind)).or_default().push(row);
        }
        let merged = |((phase, kind), rows): ((Phase, Kind), Vec<&PhaseRow>)| {
            let spread = |of: fn(&PhaseRow) -> f64| Spread::of(rows.iter().map(|row| of(row)));
            let median = |of| spread(of).map_or(0.0, |spread| spread.median);
            PhaseRow {
                phase,
                kind,
                count: rows.iter().map(|row| row.count).sum(),
                p50_us: median(|row| row.p50_us),
                p90_us: median(|row| row.p90_us),
                p99_us: median(|row| row.p99_us),
                p999_us: median(|row| row.p999_us),
                max_us: spread(|row| row.max_us).map_or(0.0, |spread| spread.high),
            }
        };
        rows.into_iter().map(merged).collect()
    }

    /// Errors of all runs.
    pub fn errors(&self) -> BTreeMap<String, Errors> {
        let mut all: BTreeMap<String, Errors> = BTreeMap::new();
        for (class, errors) in self.runs.iter().flat_map(|run| &run.errors) {
            let sum = all.entry(class.clone()).or_insert_with(|| Errors {
                count: 0,
                example: errors.example.clone(),
            });
            sum.count += errors.count;
        }
        all
    }
}

/// `1 connection`, `16 connections`.
pub fn connections(count: usize) -> String {
    match count {
        1 => "1 connection".to_owned(),
        _ => format!("{count} connections"),
    }
}

/// The quantiles that a curve is drawn through: finer the closer to the maximum.
pub fn quantiles(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let mut wanted: Vec<f64> = (0..18).map(|i| f64::from(i) / 20.0).collect();
    for nines in 1..6 {
        let step = 10f64.powi(-nines) / 10.0;
        wanted.extend((0..9).map(|i| 1.0 - 10f64.powi(-nines) + f64::from(i) * step));
    }
    let smallest_share = 1.0 / histogram.len().max(1) as f64;
    let is_known = |quantile: &f64| *quantile < 0.9 || 1.0 - quantile >= 0.999 * smallest_share;
    wanted.retain(is_known);
    let point = |quantile| (quantile, histogram.value_at_quantile(quantile) as f64 / 1e3);
    wanted.into_iter().map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_have_a_middle_and_two_ends() {
        let spread = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.low, spread.high), (2.0, 1.0, 3.0));
        assert_eq!(spread.percent(), 50.0);
        assert_eq!(Spread::of([1.0, 3.0]).unwrap().median, 2.0);
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([0.0]).unwrap().percent(), 0.0);
    }

    #[test]
    fn figures_follow_from_what_was_counted() {
        let mut run = Run::new(&Measure::default(), 2.0);
        run.operations = 1000;
        run.bytes = 1 << 30;
        run.server_cpu_s = Some(0.5);
        run.generator_cpu_s = 1.0;
        run.server_memory_bytes = Some(200.0 * 1024.0);
        let of = |connections| -> Vec<(String, f64)> {
            let figures = run.figures(connections).into_iter();
            figures.map(|figure| (figure.name, figure.value)).collect()
        };
        let expected = [
            ("operations/s", 500.0),
            ("MiB/s", 512.0),
            ("server CPU s/GiB", 0.5),
            ("server CPU us/operation", 500.0),
            ("server CPU %", 25.0),
            ("generator CPU %", 50.0),
            ("server KiB/session", 2.0),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(of(100), expected);
        assert_eq!(
            of(10).len(),
            expected.len() - 1,
            "too few to say what one takes"
        );
    }

    #[test]
    fn curves_go_no_further_than_what_was_seen() {
        let mut histogram = super::super::measure::histogram();
        (1..=1000u64).for_each(|n| histogram.saturating_record(n * 1000));
        let curve = quantiles(&histogram);
        let last = curve.last().unwrap();
        assert!((0.998..=0.9991).contains(&last.0), "{last:?}");
        assert!(curve.is_sorted());
    }
}
