//! ringfire: a ring in a file, one producer. Lossless with a registry of readers, or overwriting what was not read.

use std::path::PathBuf;

use anyhow::{Context, Result};
use ringfire::{
    FlowControl, FutexWait, RingConsumer, RingConsumerBuilder, RingProducer, RingProducerBuilder,
    RingfireError,
};
use shmbus_bench::transport::{Abilities, Channel, Spin, Wait};

use super::of_length::{Batch, Put, Take, Typed, Words};

pub(crate) struct Ringfire {
    pub(crate) lossless: bool,
    /// Consumers take several at once.
    pub(crate) batch: bool,
}

impl Ringfire {
    pub(crate) const LOSSLESS: Ringfire = Ringfire { lossless: true, batch: false };
}

pub(crate) struct Producer<const N: usize>(RingProducer<Words<N>>, Option<Spin>);

pub(crate) struct Consumer<const N: usize> {
    path: PathBuf,
    consumer: Option<RingConsumer<Words<N>>>,
    batch: Option<Batch<N>>,
    wait: FutexWait,
}

impl Typed for Ringfire {
    type Sender<const N: usize> = Producer<N>;
    type Receiver<const N: usize> = Consumer<N>;

    fn name(&self) -> &'static str {
        match self {
            Ringfire { lossless: false, .. } => "ringfire lossy",
            Ringfire { batch: true, .. } => "ringfire batch",
            Ringfire { .. } => "ringfire",
        }
    }

    fn abilities(&self) -> Abilities {
        Abilities { lossless: self.lossless, ..Abilities::STREAM }
    }

    fn listen<const N: usize>(&self, channel: &Channel, _index: usize) -> Result<Consumer<N>> {
        // No turns of spinning: whoever is to sleep sleeps. The longest sleep is that of its default.
        let wait = FutexWait::new(0, Some(std::time::Duration::from_millis(50)));
        let batch = self.batch.then(Batch::new);
        Ok(Consumer { path: channel.file("ring"), consumer: None, batch, wait })
    }

    fn connect<const N: usize>(&self, channel: &Channel) -> Result<Producer<N>> {
        let control = match self.lossless {
            true => FlowControl::LosslessBackpressure,
            false => FlowControl::LossyLatestWins,
        };
        let producer = RingProducerBuilder::new(super::shared_depth(channel) as u64)
            .flow_control(control)
            .max_readers(channel.receivers)
            .build(channel.file("ring"))?;
        let spins = self.lossless && channel.wait == Wait::Spin;
        Ok(Producer(producer, spins.then(|| channel.spin())))
    }
}

impl<const N: usize> Put<N> for Producer<N> {
    #[inline(always)]
    fn put(&mut self, message: &Words<N>) -> Result<()> {
        let Producer(producer, spin) = self;
        let Some(spin) = spin else {
            producer.push(message);
            return Ok(());
        };
        loop {
            match producer.try_push(message) {
                Ok(()) => return Ok(()),
                Err(RingfireError::BackpressureBufferFull) => spin.turn(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl<const N: usize> Take<N> for Consumer<N> {
    /// The producer makes the file, so there is nothing to attach to before it has connected.
    fn accept(&mut self) -> Result<()> {
        let builder = RingConsumerBuilder::new().start_from_oldest();
        self.consumer = Some(builder.attach(&self.path)?);
        Ok(())
    }

    #[inline(always)]
    fn try_take<R>(&mut self, look: impl FnOnce(&Words<N>) -> R) -> Result<Option<R>> {
        let consumer = self.consumer.as_mut().context("not accepted")?;
        match &mut self.batch {
            Some(batch) => Ok(batch.next(|into| consumer.recv_batch(into)).map(look)),
            None => Ok(consumer.try_recv().map(|message| look(&message))),
        }
    }

    #[inline(always)]
    fn take<R>(&mut self, look: impl FnOnce(&Words<N>) -> R) -> Result<R> {
        let consumer = self.consumer.as_mut().context("not accepted")?;
        if let Some(batch) = &mut self.batch
            && let Some(message) = batch.next(|into| consumer.recv_batch(into))
        {
            return Ok(look(message));
        }
        Ok(look(&consumer.recv_blocking(&mut self.wait)))
    }
}
