//! `shmbus run`: a set of processes on a set of topics, supervised.

pub(crate) mod config;
pub(crate) mod leftover;
mod limits;
mod logs;
mod place;
pub(crate) mod record;
pub(crate) mod state;

use std::fmt;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use shmbus::Directory;
use shmbus::process::{Cause, End, Event, Supervisor, SupervisorError};
use shmbus_sys::signal::{self, Signal, Signals};
use shmbus_sys::{clock, process, ready, spawn};

use self::config::Config;
use self::leftover::Guard;
use self::logs::Output;
use self::place::Place;
use self::record::Status;
use self::state::Name;

const EXAMPLES: &str = "\
Examples:
  shmbus run market.toml
  shmbus run market.toml --check
  shmbus status market

SIGTERM and Ctrl-C stop all processes; the same one again kills them. SIGHUP reads the file again: processes that are new are \
started, those that are gone are stopped, those that are changed are restarted, the others go on. When the terminal is gone it \
stops everything, and under nohup it is ignored. docs/guide/processes.md has what the file may say.

Exit status:
  0  stopped as it was asked to; or all processes have ended by themselves, with status 0
  1  failed; or a process that is not restarted has ended otherwise; or what was printed was not
     read and is lost
  2  the file is wrong
  3  too many restarts: everything was stopped";

/// Supervise the processes in a file, on the topics in it
///
/// Topics that are not there are created first and removed at the end. Processes inherit the topics that they are given, are restarted as the file says, and die with
/// this one.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// What is to run, in TOML
    file: PathBuf,
    /// Only see whether the file is right
    #[arg(long)]
    check: bool,
    /// Do not say what happens to processes
    #[arg(short, long)]
    quiet: bool,
}

/// It has ended with this exit code, and why was said.
#[derive(Debug)]
pub(crate) struct Ended(pub(crate) u8);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ended with status {}", self.0)
    }
}

impl std::error::Error for Ended {}

/// A process that is not restarted has ended otherwise than with status 0.
#[derive(Debug)]
struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

/// How long what was printed is carried after a request to stop, or after giving up.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn run(directory: &Directory, arguments: &Arguments) -> Result<()> {
    let config = Config::read(&arguments.file)?;
    if arguments.check {
        return Ok(());
    }
    spawn::close_others_on_exec().context("cannot keep descriptors from processes")?;
    let mut supervisor = Supervisor::new()?;
    supervisor.take_signals()?; // no other thread was started yet
    if process::adopts_orphans() {
        supervisor.reap_orphans()?;
    }
    let width = config.processes.iter().map(|process| process.name.len()).max().unwrap_or(0);
    let output = Output::start(width).context("cannot start the threads that carry output")?;
    let outcome = supervise(directory, arguments, &config, supervisor, &output);
    let (code, patience) = match &outcome {
        Ok(Cause::AllEnded) => (0, None), // as in any pipe: as long as whoever reads takes
        Ok(_) => (0, Some(PATIENCE)),
        Err(error) => {
            output.tell(&format!("{error:#}"));
            match error.downcast_ref() {
                Some(SupervisorError::TooManyRestarts { .. }) => (3, Some(PATIENCE)),
                _ if error.is::<config::Wrong>() => (2, Some(PATIENCE)),
                _ if error.is::<Failed>() => (1, None),
                _ => (1, Some(PATIENCE)),
            }
        }
    };
    let untaken = finish(&output, patience).context("cannot wait for what was printed")?;
    if untaken > 0 {
        logs::try_say(&format!("{untaken} bytes that were printed are lost: nobody read them"));
    }
    match if code == 0 && untaken > 0 { 1 } else { code } {
        0 => Ok(()),
        code => Err(Ended(code).into()),
    }
}

/// Waits until everything that was printed is written; not longer than `patience`, which a signal sets, and which a second one ends. How many bytes are lost.
fn finish(output: &Output, mut patience: Option<Duration>) -> Result<usize> {
    let done = output.finish();
    let mut wanted = vec![Signal::TERM];
    if !signal::is_ignored(Signal::INT)? {
        wanted.push(Signal::INT);
    }
    let signals = Signals::take(&wanted)?; // blocked since the supervisor took them
    let mut is_patient = patience.is_none();
    loop {
        let until_ns = patience.map(|time| clock::monotonic_ns() + time.as_nanos() as u64);
        let ready = ready::wait(&[done, signals.as_fd()], until_ns)?;
        if ready[0] {
            return Ok(0);
        }
        if !ready[1] || !std::mem::take(&mut is_patient) {
            return Ok(output.untaken());
        }
        while signals.next()?.is_some() {}
        patience = Some(PATIENCE);
    }
}

