//! What a killed supervisor has left running, and the guard that ends it.
//!
//! The processes of a killed supervisor get SIGKILL from the kernel, but not all: one that changes its user or group has lost that order, and what they have started
//! themselves never had it. The guard is a process beside the supervisor, of the same program. It waits for the other end of its standard input to go away, which
//! is the death of the supervisor, and ends what the supervisor has written down and what carries its token. The next run of the name does the
//! same before it starts anything, so that nothing runs twice, even if the guard was killed too.
//!
//! A process is known by its number and its start time, or by the token in its environment; both are compared again after its descriptor was opened.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use shmbus::Directory;
use shmbus_sys::pidfd::{PidFd, Signal};
use shmbus_sys::process::{self, Stat};
use shmbus_sys::signal::Signals;
use shmbus_sys::{clock, ready};

use super::state::{self, State, TOKEN};

/// How long a process may take to die of SIGKILL.
const PATIENCE: Duration = Duration::from_secs(5);

/// What `argv[0]` of a guard is.
const GUARD: &str = "shmbus-guard";

/// The guard of a supervisor. Dropped, it is ended: there is nothing left to guard.
pub(super) struct Guard {
    child: Child,
    pidfd: PidFd,
    _alive: OwnedFd,
}

impl Guard {
    pub(super) fn start(directory: &Directory, name: &str, state: &State) -> Result<Guard> {
        let path = state::state_path(directory, name);
        let path = std::path::absolute(path).context("cannot find the way to the directory")?;
        let (theirs, ours) = ready::pipe().context("cannot make a pipe")?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0(GUARD).arg(path).arg(&state.token).env_clear().current_dir("/");
        command.process_group(0).stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().context("cannot start the guard of the processes")?;
        let pidfd = PidFd::of(&child).context("cannot watch the guard of the processes")?;
        Ok(Guard { child, pidfd, _alive: ours })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // By descriptor: as process 1 it may have been reaped as an orphan.
        let _ = self.pidfd.send(Signal::KILL);
        let _ = self.pidfd.wait();
        let _ = self.child.stdin.take();
    }
}

/// Plays the guard, if this process is one.
pub(crate) fn guard() -> Option<Result<()>> {
    let mut arguments = std::env::args_os();
    if arguments.next()? != GUARD {
        return None;
    }
    let path = PathBuf::from(arguments.next()?);
    let token = arguments.next()?.into_string().ok()?;
    let _ = rustix::thread::set_name(c"shmbus-guard");
    // Those that end the supervisor in order may come to its guard too.
    let _signals = Signals::take(&[Signal::TERM, Signal::INT, Signal::HUP]);
    let _ = std::io::stdin().read(&mut [0]); // it never writes: this is its end
    let ended = State::read(&path).filter(|state| state.token == token);
    Some(ended.map_or(Ok(()), |state| end(&state)))
}

/// Ends what a killed run has left running, and waits for that.
///
/// # Errors
/// Something does not end, or this user may not end it.
pub(super) fn end(state: &State) -> Result<()> {
    if !state.is_of_this_machine() {
        return Ok(());
    }
    let deadline_ns = clock::monotonic_ns() + PATIENCE.as_nanos() as u64;
    loop {
        let all = process::all().context("cannot look for what the last run has left")?;
        let left: Vec<&Stat> = all.iter().filter(|stat| is_left(state, stat, &all)).collect();
        let fds = left.iter().filter_map(|stat| {
            let pidfd = PidFd::of_process(stat.pid, stat.start_ticks).ok()??;
            let _ = pidfd.send(Signal::KILL); // where it may not be: it is waited for in vain
            Some(pidfd)
        });
        let fds: Vec<PidFd> = fds.collect();
        if left.is_empty() {
            return Ok(());
        }
        if clock::monotonic_ns() >= deadline_ns {
            let pids: Vec<String> = left.iter().map(|stat| stat.pid.to_string()).collect();
            bail!("what the last run has left cannot be ended: process {}", pids.join(", "));
        }
        // Until one has ended; a descriptor may be missing.
        let until_ns = clock::monotonic_ns() + 20_000_000;
        let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        ready::wait(&borrowed, Some(until_ns)).context("cannot wait for what the last run left")?;
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether it belongs to that run: it is one of its processes, in the group of one that is still there, or has its token and has not left its session.
fn is_left(state: &State, stat: &Stat, all: &[Stat]) -> bool {
    if stat.has_ended || stat.pid == std::process::id() {
        return false;
    }
    let is_started = |stat: &Stat| {
        let mut started = state.processes.iter();
        started.any(|one| one.pid == stat.pid && one.start_ticks == stat.start_ticks)
    };
    let leader = all.iter().find(|other| other.pid == stat.group);
    leader.is_some_and(is_started)
        || is_started(stat)
        || (stat.session == state.session && has_token(stat.pid, &state.token))
}

fn has_token(pid: u32, token: &str) -> bool {
    let wanted = format!("{TOKEN}={token}");
    std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
        environ.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    })
}
