//! The supervisor: one thread that starts all children, sleeps until something happens to one of them, and does what follows.
//!
//! It sleeps in one poll over the descriptors of its children, of the signals and of the bell that handles ring, until the next time at which something is due.
//! Then: what was asked for, who has ended (killed group, reaped, swept, recorded), who is due to be started, who is due for the next step of being
//! stopped. Children are started by this thread alone, because they are to die when the thread that started them ends.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use shmbus_sys::clock;
use shmbus_sys::ready::{self, Doorbell};
use shmbus_sys::signal::{Signal, Signals};

use super::child::{self, End, Process};
use super::slot::{Slot, State, Then, after};
use super::spec::{BackOff, ChildSpec, Intensity, Restart, Strategy};
use super::status::{ChildStatus, Handle, Shared, Wish};

/// Starts children, and keeps them as their [`ChildSpec`]s say until it is stopped or all have ended for good. See the [module](super).
///
/// Dropped before it ran, it has started nothing; where it fails or a callback panics, it kills and reaps its children before it is gone.
pub struct Supervisor {
    /// What happens to the others when one is restarted.
    pub strategy: Strategy,
    /// How long a child stays down.
    pub back_off: BackOff,
    /// How many restarts are too many.
    pub intensity: Intensity,
    children: Vec<Slot>,
    shared: Arc<Shared>,
    signals: Option<Signals>,
    watch: Option<Box<Watch>>,
    reload: Option<Box<Reload>>,
    /// When children were restarted, in the period that counts.
    restarts: VecDeque<u64>,
    /// One for all: no start before.
    together_ns: u64,
    stopping: Option<Reason>,
}

type Watch = dyn FnMut(Event<'_>) + Send;
type Reload = dyn FnMut() -> Option<Vec<ChildSpec>> + Send;

/// Why everything is being stopped.
enum Reason {
    Cause(Cause),
    TooMany { name: String, end: End },
}

/// Something that happened, told on the supervisor's thread, which waits for the callback.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A child runs.
    Started {
        /// Its name.
        name: &'a str,
        /// To take its standard streams from, where the command pipes them. Not to be waited for or killed.
        child: &'a mut Child,
    },
    /// A child was not started.
    NotStarted {
        /// Its name.
        name: &'a str,
        /// Why.
        error: &'a io::Error,
    },
    /// A child has ended or was not started.
    Ended {
        /// Its name.
        name: &'a str,
        /// How.
        end: End,
        /// Whether it was told to stop.
        stopped: bool,
        /// How long it ran.
        ran: Duration,
        /// As how many participants it was found dead in its topics.
        swept: u32,
        /// When it is started again, if it is by its own end.
        restart_in: Option<Duration>,
    },
    /// Too many restarts: everything is being stopped.
    GivingUp {
        /// The child that ended last.
        name: &'a str,
    },
    /// The phase or the numbers of some child are other ones.
    Changed(&'a [ChildStatus]),
}

/// Why a supervisor has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// All children have ended, and none is to be started again.
    AllEnded,
    /// [`Handle::stop`].
    Asked,
    /// SIGTERM or SIGINT.
    Signal(i32),
}

/// How it went.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Why it is over.
    pub cause: Cause,
    /// The children, all ended.
    pub children: Vec<ChildStatus>,
}

/// A supervisor that cannot go on. Its children have ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisorError {
    /// Two children have one name.
    #[error("there are two children called {name}")]
    SameName {
        /// The name.
        name: String,
    },
    /// More restarts than [`Intensity`] allows; everything was stopped.
    #[error("more than {} restarts within {:?}; the last to end was {name}, which {end}", intensity.restarts, intensity.within)]
    TooManyRestarts {
        /// What is allowed.
        intensity: Intensity,
        /// The child that ended last.
        name: String,
        /// How.
        end: End,
        /// The children, all ended.
        children: Vec<ChildStatus>,
    },
    /// The kernel refused.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> SupervisorError {
    move |source| SupervisorError::Io { action, source }
}

