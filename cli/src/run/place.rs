//! Where a run has its topics, which of them it has created, and the processes on them.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use shmbus::process::ChildSpec;
use shmbus::{CreateError, Directory, OpenError, RawTopic, RemoveError, Schema};
use shmbus_sys::process;
use shmbus_sys::spawn::{self, Resource};

use super::config::{self, Config, Process, Topic};
use super::limits::{self, Before};
use super::logs::{self, Output};
use super::state::{Created, Name, Started, TOKEN};

/// How often a topic that comes and goes is asked for.
const TRIES: u32 = 20;

/// Where topics are, and those that this run has to do with.
#[derive(Clone)]
pub(super) struct Place {
    directory: Directory,
    output: Output,
    /// What processes are allowed.
    before: Before,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    name: Name,
    topics: Vec<Held>,
}

struct Held {
    topic: RawTopic,
    name: String,
}

impl Place {
    pub(super) fn new(directory: &Directory, name: Name, output: &Output) -> Place {
        let inner = Arc::new(Mutex::new(Inner { name, topics: Vec::new() }));
        let (directory, output) = (directory.clone(), output.clone());
        Place { directory, output, before: Before::now(), inner }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The processes of a file, after the topics that are not there were created.
    pub(super) fn prepare(&self, config: &Config) -> Result<Vec<ChildSpec>> {
        let mut inner = self.lock();
        for wanted in &config.topics {
            let topic = self.open(&mut inner, wanted)?;
            if wanted.schema.is_some() && wanted.schema.as_ref() != topic.schema() {
                let boxed = |schema: Option<&Schema>| schema.cloned().map(Box::new);
                let (found, expected) = (boxed(topic.schema()), boxed(wanted.schema.as_ref()));
                let error = OpenError::Type { name: wanted.name.clone(), found, expected };
                return Err(error).with_context(|| wanted.place.clone());
            }
            let created = inner.name.state.topics.iter_mut();
            for created in created.filter(|created| created.name == wanted.name) {
                created.keep = wanted.keep;
            }
            inner.topics.retain(|other| other.name != wanted.name);
            inner.topics.push(Held { topic, name: wanted.name.clone() });
        }
        inner.name.write().context("cannot write down which topics this run has created")?;
        drop(inner);
        limits::raise(config)?;
        config.processes.iter().map(|process| self.spec(process)).collect()
    }

    /// Opens a topic, or creates it and writes down that it is this run's.
    fn open(&self, inner: &mut Inner, wanted: &Topic) -> Result<RawTopic> {
        let (directory, name, options) = (&self.directory, &wanted.name, &wanted.options);
        for attempt in 1.. {
            match RawTopic::open_in(directory, name) {
                Err(
                    OpenError::NotFound { .. }
                    | OpenError::Retired { .. }
                    | OpenError::Corrupt { .. }, // creating replaces it if it can
                ) => {}
                Err(OpenError::Name(error)) => return Err(config::wrong(&wanted.place, &error)),
                Err(error) => return Err(error).with_context(|| wanted.place.clone()),
                Ok(topic) => return Ok(topic),
            }
            let created = match &wanted.schema {
                None => RawTopic::create_in(directory, name, options),
                Some(schema) => RawTopic::create_with_schema_in(directory, name, options, schema),
            };
            match created {
                // Somebody else was faster, or what is there is no topic any more.
                Err(CreateError::Exists { .. }) if attempt < TRIES => {}
                Err(CreateError::Options(error)) => {
                    return Err(config::wrong(&wanted.place, &error));
                }
                Err(error) => return Err(error).with_context(|| wanted.place.clone()),
                Ok(topic) => {
                    let (name, instance) = (name.clone(), topic.info().instance);
                    let created = Created { name, instance, keep: wanted.keep };
                    let topics = &mut inner.name.state.topics;
                    topics.retain(|other| other.name != created.name); // of another instance, gone
                    topics.push(created);
                    inner.name.write().context("cannot write down that this run has created it")?;
                    return Ok(topic);
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        unreachable!("the last attempt returns")
    }

    /// A process of the file as the supervisor wants it.
    fn spec(&self, wanted: &Process) -> Result<ChildSpec> {
        let program = wanted.command[0].clone();
        let arguments = wanted.command[1..].to_vec();
        let (env, cwd, log) = (wanted.env.clone(), wanted.cwd.clone(), wanted.log.clone());
        let path = std::fs::canonicalize(self.directory.path())?;
        let (token, Before(limits)) = (self.lock().name.state.token.clone(), self.before);
        let mut child = ChildSpec::new(&wanted.name, move || {
            let mut command = Command::new(&program);
            command.args(&arguments).current_dir(&cwd).env("SHMBUS_DIR", &path).envs(&env);
            command.env(TOKEN, &token);
            spawn::limit(&mut command, Resource::Nofile, limits);
            logs::set(&mut command, &log)?;
            Ok(command)
        });
        child.restart = wanted.restart;
        child.stop = wanted.stop;
        child.revision = format!("{wanted:?}");
        let inner = self.lock();
        for held in inner.topics.iter().filter(|held| wanted.topics.contains(&held.name)) {
            child.topic(&held.topic);
        }
        Ok(child)
    }

    /// The processes of the file as it is now, on its topics.
    pub(super) fn reload(&self, file: &Path) -> Result<Vec<ChildSpec>> {
        // A pipe would hold everything up, or was read to its end.
        if !std::fs::metadata(file).is_ok_and(|file| file.is_file()) {
            bail!("{} is not a file that can be read again", file.display());
        }
        self.prepare(&Config::read(file)?)
    }

    /// Writes down that a process was started.
    pub(super) fn started(&self, name: &str, pid: u32) {
        let start_ticks = process::start_time_ticks(pid).unwrap_or(0);
        let mut inner = self.lock();
        let started = &mut inner.name.state.processes;
        started.retain(|other| other.name != name);
        started.push(Started { name: name.to_owned(), pid, start_ticks });
        self.write(&mut inner);
    }

    /// Writes down that one has ended, and all that it had started.
    pub(super) fn ended(&self, name: &str) {
        let mut inner = self.lock();
        inner.name.state.processes.retain(|other| other.name != name);
        self.write(&mut inner);
    }

    fn write(&self, inner: &mut Inner) {
        if let Err(error) = inner.name.write() {
            let what = "cannot write down which processes run; after a kill they may be left";
            self.output.tell(&format!("{what}: {error}"));
        }
    }

    /// Removes the topics that it has created and is not to keep, unless others take part in them.
    pub(super) fn remove_topics(&self) {
        let mut inner = self.lock();
        inner.topics.clear();
        for Created { name, instance, keep } in std::mem::take(&mut inner.name.state.topics) {
            if keep {
                continue;
            }
            let removed = match self.directory.inspect(&name) {
                Ok(info) if info.instance == instance => self.directory.remove(&name, false),
                Ok(_) => Ok(()), // another one of that name is somebody else's
                Err(error) => Err(error.into()),
            };
            match removed {
                Ok(()) | Err(RemoveError::Open(OpenError::NotFound { .. })) => {}
                Err(error) => self.output.tell(&format!("{:#}", anyhow::Error::from(error))),
            }
        }
    }
}
