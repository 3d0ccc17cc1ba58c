//! An exclusive publisher is killed, and the next one goes on.

use loom::sync::Arc;
use loom::thread;

use super::{drain, lossy, model, publish, publisher, receive, region, reliable};
use crate::atomics::*;
use crate::crash;
use crate::ring::exclusive::Blocked;
use crate::ring::reader::Start;

/// The feed is killed at a point; the next one goes on; a reader that runs all the time loses nothing that was committed.
fn takeover(point: &'static str) {
    model(move || {
        let region = region(1, 1, 0);
        let mut reader = reliable(&region, 0);
        let mut ring = publisher(&region);
        publish(&mut ring, &region).unwrap();
        let theirs = Arc::clone(&region);
        let feeds = thread::spawn(move || {
            crash::killed_at(point, || publish(&mut ring, &theirs)); // whatever came of it
            crash::killed_at("takeover.counted", || publisher(&theirs)); // and its successor
            let mut next = publisher(&theirs);
            for _ in 0..2 {
                match publish(&mut next, &theirs) {
                    Ok(_) | Err(Blocked::Full) => {}
                    Err(blocked) => panic!("{blocked:?}"),
                }
            }
            next.sequence()
        });
        for _ in 0..3 {
            receive(&mut reader, &region);
        }
        let end = feeds.join().unwrap();
        drain(&mut reader, &region);
        assert_eq!((reader.position(), reader.skipped().missed), (end, 0));
        assert_eq!(region.head().load(Acquire), end);
    });
}

#[test]
fn takeover_of_a_publisher_killed_with_a_block_opened() {
    takeover("open.stored");
}

#[test]
fn takeover_of_a_publisher_killed_with_a_payload_written() {
    takeover("publish.written");
}

#[test]
fn takeover_of_a_publisher_killed_with_a_message_stamped() {
    takeover("commit.stamped");
}

#[test]
fn takeover_of_a_publisher_killed_with_a_message_counted() {
    takeover("commit.counted");
}

/// A lossy reader that is lapped behind a publisher that died between the table and the head gets on by itself.
#[test]
fn lapped_behind_a_publisher_killed_with_a_block_opened() {
    model(|| {
        let region = region(1, 1, 0);
        let mut reader = lossy(&region, 0, Start::Newest);
        let mut ring = publisher(&region);
        publish(&mut ring, &region).unwrap();
        publish(&mut ring, &region).unwrap();
        let killed = crash::killed_at("open.stored", || publish(&mut ring, &region));
        assert!(killed.is_none());
        assert_eq!(receive(&mut reader, &region), None); // lapped
        assert_eq!(receive(&mut reader, &region).map(|(_, sequence)| sequence), Some(1));
    });
}

/// Whoever skips to the newest message finds it there, also if the head was moved by a publisher that took over.
#[test]
fn skip_to_newest_against_takeover() {
    model(|| {
        let region = region(2, 1, 0);
        let mut reader = lossy(&region, 0, Start::Newest);
        let mut ring = publisher(&region);
        publish(&mut ring, &region).unwrap();
        let theirs = Arc::clone(&region);
        let feeds = thread::spawn(move || {
            crash::killed_at("commit.stamped", || publish(&mut ring, &theirs));
            publisher(&theirs);
        });
        let counted = region.head().load(Relaxed);
        reader.skip_to_newest(&region).unwrap();
        assert!(reader.position() + 1 >= counted, "there is a newer one");
        if reader.position() > 0 {
            assert!(receive(&mut reader, &region).is_some(), "the newest message is not there");
        }
        feeds.join().unwrap();
    });
}
