//! Loom models of the code that ships: the same ring, registry and bell, on loom's atomics.
//!
//! Run with `ci/loom`, which repairs loom first: as published, 0.7.2 remembers only the last access to an atomic, so that a
//! thread that loads a word before it exchanges it hides another thread's earlier load. Bounds: two live blocks (more add states, not
//! cases: what matters is whether a block is displaced), blocks of one or two messages, two or three threads, and the number of
//! preemptions that `ci/loom` states. The bell is off in models that are not about waking, because its fence would hide missing
//! ones elsewhere (as in the build with `membarrier`). `ci/mutate` weakens each ordering in turn and sees one of these fail.
#![allow(unsafe_code)] // the models' payload is loom's UnsafeCell, which reports unsynchronised access

use loom::sync::Arc;
use loom::thread;

use crate::bell::{Barrier, Meet};
use crate::crash;
use crate::region::{EntryIndex, Region};
use crate::registry::{self, Kind, State};
use crate::ring::exclusive::{Blocked, ExclusiveRing};
use crate::ring::hold::Holds;
use crate::ring::reader::{Next, Reader, Start};
use crate::ring::shared::{Claim, Owner, Revoked, SharedRing, settle};
use crate::ring::{Block, Geometry, SlotAt};
use crate::{atomics::*, recovery};

/// A topic with one publisher. `spares` is one more than the pins that can exist at once, as `Geometry::new` computes it.
fn region(block_len: u64, subscribers_max: u32, hold_blocks: u32) -> Arc<Region> {
    region_of(block_len, 0, subscribers_max, hold_blocks)
}

/// A topic with `shared` publishers, or with one where that is 0.
fn region_of(block_len: u64, shared: u32, subscribers_max: u32, hold_blocks: u32) -> Arc<Region> {
    Arc::new(Region::new(Geometry {
        block_len,
        blocks: 2,
        spares: subscribers_max + hold_blocks + 2 * shared + 1,
        slot_size: 64,
        payload_offset: 16,
        payload_max: 8,
        publishers_max: shared.max(1),
        subscribers_max,
        hold_blocks,
        shared: shared > 0,
        timestamp: false,
    }))
}

/// Entry of subscriber `n`.
fn entry(n: u32) -> EntryIndex {
    EntryIndex(1 + n)
}

fn content(sequence: u64) -> u64 {
    100 + sequence
}

fn publisher(region: &Region) -> ExclusiveRing {
    ExclusiveRing::take_over(region).expect("nothing is corrupt")
}

/// As `Publisher::publish`, without the bell.
fn publish(ring: &mut ExclusiveRing, region: &Region) -> Result<u64, Blocked> {
    let at = match ring.slot() {
        Some(at) => at,
        None => ring.open(region)?,
    };
    let value = content(ring.sequence());
    // SAFETY: loom checks that nobody else accesses the cell meanwhile.
    region.slot(at).payload.with_mut(|payload| unsafe { *payload = value });
    crash::point("publish.written");
    Ok(ring.commit(region, 8, None))
}

fn payload(region: &Region, at: SlotAt) -> u64 {
    // SAFETY: loom checks that nobody writes the cell meanwhile.
    region.slot(at).payload.with(|payload| unsafe { *payload })
}

fn block_of(region: &Region, at: SlotAt) -> Block {
    region.geometry().block_of(at)
}

fn lossy(region: &Region, n: u32, start: Start) -> Reader {
    let generation = registry::occupy(region, entry(n));
    Reader::attach_lossy(region, entry(n), generation, start).expect("nothing is corrupt")
}

fn reliable(region: &Region, n: u32) -> Reader {
    let generation = registry::occupy(region, entry(n));
    Reader::attach_reliable(region, entry(n), generation, Start::Newest)
        .expect("nothing is corrupt")
}

