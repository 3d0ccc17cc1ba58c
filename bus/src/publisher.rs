//! Publishing: a slot, the bytes, the stamp, the bell.
#![allow(unsafe_code)] // writes into the slot that this publisher alone may write

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use shmbus_sys::clock;

use crate::atomics::Acquire;
use crate::bell::{Barrier, Meet};
use crate::crash;
use crate::error::{PublishAllError, PublishError, TryPublishError};
use crate::guard::{self, Pages};
use crate::loan::Loan;
use crate::message::Message;
use crate::participant::Participant;
use crate::payload::{self, Payload};
use crate::recovery::InTheWay;
use crate::repair;
use crate::ring::Corrupt;
use crate::ring::exclusive::{Blocked, ExclusiveRing, Place};
use crate::ring::shared::{Claim, SharedRing};
use crate::sweep::Turn;
use crate::wait::Patience;

pub(crate) const AT_ONCE: u64 = 0;
const FOREVER: u64 = u64::MAX;

/// A publisher of a topic: the one, or one of many, as the topic's options say.
///
/// On an exclusive topic a publish is a copy, three stores and a look at one cache line, whatever the number of subscribers; once per block it opens the next
/// one (a fence and one shared load, and once per several blocks a look at every participant). On a shared topic it takes its
/// sequence by an atomic exchange first, commits by another one, and reads the block table at each opening. It waits for nobody but
/// reliable subscribers that are a whole ring behind. Dropped, it gives its place back; the topic stays.
pub struct Publisher<T: Payload + ?Sized> {
    participant: Participant,
    /// Of a shared topic, one that is never open, so that the exclusive path asks nothing that it need not.
    ring: ExclusiveRing,
    shared: Option<SharedRing>,
    barrier: Barrier,
    /// When it looks for the dead, where it waits.
    turn: Turn,
    in_the_way: InTheWay,
    /// Of a guarded topic, whose subscribers sleep each on a page of its own; `barrier` is `Nobody` then.
    pages: Option<Pages>,
    payload: PhantomData<fn(&T)>,
}

impl<T: Payload + ?Sized> Publisher<T> {
    pub(crate) fn new(
        participant: Participant,
        ring: ExclusiveRing,
        shared: Option<SharedRing>,
        barrier: Barrier,
    ) -> Self {
        let payload = PhantomData;
        let region = &*participant.region;
        let in_the_way = InTheWay::nobody(region);
        let look = Arc::clone(&participant.attachment).look_for_deletion_at_blocks();
        let shared = shared.map(|ring| ring.at_each_block(look));
        let pages = region.is_guarded().then(|| Pages::new(region, barrier));
        let barrier = if pages.is_some() { Barrier::Nobody } else { barrier };
        Publisher {
            participant,
            ring,
            shared,
            barrier,
            turn: Turn::new(),
            in_the_way,
            pages,
            payload,
        }
    }

    #[cfg(feature = "internals")]
    pub(crate) fn participant(&self) -> &Participant {
        &self.participant
    }

    /// The sequence that the next message will have; on a shared topic, the first that it can have.
    pub fn sequence(&self) -> u64 {
        match &self.shared {
            Some(_) if self.participant.attachment.is_forked() => 0,
            Some(_) => self.participant.region.head().load(Acquire), // [stream position]
            None => self.ring.sequence(),
        }
    }

    /// Publishes a copy of `message` and returns its sequence. Waits while a reliable subscriber is a whole ring behind.
    ///
    /// # Errors
    /// See [`PublishError`]; nothing was published then.
    #[inline(always)] // as `Subscriber::try_receive`
    pub fn publish(&mut self, message: &T) -> Result<u64, PublishError> {
        self.publish_until(message, FOREVER)
    }

