//! Receiving: look, spin, yield, sleep.
#![allow(unsafe_code)] // reads the slot whose stamp was seen, in the block that the reader pins

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shmbus_sys::clock;

use crate::atomics::{Acquire, Relaxed};
use crate::bell::{Meet, SLEEP_MAX_NS};
use crate::error::ReceiveError;
use crate::message::Message;
use crate::options::Wake;
use crate::participant::Participant;
use crate::payload::{self, Payload};
use crate::repair::{STALL_CHECK_NS, Stuck};
use crate::ring::hold::Holds;
use crate::ring::reader::{Next, Reader};
use crate::ring::{Corrupt, SlotAt};
use crate::sample::Sample;
use crate::wait::Patience;

/// What publishers owe a subscriber that does not keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Nothing: they never wait for it, and it learns exactly how many sequences it missed.
    Lossy,
    /// To wait for it, once it is a whole ring behind: it misses nothing. If it dies, the kernel says so, and they go on.
    Reliable,
    /// As [`Delivery::Reliable`], but not for longer than this: a subscriber that holds publishers up for longer becomes lossy, and is told
    /// ([`ReceiveError::Evicted`]). What it holds stays as it is.
    ReliableFor(Duration),
}

/// The entry of a subscriber and what it holds; shared with its held samples, which outlive it.
pub(crate) struct Seat {
    pub(crate) participant: Participant,
    pub(crate) holds: Holds,
}

/// A reader of a topic with a position of its own.
///
/// Receiving is one load for each message, and once per block a pin and a fence. A received [`Sample`] is the message itself, in shared
/// memory; nobody overwrites it until the next call on this subscriber, and never while it is [held](Sample::hold).
pub struct Subscriber<T: Payload + ?Sized> {
    pub(crate) seat: Arc<Seat>,
    pub(crate) reader: Reader,
    delivery: Delivery,
    stuck: Stuck,
    /// Looks in vain.
    vain: u8,
    payload: PhantomData<fn() -> *const T>,
}

impl<T: Payload + ?Sized> Subscriber<T> {
    pub(crate) fn new(participant: Participant, reader: Reader, delivery: Delivery) -> Self {
        let seat = Arc::new(Seat { participant, holds: Holds::none() });
        Subscriber {
            seat,
            reader,
            delivery,
            stuck: Stuck::nowhere(),
            vain: 0,
            payload: PhantomData,
        }
    }

    /// How it was made.
    pub fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// The next sequence to be received.
    pub fn position(&self) -> u64 {
        self.reader.position()
    }

    /// How many sequences it is behind the newest message.
    ///
    /// In a forked child 0.
    pub fn lag(&self) -> u64 {
        let Participant { attachment, region, .. } = &self.seat.participant;
        if attachment.is_forked() {
            return 0;
        }
        let head = region.head().load(Acquire); // [stream position]
        head.saturating_sub(self.reader.position())
    }

    /// How many messages it has missed since it subscribed. Of a reliable subscriber 0, but for what it skips itself
    /// ([`Subscriber::receive_latest`], [`Subscriber::seek`]).
    ///
    /// A lossy one that publishers have lapped cannot tell which of the sequences that are gone were messages: all of them count here.
    pub fn missed(&self) -> u64 {
        self.reader.skipped().missed
    }

    /// How many sequences it has come to since it subscribed that never became messages: on a topic of several publishers, loans that were
    /// dropped, and what was taken by those that died or stood still. Nothing is lost by them.
    pub fn abandoned(&self) -> u64 {
        self.reader.skipped().abandoned
    }

