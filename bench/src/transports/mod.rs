//! The ways between processes that are measured.

mod bare;
mod event;
mod mailbox;
mod mqueue;
mod packet;
mod rung;
mod shmbus;
mod stream;

use self::bare::Bare;
use self::mailbox::{Doorbell, Mailbox};
use self::mqueue::MessageQueue;
use self::packet::{Packet, PacketKind};
use self::stream::{Stream, StreamKind};
use crate::registry::{Registered, Transports};

/// shmbus, for a program that measures others beside it.
pub const SHMBUS: &dyn Registered = &shmbus::RELIABLE;

/// A ring for one sender and one receiver with nothing in it that a bus needs: the limit.
pub const BARE_RING: &dyn Registered = &Bare;

/// What is in this program, in the order of the tables.
pub const OWN: Transports = Transports::new(&[
    &shmbus::RELIABLE,
    &shmbus::FENCE,
    &shmbus::LOSSY,
    &shmbus::RUNG,
    &Stream(StreamKind::Pipe),
    &Stream(StreamKind::Unix),
    &Packet(PacketKind::Sequenced),
    &Stream(StreamKind::Tcp),
    &Packet(PacketKind::Udp),
    &MessageQueue,
    &Mailbox(Doorbell::Eventfd),
    &Mailbox(Doorbell::Futex),
    &Bare,
]);

/// Its name: the one to which the others are compared.
pub(crate) const SHMBUS_NAME: &str = "shmbus";
/// The name of that one with a fence in each publish, for who sleeps for each message.
pub(crate) const SHMBUS_FENCE: &str = "shmbus fence";
/// The name of that one with an eventfd of the program's own.
pub(crate) const SHMBUS_RUNG: &str = "shmbus + eventfd";
/// The limit of blocking.
pub(crate) const FUTEX: &str = "bare futex";
/// The limit of throughput.
pub(crate) const BARE: &str = "bare ring";
