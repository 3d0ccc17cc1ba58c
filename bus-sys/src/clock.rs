//! Clocks in nanoseconds. Deadlines are absolute times of the monotonic clock: a wait that is begun
//! anew after an interruption does not drift.
//!
//! Clocks are read by libc. rustix would look for the vDSO by itself, and valgrind hides it: a program under valgrind would end with a signal.

#![allow(unsafe_code)] // clock_gettime of libc

use std::mem::MaybeUninit;

use rustix::io::Errno;
use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, Timespec};

const NS_PER_S: u64 = 1_000_000_000;

/// The time of `CLOCK_MONOTONIC`, in nanoseconds: the same clock in every process of the machine
/// (time namespaces apart), never set back, stopped while the machine is suspended. No system call
/// where the vDSO serves it (about 40 ns). See
/// [clock_gettime(2)](https://man7.org/linux/man-pages/man2/clock_gettime.2.html).
#[inline]
pub fn monotonic_ns() -> u64 {
    let now_ns = read_ns(libc::CLOCK_MONOTONIC);
    #[cfg(feature = "internals")]
    let now_ns = match STANDS_AT_NS.load(std::sync::atomic::Ordering::Relaxed) {
        0 => now_ns + AHEAD_NS.load(std::sync::atomic::Ordering::Relaxed),
        stands_at_ns => stands_at_ns,
    };
    now_ns
}

#[cfg(feature = "internals")]
static AHEAD_NS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// Sets [`monotonic_ns`] of this process forward, so that a test need not wait: for handles that
/// never sleep, because the kernel's clock stays as it is.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub fn advance_ns(ns: u64) {
    AHEAD_NS.fetch_add(ns, std::sync::atomic::Ordering::Relaxed);
}

#[cfg(feature = "internals")]
static STANDS_AT_NS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// Has [`monotonic_ns`] of this process say `ns` from here on, so that its way does not depend on how fast it goes. The kernel's clock goes on:
/// a sleep ends when that has come to its deadline.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub fn stand_at_ns(ns: u64) {
    STANDS_AT_NS.store(ns, std::sync::atomic::Ordering::Relaxed);
}

/// The time of `CLOCK_REALTIME`, in nanoseconds since 1970. It may be set back or jump: for people,
/// not for deadlines. A clock set before 1970 reads 0.
#[inline]
pub fn realtime_ns() -> u64 {
    read_ns(libc::CLOCK_REALTIME)
}

/// Sleeps until [`monotonic_ns`] has reached `deadline_ns`; returns at once where it has. Signals
/// do not end the sleep. See
/// [clock_nanosleep(2)](https://man7.org/linux/man-pages/man2/clock_nanosleep.2.html).
pub fn sleep_until_ns(deadline_ns: u64) {
    // Any other error would be about arguments, which are valid: nanoseconds are below 10^9.
    while clock_nanosleep_absolute(ClockId::Monotonic, &to_timespec(deadline_ns))
        == Err(Errno::INTR)
    {}
}

/// `ns` as the kernel wants it. All of `u64` is valid: the kernel saturates at about 292 years.
#[inline]
pub(crate) fn to_timespec(ns: u64) -> Timespec {
    Timespec { tv_sec: (ns / NS_PER_S) as i64, tv_nsec: (ns % NS_PER_S) as _ }
}

/// The time of a clock that every Linux has; 0 before its origin.
#[inline]
fn read_ns(clock: libc::clockid_t) -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: it points to room for the time.
    let failed = unsafe { libc::clock_gettime(clock, time.as_mut_ptr()) } != 0;
    debug_assert!(!failed, "both clocks are there");
    // SAFETY: the call has written it: it fails for unknown clocks and bad pointers only.
    let time = unsafe { time.assume_init() };
    to_ns(time.tv_sec, time.tv_nsec)
}

#[inline]
fn to_ns(seconds: i64, nanoseconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0) * NS_PER_S + nanoseconds as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_ends_no_earlier_than_its_deadline() {
        let deadline_ns = monotonic_ns() + 3_000_000;
        sleep_until_ns(deadline_ns);
        assert!(monotonic_ns() >= deadline_ns);
    }

    #[test]
    fn a_deadline_that_has_passed_is_no_sleep() {
        sleep_until_ns(0);
        sleep_until_ns(monotonic_ns()); // as a duration it would be the time since boot
    }

    #[test]
    fn the_clocks_agree_with_those_of_std() {
        let before = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        let now = realtime_ns();
        let after = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        assert!(before <= now && now <= after);

        // std's monotonic clock has no origin to compare with: compare a span that lies inside.
        let outer = std::time::Instant::now();
        let start = monotonic_ns();
        sleep_until_ns(start + 2_000_000);
        let inner_ns = monotonic_ns() - start;
        assert!(inner_ns >= 2_000_000 && inner_ns <= outer.elapsed().as_nanos() as u64);
    }

    #[test]
    fn a_time_is_the_same_after_the_way_to_the_kernel_and_back() {
        for ns in [0, 1, NS_PER_S - 1, NS_PER_S, NS_PER_S + 1, u64::MAX] {
            let time = to_timespec(ns);
            assert_eq!(to_ns(time.tv_sec, time.tv_nsec), ns);
        }
    }
}
