//! What is written down while the load runs: latencies per phase, bytes, errors by class, and how
//! all of it went over time.

use std::collections::BTreeMap;
use std::time::Instant;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::dialogue::{Done, Failure};
use super::operation::Kind;

/// Three digits are kept of every latency.
const DIGITS: u8 = 3;
/// Longer than any time-out: an hour.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
/// One point of the series over time.
pub const INTERVAL_NS: u64 = 250_000_000;
/// More classes of errors than this are one class.
const CLASSES_MAX: usize = 50;

/// Nanoseconds since the bench began.
#[derive(Debug)]
pub struct Clock(Instant);

impl Default for Clock {
    fn default() -> Clock {
        Clock(Instant::now())
    }
}

impl Clock {
    /// The time, in nanoseconds.
    pub fn now(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The parts of a session's life that are measured by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The TCP connection.
    Connect,
    /// The TLS handshake of the control connection.
    Tls,
    /// From there to the end of the login.
    Login,
    /// From the beginning of an operation to its first byte.
    FirstByte,
    /// From the beginning of an operation to its last reply.
    Complete,
}

impl Phase {
    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Connect => "connect",
            Phase::Tls => "TLS",
            Phase::Login => "login",
            Phase::FirstByte => "first byte",
            Phase::Complete => "complete",
        }
    }
}

/// An empty histogram of nanoseconds. What is beyond its end is counted there.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS).expect("these bounds are allowed")
}

/// A class of errors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors {
    /// How many there were.
    pub count: u64,
    /// What one of them said.
    pub example: String,
}

/// One point over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Seconds since the measuring began, at the end of the interval.
    pub second: f64,
    /// Operations done in it.
    pub operations: u64,
    /// Bytes moved in it.
    pub bytes: u64,
    /// Median of the latencies of its operations, in microseconds.
    pub p50_us: f64,
    /// Their 99th percentile, in microseconds.
    pub p99_us: f64,
}

/// Everything that is written down in one run.
#[derive(Debug)]
pub struct Measure {
    /// In nanoseconds.
    pub latencies: BTreeMap<(Phase, Kind), Histogram<u64>>,
    /// By class.
    pub errors: BTreeMap<String, Errors>,
    /// Done in the time that is measured.
    pub operations: u64,
    /// The same by kind.
    pub by_kind: BTreeMap<Kind, u64>,
    /// Moved in the time that is measured.
    pub bytes: u64,
    /// In the order of time.
    pub series: Vec<Point>,
    is_on: bool,
    began: u64,
    interval: Histogram<u64>,
    interval_began: u64,
    interval_bytes: u64,
}

impl Default for Measure {
    fn default() -> Measure {
        Measure {
            latencies: BTreeMap::new(),
            errors: BTreeMap::new(),
            operations: 0,
            by_kind: BTreeMap::new(),
            bytes: 0,
            series: Vec::new(),
            is_on: false,
            began: 0,
            interval: histogram(),
            interval_began: 0,
            interval_bytes: 0,
        }
    }
}

impl Measure {
    /// From now on it counts. What was learned of connections stays: they are made before.
    pub fn begin(&mut self, now: u64) {
        self.is_on = true;
        self.began = now;
        self.interval_began = now;
    }

    /// From now on nothing counts. Returns how long it did, in nanoseconds.
    pub fn end(&mut self, now: u64) -> u64 {
        if !self.is_on {
            return 0;
        }
        self.is_on = false;
        // The last interval is as long as it is; a stub would be noise.
        if now - self.interval_began >= INTERVAL_NS / 2 || self.series.is_empty() {
            self.close_interval(now);
        }
        now - self.began
    }

    /// Whether it counts.
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// How long a phase of a connection took.
    pub fn phase(&mut self, phase: Phase, nanoseconds: u64) {
        self.record(phase, Kind::Login, nanoseconds);
    }

    /// An operation that is done.
    pub fn done(&mut self, done: &Done) {
        if !self.is_on || done.kind == Kind::Errand {
            return;
        }
        let latency = done.ended.saturating_sub(done.began);
        self.operations += 1;
        *self.by_kind.entry(done.kind).or_default() += 1;
        self.record(Phase::Complete, done.kind, latency);
        self.interval.saturating_record(latency);
        if let Some(first) = done.first {
            let latency = first.saturating_sub(done.began);
            self.record(Phase::FirstByte, done.kind, latency);
        }
    }

