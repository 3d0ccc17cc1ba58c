//! `shmbus hz`: how many messages a second.

use anyhow::Result;
use serde::Serialize;
use shmbus::{Directory, Observed};

use crate::text;
use crate::windows::{self, Measure, Window};

const EXAMPLES: &str = "\
Examples:
  shmbus hz md/quotes
  shmbus hz md/quotes --interval 0.1 --count 10 --json

RATE is exact at any rate: it comes from the topic's position, not from reading. Where messages carry the time of their commit, the gaps \
between them are shown too, of those pairs that could be read one after the other (GAPS); JITTER is their standard deviation.";

/// Show how many messages a second are published
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    windows: windows::Common,
}

/// A window, for programs. Times in nanoseconds, rates per second.
#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    interval_ns: u64,
    messages: u64,
    rate: f64,
    mean_rate: f64,
    gaps: Option<u64>,
    gap_min_ns: Option<u64>,
    gap_mean_ns: Option<u64>,
    gap_max_ns: Option<u64>,
    jitter_ns: Option<u64>,
}

struct Hz<'a> {
    name: &'a str,
    timestamps: bool,
    last_ns: Option<u64>,
    gaps: Gaps,
}

/// Mean and deviation as they come (Welford).
#[derive(Clone, Copy, Debug, Default)]
struct Gaps {
    count: u64,
    min: u64,
    max: u64,
    mean: f64,
    squares: f64,
}

impl Gaps {
    fn add(&mut self, gap: u64) {
        self.min = if self.count == 0 { gap } else { self.min.min(gap) };
        self.max = self.max.max(gap);
        self.count += 1;
        let off = gap as f64 - self.mean;
        self.mean += off / self.count as f64;
        self.squares += off * (gap as f64 - self.mean);
    }

    fn deviation(&self) -> f64 {
        (self.squares / self.count.max(1) as f64).sqrt()
    }
}

pub(crate) fn run(directory: &Directory, arguments: &Arguments) -> Result<()> {
    let name = &arguments.windows.topic;
    let mut observer = windows::observe(directory, name)?;
    let timestamps = observer.info().timestamp;
    let hz = Hz { name, timestamps, last_ns: None, gaps: Gaps::default() };
    windows::run(&mut observer, &arguments.windows, hz)
}

impl<'n> Measure for Hz<'n> {
    const HEADINGS: &'static [&'static str] =
        &["RATE", "MEAN RATE", "MESSAGES", "GAPS", "MIN GAP", "MEAN GAP", "MAX GAP", "JITTER"];
    type Line<'a>
        = Line<'n>
    where
        Self: 'a;

    fn reads(&self) -> bool {
        self.timestamps
    }

    fn message(&mut self, message: &Observed<'_>) {
        let Some(ns) = message.timestamp_ns() else { return };
        if let (Some(last), 0) = (self.last_ns, message.missed_before()) {
            self.gaps.add(ns.saturating_sub(last));
        }
        self.last_ns = Some(ns);
    }

    fn line(&mut self, window: Window) -> Line<'n> {
        let gaps = std::mem::take(&mut self.gaps);
        let of_gaps = |value: u64| (gaps.count > 0).then_some(value);
        Line {
            name: self.name,
            interval_ns: (window.seconds * 1e9) as u64,
            messages: window.messages,
            rate: window.rate(),
            mean_rate: window.mean_rate(),
            gaps: self.timestamps.then_some(gaps.count),
            gap_min_ns: of_gaps(gaps.min),
            gap_mean_ns: of_gaps(gaps.mean as u64),
            gap_max_ns: of_gaps(gaps.max),
            jitter_ns: of_gaps(gaps.deviation() as u64),
        }
    }

    fn cells(line: &Line<'_>) -> Vec<String> {
        vec![
            text::rate(line.rate),
            text::rate(line.mean_rate),
            line.messages.to_string(),
            text::or_dash(line.gaps.map(|count| count.to_string())),
            text::or_dash(line.gap_min_ns.map(text::time)),
            text::or_dash(line.gap_mean_ns.map(text::time)),
            text::or_dash(line.gap_max_ns.map(text::time)),
            text::or_dash(line.jitter_ns.map(text::time)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::Gaps;

    #[test]
    fn gaps_have_the_deviation_of_all_of_them() {
        let mut gaps = Gaps::default();
        for gap in [2, 4, 4, 4, 5, 5, 7, 9] {
            gaps.add(gap);
        }
        assert_eq!((gaps.min, gaps.max, gaps.mean, gaps.deviation()), (2, 9, 5.0, 2.0));
    }
}
