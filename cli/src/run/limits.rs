//! As many descriptors as the processes of a file need: counted before any is started.

use anyhow::{Context, Result, bail};
use shmbus_sys::spawn::{Resource, Rlimit, getrlimit};

use super::config::{Config, Log};

/// Of each process: the process, and the end of the pipe that tells it to stop.
const EACH: u64 = 2;
/// Of each process whose lines are carried: both streams.
const CARRIED: u64 = 2;
/// While one is started, while its group is looked at, for files that are written.
const PASSING: u64 = 32;

/// What this process was allowed before it allowed itself more: its processes get that.
#[derive(Clone, Copy)]
pub(super) struct Before(pub(super) Rlimit);

impl Before {
    pub(super) fn now() -> Before {
        Before(getrlimit(Resource::Nofile))
    }
}

/// Raises the soft limit of descriptors to what the file needs, beside those that are open.
///
/// # Errors
/// The hard limit is lower.
pub(super) fn raise(config: &Config) -> Result<()> {
    let open = std::fs::read_dir("/proc/self/fd").map_or(64, Iterator::count) as u64;
    let of_one = |log: &Log| if *log == Log::Prefix { EACH + CARRIED } else { EACH };
    let processes: u64 = config.processes.iter().map(|process| of_one(&process.log)).sum();
    let topics = config.processes.iter().map(|process| process.topics.len()).max();
    let needed = open + processes + topics.unwrap_or(0) as u64 + PASSING;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if let Some(maximum) = maximum.filter(|maximum| *maximum < needed) {
        let count = config.processes.len();
        bail!(
            "{count} processes need {needed} descriptors, and {maximum} are allowed (`ulimit -Hn`, RLIMIT_NOFILE)"
        );
    }
    let raised = Rlimit { current: Some(needed), maximum };
    rustix::process::setrlimit(Resource::Nofile, raised)
        .with_context(|| format!("cannot allow this process {needed} descriptors"))
}
