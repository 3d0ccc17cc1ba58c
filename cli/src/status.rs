//! `shmbus status`: what the supervisors of `shmbus run` say of their processes, and whether they live.

use std::io::{self, Write};

use anyhow::{Result, bail};
use serde::Serialize;
use shmbus::{AttachError, Directory, OpenError};

use crate::run::record::{PREFIX, Record, Seen, State};
use crate::run::state::Life;
use crate::text;

const EXAMPLES: &str = "\
Examples:
  shmbus status
  shmbus status market --json | jq -r '.processes[] | select(.restarts > 0).name'

Exit status:
  0  all supervisors that are shown live
  1  one does not: it was killed, and its processes with it; or this user may not see whether it
     lives; or there is none called NAME";

/// Show the processes of `shmbus run`
///
/// As each supervisor has published them last, in the topic shmbus/run/NAME: permission to read that is enough, and nothing is asked of the supervisor. Whether
/// it lives is seen by its own user and by root; to others it is unknown.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Name of a supervisor [default: all]
    name: Option<String>,
    /// One JSON object per supervisor and line
    #[arg(long)]
    json: bool,
}

/// A supervisor, for programs. Times in nanoseconds since 1970.
#[derive(Serialize)]
struct Tree<'a> {
    name: &'a str,
    /// `null`: it cannot be told.
    alive: Option<bool>,
    pid: Option<u32>,
    since_ns: Option<u64>,
    processes: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    state: &'static str,
    pid: Option<u32>,
    started_ns: Option<u64>,
    restarts: u64,
    last_end: Option<String>,
}

impl Entry {
    /// Of a supervisor that is gone, its processes are gone too.
    fn of(record: &Record, is_gone: bool) -> Entry {
        let not_zero = |number: u64| (!is_gone && number != 0).then_some(number);
        Entry {
            name: record.name.as_str().unwrap_or("?").to_owned(),
            state: match record.state.get() {
                _ if is_gone => "gone",
                Ok(State::Waiting) => "waiting",
                Ok(State::Running) => "running",
                Ok(State::Stopping) => "stopping",
                Ok(State::Ended) => "ended",
                Err(_) => "?",
            },
            pid: not_zero(record.pid.into()).map(|pid| pid as u32),
            started_ns: not_zero(record.started_ns),
            restarts: record.restarts,
            last_end: record.last_end(),
        }
    }

    fn row(&self) -> [String; 6] {
        [
            self.name.clone(),
            self.state.to_owned(),
            text::or_dash(self.pid.map(|pid| pid.to_string())),
            text::or_dash(self.started_ns.map(text::ago)),
            self.restarts.to_string(),
            text::or_dash(self.last_end.clone()),
        ]
    }
}

pub(crate) fn run(directory: &Directory, arguments: &Arguments) -> Result<()> {
    let names: Vec<String> = match &arguments.name {
        Some(name) => vec![name.clone()],
        None => {
            let topics = directory.topics()?;
            topics
                .iter()
                .filter_map(|topic| topic.strip_prefix(PREFIX))
                .map(str::to_owned)
                .collect()
        }
    };
    let (mut dead, mut unknown, mut failed) = (0, 0, 0);
    let mut stdout = io::stdout().lock();
    for name in &names {
        let seen = match Seen::read(directory, name) {
            Ok(seen) => seen,
            Err(error) if is_gone(&error) && arguments.name.is_none() => continue, // just now
            Err(error) if is_gone(&error) => bail!("no supervisor called {name} runs"),
            Err(error) => {
                failed += 1;
                text::tell_error(&error);
                continue;
            }
        };
        let (alive, pid, since_ns) = match seen.life {
            Life::Alive { pid, since_ns } => (Some(true), Some(pid), Some(since_ns)),
            Life::Gone => (Some(false), None, None),
            Life::Unknown => (None, None, None),
        };
        let is_gone = alive == Some(false);
        dead += usize::from(is_gone);
        unknown += usize::from(alive.is_none());
        let processes = seen.records.iter().map(|record| Entry::of(record, is_gone)).collect();
        let tree = Tree { name, alive, pid, since_ns, processes };
        if arguments.json {
            writeln!(stdout, "{}", serde_json::to_string(&tree)?)?;
        } else {
            show(&mut stdout, &tree)?;
        }
    }
    stdout.flush()?;
    drop(stdout);
    match (failed, dead, unknown) {
        (0, 0, 0) => Ok(()),
        (0, 0, 1) => bail!("this user may not see whether the supervisor lives"),
        (0, 0, _) => bail!("this user may not see whether {unknown} supervisors live"),
        (0, 1, _) => bail!("one supervisor was killed"),
        (0, _, _) => bail!("{dead} supervisors were killed"),
        _ => bail!("{failed} of the supervisors cannot be looked at"),
    }
}

fn show(out: &mut impl Write, tree: &Tree<'_>) -> io::Result<()> {
    match (tree.pid, tree.since_ns) {
        (Some(pid), Some(since_ns)) => {
            writeln!(out, "{}: process {pid}, started {}", tree.name, text::ago(since_ns))?;
        }
        _ if tree.alive.is_none() => {
            writeln!(out, "{}: unknown whether it lives; what it has said last:", tree.name)?;
        }
        _ => writeln!(out, "{}: gone (it was killed)", tree.name)?,
    }
    let headings = ["  PROCESS", "STATE", "PID", "STARTED", "RESTARTS", "LAST END"];
    let mut rows = vec![headings.map(str::to_owned)];
    for entry in &tree.processes {
        let mut row = entry.row();
        row[0].insert_str(0, "  ");
        rows.push(row);
    }
    // The last column is text: it is set left by being as wide as it likes.
    let width = rows.iter().map(|row| row[5].chars().count()).max().unwrap_or(0);
    for row in &mut rows {
        row[5] = format!("{:<width$}", row[5]);
    }
    out.write_all(text::columns(2, &rows).as_bytes())
}

/// There is no such topic, or not any more.
fn is_gone(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(AttachError::Open(OpenError::NotFound { .. } | OpenError::Retired { .. }))
    )
}
