//! `RobustMutex` as its users see it, in one process: each thread has a handle of its own.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::Duration;

use shmbus::Directory;
use shmbus::sync::{
    LockError, RobustMutex, SyncCreateError, SyncOpenError, SyncOptions, SyncRemoveError, WaitError,
};

const NAME: &str = "bank/account";

struct Place {
    directory: Directory,
    _root: tempfile::TempDir,
}

fn place() -> Place {
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    Place { directory: Directory::at(root.path().join("topics")).unwrap(), _root: root }
}

fn create(place: &Place) -> RobustMutex<[u64; 2]> {
    RobustMutex::create_in(&place.directory, NAME, &SyncOptions::default(), [3, 4]).unwrap()
}

fn open(place: &Place) -> RobustMutex<[u64; 2]> {
    RobustMutex::open_in(&place.directory, NAME).unwrap()
}

fn failed<G>(result: Result<G, LockError<G>>) -> WaitError {
    match result {
        Err(LockError::Failed(error)) => error,
        Err(LockError::OwnerDied(_)) => panic!("its owner died"),
        Ok(_) => panic!("locked"),
    }
}

#[test]
fn what_one_handle_writes_under_the_lock_the_next_one_reads() {
    let place = place();
    let mutex = create(&place);
    assert_eq!(*mutex.lock().unwrap(), [3, 4]);
    mutex.lock().unwrap()[1] = 5;
    let other = open(&place);
    assert_eq!(*other.lock().unwrap(), [3, 5]);
    assert_eq!(*mutex.try_lock().unwrap(), [3, 5]);
}

#[test]
fn who_waits_for_a_mutex_is_told_that_something_else_has_deleted_its_files() {
    let place = place();
    let mutex = create(&place);
    let guard = mutex.lock().unwrap();
    let is_open = std::sync::Barrier::new(2);
    thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let other = open(&place);
            is_open.wait();
            failed(other.lock_timeout(Duration::from_secs(3600)))
        });
        is_open.wait();
        std::fs::remove_dir_all(place.directory.path().join("bank")).unwrap();
        assert_eq!(waits.join().unwrap(), WaitError::Removed);
    });
    drop(guard);
    assert_eq!(failed(mutex.lock()), WaitError::Removed);
}

#[test]
fn a_lock_is_one_threads_at_a_time_and_everybody_gets_it() {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 2000;
    let place = place();
    let mutex = create(&place);
    mutex.lock().unwrap()[0] = 0;
    let inside = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mutex = open(&place);
                for round in 0..ROUNDS {
                    let mut data = mutex.lock().unwrap();
                    assert_eq!(inside.fetch_add(1, SeqCst), 0, "two are in");
                    data[0] += 1;
                    if round % 16 == 0 {
                        thread::yield_now();
                    }
                    inside.fetch_sub(1, SeqCst);
                }
            });
        }
    });
    assert_eq!(mutex.lock().unwrap()[0], THREADS * ROUNDS);
}

#[test]
fn who_does_not_wait_or_not_for_long_is_told() {
    let place = place();
    let (mutex, other) = (create(&place), open(&place));
    let guard = mutex.lock().unwrap();
    assert_eq!(failed(other.try_lock()), WaitError::WouldBlock);
    assert_eq!(failed(other.lock_timeout(Duration::from_millis(5))), WaitError::TimedOut);
    assert_eq!(failed(other.lock_timeout(Duration::ZERO)), WaitError::TimedOut);
    assert_eq!(failed(mutex.lock()), WaitError::AlreadyHeld);
    assert_eq!(failed(mutex.try_lock()), WaitError::AlreadyHeld);
    drop(guard);
    drop(other.try_lock().unwrap());
    drop(mutex.lock_timeout(Duration::ZERO).unwrap());
}

#[test]
fn a_panic_under_the_lock_is_told_to_the_next_one() {
    let place = place();
    let mutex = create(&place);
    let panicked = thread::scope(|scope| {
        let panics = || {
            let mutex = open(&place);
            let mut data = mutex.lock().unwrap();
            data[0] = 99;
            std::panic::resume_unwind(Box::new(()));
        };
        scope.spawn(panics).join()
    });
    assert!(panicked.is_err());
    let Err(LockError::OwnerDied(mut guard)) = mutex.lock() else { panic!("nobody is told") };
    assert_eq!(*guard, [99, 4], "as it was left");
    guard[0] = 3;
    guard.mark_consistent();
    drop(guard);
    assert_eq!(*mutex.lock().unwrap(), [3, 4]);
}

