//! A file on which somebody writes at random while it is in use: errors, also wrong answers, and no panic, nor a wait beyond its deadline.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::Duration;

use shmbus::Directory;
use shmbus::sync::{
    Barrier, Condvar, Event, LockError, OnceCell, Reset, RwLock, Semaphore, SyncOpenError,
    SyncOptions, WaitError,
};

use crate::processes::{Stage, beat};
use crate::random::Random;
use crate::torture::{Pair, create};
use crate::{Plan, kills};

const NAME: &str = "scribbled/object";
const SHORT: Duration = Duration::from_micros(300);
const PAGE: u64 = 4096;
/// In the header once in so many times: else nobody could open it.
const HEADER: u64 = 11;

/// A primitive, and what is done with a handle of it.
struct Kind<H> {
    create: fn(&Directory) -> H,
    open: fn(&Directory) -> Result<H, SyncOpenError>,
    /// Whether it got what it asked for.
    act: fn(&H, &mut Random) -> bool,
}

fn options() -> SyncOptions {
    SyncOptions { members_max: 8, ..Default::default() }
}

/// Where something is looked at, or anywhere, in a file of so many pages.
fn place(random: &mut Random, pages: u64) -> u64 {
    let page = if random.one_in(HEADER) { 0 } else { random.below(1..pages) } * PAGE;
    match random.below(0..4) {
        0 => page + random.below(0..80),
        1 => page + 4080 + random.below(0..4),
        2 => PAGE + random.below(0..324),
        _ => page + random.below(0..PAGE),
    }
}

/// Ends the scribbler, also where the test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

fn scribble(file: &File, seed: u64, done: &AtomicBool, writes: &AtomicU64) {
    let mut random = Random::new(seed);
    let pages = file.metadata().unwrap().len() / PAGE;
    while !done.load(SeqCst) {
        let value = match random.below(0..4) {
            0 => 0,
            1 => random.below(0..9),
            _ => random.next(),
        };
        let len = random.below(1..9) as usize;
        // It ends where the file does: nobody makes it longer.
        let place = place(&mut random, pages).min(pages * PAGE - 8);
        file.write_all_at(&value.to_le_bytes()[..len], place).unwrap();
        if writes.fetch_add(1, SeqCst).is_multiple_of(4) {
            std::thread::yield_now();
        }
    }
}

fn test<H>(plan: &Plan, kind: &Kind<H>) {
    let mut random = Random::new(plan.seed);
    let (mut entered, mut refused, mut opened, mut not_opened) = (0u64, 0u64, 0u64, 0u64);
    let rounds = kills(plan, 80).max(3);
    let mut round = 0;
    // Where others have the cores it takes longer until everything has happened once.
    while round < rounds
        || ([entered, refused, opened, not_opened].contains(&0) && round < 50 * rounds)
    {
        round += 1;
        let stage = Stage::new();
        let directory = &stage.directory;
        let path = directory.path().join(NAME).join(".sync/ctl");
        let mut handles = vec![(kind.create)(directory)];
        let file = File::options().read(true).write(true).open(path).unwrap();
        let (done, writes) = (AtomicBool::new(false), AtomicU64::new(0));
        let seed = random.next();
        std::thread::scope(|scope| {
            let scribbler = scope.spawn(|| scribble(&file, seed, &done, &writes));
            let ends = Ends(&done);
            for looks in 0..60 {
                while writes.load(SeqCst) < 4 * looks && !scribbler.is_finished() {
                    std::thread::yield_now();
                }
                match (kind.open)(directory) {
                    Ok(handle) => {
                        opened += 1;
                        handles.push(handle);
                    }
                    Err(_) => not_opened += 1,
                }
                for handle in &handles {
                    match (kind.act)(handle, &mut random) {
                        true => entered += 1,
                        false => refused += 1,
                    }
                }
                let _ = directory.inspect_sync(NAME);
                if looks % 8 == 0 {
                    let _ = directory.sweep_sync(NAME);
                }
                if handles.len() > 4 {
                    handles.remove(random.below(0..4) as usize);
                }
                beat();
            }
            drop(ends);
        });
        drop(handles);
        let _ = directory.remove_sync(NAME, true);
    }
    println!("  {entered} times in, {refused} not; opened {opened} times, {not_opened} not");
    assert!(entered > 0 && refused > 0 && opened > 0 && not_opened > 0, "scribbled in vain");
}

pub(crate) fn a_mutex_on_which_somebody_scribbles_answers_in_time(plan: &Plan) {
    let act = |mutex: &Pair, _: &mut Random| match mutex.lock_timeout(SHORT) {
        Ok(mut guard) => {
            guard[0] += guard[1] & 1;
            true
        }
        Err(LockError::OwnerDied(mut guard)) => {
            guard.mark_consistent();
            true
        }
        Err(LockError::Failed(_)) => false,
    };
    let (create, open) = (|place: &_| create(place, NAME), |place: &_| Pair::open_in(place, NAME));
    test(plan, &Kind { create, open, act });
}

