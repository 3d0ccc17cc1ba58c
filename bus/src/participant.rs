//! A process's place in a topic: the attachment (files, lease descriptor) and the entries that it owns.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use shmbus_sys::exit::AtExit;
use shmbus_sys::kept::Kept;
use shmbus_sys::lease::Lease;
use shmbus_sys::map::Mapping;
use shmbus_sys::shm::{self, Access};
use shmbus_sys::{clock, fork, process};

use crate::atomics::{Acquire, AtomicBool, Relaxed, Release, SeqCst, fence};
use crate::bell::Barrier;
use crate::crash;
use crate::deletion::Looked;
use crate::directory::{CONTROL, DATA, LIVE, TOPIC};
use crate::error::{AttachError, OpenError};
use crate::header::{self, Description};
use crate::layout::{ControlHeader, DataHeader, ENTRY_LEASES, PAGE_LEASE};
use crate::limits::TooManyHandles;
use crate::recovery::{self, Dead};
use crate::region::{EntryIndex, Region};
use crate::registry::{self, Kind, State};
use crate::removal::{self, Absence};
use crate::ring::Geometry;

/// An open topic: checked header, read-only region, and one lease descriptor for all handles made from it.
pub(crate) struct Attachment {
    pub(crate) name: String,
    pub(crate) description: Description,
    pub(crate) region: Arc<Region>,
    /// Whether regions that are mapped from now on have all their pages mapped at once.
    pub(crate) prefault: AtomicBool,
    pub(crate) place: Place,
    leases: Leases,
    /// Entries whose lease `leases` holds: the kernel does not tell a description about its own locks.
    owned: Mutex<Vec<bool>>,
    fork_generation: u32,
    pub(crate) looked: Looked,
}

impl Attachment {
    /// Opens the topic in `directory`, which is called `name`.
    pub(crate) fn open(name: &str, directory: OwnedFd) -> Result<Attachment, OpenError> {
        Attachment::open_as(name, directory, Access::ReadOnly)
    }

    /// The same with `data` mapped as said.
    pub(crate) fn open_as(
        name: &str,
        directory: OwnedFd,
        access: Access,
    ) -> Result<Attachment, OpenError> {
        fork::install();
        let lease = Lease::open_at(directory.as_fd(), LIVE);
        let lease = lease.map_err(|source| refused_in(name, &directory, "open live", source))?;
        let (region, description) = map(name, &directory, access, Access::ReadWrite)?;
        if region.control().notices.0.joins.is_retired() {
            return Err(OpenError::Retired { name: name.to_owned() });
        }
        let owned = Mutex::new(vec![false; region.geometry().participants() as usize]);
        let directory =
            Kept::new(directory).map_err(|source| refused(name, "stat its directory", source))?;
        Ok(Attachment {
            name: name.to_owned(),
            description,
            region: Arc::new(region),
            prefault: AtomicBool::new(false),
            place: Place::Directory(directory),
            leases: Leases::Bytes(lease),
            owned,
            fork_generation: fork::generation(),
            looked: Looked::never(),
        })
    }

    /// One of a guarded topic, by what its broker has handed out. `entry` is the caller's own, where it has one.
    pub(crate) fn guarded(
        name: &str,
        socket: &Path,
        (region, description): (Region, Description),
        pages: Vec<Option<Lease>>,
        entry: Option<(EntryIndex, Lease)>,
    ) -> Attachment {
        let mut owned = vec![false; region.geometry().participants() as usize];
        let mut own = None;
        if let Some((index, lease)) = entry {
            owned[index.0 as usize] = true;
            own = Some(lease);
        }
        Attachment {
            name: name.to_owned(),
            description,
            region: Arc::new(region),
            prefault: AtomicBool::new(false),
            place: Place::Broker(socket.to_path_buf()),
            leases: Leases::Pages { pages, own },
            owned: Mutex::new(owned),
            fork_generation: fork::generation(),
            looked: Looked::never(),
        }
    }

    /// The participant of an entry of a guarded topic that was handed out with its lease.
    pub(crate) fn seat(self: Arc<Attachment>, index: EntryIndex, generation: u64) -> Participant {
        let region = Arc::clone(&self.region);
        let at_exit = state_itself(&region, index, generation);
        Participant { attachment: self, region, index, generation, _at_exit: at_exit }
    }

    /// The same of the publisher: also the owner before, where it is found dead by that.
    pub(crate) fn seat_publisher(
        self: Arc<Attachment>,
        index: EntryIndex,
    ) -> (Participant, Option<Dead>) {
        let dead = recovery::take_death(&self.region, index);
        let generation = registry::occupy(&self.region, index);
        (self.seat(index, generation), dead)
    }

