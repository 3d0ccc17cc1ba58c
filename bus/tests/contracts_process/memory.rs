//! Whose memory is whose.
#![allow(unsafe_code)] // fork, process_vm_writev

use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

use crate::Plan;
use crate::processes::{Part, Role, Stage};

pub(crate) const ROLES: &[Part] = &[("shows its address", shows)];

const ADDRESS: usize = 10;
const SEEN: usize = 11;
const GO: usize = 12;

static PRIVATE: AtomicU64 = AtomicU64::new(1);

/// Says where its own memory is, and then what is in it.
fn shows(role: &Role) {
    role.board.word(ADDRESS).store((&raw const PRIVATE) as u64, SeqCst);
    loop {
        role.board.word(SEEN).store(PRIVATE.load(SeqCst), SeqCst);
        if role.board.word(GO).load(SeqCst) != 0 {
            return;
        }
        std::thread::yield_now();
    }
}

pub(crate) fn memory_is_its_own_unless_it_is_shared_or_written_from_outside(_: &Plan) {
    let stage = Stage::new();
    let shared = stage.board.word(100);
    PRIVATE.store(1, SeqCst);
    // SAFETY: the child stores twice and ends, without anything that another thread may have locked.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        PRIVATE.store(2, SeqCst); // the same address
        shared.store(PRIVATE.load(SeqCst), SeqCst);
        // SAFETY: it does not return.
        unsafe { libc::_exit(0) };
    }
    assert!(pid > 0);
    // SAFETY: its own child, whose status is not asked for.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    assert_eq!((PRIVATE.load(SeqCst), shared.load(SeqCst)), (1, 2));

    // From outside, without the other one's consent: the same user may.
    let process = stage.spawn("shows its address", &[]);
    let word = |word: usize| stage.board.word(word).load(SeqCst);
    stage.until("it shows its memory", || word(ADDRESS) != 0 && word(SEEN) == 1);
    let (address, value) = (word(ADDRESS), 3_u64);
    let local = libc::iovec { iov_base: (&raw const value).cast_mut().cast(), iov_len: 8 };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: 8 };
    let pid = process.pid().as_raw_pid();
    // SAFETY: one element each; the local one is only read, the remote one is the other process's.
    let written =
        unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) };
    if written == 8 {
        stage.until("it sees the 3", || word(SEEN) == 3);
    } else {
        println!("  process_vm_writev: not permitted here");
    }
    let memory = std::fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/mem"));
    match memory.and_then(|memory| memory.write_all_at(&4_u64.to_ne_bytes(), address)) {
        Ok(()) => stage.until("it sees the 4", || word(SEEN) == 4),
        Err(error) => println!("  /proc/{pid}/mem: {error}"),
    }
    assert_eq!(PRIVATE.load(SeqCst), 1);
    stage.board.word(GO).store(1, SeqCst);
    process.done();
}
