//! A child by descriptor: it means this one process for ever, also when its number has become
//! another's. See [pidfd_open(2)](https://man7.org/linux/man-pages/man2/pidfd_open.2.html).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Child;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, kill_process_group, pidfd_open, pidfd_send_signal, test_kill_process,
};

pub use rustix::process::Signal;

/// A descriptor of a child. Ready to be read once the child has ended (all of its threads; its
/// files are closed, so that its leases are free), reaped or not.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Of a child that nobody has waited for yet, however long ago it ended: its number is its own
    /// till then. Called after [`Child::wait`], it may be another process's.
    pub fn of(child: &Child) -> io::Result<PidFd> {
        Ok(PidFd(pidfd_open(Pid::from_child(child), PidfdFlags::empty())?))
    }

    /// Sends a signal. `false`: the process was reaped. One that has ended and was not takes it
    /// without effect.
    pub fn send(&self, signal: Signal) -> io::Result<bool> {
        match pidfd_send_signal(&self.0, signal) {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends a signal to the process group that `leader` began, as
/// [`CommandExt::process_group`](std::os::unix::process::CommandExt::process_group) with 0 has it
/// do. The leader may have ended; it must not be reaped, so that the number of the group is its own.
/// `false`: nobody is in that group. Who has left it (`setsid`, `setpgid`) gets nothing.
pub fn send_to_group_of(leader: &Child, signal: Signal) -> io::Result<bool> {
    match kill_process_group(Pid::from_child(leader), signal) {
        Ok(()) => Ok(true),
        Err(Errno::SRCH) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether the number is that of a process, or of one that ended and was not reaped: of whichever
/// has it now. For people and for tests; what is to live is held by [`PidFd`] or asked by lease.
pub fn is_in_use(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}