    /// The next message, if it is there. Never waits.
    ///
    /// # Errors
    /// [`ReceiveError::Retired`] when the topic was removed and everything in it has been received; see [`ReceiveError`].
    #[inline(always)] // a result as large as this would come back through memory, written in pieces and read as a whole: a stall for each message
    pub fn try_receive(&mut self) -> Result<Option<Sample<'_, T>>, ReceiveError> {
        match self.poll()? {
            Some((at, sequence)) => self.sample(at, sequence).map(Some),
            None => Ok(None),
        }
    }

    /// The next message. Waits for it: spins and yields for a moment, then sleeps.
    ///
    /// # Errors
    /// As [`Subscriber::try_receive`].
    #[inline]
    pub fn receive(&mut self) -> Result<Sample<'_, T>, ReceiveError> {
        let mut found = self.poll()?; // no call where it is there
        loop {
            if let Some((at, sequence)) = found {
                return self.sample(at, sequence);
            }
            found = self.wait(u64::MAX)?;
        }
    }

    /// The next message, or `None` when `timeout` has passed without one.
    ///
    /// # Errors
    /// As [`Subscriber::try_receive`].
    pub fn receive_timeout(
        &mut self,
        timeout: Duration,
    ) -> Result<Option<Sample<'_, T>>, ReceiveError> {
        match self.wait(crate::wait::deadline_ns(timeout))? {
            Some((at, sequence)) => self.sample(at, sequence).map(Some),
            None => Ok(None),
        }
    }

    /// The next message, or `None` when there is none by `deadline`.
    ///
    /// # Errors
    /// As [`Subscriber::try_receive`].
    pub fn receive_deadline(
        &mut self,
        deadline: Instant,
    ) -> Result<Option<Sample<'_, T>>, ReceiveError> {
        self.receive_timeout(deadline.saturating_duration_since(Instant::now()))
    }

    /// The newest message, if there is one that was not received yet. Those before it are skipped, and counted as missed. Never
    /// waits.
    ///
    /// # Errors
    /// As [`Subscriber::try_receive`].
    pub fn receive_latest(&mut self) -> Result<Option<Sample<'_, T>>, ReceiveError> {
        if self.seat.participant.attachment.is_forked() {
            return Err(ReceiveError::Forked);
        }
        self.reader.skip_to_newest(&self.seat.participant.region)?;
        self.try_receive()
    }

    /// Looks once. Goes past the message that it returns.
    #[inline(always)]
    pub(crate) fn poll(&mut self) -> Result<Option<(SlotAt, u64)>, ReceiveError> {
        if self.seat.participant.attachment.is_forked() {
            return Err(ReceiveError::Forked);
        }
        match self.reader.next(&self.seat.participant.region)? {
            Next::Message(at, sequence) => Ok(Some((at, sequence))),
            Next::Empty => self.nothing(),
            Next::Again => self.poll_again(),
            Next::Evicted => self.evicted(),
        }
    }

    /// After a lap, or an abandoned sequence: a few more looks, not as many as a fast publisher could cause.
    #[cold]
    fn poll_again(&mut self) -> Result<Option<(SlotAt, u64)>, ReceiveError> {
        const LOOKS: u32 = 8;
        for _ in 0..LOOKS {
            match self.reader.next(&self.seat.participant.region)? {
                Next::Message(at, sequence) => return Ok(Some((at, sequence))),
                Next::Empty => return self.nothing(),
                Next::Again => {}
                Next::Evicted => return self.evicted(),
            }
        }
        Ok(None)
    }

    /// Nothing is there: because nothing comes any more?
    #[cold]
    #[inline(never)]
    fn nothing(&mut self) -> Result<Option<(SlotAt, u64)>, ReceiveError> {
        self.vain = self.vain.wrapping_add(1);
        if self.vain == 0 {
            self.look_for_deletion(); // of who polls; who waits does it by the clock
        }
        let Participant { attachment, region, .. } = &self.seat.participant;
        let retired = region.control().notices.0.joins.is_retired();
        if region.geometry().shared
            && let Some(at) = self.reader.stuck_at(region)
        {
            let sequence = self.reader.position();
            if !self.stuck.at(attachment, sequence, at) {
                if !self.stuck.is_helpless_at(sequence) {
                    return Ok(None); // there may be messages behind it, of a removed topic too
                }
                // Who can do nothing about it may still be lapped.
                let displaced = self.reader.leave_displaced(region);
                if retired && !displaced {
                    if self.stuck.is_lost(attachment, sequence, at) {
                        self.reader.pass_over(region);
                        return Ok(None);
                    }
                    if !self.stuck.has_had_its_time(attachment) {
                        return Ok(None);
                    }
                }
            }
        }
        if !retired {
            return Ok(None);
        }
        match self.reader.next(region)? {
            Next::Message(at, sequence) => Ok(Some((at, sequence))),
            Next::Again => Ok(None),
            Next::Empty => Err(ReceiveError::Retired),
            Next::Evicted => self.evicted(),
        }
    }

    #[cold]
    #[inline(never)]
    fn look_for_deletion(&self) {
        self.seat.participant.attachment.look_for_deletion_at(clock::monotonic_ns());
    }

    fn evicted<R>(&mut self) -> Result<R, ReceiveError> {
        self.delivery = Delivery::Lossy;
        Err(ReceiveError::Evicted)
    }

    /// Looks until something is there or `deadline_ns` has come.
    pub(crate) fn wait(&mut self, deadline_ns: u64) -> Result<Option<(SlotAt, u64)>, ReceiveError> {
        let mut patience = Patience::of_subscriber();
        loop {
            if let Some(found) = self.poll()? {
                return Ok(Some(found));
            }
            if patience.is_left() {
                continue;
            }
            let now_ns = clock::monotonic_ns();
            let sequence = self.reader.position();
            let Participant { attachment, region, .. } = &self.seat.participant;
            attachment.look_for_deletion_at(now_ns);
            let stuck = region.geometry().shared && self.reader.stuck_at(region).is_some();
            if now_ns >= deadline_ns {
                if stuck && self.stuck.is_helpless_at(sequence) {
                    return Err(ReceiveError::Stalled { sequence });
                }
                return Ok(None);
            }
            // Stuck behind a publisher, it looks more often.
            let slice_ns = if stuck { STALL_CHECK_NS } else { SLEEP_MAX_NS };
            self.sleep(deadline_ns.min(now_ns + slice_ns), stuck);
        }
    }

    /// Sleeps until a publisher rings, or until `deadline_ns`. Who is `stuck` sleeps on a removed topic too.
    #[cold]
    fn sleep(&mut self, deadline_ns: u64, stuck: bool) {
        let Participant { attachment, region, index, .. } = &self.seat.participant;
        let meet = match attachment.description.wake {
            Wake::Never => return std::thread::yield_now(),
            Wake::Fence => Meet::Fence,
            Wake::Auto | Wake::Membarrier => Meet::Membarrier,
        };
        let control = region.control();
        let reader = &mut self.reader;
        let bell = region.subscribers_bell(*index);
        bell.sleep(meet, deadline_ns, || {
            !matches!(reader.look(region), Ok(Next::Empty))
                || (!stuck && control.notices.0.joins.is_retired())
        });
    }

    /// The message in a slot that [`Subscriber::poll`] has found.
    #[inline(always)]
    fn sample(&mut self, at: SlotAt, sequence: u64) -> Result<Sample<'_, T>, ReceiveError> {
        // SAFETY: the reader has seen the stamp in this slot and pins its block until its next call, which the sample's borrow
        // of `self` rules out.
        let mut sample: Sample<'_, T> = unsafe { sample(&self.seat, at, sequence) }?;
        sample.skipped(self.reader.skipped_before(sequence));
        Ok(sample)
    }
}

