//! Reliable subscribers: joining, holding a publisher up, and being evicted.

use loom::sync::Arc;
use loom::thread;

use super::{
    drain, entry, model, publish, publish_shared, publisher, reader_of, receive, region, region_of,
    reliable, shared_publisher, write,
};
use crate::atomics::*;
use crate::region::Region;
use crate::ring::exclusive::Blocked;
use crate::ring::reader::{Reader, Start};
use crate::{crash, recovery, registry};

#[test]
fn reliable_gate() {
    model(|| {
        let region = region(1, 1, 0);
        let mut reader = reliable(&region, 0);
        let mut ring = publisher(&region);
        publish(&mut ring, &region).unwrap();
        publish(&mut ring, &region).unwrap();
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            for _ in 0..3 {
                match publish(&mut ring, &theirs) {
                    Ok(_) | Err(Blocked::Full) => {}
                    Err(blocked) => panic!("{blocked:?}"),
                }
            }
            ring.sequence()
        });
        for _ in 0..3 {
            receive(&mut reader, &region);
        }
        let end = feed.join().unwrap();
        drain(&mut reader, &region);
        assert_eq!((reader.position(), reader.skipped().missed), (end, 0));
    });
}

/// A reliable subscriber attaches while a publisher that last looked when there was none opens blocks.
fn attach_against_open(block_len: u64, before: u64, during: u64) {
    model(move || {
        let region = region(block_len, 1, 0);
        let mut ring = publisher(&region);
        for _ in 0..before {
            publish(&mut ring, &region).unwrap();
        }
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            for _ in 0..during {
                match publish(&mut ring, &theirs) {
                    Ok(_) | Err(Blocked::Full) => {}
                    Err(blocked) => panic!("{blocked:?}"),
                }
            }
            ring.sequence()
        });
        let mut reader = reliable(&region, 0);
        let end = feed.join().unwrap();
        drain(&mut reader, &region);
        assert_eq!(
            (reader.position(), reader.skipped().missed),
            (end, 0),
            "lost by a reliable subscriber"
        );
    });
}

#[test]
fn attach_against_open_of_blocks_of_one() {
    attach_against_open(1, 2, 4);
}

#[test]
fn attach_against_open_of_blocks_of_two() {
    attach_against_open(2, 3, 4);
}

/// A reliable subscriber is evicted at any moment of its receiving: it is told, then has exact loss, and reads nothing that was
/// overwritten.
#[test]
fn evict_against_receive() {
    model(|| {
        let region = region(1, 1, 0);
        let mut reader = reliable(&region, 0);
        region.entry(entry(0)).patience_ns.store(1, Release);
        let mut ring = publisher(&region);
        publish(&mut ring, &region).unwrap();
        publish(&mut ring, &region).unwrap();
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            let mut in_the_way = recovery::InTheWay::nobody(&theirs);
            for now_ns in [0, 10] {
                while publish(&mut ring, &theirs).is_err() {
                    in_the_way.evict(&theirs, now_ns, 0, |_| true);
                    in_the_way.evict(&theirs, now_ns + 1, 0, |_| true);
                }
            }
        });
        for _ in 0..3 {
            receive(&mut reader, &region);
        }
        feed.join().unwrap();
        drain(&mut reader, &region);
        assert_eq!(reader.position(), 4);
    });
}

