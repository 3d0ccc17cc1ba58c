//! The only file that names core's atomics, the futex, or loom. A mutex among threads of one process is here too.
//!
//! Everything above is written once and compiled twice: on the processor's atomics and on the kernel's futex,
//! and, with `--cfg loom`, on loom's atomics and a futex made of loom's condition variable. The models
//! (`models`) therefore explore the code that ships.

pub(crate) use self::imp::*;

#[cfg(not(loom))]
mod imp {
    use core::ops::Deref;
    use core::sync::atomic::{self, Ordering};
    pub(crate) use core::sync::atomic::{AtomicBool, Ordering::*, compiler_fence, fence};
    pub(crate) use std::sync::Mutex;

    pub(crate) use shmbus_sys::lease::Lease;
    use shmbus_sys::{clock, futex, robust};

    /// An atomic of core, but for one thing: an Acquire load is a Relaxed load and an Acquire fence. Regions may be mapped for reading only, and of those std
    /// defines Relaxed loads only. The fence orders no less than the load would (`docs/memory-model.md`). ThreadSanitizer knows no fences: for it
    /// (`--cfg shmbus_tsan`) the load is as it is written.
    macro_rules! atomic {
        ($name:ident, $value:ty) => {
            #[repr(transparent)]
            pub(crate) struct $name(atomic::$name);

            impl $name {
                pub(crate) const fn new(value: $value) -> $name {
                    $name(atomic::$name::new(value))
                }

                #[inline(always)]
                pub(crate) fn load(&self, order: Ordering) -> $value {
                    match order {
                        Acquire if !cfg!(shmbus_tsan) => {
                            let value = self.0.load(Relaxed);
                            fence(Acquire);
                            value
                        }
                        order => self.0.load(order),
                    }
                }
            }

            impl Deref for $name {
                type Target = atomic::$name;

                #[inline(always)]
                fn deref(&self) -> &atomic::$name {
                    &self.0
                }
            }
        };
    }

    atomic!(AtomicU32, u32);
    atomic!(AtomicU64, u64);

    /// How long who waits for the lease of the dead sleeps between two looks: 0.2 ms.
    const MOMENT_NS: u64 = 200_000;
    /// How often who may wait for one word only looks at the others: every 5 ms.
    const LOOK_NS: u64 = 5_000_000;

    /// Monotonic nanoseconds.
    pub(crate) fn now_ns() -> u64 {
        clock::monotonic_ns()
    }

    /// [`robust::pending`]; `None` where it is refused.
    pub(crate) fn pending<R>(word: &Futex, work: impl FnOnce(u32) -> R) -> Option<R> {
        robust::pending(&word.0, work).ok()
    }

    /// A futex word that is waited on together with others: see [`Words`].
    pub(crate) type Word = Futex;

    /// Words to sleep on all at once.
    pub(crate) struct Words<'a> {
        words: [(&'a atomic::AtomicU32, u32); futex::WORDS_MAX],
        count: usize,
    }

    impl<'a> Words<'a> {
        pub(crate) fn none() -> Words<'a> {
            static NOTHING: atomic::AtomicU32 = atomic::AtomicU32::new(0);
            Words { words: [(&NOTHING, 0); futex::WORDS_MAX], count: 0 }
        }

        /// One more. Those above the kernel's limit, which no object alone has, are counted only.
        pub(crate) fn add(&mut self, word: &'a Word, expected: u32) {
            if let Some(place) = self.words.get_mut(self.count) {
                *place = (&word.0, expected);
            }
            self.count += 1;
        }

        /// How many there are.
        pub(crate) fn count(&self) -> usize {
            self.count
        }

        /// Sleeps while each of them is as expected and nobody wakes one, until `deadline_ns` (monotonic) at the latest. As with
        /// [`Futex::wait`], every return is only a reason to look again.
        pub(crate) fn wait(&self, deadline_ns: u64) {
            let words = &self.words[..self.count.min(futex::WORDS_MAX)];
            if futex::wait_any(words, Some(deadline_ns)).is_err() {
                self.wait_for_the_first(deadline_ns);
            }
        }

        /// Where the kernel refuses to wait for several, since this process has opened its objects: a filter of system calls came later. Wakes of the other words are
        /// found by looking again.
        #[cold]
        fn wait_for_the_first(&self, deadline_ns: u64) {
            let soon_ns = deadline_ns.min(now_ns().saturating_add(LOOK_NS));
            let (word, expected) = self.words[0];
            if futex::wait(word, expected, Some(soon_ns)).is_err() {
                std::thread::sleep(std::time::Duration::from_nanos(LOOK_NS));
            }
        }
    }

