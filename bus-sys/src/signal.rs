//! Signals as something to be read: blocked, and taken from a descriptor where and when the program
//! wants. See [signalfd(2)](https://man7.org/linux/man-pages/man2/signalfd.2.html).

#![allow(unsafe_code)] // sigset, pthread_sigmask and signalfd, which rustix does not have

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

pub use rustix::process::Signal;

/// Signals that are read instead of handled.
///
/// They stay blocked when this is dropped: one that is pending would end the process then. Children
/// inherit what is blocked: see [`spawn::reset_signals`](crate::spawn::reset_signals).
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks `signals` in the calling thread, and makes them readable. To be called before other
    /// threads start, which inherit the mask: a thread in which a signal is not blocked gets it
    /// instead.
    pub fn take(signals: &[Signal]) -> io::Result<Signals> {
        let set = set_of(signals);
        // SAFETY: `set` is an initialised set; the old one is not asked for.
        let error =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: `set` is an initialised set; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const set, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has just made it, and nobody else knows it.
        Ok(Signals(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The number of the next signal that came; `None`: there is none now. A standard signal that
    /// came several times since it was read last is there once.
    pub fn next(&self) -> io::Result<Option<i32>> {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        loop {
            match rustix::io::read(&self.0, &mut info) {
                // The number is the first field, `ssi_signo`; the kernel gives whole records.
                Ok(_) => return Ok(Some(i32::from_ne_bytes([info[0], info[1], info[2], info[3]]))),
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Async-signal-safe.
pub(crate) fn set_of(signals: &[Signal]) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: it points to a set that may be written.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in signals {
        // SAFETY: the set was initialised just above.
        unsafe { libc::sigaddset(set.as_mut_ptr(), signal.as_raw()) };
    }
    // SAFETY: `sigemptyset` has initialised it.
    unsafe { set.assume_init() }
}
