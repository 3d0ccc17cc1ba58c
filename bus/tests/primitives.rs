//! Semaphore, rwlock, barrier, event and once as their users see them, in one process: each thread has handles of its own.

#[path = "primitives/disagree.rs"]
mod disagree;
#[path = "primitives/late.rs"]
mod late;
#[path = "primitives/pollers.rs"]
mod pollers;

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;
use std::time::{Duration, Instant};

use shmbus::Directory;
use shmbus::sync::{
    Barrier, Event, LockError, OnceCell, PostError, Reset, RobustMutex, RwLock, Semaphore,
    SyncCreateError, SyncOpenError, SyncOptions, WaitError,
};

static_assertions::assert_not_impl_any!(Semaphore: Send, Sync);
static_assertions::assert_not_impl_any!(RwLock<u64>: Send, Sync);
static_assertions::assert_not_impl_any!(Barrier: Send, Sync);
static_assertions::assert_not_impl_any!(Event: Send, Sync);
static_assertions::assert_not_impl_any!(OnceCell<u64>: Send, Sync);

const NAME: &str = "some/thing";
const SHORT: Duration = Duration::from_millis(5);
const LONG: Duration = Duration::from_secs(60);

struct Place {
    directory: Directory,
    options: SyncOptions,
    _root: tempfile::TempDir,
}

fn place() -> Place {
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    let directory = Directory::at(root.path().join("topics")).unwrap();
    Place { directory, options: SyncOptions::default(), _root: root }
}

impl Place {
    /// Of so many permits, or the one that is there.
    fn semaphore(&self, permits: u32) -> Semaphore {
        match Semaphore::create_in(&self.directory, NAME, &self.options, permits) {
            Err(SyncCreateError::Exists { .. }) => {
                Semaphore::open_in(&self.directory, NAME).unwrap()
            }
            other => other.unwrap(),
        }
    }

    fn lock(&self) -> RwLock<[u64; 2]> {
        RwLock::open_or_create_in(&self.directory, NAME, &self.options, [0, 0]).unwrap()
    }

    fn barrier(&self, parties: u32) -> Barrier {
        Barrier::open_or_create_in(&self.directory, NAME, &self.options, parties).unwrap()
    }

    fn event(&self, name: &str, reset: Reset) -> Event {
        Event::open_or_create_in(&self.directory, name, &self.options, reset).unwrap()
    }

    fn cell(&self) -> OnceCell<u64> {
        OnceCell::open_or_create_in(&self.directory, NAME, &self.options).unwrap()
    }
}

/// xorshift
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn a_name_is_one_kind_and_another_is_refused_with_both() {
    let place = place();
    let _semaphore = place.semaphore(1);
    let refused = Event::open_in(&place.directory, NAME).unwrap_err();
    assert_eq!(refused.to_string(), "some/thing is a semaphore, not a event");
    assert!(matches!(refused, SyncOpenError::Kind { .. }));
    let refused = RobustMutex::open_or_create_in(&place.directory, NAME, &place.options, 0u64);
    assert!(matches!(refused, Err(SyncCreateError::Open(SyncOpenError::Kind { .. }))));
}

#[test]
fn permits_are_those_made_less_those_consumed_and_those_that_somebody_has() {
    let seed = 0x9e37_79b9_7f4a_7c15 ^ u64::from(std::process::id());
    println!("seed {seed}");
    let mut state = seed;
    for _ in 0..20 {
        let place = place();
        let handles = [place.semaphore(3), place.semaphore(99), place.semaphore(0)];
        let (mut total, mut held) = (3, Vec::new());
        for _ in 0..300 {
            let handle = &handles[random(&mut state) as usize % 3];
            match random(&mut state) % 4 {
                0 if total < 50 => {
                    let count = (random(&mut state) % 3) as u32;
                    handle.post(count).unwrap();
                    total += u64::from(count);
                }
                1 if !held.is_empty() => {
                    drop(held.swap_remove(random(&mut state) as usize % held.len()));
                }
                2 if !held.is_empty() => {
                    let permit: shmbus::sync::Permit<'_> =
                        held.swap_remove(random(&mut state) as usize % held.len());
                    permit.consume();
                    total -= 1;
                }
                _ => match handle.try_acquire() {
                    Ok(permit) => held.push(permit),
                    Err(error) => {
                        assert_eq!(error, WaitError::WouldBlock);
                        assert_eq!(held.len() as u64, total, "there was one");
                    }
                },
            }
            assert_eq!(handle.value(), total - held.len() as u64);
        }
    }
}

