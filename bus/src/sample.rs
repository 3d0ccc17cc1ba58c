//! A received message: borrowed for a moment, or held.
#![allow(unsafe_code)] // a held message is read through a pointer that its hold keeps valid

use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::atomics::Relaxed;
use crate::message::Message;
use crate::participant::Participant;
use crate::payload::{self, Payload};
use crate::ring::skips::Skipped;
use crate::ring::{Corrupt, SlotAt};
use crate::subscriber::Seat;
use crate::sweep;

/// A message in shared memory, until the next call on its [`Subscriber`](crate::Subscriber). Costs nothing to have and nothing to drop.
pub struct Sample<'a, T: Payload + ?Sized> {
    seat: &'a Arc<Seat>,
    message: &'a T,
    at: SlotAt,
    sequence: u64,
    before: Skipped,
    timestamp_ns: Option<u64>,
}

/// A sample cannot be held: the topic's `hold_blocks`, or the 64 hold cells of this subscriber, are used up. Here it is again.
#[derive(thiserror::Error)]
#[error("the topic's budget of held blocks is used up")]
pub struct HoldBudget<'a, T: Payload + ?Sized>(pub Sample<'a, T>);

impl<'a, T: Payload + ?Sized> Sample<'a, T> {
    pub(crate) fn new(
        seat: &'a Arc<Seat>,
        message: &'a T,
        at: SlotAt,
        sequence: u64,
        timestamp_ns: Option<u64>,
    ) -> Self {
        Sample { seat, message, at, sequence, before: Skipped::default(), timestamp_ns }
    }

    /// What its subscriber went past just before it.
    #[inline(always)]
    pub(crate) fn skipped(&mut self, before: Skipped) {
        self.before = before;
    }

    /// Its place in the stream.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// How many messages this subscriber missed just before this one, each counted only once: none, if it is
    /// reliable and has skipped none itself. See [`Subscriber::missed`](crate::Subscriber::missed).
    ///
    /// Together with [`abandoned_before`](Sample::abandoned_before) it is exact: the message that was received before this one has the sequence
    /// `sequence - missed_before - abandoned_before - 1`, unless the subscriber has gone back in between.
    pub fn missed_before(&self) -> u64 {
        self.before.missed
    }

    /// How many sequences just before this one never became messages: loans that were dropped, and what publishers took that died or stood still. Always
    /// 0 on an exclusive topic. See [`Subscriber::abandoned`](crate::Subscriber::abandoned).
    pub fn abandoned_before(&self) -> u64 {
        self.before.abandoned
    }

    /// When it was committed, in nanoseconds of `CLOCK_MONOTONIC`, where the topic carries the time.
    pub fn timestamp_ns(&self) -> Option<u64> {
        self.timestamp_ns
    }

    /// The entry of its publisher, as [`TopicInfo`](crate::TopicInfo) shows it, on a topic of several; `None` on one of one.
    pub fn publisher(&self) -> Option<u32> {
        let Participant { attachment, region, .. } = &self.seat.participant;
        let is_there = region.geometry().shared && !attachment.is_forked();
        is_there.then(|| region.slot(self.at).publisher.load(Relaxed)) // stored before the stamp
    }

    /// Keeps the message as it is for as long as the result lives, wherever the stream goes meanwhile.
    ///
    /// Publishers do not wait for it: the topic has spare blocks for `hold_blocks` held blocks, and samples of one block that one
    /// subscriber holds count once. Costs a fence and a look at every participant.
    ///
    /// # Errors
    /// [`HoldBudget`] gives the sample back, where the budget is used up (of two that hold the last one at once, both may be
    /// refused).
    pub fn hold(self) -> Result<Held<T>, HoldBudget<'a, T>> {
        let participant = &self.seat.participant;
        // A forked child has nothing mapped: its parent's cells are not its own.
        if participant.attachment.is_forked() {
            return Err(HoldBudget(self));
        }
        let block = participant.region.geometry().block_of(self.at);
        let held = self.seat.holds.hold(&participant.region, participant.index, block);
        let cell = match held {
            Ok(cell) => cell,
            Err(_) => {
                if participant.region.is_guarded() {
                    return Err(HoldBudget(self)); // its own alone, and nobody else's
                }
                // Perhaps the dead have it, or had it until somebody has swept just now.
                sweep::now(participant, None);
                match self.seat.holds.hold(&participant.region, participant.index, block) {
                    Ok(cell) => cell,
                    Err(_) => return Err(HoldBudget(self)),
                }
            }
        };
        Ok(Held {
            message: NonNull::from(self.message),
            seat: Arc::clone(self.seat),
            cell,
            sequence: self.sequence,
            timestamp_ns: self.timestamp_ns,
        })
    }
}

