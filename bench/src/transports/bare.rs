//! The limit: a ring for one sender and one receiver that poll, with nothing in it that a bus needs. No types, no attaching and leaving, no other
//! readers, nothing that survives a death, nobody who sleeps.
//!
//! 4096 slots of a cache line: stamp, then the message. The receiver says how far it is every 512 messages; the sender looks at
//! that when the ring seems full.
#![allow(unsafe_code)] // slots in a mapping of its own

use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::*};

use anyhow::{Result, ensure};
use shmbus_sys::map::Mapping;
use shmbus_sys::shm::{self, Access};

use crate::transport::{Abilities, Channel, Receiver, Sender, Spin, Transport};

const SLOTS: u64 = 4096;
const SLOT: usize = 64;
const SLOTS_OFFSET: usize = 4096;
const LEN: usize = SLOTS_OFFSET + SLOTS as usize * SLOT;
const PAYLOAD_MAX: usize = SLOT - 8;
const TOLD_EVERY: u64 = 512;

pub(crate) struct Bare;

struct Ring(Mapping);

impl Ring {
    fn open(channel: &Channel, create: bool) -> Result<Ring> {
        ensure!(channel.payload <= PAYLOAD_MAX, "a slot has room for {PAYLOAD_MAX} bytes");
        let directory = shm::open_directory(&channel.directory)?;
        let name = format!("{}-ring", channel.name);
        let fd = if create {
            let fd = shm::create_at(directory.as_fd(), &name, 0o600)?;
            shm::allocate(fd.as_fd(), LEN as u64)?;
            fd
        } else {
            shm::open_at(directory.as_fd(), &name, Access::ReadWrite)?
        };
        ensure!(shm::len(fd.as_fd())? == LEN as u64, "a ring of another length");
        let ring = Ring(Mapping::read_write(fd.as_fd(), LEN)?);
        ring.0.prefault()?;
        Ok(ring)
    }

    /// How many messages the receiver has taken, at least.
    #[inline(always)]
    fn taken(&self) -> &AtomicU64 {
        // SAFETY: the first word of a mapping that lives as long as `self`, aligned, and only ever an atomic.
        unsafe { self.0.base().cast().as_ref() }
    }

    #[inline(always)]
    fn slot(&self, number: u64) -> NonNull<u8> {
        // SAFETY: one of `SLOTS` slots behind the offset, inside the mapping.
        unsafe { self.0.base().add(SLOTS_OFFSET + (number % SLOTS) as usize * SLOT) }
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
        unsafe { slot.add(8) }
    }
}

impl Transport for Bare {
    type Sender = Outlet;
    type Receiver = Inlet;

    fn name(&self) -> &'static str {
        super::BARE
    }

    fn abilities(&self) -> Abilities {
        Abilities { blocks: false, receivers_max: 1, payload_max: PAYLOAD_MAX, ..Abilities::STREAM }
    }

    fn create(&self, channel: &Channel) -> Result<()> {
        Ring::open(channel, true).map(drop)
    }

    fn listen(&self, channel: &Channel, _index: usize) -> Result<Inlet> {
        Ok(Inlet { ring: Ring::open(channel, false)?, next: 0, len: channel.payload })
    }

    fn connect(&self, channel: &Channel) -> Result<Outlet> {
        let ring = Ring::open(channel, false)?;
        Ok(Outlet { ring, next: 0, limit: SLOTS, spin: channel.spin() })
    }
}

pub(crate) struct Outlet {
    ring: Ring,
    next: u64,
    /// The first number for which there was no room when it last looked.
    limit: u64,
    spin: Spin,
}

impl Sender for Outlet {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> Result<()> {
        ensure!(message.len() <= PAYLOAD_MAX, "too long for a slot");
        while self.next == self.limit {
            self.limit = self.ring.taken().load(Acquire) + SLOTS;
            if self.next == self.limit {
                self.spin.turn();
            }
        }
        let slot = self.ring.slot(self.next);
        let to = Ring::payload(slot).as_ptr();
        // SAFETY: room for `PAYLOAD_MAX` bytes in a slot that the receiver has done with and does not look at before its stamp.
        unsafe { std::ptr::copy_nonoverlapping(message.as_ptr(), to, message.len()) };
        self.next += 1;
        self.ring.stamp(slot).store(self.next, Release);
        Ok(())
    }
}

pub(crate) struct Inlet {
    ring: Ring,
    next: u64,
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
        if self.next.is_multiple_of(TOLD_EVERY) {
            self.ring.taken().store(self.next, Release);
        }
        Ok(Some(result))
    }

    fn receive<R>(&mut self, _look: impl FnOnce(&[u8]) -> R) -> Result<R> {
        anyhow::bail!("nobody sleeps here")
    }
}
