//! Where topics live: a directory in memory, and one directory per topic in it.
//!
//! Topic `md/quotes` is `md/quotes/.topic/{data,ctl,live}`. A creator builds `.new-<random>` beside it, holding the creator's lease on its `live`, and renames it
//! into the place of nothing or of an empty directory: who loses the race opens the winner's. How a topic is removed: `removal.rs`. Whatever a killed
//! creator or remover left is removed by the next create. A draft is claimed by renaming it to `.old-<random>`, and a living creator whose
//! draft was taken from under it in the moment before it had its lease begins again.
//! A synchronisation object is `<name>/.sync/{ctl,live}`, by the same rules.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use shmbus_sys::lease::Lease;
use shmbus_sys::shm::{self, Filesystem};

use crate::crash;
use crate::error::NameError;
use crate::layout::CREATOR_LEASE;
pub(crate) use crate::place::Purpose;
pub use crate::place::{Directory, PathSource};
use crate::removal;

pub(crate) const TOPIC: &str = ".topic";
/// A synchronisation object (`sync`): a directory beside that of the topic of the same name, made and removed as that.
pub(crate) const SYNC: &str = ".sync";
pub(crate) const DATA: &str = "data";
pub(crate) const CONTROL: &str = "ctl";
/// The file of leases, empty: its locks say who lives. Nobody may open it who may not write the topic ([`live_mode`]).
pub(crate) const LIVE: &str = "live";
pub(crate) const NEW: &str = ".new-";
const OLD: &str = ".old-";

/// Longest topic name in bytes.
const NAME_MAX: usize = 200;

/// A checked topic name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicName(String);

impl TopicName {
    /// A name for something new: commands would take one that begins with `-` for an option. What has such a name can be opened and removed.
    pub(crate) fn of_new(name: &str) -> Result<TopicName, NameError> {
        match name.split('/').any(|segment| segment.starts_with('-')) {
            true => Err(NameError { name: name.to_owned(), reason: "a segment begins with '-'" }),
            false => TopicName::new(name),
        }
    }

