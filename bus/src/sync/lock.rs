//! The word of a mutex, and who may have it.
//!
//! ```text
//! word:    0 = free;  entry + 1 | generation << 8 | WAITERS;  GONE: its last owner is dead, and nobody has it yet
//! state:   consistent -> inconsistent, by who takes it from the dead; back, when it says so; not recoverable, when it does not
//! lock:    0 -> me                        Acquire [mutex]
//!          of one who is proven dead -> me and WAITERS      exactly one succeeds; it is told
//!          else WAITERS, and sleep
//! unlock:  me -> 0                        Release [mutex]; WAITERS? wake one
//! ```
//!
//! Who has slept takes the word with WAITERS, because others may sleep still. Who sleeps sets WAITERS first and looks at the clock then, so
//! that one that leaves without the lock leaves WAITERS behind.

use crate::atomics::{Acquire, Relaxed, Release, now_ns};
use crate::crash;
use crate::region::EntryIndex;
use crate::sync::region::SyncRegion;
use crate::sync::seat::Seat;
use crate::sync::wait::{Vigil, is_retired};

/// Somebody may sleep.
pub(crate) const WAITERS: u32 = 1 << 31;
/// In place of an owner that is dead and buried.
const GONE: u32 = 0xff;
const GENERATION: u32 = (1 << 23) - 1;

pub(crate) const CONSISTENT: u32 = 0;
pub(crate) const INCONSISTENT: u32 = 1;
const NOT_RECOVERABLE: u32 = 2;

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The caller has the lock, and is told whether what it protects may be half written.
    Locked {
        owner_died: bool,
    },
    /// Somebody who lives has it: the word as it was.
    Held(u32),
    /// The caller's own seat has it.
    AlreadyHeld,
    NotRecoverable,
    Removed,
    /// Only of [`lock`].
    TimedOut,
}

/// The word of an owner.
fn name(index: EntryIndex, generation: u64) -> u32 {
    (index.0 + 1) & 0xff | (generation as u32 & GENERATION) << 8
}

pub(crate) fn me(seat: &Seat) -> u32 {
    name(seat.index, seat.generation)
}

/// The entry that a word names. `None`: it is free, or names no entry, as `GONE`.
pub(crate) fn owner(word: u32, members_max: u32) -> Option<EntryIndex> {
    let number = (word & 0xff).checked_sub(1)?;
    (number < members_max).then_some(EntryIndex(number))
}

/// Whether the owner that a word names may still do something.
pub(crate) fn lives(seat: &Seat, word: u32) -> bool {
    let is_generation = |generation| generation as u32 & GENERATION == word >> 8 & GENERATION;
    owner(word, seat.region.members_max()).is_some_and(|index| seat.lives(index, is_generation))
}

/// One try, without waiting. `after_sleep`: others may sleep.
#[inline]
pub(crate) fn step(seat: &Seat, after_sleep: bool) -> Step {
    let word = seat.region.control().main.0.word.word();
    let mine = me(seat) | if after_sleep { WAITERS } else { 0 };
    match word.compare_exchange(0, mine, Acquire, Relaxed) {
        Ok(_) => locked(seat, false), // [mutex]
        Err(seen) => step_behind(seat, mine, seen),
    }
}

/// The same where the word was not free.
#[cold]
fn step_behind(seat: &Seat, mine: u32, mut seen: u32) -> Step {
    let word = seat.region.control().main.0.word.word();
    loop {
        let owner = seen & !WAITERS;
        if owner == mine & !WAITERS {
            return Step::AlreadyHeld;
        }
        if owner != 0 && lives(seat, owner) {
            return Step::Held(seen);
        }
        crash::point("sync.lock.dead");
        match word.compare_exchange(seen, mine | seen & WAITERS, Acquire, Relaxed) {
            Ok(_) => return locked(seat, owner != 0), // [mutex]
            Err(now) => seen = now,
        }
    }
}

