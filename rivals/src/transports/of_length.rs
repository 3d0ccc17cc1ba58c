//! Transports whose messages have a type, and so a length, that is known when the program is compiled.

use std::num::NonZeroUsize;

use anyhow::{Context, Result};
use bytemuck::{Pod, Zeroable};
use shmbus_bench::transport::{Abilities, Channel, Receiver, Sender, Transport};

/// A message of so many words.
pub(crate) type Words<const N: usize> = [u64; N];

/// A transport for messages of one type.
pub(crate) trait Typed: Send + Sync + 'static {
    type Sender<const N: usize>: Put<N>;
    type Receiver<const N: usize>: Take<N>;

    fn name(&self) -> &'static str;
    fn abilities(&self) -> Abilities;
    fn create<const N: usize>(&self, channel: &Channel) -> Result<()> {
        _ = channel;
        Ok(())
    }
    fn listen<const N: usize>(&self, channel: &Channel, index: usize) -> Result<Self::Receiver<N>>;
    fn connect<const N: usize>(&self, channel: &Channel) -> Result<Self::Sender<N>>;
    fn remove(&self, _channel: &Channel) {}
}

/// The end that sends, for one type.
pub(crate) trait Put<const N: usize> {
    fn put(&mut self, message: &Words<N>) -> Result<()>;
}

/// The end that receives, for one type.
pub(crate) trait Take<const N: usize> {
    fn accept(&mut self) -> Result<()> {
        Ok(())
    }
    fn try_take<R>(&mut self, look: impl FnOnce(&Words<N>) -> R) -> Result<Option<R>>;
    fn take<R>(&mut self, look: impl FnOnce(&Words<N>) -> R) -> Result<R>;
}

/// The same for messages of two lengths, 48 and 64 bytes; other ones up to 64 go in the longer type. Each more costs a minute of building.
pub(crate) struct OfLength<T>(pub(crate) T);

/// One of each length, and how many bytes of it are the message where that is not known when the program is compiled.
pub(crate) enum Ends<A, B> {
    L48(A),
    L64(B, usize),
}

const LONGEST: usize = 64;

pub(crate) type Senders<T> = Ends<<T as Typed>::Sender<6>, <T as Typed>::Sender<8>>;

pub(crate) type Receivers<T> = Ends<<T as Typed>::Receiver<6>, <T as Typed>::Receiver<8>>;

impl<T: Typed> Transport for OfLength<T> {
    type Sender = Senders<T>;
    type Receiver = Receivers<T>;

    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn abilities(&self) -> Abilities {
        Abilities { payload_max: LONGEST, ..self.0.abilities() }
    }

    fn create(&self, channel: &Channel) -> Result<()> {
        match channel.payload {
            48 => self.0.create::<6>(channel),
            _ => self.0.create::<8>(channel),
        }
    }

    fn listen(&self, channel: &Channel, index: usize) -> Result<Receivers<T>> {
        Ok(match channel.payload {
            48 => Ends::L48(self.0.listen(channel, index)?),
            len => Ends::L64(self.0.listen(channel, index)?, len),
        })
    }

    fn connect(&self, channel: &Channel) -> Result<Senders<T>> {
        Ok(match channel.payload {
            48 => Ends::L48(self.0.connect(channel)?),
            len => Ends::L64(self.0.connect(channel)?, len),
        })
    }

    fn remove(&self, channel: &Channel) {
        self.0.remove(channel);
    }
}

#[inline(always)]
fn put<const N: usize>(sender: &mut impl Put<N>, message: &[u8]) -> Result<()>
where
    Words<N>: Pod,
{
    if let Ok(message) = bytemuck::try_from_bytes(message) {
        return sender.put(message);
    }
    let mut longer: Words<N> = Zeroable::zeroed();
    let bytes = bytemuck::bytes_of_mut(&mut longer);
    let part = bytes.get_mut(..message.len()).context("a message longer than its type")?;
    part.copy_from_slice(message);
    sender.put(&longer)
}

#[inline(always)]
fn part<const N: usize>(message: &Words<N>, len: usize) -> &[u8] {
    let bytes = bytemuck::cast_slice(message);
    bytes.get(..len).unwrap_or(bytes)
}

impl<A: Put<6>, B: Put<8>> Sender for Ends<A, B> {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> Result<()> {
        match self {
            Ends::L48(sender) => put(sender, message),
            Ends::L64(sender, _) => put(sender, message),
        }
    }
}

impl<A: Take<6>, B: Take<8>> Receiver for Ends<A, B> {
    fn accept(&mut self) -> Result<()> {
        match self {
            Ends::L48(receiver) => receiver.accept(),
            Ends::L64(receiver, _) => receiver.accept(),
        }
    }

    #[inline(always)]
    fn try_receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        match self {
            Ends::L48(receiver) => receiver.try_take(|message| look(part(message, 48))),
            Ends::L64(receiver, len) => receiver.try_take(|message| look(part(message, *len))),
        }
    }

    #[inline(always)]
    fn receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R> {
        match self {
            Ends::L48(receiver) => receiver.take(|message| look(part(message, 48))),
            Ends::L64(receiver, len) => receiver.take(|message| look(part(message, *len))),
        }
    }
}

/// How many messages a receiver takes at once, where its crate has that: it hands them on one by one, as one of a stream hands on what it has read.
const AT_ONCE: usize = 32;

/// Messages that were taken and not yet handed on.
pub(crate) struct Batch<const N: usize> {
    messages: [Words<N>; AT_ONCE],
    next: usize,
    end: usize,
}

impl<const N: usize> Batch<N> {
    pub(crate) const AT_ONCE: NonZeroUsize = NonZeroUsize::new(AT_ONCE).unwrap();

    pub(crate) fn new() -> Batch<N> {
        Batch { messages: [[0; N]; AT_ONCE], next: 0, end: 0 }
    }

    /// The next one; where there is none, `fill` takes some and says how many.
    #[inline(always)]
    pub(crate) fn next(
        &mut self,
        fill: impl FnOnce(&mut [Words<N>; AT_ONCE]) -> usize,
    ) -> Option<&Words<N>> {
        if self.next == self.end {
            self.next = 0;
            self.end = fill(&mut self.messages).min(AT_ONCE);
            if self.end == 0 {
                return None;
            }
        }
        self.next += 1;
        self.messages.get(self.next - 1)
    }

    /// Fills it from the two parts of a ring.
    #[inline(always)]
    pub(crate) fn copy(into: &mut [Words<N>; AT_ONCE], parts: (&[Words<N>], &[Words<N>])) -> usize {
        let all = parts.0.iter().chain(parts.1);
        into.iter_mut().zip(all).map(|(to, from)| *to = *from).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_hands_on_each_message_once_and_then_asks_for_more() {
        let mut batch = Batch::<1>::new();
        let mut asked = 0;
        let mut got = Vec::new();
        for _ in 0..40 {
            let message = batch.next(|into| {
                asked += 1;
                let all: Vec<[u64; 1]> = (0..33).map(|word| [asked * 100 + word]).collect();
                Batch::copy(into, all.split_at(20))
            });
            got.push(message.unwrap()[0]);
        }
        assert_eq!(got, (100..132).chain(200..208).collect::<Vec<u64>>());
        assert_eq!(Batch::<1>::new().next(|_| 0), None);
    }
}
