//! Two reports side by side: how much of each figure of the first the second has, and between what
//! this ratio lies when every run of the one meets every run of the other.

use std::fmt::Write;
use std::path::Path;

use super::report::{FORMAT, Report, Run, Spread, connections};
use super::table::{number, with_spread};

/// The ratio of two figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    /// Of the medians.
    pub median: f64,
    /// The least that two runs have.
    pub low: f64,
    /// The most.
    pub high: f64,
}

impl Ratio {
    /// `b` to `a`; `None` if there is nothing to divide by.
    pub fn of(a: &Spread, b: &Spread) -> Option<Ratio> {
        (a.low > 0.0).then(|| Ratio {
            median: b.median / a.median,
            low: b.low / a.high,
            high: b.high / a.low,
        })
    }

    /// Whether even the runs that are closest to each other differ, and in which direction.
    pub fn verdict(&self, more_is_better: bool) -> &'static str {
        match (self.low > 1.0, self.high < 1.0) {
            (true, _) if more_is_better => "better",
            (_, true) if !more_is_better => "better",
            (false, false) => "within the spread",
            _ => "worse",
        }
    }
}

/// Reads a report.
///
/// # Errors
/// A sentence with the name of the file.
pub fn read(path: &Path) -> Result<Report, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{shown}: {}", crate::text::plain(&error)))?;
    let report: Report = serde_json::from_str(&text)
        .map_err(|error| format!("{shown} is no report of haul bench --json: {error}"))?;
    match report.format {
        FORMAT => Ok(report),
        other => Err(format!(
            "{shown} has format {other}, and this haul reads {FORMAT}; make it again"
        )),
    }
}

/// All figures that both have.
pub fn render(a: &Report, b: &Report) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "A: {} on {}, {}", a.scenario, a.server, a.machine);
    let _ = writeln!(text, "B: {} on {}, {}", b.scenario, b.server, b.machine);
    for (name, value) in &a.settings {
        let other = b.settings.iter().find(|(it, _)| it == name);
        let other = other.map_or("nothing", |(_, value)| value);
        if value != other {
            let _ = writeln!(text, "different {name}: {value} in A, {other} in B");
        }
    }
    let mut found = false;
    for load in &a.loads {
        let Some(other) = b.loads.iter().find(|it| it.connections == load.connections) else {
            continue;
        };
        found = true;
        let _ = writeln!(text, "\n{}", connections(load.connections));
        let others = other.spreads(Run::all_figures);
        for (figure, mine) in load.spreads(Run::all_figures) {
            let Some((_, theirs)) = others.iter().find(|(it, _)| it.name == figure.name) else {
                continue;
            };
            let Some(ratio) = Ratio::of(&mine, theirs) else {
                continue;
            };
            let _ = writeln!(
                text,
                "  {:<30} {:>14} {:>14}   B/A {} ({} to {}), {}",
                figure.name,
                with_spread(&mine),
                with_spread(theirs),
                number(ratio.median),
                number(ratio.low),
                number(ratio.high),
                ratio.verdict(figure.more_is_better)
            );
        }
    }
    if !found {
        text.push_str("\nno number of connections is in both\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(median: f64, low: f64, high: f64) -> Spread {
        Spread { median, low, high }
    }

    #[test]
    fn a_ratio_has_the_spread_of_both() {
        let ratio = Ratio::of(&spread(100.0, 80.0, 125.0), &spread(200.0, 150.0, 240.0)).unwrap();
        assert_eq!((ratio.median, ratio.low, ratio.high), (2.0, 1.2, 3.0));
        assert_eq!(ratio.verdict(true), "better");
        assert_eq!(ratio.verdict(false), "worse");
        assert_eq!(
            Ratio::of(&spread(0.0, 0.0, 0.0), &spread(1.0, 1.0, 1.0)),
            None
        );
    }

    #[test]
    fn runs_that_overlap_say_nothing() {
        let ratio = Ratio::of(&spread(100.0, 90.0, 110.0), &spread(105.0, 100.0, 120.0)).unwrap();
        assert_eq!(ratio.verdict(true), "within the spread");
        let less = Ratio::of(&spread(100.0, 90.0, 110.0), &spread(50.0, 45.0, 60.0)).unwrap();
        assert_eq!(
            (less.verdict(true), less.verdict(false)),
            ("worse", "better")
        );
    }
}
