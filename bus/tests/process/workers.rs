//! What children of a supervisor do here. Not roles: those arrange for their death themselves.
#![allow(unsafe_code)] // ignores a signal

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use shmbus::process::StopRequest;
use shmbus::{Delivery, Topic};

use crate::board::Board;

/// Argument that makes this program a worker.
pub(crate) const WORKER: &str = "--worker";

/// Words of the board, for each worker: its process, how often it came to where it stays, and a process that it has started.
pub(crate) const PID: usize = 1000;
pub(crate) const READY: usize = 2000;
pub(crate) const GRANDCHILD: usize = 3000;
pub(crate) const ESCAPED: usize = 4000;
/// How often it has ended in order.
pub(crate) const CLEAN: usize = 5000;

/// The topic of those that join one.
pub(crate) const TOPIC: &str = "process/t";

/// A worker of some kind, number `n`.
pub(crate) fn command(root: &Path, kind: &str, n: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([WORKER, kind]).arg(root).arg(n.to_string());
    command
}

/// A file of worker `n`.
pub(crate) fn file(root: &Path, n: usize) -> PathBuf {
    root.join(format!("worker-{n}"))
}

/// The first line of how something is shown.
fn line(shown: &impl std::fmt::Debug) -> String {
    format!("{shown:?}").lines().next().unwrap().to_owned() + "\n"
}

/// Stays until it is killed, or the test is over that should have killed it.
fn stay(root: &Path) -> ! {
    while root.exists() {
        std::thread::park_timeout(Duration::from_secs(1));
    }
    std::process::exit(1)
}

pub(crate) fn play(arguments: &[String]) -> ! {
    let [kind, root, n] = arguments else { panic!("a worker needs a kind, a path and a number") };
    let (root, n): (&Path, usize) = (Path::new(root), n.parse().unwrap());
    let board = Board::open(&root.join("board"));
    let ready = || {
        board.word(PID + n).store(u64::from(std::process::id()), SeqCst);
        board.word(READY + n).fetch_add(1, SeqCst);
    };
    let die_of = |signal| kill_process(getpid(), signal).unwrap();
    match kind.as_str() {
        "idle" => ready(),
        "three" => std::process::exit(3),
        "zero" => std::process::exit(0),
        "killed" => {
            ready();
            die_of(Signal::KILL);
        }
        "polite" => {
            let stop = StopRequest::from_env().unwrap();
            assert!(!stop.is_requested() && !stop.wait_timeout(Duration::from_millis(1)));
            ready();
            stop.wait();
            assert!(stop.is_requested());
            std::process::exit(7);
        }
        "deaf" => {
            // SAFETY: a number and a constant.
            unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
            ready();
        }
        "standing" => {
            ready();
            die_of(Signal::STOP);
        }
        #[allow(clippy::zombie_processes)] // it is killed
        "parent" => {
            for child in [n + 1, n + 2] {
                board.word(READY + child).store(0, SeqCst); // of an earlier one
            }
            let child = command(root, "idle", n + 1).spawn().unwrap();
            board.word(GRANDCHILD + n).store(child.id().into(), SeqCst);
            let mut escape = Command::new("setsid");
            let idle = command(root, "idle", n + 2);
            escape.arg(idle.get_program()).args(idle.get_args());
            let escaped = escape.spawn().unwrap();
            board.word(ESCAPED + n).store(escaped.id().into(), SeqCst);
            while board.word(READY + n + 1).load(SeqCst) * board.word(READY + n + 2).load(SeqCst)
                == 0
            {
                std::thread::yield_now();
            }
            ready();
        }
        // Dies of SIGTERM at once, and has started one that takes its time, or one that is deaf.
        #[allow(clippy::zombie_processes)] // it is killed
        "family" | "deaf-family" => {
            let kind = if kind == "family" { "slow" } else { "deaf" };
            board.word(READY + n + 1).store(0, SeqCst); // of an earlier one
            let child = command(root, kind, n + 1).spawn().unwrap();
            board.word(GRANDCHILD + n).store(child.id().into(), SeqCst);
            while board.word(READY + n + 1).load(SeqCst) == 0 {
                std::thread::yield_now();
            }
            ready();
        }
        "slow" => {
            let signals = shmbus_sys::signal::Signals::take(&[Signal::TERM]).unwrap();
            ready();
            shmbus_sys::ready::wait(&[std::os::fd::AsFd::as_fd(&signals)], None).unwrap();
            std::thread::sleep(Duration::from_millis(200)); // it has to clean up
            board.word(CLEAN + n).fetch_add(1, SeqCst);
            std::process::exit(0);
        }
        // Its children outlive the shells that have started them.
        "orphaner" => {
            for _ in 0..20 {
                let done = Command::new("sh").args(["-c", "true & true & exit 0"]).status();
                assert!(done.unwrap().success());
            }
            ready();
        }
        "facts" => {
            let fds = std::fs::read_dir("/proc/self/fd").unwrap();
            let mut facts = String::new();
            for entry in fds.map(Result::unwrap) {
                let target = std::fs::read_link(entry.path());
                let number = entry.file_name().into_string().unwrap();
                // The directory that is being listed is gone by now.
                if let Ok(target) = target.map(|target| target.display().to_string())
                    && !target.starts_with("/proc/")
                {
                    facts += &format!("fd {number} {target}\n");
                }
            }
            let group = rustix::process::getpgrp();
            facts += &format!("group {}\n", group == getpid());
            let signal = rustix::process::parent_process_death_signal().unwrap();
            facts += &format!("death {:?}\n", signal.map(Signal::as_raw));
            facts += &std::fs::read_to_string("/proc/self/status").unwrap();
            std::fs::write(file(root, n), facts).unwrap();
            ready();
        }
        "publish" => {
            // No path: only what was inherited.
            assert!(std::env::var_os("SHMBUS_DIR").is_none());
            let topic = Topic::<u64>::inherited(TOPIC).unwrap();
            drop(Topic::<u64>::inherited(TOPIC).unwrap()); // and again
            let mut publisher = topic.publisher().unwrap();
            publisher.publish(&42).unwrap();
            ready();
            stay(root);
        }
        // Holds a message, as a reliable subscriber, and is killed with it.
        "hold" | "hold-and-die" => {
            let topic = Topic::<u64>::inherited(TOPIC).unwrap();
            let mut subscriber =
                topic.subscriber_from(Delivery::Reliable, shmbus::Start::Oldest).unwrap();
            let held = subscriber.try_receive().unwrap().unwrap().hold().unwrap();
            ready();
            if kind == "hold-and-die" {
                die_of(Signal::KILL);
            }
            std::mem::forget(held);
            std::mem::forget(subscriber);
        }
        "errors" => {
            let mut errors = String::new();
            for name in [TOPIC, "not/given", ".bad", "removed"] {
                let result = Topic::<u64>::inherited(name).map(drop);
                errors += &line(&result);
            }
            errors += &line(&Topic::<i32>::inherited(TOPIC).map(drop));
            std::fs::write(file(root, n), errors).unwrap();
            ready();
        }
        // A grandchild that has the environment, and nothing else of it.
        "errors-of-a-child" => {
            Topic::<u64>::inherited(TOPIC).unwrap();
            let done = command(root, "errors", n + 1).status().unwrap();
            assert!(done.success());
            ready();
        }
        kind => panic!("no worker {kind}"),
    }
    if kind.starts_with("errors") || kind == "facts" {
        std::process::exit(0);
    }
    stay(root)
}
