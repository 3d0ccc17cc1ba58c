//! `shmbus bw`: how many bytes a second.

use anyhow::Result;
use serde::Serialize;
use shmbus::{Directory, Observed};

use crate::text;
use crate::windows::{self, Measure, Window};

const EXAMPLES: &str = "\
Examples:
  shmbus bw images/raw
  shmbus bw images/raw --count 1 --json | jq .bytes_per_second

Payloads only, without headers. Where all messages have one size, the figure is their exact number times their size. Else each message's \
length is read: what was published too fast to be read is MISSED, and not in the bytes.";

/// Show how many bytes a second are published
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    windows: windows::Common,
}

/// A window, for programs. Sizes in bytes, times in nanoseconds.
#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    interval_ns: u64,
    messages: u64,
    missed: u64,
    bytes: u64,
    bytes_per_second: f64,
    mean_len: Option<f64>,
}

struct Bandwidth<'a> {
    name: &'a str,
    /// Of every message, where they have one.
    size: Option<u64>,
    read: u64,
    bytes: u64,
}

pub(crate) fn run(directory: &Directory, arguments: &Arguments) -> Result<()> {
    let name = &arguments.windows.topic;
    let mut observer = windows::observe(directory, name)?;
    let info = observer.info();
    let size = (!info.variable_len).then_some(info.payload_size.into());
    windows::run(&mut observer, &arguments.windows, Bandwidth { name, size, read: 0, bytes: 0 })
}

impl<'n> Measure for Bandwidth<'n> {
    const HEADINGS: &'static [&'static str] =
        &["BYTES/S", "BYTES", "MESSAGES", "MEAN LENGTH", "MISSED"];
    type Line<'a>
        = Line<'n>
    where
        Self: 'a;

    fn reads(&self) -> bool {
        self.size.is_none()
    }

    fn message(&mut self, message: &Observed<'_>) {
        self.read += 1;
        self.bytes += message.bytes().len() as u64;
    }

    fn line(&mut self, window: Window) -> Line<'n> {
        let (read, bytes) = (std::mem::take(&mut self.read), std::mem::take(&mut self.bytes));
        let (count, bytes) = match self.size {
            Some(size) => (window.messages, window.messages.saturating_mul(size)),
            None => (read, bytes),
        };
        Line {
            name: self.name,
            interval_ns: (window.seconds * 1e9) as u64,
            messages: window.messages,
            missed: if self.size.is_some() { 0 } else { window.missed },
            bytes,
            bytes_per_second: bytes as f64 / window.seconds,
            mean_len: (count > 0).then(|| bytes as f64 / count as f64),
        }
    }

    fn cells(line: &Line<'_>) -> Vec<String> {
        vec![
            text::size(line.bytes_per_second as u64),
            text::size(line.bytes),
            line.messages.to_string(),
            text::or_dash(line.mean_len.map(|len| text::size(len as u64))),
            line.missed.to_string(),
        ]
    }
}
