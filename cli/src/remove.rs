//! `shmbus rm`: topics, with the messages in them, are gone.

use anyhow::{Error, Result, bail};
use shmbus::{Directory, RemoveError};

use crate::text;

const EXAMPLES: &str = "\
Examples:
  shmbus rm stats/vm
  shmbus rm --force stats/vm stats/io

Who takes part in a topic that is removed by force is told: subscribers end after they have received what is there,
publishers fail. A topic of the same name that is created later is another one.";

/// Remove topics with the messages in them
///
/// A topic in which a living process takes part stays, and the status is 1, unless it is removed by force.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Names of the topics
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Also if living processes take part, or the topic's files are damaged
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run(directory: &Directory, arguments: &Arguments) -> Result<()> {
    let remove = |name: &String| {
        directory.remove(name, arguments.force).map_err(|error| match error {
            RemoveError::InUse { name, participants: 1 } => {
                Error::msg(format!("topic {name} is in use by a living process (see --force)"))
            }
            RemoveError::InUse { name, participants } => Error::msg(format!(
                "topic {name} is in use by {participants} living participants (see --force)"
            )),
            error => error.into(),
        })
    };
    if let [topic] = &arguments.topics[..] {
        return remove(topic);
    }
    let mut failed = 0;
    for topic in &arguments.topics {
        if let Err(error) = remove(topic) {
            failed += 1;
            text::tell(&format!("{error:#}"));
        }
    }
    match failed {
        0 => Ok(()),
        _ => bail!("{failed} of {} topics are not removed", arguments.topics.len()),
    }
}