impl<T: Message> Sample<'_, T> {
    /// Copies the message by atomic loads, and looks at its stamp again: for a publisher that may write where it should not. One that may do so on purpose
    /// makes even the sample a risk, which is a `&T`: against it, [`Subscriber::try_copy`](crate::Subscriber::try_copy). Slower than a memcpy.
    ///
    /// # Errors
    /// [`Corrupt::Stream`] where the message was overwritten meanwhile, [`Corrupt::Length`] where its length was; `into` has what was copied by then.
    pub fn copy_to(&self, into: &mut T) -> Result<(), Corrupt> {
        let Participant { attachment, region, .. } = &self.seat.participant;
        if attachment.is_forked() {
            return Err(Corrupt::Stream); // nothing is mapped here
        }
        payload::copy(region, self.at, self.sequence, payload::bytes_of_mut(into))
    }
}

impl<T: Payload + ?Sized> Deref for Sample<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.message
    }
}

impl<T: Payload + ?Sized> std::fmt::Debug for HoldBudget<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HoldBudget").field(&self.0.sequence).finish()
    }
}

/// A message kept where it is: owned, clonable, to be sent to other threads. It keeps the subscriber's entry and the mapping alive.
///
/// Forgotten, it costs its block of the budget until the process ends.
pub struct Held<T: Payload + ?Sized> {
    message: NonNull<T>,
    seat: Arc<Seat>,
    cell: usize,
    sequence: u64,
    timestamp_ns: Option<u64>,
}

// SAFETY: a `Held` gives shared access to a `T` that nobody writes while its block is held, and a `T` may be shared between
// threads; the rest of it is `Send` and `Sync`.
unsafe impl<T: Payload + ?Sized> Send for Held<T> {}
// SAFETY: as above.
unsafe impl<T: Payload + ?Sized> Sync for Held<T> {}

impl<T: Payload + ?Sized> Held<T> {
    /// Its place in the stream.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// When it was committed, in nanoseconds of `CLOCK_MONOTONIC`, where the topic carries the time.
    pub fn timestamp_ns(&self) -> Option<u64> {
        self.timestamp_ns
    }
}

impl<T: Payload + ?Sized> Deref for Held<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the message was read in a pinned block that has been held since (`Holds::hold`), so it is not reused, and
        // `seat` keeps it mapped.
        unsafe { self.message.as_ref() }
    }
}

impl<T: Payload + ?Sized> Clone for Held<T> {
    fn clone(&self) -> Self {
        self.seat.holds.share(self.cell);
        Held { seat: Arc::clone(&self.seat), ..*self }
    }
}

impl<T: Payload + ?Sized> Drop for Held<T> {
    fn drop(&mut self) {
        let participant = &self.seat.participant;
        if !participant.attachment.is_forked() {
            self.seat.holds.release(participant.region.entry(participant.index), self.cell);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Delivery, Directory, Topic, TopicOptions};

    /// Forgotten clones are safe code. Their number had 32 bits: after 2^32 of them the next one that was dropped gave the block back.
    #[test]
    fn more_clones_are_forgotten_than_32_bits_can_count_and_the_message_stays_held() {
        let path = tempfile::tempdir_in("/dev/shm").unwrap();
        let directory = Directory::at(path.path()).unwrap();
        let options = TopicOptions { depth: 64, subscribers_max: 1, ..Default::default() };
        let topic = Topic::<u64>::create_in(&directory, "t", &options).unwrap();
        let mut publisher = topic.publisher().unwrap();
        let mut subscriber = topic.subscriber(Delivery::Lossy).unwrap();
        publisher.publish(&7).unwrap();
        let held = subscriber.receive().unwrap().hold().ok().unwrap();
        let clone = held.clone();
        held.seat.holds.share_often(held.cell, u32::MAX.into()); // as many `mem::forget(held.clone())`: less than a minute
        drop(clone);
        for number in 0..256 {
            publisher.publish(&number).unwrap(); // four times round the ring
            subscriber.receive_latest().unwrap();
        }
        assert_eq!(*held, 7, "overwritten while it is held");
    }
}
