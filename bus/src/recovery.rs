//! What is done for the dead, and for those who let others wait: their entries stop counting.
//!
//! Alive or dead is asked of the kernel (is the entry's lease held?), never of a clock or a process id. Every step
//! can be done twice, by several at once, and stopped anywhere. A dead publisher needs nothing here: its successor
//! takes over from the ring itself (`ExclusiveRing::take_over`).

use crate::atomics::{Acquire, Relaxed, Release, SeqCst, fence};
use crate::crash;
use crate::region::{EntryIndex, Region};
use crate::registry::{self, Kind, State};
use crate::repair::{self, STALL_CHECK_NS};
use crate::ring::shared::Owner;
use crate::ring::table::{self, Reliable};
use crate::ring::{abandoned_stamp, message_stamp};

/// Declares the owners of `entries` dead whose lease `is_held` denies. How many there were.
///
/// `is_held` is asked only about entries that count; it must answer true for the caller's own ones, of whose leases the
/// kernel tells it nothing. Publishers that wait are told.
pub(crate) fn sweep(
    region: &Region,
    entries: impl Iterator<Item = EntryIndex>,
    mut is_held: impl FnMut(EntryIndex) -> bool,
) -> u32 {
    let mut swept = 0;
    for index in entries {
        let seen = State::of(region.entry(index).state.load(Acquire)); // [entry]: before the lease is asked for
        if seen.kind.is_active() && !is_held(index) && registry::declare_dead(region, index, seen) {
            swept += 1;
            crash::point("dead.declared");
        }
    }
    if swept > 0 {
        fence(SeqCst); // [cursor/publisher]
        region.control().publishers_bell.0.ring_after_fence();
        crash::point("dead.rung");
    }
    swept
}

/// An owner that was declared dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dead {
    /// Number of its entry; any number where the record is corrupt.
    pub(crate) entry: u32,
    pub(crate) generation: u64,
    pub(crate) pid: u32,
}

/// `Entry::pid` of a participant whose process has ended in order, with it (`exit` does not drop what is in a `static`). It protects what it did until its
/// lease is free, as other threads may still be at it; its death is not counted.
pub(crate) const ENDED: u32 = 0;

/// Enters those into the record who were declared dead since, each once. For the owner of the recovery lock, which is told whether the
/// one before died with it.
///
/// A death is written where the last but one stands, then its entry is marked (`Counted`), then the number is raised, which shows it. An owner
/// that is killed before the mark has done nothing; behind it, the number is raised by its successor.
pub(crate) fn count(region: &Region, owner_died: bool) {
    if owner_died {
        finish(region);
    }
    for index in region.entries() {
        let entry = region.entry(index);
        let seen = entry.state.load(Acquire); // [entry]: then the words of its owner
        let State { generation, kind } = State::of(seen);
        if kind == Kind::Dead {
            let dead = Dead { entry: index.0, generation, pid: entry.pid.load(Relaxed) };
            if dead.pid == ENDED {
                let _ = registry::count_death(region, index, seen); // marked, and not counted
                continue;
            }
            record(region, dead, || registry::count_death(region, index, seen));
        }
    }
}

/// Before an entry whose lease the caller has just taken gets its next owner: the last one, where its death is the caller's to enter into
/// the record ([`count_taken`]).
pub(crate) fn take_death(region: &Region, index: EntryIndex) -> Option<Dead> {
    let entry = region.entry(index);
    // A prover and who counts may each change it once meanwhile.
    for _ in 0..3 {
        let seen = entry.state.load(Relaxed); // the lease acquires, the process id too
        let State { generation, kind } = State::of(seen);
        let pid = entry.pid.load(Relaxed);
        if !kind.is_active() && kind != Kind::Dead {
            return None; // left, or counted
        }
        if registry::count_death(region, index, seen) {
            return (pid != ENDED).then_some(Dead { entry: index.0, generation, pid });
        }
    }
    None
}

