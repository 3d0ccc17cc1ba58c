//! The bell: sleep until something happens, without losing a wake-up and without a cost while nobody sleeps.
//!
//! One word: bit 0 says that somebody sleeps, bit 1 that more than one does, the rest counts who was the first to sleep.
//!
//! ```text
//! sleep:  the first: word = (count + 1, 1); the second: bit 1; BARRIER; look again; futex_wait(word)
//!         the first, where nobody woke it and nobody else came: bit 0 is taken back
//! ring:   (what happened); BARRIER; bit 0 set?
//!         without bit 1: wake all; if there was one, bit 0 is cleared, unless the word has changed
//!         else, and if there was none: the kernel clears both and wakes all, in one step
//! ```
//!
//! Of the two barriers at least one side sees the other. The count makes the first sleeper's word a new one each time: a sleep on it that begins behind a ring
//! is none. Who comes later shares its word with bit 1, and may sleep on it behind a ring that has left the bits: it has looked since.
//!
//! The bits go with the wake, so that a burst does not pay for each message until the sleeper runs; never before it: a ringer
//! that is killed has woken everybody or has left the bit, which the next ring finds. A bit that is left, by a sleeper that was killed as well, costs the next ring
//! a call or two in vain, once. Every sleep is bounded by [`SLEEP_MAX_NS`]: a ringer killed between what happened and the last of its calls, with no ring behind
//! it, is the one gap.
//!
//! Two ways to wake, because clearing in the kernel (`FUTEX_WAKE_OP`) costs some 0.5 us before anybody runs, and the usual sleeper is alone. Clearing afterwards is sound
//! where the wake found somebody and the word is as it was when it was first looked at: only who made that word can have slept on it, so it was found and is
//! awake, and whoever comes meanwhile changes the word. *All* are woken, as the look may be old, and others asleep. Of one that is about to sleep, whom the wake does not find, it would not be sound; nor of a third
//! one, which sleeps on the word as it is. Nobody sleeps on a bell's word without a bit of its own: whoever may read the file can do so all the same, or move all
//! sleepers to another word (`FUTEX_CMP_REQUEUE`), and then nobody is woken before its sleep ends.
//!
//! The count comes round after 2^30 first sleeps: one who stands still just so long between two steps here costs somebody such a sleep, too.

use crate::atomics::{Relaxed, SeqCst, compiler_fence, fence};
use crate::crash;
use crate::layout::Bell;

/// No sleep is longer, in nanoseconds.
pub(crate) const SLEEP_MAX_NS: u64 = 100_000_000;

/// Of the word: somebody sleeps.
const ASLEEP: u32 = 1;
/// Of the word: more than one.
const OTHERS: u32 = 2;
const SLEEPERS: u32 = ASLEEP | OTHERS;
/// Of the word: one more was the first to sleep.
const COUNT: u32 = 4;

/// What the side that rings pays so that it and a sleeper cannot miss each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Barrier {
    /// A fence for each ring.
    Fence,
    /// Nothing but the compiler's order: sleepers interrupt whoever rings (`membarrier(2)`).
    Membarrier,
    /// Nobody sleeps on this bell.
    Nobody,
}

/// What a sleeper does so that it and whoever rings cannot miss each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meet {
    /// A fence: whoever rings has one too.
    Fence,
    /// `membarrier(2)` on top: whoever rings may have a compiler fence only.
    #[cfg(not(loom))]
    Membarrier,
}

/// What a sleeper has set.
#[derive(Clone, Copy)]
pub(crate) struct Shown {
    /// To sleep on.
    pub(crate) word: u32,
    /// Whether it was the first.
    first: bool,
}

impl Bell {
    /// Tells sleepers that something has happened. Nobody asleep: no system call.
    #[inline]
    pub(crate) fn ring(&self, barrier: Barrier) {
        match barrier {
            Barrier::Fence => fence(SeqCst),               // [commit/sleep]
            Barrier::Membarrier => compiler_fence(SeqCst), // [commit/sleep]: the sleeper's membarrier makes it a fence
            Barrier::Nobody => return,
        }
        self.ring_after_fence();
    }

