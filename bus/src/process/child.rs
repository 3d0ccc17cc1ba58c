//! One child process: from spawn to reaped. It is never left behind: dropped, it is killed and waited for.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt};
use std::process::{Child, ExitStatus};

use shmbus_sys::pidfd::{self, PidFd, Signal};
use shmbus_sys::{clock, spawn};

use super::inherit;
use super::spec::ChildSpec;
use super::stop;

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// It exited with this status.
    Exited(i32),
    /// A signal ended it.
    Killed {
        /// Number of the signal.
        signal: i32,
        /// Whether its memory was written to a file.
        core: Core,
    },
    /// It was not started: the kernel's number of the error, 0 where it has none.
    NotStarted(i32),
}

/// Whether a core was dumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Core {
    /// It was.
    Dumped,
    /// It was not.
    None,
}

impl End {
    fn of(status: ExitStatus) -> End {
        match (status.code(), status.signal()) {
            (Some(code), _) => End::Exited(code),
            (None, signal) => {
                let core = if status.core_dumped() { Core::Dumped } else { Core::None };
                End::Killed { signal: signal.unwrap_or(0), core }
            }
        }
    }

    /// Whether it exited with status 0.
    pub fn is_success(self) -> bool {
        self == End::Exited(0)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Exited(code) => write!(f, "exited with status {code}"),
            End::Killed { signal, core: Core::None } => write!(f, "was ended by signal {signal}"),
            End::Killed { signal, .. } => write!(f, "was ended by signal {signal}, core dumped"),
            End::NotStarted(0) => f.write_str("was not started"),
            End::NotStarted(error) => {
                write!(f, "was not started: {}", io::Error::from_raw_os_error(*error))
            }
        }
    }
}

/// A child that was started and not reaped.
pub(super) struct Process {
    child: Child,
    pidfd: PidFd,
    /// Dropped, it tells the child to stop.
    stop: Option<OwnedFd>,
    reaped: bool,
    pub(super) started_ns: u64,
    /// In nanoseconds since 1970.
    pub(super) started_realtime_ns: u64,
}

impl Process {
    /// Starts a child, on a thread that outlives it. Before, what an earlier one left in its topics is given back: processes that it had started may have ended
    /// after itself.
    pub(super) fn spawn(spec: &mut ChildSpec) -> io::Result<Process> {
        sweep(spec);
        let mut command = (spec.command)()?;
        command.process_group(0);
        spawn::die_with_parent(&mut command, Signal::KILL);
        spawn::reset_signals(&mut command);
        command.env_remove(inherit::TOPICS); // of this process: its descriptors are not passed on
        for attachment in &spec.topics {
            inherit::give(&mut command, attachment)?;
        }
        let stop = Some(stop::give(&mut command)?);
        let mut child = command.spawn()?;
        let pidfd = match PidFd::of(&child) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                let _ = pidfd::send_to_group_of(&child, Signal::KILL);
                let _ = child.wait();
                return Err(error);
            }
        };
        Ok(Process {
            child,
            pidfd,
            stop,
            reaped: false,
            started_ns: clock::monotonic_ns(),
            started_realtime_ns: clock::realtime_ns(),
        })
    }

    pub(super) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Says that it is to stop.
    pub(super) fn ask(&mut self) {
        self.stop = None;
    }

    pub(super) fn terminate(&mut self) {
        self.ask();
        let _ = self.pidfd.send(Signal::TERM); // it fails only where the child may not be signalled
    }

    /// SIGKILL to its group.
    pub(super) fn kill(&mut self) {
        let _ = self.pidfd.send(Signal::KILL);
        let _ = pidfd::send_to_group_of(&self.child, Signal::KILL);
    }

    /// Takes the end of a child whose descriptor is ready. Who is left in its group is killed first, while the child, not reaped, keeps the number of
    /// the group its own.
    pub(super) fn reap(&mut self) -> io::Result<End> {
        let _ = pidfd::send_to_group_of(&self.child, Signal::KILL);
        let status = self.child.wait()?; // closes its standard input, and does not sleep
        self.reaped = true;
        Ok(End::of(status))
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            let _ = self.child.wait();
        }
    }
}

/// Gives back what the dead hold in a child's topics. How many were found dead.
pub(super) fn sweep(spec: &ChildSpec) -> u32 {
    spec.topics.iter().map(|attachment| attachment.sweep_all()).sum()
}
