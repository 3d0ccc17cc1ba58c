//! One process, one topic: what the API promises.

use std::time::Duration;

use shmbus::{
    AttachError, CreateError, Delivery, Directory, OpenError, PublishError, Publishers,
    ReceiveError, Start, Topic, TopicOptions, TryPublishError,
};

fn directory() -> (tempfile::TempDir, Directory) {
    let path = tempfile::tempdir_in("/dev/shm").unwrap();
    let directory = Directory::at(path.path()).unwrap();
    (path, directory)
}

fn small() -> TopicOptions {
    TopicOptions { depth: 16, subscribers_max: 2, hold_blocks: Some(2), ..Default::default() }
}

#[test]
fn a_lossy_subscriber_knows_exactly_what_it_missed() {
    let (_path, directory) = directory();
    let topic = Topic::<u64>::create_in(&directory, "a/b", &small()).unwrap();
    let mut subscriber = topic.subscriber(Delivery::Lossy).unwrap();
    let mut publisher = topic.publisher().unwrap();
    let mut next = 0;
    for message in 0..1000u64 {
        assert_eq!(publisher.publish(&message).unwrap(), message);
        if message % 97 == 0 {
            while let Some(sample) = subscriber.try_receive().unwrap() {
                assert_eq!(sample.sequence(), next + sample.missed_before());
                assert_eq!(*sample, sample.sequence());
                next = sample.sequence() + 1;
            }
        }
    }
    assert!(subscriber.missed() > 0);
    assert_eq!(next, 971);
}

#[test]
fn a_subscriber_that_has_just_joined_is_shown_where_it_begins() {
    let (_path, directory) = directory();
    let topic = Topic::<u64>::create_in(&directory, "t", &small()).unwrap();
    let mut publisher = topic.publisher().unwrap();
    for message in 0..100 {
        publisher.publish(&message).unwrap();
    }
    for delivery in [Delivery::Lossy, Delivery::Reliable] {
        for (start, lag) in [(Start::Newest, 0), (Start::Back(3), 3)] {
            let subscriber = topic.subscriber_from(delivery, start).unwrap();
            let info = topic.info();
            let shown = info.participants.iter().find(|one| one.entry != 0).unwrap();
            assert_eq!((shown.position, shown.lag), (100 - lag, lag), "{delivery:?}");
            assert_eq!(subscriber.lag(), lag);
        }
    }
}

