//! What mutexes and semaphores of the C library, and std's mutex, do across processes and deaths: real calls.

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Mutex;

use crate::children::{Child, State, in_child, shared_page, stop};

/// A mutex of the C library in memory that children share.
#[derive(Clone, Copy)]
struct Pthread(*mut libc::pthread_mutex_t);

/// What a mutex is made as.
#[derive(Clone, Copy, Default)]
struct Attributes {
    kind: i32,
    is_shared: bool,
    is_robust: bool,
}

impl Pthread {
    fn new(attributes: Attributes) -> Pthread {
        let mutex = shared_page().cast::<libc::pthread_mutex_t>();
        let mut attr = MaybeUninit::uninit();
        let shared = if attributes.is_shared {
            libc::PTHREAD_PROCESS_SHARED
        } else {
            libc::PTHREAD_PROCESS_PRIVATE
        };
        let robust = if attributes.is_robust {
            libc::PTHREAD_MUTEX_ROBUST
        } else {
            libc::PTHREAD_MUTEX_STALLED
        };
        let attr = attr.as_mut_ptr();
        // SAFETY: valid for writes.
        assert_eq!(unsafe { libc::pthread_mutexattr_init(attr) }, 0);
        // SAFETY: initialised above; as are the next two.
        assert_eq!(unsafe { libc::pthread_mutexattr_settype(attr, attributes.kind) }, 0);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::pthread_mutexattr_setpshared(attr, shared) }, 0);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::pthread_mutexattr_setrobust(attr, robust) }, 0);
        // SAFETY: a page of its own, of zeros, that nobody uses yet.
        assert_eq!(unsafe { libc::pthread_mutex_init(mutex, attr) }, 0);
        Pthread(mutex)
    }

    fn shared(kind: i32) -> Pthread {
        Pthread::new(Attributes { kind, is_shared: true, is_robust: false })
    }

    fn robust() -> Pthread {
        Pthread::new(Attributes { is_shared: true, is_robust: true, ..Default::default() })
    }

    fn lock(self) -> i32 {
        // SAFETY: initialised by `new`, never moved or destroyed; so in the calls below.
        unsafe { libc::pthread_mutex_lock(self.0) }
    }

    fn try_lock(self) -> i32 {
        // SAFETY: as in `lock`.
        unsafe { libc::pthread_mutex_trylock(self.0) }
    }

    fn unlock(self) -> i32 {
        // SAFETY: as in `lock`; what it does to a mutex of somebody else is what is asked here.
        unsafe { libc::pthread_mutex_unlock(self.0) }
    }

    fn mark_consistent(self) -> i32 {
        // SAFETY: as in `lock`.
        unsafe { libc::pthread_mutex_consistent(self.0) }
    }
}

/// A semaphore of the C library in memory that children share.
#[derive(Clone, Copy)]
struct Posix(*mut libc::sem_t);

impl Posix {
    fn new(value: u32) -> Posix {
        let semaphore = shared_page().cast::<libc::sem_t>();
        // SAFETY: a page of its own, of zeros, that nobody uses yet.
        assert_eq!(unsafe { libc::sem_init(semaphore, 1, value) }, 0);
        Posix(semaphore)
    }

    fn try_wait(self) -> bool {
        // SAFETY: initialised by `new`, never moved or destroyed; so in the calls below.
        unsafe { libc::sem_trywait(self.0) == 0 }
    }

    fn wait(self) -> i32 {
        // SAFETY: as above.
        match unsafe { libc::sem_wait(self.0) } {
            0 => 0,
            _ => errno(),
        }
    }

    fn post(self) -> i32 {
        // SAFETY: as above.
        match unsafe { libc::sem_post(self.0) } {
            0 => 0,
            _ => errno(),
        }
    }

