//! Loom models of mutex and condvar, with the seats, life words and sleeps below them: the code that ships, on loom's atomics.
//!
//! Who is killed unwinds at a crash point; then its life word is treated as the kernel does it (`atomics.rs`), and then its lease is free, in this order, as
//! in the kernel. No sleep here ends by itself, but that of who waits for the lease of the dead: a wake-up that is lost is a deadlock.
#![allow(unsafe_code)] // what the mutex protects is loom's UnsafeCell, which reports unsynchronised access

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use crate::atomics::*;
use crate::crash;
use crate::layout::ENTRY_LEASES;
use crate::sync::lock::{self, Step};
use crate::sync::notice;
use crate::sync::region::SyncRegion;
use crate::sync::seat::{Burial, Seat};
use crate::sync::wait::Vigil;
use shmbus_sys::robust::FUTEX_WAITERS;

const FOREVER: u64 = u64::MAX;

/// What the mutex protects: how many were in.
struct Data(UnsafeCell<u64>);

// SAFETY: loom reports where the cell is accessed by two threads at once.
unsafe impl Sync for Data {}
// SAFETY: as above.
unsafe impl Send for Data {}

/// A process: its seat, and the data.
struct Process {
    seat: Seat,
    data: Arc<Data>,
}

/// As many processes as there are entries.
fn processes<const N: usize>() -> [Process; N] {
    let region = std::sync::Arc::new(SyncRegion::new(N as u32));
    let bytes = (0..ENTRY_LEASES as usize + N).map(|_| AtomicU32::new(0)).collect();
    let file = Arc::new(LeaseFile(bytes));
    let data = Arc::new(Data(UnsafeCell::new(0)));
    core::array::from_fn(|number| {
        let lease = Lease { file: Arc::clone(&file), description: number as u32 + 1 };
        let seat = Seat::take(std::sync::Arc::clone(&region), lease, lock::give_back);
        let seat = seat.unwrap().expect("an entry");
        let life = &region.entry(seat.index).life;
        life.word().store(tid(&seat) | FUTEX_WAITERS, Release);
        seat.activate();
        Process { seat, data: Arc::clone(&data) }
    })
}

fn tid(seat: &Seat) -> u32 {
    seat.index.0 + 10
}

impl Process {
    /// Locks, counts, unlocks. Whether it was told that an owner had died; it repairs nothing, for there is nothing to be repaired.
    fn enter(&self) -> bool {
        let Step::Locked { owner_died } = lock::lock(&self.seat, FOREVER) else {
            panic!("neither removed nor given up")
        };
        crash::point("model.inside");
        self.count();
        if owner_died {
            lock::mark_consistent(&self.seat);
        }
        lock::unlock(&self.seat);
        owner_died
    }

    /// One more was in. No other thread is.
    fn count(&self) -> u64 {
        self.data.0.with_mut(|count| {
            // SAFETY: loom checks that nobody else accesses the cell meanwhile.
            let count = unsafe { &mut *count };
            *count += 1;
            *count
        })
    }

    /// What the kernel does when it is gone.
    fn die(&self) {
        self.seat.region.entry(self.seat.index).life.died(tid(&self.seat));
        self.seat.lease.end();
    }

    /// Runs until it comes to a point, and is killed there, or never comes there. True where it was killed.
    fn killed_at<R>(&self, point: &'static str, run: impl FnOnce() -> R) -> bool {
        let killed = crash::killed_at(point, run).is_none();
        if killed {
            self.die();
        }
        killed
    }
}

fn model(f: impl Fn() + Send + Sync + 'static) {
    loom::model::Builder::new().check(f);
}

/// With more preemptions it takes hours.
fn bounded(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut bounds = loom::model::Builder::new();
    let given = bounds.preemption_bound.unwrap_or(preemptions);
    bounds.preemption_bound = Some(given.min(preemptions));
    bounds.max_branches = 10_000; // who waits for a lease looks again and again
    bounds.check(f);
}

