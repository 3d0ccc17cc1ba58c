//! Locks in shared memory that survive the death of whoever has them.
//!
//! Each is an object with a name in a [`Directory`](crate::Directory), as a topic is (one of each may have the same name): a file of its own, made by
//! [`create`](RobustMutex::create) and gone with [`Directory::remove_sync`](crate::Directory::remove_sync). A process may be killed at any instruction: the kernel wakes one
//! of those who wait, which finds out what the dead had, and goes on. `docs/sync.md` says how.
//!
//! A handle is a *member* of its object and belongs to the thread that opened it: the kernel tells of the end of a thread, and nothing
//! of it moves. Every other thread opens its own. Costs: 4 KiB of the object, 12 KiB of address space, and two mappings and a descriptor of the process.
//!
//! | for | take |
//! |---|---|
//! | data that one changes at a time | [`RobustMutex`], with a [`Condvar`] to wait until it is as one wants it |
//! | data that many read | [`RwLock`] |
//! | a limit on how many do something, or a count of things to be done | [`Semaphore`] |
//! | one telling others that something is so | [`Event`]; several at once: [`Event::wait_any`] |
//! | all going on together | [`Barrier`] |
//! | a value that the first one makes | [`OnceCell`] |
//! | a file that other programs lock as well | [`FileLock`], which is no such object |
//!
//! # Fork
//! A forked child has nothing of its parent's locks: its handles say [`WaitError::Forked`], and dropping them or their guards does nothing. What they protect is not mapped there: a guard, or a
//! reference that [`OnceCell::get`] returned, that is read in the child ends it by `SIGSEGV`.
//!
//! # Trust
//! As with a [`Topic`](crate::Topic): whoever may write an object's file is trusted to follow the protocol. A corrupt one is met with typed errors, or waits until its
//! deadline; never with a panic or an access outside the mapping.

pub(crate) mod gather;
pub(crate) mod layout;
pub(crate) mod lock;
pub(crate) mod maker;
pub(crate) mod notice;
pub(crate) mod permits;
pub(crate) mod region;
pub(crate) mod rw;
pub(crate) mod seat;
pub(crate) mod signal;
pub(crate) mod turn;
pub(crate) mod wait;

#[cfg(not(loom))]
mod barrier;
#[cfg(not(loom))]
mod condvar;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod event;
#[cfg(not(loom))]
mod file_lock;
#[cfg(not(loom))]
mod info;
#[cfg(not(loom))]
mod member;
#[cfg(not(loom))]
mod mutex;
#[cfg(not(loom))]
mod object;
#[cfg(not(loom))]
mod once;
#[cfg(not(loom))]
mod opening;
#[cfg(not(loom))]
mod rwlock;
#[cfg(not(loom))]
mod semaphore;
#[cfg(not(loom))]
mod upkeep;

#[cfg(not(loom))]
pub use self::{
    barrier::Barrier,
    condvar::Condvar,
    error::{LockError, SyncCreateError, SyncOpenError, SyncRemoveError, WaitError},
    event::{Event, Reset},
    file_lock::{FileConflict, FileGuard, FileLock, FileLockError, FileLockKind},
    info::{Condition, SyncInfo, SyncMember, SyncState},
    mutex::{MutexGuard, RobustMutex},
    object::{SyncKind, SyncOptions},
    once::OnceCell,
    rwlock::{ReadGuard, RwLock, WriteGuard},
    semaphore::{Permit, PostError, Semaphore},
};