    fn value(self) -> i32 {
        let mut value = -1;
        // SAFETY: as above; `value` is valid for writes.
        assert_eq!(unsafe { libc::sem_getvalue(self.0, &raw mut value) }, 0);
        value
    }
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

#[test]
fn a_pthread_mutex_is_unlocked_by_who_does_not_own_it_unless_it_checks() {
    let normal = Pthread::shared(libc::PTHREAD_MUTEX_NORMAL);
    assert_eq!(normal.lock(), 0);
    // POSIX calls it undefined. What glibc does: the mutex of the other process is free.
    let broken = in_child(|| normal.unlock() + normal.try_lock());
    assert_eq!(broken, 0, "a second owner while the first has it");
    for kind in [libc::PTHREAD_MUTEX_ERRORCHECK, libc::PTHREAD_MUTEX_RECURSIVE] {
        let checked = Pthread::shared(kind);
        assert_eq!(checked.lock(), 0);
        assert_eq!(in_child(|| checked.unlock()), libc::EPERM);
        assert_eq!(in_child(|| checked.try_lock()), libc::EBUSY);
        assert_eq!(checked.unlock(), 0);
    }
    let robust = Pthread::robust();
    assert_eq!(robust.lock(), 0);
    assert_eq!(in_child(|| robust.unlock()), libc::EPERM);
    assert_eq!(in_child(|| robust.try_lock()), libc::EBUSY);
}

#[test]
fn a_pthread_mutex_of_a_killed_owner_is_locked_for_ever_unless_it_is_robust() {
    let mutex = Pthread::shared(libc::PTHREAD_MUTEX_NORMAL);
    stopped(|| mutex.lock()).kill();
    let waiter = Child::new(|| mutex.lock());
    waiter.wait_until_asleep();
    assert_eq!(mutex.try_lock(), libc::EBUSY, "its owner is gone");
    assert!(waiter.is_asleep());

    let robust = Pthread::robust();
    let owner = stopped(|| robust.lock());
    assert_eq!(robust.try_lock(), libc::EBUSY, "stopped is not dead");
    let mut waiter = Child::new(|| robust.lock());
    waiter.wait_until_asleep();
    owner.kill();
    assert_eq!(waiter.wait(), State::Exited(libc::EOWNERDEAD));
    // The successor has ended without mending it, so the next one is told too.
    assert_eq!(robust.lock(), libc::EOWNERDEAD);
    assert_eq!(robust.mark_consistent(), 0);
    assert_eq!(robust.unlock(), 0);
    assert_eq!(robust.lock(), 0, "once it is mended nobody is told");
    assert_eq!(robust.unlock(), 0);
}

#[test]
fn a_robust_pthread_mutex_that_is_given_back_unmended_is_lost_for_all() {
    let robust = Pthread::robust();
    assert_eq!(in_child(|| robust.lock()), 0);
    assert_eq!(robust.lock(), libc::EOWNERDEAD, "its owner ended with it");
    assert_eq!(robust.unlock(), 0);
    assert_eq!(robust.lock(), libc::ENOTRECOVERABLE);
    assert_eq!(in_child(|| robust.try_lock()), libc::ENOTRECOVERABLE);
}

#[test]
fn a_robust_pthread_mutex_counts_the_end_of_a_thread_and_an_exec_as_deaths() {
    let robust = Pthread::robust();
    let in_thread = in_child(|| {
        let address = robust.0 as usize;
        let locked = std::thread::spawn(move || Pthread(address as *mut _).lock()).join().unwrap();
        if locked == 0 { robust.lock() } else { 0 } // the process lives, and so does what the thread did
    });
    assert_eq!(in_thread, libc::EOWNERDEAD);
    let robust = Pthread::robust();
    let executed = in_child(|| {
        let arguments = [c"true".as_ptr(), ptr::null()];
        if robust.lock() == 0 {
            // SAFETY: strings that end with 0, and a list that ends with null.
            unsafe { libc::execvp(arguments[0], arguments.as_ptr()) };
        }
        1
    });
    assert_eq!(executed, 0);
    assert_eq!(robust.lock(), libc::EOWNERDEAD);
}

#[test]
fn a_mutex_that_is_not_process_shared_excludes_and_loses_wake_ups() {
    let private = Pthread::new(Attributes::default());
    let hold = |mutex: Pthread| move || assert_eq!(mutex.lock(), 0);
    let release = |mutex: Pthread| move |()| assert_eq!(mutex.unlock(), 0);
    assert!(!is_woken(hold(private), release(private), || private.lock()));
    assert_eq!(private.try_lock(), 0, "it is free, and somebody sleeps on it");
    let shared = Pthread::shared(libc::PTHREAD_MUTEX_NORMAL);
    assert!(is_woken(hold(shared), release(shared), || shared.lock()));
}

#[test]
fn a_mutex_of_std_in_shared_memory_excludes_and_loses_wake_ups() {
    let place = shared_page().cast::<Mutex<u32>>();
    // SAFETY: a page of its own, aligned, that nobody uses yet.
    unsafe { place.write(Mutex::new(0)) };
    // SAFETY: written just now, and mapped for ever.
    let mutex: &'static Mutex<u32> = unsafe { &*place };
    let wait = || {
        std::mem::forget(mutex.lock().unwrap());
        0
    };
    assert!(!is_woken(|| mutex.lock().unwrap(), drop, wait));
    assert!(mutex.try_lock().is_ok(), "it is free, and somebody sleeps on it");
    std::mem::forget(mutex.lock().unwrap());
    assert_eq!(in_child(|| i32::from(mutex.try_lock().is_err())), 1, "it excludes");
}

/// Whether a process that sleeps until a lock is free gets up when it is.
fn is_woken<G>(
    hold: impl FnOnce() -> G,
    release: impl FnOnce(G),
    wait: impl FnOnce() -> i32,
) -> bool {
    let guard = hold();
    let mut waiter = Child::new(wait);
    waiter.wait_until_asleep();
    release(guard);
    loop {
        if waiter.letter() == 'Z' {
            assert_eq!(waiter.wait(), State::Exited(0));
            return true;
        }
        if waiter.is_asleep() && waiter.is_asleep() {
            return false;
        }
    }
}

#[test]
fn posts_less_successful_waits_are_the_value_of_a_posix_semaphore_at_rest() {
    let semaphore = Posix::new(3);
    let workers = [0, 1, 2].map(|worker: u32| {
        Child::new(move || {
            let mut balance = 0;
            for round in 0..500u32 {
                // Some wait more than they post, some the other way round.
                if (round * 7 + worker).is_multiple_of(3) {
                    assert_eq!(semaphore.post(), 0);
                    balance += 1;
                } else if semaphore.try_wait() {
                    balance -= 1;
                }
                assert!(semaphore.value() >= 0);
            }
            while balance > 0 {
                assert!(semaphore.try_wait());
                balance -= 1;
            }
            while balance < 0 {
                assert_eq!(semaphore.post(), 0);
                balance += 1;
            }
            0
        })
    });
    for mut worker in workers {
        assert_eq!(worker.wait(), State::Exited(0));
    }
    assert_eq!(semaphore.value(), 3);
    let full = Posix::new(i32::MAX as u32);
    assert_eq!(full.post(), libc::EOVERFLOW);
    assert_eq!(full.value(), i32::MAX);
}

#[test]
fn a_wait_on_a_posix_semaphore_may_go_on_although_it_was_posted_and_end_although_it_was_not() {
    let semaphore = Posix::new(0);
    let waiters = [(); 2].map(|()| Child::new(|| semaphore.wait()));
    waiters.iter().for_each(Child::wait_until_asleep);
    assert_eq!(semaphore.post(), 0); // for an instant its value is 1, for both
    let gone = || waiters.iter().filter(|waiter| waiter.letter() == 'Z').count();
    while gone() == 0 {
        std::thread::yield_now();
    }
    let asleep = waiters.iter().find(|waiter| waiter.letter() != 'Z').unwrap();
    assert!(asleep.is_asleep() && gone() == 1 && semaphore.value() == 0);

    extern "C" fn nothing(_: i32) {}
    let nothing: extern "C" fn(i32) = nothing;
    let mut interrupted = Child::new(|| {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: zeros are a valid value: no flags, so that calls are not begun anew.
        let action = unsafe { action.assume_init_mut() };
        action.sa_sigaction = nothing as libc::sighandler_t;
        // SAFETY: a handler that does nothing, for a signal of this child alone.
        unsafe { libc::sigaction(libc::SIGUSR1, action, ptr::null_mut()) };
        semaphore.wait()
    });
    interrupted.wait_until_asleep();
    interrupted.signal(libc::SIGUSR1);
    assert_eq!(interrupted.wait(), State::Exited(libc::EINTR));
}

#[test]
fn a_permit_of_a_posix_semaphore_is_lost_with_its_holder_and_given_back_by_anybody() {
    let semaphore = Posix::new(1);
    stopped(|| semaphore.wait()).kill();
    assert!(!semaphore.try_wait());
    assert_eq!(semaphore.value(), 0, "nobody has it, and nobody gets it");
    // Nobody owns a permit: who never had one can give it back, once too often also.
    assert_eq!((semaphore.post(), semaphore.post()), (0, 0));
    assert_eq!(semaphore.value(), 2);
}

/// A process for which `lock` returned 0, and which is stopped.
fn stopped(lock: impl FnOnce() -> i32) -> Child {
    let mut child = Child::new(|| {
        assert_eq!(lock(), 0);
        stop();
        0
    });
    assert_eq!(child.wait(), State::Stopped);
    child
}
