//! Who waits and is not stuck sleeps for as long as `docs/ring.md` and `docs/sync.md` say: it wakes by itself no more often than that. Counted are
//! the times that a waiting thread has gone to sleep (`voluntary_ctxt_switches`), over as long as it has waited: a ratio, however slow the machine.

use std::thread;
use std::time::{Duration, Instant};

use shmbus::sync::{
    Barrier, Condvar, Event, OnceCell, Reset, RobustMutex, RwLock, Semaphore, SyncOptions,
};
use shmbus::{Delivery, Directory, Publishers, Topic, TopicOptions};

const WAIT: Duration = Duration::from_secs(3);
/// The longest sleep of a subscriber, of who is stuck or waits for room, and of who waits for a synchronisation object.
const SUBSCRIBER: Duration = Duration::from_millis(100);
const STUCK: Duration = Duration::from_millis(5);
const OBJECT: Duration = Duration::from_secs(1);

fn place() -> (tempfile::TempDir, Directory) {
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    let directory = Directory::at(root.path()).unwrap();
    (root, directory)
}

/// How often the calling thread has gone to sleep.
fn sleeps() -> f64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

/// Runs a wait that ends with its time and in vain, and compares its sleeps with those that `period` allows: half as many more, and a few for page faults and locks of
/// the kernel.
fn sleeps_no_more_often_than(what: &str, period: Duration, wait: impl FnOnce() -> bool) {
    let (begin, before) = (Instant::now(), sleeps());
    assert!(wait(), "{what} did not wait in vain");
    let (slept, waited) = (sleeps() - before, begin.elapsed());
    let allowed = waited.as_secs_f64() / period.as_secs_f64() * 1.5 + 20.0;
    println!("{what}: {slept} sleeps in {waited:.1?}; allowed are {allowed:.0}");
    assert!(waited >= WAIT, "{what} has not waited");
    assert!(slept >= 1.0, "{what} has not slept");
    assert!(slept <= allowed, "{what}: {slept} sleeps in {waited:.1?}, not {allowed:.0}");
}

fn options() -> TopicOptions {
    TopicOptions { depth: 8, subscribers_max: 2, ..Default::default() }
}

#[test]
fn a_subscriber_of_an_idle_topic_looks_every_100_ms() {
    let (_root, directory) = place();
    for (name, delivery) in [("lossy", Delivery::Lossy), ("reliable", Delivery::Reliable)] {
        let topic = Topic::<u64>::create_in(&directory, name, &options()).unwrap();
        let _publisher = topic.publisher().unwrap();
        let mut subscriber = topic.subscriber(delivery).unwrap();
        sleeps_no_more_often_than(name, SUBSCRIBER, || {
            subscriber.receive_timeout(WAIT).unwrap().is_none()
        });
    }
}

#[test]
fn a_publisher_that_waits_for_a_living_subscriber_looks_every_5_ms() {
    let (_root, directory) = place();
    let topic = Topic::<u64>::create_in(&directory, "full", &options()).unwrap();
    let _in_the_way = topic.subscriber(Delivery::Reliable).unwrap();
    let mut publisher = topic.publisher().unwrap();
    while publisher.try_publish(1).is_ok() {}
    sleeps_no_more_often_than("a publisher", STUCK, || {
        publisher.publish_timeout(&1, WAIT).is_err()
    });
}

/// Behind a living publisher that has a sequence and does nothing with it.
#[test]
fn a_subscriber_that_is_stuck_looks_every_5_ms() {
    let (_root, directory) = place();
    let options = TopicOptions {
        publishers: Publishers::Shared(2),
        claim_timeout: Duration::ZERO, // never
        ..options()
    };
    let topic = Topic::<u64>::create_in(&directory, "stuck", &options).unwrap();
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    let (mut idle, mut publisher) = (topic.publisher().unwrap(), topic.publisher().unwrap());
    let _loan = idle.loan().unwrap();
    publisher.publish(&1).unwrap();
    sleeps_no_more_often_than("a stuck subscriber", STUCK, || {
        subscriber.receive_timeout(WAIT).unwrap().is_none()
    });
}

/// Each behind another member that lives and has what it waits for, or does not do it.
#[test]
fn who_waits_for_a_synchronisation_object_looks_every_second() {
    let (_root, directory) = place();
    let (directory, options) = (&directory, &SyncOptions::default());
    let looks = |what, wait: &dyn Fn() -> bool| sleeps_no_more_often_than(what, OBJECT, wait);

    let mutex = || RobustMutex::<u64>::open_or_create_in(directory, "mutex", options, 0).unwrap();
    let lock = |name| RwLock::<u64>::open_or_create_in(directory, name, options, 0).unwrap();
    let semaphore = || Semaphore::open_or_create_in(directory, "permits", options, 1).unwrap();
    let event = || Event::open_or_create_in(directory, "event", options, Reset::Auto).unwrap();
    let barrier = || Barrier::open_or_create_in(directory, "barrier", options, 2).unwrap();
    let cell = || OnceCell::<u64>::open_or_create_in(directory, "cell", options).unwrap();

    // Held by this thread, until all others have given up.
    let (held, written, read) = (mutex(), lock("written"), lock("read"));
    let (permits, _event, _barrier) = (semaphore(), event(), barrier());
    let (_held, _written, _read, _permit) = (
        held.lock().unwrap(),
        written.write().unwrap(),
        read.read().unwrap(),
        permits.acquire().unwrap(),
    );
    cell()
        .get_or_init(|| {
            thread::scope(|scope| {
                scope.spawn(|| {
                    let mutex = mutex();
                    looks("a mutex", &|| mutex.lock_timeout(WAIT).is_err());
                });
                scope.spawn(|| {
                    let lock = lock("written");
                    looks("a reader", &|| lock.read_timeout(WAIT).is_err());
                });
                scope.spawn(|| {
                    let lock = lock("read");
                    looks("a writer", &|| lock.write_timeout(WAIT).is_err());
                });
                scope.spawn(|| {
                    let permits = semaphore();
                    looks("a semaphore", &|| permits.acquire_timeout(WAIT).is_err());
                });
                scope.spawn(|| {
                    let event = event();
                    looks("an event", &|| event.wait_timeout(WAIT).is_err());
                });
                scope.spawn(|| {
                    let barrier = barrier();
                    looks("a barrier", &|| barrier.wait_timeout(WAIT).is_err());
                });
                scope.spawn(|| {
                    let cell = cell();
                    looks("a cell", &|| cell.get_or_init_timeout(|| 1, WAIT).is_err());
                });
                scope.spawn(|| {
                    let mutex =
                        RobustMutex::<u64>::open_or_create_in(directory, "told", options, 0);
                    let mutex = mutex.unwrap();
                    let told = Condvar::open_or_create_in(directory, "change", options).unwrap();
                    looks("a condvar", &|| {
                        let guard = mutex.lock().unwrap();
                        told.wait_while_timeout(guard, |_| true, WAIT).is_err()
                    });
                });
            });
            0
        })
        .unwrap();
}
