//! Bugs that were found and mended, each with its story.
#![allow(unsafe_code)] // a thread without the right to write a file

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use shmbus::{
    Delivery, Directory, PublishError, Publishers, ReceiveError, Start, Topic, TopicOptions,
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
        ..Default::default()
    }
}

/// A publisher found the ring full once, long ago, and went away; the subscriber drained it since. The publisher had kept the time of that
/// old fullness, and evicted the subscriber at the next one as if it had waited ever since.
#[test]
fn a_subscriber_that_was_behind_long_ago_is_not_evicted_for_it() {
    let (_path, directory) = directory();
    let topic = Topic::<u64>::create_in(&directory, "t", &options()).unwrap();
    let mut subscriber =
        topic.subscriber(Delivery::ReliableFor(Duration::from_millis(500))).unwrap();
    let mut a = topic.publisher().unwrap();
    let mut b = topic.publisher().unwrap();
    while a.try_publish(&1).is_ok() {}
    while subscriber.try_receive().unwrap().is_some() {}
    std::thread::sleep(Duration::from_millis(600));
    while b.try_publish(&2).is_ok() {}
    // It is full since this moment.
    assert_eq!(
        a.publish_timeout(&3, Duration::from_millis(20)),
        Err(PublishError::TimedOut),
        "evicted"
    );
    loop {
        match subscriber.try_receive() {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) => panic!("{error}"),
        }
    }
}

/// `receive_latest` went to the sequence below the head, which on a shared topic may be a claim that is never committed: the newest
/// message was skipped for nothing.
#[test]
fn the_newest_message_is_not_skipped_for_one_that_never_happens() {
    let (_path, directory) = directory();
    let topic = Topic::<u64>::create_in(&directory, "t", &options()).unwrap();
    let mut subscriber = topic.subscriber(Delivery::Lossy).unwrap();
    let mut a = topic.publisher().unwrap();
    let mut b = topic.publisher().unwrap();
    a.publish(&1).unwrap();
    a.publish(&2).unwrap();
    let loan = b.loan().unwrap();
    let mut newest = subscriber.receive_latest().unwrap().map(|sample| *sample);
    drop(loan);
    if newest.is_none() {
        newest = subscriber.receive_latest().unwrap().map(|sample| *sample);
    }
    assert_eq!(newest, Some(2));
}

/// A subscriber that received all there was, stuck behind another publisher's open loan, was evicted for holding publishers up.
#[test]
fn a_subscriber_that_waits_for_a_stopped_publisher_is_not_evicted_for_it() {
    let (_path, directory) = directory();
    let topic = Topic::<u64>::create_in(&directory, "t", &options()).unwrap();
    let mut subscriber =
        topic.subscriber(Delivery::ReliableFor(Duration::from_millis(20))).unwrap();
    let mut a = topic.publisher().unwrap();
    let mut b = topic.publisher().unwrap();
    let loan = a.loan().unwrap();
    for _ in 0..10 {
        while b.publish_timeout(&1, Duration::from_millis(10)).is_ok() && subscriber.lag() < 200 {}
        match subscriber.try_receive() {
            Ok(None) => {}
            Ok(Some(_)) => panic!("past an open loan"),
            Err(error) => panic!("{error}"),
        }
    }
    drop(loan);
    loop {
        match subscriber.try_receive() {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(ReceiveError::Evicted) => panic!("evicted"),
            Err(error) => panic!("{error}"),
        }
    }
}

/// The time of a subscriber that was in the way went to the next owner of its entry, whose cursor stood at the same place: that one was evicted at
/// once.
#[test]
fn the_next_owner_of_an_entry_has_a_time_of_its_own() {
    let (_path, directory) = directory();
    let options = TopicOptions { publishers: Publishers::Exclusive, ..options() };
    let topic = Topic::<u64>::create_in(&directory, "t", &options).unwrap();
    let patience = Delivery::ReliableFor(Duration::from_secs(5));
    let first = topic.subscriber(patience).unwrap();
    let mut publisher = topic.publisher().unwrap();
    while publisher.try_publish(&1).is_ok() {}
    let timed_out = Err(PublishError::TimedOut);
    assert_eq!(publisher.publish_timeout(&2, Duration::from_millis(20)), timed_out);
    drop(first);
    std::thread::sleep(Duration::from_millis(5_200));
    let mut next = topic.subscriber_from(patience, Start::Oldest).unwrap();
    assert_eq!(next.position(), 0);
    assert_eq!(publisher.publish_timeout(&2, Duration::from_millis(20)), timed_out, "evicted");
    assert_eq!(next.receive().map(|sample| *sample), Ok(1));
}

