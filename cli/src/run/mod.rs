//! `shmbus run`: a set of processes on a set of topics, supervised.

pub(crate) mod config;
mod logs;
pub(crate) mod record;

use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use shmbus::process::{Cause, ChildSpec, End, Event, Supervisor, SupervisorError};
use shmbus::{CreateError, Directory, OpenError, RawTopic, RemoveError};

use self::config::{Config, Process};
use self::logs::Logs;
use self::record::Status;
use crate::text;

const EXAMPLES: &str = "\
Examples:
  shmbus run market.toml
  shmbus run market.toml --check
  shmbus status market

SIGTERM and Ctrl-C stop all processes, and a second time kill them. SIGHUP reads the file again: processes that are new are \
started, those that are gone are stopped, those that are changed are restarted, the others go on. docs/guide/processes.md has \
what the file may say.

Exit status:
  0  stopped as it was asked to; or all processes have ended by themselves, with status 0
  1  failed; or a process that is not restarted has ended otherwise
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

/// Too many restarts: exit code 3.
#[derive(Debug)]
pub(crate) struct GaveUp(SupervisorError);

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for GaveUp {}

pub(crate) fn run(directory: &Directory, arguments: &Arguments) -> Result<()> {
    let config = Config::read(&arguments.file)?;
    if arguments.check {
        return Ok(());
    }
    let mut supervisor = Supervisor::new()?;
    supervisor.take_signals()?; // no other thread was started yet
    let mut status = Status::begin(directory, &config.name)?;
    let (directory, resumes) = (directory.clone(), status.resumes);
    let place = Place { directory, resumes, topics: Arc::default() };
    let children = place.prepare(&config).inspect_err(|_| place.remove_topics())?;
    supervisor.strategy = config.strategy;
    supervisor.back_off = config.back_off;
    supervisor.intensity = config.intensity;
    for child in children {
        supervisor.add(child)?;
    }
    let width = config.processes.iter().map(|process| process.name.len()).max().unwrap_or(0);
    let logs = Arc::new(Mutex::new(Logs::new(width)));
    let (carrying, quiet) = (Arc::clone(&logs), arguments.quiet);
    supervisor.on_event(move |event| match event {
        Event::Started { name, child } => {
            carrying.lock().unwrap_or_else(PoisonError::into_inner).carry(name, child);
        }
        Event::Changed(children) => status.publish(children),
        event if !quiet => say(&event),
        _ => {}
    });
    let (reloading, file) = (place.clone(), arguments.file.clone());
    supervisor.on_reload(move || match reloading.reload(&file) {
        Ok(children) => {
            text::tell("the file was read again");
            Some(children)
        }
        Err(error) => {
            text::tell(&format!("nothing is changed: {error:#}"));
            None
        }
    });
    let outcome = supervisor.run();
    logs.lock().unwrap_or_else(PoisonError::into_inner).finish(Duration::from_secs(1));
    place.remove_topics();
    let report = match outcome {
        Err(error @ SupervisorError::TooManyRestarts { .. }) => return Err(GaveUp(error).into()),
        outcome => outcome?,
    };
    if report.cause == Cause::AllEnded {
        let failed = report
            .children
            .iter()
            .find(|child| child.last_end.is_some_and(|end| !end.is_success()));
        if let Some((name, end)) = failed.and_then(|child| Some((&child.name, child.last_end?))) {
            bail!("{name} {end}");
        }
    }
    Ok(())
}