    /// Publishes a copy of `message` if that is possible without waiting.
    ///
    /// # Errors
    /// [`TryPublishError::Full`] where it is not; else as [`Publisher::publish`].
    #[inline(always)]
    pub fn try_publish(&mut self, message: &T) -> Result<u64, TryPublishError> {
        match self.publish_until(message, AT_ONCE) {
            Err(PublishError::TimedOut) => Err(TryPublishError::Full),
            other => Ok(other?),
        }
    }

    /// [`Publisher::publish`], waiting `timeout` at most.
    ///
    /// # Errors
    /// [`PublishError::TimedOut`] then; else as [`Publisher::publish`].
    pub fn publish_timeout(&mut self, message: &T, timeout: Duration) -> Result<u64, PublishError> {
        self.publish_until(message, crate::wait::deadline_ns(timeout))
    }

    #[inline(always)] // so that a message built by the caller is built in its slot
    pub(crate) fn publish_until(
        &mut self,
        message: &T,
        deadline_ns: u64,
    ) -> Result<u64, PublishError> {
        let bytes = message.bytes();
        self.check(bytes.len())?;
        let place = match self.ring.place(&self.participant.region) {
            Some(place) => place,
            None if self.shared.is_some() => {
                return payload::apart::<T, _>(bytes, |bytes| {
                    self.publish_shared(bytes, deadline_ns)
                });
            }
            None => self.open(deadline_ns)?,
        };
        let region = &*self.participant.region;
        payload::fetch_ahead(region, place.at);
        // SAFETY: `place` is the next slot of the only publisher; `check` has compared the length; the region is mapped for
        // writing (`Topic::publisher`).
        unsafe { payload::write::<T>(region, place.at, bytes) };
        crash::point("publish.written");
        Ok(self.commit(place, bytes.len() as u32))
    }

    /// Whether a message of `len` bytes may be published from here.
    #[inline]
    fn check(&self, len: usize) -> Result<(), PublishError> {
        if self.participant.attachment.is_forked() {
            return Err(PublishError::Forked);
        }
        let max = self.participant.region.geometry().payload_max;
        if T::SIZE.is_none() && len > max as usize {
            return Err(PublishError::TooLong { len, max });
        }
        if T::ANY {
            return self.check_any(len);
        }
        Ok(())
    }

    /// Whether a message of the topic's type, whatever it is, has `len` bytes.
    fn check_any(&self, len: usize) -> Result<(), PublishError> {
        let carried = &self.participant.attachment.description.carried;
        if carried.has(len as u64) {
            Ok(())
        } else {
            Err(PublishError::Length { len, size: carried.unit() })
        }
    }

