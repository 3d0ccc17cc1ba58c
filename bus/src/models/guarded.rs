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
use crate::ring::reader::{Next, Start};

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
