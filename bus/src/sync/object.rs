//! The file of a synchronisation object: made aside and renamed into place, opened and checked. By the rules of `directory.rs`, as topics.

use std::fmt;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use shmbus_sys::kept::Kept;
use shmbus_sys::map::Mapping;
use shmbus_sys::shm::{self, Access};
use shmbus_sys::spawn::FileId;
use shmbus_sys::{clock, fork};

use crate::crash;
use crate::directory::{self, CONTROL, Directory, Draft, LIVE, NotBuilt, Purpose, SYNC, TopicName};
use crate::error::OptionsError;
use crate::joins::Decision;
use crate::layout::{BYTE_ORDER, PAGE};
use crate::limits::{TooManyHandles, check_page_size};
use crate::removal::{self, Absence, Terms};
use crate::sync::error::{SyncCreateError, SyncOpenError};
use crate::sync::layout::{
    CONTROL_OFFSET, MEMBERS_LIMIT, MainWords, SYNC_MAGIC, SYNC_VERSION, SyncControl, SyncHeader,
};
use crate::sync::region::{SyncRegion, data_offset};
use crate::sync::wait;

/// Files of an object: `ctl`, `live`.
const FILES: u64 = 2;
/// Most permits of a semaphore.
pub(crate) const PERMITS_MAX: u32 = i32::MAX as u32;
/// The parameter of an event.
pub(crate) const AUTO: u64 = 0;
pub(crate) const MANUAL: u64 = 1;

/// How often creating or opening begins again because the object appeared or vanished meanwhile.
const TRIES: u32 = 100;

/// What a synchronisation object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u32)]
pub enum SyncKind {
    /// [`RobustMutex`](crate::sync::RobustMutex)
    Mutex = 1,
    /// [`Condvar`](crate::sync::Condvar)
    Condvar = 2,
    /// [`Semaphore`](crate::sync::Semaphore)
    Semaphore = 3,
    /// [`RwLock`](crate::sync::RwLock)
    RwLock = 4,
    /// [`Barrier`](crate::sync::Barrier)
    Barrier = 5,
    /// [`Event`](crate::sync::Event)
    Event = 6,
    /// [`OnceCell`](crate::sync::OnceCell)
    Once = 7,
}

impl SyncKind {
    const ALL: [SyncKind; 7] = [
        SyncKind::Mutex,
        SyncKind::Condvar,
        SyncKind::Semaphore,
        SyncKind::RwLock,
        SyncKind::Barrier,
        SyncKind::Event,
        SyncKind::Once,
    ];

    /// What the creator of such an object chooses, by its name, and from what to what. `None`: nothing.
    fn parameter(self, members_max: u32) -> Option<(&'static str, u64, u64)> {
        match self {
            SyncKind::Semaphore => Some(("permits", 0, PERMITS_MAX.into())),
            // More could never be there together.
            SyncKind::Barrier => Some(("parties", 1, members_max.into())),
            SyncKind::Event => Some(("reset", AUTO, MANUAL)),
            SyncKind::Mutex | SyncKind::Condvar | SyncKind::RwLock | SyncKind::Once => None,
        }
    }

    fn of(number: u32) -> Option<SyncKind> {
        SyncKind::ALL.into_iter().find(|kind| *kind as u32 == number)
    }
}

impl fmt::Display for SyncKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SyncKind::Mutex => "mutex",
            SyncKind::Condvar => "condvar",
            SyncKind::Semaphore => "semaphore",
            SyncKind::RwLock => "rwlock",
            SyncKind::Barrier => "barrier",
            SyncKind::Event => "event",
            SyncKind::Once => "once",
        })
    }
}

/// Options of a new synchronisation object. One that exists keeps its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncOptions {
    /// Handles that may be open at the same time, in all processes together: 1 to 126. Each costs 4 KiB.
    pub members_max: u32,
    /// Permission bits of its file. Whoever may write it is trusted with everything in the object.
    pub mode: u32,
}

