//! What a way between processes has to be able to do, to be measured.
//!
//! A run has one sender and some receivers, each a process of its own. They meet in four steps: the parent [creates](Transport::create) what lies
//! between them, receivers [listen](Transport::listen), the sender [connects](Transport::connect), receivers [accept](Receiver::accept). Only then
//! anything is sent. A transport whose parts find each other otherwise leaves steps empty.
//!
//! What is measured calls [`Sender`] and [`Receiver`] as generic code: nothing lies between the loop and the transport, no call through a table and no
//! allocation.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// What a process does while there is nothing to receive, or no room to send.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Wait {
    /// Sleep in the kernel.
    Block,
    /// Ask again and again.
    Spin,
}

impl Wait {
    /// As it stands in tables.
    pub fn name(self) -> &'static str {
        match self {
            Wait::Block => "block",
            Wait::Spin => "spin",
        }
    }
}

/// What all ends of one connection agree on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Channel {
    /// An empty directory of the run, in memory. It is removed with all that is in it.
    pub directory: PathBuf,
    /// Distinguishes channels in one directory: letters only.
    pub name: String,
    /// How many receivers there are; their indexes are below.
    pub receivers: usize,
    /// Length of every message in bytes: a multiple of 8, and what [`Sender::send`] is given.
    pub payload: usize,
    /// How both sides wait.
    pub wait: Wait,
    /// There are more processes that spin than cores: [`Spin`] gives the core away.
    pub yields: bool,
}

impl Channel {
    /// The path of a file in the directory of the run.
    pub fn file(&self, what: &str) -> PathBuf {
        self.directory.join(format!("{}-{what}", self.name))
    }

    /// A turn of waiting, the same for every transport.
    pub fn spin(&self) -> Spin {
        Spin(self.yields)
    }
}

/// What a process that spins does between two looks.
#[derive(Clone, Copy, Debug)]
pub struct Spin(pub(crate) bool);

impl Spin {
    /// A pause of the processor, or the core given away.
    #[inline(always)]
    pub fn turn(&self) {
        if self.0 { rustix::thread::sched_yield() } else { std::hint::spin_loop() }
    }
}

/// What a transport can do. What it cannot is left out, and named in the table.
#[derive(Clone, Copy, Debug)]
pub struct Abilities {
    /// A message is written and read where it lies: [`Sender::send_in_place`] copies nothing, and what [`Receiver`] shows is no copy.
    pub zero_copy: bool,
    /// Receivers can sleep.
    pub blocks: bool,
    /// Receivers can ask again and again.
    pub spins: bool,
    /// The most receivers of one sender.
    pub receivers_max: usize,
    /// Nothing is lost: a sender waits for its receivers.
    pub lossless: bool,
    /// May be sent to faster than it is received from. A mailbox of one message may not; it is measured with paced messages only.
    pub queues: bool,
    /// The longest message in bytes.
    pub payload_max: usize,
}

impl Abilities {
    /// Everything, of any length, without loss, but nothing in place.
    pub const STREAM: Abilities = Abilities {
        zero_copy: false,
        blocks: true,
        spins: true,
        receivers_max: 256,
        lossless: true,
        queues: true,
        payload_max: 1 << 30,
    };

    /// Why it cannot do this, if it cannot.
    pub fn lack(&self, wait: Wait, payload: usize, receivers: usize) -> Option<&'static str> {
        match wait {
            Wait::Block if !self.blocks => Some("cannot sleep"),
            Wait::Spin if !self.spins => Some("cannot poll"),
            _ if payload > self.payload_max => Some("not for messages as long as the longest"),
            _ if receivers > self.receivers_max => Some("not for as many receivers"),
            _ => None,
        }
    }
}

/// A way between processes.
pub trait Transport: Send + Sync + 'static {
    /// The end that sends.
    type Sender: Sender;
    /// The end that receives.
    type Receiver: Receiver;

    /// As it stands in tables: unique.
    fn name(&self) -> &'static str;

    /// What it can do.
    fn abilities(&self) -> Abilities;

    /// In the parent, before any end is opened: makes what lies between them.
    ///
    /// # Errors
    /// Also where this machine does not have it: the run is left out then, with the reason.
    fn create(&self, _channel: &Channel) -> Result<()> {
        Ok(())
    }

    /// In the process of a receiver: opens its end, so that a sender finds it. Does not wait for one.
    ///
    /// # Errors
    /// Where that is not possible.
    fn listen(&self, channel: &Channel, index: usize) -> Result<Self::Receiver>;

    /// In the process of the sender, when all receivers listen: connects to all of them. Does not wait for [`Receiver::accept`].
    ///
    /// # Errors
    /// Where that is not possible.
    fn connect(&self, channel: &Channel) -> Result<Self::Sender>;

    /// In the parent, when all are gone: removes what lies outside the directory of the run.
    fn remove(&self, _channel: &Channel) {}
}

/// The end that sends. Every message has the length that [`Channel::payload`] says.
pub trait Sender {
    /// Sends a copy of `message` to every receiver. Waits for room, in the channel's way of waiting, where nothing may be lost.
    ///
    /// # Errors
    /// Where the channel is broken. No room is no error: it waits, or, where it is lossy, drops the message.
    fn send(&mut self, message: &[u8]) -> Result<()>;

    /// Sends the message that `write` makes, where it lies if the transport can do that. `write` finds bytes of any value and fills them all.
    ///
    /// # Errors
    /// As [`Sender::send`].
    fn send_in_place(&mut self, len: usize, write: impl FnOnce(&mut [u8])) -> Result<()> {
        _ = (len, write);
        bail!("this transport sends nothing in place")
    }
}

/// The end that receives.
pub trait Receiver {
    /// The sender has connected: takes the connection.
    ///
    /// # Errors
    /// Where there is none.
    fn accept(&mut self) -> Result<()> {
        Ok(())
    }

    /// Shows the next message to `look`, if it is there; `None` if it is not. Called where both sides spin.
    ///
    /// # Errors
    /// Where the channel is broken.
    fn try_receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<Option<R>>;

    /// Sleeps until a message is there, and shows it to `look`. Called where both sides block.
    ///
    /// # Errors
    /// Where the channel is broken.
    fn receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R>;
}

/// The next message, in the way of waiting that the channel has.
#[inline(always)]
pub(crate) fn next<R>(
    receiver: &mut impl Receiver,
    wait: Wait,
    spin: Spin,
    mut look: impl FnMut(&[u8]) -> R,
) -> Result<R> {
    match wait {
        Wait::Block => receiver.receive(look),
        Wait::Spin => loop {
            if let Some(result) = receiver.try_receive(&mut look)? {
                return Ok(result);
            }
            spin.turn();
        },
    }
}
