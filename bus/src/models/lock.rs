//! Loom models of the recovery lock and of the record beside it: the code that ships, on loom's atomics.
//!
//! Who is killed unwinds at a crash point; then its pending word is treated as the kernel does it (`atomics.rs`), and then its lease is free, in this order, as in
//! the kernel. Run with `ci/loom`, as the others.
#![allow(unsafe_code)] // what the lock protects is loom's UnsafeCell, which reports unsynchronised access

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use crate::atomics::*;
use crate::crash;
use crate::layout::RecoveryLock;
use crate::lock::{Busy, Owner};
use crate::recovery::{self, Dead};
use crate::region::{EntryIndex, Region};
use crate::registry::{self, Kind, State};
use crate::ring::Geometry;

const FOREVER: u64 = u64::MAX;

struct Place {
    region: Region,
    /// What the lock protects: how many were in.
    count: UnsafeCell<u64>,
    /// Bit `i`: the lease of entry `i` is free.
    gone: AtomicU64,
}

// SAFETY: loom reports where the cell is accessed by two threads at once.
unsafe impl Sync for Place {}
// SAFETY: as above.
unsafe impl Send for Place {}

impl Place {
    fn new() -> Arc<Place> {
        let region = Region::new(Geometry {
            block_len: 1,
            blocks: 2,
            spares: 2,
            slot_size: 64,
            payload_offset: 16,
            payload_max: 8,
            publishers_max: 1,
            subscribers_max: 2,
            hold_blocks: 0,
            shared: false,
            timestamp: false,
            guarded: false,
            schema_len: 0,
        });
        Arc::new(Place { region, count: UnsafeCell::new(0), gone: AtomicU64::new(0) })
    }

    fn lock(&self) -> &RecoveryLock {
        &self.region.control().recovery.0
    }

    fn is_gone(&self, owner: Owner) -> bool {
        owner.entry().is_some_and(|entry| self.gone.load(Acquire) & 1 << entry != 0)
    }

    /// One more was in. No other thread is.
    fn count(&self) -> u64 {
        self.count.with_mut(|count| {
            // SAFETY: loom checks that nobody else accesses the cell meanwhile.
            let count = unsafe { &mut *count };
            *count += 1;
            *count
        })
    }

    /// Waits for the lock as entry `number`, and counts. Whether the one before died in it.
    fn enter(&self, number: u32) -> bool {
        self.enter_as_thread(10 + number, number)
    }

    /// The same in thread `id`: an entry may have several.
    fn enter_as_thread(&self, id: u32, number: u32) -> bool {
        TID.with(|tid| tid.set(id));
        let entered = self.lock().lock_until(
            me(number),
            FOREVER,
            |owner| self.is_gone(owner),
            |owner_died| {
                self.count();
                owner_died
            },
        );
        entered.expect("no deadline passes")
    }

    /// The same, and killed at a point.
    fn enter_and_die(&self, number: u32, point: &'static str) {
        assert_eq!(crash::killed_at(point, || self.enter(number)), None);
        self.gone.fetch_or(1 << number, Release);
    }
}

fn me(number: u32) -> Owner {
    Owner::new(EntryIndex(number), 7)
}

fn model(f: impl Fn() + Send + Sync + 'static) {
    loom::model::Builder::new().check(f);
}

/// Two that come while a third one is in, which ends or dies in there. One preemption: with more it takes hours.
fn two_locks_behind_one_inside(dies: bool) {
    let mut bounds = loom::model::Builder::new();
    bounds.preemption_bound = Some(bounds.preemption_bound.map_or(1, |bound| bound.min(1)));
    bounds.check(move || {
        let place = Place::new();
        TID.with(|tid| tid.set(10));
        let mut others = Vec::new();
        let section = |_| {
            others.extend([1, 2].map(|number| {
                let theirs = Arc::clone(&place);
                thread::spawn(move || u32::from(theirs.enter(number)))
            }));
            crash::point("model.inside"); // where it is to die
            place.count();
        };
        let point = if dies { "model.inside" } else { "nowhere" };
        let first = || place.lock().lock_until(me(0), FOREVER, |_| false, section);
        assert_eq!(crash::killed_at(point, first).is_none(), dies);
        place.gone.fetch_or(u64::from(dies), Release);
        let told: u32 = others.into_iter().map(|other| other.join().unwrap()).sum();
        assert_eq!(told, u32::from(dies));
        assert_eq!(place.count(), 4 - u64::from(dies));
    });
}

#[test]
fn lock_against_lock() {
    model(|| {
        let place = Place::new();
        let theirs = Arc::clone(&place);
        let other = thread::spawn(move || assert!(!theirs.enter(1)));
        assert!(!place.enter(0));
        other.join().unwrap();
        assert_eq!(place.count(), 3);
    });
}

