//! Thread ids are those of a pid namespace: the first process of each has 1.
#![allow(unsafe_code)] // unshare

use std::process::Command;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use shmbus_sys::clock::monotonic_ns;
use shmbus_sys::robust::{self, FUTEX_WAITERS, OWNER_DIED, TID_MASK};

use crate::Plan;
use crate::processes::{Part, Process, ROLE, Role, Stage, beat};
use crate::torture::{Me, lease_file, lock};

pub(crate) const ROLES: &[Part] = &[("apart", apart), ("first", first)];

const HOLDER: u64 = 0;
const WAITER: u64 = 1;
const NAMESAKE: u64 = 2;
const OBSERVER: u64 = 3;

/// Words of the board, for each part: its process as the test names it, and that it has come to where it stays.
const PID: usize = 100;
const READY: usize = 110;
const REFUSED: usize = 120;

/// Begins a pid namespace with a process of the role `first` in it, and ends with that.
fn apart(role: &Role) {
    let [part] = role.numbers();
    // SAFETY: it takes a number, and changes what children of this process are.
    if unsafe { libc::unshare(libc::CLONE_NEWPID) } != 0 {
        return role.board.word(REFUSED).store(1, SeqCst);
    }
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    assert_eq!(arguments[0], ROLE);
    arguments[1] = "first".into();
    let child = Command::new(std::env::current_exe().unwrap()).args(arguments).spawn();
    let mut child = child.unwrap();
    role.board.word(PID + part as usize).store(u64::from(child.id()), SeqCst);
    let _ = child.wait();
}

/// The first process of a pid namespace, until it is killed.
fn first(role: &Role) {
    let [part] = role.numbers();
    assert_eq!(rustix::thread::gettid().as_raw_pid(), 1, "a pid namespace of its own");
    let (board, ready) = (&role.board, role.board.word(READY + part as usize));
    let stay = || -> ! {
        ready.store(1, SeqCst);
        loop {
            std::thread::park();
        }
    };
    let far = monotonic_ns() + 3_600_000_000_000;
    match part {
        HOLDER => {
            let me = Me::join(&role.directory, board, part);
            let _ = me.lock_until(board, far, |_| stay());
        }
        WAITER => {
            let me = Me::join(&role.directory, board, part);
            ready.store(1, SeqCst);
            let _ = me.lock_until(board, far, |_| ready.store(2, SeqCst));
        }
        _ => {
            let _ = robust::pending(lock(board).word(), |_| stay());
        }
    }
}

/// A part in a namespace of its own. `None` where there can be none.
fn spawn(stage: &Stage, part: u64) -> Option<Process> {
    let process = stage.spawn("apart", &[part]);
    let word = |word: usize| stage.board.word(word).load(SeqCst);
    let part = part as usize;
    stage.until("it is there", || word(READY + part) * word(PID + part) + word(REFUSED) != 0);
    if word(REFUSED) != 0 {
        process.done();
        return None;
    }
    Some(process)
}

fn kill(stage: &Stage, part: u64, process: Process) {
    let pid = stage.board.word(PID + part as usize).load(SeqCst) as i32;
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    process.done();
}

pub(crate) fn a_waiter_killed_in_another_namespace_with_the_holders_thread_id_lets_nobody_in(
    _: &Plan,
) {
    let stage = Stage::new();
    drop(lease_file(&stage.directory));
    let Some(holder) = spawn(&stage, HOLDER) else {
        return println!("  skipped: no pid namespace may be made here (needs root)");
    };
    let word = || lock(&stage.board).word().load(SeqCst);
    assert_eq!(word(), 1, "the holder's thread id");

    let waiter = spawn(&stage, WAITER).unwrap();
    let pid = stage.board.word(PID + WAITER as usize).load(SeqCst);
    stage.until("the waiter sleeps", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        word() & FUTEX_WAITERS != 0 && stat.rsplit_once(") ").unwrap().1.starts_with('S')
    });
    kill(&stage, WAITER, waiter);
    assert_eq!(word(), 1 | FUTEX_WAITERS, "one that only sleeps is nobody to the kernel");

    // At its worst: killed while it tries. The kernel takes it for the holder.
    let namesake = spawn(&stage, NAMESAKE).unwrap();
    kill(&stage, NAMESAKE, namesake);
    assert_eq!((word() & TID_MASK, word() & OWNER_DIED), (0, OWNER_DIED));
    let me = Me::join(&stage.directory, &stage.board, OBSERVER);
    for _ in 0..20 {
        let patience = Duration::from_millis(5).as_nanos() as u64;
        let entered = me.lock_until(&stage.board, monotonic_ns() + patience, |_| ());
        assert_eq!(entered, Err(Some(HOLDER as u32)), "the holder lives");
        beat();
    }

    kill(&stage, HOLDER, holder);
    let far = monotonic_ns() + 60_000_000_000;
    assert_eq!(me.lock_until(&stage.board, far, |told| told), Ok(true));
    assert_eq!(me.lock_until(&stage.board, far, |told| told), Ok(false));
}
