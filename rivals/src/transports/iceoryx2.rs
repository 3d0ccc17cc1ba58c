//! iceoryx2: publish-subscribe without overflow, so that nothing is lost, and an event service beside it for receivers that sleep.

use anyhow::{Result, anyhow};
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use iceoryx2::service::port_factory::{event, publish_subscribe};
use shmbus_bench::transport::{Abilities, Channel, Wait};

use super::of_length::{Put, Take, Typed, Words};

#[derive(Clone, Copy)]
pub(crate) struct Iceoryx2;

type Here = ipc::Service;

/// Ports stay valid while their service and their node are there; fields are dropped in this order.
pub(crate) struct Publishing<const N: usize> {
    publisher: Publisher<Here, Words<N>, ()>,
    notifier: Option<Notifier<Here>>,
    _services: Services<N>,
}

pub(crate) struct Subscribing<const N: usize> {
    subscriber: Subscriber<Here, Words<N>, ()>,
    listener: Option<Listener<Here>>,
    _services: Services<N>,
}

struct Services<const N: usize> {
    messages: publish_subscribe::PortFactory<Here, Words<N>, ()>,
    events: Option<event::PortFactory<Here>>,
    _node: Node<Here>,
}

/// What names of files in `/dev/shm` begin with, for a run in this directory.
fn prefix(directory: &std::path::Path) -> String {
    let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    format!("{name}-iceoryx2-")
}

/// A node whose files are below `directory`, or have its name in theirs.
pub(crate) fn node(directory: &std::path::Path) -> Result<Node<Here>> {
    set_log_level(LogLevel::Error);
    let mut config = Config::default();
    let root = directory.to_str().unwrap_or_default();
    config.global.set_root_path(&Path::new(root.as_bytes())?);
    config.global.prefix = FileName::new(prefix(directory).as_bytes())?;
    Ok(NodeBuilder::new()
        .config(&config)
        .signal_handling_mode(SignalHandlingMode::Disabled)
        .create()?)
}

/// Removes what killed processes of a run in `directory` have left in `/dev/shm`.
pub(crate) fn sweep(directory: &std::path::Path) {
    let prefix = prefix(directory);
    for entry in std::fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn services<const N: usize>(channel: &Channel) -> Result<Services<N>> {
    let node = node(&channel.directory)?;
    let name: ServiceName = channel.name.as_str().try_into()?;
    let messages = node
        .service_builder(&name)
        .publish_subscribe::<Words<N>>()
        .enable_safe_overflow(false)
        .history_size(0)
        .max_publishers(1)
        .max_subscribers(channel.receivers)
        .subscriber_max_borrowed_samples(1)
        .subscriber_max_buffer_size(super::depth(channel))
        .max_nodes(channel.receivers + 2)
        .open_or_create()?;
    let events = match channel.wait {
        Wait::Spin => None,
        Wait::Block => Some(
            node.service_builder(&name)
                .event()
                .max_notifiers(1)
                .max_listeners(channel.receivers)
                .max_nodes(channel.receivers + 2)
                .open_or_create()?,
        ),
    };
    Ok(Services { messages, events, _node: node })
}

impl Typed for Iceoryx2 {
    type Sender<const N: usize> = Publishing<N>;
    type Receiver<const N: usize> = Subscribing<N>;

    fn name(&self) -> &'static str {
        "iceoryx2"
    }

    fn abilities(&self) -> Abilities {
        Abilities::STREAM
    }

    fn remove(&self, channel: &Channel) {
        sweep(&channel.directory);
    }

    fn listen<const N: usize>(&self, channel: &Channel, _index: usize) -> Result<Subscribing<N>> {
        let services = services(channel)?;
        let subscriber = services.messages.subscriber_builder().create()?;
        let listener = services.events.as_ref().map(|events| events.listener_builder().create());
        Ok(Subscribing { subscriber, listener: listener.transpose()?, _services: services })
    }

    fn connect<const N: usize>(&self, channel: &Channel) -> Result<Publishing<N>> {
        let services = services(channel)?;
        let publisher = services
            .messages
            .publisher_builder()
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()?;
        let notifier = services.events.as_ref().map(|events| events.notifier_builder().create());
        Ok(Publishing { publisher, notifier: notifier.transpose()?, _services: services })
    }
}

impl<const N: usize> Put<N> for Publishing<N> {
    #[inline(always)]
    fn put(&mut self, message: &Words<N>) -> Result<()> {
        let sample = self.publisher.loan_uninit()?;
        sample.write_payload(*message).send()?;
        if let Some(notifier) = &self.notifier {
            notifier.notify()?;
        }
        Ok(())
    }
}

impl<const N: usize> Take<N> for Subscribing<N> {
    /// A subscriber connects to new publishers when it is used. Before that its buffer fills and then nothing more is delivered.
    fn accept(&mut self) -> Result<()> {
        self.subscriber.has_samples()?;
        Ok(())
    }

    #[inline(always)]
    fn try_take<R>(&mut self, look: impl FnOnce(&Words<N>) -> R) -> Result<Option<R>> {
        Ok(self.subscriber.receive()?.map(|sample| look(&sample)))
    }

    fn take<R>(&mut self, look: impl FnOnce(&Words<N>) -> R) -> Result<R> {
        loop {
            if let Some(sample) = self.subscriber.receive()? {
                return Ok(look(&sample));
            }
            let listener = self.listener.as_ref().ok_or_else(|| anyhow!("no event service"))?;
            listener.blocking_wait(|_| {})?;
        }
    }
}
