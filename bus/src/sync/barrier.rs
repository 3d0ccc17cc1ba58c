//! A place where processes wait for each other.

use std::fmt;
use std::time::Duration;

use crate::directory::Directory;
use crate::sync::error::{SyncCreateError, SyncOpenError, WaitError};
use crate::sync::gather::{self, Gathered};
use crate::sync::member::Member;
use crate::sync::object::{Initial, Object, Shape, SyncKind, SyncOptions};
use crate::sync::opening::opening;
use crate::wait::deadline_ns;

/// A number of parties in shared memory that go on together, again and again.
///
/// ```
/// use shmbus::sync::{Barrier, SyncOptions};
/// # let directory = tempfile::tempdir_in("/dev/shm")?;
/// # let directory = shmbus::Directory::at(directory.path())?;
///
/// let options = SyncOptions::default();
/// let start = Barrier::open_or_create_in(&directory, "plant/start", &options, 1)?;
/// if start.wait()? {
///     // the last one to arrive: exactly one of them
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What it promises
/// - Nobody passes before as many as it has parties have arrived, and then all of them do; what each did before it arrived they see.
/// - **A member that dies breaks it**, whether or not it had arrived: who waits, and who comes, gets [`WaitError::Broken`] instead of waiting for the dead, until somebody calls
///   [`reset`](Barrier::reset). A handle that is dropped breaks nothing: its party is missing until another one comes.
/// - Who times out has not arrived: the others wait for one more.
///
/// A handle belongs to its thread, and is one party. Two exchanges and a `futex_waitv` per wait.
pub struct Barrier {
    member: Member,
    parties: u32,
}

impl Barrier {
    const SHAPE: Shape = Shape::of::<()>(SyncKind::Barrier, true);

    opening!("barrier", (parties: u32 = "for `parties` parties (1 to as many as it can have members)"), Initial {
        parameter: parties.into(),
        ..Initial::default()
    });

    fn join(object: Object) -> Result<Barrier, SyncOpenError> {
        let parties = object.header.parameter as u32; // checked: at most `members_max`
        Ok(Barrier { member: Member::join(object, gather::give_back)?, parties })
    }

    /// How many it waits for.
    pub fn parties(&self) -> u32 {
        self.parties
    }

    /// Waits until all have arrived. `true` for one of them, the last.
    ///
    /// # Errors
    /// [`WaitError::Broken`], `Removed`, `Forked`.
    pub fn wait(&self) -> Result<bool, WaitError> {
        self.wait_until(u64::MAX)
    }

    /// The same, for `timeout` at most.
    ///
    /// # Errors
    /// As [`wait`](Barrier::wait); [`WaitError::TimedOut`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool, WaitError> {
        self.wait_until(deadline_ns(timeout))
    }

    /// The same, until `deadline_ns` (nanoseconds of `CLOCK_MONOTONIC`) at most.
    ///
    /// # Errors
    /// As [`wait`](Barrier::wait); [`WaitError::TimedOut`].
    pub fn wait_until(&self, deadline_ns: u64) -> Result<bool, WaitError> {
        self.is_usable()?;
        match gather::wait(&self.member.seat, self.parties.into(), deadline_ns) {
            Gathered::Passed { leader } => Ok(leader),
            Gathered::Broken => Err(WaitError::Broken),
            Gathered::TimedOut => Err(WaitError::TimedOut),
            Gathered::Removed => Err(WaitError::Removed),
        }
    }

    /// Begins anew: mends a broken barrier; who waits gets [`WaitError::Broken`]. Waits for nobody.
    ///
    /// # Errors
    /// [`WaitError::Forked`].
    pub fn reset(&self) -> Result<(), WaitError> {
        self.is_usable()?;
        gather::reset(&self.member.seat.region);
        Ok(())
    }

    /// Whether it is broken at this moment. `false` in a forked child.
    pub fn is_broken(&self) -> bool {
        !self.member.is_forked() && gather::is_broken(&self.member.seat.region)
    }

    fn is_usable(&self) -> Result<(), WaitError> {
        if self.member.is_forked() { Err(WaitError::Forked) } else { Ok(()) }
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").field("parties", &self.parties).finish_non_exhaustive()
    }
}
