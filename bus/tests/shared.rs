//! Many publishers on one topic, in one process: what the API promises. Their deaths are in `kill_shared.rs`.

use std::time::{Duration, Instant};

use shmbus::{
    AttachError, Delivery, Directory, PublishError, Publishers, ReceiveError, Start, Topic,
    TopicOptions,
};

fn directory() -> (tempfile::TempDir, Directory) {
    let path = tempfile::tempdir_in("/dev/shm").unwrap();
    let directory = Directory::at(path.path()).unwrap();
    (path, directory)
}

fn options() -> TopicOptions {
    TopicOptions {
        depth: 64,
        publishers: Publishers::Shared(4),
        subscribers_max: 4,
        hold_blocks: Some(2),
        claim_timeout: Duration::from_millis(50),
        ..Default::default()
    }
}

#[test]
fn a_sample_names_the_entry_of_its_publisher() {
    let (_path, directory) = directory();
    let topic = Topic::<u64>::create_in(&directory, "t", &options()).unwrap();
    let mut subscriber = topic.subscriber(Delivery::Lossy).unwrap();
    let mut publishers = [topic.publisher().unwrap(), topic.publisher().unwrap()];
    for (number, publisher) in publishers.iter_mut().enumerate() {
        publisher.publish(&0).unwrap();
        assert_eq!(subscriber.receive().unwrap().publisher(), Some(number as u32));
    }
    let exclusive = Topic::<u64>::create_in(&directory, "e", &TopicOptions::default()).unwrap();
    let mut subscriber = exclusive.subscriber(Delivery::Lossy).unwrap();
    exclusive.publisher().unwrap().publish(&0).unwrap();
    assert_eq!(subscriber.receive().unwrap().publisher(), None);
}

#[test]
fn all_subscribers_see_one_order_in_which_each_publisher_keeps_its_own() {
    const EACH: u64 = 20_000;
    let (_path, directory) = directory();
    let topic = Topic::<[u64; 2]>::create_in(&directory, "t", &options()).unwrap();
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
            std::thread::spawn(move || {
                let mut order = Vec::new();
                while order.len() < 3 * EACH as usize {
                    let sample = subscriber.receive().unwrap();
                    assert_eq!(sample.sequence(), order.len() as u64);
                    order.push(*sample);
                }
                order
            })
        })
        .collect();
    let feeds: Vec<_> = (0..3u64)
        .map(|id| {
            let mut publisher = topic.publisher().unwrap();
            std::thread::spawn(move || {
                for count in 0..EACH {
                    publisher.publish(&[id, count]).unwrap();
                }
            })
        })
        .collect();
    feeds.into_iter().for_each(|feed| feed.join().unwrap());
    let orders: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    assert_eq!(orders[0], orders[1]);
    for id in 0..3 {
        let own = orders[0].iter().filter(|message| message[0] == id).map(|message| message[1]);
        assert!(own.eq(0..EACH), "publisher {id} out of order");
    }
}

#[test]
fn as_many_publishers_as_were_asked_for() {
    let (_path, directory) = directory();
    let topic = Topic::<u64>::create_in(&directory, "t", &options()).unwrap();
    let other = Topic::<u64>::open_in(&directory, "t").unwrap();
    let mut publishers = Vec::new();
    for topic in [&topic, &other, &topic, &other] {
        publishers.push(topic.publisher().unwrap());
    }
    let refused = topic.publisher().err().unwrap();
    assert!(matches!(refused, AttachError::PublishersFull { max: 4 }));
    publishers.pop();
    assert!(topic.publisher().is_ok());
}

#[test]
fn a_dropped_loan_is_passed_over_and_a_committed_one_is_received() {
    let (_path, directory) = directory();
    let topic = Topic::<u64>::create_in(&directory, "t", &options()).unwrap();
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    let mut a = topic.publisher().unwrap();
    let mut b = topic.publisher().unwrap();
    let mut loan = a.loan().unwrap();
    *loan = 1;
    b.publish(&2).unwrap();
    assert!(subscriber.try_receive().unwrap().is_none(), "the loan's sequence comes first");
    assert_eq!(loan.commit(), Ok(0));
    assert_eq!(*subscriber.receive().unwrap(), 1);
    assert_eq!(*subscriber.receive().unwrap(), 2);
    drop(a.loan().unwrap());
    b.publish(&3).unwrap();
    let sample = subscriber.receive().unwrap();
    assert_eq!((*sample, sample.sequence()), (3, 3));
    assert_eq!((sample.missed_before(), sample.abandoned_before()), (0, 1));
}

