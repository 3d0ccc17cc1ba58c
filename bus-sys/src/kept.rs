//! Descriptors that are kept for long, in a process that may close descriptors that are not its to close: daemons and launchers call `closefrom`, or
//! `close_range(3, ~0U, 0)`, and then open files of their own, which get the same numbers. Dropping what was kept must not close those.
//!
//! So a descriptor is remembered with its device and inode, and looked at again before it is closed or unlocked (fstat, about 0.3 us).

#![allow(unsafe_code)] // a drop that is left out

use std::io;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::fstat;

/// Which file a descriptor is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl Identity {
    /// Async-signal-safe.
    pub(crate) fn of(fd: BorrowedFd<'_>) -> rustix::io::Result<Identity> {
        let stat = fstat(fd)?;
        Ok(Identity { device: stat.st_dev, inode: stat.st_ino })
    }

    /// Whether `fd` is open, of this file, and the file has no name any more.
    pub(crate) fn is_unlinked(self, fd: BorrowedFd<'_>) -> bool {
        fstat(fd).is_ok_and(|stat| {
            let identity = Identity { device: stat.st_dev, inode: stat.st_ino };
            identity == self && stat.st_nlink == 0
        })
    }

    /// Whether `fd` is open, and of this file. Async-signal-safe.
    pub(crate) fn is_of(self, fd: BorrowedFd<'_>) -> bool {
        Identity::of(fd) == Ok(self)
    }
}

/// A descriptor that is closed when it is dropped, if its number is still that of its file.
#[derive(Debug)]
pub struct Kept {
    fd: ManuallyDrop<OwnedFd>,
    identity: Identity,
}

impl Kept {
    /// Keeps `fd`.
    pub fn new(fd: OwnedFd) -> io::Result<Kept> {
        let identity = Identity::of(fd.as_fd())?;
        Ok(Kept { fd: ManuallyDrop::new(fd), identity })
    }

    /// Whether its file has lost its last name. False also if that cannot be told, because somebody has closed the descriptor.
    pub fn is_unlinked(&self) -> bool {
        self.identity.is_unlinked(self.fd.as_fd())
    }
}

impl Deref for Kept {
    type Target = OwnedFd;

    /// Its number may be another file's, where somebody has closed it.
    fn deref(&self) -> &OwnedFd {
        &self.fd
    }
}

impl AsFd for Kept {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.identity.is_of(self.fd.as_fd()) {
            // SAFETY: dropped once, here.
            unsafe { ManuallyDrop::drop(&mut self.fd) };
        }
    }
}
