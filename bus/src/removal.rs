//! How a topic or synchronisation object is removed: decided in its shared memory, then done by the descriptor of its own directory.
//!
//! ```text
//! decide   joins: the bit "retired" (`Joins`); nothing has happened to the name yet
//! tell     bells or sleepers
//! mark     the set-user-ID bit of the directory: its files are being taken away
//! unlink   everything but `ctl`, then `ctl`
//! rmdir    by name; another topic that stands there by now is not empty, and stays
//! ```
//!
//! Whoever finds a topic retired or marked under its name does the rest: each step can be done twice, by several, and stopped anywhere. The files are those of
//! *that* directory, whatever its name means by now: a directory that was emptied never gets another file, because creators fill a draft and rename
//! it over the name, in the place of an empty directory only.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd};

use shmbus_sys::is_passing;
use shmbus_sys::lease::Lease;
use shmbus_sys::map::Mapping;
use shmbus_sys::shm::{self, Access};
use shmbus_sys::spawn::FileId;

use crate::bell::Barrier;
use crate::crash;
use crate::directory::{CONTROL, DATA, LIVE, TOPIC};
use crate::joins::{Decision, Joins};
use crate::layout::{
    BYTE_ORDER, CONTROL_MAGIC, CONTROL_OFFSET, CREATOR_LEASE, Control, ENTRIES_OFFSET,
    ENTRY_LEASES, Notices, PUBLISHERS_LIMIT, SUBSCRIBERS_LIMIT, VERSION,
};
use crate::region::ControlPage;
use crate::sync::layout::{
    CONTROL_OFFSET as SYNC_CONTROL_OFFSET, ENTRIES_OFFSET as SYNC_LEN, MainWords, SYNC_MAGIC,
    SYNC_VERSION, SyncControl,
};
use crate::sync::region::SyncRegion;
use crate::sync::seat;

/// Entries that a topic or lock can have.
const ENTRIES: u64 = (SUBSCRIBERS_LIMIT + PUBLISHERS_LIMIT) as u64;
/// Where the word of joins stands in `ctl`.
const WORD_OF_TOPIC: u64 =
    CONTROL_OFFSET + (offset_of!(Control, notices) + offset_of!(Notices, joins)) as u64;
const WORD_OF_SYNC: u64 =
    SYNC_CONTROL_OFFSET + (offset_of!(SyncControl, main) + offset_of!(MainWords, joins)) as u64;
/// The mode bit of a directory that says that its files are being taken away. It means nothing else for a directory.
const MARK: u32 = 0o4000;

/// The words of a topic or lock that a removal needs, mapped.
pub(crate) enum Words {
    Topic(ControlPage),
    Sync(SyncRegion),
}

impl Words {
    /// Those of `ctl` in `directory`. `InvalidData`: it is not one that this version reads.
    pub(crate) fn open(directory: BorrowedFd<'_>, leaf: &str) -> io::Result<Words> {
        let wrong = || io::Error::from(io::ErrorKind::InvalidData);
        let ctl = shm::open_at(directory, CONTROL, Access::ReadWrite)?;
        let len = if leaf == TOPIC { ENTRIES_OFFSET } else { SYNC_LEN };
        if shm::len(ctl.as_fd())? < len || !is_ours(ctl.as_fd(), leaf)? {
            return Err(wrong());
        }
        let mapping = Mapping::read_write(ctl.as_fd(), len as usize)?;
        match leaf {
            TOPIC => ControlPage::new(mapping).map(Words::Topic),
            _ => SyncRegion::new(0, 0, mapping).map(Words::Sync),
        }
        .ok_or_else(wrong)
    }

    fn joins(&self) -> &Joins {
        match self {
            Words::Topic(page) => &page.control().notices.0.joins,
            Words::Sync(region) => &region.control().main.0.joins,
        }
    }

    /// Has everybody who sleeps look again.
    fn tell(&self) {
        match self {
            Words::Topic(page) => {
                crash::point("remove.retired");
                page.control().subscribers_bell.0.ring(Barrier::Fence);
                page.control().publishers_bell.0.ring(Barrier::Fence);
                crash::point("remove.rung");
            }
            Words::Sync(region) => {
                crash::point("sync.remove.retired");
                seat::wake_all(region);
            }
        }
    }
}

/// Whether a `ctl` begins as one that this version reads.
fn is_ours(ctl: BorrowedFd<'_>, leaf: &str) -> io::Result<bool> {
    let (magic, version) = match leaf {
        TOPIC => (CONTROL_MAGIC, VERSION),
        _ => (SYNC_MAGIC, SYNC_VERSION),
    };
    let mut begin = [0; 16]; // of both headers: magic, version, byte order
    shm::read_exact_at(ctl, &mut begin, 0)?;
    Ok(begin[..] == [&magic[..], &version.to_le_bytes(), &BYTE_ORDER.to_le_bytes()].concat())
}

/// What a file that was not found in a topic's directory means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absence {
    /// The topic is being removed, or is removed.
    Removed,
    /// This file is gone, and nobody has removed the topic.
    Missing(&'static str),
}

