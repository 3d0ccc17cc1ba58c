//! A lock among processes that many can have for reading, with the data that it protects.
#![allow(unsafe_code)] // the data of whoever has the lock

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::time::Duration;

use bytemuck::Pod;

use crate::directory::Directory;
use crate::sync::error::{LockError, SyncCreateError, SyncOpenError, WaitError};
use crate::sync::lock::{self, Step};
use crate::sync::member::Member;
use crate::sync::object::{Initial, Object, Shape, SyncKind, SyncOptions};
use crate::sync::opening::opening;
use crate::sync::rw::{self, Read};
use crate::wait::deadline_ns;

/// What writing returns.
type Written<'a, T> = Result<WriteGuard<'a, T>, LockError<WriteGuard<'a, T>>>;

/// A `T` in shared memory that either one writes or any number read.
///
/// ```
/// use shmbus::sync::{LockError, RwLock, SyncOptions};
/// # let directory = tempfile::tempdir_in("/dev/shm")?;
/// # let directory = shmbus::Directory::at(directory.path())?;
///
/// let options = SyncOptions::default();
/// let limits = RwLock::open_or_create_in(&directory, "risk/limits", &options, [100u64, 100])?;
/// match limits.write() {
///     Ok(mut limits) => *limits = [90, 90],
///     Err(LockError::OwnerDied(mut limits)) => {
///         *limits = [0, 0]; // the last writer died: whatever makes it right again
///         limits.mark_consistent();
///     }
///     Err(LockError::Failed(error)) => return Err(error.into()),
/// }
/// assert_eq!(*limits.read()?, [90, 90]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What it promises
/// - No reader and no other writer while one writes.
/// - A reader that dies reads no more: writers go on. A writer that dies is told of: readers get [`WaitError::WriterDied`], until one who writes has got
///   [`LockError::OwnerDied`] and said [`mark_consistent`](WriteGuard::mark_consistent). A panic of a writer counts as its death.
/// - A writer that waits lets no new reader in: readers cannot starve it, however many they are and however often they try. **Writers can starve readers**, by writing,
///   or waiting to write, without a break, and each other: who comes may pass those who wait. A writer that is stopped while it waits keeps new readers out until it goes
///   on; one that is killed then counts as one that died writing.
///
/// A handle that reads may read again at any time, as it is in already: one whose guards overlap without a break never ends reading. One that writes cannot read, and one that reads cannot write: [`WaitError::AlreadyHeld`].
///
/// A handle belongs to its thread. To read: three stores and two fences, no line that other readers write. To write: as the mutex, and a look at each member.
pub struct RwLock<T: Pod> {
    member: Member,
    /// The data, in the member's region.
    data: NonNull<T>,
}

impl<T: Pod> RwLock<T> {
    const SHAPE: Shape = Shape::of::<T>(SyncKind::RwLock, true);

    opening!("lock", (value: T = "with `value` in it"), Initial {
        data: bytemuck::bytes_of(&value),
        ..Initial::default()
    });

    fn join(object: Object) -> Result<Self, SyncOpenError> {
        let name = object.name.clone();
        let member = Member::join(object, rw::give_back)?;
        let data = member.seat.region.data();
        let data = data.ok_or(SyncOpenError::Header { name, field: "data_size" })?;
        Ok(RwLock { member, data })
    }

