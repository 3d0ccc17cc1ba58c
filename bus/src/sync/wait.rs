//! Sleeping for a word of an object, and burying the dead meanwhile: what all primitives wait with.
//!
//! Who sleeps watches the word that it waits for, the roster, and the life words of all other members, in one `futex_waitv`. So every
//! sleeper is there to be woken by every death, and whoever is woken to do something and is killed before it does it wakes another
//! one by its own death.
//!
//! ```text
//! sleep:  roster; of each other member: is it dying? bury it, and look again;  wait for any of the words to change
//! woken:  the caller looks at what it waits for, and sleeps again or leaves
//! leave:  is somebody still dying? wake one other sleeper: the kernel woke only one for each death
//! ```
//!
//! Between the life word and the lease a dying process closes its files: who sees the one and not yet the other looks again after 50 us, and
//! then at growing intervals of up to 100 ms. There they stay for a member whose thread has ended while its process lives: it keeps what it has.
//! Any other sleep ends after a second, for one look at everything and at all leases: nothing in here depends on it but what the kernel cannot tell of (a
//! process that is *stopped* between being woken and acting; another library's list in place of libc's).
//!
//! Nobody polls but in these two ways. What a caller waits for is its own non-blocking step; a [`Vigil`] is what to sleep on.

use crate::atomics::{Acquire, Relaxed, Word, Words, now_ns};
use crate::crash;
use crate::sync::region::SyncRegion;
use crate::sync::seat::{Burial, Seat};

/// First and longest interval between two looks at the lease of one that is dying.
const MOMENT_NS: u64 = 50_000;
const MOMENT_MAX_NS: u64 = 100_000_000;
/// The longest sleep.
pub(crate) const SLEEP_MAX_NS: u64 = 1_000_000_000;
/// Most words of one sleep: the kernel's limit.
#[cfg(not(loom))]
pub(crate) const WORDS_MAX: usize = shmbus_sys::futex::WORDS_MAX;

/// One wait, of several sleeps.
pub(crate) struct Vigil<'a> {
    seat: &'a Seat,
    moment_ns: u64,
    slept: bool,
    /// When leases are asked for whatever life words say.
    asks_ns: u64,
}

impl<'a> Vigil<'a> {
    pub(crate) fn new(seat: &'a Seat) -> Vigil<'a> {
        Vigil {
            seat,
            moment_ns: MOMENT_NS,
            slept: false,
            asks_ns: now_ns().saturating_add(SLEEP_MAX_NS),
        }
    }

    pub(crate) fn seat(&self) -> &'a Seat {
        self.seat
    }

    /// Sleeps while `word` is `expected`, nobody dies and nobody gives notice, until `deadline_ns` (monotonic). Every return is only a reason to look
    /// again.
    pub(crate) fn sleep(&mut self, word: &Word, expected: u32, deadline_ns: u64) {
        let mut words = Words::none();
        if let Some(until_ns) = self.watch(&mut words, word, expected, deadline_ns) {
            words.wait(until_ns);
            crash::point("sync.wait.woken");
        }
    }

    /// Adds the words of such a sleep, and says until when to sleep at most. `None`: there is reason to look again already.
    pub(crate) fn watch<'b>(
        &mut self,
        words: &mut Words<'b>,
        word: &'b Word,
        expected: u32,
        deadline_ns: u64,
    ) -> Option<u64>
    where
        'a: 'b,
    {
        let Seat { region, index: own, .. } = self.seat;
        let roster = &region.control().roster.0;
        let seen = roster.word().load(Acquire); // [sync roster]
        if is_retired(region) {
            return None;
        }
        let now_ns = now_ns();
        let asks = now_ns >= self.asks_ns;
        if asks {
            self.asks_ns = now_ns.saturating_add(SLEEP_MAX_NS);
            #[cfg(not(loom))]
            if self.seat.retire_if_deleted() {
                return None;
            }
        }
        words.add(word, expected);
        words.add(roster, seen);
        let (mut is_dying, mut buried) = (false, false);
        for index in region.entries(seen & 0xff).filter(|index| index != own) {
            let life = &region.entry(index).life;
            let alive = life.word().load(Relaxed); // the kernel compares it
            let dying = self.seat.is_dying(index);
            if dying || asks {
                match self.seat.bury(index) {
                    Burial::Done => buried = true,
                    Burial::NotNow => is_dying |= dying,
                    Burial::Nobody => {}
                }
            }
            words.add(life, alive);
        }
        if buried {
            return None; // what the caller waits for may have come by it
        }
        let mut until_ns = now_ns.saturating_add(SLEEP_MAX_NS);
        if is_dying {
            until_ns = now_ns.saturating_add(self.moment_ns);
            self.moment_ns = (2 * self.moment_ns).min(MOMENT_MAX_NS);
        } else {
            self.moment_ns = MOMENT_NS;
        }
        self.slept = true;
        Some(until_ns.min(deadline_ns))
    }
}

impl Drop for Vigil<'_> {
    fn drop(&mut self) {
        // In a model, who is killed unwinds: the dead do nothing.
        if !self.slept || cfg!(loom) && std::thread::panicking() {
            return;
        }
        let Seat { region, index: own, .. } = self.seat;
        let mark = region.control().roster.0.word().load(Relaxed) & 0xff;
        let mut others = region.entries(mark).filter(|index| index != own);
        if let Some(index) = others.find(|index| self.seat.is_dying(*index)) {
            region.entry(index).life.wake_one();
        }
    }
}

/// Whether the object was removed.
pub(crate) fn is_retired(region: &SyncRegion) -> bool {
    region.control().main.0.joins.is_retired_relaxed() // nothing but the word itself; it is looked for again
}
