//! What a child is and has when it begins to run its program, beyond what
//! [`std::process::Command`] can say. Each function adds one thing to a command; all of them happen
//! in the child, between fork and exec, and only system calls do: a child of a process with threads
//! may find any lock taken. What fails there is the error of `spawn`, and the child is gone.

#![allow(unsafe_code)] // pre_exec, and the system calls in it

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{AtFlags, fstat, statat};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
pub use rustix::process::{Resource, Rlimit, getrlimit};
use rustix::process::{getppid, set_parent_process_death_signal, setrlimit};

use crate::signal::{Signal, set_of};

/// Gives the child a descriptor of the same description, under the number that this returns. In this
/// process it belongs to the command, and stays close-on-exec: no other child gets it.
pub fn inherit(command: &mut Command, fd: BorrowedFd<'_>) -> io::Result<RawFd> {
    // Not 0 to 2: the child's standard streams are put there, before what is done here.
    let fd: OwnedFd = fcntl_dupfd_cloexec(fd, 3)?;
    let number = fd.as_raw_fd();
    let keep = move || fcntl_setfd(&fd, FdFlags::empty()).map_err(io::Error::from);
    // SAFETY: one system call on a descriptor that the closure owns; an errno becomes an error
    // without allocating.
    unsafe { command.pre_exec(keep) };
    Ok(number)
}

/// Which file a descriptor means: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
}

impl FileId {
    /// Of the file behind a descriptor.
    pub fn of(fd: BorrowedFd<'_>) -> io::Result<FileId> {
        let stat = fstat(fd)?;
        Ok(FileId { device: stat.st_dev as u64, inode: stat.st_ino as u64 })
    }

    /// Of the file `name` below `dir`, a symbolic link itself among them. Needs permission to search
    /// `dir`, and none on the file.
    pub fn at(dir: BorrowedFd<'_>, name: &str) -> io::Result<FileId> {
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(FileId { device: stat.st_dev as u64, inode: stat.st_ino as u64 })
    }
}

/// What stands under a number that was inherited.
#[derive(Debug)]
pub enum Inherited {
    /// The file that was expected: a descriptor of one's own for the same description. The inherited
    /// one is close-on-exec from now on: children of this process do not get it by accident.
    Taken(OwnedFd),
    /// Something else, which is left as it is.
    Other,
}

/// Takes what was inherited under `number`, if it is `expected`. `EBADF` where there is nothing.
pub fn take_inherited(number: RawFd, expected: FileId) -> io::Result<Inherited> {
    // SAFETY: a number and constants; EBADF where nothing is open under it.
    let taken = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if taken < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just made it, and nobody else knows it.
    let taken = unsafe { OwnedFd::from_raw_fd(taken) };
    if FileId::of(taken.as_fd())? != expected {
        return Ok(Inherited::Other);
    }
    // SAFETY: as above. It was seen to be what this process was given.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Inherited::Taken(taken))
}

/// Has the kernel send the child `signal` when the *thread* that spawned it ends, and its process
/// with it. A child whose parent has ended before it could ask for that exits at once, with status 1.
///
/// The parent is the process that calls this. Where it is not to be seen from the child (a pid
/// namespace of its own), that last check is left out. An exec of a program with set-user-id takes
/// the signal back, and what the child itself forks does not have it. See
/// [PR_SET_PDEATHSIG](https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html).
pub fn die_with_parent(command: &mut Command, signal: Signal) {
    let parent = std::process::id() as i32;
    let ask = move || {
        set_parent_process_death_signal(Some(signal))?;
        match getppid() {
            // Not an error: there is nobody to read it, and std aborts where it cannot tell.
            // SAFETY: ends the process without running anything of it.
            Some(pid) if pid.as_raw_pid() != parent => unsafe { libc::_exit(1) },
            _ => Ok(()),
        }
    };
    // SAFETY: system calls.
    unsafe { command.pre_exec(ask) };
}

/// Has every descriptor of this process but the three standard streams closed by exec, as far as they are open now: what whoever started this process
/// left open does not reach its children. [`inherit`] takes it back for one child and descriptor.
pub fn close_others_on_exec() -> io::Result<()> {
    const FIRST: u32 = 3;
    // SAFETY: numbers; the call changes a flag of descriptors that are open.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, FIRST, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 {
        return Ok(());
    }
    // Before Linux 5.11.
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        if let Some(number) = number.filter(|number| *number >= FIRST as RawFd) {
            // SAFETY: a number and constants; EBADF where nothing is open under it.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

/// Gives the child these limits of a resource: those that this process had before it raised its own.
pub fn limit(command: &mut Command, resource: Resource, limits: Rlimit) {
    let set = move || setrlimit(resource, limits).map_err(io::Error::from);
    // SAFETY: one system call; an errno becomes an error without allocating.
    unsafe { command.pre_exec(set) };
}

/// Lets the child begin without blocked signals, and with the default action for each. Both are
/// inherited otherwise, the second as far as signals are ignored.
pub fn reset_signals(command: &mut Command) {
    const SIGNALS: i32 = 64;
    let none = set_of(&[]);
    let action = [0_u64; 4]; // the kernel's struct sigaction
    let reset = move || {
        for signal in 1..=SIGNALS {
            // By the kernel's call, because the C library refuses the two that it keeps for itself, and they may be ignored too. EINVAL for SIGKILL and
            // SIGSTOP.
            // SAFETY: `action` is as long as the structure that the call reads, which is all zero for SIG_DFL; the old one is not asked for; the set of
            // blocked signals in it has 8 bytes.
            unsafe {
                libc::syscall(
                    libc::SYS_rt_sigaction,
                    signal,
                    (&raw const action),
                    std::ptr::null_mut::<u8>(),
                    size_of::<u64>(),
                )
            };
        }
        // SAFETY: an initialised set; the old one is not asked for.
        let error = unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
        };
        if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
    };
    // SAFETY: a system call and `pthread_sigmask`, which is async-signal-safe.
    unsafe { command.pre_exec(reset) };
}