    /// Tells everybody attached that the topic is gone. Of one whose name is removed: `removal.rs`.
    pub(crate) fn retire(&self) {
        let control = self.region.control();
        control.notices.0.joins.retire();
        for index in self.region.subscribers() {
            self.region.subscribers_bell(index).ring(Barrier::Fence);
            self.region.publishers_bell(index).ring(Barrier::Fence);
        }
    }

    /// Whether `live` was deleted. A guarded topic's files never had a name.
    pub(crate) fn is_deleted(&self) -> bool {
        matches!(&self.leases, Leases::Bytes(lease) if lease.is_unlinked())
    }

    /// Whether this is a forked child, in which the mappings do not exist.
    #[inline]
    pub(crate) fn is_forked(&self) -> bool {
        self.fork_generation != fork::generation()
    }

    /// The same topic with `data` mapped for writing.
    pub(crate) fn writable_region(&self) -> Result<Arc<Region>, OpenError> {
        if self.region.is_writable() {
            return Ok(Arc::clone(&self.region));
        }
        let Place::Directory(directory) = &self.place else {
            let (name, action) = (self.name.clone(), "write it without a grant");
            return Err(OpenError::Permission { name, action });
        };
        let (region, description) =
            map(&self.name, directory, Access::ReadWrite, Access::ReadWrite)?;
        if description.instance != self.description.instance {
            return Err(OpenError::Header { name: self.name.clone(), field: "instance" });
        }
        Ok(Arc::new(region))
    }

    /// Maps all pages of a region of this topic, if that was asked for.
    pub(crate) fn prefault(&self, region: &Region) -> Result<(), OpenError> {
        if self.prefault.load(Relaxed) {
            region.prefault().map_err(|source| refused(&self.name, "map all its pages", source))?;
        }
        Ok(())
    }

    /// Whether the owner of an entry lives; true also for this attachment's own entries.
    pub(crate) fn is_held(&self, index: EntryIndex) -> io::Result<bool> {
        let owned = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
        if owned[index.0 as usize] {
            return Ok(true);
        }
        self.leases.is_held_by_another(index)
    }

    /// As [`Attachment::is_held`]; whoever cannot be asked about counts as alive.
    pub(crate) fn lives(&self, index: EntryIndex) -> bool {
        self.is_held(index).unwrap_or(true)
    }

    /// Declares dead shared publishers dead.
    pub(crate) fn sweep_publishers(&self) -> u32 {
        let region = &*self.region;
        recovery::sweep(region, region.publishers(), |index| self.lives(index))
    }

    /// Declares whoever is dead in it dead: subscribers and publishers. Whoever cannot be asked about counts as alive.
    pub(crate) fn sweep_all(&self) -> u32 {
        let region = &*self.region;
        recovery::sweep(region, region.entries(), |index| self.is_held(index).unwrap_or(true))
    }

    /// Takes an entry of `candidates` whose lease is free, entries that nobody used last first. Also the owner before, where it is found
    /// dead by that.
    pub(crate) fn occupy(
        self: &Arc<Attachment>,
        region: &Arc<Region>,
        candidates: impl Iterator<Item = EntryIndex> + Clone,
    ) -> Result<Option<(Participant, Option<Dead>)>, AttachError> {
        let mut owned = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
        for all in [false, true] {
            for index in candidates.clone() {
                let state = State::of(region.entry(index).state.load(Acquire)); // [entry]: before the lease is asked for
                // The second time all of them: one that counted at the first may have been declared dead since.
                if owned[index.0 as usize] || (state.kind.is_active() && !all) {
                    continue;
                }
                // Before the lease is taken, with which it would be a living one's entry that counts, as long as this thread stands here.
                if state.kind.is_active() {
                    let held = self.leases.is_held_by_another(index);
                    if held.map_err(|source| AttachError::Lease { source })? {
                        continue;
                    }
                    registry::declare_dead(region, index, state);
                }
                let taken = self.leases.take(index);
                if !taken.map_err(|source| AttachError::Lease { source })? {
                    continue;
                }
                crash::point("join.leased");
                if !region.control().notices.0.joins.join() {
                    let _ = self.leases.release(index); // else it ends with the attachment
                    return Err(AttachError::Retired);
                }
                owned[index.0 as usize] = true;
                let dead = recovery::take_death(region, index);
                let generation = registry::occupy(region, index);
                let _at_exit = state_itself(region, index, generation);
                let (attachment, region) = (Arc::clone(self), Arc::clone(region));
                let participant = Participant { attachment, region, index, generation, _at_exit };
                return Ok(Some((participant, dead)));
            }
        }
        Ok(None)
    }
}

/// An owned entry. Dropped, it is given back, then its lease.
pub(crate) struct Participant {
    pub(crate) attachment: Arc<Attachment>,
    pub(crate) region: Arc<Region>,
    pub(crate) index: EntryIndex,
    pub(crate) generation: u64,
    /// Without it (no memory), an end in order is taken for a death.
    _at_exit: Option<AtExit>,
}

