//! Who waits for a condition under a mutex, and who brings it about, beside another one that waits for the same.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicBool;

use shmbus::Directory;
use shmbus::sync::Condvar;

use crate::Plan;
use crate::door::{Act, Door, HANG, MEMBERS, MOMENT, NAME, OPTIONS, test};
use crate::drive::End;
use crate::mutex::{self, Guard, Pair, enter, entered};
use crate::processes::{Part, Role};
use crate::tracee::trace_me;
use crate::victim::between_marks;

pub(crate) const ROLES: &[Part] = &[("notify", notify), ("await_token", await_token)];

const CONDVAR: &str = "steps/condvar";
/// Where the data of the mutex stands in its file, by docs/layout.md.
const DATA: u64 = (2 + MEMBERS as u64) * 4096;

fn create(directory: &Directory) {
    mutex::create(directory);
    drop(Condvar::create_in(directory, CONDVAR, &OPTIONS).unwrap());
}

fn open(directory: &Directory) -> (Pair, Condvar) {
    (mutex::open(directory), Condvar::open_in(directory, CONDVAR).unwrap())
}

/// What the mutex protects is a number of tokens, twice.
fn add(mut guard: Guard<'_>, number: i64) {
    guard[0] = guard[0].wrapping_add_signed(number);
    guard[1] = guard[1].wrapping_add_signed(number);
}

fn give(mutex: &Pair, condvar: &Condvar) {
    add(enter(mutex, HANG).expect("nobody keeps it").0, 1);
    condvar.notify_one();
}

/// Waits for a token and takes it.
fn take(mutex: &Pair, condvar: &Condvar) {
    let mut guard = enter(mutex, HANG).expect("nobody keeps it").0;
    loop {
        let waited = condvar.wait_while_timeout(guard, |tokens| tokens[0] == 0, HANG);
        guard = entered(waited).expect("a token comes").0;
        // Not so where somebody died: the condition was not looked at.
        if guard[0] > 0 {
            return add(guard, -1);
        }
    }
}

fn notify(role: &Role) {
    trace_me();
    let (mutex, condvar) = open(&role.directory);
    between_marks(|| give(&mutex, &condvar));
}

fn await_token(role: &Role) {
    trace_me();
    let (mutex, condvar) = open(&role.directory);
    between_marks(|| take(&mutex, &condvar));
}

fn another_one_waits(door: &mut Door) {
    fn taker(directory: &Directory, _: &AtomicBool) {
        let (mutex, condvar) = open(directory);
        take(&mutex, &condvar);
    }
    door.beside(taker);
    let waits = || door.directory().inspect_sync(CONDVAR).unwrap().waiting;
    door.stage.until("it waits", waits);
}

/// Tokens, without being a member: who joins has others look around.
fn tokens(door: &Door) -> u64 {
    let ctl = File::open(door.directory().path().join(NAME).join(".sync/ctl")).unwrap();
    let mut tokens = [0; 8];
    ctl.read_exact_at(&mut tokens, DATA).unwrap();
    u64::from_ne_bytes(tokens)
}

fn wake(door: &Door) {
    let (mutex, condvar) = open(door.directory());
    give(&mutex, &condvar);
}

/// The other one gets a token that is there, whoever was told of it; else it is given one.
fn settle(door: &Door, _: End) {
    if tokens(door) == 0 && !door.is_other_done() {
        wake(door);
    }
}

fn meanwhile(door: &Door) {
    let mutex = mutex::open(door.directory());
    for _ in 0..3 {
        drop(enter(&mutex, MOMENT));
    }
}

fn check(door: &Door, end: End) {
    let all: Vec<Pair> = (0..MEMBERS).map(|_| mutex::open(door.directory())).collect();
    for (number, mutex) in all.iter().enumerate() {
        let (mut guard, told) = enter(mutex, HANG).expect("nobody has it");
        assert!(!told || number == 0, "told twice");
        assert!(!told || end != End::Done, "nobody died");
        *guard = [0, 0];
    }
}

const fn with_another_one(role: &'static str) -> Act {
    Act { settle, ..Act::of(role, create, meanwhile, check) }
}

pub(crate) fn a_condition_is_brought_about_for_one_that_is_asleep(plan: &Plan) {
    test(plan, Act { begun: another_one_waits, ..with_another_one("notify") });
}

pub(crate) fn a_condition_is_waited_for_asleep_with_another_one(plan: &Plan) {
    let before = another_one_waits;
    test(plan, Act { before, may_sleep: true, wake, ..with_another_one("await_token") });
}
