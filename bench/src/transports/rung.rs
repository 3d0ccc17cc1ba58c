//! The bus with a doorbell of the program's own: an eventfd that is written behind each publish, and that the subscriber sleeps on in place of the topic's bell.

use anyhow::Result;

use super::event::{Awaited, Event};
use crate::transport::{Abilities, Channel, Receiver, Sender, Transport};

/// A transport whose receiver looks, and sleeps on an eventfd where nothing is.
pub(crate) struct Rung<T>(pub(crate) T);

impl<T: Transport> Transport for Rung<T> {
    type Sender = Outlet<T::Sender>;
    type Receiver = Inlet<T::Receiver>;

    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn abilities(&self) -> Abilities {
        Abilities { spins: false, receivers_max: 1, ..self.0.abilities() }
    }

    fn create(&self, channel: &Channel) -> Result<()> {
        self.0.create(channel)
    }

    fn listen(&self, channel: &Channel, index: usize) -> Result<Self::Receiver> {
        Ok(Inlet { inner: self.0.listen(channel, index)?, event: Awaited::listen(channel)? })
    }

    fn connect(&self, channel: &Channel) -> Result<Self::Sender> {
        Ok(Outlet { inner: self.0.connect(channel)?, event: Event::connect(channel)? })
    }
}

pub(crate) struct Outlet<S> {
    inner: S,
    event: Event,
}

impl<S: Sender> Sender for Outlet<S> {
    fn send(&mut self, message: &[u8]) -> Result<()> {
        self.inner.send(message)?;
        self.event.ring()
    }

    fn send_in_place(&mut self, len: usize, write: impl FnOnce(&mut [u8])) -> Result<()> {
        self.inner.send_in_place(len, write)?;
        self.event.ring()
    }
}

pub(crate) struct Inlet<R> {
    inner: R,
    event: Awaited,
}

impl<I: Receiver> Receiver for Inlet<I> {
    fn accept(&mut self) -> Result<()> {
        self.inner.accept()?;
        self.event.accept()
    }

    fn try_receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        self.inner.try_receive(look)
    }

    fn receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R> {
        let mut look = Some(look);
        loop {
            let shown = self.inner.try_receive(|bytes| look.take().map(|look| look(bytes)))?;
            if let Some(Some(result)) = shown {
                return Ok(result);
            }
            self.event.wait()?;
        }
    }
}
