//! Sockets that keep messages apart: unix SOCK_SEQPACKET, and UDP on the loopback interface, which drops what its receiver has no room for.

use std::net::UdpSocket;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, ensure};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType, accept, bind, connect, listen,
    recv, send, socket,
};

use crate::transport::{Abilities, Channel, Receiver, Sender, Spin, Transport, Wait};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum PacketKind {
    Sequenced,
    Udp,
}

pub(crate) struct Packet(pub(crate) PacketKind);

impl Transport for Packet {
    type Sender = Outlets;
    type Receiver = Inlet;

    fn name(&self) -> &'static str {
        match self.0 {
            PacketKind::Sequenced => "unix seqpacket",
            PacketKind::Udp => "udp",
        }
    }

    fn abilities(&self) -> Abilities {
        // A packet must fit into the send buffer, which is about 200 KiB by default.
        let (lossless, payload_max) = match self.0 {
            PacketKind::Sequenced => (true, 1 << 17),
            PacketKind::Udp => (false, 65_504),
        };
        Abilities { lossless, payload_max, ..Abilities::STREAM }
    }

    fn listen(&self, channel: &Channel, index: usize) -> Result<Inlet> {
        let path = channel.file(&index.to_string());
        let is_nonblocking = channel.wait == Wait::Spin;
        let (socket, is_listening) = match self.0 {
            PacketKind::Sequenced => {
                let socket = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None)?;
                bind(&socket, &SocketAddrUnix::new(path)?)?;
                listen(&socket, 1)?;
                (socket, true)
            }
            PacketKind::Udp => {
                let socket = UdpSocket::bind("127.0.0.1:0")?;
                std::fs::write(path, socket.local_addr()?.to_string())?;
                ioctl_fionbio(&socket, is_nonblocking)?;
                (socket.into(), false)
            }
        };
        Ok(Inlet { socket, is_listening, is_nonblocking, buffer: vec![0; channel.payload + 8] })
    }

    fn connect(&self, channel: &Channel) -> Result<Outlets> {
        let mut sockets = Vec::new();
        for index in 0..channel.receivers {
            let path = channel.file(&index.to_string());
            let one: OwnedFd = match self.0 {
                PacketKind::Sequenced => {
                    let one = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None)?;
                    connect(&one, &SocketAddrUnix::new(path)?)?;
                    one
                }
                PacketKind::Udp => {
                    let one = UdpSocket::bind("127.0.0.1:0")?;
                    one.connect(std::fs::read_to_string(path)?)?;
                    one.into()
                }
            };
            ioctl_fionbio(&one, channel.wait == Wait::Spin)?;
            sockets.push(one);
        }
        Ok(Outlets { sockets, spin: channel.spin(), is_lossy: self.0 == PacketKind::Udp })
    }
}

/// A socket to each receiver.
pub(crate) struct Outlets {
    sockets: Vec<OwnedFd>,
    spin: Spin,
    is_lossy: bool,
}

impl Sender for Outlets {
    fn send(&mut self, message: &[u8]) -> Result<()> {
        for socket in &self.sockets {
            loop {
                match send(socket, message, SendFlags::NOSIGNAL) {
                    Ok(_) => break,
                    // Of UDP: its receiver has what it wanted, and is gone.
                    Err(Errno::CONNREFUSED) if self.is_lossy => break,
                    Err(Errno::AGAIN) => self.spin.turn(),
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}

pub(crate) struct Inlet {
    socket: OwnedFd,
    is_listening: bool,
    is_nonblocking: bool,
    buffer: Vec<u8>,
}

impl Inlet {
    #[inline]
    fn read(&mut self) -> Result<Option<usize>> {
        loop {
            match recv(&self.socket, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((0, _)) => anyhow::bail!("the sender is gone"),
                Ok((count, _)) => return Ok(Some(count)),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Receiver for Inlet {
    fn accept(&mut self) -> Result<()> {
        if self.is_listening {
            self.socket = accept(&self.socket)?;
            self.is_listening = false;
        }
        Ok(ioctl_fionbio(&self.socket, self.is_nonblocking)?)
    }

    #[inline]
    fn try_receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.read()?.map(|count| look(&self.buffer[..count])))
    }

    #[inline]
    fn receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R> {
        ensure!(!self.is_nonblocking, "asked to sleep on a socket that does not block");
        let count = self.read()?.context("a blocking socket did not block")?;
        Ok(look(&self.buffer[..count]))
    }
}
