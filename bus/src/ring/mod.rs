//! The ring: one stream of messages, cut into blocks that are reused as a whole.
//!
//! A *sequence* is a position in the stream. Block `b` holds the sequences `b * block_len ..`; the *table*
//! says which *physical* block it lives in. To open block `b`, a publisher takes a physical block that neither the
//! table names nor anybody pins (a *spare*) and stores it over the entry of block `b - blocks`, whose physical
//! block becomes a spare. A reader *pins* a physical block before it reads there. So a message is never overwritten
//! while somebody looks at it, and a publisher never waits for somebody who looks.
//!
//! `docs/ring.md` has the protocol and why it is right, `docs/memory-model.md` each ordering. There is no `unsafe` below
//! this folder.

pub(crate) mod exclusive;
pub(crate) mod hold;
pub(crate) mod reader;
pub(crate) mod shared;
pub(crate) mod skips;
pub(crate) mod table;
pub(crate) mod watcher;

use crate::layout::{
    ENTRIES_OFFSET, Entry, PAGE, SLOT_ALIGN, SLOT_HEADER, SLOT_HEADER_TIMESTAMP, TABLE_OFFSET,
};

/// A physical block that exists in its region: made only by [`Geometry::block`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block(u32);

impl Block {
    pub(crate) fn index(self) -> u32 {
        self.0
    }

    /// As it stands in a pin or hold cell, where 0 is none.
    pub(crate) fn pinned(self) -> u64 {
        u64::from(self.0) + 1
    }
}

/// A slot of its region: where it begins, in bytes from the first slot. Made by [`Geometry::slot`], and by [`Geometry::next`] and
/// [`Geometry::slot_from`] within one block; one behind a block's last slot is never used, because a ring compares its sequence first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotAt(u64);

impl SlotAt {
    #[inline]
    pub(crate) fn offset(self) -> u64 {
        self.0
    }
}

/// Shared memory that says what no participant that follows the protocol can have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Corrupt {
    /// A table entry names a physical block that does not exist, or one that another entry names.
    #[error("the block table names a block that does not exist or is named twice")]
    Table,
    /// No physical block is free although the geometry guarantees one.
    #[error("no spare block is free, although one for every possible pin exists")]
    NoSpare,
    /// The length in a slot is beyond the topic's largest payload, or not one of its messages.
    #[error(
        "a slot states a length of {len} bytes, which no message of the topic has (at most {max})"
    )]
    Length {
        /// As stated.
        len: u32,
        /// What the topic allows.
        max: u32,
    },
    /// The stream went back, or a block that a reliable subscriber had not received was reused.
    #[error("the stream is not where its participants left it")]
    Stream,
}

/// What follows from a topic's options: computed once, never read again from shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// `B`: sequences of one block, a power of two.
    pub(crate) block_len: u64,
    /// `M`: blocks that the table names, a power of two.
    pub(crate) blocks: u32,
    /// `E`: blocks that it does not name.
    pub(crate) spares: u32,
    pub(crate) slot_size: u64,
    pub(crate) payload_offset: u32,
    pub(crate) payload_max: u32,
    pub(crate) publishers_max: u32,
    pub(crate) subscribers_max: u32,
    pub(crate) hold_blocks: u32,
    /// Whether many publish at once.
    pub(crate) shared: bool,
    pub(crate) timestamp: bool,
    /// Whether each entry has a page of its own, and `hold_blocks` is the budget of each subscriber.
    pub(crate) guarded: bool,
    /// Bytes of the schema text behind the table.
    pub(crate) schema_len: u32,
}

/// A message's slot may be this large at most; a topic of larger ones is refused.
pub(crate) const SLOT_SIZE_MAX: u64 = 1 << 31;
/// Physical blocks of a topic: their numbers have 16 bits, and 0 in a pin means none.
pub(crate) const BLOCKS_LIMIT: u64 = 65_535;
const BLOCK_LEN_MAX: u64 = 4096;
/// No stream gets here: a stamp has 62 bits for its sequence.
pub(crate) const SEQUENCE_LIMIT: u64 = 1 << 62;

