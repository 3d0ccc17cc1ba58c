//! shaq: a queue with one producer and one consumer, and a broadcast queue with a lane for each producer. Both are lossless; consumers can sleep, producers cannot.
#![allow(unsafe_code)] // attaching to a queue is unsafe there: who may attach is the caller's care

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use shaq::broadcast::{self, Broadcast, BroadcastConfig, ProducerId};
use shaq::error::WaitError;
use shaq::spsc;
use shmbus_bench::transport::{Abilities, Channel, Spin, Wait};

use super::of_length::{Batch, Put, Take, Typed, Words};

/// How long a consumer sleeps at most before it is asked again.
const SLEEP: Duration = Duration::from_secs(1);

fn open(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).open(path);
    file.with_context(|| format!("{}", path.display()))
}

/// What a producer does while there is no room: it cannot sleep, so where others sleep it gives its core away.
#[derive(Clone, Copy)]
enum Pause {
    Spin(Spin),
    Yield,
}

impl Pause {
    fn of(channel: &Channel) -> Pause {
        match channel.wait {
            Wait::Spin => Pause::Spin(channel.spin()),
            Wait::Block => Pause::Yield,
        }
    }

    #[inline(always)]
    fn turn(self) {
        match self {
            Pause::Spin(spin) => spin.turn(),
            Pause::Yield => std::thread::yield_now(),
        }
    }
}

/// The queue with one consumer.
pub(crate) struct ShaqSpsc {
    /// Consumers take several at once.
    pub(crate) batch: bool,
}

pub(crate) struct SpscProducer<const N: usize>(spsc::Producer<Words<N>>, Pause);

pub(crate) struct SpscConsumer<const N: usize> {
    path: PathBuf,
    consumer: Option<spsc::Consumer<Words<N>>>,
    batch: Option<Batch<N>>,
}

impl Typed for ShaqSpsc {
    type Sender<const N: usize> = SpscProducer<N>;
    type Receiver<const N: usize> = SpscConsumer<N>;

    fn name(&self) -> &'static str {
        if self.batch { "shaq spsc batch" } else { "shaq spsc" }
    }

    fn abilities(&self) -> Abilities {
        Abilities { receivers_max: 1, ..Abilities::STREAM }
    }

    fn listen<const N: usize>(&self, channel: &Channel, _index: usize) -> Result<SpscConsumer<N>> {
        let batch = self.batch.then(Batch::new);
        Ok(SpscConsumer { path: channel.file("queue"), consumer: None, batch })
    }

    fn connect<const N: usize>(&self, channel: &Channel) -> Result<SpscProducer<N>> {
        let size = spsc::minimum_file_size::<Words<N>>(super::depth(channel));
        // SAFETY: the directory of a run is empty before it and has one sender for each channel: it initialises the queue, and no other producer is there.
        // Both ends have the type that follows from the channel's payload; any bytes are one of its values.
        let producer = unsafe { spsc::Producer::create(&open(&channel.file("queue"))?, size)? };
        Ok(SpscProducer(producer, Pause::of(channel)))
    }
}

impl<const N: usize> Put<N> for SpscProducer<N> {
    #[inline(always)]
    fn put(&mut self, message: &Words<N>) -> Result<()> {
        while self.0.try_write(*message).is_err() {
            self.1.turn();
        }
        Ok(())
    }
}

impl<const N: usize> Take<N> for SpscConsumer<N> {
    fn accept(&mut self) -> Result<()> {
        // SAFETY: the producer has made the queue, with the same type; this is its one receiver.
        self.consumer = Some(unsafe { spsc::Consumer::join(&open(&self.path)?)? });
        Ok(())
    }

    #[inline(always)]
    fn try_take<R>(&mut self, look: impl FnOnce(&Words<N>) -> R) -> Result<Option<R>> {
        let consumer = self.consumer.as_mut().context("not accepted")?;
        let Some(batch) = &mut self.batch else {
            return Ok(consumer.try_read().map(|message| look(&message)));
        };
        let message = batch.next(|into| {
            let batch = consumer.try_reserve_read_batch(Batch::<N>::AT_ONCE);
            batch.map_or(0, |batch| Batch::copy(into, batch.as_slices()))
        });
        Ok(message.map(look))
    }

