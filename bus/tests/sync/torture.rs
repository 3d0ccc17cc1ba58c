//! Processes that are killed at random instructions on one mutex; and waiters behind an owner that is killed.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use rustix::process::Signal;
use shmbus::Directory;
use shmbus::sync::{LockError, MutexGuard, RobustMutex, SyncOptions, WaitError};
use shmbus_sys::clock::monotonic_ns;

use crate::processes::{Part, Role, Stage, beat, kill_me_after};
use crate::random::Random;
use crate::{Plan, kills};

pub(crate) const ROLES: &[Part] = &[("locker", locker), ("owner", owner), ("waiter", waiter)];

const NAME: &str = "torture/mutex";
pub(crate) const LONG: Duration = Duration::from_secs(60);
const PROCESSES: u64 = 4;

/// Words of the board. Who is in, as its own note says.
const INSIDE: usize = 64;
const SECTIONS: usize = 67;
const TOLD: usize = 68;
const TOLD_OF_INSIDE: usize = 69;
const VIOLATIONS: usize = 70;
const ROUND: usize = 71;
const READY: usize = 72;
const ENTERED: usize = 73;
/// When the one who was told had the lock.
const TOLD_NS: usize = 74;

/// Two numbers that are equal but where an owner died.
pub(crate) type Pair = RobustMutex<[u64; 2]>;

pub(crate) fn create(directory: &Directory, name: &str) -> Pair {
    let options = SyncOptions { members_max: 8, ..Default::default() };
    Pair::create_in(directory, name, &options, [0, 0]).unwrap()
}

pub(crate) fn open(directory: &Directory, name: &str) -> Pair {
    Pair::open_in(directory, name).unwrap()
}

/// The guard, and whether its owner before died.
pub(crate) fn locked<'a>(
    locked: Result<MutexGuard<'a, [u64; 2]>, LockError<MutexGuard<'a, [u64; 2]>>>,
) -> Result<(MutexGuard<'a, [u64; 2]>, bool), WaitError> {
    match locked {
        Ok(guard) => Ok((guard, false)),
        Err(LockError::OwnerDied(guard)) => Ok((guard, true)),
        Err(LockError::Failed(error)) => Err(error),
    }
}

fn locker(role: &Role) {
    let [number, seed, kill_ns] = role.numbers();
    let board = &role.board;
    let mut random = Random::new(seed);
    kill_me_after(Duration::from_nanos(kill_ns));
    let word = |word| board.word(word);
    let holds = |holds: bool| {
        if !holds {
            word(VIOLATIONS).fetch_add(1, SeqCst);
        }
    };
    loop {
        let mutex = open(&role.directory, NAME);
        for _ in 0..200 {
            let patience = if random.one_in(20) { Duration::from_micros(50) } else { LONG };
            let (mut guard, told) = match locked(mutex.lock_timeout(patience)) {
                Ok(entered) => entered,
                Err(WaitError::TimedOut) if patience < LONG => continue,
                Err(_) => return holds(false),
            };
            let before = word(INSIDE).load(Relaxed);
            holds(before == 0 || told); // somebody is in, or died in, and this one was not told
            holds(guard[0] == guard[1] || told);
            if told {
                word(TOLD).fetch_add(1, Relaxed);
                if before != 0 {
                    word(TOLD_OF_INSIDE).fetch_add(1, Relaxed);
                }
            }
            word(INSIDE).store(number, Relaxed);
            if told {
                guard[1] = guard[0];
                guard.mark_consistent();
            }
            guard[0] += 1;
            for _ in 0..random.below(0..40) {
                holds(word(INSIDE).load(Relaxed) == number);
            }
            if random.one_in(20) {
                std::thread::yield_now();
            }
            guard[1] += 1;
            holds(word(INSIDE).load(Relaxed) == number);
            word(INSIDE).store(0, Relaxed);
            drop(guard);
            word(SECTIONS).fetch_add(1, Relaxed);
        }
    }
}

