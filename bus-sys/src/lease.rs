//! Proof of life: a write lock on one byte of a file, owned by an open file description
//! ([fcntl_locking(2)](https://man7.org/linux/man-pages/man2/F_OFD_SETLK.2const.html),
//! F_OFD_SETLK).
//!
//! The kernel releases it when the last descriptor of the description is closed, at the latest when
//! the process is gone, however it died, and before its pid can be used again. It works across pid
//! namespaces. A process that is stopped, or is writing its core dump, still holds it: stopped is
//! not dead. An exec ends it (`O_CLOEXEC`), and a forked child does not keep it ([`fork`]): should
//! its parent die meanwhile, then until the child has come out of `fork`.
//!
//! **Whoever may open the file for reading can be in the way for ever**: a read lock needs no more, and
//! is held like a write lock for everybody who asks. So a file of leases must be one that nobody may read
//! who may not write it.
//!
//! Two things follow from the owner being the description and not the process. A description does
//! not see its own locks: nobody probes through the lease that holds. And it is not in its own way:
//! taking a held byte again succeeds.

#![allow(unsafe_code)] // fcntl with F_OFD_*, which rustix does not have

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::fork::{self, Slot};
use crate::shm::{self, Access};

/// A description of its own of a file whose bytes stand for holders. Dropping it releases all of
/// its bytes at once.
///
/// In a forked child it is dead: each call fails with `EBADF`, and dropping it does nothing.
#[derive(Debug)]
pub struct Lease {
    /// Open while `generation` is the current one; closed by the child handler of `fork` otherwise,
    /// so that its number may be another file's.
    fd: ManuallyDrop<OwnedFd>,
    slot: Slot,
    generation: u32,
}

impl Lease {
    /// Opens the file `name` below `dir` anew for reading and writing. Nothing is held yet. `ELOOP`
    /// for a symbolic link; [`fork::TooManyLeases`] for more than [`fork::LEASES_MAX`] in the process.
    pub fn open_at(dir: BorrowedFd<'_>, name: &str) -> io::Result<Lease> {
        Lease::adopt(|| shm::open_at(dir, name, Access::ReadWrite))
    }

    /// Whether leases work on the file system of `dir`: on a file without a name there, one description sees what another holds, and no longer
    /// when it is dropped. `false`: the locks are there and do not work so. Needs permission to write `dir`; leaves nothing.
    ///
    /// # Errors
    /// The kernel refuses: a file without a name (`EOPNOTSUPP`), or the locks.
    pub fn work_in(dir: BorrowedFd<'_>) -> io::Result<bool> {
        let file = shm::create_nameless_in(dir)?;
        let open = || Lease::adopt(|| shm::open_again(file.as_fd()));
        let (holder, prober) = (open()?, open()?);
        let taken = holder.take(0)? && prober.is_held_by_another(0)? && !prober.take(0)?;
        drop(holder);
        Ok(taken && !prober.is_held_by_another(0)?)
    }

    /// A description of its own of a file that is open already. Needs `/proc`.
    pub fn open_again(fd: BorrowedFd<'_>) -> io::Result<Lease> {
        Lease::adopt(|| shm::open_again(fd))
    }

