//! Whether others live, for people: asked of the kernel by whoever may open the file of leases, and read in its public list by everybody else.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use shmbus_sys::kept::Kept;
use shmbus_sys::lease::Lease;
use shmbus_sys::lock_list::HeldBytes;
use shmbus_sys::shm;
use shmbus_sys::spawn::FileId;

use crate::directory::LIVE;

/// Whether the process of a participant, or of a member of a lock, lives. A stopped one lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Liveness {
    /// The kernel has its lease.
    Alive,
    /// It has no lease any more.
    Dead,
    /// It cannot be told: its file of leases may not be opened here, and the kernel's list of locks (`/proc/locks`) cannot be seen, or does not
    /// tell on this file system.
    Unknown,
}

impl Liveness {
    /// It lives for certain.
    pub fn is_alive(self) -> bool {
        self == Liveness::Alive
    }

    /// It is dead for certain.
    pub fn is_dead(self) -> bool {
        self == Liveness::Dead
    }

    /// `true` and `false` of those that are certain.
    pub fn known(self) -> Option<bool> {
        match self {
            Liveness::Alive => Some(true),
            Liveness::Dead => Some(false),
            Liveness::Unknown => None,
        }
    }

    pub(crate) fn of(held: io::Result<bool>) -> Liveness {
        match held {
            Ok(true) => Liveness::Alive,
            Ok(false) => Liveness::Dead,
            Err(_) => Liveness::Unknown,
        }
    }
}

/// Whom an observer asks who lives.
pub(crate) enum Witness {
    /// The kernel: it may open the file of leases.
    Kernel(Lease),
    /// The list of locks.
    List {
        file: FileId,
        /// Of the file, without the right to read it.
        place: Kept,
        /// Whether the list names the file by the numbers of `stat`: then who is not in it is dead.
        is_exact: bool,
    },
    /// Of a guarded topic nobody is to be seen.
    Nobody,
}

impl Witness {
    /// For the topic or lock in `directory`. `NotFound`: there is no file of leases.
    pub(crate) fn find(directory: BorrowedFd<'_>) -> io::Result<Witness> {
        match Lease::open_at(directory, LIVE) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                let place = Kept::new(shm::open_path_at(directory, LIVE)?)?;
                let file = FileId::of(place.as_fd())?;
                Ok(Witness::List { file, place, is_exact: shm::filesystem(directory)?.is_tmpfs })
            }
            lease => Ok(Witness::Kernel(lease?)),
        }
    }

    /// Whether the file of leases was deleted.
    pub(crate) fn is_deleted(&self) -> bool {
        match self {
            Witness::Kernel(lease) => lease.is_unlinked(),
            Witness::List { place, .. } => place.is_unlinked(),
            Witness::Nobody => false,
        }
    }

    /// What it says at this moment.
    pub(crate) fn ask(&self) -> Testimony<'_> {
        match self {
            Witness::Kernel(lease) => Testimony::Kernel(lease),
            Witness::List { file, is_exact, .. } => match HeldBytes::of(*file) {
                Ok(held) => Testimony::List { held, is_exact: *is_exact },
                Err(_) => Testimony::None,
            },
            Witness::Nobody => Testimony::None,
        }
    }
}

/// What a [`Witness`] says.
pub(crate) enum Testimony<'a> {
    Kernel(&'a Lease),
    List { held: HeldBytes, is_exact: bool },
    None,
}

impl Testimony<'_> {
    /// Whether the owner of a byte lives.
    pub(crate) fn of(&self, byte: u64) -> Liveness {
        match self {
            Testimony::Kernel(lease) => Liveness::of(lease.is_held_by_another(byte)),
            Testimony::List { held, .. } if held.contains(byte) => Liveness::Alive,
            Testimony::List { is_exact: true, .. } => Liveness::Dead,
            Testimony::List { .. } | Testimony::None => Liveness::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_told_is_unknown_and_never_alive() {
        assert_eq!(Testimony::None.of(1), Liveness::Unknown);
        let list = |is_exact| Testimony::List { held: HeldBytes::default(), is_exact };
        assert_eq!(list(true).of(1), Liveness::Dead);
        assert_eq!(list(false).of(1), Liveness::Unknown, "it may be in the list by other numbers");
        assert_eq!(Liveness::of(Err(io::ErrorKind::Other.into())), Liveness::Unknown);
    }
}
