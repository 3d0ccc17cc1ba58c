//! The only file that names core's atomics, the futex, or loom.
//!
//! Everything above is written once and compiled twice: on the processor's atomics and on the kernel's futex,
//! and, with `--cfg loom`, on loom's atomics and a futex made of loom's condition variable. The models
//! (`models`) therefore explore the code that ships.

pub(crate) use self::imp::*;

#[cfg(not(loom))]
mod imp {
    pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::*, compiler_fence, fence};

    use shmbus_sys::{clock, futex, robust};

    /// How long who waits for the lease of the dead sleeps between two looks: 0.2 ms.
    const MOMENT_NS: u64 = 200_000;

    /// Monotonic nanoseconds.
    pub(crate) fn now_ns() -> u64 {
        clock::monotonic_ns()
    }

    /// [`robust::pending`]; `None` where it is refused.
    pub(crate) fn pending<R>(word: &Futex, work: impl FnOnce(u32) -> R) -> Option<R> {
        robust::pending(&word.0, work).ok()
    }

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

        /// [`Futex::wait`], for 0.2 ms at most.
        pub(crate) fn wait_a_moment(&self, expected: u32, deadline_ns: u64) {
            self.wait(expected, deadline_ns.min(now_ns() + MOMENT_NS));
        }

        pub(crate) fn wake_one(&self) {
            // The only errors are of the address, which is ours and mapped.
            let _ = futex::wake(&self.0, 1);
        }

        /// Clears `bits` and wakes all, in one step against [`Futex::wait`] and against a SIGKILL.
        pub(crate) fn wake_all_and_clear(&self, bits: u16) {
            let _ = futex::wake_all_and_clear(&self.0, bits); // as above
        }
    }
}

#[cfg(loom)]
mod imp {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering::*, fence};
    use shmbus_sys::robust::{FUTEX_WAITERS, OWNER_DIED, TID_MASK};

    loom::thread_local! {
        /// A thread's id in its namespace: models set it, and may give two threads the same.
        pub(crate) static TID: Cell<u32> = Cell::new(1);
    }

    /// There is no time in a model: no deadline ever passes.
    pub(crate) fn now_ns() -> u64 {
        0
    }

    /// The kernel's robust list, played: a thread that is killed in `work` unwinds (`crash.rs`), and its word is treated as the kernel
    /// does it.
    pub(crate) fn pending<R>(word: &Futex, work: impl FnOnce(u32) -> R) -> Option<R> {
        let tid = TID.with(Cell::get);
        match catch_unwind(AssertUnwindSafe(|| work(tid))) {
            Ok(result) => Some(result),
            Err(cause) => {
                word.died(tid);
                resume_unwind(cause)
            }
        }
    }

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

        /// In place of a sleep that ends by itself.
        pub(crate) fn wait_a_moment(&self, _expected: u32, _deadline_ns: u64) {
            loom::thread::yield_now();
        }

        pub(crate) fn wake_one(&self) {
            let _queue = self.queue.lock().unwrap();
            self.asleep.notify_one();
        }

        /// What the kernel does to the pending word of thread `tid` when it ends: `handle_futex_death`.
        pub(crate) fn died(&self, tid: u32) {
            let mut seen = self.word.load(Acquire);
            while seen & TID_MASK == tid {
                let left = seen & FUTEX_WAITERS | OWNER_DIED;
                match self.word.compare_exchange(seen, left, AcqRel, Acquire) {
                    Ok(_) if seen & FUTEX_WAITERS != 0 => return self.wake_one(),
                    Ok(_) => return,
                    Err(now) => seen = now,
                }
            }
            if seen & TID_MASK == 0 {
                self.wake_one();
            }
        }

        /// The kernel does both with the queue locked.
        pub(crate) fn wake_all_and_clear(&self, bits: u16) {
            let _queue = self.queue.lock().unwrap();
            self.word.fetch_and(!u32::from(bits), Relaxed);
            self.asleep.notify_all();
        }
    }
}
