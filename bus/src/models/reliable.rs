//! Reliable subscribers: joining, holding a publisher up, and being evicted.

use loom::sync::Arc;
use loom::thread;

use super::{drain, entry, model, publish, publisher, receive, region, reliable};
use crate::atomics::*;
use crate::recovery;
use crate::ring::exclusive::Blocked;

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
        assert_eq!((reader.position(), reader.missed()), (end, 0));
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
        assert_eq!((reader.position(), reader.missed()), (end, 0), "lost by a reliable subscriber");
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
                    in_the_way.evict(&theirs, now_ns);
                    in_the_way.evict(&theirs, now_ns + 1);
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
