//! The kernel's help for the lock of a thread that dies: `list_op_pending` of its robust list
//! ([set_robust_list(2)](https://man7.org/linux/man-pages/man2/set_robust_list.2.html)).
//!
//! ```text
//! pending = word                 from here on the kernel knows which word this thread may hold
//! word: 0 -> tid                 the caller's; likewise giving it back
//! pending = none
//! ```
//!
//! When a thread ends, or execs, with `word & TID_MASK` equal to its id, the kernel makes the word `OWNER_DIED` (and leaves
//! [`FUTEX_WAITERS`] as it is) and wakes one sleeper, if there are any. A word of 0 has one sleeper woken: its owner may have died
//! between giving it back and the wake.
//!
//! **A hint, no proof.** The id is the thread's in its own pid namespace: of two threads with the same id in two namespaces, the end
//! of one while it has the word pending is taken for the end of the other, which holds it. And the word says that a *thread* has ended: its process may
//! live, and store.
//!
//! Only the pending field is used here ([`life`](crate::life) has entries in the list): no list, so nothing in shared memory is followed by anybody, and libc's own list stays as it is.

#![allow(unsafe_code)] // get_robust_list and set_robust_list, and a field of the head, which is libc's

use std::cell::Cell;
use std::ffi::c_void;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicPtr, AtomicU32, compiler_fence};

use crate::fork;

/// Somebody may sleep on the word: the kernel wakes one when the owner dies.
pub const FUTEX_WAITERS: u32 = libc::FUTEX_WAITERS;
/// The thread whose id stood in the word has ended.
pub const OWNER_DIED: u32 = libc::FUTEX_OWNER_DIED;
/// The owner's thread id, in its own pid namespace; 0 where nobody has the word.
pub const TID_MASK: u32 = libc::FUTEX_TID_MASK;

/// `struct robust_list_head` of `linux/futex.h`.
#[repr(C)]
pub(crate) struct Head {
    list: *mut c_void,
    /// From an entry of the list to its futex word.
    pub(crate) futex_offset: isize,
    list_op_pending: *mut c_void,
}

/// What a thread knows of itself.
#[derive(Clone, Copy)]
struct Own {
    tid: u32,
    head: NonNull<Head>,
    /// Registered by this file, because libc had registered none: libc may do so later.
    is_ours: bool,
    fork_generation: u32,
}

thread_local! {
    static OWN: Cell<Option<Own>> = const { Cell::new(None) };
}

/// Runs `work` with `word` pending, and gives it this thread's id, which is what the word of an owner must hold.
///
/// `work` takes the word, does what it is for and gives it back. It must not sleep in a futex call for the word: a sleeper that is
/// killed is taken for an owner of the same id in another namespace. If `work` unwinds, the word stays as it left it.
///
/// # Errors
/// `ResourceBusy` where a word is pending in this thread already (a robust pthread mutex is being taken or given back, or `work`
/// calls this); what the kernel says to `get_robust_list` or `set_robust_list`, once per thread. `work` has not run then.
///
/// Cost: a few stores. The first time in a thread, two or three system calls (0.5 us each).
pub fn pending<R>(word: &AtomicU32, work: impl FnOnce(u32) -> R) -> io::Result<R> {
    let own = own()?;
    let head = own.head.as_ptr();
    // SAFETY: the head is this thread's, registered with the kernel, and lives as long as the thread.
    let offset = unsafe { (*head).futex_offset };
    // SAFETY: as above; only the place is computed.
    let field = unsafe { &raw mut (*head).list_op_pending };
    // SAFETY: aligned, alive as long as the thread; only this thread and, when it has ended, the kernel use it.
    let field = unsafe { AtomicPtr::from_ptr(field) };
    if !field.load(Relaxed).is_null() {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    let _clear = Clear(field);
    field.store(word.as_ptr().cast::<c_void>().wrapping_byte_offset(-offset), Relaxed);
    // The kernel looks on behalf of this very thread: the compiler's order is enough.
    compiler_fence(SeqCst); // [lock]: pending before the word is taken
    let result = work(own.tid);
    compiler_fence(SeqCst); // [lock]: and until it is given back
    Ok(result)
}

/// Nothing is pending any more, however `work` ended: the word is not looked at after `pending`, whose borrow of it ends.
struct Clear<'a>(&'a AtomicPtr<c_void>);

impl Drop for Clear<'_> {
    fn drop(&mut self) {
        compiler_fence(SeqCst); // [lock]: also where `work` unwinds
        self.0.store(ptr::null_mut(), Relaxed);
    }
}

fn own() -> io::Result<Own> {
    if let Some(own) = OWN.get()
        && own.fork_generation == fork::generation()
        && !own.is_ours
    {
        return Ok(own);
    }
    fork::try_install()?;
    let fork_generation = fork::generation();
    let tid = rustix::thread::gettid().as_raw_pid() as u32;
    let (head, is_ours) = match registered()? {
        // A list that was registered here is asked for again each time, for libc's may have replaced it.
        Some(head) => (head, OWN.get().is_some_and(|own| own.is_ours && own.head == head)),
        None => (register()?, true),
    };
    let own = Own { tid, head, is_ours, fork_generation };
    OWN.set(Some(own));
    Ok(own)
}

/// The head that is registered for this thread.
pub(crate) fn registered() -> io::Result<Option<NonNull<Head>>> {
    let mut head: *mut Head = ptr::null_mut();
    let mut len = 0usize;
    // SAFETY: both are valid for writes; thread 0 is the caller.
    let result =
        unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut len) };
    match result {
        0 => Ok(NonNull::new(head)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Registers an empty list, where libc has none. Its 24 bytes are never freed: the kernel reads them when the thread has ended.
fn register() -> io::Result<NonNull<Head>> {
    let empty = Head { list: ptr::null_mut(), futex_offset: 0, list_op_pending: ptr::null_mut() };
    let head = NonNull::from(Box::leak(Box::new(empty)));
    // SAFETY: just made; nobody else knows it. The empty list is the head alone, which points at itself.
    unsafe { (*head.as_ptr()).list = head.as_ptr().cast() };
    // SAFETY: a head of the size that is given, which is never freed.
    let result =
        unsafe { libc::syscall(libc::SYS_set_robust_list, head.as_ptr(), size_of::<Head>()) };
    match result {
        0 => Ok(head),
        _ => Err(io::Error::last_os_error()),
    }
}
