//! A sequence that a shared publisher has taken and not committed: who is stuck at it settles it.
//!
//! Its owner is asked for where it claims it: dead, or nobody, and the sequence is abandoned at once; alive, and it is revoked after
//! the topic's `claim_timeout`. The time is that of all sequences that were taken when the subscriber got stuck: who is past the first
//! of them waits for none of the others anew. That is a stamp, for which `data` must be writable: a subscriber maps it so for this one exchange, and
//! where it may not, it asks the publishers.

#[cfg(not(loom))]
use std::sync::Arc;

#[cfg(not(loom))]
use shmbus_sys::clock;

use crate::atomics::{Acquire, Relaxed, Release, SeqCst, fence};
use crate::bell::Barrier;
use crate::crash;
#[cfg(not(loom))]
use crate::participant::Attachment;
use crate::region::{EntryIndex, Region};
use crate::registry::{self, State};
use crate::ring::shared::{self, Owner};
use crate::ring::{Block, SlotAt, table};

/// How often who is stuck looks for the reason: 5 ms.
pub(crate) const STALL_CHECK_NS: u64 = 5_000_000;

/// Since when a subscriber is stuck, at one sequence after the other.
pub(crate) struct Stall {
    /// At which it is.
    sequence: u64,
    /// The head when it got stuck: each sequence below was taken by then. One that was taken later gets a time of its own.
    horizon: u64,
    since_ns: u64,
    looked_ns: u64,
}

impl Stall {
    pub(crate) fn nowhere() -> Stall {
        Stall { sequence: u64::MAX, horizon: 0, since_ns: 0, looked_ns: 0 }
    }

    /// The subscriber finds `sequence` taken and without a stamp. `None` where it is too early to look for the reason; else whether the one
    /// who took it has had `timeout_ns` (0: has no end).
    pub(crate) fn look(
        &mut self,
        region: &Region,
        sequence: u64,
        timeout_ns: u64,
        now_ns: impl FnOnce() -> u64,
    ) -> Option<bool> {
        if sequence >= self.horizon {
            let horizon = region.head().load(Acquire); // [stream position]: before the clock, and so is what is below
            let now_ns = now_ns();
            *self = Stall { sequence, horizon, since_ns: now_ns, looked_ns: now_ns };
            return None; // the usual case: its owner is writing
        }
        let now_ns = now_ns();
        let last_ns = if self.sequence == sequence { self.looked_ns } else { self.since_ns };
        self.sequence = sequence;
        if now_ns.saturating_sub(last_ns) < STALL_CHECK_NS {
            return None;
        }
        self.looked_ns = now_ns;
        Some(self.has_passed(timeout_ns, now_ns))
    }

    fn has_passed(&self, timeout_ns: u64, now_ns: u64) -> bool {
        timeout_ns != 0 && now_ns.saturating_sub(self.since_ns) >= timeout_ns
    }
}

/// What a subscriber knows about the sequence at which it is stuck.
#[cfg(not(loom))]
pub(crate) struct Stuck {
    stall: Stall,
    /// `data`, mapped for writing; `None` where this process may not, or has not tried.
    writable: Option<Arc<Region>>,
    refused: Refused,
}

/// Whether `data` could be mapped for writing, the last time that it was tried.
#[cfg(not(loom))]
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refused {
    No,
    /// For want of descriptors or memory, or the like: it is tried again at the next look.
    Now,
    /// For want of permission, or because the topic is gone.
    ForEver,
}

#[cfg(not(loom))]
impl Stuck {
    pub(crate) fn nowhere() -> Stuck {
        Stuck { stall: Stall::nowhere(), writable: None, refused: Refused::No }
    }

    /// Whether it asks others because it could not map `data` for writing at its last look.
    pub(crate) fn is_helpless_at(&self, sequence: u64) -> bool {
        self.refused != Refused::No && self.stall.sequence == sequence
    }

    /// Whether nobody can make `sequence` a message any more, as far as can be told now: for who is helpless on a removed topic, whose files nobody can
    /// open, and which no publisher looks after.
    pub(crate) fn is_lost(&self, attachment: &Attachment, sequence: u64, at: SlotAt) -> bool {
        let region = &*attachment.region;
        shared::is_lost(region, sequence, at, |index| {
            owner(region, index, &mut |index| attachment.lives(index))
        })
    }

    /// Whether the one who claims the sequence has had the topic's `claim_timeout`.
    pub(crate) fn has_had_its_time(&self, attachment: &Attachment) -> bool {
        let timeout_ns = attachment.description.claim_timeout_ns;
        self.stall.has_passed(timeout_ns, clock::monotonic_ns())
    }