/// What [`Subscriber::try_copy`] has copied, beside the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// Its place in the stream.
    pub sequence: u64,
    /// As [`Sample::missed_before`].
    pub missed_before: u64,
    /// As [`Sample::abandoned_before`].
    pub abandoned_before: u64,
    /// When it was committed, by its publisher's word, where the topic carries the time.
    pub timestamp_ns: Option<u64>,
}

impl<T: Message> Subscriber<T> {
    /// Copies the next message, if it is there. Never waits. For a publisher that is not trusted: the message is copied by atomic loads, its stamp looked at before
    /// and after, and nothing here ever refers to it where the publisher could change it. What it says may be anything that a `T` can be. Slower than a
    /// memcpy; else as [`Subscriber::try_receive`].
    ///
    /// # Errors
    /// As [`Subscriber::try_receive`]; [`Corrupt::Stream`] where the message was overwritten meanwhile: `into` is then anything.
    pub fn try_copy(&mut self, into: &mut T) -> Result<Option<Copied>, ReceiveError> {
        match self.poll()? {
            Some((at, sequence)) => self.copied(at, sequence, into).map(Some),
            None => Ok(None),
        }
    }

    /// The same, waiting for it, `timeout` at most.
    ///
    /// # Errors
    /// As [`Subscriber::try_copy`].
    pub fn copy_timeout(
        &mut self,
        into: &mut T,
        timeout: Duration,
    ) -> Result<Option<Copied>, ReceiveError> {
        match self.wait(crate::wait::deadline_ns(timeout))? {
            Some((at, sequence)) => self.copied(at, sequence, into).map(Some),
            None => Ok(None),
        }
    }

    fn copied(&mut self, at: SlotAt, sequence: u64, into: &mut T) -> Result<Copied, ReceiveError> {
        let region = &*self.seat.participant.region;
        let before = self.reader.skipped_before(sequence);
        let timestamp = region.geometry().timestamp;
        let timestamp_ns = timestamp.then(|| region.slot(at).timestamp_ns.load(Relaxed));
        payload::copy(region, at, sequence, payload::bytes_of_mut(into))?;
        let (missed_before, abandoned_before) = (before.missed, before.abandoned);
        Ok(Copied { sequence, missed_before, abandoned_before, timestamp_ns })
    }
}

/// The message in slot `at`.
///
/// # Safety
/// The reader of `seat` has seen the stamp of `sequence` in this slot, in a block that it pins for `'a`.
#[inline(always)]
pub(crate) unsafe fn sample<'a, T: Payload + ?Sized>(
    seat: &'a Arc<Seat>,
    at: SlotAt,
    sequence: u64,
) -> Result<Sample<'a, T>, Corrupt> {
    let region = &seat.participant.region;
    let slot = region.slot(at);
    let len = slot.len.load(Relaxed); // stored before the stamp
    let timestamp_ns = region.geometry().timestamp.then(|| slot.timestamp_ns.load(Relaxed));
    // SAFETY: the caller's promise.
    let message = unsafe { payload::read(region, at, len) }?;
    Ok(Sample::new(seat, message, at, sequence, timestamp_ns))
}

impl<T: Payload + ?Sized> Drop for Subscriber<T> {
    fn drop(&mut self) {
        self.seat.participant.stop_receiving();
    }
}
