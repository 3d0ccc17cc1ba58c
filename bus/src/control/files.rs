//! A guarded topic: `data`, `ctl` and a page for each participant, all of them files without a name, of mode 0600, whose length nobody can change.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use shmbus_sys::kept::Kept;
use shmbus_sys::map::{Mapping, Piece, Pieces};
use shmbus_sys::shm::{self, Access};
use shmbus_sys::{clock, unix};

use crate::directory::{self, TopicName};
use crate::error::{CreateError, OpenError, OptionsError};
use crate::header::{self, Description};
use crate::layout::{ENTRIES_OFFSET, PAGE, TABLE_OFFSET};
use crate::limits::check_page_size;
use crate::options::{TopicOptions, Wake};
use crate::participant::{Attachment, read_guarded_headers, refused};
use crate::payload::{Carried, Payload};
use crate::region::Region;
use crate::ring::{Geometry, table};
use crate::schema::Schema;

/// The memory of a guarded topic. It exists as long as this value, a copy of its descriptors or somebody who takes part in it does; it has no name in
/// any file system. A [`Broker`](crate::Broker) hands it out.
///
/// One publisher at a time; up to 64 subscribers, each with an entry in a page of its own; [`hold_blocks`](TopicOptions::hold_blocks) is the budget of each
/// subscriber (2 unless told), so that nobody's holding takes anything from another. Costs 67 descriptors at most ([`GuardedTopic::descriptors`]), and a page for each subscriber.
#[derive(Debug)]
pub struct GuardedTopic {
    pub(crate) name: String,
    pub(crate) data: Kept,
    pub(crate) ctl: Kept,
    pub(crate) pages: Vec<Kept>,
}

impl GuardedTopic {
    /// A new topic of messages of type `T`. [`mode`](TopicOptions::mode) means nothing here; a [`wake`](TopicOptions::wake) of `Auto` is taken as `Fence`, so that
    /// no subscriber has a reason to interrupt its publisher.
    ///
    /// # Errors
    /// See [`CreateError`]: the name, the options (shared publishers among them), or the kernel refuses.
    pub fn create<T: Payload + ?Sized>(
        name: &str,
        options: &TopicOptions,
    ) -> Result<GuardedTopic, CreateError> {
        let carried = T::carried().map_err(OptionsError::Type)?;
        GuardedTopic::create_carrying(name, options, &carried)
    }

    /// The same of messages that `schema` describes; of bytes, where there is none.
    ///
    /// # Errors
    /// As [`GuardedTopic::create`].
    pub fn create_with_schema(
        name: &str,
        options: &TopicOptions,
        schema: Option<&Schema>,
    ) -> Result<GuardedTopic, CreateError> {
        GuardedTopic::create_carrying(name, options, &carried(schema))
    }

    fn create_carrying(
        name: &str,
        options: &TopicOptions,
        carried: &Carried,
    ) -> Result<GuardedTopic, CreateError> {
        let name = TopicName::of_new(name)?;
        check_page_size()?;
        let options = match options.wake {
            Wake::Auto => TopicOptions { wake: Wake::Fence, ..options.clone() },
            _ => options.clone(),
        };
        let geometry = options.geometry_of(carried, true)?;
        build(name.as_str(), &options, carried, &geometry)
            .map_err(|source| CreateError::of(name.as_str(), source))
    }

    /// How many descriptors a topic of these options takes, in each process that has it: two files, and a page for each participant.
    pub fn descriptors(options: &TopicOptions) -> u64 {
        u64::from(options.subscribers_max) + 3
    }

