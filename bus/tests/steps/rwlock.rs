//! Who reads and writes what an rwlock protects, among others who read, write, wait, or died writing.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use shmbus::Directory;
use shmbus::sync::{LockError, ReadGuard, RwLock, WaitError, WriteGuard};

use crate::Plan;
use crate::door::{
    Act, Door, HANG, MEMBERS, MOMENT, NAME, OPTIONS, say, test, wait_to_be_killed, wait_to_go,
};
use crate::drive::End;
use crate::processes::{Part, Role};
use crate::tracee::trace_me;
use crate::victim::between_marks;

pub(crate) const ROLES: &[Part] = &[
    ("read", read),
    ("leave_reading", leave_reading),
    ("read_and_leave", read_and_leave),
    ("write", write),
    ("leave_writing", leave_writing),
    ("write_and_leave", write_and_leave),
    ("try_to_write", try_to_write),
    ("dying_writer", dying_writer),
    ("dying_reader", dying_reader),
];

const READS: u64 = 1;
const WRITES: u64 = 2;

/// Two numbers that are equal but where a writer died.
type Limits = RwLock<[u64; 2]>;
type Written<'a> = WriteGuard<'a, [u64; 2]>;

fn create(directory: &Directory) {
    drop(Limits::create_in(directory, NAME, &OPTIONS, [0, 0]).unwrap());
}

fn open(directory: &Directory) -> Limits {
    Limits::open_in(directory, NAME).unwrap()
}

