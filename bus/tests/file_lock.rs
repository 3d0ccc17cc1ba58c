//! `FileLock`: what its guards keep out, how waits end, and what is left when they do.

#![allow(unsafe_code)] // fork, and what a forked child may call

#[path = "../../bus-sys/tests/forked/mod.rs"]
mod forked;

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use forked::Forked;
use shmbus::sync::{
    FileLock, FileLockError,
    FileLockKind::{Exclusive, Shared},
};

/// Longer than any test that passes takes.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(5);

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        drop(FileLock::open_or_create(place.path()).unwrap());
        place
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("file")
    }

    fn open(&self) -> FileLock {
        FileLock::open(self.path()).unwrap()
    }

    fn is_free(&self) -> bool {
        self.open().conflict(Exclusive, ..).unwrap().is_none()
    }
}

/// How many threads this process has.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// How often the calling thread has gone to sleep.
fn sleeps() -> i64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: valid for writes.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) }, 0);
    // SAFETY: written by the call, which succeeded.
    unsafe { usage.assume_init() }.ru_nvcsw
}

#[test]
fn an_exclusive_guard_keeps_out_both_kinds_and_a_shared_one_only_the_exclusive() {
    let place = Place::new();
    let (mut one, mut other) = (place.open(), place.open());
    let guard = one.lock(Exclusive, ..).unwrap();
    assert!(other.try_lock(Exclusive, ..).unwrap().is_none());
    assert!(other.try_lock(Shared, ..).unwrap().is_none());
    drop(guard);
    let guard = one.lock(Shared, ..).unwrap();
    assert!(other.try_lock(Exclusive, ..).unwrap().is_none());
    assert!(other.try_lock(Shared, ..).unwrap().is_some());
    drop(guard);
    assert!(other.try_lock(Exclusive, ..).unwrap().is_some());
    assert!(place.is_free());
}

#[test]
fn ranges_that_do_not_touch_do_not_exclude_each_other() {
    let place = Place::new();
    let (mut one, mut other) = (place.open(), place.open());
    let _guard = one.lock(Exclusive, 10..20).unwrap();
    for free in [0..10, 20..21] {
        assert!(other.try_lock(Exclusive, free).unwrap().is_some());
    }
    for held in [0..11, 19..20, 5..50] {
        assert!(other.try_lock(Shared, held).unwrap().is_none());
    }
    assert!(other.try_lock(Exclusive, 20..).unwrap().is_some());
    assert!(other.try_lock(Exclusive, ..=10).unwrap().is_none());
    assert!(other.try_lock(Exclusive, ..).unwrap().is_none());
    let conflict = other.conflict(Shared, ..).unwrap().unwrap();
    assert_eq!((conflict.kind, conflict.first, conflict.count), (Exclusive, 10, 10));
    assert_eq!(conflict.pid, None);
}

#[test]
fn a_whole_file_is_locked_beyond_its_end_and_as_it_grows() {
    let place = Place::new();
    let (mut one, mut other) = (place.open(), place.open());
    let _guard = one.lock(Exclusive, ..).unwrap();
    std::fs::write(place.path(), [0; 100]).unwrap();
    assert!(other.try_lock(Shared, 50..51).unwrap().is_none());
    let far = i64::MAX as u64;
    assert!(other.try_lock(Shared, far - 1..far).unwrap().is_none());
}

#[test]
#[allow(clippy::reversed_empty_ranges)] // it is what is refused
fn no_bytes_and_bytes_that_no_file_can_have_are_refused() {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let mut file = Place::new().open();
    let far = i64::MAX as u64;
    let wrong = [
        (Included(5), Excluded(5)), // to the kernel: to the end of the file
        (Included(6), Excluded(5)),
        (Included(0), Included(far)),
        (Included(far), Unbounded),
        (Included(u64::MAX), Unbounded),
        (Excluded(u64::MAX), Unbounded),
        (Unbounded, Included(u64::MAX)),
        (Unbounded, Excluded(0)),
    ];
    for range in wrong {
        let refused = file.try_lock(Exclusive, range);
        assert!(matches!(refused, Err(FileLockError::Range { .. })), "{range:?}: {refused:?}");
    }
}

#[test]
fn what_is_no_regular_file_or_not_open_for_writing_is_refused_with_the_reason() {
    let place = Place::new();
    let refused = FileLock::open(place.0.path());
    assert!(matches!(refused, Err(FileLockError::Io { .. })), "a directory: {refused:?}");
    let fifo = place.0.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    let refused = FileLock::open(fifo); // and does not wait for its other end
    assert!(
        matches!(&refused, Err(FileLockError::Io { source, .. }) if source.kind() == std::io::ErrorKind::InvalidInput),
        "{refused:?}"
    );

    let mut reader = FileLock::open_read_only(place.path()).unwrap();
    assert!(matches!(reader.lock(Exclusive, ..), Err(FileLockError::Access)));
    let mut shared = reader.lock(Shared, ..).unwrap();
    assert!(matches!(shared.try_upgrade(), Err(FileLockError::Access)));
    assert!(place.open().try_lock(Exclusive, ..).unwrap().is_none());
}

