//! A lock on a file, or on bytes of it, between any programs that ask for it: [`FileLock`].

use std::fs::File;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use shmbus_sys::fork;
pub use shmbus_sys::record::{Conflict as FileConflict, Kind as FileLockKind};
use shmbus_sys::record::{Kind, Records};
use shmbus_sys::shm::Access;

use crate::limits::TooManyHandles;
use crate::wait;

/// A file that can be locked, whole or in part, shared or exclusive: an *open file description* of its own, which owns what it locks
/// ([fcntl_locking(2)](https://man7.org/linux/man-pages/man2/F_OFD_SETLK.2const.html)).
///
/// ```
/// use shmbus::sync::{FileLock, FileLockKind::Exclusive};
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("ledger");
/// let mut file = FileLock::open_or_create(&path)?;
/// let guard = file.lock(Exclusive, ..)?; // the whole file, however long it gets
/// // nobody else has it, in any process
/// drop(guard);
/// let record = file.lock(Exclusive, 64..128)?; // bytes; they need not exist
/// # drop(record);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What it promises
/// - While an exclusive guard lives, no other `FileLock`, in any process or thread, has a guard on any of its bytes; while a shared one lives, none has an exclusive one.
/// - The lock ends with its guard, and with the process however it dies; with an exec; never before. A child that was forked does not keep it: there each call answers
///   [`Forked`](FileLockError::Forked), and dropping a guard does nothing.
/// - All waiting is in the kernel. A deadline costs a thread for as long as the wait, where something is in the way.
///
/// # What it does not
/// - **Keep anybody from the file who does not ask.** The locks are advisory: reading and writing go on beside them.
/// - Exclude `flock(2)`, which std's `File::lock` is: the two do not see each other, except on NFS. It does exclude locks of processes (`F_SETLK`, `lockf`). Where a
///   whole file is locked, without a deadline, and no child is forked while it is, `File::lock` does as well.
/// - Tell a successor that its predecessor died: [`RobustMutex`](crate::sync) does.
/// - Find two that wait for each other (`EDEADLK` is for locks of processes only), or serve those that wait in order: readers who follow one another closely can keep a writer waiting.
///
/// One guard at a time comes from one `FileLock`, as a description is never in its own way: for several ranges, open the file several times. Each takes a descriptor, of which there
/// can be [4096](shmbus_sys::fork::LEASES_MAX) in a process.
///
/// 1-2 us to lock and as much to unlock where nothing is in the way: two orders of magnitude more than a lock in shared memory.
#[derive(Debug)]
pub struct FileLock {
    records: Records,
    fork_generation: u32,
}

impl FileLock {
    /// Opens a regular file that exists for reading and writing. Symbolic links are followed.
    ///
    /// # Errors
    /// [`Io`](FileLockError::Io): what [open(2)](https://man7.org/linux/man-pages/man2/open.2.html) says; `InvalidInput` for what is no regular file.
    pub fn open(path: impl AsRef<Path>) -> Result<FileLock, FileLockError> {
        FileLock::of(|| Records::open(path.as_ref(), Access::ReadWrite))
    }

    /// The same; a file that is not there is made, empty, of mode 0600 less the umask.
    ///
    /// # Errors
    /// As [`open`](FileLock::open).
    pub fn open_or_create(path: impl AsRef<Path>) -> Result<FileLock, FileLockError> {
        FileLock::of(|| Records::open_or_create(path.as_ref(), 0o600))
    }

    /// The same, for reading: with permission to read, shared locks can be taken, and no others.
    ///
    /// # Errors
    /// As [`open`](FileLock::open).
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<FileLock, FileLockError> {
        FileLock::of(|| Records::open(path.as_ref(), Access::ReadOnly))
    }

    /// Opens an open file once more, for reading and writing, whatever its name is now. What `file` has locked is another owner's. Needs `/proc`.
    ///
    /// # Errors
    /// As [`open`](FileLock::open): also where the caller may not write the file.
    pub fn reopen(file: &File) -> Result<FileLock, FileLockError> {
        FileLock::of(|| Records::open_again(file.as_fd(), Access::ReadWrite))
    }

    fn of(open: impl FnOnce() -> io::Result<Records>) -> Result<FileLock, FileLockError> {
        let records = open().map_err(|source| match TooManyHandles::of(&source) {
            Some(error) => error.into(),
            None => FileLockError::Io { action: "open the file", source },
        })?;
        Ok(FileLock { records, fork_generation: fork::generation() })
    }

