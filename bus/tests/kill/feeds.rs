//! The processes that publish and receive in every scenario, and what they owe: a feed writes down what it has confirmed, a
//! receiver what has come.

use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

use shmbus::{Delivery, Publisher, Subscriber, Topic, TryPublishError};

use crate::message::{END, Message, Stream};
use crate::processes::{Part, Process, Role, Stage, kill_me_after};
use crate::random::Random;

pub(crate) const TOPIC: &str = "feed/quotes";

/// First word of what feeds have confirmed: messages, by number of the feed.
const CONFIRMED: usize = 1 << 10;
/// First word of what the reliable receiver has got: messages, by number of the feed.
const RECEIVED: usize = 1 << 16;
/// As many feeds as there are words for them.
pub(crate) const FEEDS_MAX: u64 = (RECEIVED - CONFIRMED) as u64;

/// Words of a receiver, from the first one that it was told.
const ATTACHED: usize = 0;
const NEXT: usize = 1;
const TOTAL: usize = 2;
const MISSED: usize = 3;
/// How many words a receiver has.
pub(crate) const RECEIVER_WORDS: usize = 4;

pub(crate) const ROLES: &[Part] = &[("feed", feed), ("receiver", receiver)];

pub(crate) fn open(role: &Role) -> Topic<Message> {
    Topic::open_in(&role.directory, TOPIC).unwrap()
}

/// Publishes as fast as it can, until it is killed: by its own timer, from its start or from its first message on, where one is
/// set.
fn feed(role: &Role) {
    let [feed, seed, kill_from_start_ns, kill_from_first_ns] = role.numbers();
    let mut random = Random::new(seed);
    let confirmed = role.board.word(CONFIRMED + feed as usize);
    if kill_from_start_ns > 0 {
        kill_me_after(Duration::from_nanos(kill_from_start_ns));
    }
    // At once: whoever published before is gone.
    let mut publisher = open(role).publisher().unwrap();
    for counter in 0.. {
        publish_somehow(&mut publisher, feed, counter, &mut random);
        confirmed.store(counter + 1, Release);
        if counter == 0 && kill_from_first_ns > 0 {
            kill_me_after(Duration::from_nanos(kill_from_first_ns));
        }
    }
}

fn publish_somehow(
    publisher: &mut Publisher<Message>,
    feed: u64,
    counter: u64,
    random: &mut Random,
) {
    let expected = publisher.sequence();
    let sequence = match random.below(0..4) {
        0 => publisher.publish(&Message::new(feed, counter)).unwrap(),
        1 => {
            // One that never happens, then one that does.
            publisher.loan().unwrap().fill(END - 1, counter);
            let mut loan = publisher.loan().unwrap();
            loan.fill(feed, counter);
            loan.commit().unwrap()
        }
        2 => {
            let mut loan = publisher.loan().unwrap();
            loan.fill(feed, counter);
            loan.commit().unwrap()
        }
        _ => {
            let message = Message::new(feed, counter);
            match publisher.try_publish(&message) {
                Ok(sequence) => sequence,
                Err(TryPublishError::Full) => publisher.publish(&message).unwrap(),
                Err(error) => panic!("{error}"),
            }
        }
    };
    assert_eq!(sequence, expected);
}