/// Why a file was not found in `directory`.
///
/// A remover sets the bit and marks the directory before it takes the first file, and this looks for files first: whoever misses one for that reason sees why.
pub(crate) fn absence(directory: BorrowedFd<'_>, leaf: &str) -> io::Result<Absence> {
    let files: &[&str] = if leaf == TOPIC { &[DATA, CONTROL, LIVE] } else { &[CONTROL, LIVE] };
    let is_missing = |file: &&&'static str| {
        FileId::at(directory, file).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    match files.iter().find(is_missing) {
        Some(file) if !is_being_removed(directory, leaf)? => Ok(Absence::Missing(file)),
        _ => Ok(Absence::Removed), // all are there: another directory was looked at before
    }
}

/// Whether somebody has decided that what is in `directory` is removed.
pub(crate) fn is_being_removed(directory: BorrowedFd<'_>, leaf: &str) -> io::Result<bool> {
    if is_retired(directory, leaf).unwrap_or(false) {
        return Ok(true);
    }
    let owner = shm::owner(directory)?;
    Ok(owner.mode & MARK != 0 || owner.links == 0)
}

/// Whether `ctl` says so, if it is one of ours. For reading only.
fn is_retired(directory: BorrowedFd<'_>, leaf: &str) -> io::Result<bool> {
    let ctl = shm::open_at(directory, CONTROL, Access::ReadOnly)?;
    if !is_ours(ctl.as_fd(), leaf)? {
        return Ok(false);
    }
    let mut word = [0; 8];
    let at = if leaf == TOPIC { WORD_OF_TOPIC } else { WORD_OF_SYNC };
    shm::read_exact_at(ctl.as_fd(), &mut word, at)?;
    Ok(Joins::says_retired(u64::from_le_bytes(word)))
}

/// On what terms something is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Terms {
    /// Whoever takes part.
    Force,
    /// If nobody takes part.
    Unused,
    /// It is damaged, to make room for a new one: if nobody takes part and nobody builds it. What cannot be mapped nobody can join any more.
    Damaged,
}

/// Removes what is in `directory`, which `parent` has called `leaf`. Nothing is changed if the names may not be.
pub(crate) fn remove(
    parent: BorrowedFd<'_>,
    leaf: &str,
    directory: BorrowedFd<'_>,
    terms: Terms,
) -> io::Result<Decision> {
    shm::may_change(parent)?;
    shm::may_change(directory)?;
    let first = if terms == Terms::Damaged { CREATOR_LEASE } else { ENTRY_LEASES };
    let words = match Words::open(directory, leaf) {
        // For want of descriptors or memory, those who take part would not be told.
        Err(error) if terms == Terms::Unused || is_passing(&error) => return Err(error),
        words => words.ok(),
    };
    let decision = match (&words, terms) {
        (Some(words), Terms::Force) => {
            words.joins().retire();
            Decision::Mine
        }
        (Some(words), _) => words.joins().retire_unless_used(|| users(directory, first))?,
        (None, Terms::Force) => Decision::Mine,
        (None, _) => match users(directory, first)? {
            0 => Decision::Mine,
            users => Decision::InUse(users),
        },
    };
    if !matches!(decision, Decision::InUse(_)) {
        finish_with(parent, leaf, directory, words.as_ref())?;
    }
    Ok(decision)
}

/// How many bytes from `first` on somebody has locked: as many as live, of a condition variable at least one. Without a file of leases nobody can.
fn users(directory: BorrowedFd<'_>, first: u64) -> io::Result<usize> {
    let lease = match Lease::open_at(directory, LIVE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        lease => lease?,
    };
    let end = ENTRY_LEASES + ENTRIES;
    let Some(lowest) = lease.first_held_by_another(first, end - first)? else { return Ok(0) };
    let mut held = 1; // it was
    for byte in lowest + 1..end {
        held += usize::from(lease.is_held_by_another(byte)?);
    }
    Ok(held)
}

/// Does what is left of a removal that is decided: nobody comes back to what is in `directory`.
pub(crate) fn finish(
    parent: BorrowedFd<'_>,
    leaf: &str,
    directory: BorrowedFd<'_>,
) -> io::Result<()> {
    let words = match Words::open(directory, leaf) {
        Err(error) if is_passing(&error) => return Err(error),
        words => words.ok(),
    };
    finish_with(parent, leaf, directory, words.as_ref())
}

fn finish_with(
    parent: BorrowedFd<'_>,
    leaf: &str,
    directory: BorrowedFd<'_>,
    words: Option<&Words>,
) -> io::Result<()> {
    if let Some(words) = words {
        words.tell();
    }
    empty(directory)?;
    match shm::remove_directory_at(parent, leaf) {
        // Another topic has the name by now, or somebody else has done it.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound
            ) => {}
        other => other?,
    }
    crash::point("remove.emptied");
    Ok(())
}

/// Removes the files in a directory that nobody fills any more, `ctl` last: what is half removed says so until its last file is gone.
pub(crate) fn empty(directory: BorrowedFd<'_>) -> io::Result<()> {
    if let Ok(owner) = shm::owner(directory) {
        let _ = shm::set_mode(directory, owner.mode | MARK); // its owner's right: for others `ctl` says so, but for one moment
    }
    let unlink = |file: &str| match shm::unlink_at(directory, file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    let mut done = Ok(());
    for file in shm::list_at(directory)?.iter().filter(|file| *file != CONTROL) {
        done = done.and(unlink(file));
    }
    done?;
    crash::point("remove.stripped");
    unlink(CONTROL)?;
    crash::point("remove.unlinked");
    Ok(())
}