/// Runs the tree. Its topics and then its name are free again before this returns.
fn supervise(
    directory: &Directory,
    arguments: &Arguments,
    config: &Config,
    mut supervisor: Supervisor,
    output: &Output,
) -> Result<Cause> {
    let is_up = || record::is_there(directory, &config.name);
    let (mut name, left) = Name::take(directory, &config.name, is_up)?;
    record::forget(directory, &config.name)?; // its processes are not this one's
    if let Some(left) = left {
        leftover::end(&left)?;
        name.state.topics = left.topics;
    }
    name.write().context("cannot write down what this run does")?;
    let guard = Guard::start(directory, &config.name, &name.state)?;
    let place = Place::new(directory, name, output); // and with it the name: dropped last
    let status = Arc::new(Mutex::new(Status::begin(directory, &config.name)?));
    let children = place.prepare(config).inspect_err(|_| place.remove_topics())?;
    supervisor.strategy = config.strategy;
    supervisor.back_off = config.back_off;
    supervisor.intensity = config.intensity;
    for child in children {
        supervisor.add(child)?;
    }
    watch(&mut supervisor, arguments, &place, &status, output);
    let outcome = supervisor.run();
    drop(guard);
    place.remove_topics();
    drop(status);
    drop(place);
    let report = outcome?;
    let failed =
        report.children.iter().find(|child| child.last_end.is_some_and(|end| !end.is_success()));
    match failed.and_then(|child| Some((&child.name, child.last_end?))) {
        Some((name, end)) if report.cause == Cause::AllEnded => {
            Err(Failed(format!("{name} {end}")).into())
        }
        _ => Ok(report.cause),
    }
}

/// What follows from what happens.
fn watch(
    supervisor: &mut Supervisor,
    arguments: &Arguments,
    place: &Place,
    status: &Arc<Mutex<Status>>,
    output: &Output,
) {
    let (writing, publishing, telling) = (place.clone(), Arc::clone(status), output.clone());
    let quiet = arguments.quiet;
    supervisor.on_event(move |event| {
        match &event {
            Event::Started { name, child } => writing.started(name, child.id()),
            Event::Ended { name, .. } => writing.ended(name),
            _ => {}
        }
        match event {
            Event::Started { name, child } => telling.carry(name, child),
            Event::Changed(children) => {
                publishing.lock().unwrap_or_else(PoisonError::into_inner).publish(children);
            }
            event if !quiet => say(&telling, &event),
            _ => {}
        }
    });
    let (reloading, telling, file) = (place.clone(), output.clone(), arguments.file.clone());
    supervisor.on_reload(move || match reloading.reload(&file) {
        Ok(children) => {
            telling.tell("the file was read again");
            Some(children)
        }
        Err(error) => {
            telling.tell(&format!("nothing is changed: {error:#}"));
            None
        }
    });
}

/// Tells people what happened.
fn say(output: &Output, event: &Event<'_>) {
    let line = match event {
        Event::NotStarted { name, error, retry_in: Some(delay) } => {
            format!("{name} was not started: {error}; again in {delay:?}")
        }
        Event::NotStarted { name, error, .. } => format!("{name} was not started: {error}"),
        // Why was told just before.
        Event::Ended { end: End::NotStarted(_), name, restart_in: Some(delay), .. } => {
            format!("{name}: again in {delay:?}")
        }
        Event::Ended { end: End::NotStarted(_), .. } => return,
        Event::Ended { name, end, ran, restart_in, swept, .. } => {
            let again = restart_in.map_or(String::new(), |delay| format!("; again in {delay:?}"));
            let left = match swept {
                0 => String::new(),
                swept => format!("; its places in topics were given back: {swept}"),
            };
            format!("{name} {end} after {:.1} s{left}{again}", ran.as_secs_f64())
        }
        Event::GivingUp { name } => format!("{name} is restarted too often: everything is stopped"),
        _ => return,
    };
    output.tell(&line);
}