    /// Publishes copies of `messages`, in order; the sequence of the first.
    ///
    /// On an exclusive topic the others follow it without a gap, and subscribers are told once per block: of those that sleep, and
    /// of those that begin just then, by the head. One that is awake receives each message as soon as it is there.
    pub(crate) fn publish_each<'a>(
        &mut self,
        messages: impl Iterator<Item = &'a T>,
    ) -> Result<u64, PublishAllError>
    where
        T: 'a,
    {
        if self.participant.attachment.is_forked() {
            return Err(PublishAllError { published: 0, source: PublishError::Forked }); // of no messages too
        }
        let mut first = None;
        let mut published = 0;
        let mut untold = false;
        for message in messages {
            match self.publish_untold(message, &mut untold) {
                Ok(sequence) => {
                    first.get_or_insert(sequence);
                    published += 1;
                }
                Err(source) => {
                    self.tell(&mut untold);
                    return Err(PublishAllError { published, source });
                }
            }
        }
        self.tell(&mut untold);
        Ok(first.unwrap_or_else(|| self.sequence()))
    }

    /// [`Publisher::publish`], but on an exclusive topic head and bell are left for [`Publisher::tell`].
    #[inline(always)] // as in `publish_until`, of which this is the loop
    fn publish_untold(&mut self, message: &T, untold: &mut bool) -> Result<u64, PublishError> {
        let bytes = message.bytes();
        self.check(bytes.len())?;
        let place = match self.ring.place(&self.participant.region) {
            Some(place) => place,
            None if self.shared.is_some() => {
                return payload::apart::<T, _>(bytes, |bytes| self.publish_shared(bytes, FOREVER));
            }
            None => {
                self.tell(untold); // before anybody is waited for
                self.open(FOREVER)?
            }
        };
        let region = &*self.participant.region;
        payload::fetch_ahead(region, place.at);
        // SAFETY: as in `publish_until`.
        unsafe { payload::write::<T>(region, place.at, bytes) };
        let timestamp_ns = region.geometry().timestamp.then(now_ns);
        *untold = true;
        Ok(self.ring.stamp(region, place, bytes.len() as u32, timestamp_ns))
    }

    /// Shows the head and rings, if there is something to tell.
    #[inline]
    fn tell(&mut self, untold: &mut bool) {
        if core::mem::take(untold) {
            self.ring.show_head(&self.participant.region);
            self.ring_subscribers();
        }
    }

    /// Wakes those who sleep.
    #[inline]
    fn ring_subscribers(&mut self) {
        match self.barrier {
            Barrier::Nobody => self.ring_pages(),
            barrier => self.participant.region.control().subscribers_bell.0.ring(barrier),
        }
    }

    /// Nobody sleeps on the topic's bell: because nobody sleeps, or because it is guarded.
    #[cold]
    #[inline(never)]
    fn ring_pages(&mut self) {
        if let Some(pages) = &mut self.pages {
            pages.ring(&self.participant.region);
        }
    }

    /// Makes what was written at the `place` of an exclusive ring a message, and tells subscribers.
    #[inline(always)] // no call, and nothing saved and reloaded around it, for each message
    fn commit(&mut self, place: Place, len: u32) -> u64 {
        let region = &*self.participant.region;
        let timestamp_ns = region.geometry().timestamp.then(now_ns);
        let sequence = self.ring.commit(region, place, len, timestamp_ns);
        self.ring_subscribers();
        sequence
    }

    /// Opens the next block of an exclusive topic.
    #[cold]
    #[inline(never)]
    fn open(&mut self, deadline_ns: u64) -> Result<Place, PublishError> {
        self.participant.attachment.look_for_deletion_before(self.ring.sequence());
        let opened = self.when_there_is_room(deadline_ns, |publisher| {
            publisher.ring.open(&publisher.participant.region)
        });
        if let Some(pages) = &mut self.pages
            && opened.is_ok()
        {
            pages.refresh(&self.participant.region);
            self.in_the_way.debts.done(clock::monotonic_ns());
        }
        opened
    }

    /// Takes a sequence of a shared topic.
    #[inline(never)]
    fn claim(&mut self, deadline_ns: u64) -> Result<Claim, PublishError> {
        self.when_there_is_room(deadline_ns, |publisher| match &mut publisher.shared {
            Some(ring) => ring.claim(&publisher.participant.region),
            None => Err(Blocked::Corrupt(Corrupt::Stream)),
        })
    }

    #[inline(never)]
    fn publish_shared(&mut self, bytes: &[u8], deadline_ns: u64) -> Result<u64, PublishError> {
        loop {
            let claim = self.claim(deadline_ns)?;
            // SAFETY: the slot of a claimed sequence is its owner's until it is stamped, and its block is pinned even if the claim
            // is revoked; `check` has compared the length; the region is mapped for writing.
            unsafe { payload::write::<T>(&self.participant.region, claim.slot, bytes) };
            crash::point("shared.written");
            if let Some(sequence) = self.commit_claim(claim, bytes.len() as u32) {
                return Ok(sequence);
            }
        }
    }

    /// Makes what was written in a claimed slot a message; `None` where the claim was revoked meanwhile.
    fn commit_claim(&mut self, claim: Claim, len: u32) -> Option<u64> {
        let region = &*self.participant.region;
        let timestamp_ns = region.geometry().timestamp.then(now_ns);
        let committed = self.shared.as_mut()?.commit(region, claim, len, timestamp_ns).ok()?;
        region.control().subscribers_bell.0.ring(self.barrier);
        Some(committed)
    }

    /// Commits a loan. A revoked one is copied to a new sequence.
    #[inline]
    pub(crate) fn commit_loan(
        &mut self,
        message: &T,
        claim: Option<Claim>,
    ) -> Result<u64, PublishError> {
        if self.participant.attachment.is_forked() {
            return Err(PublishError::Forked);
        }
        crash::point("loan.written");
        match claim {
            None => {
                let place = self.ring.written(&self.participant.region);
                Ok(self.commit(place, message.bytes().len() as u32))
            }
            Some(claim) => self.commit_shared_loan(message.bytes(), claim),
        }
    }

    fn commit_shared_loan(&mut self, bytes: &[u8], claim: Claim) -> Result<u64, PublishError> {
        if let Some(sequence) = self.commit_claim(claim, bytes.len() as u32) {
            return Ok(sequence);
        }
        if let Some(ring) = &self.shared {
            ring.keep(&self.participant.region, claim);
        }
        let moved = self.publish_shared(bytes, FOREVER);
        crash::point("move.published");
        if let Some(ring) = &self.shared {
            ring.let_go(&self.participant.region);
        }
        moved
    }

    /// A loan of a shared topic was dropped: its sequence never becomes a message.
    pub(crate) fn abandon_loan(&mut self, claim: Claim) {
        let Participant { attachment, region, .. } = &self.participant;
        if let Some(ring) = &mut self.shared
            && !attachment.is_forked()
        {
            ring.abandon(region, claim);
            region.control().subscribers_bell.0.ring(self.barrier);
        }
    }

    /// Does what blocks on reliable subscribers, as soon as each has made room, is proven dead, or has used up its patience.
    #[inline]
    fn when_there_is_room<R>(
        &mut self,
        deadline_ns: u64,
        mut attempt: impl FnMut(&mut Self) -> Result<R, Blocked>,
    ) -> Result<R, PublishError> {
        let mut patience = Patience::of_publisher();
        loop {
            self.read_notices()?;
            match attempt(self) {
                Ok(done) => return Ok(done),
                Err(Blocked::Full) => {}
                Err(Blocked::Corrupt(corrupt)) => return Err(corrupt.into()),
            }
            self.wait_for_room(deadline_ns, &mut patience)?;
        }
    }

    /// The topic may have been removed, or a subscriber may need a hand.
    fn read_notices(&self) -> Result<(), PublishError> {
        let Participant { attachment, region, index, .. } = &self.participant;
        let notices = &region.control().notices.0;
        if notices.joins.is_retired() {
            return Err(PublishError::Retired);
        }
        if notices.repair.load(Acquire) != 0 && self.shared.is_some() {
            repair::lend_a_hand(region, *index, |index| attachment.lives(index)); // [notice]
        }
        Ok(())
    }

    #[cold]
    fn wait_for_room(
        &mut self,
        deadline_ns: u64,
        patience: &mut Patience,
    ) -> Result<(), PublishError> {
        let Participant { attachment, region, .. } = &self.participant;
        let now_ns = clock::monotonic_ns();
        let number = region.geometry().number(self.ring.sequence());
        attachment.look_for_deletion_at(now_ns);
        if region.is_guarded() && self.in_the_way.debts.charge(region, number, now_ns) > 0 {
            return Ok(());
        }
        if now_ns >= self.turn.next_ns() {
            let found = self.turn.take(&self.participant, now_ns);
            let claim_timeout_ns = attachment.description.claim_timeout_ns;
            let lives = |index| attachment.lives(index);
            if found + self.in_the_way.evict(region, now_ns, claim_timeout_ns, lives) > 0 {
                return Ok(());
            }
        }
        if now_ns >= deadline_ns {
            return Err(PublishError::TimedOut);
        }
        if !patience.is_left() {
            let until_ns = deadline_ns.min(self.turn.next_ns());
            let bell = &region.control().publishers_bell.0;
            let look = || {
                let retired = region.control().notices.0.joins.is_retired();
                retired
                    || match &self.shared {
                        Some(ring) => ring.may_go_on(region),
                        None => self.ring.may_go_on(region),
                    }
            };
            if region.is_guarded() {
                guard::sleep(region, number, until_ns, look);
            } else {
                bell.sleep(Meet::Fence, until_ns, look);
            }
        }
        Ok(())
    }

    #[inline(always)] // so that a message built by the caller is built in its slot
    pub(crate) fn loan_bytes(&mut self, len: usize) -> Result<Loan<'_, T>, PublishError> {
        self.check(len)?;
        let (at, claim) = match self.ring.place(&self.participant.region) {
            Some(place) => (place.at, None),
            None if self.shared.is_some() => {
                let claim = self.claim(FOREVER)?;
                (claim.slot, Some(claim))
            }
            None => (self.open(FOREVER)?.at, None),
        };
        let region = &self.participant.region;
        // SAFETY: `at` is the next slot of the only publisher, or that of a claimed sequence, whose block is pinned until the next claim; the loan
        // borrows the publisher as long as it lives; `check` has compared the length; the region is mapped for writing.
        let message = unsafe { payload::write_in_place(region, at, len) };
        // Size and alignment were compared when the topic was opened.
        let message = message.ok_or(Corrupt::Table)?;
        if claim.is_none() {
            payload::fetch_ahead(region, at);
        }
        Ok(Loan::new(self, message, claim))
    }
}

