//! Plots as SVG: lines over two axes, each linear or logarithmic, drawn so that they can be read on
//! paper and on a phone. Colours come from the page.

use std::fmt::Write;

use super::table::number;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 330.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 44.0;
/// Colours of the page, `c0` and so on; further lines begin with the first again.
pub const COLOURS: usize = 6;

/// One of the two directions.
#[derive(Debug, Clone, Default)]
pub struct Axis {
    /// What is along it, with its unit.
    pub label: String,
    /// In powers of ten.
    pub is_logarithmic: bool,
    /// Where ticks stand and what they say; computed if there are none.
    pub ticks: Vec<(f64, String)>,
}

/// A line, and between what its values lie.
#[derive(Debug, Clone, Default)]
pub struct Line {
    /// For the legend.
    pub name: String,
    /// In the order of x.
    pub points: Vec<(f64, f64)>,
    /// Lowest and highest y at an x.
    pub spread: Vec<(f64, f64, f64)>,
}

/// A plot.
#[derive(Debug, Clone, Default)]
pub struct Plot {
    /// Above it.
    pub title: String,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// What is drawn.
    pub lines: Vec<Line>,
}

/// An axis with what it spans.
struct Scale<'a> {
    axis: &'a Axis,
    low: f64,
    high: f64,
}

impl Scale<'_> {
    fn new(axis: &Axis, values: impl Iterator<Item = f64>) -> Scale<'_> {
        let usable = |value: &f64| value.is_finite() && (!axis.is_logarithmic || *value > 0.0);
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(usable) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (1.0, 10.0);
        }
        if axis.is_logarithmic {
            // Whole powers of ten, and at least one of them.
            low = 10f64.powf(low.log10().floor());
            high = 10f64.powf(high.log10().ceil());
            high = high.max(low * 10.0);
        } else {
            // Heights are only comparable from zero on.
            low = low.min(0.0);
            let step = step(high - low);
            high = (high / step).ceil() * step;
            high = high.max(low + step);
        }
        Scale { axis, low, high }
    }

    /// For an axis along which nothing is compared.
    fn tight(mut self, values: impl Iterator<Item = f64>) -> Self {
        if !self.axis.is_logarithmic {
            return self;
        }
        let (low, high) = values
            .filter(|value| *value > 0.0)
            .fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), value| {
                (low.min(value), high.max(value))
            });
        if low < high {
            (self.low, self.high) = (low, high);
        }
        self
    }

    /// From 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let share = match self.axis.is_logarithmic {
            false => (value - self.low) / (self.high - self.low),
            true => {
                let value = value.max(self.low);
                (value / self.low).ln() / (self.high / self.low).ln()
            }
        };
        share.clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        if !self.axis.ticks.is_empty() {
            return self.axis.ticks.clone();
        }
        let mut ticks = Vec::new();
        if self.axis.is_logarithmic {
            let mut value = 10f64.powf(self.low.log10().ceil());
            while value <= self.high * 1.0001 {
                ticks.push((value, short(value)));
                value *= 10.0;
            }
        } else {
            let step = step(self.high - self.low);
            let mut at = 0;
            while self.low + f64::from(at) * step <= self.high + step / 1000.0 {
                let value = self.low + f64::from(at) * step;
                ticks.push((value, short(value)));
                at += 1;
            }
        }
        ticks
    }
}

/// A round number of which about five make up `span`.
fn step(span: f64) -> f64 {
    let rough = (span / 5.0).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(rough.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    let fits = factors
        .iter()
        .find(|factor| rough <= **factor * power * 1.0001);
    fits.unwrap_or(&10.0) * power
}

/// `2.5k`, `10M`.
fn short(value: f64) -> String {
    let units = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    let unit = units.iter().find(|(size, _)| value.abs() >= *size);
    let (size, name) = unit.unwrap_or(&(1.0, ""));
    let text = number(value / size);
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}{name}")
}

impl Plot {
    /// Whether there is anything to see.
    pub fn is_empty(&self) -> bool {
        self.lines.iter().all(|line| line.points.len() < 2)
    }

