//! Locks across processes.
//!
//! | file | what it holds |
//! |---|---|
//! | `file_lock` | shared and exclusive locks on a file or bytes of it, which any program on the machine can take |

mod file_lock;

pub use file_lock::{FileConflict, FileGuard, FileLock, FileLockError, FileLockKind};
