//! Where `shmbus echo` has its messages from: an observer, or a subscriber that takes part.

use std::time::Duration;

use anyhow::Result;
use shmbus::{
    AttachError, Delivery, Directory, ObserveError, Observed, Observer, Raw, RawTopic,
    ReceiveError, Sample, Schema, Start, Subscriber,
};

/// Reads a topic of any type.
pub(crate) struct Source {
    reader: Reader,
    /// Messages that were published before it began to read, and that it was to have.
    before: u64,
    /// Whether they are still to be told, with the first message.
    untold: bool,
}

enum Reader {
    Observer(Observer),
    Subscriber(Subscriber<Raw>, Option<Schema>),
}

/// A message as it was read.
pub(crate) struct Message<'a> {
    read: Read<'a>,
    /// Missed before it, before this reader began.
    before: u64,
}

enum Read<'a> {
    Observed(Observed<'a>),
    Received(Sample<'a, Raw>),
}

impl Message<'_> {
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.read {
            Read::Observed(observed) => observed.bytes(),
            Read::Received(sample) => sample,
        }
    }

    pub(crate) fn sequence(&self) -> u64 {
        match &self.read {
            Read::Observed(observed) => observed.sequence(),
            Read::Received(sample) => sample.sequence(),
        }
    }

    pub(crate) fn missed_before(&self) -> u64 {
        let missed = match &self.read {
            Read::Observed(observed) => observed.missed_before(),
            Read::Received(sample) => sample.missed_before(),
        };
        missed + self.before
    }

    pub(crate) fn abandoned_before(&self) -> u64 {
        match &self.read {
            Read::Observed(observed) => observed.abandoned_before(),
            Read::Received(sample) => sample.abandoned_before(),
        }
    }

    /// When it was committed, by the monotonic clock, where the topic carries the time.
    pub(crate) fn timestamp_ns(&self) -> Option<u64> {
        match &self.read {
            Read::Observed(observed) => observed.timestamp_ns(),
            Read::Received(sample) => sample.timestamp_ns(),
        }
    }

    /// Entry of its publisher, of topics with several.
    pub(crate) fn publisher(&self) -> Option<u32> {
        match &self.read {
            Read::Observed(observed) => observed.publisher(),
            Read::Received(sample) => sample.publisher(),
        }
    }
}

/// What there was.
pub(crate) enum Seen<'a> {
    Message(Message<'a>),
    Nothing,
    /// It has held publishers up for longer than it was reliable for, and may miss messages from here on.
    Evicted,
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
        let reader = match delivery {
            None => Reader::Observer(directory.observe(topic, start)?),
            Some(delivery) => {
                let topic = RawTopic::open_in(directory, topic)?;
                let schema = topic.schema().cloned();
                Reader::Subscriber(topic.subscriber_from(delivery, start)?, schema)
            }
        };
        Ok(Source { reader, before: 0, untold: false })
    }

    /// Opens a topic that was waited for: from its oldest message, and those before that one count as missed.
    pub(crate) fn open_awaited(
        directory: &Directory,
        topic: &str,
        delivery: Option<Delivery>,
    ) -> Result<Source, AttachError> {
        let mut source = Source::open(directory, topic, delivery, Start::Oldest)?;
        source.before = source.position();
        source.untold = source.before > 0;
        Ok(source)
    }

    /// What a message is; `None`: bytes.
    pub(crate) fn schema(&self) -> Option<&Schema> {
        match &self.reader {
            Reader::Observer(observer) => observer.schema(),
            Reader::Subscriber(_, schema) => schema.as_ref(),
        }
    }

    /// The next message, if one comes in time.
    pub(crate) fn next(&mut self, timeout: Duration) -> Result<Seen<'_>> {
        let read = match &mut self.reader {
            Reader::Observer(observer) => match observer.next_timeout(timeout) {
                Ok(Some(observed)) => Read::Observed(observed),
                Ok(None) => return Ok(Seen::Nothing),
                Err(ObserveError::Retired) => return Ok(Seen::Removed),
                Err(error) => return Err(error.into()),
            },
            Reader::Subscriber(subscriber, _) => {
                let received = match timeout.is_zero() {
                    true => subscriber.try_receive(),
                    false => subscriber.receive_timeout(timeout),
                };
                match received {
                    Ok(Some(sample)) => Read::Received(sample),
                    Ok(None) => return Ok(Seen::Nothing),
                    Err(ReceiveError::Retired) => return Ok(Seen::Removed),
                    Err(ReceiveError::Evicted) => return Ok(Seen::Evicted),
                    Err(error) => return Err(error.into()),
                }
            }
        };
        let before = if std::mem::take(&mut self.untold) { self.before } else { 0 };
        Ok(Seen::Message(Message { read, before }))
    }

    /// The next sequence to be read.
    pub(crate) fn position(&self) -> u64 {
        match &self.reader {
            Reader::Observer(observer) => observer.position(),
            Reader::Subscriber(subscriber, _) => subscriber.position(),
        }
    }

    /// How many sequences it is behind the newest one.
    pub(crate) fn lag(&self) -> u64 {
        match &self.reader {
            Reader::Observer(observer) => observer.lag(),
            Reader::Subscriber(subscriber, _) => subscriber.lag(),
        }
    }

    /// How many it has missed.
    pub(crate) fn missed(&self) -> u64 {
        let missed = match &self.reader {
            Reader::Observer(observer) => observer.missed(),
            Reader::Subscriber(subscriber, _) => subscriber.missed(),
        };
        missed + self.before
    }
}
