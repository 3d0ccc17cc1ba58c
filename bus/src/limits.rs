//! What a process or its machine does not have, whatever is asked of it: more handles, pages of the right size.

use std::io;

use shmbus_sys::fork::{LEASES_MAX, TooManyLeases};
use shmbus_sys::map;

use crate::error::{CreateError, OpenError};
use crate::layout::PAGE;

/// This process has as many handles as it can have. Topics, observers, locks and [`FileLock`](crate::sync::FileLock)s count, clones of a `Topic`, publishers and
/// subscribers do not; a publisher of a guarded topic counts for each page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this process has {max} topics, locks and observers open already: drop some, or share a Topic by cloning it"
)]
#[non_exhaustive]
pub struct TooManyHandles {
    /// The limit.
    pub max: usize,
}

impl TooManyHandles {
    /// What an error of the kernel's facilities says.
    pub(crate) fn of(error: &io::Error) -> Option<TooManyHandles> {
        let found = error.get_ref().is_some_and(|inner| inner.is::<TooManyLeases>());
        found.then_some(TooManyHandles { max: LEASES_MAX })
    }
}

/// The kernel's pages are larger than those of the format. Guarded topics and locks ([`sync`](crate::sync)) have pages that are mapped one by one, and cannot be used;
/// topics in files can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the kernel has pages of {found} bytes: guarded topics and locks need pages of {needed}, topics in files do not"
)]
#[non_exhaustive]
pub struct PageSizeError {
    /// The kernel's, in bytes.
    pub found: u64,
    /// Those of the format.
    pub needed: u64,
}

/// Whether single pages of a file can be mapped.
pub(crate) fn check_page_size() -> Result<(), PageSizeError> {
    match map::page_size() as u64 {
        PAGE => Ok(()),
        found => Err(PageSizeError { found, needed: PAGE }),
    }
}

impl OpenError {
    /// Whether the same call may succeed in a moment, with nothing done about it: the process or the machine had too few descriptors or too little
    /// memory, or a signal came.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, OpenError::Io { source, .. } if source.kind() != io::ErrorKind::ReadOnlyFilesystem)
    }
}

impl CreateError {
    /// Why topic `name` could not be created.
    pub(crate) fn of(name: &str, source: io::Error) -> CreateError {
        match TooManyHandles::of(&source) {
            Some(error) => error.into(),
            None => CreateError::Io { name: name.to_owned(), action: "create it", source },
        }
    }
}
