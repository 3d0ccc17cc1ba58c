//! The ring of many publishers: one total order, and nobody waits for a publisher that died or stopped.
//!
//! ```text
//! claim:    pin the block of head; claim.store(h); head.compare_exchange(h, h + 1)
//! commit:   write payload; stamp.compare_exchange(old, (h, message)); claim.store(none); ring the bell
//! abandon:  head > s; nobody alive claims s: stamp.compare_exchange(old, (s, abandoned))
//! ```
//!
//! The claim is shown before the head moves and taken back after the stamp, so the owner of an unstamped sequence below
//! the head always shows it. A successful exchange of the head proves that nobody had gone past the pinned block when it was pinned; and
//! whoever opens a later block has acquired a later head, and with it the pin and the claim.

use core::cmp::Ordering;

use super::exclusive::Blocked;
use super::table::{self, Blocks, Gate};
use super::{Block, Corrupt, SlotAt, abandoned_stamp, checked, message_stamp};
use crate::atomics::{Acquire, Relaxed, Release, SeqCst, fence};
use crate::crash;
use crate::layout::Entry;
use crate::region::{EntryIndex, Region};

/// A sequence that this publisher has taken, and its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) sequence: u64,
    pub(crate) slot: SlotAt,
}

/// The claim was revoked while its owner stood still: the sequence is abandoned, and the message has to go elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Revoked;

/// The private state of one of many publishers.
pub(crate) struct SharedRing {
    index: EntryIndex,
    /// Number and place of the pinned block.
    pinned: Option<(u64, Block)>,
    gate: Gate,
    named: Blocks,
    /// What is done once for each block that is entered, with its first sequence.
    at_block: Option<Box<dyn FnMut(u64) + Send + Sync>>,
}

impl SharedRing {
    pub(crate) fn new(region: &Region, index: EntryIndex) -> SharedRing {
        let named = Blocks::none_of(region.geometry());
        SharedRing { index, pinned: None, gate: Gate::closed(), named, at_block: None }
    }

    /// The same, with `look` called once for each block that is entered, so that a message costs nothing more.
    #[cfg(not(loom))]
    pub(crate) fn at_each_block(self, look: impl FnMut(u64) + Send + Sync + 'static) -> SharedRing {
        SharedRing { at_block: Some(Box::new(look)), ..self }
    }

    /// Takes the next sequence, opening its block where nobody has.
    ///
    /// Each lost turn is another publisher's progress.
    pub(crate) fn claim(&mut self, region: &Region) -> Result<Claim, Blocked> {
        let entry = region.entry(self.index);
        let claimed = self.try_claim(region, entry);
        if claimed.is_err() {
            entry.claim.store(0, Release); // [claim]: on every way out
        }
        claimed
    }

    fn try_claim(&mut self, region: &Region, entry: &Entry) -> Result<Claim, Blocked> {
        loop {
            let sequence = checked(region.head().load(Acquire))?; // [stream position]
            let number = region.geometry().number(sequence);
            let block = match self.pinned {
                Some((pinned, block)) if pinned == number => block,
                _ => match self.enter(region, entry, number)? {
                    Some(block) => block,
                    None => continue, // the head has moved on
                },
            };
            entry.claim.store(sequence + 1, Release); // [claim]
            crash::point("claim.shown");
            // It acquires nothing: no sequence is stored twice, so that it finds what the load above has acquired, or fails.
            // [stream position]: my pin and my claim, by whoever sees the head beyond
            if region.head().compare_exchange(sequence, sequence + 1, Release, Relaxed).is_ok() {
                crash::point("claim.taken");
                return Ok(Claim { sequence, slot: region.geometry().slot(block, sequence) });
            }
        }
    }