pub(crate) fn an_rwlock_on_which_somebody_scribbles_answers_in_time(plan: &Plan) {
    type Limits = RwLock<[u64; 2]>;
    let act = |limits: &Limits, random: &mut Random| {
        let read = limits.read_timeout(SHORT).is_ok_and(|pair| pair[0] != pair[1] || pair[0] == 0);
        let written = match limits.write_timeout(SHORT) {
            Ok(mut guard) => {
                guard[0] ^= 1;
                true
            }
            Err(LockError::OwnerDied(mut guard)) => {
                if random.one_in(2) {
                    guard.mark_consistent();
                }
                true
            }
            Err(LockError::Failed(_)) => false,
        };
        read || written
    };
    let create = |place: &_| Limits::create_in(place, NAME, &options(), [0, 0]).unwrap();
    test(plan, &Kind { create, open: |place| Limits::open_in(place, NAME), act });
}

pub(crate) fn a_condvar_on_which_somebody_scribbles_answers_in_time(plan: &Plan) {
    /// The mutex is whole: it has a test of its own.
    struct Both(Pair, Condvar);
    const MUTEX: &str = "whole";
    let create_both = |place: &Directory| {
        let mutex = create(place, MUTEX);
        Both(mutex, Condvar::create_in(place, NAME, &options()).unwrap())
    };
    let open = |place: &Directory| {
        Ok(Both(Pair::open_in(place, MUTEX).unwrap(), Condvar::open_in(place, NAME)?))
    };
    let act = |Both(mutex, condvar): &Both, random: &mut Random| {
        match random.one_in(2) {
            true => condvar.notify_one(),
            false => condvar.notify_all(),
        }
        let guard = mutex.lock().unwrap();
        let mut looks = random.below(1..4);
        let waits = |_: &mut [u64; 2]| {
            looks = looks.saturating_sub(1);
            looks > 0
        };
        condvar.wait_while_timeout(guard, waits, SHORT).is_ok()
    };
    test(plan, &Kind { create: create_both, open, act });
}

pub(crate) fn a_semaphore_on_which_somebody_scribbles_answers_in_time(plan: &Plan) {
    let act = |semaphore: &Semaphore, random: &mut Random| {
        let granted = match random.one_in(2) {
            true => semaphore.acquire_timeout(SHORT),
            false => semaphore.try_acquire(),
        };
        let _ = (semaphore.value(), semaphore.post(random.below(0..3) as u32));
        let is_granted = granted.is_ok();
        if let (Ok(permit), true) = (granted, random.one_in(2)) {
            permit.consume();
        }
        is_granted
    };
    let create = |place: &_| Semaphore::create_in(place, NAME, &options(), 3).unwrap();
    test(plan, &Kind { create, open: |place| Semaphore::open_in(place, NAME), act });
}

pub(crate) fn a_barrier_on_which_somebody_scribbles_answers_in_time(plan: &Plan) {
    let act = |barrier: &Barrier, random: &mut Random| {
        let passed = barrier.wait_timeout(SHORT);
        if passed == Err(WaitError::Broken) && random.one_in(2) {
            barrier.reset().unwrap();
        }
        let _ = barrier.is_broken();
        passed.is_ok()
    };
    /// For one party, which waits for nobody, and for two in turn.
    static PARTIES: AtomicU32 = AtomicU32::new(0);
    let create = |place: &_| {
        let parties = 1 + PARTIES.fetch_add(1, SeqCst) % 2;
        Barrier::create_in(place, NAME, &options(), parties).unwrap()
    };
    test(plan, &Kind { create, open: |place| Barrier::open_in(place, NAME), act });
}

pub(crate) fn an_event_on_which_somebody_scribbles_answers_in_time(plan: &Plan) {
    let act = |event: &Event, random: &mut Random| {
        if random.one_in(3) {
            let _ = event.set();
        }
        let until_ns = shmbus_sys::clock::monotonic_ns() + SHORT.as_nanos() as u64;
        match random.below(0..3) {
            0 => event.wait_timeout(SHORT).is_ok(),
            1 => Event::wait_any(&[event, event], until_ns).is_ok(),
            _ => event.reset().is_ok() && event.try_wait().is_ok(),
        }
    };
    let create = |place: &_| Event::create_in(place, NAME, &options(), Reset::Auto).unwrap();
    test(plan, &Kind { create, open: |place| Event::open_in(place, NAME), act });
}

pub(crate) fn a_cell_on_which_somebody_scribbles_answers_in_time(plan: &Plan) {
    type Cell = OnceCell<[u64; 2]>;
    let act = |cell: &Cell, random: &mut Random| {
        let fails = random.one_in(3);
        let make = || if fails { Err(WaitError::WouldBlock) } else { Ok([1, 2]) };
        let until_ns = shmbus_sys::clock::monotonic_ns() + SHORT.as_nanos() as u64;
        let made = cell.get_or_try_init_until(make, until_ns);
        made.is_ok() && cell.get().is_none_or(|pair| pair[0] != 3)
    };
    let create = |place: &_| Cell::create_in(place, NAME, &options()).unwrap();
    test(plan, &Kind { create, open: |place| Cell::open_in(place, NAME), act });
}
