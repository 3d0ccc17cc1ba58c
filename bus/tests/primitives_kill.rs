//! Semaphore, rwlock, barrier, event and once among processes that are killed and stopped at any moment.
//!
//! `SHMBUS_TEST_KILLS` says how often (default 200, shared out among the tests); `SHMBUS_TEST_SEED` repeats the moments, not what the scheduler makes of them.

#![allow(unsafe_code)] // fork, and memory that children share

#[path = "contracts/children.rs"]
#[allow(dead_code)]
mod children;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use children::{Child, State, shared_page};
use shmbus::Directory;
use shmbus::sync::{
    Barrier, Event, LockError, OnceCell, Reset, RwLock, Semaphore, SyncCreateError, SyncOptions,
    WaitError,
};

const NAME: &str = "some/thing";
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(10);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn kills(share: u64) -> u64 {
    number("SHMBUS_TEST_KILLS", 200).div_ceil(share)
}

fn seed() -> u64 {
    let seed = number("SHMBUS_TEST_SEED", 88172645463325252 ^ u64::from(std::process::id()));
    println!("SHMBUS_TEST_SEED={seed}");
    seed
}

/// xorshift
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

struct Place {
    directory: Directory,
    _root: tempfile::TempDir,
}

fn place() -> Place {
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    Place { directory: Directory::at(root.path().join("topics")).unwrap(), _root: root }
}

impl Place {
    /// Of so many permits, or the one that is there.
    fn semaphore(&self, permits: u32) -> Semaphore {
        let options = SyncOptions::default();
        match Semaphore::create_in(&self.directory, NAME, &options, permits) {
            Err(SyncCreateError::Exists { .. }) => {
                Semaphore::open_in(&self.directory, NAME).unwrap()
            }
            other => other.unwrap(),
        }
    }

    fn lock(&self) -> RwLock<[u64; 2]> {
        RwLock::open_or_create_in(&self.directory, NAME, &SyncOptions::default(), [0, 0]).unwrap()
    }

    fn barrier(&self, parties: u32) -> Barrier {
        Barrier::open_or_create_in(&self.directory, NAME, &SyncOptions::default(), parties).unwrap()
    }

    fn event(&self, reset: Reset) -> Event {
        Event::open_or_create_in(&self.directory, NAME, &SyncOptions::default(), reset).unwrap()
    }

    fn cell(&self, name: &str) -> OnceCell<u64> {
        OnceCell::open_or_create_in(&self.directory, name, &SyncOptions::default()).unwrap()
    }
}

/// Words that this process and its children share.
fn board() -> &'static [AtomicU64; 64] {
    let page = shared_page().cast::<[AtomicU64; 64]>();
    // SAFETY: page-aligned zeros, never unmapped, used as atomics only.
    unsafe { &*page }
}

/// Whether a process is on its way out, or gone: what it had may be somebody else's already.
fn is_dying(pid: u64) -> bool {
    const PF_EXITING: u64 = 4;
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    let fields = stat.rsplit(") ").next().unwrap();
    let mut fields = fields.split(' ');
    let is_zombie = fields.next().is_none_or(|state| "ZX".contains(state));
    is_zombie || fields.nth(5).unwrap().parse::<u64>().unwrap() & PF_EXITING != 0
}

/// Latencies from a kill to what was waited for.
fn report(what: &str, mut latencies: Vec<Duration>) {
    latencies.sort();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    println!(
        "{what}: {} recoveries, p50 {:?}, p99 {:?}, max {:?}",
        latencies.len(),
        at(50),
        at(99),
        at(100)
    );
}

/// Has `hold` hold something in a process, and `next` come for it or wait for it when that process is killed; again and again. How long each took.
fn recoveries(
    what: &str,
    times: u64,
    hold: impl Fn() + Sync,
    next: impl Fn() + Sync,
) -> Vec<Duration> {
    let mut state = seed();
    let mut latencies = Vec::new();
    for _ in 0..times {
        let mut holder = Child::new(|| {
            hold();
            children::stop();
            0
        });
        assert_eq!(holder.wait(), State::Stopped);
        let patience = Duration::from_micros(random(&mut state) % 3000);
        thread::scope(|scope| {
            let successor = scope.spawn(|| {
                next();
                Instant::now()
            });
            thread::sleep(patience); // whether it waits by then or comes later is left to chance
            assert!(!successor.is_finished(), "it went past one that is stopped");
            let killed = Instant::now();
            holder.kill();
            latencies.push(successor.join().unwrap() - killed);
        });
    }
    report(what, latencies.clone());
    latencies
}

