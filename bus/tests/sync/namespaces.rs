//! Thread ids are those of a pid namespace: the first process of each has 1.
#![allow(unsafe_code)] // unshare

use std::process::Command;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use shmbus::sync::{LockError, WaitError};

use crate::Plan;
use crate::processes::{Part, Process, ROLE, Role, Stage};
use crate::torture::{create, locked, open};

pub(crate) const ROLES: &[Part] = &[("apart", apart), ("first", first)];

const NAME: &str = "apart/mutex";
const OWNER: u64 = 0;

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
    let ready = role.board.word(READY + part as usize);
    let mutex = open(&role.directory, NAME);
    if part != OWNER {
        ready.store(1, SeqCst);
    }
    let _guard = locked(mutex.lock()).unwrap();
    ready.store(2 - u64::from(part == OWNER), SeqCst);
    loop {
        std::thread::park();
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

fn is_asleep(stage: &Stage, part: u64) -> bool {
    let pid = stage.board.word(PID + part as usize).load(SeqCst);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.starts_with('S')
}

pub(crate) fn a_waiter_killed_in_another_namespace_with_the_owners_thread_id_lets_nobody_in(
    _: &Plan,
) {
    let stage = Stage::new();
    let mutex = create(&stage.directory, NAME);
    let Some(owner) = spawn(&stage, OWNER) else {
        return println!("  skipped: no pid namespace may be made here (needs root)");
    };
    let [killed, waiter] = [1, 2].map(|part| spawn(&stage, part).unwrap());
    stage.until("they sleep", || is_asleep(&stage, 1) && is_asleep(&stage, 2));
    kill(&stage, 1, killed);
    let timed_out = mutex.lock_timeout(Duration::from_millis(50));
    assert!(matches!(timed_out, Err(LockError::Failed(WaitError::TimedOut))), "the owner lives");
    assert_eq!(stage.board.word(READY + 2).load(SeqCst), 1, "and the other one waits");
    kill(&stage, OWNER, owner);
    stage.until("the other one has it", || stage.board.word(READY + 2).load(SeqCst) == 2);
    kill(&stage, 2, waiter);
    let (mut guard, told) = locked(mutex.lock()).unwrap();
    assert!(told);
    guard.mark_consistent();
}
