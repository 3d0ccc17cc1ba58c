//! `shmbus gc`: what can be given back. Listed first; deleted only if asked to.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Error, Result, bail};
use serde::Serialize;
use shmbus::sync::{SyncInfo, SyncOpenError, SyncRemoveError};
use shmbus::{Directory, Leftover, LeftoverKind, OpenError, RemoveError, TopicInfo};

use crate::{lock, text};

const EXAMPLES: &str = "\
Examples:
  shmbus gc
  shmbus gc --yes
  shmbus gc --unused --older 7d --yes

What lives is never touched: whether a process takes part, or still builds a topic, is asked of the kernel, once more before \
each deletion.";

/// List what killed processes left behind, or give it back
///
/// Nobody has to do this: the next process that creates, removes or joins in the same place does it. Without --yes nothing is
/// changed.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Do it; without this it is only listed
    #[arg(short, long)]
    yes: bool,
    /// Also topics in which nobody takes part, with the messages in them, and locks that nobody has open, with the data in them
    #[arg(long)]
    unused: bool,
    /// Of the topics and locks that are not used, only those created longer ago than this: a number and s, min, h or d
    #[arg(long, value_name = "AGE", requires = "unused", value_parser = age)]
    older: Option<Duration>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
}

/// Something that can be given back, for programs. Sizes in bytes.
#[derive(Serialize)]
struct Item {
    kind: &'static str,
    /// Path of a leftover, name of a topic or lock.
    name: String,
    bytes: u64,
    /// Dead participants of a topic, dead members of a lock.
    dead: usize,
    /// Whether it was given back; without --yes it never is.
    done: bool,
    #[serde(skip)]
    what: What,
}

enum What {
    Leftover(Leftover),
    Participants,
    Topic,
    Members,
    Lock,
}

impl Item {
    fn leftover(leftover: Leftover) -> Item {
        Item {
            kind: match leftover.kind {
                LeftoverKind::Draft => "draft",
                LeftoverKind::Removal => "removal",
                LeftoverKind::EmptyDirectory => "empty_directory",
                _ => "leftover",
            },
            name: leftover.path.display().to_string(),
            bytes: leftover.bytes,
            dead: 0,
            done: false,
            what: What::Leftover(leftover),
        }
    }

    fn of_topic(info: &TopicInfo, arguments: &Arguments) -> Option<Item> {
        let dead = info.participants.iter().filter(|one| one.liveness.is_dead()).count();
        let is_unused = arguments.unused
            && dead == info.participants.len()
            && arguments.older.is_none_or(|age| text::elapsed(info.created_ns) >= age);
        let (kind, what, bytes) = match (is_unused, dead) {
            (true, _) => ("unused_topic", What::Topic, info.memory.total()),
            (false, 0) => return None,
            _ => ("dead_participants", What::Participants, 0),
        };
        Some(Item { kind, name: info.name.clone(), bytes, dead, done: false, what })
    }

    fn of_lock(info: &SyncInfo, arguments: &Arguments) -> Option<Item> {
        let dead = info.members.iter().filter(|one| one.liveness.is_dead()).count();
        let is_unused = arguments.unused
            && lock::is_unused(info)
            && arguments.older.is_none_or(|age| text::elapsed(info.created_ns) >= age);
        let (kind, what, bytes) = match (is_unused, dead) {
            (true, _) => ("unused_lock", What::Lock, info.memory),
            (false, 0) => return None,
            _ => ("dead_members", What::Members, 0),
        };
        Some(Item { kind, name: info.name.clone(), bytes, dead, done: false, what })
    }

    /// What it is, for people.
    fn description(&self) -> String {
        let (name, size) = (&self.name, text::size(self.bytes));
        match (&self.what, self.kind) {
            (What::Participants, _) => {
                format!("topic {name}: {} of its participants are dead", self.dead)
            }
            (What::Topic, _) => format!("topic {name}: nobody takes part in it ({size})"),
            (What::Members, _) => format!("lock {name}: {} of its members are dead", self.dead),
            (What::Lock, _) => format!("lock {name}: nobody has it open ({size})"),
            (_, "draft") => format!("{name}: its creator was killed ({size})"),
            (_, "removal") => format!("{name}: its remover was killed ({size})"),
            _ => format!("{name}: an empty directory"),
        }
    }

