//! Observing: reading a topic without taking part in it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use shmbus_sys::shm::Access;
use shmbus_sys::{clock, fork};

use crate::atomics::{Acquire, AtomicBool, Relaxed};
use crate::deletion::Looked;
use crate::error::{AttachError, ObserveError, OpenError, SeekError};
use crate::header::Description;
use crate::liveness::Witness;
use crate::participant::{self, Attachment, lease_byte, refused_in};
use crate::region::Region;
use crate::ring::Corrupt;
use crate::ring::reader::{Retained, Start};
use crate::ring::skips::Skipped;
use crate::ring::watcher::{Copied, Seen, Watcher};
use crate::schema::Schema;
use crate::stats::TopicInfo;

/// A topic opened for reading only: both files mapped without the right to write. One descriptor, of `live`: to ask for leases if it may be opened, else only to see
/// whether it was deleted.
pub(crate) struct View {
    name: String,
    description: Description,
    region: Arc<Region>,
    witness: Witness,
    fork_generation: u32,
    looked: Looked,
    is_deleted: AtomicBool,
}

impl View {
    /// Opens the topic in `directory`, which is called `name`. Checks what a participant checks.
    pub(crate) fn open(name: &str, directory: &OwnedFd) -> Result<View, OpenError> {
        fork::install();
        let witness = Witness::find(directory.as_fd());
        let witness = witness.map_err(|source| refused_in(name, directory, "open live", source))?;
        let (region, description) =
            participant::map(name, directory, Access::ReadOnly, Access::ReadOnly)?;
        let region = Arc::new(region);
        let (name, fork_generation) = (name.to_owned(), fork::generation());
        let (looked, is_deleted) = (Looked::never(), AtomicBool::new(false));
        let view = View { name, description, region, witness, fork_generation, looked, is_deleted };
        if view.is_retired() {
            return Err(OpenError::Retired { name: view.name });
        }
        Ok(view)
    }

    /// A guarded topic by what was handed out to `attachment`.
    pub(crate) fn guarded(attachment: &Attachment) -> View {
        View {
            name: attachment.name.clone(),
            description: attachment.description.clone(),
            region: Arc::clone(&attachment.region),
            witness: Witness::Nobody,
            fork_generation: fork::generation(),
            looked: Looked::never(),
            is_deleted: AtomicBool::new(false),
        }
    }

    pub(crate) fn info(&self) -> TopicInfo {
        let testimony = self.witness.ask();
        let liveness = |index| testimony.of(lease_byte(index));
        let forked = self.is_forked();
        let info = TopicInfo::read(&self.name, &self.description, &self.region, forked, liveness);
        TopicInfo { retired: !forked && self.is_retired(), ..info }
    }

    fn is_forked(&self) -> bool {
        self.fork_generation != fork::generation()
    }

    /// It was removed, or something else has deleted its files, for which this looks every 100 ms.
    fn is_retired(&self) -> bool {
        if self.region.control().notices.0.joins.is_retired() || self.is_deleted.load(Relaxed) {
            return true;
        }
        if self.looked.is_long_ago(clock::monotonic_ns()) {
            self.is_deleted.store(self.witness.is_deleted(), Relaxed);
        }
        self.is_deleted.load(Relaxed)
    }
}

/// A reader that takes no part in a topic: it has no entry, writes nothing, wakes nobody, and nobody waits for it or knows of it. Made by
/// [`Directory::observe`](crate::Directory::observe) and [`Topic::observe`](crate::Topic::observe).
///
/// It needs no more than permission to read the topic's files and to search the directories above them, as the topic's
/// [`mode`](crate::TopicOptions::mode) may grant to others. Any number may observe a topic of any type. For monitors, recorders and tools; who
/// may write the topic and wants each message at once, without a copy, or wants publishers to wait, is a [`Subscriber`](crate::Subscriber).
///
/// # What it costs
/// A message is copied out of shared memory word by word (not at the speed of a memcpy), and the block table is looked at before and after: the copy
/// counts only if the message was there all the time. An observer is therefore always lossy, told exactly what it missed, and one that
/// takes longer for one copy than publishers take for the whole ring sees nothing. Publishers pay nothing but what reading costs
/// anywhere: a cache line that somebody reads has to be fetched back to be written.
///
/// Nobody wakes an observer: it looks again and again. See [`Observer::next_timeout`].
///
/// On a topic of several publishers, a sequence that was taken and is not committed is nothing yet: an observer cannot settle it, as subscribers do
/// that are stuck there. Where there are none, it goes on when publishers have gone round the ring.
pub struct Observer {
    view: View,
    watcher: Watcher,
    interval: Duration,
}