#[test]
fn a_permit_of_a_killed_holder_comes_back_and_that_of_a_posix_semaphore_does_not() {
    let place = place();
    let keep = place.semaphore(1);
    let hold = || {
        let semaphore = place.semaphore(0);
        std::mem::forget(semaphore.acquire().unwrap());
        std::mem::forget(semaphore);
    };
    let next = || drop(place.semaphore(0).acquire_timeout(LONG).unwrap());
    recoveries("permit", kills(4), hold, next);
    assert_eq!(keep.value(), 1);

    let posix = shared_page().cast::<libc::sem_t>();
    // SAFETY: a page of its own, of zeros, that nobody uses yet.
    assert_eq!(unsafe { libc::sem_init(posix, 1, 1) }, 0);
    let mut holder = Child::new(|| {
        // SAFETY: initialised above, never moved or destroyed; so below.
        assert_eq!(unsafe { libc::sem_wait(posix) }, 0);
        children::stop();
        0
    });
    assert_eq!(holder.wait(), State::Stopped);
    holder.kill();
    // SAFETY: as above.
    assert_eq!(unsafe { libc::sem_trywait(posix) }, -1, "nobody has it, and nobody gets it");
}

#[test]
fn a_permit_of_one_that_is_dead_is_had_without_waiting_and_of_one_that_is_stopped_not() {
    let place = place();
    let semaphore = place.semaphore(1);
    let mut holder = Child::new(|| {
        let semaphore = place.semaphore(0);
        std::mem::forget(semaphore.acquire().unwrap());
        children::stop();
        0
    });
    assert_eq!(holder.wait(), State::Stopped);
    assert_eq!(semaphore.try_acquire().err(), Some(WaitError::WouldBlock));
    assert_eq!(semaphore.acquire_timeout(SHORT).err(), Some(WaitError::TimedOut));
    holder.kill();
    assert!(semaphore.try_acquire().is_ok());
}

#[test]
fn a_killed_reader_reads_no_more_and_a_killed_writer_is_told_of() {
    let place = place();
    let keep = place.lock();
    let read = || {
        let lock = place.lock();
        std::mem::forget(lock.read().unwrap());
        std::mem::forget(lock);
    };
    let write = || {
        let lock = place.lock();
        std::mem::forget(lock.write().unwrap());
        std::mem::forget(lock);
    };
    let go_on = || assert!(place.lock().write_timeout(LONG).is_ok(), "nobody died writing");
    recoveries("writer behind a reader", kills(6), read, go_on);
    let mend = || match place.lock().write_timeout(LONG) {
        Err(LockError::OwnerDied(mut guard)) => guard.mark_consistent(),
        other => panic!("{other:?}"),
    };
    recoveries("writer behind a writer", kills(6), write, mend);
    let told = || {
        let lock = place.lock();
        assert_eq!(lock.read_timeout(LONG).err(), Some(WaitError::WriterDied));
        match lock.write_timeout(LONG) {
            Err(LockError::OwnerDied(mut guard)) => guard.mark_consistent(),
            other => panic!("{other:?}"),
        }
    };
    recoveries("reader behind a writer", kills(6), write, told);
    assert!(keep.read().is_ok());
}

#[test]
fn a_reader_that_is_dead_is_not_in_the_way_of_who_only_tries_to_write_and_one_that_is_stopped_is() {
    let place = place();
    let lock = place.lock();
    let mut holder = Child::new(|| {
        let lock = place.lock();
        std::mem::forget(lock.read().unwrap());
        children::stop();
        0
    });
    assert_eq!(holder.wait(), State::Stopped);
    assert!(matches!(lock.try_write(), Err(LockError::Failed(WaitError::WouldBlock))));
    holder.kill();
    assert!(lock.try_write().is_ok());
}

/// A writer that waits is stopped: who would read waits, or is refused, until it goes on. Killed, it is told of.
#[test]
fn a_writer_that_is_stopped_while_it_waits_keeps_readers_out_and_one_that_is_killed_is_told_of() {
    let place = place();
    let (lock, other) = (place.lock(), place.lock());
    let guard = lock.read().unwrap();
    let mut writer = Child::new(|| {
        let lock = place.lock();
        drop(lock.write());
        0
    });
    let end = Instant::now() + LONG;
    while other.try_read().is_ok() {
        assert!(Instant::now() < end, "it does not wait");
        std::thread::yield_now();
    }
    writer.signal(libc::SIGSTOP);
    assert_eq!(writer.wait(), State::Stopped);
    drop(guard);
    for _ in 0..100 {
        assert_eq!(other.try_read().err(), Some(WaitError::WouldBlock));
    }
    writer.kill();
    assert_eq!(other.try_read().err(), Some(WaitError::WriterDied));
    match other.write_timeout(LONG) {
        Err(LockError::OwnerDied(mut guard)) => guard.mark_consistent(),
        told => panic!("{told:?}"),
    }
    assert!(lock.try_read().is_ok());
}