/// Receives until the end, in every way, holds some, and checks everything.
fn receiver(role: &Role) {
    let [reliable, seed, words] = role.numbers();
    let mut random = Random::new(seed);
    let word = |word| role.board.word(words as usize + word);
    let reliable = reliable != 0;
    let delivery = if reliable { Delivery::Reliable } else { Delivery::Lossy };
    let mut subscriber = open(role).subscriber(delivery).unwrap();
    let start = subscriber.position();
    let mut stream = Stream::new(reliable, start);
    let mut held = Vec::new();
    word(ATTACHED).store(1, Release);
    loop {
        let sample = match random.below(0..8) {
            0 => Some(subscriber.receive()),
            1 => subscriber.receive_timeout(Duration::from_millis(1)).transpose(),
            2 if !reliable && random.one_in(10) => subscriber.receive_latest().transpose(),
            _ => subscriber.try_receive().transpose(),
        };
        let Some(sample) = sample.transpose().unwrap() else {
            std::thread::yield_now();
            continue;
        };
        stream.accept(sample.sequence(), sample.missed_before(), &sample);
        let message = *sample;
        if reliable && message.feed != END {
            role.board.word(RECEIVED + message.feed as usize).store(message.counter + 1, Release);
        }
        if held.len() < 2 && random.one_in(50) {
            held.push((sample.hold().expect("within the budget"), message));
        }
        let last = message.feed == END;
        if last || random.one_in(100) {
            for (sample, message) in held.drain(..) {
                assert!(*sample == message, "changed while it was held: {}", sample.sequence());
            }
        }
        word(NEXT).store(stream.next, Release);
        if last {
            break;
        }
    }
    assert_eq!(stream.received + stream.missed, stream.next - start);
    assert_eq!(stream.missed, subscriber.missed());
    word(TOTAL).store(stream.received, Release);
    word(MISSED).store(stream.missed, Release);
}

impl Stage {
    /// Starts a receiver that writes to `words`, and waits until it is attached.
    pub(crate) fn receiver(&self, delivery: Delivery, seed: u64, words: usize) -> Process {
        for word in words..words + RECEIVER_WORDS {
            self.board.word(word).store(0, Release);
        }
        let reliable = u64::from(delivery == Delivery::Reliable);
        let receiver = self.spawn("receiver", &[reliable, seed, words as u64]);
        self.until("a receiver attaches", || self.board.word(words + ATTACHED).load(Acquire) == 1);
        receiver
    }

    /// The sequence that a receiver expects next.
    pub(crate) fn next_of(&self, words: usize) -> u64 {
        self.board.word(words + NEXT).load(Acquire)
    }

    /// Received and missed by a receiver that has ended.
    pub(crate) fn totals_of(&self, words: usize) -> (u64, u64) {
        let word = |word| self.board.word(words + word).load(Acquire);
        (word(TOTAL), word(MISSED))
    }

    /// What feed `feed` has confirmed.
    pub(crate) fn confirmed(&self, feed: u64) -> u64 {
        self.board.word(CONFIRMED + feed as usize).load(Acquire)
    }

    /// Publishes the last message: receivers end with it.
    pub(crate) fn publish_end(&self, topic: &Topic<Message>) -> u64 {
        let mut publisher = topic.publisher().unwrap();
        publisher.publish(&Message::new(END, 0)).unwrap()
    }

    /// Of each feed, everything that it confirmed was received, and at most one message more: that which it had committed and
    /// not yet confirmed.
    pub(crate) fn check_confirmed(&self, feeds: std::ops::Range<u64>) {
        for feed in feeds {
            let confirmed = self.confirmed(feed);
            let received = self.board.word(RECEIVED + feed as usize).load(Acquire);
            assert!(
                (confirmed..=confirmed + 1).contains(&received),
                "feed {feed} confirmed {confirmed} messages, {received} came"
            );
        }
    }
}

/// A subscriber in the calling process, with its own account of the stream.
pub(crate) struct Reader {
    pub(crate) subscriber: Subscriber<Message>,
    pub(crate) stream: Stream,
}

impl Reader {
    pub(crate) fn new(subscriber: Subscriber<Message>) -> Reader {
        let reliable = subscriber.delivery() == Delivery::Reliable;
        let stream = Stream::new(reliable, subscriber.position());
        Reader { subscriber, stream }
    }

    /// Receives whatever is there; how much that was.
    pub(crate) fn drain(&mut self) -> u64 {
        let before = self.stream.received;
        while let Some(sample) = self.subscriber.try_receive().unwrap() {
            self.stream.accept(sample.sequence(), sample.missed_before(), &sample);
        }
        self.stream.received - before
    }
}
