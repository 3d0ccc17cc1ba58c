//! The files of a topic are deleted by something that is not a remover: everybody who takes part is told, each of whom is alone here.

use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use shmbus::{
    Delivery, ObserveError, PublishError, Publishers, ReceiveError, Start, Subscriber, Topic,
    TopicOptions, Wake,
};

use crate::processes::{Part, Role, Stage};
use crate::{Plan, spread};

pub(crate) const ROLES: &[Part] = &[("alone", alone)];

/// Words of a process: that it takes part, and 1 more than the messages it had when it was told.
const READY: usize = 100;
const TOLD: usize = 120;

/// Messages that are there when the files are deleted.
const MESSAGES: u64 = 10;

/// What a process does.
const KINDS: [&str; 9] = [
    "a reliable subscriber that waits",
    "a lossy subscriber that waits",
    "a lossy subscriber that waits, of a topic on which nobody sleeps",
    "a lossy subscriber that polls",
    "a lossy subscriber that waits for a moment, again and again",
    "an observer",
    "a publisher",
    "a publisher of several",
    "a publisher that waits for room",
];
const FIRST_PUBLISHER: usize = 6;

fn name(kind: usize) -> String {
    format!("deleted/{kind}")
}

fn options(kind: usize) -> TopicOptions {
    TopicOptions {
        depth: 64,
        subscribers_max: 2,
        wake: if kind == 2 { Wake::Never } else { Wake::Auto },
        publishers: if kind == 7 { Publishers::Shared(2) } else { Publishers::Exclusive },
        ..Default::default()
    }
}

/// Takes part until it is told that the topic is gone.
fn alone(role: &Role) {
    let [kind] = role.numbers();
    let kind = kind as usize;
    let ready = || role.board.word(READY + kind).store(1, Release);
    let topic = Topic::<u64>::open_in(&role.directory, &name(kind)).unwrap();
    let mut received = 0;
    if kind >= FIRST_PUBLISHER {
        let _stands_still = (kind == 8).then(|| topic.subscriber(Delivery::Reliable).unwrap());
        let mut publisher = topic.publisher().unwrap();
        ready();
        let error = loop {
            match publisher.publish(&received) {
                Ok(_) => received += 1,
                Err(error) => break error,
            }
            std::thread::yield_now();
        };
        assert_eq!(error, PublishError::Retired);
    } else if kind == 5 {
        let mut observer = topic.observe(Start::Oldest).unwrap();
        drop(topic);
        ready();
        let error = loop {
            match observer.next_timeout(Duration::from_secs(3600)) {
                Ok(message) => received += u64::from(message.is_some()),
                Err(error) => break error,
            }
        };
        assert_eq!(error, ObserveError::Retired);
        assert!(observer.info().retired);
    } else {
        let delivery = if kind == 0 { Delivery::Reliable } else { Delivery::Lossy };
        let mut subscriber = topic.subscriber(delivery).unwrap();
        ready();
        let error = loop {
            match received_one(&mut subscriber, kind) {
                Ok(one) => received += u64::from(one),
                Err(error) => break error,
            }
        };
        assert_eq!(error, ReceiveError::Retired);
    }
    role.board.word(TOLD + kind).store(1 + received, Release);
}

fn received_one(subscriber: &mut Subscriber<u64>, kind: usize) -> Result<bool, ReceiveError> {
    match kind {
        3 => {
            std::thread::yield_now();
            subscriber.try_receive().map(|found| found.is_some())
        }
        4 => subscriber.receive_timeout(Duration::from_millis(1)).map(|found| found.is_some()),
        _ => subscriber.receive().map(|_| true),
    }
}

/// Each process is the only one that could notice: this one has publishers, and publishes no more.
pub(crate) fn whoever_takes_part_is_told_that_something_else_has_deleted_the_files(_: &Plan) {
    let stage = Stage::new();
    let mut publishers = Vec::new();
    let mut processes = Vec::new();
    for kind in 0..KINDS.len() {
        let topic = Topic::<u64>::create_in(&stage.directory, &name(kind), &options(kind)).unwrap();
        publishers.push((kind < FIRST_PUBLISHER).then(|| topic.publisher().unwrap()));
        processes.push(stage.spawn("alone", &[kind as u64]));
    }
    let is_ready = |kind: usize| stage.board.word(READY + kind).load(Acquire) == 1;
    stage.until("all take part", || (0..KINDS.len()).all(is_ready));
    for publisher in publishers.iter_mut().flatten() {
        for message in 0..MESSAGES {
            publisher.publish(&message).unwrap();
        }
    }
    let begin = Instant::now();
    std::fs::remove_dir_all(stage.directory.path().join("deleted")).unwrap();
    let told = |kind: usize| stage.board.word(TOLD + kind).load(Acquire);
    let mut took = Vec::new();
    for (kind, what) in KINDS.iter().enumerate() {
        stage.until(what, || told(kind) > 0);
        took.push(begin.elapsed());
        if kind < FIRST_PUBLISHER {
            assert_eq!(told(kind) - 1, MESSAGES, "{what} has what was there");
        }
    }
    eprintln!("told after: {}", spread(took));
    for process in processes {
        process.done();
    }
    drop(publishers);
    // Of the same name is another topic now.
    Topic::<u64>::create_in(&stage.directory, &name(0), &options(0)).unwrap();
    stage.end(&name(0));
}
