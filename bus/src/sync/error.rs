//! What can be wrong with a synchronisation object, or with waiting for it.

use std::io;
use std::path::PathBuf;

use crate::error::{DirectoryError, NameError, OptionsError};
use crate::limits::{PageSizeError, TooManyHandles};
use crate::sync::SyncKind;

/// A synchronisation object cannot be created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncCreateError {
    /// The name is not one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// An option is out of its range.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The kernel's pages are too large for it.
    #[error(transparent)]
    PageSize(#[from] PageSizeError),
    /// The process has as many handles as it can have.
    #[error(transparent)]
    TooManyHandles(#[from] TooManyHandles),
    /// There is an object of that name.
    #[error("{name} exists")]
    Exists {
        /// Its name.
        name: String,
    },
    /// The file system has not enough room. Nothing is left behind.
    #[error("{name} needs {needed} bytes and {available} are free in {path}")]
    NoSpace {
        /// Its name.
        name: String,
        /// Bytes of the object.
        needed: u64,
        /// Bytes free.
        available: u64,
        /// Where.
        path: PathBuf,
    },
    /// The file system has room, and takes no more files. Nothing is left behind.
    #[error("{name} needs {needed} inodes and {available} are free in {path}")]
    NoInodes {
        /// Its name.
        name: String,
        /// Files and directories that it takes.
        needed: u64,
        /// How many may still be made.
        available: u64,
        /// Where.
        path: PathBuf,
    },
    /// This process may not make files so long (`RLIMIT_FSIZE`). Nothing is left behind.
    #[error("{name} needs a file of {needed} bytes, and this process may make files of {limit}")]
    FileSizeLimit {
        /// Its name.
        name: String,
        /// Bytes of its file.
        needed: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The kernel refused.
    #[error("{name}: cannot {action}")]
    Io {
        /// Its name.
        name: String,
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// It exists, and cannot be opened; or it was made and could not be mapped, and nothing is left behind.
    #[error(transparent)]
    Open(SyncOpenError),
}

/// A synchronisation object cannot be opened, or has no room for another member.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncOpenError {
    /// The name is not one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The kernel's pages are too large for it.
    #[error(transparent)]
    PageSize(#[from] PageSizeError),
    /// The process has as many handles as it can have.
    #[error(transparent)]
    TooManyHandles(#[from] TooManyHandles),
    /// There is none of that name.
    #[error("there is no synchronisation object {name}")]
    NotFound {
        /// Its name.
        name: String,
    },
    /// Its file is not yours to open so.
    #[error("{name}: permission denied: cannot {action}")]
    Permission {
        /// Its name.
        name: String,
        /// What was tried.
        action: &'static str,
    },
    /// The file is something else.
    #[error("{name}: ctl is not a synchronisation object of shmbus")]
    Foreign {
        /// Its name.
        name: String,
    },
    /// The file was made by a machine of the other byte order.
    #[error("{name}: made by a machine of the other byte order")]
    ByteOrder {
        /// Its name.
        name: String,
    },
    /// The file has another version of the format.
    #[error("{name}: format version {found}, this program reads version {expected}")]
    Version {
        /// Its name.
        name: String,
        /// Of the file.
        found: u32,
        /// Of this program.
        expected: u32,
    },
    /// The file is shorter than its header says.
    #[error("{name}: ctl has {len} bytes, its header says {expected}")]
    Short {
        /// Its name.
        name: String,
        /// Its length.
        len: u64,
        /// As its header says.
        expected: u64,
    },
    /// The header contradicts itself.
    #[error("{name}: the header is corrupt: {field}")]
    Header {
        /// Its name.
        name: String,
        /// The first field that does not fit the others.
        field: &'static str,
    },
    /// It is another primitive.
    #[error("{name} is a {found}, not a {expected}")]
    Kind {
        /// Its name.
        name: String,
        /// What it is.
        found: SyncKind,
        /// As what it was to be opened.
        expected: SyncKind,
    },
    /// Its data is of another type.
    #[error("{name} has data with a {field} of {found}, not {expected}")]
    Type {
        /// Its name.
        name: String,
        /// `size` or `alignment`.
        field: &'static str,
        /// In bytes, as the object has it.
        found: u64,
        /// In bytes, of the type asked for.
        expected: u64,
    },
    /// It was created with another parameter, so that it does something else than is asked for. Told to `open_or_create`; `open` asks for none.
    #[error("{name} has {parameter} {found}, not {expected}")]
    Parameter {
        /// Its name.
        name: String,
        /// `reset` of an event, `parties` of a barrier, `permits` of a semaphore when it was created.
        parameter: &'static str,
        /// As the object has it.
        found: String,
        /// As asked for.
        expected: String,
    },
    /// `members_max` handles are open, or their processes are just dying.
    #[error("{name} has {max} members already")]
    Full {
        /// Its name.
        name: String,
        /// The object's limit.
        max: u32,
    },
    /// This thread has as many members of objects as the kernel can watch.
    #[error("{name}: this thread is a member of {max} objects already")]
    Thread {
        /// Its name.
        name: String,
        /// The limit.
        max: u32,
    },
    /// The kernel refuses a system call without which nothing can be waited for: it is older than Linux 5.16, or a filter of system calls forbids it.
    #[error(
        "{name}: the kernel refuses {call}, without which nothing can be waited for (it is there since Linux 5.16; a filter of system calls may forbid it)"
    )]
    SystemCall {
        /// Its name.
        name: String,
        /// The system call.
        call: &'static str,
        /// As the kernel says it.
        source: io::Error,
    },
    /// It was removed in this moment.
    #[error("{name} was removed")]
    Removed {
        /// Its name.
        name: String,
    },
    /// A file of it is gone, and nobody has removed it: something else deletes files here. Creating the object replaces it unless somebody has it open;
    /// so does removing it by force.
    #[error("synchronisation object {name} is damaged: its file {missing} is missing")]
    Corrupt {
        /// Its name.
        name: String,
        /// `ctl` or `live`: the first that is missing.
        missing: &'static str,
    },
    /// The kernel refused.
    #[error("{name}: cannot {action}")]
    Io {
        /// Its name.
        name: String,
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl SyncOpenError {
    /// The files were read, and are no such object: not merely another version's, or not to be read here.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(
            self,
            SyncOpenError::Corrupt { .. }
                | SyncOpenError::Foreign { .. }
                | SyncOpenError::Short { .. }
                | SyncOpenError::Header { .. }
        )
    }
}

/// A synchronisation object cannot be removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncRemoveError {
    /// Living processes are members of it.
    #[error("{name} is in use by {members} members (force removes it all the same)")]
    InUse {
        /// Its name.
        name: String,
        /// How many of them.
        members: usize,
    },
    /// It cannot be opened to look.
    #[error(transparent)]
    Open(#[from] SyncOpenError),
}

/// Why a wait came to nothing. It has changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// It would have had to wait.
    #[error("it would have to wait")]
    WouldBlock,
    /// The deadline came first.
    #[error("the deadline came first")]
    TimedOut,
    /// This handle has it already: waiting for itself would have no end.
    #[error("this handle has it already")]
    AlreadyHeld,
    /// An owner died, and its successor gave up what it protects without [`mark_consistent`](crate::sync::MutexGuard::mark_consistent).
    /// It stays so: remove the object.
    #[error("what it protects was given up")]
    NotRecoverable,
    /// A writer died (or panicked) with the [`RwLock`](crate::sync::RwLock), and nobody has mended what it protects. Who writes next gets it.
    #[error("a writer died and nobody has mended what it wrote")]
    WriterDied,
    /// A member of the [`Barrier`](crate::sync::Barrier) died, or somebody reset it.
    #[error("the barrier is broken")]
    Broken,
    /// Words of all that is waited for, more than the kernel takes at once: fewer objects at a time, or with fewer members.
    #[error("more than {max} words to wait for")]
    TooMany {
        /// The kernel's limit.
        max: u32,
    },
    /// The object was removed.
    #[error("the object was removed")]
    Removed,
    /// The handle was made by the process that forked this one.
    #[error("the handle belongs to the process that forked this one: open the object again")]
    Forked,
}

/// A lock was not taken, or was taken from one that died with it.
#[derive(Debug, thiserror::Error)]
pub enum LockError<G> {
    /// Here is the lock. Its last owner died with it (or panicked), so that what it protects may be half written: look, repair, say
    /// [`mark_consistent`](crate::sync::MutexGuard::mark_consistent). Exactly one is told; dropped unmarked, the lock is never to be had again.
    #[error("the last owner died with the lock")]
    OwnerDied(G),
    /// There is no lock.
    #[error(transparent)]
    Failed(#[from] WaitError),
}
