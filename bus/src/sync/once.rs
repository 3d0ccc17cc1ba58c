//! A value among processes that is made once.
#![allow(unsafe_code)] // the data of whoever makes it, and of all when it is made

use std::fmt;
use std::ptr::NonNull;
use std::time::Duration;

use bytemuck::Pod;

use crate::directory::Directory;
use crate::sync::error::{SyncCreateError, SyncOpenError, WaitError};
use crate::sync::lock::{self, Step};
use crate::sync::maker;
use crate::sync::member::Member;
use crate::sync::object::{Initial, Object, Shape, SyncKind, SyncOptions};
use crate::sync::opening::opening;
use crate::wait::deadline_ns;

/// A `T` in shared memory that one process makes and all read.
///
/// ```
/// use shmbus::sync::{OnceCell, SyncOptions};
/// # let directory = tempfile::tempdir_in("/dev/shm")?;
/// # let directory = shmbus::Directory::at(directory.path())?;
///
/// let options = SyncOptions::default();
/// let epoch = OnceCell::<u64>::open_or_create_in(&directory, "run/epoch", &options)?;
/// assert_eq!(epoch.get(), None);
/// assert_eq!(*epoch.get_or_init(|| 7)?, 7);
/// assert_eq!(*epoch.get_or_init(|| 8)?, 7); // in any process
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What it promises
/// - Exactly one initialiser completes; whoever gets the value sees it whole, and it stays as it is.
/// - One at a time runs. If it dies, or panics, or fails, another one that waits or comes runs its own.
///
/// A handle belongs to its thread. One load when the value is there. An initialiser that calls for the same handle's value is [`WaitError::AlreadyHeld`]; for that of another
/// handle in its own thread it waits for ever.
pub struct OnceCell<T: Pod> {
    member: Member,
    /// The data, in the member's region.
    data: NonNull<T>,
}

impl<T: Pod> OnceCell<T> {
    const SHAPE: Shape = Shape::of::<T>(SyncKind::Once, true);

    opening!("cell", (), Initial::default());

    fn join(object: Object) -> Result<Self, SyncOpenError> {
        let name = object.name.clone();
        let member = Member::join(object, lock::give_back)?;
        let data = member.seat.region.data();
        let data = data.ok_or(SyncOpenError::Header { name, field: "data_size" })?;
        Ok(OnceCell { member, data })
    }

    /// The value, if it is there. `None` also in a forked child.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        if self.member.is_forked() {
            return None;
        }
        if !maker::is_there(&self.member.seat.region) {
            return None;
        }
        // SAFETY: in the mapping, aligned, of a type for which every byte is valid (`SyncRegion::data`, `Shape`). It is there, so nobody writes it: by the
        // protocol, which all who may write the file are trusted to follow.
        Some(unsafe { self.data.as_ref() })
    }

    /// The value; where there is none, what `make` returns, if it comes to that. Waits for as long as another one makes it.
    ///
    /// # Errors
    /// [`WaitError::AlreadyHeld`], `Removed`, `Forked`.
    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> Result<&T, WaitError> {
        self.get_or_init_until(make, u64::MAX)
    }

    /// The same, waiting for others for `timeout` at most.
    ///
    /// # Errors
    /// As [`get_or_init`](OnceCell::get_or_init); [`WaitError::TimedOut`].
    pub fn get_or_init_timeout(
        &self,
        make: impl FnOnce() -> T,
        timeout: Duration,
    ) -> Result<&T, WaitError> {
        self.get_or_init_until(make, deadline_ns(timeout))
    }

    /// The same, waiting for others until `deadline_ns` (nanoseconds of `CLOCK_MONOTONIC`) at most.
    ///
    /// # Errors
    /// As [`get_or_init`](OnceCell::get_or_init); [`WaitError::TimedOut`].
    pub fn get_or_init_until(
        &self,
        make: impl FnOnce() -> T,
        deadline_ns: u64,
    ) -> Result<&T, WaitError> {
        self.get_or_try_init_until(|| Ok::<T, WaitError>(make()), deadline_ns)
    }

    /// The same; `make` may fail, and another one makes it then.
    ///
    /// # Errors
    /// That of `make`, which is made of a [`WaitError`] where the wait failed.
    pub fn get_or_try_init<E: From<WaitError>>(
        &self,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<&T, E> {
        self.get_or_try_init_until(make, u64::MAX)
    }

    /// The same, waiting for others until `deadline_ns` (nanoseconds of `CLOCK_MONOTONIC`) at most.
    ///
    /// # Errors
    /// As [`get_or_try_init`](OnceCell::get_or_try_init); [`WaitError::TimedOut`].
    pub fn get_or_try_init_until<E: From<WaitError>>(
        &self,
        make: impl FnOnce() -> Result<T, E>,
        deadline_ns: u64,
    ) -> Result<&T, E> {
        if self.member.is_forked() {
            return Err(WaitError::Forked.into());
        }
        if let Some(value) = self.get() {
            return Ok(value);
        }
        let is_another = || self.member.is_forked();
        let written = maker::make(&self.member.seat, deadline_ns, is_another, || {
            let value: T = make()?;
            if self.member.is_forked() {
                return Err(E::from(WaitError::Forked)); // `make` has forked, and this is the child
            }
            // SAFETY: in the mapping and aligned, as in `get`. Nobody reads it before it is there, and nobody else writes it: this handle has the lock.
            unsafe { self.data.write(value) };
            Ok(())
        })?;
        match written {
            Step::Locked { .. } => self.get().ok_or_else(|| WaitError::Removed.into()),
            // It may be there all the same: another one that only looks has the lock.
            Step::Held(_) | Step::TimedOut => self.get().ok_or_else(|| WaitError::TimedOut.into()),
            Step::AlreadyHeld => Err(WaitError::AlreadyHeld.into()),
            Step::NotRecoverable => Err(WaitError::NotRecoverable.into()),
            Step::Removed => Err(WaitError::Removed.into()),
        }
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for OnceCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnceCell").field(&self.get()).finish()
    }
}
