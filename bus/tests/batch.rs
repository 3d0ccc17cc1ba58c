//! Several messages at once: published, received, and passed over.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use shmbus::{
    Delivery, Directory, PublishAllError, PublishError, Publishers, Raw, RawTopic, ReceiveError,
    SeekError, Start, Subscriber, Topic, TopicOptions,
};

fn directory() -> (tempfile::TempDir, Directory) {
    let path = tempfile::tempdir_in("/dev/shm").unwrap();
    let directory = Directory::at(path.path()).unwrap();
    (path, directory)
}

/// Blocks of eight messages.
fn options() -> TopicOptions {
    TopicOptions { depth: 128, subscribers_max: 4, hold_blocks: Some(2), ..Default::default() }
}

fn topic(directory: &Directory) -> Topic<u64> {
    let topic = Topic::<u64>::create_in(directory, "t", &options()).unwrap();
    assert_eq!(topic.info().block_len, 8);
    topic
}

fn messages(range: std::ops::Range<u64>) -> Vec<u64> {
    range.collect()
}

#[test]
fn a_batch_is_published_in_order_and_received_by_those_awake_and_asleep() {
    for publishers in [Publishers::Exclusive, Publishers::Shared(2)] {
        let (_path, directory) = directory();
        let options = TopicOptions { publishers, ..options() };
        let topic = Topic::<u64>::create_in(&directory, "t", &options).unwrap();
        let mut publisher = topic.publisher().unwrap();
        let readers: Vec<_> = [Delivery::Reliable, Delivery::Lossy, Delivery::Reliable]
            .map(|delivery| {
                let mut subscriber = topic.subscriber(delivery).unwrap();
                std::thread::spawn(move || {
                    let mut next = 0;
                    while next < 10_000 {
                        let sample = subscriber.receive().unwrap();
                        assert_eq!(*sample, sample.sequence());
                        assert_eq!(sample.sequence(), next + sample.missed_before());
                        next = sample.sequence() + 1;
                    }
                    subscriber.missed()
                })
            })
            .into();
        // Longer than the ring: it waits for the reliable ones, who have to be told before.
        let mut next = 0;
        for len in [0, 1, 7, 8, 9, 500, 5000].into_iter().cycle() {
            let len = u64::min(len, 10_000 - next);
            let batch = messages(next..next + len);
            assert_eq!(publisher.publish_all(&batch), Ok(next), "the sequence of the first");
            next += len;
            assert_eq!((publisher.sequence(), topic.info().head), (next, next));
            if next == 10_000 {
                break;
            }
        }
        let missed: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        assert_eq!((missed[0], missed[2]), (0, 0));
    }
}

#[test]
fn a_batch_that_cannot_be_published_to_its_end_says_how_much_was() {
    let (_path, directory) = directory();
    let options = TopicOptions { max_len: 4, ..options() };
    let topic = Topic::<[u8]>::create_in(&directory, "t", &options).unwrap();
    let mut subscriber = topic.subscriber(Delivery::Lossy).unwrap();
    let mut publisher = topic.publisher().unwrap();
    let source = PublishError::TooLong { len: 5, max: 4 };
    let refused = publisher.publish_all(&[b"one", b"two", b"three", b"four"]);
    assert_eq!(refused, Err(PublishAllError { published: 2, source }));
    assert_eq!(topic.info().head, 2, "those before are told of");
    assert_eq!(&*subscriber.receive().unwrap(), b"one");
    assert_eq!(&*subscriber.receive().unwrap(), b"two");
    assert!(subscriber.try_receive().unwrap().is_none());
    assert_eq!(publisher.publish_all(&[b"four", b"five"]), Ok(2));
    directory.remove("t", true).unwrap();
    let many = vec![&b""[..]; 20];
    let refused = publisher.publish_all(&many);
    let source = PublishError::Retired;
    assert_eq!(refused, Err(PublishAllError { published: 4, source }), "at the next block");
}

/// What the batches of a subscriber hold, until there is none.
fn batches(subscriber: &mut Subscriber<u64>) -> Vec<Vec<(u64, u64)>> {
    let mut all = Vec::new();
    while let Some(batch) = subscriber.try_receive_batch().unwrap() {
        let samples = batch.map(|sample| {
            assert_eq!(*sample, sample.sequence());
            (sample.sequence(), sample.missed_before())
        });
        all.push(samples.collect());
    }
    all
}

