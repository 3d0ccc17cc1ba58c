//! The ring of one publisher: no read-modify-write for a message, no fence, no shared load.
//!
//! ```text
//! open, once per block:   read table; fence; gate; scan pins; table.store(block, spare)
//! publish:                write payload; stamp.store(sequence, message); head.store(sequence + 1); ring the bell
//! ```

use super::table::{self, Gate, Spares};
use super::{Corrupt, SlotAt, message_stamp};
use crate::atomics::{Acquire, Relaxed, Release, SeqCst, fence};
use crate::crash;
use crate::region::Region;

/// Why the next slot is not to be had now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// A reliable subscriber has not received what stands there.
    Full,
    Corrupt(Corrupt),
}

impl From<Corrupt> for Blocked {
    fn from(corrupt: Corrupt) -> Blocked {
        Blocked::Corrupt(corrupt)
    }
}

/// A sequence of the open block and its slot: in registers, while a payload is written that for all the compiler knows may lie anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) at: SlotAt,
    sequence: u64,
}

/// The state of the one publisher; everything else is in the region. On cache lines of its own: it changes with each message, and a program may
/// well keep a subscriber, which another thread uses, beside its publisher.
#[repr(align(128))]
pub(crate) struct ExclusiveRing {
    /// Next sequence to be committed: all that a message changes here, because a store to another line than the slot's costs more than finding the slot anew.
    sequence: u64,
    /// First sequence behind the open block; `sequence == block_end` means that no block is open.
    block_end: u64,
    /// Where sequence 0 would lie if it were of the open block, modulo 2^64: its other slots follow from it.
    origin: u64,
    spares: Spares,
    gate: Gate,
}

impl ExclusiveRing {
    /// Goes on where the last publisher stopped, wherever that was.
    ///
    /// The caller is the only publisher (it has the lease). What the last one committed but did not count in `head` is counted now;
    /// what it did not commit was never visible.
    pub(crate) fn take_over(region: &Region) -> Result<ExclusiveRing, Corrupt> {
        let geometry = region.geometry();
        let spares = Spares::derive(region)?;
        let mut head = super::checked(region.head().load(Acquire))?; // [stream position]
        let limit = head.checked_add(geometry.depth()).ok_or(Corrupt::Stream)?;
        let mut open = None;
        while head < limit {
            let number = geometry.number(head);
            let entry = region.table(number).load(Acquire); // [table]: the last publisher's openings
            if !table::age(entry, number).is_eq() {
                break;
            }
            let block = table::physical(entry, geometry)?;
            let slot = region.slot(geometry.slot(block, head));
            open = Some((number, block));
            if slot.stamp.load(Acquire) != message_stamp(head) {
                break; // [message] above: what was committed is left as it is
            }
            head += 1;
        }
        region.head().store(head, Release); // [stream position]
        crash::point("takeover.counted");
        let (block, block_end) = match open {
            Some((number, block)) if number == geometry.number(head) => {
                (block, (number + 1) * geometry.block_len)
            }
            _ if geometry.place(head) == 0 => (geometry.block(0)?, head),
            _ => return Err(Corrupt::Stream), // in the middle of a block that the table does not name
        };
        let origin = geometry.origin(block, head);
        fence(Release); // [observed]: whatever stood in the open block had left the table before I write there
        Ok(ExclusiveRing { sequence: head, block_end, origin, spares, gate: Gate::closed() })
    }

    /// One whose block is never open: for a topic with shared publishers.
    pub(crate) fn unused(region: &Region) -> ExclusiveRing {
        ExclusiveRing {
            sequence: 0,
            block_end: 0,
            origin: 0,
            spares: Spares::none(region),
            gate: Gate::closed(),
        }
    }

    /// The next sequence to be committed.
    #[inline]
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The next sequence and its slot, to be written and committed; `None` where its block is not open. Asked twice, it is the same.
    #[inline]
    pub(crate) fn place(&self, region: &Region) -> Option<Place> {
        (self.sequence != self.block_end).then(|| self.written(region))
    }

    /// [`ExclusiveRing::place`], for who has had it already.
    #[inline]
    pub(crate) fn written(&self, region: &Region) -> Place {
        let at = region.geometry().slot_from(self.origin, self.sequence);
        Place { at, sequence: self.sequence }
    }

    /// Makes the written slot a message: `len` bytes, at `timestamp_ns` where the topic carries the time.
    #[inline]
    pub(crate) fn commit(
        &mut self,
        region: &Region,
        place: Place,
        len: u32,
        timestamp_ns: Option<u64>,
    ) -> u64 {
        let sequence = self.stamp(region, place, len, timestamp_ns);
        self.show_head(region);
        crash::point("commit.counted");
        sequence
    }

    /// [`ExclusiveRing::commit`] without the head, which is shown before the next block is opened and before anybody is waited for.
    #[inline]
    pub(crate) fn stamp(
        &mut self,
        region: &Region,
        place: Place,
        len: u32,
        timestamp_ns: Option<u64>,
    ) -> u64 {
        debug_assert_eq!(place, self.written(region));
        let Place { at, sequence } = place;
        let slot = region.slot(at);
        slot.len.store(len, Relaxed);
        if let Some(time) = timestamp_ns {
            slot.timestamp_ns.store(time, Relaxed);
        }
        slot.stamp.store(message_stamp(sequence), Release); // [message]: payload, length and time, by a subscriber
        crash::point("commit.stamped");
        self.sequence = sequence + 1;
        sequence
    }

    /// Counts in the head what was stamped.
    #[inline]
    pub(crate) fn show_head(&self, region: &Region) {
        region.head().store(self.sequence, Release); // [stream position]: the stamps below, by joiners and the lapped
    }

    /// Opens the block of the next sequence, which is its first. Killed anywhere in here, it has or has not happened: the table says so.
    #[cold]
    pub(crate) fn open(&mut self, region: &Region) -> Result<Place, Blocked> {
        debug_assert_eq!(self.sequence, self.block_end);
        super::checked(self.sequence)?;
        let geometry = region.geometry();
        let number = geometry.number(self.sequence);
        let entry = region.table(number);
        let old = entry.load(Relaxed); // nobody else writes the table
        // [pin/displacement], [cursor/displacement]: whoever pinned or joined before is seen below; [observed];
        // [table]: what is stored below shows the stamps of the displaced block, to its late readers
        fence(SeqCst);
        if !self.gate.lets_through(region, number) {
            return Err(Blocked::Full);
        }
        let displaced = table::physical(old, geometry)?;
        let block = self.spares.take(region)?;
        crash::point("open.chosen");
        entry.store(table::word(number, block), Relaxed); // the fence above releases
        crash::point("open.stored");
        self.spares.freed(displaced);
        self.origin = geometry.origin(block, self.sequence);
        self.block_end = self.sequence + geometry.block_len;
        Ok(self.written(region))
    }

    /// Whether the next slot is to be had without waiting; for a publisher that is about to sleep.
    pub(crate) fn may_go_on(&self, region: &Region) -> bool {
        self.sequence != self.block_end
            || table::gate_is_open(region, region.geometry().number(self.sequence))
    }
}
