//! Participants: one entry each, its state one word of (generation, kind).
//!
//! Whoever owns an entry holds the lease on its byte: an open-file-description lock, which the kernel gives back when the process
//! dies. *Taking the lease is taking the entry*: no other lock is needed to join. A former owner's pins, cursor and claim are ignored from the moment
//! that the state is not an active one, and cleared before it becomes active again. Declaring an owner dead is one
//! compare-exchange from (generation, active kind) to (generation, dead) by whoever has seen the lease free: the generation keeps a
//! prover that stalls from touching the entry's next owner.

use crate::atomics::{Relaxed, Release};
use crate::crash;
use crate::region::{EntryIndex, Region};

/// What the owner of an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Free = 0,
    /// Owned, and not counted yet.
    Joining = 1,
    Lossy = 2,
    Reliable = 3,
    Publisher = 4,
    /// The owner is gone; its lease was seen free.
    Dead = 5,
    /// The same, and the record has it; of a synchronisation object: and what it had there was given back.
    Counted = 6,
    /// Of a synchronisation object: the owner takes part. No topic has one.
    Member = 7,
}

impl Kind {
    /// Whether the pins of the entry count.
    pub(crate) fn reads(self) -> bool {
        matches!(self, Kind::Lossy | Kind::Reliable)
    }

    /// Whether the owner takes part.
    pub(crate) fn is_active(self) -> bool {
        matches!(self, Kind::Lossy | Kind::Reliable | Kind::Publisher)
    }
}

/// The state word of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) generation: u64,
    pub(crate) kind: Kind,
}

impl State {
    /// Every word is a state: an unknown kind is a dead one.
    pub(crate) fn of(word: u64) -> State {
        let kind = match word as u8 {
            0 => Kind::Free,
            1 => Kind::Joining,
            2 => Kind::Lossy,
            3 => Kind::Reliable,
            4 => Kind::Publisher,
            6 => Kind::Counted,
            7 => Kind::Member,
            _ => Kind::Dead,
        };
        State { generation: word >> 8, kind }
    }

    pub(crate) fn word(self) -> u64 {
        self.generation << 8 | self.kind as u64
    }
}

/// Takes possession of an entry whose lease the caller has just taken. Whoever owned it before is ignored from here on.
pub(crate) fn occupy(region: &Region, index: EntryIndex) -> u64 {
    let entry = region.entry(index);
    let mut seen = entry.state.load(Relaxed); // the lease acquires
    let generation = loop {
        let generation = State::of(seen).generation.wrapping_add(1) << 8 >> 8;
        let joining = State { generation, kind: Kind::Joining }.word();
        // Fails at most once: a prover may still declare the former owner dead.
        match entry.state.compare_exchange(seen, joining, Release, Relaxed) {
            Ok(_) => break generation, // [entry]
            Err(now) => seen = now,
        }
    };
    crash::point("join.joining");
    for word in [&entry.pin, &entry.second_pin, &entry.cursor, &entry.claim, &entry.held] {
        word.store(0, Release); // [last use]: what the former owner read, for whoever scans
    }
    for word in [&entry.patience_ns, &entry.position, &entry.missed, &entry.joined_ns] {
        word.store(0, Relaxed);
    }
    crash::point("join.cleared");
    generation
}

/// Makes an occupied entry count: from here on publishers see its pins and, where it is reliable, its cursor.
pub(crate) fn activate(region: &Region, index: EntryIndex, generation: u64, kind: Kind) {
    region.entry(index).state.store(State { generation, kind }.word(), Release); // [roster]
    crash::point("join.active");
    if region.is_guarded() {
        return; // a subscriber may not write there, and each opening looks
    }
    region.control().roster.0.fetch_add(1, Release); // [roster]: state and cursor, by the next opening
    crash::point("join.raised");
}

/// Gives an entry back; its owner uses it no more. The lease is given back after this.
pub(crate) fn vacate(region: &Region, index: EntryIndex, generation: u64) {
    let entry = region.entry(index);
    entry.pin.store(0, Release); // [last use]
    entry.held.store(0, Release); // [last use]
    crash::point("leave.unpinned");
    entry.state.store(State { generation, kind: Kind::Free }.word(), Release); // [entry], [last use]
}

/// Says of an entry, if it is the caller's still, that its process is ending in order.
#[cfg(not(loom))]
pub(crate) fn state_end(region: &Region, index: EntryIndex, generation: u64) {
    let entry = region.entry(index);
    let seen = State::of(entry.state.load(Relaxed));
    if seen.generation == generation && seen.kind.is_active() {
        entry.pid.store(crate::recovery::ENDED, Relaxed); // the kernel releases it, with the lease
    }
}

/// Makes a reliable subscriber lossy: it held publishers up for longer than it asked for. It is told at its next block. If the entry has
/// another owner than `generation` by now, nothing happens.
pub(crate) fn evict(region: &Region, index: EntryIndex, generation: u64) -> bool {
    crash::point("evict.decided");
    let reliable = State { generation, kind: Kind::Reliable }.word();
    let lossy = State { generation, kind: Kind::Lossy }.word();
    // No order: who displaces a block behind this shows it by the table's word, and with it this.
    region.entry(index).state.compare_exchange(reliable, lossy, Relaxed, Relaxed).is_ok()
}

/// Declares the owner of an entry dead, if it still is the one that the caller has seen with its lease free.
pub(crate) fn declare_dead(region: &Region, index: EntryIndex, seen: State) -> bool {
    crash::point("dead.seen");
    let dead = State { generation: seen.generation, kind: Kind::Dead };
    let state = &region.entry(index).state;
    state.compare_exchange(seen.word(), dead.word(), Release, Relaxed).is_ok() // [entry]
}

/// Has the death of an owner counted by the caller alone, if the state of its entry still is the one that it has seen.
pub(crate) fn count_death(region: &Region, index: EntryIndex, seen: u64) -> bool {
    let counted = State { generation: State::of(seen).generation, kind: Kind::Counted };
    let state = &region.entry(index).state;
    // Who reads it has the recovery lock, and with it, or through the kernel, what its last owner wrote.
    state.compare_exchange(seen, counted.word(), Relaxed, Relaxed).is_ok()
}
