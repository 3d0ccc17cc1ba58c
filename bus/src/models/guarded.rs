//! Guarded topics: who sleeps in a page of its own is rung there. A wake-up that is lost is a deadlock, which loom reports.

use loom::sync::Arc;
use loom::thread;

use super::{entry, geometry, lossy, model, publish, publisher, receive, reliable};
use crate::atomics::*;
use crate::bell::{Barrier, Meet};
use crate::guard::{self, Pages};
use crate::region::Region;
use crate::registry::{Kind, State};
use crate::ring::Geometry;
use crate::ring::exclusive::Blocked;
use crate::ring::reader::{Next, Reader, Start};
use crate::ring::table;

fn region(subscribers_max: u32) -> Arc<Region> {
    Arc::new(Region::new(Geometry { guarded: true, ..geometry(1, 0, subscribers_max, 0) }))
}

/// What the broker writes last, for the first owner of an entry.
fn grant(region: &Region, n: u32, kind: Kind) {
    let grant = region.grant(entry(n)).expect("the topic is guarded");
    grant.state.store(State { generation: 1, kind }.word(), Release);
    region.control().roster.0.fetch_add(1, Release);
}

/// A publisher sleeps on the pages of all whom it waits for, until the last of them makes room.
fn publisher_asleep(subscribers: u32) {
    model(move || {
        let region = region(subscribers);
        let mut readers: Vec<_> = (0..subscribers)
            .map(|n| {
                grant(&region, n, Kind::Reliable);
                reliable(&region, n)
            })
            .collect();
        let mut ring = publisher(&region);
        publish(&mut ring, &region).unwrap();
        publish(&mut ring, &region).unwrap();
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            while let Err(blocked) = publish(&mut ring, &theirs) {
                assert_eq!(blocked, Blocked::Full);
                let number = theirs.geometry().number(ring.sequence());
                guard::sleep(&theirs, number, u64::MAX, || ring.may_go_on(&theirs));
            }
        });
        for reader in &mut readers {
            for _ in 0..2 {
                receive(reader, &region);
            }
        }
        feed.join().unwrap();
        assert_eq!(region.head().load(Relaxed), 3);
    });
}

#[test]
fn guarded_publisher_asleep_on_the_page_of_whom_it_waits_for() {
    publisher_asleep(1);
}

#[test]
fn guarded_publisher_asleep_on_the_pages_of_two_whom_it_waits_for() {
    publisher_asleep(2);
}

/// A subscriber is let in and goes to sleep while a publisher publishes that did not know of it.
#[test]
fn guarded_subscriber_asleep_that_was_just_let_in() {
    model(|| {
        let region = region(1);
        let mut ring = publisher(&region);
        let mut pages = Pages::new(&region, Barrier::Fence);
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            publish(&mut ring, &theirs).unwrap();
            pages.ring(&theirs);
        });
        grant(&region, 0, Kind::Lossy);
        let mut reader = lossy(&region, 0, Start::Oldest);
        while reader.position() < 1 {
            if receive(&mut reader, &region).is_none() {
                let bell = region.subscribers_bell(entry(0));
                let look = || !matches!(reader.look(&region), Ok(Next::Empty));
                bell.sleep(Meet::Fence, 0, look);
            }
        }
        feed.join().unwrap();
    });
}

/// A subscriber is let in while a publisher that does not know of it makes its list; then it sleeps. The publisher has not fenced since.
#[test]
fn guarded_subscriber_asleep_that_is_let_in_while_the_list_is_made() {
    model(|| {
        let region = region(1);
        let mut ring = publisher(&region);
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            let mut pages = Pages::new(&theirs, Barrier::Fence);
            publish(&mut ring, &theirs).unwrap();
            pages.ring(&theirs);
        });
        let mut reader = let_in(&region, Kind::Lossy);
        while reader.position() < 1 {
            if receive(&mut reader, &region).is_none() {
                let bell = region.subscribers_bell(entry(0));
                let look = || !matches!(reader.look(&region), Ok(Next::Empty));
                bell.sleep(Meet::Fence, 0, look);
            }
        }
        feed.join().unwrap();
    });
}