    /// Whether [`GuardedTopic::create_with_schema`] accepts these: without making anything.
    ///
    /// # Errors
    /// See [`CreateError`]: the name or the options.
    pub fn check(
        name: &str,
        options: &TopicOptions,
        schema: Option<&Schema>,
    ) -> Result<(), CreateError> {
        TopicName::new(name)?;
        options.geometry_of(&carried(schema), true)?;
        Ok(())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tells everybody who takes part in it that it is gone, after they have received what is there. For whoever ends its last broker.
    ///
    /// # Errors
    /// It cannot be mapped.
    pub fn retire(&self) -> Result<(), OpenError> {
        let found = self.map(Access::ReadOnly)?;
        Attachment::guarded(&self.name, "".as_ref(), found, Vec::new(), None).retire();
        Ok(())
    }

    /// The topic as publishers map it, `data` for the access that is asked for.
    pub(crate) fn map(&self, access: Access) -> Result<(Region, Description), OpenError> {
        let pages: Vec<_> = self.pages.iter().map(AsFd::as_fd).collect();
        map(&self.name, self.data.as_fd(), access, self.ctl.as_fd(), Access::ReadWrite, &pages, 0)
    }

    /// How many descriptors it has open.
    pub(crate) fn open(&self) -> u64 {
        self.pages.len() as u64 + 2
    }

    /// Passes the descriptors on.
    pub(crate) fn send(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let mut fds = vec![self.data.as_fd(), self.ctl.as_fd()];
        fds.extend(self.pages.iter().map(AsFd::as_fd));
        unix::send(socket, self.name.as_bytes(), &fds)
    }

    /// What [`GuardedTopic::send`] has passed on.
    pub(crate) fn of(name: &[u8], fds: Vec<OwnedFd>) -> io::Result<GuardedTopic> {
        let wrong = || io::Error::from(io::ErrorKind::InvalidData);
        let name = str::from_utf8(name).map_err(|_| wrong())?.to_owned();
        let kept: io::Result<Vec<Kept>> = fds.into_iter().map(Kept::new).collect();
        let mut fds = kept?.into_iter();
        let (data, ctl) = (fds.next().ok_or_else(wrong)?, fds.next().ok_or_else(wrong)?);
        Ok(GuardedTopic { name, data, ctl, pages: fds.collect() })
    }
}

fn carried(schema: Option<&Schema>) -> Carried {
    schema.map_or_else(Carried::bytes, |schema| Carried::of(schema.clone()))
}

/// Checks and maps what is there of a guarded topic: `ctl` and the pages of the entries from `first` on, which are mapped for writing.
pub(crate) fn map(
    name: &str,
    data: BorrowedFd<'_>,
    data_access: Access,
    ctl: BorrowedFd<'_>,
    ctl_access: Access,
    pages: &[BorrowedFd<'_>],
    first: u32,
) -> Result<(Region, Description), OpenError> {
    let failed = |action| move |source| refused(name, action, source);
    let corrupt = |field| OpenError::Header { name: name.to_owned(), field };
    check_page_size()?;
    let (geometry, description) = read_guarded_headers(name, data, ctl)?;
    let mut pieces = vec![Piece {
        fd: ctl,
        at: 0,
        len: ENTRIES_OFFSET as usize,
        is_writable: ctl_access == Access::ReadWrite,
    }];
    let mapped = first..first.saturating_add(pages.len() as u32);
    for (index, fd) in mapped.clone().zip(pages) {
        let is_page = shm::len(*fd).map_err(failed("stat a page"))? >= PAGE
            && shm::size_is_sealed(*fd).map_err(failed("ask for its seals"))?;
        if !is_page || index >= geometry.participants() {
            return Err(corrupt("subscribers_max"));
        }
        let at = ENTRIES_OFFSET + u64::from(index) * PAGE;
        pieces.push(Piece { fd: *fd, at: at as usize, len: PAGE as usize, is_writable: true });
    }
    let len = geometry.data_len() as usize;
    let data = match data_access {
        Access::ReadOnly => Mapping::read_only(data, len),
        Access::ReadWrite => Mapping::read_write(data, len),
    };
    let data = data.map_err(failed("map data"))?;
    let ctl = Pieces::new(geometry.control_span() as usize, &pieces).map_err(failed("map ctl"))?;
    let region = Region::guarded(geometry, data, ctl, mapped).ok_or_else(|| corrupt("data_len"))?;
    Ok((region, description))
}

fn build(
    name: &str,
    options: &TopicOptions,
    carried: &Carried,
    geometry: &Geometry,
) -> io::Result<GuardedTopic> {
    let file = |len| {
        let file = shm::memfd("shmbus")?;
        shm::allocate(file.as_fd(), len)?;
        shm::seal(file.as_fd())?;
        Kept::new(file)
    };
    let (data, ctl) = (file(geometry.data_len())?, file(geometry.control_len())?);
    let (header, control) =
        header::write(carried, geometry, options, directory::random(), clock::realtime_ns());
    shm::write_all_at(data.as_fd(), bytemuck::bytes_of(&header), 0)?;
    shm::write_all_at(ctl.as_fd(), bytemuck::bytes_of(&control), 0)?;
    let blocks = u64::from(geometry.blocks);
    let table: Vec<u64> = (0..blocks).map(|index| table::initial(index, blocks)).collect();
    shm::write_all_at(data.as_fd(), bytemuck::cast_slice(&table), TABLE_OFFSET)?;
    shm::write_all_at(data.as_fd(), carried.text().as_bytes(), geometry.schema_offset())?;
    let pages: io::Result<Vec<Kept>> = (0..geometry.participants()).map(|_| file(PAGE)).collect();
    Ok(GuardedTopic { name: name.to_owned(), data, ctl, pages: pages? })
}