    #[inline(always)]
    fn take<R>(&mut self, look: impl FnOnce(&Words<N>) -> R) -> Result<R> {
        let consumer = self.consumer.as_mut().context("not accepted")?;
        let Some(batch) = &mut self.batch else {
            loop {
                match consumer.read_timeout(SLEEP) {
                    Ok(message) => return Ok(look(&message)),
                    Err(WaitError::Timeout) => {}
                }
            }
        };
        loop {
            let message = batch.next(|into| {
                match consumer.reserve_read_batch_timeout(Batch::<N>::AT_ONCE, SLEEP) {
                    Ok(batch) => Batch::copy(into, batch.as_slices()),
                    Err(WaitError::Timeout) => 0,
                }
            });
            if let Some(message) = message {
                return Ok(look(message));
            }
        }
    }
}

/// The queue with many consumers.
pub(crate) struct ShaqBroadcast {
    /// Consumers take several at once.
    pub(crate) batch: bool,
}

pub(crate) struct LaneProducer<const N: usize>(broadcast::Producer<Words<N>>, Pause);

pub(crate) struct LaneConsumer<const N: usize>(broadcast::Consumer<Words<N>>, Option<Batch<N>>);

fn join<const N: usize>(channel: &Channel) -> Result<Broadcast<Words<N>>> {
    // SAFETY: the parent has made the queue, with the type that follows from the channel's payload, and nobody resizes it; any bytes are a value of that type.
    Ok(unsafe { Broadcast::join(&open(&channel.file("queue"))?)? })
}

impl Typed for ShaqBroadcast {
    type Sender<const N: usize> = LaneProducer<N>;
    type Receiver<const N: usize> = LaneConsumer<N>;

    fn name(&self) -> &'static str {
        if self.batch { "shaq broadcast batch" } else { "shaq broadcast" }
    }

    fn abilities(&self) -> Abilities {
        Abilities::STREAM
    }

    fn create<const N: usize>(&self, channel: &Channel) -> Result<()> {
        let config = BroadcastConfig {
            capacity: super::shared_depth(channel),
            producer_slots: 1,
            consumer_slots: channel.receivers,
        };
        let file = open(&channel.file("queue"))?;
        // SAFETY: the directory of a run is empty before it, and only its parent makes the queue, once.
        unsafe { Broadcast::<Words<N>>::create(&file, config)? };
        Ok(())
    }

    fn listen<const N: usize>(&self, channel: &Channel, _index: usize) -> Result<LaneConsumer<N>> {
        Ok(LaneConsumer(join(channel)?.consumer()?, self.batch.then(Batch::new)))
    }

    fn connect<const N: usize>(&self, channel: &Channel) -> Result<LaneProducer<N>> {
        Ok(LaneProducer(join(channel)?.producer(ProducerId::new(1))?, Pause::of(channel)))
    }
}

impl<const N: usize> Put<N> for LaneProducer<N> {
    #[inline(always)]
    fn put(&mut self, message: &Words<N>) -> Result<()> {
        while self.0.try_write(*message).is_err() {
            self.1.turn();
        }
        Ok(())
    }
}

impl<const N: usize> Take<N> for LaneConsumer<N> {
    #[inline(always)]
    fn try_take<R>(&mut self, look: impl FnOnce(&Words<N>) -> R) -> Result<Option<R>> {
        let LaneConsumer(consumer, Some(batch)) = self else {
            return Ok(self.0.try_reserve_read().map(|guard| look(guard.as_ref())));
        };
        let message = batch.next(|into| {
            let batch = consumer.try_reserve_read_batch(Batch::<N>::AT_ONCE);
            batch.map_or(0, |batch| Batch::copy(into, batch.as_slices()))
        });
        Ok(message.map(look))
    }

    #[inline(always)]
    fn take<R>(&mut self, look: impl FnOnce(&Words<N>) -> R) -> Result<R> {
        let LaneConsumer(consumer, Some(batch)) = self else {
            loop {
                match self.0.reserve_read_timeout(SLEEP) {
                    Ok(guard) => return Ok(look(guard.as_ref())),
                    Err(WaitError::Timeout) => {}
                }
            }
        };
        loop {
            let message = batch.next(|into| {
                match consumer.reserve_read_batch_timeout(Batch::<N>::AT_ONCE, SLEEP) {
                    Ok(batch) => Batch::copy(into, batch.as_slices()),
                    Err(WaitError::Timeout) => 0,
                }
            });
            if let Some(message) = message {
                return Ok(look(message));
            }
        }
    }
}
