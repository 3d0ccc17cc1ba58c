//! A member's place in an object: an entry, the lease on its byte, and what is done for a member that is dead.
//!
//! ```text
//! join:   lease; predecessor buried; state = (g + 1, joining); cells cleared; life word; mark raised; state = (g + 1, member)
//! leave:  what it has given back; state = (g, free); life word; lease
//! dead:   state: (g, member) -> (g, dead)      by whoever has seen the lease free
//! buried: lease of the dead taken; what it had given back; all sleepers woken; state: (g, dead) -> (g, buried); lease given back
//! ```
//!
//! **The life word wakes, the lease proves.** A life word that says `OWNER_DIED` is a reason to ask for the lease. A lease that is free, or
//! an entry of another generation or state, is proof, and stays so. What follows from a death at once, such as who may have a mutex, needs only the state. What has to be
//! given back exactly once is given back by one at a time: whoever has the lease of the dead. Should that one die too, the next begins again with it.
//!
//! An entry is used again only when its last owner is buried, so that no word of the object ever names an owner of an earlier generation.

use std::sync::Arc;

use crate::atomics::{Acquire, Lease, Relaxed, Release};
use crate::crash;
use crate::layout::ENTRY_LEASES;
use crate::region::EntryIndex;
use crate::registry::{Kind, State};
use crate::sync::region::SyncRegion;
use shmbus_sys::robust::OWNER_DIED;

/// Gives back what a member has in a primitive: of one that is dead, or that leaves. Says whether there was anything.
///
/// It is called by one at a time for each owner, and again from the beginning where that one is killed in it. Others use the object meanwhile.
pub(crate) type GiveBack = fn(&SyncRegion, EntryIndex, u64) -> bool;

/// What burying somebody came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Burial {
    /// There is nobody to be buried.
    Nobody,
    /// Done, by the caller, and all sleepers were woken.
    Done,
    /// It lives, or is not gone yet, or somebody else is at it.
    NotNow,
}

/// An entry and its lease.
pub(crate) struct Seat {
    pub(crate) region: Arc<SyncRegion>,
    pub(crate) index: EntryIndex,
    pub(crate) generation: u64,
    give_back: GiveBack,
    pub(crate) lease: Lease,
}

impl Seat {
    /// Takes an entry whose lease is free, and whose last owner is buried. `None`: each is somebody's.
    ///
    /// # Errors
    /// The kernel refuses to take a lease.
    pub(crate) fn take(
        region: Arc<SyncRegion>,
        lease: Lease,
        give_back: GiveBack,
    ) -> std::io::Result<Option<Seat>> {
        let generation = 0;
        let mut seat = Seat { region, index: EntryIndex(0), generation, give_back, lease };
        let all = seat.region.members_max();
        for index in seat.region.clone().entries(all) {
            // Before its lease is taken: who holds the lease of one that is dead hides its death.
            if seat.bury(index) == Burial::NotNow || !seat.lease.take(lease_byte(index))? {
                continue;
            }
            crash::point("sync.join.leased");
            seat.bury_with_its_lease(index); // where another one has come and died in between
            seat.index = index;
            seat.occupy();
            return Ok(Some(seat));
        }
        Ok(None)
    }

    fn occupy(&mut self) {
        let entry = self.region.entry(self.index);
        let seen = entry.state.load(Relaxed); // only the owner of the lease changes it from free or buried
        self.generation = State::of(seen).generation.wrapping_add(1) << 8 >> 8;
        entry.state.store(self.state(Kind::Joining), Relaxed); // its lease is held: whoever asks is told so
        crash::point("sync.join.joining");
        for cell in &entry.cells {
            cell.store(0, Relaxed);
        }
    }

    /// Makes an occupied entry count, whose life word says already that its owner lives: from here on it may take part.
    pub(crate) fn activate(&self) {
        let roster = &self.region.control().roster.0;
        let raised = self.index.0 + 1;
        let mut seen = roster.word().load(Relaxed);
        while seen & 0xff < raised {
            // Another notice too: who sleeps does not watch this entry yet.
            let now = (seen & !0xff).wrapping_add(0x100) | raised;
            // No order: of an entry that it does not find as it is, the kernel compares the life word.
            match roster.word().compare_exchange(seen, now, Relaxed, Relaxed) {
                Ok(_) => {
                    crash::point("sync.join.raised");
                    roster.wake_all();
                    break;
                }
                Err(other) => seen = other,
            }
        }
        let entry = self.region.entry(self.index);
        entry.state.store(self.state(Kind::Member), Release); // [member]: its cells as they were cleared
        crash::point("sync.join.member");
    }

    /// Whether the entry is still its own: false where somebody has closed the descriptor with the lease.
    #[cfg(not(loom))]
    pub(crate) fn is_its_own(&self) -> bool {
        self.lease.is_intact()
    }

    /// Retires the object if something else has deleted its files. Whether it did.
    #[cfg(not(loom))]
    pub(crate) fn retire_if_deleted(&self) -> bool {
        let is_deleted = self.lease.is_unlinked();
        if is_deleted {
            self.region.control().main.0.joins.retire();
            self.wake_all();
        }
        is_deleted
    }

    /// Gives back what it has, and the entry. The life word and the lease are to be given back after this.
    pub(crate) fn leave(&self) {
        if (self.give_back)(&self.region, self.index, self.generation) {
            self.wake_all();
        }
        crash::point("sync.leave.given_back");
        let entry = self.region.entry(self.index);
        entry.state.store(self.state(Kind::Free), Release); // [member]
        crash::point("sync.leave.free");
    }

