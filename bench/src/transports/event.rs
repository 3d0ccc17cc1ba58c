//! An eventfd that one process writes and another one reads: made by the sender, handed over by a socket.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use anyhow::{Context, Result, ensure};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{read, write};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::transport::Channel;

/// The end that rings.
pub(crate) struct Event(OwnedFd);

impl Event {
    /// A new one, handed to who [listens](Awaited::listen).
    pub(crate) fn connect(channel: &Channel) -> Result<Event> {
        let event = eventfd(0, EventfdFlags::CLOEXEC)?;
        hand_over(&UnixStream::connect(channel.file("socket"))?, &event)?;
        Ok(Event(event))
    }

    /// Ends the sleep, or the next one.
    pub(crate) fn ring(&self) -> Result<()> {
        write(&self.0, &1u64.to_ne_bytes())?;
        Ok(())
    }
}

/// The end that sleeps.
pub(crate) struct Awaited {
    listener: UnixListener,
    event: Option<OwnedFd>,
}

impl Awaited {
    pub(crate) fn listen(channel: &Channel) -> Result<Awaited> {
        Ok(Awaited { listener: UnixListener::bind(channel.file("socket"))?, event: None })
    }

    pub(crate) fn accept(&mut self) -> Result<()> {
        self.event = Some(take_over(&self.listener.accept()?.0)?);
        Ok(())
    }

    /// Sleeps until it is rung; not at all if it was since the last wait.
    pub(crate) fn wait(&self) -> Result<()> {
        read(self.event.as_ref().context("nobody has connected")?, &mut [0; 8])?;
        Ok(())
    }
}

/// Passes a descriptor to another process: unix(7), SCM_RIGHTS.
fn hand_over(stream: &UnixStream, event: &OwnedFd) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [event.as_fd()];
    ensure!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)), "no room");
    sendmsg(stream, &[IoSlice::new(b"x")], &mut ancillary, SendFlags::empty())?;
    Ok(())
}

fn take_over(stream: &UnixStream) -> Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    recvmsg(stream, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    descriptors.flatten().next().context("no descriptor came")
}
