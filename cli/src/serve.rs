//! `shmbus serve`: guarded topics, and a broker that hands them out.
//!
//! Two processes. The *keeper* makes the topics and the socket and keeps their descriptors; it reads nothing from clients. The *worker* is lent the
//! descriptors through its standard input, and answers. Whenever it ends, the keeper starts another one; who has joined notices nothing, and who is joining
//! just then is told that it got no answer. When the keeper is gone, the worker ends.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use shmbus::{Broker, GuardedTopic, Policy, Rule, TopicOptions};
use shmbus_sys::unix::{self, Readiness};

use crate::interrupt::Interrupt;
use crate::text::tell;

/// How often somebody looks whether it shall end.
const LOOK: Duration = Duration::from_millis(100);
/// How long the keeper waits at most before it starts a worker again that ended before it answered anybody.
const PAUSE_MAX: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  shmbus serve --config guarded.toml

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
  subscribers = 4                 # entries that one user may have";

/// Serve guarded topics to other users, as a policy allows it
///
/// Publishers and subscribers join with the socket (Topic::connect) and need it no more then. Topics exist as long as this runs; ended by a signal, it tells
/// everybody who takes part. The policy is read again whenever the worker is started again: kill it to have a changed file in effect.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// What to serve, where, and to whom: TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Answers; started by the keeper
    #[arg(long, hide = true)]
    worker: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    socket: PathBuf,
    #[serde(default)]
    topic: Vec<TopicConfig>,
    #[serde(default)]
    rule: Vec<RuleConfig>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicConfig {
    name: String,
    schema: Option<PathBuf>,
    depth: Option<u64>,
    max_len: Option<u32>,
    subscribers_max: Option<u32>,
    hold_blocks: Option<u32>,
    #[serde(default)]
    timestamp: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleConfig {
    #[serde(default)]
    uids: Vec<u32>,
    #[serde(default)]
    gids: Vec<u32>,
    topics: Vec<String>,
    #[serde(default)]
    publish: bool,
    #[serde(default)]
    subscribe: bool,
    #[serde(default)]
    reliable: bool,
    patience_ms: Option<u64>,
    subscribers: Option<u32>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let path = &arguments.config;
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    let config: Config = toml::from_str(&text).with_context(|| path.display().to_string())?;
    if arguments.worker { work(config) } else { keep(path, &config) }
}

impl TopicConfig {
    fn create(&self, beside: &Path) -> Result<GuardedTopic> {
        let standard = TopicOptions::default();
        let options = TopicOptions {
            depth: self.depth.unwrap_or(standard.depth),
            max_len: self.max_len.unwrap_or(standard.max_len),
            subscribers_max: self.subscribers_max.unwrap_or(standard.subscribers_max),
            hold_blocks: self.hold_blocks,
            timestamp: self.timestamp,
            ..standard
        };
        let schema = self.schema.as_ref().map(|file| crate::schema::read(&beside.join(file)));
        Ok(GuardedTopic::create_with_schema(&self.name, &options, schema.transpose()?.as_ref())?)
    }
}

impl From<RuleConfig> for Rule {
    fn from(rule: RuleConfig) -> Rule {
        let standard = Rule::default();
        Rule {
            uids: rule.uids,
            gids: rule.gids,
            topics: rule.topics,
            publish: rule.publish,
            subscribe: rule.subscribe,
            reliable: rule.reliable,
            patience: rule.patience_ms.map_or(standard.patience, Duration::from_millis),
            subscribers: rule.subscribers.unwrap_or(standard.subscribers),
        }
    }
}

/// The worker: answers until its keeper is gone.
fn work(config: Config) -> Result<()> {
    let keeper = std::io::stdin();
    let policy = Policy { rules: config.rule.into_iter().map(Rule::from).collect() };
    let mut broker = Broker::inherit(keeper.as_fd(), policy).context("not started by a keeper")?;
    unix::send(keeper.as_fd(), b"!", &[]).context("the keeper is gone")?;
    loop {
        broker.turn(LOOK)?;
        if unix::wait(&[(keeper.as_fd(), false)], Duration::ZERO)?[0] == Readiness::Closed {
            return Ok(());
        }
    }
}

/// The keeper: has a worker answer until it is interrupted.
fn keep(path: &Path, config: &Config) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let beside = path.parent().unwrap_or(Path::new("."));
    if config.topic.is_empty() {
        bail!("{}: no topic is in it", path.display());
    }
    let topics = config.topic.iter().map(|topic| topic.create(beside));
    let topics = topics.collect::<Result<Vec<_>>>()?;
    let listener = Broker::listen(&config.socket);
    let listener =
        listener.with_context(|| format!("cannot listen at {}", config.socket.display()))?;
    tell(&format!("serving {} topics at {}", topics.len(), config.socket.display()));
    let stopped = keep_serving(path, &listener, &topics, &interrupt);
    drop(listener);
    if let Err(error) = Broker::remove_socket(&config.socket) {
        tell(&format!("cannot remove {}: {error}", config.socket.display()));
    }
    for topic in &topics {
        topic.retire()?;
    }
    stopped
}

fn keep_serving(
    path: &Path,
    listener: &OwnedFd,
    topics: &[GuardedTopic],
    interrupt: &Interrupt,
) -> Result<()> {
    let mut pause = Duration::ZERO;
    loop {
        let mut worker = Worker::start(path, listener, topics)?;
        loop {
            let ready = unix::wait(&[(worker.socket.as_fd(), !worker.answers)], LOOK)?;
            interrupt.check()?;
            match ready[0] {
                Readiness::Nothing => {}
                Readiness::Readable
                    if unix::receive(worker.socket.as_fd(), &mut [0]).is_ok_and(|len| len > 0) =>
                {
                    worker.answers = true;
                    tell(&format!("worker {} answers", worker.child.id()));
                }
                Readiness::Readable | Readiness::Closed => break,
            }
        }
        pause = match worker.answers {
            true => Duration::from_millis(1),
            false => (pause * 2).clamp(Duration::from_millis(10), PAUSE_MAX),
        };
        drop(worker);
        tell("the worker has ended; another one is started");
        std::thread::sleep(pause);
    }
}

/// A worker; killed and reaped when it is dropped.
struct Worker {
    child: Child,
    socket: OwnedFd,
    /// It has said that it does.
    answers: bool,
}

impl Worker {
    fn start(path: &Path, listener: &OwnedFd, topics: &[GuardedTopic]) -> Result<Worker> {
        let (socket, theirs) = unix::pair()?;
        let child = Command::new(std::env::current_exe()?)
            .args(["serve", "--worker", "--config"])
            .arg(path)
            .stdin(Stdio::from(theirs))
            .spawn()
            .context("cannot start a worker")?;
        let worker = Worker { child, socket, answers: false };
        // One that ends meanwhile is found to have ended.
        let _ = Broker::lend(worker.socket.as_fd(), listener.as_fd(), topics);
        Ok(worker)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
