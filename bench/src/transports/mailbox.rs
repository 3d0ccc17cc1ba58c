//! The limit of waking: one message in shared memory, and a doorbell: a bare futex, or an eventfd. It has no queue: a message that comes before the last one
//! was read replaces it.
#![allow(unsafe_code)] // words in a mapping of its own

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*, fence};

use anyhow::{Result, ensure};
use shmbus_sys::futex;
use shmbus_sys::map::Mapping;
use shmbus_sys::shm::{self, Access};

use super::event::{Awaited, Event};
use crate::transport::{Abilities, Channel, Receiver, Sender, Transport};

const LEN: usize = 4096;
const BELL: usize = 0;
const VERSION: usize = 128;
const MESSAGE: usize = 256;
const PAYLOAD_MAX: usize = 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doorbell {
    Futex,
    Eventfd,
}

pub(crate) struct Mailbox(pub(crate) Doorbell);

struct Memory(Mapping);

impl Memory {
    fn open(channel: &Channel, create: bool) -> Result<Memory> {
        ensure!(channel.payload <= PAYLOAD_MAX, "room for {PAYLOAD_MAX} bytes");
        let directory = shm::open_directory(&channel.directory)?;
        let name = format!("{}-mailbox", channel.name);
        let fd = if create {
            let fd = shm::create_at(directory.as_fd(), &name, 0o600)?;
            shm::allocate(fd.as_fd(), LEN as u64)?;
            fd
        } else {
            shm::open_at(directory.as_fd(), &name, Access::ReadWrite)?
        };
        ensure!(shm::len(fd.as_fd())? == LEN as u64, "a mailbox of another length");
        Ok(Memory(Mapping::read_write(fd.as_fd(), LEN)?))
    }

    fn bell(&self) -> &AtomicU32 {
        // SAFETY: inside the mapping.
        let word = unsafe { self.0.base().add(BELL) };
        // SAFETY: aligned, mapped as long as `self`, and only ever this atomic.
        unsafe { word.cast().as_ref() }
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && (8..LEN).contains(&offset));
        // SAFETY: inside the mapping, behind the bell.
        let word = unsafe { self.0.base().add(offset) };
        // SAFETY: aligned, mapped as long as `self`, and only ever this atomic.
        unsafe { word.cast().as_ref() }
    }
}

impl Transport for Mailbox {
    type Sender = Outlet;
    type Receiver = Inlet;

    fn name(&self) -> &'static str {
        match self.0 {
            Doorbell::Futex => super::FUTEX,
            Doorbell::Eventfd => "eventfd",
        }
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            spins: false,
            receivers_max: 1,
            lossless: false,
            queues: false,
            payload_max: PAYLOAD_MAX,
            ..Abilities::STREAM
        }
    }

    fn create(&self, channel: &Channel) -> Result<()> {
        Memory::open(channel, true).map(drop)
    }

    fn listen(&self, channel: &Channel, _index: usize) -> Result<Inlet> {
        let event = match self.0 {
            Doorbell::Futex => None,
            Doorbell::Eventfd => Some(Awaited::listen(channel)?),
        };
        Ok(Inlet {
            memory: Memory::open(channel, false)?,
            event,
            rung: 0,
            seen: 0,
            copy: vec![0; channel.payload],
        })
    }

    fn connect(&self, channel: &Channel) -> Result<Outlet> {
        let event = match self.0 {
            Doorbell::Futex => None,
            Doorbell::Eventfd => Some(Event::connect(channel)?),
        };
        Ok(Outlet { memory: Memory::open(channel, false)?, event })
    }
}

pub(crate) struct Outlet {
    memory: Memory,
    event: Option<Event>,
}

impl Sender for Outlet {
    fn send(&mut self, message: &[u8]) -> Result<()> {
        ensure!(message.len() <= PAYLOAD_MAX, "too long for the mailbox");
        let version = self.memory.word(VERSION);
        let now = version.load(Relaxed);
        version.store(now + 1, Relaxed);
        fence(Release); // who reads a word of this message sees that it is being written
        for (index, word) in message.chunks_exact(8).enumerate() {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(word);
            self.memory.word(MESSAGE + index * 8).store(u64::from_ne_bytes(bytes), Relaxed);
        }
        version.store(now + 2, Release);
        match &self.event {
            Some(event) => event.ring()?,
            None => {
                self.memory.bell().fetch_add(1, Release);
                futex::wake(self.memory.bell(), 1)?;
            }
        }
        Ok(())
    }
}

pub(crate) struct Inlet {
    memory: Memory,
    event: Option<Awaited>,
    /// The bell as it was before it last looked.
    rung: u32,
    /// The version that it last read.
    seen: u64,
    copy: Vec<u8>,
}

impl Receiver for Inlet {
    fn accept(&mut self) -> Result<()> {
        self.event.as_mut().map_or(Ok(()), Awaited::accept)
    }

    fn try_receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        let version = self.memory.word(VERSION);
        let before = version.load(Acquire);
        if before == self.seen || before % 2 == 1 {
            return Ok(None);
        }
        for (index, word) in self.copy.chunks_exact_mut(8).enumerate() {
            let value = self.memory.word(MESSAGE + index * 8).load(Relaxed);
            word.copy_from_slice(&value.to_ne_bytes());
        }
        fence(Acquire); // were a word of a later message among them, the version would be another
        if version.load(Relaxed) != before {
            return Ok(None);
        }
        self.seen = before;
        Ok(Some(look(&self.copy)))
    }

    fn receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R> {
        let mut look = Some(look);
        loop {
            self.rung = self.memory.bell().load(Acquire);
            let shown = self.try_receive(|bytes| look.take().map(|look| look(bytes)))?;
            if let Some(Some(result)) = shown {
                return Ok(result);
            }
            match &self.event {
                Some(event) => event.wait()?,
                None => {
                    futex::wait(self.memory.bell(), self.rung, None)?;
                }
            }
        }
    }
}
