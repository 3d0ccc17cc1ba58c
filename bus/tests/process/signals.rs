//! Signals to a supervisor, which is a process of its own here.
#![allow(unsafe_code)] // ignores a signal

use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use rustix::process::Signal;
use shmbus::process::{Cause, ChildSpec, End, Restart, Stop};

use crate::Plan;
use crate::processes::{Part, Role, Stage};
use crate::tree::{Tree, Watched, supervisor};
use crate::workers;

pub(crate) const ROLES: &[Part] = &[("signalled", signalled), ("ignoring", ignoring)];

/// How it ended, how often it was to reload.
const OUTCOME: usize = 10;
const RELOADS: usize = 11;

fn worker(root: &Path, kind: &'static str, n: usize, revision: &str) -> ChildSpec {
    let root = root.to_path_buf();
    let mut child = ChildSpec::new(format!("{n}"), move || Ok(workers::command(&root, kind, n)));
    child.revision = revision.into();
    child.stop = Stop { ask: Duration::ZERO, terminate: Duration::from_secs(3600) };
    child
}

/// A supervisor of workers 0 and 1, of which the second may be deaf. Reloaded: 0 as it was, 1 of another revision, 2; reloaded again: 0 and 2.
fn signalled(role: &Role) {
    let [deaf] = role.numbers();
    let root = role.directory.path().parent().unwrap().to_path_buf();
    let kind = if deaf == 1 { "deaf" } else { "idle" };
    if deaf == 2 {
        for signal in [libc::SIGHUP, libc::SIGINT] {
            // SAFETY: a number and a constant: as `nohup` does, and a shell without job control.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
    }
    let mut supervisor =
        supervisor(vec![worker(&root, "idle", 0, "a"), worker(&root, kind, 1, "a")]);
    supervisor.take_signals().unwrap();
    let board = crate::board::Board::open(&root.join("board"));
    supervisor.on_reload(move || {
        Some(match board.word(RELOADS).fetch_add(1, SeqCst) {
            0 => return None,
            1 => vec![
                worker(&root, "idle", 0, "a"),
                worker(&root, "idle", 1, "b"),
                worker(&root, "idle", 2, "a"),
                worker(&root, "idle", 2, "the first of one name counts"),
            ],
            _ => vec![worker(&root, "idle", 0, "a"), worker(&root, "idle", 2, "a")],
        })
    });
    let report = supervisor.run().unwrap();
    let Cause::Signal(signal) = report.cause else { panic!("{report:?}") };
    role.board.word(OUTCOME).store(signal as u64, SeqCst);
}

/// A supervisor in a process that was started with SIGCHLD ignored.
fn ignoring(role: &Role) {
    // SAFETY: a number and a constant.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let root = role.directory.path().parent().unwrap();
    let mut child = worker(root, "three", 0, "");
    child.restart = Restart::Never;
    let report = supervisor(vec![child]).run().unwrap();
    assert_eq!(report.children[0].last_end, Some(End::Exited(3)));
}

pub(crate) fn ends_are_told_although_sigchld_was_ignored_when_the_process_began(_: &Plan) {
    Stage::new().spawn("ignoring", &[]).done();
}

pub(crate) fn sigterm_stops_the_tree_and_a_second_one_kills_it(_: &Plan) {
    for (signal, deaf) in [(Signal::TERM, 0), (Signal::INT, 0), (Signal::TERM, 1)] {
        let stage = Stage::new();
        let supervisor = stage.spawn("signalled", &[deaf]);
        (0..2).for_each(|n| Tree::until_ready(&stage, n, 1));
        let children = [0, 1].map(|n| Watched::worker(&stage, n));
        supervisor.send(signal);
        if deaf == 1 {
            stage.until("the other one ends", || children[0].is_gone());
            assert!(!children[1].is_gone());
            supervisor.send(signal);
        }
        supervisor.done();
        assert!(children.iter().all(Watched::is_gone));
        assert_eq!(stage.board.word(OUTCOME).load(SeqCst), signal.as_raw() as u64);
    }
}

/// Whether a signal was sent and has not been taken.
fn is_pending(process: &crate::processes::Process, signal: Signal) -> bool {
    let path = format!("/proc/{}/status", process.pid().as_raw_pid());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).unwrap();
    let set = u64::from_str_radix(line.trim(), 16).unwrap();
    set & (1 << (signal.as_raw() - 1)) != 0
}

/// A service manager that sends one, and a person who presses Ctrl-C, are no two wishes of one person.
pub(crate) fn another_signal_that_stops_is_no_second_wish(_: &Plan) {
    let stage = Stage::new();
    let supervisor = stage.spawn("signalled", &[1]);
    (0..2).for_each(|n| Tree::until_ready(&stage, n, 1));
    let [idle, deaf] = [0, 1].map(|n| Watched::worker(&stage, n));
    supervisor.send(Signal::TERM);
    stage.until("the other one ends", || idle.is_gone());
    supervisor.send(Signal::INT);
    stage.until("it is taken", || !is_pending(&supervisor, Signal::INT) && supervisor.is_asleep());
    std::thread::sleep(Duration::from_millis(300)); // one that got SIGKILL takes a moment to end
    assert!(!deaf.is_gone());
    supervisor.send(Signal::INT);
    supervisor.done();
    assert!(deaf.is_gone());
}

/// Signals that are blocked come although they are ignored.
pub(crate) fn what_whoever_started_it_ignores_is_left_alone(_: &Plan) {
    let stage = Stage::new();
    let supervisor = stage.spawn("signalled", &[2]);
    (0..2).for_each(|n| Tree::until_ready(&stage, n, 1));
    supervisor.send(Signal::HUP);
    supervisor.send(Signal::INT);
    supervisor.send(Signal::TERM); // taken after both, if they are taken
    supervisor.done();
    assert_eq!(stage.board.word(RELOADS).load(SeqCst), 0);
    assert_eq!(stage.board.word(OUTCOME).load(SeqCst), Signal::TERM.as_raw() as u64);
}

pub(crate) fn sighup_starts_what_is_new_stops_what_is_gone_and_leaves_the_rest_alone(_: &Plan) {
    let stage = Stage::new();
    let supervisor = stage.spawn("signalled", &[0]);
    (0..2).for_each(|n| Tree::until_ready(&stage, n, 1));
    let [zero, one] = [0, 1].map(|n| Watched::worker(&stage, n));
    supervisor.send(Signal::HUP);
    stage.until("it was to reload", || stage.board.word(RELOADS).load(SeqCst) == 1);
    assert!(!zero.is_gone() && !one.is_gone());
    supervisor.send(Signal::HUP);
    Tree::until_ready(&stage, 1, 2);
    Tree::until_ready(&stage, 2, 1);
    assert!(one.is_gone() && !zero.is_gone());
    let [one, two] = [1, 2].map(|n| Watched::worker(&stage, n));
    supervisor.send(Signal::HUP);
    stage.until("it is stopped", || one.is_gone());
    assert!(!zero.is_gone() && !two.is_gone());
    supervisor.send(Signal::TERM);
    supervisor.done();
    assert!(zero.is_gone() && two.is_gone());
    assert_eq!(
        stage.board.word(workers::READY).load(SeqCst),
        1,
        "the first one was never restarted"
    );
}