    /// Locks `bytes`, `..` for the whole file, and waits for it without end.
    ///
    /// # Errors
    /// [`Range`](FileLockError::Range) for no bytes or too high ones; [`Access`](FileLockError::Access), [`Forked`](FileLockError::Forked), [`Io`](FileLockError::Io).
    pub fn lock(
        &mut self,
        kind: FileLockKind,
        bytes: impl RangeBounds<u64>,
    ) -> Result<FileGuard<'_>, FileLockError> {
        match self.lock_until(kind, bytes, None) {
            // A wait without a deadline ends with the lock or an error.
            Ok(taken) => taken.ok_or(FileLockError::TimedOut),
            Err(error) => Err(error),
        }
    }

    /// The same, and waits for `timeout` at most.
    ///
    /// # Errors
    /// As [`lock`](FileLock::lock), and [`TimedOut`](FileLockError::TimedOut); `Io` also where the thread that waits cannot be started.
    pub fn lock_timeout(
        &mut self,
        kind: FileLockKind,
        bytes: impl RangeBounds<u64>,
        timeout: Duration,
    ) -> Result<FileGuard<'_>, FileLockError> {
        let taken = self.lock_until(kind, bytes, Some(wait::deadline_ns(timeout)))?;
        taken.ok_or(FileLockError::TimedOut)
    }

    /// The same, and waits until `deadline` at most; one that has passed is a try.
    ///
    /// # Errors
    /// As [`lock_timeout`](FileLock::lock_timeout).
    pub fn lock_deadline(
        &mut self,
        kind: FileLockKind,
        bytes: impl RangeBounds<u64>,
        deadline: Instant,
    ) -> Result<FileGuard<'_>, FileLockError> {
        self.lock_timeout(kind, bytes, deadline.saturating_duration_since(Instant::now()))
    }

    /// The same, and does not wait: `None` where another owner's lock is in the way.
    ///
    /// # Errors
    /// As [`lock`](FileLock::lock).
    pub fn try_lock(
        &mut self,
        kind: FileLockKind,
        bytes: impl RangeBounds<u64>,
    ) -> Result<Option<FileGuard<'_>>, FileLockError> {
        self.lock_until(kind, bytes, Some(0))
    }

    fn lock_until(
        &mut self,
        kind: FileLockKind,
        bytes: impl RangeBounds<u64>,
        deadline_ns: Option<u64>,
    ) -> Result<Option<FileGuard<'_>>, FileLockError> {
        let range = Range::new(&bytes)?;
        let taken =
            self.run(|records| records.lock(kind, range.first, range.count, deadline_ns))?;
        // A guard that is made is one that unlocks.
        Ok(taken.then(|| FileGuard { file: self, range, kind }))
    }

    /// A lock of another owner that would be in the way of such a one now: of several, any. Takes nothing.
    ///
    /// # Errors
    /// As [`lock`](FileLock::lock).
    pub fn conflict(
        &self,
        kind: FileLockKind,
        bytes: impl RangeBounds<u64>,
    ) -> Result<Option<FileConflict>, FileLockError> {
        let range = Range::new(&bytes)?;
        self.run(|records| records.conflict(kind, range.first, range.count))
    }

    fn run<R>(&self, work: impl FnOnce(&Records) -> io::Result<R>) -> Result<R, FileLockError> {
        if self.fork_generation != fork::generation() {
            return Err(FileLockError::Forked);
        }
        work(&self.records).map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => FileLockError::Access,
            _ => FileLockError::Io { action: "lock the file", source },
        })
    }
}

/// Bytes of a file are locked while it lives. It borrows the [`FileLock`]; forgotten, it leaves them locked, as [`keep`](FileGuard::keep) does.
#[derive(Debug)]
#[must_use = "the bytes are unlocked when the guard is dropped"]
pub struct FileGuard<'a> {
    file: &'a FileLock,
    range: Range,
    kind: FileLockKind,
}

