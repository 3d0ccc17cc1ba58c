//! A word in a file that says whether a thread lives, and wakes somebody when it does not: the kernel's robust list
//! ([set_robust_list(2)](https://man7.org/linux/man-pages/man2/set_robust_list.2.html)), with nothing of the list in shared memory.
//!
//! ```text
//! page of the file, shared  |  page of this process alone
//! ...            life word  |  prev  next ...
//!                    ^------ futex_offset ------^
//! ```
//!
//! The kernel finds the word of a list entry at a fixed distance from it, which libc has chosen (`futex_offset`: -32 in glibc, -28 in
//! musl). So the page is mapped with a private one behind it, and the word stands so near its end that the entry falls into the
//! private page, whole. Who writes the file can change the word; the pointers that libc and the kernel follow it cannot reach.
//!
//! ```text
//! begin:  entry linked; word = tid | WAITERS      in this order: a thread that dies between has said nothing
//! end:    word = 0; entry unlinked
//! death:  word = OWNER_DIED | WAITERS, one sleeper of the word woken      by the kernel, also at an exec
//! ```
//!
//! In musl, a thread that ends while its process lives marks its list itself, in the same way, before the kernel can: it takes each entry for a robust mutex, whose type stands
//! just before the word. There [`SHARED_OFFSET`] says that sleepers of other processes are to be woken. All that it follows is in the private page.
//!
//! The entry has the layout of libc's own (`next`, with `prev` just before it), because libc writes the `prev` of its neighbours. Entries of robust
//! pthread mutexes stand in the same list.
//!
//! **A hint, no proof**, as [`robust`]: the process may live and store. If somebody gives the kernel another list for this thread,
//! or it is longer than 2048 entries, the word is not marked.

#![allow(unsafe_code)] // two mappings side by side; a list that libc and the kernel share

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, compiler_fence};

use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::robust::{self, FUTEX_WAITERS, Head};
use crate::{fork, map};

/// Where the life word stands in its page of 4096 bytes: the same for every libc, and for kernels with pages of that size.
pub const WORD_OFFSET: usize = 4080;
/// Where a word of the same page says, for musl, that the life word belongs to several processes: there a robust mutex has its type.
pub const SHARED_OFFSET: usize = WORD_OFFSET - 4;
/// The most lives of one thread: the kernel walks 2048 entries, those of robust mutexes among them.
pub const LIVES_MAX: u32 = 1024;

const PAGE: usize = 4096;
/// From an entry's `next` to its `prev`, in both libcs.
const PREV: usize = size_of::<usize>();
/// Of a mutex of musl, in its type: it belongs to several processes.
const MUSL_SHARED: u32 = 128;

thread_local! {
    /// How many lives this thread has, and in which generation of forks: a forked child has none of its parent's.
    static LIVES: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
}

fn lives() -> u32 {
    let (lives, fork_generation) = LIVES.get();
    if fork_generation == fork::generation() { lives } else { 0 }
}

fn set_lives(lives: u32) {
    LIVES.set((lives, fork::generation()));
}

/// A life word that says that this thread lives, until it is dropped. Not `Send`: it is this thread's.
///
/// In a forked child it is dead: nothing is marked when the child ends, and dropping it there does nothing.
#[derive(Debug)]
pub struct Life {
    /// The two pages.
    area: NonNull<u8>,
    list: List,
    fork_generation: u32,
    this_thread: PhantomData<*mut ()>,
}

/// An entry, and the head of the list that it is in.
#[derive(Clone, Copy, Debug)]
struct List {
    head: NonNull<usize>,
    /// Address of its `next`, which is what the kernel calls the entry.
    entry: NonNull<usize>,
}