/// One look: a message has the right content and comes next, and what is missed is counted.
fn receive(reader: &mut Reader, region: &Region) -> Option<(SlotAt, u64)> {
    let (position, missed) = (reader.position(), reader.missed());
    match reader.next(region).expect("nothing is corrupt") {
        Next::Message(at, sequence) => {
            assert_eq!(sequence, position);
            assert_eq!(payload(region, at), content(sequence), "another message's content");
            Some((at, sequence))
        }
        Next::Again => {
            assert_eq!(reader.position() - position, reader.missed() - missed);
            None
        }
        Next::Empty | Next::Evicted => None,
    }
}

/// Receives to the end of the stream.
fn drain(reader: &mut Reader, region: &Region) {
    for _ in 0..10 {
        receive(reader, region);
    }
}

fn model(f: impl Fn() + Send + Sync + 'static) {
    loom::model::Builder::new().check(f);
}

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
        assert_eq!((reader.position(), reader.missed()), (3, 0));
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
        assert_eq!((reader.position(), reader.missed()), (end, 0));
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

/// Receives `count` messages, asleep whenever there is none. A lost wake-up is a deadlock.
fn receive_asleep(reader: &mut Reader, region: &Region, n: u32, count: u64) {
    while reader.position() < count {
        if receive(reader, region).is_none() {
            region
                .control()
                .subscribers_bell
                .0
                .sleep(n, Meet::Fence, 0, || !matches!(reader.look(region), Ok(Next::Empty)));
        }
    }
}

#[test]
fn sleep_against_wake() {
    model(|| {
        let region = region(2, 1, 0);
        let mut reader = lossy(&region, 0, Start::Newest);
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            let mut ring = publisher(&theirs);
            for _ in 0..2 {
                publish(&mut ring, &theirs).unwrap();
                theirs.control().subscribers_bell.0.ring(Barrier::Fence);
            }
        });
        receive_asleep(&mut reader, &region, 0, 2);
        feed.join().unwrap();
    });
}

#[test]
fn two_sleepers_against_wake() {
    model(|| {
        let region = region(2, 2, 0);
        let sleepers = [0, 1].map(|n| {
            let mut reader = lossy(&region, n, Start::Newest);
            let theirs = Arc::clone(&region);
            thread::spawn(move || receive_asleep(&mut reader, &theirs, n, 1))
        });
        let mut ring = publisher(&region);
        publish(&mut ring, &region).unwrap();
        region.control().subscribers_bell.0.ring(Barrier::Fence);
        for sleeper in sleepers {
            sleeper.join().unwrap();
        }
    });
}

#[test]
fn publisher_asleep_against_the_cursor_it_waits_for() {
    model(|| {
        let region = region(1, 1, 0);
        let mut reader = reliable(&region, 0);
        let mut ring = publisher(&region);
        publish(&mut ring, &region).unwrap();
        publish(&mut ring, &region).unwrap();
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            while let Err(blocked) = publish(&mut ring, &theirs) {
                assert_eq!(blocked, Blocked::Full);
                let bell = &theirs.control().publishers_bell.0;
                bell.sleep(0, Meet::Fence, 0, || ring.may_go_on(&theirs));
            }
        });
        for _ in 0..2 {
            receive(&mut reader, &region);
        }
        feed.join().unwrap();
        drain(&mut reader, &region);
        assert_eq!(reader.position(), 3);
    });
}

/// Entry of subscriber 0 where `publishers` are shared.
fn reader_of(region: &Region) -> EntryIndex {
    EntryIndex(region.geometry().publishers_max)
}

fn shared_publisher(region: &Region, n: u32) -> SharedRing {
    let generation = registry::occupy(region, EntryIndex(n));
    registry::activate(region, EntryIndex(n), generation, Kind::Publisher);
    SharedRing::new(region, EntryIndex(n))
}

fn shared_lossy(region: &Region) -> Reader {
    let index = reader_of(region);
    let generation = registry::occupy(region, index);
    Reader::attach_lossy(region, index, generation, Start::Newest).expect("nothing is corrupt")
}

