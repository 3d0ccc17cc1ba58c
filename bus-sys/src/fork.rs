//! What a child that was forked and did not exec must not keep.
//!
//! A lease belongs to an open file description, which a fork shares: the child would hold its
//! parent's leases and the parent would seem alive after its death. And the mappings of
//! [`map`](crate::map) are not there in a child. So, by
//! [pthread_atfork(3)](https://man7.org/linux/man-pages/man3/pthread_atfork.3.html), in every
//! child, before `fork` returns: the lease descriptors are closed and [`generation`] is raised.
//! Whoever holds something of another generation forgets it: does not close, unmap, unlock or touch
//! it.
//!
//! `fork` waits for threads that are just opening or closing a lease or mapping, so a child never
//! gets half of one. A signal handler must therefore not call `fork`. Children made by `vfork`,
//! `posix_spawn`, `_Fork` or a bare `clone` do not run this; the first two exec at once, which
//! closes everything.

#![allow(unsafe_code)] // pthread_atfork, and closing descriptors whose owner was forked away

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::futex;
use crate::kept::Identity;

/// The most leases a process can have open.
pub const LEASES_MAX: usize = 4096;

/// [`LEASES_MAX`] are open: what is inside an [`io::Error`] of kind `QuotaExceeded`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyLeases;

impl fmt::Display for TooManyLeases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this process has {LEASES_MAX} leases already")
    }
}

impl std::error::Error for TooManyLeases {}

static GENERATION: AtomicU32 = AtomicU32::new(0);

/// How often this process was forked off since [`install`] was called first in one of its ancestors
/// or itself. What was made under another generation is gone. One relaxed load: each process has
/// its own. A child that would be one too many for 32 bits is ended (SIGABRT) before `fork` returns there.
#[inline]
pub fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// Makes forks known from now on. Leases and mappings call it themselves; once is enough, more do
/// not matter. Out of memory it does nothing, and that lease or mapping is refused: the next one
/// tries again. Call it early where threads fork: a child forked in the middle of the very first
/// call must not call it again.
pub fn install() {
    _ = try_install();
}

pub(crate) fn try_install() -> io::Result<()> {
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    static INSTALLING: Mutex<()> = Mutex::new(());
    once(&INSTALLED, &INSTALLING, || {
        // SAFETY: the three may be called at any time, and call nothing that a fork can have left
        // locked.
        unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) }
    })
}

/// Has `register` succeed once, and fail as often as it does.
pub(crate) fn once(
    done: &AtomicBool,
    doing: &Mutex<()>,
    register: impl FnOnce() -> i32,
) -> io::Result<()> {
    if done.load(Ordering::Relaxed) {
        return Ok(()); // without the mutex: a fork may have left it locked
    }
    let _doing = doing.lock().unwrap_or_else(PoisonError::into_inner);
    if done.load(Ordering::Relaxed) {
        return Ok(());
    }
    match register() {
        0 => {
            done.store(true, Ordering::Relaxed);
            Ok(())
        }
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Held from before a descriptor or mapping comes into being until it is known here or is fit for a
/// child to see, and from before it is forgotten here until it is gone. Not std's mutex: `prepare`
/// locks it and other functions unlock it, one of them in another process. And not a spin lock: a
/// real-time thread would spin for ever on a holder that shares its core.
static LOCK: AtomicU32 = AtomicU32::new(OPEN);
const OPEN: u32 = 0;
const HELD: u32 = 1;
/// Held, and somebody may sleep on it.
const AWAITED: u32 = 2;

/// Lease descriptors that are open, and `FREE` entries. Changed with [`LOCK`] held.
static LEASES: [Entry; LEASES_MAX] = [const { Entry::new() }; LEASES_MAX];
/// Entries from here on were never used. Changed with [`LOCK`] held.
static USED: AtomicUsize = AtomicUsize::new(0);
const FREE: u64 = 0;

struct Entry {
    /// Number of the descriptor + 1, and above it a number that no other lease of this entry had.
    word: AtomicU64,
    device: AtomicU64,
    inode: AtomicU64,
}

impl Entry {
    const fn new() -> Entry {
        Entry { word: AtomicU64::new(FREE), device: AtomicU64::new(0), inode: AtomicU64::new(0) }
    }

    fn identity(&self) -> Identity {
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        Identity { device: load(&self.device), inode: load(&self.inode) }
    }
}

/// The number in a word of the table.
fn number(word: u64) -> Option<RawFd> {
    (word as u32).checked_sub(1).map(|number| number as RawFd)
}

/// A lease's place in the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    index: usize,
    word: u64,
}

impl Slot {
    /// Whether the descriptor is open and still the lease's: not closed by somebody else, its number not another file's, nor that of another lease.
    pub(crate) fn is_its_own(self, fd: BorrowedFd<'_>) -> bool {
        let entry = &LEASES[self.index];
        entry.word.load(Ordering::Relaxed) == self.word && entry.identity().is_of(fd)
    }

    /// Whether it is so, and the file has no name any more.
    pub(crate) fn is_unlinked(self, fd: BorrowedFd<'_>) -> bool {
        let entry = &LEASES[self.index];
        entry.word.load(Ordering::Relaxed) == self.word && entry.identity().is_unlinked(fd)
    }
}

/// Keeps forks out while it lives.
pub(crate) struct NoFork(());

pub(crate) fn no_fork() -> NoFork {
    lock();
    NoFork(())
}

/// The same, for who must not wait for long: `None` where somebody else has them kept out.
pub(crate) fn try_no_fork() -> Option<NoFork> {
    for _ in 0..1000 {
        // [fork lock]
        if LOCK.compare_exchange(OPEN, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            return Some(NoFork(()));
        }
        std::thread::yield_now();
    }
    None
}

impl NoFork {
    /// Has `fd` closed in forked children. `TooManyLeases`: the table is full.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>) -> io::Result<Slot> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let identity = Identity::of(fd)?;
        let load = |entry: &Entry| entry.word.load(Ordering::Relaxed);
        let known = Some(fd.as_raw_fd());
        let end = USED.load(Ordering::Relaxed);
        let used = || LEASES[..end].iter();
        // A lease that has this number already was closed by somebody else.
        let index = used().position(|entry| number(load(entry)) == known);
        let index = index.or_else(|| used().position(|entry| load(entry) == FREE)).unwrap_or(end);
        if index == LEASES_MAX {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, TooManyLeases));
        }
        USED.store(end.max(index + 1), Ordering::Relaxed);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let word = u64::from(serial) << 32 | u64::from(fd.as_raw_fd() as u32 + 1);
        let entry = &LEASES[index];
        entry.device.store(identity.device, Ordering::Relaxed);
        entry.inode.store(identity.inode, Ordering::Relaxed);
        entry.word.store(word, Ordering::Relaxed);
        Ok(Slot { index, word })
    }

    /// The opposite, before it is closed.
    pub(crate) fn remove(&self, slot: Slot) {
        let word = &LEASES[slot.index].word;
        if word.load(Ordering::Relaxed) == slot.word {
            word.store(FREE, Ordering::Relaxed);
        }
    }
}