/// The time of a commit, out of the way of those that carry none.
#[cold]
#[inline(never)]
fn now_ns() -> u64 {
    clock::monotonic_ns()
}

impl<T: Payload> Publisher<T> {
    /// Publishes a copy of each of `messages`, in order, and returns the sequence of the first (of none: the next sequence). Waits as
    /// [`Publisher::publish`] does.
    ///
    /// On an exclusive topic their sequences follow each other, and the head is written and the bell rung once per block. That saves the fence
    /// of each message where publishers ring with one ([`Wake::Fence`](crate::Wake::Fence)), and next to nothing where they do not. Subscribers that
    /// are awake receive each message at once, those that sleep are woken at the end of a block or of the batch. On a
    /// shared topic it is publishing one by one, and messages of others may lie between.
    ///
    /// # Errors
    /// [`PublishAllError`] says how many were published before the one that was not.
    pub fn publish_all(&mut self, messages: &[T]) -> Result<u64, PublishAllError> {
        self.publish_each(messages.iter())
    }

    /// The next slot, to be written in place: nothing is copied. Waits as [`Publisher::publish`] does.
    ///
    /// The message shows whatever bytes stood in the slot before. It is published by [`Loan::commit`] and, dropped instead, no message.
    /// An open loan of an exclusive publisher costs nobody anything; one of a shared publisher has taken its sequence already (dropped, it is abandoned), and
    /// subscribers wait for it: there, build a message that takes long first, and publish it.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    #[inline]
    pub fn loan(&mut self) -> Result<Loan<'_, T>, PublishError> {
        self.loan_bytes(size_of::<T>())
    }
}

impl<T: Message> Publisher<[T]> {
    /// Publishes a copy of each of `messages`, in order; else as for topics of one type.
    ///
    /// # Errors
    /// [`PublishAllError`] says how many were published before the one that was not.
    pub fn publish_all(&mut self, messages: &[&[T]]) -> Result<u64, PublishAllError> {
        self.publish_each(messages.iter().copied())
    }

    /// The next slot as a message of `len` elements (of `[u8]`: bytes), to be written in place; else as for topics of one type.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    #[inline]
    pub fn loan(&mut self, len: usize) -> Result<Loan<'_, [T]>, PublishError> {
        self.loan_bytes(len.saturating_mul(size_of::<T>()))
    }
}
