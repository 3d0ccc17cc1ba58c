//! Held samples: a hold cell for each block in which one participant holds something.
//!
//! A hold is taken while the block is pinned, so there is no moment at which nothing protects it: cell, bit in `held`, and only
//! later does the pin move. The topic has a budget of held blocks, for which spares exist; over it a hold is refused and
//! the sample stays usable as it was. So nobody's holding ever makes a publisher wait.

use super::Block;
use crate::atomics::{AcqRel, Acquire, AtomicU32, Relaxed, Release, SeqCst, fence};
use crate::crash;
use crate::layout::{Entry, HOLD_CELLS};
use crate::region::{EntryIndex, Region};
use crate::registry::State;

/// The topic's budget of held blocks, or this subscriber's own cells, are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OverBudget;

/// How many held samples of this process share each cell of one entry. Private to the process, shared by its threads.
pub(crate) struct Holds {
    samples: [AtomicU32; HOLD_CELLS],
}

impl Holds {
    pub(crate) fn none() -> Holds {
        Holds { samples: core::array::from_fn(|_| AtomicU32::new(0)) }
    }

    /// Holds `block`, which the owner of the entry pins. Only the owner's one reader calls this.
    #[cold]
    pub(crate) fn hold(
        &self,
        region: &Region,
        index: EntryIndex,
        block: Block,
    ) -> Result<usize, OverBudget> {
        let entry = region.entry(index);
        let held = entry.held.load(Acquire); // [hold cell]: a cell given back by another thread
        let pinned = block.pinned() as u32;
        for cell in bits(held) {
            if entry.holds[cell].load(Relaxed) == pinned && self.join(cell) {
                return Ok(cell);
            }
        }
        // On a guarded topic the budget is this subscriber's own, and a bit beyond it would hide another one from a scan.
        if region.is_guarded() && held.count_ones() >= region.geometry().hold_blocks {
            return Err(OverBudget);
        }
        // The bit alone is not believed: whoever may write the topic can clear it.
        let mut free = bits(!held).filter(|cell| self.samples[*cell].load(Relaxed) == 0);
        let cell = free.next().ok_or(OverBudget)?;
        self.samples[cell].store(1, Relaxed);
        entry.holds[cell].store(pinned, Release); // [last use]: reads through the cell's former block
        crash::point("hold.cell_stored");
        entry.held.fetch_or(1 << cell, Relaxed); // seen with the cell by whoever sees the pin moved: [hold] in `Reader::enter`
        crash::point("hold.shown");
        fence(SeqCst); // [budget]: of two that hold at once, one sees the other
        if held_blocks(region) > region.geometry().hold_blocks {
            self.release(entry, cell);
            return Err(OverBudget);
        }
        Ok(cell)
    }

    /// One more sample for a cell that somebody of this process still holds.
    fn join(&self, cell: usize) -> bool {
        let samples = &self.samples[cell];
        let mut count = samples.load(Relaxed);
        while count != 0 {
            match samples.compare_exchange(count, count + 1, Relaxed, Relaxed) {
                Ok(_) => return true,
                Err(seen) => count = seen,
            }
        }
        false
    }

    /// One more sample for a cell that the caller holds.
    pub(crate) fn share(&self, cell: usize) {
        self.samples[cell].fetch_add(1, Relaxed);
    }

    /// Gives one sample back; the last one frees the cell. Any thread.
    pub(crate) fn release(&self, entry: &Entry, cell: usize) {
        // [hold cell]: the reads of every thread that shared it
        if self.samples[cell].fetch_sub(1, AcqRel) == 1 {
            entry.held.fetch_and(!(1 << cell), Release); // [last use], [hold cell]
            crash::point("hold.released");
        }
    }
}

/// Held blocks of all participants that count.
fn held_blocks(region: &Region) -> u32 {
    region
        .subscribers()
        .map(|index| region.entry(index))
        .filter(|entry| State::of(entry.state.load(Relaxed)).kind.reads())
        .map(|entry| entry.held.load(Relaxed).count_ones()) // [budget]: behind the fence
        .sum()
}

/// The cells whose bits are set.
fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let cell = mask.trailing_zeros() as usize;
        mask &= mask.wrapping_sub(1);
        (cell < HOLD_CELLS).then_some(cell)
    })
}