#[test]
fn a_wait_with_a_deadline_ends_with_the_lock_when_it_is_given_back() {
    let place = Place::new();
    let (mut one, mut other) = (place.open(), place.open());
    let guard = one.lock(Exclusive, ..).unwrap();
    let waiting = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            waiting.store(true, SeqCst);
            let before = sleeps();
            let guard = other.lock_timeout(Shared, 3..4, LONG).unwrap();
            assert_eq!(guard.kind(), Shared);
            sleeps() - before
        });
        while !waiting.load(SeqCst) {
            std::thread::yield_now();
        }
        // Long enough that a waiter that looked every few milliseconds would be found out.
        assert!(place.open().lock_timeout(Shared, .., Duration::from_millis(300)).is_err());
        drop(guard);
        let slept = waiter.join().unwrap();
        assert!(slept <= 6, "the waiter was on its feet {slept} times");
    });
    assert!(place.is_free());
}

#[test]
fn a_wait_that_ends_without_the_lock_leaves_no_thread_and_no_request() {
    let place = Place::new();
    let (mut one, mut other) = (place.open(), place.open());
    let guard = one.lock(Exclusive, ..).unwrap();
    let before = threads();
    for _ in 0..50 {
        let start = Instant::now();
        let ended = other.lock_timeout(Exclusive, .., SHORT);
        assert!(matches!(ended, Err(FileLockError::TimedOut)) && start.elapsed() >= SHORT);
    }
    assert!(threads() < before + 50, "other tests have a few at the same time");
    let passed = Instant::now();
    assert!(matches!(other.lock_deadline(Exclusive, .., passed), Err(FileLockError::TimedOut)));
    drop(guard);
    // Whoever waited still would have it now, or soon.
    for _ in 0..50 {
        assert!(place.is_free());
        std::thread::yield_now();
    }
}

