//! Life words, with threads that end, processes that are killed, and the robust pthread mutexes that stand in the same list.

#![allow(unsafe_code)] // fork, pthread mutexes in memory that a forked child shares

mod forked;

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;

use forked::Forked;
use shmbus_sys::clock::monotonic_ns;
use shmbus_sys::futex::{self, Wait};
use shmbus_sys::life::{LIVES_MAX, Life, WORD_OFFSET};
use shmbus_sys::map::Mapping;
use shmbus_sys::robust::{FUTEX_WAITERS, OWNER_DIED, TID_MASK};
use shmbus_sys::shm;

const PAGE: usize = 4096;
const DEAD: u32 = OWNER_DIED | FUTEX_WAITERS;

/// A file of pages with life words.
struct Words {
    file: OwnedFd,
    mapping: Mapping,
}

impl Words {
    fn new(pages: usize) -> Words {
        let file = shm::memfd("lives").unwrap();
        shm::allocate(file.as_fd(), (pages * PAGE) as u64).unwrap();
        let mapping = Mapping::read_write(file.as_fd(), pages * PAGE).unwrap();
        Words { file, mapping }
    }

    fn begin(&self, page: usize) -> std::io::Result<Life> {
        Life::begin(self.file.as_fd(), (page * PAGE) as u64)
    }

    fn word(&self, page: usize) -> &AtomicU32 {
        let offset = page * PAGE + WORD_OFFSET;
        assert!(offset < self.mapping.len());
        // SAFETY: in bounds.
        let word = unsafe { self.mapping.base().byte_add(offset) };
        // SAFETY: aligned, mapped as long as `self`, only used as an atomic.
        unsafe { word.cast().as_ref() }
    }
}

#[test]
fn the_word_of_a_killed_process_is_marked_and_one_sleeper_is_woken() {
    let words = Words::new(1);
    let mut child = Forked::new(|| {
        let life = words.begin(0);
        let has_begun = life.is_ok();
        std::mem::forget(life);
        has_begun
    });
    assert!(child.result());
    let alive = child.pid as u32 | FUTEX_WAITERS;
    assert_eq!(words.word(0).load(SeqCst), alive);
    std::thread::scope(|scope| {
        let (word, deadline) = (words.word(0), Some(monotonic_ns() + 20_000_000_000));
        let sleeper = scope.spawn(move || futex::wait(word, alive, deadline).unwrap());
        child.kill();
        assert!([Wait::Woken, Wait::Changed].contains(&sleeper.join().unwrap()));
    });
    assert_eq!(words.word(0).load(SeqCst), DEAD);
}

#[test]
fn the_word_of_a_thread_that_ends_is_marked_and_its_own_list_is_whole() {
    let words = Words::new(3);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let lives = [0, 1, 2].map(|page| words.begin(page).unwrap());
            let [first, second, third] = lives;
            drop(second);
            std::mem::forget((first, third));
        });
    });
    // `scope` returns when the thread's work is done, and not when it is gone.
    while [0, 2].iter().any(|page| !is_dead(words.word(*page).load(SeqCst))) {
        std::thread::yield_now();
    }
    assert_eq!(words.word(1).load(SeqCst), 0);
}

/// The kernel leaves `FUTEX_WAITERS` as it is; musl, which marks the words of a thread that ends before the kernel does, takes it away.
fn is_dead(word: u32) -> bool {
    word & !FUTEX_WAITERS == OWNER_DIED
}

/// Who sleeps on it may be another process: it sleeps on the word of the file.
#[test]
fn a_sleeper_is_woken_when_a_thread_ends_whose_process_lives() {
    let words = &Words::new(1);
    let (tell, told) = std::sync::mpsc::channel();
    let (go, wait_to_go) = std::sync::mpsc::channel::<()>();
    let (begun, has_begun) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let life = words.begin(0).unwrap();
            tell.send(life.word().load(SeqCst)).unwrap();
            wait_to_go.recv().unwrap();
            std::mem::forget(life);
        });
        let alive = told.recv().unwrap();
        let sleeper = scope.spawn(move || {
            begun.send(rustix_tid()).unwrap();
            futex::wait(words.word(0), alive, Some(monotonic_ns() + 60_000_000_000)).unwrap()
        });
        let stat = format!("/proc/self/task/{}/stat", has_begun.recv().unwrap());
        while !std::fs::read_to_string(&stat).unwrap().contains(") S ") {
            std::thread::yield_now();
        }
        go.send(()).unwrap();
        assert_eq!(sleeper.join().unwrap(), Wait::Woken);
    });
}

#[test]
fn a_life_that_was_ended_is_not_marked() {
    let words = Words::new(1);
    let mut child = Forked::new(|| words.begin(0).is_ok());
    assert!(child.result());
    assert_eq!(words.word(0).load(SeqCst), 0);
    child.kill();
    assert_eq!(words.word(0).load(SeqCst), 0);
}

