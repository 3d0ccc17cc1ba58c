//! The word of a condition variable: see `condvar.rs`.

use crate::atomics::{Relaxed, now_ns};
use crate::crash;
use crate::sync::region::SyncRegion;
use crate::sync::seat::Seat;
use crate::sync::wait::{SLEEP_MAX_NS, Vigil, is_retired};

/// Somebody may sleep.
const SLEEPERS: u32 = 1;
/// One notice.
const NOTICE: u32 = 2;

/// Why a sleep was no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vain {
    Removed,
    TimedOut,
}

/// What a wait looked like under the mutex.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    word: u32,
    /// Of the mutex.
    roster: u32,
}

/// Under the mutex: says that somebody may sleep.
pub(crate) fn expect(seat: &Seat, condvar: &SyncRegion) -> Expected {
    let word = condvar.control().main.0.word.word();
    // No order: notices are given by those who have locked the mutex behind this.
    let expected = word.fetch_or(SLEEPERS, Relaxed) | SLEEPERS;
    crash::point("sync.condvar.waits");
    Expected { word: expected, roster: roster(seat) }
}

/// The end of a sleep, which may have taken a notice that was meant for one sleeper. Dropped, it gives that notice to another one; [`Woken::looked`] ends it
/// when the condition was looked at with the mutex locked.
#[must_use = "dropped, it wakes another one"]
pub(crate) struct Woken<'a> {
    condvar: &'a SyncRegion,
}

impl Woken<'_> {
    /// The condition was looked at: what the notice was about was seen.
    pub(crate) fn looked(self) {
        core::mem::forget(self);
    }
}

impl Drop for Woken<'_> {
    fn drop(&mut self) {
        // In a model, who is killed unwinds: the dead do nothing.
        if cfg!(loom) && std::thread::panicking() {
            return;
        }
        give(self.condvar, false);
    }
}

/// Without the mutex: sleeps until there is a notice, a member of the mutex was buried, or a second is over. What comes of it is for the condition to say.
/// Who sleeps in vain has taken no notice: the word is looked at after the sleep, and before the clock.
pub(crate) fn sleep<'c>(
    vigil: &mut Vigil<'_>,
    condvar: &'c SyncRegion,
    expected: Expected,
    deadline_ns: u64,
) -> Result<Woken<'c>, Vain> {
    let word = &condvar.control().main.0.word;
    let begun_ns = now_ns();
    loop {
        if is_retired(condvar) {
            return Err(Vain::Removed);
        }
        if word.word().load(Relaxed) != expected.word
            || roster(vigil.seat()) != expected.roster
            || is_retired(&vigil.seat().region)
        {
            return Ok(Woken { condvar });
        }
        let now_ns = now_ns();
        if now_ns >= deadline_ns {
            return Err(Vain::TimedOut);
        }
        // A notifier that is no member may have died on its way.
        if now_ns - begun_ns >= SLEEP_MAX_NS {
            return Ok(Woken { condvar });
        }
        vigil.sleep(word, expected.word, deadline_ns);
    }
}

fn roster(seat: &Seat) -> u32 {
    seat.region.control().roster.0.word().load(Relaxed)
}

/// Wakes one of those who sleep, or all.
pub(crate) fn give(condvar: &SyncRegion, all: bool) {
    let word = &condvar.control().main.0.word;
    let mut seen = word.word().load(Relaxed); // the mutex orders it: see `expect`
    while seen & SLEEPERS != 0 {
        let raised = seen.wrapping_add(NOTICE) & if all { !SLEEPERS } else { !0 };
        if let Err(now) = word.word().compare_exchange(seen, raised, Relaxed, Relaxed) {
            seen = now;
            continue;
        }
        crash::point("sync.condvar.noticed");
        if all {
            word.wake_all();
        } else {
            word.wake_one();
        }
        return;
    }
}