fn write(region: &Region, claim: Claim) {
    let value = content(claim.sequence);
    // SAFETY: loom checks that nobody else accesses the cell meanwhile.
    region.slot(claim.slot).payload.with_mut(|payload| unsafe { *payload = value });
}

/// As `Publisher::publish` on a shared topic, without the bell. `None` where there is no room.
fn publish_shared(ring: &mut SharedRing, region: &Region) -> Option<u64> {
    for _ in 0..3 {
        let claim = match ring.claim(region) {
            Ok(claim) => claim,
            Err(Blocked::Full) => return None,
            Err(blocked) => panic!("{blocked:?}"),
        };
        write(region, claim);
        crash::point("shared.written");
        match ring.commit(region, claim, 8, None) {
            Ok(sequence) => return Some(sequence),
            Err(Revoked) => {}
        }
    }
    None
}

/// Receives what there is to the end; what is stuck behind `gone` publishers, or behind all where `revoke`, is settled.
fn drain_shared(
    reader: &mut Reader,
    region: &Region,
    looks: usize,
    revoke: bool,
    gone: impl Fn(EntryIndex) -> bool,
) -> Vec<u64> {
    let mut received = Vec::new();
    for _ in 0..looks {
        if let Some((_, sequence)) = receive(reader, region) {
            received.push(sequence);
        } else if let Some(at) = reader.stuck_at(region) {
            settle(region, reader.position(), at, revoke, |index| {
                if gone(index) { Owner::IsGone } else { Owner::Lives }
            });
        }
    }
    received
}

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
        assert_eq!(received.len() as u64 + reader.missed(), before + 2);
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

/// A publisher is killed at a point while another one and a reader go on: nobody is stuck, and what was committed is received.
fn shared_publisher_killed(point: &'static str) {
    model(move || {
        let region = region_of(2, 2, 1, 0);
        let mut reader = shared_lossy(&region);
        let mut a = shared_publisher(&region, 0);
        let mut b = shared_publisher(&region, 1);
        let theirs = Arc::clone(&region);
        let victim = thread::spawn(move || {
            crash::killed_at(point, || publish_shared(&mut a, &theirs));
        });
        let mine = publish_shared(&mut b, &region).unwrap();
        let mut received = drain_shared(&mut reader, &region, 2, false, |_| false);
        victim.join().unwrap(); // the kernel says so
        received.extend(drain_shared(&mut reader, &region, 5, false, |index| index.0 == 0));
        assert_eq!(reader.position(), region.head().load(Acquire), "stuck behind the dead");
        assert!(received.contains(&mine), "a committed message was lost");
    });
}

#[test]
fn shared_publisher_killed_with_a_claim_shown() {
    shared_publisher_killed("claim.shown");
}

#[test]
fn shared_publisher_killed_with_a_sequence_taken() {
    shared_publisher_killed("claim.taken");
}

#[test]
fn shared_publisher_killed_with_a_payload_written() {
    shared_publisher_killed("shared.written");
}

#[test]
fn shared_publisher_killed_with_a_message_committed() {
    shared_publisher_killed("commit.exchanged");
}

#[test]
fn shared_publisher_killed_with_a_block_opened() {
    shared_publisher_killed("open.exchanged");
}

/// Revocation comes at any moment of a publish: the message is received once, at this sequence or at another.
#[test]
fn revoke_against_commit() {
    model(|| {
        let region = region_of(2, 1, 1, 0);
        let mut reader = shared_lossy(&region);
        let mut a = shared_publisher(&region, 0);
        let theirs = Arc::clone(&region);
        let slow = thread::spawn(move || publish_shared(&mut a, &theirs));
        let mut received = drain_shared(&mut reader, &region, 2, true, |_| false);
        let published = slow.join().unwrap();
        received.extend(drain_shared(&mut reader, &region, 4, true, |_| false));
        assert_eq!(received, Vec::from_iter(published));
    });
}

