//! What killed processes leave behind, found without the next create, remove or join.
//!
//! Nobody has to look for it: the next create or remove in the same place takes away what creators and removers left, the next who joins what
//! participants left. This is for those who want it gone before that, and want to see it first. Whether something is left over is asked of
//! the kernel, as everywhere; what is found is looked at again when it is removed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use shmbus_sys::shm::{self, Access};

use crate::directory::{self, CONTROL, DATA, Directory, NEW, Purpose, TOPIC, TopicName};
use crate::error::{DirectoryError, OpenError};
use crate::participant::Attachment;
use crate::topic_files::open_directory;

/// Something in a [`Directory`] that no process builds or uses any more. Found by [`Directory::leftovers`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leftover {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub kind: LeftoverKind,
    /// Bytes of its files.
    pub bytes: u64,
    /// The topic in whose directory it is.
    topic: TopicName,
    /// Its name there; nothing for the directory itself.
    name: Option<String>,
}

/// What kind of process has left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeftoverKind {
    /// A creator: a topic that is not complete and has no name yet (`.new-*`).
    Draft,
    /// A remover, or one that still is at it: a topic or lock that is removed and whose files are not all gone (`.topic`, `.sync`), or a draft that
    /// was being cleared away (`.old-*`).
    Removal,
    /// Either: a directory with nothing in it.
    EmptyDirectory,
}

impl Directory {
    /// What killed creators and removers left, as far as it can be read. A draft whose creator lives is none. Reads only; a few system calls for each topic.
    ///
    /// What is found may be gone, or be a living creator's first step, in the next moment: [`Directory::remove_leftover`] looks again.
    ///
    /// # Errors
    /// The directory cannot be used or read.
    pub fn leftovers(&self) -> Result<Vec<Leftover>, DirectoryError> {
        let mut found = Vec::new();
        let Some(root) = self.find(Purpose::Observe)? else { return Ok(found) };
        self.collect_leftovers(root.as_fd(), None, &mut found)
            .map_err(self.failed("look for leftovers"))?;
        found.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(found)
    }

    /// Removes something that [`Directory::leftovers`] has found, and directories above it that have become empty. `false`: somebody else was faster, or
    /// it is in use after all. Creators that live are in no danger: one whose directory is taken from under it begins again.
    ///
    /// # Errors
    /// The kernel refuses, for example because it belongs to another user.
    pub fn remove_leftover(&self, leftover: &Leftover) -> Result<bool, DirectoryError> {
        let Some(root) = self.find(Purpose::Join)? else { return Ok(false) };
        let removed = match &leftover.name {
            Some(name) => leftover.topic.open_in(root.as_fd()).and_then(|parent| {
                let is_leftover = directory::is_leftover(parent.as_fd(), name);
                is_leftover.then(|| directory::remove_leftover(parent.as_fd(), name)).transpose()
            }),
            None => remove_empty(root.as_fd(), leftover.topic.as_str()).map(Some),
        };
        match removed {
            Ok(done) => {
                leftover.topic.prune(root.as_fd());
                Ok(done.is_some())
            }
            Err(error) if is_gone(&error) => Ok(false),
            Err(source) => {
                Err(DirectoryError::Io { path: leftover.path.clone(), action: "remove it", source })
            }
        }
    }

    /// Declares the dead participants of topic `name` dead now, and says how many there were: their places, pinned blocks and holds are free, and they
    /// are seen no more. The next who joins would do the same. Needs permission to write the topic's `ctl`; one system call for each
    /// participant.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn sweep(&self, name: &str) -> Result<u32, OpenError> {
        Ok(Attachment::open(name, open_directory(self, name, Purpose::Join)?)?.sweep_all())
    }

    /// Appends what is left over in and below `fd`, the directory of `topic`.
    fn collect_leftovers(
        &self,
        fd: BorrowedFd<'_>,
        topic: Option<&TopicName>,
        found: &mut Vec<Leftover>,
    ) -> io::Result<()> {
        let children = shm::list_at(fd)?;
        if let Some(topic) = topic {
            let mut add = |kind, name: Option<&String>, bytes| {
                let path = self.path().join(topic.as_str());
                let path = name.map_or(path.clone(), |name| path.join(name));
                let (topic, name) = (topic.clone(), name.cloned());
                found.push(Leftover { path, kind, bytes, topic, name });
            };
            for child in children.iter().filter(|child| directory::is_leftover(fd, child)) {
                let kind = if child.starts_with(NEW) {
                    LeftoverKind::Draft
                } else {
                    LeftoverKind::Removal
                };
                add(kind, Some(child), bytes_of(fd, child));
            }
            if children.is_empty() {
                add(LeftoverKind::EmptyDirectory, None, 0);
            }
        }
        for child in children.iter().filter(|child| *child != TOPIC && !child.starts_with('.')) {
            let name = topic.map_or(child.clone(), |topic| format!("{}/{child}", topic.as_str()));
            let Ok(name) = TopicName::new(&name) else { continue };
            let below = shm::open_directory_at(fd, child)
                .and_then(|below| self.collect_leftovers(below.as_fd(), Some(&name), found));
            // Any other error: not ours, or gone meanwhile.
            below.or_else(
                |error| if shmbus_sys::is_passing(&error) { Err(error) } else { Ok(()) },
            )?;
        }
        Ok(())
    }
}

/// Removes the directory of a topic, which must be empty.
fn remove_empty(root: BorrowedFd<'_>, topic: &str) -> io::Result<()> {
    let (above, name) = topic.rsplit_once('/').unwrap_or(("", topic));
    let mut parent: OwnedFd = root.try_clone_to_owned()?;
    for segment in above.split('/').filter(|segment| !segment.is_empty()) {
        parent = shm::open_directory_at(parent.as_fd(), segment)?;
    }
    shm::remove_directory_at(parent.as_fd(), name)
}

/// It is not there, or not empty, any more.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty)
}

/// Bytes of the topic's files in a directory, as far as they can be seen.
fn bytes_of(parent: BorrowedFd<'_>, name: &str) -> u64 {
    let Ok(directory) = shm::open_directory_at(parent, name) else { return 0 };
    let len = |file| {
        let fd = shm::open_at(directory.as_fd(), file, Access::ReadOnly);
        fd.and_then(|fd| shm::len(fd.as_fd())).unwrap_or(0)
    };
    [DATA, CONTROL].into_iter().map(len).sum()
}
