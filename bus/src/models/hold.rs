//! Held samples against the reuse of their blocks.

use loom::sync::Arc;
use loom::thread;

use super::{block_of, content, entry, lossy, model, payload, publish, publisher, receive, region};
use crate::atomics::*;
use crate::registry;
use crate::ring::hold::Holds;
use crate::ring::reader::Start;

#[test]
fn hold_against_reuse() {
    model(|| {
        let region = region(1, 1, 1);
        let mut ring = publisher(&region);
        let mut reader = lossy(&region, 0, Start::Newest);
        publish(&mut ring, &region).unwrap();
        publish(&mut ring, &region).unwrap();
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            for _ in 0..4 {
                publish(&mut ring, &theirs).unwrap();
            }
        });
        let holds = Holds::none();
        if let Some((at, sequence)) = receive(&mut reader, &region) {
            let cell = holds.hold(&region, entry(0), block_of(&region, at)).unwrap();
            receive(&mut reader, &region); // moves the pin
            assert_eq!(payload(&region, at), content(sequence), "overwritten while held");
            holds.release(region.entry(entry(0)), cell);
        }
        receive(&mut reader, &region);
        feed.join().unwrap();
    });
}

/// A hold cell that is given back by another thread and used again.
#[test]
fn hold_given_back_by_another_thread_against_reuse() {
    model(|| {
        let region = region(1, 1, 1);
        let mut ring = publisher(&region);
        let mut reader = lossy(&region, 0, Start::Newest);
        publish(&mut ring, &region).unwrap();
        publish(&mut ring, &region).unwrap();
        let holds = Arc::new(Holds::none());
        let (at, sequence) = receive(&mut reader, &region).unwrap();
        let cell = holds.hold(&region, entry(0), block_of(&region, at)).unwrap();
        receive(&mut reader, &region).unwrap();
        let theirs = (Arc::clone(&region), Arc::clone(&holds));
        let owner = thread::spawn(move || {
            let (region, holds) = theirs;
            assert_eq!(payload(&region, at), content(sequence), "overwritten while held");
            holds.release(region.entry(entry(0)), cell);
        });
        for _ in 0..3 {
            publish(&mut ring, &region).unwrap();
        }
        if let Some((at, sequence)) = receive(&mut reader, &region)
            && let Ok(cell) = holds.hold(&region, entry(0), block_of(&region, at))
        {
            publish(&mut ring, &region).unwrap();
            assert_eq!(payload(&region, at), content(sequence), "overwritten while held");
            holds.release(region.entry(entry(0)), cell);
        }
        owner.join().unwrap();
    });
}

/// Of two subscribers that hold the last block of the budget, at most one may.
#[test]
fn hold_against_hold() {
    model(|| {
        let region = region(1, 2, 1);
        let mut ring = publisher(&region);
        let mut readers = [lossy(&region, 0, Start::Newest), lossy(&region, 1, Start::Newest)];
        publish(&mut ring, &region).unwrap();
        let [(a, _), (b, _)] = readers.each_mut().map(|reader| receive(reader, &region).unwrap());
        let theirs = Arc::clone(&region);
        let other = thread::spawn(move || {
            Holds::none().hold(&theirs, entry(1), block_of(&theirs, b)).is_ok()
        });
        let held = Holds::none().hold(&region, entry(0), block_of(&region, a)).is_ok();
        assert!(!(other.join().unwrap() && held), "over the budget");
    });
}

/// The last hold is given back by another thread, then its owner leaves; the block is reused.
#[test]
fn leave_after_a_hold_against_reuse() {
    model(|| {
        let region = region(1, 1, 1);
        let mut ring = publisher(&region);
        let mut reader = lossy(&region, 0, Start::Newest);
        publish(&mut ring, &region).unwrap();
        let holds = Holds::none();
        let (at, sequence) = receive(&mut reader, &region).unwrap();
        let cell = holds.hold(&region, entry(0), block_of(&region, at)).unwrap();
        region.entry(entry(0)).pin.store(0, Release);
        let theirs = Arc::clone(&region);
        let owner = thread::spawn(move || {
            assert_eq!(payload(&theirs, at), content(sequence), "overwritten while held");
            holds.release(theirs.entry(entry(0)), cell);
            registry::vacate(&theirs, entry(0), 1);
        });
        for _ in 0..7 {
            publish(&mut ring, &region).unwrap();
        }
        owner.join().unwrap();
    });
}

