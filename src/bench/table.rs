//! The report as text for a terminal.

use std::fmt::Write;

use super::report::{Load, Report, Run, Spread, connections};

/// System calls shown by name.
const NAMES_MAX: usize = 8;

/// All of it.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    let secure = match &report.tls {
        Some(tls) => format!(", {tls}"),
        None => ", plain".to_owned(),
    };
    let _ = writeln!(text, "{} on {}{secure}", report.scenario, report.server);
    for (name, value) in &report.settings {
        let _ = writeln!(text, "  {name}: {value}");
    }
    text.push('\n');
    columns(&mut text, &figure_rows(report, "-"));
    for load in &report.loads {
        let rows = latency_rows(load, &format!("us, {}", connections(load.connections)));
        if rows.len() > 1 {
            text.push('\n');
            columns(&mut text, &rows);
        }
    }
    for load in &report.loads {
        syscalls(&mut text, load);
    }
    for load in &report.loads {
        for (class, errors) in load.errors() {
            let _ = writeln!(
                text,
                "\nerrors with {}: {} times {class}, for example: {}",
                connections(load.connections),
                errors.count,
                errors.example
            );
        }
    }
    for warning in &report.warnings {
        let _ = writeln!(text, "\nwarning: {warning}");
    }
    text
}

/// One row per number of connections; medians, and how far the runs are from them. The first row has
/// the names; `missing` stands where there is no figure.
pub fn figure_rows(report: &Report, missing: &str) -> Vec<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for load in &report.loads {
        for (figure, _) in load.spreads(Run::figures) {
            if !names.contains(&figure.name) {
                names.push(figure.name);
            }
        }
    }
    let mut rows = vec![vec!["connections".to_owned()]];
    rows[0].extend(names.iter().cloned());
    for load in &report.loads {
        let spreads = load.spreads(Run::figures);
        let mut row = vec![load.connections.to_string()];
        for name in &names {
            let found = spreads.iter().find(|(figure, _)| figure.name == *name);
            row.push(found.map_or(missing.to_owned(), |(_, spread)| with_spread(spread)));
        }
        rows.push(row);
    }
    rows
}

/// One row per phase, with its latencies in microseconds. The first row has the names, and `title`.
pub fn latency_rows(load: &Load, title: &str) -> Vec<Vec<String>> {
    let heads = [title, "count", "p50", "p90", "p99", "p99.9", "max"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for row in load.phases() {
        let values = [row.p50_us, row.p90_us, row.p99_us, row.p999_us, row.max_us];
        let mut cells = vec![row.name(), row.count.to_string()];
        cells.extend(values.map(number));
        rows.push(cells);
    }
    rows
}

fn syscalls(text: &mut String, load: &Load) {
    let Some(counted) = load.syscalls.as_ref().filter(|it| it.operations > 0) else {
        return;
    };
    let per = |calls: u64| calls as f64 / counted.operations as f64;
    let names = counted.by_name.iter().take(NAMES_MAX);
    let names: Vec<String> = names
        .map(|(name, calls)| format!("{name} {}", number(per(*calls))))
        .collect();
    let _ = writeln!(
        text,
        "\nsystem calls of the server per operation, {}: {} ({})",
        connections(load.connections),
        number(per(counted.total)),
        names.join(", ")
    );
}

/// The first column to the left, the others to the right.
fn columns(text: &mut String, rows: &[Vec<String>]) {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let width = widths[at];
            let _ = match at {
                0 => write!(line, "{cell:<width$}"),
                _ => write!(line, "  {cell:>width$}"),
            };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

/// `11400 ±2%`; one run has no spread.
pub fn with_spread(spread: &Spread) -> String {
    match spread.low == spread.high {
        true => number(spread.median),
        false => format!("{} ±{:.0}%", number(spread.median), spread.percent()),
    }
}

/// Three digits, and no more behind the point than they need.
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        size if size >= 0.0005 => format!("{value:.3}"),
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let written = [0.0, 0.0764, 1.234, 12.34, 123.4, 123_456.7].map(number);
        assert_eq!(written, ["0", "0.076", "1.23", "12.3", "123", "123457"]);
    }

    #[test]
    fn columns_are_straight() {
        let rows = [
            vec!["a".into(), "12345".into()],
            vec!["long".into(), "1".into()],
        ];
        let mut text = String::new();
        columns(&mut text, &rows);
        assert_eq!(text, "a     12345\nlong      1\n");
    }
}
