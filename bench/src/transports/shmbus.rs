//! The bus itself.

use anyhow::Result;
use shmbus::{Delivery, Directory, Publisher, Subscriber, Topic, TopicOptions, TryPublishError};

use crate::transport::{Abilities, Channel, Receiver, Sender, Spin, Transport, Wait};

/// Messages of 48 bytes have a type, as a program would give them; others are bytes.
type Typed = [u64; 6];

/// A topic, with the options that a program would choose for what is measured.
pub(crate) struct Shmbus {
    name: &'static str,
    wake: shmbus::Wake,
    delivery: Delivery,
}

impl Shmbus {
    pub(crate) const RELIABLE: Shmbus =
        Shmbus { name: super::SHMBUS_NAME, wake: shmbus::Wake::Auto, delivery: Delivery::Reliable };
    pub(crate) const FENCE: Shmbus = Shmbus {
        name: super::SHMBUS_FENCE,
        wake: shmbus::Wake::Fence,
        delivery: Delivery::Reliable,
    };
    pub(crate) const LOSSY: Shmbus =
        Shmbus { name: "shmbus lossy", wake: shmbus::Wake::Auto, delivery: Delivery::Lossy };

    /// About 256 KiB a receiver and a few messages at least, so that blocks are not too small for many receivers.
    pub(crate) fn options(&self, channel: &Channel) -> TopicOptions {
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
}

pub(crate) enum Outlet {
    Typed(Publisher<Typed>, Wait, Spin),
    Bytes(Publisher<[u8]>, Wait, Spin),
}

pub(crate) enum Inlet {
    Typed(Subscriber<Typed>),
    Bytes(Subscriber<[u8]>),
}

impl Transport for Shmbus {
    type Sender = Outlet;
    type Receiver = Inlet;

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
        match channel.payload {
            48 => {
                Topic::<Typed>::create_in(&directory, &channel.name, &self.options(channel))?;
            }
            _ => {
                Topic::<[u8]>::create_in(&directory, &channel.name, &self.options(channel))?;
            }
        }
        Ok(())
    }

    fn listen(&self, channel: &Channel, _index: usize) -> Result<Inlet> {
        let directory = Directory::at(&channel.directory)?;
        Ok(match channel.payload {
            48 => {
                let topic = Topic::<Typed>::open_in(&directory, &channel.name)?;
                Inlet::Typed(topic.subscriber(self.delivery)?)
            }
            _ => {
                let topic = Topic::<[u8]>::open_in(&directory, &channel.name)?;
                Inlet::Bytes(topic.subscriber(self.delivery)?)
            }
        })
    }

    fn connect(&self, channel: &Channel) -> Result<Outlet> {
        let directory = Directory::at(&channel.directory)?;
        let (wait, spin) = (channel.wait, channel.spin());
        Ok(match channel.payload {
            48 => {
                let topic = Topic::<Typed>::open_in(&directory, &channel.name)?;
                Outlet::Typed(topic.publisher()?, wait, spin)
            }
            _ => {
                let topic = Topic::<[u8]>::open_in(&directory, &channel.name)?;
                Outlet::Bytes(topic.publisher()?, wait, spin)
            }
        })
    }
}

impl Sender for Outlet {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> Result<()> {
        match self {
            Outlet::Typed(publisher, wait, spin) => {
                let message: &Typed = bytemuck::try_from_bytes(message)
                    .map_err(|error| anyhow::anyhow!("a message of 48 bytes: {error}"))?;
                if *wait == Wait::Block {
                    publisher.publish(message)?;
                    return Ok(());
                }
                while let Err(error) = publisher.try_publish(*message) {
                    full(error, *spin)?;
                }
            }
            Outlet::Bytes(publisher, wait, spin) => {
                if *wait == Wait::Block {
                    publisher.publish(message)?;
                    return Ok(());
                }
                while let Err(error) = publisher.try_publish(message) {
                    full(error, *spin)?;
                }
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn send_in_place(&mut self, len: usize, write: impl FnOnce(&mut [u8])) -> Result<()> {
        match self {
            Outlet::Typed(publisher, ..) => {
                let mut loan = publisher.loan()?;
                write(bytemuck::bytes_of_mut(&mut *loan));
                loan.commit()?;
            }
            Outlet::Bytes(publisher, ..) => {
                let mut loan = publisher.loan(len)?;
                write(&mut loan);
                loan.commit()?;
            }
        }
        Ok(())
    }
}

#[cold]
fn full<T>(error: TryPublishError<T>, spin: Spin) -> Result<()> {
    match error {
        TryPublishError::Full(_) => {
            spin.turn();
            Ok(())
        }
        TryPublishError::Failed(error) => Err(error.into()),
        _ => anyhow::bail!("publishing failed"),
    }
}

impl Receiver for Inlet {
    #[inline(always)]
    fn try_receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(match self {
            Inlet::Typed(subscriber) => {
                subscriber.try_receive()?.map(|sample| look(bytemuck::bytes_of(&*sample)))
            }
            Inlet::Bytes(subscriber) => subscriber.try_receive()?.map(|sample| look(&sample)),
        })
    }

    #[inline(always)]
    fn receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R> {
        Ok(match self {
            Inlet::Typed(subscriber) => look(bytemuck::bytes_of(&*subscriber.receive()?)),
            Inlet::Bytes(subscriber) => look(&subscriber.receive()?),
        })
    }
}