    pub(crate) fn new(name: &str) -> Result<TopicName, NameError> {
        let wrong = |reason| Err(NameError { name: name.to_owned(), reason });
        if name.is_empty() {
            return wrong("it is empty");
        }
        if name.len() > NAME_MAX {
            return wrong("it has more than 200 bytes");
        }
        for segment in name.split('/') {
            if segment.is_empty() {
                return wrong("a segment between slashes is empty");
            }
            if segment.starts_with('.') {
                return wrong("a segment begins with a dot");
            }
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            if !segment.chars().all(allowed) {
                return wrong("a segment is made of letters, digits, '_', '-' and '.'");
            }
        }
        Ok(TopicName(name.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The directory that holds `.topic`, from the root down.
    pub(crate) fn open_in(&self, root: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        let mut fd = root.try_clone_to_owned()?;
        for segment in self.0.split('/') {
            fd = shm::open_directory_at(fd.as_fd(), segment)?;
        }
        Ok(fd)
    }

    /// The same, made where it is missing: for a group, where one is given.
    pub(crate) fn make_in(
        &self,
        root: BorrowedFd<'_>,
        mode: u32,
        group: Option<u32>,
    ) -> io::Result<OwnedFd> {
        let mut fd = root.try_clone_to_owned()?;
        for segment in self.0.split('/') {
            let made = shm::make_directory_at(fd.as_fd(), segment, directory_mode(mode));
            let is_new = made.is_ok();
            already_there(made)?;
            fd = shm::open_directory_at(fd.as_fd(), segment)?;
            if let (true, Some(gid)) = (is_new, group) {
                shm::set_group(fd.as_fd(), gid)?;
            }
        }
        Ok(fd)
    }

    /// Removes the directories that have become empty, from the topic up.
    pub(crate) fn prune(&self, root: BorrowedFd<'_>) {
        let segments: Vec<&str> = self.0.split('/').collect();
        for depth in (0..segments.len()).rev() {
            let parent = segments[..depth].iter().try_fold(
                root.try_clone_to_owned(),
                |fd, segment| match fd {
                    Ok(fd) => Some(shm::open_directory_at(fd.as_fd(), segment)),
                    Err(_) => None,
                },
            );
            let Some(Ok(parent)) = parent else { continue };
            match shm::remove_directory_at(parent.as_fd(), segments[depth]) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return, // not empty
                _ => {}
            }
        }
    }
}

/// Why something was not built.
pub(crate) enum NotBuilt<E> {
    /// The kernel refused a step.
    Io(io::Error),
    /// It was made, and could not be opened or mapped by its creator.
    Open(E),
}

impl<E> From<io::Error> for NotBuilt<E> {
    fn from(error: io::Error) -> NotBuilt<E> {
        NotBuilt::Io(error)
    }
}

/// What a new object of `name` and so many bytes takes beside them, if that is what the file system lacks: a directory for each segment, one for
/// itself, and its files.
pub(crate) fn lacks_inodes(
    found: &Filesystem,
    bytes: u64,
    name: &TopicName,
    files: u64,
) -> Option<u64> {
    let needed = name.as_str().split('/').count() as u64 + 1 + files;
    let has_room = found.total_bytes == 0 || found.available_bytes >= bytes;
    let is_lacking = found.total_inodes != 0 && found.available_inodes < needed;
    (has_room && is_lacking).then_some(needed)
}

/// A topic, or another object, being built aside. Dropped before it is published, it is removed.
pub(crate) struct Draft<'a> {
    parent: BorrowedFd<'a>,
    leaf: &'static str,
    name: String,
    directory: OwnedFd,
    /// Held until the topic is published, so that nobody takes the draft for a leftover.
    lease: Option<Lease>,
    published: bool,
}

impl<'a> Draft<'a> {
    /// Begins a draft of `leaf` in `parent`; `mode` is that of the control file.
    pub(crate) fn begin(
        parent: BorrowedFd<'a>,
        leaf: &'static str,
        mode: u32,
    ) -> io::Result<(Draft<'a>, OwnedFd)> {
        let name = format!("{NEW}{:016x}", random());
        shm::make_directory_at(parent, &name, directory_mode(mode))?;
        crash::point("create.begun");
        let directory = shm::open_directory_at(parent, &name).inspect_err(|_| {
            let _ = shm::remove_directory_at(parent, &name);
        })?;
        let mut draft = Draft { parent, leaf, name, directory, lease: None, published: false };
        let fd = draft.directory.as_fd();
        drop(shm::create_at(fd, LIVE, live_mode(mode))?);
        let lease = Lease::open_at(fd, LIVE)?;
        if !lease.take(CREATOR_LEASE)? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        draft.lease = Some(lease);
        crash::point("create.leased");
        let ctl = shm::create_at(fd, CONTROL, mode)?;
        Ok((draft, ctl))
    }

    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Gives what is in it to a group.
    pub(crate) fn set_group(&self, gid: u32) -> io::Result<()> {
        let directory = self.directory();
        shm::set_group(directory, gid)?;
        [DATA, CONTROL, LIVE]
            .into_iter()
            .try_for_each(|file| shm::set_group_at(directory, file, gid))
    }