impl Drop for NoFork {
    fn drop(&mut self) {
        unlock();
    }
}

fn lock() {
    if LOCK.compare_exchange(OPEN, HELD, Ordering::Acquire, Ordering::Relaxed).is_err() {
        // [fork lock]: Acquire, here and above, sees the table as the last holder left it.
        while LOCK.swap(AWAITED, Ordering::Acquire) != OPEN {
            _ = futex::wait(&LOCK, AWAITED, None); // however it returns: look again
        }
    }
}

fn unlock() {
    // [fork lock]: Release shows the table to the next holder.
    if LOCK.swap(OPEN, Ordering::Release) == AWAITED {
        _ = futex::wake(&LOCK, 1);
    }
}

extern "C" fn prepare() {
    lock();
}

extern "C" fn parent() {
    unlock();
}

/// Runs in the child, on its only thread: loads, stores, fstat(2) and close(2), nothing that
/// allocates or locks.
extern "C" fn child() {
    for entry in &LEASES[..USED.load(Ordering::Relaxed)] {
        let Some(fd) = number(entry.word.load(Ordering::Relaxed)) else { continue };
        entry.word.store(FREE, Ordering::Relaxed); // only here: a store has the page copied
        // SAFETY: not -1; whatever the number is now, fstat may be asked about it.
        if entry.identity().is_of(unsafe { BorrowedFd::borrow_raw(fd) }) {
            // SAFETY: it is open and of the lease's file, as it was just asked, for the table is
            // exact while LOCK is held; and its owner, a `Lease` of the generation that ends below,
            // does not use or close it after that.
            unsafe { rustix::io::close(fd) };
        }
    }
    let Some(generation) = generation().checked_add(1) else {
        // What an ancestor of 2^32 forks ago has made would count as this process's own.
        std::process::abort()
    };
    GENERATION.store(generation, Ordering::Relaxed); // the child has one thread
    unlock();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_has_no_memory_for_once_is_registered_the_next_time_and_then_no_more() {
        let (done, doing) = (AtomicBool::new(false), Mutex::new(()));
        let error = once(&done, &doing, || libc::ENOMEM).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
        let mut calls = 0;
        for _ in 0..3 {
            once(&done, &doing, || {
                calls += 1;
                0
            })
            .unwrap();
        }
        assert_eq!(calls, 1);
    }

    /// The process that `work` runs in; how it ended.
    fn forked(work: impl FnOnce() -> i32) -> i32 {
        // SAFETY: the child calls async-signal-safe functions only.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let code = work();
            // SAFETY: it takes a number.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: `status` is valid for writes.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        status
    }

    /// The number of forks came round after 2^32 of them, one in the child of the other: what an ancestor had made then passed for the child's own, and a lease
    /// closed a descriptor that was another's.
    #[test]
    fn a_process_whose_forks_can_not_be_counted_ends() {
        install();
        let status = forked(|| {
            GENERATION.store(u32::MAX - 1, Ordering::Relaxed); // in a process of its own
            let last = forked(|| (generation() != u32::MAX).into());
            GENERATION.store(u32::MAX, Ordering::Relaxed);
            let one_more = forked(|| 0);
            (last != 0 || !libc::WIFSIGNALED(one_more)).into()
        });
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:x}");
    }
}
