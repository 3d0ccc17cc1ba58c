//! The four ways from the feed to its subscribers, with one face.
//!
//! Receivers are there first: [`Source::open`] makes the end that waits, and an [`Address`] for the feed, whose
//! [`Outlet::open`] connects to all of them. Every transport carries the same bytes. On the bus the feed writes a message
//! once, for all; over sockets and pipes it writes it once to each subscriber: that is what fan-out over them costs.

use super::bus::{BusOutlet, BusSource, TopicPlace};
use super::ledger::BusMark;
use super::schedule::{Spin, Wait};
use super::stream::{StreamOutlet, StreamSource};
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;

/// A way of carrying messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Transport {
    /// A topic in shared memory.
    Shmbus,
    /// A unix stream socket per subscriber.
    Unix,
    /// A TCP connection per subscriber, on the loopback interface, with TCP_NODELAY.
    Tcp,
    /// A pipe per subscriber.
    Pipe,
}

impl Transport {
    pub(super) const ALL: [Transport; 4] =
        [Transport::Shmbus, Transport::Unix, Transport::Tcp, Transport::Pipe];
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Transport::Shmbus => "shmbus",
            Transport::Unix => "unix",
            Transport::Tcp => "tcp",
            Transport::Pipe => "pipe",
        })
    }
}

/// What a subscriber asks of its feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    /// The feed waits for it; it gets everything.
    Reliable,
    /// The feed never waits for it; it misses what does not fit.
    Lossy,
    /// Lossy, and busy with each message for so long that it manages half of the rate.
    Slow,
}

impl Role {
    /// The first of `subscribers` is reliable, the last (of three or more) slow.
    pub(super) fn of(index: u32, subscribers: u32) -> Role {
        match index {
            0 => Role::Reliable,
            _ if subscribers >= 3 && index + 1 == subscribers => Role::Slow,
            _ => Role::Lossy,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Reliable => "reliable",
            Role::Lossy => "lossy",
            Role::Slow => "slow",
        })
    }
}

/// What all processes of one run agree on.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Flow {
    pub(super) payload: usize,
    pub(super) rate: u64,
    pub(super) wait: Wait,
    /// More processes spin than there are cores: they yield now and then.
    pub(super) yields: bool,
    /// Of the schedule.
    pub(super) length_ns: u64,
}

impl Flow {
    pub(super) fn spin(&self) -> Spin {
        Spin::new(self.yields)
    }
}

/// Where a receiver is to take messages from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum SourceSpec {
    Topic(TopicPlace),
    /// Listen on this name in the abstract namespace: it leaves no file behind.
    Unix(String),
    Tcp,
    /// Read standard input.
    Pipe,
}

/// Where a feed finds one receiver.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Address {
    /// On the bus: nothing to connect to.
    Topic,
    Unix(String),
    Tcp(SocketAddr),
    /// A descriptor that the feed inherited.
    Pipe(i32),
}

/// The end of a receiver.
pub(super) enum Source {
    Bus(Box<BusSource>),
    Stream(StreamSource),
}

impl Source {
    /// Makes the end and what a feed needs to find it.
    pub(super) fn open(spec: &SourceSpec, role: Role, flow: &Flow) -> Result<(Source, Address)> {
        Ok(match spec {
            SourceSpec::Topic(place) => {
                (Source::Bus(Box::new(BusSource::open(place, role, flow)?)), Address::Topic)
            }
            SourceSpec::Unix(name) => {
                let source = StreamSource::listen_unix(name, flow)?;
                (Source::Stream(source), Address::Unix(name.clone()))
            }
            SourceSpec::Tcp => {
                let (source, address) = StreamSource::listen_tcp(flow)?;
                (Source::Stream(source), Address::Tcp(address))
            }
            // The descriptor is the parent's affair.
            SourceSpec::Pipe => (Source::Stream(StreamSource::stdin(flow)?), Address::Pipe(-1)),
        })
    }

    /// Waits until the feed is there.
    pub(super) fn accept(&mut self) -> Result<()> {
        match self {
            Source::Bus(_) => Ok(()),
            Source::Stream(source) => source.accept(),
        }
    }

