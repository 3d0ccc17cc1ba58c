//! One process with several threads that use the topic as programs do, whatever they are told.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use shmbus::{
    AttachError, Corrupt, Delivery, Held, PublishError, Publisher, ReceiveError, Start, Subscriber,
    Topic, TryPublishError,
};

use crate::processes::{Part, Role};
use crate::random::Random;
use crate::{COUNTS, STOP, TOPIC};

pub(crate) const ROLES: &[Part] = &[("users", users)];

/// What is counted. The first [`EXPECTED`] must have happened.
pub(crate) const NAMES: &[&str] = &[
    "published",
    "received",
    "held",
    "joined",
    "described",
    "errors: Corrupt",
    "errors: full or timed out",
    "errors: others",
    "refused to join",
    "refused to open",
];
pub(crate) const EXPECTED: usize = 6;

#[derive(Clone, Copy)]
enum Count {
    Published,
    Received,
    Held,
    Joined,
    Described,
    Corrupt,
    TimedOut,
    Others,
    NotJoined,
    NotOpened,
}

struct User<'a> {
    role: &'a Role,
    topic: &'a Topic<[u8]>,
    random: Random,
    seen: u64,
}

fn users(role: &Role) {
    let [seed] = role.numbers();
    // The scribbler may have been at the header already.
    let mut topic = Topic::<[u8]>::open_in(&role.directory, TOPIC);
    while topic.is_err() && role.board.word(STOP).load(SeqCst) == 0 {
        std::thread::yield_now();
        topic = Topic::<[u8]>::open_in(&role.directory, TOPIC);
    }
    let Ok(topic) = topic else { return };
    let jobs: [fn(&mut User<'_>); 6] =
        [publishes, publishes, receives, receives, receives, describes];
    let threads: Vec<_> = std::thread::scope(|scope| {
        let start = |(number, job): (usize, fn(&mut User<'_>))| {
            let random = Random::new(seed.wrapping_add(number as u64));
            let mut user = User { role, topic: &topic, random, seen: 0 };
            scope.spawn(move || job(&mut user))
        };
        let threads: Vec<_> = jobs.into_iter().enumerate().map(start).collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    assert!(threads.iter().all(Result::is_ok), "a thread panicked");
}

impl User<'_> {
    fn count(&self, what: Count) {
        self.word(what).fetch_add(1, Relaxed);
    }

    fn word(&self, what: Count) -> &AtomicU64 {
        self.role.board.word(COUNTS + what as usize)
    }

    fn goes_on(&self) -> bool {
        self.role.board.word(STOP).load(SeqCst) == 0
    }

    fn corrupt(&self, corrupt: &Corrupt) {
        assert!(!corrupt.to_string().is_empty());
        self.count(Count::Corrupt);
    }

    fn published(&self, result: Result<u64, PublishError>) {
        match result {
            Ok(_) => self.count(Count::Published),
            Err(PublishError::Corrupt(corrupt)) => self.corrupt(&corrupt),
            Err(PublishError::TimedOut) => self.count(Count::TimedOut),
            Err(_) => self.count(Count::Others),
        }
    }

    fn not_joined(&self, error: AttachError) {
        assert!(!error.to_string().is_empty());
        self.count(Count::NotJoined);
        std::thread::yield_now();
    }
}

fn publishes(user: &mut User<'_>) {
    while user.goes_on() {
        match user.topic.publisher() {
            Ok(mut publisher) => {
                user.count(Count::Joined);
                for _ in 0..user.random.below(1..3000) {
                    if !user.goes_on() {
                        break;
                    }
                    publish(user, &mut publisher);
                }
            }
            Err(error) => user.not_joined(error),
        }
    }
}

fn publish(user: &mut User<'_>, publisher: &mut Publisher<[u8]>) {
    let message = [user.random.next() as u8; 100];
    let message = &message[..user.random.below(0..101) as usize];
    match user.random.below(0..64) {
        0..30 => user.published(publisher.try_publish(message).map_err(|error| match error {
            TryPublishError::Failed(error) => error,
            _ => PublishError::TimedOut,
        })),
        30..50 => {
            user.published(publisher.publish_timeout(message, Duration::from_micros(200)));
        }
        // These wait as long as it takes: a reliable subscriber may seem to be in the way, until the topic is removed.
        50 => user.published(publisher.publish(message)),
        51..60 => {
            let loan = publisher.loan(message.len());
            let result = loan.and_then(|mut loan| {
                loan.copy_from_slice(message);
                loan.commit()
            });
            user.published(result);
        }
        60 => drop(publisher.loan(3)),
        _ => std::thread::yield_now(),
    }
}

fn receives(user: &mut User<'_>) {
    let mut held = Vec::new();
    while user.goes_on() {
        let delivery = match user.random.below(0..4) {
            0 | 1 => Delivery::Lossy,
            2 => Delivery::Reliable,
            _ => Delivery::ReliableFor(Duration::from_millis(5)),
        };
        let start = match user.random.below(0..3) {
            0 => Start::Newest,
            1 => Start::Oldest,
            _ => Start::Back(user.random.below(0..300)),
        };
        match user.topic.subscriber_from(delivery, start) {
            Ok(mut subscriber) => {
                user.count(Count::Joined);
                for _ in 0..user.random.below(1..3000) {
                    if !user.goes_on() {
                        break;
                    }
                    receive(user, &mut subscriber, &mut held);
                }
            }
            Err(error) => user.not_joined(error),
        }
        held.truncate(user.random.below(0..20) as usize);
    }
    for sample in &held {
        user.seen ^= look(sample);
    }
    std::hint::black_box(user.seen);
}

fn look(bytes: &[u8]) -> u64 {
    assert!(bytes.len() <= 100, "a message of {} bytes", bytes.len());
    bytes.iter().fold(0, |sum, byte| sum ^ u64::from(*byte))
}

fn receive(user: &mut User<'_>, subscriber: &mut Subscriber<[u8]>, held: &mut Vec<Held<[u8]>>) {
    let what = user.random.below(0..64);
    let received = match what {
        0..40 => subscriber.try_receive(),
        40..50 => subscriber.receive_timeout(Duration::from_micros(200)),
        50..55 => subscriber.receive_latest(),
        55 => subscriber.receive().map(Some), // as long as it takes
        56 => {
            user.seen ^= subscriber.lag() ^ subscriber.missed() ^ subscriber.position();
            held.truncate(user.random.below(0..100) as usize);
            return;
        }
        _ => return std::thread::yield_now(),
    };
    match received {
        Ok(Some(sample)) => {
            user.count(Count::Received);
            user.seen ^= look(&sample) ^ sample.sequence() ^ sample.missed_before();
            user.seen ^= sample.timestamp_ns().unwrap_or(0);
            if held.len() < 200
                && user.random.one_in(8)
                && let Ok(sample) = sample.hold()
            {
                user.count(Count::Held);
                held.push(sample.clone());
                held.push(sample);
            }
        }
        Ok(None) => {}
        Err(ReceiveError::Corrupt(corrupt)) => user.corrupt(&corrupt),
        Err(_) => user.count(Count::Others),
    }
}

fn describes(user: &mut User<'_>) {
    while user.goes_on() {
        user.seen ^= user.topic.info().head;
        user.count(Count::Described);
        match user.role.directory.inspect(TOPIC) {
            Ok(info) => user.seen ^= info.participants.len() as u64,
            Err(_) => user.count(Count::NotOpened),
        }
        if Topic::<[u8]>::open_in(&user.role.directory, TOPIC).is_err() {
            user.count(Count::NotOpened);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    std::hint::black_box(user.seen);
}