#[test]
fn a_batch_is_what_is_there_of_one_block_and_all_of_its_samples_live_at_once() {
    let (_path, directory) = directory();
    let topic = topic(&directory);
    let mut publisher = topic.publisher().unwrap();
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    assert!(subscriber.try_receive_batch().unwrap().is_none());
    publisher.publish_all(&messages(0..19)).unwrap();
    let all = batches(&mut subscriber);
    let expected = [0..8, 8..16, 16..19].map(|range| range.map(|at| (at, 0)).collect::<Vec<_>>());
    assert_eq!(all, expected);

    publisher.publish_all(&messages(19..24)).unwrap();
    let samples: Vec<_> = subscriber.receive_batch().unwrap().collect();
    let values: Vec<u64> = samples.iter().map(|sample| **sample).collect();
    assert_eq!(values, messages(19..24));
    let held: Vec<_> = samples.into_iter().map(|sample| sample.hold().unwrap()).collect();
    assert_eq!(batches(&mut subscriber).len(), 0);
    publisher.publish_all(&messages(24..150)).unwrap();
    assert_eq!(held.iter().map(|held| **held).collect::<Vec<_>>(), values);
}

#[test]
fn what_is_not_taken_from_a_batch_stays_to_be_received_and_what_comes_meanwhile_is_in_it() {
    let (_path, directory) = directory();
    let topic = topic(&directory);
    let mut publisher = topic.publisher().unwrap();
    let mut subscriber = topic.subscriber(Delivery::Lossy).unwrap();
    publisher.publish_all(&messages(0..3)).unwrap();
    assert!(subscriber.receive_batch().is_ok());
    assert_eq!(subscriber.position(), 0);
    let mut batch = subscriber.receive_batch().unwrap();
    assert_eq!(*batch.next().unwrap(), 0);
    assert_eq!(*batch.next().unwrap(), 1);
    assert_eq!(*subscriber.receive().unwrap(), 2);
    publisher.publish(&3).unwrap();
    let mut batch = subscriber.receive_batch().unwrap();
    publisher.publish(&4).unwrap();
    assert_eq!((*batch.next().unwrap(), *batch.next().unwrap()), (3, 4));
    assert!(batch.next().is_none());
    publisher.publish(&5).unwrap();
    assert_eq!(*batch.next().unwrap(), 5, "none is none for now");
}

#[test]
fn a_batch_counts_what_was_missed_before_each_of_its_messages() {
    let (_path, directory) = directory();
    let topic = topic(&directory);
    let mut publisher = topic.publisher().unwrap();
    let mut subscriber = topic.subscriber(Delivery::Lossy).unwrap();
    publisher.publish_all(&messages(0..1000)).unwrap();
    let all = batches(&mut subscriber).concat();
    let (first, missed) = all[0];
    assert_eq!((first, subscriber.missed()), (missed, missed));
    assert!(missed > 800 && all.iter().skip(1).all(|(_, missed)| *missed == 0));
    assert_eq!(all.len() as u64 + missed, 1000);

    let options = TopicOptions { publishers: Publishers::Shared(2), ..options() };
    let topic = Topic::<u64>::create_in(&directory, "shared", &options).unwrap();
    let mut publisher = topic.publisher().unwrap();
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    publisher.publish(&0).unwrap();
    drop(publisher.loan().unwrap());
    drop(publisher.loan().unwrap());
    publisher.publish(&3).unwrap();
    assert_eq!(batches(&mut subscriber).concat(), [(0, 0), (3, 0)]);
    assert_eq!((subscriber.missed(), subscriber.abandoned()), (0, 2));
}

#[test]
fn for_each_available_takes_what_is_there_and_ends_although_more_comes() {
    let (_path, directory) = directory();
    let topic = topic(&directory);
    let mut publisher = topic.publisher().unwrap();
    let mut subscriber = topic.subscriber(Delivery::Lossy).unwrap();
    assert_eq!(subscriber.for_each_available(|_| panic!("there is nothing")), Ok(0));
    publisher.publish_all(&messages(0..20)).unwrap();
    let mut seen = Vec::new();
    let count = subscriber.for_each_available(|sample| {
        seen.push(*sample);
        let next = publisher.sequence();
        publisher.publish(&next).unwrap(); // a message for each that is received
    });
    let count = count.unwrap();
    assert_eq!(seen, messages(0..count));
    assert!((20..20 + 8).contains(&count), "{count}: to the end of the block at most");
    directory.remove("t", true).unwrap();
    assert_eq!(subscriber.for_each_available(|sample| seen.push(*sample)), Ok(20));
    assert_eq!(seen, messages(0..20 + count));
    let retired = subscriber.for_each_available(|_| panic!("there is nothing"));
    assert_eq!(retired, Err(ReceiveError::Retired));
}