    /// A futex word in shared memory, waited on with absolute deadlines.
    #[repr(transparent)]
    pub(crate) struct Futex(AtomicU32);

    impl Futex {
        pub(crate) fn word(&self) -> &AtomicU32 {
            &self.0
        }

        /// Sleeps while the word is `expected`, until `deadline_ns` (monotonic) at the latest, and says whether somebody woke it.
        ///
        /// Every return is only a reason to look again: a wake may be meant for another word. A kernel that refuses
        /// the call (it never does for an aligned word) turns the sleep into a yield.
        pub(crate) fn wait(&self, expected: u32, deadline_ns: u64) -> bool {
            match futex::wait(&self.0, expected, Some(deadline_ns)) {
                Ok(end) => end == futex::Wait::Woken,
                Err(_) => {
                    std::thread::yield_now();
                    false
                }
            }
        }

        /// [`Futex::wait`], for 0.2 ms at most.
        pub(crate) fn wait_a_moment(&self, expected: u32, deadline_ns: u64) {
            self.wait(expected, deadline_ns.min(now_ns() + MOMENT_NS));
        }

        pub(crate) fn wake_one(&self) {
            self.wakes_one();
        }

        /// The same, and says whether there was one.
        pub(crate) fn wakes_one(&self) -> bool {
            // The only errors are of the address, which is ours and mapped.
            futex::wake(&self.0, 1).is_ok_and(|woken| woken > 0)
        }

        pub(crate) fn wake_all(&self) {
            self.wakes_all();
        }

        /// The same, and says whether there was one.
        pub(crate) fn wakes_all(&self) -> bool {
            futex::wake_all(&self.0).is_ok_and(|woken| woken > 0) // as above
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

    pub(crate) use loom::sync::Mutex;
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

    /// Sleepers of [`Words`], in the order in which they came: their words by address, and their beds.
    struct Kernel {
        sleepers: loom::sync::Mutex<Vec<(Vec<usize>, loom::sync::Arc<loom::sync::Condvar>)>>,
    }

    loom::lazy_static! {
        static ref KERNEL: Kernel = Kernel { sleepers: loom::sync::Mutex::new(Vec::new()) };
    }

    /// A futex word that is waited on together with others.
    pub(crate) struct Word(AtomicU32);

    impl Word {
        pub(crate) fn new() -> Word {
            Word(AtomicU32::new(0))
        }

        pub(crate) fn word(&self) -> &AtomicU32 {
            &self.0
        }

        pub(crate) fn wake_one(&self) {
            self.wake(1);
        }

        /// The same, and says whether there was one.
        pub(crate) fn wakes_one(&self) -> bool {
            self.wake(1) > 0
        }

        pub(crate) fn wake_all(&self) {
            self.wakes_all();
        }

        /// The same, and says whether there was one.
        pub(crate) fn wakes_all(&self) -> bool {
            self.wake(usize::MAX) > 0
        }

        /// [`Futex::wait`] of one word alone; here no deadline passes.
        pub(crate) fn wait(&self, expected: u32, _deadline_ns: u64) -> bool {
            Words(vec![(self, expected)]).wait(u64::MAX)
        }

        /// The kernel does both with the queue locked.
        pub(crate) fn wake_all_and_clear(&self, bits: u16) {
            let mut sleepers = KERNEL.sleepers.lock().unwrap();
            self.0.fetch_and(!u32::from(bits), Relaxed);
            let address = std::ptr::from_ref(self).addr();
            sleepers.retain(|(words, bed)| {
                let is_woken = words.contains(&address);
                if is_woken {
                    bed.notify_one();
                }
                !is_woken
            });
        }

        fn wake(&self, count: usize) -> usize {
            let address = std::ptr::from_ref(self).addr();
            let mut sleepers = KERNEL.sleepers.lock().unwrap();
            for woken in 0..count {
                let found = sleepers.iter().position(|(words, _)| words.contains(&address));
                let Some(found) = found else { return woken };
                sleepers.remove(found).1.notify_one();
            }
            count
        }

        /// As [`Futex::died`], of a word in the robust list of thread `tid`.
        pub(crate) fn died(&self, tid: u32) {
            let seen = self.0.load(Acquire);
            if seen & TID_MASK == tid {
                self.0.store(seen & FUTEX_WAITERS | OWNER_DIED, Release);
                if seen & FUTEX_WAITERS != 0 {
                    self.wake_one();
                }
            }
        }
    }

    /// Words to sleep on all at once.
    pub(crate) struct Words<'a>(Vec<(&'a Word, u32)>);

