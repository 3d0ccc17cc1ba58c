//! Publishers killed and stopped.

use std::time::Duration;

use shmbus::{AttachError, Delivery, Topic, TopicOptions, Wake};

use crate::feeds::{FEEDS_MAX, RECEIVER_WORDS, Reader, TOPIC};
use crate::message::Message;
use crate::processes::Stage;
use crate::random::Random;
use crate::{Plan, kills};

/// One reliable and one lossy receiver, in processes of their own, live through all of it.
pub(crate) fn a_feed_is_killed_at_random_and_nothing_confirmed_is_lost(plan: &Plan) {
    let mut random = Random::new(plan.seed);
    let rings = [
        TopicOptions { depth: 16, subscribers_max: 2, hold_blocks: Some(4), ..Default::default() },
        TopicOptions { depth: 64, subscribers_max: 3, wake: Wake::Fence, ..Default::default() },
        TopicOptions { depth: 4096, timestamp: true, wake: Wake::Never, ..Default::default() },
    ];
    for options in rings {
        let stage = Stage::new();
        let topic = Topic::<Message>::create_in(&stage.directory, TOPIC, &options).unwrap();
        let (reliable_words, lossy_words) = (1, 1 + RECEIVER_WORDS);
        let reliable = stage.receiver(Delivery::Reliable, random.next(), reliable_words);
        let lossy = stage.receiver(Delivery::Lossy, random.next(), lossy_words);
        let feeds = kills(plan, 3).min(FEEDS_MAX);
        let mut published_at_all = 0;
        for number in 0..feeds {
            let (start, first) = (Duration::from_micros(700), Duration::from_millis(4));
            let ns = |duration: Duration| duration.as_nanos() as u64;
            match random.below(0..4) {
                0 => {
                    let kill_ns = ns(random.duration(start));
                    stage.spawn("feed", &[number, random.next(), kill_ns, 0]).killed();
                }
                1 => {
                    // From outside, somewhere among its first messages.
                    let feed = stage.spawn("feed", &[number, random.next(), 0, 0]);
                    let messages = random.below(1..300);
                    stage.until("a feed publishes", || stage.confirmed(number) >= messages);
                    feed.kill();
                }
                _ => {
                    let kill_ns = ns(random.duration(first));
                    stage.spawn("feed", &[number, random.next(), 0, kill_ns]).killed();
                }
            }
            published_at_all += u64::from(stage.confirmed(number) > 0);
        }
        let end = stage.publish_end(&topic);
        reliable.done();
        lossy.done();
        stage.check_confirmed(0..feeds);
        let (received, missed) = stage.totals_of(reliable_words);
        assert_eq!((received, missed), (end + 1, 0));
        let (lossy_received, lossy_missed) = stage.totals_of(lossy_words);
        assert_eq!(lossy_received + lossy_missed, end + 1);
        let info = topic.info();
        assert_eq!((info.head, info.participants.len()), (end + 1, 0));
        println!(
            "  depth {}, blocks of {}: {feeds} feeds killed, {published_at_all} of them after their first message; \
             {received} messages, the lossy one missed {lossy_missed}",
            info.depth, info.block_len
        );
        drop(topic);
        stage.end(TOPIC);
    }
}

pub(crate) fn a_stopped_publisher_keeps_its_place_and_subscribers_keep_what_they_have(plan: &Plan) {
    let mut random = Random::new(plan.seed);
    let stage = Stage::new();
    let options = TopicOptions { depth: 64, subscribers_max: 2, ..Default::default() };
    let topic = Topic::<Message>::create_in(&stage.directory, TOPIC, &options).unwrap();
    for number in 0..kills(plan, 10) {
        let mut reliable = Reader::new(topic.subscriber(Delivery::Reliable).unwrap());
        let mut lossy = Reader::new(topic.subscriber(Delivery::Lossy).unwrap());
        let feed = stage.spawn("feed", &[number, random.next(), 0, 0]);
        for _ in 0..5 {
            let messages = stage.confirmed(number) + random.below(1..200);
            stage.until("the feed publishes", || {
                reliable.drain();
                lossy.drain();
                stage.confirmed(number) >= messages
            });
            feed.stop();
            match topic.publisher() {
                Err(AttachError::PublisherAlive { pid }) => {
                    assert_eq!(pid as i32, feed.pid().as_raw_nonzero().get());
                }
                Err(error) => panic!("{error}"),
                Ok(_) => panic!("a stopped publisher is not a dead one"),
            }
            let sample = lossy.subscriber.try_receive().unwrap();
            if let Some(sample) = sample {
                lossy.stream.accept(sample.sequence(), sample.missed_before(), &sample);
                let held = sample.hold().unwrap();
                reliable.drain();
                assert!(held.is_whole());
            }
            reliable.drain();
            lossy.drain();
            let confirmed = stage.confirmed(number);
            assert!(reliable.stream.next >= confirmed, "what was published can be received");
            assert_eq!(reliable.stream.next, lossy.stream.next);
            feed.go_on();
        }
        feed.kill();
        // Nobody asks for more: the publisher's place is free at once.
        drop(topic.publisher().unwrap());
        reliable.drain();
        lossy.drain();
        assert_eq!(reliable.stream.next, topic.info().head);
        assert_eq!(lossy.stream.next, topic.info().head);
    }
    drop(topic);
    stage.end(TOPIC);
}
