//! The file of `shmbus serve`: what it says, and what is wrong with it.

use std::fmt::Display;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use shmbus::{GuardedTopic, Policy, Rule, Schema, TopicOptions};

use crate::text::Usage;

/// More than any such file has, so that a device is not read for ever.
const LEN_MAX: u64 = 16 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    socket: PathBuf,
    #[serde(default)]
    topic: Vec<TopicConfig>,
    #[serde(default)]
    rule: Vec<RuleConfig>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
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
    subscribers_total: Option<u32>,
}

/// A file that was read and found right.
pub(super) struct Config {
    /// As it was read.
    pub(super) text: String,
    pub(super) socket: PathBuf,
    pub(super) topics: Vec<Topic>,
    pub(super) policy: Policy,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Topic {
    name: String,
    pub(super) options: TopicOptions,
    schema: Option<Schema>,
}

impl Config {
    /// # Errors
    /// It cannot be read; or [`Usage`]: it is wrong.
    pub(super) fn read(path: &Path) -> Result<Config> {
        let mut text = String::new();
        let opened = std::fs::File::open(path);
        let read = opened.and_then(|file| file.take(LEN_MAX).read_to_string(&mut text));
        read.with_context(|| format!("cannot read {}", path.display()))?;
        anyhow::ensure!((text.len() as u64) < LEN_MAX, "{} is too long", path.display());
        let beside = path.parent().unwrap_or(Path::new("."));
        Config::parse(text, beside).map_err(|error| {
            Usage(format!("{}: {}", path.display(), format!("{error:#}").trim_end())).into()
        })
    }

    fn parse(text: String, beside: &Path) -> Result<Config> {
        let file: File = toml::from_str(&text)?;
        if file.topic.is_empty() {
            anyhow::bail!("no topic is in it");
        }
        let topics = file.topic.into_iter().map(|topic| topic.checked(beside));
        let topics = topics.collect::<Result<Vec<Topic>>>()?;
        let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
        for (at, name) in names.iter().enumerate() {
            if names[..at].contains(name) {
                anyhow::bail!("topic {name} is in it twice");
            }
        }
        let policy = Policy { rules: file.rule.into_iter().map(Rule::from).collect() };
        policy.check(&names)?;
        Ok(Config { socket: file.socket, policy, topics, text })
    }
}

/// The rules in the text of a file that was found right.
pub(super) fn policy_of(text: &str) -> Result<Policy> {
    let file: File = toml::from_str(text)?;
    Ok(Policy { rules: file.rule.into_iter().map(Rule::from).collect() })
}

impl TopicConfig {
    fn checked(self, beside: &Path) -> Result<Topic> {
        let standard = TopicOptions::default();
        let options = TopicOptions {
            depth: self.depth.unwrap_or(standard.depth),
            max_len: self.max_len.unwrap_or(standard.max_len),
            subscribers_max: self.subscribers_max.unwrap_or(standard.subscribers_max),
            hold_blocks: self.hold_blocks,
            timestamp: self.timestamp,
            ..standard
        };
        let schema = self.schema.map(|file| crate::schema::read(&beside.join(file))).transpose()?;
        let checked = GuardedTopic::check(&self.name, &options, schema.as_ref());
        checked.with_context(|| format!("topic {}", self.name))?;
        Ok(Topic { name: self.name, options, schema })
    }
}

impl Topic {
    pub(super) fn create(&self) -> Result<GuardedTopic> {
        let Topic { name, options, schema } = self;
        Ok(GuardedTopic::create_with_schema(name, options, schema.as_ref())?)
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
            subscribers_total: rule.subscribers_total,
        }
    }
}

/// So many, in words.
pub(super) fn count(number: usize, what: impl Display) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