/// A living publisher's claim is never taken for a dead one's: without a time-out nothing is revoked.
#[test]
fn claim_against_abandon() {
    model(|| {
        let region = region_of(2, 1, 1, 0);
        let mut reader = shared_lossy(&region);
        let mut a = shared_publisher(&region, 0);
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            for expected in 0..2 {
                assert_eq!(
                    publish_shared(&mut a, &theirs),
                    Some(expected),
                    "a living claim was abandoned"
                );
            }
        });
        drain_shared(&mut reader, &region, 3, false, |_| false);
        feed.join().unwrap();
        drain_shared(&mut reader, &region, 3, false, |_| false);
        assert_eq!((reader.position(), reader.missed()), (2, 0));
    });
}

/// Two that are stuck at the same sequence settle it, while its owner may still commit.
#[test]
fn settle_against_settle_and_commit() {
    model(|| {
        let region = region_of(2, 1, 1, 0);
        let mut a = shared_publisher(&region, 0);
        let claim = a.claim(&region).unwrap();
        let settlers = [(); 2].map(|()| {
            let theirs = Arc::clone(&region);
            thread::spawn(move || {
                settle(&theirs, claim.sequence, claim.slot, true, |_| Owner::Lives)
            })
        });
        write(&region, claim);
        let committed = a.commit(&region, claim, 8, None).is_ok();
        for settler in settlers {
            assert!(settler.join().unwrap());
        }
        let stamp = region.slot(claim.slot).stamp.load(Acquire);
        assert_eq!(stamp == crate::ring::message_stamp(0), committed);
    });
}

/// Who settles is killed between its decision and its exchange: the next one settles.
#[test]
fn settler_killed_with_its_decision_made() {
    model(|| {
        let region = region_of(2, 2, 1, 0);
        let mut a = shared_publisher(&region, 0);
        let claim = a.claim(&region).unwrap(); // and is killed
        let theirs = Arc::clone(&region);
        let gone = |_| Owner::IsGone;
        let victim = thread::spawn(move || {
            crash::killed_at("abandon.decided", || {
                settle(&theirs, claim.sequence, claim.slot, false, gone)
            })
        });
        let mut b = shared_publisher(&region, 1);
        publish_shared(&mut b, &region).unwrap();
        assert!(settle(&region, claim.sequence, claim.slot, false, gone));
        assert_ne!(victim.join().unwrap(), Some(false)); // killed, or too late
        let stamp = region.slot(claim.slot).stamp.load(Acquire);
        assert_eq!(stamp, crate::ring::abandoned_stamp(claim.sequence));
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
            let mut in_the_way = recovery::InTheWay::nobody();
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

/// A publisher asleep, waiting for a reliable subscriber that is dead: whoever declares it dead wakes it.
#[test]
fn publisher_asleep_against_the_sweep_of_whom_it_waits_for() {
    model(|| {
        let region = region(1, 1, 0);
        drop(reliable(&region, 0));
        let mut ring = publisher(&region);
        publish(&mut ring, &region).unwrap();
        publish(&mut ring, &region).unwrap();
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            while let Err(blocked) = publish(&mut ring, &theirs) {
                assert_eq!(blocked, Blocked::Full);
                let bell = &theirs.control().publishers_bell.0;
                bell.sleep(0, Meet::Fence, 0, || ring.may_go_on(&theirs));
            }
        });
        assert_eq!(recovery::sweep(&region, region.subscribers(), |_| false), 1);
        feed.join().unwrap();
    });
}

/// Whoever skips to the newest message finds it there.
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
        reader.skip_to_newest(&region);
        if reader.position() > position {
            assert!(receive(&mut reader, &region).is_some(), "the newest message is not there");
        }
        feed.join().unwrap();
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
        reader.skip_to_newest(&region);
        if reader.position() > 0 {
            assert!(receive(&mut reader, &region).is_some(), "the newest message is not there");
        }
        feeds.join().unwrap();
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