/// Tells people what happened.
fn say(event: &Event<'_>) {
    let line = match event {
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
    text::tell(&line);
}

/// Where topics are, and those that this run has to do with.
#[derive(Clone)]
struct Place {
    directory: Directory,
    /// The last run of that name was killed: topics that are there are its.
    resumes: bool,
    topics: Arc<Mutex<Vec<Held>>>,
}

/// How often opening and creating are tried in turn while others create and remove a topic.
const TRIES: u32 = 100;

struct Held {
    topic: RawTopic,
    name: String,
    /// Not there before this run, or left by one that was killed.
    is_ours: bool,
    keep: bool,
}

impl Place {
    /// The processes of a file, after the topics that are not there were created.
    fn prepare(&self, config: &Config) -> Result<Vec<ChildSpec>> {
        self.create(config)?;
        config.processes.iter().map(|process| self.spec(process)).collect()
    }

    fn create(&self, config: &Config) -> Result<()> {
        let mut held = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        for wanted in &config.topics {
            let mut tries = 0;
            let opened = loop {
                tries += 1;
                match RawTopic::open_in(&self.directory, &wanted.name) {
                    Err(
                        OpenError::NotFound { .. }
                        | OpenError::Retired { .. }
                        | OpenError::Corrupt { .. }, // creating replaces it if it can
                    ) => {}
                    Err(OpenError::Name(error)) => {
                        return Err(config::wrong(&wanted.place, &error));
                    }
                    Err(error) => return Err(error).with_context(|| wanted.place.clone()),
                    Ok(topic) => break (topic, self.resumes),
                }
                let (directory, name, options) = (&self.directory, &wanted.name, &wanted.options);
                let created = match &wanted.schema {
                    None => RawTopic::create_in(directory, name, options),
                    Some(schema) => {
                        RawTopic::create_with_schema_in(directory, name, options, schema)
                    }
                };
                match created {
                    Err(CreateError::Exists { .. }) if tries < TRIES => {} // somebody else was faster
                    Err(CreateError::Options(error)) => {
                        return Err(config::wrong(&wanted.place, &error));
                    }
                    Err(error) => return Err(error).with_context(|| wanted.place.clone()),
                    Ok(topic) => break (topic, true),
                }
            };
            let (opened, is_ours) = opened;
            if wanted.schema.is_some() && wanted.schema.as_ref() != opened.schema() {
                let boxed = |schema: Option<&shmbus::Schema>| schema.cloned().map(Box::new);
                let (found, expected) = (boxed(opened.schema()), boxed(wanted.schema.as_ref()));
                let error = OpenError::Type { name: wanted.name.clone(), found, expected };
                return Err(error).with_context(|| wanted.place.clone());
            }
            let before = held.iter().position(|other| other.name == wanted.name);
            let is_ours = is_ours || before.is_some_and(|at| held.swap_remove(at).is_ours);
            let (name, keep) = (wanted.name.clone(), wanted.keep);
            held.push(Held { topic: opened, name, is_ours, keep });
        }
        Ok(())
    }

    /// A process of the file as the supervisor wants it.
    fn spec(&self, process: &Process) -> Result<ChildSpec> {
        let program = process.command[0].clone();
        let arguments = process.command[1..].to_vec();
        let (env, cwd, log) = (process.env.clone(), process.cwd.clone(), process.log.clone());
        let path = std::fs::canonicalize(self.directory.path())?;
        let mut child = ChildSpec::new(&process.name, move || {
            let mut command = Command::new(&program);
            command.args(&arguments).current_dir(&cwd).env("SHMBUS_DIR", &path).envs(&env);
            Logs::set(&mut command, &log)?;
            Ok(command)
        });
        child.restart = process.restart;
        child.stop = process.stop;
        child.revision = format!("{process:?}");
        let held = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        for topic in held.iter().filter(|held| process.topics.contains(&held.name)) {
            child.topic(&topic.topic);
        }
        Ok(child)
    }

    /// The processes of the file as it is now, on its topics.
    fn reload(&self, file: &std::path::Path) -> Result<Vec<ChildSpec>> {
        self.prepare(&Config::read(file)?)
    }

    /// Removes the topics that it has created and is not to keep, unless others take part in them.
    fn remove_topics(&self) {
        let mut held = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        for Held { topic, name, is_ours, keep } in held.drain(..) {
            drop(topic);
            if keep || !is_ours {
                continue;
            }
            match self.directory.remove(&name, false) {
                Ok(())
                | Err(RemoveError::Open(OpenError::NotFound { .. } | OpenError::Retired { .. })) => {
                }
                Err(error) => text::tell(&format!("{error:#}")),
            }
        }
    }
}
