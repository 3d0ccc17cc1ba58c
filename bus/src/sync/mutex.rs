//! A mutex among processes, with the data that it protects.
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
use crate::sync::seat::Seat;
use crate::wait::deadline_ns;

/// What locking returns.
type Locked<'a, T> = Result<MutexGuard<'a, T>, LockError<MutexGuard<'a, T>>>;

/// A mutex in shared memory with a `T` in it. If its owner dies, exactly one of those who wait or come gets it with the news.
///
/// ```
/// use bytemuck::{Pod, Zeroable};
/// use shmbus::sync::{LockError, RobustMutex, SyncOptions};
///
/// #[derive(Clone, Copy, Pod, Zeroable)]
/// #[repr(C)]
/// struct Account { balance: i64, entries: u64 }
///
/// # let directory = tempfile::tempdir_in("/dev/shm")?;
/// # let directory = shmbus::Directory::at(directory.path())?;
/// # let options = SyncOptions::default();
/// let new = Account { balance: 0, entries: 0 };
/// # let _ = || -> Result<(), Box<dyn std::error::Error>> {
/// let account = RobustMutex::open_or_create("bank/account", &SyncOptions::default(), new)?;
/// # Ok(()) };
/// # let account = RobustMutex::open_or_create_in(&directory, "bank/account", &options, new)?;
/// let mut account = match account.lock() {
///     Ok(account) => account,
///     Err(LockError::OwnerDied(mut account)) => {
///         account.entries = 0; // whatever makes it right again
///         account.mark_consistent();
///         account
///     }
///     Err(LockError::Failed(error)) => return Err(error.into()),
/// };
/// account.balance += 10;
/// account.entries += 1;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Who has it
/// A guard, of one handle, of one thread; it ends with the guard, or with the process. Of its owner's *thread* that ends while its process lives, the lock
/// is not given away: its data may be in another thread's hands. A guard that is forgotten keeps the lock until its handle is dropped, and then leaves it as the
/// dead do. An exec is the end of a process; a forked child has nothing of it, its handles answer [`WaitError::Forked`]. An owner that is stopped is waited for.
///
/// A panic while it is locked leaves what it protects to the next one as a death does.
///
/// Two handles of one mutex in one thread are two owners: the second one that locks waits for the first, for ever. Locking twice with one handle is
/// [`WaitError::AlreadyHeld`].
///
/// Neither handle nor guard goes to another thread:
///
/// ```compile_fail,E0277
/// # use shmbus::sync::RobustMutex;
/// fn handle(mutex: RobustMutex<u64>) {
///     std::thread::spawn(move || drop(mutex));
/// }
/// ```
/// ```compile_fail,E0277
/// # use shmbus::sync::RobustMutex;
/// fn guard(mutex: &RobustMutex<u64>) {
///     let guard = mutex.lock().unwrap();
///     std::thread::scope(|scope| { scope.spawn(|| drop(guard)); });
/// }
/// ```
/// Nobody unlocks but by dropping the guard, and what it protects is not to be had behind that:
///
/// ```compile_fail,E0505
/// # use shmbus::sync::RobustMutex;
/// fn late(mutex: &RobustMutex<u64>) -> u64 {
///     let guard = mutex.lock().unwrap();
///     let value = &*guard;
///     drop(guard);
///     *value
/// }
/// ```
///
/// # Cost
/// Locked by nobody else: one exchange to lock and one to unlock, no system call. Waiting: after one `sched_yield`, a `futex_waitv` of as many words as
/// there are members and two more.
pub struct RobustMutex<T: Pod> {
    member: Member,
    /// The data, in the member's region.
    data: NonNull<T>,
}

impl<T: Pod> RobustMutex<T> {
    /// Creates the mutex `name` in [`Directory::from_env`] with `value` in it, and opens it.
    ///
    /// # Errors
    /// See [`SyncCreateError`]; [`SyncCreateError::Exists`] where there is an object of that name.
    pub fn create(name: &str, options: &SyncOptions, value: T) -> Result<Self, SyncCreateError> {
        Self::create_in(&Directory::from_env()?, name, options, value)
    }

    /// Opens the mutex `name` in [`Directory::from_env`].
    ///
    /// # Errors
    /// See [`SyncOpenError`]. Compared are size and alignment of `T`, and no more.
    pub fn open(name: &str) -> Result<Self, SyncOpenError> {
        Self::open_in(&Directory::from_env()?, name)
    }

    /// Opens the mutex `name` in [`Directory::from_env`], or creates it with `value` in it.
    ///
    /// # Errors
    /// See [`SyncCreateError`]; [`SyncCreateError::Open`] where it exists and cannot be opened.
    pub fn open_or_create(
        name: &str,
        options: &SyncOptions,
        value: T,
    ) -> Result<Self, SyncCreateError> {
        Self::open_or_create_in(&Directory::from_env()?, name, options, value)
    }

    /// [`RobustMutex::create`] in a directory of choice.
    ///
    /// # Errors
    /// As [`RobustMutex::create`].
    pub fn create_in(
        directory: &Directory,
        name: &str,
        options: &SyncOptions,
        value: T,
    ) -> Result<Self, SyncCreateError> {
        let initial = Initial { data: bytemuck::bytes_of(&value), ..Initial::default() };
        let object = Object::create(directory, name, options, &Self::SHAPE, &initial)?;
        Self::join(object).map_err(SyncCreateError::Open)
    }

