//! A topic's files: found by name, built, described and removed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use shmbus_sys::clock;
use shmbus_sys::shm;

use crate::crash;
use crate::create::prefaulted;
use crate::directory::{self, DATA, Directory, Draft, NotBuilt, Purpose, TOPIC, TopicName};
use crate::error::{AttachError, CreateError, OpenError, RemoveError};
use crate::header;
use crate::joins::Decision;
use crate::layout::{CONTROL_OFFSET, TABLE_OFFSET};
use crate::observer::{Observer, View};
use crate::options::TopicOptions;
use crate::participant::{Attachment, refused, refused_in};
use crate::payload::Carried;
use crate::removal::{self, Terms};
use crate::ring::reader::Start;
use crate::ring::{Geometry, table};
use crate::stats::TopicInfo;

impl Directory {
    /// What topic `name` is and who takes part in it, whatever its type. Needs permission to read its files, and writes nothing.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn inspect(&self, name: &str) -> Result<TopicInfo, OpenError> {
        Ok(View::open(name, &open_directory(self, name, Purpose::Observe)?)?.info())
    }

    /// Reads topic `name` along, whatever its type, without taking part in it: see [`Observer`]. It needs to be allowed to read the topic's files; the
    /// directory may be another user's, if the caller named it.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn observe(&self, name: &str, start: Start) -> Result<Observer, AttachError> {
        let directory = open_directory(self, name, Purpose::Observe)?;
        Observer::begin(View::open(name, &directory)?, start)
    }

    /// Removes topic `name`: its name and, when the last process has left it, its memory. Everybody attached is told (`Retired`), after
    /// subscribers have received what is there.
    ///
    /// Without `force` it is decided in the topic's shared memory, together with those who join at this moment: who has joined is never told `Retired` by this, and
    /// who comes later does not get in. Nothing happens to the name before that. A remover that is killed is finished by the next create, open or remove.
    ///
    /// # Errors
    /// [`RemoveError::InUse`] if living processes take part and `force` is not set. Without `force` also everything that keeps the topic from being
    /// opened, such as [`OpenError::Corrupt`].
    pub fn remove(&self, name: &str, force: bool) -> Result<(), RemoveError> {
        let topic = TopicName::new(name).map_err(OpenError::Name)?;
        let failed = |action| move |source| refused(name, action, source);
        let root = find(self, name, Purpose::Join)?;
        let parent = topic.open_in(root.as_fd()).map_err(failed("open its directory"))?;
        match shm::open_directory_at(parent.as_fd(), TOPIC) {
            Err(error) if directory::is_no_directory(&error) && force => {
                shm::unlink_at(parent.as_fd(), TOPIC).map_err(failed("remove it"))?;
            }
            found => {
                let found = found.map_err(|source| refused_directory(name, source))?;
                remove_found(name, parent.as_fd(), &found, force)?;
            }
        }
        let _ = directory::remove_leftovers(parent.as_fd());
        drop(parent);
        topic.prune(root.as_fd());
        Ok(())
    }
}

/// Opens a topic of any type.
pub(crate) fn open(directory: &Directory, name: &str) -> Result<Attachment, OpenError> {
    let (parent, found) = open_both(directory, name, Purpose::Join)?;
    let tidied = found.try_clone().map_err(|source| refused(name, "open its directory", source))?;
    Attachment::open(name, found).inspect_err(|error| tidy(error, parent.as_fd(), &tidied))
}

/// Goes on with the removal of a topic that was found removed under its name, if this process may.
fn tidy(error: &OpenError, parent: BorrowedFd<'_>, directory: &OwnedFd) {
    if matches!(error, OpenError::Retired { .. }) {
        let _ = removal::finish(parent, TOPIC, directory.as_fd());
    }
}

/// Removes the topic in a directory that was found under its name.
fn remove_found(
    name: &str,
    parent: BorrowedFd<'_>,
    found: &OwnedFd,
    force: bool,
) -> Result<(), RemoveError> {
    if !force && let Err(error) = View::open(name, found) {
        tidy(&error, parent, found);
        return Err(error.into());
    }
    let terms = if force { Terms::Force } else { Terms::Unused };
    let decision = removal::remove(parent, TOPIC, found.as_fd(), terms);
    match decision.map_err(|source| refused_in(name, found, "remove it", source))? {
        Decision::InUse(participants) => {
            Err(RemoveError::InUse { name: name.to_owned(), participants })
        }
        Decision::Made if !force => Err(OpenError::Retired { name: name.to_owned() }.into()),
        Decision::Made | Decision::Mine => Ok(()),
    }
}

/// Opens the directory in which topic `name` is looked for.
fn find(directory: &Directory, name: &str, purpose: Purpose) -> Result<OwnedFd, OpenError> {
    directory.find(purpose)?.ok_or_else(|| OpenError::NotFound { name: name.to_owned() })
}

/// Opens a topic's own directory.
pub(crate) fn open_directory(
    directory: &Directory,
    name: &str,
    purpose: Purpose,
) -> Result<OwnedFd, OpenError> {
    Ok(open_both(directory, name, purpose)?.1)
}

/// The same, behind the directory above it.
fn open_both(
    directory: &Directory,
    name: &str,
    purpose: Purpose,
) -> Result<(OwnedFd, OwnedFd), OpenError> {
    let topic = TopicName::new(name)?;
    let root = find(directory, name, purpose)?;
    let parent = topic.open_in(root.as_fd());
    let parent = parent.map_err(|source| refused(name, "open its directory", source))?;
    let found = shm::open_directory_at(parent.as_fd(), TOPIC);
    Ok((parent, found.map_err(|source| refused_directory(name, source))?))
}