/// The word is the caller's.
#[inline]
fn locked(seat: &Seat, from_the_dead: bool) -> Step {
    crash::point("sync.lock.word");
    let main = &seat.region.control().main.0;
    if main.joins.is_retired_relaxed() {
        unlock(seat);
        return Step::Removed;
    }
    match main.state.load(Relaxed) {
        CONSISTENT if !from_the_dead => Step::Locked { owner_died: false },
        CONSISTENT | INCONSISTENT => {
            main.state.store(INCONSISTENT, Relaxed);
            crash::point("sync.lock.inconsistent");
            Step::Locked { owner_died: true }
        }
        _ => {
            unlock(seat);
            Step::NotRecoverable
        }
    }
}

/// Waits for the lock until `deadline_ns`.
#[inline]
pub(crate) fn lock(seat: &Seat, deadline_ns: u64) -> Step {
    match step(seat, false) {
        Step::Held(_) => lock_behind(seat, deadline_ns),
        done => done,
    }
}

#[cold]
fn lock_behind(seat: &Seat, deadline_ns: u64) -> Step {
    #[cfg(not(loom))]
    {
        let mut patience = crate::wait::Patience::of_subscriber();
        while patience.is_left() {
            match step(seat, false) {
                Step::Held(_) => {}
                done => return done,
            }
        }
    }
    let word = &seat.region.control().main.0.word;
    let mut vigil = Vigil::new(seat);
    loop {
        let seen = match step(seat, true) {
            Step::Held(seen) => seen,
            done => return done,
        };
        let awaited = seen | WAITERS;
        if seen != awaited && word.word().compare_exchange(seen, awaited, Relaxed, Relaxed).is_err()
        {
            continue;
        }
        crash::point("sync.lock.waits");
        if is_retired(&seat.region) {
            return Step::Removed;
        }
        if now_ns() >= deadline_ns {
            return Step::TimedOut;
        }
        vigil.sleep(word, awaited, deadline_ns);
    }
}

/// Gives the lock back.
#[inline]
pub(crate) fn unlock(seat: &Seat) {
    let word = &seat.region.control().main.0.word;
    let mine = me(seat);
    if let Err(seen) = word.word().compare_exchange(mine, 0, Release, Relaxed) {
        unlock_before(seat, seen); // [mutex]
    }
}

/// The same where somebody may sleep.
#[cold]
fn unlock_before(seat: &Seat, seen: u32) {
    let word = &seat.region.control().main.0.word;
    // Any other word is none that this seat has written: the object is corrupt, and stays as it is.
    let is_mine = seen == me(seat) | WAITERS;
    // [mutex]
    if is_mine && word.word().compare_exchange(seen, 0, Release, Relaxed).is_ok() {
        crash::point("sync.unlock.free");
        word.wake_one();
    }
}

/// What the data may be is for the next owner to find out: this one is gone from the middle of its work.
pub(crate) fn leave_inconsistent(seat: &Seat) {
    seat.region.control().main.0.state.store(INCONSISTENT, Relaxed); // shown by the unlock
}

/// The data is as it should be.
pub(crate) fn mark_consistent(seat: &Seat) {
    seat.region.control().main.0.state.store(CONSISTENT, Relaxed); // shown by the unlock
}

/// Unlocks for good: nobody gets the lock again.
pub(crate) fn give_up(seat: &Seat) {
    seat.region.control().main.0.state.store(NOT_RECOVERABLE, Relaxed); // shown by the unlock
    crash::point("sync.unlock.given_up");
    unlock(seat);
    seat.wake_all();
}

/// Of one that is dead, or leaves with its guard forgotten: the lock is nobody's, and the next owner is told.
pub(crate) fn give_back(region: &SyncRegion, index: EntryIndex, generation: u64) -> bool {
    let word = region.control().main.0.word.word();
    let mut seen = word.load(Relaxed);
    // Others may set WAITERS, or take it from the dead, meanwhile.
    while seen & !WAITERS == name(index, generation) {
        match word.compare_exchange(seen, GONE | seen & WAITERS, Release, Relaxed) {
            Ok(_) => return true, // [mutex]
            Err(now) => seen = now,
        }
    }
    false
}