#[test]
fn more_permits_than_there_can_be_are_refused_and_none_is_made() {
    let place = place();
    let max = Semaphore::PERMITS_MAX;
    let semaphore = place.semaphore(max);
    assert_eq!(semaphore.value(), u64::from(max));
    assert_eq!(semaphore.post(1), Err(PostError::Overflow { max }));
    semaphore.acquire().unwrap().consume();
    assert_eq!(semaphore.post(2), Err(PostError::Overflow { max }));
    assert_eq!(semaphore.value(), u64::from(max) - 1);
    semaphore.post(1).unwrap();
}

#[test]
fn a_handle_that_is_dropped_gives_its_forgotten_permits_back() {
    let place = place();
    let (one, other) = (place.semaphore(2), place.semaphore(2));
    std::mem::forget(one.acquire().unwrap());
    std::mem::forget(one.acquire().unwrap());
    assert_eq!(other.acquire_timeout(SHORT).err(), Some(WaitError::TimedOut));
    drop(one);
    assert_eq!(other.value(), 2);
}

#[test]
fn at_most_as_many_as_there_are_permits_are_in_at_a_time_and_all_get_in() {
    const ROUNDS: u64 = 300;
    let place = place();
    let _keep = place.semaphore(2);
    let (inside, entered) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| {
                let semaphore = place.semaphore(0);
                for _ in 0..ROUNDS {
                    let permit = semaphore.acquire_timeout(LONG).unwrap();
                    assert!(inside.fetch_add(1, SeqCst) < 2);
                    thread::yield_now();
                    inside.fetch_sub(1, SeqCst);
                    drop(permit);
                    entered.fetch_add(1, SeqCst);
                }
            });
        }
    });
    assert_eq!(entered.load(SeqCst), 5 * ROUNDS);
    assert_eq!(place.semaphore(0).value(), 2);
}

#[test]
fn each_thing_that_is_posted_is_consumed_once_and_nobody_sleeps_through_a_post() {
    const THINGS: u64 = 2000;
    let place = place();
    let producer = place.semaphore(0);
    let consumed = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let consumer = place.semaphore(0);
                loop {
                    // Each wait has all the time in the world: a post that wakes nobody is a failure, not a delay.
                    let permit = consumer.acquire_timeout(LONG).unwrap();
                    permit.consume();
                    if consumed.fetch_add(1, SeqCst) >= THINGS {
                        return;
                    }
                }
            });
        }
        let mut state = 88172645463325252;
        for _ in 0..THINGS {
            producer.post(1).unwrap();
            if random(&mut state).is_multiple_of(4) {
                thread::yield_now();
            }
        }
        producer.post(3).unwrap(); // one each, to end by
    });
    assert_eq!((consumed.load(SeqCst), producer.value()), (THINGS + 3, 0));
}

#[test]
fn readers_are_in_together_and_never_with_a_writer() {
    let place = place();
    let lock = place.lock();
    let other = place.lock();
    {
        let (one, two) = (lock.read().unwrap(), other.read().unwrap());
        assert_eq!(*one, *two);
        assert!(matches!(lock.write(), Err(LockError::Failed(WaitError::AlreadyHeld))));
        let third = place.lock();
        assert!(matches!(third.try_write(), Err(LockError::Failed(WaitError::WouldBlock))));
    }
    let torn = AtomicU64::new(0);
    thread::scope(|scope| {
        for worker in 0..4u64 {
            let (place, torn) = (&place, &torn);
            scope.spawn(move || {
                let lock = place.lock();
                for round in 0..400 {
                    if (worker + round).is_multiple_of(4) {
                        let mut pair = lock.write().unwrap();
                        pair[0] += 1;
                        thread::yield_now();
                        pair[1] += 1;
                    } else {
                        let pair = lock.read().unwrap();
                        torn.fetch_add(u64::from(pair[0] != pair[1]), SeqCst);
                    }
                }
            });
        }
    });
    assert_eq!(torn.load(SeqCst), 0);
    assert_eq!(*lock.read().unwrap(), [400, 400]);
}