#[test]
fn a_loan_open_for_too_long_is_revoked_and_its_message_published_at_another_sequence() {
    let (_path, directory) = directory();
    let topic = Topic::<u64>::create_in(&directory, "t", &options()).unwrap();
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    let mut slow = topic.publisher().unwrap();
    let mut quick = topic.publisher().unwrap();
    let mut loan = slow.loan().unwrap();
    *loan = 7;
    let mut received = 0;
    for round in 0..5 * 64u64 {
        quick.publish(&(100 + round)).unwrap();
        let sample = subscriber.receive().unwrap();
        assert_eq!(*sample, 100 + round);
        received += 1;
    }
    assert_eq!(received, 320, "several times round the ring behind an open loan");
    assert_eq!(loan.commit(), Ok(321));
    assert_eq!(*subscriber.receive().unwrap(), 7);
    assert_eq!((subscriber.missed(), subscriber.abandoned()), (0, 1));
}

#[test]
fn a_reliable_subscriber_stops_shared_publishers() {
    let (_path, directory) = directory();
    let topic = Topic::<u64>::create_in(&directory, "t", &options()).unwrap();
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    let mut a = topic.publisher().unwrap();
    let mut count = 0;
    while a.try_publish(&count).is_ok() {
        count += 1;
    }
    let mut b = topic.publisher().unwrap();
    let timed_out = b.publish_timeout(&0, Duration::from_millis(5));
    assert_eq!(timed_out, Err(PublishError::TimedOut));
    for message in 0..count {
        assert_eq!(*subscriber.receive().unwrap(), message);
    }
    assert!(subscriber.try_receive().unwrap().is_none());
    assert_eq!(b.publish(&count), Ok(count));
}

