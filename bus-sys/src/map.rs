//! The only place that maps memory: all of a file, shared, not inherited by a forked child, not in
//! a core dump. What is mapped is bytes that other processes change at any time: there are pointers
//! to it, never slices.

#![allow(unsafe_code)] // Send and Sync, and a drop that a forked child leaves out

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::mm::{self, MapFlags, ProtFlags};

use crate::fork;

/// Bytes of a page: what addresses and offsets of a mapping are multiples of. 4096 on x86-64; on aarch64 also 16 or 64 KiB, as the kernel was
/// built.
pub fn page_size() -> usize {
    #[cfg(feature = "internals")]
    if let bytes @ 1.. = PRETENDED.load(std::sync::atomic::Ordering::Relaxed) {
        return bytes;
    }
    rustix::param::page_size()
}

#[cfg(feature = "internals")]
static PRETENDED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// Has [`page_size`] of this process say another size, so that a test sees what is refused then.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub fn pretend_page_size(bytes: usize) {
    PRETENDED.store(bytes, std::sync::atomic::Ordering::Relaxed);
}

/// A shared mapping of the first bytes of a file; unmapped on drop.
///
/// In a forked child (see [`fork`]) it is not there: touching it is a `SIGSEGV`, and dropping it
/// does nothing, for something else may lie at its address by then.
#[derive(Debug)]
pub struct Mapping {
    map: ManuallyDrop<MmapRaw>,
    /// Not null, page-aligned, good for `map.len()` bytes while `generation` is the current one.
    base: NonNull<u8>,
    is_writable: bool,
    generation: u32,
}

// SAFETY: `base` is an address of the whole process, and what lies there is shared with other
// processes anyway; who reads or writes through it has to order that themselves. `MmapRaw` is Send.
unsafe impl Send for Mapping {}
// SAFETY: the same; no method changes the mapping through `&self`.
unsafe impl Sync for Mapping {}

/// The mapping is there, and a forked child would inherit it: the kernel, or a filter of system calls, has refused `MADV_DONTFORK`.
fn not_advised(error: io::Error) -> io::Error {
    io::Error::other(format!("madvise(MADV_DONTFORK) was refused: {error}"))
}

impl Mapping {
    /// Maps the first `len` bytes for reading and writing. `EACCES` for a descriptor that is not
    /// open for both; `InvalidInput` for 0. **The file must have that length**, which is not looked
    /// at here: ask [`shm::len`](crate::shm::len) first, and keep others from cutting the file
    /// (mode or seal). A page behind the end maps without an error and is a `SIGBUS` when touched.
    /// See [mmap(2)](https://man7.org/linux/man-pages/man2/mmap.2.html).
    pub fn read_write(fd: BorrowedFd<'_>, len: usize) -> io::Result<Mapping> {
        Mapping::new(fd, len, true)
    }

    /// The same for reading only: a store through it is a `SIGSEGV`.
    pub fn read_only(fd: BorrowedFd<'_>, len: usize) -> io::Result<Mapping> {
        Mapping::new(fd, len, false)
    }

    fn new(fd: BorrowedFd<'_>, len: usize, is_writable: bool) -> io::Result<Mapping> {
        if len == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        fork::try_install()?;
        let no_fork = fork::no_fork(); // between mmap and DontFork
        let mut options = MmapOptions::new();
        options.len(len);
        let map = match is_writable {
            true => options.map_raw(fd.as_raw_fd())?,
            false => options.map_raw_read_only(fd.as_raw_fd())?,
        };
        map.advise(Advice::DontFork).map_err(not_advised)?;
        _ = map.advise(Advice::DontDump); // without: a larger dump, and leases held until it is written
        drop(no_fork);
        let base = NonNull::new(map.as_mut_ptr()).ok_or(io::ErrorKind::Other)?;
        Ok(Mapping {
            map: ManuallyDrop::new(map),
            base,
            is_writable,
            generation: fork::generation(),
        })
    }

    /// The address of the first byte.
    #[inline]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Its length in bytes, as asked; never 0.
    #[inline]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether it may be written to.
    #[inline]
    pub fn is_writable(&self) -> bool {
        self.is_writable
    }