    /// Gives the draft its name, in the place of an empty directory if there is one. `AlreadyExists`: there is another topic, or what is left of one.
    pub(crate) fn publish(mut self) -> io::Result<()> {
        shm::replace_empty_at(self.parent, &self.name, self.leaf).map_err(|error| {
            match error.kind() {
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory => {
                    io::ErrorKind::AlreadyExists.into()
                }
                _ => error,
            }
        })?;
        crash::point("create.renamed");
        self.published = true;
        Ok(())
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.published {
            // Without a new descriptor: the want of one may be why.
            for file in [DATA, CONTROL, LIVE] {
                let _ = shm::unlink_at(self.directory.as_fd(), file);
            }
            let _ = shm::remove_directory_at(self.parent, &self.name);
        }
    }
}

/// Removes what creators and removers that were killed left in `parent`.
pub(crate) fn remove_leftovers(parent: BorrowedFd<'_>) -> io::Result<()> {
    for name in shm::list_at(parent)? {
        if is_leftover(parent, &name) {
            let _ = remove_leftover(parent, &name);
        }
    }
    Ok(())
}

/// Whether a name in a topic's directory is that of something which nobody builds.
pub(crate) fn is_leftover(parent: BorrowedFd<'_>, name: &str) -> bool {
    name.starts_with(OLD)
        || name.starts_with(NEW) && !is_being_built(parent, name)
        || (name == TOPIC || name == SYNC)
            && shm::open_directory_at(parent, name)
                .and_then(|directory| removal::is_being_removed(directory.as_fd(), name))
                .unwrap_or(false)
}

/// Removes what [`is_leftover`] was true of.
pub(crate) fn remove_leftover(parent: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    if name == TOPIC || name == SYNC {
        let directory = shm::open_directory_at(parent, name)?;
        return removal::finish(parent, name, directory.as_fd());
    }
    if name.starts_with(OLD) {
        return discard(parent, name);
    }
    // Renaming claims it. If that fails, it was published or claimed meanwhile. A creator that lives, and has
    // no lease yet, finds its draft gone and begins again.
    let old = format!("{OLD}{:016x}", random());
    shm::publish_at(parent, name, &old)?;
    crash::point("leftover.claimed");
    discard(parent, &old)
}

/// Whether the creator of a draft holds its lease, as far as can be told.
fn is_being_built(parent: BorrowedFd<'_>, name: &str) -> bool {
    shm::open_directory_at(parent, name)
        .and_then(|directory| Lease::open_at(directory.as_fd(), LIVE))
        .and_then(|lease| lease.is_held_by_another(CREATOR_LEASE))
        .unwrap_or_else(|error| error.kind() != io::ErrorKind::NotFound)
}

/// Removes a directory of ours, or a file that stood in its place.
fn discard(parent: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    match shm::open_directory_at(parent, name) {
        Err(error) if is_no_directory(&error) => shm::unlink_at(parent, name),
        directory => {
            removal::empty(directory?.as_fd())?;
            shm::remove_directory_at(parent, name)
        }
    }
}

/// There is something, and it is not a directory: a file, or a symbolic link.
pub(crate) fn is_no_directory(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotADirectory
}

/// Who may read a file of `mode` may search the directories above it.
fn directory_mode(mode: u32) -> u32 {
    mode | (mode & 0o444) >> 2 | 0o700
}

/// Mode of the file of leases of a topic of `mode`: who may not write it may not open it, for a read lock alone would be in everybody's way.
fn live_mode(mode: u32) -> u32 {
    let write = mode & 0o222;
    write | mode & write << 1
}

/// 64 bits that nobody else has: of a hash whose keys the kernel's random numbers seed.
pub(crate) fn random() -> u64 {
    let mut hasher = RandomState::new().build_hasher(); // a forked child has its parent's keys
    hasher.write_u32(shmbus_sys::process::pid());
    hasher.write_u64(shmbus_sys::clock::monotonic_ns());
    hasher.finish()
}

pub(crate) fn already_there(made: io::Result<()>) -> io::Result<()> {
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_write_a_topic_may_not_open_its_leases() {
        for (mode, live) in [
            (0o600, 0o600),
            (0o644, 0o600),
            (0o640, 0o600),
            (0o660, 0o660),
            (0o664, 0o660),
            (0o666, 0o666),
            (0o646, 0o606),
            (0o777, 0o666),
            (0o622, 0o622),
        ] {
            assert_eq!(live_mode(mode), live, "{mode:o}");
        }
    }

    #[test]
    fn names_are_segments_of_letters_digits_and_three_signs() {
        for good in ["quotes", "md/quotes", "a.b-c_9/D"] {
            assert_eq!(TopicName::new(good).unwrap().as_str(), good);
        }
        let long = "x".repeat(NAME_MAX + 1);
        for bad in
            ["", "/a", "a/", "a//b", ".a", "a/.topic", "..", "a/../b", "a b", "ä", "a\0", &long]
        {
            assert_eq!(TopicName::new(bad).unwrap_err().name, bad);
        }
        // What was made before may be looked at and removed.
        for option in ["-x", "--force", "a/-b"] {
            assert_eq!(TopicName::of_new(option).unwrap_err().reason, "a segment begins with '-'");
            assert_eq!(TopicName::new(option).unwrap().as_str(), option);
        }
    }
}
