//! Topics that a child is given: a descriptor of each topic's directory, and one environment variable that says which is which.
//!
//! `SHMBUS_TOPICS` is `NAME=NUMBER.DEVICE.INODE`, separated by `:`, neither of which a topic's name can hold. The child opens everything below that directory
//! anew, so that its leases are its own. It needs no path and no environment to find the topic, and no right to look into the directories above it.

use std::env;
use std::io;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;

use shmbus_sys::shm;
use shmbus_sys::spawn::{self, FileId, Inherited};

use super::{described, is_not_open, read_description};
use crate::directory::TopicName;
use crate::error::{NameError, OpenError};
use crate::participant::{Attachment, Place};
use crate::payload::Payload;
use crate::topic::Topic;

/// What is given to whom: see [`CommandExt`].
pub(super) const TOPICS: &str = "SHMBUS_TOPICS";

/// What shmbus adds to [`std::process::Command`].
///
/// ```no_run
/// use shmbus::process::CommandExt;
/// use shmbus::{Topic, TopicOptions};
/// use std::process::Command;
///
/// let quotes = Topic::<u64>::create("md/quotes", &TopicOptions::default())?;
/// let child = Command::new("./strategy").topic(&quotes)?.spawn()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
/// and in the child `Topic::<u64>::inherited("md/quotes")`.
pub trait CommandExt {
    /// Gives the child a topic: [`Topic::inherited`] opens it there. The command keeps a descriptor until it is dropped; children that are not given the
    /// topic do not get it. The child needs permission to open the topic's files, as anybody does.
    ///
    /// Sets `SHMBUS_TOPICS` of the command. Whatever it is in this process is not passed on by a command that this was called on. Not after
    /// [`env_clear`](Command::env_clear) was called on it, but before, it would be undone.
    ///
    /// # Errors
    /// No descriptor is left (`EMFILE`). [`io::ErrorKind::Unsupported`]: the topic is guarded, and the child asks its broker ([`Topic::connect`]).
    fn topic<T: Payload + ?Sized>(&mut self, topic: &Topic<T>) -> io::Result<&mut Command>;
}

impl CommandExt for Command {
    fn topic<T: Payload + ?Sized>(&mut self, topic: &Topic<T>) -> io::Result<&mut Command> {
        give(self, &topic.attachment)?;
        Ok(self)
    }
}

/// Gives the child a topic.
pub(super) fn give(command: &mut Command, attachment: &Attachment) -> io::Result<()> {
    let Place::Directory(directory) = &attachment.place else {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "a guarded topic has no directory"));
    };
    let directory = directory.as_fd();
    let number = spawn::inherit(command, directory)?;
    let entry = format!("{}={}", attachment.name, described(number, FileId::of(directory)?));
    let before = command.get_envs().find(|(name, _)| *name == TOPICS);
    let before = before.and_then(|(_, value)| value?.to_str()).map(str::to_owned);
    let all = before.into_iter().chain([entry]).collect::<Vec<_>>().join(":");
    command.env(TOPICS, all);
    Ok(())
}

/// An inherited topic cannot be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InheritError {
    /// The name is not one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Nobody gave this process a topic of that name.
    #[error("topic {name} was not given to this process (SHMBUS_TOPICS does not have it)")]
    NotGiven {
        /// Name of the topic.
        name: String,
    },
    /// The environment variable is not what [`CommandExt::topic`] writes.
    #[error("SHMBUS_TOPICS is not one that shmbus wrote: {entry:?}")]
    Malformed {
        /// The part that is wrong.
        entry: String,
    },
    /// The descriptor is not open: this process was not given it, only the environment (as a grandchild is), or has closed it.
    #[error("topic {name}: descriptor {number} was not inherited, or is closed")]
    Gone {
        /// Name of the topic.
        name: String,
        /// Number of the descriptor.
        number: i32,
    },
    /// The descriptor is something else: it was not inherited, or closed, and the number was used again.
    #[error("topic {name}: descriptor {number} is not what was given")]
    Foreign {
        /// Name of the topic.
        name: String,
        /// Number of the descriptor.
        number: i32,
    },
    /// The kernel refused.
    #[error("topic {name}: cannot take its descriptor")]
    Io {
        /// Name of the topic.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// What was given cannot be opened as that.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Names of the topics that this process was given, as `SHMBUS_TOPICS` has them; whether they are there is seen by [`Topic::inherited`].
///
/// # Errors
/// [`InheritError::Malformed`].
pub fn inherited_topics() -> Result<Vec<String>, InheritError> {
    Ok(given()?.into_iter().map(|(name, ..)| name).collect())
}

/// What the environment says: names, numbers, and what is to be found there.
fn given() -> Result<Vec<(String, i32, FileId)>, InheritError> {
    let Some(value) = env::var_os(TOPICS) else { return Ok(Vec::new()) };
    let malformed = |entry: &str| InheritError::Malformed { entry: entry.to_owned() };
    let value = value.into_string().map_err(|value| malformed(&value.to_string_lossy()))?;
    let entries = value.split(':').filter(|entry| !entry.is_empty());
    let read = |entry: &str| {
        let (name, description) = entry.split_once('=')?;
        let (number, id) = read_description(description)?;
        TopicName::new(name).ok()?;
        Some((name.to_owned(), number, id))
    };
    entries.map(|entry| read(entry).ok_or_else(|| malformed(entry))).collect()
}

impl<T: Payload + ?Sized> Topic<T> {
    /// Opens a topic that this process was given by its parent: [`CommandExt::topic`], or a supervisor. Checks what
    /// [`Topic::open`] checks. It may be called again; children of this process do not inherit the topic unless they are given it.
    ///
    /// # Errors
    /// See [`InheritError`].
    pub fn inherited(name: &str) -> Result<Self, InheritError> {
        TopicName::new(name)?;
        let found = given()?.into_iter().find(|(other, ..)| other == name);
        let owned = || name.to_owned();
        let (_, number, id) = found.ok_or_else(|| InheritError::NotGiven { name: owned() })?;
        let io = |source| InheritError::Io { name: owned(), source };
        let directory = match spawn::take_inherited(number, id) {
            Ok(Inherited::Taken(directory)) => directory,
            Ok(Inherited::Other) => return Err(InheritError::Foreign { name: owned(), number }),
            Err(error) if is_not_open(&error) => {
                return Err(InheritError::Gone { name: owned(), number });
            }
            Err(source) => return Err(io(source)),
        };
        // A description of its own, and proof that it is a directory.
        let directory = shm::open_directory_at(directory.as_fd(), ".").map_err(io)?;
        let attachment = Attachment::open(name, directory)?;
        Ok(Topic::of(Arc::new(attachment))?)
    }
}
