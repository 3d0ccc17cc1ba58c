//! The transport that all this is about: one topic, whoever the subscribers are.

use super::ledger::BusMark;
use super::schedule::{Spin, Wait};
use super::transport::{Flow, Role};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use shmbus::{Delivery, Directory, Publisher, Subscriber, Topic, TopicOptions, Wake};
use std::path::PathBuf;

/// Where a topic is: the parent has decided, the children are told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct TopicPlace {
    pub(super) directory: PathBuf,
    pub(super) name: String,
}

impl TopicPlace {
    fn open(&self) -> Result<Topic<[u8]>> {
        let directory = Directory::at(&self.directory)?;
        Topic::open_in(&directory, &self.name)
            .with_context(|| format!("cannot open the topic {}", self.name))
    }
}

/// Memory that the topic of a demo may take: a few MiB, whatever the payload, while [`DEPTH_MIN`] allows it.
const MEMORY_MAX: u64 = 8 << 20;
const DEPTH_MAX: u64 = 8192;
const DEPTH_MIN: u64 = 16;

/// Options of a topic for `subscribers` with messages of `payload` bytes, which wait as `wait` says.
pub(super) fn topic_options(payload: usize, subscribers: u32, wait: Wait) -> Result<TopicOptions> {
    let wake = match wait {
        // Somebody sleeps for nearly every message.
        Wait::Block => Wake::Fence,
        Wait::Spin => Wake::Auto,
    };
    let mut options = TopicOptions {
        depth: DEPTH_MAX,
        subscribers_max: subscribers,
        hold_blocks: Some(0),
        max_len: u32::try_from(payload)?,
        wake,
        prefault: true,
        ..TopicOptions::default()
    };
    while options.depth > DEPTH_MIN && options.memory::<[u8]>()?.total() > MEMORY_MAX {
        options.depth /= 2;
    }
    Ok(options)
}

/// A subscriber.
pub(super) struct BusSource {
    subscriber: Subscriber<[u8]>,
    wait: Wait,
    spin: Spin,
}

impl BusSource {
    pub(super) fn open(place: &TopicPlace, role: Role, flow: &Flow) -> Result<BusSource> {
        let delivery = match role {
            Role::Reliable => Delivery::Reliable,
            Role::Lossy | Role::Slow => Delivery::Lossy,
        };
        let subscriber = place.open()?.subscriber(delivery)?;
        Ok(BusSource { subscriber, wait: flow.wait, spin: flow.spin() })
    }

    pub(super) fn next<R>(&mut self, look: impl FnOnce(&[u8], Option<BusMark>) -> R) -> Result<R> {
        loop {
            let sample = match self.wait {
                Wait::Block => Some(self.subscriber.receive()?),
                Wait::Spin => self.subscriber.try_receive()?,
            };
            if let Some(sample) = sample {
                let (sequence, missed_before) = (sample.sequence(), sample.missed_before());
                return Ok(look(&sample, Some(BusMark { sequence, missed_before })));
            }
            self.spin.turn();
        }
    }
}

/// The publisher.
pub(super) struct BusOutlet {
    publisher: Publisher<[u8]>,
    message_len: usize,
}

impl BusOutlet {
    pub(super) fn open(place: &TopicPlace, flow: &Flow) -> Result<BusOutlet> {
        let publisher = place.open()?.publisher()?;
        Ok(BusOutlet { publisher, message_len: flow.payload })
    }

    /// Lets `write` make the message in its place in shared memory, and commits it.
    pub(super) fn send(&mut self, write: impl FnOnce(&mut [u8])) -> Result<()> {
        let mut loan = self.publisher.loan(self.message_len)?;
        write(&mut loan);
        loan.commit()?;
        Ok(())
    }
}
