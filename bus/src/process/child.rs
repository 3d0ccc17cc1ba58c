//! One child process: from spawn until nobody of its group is left. It is never left behind: dropped, it is killed and waited for.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command};

use shmbus_sys::pidfd::{self, Exit, PidFd, Reap, Signal};
use shmbus_sys::process::{self, Stat};
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
    /// It has ended, and nobody knows how: something else in this program has waited for it.
    Unknown,
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
    fn of(exit: Exit) -> End {
        match exit {
            Exit::Status(code) => End::Exited(code),
            Exit::Signal { number, dumped } => {
                let core = if dumped { Core::Dumped } else { Core::None };
                End::Killed { signal: number, core }
            }
            Exit::Lost => End::Unknown,
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
            End::Unknown => f.write_str("has ended, nobody knows how"),
            End::NotStarted(0) => f.write_str("was not started"),
            End::NotStarted(error) => {
                write!(f, "was not started: {}", io::Error::from_raw_os_error(*error))
            }
        }
    }
}

/// A child that was started, until nobody of its process group is left.
pub(super) struct Process {
    child: Child,
    pidfd: PidFd,
    /// Dropped, it tells the child to stop.
    stop: Option<OwnedFd>,
    /// How it has ended, and when.
    end: Option<(End, u64)>,
    /// Whether the kernel signals a group by descriptor, so that its number is not needed. Before Linux 6.9 the child stays a zombie until its group is empty, which
    /// keeps the number its own.
    by_descriptor: bool,
    rest: Rest,
    pub(super) started_ns: u64,
    /// In nanoseconds since 1970.
    pub(super) started_realtime_ns: u64,
}

/// What is waited for when the child has ended.
enum Rest {
    /// One of its group.
    Member(PidFd),
    /// No descriptor was left for that: it is looked again.
    Look { at_ns: u64 },
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
        let mut child = command.spawn().map_err(|error| explained(error, &command))?;
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
            by_descriptor: pidfd.send_to_group(None).is_ok(),
            pidfd,
            stop,
            end: None,
            rest: Rest::Look { at_ns: 0 },
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

    /// SIGTERM to its group.
    pub(super) fn terminate(&mut self) {
        self.ask();
        self.send(Signal::TERM);
    }

    /// SIGKILL to its group.
    pub(super) fn kill(&mut self) {
        self.send(Signal::KILL);
    }

    /// To the child, wherever it is, and to its group. It fails only where they may not be signalled.
    fn send(&mut self, signal: Signal) {
        let in_group = match self.by_descriptor {
            true => self.pidfd.send_to_group(Some(signal)).unwrap_or(false),
            // Not where somebody else has reaped it: the number may be another's.
            false if matches!(self.pidfd.exit(Reap::Later), Ok(Some(Exit::Lost))) => false,
            false => pidfd::send_to_group_of(&self.child, signal).unwrap_or(false),
        };
        // A child that has left its own group gets it all the same, and no other gets it twice.
        let has_left = || process::stat(self.pid()).is_some_and(|stat| stat.group != stat.pid);
        if !in_group || (self.end.is_none() && has_left()) {
            let _ = self.pidfd.send(signal);
        }
    }

    /// How the child itself has ended, and when; `None`: it has not.
    pub(super) fn ended(&mut self) -> io::Result<Option<(End, u64)>> {
        if self.end.is_none() {
            let reap = if self.by_descriptor { Reap::Now } else { Reap::Later };
            if let Some(exit) = self.pidfd.exit(reap)? {
                drop(self.child.stdin.take());
                self.end = Some((End::of(exit), clock::monotonic_ns()));
            }
        }
        Ok(self.end)
    }

    /// Whether somebody of its group is left, who is watched then. For a child that has ended.
    pub(super) fn has_rest(&mut self, all: &mut Processes) -> bool {
        let is_known_empty = match self.by_descriptor {
            true => !self.pidfd.send_to_group(None).unwrap_or(true), // EPERM: somebody is there
            false => matches!(self.end, Some((End::Unknown, _))),    // nothing can be said
        };
        if is_known_empty {
            return false;
        }
        let Some(member) = all.member_of(self.pid()) else { return false };
        self.rest = match PidFd::of_process(member.pid, member.start_ticks) {
            Ok(Some(member)) => Rest::Member(member),
            _ => Rest::Look { at_ns: clock::monotonic_ns() + 10_000_000 },
        };
        true
    }

    /// When its group is to be looked at again.
    pub(super) fn look_ns(&self) -> Option<u64> {
        match self.rest {
            Rest::Look { at_ns } if self.end.is_some() => Some(at_ns),
            _ => None,
        }
    }

    pub(super) fn look_now(&mut self) {
        self.rest = Rest::Look { at_ns: 0 };
    }

    /// What is ready when something of it has ended.
    pub(super) fn watched(&self) -> Option<BorrowedFd<'_>> {
        match (&self.end, &self.rest) {
            (None, _) => Some(self.pidfd.as_fd()),
            (Some(_), Rest::Member(member)) => Some(member.as_fd()),
            (Some(_), Rest::Look { .. }) => None,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill(); // whoever was forked since the last look
        let _ = self.pidfd.wait();
    }
}

/// All processes, looked at once for all children whose groups are to be known.
#[derive(Default)]
pub(super) struct Processes(Option<Vec<Stat>>);

impl Processes {
    /// Somebody in a group who has not ended. Where processes are not to be seen, nobody.
    fn member_of(&mut self, group: u32) -> Option<Stat> {
        let all = self.0.get_or_insert_with(|| process::all().unwrap_or_default());
        all.iter().find(|stat| stat.group == group && !stat.has_ended).copied()
    }
}

/// What `spawn` says of a missing program and of a missing working directory is the same: this says which it is.
fn explained(error: io::Error, command: &Command) -> io::Error {
    let Some(directory) = command.get_current_dir() else { return error };
    match std::fs::metadata(directory.join(".")) {
        Err(why) if why.raw_os_error() == error.raw_os_error() => {
            let (kind, path) = (error.kind(), directory.to_path_buf());
            io::Error::new(kind, NoDirectory { path, source: error })
        }
        _ => error,
    }
}

#[derive(Debug, thiserror::Error)]
#[error("working directory {}: {source}", path.display())]
struct NoDirectory {
    path: PathBuf,
    source: io::Error,
}

/// The kernel's number of an error, also where something is said beside it; 0: it has none.
pub(super) fn number(error: &io::Error) -> i32 {
    let mut inner = error.get_ref().and_then(|inner| inner.source());
    let mut number = error.raw_os_error();
    while let (None, Some(source)) = (number, inner) {
        number = source.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        inner = source.source();
    }
    number.unwrap_or(0)
}

/// Whether something was missing that may be there the next moment: descriptors, processes, memory.
pub(super) fn is_passing(error: &io::Error) -> bool {
    const PASSING: [i32; 4] = [11, 12, 23, 24]; // EAGAIN, ENOMEM, ENFILE, EMFILE on every architecture of Linux
    PASSING.contains(&number(error))
}

/// Gives back what the dead hold in a child's topics. How many were found dead.
pub(super) fn sweep(spec: &ChildSpec) -> u32 {
    spec.topics.iter().map(|attachment| attachment.sweep_all()).sum()
}
