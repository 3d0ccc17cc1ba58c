//! Counting permits among processes.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use crate::atomics::now_ns;
use crate::directory::Directory;
use crate::sync::error::{SyncCreateError, SyncOpenError, WaitError};
use crate::sync::member::Member;
use crate::sync::object::{self, Initial, Object, Shape, SyncKind, SyncOptions};
use crate::sync::opening::opening;
use crate::sync::permits::{self, Asked};
use crate::wait::deadline_ns;

/// A number of permits in shared memory. A permit that its holder dies with comes back.
///
/// Two uses. **A limit** on how many do something at a time: permits are taken and given back, and their number stays.
///
/// ```
/// use shmbus::sync::{Semaphore, SyncOptions};
/// # let directory = tempfile::tempdir_in("/dev/shm")?;
/// # let directory = shmbus::Directory::at(directory.path())?;
///
/// let options = SyncOptions::default();
/// let scanners = Semaphore::open_or_create_in(&directory, "scanners", &options, 2)?;
/// let permit = scanners.acquire()?; // at most two at a time, in all processes
/// assert_eq!(scanners.value(), 1);
/// drop(permit);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// **A count of things to be done**, which one posts and another consumes, as with `sem_post` and `sem_wait`: a permit is taken for good when the thing is
/// done. Who is killed before that leaves it to another.
///
/// ```
/// # use shmbus::sync::{Semaphore, SyncOptions};
/// # let directory = tempfile::tempdir_in("/dev/shm")?;
/// # let directory = shmbus::Directory::at(directory.path())?;
/// # let options = SyncOptions::default();
/// let jobs = Semaphore::open_or_create_in(&directory, "jobs", &options, 0)?;
/// jobs.post(1)?; // in a producer
/// let job = jobs.acquire()?; // in a consumer
/// job.consume(); // done
/// assert_eq!(jobs.value(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What it promises
/// - `value` is the permits that were made, by creation and [`post`](Semaphore::post), less those consumed and those that somebody has. It is never below 0.
/// - While a permit is free, and stays so, somebody who waits gets it. Which of them is not promised.
/// - Permits of a process that died are free when it is gone: the kernel wakes one who waits, which sees to it. Who is stopped keeps them.
///
/// Taking one is a mutex inside, for a few instructions, and a look at each member: a process that is *stopped* in those makes others wait, until their deadlines. Giving back
/// waits for nobody.
///
/// A handle belongs to its thread, and may have several permits. To take and give back costs about 1.5 times what `sem_t` does, with 16 members.
pub struct Semaphore {
    member: Member,
}

impl Semaphore {
    /// Most permits that a semaphore can have.
    pub const PERMITS_MAX: u32 = object::PERMITS_MAX;

    const SHAPE: Shape = Shape::of::<()>(SyncKind::Semaphore, true);

    opening!("semaphore", (permits: u32 = "with `permits` permits (at most [`PERMITS_MAX`](Semaphore::PERMITS_MAX))"), Initial {
        value: permits.into(),
        parameter: permits.into(),
        ..Initial::default()
    });

    fn join(object: Object) -> Result<Semaphore, SyncOpenError> {
        Ok(Semaphore { member: Member::join(object, permits::give_back)? })
    }

    /// Takes a permit, waiting for as long as it takes.
    ///
    /// # Errors
    /// [`WaitError::Removed`], [`Forked`](WaitError::Forked).
    pub fn acquire(&self) -> Result<Permit<'_>, WaitError> {
        self.acquire_until(u64::MAX)
    }

    /// Takes a permit if there is one, also one of a member that has died.
    ///
    /// # Errors
    /// As [`acquire`](Semaphore::acquire); [`WaitError::WouldBlock`] where there is none, or where another process stands still, for a millisecond, in the middle
    /// of taking one.
    pub fn try_acquire(&self) -> Result<Permit<'_>, WaitError> {
        self.is_usable()?;
        match permits::try_acquire(&self.member.seat, now_ns()) {
            Asked::TimedOut => Err(WaitError::WouldBlock),
            asked => self.permit(asked),
        }
    }

    /// Takes a permit, waiting for `timeout` at most.
    ///
    /// # Errors
    /// As [`acquire`](Semaphore::acquire); [`WaitError::TimedOut`].
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<Permit<'_>, WaitError> {
        self.acquire_until(deadline_ns(timeout))
    }

    /// Takes a permit, waiting until `deadline_ns` (nanoseconds of `CLOCK_MONOTONIC`) at most.
    ///
    /// # Errors
    /// As [`acquire`](Semaphore::acquire); [`WaitError::TimedOut`].
    pub fn acquire_until(&self, deadline_ns: u64) -> Result<Permit<'_>, WaitError> {
        self.is_usable()?;
        self.permit(permits::acquire(&self.member.seat, deadline_ns))
    }

    fn permit(&self, asked: Asked) -> Result<Permit<'_>, WaitError> {
        match asked {
            Asked::Granted => Ok(Permit { semaphore: self, this_thread: PhantomData }),
            Asked::None => Err(WaitError::WouldBlock),
            Asked::TimedOut => Err(WaitError::TimedOut),
            Asked::Removed => Err(WaitError::Removed),
        }
    }

    /// Makes `count` new permits, which are free. Waits for nobody.
    ///
    /// # Errors
    /// [`PostError::Overflow`]: there would be more than [`PERMITS_MAX`](Semaphore::PERMITS_MAX), and none was made (`EOVERFLOW` of
    /// [sem_post(3)](https://man7.org/linux/man-pages/man3/sem_post.3.html)); [`PostError::Forked`].
    pub fn post(&self, count: u32) -> Result<(), PostError> {
        if self.member.is_forked() {
            return Err(PostError::Forked);
        }
        let max = Self::PERMITS_MAX;
        match permits::post(&self.member.seat.region, count.into(), max.into()) {
            true => Ok(()),
            false => Err(PostError::Overflow { max }),
        }
    }

    /// The free permits at a moment that may have passed: for people, and for tests. 0 in a forked child.
    pub fn value(&self) -> u64 {
        if self.member.is_forked() { 0 } else { permits::value(&self.member.seat.region) }
    }

    fn is_usable(&self) -> Result<(), WaitError> {
        if self.member.is_forked() { Err(WaitError::Forked) } else { Ok(()) }
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore").finish_non_exhaustive()
    }
}

/// A permit. Dropped, it is given back; forgotten (`mem::forget`), it is when its handle is dropped or its process ends.
#[must_use = "the permit is given back when it is dropped"]
pub struct Permit<'a> {
    semaphore: &'a Semaphore,
    this_thread: PhantomData<*mut ()>,
}

impl Permit<'_> {
    /// Takes it out of the world: nobody has it any more, and nobody gets it.
    pub fn consume(self) {
        if !self.semaphore.member.is_forked() {
            permits::consume(&self.semaphore.member.seat);
        }
        std::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if !self.semaphore.member.is_forked() {
            permits::release(&self.semaphore.member.seat);
        }
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

/// Permits were not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PostError {
    /// There would be too many.
    #[error("there would be more than {max} permits")]
    Overflow {
        /// Most that there can be.
        max: u32,
    },
    /// The handle was made by the process that forked this one.
    #[error("the handle belongs to the process that forked this one: open the semaphore again")]
    Forked,
}
