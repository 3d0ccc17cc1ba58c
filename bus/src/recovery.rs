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

/// Makes lossy the reliable subscribers that keep the block of the head from being opened and whose patience is shorter than what a
/// publisher has waited. How many there were.
pub(crate) fn evict(region: &Region, waited_ns: u64) -> u32 {
    let number = region.geometry().number(region.head().load(Acquire)); // [stream position]
    let mut evicted = 0;
    for index in table::who_forbids(region, number) {
        let patience_ns = region.entry(index).patience_ns.load(Acquire); // [entry]
        if patience_ns != 0 && waited_ns >= patience_ns && registry::evict(region, index) {
            evicted += 1;
        }
    }
    evicted
}