/// Writes, and makes equal what the dead have left. `None`: others have it for so long.
fn begin_to_write(lock: &Limits, patience: Duration) -> Option<(Written<'_>, bool)> {
    match lock.write_timeout(patience) {
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

/// `None`: a writer has it for so long, or died with it.
fn begin_to_read(lock: &Limits, patience: Duration) -> Option<ReadGuard<'_, [u64; 2]>> {
    match lock.read_timeout(patience) {
        Ok(guard) => {
            assert_eq!(guard[0], guard[1], "torn, and its reader was not told");
            Some(guard)
        }
        Err(WaitError::TimedOut | WaitError::WriterDied) => None,
        Err(error) => panic!("{error}"),
    }
}

fn change(mut guard: Written<'_>) {
    guard[0] += 1;
    guard[1] += 1;
}

/// Reads or writes between the marks, or leaves, or both.
fn plays(role: &Role, writes: bool, begins: bool, leaves: bool) {
    trace_me();
    let lock = open(&role.directory);
    let begin = || {
        let read = (!writes).then(|| begin_to_read(&lock, HANG).expect("nobody keeps it"));
        let written = writes.then(|| begin_to_write(&lock, HANG).expect("nobody keeps it").0);
        say(role, if writes { WRITES } else { READS });
        (read, written)
    };
    let leave = |(read, written): (Option<_>, Option<Written<'_>>)| {
        let written = written.map(|mut guard| {
            guard[0] += 1;
            guard[1] += 1;
            guard
        });
        say(role, 0);
        drop((read, written));
    };
    match (begins, leaves) {
        (true, true) => between_marks(|| leave(begin())),
        (true, false) => leave(between_marks(begin)),
        _ => {
            let has = begin();
            between_marks(|| leave(has));
        }
    }
}

fn read(role: &Role) {
    plays(role, false, true, false);
}

fn leave_reading(role: &Role) {
    plays(role, false, false, true);
}

fn read_and_leave(role: &Role) {
    plays(role, false, true, true);
}

fn write(role: &Role) {
    plays(role, true, true, false);
}

fn leave_writing(role: &Role) {
    plays(role, true, false, true);
}

fn write_and_leave(role: &Role) {
    plays(role, true, true, true);
}

/// Without waiting: whoever died reading is not in the way.
fn try_to_write(role: &Role) {
    trace_me();
    let lock = open(&role.directory);
    between_marks(|| match lock.try_write() {
        Ok(guard) => {
            say(role, WRITES);
            change_and_leave(role, guard);
        }
        Err(LockError::OwnerDied(mut guard)) => {
            say(role, WRITES);
            guard[1] = guard[0];
            guard.mark_consistent();
            change_and_leave(role, guard);
        }
        Err(LockError::Failed(WaitError::WouldBlock)) => {} // one of the others has it just now
        Err(error) => panic!("{error}"),
    });
}

fn change_and_leave(role: &Role, mut guard: Written<'_>) {
    guard[0] += 1;
    guard[1] += 1;
    say(role, 0);
}

fn dying_writer(role: &Role) {
    let lock = open(&role.directory);
    let (mut guard, _) = begin_to_write(&lock, HANG).expect("nobody keeps it");
    guard[0] += 1;
    wait_to_be_killed(role);
}

fn dying_reader(role: &Role) {
    let lock = open(&role.directory);
    let _guard = begin_to_read(&lock, HANG).expect("nobody keeps it");
    wait_to_be_killed(role);
}

fn keeper_writes(directory: &Directory, go: &AtomicBool) {
    let lock = open(directory);
    let (guard, told) = begin_to_write(&lock, HANG).expect("nobody else has it");
    assert!(!told);
    wait_to_go(go);
    change(guard);
}

fn keeper_reads(directory: &Directory, go: &AtomicBool) {
    let lock = open(directory);
    let guard = begin_to_read(&lock, HANG).expect("nobody else has it");
    wait_to_go(go);
    drop(guard);
}

fn waiter_writes(directory: &Directory, _: &AtomicBool) {
    let lock = open(directory);
    change(begin_to_write(&lock, HANG).expect("it comes").0);
}

/// Reads as soon as it can; where the writer died it is told, and leaves that to others.
fn waiter_reads(directory: &Directory, _: &AtomicBool) {
    let lock = open(directory);
    match lock.read_timeout(HANG) {
        Ok(guard) => assert_eq!(guard[0], guard[1], "torn, and its reader was not told"),
        Err(WaitError::WriterDied) => {}
        Err(error) => panic!("{error}"),
    }
}

fn meanwhile(door: &Door) {
    let lock = open(door.directory());
    for _ in 0..3 {
        if let Some(guard) = begin_to_read(&lock, MOMENT) {
            assert_ne!(door.inside(), WRITES, "reads beside a writer");
            drop(guard);
        }
        if let Some((guard, _)) = begin_to_write(&lock, MOMENT) {
            assert_eq!(door.inside(), 0, "writes beside another one");
            change(guard);
        }
    }
}

fn check(door: &Door, end: End) {
    next_is_told(door, end);
}

/// Killed behind the operation, it wrote.
fn check_written(door: &Door, end: End) {
    let told = next_is_told(door, end);
    assert!(told || end != End::KilledBehind, "it was killed writing, and nobody is told");
}

/// What readers have does not need mending.
fn check_read(door: &Door, end: End) {
    assert!(!next_is_told(door, end), "nobody died writing");
}

fn next_is_told(door: &Door, end: End) -> bool {
    let lock = open(door.directory());
    let (guard, told) = begin_to_write(&lock, HANG).expect("nobody who lives has it");
    assert!(!told || end != End::Done, "nobody died");
    change(guard);
    drop(begin_to_read(&lock, HANG).expect("nobody writes, and it was mended"));
    drop(lock);
    // Every place is to be had, and the lock in each, and by all readers together.
    let all: Vec<Limits> = (0..MEMBERS).map(|_| open(door.directory())).collect();
    for lock in &all {
        let (guard, told) = begin_to_write(lock, HANG).expect("nobody has it");
        assert!(!told, "told twice");
        change(guard);
    }
    let reads: Vec<_> = all.iter().map(|lock| begin_to_read(lock, HANG).unwrap()).collect();
    assert_eq!(reads.len(), MEMBERS as usize);
    told
}

const fn beside_nobody(role: &'static str) -> Act {
    Act::of(role, create, meanwhile, check)
}

/// One waits for it in vain, while the process under test has it.
const fn before_a_waiter(role: &'static str, begun: fn(&mut Door)) -> Act {
    Act { begun, ..beside_nobody(role) }
}

/// It waits for the one beside it.
const fn behind_a_keeper(role: &'static str, before: fn(&mut Door)) -> Act {
    Act { before, may_sleep: true, ..beside_nobody(role) }
}

fn somebody_writes(door: &mut Door) {
    door.beside(keeper_writes);
    door.until("one writes", |info| info.holder.is_some());
}

fn somebody_reads(door: &mut Door) {
    door.beside(keeper_reads);
    door.until("one reads", |info| info.members.iter().any(|one| one.held > 0));
}

fn a_writer_waits(door: &mut Door) {
    door.beside(waiter_writes);
    door.until_awaited();
}

fn a_reader_waits(door: &mut Door) {
    door.beside(waiter_reads);
    door.until_awaited();
}

pub(crate) fn an_rwlock_is_read(plan: &Plan) {
    test(plan, Act { check: check_read, ..beside_nobody("read") });
}

pub(crate) fn an_rwlock_is_left_by_its_reader(plan: &Plan) {
    test(plan, Act { check: check_read, ..beside_nobody("leave_reading") });
}

pub(crate) fn an_rwlock_is_left_by_its_reader_with_a_writer_asleep_behind_it(plan: &Plan) {
    test(plan, before_a_waiter("leave_reading", a_writer_waits));
}

pub(crate) fn an_rwlock_is_read_behind_a_writer_asleep(plan: &Plan) {
    test(plan, behind_a_keeper("read_and_leave", somebody_writes));
}

pub(crate) fn an_rwlock_of_a_dead_reader_is_written(plan: &Plan) {
    let before = |door: &mut Door| door.one_dies("dying_reader");
    test(plan, Act { before, ..beside_nobody("write_and_leave") });
}

pub(crate) fn an_rwlock_of_a_dead_reader_is_written_without_waiting(plan: &Plan) {
    let before = |door: &mut Door| door.one_dies("dying_reader");
    test(plan, Act { before, ..beside_nobody("try_to_write") });
}

pub(crate) fn an_rwlock_is_written(plan: &Plan) {
    test(plan, Act { check: check_written, ..beside_nobody("write") });
}

pub(crate) fn an_rwlock_is_left_by_its_writer(plan: &Plan) {
    test(plan, beside_nobody("leave_writing"));
}

pub(crate) fn an_rwlock_is_left_by_its_writer_with_a_reader_asleep_behind_it(plan: &Plan) {
    test(plan, before_a_waiter("leave_writing", a_reader_waits));
}

pub(crate) fn an_rwlock_is_left_by_its_writer_with_a_writer_asleep_behind_it(plan: &Plan) {
    test(plan, before_a_waiter("leave_writing", a_writer_waits));
}

pub(crate) fn an_rwlock_is_written_behind_a_writer_asleep(plan: &Plan) {
    test(plan, behind_a_keeper("write_and_leave", somebody_writes));
}

pub(crate) fn an_rwlock_is_written_behind_a_reader_asleep(plan: &Plan) {
    test(plan, behind_a_keeper("write_and_leave", somebody_reads));
}

pub(crate) fn an_rwlock_of_a_dead_writer_is_written(plan: &Plan) {
    let before = |door: &mut Door| door.one_dies("dying_writer");
    test(plan, Act { before, ..beside_nobody("write_and_leave") });
}
