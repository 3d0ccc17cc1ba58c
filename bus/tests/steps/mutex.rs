//! Who locks and unlocks a mutex, among others who hold it, wait for it, or died with it.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use shmbus::Directory;
use shmbus::sync::{LockError, MutexGuard, RobustMutex, WaitError};

use crate::Plan;
use crate::door::{
    Act, Door, HANG, MEMBERS, MOMENT, NAME, OPTIONS, test, wait_to_be_killed, wait_to_go,
};
use crate::drive::End;
use crate::processes::{Part, Role};
use crate::tracee::trace_me;
use crate::victim::between_marks;

pub(crate) const ROLES: &[Part] = &[
    ("lock_mutex", lock),
    ("unlock", unlock),
    ("lock_and_unlock", lock_and_unlock),
    ("open_mutex", open_mutex),
    ("close_mutex", close_mutex),
    ("dying_owner", dying_owner),
];

/// Two numbers that are equal but where an owner died.
pub(crate) type Pair = RobustMutex<[u64; 2]>;
pub(crate) type Guard<'a> = MutexGuard<'a, [u64; 2]>;

pub(crate) fn create(directory: &Directory) {
    drop(Pair::create_in(directory, NAME, &OPTIONS, [0, 0]).unwrap());
}

pub(crate) fn open(directory: &Directory) -> Pair {
    Pair::open_in(directory, NAME).unwrap()
}

/// What locking came to: looks, and makes equal what the dead have left. `None`: a living one has it for so long.
pub(crate) fn entered<'a>(
    locked: Result<Guard<'a>, LockError<Guard<'a>>>,
) -> Option<(Guard<'a>, bool)> {
    match locked {
        Ok(guard) => {
            assert_eq!(guard[0], guard[1], "torn, and nobody was told");
            Some((guard, false))
        }
        Err(LockError::OwnerDied(mut guard)) => {
            guard[1] = guard[0];
            guard.mark_consistent();
            Some((guard, true))
        }
        Err(LockError::Failed(WaitError::TimedOut)) => None,
        Err(error) => panic!("{error}"),
    }
}

pub(crate) fn enter(mutex: &Pair, patience: Duration) -> Option<(Guard<'_>, bool)> {
    entered(mutex.lock_timeout(patience))
}

fn change(mut guard: Guard<'_>) {
    guard[0] += 1;
    guard[1] += 1;
}

fn lock(role: &Role) {
    trace_me();
    let mutex = open(&role.directory);
    let (guard, _) = between_marks(|| enter(&mutex, HANG)).expect("nobody keeps it");
    change(guard);
}

fn unlock(role: &Role) {
    trace_me();
    let mutex = open(&role.directory);
    let (guard, _) = enter(&mutex, HANG).expect("nobody keeps it");
    between_marks(|| change(guard));
}

fn lock_and_unlock(role: &Role) {
    trace_me();
    let mutex = open(&role.directory);
    between_marks(|| change(enter(&mutex, HANG).expect("nobody keeps it").0));
}

fn open_mutex(role: &Role) {
    trace_me();
    let mutex = between_marks(|| open(&role.directory));
    change(enter(&mutex, HANG).expect("nobody keeps it").0);
}

fn close_mutex(role: &Role) {
    trace_me();
    let mutex = open(&role.directory);
    change(enter(&mutex, HANG).expect("nobody keeps it").0);
    between_marks(|| drop(mutex));
}

/// Locks, begins to change what it protects, and waits to be killed.
fn dying_owner(role: &Role) {
    let mutex = open(&role.directory);
    let (mut guard, _) = enter(&mutex, HANG).expect("nobody keeps it");
    guard[0] += 1;
    wait_to_be_killed(role);
}

fn keeper(directory: &Directory, go: &AtomicBool) {
    let mutex = open(directory);
    let (guard, told) = enter(&mutex, HANG).expect("nobody else has it");
    assert!(!told);
    wait_to_go(go);
    change(guard);
}

fn waiter(directory: &Directory, _: &AtomicBool) {
    let mutex = open(directory);
    change(enter(&mutex, HANG).expect("it comes").0);
}

fn meanwhile(door: &Door) {
    let mutex = open(door.directory());
    for _ in 0..5 {
        if let Some((guard, _)) = enter(&mutex, MOMENT) {
            change(guard);
        }
    }
}

fn check(door: &Door, end: End) {
    next_is_told(door, end);
}

/// Killed behind the operation, it had the lock.
fn check_locked(door: &Door, end: End) {
    let told = next_is_told(door, end);
    assert!(told || end != End::KilledBehind, "it was killed with the lock, and nobody is told");
}

fn next_is_told(door: &Door, end: End) -> bool {
    let mutex = open(door.directory());
    let (guard, told) = enter(&mutex, HANG).expect("nobody who lives has it");
    assert!(!told || end != End::Done, "nobody died");
    change(guard);
    drop(mutex);
    // Every place is to be had, and the lock in each.
    let all: Vec<Pair> = (0..MEMBERS).map(|_| open(door.directory())).collect();
    for mutex in &all {
        let (guard, told) = enter(mutex, HANG).expect("nobody has it");
        assert!(!told, "told twice");
        change(guard);
    }
    told
}

const fn beside_nobody(role: &'static str) -> Act {
    Act::of(role, create, meanwhile, check)
}

/// One was killed with the lock.
const fn behind_the_dead(role: &'static str) -> Act {
    Act { before: |door| door.one_dies("dying_owner"), ..beside_nobody(role) }
}

pub(crate) fn a_mutex_is_locked(plan: &Plan) {
    test(plan, Act { check: check_locked, ..beside_nobody("lock_mutex") });
}

pub(crate) fn a_mutex_is_unlocked(plan: &Plan) {
    test(plan, beside_nobody("unlock"));
}

pub(crate) fn a_mutex_is_unlocked_with_one_asleep_behind_it(plan: &Plan) {
    let begun = |door: &mut Door| {
        door.beside(waiter);
        door.until_awaited();
    };
    test(plan, Act { begun, ..beside_nobody("unlock") });
}

pub(crate) fn a_mutex_is_waited_for_asleep(plan: &Plan) {
    let before = |door: &mut Door| {
        door.beside(keeper);
        door.until("one has the lock", |info| info.holder.is_some());
    };
    test(plan, Act { before, may_sleep: true, ..beside_nobody("lock_and_unlock") });
}

pub(crate) fn a_mutex_of_the_dead_is_locked_and_unlocked(plan: &Plan) {
    test(plan, behind_the_dead("lock_and_unlock"));
}

pub(crate) fn a_mutex_is_opened(plan: &Plan) {
    test(plan, beside_nobody("open_mutex"));
}

pub(crate) fn a_mutex_of_the_dead_is_opened(plan: &Plan) {
    test(plan, behind_the_dead("open_mutex"));
}

pub(crate) fn a_mutex_is_closed(plan: &Plan) {
    test(plan, beside_nobody("close_mutex"));
}
