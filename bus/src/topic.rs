//! A topic: created, opened, described, removed.

use std::io;
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use shmbus_sys::probe;

use crate::atomics::{Relaxed, Release};
use crate::bell::Barrier;
use crate::control::client;
use crate::crash;
use crate::create::{is_gone, not_created, prefaulted};
use crate::directory::{Directory, NotBuilt, TopicName};
use crate::error::{AttachError, CreateError, OpenError, OptionsError};
use crate::guard::Pages;
use crate::header;
use crate::observer::{Observer, View};
use crate::options::TopicOptions;
use crate::participant::{Attachment, Participant, Place};
use crate::payload::{Carried, Payload};
use crate::publisher::Publisher;
use crate::recovery::Dead;
use crate::registry::{self, Kind};
use crate::ring::exclusive::ExclusiveRing;
use crate::ring::reader::{Reader, Start};
use crate::ring::shared::SharedRing;
use crate::schema::Schema;
use crate::stats::TopicInfo;
use crate::subscriber::{Delivery, Subscriber};
use crate::sweep;
use crate::topic_files::{build, open};

/// How often creating or opening begins again because the topic appeared or vanished meanwhile.
const TRIES: u32 = 100;

/// A named stream of messages of type `T` in shared memory; the place from which publishers and subscribers are made.
///
/// A topic is a directory with three files below a [`Directory`]. It exists, with the last messages in it, until it is [removed](Directory::remove): processes
/// come and go. A `Topic` value holds a mapping and two descriptors; clones share them. It takes no part in the stream itself.
///
/// # Trust
/// Whoever may write a topic's files (see [`TopicOptions::mode`]) is trusted to follow the protocol, as it is trusted not to
/// write into this process's memory in other ways. On that ground opening a topic is a safe operation. A *corrupt* topic is
/// met with typed errors all the same: never with a panic, a hang, or an access outside the mapping.
pub struct Topic<T: Payload + ?Sized> {
    pub(crate) attachment: Arc<Attachment>,
    payload: PhantomData<fn(&T) -> &T>,
}

impl<T: Payload + ?Sized> Clone for Topic<T> {
    fn clone(&self) -> Self {
        Topic { attachment: Arc::clone(&self.attachment), payload: PhantomData }
    }
}

impl<T: Payload + ?Sized> Topic<T> {
    /// Creates topic `name` in [`Directory::from_env`].
    ///
    /// All its memory is allocated now, so that a full file system is an error here and never a SIGBUS later. A process killed
    /// in here leaves nothing that the next create does not remove.
    ///
    /// # Errors
    /// See [`CreateError`]; [`CreateError::Exists`] where there is a topic of that name.
    pub fn create(name: &str, options: &TopicOptions) -> Result<Self, CreateError> {
        Self::create_in(&Directory::from_env()?, name, options)
    }

    /// Opens topic `name` in [`Directory::from_env`].
    ///
    /// # Errors
    /// See [`OpenError`]; [`OpenError::NotFound`] where there is none.
    pub fn open(name: &str) -> Result<Self, OpenError> {
        Self::open_in(&Directory::from_env()?, name)
    }

    /// Opens topic `name` in [`Directory::from_env`], or creates it.
    ///
    /// Type (every field of it) and `max_len` of an existing topic must be those asked for. Depth, limits and mode are its creator's; [`Topic::info`] tells
    /// them.
    ///
    /// # Errors
    /// See [`CreateError`]; [`CreateError::Open`] where it exists and cannot be opened.
    pub fn open_or_create(name: &str, options: &TopicOptions) -> Result<Self, CreateError> {
        Self::open_or_create_in(&Directory::from_env()?, name, options)
    }

