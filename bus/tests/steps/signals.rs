//! Who arrives at a barrier, sets an event and waits for it, makes the value of a cell; each beside another one.

use std::sync::atomic::AtomicBool;

use shmbus::Directory;
use shmbus::sync::{Barrier, Event, OnceCell, Reset, SyncState, WaitError};

use crate::Plan;
use crate::door::{
    Act, Door, HANG, MEMBERS, MOMENT, NAME, OPTIONS, test, wait_to_be_killed, wait_to_go,
};
use crate::drive::End;
use crate::processes::{Part, Role};
use crate::tracee::{mark, trace_me};
use crate::victim::between_marks;

pub(crate) const ROLES: &[Part] = &[
    ("arrive_first", arrive_first),
    ("arrive_last", arrive_last),
    ("set_event", set_event),
    ("wait_for_event", wait_for_event),
    ("make", make),
    ("make_slowly", make_slowly),
    ("dying_maker", dying_maker),
];

type Cell = OnceCell<[u64; 2]>;

fn barrier(directory: &Directory) -> Barrier {
    Barrier::open_in(directory, NAME).unwrap()
}

fn event(directory: &Directory) -> Event {
    Event::open_in(directory, NAME).unwrap()
}

fn cell(directory: &Directory) -> Cell {
    Cell::open_in(directory, NAME).unwrap()
}

// Of two parties. Who dies breaks it.

fn arrive_first(role: &Role) {
    trace_me();
    let barrier = barrier(&role.directory);
    let led = between_marks(|| barrier.wait_timeout(HANG));
    assert_eq!(led, Ok(false), "nobody died, and the last one leads");
}

fn arrive_last(role: &Role) {
    trace_me();
    let barrier = barrier(&role.directory);
    let led = between_marks(|| barrier.wait_timeout(HANG));
    assert_eq!(led, Ok(true), "nobody died, and the last one leads");
}

fn arrives(directory: &Directory, is_last: bool) {
    match barrier(directory).wait_timeout(HANG) {
        Ok(leads) => assert_eq!(leads, is_last),
        Err(error) => assert_eq!(error, WaitError::Broken, "nobody waits for the dead"),
    }
}

fn broken(door: &Door) -> bool {
    let state = door.directory().inspect_sync(NAME).unwrap().state;
    matches!(state, SyncState::Barrier { broken: true, .. })
}

fn check_barrier(door: &Door, end: End) {
    door.directory().sweep_sync(NAME).unwrap();
    assert_eq!(broken(door), end != End::Done, "a death breaks it, and nothing else does");
    barrier(door.directory()).reset().unwrap();
    let leaders: usize = std::thread::scope(|scope| {
        let arrive = || usize::from(barrier(door.directory()).wait_timeout(HANG).unwrap());
        let both = [scope.spawn(arrive), scope.spawn(arrive)];
        both.into_iter().map(|one| one.join().unwrap()).sum()
    });
    assert_eq!(leaders, 1, "one of them leads");
}

const fn of_a_barrier(role: &'static str) -> Act {
    let create = |place: &_| drop(Barrier::create_in(place, NAME, &OPTIONS, 2).unwrap());
    Act::of(role, create, |_| {}, check_barrier)
}

pub(crate) fn a_barrier_is_waited_at_asleep(plan: &Plan) {
    let before = |door: &mut Door| {
        door.beside(|directory, go| {
            wait_to_go(go);
            arrives(directory, true);
        });
    };
    test(plan, Act { before, may_sleep: true, ..of_a_barrier("arrive_first") });
}

pub(crate) fn a_barrier_is_passed_by_the_last_one_with_another_one_asleep_at_it(plan: &Plan) {
    let begun = |door: &mut Door| {
        door.beside(|directory, _| arrives(directory, false));
        let here = |state| matches!(state, SyncState::Barrier { arrived: 1, .. });
        door.until("one has arrived", |info| here(info.state));
    };
    test(plan, Act { begun, ..of_a_barrier("arrive_last") });
}

// Automatic: each signal is for one.

fn set_event(role: &Role) {
    trace_me();
    let event = event(&role.directory);
    between_marks(|| event.set().unwrap());
}

fn wait_for_event(role: &Role) {
    trace_me();
    let event = event(&role.directory);
    between_marks(|| event.wait_timeout(HANG).expect("it is set"));
}

fn another_one_waits(door: &mut Door) {
    let waits = |directory: &Directory, _: &AtomicBool| {
        event(directory).wait_timeout(HANG).expect("a signal is not lost with the dead");
    };
    door.beside(waits);
    door.until_awaited();
}

fn signal(door: &Door) {
    event(door.directory()).set().unwrap();
}

/// The other one gets a signal that is there, whoever was woken for it; else it is given one.
fn settle_event(door: &Door, _: End) {
    let state = door.directory().inspect_sync(NAME).unwrap().state;
    if state == (SyncState::Event { reset: Reset::Auto, set: false }) && !door.is_other_done() {
        signal(door);
    }
}

