//! The block table, the spares, and the two questions of an opening: who would lose messages, who looks where.
//!
//! A table entry is one word: block number modulo 2^48, physical block (16 bits). Entry `i` starts as
//! `(i - blocks, physical i)`, so "never opened" is not a special case. Numbers are compared by signed difference.
//!
//! A physical block that no entry names is a spare. Which ones they are is *derived* from the table, so there is nothing to
//! repair after a crash. A spare may still be pinned by a reader that pinned it while it was named. Once a scan has seen it
//! unpinned it is *proven*: a pin that comes later fails its validation, because the table does not name the block.

use core::cmp::Ordering;

use super::{Block, Corrupt, Geometry};
use crate::atomics::{Acquire, Relaxed};
use crate::guard;
use crate::layout::Entry;
use crate::region::{EntryIndex, Region};
use crate::registry::{Kind, State};

const NUMBER_BITS: u32 = 48;
const PHYSICAL_BITS: u32 = 64 - NUMBER_BITS;

/// The word for block `number` in physical block `block`.
pub(crate) fn word(number: u64, block: Block) -> u64 {
    number << PHYSICAL_BITS | u64::from(block.index())
}

/// What entry `index` of a new table of `blocks` entries says.
pub(crate) fn initial(index: u64, blocks: u64) -> u64 {
    index.wrapping_sub(blocks) << PHYSICAL_BITS | index
}

/// How far the block in `word` is ahead of block `number`.
#[inline]
pub(crate) fn ahead(word: u64, number: u64) -> i64 {
    ((word >> PHYSICAL_BITS).wrapping_sub(number) << PHYSICAL_BITS) as i64 >> PHYSICAL_BITS
}

/// Whether `word` names an older block than `number`, that one, or a newer one.
#[inline]
pub(crate) fn age(word: u64, number: u64) -> Ordering {
    ahead(word, number).cmp(&0)
}

/// The physical block in `word`, checked.
#[inline]
pub(crate) fn physical(word: u64, geometry: &Geometry) -> Result<Block, Corrupt> {
    geometry.block(word & ((1 << PHYSICAL_BITS) - 1))
}

/// A set of physical blocks.
pub(crate) struct Blocks(Vec<u64>);

impl Blocks {
    pub(crate) fn none_of(geometry: &Geometry) -> Blocks {
        Blocks(vec![0; geometry.physical().div_ceil(64) as usize])
    }

    pub(crate) fn clear(&mut self) {
        self.0.fill(0);
    }

    /// False where it was there already.
    pub(crate) fn insert(&mut self, index: u32) -> bool {
        let Some(word) = self.0.get_mut(index as usize / 64) else { return false };
        let new = *word & 1 << (index % 64) == 0;
        *word |= 1 << (index % 64);
        new
    }

    fn contains(&self, index: u32) -> bool {
        self.0.get(index as usize / 64).is_some_and(|word| word & 1 << (index % 64) != 0)
    }

    /// The lowest of `count` that is not in it.
    pub(crate) fn first_missing(&self, count: u32) -> Option<u32> {
        let word = self.0.iter().position(|word| *word != u64::MAX)?;
        let index = word as u32 * 64 + self.0[word].trailing_ones();
        (index < count).then_some(index)
    }
}

/// The spares as an exclusive publisher keeps them: private, in the order in which they were freed.
pub(crate) struct Spares {
    /// Left the table; perhaps still pinned. The most recently freed one last.
    unproven: Vec<Block>,
    /// Seen unpinned since; the most recently freed one first.
    proven: Vec<Block>,
    pinned: Blocks,
}

impl Spares {
    pub(crate) fn none(region: &Region) -> Spares {
        let pinned = Blocks::none_of(region.geometry());
        Spares { unproven: Vec::new(), proven: Vec::new(), pinned }
    }

    /// Derives the spares from the table.
    pub(crate) fn derive(region: &Region) -> Result<Spares, Corrupt> {
        let geometry = region.geometry();
        let mut named = Blocks::none_of(geometry);
        for index in 0..u64::from(geometry.blocks) {
            // The caller is the only publisher: nobody else writes the table.
            let block = physical(region.table(index).load(Acquire), geometry)?; // [table]: a predecessor's openings
            if !named.insert(block.index()) {
                return Err(Corrupt::Table);
            }
        }
        let mut unproven = Vec::with_capacity(geometry.spares as usize + 1);
        for index in (0..geometry.physical()).filter(|index| !named.contains(*index)) {
            unproven.push(geometry.block(u64::from(index))?);
        }
        let proven = Vec::with_capacity(geometry.spares as usize + 1);
        Ok(Spares { unproven, proven, pinned: Blocks::none_of(geometry) })
    }

    /// A spare that nobody pins. The caller has fenced after its last look at the table.
    ///
    /// The one that was freed first, so that as long as nobody keeps one back blocks are opened in the order of their addresses, lap for lap: what is written
    /// next lies behind, for whoever fetches it ahead.
    pub(crate) fn take(&mut self, region: &Region) -> Result<Block, Corrupt> {
        if self.proven.is_empty() {
            self.scan(region);
        }
        self.proven.pop().ok_or(Corrupt::NoSpare)
    }

    /// A block has left the table.
    pub(crate) fn freed(&mut self, block: Block) {
        self.unproven.push(block);
    }

    /// Moves every unproven spare that nobody pins to the proven ones. Each pin is read once.
    #[cold]
    fn scan(&mut self, region: &Region) {
        let Spares { unproven, proven, pinned } = self;
        pinned.clear();
        pins(region, pinned);
        unproven.retain(|block| {
            let keep = pinned.contains(block.index());
            if !keep {
                proven.push(*block);
            }
            keep
        });
        proven.reverse();
    }
}