    /// Opens topic `name` of the broker that listens at `socket`: a *guarded* topic, whose subscribers may be other users whom its publisher need not trust
    /// (`docs/guarded.md`). What may be done with it is the broker's policy's: each joining asks it, and is an error where it does not allow it, or where
    /// there is none. Who has joined needs it no more.
    ///
    /// One publisher at a time; [`Topic::info`] shows no participants; held blocks are counted for each subscriber, not for all.
    ///
    /// # Errors
    /// [`OpenError::Broker`] where none answers within 5 s, [`OpenError::Refused`] by its policy; else as [`Topic::open`].
    pub fn connect(socket: impl AsRef<Path>, name: &str) -> Result<Self, OpenError> {
        let attachment = client::describe(socket.as_ref(), name)?;
        header::check_type::<T>(name, &attachment.description.carried)?;
        Ok(Topic { attachment: Arc::new(attachment), payload: PhantomData })
    }

    /// [`Topic::create`] in a directory of choice.
    ///
    /// # Errors
    /// As [`Topic::create`].
    pub fn create_in(
        directory: &Directory,
        name: &str,
        options: &TopicOptions,
    ) -> Result<Self, CreateError> {
        Self::create_carrying(directory, name, options, &T::carried().map_err(OptionsError::Type)?)
    }

    /// Creates a topic of `carried`, which is what `T` is, or what whoever knows no types has chosen.
    pub(crate) fn create_carrying(
        directory: &Directory,
        name: &str,
        options: &TopicOptions,
        carried: &Carried,
    ) -> Result<Self, CreateError> {
        let name = TopicName::of_new(name)?;
        let geometry = options.geometry(carried)?;
        let root = directory.open()?;
        for attempt in 1.. {
            match build(root.as_fd(), &name, options, carried, &geometry, attempt == 1) {
                Ok(attachment) => {
                    return Ok(Topic { attachment: Arc::new(attachment), payload: PhantomData });
                }
                // A remover pruned the directory above, or somebody took the draft for a leftover.
                Err(NotBuilt::Io(error)) if is_gone(&error) && attempt < TRIES => {}
                Err(NotBuilt::Open(CreateError::Open(OpenError::NotFound { .. })))
                    if attempt < TRIES => {}
                Err(NotBuilt::Open(error)) => return Err(error),
                Err(NotBuilt::Io(error)) => {
                    return Err(not_created(directory, root.as_fd(), &name, &geometry, error));
                }
            }
        }
        let gone = io::ErrorKind::NotFound.into();
        Err(not_created(directory, root.as_fd(), &name, &geometry, gone))
    }

    /// [`Topic::open`] in a directory of choice.
    ///
    /// # Errors
    /// As [`Topic::open`].
    pub fn open_in(directory: &Directory, name: &str) -> Result<Self, OpenError> {
        Self::of(Arc::new(open(directory, name)?))
    }

    /// What was opened, as one of `T`.
    pub(crate) fn of(attachment: Arc<Attachment>) -> Result<Self, OpenError> {
        header::check_type::<T>(&attachment.name, &attachment.description.carried)?;
        Ok(Topic { attachment, payload: PhantomData })
    }