impl Life {
    /// Has the word at [`WORD_OFFSET`] of the page at `offset` of a file say that this thread lives. The page must exist, and nobody else may
    /// write its life word meanwhile.
    ///
    /// # Errors
    /// `QuotaExceeded` for more than [`LIVES_MAX`] in this thread; `Unsupported` where the thread has no robust list, or one of an unknown libc, or the
    /// kernel has larger pages: the word would not stand at the end of one. Otherwise what the kernel says. Some six system calls.
    pub fn begin(file: BorrowedFd<'_>, offset: u64) -> io::Result<Life> {
        if lives() >= LIVES_MAX {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        if map::page_size() != PAGE {
            return Err(io::ErrorKind::Unsupported.into());
        }
        fork::try_install()?;
        let (head, distance) = head()?;
        let area = Area::map(file, offset)?;
        // SAFETY: the distance was checked: the entry lies in the private page.
        let entry = unsafe { area.0.byte_offset(WORD_OFFSET as isize - distance) };
        let list = List { head: head.cast(), entry: entry.cast() };
        let tid = rustix::thread::gettid().as_raw_pid() as u32;
        list.link();
        let life = Life {
            area: area.keep(),
            list,
            fork_generation: fork::generation(),
            this_thread: PhantomData,
        };
        set_lives(lives() + 1);
        life.at(SHARED_OFFSET).store(MUSL_SHARED, Relaxed); // read by this thread alone, when it ends
        // The kernel looks on behalf of this very thread: the compiler's order is enough.
        compiler_fence(SeqCst); // [life]: linked before it says so
        life.word().store(tid | FUTEX_WAITERS, Release); // [life]
        Ok(life)
    }

    /// The word: this thread's id and [`FUTEX_WAITERS`], as long as nobody has written over it.
    pub fn word(&self) -> &AtomicU32 {
        self.at(WORD_OFFSET)
    }

    /// A word of the first page.
    fn at(&self, offset: usize) -> &AtomicU32 {
        debug_assert!(offset < PAGE && offset.is_multiple_of(4));
        // SAFETY: within the first page.
        let word = unsafe { self.area.byte_add(offset) };
        // SAFETY: aligned to 4; mapped as long as `self`; only used as an atomic.
        unsafe { word.cast::<AtomicU32>().as_ref() }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if self.fork_generation != fork::generation() {
            return;
        }
        self.word().store(0, Release); // [life]
        compiler_fence(SeqCst); // [life]: it says no more that this thread lives, then it is unlinked
        self.list.unlink();
        set_lives(lives().saturating_sub(1));
        drop(Area(self.area));
    }
}

/// Loads and stores of list pointers: with no more alignment than musl's distance leaves, which is one instruction on either processor.
impl List {
    fn link(self) {
        let first = load(self.head);
        store(before(self.entry), self.head.addr().get());
        store(self.entry, first);
        compiler_fence(SeqCst); // [life]: whole before it is in the list
        if let Some(first) = self.neighbour(first) {
            store(before(first), self.entry.addr().get());
        }
        store(self.head, self.entry.addr().get());
    }

    fn unlink(self) {
        let next = load(self.entry);
        let previous = load(before(self.entry));
        // The previous entry, or the head, whose first word is its `next`.
        if let Some(previous) = self.at(previous & !1) {
            store(previous, next);
        }
        compiler_fence(SeqCst); // [life]: nobody comes by it any more
        if let Some(next) = self.neighbour(next) {
            store(before(next), previous);
        }
    }

    /// The entry that a `next` names, without the mark of priority inheritance; `None` where that is the head.
    fn neighbour(self, next: usize) -> Option<NonNull<usize>> {
        self.at(next & !1).filter(|entry| *entry != self.head)
    }