/// A client that the broker has let in, on the first page.
fn let_in(region: &Region, kind: Kind) -> Reader {
    let index = entry(0);
    let generation = guard::let_in(region, index, 1, kind, u64::MAX).expect("it is guarded");
    let reader = match kind {
        Kind::Reliable => Reader::attach_reliable(region, index, generation, Start::Newest),
        _ => Reader::attach_lossy(region, index, generation, Start::Newest),
    };
    reader.expect("nothing is corrupt")
}

/// A subscriber is killed in a block that is displaced, and its page is let to the next one, of the same user, while the publisher looks for a block to
/// use again: what the dead one read is written only behind its reads. The kernel orders its death before the broker has its lease.
fn page_let_to_the_next_against_reuse(openings: u32) {
    model(move || {
        let region = region(1);
        let mut ring = publisher(&region);
        for _ in 0..3 {
            publish(&mut ring, &region).unwrap();
        }
        let mut reader = let_in(&region, Kind::Lossy);
        publish(&mut ring, &region).unwrap();
        assert!(matches!(reader.look(&region), Ok(Next::Message(..)))); // pinned
        publish(&mut ring, &region).unwrap();
        publish(&mut ring, &region).unwrap(); // displaced
        let theirs = Arc::clone(&region);
        let next = thread::spawn(move || {
            receive(&mut reader, &theirs).unwrap(); // and is killed
            guard::let_in(&theirs, entry(0), 1, Kind::Lossy, u64::MAX);
        });
        for _ in 0..openings {
            publish(&mut ring, &region).unwrap();
        }
        next.join().unwrap();
    });
}

#[test]
fn guarded_page_let_to_the_next_against_reuse() {
    page_let_to_the_next_against_reuse(1);
}

#[test]
fn guarded_page_let_to_the_next_against_two_reuses() {
    page_let_to_the_next_against_reuse(2);
}

/// A publisher evicts a subscriber by its grant and is killed before it says so in the entry: the next one goes on, and the subscriber finds that it
/// is not reliable any more. It went by its entry alone, and took the block that was reused for a stream that is broken.
#[test]
fn guarded_subscriber_evicted_by_one_that_was_killed_before_it_told() {
    model(|| {
        let region = region(1);
        let mut reader = let_in(&region, Kind::Reliable);
        let mut ring = publisher(&region);
        while publish(&mut ring, &region).is_ok() {}
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            let grant = theirs.grant(entry(0)).expect("the topic is guarded");
            grant.state.store(State { generation: 1, kind: Kind::Lossy }.word(), Relaxed);
            publish(&mut ring, &theirs).unwrap();
        });
        let mut evicted = false;
        for _ in 0..2 {
            evicted |= matches!(reader.next(&region).unwrap(), Next::Evicted);
        }
        feed.join().unwrap();
        for _ in 0..6 {
            evicted |= matches!(reader.next(&region).unwrap(), Next::Evicted);
        }
        assert!(evicted, "it was not told");
    });
}

/// A publisher that has decided to evict a subscriber stands still, and the broker lets the next one in on its page: that one stays reliable.
#[test]
fn guarded_evict_against_the_next_owner() {
    model(|| {
        let region = region(1);
        let first = let_in(&region, Kind::Reliable);
        let mut ring = publisher(&region);
        while publish(&mut ring, &region).is_ok() {}
        let number = region.geometry().number(ring.sequence());
        let theirs = Arc::clone(&region);
        let waiting = thread::spawn(move || {
            for who in table::who_forbids(&theirs, number) {
                guard::evict(&theirs, who.index, who.generation);
            }
        });
        drop(first); // and is gone
        let generation = guard::let_in(&region, entry(0), 1, Kind::Reliable, u64::MAX);
        waiting.join().unwrap();
        // (Loom may show the first owner's eviction: to it, a store that follows another thread's exchange need not come after it.)
        let now = region.grant(entry(0)).expect("it is guarded").state.load(Relaxed);
        let lossy = State { generation: generation.expect("it is guarded"), kind: Kind::Lossy };
        assert_ne!(State::of(now), lossy, "the next owner was evicted");
    });
}