#[test]
fn mutex_against_mutex() {
    model(|| {
        let [one, other] = processes();
        let other = thread::spawn(move || assert!(!other.enter()));
        assert!(!one.enter());
        other.join().unwrap();
        assert_eq!(one.count(), 3);
    });
}

/// Both may sleep: who is woken leaves the other one to be woken in its turn.
#[test]
fn two_mutexes_behind_one() {
    bounded(2, || {
        let [one, two, three] = processes();
        let others = [two, three].map(|other| thread::spawn(move || assert!(!other.enter())));
        assert!(!one.enter());
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(one.count(), 4);
    });
}

/// One is killed in the mutex, two others come or wait.
fn two_behind_one_that_is_killed(point: &'static str) {
    bounded(1, move || {
        let [one, two, victim] = processes();
        let others = [one, two].map(|other| {
            thread::spawn(move || {
                let told = other.enter();
                (told, other)
            })
        });
        let died = victim.killed_at(point, || victim.enter());
        assert!(died);
        let ended = others.map(|other| other.join().unwrap());
        let told = ended.iter().filter(|(told, _)| *told).count();
        assert_eq!(told, 1, "one successor is told");
        assert_eq!(ended[0].1.count(), 3);
    });
}

#[test]
fn a_mutex_whose_owner_is_killed_has_one_successor() {
    two_behind_one_that_is_killed("sync.lock.word");
}

/// The successor dies too, in the lock: the next one is told as well.
#[test]
fn a_mutex_whose_successor_is_killed_has_another() {
    bounded(2, || {
        let [one, two, victim] = processes();
        assert!(victim.killed_at("model.inside", || victim.enter()));
        let second = thread::spawn(move || two.killed_at("sync.lock.inconsistent", || two.enter()));
        let told = one.enter();
        let second_died = second.join().unwrap();
        // It comes to its point unless the other one was first; then there is nothing to be told of to it.
        assert!(told);
        assert_eq!(one.enter(), false);
        let _ = second_died;
    });
}

#[test]
fn a_mutex_whose_owner_is_killed_before_it_wakes_somebody_is_not_lost() {
    bounded(2, || {
        let [one, two, victim] = processes();
        let others = [one, two].map(|other| thread::spawn(move || assert!(!other.enter())));
        // Where nobody sleeps it does not come there.
        victim.killed_at("sync.unlock.free", || victim.enter());
        for other in others {
            other.join().unwrap();
        }
    });
}

#[test]
fn a_mutex_whose_waiter_is_killed_when_it_is_woken_is_not_lost() {
    bounded(2, || {
        let [one, two, victim] = processes();
        let other = thread::spawn(move || assert!(!two.enter()));
        let dying = thread::spawn(move || {
            victim.killed_at("sync.wait.woken", || victim.enter());
        });
        assert!(!one.enter());
        other.join().unwrap();
        dying.join().unwrap();
        assert!(!one.enter());
    });
}

/// Others bury the dead owner while one waits for its mutex, and perhaps sleeps already.
#[test]
fn mutex_behind_an_owner_that_is_buried() {
    bounded(2, || {
        let [one, two, victim] = processes();
        let index = victim.seat.index;
        assert!(victim.killed_at("model.inside", || victim.enter()));
        let burying = thread::spawn(move || two.seat.bury(index));
        assert!(one.enter());
        let buried = burying.join().unwrap();
        assert!(buried == Burial::Done || one.seat.bury(index) != Burial::NotNow);
        assert!(!one.enter());
    });
}

/// The successor gives up what it found: nobody gets it any more, also who sleeps.
#[test]
fn a_mutex_that_is_given_up_against_who_waits() {
    bounded(2, || {
        let [one, two, victim] = processes();
        assert!(victim.killed_at("model.inside", || victim.enter()));
        let other = thread::spawn(move || match lock::lock(&two.seat, FOREVER) {
            Step::Locked { owner_died: true } => {
                lock::give_up(&two.seat);
                true
            }
            step => {
                assert_eq!(step, Step::NotRecoverable);
                false
            }
        });
        let here = match lock::lock(&one.seat, FOREVER) {
            Step::Locked { owner_died: true } => {
                lock::give_up(&one.seat);
                true
            }
            step => {
                assert_eq!(step, Step::NotRecoverable);
                false
            }
        };
        assert!(here != other.join().unwrap(), "one of them was told");
        assert_eq!(lock::step(&one.seat, false), Step::NotRecoverable);
    });
}