#[test]
fn waits_that_end_while_the_lock_is_given_back_have_it_or_do_not() {
    let place = Place::new();
    let (inside, taken, missed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for worker in 0..3u64 {
            let (place, inside, taken, missed) = (&place, &inside, &taken, &missed);
            scope.spawn(move || {
                let mut file = place.open();
                for round in 0..300u64 {
                    // About as long as the others have it, so that both happen at once again and again.
                    let timeout = Duration::from_micros(50 + (round * 37 + worker * 101) % 200);
                    match file.lock_timeout(Exclusive, .., timeout) {
                        Ok(guard) => {
                            assert_eq!(inside.fetch_add(1, SeqCst), 0, "two have it");
                            std::thread::yield_now();
                            inside.fetch_sub(1, SeqCst);
                            drop(guard);
                            taken.fetch_add(1, SeqCst);
                        }
                        Err(FileLockError::TimedOut) => _ = missed.fetch_add(1, SeqCst),
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    println!("taken {taken:?}, timed out {missed:?}");
    assert!(taken.load(SeqCst) > 0 && place.is_free());
}

#[test]
fn a_handler_of_the_program_runs_in_none_of_the_threads_that_wait() {
    static THREADS: Mutex<Vec<i32>> = Mutex::new(Vec::new());
    static CALLED: AtomicBool = AtomicBool::new(false);
    extern "C" fn handler(_: i32) {
        // Not a thing to do in a handler, but nobody else has the lock when a signal comes here.
        THREADS.lock().unwrap().push(rustix::thread::gettid().as_raw_pid());
        CALLED.store(true, SeqCst);
    }
    let place = Place::new();
    let (mut one, mut other) = (place.open(), place.open());
    let _guard = one.lock(Exclusive, ..).unwrap();
    let handler: extern "C" fn(i32) = handler;
    // SAFETY: the handler stays; SIGUSR2 has no other use in this program.
    unsafe { libc::signal(libc::SIGUSR2, handler as libc::sighandler_t) };
    let own = std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let ended = other.lock_timeout(Exclusive, .., Duration::from_millis(200));
            assert!(matches!(ended, Err(FileLockError::TimedOut)), "{ended:?}");
            rustix::thread::gettid().as_raw_pid()
        });
        // To each thread, whatever it is.
        while !waiter.is_finished() {
            for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
                let tid: i32 = task.file_name().to_str().unwrap().parse().unwrap();
                let main = rustix::thread::gettid().as_raw_pid() == tid;
                let name = std::fs::read_to_string(task.path().join("comm"));
                // The helper and the waiter have the name of the thread of this test, cut at 15 bytes.
                if !main && name.is_ok_and(|name| name.starts_with("a_handler_of")) {
                    // SAFETY: numbers only; a thread that is gone is an error.
                    unsafe {
                        libc::syscall(libc::SYS_tgkill, std::process::id(), tid, libc::SIGUSR2)
                    };
                }
            }
            std::thread::yield_now();
        }
        waiter.join().unwrap()
    });
    assert!(CALLED.load(SeqCst), "no signal was handled: the test shows nothing");
    let threads = THREADS.lock().unwrap();
    assert!(threads.iter().all(|&thread| thread == own), "{threads:?}, and the waiter is {own}");
}

#[test]
fn an_upgrade_is_refused_while_others_share_and_leaves_the_shared_lock() {
    let place = Place::new();
    let (mut one, mut other) = (place.open(), place.open());
    let mut guard = one.lock(Shared, ..).unwrap();
    let sharing = other.lock(Shared, ..).unwrap();
    assert!(!guard.try_upgrade().unwrap());
    assert!(matches!(guard.upgrade_timeout(SHORT), Err(FileLockError::TimedOut)));
    assert_eq!(guard.kind(), Shared);
    drop(sharing);
    assert!(place.open().try_lock(Exclusive, ..).unwrap().is_none(), "the shared lock is gone");
    guard.upgrade_timeout(LONG).unwrap();
    assert_eq!(guard.kind(), Exclusive);
    assert!(other.try_lock(Shared, ..).unwrap().is_none());
    guard.downgrade().unwrap();
    assert!(other.try_lock(Shared, ..).unwrap().is_some());
    drop(guard);
    assert!(place.is_free());
}

#[test]
fn of_two_that_upgrade_each_waits_for_the_other_until_its_deadline() {
    let place = Place::new();
    let (mut one, mut other) = (place.open(), place.open());
    let (mut one, mut other) = (one.lock(Shared, ..).unwrap(), other.lock(Shared, ..).unwrap());
    std::thread::scope(|scope| {
        let first = scope.spawn(|| one.upgrade_timeout(Duration::from_millis(50)));
        assert!(matches!(other.upgrade_timeout(SHORT), Err(FileLockError::TimedOut)));
        assert!(matches!(first.join().unwrap(), Err(FileLockError::TimedOut)));
    });
}

#[test]
fn a_lock_that_is_kept_lasts_as_long_as_the_file_lock() {
    let place = Place::new();
    let mut file = place.open();
    file.lock(Exclusive, ..).unwrap().keep();
    assert!(!place.is_free());
    drop(file);
    assert!(place.is_free());
}

#[test]
fn the_same_file_is_locked_under_any_of_its_names_and_through_none() {
    let place = Place::new();
    let link = place.0.path().join("link");
    std::os::unix::fs::symlink("file", &link).unwrap();
    let std_file = std::fs::File::options().read(true).write(true).open(place.path()).unwrap();
    let mut through_link = FileLock::open(&link).unwrap();
    let guard = through_link.lock(Exclusive, ..).unwrap();
    std::fs::remove_file(place.path()).unwrap();
    let mut nameless = FileLock::reopen(&std_file).unwrap();
    assert!(nameless.try_lock(Exclusive, ..).unwrap().is_none());
    drop(guard);
    assert!(nameless.try_lock(Exclusive, ..).unwrap().is_some());
}

#[test]
fn a_forked_child_has_no_lock_and_takes_none_from_its_parent() {
    let place = Place::new();
    let (mut file, mut other) = (place.open(), place.open());
    let guard = file.lock(Exclusive, ..).unwrap();
    let mut child = Forked::new(|| {
        // SAFETY: this process has its own copy of the memory and uses the original no more.
        drop(unsafe { std::ptr::read(&guard) });
        matches!(other.lock(Shared, ..), Err(FileLockError::Forked))
            && matches!(other.conflict(Shared, ..), Err(FileLockError::Forked))
    });
    assert!(child.result());
    assert!(!place.is_free(), "the child gave the parent's lock back");
    drop(guard);
    assert!(place.is_free(), "the child keeps the lock");
}

#[test]
fn a_lock_ends_when_its_process_is_killed_and_not_when_it_is_stopped() {
    let place = Place::new();
    let mut file = place.open();
    let path = place.path();
    let mut child = Forked::new(|| {
        let Ok(mut file) = FileLock::open(&path) else { return false };
        file.lock(Exclusive, 5..6).unwrap().keep();
        std::mem::forget(file);
        true
    });
    assert!(child.result());
    child.stop();
    assert!(matches!(file.lock_timeout(Shared, .., SHORT), Err(FileLockError::TimedOut)));
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| file.lock_timeout(Shared, .., LONG).map(drop));
        child.kill();
        waiter.join().unwrap().unwrap();
    });
}