#[test]
fn a_handle_that_reads_reads_again_even_past_a_writer_that_waits() {
    let place = place();
    let (lock, other) = (place.lock(), place.lock());
    let first = lock.read().unwrap();
    thread::scope(|scope| {
        let writer =
            scope.spawn(|| place.lock().write_timeout(LONG).map(|mut pair| pair[0] = 7).is_ok());
        // The writer is there when others are kept out.
        while other.try_read().is_ok() {
            thread::yield_now();
        }
        assert_eq!(other.read_timeout(SHORT).err(), Some(WaitError::TimedOut), "a writer waits");
        let second = lock.read().unwrap();
        drop(first);
        assert_eq!(*second, [0, 0]);
        drop(second);
        assert!(writer.join().unwrap());
    });
    assert_eq!(*other.read_timeout(LONG).unwrap(), [7, 0]);
}

#[test]
fn a_writer_is_not_starved_by_readers_who_follow_one_another() {
    let place = place();
    let lock = place.lock();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let lock = place.lock();
                while !stop.load(SeqCst) {
                    let _guard = lock.read().unwrap();
                    thread::yield_now(); // so that one of the three reads at any time
                }
            });
        }
        for _ in 0..50 {
            lock.write_timeout(LONG).unwrap()[0] += 1;
        }
        stop.store(true, SeqCst);
    });
    assert_eq!(lock.read().unwrap()[0], 50);
}

#[test]
fn a_writer_that_times_out_lets_readers_in_again() {
    let place = place();
    let (lock, other) = (place.lock(), place.lock());
    let guard = lock.read().unwrap();
    assert!(matches!(other.write_timeout(SHORT), Err(LockError::Failed(WaitError::TimedOut))));
    assert!(place.lock().try_read().is_ok());
    drop(guard);
    assert!(other.try_write().is_ok());
    let guard = other.write().unwrap();
    assert!(matches!(other.read(), Err(WaitError::AlreadyHeld)));
    drop(guard);
}

#[test]
fn a_writer_that_panics_is_told_of_as_one_that_died_until_somebody_mends_it() {
    let place = place();
    let (lock, other) = (place.lock(), place.lock());
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _guard = lock.write().unwrap();
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(panicked.is_err());
    assert_eq!(other.read().err(), Some(WaitError::WriterDied));
    let Err(LockError::OwnerDied(mut guard)) = other.write() else { panic!("nobody is told") };
    guard.mark_consistent();
    drop(guard);
    assert!(lock.read().is_ok());

    std::mem::forget(lock.write().unwrap());
    drop(lock); // as the dead
    assert_eq!(other.read().err(), Some(WaitError::WriterDied));
    let Err(LockError::OwnerDied(guard)) = other.write() else { panic!("nobody is told") };
    drop(guard);
    assert_eq!(other.read().err(), Some(WaitError::NotRecoverable));
}

#[test]
fn nobody_passes_a_barrier_before_all_have_arrived_and_one_leads() {
    const ROUNDS: u64 = 200;
    let place = place();
    let keep = place.barrier(4);
    assert_eq!(keep.parties(), 4);
    let (arrived, led) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let barrier = place.barrier(4);
                for round in 1..=ROUNDS {
                    arrived.fetch_add(1, SeqCst);
                    let leads = barrier.wait_timeout(LONG).unwrap();
                    assert!(arrived.load(SeqCst) >= 4 * round, "passed too early");
                    led.fetch_add(u64::from(leads), SeqCst);
                }
            });
        }
    });
    assert_eq!(led.load(SeqCst), ROUNDS);
}

#[test]
fn who_times_out_at_a_barrier_has_not_arrived() {
    let place = place();
    let (one, other) = (place.barrier(2), place.barrier(2));
    assert_eq!(one.wait_timeout(SHORT), Err(WaitError::TimedOut));
    assert_eq!(other.wait_timeout(SHORT), Err(WaitError::TimedOut));
    thread::scope(|scope| {
        let waiter = scope.spawn(|| place.barrier(2).wait_timeout(LONG));
        assert!(one.wait_timeout(LONG).is_ok());
        assert!(waiter.join().unwrap().is_ok());
    });
}