impl Supervisor {
    /// A supervisor without children.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new() -> Result<Supervisor, SupervisorError> {
        let bell = Doorbell::new().map_err(failed("make an event descriptor"))?;
        Ok(Supervisor {
            strategy: Strategy::default(),
            back_off: BackOff::default(),
            intensity: Intensity::default(),
            children: Vec::new(),
            shared: Arc::new(Shared::new(bell)),
            signals: None,
            watch: None,
            reload: None,
            restarts: VecDeque::new(),
            together_ns: 0,
            stopping: None,
        })
    }

    /// Adds a child, which is started when the supervisor runs, behind those added before.
    ///
    /// # Errors
    /// [`SupervisorError::SameName`].
    pub fn add(&mut self, child: ChildSpec) -> Result<(), SupervisorError> {
        if self.children.iter().any(|other| other.spec.name == child.name) {
            return Err(SupervisorError::SameName { name: child.name });
        }
        self.children.push(Slot::new(child));
        self.shared.show(self.status());
        Ok(())
    }

    /// Lets SIGTERM and SIGINT stop the tree (a second one kills it), and SIGHUP reload it. They are blocked in the calling thread and in those that it
    /// starts from here on: to be called before any other thread is started, for in a thread where they are not blocked they do what they always
    /// did. They stay blocked.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn take_signals(&mut self) -> Result<(), SupervisorError> {
        let signals = Signals::take(&[Signal::TERM, Signal::INT, Signal::HUP]);
        self.signals = Some(signals.map_err(failed("take signals"))?);
        Ok(())
    }

    /// Calls `watch` for everything that happens. It should be quick: the supervisor waits for it.
    pub fn on_event(&mut self, watch: impl FnMut(Event<'_>) + Send + 'static) {
        self.watch = Some(Box::new(watch));
    }

    /// On a reload (SIGHUP, [`Handle::reload`]) asks `reload` for the children that there are to be; `None` changes nothing. Those that are not there any
    /// more are stopped; new ones are started; those of another [`revision`](ChildSpec::revision) are stopped and started as they are now; the others
    /// go on. Of two with one name the first counts.
    pub fn on_reload(&mut self, reload: impl FnMut() -> Option<Vec<ChildSpec>> + Send + 'static) {
        self.reload = Some(Box::new(reload));
    }

    /// To ask things of it while it runs, from any thread.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }

    /// Runs on the calling thread until it is stopped or all children have ended for good; then none of them is left. The children die when this thread ends, however
    /// it does.
    ///
    /// # Errors
    /// [`SupervisorError::TooManyRestarts`]; or the kernel refuses to watch, and the children are killed.
    pub fn run(mut self) -> Result<Report, SupervisorError> {
        loop {
            self.heed();
            self.advance();
            self.children.retain(|child| !matches!(child.state, State::Removed));
            self.show();
            if self.children.iter().all(Slot::is_over) {
                break;
            }
            for index in self.sleep()? {
                self.reap(index)?;
            }
        }
        for child in &self.children {
            child::sweep(&child.spec); // what its own children, killed with it, have left
        }
        let children = self.status();
        match self.stopping.take() {
            Some(Reason::TooMany { name, end }) => {
                let intensity = self.intensity;
                Err(SupervisorError::TooManyRestarts { intensity, name, end, children })
            }
            Some(Reason::Cause(cause)) => Ok(Report { cause, children }),
            None => Ok(Report { cause: Cause::AllEnded, children }),
        }
    }

    /// Does what handles and signals ask for.
    fn heed(&mut self) {
        for wish in self.shared.take_wishes() {
            match wish {
                Wish::Stop => self.stop(Cause::Asked),
                Wish::Reload => self.change(),
                Wish::Restart(name) => self.restart(&name),
            }
        }
        while let Some(Ok(Some(signal))) = self.signals.as_ref().map(Signals::next) {
            match signal {
                hup if hup == Signal::HUP.as_raw() => self.change(),
                signal => self.stop(Cause::Signal(signal)),
            }
        }
    }

    /// Begins to stop everything; asked for again, kills it.
    fn stop(&mut self, cause: Cause) {
        if self.stopping.is_some() {
            self.children.iter_mut().for_each(Slot::kill);
        } else {
            self.stop_for(Reason::Cause(cause));
        }
    }

    fn stop_for(&mut self, reason: Reason) {
        self.stopping = Some(reason);
        for child in &mut self.children {
            child.stop(Then::Stay);
        }
    }

    fn restart(&mut self, name: &str) {
        let child = self.children.iter_mut().find(|child| child.spec.name == name);
        if let (Some(child), None) = (child, &self.stopping) {
            child.stop(Then::Start);
        }
    }

    /// A reload.
    fn change(&mut self) {
        let (Some(reload), None) = (&mut self.reload, &self.stopping) else { return };
        let Some(mut wanted) = reload() else { return };
        for child in &mut self.children {
            let at = wanted.iter().position(|spec| spec.name == child.spec.name);
            match at.map(|at| wanted.remove(at)) {
                None => child.stop(Then::Remove),
                Some(spec) if spec.revision == child.spec.revision => {}
                Some(spec) => child.stop(Then::Replace(Box::new(spec))),
            }
        }
        for spec in wanted {
            if self.children.iter().all(|child| child.spec.name != spec.name) {
                self.children.push(Slot::new(spec));
            }
        }
    }

    /// Starts who is due, and goes on with stopping who is due for that.
    fn advance(&mut self) {
        for index in 0..self.children.len() {
            self.children[index].escalate(clock::monotonic_ns());
            // One for all: nobody starts while others are still being stopped.
            let together = self.strategy == Strategy::OneForAll;
            let held_up = together && self.children.iter().any(Slot::is_stopping);
            if let State::Waiting { until_ns } = self.children[index].state
                && until_ns <= clock::monotonic_ns()
                && !held_up
            {
                self.start(index);
            }
        }
    }

    fn start(&mut self, index: usize) {
        let child = &mut self.children[index];
        child.starts += 1;
        match Process::spawn(&mut child.spec) {
            Ok(mut process) => {
                let (name, started) = (child.spec.name.as_str(), process.child());
                tell(&mut self.watch, Event::Started { name, child: started });
                child.state = State::Running(process);
            }
            Err(error) => {
                let (name, error) = (child.spec.name.as_str(), &error);
                tell(&mut self.watch, Event::NotStarted { name, error });
                self.ended(index, End::NotStarted(error.raw_os_error().unwrap_or(0)), 0, 0);
            }
        }
    }

    /// Sleeps until something happens. The places of those that have ended.
    fn sleep(&self) -> Result<Vec<usize>, SupervisorError> {
        let held_up =
            self.strategy == Strategy::OneForAll && self.children.iter().any(Slot::is_stopping);
        let is_held_up = |child: &&Slot| held_up && matches!(child.state, State::Waiting { .. });
        let due =
            self.children.iter().filter(|child| !is_held_up(child)).filter_map(Slot::due_ns).min();
        let watched = self.children.iter().enumerate();
        let watched: Vec<_> =
            watched.filter_map(|(i, child)| Some((i, child.process()?))).collect();
        let mut fds: Vec<BorrowedFd<'_>> =
            watched.iter().map(|(_, process)| process.as_fd()).collect();
        fds.push(self.shared.bell.as_fd());
        fds.extend(self.signals.as_ref().map(AsFd::as_fd));
        let ready = ready::wait(&fds, due).map_err(failed("wait for children"))?;
        let ended = watched.iter().zip(ready).filter(|(_, is_ready)| *is_ready);
        Ok(ended.map(|((index, _), _)| *index).collect())
    }

    /// Takes the end of a child, gives back what it held, and decides what follows.
    fn reap(&mut self, index: usize) -> Result<(), SupervisorError> {
        let child = &mut self.children[index];
        let (State::Running(process) | State::Stopping { process, .. }) = &mut child.state else {
            return Ok(());
        };
        let end = process.reap().map_err(failed("reap a child"))?;
        let ran_ns = clock::monotonic_ns().saturating_sub(process.started_ns);
        let swept = child::sweep(&child.spec);
        self.ended(index, end, ran_ns, swept);
        Ok(())
    }

    fn ended(&mut self, index: usize, end: End, ran_ns: u64, swept: u32) {
        let child = &mut self.children[index];
        child.last_end = Some(end);
        let name = child.spec.name.clone();
        let ran = Duration::from_nanos(ran_ns);
        let mut told =
            Event::Ended { name: &name, end, stopped: true, ran, swept, restart_in: None };
        if let State::Stopping { .. } = child.state {
            let before = std::mem::replace(&mut child.state, State::Removed);
            if let State::Stopping { then, .. } = before {
                child.follow(then, self.together_ns);
            }
            return tell(&mut self.watch, told);
        }
        child.state = State::Ended;
        let is_wanted = match child.spec.restart {
            Restart::Always => true,
            Restart::OnFailure => !end.is_success(),
            Restart::Never => false,
        };
        let delay = is_wanted.then(|| {
            let is_short = ran < self.back_off.healthy;
            let delay = self.back_off.delay(if is_short { child.short_runs } else { 0 });
            child.short_runs = if is_short { child.short_runs.saturating_add(1) } else { 1 };
            child.state = State::Waiting { until_ns: after(delay) };
            delay
        });
        if let Event::Ended { stopped, restart_in, .. } = &mut told {
            (*stopped, *restart_in) = (false, delay);
        }
        tell(&mut self.watch, told);
        if let Some(delay) = delay {
            self.restarting(&name, end, delay);
        }
    }

    /// What a restart means for all.
    fn restarting(&mut self, name: &str, end: End, delay: Duration) {
        let now_ns = clock::monotonic_ns();
        let within_ns = u64::try_from(self.intensity.within.as_nanos()).unwrap_or(u64::MAX);
        self.restarts.push_back(now_ns);
        while self.restarts.front().is_some_and(|ns| now_ns - ns > within_ns) {
            self.restarts.pop_front();
        }
        if self.restarts.len() > self.intensity.restarts as usize {
            tell(&mut self.watch, Event::GivingUp { name });
            return self.stop_for(Reason::TooMany { name: name.to_owned(), end });
        }
        if self.strategy == Strategy::OneForAll {
            self.together_ns = after(delay);
            for child in self.children.iter_mut().filter(|child| child.is_running()) {
                child.stop(Then::Start);
            }
        }
    }

    fn status(&self) -> Vec<ChildStatus> {
        self.children.iter().map(Slot::status).collect()
    }

    fn show(&mut self) {
        let status = self.status();
        if self.shared.show(status.clone()) {
            tell(&mut self.watch, Event::Changed(&status));
        }
    }
}

fn tell(watch: &mut Option<Box<Watch>>, event: Event<'_>) {
    if let Some(watch) = watch {
        watch(event);
    }
}