#[test]
fn a_lossy_subscriber_goes_to_any_sequence_that_is_there() {
    let (_path, directory) = directory();
    let topic = topic(&directory);
    let mut publisher = topic.publisher().unwrap();
    let mut subscriber = topic.subscriber(Delivery::Lossy).unwrap();
    publisher.publish_all(&messages(0..100)).unwrap();
    assert_eq!(*subscriber.receive().unwrap(), 0);
    for (to, missed_before) in [(3, 2), (3, 0), (50, 46), (49, 0), (50, 0), (0, 0), (99, 98)] {
        assert_eq!(subscriber.seek(to), Ok(()));
        assert_eq!(subscriber.position(), to);
        let sample = subscriber.receive().unwrap();
        assert_eq!((*sample, sample.missed_before()), (to, missed_before));
    }
    assert_eq!(subscriber.missed(), 2 + 46 + 98);
    assert_eq!(subscriber.seek(101), Err(SeekError::Ahead { sequence: 101, next: 100 }));
    assert_eq!(subscriber.seek(100), Ok(()));
    assert!(subscriber.try_receive().unwrap().is_none());

    // In a pinned block that the stream has given up: forward within it, and no other way back.
    assert_eq!(subscriber.seek(96), Ok(()));
    assert_eq!(*subscriber.receive().unwrap(), 96);
    publisher.publish_all(&messages(100..1000)).unwrap();
    assert_eq!(subscriber.seek(98), Ok(()));
    assert_eq!(*subscriber.receive().unwrap(), 98);
    let gone = subscriber.seek(97);
    assert!(
        matches!(gone, Err(SeekError::Gone { sequence: 97, oldest }) if (872..=880).contains(&oldest)),
        "{gone:?}"
    );
    assert_eq!(*subscriber.receive().unwrap(), 99);
    assert_eq!(subscriber.seek(999), Ok(()));
    let sample = subscriber.receive().unwrap();
    assert_eq!((*sample, sample.missed_before()), (999, 899));
}

#[test]
fn a_reliable_subscriber_goes_forward_only_and_publishers_wait_for_what_is_left() {
    let (_path, directory) = directory();
    let topic = topic(&directory);
    let mut publisher = topic.publisher().unwrap();
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    while publisher.try_publish(&publisher.sequence()).is_ok() {}
    let end = publisher.sequence();
    assert_eq!(*subscriber.receive().unwrap(), 0);
    assert_eq!(subscriber.seek(0), Err(SeekError::Back { sequence: 0, position: 1 }));
    assert_eq!(subscriber.seek(end + 1), Err(SeekError::Ahead { sequence: end + 1, next: end }));
    assert_eq!(subscriber.seek(60), Ok(()));
    let sample = subscriber.receive().unwrap();
    assert_eq!((*sample, sample.missed_before()), (60, 59));
    // What it has passed over may go, what it has not may not.
    while publisher.try_publish(&publisher.sequence()).is_ok() {}
    assert_eq!(publisher.sequence(), 56 + 128);
    for expected in 61..publisher.sequence() {
        let sample = subscriber.receive().unwrap();
        assert_eq!((*sample, sample.missed_before()), (expected, 0));
    }
    assert_eq!(subscriber.seek(publisher.sequence()), Ok(()));
    assert!(subscriber.receive_timeout(Duration::from_millis(1)).unwrap().is_none());
    assert_eq!(subscriber.missed(), 59);
}