/// Both may sleep: who is woken leaves the other one to be woken in its turn.
/// Two threads that hold samples of one subscriber both sweep when the budget is used up: for one entry, and one after the other.
#[test]
fn lock_against_lock_of_another_thread_of_the_same_entry() {
    model(|| {
        let place = Place::new();
        let theirs = Arc::clone(&place);
        let other = thread::spawn(move || theirs.enter_as_thread(11, 0));
        assert!(!place.enter_as_thread(10, 0), "nobody died");
        assert!(!other.join().unwrap(), "nobody died");
        assert_eq!(place.count(), 3);
    });
}

#[test]
fn two_locks_behind_one() {
    two_locks_behind_one_inside(false);
}

#[test]
fn two_locks_behind_one_that_is_killed_inside() {
    two_locks_behind_one_inside(true);
}

/// Whoever tries and does not get it has not been in, and sees who is.
#[test]
fn try_lock_against_lock() {
    model(|| {
        let place = Place::new();
        let theirs = Arc::clone(&place);
        let other = thread::spawn(move || theirs.enter(1));
        TID.with(|tid| tid.set(10));
        let tried = place.lock().try_lock(me(0), |_| false, |_| place.count());
        match tried {
            Ok(_) => {}
            Err(Busy(owner)) => assert!([Owner::NOBODY, me(1)].contains(&owner)),
        }
        other.join().unwrap();
        assert_eq!(place.count(), 2 + u64::from(tried.is_ok()));
    });
}

/// One is killed, another one comes or waits: it gets in, and is told if and only if the first one died inside.
fn lock_behind_one_that_is_killed(point: &'static str, inside: bool, counted: u64) {
    model(move || {
        let place = Place::new();
        let theirs = Arc::clone(&place);
        let victim = thread::spawn(move || theirs.enter_and_die(1, point));
        let told = place.enter(0);
        victim.join().unwrap();
        // Or it was here before.
        let told_now = place.enter(0);
        assert_eq!(told || told_now, inside);
        assert!(!(told && told_now), "told twice");
        assert_eq!(place.count(), 3 + counted);
    });
}

#[test]
fn lock_behind_one_that_is_killed_with_the_word_taken() {
    lock_behind_one_that_is_killed("lock.word", false, 0);
}

#[test]
fn lock_behind_one_that_is_killed_inside() {
    lock_behind_one_that_is_killed("lock.owner", true, 0);
}

#[test]
fn lock_behind_one_that_is_killed_when_it_owns_it_no_more() {
    lock_behind_one_that_is_killed("unlock.owner", false, 1);
}

#[test]
fn lock_behind_one_that_is_killed_before_it_wakes() {
    lock_behind_one_that_is_killed("unlock.word", false, 1);
}

/// A thread of another pid namespace, with the id of who may be in, is killed while it tries: the kernel says that the owner died. It lives, and nobody
/// gets in beside it or is told.
#[test]
fn a_death_that_is_none_against_lock_and_lock() {
    model(|| {
        let place = Place::new();
        let theirs = Arc::clone(&place);
        let namesake = thread::spawn(move || theirs.lock().word.died(11));
        let theirs = Arc::clone(&place);
        let other = thread::spawn(move || assert!(!theirs.enter(1)));
        assert!(!place.enter(0));
        namesake.join().unwrap();
        other.join().unwrap();
        assert_eq!(place.count(), 3);
    });
}

/// Subscriber 0, dead. Declared so, and entered into the record, by who is killed on the way; the next one makes the record whole.
fn record_behind_one_that_is_killed(point: &'static str) {
    model(move || {
        let place = Place::new();
        let region = &place.region;
        let dead = |index: EntryIndex, pid| {
            let generation = registry::occupy(region, index);
            region.entry(index).pid.store(pid, Relaxed);
            registry::activate(region, index, generation, Kind::Lossy);
            Dead { entry: index.0, generation, pid }
        };
        let victims = [dead(EntryIndex(1), 41), dead(EntryIndex(2), 42)];
        let sweep = |number: u32| {
            place.lock().lock_until(
                me(number),
                FOREVER,
                |owner| place.is_gone(owner),
                |owner_died| {
                    recovery::sweep(region, region.subscribers(), |_| false);
                    recovery::count(region, owner_died);
                    assert!(!owner_died || number == 0);
                },
            )
        };
        let owner = 3; // of an entry that is not swept
        assert_eq!(crash::killed_at(point, || sweep(owner)), None);
        place.gone.fetch_or(1 << owner, Release);
        let before = recovery::deaths(region);
        assert!(before == (0, None) || before == (1, Some(victims[0])));
        for _ in 0..2 {
            sweep(0).unwrap();
            assert_eq!(recovery::deaths(region), (2, Some(victims[1])));
        }
        for index in region.subscribers() {
            let state = State::of(region.entry(index).state.load(Relaxed));
            assert_eq!(state.kind, Kind::Counted);
        }
    });
}