#[test]
fn a_forked_child_neither_marks_its_parents_word_nor_ends_its_life() {
    let words = Words::new(1);
    let mut life = ManuallyDrop::new(words.begin(0).unwrap());
    let alive = words.word(0).load(SeqCst);
    assert_eq!(alive, life.word().load(SeqCst));
    assert_eq!(alive & TID_MASK, rustix_tid());
    let mut child = Forked::new(|| {
        // SAFETY: the parent drops its own copy.
        unsafe { ManuallyDrop::drop(&mut life) };
        true
    });
    assert!(child.result());
    child.kill();
    assert_eq!(words.word(0).load(SeqCst), alive);
    // SAFETY: dropped once in this process.
    unsafe { ManuallyDrop::drop(&mut life) };
    assert_eq!(words.word(0).load(SeqCst), 0);
}

fn rustix_tid() -> u32 {
    // SAFETY: it takes nothing.
    unsafe { libc::syscall(libc::SYS_gettid) as u32 }
}

#[test]
fn a_thread_has_so_many_lives_and_no_more() {
    let words = Words::new(1);
    let mut lives: Vec<Life> = (0..LIVES_MAX).map(|_| words.begin(0).unwrap()).collect();
    assert_eq!(words.begin(0).unwrap_err().kind(), std::io::ErrorKind::QuotaExceeded);
    lives.swap_remove(7);
    lives.push(words.begin(0).unwrap());
}

/// The parent's are not the child's.
#[test]
fn a_forked_child_has_as_many_lives_as_its_parent_may_have() {
    let words = Words::new(1);
    let lives: Vec<Life> = (0..LIVES_MAX).map(|_| words.begin(0).unwrap()).collect();
    let mut child = Forked::new(|| {
        for _ in 0..LIVES_MAX {
            let Ok(life) = words.begin(0) else { return false };
            std::mem::forget(life);
        }
        words.begin(0).is_err_and(|error| error.kind() == std::io::ErrorKind::QuotaExceeded)
    });
    assert!(child.result());
    assert_eq!(lives.len(), LIVES_MAX as usize);
}

/// Robust mutexes that forked children share.
fn mutexes<const N: usize>() -> [*mut libc::pthread_mutex_t; N] {
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, at an address that the kernel chooses; never unmapped.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, protection, flags, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    // SAFETY: zeros are memory for what `init` makes.
    let mut attributes: libc::pthread_mutexattr_t = unsafe { std::mem::zeroed() };
    // SAFETY: memory for what it makes.
    unsafe { libc::pthread_mutexattr_init(&raw mut attributes) };
    // SAFETY: made just now.
    unsafe { libc::pthread_mutexattr_setrobust(&raw mut attributes, libc::PTHREAD_MUTEX_ROBUST) };
    // SAFETY: made just now.
    unsafe {
        libc::pthread_mutexattr_setpshared(&raw mut attributes, libc::PTHREAD_PROCESS_SHARED)
    };
    core::array::from_fn(|number| {
        let mutex = page.wrapping_byte_add(number * 64).cast::<libc::pthread_mutex_t>();
        // SAFETY: in the page, aligned, nobody's.
        assert_eq!(unsafe { libc::pthread_mutex_init(mutex, &raw const attributes) }, 0);
        mutex
    })
}

#[test]
fn lives_and_robust_pthread_mutexes_come_and_go_in_any_order_and_both_are_seen_to_die() {
    const EACH: usize = 3;
    for seed in 1..=200u64 {
        let words = Words::new(EACH);
        let mutexes = mutexes::<EACH>();
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let steps: [usize; 24] = core::array::from_fn(|_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) as usize % (2 * EACH)
        });
        let mut child = Forked::new(|| {
            let mut lives = [const { None::<Life> }; EACH];
            let mut locked = [false; EACH];
            let mut well = true;
            for step in steps {
                let item = step / 2;
                if step % 2 == 0 {
                    lives[item] = match lives[item].take() {
                        Some(_) => None,
                        None => words.begin(item).ok(),
                    };
                } else if locked[item] {
                    // SAFETY: this thread has it.
                    well &= unsafe { libc::pthread_mutex_unlock(mutexes[item]) } == 0;
                    locked[item] = false;
                } else {
                    // SAFETY: made above.
                    well &= unsafe { libc::pthread_mutex_lock(mutexes[item]) } == 0;
                    locked[item] = true;
                }
            }
            std::mem::forget(lives);
            well
        });
        assert!(child.result(), "seed {seed}");
        child.kill();
        for (item, mutex) in mutexes.into_iter().enumerate() {
            let count = |kind: usize| steps.iter().filter(|step| **step == 2 * item + kind).count();
            let word = words.word(item).load(SeqCst);
            assert_eq!(word, if count(0) % 2 == 1 { DEAD } else { 0 }, "seed {seed}, life {item}");
            // SAFETY: made above; its owner is dead, or nobody.
            let locked = unsafe { libc::pthread_mutex_trylock(mutex) };
            let expected = if count(1) % 2 == 1 { libc::EOWNERDEAD } else { 0 };
            assert_eq!(locked, expected, "seed {seed}, mutex {item}");
            // SAFETY: locked just now, by this thread. Its list is not to have mutexes of other rounds.
            unsafe { libc::pthread_mutex_unlock(mutex) };
        }
        // SAFETY: the page that `mutexes` has made; nothing in it is locked.
        unsafe { libc::munmap(mutexes[0].cast(), PAGE) };
    }
}