impl Default for SyncOptions {
    fn default() -> SyncOptions {
        SyncOptions { members_max: 16, mode: 0o600 }
    }
}

/// What an object must be to be opened as what is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) kind: SyncKind,
    /// Whether handles are members.
    pub(crate) has_members: bool,
    pub(crate) data_size: u64,
    pub(crate) data_align: u64,
}

impl Shape {
    /// With data of type `T`.
    pub(crate) const fn of<T: bytemuck::Pod>(kind: SyncKind, has_members: bool) -> Shape {
        let (data_size, data_align) = (size_of::<T>() as u64, align_of::<T>() as u64);
        Shape { kind, has_members, data_size, data_align }
    }
}

/// What a new object holds; everything else is 0.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Initial<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) word: u32,
    pub(crate) state: u32,
    pub(crate) value: u64,
    /// What its creator chooses: see [`SyncHeader::parameter`].
    pub(crate) parameter: u64,
}

/// An open object: checked header, mapped file.
pub(crate) struct Object {
    pub(crate) name: String,
    pub(crate) kind: SyncKind,
    pub(crate) header: SyncHeader,
    pub(crate) region: SyncRegion,
    /// The file, and its directory, for those who join.
    pub(crate) ctl: Kept,
    pub(crate) directory: Kept,
}

impl Object {
    /// Whether it is what `initial` would have made of it.
    fn agrees(self, initial: &Initial<'_>) -> Result<Object, SyncOpenError> {
        let (found, expected) = (self.header.parameter, initial.parameter);
        match self.kind.parameter(self.region.members_max()) {
            Some((parameter, ..)) if found != expected => {
                let text = |value: u64| match (self.kind, value) {
                    (SyncKind::Event, AUTO) => "auto".to_owned(),
                    (SyncKind::Event, _) => "manual".to_owned(),
                    (_, value) => value.to_string(),
                };
                let (found, expected) = (text(found), text(expected));
                Err(SyncOpenError::Parameter { name: self.name, parameter, found, expected })
            }
            _ => Ok(self),
        }
    }

    pub(crate) fn open(
        directory: &Directory,
        name: &str,
        shape: &Shape,
    ) -> Result<Object, SyncOpenError> {
        let (parent, found) = open_both(directory, name, Purpose::Join)?;
        let tidied = found.try_clone();
        let tidied = tidied.map_err(|source| refused(name, "open its directory", source))?;
        Object::open_in(name, found, Some(shape), Access::ReadWrite)
            .inspect_err(|error| tidy(error, parent.as_fd(), &tidied))
    }

    /// Opens an object of any kind.
    pub(crate) fn open_any(
        directory: &Directory,
        name: &str,
        access: Access,
    ) -> Result<Object, SyncOpenError> {
        let purpose = match access {
            Access::ReadOnly => Purpose::Observe,
            Access::ReadWrite => Purpose::Join,
        };
        Object::open_in(name, open_directory(directory, name, purpose)?, None, access)
    }

