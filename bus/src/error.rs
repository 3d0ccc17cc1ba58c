//! One enum per operation. Each says what was wrong and with which value; what an operation took, it gives back.

use std::io;
use std::path::PathBuf;

use crate::limits::{PageSizeError, TooManyHandles};
use crate::message::TypeError;
pub use crate::ring::Corrupt;
use crate::schema::{Schema, other_type};

/// An option of a new topic is out of its range. The first that was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// A number is too small or too large.
    #[error("{field} is {given}; it must be {min} to {max}")]
    Range {
        /// Name of the option.
        field: &'static str,
        /// As given.
        given: u64,
        /// Smallest value that is accepted.
        min: u64,
        /// Largest value that is accepted.
        max: u64,
    },
    /// The depth is not a power of two.
    #[error("depth is {given}; it must be a power of two, such as {below} or {above}")]
    Depth {
        /// As given.
        given: u64,
        /// The next smaller power of two.
        below: u64,
        /// The next larger power of two.
        above: u64,
    },
    /// The message type is not what its description says.
    #[error(transparent)]
    Type(#[from] TypeError),
    /// A guarded topic has one publisher at a time.
    #[error("a guarded topic has one publisher at a time: publishers must be exclusive")]
    Shared,
    /// Each option is in its range, but not all of them together.
    #[error(
        "depth {depth} of messages of {payload} bytes is {bytes} bytes: more than a file can have, or a slot of more than \
         {slot_bytes_max} bytes, or more than {blocks_max} blocks (lower depth, subscribers_max or hold_blocks)"
    )]
    TooLarge {
        /// Messages retained.
        depth: u64,
        /// Largest message in bytes.
        payload: u64,
        /// Bytes of the payloads alone.
        bytes: u128,
        /// Largest slot in bytes.
        slot_bytes_max: u64,
        /// Most blocks.
        blocks_max: u64,
    },
}

/// The directory where topics live cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The kernel refused.
    #[error("{path}: cannot {action}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Somebody else owns it, so that somebody else decides what is in it.
    #[error("{path}: belongs to uid {uid}, not to you (uid {euid}) or root")]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// The caller.
        euid: u32,
    },
    /// Everybody may write it.
    #[error("{path}: mode {mode:o} lets everybody write; at most 775 is accepted")]
    Mode {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file system with a disk behind it: writing dirty pages back would stall publishers.
    #[error(
        "{path}: not a tmpfs, so that writing back to a disk would stall publishers (SHMBUS_ALLOW_DISK=1 accepts it)"
    )]
    NotTmpfs {
        /// The directory.
        path: PathBuf,
    },
}

/// A topic name is `segment/segment/...`: letters, digits, `_`, and, where they are not first, `-` and `.`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not a topic name: {reason}")]
pub struct NameError {
    /// As given.
    pub name: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// A topic cannot be created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
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
    /// There is a topic of that name.
    #[error("topic {name} exists")]
    Exists {
        /// Name of the topic.
        name: String,
    },
    /// The file system has not enough room. Nothing is left behind.
    #[error(
        "topic {name} needs {needed} bytes and {available} are free in {path} (lower depth, or the size of a message, or \
         remove topics)"
    )]
    NoSpace {
        /// Name of the topic.
        name: String,
        /// Bytes of the topic.
        needed: u64,
        /// Bytes free.
        available: u64,
        /// Where.
        path: PathBuf,
    },
    /// The file system has room, and takes no more files. Nothing is left behind.
    #[error(
        "topic {name} needs {needed} inodes and {available} are free in {path} (remove files, or mount it with nr_inodes=)"
    )]
    NoInodes {
        /// Name of the topic.
        name: String,
        /// Files and directories that it takes.
        needed: u64,
        /// How many may still be made.
        available: u64,
        /// Where.
        path: PathBuf,
    },
    /// This process may not make files so long (`RLIMIT_FSIZE`). Nothing is left behind.
    #[error(
        "topic {name} needs a file of {needed} bytes, and this process may make files of {limit} (ulimit -f, LimitFSIZE=)"
    )]
    FileSizeLimit {
        /// Name of the topic.
        name: String,
        /// Bytes of its larger file.
        needed: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// This process may not give files to the group: it is neither root nor in it. Nothing is left behind.
    #[error(
        "topic {name}: its files may not be given to group {gid}, which its creator must be in"
    )]
    Group {
        /// Name of the topic.
        name: String,
        /// Number of the group.
        gid: u32,
    },
    /// The kernel refused.
    #[error("topic {name}: cannot {action}")]
    Io {
        /// Name of the topic.
        name: String,
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// It exists, and cannot be opened as what was asked for; or it was made and could not be mapped, and nothing is left behind.
    #[error(transparent)]
    Open(OpenError),
}

