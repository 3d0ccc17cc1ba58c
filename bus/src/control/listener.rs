//! The socket at which a broker listens.
//!
//! What is at its path is removed only if it is a socket of this user on which nobody listens: a broker that was killed left it. That is looked at,
//! and done, under a lock on a file beside it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use shmbus_sys::clock;
use shmbus_sys::record::{Kind, Records};
use shmbus_sys::{shm, unix};

/// How many may wait to be accepted.
pub(super) const BACKLOG: i32 = 128;
/// How long a broker may take that begins to listen before another one gives up.
const START_NS: u64 = 1_000_000_000;

/// A path at which only this user and root can make and remove anything, and this process alone of all brokers while this exists.
struct Place<'a> {
    path: &'a Path,
    directory: OwnedFd,
    name: &'a OsStr,
    _lock: Records,
}

/// What is at a place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    /// Somebody listens, or is not known not to.
    Used,
    /// A socket of this user, and nobody listens.
    Unused,
    /// No socket, or one of another user.
    Foreign,
}

impl Place<'_> {
    fn take(path: &Path) -> io::Result<Place<'_>> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let directory = shm::open_directory(parent.unwrap_or(Path::new(".")))?;
        let owner = shm::owner(directory.as_fd())?;
        if (owner.uid != shm::effective_uid() && owner.uid != 0) || owner.mode & 0o022 != 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        // One after the other: of two that find a dead broker's socket, or one that is bound and does not listen yet, each would remove the other's.
        let mut beside = path.as_os_str().to_owned();
        beside.push(".lock");
        let lock = Records::open_or_create(beside.as_ref(), 0o600)?;
        let deadline_ns = clock::monotonic_ns() + START_NS;
        if !lock.lock(Kind::Exclusive, 0, 1, Some(deadline_ns))? {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        Ok(Place { path, directory, name, _lock: lock })
    }

    fn look(&self) -> io::Result<Found> {
        match unix::is_own_socket_at(self.directory.as_fd(), self.name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Ok(false) => return Ok(Found::Foreign),
            other => other?,
        };
        // The kernel refuses where nobody listens; and for a file that is no socket at all, which is why that was asked before.
        match unix::connect(self.path, Duration::from_secs(1)) {
            Err(gone) if gone.kind() == io::ErrorKind::ConnectionRefused => Ok(Found::Unused),
            _ => Ok(Found::Used),
        }
    }

    fn remove(&self) -> io::Result<()> {
        unix::remove_socket_at(self.directory.as_fd(), self.name)
    }
}

pub(super) fn listen(path: &Path) -> io::Result<OwnedFd> {
    let place = Place::take(path)?;
    match place.look()? {
        Found::Nothing => {}
        Found::Unused => place.remove()?,
        Found::Used => return Err(io::ErrorKind::AddrInUse.into()),
        Found::Foreign => {
            let told = "what is there is no socket of this user, and is left as it is";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, told));
        }
    }
    unix::listen(path, 0o666, BACKLOG)
}

pub(super) fn remove(path: &Path) -> io::Result<()> {
    let place = Place::take(path)?;
    match place.look()? {
        Found::Unused => place.remove(),
        Found::Nothing | Found::Used | Found::Foreign => Ok(()),
    }
}
