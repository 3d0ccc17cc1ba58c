//! Futexes in shared mappings. Who wakes repeats until the kernel says that it woke somebody, so no
//! test depends on how fast the sleeper gets to sleep; who sleeps has a deadline far away, so that
//! a lost wake-up fails.

#![allow(unsafe_code)] // mapped memory is reached by pointers; signals

use std::os::fd::AsFd;
use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use shmbus_sys::clock::monotonic_ns;
use shmbus_sys::futex::{self, WORDS_MAX, Wait};
use shmbus_sys::map::Mapping;
use shmbus_sys::shm;

const LEN: usize = 4096;

/// A deadline that only a lost wake-up reaches.
fn far() -> Option<u64> {
    Some(monotonic_ns() + 20_000_000_000)
}

fn memory() -> std::os::fd::OwnedFd {
    let memfd = shm::memfd("shmbus-test").unwrap();
    shm::allocate(memfd.as_fd(), LEN as u64).unwrap();
    memfd
}

fn word(mapping: &Mapping, index: usize) -> &AtomicU32 {
    assert!(index < mapping.len() / 4);
    // SAFETY: inside the mapping.
    let word = unsafe { mapping.base().cast::<AtomicU32>().add(index) };
    // SAFETY: aligned, only ever an atomic, and only loaded where it is read-only.
    unsafe { word.as_ref() }
}

/// Wakes one sleeper of `word`, as soon as there is one or `sleeper` has ended.
fn wake_one(word: &AtomicU32, sleeper: &std::thread::ScopedJoinHandle<'_, Wait>) {
    while futex::wake(word, 1).unwrap() == 0 && !sleeper.is_finished() {
        std::thread::yield_now();
    }
}

#[test]
fn a_wake_through_another_mapping_of_the_file_ends_a_sleep() {
    let memfd = memory();
    let waker = Mapping::read_write(memfd.as_fd(), LEN).unwrap();
    for waiter in [Mapping::read_write(memfd.as_fd(), LEN), Mapping::read_only(memfd.as_fd(), LEN)]
    {
        let waiter = waiter.unwrap();
        assert_ne!(waker.base(), waiter.base());
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| futex::wait(word(&waiter, 5), 0, far()).unwrap());
            wake_one(word(&waker, 5), &sleeper);
            assert_eq!(sleeper.join().unwrap(), Wait::Woken, "writable: {}", waiter.is_writable());
        });
    }
}

#[test]
fn a_wake_of_any_word_ends_a_sleep_on_several() {
    let memfd = memory();
    let waker = Mapping::read_write(memfd.as_fd(), LEN).unwrap();
    let waiter = Mapping::read_only(memfd.as_fd(), LEN).unwrap();
    word(&waker, 9).store(77, Ordering::Relaxed);
    let words = [(word(&waiter, 1), 0), (word(&waiter, 9), 77), (word(&waiter, 17), 0)];
    if futex::wait_any(&words, Some(0))
        .is_err_and(|error| error.raw_os_error() == Some(libc::ENOSYS))
    {
        return println!("skipped: no futex_waitv (Linux before 5.16)");
    }
    for woken in [1, 9, 17] {
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| futex::wait_any(&words, far()).unwrap());
            wake_one(word(&waker, woken), &sleeper);
            assert_eq!(sleeper.join().unwrap(), Wait::Woken, "word {woken}");
        });
    }
    let all: Vec<_> = (0..WORDS_MAX).map(|index| (word(&waiter, index), 0)).collect();
    assert_eq!(futex::wait_any(&all, far()).unwrap(), Wait::Changed, "word 9 holds 77");
    assert_eq!(futex::wait_any(&words, Some(monotonic_ns() + 2_000_000)).unwrap(), Wait::TimedOut);
    assert_eq!(futex::wait_any(&words[1..], Some(0)).unwrap(), Wait::TimedOut);
    assert_eq!(futex::wait_any(&[(words[1].0, 76)], Some(u64::MAX)).unwrap(), Wait::Changed);
}

