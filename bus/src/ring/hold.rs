//! Held samples: a hold cell for each block in which one participant holds something.
//!
//! A hold is taken while the block is pinned, so there is no moment at which nothing protects it: cell, bit in `held`, and only
//! later does the pin move. The topic has a budget of held blocks, for which spares exist; over it a hold is refused and
//! the sample stays usable as it was. So nobody's holding ever makes a publisher wait.
//!
//! Any thread of the process may hold, share and release at any time: samples go to other threads, and a batch has several.

use std::sync::PoisonError;

use super::Block;
use crate::atomics::{AcqRel, Acquire, AtomicU64, Mutex, Relaxed, Release, SeqCst, fence};
use crate::crash;
use crate::layout::{Entry, HOLD_CELLS};
use crate::region::{EntryIndex, Region};
use crate::registry::State;

/// The topic's budget of held blocks, or this subscriber's own cells, are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OverBudget;

/// The hold cells of one entry, as this process uses them. Private to the process, shared by its threads.
pub(crate) struct Holds {
    /// Held by whoever takes a cell or joins one: so nobody joins a cell that is not shown yet, and two that hold one block share a cell.
    taking: Mutex<()>,
    /// Of each cell: how many held samples share it, + [`NOBODY`]; [`FREE`] only when its bit in the entry is cleared as well.
    ///
    /// 64 bits, because a forgotten sample is never given back. Each has an `Arc` of its subscriber's seat, which aborts long before this is full.
    samples: [AtomicU64; HOLD_CELLS],
}

/// The cell may be taken.
const FREE: u64 = 0;
/// The last sample was given back, and the bit is about to be cleared.
const NOBODY: u64 = 1;

impl Holds {
    pub(crate) fn none() -> Holds {
        let samples = core::array::from_fn(|_| AtomicU64::new(FREE));
        Holds { taking: Mutex::new(()), samples }
    }

    /// Holds `block`, which the owner of the entry pins until this returns. Any thread.
    #[cold]
    pub(crate) fn hold(
        &self,
        region: &Region,
        index: EntryIndex,
        block: Block,
    ) -> Result<usize, OverBudget> {
        let _taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = region.entry(index);
        let held = entry.held.load(Relaxed); // bits are set with `taking`; of one that is cleared, the count below decides
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
        let mut free = bits(!held).filter(|cell| self.is_free(*cell));
        let cell = free.next().ok_or(OverBudget)?;
        self.samples[cell].store(NOBODY + 1, Relaxed); // nobody else changes one that is free
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

    /// One more sample for a cell that somebody of this process still holds. With `taking`, so that the cell stays that of its block.
    fn join(&self, cell: usize) -> bool {
        let samples = &self.samples[cell];
        let mut count = samples.load(Relaxed);
        while count > NOBODY {
            match samples.compare_exchange(count, count + 1, Relaxed, Relaxed) {
                Ok(_) => return true,
                Err(seen) => count = seen,
            }
        }
        false
    }

    fn is_free(&self, cell: usize) -> bool {
        self.samples[cell].load(Acquire) == FREE // [hold cell]: a cell given back by another thread
    }

    /// One more sample for a cell that the caller holds. Any thread.
    pub(crate) fn share(&self, cell: usize) {
        self.samples[cell].fetch_add(1, Relaxed);
    }

    /// [`Holds::share`], so many times.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn share_often(&self, cell: usize, times: u64) {
        self.samples[cell].fetch_add(times, Relaxed);
    }

    /// Gives one sample back; the last one frees the cell. Any thread.
    pub(crate) fn release(&self, entry: &Entry, cell: usize) {
        // [hold cell]: the reads of every thread that shared it
        if self.samples[cell].fetch_sub(1, AcqRel) == NOBODY + 1 {
            entry.held.fetch_and(!(1 << cell), Release); // [last use]
            crash::point("hold.released");
            self.samples[cell].store(FREE, Release); // [hold cell]: taken again only with its bit cleared
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
