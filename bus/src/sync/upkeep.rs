//! Upkeep of synchronisation objects by those who need not be members: looking, giving back what the dead had, removing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use shmbus_sys::lease::Lease;
use shmbus_sys::shm::{self, Access};

use crate::directory::{self, Directory, LIVE, Purpose, SYNC, TopicName};
use crate::joins::Decision;
use crate::layout::ENTRY_LEASES;
use crate::liveness::Witness;
use crate::removal::{self, Terms};
use crate::sync::error::{SyncOpenError, SyncRemoveError};
use crate::sync::info::SyncInfo;
use crate::sync::object::{self, Object, SyncKind, refused, refused_directory, refused_in, tidy};
use crate::sync::seat::{GiveBack, Seat};
use crate::sync::{gather, lock, permits, rw, signal};

impl Directory {
    /// What the synchronisation object `name` is, and who has it, at this moment. Takes no part in it and changes nothing: it needs permission to read
    /// the object's `ctl`, and no more. One system call for each member; if the object may not be written here, the kernel's list of locks is read
    /// instead.
    ///
    /// # Errors
    /// See [`SyncOpenError`].
    pub fn inspect_sync(&self, name: &str) -> Result<SyncInfo, SyncOpenError> {
        let object = Object::open_any(self, name, Access::ReadOnly)?;
        let witness = Witness::find(object.directory.as_fd());
        let witness =
            witness.map_err(|source| refused_in(name, &object.directory, "open live", source))?;
        let testimony = witness.ask();
        SyncInfo::read(&object, |entry| testimony.of(ENTRY_LEASES + u64::from(entry)))
    }

    /// Gives back now what the dead members of the synchronisation object `name` had, and says how many there were: permits and reads are free, a barrier is broken, the next
    /// owner of what one had locked is told as ever. The next who waits or joins would do the same. Needs permission to write the object's
    /// file; one system call for each member.
    ///
    /// # Errors
    /// See [`SyncOpenError`].
    pub fn sweep_sync(&self, name: &str) -> Result<u32, SyncOpenError> {
        let Object { kind, region, directory, .. } =
            Object::open_any(self, name, Access::ReadWrite)?;
        let lease = Lease::open_at(directory.as_fd(), LIVE);
        let lease = lease.map_err(|source| refused(name, "open live", source))?;
        Ok(Seat::sweep(Arc::new(region), lease, give_back(kind)))
    }

    /// Removes the synchronisation object `name`: its name and, when the last process has left it, its memory. Whoever waits for it, or
    /// comes to lock it, is told (`Removed`); who has it locked goes on. Not the topic of the same name.
    ///
    /// # Errors
    /// [`SyncRemoveError::InUse`] if living processes have it open and `force` is not set: decided as by [`Directory::remove`].
    pub fn remove_sync(&self, name: &str, force: bool) -> Result<(), SyncRemoveError> {
        let topic = TopicName::new(name).map_err(SyncOpenError::Name)?;
        let failed = |action| move |source| refused(name, action, source);
        let root = object::find(self, name, Purpose::Join)?;
        let parent = topic.open_in(root.as_fd()).map_err(failed("open its directory"))?;
        match shm::open_directory_at(parent.as_fd(), SYNC) {
            Err(error) if directory::is_no_directory(&error) && force => {
                shm::unlink_at(parent.as_fd(), SYNC).map_err(failed("remove it"))?;
            }
            found => {
                let found = found.map_err(|source| refused_directory(name, source))?;
                remove_found(name, parent.as_fd(), &found, force)?;
            }
        }
        let _ = directory::remove_leftovers(parent.as_fd());
        drop(parent);
        topic.prune(root.as_fd());
        Ok(())
    }
}

/// Removes the object in a directory that was found under its name.
fn remove_found(
    name: &str,
    parent: BorrowedFd<'_>,
    found: &OwnedFd,
    force: bool,
) -> Result<(), SyncRemoveError> {
    let failed = |source| refused_in(name, found, "remove it", source);
    let looked = found.try_clone().map_err(failed)?;
    if !force && let Err(error) = Object::open_in(name, looked, None, Access::ReadWrite) {
        tidy(&error, parent, found);
        return Err(error.into());
    }
    let terms = if force { Terms::Force } else { Terms::Unused };
    match removal::remove(parent, SYNC, found.as_fd(), terms).map_err(failed)? {
        Decision::InUse(members) => Err(SyncRemoveError::InUse { name: name.to_owned(), members }),
        Decision::Made if !force => Err(SyncOpenError::Removed { name: name.to_owned() }.into()),
        Decision::Made | Decision::Mine => Ok(()),
    }
}

/// What a member of such an object has is given back by this.
fn give_back(kind: SyncKind) -> GiveBack {
    match kind {
        SyncKind::Mutex | SyncKind::Once => lock::give_back,
        SyncKind::Semaphore => permits::give_back,
        SyncKind::RwLock => rw::give_back,
        SyncKind::Barrier => gather::give_back,
        SyncKind::Event | SyncKind::Condvar => signal::give_back, // nothing: a condvar has no members
    }
}