/// A topic cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
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
    /// There is no topic of that name.
    #[error("there is no topic {name}")]
    NotFound {
        /// Name of the topic.
        name: String,
    },
    /// The topic's files are not yours to open so.
    #[error("topic {name}: permission denied: cannot {action}")]
    Permission {
        /// Name of the topic.
        name: String,
        /// What was tried.
        action: &'static str,
    },
    /// The files are something else.
    #[error("topic {name}: {file} is not a file of shmbus")]
    Foreign {
        /// Name of the topic.
        name: String,
        /// `data` or `ctl`.
        file: &'static str,
    },
    /// The files were made by a machine of the other byte order.
    #[error("topic {name}: made by a machine of the other byte order")]
    ByteOrder {
        /// Name of the topic.
        name: String,
    },
    /// The files have another version of the format.
    #[error("topic {name}: format version {found}, this program reads version {expected}")]
    Version {
        /// Name of the topic.
        name: String,
        /// Of the files.
        found: u32,
        /// Of this program.
        expected: u32,
    },
    /// A file is shorter than its header says.
    #[error("topic {name}: {file} has {len} bytes, its header says {expected}")]
    Short {
        /// Name of the topic.
        name: String,
        /// `data` or `ctl`.
        file: &'static str,
        /// Its length.
        len: u64,
        /// As its header says.
        expected: u64,
    },
    /// The header contradicts itself.
    #[error("topic {name}: the header is corrupt: {field}")]
    Header {
        /// Name of the topic.
        name: String,
        /// The first field that does not fit the others.
        field: &'static str,
    },
    /// The topic carries another type.
    #[error("{}", other_type(name, found.as_deref(), expected.as_deref()))]
    Type {
        /// Name of the topic.
        name: String,
        /// What it carries; `None`: bytes.
        found: Option<Box<Schema>>,
        /// What was asked for; `None`: bytes.
        expected: Option<Box<Schema>>,
    },
    /// The type that was asked for is not what its description says.
    #[error("topic {name} cannot be opened as this type")]
    Description {
        /// Name of the topic.
        name: String,
        /// What is wrong with the type.
        source: TypeError,
    },
    /// The topic was created with another value of an option that must match.
    #[error("topic {name} has {option} {found}, not {expected}")]
    Option {
        /// Name of the topic.
        name: String,
        /// The option.
        option: &'static str,
        /// As the topic has it.
        found: u64,
        /// As asked for.
        expected: u64,
    },
    /// A guarded topic: its broker cannot be reached, does not answer, or says what it cannot.
    #[error("topic {name}: no answer from the broker at {socket}")]
    Broker {
        /// Name of the topic.
        name: String,
        /// The broker's socket.
        socket: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A broker of guarded topics: this process may not have as many descriptors open as it needs (`RLIMIT_NOFILE`).
    #[error(
        "a broker of these topics and rules needs {needed} descriptors, and the limit is {limit} (RLIMIT_NOFILE)"
    )]
    Descriptors {
        /// At least.
        needed: u64,
        /// How many it may have.
        limit: u64,
    },
    /// A guarded topic: the broker's policy does not allow it to this user, be there such a topic or not.
    #[error("topic {name}: its broker does not allow that to this user")]
    Refused {
        /// Name of the topic.
        name: String,
    },
    /// The topic was removed or replaced in this moment.
    #[error("topic {name} was removed")]
    Retired {
        /// Name of the topic.
        name: String,
    },
    /// A file of the topic is gone, and nobody has removed the topic: something else deletes files here. Creating the topic replaces it unless somebody
    /// takes part; so does removing it by force.
    #[error("topic {name} is damaged: its file {missing} is missing")]
    Corrupt {
        /// Name of the topic.
        name: String,
        /// `data`, `ctl` or `live`: the first that is missing.
        missing: &'static str,
    },
    /// The kernel refused.
    #[error("topic {name}: cannot {action}")]
    Io {
        /// Name of the topic.
        name: String,
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// A topic cannot be removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// Living processes are attached to it.
    #[error(
        "topic {name} is in use by {participants} participants (force removes it all the same)"
    )]
    InUse {
        /// Name of the topic.
        name: String,
        /// How many of them.
        participants: usize,
    },
    /// It cannot be opened to look.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// A publisher or subscriber cannot join a topic.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// `publishers` living shared publishers are attached.
    #[error("the topic has {max} publishers already")]
    PublishersFull {
        /// The topic's limit.
        max: u32,
    },
    /// The topic has one publisher at a time, and a living process is it.
    #[error("the topic has a publisher already, process {pid}")]
    PublisherAlive {
        /// As that process stated it; for people, in its own pid namespace.
        pid: u32,
    },
    /// `subscribers_max` living subscribers are attached.
    #[error("the topic has {max} subscribers already")]
    SubscribersFull {
        /// The topic's limit.
        max: u32,
    },
    /// The topic asks for `membarrier(2)`, and the kernel does not allow it.
    #[error("the topic's wake option is membarrier, which this process may not register for")]
    Membarrier {
        /// Why not.
        source: io::Error,
    },
    /// The kernel refuses a system call without which a publisher of a guarded topic cannot wait for room: it is older than Linux 5.16, or a filter of system calls
    /// forbids it.
    #[error(
        "the kernel refuses {call}, without which nobody publishes on a guarded topic (it is there since Linux 5.16; a filter of system calls may forbid it)"
    )]
    SystemCall {
        /// The system call.
        call: &'static str,
        /// As the kernel says it.
        source: io::Error,
    },
    /// The topic cannot be opened for writing.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The topic was removed or replaced.
    #[error("the topic was removed")]
    Retired,
    /// The handle was made by the process that forked this one.
    #[error("the handle belongs to the process that forked this one: open the topic again")]
    Forked,
    /// The shared memory says what cannot be.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// The kernel refused to take or to ask for a lease.
    #[error("cannot take the lease of a participant")]
    Lease {
        /// Why not.
        source: io::Error,
    },
}

