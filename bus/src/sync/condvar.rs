//! Waiting under a mutex for what somebody else does under it.
//!
//! ```text
//! word:    notices << 1 | somebody may sleep
//! wait:    the mutex is locked, and the condition says: wait
//!          word |= somebody; unlock; sleep while the word is as it was; lock; look again
//!          woken, and gone without a look (its time is over, or it is told of a death): notify one
//! notify:  nobody may sleep? nothing. Else raise the word (for all: without the bit), and wake
//! ```
//!
//! Who changes what a condition is about does it under the mutex, after who waits has set the bit: so it sees the bit, in the order of the mutex.
//! Who sleeps watches the members of the *mutex*: if one of them dies, be it a notifier on its way, somebody wakes, and sees to it.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use bytemuck::Pod;
use shmbus_sys::fork;
use shmbus_sys::lease::Lease;

use crate::directory::{Directory, LIVE};
use crate::layout::ENTRY_LEASES;
use crate::sync::error::{LockError, SyncCreateError, SyncOpenError, WaitError};
use crate::sync::mutex::{MutexGuard, RobustMutex};
use crate::sync::notice::{self, Vain};
use crate::sync::object::{Initial, Object, Shape, SyncKind, SyncOptions, refused_in};
use crate::sync::region::SyncRegion;
use crate::sync::wait::Vigil;
use crate::wait::deadline_ns;

/// A condition variable in shared memory: sleeping until what a [`RobustMutex`] protects is as it is waited for.
///
/// It has a name of its own and no members: handles may be shared by threads. Each has a descriptor, by whose lock everybody can see that it is in use. Always use one with the same mutex. There is no wait without a condition: that a
/// wake-up came of a death, or of nothing, cannot be seen.
///
/// ```
/// use shmbus::sync::{Condvar, RobustMutex, SyncOptions};
///
/// # let directory = tempfile::tempdir_in("/dev/shm")?;
/// # let directory = shmbus::Directory::at(directory.path())?;
/// let options = SyncOptions::default();
/// let jobs = RobustMutex::open_or_create_in(&directory, "jobs/waiting", &options, 0u64)?;
/// let more = Condvar::open_or_create_in(&directory, "jobs/more", &options)?;
/// # std::thread::scope(|scope| {
/// # scope.spawn(|| -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// # let jobs = RobustMutex::<u64>::open_in(&directory, "jobs/waiting")?;
///
/// // A producer, in any process:
/// *jobs.lock().map_err(|error| error.to_string())? += 1;
/// more.notify_one();
/// # Ok(()) });
///
/// // A consumer, in any process:
/// let waiting = jobs.lock().map_err(|error| error.to_string())?;
/// let mut waiting = more.wait_while(waiting, |waiting| *waiting == 0).map_err(|error| error.to_string())?;
/// *waiting -= 1;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Condvar {
    region: SyncRegion,
    fork_generation: u32,
    /// Shared with all other handles: says that somebody has it open.
    _lease: Lease,
}

const SHAPE: Shape = Shape::of::<()>(SyncKind::Condvar, false);

/// What a wait returns.
type Waited<'a, T> = Result<MutexGuard<'a, T>, LockError<MutexGuard<'a, T>>>;

impl Condvar {
    /// Creates the condition variable `name` in [`Directory::from_env`]. Of the options it has `mode` only.
    ///
    /// # Errors
    /// See [`SyncCreateError`]; [`SyncCreateError::Exists`] where there is an object of that name.
    pub fn create(name: &str, options: &SyncOptions) -> Result<Condvar, SyncCreateError> {
        Condvar::create_in(&Directory::from_env()?, name, options)
    }

    /// Opens the condition variable `name` in [`Directory::from_env`].
    ///
    /// # Errors
    /// See [`SyncOpenError`].
    pub fn open(name: &str) -> Result<Condvar, SyncOpenError> {
        Condvar::open_in(&Directory::from_env()?, name)
    }

    /// Opens the condition variable `name` in [`Directory::from_env`], or creates it.
    ///
    /// # Errors
    /// See [`SyncCreateError`].
    pub fn open_or_create(name: &str, options: &SyncOptions) -> Result<Condvar, SyncCreateError> {
        Condvar::open_or_create_in(&Directory::from_env()?, name, options)
    }

    /// [`Condvar::create`] in a directory of choice.
    ///
    /// # Errors
    /// As [`Condvar::create`].
    pub fn create_in(
        directory: &Directory,
        name: &str,
        options: &SyncOptions,
    ) -> Result<Condvar, SyncCreateError> {
        let object = Object::create(directory, name, options, &SHAPE, &Initial::default())?;
        Condvar::of(object).map_err(SyncCreateError::Open)
    }

