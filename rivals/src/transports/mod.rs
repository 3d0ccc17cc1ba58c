//! Other crates for messages between processes on one machine, each as its documentation shows it, with options that suit what is measured.

mod bcast;
mod iceoryx2;
mod ipc_channel;
mod of_length;
mod outcry;
mod ringfire;
mod shaq;
mod shmbus;

use shmbus_bench::transport::Channel;
use shmbus_bench::{BARE_RING, SHMBUS, Transports};

use self::bcast::Bcast;
pub(crate) use self::iceoryx2::{Iceoryx2, node, sweep};
use self::ipc_channel::IpcChannel;
pub(crate) use self::of_length::OfLength;
use self::outcry::Outcry;
pub(crate) use self::ringfire::Ringfire;
pub(crate) use self::shaq::ShaqBroadcast;
use self::shaq::ShaqSpsc;
pub(crate) use self::shmbus::Shmbus;

/// All, in the order of the tables.
pub(crate) const ALL: Transports = Transports::new(&[
    SHMBUS,
    &OfLength(Shmbus),
    &OfLength(Iceoryx2),
    &OfLength(Ringfire::LOSSLESS),
    &OfLength(Ringfire { batch: true, ..Ringfire::LOSSLESS }),
    &OfLength(Ringfire { lossless: false, ..Ringfire::LOSSLESS }),
    &OfLength(ShaqSpsc { batch: false }),
    &OfLength(ShaqSpsc { batch: true }),
    &OfLength(ShaqBroadcast { batch: false }),
    &OfLength(ShaqBroadcast { batch: true }),
    &Outcry,
    &Bcast,
    &IpcChannel,
    BARE_RING,
]);

/// Messages that are under way to one receiver at most: 256 KiB of slots, as shmbus has here for each receiver.
fn depth(channel: &Channel) -> usize {
    let slot = (channel.payload + 16).next_multiple_of(64);
    ((1 << 18) / slot).next_power_of_two().max(4)
}

/// The same for a ring that all receivers share.
fn shared_depth(channel: &Channel) -> usize {
    (depth(channel) * channel.receivers.max(1)).next_power_of_two().min(1 << 18)
}
