//! Who takes the only permit of a semaphore and gives it back, among others who have it, wait for it, or died with it.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use shmbus::Directory;
use shmbus::sync::{Permit, Semaphore, WaitError};

use crate::Plan;
use crate::door::{
    Act, Door, HANG, MEMBERS, MOMENT, NAME, OPTIONS, say, test, wait_to_be_killed, wait_to_go,
};
use crate::drive::End;
use crate::processes::{Part, Role};
use crate::tracee::trace_me;
use crate::victim::between_marks;

pub(crate) const ROLES: &[Part] = &[
    ("acquire", acquire),
    ("release", release),
    ("acquire_and_release", acquire_and_release),
    ("dying_holder", dying_holder),
];

fn create(directory: &Directory) {
    drop(Semaphore::create_in(directory, NAME, &OPTIONS, 1).unwrap());
}

fn open(directory: &Directory) -> Semaphore {
    Semaphore::open_in(directory, NAME).unwrap()
}

fn take(semaphore: &Semaphore, patience: Duration) -> Option<Permit<'_>> {
    match semaphore.acquire_timeout(patience) {
        Ok(permit) => Some(permit),
        Err(WaitError::TimedOut) => None,
        Err(error) => panic!("{error}"),
    }
}

fn acquire(role: &Role) {
    trace_me();
    let semaphore = open(&role.directory);
    let permit = between_marks(|| {
        let permit = take(&semaphore, HANG).expect("nobody keeps it");
        say(role, 1);
        permit
    });
    say(role, 0);
    drop(permit);
}

fn release(role: &Role) {
    trace_me();
    let semaphore = open(&role.directory);
    let permit = take(&semaphore, HANG).expect("nobody keeps it");
    say(role, 1);
    between_marks(|| {
        say(role, 0);
        drop(permit);
    });
}

fn acquire_and_release(role: &Role) {
    trace_me();
    let semaphore = open(&role.directory);
    between_marks(|| {
        let permit = take(&semaphore, HANG).expect("nobody keeps it");
        say(role, 1);
        say(role, 0);
        drop(permit);
    });
}

fn dying_holder(role: &Role) {
    let semaphore = open(&role.directory);
    let _permit = take(&semaphore, HANG).expect("nobody keeps it");
    wait_to_be_killed(role);
}

fn keeper(directory: &Directory, go: &AtomicBool) {
    let semaphore = open(directory);
    let permit = take(&semaphore, HANG).expect("nobody else has it");
    wait_to_go(go);
    drop(permit);
}

fn waiter(directory: &Directory, _: &AtomicBool) {
    let semaphore = open(directory);
    drop(take(&semaphore, HANG).expect("it comes"));
}

fn meanwhile(door: &Door) {
    let semaphore = open(door.directory());
    for _ in 0..5 {
        if let Some(permit) = take(&semaphore, MOMENT) {
            assert_eq!(door.inside(), 0, "two have the only permit");
            assert_eq!(semaphore.value(), 0);
            drop(permit);
        }
    }
}

fn check(door: &Door, _: End) {
    let semaphore = open(door.directory());
    drop(take(&semaphore, HANG).expect("the permit comes back"));
    drop(semaphore);
    // Every place is to be had, and the permit in each, which is one.
    let all: Vec<Semaphore> = (0..MEMBERS).map(|_| open(door.directory())).collect();
    for semaphore in &all {
        assert_eq!(semaphore.value(), 1, "permits are as many as ever");
        let permit = take(semaphore, HANG).expect("nobody has it");
        assert_eq!(all[0].try_acquire().err(), Some(WaitError::WouldBlock), "there is one");
        drop(permit);
    }
}

const fn beside_nobody(role: &'static str) -> Act {
    Act::of(role, create, meanwhile, check)
}

pub(crate) fn a_permit_is_taken(plan: &Plan) {
    test(plan, beside_nobody("acquire"));
}

pub(crate) fn a_permit_is_given_back(plan: &Plan) {
    test(plan, beside_nobody("release"));
}

pub(crate) fn a_permit_is_given_back_with_one_asleep_behind_it(plan: &Plan) {
    let begun = |door: &mut Door| {
        door.beside(waiter);
        door.until_awaited();
    };
    test(plan, Act { begun, ..beside_nobody("release") });
}

pub(crate) fn a_permit_is_waited_for_asleep(plan: &Plan) {
    let before = |door: &mut Door| {
        door.beside(keeper);
        door.until("one has the permit", |info| info.members.iter().any(|one| one.held > 0));
    };
    test(plan, Act { before, may_sleep: true, ..beside_nobody("acquire_and_release") });
}

pub(crate) fn a_permit_of_the_dead_is_taken_and_given_back(plan: &Plan) {
    let before = |door: &mut Door| door.one_dies("dying_holder");
    test(plan, Act { before, ..beside_nobody("acquire_and_release") });
}