    /// [`RobustMutex::open`] in a directory of choice.
    ///
    /// # Errors
    /// As [`RobustMutex::open`].
    pub fn open_in(directory: &Directory, name: &str) -> Result<Self, SyncOpenError> {
        Self::join(Object::open(directory, name, &Self::SHAPE)?)
    }

    /// [`RobustMutex::open_or_create`] in a directory of choice.
    ///
    /// # Errors
    /// As [`RobustMutex::open_or_create`].
    pub fn open_or_create_in(
        directory: &Directory,
        name: &str,
        options: &SyncOptions,
        value: T,
    ) -> Result<Self, SyncCreateError> {
        let initial = Initial { data: bytemuck::bytes_of(&value), ..Initial::default() };
        Object::open_or_create(directory, name, options, &Self::SHAPE, &initial, Self::join)
    }

    const SHAPE: Shape = Shape::of::<T>(SyncKind::Mutex, true);

    fn join(object: Object) -> Result<Self, SyncOpenError> {
        let name = object.name.clone();
        let member = Member::join(object, lock::give_back)?;
        let data = member.seat.region.data();
        let data = data.ok_or(SyncOpenError::Header { name, field: "data_size" })?;
        Ok(RobustMutex { member, data })
    }

    /// Locks, waiting for as long as it takes.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] with the guard; [`WaitError::NotRecoverable`], `Removed`, `AlreadyHeld`, `Forked`.
    #[inline]
    pub fn lock(&self) -> Locked<'_, T> {
        self.lock_until(u64::MAX)
    }

    /// Locks if nobody who lives has it.
    ///
    /// # Errors
    /// As [`RobustMutex::lock`]; [`WaitError::WouldBlock`] where somebody has it.
    #[inline]
    pub fn try_lock(&self) -> Locked<'_, T> {
        if self.member.is_forked() {
            return Err(WaitError::Forked.into());
        }
        match lock::step(&self.member.seat, false) {
            Step::Held(_) => Err(WaitError::WouldBlock.into()),
            step => self.locked(step),
        }
    }

    /// Locks, waiting for `timeout` at most.
    ///
    /// # Errors
    /// As [`RobustMutex::lock`]; [`WaitError::TimedOut`].
    pub fn lock_timeout(&self, timeout: Duration) -> Locked<'_, T> {
        self.lock_until(deadline_ns(timeout))
    }

    /// Locks, waiting until `deadline_ns` (nanoseconds of `CLOCK_MONOTONIC`) at most.
    ///
    /// # Errors
    /// As [`RobustMutex::lock`]; [`WaitError::TimedOut`].
    #[inline]
    pub fn lock_until(&self, deadline_ns: u64) -> Locked<'_, T> {
        if self.member.is_forked() {
            return Err(WaitError::Forked.into());
        }
        self.locked(lock::lock(&self.member.seat, deadline_ns))
    }

    /// [`RobustMutex::lock`], and `repair` where its last owner died: the data is marked consistent behind it.
    ///
    /// # Errors
    /// [`WaitError::NotRecoverable`], `Removed`, `AlreadyHeld`, `Forked`.
    pub fn lock_or_repair(
        &self,
        repair: impl FnOnce(&mut T),
    ) -> Result<MutexGuard<'_, T>, WaitError> {
        match self.lock() {
            Ok(guard) => Ok(guard),
            Err(LockError::OwnerDied(mut guard)) => {
                repair(&mut guard);
                guard.mark_consistent();
                Ok(guard)
            }
            Err(LockError::Failed(error)) => Err(error),
        }
    }

    pub(crate) fn seat(&self) -> &Seat {
        &self.member.seat
    }

    #[inline]
    fn locked(&self, step: Step) -> Locked<'_, T> {
        Err(match step {
            Step::Locked { owner_died } => {
                let guard = MutexGuard {
                    mutex: self,
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

impl<T: Pod> fmt::Debug for RobustMutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RobustMutex").finish_non_exhaustive()
    }
}

/// The lock. Dropped, it is given back.
pub struct MutexGuard<'a, T: Pod> {
    mutex: &'a RobustMutex<T>,
    /// The data may be half written, and nobody has said otherwise.
    is_inconsistent: bool,
    /// A panic was on its way already.
    panicked: bool,
    this_thread: PhantomData<*mut T>,
}

impl<'a, T: Pod> MutexGuard<'a, T> {
    pub(crate) fn mutex(guard: &MutexGuard<'a, T>) -> &'a RobustMutex<T> {
        guard.mutex
    }

    /// After [`LockError::OwnerDied`]: the data is as it should be again. Otherwise nothing.
    pub fn mark_consistent(&mut self) {
        if self.is_inconsistent {
            self.is_inconsistent = false;
            lock::mark_consistent(&self.mutex.member.seat);
        }
    }
}

impl<T: Pod> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: in the mapping, aligned, of a type for which every byte is valid (`SyncRegion::data`, `Shape`). Nobody else writes it, for this handle
        // has the lock: by the protocol, which all who may write the file are trusted to follow.
        unsafe { self.mutex.data.as_ref() }
    }
}

impl<T: Pod> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        let mut data = self.mutex.data;
        // SAFETY: as in `deref`, and nobody else reads it; one guard of a handle at a time.
        unsafe { data.as_mut() }
    }
}

impl<T: Pod> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        let member = &self.mutex.member;
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

impl<T: Pod + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
