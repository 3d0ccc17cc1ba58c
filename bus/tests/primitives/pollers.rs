//! Those who only try, or give up soon, beside those who wait.

use std::fs;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::Duration;

use shmbus::sync::{LockError, RwLock, SyncOptions, WaitError};

use crate::{LONG, place, thread_id, until_asleep};

/// How often a thread of this process has given up its processor by itself: each time that it was woken it has slept before.
fn sleeps_of(thread: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/self/task/{thread}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

/// A writer is not even woken by them: so their number does not matter.
#[test]
fn a_writer_that_waits_is_not_disturbed_by_readers_who_are_refused() {
    let place = place();
    let (lock, other) = (place.lock(), place.lock());
    let guard = lock.read().unwrap();
    thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        let place = &place;
        let writer = scope.spawn(move || {
            let lock = place.lock();
            tell.send(thread_id()).unwrap();
            lock.write_timeout(LONG).unwrap()[0] += 1;
        });
        let writer_id = told.recv().unwrap();
        until_asleep(writer_id, || other.try_read().is_err());
        let before = sleeps_of(writer_id);
        for poll in 0..3000 {
            let refused = match poll % 3 {
                0 => other.try_read().err(),
                1 => other.read_timeout(Duration::ZERO).err(),
                _ => other.read_until(1).err(),
            };
            assert!(matches!(refused, Some(WaitError::WouldBlock | WaitError::TimedOut)));
            thread::yield_now();
        }
        let slept = sleeps_of(writer_id) - before;
        assert!(slept < 300, "3000 readers were refused, and the writer has slept {slept} times");
        drop(guard);
        writer.join().unwrap();
    });
}

#[test]
fn a_writer_is_not_starved_by_readers_who_only_try() {
    let place = place();
    let options = SyncOptions { members_max: 24, ..SyncOptions::default() };
    let name = "polled";
    let lock = RwLock::<u64>::create_in(&place.directory, name, &options, 0).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..16 {
            let (place, stop) = (&place, &stop);
            scope.spawn(move || {
                let lock = RwLock::<u64>::open_in(&place.directory, name).unwrap();
                while !stop.load(SeqCst) {
                    for _ in 0..2000 {
                        let time = Duration::from_micros(number % 4 * 50);
                        drop(if number < 8 { lock.try_read() } else { lock.read_timeout(time) });
                    }
                    thread::yield_now();
                }
            });
        }
        for _ in 0..20 {
            let written = lock.write_timeout(LONG).map(|mut guard| *guard += 1);
            stop.store(written.is_err(), SeqCst); // so that all end where it was starved
            written.unwrap();
        }
        stop.store(true, SeqCst);
    });
    assert_eq!(*lock.read().unwrap(), 20);
}

/// While one reads, many try to write: others read all the same.
#[test]
fn a_reader_is_not_kept_out_by_those_who_only_try_to_write() {
    let place = place();
    let (lock, other) = (place.lock(), place.lock());
    let _guard = lock.read().unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..3 {
            let (place, stop) = (&place, &stop);
            scope.spawn(move || {
                let lock = place.lock();
                while !stop.load(SeqCst) {
                    for _ in 0..500 {
                        let refused = match number {
                            0 => lock.try_write().err(),
                            1 => lock.write_timeout(Duration::ZERO).err(),
                            _ => lock.write_until(1).err(),
                        };
                        assert!(matches!(
                            refused,
                            Some(LockError::Failed(WaitError::WouldBlock | WaitError::TimedOut))
                        ));
                    }
                    thread::yield_now();
                }
            });
        }
        for _ in 0..2000 {
            let read = other.try_read().map(drop);
            stop.store(read.is_err(), SeqCst);
            read.expect("nobody writes, and nobody waits to write");
            thread::yield_now();
        }
        stop.store(true, SeqCst);
    });
}
