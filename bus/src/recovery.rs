//! What is done for the dead, and for those who let others wait: their entries stop counting.
//!
//! Alive or dead is asked of the kernel (is the entry's lease held?), never of a clock or a process id. Every step
//! can be done twice, by several at once, and stopped anywhere. A dead publisher needs nothing here: its successor
//! takes over from the ring itself (`ExclusiveRing::take_over`).

use crate::atomics::{Acquire, SeqCst, fence};
use crate::region::{EntryIndex, Region};
use crate::registry::{self, State};
use crate::ring::table;

/// Declares the owners of `entries` dead whose lease `is_held` denies. How many there were.
///
/// `is_held` is asked only about entries that count; it must answer true for the caller's own ones, of whose leases the
/// kernel tells it nothing. Publishers that wait are told.
pub(crate) fn sweep(
    region: &Region,
    entries: impl Iterator<Item = EntryIndex>,
    mut is_held: impl FnMut(EntryIndex) -> bool,
) -> u32 {
    let mut swept = 0;
    for index in entries {
        let seen = State::of(region.entry(index).state.load(Acquire)); // [entry]: before the lease is asked for
        if seen.kind.is_active() && !is_held(index) && registry::declare_dead(region, index, seen) {
            swept += 1;
        }
    }
    if swept > 0 {
        fence(SeqCst); // [cursor/publisher]
        region.control().publishers_bell.0.ring_after_fence();
    }
    swept
}

/// Who has been in one publisher's way, and since when.
pub(crate) struct InTheWay {
    since: Vec<(EntryIndex, u64, u64)>,
}

impl InTheWay {
    pub(crate) fn nobody() -> InTheWay {
        InTheWay { since: Vec::new() }
    }

    /// Looks who keeps the block of the head from being opened, and makes those lossy whose cursor has stood still there for longer than
    /// they asked for. How many there were.
    ///
    /// A cursor that is in the way now and stands where it stood when it was seen before was in the way all the time. Who waits for a
    /// shared publisher's claim has nothing to receive: its time begins again.
    pub(crate) fn evict(&mut self, region: &Region, now_ns: u64) -> u32 {
        let number = region.geometry().number(region.head().load(Acquire)); // [stream position]
        let before = core::mem::take(&mut self.since);
        let mut evicted = 0;
        for index in table::who_forbids(region, number) {
            let entry = region.entry(index);
            let cursor = entry.cursor.load(Acquire); // [cursor]
            let known = before.iter().find(|(other, seen, _)| *other == index && *seen == cursor);
            let since_ns = match known {
                Some((_, _, since_ns)) if !is_claimed(region, cursor) => *since_ns,
                _ => now_ns,
            };
            let patience_ns = entry.patience_ns.load(Acquire); // [entry]
            if patience_ns != 0
                && now_ns.saturating_sub(since_ns) >= patience_ns
                && registry::evict(region, index)
            {
                evicted += 1;
            } else {
                self.since.push((index, cursor, since_ns));
            }
        }
        evicted
    }
}

/// Whether a shared publisher has claimed a sequence of the block that begins at or holds `cursor`, and not committed it.
fn is_claimed(region: &Region, cursor: u64) -> bool {
    let geometry = region.geometry();
    geometry.shared
        && region.publishers().any(|index| {
            let claim = region.entry(index).claim.load(Acquire); // [claim]
            claim.checked_sub(1).is_some_and(|claim| {
                claim >= cursor && geometry.number(claim) == geometry.number(cursor)
            })
        })
}