#[test]
fn what_a_successor_does_not_mark_consistent_is_given_up_for_all() {
    let place = place();
    let (mutex, other) = (create(&place), open(&place));
    std::mem::forget(mutex.lock().unwrap());
    drop(mutex);
    let waiting = thread::scope(|scope| {
        let Err(LockError::OwnerDied(guard)) = other.lock() else { panic!("nobody is told") };
        let waiting = scope.spawn(|| failed(open(&place).lock()));
        thread::sleep(Duration::from_millis(20)); // it may sleep by now
        drop(guard);
        waiting.join().unwrap()
    });
    assert_eq!(waiting, WaitError::NotRecoverable);
    assert_eq!(failed(other.lock()), WaitError::NotRecoverable);
    assert_eq!(failed(other.try_lock()), WaitError::NotRecoverable);
}

#[test]
fn a_forgotten_guard_keeps_the_lock_until_its_handle_is_dropped() {
    let place = place();
    let (mutex, other) = (create(&place), open(&place));
    std::mem::forget(mutex.lock().unwrap());
    assert_eq!(failed(other.lock_timeout(Duration::from_millis(5))), WaitError::TimedOut);
    drop(mutex);
    assert!(matches!(other.lock(), Err(LockError::OwnerDied(_))));
}

#[test]
fn a_thread_that_ends_with_the_lock_keeps_it_while_its_process_lives() {
    let place = place();
    let mutex = create(&place);
    thread::scope(|scope| {
        let forgets = || {
            let mutex = open(&place);
            std::mem::forget(mutex.lock().unwrap());
            std::mem::forget(mutex);
        };
        scope.spawn(forgets);
    });
    assert_eq!(failed(mutex.lock_timeout(Duration::from_millis(50))), WaitError::TimedOut);
    assert_eq!(failed(mutex.try_lock()), WaitError::WouldBlock);
}

#[test]
fn an_object_of_another_kind_or_type_or_none_is_refused() {
    let place = place();
    let at = &place.directory;
    let none = RobustMutex::<[u64; 2]>::open_in(at, NAME).unwrap_err();
    assert!(matches!(none, SyncOpenError::NotFound { .. }), "{none}");
    let _mutex = create(&place);
    let twice = RobustMutex::create_in(at, NAME, &SyncOptions::default(), [3, 4]).unwrap_err();
    assert!(matches!(twice, SyncCreateError::Exists { .. }), "{twice}");
    let size = RobustMutex::<u64>::open_in(at, NAME).unwrap_err();
    assert!(matches!(size, SyncOpenError::Type { field: "size", found: 16, .. }), "{size}");
    let align = RobustMutex::<[u32; 4]>::open_in(at, NAME).unwrap_err();
    assert!(matches!(align, SyncOpenError::Type { field: "alignment", .. }), "{align}");
    let options = SyncOptions { members_max: 127, ..Default::default() };
    let many = RobustMutex::create_in(at, "other", &options, [3, 4]).unwrap_err();
    assert!(matches!(many, SyncCreateError::Options(_)), "{many}");
}

#[test]
fn as_many_handles_as_there_are_places_and_each_is_given_back() {
    let place = place();
    let options = SyncOptions { members_max: 3, ..Default::default() };
    let first = RobustMutex::create_in(&place.directory, NAME, &options, [0u64; 2]).unwrap();
    for _ in 0..3 {
        let _others = [open(&place), open(&place)];
        let full = RobustMutex::<[u64; 2]>::open_in(&place.directory, NAME).unwrap_err();
        assert!(matches!(full, SyncOpenError::Full { max: 3, .. }), "{full}");
    }
    drop(first);
}

#[test]
fn a_removed_mutex_says_so_to_who_waits_and_who_comes_and_nothing_is_left() {
    let place = place();
    let mutex = create(&place);
    let in_use = place.directory.remove_sync(NAME, false).unwrap_err();
    assert!(matches!(in_use, SyncRemoveError::InUse { members: 1, .. }), "{in_use}");
    assert_eq!(place.directory.sync_objects().unwrap(), [NAME]);
    thread::scope(|scope| {
        let guard = mutex.lock().unwrap();
        let waits = scope.spawn(|| failed(open(&place).lock()));
        thread::sleep(Duration::from_millis(20)); // it may sleep by now
        place.directory.remove_sync(NAME, true).unwrap();
        assert_eq!(waits.join().unwrap(), WaitError::Removed);
        drop(guard);
    });
    assert_eq!(failed(mutex.lock()), WaitError::Removed);
    assert_eq!(std::fs::read_dir(place.directory.path()).unwrap().count(), 0);
    drop(create(&place));
}

#[test]
fn a_topic_and_a_mutex_may_have_one_name() {
    let place = place();
    let options = shmbus::TopicOptions::default();
    let topic = shmbus::Topic::<u64>::create_in(&place.directory, NAME, &options).unwrap();
    let mutex = create(&place);
    drop(topic);
    place.directory.remove(NAME, false).unwrap();
    assert_eq!(*mutex.lock().unwrap(), [3, 4]);
    drop(mutex);
    assert_eq!(place.directory.topics().unwrap(), [""; 0]);
    place.directory.remove_sync(NAME, false).unwrap();
}