    /// [`Bell::ring`] for who has fenced already.
    #[inline]
    pub(crate) fn ring_after_fence(&self) {
        // Ordered by the fence before.
        let seen = self.word.word().load(Relaxed);
        if seen & ASLEEP != 0 {
            self.wake(seen);
        }
    }

    #[cold]
    #[inline(never)]
    fn wake(&self, seen: u32) {
        crash::point("ring.decided");
        let word = self.word.word();
        if seen & OTHERS == 0 && self.word.wakes_all() {
            crash::point("ring.called");
            // Fails where the word has changed: its bits are somebody's, or the next ring's to clear.
            let _ = word.compare_exchange(seen, seen & !SLEEPERS, Relaxed, Relaxed);
        } else {
            self.word.wake_all_and_clear(SLEEPERS as u16);
        }
        crash::point("ring.woken");
    }

    /// Says that somebody sleeps; a fence and a look come behind it.
    fn show(&self) -> Shown {
        loop {
            if let Some(shown) = self.show_within(u32::MAX) {
                return shown;
            }
        }
    }

    /// The same in so many attempts, for a word that others may write without end.
    pub(crate) fn show_within(&self, attempts: u32) -> Option<Shown> {
        let word = self.word.word();
        let mut seen = word.load(Relaxed); // ordered by the fence behind
        for _ in 0..attempts {
            let (next, first) = match seen & SLEEPERS {
                SLEEPERS => return Some(Shown { word: seen, first: false }),
                ASLEEP => (seen | OTHERS, false),
                _ => ((seen & !SLEEPERS).wrapping_add(COUNT) | ASLEEP, true),
            };
            match word.compare_exchange(seen, next, Relaxed, Relaxed) {
                Ok(_) => return Some(Shown { word: next, first }),
                Err(now) => seen = now,
            }
        }
        None
    }

    /// Takes back what [`Bell::show`] set, where nobody rang and nobody else came.
    pub(crate) fn take_back(&self, shown: Shown) {
        let (word, seen) = (self.word.word(), shown.word);
        if shown.first && word.load(Relaxed) == seen {
            // If another one came, the exchange fails, and the bit is its own.
            let _ = word.compare_exchange(seen, seen & !SLEEPERS, Relaxed, Relaxed);
        }
    }

    /// Sleeps until the bell rings or `deadline_ns`, unless `look` says that there is something to do.
    ///
    /// False where the sleeper could not meet whoever rings (`membarrier` refused): it must not rely on being woken.
    pub(crate) fn sleep(&self, meet: Meet, deadline_ns: u64, look: impl FnOnce() -> bool) -> bool {
        let shown = self.show();
        crash::point("sleep.shown");
        fence(SeqCst); // [commit/sleep], [cursor/publisher]
        let met = match meet {
            Meet::Fence => true,
            #[cfg(not(loom))]
            Meet::Membarrier => shmbus_sys::membarrier::global_expedited().is_ok(),
        };
        let is_woken = !look() && {
            crash::point("sleep.looked");
            let until_ns = if met { deadline_ns } else { deadline_ns.min(unmet_deadline_ns()) };
            self.word.wait(shown.word, until_ns)
        };
        crash::point("sleep.over");
        if !is_woken {
            self.take_back(shown); // else whoever rings does that, or the next: one line fewer to fetch before the message
        }
        met
    }
}

/// How long a sleeper that nobody can be sure to wake sleeps at most: 1 ms.
#[cfg(not(loom))]
fn unmet_deadline_ns() -> u64 {
    shmbus_sys::clock::monotonic_ns() + 1_000_000
}

#[cfg(loom)]
fn unmet_deadline_ns() -> u64 {
    0
}
