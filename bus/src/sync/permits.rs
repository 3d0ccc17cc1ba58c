//! The permits of a semaphore: see `semaphore.rs`.
//!
//! ```text
//! total:    in `value`                      posts add to it; a permit that is consumed is taken off
//! held:     in each member's first cell     written by the member alone, and set to 0 when it is buried
//! value:    total - sum of all held         nowhere stored, so that nothing has to be put right when somebody dies
//! acquire:  lock; value above 0? own held + 1; unlock          so that two do not take the same permit
//! release:  own held - 1; change
//! consume:  total - 1; own held - 1                            killed in between it is consumed all the same
//! ```

use crate::atomics::{Acquire, Relaxed, Release, now_ns};
use crate::crash;
use crate::region::EntryIndex;
use crate::sync::lock::{self, Step};
use crate::sync::region::SyncRegion;
use crate::sync::seat::Seat;
use crate::sync::turn;
use crate::sync::wait::{Vigil, is_retired};

/// The cell of a member's permits.
const HELD: usize = 0;
/// How long who does not wait waits for the lock inside, whose owner is between two of its instructions.
const MOMENT_NS: u64 = 1_000_000;

/// What asking for a permit came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Granted,
    None,
    TimedOut,
    Removed,
}

/// The permits that nobody has.
pub(crate) fn value(region: &SyncRegion) -> u64 {
    let mark = region.control().roster.0.word().load(Relaxed) & 0xff;
    // [permit]: who sees a permit given back: what its last holder did before
    let held = |index| region.entry(index).cells[HELD].load(Acquire);
    let held = region.entries(mark).fold(0u64, |sum, index| sum.saturating_add(held(index)));
    let total = region.control().main.0.value.load(Acquire); // [permit]
    total.saturating_sub(held)
}

/// The permits that a member has, as one who looks on sees it.
#[cfg(not(loom))]
pub(crate) fn held(region: &SyncRegion, index: EntryIndex) -> u64 {
    region.entry(index).cells[HELD].load(Relaxed)
}

/// Takes a permit if there is one, also one of the dead.
pub(crate) fn try_acquire(seat: &Seat, now_ns: u64) -> Asked {
    let deadline_ns = now_ns.saturating_add(MOMENT_NS);
    let asked = ask(seat, deadline_ns);
    if asked != Asked::None {
        return asked;
    }
    if seat.bury_the_dying() {
        return ask(seat, deadline_ns);
    }
    Asked::None
}

/// Takes a permit; waits until there is one, or until `deadline_ns`.
pub(crate) fn acquire(seat: &Seat, deadline_ns: u64) -> Asked {
    match ask(seat, deadline_ns) {
        Asked::None => {}
        done => return done,
    }
    let region = &*seat.region;
    let mut vigil = Vigil::new(seat);
    let done = loop {
        let expected = turn::expect(region);
        match ask(seat, deadline_ns) {
            Asked::None => {}
            done => break done,
        }
        if is_retired(region) {
            break Asked::Removed;
        }
        if now_ns() >= deadline_ns {
            break Asked::TimedOut;
        }
        vigil.sleep(&region.control().turn.0, expected, deadline_ns);
    };
    if done != Asked::Granted {
        turn::pass_on(region);
    }
    done
}

fn ask(seat: &Seat, deadline_ns: u64) -> Asked {
    match lock::lock(seat, deadline_ns) {
        Step::Locked { owner_died } => {
            if owner_died {
                lock::mark_consistent(seat); // it wrote its own cell or it did not: nothing is half done
            }
        }
        Step::Held(_) | Step::TimedOut => return Asked::TimedOut,
        // The other two: this seat unlocks before it returns, and nobody gives this lock up.
        Step::Removed | Step::AlreadyHeld | Step::NotRecoverable => return Asked::Removed,
    }
    let granted = value(&seat.region) > 0;
    crash::point("sync.permit.seen");
    if granted {
        let held = &seat.region.entry(seat.index).cells[HELD];
        held.store(held.load(Relaxed).saturating_add(1), Relaxed); // shown by the unlock
        crash::point("sync.permit.taken");
    }
    lock::unlock(seat);
    if granted { Asked::Granted } else { Asked::None }
}

/// Gives a permit of the caller's back.
pub(crate) fn release(seat: &Seat) {
    give_up_one(seat);
    crash::point("sync.permit.released");
    turn::change(&seat.region, false);
}

/// Takes a permit of the caller's out of the world.
pub(crate) fn consume(seat: &Seat) {
    let total = &seat.region.control().main.0.value;
    let _ = total.fetch_update(Relaxed, Relaxed, |total| total.checked_sub(1));
    crash::point("sync.permit.consumed");
    give_up_one(seat);
}

fn give_up_one(seat: &Seat) {
    let held = &seat.region.entry(seat.index).cells[HELD];
    let less = held.load(Relaxed).saturating_sub(1); // only its owner writes it
    held.store(less, Release); // [permit]
}

/// Adds permits. `false`: there would be more than `max`, and nothing was added.
pub(crate) fn post(region: &SyncRegion, count: u64, max: u64) -> bool {
    let total = &region.control().main.0.value;
    // [permit]: who takes it: what the caller did before
    let added = total.fetch_update(Release, Relaxed, |total| {
        total.checked_add(count).filter(|&total| total <= max)
    });
    crash::point("sync.permit.posted");
    turn::change(region, count > 1);
    added.is_ok()
}

/// Of one that is dead or leaves.
pub(crate) fn give_back(region: &SyncRegion, index: EntryIndex, generation: u64) -> bool {
    let held = &region.entry(index).cells[HELD];
    let had = held.load(Relaxed) > 0;
    held.store(0, Release); // [permit]
    crash::point("sync.permit.given_back");
    if had {
        turn::change(region, true);
    }
    lock::give_back(region, index, generation) || had
}
