//! Plots as SVG, each readable on its own: title, units, legend, machine. Drawn here, because it is little: lines over two axes, or bars.

use std::fmt::Write;

/// A line, or a group of bars.
pub(crate) struct Series {
    pub(crate) name: String,
    /// From left to right.
    pub(crate) points: Vec<(f64, f64)>,
}

/// How positions follow from values.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Powers of two below, of ten on the left.
    Logarithmic,
    /// From 0.
    Linear,
}

pub(crate) struct Plot<'a> {
    pub(crate) title: &'a str,
    /// The machine, and what else belongs to the figures.
    pub(crate) note: &'a str,
    pub(crate) x_title: &'a str,
    pub(crate) y_title: &'a str,
    /// Where the x axis has a mark, and what stands there.
    pub(crate) ticks: Vec<(f64, String)>,
    pub(crate) x_scale: Scale,
    pub(crate) y_scale: Scale,
    pub(crate) series: Vec<Series>,
}

/// Of the part between the axes.
const INNER: f64 = 590.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 80.0;
/// Where the axes end, and the legend begins.
const RIGHT: f64 = LEFT + INNER;
/// From `RIGHT` to the names in the legend.
const LEGEND: f64 = 44.0;
const NAME_SIZE: f64 = 13.0;
const TITLE_SIZE: f64 = 17.0;
const NOTE_SIZE: f64 = 11.0;
const MARGIN: f64 = 16.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 70.0;
/// Told apart without colours that look alike to some.
const COLOURS: [&str; 10] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000",
    "#8c564b", "#9467bd",
];

/// A span of values on an axis of `len` pixels.
#[derive(Clone, Copy)]
struct Axis {
    from: f64,
    to: f64,
    len: f64,
    scale: Scale,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, len: f64, scale: Scale) -> Axis {
        let (mut from, mut to) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite()) {
            (from, to) = (from.min(value), to.max(value));
        }
        if from > to {
            (from, to) = (1.0, 10.0); // nothing to show
        }
        if scale == Scale::Linear {
            (from, to) = (0.0, to * 1.1);
        }
        if from == to {
            to = from * 2.0;
        }
        Axis { from, to, len, scale }
    }

    /// Outwards to whole powers of ten.
    fn rounded(self) -> Axis {
        if self.scale == Scale::Linear {
            return self;
        }
        let power = |value: f64| 10f64.powf(value);
        let from = power(self.from.log10().floor());
        Axis { from, to: power(self.to.log10().ceil()).max(from * 10.0), ..self }
    }

    fn at(self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.from) / (self.to - self.from),
            Scale::Logarithmic => (value / self.from).ln() / (self.to / self.from).ln(),
        };
        share * self.len
    }

    /// Values that get a line across.
    fn lines(self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => (0..=5).map(|step| self.to * f64::from(step) / 5.0).collect(),
            Scale::Logarithmic => {
                let mut value = self.from;
                let mut lines = Vec::new();
                while value <= self.to * 1.001 && lines.len() < 20 {
                    lines.push(value);
                    value *= 10.0;
                }
                lines
            }
        }
    }
}

/// An upper bound of the width of a text in a sans-serif font of `size` pixels.
fn width_of(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * 0.62
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Short, for an axis.
pub(crate) fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, "G"),
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text =
        if value.fract().abs() < 1e-9 { format!("{value:.0}") } else { format!("{value:.2}") };
    text + unit
}

