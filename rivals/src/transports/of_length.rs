//! Transports whose messages have a type, and so a length, that is known when the program is compiled.

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