#[test]
fn a_reliable_subscriber_holds_the_publisher_up_and_misses_nothing() {
    let (_path, directory) = directory();
    let topic = Topic::<u64>::create_in(&directory, "t", &small()).unwrap();
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    let mut publisher = topic.publisher().unwrap();
    let mut published = 0;
    for round in 0..100u64 {
        loop {
            match publisher.try_publish(&published) {
                Ok(sequence) => published = sequence + 1,
                Err(TryPublishError::Full) => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(
            publisher.publish_timeout(&0, Duration::from_millis(1)),
            Err(PublishError::TimedOut)
        );
        for _ in 0..=round % 7 + 4 {
            let position = subscriber.position();
            if let Some(sample) = subscriber.try_receive().unwrap() {
                assert_eq!((*sample, sample.missed_before()), (position, 0));
            }
        }
    }
    assert!(published > 300);
}

#[test]
fn a_held_sample_stays_as_it_is_while_the_ring_goes_round() {
    let (_path, directory) = directory();
    let topic = Topic::<[u64; 8]>::create_in(&directory, "t", &small()).unwrap();
    let mut subscriber = topic.subscriber(Delivery::Lossy).unwrap();
    let mut publisher = topic.publisher().unwrap();
    publisher.publish(&[7; 8]).unwrap();
    let held = subscriber.receive().unwrap().hold().unwrap();
    let again = held.clone();
    for message in 0..200 {
        publisher.publish(&[message; 8]).unwrap();
        while subscriber.try_receive().unwrap().is_some() {}
    }
    drop(held);
    drop(subscriber);
    for message in 0..200 {
        publisher.publish(&[message; 8]).unwrap();
    }
    assert_eq!(*again, [7; 8]);
    assert_eq!(topic.info().participants.len(), 2, "the hold keeps the entry");
    drop(again);
    assert_eq!(topic.info().participants.len(), 1);
}

#[test]
fn holding_over_the_budget_gives_the_sample_back_and_stops_nobody() {
    let (_path, directory) = directory();
    let topic = Topic::<u64>::create_in(&directory, "t", &small()).unwrap();
    let mut subscriber = topic.subscriber(Delivery::Lossy).unwrap();
    let mut publisher = topic.publisher().unwrap();
    let mut held = Vec::new();
    let mut refused = 0;
    for message in 0..400u64 {
        publisher.publish(&message).unwrap();
        let sample = subscriber.receive().unwrap();
        match sample.hold() {
            Ok(sample) => held.push(sample),
            Err(over) => {
                assert_eq!(*over.0, message);
                refused += 1;
            }
        }
    }
    assert!(refused > 300, "{refused}");
    assert!(held.iter().enumerate().all(|(i, sample)| **sample == i as u64));
    held.clear();
    publisher.publish(&5).unwrap();
    assert!(subscriber.receive().unwrap().hold().is_ok());
}

#[test]
fn bytes_have_a_length_of_their_own_up_to_the_limit() {
    let (_path, directory) = directory();
    let options = TopicOptions { max_len: 10, timestamp: true, ..small() };
    let topic = Topic::<[u8]>::create_in(&directory, "t", &options).unwrap();
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    let mut publisher = topic.publisher().unwrap();
    for len in 0..=10 {
        publisher.publish(&vec![len as u8; len]).unwrap();
        let sample = subscriber.receive().unwrap();
        assert_eq!(&*sample, vec![len as u8; len]);
        assert!(sample.timestamp_ns().is_some());
    }
    assert_eq!(publisher.publish(&[0; 11]), Err(PublishError::TooLong { len: 11, max: 10 }));
    let mut loan = publisher.loan(3).unwrap();
    loan.copy_from_slice(b"abc");
    drop(loan);
    let mut loan = publisher.loan(2).unwrap();
    loan.copy_from_slice(b"xy");
    assert_eq!(loan.commit(), Ok(11));
    assert_eq!(&*subscriber.receive().unwrap(), b"xy");
}

#[test]
fn a_subscriber_begins_where_it_asks_to() {
    let (_path, directory) = directory();
    let topic = Topic::<u64>::create_in(&directory, "t", &small()).unwrap();
    let block_len = topic.info().block_len;
    let mut publisher = topic.publisher().unwrap();
    for message in 0..100u64 {
        publisher.publish(&message).unwrap();
    }
    for delivery in [Delivery::Lossy, Delivery::Reliable] {
        let mut newest = topic.subscriber_from(delivery, Start::Newest).unwrap();
        assert!(newest.try_receive().unwrap().is_none());
        drop(newest);
        let mut back = topic.subscriber_from(delivery, Start::Back(3)).unwrap();
        assert_eq!(*back.receive().unwrap(), 97);
        drop(back);
        let mut oldest = topic.subscriber_from(delivery, Start::Oldest).unwrap();
        assert!(*oldest.receive().unwrap() <= 100 - (16 - block_len));
        assert_eq!(oldest.missed(), 0);
        assert_eq!(*oldest.receive_latest().unwrap().unwrap(), 99);
        assert!(oldest.receive_latest().unwrap().is_none());
    }
}

#[test]
fn one_publisher_at_a_time_and_as_many_subscribers_as_were_asked_for() {
    let (_path, directory) = directory();
    let topic = Topic::<u64>::create_in(&directory, "t", &small()).unwrap();
    let other = Topic::<u64>::open_in(&directory, "t").unwrap();
    let publisher = topic.publisher().unwrap();
    for topic in [&topic, &other] {
        let pid = std::process::id();
        let refused = topic.publisher().err().unwrap();
        assert!(matches!(refused, AttachError::PublisherAlive { pid: found } if found == pid));
    }
    drop(publisher);
    let _publisher = other.publisher().unwrap();
    let _a = topic.subscriber(Delivery::Lossy).unwrap();
    let _b = other.subscriber(Delivery::Reliable).unwrap();
    assert!(matches!(
        topic.subscriber(Delivery::Lossy).err().unwrap(),
        AttachError::SubscribersFull { max: 2 }
    ));
}

#[test]
fn a_removed_topic_is_received_to_its_end_and_then_said_to_be_removed() {
    let (path, directory) = directory();
    let topic = Topic::<u64>::create_in(&directory, "a/b/c", &small()).unwrap();
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    let mut publisher = topic.publisher().unwrap();
    publisher.publish(&1).unwrap();
    assert!(directory.remove("a/b/c", false).is_err());
    directory.remove("a/b/c", true).unwrap();
    assert_eq!(*subscriber.receive().unwrap(), 1);
    assert_eq!(subscriber.receive().err().unwrap(), ReceiveError::Retired);
    let mut error = None;
    for _ in 0..16 {
        error = publisher.publish(&2).err().or(error);
    }
    assert_eq!(error, Some(PublishError::Retired));
    assert!(matches!(topic.subscriber(Delivery::Lossy).err().unwrap(), AttachError::Retired));
    assert!(matches!(
        Topic::<u64>::open_in(&directory, "a/b/c").err().unwrap(),
        OpenError::NotFound { .. }
    ));
    assert_eq!(std::fs::read_dir(path.path()).unwrap().count(), 0);
}

#[test]
fn another_type_is_refused_and_named() {
    let (_path, directory) = directory();
    Topic::<u64>::create_in(&directory, "t", &small()).unwrap();
    assert!(matches!(
        Topic::<u64>::create_in(&directory, "t", &small()).err().unwrap(),
        CreateError::Exists { .. }
    ));
    let error = Topic::<[u32; 2]>::open_in(&directory, "t").err().unwrap();
    let text = "topic t carries u64, not u32[2]
    in the topic      here
  * size 8, align 8   size 8, align 4
  * each: u64         each: u32[2]";
    assert_eq!(error.to_string(), text);
    assert!(Topic::<[u8]>::open_or_create_in(&directory, "t", &small()).is_err());
}

/// A message of 4 MiB was copied to the stack for a call that an exclusive topic never makes: `publish` of a boxed one overflowed a stack of 2 MiB.
#[test]
fn a_large_message_needs_no_stack() {
    type Frame = [u64; 1 << 19];
    fn frame(first: u64) -> Box<Frame> {
        let mut words = vec![0_u64; 1 << 19].into_boxed_slice();
        words[0] = first;
        words.try_into().unwrap()
    }
    fn exchange(directory: Directory, publishers: Publishers) {
        let options = TopicOptions { depth: 4, subscribers_max: 1, publishers, ..small() };
        let topic = Topic::<Frame>::create_in(&directory, "frames", &options).unwrap();
        let mut publisher = topic.publisher().unwrap();
        let mut subscriber = topic.subscriber(Delivery::Lossy).unwrap();
        assert_eq!(publisher.publish(&frame(0)), Ok(0));
        assert_eq!(publisher.try_publish(&frame(1)), Ok(1));
        assert_eq!(publisher.publish_timeout(&frame(2), Duration::from_secs(60)), Ok(2));
        let mut into = frame(7);
        subscriber.receive().unwrap().copy_to(&mut into).unwrap();
        assert_eq!(into[0], 0);
        assert!(subscriber.try_copy(&mut into).unwrap().is_some());
        assert_eq!(into[0], 1);
        assert_eq!(subscriber.receive().unwrap().hold().ok().unwrap()[0], 2);
        assert_eq!(publisher.publish_all(std::slice::from_ref(&*frame(3))), Ok(3));
        let mut loan = publisher.loan().unwrap();
        loan[0] = 4;
        assert_eq!(loan.commit(), Ok(4));
        let received: Vec<_> = [(); 2].map(|_| subscriber.receive().unwrap()[0]).into();
        assert_eq!(received, [3, 4]);
    }
    for publishers in [Publishers::Exclusive, Publishers::Shared(2)] {
        let (_path, directory) = directory();
        let thread = std::thread::Builder::new().stack_size(256 << 10);
        thread.spawn(move || exchange(directory, publishers)).unwrap().join().unwrap();
    }
}
