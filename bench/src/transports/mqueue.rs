//! POSIX message queues, one for each receiver: `mq_overview(7)`. An unprivileged process gets 10 messages of at most 8 KiB.
#![allow(unsafe_code)] // mq_open, mq_send, mq_receive: neither std nor rustix has them

use std::ffi::CString;
use std::io;

use anyhow::{Context, Result, ensure};

use crate::transport::{Abilities, Channel, Receiver, Sender, Spin, Transport, Wait};

const DEPTH: libc::c_long = 10;

pub(crate) struct MessageQueue;

/// The name of a queue: the file system of queues is another one, without directories.
fn name(channel: &Channel, index: usize) -> Result<CString> {
    let run = channel.directory.file_name().context("a directory without a name")?;
    Ok(CString::new(format!("/{}-{}-{index}", run.to_string_lossy(), channel.name))?)
}

struct Queue(libc::mqd_t);

impl Queue {
    fn create(name: &CString, payload: usize) -> Result<Queue> {
        // SAFETY: a structure of integers, for which zero is a value.
        let mut attributes: libc::mq_attr = unsafe { std::mem::zeroed() };
        attributes.mq_maxmsg = DEPTH;
        attributes.mq_msgsize = payload as libc::c_long;
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR | libc::O_CLOEXEC;
        let mode: libc::mode_t = 0o600;
        // SAFETY: a terminated string and attributes that outlive the call; with O_CREAT it reads a mode and attributes.
        let queue = unsafe { libc::mq_open(name.as_ptr(), flags, mode, &raw const attributes) };
        Queue::checked(queue).context("message queues")
    }

    fn open(name: &CString, access: libc::c_int, wait: Wait) -> Result<Queue> {
        let spin = if wait == Wait::Spin { libc::O_NONBLOCK } else { 0 };
        // SAFETY: a terminated string that outlives the call; without O_CREAT it reads nothing else.
        let queue = unsafe { libc::mq_open(name.as_ptr(), access | spin | libc::O_CLOEXEC) };
        Queue::checked(queue)
    }

    fn checked(queue: libc::mqd_t) -> Result<Queue> {
        ensure!(queue >= 0, io::Error::last_os_error());
        Ok(Queue(queue))
    }

    /// False where it is full.
    fn send(&self, message: &[u8]) -> Result<bool> {
        // SAFETY: an open queue, and a message that is as long as it says.
        let sent = unsafe { libc::mq_send(self.0, message.as_ptr().cast(), message.len(), 0) };
        again(sent == 0)
    }

    /// The length of the message, or nothing where there is none.
    fn receive(&self, buffer: &mut [u8]) -> Result<Option<usize>> {
        let (at, len) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: an open queue; the buffer may be written for its whole length.
        let count = unsafe { libc::mq_receive(self.0, at, len, std::ptr::null_mut()) };
        Ok(again(count >= 0)?.then_some(count as usize))
    }
}

/// Whether it was done; false where it is to be tried again.
fn again(done: bool) -> Result<bool> {
    if done {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(false),
        _ => Err(error.into()),
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: opened by this value, closed once.
        unsafe { libc::mq_close(self.0) };
    }
}

impl Transport for MessageQueue {
    type Sender = Outlets;
    type Receiver = Inlet;

    fn name(&self) -> &'static str {
        "posix mq"
    }

    fn abilities(&self) -> Abilities {
        Abilities { payload_max: 8192, receivers_max: 64, ..Abilities::STREAM }
    }

    fn create(&self, channel: &Channel) -> Result<()> {
        for index in 0..channel.receivers {
            Queue::create(&name(channel, index)?, channel.payload)?;
        }
        Ok(())
    }

    fn listen(&self, channel: &Channel, index: usize) -> Result<Inlet> {
        let queue = Queue::open(&name(channel, index)?, libc::O_RDONLY, channel.wait)?;
        Ok(Inlet { queue, buffer: vec![0; channel.payload] })
    }

    fn connect(&self, channel: &Channel) -> Result<Outlets> {
        let open = |index| Queue::open(&name(channel, index)?, libc::O_WRONLY, channel.wait);
        let queues = (0..channel.receivers).map(open).collect::<Result<_>>()?;
        Ok(Outlets { queues, spin: channel.spin() })
    }

    fn remove(&self, channel: &Channel) {
        for name in (0..channel.receivers).filter_map(|index| name(channel, index).ok()) {
            // SAFETY: a terminated string that outlives the call.
            unsafe { libc::mq_unlink(name.as_ptr()) };
        }
    }
}

/// A queue to each receiver.
pub(crate) struct Outlets {
    queues: Vec<Queue>,
    spin: Spin,
}

impl Sender for Outlets {
    fn send(&mut self, message: &[u8]) -> Result<()> {
        for queue in &self.queues {
            while !queue.send(message)? {
                self.spin.turn();
            }
        }
        Ok(())
    }
}

pub(crate) struct Inlet {
    queue: Queue,
    buffer: Vec<u8>,
}

impl Receiver for Inlet {
    fn try_receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.queue.receive(&mut self.buffer)?.map(|count| look(&self.buffer[..count])))
    }

    fn receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R> {
        loop {
            if let Some(count) = self.queue.receive(&mut self.buffer)? {
                return Ok(look(&self.buffer[..count]));
            }
        }
    }
}