    /// Opens the object in its own directory, as one of a shape, or of any.
    pub(crate) fn open_in(
        name: &str,
        directory: OwnedFd,
        shape: Option<&Shape>,
        access: Access,
    ) -> Result<Object, SyncOpenError> {
        fork::install();
        if shape.is_some_and(|shape| shape.has_members) {
            check_page_size()?;
        }
        let failed = |action| move |source| refused(name, action, source);
        let ctl = shm::open_at(directory.as_fd(), CONTROL, access);
        let ctl = ctl.map_err(|source| refused_in(name, &directory, "open ctl", source))?;
        let len = shm::len(ctl.as_fd()).map_err(failed("stat ctl"))?;
        let mut header: SyncHeader = bytemuck::Zeroable::zeroed();
        let expected = size_of::<SyncHeader>() as u64;
        if len < expected {
            return Err(SyncOpenError::Short { name: name.to_owned(), len, expected });
        }
        let bytes = bytemuck::bytes_of_mut(&mut header);
        shm::read_exact_at(ctl.as_fd(), bytes, 0).map_err(failed("read its header"))?;
        let kind = check(name, &header, len, shape)?;
        let mapping = match access {
            Access::ReadOnly => Mapping::read_only(ctl.as_fd(), header.len as usize),
            Access::ReadWrite => Mapping::read_write(ctl.as_fd(), header.len as usize),
        };
        let mapping = mapping.map_err(failed("map ctl"))?;
        let region = SyncRegion::new(header.members_max, header.data_size, mapping)
            .ok_or_else(|| SyncOpenError::Header { name: name.to_owned(), field: "len" })?;
        if wait::is_retired(&region) {
            return Err(SyncOpenError::Removed { name: name.to_owned() });
        }
        let live = FileId::at(directory.as_fd(), LIVE);
        live.map_err(|source| refused_in(name, &directory, "find live", source))?;
        let kept = |fd| Kept::new(fd).map_err(failed("stat ctl"));
        let (ctl, directory) = (kept(ctl)?, kept(directory)?);
        Ok(Object { name: name.to_owned(), kind, header, region, ctl, directory })
    }

    pub(crate) fn create(
        directory: &Directory,
        name: &str,
        options: &SyncOptions,
        shape: &Shape,
        initial: &Initial<'_>,
    ) -> Result<Object, SyncCreateError> {
        let topic = TopicName::of_new(name)?;
        check_options(options, shape, initial)?;
        if shape.has_members {
            check_page_size()?;
        }
        let root = directory.open()?;
        for attempt in 1.. {
            match build(root.as_fd(), &topic, options, shape, initial, attempt == 1) {
                Ok(made) => return Ok(made),
                // A remover pruned the directory above, or somebody took the draft for a leftover.
                Err(NotBuilt::Io(error))
                    if error.kind() == io::ErrorKind::NotFound && attempt < TRIES => {}
                Err(NotBuilt::Open(SyncOpenError::NotFound { .. })) if attempt < TRIES => {}
                Err(NotBuilt::Open(error)) => return Err(SyncCreateError::Open(error)),
                Err(NotBuilt::Io(error)) => {
                    let needed = len(members_max(options, shape), shape.data_size);
                    let needed = needed.unwrap_or(u64::MAX);
                    return Err(not_created(directory, root.as_fd(), &topic, needed, error));
                }
            }
        }
        Err(not_created(directory, root.as_fd(), &topic, 0, io::ErrorKind::NotFound.into()))
    }

    /// Opens or creates an object, and joins it by `join`: begins again if it is removed meanwhile.
    pub(crate) fn open_or_create<R>(
        directory: &Directory,
        name: &str,
        options: &SyncOptions,
        shape: &Shape,
        initial: &Initial<'_>,
        join: impl Fn(Object) -> Result<R, SyncOpenError>,
    ) -> Result<R, SyncCreateError> {
        check_options(options, shape, initial)?;
        for _ in 0..TRIES {
            let found = Object::open(directory, name, shape);
            let opened = match found.and_then(|object| object.agrees(initial)) {
                // Creating replaces it if it can.
                Err(
                    SyncOpenError::NotFound { .. }
                    | SyncOpenError::Removed { .. }
                    | SyncOpenError::Corrupt { .. },
                ) => Object::create(directory, name, options, shape, initial),
                opened => opened.map_err(SyncCreateError::Open),
            };
            let joined = opened.and_then(|object| join(object).map_err(SyncCreateError::Open));
            match joined {
                Err(
                    SyncCreateError::Exists { .. }
                    | SyncCreateError::Open(
                        SyncOpenError::NotFound { .. } | SyncOpenError::Removed { .. },
                    ),
                ) => {}
                other => return other,
            }
        }
        Err(SyncCreateError::Open(SyncOpenError::Removed { name: name.to_owned() }))
    }
}

