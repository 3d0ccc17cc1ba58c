//! What is waited for in an object, other than its lock: an event count.
//!
//! ```text
//! wait:    SLEEPERS; fence; is it there? else sleep while the word is as it was, and begin again
//! change:  what is waited for; fence; SLEEPERS? word + 1, wake one or all
//! ```
//!
//! Of a change and a wait at least one sees the other [turn]. SLEEPERS goes when all are woken, or when nobody was there to be woken: then all are, once more, for
//! one may have come between.
//!
//! Who was woken and leaves without what it waited for wakes another one ([`pass_on`]): the wake may have been meant for that one. Who is killed instead wakes
//! one by its life word (`wait.rs`).

use crate::atomics::{Relaxed, SeqCst, fence};
use crate::crash;
use crate::sync::region::SyncRegion;

/// Somebody may sleep.
pub(crate) const SLEEPERS: u32 = 1;
const CHANGE: u32 = 2;

/// Says that the caller may sleep: it looks after this, and sleeps while the word is what this returned.
pub(crate) fn expect(region: &SyncRegion) -> u32 {
    let turn = region.control().turn.0.word();
    let seen = turn.fetch_or(SLEEPERS, Relaxed) | SLEEPERS;
    fence(SeqCst); // [turn]: before the look
    crash::point("sync.turn.expected");
    seen
}

/// Something has changed that one may wait for, or all. One load and a fence where nobody waits.
#[inline]
pub(crate) fn change(region: &SyncRegion, all: bool) {
    fence(SeqCst); // [turn]: behind the change
    let seen = region.control().turn.0.word().load(Relaxed);
    if seen & SLEEPERS != 0 {
        wake(region, seen, all);
    }
}

#[cold]
fn wake(region: &SyncRegion, mut seen: u32, all: bool) {
    let turn = &region.control().turn.0;
    while seen & SLEEPERS != 0 {
        let changed = seen.wrapping_add(CHANGE);
        let now = if all { changed & !SLEEPERS } else { changed };
        if let Err(other) = turn.word().compare_exchange(seen, now, Relaxed, Relaxed) {
            seen = other;
            continue;
        }
        crash::point("sync.turn.changed");
        if all {
            turn.wake_all();
        } else if !turn.wakes_one() {
            let none = changed.wrapping_add(CHANGE) & !SLEEPERS;
            if turn.word().compare_exchange(changed, none, Relaxed, Relaxed).is_ok() {
                turn.wake_all();
            }
        }
        return;
    }
}

/// Of one that has slept and leaves with nothing.
pub(crate) fn pass_on(region: &SyncRegion) {
    change(region, false);
}