    /// Receives one message and the descriptors that came with it ([`unix::receive_descriptors`](crate::unix::receive_descriptors)), each of
    /// which may hold bytes already. `socket` has a message, or blocks forks until its timeout has passed.
    pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<Lease>)> {
        fork::try_install()?;
        let no_fork = fork::no_fork();
        let (len, fds) = crate::unix::receive_descriptors(socket, buffer)?;
        let leases = fds.into_iter().map(|fd| Lease::known(&no_fork, fd));
        let leases: io::Result<Vec<Lease>> = leases.collect();
        drop(no_fork); // before a lease is, which takes it
        Ok((len, leases?))
    }

    /// What `open` opens, known to forks from the start.
    pub(crate) fn adopt(open: impl Fn() -> io::Result<OwnedFd>) -> io::Result<Lease> {
        fork::try_install()?;
        let no_fork = fork::no_fork(); // no child gets the descriptor before the table has it
        Lease::known(&no_fork, open()?)
    }

    fn known(no_fork: &fork::NoFork, fd: OwnedFd) -> io::Result<Lease> {
        let slot = no_fork.add(fd.as_fd())?;
        Ok(Lease { fd: ManuallyDrop::new(fd), slot, generation: fork::generation() })
    }

    /// Whether it holds what it held: not in a forked child, and not where somebody else has closed its descriptor, whose number may be that of another file
    /// now. Each call looks, and fails with `EBADF` then; dropping it leaves the other file alone.
    pub fn is_intact(&self) -> bool {
        self.generation == fork::generation() && self.slot.is_its_own(self.fd.as_fd())
    }

    /// Whether the file has lost its last name: it was deleted. False also if that cannot be told: in a forked child, or because somebody has closed the
    /// descriptor. One fstat.
    pub fn is_unlinked(&self) -> bool {
        self.generation == fork::generation() && self.slot.is_unlinked(self.fd.as_fd())
    }

    /// The descriptor with all that it holds: for who passes it on. Closing it releases nothing while another descriptor of the
    /// description is open or under way, anywhere. `EBADF` in a forked child.
    pub fn into_fd(mut self) -> io::Result<OwnedFd> {
        if !self.is_intact() {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let no_fork = fork::no_fork();
        no_fork.remove(self.slot);
        // SAFETY: taken once, here: the lease is forgotten below, so that its drop does not run.
        let fd = unsafe { ManuallyDrop::take(&mut self.fd) };
        std::mem::forget(self);
        Ok(fd)
    }

    /// Takes the byte, without waiting; it need not exist in the file. `false`: another description
    /// holds it. One that this lease holds already is taken again with no effect. `InvalidInput`
    /// for a byte above `i64::MAX`. 1-2 us.
    pub fn take(&self, byte: u64) -> io::Result<bool> {
        self.try_lock(libc::F_WRLCK, byte)
    }

    /// Takes the byte together with others who share it: any number may, while nobody has
    /// [taken](Lease::take) it. To everybody who asks it is held until the last of them is gone.
    pub fn share(&self, byte: u64) -> io::Result<bool> {
        self.try_lock(libc::F_RDLCK, byte)
    }

    fn try_lock(&self, kind: i32, byte: u64) -> io::Result<bool> {
        match self.lock(libc::F_OFD_SETLK, kind, byte, 1) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Releases the byte; one that is not held is no error.
    pub fn release(&self, byte: u64) -> io::Result<()> {
        self.lock(libc::F_OFD_SETLK, libc::F_UNLCK, byte, 1).map(drop)
    }

    /// Whether another description holds the byte, be it of this process. **Blind to this lease**:
    /// for a byte that it holds itself the answer is `false`. Takes nothing, so it is in nobody's
    /// way. About 0.8 us.
    pub fn is_held_by_another(&self, byte: u64) -> io::Result<bool> {
        Ok(self.first_held_by_another(byte, 1)?.is_some())
    }

    /// The lowest of the `count` bytes from `first` on that another description holds, `None` where
    /// all are free. Blind to this lease as [`is_held_by_another`](Lease::is_held_by_another). One
    /// system call where all are free; otherwise one and up to one for each holder. Bytes that are
    /// taken or released meanwhile may be missed or seen.
    pub fn first_held_by_another(&self, first: u64, count: u64) -> io::Result<Option<u64>> {
        let mut end = first.checked_add(count).ok_or(io::ErrorKind::InvalidInput)?;
        let mut lowest = None;
        // The kernel tells of one lock in the way, in the order of their owners, not of their
        // bytes: look below it until nothing is left. The range gets shorter each time.
        while first < end {
            let found = self.lock(libc::F_OFD_GETLK, libc::F_WRLCK, first, end - first)?;
            if found.l_type == libc::F_UNLCK as libc::c_short {
                break;
            }
            end = (found.l_start as u64).clamp(first, end - 1);
            lowest = Some(end);
        }
        Ok(lowest)
    }

    /// A command of record locks, for a range; a `count` of 0 reaches to the end of any file. What the kernel leaves in the request is the answer to F_OFD_GETLK.
    pub(crate) fn lock(
        &self,
        command: i32,
        kind: i32,
        first: u64,
        count: u64,
    ) -> io::Result<libc::flock> {
        let (fd, mut lock) = self.request(kind, first, count)?;
        // SAFETY: the descriptor is open (`request` has asked), and `lock` is what these
        // commands read and, for F_OFD_GETLK, write.
        match unsafe { libc::fcntl(fd, command, &raw mut lock) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(lock),
        }
    }

    /// The number of the descriptor, open while this lives and no fork comes between, and what such a command reads.
    pub(crate) fn request(
        &self,
        kind: i32,
        first: u64,
        count: u64,
    ) -> io::Result<(RawFd, libc::flock)> {
        if !self.is_intact() {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let offset =
            |value: u64| libc::off_t::try_from(value).map_err(|_| io::ErrorKind::InvalidInput);
        let lock = libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: offset(first)?,
            l_len: offset(count)?,
            l_pid: 0, // F_OFD_* want it so
        };
        Ok((self.fd.as_raw_fd(), lock))
    }
}

/// Whether any description of the file that was opened by its name or through `/proc` can write it: it is open somewhere, or mapped, or under way to
/// somebody. The description that [`shm::memfd`] makes, and what is duplicated of it, do not count. `true` also if the kernel cannot tell.
///
/// Asked by a read lease ([F_SETLEASE](https://man7.org/linux/man-pages/man2/F_GETSIG.2const.html)), which the kernel gives only for a file that nobody
/// has open for writing, and which is given back at once. Whoever opens the file at this moment waits for that. Only the file's owner may ask.
pub fn is_open_for_writing(fd: BorrowedFd<'_>) -> io::Result<bool> {
    const F_SETSIG: i32 = 10; // libc has it for some systems only
    let reader = shm::open_again_as(fd, Access::ReadOnly)?;
    let number = reader.as_raw_fd();
    // SAFETY: an open descriptor and an integer. The signal that tells of an opening is one that is ignored by default, instead of SIGIO, which ends
    // the process.
    unsafe { libc::fcntl(number, F_SETSIG, libc::SIGURG) };
    // SAFETY: as above.
    let given = unsafe { libc::fcntl(number, libc::F_SETLEASE, libc::F_RDLCK) } == 0;
    // SAFETY: as above. Closing the description is not enough: a child that is being forked just now has it until its exec.
    unsafe { libc::fcntl(number, libc::F_SETLEASE, libc::F_UNLCK) };
    Ok(!given)
}

impl AsFd for Lease {
    /// To map or describe the file. In a forked child its number may be another file's.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.generation == fork::generation() {
            // Closing is not enough: a child that is being forked or spawned just now has the
            // description until its handler or its exec has run.
            _ = self.lock(libc::F_OFD_SETLK, libc::F_UNLCK, 0, 0); // a count of 0: all bytes
            let no_fork = fork::no_fork(); // no child gets it after the table has lost it
            let is_intact = self.is_intact();
            no_fork.remove(self.slot);
            if is_intact {
                // SAFETY: dropped once, here, and not closed before, as was just asked.
                unsafe { ManuallyDrop::drop(&mut self.fd) };
            }
        }
    }
}