/// Enters a death of [`take_death`] into the record. For the owner of the recovery lock.
pub(crate) fn count_taken(region: &Region, dead: Dead) {
    record(region, dead, || true);
}

/// How many were declared dead, and the last one. For anybody: what is being written does not show.
pub(crate) fn deaths(region: &Region) -> (u64, Option<Dead>) {
    let lock = &region.control().recovery.0;
    let mut deaths = lock.deaths.load(Acquire); // [record]
    for _ in 0..8 {
        let place = &lock.last_deaths[deaths as usize % 2];
        let entry = place.entry.load(Acquire); // [record]
        let generation = place.generation.load(Acquire); // [record]
        let pid = place.pid.load(Acquire); // [record]
        let number = place.number.load(Acquire); // [record]
        let now = lock.deaths.load(Acquire); // [record]: another one, before its place is written over
        if now == deaths {
            let is_there = deaths > 0 && number == deaths;
            return (deaths, is_there.then_some(Dead { entry, generation, pid }));
        }
        deaths = now;
    }
    (deaths, None) // they die faster than they can be looked at, or the record is corrupt
}

fn record(region: &Region, dead: Dead, mark: impl FnOnce() -> bool) {
    let lock = &region.control().recovery.0;
    let number = lock.deaths.load(Relaxed).wrapping_add(1);
    let place = &lock.last_deaths[number as usize % 2];
    place.number.store(0, Release); // [record]
    place.entry.store(dead.entry, Release); // [record]
    place.generation.store(dead.generation, Release); // [record]
    place.pid.store(dead.pid, Release); // [record]
    place.number.store(number, Release); // [record]
    crash::point("record.written");
    if mark() {
        crash::point("record.marked");
        lock.deaths.store(number, Release); // [record]
    } else {
        place.number.store(0, Relaxed); // a number that was never shown: nobody asks for it
    }
}

/// Raises the number for an owner of the lock that died between the mark and this.
fn finish(region: &Region) {
    let lock = &region.control().recovery.0;
    let number = lock.deaths.load(Relaxed).wrapping_add(1);
    let place = &lock.last_deaths[number as usize % 2];
    let entry = place.entry.load(Relaxed);
    let Some(index) = region.entries().find(|index| index.0 == entry) else { return };
    if place.number.load(Relaxed) != number {
        return;
    }
    let counted = State { generation: place.generation.load(Relaxed), kind: Kind::Counted };
    // The lock of the dead acquires.
    if region.entry(index).state.load(Relaxed) == counted.word() {
        lock.deaths.store(number, Release); // [record]
    }
}

/// The reliable subscribers that are in one publisher's way, and since when.
pub(crate) struct InTheWay {
    now: Vec<Obstacle>,
    /// As it was at the look before. Both have room for all subscribers: a look allocates nothing.
    before: Vec<Obstacle>,
    /// On a guarded topic, where no cursor is believed: how long.
    #[cfg(not(loom))]
    pub(crate) debts: crate::guard::Debts,
}

/// One of them: this owner of the entry at this cursor. The next owner's time begins anew.
struct Obstacle {
    who: Reliable,
    /// When it was seen there first.
    first_ns: u64,
    /// From when its patience counts: later, where it had to wait for a shared publisher's claim.
    since_ns: u64,
    /// Whether it had to, at the last look.
    waits: bool,
}

impl InTheWay {
    pub(crate) fn nobody(region: &Region) -> InTheWay {
        let all = || Vec::with_capacity(region.geometry().subscribers_max as usize);
        InTheWay {
            now: all(),
            before: all(),
            #[cfg(not(loom))]
            debts: crate::guard::Debts::none(region),
        }
    }