/// Publishers did not evict a subscriber as long as any claim word named a sequence of its block: that of a publisher that had left with its loan
/// forgotten, too, and that of a sequence which was settled long ago. They waited without end.
#[test]
fn a_claim_that_is_none_any_more_keeps_nobody_from_being_evicted() {
    for settled in [false, true] {
        let (_path, directory) = directory();
        let claim_timeout = if settled { Duration::from_millis(1) } else { Duration::ZERO };
        let options = TopicOptions { claim_timeout, ..options() };
        let topic = Topic::<u64>::create_in(&directory, "t", &options).unwrap();
        let patience = Delivery::ReliableFor(Duration::from_millis(20));
        let mut stands_still = topic.subscriber(patience).unwrap();
        let mut forgetful = topic.publisher().unwrap();
        std::mem::forget(forgetful.loan().unwrap());
        let mut other = topic.publisher().unwrap();
        if settled {
            let mut lossy = topic.subscriber_from(Delivery::Lossy, Start::Oldest).unwrap();
            other.publish(&1).unwrap();
            lossy.receive().unwrap();
        } else {
            drop(forgetful);
        }
        while other.try_publish(&1).is_ok() {}
        let published = other.publish_timeout(&1, Duration::from_secs(10));
        assert!(published.is_ok(), "{published:?}, where it is settled: {settled}");
        let told = loop {
            match stands_still.try_receive() {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(told, ReceiveError::Evicted);
    }
}

/// The same of a claim that is never settled, because the only one that comes to it stands still: it excuses a subscriber for no longer than
/// `claim_timeout`.
#[test]
fn an_open_claim_keeps_nobody_from_being_evicted_for_longer_than_the_topic_says() {
    let (_path, directory) = directory();
    let options = TopicOptions { claim_timeout: Duration::from_millis(50), ..options() };
    let topic = Topic::<u64>::create_in(&directory, "t", &options).unwrap();
    let patience = Delivery::ReliableFor(Duration::from_millis(20));
    let _stands_still = topic.subscriber(patience).unwrap();
    let (mut a, mut b) = (topic.publisher().unwrap(), topic.publisher().unwrap());
    let _open = a.loan().unwrap();
    while b.try_publish(&1).is_ok() {}
    let begin = std::time::Instant::now();
    let published = b.publish_timeout(&1, Duration::from_secs(10));
    assert!(published.is_ok(), "{published:?}");
    assert!(begin.elapsed() >= Duration::from_millis(50), "it had nothing to receive");
}

/// While a revoked loan was moved to another block, its publisher lent a hand to a subscriber that may not write `data`, with the second pin that kept the
/// loan's block: others wrote into it, and the message arrived torn. (As another user than root, the subscriber writes itself.)
#[test]
fn a_revoked_loan_is_moved_whole_whoever_asks_for_help_meanwhile() {
    const LEN: usize = 1 << 20;
    for extra in 0..20 {
        let (_path, directory) = directory();
        let options = TopicOptions {
            depth: 16,
            publishers: Publishers::Shared(3),
            subscribers_max: 2,
            hold_blocks: Some(0),
            max_len: LEN as u32,
            claim_timeout: Duration::from_millis(10),
            ..Default::default()
        };
        let topic = Topic::<[u8]>::create_in(&directory, "t", &options).unwrap();
        let mut p = topic.publisher().unwrap();
        let mut q = topic.publisher().unwrap();
        let mut t = topic.publisher().unwrap();
        let mut loan = p.loan(LEN).unwrap();
        loan.fill(7);
        {
            let mut w = topic.subscriber_from(Delivery::Lossy, Start::Oldest).unwrap();
            q.publish(&[1]).unwrap();
            w.receive().unwrap(); // revoked
        }
        for _ in 0..48 + extra {
            q.publish(&[1]).unwrap();
        }
        let stop = AtomicBool::new(false);
        let asked = AtomicBool::new(false);
        let mut r = topic.subscriber(Delivery::Lossy).unwrap();
        let open = t.loan(1).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // SAFETY: of this thread only.
                unsafe { libc::setfsuid(65534) };
                let mut looks = 0;
                while !stop.load(SeqCst) {
                    let _ = r.try_receive();
                    std::thread::sleep(Duration::from_millis(1));
                    looks += 1;
                    asked.store(looks > 30, SeqCst);
                }
            });
            while !asked.load(SeqCst) {
                std::thread::yield_now();
            }
            let head = q.sequence();
            let racer = scope.spawn(move || {
                while q.sequence() == head {
                    std::thread::yield_now();
                }
                for _ in 0..12 {
                    let mut loan = q.loan(LEN).unwrap();
                    loan[0] = 9; // both ends: a loan shows what stood in its slot before, perhaps all sevens
                    loan[LEN - 1] = 9;
                    loan.commit().unwrap();
                }
            });
            assert!(loan.commit().unwrap() >= head);
            stop.store(true, SeqCst);
            racer.join().unwrap();
        });
        drop(open);
        let mut all = topic.subscriber_from(Delivery::Lossy, Start::Oldest).unwrap();
        let mut found = 0;
        while let Some(sample) = all.try_receive().unwrap() {
            if sample.len() == LEN && sample[0] == 7 {
                found += 1;
                assert_eq!(sample[LEN - 1], 7, "torn, with {extra}");
            }
        }
        assert_eq!(found, 1);
    }
}

