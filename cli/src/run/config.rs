//! The file of `shmbus run`: what it says, and where it is wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Deserializer};
use shmbus::process::{BackOff, Intensity, Restart, Stop, Strategy};
use shmbus::{Publishers, Schema, TopicOptions, Wake};
use toml::Spanned;

use super::record::{NAME_MAX, PROCESSES_MAX};
use crate::{input, text};

/// A file that was read and checked. Relative paths in it are those below its folder.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) name: String,
    pub(super) strategy: Strategy,
    pub(super) back_off: BackOff,
    pub(super) intensity: Intensity,
    pub(super) topics: Vec<Topic>,
    pub(super) processes: Vec<Process>,
}

#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: String,
    /// Where it stands, for people.
    pub(super) place: String,
    pub(super) options: TopicOptions,
    pub(super) schema: Option<Schema>,
    pub(super) keep: bool,
}

/// `Debug` is everything that makes it the same process on a reload.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) name: String,
    pub(super) command: Vec<String>,
    pub(super) topics: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) cwd: PathBuf,
    pub(super) restart: Restart,
    pub(super) stop: Stop,
    pub(super) log: Log,
}

/// Where standard output and standard error of a process go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Log {
    /// To those of the supervisor, line by line, behind the name of the process.
    Prefix,
    /// They are those of the supervisor.
    Inherit,
    /// Nowhere.
    None,
    /// Both are appended to a file.
    File(PathBuf),
}

