//! The keeper: has a worker answer until it is interrupted. Nothing that goes wrong with a worker ends it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use shmbus::{Broker, GuardedTopic};
use shmbus_sys::signal::Signal;
use shmbus_sys::unix::{self, Readiness};
use shmbus_sys::{process, shm};
use signal_hook::consts::SIGHUP;

use super::config::{Config, count};
use crate::interrupt::{Interrupt, Interrupted};
use crate::text::tell;

/// How often somebody looks whether it shall end.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// How often a worker says that it answers.
pub(super) const BEAT: Duration = Duration::from_secs(1);
/// For how long a worker may say nothing before it is replaced.
const SILENCE: Duration = Duration::from_secs(10);
/// How long the keeper waits before it starts a worker again that ended before it answered anybody: at first, and at most.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long the keeper waits for a worker to take what it is passed.
const PASSING: Duration = Duration::from_secs(1);

/// What a worker says: that it answers; that it decides by the policy that came last.
pub(super) const ANSWERS: u8 = b'!';
pub(super) const DECIDES: u8 = b'p';

struct Keeper<'a> {
    path: &'a Path,
    /// The file as it was when it was right.
    config: Config,
    /// The program that runs here, whatever its path means by now.
    program: OwnedFd,
    listener: OwnedFd,
    topics: Vec<GuardedTopic>,
    interrupt: Interrupt,
    hang_up: Arc<AtomicBool>,
}

pub(super) fn keep(path: &Path, config: Config) -> Result<()> {
    let interrupt = Interrupt::on(&[Signal::INT, Signal::TERM])?;
    let hang_up = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGHUP, Arc::clone(&hang_up))?;
    let program = rustix::fs::open(
        "/proc/self/exe",
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    );
    let program = program.map_err(io::Error::from).context("cannot open /proc/self/exe")?;
    raise_limit(&config)?;
    let topics = config.topics.iter().map(|topic| topic.create()).collect::<Result<Vec<_>>>()?;
    let socket = config.socket.clone();
    let listener = Broker::listen(&socket);
    let listener = listener.with_context(|| format!("cannot listen at {}", socket.display()))?;
    tell(&format!("serving {} at {}", count(topics.len(), "topic"), socket.display()));
    let mut keeper = Keeper { path, config, program, listener, topics, interrupt, hang_up };
    let Interrupted = keeper.serve();
    let Keeper { listener, topics, .. } = keeper;
    drop(listener);
    if let Err(error) = Broker::remove_socket(&socket) {
        tell(&format!("cannot remove {}: {error}", socket.display()));
    }
    for topic in &topics {
        if let Err(error) = topic.retire() {
            tell(&format!("{error:#}"));
        }
    }
    Err(Interrupted.into())
}

/// Has this process, and the worker, which inherits it, have as many descriptors as they need.
fn raise_limit(config: &Config) -> Result<()> {
    let topics = config.topics.iter().map(|topic| GuardedTopic::descriptors(&topic.options)).sum();
    let rules = config.policy.rules.len();
    let needed = Broker::descriptors(topics, rules);
    let (_, most) = process::descriptor_limits();
    if most < *needed.start() {
        let (named, ruled) = (count(config.topics.len(), "topic"), count(rules, "rule"));
        bail!(
            "{named} need {topics} descriptors, and a broker of {ruled} {} more: {} in all, and the hard limit is {most} (ulimit -Hn; \
             LimitNOFILE of a service)",
            needed.start() - topics,
            needed.start(),
        );
    }
    Ok(process::raise_descriptor_limit(most.min(*needed.end()))?)
}