/// Adds every physical block that anybody pins or holds. Each cell is read once.
pub(crate) fn pins(region: &Region, blocks: &mut Blocks) {
    let most = guard::holds_max(region);
    for (index, entry) in region.entries().map(|index| (index, region.entry(index))) {
        // [last use]: reads and writes of an owner that has left or is dead
        let state = State::of(entry.state.load(Acquire));
        if guard::believe(region, index, state).is_active() {
            for_each_pin(entry, most, |pin| {
                blocks.insert(pin);
            });
        }
    }
}

/// The physical blocks that the owner of `entry` pins or holds.
///
/// The pin is read before the others: a reader fills a hold cell, and a publisher its second pin, before it moves the pin, so whoever
/// sees the pin moved sees them. Of holds, `most` are looked at.
fn for_each_pin(entry: &Entry, most: u32, mut pinned: impl FnMut(u32)) {
    let pin = entry.pin.load(Acquire); // [last use]: the owner's reads of the block it left; [hold]
    if let Some(block) = pin.checked_sub(1) {
        pinned(block as u32);
    }
    let second = entry.second_pin.load(Acquire); // [last use]: the message moved from there
    if let Some(block) = second.checked_sub(1) {
        pinned(block as u32);
    }
    let mut held = entry.held.load(Acquire); // [last use]: reads through a hold that was given back
    for _ in 0..most {
        if held == 0 {
            break;
        }
        let cell = &entry.holds[held.trailing_zeros() as usize % entry.holds.len()];
        let block = cell.load(Acquire); // [last use]: reads through an earlier hold in this cell
        if let Some(block) = block.checked_sub(1) {
            pinned(block);
        }
        held &= held - 1;
    }
}

/// Who would lose messages: how far reliable subscribers let publishers go.
///
/// The answer of a look at all entries is kept and serves until the limit is reached, or until `roster` says that somebody
/// joined. So an opening reads one shared word, however many subscribers there are.
pub(crate) struct Gate {
    roster: u64,
    /// Blocks below may be opened.
    until: u64,
}

impl Gate {
    pub(crate) fn closed() -> Gate {
        Gate { roster: 0, until: 0 }
    }

    /// Whether block `number` may be opened. The caller has fenced after its last look at the table.
    pub(crate) fn lets_through(&mut self, region: &Region, number: u64) -> bool {
        let roster = region.control().roster.0.load(Acquire); // [roster]: the joiner's state and cursor
        // On a guarded topic it is not subscribers who raise it: each opening looks.
        if roster != self.roster || number >= self.until || region.is_guarded() {
            self.roster = roster;
            self.until = first_forbidden(region);
        }
        number < self.until
    }
}

/// The first block that the slowest reliable subscriber forbids to open.
#[cold]
fn first_forbidden(region: &Region) -> u64 {
    let slowest = region
        .subscribers()
        .filter_map(|index| reliable(region, index))
        .map(|reliable| reliable.cursor)
        .min();
    slowest.map_or(u64::MAX, |cursor| first_forbidden_by(region, cursor))
}

/// A reliable subscriber, as it was seen: what is decided about it holds for this owner of the entry, and for no later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reliable {
    pub(crate) index: EntryIndex,
    pub(crate) generation: u64,
    pub(crate) cursor: u64,
}

/// The reliable subscribers that forbid to open block `number`.
pub(crate) fn who_forbids(region: &Region, number: u64) -> impl Iterator<Item = Reliable> {
    region
        .subscribers()
        .filter_map(|index| reliable(region, index))
        .filter(move |reliable| first_forbidden_by(region, reliable.cursor) <= number)
}

fn reliable(region: &Region, index: EntryIndex) -> Option<Reliable> {
    let entry = region.entry(index);
    let state = State::of(entry.state.load(Acquire)); // [roster]: cursor and patience of this owner, not of one before
    let cursor = entry.cursor.load(Relaxed); // whether it reads there its pin says
    let generation = state.generation;
    let is_reliable = guard::believe(region, index, state) == Kind::Reliable;
    is_reliable.then_some(Reliable { index, generation, cursor })
}

fn first_forbidden_by(region: &Region, cursor: u64) -> u64 {
    let geometry = region.geometry();
    geometry.number(cursor).saturating_add(u64::from(geometry.blocks))
}

/// Whether block `number` may be opened, by a look at every entry: for a publisher that waits.
pub(crate) fn gate_is_open(region: &Region, number: u64) -> bool {
    number < first_forbidden(region)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry() -> Geometry {
        Geometry::new(64, 8, 8, 1, false, 1, 1, false).unwrap()
    }

    #[test]
    fn a_new_table_is_one_lap_behind_the_first() {
        let geometry = geometry();
        for index in 0..u64::from(geometry.blocks) {
            let entry = initial(index, geometry.blocks.into());
            assert_eq!(ahead(entry, index), -i64::from(geometry.blocks));
            assert_eq!(u64::from(physical(entry, &geometry).unwrap().index()), index);
        }
    }

    #[test]
    fn block_numbers_are_compared_across_the_wrap_of_48_bits() {
        let block = geometry().block(3).unwrap();
        for number in [0, 1 << 47, (1 << 48) - 1, 1 << 48, (1 << 61) + 5] {
            assert_eq!(ahead(word(number, block), number), 0);
            assert_eq!(ahead(word(number + 1, block), number), 1);
            assert_eq!(ahead(word(number, block), number + 7), -7);
        }
    }
}