/// A message cannot be published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The deadline came before a reliable subscriber made room.
    #[error("a reliable subscriber did not make room in time")]
    TimedOut,
    /// The message is longer than the topic's `max_len`.
    #[error("the message has {len} bytes, the topic takes {max}")]
    TooLong {
        /// Bytes of the message.
        len: usize,
        /// `max_len` of the topic.
        max: u32,
    },
    /// [`Raw`](crate::Raw): no message of the topic's type has that length.
    #[error(
        "the message has {len} bytes, the topic's messages {size} (or, in a sequence, a multiple)"
    )]
    Length {
        /// Bytes of the message.
        len: usize,
        /// Bytes of a message of the type, or of one in a sequence.
        size: u64,
    },
    /// The topic was removed or replaced.
    #[error("the topic was removed")]
    Retired,
    /// The handle was made by the process that forked this one.
    #[error("the handle belongs to the process that forked this one: open the topic again")]
    Forked,
    /// The shared memory says what cannot be.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// A message was not published without waiting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TryPublishError {
    /// A reliable subscriber has not received what stands in its place.
    #[error("a reliable subscriber has not made room")]
    Full,
    /// As for every other publish.
    #[error(transparent)]
    Failed(#[from] PublishError),
}

/// Not all messages of a [`publish_all`](crate::Publisher::publish_all) were published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{published} messages were published, and not the next")]
pub struct PublishAllError {
    /// How many were: the first ones.
    pub published: usize,
    /// Why the next one was not.
    pub source: PublishError,
}

/// An [`Observer`](crate::Observer) can see nothing now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObserveError {
    /// The topic was removed or replaced, and everything in it has been seen.
    #[error("the topic was removed")]
    Retired,
    /// The handle was made by the process that forked this one.
    #[error("the handle belongs to the process that forked this one: open the topic again")]
    Forked,
    /// The shared memory says what cannot be.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// A subscriber or observer cannot go to a sequence. It stays where it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SeekError {
    /// It is not retained any more.
    #[error("sequence {sequence} is not there any more, the oldest is {oldest}")]
    Gone {
        /// As asked for.
        sequence: u64,
        /// The oldest that was retained just then.
        oldest: u64,
    },
    /// It is beyond the next one to be published.
    #[error("sequence {sequence} does not exist yet, the next one is {next}")]
    Ahead {
        /// As asked for.
        sequence: u64,
        /// The next one to be published: where there is nothing yet.
        next: u64,
    },
    /// A reliable subscriber does not go back: publishers no longer keep for it what it has received.
    #[error("a reliable subscriber at sequence {position} does not go back to {sequence}")]
    Back {
        /// As asked for.
        sequence: u64,
        /// Where it is.
        position: u64,
    },
    /// The handle was made by the process that forked this one.
    #[error("the handle belongs to the process that forked this one: open the topic again")]
    Forked,
    /// The shared memory says what cannot be.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// Nothing can be received now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// A [`ReliableFor`](crate::Delivery::ReliableFor) subscriber held publishers up for longer than it asked for, and is lossy now. Said
    /// once; go on receiving.
    #[error("the subscriber held publishers up for too long and is lossy now")]
    Evicted,
    /// A shared publisher took this sequence and is gone. This process cannot write the topic's data (it may not, or has no descriptor or
    /// memory for it now), and found no living publisher to do it. Later calls try both again.
    #[error(
        "sequence {sequence} was taken by a publisher that is gone, and nobody here can write the topic to say so"
    )]
    Stalled {
        /// The next sequence to be received.
        sequence: u64,
    },
    /// The topic was removed or replaced, and everything in it has been received.
    #[error("the topic was removed")]
    Retired,
    /// The handle was made by the process that forked this one.
    #[error("the handle belongs to the process that forked this one: open the topic again")]
    Forked,
    /// The shared memory says what cannot be.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}