/// A subscriber for which publishers wait for 5 ns leaves, and one for which they wait without end takes its entry, at any moment of an
/// eviction: it stays reliable.
#[test]
fn evict_against_the_next_owner() {
    model(|| {
        let region = region(1, 1, 0);
        drop(reliable(&region, 0));
        region.entry(entry(0)).patience_ns.store(5, Relaxed);
        let mut ring = publisher(&region);
        while publish(&mut ring, &region).is_ok() {}
        let theirs = Arc::clone(&region);
        let waiting = thread::spawn(move || {
            let mut in_the_way = recovery::InTheWay::nobody(&theirs);
            for now_ns in [0, 10, 20] {
                in_the_way.evict(&theirs, now_ns, 0, |_| true);
            }
        });
        registry::vacate(&region, entry(0), 1);
        let generation = registry::occupy(&region, entry(0));
        // As one that begins with the oldest message: its cursor stands where the other one's did.
        registry::activate(&region, entry(0), generation, registry::Kind::Reliable);
        waiting.join().unwrap();
        // (Loom may show the first owner's eviction: to it, a store that follows another thread's exchange need not come after it.)
        let now = region.entry(entry(0)).state.load(Relaxed);
        let lossy = registry::State { generation, kind: registry::Kind::Lossy };
        assert_ne!(registry::State::of(now), lossy, "the next owner was evicted");
    });
}

/// A reliable subscriber of a shared topic, for which publishers wait for 5 ns.
fn patient(region: &Region) -> Reader {
    let index = reader_of(region);
    let generation = registry::occupy(region, index);
    region.entry(index).patience_ns.store(5, Relaxed);
    Reader::attach_reliable(region, index, generation, Start::Newest).expect("nothing is corrupt")
}

/// A publisher is killed with a claim of a sequence that another one takes and commits, or of one that it has taken itself: a subscriber that does not
/// receive is evicted in spite of it, after the time that it would have needed to get past the claim.
fn evict_behind_the_dead(point: &'static str) {
    model(move || {
        let region = region_of(1, 2, 1, 0);
        let _stands_still = patient(&region);
        let mut a = shared_publisher(&region, 0);
        let mut b = shared_publisher(&region, 1);
        let theirs = Arc::clone(&region);
        let victim = thread::spawn(move || {
            crash::killed_at(point, || publish_shared(&mut a, &theirs));
        });
        publish_shared(&mut b, &region);
        victim.join().unwrap(); // the kernel says so
        while publish_shared(&mut b, &region).is_some() {}
        let mut in_the_way = recovery::InTheWay::nobody(&region);
        let evicted: u32 = (0..5)
            .map(|look| in_the_way.evict(&region, look * 5_000_000, 0, |index| index.0 != 0))
            .sum();
        assert_eq!(evicted, 1, "a dead publisher's claim keeps everybody waiting");
        assert!(publish_shared(&mut b, &region).is_some());
    });
}

#[test]
fn evict_behind_a_publisher_killed_with_a_claim_shown() {
    evict_behind_the_dead("claim.shown");
}

#[test]
fn evict_behind_a_publisher_killed_with_a_sequence_taken() {
    evict_behind_the_dead("claim.taken");
}

#[test]
fn evict_behind_a_publisher_killed_with_a_message_committed() {
    evict_behind_the_dead("commit.exchanged");
}

/// A subscriber that waits for a living publisher's claim has its whole patience from the commit on, whenever that comes.
#[test]
fn evict_against_commit_of_the_living() {
    model(|| {
        let region = region_of(1, 2, 1, 0);
        let mut reader = patient(&region);
        let mut a = shared_publisher(&region, 0);
        let mut b = shared_publisher(&region, 1);
        let claim = a.claim(&region).unwrap();
        while publish_shared(&mut b, &region).is_some() {}
        let mut in_the_way = recovery::InTheWay::nobody(&region);
        let mut evicted = in_the_way.evict(&region, 0, 0, |_| true);
        let theirs = Arc::clone(&region);
        let commit = thread::spawn(move || {
            write(&theirs, claim);
            a.commit(&theirs, claim, 8, None).unwrap();
        });
        for now_ns in [3, 6] {
            evicted += in_the_way.evict(&region, now_ns, 0, |_| true);
        }
        assert_eq!(evicted, 0, "it had nothing to receive");
        commit.join().unwrap();
        assert_eq!(receive(&mut reader, &region).map(|(_, sequence)| sequence), Some(0));
    });
}
