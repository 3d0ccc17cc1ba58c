//! The kernel's help for lock words, with processes that are killed.

#![allow(unsafe_code)] // fork, and memory that a forked child shares

mod forked;

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;

use forked::Forked;
use shmbus_sys::clock::monotonic_ns;
use shmbus_sys::futex::{self, Wait};
use shmbus_sys::robust::{self, FUTEX_WAITERS, OWNER_DIED, TID_MASK};

/// A word that forked children share: anonymous, for a `Mapping` is not there in a child. It is never unmapped.
fn shared_word() -> &'static AtomicU32 {
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    // SAFETY: page-aligned zeros, mapped for ever, and only used as an atomic.
    unsafe { &*page.cast::<AtomicU32>() }
}

fn pause_for_ever() -> ! {
    loop {
        // SAFETY: it takes nothing.
        unsafe { libc::pause() };
    }
}

/// A child that has the word, with `flags`, and does nothing until it is killed.
fn owner_of(word: &'static AtomicU32, flags: u32) -> Forked {
    let child = Forked::new(|| {
        let _ = robust::pending(word, |tid| {
            word.store(tid | flags, SeqCst);
            pause_for_ever()
        });
        false
    });
    while word.load(SeqCst) == 0 {
        std::thread::yield_now();
    }
    assert_eq!(word.load(SeqCst), child.pid as u32 | flags);
    child
}

#[test]
fn the_word_of_a_killed_owner_is_marked_and_one_sleeper_is_woken() {
    let word = shared_word();
    let owner = owner_of(word, FUTEX_WAITERS);
    let seen = word.load(SeqCst);
    let sleepers = [(); 2].map(|()| {
        std::thread::spawn(move || {
            futex::wait(word, seen, Some(monotonic_ns() + 20_000_000_000)).unwrap()
        })
    });
    owner.kill();
    assert_eq!(word.load(SeqCst), OWNER_DIED | FUTEX_WAITERS);
    // One of them is woken by the kernel, or came too late to sleep; the other one may sleep still.
    while !sleepers.iter().any(std::thread::JoinHandle::is_finished) {
        std::thread::yield_now();
    }
    futex::wake_all(word).unwrap();
    while !sleepers.iter().all(std::thread::JoinHandle::is_finished) {
        futex::wake_all(word).unwrap();
        std::thread::yield_now();
    }
    for sleeper in sleepers {
        assert!([Wait::Woken, Wait::Changed].contains(&sleeper.join().unwrap()));
    }
}

#[test]
fn the_word_of_a_killed_owner_without_sleepers_is_marked() {
    let word = shared_word();
    owner_of(word, 0).kill();
    assert_eq!(word.load(SeqCst), OWNER_DIED);
}

#[test]
fn a_word_that_names_another_thread_is_left_as_it_is() {
    let word = shared_word();
    let child = owner_of(word, 0);
    word.store(1, SeqCst); // a thread that is not in the test
    child.kill();
    assert_eq!(word.load(SeqCst), 1);
}

#[test]
fn a_word_that_is_pending_no_more_is_left_as_it_is() {
    let word = shared_word();
    let mut child = Forked::new(|| robust::pending(word, |tid| word.store(tid, SeqCst)).is_ok());
    assert!(child.result());
    let left = word.load(SeqCst);
    child.kill();
    assert!(left != 0 && word.load(SeqCst) == left);
}

#[test]
fn a_forked_child_has_a_thread_id_of_its_own() {
    let word = shared_word();
    let id = || rustix::thread::gettid().as_raw_pid() as u32;
    assert_eq!(robust::pending(word, |tid| tid).unwrap(), id());
    let mut child = Forked::new(|| robust::pending(word, |tid| tid).is_ok_and(|tid| tid == id()));
    assert!(child.result(), "the child takes its parent's id for its own");
    // It says so to the kernel too.
    owner_of(word, 0).kill();
    assert_eq!(word.load(SeqCst), OWNER_DIED);
}

#[test]
fn a_second_word_is_refused_while_one_is_pending_and_taken_afterwards() {
    let (word, other) = (AtomicU32::new(0), AtomicU32::new(0));
    let inner = robust::pending(&word, |_| robust::pending(&other, |_| ()).unwrap_err().kind());
    assert_eq!(inner.unwrap(), std::io::ErrorKind::ResourceBusy);
    robust::pending(&other, |_| ()).unwrap();
    let unwound = std::panic::catch_unwind(|| {
        robust::pending(&AtomicU32::new(0), |_| std::panic::resume_unwind(Box::new(())))
    });
    assert!(unwound.is_err());
    assert!(robust::pending(&word, |tid| tid & !TID_MASK == 0).unwrap());
}

#[test]
fn without_a_list_of_libc_one_is_registered() {
    let word = shared_word();
    let child = Forked::new(|| {
        let no_head = std::ptr::null_mut::<u8>();
        // SAFETY: no head is a valid one; libc's is not used by this child, which takes no robust mutex.
        unsafe { libc::syscall(libc::SYS_set_robust_list, no_head, 24) };
        let _ = robust::pending(word, |tid| {
            word.store(tid, SeqCst);
            pause_for_ever()
        });
        false
    });
    while word.load(SeqCst) == 0 {
        std::thread::yield_now();
    }
    child.kill();
    assert_eq!(word.load(SeqCst), OWNER_DIED);
}