    /// The plot as an element of a page.
    pub fn render(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let xs = || points().map(|point| point.0);
        let ys = || {
            let spreads = self.lines.iter().flat_map(|line| &line.spread);
            let spreads = spreads.flat_map(|(_, low, high)| [*low, *high]);
            points().map(|point| point.1).chain(spreads)
        };
        let x = Scale::new(&self.x, xs()).tight(xs());
        let y = Scale::new(&self.y, ys());
        let px = |value| LEFT + x.place(value) * (WIDTH - LEFT - RIGHT);
        let py = |value| HEIGHT - BOTTOM - y.place(value) * (HEIGHT - TOP - BOTTOM);
        let mut svg = String::new();
        let title = escaped(&self.title);
        let _ = write!(
            svg,
            "<figure><figcaption>{title}</figcaption>\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">"
        );
        let (floor, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for (value, text) in y.ticks() {
            let (at, text) = (py(value), escaped(&text));
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                LEFT - 6.0,
                at + 4.0
            );
        }
        for (value, text) in x.ticks() {
            let (at, text) = (px(value), escaped(&text));
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{at:.1} {TOP}V{floor}\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
                floor + 16.0
            );
        }
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text x=\"4\" y=\"12\">{}</text>",
            (LEFT + right) / 2.0,
            HEIGHT - 8.0,
            escaped(&self.x.label),
            escaped(&self.y.label)
        );
        self.draw(&mut svg, px, py);
        svg.push_str("</svg>");
        self.legend(&mut svg);
        svg.push_str("</figure>\n");
        svg
    }

    fn draw(&self, svg: &mut String, px: impl Fn(f64) -> f64, py: impl Fn(f64) -> f64) {
        for (at, line) in self.lines.iter().enumerate() {
            let colour = at % COLOURS;
            if line.spread.len() > 1 {
                let up = line.spread.iter().map(|(x, _, high)| (px(*x), py(*high)));
                let down = line
                    .spread
                    .iter()
                    .rev()
                    .map(|(x, low, _)| (px(*x), py(*low)));
                let _ = write!(
                    svg,
                    "<path class=\"band c{colour}\" d=\"{}Z\"/>",
                    path(up.chain(down))
                );
            }
            let points = line.points.iter().map(|(x, y)| (px(*x), py(*y)));
            let _ = write!(
                svg,
                "<path class=\"line c{colour}\" d=\"{}\"/>",
                path(points)
            );
            if line.points.len() <= 12 {
                for (x, y) in &line.points {
                    let _ = write!(
                        svg,
                        "<circle class=\"c{colour}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>",
                        px(*x),
                        py(*y)
                    );
                }
            }
        }
    }

    fn legend(&self, svg: &mut String) {
        if self.lines.len() > 1 || self.lines.iter().any(|line| !line.name.is_empty()) {
            svg.push_str("<p class=\"legend\">");
            for (at, line) in self.lines.iter().enumerate() {
                let colour = at % COLOURS;
                let name = escaped(&line.name);
                let _ = write!(svg, "<span><i class=\"c{colour}\"></i>{name}</span> ");
            }
            svg.push_str("</p>");
        }
    }
}

fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut path = String::new();
    for (at, (x, y)) in points.enumerate() {
        let command = if at == 0 { 'M' } else { 'L' };
        let _ = write!(path, "{command}{x:.1} {y:.1}");
    }
    path
}

/// Text as it may stand in a page. A server's words go through here.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        assert_eq!([9.0, 10.0, 26.0, 100.0].map(step), [2.0, 2.0, 10.0, 20.0]);
        assert_eq!(short(2500.0), "2.5k");
        assert_eq!(short(10_000_000.0), "10M");
        assert_eq!(short(400.0), "400");
        assert_eq!(short(0.0), "0");
    }

    #[test]
    fn logarithmic_places() {
        let axis = Axis {
            is_logarithmic: true,
            ..Axis::default()
        };
        let scale = Scale::new(&axis, [2.0, 900.0].into_iter());
        assert_eq!((scale.low, scale.high), (1.0, 1000.0));
        assert!((scale.place(10.0) - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(scale.place(0.0), 0.0, "nothing is below the floor");
        let ticks: Vec<String> = scale.ticks().into_iter().map(|tick| tick.1).collect();
        assert_eq!(ticks, ["1", "10", "100", "1k"]);
    }

    #[test]
    fn nothing_of_a_name_becomes_markup() {
        let plot = Plot {
            title: "a <b> & \"c\"".to_owned(),
            lines: vec![Line {
                name: "<script>".to_owned(),
                points: vec![(0.0, 1.0), (1.0, f64::NAN)],
                ..Line::default()
            }],
            ..Plot::default()
        };
        let svg = plot.render();
        assert!(svg.contains("a &lt;b&gt; &amp; &quot;c&quot;"));
        assert!(!svg.contains("<script>"));
    }
}
