//! `shmbus list`: every topic in one line, and every lock.

use std::io::{self, Write};

use anyhow::{Result, bail};
use serde::Serialize;
use shmbus::{Directory, OpenError, ParticipantKind, TopicInfo};

use crate::{lock, text};

const EXAMPLES: &str = "\
Examples:
  shmbus list
  shmbus list --json | jq -r 'select(.subscribers == 0).name'
  shmbus list --json | jq -r 'select(.owner_died).name'

Locks are the named objects of shmbus::sync. Objects of JSON with a `kind` are locks, the others topics.";

/// List the topics, and the locks
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// One JSON object per line
    #[arg(long)]
    json: bool,
}

/// A topic, for programs. Sizes in bytes.
#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    type_name: &'a str,
    message_size: u32,
    variable_length: bool,
    depth: u64,
    published: u64,
    /// `null`: it cannot be told.
    publisher_alive: Option<bool>,
    /// The first of `publisher_pids`.
    publisher_pid: Option<u32>,
    /// Of those that live, or may.
    publisher_pids: Vec<u32>,
    subscribers: Option<usize>,
    memory: u64,
}

impl<'a> Entry<'a> {
    fn of(info: &'a TopicInfo) -> Entry<'a> {
        let publishes = |kind| kind == ParticipantKind::Publisher;
        let publishers =
            info.participants.iter().filter(|one| !one.liveness.is_dead() && publishes(one.kind));
        let publisher_pids: Vec<u32> = publishers.map(|one| one.pid).collect();
        Entry {
            name: &info.name,
            type_name: &info.type_name,
            message_size: info.payload_size,
            variable_length: info.variable_len,
            depth: info.depth,
            published: info.head,
            publisher_alive: text::publishers(info).map(|count| count > 0),
            publisher_pid: publisher_pids.first().copied(),
            publisher_pids,
            subscribers: text::subscribers(info),
            memory: info.memory.total(),
        }
    }

    fn row(&self) -> [String; 8] {
        let most = if self.variable_length { "<= " } else { "" };
        [
            self.name.to_owned(),
            self.type_name.to_owned(),
            format!("{most}{}", text::size(self.message_size.into())),
            self.depth.to_string(),
            self.published.to_string(),
            match &self.publisher_pids[..] {
                [] => "-".to_owned(),
                pids => {
                    let pids = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
                    if self.publisher_alive.is_none() { pids + "?" } else { pids }
                }
            },
            text::count(self.subscribers),
            text::size(self.memory),
        ]
    }
}

pub(crate) fn run(directory: &Directory, arguments: &Arguments) -> Result<()> {
    let mut topics = Vec::new();
    let mut unreadable = 0;
    for name in directory.topics()? {
        match directory.inspect(&name) {
            Ok(info) => topics.push(info),
            // Removed meanwhile.
            Err(OpenError::NotFound { .. } | OpenError::Retired { .. }) => {}
            Err(error) => {
                unreadable += 1;
                text::tell_error(&error.into());
            }
        }
    }
    let (of_topics, mut of_locks) = (unreadable, 0);
    let locks = lock::all(directory, |_, error| {
        of_locks += 1;
        text::tell_error(&error.into());
    })?;
    let mut output = String::new();
    if arguments.json {
        for info in &topics {
            output += &serde_json::to_string(&Entry::of(info))?;
            output.push('\n');
        }
        for info in &locks {
            output += &serde_json::to_string(&lock::Lock::of(info))?;
            output.push('\n');
        }
    } else if !topics.is_empty() {
        let headings = [
            "TOPIC",
            "TYPE",
            "MESSAGE",
            "DEPTH",
            "PUBLISHED",
            "PUBLISHER",
            "SUBSCRIBERS",
            "MEMORY",
        ];
        let mut rows = vec![headings.map(str::to_owned)];
        rows.extend(topics.iter().map(|info| Entry::of(info).row()));
        output = text::columns(2, &rows);
    }
    if !arguments.json && !locks.is_empty() {
        let mut rows = vec![lock::HEADINGS.map(str::to_owned)];
        rows.extend(locks.iter().map(lock::row));
        output += if output.is_empty() { "" } else { "\n" };
        output += &text::columns(3, &rows);
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(output.as_bytes())?;
    stdout.flush()?;
    match (of_topics, of_locks) {
        (0, 0) => Ok(()),
        (_, 0) => bail!("{of_topics} of the topics cannot be read"),
        (0, _) => bail!("{of_locks} of the locks cannot be read"),
        _ => bail!("{of_topics} of the topics and {of_locks} of the locks cannot be read"),
    }
}