    /// Looks who keeps the block of the head from being opened, and makes those lossy whose cursor has stood still there for longer than
    /// they asked for. How many there were. `lives` is the kernel's word on publishers.
    ///
    /// A cursor that is in the way now and stands where it stood when it was seen before was in the way all the time. While it waits for a
    /// shared publisher's claim it has nothing to receive, and its time begins again: for as long as it takes a reader that runs to get past
    /// all claims of its block.
    pub(crate) fn evict(
        &mut self,
        region: &Region,
        now_ns: u64,
        claim_timeout_ns: u64,
        mut lives: impl FnMut(EntryIndex) -> bool,
    ) -> u32 {
        if region.is_guarded() {
            return 0; // `Debts` does it
        }
        let number = region.geometry().number(region.head().load(Relaxed)); // an older one finds nobody in the way
        core::mem::swap(&mut self.now, &mut self.before);
        self.now.clear();
        let mut evicted = 0;
        for who in table::who_forbids(region, number) {
            let known = self.before.iter().find(|obstacle| obstacle.who == who);
            let (first_ns, mut since_ns, waited) = match known {
                Some(known) => (known.first_ns, known.since_ns, known.waits),
                None => (now_ns, now_ns, false),
            };
            let excused_ns = match claimed(region, who.cursor, &mut lives) {
                Claimed::Not => 0,
                Claimed::Dead => DEAD_CLAIM_NS,
                Claimed::Living if claim_timeout_ns == 0 => u64::MAX,
                Claimed::Living => claim_timeout_ns.saturating_add(DEAD_CLAIM_NS),
            };
            let waits = now_ns.saturating_sub(first_ns) < excused_ns;
            if waits || waited {
                since_ns = now_ns; // it may have waited until a moment ago
            }
            let patience_ns = region.entry(who.index).patience_ns.load(Relaxed); // `who_forbids` acquires
            if patience_ns != 0
                && now_ns.saturating_sub(since_ns) >= patience_ns
                && registry::evict(region, who.index, who.generation)
            {
                evicted += 1;
                crash::point("evict.done");
            } else {
                self.now.push(Obstacle { who, first_ns, since_ns, waits });
            }
        }
        evicted
    }
}

/// How long a reader that runs may take to get past the claims of the dead: it looks after 5 ms, and that is its own look and not the publisher's.
const DEAD_CLAIM_NS: u64 = 2 * STALL_CHECK_NS;

/// Whether a reader has to wait for a claim, and for one of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claimed {
    Not,
    Dead,
    Living,
}

/// Whether a shared publisher has taken a sequence of the block of `cursor`, not before it, and not settled it. A claim word alone says little:
/// its owner may be gone, and the sequence may have been taken by another publisher, or settled.
fn claimed(region: &Region, cursor: u64, lives: &mut impl FnMut(EntryIndex) -> bool) -> Claimed {
    let geometry = region.geometry();
    let number = geometry.number(cursor);
    // No order in here: a publisher that finds no room has acquired a head beyond the block, and with it the claims of all who took a
    // sequence there. A claim or a stamp that is newer, or of another block that is here by now, costs a look more or less.
    let head = region.head().load(Relaxed);
    let word = region.table(number).load(Relaxed);
    let Ok(block) = table::physical(word, geometry) else { return Claimed::Not };
    let publishers =
        region.publishers().filter(|_| geometry.shared && table::age(word, number).is_eq());
    let claims = publishers.map(|index| {
        let claim = region.entry(index).claim.load(Relaxed);
        let Some(sequence) = claim.checked_sub(1) else { return Claimed::Not };
        if !(cursor..head).contains(&sequence) || geometry.number(sequence) != number {
            return Claimed::Not;
        }
        let stamp = region.slot(geometry.slot(block, sequence)).stamp.load(Relaxed);
        if [message_stamp(sequence), abandoned_stamp(sequence)].contains(&stamp) {
            return Claimed::Not;
        }
        match repair::owner(region, index, lives) {
            Owner::Lives => Claimed::Living,
            Owner::IsGone => Claimed::Dead,
        }
    });
    claims.max().unwrap_or(Claimed::Not)
}