    fn at(self, address: usize) -> Option<NonNull<usize>> {
        NonNull::new(std::ptr::with_exposed_provenance_mut(address))
    }
}

/// Where the `prev` of an entry is.
fn before(entry: NonNull<usize>) -> NonNull<usize> {
    // SAFETY: each entry of the list has its `prev` there; of our own it is in the private page (`head`).
    unsafe { entry.byte_sub(PREV) }
}

fn load(at: NonNull<usize>) -> usize {
    // SAFETY: a pointer field of the head, of our entry or of its neighbours in this thread's list, which only this thread uses.
    unsafe { at.read_unaligned() }
}

fn store(at: NonNull<usize>, address: usize) {
    // SAFETY: as in `load`.
    unsafe { at.write_unaligned(address) };
}

/// The head of this thread's list, and the distance from an entry to its word: one that puts our entry into the private page.
fn head() -> io::Result<(NonNull<Head>, isize)> {
    let fits = |distance: isize| {
        let entry = WORD_OFFSET as isize - distance;
        (entry - PREV as isize >= PAGE as isize)
            && (entry + PREV as isize <= 2 * PAGE as isize)
            && entry % 4 == 0
    };
    for attempt in [1, 2] {
        if let Some(head) = robust::registered()? {
            // SAFETY: the head is this thread's, registered with the kernel, and lives as long as the thread.
            let distance = unsafe { (*head.as_ptr()).futex_offset };
            if fits(distance) {
                head.as_ptr().expose_provenance();
                return Ok((head, distance));
            }
        }
        if attempt == 1 {
            have_libc_register()?;
        }
    }
    Err(io::ErrorKind::Unsupported.into())
}

/// Musl registers its list when a thread takes its first robust mutex that belongs to several processes, and would replace ours then.
fn have_libc_register() -> io::Result<()> {
    let checked = |error| match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    };
    let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
    let mut mutex = MaybeUninit::<libc::pthread_mutex_t>::uninit();
    // SAFETY: memory for what it makes.
    checked(unsafe { libc::pthread_mutexattr_init(attributes.as_mut_ptr()) })?;
    let robust = libc::PTHREAD_MUTEX_ROBUST;
    // SAFETY: made just now.
    checked(unsafe { libc::pthread_mutexattr_setrobust(attributes.as_mut_ptr(), robust) })?;
    let shared = libc::PTHREAD_PROCESS_SHARED;
    // SAFETY: made just now.
    checked(unsafe { libc::pthread_mutexattr_setpshared(attributes.as_mut_ptr(), shared) })?;
    // SAFETY: memory for what it makes, of attributes made just now. It does not move while it is used.
    checked(unsafe { libc::pthread_mutex_init(mutex.as_mut_ptr(), attributes.as_ptr()) })?;
    // SAFETY: made just now, and free.
    checked(unsafe { libc::pthread_mutex_lock(mutex.as_mut_ptr()) })?;
    // SAFETY: this thread has it.
    checked(unsafe { libc::pthread_mutex_unlock(mutex.as_mut_ptr()) })?;
    // SAFETY: nobody has it, and nobody uses it again.
    checked(unsafe { libc::pthread_mutex_destroy(mutex.as_mut_ptr()) })
}

/// The two pages. Dropped, unmapped.
struct Area(NonNull<u8>);

impl Area {
    fn map(file: BorrowedFd<'_>, offset: u64) -> io::Result<Area> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let no_fork = fork::no_fork(); // between mmap and DontFork
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let area = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), 2 * PAGE, access, MapFlags::PRIVATE)
        }?;
        let area = Area(NonNull::new(area.cast()).ok_or(io::ErrorKind::Other)?);
        let (first, over) = (area.0.as_ptr().cast(), MapFlags::SHARED | MapFlags::FIXED);
        // SAFETY: over the first page of the mapping made just now, which nobody uses.
        unsafe { rustix::mm::mmap(first, PAGE, access, over, file, offset) }?;
        for advice in [Advice::LinuxDontFork, Advice::LinuxDontDump] {
            // SAFETY: our own page; a forked child does not use it, and it is left out of core dumps.
            unsafe { rustix::mm::madvise(first, PAGE, advice) }?;
        }
        drop(no_fork);
        area.0.as_ptr().expose_provenance();
        Ok(area)
    }

    fn keep(self) -> NonNull<u8> {
        let area = self.0;
        std::mem::forget(self);
        area
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: both pages are ours, and what stood there is in no list any more.
        _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), 2 * PAGE) };
    }
}
