//! `shmbus stat`: what happens on all topics, once or again and again.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::builder::RangedU64ValueParser;
use serde::Serialize;
use shmbus::Directory;

use crate::holdups::{Holdup, Holdups};
use crate::interrupt::Interrupt;
use crate::rates::{Moment, Row};
use crate::{text, windows};

/// How long one wait is at most, so that an interrupt is noticed.
const WAIT_MAX: Duration = Duration::from_millis(100);

const EXAMPLES: &str = "\
Examples:
  shmbus stat
  shmbus stat md/quotes md/trades --watch --interval 5
  shmbus stat --interval 0 --json | jq -r 'select(.publisher_alive == false).name'

BYTES/S of topics whose messages differ in length is an estimate from the newest messages (\"~\"; bw counts). LAG is that of the slowest \
subscriber, MISSED what all present subscribers missed, both as of the beginning of their present blocks. Who leaves a \
publisher no room is named below, with how long it has been seen not to move (--watch: since when).";

/// Show the rates, subscribers and losses of topics
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Which topics; all if there are none
    topics: Vec<String>,
    /// Over how many seconds rates are measured; 0: no rates, counters at once
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
    /// Again every interval, until interrupted
    #[arg(long)]
    watch: bool,
    /// With --watch: end after N times
    #[arg(long, value_name = "N", requires = "watch", value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    count: Option<u64>,
    /// One JSON object per line and topic
    #[arg(long)]
    json: bool,
}

/// A topic, for programs. Sizes in bytes.
#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    published: u64,
    rate: Option<f64>,
    bytes_per_second: Option<f64>,
    bytes_estimated: bool,
    /// `null`: it cannot be told.
    subscribers: Option<usize>,
    publishers: Option<usize>,
    publisher_alive: Option<bool>,
    lag: u64,
    missed: u64,
    deaths: u64,
    memory: u64,
    /// Reliable subscribers that leave its publishers no room.
    held_up_by: Vec<Holdup>,
}

impl<'a> Line<'a> {
    fn of(row: &'a Row, held_up_by: Vec<Holdup>) -> Line<'a> {
        Line {
            name: &row.info.name,
            published: row.info.head,
            rate: row.rate,
            bytes_per_second: row.bytes_per_second,
            bytes_estimated: row.info.variable_len,
            subscribers: row.subscribers,
            publishers: row.publishers,
            publisher_alive: row.publishers.map(|count| count > 0),
            lag: row.lag,
            missed: row.missed,
            deaths: row.info.deaths,
            memory: row.info.memory.total(),
            held_up_by,
        }
    }

    fn cells(&self) -> [String; 9] {
        let about = if self.bytes_estimated { "~" } else { "" };
        let bytes = |bytes: f64| match bytes {
            0.0 => "0 B".to_owned(),
            _ => format!("{about}{}", text::size(bytes as u64)),
        };
        [
            self.name.to_owned(),
            text::or_dash(self.rate.map(text::rate)),
            text::or_dash(self.bytes_per_second.map(bytes)),
            self.published.to_string(),
            text::count(self.publishers),
            text::count(self.subscribers),
            self.lag.to_string(),
            self.missed.to_string(),
            text::size(self.memory),
        ]
    }
}

pub(crate) fn run(directory: &Directory, arguments: &Arguments) -> Result<()> {
    let interrupt = Interrupt::install()?;
    if arguments.watch && arguments.interval.is_zero() {
        bail!("--watch needs an --interval of more than 0");
    }
    let is_measured = !arguments.interval.is_zero();
    let mut before = match is_measured {
        true => Some(Moment::read(directory, &arguments.topics)?),
        false => None,
    };
    let mut holdups = Holdups::default();
    let mut times = 0;
    if let Some(before) = &before {
        holdups.look(before.topics.values().map(|seen| &seen.info), before.at);
    }
    loop {
        if let Some(before) = &before {
            sleep_until(before.at + arguments.interval, &interrupt)?;
        }
        let moment = Moment::read(directory, &arguments.topics)?;
        for error in &moment.unreadable {
            text::tell_error(error);
        }
        holdups.look(moment.topics.values().map(|seen| &seen.info), moment.at);
        let rows = moment.since(before.as_ref());
        let lines: Vec<Line> =
            rows.iter().map(|row| Line::of(row, holdups.of(&row.info, moment.at))).collect();
        write(&lines, arguments.json)?;
        times += 1;
        if !arguments.watch || arguments.count.is_some_and(|count| times >= count) {
            return match moment.unreadable.len() {
                0 => Ok(()),
                unreadable => bail!("{unreadable} of the topics cannot be read"),
            };
        }
        before = Some(moment);
    }
}

fn write(lines: &[Line], json: bool) -> Result<()> {
    let mut output = String::new();
    if json {
        for line in lines {
            output += &serde_json::to_string(line)?;
            output.push('\n');
        }
    } else if !lines.is_empty() {
        let headings =
            ["TOPIC", "RATE", "BYTES/S", "PUBLISHED", "PUBS", "SUBS", "LAG", "MISSED", "MEMORY"];
        let mut cells = vec![headings.map(str::to_owned)];
        cells.extend(lines.iter().map(Line::cells));
        output = text::columns(1, &cells);
        for line in lines {
            for holdup in &line.held_up_by {
                output += &(holdup.text(line.name) + "\n");
            }
        }
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(output.as_bytes())?;
    Ok(stdout.flush()?)
}

fn sleep_until(end: Instant, interrupt: &Interrupt) -> Result<()> {
    loop {
        interrupt.check()?;
        match end.saturating_duration_since(Instant::now()) {
            Duration::ZERO => return Ok(()),
            left => std::thread::sleep(left.min(WAIT_MAX)),
        }
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    if text.parse() == Ok(0.0) { Ok(Duration::ZERO) } else { windows::interval(text) }
}
