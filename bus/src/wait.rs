//! Before sleeping: spin, then yield, by how many cores there are.

use std::time::Duration;

use crossbeam_utils::Backoff;
use shmbus_sys::{clock, process};

use crate::atomics::{AtomicU32, Relaxed};

/// What is left of the patience of one wait: looks that are worth more than a system call.
///
/// Spinning pays where whoever is waited for runs at the same time. With one or two cores it may be waiting for this very core, so that
/// the only thing to do is to yield it.
pub(crate) struct Patience {
    backoff: Backoff,
    yields: u32,
    spin: bool,
}

impl Patience {
    /// Of a subscriber that waits for a message.
    pub(crate) fn of_subscriber() -> Patience {
        Patience::with(3)
    }

    /// Of a publisher that waits for room. It comes here because it is faster, and a subscriber that runs makes room for the next block in less time than a system call
    /// takes: with two cores, too, it is most likely running.
    pub(crate) fn of_publisher() -> Patience {
        Patience::with(2)
    }

    /// Spins where there are as many cores.
    fn with(cores: u32) -> Patience {
        // 0: nobody has asked. Not a `OnceLock`, which ThreadSanitizer reports in programs of others, where std is not instrumented.
        static CORES: AtomicU32 = AtomicU32::new(0);
        let mut there = CORES.load(Relaxed);
        if there == 0 {
            there = process::cores() as u32;
            CORES.store(there, Relaxed);
        }
        let spin = there >= cores;
        Patience { backoff: Backoff::new(), yields: 1, spin }
    }

    /// Spends some of it: spins or yields, and says true; or says false, when it is time to sleep.
    pub(crate) fn is_left(&mut self) -> bool {
        if self.spin && !self.backoff.is_completed() {
            self.backoff.snooze();
            true
        } else if self.yields > 0 {
            self.yields -= 1;
            std::thread::yield_now();
            true
        } else {
            false
        }
    }
}

/// The monotonic time after `timeout`; the end of time where that is too long to count.
pub(crate) fn deadline_ns(timeout: Duration) -> u64 {
    let timeout = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
    clock::monotonic_ns().saturating_add(timeout)
}