pub(crate) fn the_mutex_of_the_killed_goes_to_one_successor_that_is_told(plan: &Plan) {
    let mut random = Random::new(plan.seed);
    let stage = Stage::new();
    drop(create(&stage.directory, NAME));
    let mut number = 0;
    let mut spawn = || {
        number += 1;
        let kill_ns = random.duration(Duration::from_millis(6)).as_nanos() as u64;
        stage.spawn("locker", &[number, random.next(), kill_ns])
    };
    let mut living: Vec<_> = (0..PROCESSES).map(|_| spawn()).collect();
    let count = kills(plan, 1).max(PROCESSES);
    for _ in 0..count {
        // In turn, so that each lives while others come and go.
        living.remove(0).killed();
        living.push(spawn());
    }
    living.into_iter().for_each(crate::processes::Process::killed);
    let word = |word: usize| stage.board.word(word).load(SeqCst);
    println!(
        "  {} killed in {} sections, {} successors told, {} of them of one inside, {} violations",
        count + PROCESSES,
        word(SECTIONS),
        word(TOLD),
        word(TOLD_OF_INSIDE),
        word(VIOLATIONS)
    );
    assert_eq!(word(VIOLATIONS), 0, "two were in, or a death was not told");
    assert!(word(TOLD_OF_INSIDE) <= word(TOLD) && word(TOLD) <= count + PROCESSES, "told twice");
    assert!(word(SECTIONS) > count, "progress");
    assert!(count < 400 || word(TOLD_OF_INSIDE) > 0, "nobody was killed inside");
    // After them all: every place is to be had.
    let last: Vec<Pair> = (0..8).map(|_| open(&stage.directory, NAME)).collect();
    let (mut guard, told) = locked(last[7].lock()).unwrap();
    assert!(told || word(INSIDE) == 0);
    guard.mark_consistent();
    drop(guard);
    drop(last);
    stage.directory.remove_sync(NAME, false).unwrap();
}

/// Locks, and stays in there.
fn owner(role: &Role) {
    let mutex = open(&role.directory, NAME);
    let (mut guard, told) = locked(mutex.lock()).unwrap();
    assert!(!told);
    guard[0] += 1;
    role.board.word(READY).fetch_add(1, SeqCst);
    loop {
        std::thread::park();
    }
}

/// Locks once in every round.
fn waiter(role: &Role) {
    let mutex = open(&role.directory, NAME);
    let word = |word| role.board.word(word);
    let parent = rustix::process::getppid();
    for round in 1.. {
        while word(ROUND).load(SeqCst) != round {
            assert_eq!(rustix::process::getppid(), parent, "the test is gone");
            std::thread::yield_now();
        }
        let (mut guard, told) = locked(mutex.lock()).unwrap();
        if told {
            word(TOLD_NS).store(monotonic_ns(), SeqCst);
            word(TOLD).fetch_add(1, SeqCst);
            assert_eq!(guard[0], guard[1] + 1, "as it was left");
            guard[1] = guard[0];
            guard.mark_consistent();
        }
        assert_eq!(guard[0], guard[1]);
        drop(guard);
        word(ENTERED).fetch_add(1, SeqCst);
    }
}

pub(crate) fn a_waiter_has_the_mutex_of_a_killed_owner_at_once_and_one_of_three_is_told(
    plan: &Plan,
) {
    const WAITERS: u64 = 3;
    let stage = Stage::new();
    drop(create(&stage.directory, NAME));
    let word = |word: usize| stage.board.word(word).load(SeqCst);
    let waiters = [(); WAITERS as usize].map(|()| stage.spawn("waiter", &[]));
    let rounds = kills(plan, 8).max(8);
    let mut times: Vec<u64> = (1..=rounds)
        .map(|round| {
            let owner = stage.spawn("owner", &[]);
            stage.until("it has the lock", || word(READY) == round);
            stage.board.word(ROUND).store(round, SeqCst);
            stage.until("they sleep", || waiters.iter().all(|waiter| waiter.is_asleep()));
            let killed_ns = monotonic_ns();
            owner.send(Signal::KILL);
            stage.until("all had the lock", || word(ENTERED) == round * WAITERS);
            assert_eq!(word(TOLD), round, "one is told");
            owner.killed();
            beat();
            word(TOLD_NS) - killed_ns
        })
        .collect();
    times.sort_unstable();
    let at =
        |percent: usize| Duration::from_nanos(times[((times.len() - 1) * percent).div_ceil(100)]);
    println!(
        "  {rounds} owners killed with {WAITERS} asleep behind each, {} told; from SIGKILL to the successor: p50 {:.1?} p99 {:.1?} max {:.1?}",
        word(TOLD),
        at(50),
        at(99),
        at(100)
    );
    // Woken by the kernel, and not by the look that everybody takes once in a second.
    assert!(at(50) < Duration::from_millis(500), "they wait for the next look");
}