    /// Waits for the next message and looks at it where it lies; `None` when the feed has closed the stream.
    pub(super) fn next<R>(
        &mut self,
        look: impl FnOnce(&[u8], Option<BusMark>) -> R,
    ) -> Result<Option<R>> {
        match self {
            Source::Bus(source) => source.next(look).map(Some),
            Source::Stream(source) => source.next(|message| look(message, None)),
        }
    }
}

/// The end of a feed.
pub(super) enum Outlet {
    Bus(Box<BusOutlet>),
    Streams(Vec<StreamOutlet>, Vec<u8>),
}

impl Outlet {
    /// Connects to all `receivers`, or becomes the publisher of `topic`.
    pub(super) fn open(
        topic: Option<&TopicPlace>,
        receivers: &[(Role, Address)],
        flow: &Flow,
    ) -> Result<Outlet> {
        if let Some(place) = topic {
            return Ok(Outlet::Bus(Box::new(BusOutlet::open(place, flow)?)));
        }
        let mut streams = Vec::with_capacity(receivers.len());
        for (role, address) in receivers {
            streams.push(match address {
                Address::Unix(name) => StreamOutlet::connect_unix(name, *role, flow)?,
                Address::Tcp(address) => StreamOutlet::connect_tcp(*address, *role, flow)?,
                Address::Pipe(descriptor) => StreamOutlet::inherit(*descriptor, *role, flow)?,
                Address::Topic => bail!("a topic without a place"),
            });
        }
        Ok(Outlet::Streams(streams, vec![0; flow.payload]))
    }

    /// Sends the message that `write` makes; `write` finds any bytes and fills them all.
    pub(super) fn send(&mut self, write: impl FnOnce(&mut [u8])) -> Result<()> {
        match self {
            Outlet::Bus(outlet) => outlet.send(write),
            Outlet::Streams(streams, message) => {
                write(message);
                streams.iter_mut().try_for_each(|stream| stream.offer(message))
            }
        }
    }

    /// Sends the last message: this one reaches every subscriber, whatever its role.
    pub(super) fn send_last(&mut self, write: impl FnOnce(&mut [u8])) -> Result<()> {
        match self {
            // The newest message of a topic stays in it: a lossy subscriber finds it when it gets there.
            Outlet::Bus(outlet) => outlet.send(write),
            Outlet::Streams(streams, message) => {
                write(message);
                streams.iter_mut().try_for_each(|stream| stream.insist(message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_subscriber_is_reliable_and_the_last_of_three_or_more_slow() {
        let roles = |all| (0..all).map(|index| Role::of(index, all)).collect::<Vec<_>>();
        assert_eq!(roles(1), [Role::Reliable]);
        assert_eq!(roles(2), [Role::Reliable, Role::Lossy]);
        assert_eq!(roles(4), [Role::Reliable, Role::Lossy, Role::Lossy, Role::Slow]);
    }

    #[test]
    fn the_last_message_reaches_a_subscriber_that_missed_most() {
        let wait = Wait::Block;
        // More than fits into the socket at once: nothing gets through that is not insisted on.
        let flow = Flow { payload: 1 << 20, rate: 1, wait, yields: false, length_ns: 0 };
        let name = format!("shmbus-test-{}", std::process::id());
        let spec = SourceSpec::Unix(name);
        let (mut source, address) = Source::open(&spec, Role::Lossy, &flow).expect("listening");
        let mut outlet = Outlet::open(None, &[(Role::Lossy, address)], &flow).expect("connected");
        source.accept().expect("accepted");
        for _ in 0..20 {
            outlet.send(|message| message.fill(1)).expect("dropped, if it does not fit");
        }
        let feed = std::thread::spawn(move || outlet.send_last(|message| message.fill(2)));
        let mut received = Vec::new();
        while let Some(first) = source.next(|message, _| message[0]).expect("readable") {
            received.push(first);
        }
        feed.join().expect("no panic").expect("sent");
        assert_eq!(received, [1, 2]);
    }
}
