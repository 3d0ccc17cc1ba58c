//! Loom models of observers, on the code that ships. As the others, but the payload is atomic: an observer copies it while it may be
//! written, and throws the copy away. So a model fails by what a copy says, not by a race that loom reports.

use loom::sync::Arc;
use loom::thread;

use crate::atomics::*;
use crate::region::{EntryIndex, Region};
use crate::registry::{self, Kind};
use crate::ring::exclusive::ExclusiveRing;
use crate::ring::reader::Start;
use crate::ring::shared::SharedRing;
use crate::ring::watcher::{Seen, Watcher};
use crate::ring::{Geometry, SlotAt};

/// A topic of two blocks, with `shared` publishers, or with one where that is 0. There are no subscribers.
fn region(block_len: u64, shared: u32) -> Arc<Region> {
    Arc::new(Region::new(Geometry {
        block_len,
        blocks: 2,
        spares: 2 * shared + 1,
        slot_size: 64,
        payload_offset: 16,
        payload_max: 8,
        publishers_max: shared.max(1),
        subscribers_max: 0,
        hold_blocks: 0,
        shared: shared > 0,
        timestamp: false,
        guarded: false,
        schema_len: 0,
    }))
}

fn content(sequence: u64) -> u64 {
    100 + sequence
}

fn write(region: &Region, at: SlotAt, sequence: u64) {
    region.slot(at).words[0].store(content(sequence), Relaxed);
}

/// As `Publisher::publish`, without the bell, whose fence would hide missing ones.
fn publish(ring: &mut ExclusiveRing, region: &Region) {
    let place =
        ring.place(region).unwrap_or_else(|| ring.open(region).expect("nobody is waited for"));
    write(region, place.at, ring.sequence());
    ring.commit(region, place, 8, None);
}

fn publisher(region: &Region) -> ExclusiveRing {
    ExclusiveRing::take_over(region).expect("nothing is corrupt")
}

fn publish_shared(ring: &mut SharedRing, region: &Region) {
    let claim = ring.claim(region).expect("nobody is waited for");
    write(region, claim.slot, claim.sequence);
    ring.commit(region, claim, 8, None).expect("nobody revokes");
}

fn shared_publisher(region: &Region, n: u32) -> SharedRing {
    let index = EntryIndex(n);
    let generation = registry::occupy(region, index);
    registry::activate(region, index, generation, Kind::Publisher);
    SharedRing::new(region, index)
}

/// One look: a message has the right content and comes next, and what is missed is counted. Whether it found something.
fn see(watcher: &mut Watcher, region: &Region) -> bool {
    let (position, before) = (watcher.position(), watcher.skipped());
    match watcher.next(region).expect("nothing is corrupt") {
        Seen::Message(copied) => {
            assert_eq!((copied.sequence, copied.len), (position, 8));
            assert_eq!(watcher.words(), [content(position)], "another message's content");
            assert_eq!((watcher.position(), watcher.skipped()), (position + 1, before));
            true
        }
        Seen::Again => {
            let now = watcher.skipped();
            let skipped = now.missed + now.abandoned - before.missed - before.abandoned;
            assert_eq!(watcher.position() - position, skipped);
            true
        }
        Seen::Empty => false,
    }
}

fn watcher(region: &Region) -> Watcher {
    Watcher::begin(region, Start::Oldest).expect("nothing is corrupt")
}

/// To the end of the stream, when it stands still.
fn drain(watcher: &mut Watcher, region: &Region, end: u64) {
    while see(watcher, region) {}
    assert_eq!(watcher.position(), end);
}

fn model(f: impl Fn() + Send + Sync + 'static) {
    loom::model::Builder::new().check(f);
}

/// An observer in a block that is displaced and written again under it.
fn observe_against_reuse_of(block_len: u64, before: u64, during: u64) {
    model(move || {
        let region = region(block_len, 0);
        let mut ring = publisher(&region);
        for _ in 0..before {
            publish(&mut ring, &region);
        }
        let mut watcher = watcher(&region);
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            for _ in 0..during {
                publish(&mut ring, &theirs);
            }
        });
        see(&mut watcher, &region);
        see(&mut watcher, &region);
        feed.join().unwrap();
        drain(&mut watcher, &region, before + during);
    });
}

#[test]
fn observe_against_reuse() {
    observe_against_reuse_of(1, 2, 2);
    observe_against_reuse_of(1, 2, 3);
}

#[test]
fn observe_against_reuse_of_blocks_of_two() {
    observe_against_reuse_of(2, 3, 4);
}

#[test]
fn observe_against_publish() {
    model(|| {
        let region = region(2, 0);
        let mut watcher = watcher(&region);
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            let mut ring = publisher(&theirs);
            for _ in 0..3 {
                publish(&mut ring, &theirs);
            }
        });
        for _ in 0..3 {
            see(&mut watcher, &region);
        }
        feed.join().unwrap();
        drain(&mut watcher, &region, 3);
        assert_eq!(watcher.skipped().missed, 0);
    });
}

/// A publisher opens the block that was displaced last and dies; its successor is the first who writes there, and has opened nothing.
#[test]
fn observe_against_takeover() {
    model(|| {
        let region = region(1, 0);
        let mut ring = publisher(&region);
        for _ in 0..2 {
            publish(&mut ring, &region);
        }
        let mut watcher = watcher(&region);
        let theirs = Arc::clone(&region);
        let first = thread::spawn(move || {
            publish(&mut ring, &theirs); // displaces block 0
            ring.open(&theirs).expect("nobody is waited for"); // in its place
        });
        let theirs = Arc::clone(&region);
        let second = thread::spawn(move || {
            first.join().unwrap();
            publish(&mut publisher(&theirs), &theirs);
        });
        see(&mut watcher, &region);
        second.join().unwrap();
        drain(&mut watcher, &region, 4);
    });
}

/// The first who writes into a block that was reused is a shared publisher, and another one opened it.
#[test]
fn observe_against_a_block_that_another_opened() {
    model(|| {
        let region = region(2, 2);
        let mut rings = [shared_publisher(&region, 0), shared_publisher(&region, 1)];
        for _ in 0..4 {
            publish_shared(&mut rings[0], &region);
        }
        let mut watcher = watcher(&region);
        see(&mut watcher, &region);
        // The physical block of block 0 is displaced by block 2 and has block 3 next, whose second sequence is the other's.
        let theirs = Arc::clone(&region);
        let [mut opens, mut writes] = rings;
        let first = thread::spawn(move || {
            for _ in 0..3 {
                publish_shared(&mut opens, &theirs);
            }
        });
        let theirs = Arc::clone(&region);
        let second = thread::spawn(move || {
            first.join().unwrap();
            publish_shared(&mut writes, &theirs);
        });
        see(&mut watcher, &region);
        second.join().unwrap();
        drain(&mut watcher, &region, 8);
    });
}

#[test]
fn observe_what_is_abandoned() {
    model(|| {
        let region = region(2, 1);
        let mut ring = shared_publisher(&region, 0);
        let mut watcher = watcher(&region);
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            let claim = ring.claim(&theirs).expect("nobody is waited for");
            write(&theirs, claim.slot, claim.sequence);
            ring.abandon(&theirs, claim);
            publish_shared(&mut ring, &theirs);
        });
        see(&mut watcher, &region);
        see(&mut watcher, &region);
        feed.join().unwrap();
        drain(&mut watcher, &region, 2);
        assert_eq!((watcher.skipped().missed, watcher.skipped().abandoned), (0, 1));
    });
}