/// A hold cell is used for another block while a publisher looks at it.
#[test]
fn hold_in_a_used_cell_against_reuse() {
    model(|| {
        let region = region(1, 1, 1);
        let mut ring = publisher(&region);
        let mut reader = lossy(&region, 0, Start::Newest);
        let holds = Holds::none();
        publish(&mut ring, &region).unwrap();
        let (at, sequence) = receive(&mut reader, &region).unwrap();
        let cell = holds.hold(&region, entry(0), block_of(&region, at)).unwrap();
        publish(&mut ring, &region).unwrap();
        let (next, _) = receive(&mut reader, &region).unwrap(); // moves the pin
        for _ in 0..2 {
            publish(&mut ring, &region).unwrap(); // displaces both
        }
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            for _ in 0..5 {
                publish(&mut ring, &theirs).unwrap();
            }
        });
        assert_eq!(payload(&region, at), content(sequence), "overwritten while held");
        holds.release(region.entry(entry(0)), cell);
        holds.hold(&region, entry(0), block_of(&region, next)).unwrap();
        feed.join().unwrap();
    });
}

/// Two threads share a hold; whoever gives it back last ends it, for both.
#[test]
fn hold_shared_by_two_threads_against_reuse() {
    model(|| {
        let region = region(1, 1, 1);
        let mut ring = publisher(&region);
        let mut reader = lossy(&region, 0, Start::Newest);
        publish(&mut ring, &region).unwrap();
        let holds = Arc::new(Holds::none());
        let (at, sequence) = receive(&mut reader, &region).unwrap();
        let cell = holds.hold(&region, entry(0), block_of(&region, at)).unwrap();
        holds.share(cell);
        publish(&mut ring, &region).unwrap();
        receive(&mut reader, &region).unwrap(); // moves the pin
        for _ in 0..4 {
            publish(&mut ring, &region).unwrap();
        }
        let owners = [0, 1].map(|_| {
            let (region, holds) = (Arc::clone(&region), Arc::clone(&holds));
            thread::spawn(move || {
                assert_eq!(payload(&region, at), content(sequence), "overwritten while held");
                holds.release(region.entry(entry(0)), cell);
            })
        });
        for _ in 0..3 {
            publish(&mut ring, &region).unwrap();
        }
        for owner in owners {
            owner.join().unwrap();
        }
    });
}

/// Two samples of one block, held by two threads at once: they share a cell, and what one of them gives back the other still has.
#[test]
fn hold_against_hold_of_the_same_block_by_another_thread() {
    model(|| {
        let region = region(2, 1, 1);
        let mut ring = publisher(&region);
        let mut reader = lossy(&region, 0, Start::Newest);
        publish(&mut ring, &region).unwrap();
        publish(&mut ring, &region).unwrap();
        let [(a, _), (b, sequence)] = [0, 1].map(|_| receive(&mut reader, &region).unwrap());
        let holds = Arc::new(Holds::none());
        let theirs = (Arc::clone(&region), Arc::clone(&holds));
        let other = thread::spawn(move || {
            let (region, holds) = theirs;
            holds.hold(&region, entry(0), block_of(&region, a)).unwrap()
        });
        let mine = holds.hold(&region, entry(0), block_of(&region, b)).unwrap();
        let theirs = other.join().unwrap();
        publish(&mut ring, &region).unwrap();
        receive(&mut reader, &region).unwrap(); // moves the pin
        holds.release(region.entry(entry(0)), theirs);
        for _ in 0..12 {
            publish(&mut ring, &region).unwrap();
        }
        assert_eq!(payload(&region, b), content(sequence), "overwritten while held");
        holds.release(region.entry(entry(0)), mine);
        assert_eq!(region.entry(entry(0)).held.load(Relaxed), 0, "given back, and still there");
    });
}

