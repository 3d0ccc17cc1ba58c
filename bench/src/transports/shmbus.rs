//! The bus itself.

use std::marker::PhantomData;

use anyhow::{Result, anyhow};
use shmbus::{
    Delivery, Directory, Payload, Publisher, Subscriber, Topic, TopicOptions, TryPublishError, Wake,
};

use super::rung::Rung;
use crate::registry::ByLength;
use crate::transport::{Abilities, Channel, Receiver, Sender, Spin, Transport, Wait};

/// Messages of 48 bytes have a type, as a program would give them; others are bytes.
pub(crate) type Shmbus = ByLength<Bus<[u64; 6]>, Bus<[u8]>>;

type RungShmbus = ByLength<Rung<Bus<[u64; 6]>>, Rung<Bus<[u8]>>>;

pub(crate) const RELIABLE: Shmbus = bus(super::SHMBUS_NAME, Wake::Auto, Delivery::Reliable);
pub(crate) const FENCE: Shmbus = bus(super::SHMBUS_FENCE, Wake::Fence, Delivery::Reliable);
pub(crate) const LOSSY: Shmbus = bus("shmbus lossy", Wake::Auto, Delivery::Lossy);
/// With a doorbell of the program's own.
pub(crate) const RUNG: RungShmbus = {
    let ByLength { of_48, of_any } = bus(super::SHMBUS_RUNG, Wake::Auto, Delivery::Reliable);
    ByLength { of_48: Rung(of_48), of_any: Rung(of_any) }
};

const fn bus(name: &'static str, wake: Wake, delivery: Delivery) -> Shmbus {
    let carries = PhantomData;
    ByLength {
        of_48: Bus { name, wake, delivery, carries },
        of_any: Bus { name, wake, delivery, carries: PhantomData },
    }
}

/// A topic of one type, with the options that a program would choose for what is measured.
pub(crate) struct Bus<P: ?Sized> {
    name: &'static str,
    wake: Wake,
    delivery: Delivery,
    carries: PhantomData<fn(&P)>,
}

/// How a message of a type is bytes, and how it is written in place.
pub(crate) trait Carried: Payload {
    fn of(bytes: &[u8]) -> Result<&Self>;
    fn as_bytes(&self) -> &[u8];
    fn write(
        publisher: &mut Publisher<Self>,
        len: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<()>;
}

impl Carried for [u64; 6] {
    #[inline(always)]
    fn of(bytes: &[u8]) -> Result<&Self> {
        bytemuck::try_from_bytes(bytes).map_err(|error| anyhow!("a message of 48 bytes: {error}"))
    }

    #[inline(always)]
    fn as_bytes(&self) -> &[u8] {
        bytemuck::bytes_of(self)
    }

    #[inline(always)]
    fn write(
        publisher: &mut Publisher<Self>,
        _len: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<()> {
        let mut loan = publisher.loan()?;
        write(bytemuck::bytes_of_mut(&mut *loan));
        loan.commit()?;
        Ok(())
    }
}

impl Carried for [u8] {
    #[inline(always)]
    fn of(bytes: &[u8]) -> Result<&Self> {
        Ok(bytes)
    }

    #[inline(always)]
    fn as_bytes(&self) -> &[u8] {
        self
    }

    #[inline(always)]
    fn write(
        publisher: &mut Publisher<Self>,
        len: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<()> {
        let mut loan = publisher.loan(len)?;
        write(&mut loan);
        loan.commit()?;
        Ok(())
    }
}

impl<P: Carried + ?Sized> Bus<P> {
    /// About 256 KiB a receiver and a few messages at least, so that blocks are not too small for many receivers.
    fn options(&self, channel: &Channel) -> TopicOptions {
        let receivers = channel.receivers.max(1) as u64;
        let slot = (channel.payload as u64 + 16).next_multiple_of(64);
        let depth = ((receivers << 18) / slot).next_power_of_two().clamp(4, 1 << 18);
        TopicOptions {
            depth,
            subscribers_max: receivers as u32,
            hold_blocks: Some(0),
            max_len: channel.payload as u32,
            wake: self.wake,
            prefault: true,
            ..TopicOptions::default()
        }
    }

    fn open(&self, channel: &Channel) -> Result<Topic<P>> {
        Ok(Topic::open_in(&Directory::at(&channel.directory)?, &channel.name)?)
    }
}

impl<P: Carried + ?Sized> Transport for Bus<P> {
    type Sender = Outlet<P>;
    type Receiver = Inlet<P>;

    fn name(&self) -> &'static str {
        self.name
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            zero_copy: true,
            lossless: self.delivery == Delivery::Reliable,
            ..Abilities::STREAM
        }
    }

    fn create(&self, channel: &Channel) -> Result<()> {
        let directory = Directory::at(&channel.directory)?;
        Topic::<P>::create_in(&directory, &channel.name, &self.options(channel))?;
        Ok(())
    }

    fn listen(&self, channel: &Channel, _index: usize) -> Result<Inlet<P>> {
        Ok(Inlet(self.open(channel)?.subscriber(self.delivery)?))
    }

    fn connect(&self, channel: &Channel) -> Result<Outlet<P>> {
        Ok(Outlet(self.open(channel)?.publisher()?, channel.wait, channel.spin()))
    }
}

pub(crate) struct Outlet<P: Payload + ?Sized>(Publisher<P>, Wait, Spin);

impl<P: Carried + ?Sized> Sender for Outlet<P> {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> Result<()> {
        let Outlet(publisher, wait, spin) = self;
        let message = P::of(message)?;
        if *wait == Wait::Block {
            publisher.publish(message)?;
            return Ok(());
        }
        while let Err(error) = publisher.try_publish(message) {
            full(error, *spin)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn send_in_place(&mut self, len: usize, write: impl FnOnce(&mut [u8])) -> Result<()> {
        P::write(&mut self.0, len, write)
    }
}

#[cold]
fn full(error: TryPublishError, spin: Spin) -> Result<()> {
    match error {
        TryPublishError::Full => {
            spin.turn();
            Ok(())
        }
        TryPublishError::Failed(error) => Err(error.into()),
        _ => anyhow::bail!("publishing failed"),
    }
}

pub(crate) struct Inlet<P: Payload + ?Sized>(Subscriber<P>);

impl<P: Carried + ?Sized> Receiver for Inlet<P> {
    #[inline(always)]
    fn try_receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.0.try_receive()?.map(|sample| look(sample.as_bytes())))
    }

    #[inline(always)]
    fn receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R> {
        Ok(look(self.0.receive()?.as_bytes()))
    }
}