impl Participant {
    /// Whether the entry is not its own any more: its parent's, in a forked child, where nothing is mapped either; or anybody's, where the process has closed the
    /// descriptor with the lease.
    fn is_gone(&self) -> bool {
        self.attachment.is_forked() || !self.attachment.leases.are_intact()
    }

    /// Stops holding publishers up, while its held samples stay as they are.
    pub(crate) fn stop_receiving(&self) {
        if self.is_gone() {
            return;
        }
        let entry = self.region.entry(self.index);
        let state = State { generation: self.generation, kind: Kind::Lossy };
        entry.state.store(state.word(), Relaxed); // what it reads, its pin says
        crash::point("leave.lossy");
        entry.pin.store(0, Release); // [last use]
        self.ring_publishers();
    }

    fn ring_publishers(&self) {
        fence(SeqCst); // [cursor/publisher]
        self.region.publishers_bell(self.index).ring_after_fence();
    }
}

impl Drop for Participant {
    fn drop(&mut self) {
        if self.is_gone() {
            return;
        }
        let owned = &self.attachment.owned;
        let mut owned = owned.lock().unwrap_or_else(PoisonError::into_inner);
        registry::vacate(&self.region, self.index, self.generation);
        crash::point("leave.vacated");
        self.ring_publishers();
        crash::point("leave.rung");
        // If the kernel refuses, the lease ends with the descriptor: the entry is free then, and nobody's till then.
        if self.attachment.leases.release(self.index).is_ok() {
            crash::point("leave.released");
            owned[self.index.0 as usize] = false;
        }
    }
}

/// Who the owner of an entry is, for people; and, when its process ends in order, that it did.
fn state_itself(region: &Arc<Region>, index: EntryIndex, generation: u64) -> Option<AtExit> {
    let entry = region.entry(index);
    entry.pid.store(process::pid(), Relaxed);
    entry.joined_ns.store(clock::realtime_ns(), Relaxed);
    let region = Arc::downgrade(region);
    let ends = move || {
        if let Some(region) = region.upgrade() {
            registry::state_end(&region, index, generation);
        }
    };
    AtExit::new(ends).ok()
}

/// From where an attachment has what it has.
pub(crate) enum Place {
    /// The topic's own directory: stays valid when the topic loses its name.
    Directory(Kept),
    /// The socket of the broker of a guarded topic.
    Broker(PathBuf),
}

/// With what an attachment takes leases, and asks for those of others.
enum Leases {
    /// A description of `live`, of which each entry has a byte.
    Bytes(Lease),
    /// Of a guarded topic, a description for each page that is mapped, to ask with. Its own entry's lease came with a description that holds it.
    Pages { pages: Vec<Option<Lease>>, own: Option<Lease> },
}

impl Leases {
    fn is_held_by_another(&self, index: EntryIndex) -> io::Result<bool> {
        match self {
            Leases::Bytes(lease) => lease.is_held_by_another(lease_byte(index)),
            Leases::Pages { pages, .. } => match pages.get(index.0 as usize) {
                Some(Some(page)) => page.is_held_by_another(PAGE_LEASE),
                _ => Err(io::ErrorKind::Unsupported.into()), // a page that is not mapped here
            },
        }
    }

    /// Whether the own entries are still this attachment's: false where somebody has closed its descriptor.
    fn are_intact(&self) -> bool {
        match self {
            Leases::Bytes(lease) => lease.is_intact(),
            Leases::Pages { own, .. } => own.as_ref().is_none_or(Lease::is_intact),
        }
    }

    fn take(&self, index: EntryIndex) -> io::Result<bool> {
        match self {
            Leases::Bytes(lease) => lease.take(lease_byte(index)),
            Leases::Pages { .. } => Err(io::ErrorKind::Unsupported.into()), // the broker does
        }
    }

    /// A guarded entry's lease ends with its attachment, which is its participant's alone.
    fn release(&self, index: EntryIndex) -> io::Result<()> {
        match self {
            Leases::Bytes(lease) => lease.release(lease_byte(index)),
            Leases::Pages { .. } => Ok(()),
        }
    }
}

/// The byte of `live` whose lock is the lease of an entry.
pub(crate) fn lease_byte(index: EntryIndex) -> u64 {
    ENTRY_LEASES + u64::from(index.0)
}