#[test]
fn no_words_or_too_many_are_refused() {
    let one = AtomicU32::new(0);
    let too_many = [(&one, 0); WORDS_MAX + 1];
    for words in [&too_many[..], &[]] {
        let error = futex::wait_any(words, Some(0)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
}

#[test]
fn a_word_of_another_value_is_no_sleep() {
    let one = AtomicU32::new(1);
    assert_eq!(futex::wait(&one, 0, None).unwrap(), Wait::Changed);
    // Every deadline is valid.
    assert_eq!(futex::wait(&one, 0, Some(u64::MAX)).unwrap(), Wait::Changed);
}

#[test]
fn a_deadline_is_a_time_and_not_a_duration() {
    let one = AtomicU32::new(1);
    let deadline_ns = monotonic_ns() + 3_000_000;
    assert_eq!(futex::wait(&one, 1, Some(deadline_ns)).unwrap(), Wait::TimedOut);
    assert!(monotonic_ns() >= deadline_ns);
    // As durations these were the time since boot, and 0.
    assert_eq!(futex::wait(&one, 1, Some(deadline_ns)).unwrap(), Wait::TimedOut);
    assert_eq!(futex::wait(&one, 1, Some(0)).unwrap(), Wait::TimedOut);
}

/// Whether a thread of this process sleeps, or has ended.
fn is_asleep(tid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")) else {
        return true;
    };
    stat.rsplit(')').next().is_some_and(|fields| fields.trim_start().starts_with('S'))
}

#[test]
fn a_wake_counts_those_it_woke_and_wakes_as_many_as_asked() {
    let memfd = memory();
    let mapping = Mapping::read_write(memfd.as_fd(), LEN).unwrap();
    let word = word(&mapping, 0);
    assert_eq!(futex::wake_all(word).unwrap(), 0);
    let tids = [const { AtomicI32::new(0) }; 5];
    std::thread::scope(|scope| {
        let sleepers = tids.each_ref().map(|tid| {
            scope.spawn(move || {
                tid.store(rustix::thread::gettid().as_raw_pid(), Ordering::Relaxed);
                futex::wait(word, 0, far()).unwrap() // after the store there is no other sleep
            })
        });
        let is_ready = |tid: &AtomicI32| match tid.load(Ordering::Relaxed) {
            0 => false,
            tid => is_asleep(tid),
        };
        while !tids.iter().all(is_ready) {
            std::thread::yield_now();
        }
        assert_eq!(futex::wake(word, 0).unwrap(), 0);
        assert_eq!(futex::wake(word, 2).unwrap(), 2);
        assert_eq!(futex::wake_all(word).unwrap(), 3);
        assert_eq!(sleepers.map(|sleeper| sleeper.join().unwrap()), [Wait::Woken; 5]);
    });
}

#[test]
fn a_signal_interrupts_a_sleep() {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: an all-zero sigaction is valid: no flags (no SA_RESTART), an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
    // SAFETY: the handler does nothing; nobody else here uses the signal.
    let set = unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) };
    assert_eq!(set, 0);
    let sleeper = std::thread::spawn(|| {
        let word = AtomicU32::new(0);
        (futex::wait(&word, 0, far()).unwrap(), futex::wait_any(&[(&word, 0)], far()))
    });
    while !sleeper.is_finished() {
        // SAFETY: the thread is not joined, so its handle is valid.
        unsafe { libc::pthread_kill(sleeper.as_pthread_t(), libc::SIGUSR1) };
        std::thread::yield_now();
    }
    let (one, any) = sleeper.join().unwrap();
    assert_eq!(one, Wait::Interrupted);
    match any {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            println!("skipped: no futex_waitv")
        }
        any => assert_eq!(any.unwrap(), Wait::Interrupted),
    }
}

#[test]
fn clearing_and_waking_is_one_call_that_changes_no_other_bit() {
    let memfd = memory();
    let mapping = Mapping::read_write(memfd.as_fd(), LEN).unwrap();
    let word = word(&mapping, 0);
    word.store(0x8000_0107, Ordering::Relaxed);
    assert_eq!(futex::wake_all_and_clear(word, 2).unwrap(), 0);
    assert_eq!(word.load(Ordering::Relaxed), 0x8000_0105);
    let tid = AtomicI32::new(0);
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            tid.store(rustix::thread::gettid().as_raw_pid(), Ordering::Relaxed);
            futex::wait(word, 0x8000_0105, far()).unwrap()
        });
        while tid.load(Ordering::Relaxed) == 0 || !is_asleep(tid.load(Ordering::Relaxed)) {
            std::thread::yield_now();
        }
        assert_eq!(futex::wake_all_and_clear(word, 3).unwrap(), 1);
        assert_eq!(sleeper.join().unwrap(), Wait::Woken);
    });
    assert_eq!(word.load(Ordering::Relaxed), 0x8000_0104);
    assert_eq!(futex::wait(word, 0x8000_0105, far()).unwrap(), Wait::Changed);
}
