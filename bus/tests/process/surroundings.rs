//! A supervisor in a process in which other things happen too.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{
    Resource, Rlimit, WaitId, WaitIdOptions, child_subreaper, getrlimit, set_child_subreaper,
    setrlimit, waitid,
};
use shmbus::process::{BackOff, End, Event};

use crate::Plan;
use crate::processes::{Part, Role, Stage};
use crate::tree::{SHORT, Tree, supervisor};
use crate::workers::{self, READY};

pub(crate) const ROLES: &[Part] =
    &[("robbed", robbed), ("starved", starved), ("adopting", adopting)];

fn child(role: &Role, kind: &'static str, n: usize) -> shmbus::process::ChildSpec {
    let root = role.directory.path().parent().unwrap().to_path_buf();
    shmbus::process::ChildSpec::new(kind, move || Ok(workers::command(&root, kind, n)))
}

/// Another thread waits for whatever child there is, until it has got some.
fn robbed(role: &Role) {
    let mut tree = supervisor(vec![child(role, "three", 0), child(role, "idle", 1)]);
    let unknown = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&unknown);
    tree.on_event(move |event| {
        if let Event::Ended { end: End::Unknown, stopped: false, .. } = event {
            counting.fetch_add(1, SeqCst);
        }
    });
    let handle = tree.handle();
    let is_over = Arc::new(AtomicBool::new(false));
    let is_over_too = Arc::clone(&is_over);
    let robber = std::thread::spawn(move || {
        while !is_over_too.load(SeqCst) {
            let _ = waitid(WaitId::All, WaitIdOptions::EXITED);
            std::thread::yield_now();
        }
    });
    let ending = std::thread::spawn(move || {
        while unknown.load(SeqCst) < 3 {
            std::thread::sleep(Duration::from_millis(1));
        }
        handle.stop();
    });
    let report = tree.run().unwrap();
    is_over.store(true, SeqCst);
    assert!(report.children[0].restarts >= 3 && report.children[1].restarts == 0, "{report:?}");
    ending.join().unwrap();
    robber.join().unwrap();
}

pub(crate) fn a_child_that_somebody_else_waits_for_has_ended_all_the_same(_: &Plan) {
    Stage::new().spawn("robbed", &[]).done();
}

/// No descriptor is left for a while.
fn starved(role: &Role) {
    let mut tree = supervisor(vec![child(role, "idle", 0)]);
    tree.intensity.restarts = 0;
    tree.back_off = BackOff { min: SHORT, max: SHORT, ..BackOff::default() };
    let before = getrlimit(Resource::Nofile);
    let postponed = Arc::new(Mutex::new(0));
    let counting = Arc::clone(&postponed);
    tree.on_event(move |event| match event {
        Event::NotStarted { retry_in, error, .. } => {
            assert!(retry_in.is_some(), "{error}");
            *counting.lock().unwrap() += 1;
            if *counting.lock().unwrap() == 5 {
                setrlimit(Resource::Nofile, before).unwrap();
            }
        }
        Event::Ended { stopped, .. } => assert!(stopped),
        _ => {}
    });
    let handle = tree.handle();
    let board = crate::board::Board::open(&role.directory.path().parent().unwrap().join("board"));
    let ending = std::thread::spawn(move || {
        while board.word(READY).load(SeqCst) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        handle.stop();
    });
    setrlimit(Resource::Nofile, Rlimit { current: Some(3), ..before }).unwrap();
    let report = tree.run().unwrap();
    ending.join().unwrap();
    assert_eq!((report.children[0].restarts, *postponed.lock().unwrap()), (0, 5));
}

pub(crate) fn the_want_of_descriptors_is_no_restart(_: &Plan) {
    Stage::new().spawn("starved", &[]).done();
}

/// As process 1 of a container is.
fn adopting(role: &Role) {
    set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    assert!(child_subreaper().unwrap().is_some());
    let mut tree = supervisor(vec![child(role, "orphaner", 0)]);
    tree.reap_orphans().unwrap();
    tree.run().unwrap();
}

pub(crate) fn orphans_that_it_has_got_are_reaped(_: &Plan) {
    let stage = Stage::new();
    let supervisor = stage.spawn("adopting", &[]);
    let pid = supervisor.pid().as_raw_pid() as u32;
    Tree::until_ready(&stage, 0, 1);
    let children = || -> Vec<bool> {
        let all = shmbus_sys::process::all().unwrap().into_iter();
        all.filter(|stat| stat.parent == pid).map(|stat| stat.has_ended).collect()
    };
    stage.until("only its own child is left", || children() == [false]);
    supervisor.kill();
}
