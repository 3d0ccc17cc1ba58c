//! `shmbus delay`: how old messages are when they are seen.

use std::time::Duration;

use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use serde::Serialize;
use shmbus::{Directory, Observed};
use shmbus_sys::clock;

use crate::text;
use crate::windows::{self, Measure, Window};

/// Longer ones are counted as this.
const LONGEST_NS: u64 = 3_600_000_000_000;

const EXAMPLES: &str = "\
Examples:
  shmbus delay md/quotes
  shmbus delay md/quotes --spin --count 5

From a message's commit until this program sees it; messages must carry the time (TopicOptions::timestamp, shmbus pub --timestamp). Nobody \
wakes an observer, so that looking for messages adds up to --poll to each; --spin adds nothing and keeps a core busy. MISSED are not \
among them. A subscriber that is woken has other delays. Where the publisher's clock is another one, delays are not known (\"-\").";

/// Show how old messages are when they are seen
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    windows: windows::Common,
    /// How long to sleep between two looks for messages, in milliseconds
    #[arg(long, value_name = "MS", default_value = "1", value_parser = poll)]
    poll: Duration,
    /// Do not sleep between two looks
    #[arg(long, conflicts_with = "poll")]
    spin: bool,
}

/// A window, for programs. Times in nanoseconds.
#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    interval_ns: u64,
    poll_ns: u64,
    messages: u64,
    seen: u64,
    missed: u64,
    p50_ns: Option<u64>,
    p90_ns: Option<u64>,
    p99_ns: Option<u64>,
    max_ns: Option<u64>,
    /// Messages of a time that is still to come here.
    ahead: u64,
}

struct Delay<'a> {
    name: &'a str,
    poll: Duration,
    ages: Histogram<u64>,
    /// Messages of this window whose time is still to come by the clock of this process.
    ahead: u64,
    is_told: bool,
}

pub(crate) fn run(directory: &Directory, arguments: &Arguments) -> Result<()> {
    let name = &arguments.windows.topic;
    let mut observer = windows::observe(directory, name)?;
    if !observer.info().timestamp {
        bail!(
            "messages of topic {name} do not carry the time: create it with TopicOptions::timestamp, or shmbus pub --timestamp"
        );
    }
    let poll = if arguments.spin { Duration::ZERO } else { arguments.poll };
    observer.set_interval(poll);
    let ages = Histogram::new_with_bounds(1, LONGEST_NS, 3)?;
    windows::run(
        &mut observer,
        &arguments.windows,
        Delay { name, poll, ages, ahead: 0, is_told: false },
    )
}

impl<'n> Measure for Delay<'n> {
    const HEADINGS: &'static [&'static str] = &["P50", "P90", "P99", "MAX", "SEEN", "MISSED"];
    type Line<'a>
        = Line<'n>
    where
        Self: 'a;

    fn reads(&self) -> bool {
        true
    }

    fn message(&mut self, message: &Observed<'_>) {
        if let Some(ns) = message.timestamp_ns() {
            match clock::monotonic_ns().checked_sub(ns) {
                Some(age) => self.ages.saturating_record(age.max(1)),
                None => self.ahead += 1,
            }
        }
    }

    fn line(&mut self, window: Window) -> Line<'n> {
        // If the clocks differ there is no delay to show, even if it would not come out below 0.
        let is_known = self.ahead == 0 && !self.ages.is_empty();
        let quantile = |q| is_known.then(|| self.ages.value_at_quantile(q));
        if self.ahead > 0 && !self.is_told {
            self.is_told = true;
            text::tell(&format!(
                "the times of {} messages are still to come here: the publisher's clock is another one (a time namespace?), and delays are not known",
                self.ahead
            ));
        }
        let line = Line {
            name: self.name,
            interval_ns: (window.seconds * 1e9) as u64,
            poll_ns: self.poll.as_nanos() as u64,
            messages: window.messages,
            seen: self.ages.len() + self.ahead,
            missed: window.missed,
            p50_ns: quantile(0.5),
            p90_ns: quantile(0.9),
            p99_ns: quantile(0.99),
            max_ns: quantile(1.0),
            ahead: self.ahead,
        };
        self.ages.reset();
        self.ahead = 0;
        line
    }

    fn cells(line: &Line<'_>) -> Vec<String> {
        let mut cells: Vec<String> = [line.p50_ns, line.p90_ns, line.p99_ns, line.max_ns]
            .map(|ns| text::or_dash(ns.map(text::time)))
            .into();
        cells.extend([line.seen, line.missed].map(|count| count.to_string()));
        cells
    }
}

fn poll(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(ms) if (0.01..=1000.0).contains(&ms) => Ok(Duration::from_secs_f64(ms / 1e3)),
        _ => Err("a number of milliseconds from 0.01 to 1000 is needed".into()),
    }
}
