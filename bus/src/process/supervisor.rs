//! The supervisor: one thread that starts all children, sleeps until something happens to one of them, and does what follows.
//!
//! It sleeps in one poll over the descriptors of its children, of the signals and of the bell that handles ring, until the next time at which something is due.
//! Then: what was asked for, who has ended (killed group, reaped, swept, recorded), who is due to be started, who is due for the next step of being
//! stopped. Children are started by this thread alone, because they are to die when the thread that started them ends.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use shmbus_sys::ready::{self, Doorbell};
use shmbus_sys::signal::{self, Signal, Signals};
use shmbus_sys::{clock, pidfd, process};

use super::child::{self, End, Process, Processes};
use super::event::{Cause, Event, Report, SupervisorError};
use super::plan::Phase;
use super::slot::{Slot, after};
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
    /// Ends of children of others that this process has got.
    orphans: Option<Signals>,
    had_terminal: bool,
    /// Which requests to stop have come.
    asked: Vec<Cause>,
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
            orphans: None,
            had_terminal: false,
            asked: Vec::new(),
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
        if self.children.iter().any(|other| other.name() == child.name) {
            return Err(SupervisorError::SameName { name: child.name });
        }
        self.children.push(Slot::new(child));
        self.shared.show(self.status());
        Ok(())
    }

    /// Lets SIGTERM and SIGINT stop the tree (the same one again kills it), and SIGHUP reload it; SIGHUP stops it as SIGTERM does once the controlling terminal,
    /// which it had at this call, is gone. SIGINT and SIGHUP are left alone where they are ignored, as under `nohup`.
    ///
    /// They are blocked in the calling thread and in those that it
    /// starts from here on: to be called before any other thread is started, for in a thread where they are not blocked they do what they always
    /// did. They stay blocked.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn take_signals(&mut self) -> Result<(), SupervisorError> {
        let failed = failed("take signals");
        let mut wanted = vec![Signal::TERM];
        for signal in [Signal::INT, Signal::HUP] {
            if !signal::is_ignored(signal).map_err(&failed)? {
                wanted.push(signal);
            }
        }
        self.signals = Some(Signals::take(&wanted).map_err(&failed)?);
        self.had_terminal = process::has_terminal().unwrap_or(false);
        Ok(())
    }

    /// Reaps every child of this process that is not the supervisor's: those of others that have ended before them, which process 1 of a container gets, and a subreaper.
    /// For programs that wait for no children of their own. Blocks SIGCHLD, as [`take_signals`](Supervisor::take_signals) does the others.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn reap_orphans(&mut self) -> Result<(), SupervisorError> {
        let signals = Signals::take(&[Signal::CHILD]);
        self.orphans = Some(signals.map_err(failed("take signals"))?);
        self.reap_all_orphans(); // those that have ended before
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
    /// Where the process ignores SIGCHLD, it does no more: ended children are to wait for being reaped.
    ///
    /// # Errors
    /// [`SupervisorError::TooManyRestarts`]; or the kernel refuses to watch, and the children are killed.
    pub fn run(mut self) -> Result<Report, SupervisorError> {
        signal::keep_ended_children().map_err(failed("have SIGCHLD not ignored"))?;
        loop {
            self.heed();
            self.advance();
            self.children.retain(|child| !child.is_removed());
            self.show();
            if self.children.iter().all(Slot::is_over) {
                break;
            }
            let happened = self.sleep()?;
            let mut all = Processes::default();
            for index in happened {
                self.reap(index, &mut all)?;
            }
        }
        for child in &self.children {
            child::sweep(child.plan.spec()); // what its own children, killed with it, have left
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
            let is_reload = signal == Signal::HUP.as_raw() && !self.has_lost_terminal();
            match is_reload {
                true => self.change(),
                false => self.stop(Cause::Signal(signal)),
            }
        }
        if let Some(Ok(Some(_))) = self.orphans.as_ref().map(Signals::next) {
            self.reap_all_orphans();
        }
    }

    fn has_lost_terminal(&self) -> bool {
        self.had_terminal && process::has_terminal() == Some(false)
    }

    fn reap_all_orphans(&self) {
        let own = process::pid();
        let is_ours = |pid| {
            let mut running = self.children.iter().filter_map(|child| child.process.as_ref());
            running.any(|process| process.pid() == pid)
        };
        let ended = process::all().unwrap_or_default().into_iter();
        for stat in ended.filter(|stat| stat.parent == own && stat.has_ended && !is_ours(stat.pid))
        {
            pidfd::reap(stat.pid);
        }
    }

    /// Begins to stop everything; asked for again by the same means, kills it.
    fn stop(&mut self, cause: Cause) {
        if self.asked.contains(&cause) {
            return self.children.iter_mut().for_each(Slot::kill);
        }
        self.asked.push(cause);
        if self.stopping.is_none() {
            self.stop_for(Reason::Cause(cause));
        }
    }

    fn stop_for(&mut self, reason: Reason) {
        self.stopping = Some(reason);
        for child in &mut self.children {
            let step = child.plan.shut();
            child.obey(step);
        }
    }

    fn restart(&mut self, name: &str) {
        if let Some(child) = self.children.iter_mut().find(|child| child.name() == name) {
            let step = child.plan.restart();
            child.obey(step);
        }
    }

    /// A reload.
    fn change(&mut self) {
        let (Some(reload), None) = (&mut self.reload, &self.stopping) else { return };
        let Some(mut wanted) = reload() else { return };
        for child in &mut self.children {
            let at = wanted.iter().position(|spec| spec.name == child.name());
            let step = match at.map(|at| wanted.remove(at)) {
                None => child.plan.unwanted(),
                Some(spec) => {
                    let (step, is_new) = child.plan.want(spec);
                    child.short_runs = if is_new { 0 } else { child.short_runs };
                    step
                }
            };
            child.obey(step);
        }
        for spec in wanted {
            if self.children.iter().all(|child| child.name() != spec.name) {
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
            if let Phase::Waiting { until_ns } = self.children[index].plan.phase()
                && until_ns <= clock::monotonic_ns()
                && !held_up
            {
                self.start(index);
            }
        }
    }

    fn start(&mut self, index: usize) {
        let child = &mut self.children[index];
        let error = match Process::spawn(child.plan.spec_mut()) {
            Ok(process) => {
                child.starts += 1;
                child.postponed = 0;
                child.plan.started();
                let started = child.process.insert(process).child();
                let name = child.plan.spec().name.as_str();
                return tell(&mut self.watch, Event::Started { name, child: started });
            }
            Err(error) => error,
        };
        let retry_in = child::is_passing(&error).then(|| self.back_off.delay(child.postponed));
        let name = child.plan.spec().name.as_str();
        tell(&mut self.watch, Event::NotStarted { name, error: &error, retry_in });
        if let Some(delay) = retry_in {
            child.postponed = child.postponed.saturating_add(1);
            return child.plan.postpone(after(delay));
        }
        child.starts += 1;
        self.ended(index, End::NotStarted(child::number(&error)), 0, 0);
    }

    /// Sleeps until something happens. The places of those of which something has ended, or whose group is to be looked at.
    fn sleep(&self) -> Result<Vec<usize>, SupervisorError> {
        let held_up =
            self.strategy == Strategy::OneForAll && self.children.iter().any(Slot::is_stopping);
        let is_held_up =
            |child: &&Slot| held_up && matches!(child.plan.phase(), Phase::Waiting { .. });
        let due =
            self.children.iter().filter(|child| !is_held_up(child)).filter_map(Slot::due_ns).min();
        let watched = self.children.iter().enumerate();
        let (places, mut fds): (Vec<usize>, Vec<BorrowedFd<'_>>) = watched
            .filter_map(|(at, child)| Some((at, child.process.as_ref()?.watched()?)))
            .unzip();
        fds.push(self.shared.bell.as_fd());
        fds.extend(self.signals.as_ref().map(AsFd::as_fd));
        fds.extend(self.orphans.as_ref().map(AsFd::as_fd));
        let ready = ready::wait(&fds, due).map_err(failed("wait for children"))?;
        let ended = places.into_iter().zip(ready).filter(|(_, is_ready)| *is_ready);
        let now_ns = clock::monotonic_ns();
        let is_due = |child: &Slot| {
            let look_ns = child.process.as_ref().and_then(Process::look_ns);
            look_ns.is_some_and(|look_ns| look_ns <= now_ns)
        };
        let due = (0..self.children.len()).filter(|at| is_due(&self.children[*at]));
        Ok(ended.map(|(at, _)| at).chain(due).collect())
    }

    /// Something of a child's group has ended. If it is the child itself, the rest is stopped; if nobody is left, what it held is given back, and what follows is decided.
    fn reap(&mut self, index: usize, all: &mut Processes) -> Result<(), SupervisorError> {
        let child = &mut self.children[index];
        let Some(process) = &mut child.process else { return Ok(()) };
        let Some((end, ended_ns)) = process.ended().map_err(failed("reap a child"))? else {
            return Ok(());
        };
        let started_ns = process.started_ns;
        let has_rest = process.has_rest(all);
        if child.plan.process_ended() && has_rest {
            child.stop_the_rest();
        }
        if has_rest && !child.has_given_up() {
            return Ok(());
        }
        child.process = None;
        let swept = child::sweep(child.plan.spec());
        self.ended(index, end, ended_ns.saturating_sub(started_ns), swept);
        Ok(())
    }

    fn ended(&mut self, index: usize, end: End, ran_ns: u64, swept: u32) {
        let child = &mut self.children[index];
        child.last_end = Some(end);
        let spec = child.plan.spec();
        let (name, restart) = (spec.name.clone(), spec.restart);
        let ran = Duration::from_nanos(ran_ns);
        let (back_off, short_runs) = (self.back_off, &mut child.short_runs);
        let mut delay = None;
        let again = || {
            let is_wanted = match restart {
                Restart::Always => true,
                Restart::OnFailure => !end.is_success(),
                Restart::Never => false,
            };
            delay = is_wanted.then(|| {
                let is_short = ran < back_off.healthy;
                let delay = back_off.delay(if is_short { *short_runs } else { 0 });
                *short_runs = if is_short { short_runs.saturating_add(1) } else { 1 };
                delay
            });
            delay.map(after)
        };
        let stopped = !child.plan.over(again, self.together_ns);
        let told = Event::Ended { name: &name, end, stopped, ran, swept, restart_in: delay };
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
                let step = child.plan.restart();
                child.obey(step);
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
