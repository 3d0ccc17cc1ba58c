//! A child by descriptor: it means this one process for ever, also when its number has become
//! another's. See [pidfd_open(2)](https://man7.org/linux/man-pages/man2/pidfd_open.2.html).

#![allow(unsafe_code)] // pidfd_send_signal with a flag, which rustix does not have

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::Child;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, pidfd_open,
    pidfd_send_signal, test_kill_process, waitid,
};

pub use rustix::process::Signal;

/// A descriptor of a process. Ready to be read once it has ended (all of its threads; its
/// files are closed, so that its leases are free), reaped or not.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status.
    Status(i32),
    /// A signal ended it.
    Signal {
        /// Number of the signal.
        number: i32,
        /// Whether its memory was written to a file.
        dumped: bool,
    },
    /// It has ended, and its status is lost: somebody else in this process has waited for it, or SIGCHLD is ignored.
    Lost,
}

/// Whether an end that is asked for is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reap {
    /// The child is reaped.
    Now,
    /// The child stays as it is, so that its number stays its own.
    Later,
}

impl PidFd {
    /// Of a child that nobody has waited for yet, however long ago it ended: its number is its own
    /// till then. Called after [`Child::wait`], it may be another process's.
    pub fn of(child: &Child) -> io::Result<PidFd> {
        Ok(PidFd(pidfd_open(Pid::from_child(child), PidfdFlags::empty())?))
    }

    /// Of any process that is known by its number and start time ([`Stat`](crate::process::Stat)). `None`: it is gone, or the number is another's.
    pub fn of_process(pid: u32, start_ticks: u64) -> io::Result<Option<PidFd>> {
        let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        match pidfd_open(number, PidfdFlags::empty()) {
            // Looked at after the descriptor was there: it means this one, or one that began later.
            Ok(fd) => {
                let is_same = crate::process::start_time_ticks(pid) == Some(start_ticks);
                Ok(is_same.then_some(PidFd(fd)))
            }
            Err(Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
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

    /// Sends a signal, or nothing, to the process group that this process began, by descriptor: also after its leader was reaped it means no other group.
    /// `false`: nobody is in the group. A process that has left it (`setsid`, `setpgid`) gets nothing. `EINVAL` before Linux 6.9. See
    /// [pidfd_send_signal(2)](https://man7.org/linux/man-pages/man2/pidfd_send_signal.2.html).
    pub fn send_to_group(&self, signal: Option<Signal>) -> io::Result<bool> {
        const PIDFD_SIGNAL_PROCESS_GROUP: u32 = 1 << 2;
        let number = signal.map_or(0, Signal::as_raw);
        // SAFETY: a descriptor that is open, numbers, and no further information.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                number,
                std::ptr::null::<u8>(),
                PIDFD_SIGNAL_PROCESS_GROUP,
            )
        };
        match (result, io::Error::last_os_error()) {
            (0, _) => Ok(true),
            (_, error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            (_, error) => Err(error),
        }
    }

    /// How this child has ended; `None`: it has not. Does not wait.
    pub fn exit(&self, reap: Reap) -> io::Result<Option<Exit>> {
        let mut options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        if reap == Reap::Later {
            options |= WaitIdOptions::NOWAIT;
        }
        loop {
            match waitid(WaitId::PidFd(self.0.as_fd()), options) {
                Ok(None) => return Ok(None),
                Ok(Some(status)) => return Ok(Some(Exit::of(&status))),
                Err(Errno::CHILD) => return Ok(Some(Exit::Lost)),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sleeps until this child has ended, and reaps it.
    pub fn wait(&self) -> io::Result<()> {
        loop {
            match waitid(WaitId::PidFd(self.0.as_fd()), WaitIdOptions::EXITED) {
                Ok(_) | Err(Errno::CHILD) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Exit {
    fn of(status: &WaitIdStatus) -> Exit {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Status(code),
            (None, Some(number)) => Exit::Signal { number, dumped: status.dumped() },
            (None, None) => Exit::Lost,
        }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Reaps a child that has ended, by its number, which is its own till then. `false`: there is no such child, or it has not ended.
pub fn reap(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    pid.is_some_and(|pid| matches!(waitid(WaitId::Pid(pid), options), Ok(Some(_))))
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
