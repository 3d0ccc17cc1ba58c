//! `shmbus serve`: guarded topics, and a broker that hands them out.
//!
//! Two processes. The *keeper* makes the topics and the socket and keeps their descriptors; it reads nothing from clients. The *worker* is lent the
//! descriptors through its standard input, and answers. Whenever it ends, or says nothing for too long, the keeper starts another one; who has joined
//! notices nothing, and who is joining just then is told that it got no answer. When the keeper is gone, the worker ends.
//!
//! | on the socket between them | |
//! |---|---|
//! | keeper to worker | the policy: a file in memory; then listener and topics ([`Broker::lend`](shmbus::Broker::lend)); then each other policy |
//! | worker to keeper | `!` at first and every second: it answers; `p`: it decides by the policy that came last |

mod config;
mod keeper;
mod worker;

use std::path::PathBuf;

use anyhow::Result;

use crate::text::tell;
use config::{Config, count};

const EXAMPLES: &str = "\
Examples:
  shmbus serve --config guarded.toml
  shmbus serve --check guarded.toml

  # guarded.toml
  socket = \"/run/quotes/broker\"   # in a directory that others may search and not write

  [[topic]]
  name = \"md/quotes\"
  schema = \"quote.schema\"         # beside this file; without one a topic is of bytes
  depth = 65536                   # also max_len, subscribers_max, hold_blocks, timestamp

  [[rule]]                        # the first about a user and a topic decides; none: refused
  uids = [1000]                   # also gids
  topics = [\"md/*\"]
  publish = true

  [[rule]]
  gids = [2000]
  topics = [\"md/quotes\"]
  subscribe = true
  reliable = true                 # for 100 ms, a tenth of the time in the long run
  patience_ms = 100
  subscribers = 4                 # entries that one user may have
  subscribers_total = 32          # entries that all of them may have; half of the topic's";

/// Serve guarded topics to other users, as a policy allows it
///
/// Publishers and subscribers join with the socket (Topic::connect) and need it no more then. Topics exist as long as this runs; ended by SIGTERM or SIGINT, it
/// tells everybody who takes part.
///
/// SIGHUP has it read the rules of the file again. If something is wrong with the file, that is told on standard error and the rules of before stay. Socket and
/// topics change with a restart only. Who has joined stays.
///
/// It answers in a process of its own, which is started again if it ends or says nothing for 10 seconds, stopped or not. That is the program that was
/// started, also after its file was replaced: an upgrade is in effect after a restart.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group(clap::ArgGroup::new("file").required(true).args(["config", "check"])))]
pub(crate) struct Arguments {
    /// What to serve, where, and to whom: TOML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only see whether a file is right: exit status 0, or 2 and what is wrong
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// Answers; started by the keeper
    #[arg(long, hide = true)]
    worker: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Some(path) = arguments.config.as_ref().or(arguments.check.as_ref()) else {
        return Ok(()); // clap has one of them given
    };
    if arguments.worker {
        return worker::work();
    }
    let config = Config::read(path)?;
    if arguments.check.is_some() {
        let (topics, rules) = (config.topics.len(), config.policy.rules.len());
        tell(&format!("{}: {}, {}", path.display(), count(topics, "topic"), count(rules, "rule")));
        return Ok(());
    }
    keeper::keep(path, config)
}