    /// Gives it back, unless somebody was faster or has begun to use it.
    fn give_back(&self, directory: &Directory) -> Result<bool> {
        let gone = |error: OpenError| match error {
            OpenError::NotFound { .. } | OpenError::Retired { .. } => Ok(false),
            error => Err(Error::from(error)),
        };
        match &self.what {
            What::Leftover(leftover) => Ok(directory.remove_leftover(leftover)?),
            What::Participants => directory.sweep(&self.name).map(|found| found > 0).or_else(gone),
            What::Topic => match directory.remove(&self.name, false) {
                Ok(()) => Ok(true),
                Err(RemoveError::InUse { .. }) => Ok(false),
                Err(RemoveError::Open(error)) => gone(error),
                Err(error) => Err(error.into()),
            },
            What::Members => match directory.sweep_sync(&self.name) {
                Ok(buried) => Ok(buried > 0),
                Err(SyncOpenError::NotFound { .. } | SyncOpenError::Removed { .. }) => Ok(false),
                Err(error) => Err(error.into()),
            },
            What::Lock => match directory.remove_sync(&self.name, false) {
                Ok(()) => Ok(true),
                Err(SyncRemoveError::Open(
                    SyncOpenError::NotFound { .. } | SyncOpenError::Removed { .. },
                )) => Ok(false),
                Err(SyncRemoveError::InUse { .. }) => Ok(false),
                Err(error) => Err(error.into()),
            },
        }
    }
}

pub(crate) fn run(directory: &Directory, arguments: &Arguments) -> Result<()> {
    let mut failed = 0;
    let mut fail = |error: Error| {
        failed += 1;
        text::tell_error(&error);
    };
    let mut items: Vec<Item> = directory.leftovers()?.into_iter().map(Item::leftover).collect();
    for name in directory.topics()? {
        match directory.inspect(&name) {
            Ok(info) => items.extend(Item::of_topic(&info, arguments)),
            Err(OpenError::NotFound { .. } | OpenError::Retired { .. }) => {}
            Err(error) => fail(error.into()),
        }
    }
    let locks = lock::all(directory, |_, error| fail(error.into()))?;
    items.extend(locks.iter().filter_map(|info| Item::of_lock(info, arguments)));
    let mut stdout = io::stdout().lock();
    for item in &mut items {
        if arguments.yes {
            item.done = item.give_back(directory).unwrap_or_else(|error| {
                fail(error);
                false
            });
            if !item.done && !arguments.json {
                continue;
            }
        }
        // Line by line: what was done is said, whatever comes next.
        let mut line = String::new();
        if arguments.json {
            line = serde_json::to_string(item)?;
        } else {
            let done = if item.done { "given back: " } else { "" };
            write!(line, "{done}{}", item.description())?;
        }
        writeln!(stdout, "{line}")?;
    }
    stdout.flush()?;
    if !arguments.yes && !items.is_empty() {
        text::tell("nothing was changed: with --yes this is given back");
    }
    match failed {
        0 => Ok(()),
        1 => bail!("one thing could not be looked at or given back"),
        _ => bail!("{failed} things could not be looked at or given back"),
    }
}

/// A number with a unit, as in `90s`, `10min`, `2h`, `7d`.
fn age(text: &str) -> Result<Duration, String> {
    let wrong = || "a number and s, min, h or d are needed, as in 7d".to_owned();
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit.trim() {
        "s" => 1,
        "min" | "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_a_number_with_a_unit() {
        let seconds = |text| age(text).map(|age| age.as_secs());
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("10min"), Ok(600));
        assert_eq!(seconds("2h"), Ok(7200));
        assert_eq!(seconds("7d"), Ok(604_800));
        for wrong in ["", "7", "d", "-1d", "1.5h", "7 weeks", "18446744073709551615d"] {
            assert!(age(wrong).is_err(), "{wrong:?}");
        }
    }
}
