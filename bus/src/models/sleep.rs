//! Sleeping and waking: a wake-up that is lost is a deadlock, which loom reports.

use loom::sync::Arc;
use loom::thread;

use super::{drain, lossy, model, publish, publisher, receive, region, reliable};
use crate::bell::{Barrier, Meet};
use crate::crash;
use crate::recovery;
use crate::region::Region;
use crate::ring::exclusive::Blocked;
use crate::ring::reader::{Next, Reader, Start};

/// Receives `count` messages, asleep whenever there is none. A lost wake-up is a deadlock.
fn receive_asleep(reader: &mut Reader, region: &Region, count: u64) {
    while reader.position() < count {
        if receive(reader, region).is_none() {
            region
                .control()
                .subscribers_bell
                .0
                .sleep(Meet::Fence, 0, || !matches!(reader.look(region), Ok(Next::Empty)));
        }
    }
}

#[test]
fn sleep_against_wake() {
    model(|| {
        let region = region(2, 1, 0);
        let mut reader = lossy(&region, 0, Start::Newest);
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            let mut ring = publisher(&theirs);
            for _ in 0..2 {
                publish(&mut ring, &theirs).unwrap();
                theirs.control().subscribers_bell.0.ring(Barrier::Fence);
            }
        });
        receive_asleep(&mut reader, &region, 2);
        feed.join().unwrap();
    });
}

/// Who rings is killed before it wakes anybody: the next ring does.
#[test]
fn sleep_behind_a_ringer_that_is_killed() {
    sleep_behind_one_killed_at("ring.decided", 1);
}

/// The one that sleeps was woken, and its bit is still there: it sleeps again as the second of nobody, and the next ring wakes it.
#[test]
fn sleep_again_behind_a_ringer_that_is_killed() {
    sleep_behind_one_killed_at("ring.called", 2);
}

fn sleep_behind_one_killed_at(point: &'static str, count: u64) {
    model(move || {
        let region = region(2, 1, 0);
        let mut reader = lossy(&region, 0, Start::Newest);
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            let mut ring = publisher(&theirs);
            let ring_once = || theirs.control().subscribers_bell.0.ring(Barrier::Fence);
            publish(&mut ring, &theirs).unwrap();
            crash::killed_at(point, ring_once); // or nobody slept
            for _ in 1..count {
                publish(&mut ring, &theirs).unwrap();
            }
            ring_once();
        });
        receive_asleep(&mut reader, &region, count);
        feed.join().unwrap();
    });
}

/// Who was the first to sleep does not, and takes the bit back: not where another one relies on it.
#[test]
fn sleep_beside_one_that_does_not_sleep_after_all() {
    model(|| {
        let region = region(2, 1, 0);
        let mut reader = lossy(&region, 0, Start::Newest);
        let theirs = Arc::clone(&region);
        let other = thread::spawn(move || {
            theirs.control().subscribers_bell.0.sleep(Meet::Fence, 0, || true);
        });
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            let mut ring = publisher(&theirs);
            publish(&mut ring, &theirs).unwrap();
            theirs.control().subscribers_bell.0.ring(Barrier::Fence);
        });
        receive_asleep(&mut reader, &region, 1);
        other.join().unwrap();
        feed.join().unwrap();
    });
}

/// Two ring at once.
#[test]
fn sleep_against_two_who_ring() {
    model(|| {
        let region = region(2, 1, 0);
        let mut reader = lossy(&region, 0, Start::Newest);
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            let mut ring = publisher(&theirs);
            for _ in 0..2 {
                publish(&mut ring, &theirs).unwrap();
                theirs.control().subscribers_bell.0.ring(Barrier::Fence);
            }
        });
        let theirs = Arc::clone(&region);
        let other = thread::spawn(move || theirs.control().subscribers_bell.0.ring(Barrier::Fence));
        receive_asleep(&mut reader, &region, 2);
        feed.join().unwrap();
        other.join().unwrap();
    });
}

#[test]
fn two_sleepers_against_wake() {
    model(|| {
        let region = region(2, 2, 0);
        let sleepers = [0, 1].map(|n| {
            let mut reader = lossy(&region, n, Start::Newest);
            let theirs = Arc::clone(&region);
            thread::spawn(move || receive_asleep(&mut reader, &theirs, 1))
        });
        let mut ring = publisher(&region);
        publish(&mut ring, &region).unwrap();
        region.control().subscribers_bell.0.ring(Barrier::Fence);
        for sleeper in sleepers {
            sleeper.join().unwrap();
        }
    });
}

#[test]
fn publisher_asleep_against_the_cursor_it_waits_for() {
    model(|| {
        let region = region(1, 1, 0);
        let mut reader = reliable(&region, 0);
        let mut ring = publisher(&region);
        publish(&mut ring, &region).unwrap();
        publish(&mut ring, &region).unwrap();
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            while let Err(blocked) = publish(&mut ring, &theirs) {
                assert_eq!(blocked, Blocked::Full);
                let bell = &theirs.control().publishers_bell.0;
                bell.sleep(Meet::Fence, 0, || ring.may_go_on(&theirs));
            }
        });
        for _ in 0..2 {
            receive(&mut reader, &region);
        }
        feed.join().unwrap();
        drain(&mut reader, &region);
        assert_eq!(reader.position(), 3);
    });
}

/// A publisher asleep, waiting for a reliable subscriber that is dead: whoever declares it dead wakes it.
#[test]
fn publisher_asleep_against_the_sweep_of_whom_it_waits_for() {
    model(|| {
        let region = region(1, 1, 0);
        drop(reliable(&region, 0));
        let mut ring = publisher(&region);
        publish(&mut ring, &region).unwrap();
        publish(&mut ring, &region).unwrap();
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            while let Err(blocked) = publish(&mut ring, &theirs) {
                assert_eq!(blocked, Blocked::Full);
                let bell = &theirs.control().publishers_bell.0;
                bell.sleep(Meet::Fence, 0, || ring.may_go_on(&theirs));
            }
        });
        assert_eq!(recovery::sweep(&region, region.subscribers(), |_| false), 1);
        feed.join().unwrap();
    });
}