#[test]
fn a_subscriber_reliable_for_a_time_is_evicted_then_and_told_once() {
    for publishers in [Publishers::Exclusive, Publishers::Shared(2)] {
        let (_path, directory) = directory();
        let options = TopicOptions { publishers, ..options() };
        let topic = Topic::<u64>::create_in(&directory, "t", &options).unwrap();
        let patience = Duration::from_millis(20);
        let mut subscriber = topic.subscriber(Delivery::ReliableFor(patience)).unwrap();
        let mut publisher = topic.publisher().unwrap();
        publisher.publish(&0).unwrap();
        let held = subscriber.receive().unwrap().hold().unwrap();
        let begin = Instant::now();
        for message in 1..1000 {
            publisher.publish(&message).unwrap(); // waits, and then does not any more
        }
        assert!(begin.elapsed() >= patience, "evicted before its time");
        let mut told = 0;
        let mut next = 1;
        loop {
            match subscriber.try_receive() {
                Ok(Some(sample)) => {
                    assert_eq!(*sample, sample.sequence());
                    assert_eq!(sample.sequence(), next + sample.missed_before());
                    next = sample.sequence() + 1;
                }
                Ok(None) => break,
                Err(ReceiveError::Evicted) => told += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!((told, next), (1, 1000));
        assert_eq!(subscriber.delivery(), Delivery::Lossy);
        assert_eq!(*held, 0);
    }
}

#[test]
fn a_subscriber_that_keeps_up_is_not_evicted() {
    let (_path, directory) = directory();
    let topic = Topic::<u64>::create_in(&directory, "t", &options()).unwrap();
    let patience = Delivery::ReliableFor(Duration::from_secs(3600));
    let mut subscriber = topic.subscriber_from(patience, Start::Newest).unwrap();
    let mut publisher = topic.publisher().unwrap();
    for message in 0..1000 {
        publisher.publish(&message).unwrap();
        assert_eq!(*subscriber.receive().unwrap(), message);
    }
}

/// Twelve publishers stand still with an open loan each: a subscriber is past them all after the time of one, and their messages come all the same. What is taken
/// when it is stuck already has a time of its own.
#[test]
fn a_subscriber_is_past_all_that_stand_still_after_the_time_of_one() {
    const COUNT: u32 = 12;
    let (_path, directory) = directory();
    let claim_timeout = Duration::from_millis(400);
    let options = TopicOptions {
        depth: 1024,
        publishers: Publishers::Shared(COUNT + 1),
        claim_timeout,
        ..options()
    };
    let topic = Topic::<u64>::create_in(&directory, "t", &options).unwrap();
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    let mut publishers: Vec<_> = (0..COUNT).map(|_| topic.publisher().unwrap()).collect();
    let loans: Vec<_> = publishers.iter_mut().map(|other| other.loan().unwrap()).collect();
    let mut other = topic.publisher().unwrap();
    other.publish(&7).unwrap();
    let begin = Instant::now();
    let sample = subscriber.receive_timeout(Duration::from_secs(60)).unwrap().unwrap();
    let passed = begin.elapsed();
    assert_eq!((*sample, sample.sequence()), (7, u64::from(COUNT)));
    assert!(passed >= claim_timeout, "revoked before its time: {passed:?}");
    assert!(passed < claim_timeout * COUNT / 2, "one after the other: {passed:?}");
    for mut loan in loans {
        *loan = 8;
        loan.commit().unwrap();
        assert_eq!(*subscriber.receive().unwrap(), 8);
    }
    // One is taken at half of the other's time.
    let first = publishers.pop().map(|mut first| {
        std::mem::forget(first.loan().unwrap());
        first
    });
    assert!(subscriber.receive_timeout(claim_timeout / 2).unwrap().is_none());
    let begin = Instant::now();
    let second = publishers[0].loan().unwrap();
    other.publish(&9).unwrap();
    assert_eq!(*subscriber.receive().unwrap(), 9);
    let passed = begin.elapsed();
    assert!(passed >= claim_timeout, "revoked before its time: {passed:?}");
    drop((first, second));
}

/// The dead, of whom each claims a sequence, cost a subscriber one look of 5 ms in all.
#[test]
fn a_subscriber_is_past_all_of_the_dead_after_one_look() {
    const COUNT: u32 = 200;
    let (_path, directory) = directory();
    let options = TopicOptions { depth: 1024, claim_timeout: Duration::ZERO, ..options() };
    let topic = Topic::<u64>::create_in(&directory, "t", &options).unwrap();
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    let mut forgetful = topic.publisher().unwrap();
    for _ in 0..COUNT {
        std::mem::forget(forgetful.loan().unwrap());
    }
    drop(forgetful);
    topic.publisher().unwrap().publish(&7).unwrap();
    let begin = Instant::now();
    let sample = subscriber.receive_timeout(Duration::from_secs(60)).unwrap().unwrap();
    let passed = begin.elapsed();
    assert_eq!(*sample, 7);
    assert!(passed < Duration::from_millis(5) * COUNT / 2, "one after the other: {passed:?}");
}

/// What never became a message is told apart from what was missed: nobody is told of a loss that is none, and the numbers add up.
#[test]
fn what_never_became_a_message_is_abandoned_and_not_missed() {
    let (_path, directory) = directory();
    let topic = Topic::<u64>::create_in(&directory, "t", &options()).unwrap();
    let mut publisher = topic.publisher().unwrap();
    let mut reliable = topic.subscriber(Delivery::Reliable).unwrap();
    let mut batched = topic.subscriber(Delivery::Reliable).unwrap();
    let mut copying = topic.subscriber(Delivery::Lossy).unwrap();
    let mut observer = topic.observe(Start::Newest).unwrap();
    let mut before = Vec::new();
    for number in 0..20u64 {
        for _ in 0..number % 4 {
            drop(publisher.loan().unwrap());
        }
        publisher.publish(&number).unwrap();
        before.push((0, number % 4));
    }
    let (mut received, mut next) = (Vec::new(), 0);
    let abandoned: u64 = before.iter().map(|(_, abandoned)| abandoned).sum();
    while let Some(sample) = reliable.try_receive().unwrap() {
        received.push((sample.missed_before(), sample.abandoned_before()));
        assert_eq!(sample.sequence(), next + sample.missed_before() + sample.abandoned_before());
        next = sample.sequence() + 1;
    }
    assert_eq!(received, before);
    assert_eq!((reliable.missed(), reliable.abandoned()), (0, abandoned));
    received.clear();
    while let Some(batch) = batched.try_receive_batch().unwrap() {
        // Kept together: each knows its own.
        let samples: Vec<_> = batch.collect();
        received.extend(samples.iter().map(|it| (it.missed_before(), it.abandoned_before())));
    }
    assert_eq!(received, before);
    assert_eq!((batched.missed(), batched.abandoned()), (0, abandoned));
    received.clear();
    let mut message = 0;
    while let Some(copied) = copying.try_copy(&mut message).unwrap() {
        received.push((copied.missed_before, copied.abandoned_before));
    }
    assert_eq!(received, before);
    received.clear();
    while received.len() < before.len() {
        if let Some(observed) = observer.try_next().unwrap() {
            received.push((observed.missed_before(), observed.abandoned_before()));
        }
    }
    assert_eq!(received, before);
    assert_eq!((observer.missed(), observer.abandoned()), (0, abandoned));
    // What is skipped or overwritten cannot be told apart.
    copying.seek(1).unwrap();
    assert_eq!(copying.try_receive().unwrap().map(|sample| sample.abandoned_before()), Some(1));
    assert!(copying.receive_latest().unwrap().unwrap().missed_before() > 40);
}