/// The same of two blocks, which a subscriber never has both unheld: each has a cell of its own.
#[test]
fn hold_against_hold_of_another_block_by_another_thread() {
    model(|| {
        let region = region(1, 1, 2);
        let mut ring = publisher(&region);
        let mut reader = lossy(&region, 0, Start::Newest);
        publish(&mut ring, &region).unwrap();
        publish(&mut ring, &region).unwrap();
        let [a, b] = [0, 1].map(|_| receive(&mut reader, &region).unwrap());
        let holds = Arc::new(Holds::none());
        let theirs = (Arc::clone(&region), Arc::clone(&holds));
        let other = thread::spawn(move || {
            let (region, holds) = theirs;
            holds.hold(&region, entry(0), block_of(&region, a.0)).unwrap()
        });
        let mine = holds.hold(&region, entry(0), block_of(&region, b.0)).unwrap();
        let theirs = other.join().unwrap();
        assert_ne!(mine, theirs, "one cell for two blocks");
        region.entry(entry(0)).pin.store(0, Release);
        for _ in 0..7 {
            publish(&mut ring, &region).unwrap();
        }
        for (at, sequence) in [a, b] {
            assert_eq!(payload(&region, at), content(sequence), "overwritten while held");
        }
        holds.release(region.entry(entry(0)), theirs);
        for _ in 0..7 {
            publish(&mut ring, &region).unwrap();
        }
        assert_eq!(payload(&region, b.0), content(b.1), "overwritten while held");
        holds.release(region.entry(entry(0)), mine);
    });
}

/// The last sample of a cell is given back while another thread holds the same block, which is still pinned.
#[test]
fn hold_against_release_of_the_same_cell_by_another_thread() {
    model(|| {
        let region = region(2, 1, 2);
        let mut ring = publisher(&region);
        let mut reader = lossy(&region, 0, Start::Newest);
        publish(&mut ring, &region).unwrap();
        publish(&mut ring, &region).unwrap();
        let [(a, _), (b, sequence)] = [0, 1].map(|_| receive(&mut reader, &region).unwrap());
        let holds = Arc::new(Holds::none());
        let first = holds.hold(&region, entry(0), block_of(&region, a)).unwrap();
        let theirs = (Arc::clone(&region), Arc::clone(&holds));
        let other = thread::spawn(move || {
            let (region, holds) = theirs;
            holds.release(region.entry(entry(0)), first);
        });
        let mine = holds.hold(&region, entry(0), block_of(&region, b)).unwrap();
        other.join().unwrap();
        publish(&mut ring, &region).unwrap();
        receive(&mut reader, &region).unwrap(); // moves the pin
        for _ in 0..12 {
            publish(&mut ring, &region).unwrap();
        }
        assert_eq!(payload(&region, b), content(sequence), "overwritten while held");
        holds.release(region.entry(entry(0)), mine);
        assert_eq!(region.entry(entry(0)).held.load(Relaxed), 0, "given back, and still there");
    });
}

/// A sample is shared by one thread and given back by another, while a third one holds the same block.
#[test]
fn hold_against_share_and_release_of_the_same_cell() {
    model(|| {
        let region = region(2, 1, 2);
        let mut ring = publisher(&region);
        let mut reader = lossy(&region, 0, Start::Newest);
        publish(&mut ring, &region).unwrap();
        publish(&mut ring, &region).unwrap();
        let [(a, first), (b, second)] = [0, 1].map(|_| receive(&mut reader, &region).unwrap());
        let holds = Arc::new(Holds::none());
        let cell = holds.hold(&region, entry(0), block_of(&region, a)).unwrap();
        let theirs = (Arc::clone(&region), Arc::clone(&holds));
        let other = thread::spawn(move || {
            let (region, holds) = theirs;
            holds.share(cell);
            holds.release(region.entry(entry(0)), cell);
        });
        let mine = holds.hold(&region, entry(0), block_of(&region, b)).unwrap();
        other.join().unwrap();
        assert_eq!(mine, cell, "two cells for one block");
        holds.release(region.entry(entry(0)), cell);
        publish(&mut ring, &region).unwrap();
        receive(&mut reader, &region).unwrap(); // moves the pin
        for _ in 0..12 {
            publish(&mut ring, &region).unwrap();
        }
        for (at, sequence) in [(a, first), (b, second)] {
            assert_eq!(payload(&region, at), content(sequence), "overwritten while held");
        }
        holds.release(region.entry(entry(0)), mine);
    });
}
