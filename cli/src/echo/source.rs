//! Where `shmbus echo` has its messages from: an observer, or a subscriber that takes part.

use std::time::Duration;

use anyhow::Result;
use shmbus::{
    AttachError, Delivery, Directory, ObserveError, Observed, Observer, Raw, RawTopic,
    ReceiveError, Sample, Schema, Start, Subscriber,
};

/// Reads a topic of any type.
pub(crate) enum Source {
    Observer(Observer),
    Subscriber(Subscriber<Raw>, Option<Schema>),
}

/// A message as it was read.
pub(crate) enum Message<'a> {
    Observed(Observed<'a>),
    Received(Sample<'a, Raw>),
}

impl Message<'_> {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Message::Observed(observed) => observed.bytes(),
            Message::Received(sample) => sample,
        }
    }

    pub(crate) fn sequence(&self) -> u64 {
        match self {
            Message::Observed(observed) => observed.sequence(),
            Message::Received(sample) => sample.sequence(),
        }
    }

    pub(crate) fn missed_before(&self) -> u64 {
        match self {
            Message::Observed(observed) => observed.missed_before(),
            Message::Received(sample) => sample.missed_before(),
        }
    }

    pub(crate) fn abandoned_before(&self) -> u64 {
        match self {
            Message::Observed(observed) => observed.abandoned_before(),
            Message::Received(sample) => sample.abandoned_before(),
        }
    }

    /// When it was committed, by the monotonic clock, where the topic carries the time.
    pub(crate) fn timestamp_ns(&self) -> Option<u64> {
        match self {
            Message::Observed(observed) => observed.timestamp_ns(),
            Message::Received(sample) => sample.timestamp_ns(),
        }
    }

    /// Entry of its publisher, of topics with several.
    pub(crate) fn publisher(&self) -> Option<u32> {
        match self {
            Message::Observed(observed) => observed.publisher(),
            Message::Received(sample) => sample.publisher(),
        }
    }
}

/// What there was.
pub(crate) enum Seen<'a> {
    Message(Message<'a>),
    Nothing,
    /// The topic was removed, and everything in it has been read.
    Removed,
}

impl Source {
    /// Without `delivery`, by an observer.
    pub(crate) fn open(
        directory: &Directory,
        topic: &str,
        delivery: Option<Delivery>,
        start: Start,
    ) -> Result<Source, AttachError> {
        let Some(delivery) = delivery else {
            return Ok(Source::Observer(directory.observe(topic, start)?));
        };
        let topic = RawTopic::open_in(directory, topic)?;
        let schema = topic.schema().cloned();
        Ok(Source::Subscriber(topic.subscriber_from(delivery, start)?, schema))
    }

    /// What a message is; `None`: bytes.
    pub(crate) fn schema(&self) -> Option<&Schema> {
        match self {
            Source::Observer(observer) => observer.schema(),
            Source::Subscriber(_, schema) => schema.as_ref(),
        }
    }

    /// The next message, if one comes in time.
    pub(crate) fn next(&mut self, timeout: Duration) -> Result<Seen<'_>> {
        match self {
            Source::Observer(observer) => match observer.next_timeout(timeout) {
                Ok(Some(observed)) => Ok(Seen::Message(Message::Observed(observed))),
                Ok(None) => Ok(Seen::Nothing),
                Err(ObserveError::Retired) => Ok(Seen::Removed),
                Err(error) => Err(error.into()),
            },
            Source::Subscriber(subscriber, _) => {
                let received = match timeout.is_zero() {
                    true => subscriber.try_receive(),
                    false => subscriber.receive_timeout(timeout),
                };
                match received {
                    Ok(Some(sample)) => Ok(Seen::Message(Message::Received(sample))),
                    Ok(None) => Ok(Seen::Nothing),
                    Err(ReceiveError::Retired) => Ok(Seen::Removed),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    /// The next sequence to be read.
    pub(crate) fn position(&self) -> u64 {
        match self {
            Source::Observer(observer) => observer.position(),
            Source::Subscriber(subscriber, _) => subscriber.position(),
        }
    }

    /// How many sequences it is behind the newest one.
    pub(crate) fn lag(&self) -> u64 {
        match self {
            Source::Observer(observer) => observer.lag(),
            Source::Subscriber(subscriber, _) => subscriber.lag(),
        }
    }

    /// How many it has missed.
    pub(crate) fn missed(&self) -> u64 {
        match self {
            Source::Observer(observer) => observer.missed(),
            Source::Subscriber(subscriber, _) => subscriber.missed(),
        }
    }
}
