//! What can go wrong when a topic is created, and which error that is.

use std::io;
use std::os::fd::BorrowedFd;

use shmbus_sys::shm;

use crate::atomics::Relaxed;
use crate::directory::{self, Directory, TopicName};
use crate::error::CreateError;
use crate::participant::Attachment;
use crate::ring::Geometry;

/// Files of a topic: `data`, `ctl`, `live`.
const FILES: u64 = 3;

pub(crate) fn prefaulted(
    attachment: Attachment,
    prefault: bool,
) -> Result<Attachment, CreateError> {
    if prefault {
        attachment.prefault.store(true, Relaxed);
        attachment.prefault(&attachment.region).map_err(CreateError::Open)?;
    }
    Ok(attachment)
}

pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// Which error it is that a topic of such files cannot be made.
pub(crate) fn not_created(
    directory: &Directory,
    root: BorrowedFd<'_>,
    name: &TopicName,
    geometry: &Geometry,
    source: io::Error,
) -> CreateError {
    let (path, topic) = (directory.path().to_path_buf(), name);
    let (name, action) = (name.as_str().to_owned(), "create it");
    match source.kind() {
        io::ErrorKind::AlreadyExists => CreateError::Exists { name },
        io::ErrorKind::FileTooLarge => CreateError::FileSizeLimit {
            name,
            needed: geometry.data_len().max(geometry.control_len()),
            limit: shm::file_size_limit().unwrap_or(u64::MAX),
        },
        io::ErrorKind::StorageFull => match shm::filesystem(root) {
            Ok(found) => {
                let needed = geometry.data_len() + geometry.control_len();
                match directory::lacks_inodes(&found, needed, topic, FILES) {
                    Some(needed) => {
                        let available = found.available_inodes;
                        CreateError::NoInodes { name, needed, available, path }
                    }
                    None => {
                        let available = found.available_bytes;
                        CreateError::NoSpace { name, needed, available, path }
                    }
                }
            }
            Err(source) => CreateError::Io { name, action, source },
        },
        _ => CreateError::of(&name, source),
    }
}