/// Which error it is that an object of `needed` bytes cannot be made.
fn not_created(
    directory: &Directory,
    root: BorrowedFd<'_>,
    topic: &TopicName,
    needed: u64,
    source: io::Error,
) -> SyncCreateError {
    let (name, action) = (topic.as_str().to_owned(), "create it");
    let path = directory.path().to_path_buf();
    match source.kind() {
        io::ErrorKind::AlreadyExists => SyncCreateError::Exists { name },
        io::ErrorKind::FileTooLarge => {
            let limit = shm::file_size_limit().unwrap_or(u64::MAX);
            SyncCreateError::FileSizeLimit { name, needed, limit }
        }
        io::ErrorKind::StorageFull => match shm::filesystem(root) {
            Ok(found) => match directory::lacks_inodes(&found, needed, topic, FILES) {
                Some(needed) => {
                    let available = found.available_inodes;
                    SyncCreateError::NoInodes { name, needed, available, path }
                }
                None => {
                    let available = found.available_bytes;
                    SyncCreateError::NoSpace { name, needed, available, path }
                }
            },
            Err(source) => SyncCreateError::Io { name, action, source },
        },
        _ => match TooManyHandles::of(&source) {
            Some(error) => error.into(),
            None => SyncCreateError::Io { name, action, source },
        },
    }
}

fn check_options(
    options: &SyncOptions,
    shape: &Shape,
    initial: &Initial<'_>,
) -> Result<(), OptionsError> {
    let in_range = |field, given: u64, min: u64, max: u64| {
        let holds = (min..=max).contains(&given);
        if holds { Ok(()) } else { Err(OptionsError::Range { field, given, min, max }) }
    };
    in_range("members_max", options.members_max.into(), 1, MEMBERS_LIMIT.into())?;
    in_range("mode", options.mode.into(), 0o600, 0o777)?;
    match shape.kind.parameter(options.members_max) {
        Some((field, min, max)) => in_range(field, initial.parameter, min, max),
        None => Ok(()),
    }
}

fn members_max(options: &SyncOptions, shape: &Shape) -> u32 {
    if shape.has_members { options.members_max } else { 0 }
}

/// Length of the file. `None`: more than there is.
fn len(members_max: u32, data_size: u64) -> Option<u64> {
    data_offset(members_max).checked_add(data_size.checked_next_multiple_of(PAGE)?)
}

fn is_parameter(kind: SyncKind, header: &SyncHeader) -> bool {
    let range = kind.parameter(header.members_max);
    range.is_none_or(|(_, min, max)| (min..=max).contains(&header.parameter))
}

/// Checks the header of object `name`, and whether it is of a shape. What it is.
fn check(
    name: &str,
    header: &SyncHeader,
    file_len: u64,
    shape: Option<&Shape>,
) -> Result<SyncKind, SyncOpenError> {
    let name = || name.to_owned();
    let corrupt = |field| SyncOpenError::Header { name: name(), field };
    if header.magic != SYNC_MAGIC {
        return Err(SyncOpenError::Foreign { name: name() });
    }
    if header.byte_order == BYTE_ORDER.swap_bytes() {
        return Err(SyncOpenError::ByteOrder { name: name() });
    }
    if header.byte_order != BYTE_ORDER {
        return Err(corrupt("byte_order"));
    }
    if header.version != SYNC_VERSION {
        let found = header.version;
        return Err(SyncOpenError::Version { name: name(), found, expected: SYNC_VERSION });
    }
    let kind = SyncKind::of(header.kind).ok_or_else(|| corrupt("kind"))?;
    let align = header.data_align;
    let fields = [
        ("members_max", header.members_max <= MEMBERS_LIMIT),
        ("data_align", align.is_power_of_two() && align <= PAGE),
        ("data_size", header.data_size.is_multiple_of(align.max(1))),
        ("len", Some(header.len) == len(header.members_max, header.data_size)),
        ("parameter", is_parameter(kind, header)),
    ];
    if let Some((field, _)) = fields.iter().find(|(_, holds)| !holds) {
        return Err(corrupt(field));
    }
    if let Some(shape) = shape {
        if kind != shape.kind {
            return Err(SyncOpenError::Kind { name: name(), found: kind, expected: shape.kind });
        }
        if (header.members_max > 0) != shape.has_members {
            return Err(corrupt("members_max"));
        }
        for (field, found, expected) in [
            ("size", header.data_size, shape.data_size),
            ("alignment", header.data_align, shape.data_align),
        ] {
            if found != expected {
                return Err(SyncOpenError::Type { name: name(), field, found, expected });
            }
        }
    }
    if file_len < header.len {
        return Err(SyncOpenError::Short { name: name(), len: file_len, expected: header.len });
    }
    Ok(kind)
}

