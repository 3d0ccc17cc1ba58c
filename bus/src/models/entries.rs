//! Entries that change hands: declared dead, swept, taken by the next owner.

use loom::sync::Arc;
use loom::thread;

use super::{entry, lossy, model, publish, publisher, receive, region, reliable};
use crate::atomics::*;
use crate::registry::{Kind, State};
use crate::ring::exclusive::Blocked;
use crate::ring::reader::{Next, Start};
use crate::{recovery, registry};

/// A prover stalls between the kernel's answer and its exchange, while the entry gets its next owner.
#[test]
fn declaring_dead_against_the_next_owner() {
    model(|| {
        let region = region(1, 1, 0);
        drop(reliable(&region, 0)); // its owner is killed: nothing is given back
        let seen = State::of(region.entry(entry(0)).state.load(Acquire));
        assert_eq!(seen.kind, Kind::Reliable);
        let theirs = Arc::clone(&region);
        let prover = thread::spawn(move || registry::declare_dead(&theirs, entry(0), seen));
        let reader = reliable(&region, 0); // has taken the lease
        let now = State::of(region.entry(entry(0)).state.load(Acquire));
        assert_eq!((now.generation, now.kind), (seen.generation + 1, Kind::Reliable));
        prover.join().unwrap();
        let now = State::of(region.entry(entry(0)).state.load(Acquire));
        assert_eq!(now.kind, Kind::Reliable, "the next owner was declared dead");
        drop(reader);
    });
}

/// Two sweep the same dead subscriber: it is declared dead once, and its cursor holds nobody up.
#[test]
fn sweep_against_sweep() {
    model(|| {
        let region = region(1, 1, 0);
        drop(reliable(&region, 0));
        let mut ring = publisher(&region);
        publish(&mut ring, &region).unwrap();
        publish(&mut ring, &region).unwrap();
        assert_eq!(publish(&mut ring, &region), Err(Blocked::Full));
        let theirs = Arc::clone(&region);
        let other =
            thread::spawn(move || recovery::sweep(&theirs, theirs.subscribers(), |_| false));
        let swept = recovery::sweep(&region, region.subscribers(), |_| false);
        publish(&mut ring, &region).unwrap();
        assert_eq!(other.join().unwrap() + swept, 1);
        assert_eq!(recovery::sweep(&region, region.subscribers(), |_| false), 0);
    });
}

/// A subscriber leaves, another takes its entry, while the block that the first one read is reused.
#[test]
fn the_next_owner_of_an_entry_against_reuse() {
    model(|| {
        let region = region(1, 1, 0);
        let mut ring = publisher(&region);
        for _ in 0..3 {
            publish(&mut ring, &region).unwrap();
        }
        let mut reader = lossy(&region, 0, Start::Newest);
        publish(&mut ring, &region).unwrap();
        assert!(matches!(reader.look(&region), Ok(Next::Message(..)))); // pinned
        publish(&mut ring, &region).unwrap();
        publish(&mut ring, &region).unwrap(); // displaced
        let theirs = Arc::clone(&region);
        let first = thread::spawn(move || {
            receive(&mut reader, &theirs).unwrap();
            registry::vacate(&theirs, entry(0), 1);
        });
        let theirs = Arc::clone(&region);
        let next = thread::spawn(move || {
            // As the kernel would say: the lease is free. Nothing is ordered by that here.
            if State::of(theirs.entry(entry(0)).state.load(Relaxed)).kind == Kind::Free {
                let generation = registry::occupy(&theirs, entry(0));
                registry::activate(&theirs, entry(0), generation, Kind::Lossy);
            }
        });
        publish(&mut ring, &region).unwrap();
        first.join().unwrap();
        next.join().unwrap();
    });
}

/// Who is killed in a displaced block was not found dead yet when another one takes its entry, and clears its pin. The kernel orders its death before
/// the next one has its lease.
#[test]
fn taking_an_entry_from_the_dead_against_reuse() {
    model(|| {
        let region = region(1, 1, 0);
        let mut ring = publisher(&region);
        for _ in 0..3 {
            publish(&mut ring, &region).unwrap();
        }
        let mut reader = lossy(&region, 0, Start::Newest);
        publish(&mut ring, &region).unwrap();
        assert!(matches!(reader.look(&region), Ok(Next::Message(..)))); // pinned
        publish(&mut ring, &region).unwrap();
        publish(&mut ring, &region).unwrap(); // displaced
        let theirs = Arc::clone(&region);
        let next = thread::spawn(move || {
            receive(&mut reader, &theirs).unwrap(); // and is killed
            registry::occupy(&theirs, entry(0));
        });
        publish(&mut ring, &region).unwrap();
        next.join().unwrap();
    });
}

/// A subscriber that is declared dead was read by somebody who is gone: what it read is reused only behind that.
#[test]
fn declaring_dead_against_reuse() {
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
        receive(&mut reader, &region); // and is killed; the kernel orders its death before the answer that its lease is free
        let seen = State::of(region.entry(entry(0)).state.load(Acquire));
        assert!(registry::declare_dead(&region, entry(0), seen)); // the fence of a sweep would hide its ordering
        feed.join().unwrap();
    });
}
