//! What a supervisor's children do, and what others may ask of it while it runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shmbus_sys::ready::Doorbell;

use super::child::End;

/// What a child does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// It is to be started: for the first time, or when its time to stay down is over.
    Waiting,
    /// It runs.
    Running,
    /// It was told to stop.
    Stopping,
    /// It has ended, and is not started again.
    Ended,
}

/// A child at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChildStatus {
    /// Its name.
    pub name: String,
    /// What it does.
    pub phase: Phase,
    /// Its process, while there is one. For people: the supervisor does not go by it.
    pub pid: Option<u32>,
    /// How often it was started, less the first time.
    pub restarts: u64,
    /// When its process was started, in nanoseconds since 1970.
    pub started_ns: Option<u64>,
    /// How it ended the last time.
    pub last_end: Option<End>,
}

/// What others ask of a supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Stop,
    Reload,
    Restart(String),
}

/// What the supervisor and its handles share.
pub(super) struct Shared {
    pub(super) bell: Doorbell,
    wishes: Mutex<Vec<Wish>>,
    status: Mutex<Vec<ChildStatus>>,
}

impl Shared {
    pub(super) fn new(bell: Doorbell) -> Shared {
        Shared { bell, wishes: Mutex::default(), status: Mutex::default() }
    }

    pub(super) fn take_wishes(&self) -> Vec<Wish> {
        self.bell.clear();
        std::mem::take(&mut lock(&self.wishes))
    }

    /// Shows what the children do. Whether that is something new.
    pub(super) fn show(&self, status: Vec<ChildStatus>) -> bool {
        let mut shown = lock(&self.status);
        let is_new = *shown != status;
        *shown = status;
        is_new
    }

    pub(super) fn status(&self) -> Vec<ChildStatus> {
        lock(&self.status).clone()
    }

    fn wish(&self, wish: Wish) {
        lock(&self.wishes).push(wish);
        self.bell.ring();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks things of a [`Supervisor`](super::Supervisor) that runs on another thread. What is asked for is done later, and not at all once the supervisor
/// has returned. Each costs a lock and a system call.
#[derive(Clone)]
pub struct Handle(pub(super) Arc<Shared>);

impl Handle {
    /// Stops all children; the supervisor returns when they have ended. As SIGTERM does; asked for twice, the second time kills them.
    pub fn stop(&self) {
        self.0.wish(Wish::Stop);
    }

    /// As SIGHUP does: see [`Supervisor::on_reload`](super::Supervisor::on_reload).
    pub fn reload(&self) {
        self.0.wish(Wish::Reload);
    }

    /// Stops a child and starts it again, as it was wanted last; starts one that has ended. It counts as no failure. One that a reload does not have any more is not started.
    /// `false`: there is no child of that name.
    pub fn restart(&self, name: &str) -> bool {
        let is_known = lock(&self.0.status).iter().any(|child| child.name == name);
        if is_known {
            self.0.wish(Wish::Restart(name.to_owned()));
        }
        is_known
    }

    /// What the children do, in their order.
    pub fn status(&self) -> Vec<ChildStatus> {
        self.0.status()
    }
}