/// A copy of a message, until the next call on its [`Observer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed<'a> {
    bytes: &'a [u8],
    sequence: u64,
    before: Skipped,
    publisher: Option<u32>,
    timestamp_ns: Option<u64>,
}

impl Observed<'_> {
    /// The payload. It begins at an address that is a multiple of 8.
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// Its place in the stream.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// How many messages this observer missed just before this one, each counted only once; of what is gone, nobody can tell whether it was a
    /// message, and all of it counts. Together with [`abandoned_before`](Observed::abandoned_before) it is exact, as
    /// [`Sample::missed_before`](crate::Sample::missed_before) is.
    pub fn missed_before(&self) -> u64 {
        self.before.missed
    }

    /// How many sequences just before this one were seen that never became messages, as in
    /// [`Sample::abandoned_before`](crate::Sample::abandoned_before).
    pub fn abandoned_before(&self) -> u64 {
        self.before.abandoned
    }

    /// Entry of the publisher ([`ParticipantInfo::entry`](crate::ParticipantInfo)), where the topic has several.
    pub fn publisher(&self) -> Option<u32> {
        self.publisher
    }

    /// When it was committed, in nanoseconds of `CLOCK_MONOTONIC`, where the topic carries the time.
    pub fn timestamp_ns(&self) -> Option<u64> {
        self.timestamp_ns
    }
}

impl Observer {
    /// How long [`Observer::next_timeout`] sleeps between two looks, unless told otherwise.
    pub const INTERVAL: Duration = Duration::from_millis(10);

    pub(crate) fn begin(view: View, start: Start) -> Result<Observer, AttachError> {
        let watcher = Watcher::begin(&view.region, start)?;
        Ok(Observer { view, watcher, interval: Observer::INTERVAL })
    }

    /// What a message is, readable without its type; `None` of a topic of bytes.
    pub fn schema(&self) -> Option<&Schema> {
        self.view.description.carried.schema.as_ref()
    }

    /// What the topic is, and who takes part in it, now. One system call for each participant; if the topic may not be written here, the
    /// kernel's list of locks is read instead.
    pub fn info(&self) -> TopicInfo {
        self.view.info()
    }

    /// The next sequence to be seen.
    pub fn position(&self) -> u64 {
        self.watcher.position()
    }

    /// How many sequences it is behind the newest message. In a forked child 0.
    pub fn lag(&self) -> u64 {
        if self.view.is_forked() {
            return 0;
        }
        let head = self.view.region.head().load(Acquire); // [stream position]
        head.saturating_sub(self.watcher.position())
    }

    /// How many messages it has missed since it began. Of sequences that were gone when it came to them, nobody can tell whether they were messages:
    /// all of them count here.
    pub fn missed(&self) -> u64 {
        self.watcher.skipped().missed
    }

    /// How many sequences it has seen since it began that never became messages, because shared publishers gave them up.
    pub fn abandoned(&self) -> u64 {
        self.watcher.skipped().abandoned
    }

    /// Goes to `sequence`: back to any that is retained, or forward as far as the next one to be published. Those that are passed
    /// over count as missed; going back takes back no count. Whether `sequence` is still there when it is read is another question: if not, it counts
    /// as missed as ever.
    ///
    /// # Errors
    /// [`SeekError::Gone`] and [`SeekError::Ahead`]; the observer stays where it is.
    pub fn seek(&mut self, sequence: u64) -> Result<(), SeekError> {
        if self.view.is_forked() {
            return Err(SeekError::Forked);
        }
        SeekError::of(sequence, self.watcher.seek(&self.view.region, sequence)?)
    }

