//! Unix sockets, TCP connections and pipes: once connected, the three are bytes in order through a descriptor.
//!
//! All messages of a run have one length, so the stream needs no framing. A receiver reads as much as there is, up to a
//! large buffer, and takes the messages out one by one. A feed writes each message to each receiver: to a reliable one
//! until it is written; to a lossy one only if it fits. A message that was written in part is finished before the next
//! one to that receiver, and what is due meanwhile is dropped for it. The buffers of the kernel are left as they are.

use super::schedule::{Spin, Wait};
use super::transport::{Flow, Role};
use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open};
use rustix::io::{Errno, dup, read, write};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};

/// What one read(2) asks for, at least.
const BUFFER_LEN: usize = 64 * 1024;

enum End {
    UnixListener(UnixListener),
    TcpListener(TcpListener),
    Connected(OwnedFd),
}

/// The receiving end.
pub(super) struct StreamSource {
    end: End,
    wait: Wait,
    spin: Spin,
    message_len: usize,
    buffer: Vec<u8>,
    /// What of `buffer` was read and not yet taken out.
    filled: std::ops::Range<usize>,
}

impl StreamSource {
    fn new(end: End, flow: &Flow) -> StreamSource {
        StreamSource {
            end,
            wait: flow.wait,
            spin: flow.spin(),
            message_len: flow.payload,
            buffer: vec![0; BUFFER_LEN.max(2 * flow.payload)],
            filled: 0..0,
        }
    }

    pub(super) fn listen_unix(name: &str, flow: &Flow) -> Result<StreamSource> {
        let address = UnixAddr::from_abstract_name(name)?;
        let listener =
            UnixListener::bind_addr(&address).context("cannot listen on a unix socket")?;
        Ok(StreamSource::new(End::UnixListener(listener), flow))
    }

    pub(super) fn listen_tcp(flow: &Flow) -> Result<(StreamSource, SocketAddr)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .context("cannot listen on the loopback interface")?;
        let address = listener.local_addr()?;
        Ok((StreamSource::new(End::TcpListener(listener), flow), address))
    }

    pub(super) fn stdin(flow: &Flow) -> Result<StreamSource> {
        let mut source = StreamSource::new(End::Connected(dup(io::stdin().as_fd())?), flow);
        source.set_waiting()?;
        Ok(source)
    }

    /// Takes the first connection.
    pub(super) fn accept(&mut self) -> Result<()> {
        let connected = match &self.end {
            End::UnixListener(listener) => OwnedFd::from(listener.accept()?.0),
            End::TcpListener(listener) => OwnedFd::from(listener.accept()?.0),
            End::Connected(_) => return Ok(()),
        };
        self.end = End::Connected(connected);
        self.set_waiting()
    }

    fn set_waiting(&mut self) -> Result<()> {
        match &self.end {
            End::Connected(descriptor) => set_blocking(descriptor, self.wait == Wait::Block),
            _ => Ok(()),
        }
    }

    pub(super) fn next<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        while self.filled.len() < self.message_len {
            if !self.read_more()? {
                return Ok(None);
            }
        }
        let message = self.filled.start..self.filled.start + self.message_len;
        self.filled.start = message.end;
        Ok(Some(look(&self.buffer[message])))
    }

    /// `false`: the feed has closed its end.
    fn read_more(&mut self) -> Result<bool> {
        let End::Connected(descriptor) = &self.end else { bail!("not connected yet") };
        self.buffer.copy_within(self.filled.clone(), 0);
        self.filled = 0..self.filled.len();
        loop {
            match read(descriptor, &mut self.buffer[self.filled.end..]) {
                Ok(0) => return Ok(false),
                Ok(len) => {
                    self.filled.end += len;
                    return Ok(true);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.spin.turn(),
                Err(error) => return Err(error).context("cannot read from the feed"),
            }
        }
    }
}

/// The sending end, for one receiver.
pub(super) struct StreamOutlet {
    descriptor: OwnedFd,
    reliable: bool,
    spin: Spin,
    /// The part of a message that did not fit.
    unfinished: Vec<u8>,
}

impl StreamOutlet {
    fn new(descriptor: OwnedFd, role: Role, flow: &Flow) -> Result<StreamOutlet> {
        let reliable = role == Role::Reliable;
        set_blocking(&descriptor, reliable && flow.wait == Wait::Block)?;
        Ok(StreamOutlet { descriptor, reliable, spin: flow.spin(), unfinished: Vec::new() })
    }

    pub(super) fn connect_unix(name: &str, role: Role, flow: &Flow) -> Result<StreamOutlet> {
        let address = UnixAddr::from_abstract_name(name)?;
        let stream =
            UnixStream::connect_addr(&address).context("cannot connect to a subscriber")?;
        StreamOutlet::new(stream.into(), role, flow)
    }

    pub(super) fn connect_tcp(to: SocketAddr, role: Role, flow: &Flow) -> Result<StreamOutlet> {
        let stream = TcpStream::connect(to).context("cannot connect to a subscriber")?;
        stream.set_nodelay(true)?;
        StreamOutlet::new(stream.into(), role, flow)
    }