#[test]
fn a_subscriber_that_begins_in_the_middle_of_a_batch_finds_it_whole() {
    let (_path, directory) = directory();
    let topic = topic(&directory);
    let mut publisher = topic.publisher().unwrap();
    publisher.publish_all(&messages(0..12)).unwrap();
    drop(publisher); // and whoever comes next finds all of it counted
    let mut publisher = topic.publisher().unwrap();
    assert_eq!(publisher.sequence(), 12);
    publisher.publish_all(&messages(12..14)).unwrap();
    let mut subscriber = topic.subscriber_from(Delivery::Reliable, Start::Back(3)).unwrap();
    let mut seen = Vec::new();
    assert_eq!(subscriber.for_each_available(|sample| seen.push(*sample)), Ok(3));
    assert_eq!(seen, [11, 12, 13]);
}

#[test]
fn a_batch_that_waits_for_a_reliable_subscriber_has_told_of_all_that_it_has_published() {
    let (_path, directory) = directory();
    let topic = topic(&directory);
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    let mut publisher = topic.publisher().unwrap();
    let feed = std::thread::spawn(move || publisher.publish_all(&messages(0..300)));
    let begin = std::time::Instant::now();
    while topic.info().head < 128 {
        assert!(begin.elapsed() < Duration::from_secs(60), "head {}", topic.info().head);
        std::thread::yield_now();
    }
    assert_eq!(topic.info().head, 128, "a ring full");
    for message in 0..300 {
        assert_eq!(*subscriber.receive().unwrap(), message);
    }
    assert_eq!(feed.join().unwrap(), Ok(0));
}

/// It began by asking whether a message of no bytes may be published, which on a topic of a fixed size it may not.
#[test]
fn a_batch_of_messages_without_their_type_is_published() {
    for publishers in [Publishers::Exclusive, Publishers::Shared(2)] {
        let (_path, directory) = directory();
        let options = TopicOptions { publishers, ..options() };
        let topic = Topic::<u64>::create_in(&directory, "t", &options).unwrap();
        let mut subscriber = topic.subscriber(Delivery::Lossy).unwrap();
        let mut publisher = RawTopic::open_in(&directory, "t").unwrap().publisher().unwrap();
        let bytes = [0_u64, 1, 2].map(u64::to_ne_bytes);
        let [zero, one, two] = bytes.each_ref().map(|bytes| Raw::new(bytes));
        assert_eq!(publisher.publish_all(&[]), Ok(0));
        assert_eq!(publisher.publish_all(&[zero, one]), Ok(0));
        let short = publisher.publish_all(&[two, Raw::new(&[7; 3]), zero]);
        let source = PublishError::Length { len: 3, size: 8 };
        assert_eq!(short, Err(PublishAllError { published: 1, source }));
        for message in 0..3 {
            assert_eq!(*subscriber.try_receive().unwrap().unwrap(), message);
        }
        assert!(subscriber.try_receive().unwrap().is_none());
    }
}

/// Two samples of a batch were held by two threads at once. Both took the same hold cell with a count of one: with the first one dropped, the block of the other was
/// used again while it was held.
#[test]
fn what_two_threads_hold_at_once_stays_until_both_have_given_it_back() {
    let (_path, directory) = directory();
    let topic = topic(&directory);
    let mut publisher = topic.publisher().unwrap();
    let mut subscriber = topic.subscriber(Delivery::Lossy).unwrap();
    let mut next = 0_u64;
    for _ in 0..5_000 {
        publisher.publish_all(&messages(next..next + 2)).unwrap();
        next += 2;
        let samples: Vec<_> = subscriber.try_receive_batch().unwrap().unwrap().collect();
        let Ok([first, second]) = <[_; 2]>::try_from(samples) else { continue }; // of two blocks
        let met = AtomicU32::new(0);
        let meet = || {
            met.fetch_add(1, SeqCst);
            while met.load(SeqCst) < 2 {
                std::thread::yield_now();
            }
        };
        let (first, second) = std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                meet();
                first.hold().unwrap() // one block: the budget of two is never used up
            });
            meet();
            let second = second.hold().unwrap();
            (other.join().unwrap(), second)
        });
        let held = topic.info().participants.iter().map(|one| one.held_blocks).sum::<u32>();
        assert_eq!(held, 1, "one block, and one cell for it");
        drop(first);
        for _ in 0..2 {
            publisher.publish_all(&messages(next..next + 256)).unwrap(); // twice round the ring
            next += 256;
            subscriber.receive_latest().unwrap();
        }
        assert_eq!(*second, second.sequence(), "overwritten while it is held");
    }
    let held = topic.info().participants.iter().map(|one| one.held_blocks).sum::<u32>();
    assert_eq!(held, 0, "given back");
}
