//! A subscriber receives while blocks are opened: what it sees is there, and stays.

use loom::sync::Arc;
use loom::thread;

use super::{drain, entry, lossy, model, publish, publisher, receive, region};
use crate::atomics::*;
use crate::registry;
use crate::ring::reader::{Next, Retained, Start};

#[test]
fn publish_against_receive() {
    model(|| {
        let region = region(2, 1, 0);
        let mut reader = lossy(&region, 0, Start::Newest);
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            let mut ring = publisher(&theirs);
            for _ in 0..3 {
                publish(&mut ring, &theirs).unwrap();
            }
        });
        for _ in 0..3 {
            receive(&mut reader, &region);
        }
        feed.join().unwrap();
        drain(&mut reader, &region);
        assert_eq!((reader.position(), reader.skipped().missed), (3, 0));
    });
}

/// A lossy reader in a block that is displaced under it.
fn pin_against_reuse(block_len: u64, before: u64, during: u64) {
    model(move || {
        let region = region(block_len, 1, 0);
        let mut ring = publisher(&region);
        let mut reader = lossy(&region, 0, Start::Newest);
        for _ in 0..before {
            publish(&mut ring, &region).unwrap();
        }
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            for _ in 0..during {
                publish(&mut ring, &theirs).unwrap();
            }
        });
        receive(&mut reader, &region);
        receive(&mut reader, &region);
        feed.join().unwrap();
        drain(&mut reader, &region);
        assert_eq!(reader.position(), before + during);
    });
}

#[test]
fn pin_against_reuse_of_blocks_of_one() {
    pin_against_reuse(1, 2, 3);
}

#[test]
fn pin_against_reuse_of_blocks_of_two() {
    pin_against_reuse(2, 3, 4);
}

/// A subscriber leaves while its block is reused.
#[test]
fn leave_against_reuse() {
    model(|| {
        let region = region(1, 1, 0);
        let mut ring = publisher(&region);
        let mut reader = lossy(&region, 0, Start::Newest);
        publish(&mut ring, &region).unwrap();
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            for _ in 0..5 {
                publish(&mut ring, &theirs).unwrap();
            }
        });
        receive(&mut reader, &region);
        registry::vacate(&region, entry(0), 1);
        feed.join().unwrap();
    });
}

/// Whoever skips to the newest message finds it there; and it is no older than what the head counts.
#[test]
fn skip_to_newest_against_publish() {
    model(|| {
        let region = region(2, 1, 0);
        let mut reader = lossy(&region, 0, Start::Newest);
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            let mut ring = publisher(&theirs);
            for _ in 0..3 {
                publish(&mut ring, &theirs).unwrap();
            }
        });
        let position = reader.position();
        let counted = region.head().load(Relaxed);
        reader.skip_to_newest(&region).unwrap();
        assert!(reader.position() + 1 >= counted, "there is a newer one");
        if reader.position() > position {
            assert!(receive(&mut reader, &region).is_some(), "the newest message is not there");
        }
        feed.join().unwrap();
    });
}

/// Whoever goes to a message that the head counts finds it there, or is lapped.
#[test]
fn seek_against_publish() {
    model(|| {
        let region = region(1, 1, 0);
        let mut reader = lossy(&region, 0, Start::Newest);
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            let mut ring = publisher(&theirs);
            for _ in 0..3 {
                publish(&mut ring, &theirs).unwrap();
            }
        });
        let counted = region.head().load(Relaxed);
        if let Some(newest) = counted.checked_sub(1) {
            match reader.seek(&region, newest).unwrap() {
                Retained::There => {
                    assert_ne!(reader.look(&region), Ok(Next::Empty), "the message is not there");
                }
                Retained::Gone { oldest } => assert!(oldest > newest, "it is retained after all"),
                Retained::Ahead { .. } => panic!("the head has gone back"),
            }
        }
        feed.join().unwrap();
    });
}

/// A reader that was lapped finds something where it goes on, or is lapped again.
#[test]
fn lapped_against_publish() {
    model(|| {
        let region = region(1, 1, 0);
        let mut ring = publisher(&region);
        let mut reader = lossy(&region, 0, Start::Newest);
        publish(&mut ring, &region).unwrap();
        publish(&mut ring, &region).unwrap();
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            for _ in 0..3 {
                publish(&mut ring, &theirs).unwrap();
            }
        });
        if let Next::Again = reader.look(&region).unwrap() {
            assert_ne!(reader.look(&region), Ok(Next::Empty), "nothing where it goes on");
        }
        feed.join().unwrap();
    });
}

/// Whoever begins a message back finds it there.
#[test]
fn begin_back_against_publish() {
    model(|| {
        let region = region(2, 1, 0);
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            let mut ring = publisher(&theirs);
            for _ in 0..3 {
                publish(&mut ring, &theirs).unwrap();
            }
        });
        let mut reader = lossy(&region, 0, Start::Back(1));
        if reader.position() > 0 {
            assert!(receive(&mut reader, &region).is_some(), "the message before is not there");
        }
        feed.join().unwrap();
    });
}
