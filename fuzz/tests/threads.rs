//! Publishers and subscribers as threads on one mapping, so that a tool that watches addresses (ThreadSanitizer, valgrind) sees the two sides of each
//! message meet. Without a tool it is a short test like others.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use shmbus::{Delivery, Publishers, Subscriber, Topic, TopicOptions};

const MESSAGES: u64 = 20_000;

type Message = [u64; 4];

/// Receives until the end; each message is whole and stays so while it is held.
fn receive(subscriber: &mut Subscriber<Message>, reliable: bool, ends: &AtomicBool) -> u64 {
    let (mut received, mut held) = (0, Vec::new());
    loop {
        match subscriber.receive_timeout(Duration::from_millis(5)).unwrap() {
            Some(sample) => {
                let [first, rest @ ..] = *sample;
                assert_eq!(rest, [first; 3], "torn");
                assert!(!reliable || sample.missed_before() == 0, "missed");
                received += 1;
                if received % 7 == 0
                    && let Ok(sample) = sample.hold()
                {
                    held.push((sample, first));
                }
            }
            None if ends.load(Relaxed) => break,
            None => {}
        }
        if held.len() > 3 {
            let (sample, first): (_, u64) = held.swap_remove(received as usize % 3);
            assert_eq!(*sample, [first; 4], "changed while it was held");
        }
    }
    received
}

fn run(publishers: Publishers, count: u64) {
    let (_path, directory) = shmbus_fuzz::stage::directory();
    let options = TopicOptions {
        depth: 16,
        subscribers_max: 4,
        hold_blocks: Some(6),
        publishers,
        ..Default::default()
    };
    drop(Topic::<Message>::create_in(&directory, "t", &options).unwrap());
    let topic = shmbus::internals::open_writable::<Message>(&directory, "t").unwrap();
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let subscribers = [true, true, false, false].map(|reliable| {
            let delivery = if reliable { Delivery::Reliable } else { Delivery::Lossy };
            let mut subscriber = topic.subscriber(delivery).unwrap();
            let ends = &ends;
            (reliable, scope.spawn(move || receive(&mut subscriber, reliable, ends)))
        });
        let feeds: Vec<_> = (0..count)
            .map(|feed| {
                let mut publisher = topic.publisher().unwrap();
                scope.spawn(move || {
                    for message in 0..MESSAGES / count {
                        publisher.publish(&[feed << 32 | message; 4]).unwrap();
                    }
                })
            })
            .collect();
        feeds.into_iter().for_each(|feed| feed.join().unwrap());
        ends.store(true, Relaxed);
        for (reliable, subscriber) in subscribers {
            let received = subscriber.join().unwrap();
            assert!(!reliable || received == MESSAGES / count * count);
        }
    });
}

#[test]
fn threads_on_one_mapping_see_whole_messages_of_one_publisher() {
    run(Publishers::Exclusive, 1);
}

#[test]
fn threads_on_one_mapping_see_whole_messages_of_many_publishers() {
    run(Publishers::Shared(3), 3);
}
