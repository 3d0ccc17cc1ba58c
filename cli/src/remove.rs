//! `shmbus rm`: topics, with the messages in them, and locks, with the data in them, are gone.

use anyhow::{Error, Result, bail};
use shmbus::sync::SyncRemoveError;
use shmbus::{Directory, RemoveError};

use crate::{lock, text};

const EXAMPLES: &str = "\
Examples:
  shmbus rm stats/vm
  shmbus rm --force stats/vm stats/io
  shmbus rm --lock bank/account

Who takes part in a topic that is removed by force is told: subscribers end after they have received what is there, \
publishers fail. So is who waits for a lock; who has it goes on. A topic or lock of the same name that is created later is \
another one.";

/// Remove topics with the messages in them, and locks with the data in them
///
/// A topic or lock in which a living process takes part stays, and the status is 1, unless it is removed by force.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Names of topics or locks
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Also if living processes take part, or the files are damaged
    #[arg(short, long)]
    force: bool,
    /// Only topics; one of these two where a topic and a lock have the name
    #[arg(long, conflicts_with = "lock")]
    topic: bool,
    /// Only locks
    #[arg(long)]
    lock: bool,
}

pub(crate) fn run(directory: &Directory, arguments: &Arguments) -> Result<()> {
    let remove = |name: &String| remove(directory, name, arguments);
    if let [name] = &arguments.names[..] {
        return remove(name);
    }
    let mut failed = 0;
    for name in &arguments.names {
        if let Err(error) = remove(name) {
            failed += 1;
            text::tell_error(&error);
        }
    }
    match failed {
        0 => Ok(()),
        _ => bail!("{failed} of {} are not removed", arguments.names.len()),
    }
}

fn remove(directory: &Directory, name: &String, arguments: &Arguments) -> Result<()> {
    if arguments.lock {
        return remove_lock(directory, name, arguments.force);
    }
    if !arguments.topic && lock::is_there(directory, name) {
        if directory.topics()?.contains(name) {
            let both = format!("{name} is a topic and a lock: --topic or --lock says which");
            return Err(text::Usage(both).into());
        }
        return remove_lock(directory, name, arguments.force);
    }
    directory.remove(name, arguments.force).map_err(|error| match error {
        RemoveError::InUse { name, participants: 1 } => {
            Error::msg(format!("topic {name} is in use by a living process (see --force)"))
        }
        RemoveError::InUse { name, participants } => Error::msg(format!(
            "topic {name} is in use by {participants} living participants (see --force)"
        )),
        RemoveError::Open(error) if !arguments.topic => lock::nor_lock(error),
        error => error.into(),
    })
}

fn remove_lock(directory: &Directory, name: &str, force: bool) -> Result<()> {
    directory.remove_sync(name, force).map_err(|error| match error {
        SyncRemoveError::InUse { name, members: 1 } => {
            Error::msg(format!("lock {name} is in use by a living member (see --force)"))
        }
        SyncRemoveError::InUse { name, members } => {
            Error::msg(format!("lock {name} is in use by {members} living members (see --force)"))
        }
        error => error.into(),
    })
}
