//! shmbus as the harness has it, but its subscriber takes batches: up to 32 messages at once, copied, as those of the others are. For recovery also one at a time.

use anyhow::Result;
use shmbus::{Delivery, Directory, Publisher, Subscriber, Topic, TopicOptions, TryPublishError};
use shmbus_bench::transport::{Abilities, Channel, Spin, Wait};

use super::of_length::{Batch, Put, Take, Typed, Words};

/// Reliable.
pub(crate) struct Shmbus;

pub(crate) struct Outlet<const N: usize>(Publisher<Words<N>>, Option<Spin>);

pub(crate) struct Inlet<const N: usize>(Subscriber<Words<N>>, Batch<N>);

impl Typed for Shmbus {
    type Sender<const N: usize> = Outlet<N>;
    type Receiver<const N: usize> = Inlet<N>;

    fn name(&self) -> &'static str {
        "shmbus batch"
    }

    fn abilities(&self) -> Abilities {
        Abilities::STREAM
    }

    fn create<const N: usize>(&self, channel: &Channel) -> Result<()> {
        let options = TopicOptions {
            depth: super::shared_depth(channel) as u64,
            subscribers_max: channel.receivers as u32,
            hold_blocks: Some(0),
            prefault: true,
            ..Default::default()
        };
        let directory = Directory::at(&channel.directory)?;
        Topic::<Words<N>>::create_in(&directory, &channel.name, &options)?;
        Ok(())
    }

    fn listen<const N: usize>(&self, channel: &Channel, _index: usize) -> Result<Inlet<N>> {
        let topic = Topic::open_in(&Directory::at(&channel.directory)?, &channel.name)?;
        Ok(Inlet(topic.subscriber(Delivery::Reliable)?, Batch::new()))
    }

    fn connect<const N: usize>(&self, channel: &Channel) -> Result<Outlet<N>> {
        let topic = Topic::open_in(&Directory::at(&channel.directory)?, &channel.name)?;
        let spin = (channel.wait == Wait::Spin).then(|| channel.spin());
        Ok(Outlet(topic.publisher()?, spin))
    }
}

impl<const N: usize> Put<N> for Outlet<N> {
    #[inline(always)]
    fn put(&mut self, message: &Words<N>) -> Result<()> {
        let Outlet(publisher, Some(spin)) = self else {
            self.0.publish(message)?;
            return Ok(());
        };
        loop {
            match publisher.try_publish(*message) {
                Ok(_) => return Ok(()),
                Err(TryPublishError::Full(_)) => spin.turn(),
                Err(TryPublishError::Failed(error)) => return Err(error.into()),
                Err(_) => anyhow::bail!("publishing failed"),
            }
        }
    }
}

impl<const N: usize> Take<N> for Inlet<N> {
    #[inline(always)]
    fn try_take<R>(&mut self, look: impl FnOnce(&Words<N>) -> R) -> Result<Option<R>> {
        let Inlet(subscriber, batch) = self;
        let mut failed = None;
        let message = batch.next(|into| match subscriber.try_receive_batch() {
            Ok(Some(batch)) => into.iter_mut().zip(batch).map(|(to, from)| *to = *from).count(),
            Ok(None) => 0,
            Err(error) => {
                failed = Some(error);
                0
            }
        });
        match failed {
            None => Ok(message.map(look)),
            Some(error) => Err(error.into()),
        }
    }

    #[inline(always)]
    fn take<R>(&mut self, look: impl FnOnce(&Words<N>) -> R) -> Result<R> {
        let Inlet(subscriber, batch) = self;
        let mut failed = None;
        let message = batch.next(|into| match subscriber.receive_batch() {
            Ok(batch) => into.iter_mut().zip(batch).map(|(to, from)| *to = *from).count(),
            Err(error) => {
                failed = Some(error);
                0
            }
        });
        match (message, failed) {
            (Some(message), None) => Ok(look(message)),
            (_, Some(error)) => Err(error.into()),
            (None, None) => anyhow::bail!("an empty batch"),
        }
    }
}
