//! Locks on bytes of a file, shared or exclusive, owned by an open file description
//! ([fcntl_locking(2)](https://man7.org/linux/man-pages/man2/F_OFD_SETLK.2const.html), F_OFD_SETLK).
//!
//! What a [`Lease`] is made of, without its meaning: any range, both kinds, and waiting. As there, a forked child
//! keeps none of it, an exec ends it, and so does every death.
//!
//! # Waiting until a deadline
//! The kernel has no such wait: F_OFD_SETLKW ends with the lock or with a signal that has a handler, and the handlers of a process are its program's.
//! Asking again and again would be polling, and unfair to who waits in the kernel. So a helper thread waits, for the
//! same description, so that what it gets is the caller's; the caller sleeps in a futex until the helper wakes it or the time has come, and
//! then ends the helper by [pthread_cancel(3)](https://man7.org/linux/man-pages/man3/pthread_cancel.3.html), which takes it out of the kernel's queue.
//! The helper is always joined before the call returns: nothing is left that could take the lock later. Whether it got it in
//! the last moment need not be known: the caller tries once more, and what its description has already it gets again.
//!
//! Not taken: to leave the helper waiting (it would take the lock at some time, be it to give it back, and be in the way of others); a child
//! process that can be killed alone (it would keep this one's leases after its death).

#![allow(unsafe_code)] // a thread that is cancelled, which std does not have

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Release};

use rustix::fs::{CWD, Mode, OFlags};

use crate::clock::monotonic_ns;
use crate::futex;
use crate::lease::Lease;
use crate::shm::{self, Access};

/// What a lock keeps out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Exclusive locks of others. The file must be open for reading.
    Shared,
    /// All locks of others. The file must be open for writing.
    Exclusive,
}

impl Kind {
    fn raw(self) -> c_int {
        match self {
            Kind::Shared => libc::F_RDLCK,
            Kind::Exclusive => libc::F_WRLCK,
        }
    }
}

/// A lock of another owner that is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Its kind.
    pub kind: Kind,
    /// Its first byte.
    pub first: u64,
    /// How many bytes; 0: to the end of any file.
    pub count: u64,
    /// The process, where the lock is one of a process (F_SETLK) of this pid namespace. A description has none.
    pub pid: Option<u32>,
}

/// A description of its own of a file, whose locks go with it.
#[derive(Debug)]
pub struct Records {
    description: Lease,
}

impl Records {
    /// Opens a regular file that exists; symbolic links are followed. `InvalidInput` for anything else; [`TooManyLeases`](crate::fork::TooManyLeases) for more
    /// than [`LEASES_MAX`](crate::fork::LEASES_MAX) of these and leases together. See [open(2)](https://man7.org/linux/man-pages/man2/open.2.html).
    pub fn open(path: &Path, access: Access) -> io::Result<Records> {
        Records::adopt(|| open(path, flags(access), 0))
    }

    /// The same for reading and writing; a file that is not there is made, empty, with the permission bits `mode` less the umask.
    pub fn open_or_create(path: &Path, mode: u32) -> io::Result<Records> {
        Records::adopt(|| open(path, flags(Access::ReadWrite) | OFlags::CREATE, mode))
    }

    /// Opens the file of a descriptor once more, whatever its name is now. Needs `/proc`.
    pub fn open_again(fd: BorrowedFd<'_>, access: Access) -> io::Result<Records> {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        Records::adopt(|| open(path.as_ref(), flags(access), 0))
    }

    fn adopt(open: impl Fn() -> io::Result<OwnedFd>) -> io::Result<Records> {
        Ok(Records { description: Lease::adopt(open)? })
    }