#[test]
fn a_barrier_is_broken_by_a_death_also_of_one_that_has_not_arrived() {
    let place = place();
    let keep = place.barrier(2);
    let hold = || {
        let barrier = place.barrier(2);
        std::mem::forget(barrier);
    };
    let next = || {
        let barrier = place.barrier(2);
        assert_eq!(barrier.wait_timeout(LONG), Err(WaitError::Broken));
        barrier.reset().unwrap();
    };
    recoveries("barrier", kills(6), hold, next);
    assert!(!keep.is_broken());
    // One that waits at it dies.
    let waiter = Child::new(|| i32::from(place.barrier(2).wait().is_err()));
    waiter.wait_until_asleep();
    waiter.kill();
    assert_eq!(keep.wait_timeout(LONG), Err(WaitError::Broken));
}

#[test]
fn an_initialiser_that_is_killed_is_followed_by_another() {
    let place = place();
    let rounds = AtomicU64::new(0);
    let name = || format!("cell/{}", rounds.load(SeqCst));
    let hold = || {
        let cell = place.cell(&name());
        _ = cell.get_or_init(|| {
            children::stop();
            1
        });
    };
    let next = || assert_eq!(place.cell(&name()).get_or_init_timeout(|| 2, LONG), Ok(&2));
    let mut latencies = Vec::new();
    for _ in 0..kills(8) {
        rounds.fetch_add(1, SeqCst);
        latencies.extend(recoveries("once", 1, hold, next));
    }
    report("once", latencies);
}

/// Keeps `count` processes at `work`, which gets its number, kills one after the other, and lets the rest end by word 0 of the board.
fn torture(count: u64, kills: u64, board: &'static [AtomicU64; 64], work: impl Fn(u64)) {
    let mut state = seed();
    let start = |number: u64| {
        Child::new(|| {
            work(number);
            0
        })
    };
    let mut workers: Vec<Child> = (0..count).map(start).collect();
    for _ in 0..kills {
        thread::sleep(Duration::from_micros(random(&mut state) % 3000));
        let number = random(&mut state) % count;
        let worker = &mut workers[number as usize];
        worker.signal(libc::SIGKILL);
        assert_eq!(worker.wait(), State::Killed(libc::SIGKILL), "it ended by itself");
        *worker = start(number);
    }
    board[0].store(1, SeqCst);
    for mut worker in workers {
        assert_eq!(worker.wait(), State::Exited(0));
    }
}

/// Words of the board.
const OPERATIONS: usize = 1;
const VIOLATIONS: usize = 2;
const TOLD: usize = 3;
const SLOTS: usize = 8;

#[test]
fn permits_are_as_many_as_ever_after_any_number_of_deaths() {
    const WORKERS: u64 = 5;
    const PERMITS: u32 = 3;
    let (place, board) = (place(), board());
    let keep = place.semaphore(PERMITS);
    let kills = kills(2);
    torture(WORKERS, kills, board, |number| {
        let semaphore = place.semaphore(0);
        let own = u64::from(std::process::id());
        let mut round = 0;
        while board[0].load(SeqCst) == 0 {
            let permit = semaphore.acquire_timeout(LONG).expect("a permit is never lost");
            round += 1;
            // Different each time, so that a slot that is seen twice was there all the time.
            board[SLOTS + number as usize].store(round << 32 | own, SeqCst);
            let look = || (0..WORKERS as usize).map(|slot| board[SLOTS + slot].load(SeqCst));
            let first: Vec<u64> = look().collect();
            thread::yield_now();
            let both =
                first.into_iter().zip(look()).filter(|(first, now)| *now != 0 && first == now);
            let inside: Vec<u64> = both.map(|(_, now)| now & 0xffff_ffff).collect();
            if inside.len() > PERMITS as usize {
                let alive = inside.iter().filter(|&&pid| !is_dying(pid)).count();
                board[VIOLATIONS].fetch_add(u64::from(alive > PERMITS as usize), SeqCst);
            }
            board[SLOTS + number as usize].store(0, SeqCst);
            drop(permit);
            board[OPERATIONS].fetch_add(1, SeqCst);
        }
    });
    let [operations, violations] = [OPERATIONS, VIOLATIONS].map(|word| board[word].load(SeqCst));
    println!("semaphore: {kills} kills, {operations} operations, {violations} violations");
    assert_eq!(violations, 0);
    let permits: Vec<_> = (0..PERMITS).map(|_| keep.acquire_timeout(LONG).unwrap()).collect();
    assert_eq!(keep.try_acquire().err(), Some(WaitError::WouldBlock), "one too many");
    drop(permits);
    assert_eq!(keep.value(), u64::from(PERMITS));
}

