//! The limit: a ring for one sender and one receiver that poll, with nothing in it that a bus needs. No types, no attaching and leaving, no other
//! readers, nothing that survives a death, nobody who sleeps.
//!
//! 256 KiB of slots, four at least, each of cache lines of its own: stamp, then the message. The receiver says how far it is eight times a lap, or after each
//! message; the sender looks at that when the ring seems full.
#![allow(unsafe_code)] // slots in a mapping of its own

use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::*};

use anyhow::{Result, ensure};
use shmbus_sys::map::Mapping;
use shmbus_sys::shm::{self, Access};

use crate::transport::{Abilities, Channel, Receiver, Sender, Spin, Transport};

const SLOTS_OFFSET: usize = 4096;
const PAYLOAD_OFFSET: usize = 8;

pub(crate) struct Bare;

struct Ring {
    mapping: Mapping,
    /// How many there are, a power of two, and the bytes of one.
    slots: u64,
    slot: usize,
}

impl Ring {
    fn open(channel: &Channel, create: bool) -> Result<Ring> {
        let slot = (PAYLOAD_OFFSET + channel.payload).next_multiple_of(64);
        let slots = ((1 << 18) / slot as u64).next_power_of_two().max(4);
        let len = SLOTS_OFFSET + slots as usize * slot;
        let directory = shm::open_directory(&channel.directory)?;
        let name = format!("{}-ring", channel.name);
        let fd = if create {
            let fd = shm::create_at(directory.as_fd(), &name, 0o600)?;
            shm::allocate(fd.as_fd(), len as u64)?;
            fd
        } else {
            shm::open_at(directory.as_fd(), &name, Access::ReadWrite)?
        };
        ensure!(shm::len(fd.as_fd())? == len as u64, "a ring of another length");
        let mapping = Mapping::read_write(fd.as_fd(), len)?;
        mapping.prefault()?;
        Ok(Ring { mapping, slots, slot })
    }

    /// How many messages the receiver has taken, at least.
    #[inline(always)]
    fn taken(&self) -> &AtomicU64 {
        // SAFETY: the first word of a mapping that lives as long as `self`, aligned, and only ever an atomic.
        unsafe { self.mapping.base().cast().as_ref() }
    }

    #[inline(always)]
    fn slot(&self, number: u64) -> NonNull<u8> {
        let index = (number & (self.slots - 1)) as usize;
        // SAFETY: one of the slots behind the offset, inside the mapping.
        unsafe { self.mapping.base().add(SLOTS_OFFSET + index * self.slot) }
    }

    /// Number + 1 of the message in a slot.
    #[inline(always)]
    fn stamp(&self, slot: NonNull<u8>) -> &AtomicU64 {
        // SAFETY: the first word of a slot, aligned, and only ever an atomic.
        unsafe { slot.cast().as_ref() }
    }

    #[inline(always)]
    fn payload(slot: NonNull<u8>) -> NonNull<u8> {
        // SAFETY: inside the slot.
        unsafe { slot.add(PAYLOAD_OFFSET) }
    }
}

impl Transport for Bare {
    type Sender = Outlet;
    type Receiver = Inlet;

    fn name(&self) -> &'static str {
        super::BARE
    }

    fn abilities(&self) -> Abilities {
        Abilities { zero_copy: true, blocks: false, receivers_max: 1, ..Abilities::STREAM }
    }

    fn create(&self, channel: &Channel) -> Result<()> {
        Ring::open(channel, true).map(drop)
    }

    fn listen(&self, channel: &Channel, _index: usize) -> Result<Inlet> {
        let ring = Ring::open(channel, false)?;
        let told_every = (ring.slots / 8).max(1);
        Ok(Inlet { ring, next: 0, told_every, len: channel.payload })
    }

    fn connect(&self, channel: &Channel) -> Result<Outlet> {
        let ring = Ring::open(channel, false)?;
        let limit = ring.slots;
        let len_max = ring.slot - PAYLOAD_OFFSET;
        Ok(Outlet { ring, next: 0, limit, len_max, spin: channel.spin() })
    }
}

pub(crate) struct Outlet {
    ring: Ring,
    next: u64,
    /// The first number for which there was no room when it last looked.
    limit: u64,
    len_max: usize,
    spin: Spin,
}

impl Outlet {
    /// The payload of the next slot, when the receiver has done with it.
    #[inline(always)]
    fn next_payload(&mut self, len: usize) -> Result<NonNull<u8>> {
        ensure!(len <= self.len_max, "too long for a slot");
        while self.next == self.limit {
            self.limit = self.ring.taken().load(Acquire) + self.ring.slots;
            if self.next == self.limit {
                self.spin.turn();
            }
        }
        Ok(Ring::payload(self.ring.slot(self.next)))
    }

    #[inline(always)]
    fn commit(&mut self) {
        let slot = self.ring.slot(self.next);
        self.next += 1;
        self.ring.stamp(slot).store(self.next, Release);
    }
}

impl Sender for Outlet {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> Result<()> {
        let to = self.next_payload(message.len())?.as_ptr();
        // SAFETY: room for the message in a slot that the receiver has done with and does not look at before its stamp.
        unsafe { std::ptr::copy_nonoverlapping(message.as_ptr(), to, message.len()) };
        self.commit();
        Ok(())
    }

    #[inline(always)]
    fn send_in_place(&mut self, len: usize, write: impl FnOnce(&mut [u8])) -> Result<()> {
        let to = self.next_payload(len)?.as_ptr();
        // SAFETY: as above; the bytes of a file are always initialised.
        write(unsafe { std::slice::from_raw_parts_mut(to, len) });
        self.commit();
        Ok(())
    }
}

pub(crate) struct Inlet {
    ring: Ring,
    next: u64,
    told_every: u64,
    len: usize,
}

impl Receiver for Inlet {
    #[inline(always)]
    fn try_receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        let slot = self.ring.slot(self.next);
        if self.ring.stamp(slot).load(Acquire) != self.next + 1 {
            return Ok(None);
        }
        let from = Ring::payload(slot).as_ptr();
        // SAFETY: `len` bytes of the slot, written before its stamp, and not again before `taken` has passed it.
        let result = look(unsafe { std::slice::from_raw_parts(from, self.len) });
        self.next += 1;
        if self.next & (self.told_every - 1) == 0 {
            self.ring.taken().store(self.next, Release);
        }
        Ok(Some(result))
    }

    fn receive<R>(&mut self, _look: impl FnOnce(&[u8]) -> R) -> Result<R> {
        anyhow::bail!("nobody sleeps here")
    }
}