    /// Bytes that moved.
    pub fn moved(&mut self, bytes: u64) {
        if self.is_on {
            self.bytes += bytes;
            self.interval_bytes += bytes;
        }
    }

    /// What went wrong counts at any time.
    pub fn failed(&mut self, failure: Failure) {
        let mut class = failure.class;
        if self.errors.len() >= CLASSES_MAX && !self.errors.contains_key(&class) {
            class = "other errors".to_owned();
        }
        let errors = self.errors.entry(class).or_insert_with(|| Errors {
            count: 0,
            example: failure.example,
        });
        errors.count += 1;
    }

    /// All errors.
    pub fn error_count(&self) -> u64 {
        self.errors.values().map(|errors| errors.count).sum()
    }

    /// Time passes.
    pub fn tick(&mut self, now: u64) {
        if self.is_on && now - self.interval_began >= INTERVAL_NS {
            self.close_interval(now);
        }
    }

    fn close_interval(&mut self, now: u64) {
        let at = |quantile| self.interval.value_at_quantile(quantile) as f64 / 1e3;
        self.series.push(Point {
            second: (now - self.began) as f64 / 1e9,
            operations: self.interval.len(),
            bytes: self.interval_bytes,
            p50_us: at(0.5),
            p99_us: at(0.99),
        });
        self.interval.reset();
        self.interval_began = now;
        self.interval_bytes = 0;
    }

    fn record(&mut self, phase: Phase, kind: Kind, nanoseconds: u64) {
        let histogram = self
            .latencies
            .entry((phase, kind))
            .or_insert_with(histogram);
        histogram.saturating_record(nanoseconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(began: u64, ended: u64) -> Done {
        Done {
            kind: Kind::Noop,
            began,
            first: None,
            ended,
        }
    }

    #[test]
    fn only_the_time_between_begin_and_end_counts() {
        let mut measure = Measure::default();
        measure.done(&done(0, 10));
        measure.moved(5);
        measure.begin(100);
        measure.done(&done(90, 110));
        measure.moved(7);
        assert_eq!(measure.end(1100), 1000);
        measure.done(&done(0, 2000));
        measure.moved(9);
        assert_eq!((measure.operations, measure.bytes), (1, 7));
        let latencies = &measure.latencies[&(Phase::Complete, Kind::Noop)];
        assert_eq!((latencies.len(), latencies.max()), (1, 20));
    }

    #[test]
    fn quantiles_have_three_digits() {
        let mut histogram = histogram();
        (1..=100_000u64).for_each(|n| histogram.saturating_record(n * 1000));
        for (quantile, expected) in [(0.5, 5e7), (0.9, 9e7), (0.99, 9.9e7), (0.999, 9.99e7)] {
            let found = histogram.value_at_quantile(quantile) as f64;
            assert!((found / expected - 1.0).abs() < 2e-3, "{quantile}: {found}");
        }
    }

    #[test]
    fn the_series_has_one_point_per_interval() {
        let mut measure = Measure::default();
        measure.begin(0);
        for i in 1..=4 {
            measure.done(&done(0, 5_000));
            measure.moved(10);
            measure.tick(i * INTERVAL_NS);
        }
        measure.end(4 * INTERVAL_NS + 1);
        assert_eq!(measure.series.len(), 4);
        let total: u64 = measure.series.iter().map(|point| point.bytes).sum();
        assert_eq!(total, 40);
        assert_eq!(measure.series[1].second, 0.5);
        assert!((measure.series[3].p99_us - 5.0).abs() < 0.01);
    }

    #[test]
    fn errors_are_counted_by_class_and_the_classes_are_bounded() {
        let mut measure = Measure::default();
        measure.failed(Failure::new("550 to download", "550 a"));
        measure.failed(Failure::new("550 to download", "550 b"));
        assert_eq!(measure.errors["550 to download"].count, 2);
        assert_eq!(measure.errors["550 to download"].example, "550 a");
        (0..1000).for_each(|i| measure.failed(Failure::new(format!("{i}"), "")));
        assert!(measure.errors.len() <= CLASSES_MAX + 1);
        assert_eq!(measure.error_count(), 1002);
    }
}