    /// Opens the pipe behind an inherited descriptor.
    pub(super) fn inherit(number: i32, role: Role, flow: &Flow) -> Result<StreamOutlet> {
        let path = format!("/proc/self/fd/{number}");
        let pipe = open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .context("cannot open the pipe to a subscriber")?;
        StreamOutlet::new(pipe, role, flow)
    }

    /// Sends `message` as the receiver's role asks: to a lossy one only if it fits.
    pub(super) fn offer(&mut self, message: &[u8]) -> Result<()> {
        if self.reliable {
            return self.write_all(message);
        }
        let unfinished = std::mem::take(&mut self.unfinished);
        if !unfinished.is_empty() {
            let written = self.write_some(&unfinished)?;
            self.unfinished = unfinished[written..].to_vec();
            if !self.unfinished.is_empty() {
                return Ok(());
            }
        }
        let written = self.write_some(message)?;
        if written > 0 {
            self.unfinished = message[written..].to_vec();
        }
        Ok(())
    }

    /// Sends `message`, and what is unfinished before it, to a receiver of any role.
    pub(super) fn insist(&mut self, message: &[u8]) -> Result<()> {
        set_blocking(&self.descriptor, true)?;
        let unfinished = std::mem::take(&mut self.unfinished);
        self.write_all(&unfinished)?;
        self.write_all(message)
    }

    fn write_all(&mut self, mut message: &[u8]) -> Result<()> {
        while !message.is_empty() {
            let written = self.write_some(message)?;
            message = &message[written..];
            if written == 0 {
                self.spin.turn();
            }
        }
        Ok(())
    }

    /// 0: nothing fits at the moment.
    fn write_some(&self, message: &[u8]) -> Result<usize> {
        loop {
            match write(&self.descriptor, message) {
                Ok(written) => return Ok(written),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(0),
                Err(error) => return Err(error).context("cannot write to a subscriber"),
            }
        }
    }
}

fn set_blocking(descriptor: &OwnedFd, blocking: bool) -> Result<()> {
    let mut flags = fcntl_getfl(descriptor)?;
    flags.set(OFlags::NONBLOCK, !blocking);
    Ok(fcntl_setfl(descriptor, flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(payload: usize) -> Flow {
        Flow { payload, rate: 1, wait: Wait::Block, yields: true, length_ns: 0 }
    }

    fn pair(role: Role, payload: usize) -> (StreamOutlet, StreamSource) {
        let (near, far) = UnixStream::pair().expect("a pair of sockets");
        let outlet = StreamOutlet::new(near.into(), role, &flow(payload)).expect("an outlet");
        (outlet, StreamSource::new(End::Connected(far.into()), &flow(payload)))
    }

    /// A message of `len` bytes that tells its number, and whether it is whole.
    fn numbered(number: u8, len: usize) -> Vec<u8> {
        vec![number; len]
    }

    fn rest(source: &mut StreamSource) -> Vec<u8> {
        let mut numbers = Vec::new();
        let check = |message: &[u8]| {
            assert!(message.iter().all(|byte| *byte == message[0]), "a mixture of messages");
            message[0]
        };
        while let Some(number) = source.next(check).expect("readable") {
            numbers.push(number);
        }
        numbers
    }

    #[test]
    fn a_lossy_receiver_misses_what_does_not_fit_and_gets_the_rest_whole_and_in_order() {
        // 100,000 bytes: more than fits at once, so that messages are written in part.
        for len in [48, 4_096, 100_000] {
            let (mut outlet, mut source) = pair(Role::Lossy, len);
            let mut early = Vec::new();
            for number in 0..250 {
                outlet.offer(&numbered(number, len)).expect("an offer never fails");
                if number == 200 {
                    // Room for some more, in the middle of an unfinished one.
                    early.extend(source.next(|message| message[0]).expect("readable"));
                }
            }
            let sender = std::thread::spawn(move || outlet.insist(&numbered(250, len)));
            let numbers = [early, rest(&mut source)].concat();
            sender.join().expect("no panic").expect("the last message goes out");
            assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
            assert_eq!(numbers.last(), Some(&250), "the last one reaches everybody");
            assert!(numbers.len() < 251 || len < 100_000, "25 MB cannot have fitted");
        }
    }

    #[test]
    fn a_reliable_receiver_gets_everything() {
        let (mut outlet, mut source) = pair(Role::Reliable, 10_000);
        let sender = std::thread::spawn(move || {
            (0..250).try_for_each(|number| outlet.offer(&numbered(number, 10_000)))
        });
        assert_eq!(rest(&mut source), (0..250).collect::<Vec<u8>>());
        sender.join().expect("no panic").expect("everything was written");
    }

    #[test]
    fn a_feed_that_goes_away_ends_the_stream() {
        let (mut outlet, mut source) = pair(Role::Reliable, 100);
        outlet.offer(&numbered(1, 100)).expect("it fits");
        outlet.write_all(&[2; 50]).expect("it fits");
        drop(outlet);
        assert_eq!(rest(&mut source), [1], "half a message is none");
    }
}
