//! Loom models of the code that ships: the same ring, registry and bell, on loom's atomics.
//!
//! Run with `ci/loom`, which repairs loom first: as published, 0.7.2 remembers only the last access to an atomic, so that a
//! thread that loads a word before it exchanges it hides another thread's earlier load. Bounds: two live blocks (more add states, not
//! cases: what matters is whether a block is displaced), blocks of one or two messages, two or three threads, and the number of
//! preemptions that `ci/loom` states. The bell is off in models that are not about waking, because its fence would hide missing
//! ones elsewhere (as in the build with `membarrier`). `ci/mutate` weakens each ordering in turn and sees one of these fail.
#![allow(unsafe_code)] // the models' payload is loom's UnsafeCell, which reports unsynchronised access

mod entries;
mod guarded;
mod hold;
mod joins;
mod lock;
mod observer;
mod primitives;
mod reliable;
mod repair;
mod reuse;
mod shared;
mod sleep;
mod stuck;
mod sync;
mod takeover;

use loom::sync::Arc;

use crate::crash;
use crate::region::{EntryIndex, Region};
use crate::registry::{self, Kind};
use crate::ring::exclusive::{Blocked, ExclusiveRing};
use crate::ring::reader::{Next, Reader, Start};
use crate::ring::shared::{Claim, Owner, Revoked, SharedRing, settle};
use crate::ring::skips::Skipped;
use crate::ring::{Block, Geometry, SlotAt};

/// A topic with one publisher. `spares` is one more than the pins that can exist at once, as `Geometry::new` computes it.
fn region(block_len: u64, subscribers_max: u32, hold_blocks: u32) -> Arc<Region> {
    region_of(block_len, 0, subscribers_max, hold_blocks)
}

/// A topic with `shared` publishers, or with one where that is 0.
fn region_of(block_len: u64, shared: u32, subscribers_max: u32, hold_blocks: u32) -> Arc<Region> {
    Arc::new(Region::new(geometry(block_len, shared, subscribers_max, hold_blocks)))
}

fn geometry(block_len: u64, shared: u32, subscribers_max: u32, hold_blocks: u32) -> Geometry {
    Geometry {
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
        guarded: false,
        schema_len: 0,
    }
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
    let place = match ring.place(region) {
        Some(place) => place,
        None => ring.open(region)?,
    };
    let value = content(ring.sequence());
    // SAFETY: loom checks that nobody else accesses the cell meanwhile.
    region.slot(place.at).payload.with_mut(|payload| unsafe { *payload = value });
    crash::point("publish.written");
    Ok(ring.commit(region, place, 8, None))
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
    let (position, skipped) = (reader.position(), skipped(reader));
    match reader.next(region).expect("nothing is corrupt") {
        Next::Message(at, sequence) => {
            assert_eq!(sequence, position);
            assert_eq!(payload(region, at), content(sequence), "another message's content");
            Some((at, sequence))
        }
        Next::Again => {
            assert_eq!(reader.position() - position, self::skipped(reader) - skipped);
            None
        }
        Next::Empty | Next::Evicted => None,
    }
}

/// What a reader went past without a message.
fn skipped(reader: &Reader) -> u64 {
    let Skipped { missed, abandoned } = reader.skipped();
    missed + abandoned
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