    impl<'a> Words<'a> {
        pub(crate) fn none() -> Words<'a> {
            Words(Vec::new())
        }

        pub(crate) fn add(&mut self, word: &'a Word, expected: u32) {
            self.0.push((word, expected));
        }

        pub(crate) fn count(&self) -> usize {
            self.0.len()
        }

        /// A sleep that ends by itself soon is a yield, any other one is for ever. Whether it was one, and somebody woke it.
        pub(crate) fn wait(&self, deadline_ns: u64) -> bool {
            if deadline_ns < 1_000_000_000 {
                loom::thread::yield_now();
                return false;
            }
            let mut sleepers = KERNEL.sleepers.lock().unwrap();
            if self.0.iter().any(|(word, expected)| word.0.load(Relaxed) != *expected) {
                return false;
            }
            let bed = loom::sync::Arc::new(loom::sync::Condvar::new());
            let words = self.0.iter().map(|(word, _)| std::ptr::from_ref(*word).addr()).collect();
            sleepers.push((words, bed.clone()));
            while sleepers.iter().any(|(_, other)| loom::sync::Arc::ptr_eq(other, &bed)) {
                sleepers = bed.wait(sleepers).unwrap();
            }
            true
        }
    }

    /// Who holds which byte of a file, by number of the description; 0 = nobody.
    pub(crate) struct LeaseFile(pub(crate) Vec<AtomicU32>);

    /// An open file description of it, played.
    pub(crate) struct Lease {
        pub(crate) file: loom::sync::Arc<LeaseFile>,
        pub(crate) description: u32,
    }

    impl Lease {
        pub(crate) fn take(&self, byte: u64) -> std::io::Result<bool> {
            let byte = &self.file.0[byte as usize];
            Ok(byte.compare_exchange(0, self.description, SeqCst, SeqCst).is_ok())
        }

        pub(crate) fn release(&self, byte: u64) -> std::io::Result<()> {
            self.file.0[byte as usize].store(0, SeqCst);
            Ok(())
        }

        pub(crate) fn is_held_by_another(&self, byte: u64) -> std::io::Result<bool> {
            let holder = self.file.0[byte as usize].load(SeqCst);
            Ok(holder != 0 && holder != self.description)
        }

        /// Its process is gone.
        pub(crate) fn end(&self) {
            for byte in &self.file.0 {
                let _ = byte.compare_exchange(self.description, 0, SeqCst, SeqCst);
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

        pub(crate) fn wait(&self, expected: u32, _deadline_ns: u64) -> bool {
            let queue = self.queue.lock().unwrap();
            let sleeps = self.word.load(Relaxed) == expected;
            if sleeps {
                drop(self.asleep.wait(queue).unwrap());
            }
            sleeps
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

        pub(crate) fn wake_all(&self) {
            let _queue = self.queue.lock().unwrap();
            self.asleep.notify_all();
        }
    }
}
