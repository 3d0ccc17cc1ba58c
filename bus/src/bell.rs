//! The bell: sleep until something happens, without losing a wake-up and without a cost while nobody sleeps.
//!
//! One word: bit 0 says that somebody sleeps, bit 1 that more than one does, the rest counts who was the first to sleep.
//!
//! ```text
//! sleep:  the first: word = (count + 1, 1); the second: bit 1; BARRIER; look again; futex_wait(word)
//!         the first, where nobody rang and nobody else came: bit 0 is taken back
//! ring:   (what happened); BARRIER; bit 0 set?  the kernel clears both and wakes all: one call
//! ```
//!
//! Of the two barriers at least one side sees the other. Every word with bit 0 is another one, so a sleep that begins behind a ring is none.
//! Clearing and waking are one call (`FUTEX_WAKE_OP`): a burst pays one and not one for each message until the sleeper runs, and a ringer
//! that is killed has woken everybody or has left the bit, which the next ring finds. A sleeper that is killed leaves it too: one call too many,
//! once. Every sleep is bounded by [`SLEEP_MAX_NS`]: a ringer killed between what happened and the call, with no ring behind it, is the one gap.

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
        if self.word.word().load(Relaxed) & ASLEEP != 0 {
            self.wake();
        }
    }

    #[cold]
    #[inline(never)]
    fn wake(&self) {
        crash::point("ring.decided");
        self.word.wake_all_and_clear(SLEEPERS as u16);
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
                _ => ((seen | SLEEPERS).wrapping_add(2), true), // the next count, and bit 0
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
        if !look() {
            crash::point("sleep.looked");
            self.word.wait(
                shown.word,
                if met { deadline_ns } else { deadline_ns.min(unmet_deadline_ns()) },
            );
        }
        crash::point("sleep.over");
        self.take_back(shown);
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
