//! Sleeping until one of several descriptors is ready, or until a time; and a descriptor that one
//! thread makes ready for another.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::clock;

/// Sleeps until a descriptor can be read or its other end is gone, or until `deadline_ns` of the
/// monotonic clock; `None` is without end. Which of them are ready, in the order of `fds`: none of
/// them once the deadline has come. Signals do not end it. See
/// [poll(2)](https://man7.org/linux/man-pages/man2/poll.2.html).
pub fn wait(fds: &[BorrowedFd<'_>], deadline_ns: Option<u64>) -> io::Result<Vec<bool>> {
    let mut polled: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    wait_for(&mut polled, deadline_ns)?;
    Ok(polled.iter().map(|fd| !fd.revents().is_empty()).collect())
}

/// The same for one that can be written to, without waiting for whoever reads it, or whose other end is gone. `false`: the deadline has come.
pub fn wait_for_room(fd: BorrowedFd<'_>, deadline_ns: Option<u64>) -> io::Result<bool> {
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    wait_for(&mut polled, deadline_ns)?;
    Ok(!polled[0].revents().is_empty())
}

fn wait_for(polled: &mut [PollFd<'_>], deadline_ns: Option<u64>) -> io::Result<()> {
    loop {
        let left = deadline_ns.map(|deadline_ns| {
            let left_ns = deadline_ns.saturating_sub(clock::monotonic_ns());
            Timespec {
                tv_sec: (left_ns / 1_000_000_000) as i64,
                tv_nsec: (left_ns % 1_000_000_000) as _,
            }
        });
        match poll(polled, left.as_ref()) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A descriptor that is ready from [`ring`](Doorbell::ring) to [`clear`](Doorbell::clear), whatever
/// the number of rings. See [eventfd(2)](https://man7.org/linux/man-pages/man2/eventfd.2.html).
#[derive(Debug)]
pub struct Doorbell(OwnedFd);

impl Doorbell {
    /// One that nobody has rung.
    pub fn new() -> io::Result<Doorbell> {
        Ok(Doorbell(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Makes it ready. From any thread.
    pub fn ring(&self) {
        // EAGAIN: rung 2^64 times and ready anyhow. It fails in no other way.
        _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Makes it not ready. Before looking for what a ring is about.
    pub fn clear(&self) {
        _ = rustix::io::read(&self.0, &mut [0; 8]); // EAGAIN: nobody rang
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Both ends of a pipe, for reading and for writing, not inherited. See
/// [pipe(2)](https://man7.org/linux/man-pages/man2/pipe.2.html).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}
