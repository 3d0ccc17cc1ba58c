//! Which process is meant, whose child it is, and what signals tell it.
#![allow(unsafe_code)] // unshare, and signals that are sent to oneself

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::SeqCst;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, pidfd_send_signal,
    set_child_subreaper, waitpid,
};
use shmbus_sys::signal::Signals;
use shmbus_sys::spawn;

use crate::Plan;
use crate::processes::{Part, ROLE, Role, Stage};

pub(crate) const ROLES: &[Part] = &[
    ("namespace", namespace),
    ("first", first),
    ("subreaper", subreaper),
    ("signalled", signalled),
];

const DONE: usize = 10;
const REFUSED: usize = 11;

/// Begins a pid namespace, in which the role `first` is process 1.
fn namespace(role: &Role) {
    // SAFETY: it takes a number, and changes what children of this process are.
    if unsafe { libc::unshare(libc::CLONE_NEWPID) } != 0 {
        return role.board.word(REFUSED).store(1, SeqCst);
    }
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    assert_eq!(arguments[0], ROLE);
    arguments[1] = "first".into();
    let status = Command::new(std::env::current_exe().unwrap()).args(arguments).status();
    assert!(status.unwrap().success());
}

/// Has a number used again: here nobody else takes numbers.
fn first(role: &Role) {
    let sleeper = || Command::new("sleep").arg("1000").spawn().unwrap();
    let mut one = sleeper();
    let pid = Pid::from_child(&one);
    let descriptor = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    one.kill().unwrap();
    pidfd_send_signal(&descriptor, Signal::TERM)
        .expect("ended, and not reaped: its number is its own");
    one.wait().unwrap();
    assert_eq!(kill_process(pid, Signal::TERM), Err(Errno::SRCH), "nobody's");
    let last = (pid.as_raw_pid() - 1).to_string();
    if fs::write("/proc/sys/kernel/ns_last_pid", last).is_err() {
        return role.board.word(REFUSED).store(1, SeqCst);
    }
    let mut other = sleeper();
    assert_eq!(Pid::from_child(&other), pid, "another process has the number now");
    assert_eq!(pidfd_send_signal(&descriptor, Signal::KILL), Err(Errno::SRCH));
    assert_eq!(other.try_wait().unwrap(), None);
    kill_process(pid, Signal::KILL).expect("meant for the first one");
    assert!(!other.wait().unwrap().success());
    role.board.word(DONE).store(1, SeqCst);
}

pub(crate) fn a_number_may_be_another_process_by_now_and_a_descriptor_never_is(_: &Plan) {
    let stage = Stage::new();
    stage.spawn("namespace", &[]).done();
    let word = |word: usize| stage.board.word(word).load(SeqCst);
    if word(REFUSED) != 0 {
        return println!("  skipped: no pid namespace, or no right to choose a number in it");
    }
    assert_eq!(word(DONE), 1);
}

/// The parent of `pid`.
fn parent_of(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

/// The number that a child prints first.
fn read_number(child: &mut Child) -> u32 {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line.trim().parse().unwrap()
}

fn subreaper(role: &Role) {
    set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    // A process between, which ends: its child is an orphan.
    let mut between = Command::new("sh")
        .args(["-c", "sleep 1000 & echo $!"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let orphan = read_number(&mut between);
    between.wait().unwrap();
    assert_eq!(parent_of(orphan), std::process::id());
    let pid = Pid::from_raw(orphan as i32).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    let (reaped, status) = waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
    assert_eq!((reaped, status.terminating_signal()), (pid, Some(libc::SIGKILL)));
    role.board.word(DONE).store(1, SeqCst);
}

pub(crate) fn an_orphan_goes_to_the_nearest_subreaper(_: &Plan) {
    let stage = Stage::new();
    stage.spawn("subreaper", &[]).done();
    assert_eq!(stage.board.word(DONE).load(SeqCst), 1);
}

pub(crate) fn the_death_signal_comes_with_the_end_of_the_thread_that_spawned(_: &Plan) {
    let sleeper = || {
        let mut command = Command::new("sleep");
        command.arg("1000");
        spawn::die_with_parent(&mut command, Signal::KILL);
        command.spawn().unwrap()
    };
    let mut here = sleeper();
    let mut there = std::thread::spawn(sleeper).join().unwrap();
    // The process lives, and the child is dead.
    assert_eq!(there.wait().unwrap().signal(), Some(libc::SIGKILL));
    assert_eq!(here.try_wait().unwrap(), None);
    here.kill().unwrap();
    here.wait().unwrap();
    // What the child starts does not have the signal.
    let spawning = std::thread::spawn(|| {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & echo $!; wait"]).stdout(Stdio::piped());
        spawn::die_with_parent(&mut command, Signal::KILL);
        let mut shell = command.spawn().unwrap();
        (read_number(&mut shell), shell)
    });
    let (grandchild, mut shell) = spawning.join().unwrap();
    assert_eq!(shell.wait().unwrap().signal(), Some(libc::SIGKILL));
    let grandchild = Pid::from_raw(grandchild as i32).unwrap();
    kill_process(grandchild, Signal::KILL).expect("it has outlived its parent");
}

pub(crate) fn a_change_of_user_takes_the_death_signal_back(_: &Plan) {
    if !rustix::process::geteuid().is_root() {
        return println!("  skipped: this user may not be another one");
    }
    let spawning = std::thread::spawn(|| {
        [&["--reuid", "65534", "--clear-groups"][..], &["--clear-groups"]].map(|change| {
            let mut command = Command::new("setpriv");
            command.args(change).args(["sh", "-c", "echo $$; exec sleep 1000"]);
            command.stdout(Stdio::piped());
            spawn::die_with_parent(&mut command, Signal::KILL);
            let mut child = command.spawn().unwrap();
            read_number(&mut child); // it has changed what it changes
            child
        })
    });
    let [mut other, mut same] = spawning.join().unwrap();
    assert_eq!(same.wait().unwrap().signal(), Some(libc::SIGKILL));
    assert_eq!(other.try_wait().unwrap(), None, "the first one was spared");
    other.kill().unwrap();
    other.wait().unwrap();
}

fn signalled(role: &Role) {
    let min = libc::SIGRTMIN();
    // SAFETY: a real-time signal of this process's own C library.
    let real_time = unsafe { Signal::from_raw_unchecked(min) };
    let signals = Signals::take(&[Signal::USR1, real_time]).unwrap();
    let pid = std::process::id() as i32;
    for signal in [libc::SIGUSR1, min] {
        for _ in 0..100 {
            // SAFETY: numbers only.
            assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
        }
    }
    let mut counts = [0_u64; 2];
    while let Some(signal) = signals.next().unwrap() {
        counts[usize::from(signal == min)] += 1;
    }
    role.board.word(DONE).store(counts[0], SeqCst);
    role.board.word(DONE + 1).store(counts[1], SeqCst);
}

pub(crate) fn standard_signals_merge_and_real_time_ones_queue(_: &Plan) {
    let stage = Stage::new();
    stage.spawn("signalled", &[]).done();
    let count = |word: usize| stage.board.word(word).load(SeqCst);
    assert_eq!((count(DONE), count(DONE + 1)), (1, 100));
}