#[test]
fn a_barrier_that_is_reset_sends_away_who_waits_and_works_again() {
    let place = place();
    let keep = place.barrier(2);
    for _ in 0..50 {
        let (told, passed) = thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let barrier = place.barrier(2);
                let told = barrier.wait_timeout(LONG);
                (told, barrier.wait_timeout(LONG))
            });
            while !waiter.is_finished() {
                keep.reset().unwrap();
                if let Ok(leads) = keep.wait_timeout(SHORT) {
                    // Either of its two waits.
                    assert!(!keep.is_broken());
                    if waiter.is_finished() {
                        break;
                    }
                    _ = leads;
                }
            }
            waiter.join().unwrap()
        });
        let is_right =
            |result: &Result<bool, WaitError>| matches!(result, Ok(_) | Err(WaitError::Broken));
        assert!(is_right(&told) && is_right(&passed), "{told:?} {passed:?}");
    }
}

#[test]
fn a_manual_event_lets_all_go_until_it_is_reset() {
    let place = place();
    let event = place.event(NAME, Reset::Manual);
    assert_eq!(event.try_wait(), Err(WaitError::WouldBlock));
    assert_eq!(event.wait_timeout(SHORT), Err(WaitError::TimedOut));
    thread::scope(|scope| {
        let waiters =
            [(); 3].map(|()| scope.spawn(|| place.event(NAME, Reset::Manual).wait_timeout(LONG)));
        assert_eq!((event.set(), event.set()), (Ok(true), Ok(false)));
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), Ok(()));
        }
    });
    assert_eq!(event.try_wait(), Ok(()));
    assert_eq!((event.reset(), event.reset()), (Ok(true), Ok(false)));
    assert_eq!(event.try_wait(), Err(WaitError::WouldBlock));
}

#[test]
fn an_automatic_event_lets_exactly_one_go_each_time_it_is_set() {
    const SIGNALS: u64 = 1000;
    let place = place();
    let event = place.event(NAME, Reset::Auto);
    let (taken, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let event = place.event(NAME, Reset::Auto);
                loop {
                    event.wait_timeout(LONG).unwrap();
                    if stop.load(SeqCst) {
                        event.set().unwrap(); // for the next one to end by
                        return;
                    }
                    if taken.fetch_add(1, SeqCst) > 2 * SIGNALS {
                        return; // it is taken without end
                    }
                }
            });
        }
        for signal in 1..=SIGNALS {
            assert_eq!(event.set(), Ok(true));
            while taken.load(SeqCst) < signal {
                thread::yield_now();
            }
            assert_eq!(event.try_wait(), Err(WaitError::WouldBlock));
        }
        assert_eq!(taken.load(SeqCst), SIGNALS);
        stop.store(true, SeqCst);
        event.set().unwrap();
    });
}

#[test]
fn of_several_events_the_first_that_is_set_is_waited_for_and_no_other_is_taken() {
    let place = place();
    let events = ["a", "b", "c"].map(|name| place.event(name, Reset::Auto));
    let all = [&events[0], &events[1], &events[2]];
    let deadline = || shmbus_sys::clock::monotonic_ns() + 60_000_000_000;
    assert_eq!(Event::wait_any(&all, 0), Err(WaitError::TimedOut));
    assert_eq!(Event::wait_any(&[], u64::MAX), Err(WaitError::TimedOut));
    events[1].set().unwrap();
    events[2].set().unwrap();
    assert_eq!(Event::wait_any(&all, deadline()), Ok(1));
    assert_eq!(Event::wait_any(&all, deadline()), Ok(2));
    for round in 0..100 {
        thread::scope(|scope| {
            let setter = scope.spawn(move || ["a", "b", "c"][round % 3]);
            let name = setter.join().unwrap();
            let place = &place;
            scope.spawn(move || place.event(name, Reset::Auto).set().unwrap());
            assert_eq!(Event::wait_any(&all, deadline()), Ok(round % 3));
        });
    }
}

#[test]
fn more_words_than_the_kernel_waits_for_are_refused() {
    let place = place();
    let options = SyncOptions { members_max: 126, ..place.options.clone() };
    let open =
        |name| Event::open_or_create_in(&place.directory, name, &options, Reset::Auto).unwrap();
    let crowd: Vec<Event> = (0..70).map(|_| open("one")).collect();
    let other: Vec<Event> = (0..70).map(|_| open("other")).collect();
    let refused =
        Event::wait_any(&[&crowd[0], &other[0]], shmbus_sys::clock::monotonic_ns() + 1_000_000_000);
    assert_eq!(refused, Err(WaitError::TooMany { max: 128 }));
    assert_eq!(crowd[0].wait_timeout(SHORT), Err(WaitError::TimedOut), "one alone is waited for");
}

