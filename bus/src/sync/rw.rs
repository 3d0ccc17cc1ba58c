//! Who reads and who writes: see `rwlock.rs`.
//!
//! The lock word (`lock.rs`) is the writer's. Each reader says so in its own entry.
//!
//! ```text
//! read:    word free? own cell = 1; fence; word free?     else own cell = 0, change; sleep on the word
//! leave:   own cell = 0; change
//! write:   the word; fence; of each other member: does it read? then sleep until something changes
//! leave:   the word
//! ```
//!
//! The first look at the word is for the writer's sake: a reader that is refused there has not said that it reads, so no number of readers that only try, or give up
//! soon, keeps a writer waiting. Each says it once at most after a writer has the word. For the same reason a writer that does not wait
//! looks at the readers before it takes the word.
//!
//! Of a reader and a writer that come at once, at least one sees the other [reading]; it is the reader who goes back. So a writer that waits lets no new reader in. The cell of one that
//! died reading is set to 0 when it is buried. A word of one that died writing lets no reader in before a writer has mended what it protects.
//!
//! A reader that has slept on the word wakes the next sleeper when it is through: an unlock wakes one, and a reader leaves nothing behind for the others to be woken by.

use crate::atomics::{Acquire, Relaxed, Release, SeqCst, fence, now_ns};
use crate::crash;
use crate::region::EntryIndex;
use crate::sync::lock::{self, CONSISTENT, INCONSISTENT, Step, WAITERS};
use crate::sync::region::SyncRegion;
use crate::sync::seat::Seat;
use crate::sync::turn;
use crate::sync::wait::{Vigil, is_retired};

/// The cell that says how often a member reads.
const READING: usize = 0;

/// What a reader's step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// The caller reads; [`leave`] ends it.
    Reading,
    /// A living writer has it, or waits for others to leave: the word as it was.
    Held(u32),
    /// The caller's own seat writes.
    AlreadyHeld,
    WriterDied,
    NotRecoverable,
    Removed,
    /// Only of [`read`].
    TimedOut,
}

/// One try, without waiting.
#[inline]
pub(crate) fn step(seat: &Seat) -> Read {
    let cell = &seat.region.entry(seat.index).cells[READING];
    let count = cell.load(Relaxed); // only its owner writes it
    if count > 0 {
        cell.store(count.saturating_add(1), Relaxed); // no writer is in while it reads
        return Read::Reading;
    }
    let main = &seat.region.control().main.0;
    let seen = main.word.word().load(Relaxed); // who finds it free looks again
    if seen != 0 {
        return behind(seat, seen);
    }
    cell.store(1, Relaxed);
    crash::point("sync.read.said");
    fence(SeqCst); // [reading]: before the look at the word
    let seen = main.word.word().load(Acquire); // [mutex]
    let refused = match main.state.load(Relaxed) {
        _ if seen != 0 => behind(seat, seen),
        _ if main.joins.is_retired_relaxed() => Read::Removed,
        CONSISTENT => return Read::Reading,
        INCONSISTENT => Read::WriterDied,
        _ => Read::NotRecoverable,
    };
    leave(seat);
    refused
}

#[cold]
fn behind(seat: &Seat, seen: u32) -> Read {
    let word = seat.region.control().main.0.word.word();
    match seen & !WAITERS {
        owner if owner == lock::me(seat) => Read::AlreadyHeld,
        owner if lock::lives(seat, owner) => Read::Held(seen),
        // It unlocked, and then left: only who died with the word leaves its name there.
        owner if word.load(Relaxed) & !WAITERS != owner => Read::Held(seen),
        _ => Read::WriterDied,
    }
}

/// Reads; waits for writers until `deadline_ns`.
pub(crate) fn read(seat: &Seat, deadline_ns: u64) -> Read {
    match step(seat) {
        Read::Held(_) => {}
        done => return done,
    }
    let word = &seat.region.control().main.0.word;
    let mut vigil = Vigil::new(seat);
    let mut slept = false;
    let done = loop {
        let seen = match step(seat) {
            Read::Held(seen) => seen,
            done => break done,
        };
        let awaited = seen | WAITERS;
        if seen != awaited && word.word().compare_exchange(seen, awaited, Relaxed, Relaxed).is_err()
        {
            continue;
        }
        crash::point("sync.read.waits");
        if is_retired(&seat.region) {
            break Read::Removed;
        }
        if now_ns() >= deadline_ns {
            break Read::TimedOut;
        }
        vigil.sleep(word, awaited, deadline_ns);
        slept = true;
    };
    if slept {
        word.wake_one();
    }
    done
}

/// Reads once less.
#[inline]
pub(crate) fn leave(seat: &Seat) {
    let cell = &seat.region.entry(seat.index).cells[READING];
    match cell.load(Relaxed) {
        0 | 1 => {
            cell.store(0, Release); // [reading]
            crash::point("sync.read.left");
            turn::change(&seat.region, true);
        }
        count => cell.store(count - 1, Relaxed), // it reads still
    }
}

/// Writes; waits for writers, and then for readers, until `deadline_ns`.
pub(crate) fn write(seat: &Seat, deadline_ns: u64) -> Step {
    let region = &*seat.region;
    if region.entry(seat.index).cells[READING].load(Relaxed) > 0 {
        return Step::AlreadyHeld;
    }
    if deadline_ns != u64::MAX && now_ns() >= deadline_ns && is_read_by_the_living(seat) {
        return Step::TimedOut;
    }
    let locked = match lock::lock(seat, deadline_ns) {
        Step::Held(_) => return Step::TimedOut,
        locked @ Step::Locked { .. } => locked,
        done => return done,
    };
    crash::point("sync.write.word");
    fence(SeqCst); // [reading]: before the look at the readers
    if !is_read(seat) {
        return locked;
    }
    let mut vigil = Vigil::new(seat);
    loop {
        let expected = turn::expect(region);
        if !is_read(seat) {
            return locked;
        }
        let vain = match now_ns() >= deadline_ns {
            _ if is_retired(region) => Some(Step::Removed),
            true => Some(Step::TimedOut),
            false => None,
        };
        if let Some(vain) = vain {
            // What is half written stays so, for the next writer.
            lock::unlock(seat);
            return vain;
        }
        vigil.sleep(&region.control().turn.0, expected, deadline_ns);
    }
}

/// Whether another member reads, or has died reading and is not buried.
fn is_read(seat: &Seat) -> bool {
    let region = &*seat.region;
    let mark = region.control().roster.0.word().load(Relaxed) & 0xff;
    // [reading]: who sees that somebody has left: its reads are over
    let reads = |index: EntryIndex| region.entry(index).cells[READING].load(Acquire) > 0;
    region.entries(mark).any(|index| index != seat.index && reads(index))
}

/// The same, when those who died were buried.
#[cold]
fn is_read_by_the_living(seat: &Seat) -> bool {
    is_read(seat) && (!seat.bury_the_dying() || is_read(seat))
}

/// How often a member reads, as one who looks on sees it.
#[cfg(not(loom))]
pub(crate) fn reads(region: &SyncRegion, index: EntryIndex) -> u64 {
    region.entry(index).cells[READING].load(Relaxed)
}

/// Of one that is dead or leaves.
pub(crate) fn give_back(region: &SyncRegion, index: EntryIndex, generation: u64) -> bool {
    let cell = &region.entry(index).cells[READING];
    let had = cell.load(Relaxed) > 0;
    cell.store(0, Release); // [reading]
    crash::point("sync.read.given_back");
    if had {
        turn::change(region, true);
    }
    lock::give_back(region, index, generation) || had
}
