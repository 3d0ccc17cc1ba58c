//! Sleep on a 32-bit word and wake its sleepers, across processes. Linux keys a word of a
//! `MAP_SHARED` mapping by (file, page, offset): mappings at different addresses match, and a
//! waiter may map it read-only. Nothing here is `FUTEX_PRIVATE`: that, on either side, would lose
//! wake-ups between processes.
//!
//! A return from a wait says nothing about the word. Callers loop: look at the word, wait, look
//! again, also after [`Wait::TimedOut`]. For no wake-up to be lost, the waker's store of the word
//! and its look for sleepers, and the sleeper's announcement and its look at the word, need
//! store-load order on both sides; that is the caller's.

use std::io;
use std::num::NonZeroU32;
use std::sync::atomic::AtomicU32;

use rustix::io::Errno;
use rustix::thread::futex::{
    self, ClockId, Flags, WaitFlags, WaitPtr, WaitvFlags, WakeOp, WakeOpCmp,
};

use crate::clock::to_timespec;

/// The most words that [`wait_any`] takes.
pub const WORDS_MAX: usize = 128;

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Somebody woke the word, or nobody did: a spurious return looks the same.
    Woken,
    /// A word did not hold the expected value; there was no sleep.
    Changed,
    /// A signal was delivered to this thread.
    Interrupted,
    /// The deadline has passed.
    TimedOut,
}

/// Sleeps while nobody wakes `word`, if it holds `expected`: the kernel compares and goes to sleep
/// in one step against [`wake`]. Until `deadline_ns` of
/// [`monotonic_ns`](crate::clock::monotonic_ns); `None` is for ever. Costs a system call (about 0.6
/// us without a sleep, some 30 us with one). See
/// [futex(2)](https://man7.org/linux/man-pages/man2/futex.2.html), FUTEX_WAIT_BITSET.
pub fn wait(word: &AtomicU32, expected: u32, deadline_ns: Option<u64>) -> io::Result<Wait> {
    let deadline = deadline_ns.map(to_timespec);
    // WAIT_BITSET and not WAIT: its time is absolute.
    outcome(futex::wait_bitset(word, Flags::empty(), expected, deadline.as_ref(), NonZeroU32::MAX))
}

/// Wakes up to `count` of those who sleep on `word`, and says how many. Costs a system call (about
/// 0.6 us) also when nobody sleeps. See
/// [futex(2)](https://man7.org/linux/man-pages/man2/futex.2.html), FUTEX_WAKE.
pub fn wake(word: &AtomicU32, count: u32) -> io::Result<u32> {
    if count == 0 {
        return Ok(0); // the kernel would wake one
    }
    // The kernel reads the count as an `int`.
    Ok(futex::wake(word, Flags::empty(), count.min(i32::MAX as u32))? as u32)
}

/// Wakes all who sleep on `word`, and says how many.
pub fn wake_all(word: &AtomicU32) -> io::Result<u32> {
    wake(word, u32::MAX)
}

/// Clears `bits` (below 2^12) of `word` and wakes all who sleep on it, and says how many: for the kernel one step, against [`wait`] and against
/// SIGKILL. Costs a system call (about 0.6 us) also when nobody sleeps. `word` must be mapped for writing. See
/// [futex(2)](https://man7.org/linux/man-pages/man2/futex.2.html), FUTEX_WAKE_OP.
pub fn wake_all_and_clear(word: &AtomicU32, bits: u16) -> io::Result<u32> {
    let all = i32::MAX as u32;
    // The second wake is of those who still sleep on the same word: nobody.
    let (clear, never, flags) = (WakeOp::AndN, WakeOpCmp::Lt, Flags::empty());
    Ok(futex::wake_op(word, flags, all, 0, word, clear, never, bits, 0)? as u32)
}

/// Sleeps while nobody wakes any of `words`, if each holds the value beside it. `InvalidInput` for
/// no words or more than [`WORDS_MAX`]; `ENOSYS` before Linux 5.16. See
/// [futex_waitv](https://docs.kernel.org/userspace-api/futex2.html).
pub fn wait_any(words: &[(&AtomicU32, u32)], deadline_ns: Option<u64>) -> io::Result<Wait> {
    if words.is_empty() || words.len() > WORDS_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut waits = [const { futex::Wait::new() }; WORDS_MAX];
    for (wait, (word, expected)) in waits.iter_mut().zip(words) {
        wait.val = u64::from(*expected);
        wait.uaddr = WaitPtr::new(word.as_ptr().cast());
        wait.flags = WaitFlags::SIZE_U32; // without PRIVATE: shared
    }
    let deadline = deadline_ns.map(to_timespec);
    let waits = &waits[..words.len()];
    outcome(
        futex::waitv(waits, WaitvFlags::empty(), deadline.as_ref(), ClockId::Monotonic).map(|_| ()),
    )
}

fn outcome(result: Result<(), Errno>) -> io::Result<Wait> {
    match result {
        Ok(()) => Ok(Wait::Woken),
        Err(Errno::AGAIN) => Ok(Wait::Changed),
        Err(Errno::INTR) => Ok(Wait::Interrupted),
        Err(Errno::TIMEDOUT) => Ok(Wait::TimedOut),
        Err(error) => Err(error.into()),
    }
}
