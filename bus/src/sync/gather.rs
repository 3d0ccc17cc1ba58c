//! Who has arrived at a barrier: see `barrier.rs`.
//!
//! ```text
//! value:   generation << 32 | BROKEN | arrived       one word, so that who passes was counted and who is counted passes
//! arrive:  own cell = generation; arrived + 1, or, as the last one, generation + 1 and 0: the leader; then sleep until the generation changes
//! expire:  arrived - 1
//! death:   BROKEN, in this generation, whether or not the dead had arrived
//! reset:   BROKEN; each member's cell of this generation: BROKEN; generation + 1 and 0
//! ```
//!
//! Who finds the generation changed has passed, unless its cell says BROKEN: then it was reset.

use crate::atomics::{AcqRel, Acquire, Relaxed, Release, now_ns};
use crate::crash;
use crate::region::EntryIndex;
use crate::registry::{Kind, State};
use crate::sync::region::SyncRegion;
use crate::sync::seat::Seat;
use crate::sync::turn;
use crate::sync::wait::{Vigil, is_retired};

const BROKEN: u64 = 1 << 31;
const COUNT: u64 = BROKEN - 1;
const GENERATION: u64 = 1 << 32;
/// The cell of a member's last arrival: `generation << 32 | BROKEN | 1`.
const ARRIVAL: usize = 0;

/// What a wait came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gathered {
    /// All have arrived; one of them, the last, leads.
    Passed {
        leader: bool,
    },
    Broken,
    TimedOut,
    Removed,
}

/// The next generation, unbroken, with nobody there.
fn next(value: u64) -> u64 {
    (value & !(GENERATION - 1)).wrapping_add(GENERATION)
}

/// Waits for `parties` to have arrived, of which the caller is one, until `deadline_ns`.
pub(crate) fn wait(seat: &Seat, parties: u64, deadline_ns: u64) -> Gathered {
    let region = &*seat.region;
    let value = &region.control().main.0.value;
    let cell = &region.entry(seat.index).cells[ARRIVAL];
    // Who died and is not buried is not to be counted as one that has come.
    seat.bury_the_dying();
    let generation = loop {
        let seen = value.load(Acquire); // [gathered]
        if seen & BROKEN != 0 {
            return Gathered::Broken;
        }
        if is_retired(region) {
            return Gathered::Removed;
        }
        let generation = seen & !(GENERATION - 1);
        cell.store(generation | 1, Relaxed); // shown by the exchange
        crash::point("sync.barrier.said");
        let is_last = (seen & COUNT) + 1 >= parties;
        let arrived = if is_last { next(seen) } else { seen + 1 };
        // [gathered]: who passes: what all did before they arrived
        if value.compare_exchange(seen, arrived, AcqRel, Relaxed).is_err() {
            continue;
        }
        crash::point("sync.barrier.arrived");
        if is_last {
            turn::change(region, true);
            return Gathered::Passed { leader: true };
        }
        break generation;
    };
    let mut vigil = Vigil::new(seat);
    loop {
        let expected = turn::expect(region);
        let seen = value.load(Acquire); // [gathered]
        if seen & !(GENERATION - 1) != generation {
            let reset = cell.load(Relaxed) & BROKEN != 0; // the value acquires
            return if reset { Gathered::Broken } else { Gathered::Passed { leader: false } };
        }
        if seen & BROKEN != 0 {
            return Gathered::Broken;
        }
        let vain = match now_ns() >= deadline_ns {
            _ if is_retired(region) => Some(Gathered::Removed),
            true => Some(Gathered::TimedOut),
            false => None,
        };
        if let Some(vain) = vain {
            let less = seen - u64::from(seen & COUNT > 0);
            // No order: who gives up shows nothing and reads nothing, and what the others released stays released.
            if value.compare_exchange(seen, less, Relaxed, Relaxed).is_ok() {
                return vain;
            }
            continue;
        }
        vigil.sleep(&region.control().turn.0, expected, deadline_ns);
    }
}

/// Has those who wait go, with nothing, and begins anew.
pub(crate) fn reset(region: &SyncRegion) {
    let value = &region.control().main.0.value;
    let mut seen = value.fetch_or(BROKEN, Acquire) | BROKEN; // [gathered]: the cells of those who have arrived
    crash::point("sync.barrier.broken");
    let generation = seen & !(GENERATION - 1);
    let mark = region.control().roster.0.word().load(Relaxed) & 0xff;
    for index in region.entries(mark) {
        let arrival = &region.entry(index).cells[ARRIVAL];
        let (here, gone) = (generation | 1, generation | BROKEN | 1);
        let _ = arrival.compare_exchange(here, gone, Relaxed, Relaxed); // shown by the value
    }
    crash::point("sync.barrier.told");
    // Another one may reset it at the same time: once is enough.
    while seen & !(GENERATION - 1) == generation {
        // [gathered]
        match value.compare_exchange(seen, next(seen), Release, Relaxed) {
            Ok(_) => break,
            Err(now) => seen = now,
        }
    }
    turn::change(region, true);
}

/// Whether it is broken.
pub(crate) fn is_broken(region: &SyncRegion) -> bool {
    region.control().main.0.value.load(Relaxed) & BROKEN != 0
}

/// How many have arrived, as one who looks on sees it.
#[cfg(not(loom))]
pub(crate) fn arrived(region: &SyncRegion) -> u32 {
    (region.control().main.0.value.load(Relaxed) & COUNT) as u32
}

/// Of one that is dead: nobody knows whether it would have come. Who leaves has not arrived.
pub(crate) fn give_back(region: &SyncRegion, index: EntryIndex, _: u64) -> bool {
    let state = State::of(region.entry(index).state.load(Relaxed));
    if state.kind != Kind::Dead {
        return false;
    }
    region.control().main.0.value.fetch_or(BROKEN, Relaxed); // who finds it broken leaves with nothing
    crash::point("sync.barrier.given_back");
    turn::change(region, true);
    true
}