    /// Found without a stamp: `sequence`, in slot `at` of the pinned block. True where it is settled now.
    #[cold]
    pub(crate) fn at(&mut self, attachment: &Attachment, sequence: u64, at: SlotAt) -> bool {
        let timeout_ns = attachment.description.claim_timeout_ns;
        let look = self.stall.look(&attachment.region, sequence, timeout_ns, clock::monotonic_ns);
        let Some(revoke) = look else { return false };
        if self.writable.is_none() && self.refused != Refused::ForEver {
            match attachment.writable_region() {
                Ok(region) => (self.writable, self.refused) = (Some(region), Refused::No),
                Err(error) if error.is_passing() => self.refused = Refused::Now,
                Err(_) => self.refused = Refused::ForEver,
            }
        }
        match &self.writable {
            Some(region) => settle(region, sequence, at, revoke, |index| attachment.lives(index)),
            None => {
                ask(&attachment.region, sequence, revoke.then_some(self.stall.horizon));
                false
            }
        }
    }
}

/// Asks the publishers to settle what the dead have taken of a block, from `sequence` on: by a subscriber that may not write `data`. With
/// `horizon`, to settle all of its block that is below it, which includes `sequence`: whoever took that has had its time.
pub(crate) fn ask(region: &Region, sequence: u64, horizon: Option<u64>) {
    let control = region.control();
    let geometry = region.geometry();
    let end = (geometry.number(sequence) + 1) * geometry.block_len;
    let word = match horizon {
        None => sequence << 1,
        Some(horizon) => (horizon.clamp(sequence + 1, end) - 1) << 1 | 1,
    } + 1;
    control.notices.0.repair.store(word, Release); // [notice]: that the sequence was taken, and its block
    crash::point("repair.wished");
    control.publishers_bell.0.ring(Barrier::Fence);
}

/// [`shared::settle`], with the kernel's word on who lives. Rings where it settled something.
#[cfg(not(loom))]
fn settle(
    region: &Region,
    sequence: u64,
    at: SlotAt,
    revoke: bool,
    mut lives: impl FnMut(EntryIndex) -> bool,
) -> bool {
    let settled =
        shared::settle(region, sequence, at, revoke, |index| owner(region, index, &mut lives));
    if settled {
        region.control().subscribers_bell.0.ring(Barrier::Fence);
    }
    settled
}

/// Grants a wish of [`ask`] in `block`, which the caller pins. Rings where it settled something.
fn grant(
    region: &Region,
    block: Block,
    (sequence, revoke): (u64, bool),
    mut lives: impl FnMut(EntryIndex) -> bool,
) {
    let geometry = region.geometry();
    let begin = geometry.number(sequence) * geometry.block_len;
    // Whoever is stuck is stuck at the first that cannot be settled: nothing after it helps.
    let wished = if revoke { begin..sequence + 1 } else { sequence..begin + geometry.block_len };
    let settled = wished
        .take_while(|sequence| {
            let at = geometry.slot(block, *sequence);
            shared::settle(region, *sequence, at, revoke, |index| owner(region, index, &mut lives))
        })
        .count();
    if settled > 0 {
        region.control().subscribers_bell.0.ring(Barrier::Fence);
    }
}

/// Whether whoever claims by an entry lives, by the answer of `lives`; a publisher that is gone is declared dead.
pub(crate) fn owner(
    region: &Region,
    index: EntryIndex,
    lives: &mut impl FnMut(EntryIndex) -> bool,
) -> Owner {
    let seen = State::of(region.entry(index).state.load(Acquire)); // [entry]
    if !seen.kind.is_active() {
        return Owner::IsGone; // and who joins in its place, and has the lease, clears the claim before it counts
    }
    if lives(index) {
        return Owner::Lives;
    }
    registry::declare_dead(region, index, seen);
    Owner::IsGone
}

/// What a publisher does for a subscriber that may not write `data`: `index` is its own entry, and `lives` the kernel's word on others'.
#[cold]
pub(crate) fn lend_a_hand(
    region: &Region,
    index: EntryIndex,
    lives: impl FnMut(EntryIndex) -> bool,
) {
    let repair = &region.control().notices.0.repair;
    let asked = repair.load(Acquire); // [notice]
    let Some(wanted) = asked.checked_sub(1) else { return };
    let (sequence, revoke) = (wanted >> 1, wanted & 1 == 1);
    let geometry = region.geometry();
    let number = geometry.number(sequence);
    let word = region.table(number).load(Relaxed); // the fence acquires
    let Ok(block) = table::physical(word, geometry) else { return };
    if table::age(word, number).is_eq() {
        let pin = &region.entry(index).second_pin;
        if pin.load(Relaxed) != 0 {
            return; // it keeps a revoked loan that is being moved: another time
        }
        pin.store(block.pinned(), Release); // [last use]
        crash::point("repair.pinned");
        fence(SeqCst); // [pin/displacement]
        // What is read behind it, `shared::settle` reads behind the head.
        if region.table(number).load(Relaxed) == word {
            grant(region, block, (sequence, revoke), lives);
        }
        crash::point("repair.settled");
        pin.store(0, Relaxed); // behind the bell's fence, where something was settled; else nothing was written
    }
    let _ = repair.compare_exchange(asked, 0, Relaxed, Relaxed); // a newer wish stays
}
