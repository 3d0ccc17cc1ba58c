//! Upkeep of synchronisation objects by those who need not be members: looking, giving back what the dead had, removing.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use shmbus_sys::lease::Lease;
use shmbus_sys::shm::Access;

use crate::directory::{self, Directory, LIVE, Purpose, SYNC, TopicName};
use crate::layout::ENTRY_LEASES;
use crate::liveness::Witness;
use crate::sync::error::{SyncOpenError, SyncRemoveError};
use crate::sync::info::SyncInfo;
use crate::sync::object::{self, Object, SyncKind, refused};
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
        let failed = |action| move |source| refused(name, action, source);
        let witness = Witness::find(object.directory.as_fd()).map_err(failed("open live"))?;
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
    /// [`SyncRemoveError::InUse`] where living processes are members and `force` is not set.
    pub fn remove_sync(&self, name: &str, force: bool) -> Result<(), SyncRemoveError> {
        let topic = TopicName::new(name).map_err(SyncOpenError::Name)?;
        let failed = |action| move |source| refused(name, action, source);
        let root = object::find(self, name, Purpose::Join)?;
        let parent = topic.open_in(root.as_fd()).map_err(failed("open its directory"))?;
        match Object::open_any(self, name, Access::ReadWrite) {
            Ok(object) => {
                let members = living(&object).map_err(failed("ask who lives"))?;
                if members > 0 && !force {
                    return Err(SyncRemoveError::InUse { name: name.to_owned(), members });
                }
            }
            // Those who take part would not be told.
            Err(SyncOpenError::Io { source, name, action }) if shmbus_sys::is_passing(&source) => {
                return Err(SyncOpenError::Io { name, action, source }.into());
            }
            Err(error) if !force => return Err(error.into()),
            Err(_) => {} // corrupt or foreign, and the caller wants it gone
        }
        directory::remove_leaf(parent.as_fd(), SYNC).map_err(failed("remove it"))?;
        let _ = directory::remove_leftovers(parent.as_fd());
        drop(parent);
        topic.prune(root.as_fd());
        Ok(())
    }
}

/// How many leases of members are held.
fn living(object: &Object) -> io::Result<usize> {
    let lease = Lease::open_at(object.directory.as_fd(), LIVE)?;
    let members_max = u64::from(object.region.members_max());
    let mut count = 0;
    for entry in 0..members_max {
        count += usize::from(lease.is_held_by_another(ENTRY_LEASES + entry)?);
    }
    Ok(count)
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