    /// A copy of the next message, if it is there. Never waits.
    ///
    /// # Errors
    /// [`ObserveError::Retired`] when the topic was removed and everything in it has been seen; see [`ObserveError`].
    pub fn try_next(&mut self) -> Result<Option<Observed<'_>>, ObserveError> {
        match self.poll()? {
            Some(copied) => self.observed(copied).map(Some),
            None => Ok(None),
        }
    }

    /// A copy of the next message, or `None` when `timeout` has passed without one.
    ///
    /// Nobody can wake an observer, so this looks, and sleeps for the [interval](Observer::set_interval) when there is nothing: a message is seen half of it late
    /// on average, and an observer of a silent topic costs a hundred short wake-ups of its own process a second (well below one per
    /// cent of a core). Messages that are there are returned without a sleep.
    ///
    /// # Errors
    /// As [`Observer::try_next`].
    pub fn next_timeout(
        &mut self,
        timeout: Duration,
    ) -> Result<Option<Observed<'_>>, ObserveError> {
        let deadline_ns = crate::wait::deadline_ns(timeout);
        loop {
            let position = self.watcher.position();
            if let Some(copied) = self.poll()? {
                return self.observed(copied).map(Some);
            }
            let left_ns = deadline_ns.saturating_sub(clock::monotonic_ns());
            if left_ns == 0 {
                return Ok(None);
            }
            // It has moved on: there is something further on.
            if position == self.watcher.position() {
                std::thread::sleep(self.interval.min(Duration::from_nanos(left_ns)));
            }
        }
    }

    /// How long [`Observer::next_timeout`] sleeps between two looks: [`Observer::INTERVAL`] unless set. Zero: it does not sleep and keeps a
    /// core busy.
    pub fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// Looks; after laps and abandoned sequences a few times more, not as often as a fast publisher could cause.
    fn poll(&mut self) -> Result<Option<Copied>, ObserveError> {
        const LOOKS: u32 = 9;
        if self.view.is_forked() {
            return Err(ObserveError::Forked);
        }
        for _ in 0..LOOKS {
            match self.watcher.next(&self.view.region)? {
                Seen::Message(copied) => return Ok(Some(copied)),
                Seen::Empty => return self.nothing(),
                Seen::Again => {}
            }
        }
        Ok(None)
    }

    /// Nothing is there: because nothing comes any more?
    fn nothing(&mut self) -> Result<Option<Copied>, ObserveError> {
        if !self.view.is_retired() {
            return Ok(None);
        }
        match self.watcher.next(&self.view.region)? {
            Seen::Message(copied) => Ok(Some(copied)),
            Seen::Again => Ok(None),
            Seen::Empty => Err(ObserveError::Retired),
        }
    }

    /// The message that [`Observer::poll`] has copied.
    fn observed(&mut self, copied: Copied) -> Result<Observed<'_>, ObserveError> {
        let Copied { sequence, len, publisher, timestamp_ns } = copied;
        let geometry = self.view.region.geometry();
        let max = geometry.payload_max;
        if !self.view.description.carried.has(u64::from(len)) {
            return Err(Corrupt::Length { len, max }.into());
        }
        let before = self.watcher.skipped_before(sequence);
        let bytes: &[u8] = bytemuck::cast_slice(self.watcher.words());
        Ok(Observed {
            bytes: bytes.get(..len as usize).ok_or(Corrupt::Length { len, max })?,
            sequence,
            before,
            publisher: geometry.shared.then_some(publisher),
            timestamp_ns: geometry.timestamp.then_some(timestamp_ns),
        })
    }
}

impl SeekError {
    /// What a reader has found that was to go to `sequence`.
    pub(crate) fn of(sequence: u64, found: Retained) -> Result<(), SeekError> {
        match found {
            Retained::There => Ok(()),
            Retained::Gone { oldest } => Err(SeekError::Gone { sequence, oldest }),
            Retained::Ahead { next } => Err(SeekError::Ahead { sequence, next }),
        }
    }
}
