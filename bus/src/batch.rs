//! Receiving several messages at once, and going elsewhere in the stream.
#![allow(unsafe_code)] // reads slots whose stamps were seen, in the block that the reader pins

use std::marker::PhantomData;
use std::sync::Arc;

use crate::atomics::{Acquire, Relaxed};
use crate::error::{ReceiveError, SeekError};
use crate::payload::{self, Payload};
use crate::ring::SlotAt;
use crate::ring::reader::Reader;
use crate::sample::Sample;
use crate::subscriber::{Seat, Subscriber, sample};

/// The messages of one block that are there: an iterator of [`Sample`]s, in order, all of which stay as they are until the next
/// call on the [`Subscriber`].
///
/// It looks as it goes: what is committed meanwhile is in it, up to the end of the block, and what was not taken from it stays to be
/// received. Each costs the load of its stamp; what a receive asks besides was asked once. A message that is not valid ends it, and the next receive
/// says why.
pub struct Batch<'a, T: Payload + ?Sized> {
    seat: &'a Arc<Seat>,
    reader: &'a mut Reader,
    payload: PhantomData<fn() -> *const T>,
}

impl<'a, T: Payload + ?Sized> Iterator for Batch<'a, T> {
    type Item = Sample<'a, T>;

    #[inline]
    fn next(&mut self) -> Option<Sample<'a, T>> {
        let participant = &self.seat.participant;
        if participant.attachment.is_forked() {
            return None;
        }
        let (at, sequence) = self.reader.look_in_block(&participant.region)?;
        // SAFETY: the reader has seen the stamp in this slot, in the block that it pins; `look_in_block` and `pass` do not move the
        // pin, and every call that does is ruled out for 'a by the borrow of the subscriber.
        let mut sample: Sample<'_, T> = unsafe { sample(self.seat, at, sequence) }.ok()?;
        self.reader.pass(&participant.region, at, sequence);
        sample.skipped(self.reader.skipped_before(sequence));
        Some(sample)
    }
}

impl<T: Payload + ?Sized> Subscriber<T> {
    /// The messages that are there, as far as they lie in one block; `None` where there are none. Never waits.
    ///
    /// ```
    /// # fn total(subscriber: &mut shmbus::Subscriber<u64>) -> Result<u64, shmbus::ReceiveError> {
    /// let mut total = 0;
    /// while let Some(batch) = subscriber.try_receive_batch()? {
    ///     total += batch.map(|sample| *sample).sum::<u64>();
    /// }
    /// # Ok(total) }
    /// ```
    ///
    /// # Errors
    /// As [`Subscriber::try_receive`].
    pub fn try_receive_batch(&mut self) -> Result<Option<Batch<'_, T>>, ReceiveError> {
        match self.poll()? {
            Some((at, _)) => self.batch(at).map(Some),
            None => Ok(None),
        }
    }

    /// [`Subscriber::try_receive_batch`], waiting for the first message as [`Subscriber::receive`] does.
    ///
    /// # Errors
    /// As [`Subscriber::try_receive`].
    pub fn receive_batch(&mut self) -> Result<Batch<'_, T>, ReceiveError> {
        loop {
            if let Some((at, _)) = self.wait(u64::MAX)? {
                return self.batch(at);
            }
        }
    }

    /// Calls `f` with each message that is there now, and says how many there were. What is published meanwhile may be left for the
    /// next call, so that this ends however fast that is. Never waits.
    ///
    /// # Errors
    /// As [`Subscriber::try_receive`]. What came before the error was given to `f`.
    pub fn for_each_available(
        &mut self,
        mut f: impl FnMut(Sample<'_, T>),
    ) -> Result<u64, ReceiveError> {
        let participant = &self.seat.participant;
        if participant.attachment.is_forked() {
            return Err(ReceiveError::Forked);
        }
        let end = participant.region.head().load(Acquire); // [stream position]
        let mut count = 0;
        // The first look in any case: for a message that the head does not count yet, and for what there is to be said.
        while let Some(batch) = self.try_receive_batch()? {
            batch.for_each(|sample| {
                f(sample);
                count += 1;
            });
            if self.position() >= end {
                break;
            }
        }
        Ok(count)
    }

    /// Goes to `sequence`: forward as far as the next one to be published, and, where it is lossy, back to any that is retained. Those that are passed over count
    /// as missed, whatever they are; going back takes back no count. Whether `sequence` is still there when it is received is another question for
    /// a lossy subscriber: if not, it counts as missed as ever.
    ///
    /// Costs a few loads now, and entering a block at the next receive.
    ///
    /// # Errors
    /// [`SeekError::Gone`], [`SeekError::Ahead`], and [`SeekError::Back`] for a reliable subscriber. It stays where it is.
    pub fn seek(&mut self, sequence: u64) -> Result<(), SeekError> {
        let participant = &self.seat.participant;
        if participant.attachment.is_forked() {
            return Err(SeekError::Forked);
        }
        let position = self.reader.position();
        if self.reader.is_reliable() && sequence < position {
            return Err(SeekError::Back { sequence, position });
        }
        SeekError::of(sequence, self.reader.seek(&participant.region, sequence)?)
    }

    /// The messages from the one on that [`Subscriber::poll`] has just found in `at`.
    fn batch(&mut self, at: SlotAt) -> Result<Batch<'_, T>, ReceiveError> {
        let region = &self.seat.participant.region;
        // A batch whose first message is not valid would be empty, for ever.
        let len = region.slot(at).len.load(Relaxed); // stored before the stamp
        // SAFETY: `poll` has seen the stamp in this slot, whose block stays pinned here.
        unsafe { payload::read::<T>(region, at, len) }?;
        self.reader.put_back(at);
        Ok(Batch { seat: &self.seat, reader: &mut self.reader, payload: PhantomData })
    }
}
