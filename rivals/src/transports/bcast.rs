//! bcast: one ring of bytes, one writer that waits for nobody; who is too slow starts again at the newest message.

use std::path::PathBuf;

use anyhow::{Context, Result};
use bcast::{
    Error, HEADER_SIZE, MappedReader, MappedWriter, MmapMutStorage, MmapStorage, StorageExt,
};
use shmbus_bench::transport::{Abilities, Channel, Receiver, Sender, Transport};

pub(crate) struct Bcast;

pub(crate) struct Outlet(MappedWriter);

pub(crate) struct Inlet {
    path: PathBuf,
    reader: Option<MappedReader>,
    buffer: Vec<u8>,
}

impl Transport for Bcast {
    type Sender = Outlet;
    type Receiver = Inlet;

    fn name(&self) -> &'static str {
        "bcast"
    }

    fn abilities(&self) -> Abilities {
        Abilities { blocks: false, lossless: false, ..Abilities::STREAM }
    }

    fn listen(&self, channel: &Channel, _index: usize) -> Result<Inlet> {
        Ok(Inlet { path: channel.file("ring"), reader: None, buffer: vec![0; channel.payload] })
    }

    fn connect(&self, channel: &Channel) -> Result<Outlet> {
        let frame = (channel.payload + 16).next_multiple_of(64);
        let capacity = (super::shared_depth(channel) * frame).next_power_of_two();
        let storage = MmapMutStorage::new(channel.file("ring"), HEADER_SIZE + capacity)?;
        Ok(Outlet(storage.into_writer()))
    }
}

impl Sender for Outlet {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> Result<()> {
        self.0.send(message, true);
        Ok(())
    }
}

impl Receiver for Inlet {
    /// The writer makes the file, so there is nothing to attach to before it has connected.
    fn accept(&mut self) -> Result<()> {
        self.reader = Some(MmapStorage::attach(&self.path)?.into_reader_at(0));
        Ok(())
    }

    #[inline(always)]
    fn try_receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        let reader = self.reader.as_mut().context("not accepted")?;
        match reader.receive_next(&mut self.buffer) {
            Some(Ok(message)) => Ok(Some(look(message.payload))),
            None => Ok(None),
            Some(Err(Error::Overrun(_))) => {
                reader.reset();
                Ok(None)
            }
            Some(Err(error)) => Err(error.into()),
        }
    }

    fn receive<R>(&mut self, _look: impl FnOnce(&[u8]) -> R) -> Result<R> {
        anyhow::bail!("bcast has no way to sleep")
    }
}
