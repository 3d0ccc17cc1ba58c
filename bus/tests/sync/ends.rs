//! Owners that stop, exec, fork, or die with more than one mutex.
#![allow(unsafe_code)] // fork

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use shmbus::sync::{Condvar, LockError, SyncOptions, WaitError};

use crate::Plan;
use crate::processes::{Part, ROLE, Role, Stage};
use crate::torture::{LONG, create, locked, open};

pub(crate) const ROLES: &[Part] = &[
    ("holder", holder),
    ("execs", execs),
    ("sleeper", sleeper),
    ("forks", forks),
    ("notifier", notifier),
];

const NAMES: [&str; 5] = ["ends/a", "ends/b", "ends/c", "ends/d", "ends/e"];
const MORE: &str = "ends/more";
const SHORT: Duration = Duration::from_millis(30);

/// Words of the board: who stays says so; a forked child says what it has seen.
const READY: usize = 40;
const GO: usize = 41;
const CHILD: usize = 42;

fn stay(role: &Role) -> ! {
    role.board.word(READY).fetch_add(1, SeqCst);
    loop {
        std::thread::park();
    }
}

/// Locks so many mutexes, in one thread, and stays.
fn holder(role: &Role) {
    let [count] = role.numbers();
    let mutexes: Vec<_> =
        NAMES[..count as usize].iter().map(|name| open(&role.directory, name)).collect();
    let guards: Vec<_> = mutexes
        .iter()
        .map(|mutex| {
            let (mut guard, told) = locked(mutex.lock()).unwrap();
            assert!(!told);
            guard[0] += 1;
            guard
        })
        .collect();
    assert_eq!(guards.len(), count as usize);
    stay(role)
}

/// Locks, and becomes another program.
fn execs(role: &Role) {
    let mutex = open(&role.directory, NAMES[0]);
    let _guard = locked(mutex.lock()).unwrap();
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    assert_eq!(arguments[0], ROLE);
    arguments[1] = "sleeper".into();
    let error = Command::new(std::env::current_exe().unwrap()).args(arguments).exec();
    panic!("{error}");
}

fn sleeper(role: &Role) {
    stay(role)
}

fn failed<G>(result: Result<G, LockError<G>>) -> Option<WaitError> {
    match result {
        Err(LockError::Failed(error)) => Some(error),
        _ => None,
    }
}

/// Locks, forks a child that tries to use what it has from its parent, and goes on when it is told.
fn forks(role: &Role) {
    let mutex = open(&role.directory, NAMES[0]);
    let more = Condvar::open_in(&role.directory, MORE).unwrap();
    let (guard, _) = locked(mutex.lock()).unwrap();
    // SAFETY: this process has one thread. The child loads, stores, drops what has no destructor in a child, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let seen = failed(mutex.try_lock()) == Some(WaitError::Forked)
            && failed(mutex.lock()) == Some(WaitError::Forked)
            && failed(more.wait_while(guard, |_| unreachable!())) == Some(WaitError::Forked);
        more.notify_all();
        drop(more);
        // The board is mapped in the child too.
        role.board.word(CHILD).store(1 + u64::from(seen), SeqCst);
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: `status` is valid for writes.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0, "the child has ended well");
    role.board.word(READY).fetch_add(1, SeqCst);
    let parent = rustix::process::getppid();
    while role.board.word(GO).load(SeqCst) == 0 {
        assert_eq!(rustix::process::getppid(), parent, "the test is gone");
        std::thread::yield_now();
    }
    drop(guard);
    drop(locked(mutex.lock()).unwrap());
}

/// Locks, changes what is waited for, and is killed before it says so.
fn notifier(role: &Role) {
    let mutex = open(&role.directory, NAMES[0]);
    let (mut guard, _) = locked(mutex.lock()).unwrap();
    *guard = [1, 1];
    stay(role)
}

fn ready(stage: &Stage) {
    stage.until("it is so far", || stage.board.word(READY).load(SeqCst) == 1);
}

