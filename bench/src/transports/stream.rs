//! Streams of bytes: pipe, unix stream socket, TCP on the loopback interface.
//!
//! A message is one `write` to each receiver. A receiver reads as much as there is, up to 64 KiB or one message, and takes messages from that: many for one
//! system call where it is behind. Buffers of the kernel are as it gives them.

use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::io::{Errno, ioctl_fionbio, read, write};

use crate::transport::{Abilities, Channel, Receiver, Sender, Spin, Transport, Wait};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamKind {
    Pipe,
    Unix,
    Tcp,
}

pub(crate) struct Stream(pub(crate) StreamKind);

impl Transport for Stream {
    type Sender = Outlets;
    type Receiver = Inlet;

    fn name(&self) -> &'static str {
        match self.0 {
            StreamKind::Pipe => "pipe",
            StreamKind::Unix => "unix stream",
            StreamKind::Tcp => "tcp",
        }
    }

    fn abilities(&self) -> Abilities {
        Abilities::STREAM
    }

    fn create(&self, channel: &Channel) -> Result<()> {
        for index in (0..channel.receivers).filter(|_| self.0 == StreamKind::Pipe) {
            let path = channel.file(&index.to_string());
            mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        }
        Ok(())
    }

    fn listen(&self, channel: &Channel, index: usize) -> Result<Inlet> {
        let path = channel.file(&index.to_string());
        let end = match self.0 {
            // For writing also: without a writer there is no end of the stream, and no waiting for one.
            StreamKind::Pipe => Listening::Open(open(path, OFlags::RDWR, Mode::empty())?),
            StreamKind::Unix => Listening::Unix(UnixListener::bind(path)?),
            StreamKind::Tcp => {
                let listener = TcpListener::bind("127.0.0.1:0")?;
                std::fs::write(path, listener.local_addr()?.to_string())?;
                Listening::Tcp(listener)
            }
        };
        Ok(Inlet {
            listening: Some(end),
            stream: None,
            is_nonblocking: channel.wait == Wait::Spin,
            buffer: vec![0; channel.payload.max(1 << 16)],
            begin: 0,
            end: 0,
            len: channel.payload,
        })
    }

    fn connect(&self, channel: &Channel) -> Result<Outlets> {
        let mut streams = Vec::new();
        for index in 0..channel.receivers {
            let path = channel.file(&index.to_string());
            let stream = match self.0 {
                StreamKind::Pipe => open(path, OFlags::WRONLY, Mode::empty())?,
                StreamKind::Unix => UnixStream::connect(path)?.into(),
                StreamKind::Tcp => {
                    let stream = TcpStream::connect(std::fs::read_to_string(path)?)?;
                    stream.set_nodelay(true)?;
                    stream.into()
                }
            };
            ioctl_fionbio(&stream, channel.wait == Wait::Spin)?;
            streams.push(stream);
        }
        Ok(Outlets { streams, spin: channel.spin() })
    }
}

/// A stream to each receiver.
pub(crate) struct Outlets {
    streams: Vec<OwnedFd>,
    spin: Spin,
}

impl Sender for Outlets {
    fn send(&mut self, message: &[u8]) -> Result<()> {
        for stream in &self.streams {
            let mut rest = message;
            while !rest.is_empty() {
                match write(stream, rest) {
                    Ok(count) => rest = &rest[count..],
                    Err(Errno::AGAIN) => self.spin.turn(),
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}

enum Listening {
    Open(OwnedFd),
    Unix(UnixListener),
    Tcp(TcpListener),
}

pub(crate) struct Inlet {
    listening: Option<Listening>,
    stream: Option<OwnedFd>,
    is_nonblocking: bool,
    buffer: Vec<u8>,
    /// Bytes from `begin` to `end` were read and not taken.
    begin: usize,
    end: usize,
    len: usize,
}

impl Inlet {
    /// Reads until there is a whole message; false where nothing is there yet.
    #[inline]
    fn fill(&mut self) -> Result<bool> {
        while self.end - self.begin < self.len {
            if self.begin + self.len > self.buffer.len() || self.begin == self.end {
                self.buffer.copy_within(self.begin..self.end, 0);
                self.end -= self.begin;
                self.begin = 0;
            }
            let stream = self.stream.as_ref().context("not accepted")?;
            match read(stream.as_fd(), &mut self.buffer[self.end..]) {
                Ok(count) => {
                    ensure!(count > 0, "the sender is gone");
                    self.end += count;
                }
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    #[inline]
    fn take(&mut self) -> &[u8] {
        let begin = self.begin;
        self.begin += self.len;
        &self.buffer[begin..self.begin]
    }
}

impl Receiver for Inlet {
    fn accept(&mut self) -> Result<()> {
        let stream: OwnedFd = match self.listening.take().context("accepted before")? {
            Listening::Open(stream) => stream,
            Listening::Unix(listener) => listener.accept()?.0.into(),
            Listening::Tcp(listener) => {
                let stream = listener.accept()?.0;
                stream.set_nodelay(true)?;
                stream.into()
            }
        };
        ioctl_fionbio(&stream, self.is_nonblocking)?;
        self.stream = Some(stream);
        Ok(())
    }

    #[inline]
    fn try_receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(if self.fill()? { Some(look(self.take())) } else { None })
    }

    #[inline]
    fn receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R> {
        ensure!(self.fill()?, "a blocking stream did not block");
        Ok(look(self.take()))
    }
}