    /// Pins block `number`; `None` where the stream has gone past it.
    #[cold]
    fn enter(
        &mut self,
        region: &Region,
        entry: &Entry,
        number: u64,
    ) -> Result<Option<Block>, Blocked> {
        if let Some(look) = &mut self.at_block {
            look(number * region.geometry().block_len);
        }
        let mut word = region.table(number).load(Acquire); // [table]
        if table::age(word, number) == Ordering::Less {
            match self.open(region, number, word)? {
                Some(opened) => word = opened,
                None => return Ok(None),
            }
        }
        if !table::age(word, number).is_eq() {
            // Whoever opened a later block there has acquired a later head; who has acquired its word finds no earlier one.
            let head = region.geometry().number(region.head().load(Relaxed));
            return if head == number { Err(Corrupt::Stream.into()) } else { Ok(None) };
        }
        let block = table::physical(word, region.geometry())?;
        entry.pin.store(block.pinned(), Release); // [last use]: of the block that was pinned
        fence(Release); // [observed]: what stood in this block had left the table before I write there
        crash::point("claim.pinned");
        self.pinned = Some((number, block));
        Ok(Some(block))
    }

    /// Opens block `number`, in whose place the table said `old`; what it says then. `None` where the stream has gone past it.
    ///
    /// Several may do this at once, and any of them may stop anywhere: the exchange of the table entry succeeds for one, and only if
    /// the table is still as it was read, because block `number + 1` is opened only after all of `number` was claimed.
    fn open(&mut self, region: &Region, number: u64, old: u64) -> Result<Option<u64>, Blocked> {
        let geometry = region.geometry();
        self.named.clear();
        for index in 0..u64::from(geometry.blocks) {
            let word = region.table(index).load(Relaxed); // the fence acquires
            self.named.insert(table::physical(word, geometry)?.index());
        }
        fence(SeqCst); // [pin/displacement], [cursor/displacement]: whoever pinned or joined before is seen below
        if !self.gate.lets_through(region, number) {
            return Err(Blocked::Full);
        }
        table::pins(region, &mut self.named);
        let entry = region.table(number);
        let Some(spare) = self.named.first_missing(geometry.physical()) else {
            // A helper that has fallen behind may find none; only one that is up to date counts.
            let now = entry.load(Relaxed);
            let behind = now != old || geometry.number(region.head().load(Relaxed)) != number;
            return if behind { Ok(None) } else { Err(Corrupt::NoSpare.into()) };
        };
        let new = table::word(number, geometry.block(u64::from(spare))?);
        crash::point("open.proven");
        // A success acquires nothing: `old` was acquired when it was loaded.
        // [table]: the scan above, for whoever writes into the block; the stamps of the displaced one
        let word = match entry.compare_exchange(old, new, Release, Acquire) {
            Ok(_) => new,
            Err(other) => other, // [table]: opened by another
        };
        crash::point("open.exchanged");
        Ok(Some(word))
    }

    /// Makes the written slot of `claim` a message.
    pub(crate) fn commit(
        &mut self,
        region: &Region,
        claim: Claim,
        len: u32,
        timestamp_ns: Option<u64>,
    ) -> Result<u64, Revoked> {
        let slot = region.slot(claim.slot);
        slot.len.store(len, Relaxed);
        slot.publisher.store(self.index.0, Relaxed);
        if let Some(time) = timestamp_ns {
            slot.timestamp_ns.store(time, Relaxed);
        }
        let committed = stamp(region, claim, message_stamp(claim.sequence));
        crash::point("commit.exchanged");
        // [claim]: the stamp, by whoever sees no claim
        region.entry(self.index).claim.store(0, Release);
        crash::point("commit.unclaimed");
        if committed { Ok(claim.sequence) } else { Err(Revoked) }
    }

    /// Gives a taken sequence up: a loan that was dropped. Readers go past it.
    pub(crate) fn abandon(&mut self, region: &Region, claim: Claim) {
        stamp(region, claim, abandoned_stamp(claim.sequence));
        crash::point("loan.dropped");
        region.entry(self.index).claim.store(0, Release); // [claim]
    }

