//! Watching one topic, an interval at a time, for `hz`, `bw` and `delay`: what a window is, how long one lasts, and how its line is written.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::builder::RangedU64ValueParser;
use serde::Serialize;
use shmbus::{AttachError, Directory, ObserveError, Observed, Observer, Start};

use crate::interrupt::Interrupt;
use crate::text;

/// How long one wait is at most, so that an interrupt is noticed.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// Messages read between two looks at the clock.
const LOOK_AFTER: u32 = 256;

/// What `hz`, `bw` and `delay` have in common.
#[derive(clap::Args)]
pub(crate) struct Common {
    /// Name of the topic, such as stats/vm
    pub(crate) topic: String,
    /// Length of a window in seconds
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
    /// End after N windows
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    count: Option<u64>,
    /// One JSON object per window
    #[arg(long)]
    json: bool,
}

/// How a topic went on in a window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// How long it was.
    pub(crate) seconds: f64,
    /// Sequences published in it: exactly, read or not.
    pub(crate) messages: u64,
    /// The same since the beginning.
    pub(crate) total_seconds: f64,
    pub(crate) total_messages: u64,
    /// What the observer missed in it, where it reads.
    pub(crate) missed: u64,
}

impl Window {
    pub(crate) fn rate(&self) -> f64 {
        self.messages as f64 / self.seconds
    }

    pub(crate) fn mean_rate(&self) -> f64 {
        self.total_messages as f64 / self.total_seconds
    }
}

/// What is measured: fed with messages, asked at the end of each window, which empties it.
pub(crate) trait Measure {
    /// The headings of its lines.
    const HEADINGS: &'static [&'static str];
    /// A window, for programs.
    type Line<'a>: Serialize
    where
        Self: 'a;

    /// Whether messages are read at all, or heads only.
    fn reads(&self) -> bool;
    fn message(&mut self, message: &Observed<'_>);
    fn line(&mut self, window: Window) -> Self::Line<'_>;
    /// The cells of a line; `-` where there is nothing to say.
    fn cells(line: &Self::Line<'_>) -> Vec<String>;
}

/// Attaches to the topic, from its next message on.
pub(crate) fn observe(directory: &Directory, topic: &str) -> Result<Observer> {
    match directory.observe(topic, Start::Newest) {
        Err(AttachError::Open(error)) => Err(error.into()), // it names the topic
        observer => observer.with_context(|| format!("topic {topic}")),
    }
}

/// Prints a line for each window until `--count` of them are done, the topic is removed, or somebody asks for the end.
pub(crate) fn run<M: Measure>(
    observer: &mut Observer,
    arguments: &Common,
    mut measure: M,
) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let mut output = io::stdout().lock();
    let widths: Vec<usize> = M::HEADINGS.iter().map(|heading| heading.len().max(10)).collect();
    if !arguments.json {
        write_row(&mut output, M::HEADINGS.iter().copied(), &widths)?;
    }
    let begin = Instant::now();
    let first = head(observer);
    let (mut since, mut seen, mut missed) = (begin, first, observer.missed());
    let mut windows = 0;
    let mut removed = false;
    while !removed && arguments.count.is_none_or(|count| windows < count) {
        let end = since + arguments.interval;
        removed = wait(observer, end, &interrupt, &mut measure)?;
        let (now, head) = (Instant::now(), head(observer));
        let window = Window {
            seconds: (now - since).as_secs_f64().max(1e-9),
            messages: head.saturating_sub(seen),
            total_seconds: (now - begin).as_secs_f64().max(1e-9),
            total_messages: head.saturating_sub(first),
            missed: observer.missed().saturating_sub(missed),
        };
        (since, seen, missed) = (now, head, observer.missed());
        windows += 1;
        let line = measure.line(window);
        if arguments.json {
            writeln!(output, "{}", serde_json::to_string(&line)?)?;
        } else {
            write_row(&mut output, M::cells(&line).iter().map(String::as_str), &widths)?;
        }
        output.flush()?;
    }
    if removed {
        text::tell(&format!("topic {} was removed", arguments.topic));
    }
    Ok(())
}

/// Sequences published.
fn head(observer: &Observer) -> u64 {
    observer.position().saturating_add(observer.lag())
}

/// Waits until `end`, reading if `measure` reads. Whether the topic was removed meanwhile.
fn wait<M: Measure>(
    observer: &mut Observer,
    end: Instant,
    interrupt: &Interrupt,
    measure: &mut M,
) -> Result<bool> {
    loop {
        interrupt.check()?;
        let left = end.saturating_duration_since(Instant::now()).min(WAIT_MAX);
        if left.is_zero() {
            return Ok(false);
        }
        if !measure.reads() {
            std::thread::sleep(left);
            if observer.info().retired {
                return Ok(true);
            }
            continue;
        }
        let mut found = observer.next_timeout(left);
        for _ in 0..LOOK_AFTER {
            match found {
                Ok(Some(message)) => measure.message(&message),
                Ok(None) => break,
                Err(ObserveError::Retired) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
            found = observer.try_next();
        }
        // Taken already, and not to be lost.
        if let Ok(Some(message)) = found {
            measure.message(&message);
        }
    }
}

fn write_row<'a>(
    output: &mut impl Write,
    cells: impl Iterator<Item = &'a str>,
    widths: &[usize],
) -> io::Result<()> {
    let cells: Vec<String> =
        cells.zip(widths).map(|(cell, &width)| format!("{cell:>width$}")).collect();
    writeln!(output, "{}", cells.join("  "))
}

/// Seconds, of which there is a millisecond at least.
pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (0.001..=86_400.0).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err("a number of seconds from 0.001 to 86400 is needed".into()),
    }
}