impl FileGuard<'_> {
    /// What it is at the moment.
    pub fn kind(&self) -> FileLockKind {
        self.kind
    }

    /// Makes it shared: nobody gets an exclusive lock in between. It does not wait.
    ///
    /// # Errors
    /// [`Forked`](FileLockError::Forked), [`Io`](FileLockError::Io); [`Access`](FileLockError::Access) never, as every file here is open for reading.
    pub fn downgrade(&mut self) -> Result<(), FileLockError> {
        self.convert(Kind::Shared, Some(0)).map(drop)
    }

    /// Makes it exclusive, in one step: nobody had an exclusive lock since the shared one was taken. `false`: others have shared locks, and this one is as it was. (`flock(2)`
    /// gives the shared lock up then.)
    ///
    /// # Errors
    /// As [`FileLock::lock`].
    pub fn try_upgrade(&mut self) -> Result<bool, FileLockError> {
        self.convert(Kind::Exclusive, Some(0))
    }

    /// The same, and waits for others to give up their shared locks, for `timeout` at most; it stays shared meanwhile, and after
    /// [`TimedOut`](FileLockError::TimedOut). **Two that upgrade wait for each other**: there is no form without a deadline.
    ///
    /// # Errors
    /// As [`FileLock::lock_timeout`].
    pub fn upgrade_timeout(&mut self, timeout: Duration) -> Result<(), FileLockError> {
        match self.convert(Kind::Exclusive, Some(wait::deadline_ns(timeout)))? {
            true => Ok(()),
            false => Err(FileLockError::TimedOut),
        }
    }

    fn convert(
        &mut self,
        kind: FileLockKind,
        deadline_ns: Option<u64>,
    ) -> Result<bool, FileLockError> {
        let Range { first, count } = self.range;
        let converted = self.file.run(|records| records.lock(kind, first, count, deadline_ns))?;
        if converted {
            self.kind = kind;
        }
        Ok(converted)
    }

    /// Leaves the bytes locked until the [`FileLock`] is dropped, or locks and unlocks them by another guard: for a program that
    /// may run once only, and keeps its `FileLock` to its end.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for FileGuard<'_> {
    fn drop(&mut self) {
        let Range { first, count } = self.range;
        // Exactly what was locked: nothing is split, so no memory is needed. A forked child has nothing to unlock.
        _ = self.file.run(|records| records.unlock(first, count));
    }
}

/// As the kernel wants it: a count of 0 reaches to the end of any file.
#[derive(Clone, Copy, Debug)]
struct Range {
    first: u64,
    count: u64,
}

impl Range {
    fn new(bytes: &impl RangeBounds<u64>) -> Result<Range, FileLockError> {
        let (start, end) = (bytes.start_bound().cloned(), bytes.end_bound().cloned());
        let wrong = FileLockError::Range { start, end };
        let first = match start {
            Bound::Included(first) => Some(first),
            Bound::Excluded(before) => before.checked_add(1),
            Bound::Unbounded => Some(0),
        };
        let end = match end {
            Bound::Included(last) => last.checked_add(1),
            Bound::Excluded(end) => Some(end),
            Bound::Unbounded => None,
        };
        const END_MAX: u64 = i64::MAX as u64; // one behind the last byte of any file
        match (first, end) {
            (Some(first @ ..END_MAX), None) if matches!(bytes.end_bound(), Bound::Unbounded) => {
                Ok(Range { first, count: 0 })
            }
            (Some(first), Some(end @ ..=END_MAX)) if first < end => {
                Ok(Range { first, count: end - first })
            }
            _ => Err(wrong),
        }
    }
}

/// A file cannot be opened for locking, or not be locked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileLockError {
    /// No bytes, or bytes that no file can have: the last is `i64::MAX - 1`.
    #[error(
        "{start:?} to {end:?} is no range of bytes to lock: it is empty, or ends behind the last byte of any file"
    )]
    Range {
        /// As given.
        start: Bound<u64>,
        /// As given.
        end: Bound<u64>,
    },
    /// The time is over, and the lock of another owner is in the way still.
    #[error("the file was not unlocked in time")]
    TimedOut,
    /// An exclusive lock of a file that is open for reading only.
    #[error("an exclusive lock needs the file open for writing")]
    Access,
    /// This process was forked off after the file was opened: open it anew.
    #[error("opened before this process was forked")]
    Forked,
    /// The process has as many handles as it can have.
    #[error(transparent)]
    TooManyHandles(#[from] TooManyHandles),
    /// The kernel refused.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
}
