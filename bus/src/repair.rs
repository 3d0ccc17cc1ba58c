//! A sequence that a shared publisher has taken and not committed: who is stuck at it settles it.
//!
//! Its owner is asked for where it claims it: dead, or nobody, and the sequence is abandoned at once; alive, and it is revoked after
//! the topic's `claim_timeout`. That is a stamp, for which `data` must be writable: a subscriber maps it so for this one exchange, and
//! where it may not, it asks the publishers.

use std::sync::Arc;

use shmbus_sys::clock;

use crate::atomics::{Acquire, Relaxed, Release, SeqCst, fence};
use crate::bell::Barrier;
use crate::crash;
use crate::participant::Attachment;
use crate::region::{EntryIndex, Region};
use crate::registry::{self, State};
use crate::ring::shared::{self, Owner};
use crate::ring::{SlotAt, table};

/// How often who is stuck looks for the reason: 5 ms.
pub(crate) const STALL_CHECK_NS: u64 = 5_000_000;

/// What a subscriber knows about the sequence at which it is stuck.
pub(crate) struct Stuck {
    sequence: u64,
    since_ns: u64,
    looked_ns: u64,
    /// `data`, mapped for writing; `None` where this process may not, or has not tried.
    writable: Option<Arc<Region>>,
    refused: bool,
}

impl Stuck {
    pub(crate) fn nowhere() -> Stuck {
        Stuck { sequence: u64::MAX, since_ns: 0, looked_ns: 0, writable: None, refused: false }
    }

    /// Whether it asks others because it may not write `data`.
    pub(crate) fn is_helpless_at(&self, sequence: u64) -> bool {
        self.refused && self.sequence == sequence
    }

    /// Whether nobody can make `sequence` a message any more, as far as can be told now: for who is helpless on a removed topic, whose files nobody can
    /// open, and which no publisher looks after.
    pub(crate) fn is_lost(&self, attachment: &Attachment, sequence: u64, at: SlotAt) -> bool {
        let region = &*attachment.region;
        shared::is_lost(region, sequence, at, |index| owner(attachment, region, index))
    }

    /// Whether the one who claims the sequence has had the topic's `claim_timeout`.
    pub(crate) fn has_had_its_time(&self, attachment: &Attachment) -> bool {
        let timeout_ns = attachment.description.claim_timeout_ns;
        timeout_ns != 0 && clock::monotonic_ns().saturating_sub(self.since_ns) >= timeout_ns
    }

    /// Found without a stamp: `sequence`, in slot `at` of the pinned block. True where it is settled now.
    #[cold]
    pub(crate) fn at(&mut self, attachment: &Attachment, sequence: u64, at: SlotAt) -> bool {
        let now_ns = clock::monotonic_ns();
        if self.sequence != sequence {
            *self = Stuck {
                sequence,
                since_ns: now_ns,
                looked_ns: now_ns,
                ..core::mem::replace(self, Stuck::nowhere())
            };
            return false; // the usual case: its owner is writing
        }
        if now_ns - self.looked_ns < STALL_CHECK_NS {
            return false;
        }
        self.looked_ns = now_ns;
        let timeout_ns = attachment.description.claim_timeout_ns;
        let revoke = timeout_ns != 0 && now_ns - self.since_ns >= timeout_ns;
        if self.writable.is_none() && !self.refused {
            match attachment.writable_region() {
                Ok(region) => self.writable = Some(region),
                Err(_) => self.refused = true,
            }
        }
        match &self.writable {
            Some(region) => settle(attachment, region, sequence, at, revoke),
            None => {
                let control = attachment.region.control();
                let word = (sequence << 1 | u64::from(revoke)) + 1;
                control.notices.0.repair.store(word, Release); // [notice]
                crash::point("repair.wished");
                control.publishers_bell.0.ring(Barrier::Fence);
                false
            }
        }
    }
}

/// [`shared::settle`], with the kernel's word on who lives. Rings where it settled something.
fn settle(
    attachment: &Attachment,
    region: &Region,
    sequence: u64,
    at: SlotAt,
    revoke: bool,
) -> bool {
    let owner = |index| owner(attachment, region, index);
    let settled = shared::settle(region, sequence, at, revoke, owner);
    if settled {
        region.control().subscribers_bell.0.ring(Barrier::Fence);
    }
    settled
}

/// The kernel's word on who lives; a publisher that is gone is declared dead.
fn owner(attachment: &Attachment, region: &Region, index: EntryIndex) -> Owner {
    let seen = State::of(region.entry(index).state.load(Acquire)); // [entry]
    match attachment.is_held(index) {
        Ok(false) => {
            registry::declare_dead(region, index, seen);
            Owner::IsGone
        }
        Ok(true) | Err(_) => Owner::Lives,
    }
}

/// What a publisher does for a subscriber that may not write `data`: `index` is its own entry.
#[cold]
pub(crate) fn lend_a_hand(attachment: &Arc<Attachment>, region: &Arc<Region>, index: EntryIndex) {
    let repair = &region.control().notices.0.repair;
    let asked = repair.load(Acquire); // [notice]
    let Some(wanted) = asked.checked_sub(1) else { return };
    let (sequence, revoke) = (wanted >> 1, wanted & 1 == 1);
    let geometry = region.geometry();
    let number = geometry.number(sequence);
    let word = region.table(number).load(Acquire); // [table]
    let Ok(block) = table::physical(word, geometry) else { return };
    if table::age(word, number).is_eq() {
        let pin = &region.entry(index).second_pin;
        if pin.load(Relaxed) != 0 {
            return; // it keeps a revoked loan that is being moved: another time
        }
        pin.store(block.pinned(), Release); // [last use]
        crash::point("repair.pinned");
        fence(SeqCst); // [pin/displacement]
        // [table]
        if region.table(number).load(Acquire) == word {
            settle(attachment, region, sequence, geometry.slot(block, sequence), revoke);
        }
        crash::point("repair.settled");
        pin.store(0, Release); // [last use]
    }
    let _ = repair.compare_exchange(asked, 0, Relaxed, Relaxed); // a newer wish stays
}
