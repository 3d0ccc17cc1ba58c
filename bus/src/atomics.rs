//! The only file that names core's atomics, the futex, or loom.
//!
//! Everything above is written once and compiled twice: on the processor's atomics and on the kernel's futex,
//! and, with `--cfg loom`, on loom's atomics and a futex made of loom's condition variable. The models
//! (`models`) therefore explore the code that ships.

pub(crate) use self::imp::*;

#[cfg(not(loom))]
mod imp {
    pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::*, compiler_fence, fence};

    use shmbus_sys::futex;

    /// A futex word in shared memory, waited on with absolute deadlines.
    #[repr(transparent)]
    pub(crate) struct Futex(AtomicU32);

    impl Futex {
        pub(crate) fn word(&self) -> &AtomicU32 {
            &self.0
        }

        /// Sleeps while the word is `expected`, until `deadline_ns` (monotonic) at the latest.
        ///
        /// Every return is only a reason to look again, so nothing is returned: woken, changed,
        /// interrupted and timed out are the same to a caller that looks. A kernel that refuses
        /// the call (it never does for an aligned word) turns the sleep into a yield.
        pub(crate) fn wait(&self, expected: u32, deadline_ns: u64) {
            if futex::wait(&self.0, expected, Some(deadline_ns)).is_err() {
                std::thread::yield_now();
            }
        }

        pub(crate) fn wake_all(&self) {
            // The only errors are of the address, which is ours and mapped.
            let _ = futex::wake_all(&self.0);
        }
    }
}

#[cfg(loom)]
mod imp {
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering::*, fence};

    /// Loom has no compiler fence: the models run the protocol with real fences only.
    pub(crate) fn compiler_fence(order: loom::sync::atomic::Ordering) {
        fence(order);
    }

    /// The kernel's futex, played by a lock and a condition variable. There is no deadline here, so
    /// a wake-up that is lost is a deadlock, which loom reports.
    pub(crate) struct Futex {
        word: AtomicU32,
        queue: loom::sync::Mutex<()>,
        asleep: loom::sync::Condvar,
    }

    impl Futex {
        pub(crate) fn new() -> Futex {
            Futex {
                word: AtomicU32::new(0),
                queue: loom::sync::Mutex::new(()),
                asleep: loom::sync::Condvar::new(),
            }
        }

        pub(crate) fn word(&self) -> &AtomicU32 {
            &self.word
        }

        pub(crate) fn wait(&self, expected: u32, _deadline_ns: u64) {
            let queue = self.queue.lock().unwrap();
            if self.word.load(Relaxed) == expected {
                drop(self.asleep.wait(queue).unwrap());
            }
        }

        pub(crate) fn wake_all(&self) {
            let _queue = self.queue.lock().unwrap();
            self.asleep.notify_all();
        }
    }
}
