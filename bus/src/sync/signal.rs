//! Whether an event is set: see `event.rs`.
//!
//! ```text
//! value:  manual << 1 | set
//! set:    set = 1; change: all of a manual one, else one
//! wait:   manual: set?   automatic: set: 1 -> 0, exactly one succeeds;   else sleep
//! ```

use crate::atomics::{Acquire, Relaxed, Release, now_ns};
use crate::crash;
use crate::region::EntryIndex;
use crate::sync::region::SyncRegion;
use crate::sync::seat::Seat;
use crate::sync::turn;
use crate::sync::wait::{Vigil, is_retired};

const SET: u64 = 1;
pub(crate) const MANUAL: u64 = 2;

/// What a wait came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    Signalled,
    TimedOut,
    Removed,
}

/// Takes the signal of an automatic event, or sees that of a manual one.
pub(crate) fn take(region: &SyncRegion) -> bool {
    let value = &region.control().main.0.value;
    let seen = value.load(Acquire); // [signal]: what was done before it was set
    if seen & SET == 0 || seen & MANUAL != 0 {
        return seen & SET != 0;
    }
    // [signal]: as above
    value.compare_exchange(SET, 0, Acquire, Relaxed).is_ok()
}

/// Sets it. Whether it was not set before.
pub(crate) fn set(region: &SyncRegion) -> bool {
    let before = region.control().main.0.value.fetch_or(SET, Release); // [signal]
    crash::point("sync.event.set");
    // Also where it was set: who set it may have been killed just here.
    turn::change(region, before & MANUAL != 0);
    before & SET == 0
}

/// Whether it was set before.
pub(crate) fn reset(region: &SyncRegion) -> bool {
    region.control().main.0.value.fetch_and(!SET, Relaxed) & SET != 0 // it tells of nothing but itself
}

/// Whether it is set, as one who looks on sees it.
#[cfg(not(loom))]
pub(crate) fn is_set(region: &SyncRegion) -> bool {
    region.control().main.0.value.load(Relaxed) & SET != 0
}

/// Whether only a reset resets it.
#[cfg(not(loom))]
pub(crate) fn is_manual(region: &SyncRegion) -> bool {
    region.control().main.0.value.load(Relaxed) & MANUAL != 0
}

/// Waits until it is set, or until `deadline_ns`.
pub(crate) fn wait(seat: &Seat, deadline_ns: u64) -> Waited {
    let region = &*seat.region;
    if take(region) {
        return Waited::Signalled;
    }
    let mut vigil = Vigil::new(seat);
    let done = loop {
        let expected = turn::expect(region);
        if take(region) {
            return Waited::Signalled;
        }
        if is_retired(region) {
            break Waited::Removed;
        }
        if now_ns() >= deadline_ns {
            break Waited::TimedOut;
        }
        vigil.sleep(&region.control().turn.0, expected, deadline_ns);
    };
    turn::pass_on(region);
    done
}

/// A signal that nobody has taken is in nobody's hands.
pub(crate) fn give_back(_: &SyncRegion, _: EntryIndex, _: u64) -> bool {
    false
}