#[test]
fn record_behind_one_that_is_killed_with_a_death_written() {
    record_behind_one_that_is_killed("record.written");
}

#[test]
fn record_behind_one_that_is_killed_with_a_death_marked() {
    record_behind_one_that_is_killed("record.marked");
}

/// Who joins takes the entry of a dead one while another one counts it: it is counted once.
#[test]
fn taking_a_dead_ones_entry_against_counting_it() {
    model(|| {
        let place = Place::new();
        let index = EntryIndex(1);
        let generation = registry::occupy(&place.region, index);
        place.region.entry(index).pid.store(41, Relaxed);
        registry::activate(&place.region, index, generation, Kind::Lossy);
        let theirs = Arc::clone(&place);
        let sweeper = thread::spawn(move || {
            recovery::sweep(&theirs.region, theirs.region.subscribers(), |other| other != index);
            recovery::count(&theirs.region, false);
        });
        let taken = recovery::take_death(&place.region, index);
        registry::occupy(&place.region, index);
        sweeper.join().unwrap();
        if let Some(dead) = taken {
            recovery::count_taken(&place.region, dead);
        }
        assert_eq!(recovery::deaths(&place.region).0, 1);
    });
}

/// A process that ends in order says so before its lease is free: whoever finds the entry, and whoever takes it, counts no death.
#[test]
fn an_end_in_order_against_counting_it() {
    model(|| {
        let place = Place::new();
        let index = EntryIndex(1);
        let generation = registry::occupy(&place.region, index);
        place.region.entry(index).pid.store(41, Relaxed);
        registry::activate(&place.region, index, generation, Kind::Lossy);
        place.region.entry(index).pid.store(recovery::ENDED, Relaxed);
        let theirs = Arc::clone(&place);
        let sweeper = thread::spawn(move || {
            recovery::sweep(&theirs.region, theirs.region.subscribers(), |other| other != index);
            recovery::count(&theirs.region, false);
        });
        assert_eq!(recovery::take_death(&place.region, index), None);
        registry::occupy(&place.region, index);
        sweeper.join().unwrap();
        assert_eq!(recovery::deaths(&place.region), (0, None));
    });
}

#[test]
fn the_record_against_who_shows_it() {
    model(|| {
        let place = Place::new();
        let theirs = Arc::clone(&place);
        let counter = thread::spawn(move || {
            for number in 1..=3 {
                let dead = Dead { entry: number, generation: 10 * u64::from(number), pid: number };
                recovery::count_taken(&theirs.region, dead);
            }
        });
        let (deaths, last) = recovery::deaths(&place.region);
        let last = last.map(|dead| (u64::from(dead.entry), dead.generation, u64::from(dead.pid)));
        assert_eq!(last, (deaths > 0).then_some((deaths, 10 * deaths, deaths)));
        counter.join().unwrap();
    });
}

/// One finds a death, and another one enters it into the record: the process id is the dead one's.
#[test]
fn a_death_that_another_one_has_found_against_counting_it() {
    model(|| {
        let place = Place::new();
        let index = EntryIndex(1);
        let theirs = Arc::clone(&place);
        let prover = thread::spawn(move || {
            let region = &theirs.region;
            let generation = registry::occupy(region, index);
            region.entry(index).pid.store(41, Relaxed);
            registry::activate(region, index, generation, Kind::Lossy);
            // It is killed. Who asks for its lease is behind that, by the kernel.
            let seen = State { generation, kind: Kind::Lossy };
            assert!(registry::declare_dead(region, index, seen));
        });
        recovery::count(&place.region, false);
        let (_, last) = recovery::deaths(&place.region);
        assert!(last.is_none_or(|dead| dead.pid == 41), "{last:?}");
        prover.join().unwrap();
        recovery::count(&place.region, false);
        let dead = Dead { entry: 1, generation: 1, pid: 41 };
        assert_eq!(recovery::deaths(&place.region), (1, Some(dead)));
    });
}

/// Who died with the lock had marked a death; its successor raises the number, while somebody looks.
#[test]
fn the_record_that_a_successor_finishes_against_who_shows_it() {
    model(|| {
        let place = Place::new();
        let region = &place.region;
        let generation = registry::occupy(region, EntryIndex(1));
        region.entry(EntryIndex(1)).pid.store(41, Relaxed);
        registry::activate(region, EntryIndex(1), generation, Kind::Lossy);
        recovery::sweep(region, region.subscribers(), |index| index.0 != 1);
        let theirs = Arc::clone(&place);
        let count = || recovery::count(region, false);
        assert_eq!(crash::killed_at("record.marked", count), None);
        let shows = thread::spawn(move || recovery::deaths(&theirs.region));
        recovery::count(region, true);
        let (deaths, last) = shows.join().unwrap();
        assert_eq!(last.is_some(), deaths == 1, "a death that is counted is shown");
    });
}
