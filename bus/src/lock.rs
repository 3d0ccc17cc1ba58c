//! The recovery lock: for work that one may do for all, with an owner that may die in the middle of it.
//!
//! Nobody who is stuck needs it: whoever does not get it does the work without, which is harmless because all of it can be done twice.
//! It saves work; what it protects strictly is the record beside it (`recovery.rs`).
//!
//! ```text
//! lock:    pending = word          the kernel marks the word if this thread ends from here on
//!          word:  0 -> tid         who fails sleeps on the word, with nothing pending
//!          owner: nobody -> me     or from an owner that is proven gone
//! unlock:  owner: me -> nobody     [lock]
//!          word -> 0; somebody sleeps? wake one
//!          pending = none
//! ```
//!
//! **The owner decides, the word wakes.** A thread id names nobody for certain: another pid namespace may have the same one, and whoever is
//! killed there while it tries for the lock is taken by the kernel for its owner. So a word that says `OWNER_DIED`, or any other thing, is a
//! reason to look; in is who has exchanged `owner`, from nobody or from one whose lease is free, or whose entry has another generation. Both
//! stay so, so a proof that comes late does no harm. What two may believe of the word at once costs a wake-up, and no sleep here is
//! without an end.
//!
//! An owner that was killed before it was in has begun nothing, and nobody is told. One that was killed inside is replaced by exactly one
//! successor, which is told. A living owner that stands still keeps the lock: others get [`Busy`] at their deadline.

use crate::atomics::{Acquire, Relaxed, Release, now_ns, pending};
use crate::crash;
use crate::layout::RecoveryLock;
use crate::region::EntryIndex;
use shmbus_sys::robust::{FUTEX_WAITERS, OWNER_DIED, TID_MASK};

/// Who has the lock: an entry and its generation, or nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(u64);

impl Owner {
    pub(crate) const NOBODY: Owner = Owner(0);

    /// The low 48 bits of the generation, and the entry, + 1.
    pub(crate) fn new(index: EntryIndex, generation: u64) -> Owner {
        Owner(generation << 16 | u64::from(index.0 as u16 + 1))
    }

    /// Number of its entry; any number where the word is corrupt.
    pub(crate) fn entry(self) -> Option<u32> {
        (self.0 as u16).checked_sub(1).map(u32::from)
    }
}

#[cfg(feature = "internals")]
impl Owner {
    /// The low 48 bits of its generation.
    pub(crate) fn generation(self) -> u64 {
        self.0 >> 16
    }
}

/// Somebody has the lock who is not proven gone: who, or `NOBODY` where it has not said so yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy(pub(crate) Owner);

impl RecoveryLock {
    /// Runs `section` with the lock, if nobody has it. `section` is told whether the one before died inside.
    ///
    /// `me` must be one of the caller's own entries. Threads that come for the same entry wait for each other as others do. `is_gone` asks for an owner's lease: true only of
    /// one that never stores again. If `section` panics the lock stays taken; it must not.
    pub(crate) fn try_lock<R>(
        &self,
        me: Owner,
        is_gone: impl Fn(Owner) -> bool,
        section: impl FnOnce(bool) -> R,
    ) -> Result<R, Busy> {
        self.attempt(me, &is_gone, &mut Some(section), false).unwrap_or(Err(Busy(Owner::NOBODY)))
    }

    /// The same, waiting for it until `deadline_ns` (monotonic).
    pub(crate) fn lock_until<R>(
        &self,
        me: Owner,
        deadline_ns: u64,
        is_gone: impl Fn(Owner) -> bool,
        section: impl FnOnce(bool) -> R,
    ) -> Result<R, Busy> {
        let mut section = Some(section);
        loop {
            let late = now_ns() >= deadline_ns;
            match self.attempt(me, &is_gone, &mut section, late) {
                Some(Err(busy)) if !late => self.wait(busy, deadline_ns),
                done => return done.unwrap_or(Err(Busy(Owner::NOBODY))),
            }
        }
    }

    /// One try; `None` where the kernel refuses its help, or this thread has another word pending. With `force` also from one who has the
    /// word and has not said who it is: it has had its time, or is dead unnoticed.
    fn attempt<R, F: FnOnce(bool) -> R>(
        &self,
        me: Owner,
        is_gone: &impl Fn(Owner) -> bool,
        section: &mut Option<F>,
        force: bool,
    ) -> Option<Result<R, Busy>> {
        let before = Owner(self.owner.load(Relaxed)); // the exchange below compares
        let replaces = before != Owner::NOBODY;
        if replaces && !is_gone(before) {
            return Some(Err(Busy(before)));
        }
        pending(&self.word, |tid| {
            let word = self.word.word();
            let seen = word.load(Relaxed);
            if seen & TID_MASK != 0 && !replaces && !force {
                return Err(Busy(Owner::NOBODY));
            }
            // Where somebody slept, others may: they are not counted.
            let mine = tid | if seen == 0 { 0 } else { FUTEX_WAITERS };
            if word.compare_exchange(seen, mine, Acquire, Relaxed).is_err() {
                return Err(Busy(before)); // [lock]
            }
            crash::point("lock.word");
            // [lock]
            if let Err(other) = self.owner.compare_exchange(before.0, me.0, Acquire, Relaxed) {
                self.give_the_word_back(tid);
                return Err(Busy(Owner(other)));
            }
            crash::point("lock.owner");
            let section = section.take().ok_or(Busy(me))?;
            let result = section(replaces);
            self.unlock(me);
            Ok(result)
        })
    }

    fn unlock(&self, me: Owner) {
        // Nobody else's, for `me` was not gone.
        let _ = self.owner.compare_exchange(me.0, Owner::NOBODY.0, Release, Relaxed); // [lock]
        crash::point("unlock.owner");
        let was = self.word.word().swap(0, Release); // [lock]: with it, that nobody owns it
        crash::point("unlock.word");
        if was & FUTEX_WAITERS != 0 {
            self.word.wake_one();
        }
    }

    /// Another one is in, whose unlock does not know this thread: the word says neither, and that somebody may sleep.
    fn give_the_word_back(&self, tid: u32) {
        for mine in [tid, tid | FUTEX_WAITERS] {
            let back = OWNER_DIED | FUTEX_WAITERS;
            let _ = self.word.word().compare_exchange(mine, back, Relaxed, Relaxed);
        }
    }

    /// Sleeps until the word changes hands.
    fn wait(&self, busy: Busy, deadline_ns: u64) {
        let word = self.word.word();
        let seen = word.load(Relaxed);
        if seen & TID_MASK == 0 && busy.0 == Owner::NOBODY {
            return; // there is nobody to wait for any more
        }
        // An owner may be in whose id is not in the word: its unlock looks at this bit all the same.
        let awaited = if seen & TID_MASK == 0 { OWNER_DIED } else { seen } | FUTEX_WAITERS;
        if seen != awaited && word.compare_exchange(seen, awaited, Acquire, Relaxed).is_err() {
            return; // [lock]
        }
        // Behind the exchange: who unlocked without seeing the bit is seen here.
        if self.owner.load(Relaxed) != busy.0.0 {
            return;
        }
        if awaited & OWNER_DIED != 0 {
            // The lease of who died is free a moment after the word says so.
            self.word.wait_a_moment(awaited, deadline_ns);
        } else {
            self.word.wait(awaited, deadline_ns);
        }
    }
}