/// What is wrong with a file, and where: exit code 2.
#[derive(Debug)]
pub(crate) struct Wrong(String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Wrong {}

/// Something that is found wrong later.
pub(super) fn wrong(place: &str, what: impl fmt::Display) -> anyhow::Error {
    Wrong(format!("{place}: {what}")).into()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    name: Option<Spanned<String>>,
    #[serde(default)]
    strategy: StrategyName,
    #[serde(default)]
    restarts: Restarts,
    #[serde(default)]
    topic: Vec<TopicTable>,
    #[serde(default)]
    process: Vec<ProcessTable>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
enum StrategyName {
    #[default]
    OneForOne,
    OneForAll,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Restarts {
    max: Option<u32>,
    within: Option<Time>,
    delay: Option<Time>,
    delay_max: Option<Time>,
    healthy: Option<Time>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct TopicTable {
    name: Spanned<String>,
    depth: Option<u64>,
    subscribers_max: Option<u32>,
    shared: Option<u32>,
    claim_timeout: Option<Time>,
    hold_blocks: Option<u32>,
    max_len: Option<u32>,
    #[serde(default)]
    timestamp: bool,
    wake: Option<WakeName>,
    mode: Option<Spanned<String>>,
    schema: Option<Spanned<String>>,
    schema_file: Option<Spanned<PathBuf>>,
    #[serde(default)]
    keep: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum WakeName {
    Auto,
    Fence,
    Membarrier,
    Never,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ProcessTable {
    name: Spanned<String>,
    command: Spanned<Vec<String>>,
    #[serde(default)]
    topics: Vec<Spanned<String>>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    cwd: Option<PathBuf>,
    #[serde(default)]
    restart: RestartName,
    stop_ask: Option<Time>,
    stop_deadline: Option<Time>,
    log: Option<Spanned<LogName>>,
    log_file: Option<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
enum RestartName {
    #[default]
    Always,
    OnFailure,
    Never,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum LogName {
    Prefix,
    Inherit,
    None,
}

/// A length of time, as in `"250ms"`, `"5s"`, `"2min"`, `"1h"`.
struct Time(Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        let text = String::deserialize(deserializer)?;
        text::duration(&text).map(Time).map_err(serde::de::Error::custom)
    }
}

fn or(time: Option<Time>, default: Duration) -> Duration {
    time.map_or(default, |time| time.0)
}

/// A text and its name, to say where in it something is.
struct Text<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Text<'_> {
    /// `FILE:LINE:COLUMN` of a byte.
    fn place(&self, at: usize) -> String {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        format!("{}:{line}:{column}", self.path.display())
    }

    fn wrong(&self, at: usize, what: impl fmt::Display) -> anyhow::Error {
        wrong(&self.place(at), what)
    }
}

impl Config {
    /// # Errors
    /// It cannot be read, or [`Wrong`].
    pub(super) fn read(path: &Path) -> Result<Config> {
        let text = input::read_text(path, input::SETTINGS_MAX)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = fs::canonicalize(folder.unwrap_or(Path::new(".")));
        let folder =
            folder.with_context(|| format!("cannot find the folder of {}", path.display()))?;
        Config::of(path, &text, &folder)
    }

    fn of(path: &Path, text: &str, folder: &Path) -> Result<Config> {
        let text = Text { path, text };
        let file: File = toml::from_str(text.text).map_err(|error| {
            text.wrong(error.span().map_or(0, |span| span.start), error.message())
        })?;
        let (name, name_at) = match file.name {
            Some(name) => (name.get_ref().clone(), name.span().start),
            None => (path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), 0),
        };
        check_name(&text, name_at, &name)?;
        let mut topics: Vec<Topic> = Vec::new();
        for table in file.topic {
            let at = table.name.span().start;
            let topic = topic(&text, table, folder)?;
            if topics.iter().any(|other| other.name == topic.name) {
                return Err(text.wrong(at, format_args!("there is a topic {} above", topic.name)));
            }
            topics.push(topic);
        }
        let mut processes: Vec<Process> = Vec::new();
        for table in file.process {
            let at = table.name.span().start;
            let process = process(&text, table, folder, &topics)?;
            if processes.iter().any(|other| other.name == process.name) {
                return Err(
                    text.wrong(at, format_args!("there is a process {} above", process.name))
                );
            }
            processes.push(process);
        }
        if processes.is_empty() || processes.len() > PROCESSES_MAX {
            let what = format!("{} processes; there must be 1 to {PROCESSES_MAX}", processes.len());
            return Err(text.wrong(0, what));
        }
        let (back_off, intensity) = (BackOff::default(), Intensity::default());
        let restarts = file.restarts;
        Ok(Config {
            name,
            strategy: match file.strategy {
                StrategyName::OneForOne => Strategy::OneForOne,
                StrategyName::OneForAll => Strategy::OneForAll,
            },
            back_off: BackOff {
                min: or(restarts.delay, back_off.min),
                max: or(restarts.delay_max, back_off.max),
                healthy: or(restarts.healthy, back_off.healthy),
            },
            intensity: Intensity {
                restarts: restarts.max.unwrap_or(intensity.restarts),
                within: or(restarts.within, intensity.within),
            },
            topics,
            processes,
        })
    }
}

/// Names of processes, and of the whole, which is part of the name of a topic.
fn check_name(text: &Text<'_>, at: usize, name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty()
        || name.len() > NAME_MAX
        || name.starts_with('.')
        || !name.chars().all(allowed)
    {
        let what = format!(
            "{name:?} is no name: 1 to {NAME_MAX} letters, digits, '_', '-' and '.', which is not first"
        );
        return Err(text.wrong(at, what));
    }
    Ok(())
}

fn topic(text: &Text<'_>, table: TopicTable, folder: &Path) -> Result<Topic> {
    let at = table.name.span().start;
    let schema = match (&table.schema, &table.schema_file) {
        (Some(_), Some(file)) => {
            return Err(text.wrong(file.span().start, "schema and schema-file are given"));
        }
        (Some(schema), None) => Some((schema.span().start, schema.get_ref().clone())),
        (None, Some(file)) => {
            let at = file.span().start;
            let path = folder.join(file.get_ref());
            let read = input::read_text(&path, input::SCHEMA_MAX);
            let read =
                read.map_err(|error| text.wrong(at, format_args!("{}: {error}", path.display())))?;
            Some((at, read))
        }
        (None, None) => None,
    };
    let schema = schema.map(|(at, schema)| {
        Schema::parse(&schema).map_err(|error| text.wrong(at, format_args!("the schema: {error}")))
    });
    let schema = schema.transpose()?;
    let default = TopicOptions::default();
    let mode = table.mode.map(|mode| {
        let wrong = || text.wrong(mode.span().start, "a mode is 600 to 777, in octal digits");
        let bits = u32::from_str_radix(mode.get_ref(), 8).ok();
        bits.filter(|bits| (0o600..=0o777).contains(bits)).ok_or_else(wrong)
    });
    let options = TopicOptions {
        depth: table.depth.unwrap_or(default.depth),
        subscribers_max: table.subscribers_max.unwrap_or(default.subscribers_max),
        publishers: table.shared.map_or(Publishers::Exclusive, Publishers::Shared),
        claim_timeout: or(table.claim_timeout, default.claim_timeout),
        hold_blocks: table.hold_blocks,
        max_len: table.max_len.unwrap_or(default.max_len),
        timestamp: table.timestamp,
        wake: match table.wake {
            None | Some(WakeName::Auto) => Wake::Auto,
            Some(WakeName::Fence) => Wake::Fence,
            Some(WakeName::Membarrier) => Wake::Membarrier,
            Some(WakeName::Never) => Wake::Never,
        },
        mode: mode.transpose()?.unwrap_or(default.mode),
        ..default
    };
    // With a schema the size of a message is its own: that is checked when the topic is created.
    if schema.is_none() {
        options.memory::<[u8]>().map_err(|error| text.wrong(at, error))?;
    }
    let name = table.name.into_inner();
    Ok(Topic { name, place: text.place(at), options, schema, keep: table.keep })
}

fn process(
    text: &Text<'_>,
    table: ProcessTable,
    folder: &Path,
    topics: &[Topic],
) -> Result<Process> {
    check_name(text, table.name.span().start, table.name.get_ref())?;
    if table.command.get_ref().first().is_none_or(String::is_empty) {
        return Err(
            text.wrong(table.command.span().start, "a command has a program and its arguments")
        );
    }
    for topic in &table.topics {
        if topics.iter().all(|other| other.name != *topic.get_ref()) {
            let what = format!("there is no [[topic]] {}", topic.get_ref());
            return Err(text.wrong(topic.span().start, what));
        }
    }
    let log = match (table.log, table.log_file) {
        (Some(log), Some(_)) => {
            return Err(text.wrong(log.span().start, "log and log-file are given"));
        }
        (None, Some(file)) => Log::File(folder.join(file)),
        (None, None) => Log::Prefix,
        (Some(log), None) => match log.into_inner() {
            LogName::Prefix => Log::Prefix,
            LogName::Inherit => Log::Inherit,
            LogName::None => Log::None,
        },
    };
    let stop = Stop::default();
    Ok(Process {
        name: table.name.into_inner(),
        command: table.command.into_inner(),
        topics: table.topics.into_iter().map(Spanned::into_inner).collect(),
        env: table.env,
        cwd: table.cwd.map_or_else(|| folder.to_path_buf(), |cwd| folder.join(cwd)),
        restart: match table.restart {
            RestartName::Always => Restart::Always,
            RestartName::OnFailure => Restart::OnFailure,
            RestartName::Never => Restart::Never,
        },
        stop: Stop {
            ask: or(table.stop_ask, stop.ask),
            terminate: or(table.stop_deadline, stop.terminate),
        },
        log,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config> {
        Config::of(Path::new("a.toml"), text, Path::new("/folder"))
    }

    #[test]
    fn a_file_says_everything_and_what_it_leaves_out_has_a_default() {
        let config = read(
            "[[topic]]\nname = \"md/t\"\ndepth = 8\n[[process]]\nname = \"feed\"\ncommand = [\"feed\", \"-x\"]\n\
             topics = [\"md/t\"]\nlog-file = \"log\"\nstop-deadline = \"250ms\"",
        )
        .unwrap();
        assert_eq!((config.name.as_str(), config.topics[0].options.depth), ("a", 8));
        let process = &config.processes[0];
        assert_eq!(process.command, ["feed", "-x"]);
        assert_eq!(
            (process.restart, process.cwd.as_path()),
            (Restart::Always, Path::new("/folder"))
        );
        assert_eq!(process.log, Log::File("/folder/log".into()));
        assert_eq!(process.stop.terminate, Duration::from_millis(250));
        assert_eq!(config.intensity, Intensity::default());
    }

    #[test]
    fn what_is_wrong_is_said_with_line_and_column() {
        const PROCESS: &str = "[[process]]\nname = \"a\"\ncommand = [\"x\"]\n";
        for (text, wanted) in [
            ("x", "a.toml:1:2: "),
            ("", "a.toml:1:1: 0 processes; there must be 1 to 256"),
            ("nmae = \"x\"", "a.toml:1:1: unknown field `nmae`"),
            ("[[process]]\nname = \"a\"", "a.toml:1:1: missing field `command`"),
            ("[[process]]\nname = \"a\"\ncommand = []", "a.toml:3:11: a command has a program"),
            ("[[process]]\nname = \"a b\"\ncommand = [\"x\"]", "a.toml:2:8: \"a b\" is no name"),
            (&format!("{PROCESS}topics = [\"t\"]"), "a.toml:4:11: there is no [[topic]] t"),
            (&format!("{PROCESS}stop-ask = \"5\""), "a.toml:4:12: a number and ms, s, min or h"),
            (&format!("{PROCESS}restart = \"yes\""), "a.toml:4:11: unknown variant `yes`"),
            (&format!("{PROCESS}log = \"none\"\nlog-file = \"x\""), "a.toml:4:7: log and log-file"),
            (&format!("{PROCESS}{PROCESS}"), "a.toml:5:8: there is a process a above"),
            ("[[topic]]\nname = \"t\"\ndepth = 7", "a.toml:2:8: depth is 7"),
            ("[[topic]]\nname = \"t\"\nmode = \"888\"", "a.toml:3:8: a mode is 600 to 777"),
            ("[[topic]]\nname = \"t\"\nschema = \"no\"", "a.toml:3:10: the schema: "),
            (
                "[[topic]]\nname = \"t\"\nschema-file = \"no\"",
                "a.toml:3:15: /folder/no: No such file",
            ),
            ("name = \"a/b\"", "a.toml:1:8: \"a/b\" is no name"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.is::<Wrong>(), "{said}");
            assert!(said.to_string().starts_with(wanted), "{wanted:?} was expected: {said}");
        }
    }

    #[test]
    fn a_time_is_a_whole_number_with_a_unit() {
        let ms = |text| text::duration(text).ok().map(|time| time.as_millis());
        assert_eq!(
            ["250ms", "5s", "2 min", "1h"].map(ms),
            [250, 5000, 120_000, 3_600_000].map(Some)
        );
        for wrong in ["", "5", "s", "-5s", "1.5s", "5d", "18446744073709551615h"] {
            assert_eq!(ms(wrong), None, "{wrong:?}");
        }
    }
}