/// Which error a refusal of the kernel is to open a topic's own directory.
fn refused_directory(name: &str, source: io::Error) -> OpenError {
    match directory::is_no_directory(&source) {
        true => OpenError::Foreign { name: name.to_owned(), file: TOPIC },
        false => refused(name, "open its directory", source),
    }
}

/// Builds a topic aside, opens it and publishes it: what its creator cannot map is gone again, and nobody has seen it. In the place of what is damaged
/// under its name, if that can be replaced.
pub(crate) fn build(
    root: BorrowedFd<'_>,
    name: &TopicName,
    options: &TopicOptions,
    carried: &Carried,
    geometry: &Geometry,
    first_attempt: bool,
) -> Result<Attachment, NotBuilt<CreateError>> {
    let open = |error| NotBuilt::Open(CreateError::Open(error));
    let made = name.make_in(root, options.mode, options.group).inspect_err(|_| name.prune(root));
    let parent = made.map_err(|error| group_refused(name.as_str(), options, error))?;
    if first_attempt {
        directory::remove_leftovers(parent.as_fd())?;
    }
    match shm::open_directory_at(parent.as_fd(), TOPIC) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(open(refused_directory(name.as_str(), error))),
        Ok(found) => make_room(parent.as_fd(), name.as_str(), &found)?,
    }
    let built = fill(parent.as_fd(), name.as_str(), options, carried, geometry);
    if built.is_err() {
        drop(parent); // its descriptor may be the one that is wanted
        name.prune(root);
    }
    built
}

/// The files were read, and are no topic: not merely another version's, or not to be read here.
fn is_damage(error: &OpenError) -> bool {
    matches!(
        error,
        OpenError::Corrupt { .. }
            | OpenError::Foreign { .. }
            | OpenError::Short { .. }
            | OpenError::Header { .. }
    )
}

/// Takes away what stands under the name of a new topic, if that is a removed one or a damaged one in which nobody lives.
fn make_room(
    parent: BorrowedFd<'_>,
    name: &str,
    found: &OwnedFd,
) -> Result<(), NotBuilt<CreateError>> {
    let refused = |error| Err(NotBuilt::Open(CreateError::Open(error)));
    match View::open(name, found) {
        Err(OpenError::Retired { .. }) => Ok(removal::finish(parent, TOPIC, found.as_fd())?),
        Err(damage) if is_damage(&damage) => {
            match removal::remove(parent, TOPIC, found.as_fd(), Terms::Damaged) {
                Ok(Decision::Mine | Decision::Made) => Ok(()),
                Ok(Decision::InUse(_)) | Err(_) => refused(damage),
            }
        }
        Err(error @ OpenError::Io { .. }) => refused(error),
        // A topic; or one that may not be read here, or is another version's.
        Ok(_) | Err(_) => Err(io::Error::from(io::ErrorKind::AlreadyExists).into()),
    }
}

fn fill(
    parent: BorrowedFd<'_>,
    name: &str,
    options: &TopicOptions,
    carried: &Carried,
    geometry: &Geometry,
) -> Result<Attachment, NotBuilt<CreateError>> {
    let needed = geometry.data_len() + geometry.control_len();
    let filesystem = shm::filesystem(parent)?;
    // A tmpfs without a limit says 0 of 0.
    if filesystem.total_bytes != 0 && filesystem.available_bytes < needed {
        return Err(io::Error::from(io::ErrorKind::StorageFull).into());
    }
    let (draft, ctl) = Draft::begin(parent, TOPIC, options.mode)?;
    let instance = directory::random();
    let now_ns = clock::realtime_ns();
    let (header, control) = header::write(carried, geometry, options, instance, now_ns);
    shm::allocate(ctl.as_fd(), geometry.control_len())?;
    shm::write_all_at(ctl.as_fd(), bytemuck::bytes_of(&control), 0)?;
    crash::point("create.ctl_written");
    debug_assert!(size_of_val(&control) as u64 <= CONTROL_OFFSET);
    let data = shm::create_at(draft.directory(), DATA, options.mode)?;
    shm::allocate(data.as_fd(), geometry.data_len())?;
    crash::point("create.data_allocated");
    shm::write_all_at(data.as_fd(), bytemuck::bytes_of(&header), 0)?;
    crash::point("create.header_written");
    let blocks = u64::from(geometry.blocks);
    let table: Vec<u64> = (0..blocks).map(|index| table::initial(index, blocks)).collect();
    shm::write_all_at(data.as_fd(), bytemuck::cast_slice(&table), TABLE_OFFSET)?;
    shm::write_all_at(data.as_fd(), carried.text().as_bytes(), geometry.schema_offset())?;
    crash::point("create.table_written");
    if let Some(gid) = options.group {
        draft.set_group(gid).map_err(|error| group_refused(name, options, error))?;
    }
    let attachment = Attachment::open(name, draft.directory().try_clone_to_owned()?)
        .map_err(CreateError::Open)
        .and_then(|attachment| prefaulted(attachment, options.prefault))
        .map_err(NotBuilt::Open)?;
    draft.publish()?;
    Ok(attachment)
}

/// Only giving something to a group is not permitted to who may make it.
fn group_refused(name: &str, options: &TopicOptions, error: io::Error) -> NotBuilt<CreateError> {
    match options.group {
        Some(gid) if shm::is_not_permitted(&error) => {
            NotBuilt::Open(CreateError::Group { name: name.to_owned(), gid })
        }
        _ => NotBuilt::Io(error),
    }
}