/// Found by `fuzz/ops`. A publisher died with a sequence taken, others went on behind it, and the topic was removed: the subscriber that was stuck at that
/// sequence was told at once that everything had been received.
#[test]
fn what_stands_behind_a_dead_publishers_claim_is_received_from_a_removed_topic_too() {
    let (_path, directory) = directory();
    let topic = Topic::<u64>::create_in(&directory, "t", &options()).unwrap();
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    let mut gone = topic.publisher().unwrap();
    std::mem::forget(gone.loan().unwrap());
    let mut other = topic.publisher().unwrap();
    other.publish(&7).unwrap();
    drop((gone, other));
    directory.remove("t", true).unwrap();
    let sample = subscriber.receive().unwrap();
    assert_eq!((*sample, sample.missed_before(), sample.abandoned_before()), (7, 0, 1));
    assert_eq!(subscriber.receive().err(), Some(ReceiveError::Retired));
}

/// A subscriber believed the shared word `held` about which of its own hold cells are free. With its bit cleared by somebody else, a cell
/// in use was given out again; the count of its samples went below zero, and the next hold in it overflowed.
#[test]
fn a_hold_cell_in_use_is_not_given_out_again_whatever_shared_memory_says() {
    use std::os::unix::fs::FileExt;
    let (_path, directory) = directory();
    let options = TopicOptions { depth: 4, hold_blocks: Some(8), ..Default::default() };
    let topic = Topic::<u64>::create_in(&directory, "t", &options).unwrap();
    let mut publisher = topic.publisher().unwrap();
    let mut subscriber = topic.subscriber(Delivery::Lossy).unwrap();
    let ctl = directory.path().join("t/.topic/ctl");
    let ctl = std::fs::File::options().read(true).write(true).open(ctl).unwrap();
    let held = 2 * 4096 + 512 + 40; // of the first subscriber's entry, which is the second
    let (pin, cell) = (held - 32, held - 40 + 256);
    for message in 0..3 {
        publisher.publish(&message).unwrap();
    }
    let first = subscriber.receive().unwrap().hold().unwrap();
    let again = first.clone();
    let mut mask = [0; 8];
    ctl.read_exact_at(&mut mask, held).unwrap();
    assert_eq!(mask, 1_u64.to_le_bytes(), "the cell is where this test looks for it");
    ctl.write_all_at(&[0; 8], held).unwrap();
    let second = subscriber.receive().unwrap().hold().unwrap();
    drop((first, again));
    let sample = subscriber.receive().unwrap();
    let mut block = [0; 4];
    ctl.read_exact_at(&mut block, pin).unwrap();
    ctl.write_all_at(&1_u64.to_le_bytes(), held).unwrap();
    ctl.write_all_at(&block, cell).unwrap();
    drop((sample.hold(), second));
}

/// A topic that was removed in the moment between its creation and the creator's own opening of it was an error of `open_or_create`, as if
/// there were no way to have one.
#[test]
fn open_or_create_succeeds_beside_one_who_removes() {
    let (_path, directory) = directory();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                let _ = directory.remove("t", true);
            }
        });
        let refused = (0..1000).find_map(|_| {
            Topic::<u64>::open_or_create_in(&directory, "t", &TopicOptions::default()).err()
        });
        stop.store(true, SeqCst);
        assert!(refused.is_none(), "{refused:?}");
    });
}
