//! The report as one page that needs nothing else: tables, and plots as SVG. No script is in it.

use std::fmt::Write;

use crate::client::show::calendar_text;

use super::measure::Point;
use super::report::{Load, Report, Run, connections};
use super::svg::{Axis, COLOURS, Line, Plot, escaped};
use super::table::{figure_rows, latency_rows};

/// More runs or curves than this are no picture any more; each has a colour of its own.
const LINES_MAX: usize = COLOURS;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--faint:#6b7280;--rule:#e2e5ea;\
--c0:#0b63c5;--c1:#c2410c;--c2:#15803d;--c3:#7c3aed;--c4:#b45309;--c5:#0e7490}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--paper:#14171a;--faint:#9aa3ad;--rule:#2c3238;\
--c0:#6cb0ff;--c1:#ff9a66;--c2:#5fd48a;--c3:#b79bff;--c4:#f0b75a;--c5:#5cc9dc}}\
*{box-sizing:border-box}\
body{margin:0 auto;padding:1rem;max-width:64rem;background:var(--paper);color:var(--ink);\
font:16px/1.5 system-ui,sans-serif}\
h1{font-size:1.5rem;line-height:1.2;margin:.5rem 0}h2{font-size:1.1rem;margin:2rem 0 .5rem}\
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;margin:0}\
dt{color:var(--faint)}dd{margin:0;overflow-wrap:anywhere}\
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
th,td{padding:.2rem .7rem;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}\
th{font-weight:600}th:first-child,td:first-child{text-align:left;padding-left:0}\
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1.5rem}\
figure{margin:0;break-inside:avoid}figcaption{font-weight:600}\
svg{width:100%;height:auto;font:12px system-ui,sans-serif}svg text{fill:var(--faint)}\
.grid{stroke:var(--rule);fill:none}.line{fill:none;stroke-width:2;stroke-linejoin:round}\
.band{opacity:.18;stroke:none}\
.legend{margin:0;font-size:.85rem}.legend span{margin-right:1rem}\
.legend i{display:inline-block;width:.8rem;height:.2rem;margin-right:.3rem;vertical-align:middle}\
.warning{border-left:4px solid var(--c1);padding:.2rem .8rem;margin:.5rem 0}\
@media print{body{max-width:none;padding:0;font-size:11pt}.plots{grid-template-columns:1fr 1fr}}";

/// The whole page.
pub fn render(report: &Report) -> String {
    let mut page = String::new();
    let title = escaped(&format!("{} on {}", report.scenario, report.server));
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>haul bench: {title}</title><style>{STYLE}{}</style></head><body>\n<h1>{title}</h1>\n",
        colours()
    );
    facts(&mut page, report);
    for warning in &report.warnings {
        let _ = writeln!(page, "<p class=\"warning\">{}</p>", escaped(warning));
    }
    page.push_str(
        "<h2>Figures</h2>\n<p>Medians of the runs, and how far a run is from them at most.</p>\n",
    );
    table(&mut page, &figure_rows(report, ""));
    page.push_str("<h2>Plots</h2>\n<div class=\"plots\">\n");
    for plot in plots(report).iter().filter(|plot| !plot.is_empty()) {
        page.push_str(&plot.render());
    }
    page.push_str("</div>\n<h2>Latencies in microseconds</h2>\n");
    for load in &report.loads {
        table(
            &mut page,
            &latency_rows(load, &connections(load.connections)),
        );
    }
    errors(&mut page, report);
    let _ = writeln!(
        page,
        "<p>Made by haul bench {}. Latencies of a fixed rate count from when an operation should have \
         begun.</p>\n</body></html>",
        escaped(&report.haul)
    );
    page
}

fn colours() -> String {
    (0..COLOURS)
        .map(|i| {
            format!(
                ".line.c{i}{{stroke:var(--c{i})}}.band.c{i},circle.c{i}{{fill:var(--c{i})}}\
                 i.c{i}{{background:var(--c{i})}}"
            )
        })
        .collect()
}

fn facts(page: &mut String, report: &Report) {
    let when = calendar_text(report.began_s.cast_signed()) + " UTC";
    let tls = report.tls.clone().unwrap_or_else(|| "no".to_owned());
    let fixed = [
        ("when", when),
        ("generator", report.machine.clone()),
        ("TLS", tls),
    ];
    page.push_str("<dl>");
    let settings = report
        .settings
        .iter()
        .map(|(name, value)| (name.as_str(), value));
    for (name, value) in fixed
        .iter()
        .map(|(name, value)| (*name, value))
        .chain(settings)
    {
        let _ = write!(
            page,
            "<dt>{}</dt><dd>{}</dd>",
            escaped(name),
            escaped(value)
        );
    }
    page.push_str("</dl>\n");
}

