//! What the commands say to people: diagnostics, sizes, ages, columns.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shmbus::{Directory, Liveness, ParticipantInfo, ParticipantKind, PathSource, TopicInfo};

/// A diagnostic on standard error. Where that is closed, nobody wants to know.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "shmbus: {text}");
}

/// In which directory this command looks for topics, and what decided for it.
static TOPICS: OnceLock<(PathBuf, PathSource)> = OnceLock::new();

pub(crate) fn topics_are_in(directory: &Directory) {
    let _ = TOPICS.set((directory.path().to_owned(), directory.source()));
}

/// What decided for a directory, in the words of the command line.
pub(crate) fn source(source: PathSource) -> String {
    match source {
        PathSource::Given => "--dir".to_owned(),
        other => other.to_string(),
    }
}

/// What went wrong. If that is about a topic or a lock, or about their directory: also in which directory it was looked for, and what decided for that.
pub(crate) fn tell_error(error: &anyhow::Error) {
    tell(&placed(format!("{error:#}")));
}

fn placed(said: String) -> String {
    let Some((path, source)) = TOPICS.get() else { return said };
    let path = path.display().to_string();
    let source = self::source(*source);
    let words = ["topic", "lock", "supervisor"];
    let is_about = |word| {
        said.split(|c: char| !c.is_alphanumeric()).any(|one| one.trim_end_matches('s') == word)
    };
    match said.contains(&path) {
        true => format!("{said} (chosen by {source})"),
        false if words.into_iter().any(is_about) => format!("{said} (in {path}: {source})"),
        false => said,
    }
}

/// What was asked for cannot be meant, as is seen when the topic is open: exit code 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Bytes, in the largest unit of which there is one at least.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] =
        [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.into_iter().find(|(unit, _)| bytes >= *unit) {
        None => format!("{bytes} B"),
        Some((unit, name)) if bytes.is_multiple_of(unit) => format!("{} {name}", bytes / unit),
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
    }
}

/// A reliable subscriber.
pub(crate) fn reliable(one: &ParticipantInfo) -> String {
    let (pid, entry, lag) = (one.pid, one.entry, one.lag);
    format!("process {pid} (entry {entry}), a reliable subscriber {lag} messages behind")
}

/// A length of time, to a tenth of a second.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// A length of time, as in `250ms`, `5s`, `2min`, `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = || {
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
        let number: u64 = number.parse().ok()?;
        let ms = match unit.trim_start() {
            "ms" => 1,
            "s" => 1000,
            "min" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        number.checked_mul(ms).map(Duration::from_millis)
    };
    parsed().ok_or_else(|| "a number and ms, s, min or h are needed, as in \"5s\"".into())
}

/// How long ago a time is; nothing for one to come.
pub(crate) fn elapsed(ns_since_1970: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_nanos(ns_since_1970))
}

/// Messages a second.
pub(crate) fn rate(per_second: f64) -> String {
    match per_second {
        0.0 => "0".to_owned(),
        small if small < 100.0 => format!("{small:.2}"),
        _ => format!("{per_second:.0}"),
    }
}

/// A length of time, in the largest unit of which there is one at least.
pub(crate) fn time(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} us", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

/// What is there, or `-`.
pub(crate) fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

/// How long ago a time is, in the largest unit of which there is one at least.
pub(crate) fn ago(ns_since_1970: u64) -> String {
    let seconds = elapsed(ns_since_1970).as_secs();
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86400),
    }
}

/// Living subscribers of a topic; `None`: of one of them it cannot be told.
pub(crate) fn subscribers(info: &TopicInfo) -> Option<usize> {
    living(info, |kind| matches!(kind, ParticipantKind::Lossy | ParticipantKind::Reliable))
}

/// Living publishers of a topic; `None`: of one of them it cannot be told.
pub(crate) fn publishers(info: &TopicInfo) -> Option<usize> {
    living(info, |kind| kind == ParticipantKind::Publisher)
}

fn living(info: &TopicInfo, is_meant: impl Fn(ParticipantKind) -> bool) -> Option<usize> {
    let all = info.participants.iter().filter(|one| is_meant(one.kind));
    all.map(|one| one.liveness.known().map(usize::from)).sum()
}

/// A count that may be unknown.
pub(crate) fn count(count: Option<usize>) -> String {
    count.map_or_else(|| "?".to_owned(), |count| count.to_string())
}

/// Whether a process lives.
pub(crate) fn alive(liveness: Liveness) -> &'static str {
    match liveness.known() {
        Some(true) => "yes",
        Some(false) => "no",
        None => "?",
    }
}

/// Rows under headings, the first `left` columns set left, the others right.
pub(crate) fn columns<const N: usize>(left: usize, rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = width(column);
            let gap = if column == 0 { "" } else { "  " };
            line += &match column < left {
                true => format!("{gap}{cell:<width$}"),
                false => format!("{gap}{cell:>width$}"),
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_largest_unit_of_which_there_is_one() {
        assert_eq!(
            [0, 1023, 1024, 1536, 16 << 20].map(size),
            ["0 B", "1023 B", "1 KiB", "1.5 KiB", "16 MiB"]
        );
        assert_eq!(size((1 << 30) + (1 << 29)), "1.5 GiB");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["topic", "type", "depth"], ["a/long/name", "b", "8"]];
        let rows = rows.map(|row| row.map(str::to_owned));
        assert_eq!(columns(2, &rows), "topic        type  depth\na/long/name  b         8\n");
    }
}
