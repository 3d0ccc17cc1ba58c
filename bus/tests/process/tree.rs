//! A supervisor on a thread of the test, and what is seen of it.

use std::path::PathBuf;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use shmbus::process::{
    BackOff, ChildSpec, ChildStatus, End, Event, Handle, Phase, Report, Supervisor, SupervisorError,
};

use crate::processes::Stage;
use crate::workers::{self, PID, READY};

pub(crate) const SHORT: Duration = Duration::from_millis(1);

/// What was told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    Started(String),
    NotStarted(String),
    Ended { name: String, end: End, stopped: bool, swept: u32, restart_in: Option<Duration> },
    GivingUp(String),
}

pub(crate) struct Tree {
    pub(crate) handle: Handle,
    told: Arc<Mutex<Vec<Told>>>,
    /// Until it is joined.
    thread: Option<JoinHandle<Result<Report, SupervisorError>>>,
}

pub(crate) fn root(stage: &Stage) -> PathBuf {
    stage.directory.path().parent().unwrap().to_path_buf()
}

/// A worker of some kind, number `n`, called `kind-n`.
pub(crate) fn spec(stage: &Stage, kind: &'static str, n: usize) -> ChildSpec {
    let root = root(stage);
    ChildSpec::new(format!("{kind}-{n}"), move || Ok(workers::command(&root, kind, n)))
}

/// One that restarts at once, and whose runs are all short.
pub(crate) fn supervisor(children: Vec<ChildSpec>) -> Supervisor {
    let mut supervisor = Supervisor::new().unwrap();
    supervisor.back_off = BackOff { min: SHORT, max: SHORT, healthy: Duration::from_secs(3600) };
    supervisor.intensity.restarts = 1_000_000;
    for child in children {
        supervisor.add(child).unwrap();
    }
    supervisor
}

impl Tree {
    pub(crate) fn of(mut supervisor: Supervisor) -> Tree {
        let told = Arc::new(Mutex::new(Vec::new()));
        let handle = supervisor.handle();
        let telling = Arc::clone(&told);
        supervisor.on_event(move |event| telling.lock().unwrap().extend(short(&event)));
        let thread = Some(std::thread::spawn(move || supervisor.run()));
        Tree { handle, told, thread }
    }

    pub(crate) fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }

    pub(crate) fn status(&self, name: &str) -> ChildStatus {
        self.handle.status().into_iter().find(|child| child.name == name).unwrap()
    }

    pub(crate) fn phase(&self, name: &str) -> Phase {
        self.status(name).phase
    }

    /// Waits until worker `n` has come as often to where it stays.
    pub(crate) fn until_ready(stage: &Stage, n: usize, times: u64) {
        stage.until("a worker is ready", || stage.board.word(READY + n).load(SeqCst) >= times);
    }

    /// Waits for the supervisor's end.
    pub(crate) fn join(mut self) -> (Result<Report, SupervisorError>, Vec<Told>) {
        let outcome = self.thread.take().unwrap().join().unwrap();
        (outcome, self.told())
    }

    /// Stops it.
    pub(crate) fn stop(self) -> (Report, Vec<Told>) {
        self.handle.stop();
        let (outcome, told) = self.join();
        (outcome.unwrap(), told)
    }
}

impl Drop for Tree {
    /// Of a test that fails: others come after it.
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            (0..2).for_each(|_| self.handle.stop()); // the second time kills
            let _ = thread.join();
        }
    }
}

fn short(event: &Event<'_>) -> Option<Told> {
    Some(match event {
        Event::Started { name, .. } => Told::Started((*name).into()),
        Event::NotStarted { name, .. } => Told::NotStarted((*name).into()),
        Event::Ended { name, end, stopped, swept, restart_in, .. } => Told::Ended {
            name: (*name).into(),
            end: *end,
            stopped: *stopped,
            swept: *swept,
            restart_in: *restart_in,
        },
        Event::GivingUp { name } => Told::GivingUp((*name).into()),
        _ => return None,
    })
}

/// Some process, watched by descriptor; `None`: it is gone already.
pub(crate) struct Watched(Option<OwnedFd>);

impl Watched {
    pub(crate) fn of(pid: u64) -> Watched {
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).expect("a process");
        Watched(pidfd_open(pid, PidfdFlags::empty()).ok())
    }

    pub(crate) fn worker(stage: &Stage, n: usize) -> Watched {
        Watched::of(stage.board.word(PID + n).load(SeqCst))
    }

    /// Whether it has ended. A zombie has.
    pub(crate) fn is_gone(&self) -> bool {
        let Some(fd) = &self.0 else { return true };
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&now)).unwrap() == 1
    }

    pub(crate) fn send(&self, signal: Signal) {
        if let Some(fd) = &self.0 {
            let _ = pidfd_send_signal(fd, signal);
        }
    }
}