    /// Enters every page into the page table now, for writing where it is writable, so that no
    /// first touch faults later. `EINVAL` before Linux 5.14; `EFAULT` for pages behind the end of
    /// the file, and in a forked child. About 0.7 us per page that exists. See
    /// [madvise(2)](https://man7.org/linux/man-pages/man2/madvise.2.html), MADV_POPULATE_WRITE.
    pub fn prefault(&self) -> io::Result<()> {
        if self.generation != fork::generation() {
            return Err(io::Error::from_raw_os_error(libc::EFAULT));
        }
        self.map.advise(if self.is_writable { Advice::PopulateWrite } else { Advice::PopulateRead })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.generation == fork::generation() {
            // SAFETY: dropped once, here.
            unsafe { ManuallyDrop::drop(&mut self.map) };
        }
    }
}

/// One of the files of [`Pieces`]: its first `len` bytes, from `at` on.
pub struct Piece<'a> {
    /// A file of at least `len` bytes, as [`Mapping::read_write`] says.
    pub fd: BorrowedFd<'a>,
    /// Where it begins in the range, in bytes; a whole number of pages.
    pub at: usize,
    /// Its length in bytes; a whole number of pages.
    pub len: usize,
    /// Whether it is mapped for writing.
    pub is_writable: bool,
}

/// Several files in one range of addresses, each at a place of its own. What no file covers cannot be touched: a `SIGSEGV`.
#[derive(Debug)]
pub struct Pieces {
    /// Page-aligned, good for `len` bytes while `generation` is the current one.
    base: NonNull<u8>,
    len: usize,
    generation: u32,
}

// SAFETY: as for `Mapping`.
unsafe impl Send for Pieces {}
// SAFETY: as for `Mapping`.
unsafe impl Sync for Pieces {}

impl Pieces {
    /// Reserves `len` bytes of addresses and maps `pieces` into them. `InvalidInput` for 0, and for a piece that is empty, not inside, or not of
    /// whole pages; else as [`Mapping::read_write`]. Of two at the same place the later one is there.
    pub fn new(len: usize, pieces: &[Piece<'_>]) -> io::Result<Pieces> {
        let page = page_size();
        let fits = |piece: &Piece<'_>| {
            let inside = piece.at.checked_add(piece.len).is_some_and(|end| end <= len);
            inside
                && piece.len != 0
                && piece.at.is_multiple_of(page)
                && piece.len.is_multiple_of(page)
        };
        if len == 0 || !len.is_multiple_of(page) || !pieces.iter().all(fits) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        fork::try_install()?;
        let no_fork = fork::no_fork(); // until the range is not inherited
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new range, at an address that the kernel chooses.
        let base =
            unsafe { mm::mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::empty(), flags) }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::Other)?;
        let range = Pieces { base, len, generation: fork::generation() };
        for piece in pieces {
            let protection = match piece.is_writable {
                true => ProtFlags::READ | ProtFlags::WRITE,
                false => ProtFlags::READ,
            };
            // SAFETY: inside the range, as was checked above.
            let at = unsafe { range.base.add(piece.at) };
            let flags = MapFlags::SHARED | MapFlags::FIXED;
            // SAFETY: replaces pages of the range that was reserved just now and that nobody else knows of.
            unsafe { mm::mmap(at.as_ptr().cast(), piece.len, protection, flags, piece.fd, 0) }?;
        }
        let advise = |advice| {
            // SAFETY: the range is this value's; neither advice changes what is in it.
            unsafe { mm::madvise(range.base.as_ptr().cast(), len, advice) }
        };
        advise(mm::Advice::LinuxDontFork).map_err(|error| not_advised(error.into()))?;
        _ = advise(mm::Advice::LinuxDontDump); // as in `Mapping`
        drop(no_fork);
        Ok(range)
    }

    /// The address of the first byte.
    #[inline]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The length of the range in bytes; never 0.
    #[inline]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if self.generation == fork::generation() {
            // SAFETY: the range is this value's, and unmapped once, here; in a forked child something else may lie there.
            let unmapped = unsafe { mm::munmap(self.base.as_ptr().cast(), self.len) };
            debug_assert!(unmapped.is_ok());
        }
    }
}
