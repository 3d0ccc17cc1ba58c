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

/// Whether the process ignores `signal`: as `nohup` and a shell's `trap ''` leave it to the programs that they start. A program that handles signals
/// leaves those as they are.
/// A signal that is blocked is read by [`Signals`] although it is ignored.
pub fn is_ignored(signal: Signal) -> io::Result<bool> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: the old action is written to where there is room for it; the new one is not given.
    if unsafe { libc::sigaction(signal.as_raw(), std::ptr::null(), action.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has succeeded, and written it.
    Ok(unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN)
}

/// Lets ended children of this process wait for being reaped, where they do not: where SIGCHLD is ignored, as whoever started the
/// process may have left it, or has `SA_NOCLDWAIT`, the kernel reaps them, their status is lost, and their numbers are anybody's. The
/// default action is set then; a handler stays, without that flag. Of the whole process.
pub fn keep_ended_children() -> io::Result<()> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: the old action is written to where there is room for it; the new one is not given.
    if unsafe { libc::sigaction(libc::SIGCHLD, std::ptr::null(), action.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has succeeded, and written it.
    let mut action = unsafe { action.assume_init() };
    let is_ignored = action.sa_sigaction == libc::SIG_IGN;
    if !is_ignored && action.sa_flags & libc::SA_NOCLDWAIT == 0 {
        return Ok(());
    }
    if is_ignored {
        action.sa_sigaction = libc::SIG_DFL;
    }
    action.sa_flags &= !libc::SA_NOCLDWAIT;
    // SAFETY: an action as it was, but for two changes that are allowed for it.
    if unsafe { libc::sigaction(libc::SIGCHLD, &raw const action, std::ptr::null_mut()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
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