#[test]
fn what_is_written_is_whole_or_its_writer_is_known_to_be_dead() {
    let (place, board) = (place(), board());
    let keep = place.lock();
    let kills = kills(2);
    torture(4, kills, board, |number| {
        let lock = place.lock();
        let mut state = number + 1 + u64::from(std::process::id());
        while board[0].load(SeqCst) == 0 {
            if random(&mut state).is_multiple_of(3) {
                let mut pair = match lock.write_timeout(LONG) {
                    Ok(pair) => {
                        board[VIOLATIONS].fetch_add(u64::from(pair[0] != pair[1]), SeqCst);
                        pair
                    }
                    Err(LockError::OwnerDied(mut pair)) => {
                        board[TOLD].fetch_add(1, SeqCst);
                        pair[1] = pair[0];
                        pair.mark_consistent();
                        pair
                    }
                    Err(error) => panic!("{error}"),
                };
                pair[0] += 1;
                thread::yield_now();
                pair[1] += 1;
            } else {
                match lock.read_timeout(LONG) {
                    Ok(pair) => {
                        let first = *pair;
                        thread::yield_now();
                        let is_whole = first[0] == first[1] && *pair == first;
                        board[VIOLATIONS].fetch_add(u64::from(!is_whole), SeqCst);
                    }
                    Err(WaitError::WriterDied) => thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
            }
            board[OPERATIONS].fetch_add(1, SeqCst);
        }
    });
    let [operations, violations, told] =
        [OPERATIONS, VIOLATIONS, TOLD].map(|word| board[word].load(SeqCst));
    println!(
        "rwlock: {kills} kills, {operations} operations, {told} told, {violations} violations"
    );
    assert_eq!(violations, 0);
    match keep.write_timeout(LONG) {
        Ok(guard) => drop(guard),
        Err(LockError::OwnerDied(mut guard)) => guard.mark_consistent(),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn parties_of_a_barrier_go_on_although_others_are_killed() {
    let (place, board) = (place(), board());
    let keep = place.barrier(3);
    let kills = kills(4);
    torture(3, kills, board, |_| {
        let barrier = place.barrier(3);
        while board[0].load(SeqCst) == 0 {
            // Each is short: when all are told to end, the last one is alone.
            match barrier.wait_timeout(SHORT) {
                Ok(_) => _ = board[OPERATIONS].fetch_add(1, SeqCst),
                Err(WaitError::Broken) => {
                    board[TOLD].fetch_add(1, SeqCst);
                    barrier.reset().unwrap();
                }
                Err(WaitError::TimedOut) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
    let [passed, told] = [OPERATIONS, TOLD].map(|word| board[word].load(SeqCst));
    println!("barrier: {kills} kills, {passed} passed, {told} told");
    assert!(passed > 0 && told > 0);
    keep.reset().unwrap();
}

#[test]
fn a_signal_is_not_lost_with_one_that_was_woken_for_it() {
    let (place, board) = (place(), board());
    let event = place.event(Reset::Auto);
    let mut state = seed();
    let waiter = || {
        Child::new(|| {
            let event = place.event(Reset::Auto);
            loop {
                event.wait().unwrap();
                board[OPERATIONS].fetch_add(1, SeqCst);
            }
        })
    };
    let (mut victim, _survivor) = (waiter(), waiter());
    let (kills, mut lost) = (kills(4), 0);
    let mut latencies = Vec::new();
    for _ in 0..kills {
        let before = board[OPERATIONS].load(SeqCst);
        let begin = Instant::now();
        event.set().unwrap();
        thread::sleep(Duration::from_micros(random(&mut state) % 200));
        victim.kill();
        // It took the signal, or it did not: then the other one does.
        let taken = || board[OPERATIONS].load(SeqCst) > before;
        while !taken() && begin.elapsed() < LONG {
            if event.try_wait() == Ok(()) {
                // Here it was for a moment, which takes it from the other one.
                event.set().unwrap();
            } else if !taken() {
                // In nobody's hands: it died with it.
                lost += 1;
                break;
            }
            thread::yield_now();
        }
        assert!(begin.elapsed() < LONG, "it is set, and somebody sleeps");
        latencies.push(begin.elapsed());
        victim = waiter();
    }
    println!("event: {kills} kills, {lost} signals died with who had them");
    report("event", latencies);
}
