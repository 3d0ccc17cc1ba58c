//! The name of a supervisor, and what the next one of that name has to know if this one is killed.
//!
//! `.run-NAME` is locked by the supervisor that has the name. Its mode is 0600: whoever may only read the directory can neither lock it nor look at
//! the lock. `.run.state-NAME` has the topics that the supervisor has created and the processes that it has started. Both are removed at an orderly end.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use shmbus::Directory;
use shmbus_sys::record::{Kind, Records};
use shmbus_sys::shm::Access;
use shmbus_sys::spawn::FileId;
use shmbus_sys::{clock, process, shm};

/// Variable of the processes of a tree: which run has started them.
pub(super) const TOKEN: &str = "SHMBUS_RUN";

/// How long a supervisor that begins or ends may keep its name from the next one.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a run writes down as it goes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// Tells this run from all others.
    pub(super) token: String,
    pub(super) pid: u32,
    start_ticks: u64,
    pub(super) since_ns: u64,
    /// Numbers and start times mean something in here only.
    machine: String,
    pub(super) session: u32,
    pub(super) topics: Vec<Created>,
    pub(super) processes: Vec<Started>,
}

/// A topic that this run, or one before it that was killed, has created.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Created {
    pub(super) name: String,
    pub(super) instance: u64,
    pub(super) keep: bool,
}

/// A process that was started and has not ended yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Started {
    pub(super) name: String,
    pub(super) pid: u32,
    pub(super) start_ticks: u64,
}

impl State {
    fn new() -> State {
        let own = process::stat(process::pid());
        State {
            token: format!("{:016x}", RandomState::new().build_hasher().finish()),
            pid: process::pid(),
            start_ticks: own.map_or(0, |own| own.start_ticks),
            since_ns: clock::realtime_ns(),
            machine: machine(),
            session: own.map_or(0, |own| own.session),
            ..State::default()
        }
    }

    /// `None`: there is none, or it is not one.
    pub(super) fn read(path: &Path) -> Option<State> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Whether its process numbers are numbers here.
    pub(super) fn is_of_this_machine(&self) -> bool {
        self.machine == machine()
    }
}

/// This boot of this machine, and this pid namespace.
fn machine() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{} {}", boot.trim(), namespace.display())
}

fn lock_path(directory: &Directory, name: &str) -> PathBuf {
    directory.path().join(format!(".run-{name}"))
}

pub(super) fn state_path(directory: &Directory, name: &str) -> PathBuf {
    directory.path().join(format!(".run.state-{name}"))
}

/// The name, while this lives.
pub(super) struct Name {
    lock: PathBuf,
    path: PathBuf,
    new: PathBuf,
    pub(super) state: State,
    /// What is in the file is this run's.
    is_written: bool,
    _records: Records,
}

impl Name {
    /// Takes the name, and what the last run of it has left, if that was killed. `is_up`: whether a run of that name has published something, so that it is
    /// not just beginning or ending.
    ///
    /// # Errors
    /// A run of that name lives.
    pub(super) fn take(
        directory: &Directory,
        name: &str,
        is_up: impl Fn() -> bool,
    ) -> Result<(Name, Option<State>)> {
        let (lock, path) = (lock_path(directory, name), state_path(directory, name));
        let new = directory.path().join(format!(".run.new-{name}"));
        let failed = || format!("the file of the name, {}", lock.display());
        let deadline_ns = clock::monotonic_ns() + PATIENCE.as_nanos() as u64;
        // Again where the last one has removed its file in the moment between.
        while clock::monotonic_ns() <= deadline_ns {
            let records = Records::open_or_create(&lock, 0o600).with_context(failed)?;
            let owner = shm::owner(records.as_fd()).with_context(failed)?;
            if owner.uid != shm::effective_uid() || owner.mode & 0o077 != 0 {
                bail!("{} is not this user's alone", lock.display());
            }
            let wait_until = if is_up() { 0 } else { deadline_ns };
            if !records.lock(Kind::Exclusive, 0, 1, Some(wait_until)).with_context(failed)? {
                let process = State::read(&path).map(|state| format!(": process {}", state.pid));
                bail!("{name} runs already{}", process.unwrap_or_default());
            }
            let locked = FileId::of(records.as_fd()).with_context(failed)?;
            let is_named = fs::symlink_metadata(&lock)
                .is_ok_and(|named| locked == FileId { device: named.dev(), inode: named.ino() });
            if is_named {
                let left = State::read(&path);
                let state = State::new();
                let taken = Name { lock, path, new, state, is_written: false, _records: records };
                return Ok((taken, left));
            }
        }
        bail!("{}: somebody else makes and removes it all the time", failed())
    }

    /// Writes down what has changed: all of it or nothing is there after a kill.
    pub(super) fn write(&mut self) -> io::Result<()> {
        let mut options = fs::OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&self.new)?;
        file.write_all(&serde_json::to_vec(&self.state)?)?;
        fs::rename(&self.new, &self.path)?;
        self.is_written = true;
        Ok(())
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // What a killed run has left stays, if this one has not got to taking it over.
        if self.is_written || !self.path.exists() {
            for path in [&self.new, &self.path, &self.lock] {
                let _ = fs::remove_file(path); // the last with its lock held: see `take`
            }
        }
    }
}

/// Whether a supervisor lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Alive {
        pid: u32,
        since_ns: u64,
    },
    Gone,
    /// Its file may not be opened.
    Unknown,
}

impl Life {
    pub(crate) fn of(directory: &Directory, name: &str) -> Life {
        let records = match Records::open(&lock_path(directory, name), Access::ReadWrite) {
            Ok(records) => records,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Life::Gone,
            Err(_) => return Life::Unknown,
        };
        match records.conflict(Kind::Exclusive, 0, 1) {
            Ok(None) => Life::Gone,
            Ok(Some(_)) => {
                let state = State::read(&state_path(directory, name)).unwrap_or_default();
                let is_there = process::start_time_ticks(state.pid) == Some(state.start_ticks);
                match is_there || !state.is_of_this_machine() {
                    true => Life::Alive { pid: state.pid, since_ns: state.since_ns },
                    false => Life::Gone, // the next one has the name, and has said nothing yet
                }
            }
            Err(_) => Life::Unknown,
        }
    }
}