    /// Locks `count` bytes from `first` on, or to the end of any file where `count` is 0. `false`: the lock of another owner is in the way. What this description has
    /// locked there already gets the new kind, in one step; where that is refused it keeps the old one. 1-2 us.
    ///
    /// `PermissionDenied` where the file is not open as the kind wants it; `EBADF` in a forked child; `ENOLCK` where the kernel has no memory; `InvalidInput` above `i64::MAX`.
    pub fn try_lock(&self, kind: Kind, first: u64, count: u64) -> io::Result<bool> {
        match self.set(libc::F_OFD_SETLK, kind, first, count) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The same, and waits in the kernel until nothing is in the way, or until `deadline_ns` of [`monotonic_ns`]: `false`. **Two owners that wait for each
    /// other wait for ever**: the kernel looks for such circles among locks of processes only. It promises no order among those who wait.
    ///
    /// With a deadline, and something in the way, it starts a thread and ends it (some 50 us): `EAGAIN` where it cannot. A program without the C library's unwinder (`libgcc_s`, which
    /// Rust programs have) cannot end it and is aborted.
    pub fn lock(
        &self,
        kind: Kind,
        first: u64,
        count: u64,
        deadline_ns: Option<u64>,
    ) -> io::Result<bool> {
        if let Some(deadline_ns) = deadline_ns {
            if self.try_lock(kind, first, count)? {
                return Ok(true);
            }
            if monotonic_ns() >= deadline_ns {
                return Ok(false);
            }
            // Also the last look at the generation: the helper has the bare number.
            let (fd, lock) = self.description.request(kind.raw(), first, count)?;
            let result = wait_in_helper(fd, lock, deadline_ns);
            // Whatever the helper did, it is gone, and this is true or false for good.
            return if self.try_lock(kind, first, count)? {
                Ok(true)
            } else {
                result.map(|()| false)
            };
        }
        loop {
            match self.set(libc::F_OFD_SETLKW, kind, first, count) {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn set(&self, command: c_int, kind: Kind, first: u64, count: u64) -> io::Result<()> {
        let error = match self.description.lock(command, kind.raw(), first, count) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        // EBADF is either of two things.
        let is_open = self.description.request(kind.raw(), first, count).is_ok();
        match error.raw_os_error() {
            Some(libc::EBADF) if is_open => Err(io::ErrorKind::PermissionDenied.into()),
            _ => Err(error),
        }
    }

    /// Unlocks what this description has locked of these bytes; nothing is no error. Splitting a lock may need memory: `ENOLCK`.
    pub fn unlock(&self, first: u64, count: u64) -> io::Result<()> {
        self.description.lock(libc::F_OFD_SETLK, libc::F_UNLCK, first, count).map(drop)
    }

    /// A lock that would be in the way of such a one: of several, any. Takes nothing. See F_OFD_GETLK; about 0.8 us.
    pub fn conflict(&self, kind: Kind, first: u64, count: u64) -> io::Result<Option<Conflict>> {
        let found = self.description.lock(libc::F_OFD_GETLK, kind.raw(), first, count)?;
        let kind = match c_int::from(found.l_type) {
            libc::F_RDLCK => Kind::Shared,
            libc::F_WRLCK => Kind::Exclusive,
            _ => return Ok(None),
        };
        let pid = u32::try_from(found.l_pid).ok().filter(|&pid| pid != 0);
        let (first, count) = (found.l_start as u64, found.l_len as u64);
        Ok(Some(Conflict { kind, first, count, pid }))
    }
}

impl AsFd for Records {
    /// To describe the file. In a forked child its number may be another file's.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.description.as_fd()
    }
}

fn flags(access: Access) -> OFlags {
    // NONBLOCK: opening a FIFO or a device does not wait.
    let flags = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    match access {
        Access::ReadOnly => flags | OFlags::RDONLY,
        Access::ReadWrite => flags | OFlags::RDWR,
    }
}

fn open(path: &Path, flags: OFlags, mode: u32) -> io::Result<OwnedFd> {
    // A file system over a network, or in a process, gives up at a signal.
    let open = || rustix::fs::openat(CWD, path, flags, Mode::from_raw_mode(mode));
    let fd = rustix::io::retry_on_intr(open)?;
    shm::len(fd.as_fd())?; // a regular file, or `InvalidInput`
    Ok(fd)
}

/// What the helper is to do, and how it went: on the stack of the caller, which joins it.
struct Request {
    fd: c_int,
    lock: libc::flock,
    result: AtomicU32,
}

/// `Request::result`: the helper waits. Anything else: it has the lock, or it is an error number.
const WAITING: u32 = u32::MAX;
const LOCKED: u32 = 0;

/// Has a helper thread wait for the lock, until it has it or cannot have it, or until `deadline_ns`. It is gone on return.
fn wait_in_helper(fd: c_int, lock: libc::flock, deadline_ns: u64) -> io::Result<()> {
    let request = Request { fd, lock, result: AtomicU32::new(WAITING) };
    let thread = start(&request)?;
    let result = loop {
        // [helper]: what it did is done
        match request.result.load(Acquire) {
            WAITING if monotonic_ns() >= deadline_ns => break LOCKED,
            WAITING => _ = futex::wait(&request.result, WAITING, Some(deadline_ns)),
            result => break result,
        }
    };
    // SAFETY: a thread that was not joined; where it has ended already this does nothing.
    unsafe { pthread_cancel(thread) };
    // SAFETY: as above; nobody else knows the thread, so it is joined once.
    unsafe { libc::pthread_join(thread, ptr::null_mut()) };
    match result {
        LOCKED => Ok(()),
        error => Err(io::Error::from_raw_os_error(error as i32)),
    }
}

/// Starts the helper; the caller joins it before `request` ends. It runs with all signals blocked: handlers of the program find it in no thread of theirs.
fn start(request: &Request) -> io::Result<libc::pthread_t> {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    let mut thread = MaybeUninit::<libc::pthread_t>::uninit();
    // SAFETY: valid for writes.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the first was filled just now, the second is valid for writes.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
    let argument = ptr::from_ref(request).cast_mut().cast();
    // SAFETY: `thread` is valid for writes; `helper` gets a request that outlives it.
    let error = unsafe { pthread_create(thread.as_mut_ptr(), ptr::null(), helper, argument) };
    // SAFETY: the mask that was in force until now; the call above cannot fail with valid arguments.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    match error {
        // SAFETY: written by `pthread_create`, which succeeded.
        0 => Ok(unsafe { thread.assume_init() }),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// The helper. Cancelled, it is unwound from within `fcntl` or beside it, so that nothing here has a destructor.
extern "C-unwind" fn helper(argument: *mut c_void) -> *mut c_void {
    // SAFETY: `start` gets it from a `&Request` that outlives this thread.
    let request = unsafe { &*argument.cast_const().cast::<Request>() };
    let mut ignored = 0;
    // At any instruction, and not at cancellation points only: musl has none in this fcntl.
    // SAFETY: valid for writes. Until the state below, this thread only makes system calls.
    unsafe { pthread_setcanceltype(CANCEL_ASYNCHRONOUS, &raw mut ignored) };
    let result = loop {
        // SAFETY: the descriptor is open while the caller waits, and the request is what this command reads.
        let returned = unsafe { fcntl(request.fd, libc::F_OFD_SETLKW, &raw const request.lock) };
        // SAFETY: the address of this thread's errno.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: valid as long as the thread.
        match (returned, unsafe { *errno }) {
            (-1, libc::EINTR) => {} // no handler runs here; some kernels and debuggers do it all the same
            (-1, errno) => break errno as u32,
            _ => break LOCKED,
        }
    };
    // SAFETY: valid for writes.
    unsafe { pthread_setcancelstate(CANCEL_DISABLE, &raw mut ignored) };
    request.result.store(result, Release); // [helper]
    _ = futex::wake(&request.result, 1);
    ptr::null_mut()
}

const CANCEL_ASYNCHRONOUS: c_int = 1;
const CANCEL_DISABLE: c_int = 1;

// libc has the first and the last, as functions that do not unwind: these do, when the helper is cancelled in them.
unsafe extern "C-unwind" {
    fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    fn pthread_setcanceltype(new: c_int, old: *mut c_int) -> c_int;
    fn pthread_setcancelstate(new: c_int, old: *mut c_int) -> c_int;
    fn pthread_cancel(thread: libc::pthread_t) -> c_int;
    fn pthread_create(
        thread: *mut libc::pthread_t,
        attributes: *const libc::pthread_attr_t,
        start: extern "C-unwind" fn(*mut c_void) -> *mut c_void,
        argument: *mut c_void,
    ) -> c_int;
}
