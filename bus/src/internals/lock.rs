//! The recovery lock, for its own tests.
#![allow(unsafe_code)] // a lock in memory of the test's own

use core::ptr::NonNull;
use core::sync::atomic::AtomicU32;

use shmbus_sys::clock;

use crate::layout::RecoveryLock;
use crate::lock::{Busy, Owner};
use crate::payload::Payload;
use crate::publisher::Publisher;
use crate::region::EntryIndex;
use crate::sweep;

/// The recovery lock, anywhere.
pub struct Lock<'a>(&'a RecoveryLock);

impl Lock<'_> {
    /// A lock in a line of 128 bytes that was 0 before it was one.
    ///
    /// # Safety
    /// `line` is aligned to 128, mapped as long as the result lives, and used as a lock only.
    pub unsafe fn at<'a>(line: NonNull<u8>) -> Lock<'a> {
        // SAFETY: as the caller says; a `RecoveryLock` is atomics, for which every byte is valid, and shorter than a line.
        Lock(unsafe { line.cast().as_ref() })
    }

    /// Its futex word.
    pub fn word(&self) -> &AtomicU32 {
        self.0.word.word()
    }

    /// Runs `section` as entry `me`, of a generation; `is_gone` is asked about others. Or says whose it is.
    pub fn lock_until<R>(
        &self,
        me: (u32, u64),
        deadline_ns: u64,
        is_gone: impl Fn((u32, u64)) -> bool,
        section: impl FnOnce(bool) -> R,
    ) -> Result<R, Option<u32>> {
        let is_gone = |owner: Owner| is_gone((owner.entry().unwrap_or(0), owner.generation()));
        let me = Owner::new(EntryIndex(me.0), me.1);
        self.0.lock_until(me, deadline_ns, is_gone, section).map_err(|Busy(owner)| owner.entry())
    }
}

/// Runs `section` with the recovery lock of a publisher's topic, or gives up after a second.
pub fn with_lock_of<T: Payload + ?Sized, R>(
    publisher: &Publisher<T>,
    section: impl FnOnce() -> R,
) -> Option<R> {
    let deadline_ns = clock::monotonic_ns() + 1_000_000_000;
    sweep::lock_until(publisher.participant(), deadline_ns, |_| section()).ok()
}

/// How often this process has asked the kernel for a subscriber's lease to sweep.
pub fn asked() -> u64 {
    sweep::ASKED.load(core::sync::atomic::Ordering::Relaxed)
}