    /// Whether an owner of an entry may still do something. Asks for its lease where its life word says that it is dead.
    pub(crate) fn lives(&self, index: EntryIndex, is_generation: impl Fn(u64) -> bool) -> bool {
        let entry = self.region.entry(index);
        for _ in 0..2 {
            let state = State::of(entry.state.load(Acquire)); // [member]
            if state.kind != Kind::Member || !is_generation(state.generation) {
                return false;
            }
            if entry.life.word().load(Relaxed) & OWNER_DIED == 0
                || self.declare_dead(index, state) != Some(true)
            {
                return true;
            }
        }
        true
    }

    /// Whether somebody is to be buried at an entry, as its life word says.
    pub(crate) fn is_dying(&self, index: EntryIndex) -> bool {
        let entry = self.region.entry(index);
        let life = entry.life.word().load(Relaxed); // who declares it dead asks for its lease
        let kind = State::of(entry.state.load(Relaxed)).kind;
        life & OWNER_DIED != 0 && !matches!(kind, Kind::Free | Kind::Counted)
    }

    /// Buries the owner of an entry if it is dead.
    pub(crate) fn bury(&self, index: EntryIndex) -> Burial {
        let entry = self.region.entry(index);
        let state = State::of(entry.state.load(Acquire)); // [member]: the state first, then its lease
        match state.kind {
            Kind::Free | Kind::Counted => return Burial::Nobody,
            Kind::Dead => {}
            _ if index == self.index && self.generation == state.generation => {
                return Burial::NotNow;
            }
            _ => match self.declare_dead(index, state) {
                Some(true) => {}
                _ => return Burial::NotNow,
            },
        }
        if !self.lease.take(lease_byte(index)).unwrap_or(false) {
            return Burial::NotNow;
        }
        crash::point("sync.bury.leased");
        let buried = self.bury_with_its_lease(index);
        let _ = self.lease.release(lease_byte(index)); // else it ends with this seat
        if buried { Burial::Done } else { Burial::Nobody }
    }

    /// Buries all others that are dead, as their life words say. Whether there was one to be buried.
    pub(crate) fn bury_the_dying(&self) -> bool {
        let mark = self.region.control().roster.0.word().load(Relaxed) & 0xff;
        let mut buried = false;
        for index in self.region.entries(mark).filter(|&index| index != self.index) {
            buried |= self.is_dying(index) && self.bury(index) == Burial::Done;
        }
        buried
    }

    /// Declares the owner of an entry dead if its lease is free: `Some(false)` where another owner has come meanwhile. `None`: it is held.
    fn declare_dead(&self, index: EntryIndex, seen: State) -> Option<bool> {
        if self.lease.is_held_by_another(lease_byte(index)).unwrap_or(true) {
            return None;
        }
        crash::point("sync.dead.seen");
        let dead = State { kind: Kind::Dead, ..seen };
        let state = &self.region.entry(index).state;
        // [member]
        Some(state.compare_exchange(seen.word(), dead.word(), Release, Relaxed).is_ok())
    }

    /// Buries the last owner of an entry whose lease is the caller's, and says whether there was one to be buried.
    fn bury_with_its_lease(&self, index: EntryIndex) -> bool {
        let entry = self.region.entry(index);
        let mut state = State::of(entry.state.load(Relaxed)); // the lease acquires
        if matches!(state.kind, Kind::Free | Kind::Counted) {
            return false;
        }
        // Its lease is ours, so nobody else owns the entry: whatever it says otherwise, it is dead.
        while state.kind != Kind::Dead {
            let dead = State { kind: Kind::Dead, ..state };
            // [member]
            match entry.state.compare_exchange(state.word(), dead.word(), Release, Relaxed) {
                Ok(_) => state = dead,
                Err(now) => state = State::of(now), // by one who saw the lease free before
            }
        }
        (self.give_back)(&self.region, index, state.generation);
        crash::point("sync.bury.given_back");
        self.wake_all();
        crash::point("sync.bury.rung");
        // From here on the entry may be used again.
        let buried = State { kind: Kind::Counted, ..state };
        entry.state.store(buried.word(), Release); // [member]
        crash::point("sync.bury.done");
        true
    }

    /// Buries all that are dead, for one who is no member, and says how many there were.
    #[cfg(not(loom))]
    pub(crate) fn sweep(region: Arc<SyncRegion>, lease: Lease, give_back: GiveBack) -> u32 {
        // No member has generation 0: this is nobody's seat.
        let seat = Seat { region, index: EntryIndex(0), generation: 0, give_back, lease };
        let entries = seat.region.entries(seat.region.members_max());
        entries.filter(|index| seat.bury(*index) == Burial::Done).count() as u32
    }

    /// Has every sleeper of the object look again.
    pub(crate) fn wake_all(&self) {
        wake_all(&self.region);
    }

    fn state(&self, kind: Kind) -> u64 {
        State { generation: self.generation, kind }.word()
    }
}

/// Has every sleeper of an object look again.
pub(crate) fn wake_all(region: &SyncRegion) {
    let roster = &region.control().roster.0;
    roster.word().fetch_add(0x100, Release); // [sync roster]
    crash::point("sync.notice.raised");
    roster.wake_all();
}

/// The byte of `live` whose lock is the lease of an entry.
fn lease_byte(index: EntryIndex) -> u64 {
    ENTRY_LEASES + u64::from(index.0)
}