    /// Keeps the block of a revoked claim while its message is moved.
    pub(crate) fn keep(&self, region: &Region, claim: Claim) {
        let block = region.geometry().block_of(claim.slot);
        // Before the pin moves, which is read first, and which releases it [hold].
        region.entry(self.index).second_pin.store(block.pinned(), Relaxed);
        crash::point("move.kept");
    }

    /// The message of a revoked claim was moved.
    pub(crate) fn let_go(&self, region: &Region) {
        region.entry(self.index).second_pin.store(0, Release); // [last use]
        crash::point("move.let_go");
    }

    /// Whether a claim is to be had without waiting; for a publisher that is about to sleep.
    pub(crate) fn may_go_on(&self, region: &Region) -> bool {
        // Nothing is read behind these two: whoever makes room rings, and the bell's fences decide who sees whom.
        let number = region.geometry().number(region.head().load(Relaxed));
        let open = table::age(region.table(number).load(Relaxed), number).is_eq();
        open || table::gate_is_open(region, number)
    }
}

/// Stamps the slot of the owner's claim, unless the claim was revoked.
fn stamp(region: &Region, claim: Claim, stamp: u64) -> bool {
    let word = &region.slot(claim.slot).stamp;
    let old = word.load(Relaxed);
    if old == abandoned_stamp(claim.sequence) {
        return false;
    }
    // Nothing but my stamp or a revocation can come: the block is pinned and the sequence mine.
    word.compare_exchange(old, stamp, Release, Relaxed).is_ok() // [message]: payload, length, time and publisher
}

/// What is known about the owner of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Lives,
    IsGone,
}

/// Abandons `sequence` if it is below the head, has no stamp, and whoever claims it is gone, by the answer of `owner`, or if
/// `revoke` says that it had its time. True where the sequence has a stamp now.
///
/// The caller pins the block of `sequence`, in which `at` is its slot, and the region is mapped for writing. Any number of
/// participants may do this at once.
pub(crate) fn settle(
    region: &Region,
    sequence: u64,
    at: SlotAt,
    revoke: bool,
    mut owner: impl FnMut(EntryIndex) -> Owner,
) -> bool {
    // [stream position]: the claim and the pin of whoever took it
    if region.head().load(Acquire) <= sequence {
        return false;
    }
    let word = &region.slot(at).stamp;
    let old = word.load(Relaxed);
    if old == message_stamp(sequence) || old == abandoned_stamp(sequence) {
        return true;
    }
    if !revoke && is_claimed(region, sequence, &mut owner) {
        return false;
    }
    crash::point("abandon.decided");
    // [message]: nothing to be read behind it
    let _ = word.compare_exchange(old, abandoned_stamp(sequence), Relaxed, Relaxed);
    crash::point("abandon.stamped");
    true
}

/// Whether `sequence`, in slot `at` and below the head as the caller has seen it, never gets a stamp: it has none, and nobody who lives
/// claims it. For who may not write one.
pub(crate) fn is_lost(
    region: &Region,
    sequence: u64,
    at: SlotAt,
    mut owner: impl FnMut(EntryIndex) -> Owner,
) -> bool {
    // In this order: the stamp stands before the claim is taken back.
    let stamp = || region.slot(at).stamp.load(Relaxed);
    !is_claimed(region, sequence, &mut owner)
        && ![message_stamp(sequence), abandoned_stamp(sequence)].contains(&stamp())
}

/// Whether somebody who lives claims `sequence`, by the answer of `owner`.
fn is_claimed(region: &Region, sequence: u64, owner: &mut impl FnMut(EntryIndex) -> Owner) -> bool {
    region.publishers().any(|index| {
        let claim = region.entry(index).claim.load(Acquire); // [claim]: none means that the stamp is there
        claim == sequence + 1 && owner(index) == Owner::Lives
    })
}
