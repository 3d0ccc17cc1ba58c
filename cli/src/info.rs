//! `shmbus info`: one topic or lock, and who takes part in it.

use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;
use shmbus::sync::SyncOpenError;
use shmbus::{Directory, OpenError, ParticipantInfo, ParticipantKind, TopicInfo, Wake};

use crate::{lock, text};

const EXAMPLES: &str = "\
Examples:
  shmbus info stats/vm
  shmbus info stats/vm --json | jq '.participants[] | select(.alive == false)'
  shmbus info bank/account

Where a topic and a lock have the name, both are shown.

Participants show their position once per block, so that BEHIND and MISSED may be some messages old. PID is what the \
process itself stated, in its own pid namespace; ALIVE is what the kernel says.";

/// Show a topic or a lock: its options, its memory, and who takes part in it
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Name of the topic or lock, such as stats/vm
    #[arg(value_name = "NAME")]
    name: String,
    /// As a JSON object, each on a line
    #[arg(long)]
    json: bool,
}

/// A topic, for programs. Sizes in bytes, times in nanoseconds since 1970.
#[derive(Serialize)]
struct Description<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    type_name: &'a str,
    message_size: u32,
    message_align: u32,
    variable_length: bool,
    depth: u64,
    block_len: u64,
    blocks: u32,
    spare_blocks: u32,
    slot_size: u64,
    published: u64,
    subscribers_max: u32,
    hold_blocks: u32,
    timestamp: bool,
    wake: &'static str,
    created_ns: u64,
    retired: bool,
    memory: Memory,
    deaths: u64,
    last_death: Option<LastDeath>,
    participants: Vec<Participant>,
}

#[derive(Serialize)]
struct Memory {
    live: u64,
    spare: u64,
    table: u64,
    control: u64,
    total: u64,
}

#[derive(Clone, Copy, Serialize)]
struct LastDeath {
    entry: u32,
    generation: u64,
    pid: u32,
}

#[derive(Serialize)]
struct Participant {
    entry: u32,
    kind: &'static str,
    pid: u32,
    /// `null`: it cannot be told.
    alive: Option<bool>,
    position: u64,
    lag: u64,
    missed: u64,
    held_blocks: u32,
    joined_ns: u64,
}

impl<'a> Description<'a> {
    fn of(info: &'a TopicInfo) -> Description<'a> {
        let shmbus::Memory { live, spare, table, control } = info.memory;
        Description {
            name: &info.name,
            type_name: &info.type_name,
            message_size: info.payload_size,
            message_align: info.payload_align,
            variable_length: info.variable_len,
            depth: info.depth,
            block_len: info.block_len,
            blocks: info.blocks,
            spare_blocks: info.spares,
            slot_size: info.slot_size,
            published: info.head,
            subscribers_max: info.subscribers_max,
            hold_blocks: info.hold_blocks,
            timestamp: info.timestamp,
            wake: match info.wake {
                Wake::Auto => "auto",
                Wake::Fence => "fence",
                Wake::Membarrier => "membarrier",
                Wake::Never => "never",
            },
            created_ns: info.created_ns,
            retired: info.retired,
            memory: Memory { live, spare, table, control, total: info.memory.total() },
            deaths: info.deaths,
            last_death: info.last_death.map(|dead| LastDeath {
                entry: dead.entry,
                generation: dead.generation,
                pid: dead.pid,
            }),
            participants: info.participants.iter().map(Participant::of).collect(),
        }
    }

    fn text(&self, subscribers: Option<usize>) -> String {
        let most = if self.variable_length { "up to " } else { "" };
        let Memory { live, spare, table, control, total } = self.memory;
        let [live, spare, table, control, total] =
            [live, spare, table, control, total].map(text::size);
        let timestamps = if self.timestamp { "the time of each commit" } else { "none" };
        let (type_name, size, align) = (self.type_name, self.message_size, self.message_align);
        let deaths = match self.last_death {
            Some(LastDeath { entry, pid, .. }) => {
                format!("{}, the last one of entry {entry}, pid {pid}", self.deaths)
            }
            None => self.deaths.to_string(),
        };
        let rows = [
            ("topic", self.name.to_owned()),
            ("messages", format!("{type_name}, {most}{size} bytes, aligned to {align}")),
            ("published", self.published.to_string()),
            ("depth", self.depth.to_string()),
            ("blocks", format!("{} of {} messages", self.blocks, self.block_len)),
            ("spare", format!("{} blocks, {} may be held", self.spare_blocks, self.hold_blocks)),
            ("slot", format!("{} bytes", self.slot_size)),
            ("subscribers", format!("{} of {}", text::count(subscribers), self.subscribers_max)),
            ("found dead", deaths),
            ("timestamps", timestamps.to_owned()),
            ("wake", self.wake.to_owned()),
            ("created", text::ago(self.created_ns)),
            (
                "memory",
                format!("{total}: live {live}, spare {spare}, table {table}, control {control}"),
            ),
        ];
        text::columns(2, &rows.map(|(name, value)| [name.to_owned(), value]))
    }
}

impl Participant {
    fn of(info: &ParticipantInfo) -> Participant {
        Participant {
            entry: info.entry,
            kind: match info.kind {
                ParticipantKind::Publisher => "publisher",
                ParticipantKind::Lossy => "lossy",
                ParticipantKind::Reliable => "reliable",
                _ => "other",
            },
            pid: info.pid,
            alive: info.liveness.known(),
            position: info.position,
            lag: info.lag,
            missed: info.missed,
            held_blocks: info.held_blocks,
            joined_ns: info.joined_ns,
        }
    }

    fn row(&self) -> [String; 9] {
        [
            self.kind.to_owned(),
            self.alive.map_or("?", |alive| if alive { "yes" } else { "no" }).to_owned(),
            self.entry.to_string(),
            self.pid.to_string(),
            self.position.to_string(),
            self.lag.to_string(),
            self.missed.to_string(),
            self.held_blocks.to_string(),
            text::ago(self.joined_ns),
        ]
    }
}

pub(crate) fn run(directory: &Directory, arguments: &Arguments) -> Result<()> {
    let lock = match directory.inspect_sync(&arguments.name) {
        Err(SyncOpenError::NotFound { .. }) if !lock::is_there(directory, &arguments.name) => None,
        other => Some(other),
    };
    let mut output = match directory.inspect(&arguments.name) {
        Ok(info) => describe(&info, arguments.json)?,
        Err(OpenError::NotFound { .. }) if lock.is_some() => String::new(),
        Err(error) => return Err(lock::nor_lock(error)),
    };
    if let Some(Ok(info)) = &lock {
        output += if output.is_empty() || arguments.json { "" } else { "\n" };
        output += &lock::describe(info, arguments.json)?;
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(output.as_bytes())?;
    stdout.flush()?;
    match lock {
        Some(Err(error)) => Err(error.into()),
        _ => Ok(()),
    }
}

fn describe(info: &TopicInfo, json: bool) -> Result<String> {
    let description = Description::of(info);
    Ok(if json {
        serde_json::to_string(&description)? + "\n"
    } else {
        let mut output = description.text(text::subscribers(info));
        if !description.participants.is_empty() {
            let headings =
                ["KIND", "ALIVE", "ENTRY", "PID", "POSITION", "BEHIND", "MISSED", "HELD", "JOINED"];
            let mut rows = vec![headings.map(str::to_owned)];
            rows.extend(description.participants.iter().map(Participant::row));
            output.push('\n');
            output += &text::columns(2, &rows);
        }
        output
    })
}