impl Geometry {
    /// The largest block that leaves at least half of the depth in live blocks: `spares * block_len <= depth / 2`.
    ///
    /// `depth` is a power of two; the caller has checked the options one by one, so `None` means that the product is
    /// too large for a file.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        depth: u64,
        payload_max: u32,
        payload_align: u32,
        publishers_max: u32,
        shared: bool,
        subscribers_max: u32,
        hold_blocks: u32,
        timestamp: bool,
    ) -> Option<Geometry> {
        // One for each pin that can exist at once, and one more. A shared publisher has two: it may be moving a message.
        let publishers_pins = if shared { 2 * u64::from(publishers_max) } else { 0 };
        let spares = u64::from(subscribers_max) + u64::from(hold_blocks) + publishers_pins + 1;
        let geometry = Geometry {
            block_len: 1,
            blocks: 0,
            spares: u32::try_from(spares).ok()?,
            slot_size: 0,
            payload_offset: 0,
            payload_max,
            publishers_max,
            subscribers_max,
            hold_blocks,
            shared,
            timestamp,
            guarded: false,
            schema_len: 0,
        };
        geometry.of_depth(depth, payload_align)
    }

    /// The same of a guarded topic, where what one subscriber pins and holds takes nothing from the others: a spare for each pin and each hold
    /// that any of them can have.
    pub(crate) fn guarded(self, payload_align: u32) -> Option<Geometry> {
        let spares = u64::from(self.subscribers_max) * (1 + u64::from(self.hold_blocks)) + 1;
        let geometry = Geometry { spares: u32::try_from(spares).ok()?, guarded: true, ..self };
        geometry.of_depth(self.depth(), payload_align)
    }

    /// What follows from the depth and the number of spares.
    fn of_depth(self, depth: u64, payload_align: u32) -> Option<Geometry> {
        let Geometry { payload_max, timestamp, schema_len, .. } = self;
        let spares = u64::from(self.spares);
        let mut block_len = 1;
        while block_len < BLOCK_LEN_MAX && spares * block_len * 2 <= depth / 2 {
            block_len *= 2;
        }
        let align = u64::from(payload_align).max(8);
        let header = if timestamp { SLOT_HEADER_TIMESTAMP } else { SLOT_HEADER };
        let payload_offset = header.next_multiple_of(align);
        let slot_size = payload_offset
            .checked_add(u64::from(payload_max))?
            .checked_next_multiple_of(align.max(SLOT_ALIGN))?;
        let blocks = depth / block_len;
        if slot_size > SLOT_SIZE_MAX || blocks + spares > BLOCKS_LIMIT {
            return None;
        }
        let geometry = Geometry {
            block_len,
            blocks: blocks as u32,
            slot_size,
            payload_offset: payload_offset as u32,
            ..self
        };
        geometry.with_schema(schema_len)
    }

    /// The same with a schema text of `schema_len` bytes.
    pub(crate) fn with_schema(self, schema_len: u32) -> Option<Geometry> {
        let geometry = Geometry { schema_len, ..self };
        let bytes = geometry.slots_len_checked()?.checked_add(geometry.slots_offset())?;
        (bytes <= i64::MAX as u64 && usize::try_from(bytes).is_ok()).then_some(geometry)
    }

    pub(crate) fn depth(&self) -> u64 {
        u64::from(self.blocks) * self.block_len
    }

    /// Number of physical blocks.
    pub(crate) fn physical(&self) -> u32 {
        self.blocks + self.spares
    }

    /// The only way to a [`Block`]: a number read from shared memory, checked.
    #[inline]
    pub(crate) fn block(&self, number: u64) -> Result<Block, Corrupt> {
        if number < u64::from(self.physical()) {
            Ok(Block(number as u32))
        } else {
            Err(Corrupt::Table)
        }
    }

    /// The slot of `sequence`, whose block lives in `block`.
    pub(crate) fn slot(&self, block: Block, sequence: u64) -> SlotAt {
        SlotAt((u64::from(block.0) * self.block_len + self.place(sequence)) * self.slot_size)
    }

    /// Where sequence 0 would lie if it were of the block of `sequence`, which lives in `block`: modulo 2^64, as it may be before the first slot.
    pub(crate) fn origin(&self, block: Block, sequence: u64) -> u64 {
        self.slot(block, sequence).0.wrapping_sub(sequence.wrapping_mul(self.slot_size))
    }

    /// The slot of a `sequence` of the block whose origin this is: [`Geometry::slot`], without the block.
    #[inline]
    pub(crate) fn slot_from(&self, origin: u64, sequence: u64) -> SlotAt {
        SlotAt(origin.wrapping_add(sequence.wrapping_mul(self.slot_size)))
    }

    /// The slot behind `at`, in the same block.
    #[inline]
    pub(crate) fn next(&self, at: SlotAt) -> SlotAt {
        SlotAt(at.0 + self.slot_size)
    }

    /// The physical block in which a slot lies.
    pub(crate) fn block_of(&self, at: SlotAt) -> Block {
        Block((at.0 / (self.slot_size * self.block_len)) as u32)
    }

    /// Place of a sequence in its block.
    pub(crate) fn place(&self, sequence: u64) -> u64 {
        sequence & (self.block_len - 1)
    }

    /// Number of the block that a sequence belongs to.
    #[inline]
    pub(crate) fn number(&self, sequence: u64) -> u64 {
        sequence >> self.block_len.trailing_zeros()
    }

    pub(crate) fn participants(&self) -> u32 {
        self.publishers_max + self.subscribers_max
    }

    pub(crate) fn table_len(&self) -> u64 {
        (u64::from(self.blocks) * 8).next_multiple_of(PAGE)
    }

    /// Where the schema text stands, if there is one.
    pub(crate) fn schema_offset(&self) -> u64 {
        TABLE_OFFSET + self.table_len()
    }

    pub(crate) fn slots_offset(&self) -> u64 {
        // A page is enough for every alignment that is accepted.
        self.schema_offset() + u64::from(self.schema_len).next_multiple_of(PAGE)
    }

    fn slots_len_checked(&self) -> Option<u64> {
        u64::from(self.physical()).checked_mul(self.block_len)?.checked_mul(self.slot_size)
    }

    /// Bytes of the slots of `blocks` blocks.
    pub(crate) fn slots_len(&self, blocks: u32) -> u64 {
        u64::from(blocks) * self.block_len * self.slot_size
    }

    /// Length of `data`.
    pub(crate) fn data_len(&self) -> u64 {
        self.slots_offset() + self.slots_len(self.physical())
    }

    /// Length of `ctl`.
    pub(crate) fn control_len(&self) -> u64 {
        if self.guarded { ENTRIES_OFFSET } else { self.control_span() }
    }

    /// Length of `ctl` and of the entries behind it, which are files of their own in a guarded topic.
    pub(crate) fn control_span(&self) -> u64 {
        let entries = u64::from(self.participants()) * self.entry_stride();
        (ENTRIES_OFFSET + entries).next_multiple_of(PAGE)
    }

    /// Bytes from one entry to the next.
    #[inline]
    pub(crate) fn entry_stride(&self) -> u64 {
        if self.guarded { PAGE } else { size_of::<Entry>() as u64 }
    }
}