    /// [`Topic::open_or_create`] in a directory of choice.
    ///
    /// # Errors
    /// As [`Topic::open_or_create`].
    pub fn open_or_create_in(
        directory: &Directory,
        name: &str,
        options: &TopicOptions,
    ) -> Result<Self, CreateError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match Self::open_in(directory, name) {
                Ok(topic) => {
                    let (found, expected) =
                        (topic.attachment.region.geometry().payload_max, options.max_len);
                    if T::SIZE.is_none() && !T::ANY && found != expected {
                        let name = name.to_owned();
                        let option = "max_len";
                        let (found, expected) = (found.into(), expected.into());
                        return Err(CreateError::Open(OpenError::Option {
                            name,
                            option,
                            found,
                            expected,
                        }));
                    }
                    return match Arc::try_unwrap(topic.attachment) {
                        Ok(attachment) => {
                            let attachment = Arc::new(prefaulted(attachment, options.prefault)?);
                            Ok(Topic { attachment, payload: PhantomData })
                        }
                        Err(attachment) => Ok(Topic { attachment, payload: PhantomData }),
                    };
                }
                Err(
                    OpenError::NotFound { .. }
                    | OpenError::Retired { .. }
                    | OpenError::Corrupt { .. }, // creating replaces it if it can
                ) if tries < TRIES => {}
                Err(error) => return Err(CreateError::Open(error)),
            }
            match Self::create_in(directory, name, options) {
                Err(CreateError::Exists { .. }) if tries < TRIES => {}
                // Removed before its creator could open it.
                Err(CreateError::Open(OpenError::NotFound { .. } | OpenError::Retired { .. }))
                    if tries < TRIES => {}
                other => return other,
            }
        }
    }

    /// Maps all pages of the topic now, and of each publisher and subscriber that is made from this value or a clone of it afterwards, so that no message pays
    /// for a page fault: what [`TopicOptions::prefault`] does, of a topic that was opened. About 0.7 us for each page of 4 KiB.
    ///
    /// # Errors
    /// [`OpenError::Io`]: the kernel refuses, as one before Linux 5.14 does (`EINVAL`), or this is a forked child (`EFAULT`).
    pub fn prefault(&self) -> Result<(), OpenError> {
        self.attachment.prefault.store(true, Relaxed);
        self.attachment.prefault(&self.attachment.region)
    }

    /// Becomes the publisher, or one of them. An exclusive topic has one at a time: after the death of the last one, wherever it was killed,
    /// this takes over from where it stopped.
    ///
    /// Cost: maps the topic for writing (a few system calls) and reads the block table.
    ///
    /// # Errors
    /// [`AttachError::PublisherAlive`] while a living process, stopped or not, is the publisher.
    pub fn publisher(&self) -> Result<Publisher<T>, AttachError> {
        let attachment = &self.attachment;
        if attachment.is_forked() {
            return Err(AttachError::Forked);
        }
        self.check_retired()?;
        if let Place::Broker(socket) = &attachment.place {
            let barrier = attachment.description.wake.barrier()?;
            probe::futex_waitv().map_err(|source| {
                AttachError::SystemCall { call: "futex_waitv", source } // it waits for room on several words
            })?;
            let (participant, dead) = client::publish(attachment, socket)?;
            attachment.prefault(&participant.region)?;
            return self.take_over(participant, dead, barrier);
        }
        let region = attachment.writable_region().map_err(|error| match error {
            OpenError::Retired { .. } => AttachError::Retired,
            error => error.into(),
        })?;
        attachment.prefault(&region)?;
        let barrier = attachment.description.wake.barrier()?; // before an entry is taken, and with it what a dead one left
        let shared = region.geometry().shared;
        if shared {
            attachment.sweep_publishers();
        }
        let occupied = attachment.occupy(&region, region.publishers())?;
        let (participant, dead) = occupied.ok_or_else(|| {
            if shared {
                return AttachError::PublishersFull { max: region.geometry().publishers_max };
            }
            let owner = region.publishers().next().map(|index| region.entry(index));
            AttachError::PublisherAlive { pid: owner.map_or(0, |entry| entry.pid.load(Relaxed)) }
        })?;
        self.take_over(participant, dead, barrier)
    }

    /// What the owner of a publisher's entry does before it publishes. `dead` is who had it before and was found dead by that.
    fn take_over(
        &self,
        participant: Participant,
        dead: Option<Dead>,
        barrier: Barrier,
    ) -> Result<Publisher<T>, AttachError> {
        let region = Arc::clone(&participant.region);
        let shared = region.geometry().shared;
        sweep::now(&participant, dead);
        let (ring, shared) = if shared {
            (ExclusiveRing::unused(&region), Some(SharedRing::new(&region, participant.index)))
        } else {
            (ExclusiveRing::take_over(&region)?, None)
        };
        registry::activate(&region, participant.index, participant.generation, Kind::Publisher);
        region.control().subscribers_bell.0.ring(Barrier::Fence); // what was found committed
        if region.is_guarded() {
            Pages::new(&region, Barrier::Fence).ring(&region);
        }
        crash::point("takeover.rung");
        Ok(Publisher::new(participant, ring, shared, barrier))
    }

    /// Subscribes to what is published from now on.
    ///
    /// # Errors
    /// [`AttachError::SubscribersFull`] where `subscribers_max` living ones are attached.
    pub fn subscriber(&self, delivery: Delivery) -> Result<Subscriber<T>, AttachError> {
        self.subscriber_from(delivery, Start::Newest)
    }

    /// Subscribes, beginning at `start`.
    ///
    /// # Errors
    /// As [`Topic::subscriber`].
    pub fn subscriber_from(
        &self,
        delivery: Delivery,
        start: Start,
    ) -> Result<Subscriber<T>, AttachError> {
        let attachment = &self.attachment;
        if attachment.is_forked() {
            return Err(AttachError::Forked);
        }
        self.check_retired()?;
        let participant = if let Place::Broker(socket) = &attachment.place {
            let participant = client::subscribe(attachment, socket, delivery)?;
            attachment.prefault(&participant.region)?;
            participant
        } else {
            let region = &attachment.region;
            let occupied = attachment.occupy(region, region.subscribers())?;
            let max = region.geometry().subscribers_max;
            let (participant, dead) = occupied.ok_or(AttachError::SubscribersFull { max })?;
            sweep::now(&participant, dead);
            participant
        };
        let region = &*participant.region;
        let (index, generation) = (participant.index, participant.generation);
        let reader = match delivery {
            Delivery::Lossy => Reader::attach_lossy(region, index, generation, start),
            Delivery::Reliable => Reader::attach_reliable(region, index, generation, start),
            Delivery::ReliableFor(patience) => {
                let patience_ns = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX).max(1);
                region.entry(index).patience_ns.store(patience_ns, Release); // [entry]: before it counts
                Reader::attach_reliable(region, index, generation, start)
            }
        };
        Ok(Subscriber::new(participant, reader?, delivery))
    }

    /// What a message is, readable without its type; `None` of a topic of bytes.
    pub fn schema(&self) -> Option<&Schema> {
        self.attachment.description.carried.schema.as_ref()
    }

    /// Reads along without taking part: see [`Observer`].
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn observe(&self, start: Start) -> Result<Observer, AttachError> {
        let Attachment { name, place, .. } = &*self.attachment;
        if self.attachment.is_forked() {
            return Err(AttachError::Forked);
        }
        let view = match place {
            Place::Directory(directory) => View::open(name, directory)?,
            Place::Broker(_) => View::guarded(&self.attachment),
        };
        Observer::begin(view, start)
    }

    /// What the topic is, and who takes part in it, now.
    pub fn info(&self) -> TopicInfo {
        TopicInfo::of(&self.attachment)
    }

    /// Whether it was removed, or something else has deleted its files (`live` at least): whoever takes part is told, after subscribers have received what is
    /// there. For a publisher that publishes rarely and wants to know before it opens the next block. One system call. In a forked child false.
    pub fn is_retired(&self) -> bool {
        !self.attachment.is_forked() && self.attachment.look_for_deletion()
    }

    fn check_retired(&self) -> Result<(), AttachError> {
        match self.attachment.look_for_deletion() {
            false => Ok(()),
            true => Err(AttachError::Retired),
        }
    }
}

#[cfg(feature = "internals")]
impl<T: Payload + ?Sized> Topic<T> {
    /// [`Topic::open_in`] with one writable mapping for publishers and subscribers: joining costs a lease then, and no mapping.
    pub(crate) fn open_writable(directory: &Directory, name: &str) -> Result<Self, OpenError> {
        use crate::directory::Purpose;
        use shmbus_sys::shm::Access;

        let attachment = crate::topic_files::open_directory(directory, name, Purpose::Join)
            .and_then(|directory| Attachment::open_as(name, directory, Access::ReadWrite))?;
        header::check_type::<T>(name, &attachment.description.carried)?;
        Ok(Topic { attachment: Arc::new(attachment), payload: PhantomData })
    }
}