    /// Reads, waiting for as long as it takes.
    ///
    /// # Errors
    /// [`WaitError::WriterDied`], `NotRecoverable`, `AlreadyHeld`, `Removed`, `Forked`.
    pub fn read(&self) -> Result<ReadGuard<'_, T>, WaitError> {
        self.read_until(u64::MAX)
    }

    /// Reads if no writer has it or waits for it.
    ///
    /// # Errors
    /// As [`RwLock::read`]; [`WaitError::WouldBlock`].
    pub fn try_read(&self) -> Result<ReadGuard<'_, T>, WaitError> {
        if self.member.is_forked() {
            return Err(WaitError::Forked);
        }
        match rw::step(&self.member.seat) {
            Read::Held(_) => Err(WaitError::WouldBlock),
            read => self.reading(read),
        }
    }

    /// Reads, waiting for `timeout` at most.
    ///
    /// # Errors
    /// As [`RwLock::read`]; [`WaitError::TimedOut`].
    pub fn read_timeout(&self, timeout: Duration) -> Result<ReadGuard<'_, T>, WaitError> {
        self.read_until(deadline_ns(timeout))
    }

    /// Reads, waiting until `deadline_ns` (nanoseconds of `CLOCK_MONOTONIC`) at most.
    ///
    /// # Errors
    /// As [`RwLock::read`]; [`WaitError::TimedOut`].
    pub fn read_until(&self, deadline_ns: u64) -> Result<ReadGuard<'_, T>, WaitError> {
        if self.member.is_forked() {
            return Err(WaitError::Forked);
        }
        self.reading(rw::read(&self.member.seat, deadline_ns))
    }

    fn reading(&self, read: Read) -> Result<ReadGuard<'_, T>, WaitError> {
        Err(match read {
            Read::Reading => return Ok(ReadGuard { lock: self, this_thread: PhantomData }),
            Read::Held(_) | Read::TimedOut => WaitError::TimedOut,
            Read::AlreadyHeld => WaitError::AlreadyHeld,
            Read::WriterDied => WaitError::WriterDied,
            Read::NotRecoverable => WaitError::NotRecoverable,
            Read::Removed => WaitError::Removed,
        })
    }

    /// Writes, waiting for as long as it takes.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] with the guard; [`WaitError::NotRecoverable`], `Removed`, `AlreadyHeld`, `Forked`.
    pub fn write(&self) -> Written<'_, T> {
        self.write_until(u64::MAX)
    }

    /// Writes if nobody who lives has it. In vain, it keeps no reader out.
    ///
    /// # Errors
    /// As [`RwLock::write`]; [`WaitError::WouldBlock`]. Readers that died are not in the way.
    pub fn try_write(&self) -> Written<'_, T> {
        match self.write_until(0) {
            Err(LockError::Failed(WaitError::TimedOut)) => Err(WaitError::WouldBlock.into()),
            done => done,
        }
    }

    /// Writes, waiting for `timeout` at most.
    ///
    /// # Errors
    /// As [`RwLock::write`]; [`WaitError::TimedOut`].
    pub fn write_timeout(&self, timeout: Duration) -> Written<'_, T> {
        self.write_until(deadline_ns(timeout))
    }

    /// Writes, waiting until `deadline_ns` (nanoseconds of `CLOCK_MONOTONIC`) at most.
    ///
    /// # Errors
    /// As [`RwLock::write`]; [`WaitError::TimedOut`].
    pub fn write_until(&self, deadline_ns: u64) -> Written<'_, T> {
        if self.member.is_forked() {
            return Err(WaitError::Forked.into());
        }
        Err(match rw::write(&self.member.seat, deadline_ns) {
            Step::Locked { owner_died } => {
                let guard = WriteGuard {
                    lock: self,
                    is_inconsistent: owner_died,
                    panicked: std::thread::panicking(),
                    this_thread: PhantomData,
                };
                return if owner_died { Err(LockError::OwnerDied(guard)) } else { Ok(guard) };
            }
            Step::Held(_) | Step::TimedOut => WaitError::TimedOut,
            Step::AlreadyHeld => WaitError::AlreadyHeld,
            Step::NotRecoverable => WaitError::NotRecoverable,
            Step::Removed => WaitError::Removed,
        }
        .into())
    }
}

impl<T: Pod> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLock").finish_non_exhaustive()
    }
}

/// Nobody writes while it lives.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct ReadGuard<'a, T: Pod> {
    lock: &'a RwLock<T>,
    this_thread: PhantomData<*mut T>,
}

impl<T: Pod> Deref for ReadGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: in the mapping, aligned, of a type for which every byte is valid (`SyncRegion::data`, `Shape`). Nobody writes it, for this handle
        // reads: by the protocol, which all who may write the file are trusted to follow.
        unsafe { self.lock.data.as_ref() }
    }
}

impl<T: Pod> Drop for ReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if !self.lock.member.is_forked() {
            rw::leave(&self.lock.member.seat);
        }
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for ReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// Nobody else reads or writes while it lives.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct WriteGuard<'a, T: Pod> {
    lock: &'a RwLock<T>,
    /// The data may be half written, and nobody has said otherwise.
    is_inconsistent: bool,
    /// A panic was on its way already.
    panicked: bool,
    this_thread: PhantomData<*mut T>,
}

impl<T: Pod> WriteGuard<'_, T> {
    /// After [`LockError::OwnerDied`]: the data is as it should be again. Otherwise nothing. A guard that is dropped without it gives the data up, for ever.
    pub fn mark_consistent(&mut self) {
        if self.is_inconsistent {
            self.is_inconsistent = false;
            lock::mark_consistent(&self.lock.member.seat);
        }
    }
}

impl<T: Pod> Deref for WriteGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: as in `ReadGuard::deref`: this handle writes, so nobody else does.
        unsafe { self.lock.data.as_ref() }
    }
}

impl<T: Pod> DerefMut for WriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        let mut data = self.lock.data;
        // SAFETY: as in `deref`, and nobody reads it; one guard of a handle at a time (`AlreadyHeld`).
        unsafe { data.as_mut() }
    }
}

impl<T: Pod> Drop for WriteGuard<'_, T> {
    fn drop(&mut self) {
        let member = &self.lock.member;
        if member.is_forked() {
            return; // the lock is the parent's
        }
        if std::thread::panicking() && !self.panicked {
            lock::leave_inconsistent(&member.seat);
        } else if self.is_inconsistent {
            return lock::give_up(&member.seat);
        }
        lock::unlock(&member.seat);
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for WriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
