//! The bell: sleep until something happens, without losing a wake-up and without a cost while nobody sleeps.
//!
//! ```text
//! sleep:  seen = word.load; set my bit; BARRIER; look again; futex_wait(word, seen); clear my bit
//! ring:   (what happened); BARRIER; any bit set?  take the bits; word += 1; futex_wake(all)
//! ```
//!
//! Of the two barriers at least one side sees the other. Bits instead of a counter, so that a sleeper that was killed leaves nothing behind;
//! the ringer takes the bits first, so that a burst pays one system call and not one for each message until the sleeper
//! runs. Every sleep is bounded by [`SLEEP_MAX_NS`]: a ringer killed between what happened and the wake is the one gap.

use crate::atomics::{Acquire, Relaxed, Release, SeqCst, compiler_fence, fence};
use crate::crash;
use crate::layout::{Bell, SLEEPER_WORDS};

/// No sleep is longer, in nanoseconds.
pub(crate) const SLEEP_MAX_NS: u64 = 100_000_000;

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
        let mut bits = 0;
        for word in &self.sleepers {
            bits |= word.load(Relaxed); // ordered by the fence before
        }
        if bits != 0 {
            self.wake();
        }
    }

    #[cold]
    #[inline(never)]
    fn wake(&self) {
        for word in &self.sleepers {
            word.swap(0, Relaxed); // taken before the bump: a bit set after it has seen the new word
        }
        crash::point("ring.taken");
        self.word.word().fetch_add(1, Release); // [bell]: the bits are taken
        crash::point("ring.raised");
        self.word.wake_all();
        crash::point("ring.woken");
    }

    /// Sleeps until the bell rings or `deadline_ns`, unless `look` says that there is something to do.
    ///
    /// False where the sleeper could not meet whoever rings (`membarrier` refused): it must not rely on being woken.
    pub(crate) fn sleep(
        &self,
        bit: u32,
        meet: Meet,
        deadline_ns: u64,
        look: impl FnOnce() -> bool,
    ) -> bool {
        let word = &self.sleepers[bit as usize / 64 % SLEEPER_WORDS];
        let mask = 1 << (bit % 64);
        let seen = self.word.word().load(Acquire); // [bell]: before the bit is set
        word.fetch_or(mask, Relaxed);
        crash::point("sleep.shown");
        fence(SeqCst); // [commit/sleep], [cursor/publisher]
        let met = match meet {
            Meet::Fence => true,
            #[cfg(not(loom))]
            Meet::Membarrier => shmbus_sys::membarrier::global_expedited().is_ok(),
        };
        if !look() {
            crash::point("sleep.looked");
            self.word
                .wait(seen, if met { deadline_ns } else { deadline_ns.min(unmet_deadline_ns()) });
        }
        crash::point("sleep.over");
        if word.load(Relaxed) & mask != 0 {
            word.fetch_and(!mask, Relaxed);
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