impl Plot<'_> {
    /// Of the whole picture: no title, note or name in the legend is cut.
    fn width(&self) -> f64 {
        let legend = self.series.iter().map(|series| LEGEND + width_of(&series.name, NAME_SIZE));
        let head = [width_of(self.title, TITLE_SIZE), width_of(self.note, NOTE_SIZE)];
        let head = head.map(|width| LEFT + width);
        let right = legend.map(|width| RIGHT + width).chain(head).fold(RIGHT, f64::max);
        (right + MARGIN).ceil()
    }

    fn frame(&self, svg: &mut String) -> (Axis, Axis) {
        let (width, height) = (self.width(), HEIGHT - TOP - BOTTOM);
        let points = || self.series.iter().flat_map(|series| &series.points);
        let ticks = self.ticks.iter().map(|(x, _)| *x);
        let x = Axis::over(points().map(|point| point.0).chain(ticks), INNER, self.x_scale);
        let y = Axis::over(points().map(|point| point.1), height, self.y_scale).rounded();
        let (bottom, right) = (HEIGHT - BOTTOM, RIGHT);
        _ = writeln!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"{NAME_SIZE}\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
             <text x=\"{LEFT}\" y=\"26\" font-size=\"{TITLE_SIZE}\">{}</text>\n\
             <text x=\"{LEFT}\" y=\"45\" fill=\"#555555\" font-size=\"{NOTE_SIZE}\">{}</text>\n\
             <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n\
             <text transform=\"translate(20 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            escaped(self.title),
            escaped(self.note),
            LEFT + INNER / 2.0,
            HEIGHT - 22.0,
            escaped(self.x_title),
            TOP + height / 2.0,
            escaped(self.y_title),
        );
        for value in y.lines() {
            let at = bottom - y.at(value);
            _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#dddddd\"/>\n\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                at + 4.0,
                short(value),
            );
        }
        for (value, name) in &self.ticks {
            let at = LEFT + x.at(*value);
            _ = writeln!(
                svg,
                "<path d=\"M{at:.1} {bottom}v5\" stroke=\"#555555\"/>\n\
                 <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                bottom + 20.0,
                escaped(name),
            );
        }
        _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"#555555\"/>"
        );
        (x, y)
    }

    /// A line for each series, with its name beside.
    pub(crate) fn lines(&self) -> String {
        let mut svg = String::new();
        let (x, y) = self.frame(&mut svg);
        for (index, series) in self.series.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let dashes = if index >= COLOURS.len() { " stroke-dasharray=\"6 3\"" } else { "" };
            let position = |(px, py): &(f64, f64)| (LEFT + x.at(*px), HEIGHT - BOTTOM - y.at(*py));
            let path: Vec<String> = series
                .points
                .iter()
                .map(|point| format!("{:.1} {:.1}", position(point).0, position(point).1))
                .collect();
            _ = writeln!(
                svg,
                "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>",
                path.join("L")
            );
            for (at, up) in series.points.iter().map(position) {
                _ = writeln!(
                    svg,
                    "<circle cx=\"{at:.1}\" cy=\"{up:.1}\" r=\"3\" fill=\"{colour}\"/>"
                );
            }
            let line = TOP + 12.0 + index as f64 * 20.0;
            let at = RIGHT + 16.0;
            _ = writeln!(
                svg,
                "<path d=\"M{at} {}h22\" stroke=\"{colour}\" stroke-width=\"3\"{dashes}/>\n\
                 <text x=\"{}\" y=\"{line}\">{}</text>",
                line - 4.0,
                RIGHT + LEGEND,
                escaped(&series.name),
            );
        }
        svg + "</svg>\n"
    }

    /// A bar for each series, from its first point; a second point, if there is one, is marked above it.
    pub(crate) fn bars(&self) -> String {
        let mut svg = String::new();
        let (_, y) = self.frame(&mut svg);
        let step = INNER / self.series.len().max(1) as f64;
        for (index, series) in self.series.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let at = LEFT + step * (index as f64 + 0.2);
            let Some((_, value)) = series.points.first() else { continue };
            let height = y.at(*value);
            let top = HEIGHT - BOTTOM - height;
            _ = writeln!(
                svg,
                "<rect x=\"{at:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>\n\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"11\">{value:.1}</text>\n\
                 <text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\" font-size=\"11\">{}</text>",
                step * 0.6,
                at + step * 0.3,
                top - 5.0,
                at + step * 0.3,
                HEIGHT - BOTTOM + 18.0,
                escaped(&series.name),
            );
            if let Some((_, mark)) = series.points.get(1) {
                let up = HEIGHT - BOTTOM - y.at(*mark);
                _ = writeln!(
                    svg,
                    "<path d=\"M{at:.1} {up:.1}h{:.1}\" stroke=\"#000000\" stroke-width=\"2\"/>",
                    step * 0.6
                );
            }
        }
        svg + "</svg>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(scale: Scale) -> Plot<'static> {
        Plot {
            title: "Rate & payload",
            note: "a machine",
            x_title: "bytes",
            y_title: "messages/s",
            ticks: vec![(8.0, "8 B".to_owned())],
            x_scale: scale,
            y_scale: scale,
            series: vec![Series {
                name: "a < b".to_owned(),
                points: vec![(8.0, 1e3), (1024.0, 1e5)],
            }],
        }
    }

    /// Every element closed, in order; nothing that is not a number where a number belongs.
    fn check(svg: &str) {
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        let mut open = Vec::new();
        for tag in svg.split('<').skip(1).map(|rest| rest.split_once('>').unwrap().0) {
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !tag.ends_with('/') {
                open.push(tag.split(' ').next().unwrap());
            }
        }
        assert!(open.is_empty(), "{open:?} in {svg}");
    }

    #[test]
    fn a_plot_says_what_it_shows_and_is_well_formed() {
        for scale in [Scale::Linear, Scale::Logarithmic] {
            for svg in [plot(scale).lines(), plot(scale).bars()] {
                check(&svg);
                for words in ["Rate &amp; payload", "a machine", "bytes", "messages/s", "a &lt; b"]
                {
                    assert!(svg.contains(words), "{words} is not in {svg}");
                }
            }
        }
    }

    /// The attribute `name` of an element, as a number.
    fn number(element: &str, name: &str) -> Option<f64> {
        let value = element.split(&format!(" {name}=\"")).nth(1)?;
        value.split('"').next()?.parse().ok()
    }

    #[test]
    fn no_text_reaches_over_the_edge() {
        let name = "shmbus, copied in and out, of a name that is longer than others".to_owned();
        let series = vec![Series { name, points: vec![(8.0, 1e3)] }];
        for long in [
            "short",
            "a title that has so many words that it is wider than the axes, and more words",
        ] {
            let plot = Plot {
                title: long,
                series: vec![Series { name: "a".to_owned(), points: vec![(8.0, 1.0)] }],
                ..plot(Scale::Linear)
            };
            fits(&plot.lines());
        }
        fits(&Plot { series, ..plot(Scale::Logarithmic) }.lines());
    }

    /// Whether each text that begins at its position ends before the picture does, at half an em a character.
    fn fits(svg: &str) {
        let width: f64 =
            svg.split("viewBox=\"0 0 ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        for element in svg.split("<text ").skip(1).filter(|text| !text.contains("anchor")) {
            let element = format!(" {element}");
            let text = element.split_once('>').unwrap().1.split("</text>").next().unwrap();
            let size = number(&element, "font-size").unwrap_or(13.0);
            let end = number(&element, "x").unwrap() + text.chars().count() as f64 * size * 0.5;
            assert!(end <= width, "{text} ends at {end} of {width}");
        }
    }

    #[test]
    fn a_plot_of_nothing_is_an_empty_plot() {
        check(&Plot { series: Vec::new(), ..plot(Scale::Logarithmic) }.lines());
        check(&Plot { series: Vec::new(), ..plot(Scale::Linear) }.bars());
    }

    #[test]
    fn the_axes_end_where_the_values_do() {
        let axis = Axis::over([20.0, 3_000.0].into_iter(), 300.0, Scale::Logarithmic).rounded();
        assert_eq!((axis.from.round(), axis.to.round()), (10.0, 10_000.0));
        assert!((axis.at(10_000.0) - 300.0).abs() < 1e-6 && axis.at(10.0).abs() < 1e-6);
        assert_eq!(axis.lines().len(), 4);
        assert_eq!([short(1500.0), short(2e6), short(0.5)], ["1.50k", "2M", "0.50"]);
    }
}
