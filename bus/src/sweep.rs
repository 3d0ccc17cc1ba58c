//! Who sweeps, and when: one for all.
//!
//! A sweep asks the kernel for the lease of every subscriber that counts: a system call each. Of those who wait at the same time one does it, with the recovery
//! lock, and notes when it began; the others see that. Nobody depends on another one's progress: who finds the lock taken by the same owner
//! at two looks in a row, with no sweep in between, sweeps without it.

use shmbus_sys::clock;

use crate::atomics::{Acquire, Relaxed};
use crate::bell::Barrier;
use crate::lock::{Busy, Owner};
use crate::participant::{Attachment, Participant};
use crate::recovery::{self, Dead};
use crate::registry::State;
use crate::repair::STALL_CHECK_NS;

/// When one publisher that waits looks for the dead the next time, and what it saw at the last one.
pub(crate) struct Turn {
    next_ns: u64,
    /// The lock was taken: by whom, and the last sweep that was noted.
    busy: Option<(Busy, u64)>,
}

impl Turn {
    pub(crate) fn new() -> Turn {
        Turn { next_ns: 0, busy: None }
    }

    /// When to look again.
    pub(crate) fn next_ns(&self) -> u64 {
        self.next_ns
    }

    /// Sees to it that dead subscribers are declared dead: does it, or lets another one do it. How many the caller found.
    pub(crate) fn take(&mut self, participant: &Participant, now_ns: u64) -> u32 {
        let Participant { attachment, region, .. } = participant;
        let lock = &region.control().recovery.0;
        let swept_ns = lock.swept_ns.load(Relaxed); // a hint: when it was, not what it did
        if is_fresh(swept_ns, now_ns) {
            self.next_ns = swept_ns + STALL_CHECK_NS;
            return 0;
        }
        self.next_ns = now_ns + STALL_CHECK_NS;
        let section = |owner_died: bool| {
            // Another one may have been faster.
            let swept_ns = lock.swept_ns.load(Relaxed);
            let is_done = is_fresh(swept_ns, clock::monotonic_ns()) && !owner_died;
            if is_done { 0 } else { sweep(attachment, None, owner_died) }
        };
        match lock.try_lock(owner(participant), |owner| is_gone(attachment, owner), section) {
            Ok(found) => {
                self.busy = None;
                found
            }
            Err(busy) if self.busy == Some((busy, swept_ns)) => declare(attachment).0,
            Err(busy) => {
                self.busy = Some((busy, swept_ns));
                0
            }
        }
    }
}

/// Sweeps now, for one that has just joined or found the budget used up: with the lock, or after 5 ms without it. `taken` is who
/// had the caller's entry before and was found dead by that. Everybody that was dead when this began is declared dead when it returns.
pub(crate) fn now(participant: &Participant, taken: Option<Dead>) {
    let Participant { attachment, region, .. } = participant;
    if taken.is_some() {
        region.control().publishers_bell.0.ring(Barrier::Fence); // they may have waited for it
    }
    let deadline_ns = clock::monotonic_ns() + STALL_CHECK_NS;
    let locked =
        lock_until(participant, deadline_ns, |owner_died| sweep(attachment, taken, owner_died));
    if locked.is_err() {
        declare(attachment);
    }
}

/// Runs `section` with the lock of the participant's topic.
pub(crate) fn lock_until<R>(
    participant: &Participant,
    deadline_ns: u64,
    section: impl FnOnce(bool) -> R,
) -> Result<R, Busy> {
    let Participant { attachment, region, .. } = participant;
    let is_gone = |owner| is_gone(attachment, owner);
    region.control().recovery.0.lock_until(owner(participant), deadline_ns, is_gone, section)
}

/// A sweep with the lock. An owner that was killed in its sweep has left some undeclared and some uncounted, and the time of the sweep
/// before: the next one does all of it again.
fn sweep(attachment: &Attachment, taken: Option<Dead>, owner_died: bool) -> u32 {
    let region = &*attachment.region;
    let begin_ns = clock::monotonic_ns();
    let (found, is_complete) = declare(attachment);
    recovery::count(region, owner_died);
    if let Some(dead) = taken {
        recovery::count_taken(region, dead);
    }
    if is_complete {
        region.control().recovery.0.swept_ns.store(begin_ns, Relaxed);
    }
    found
}

/// Declares dead subscribers dead. How many, and whether the kernel answered about each; who cannot be asked about counts as alive.
fn declare(attachment: &Attachment) -> (u32, bool) {
    let region = &*attachment.region;
    let mut is_complete = true;
    let found = recovery::sweep(region, region.subscribers(), |index| {
        #[cfg(feature = "internals")]
        ASKED.fetch_add(1, Relaxed);
        attachment.is_held(index).unwrap_or_else(|_| {
            is_complete = false;
            true
        })
    });
    (found, is_complete)
}

/// How often this process has asked for a lease in here.
#[cfg(feature = "internals")]
pub(crate) static ASKED: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);

/// Less than 5 ms ago. A time to come is none: another time namespace, or a corrupt record.
fn is_fresh(swept_ns: u64, now_ns: u64) -> bool {
    swept_ns <= now_ns && now_ns - swept_ns < STALL_CHECK_NS
}

fn owner(participant: &Participant) -> Owner {
    Owner::new(participant.index, participant.generation)
}

/// Whether an owner of the lock never stores again: its entry is another's, or nobody's.
fn is_gone(attachment: &Attachment, owner: Owner) -> bool {
    let region = &*attachment.region;
    let Some(index) = region.entries().find(|index| owner.entry() == Some(index.0)) else {
        return true; // a corrupt word: there is no such entry
    };
    // [entry]: before the lease is asked for, which then is this owner's or a later one's
    let State { generation, .. } = State::of(region.entry(index).state.load(Acquire));
    Owner::new(index, generation) != owner || !attachment.is_held(index).unwrap_or(true)
}