fn check_event(door: &Door, _: End) {
    let all: Vec<Event> = (0..MEMBERS).map(|_| event(door.directory())).collect();
    all[0].reset().unwrap();
    for event in &all {
        assert_eq!(event.try_wait(), Err(WaitError::WouldBlock));
        assert_eq!(all[0].set(), Ok(true));
        event.wait_timeout(HANG).unwrap();
    }
    // Nobody sleeps any more: the next test of whether somebody does is about others.
    all[0].set().unwrap();
    all[0].reset().unwrap();
}

const fn of_an_event(role: &'static str) -> Act {
    let create = |place: &_| drop(Event::create_in(place, NAME, &OPTIONS, Reset::Auto).unwrap());
    Act { settle: settle_event, ..Act::of(role, create, |_| {}, check_event) }
}

pub(crate) fn an_event_is_set_for_one_that_is_asleep(plan: &Plan) {
    test(plan, Act { begun: another_one_waits, ..of_an_event("set_event") });
}

pub(crate) fn an_event_is_waited_for_asleep_with_another_one(plan: &Plan) {
    let (before, wake) = (another_one_waits, signal);
    test(plan, Act { before, may_sleep: true, wake, ..of_an_event("wait_for_event") });
}

// A new one each time. Of the process under test it gets sevens, of the one beside it eights.

fn make(role: &Role) {
    trace_me();
    let cell = cell(&role.directory);
    let value = between_marks(|| *cell.get_or_init_timeout(|| [7, 7], HANG).unwrap());
    assert_eq!(value[0], value[1], "not whole");
}

/// Its first mark is in the initialiser.
fn make_slowly(role: &Role) {
    trace_me();
    let cell = cell(&role.directory);
    let make = || {
        mark();
        [7, 7]
    };
    assert_eq!(cell.get_or_init_timeout(make, HANG), Ok(&[7, 7]));
    mark();
}

fn dying_maker(role: &Role) {
    let _ = cell(&role.directory).get_or_init(|| wait_to_be_killed(role));
}

fn new_cell(door: &mut Door) {
    door.directory().remove_sync(NAME, false).expect("nobody who lives has it open");
    create_cell(door.directory());
}

fn create_cell(directory: &Directory) {
    drop(Cell::create_in(directory, NAME, &OPTIONS).unwrap());
}

fn meanwhile_cell(door: &Door) {
    match cell(door.directory()).get_or_init_timeout(|| [9, 9], MOMENT) {
        Ok(value) => assert_eq!(value[0], value[1], "not whole"),
        Err(error) => assert_eq!(error, WaitError::TimedOut),
    }
}

fn value_of(door: &Door) -> u64 {
    let all: Vec<Cell> = (0..MEMBERS).map(|_| cell(door.directory())).collect();
    let first = *all[0].get_or_init_timeout(|| [8, 8], HANG).expect("nobody keeps it");
    assert_eq!(first[0], first[1], "not whole");
    assert!(all.iter().all(|cell| cell.get() == Some(&first)), "one value, which all see");
    first[0]
}

/// What was made before the death is there.
fn check_made(door: &Door, end: End) {
    let value = value_of(door);
    assert!(end != End::KilledBehind || value == 7, "{value}: it was made, and is another one now");
}

fn check_made_by_the_other(door: &Door, _: End) {
    assert_eq!(value_of(door), 8);
}

const fn of_a_cell(role: &'static str) -> Act {
    let of = Act::of(role, create_cell, meanwhile_cell, check_made);
    Act { before: new_cell, ..of }
}

pub(crate) fn a_value_is_made(plan: &Plan) {
    test(plan, of_a_cell("make"));
}

pub(crate) fn a_value_is_made_after_a_maker_that_died(plan: &Plan) {
    let before = |door: &mut Door| {
        new_cell(door);
        door.one_dies("dying_maker");
    };
    test(plan, Act { before, ..of_a_cell("make") });
}

pub(crate) fn a_value_is_made_with_another_one_asleep_behind_it(plan: &Plan) {
    let begun = |door: &mut Door| {
        door.beside(|directory, _| {
            cell(directory).get_or_init_timeout(|| [8, 8], HANG).expect("it comes");
        });
        door.until_awaited();
    };
    test(plan, Act { begun, ..of_a_cell("make_slowly") });
}

pub(crate) fn a_value_is_waited_for_asleep(plan: &Plan) {
    let before = |door: &mut Door| {
        new_cell(door);
        door.beside(|directory, go| {
            let make = || {
                wait_to_go(go);
                [8, 8]
            };
            cell(directory).get_or_init_timeout(make, HANG).expect("nobody else makes it");
        });
        door.until("one makes it", |info| info.holder.is_some());
    };
    let check = check_made_by_the_other;
    test(plan, Act { before, may_sleep: true, check, ..of_a_cell("make") });
}