/// Builds an object aside, opens it and publishes it, in the place of what is damaged under its name, if that can be replaced.
fn build(
    root: BorrowedFd<'_>,
    name: &TopicName,
    options: &SyncOptions,
    shape: &Shape,
    initial: &Initial<'_>,
    first_attempt: bool,
) -> Result<Object, NotBuilt<SyncOpenError>> {
    let parent = name.make_in(root, options.mode, None).inspect_err(|_| name.prune(root))?;
    if first_attempt {
        directory::remove_leftovers(parent.as_fd())?;
    }
    match shm::open_directory_at(parent.as_fd(), SYNC) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(NotBuilt::Open(refused_directory(name.as_str(), error))),
        Ok(found) => make_room(parent.as_fd(), name.as_str(), &found)?,
    }
    let built = fill(parent.as_fd(), name.as_str(), options, shape, initial);
    if built.is_err() {
        drop(parent); // its descriptor may be the one that is wanted
        name.prune(root);
    }
    built
}

/// As for topics: takes away what stands under the name of a new object, if that is a removed one or a damaged one that nobody has open.
fn make_room(
    parent: BorrowedFd<'_>,
    name: &str,
    found: &OwnedFd,
) -> Result<(), NotBuilt<SyncOpenError>> {
    let directory = found.try_clone()?;
    match Object::open_in(name, directory, None, Access::ReadOnly) {
        Err(SyncOpenError::Removed { .. }) => Ok(removal::finish(parent, SYNC, found.as_fd())?),
        Err(damage) if damage.is_damage() => {
            match removal::remove(parent, SYNC, found.as_fd(), Terms::Damaged) {
                Ok(Decision::Mine | Decision::Made) => Ok(()),
                Ok(Decision::InUse(_)) | Err(_) => Err(NotBuilt::Open(damage)),
            }
        }
        Err(error @ SyncOpenError::Io { .. }) => Err(NotBuilt::Open(error)),
        Ok(_) | Err(_) => Err(io::Error::from(io::ErrorKind::AlreadyExists).into()),
    }
}

/// Goes on with the removal of an object that was found removed under its name, if this process may.
pub(crate) fn tidy(error: &SyncOpenError, parent: BorrowedFd<'_>, directory: &OwnedFd) {
    if matches!(error, SyncOpenError::Removed { .. }) {
        let _ = removal::finish(parent, SYNC, directory.as_fd());
    }
}