impl Process {
    fn lock(&self) {
        let step = lock::lock(&self.seat, FOREVER);
        assert!(matches!(step, Step::Locked { .. }), "{step:?}");
    }

    /// As `Condvar::wait_while`: until somebody was in.
    fn wait(&self, condvar: &SyncRegion) {
        assert!(self.wait_until(condvar, FOREVER));
    }

    /// The same, and says whether it was in time; with a time of 0 it is not if another one has the mutex after the sleep.
    fn wait_until(&self, condvar: &SyncRegion, deadline_ns: u64) -> bool {
        self.lock();
        let mut vigil = Vigil::new(&self.seat);
        while self.count() == 1 {
            self.data.0.with_mut(|count| {
                // SAFETY: as in `count`.
                unsafe { *count = 0 }
            });
            let expected = notice::expect(&self.seat, condvar);
            lock::unlock(&self.seat);
            let woken = notice::sleep(&mut vigil, condvar, expected, FOREVER).unwrap();
            // As in a time that is over just now. Of a model's times there are two: this one, and none.
            match lock::lock(&self.seat, deadline_ns) {
                Step::Locked { .. } => {}
                step => {
                    assert_eq!(step, Step::TimedOut);
                    return false;
                }
            }
            woken.looked();
        }
        lock::unlock(&self.seat);
        true
    }

    fn notify(&self, condvar: &SyncRegion, all: bool) {
        self.lock();
        self.count();
        lock::unlock(&self.seat);
        notice::give(condvar, all);
    }
}

#[test]
fn wait_against_notify() {
    bounded(2, || {
        let condvar = Arc::new(SyncRegion::new(0));
        let [one, two] = processes();
        let theirs = Arc::clone(&condvar);
        let other = thread::spawn(move || two.notify(&theirs, false));
        one.wait(&condvar);
        other.join().unwrap();
    });
}

#[test]
fn two_waits_against_notify_all() {
    bounded(1, || {
        let condvar = Arc::new(SyncRegion::new(0));
        let [one, two, three] = processes();
        let waiting = [one, two].map(|process| {
            let theirs = Arc::clone(&condvar);
            thread::spawn(move || process.wait(&theirs))
        });
        three.notify(&condvar, true);
        for waiting in waiting {
            waiting.join().unwrap();
        }
    });
}

#[test]
fn a_condvar_whose_notifier_is_killed_before_it_wakes_somebody_is_not_lost() {
    bounded(1, || {
        let condvar = Arc::new(SyncRegion::new(0));
        let [one, two, victim] = processes();
        let waiting = [one, two].map(|process| {
            let theirs = Arc::clone(&condvar);
            thread::spawn(move || process.wait(&theirs))
        });
        // Where nobody waits it does not come there.
        victim.killed_at("sync.condvar.noticed", || victim.notify(&condvar, true));
        for waiting in waiting {
            waiting.join().unwrap();
        }
    });
}

/// Of two that sleep the notice chooses one, which does not get the mutex in time: the other one is woken in its place.
#[test]
fn a_notice_of_one_whose_time_is_over_goes_to_another() {
    bounded(2, || {
        let condvar = Arc::new(SyncRegion::new(0));
        let [one, two, three] = processes();
        let theirs = Arc::clone(&condvar);
        let in_time = thread::spawn(move || {
            if one.wait_until(&theirs, 0) {
                notice::give(&theirs, false);
            }
        });
        let theirs = Arc::clone(&condvar);
        let other = thread::spawn(move || {
            two.wait(&theirs);
            notice::give(&theirs, false);
        });
        // With the mutex locked, so that the wait ends in time.
        three.lock();
        three.count();
        notice::give(&condvar, false);
        lock::unlock(&three.seat);
        in_time.join().unwrap();
        other.join().unwrap();
    });
}
