//! Those who go on: what each of them has received, held against what it must be and against all others.

use std::collections::HashMap;

use shmbus::{Publisher, ReceiveError, Subscriber, TryPublishError};

use crate::message::Message;

/// What stands at a sequence: feed and counter.
pub(crate) type What = (u64, u64);

/// A sequence at which there is no message.
const ABANDONED: What = (u64::MAX, u64::MAX);
const ORDER_LEN: u64 = 1 << 14;

/// What anybody has found at the last sequences.
pub(crate) struct Order(Vec<(u64, What)>);

impl Order {
    pub(crate) fn new() -> Order {
        Order(vec![(u64::MAX, ABANDONED); ORDER_LEN as usize])
    }

    pub(crate) fn agree(&mut self, sequence: u64, what: What) {
        let found = &mut self.0[(sequence % ORDER_LEN) as usize];
        if found.0 == sequence {
            assert_eq!(found.1, what, "sequence {sequence} is one message here, another one there");
        }
        *found = (sequence, what);
    }

    /// What stands at `sequence`, if anybody has seen it.
    pub(crate) fn at(&self, sequence: u64) -> Option<What> {
        let found = self.0[(sequence % ORDER_LEN) as usize];
        (found.0 == sequence).then_some(found.1)
    }
}

/// A subscriber that goes on.
pub(crate) struct Watcher {
    pub(crate) subscriber: Subscriber<Message>,
    pub(crate) reliable: bool,
    /// Whether there may be sequences without a message.
    shared: bool,
    pub(crate) next: u64,
    pub(crate) missed: u64,
    pub(crate) abandoned: u64,
    /// The next counter of each feed.
    feeds: HashMap<u64, u64>,
    pub(crate) evictions: u32,
}

impl Watcher {
    pub(crate) fn new(subscriber: Subscriber<Message>, reliable: bool, shared: bool) -> Watcher {
        let next = subscriber.position();
        let feeds = HashMap::new();
        Watcher { subscriber, reliable, shared, next, missed: 0, abandoned: 0, feeds, evictions: 0 }
    }

    /// Receives everything that is there.
    pub(crate) fn drain(&mut self, order: &mut Order) {
        while self.receive(order) {}
    }

    /// Receives one message, if there is one.
    pub(crate) fn receive(&mut self, order: &mut Order) -> bool {
        let sample = match self.subscriber.try_receive() {
            Ok(Some(sample)) => sample,
            Ok(None) => return false,
            Err(ReceiveError::Evicted) => {
                self.evictions += 1;
                self.reliable = false;
                return true;
            }
            Err(error) => panic!("a subscriber that goes on: {error}"),
        };
        let (sequence, missed) = (sample.sequence(), sample.missed_before());
        let abandoned = sample.abandoned_before();
        assert!(sample.is_whole(), "torn: sequence {sequence}: {:?}", *sample);
        let Message { feed, counter, .. } = *sample;
        let expected = self.feeds.insert(feed, counter + 1);
        let what = format_args!("sequence {sequence} = {feed}/{counter}, not {expected:?}");
        assert_eq!(sequence, self.next + missed + abandoned, "what was before is wrong: {what}");
        assert!(abandoned == 0 || self.shared, "abandoned by an only publisher: {what}");
        if self.reliable {
            assert!(missed == 0, "a reliable one missed some: {what}");
            (self.next..sequence).for_each(|abandoned| order.agree(abandoned, ABANDONED));
            assert!(expected.is_none_or(|next| next == counter), "lost or twice: {what}");
        } else {
            assert!(expected.is_none_or(|next| next <= counter), "twice or out of order: {what}");
        }
        order.agree(sequence, (feed, counter));
        self.next = sequence + 1;
        self.missed += missed;
        self.abandoned += abandoned;
        let sum = (self.subscriber.missed(), self.subscriber.abandoned());
        assert_eq!((self.missed, self.abandoned), sum);
        true
    }

    /// How many messages of a feed it has received, and those before them.
    pub(crate) fn of(&self, feed: u64) -> u64 {
        self.feeds.get(&feed).copied().unwrap_or(0)
    }
}

/// The feed of those who go on.
pub(crate) struct Feed {
    pub(crate) publisher: Option<Publisher<Message>>,
    counter: u64,
}

impl Feed {
    pub(crate) fn new() -> Feed {
        Feed { publisher: None, counter: 0 }
    }

    /// Publishes, if there is room now: the sequence.
    pub(crate) fn publish(&mut self, order: &mut Order) -> Option<u64> {
        let publisher = self.publisher.as_mut().expect("a publisher");
        match publisher.try_publish(&Message::new(0, self.counter)) {
            Ok(sequence) => {
                order.agree(sequence, (0, self.counter));
                self.counter += 1;
                Some(sequence)
            }
            Err(TryPublishError::Full) => None,
            Err(error) => panic!("a publisher that goes on: {error}"),
        }
    }
}
