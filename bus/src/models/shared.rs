//! Many publishers: claims, openings with help, and the reuse of blocks under readers and writers.

use loom::sync::Arc;
use loom::thread;

use super::{
    content, drain_shared, model, payload, publish_shared, reader_of, receive, region_of,
    shared_lossy, shared_publisher, skipped, write,
};
use crate::atomics::Release;
use crate::crash;
use crate::ring::shared::{Owner, Revoked, settle};

/// Two publishers, and a reader when both are done: each sequence once, nothing lost.
fn claim_against_claim(block_len: u64, before: u64) {
    model(move || {
        let region = region_of(block_len, 2, 1, 0);
        let mut reader = shared_lossy(&region);
        let mut a = shared_publisher(&region, 0);
        let mut b = shared_publisher(&region, 1);
        for _ in 0..before {
            publish_shared(&mut a, &region).unwrap();
        }
        let theirs = Arc::clone(&region);
        let other = thread::spawn(move || publish_shared(&mut a, &theirs).unwrap());
        let mine = publish_shared(&mut b, &region).unwrap();
        let theirs = other.join().unwrap();
        assert_ne!(mine, theirs, "one sequence twice");
        let received = drain_shared(&mut reader, &region, 6, false, |_| false);
        assert_eq!(reader.position(), before + 2);
        assert_eq!(received.len() as u64 + skipped(&reader), before + 2);
    });
}

#[test]
fn claim_against_claim_in_one_block() {
    claim_against_claim(2, 0);
}

/// Both find the next block not open, and help each other to open it.
#[test]
fn claim_against_claim_that_opens_blocks() {
    claim_against_claim(1, 1);
}

/// The reuse of a block by the shared path, against a reader in it.
#[test]
fn pin_against_reuse_by_a_shared_publisher() {
    model(|| {
        let region = region_of(1, 1, 1, 0);
        let mut reader = shared_lossy(&region);
        let mut a = shared_publisher(&region, 0);
        publish_shared(&mut a, &region).unwrap();
        publish_shared(&mut a, &region).unwrap();
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            for _ in 0..3 {
                publish_shared(&mut a, &theirs).unwrap();
            }
        });
        receive(&mut reader, &region);
        receive(&mut reader, &region);
        feed.join().unwrap();
        drain_shared(&mut reader, &region, 8, false, |_| false);
        assert_eq!(reader.position(), 5);
    });
}

/// A stopped publisher's block is displaced while others go round: nobody writes where it still writes.
#[test]
fn a_stalled_write_against_reuse() {
    model(|| {
        let region = region_of(1, 2, 1, 0);
        let mut a = shared_publisher(&region, 0);
        let mut b = shared_publisher(&region, 1);
        let claim = a.claim(&region).unwrap();
        let theirs = Arc::clone(&region);
        let others = thread::spawn(move || {
            for _ in 0..3 {
                publish_shared(&mut b, &theirs).unwrap();
            }
        });
        write(&region, claim);
        let _ = a.commit(&region, claim, 8, None);
        let _ = publish_shared(&mut a, &region); // moves the pin
        others.join().unwrap();
    });
}

/// A revoked loan is moved to another block while others go round: its bytes stay until they are copied.
#[test]
fn moving_a_revoked_loan_against_reuse() {
    model(|| {
        let region = region_of(1, 2, 1, 0);
        let mut a = shared_publisher(&region, 0);
        let mut b = shared_publisher(&region, 1);
        let claim = a.claim(&region).unwrap();
        write(&region, claim);
        assert!(settle(&region, claim.sequence, claim.slot, true, |_| Owner::Lives));
        assert_eq!(a.commit(&region, claim, 8, None), Err(Revoked));
        let theirs = Arc::clone(&region);
        let others = thread::spawn(move || {
            for _ in 0..3 {
                publish_shared(&mut b, &theirs).unwrap();
            }
        });
        a.keep(&region, claim);
        if let Ok(next) = a.claim(&region) {
            assert_eq!(payload(&region, claim.slot), content(claim.sequence), "moved too late");
            write(&region, next);
            let _ = a.commit(&region, next, 8, None);
        }
        a.let_go(&region);
        others.join().unwrap();
    });
}

/// What a reader read, the opener of a block sees in its scan; another publisher writes there, who knows of it by the table only.
#[test]
fn reading_against_reuse_by_another_than_the_opener() {
    model(|| {
        let region = region_of(1, 2, 1, 0);
        let mut reader = shared_lossy(&region);
        let mut a = shared_publisher(&region, 0);
        let mut b = shared_publisher(&region, 1);
        publish_shared(&mut a, &region).unwrap();
        let (at, sequence) = receive(&mut reader, &region).unwrap(); // pinned
        publish_shared(&mut a, &region).unwrap();
        publish_shared(&mut a, &region).unwrap(); // displaced
        let theirs = Arc::clone(&region);
        let reading = thread::spawn(move || {
            assert_eq!(payload(&theirs, at), content(sequence), "overwritten while pinned");
            theirs.entry(reader_of(&theirs)).pin.store(0, Release);
        });
        let theirs = Arc::clone(&region);
        let opening = thread::spawn(move || {
            crash::killed_at("open.exchanged", || a.claim(&theirs).is_ok());
        });
        publish_shared(&mut b, &region).unwrap();
        reading.join().unwrap();
        opening.join().unwrap();
    });
}
