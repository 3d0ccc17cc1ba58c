//! outcry: one ring of bytes, one producer that waits for nobody; who is too slow starts again at the newest message.

use anyhow::Result;
use outcry::{Consumer, Error, Producer, Queue};
use shmbus_bench::transport::{Abilities, Channel, Receiver, Sender, Transport};

pub(crate) struct Outcry;

pub(crate) struct Outlet(Producer);

pub(crate) struct Inlet {
    consumer: Consumer,
    buffer: Vec<u8>,
}

/// Bytes of the ring: as many as the messages of shmbus take.
fn capacity(channel: &Channel) -> u64 {
    let frame = (channel.payload + 16).next_multiple_of(64);
    (super::shared_depth(channel) * frame).next_power_of_two() as u64
}

impl Transport for Outcry {
    type Sender = Outlet;
    type Receiver = Inlet;

    fn name(&self) -> &'static str {
        "outcry"
    }

    fn abilities(&self) -> Abilities {
        Abilities { blocks: false, lossless: false, ..Abilities::STREAM }
    }

    fn create(&self, channel: &Channel) -> Result<()> {
        Queue::create(channel.file("queue"), capacity(channel))?;
        Ok(())
    }

    fn listen(&self, channel: &Channel, _index: usize) -> Result<Inlet> {
        let consumer = Queue::open(channel.file("queue"))?.consumer();
        Ok(Inlet { consumer, buffer: vec![0; channel.payload] })
    }

    fn connect(&self, channel: &Channel) -> Result<Outlet> {
        Ok(Outlet(Queue::open(channel.file("queue"))?.producer()?))
    }
}

impl Sender for Outlet {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> Result<()> {
        Ok(self.0.write(message)?)
    }
}

impl Receiver for Inlet {
    #[inline(always)]
    fn try_receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        match self.consumer.try_read(&mut self.buffer) {
            Ok(Some(len)) => Ok(Some(look(&self.buffer[..len]))),
            Ok(None) => Ok(None),
            Err(Error::Overrun { .. }) => {
                self.consumer.resync();
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn receive<R>(&mut self, _look: impl FnOnce(&[u8]) -> R) -> Result<R> {
        anyhow::bail!("outcry has no way to sleep")
    }
}