/// Stamp of a sequence that carries a message.
#[inline]
pub(crate) fn message_stamp(sequence: u64) -> u64 {
    sequence << 2 | 1
}

/// Stamp of a sequence that never will.
#[inline]
pub(crate) fn abandoned_stamp(sequence: u64) -> u64 {
    sequence << 2 | 2
}

/// A sequence read from shared memory, checked: below the limit no arithmetic on it overflows.
pub(crate) fn checked(sequence: u64) -> Result<u64, Corrupt> {
    if sequence <= SEQUENCE_LIMIT { Ok(sequence) } else { Err(Corrupt::Stream) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_the_largest_that_leaves_the_spares_half_of_the_depth() {
        let geometry = Geometry::new(65_536, 48, 8, 1, false, 64, 16, false).unwrap();
        assert_eq!((geometry.spares, geometry.block_len, geometry.blocks), (81, 256, 256));
        assert_eq!((geometry.payload_offset, geometry.slot_size), (16, 64));
        assert_eq!(geometry.depth(), 65_536);
    }

    #[test]
    fn a_small_ring_has_blocks_of_one_message() {
        let geometry = Geometry::new(4, 8, 8, 1, false, 16, 8, true).unwrap();
        assert_eq!((geometry.block_len, geometry.blocks, geometry.payload_offset), (1, 4, 24));
    }

    #[test]
    fn a_product_that_overflows_is_no_geometry() {
        assert_eq!(Geometry::new(1 << 28, 1 << 30, 8, 1, false, 4, 8, false), None);
        assert_eq!(Geometry::new(1 << 16, 8, 8, 1, false, 256, 65_000, false), None);
    }

    #[test]
    fn only_physical_blocks_that_exist_are_blocks() {
        let geometry = Geometry::new(64, 8, 8, 1, false, 1, 1, false).unwrap();
        let last = u64::from(geometry.physical()) - 1;
        assert_eq!(geometry.block(last).unwrap().pinned(), last + 1);
        assert_eq!(geometry.block(last + 1), Err(Corrupt::Table));
    }
}