pub(crate) fn a_stopped_owner_keeps_its_mutex_and_others_give_up_in_time(_: &Plan) {
    let stage = Stage::new();
    let mutex = create(&stage.directory, NAMES[0]);
    let holder = stage.spawn("holder", &[1]);
    ready(&stage);
    holder.stop();
    for _ in 0..3 {
        assert_eq!(failed(mutex.lock_timeout(SHORT)), Some(WaitError::TimedOut));
        assert_eq!(failed(mutex.try_lock()), Some(WaitError::WouldBlock));
    }
    holder.go_on();
    assert_eq!(failed(mutex.lock_timeout(SHORT)), Some(WaitError::TimedOut));
    // Killed while it is stopped.
    holder.stop();
    holder.kill();
    assert!(locked(mutex.lock()).unwrap().1, "its death is told");
}

pub(crate) fn an_owner_that_execs_has_left_its_mutex_to_the_next_one(_: &Plan) {
    let stage = Stage::new();
    let mutex = create(&stage.directory, NAMES[0]);
    let execs = stage.spawn("execs", &[]);
    ready(&stage);
    let (mut guard, told) = locked(mutex.lock_timeout(LONG)).unwrap();
    assert!(told, "the program that had it is gone, although its process lives");
    assert!(execs.is_running());
    guard.mark_consistent();
    execs.kill();
}

pub(crate) fn a_forked_child_has_nothing_and_does_no_harm(_: &Plan) {
    let stage = Stage::new();
    let mutex = create(&stage.directory, NAMES[0]);
    drop(Condvar::create_in(&stage.directory, MORE, &SyncOptions::default()).unwrap());
    let forks = stage.spawn("forks", &[]);
    ready(&stage);
    assert_eq!(stage.board.word(CHILD).load(SeqCst), 2, "all of its handles say `Forked`");
    // The child has ended: its parent has the lock all the same.
    assert_eq!(failed(mutex.lock_timeout(SHORT)), Some(WaitError::TimedOut));
    stage.board.word(GO).store(1, SeqCst);
    forks.done();
    assert!(!locked(mutex.lock()).unwrap().1, "nobody died");
}

pub(crate) fn every_mutex_of_a_killed_process_is_recovered(_: &Plan) {
    let stage = Stage::new();
    let mutexes = NAMES.map(|name| create(&stage.directory, name));
    let holder = stage.spawn("holder", &[NAMES.len() as u64]);
    ready(&stage);
    for mutex in &mutexes {
        assert_eq!(failed(mutex.try_lock()), Some(WaitError::WouldBlock));
    }
    holder.kill();
    for mutex in &mutexes {
        let (mut guard, told) = locked(mutex.lock()).unwrap();
        assert!(told);
        assert_eq!(*guard, [1, 0], "as it was left");
        *guard = [1, 1];
        guard.mark_consistent();
        drop(guard);
        assert!(!locked(mutex.lock()).unwrap().1, "told once");
    }
}

pub(crate) fn who_waits_for_a_condition_takes_the_mutex_of_a_killed_notifier(_: &Plan) {
    let stage = Stage::new();
    let mutex = create(&stage.directory, NAMES[0]);
    let more = Condvar::create_in(&stage.directory, MORE, &SyncOptions::default()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let notifier = stage.spawn("notifier", &[]);
            ready(&stage);
            notifier.kill();
        });
        let (guard, _) = locked(mutex.lock()).unwrap();
        let (mut guard, told) = locked(more.wait_while(guard, |pair| pair[0] == 0)).unwrap();
        assert!(told, "it died with the lock");
        assert_eq!(*guard, [1, 1]);
        guard.mark_consistent();
        let again = more.wait_while(guard, |pair| pair[0] == 0);
        assert!(!locked(again).unwrap().1);
        let guard = locked(mutex.lock()).unwrap().0;
        let late = more.wait_while_timeout(guard, |_| true, SHORT);
        assert_eq!(failed(late), Some(WaitError::TimedOut));
        assert!(failed(mutex.try_lock()).is_none(), "it is not locked any more");
    });
}