#[test]
fn exactly_one_initialiser_completes_and_all_see_what_it_made() {
    for _ in 0..20 {
        let place = place();
        let keep = place.cell();
        let made = AtomicU64::new(0);
        thread::scope(|scope| {
            let getters = [1u64, 2, 3, 4].map(|number| {
                let (place, made) = (&place, &made);
                scope.spawn(move || {
                    let cell = place.cell();
                    let make = || {
                        made.fetch_add(1, SeqCst);
                        thread::yield_now();
                        number
                    };
                    *cell.get_or_init_timeout(make, LONG).unwrap()
                })
            });
            let got = getters.map(|getter| getter.join().unwrap());
            assert!(got.iter().all(|got| Some(got) == keep.get()), "{got:?}");
        });
        assert_eq!(made.load(SeqCst), 1);
    }
}

#[test]
fn an_initialiser_that_fails_or_panics_leaves_it_to_another() {
    let place = place();
    let (cell, other) = (place.cell(), place.cell());
    let failed = cell.get_or_try_init(|| Err::<u64, _>(WaitError::WouldBlock));
    assert_eq!(failed, Err(WaitError::WouldBlock));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        cell.get_or_init(|| std::panic::resume_unwind(Box::new(()))).copied()
    }));
    assert!(panicked.is_err());
    let inner = cell.get_or_try_init(|| {
        assert_eq!(cell.get_or_init(|| 1), Err(WaitError::AlreadyHeld));
        assert_eq!(other.get_or_init_timeout(|| 1, SHORT), Err(WaitError::TimedOut));
        Ok::<u64, WaitError>(5)
    });
    assert_eq!(inner, Ok(&5));
    assert_eq!(other.get_or_init(|| 6), Ok(&5));
}

#[test]
fn who_waits_for_something_that_is_removed_is_told() {
    fn told<R>(place: &Place, wait: impl FnOnce() -> R + Send) -> R
    where
        R: Send,
    {
        thread::scope(|scope| {
            let waiter = scope.spawn(wait);
            thread::sleep(Duration::from_millis(20)); // most often it sleeps; it need not
            place.directory.remove_sync(NAME, true).unwrap();
            waiter.join().unwrap()
        })
    }
    let place = place();
    let semaphore = place.semaphore(0);
    let error = told(&place, || place.semaphore(0).acquire_timeout(LONG).err());
    assert_eq!(error, Some(WaitError::Removed));
    drop(semaphore);
    let event = place.event(NAME, Reset::Auto);
    let error = told(&place, || place.event(NAME, Reset::Auto).wait_timeout(LONG).err());
    assert_eq!(error, Some(WaitError::Removed));
    drop(event);
    let barrier = place.barrier(2);
    let error = told(&place, || place.barrier(2).wait_timeout(LONG).err());
    assert_eq!(error, Some(WaitError::Removed));
    drop(barrier);
    let lock = place.lock();
    let guard = lock.read().unwrap();
    let is_removed = told(&place, || {
        matches!(place.lock().write_timeout(LONG), Err(LockError::Failed(WaitError::Removed)))
    });
    assert!(is_removed);
    drop(guard);
}

#[test]
fn a_wait_in_vain_ends_no_earlier_than_its_deadline_and_is_no_poll() {
    let place = place();
    let semaphore = place.semaphore(0);
    let start = Instant::now();
    let timeout = Duration::from_millis(300);
    let before = sleeps();
    assert_eq!(semaphore.acquire_timeout(timeout).err(), Some(WaitError::TimedOut));
    assert!(start.elapsed() >= timeout);
    let slept = sleeps() - before;
    assert!(slept <= 10, "on its feet {slept} times");
}

/// How often this thread has gone to sleep: `voluntary_ctxt_switches`.
fn sleeps() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Until a thread of this process sleeps in the kernel, and `is_there` says the rest.
pub(crate) fn until_asleep(thread: u32, is_there: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    loop {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap();
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        if state == Some('S') && is_there() {
            return;
        }
        assert!(Instant::now() < end, "it does not go to sleep: {stat}");
        thread::yield_now();
    }
}

/// Of this thread, as `/proc` has it.
pub(crate) fn thread_id() -> u32 {
    rustix::thread::gettid().as_raw_pid() as u32
}