fn errors(page: &mut String, report: &Report) {
    let mut rows = vec![
        ["connections", "errors", "of the class", "for example"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for load in &report.loads {
        for (class, errors) in load.errors() {
            let connections = load.connections.to_string();
            rows.push(vec![
                connections,
                errors.count.to_string(),
                class,
                errors.example,
            ]);
        }
    }
    if rows.len() > 1 {
        page.push_str("<h2>Errors</h2>\n");
        table(page, &rows);
    }
}

fn table(page: &mut String, rows: &[Vec<String>]) {
    page.push_str("<div class=\"wide\"><table>");
    for (at, row) in rows.iter().enumerate() {
        let tag = if at == 0 { "th" } else { "td" };
        page.push_str("<tr>");
        for cell in row {
            let _ = write!(page, "<{tag}>{}</{tag}>", escaped(cell));
        }
        page.push_str("</tr>");
    }
    page.push_str("</table></div>\n");
}

fn plots(report: &Report) -> Vec<Plot> {
    let mut plots = Vec::new();
    if report.loads.len() > 1 {
        plots.extend(sweeps(report));
    }
    plots.push(distribution(report));
    if let Some(load) = report.loads.last() {
        let many = match report.loads.len() {
            1 => String::new(),
            _ => format!(", {}", connections(load.connections)),
        };
        type Value = fn(&Point) -> f64;
        let moves = load.runs.iter().any(|run| run.bytes > 0);
        let rates: [(&str, bool, Value); 2] = [
            ("operations", true, |point| point.operations as f64),
            ("MiB", moves, |point| {
                point.bytes as f64 / f64::from(1 << 20)
            }),
        ];
        for (unit, _, value) in rates.into_iter().filter(|(_, is_wanted, _)| *is_wanted) {
            let lines = load.runs.iter().take(LINES_MAX).enumerate();
            let line =
                |(at, run): (usize, &Run)| over_time(&format!("run {}", at + 1), run, true, value);
            plots.push(Plot {
                title: format!("Throughput over time{many}"),
                x: axis("seconds", false),
                y: axis(&format!("{unit}/s"), false),
                lines: lines.map(line).collect(),
            });
        }
        if let Some(run) = load.runs.last() {
            plots.push(Plot {
                title: format!("Latency over time{many}, last run"),
                x: axis("seconds", false),
                y: axis("us", true),
                lines: vec![
                    over_time("p50", run, false, |point| point.p50_us),
                    over_time("p99", run, false, |point| point.p99_us),
                ],
            });
        }
    }
    plots
}

fn axis(label: &str, is_logarithmic: bool) -> Axis {
    Axis {
        label: label.to_owned(),
        is_logarithmic,
        ticks: Vec::new(),
    }
}

/// `per_second`: what happened in an interval is divided by its length.
fn over_time(name: &str, run: &Run, per_second: bool, of: fn(&Point) -> f64) -> Line {
    let mut points = Vec::new();
    let mut before = 0.0;
    for point in &run.series {
        let length = point.second - before;
        before = point.second;
        let value = of(point);
        points.push((
            point.second,
            if per_second { value / length } else { value },
        ));
    }
    Line {
        name: name.to_owned(),
        points,
        spread: Vec::new(),
    }
}

/// The axis goes from the median to the rarest, each nine as far as the one before.
fn distribution(report: &Report) -> Plot {
    let rarity = |quantile: f64| 1.0 / (1.0 - quantile);
    let ticks = [
        (0.5, "50 %"),
        (0.9, "90 %"),
        (0.99, "99 %"),
        (0.999, "99.9 %"),
        (0.9999, "99.99 %"),
    ];
    let mut lines = Vec::new();
    let mut rarest: f64 = 0.0;
    for load in &report.loads {
        for distribution in &load.distributions {
            let quantiles = distribution.quantiles.iter();
            let points: Vec<(f64, f64)> = quantiles
                .map(|(quantile, us)| (rarity(*quantile), *us))
                .collect();
            rarest = points.iter().fold(rarest, |most, point| most.max(point.0));
            lines.push(Line {
                name: format!(
                    "{}, {}",
                    distribution.kind.name(),
                    connections(load.connections)
                ),
                points,
                spread: Vec::new(),
            });
        }
    }
    lines.truncate(LINES_MAX);
    Plot {
        title: "Distribution of latencies".to_owned(),
        x: Axis {
            label: "so many operations took at most ...".to_owned(),
            is_logarithmic: true,
            ticks: ticks
                .into_iter()
                .map(|(quantile, text)| (rarity(quantile), text.to_owned()))
                .filter(|(at, _)| *at <= rarest * 1.01)
                .collect(),
        },
        y: axis("... us", true),
        lines,
    }
}

/// Each figure over the number of connections.
fn sweeps(report: &Report) -> Vec<Plot> {
    let curve = |name: &str, shown: &str| {
        let mut line = Line {
            name: shown.to_owned(),
            ..Line::default()
        };
        for load in &report.loads {
            let spreads = load.spreads(Run::all_figures);
            if let Some((_, spread)) = spreads.iter().find(|(figure, _)| figure.name == name) {
                let x = load.connections as f64;
                line.points.push((x, spread.median));
                line.spread.push((x, spread.low, spread.high));
            }
        }
        line
    };
    let x = || Axis {
        label: "connections".to_owned(),
        is_logarithmic: true,
        ticks: report
            .loads
            .iter()
            .map(|load| (load.connections as f64, load.connections.to_string()))
            .collect(),
    };
    let simple = [
        ("operations/s", "Throughput"),
        ("MiB/s", "Throughput"),
        ("server CPU us/operation", "Cost of an operation"),
        ("server CPU s/GiB", "Cost of a GiB"),
        ("server KiB/session", "Memory of a session"),
    ];
    let mut plots: Vec<Plot> = simple
        .into_iter()
        .map(|(name, title)| Plot {
            title: format!("{title} and connections"),
            x: x(),
            y: axis(name, false),
            lines: vec![curve(name, "")],
        })
        .collect();
    let mut lines = Vec::new();
    let phases = report.loads.first().map(Load::phases).unwrap_or_default();
    for row in phases
        .iter()
        .filter(|row| row.phase == super::measure::Phase::Complete)
    {
        for quantile in ["p50", "p99"] {
            let name = format!("{} {quantile} us", row.name());
            lines.push(curve(&name, &format!("{} {quantile}", row.kind.name())));
        }
    }
    lines.truncate(LINES_MAX);
    plots.push(Plot {
        title: "Latency and connections".to_owned(),
        x: x(),
        y: axis("us", true),
        lines,
    });
    plots
}