fn fill(
    parent: BorrowedFd<'_>,
    name: &str,
    options: &SyncOptions,
    shape: &Shape,
    initial: &Initial<'_>,
) -> Result<Object, NotBuilt<SyncOpenError>> {
    let members_max = members_max(options, shape);
    let len =
        len(members_max, shape.data_size).ok_or(io::Error::from(io::ErrorKind::StorageFull))?;
    let filesystem = shm::filesystem(parent)?;
    // A tmpfs without a limit says 0 of 0.
    if filesystem.total_bytes != 0 && filesystem.available_bytes < len {
        return Err(io::Error::from(io::ErrorKind::StorageFull).into());
    }
    let mut header: SyncHeader = bytemuck::Zeroable::zeroed();
    header.magic = SYNC_MAGIC;
    header.version = SYNC_VERSION;
    header.byte_order = BYTE_ORDER;
    header.instance = directory::random();
    header.len = len;
    header.created_ns = clock::realtime_ns();
    header.kind = shape.kind as u32;
    header.members_max = members_max;
    header.data_size = shape.data_size;
    header.data_align = shape.data_align;
    header.parameter = initial.parameter;
    let (draft, ctl) = Draft::begin(parent, SYNC, options.mode)?;
    shm::allocate(ctl.as_fd(), len)?;
    let main = CONTROL_OFFSET + offset_of!(SyncControl, main) as u64;
    let at = |field: usize| main + field as u64;
    for (bytes, offset) in [
        (bytemuck::bytes_of(&header), 0),
        (&initial.word.to_le_bytes(), at(offset_of!(MainWords, word))),
        (&initial.state.to_le_bytes(), at(offset_of!(MainWords, state))),
        (&initial.value.to_le_bytes(), at(offset_of!(MainWords, value))),
        (initial.data, data_offset(members_max)),
    ] {
        shm::write_all_at(ctl.as_fd(), bytes, offset)?;
    }
    crash::point("sync.create.written");
    let made = draft.directory().try_clone_to_owned()?;
    let object = Object::open_in(name, made, Some(shape), Access::ReadWrite);
    let object = object.map_err(NotBuilt::Open)?;
    draft.publish()?;
    Ok(object)
}

/// Opens the directory in which object `name` is looked for.
pub(crate) fn find(
    directory: &Directory,
    name: &str,
    purpose: Purpose,
) -> Result<OwnedFd, SyncOpenError> {
    directory.find(purpose)?.ok_or_else(|| SyncOpenError::NotFound { name: name.to_owned() })
}

fn open_directory(
    directory: &Directory,
    name: &str,
    purpose: Purpose,
) -> Result<OwnedFd, SyncOpenError> {
    Ok(open_both(directory, name, purpose)?.1)
}

/// The object's own directory, behind the one above it.
fn open_both(
    directory: &Directory,
    name: &str,
    purpose: Purpose,
) -> Result<(OwnedFd, OwnedFd), SyncOpenError> {
    let topic = TopicName::new(name)?;
    let root = find(directory, name, purpose)?;
    let parent = topic.open_in(root.as_fd());
    let parent = parent.map_err(|source| refused(name, "open its directory", source))?;
    let found = shm::open_directory_at(parent.as_fd(), SYNC);
    Ok((parent, found.map_err(|source| refused_directory(name, source))?))
}

/// Which error a refusal of the kernel is to open an object's own directory.
pub(crate) fn refused_directory(name: &str, source: io::Error) -> SyncOpenError {
    match directory::is_no_directory(&source) {
        true => SyncOpenError::Foreign { name: name.to_owned() },
        false => refused(name, "open its directory", source),
    }
}

/// Which error a refusal of the kernel is, for a file in an object's own directory: if it is not there, it was taken by a remover, or by something else.
pub(crate) fn refused_in(
    name: &str,
    directory: &OwnedFd,
    action: &'static str,
    source: io::Error,
) -> SyncOpenError {
    if source.kind() != io::ErrorKind::NotFound {
        return refused(name, action, source);
    }
    match removal::absence(directory.as_fd(), SYNC) {
        Ok(Absence::Removed) => SyncOpenError::Removed { name: name.to_owned() },
        Ok(Absence::Missing(missing)) => SyncOpenError::Corrupt { name: name.to_owned(), missing },
        Err(source) => refused(name, action, source),
    }
}

/// Which error a refusal of the kernel is.
pub(crate) fn refused(name: &str, action: &'static str, source: io::Error) -> SyncOpenError {
    if let Some(error) = TooManyHandles::of(&source) {
        return error.into();
    }
    let name = name.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied => SyncOpenError::Permission { name, action },
        io::ErrorKind::NotFound => SyncOpenError::NotFound { name },
        _ => SyncOpenError::Io { name, action, source },
    }
}