/// Checks and maps the files in a topic's directory, `data` and `ctl` for the access that is asked for; the descriptors are closed
/// again.
pub(crate) fn map(
    name: &str,
    directory: &OwnedFd,
    data_access: Access,
    control_access: Access,
) -> Result<(Region, Description), OpenError> {
    let failed = |action| move |source| refused(name, action, source);
    let (geometry, description, data, ctl) =
        read_headers(name, directory, data_access, control_access)?;
    let mapped = |file: OwnedFd, access, len: u64| match access {
        Access::ReadOnly => Mapping::read_only(file.as_fd(), len as usize),
        Access::ReadWrite => Mapping::read_write(file.as_fd(), len as usize),
    };
    let data = mapped(data, data_access, geometry.data_len()).map_err(failed("map data"))?;
    let ctl = mapped(ctl, control_access, geometry.control_len()).map_err(failed("map ctl"))?;
    let region = Region::new(geometry, data, ctl)
        .ok_or(OpenError::Header { name: name.to_owned(), field: "data_len" })?;
    Ok((region, description))
}

/// Opens both files, reads their header pages and checks them.
fn read_headers(
    name: &str,
    directory: &OwnedFd,
    data_access: Access,
    control_access: Access,
) -> Result<(Geometry, Description, OwnedFd, OwnedFd), OpenError> {
    let failed = |action| move |source| refused_in(name, directory, action, source);
    let data = shm::open_at(directory.as_fd(), DATA, data_access).map_err(failed("open data"))?;
    let ctl = shm::open_at(directory.as_fd(), CONTROL, control_access);
    let ctl = ctl.map_err(failed("open ctl"))?;
    let (geometry, description) = read_headers_of(name, data.as_fd(), ctl.as_fd())?;
    if geometry.guarded {
        return Err(OpenError::Header { name: name.to_owned(), field: "guarded" });
    }
    Ok((geometry, description, data, ctl))
}

fn read_headers_of(
    name: &str,
    data: BorrowedFd<'_>,
    ctl: BorrowedFd<'_>,
) -> Result<(Geometry, Description), OpenError> {
    let failed = |action| move |source| refused(name, action, source);
    let data_len = shm::len(data).map_err(failed("stat data"))?;
    let control_len = shm::len(ctl).map_err(failed("stat ctl"))?;
    let mut header: DataHeader = bytemuck::Zeroable::zeroed();
    let mut control: ControlHeader = bytemuck::Zeroable::zeroed();
    for (file, fd, len, bytes) in [
        ("data", data, data_len, bytemuck::bytes_of_mut(&mut header)),
        ("ctl", ctl, control_len, bytemuck::bytes_of_mut(&mut control)),
    ] {
        let expected = bytes.len() as u64;
        if len < expected {
            return Err(OpenError::Short { name: name.to_owned(), file, len, expected });
        }
        shm::read_exact_at(fd, bytes, 0).map_err(failed("read its header"))?;
    }
    let (geometry, mut description) =
        header::check(name, &header, &control, data_len, control_len)?;
    let mut schema = vec![0; geometry.schema_len as usize]; // at most 64 KiB
    let read = shm::read_exact_at(data, &mut schema, geometry.schema_offset());
    read.map_err(failed("read its schema"))?;
    description.carried = header::check_schema(name, &header, &schema)?;
    Ok((geometry, description))
}

/// What a guarded topic's files say that a broker has handed out: their headers, checked as those of a file are; and that nobody can cut them.
pub(crate) fn read_guarded_headers(
    name: &str,
    data: BorrowedFd<'_>,
    ctl: BorrowedFd<'_>,
) -> Result<(Geometry, Description), OpenError> {
    let failed = |action| move |source| refused(name, action, source);
    for (file, fd) in [("data", data), ("ctl", ctl)] {
        if !shm::size_is_sealed(fd).map_err(failed("ask for its seals"))? {
            return Err(OpenError::Foreign { name: name.to_owned(), file });
        }
    }
    let (geometry, description) = read_headers_of(name, data, ctl)?;
    if !geometry.guarded {
        return Err(OpenError::Header { name: name.to_owned(), field: "guarded" });
    }
    Ok((geometry, description))
}

/// Which error a refusal of the kernel is, for a file in a topic's own directory: if it is not there, it was taken by a remover, or by something else.
pub(crate) fn refused_in(
    name: &str,
    directory: &OwnedFd,
    action: &'static str,
    source: io::Error,
) -> OpenError {
    if source.kind() != io::ErrorKind::NotFound {
        return refused(name, action, source);
    }
    match removal::absence(directory.as_fd(), TOPIC) {
        Ok(Absence::Removed) => OpenError::Retired { name: name.to_owned() },
        Ok(Absence::Missing(missing)) => OpenError::Corrupt { name: name.to_owned(), missing },
        Err(source) => refused(name, action, source),
    }
}

/// Which error a refusal of the kernel is.
pub(crate) fn refused(name: &str, action: &'static str, source: io::Error) -> OpenError {
    if let Some(error) = TooManyHandles::of(&source) {
        return error.into();
    }
    let name = name.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied => OpenError::Permission { name, action },
        io::ErrorKind::NotFound => OpenError::NotFound { name },
        _ => OpenError::Io { name, action, source },
    }
}
