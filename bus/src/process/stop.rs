//! The wish that a child stop: a pipe whose other end the supervisor closes, or loses with its life.

use std::env;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use shmbus_sys::ready;
use shmbus_sys::spawn::{self, FileId, Inherited};

use super::{described, read_description};

const STOP: &str = "SHMBUS_STOP";

/// Gives a child the end of a pipe that tells it to stop. Dropping the other end, which this returns, is the wish.
pub(super) fn give(command: &mut Command) -> io::Result<OwnedFd> {
    let (theirs, ours) = ready::pipe()?;
    let number = spawn::inherit(command, theirs.as_fd())?;
    command.env(STOP, described(number, FileId::of(theirs.as_fd())?));
    Ok(ours)
}

/// In a child of a [`Supervisor`](super::Supervisor): whether it is to stop, before a signal says so. See [`Stop`](super::Stop).
///
/// ```no_run
/// # fn work() {}
/// let stop = shmbus::process::StopRequest::from_env()?;
/// while !stop.is_requested() {
///     work();
/// }
/// # Ok::<(), shmbus::process::StopError>(())
/// ```
///
/// It can be polled too ([`AsFd`]): ready to be read means stop. A wish is never taken back. When the supervisor is gone it reads as stop.
#[derive(Debug)]
pub struct StopRequest(OwnedFd);

/// A process cannot learn whether it is to stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StopError {
    /// No supervisor started it: `SHMBUS_STOP` is not set.
    #[error("no supervisor started this process (SHMBUS_STOP is not set)")]
    NotSupervised,
    /// The variable is not one that a supervisor wrote, or its descriptor is not that one, as in a grandchild.
    #[error(
        "SHMBUS_STOP is {value:?}, which is not a descriptor that a supervisor gave to this process"
    )]
    Foreign {
        /// As it is set.
        value: String,
    },
    /// The kernel refused.
    #[error("cannot take the descriptor that says when to stop")]
    Io(#[from] io::Error),
}

impl StopRequest {
    /// What the supervisor that started this process gave it. It may be called again.
    ///
    /// # Errors
    /// See [`StopError`].
    pub fn from_env() -> Result<StopRequest, StopError> {
        let value = env::var_os(STOP).ok_or(StopError::NotSupervised)?;
        let value = value.to_string_lossy().into_owned();
        let Some((number, id)) = read_description(&value) else {
            return Err(StopError::Foreign { value });
        };
        match spawn::take_inherited(number, id) {
            Ok(Inherited::Taken(pipe)) => Ok(StopRequest(pipe)),
            Ok(Inherited::Other) => Err(StopError::Foreign { value }),
            Err(error) if error.raw_os_error() == Some(9) => Err(StopError::Foreign { value }), // EBADF
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the process is to stop. One system call; where the kernel cannot be asked, true.
    pub fn is_requested(&self) -> bool {
        self.wait_until_ns(Some(0))
    }

    /// Sleeps until the process is to stop.
    pub fn wait(&self) {
        self.wait_until_ns(None);
    }

    /// Sleeps until the process is to stop, or for `timeout`. Whether it is to stop.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        self.wait_until_ns(Some(shmbus_sys::clock::monotonic_ns().saturating_add(timeout_ns)))
    }

    fn wait_until_ns(&self, deadline_ns: Option<u64>) -> bool {
        ready::wait(&[self.as_fd()], deadline_ns).map_or(true, |ready| ready.contains(&true))
    }
}

impl AsFd for StopRequest {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
