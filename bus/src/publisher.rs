//! Publishing: a slot, the bytes, the stamp, the bell.
#![allow(unsafe_code)] // writes into the slot that this publisher alone may write

use std::marker::PhantomData;
use std::time::Duration;

use shmbus_sys::clock;

use crate::atomics::Acquire;
use crate::bell::{Barrier, Meet};
use crate::error::{PublishError, TryPublishError};
use crate::loan::Loan;
use crate::participant::Participant;
use crate::payload::{self, Payload};
use crate::ring::SlotAt;
use crate::ring::exclusive::{Blocked, ExclusiveRing};
use crate::wait::Patience;

/// How often a publisher that waits asks whether it waits for the dead: 5 ms.
const STALL_CHECK_NS: u64 = 5_000_000;
const AT_ONCE: u64 = 0;
const FOREVER: u64 = u64::MAX;

/// The one publisher of a topic, as long as it lives.
///
/// A publish is a copy, two stores and one load, whatever the number of subscribers; once per block it opens the next one (a
/// fence and one shared load, and once per several blocks a look at every participant). It waits for nobody but reliable
/// subscribers that are a whole ring behind. Dropped, it gives its place back; the topic stays.
pub struct Publisher<T: Payload + ?Sized> {
    participant: Participant,
    ring: ExclusiveRing,
    barrier: Barrier,
    /// When the dead were last looked for.
    swept_ns: u64,
    payload: PhantomData<fn(&T)>,
}

impl<T: Payload + ?Sized> Publisher<T> {
    pub(crate) fn new(participant: Participant, ring: ExclusiveRing, barrier: Barrier) -> Self {
        Publisher { participant, ring, barrier, swept_ns: 0, payload: PhantomData }
    }

    /// The sequence that the next message will have.
    pub fn sequence(&self) -> u64 {
        self.ring.sequence()
    }

    /// Publishes a copy of `message` and returns its sequence. Waits while a reliable subscriber is a whole ring behind.
    ///
    /// # Errors
    /// See [`PublishError`]; nothing was published then.
    #[inline]
    pub fn publish(&mut self, message: &T) -> Result<u64, PublishError> {
        self.publish_until(message, FOREVER)
    }

    /// [`Publisher::publish`], waiting `timeout` at most.
    ///
    /// # Errors
    /// [`PublishError::TimedOut`] then; else as [`Publisher::publish`].
    pub fn publish_timeout(&mut self, message: &T, timeout: Duration) -> Result<u64, PublishError> {
        self.publish_until(message, crate::wait::deadline_ns(timeout))
    }

    #[inline]
    fn publish_until(&mut self, message: &T, deadline_ns: u64) -> Result<u64, PublishError> {
        let bytes = message.bytes();
        let at = self.slot(bytes.len(), deadline_ns)?;
        // SAFETY: `at` is the next slot of the only publisher; `slot` has compared the length; the region is mapped for
        // writing (`Topic::publisher`).
        unsafe { payload::write(&self.participant.region, at, bytes) };
        Ok(self.commit(bytes.len() as u32))
    }

    /// The slot of the next message, of `len` bytes.
    #[inline]
    fn slot(&mut self, len: usize, deadline_ns: u64) -> Result<SlotAt, PublishError> {
        if self.participant.attachment.is_forked() {
            return Err(PublishError::Forked);
        }
        let region = &*self.participant.region;
        if T::SIZE.is_none() && len > region.geometry().payload_max as usize {
            return Err(PublishError::TooLong { len, max: region.geometry().payload_max });
        }
        match self.ring.slot() {
            Some(at) => Ok(at),
            None => self.open(deadline_ns),
        }
    }

    /// Makes what was written in the next slot a message.
    #[inline]
    pub(crate) fn commit(&mut self, len: u32) -> u64 {
        let region = &*self.participant.region;
        let timestamp_ns = region.geometry().timestamp.then(clock::monotonic_ns);
        let sequence = self.ring.commit(region, len, timestamp_ns);
        region.control().subscribers_bell.0.ring(self.barrier);
        sequence
    }

    /// Opens the next block, as soon as every reliable subscriber has made room or is proven dead.
    #[cold]
    #[inline(never)]
    fn open(&mut self, deadline_ns: u64) -> Result<SlotAt, PublishError> {
        let Participant { attachment, region, index, .. } = &self.participant;
        let control = region.control();
        let mut patience = Patience::new();
        loop {
            if control.notices.0.retired.load(Acquire) != 0 {
                return Err(PublishError::Retired); // [notice]
            }
            match self.ring.open(region) {
                Ok(at) => return Ok(at),
                Err(Blocked::Full) => {}
                Err(Blocked::Corrupt(corrupt)) => return Err(corrupt.into()),
            }
            let now_ns = clock::monotonic_ns();
            if now_ns.saturating_sub(self.swept_ns) >= STALL_CHECK_NS {
                self.swept_ns = now_ns;
                if attachment.sweep_subscribers() > 0 {
                    continue;
                }
            }
            if now_ns >= deadline_ns {
                return Err(PublishError::TimedOut);
            }
            if !patience.is_left() {
                let until_ns = deadline_ns.min(now_ns + STALL_CHECK_NS);
                let bell = &control.publishers_bell.0;
                bell.sleep(region.bit(*index), Meet::Fence, until_ns, || {
                    self.ring.may_go_on(region)
                });
            }
        }
    }

    fn loan_bytes(&mut self, len: usize) -> Result<Loan<'_, T>, PublishError> {
        let at = self.slot(len, FOREVER)?;
        let region = &self.participant.region;
        // SAFETY: `at` is the next slot of the only publisher, which the loan borrows as long as it lives; `slot` has compared
        // the length; the region is mapped for writing.
        let message = unsafe { payload::write_in_place(region, at, len) };
        // Size and alignment were compared when the topic was opened.
        let message = message.ok_or(crate::ring::Corrupt::Table)?;
        Ok(Loan::new(self, message, len as u32))
    }
}

impl<T: Payload> Publisher<T> {
    /// Publishes `message` if that is possible without waiting.
    ///
    /// # Errors
    /// [`TryPublishError::Full`] gives the message back.
    #[inline]
    pub fn try_publish(&mut self, message: T) -> Result<u64, TryPublishError<T>> {
        match self.publish_until(&message, AT_ONCE) {
            Err(PublishError::TimedOut) => Err(TryPublishError::Full(message)),
            other => Ok(other?),
        }
    }

    /// The next slot, to be written in place: nothing is copied. Waits as [`Publisher::publish`] does.
    ///
    /// The message shows whatever bytes stood in the slot before. It is published by [`Loan::commit`] and, dropped instead, never
    /// happened. An open loan costs nobody anything.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub fn loan(&mut self) -> Result<Loan<'_, T>, PublishError> {
        self.loan_bytes(size_of::<T>())
    }
}

impl Publisher<[u8]> {
    /// Publishes `message` if that is possible without waiting.
    ///
    /// # Errors
    /// [`TryPublishError::Full`] gives the message back.
    #[inline]
    pub fn try_publish<'a>(&mut self, message: &'a [u8]) -> Result<u64, TryPublishError<&'a [u8]>> {
        match self.publish_until(message, AT_ONCE) {
            Err(PublishError::TimedOut) => Err(TryPublishError::Full(message)),
            other => Ok(other?),
        }
    }

    /// The next slot as a message of `len` bytes, to be written in place; else as for topics of one type.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub fn loan(&mut self, len: usize) -> Result<Loan<'_, [u8]>, PublishError> {
        self.loan_bytes(len)
    }
}