    /// [`Condvar::open`] in a directory of choice.
    ///
    /// # Errors
    /// As [`Condvar::open`].
    pub fn open_in(directory: &Directory, name: &str) -> Result<Condvar, SyncOpenError> {
        Condvar::of(Object::open(directory, name, &SHAPE)?)
    }

    /// [`Condvar::open_or_create`] in a directory of choice.
    ///
    /// # Errors
    /// As [`Condvar::open_or_create`].
    pub fn open_or_create_in(
        directory: &Directory,
        name: &str,
        options: &SyncOptions,
    ) -> Result<Condvar, SyncCreateError> {
        let initial = Initial::default();
        Object::open_or_create(directory, name, options, &SHAPE, &initial, Condvar::of)
    }

    fn of(object: Object) -> Result<Condvar, SyncOpenError> {
        let Object { name, region, directory, .. } = object;
        let failed = |source| refused_in(&name, &directory, "share the lease", source);
        let lease = Lease::open_at(directory.as_fd(), LIVE).map_err(failed)?;
        if !lease.share(ENTRY_LEASES).map_err(failed)? {
            return Err(failed(io::ErrorKind::WouldBlock.into())); // by nobody who follows the protocol
        }
        match region.control().main.0.joins.join() {
            true => Ok(Condvar { region, fork_generation: fork::generation(), _lease: lease }),
            false => Err(SyncOpenError::Removed { name }),
        }
    }

    /// Waits while `condition` is true of what `guard` protects. It is called under the lock, at least once.
    ///
    /// # Errors
    /// As [`RobustMutex::lock`], which is how each wait ends: also [`LockError::OwnerDied`], without a look at the condition. [`WaitError::Removed`] also where
    /// this condition variable was removed.
    pub fn wait_while<'a, T: Pod>(
        &self,
        guard: MutexGuard<'a, T>,
        condition: impl FnMut(&mut T) -> bool,
    ) -> Waited<'a, T> {
        self.wait_while_until(guard, condition, u64::MAX)
    }

    /// The same, for `timeout` at most.
    ///
    /// # Errors
    /// As [`Condvar::wait_while`]; [`WaitError::TimedOut`], and the mutex is not locked any more.
    pub fn wait_while_timeout<'a, T: Pod>(
        &self,
        guard: MutexGuard<'a, T>,
        condition: impl FnMut(&mut T) -> bool,
        timeout: Duration,
    ) -> Waited<'a, T> {
        self.wait_while_until(guard, condition, deadline_ns(timeout))
    }

    /// The same, until `deadline_ns` (nanoseconds of `CLOCK_MONOTONIC`) at most.
    ///
    /// # Errors
    /// As [`Condvar::wait_while`]; [`WaitError::TimedOut`], and the mutex is not locked any more.
    pub fn wait_while_until<'a, T: Pod>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
        deadline_ns: u64,
    ) -> Waited<'a, T> {
        let mutex: &'a RobustMutex<T> = MutexGuard::mutex(&guard);
        if self.is_forked() {
            return Err(WaitError::Forked.into());
        }
        if !condition(&mut guard) {
            return Ok(guard);
        }
        let mut vigil = Vigil::new(mutex.seat());
        loop {
            let expected = notice::expect(mutex.seat(), &self.region);
            drop(guard);
            let slept = notice::sleep(&mut vigil, &self.region, expected, deadline_ns);
            let woken = slept.map_err(|vain| match vain {
                Vain::Removed => WaitError::Removed,
                Vain::TimedOut => WaitError::TimedOut,
            })?;
            // Without the lock in time, or told of a death, it has not looked: the notice goes to another one.
            guard = mutex.lock_until(deadline_ns)?;
            let waits = condition(&mut guard);
            woken.looked();
            if !waits {
                break;
            }
        }
        Ok(guard)
    }

    /// Wakes one of those who wait, if there is one. One load where nobody waits; call it with the mutex locked, or after that.
    pub fn notify_one(&self) {
        if !self.is_forked() {
            notice::give(&self.region, false);
        }
    }

    /// Wakes all who wait. One load where nobody waits; call it with the mutex locked, or after that.
    pub fn notify_all(&self) {
        if !self.is_forked() {
            notice::give(&self.region, true);
        }
    }

    fn is_forked(&self) -> bool {
        self.fork_generation != fork::generation()
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").finish_non_exhaustive()
    }
}