impl Keeper<'_> {
    /// Until it is interrupted.
    fn serve(&mut self) -> Interrupted {
        let mut pause = Duration::ZERO;
        let mut told = String::new();
        loop {
            let (why, answered) = match Worker::start(self) {
                Ok(mut worker) => match self.watch(&mut worker) {
                    Ok(why) => {
                        (format!("the worker {why}; another one is started"), worker.answers)
                    }
                    Err(interrupted) => return interrupted,
                },
                Err(error) => (format!("cannot start a worker, and try again: {error:#}"), false),
            };
            pause = match answered {
                true => Duration::from_millis(1),
                false => (pause * 2).clamp(PAUSE, PAUSE_MAX),
            };
            // The same again and again is told once.
            if answered || why != told {
                tell(&why);
                told = why;
            }
            if let Err(interrupted) = self.rest(pause) {
                return interrupted;
            }
        }
    }

    fn rest(&self, pause: Duration) -> Result<(), Interrupted> {
        let end = Instant::now() + pause;
        loop {
            self.interrupt.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    /// Until the worker ends, or has to: why.
    fn watch(&mut self, worker: &mut Worker) -> Result<String, Interrupted> {
        let mut silent = Duration::ZERO;
        loop {
            let begin = Instant::now();
            let waited = unix::wait(&[(worker.socket.as_fd(), true)], LOOK);
            self.interrupt.check()?;
            if self.hang_up.swap(false, Relaxed)
                && self.reload()
                && let Err(error) = worker.pass_policy(&self.config.text)
            {
                return Ok(format!("did not take the rules: {error}"));
            }
            let said = match waited.map(|ready| ready[0]) {
                Ok(Readiness::Nothing) => None,
                Ok(Readiness::Readable) => Some(worker.hear()),
                Ok(Readiness::Closed) => return Ok("has ended".to_owned()),
                Err(error) => return Ok(format!("cannot be waited for: {error}")),
            };
            match said {
                // Time in which this process was stopped, too, is no silence.
                None => silent += begin.elapsed().min(2 * LOOK),
                Some(Some(what)) => {
                    silent = Duration::ZERO;
                    worker.told(what);
                }
                Some(None) => return Ok("has ended".to_owned()),
            }
            if silent >= SILENCE {
                return Ok(format!("has said nothing for {} s", SILENCE.as_secs()));
            }
        }
    }

    /// Reads the file again; whether other rules are to be in effect.
    fn reload(&mut self) -> bool {
        let config = match Config::read(self.path) {
            Ok(config) => config,
            Err(error) => {
                tell(&format!("the rules of before stay: {error:#}"));
                return false;
            }
        };
        if config.socket != self.config.socket || config.topics != self.config.topics {
            tell("socket and topics stay as they are until a restart");
        }
        // The topics are those of before, and rules must be about them.
        let names: Vec<&str> = self.topics.iter().map(GuardedTopic::name).collect();
        let (limit, _) = process::descriptor_limits();
        let topics =
            self.config.topics.iter().map(|topic| GuardedTopic::descriptors(&topic.options));
        let needed = *Broker::descriptors(topics.sum(), config.policy.rules.len()).start();
        if let Err(error) = config.policy.check(&names) {
            tell(&format!("the rules of before stay: {}: {error}", self.path.display()));
            return false;
        }
        if needed > limit {
            tell(&format!(
                "the rules of before stay: more rules need {needed} descriptors, and the limit is {limit}"
            ));
            return false;
        }
        self.config.text = config.text;
        true
    }
}

/// A worker; killed and reaped when it is dropped.
struct Worker {
    child: Child,
    socket: OwnedFd,
    /// It has said that it does.
    answers: bool,
}

impl Worker {
    fn start(keeper: &Keeper<'_>) -> Result<Worker> {
        let (socket, theirs) = unix::pair()?;
        unix::set_timeout(socket.as_fd(), PASSING)?;
        let child = Command::new(format!("/proc/self/fd/{}", keeper.program.as_raw_fd()))
            .arg0("shmbus")
            .args(["serve", "--worker", "--config"])
            .arg(keeper.path)
            .stdin(Stdio::from(theirs))
            .process_group(0) // signals of a terminal are the keeper's
            .spawn()?;
        let worker = Worker { child, socket, answers: false };
        worker.pass_policy(&keeper.config.text)?;
        Broker::lend(worker.socket.as_fd(), keeper.listener.as_fd(), &keeper.topics)?;
        Ok(worker)
    }

    fn pass_policy(&self, text: &str) -> io::Result<()> {
        let file = shm::memfd("shmbus-policy")?;
        shm::write_all_at(file.as_fd(), text.as_bytes(), 0)?;
        unix::send(self.socket.as_fd(), b"p", &[file.as_fd()])
    }

    /// What it says; `None`: it has ended.
    fn hear(&self) -> Option<u8> {
        let mut what = [0];
        let len = unix::receive(self.socket.as_fd(), &mut what).unwrap_or(0);
        (len > 0).then_some(what[0])
    }

    fn told(&mut self, what: u8) {
        if what == DECIDES {
            tell("the rules were read again");
        }
        if !self.answers {
            self.answers = true;
            tell(&format!("worker {} answers", self.child.id()));
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
